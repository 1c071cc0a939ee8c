"""Clips made of photos: what the best frame gives an attacker, how much a mask flickers, and how long it takes.

    python benchmarks/video.py PHOTOS -o FILE.json --people NAME [NAME ...] [--frames 16] [--rows ROW ...]

PHOTOS holds a folder for each person, with photos of them; as in LFW, the face in the middle is theirs. A clip is the
first photo moved, turned, enlarged and lit, so that where each pixel of the face goes is known. Every row goes through
`ClipPipeline`: written, and read back. Surrogates are the two that every install has; judges are four that no mask
attacks. Two comparisons:

- *another photo*: what an attacker has. Every frame of the written clip is compared with the person's other photos.
  A comparison is one judge and one photo; only those count in which a frame of the clip as it was does match.
- *the clip itself*: what the verdict goes by when it is given no other photo: frames against stills of the original.

And of each:

- *best frame*: share of the comparisons for which no frame matches.
- *frames*: share of the frames, over comparisons, that do not match.
- *flicker*: mean difference of one frame of the face from the next, once the movement is taken out by what is known of
  it, over the same of the clip that was written without a mask.

Rows: `tracked` is the default mask, carried along. `fresh` is that of photos, made anew for each of the first three
frames. `p3-mask` is fitted to the very photos that the clip is then compared with: there are no others. These two take
long, and have a card of their own, on fewer people.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

import bauta
from bauta.benchmark.engine.cards import code, machine
from bauta.clips.clip import Clip, Frame, Patch, read_clip
from bauta.clips.writing import as_floats, as_samples, write_clip
from bauta.cloaking.apply import Picture, edit_pictures
from bauta.cloaking.clip_judging import through_messenger
from bauta.cloaking.clip_pipeline import ClipPipeline
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
ROWS = ("tracked", "p3-mask", "fresh", "blur")
FRESH = 3  # frames of a clip that get a mask of their own
SURROGATES = ("chip_resnet", "mobilefacenet")
JUDGES = ("edgeface_xxs", "mobileface_v2", "espdl_mbf", "mobilenet")
SENT = "messenger"
FloatArray = NDArray[np.float32]
Cosines = dict[str, FloatArray]
"""By judge (frames, photos)."""


def movement(number: int, shape: tuple[int, ...], phases: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) from the photo to frame `number`: a hand that moves a camera a little, and zooms."""
    height, width = shape[:2]
    at = number / RATE
    size = SIZE[1] / height * (1.15 + 0.12 * np.sin(2 * at + phases[0]))
    turn = np.deg2rad(5 * np.sin(1.7 * at + phases[1]))
    middle = np.array([width / 2 * (1 + 0.1 * np.sin(2.5 * at + phases[2])), height / 2 * (1 + 0.08 * np.sin(3 * at))])
    linear = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, np.array(SIZE) / 2 - linear @ middle])


def central(pixels: FloatArray) -> FloatArray:
    """Landmarks (5, 2) of the face nearest to the middle."""
    found = detect_faces(pixels).landmarks
    middle = np.array(pixels.shape[1::-1]) / 2
    nearest = np.linalg.norm(found.mean(axis=1) - middle, axis=1).argmin()
    return np.asarray(found[nearest], dtype=np.float32)


def make_clip(photo: Path, path: Path, frames: int, seed: int) -> list[FloatArray]:
    """Write a clip of a photo; the landmarks (5, 2) of the face in each frame, as they are known to be."""
    pixels = read_photo(photo).pixels
    face = central(pixels).astype(np.float64)
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
            places.append((face @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32))
        for packet in stream.encode(None):
            sink.mux(packet)
    return places


def flicker(path: Path, places: list[FloatArray], numbers: int | None = None) -> float:
    """Mean difference, in 1/255, of the face in one frame from the next, with the movement taken out."""
    crops = []
    for frame, points in zip(read_clip(path), places[:numbers], strict=False):
        matrix = 2 * similarity_matrix(points, ARCFACE_112)
        crops.append(255 * sample(as_floats(frame.pixels), matrix, (224, 224)))
    return float(np.mean([np.abs(one - two).mean() for one, two in itertools.pairwise(crops)]))


class Attacker:
    """Compares frames with other photos of the person.

    Args:
        pipeline: With the judges.
        photos: Of the person, others than the clip is made of.
    """

    def __init__(self, pipeline: Pipeline, photos: Iterable[Path]) -> None:
        self.judges = pipeline.judges
        pictures = [read_photo(photo).pixels for photo in photos]
        faces = [(pixels, central(pixels)) for pixels in pictures]
        self.known = {member.name: np.stack([self.seen(member, *face) for face in faces]) for member in self.judges}
        self.limits = {member.name: member.thresholds[pipeline.settings.fmr].cosine for member in self.judges}

    @staticmethod
    def seen(member: Any, pixels: FloatArray, points: FloatArray) -> FloatArray:
        """What a judge makes of a face."""
        return np.asarray(member.judge.embed(extract_crops(pixels, points[None], member.judge.card.template))[0])

    def cosines(self, clip: Clip, places: list[FloatArray], condition: str) -> Cosines:
        """Of every frame with every photo; the face is where it is known to be."""
        shown: Iterable[Frame] = through_messenger(clip, range(len(places))) if condition == SENT else clip
        rows: dict[str, list[FloatArray]] = {member.name: [] for member in self.judges}
        for frame, points in zip(shown, places, strict=False):
            pixels = as_floats(frame.pixels)
            scale = pixels.shape[1] / clip.width
            for member in self.judges:
                rows[member.name].append(self.seen(member, pixels, ((points + 0.5) * scale - 0.5).astype(np.float32)))
        return {name: np.stack(row) @ self.known[name].T for name, row in rows.items()}

    def told(self, cosines: Cosines, clean: Cosines) -> list[dict[str, Any]]:
        """What each comparison says that finds the person in the clip as it was."""
        return [
            {
                "judge": name,
                "dodged": bool(found[:, photo].max() < self.limits[name]),
                "matching": float((found[:, photo] >= self.limits[name]).mean()),
                "margin": float(self.limits[name] - found[:, photo].max()),
            }
            for name, found in cosines.items()
            for photo in range(found.shape[1])
            if clean[name][:, photo].max() >= self.limits[name]
        ]


def to_itself(report: Any, condition: str) -> list[dict[str, Any]]:
    """What each judge says of the face, against stills of the same clip."""
    face = max(report.faces, key=lambda one: one.frames)
    return [
        {"judge": row.judge, "dodged": row.margin > 0, "matching": row.matching, "margin": row.margin}
        for row in face.judges
        if row.condition == condition
    ]


def fresh(pipeline: Pipeline, source: Path, target: Path, places: list[FloatArray]) -> float:
    """Write a clip of the first frames, each with a mask of its own; processor seconds a frame."""
    spent = []

    def change(frame: Any) -> Any:
        if frame.number >= FRESH:
            return None
        pixels = as_floats(frame.pixels)
        began = time.process_time()
        (made,) = edit_pictures(pipeline.cloak, [Picture(pixels, places[frame.number][None])], pipeline.work(silent))
        spent.append(time.process_time() - began)
        height, width = pixels.shape[:2]
        return Patch(slice(0, height), slice(0, width), as_samples(pixels + made.delta, frame.pixels))

    write_clip(read_clip(source), target, change)
    return float(np.mean(spent))


class Rows:
    """What was found, by row and by person."""

    def __init__(self) -> None:
        self.found: dict[str, list[dict[str, Any]]] = {}

    def results(self) -> dict[str, Any]:
        """Of each row, over people."""
        return {name: self._row(rows) for name, rows in self.found.items()}

    def _row(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {"clips": len(rows)}
        for against in ("another_photo", "the_clip_itself"):
            for condition in ("saved", SENT):
                answers = [answer for row in rows for answer in row.get(against, {}).get(condition, ())]
                if answers:
                    by_judge = {
                        judge: round(float(np.mean([one["dodged"] for one in answers if one["judge"] == judge])), 4)
                        for judge in sorted({one["judge"] for one in answers})
                    }
                    made.setdefault(against, {})[condition] = {
                        "comparisons": len(answers),
                        "best_frame": float(np.mean([one["dodged"] for one in answers])),
                        "frames": 1 - float(np.mean([one["matching"] for one in answers])),
                        "margin": float(np.mean([one["margin"] for one in answers])),
                        "best_frame_by_judge": by_judge,
                    }
        for name in ("flicker", "size", "seconds_a_frame", "seconds_for_the_mask"):
            values = [row[name] for row in rows if name in row]
            if values:
                made[name] = float(np.mean(values))
        return made


class Person:
    """A clip of one person, and what rows say of it.

    Args:
        folder: Photos of the person.
        work: A folder for clips.
        frames: Of the clip.
        seed: Of its movement.
        pipelines: By row; the one of the clean row judges.
    """

    def __init__(self, folder: Path, work: Path, frames: int, seed: int, pipelines: dict[str, Pipeline]) -> None:
        self.name, self.work, self.pipelines = folder.name, work, pipelines
        self.photos = sorted(folder.glob("*.jpg"))
        self.source = work / f"{self.name}.mp4"
        self.places = make_clip(self.photos[0], self.source, frames, seed)
        self.attacker = Attacker(pipelines["clean"], self.photos[1:])
        self.clean: dict[str, Cosines] = {}

    def measure(self, name: str) -> dict[str, Any]:
        """One row; the clean one comes first."""
        target, frames = self.work / f"{self.name}-{name}.mp4", len(self.places)
        row: dict[str, Any] = {"person": self.name}
        if name == "fresh":
            row["seconds_a_frame"] = fresh(self.pipelines["tracked"], self.source, target, self.places)
            frames = FRESH
        else:
            pipeline = self.pipelines.get(name) or fitted(self.photos[1:], self.work)
            spent = timed(pipeline.cloak)
            began = time.process_time()
            report = ClipPipeline(pipeline).protect(read_clip(self.source), target)
            row["seconds_a_frame"] = (time.process_time() - began - sum(spent)) / frames
            row["seconds_for_the_mask"] = sum(spent)
            row["the_clip_itself"] = {condition: to_itself(report, condition) for condition in ("saved", SENT)}
            row["size"] = target.stat().st_size / self.source.stat().st_size
        for condition in ("saved", SENT):
            cosines = self.attacker.cosines(read_clip(target), self.places, condition)
            self.clean.setdefault(condition, cosines)
            cosines = {judge: found[:frames] for judge, found in cosines.items()}
            row.setdefault("another_photo", {})[condition] = self.attacker.told(cosines, self.clean[condition])
        still = flicker(self.work / f"{self.name}-clean.mp4", self.places, frames)
        row["flicker"] = flicker(target, self.places, frames) / still
        return row


def timed(cloak: Any) -> list[float]:
    """A list that gets the processor seconds of every mask that the cloak makes for a clip."""
    spent: list[float] = []
    follow = getattr(type(cloak), "follow", None)

    def measured(views: Any, work: Any) -> Any:
        began = time.process_time()
        made = follow(cloak, views, work)  # type: ignore[misc]
        spent.append(time.process_time() - began)
        return made

    if follow is not None:
        cloak.follow = measured
    return spent


def settings(method: str, **options: Any) -> ProtectSettings:
    """With the recognisers of this benchmark."""
    attacked = {"surrogates": SURROGATES} if method == "spatial" else {}
    return ProtectSettings(method=method, options=tuple(options.items()), judges=JUDGES, **attacked)


def fitted(photos: list[Path], work: Path) -> Pipeline:
    """With a mask that is fitted to photos."""
    mask, key = work / f"{photos[0].stem}.mask", DeploymentKey.generate()
    bauta.fit("p3-mask", photos, surrogates=SURROGATES, judges=JUDGES, seed=0).save(mask, key=key)
    return Pipeline(ProtectSettings(method="p3-mask", fitted=(mask,), opens=key, judges=JUDGES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--people", nargs="+", required=True, help="folders of PHOTOS")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rows", nargs="+", default=["tracked"], choices=ROWS, help="beside the clip as it was")
    options = parser.parse_args()
    made = code()
    pipelines = {
        "clean": Pipeline(settings("clean")),
        "blur": Pipeline(settings("blur", sigma=20.0)),
        "tracked": Pipeline(settings("spatial")),
    }
    rows = Rows()
    people: dict[str, Person] = {}
    with tempfile.TemporaryDirectory() as scratch:
        wanted = [(name, row) for name in options.people for row in ("clean", *options.rows)]
        for name, row in wanted:
            if name not in people:
                seed = len(people)
                people[name] = Person(options.photos / name, Path(scratch), options.frames, seed, pipelines)
            rows.found.setdefault(row, []).append(people[name].measure(row))
            card = {
                "schema": "bauta.benchmark/1",
                "name": options.output.stem,
                "command": f"python benchmarks/video.py PHOTOS --people {' '.join(options.people)} "
                f"--frames {options.frames} --rows {' '.join(options.rows)}",
                "code": made,
                "machine": machine(),
                "people": list(people),
                "surrogates": SURROGATES,
                "judges": JUDGES,
                "results": rows.results(),
                "records": rows.found,
            }
            options.output.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
            print(name, row, json.dumps(card["results"][row]), flush=True)


if __name__ == "__main__":
    main()
