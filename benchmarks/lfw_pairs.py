"""Photos of two of a person, their faces, and what judges see in them: what scripts on pairs of LFW share."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bauta.faces.alignment import extract_crops
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.photo import Photo, read_photo
from bauta.recognizers import Judge

SURROGATES = ("chip_resnet", "mobilefacenet")
JUDGES = ("edgeface_xxs", "mobileface_v2", "espdl_mbf", "mobilenet")
"""Of a fresh install, and three of other makers; never attacked."""
FMR = 1e-2
FOLDER = "lfw_photos_250"

Embedding = NDArray[np.float32]


def central(photo: Photo) -> Faces | None:
    """The face nearest the middle."""
    faces = detect_faces(photo.pixels)
    if not len(faces):
        return None
    middle = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    return faces[np.array([np.square(middle - [photo.width / 2, photo.height / 2]).sum(1).argmin()])]


def genuine_pairs(folder: Path) -> Iterator[tuple[Photo, Faces, Photo, Faces]]:
    """The genuine pairs of `FOLDER`, each photo with its face; those without a face are left out."""
    for line in (folder / "genuine_pairs.txt").read_text(encoding="utf-8").splitlines():
        name, *numbers = line.split("\t")
        first, second = (read_photo(folder / name / f"{name}_{int(number):04d}.jpg") for number in numbers)
        place, reference = central(first), central(second)
        if place is not None and reference is not None:
            yield first, place, second, reference


def embedded(photo: Photo, face: Faces, judges: Sequence[Judge]) -> list[Embedding]:
    """(1, D) by each judge."""
    return [judge.embed(extract_crops(photo.pixels, face.landmarks, judge.card.template)) for judge in judges]


def sent(photo: Photo, scale: float = 1.0, form: str = "JPEG", **options: object) -> Photo:
    """A photo saved anew, perhaps smaller."""
    image = Image.fromarray((photo.pixels * 255).round().astype(np.uint8))
    if scale != 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return read_photo(stream.getvalue())
