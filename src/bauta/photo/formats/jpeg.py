"""JPEG: pixels re-encoded with the source's tables, subsampling and scan order; metadata spliced in."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import partial

from PIL.JpegImagePlugin import JpegImageFile

from bauta.photo import codec
from bauta.photo.codec import Decoded, Source
from bauta.photo.formats.exif import orientation_of
from bauta.photo.metadata import Block, BlockKind, Metadata
from bauta.photo.raster import Raster

_START = b"\xff\xd8"
_START_OF_SCAN, _COMMENT = 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP11, _APP13, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xEF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _HUFFMAN_TABLES = 0xC2, 0xC4
# Bytes of the Huffman tables that the standard suggests (T.81, annex K.3), for one component and for more.
_STANDARD_TABLES = frozenset({208, 416})

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_ICC = b"ICC_PROFILE\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_JFIF, _ADOBE = b"JFIF\0", b"Adobe"
_LARGEST_PAYLOAD = 65533

# (horizontal, vertical) sampling of luminance over chroma -> Pillow's number of the subsampling
_SUBSAMPLING = {(1, 1): 0, (2, 1): 1, (2, 2): 2}


@dataclass(frozen=True)
class _Coding:
    """How the source was coded; what libjpeg cannot repeat is replaced by its nearest."""

    tables: tuple[tuple[int, ...], ...]
    subsampling: int
    progressive: bool
    optimised: bool
    keep_rgb: bool


@dataclass(frozen=True)
class _Segment:
    marker: int
    payload: bytes

    def tobytes(self) -> bytes:
        return struct.pack(">BBH", 0xFF, self.marker, len(self.payload) + 2) + self.payload


def decode(source: Source) -> Decoded:
    """Reads a JPEG file; of a file with several pictures (MPO) the first.

    CMYK stays CMYK; YCCK is written as CMYK, because no encoder at hand writes YCCK.
    """
    segments, scans = _split(source)
    frame = next((segment for segment in segments if segment.marker in _FRAMES), None)
    if frame is None or len(frame.payload) < 6:
        raise source.unreadable("it has no JPEG frame header")
    # The decoder sees what it needs to decode, and nothing else of a file that may be hostile.
    needed = b"".join(segment.tobytes() for segment in segments if _shapes_pixels(segment))
    image = codec.open_with_pillow(source, _START + needed + scans, "JPEG")
    metadata = _metadata(segments)
    raster = codec.raster_of(source, image, orientation_of(metadata.exif))
    adobe = next((s.payload for s in segments if s.marker == _APP14 and s.payload[:5] == _ADOBE), None)
    if raster.colour == "cmyk" and adobe is None:
        # Pillow takes every CMYK JPEG for inverted, as Adobe's are; this one is not. The output is Adobe's.
        raster = replace(raster, samples=255 - raster.samples)
    return Decoded(raster, metadata, partial(_encode, _coding(image, segments, frame, adobe)))


def _split(source: Source) -> tuple[list[_Segment], bytes]:
    """The segments before the first scan, and the rest of the file."""
    data, position = source.data, len(_START)
    segments: list[_Segment] = []
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF:
            raise source.unreadable("its JPEG segments are broken")
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == _START_OF_SCAN:
            return segments, data[position:]
        (length,) = struct.unpack_from(">H", data, position + 2)
        end = position + 2 + length
        if length < 2 or end > len(data):
            break
        segments.append(_Segment(marker, data[position + 4 : end]))
        position = end
    raise source.unreadable("it ends before the picture begins")


def _shapes_pixels(segment: _Segment) -> bool:
    if segment.marker in (_APP0, _APP14):
        return segment.payload.startswith((_JFIF, _ADOBE))
    return not (_APP0 <= segment.marker <= _APP15 or segment.marker == _COMMENT)


def _coding(image: object, segments: list[_Segment], frame: _Segment, adobe: bytes | None) -> _Coding:
    assert isinstance(image, JpegImageFile)
    rows = [frame.payload[6 + 3 * index : 9 + 3 * index] for index in range(frame.payload[5])]
    tables = [tuple(image.quantization[row[2]]) for row in rows]
    while len(tables) > 1 and tables[-1] == tables[-2]:  # the encoder repeats the last table itself
        tables.pop()
    subsampling = -1
    keep_rgb = False
    if len(rows) == 3:
        (wide, high), (chroma_wide, chroma_high) = (divmod(row[1], 16) for row in rows[:2])
        ratio = wide // max(chroma_wide, 1), high // max(chroma_high, 1)
        subsampling = _SUBSAMPLING.get(ratio, 1 if ratio == (1, 2) else 2)
        unmarked_rgb = bytes(row[0] for row in rows) == b"RGB" and "jfif" not in image.info
        keep_rgb = adobe[11:12] == b"\0" if adobe else unmarked_rgb
    huffman = sum(len(segment.payload) for segment in segments if segment.marker == _HUFFMAN_TABLES)
    return _Coding(
        tables=tuple(tables),
        subsampling=subsampling,
        progressive=frame.marker == _PROGRESSIVE,
        optimised=huffman not in _STANDARD_TABLES,
        keep_rgb=keep_rgb,
    )


def _metadata(segments: list[_Segment]) -> Metadata:
    exif = xmp = photoshop = b""
    blocks = []
    for segment in segments:
        marker, payload = segment.marker, segment.payload
        kind = None
        if marker == _APP0:
            if payload.startswith(_JFIF):
                kind, payload = BlockKind.DESCRIPTION, payload[:12] + bytes(2)  # without its thumbnail
        elif marker == _APP1 and payload.startswith(_EXIF):
            exif = exif or payload[len(_EXIF) :]
        elif marker == _APP1 and payload.startswith(_XMP):
            xmp = xmp or payload[len(_XMP) :]
        elif marker == _APP1 and payload.startswith(_EXTENDED_XMP):
            kind = BlockKind.PICTURE  # this is where phones put depth maps and the original
        elif marker == _APP2:
            kind = BlockKind.COLOUR if payload.startswith(_ICC) else BlockKind.PICTURE  # MPF, FlashPix
        elif marker == _APP11:
            kind = BlockKind.PICTURE  # JUMBF: provenance with thumbnails, signed for other pixels
        elif marker == _APP13 and payload.startswith(_PHOTOSHOP):
            photoshop += payload[len(_PHOTOSHOP) :]
        elif marker == _COMMENT:
            kind = BlockKind.DESCRIPTION
        elif _APP0 < marker <= _APP15 and not (marker == _APP14 and payload.startswith(_ADOBE)):
            kind = BlockKind.MAKER
        if kind is not None:
            blocks.append(Block(kind, bytes([marker]), payload))
    return Metadata(exif=exif, xmp=xmp, photoshop=photoshop, blocks=tuple(blocks))


def _encode(coding: _Coding, raster: Raster, metadata: Metadata) -> bytes:
    encoded = codec.save_with_pillow(
        codec.as_image(raster),
        "JPEG",
        qtables=[list(table) for table in coding.tables],
        subsampling=coding.subsampling,
        keep_rgb=coding.keep_rgb,
        progressive=coding.progressive,
        optimize=coding.optimised,
    )
    segments, scans = _split(Source("the encoded photo", encoded, max_pixels=0))
    own = _segments(metadata)
    if own and own[0].marker == _APP0:  # the source's density instead of the encoder's
        segments = [segment for segment in segments if segment.marker != _APP0]
    first = [segment for segment in segments if segment.marker == _APP0]
    rest = [segment for segment in segments if segment.marker != _APP0]
    return _START + b"".join(segment.tobytes() for segment in first + own + rest) + scans


def _segments(metadata: Metadata) -> list[_Segment]:
    """The metadata in the order of the standards: JFIF, EXIF, XMP, Photoshop, the rest."""
    blocks = [_Segment(block.name[0], block.content) for block in metadata.blocks]
    jfif = [segment for segment in blocks if segment.marker == _APP0][:1]
    own = []
    if metadata.exif:
        own.append(_Segment(_APP1, _EXIF + metadata.exif))
    if metadata.xmp:
        own.append(_Segment(_APP1, _XMP + metadata.xmp))
    step = _LARGEST_PAYLOAD - len(_PHOTOSHOP)
    own.extend(
        _Segment(_APP13, _PHOTOSHOP + metadata.photoshop[position : position + step])
        for position in range(0, len(metadata.photoshop), step)
    )
    everything = jfif + own + [segment for segment in blocks if segment.marker != _APP0]
    return [segment for segment in everything if len(segment.payload) <= _LARGEST_PAYLOAD]
