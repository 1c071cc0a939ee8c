"""JPEG: pixels re-encoded with the source's tables, subsampling and scan order; metadata spliced in."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from PIL.JpegImagePlugin import JpegImageFile

from bauta.photo import codec
from bauta.photo.attachment import MARK
from bauta.photo.cleaning import Removed, decoded
from bauta.photo.codec import Decoded, Source
from bauta.photo.formats.exif import orientation_of
from bauta.photo.metadata import Block, BlockKind, Metadata
from bauta.photo.raster import Raster

_START = b"\xff\xd8"
_START_OF_SCAN, _COMMENT = 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP11, _APP13, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xEF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_PROGRESSIVE, _HUFFMAN_TABLES = 0xC2, 0xC4
_OTHER_FRAMES = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "a hierarchical JPEG"),
    0xF7: "a JPEG-LS",
}
_END = 0xD9
# A marker in coded data: 00 stands for FF itself, D0 to D7 are restarts, and FF fills.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Photos come in one scan, or in about ten; each costs a pass over all pixels, however few bytes it has.
_MOST_SCANS, _FEW_SCANS, _MOST_SCANNED_PIXELS = 100, 20, 1_000_000_000
_MOST_SEGMENTS = 2000
_LARGEST_SPLIT = 2048
# Bytes of the Huffman tables that the standard suggests (T.81, annex K.3), for one component and for more.
_STANDARD_TABLES = frozenset({208, 416})

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_ICC = b"ICC_PROFILE\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_FLIR = b"FLIR\0"
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

    CMYK stays CMYK; YCCK is written as CMYK, because no encoder at hand writes YCCK. A file whose last marker is
    missing is read when its picture is complete.
    """
    segments, first_scan = _split(source)
    frame = _frame_of(source, segments)
    scans = _scans(source, first_scan, frame)
    height, width = struct.unpack_from(">HH", frame.payload, 1)
    source.check_size(width, height, scans.end - first_scan)
    # The decoder sees what it needs to decode, and nothing else of a file that may be hostile.
    needed = _START + b"".join(segment.tobytes() for segment in segments if _shapes_pixels(segment))
    picture = source.data[first_scan : scans.end]
    if scans.ended:
        image = codec.open_with_pillow(source, needed + picture, "JPEG")
    else:
        image = _decode_without_end(source, needed + picture.rstrip(b"\xff"), scans, frame)
    metadata = _metadata(segments, source.data[scans.end :])
    raster = codec.raster_of(source, image, orientation_of(metadata.exif))
    adobe = next((s.payload for s in segments if s.marker == _APP14 and s.payload[:5] == _ADOBE), None)
    if raster.colour == "cmyk" and adobe is None:
        # Pillow takes every CMYK JPEG for inverted, as Adobe's are; this one is not. The output is Adobe's.
        raster = replace(raster, samples=255 - raster.samples)
    return Decoded(raster, metadata, partial(_encode, _coding(image, segments, frame, adobe)))


def _split(source: Source) -> tuple[list[_Segment], int]:
    """The segments before the first scan, and where that begins."""
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
            return segments, position
        (length,) = struct.unpack_from(">H", data, position + 2)
        end = position + 2 + length
        if length < 2 or end > len(data):
            break
        segments.append(_Segment(marker, data[position + 4 : end]))
        if len(segments) > _MOST_SEGMENTS:
            raise source.unreadable(f"it has more than {_MOST_SEGMENTS} segments, which no photo has")
        position = end
    raise source.unreadable("it ends before the picture begins")


def _frame_of(source: Source, segments: list[_Segment]) -> _Segment:
    """The frame header, of a coding and a size that can be decoded."""
    frame = next((segment for segment in segments if segment.marker in _FRAMES), None)
    if frame is None or len(frame.payload) < 6:
        raise source.unreadable("it has no JPEG frame header")
    hint = "Save it as an ordinary JPEG, or as PNG or TIFF."
    kind = _OTHER_FRAMES.get(frame.marker)
    if kind is not None:
        raise source.unsupported(kind, hint=hint)
    precision, height, width, components = struct.unpack_from(">BHHB", frame.payload)
    if precision != 8:
        raise source.unsupported(f"a JPEG with {precision} bits per sample", hint=hint)
    if components not in (1, 3, 4):
        raise source.unsupported(f"a JPEG with {components} colour components", hint=hint)
    source.check_size(width, height)
    return frame


@dataclass(frozen=True)
class _Scans:
    """The coded picture.

    Attributes:
        end: Where it ends.
        ended: Whether the file says so, as it must.
        headers: The payload of each scan's header.
    """

    end: int
    ended: bool
    headers: tuple[bytes, ...]


def _scans(source: Source, start: int, frame: _Segment) -> _Scans:
    """Walks from scan to scan. Raises UnreadablePhoto when there are more than any photo has."""
    data, position = source.data, start
    headers: list[bytes] = []
    height, width = struct.unpack_from(">HH", frame.payload, 1)
    most = min(_MOST_SCANS, max(_FEW_SCANS, _MOST_SCANNED_PIXELS // max(height * width, 1)))
    segments = 0
    while position + 4 <= len(data):
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker == _START_OF_SCAN:
            headers.append(data[position + 4 : position + 2 + length])
        segments += 1
        if len(headers) > most or segments > _MOST_SEGMENTS:
            raise source.unreadable("its picture comes in more scans than that of any photo")
        position += 2 + length
        following = _MARKER.search(data, position)
        if following is None:
            break
        position = following.start()
        if data[position + 1] == _END:
            return _Scans(position + 2, True, tuple(headers))
    return _Scans(len(data), False, tuple(headers))


def _decode_without_end(source: Source, data: bytes, scans: _Scans, frame: _Segment) -> JpegImageFile:
    """A picture whose end marker is missing, when nothing else is.

    Bits that follow a complete picture change nothing; where some are missing, they are taken for them. So two
    different continuations decode to the same picture only if it is complete. Our design.
    """
    ways = [codec.open_with_pillow(source, data + more + b"\xff\xd9", "JPEG") for more in (b"", b"\x5a\xa5" * 40)]
    if not _covers_everything(scans, frame) or ways[0].tobytes() != ways[1].tobytes():
        raise source.unreadable("it is cut off")
    image = ways[0]
    assert isinstance(image, JpegImageFile)
    return image


def _covers_everything(scans: _Scans, frame: _Segment) -> bool:
    """Whether a progressive picture has come to its last bits, in every component."""
    if frame.marker != _PROGRESSIVE:
        return True
    finished: dict[int, set[int]] = {}
    for header in scans.headers:
        count = header[0] if header else 0
        if len(header) < 2 * count + 4:
            return False
        first, last, bits = header[1 + 2 * count : 4 + 2 * count]
        if bits & 0x0F == 0:
            for component in header[1 : 1 + 2 * count : 2]:
                finished.setdefault(component, set()).update(range(first, last + 1))
    names = frame.payload[6 : 6 + 3 * frame.payload[5] : 3]
    return all(finished.get(name) == set(range(64)) for name in names)


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


def _metadata(segments: list[_Segment], rest: bytes) -> Metadata:
    exif = xmp = photoshop = b""
    profile: dict[int, bytes] = {}
    blocks = []
    left = [Removed.FILM] if rest.strip(b"\0") else []
    for segment in segments:
        marker, payload = segment.marker, segment.payload
        if marker == _APP1 and payload.startswith(_EXIF) and not exif:
            exif = payload[len(_EXIF) :]
        elif marker == _APP1 and payload.startswith(_XMP) and not xmp:
            xmp = payload[len(_XMP) :]
        elif marker == _APP2 and payload.startswith(_ICC):
            profile.setdefault(int.from_bytes(payload[len(_ICC) : len(_ICC) + 1], "big"), payload)
        elif marker == _APP13 and payload.startswith(_PHOTOSHOP):
            photoshop += payload[len(_PHOTOSHOP) :]
        else:
            block = _block_of(segment)
            if block is not None:
                blocks.append(block)
            if marker == _APP0 and payload.startswith(_JFIF) and payload[12:].strip(b"\0"):
                left.append(Removed.PICTURE)  # its thumbnail
    icc = _joined(profile)
    if profile and not icc:
        left.append(Removed.UNREADABLE)
    return Metadata(
        exif=exif,
        xmp=xmp,
        photoshop=photoshop,
        icc=icc,
        blocks=tuple(_without_split_blocks(blocks)),
        left=tuple(left),
    )


def _block_of(segment: _Segment) -> Block | None:
    """A segment that is none of the usual ones, and what becomes of it."""
    marker, payload = segment.marker, segment.payload
    name = bytes([marker])
    if marker == _APP0 and payload.startswith(_JFIF):
        return Block(BlockKind.DESCRIPTION, name, payload[:12].ljust(12, b"\0") + bytes(2))  # no thumbnail
    if marker == _COMMENT:
        return Block(BlockKind.TEXT, name, payload, decoded(payload))
    if (marker == _APP14 and payload.startswith(_ADOBE)) or not _APP0 <= marker <= _APP15:
        return None
    if marker == _APP15 and payload.startswith(MARK):  # of an earlier run, which seals anew what is still wanted
        return None
    # Thumbnails; extended XMP, where phones put depth maps and the original; MPF and FlashPix; provenance, which
    # has thumbnails and is signed for other pixels; an infrared camera's second picture.
    pictures = marker in (_APP0, _APP2, _APP11) or payload.startswith((_EXTENDED_XMP, _FLIR, _EXIF, _XMP))
    if pictures:
        return Block(BlockKind.PICTURE, name, payload, reason=Removed.PICTURE)
    return Block(BlockKind.MAKER, name, payload, reason=Removed.DEVICE)


def _without_split_blocks(blocks: list[Block]) -> Iterator[Block]:
    """Blocks of unknown make that go on from segment to segment never stay.

    They are large enough for a picture, and which of their bytes belong together only their makers know.
    """
    sizes: dict[bytes, list[int]] = {}
    for block in blocks:
        if block.kind is BlockKind.MAKER:
            sizes.setdefault(block.name, []).append(len(block.content))
    for block in blocks:
        parts = sizes.get(block.name, [])
        split = block.kind is BlockKind.MAKER and len(parts) > 1 and sum(parts) > _LARGEST_SPLIT
        yield replace(block, kind=BlockKind.PICTURE) if split else block


def _joined(profile: dict[int, bytes]) -> bytes:
    """A colour profile from its numbered segments; nothing when one is missing."""
    head = len(_ICC) + 2
    count = len(profile)
    complete = all(len(profile.get(number, b"")) >= head for number in range(1, count + 1))
    if not profile or not complete or profile[1][head - 1] != count:
        return b""
    return b"".join(profile[number][head:] for number in range(1, count + 1))


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
    segments, first_scan = _split(Source("the encoded photo", encoded, max_pixels=0))
    own = _segments(metadata)
    if own and own[0].marker == _APP0:  # the source's density instead of the encoder's
        segments = [segment for segment in segments if segment.marker != _APP0]
    first = [segment for segment in segments if segment.marker == _APP0]
    rest = [segment for segment in segments if segment.marker != _APP0]
    return _START + b"".join(segment.tobytes() for segment in first + own + rest) + encoded[first_scan:]


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
    step = _LARGEST_PAYLOAD - len(_ICC) - 2
    starts = range(0, len(metadata.icc), step)
    own.extend(
        _Segment(_APP2, _ICC + bytes([number, len(starts)]) + metadata.icc[position : position + step])
        for number, position in enumerate(starts, 1)
    )
    everything = jfif + own + [segment for segment in blocks if segment.marker != _APP0]
    return [segment for segment in everything if len(segment.payload) <= _LARGEST_PAYLOAD]
