"""How well a personalised mask comes off a photo that a network saved anew, so that it says nothing of its masks.

    python benchmarks/p3_searching.py DATA -o FILE.json

People of Pins who are in no other list, as in `p3_attacks.py`; masks fitted to ten photos go on ten others, which stand
in the middle of a grey picture, are saved as JPEG, made smaller, and given to `bauta.cloaking.searching.search`
with the faces that the detector finds. The first judge knows the person, as in fitted files; the others compare with
ten clean photos at an FMR of 1 %. The *wrong mask* is that of the person before.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bauta.benchmark.engine.cards import code
from bauta.benchmark.photos.recipe import read_recipe
from bauta.cloaking.apply import apply
from bauta.cloaking.people import People, with_subject
from bauta.cloaking.searching import search
from bauta.cloaks.base import Work
from bauta.cloaks.p3_mask import P3Mask
from bauta.cloaks.p3_settings import P3MaskConfig
from bauta.cloaks.view import cut_view
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.learning.fitted import SECRET, Fitted
from bauta.photo import Photo, read_photo
from bauta.recognizers import find_card, load_judge, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble
from lfw_pairs import sent

KNOWS = "mobilenet"
MARGIN = 56
POINTS = ARCFACE_112.landmarks().astype(np.float32)
WAYS: dict[str, tuple[float, int]] = {"jpeg-90": (1.0, 90), "jpeg-75": (1.0, 75), "half-size+jpeg-75": (0.5, 75)}
UPSCALED = 3  # the crops of Pins are small: half of a photo of 336 pixels is about a face in a messenger


def placed(path: Path) -> Photo:
    """A crop, three times as large, in the middle of a grey picture."""
    side = UPSCALED * 112
    crop = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    whole = Image.new("RGB", (side + 2 * MARGIN * UPSCALED,) * 2, (128, 128, 128))
    whole.paste(crop, (MARGIN * UPSCALED,) * 2)
    return read_photo(whole)


def face() -> Faces:
    points = (POINTS + MARGIN) * UPSCALED
    return Faces(np.concatenate([points.min(0), points.max(0)])[None], points[None], np.ones(1, np.float32))


def scaled(factor: float) -> NDArray[np.float32]:
    return (face().landmarks * factor).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--photos", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_recipe("p3-mask")
    without = set(recipe.dataset.without)
    folders = [one for one in sorted((options.data / recipe.dataset.path).iterdir()) if one.is_dir()]
    folders = [one for one in folders if one.name not in without][: options.people]
    surrogates = [find_card(name) for name in recipe.surrogates]
    ensemble = Ensemble([load_surrogate(card) for card in surrogates])
    limits = {name: threshold(find_card(name), recipe.fmr).cosine for name in (*recipe.surrogates, *recipe.judges)}
    judges = {name: load_judge(find_card(name)) for name in recipe.judges}
    config, cloak = P3MaskConfig(), P3Mask(P3MaskConfig())
    generator = torch.Generator().manual_seed(recipe.seed)
    counts: dict[str, list[float]] = {}
    found_masks: dict[str, list[bool]] = {}
    before: Fitted | None = None
    for folder in folders:
        photos = [placed(path) for path in sorted(folder.glob("*.webp"))[:40]]
        views = [cut_view(photo.pixels, face().landmarks[0], spec=P3Mask.view)[0] for photo in photos[:10]]
        thresholds = {name: limits[name] for name in recipe.surrogates}
        fitted = P3Mask.fit(views, config, Work(generator, ensemble, thresholds=thresholds))
        drawn = torch.randint(256, (32,), generator=generator, dtype=torch.uint8)
        fitted = replace(fitted, parts={**fitted.parts, SECRET: drawn})
        judge = judges[KNOWS]
        crops = [extract_crops(photo.pixels, face().landmarks, judge.card.template) for photo in photos[:10]]
        mean = judge.embed(np.concatenate(crops)).mean(0)
        fitted = with_subject(fitted, KNOWS, mean / np.linalg.norm(mean))
        clean = {
            name: one.embed(
                np.concatenate([extract_crops(p.pixels, face().landmarks, one.card.template) for p in photos[30:40]])
            )
            for name, one in judges.items()
            if name != KNOWS
        }

        def matched(name: str, photo: Photo, factor: float, clean: dict[str, NDArray[np.float32]] = clean) -> None:
            for other, known in clean.items():
                crops = extract_crops(photo.pixels, scaled(factor), judges[other].card.template)
                counts.setdefault(name, []).append(
                    float((judges[other].embed(crops) @ known.T >= limits[other]).mean())
                )

        for photo in photos[20 : 20 + options.photos]:
            matched("clean", photo, 1.0)
            masked = apply(cloak, photo, face(), Work.seeded(0, fitted=(fitted,))).photo
            for way, (scale, quality) in WAYS.items():
                anew = sent(masked, scale, quality=quality)
                matched(f"{way}: protected", anew, scale)
                for name, one in (("restored", fitted), ("wrong mask", before)):
                    if one is None:
                        continue
                    people = People((one,), lambda: ())
                    restored, count = search(anew, detect_faces(anew.pixels), cloak, Work.seeded(0), people)
                    found_masks.setdefault(f"{way}: {name}", []).append(bool(count))
                    matched(f"{way}: {name}", restored, scale)
        before = fitted
        print(folder.name, {name: round(float(np.mean(one)), 3) for name, one in counts.items()}, flush=True)
    facts = {
        "people": [folder.name for folder in folders],
        "photos": options.photos,
        "judges": [name for name in judges if name != KNOWS],
        "knows": KNOWS,
        "fmr": recipe.fmr,
        "seed": recipe.seed,
        "code": code(),
        "matched_percent": {name: round(100 * float(np.mean(one)), 1) for name, one in counts.items()},
        "found_percent": {name: round(100 * float(np.mean(one)), 1) for name, one in found_masks.items()},
    }
    options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
