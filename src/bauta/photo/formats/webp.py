"""WebP: lossless stays lossless, lossy is encoded at the quality that gives about the same file size."""

from __future__ import annotations

import struct
from functools import partial

from bauta.photo import codec
from bauta.photo.codec import Decoded, Source
from bauta.photo.formats.exif import orientation_of
from bauta.photo.metadata import Metadata
from bauta.photo.raster import Raster

_PIXEL_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"ALPH"})


def decode(source: Source) -> Decoded:
    """Reads a still WebP. Chunks other than ICCP, EXIF and XMP are not kept under any policy."""
    chunks = _split(source)
    if b"ANIM" in chunks or b"ANMF" in chunks:
        raise source.unsupported("an animated WebP", hint="Save the frame you want as a still picture.")
    image = codec.open_with_pillow(source, source.data, "WEBP")
    metadata = Metadata(
        exif=chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0"),
        xmp=chunks.get(b"XMP ", b""),
        icc=chunks.get(b"ICCP", b""),
    )
    raster = codec.raster_of(source, image, orientation_of(metadata.exif))
    if b"VP8L" in chunks:
        return Decoded(raster, metadata, _encode_lossless)
    size = sum(len(content) for name, content in chunks.items() if name in _PIXEL_CHUNKS)
    return Decoded(raster, metadata, partial(_encode_lossy, size))


def _split(source: Source) -> dict[bytes, bytes]:
    """The first chunk of each name."""
    data, position = source.data, 12
    chunks: dict[bytes, bytes] = {}
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        if position + 8 + length > len(data):
            raise source.unreadable("its WebP data is cut off")
        chunks.setdefault(name, data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return chunks


def _encode_lossless(raster: Raster, metadata: Metadata) -> bytes:
    return _encode(raster, metadata, lossless=True, exact=True)


def _encode_lossy(size: int, raster: Raster, metadata: Metadata) -> bytes:
    def encode(part: Raster, quality: int) -> bytes:
        return _encode(part, metadata, quality=quality)

    overhead = len(metadata.exif) + len(metadata.xmp) + len(metadata.icc)
    return codec.encode_near(size, overhead, raster, encode, start=80)


def _encode(raster: Raster, metadata: Metadata, **options: object) -> bytes:
    image = codec.as_image(raster)
    return codec.save_with_pillow(
        image, "WEBP", exif=metadata.exif, xmp=metadata.xmp, icc_profile=metadata.icc, **options
    )
