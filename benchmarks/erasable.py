"""What `--erasable` gives back, what it costs in bytes, and what others get of it, on genuine pairs of LFW photos.

    python benchmarks/erasable.py DATA -o FILE.json

Of each pair one photo is masked as `bauta protect --erasable` does it, in JPEG (quality 92, as phones save) and PNG,
and compared with the other photo of the person by judges that were not attacked, at an FMR of 1 %:

- *protected*; *restored* with the key, and once more after the restored photo was saved in its own format;
- *another key*: nothing opens, so that what is left is the protected photo;
- *saved anew* at JPEG 90 as a network does it: the sealed part is gone, and the mask stays.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from bauta.benchmark.engine.cards import code
from bauta.cloaking.apply import apply
from bauta.cloaking.erasing import erasable, erase
from bauta.cloaks.base import Work, load_cloak
from bauta.errors import WrongKey
from bauta.faces.faces import Faces
from bauta.keys import DeploymentKey
from bauta.photo import Photo, read_photo
from bauta.photo.attachment import attached
from bauta.recognizers import find_card, load_judge, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble
from lfw_pairs import FMR, FOLDER, JUDGES, SURROGATES, Embedding, embedded, genuine_pairs, sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.data / FOLDER
    made = load_cloak("spatial")
    cloak = made(made.configured({}, strength="medium"))
    ensemble = Ensemble([load_surrogate(name) for name in SURROGATES])
    limits = {name: threshold(find_card(name), FMR).cosine for name in (*SURROGATES, *JUDGES)}
    judges = [load_judge(name) for name in JUDGES]
    key, other = DeploymentKey.generate(), DeploymentKey.generate()
    matched: dict[str, dict[str, list[list[bool]]]] = {}
    grown: dict[str, list[float]] = {}
    exact: dict[str, list[float]] = {}
    opened = 0
    done = 0
    for first, place, second, reference in islice(genuine_pairs(folder), options.pairs):
        done += 1
        known = embedded(second, reference, judges)

        def look(photo: Photo, place: Faces = place, known: list[Embedding] = known) -> list[bool]:
            found = zip(JUDGES, embedded(photo, place, judges), known, strict=True)
            return [float((one * two).sum()) >= limits[judge] for judge, one, two in found]

        for form, kept in (("JPEG", {"quality": 92}), ("PNG", {})):
            original = sent(first, form=form, **kept)
            work = Work.seeded(0, ensemble, thresholds=limits)
            masked = apply(cloak, original, place, work).photo
            plain = masked.encode()
            _, file = erasable(plain, original, masked, key)
            restored = erase(file, key)
            views: dict[str, Callable[[], Photo]] = {
                "unprotected": lambda original=original: original,
                "protected": lambda file=file: file,
                "restored": lambda restored=restored: restored,
                "restored, saved once more": lambda restored=restored: read_photo(restored.encode()),
                "saved anew by a network": lambda file=file: sent(file, quality=90),
            }
            for name, make in views.items():
                matched.setdefault(form, {}).setdefault(name, []).append(look(make()))
            try:
                erase(file, other)
                opened += 1
            except WrongKey:
                pass
            sealed = sum(len(body) for _, body in attached(file.content))
            grown.setdefault(form, []).append(sealed / len(plain))
            apart = float(np.square(restored.pixels - original.pixels).mean())
            exact.setdefault(form, []).append(float("inf") if apart == 0 else -10 * float(np.log10(apart)))
        print(done, flush=True)
    card = {
        "schema": "bauta.erasable/1",
        "code": code(),
        "data": "lfw_photos_250, the first genuine pairs",
        "pairs": done,
        "fmr": FMR,
        "judges": list(JUDGES),
        "attacked": list(SURROGATES),
        "matched": {
            form: {name: [round(float(v), 4) for v in np.mean(rows, axis=0)] for name, rows in found.items()}
            for form, found in matched.items()
        },
        "bit_exact": {form: float(np.mean(np.isinf(values))) for form, values in exact.items()},
        "least_psnr": {form: round(min(values), 1) for form, values in exact.items() if np.isfinite(values).all()},
        "sealed_share_of_file": {form: round(float(np.mean(values)), 3) for form, values in grown.items()},
        "opened_by_another_key": opened,
    }
    options.output.write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
