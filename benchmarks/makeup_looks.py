"""Whether makeup stays makeup, by `bauta.judging.naturalness`, on synthetic portraits.

    python benchmarks/makeup_looks.py DATA -o FILE.json

DATA holds ``demo/sdfd_synthetic/plain``. Looks are put on as they are installed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from bauta.benchmark.engine.cards import code
from bauta.cloaking.apply import apply
from bauta.cloaks.base import Work, load_cloak
from bauta.faces.detection import detect_faces
from bauta.judging.naturalness import measure_makeup
from bauta.photo import read_photo
from bauta.recognizers import find_card, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble

SURROGATES = ("chip_resnet", "mobilefacenet")
# Men and women, dark and light skin, old and young, a beard, glasses.
PORTRAITS = ("maB-127_3", "maSE-78_10", "maW-66_5", "woB-4_10", "woL-33_3", "woW-76_1")
LOOKS = ("natural", "tone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = load_cloak("makeup")
    ensemble = Ensemble([load_surrogate(name) for name in SURROGATES])
    limits = {name: threshold(find_card(name), 1e-2).cosine for name in SURROGATES}
    found: dict[str, list[dict[str, object]]] = {look: [] for look in LOOKS}
    for name in PORTRAITS:
        photo = read_photo((options.data / f"demo/sdfd_synthetic/plain/{name}.webp").read_bytes())
        faces = detect_faces(photo.pixels)[[0]]
        for look in LOOKS:
            work = Work.seeded(0, ensemble, thresholds=limits)
            (edit,) = apply(made(made.configured({"look": look})), photo, faces, work).change.edits
            measured = {key: round(value, 4) for key, value in asdict(measure_makeup(edit)).items()}
            found[look].append({"portrait": name, "bare": edit.facts.get("left bare", ""), **measured})
            print(name, look, measured, flush=True)
    card = {"schema": "bauta.makeup-looks/1", "code": code(), "data": "demo/sdfd_synthetic/plain", "looks": found}
    options.output.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
