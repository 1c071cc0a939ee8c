"""The protocol of four targets: does a photo, once protected, match another photo of the person it was moved towards?

    python benchmarks/four_targets.py DATA -o FILE.json
    python benchmarks/four_targets.py --sources FOLDER --targets FOLDER -o FILE.json

As papers on makeup measure it (AMT-GAN, CLIP2Protect and others, on CelebA-HQ, which does not come with Bauta): each
source is moved towards one photo of each target, and compared with *another* photo of the same target by judges that
were not attacked. A success is a match at an FMR of 1 %; the figure is the mean over targets. With DATA, people of LFW
take the places: the last four genuine pairs are the targets and the first ones the sources, whose other photo tells
whether they are still matched with themselves. Of own folders, TARGETS holds one folder a target with two photos, of
which the first by name is moved towards; sources are photos, one a person.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bauta.benchmark.engine.cards import code
from bauta.cloaking.apply import apply
from bauta.cloaks.base import Work, load_cloak
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.photo import Photo, find_photos, read_photo
from bauta.recognizers import find_card, load_judge, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble
from lfw_pairs import FMR, FOLDER, JUDGES, SURROGATES, Embedding, central, embedded, genuine_pairs

TARGETS = 4
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "makeup, towards": ("makeup", {"mode": "impersonate"}),
    "makeup, towards and away from oneself": ("makeup", {"mode": "combined"}),
    "default mask, towards and away from oneself": ("spatial", {"mode": "combined"}),
}
Shown = tuple[Photo, Faces]


def shown(path: Path) -> Shown | None:
    photo = read_photo(path)
    face = central(photo)
    return None if face is None else (photo, face)


def own(sources: Path, targets: Path) -> tuple[list[tuple[Shown, Shown]], Iterator[tuple[Shown, Shown | None]]]:
    towards = []
    for folder in sorted(path for path in targets.iterdir() if path.is_dir()):
        pair = [one for path in sorted(folder.iterdir())[:2] if (one := shown(path)) is not None]
        if len(pair) != 2:
            raise SystemExit(f"{folder} needs two photos with a face each.")
        towards.append((pair[0], pair[1]))
    found = (shown(path) for path in find_photos([sources]).photos)
    return towards, ((one, None) for one in found if one is not None)


def lfw(data: Path) -> tuple[list[tuple[Shown, Shown]], Iterator[tuple[Shown, Shown | None]]]:
    pairs = [((a, b), (c, d)) for a, b, c, d in genuine_pairs(data / FOLDER)]
    return pairs[-TARGETS:], iter(pairs[:-TARGETS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--targets", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.data is not None:
        targets, sources = lfw(options.data)
    elif options.sources is not None and options.targets is not None:
        targets, sources = own(options.sources, options.targets)
    else:
        parser.error("give DATA, or --sources and --targets")
    ensemble = Ensemble([load_surrogate(name) for name in SURROGATES])
    limits = {name: threshold(find_card(name), FMR).cosine for name in (*SURROGATES, *JUDGES)}
    judges = [load_judge(name) for name in JUDGES]
    crops = [torch.from_numpy(extract_crops(photo.pixels, face.landmarks, ARCFACE_112)) for (photo, face), _ in targets]
    tests = [embedded(*test, judges) for _, test in targets]

    def matches(photo: Photo, face: Faces, other: list[Embedding]) -> list[bool]:
        pairs = zip(JUDGES, embedded(photo, face, judges), other, strict=True)
        return [float((one * two).sum()) >= limits[judge] for judge, one, two in pairs]

    towards: dict[str, list[list[list[bool]]]] = {
        "as they were": [],
        **{row: [] for row in ROWS},
    }  # source, target, judge
    themselves: dict[str, list[list[bool]]] = {"as they were": [], **{row: [] for row in ROWS}}
    for number, ((photo, face), other) in enumerate(islice(sources, options.count), 1):
        known = None if other is None else embedded(*other, judges)
        towards["as they were"].append([matches(photo, face, test) for test in tests])
        if known is not None:
            themselves["as they were"].append(matches(photo, face, known))
        for row, (method, settings) in ROWS.items():
            made, found = load_cloak(method), []
            for crop, test in zip(crops, tests, strict=True):
                cloak = made(made.configured(settings, strength="medium"), targets=crop)  # type: ignore[call-arg]
                masked = apply(cloak, photo, face, Work.seeded(number, ensemble, thresholds=limits)).photo
                saved = read_photo(masked.encode())
                found.append(matches(saved, face, test))
                if known is not None:
                    themselves[row].append(matches(saved, face, known))
            towards[row].append(found)
        print(number, flush=True)
    count = len(towards["as they were"])
    card = {
        "schema": "bauta.four-targets/1",
        "code": code(),
        "data": "lfw_photos_250, genuine pairs" if options.data is not None else "own folders",
        "sources": count,
        "targets": len(targets),
        "fmr": FMR,
        "judges": list(JUDGES),
        "attacked": list(SURROGATES),
        "matches_target": {row: mean(values) for row, values in towards.items()},
        "by_target": {
            row: [round(float(one), 4) for one in np.asarray(values).mean(axis=(0, 2))]
            for row, values in towards.items()
        },
        "matches_themselves": {row: mean(values) for row, values in themselves.items() if values},
    }
    options.output.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def mean(values: Any) -> list[float]:
    """The share of matches by each judge."""
    array = np.asarray(values, dtype=np.float64)
    return [round(float(one), 4) for one in array.reshape(-1, array.shape[-1]).mean(axis=0)]


if __name__ == "__main__":
    main()
