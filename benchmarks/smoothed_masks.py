"""Whether noise, distillation or both see through masks, on pairs of LFW.

    python benchmarks/smoothed_masks.py DATA -o FILE.json [--pairs 12] [--masks spatial ...]

Of each genuine pair one photo is masked and compared with the other: by the attacked recogniser
and by its student (`bauta train recognizer smoothed`), as they are and by the majority of noisy copies, and by judges
that were not attacked. Beside it stands what the same recognisers say of the photo without a mask. Thresholds of the
first two are those of the cards of `bauta bench certify`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bauta.benchmark.engine.cards import code
from bauta.certify.bounds import Smoothing
from bauta.certify.smoothing import Smoothed, embedder
from bauta.cloaking.apply import apply
from bauta.cloaks.base import Strength, Work, load_cloak
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.photo import Photo, read_photo
from bauta.recognizers import find_card, load_judge, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble
from lfw_pairs import FOLDER, JUDGES, SURROGATES, central, embedded, genuine_pairs

FMR = 1e-3
COPIES = 100
NOISE = {"mobilefacenet": (0.12,), "smoothed": (0.06, 0.12, 0.18)}
MASKS: dict[str, tuple[str, Strength | None, dict[str, Any]]] = {
    "spatial": ("spatial", None, {}),
    "spatial low": ("spatial", "low", {}),
    "spatial high": ("spatial", "high", {}),
    "tip-im": ("tip-im", None, {}),
    "watermark": ("watermark", None, {"key": b"smoothed masks, no secret at all", "message": "anna"}),
    "makeup": ("makeup", None, {}),
    "blur": ("blur", None, {}),
    "pixelate": ("pixelate", None, {}),
}
"""Method, strength, and what its work is given besides. What `--erasable` takes off again is the mask of `spatial`.
`p3-mask`, which is fitted to several photos of a person, is left out."""
RESULTS = Path(__file__).resolve().parent / "results"
CARDS = {"mobilefacenet": "certify-base-0.12", "smoothed": "certify-student-0.12"}


def crop_of(photo: Photo, face: Faces) -> torch.Tensor:
    return torch.from_numpy(extract_crops(photo.pixels, face.landmarks, ARCFACE_112))


def masked_photos(data: Path, pairs: int, mask: str, work: Path) -> tuple[dict[str, object], list[Photo]]:
    """The mask's settings, and the first photo of each pair with it; what lies in `work` already is read."""
    ensemble = Ensemble([load_surrogate(name) for name in SURROGATES])
    thresholds = {name: threshold(find_card(name), 1e-2).cosine for name in SURROGATES}
    method, strength, rest = MASKS[mask]
    made = load_cloak(method)
    cloak = made(made.configured({}, strength=strength))
    folder = work / mask.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    photos = []
    for number, (first, place, _, _) in enumerate(islice(genuine_pairs(data / FOLDER), pairs)):
        path = folder / f"{number:03d}.png"
        if not path.exists():
            photo = apply(cloak, first, place, Work.seeded(number, ensemble, thresholds=thresholds, **rest)).photo
            Image.fromarray((photo.pixels * 255).round().astype(np.uint8)).save(path)
            print(mask, number + 1, flush=True)
        photos.append(read_photo(path))
    return {"method": method, "strength": strength, "options": cloak.config.to_dict()}, photos


class Onlookers:
    """Everybody who compares a photo with another one of the person."""

    def __init__(self, cards: Path) -> None:
        self.cards = {name: json.loads((cards / f"{file}.json").read_text()) for name, file in CARDS.items()}
        self.limits = {name: card["calibration"]["cosine"] for name, card in self.cards.items()}
        self.embeds = {name: embedder(load_surrogate(name)) for name in NOISE}
        self.judges = [load_judge(name) for name in JUDGES]

    def answers(self, photo: Photo, place: Faces, second: Photo, reference: Faces, seed: int) -> dict[str, list[bool]]:
        """Who accepts a photo, in so many answers."""
        both = [embedded(*one, self.judges) for one in ((photo, place), (second, reference))]
        found = {
            "judges": [
                bool((one * two).sum() >= threshold(judge.card, FMR).cosine)
                for judge, one, two in zip(self.judges, *both, strict=True)
            ]
        }
        crop, known = crop_of(photo, place), crop_of(second, reference)
        for name, embed in self.embeds.items():
            with torch.no_grad():
                template, own = embed(known), embed(crop)
            found[name] = [float((own * template).sum()) >= self.limits[name]]
            for sigma in NOISE[name]:
                smoothed = Smoothed(embed, Smoothing(sigma, COPIES))
                generator = torch.Generator().manual_seed(seed)
                (count,) = smoothed.accepted(crop, template, self.limits[name], generator)
                found[f"{name}, sigma {sigma:g}"] = [count > COPIES / 2]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=list(MASKS))
    parser.add_argument("--cards", type=Path, default=RESULTS, help="folder of the cards of bauta bench certify")
    parser.add_argument("--work", type=Path, default=Path("out/smoothed-masks"), help="where masked photos are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    made = {name: masked_photos(options.data, options.pairs, name, options.work) for name in options.masks}
    onlookers = Onlookers(options.cards)
    kept = options.work / f"answers-{onlookers.cards['smoothed']['recognizer']['sha256'][:12]}.json"
    known: dict[str, dict[str, list[bool]]] = json.loads(kept.read_text()) if kept.exists() else {}
    found: dict[str, dict[str, list[bool]]] = {name: {} for name in ("clean", *made)}
    lengths: dict[str, list[float]] = {name: [] for name in made}
    for number, (first, place, second, reference) in enumerate(
        islice(genuine_pairs(options.data / FOLDER), options.pairs)
    ):
        for name, rows in found.items():
            photo = first if name == "clean" else made[name][1][number]
            if (told := f"{name} {number}") not in known:
                # Found anew, as whoever has the photo does; where no face is found any more, the old place.
                known[told] = onlookers.answers(photo, central(photo) or place, second, reference, number)
                kept.write_text(json.dumps(known))
            for row, answers in known[told].items():
                rows.setdefault(row, []).extend(answers)
            if name != "clean":
                lengths[name].append(float((crop_of(photo, place) - crop_of(first, place)).norm()))
        shares = {kind: {row: round(float(np.mean(v)), 2) for row, v in rows.items()} for kind, rows in found.items()}
        print(number + 1, shares, flush=True)
    card = {
        "schema": "bauta.smoothed-masks/2",
        "code": code(),
        "command": shlex.join(["python", *sys.argv]),
        "data": "lfw_photos_250, the first genuine pairs",
        "pairs": options.pairs,
        "fmr": FMR,
        "copies": COPIES,
        "attacked": list(SURROGATES),
        "judges": {judge.card.name: judge.card.sha256 for judge in onlookers.judges},
        "recognizers": {name: one["recognizer"] for name, one in onlookers.cards.items()},
        "masks": {
            name: about | {"length": [round(value, 3) for value in lengths[name]]} for name, (about, _) in made.items()
        },
        "accepted": {kind: {row: [sum(v), len(v)] for row, v in rows.items()} for kind, rows in found.items()},
        "seconds": round(time.process_time() - began, 1),
    }
    options.output.write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
