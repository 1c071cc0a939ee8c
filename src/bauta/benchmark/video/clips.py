"""Clips made of photos, of which it is known where each pixel of the face goes; and who looks at them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.clips.clip import Clip, Frame, read_clip
from bauta.clips.writing import as_floats
from bauta.cloaking.clip_judging import through_messenger
from bauta.cloaking.pipeline import Pipeline
from bauta.errors import NoFaceFound
from bauta.faces.alignment import extract_crops, sample, similarity_matrix
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.detection import detect_faces
from bauta.judging.findings import MESSENGER
from bauta.photo import read_photo

SIZE = (480, 360)
RATE = 25
FloatArray = NDArray[np.float32]


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
    """Landmarks (5, 2) of the face nearest to the middle.

    Raises:
        NoFaceFound: when there is none.
    """
    found = detect_faces(pixels).landmarks
    if not len(found):
        raise NoFaceFound("A photo of the benchmark shows no face.", hint="Leave its person out of the recipe.")
    middle = np.array(pixels.shape[1::-1]) / 2
    nearest = np.linalg.norm(found.mean(axis=1) - middle, axis=1).argmin()
    return np.asarray(found[nearest], dtype=np.float32)


def make_clip(photo: Path, path: Path, frames: int, seed: Sequence[int]) -> list[FloatArray]:
    """Write a clip of a photo; the landmarks (5, 2) of the face in each frame, as they are known to be."""
    import av

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


def difference(path: Path, places: Sequence[FloatArray]) -> float:
    """Mean difference, in 1/255, of the face in one frame from the next, with the movement taken out."""
    crops = []
    for frame, points in zip(read_clip(path), places, strict=False):
        matrix = 2 * similarity_matrix(points, ARCFACE_112)
        crops.append(255 * sample(as_floats(frame.pixels), matrix, (224, 224)))
    return float(np.mean([np.abs(one - two).mean() for one, two in itertools.pairwise(crops)]))


class Attacker:
    """Compares frames with other photos of the person.

    Args:
        pipeline: With the judges.
        photos: Of the person, others than the clip is made of.
    """

    def __init__(self, pipeline: Pipeline, photos: Sequence[Path]) -> None:
        self.judges = pipeline.judges
        self.photos = [photo.name for photo in photos]
        faces = [(pixels, central(pixels)) for pixels in (read_photo(photo).pixels for photo in photos)]
        self.known = {member.name: np.stack([_seen(member, *face) for face in faces]) for member in self.judges}

    def cosines(self, clip: Clip, places: Sequence[FloatArray], condition: str) -> dict[str, FloatArray]:
        """By judge (frames, photos); the face is where it is known to be."""
        shown: Iterable[Frame] = through_messenger(clip, range(len(places))) if condition == MESSENGER else clip
        rows: dict[str, list[FloatArray]] = {member.name: [] for member in self.judges}
        for frame, points in zip(shown, places, strict=False):
            pixels = as_floats(frame.pixels)
            scale = pixels.shape[1] / clip.width
            for member in self.judges:
                rows[member.name].append(_seen(member, pixels, ((points + 0.5) * scale - 0.5).astype(np.float32)))
        return {name: np.stack(row) @ self.known[name].T for name, row in rows.items()}


def _seen(member: Any, pixels: FloatArray, points: FloatArray) -> FloatArray:
    """What a judge makes of a face."""
    return np.asarray(member.judge.embed(extract_crops(pixels, points[None], member.judge.card.template))[0])
