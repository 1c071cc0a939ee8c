"""What happens to photos that are shared: the conditions under which a mask has to hold.

Each condition is done for real, with Pillow, on the pixels of the saved file. They are our choice of what
messengers, social networks and screenshots do; none is the differentiable twin that a cloak trains on.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bauta.pages import as_image

FloatArray = NDArray[np.float32]


def _to_pixels(image: Image.Image) -> FloatArray:
    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    pixels /= np.float32(255)
    return pixels


def encoded(image: Image.Image, kind: str, quality: int) -> Image.Image:
    """Saved by Pillow as JPEG or WebP, and read again."""
    stream = io.BytesIO()
    image.save(stream, kind, quality=quality)
    with Image.open(stream, formats=[kind]) as decoded:
        return decoded.convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """Both sides so many times as long, bicubic."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _screenshot(image: Image.Image) -> Image.Image:
    smaller = resized(image, 0.8)
    brighter = smaller.point([round(255 * (value / 255) ** (1 / 1.1)) for value in range(256)] * 3)
    return encoded(brighter, "JPEG", 85)


@dataclass(frozen=True)
class Condition:
    """One thing that happens to a photo on its way to a recogniser.

    Attributes:
        name: Key in `report.json`.
        label: What a person reads in a table.
        phrase: What completes "Once the photo is ...".
        change: From the saved photo to what the recogniser receives; None when nothing happens to it.
    """

    name: str
    label: str
    phrase: str
    change: Callable[[Image.Image], Image.Image] | None

    def apply(self, pixels: FloatArray) -> FloatArray:
        """The changed photo: (H', W', 3) in [0, 1] from (H, W, 3) in [0, 1]."""
        return pixels if self.change is None else _to_pixels(self.change(as_image(pixels)))


SAVED = Condition("saved", "as saved", "saved", None)

CONDITIONS = (
    SAVED,
    Condition("jpeg-95", "JPEG 95", "saved again as JPEG of quality 95", lambda image: encoded(image, "JPEG", 95)),
    Condition("jpeg-75", "JPEG 75", "saved again as JPEG of quality 75", lambda image: encoded(image, "JPEG", 75)),
    Condition("jpeg-50", "JPEG 50", "saved again as JPEG of quality 50", lambda image: encoded(image, "JPEG", 50)),
    Condition(
        "half-size",
        "half size",
        "reduced to half its size",
        lambda image: resized(image, 0.5),
    ),
    Condition("blur", "blurred", "slightly blurred", lambda image: image.filter(ImageFilter.BoxBlur(1))),
    Condition("screenshot", "screenshot", "screenshotted", _screenshot),
)
