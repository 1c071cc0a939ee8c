"""WebP: lossless stays lossless, lossy is encoded at the quality that gives about the same file size."""

from __future__ import annotations

import struct
from functools import partial

from bauta.photo import codec
from bauta.photo.attachment import WEBP_CHUNK
from bauta.photo.cleaning import Removed
from bauta.photo.codec import Decoded, Source
from bauta.photo.formats.exif import orientation_of
from bauta.photo.metadata import Metadata
from bauta.photo.raster import Raster

_MOST_CHUNKS = 1000
_PIXEL_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"ALPH"})


def decode(source: Source) -> Decoded:
    """Reads a still WebP. Chunks other than ICCP, EXIF and XMP are not kept under any policy."""
    end, chunks = _split(source)
    if b"ANIM" in chunks or b"ANMF" in chunks:
        raise source.unsupported("an animated WebP", hint="Save the frame you want as a still picture.")
    size = sum(len(content) for name, content in chunks.items() if name in _PIXEL_CHUNKS)
    image = codec.open_with_pillow(source, source.data[:end] + bytes(end % 2), "WEBP", coded=size)
    unknown = len(chunks.keys() - _PIXEL_CHUNKS - {b"ICCP", b"EXIF", b"XMP ", b"VP8X", WEBP_CHUNK})
    metadata = Metadata(
        exif=chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0"),
        xmp=chunks.get(b"XMP ", b""),
        icc=chunks.get(b"ICCP", b""),
        left=(Removed.OTHER,) * unknown + (Removed.FILM,) * bool(source.data[end:].strip(b"\0")),
    )
    raster = codec.raster_of(source, image, orientation_of(metadata.exif))
    if b"VP8L" in chunks:
        return Decoded(raster, metadata, _encode_lossless)
    return Decoded(raster, metadata, partial(_encode_lossy, size))


def _split(source: Source) -> tuple[int, dict[bytes, bytes]]:
    """Where the RIFF container ends, and the first chunk of each name; what stands behind is not part of it."""
    data, position = source.data, 12
    (size,) = struct.unpack_from("<I", data, 4)
    if 8 + size > len(data) + 1:  # some leave out the last byte, which only makes the size even
        raise source.unreadable("its WebP data is cut off")
    end = min(8 + size, len(data))
    chunks: dict[bytes, bytes] = {}
    count = 0
    while position + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, position)
        count += 1
        if position + 8 + length > end or count > _MOST_CHUNKS:
            raise source.unreadable("its WebP data is cut off or corrupt")
        chunks.setdefault(name, data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return min(end + end % 2, len(data)), chunks


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
