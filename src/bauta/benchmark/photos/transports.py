"""What happens to a protected photo before it is judged, alone or in chains.

The names of `bauta.judging.conditions`, which every report tries, and more of them for tables. All are done for
real, with Pillow or numpy, on 8-bit pixels; noise is the same in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bauta.errors import UsageError
from bauta.faces.faces import Faces
from bauta.judging.conditions import CONDITIONS, Condition, encoded, resized

FloatArray = NDArray[np.float32]

LOSSLESS = "lossless"
"""What a PNG keeps: the mask on the pixels, before the photo is encoded as its own format."""


@dataclass(frozen=True)
class _Crop(Condition):
    """A condition that cuts off a share of the width at the left and right, and of the height above and below."""

    margin: float = 0.0


def _times(image: Image.Image, factor: float) -> Image.Image:
    return image.point([min(255, round(factor * value)) for value in range(256)] * 3)


def _noisy(image: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))


def _cut(image: Image.Image, margin: float) -> Image.Image:
    left, top = _margins(image.width, image.height, margin)
    return image.crop((left, top, image.width - left, image.height - top))


def _margins(width: int, height: int, margin: float) -> tuple[int, int]:
    return round(margin * width), round(margin * height)


def _further() -> tuple[Condition, ...]:
    """Named after what they do; the phrase is what stands in documentation."""
    return (
        Condition("jpeg-90", "JPEG 90", "saved again as JPEG of quality 90", lambda image: encoded(image, "JPEG", 90)),
        Condition("jpeg-30", "JPEG 30", "saved again as JPEG of quality 30", lambda image: encoded(image, "JPEG", 30)),
        Condition("webp-75", "WebP 75", "saved again as WebP of quality 75", lambda image: encoded(image, "WEBP", 75)),
        Condition(
            "three-quarters", "3/4 size", "reduced to three quarters of its size", lambda image: resized(image, 0.75)
        ),
        Condition("quarter-size", "1/4 size", "reduced to a quarter of its size", lambda image: resized(image, 0.25)),
        Condition("double-size", "twice the size", "enlarged to twice its size", lambda image: resized(image, 2)),
        Condition(
            "strong-blur",
            "5x5 blur",
            "blurred by means of 5x5 pixels",
            lambda image: image.filter(ImageFilter.BoxBlur(2)),
        ),
        Condition(
            "noise", "noise", "given Gaussian noise of deviation 5/255 on each channel", lambda image: _noisy(image, 5)
        ),
        Condition("brighter", "brighter", "made a fifth brighter", lambda image: _times(image, 1.2)),
        Condition("darker", "darker", "made a fifth darker", lambda image: _times(image, 0.8)),
        _Crop("crop", "cropped", "cropped by a tenth at every side", lambda image: _cut(image, 0.1), margin=0.1),
    )


RESTORED = "restored"
"""Taken off again by the owner: the last of a chain, such as ``jpeg-90+restored``, for methods that can."""

TRANSPORTS = {condition.name: condition for condition in (*CONDITIONS, *_further())}


def transports(name: str) -> tuple[Condition, ...]:
    """The conditions of a chain such as ``half-size+jpeg-75``, first to last; none for `LOSSLESS`.

    Raises:
        UsageError: when one is not known.
    """
    if name in (LOSSLESS, RESTORED):
        return ()
    try:
        return tuple(TRANSPORTS[part] for part in name.removesuffix(f"+{RESTORED}").split("+"))
    except KeyError as error:
        raise UsageError(
            f"The transport {name!r} is not known.",
            hint=f"There is {LOSSLESS}, and, alone or joined by +, {', '.join(TRANSPORTS)}, and {RESTORED} at the end.",
        ) from error


def carry(name: str, pixels: FloatArray, faces: Faces) -> tuple[FloatArray, Faces]:
    """A photo after a chain, and where its faces ought to be then.

    Args:
        name: Of the chain.
        pixels: (H, W, 3) in [0, 1].
        faces: In pixels of that photo.

    Raises:
        UsageError: when a transport is not known.
    """
    for condition in transports(name):
        height, width = pixels.shape[:2]
        pixels = condition.apply(pixels)
        if isinstance(condition, _Crop):
            offset = np.array(_margins(width, height, condition.margin))
            faces = Faces(faces.boxes - np.tile(offset, 2), faces.landmarks - offset, faces.scores)
        else:
            scale = np.array([pixels.shape[1] / width, pixels.shape[0] / height])
            faces = Faces(faces.boxes * np.tile(scale, 2), (faces.landmarks + 0.5) * scale - 0.5, faces.scores)
    return pixels, faces
