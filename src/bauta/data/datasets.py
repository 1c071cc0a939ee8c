"""Sets of faces as users have them on disk: pairs to verify, people to search for, templates, targets.

Every reader checks what the lists name against what is there, reads images only when they are wanted, and keeps
each image once, so that it is embedded once: pairs are indices. `sha256` identifies a set by the contents of its
images and the structure over them, wherever it lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bauta.data.images import FaceImage, digest_of, images_of_people, is_image
from bauta.data.people import assert_disjoint, lines_of, names_of_list, pairs_of_list
from bauta.data.pickled_pairs import read_pairs
from bauta.errors import UnreadablePhoto, UsageError

Indices = NDArray[np.int64]
Booleans = NDArray[np.bool_]

#: The targets of the CelebA-HQ protocol since AMT-GAN: the image a method sees, and another one of that person.
CELEBA_HQ_TARGETS = {"005869": "008793", "085807": "047073", "116481": "055622", "169284": "166607"}


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
        return _digest(self.images, self.first, self.second, self.same, self.fold, _codes(self.subjects))

    @property
    def pair_subjects(self) -> tuple[str, ...]:
        """The person of each pair's first image: the unit of intervals."""
        return tuple(self.subjects[place] for place in self.first.tolist())


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
        return _digest(self.images, _codes(self.subjects))


@dataclass(frozen=True, eq=False)
class Identification:
    """Probes to be searched for in a gallery, and the targets a mask may pull them to.

    Attributes:
        people: The images.
        probes: (P,) int64 indices into them.
        gallery: (G,) int64, with other images of the probes' people and of others.
        targets: The people masks are pulled to, or nobody. They share no name with `people`.
        seen: (T,) int64 indices into the targets' images: one of each target, which methods may see.
        inserted: (U,) int64 indices into the targets' images: the rest, which join the gallery.

    Raises:
        UsageError: when an image is on both sides, or a person is a target and not one.
    """

    people: People
    probes: Indices
    gallery: Indices
    targets: People | None
    seen: Indices
    inserted: Indices

    def __post_init__(self) -> None:
        if not len(self.probes) or not len(self.gallery):
            raise UsageError(f"{self.people.name} has no probes or no gallery.", hint="Give more people.")
        for one, other in ((self.probes, self.gallery), (self.seen, self.inserted)):
            if len(np.intersect1d(one, other)):
                raise UsageError("An image is on both sides of a split.", hint="Split the images again.")
        if self.targets is not None:
            assert_disjoint(self.people.subjects, self.targets.subjects)

    @cached_property
    def sha256(self) -> str:
        """64 hexadecimal digits; reads all images once."""
        parts = [self.people.sha256, self.targets.sha256 if self.targets else ""]
        total = hashlib.sha256("\n".join(parts).encode())
        return _add_arrays(total, (self.probes, self.gallery, self.seen, self.inserted))


@dataclass(frozen=True, eq=False)
class TemplateSet:
    """Templates, each of several images of one person, and pairs of templates to verify (IJB-B, IJB-C).

    Attributes:
        name: What results call it.
        images: N images, each once.
        rows: (R,) int64 index of an image for each line of the list; one image may serve several templates.
        template: (R,) int64, of which template that line is, 0 to T - 1.
        media: (R,) int64, from which photo or video it is; frames of a video count as one.
        identifiers: (T,) int64, the templates' numbers in the list, ascending.
        first: (P,) int64 indices of templates.
        second: The same.
        same: (P,) bool, whether they show one person.
        landmarks: (N, 5, 2) float32 in pixels, or None when the images are aligned.

    Raises:
        UsageError: when there is no pair, or the fields disagree.
    """

    name: str
    images: tuple[FaceImage, ...]
    rows: Indices
    template: Indices
    media: Indices
    identifiers: Indices
    first: Indices
    second: Indices
    same: Booleans
    landmarks: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        _check_pairs(self.name, len(self.identifiers), self.first, self.second, self.same)
        if not self.rows.shape == self.template.shape == self.media.shape:
            raise UsageError(f"The lines of {self.name} do not fit.", hint="Give each a template and a media number.")

    @cached_property
    def sha256(self) -> str:
        """64 hexadecimal digits; reads all images once."""
        arrays = (self.rows, self.template, self.media, self.first, self.second, self.same)
        return _digest(self.images, *arrays, *(() if self.landmarks is None else (self.landmarks,)))

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """A name for each template's person as far as genuine pairs link them; see `linked`."""
        return linked(len(self.identifiers), self.first[self.same], self.second[self.same])


@dataclass(frozen=True, eq=False)
class ImpersonationSet:
    """Photos to protect, and people to be taken for.

    Attributes:
        name: What results call it.
        sources: N photos of different people.
        targets: K images that methods may see, one of each target.
        tests: K other images of the targets, in the same order; success is a match with these.

    Raises:
        UsageError: when a side is empty, numbers disagree, or a target is tested on the image that was seen.
    """

    name: str
    sources: tuple[FaceImage, ...]
    targets: tuple[FaceImage, ...]
    tests: tuple[FaceImage, ...]

    def __post_init__(self) -> None:
        if not self.sources or not self.targets or len(self.targets) != len(self.tests):
            raise UsageError(
                f"{self.name} has {len(self.sources)} sources, {len(self.targets)} targets, {len(self.tests)} tests.",
                hint="Give photos to protect, and for each target one image to see and one to test.",
            )
        for target, test in zip(self.targets, self.tests, strict=True):
            if target.read() == test.read():
                raise UsageError(
                    f"{test.origin} is the image {target.origin} that methods see.",
                    hint="Test on another image of the target.",
                )

    @cached_property
    def sha256(self) -> str:
        """64 hexadecimal digits; reads all images once."""
        lengths = np.array([len(self.sources), len(self.targets)])
        return _digest((*self.sources, *self.targets, *self.tests), lengths)


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
    root = _find_folder(
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
    root = _find_folder(folder, images, ("Data/Images", "images", "Images"), None)
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


def draw_identification(
    people: People, targets: People | None = None, *, probes: int = 500, others: int = 500, seed: int = 0
) -> Identification:
    """The split of TIP-IM's section 5.1, drawn at random.

    One image of each of `probes` people becomes a probe; their other images, all images of `others` further people,
    and those of the targets but one each make the gallery.

    Args:
        people: At least `probes` of them with two images.
        targets: People with at least two images each, or nobody.
        probes: Number of probes.
        others: Most people without a probe to draw into the gallery.
        seed: Of the draw.

    Raises:
        UsageError: when there are too few people with two images, a target has one image, or is among the people.
    """
    random = np.random.default_rng(seed)
    code = _codes(people.subjects)
    counts = np.bincount(code)
    able = np.flatnonzero(counts >= 2)
    if not 0 < probes <= len(able):
        raise UsageError(
            f"{people.name} has {len(able)} people with two images for {probes} probes.",
            hint="Ask for fewer probes, or give more people.",
        )
    chosen = random.choice(able, probes, replace=False)
    rest = np.setdiff1d(np.arange(len(counts)), chosen)
    further = random.choice(rest, min(others, len(rest)), replace=False)
    probe = _one_of_each(code, chosen, random)
    gallery = np.setdiff1d(np.flatnonzero(np.isin(code, np.concatenate([chosen, further]))), probe)
    seen = inserted = np.zeros(0, np.int64)
    if targets is not None:
        wanted = _codes(targets.subjects)
        single = np.flatnonzero(np.bincount(wanted) < 2)
        if len(single):
            name = targets.subjects[int(np.flatnonzero(wanted == single[0])[0])]
            raise UsageError(
                f"The target {name!r} has one image.", hint="One is seen by methods, another is searched for: give two."
            )
        seen = _one_of_each(wanted, np.unique(wanted), random)
        inserted = np.setdiff1d(np.arange(len(wanted)), seen)
    return Identification(people, probe, gallery, targets, seen, inserted)


def _one_of_each(code: Indices, people: Indices, random: np.random.Generator) -> Indices:
    """A random image of each of the people, ascending."""
    shuffled = random.permutation(len(code))
    return np.sort(shuffled[np.unique(code[shuffled], return_index=True)[1][people]])


def read_templates(
    images: Path, meta: Path, pairs: Path, *, landmarks: Path | None = None, name: str | None = None
) -> TemplateSet:
    """Template lists in the form in which InsightFace hands out IJB-B and IJB-C.

    Args:
        images: Folder of the face images.
        meta: Lines ``image template media`` (``ijbc_face_tid_mid.txt``).
        pairs: Lines ``template template same`` (``ijbc_template_pair_label.txt``).
        landmarks: Lines ``image x1 y1 ... x5 y5 score`` for images that are not aligned
            (``ijbc_name_5pts_score.txt``).
        name: The set's name in results; that of the list by default.

    Raises:
        UsageError: when a list has another form, or a pair names a template that the list does not.
        UnreadablePhoto: when an image is not there.
    """
    files: list[str] = []
    numbers = []
    for line in lines_of(meta):
        fields = line.split()
        if len(fields) != 3 or not (fields[1].isdecimal() and fields[2].isdecimal()):
            raise UsageError(
                f"{meta} has a line {line!r}.", hint="'image template media' is wanted, such as '1.jpg 1 7'."
            )
        files.append(fields[0])
        numbers.append((int(fields[1]), int(fields[2])))
    if not files:
        raise UsageError(f"{meta} lists no images.", hint="Check the name of the list.")
    places = {file: place for place, file in enumerate(dict.fromkeys(files))}
    present = {path.name for path in images.iterdir()} if images.is_dir() else set()
    missing = [file for file in places if file not in present]
    if missing:
        raise UnreadablePhoto(
            f"{images / missing[0]}, named by {meta}, is missing, as are {len(missing) - 1} more.",
            hint="Give the folder of the face images.",
        )
    identifiers, template = np.unique([number for number, _ in numbers], return_inverse=True)
    first, second, same = _template_pairs(pairs, meta, identifiers)
    return TemplateSet(
        name=name or meta.stem,
        images=tuple(FaceImage(file, images / file) for file in places),
        rows=np.array([places[file] for file in files]),
        template=template.astype(np.int64),
        media=np.array([number for _, number in numbers]),
        identifiers=identifiers,
        first=first,
        second=second,
        same=same,
        landmarks=None if landmarks is None else _read_landmarks(landmarks, places),
    )


def _template_pairs(path: Path, meta: Path, identifiers: Indices) -> tuple[Indices, Indices, Booleans]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            table = np.loadtxt(stream, dtype=np.int64, ndmin=2) if path.stat().st_size else np.zeros((0, 3), np.int64)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no list of pairs: {error}.", hint="'template template same' is wanted.") from error
    if not len(table) or table.shape[1] != 3 or not np.isin(table[:, 2], (0, 1)).all():
        raise UsageError(
            f"{path} is no list of pairs.", hint="Lines 'template template same' are wanted, the last 0 or 1."
        )
    place = np.searchsorted(identifiers, table[:, :2]).clip(max=len(identifiers) - 1)
    absent = identifiers[place] != table[:, :2]
    if absent.any():
        raise UsageError(
            f"{path} names a template {table[:, :2][absent][0]} that {meta} does not.", hint="Give lists of one set."
        )
    return place[:, 0], place[:, 1], table[:, 2] == 1


def _read_landmarks(path: Path, places: Mapping[str, int]) -> NDArray[np.float32]:
    points = np.full((len(places), 5, 2), np.nan, np.float32)
    for line in lines_of(path):
        fields = line.split()
        try:
            if fields[0] in places:
                points[places[fields[0]]] = np.array(fields[1:11], np.float32).reshape(5, 2)
        except ValueError as error:
            raise UsageError(f"{path} has a line {line!r}.", hint="'image x1 y1 ... x5 y5 score' is wanted.") from error
    without = [file for file, place in places.items() if not np.isfinite(points[place]).all()]
    if without:
        raise UsageError(f"{path} has no landmarks of {without[0]}.", hint="Give lists of one set.")
    return points


def read_impersonation(
    folder: Path,
    *,
    sources: Path | str = "CelebA-HQ",
    targets: Path | str | None = None,
    tests: Path | str | None = None,
    pairs: Mapping[str, str] = CELEBA_HQ_TARGETS,
) -> ImpersonationSet:
    """Folders of photos, target images and test images, as the makeup-transfer line of work lays them out.

    Args:
        folder: Where they lie, such as ``assets/datasets``.
        sources: The photos to protect.
        targets: The images that methods see; looked for as ``target`` (DiffAM) and ``target_images`` (Salar et al.),
            there and in the folder above.
        tests: Other images of the targets; looked for as ``test`` and ``test_images``.
        pairs: The test image of each target by file names without endings. A target that is not there is tested on
            the image of its own name.

    Raises:
        UsageError: when a folder is missing or empty, or a target has no test image.
        UnreadablePhoto: when a target or test image cannot be read.
    """
    above = ("{}", "{}_images", "../{}", "../{}_images")
    seen = _images_in(_find_folder(folder, targets, [form.format("target") for form in above], None))
    tested = _images_in(_find_folder(folder, tests, [form.format("test") for form in above], None))
    by_stem = {Path(image.name).stem: image for image in tested}
    matched = []
    for image in seen:
        stem = Path(image.name).stem
        wanted = pairs.get(stem, stem)
        if wanted not in by_stem:
            raise UsageError(
                f"The target {image.origin} has no test image {wanted!r}.",
                hint="Give another image of that person the same name in the folder of test images.",
            )
        matched.append(by_stem[wanted])
    return ImpersonationSet(Path(sources).name, _images_in(folder / sources), seen, tuple(matched))


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

    first, second = _images_in(sources), _images_in(tests)
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
    code = _codes(people)
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


def _find_folder(folder: Path, given: Path | str | None, usual: Collection[str], inside: str | None) -> Path:
    """The folder that was named, or the first usual one that is there and holds `inside`."""
    places = [folder / given] if given is not None else [folder / name for name in usual]
    for place in places:
        if (place if inside is None else place / inside).is_dir():
            return place
    wanted = " or ".join(map(str, places))
    raise UsageError(
        f"{wanted} is missing{'' if inside is None else f', or has no folder {inside!r}'}.",
        hint="Name the folder of the images.",
    )


def _images_in(folder: Path) -> tuple[FaceImage, ...]:
    paths = sorted(filter(is_image, folder.iterdir())) if folder.is_dir() else []
    if not paths:
        raise UsageError(f"{folder} holds no images.", hint="WebP, JPEG or PNG images are wanted there.")
    return tuple(FaceImage(path.name, path) for path in paths)


def _codes(names: Sequence[str]) -> Indices:
    """A number for each name, in the order of their first appearance."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)


def _check_pairs(name: str, count: int, first: Indices, second: Indices, same: Booleans) -> None:
    if not len(same) or not first.shape == second.shape == same.shape or same.dtype != np.bool_ or same.ndim != 1:
        raise UsageError(f"{name} has no pairs, or sides of different length.", hint="Check the list of pairs.")
    both = np.concatenate([first, second])
    if both.min() < 0 or both.max() >= count:
        raise UsageError(f"{name} has pairs of what is not there.", hint="Check the list of pairs.")


def _digest(images: Iterable[FaceImage], *arrays: NDArray[np.generic]) -> str:
    return _add_arrays(digest_of(images), arrays)


def _add_arrays(total: hashlib._Hash, arrays: Iterable[NDArray[np.generic]]) -> str:
    for array in arrays:
        plain = np.ascontiguousarray(array)
        total.update(f"{plain.dtype.str}{plain.shape}".encode() + plain.tobytes())
    return total.hexdigest()
