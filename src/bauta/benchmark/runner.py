"""Runs the rows of a recipe: protect, encode, read back, transport, judge; batch by batch, so that it can go on.

Everything that decides the figures of a batch is in the name of the file it is kept in: the code, the method and its
settings, the recognisers, the transports, the seed, the bytes of the photos. Each batch draws from a generator of its
own, seeded by the seed and the photos, so figures depend neither on the number of processes nor on what ran before.

As a photo is shared: the mask is added to the photo, which is encoded in its own format and read back, and the face is
looked for again under every transport. Quality is measured on the bounding box of the ArcFace crop: ``psnr`` and
``ssim`` of the mask on the pixels, ``psnr_saved`` and ``ssim_saved`` of the written file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta import metrics
from bauta.benchmark import cards
from bauta.benchmark.images import FaceImage
from bauta.benchmark.recipes import Face, Pair, Recipe, Row
from bauta.benchmark.references import prepare, settings
from bauta.benchmark.results import DIGITS, Record, summarise
from bauta.benchmark.transports import LOSSLESS, transports
from bauta.cloaks.targets import composite_faces
from bauta.cloaks.tip_im import TipImConfig
from bauta.cloaks.view import FaceView, Placement, cut_view
from bauta.errors import BautaError, OutputError, UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.faces.templates import ARCFACE_112
from bauta.photo import Photo, read_photo
from bauta.photo.files import write_atomically
from bauta.protection.report import picture
from bauta.protection.verification import cut, find_again, footprint
from bauta.recognizers import Judge, Surrogate, find_card, load_judge, load_surrogate, threshold

FloatArray = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

ORIGINAL, ANOTHER = "the original", "another photo"
_EXAMPLE = 160  # pixels of the pictures that a card keeps


@dataclass(frozen=True)
class Plan:
    """What every batch of a row shares.

    Attributes:
        method: Cloak or reference; "" when the photos come protected.
        options: Its settings.
        surrogates: Attacked.
        judges: Asked.
        transports: Done to the photo.
        face: Which face of a photo counts.
        seed: Of everything random.
        fmr: Of the thresholds, which cloaks may stop early by.
        examples: Whether to keep pictures.
    """

    method: str
    options: dict[str, Any]
    surrogates: tuple[str, ...]
    judges: tuple[str, ...]
    transports: tuple[str, ...]
    face: Face
    seed: int
    fmr: float
    examples: bool = False

    @cached_property
    def key(self) -> str:
        """Digest of everything here and of the code and weights behind it."""
        facts = {
            "code": cards.code()["sha256"],
            "method": [
                self.method,
                settings(self.method, prepare(self.method, self.options)[1]) if self.method else {},
            ],
            "surrogates": [find_card(name).sha256 for name in self.surrogates],
            "judges": {name: find_card(name).sha256 for name in self.judges},
            "transports": self.transports,
            "rest": [self.face, self.seed, self.fmr, self.examples],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=list).encode()).hexdigest()


@dataclass(frozen=True)
class Item:
    """One pair at work.

    Attributes:
        pair: Of photos.
        output: The protected photo when it was made elsewhere.
    """

    pair: Pair
    output: FaceImage | None = None

    @cached_property
    def sha256(self) -> list[str]:
        """Of the photo to protect, of the reference, and of the output when it was made elsewhere."""
        images = [self.pair.protected, self.pair.reference, *([self.output] if self.output else [])]
        return [hashlib.sha256(image.read()).hexdigest() for image in images]


@dataclass(frozen=True)
class Batch:
    """Pairs whose masks are made together.

    Attributes:
        items: The pairs.
        file: Where its outcome is kept.
    """

    items: tuple[Item, ...]
    file: Path


@dataclass
class _Passes:
    """Counts images through surrogates. A product with several cotangents at once counts as one backward pass."""

    forward: int = 0
    backward: int = 0
    _handles: list[Any] = field(default_factory=list)

    def watch(self, surrogates: Sequence[Surrogate]) -> None:
        for surrogate in surrogates:
            if isinstance(surrogate, torch.nn.Module):
                self._handles.append(surrogate.register_forward_hook(self._passed))

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _passed(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        count = len(output)
        self.forward += count
        if output.requires_grad:

            def came_back(gradient: Tensor) -> None:
                self.backward += count

            output.register_hook(came_back)  # type: ignore[no-untyped-call]


class Bench:
    """Measures batches; holds the networks, each loaded once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._targets: dict[str, FloatArray] = {}

    @cached_property
    def surrogates(self) -> list[Surrogate]:
        """The networks to attack."""
        return [load_surrogate(find_card(name)) for name in self.plan.surrogates]

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """The judges by name."""
        return {name: load_judge(find_card(name)) for name in self.plan.judges}

    def measure(self, batch: Batch) -> Record:
        """The outcome of a batch, from its file when it was measured before."""
        with contextlib.suppress(OSError, ValueError):
            kept: Record = json.loads(batch.file.read_text(encoding="utf-8"))
            return kept
        began = time.monotonic()
        outcome = self._measure(batch.items)
        outcome["seconds"] = time.monotonic() - began
        try:
            batch.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot write to {batch.file.parent}: {error}.", hint="Give another --work.") from error
        write_atomically(batch.file, json.dumps(outcome).encode(), overwrite=True)
        return outcome

    def _measure(self, items: Sequence[Item]) -> Record:
        records: list[Record] = [
            {
                "subject": item.pair.subject,
                "protected": item.pair.protected.name,
                "reference": item.pair.reference.name,
                "sha256": item.sha256[:2],
                "failure": None,
            }
            for item in items
        ]
        photos: list[tuple[Photo, Faces] | None] = []
        for item, record in zip(items, records, strict=True):
            try:
                photos.append(self._see(item.pair.protected))
            except BautaError as error:
                record["failure"] = error.message
                photos.append(None)
        protected, masks, passes = self._protect(items, records, photos)
        pictures = []
        for number, (item, record) in enumerate(zip(items, records, strict=True)):
            if record["failure"]:
                continue
            seen = photos[number]
            assert seen is not None
            try:
                other = self._see(item.pair.reference)
            except BautaError as error:
                record["failure"] = error.message
                continue
            record |= self._judge(seen, protected[number], other)
            record["iterations"] = masks[number].iterations if number in masks else None
            if self.plan.examples:
                pictures.append({"record": number, **_pictures(seen, protected[number][1])})
        spent = [mask.seconds for mask in masks.values()]
        return {"records": records, "pictures": pictures, "mask_seconds": spent} | passes

    def _see(self, image: FaceImage) -> tuple[Photo, Faces]:
        """A photo and the face that counts.

        Raises:
            UsageError: when there is none.
            PhotoError: when it cannot be read.
        """
        photo = read_photo(image.read())
        if self.plan.face == "aligned":
            height, width = photo.pixels.shape[:2]
            points = (np.array(ARCFACE_112.points) + 0.5) * [width / 112, height / 112] - 0.5
            return photo, Faces(
                *(part.astype(np.float32) for part in (np.array([[0, 0, width, height]]), points[None], np.ones(1)))
            )
        faces = detect_faces(photo.pixels)
        if not len(faces):
            raise UsageError(f"No face was found in {image.name}.", hint="Leave it out.")
        if self.plan.face == "largest":
            return photo, faces.largest()
        centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        middle = np.array([photo.pixels.shape[1], photo.pixels.shape[0]]) / 2
        return photo, faces[[int(np.linalg.norm(centres - middle, axis=1).argmin())]]  # type: ignore[index]

    def _protect(
        self, items: Sequence[Item], records: list[Record], photos: Sequence[tuple[Photo, Faces] | None]
    ) -> tuple[dict[int, tuple[FloatArray, FloatArray]], dict[int, Any], Record]:
        """By number of the item: pixels before encoding and as read back, and the masks; and the passes it took."""
        if not self.plan.method:
            return self._read_outputs(items, records, photos), {}, {"forward": 0, "backward": 0}
        views: dict[int, tuple[FaceView, Placement]] = {}
        for number, seen in enumerate(photos):
            if seen is None:
                continue
            photo, faces = seen
            try:
                views[number] = cut_view(photo.pixels, faces.landmarks[0], grey=photo.grey)
            except UsageError as error:
                records[number]["failure"] = error.message
        if not views:
            return {}, {}, {"forward": 0, "backward": 0}
        of, config, _ = prepare(self.plan.method, self.plan.options)
        limits = {name: threshold(find_card(name), self.plan.fmr).cosine for name in self._calibrated}
        cloak, passes = of(config, thresholds=limits), _Passes()
        patches = [view for view, _ in views.values()]
        cloak.fit(patches)
        passes.watch(self.surrogates)
        try:
            made = cloak.perturb(patches, self.surrogates, self._generator(items), progress=lambda done, total: None)
        finally:
            passes.stop()
        masks = dict(zip(views, made, strict=True))
        protected = {}
        for number, (_, placement) in views.items():
            seen = photos[number]
            assert seen is not None
            photo = seen[0]
            masked = photo.with_perturbation(placement.paste(masks[number].delta, photo.pixels.shape[:2]).clip(-1, 1))
            protected[number] = (masked.pixels, read_photo(masked.encode()).pixels)
        return protected, masks, {"forward": passes.forward, "backward": passes.backward}

    @cached_property
    def _calibrated(self) -> list[str]:
        found = []
        for name in self.plan.surrogates:
            with contextlib.suppress(BautaError):
                threshold(find_card(name), self.plan.fmr)
                found.append(name)
        return found

    def _read_outputs(
        self, items: Sequence[Item], records: list[Record], photos: Sequence[tuple[Photo, Faces] | None]
    ) -> dict[int, tuple[FloatArray, FloatArray]]:
        found = {}
        for number, item in enumerate(items):
            if photos[number] is None or item.output is None:
                continue
            try:
                pixels = read_photo(item.output.read()).pixels
            except BautaError as error:
                records[number]["failure"] = error.message
                continue
            found[number] = (pixels, pixels)
        return found

    def _generator(self, items: Sequence[Item]) -> torch.Generator:
        text = f"{self.plan.seed} {_digest(items)}"
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))

    def _judge(
        self, seen: tuple[Photo, Faces], protected: tuple[FloatArray, FloatArray], other: tuple[Photo, Faces]
    ) -> Record:
        (photo, face), (masked, saved) = seen, protected
        box = footprint(face.landmarks[0])
        record: Record = {
            "quality": _quality(photo.pixels, masked, box) | _quality(photo.pixels, saved, box, "_saved"),
            "largest_difference": None,
            "iterations": None,
            **{key: {} for key in ("before", "self", "after", "target_before", "target_after", "detected")},
        }
        if photo.pixels.shape == masked.shape:
            record["largest_difference"] = round(metrics.linf(photo.pixels, masked), 3)
        received = {}
        for name in self.plan.transports:
            pixels = (masked * 255).round() / np.float32(255) if name == LOSSLESS else saved
            for condition in transports(name):
                pixels = condition.apply(pixels)
            if self.plan.face == "aligned":
                scale = np.array([pixels.shape[1] / photo.pixels.shape[1], pixels.shape[0] / photo.pixels.shape[0]])
                present, landmarks = np.ones(1, np.bool_), ((face.landmarks + 0.5) * scale - 0.5).astype(np.float32)
            else:
                present, landmarks = find_again(pixels, face, photo.pixels.shape, thorough=False)
            record["detected"][name] = bool(present[0])
            received[name] = pixels, landmarks
        for name, judge in self.judges.items():
            source, reference = (_embed(judge, one.pixels, at.landmarks) for one, at in (seen, other))
            targets = self._target_embeddings(name)
            record["before"][name] = _rounded(source @ reference)
            record["target_before"][name] = _rounded((targets @ source).max())
            for transport, (pixels, landmarks) in received.items():
                found = _embed(judge, pixels, landmarks)
                record["after"].setdefault(transport, {})[name] = _rounded(found @ reference)
                if transport == "saved":
                    record["self"][name] = _rounded(found @ source)
                    record["target_after"][name] = _rounded((targets @ found).max())
        return record

    def _target_embeddings(self, name: str) -> FloatArray:
        """(K, D) of the composites that TIP-IM pulls to by default, for rows of every method."""
        if name not in self._targets:
            points = np.asarray(ARCFACE_112.points, dtype=np.float32)[None]
            judge = self.judges[name]
            faces = composite_faces()[: TipImConfig().targets].permute(0, 2, 3, 1).numpy()
            crops = [extract_crops(face, points, judge.card.template) for face in faces]
            self._targets[name] = judge.embed(np.concatenate(crops))
        return self._targets[name]


def run_recipe(
    recipe: Recipe,
    data: Path | None,
    output: Path,
    *,
    work: Path | None = None,
    jobs: int = 1,
    examples: int = 0,
    command: str = "",
    progress: Progress = lambda stage, done, total: None,
) -> list[Path]:
    """Run every row of a recipe and write a card for each as soon as it is done.

    Args:
        recipe: What to run.
        data: Where its data set lies; None for toys.
        output: Folder of the cards, ``RECIPE-ROW.json``.
        work: Folder of finished batches; ``.work`` in the output folder by default.
        jobs: Worker processes; the figures do not depend on it.
        examples: Of how many faces a card keeps pictures, before and after.
        command: As it was given, for the cards.
        progress: Called with the row, the pairs done and the pairs there are.

    Returns:
        The cards' files.

    Raises:
        UsageError: when the data set or a method cannot be used, or no face is found.
        RecognizerError: when a recogniser cannot be used, or a judge has no threshold.
        OutputError: when a card cannot be written.
    """
    if jobs < 1 or examples < 0:
        raise UsageError(f"{jobs} jobs and {examples} examples make no sense.", hint="Give at least 1 job.")
    name, pairs = recipe.dataset.read(data)
    facts = [_start(recipe, row) for row in recipe.rows]  # whatever is missing shows before anything is computed
    written = []

    def advance(done: int, total: int) -> None:
        progress(row.name, done, total)

    for row, (plan, card) in zip(recipe.rows, facts, strict=True):
        limit = min(one for one in (row.pairs, recipe.pairs, len(pairs)) if one is not None)
        items = [Item(pair) for pair in pairs[:limit]]
        path = output / f"{recipe.name}-{row.name}.json"
        run_items(
            items, plan, card, name, path, batch=recipe.batch, work=work or output / ".work", jobs=jobs,
            examples=examples, command=command, progress=advance,
        )  # fmt: skip
        written.append(path)
    return written


def _start(recipe: Recipe, row: Row) -> tuple[Plan, Record]:
    """The plan of a row, and the fields of its card that are known before it runs."""
    _, config, kind = prepare(row.method, dict(row.options))
    attacks = kind == "cloak" or row.method in ("pgd", "mi-fgsm", "ti-dim")
    surrogates = (row.surrogates or recipe.surrogates) if attacks else ()
    plan = Plan(
        row.method, dict(row.options), surrogates, recipe.judges, recipe.transports, recipe.dataset.face, recipe.seed,
        recipe.fmr,
    )  # fmt: skip
    card = {
        "name": f"{recipe.name}/{row.name}",
        "recipe": recipe.name,
        "evidence": recipe.evidence,
        "note": recipe.note,
        "method": {"name": row.method, "kind": kind, "origin": "bauta", "config": settings(row.method, config)},
        "compared_with": ANOTHER,
    }
    return plan, card | participants(plan)


def participants(plan: Plan) -> Record:
    """The fields of a card about who attacks and judges, how.

    Raises:
        RecognizerError: when one is not known, or a judge is not calibrated.
    """
    judges = []
    for name in plan.judges:
        found = find_card(name)
        judges.append(
            {
                "name": name,
                "sha256": found.sha256,
                "attacked": found.sha256 in {find_card(one).sha256 for one in plan.surrogates},
                "threshold": asdict(threshold(found, plan.fmr)),
            }
        )
    return {
        "seed": plan.seed,
        "fmr": plan.fmr,
        "transports": list(plan.transports),
        "face": plan.face,
        "surrogates": [{"name": name, "sha256": find_card(name).sha256} for name in plan.surrogates],
        "judges": judges,
    }


def run_items(
    items: Sequence[Item],
    plan: Plan,
    card: Record,
    data: str,
    path: Path,
    *,
    batch: int,
    work: Path,
    jobs: int = 1,
    examples: int = 0,
    command: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> cards.Card:
    """Measure pairs by a plan, and write the card when all are done.

    Args:
        items: The pairs.
        plan: How.
        card: The fields that were known before.
        data: Name of the data set.
        path: File of the card.
        batch: Pairs whose masks are made together.
        work: Folder of finished batches.
        jobs: Worker processes.
        examples: Of how many pairs to keep pictures.
        command: As it was given.
        progress: Called with the pairs done and the pairs there are.

    Raises:
        BautaError: as `run_recipe`; no card is written then.
    """
    began = time.monotonic()
    batches = []
    for start in range(0, len(items), batch):
        part = tuple(items[start : start + batch])
        shown = Plan(**{**_fields(plan), "examples": start < examples})
        batches.append((shown, Batch(part, work / shown.key[:16] / f"{_digest(part)[:32]}.json")))
    outcomes: list[Record | None] = [None] * len(batches)
    done = 0
    progress(0, len(items))
    for place, outcome in _measured(batches, min(jobs, len(batches))):
        outcomes[place] = outcome
        done += len(batches[place][1].items)
        progress(done, len(items))
    records: list[Record] = []
    pictures: list[Record] = []
    finished = [outcome for outcome in outcomes if outcome is not None]
    for outcome in finished:
        pictures += [{**one, "record": one["record"] + len(records)} for one in outcome["pictures"]]
        records += outcome["records"]
    spent = [second for outcome in finished for second in outcome["mask_seconds"]]
    whole = cards.finish(
        card
        | {
            "data": {"name": data, "pairs": len(items), "sha256": _digest(items)},
            "code": cards.code(),
            "results": summarise(records, card["judges"], plan.transports),
            "passes": {key: sum(outcome[key] for outcome in finished) for key in ("forward", "backward")},
            "records": records,
            "examples": pictures[:examples],
            "run": {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command,
                "seconds": round(time.monotonic() - began, 2),
                "seconds_per_face": round(float(np.mean(spent)), 3) if spent else None,
                "machine": cards.machine(),
            },
        }
    )
    cards.write_card(whole, path)
    return whole


def _measured(batches: Sequence[tuple[Plan, Batch]], jobs: int) -> Iterator[tuple[int, Record]]:
    """Outcomes with the place of their batch, as they come."""
    if jobs <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums are in the same order then, however many cores there are
        try:
            bench: Bench | None = None
            for place, (plan, batch) in enumerate(batches):
                if bench is None or bench.plan != plan:
                    bench = Bench(plan)
                yield place, bench.measure(batch)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, context, initializer=_start_worker)
    try:
        futures: dict[Future[Record], int] = {
            executor.submit(_work, plan, batch): place for place, (plan, batch) in enumerate(batches)
        }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise BautaError(
            "A worker process died, most likely for want of memory.",
            hint="Run again with fewer --jobs: finished batches are kept.",
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_bench: Bench | None = None


def _start_worker() -> None:
    torch.set_num_threads(1)


def _work(plan: Plan, batch: Batch) -> Record:
    global _bench
    if _bench is None or _bench.plan != plan:
        _bench = Bench(plan)
    return _bench.measure(batch)


def _fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__dataclass_fields__}


def _digest(items: Sequence[Item]) -> str:
    total = hashlib.sha256()
    for item in items:
        total.update("\n".join([item.pair.subject, *item.sha256, ""]).encode())
    return total.hexdigest()


def _embed(judge: Judge, pixels: FloatArray, landmarks: FloatArray) -> FloatArray:
    embedding: FloatArray = judge.embed(extract_crops(pixels, landmarks, judge.card.template))[0]
    return embedding


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)


def _quality(original: FloatArray, changed: FloatArray, box: FloatArray, ending: str = "") -> dict[str, float | None]:
    """None for the PSNR of equal pictures, for what is smaller than the window of SSIM, and for other sizes."""
    found: dict[str, float | None] = {f"psnr{ending}": None, f"ssim{ending}": None}
    if original.shape == changed.shape:
        one, other = cut(original, box), cut(changed, box)
        ratio = metrics.psnr(one, other)
        found[f"psnr{ending}"] = _rounded(ratio) if math.isfinite(ratio) else None
        found[f"ssim{ending}"] = _rounded(metrics.ssim(one, other)) if min(one.shape[:2]) >= 11 else None
    return found


def _pictures(seen: tuple[Photo, Faces], saved: FloatArray) -> dict[str, str]:
    photo, face = seen
    box = footprint(face.landmarks[0])
    ratio = np.tile([saved.shape[1] / photo.pixels.shape[1], saved.shape[0] / photo.pixels.shape[0]], 2)
    after = cut(saved, (box * ratio).astype(np.float32))
    return {"before": picture(cut(photo.pixels, box), _EXAMPLE), "after": picture(after, _EXAMPLE)}
