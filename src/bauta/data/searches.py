"""Sets that are searched or impersonated: probes and galleries as TIP-IM draws them, sources and targets of makeup."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bauta.data.datasets import Indices, People, add_arrays, codes_of, digest_of_set, find_folder, images_in
from bauta.data.images import FaceImage
from bauta.data.people import assert_disjoint
from bauta.errors import UsageError

#: The targets of the CelebA-HQ protocol since AMT-GAN: the image a method sees, and another one of that person.
CELEBA_HQ_TARGETS = {"005869": "008793", "085807": "047073", "116481": "055622", "169284": "166607"}


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
        return add_arrays(total, (self.probes, self.gallery, self.seen, self.inserted))


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
        return digest_of_set((*self.sources, *self.targets, *self.tests), lengths)


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
    code = codes_of(people.subjects)
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
        wanted = codes_of(targets.subjects)
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
    seen = images_in(find_folder(folder, targets, [form.format("target") for form in above], None))
    tested = images_in(find_folder(folder, tests, [form.format("test") for form in above], None))
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
    return ImpersonationSet(Path(sources).name, images_in(folder / sources), seen, tuple(matched))
