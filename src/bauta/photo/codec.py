"""What the formats share: a source to decode, its limits, and the search for a matching file size."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from math import log2
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from bauta.errors import PhotoTooLarge, UnreadablePhoto, UnsupportedPhoto
from bauta.photo.metadata import Metadata
from bauta.photo.raster import Colour, Raster, Samples


@dataclass(frozen=True)
class Source:
    """The bytes of a file on their way into a decoder.

    Attributes:
        name: How messages call it.
        data: The whole file.
        max_pixels: How many pixels may be decoded.
    """

    name: str
    data: bytes = field(repr=False)
    max_pixels: int

    def unreadable(self, reason: str) -> UnreadablePhoto:
        """The error for a file that is damaged."""
        return UnreadablePhoto(
            f"{self.name} cannot be read: {reason}.",
            hint="The file may be damaged or incomplete; copy it again from where it came from.",
        )

    def unsupported(self, what: str, *, hint: str) -> UnsupportedPhoto:
        """The error for a sound file of a kind that Bauta does not protect."""
        if what == "a film":
            return UnsupportedPhoto(
                f"{self.name} is a film, and a photo is wanted here.", hint=f"`bauta protect` takes films. {hint}"
            )
        if what in ("a GIF", "an animated PNG", "an animated WebP"):
            return UnsupportedPhoto(
                f"{self.name} is {what}, and a photo is wanted here.",
                hint=f"`bauta protect` takes all its frames. {hint}",
            )
        return UnsupportedPhoto(f"{self.name} is {what}, which Bauta does not protect.", hint=hint)

    def check_size(self, width: int, height: int, coded: int | None = None) -> None:
        """Raises PhotoTooLarge for a size that no photo of this many bytes has; call it before decoding.

        A few bytes can declare millions of pixels, each of which would cost time and memory.

        Args:
            width: In pixels, as declared.
            height: In pixels, as declared.
            coded: Bytes of the coded picture; the whole file by default.
        """
        size = len(self.data) if coded is None else coded
        if width * height > self.max_pixels:
            raise PhotoTooLarge(
                f"{self.name} has {width} x {height} pixels, over the limit of {self.max_pixels:,}.",
                hint="Make the photo smaller, or read it in Python with read_photo(..., max_pixels=...).",
            )
        longer, shorter = max(width, height), max(min(width, height), 1)
        if longer > _LONG_SIDE and longer > _STRETCH * shorter:
            raise PhotoTooLarge(
                f"{self.name} has {width} x {height} pixels, a strip that no photo is.",
                hint="Cut it into parts of ordinary shape.",
            )
        if width * height > _UNSUSPICIOUS_PIXELS and width * height > _PIXELS_PER_BYTE * size:
            raise PhotoTooLarge(
                f"{self.name} declares {width} x {height} pixels in {size:,} bytes; no photo is coded in so few.",
                hint="It is a plain surface or made to exhaust the computer; save it again at a smaller size.",
            )


# A panorama is up to some twenty times as wide as high.
_LONG_SIDE, _STRETCH = 8000, 64
# A photo of a grey wall still has noise. 108 megapixels of a smooth drawing in WebP come to 550 pixels per byte.
_UNSUSPICIOUS_PIXELS, _PIXELS_PER_BYTE = 25_000_000, 800


@dataclass(frozen=True)
class Decoded:
    """A decoded file and the way back.

    Attributes:
        raster: Its samples.
        metadata: Everything else.
        encode: Writes a raster and metadata as a file coded like the source. It can be pickled.
    """

    raster: Raster
    metadata: Metadata
    encode: Callable[[Raster, Metadata], bytes]


_MODES: dict[str, tuple[Colour, str]] = {
    # Pillow's mode -> our colour model, and the mode that holds its samples
    "1": ("grey", "L"),
    "L": ("grey", "L"),
    "LA": ("grey", "LA"),
    "I;16": ("grey", "I;16"),
    "I;16B": ("grey", "I;16B"),
    "I;16L": ("grey", "I;16L"),
    "P": ("rgb", "RGB"),
    "PA": ("rgb", "RGBA"),
    "RGB": ("rgb", "RGB"),
    "RGBA": ("rgb", "RGBA"),
    "RGBX": ("rgb", "RGB"),
    "CMYK": ("cmyk", "CMYK"),
}

_pillow_globals = threading.Lock()


def open_with_pillow(
    source: Source, data: bytes, format_name: str, *, coded: int | None = None, checked: bool = False
) -> Image.Image:
    """Decodes ``data`` with one of Pillow's decoders, after the size check unless that was made before."""
    image = opened(BytesIO(data), [format_name])
    with _pillow_globals, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not checked:
            source.check_size(*image.size, coded)
        image.load()
    return image


def opened(file: BytesIO | Path, formats: list[str] | None = None) -> Image.Image:
    """A file opened by Pillow and not decoded yet, whatever its size."""
    with _pillow_globals, warnings.catch_warnings():
        # Pillow's own limit is global and lower than ours, and its warnings are of no use to our callers.
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def save_with_pillow(image: Image.Image, format_name: str, **options: object) -> bytes:
    """Encodes an image with one of Pillow's encoders."""
    buffer = BytesIO()
    with _pillow_globals:
        # libjpeg's optimised coding needs the whole result in one buffer; Pillow's guess fails on fine noise.
        block, ImageFile.MAXBLOCK = ImageFile.MAXBLOCK, 6 * image.width * image.height + 2**16
        try:
            image.save(buffer, format_name, **options)
        finally:
            ImageFile.MAXBLOCK = block
    return buffer.getvalue()


def raster_of(source: Source, image: Image.Image, orientation: int) -> Raster:
    """The samples of a Pillow image.

    Palettes and colour keys become RGB(A), bilevel becomes grey: none of them could hold a mask.
    """
    if image.mode not in _MODES:
        raise source.unsupported(f"a photo in the colour mode {image.mode}", hint="Save it as 8-bit RGB.")
    colour, mode = _MODES[image.mode]
    if "transparency" in image.info:
        mode = "LA" if colour == "grey" else "RGBA"
    shown = image if image.mode == mode else image.convert(mode)  # a copy costs as much as the picture
    return Raster(as_samples(np.asarray(shown)), colour, orientation)


def as_samples(array: Samples) -> Samples:
    """(H, W) or (H, W, C) in any byte order as native (H, W, C)."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native[..., None] if native.ndim == 2 else native


def as_image(raster: Raster) -> Image.Image:
    """The stored samples of an 8-bit raster as a Pillow image."""
    samples = raster.samples
    if raster.colour == "cmyk":
        return Image.frombytes("CMYK", samples.shape[1::-1], samples.tobytes())
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


_SAMPLED_PIXELS = 1_500_000
_BAND = 64  # rows; the height of a HEVC coding tree block and of four WebP macroblocks


def encode_near(
    size: int, overhead: int, raster: Raster, encode: Callable[[Raster, int], bytes], *, start: int
) -> bytes:
    """Encodes at the quality (1 to 100) that gives about the wanted size.

    Secant search on the logarithm of the size, at most four encodings, content within 5 %. A large photo is
    searched on evenly spaced bands of it and then encoded once. Our design.

    Args:
        size: Wanted size of the coded samples in bytes.
        overhead: Bytes of metadata that every encoding carries.
        raster: What is encoded.
        encode: Raster and quality to bytes; larger quality, larger result.
        start: The first quality to try.
    """
    height, width = raster.samples.shape[:2]
    spacing = max(1, height * width // _SAMPLED_PIXELS)
    rows = np.arange(height) // _BAND % spacing == 0
    sample = raster if spacing == 1 else replace(raster, samples=raster.samples[rows])
    target = size * rows.mean() + overhead
    low, high = 1, 100
    quality, doubling = start, 12.0  # about twelve steps of quality double the size
    tried: list[tuple[int, float, bytes]] = []
    for _ in range(4):
        encoded = encode(sample, quality)
        miss = log2(len(encoded) / target)
        if tried and abs(miss - tried[-1][1]) > 1e-3:
            doubling = min(max((quality - tried[-1][0]) / (miss - tried[-1][1]), 1.0), 60.0)
        tried.append((quality, miss, encoded))
        low, high = (quality + 1, high) if miss < 0 else (low, quality - 1)
        if abs(miss) < log2(1.05) or low > high:
            break
        quality = min(max(round(quality - miss * doubling), low), high)
    quality, _, encoded = min(tried, key=lambda trial: abs(trial[1]))
    return encoded if sample is raster else encode(raster, quality)
