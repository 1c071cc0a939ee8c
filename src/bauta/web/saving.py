"""Names of results, one zip of them, and results beside the originals."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from bauta.errors import OutputExists
from bauta.files import write_atomically

_TRIES = 1000


def safe_name(name: str) -> str:
    """The last part of a file name that a browser gave, without what no file system takes.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\\\photos\\\\me.jpg"), safe_name("..")
    ('passwd', 'me.jpg', 'photo')
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in last if letter.isprintable() and letter not in '<>:"|?*').strip(" .")
    return kept[-120:] or "photo"


def result_name(name: str, suffix: str) -> str:
    """What the protected photo of a file is called.

    >>> result_name("me.jpeg", ".jpeg"), result_name("scan", ".tif")
    ('me.protected.jpeg', 'scan.protected.tif')
    """
    stem = name[: -len(suffix)] if name.lower().endswith(suffix.lower()) else Path(name).stem
    return f"{stem}.protected{suffix}"


def pack(files: Iterable[tuple[str, Path]], destination: Path) -> None:
    """One zip of files under names, of which those that are taken are numbered. Photos are not compressed again."""
    taken: set[str] = set()
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            free, number = name, 1
            while free.casefold() in taken:
                number += 1
                free = _numbered(name, number)
            taken.add(free.casefold())
            archive.write(path, free)


def save_beside(original: Path, content: bytes, suffix: str) -> Path:
    """Write a result beside its original under a new name; nothing is ever replaced.

    Raises:
        OutputError: when it cannot be written.
    """
    name = result_name(original.name, suffix)
    for number in range(1, _TRIES):
        place = original.with_name(name if number == 1 else _numbered(name, number))
        try:
            write_atomically(place, content, originals=[original], like=original)
        except OutputExists:
            continue
        return place
    raise OutputExists(f"{original.with_name(name)} exists a thousand times.", hint="Tidy up the folder.")


def _numbered(name: str, number: int) -> str:
    path = Path(name)
    return f"{path.stem}-{number}{path.suffix}"
