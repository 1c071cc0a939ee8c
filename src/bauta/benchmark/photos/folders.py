"""Benchmarks somebody else's protected photos: a folder of originals and a folder of outputs, without their code.

Files go together by their path below the folders, endings apart. A photo's person is the folder it lies in, or the
photo's own name. With references (``PERSON/photo``, or ``PERSON.jpg``) a protected photo is compared with the first
other photo of its person; without, with its own original, which is the strictest case: nobody has to be
recognised in another photo first.
"""

from __future__ import annotations

from pathlib import Path

from bauta.benchmark.engine.cards import Card
from bauta.benchmark.photos.measuring import Item, Plan
from bauta.benchmark.photos.recipe import Face, Pair
from bauta.benchmark.photos.run import ANOTHER, ORIGINAL, participants, run_items
from bauta.benchmark.photos.transports import transports
from bauta.data.images import FaceImage, is_image
from bauta.errors import UsageError
from bauta.progress import Steps, silent

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


def run_folders(
    originals: Path,
    outputs: Path,
    path: Path,
    *,
    judges: tuple[str, ...],
    references: Path | None = None,
    surrogates: tuple[str, ...] = (),
    name: str = "",
    conditions: tuple[str, ...] = TRANSPORTS,
    face: Face = "largest",
    fmr: float = 1e-2,
    work: Path | None = None,
    jobs: int = 1,
    examples: int = 0,
    lpips: Path | None = None,
    command: str = "",
    progress: Steps = silent,
) -> Card:
    """Judge outputs and write a card.

    Args:
        originals: Folder.
        outputs: Folder; sizes may differ from the originals', then there are no figures of quality.
        path: File of the card.
        judges: Names of recognisers.
        references: Folder of other photos.
        surrogates: Recognisers that the outputs were made against, as far as known; they count as attacked.
        name: What to call the method; the name of the folder of outputs by default.
        conditions: Transports.
        face: Which face of a photo counts.
        fmr: False match rate of the thresholds.
        work: Folder of finished batches; ``.work`` beside the card by default.
        jobs: Worker processes.
        examples: Of how many faces to keep pictures.
        lpips: File of the weights of LPIPS; without it there is none in the card.
        command: As it was given.
        progress: Called with the photos done and the photos there are.

    Raises:
        UsageError: see `read_folders`.
        RecognizerError: when a judge cannot be used.
        OutputError: when the card cannot be written.
    """
    for condition in conditions:
        transports(condition)
    items = read_folders(originals, outputs, references)
    called = name or outputs.resolve().name
    plan = Plan("", {}, surrogates, judges, conditions, face, 0, fmr, lpips=lpips)
    card = {
        "name": f"{originals.resolve().name}/{called}",
        "recipe": "folder",
        "evidence": True,
        "note": "Photos that were protected elsewhere; who was attacked is what we were told.",
        "method": {"name": called, "kind": "folder", "origin": "elsewhere", "config": {}},
        "compared_with": ORIGINAL if references is None else ANOTHER,
    } | participants(plan)
    return run_items(
        items, plan, card, originals.resolve().name, path, batch=16, work=work or path.parent / ".work", jobs=jobs,
        examples=examples, command=command, progress=progress,
    )  # fmt: skip


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
