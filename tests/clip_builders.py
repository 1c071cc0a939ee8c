"""Small clips that tests make by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces

RATE = 25
Pixels = NDArray[np.uint8]


def ground(size: tuple[int, int] = (320, 240), seed: int = 0) -> Pixels:
    """A background (H, W, 3) with something to see everywhere."""
    cells = np.random.default_rng(seed).integers(90, 166, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC))


def moving(face: Pixels, count: int, size: tuple[int, int] = (320, 240), *, seed: int = 0) -> list[Pixels]:
    """Frames in which a face of 112 pixels moves to the right and down, over a background that stays."""
    frames = []
    for at in range(count):
        frame = ground(size, seed).copy()
        top, left = place(at)
        frame[top : top + 112, left : left + 112] = face
        frames.append(frame)
    return frames


def place(at: int) -> tuple[int, int]:
    """Top and left of the face of `moving` in a frame."""
    return 40 + at, 30 + 2 * at


def write_clip(
    path: Path,
    frames: Sequence[Pixels],
    codec: str = "libx264",
    *,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    sound: str | None = None,
    uneven: bool = False,
    tags: dict[str, str] | None = None,
    transfer: int = 1,
    chapter: str | None = None,
) -> Path:
    """A clip of these frames, 25 a second; with a tone when a codec for sound is named."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(codec, rate=RATE)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if codec == "libx265" and len(frames) < 3:  # for which it makes up times
            stream.codec_context.options = {"x265-params": "bframes=0:log-level=error"}
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, transfer, 1
        if rotation:
            stream.set_display_rotation(rotation)
        sink.metadata.update(tags or {})
        if chapter is not None:
            span = {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000)}
            sink.set_chapters([{**span, "metadata": {"title": chapter}}])
        tone = None
        if sound is not None:
            tone = sink.add_stream(sound, rate=48000)
            tone.layout = "mono"
        at = 0
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = picture.reformat(format=pixel_format, dst_colorspace="ITU709")
            picture.pts, picture.time_base = at, Fraction(1, 1000)
            at += (20 if number % 3 else 80) if uneven else 40
            for packet in stream.encode(picture):
                sink.mux(packet)
        if tone is not None:
            kind = "flt" if sound == "libopus" else "fltp"
            for number in range(len(frames) * 2):
                wave = np.sin(np.arange(960) / 10, dtype=np.float32)[None] / 4
                piece = av.AudioFrame.from_ndarray(wave, format=kind, layout="mono")
                piece.rate, piece.pts, piece.time_base = 48000, number * 960, Fraction(1, 48000)
                for packet in tone.encode(piece):
                    sink.mux(packet)
            for packet in tone.encode(None):
                sink.mux(packet)
        for packet in stream.encode(None):
            sink.mux(packet)
    return path


def packets(path: Path, kind: str) -> list[tuple[bytes, float]]:
    """Bytes and times of what a file holds of a kind of track."""
    with av.open(str(path)) as source:
        stream = next(one for one in source.streams if one.type == kind)
        return [(bytes(packet), float(packet.pts * packet.time_base)) for packet in source.demux(stream) if packet.size]


class Shown:
    """A frame of which nothing but its pixels is known."""

    def __init__(self, pixels: Pixels) -> None:
        self.colours = pixels
        self.grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))

    def small(self, width: int, height: int) -> Pixels:
        return np.asarray(cv2.resize(self.colours, (width, height), interpolation=cv2.INTER_AREA))


class Finder:
    """Finds faces of 112 pixels that it was shown before, by their pixels, where they are alike enough."""

    def __init__(self, *faces: Pixels) -> None:
        self.faces = [cv2.cvtColor(face, cv2.COLOR_RGB2GRAY) for face in faces]
        self.looks = 0
        self.blind: set[int] = set()  # numbers of looks that find nothing
        self.tremble = 0.0
        self._random = np.random.default_rng(1)

    def __call__(self, pixels: NDArray[np.generic], **options: object) -> Faces:
        self.looks += 1
        if self.looks - 1 in self.blind:
            return Faces.none()
        shown = pixels if pixels.dtype == np.uint8 else (np.asarray(pixels) * 255).round().clip(0, 255).astype(np.uint8)
        grey = cv2.cvtColor(np.ascontiguousarray(shown), cv2.COLOR_RGB2GRAY)
        boxes, landmarks, scores = [], [], []
        for face in self.faces:
            likeness = cv2.matchTemplate(grey, face, cv2.TM_CCOEFF_NORMED)
            _, best, _, (left, top) = cv2.minMaxLoc(likeness)
            if best > 0.7:
                shift = self._random.normal(0, self.tremble, 2) if self.tremble else 0
                boxes.append([left, top, left + 112, top + 112])
                landmarks.append(np.array(ARCFACE_112.points) + [left, top] + shift)
                scores.append(min(1.0, best))
        if not boxes:
            return Faces.none()
        return Faces(np.array(boxes), np.array(landmarks), np.array(scores))
