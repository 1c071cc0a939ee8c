"""Finding photos on disk."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bauta.errors import PhotoError, UnreadablePhoto, UnsupportedPhoto

#: The usual file name endings of each format; the first one is given to new names.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "HEIF": (".heic", ".heif", ".hif"),
    "AVIF": (".avif",),
}
_PHOTO_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
# Pictures and films that cannot be protected, by their endings; what the files hold is not asked of these.
_OTHER_SUFFIXES = {
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".jpm", ".j2c", ".jpc"), "a JPEG 2000"),
    **dict.fromkeys((".jxl",), "a JPEG XL"),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "a JPEG XR"),
    **dict.fromkeys((".gif",), "a GIF"),
    **dict.fromkeys((".bmp", ".dib"), "a Windows bitmap"),
    **dict.fromkeys((".psd", ".psb", ".xcf", ".kra", ".ora", ".afphoto", ".clip"), "a drawing program's document"),
    **dict.fromkeys((".svg", ".svgz", ".ai", ".eps"), "a drawing"),
    **dict.fromkeys((".pdf",), "a PDF"),
    **dict.fromkeys((".avifs", ".heics", ".heifs", ".apng"), "an animated picture"),
    **dict.fromkeys(
        (".tga", ".ppm", ".pgm", ".pnm", ".pbm", ".pam", ".pcx", ".exr", ".hdr", ".qoi", ".ico"), "a picture"
    ),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef")
        + (".srw", ".raw", ".rwl", ".iiq", ".3fr", ".fff", ".erf", ".mos", ".mrw", ".kdc", ".dcr", ".x3f", ".gpr"),
        "a raw camera file",
    ),
    **dict.fromkeys(
        (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".3g2", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv")
        + (".flv", ".insv", ".lrv"),
        "a film",
    ),
}
_KINDS_SHOWN = "JPEG, PNG, WebP, TIFF, HEIC and AVIF"


@dataclass(frozen=True)
class FoundPhotos:
    """What a search found.

    Attributes:
        photos: Files, each once, in natural order (``img2`` before ``img10``).
        problems: What could not be searched, one error each; the search went on.
        passed_over: Pictures and films in searched folders that are not taken; `why_passed_over` tells of each.
    """

    photos: tuple[Path, ...]
    problems: tuple[PhotoError, ...]
    passed_over: tuple[Path, ...] = ()


def find_photos(paths: Sequence[Path | str], *, also: Callable[[str], bool] = lambda name: False) -> FoundPhotos:
    """Photos named by files, folders and glob patterns (``*``, ``?``, ``[...]``, ``**``).

    A file named outright is taken whatever its ending; reading it will tell. Folders are searched to any
    depth and give files with a photo's ending; other pictures and films among them are named. Hidden names
    (``._img.jpg``) are passed over, except hidden photos, which are named. Links are followed, each folder is
    entered once and each file reported once, whatever names lead to it.

    Args:
        paths: What to search.
        also: Which other file names are taken as photos are, such as those of clips.
    """
    photos: dict[str, Path] = {}
    problems: list[PhotoError] = []
    others: dict[str, Path] = {}
    entered: set[str] = set()
    for given in map(Path, paths):
        known, before = os.path.realpath(given) in entered, len(problems)
        found: list[Path] = []
        try:
            found.extend(_named(given, entered, problems, others, also))
        except OSError as error:
            problems.append(_closed(given, error))
        if not found and not known and len(problems) == before and not others:
            problems.append(_problem(f"{given} leads to no photos", "Check the name or the pattern."))
        for path in found:
            photos.setdefault(os.path.realpath(path), path)
    passed_over = sorted((path for real, path in others.items() if real not in photos), key=_natural)
    return FoundPhotos(tuple(sorted(photos.values(), key=_natural)), tuple(problems), tuple(passed_over))


def kind_by_name(path: Path) -> str | None:
    """What a file that is not supported is by its ending, such as "a film"."""
    return _OTHER_SUFFIXES.get(path.suffix.lower())


def why_passed_over(path: Path) -> UnsupportedPhoto:
    """The error that names a picture or film that a search did not take."""
    kind = kind_by_name(path)
    if kind is None:
        return UnsupportedPhoto(
            f"{path} looks like a photo by its content, not by its name, and was passed over.",
            hint="Give it a photo's ending, or name it outright.",
        )
    return UnsupportedPhoto(
        f"{path} is {kind}, which is not supported, and was passed over.", hint=f"Bauta protects {_KINDS_SHOWN}."
    )


def _named(
    given: Path, entered: set[str], problems: list[PhotoError], others: dict[str, Path], also: Callable[[str], bool]
) -> Iterator[Path]:
    if given.is_dir():
        yield from _search(given, entered, problems, others, also)
    elif given.exists():
        yield given
    elif glob.has_magic(str(given)):
        yield from _expand(given, entered, problems, others, also)
    elif address := re.match(r"([a-z]+):/+(.+)", str(given)):  # a path keeps one of two slashes
        where = f"{address[1]}://{address[2]}"
        problems.append(_problem(f"{where} is an address, not a file", "Download the photo first."))
    else:
        what = "is a link to nothing" if given.is_symlink() else "does not exist"
        problems.append(_problem(f"{given} {what}", "Check the spelling."))


def _closed(path: Path, error: OSError) -> UnreadablePhoto:
    return _problem(f"{path} cannot be opened: {error.strerror}", "Check the name and the permissions.")


def _problem(message: str, hint: str) -> UnreadablePhoto:
    return UnreadablePhoto(f"{message}.", hint=hint)


def _search(
    folder: Path, entered: set[str], problems: list[PhotoError], others: dict[str, Path], also: Callable[[str], bool]
) -> Iterator[Path]:
    def report(error: OSError) -> None:
        problems.append(_closed(Path(error.filename), error))

    for root, folders, files in os.walk(folder, onerror=report, followlinks=True):
        real = os.path.realpath(root)
        if real in entered:  # a link back up, or a folder named twice
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(files):
            path = Path(root, name)
            if is_photo_name(name) or also(name):
                yield path
            elif _is_other_picture(path):
                others.setdefault(os.path.realpath(path), path)


def _is_other_picture(path: Path) -> bool:
    if path.suffix.lower() in _OTHER_SUFFIXES:
        return not path.name.startswith("._")
    if path.suffix and not path.name.startswith("."):
        return False  # an ending of something else
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError:
        return False
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*")) or head[4:8] == b"ftyp"


def _expand(
    pattern: Path, entered: set[str], problems: list[PhotoError], others: dict[str, Path], also: Callable[[str], bool]
) -> Iterator[Path]:
    for name in glob.iglob(str(pattern), recursive=True):  # noqa: PTH207 - Path.glob refuses absolute patterns
        match = Path(name)
        if match.is_dir():
            yield from _search(match, entered, problems, others, also)
        elif is_photo_name(match.name) or also(match.name):
            yield match


def is_photo_name(name: str) -> bool:
    """Whether a file name has the ending of a photo that is read, and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _PHOTO_SUFFIXES  # noqa: PTH122


def _natural(path: Path) -> list[list[tuple[int, int, str]]]:
    return [
        [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in _pieces(part)]
        for part in path.parts
    ]


def _pieces(text: str) -> list[str]:
    return [piece for piece in re.split(r"(\d+)", text) if piece]
