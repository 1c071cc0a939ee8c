"""Benchmarks somebody else's protected photos: a folder of originals and a folder of outputs, without their code.

Files go together by their path below the folders, endings apart. A photo's person is the folder it lies in, or the
photo's own name. With references (``PERSON/photo``, or ``PERSON.jpg``) a protected photo is compared with the first
other photo of its person; without, with its own original, which is the strictest case: nobody has to be
recognised in another photo first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.recipe_files import Named
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.photos.measuring import Item, Plan
from bauta.benchmark.photos.page import Photos
from bauta.benchmark.photos.recipe import Face, Pair
from bauta.benchmark.photos.run import ANOTHER, ORIGINAL, measure, participants
from bauta.benchmark.photos.transports import transports
from bauta.data.images import FaceImage, is_image
from bauta.errors import UsageError

TRANSPORTS = ("saved", "jpeg-75", "half-size", "blur", "screenshot")


def read_folders(originals: Path, outputs: Path, references: Path | None = None) -> list[Item]:
    """The photos of two folders that go together, in the order of their names.

    Raises:
        UsageError: when a folder holds no photos, an original has no output or several, or a person no reference.
    """
    before, after = _by_stem(originals), _by_stem(outputs)
    missing = [stem for stem in before if stem not in after]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(before)} originals have no output, such as {before[missing[0]]}.",
            hint=f"Give them the same names in {outputs}, or take them out; leaving failures out flatters a method.",
        )
    others = None if references is None else _references(references)
    items = []
    for stem, path in before.items():
        relative = path.relative_to(originals)
        subject = relative.parts[0] if len(relative.parts) > 1 else path.stem
        original = FaceImage(relative.as_posix(), path)
        output = FaceImage(after[stem].relative_to(outputs).as_posix(), after[stem])
        if others is None:
            items.append(Item(Pair(subject, original, original), output))
            continue
        found = [image for image in others.get(subject, []) if image.read() != original.read()]
        if not found:
            raise UsageError(
                f"{subject} has no other photo in {references}.",
                hint=f"Put one there as {subject}/photo.jpg or {subject}.jpg; a copy of the original is none.",
            )
        items.append(Item(Pair(subject, original, found[0]), output))
    return items


@dataclass(frozen=True)
class Method:
    """What protected the photos.

    Attributes:
        name: What to call it.
    """

    name: str


@dataclass(frozen=True)
class FolderRecipe:
    """Photos before and after, who judges them and how.

    Attributes:
        originals: Folder.
        outputs: Folder; sizes may differ from the originals', then there are no figures of quality.
        judges: Names of recognisers.
        references: Folder of other photos.
        surrogates: Recognisers that the outputs were made against, as far as known; they count as attacked.
        method: What to call the method; the name of the folder of outputs by default.
        transports: What happens to the photos before they are judged.
        face: Which face of a photo counts.
        fmr: False match rate of the thresholds.
        name: Of the recipe, and so on: what cards say of every recipe.
    """

    originals: Path
    outputs: Path
    judges: tuple[str, ...]
    references: Path | None = None
    surrogates: tuple[str, ...] = ()
    method: str = ""
    transports: tuple[str, ...] = TRANSPORTS
    face: Face = "largest"
    fmr: float = 1e-2
    name: str = "folder"
    seed: int = 0
    evidence: bool = True
    note: str = "Photos that were protected elsewhere; who was attacked is what we were told."

    @property
    def rows(self) -> tuple[Method, ...]:
        """The method, which is all there is to measure."""
        return (Method(self.method or self.outputs.resolve().name),)


class FolderKind(Photos, Kind[FolderRecipe, tuple[FolderRecipe, Job]]):
    """Outputs of a method that we do not run; see `read_folders` for what is refused."""

    def set_up(self, recipe: FolderRecipe, job: Job) -> tuple[FolderRecipe, Job]:
        """Nothing is shared with other rows."""
        for one in recipe.transports:
            transports(one)
        return recipe, job

    def row(self, setup: tuple[FolderRecipe, Job], row: Method, done: Mapping[str, Card]) -> Task:
        """All photos."""
        recipe, job = setup
        items = read_folders(recipe.originals, recipe.outputs, recipe.references)
        plan = Plan(
            "", {}, recipe.surrogates, recipe.judges, recipe.transports, recipe.face, recipe.seed, recipe.fmr,
            lpips=job.lpips, examples=job.examples > 0,
        )  # fmt: skip
        known = {
            "method": {"name": row.name, "kind": "folder", "origin": "elsewhere", "config": {}},
            "compared_with": ORIGINAL if recipe.references is None else ANOTHER,
        } | participants(plan)
        return Task(lambda: known | measure(items, plan, recipe.originals.resolve().name, row.name, 16, job))

    def called(self, recipe: FolderRecipe, row: Named) -> str:
        """By the folder of originals."""
        return f"{recipe.originals.resolve().name}/{row.name}"


def _by_stem(folder: Path) -> dict[str, Path]:
    """Images below a folder by their path without ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file() and is_image(path):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise UsageError(f"{found[stem]} and {path} have one name.", hint="Keep one of them.")
            found[stem] = path
    if not found:
        raise UsageError(f"{folder} holds no photos.", hint="JPEG, PNG or WebP photos are wanted there.")
    return found


def _references(folder: Path) -> dict[str, list[FaceImage]]:
    found: dict[str, list[FaceImage]] = {}
    for path in _by_stem(folder).values():
        relative = path.relative_to(folder)
        subject = relative.parts[0] if len(relative.parts) > 1 else path.stem
        found.setdefault(subject, []).append(FaceImage(relative.as_posix(), path))
    return found
