"""Whether a marked face hides its person and says whose it is, beside a mark alone and a mask alone, on pairs of LFW.

    python benchmarks/watermark.py DATA -o FILE.json [--pairs 30]

Of each genuine pair one photo is marked and compared with the other by judges that were not attacked, at an FMR of 1 %;
then the message is read from it, as it is and after what happens to shared photos, where the detector finds the face.

- *watermark*: both at once, as it ships, and with more weight on the message.
- *mask*: the default mask. *mark alone*: the message, away from nobody.
- *mark, then mask* and *mask, then mark*: the two one after the other.
- *another key* and *clean faces*: what is read where there is nothing to read.
- *removed*: the mean difference of ten other photos with the same message is taken off, in the frame of the crop.
- *copied*: it is put on clean faces of others, and so is each of the ten by itself.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bauta.benchmark.engine.cards import code
from bauta.cloaking.apply import apply, read
from bauta.cloaks.base import Cloak, Work, load_cloak
from bauta.cloaks.carriers import Carriers, spectra, summaries, turns
from bauta.cloaks.payload import BITS, encoded
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import alignments
from bauta.faces.faces import Faces
from bauta.faces.warp import invert, warp
from bauta.photo import Photo, read_photo
from bauta.recognizers import find_card, load_judge, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble
from lfw_pairs import FMR, FOLDER, JUDGES, SURROGATES, central, embedded, genuine_pairs, sent

TEXT = "id-07"
KEY, OTHER = bytes(range(32)), bytes(range(100, 132))  # written down, so that figures can be had again
WAYS: dict[str, dict[str, Any]] = {
    "saved": {"form": "PNG"},
    "jpeg-75": {"quality": 75},
    "jpeg-50": {"quality": 50},
    "half-size+jpeg-75": {"scale": 0.5, "quality": 75},
}


def crop_of(photo: Photo, face: Faces) -> torch.Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(photo.pixels.transpose(2, 0, 1)))[None]
    return warp(pixels, alignments(face.landmarks, ARCFACE_112)[0][None], (112, 112))[0]


def laid_on(photo: Photo, face: Faces, crop: torch.Tensor) -> Photo:
    back = invert(alignments(face.landmarks, ARCFACE_112)[0][None])
    spread = warp(crop[None].float(), back, (photo.height, photo.width))[0]
    return photo.with_perturbation(spread.permute(1, 2, 0).numpy().clip(-1, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--clean", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.data / FOLDER
    limits = {name: threshold(find_card(name), FMR).cosine for name in (*SURROGATES, *JUDGES)}
    judges = [load_judge(name) for name in JUDGES]
    ensemble = Ensemble([load_surrogate(name) for name in SURROGATES])

    def cloak(method: str, **settings: object) -> Cloak:
        made = load_cloak(method)
        return made(made.configured(settings))

    both, mask, mark = cloak("watermark"), cloak("spatial"), cloak("watermark", weight=100.0)
    surer = cloak("watermark", weight=1.5)
    carriers, bits = Carriers(KEY, BITS), encoded(TEXT, KEY)

    def put(method: Cloak, photo: Photo, face: Faces, seed: int) -> Photo:
        needs = method.needs
        work = Work.seeded(seed, ensemble, thresholds={name: limits[name] for name in SURROGATES})
        if "key" in needs:
            work = Work.seeded(seed, ensemble, thresholds=dict(work.thresholds), key=KEY, message=TEXT)
        return apply(method, photo, face, work).photo

    def says(photo: Photo, key: bytes = KEY) -> str | None:
        face = central(photo)
        return None if face is None else read(both, photo, face, Work.seeded(0, key=key))[0].message

    def seen(photo: Photo, face: Faces, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.from_numpy(np.ascontiguousarray(photo.pixels.transpose(2, 0, 1)))[None]
        return pixels, alignments(face.landmarks * scale, ARCFACE_112)[0][None].double()

    def right(photo: Photo, scale: float, face: Faces, before: Photo) -> float:
        """Share of bits at the true place, turned as before the mark."""
        ((summary,),) = summaries(*seen(before, face), KEY)
        soft = carriers.soft(spectra(*seen(photo, face, scale)))[0].numpy() * turns(KEY, summary, BITS)
        return float(((soft > 0) == bits).mean())

    dodged: dict[str, list[list[bool]]] = {}
    found: dict[str, dict[str, list[float]]] = {}
    differences: list[torch.Tensor] = []
    kept: list[tuple[Photo, Faces, Photo, Faces]] = []
    wrong = 0
    for first, place, second, reference in islice(genuine_pairs(folder), options.pairs):
        first = sent(first, form="PNG")
        known = embedded(second, reference, judges)
        seed = len(kept)
        made = {"watermark": put(both, first, place, seed), "mask": put(mask, first, place, seed)}
        made["watermark, weight 1.5"] = put(surer, first, place, seed)
        made["mark alone"] = put(mark, first, place, seed)
        made["mark, then mask"] = put(mask, made["mark alone"], place, seed)
        made["mask, then mark"] = put(mark, made["mask"], place, seed)
        for row, photo in made.items():
            cosines = [float((one * two).sum()) for one, two in zip(embedded(photo, place, judges), known, strict=True)]
            dodged.setdefault(row, []).append([c < limits[j] for c, j in zip(cosines, JUDGES, strict=True)])
            if row == "mask":
                continue
            ways = WAYS if row.startswith("watermark") else {"saved": WAYS["saved"]}
            for way, how in ways.items():
                photo_there, scale = sent(photo, **how), how.get("scale", 1.0)
                counts = found.setdefault(row, {})
                counts.setdefault(f"{way}: bits", []).append(right(photo_there, scale, place, first))
                counts.setdefault(f"{way}: read", []).append(says(photo_there) == TEXT)
        wrong += says(made["watermark"], OTHER) is not None
        if len(differences) < 10:
            differences.append(crop_of(made["watermark"], place) - crop_of(first, place))
        kept.append((first, place, made["watermark"], place))
        print(len(kept), {row: round(float(np.mean(v)), 3) for row, v in dodged.items()}, flush=True)
    mean = torch.stack(differences).mean(0)
    strength = float(torch.stack([d.square().mean().sqrt() for d in differences]).mean() / mean.square().mean().sqrt())
    removed, copied, singly = [], [], []
    for first, place, marked, _ in kept[10:]:
        off = laid_on(marked, place, -mean)
        removed.append(says(off) == TEXT)
        copied.append(says(laid_on(first, place, mean * strength)) == TEXT)
        singly += [says(laid_on(first, place, one)) == TEXT for one in differences]
    false = 0
    pictures = sorted(folder.glob("*/*.jpg"))[: options.clean]
    for path in pictures:
        false += says(read_photo(path)) is not None
    card = {
        "schema": "bauta.watermark/1",
        "code": code(),
        "data": "lfw_photos_250, the first genuine pairs",
        "pairs": len(kept),
        "fmr": FMR,
        "judges": list(JUDGES),
        "attacked": list(SURROGATES),
        "settings": both.config.to_dict(),
        "dodging": {row: [round(float(v), 4) for v in np.mean(rows, axis=0)] for row, rows in dodged.items()},
        "found": {
            row: {name: round(float(np.mean(values)), 4) for name, values in counts.items()}
            for row, counts in found.items()
        },
        "another_key": [wrong, len(kept)],
        "clean_faces": [false, len(pictures)],
        "read_after_removal": [int(sum(removed)), len(removed)],
        "read_when_copied": [int(sum(copied)), len(copied)],
        "read_when_one_is_copied": [int(sum(singly)), len(singly)],
    }
    options.output.write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
