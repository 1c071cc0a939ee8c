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
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bauta.benchmark.engine.cards import code
from bauta.cloaking.apply import apply
from bauta.cloaking.erasing import erasable, erase
from bauta.cloaks.base import Work, load_cloak
from bauta.errors import WrongKey
from bauta.faces.alignment import extract_crops
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.keys import DeploymentKey
from bauta.photo import Photo, read_photo
from bauta.photo.attachment import attached
from bauta.recognizers import Judge, find_card, load_judge, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble

SURROGATES = ("chip_resnet", "mobilefacenet")
JUDGES = ("edgeface_xxs", "mobileface_v2", "espdl_mbf", "mobilenet")
FMR = 1e-2
Embedding = NDArray[np.float32]


def central(photo: Photo) -> Faces | None:
    """The face nearest the middle."""
    faces = detect_faces(photo.pixels)
    if not len(faces):
        return None
    middle = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    nearest = np.square(middle - [photo.width / 2, photo.height / 2]).sum(1).argmin()
    return faces[np.array([nearest])]


def seen(photo: Photo, place: Faces, judges: list[Judge]) -> list[Embedding]:
    return [judge.embed(extract_crops(photo.pixels, place.landmarks, judge.card.template)) for judge in judges]


def saved(photo: Photo, form: str, **options: object) -> Photo:
    stream = io.BytesIO()
    Image.fromarray((photo.pixels * 255).round().astype(np.uint8)).save(stream, form, **options)
    return read_photo(stream.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.data / "lfw_photos_250"
    lines = (folder / "genuine_pairs.txt").read_text().split("\n")
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
    for line in lines:
        if done == options.pairs or not line.strip():
            break
        name, *numbers = line.split("\t")
        first, second = (read_photo(folder / name / f"{name}_{int(number):04d}.jpg") for number in numbers)
        place, reference = central(first), central(second)
        if place is None or reference is None:
            continue
        done += 1
        known = seen(second, reference, judges)

        def look(photo: Photo, place: Faces = place, known: list[Embedding] = known) -> list[bool]:
            found = zip(JUDGES, seen(photo, place, judges), known, strict=True)
            return [float((one * two).sum()) >= limits[judge] for judge, one, two in found]

        for form, kept in (("JPEG", {"quality": 92}), ("PNG", {})):
            original = saved(first, form, **kept)
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
                "saved anew by a network": lambda file=file: saved(file, "JPEG", quality=90),
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
