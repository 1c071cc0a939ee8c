"""Where the sources of a run come from, and where their products go.

The output folder is what one uploads: it holds the photos that are protected, unconfirmed or fragile. Photos that are
weak, or in which not every face is known to be covered, go to ``weak/``, and reports, which show the original faces, to
``reports/``.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from bauta.cloaking.outcomes import Outcome
from bauta.cloaking.records import fitting_name, read_record
from bauta.errors import UsageError

WEAK_FOLDER, REPORTS_FOLDER = "weak", "reports"
PRIVATE_FOLDERS = (WEAK_FOLDER, REPORTS_FOLDER)
"""Folders below the output folder that are not for uploading; Bauta makes them for the user's eyes only."""


@dataclass(frozen=True)
class Task:
    """One photo to protect.

    Attributes:
        source: The file.
        relative: Where its product belongs, below the output folder.
        meets: Another photo of the run has the same stem there, so that reports carry the whole file name.
    """

    source: Path
    relative: Path
    meets: bool = False


def plan(sources: Sequence[tuple[Path, Path]]) -> list[Task]:
    """Give every source a place below the output folder that no other source has.

    Args:
        sources: Each photo, and the folder it was found under (its own folder when it was named directly).

    Returns:
        Tasks in the same order, each photo once. A photo keeps its path below the folder it was found under;
        photos that would meet keep as much of their folders as tells them apart. Names that differ only in
        case meet, since some file systems do not tell them apart. A folder of the sources that is called like
        one of `PRIVATE_FOLDERS` gets an underscore.
    """
    unique = {_absolute(source): (source, _absolute(root)) for source, root in sources}
    wholes = [whole.parts[1:] for whole in unique]
    lengths = [len(whole.relative_to(root).parts) for whole, (_, root) in unique.items()]

    def place_of(index: int) -> Path:
        first, *rest = wholes[index][-lengths[index] :]
        return Path(f"{first}_" if rest and first.casefold() in PRIVATE_FOLDERS else first, *rest)

    def name(index: int) -> str:
        return str(place_of(index)).casefold()

    while True:
        groups: dict[str, list[int]] = {}
        for index in range(len(wholes)):
            groups.setdefault(name(index), []).append(index)
        meeting = [
            index
            for group in groups.values()
            if len({str(Path(*wholes[index])).casefold() for index in group}) > 1
            for index in group
            if lengths[index] < len(wholes[index])
        ]
        if not meeting:
            break
        for index in meeting:
            lengths[index] += 1
    places = []
    for index in range(len(wholes)):
        place = place_of(index)
        number = groups[name(index)].index(index) + 1
        places.append(place if number == 1 else place.with_name(fitting_name(f"{place.stem}-{number}", place.suffix)))
    stems = [str(place.with_name(place.stem)).casefold() for place in places]
    # A stem can be another's whole name too: a.jpg and a.jpg.png.
    taken = Counter(label for place, stem in zip(places, stems, strict=True) for label in {stem, str(place).casefold()})
    return [
        Task(source, place, taken[stem] > 1)
        for (source, _), place, stem in zip(unique.values(), places, stems, strict=True)
    ]


def collect(paths: Sequence[Path], directory: Path) -> tuple[list[tuple[Path, Path]], list[Outcome]]:
    """The photos behind files, folders and globs, and what could not be read among them.

    What lies in the output folder is a product, not a source, unless it is named directly, or lies in a folder that
    is named and itself in the output folder: there only recorded products are passed over. When nothing else is
    left, that is a failure too.
    """
    from bauta.clips.clip import is_clip_name
    from bauta.photo import find_photos, why_passed_over

    found = find_photos(paths, also=is_clip_name)
    outside = (path for path in found.passed_over if not _absolute(path).is_relative_to(_absolute(directory)))
    problems = (*found.problems, *map(why_passed_over, outside))
    failures = [Outcome.failed(Path(), problem) for problem in problems]
    folders = [_absolute(path) for path in paths if path.is_dir()]
    named = {_absolute(path) for path in paths}
    products = _absolute(directory)
    inside = [base for base in map(_base, paths) if base.is_relative_to(products)]
    sources = []
    for photo in found.photos:
        whole = _absolute(photo)
        if (
            whole.is_relative_to(products)
            and whole not in named
            and (not any(whole.is_relative_to(base) for base in inside) or _is_product(products, whole))
        ):
            continue
        root = next((folder for folder in folders if whole.is_relative_to(folder)), whole.parent)
        sources.append((photo, root))
    if found.photos and not sources:
        error = UsageError(
            f"Every photo that was found lies in the output folder {directory} and is taken for a product.",
            hint="Name photos that are not protected yet, or the folder that holds them.",
        )
        failures.append(Outcome.failed(Path(), error))
    return sources, failures


def report_places(task: Task, place: Path, directory: Path, ours: Container[str]) -> tuple[Path, Path]:
    """Where page and data belong, below the output folder: named after the photo, or else with a free number.

    Args:
        task: The photo.
        place: Where its product belongs, below the output folder.
        directory: The output folder.
        ours: Names below it that may be replaced.
    """
    folder = REPORTS_FOLDER / place.parent
    numbered = (f"{place.name}-{number}" for number in itertools.count(2))
    for stem in itertools.chain([] if task.meets else [place.stem], [place.name], numbered):
        page, data = (folder / fitting_name(stem, ending) for ending in (".report.html", ".report.json"))
        if all(path.as_posix() in ours or not os.path.lexists(directory / path) for path in (page, data)):
            break
    return page, data


def make_parents(directory: Path, place: Path) -> None:
    """Make the folder that a product or a report goes to; the private ones are closed to other users."""
    if place.parts[0] in PRIVATE_FOLDERS:
        (directory / place.parts[0]).mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / place).parent.mkdir(parents=True, exist_ok=True)


def _absolute(path: Path) -> Path:
    """Without ``..``, which would lead a product out of the output folder."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps them


def _base(path: Path) -> Path:
    """Where the search for a path begins: itself, or the folder before the first wildcard of a pattern."""
    if os.path.lexists(path):
        return _absolute(path)
    return _absolute(Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)))


def _is_product(directory: Path, path: Path) -> bool:
    inside = path.relative_to(directory)
    place = Path(*inside.parts[1:]) if inside.parts[0] == WEAK_FOLDER and len(inside.parts) > 1 else inside
    return any(
        known is not None and inside.as_posix() in known.unchanged(directory)
        for known in (read_record(directory, place), read_record(directory, inside))
    )
