"""Files on disk: finding photos, and writing so that nothing is ever half there or lost."""

from __future__ import annotations

import glob
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bauta.errors import OutputError, OutputExists, PhotoError, UnreadablePhoto

#: The usual file name endings of each format; the first one is given to new names.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "HEIF": (".heic", ".heif", ".hif"),
}
_PHOTO_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def write_atomically(
    destination: Path,
    content: bytes,
    *,
    overwrite: bool = False,
    originals: Iterable[Path] = (),
    mode: int = 0o666,
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

    Raises:
        OutputExists: The name is taken, or is one of the originals.
        OutputError: The folder is missing or read-only, the disk is full, ... Nothing has changed on disk.
    """
    temporary = destination.parent / f".bauta-{secrets.token_hex(8)}.part"
    try:
        _refuse_taken(destination, overwrite, originals)
        temporary.touch(mode, exist_ok=False)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite:
            temporary.replace(destination)
        else:
            _take_name(temporary, destination)
    except OSError as error:
        raise OutputError(
            f"{destination} cannot be written: {error.strerror or error}.",
            hint="Nothing was changed; check that the folder exists, is writable and has room.",
        ) from error
    finally:
        _remove(temporary)  # also when the user interrupts


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
    return OutputExists(f"{destination} exists already.", hint="Choose another name, or allow overwriting.")


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return False


def _take_name(temporary: Path, destination: Path) -> None:
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


@dataclass(frozen=True)
class FoundPhotos:
    """What a search found.

    Attributes:
        photos: Files, each once, in natural order (``img2`` before ``img10``).
        problems: What could not be searched, one error each; the search went on.
    """

    photos: tuple[Path, ...]
    problems: tuple[PhotoError, ...]


def find_photos(paths: Sequence[Path | str]) -> FoundPhotos:
    """Photos named by files, folders and glob patterns (``*``, ``?``, ``[...]``, ``**``).

    A file named outright is taken whatever its ending; reading it will tell. Folders are searched to any
    depth and give files with a photo's ending; hidden names (``._img.jpg``) are passed over. Links are
    followed, each folder is entered once and each file reported once, whatever names lead to it.
    """
    photos: dict[str, Path] = {}
    problems: list[PhotoError] = []
    entered: set[str] = set()
    for given in map(Path, paths):
        known, before = os.path.realpath(given) in entered, len(problems)
        found: list[Path] = []
        try:
            found.extend(_named(given, entered, problems))
        except OSError as error:
            problems.append(_closed(given, error))
        if not found and not known and len(problems) == before:
            problems.append(_problem(f"{given} leads to no photos", "Check the name or the pattern."))
        for path in found:
            photos.setdefault(os.path.realpath(path), path)
    return FoundPhotos(tuple(sorted(photos.values(), key=_natural)), tuple(problems))


def _named(given: Path, entered: set[str], problems: list[PhotoError]) -> Iterator[Path]:
    if given.is_dir():
        yield from _search(given, entered, problems)
    elif given.exists():
        yield given
    elif glob.has_magic(str(given)):
        yield from _expand(given, entered, problems)
    else:
        what = "is a link to nothing" if given.is_symlink() else "does not exist"
        problems.append(_problem(f"{given} {what}", "Check the spelling."))


def _closed(path: Path, error: OSError) -> UnreadablePhoto:
    return _problem(f"{path} cannot be opened: {error.strerror}", "Check the name and the permissions.")


def _problem(message: str, hint: str) -> UnreadablePhoto:
    return UnreadablePhoto(f"{message}.", hint=hint)


def _search(folder: Path, entered: set[str], problems: list[PhotoError]) -> Iterator[Path]:
    def report(error: OSError) -> None:
        problems.append(_closed(Path(error.filename), error))

    for root, folders, files in os.walk(folder, onerror=report, followlinks=True):
        real = os.path.realpath(root)
        if real in entered:  # a link back up, or a folder named twice
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if _is_photo_name(name))


def _expand(pattern: Path, entered: set[str], problems: list[PhotoError]) -> Iterator[Path]:
    for name in glob.iglob(str(pattern), recursive=True):  # noqa: PTH207 - Path.glob refuses absolute patterns
        match = Path(name)
        if match.is_dir():
            yield from _search(match, entered, problems)
        elif _is_photo_name(match.name):
            yield match


def _is_photo_name(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _PHOTO_SUFFIXES  # noqa: PTH122


def _natural(path: Path) -> list[list[tuple[int, int, str]]]:
    return [
        [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in _pieces(part)]
        for part in path.parts
    ]


def _pieces(text: str) -> list[str]:
    return [piece for piece in re.split(r"(\d+)", text) if piece]
