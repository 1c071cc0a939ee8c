"""``bauta gallery ...``: a gallery of people that changes while it is used, and whose erasures hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bauta.cli.console import clean, show_facts, show_note, show_notes, show_table
from bauta.cli.on_store import (
    SHIPPED,
    AsJson,
    Key,
    Keys,
    Photo,
    Place,
    Protector,
    Subject,
    Tenant,
    Threshold,
    Unprotected,
    actor,
    needs_server,
    on_store,
    places,
)
from bauta.cli.secrets import AskNewPassphrase, AskPassphrase, NewKey, NewPassphraseFile, PassphraseFile, gallery_key
from bauta.errors import GalleryDamaged

if TYPE_CHECKING:
    from bauta.gallery.service import FaceService
    from bauta.gallery.store import Store
    from bauta.keys import DeploymentKey

gallery = typer.Typer(no_args_is_help=True, help="People of a face service: enrol, find, revoke, erase.")


@gallery.command("init")
def init(
    place: Place,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    protector: Protector = SHIPPED,
    unprotected: Unprotected = False,
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            metavar="EPSILON", help="Of a person, over all that is ever stored; more is refused. For peep and its kin."
        ),
    ] = None,
) -> None:
    """Make an empty gallery: a database, and a key store that no backup of it includes."""
    secret = gallery_key(key, passphrase_file, ask_passphrase, new=True)
    create(place, keys, secret, protector, plain=unprotected, budget=budget)
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


def create(
    place: str,
    keys: Path | None,
    secret: DeploymentKey,
    protector: str,
    *,
    plain: bool = False,
    budget: float | None = None,
) -> None:
    """A new gallery; its folder is made."""
    try:
        from bauta.gallery.budgets import require_budget, set_limit
        from bauta.gallery.service import maker_of, require_protecting
        from bauta.gallery.store import Store
    except ModuleNotFoundError as error:
        raise needs_server(error, "A gallery") from error
    from bauta.files import make_folder
    from bauta.templates.base import load_protector

    loaded = load_protector(protector)
    require_protecting(loaded, plain=plain)
    if budget is not None:
        require_budget(budget, loaded.spent)
    database, key_store = places(place, keys)
    if isinstance(database, Path):
        make_folder(database.parent)
    store = Store.create(database, key_store, secret, maker_of(loaded))
    if budget is not None:
        set_limit(store, budget, loaded.spent)
    store.close()


@gallery.command()
@on_store
def enrol(
    service: FaceService,
    subject: Subject,
    photos: Annotated[list[Path], typer.Argument(help="Photos of this person.", show_default=False)],
    tenant: Tenant = "main",
    known: Annotated[
        bool, typer.Option("--known", help="Store the face although it matches somebody else, such as a twin.")
    ] = False,
) -> None:
    """Store the face of each photo, protected and sealed. A poor photo is told of, and not stored."""
    rows = []
    for photo in photos:
        made = service.enrol(tenant, subject, photo, actor=actor(), known=known)
        rows.append((str(photo), made["record"]))
    show_table(("PHOTO", "RECORD"), rows)


@gallery.command()
@on_store
def match(
    service: FaceService,
    subject: Subject,
    photo: Photo,
    tenant: Tenant = "main",
    as_json: AsJson = False,
) -> None:
    """Whether the face of a photo is a person's: yes or no, and no score."""
    found = service.match(tenant, subject, photo, actor=actor())
    print(json.dumps({"match": found}) if as_json else ("yes" if found else "no"))


@gallery.command()
@on_store
def search(
    service: FaceService,
    photo: Photo,
    tenant: Tenant = "main",
    force: Annotated[
        bool, typer.Option("--force", help="Answer even where strangers would often be taken for somebody.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Who the face of a photo is, among all of a tenant."""
    found = service.search(tenant, photo, actor=actor(), force=force)
    if as_json:
        print(json.dumps({"subject": found.subject, "fpir": found.fpir, "records": found.count}))
        return
    print("nobody" if found.subject is None else clean(found.subject))
    rate = "not known" if found.fpir is None else f"{found.fpir:.2%}"
    show_note(f"compared with {found.count} records; a stranger is taken for somebody with a probability of: {rate}.")


@gallery.command()
@on_store
def revoke(
    store: Store,
    subject: Subject,
    tenant: Tenant = "main",
    days: Annotated[int, typer.Option(min=0, max=3650, help="Days in which it can be undone; erased then.")] = 30,
) -> None:
    """Let a person match no more; `restore` undoes it until the days are over."""
    with store.writing() as writer:
        count = writer.revoke(tenant, subject, days * 86_400)
        writer.audit(actor(), tenant, "revoke", of=writer.uid(tenant, subject))
    show_facts([("revoked", count)])


@gallery.command()
@on_store
def restore(
    store: Store,
    subject: Subject,
    tenant: Tenant = "main",
) -> None:
    """Undo `revoke` while its days last."""
    with store.writing() as writer:
        count = writer.restore(tenant, subject)
        writer.audit(actor(), tenant, "restore", of=writer.uid(tenant, subject))
    store.finish()
    show_facts([("restored", count)])


@gallery.command()
@on_store
def renew(
    store: Store,
    subject: Subject,
    tenant: Tenant = "main",
) -> None:
    """Seal a person's records under a new key, and destroy the old one. For a new record, erase and enrol."""
    with store.writing() as writer:
        count = len(writer.renew(tenant, subject))
        writer.audit(actor(), tenant, "renew", of=writer.uid(tenant, subject))
    store.finish()
    show_facts([("renewed", count)])


@gallery.command()
@on_store
def erase(
    store: Store,
    subject: Subject,
    tenant: Tenant = "main",
) -> None:
    """Destroy a person's key and all that was stored: no file of the gallery holds it then, and no backup opens."""
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
@on_store
def export(
    store: Store,
    secret: DeploymentKey,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Sealed gallery in one file.")],
    tenant: Tenant = "main",
    protector: Protector = SHIPPED,
    threshold: Threshold = None,
) -> None:
    """Write a tenant's records as one sealed file, as `bauta templates protect` does. Erasures do not reach it."""
    from bauta.gallery.files import require_free, write_gallery
    from bauta.gallery.service import FaceService
    from bauta.templates.base import load_protector

    require_free(output)
    service = FaceService(store, load_protector(protector), threshold=threshold)
    made = service.export(tenant)
    with store.writing() as writer:
        writer.audit(actor(), tenant, "export")
    write_gallery(output, made, secret)
    show_facts([("gallery", output), ("faces", len(made))])
    show_notes(["erasures in the gallery do not reach this file: delete it when it has served."])


@gallery.command("import")
@on_store
def take(
    store: Store,
    secret: DeploymentKey,
    source: Annotated[Path, typer.Argument(help="Sealed gallery in one file.", show_default=False)],
    tenant: Tenant = "main",
    protector: Protector = SHIPPED,
    threshold: Threshold = None,
) -> None:
    """Enrol the faces of a sealed file under their names; it has the same key and the same protector."""
    from bauta.gallery.files import read_gallery
    from bauta.gallery.service import FaceService
    from bauta.templates.base import load_protector

    made = read_gallery(source, secret)
    count = FaceService(store, load_protector(protector), threshold=threshold).take(tenant, made, actor=actor())
    show_facts([("enrolled", count)])


@gallery.command()
@on_store
def stats(
    store: Store,
    as_json: AsJson = False,
) -> None:
    """How many people and records there are, and which recogniser and protector they are of."""
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
@on_store
def verify(
    store: Store,
    forget_erased: Annotated[
        bool,
        typer.Option("--forget-erased", help="Delete people whose keys are destroyed: a restored backup has them."),
    ] = False,
) -> None:
    """Open every record and follow the audit from its first line, and say what is wrong."""
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
@on_store
def rotate(
    store: Store,
    secret: DeploymentKey,
    new_key: NewKey = None,
    new_passphrase_file: NewPassphraseFile = None,
    ask_new_passphrase: AskNewPassphrase = False,
) -> None:
    """Seal the key store with another key. Nobody is enrolled again; a service that runs must be started again."""
    old = secret
    new = gallery_key(new_key, new_passphrase_file, ask_new_passphrase, new=True, prefix="new-")
    key_id = store.vault.rotate(old, new)
    with store.writing() as writer:
        writer.audit(actor(), "", "rotate")
    show_facts([("key id", key_id)])
    show_notes(["copies of the key store from before still open with the old key: destroy it."])
