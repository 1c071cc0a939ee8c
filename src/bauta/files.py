"""Writing files so that nothing is ever half there or lost."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from bauta.drafts import claim_draft
from bauta.errors import OutputError, OutputExists

PathLike = str | os.PathLike[str]


def write_atomically(
    destination: Path,
    content: bytes,
    *,
    overwrite: bool = False,
    originals: Iterable[Path] = (),
    mode: int = 0o666,
    like: Path | None = None,
) -> None:
    """Writes a whole file or nothing.

    The bytes go to a temporary file in the same folder, to the disk, and only then to their name. Without
    ``overwrite``, taking the name is itself atomic where the file system knows hard links, so two processes
    cannot take the same one.

    Args:
        destination: The name to write; its folder must exist.
        content: The whole content.
        overwrite: Whether an existing file may be replaced.
        originals: Files that are never replaced, under whatever name, link or spelling they are reached.
        mode: Permissions of the file from its first moment on, less the umask.
        like: A file that whoever may read the new one must be allowed to read, such as the photo it is made of.

    Raises:
        OutputExists: The name is taken, or is one of the originals.
        OutputError: The folder is missing or read-only, the disk is full, ... Nothing has changed on disk.
    """
    temporary = destination.parent / f".bauta-{secrets.token_hex(8)}.part"
    try:
        _refuse_taken(destination, overwrite, originals)
        if like is not None:
            mode &= 0o600 | (like.stat().st_mode & 0o066)
        with open(os.open(temporary, _NEW, mode), "wb") as stream:  # noqa: PTH123 - the mode counts from the start
            claim_draft(stream)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite:
            temporary.replace(destination)
        else:
            take_name(temporary, destination)
    except OSError as error:
        raise OutputError(
            f"{destination} cannot be written: {error.strerror or error}.",
            hint="Nothing was changed; check that the folder exists, is writable and has room.",
        ) from error
    finally:
        _remove(temporary)  # also when the user interrupts


def make_folder(folder: Path, *, like: Iterable[Path] = ()) -> None:
    """Make a folder, and those above it, where it is not there yet.

    Args:
        folder: What is made.
        like: Folders than which a new one is no more open, such as those of the photos that products are made of.

    Raises:
        OutputError: when it cannot be made, or a file has its name.
    """
    try:
        mode = 0o777
        for each in like:
            mode &= 0o700 | each.stat().st_mode
        for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            path.mkdir(mode=mode, exist_ok=True)
        folder.mkdir(exist_ok=True)  # says so when a file has its name
    except OSError as error:
        raise OutputError(
            f"Cannot write to {folder}: {error.strerror or error}.", hint="Give another folder, which you may write to."
        ) from error


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def _refuse_taken(destination: Path, overwrite: bool, originals: Iterable[Path]) -> None:
    for original in originals:
        if _same_file(destination, original):
            raise OutputExists(
                f"{destination} is the original photo.", hint="Choose another folder; originals are kept."
            )
    if destination.is_dir():
        raise OutputError(f"{destination} is a folder.", hint="Name a file inside it.")
    if not overwrite and os.path.lexists(destination):
        raise _taken(destination)


def _taken(destination: Path) -> OutputExists:
    return OutputExists(
        f"{destination} exists already.",
        hint="Choose another name or folder, or let it be overwritten.",
    )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return False


def take_name(temporary: Path, destination: Path) -> None:
    """Give a whole file its name, unless that is taken.

    Raises:
        OutputExists: when it is.
    """
    try:
        os.link(temporary, destination)
    except FileExistsError as error:
        raise _taken(destination) from error
    except OSError:  # no hard links here (FAT, some network drives)
        if os.path.lexists(destination):
            raise _taken(destination) from None
        temporary.replace(destination)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
