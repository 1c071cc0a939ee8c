"""Galleries to search: distractors, and the targets of impersonation, beside the other photos of the people at hand.

As in TIP-IM's section 5.1, one photo of each person is searched for, among another photo of that person, other photos
of the others, distractors, and pictures of the targets that no mask was made from. Ours: the targets are composites, of
which there are no other photos, so the gallery has them mirrored, in other light.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.benchmark.engine import cards
from bauta.benchmark.identification import identification_ranks
from bauta.benchmark.photos.measuring import CROPS
from bauta.benchmark.photos.toys import composites_in_other_light
from bauta.benchmark.protocols import Cell
from bauta.benchmark.recognition import embed_aligned
from bauta.cloaks.tip_im_settings import TipImConfig
from bauta.data.datasets import read_people
from bauta.data.images import FaceImage, digest_of
from bauta.errors import UsageError
from bauta.faces.crops import retemplate_pixels
from bauta.files import make_folder, write_atomically
from bauta.names import normalise_name
from bauta.progress import Progress, silent, steps_of
from bauta.recognizers import find_card, load_judge

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Distractors:
    """People in the gallery who are none of the probes.

    Attributes:
        name: Of the set.
        images: Aligned crops, one of each.
    """

    name: str
    images: tuple[FaceImage, ...]

    @property
    def sha256(self) -> str:
        """Over the images in their order."""
        return digest_of(self.images).hexdigest()


def draw_distractors(folder: Path, people: int, known: Collection[str], seed: int) -> Distractors:
    """One image of each of so many people of a folder ``person/image``, drawn at random.

    Args:
        folder: Of aligned crops.
        people: How many.
        known: People who must not be among them, in any spelling of `normalise_name`.
        seed: Of the draw.

    Raises:
        UsageError: when there are too few.
    """
    found = read_people(folder)
    refused = {normalise_name(name) for name in known}
    images: dict[str, list[FaceImage]] = {}
    for subject, image in zip(found.subjects, found.images, strict=True):
        if normalise_name(subject) not in refused:
            images.setdefault(subject, []).append(image)
    if len(images) < people:
        raise UsageError(
            f"{folder} has {len(images)} people who are in no pair, not {people}.", hint="Ask for fewer people."
        )
    random = np.random.default_rng(seed)
    chosen = sorted(random.choice(sorted(images), people, replace=False).tolist())
    return Distractors(found.name, tuple(images[name][int(random.integers(len(images[name])))] for name in chosen))


@dataclass(frozen=True, eq=False)
class Gallery:
    """What a gallery holds beside the other photos of the people at hand.

    Attributes:
        distractors: (M, D) embeddings by judge; none of them without distractors.
        targets: (K, D) embeddings by judge.
        facts: For the card.
    """

    distractors: Mapping[str, FloatArray]
    targets: Mapping[str, FloatArray]
    facts: dict[str, Any]


def embed_gallery(
    others: Distractors | None,
    judges: Sequence[str],
    work: Path,
    progress: Progress = silent,
) -> Gallery:
    """Embed distractors and targets by each judge; what was embedded before is read from the work folder.

    Raises:
        UnreadablePhoto: when an image is missing or damaged.
        RecognizerError: when a judge cannot be used.
        OutputError: when the work folder cannot be written.
    """
    digest = "" if others is None else others.sha256
    embedded: dict[str, FloatArray] = {}
    targets: dict[str, FloatArray] = {}
    pictures = composites_in_other_light(TipImConfig().targets)
    for name in judges:
        card = find_card(name)
        judge = load_judge(card)
        targets[name] = judge.embed(retemplate_pixels(pictures, card.template))
        if others is None:
            continue
        key = hashlib.sha256(f"{cards.code()['sha256']} {card.digest} {digest}".encode()).hexdigest()
        file = work / "galleries" / f"{key[:32]}.npy"
        try:
            embedded[name] = np.load(file, allow_pickle=False)
        except (OSError, ValueError):
            embedded[name] = embed_aligned(judge, others.images, steps_of(progress, f"gallery, {name}")).values
            stream = io.BytesIO()
            np.save(stream, embedded[name], allow_pickle=False)
            make_folder(file.parent)
            write_atomically(file, stream.getvalue(), overwrite=True)
    facts = {
        "name": "" if others is None else others.name,
        "strangers": 0 if others is None else len(others.images),
        "targets": len(pictures),
        "sha256": digest,
    }
    return Gallery(embedded, targets, facts)


def add_ranks(records: Sequence[dict[str, Any]], arrays: Mapping[str, NDArray[Any]], gallery: Gallery) -> None:
    """Search for one photo of each person, and note in its record at which rank the person and a target are found.

    A pair's photos are the probe and an image of the gallery; where people have several, the first of all people are
    searched for together, then the second, and so on. The records get ``ranks``, by judge and cell.

    Args:
        records: N of them.
        arrays: Those of `bauta.benchmark.photos.measuring.Outcome`, of all batches.
        gallery: The rest of the gallery.

    Raises:
        UsageError: when nobody can be searched for.
    """
    mine: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        if not record["failure"] and record["sha256"][0] != record["sha256"][1]:
            mine.setdefault(record["subject"], []).append(number)
    if not mine:
        raise UsageError(
            "There is nobody to search for.", hint="Give two photos of each person, or leave [gallery] out."
        )
    for turn in range(max(map(len, mine.values()))):
        first = {subject: numbers[turn] for subject, numbers in mine.items() if len(numbers) > turn}
        _search(records, arrays, gallery, first)


def _search(
    records: Sequence[dict[str, Any]],
    arrays: Mapping[str, NDArray[Any]],
    gallery: Gallery,
    first: Mapping[str, int],
) -> None:
    """Search for one pair of each person: by subject the number of its record."""
    places = list(first.values())
    cells = [Cell.NEITHER, Cell.PROBE, *((Cell.GALLERY, Cell.BOTH) if "cells" in records[places[0]] else ())]
    for number in places:
        records[number]["ranks"] = {}
    for name, values in _embeddings(arrays):
        clean, protected = values[places][:, [0, 2]], values[places][:, [1, 3]]
        protected = np.where(np.isnan(protected), clean, protected)  # which no cell takes then
        half = np.arange(len(places))
        found = identification_ranks(
            np.concatenate([clean[:, 0], clean[:, 1]]),
            np.concatenate([protected[:, 0], protected[:, 1]]),
            list(first) * 2,
            half,
            half + len(places),
            targets=gallery.targets[name],
            distractors=gallery.distractors.get(name),
            cells=cells,
        )
        for row, number in enumerate(places):
            records[number]["ranks"][name] = {
                cell.value: {
                    "person": int(ranks.person[row]),
                    "target": None if ranks.target is None else int(ranks.target[row]),
                }
                for cell, ranks in found.items()
            }


def add_snowball(
    records: Sequence[dict[str, Any]], arrays: Mapping[str, NDArray[Any]], gallery: Gallery, limits: Mapping[str, float]
) -> None:
    """Let every protected photo that is recognised join the gallery, and search again, until none is new.

    After DynTracker, as a digest of the paper describes it. The gallery begins with one clean photo of each person, the
    reference of their first pair, and the strangers. A photo is taken for whoever is nearest, from the judge's
    threshold on, and joins under that name, be it right or wrong. Records of people with several pairs get ``joined``.

    Args:
        records: N of them.
        arrays: Those of `bauta.benchmark.photos.measuring.Outcome`, of all batches.
        gallery: The rest of the gallery.
        limits: Thresholds of the judges.
    """
    mine: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        if not record["failure"] and "cells" in record:
            mine.setdefault(record["subject"], []).append(number)
    mine = {subject: numbers for subject, numbers in mine.items() if len(numbers) > 1}
    if not mine:
        return
    people = list(mine)
    hidden = [
        (number, side, person)
        for person, numbers in enumerate(mine.values())
        for number in numbers
        for side in (1, 3)
        if (number, side) != (numbers[0], 3)
    ]
    for name, values in _embeddings(arrays):
        strangers = gallery.distractors.get(name)
        known = [values[numbers[0], 2] for numbers in mine.values()]
        faces = np.stack(known) if strangers is None else np.concatenate([np.stack(known), strangers])
        names = np.concatenate([np.arange(len(people)), np.full(len(faces) - len(people), -1)])
        photos = np.stack([values[number, side] for number, side, _ in hidden])
        taken = np.zeros(len(hidden), np.int64)  # in which round, for whomever
        found = np.full(len(hidden), -1)
        turn = 0
        while (waiting := np.flatnonzero(taken == 0)).size:
            turn += 1
            scores = photos[waiting] @ faces.T
            nearest = scores.argmax(1)
            recognised = scores.max(1) >= limits[name]
            if not recognised.any():
                break
            new = waiting[recognised]
            taken[new], found[new] = turn, names[nearest[recognised]]
            faces, names = np.concatenate([faces, photos[new]]), np.concatenate([names, found[new]])
        for (number, side, person), place, who in zip(hidden, taken.tolist(), found.tolist(), strict=True):
            joined = records[number].setdefault("joined", {}).setdefault(name, [None, None])
            joined[0 if side == 1 else 1] = place if who == person else 0


def det_points(records: Sequence[dict[str, Any]], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Detection error trade-offs by judge and cell, from all pairs of photos at hand.

    Genuine pairs are those of the records, impostor pairs every probe with every other person's reference. Curves of
    fewer than a hundred impostor pairs are left out.
    """
    from bauta.benchmark.protocols import det_curve

    usable = [number for number, record in enumerate(records) if not record["failure"]]
    people = np.array([records[number]["subject"] for number in usable])
    strange = people[:, None] != people
    if strange.sum() < 100:
        return {}
    curves: dict[str, Any] = {}
    for name, values in _embeddings(arrays):
        probe, protected, other, protected_other = values[usable].transpose(1, 0, 2)
        sides = {Cell.NEITHER: (probe, other), Cell.PROBE: (protected, other)}
        if "cells" in records[usable[0]]:
            sides |= {Cell.GALLERY: (probe, protected_other), Cell.BOTH: (protected, protected_other)}
        curves[name] = {}
        for cell, (one, another) in sides.items():
            scores = one @ another.T
            curve = det_curve(np.diagonal(scores), scores[strange], points=40)
            curves[name][cell.value] = {
                "fmr": curve.false_match.round(6).tolist(),
                "fnmr": curve.false_non_match.round(6).tolist(),
            }
    return {"impostor_pairs": int(strange.sum()), "curves": curves}


def _embeddings(arrays: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    return ((name, values) for name, values in arrays.items() if name != CROPS)
