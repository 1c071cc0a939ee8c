"""What commands on a gallery have in common: how it is opened, and the options for that."""

from __future__ import annotations

import functools
import getpass
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_type_hints

import typer

from bauta.cli.secrets import AskPassphrase, PassphraseFile, gallery_key
from bauta.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from bauta.gallery.service import FaceService
    from bauta.gallery.store import Store
    from bauta.keys import DeploymentKey

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
def opened(place: str, keys: Path | None, secret: DeploymentKey) -> Iterator[Store]:
    """The store, for as long as it is used."""
    from bauta.gallery.store import Store

    store = Store.open(*places(place, keys), secret)
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


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """A command on a gallery that is there: the options that open it are said here, and what they open is handed in.

    Args:
        command: Takes by name what it needs of ``store``, ``secret`` (the key that opened it) and ``service`` (loaded);
            its other parameters are arguments and options of its own.
    """
    hints = get_type_hints(command, localns=dict.fromkeys(_HANDED_IN.values(), Any), include_extras=True)
    wanted, arguments, options = inspect.signature(command).parameters, [_PLACE], [*_OPENING]
    for one in wanted.values():
        if one.name in _HANDED_IN:
            continue
        kind = arguments if one.default is one.empty else options
        kind.append(one.replace(annotation=hints[one.name], kind=one.KEYWORD_ONLY))
        if one.name == "tenant" and "service" in wanted:
            options += _SERVING

    @functools.wraps(command)
    def run(**given: Any) -> None:
        place, keys, *ways = (given.pop(one.name) for one in (_PLACE, *_OPENING))
        settings = {one.name: given.pop(one.name) for one in _SERVING} if "service" in wanted else {}
        try:
            import bauta.gallery.store  # noqa: F401 - a package of the extra is told of before a passphrase is asked for
        except ModuleNotFoundError as error:
            raise needs_server(error, "A gallery") from error
        secret = gallery_key(*ways)
        with opened(place, keys, secret) as store:
            handed: dict[str, Any] = {"store": store, "secret": secret}
            if settings:
                handed["service"] = service_of(store, **settings)
                handed["service"].load()
            command(**given, **{name: one for name, one in handed.items() if name in wanted})

    parameters = [*arguments, *options]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_HANDED_IN = {"store": "Store", "secret": "DeploymentKey", "service": "FaceService"}
_PLACE = _parameter("place", Place)
_OPENING = (
    _parameter("keys", Keys, None),
    _parameter("key", Key, None),
    _parameter("passphrase_file", PassphraseFile, None),
    _parameter("ask_passphrase", AskPassphrase, False),
)
_SERVING = (
    _parameter("protector", Protector, SHIPPED),
    _parameter("fmr", Fmr, 1e-4),
    _parameter("threshold", Threshold, None),
    _parameter("former", Former, None),
    _parameter("former_threshold", FormerThreshold, None),
    _parameter("aligned", Aligned, False),
)
