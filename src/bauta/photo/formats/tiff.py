"""TIFF: the samples written anew in strips, the source's fields carried over around them.

Compressed sources come back with Deflate (the file size stays about the same or falls; of JPEG inside TIFF
it grows, because the result is lossless), uncompressed ones uncompressed. Offsets inside maker notes, which
only ``KEEP`` keeps, are not followed when the file is laid out anew.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import partial

import numpy as np

from bauta.photo import codec
from bauta.photo.attachment import FIELD, MARK
from bauta.photo.cleaning import Removed
from bauta.photo.codec import Decoded, Source
from bauta.photo.formats import exif
from bauta.photo.formats.exif import LONG, SHORT, UNDEFINED, ByteOrder, Directory, Entry, integer_entry
from bauta.photo.metadata import Metadata
from bauta.photo.raster import Colour, Raster, Samples

_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_SAMPLES, _ROWS_PER_STRIP, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT = 277, 278, 317, 322, 323
_PLANAR, _SUB_DIRECTORIES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 284, 330, 338, 339
_XMP, _IPTC, _PHOTOSHOP, _ICC, _DNG_VERSION = 700, 33723, 34377, 34675, 50706
_NONE, _DEFLATE, _HORIZONTAL = 1, 8, 2
_REDUCED = 1  # bit of _SUBFILE_TYPE: a smaller version of another picture in the file
_UNASSOCIATED = 2

# Fields that say how the samples are laid out; a decoder needs them, and the output gets its own.
_STRUCTURE = frozenset(
    {
        *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289),
        *(290, 291, 292, 293, 301, 317, 320, 321, 322, 323, 324, 325, 332, 333, 334, 336, 338, 339, 340, 341),
        *(347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
    }
)
_PHOTOMETRICS = {"grey": 1, "rgb": 2, "cmyk": 5}
_WHITE_IS_ZERO = 0
# Photometric interpretation and samples per pixel of 16-bit pictures that only `_decode_16_bit_interleaved` reads.
_WIDE: dict[tuple[int, int], Colour] = {(5, 4): "cmyk", (0, 2): "grey", (1, 2): "grey"}
_GREY_STRUCTURE = frozenset({254, 256, 257, 259, 262, 266, 273, 277, 278, 279, 322, 323, 324, 325})
_LOSSLESS = frozenset({_NONE, 5, _DEFLATE, 32773, 32946})  # with LZW and PackBits
_MOST_PIECES = 50_000  # 200 megapixels in tiles of 64 x 64
_STRIP_BYTES = 2**18


@dataclass(frozen=True)
class _Coding:
    order: ByteOrder
    compressed: bool
    extra_sample: int


def decode(source: Source) -> Decoded:
    """Reads a TIFF file with one full picture.

    Bilevel becomes grey, palettes RGB, premultiplied 8-bit alpha plain alpha, unnamed extra samples are left
    out. Sixteen-bit colour must be interleaved.
    """
    data = source.data
    order = exif.byte_order(data)
    directory = exif.read_directory(data)
    _refuse_other_kinds(source, directory, order)
    _refuse_bombs(source, directory, order)
    metadata = _metadata(directory, order)
    orientation = exif.orientation_of(metadata.exif)
    picture = _structure_alone(data, directory, order)
    bits = directory.first_integer(_BITS, order, 1)
    extra_sample = directory.first_integer(_EXTRA_SAMPLES, order, _UNASSOCIATED) if bits == 16 else _UNASSOCIATED
    wide = _WIDE.get((directory.first_integer(_PHOTOMETRIC, order, 1), directory.first_integer(_SAMPLES, order, 1)))
    if bits == 16 and wide is not None:
        raster = Raster(_decode_16_bit_interleaved(source, directory, order), wide, orientation)
    else:
        image = codec.open_with_pillow(source, picture, "TIFF")
        if bits == 16 and image.mode in ("RGB", "RGBA"):
            raster = Raster(_decode_16_bit_colour(source, picture), "rgb", orientation)
        else:
            raster = codec.raster_of(source, image, orientation)
    if bits == 16 and raster.samples.itemsize == 1:
        raise source.unsupported(f"a 16-bit TIFF in the colour mode {image.mode}", hint="Save it as 16-bit RGB.")
    if bits == 16 and directory.first_integer(_PHOTOMETRIC, order, 1) == _WHITE_IS_ZERO:
        samples = raster.samples.copy()
        samples[..., 0] = 65535 - samples[..., 0]  # Pillow inverts 8-bit samples only
        raster = Raster(samples, "grey", orientation)
    compressed = directory.first_integer(_COMPRESSION, order, _NONE) != _NONE
    return Decoded(raster, metadata, partial(_encode, _Coding(order, compressed, extra_sample)))


def _refuse_other_kinds(source: Source, directory: Directory, order: ByteOrder) -> None:
    reduced = directory.first_integer(_SUBFILE_TYPE, order, 0) & _REDUCED
    if directory.find(_DNG_VERSION) or (reduced and directory.find(_SUB_DIRECTORIES)):
        raise source.unsupported("a raw camera file", hint="Develop it to JPEG or TIFF first.")
    seen = {directory.offset}
    page = directory
    while page.following and page.following not in seen:
        seen.add(page.following)
        page = exif.read_directory(source.data, page.following)
        if not page.first_integer(_SUBFILE_TYPE, order, 0) & _REDUCED:
            raise source.unsupported("a TIFF with several pages", hint="Save the page you want by itself.")
    bits = directory.first_integer(_BITS, order, 1)
    if bits not in (1, 2, 4, 8, 16) or directory.first_integer(_SAMPLE_FORMAT, order, 1) != 1:
        raise source.unsupported(
            f"a TIFF with {bits}-bit, signed or floating-point samples", hint="Save it with 8 or 16 bits."
        )


def _refuse_bombs(source: Source, directory: Directory, order: ByteOrder) -> None:
    """Sizes and numbers of pieces that would take minutes to decode, by what the fields declare."""
    width, height = (directory.first_integer(tag, order, 0) for tag in (_WIDTH, _HEIGHT))
    if not width or not height:
        raise source.unreadable("it declares no size")
    source.check_size(width, height)
    tile = [directory.first_integer(tag, order, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT)]
    if any(tile):
        pieces = -(-width // max(tile[0], 1)) * -(-height // max(tile[1], 1))
    else:
        pieces = -(-height // max(directory.first_integer(_ROWS_PER_STRIP, order, height), 1))
    if pieces > _MOST_PIECES:
        raise source.unreadable(f"it is cut into {pieces:,} pieces, which no photo is")


def _decode_16_bit_interleaved(source: Source, directory: Directory, order: ByteOrder) -> Samples:
    """Sixteen-bit samples of colour models that no decoder at hand reads at their depth.

    The pieces of such a file are rows of numbers; a decoder that takes them for a grey picture of as many columns
    as there are samples in a row reads them as they are. The predictor (TIFF 6.0, section 14) is undone here,
    since it goes from pixel to pixel and not from sample to sample. Our design.
    """
    first = partial(directory.first_integer, order=order)
    channels, width = first(_SAMPLES, default=1), first(_WIDTH, default=0)
    predictor, tile_width = first(_PREDICTOR, default=1), first(_TILE_WIDTH, default=0)
    if first(_PLANAR, default=1) != 1 or first(_COMPRESSION, default=_NONE) not in _LOSSLESS or predictor > 2:
        raise source.unsupported(
            "a 16-bit TIFF of a rare layout", hint="Save it with interleaved channels and LZW or Deflate compression."
        )
    entries = {entry.tag: entry for entry in directory.entries if entry.tag in _GREY_STRUCTURE}
    replaced = {_WIDTH: width * channels, _BITS: 16, _PHOTOMETRIC: _PHOTOMETRICS["grey"], _SAMPLES: 1}
    if tile_width:
        replaced[_TILE_WIDTH] = tile_width * channels
    rows = {
        tag: source.data[entry.position : entry.position + 12] for tag, entry in entries.items() if tag not in replaced
    }
    for tag, value in replaced.items():
        rows[tag] = struct.pack(order + "HHII", tag, LONG, 1, value)
    picture = _with_table(source.data, directory, [rows[tag] for tag in sorted(rows)], order)
    samples = codec.as_samples(np.array(codec.open_with_pillow(source, picture, "TIFF", checked=True)))
    samples = samples.reshape(samples.shape[0], width, channels)
    if samples.dtype != np.uint16:
        raise source.unreadable("its 16-bit data cannot be decoded")
    if predictor == _HORIZONTAL:
        step = tile_width or width
        for left in range(0, width, step):
            piece = samples[:, left : left + step]
            np.cumsum(piece, axis=1, dtype=np.uint16, out=piece)
    return samples


def _structure_alone(data: bytes, directory: Directory, order: ByteOrder) -> bytes:
    """The file with a directory that tells a decoder nothing but the layout: no turning, no other page."""
    rows = [data[entry.position : entry.position + 12] for entry in directory.entries if entry.tag in _STRUCTURE]
    return _with_table(data, directory, rows, order)


def _with_table(data: bytes, directory: Directory, rows: list[bytes], order: ByteOrder) -> bytes:
    table = struct.pack(order + "H", len(rows)) + b"".join(rows) + bytes(4)
    return data[: directory.offset] + table + data[directory.offset + len(table) :]


def _metadata(directory: Directory, order: ByteOrder) -> Metadata:
    def content(tag: int) -> bytes:
        entry = directory.find(tag)
        return entry.value if entry else b""

    homeless = _STRUCTURE | {_XMP, _PHOTOSHOP, _IPTC, _ICC}
    if content(FIELD).startswith(MARK):  # of an earlier run; without the mark it is somebody else's
        homeless |= {FIELD}
    entries = [entry for entry in directory.entries if entry.tag not in homeless]
    block = exif.block_of(entries, directory.children, order) if entries else b""
    iptc = content(_IPTC)
    if iptc[:1] not in (b"", b"\x1c"):  # written as long words, in the order of their bytes
        words = len(iptc) // 4
        iptc = struct.pack(f">{words}I", *struct.unpack(f"<{words}I", iptc[: 4 * words]))
    return Metadata(
        exif=block,
        xmp=content(_XMP),
        photoshop=content(_PHOTOSHOP),
        iptc=iptc,
        icc=content(_ICC),
        left=(Removed.PICTURE,) * bool(directory.following),
    )


def _decode_16_bit_colour(source: Source, picture: bytes) -> Samples:
    import cv2

    if exif.read_directory(picture).first_integer(_PLANAR, exif.byte_order(picture), 1) != 1:
        raise source.unsupported("a 16-bit TIFF with one plane per colour", hint="Save it with interleaved channels.")
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise source.unreadable("its 16-bit data cannot be decoded")
    return np.ascontiguousarray(decoded[..., [2, 1, 0, 3][: decoded.shape[2]]])  # OpenCV's order is BGR(A)


def _encode(coding: _Coding, raster: Raster, metadata: Metadata) -> bytes:
    order, samples = coding.order, raster.samples
    height, width, channels = samples.shape
    rows = max(1, _STRIP_BYTES // samples[0].nbytes)
    strips = [_strip(samples[top : top + rows], coding) for top in range(0, height, rows)]
    starts = 8 + np.cumsum([0] + [len(strip) + len(strip) % 2 for strip in strips])
    entries = [
        integer_entry(256, LONG, [width], order),
        integer_entry(257, LONG, [height], order),
        integer_entry(_BITS, SHORT, [8 * samples.itemsize] * channels, order),
        integer_entry(_COMPRESSION, SHORT, [_DEFLATE if coding.compressed else _NONE], order),
        integer_entry(_PHOTOMETRIC, SHORT, [_PHOTOMETRICS[raster.colour]], order),
        integer_entry(273, LONG, starts[:-1].tolist(), order),
        integer_entry(277, SHORT, [channels], order),
        integer_entry(278, LONG, [rows], order),
        integer_entry(279, LONG, [len(strip) for strip in strips], order),
        integer_entry(_PLANAR, SHORT, [1], order),
    ]
    if coding.compressed:
        entries.append(integer_entry(317, SHORT, [_HORIZONTAL], order))
    if raster.has_alpha:
        entries.append(integer_entry(_EXTRA_SAMPLES, SHORT, [coding.extra_sample], order))
    children: dict[int, Directory] = {}
    if metadata.exif:
        described, order_of_block = exif.read_directory(metadata.exif), exif.byte_order(metadata.exif)
        if order_of_block == order:
            entries += described.entries
            children = described.children
        else:  # only what STRIP leaves, the orientation, comes in an order of its own
            turn = exif.orientation_of(metadata.exif)
            entries.append(integer_entry(exif.ORIENTATION, SHORT, [turn], order))
    for tag, content in (
        (_XMP, metadata.xmp),
        (_PHOTOSHOP, metadata.photoshop),
        (_IPTC, metadata.iptc),
        (_ICC, metadata.icc),
    ):
        if content:
            entries.append(Entry(tag, UNDEFINED, len(content), content))
    directory_start = int(starts[-1])
    body = b"".join(strip + bytes(len(strip) % 2) for strip in strips)
    return (
        exif.header(order, directory_start)
        + body
        + exif.serialise(Directory(tuple(entries), children), order, directory_start)
    )


def _strip(samples: Samples, coding: _Coding) -> bytes:
    if not coding.compressed:
        return samples.astype(samples.dtype.newbyteorder(coding.order)).tobytes()
    differences = samples.copy()
    differences[:, 1:] -= samples[:, :-1]  # horizontal predictor, modulo the depth (TIFF 6.0, section 14)
    return zlib.compress(differences.astype(samples.dtype.newbyteorder(coding.order)).tobytes(), 6)
