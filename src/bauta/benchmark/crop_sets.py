"""Crop sets: aligned crops of people drawn from folders, disjoint by name from other sets; and pairs to evaluate on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bauta.benchmark.photos.recipe import Pair
from bauta.data.datasets import read_people
from bauta.data.images import ByteArray, FaceImage, digest_of
from bauta.errors import UsageError
from bauta.names import normalise_name

SHAPE = (112, 112, 3)


@dataclass(frozen=True)
class Source:
    """People of one folder ``person/crop``.

    Attributes:
        path: The folder, below the data folder.
        people: How many people to draw; all when None.
        each: Most crops of a person.
    """

    path: str
    people: int | None = None
    each: int = 1

    def __post_init__(self) -> None:
        if self.each < 1 or (self.people is not None and self.people < 1):
            raise UsageError(
                f"{self.each} crops of {self.people} people of {self.path} are nothing to draw.", hint="Give more."
            )


@dataclass(frozen=True)
class CropSet:
    """Crops and whose they are.

    Attributes:
        name: The folders they come from.
        subjects: The person of each crop, in one spelling.
        images: The crops.
    """

    name: str
    subjects: tuple[str, ...]
    images: tuple[FaceImage, ...]

    @cached_property
    def sha256(self) -> str:
        """Over the contents in their order."""
        return digest_of(self.images).hexdigest()

    @property
    def people(self) -> int:
        """How many there are."""
        return len(set(self.subjects))

    def pixels(self) -> ByteArray:
        """(N, 112, 112, 3) uint8 RGB.

        Raises:
            UnreadablePhoto: when a crop is missing or damaged.
            UsageError: when one has another size.
        """
        return stack(self.images)


def stack(images: Sequence[FaceImage]) -> ByteArray:
    """(N, 112, 112, 3) uint8 RGB of aligned crops.

    Raises:
        UnreadablePhoto: when a crop is missing or damaged.
        UsageError: when one has another size.
    """
    crops = []
    for image in images:
        crops.append(image.pixels())
        if crops[-1].shape != SHAPE:
            raise UsageError(
                f"{image.origin} has {crops[-1].shape[1]}x{crops[-1].shape[0]} pixels, not 112x112.",
                hint="Cut faces by the ArcFace template first, as `bauta.faces.alignment.extract_crops` does.",
            )
    return np.stack(crops)


def draw_crop_set(data: Path, sources: Sequence[Source], excluded: Collection[str], seed: int) -> CropSet:
    """People drawn at random from folders, none of whom is excluded under any spelling of `normalise_name`.

    Args:
        data: Folder of the sources.
        sources: What to draw from each.
        excluded: Names.
        seed: Of the draw.

    Raises:
        UsageError: when a folder holds no faces, or fewer people than are wanted.
    """
    refused = {normalise_name(name) for name in excluded}
    subjects: list[str] = []
    images: list[FaceImage] = []
    for source in sources:
        found: dict[str, list[FaceImage]] = {}
        everybody = read_people(data / source.path)
        for person, image in zip(everybody.subjects, everybody.images, strict=True):
            name = normalise_name(person)
            if name not in refused:
                found.setdefault(name, []).append(FaceImage(f"{source.path}/{image.name}", image.source))
        wanted = len(found) if source.people is None else source.people
        if not 0 < wanted <= len(found):
            raise UsageError(
                f"{data / source.path} has {len(found)} people who may be drawn; {wanted or 'some'} are wanted.",
                hint="Ask for fewer, or add people; who is in the evaluation or on a list of the recipe may not.",
            )
        random = np.random.default_rng(seed)
        names = sorted(found)
        for place in sorted(random.permutation(len(names))[:wanted].tolist()):
            crops = found[names[place]]
            chosen = sorted(random.permutation(len(crops))[: source.each].tolist())
            images += [crops[one] for one in chosen]
            subjects += [names[place]] * len(chosen)
        refused |= found.keys()  # somebody in two folders is drawn from the first
    return CropSet("+".join(source.path for source in sources), tuple(subjects), tuple(images))


def draw_pairs(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """The first genuine pair of each of `count` people, drawn at random and in the order of the list.

    Raises:
        UsageError: when there are fewer people.
    """
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(normalise_name(pair.subject), pair)
    if count > len(first):
        raise UsageError(f"The pairs show {len(first)} people; {count} are wanted.", hint="Ask for fewer.")
    names = list(first)
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    return [first[names[place]] for place in sorted(chosen.tolist())]
