"""``bauta gallery ...``: a gallery of people that changes while it is used, and whose erasures hold."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from bauta.cli.console import clean, show_facts, show_note, show_notes, show_table
from bauta.cli.secrets import AskNewPassphrase, AskPassphrase, NewKey, NewPassphraseFile, PassphraseFile, gallery_key
from bauta.errors import GalleryDamaged, UsageError, missing_extra

if TYPE_CHECKING:
    from bauta.gallery.service import FaceService
    from bauta.gallery.store import Store

gallery = typer.Typer(no_args_is_help=True, help="People of a face service: enrol, find, revoke, erase.")

Place = Annotated[
    str, typer.Argument(metavar="GALLERY", help="Folder of the gallery, or postgresql://...", show_default=False)
]
Keys = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--keys", metavar="FILE", help="The key store. By default keys.db in the folder; better on another disk."
    ),
]
Key = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE", help="Key that seals the key store, of `bauta key`."),
]
Tenant = Annotated[str, typer.Option(metavar="NAME", help="Whose people; tenants do not see each other.")]
Subject = Annotated[str, typer.Argument(help="Your name for the person; a pseudonym is best.", show_default=False)]
Photo = Annotated[Path, typer.Argument(help="A photo of one face.", show_default=False)]
Protector = Annotated[str, typer.Option(metavar="DIR", help="A fitted protector, or the name of one that ships.")]
Aligned = Annotated[bool, typer.Option("--aligned", help="The photos are aligned 112x112 crops.")]
Fmr = Annotated[float, typer.Option(help="False match rate of a comparison: 1e-2, 1e-3 or 1e-4.")]
Threshold = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=-1.0, max=1.0, metavar="COSINE", help="Match from this cosine on, instead of the recogniser's."),
]
Former = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="DIR", help="After `migrate`: the protector of before, while people wait for new photos."),
]
FormerThreshold = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=-1.0, max=1.0, metavar="COSINE", help="As --threshold, of the protector of before."),
]
Unprotected = Annotated[
    bool,
    typer.Option(
        "--store-faces-unprotected",
        help="Allow a reference method that protects nothing: who gets gallery and keys has the faces.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

SHIPPED = "advface-mobilefacenet"
DATABASE, KEY_STORE = "gallery.db", "keys.db"


def needs_server(error: ModuleNotFoundError, what: str) -> Exception:
    """What to raise where a package of the extra is missing."""
    module = (error.name or "").partition(".")[0]
    if module in ("sqlalchemy", "fastapi", "uvicorn", "psycopg", "starlette", "pydantic"):
        return missing_extra("sqlalchemy" if module not in ("fastapi", "psycopg") else module, what=what)
    return error


def places(place: str, keys: Path | None) -> tuple[Path | str, Path]:
    """Where the gallery is, and its keys."""
    if "://" in place:
        if keys is None:
            raise UsageError("A gallery in a database keeps its keys elsewhere.", hint="Give --keys keys.db.")
        return place, keys
    return Path(place) / DATABASE, keys or Path(place) / KEY_STORE


@contextmanager
def opened(place: str, keys: Path | None, key: Path | None, passphrase_file: Path | None, ask: bool) -> Iterator[Store]:
    """The store, for as long as it is used."""
    try:
        from bauta.gallery.store import Store
    except ModuleNotFoundError as error:
        raise needs_server(error, "A gallery") from error
    database, key_store = places(place, keys)
    secret = gallery_key(key, passphrase_file, ask)
    store = Store.open(database, key_store, secret)
    try:
        yield store
    finally:
        store.close()


def service_of(store: Store, protector: str, former: str | None, **settings: Any) -> FaceService:
    """A service on a store, to be loaded; settings are those of `FaceService`."""
    from bauta.gallery.service import FaceService
    from bauta.templates.base import load_protector

    before = None if former is None else load_protector(former)
    return FaceService(store, load_protector(protector), former=before, **settings)


def actor() -> str:
    """Who runs the command, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"[:64]
    except (KeyError, OSError):
        return "cli"


@gallery.command("init")
def init(
    place: Place,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    protector: Protector = SHIPPED,
    unprotected: Unprotected = False,
) -> None:
    """Make an empty gallery: a database, and a key store that no backup of it includes."""
    secret = gallery_key(key, passphrase_file, ask_passphrase, new=True)
    create(place, keys, secret, protector, plain=unprotected)
    database, key_store = places(place, keys)
    show_facts(
        [("gallery", database if isinstance(database, Path) else "PostgreSQL"), ("keys", key_store), ("of", protector)]
    )
    show_notes(
        [
            "back the gallery up without the key store: who has both, and the key, has what is stored of all faces.",
            "a copy of the key store undoes erasures made since: keep few; `bauta gallery rotate` once one was used.",
        ]
    )


def create(place: str, keys: Path | None, secret: object, protector: str, *, plain: bool = False) -> None:
    """A new gallery; its folder is made."""
    try:
        from bauta.gallery.service import maker_of, require_protecting
        from bauta.gallery.store import Store
    except ModuleNotFoundError as error:
        raise needs_server(error, "A gallery") from error
    from bauta.files import make_folder
    from bauta.keys import DeploymentKey
    from bauta.templates.base import load_protector

    assert isinstance(secret, DeploymentKey)
    loaded = load_protector(protector)
    require_protecting(loaded, plain=plain)
    database, key_store = places(place, keys)
    if isinstance(database, Path):
        make_folder(database.parent)
    Store.create(database, key_store, secret, maker_of(loaded)).close()


@gallery.command()
def enrol(
    place: Place,
    subject: Subject,
    photos: Annotated[list[Path], typer.Argument(help="Photos of this person.", show_default=False)],
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
    protector: Protector = SHIPPED,
    fmr: Fmr = 1e-4,
    threshold: Threshold = None,
    former: Former = None,
    former_threshold: FormerThreshold = None,
    aligned: Aligned = False,
    known: Annotated[
        bool, typer.Option("--known", help="Store the face although it matches somebody else, such as a twin.")
    ] = False,
) -> None:
    """Store the face of each photo, protected and sealed. A poor photo is told of, and not stored."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        service = service_of(
            store, protector, former, fmr=fmr, threshold=threshold, former_threshold=former_threshold, aligned=aligned
        )
        service.load()
        rows = []
        for photo in photos:
            made = service.enrol(tenant, subject, photo, actor=actor(), known=known)
            rows.append((str(photo), made["record"]))
        show_table(("PHOTO", "RECORD"), rows)


@gallery.command()
def match(
    place: Place,
    subject: Subject,
    photo: Photo,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
    protector: Protector = SHIPPED,
    fmr: Fmr = 1e-4,
    threshold: Threshold = None,
    former: Former = None,
    former_threshold: FormerThreshold = None,
    aligned: Aligned = False,
    as_json: AsJson = False,
) -> None:
    """Whether the face of a photo is a person's: yes or no, and no score."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        service = service_of(
            store, protector, former, fmr=fmr, threshold=threshold, former_threshold=former_threshold, aligned=aligned
        )
        service.load()
        found = service.match(tenant, subject, photo, actor=actor())
    print(json.dumps({"match": found}) if as_json else ("yes" if found else "no"))


@gallery.command()
def search(
    place: Place,
    photo: Photo,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
    protector: Protector = SHIPPED,
    fmr: Fmr = 1e-4,
    threshold: Threshold = None,
    former: Former = None,
    former_threshold: FormerThreshold = None,
    aligned: Aligned = False,
    force: Annotated[
        bool, typer.Option("--force", help="Answer even where strangers would often be taken for somebody.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Who the face of a photo is, among all of a tenant."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        service = service_of(
            store, protector, former, fmr=fmr, threshold=threshold, former_threshold=former_threshold, aligned=aligned
        )
        service.load()
        found = service.search(tenant, photo, actor=actor(), force=force)
    if as_json:
        print(json.dumps({"subject": found.subject, "fpir": found.fpir, "records": found.count}))
        return
    print("nobody" if found.subject is None else clean(found.subject))
    rate = "not known" if found.fpir is None else f"{found.fpir:.2%}"
    show_note(f"compared with {found.count} records; a stranger is taken for somebody with a probability of: {rate}.")


@gallery.command()
def revoke(
    place: Place,
    subject: Subject,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
    days: Annotated[int, typer.Option(min=0, max=3650, help="Days in which it can be undone; erased then.")] = 30,
) -> None:
    """Let a person match no more; `restore` undoes it until the days are over."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store, store.writing() as writer:
        count = writer.revoke(tenant, subject, days * 86_400)
        writer.audit(actor(), tenant, "revoke", of=writer.uid(tenant, subject))
    show_facts([("revoked", count)])


@gallery.command()
def restore(
    place: Place,
    subject: Subject,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
) -> None:
    """Undo `revoke` while its days last."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        with store.writing() as writer:
            count = writer.restore(tenant, subject)
            writer.audit(actor(), tenant, "restore", of=writer.uid(tenant, subject))
        store.finish()
    show_facts([("restored", count)])


@gallery.command()
def renew(
    place: Place,
    subject: Subject,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
) -> None:
    """Seal a person's records under a new key, and destroy the old one. For a new record, erase and enrol."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        with store.writing() as writer:
            count = len(writer.renew(tenant, subject))
            writer.audit(actor(), tenant, "renew", of=writer.uid(tenant, subject))
        store.finish()
    show_facts([("renewed", count)])


@gallery.command()
def erase(
    place: Place,
    subject: Subject,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
) -> None:
    """Destroy a person's key and all that was stored: no file of the gallery holds it then, and no backup opens."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        with store.writing() as writer:
            entry = writer.audit(actor(), tenant, "erase", of=writer.uid(tenant, subject))
            writer.erase(tenant, subject)
        done = store.finish()
    state = "erased" if done else "pending"
    show_facts([("state", state), ("line of the audit", entry.number), ("digest", entry.digest)])
    if not done:
        show_notes(
            [
                "the key is destroyed, but another process reads an older state and holds deleted bytes in a file: "
                "run any command on this gallery once it has ended."
            ]
        )


@gallery.command()
def export(
    place: Place,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Sealed gallery in one file.")],
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
    protector: Protector = SHIPPED,
    threshold: Threshold = None,
) -> None:
    """Write a tenant's records as one sealed file, as `bauta templates protect` does. Erasures do not reach it."""
    from bauta.gallery.files import require_free, write_gallery
    from bauta.gallery.service import FaceService
    from bauta.templates.base import load_protector

    require_free(output)
    secret = gallery_key(key, passphrase_file, ask_passphrase)
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        service = FaceService(store, load_protector(protector), threshold=threshold)
        made = service.export(tenant)
        with store.writing() as writer:
            writer.audit(actor(), tenant, "export")
    write_gallery(output, made, secret)
    show_facts([("gallery", output), ("faces", len(made))])
    show_notes(["erasures in the gallery do not reach this file: delete it when it has served."])


@gallery.command("import")
def take(
    place: Place,
    source: Annotated[Path, typer.Argument(help="Sealed gallery in one file.", show_default=False)],
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
    protector: Protector = SHIPPED,
    threshold: Threshold = None,
) -> None:
    """Enrol the faces of a sealed file under their names; it has the same key and the same protector."""
    from bauta.gallery.files import read_gallery
    from bauta.gallery.service import FaceService
    from bauta.templates.base import load_protector

    secret = gallery_key(key, passphrase_file, ask_passphrase)
    made = read_gallery(source, secret)
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        count = FaceService(store, load_protector(protector), threshold=threshold).take(tenant, made, actor=actor())
    show_facts([("enrolled", count)])


@gallery.command()
def stats(
    place: Place,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    as_json: AsJson = False,
) -> None:
    """How many people and records there are, and which recogniser and protector they are of."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        counts, maker = store.stats(), store.maker
    if as_json:
        print(json.dumps(counts))
        return
    show_facts(
        [
            *((name.replace("_", " "), value) for name, value in counts.items()),
            ("recogniser", f"{maker.recognizer} ({maker.recognizer_sha256[:12]})"),
            ("protector", f"{maker.protector} ({maker.protector_sha256[:12]})"),
        ]
    )


@gallery.command()
def verify(
    place: Place,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    forget_erased: Annotated[
        bool,
        typer.Option("--forget-erased", help="Delete people whose keys are destroyed: a restored backup has them."),
    ] = False,
) -> None:
    """Open every record and follow the audit from its first line, and say what is wrong."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        if forget_erased:
            show_facts([("forgotten", store.forget_erased())])
        problems, counts = store.verify(), store.stats()
    if problems:
        for problem in problems:
            print(clean(problem))
        raise GalleryDamaged(
            f"{len(problems)} things are wrong with this gallery.",
            hint="Restore it from a backup; --forget-erased deletes the erased whom a backup brought back.",
        )
    show_facts([("whole", "yes"), ("records", counts["active"] + counts["revoked"])])


@gallery.command()
def rotate(
    place: Place,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    new_key: NewKey = None,
    new_passphrase_file: NewPassphraseFile = None,
    ask_new_passphrase: AskNewPassphrase = False,
) -> None:
    """Seal the key store with another key. Nobody is enrolled again; a service that runs must be started again."""
    old = gallery_key(key, passphrase_file, ask_passphrase)
    new = gallery_key(new_key, new_passphrase_file, ask_new_passphrase, new=True, prefix="new-")
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        key_id = store.vault.rotate(old, new)
        with store.writing() as writer:
            writer.audit(actor(), "", "rotate")
    show_facts([("key id", key_id)])
    show_notes(["copies of the key store from before still open with the old key: destroy it."])
