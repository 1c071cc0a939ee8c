"""Measures batches of pairs: protect, encode, read back, transport, judge.

As a photo is shared: the mask is added to the photo, which is encoded in its own format and read back, and the face is
looked for again under every transport.

Everything that decides the figures of a batch is in the name of the file it is kept in: the code, the method and its
settings, the recognisers, the transports, the seed, the bytes of the photos. Each batch draws from a generator of its
own, seeded by the seed and the photos, so figures depend neither on the number of processes nor on what ran before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bauta import metrics
from bauta.benchmark.engine import cards
from bauta.benchmark.photos.passes import Passes
from bauta.benchmark.photos.recipe import Face, Pair
from bauta.benchmark.photos.transports import LOSSLESS, RESTORED, carry
from bauta.benchmark.protocols import Cell
from bauta.cloaking.apply import Change, Picture, edit_pictures, refused, seen_of
from bauta.cloaks.base import Cloak, Edit, FitsPerson, Restores, Work, load_cloak
from bauta.cloaks.targets import composite_faces
from bauta.cloaks.tip_im_settings import TipImConfig
from bauta.cloaks.view import FaceView, cut_view
from bauta.data.images import FaceImage
from bauta.errors import BautaError, UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import retemplate_pixels
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.files import make_folder, write_atomically
from bauta.judging.lpips import Lpips
from bauta.judging.quality import DIGITS, photo_quality
from bauta.judging.verification import cut, find_again, footprint
from bauta.judging.visibility import Visibility
from bauta.learning.fitted import SECRET, Fitted
from bauta.pages import picture
from bauta.photo import Photo, read_photo
from bauta.recognizers import Judge, Surrogate, find_card, load_judge, load_surrogate
from bauta.recognizers.calibration import calibrated
from bauta.recognizers.ensemble import Ensemble

FloatArray = NDArray[np.float32]
Record = dict[str, Any]
Seen = tuple[Photo, Faces]

PROBE, GALLERY = 0, 1
"""The photos of a pair: the one that methods change, and the other, which they change too when cells are wanted."""

SIDES = ((PROBE, False), (PROBE, True), (GALLERY, False), (GALLERY, True))
"""Which photo an embedding is of, and whether protected, in the order of `Outcome.arrays`."""

CROPS = "crops"

_EXAMPLE = 160  # pixels of the pictures that a card keeps


@dataclass(frozen=True)
class Plan:
    """What every batch of a row shares.

    Attributes:
        method: Registered cloak; "" when the photos come protected.
        options: Its settings.
        surrogates: Attacked.
        judges: Asked.
        transports: Done to the photo.
        face: Which face of a photo counts.
        seed: Of everything random.
        fmr: Of the thresholds, which cloaks may stop early by.
        cells: Whether the other photo of a pair is protected too.
        lpips: File of weights for LPIPS, if any.
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
    cells: bool = False
    lpips: Path | None = None
    examples: bool = False

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """See `calibrated`."""
        return calibrated(map(find_card, self.surrogates), self.fmr)

    @cached_property
    def key(self) -> str:
        """Digest of everything here and of the code and recognisers behind it."""
        chosen = load_cloak(self.method).configured(self.options).to_dict() if self.method else {}
        facts = {
            "code": cards.code()["sha256"],
            "method": [self.method, chosen],
            "surrogates": [find_card(name).digest for name in self.surrogates],
            # Masks stop early by the thresholds when there is a margin.
            "thresholds": {} if chosen.get("margin") is None else self.thresholds,
            "judges": {name: find_card(name).digest for name in self.judges},
            "transports": self.transports,
            "lpips": None if self.lpips is None else Lpips(self.lpips).sha256,
            "rest": [self.face, self.seed, self.fmr, self.cells, self.examples],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=list).encode()).hexdigest()


@dataclass(frozen=True)
class Item:
    """One pair at work.

    Attributes:
        pair: Of photos.
        output: The protected photo when it was made elsewhere.
        learned_from: Photos of the person that a method which fits once learns from.
    """

    pair: Pair
    output: FaceImage | None = None
    learned_from: tuple[FaceImage, ...] = ()

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


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is known of a batch of N pairs.

    Attributes:
        report: Plain values: ``records``, ``pictures``, ``mask_seconds``, ``forward``, ``backward``.
        arrays: By name of a judge its embeddings (N, 4, D), as `SIDES` says, NaN where there is none; under `CROPS`
            the faces before and after, (N, 2, 112, 112, 3) uint8, aligned.
    """

    report: Record
    arrays: dict[str, NDArray[Any]]


class Bench:
    """Measures batches; holds the networks, each loaded once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._targets: dict[str, FloatArray] = {}
        self._restored: dict[tuple[int, str], FloatArray] = {}

    @cached_property
    def surrogates(self) -> list[Surrogate]:
        """The networks to attack."""
        return [load_surrogate(find_card(name)) for name in self.plan.surrogates]

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """The judges by name."""
        return {name: load_judge(find_card(name)) for name in self.plan.judges}

    @cached_property
    def lpips(self) -> Lpips | None:
        """LPIPS, when its weights were given."""
        return None if self.plan.lpips is None else Lpips(self.plan.lpips)

    def measure(self, batch: Batch) -> Outcome:
        """The outcome of a batch, from its files when it was measured before."""
        beside = batch.file.with_suffix(".npz")
        with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile), np.load(beside, allow_pickle=False) as kept:
            return Outcome(json.loads(batch.file.read_text(encoding="utf-8")), dict(kept))
        began = time.monotonic()
        self._restored = {}
        outcome = self._measure(batch.items)
        outcome.report["seconds"] = time.monotonic() - began
        make_folder(batch.file.parent)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **outcome.arrays)
        write_atomically(beside, stream.getvalue(), overwrite=True)
        write_atomically(batch.file, json.dumps(outcome.report).encode(), overwrite=True)
        return outcome

    def _measure(self, items: Sequence[Item]) -> Outcome:
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
        seen: dict[int, tuple[Seen, Seen]] = {}
        for number, (item, record) in enumerate(zip(items, records, strict=True)):
            try:
                seen[number] = self._see(item.pair.protected), self._see(item.pair.reference)
            except BautaError as error:
                record["failure"] = error.message
        protected, masks, passes = self._protect(items, records, seen)
        arrays: dict[str, NDArray[Any]] = {
            name: np.full((len(items), len(SIDES), judge.card.dim), np.nan, np.float32)
            for name, judge in self.judges.items()
        }
        arrays[CROPS] = np.zeros((len(items), 2, 112, 112, 3), np.uint8)
        pictures = []
        for number, record in enumerate(records):
            if record["failure"]:
                continue
            given, made = seen[number], {side: pixels for (of, side), pixels in protected.items() if of == number}
            visible = record.pop("seen", None)
            restored = {name: pixels for (of, name), pixels in self._restored.items() if of == number}
            kept = {name: values[number] for name, values in arrays.items()}
            record |= self._judge(given, made, kept, visible, restored)
            mask = masks.get((number, PROBE))
            record["iterations"] = None if mask is None else mask[0].facts.get("iterations", 0)
            if self.plan.examples:
                pictures.append({"record": number, **_pictures(given[PROBE], made[PROBE][1])})
        spent = [seconds for _, seconds in masks.values()]
        return Outcome({"records": records, "pictures": pictures, "mask_seconds": spent} | passes, arrays)

    def _see(self, image: FaceImage) -> tuple[Photo, Faces]:
        """A photo and the face that counts.

        Raises:
            UsageError: when there is none.
            PhotoError: when it cannot be read.
        """
        photo = read_photo(image.read())
        if self.plan.face == "aligned":
            height, width = photo.pixels.shape[:2]
            points = ARCFACE_112.landmarks(height, width)
            return photo, Faces(
                np.array([[0, 0, width, height]], np.float32), points[None].astype(np.float32), np.ones(1, np.float32)
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
        self, items: Sequence[Item], records: list[Record], seen: Mapping[int, tuple[Seen, Seen]]
    ) -> tuple[dict[tuple[int, int], tuple[FloatArray, FloatArray]], dict[tuple[int, int], tuple[Edit, float]], Record]:
        """By number of the pair and side: pixels before encoding and as read back, and edits with the seconds they
        took; and the passes of all.

        What cannot be done is noted in the records.
        """
        if not self.plan.method:
            return self._read_outputs(items, records, seen), {}, {"forward": 0, "backward": 0}
        method = load_cloak(self.plan.method)
        cloak = method(method.configured(self.plan.options))
        for number, photos in seen.items():
            reasons = [reason for one in photos for reason in refused(cloak, *one).values()]
            if reasons:
                records[number]["failure"] = reasons[0]
        sides = (PROBE, GALLERY) if self.plan.cells else (PROBE,)
        chosen = [(number, side) for number in seen if not records[number]["failure"] for side in sides]
        if not chosen:
            return {}, {}, {"forward": 0, "backward": 0}
        passes = Passes()
        ensemble = Ensemble(self.surrogates) if self.surrogates else None
        work = Work(self._generator(items), ensemble, thresholds=self.plan.thresholds)
        passes.watch(self.surrogates)
        learned: list[tuple[Fitted, ...]] = []
        try:
            changes: list[Change] = []
            order: list[tuple[int, int]] = []
            for group, fitted in self._learned(cloak, items, chosen, work):
                pictures = [
                    Picture(photo.pixels, faces.landmarks, photo.grey)
                    for photo, faces in (seen[number][side] for number, side in group)
                ]
                given = ensemble if "surrogates" in method.needs else None
                changes += edit_pictures(cloak, pictures, replace(work, ensemble=given, fitted=fitted))
                learned += [fitted] * len(group)
                order += group
        finally:
            passes.stop()
        protected, masks = {}, {}
        for (number, side), change, fitted in zip(order, changes, learned, strict=True):
            masked = seen[number][side][0].with_perturbation(change.delta)
            protected[number, side] = (masked.pixels, read_photo(masked.encode()).pixels)
            masks[number, side] = (change.edits[0], change.seconds[0])
            if side == PROBE:
                photo, face = seen[number][side]
                for name in self.plan.transports:
                    if name.endswith(RESTORED):
                        before, _ = carry(name, _rounded_pixels(masked.pixels), face)
                        again = Picture(before, face.landmarks, photo.grey)
                        self._restored[number, name] = _unmasked(cloak, again, change, replace(work, fitted=fitted))
                records[number]["seen"] = seen_of(
                    photo.pixels, face.landmarks[0], change.edits[0], change.placements[0]
                )
        return protected, masks, {"forward": passes.forward, "backward": passes.backward}

    def _learned(
        self, cloak: Cloak[Any], items: Sequence[Item], chosen: Sequence[tuple[int, int]], work: Work
    ) -> Iterator[tuple[list[tuple[int, int]], tuple[Fitted, ...]]]:
        """Photos that are edited together, and what the cloak learned of their person before, if it fits."""
        if not isinstance(cloak, FitsPerson):
            yield list(chosen), ()
            return
        people: dict[tuple[FaceImage, ...], list[tuple[int, int]]] = {}
        for one in chosen:
            people.setdefault(items[one[0]].learned_from, []).append(one)
        for images, group in people.items():
            views = []
            for image in images:
                photo, faces = self._see(image)
                views.append(cut_view(photo.pixels, faces.landmarks[0], grey=photo.grey, spec=cloak.view)[0])
            fitted = cloak.fit(views, cloak.config, work)
            if fitted.secret is not None:  # drawn by the seed here, so that figures can be had again
                drawn = torch.randint(256, (len(fitted.secret),), generator=work.generator, dtype=torch.uint8)
                fitted = replace(fitted, parts={**fitted.parts, SECRET: drawn})
            yield group, (fitted,)

    def _read_outputs(
        self, items: Sequence[Item], records: list[Record], seen: Mapping[int, tuple[Seen, Seen]]
    ) -> dict[tuple[int, int], tuple[FloatArray, FloatArray]]:
        found = {}
        for number in seen:
            output = items[number].output
            assert output is not None
            try:
                pixels = read_photo(output.read()).pixels
            except BautaError as error:
                records[number]["failure"] = error.message
                continue
            found[number, PROBE] = (pixels, pixels)
        return found

    def _generator(self, items: Sequence[Item]) -> torch.Generator:
        text = f"{self.plan.seed} {digest(items)}"
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))

    def _judge(
        self,
        seen: tuple[Seen, Seen],
        protected: Mapping[int, tuple[FloatArray, FloatArray]],
        arrays: Mapping[str, NDArray[Any]],
        visible: Visibility | None,
        restored: Mapping[str, FloatArray],
    ) -> Record:
        """What is kept of one pair; fills its part of the arrays of `Outcome`."""
        (photo, face), (masked, saved) = seen[PROBE], protected[PROBE]
        record: Record = {
            "quality": photo_quality(photo.pixels, masked, saved, footprint(face.landmarks[0]), self.lpips, visible),
            "largest_difference": None,
            "iterations": None,
            **{key: {} for key in ("before", "self", "after", "target_before", "target_after", "detected")},
        }
        if photo.pixels.shape == masked.shape:
            record["largest_difference"] = round(metrics.linf(photo.pixels, masked), 3)
        received = {}
        for name in self.plan.transports:
            pixels = restored.get(name, _rounded_pixels(masked) if name == LOSSLESS else saved)
            if name in restored:
                received[name] = [pixels, face.landmarks]
                record["detected"][name] = True
                continue
            *received[name], record["detected"][name] = self._receive(name, pixels, seen[PROBE])
        other = None
        if GALLERY in protected:
            *other, _ = self._receive("saved", protected[GALLERY][1], seen[GALLERY])
            record["cells"] = {}
        for name, judge in self.judges.items():
            source, reference = (_embed(judge, one.pixels, at.landmarks) for one, at in seen)
            targets = self._target_embeddings(name)
            record["before"][name] = _rounded(source @ reference)
            record["target_before"][name] = _rounded((targets @ source).max())
            kept = arrays[name]
            kept[0], kept[2] = source, reference
            for transport, place in received.items():
                found = _embed(judge, *place)
                record["after"].setdefault(transport, {})[name] = _rounded(found @ reference)
                if transport == "saved":
                    kept[1] = found
                    record["self"][name] = _rounded(found @ source)
                    record["target_after"][name] = _rounded((targets @ found).max())
            if other is not None:
                kept[3] = _embed(judge, *other)
                record["cells"][name] = {
                    Cell.GALLERY: _rounded(source @ kept[3]),
                    Cell.BOTH: _rounded(kept[1] @ kept[3]),
                }
        ratio = np.array([saved.shape[1] / photo.pixels.shape[1], saved.shape[0] / photo.pixels.shape[0]])
        places = face.landmarks, (face.landmarks + 0.5) * ratio - 0.5
        for kept, pixels, landmarks in zip(arrays[CROPS], (photo.pixels, saved), places, strict=True):
            kept[:] = (extract_crops(pixels, landmarks, ARCFACE_112)[0].transpose(1, 2, 0) * 255).round().clip(0, 255)
        return record

    def _receive(self, name: str, pixels: FloatArray, seen: Seen) -> tuple[FloatArray, FloatArray, bool]:
        """A protected photo after a transport, the landmarks of its face there, and whether the detector finds it."""
        photo, face = seen
        ratio = np.array([pixels.shape[1] / photo.pixels.shape[1], pixels.shape[0] / photo.pixels.shape[0]])
        start = Faces(face.boxes * np.tile(ratio, 2), (face.landmarks + 0.5) * ratio - 0.5, face.scores)
        pixels, expected = carry(name, pixels, start)
        if self.plan.face == "aligned":
            return pixels, expected.landmarks, True
        present, landmarks = find_again(pixels, expected, pixels.shape, thorough=False)
        return pixels, landmarks, bool(present[0])

    def _target_embeddings(self, name: str) -> FloatArray:
        """(K, D) of the composites that TIP-IM pulls to by default, for rows of every method."""
        if name not in self._targets:
            judge = self.judges[name]
            faces = composite_faces()[: TipImConfig().targets].permute(0, 2, 3, 1).numpy()
            self._targets[name] = judge.embed(retemplate_pixels(faces, judge.card.template))
        return self._targets[name]


def batch_name(items: Sequence[Item]) -> str:
    """Tells batches apart: by their photos, and those that the method learned from."""
    learned = [hashlib.sha256(image.read()).hexdigest() for item in items for image in item.learned_from]
    name = digest(items) if not learned else hashlib.sha256("\n".join([digest(items), *learned]).encode()).hexdigest()
    return name[:32]


def digest(items: Sequence[Item]) -> str:
    """SHA-256 over the people and photos, in their order."""
    total = hashlib.sha256()
    for item in items:
        total.update("\n".join([item.pair.subject, *item.sha256, ""]).encode())
    return total.hexdigest()


def _embed(judge: Judge, pixels: FloatArray, landmarks: FloatArray) -> FloatArray:
    embedding: FloatArray = judge.embed(extract_crops(pixels, landmarks, judge.card.template))[0]
    return embedding


def _rounded_pixels(pixels: FloatArray) -> FloatArray:
    found: FloatArray = (pixels * 255).round() / np.float32(255)
    return found


def _unmasked(cloak: Cloak[Any], picture: Picture, change: Change, work: Work) -> FloatArray:
    """A protected picture as its owner restores it, who knows where the face was."""
    if not isinstance(cloak, Restores):
        raise UsageError(
            f"What {cloak.card.name} does to a photo cannot be taken off again.",
            hint=f"Leave out the transport {RESTORED} in its row.",
        )
    payloads = change.payloads

    def undo(views: Sequence[FaceView], places: Sequence[int], inner: Work) -> list[Edit]:
        return cloak.restore(views, [payloads[place] for place in places], inner)

    (found,) = edit_pictures(cloak, [picture], replace(work, ensemble=None), ask=undo)
    return _rounded_pixels((picture.pixels[:, :] + found.delta).clip(0, 1))


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)


def _pictures(seen: tuple[Photo, Faces], saved: FloatArray) -> dict[str, str]:
    photo, face = seen
    box = footprint(face.landmarks[0])
    ratio = np.tile([saved.shape[1] / photo.pixels.shape[1], saved.shape[0] / photo.pixels.shape[0]], 2)
    after = cut(saved, (box * ratio).astype(np.float32))
    return {"before": picture(cut(photo.pixels, box), _EXAMPLE), "after": picture(after, _EXAMPLE)}
