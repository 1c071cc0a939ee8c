"""Make the composite target faces: averages of many aligned faces that no recogniser takes for one of them.

    python -m bauta.training.composites FOLDER --recognizers NAME NAME ... --output src/bauta/cloaks

The faces of FOLDER (``person/image``, aligned to the 112x112 ArcFace template, one image per person is used) are
embedded by several recognisers. Spherical k-means on the joined embeddings groups people who look alike to
networks; `members` drawn from the three times as many nearest to each centre are averaged in pixels. A composite is
refused when any recogniser matches it to one of the people, or to another composite, at FMR 1e-4 among these people.
(At FMR 1e-3 any real face matches one or two of 1,500 people.) Our design: TIP-IM uses
real people. Calibrated thresholds are not needed, and judges of a benchmark should not be named here.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bauta.errors import UsageError
from bauta.faces.crops import retemplate_pixels
from bauta.metrics import threshold_at_fmr
from bauta.recognizers import Judge, load_judge

FMR = 1e-4
CANDIDATES_PER_COMPOSITE = 3

FloatArray = NDArray[np.float32]


def _read(path: Path) -> FloatArray:
    with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float32) / np.float32(255)


def _embed(judge: Judge, faces: FloatArray) -> FloatArray:
    crops = retemplate_pixels(faces, judge.card.template)
    return np.concatenate([judge.embed(crop[None]) for crop in crops])


def _spherical_k_means(points: FloatArray, clusters: int, generator: np.random.Generator) -> FloatArray:
    """(clusters, D) unit-norm centres, started like k-means++ on the cosine distance."""
    centres = [points[generator.integers(len(points))]]
    for _ in range(clusters - 1):
        distance = np.square(1 - (points @ np.array(centres).T).max(1).clip(-1, 1))
        centres.append(points[generator.choice(len(points), p=distance / distance.sum())])
    fixed = np.array(centres)
    for _ in range(50):
        nearest = (points @ fixed.T).argmax(1)
        fixed = np.stack([points[nearest == k].sum(0) if (nearest == k).any() else fixed[k] for k in range(clusters)])
        fixed /= np.linalg.norm(fixed, axis=1, keepdims=True)
    return fixed


def build_composites(
    folder: Path, recognizers: Sequence[str], *, count: int = 16, members: int = 8, seed: int = 0
) -> tuple[FloatArray, dict[str, object]]:
    """Composite faces and their card.

    Args:
        folder: Aligned faces, ``person/image``.
        recognizers: Names of recognisers.
        count: Composites wanted.
        members: Faces averaged into each; no face serves twice.
        seed: Of the k-means.

    Returns:
        (count, 112, 112, 3) float32 in [0, 1] and the card without the picture's hash.

    Raises:
        UsageError: when the folder holds too few people, or too few composites pass.
    """
    people = sorted(path for path in folder.iterdir() if path.is_dir())
    paths = [sorted(path for path in person.iterdir() if path.is_file())[0] for person in people]
    candidates = CANDIDATES_PER_COMPOSITE * count
    if len(paths) < candidates * members:
        raise UsageError(f"{candidates * members} people are needed, {folder} has {len(paths)}.")
    faces = np.stack([_read(path) for path in paths])
    judges = [load_judge(name) for name in recognizers]
    embedded = [_embed(judge, faces) for judge in judges]
    # Centred, since some recognisers (dlib's) keep all faces in a narrow cone.
    joined = np.concatenate([points - points.mean(0) for points in embedded], axis=1)
    joined /= np.linalg.norm(joined, axis=1, keepdims=True)
    composites = _average(faces, joined, candidates, members, np.random.default_rng(seed))
    own = [_embed(judge, composites) for judge in judges]
    pairs = np.triu_indices(len(faces), 1)
    limits = [threshold_at_fmr((points @ points.T)[pairs], FMR) for points in embedded]
    chosen = _distinct(own, embedded, limits, count)
    if len(chosen) < count:
        raise UsageError(f"Only {len(chosen)} of {candidates} composites are distinct enough; {count} are wanted.")
    card: dict[str, object] = {
        "what": "Averages of aligned faces of different people; no real person.",
        "data": folder.name,
        "people": len(people),
        "members": members,
        "seed": seed,
        "recognizers": {judge.card.name: judge.card.sha256 for judge in judges},
        "nearest_person": {
            judge.card.name: {
                "cosine": round(float((a[chosen] @ b.T).max()), 4),
                "threshold_at_fmr_1e-4": round(limit, 4),
            }
            for judge, a, b, limit in zip(judges, own, embedded, limits, strict=True)
        },
        "terms": "Made from research data; research use.",
    }
    return composites[chosen], card


def _average(
    faces: FloatArray, points: FloatArray, candidates: int, members: int, generator: np.random.Generator
) -> FloatArray:
    """(candidates, 112, 112, 3): averages of faces near each centre of the points, in which no face serves twice."""
    centres = _spherical_k_means(points, candidates, generator)
    free = np.ones(len(faces), dtype=bool)
    made = []
    for centre in centres:
        nearest = np.argsort(-np.where(free, points @ centre, -np.inf))[: min(3 * members, int(free.sum()))]
        chosen = generator.choice(nearest, members, replace=False)
        free[chosen] = False
        made.append(np.round(faces[chosen].mean(0) * 255) / 255)
    return np.stack(made).astype(np.float32)


def _distinct(
    own: Sequence[FloatArray], people: Sequence[FloatArray], limits: Sequence[float], count: int
) -> list[int]:
    """At most `count` composites, which no judge takes for a person or for another of them, the farthest first."""
    to_people = np.stack([(a @ b.T).max(1) - t for a, b, t in zip(own, people, limits, strict=True)]).max(0)
    chosen: list[int] = []
    for index in np.argsort(to_people):
        apart = all((points[chosen] @ points[index] < limit).all() for points, limit in zip(own, limits, strict=True))
        if to_people[index] < 0 and apart and len(chosen) < count:
            chosen.append(int(index))
    return chosen


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make composite target faces.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recognizers", nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    composites, card = build_composites(
        options.folder, options.recognizers, count=options.count, members=options.members, seed=options.seed
    )
    strip = np.concatenate(list(np.round(composites * 255).astype(np.uint8)), axis=1)
    stream = io.BytesIO()
    Image.fromarray(strip).save(stream, "PNG", optimize=True)
    card["sha256"] = hashlib.sha256(stream.getvalue()).hexdigest()
    (options.output / "composites.png").write_bytes(stream.getvalue())
    (options.output / "composites.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
