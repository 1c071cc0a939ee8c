"""Sets of faces as users have them on disk: pairs to verify, and people.

Every reader checks what the lists name against what is there, reads images only when they are wanted, and keeps
each image once, so that it is embedded once: pairs are indices. `sha256` identifies a set by the contents of its
images and the structure over them, wherever it lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bauta.data.images import FaceImage, digest_of, images_of_people, is_image
from bauta.data.people import lines_of, names_of_list, pairs_of_list
from bauta.data.pickled_pairs import read_pairs
from bauta.errors import UsageError

Indices = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of faces to verify.

    Attributes:
        name: What results call it.
        images: N images, each once.
        first: (P,) int64 indices into the images.
        second: The same.
        same: (P,) bool, whether a pair shows one person.
        fold: (P,) int64.
        subjects: The person of each image.

    Raises:
        UsageError: when there is no pair, or the fields disagree.
    """

    name: str
    images: tuple[FaceImage, ...]
    first: Indices
    second: Indices
    same: Booleans
    fold: Indices
    subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_pairs(self.name, len(self.images), self.first, self.second, self.same)
        if self.fold.shape != self.same.shape or len(self.subjects) != len(self.images):
            raise UsageError(
                f"The folds or subjects of {self.name} do not fit.", hint="Give a fold per pair, a subject per image."
            )

    @cached_property
    def sha256(self) -> str:
        """64 hexadecimal digits; reads all images once."""
        return digest_of_set(self.images, self.first, self.second, self.same, self.fold, codes_of(self.subjects))

    @property
    def pair_subjects(self) -> tuple[str, ...]:
        """The person of each pair's first image: the unit of intervals."""
        return tuple(self.subjects[place] for place in self.first.tolist())

    @property
    def places(self) -> dict[str, list[int]]:
        """Where each person's images are, by name of file; people by name."""
        found: dict[str, list[int]] = {}
        for place in sorted(range(len(self.images)), key=lambda one: self.images[one].name):
            found.setdefault(self.subjects[place], []).append(place)
        return dict(sorted(found.items()))

    def people_at(self, places: Sequence[int]) -> People:
        """The images at these places."""
        return People(self.name, tuple(self.images[one] for one in places), tuple(self.subjects[one] for one in places))


@dataclass(frozen=True, eq=False)
class People:
    """Images of known people.

    Attributes:
        name: What results call it.
        images: N images.
        subjects: The person of each.

    Raises:
        UsageError: when there are none, or the numbers disagree.
    """

    name: str
    images: tuple[FaceImage, ...]
    subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.images or len(self.subjects) != len(self.images):
            raise UsageError(
                f"{self.name} has {len(self.images)} images and {len(self.subjects)} subjects.",
                hint="Give at least one image, and a subject for each.",
            )

    @cached_property
    def sha256(self) -> str:
        """64 hexadecimal digits; reads all images once."""
        return digest_of_set(self.images, codes_of(self.subjects))


def read_lfw(folder: Path, *, pairs: Path | str = "pairs.txt", images: Path | str | None = None) -> PairSet:
    """Labelled Faces in the Wild: people's folders and ``pairs.txt``.

    The photos may be the original ones of 250 pixels or aligned crops, in any format of `images.SUFFIXES`.

    Args:
        folder: Where the set lies.
        pairs: The list, in that folder unless a path says otherwise; ``pairsDevTest.txt`` has the same form.
        images: The folder of people's folders; looked for as ``images``, ``lfw``, ``lfw_funneled``,
            ``lfw-deepfunneled``, ``lfw_112``, and the folder itself.

    Raises:
        UsageError: when the list has another form or length than it says, names a photo that is not there, or
            has a person in two folds.
    """
    path = folder / pairs
    sizes, lines = pairs_of_list(path)
    each = sizes[-1] if sizes else len(lines)
    folds = sizes[0] if len(sizes) == 2 else 1
    if sizes and len(lines) != 2 * folds * each:
        raise UsageError(
            f"{path} announces {2 * folds * each} pairs and has {len(lines)}.", hint="Fetch the list again."
        )
    root = find_folder(
        folder, images, ("images", "lfw", "lfw_funneled", "lfw-deepfunneled", "lfw_112", "."), lines[0].first[0]
    )
    files = _Stems(path)

    def photo(person: str, number: int) -> tuple[str, Path]:
        return person, files.find(root / person, f"{person}_{number:04d}")

    return _named_pairs(
        f"lfw/{path.stem}",
        root,
        [(photo(*line.first), photo(*line.second), line.same, place // (2 * each)) for place, line in enumerate(lines)],
        path,
    )


def read_cfp(folder: Path, protocol: str, *, images: Path | str | None = None) -> PairSet:
    """Celebrities in Frontal-Profile: ten splits of frontal pairs (FF) or of frontal and profile (FP).

    Args:
        folder: Holds ``Protocol`` with ``Pair_list_F.txt``, ``Pair_list_P.txt`` and ``Split``.
        protocol: ``"FF"`` or ``"FP"``; the first image of an FP pair is the frontal one.
        images: The folder of the numbered people; looked for as ``Data/Images`` and ``images``. The images may have
            another ending than the list says.

    Raises:
        UsageError: when a list has another form, names an image that is not there, or has a person in two splits.
    """
    if protocol not in ("FF", "FP"):
        raise UsageError(f"CFP has no protocol {protocol!r}.", hint="Its protocols are FF and FP.")
    lists = folder / "Protocol"
    root = find_folder(folder, images, ("Data/Images", "images", "Images"), None)
    files = _Stems(lists)
    names = _cfp_names(folder)

    def listed(letter: str) -> dict[str, tuple[str, Path]]:
        path = lists / f"Pair_list_{letter}.txt"
        found = {}
        for line in lines_of(path):
            parts = Path(line.split()[-1].replace("\\", "/")).parts[-3:]
            if len(line.split()) != 2 or len(parts) != 3:
                raise UsageError(
                    f"{path} has a line {line!r}.", hint="'1 ../Data/Images/001/frontal/01.jpg' is wanted."
                )
            person, kind, file = parts
            found[line.split()[0]] = (
                names.get(person, person),
                files.find(root / person / kind, Path(file).stem),
            )
        return found

    sides = {letter: listed(letter) for letter in sorted(set(protocol))}
    rows: list[_Row] = []
    splits = lists / "Split" / protocol
    for fold, split in enumerate(sorted(path for path in splits.glob("*") if path.is_dir())):
        for name, same in (("same", True), ("diff", False)):
            path = split / f"{name}.txt"
            for line in lines_of(path):
                try:
                    first, second = (number.strip() for number in line.split(","))
                    rows.append((sides[protocol[0]][first], sides[protocol[1]][second], same, fold))
                except (ValueError, KeyError) as error:
                    raise UsageError(
                        f"{path} has a line {line!r}.", hint="Two numbers of the pair lists with a comma are wanted."
                    ) from error
    if not rows:
        raise UsageError(f"{splits} holds no pairs.", hint="Fetch the protocol again.")
    return _named_pairs(f"cfp-{protocol.lower()}", root, rows, splits)


def _cfp_names(folder: Path) -> dict[str, str]:
    """The names of the numbered people, where they are told."""
    for path in (folder / "Data" / "list_name.txt", folder / "list_name.txt"):
        if path.is_file():
            names = lines_of(path)
            if len(names_of_list(path)) == len(names):  # otherwise two numbers are one person, which no split allows
                return {f"{number:03d}": name for number, name in enumerate(names, 1)}
    return {}


def read_bin(path: Path, *, folds: int = 10) -> PairSet:
    """A ``.bin`` file of verification pairs, as InsightFace hands out LFW, CFP-FP, AgeDB-30, CALFW and CPLFW.

    Images of equal bytes are one. Nobody is named; people are those whom genuine pairs link, see `linked`. Folds are
    equal stretches in the order of the file, as InsightFace evaluates them.

    Raises:
        UsageError: when the file has another form, or fewer pairs than folds.
    """
    encoded = read_pairs(path)
    count = len(encoded.same)
    if count < folds:
        raise UsageError(f"{path} has {count} pairs for {folds} folds.", hint="Ask for fewer folds.")
    places: dict[bytes, int] = {}
    first, second = (
        np.array([places.setdefault(content, len(places)) for content in side])
        for side in (encoded.first, encoded.second)
    )
    fold = np.repeat(np.arange(folds), [len(part) for part in np.array_split(np.arange(count), folds)])
    images = tuple(FaceImage(f"{path.name}, image {place}", content) for content, place in places.items())
    subjects = linked(len(images), first[encoded.same], second[encoded.same])
    return PairSet(path.stem, images, first, second, encoded.same, fold, subjects)


def read_people(folder: Path, *, name: str | None = None) -> People:
    """A folder ``person/image``, under its own name in results unless another is given.

    Raises:
        UsageError: when there are no such images.
    """
    found = list(images_of_people(folder))
    images = tuple(FaceImage(path.relative_to(folder).as_posix(), path) for _, path in found)
    return People(name or folder.resolve().name, images, tuple(person for person, _ in found))


def read_counterparts(sources: Path, tests: Path, *, name: str | None = None) -> PairSet:
    """Photos to protect, and another photo of each person under the same name: genuine pairs for dodging.

    The CelebA-HQ pairs of this kind are called ``train_1`` and ``test_1``; such a beginning does not count.

    Args:
        sources: Folder of the photos to protect, which are the first of each pair.
        tests: Folder of the others.
        name: The set's name in results; that of the folder above the sources by default.

    Raises:
        UsageError: when a folder is missing or empty, or a photo has no counterpart.
    """

    def person(image: FaceImage) -> str:
        return Path(image.name).stem.removeprefix("train_").removeprefix("test_")

    first, second = images_in(sources), images_in(tests)
    others = {person(image): place for place, image in enumerate(second, len(first))}
    for image in first:
        if person(image) not in others:
            raise UsageError(
                f"{image.origin} has no counterpart in {tests}.", hint="Give the other photo the same name there."
            )
    images = [FaceImage(f"{sources.name}/{image.name}", image.source) for image in first]
    images += [FaceImage(f"{tests.name}/{image.name}", image.source) for image in second]
    count = len(first)
    return PairSet(
        name or sources.resolve().parent.name,
        tuple(images),
        np.arange(count),
        np.array([others[person(image)] for image in first]),
        np.ones(count, np.bool_),
        np.zeros(count, np.int64),
        tuple(person(image) for image in (*first, *second)),
    )


def linked(count: int, first: Indices, second: Indices) -> tuple[str, ...]:
    """Names for people whom nobody named: things that genuine pairs link, directly or not, are one person.

    Two that no pair links have two names even when they show one person, so there may be more names than people,
    and intervals a little narrower than they should be. Our design.

    Args:
        count: Number of things.
        first: (L,) int64 of links.
        second: The same.
    """
    label = np.arange(count)
    while True:
        before = label.copy()
        lowest = np.minimum(label[first], label[second])
        np.minimum.at(label, first, lowest)
        np.minimum.at(label, second, lowest)
        label = label[label]
        if np.array_equal(label, before):
            return tuple(f"person {number}" for number in label.tolist())


class _Stems:
    """Finds files whatever their ending; every folder is listed once."""

    def __init__(self, named_by: Path) -> None:
        self._named_by = named_by
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def find(self, folder: Path, stem: str) -> Path:
        if folder not in self._folders:
            found: dict[str, list[Path]] = {}
            for path in sorted(filter(is_image, folder.iterdir())) if folder.is_dir() else ():
                found.setdefault(path.stem, []).append(path)
            self._folders[folder] = found
        paths = self._folders[folder].get(stem, [])
        if len(paths) != 1:
            what = f"is there {len(paths)} times, with different endings" if paths else "is missing"
            raise UsageError(
                f"{folder / stem}, named by {self._named_by}, {what}.",
                hint="Keep one image of that name."
                if paths
                else "Restore the image, or give the right folder of images.",
            )
        return paths[0]


_Photo = tuple[str, Path]
_Row = tuple[_Photo, _Photo, bool, int]


def _named_pairs(name: str, root: Path, rows: Sequence[_Row], lists: Path) -> PairSet:
    """A set of pairs (photo, photo, same, fold) of known people, checked against what the lists say."""
    subjects = {path: person for row in rows for person, path in row[:2]}
    places = {path: place for place, path in enumerate(subjects)}
    people = tuple(subjects.values())
    first = np.array([places[path] for (_, path), _, _, _ in rows])
    second = np.array([places[path] for _, (_, path), _, _ in rows])
    same = np.array([row[2] for row in rows])
    fold = np.array([row[3] for row in rows])
    code = codes_of(people)
    wrong = np.flatnonzero((code[first] == code[second]) != same)
    if len(wrong):
        one, other = rows[int(wrong[0])][:2]
        raise UsageError(
            f"{lists} has {one[1].name} of {one[0]} and {other[1].name} of {other[0]} on the wrong side.",
            hint="Fetch the lists again.",
        )
    _refuse_shared(code, people, first, second, fold, lists)
    images = tuple(FaceImage(path.relative_to(root).as_posix(), path) for path in places)
    return PairSet(name, images, first, second, same, fold, people)


def _refuse_shared(
    code: Indices, people: Sequence[str], first: Indices, second: Indices, fold: Indices, lists: Path
) -> None:
    """A threshold is drawn from other folds, which therefore must not hold the people it judges."""
    seen = np.unique(np.stack([code[np.concatenate([first, second])], np.concatenate([fold, fold])]), axis=1)
    person, count = np.unique(seen[0], return_counts=True)
    shared = person[count > 1]
    if len(shared):
        names = [people[int(np.flatnonzero(code == one)[0])] for one in shared[:3]]
        raise UsageError(f"{lists} has people in two folds: {', '.join(names)}.", hint="Keep every person in one fold.")


def find_folder(folder: Path, given: Path | str | None, usual: Collection[str], inside: str | None) -> Path:
    """The folder that was named, or the first usual one that is there and holds `inside`.

    Raises:
        UsageError: when there is none.
    """
    places = [folder / given] if given is not None else [folder / name for name in usual]
    for place in places:
        if (place if inside is None else place / inside).is_dir():
            return place
    wanted = " or ".join(map(str, places))
    raise UsageError(
        f"{wanted} is missing{'' if inside is None else f', or has no folder {inside!r}'}.",
        hint="Name the folder of the images.",
    )


def images_in(folder: Path) -> tuple[FaceImage, ...]:
    """The images of a folder, by their names.

    Raises:
        UsageError: when there are none.
    """
    paths = sorted(filter(is_image, folder.iterdir())) if folder.is_dir() else []
    if not paths:
        raise UsageError(f"{folder} holds no images.", hint="WebP, JPEG or PNG images are wanted there.")
    return tuple(FaceImage(path.name, path) for path in paths)


def codes_of(names: Sequence[str]) -> Indices:
    """A number for each name, in the order of their first appearance."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)


def _check_pairs(name: str, count: int, first: Indices, second: Indices, same: Booleans) -> None:
    if not len(same) or not first.shape == second.shape == same.shape or same.dtype != np.bool_ or same.ndim != 1:
        raise UsageError(f"{name} has no pairs, or sides of different length.", hint="Check the list of pairs.")
    both = np.concatenate([first, second])
    if both.min() < 0 or both.max() >= count:
        raise UsageError(f"{name} has pairs of what is not there.", hint="Check the list of pairs.")


def digest_of_set(images: Iterable[FaceImage], *arrays: NDArray[np.generic]) -> str:
    """64 hexadecimal digits over the images and the structure over them."""
    return add_arrays(digest_of(images), arrays)


def add_arrays(total: hashlib._Hash, arrays: Iterable[NDArray[np.generic]]) -> str:
    """Add arrays, with their types and shapes, to a digest; its hexadecimal digits."""
    for array in arrays:
        plain = np.ascontiguousarray(array)
        total.update(f"{plain.dtype.str}{plain.shape}".encode() + plain.tobytes())
    return total.hexdigest()
