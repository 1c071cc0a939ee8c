"""Which faces are found: by the detector that is used, by the one before, and by others.

    python benchmarks/face_detection.py DATA --pictures FOLDER ...

Reads DATA/lfw_photos_250 (a folder for each person) and DATA/demo; FOLDERs hold pictures without people. A third of the
people was for development and is not asked here. Writes ``finding-faces.json`` into --output, without pictures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data as skimage_data

from bauta.benchmark.engine.cards import code, machine
from bauta.faces.alignment import sample
from bauta.faces.detection import detect_faces, smallest_face
from bauta.faces.faces import Faces
from bauta.faces.proposals import propose
from face_scenes import DEVELOPMENT_PICTURES, Pasted, cuttings, generated, people, read, scene, turn

Pixels = NDArray[np.float32]
Detector = Callable[[Pixels], Faces]
SIZES = (24, 28, 34, 40, 48, 60, 80, 120, 200, 300)
ASKED = 40  # pixels: faces from this height on are to be found
ANGLES = (0, 0, 0, 0, 30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 330, 45, 135, 225, 315)
# Megapixels, how many scenes, and how many faces at most in each.
SCENES = ((2, 8, 30), (12, 4, 40), (24, 1, 40), (50, 1, 50))
# Of the synthetic portraits every sixth is asked.
PORTRAITS = 6
TURNS = (0, 45, 90, 135, 180, 225, 270, 315)
# Faces of the demo photos that are more than one, counted by eye; whoever is blurred beyond recognition is left out.
COUNTED = {"detection4.jpg": 3, "detection6.jpg": 2, "test-image-person-group.jpg": 2}
# Not without people, or arguable: coins show heads.
WITH_PEOPLE = {"astronaut.png", "camera.png", "coins.png"}


@dataclass
class Tally:
    """How many of how many faces, by kind."""

    found: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, found: bool) -> None:
        self.asked[kind] = self.asked.get(kind, 0) + 1
        self.found[kind] = self.found.get(kind, 0) + found

    def to_dict(self) -> dict[str, Any]:
        return {kind: {"found": self.found[kind], "of": self.asked[kind]} for kind in sorted(self.asked)}


def back_from_quarter(faces: Faces, quarter: int, shape: tuple[int, ...]) -> Faces:
    """Faces of a photo turned by quarters, in pixels of the photo (H, W, ...)."""
    height, width = shape[:2]
    points = np.concatenate([faces.boxes.reshape(-1, 2, 2), faces.landmarks], axis=1)
    x, y = points[..., 0], points[..., 1]
    back = ((x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x))[quarter]
    points = np.stack(back, axis=-1)
    boxes = np.concatenate([points[:, :2].min(axis=1), points[:, :2].max(axis=1)], axis=1)
    return Faces(boxes, points[:, 2:], faces.scores)


def centerface(pixels: Pixels, quarters: tuple[int, ...] = (0,)) -> Faces:
    size = smallest_face(pixels.shape)
    parts = [
        back_from_quarter(
            propose(np.ascontiguousarray(np.rot90(pixels, quarter)), size, threshold=0.35, weights="centerface"),
            quarter,
            pixels.shape,
        )
        for quarter in quarters
    ]
    return Faces.join(parts).each_once()


def mtcnn(pixels: Pixels) -> Faces:
    """As it was: the smallest face is 2 % of the short side, and a photo is turned when nothing upright is found."""
    return detect_faces(pixels, detector="mtcnn", minimum_size=max(20.0, 0.02 * min(pixels.shape[:2])))


def timed(detect: Detector, pixels: Pixels) -> tuple[Faces, float]:
    """What is found, and the seconds of processor time it took, all threads together."""
    began = time.process_time()
    faces = detect(pixels)
    return faces, time.process_time() - began


def find_all(pixels: Pixels) -> dict[str, tuple[Faces, float]]:
    """What each detector finds in a photo, and the seconds it took."""
    before, upright = timed(mtcnn, pixels), timed(centerface, pixels)
    lying = timed(lambda photo: centerface(photo, (1, 2, 3)), pixels)
    return {
        "MTCNN, as before": before,
        "CenterFace at .35": upright,
        "CenterFace at .35, photo turned four ways": (
            Faces.join([upright[0], lying[0]]).each_once(),
            upright[1] + lying[1],
        ),
        "MTCNN and CenterFace at .35": (
            Faces.join([before[0], before[0].elsewhere(upright[0])]),
            before[1] + upright[1],
        ),
        "CenterFace for every angle at .35": timed(
            lambda photo: propose(photo, smallest_face(photo.shape), threshold=0.35), pixels
        ),
        "**what Bauta does: the same at .2, and a second look**": timed(detect_faces, pixels),
    }


def matches(faces: Faces, face: Pasted) -> NDArray[np.bool_]:
    """(N,) which of the faces found are this one: at its place, and of its size."""
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    side = np.sqrt(np.maximum(faces.areas, 0))
    near = np.linalg.norm(middles - face.middle, axis=1) < 0.35 * face.size
    return np.asarray(near & (side > 0.4 * face.size) & (side < 2 * face.size))


def kinds(face: Pasted) -> Iterator[str]:
    which = "upright" if face.angle == 0 else "turned"
    yield f"{which}, {'from' if face.size >= ASKED else 'under'} {ASKED} px"
    yield f"{which}, {face.size:g} px"
    if face.size >= ASKED:
        yield f"angle {face.angle:g}"


def scenes(folder: Path, seed: int) -> dict[str, Any]:
    """Recall on scenes, false faces in them, and seconds."""
    faces = cuttings(people(folder, development=False))
    reported = [path for path in skimage_pictures() if path.name not in DEVELOPMENT_PICTURES]
    pictures = [read(path) for path in reported]
    results: dict[str, Any] = {}
    for megapixels, count, crowd in SCENES:
        for number in range(count):
            rng = np.random.default_rng((seed, megapixels, number))
            pixels, pasted = scene(rng, megapixels, pictures, faces, SIZES, ANGLES, crowd)
            for name, (found, seconds) in find_all(pixels).items():
                result = results.setdefault(name, {"recall": Tally(), "seconds": {}, "false": 0})
                result["seconds"].setdefault(str(megapixels), []).append(seconds / (pixels.size / 3e6))
                known = np.zeros(len(found), np.bool_)
                for face in pasted:
                    same = matches(found, face)
                    known |= same
                    for kind in kinds(face):
                        result["recall"].add(kind, bool(same.any()))
                middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
                for middle in middles[~known]:
                    result["false"] += not any(np.linalg.norm(middle - face.middle) < face.size for face in pasted)
            print(megapixels, number, flush=True)
    for result in results.values():
        result["recall"] = result["recall"].to_dict()
        result["seconds"] = {key: round(float(np.median(taken)), 4) for key, taken in result["seconds"].items()}
    return results


def skimage_pictures() -> list[Path]:
    folder = Path(skimage_data.__file__).parent
    return sorted(path for path in (*folder.glob("*.png"), *folder.glob("*.jpg")) if path.name not in WITH_PEOPLE)


def without_people(folders: list[Path], demo: Path) -> Iterator[tuple[str, Pixels]]:
    """Pictures without people: folders', scikit-image's, generated ones, and parts of demo photos beside the faces."""
    paths = [
        path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in (".jpg", ".jpeg", ".png")
    ]
    for path in (*paths, *skimage_pictures()):
        yield path.name, read(path)
    yield from generated(np.random.default_rng(7)).items()
    for name, left, top, right, bottom in BESIDE:
        yield f"part of {name} at {left},{top}", read(demo / name)[top:bottom, left:right]


# Parts of demo photos in which nobody's face is.
BESIDE = (
    ("azure_mit/detection1.jpg", 0, 0, 250, 664),
    ("azure_mit/detection2.jpg", 480, 0, 1000, 667),
    ("azure_mit/detection2.jpg", 0, 0, 300, 667),
    ("azure_mit/detection3.jpg", 0, 0, 420, 750),
    ("azure_mit/detection3.jpg", 680, 0, 1000, 750),
    ("azure_mit/detection4.jpg", 330, 0, 700, 240),
    ("azure_mit/detection4.jpg", 350, 450, 1000, 750),
    ("azure_mit/detection6.jpg", 0, 560, 667, 1000),
    ("azure_mit/test-image-person-group.jpg", 0, 0, 280, 532),
    ("azure_mit/test-image-person-group.jpg", 0, 240, 800, 532),
    ("nasa_pd/astronaut.png", 300, 0, 512, 200),
    ("nasa_pd/astronaut.png", 0, 260, 512, 512),
)


def false_faces(folders: list[Path], demo: Path) -> dict[str, Any]:
    """Faces found where there is none."""
    results: dict[str, Any] = {}
    count = {"development": 0, "reported": 0}
    for picture, pixels in without_people(folders, demo):
        kind = "development" if picture in DEVELOPMENT_PICTURES else "reported"
        count[kind] += 1
        for name, (found, _) in find_all(pixels).items():
            result = results.setdefault(name, {"development": [], "reported": []})
            if len(found):
                result[kind].append({"picture": picture, "faces": len(found)})
    return {"pictures": count, "detectors": results}


def turned_photo(pixels: Pixels, degrees: float) -> tuple[Pixels, NDArray[np.floating]]:
    """The photo turned about its middle on a canvas that holds all of it, and the matrix from one to the other."""
    size = np.array(pixels.shape[1::-1])
    rotation = turn(degrees)
    canvas = np.ceil(np.abs(rotation) @ size - 1e-6)
    matrix = np.column_stack([rotation, (canvas - 1) / 2 - rotation @ ((size - 1) / 2)])
    return sample(pixels, matrix, (int(canvas[1]), int(canvas[0])), border=0.5), matrix


def demo_photos(demo: Path) -> dict[str, Any]:
    """Recall on the demo photos, whole and turned: of the faces that any detector finds in the upright photo."""
    results: dict[str, Tally] = {}
    paths = sorted(path for path in demo.rglob("*") if path.suffix in (".jpg", ".png"))
    paths += sorted(demo.rglob("*.webp"))[::PORTRAITS]
    for path in paths:
        pixels = read(path)
        found = Faces.join([faces for faces, _ in find_all(pixels).values()]).each_once()
        count = COUNTED.get(path.name, 1)
        largest = found[np.argsort(-found.areas, kind="stable")[:count]]
        for degrees in TURNS:
            turned, matrix = turned_photo(pixels, degrees)
            for name, (seen, _) in find_all(turned).items():
                tally = results.setdefault(name, Tally())
                for face in largest:
                    middle = matrix[:, :2] @ (face.boxes[0, :2] + face.boxes[0, 2:]) / 2 + matrix[:, 2]
                    there = Pasted(float(np.sqrt(face.areas[0])), degrees, middle, face.landmarks[0])
                    tally.add("upright" if degrees == 0 else "turned", bool(matches(seen, there).any()))
    return {"photos": len(paths), "detectors": {name: tally.to_dict() for name, tally in results.items()}}


def landmarks(folder: Path) -> dict[str, Any]:
    """How far landmarks of upright LFW photos moved, in per cent of the distance between the eyes: against MTCNN's of
    the same photo; and MTCNN's against themselves when the photo is reduced to 97 %."""
    moved, itself = [], []
    for face in cuttings(people(folder, development=False)):
        eyes = np.linalg.norm(face.landmarks[0] - face.landmarks[1])
        found = detect_faces(face.pixels)
        reduced = np.asarray(cv2.resize(face.pixels, None, fx=0.97, fy=0.97, interpolation=cv2.INTER_AREA))
        ratio = np.array(reduced.shape[1::-1]) / face.pixels.shape[1::-1]
        again = detect_faces(reduced, detector="mtcnn")
        for faces, scale, into in ((found, np.ones(2), moved), (again, ratio, itself)):
            apart = np.linalg.norm((faces.landmarks + 0.5) / scale - 0.5 - face.landmarks, axis=2).mean(axis=1)
            if len(apart) and apart.min() < eyes / 2:
                into.append(100 * float(apart.min() / eyes))
    return {
        name: {"median": round(float(np.median(values)), 2), "95 %": round(float(np.percentile(values, 95)), 2)}
        for name, values in (("moved", moved), ("MTCNN at 97 %", itself))
    } | {"photos": len(moved)}


def speed(demo: Path) -> dict[str, Any]:
    """Seconds of processor time for a family photo of several sizes; detectors take turns, the least of three."""
    photo = read(demo / "azure_mit/detection6.jpg")
    sizes = {"0.26": (512, 512), "4": (2309, 1732), "12": (4000, 3000)}
    results: dict[str, dict[str, float]] = {}
    for megapixels, (height, width) in sizes.items():
        enlarged = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        rounds = [find_all(enlarged) for _ in range(3)]
        for name in rounds[0]:
            results.setdefault(name, {})[megapixels] = round(min(one[name][1] for one in rounds), 3)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="folders of pictures without people")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--only", nargs="*", help="parts to measure again in the card that is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    demo, folder = options.data / "demo", options.data / "lfw_photos_250"
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(demo),
        "false_faces": lambda: false_faces(options.pictures, demo),
        "landmarks": lambda: landmarks(folder),
        "scenes": lambda: scenes(folder, options.seed),
        "demo": lambda: demo_photos(demo),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "finding-faces.json"
    result = json.loads(path.read_text(encoding="utf-8")) if options.only else {}
    result |= {
        "schema": "bauta.benchmark/1",
        "name": "finding-faces",
        "command": f"python benchmarks/face_detection.py DATA --pictures FOLDER --seed {options.seed}",
        "code": code(),
        "machine": machine(),
    }
    for part in options.only or parts:
        result[part] = parts[part]()
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(part, "done", flush=True)


if __name__ == "__main__":
    main()
