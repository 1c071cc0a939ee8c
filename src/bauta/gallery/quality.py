"""Which photos are good enough to be enrolled or compared: a bad enrolment spoils every comparison after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta.errors import NoFaceFound, PoorPhoto, UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.detection import detect_faces
from bauta.photo import PhotoSource, read_photo
from bauta.settings import Range, Settings
from bauta.templates.base import SIDE


@dataclass(frozen=True)
class Quality(Settings):
    """What a photo must be like.

    Attributes:
        eyes: Least distance of the eyes, in pixels of the photo.
        sharpness: Least variance of the Laplacian of the aligned grey crop, in squared 1/255.
        turned: Greatest distance of the nose from the middle of the eyes, along the line of the eyes, in distances of
            the eyes; .5 is about half a profile.
        others: Greatest area of a second face, as a part of the first.
        pixels: Greatest number of pixels of a photo, in millions.
    """

    eyes: Annotated[float, Range(at=1)] = 24.0
    sharpness: Annotated[float, Range(at=0)] = 15.0
    turned: Annotated[float, Range(above=0)] = 0.5
    others: Annotated[float, Range(at=0, to=1)] = 0.25
    pixels: Annotated[int, Range(at=1, to=500)] = 40


def read_face(photo: PhotoSource, quality: Quality, *, aligned: bool = False) -> Tensor:
    """The one face of a photo, (1, 3, 112, 112) float32 in [0, 1], aligned to the ArcFace template.

    Args:
        photo: A file's bytes, or a path.
        quality: What is good enough.
        aligned: The photo is an aligned crop of 112x112 pixels already; only its sharpness is looked at.

    Raises:
        PhotoError: when it cannot be read.
        NoFaceFound: when it shows none.
        PoorPhoto: saying what is wrong with it.
        UsageError: when an aligned one has another size.
    """
    pixels = read_photo(photo, max_pixels=quality.pixels * 1_000_000).pixels
    if aligned:
        if pixels.shape[:2] != (SIDE, SIDE):
            raise UsageError(
                f"The photo has {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIDE}x{SIDE}.",
                hint="Crops are expected here that are aligned already.",
            )
        crop = pixels.transpose(2, 0, 1)
    else:
        crop = _cut(pixels, quality)
    if (sharp := _sharpness(crop)) < quality.sharpness:
        raise PoorPhoto(
            f"The face is blurred: its sharpness is {sharp:.0f}, and {quality.sharpness:g} is needed.",
            hint="Take a sharper photo.",
        )
    return torch.from_numpy(np.ascontiguousarray(crop[None], dtype=np.float32)).clamp(0, 1)


def _cut(pixels: NDArray[np.float32], quality: Quality) -> NDArray[np.float32]:
    faces = detect_faces(pixels)
    if not len(faces):
        raise NoFaceFound("No face was found in the photo.", hint="Give a photo that shows the face.")
    areas = np.sort(faces.areas)
    if len(faces) > 1 and areas[-2] > quality.others * areas[-1]:
        raise PoorPhoto("The photo shows more than one face.", hint="Give a photo of one person.")
    face = faces.largest()
    left, right, nose = face.landmarks[0][:3]
    distance = float(np.linalg.norm(right - left))
    if distance < quality.eyes:
        raise PoorPhoto(
            f"The face is small: its eyes are {distance:.0f} pixels apart, and {quality.eyes:g} are needed.",
            hint="Go nearer, or give a larger photo.",
        )
    turned = abs(float(np.dot(nose - (left + right) / 2, right - left))) / distance**2
    if turned > quality.turned:
        raise PoorPhoto("The face is turned away.", hint="Look into the camera.")
    return np.asarray(extract_crops(pixels, face.landmarks, ARCFACE_112)[0])


def _sharpness(crop: NDArray[np.float32]) -> float:
    grey = 255 * crop.mean(0)
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(laplacian.var())
