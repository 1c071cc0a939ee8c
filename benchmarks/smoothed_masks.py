"""Whether noise, distillation or both see through the default mask, on pairs of LFW.

    python benchmarks/smoothed_masks.py DATA -o FILE.json [--pairs 12]

Of each genuine pair one photo is masked as it is by default and compared with the other: by the attacked recogniser
and by its student (`bauta train recognizer smoothed`), as they are and by the majority of noisy copies, and by judges
that were not attacked. Beside it stands what the same recognisers say of the photo without a mask. Thresholds of the
first two are those of the cards of `bauta bench certify`.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bauta.benchmark.engine.cards import code
from bauta.certify.bounds import Smoothing
from bauta.certify.smoothing import Smoothed, embedder
from bauta.cloaking.apply import apply
from bauta.cloaks.base import Work, load_cloak
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.photo import Photo, read_photo
from bauta.recognizers import find_card, load_judge, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble
from lfw_pairs import FOLDER, JUDGES, SURROGATES, central, embedded, genuine_pairs

FMR = 1e-3
COPIES = 100
NOISE = {"mobilefacenet": (0.0, 0.12), "smoothed": (0.0, 0.06, 0.12, 0.18)}
RESULTS = Path(__file__).resolve().parent / "results"
CARDS = {"mobilefacenet": "certify-base-0.12", "smoothed": "certify-student-0.12"}


def crop_of(photo: Photo, face: Faces) -> torch.Tensor:
    return torch.from_numpy(extract_crops(photo.pixels, face.landmarks, ARCFACE_112))


def masked_photos(data: Path, pairs: int, work: Path) -> tuple[dict[str, object], list[Photo]]:
    """The mask's settings, and the first photo of each pair with it; what lies in `work` already is read."""
    ensemble = Ensemble([load_surrogate(name) for name in SURROGATES])
    thresholds = {name: threshold(find_card(name), 1e-2).cosine for name in SURROGATES}
    made = load_cloak("spatial")
    mask = made(made.configured({}))
    work.mkdir(parents=True, exist_ok=True)
    photos = []
    for number, (first, place, _, _) in enumerate(islice(genuine_pairs(data / FOLDER), pairs)):
        path = work / f"{number:03d}.png"
        if not path.exists():
            photo = apply(mask, first, place, Work.seeded(number, ensemble, thresholds=thresholds)).photo
            Image.fromarray((photo.pixels * 255).round().astype(np.uint8)).save(path)
            print("masked", number + 1, flush=True)
        photos.append(read_photo(path))
    return mask.config.to_dict(), photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--cards", type=Path, default=RESULTS, help="folder of the cards of bauta bench certify")
    parser.add_argument("--work", type=Path, default=Path("out/smoothed-masks"), help="where masked photos are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings, masked = masked_photos(options.data, options.pairs, options.work)
    cards = {name: json.loads((options.cards / f"{file}.json").read_text()) for name, file in CARDS.items()}
    limits = {name: card["calibration"]["cosine"] for name, card in cards.items()}
    embeds = {name: embedder(load_surrogate(name)) for name in NOISE}
    judges = [load_judge(name) for name in JUDGES]
    found: dict[str, dict[str, list[bool]]] = {"clean": {}, "masked": {}}
    lengths = []
    for number, (first, place, second, reference) in enumerate(
        islice(genuine_pairs(options.data / FOLDER), options.pairs)
    ):
        probes = {"clean": first, "masked": masked[number]}
        # Found anew, as whoever has the photo does; where no face is found any more, the old place.
        places = {kind: central(photo) or place for kind, photo in probes.items()}
        crops = {kind: crop_of(photo, places[kind]) for kind, photo in probes.items()}
        known = crop_of(second, reference)
        lengths.append(float((crop_of(probes["masked"], place) - crop_of(first, place)).norm()))
        seen = embedded(second, reference, judges)
        for kind, photo in probes.items():
            rows = found[kind]
            for judge, one, two in zip(judges, embedded(photo, places[kind], judges), seen, strict=True):
                limit = threshold(judge.card, FMR).cosine
                rows.setdefault("judges", []).append(bool((one * two).sum() >= limit))
            for name, embed in embeds.items():
                with torch.no_grad():
                    template, own = embed(known), embed(crops[kind])
                for sigma in NOISE[name]:
                    if sigma:
                        smoothed = Smoothed(embed, Smoothing(sigma, COPIES))
                        generator = torch.Generator().manual_seed(number)
                        (count,) = smoothed.accepted(crops[kind], template, limits[name], generator)
                        yes = count > COPIES / 2
                    else:
                        yes = float((own * template).sum()) >= limits[name]
                    rows.setdefault(f"{name}, sigma {sigma:g}" if sigma else name, []).append(yes)
        shares = {kind: {row: round(float(np.mean(v)), 2) for row, v in rows.items()} for kind, rows in found.items()}
        print(number + 1, shares, flush=True)
    card = {
        "schema": "bauta.smoothed-masks/1",
        "code": code(),
        "data": "lfw_photos_250, the first genuine pairs",
        "pairs": len(lengths),
        "fmr": FMR,
        "copies": COPIES,
        "attacked": list(SURROGATES),
        "judges": list(JUDGES),
        "recognizers": {name: card["recognizer"] for name, card in cards.items()},
        "settings": settings,
        "length": [round(float(value), 3) for value in lengths],
        "accepted": {kind: {row: [sum(v), len(v)] for row, v in rows.items()} for kind, rows in found.items()},
    }
    options.output.write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
