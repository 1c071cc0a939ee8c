"""HEIC and HEIF through pillow-heif, at the quality that gives about the same file size.

libheif turns pixels upright as it decodes them, so the stored orientation is 1 from then on. Thumbnails,
depth maps and auxiliary images are not written back under any policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pillow_heif

from bauta.photo import codec
from bauta.photo.attachment import attach
from bauta.photo.cleaning import Removed
from bauta.photo.codec import Decoded, Source
from bauta.photo.metadata import Metadata
from bauta.photo.raster import Colour, Raster

_COLOURS: dict[str, Colour] = {"L": "grey", "I": "grey", "LA": "grey", "RGB": "rgb", "RGBA": "rgb"}
_EXIF = b"Exif\0\0"
# How to show the samples; these stay under every policy.
_COLOUR_INFO = (
    "bit_depth",
    "chroma",
    "nclx_profile",
    "icc_profile_type",
    "pixel_aspect_ratio",
    "content_light_level",
    "mastering_display_colour_volume",
    "ambient_viewing_environment",
    "nominal_diffuse_white_luminance",
)


@dataclass(frozen=True)
class _Coding:
    """How the source was coded.

    Attributes:
        mode: pillow-heif's mode of the samples.
        size: Bytes of the source without its metadata.
        options: What pillow-heif is told beside the quality.
    """

    mode: str
    size: int
    options: dict[str, Any] = field(repr=False)


def decode(source: Source) -> Decoded:
    """Reads a HEIF file that holds one picture. Ten and twelve bits are held as sixteen."""
    container = pillow_heif.open_heif(source.data, convert_hdr_to_8bit=False)
    if len(container) != 1 or container.mimetype.endswith("-sequence"):
        raise source.unsupported("a HEIF file with several pictures", hint="Export the one you want.")
    image = container[0]
    source.check_size(*image.size)
    model = image.mode.split(";")[0].replace("a", "A")
    if model not in _COLOURS:
        raise source.unsupported(f"a HEIF file in the mode {image.mode}", hint="Export it as JPEG.")
    info = image.info
    tiling = info.get("tiling") or {}
    pillow_heif.set_orientation(info)  # the pixels are upright already; EXIF and XMP must not turn them again
    metadata = Metadata(
        exif=(info.get("exif") or b"").removeprefix(_EXIF),
        xmp=info.get("xmp") or b"",
        icc=info.get("icc_profile") or b"",
        left=(Removed.PICTURE,) * (len(info.get("thumbnails") or ()) + len(info.get("depth_images") or ())),
    )
    raster = Raster(codec.as_samples(np.array(image)), _COLOURS[model])
    options = {key: info[key] for key in _COLOUR_INFO if info.get(key) is not None}
    options["tile_size"] = tiling.get("tile_width", 0)
    coded = attach(source.data, [])  # without what an earlier run attached
    size = len(coded) - len(metadata.exif) - len(metadata.xmp) - len(metadata.icc)
    return Decoded(raster, metadata, partial(_encode, _Coding(image.mode, size, options)))


def _encode(coding: _Coding, raster: Raster, metadata: Metadata) -> bytes:
    options = dict(coding.options)
    if metadata.exif:
        options["exif"] = _EXIF + metadata.exif
    if metadata.xmp:
        options["xmp"] = metadata.xmp
    if metadata.icc:
        options["icc_profile"] = metadata.icc

    def encode(part: Raster, quality: int) -> bytes:
        buffer = BytesIO()
        size = part.samples.shape[1::-1]
        pillow_heif.encode(
            coding.mode,
            size,
            part.samples.tobytes(),
            buffer,
            quality=quality,
            # libheif's default, slow, takes twice the time for the same quality at the same size (measured).
            enc_params={"preset": "fast"},
            **options,
        )
        return buffer.getvalue()

    overhead = len(metadata.exif) + len(metadata.xmp) + len(metadata.icc)
    return codec.encode_near(coding.size, overhead, raster, encode, start=70)
