"""Keys and passphrases of a command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bauta.errors import UsageError

if TYPE_CHECKING:
    from bauta.keys import DeploymentKey

NO_KEY = (
    "Make one with `bauta key -o deployment.key`, keep it where the gallery is not, and give "
    "--key deployment.key. (A passphrase: --ask-passphrase, or --passphrase-file.)"
)

PassphraseFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE", help="File with a passphrase, instead of a key."),
]
AskPassphrase = Annotated[
    bool, typer.Option("--ask-passphrase", help="Ask for a passphrase, which is not shown, instead of a key.")
]

NewKey = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE", help="Key that seals it from now on."),
]
NewPassphraseFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE", help="File with the passphrase from now on."),
]
AskNewPassphrase = Annotated[bool, typer.Option("--ask-new-passphrase", help="Ask for the passphrase from now on.")]


def gallery_key(
    key: Path | None, passphrase_file: Path | None, ask: bool, *, new: bool = False, prefix: str = ""
) -> DeploymentKey:
    """The one key or passphrase of a gallery, asked for twice where it seals something new."""
    found = given_key(key, passphrase_file, ask, "gallery", new=new, prefix=prefix)
    if found is not None:
        return found
    if prefix:
        raise UsageError(
            "The new key is not given.",
            hint="Make one with `bauta key -o new.key`, and give --new-key new.key.",
        )
    raise UsageError("Galleries are sealed with a key, and none is given.", hint=NO_KEY)


def mask_key(fitted: Sequence[Path], key: Path | None, passphrase_file: Path | None, ask: bool) -> DeploymentKey | None:
    """What opens fitted files; a passphrase is asked for when one needs it and there is a terminal."""
    from bauta.learning.sealing import is_sealed, way_of

    found = given_key(key, passphrase_file, ask, "mask")
    if found is not None or not fitted or not sys.stdin.isatty():
        return found
    for path in fitted:
        try:
            with path.open("rb") as stream:
                head = stream.read(64)
        except OSError:  # told of when it is read
            continue
        if is_sealed(head) and way_of(head) == "passphrase":
            return given_key(None, None, True, "mask")
    return None


def new_mask_key(key: Path | None, passphrase_file: Path | None, ask: bool) -> DeploymentKey:
    """What a new fitted file, or what was under a mask, is sealed under. A key file that is not there is made.

    Raises:
        UsageError: when nothing is given, and there is no terminal to ask for a passphrase.
    """
    from bauta.keys import create_key_file

    if key is not None and not key.exists() and passphrase_file is None and not ask:
        create_key_file(key)
    nothing = key is None and passphrase_file is None
    found = given_key(key, passphrase_file, ask or (nothing and sys.stdin.isatty()), "mask", new=True)
    if found is None:
        raise UsageError(
            "What takes a mask off is sealed, and nothing is given to seal it with.",
            hint="Give --key me.key, which is made if it is not there, or --passphrase-file FILE.",
        )
    return found


def given_key(
    key: Path | None, passphrase_file: Path | None, ask: bool, what: str, *, new: bool = False, prefix: str = ""
) -> DeploymentKey | None:
    """The one key or passphrase of a command line; None when none is given.

    Args:
        key: File of random bytes.
        passphrase_file: File with a passphrase.
        ask: Whether to ask for one.
        what: What it opens, for messages.
        new: Whether it seals something new: a passphrase is then asked for twice.
        prefix: Of the options.
    """
    from bauta.keys import DeploymentKey

    if (key is not None) + (passphrase_file is not None) + ask > 1:
        raise UsageError(
            f"A {what} has one key: --{prefix}key, --{prefix}passphrase-file and --ask-{prefix}passphrase "
            "do not go together.",
            hint="Give one of them.",
        )
    if key is not None:
        return DeploymentKey.read(key)
    if passphrase_file is not None:
        return DeploymentKey.read_passphrase(passphrase_file)
    if ask:
        return DeploymentKey.from_passphrase(_ask(f"{'new ' if prefix else ''}passphrase of the {what}", twice=new))
    return None


def _ask(what: str, *, twice: bool) -> str:
    from getpass import getpass

    if not sys.stdin.isatty():  # where there is no terminal, it would be shown
        raise UsageError(f"There is no terminal to ask for the {what}.", hint="Give a file with --passphrase-file.")
    text = getpass(f"{what.capitalize()}: ")
    if twice and getpass("Once more: ") != text:
        raise UsageError("The two passphrases differ.", hint="Run the command again.")
    return text
