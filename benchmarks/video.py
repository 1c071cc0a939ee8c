"""Clips made of photos: what the best frame gives an attacker, how much a mask flickers, and how long it takes.

    python benchmarks/video.py PHOTOS -o FILE.json [--clips 3] [--frames 24] [--people 1]

PHOTOS holds a folder for each person, with photos of them. A clip is one of the photos moved, turned, enlarged and lit,
so that where each pixel of the face goes is known. Every row goes through `bauta.protect_clip`: written, read back, and
judged by recognisers that no mask attacks, against stills of the same clip, which is the strictest comparison there is.

- *best frame*: share of faces and judges for which no frame that was looked at matches.
- *frames*: share of the frames, over faces and judges, that do not match.
- *flicker*: mean difference of one frame of the face from the next, once the movement is taken out by what is known of
  it, over the same of the clip that was written without a mask.

The mask that is made anew for each frame is made for four frames of each clip, since it takes so long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

import bauta
from bauta.benchmark.engine.cards import code, machine
from bauta.clips.clip import read_clip
from bauta.clips.writing import as_floats, as_samples, write_clip
from bauta.cloaking.apply import Picture, edit_pictures
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.settings import ProtectSettings
from bauta.faces.alignment import extract_crops, sample, similarity_matrix
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.detection import detect_faces
from bauta.keys import DeploymentKey
from bauta.photo import read_photo
from bauta.progress import silent

SIZE = (480, 360)
RATE = 25
FRESH = 4  # frames of a clip that get a mask of their own


def movement(number: int, shape: tuple[int, ...], phases: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) from the photo to frame `number`: a hand that moves a camera a little, and zooms."""
    height, width = shape[:2]
    at = number / RATE
    size = SIZE[1] / height * (1.15 + 0.12 * np.sin(2 * at + phases[0]))
    turn = np.deg2rad(5 * np.sin(1.7 * at + phases[1]))
    middle = np.array([width / 2 * (1 + 0.1 * np.sin(2.5 * at + phases[2])), height / 2 * (1 + 0.08 * np.sin(3 * at))])
    linear = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, np.array(SIZE) / 2 - linear @ middle])


def make_clip(photo: Path, path: Path, frames: int, seed: int) -> list[NDArray[np.float64]]:
    """Write a clip of a photo; the landmarks (5, 2) of the face in each frame, as they are known to be."""
    pixels = read_photo(photo).pixels
    face = detect_faces(pixels).largest().landmarks[0].astype(np.float64)
    phases = np.random.default_rng(seed).random(4) * 2 * np.pi
    places = []
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.options = {"crf": "18", "preset": "veryfast"}
        for number in range(frames):
            matrix = movement(number, pixels.shape, phases)
            shown = cv2.warpAffine(pixels, matrix, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            lit = shown * (1 + 0.12 * np.sin(1.3 * number / RATE + phases[3]))
            picture = (255 * lit).round().clip(0, 255).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                sink.mux(packet)
            places.append(face @ matrix[:, :2].T + matrix[:, 2])
        for packet in stream.encode(None):
            sink.mux(packet)
    return places


def flicker(path: Path, places: list[NDArray[np.float64]], numbers: int | None = None) -> float:
    """Mean difference, in 1/255, of the face in one frame from the next, with the movement taken out."""
    crops = []
    for frame, points in zip(read_clip(path), places[:numbers], strict=False):
        matrix = 2 * similarity_matrix(points, ARCFACE_112)
        crops.append(255 * sample(as_floats(frame.pixels), matrix, (224, 224)))
    return float(np.mean([np.abs(one - two).mean() for one, two in itertools.pairwise(crops)]))


def rows_of(report: Any) -> list[dict[str, Any]]:
    """What each judge says of the largest face."""
    face = max(report.faces, key=lambda one: one.frames)
    return [
        {"condition": row.condition, "judge": row.judge, "dodged": row.margin > 0, "matching": row.matching}
        for row in face.judges
    ]


def fresh(pipeline: Pipeline, source: Path, target: Path) -> tuple[float, list[dict[str, Any]]]:
    """The default mask made anew for each of the first frames: seconds a frame, and what judges say."""
    clip = read_clip(source)
    spent, answers = [], []

    def change(frame: Any) -> Any:
        if frame.number >= FRESH:
            return frame.pixels
        pixels = as_floats(frame.pixels)
        face = detect_faces(pixels).largest()
        began = time.process_time()
        (made,) = edit_pictures(pipeline.cloak, [Picture(pixels, face.landmarks)], pipeline.work(silent))
        spent.append(time.process_time() - began)
        return as_samples(pixels + made.delta, frame.pixels)

    write_clip(clip, target, change)
    for before, after in zip(clip, read_clip(target), strict=True):
        if before.number >= FRESH:
            break
        pixels = [as_floats(frame.pixels) for frame in (before, after)]
        face = detect_faces(pixels[0]).largest()
        for member in pipeline.judges:
            one, two = (
                member.judge.embed(extract_crops(p, face.landmarks, member.judge.card.template))[0] for p in pixels
            )
            match = float(one @ two) >= member.thresholds[pipeline.settings.fmr].cosine
            answers.append({"condition": "saved", "judge": member.name, "dodged": not match, "matching": float(match)})
    return float(np.mean(spent)), answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--people", type=int, default=1, help="clips for which a personalised mask is fitted too")
    options = parser.parse_args()
    folders = [one for one in sorted(options.photos.iterdir()) if len(list(one.glob("*.jpg"))) >= 4][: options.clips]
    found: dict[str, dict[str, list[Any]]] = {}
    pipeline = Pipeline(ProtectSettings())
    with tempfile.TemporaryDirectory() as scratch:
        for seed, folder in enumerate(folders):
            photos = sorted(folder.glob("*.jpg"))
            source, work = Path(scratch) / f"{seed}.mp4", Path(scratch)
            places = make_clip(photos[0], source, options.frames, seed)
            kinds: list[tuple[str, dict[str, Any]]] = [
                ("clean", {"method": "clean"}),
                ("blur", {"method": "blur", "options": {"sigma": 20.0}}),
                ("tracked", {}),
            ]
            if seed < options.people:
                mask, key = work / f"{seed}.mask", DeploymentKey.generate()
                bauta.fit("p3-mask", photos[1:]).save(mask, key=key)
                kinds.append(("p3-mask", {"method": "p3-mask", "fitted": mask, "opens": key}))
            still = 0.0
            for name, asked in kinds:
                target = work / f"{seed}-{name}.mp4"
                began = time.process_time()
                report = bauta.protect_clip(source, target, **asked)
                row = found.setdefault(name, {"answers": [], "flicker": [], "seconds": [], "writing": [], "size": []})
                row["seconds"].append((time.process_time() - began) / options.frames)
                row["writing"].append(report.seconds["writing"] / options.frames)
                row["answers"] += rows_of(report)
                now = flicker(target, places)
                still = now if name == "clean" else still
                row["flicker"].append(now / still)
                row["size"].append(target.stat().st_size / source.stat().st_size)
                write(options, folders, found)
            target = work / f"{seed}-fresh.mp4"
            spent, answers = fresh(pipeline, source, target)
            row = found.setdefault("fresh", {"answers": [], "flicker": [], "seconds": [], "writing": [], "size": []})
            row["answers"] += answers
            row["seconds"].append(spent)
            clean = flicker(work / f"{seed}-clean.mp4", places, FRESH)
            row["flicker"].append(flicker(target, places, FRESH) / clean)
            write(options, folders, found)


def write(options: argparse.Namespace, folders: list[Path], found: dict[str, dict[str, list[Any]]]) -> None:
    """The card, after every row."""
    results = {}
    for name, row in found.items():
        results[name] = {"clips": len(row["flicker"]), "flicker": float(np.mean(row["flicker"]))}
        for condition in ("saved", "messenger"):
            answers = [one for one in row["answers"] if one["condition"] == condition]
            if answers:
                results[name][condition] = {
                    "best_frame": float(np.mean([one["dodged"] for one in answers])),
                    "frames": 1 - float(np.mean([one["matching"] for one in answers])),
                    "answers": len(answers),
                }
        results[name]["processor_seconds_a_frame"] = float(np.mean(row["seconds"]))
        if row["size"]:
            results[name]["size"] = float(np.mean(row["size"]))
    card = {
        "schema": "bauta.benchmark/1",
        "name": "video",
        "command": f"python benchmarks/video.py PHOTOS --clips {options.clips} --frames {options.frames} "
        f"--people {options.people}",
        "code": code(),
        "machine": machine(),
        "people": [folder.name for folder in folders],
        "results": results,
    }
    options.output.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
