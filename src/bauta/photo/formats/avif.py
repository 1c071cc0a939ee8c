"""AVIF through Pillow, at the quality that gives about the same file size.

Eight bits per sample in the usual colours only: the decoder makes eight bits of ten without a word, and forgets
how wide colours are meant, so such files are refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial

from bauta.photo import codec
from bauta.photo.attachment import attach
from bauta.photo.codec import Decoded, Source
from bauta.photo.formats.exif import orientation_of
from bauta.photo.metadata import Metadata
from bauta.photo.raster import Raster

_EXIF = b"Exif\0\0"
# Colour primaries and transfer functions (ITU-T H.273) that are shown as sRGB is: BT.709, BT.601, sRGB, unknown.
_USUAL_PRIMARIES = frozenset({1, 2, 5, 6})
_USUAL_TRANSFERS = frozenset({1, 2, 5, 6, 13})


@dataclass(frozen=True)
class _Coding:
    size: int
    subsampling: str


def decode(source: Source) -> Decoded:
    """Reads a still AVIF. Thumbnails, depth maps and gain maps are not written back under any policy."""
    data = attach(source.data, [])  # what an earlier run attached is not of the picture
    head = data[: 2**16]  # boxes that describe the picture come first
    hint = "Save it as an 8-bit AVIF, as HEIC, or as a 16-bit TIFF or PNG."
    depths = {_depth(configuration) for configuration in _boxes(head, b"av1C", 4)}
    if depths - {8}:
        raise source.unsupported(f"an AVIF with {max(depths)} bits per sample", hint=hint)
    for colour in _boxes(head, b"colr", 8):
        primaries, transfer = struct.unpack_from(">HH", colour, 4)
        usual = primaries in _USUAL_PRIMARIES and transfer in _USUAL_TRANSFERS
        if colour[:4] == b"nclx" and not usual:
            raise source.unsupported("an AVIF in wide colours or high dynamic range", hint=hint)
    image = codec.open_with_pillow(source, source.data, "AVIF")
    if getattr(image, "n_frames", 1) > 1:
        raise source.unsupported("an animated AVIF", hint="Save the frame you want as a still picture.")
    metadata = Metadata(
        exif=(image.info.get("exif") or b"").removeprefix(_EXIF),
        xmp=image.info.get("xmp") or b"",
        icc=image.info.get("icc_profile") or b"",
    )
    raster = codec.raster_of(source, image, orientation_of(metadata.exif))
    size = len(data) - len(metadata.exif) - len(metadata.xmp) - len(metadata.icc)
    return Decoded(raster, metadata, partial(_encode, _Coding(size, _subsampling(head))))


def _boxes(head: bytes, name: bytes, length: int) -> list[bytes]:
    """The first bytes of every box of a name, wherever it is."""
    found = []
    place = head.find(name)
    while place >= 0:
        content = head[place + 4 : place + 4 + length]
        if len(content) == length:
            found.append(content)
        place = head.find(name, place + 1)
    return found


def _depth(configuration: bytes) -> int:
    """Bits per sample, from an AV1 codec configuration record (AV1-ISOBMFF, 2.3.3)."""
    flags = configuration[2]
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _subsampling(head: bytes) -> str:
    configurations = _boxes(head, b"av1C", 4)
    flags = configurations[0][2] if configurations else 0x0C
    if flags & 0x10:
        return "4:0:0"
    return {0x0C: "4:2:0", 0x08: "4:2:2"}.get(flags & 0x0C, "4:4:4")


def _encode(coding: _Coding, raster: Raster, metadata: Metadata) -> bytes:
    def encode(part: Raster, quality: int) -> bytes:
        return codec.save_with_pillow(
            codec.as_image(part),
            "AVIF",
            quality=quality,
            subsampling=coding.subsampling,
            exif=_EXIF + metadata.exif if metadata.exif else b"",
            xmp=metadata.xmp,
            icc_profile=metadata.icc,
        )

    overhead = len(metadata.exif) + len(metadata.xmp) + len(metadata.icc)
    return codec.encode_near(coding.size, overhead, raster, encode, start=70)
