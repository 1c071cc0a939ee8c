"""PNG: pixels re-encoded without loss at 8 or 16 bits, metadata chunks spliced in."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from bauta.photo import codec
from bauta.photo.codec import Decoded, Source
from bauta.photo.formats.exif import orientation_of
from bauta.photo.metadata import Block, BlockKind, Metadata, is_picture_name, is_private_name
from bauta.photo.raster import Raster, Samples

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_COLOUR_CHUNKS = frozenset({b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"})
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
# These describe samples or palettes that the output no longer has.
_STALE_CHUNKS = frozenset({b"sBIT", b"bKGD", b"hIST", b"sPLT", b"acTL", b"fcTL", b"fdAT"})
_XMP_LIMIT = 16 * 2**20  # bytes after decompression


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    content: bytes

    def tobytes(self) -> bytes:
        checksum = zlib.crc32(self.content, zlib.crc32(self.name))
        return struct.pack(">I", len(self.content)) + self.name + self.content + struct.pack(">I", checksum)


def decode(source: Source) -> Decoded:
    """Reads a still PNG. Palettes and colour keys become RGB(A), 16-bit grey with alpha becomes RGBA."""
    chunks = _split(source)
    if any(chunk.name == b"acTL" and chunk.content[:4] > b"\0\0\0\1" for chunk in chunks):
        raise source.unsupported("an animated PNG", hint="Save the frame you want as a still picture.")
    if not chunks or chunks[0].name != b"IHDR" or len(chunks[0].content) != 13:
        raise source.unreadable("it has no PNG header")
    needed = [chunk for chunk in chunks if chunk.name in _PIXEL_CHUNKS]
    picture = SIGNATURE + b"".join(chunk.tobytes() for chunk in needed)
    metadata = _metadata(chunks)
    orientation = orientation_of(metadata.exif)
    # Pillow decodes sixteen-bit colour to eight bits; it still judges whether the file is sound.
    image = codec.open_with_pillow(source, picture, "PNG")
    if chunks[0].content[8] == 16:
        samples = _decode_16_bit(source, picture, needed)
        raster = Raster(samples, "grey" if samples.shape[2] == 1 else "rgb", orientation)
    else:
        raster = codec.raster_of(source, image, orientation)
    return Decoded(raster, metadata, _encode)


def _split(source: Source) -> list[_Chunk]:
    data, position = source.data, len(SIGNATURE)
    chunks = []
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        chunk = _Chunk(name, data[position + 8 : end - 4])
        position = end
        if chunk.tobytes()[-4:] == data[end - 4 : end]:
            chunks.append(chunk)
        elif name in _PIXEL_CHUNKS:  # other chunks can be spared when their checksum is wrong
            break
        if name == b"IEND":
            return chunks
    raise source.unreadable("its PNG data is cut off or corrupt")


def _decode_16_bit(source: Source, picture: bytes, chunks: list[_Chunk]) -> Samples:
    import cv2

    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise source.unreadable("its 16-bit data is corrupt")
    samples = codec.as_samples(decoded)
    key = next((chunk.content for chunk in chunks if chunk.name == b"tRNS"), None)
    if samples.shape[2] == 1:
        if key is None:
            return samples
        opacity = np.where(samples == int.from_bytes(key[:2], "big"), 0, 65535).astype(np.uint16)
        return np.concatenate([samples, samples, samples, opacity], axis=2)
    return _reverse_colours(samples)


def _reverse_colours(samples: Samples) -> Samples:
    """RGB(A) from OpenCV's BGR(A), and back."""
    return np.ascontiguousarray(samples[..., [2, 1, 0, 3][: samples.shape[2]]])


def _metadata(chunks: list[_Chunk]) -> Metadata:
    exif = xmp = b""
    blocks = []
    for chunk in chunks:
        if chunk.name in _PIXEL_CHUNKS or chunk.name in _STALE_CHUNKS:
            continue
        if chunk.name == b"eXIf":
            exif = exif or chunk.content.removeprefix(b"Exif\0\0")
        elif chunk.name == b"iTXt" and chunk.content.startswith(_XMP_KEYWORD + b"\0"):
            xmp = xmp or _xmp_of(chunk.content)
        else:
            blocks.append(Block(_kind_of(chunk), chunk.name, chunk.content))
    return Metadata(exif=exif, xmp=xmp, blocks=tuple(blocks))


def _kind_of(chunk: _Chunk) -> BlockKind:
    if chunk.name in _COLOUR_CHUNKS:
        return BlockKind.COLOUR
    if chunk.name in _TEXT_CHUNKS:
        keyword = chunk.content.split(b"\0", 1)[0].decode("latin-1")
        # ImageMagick's "Raw profile type exif" and kin hold whole metadata blocks, thumbnails included.
        if keyword.lower().startswith("raw profile") or is_picture_name(keyword):
            return BlockKind.PICTURE
        return BlockKind.MAKER if is_private_name(keyword) else BlockKind.DESCRIPTION
    if chunk.name in (b"pHYs", b"tIME"):
        return BlockKind.DESCRIPTION
    # An upper-case last letter asks to be dropped when the pixels change; caBX holds signed thumbnails.
    return BlockKind.MAKER if chunk.name[3:].islower() and chunk.name != b"caBX" else BlockKind.PICTURE


def _xmp_of(content: bytes) -> bytes:
    """The packet of an iTXt chunk: keyword, 0, compressed?, method, language, 0, translation, 0, text."""
    rest = content[len(_XMP_KEYWORD) + 1 :]
    pieces = rest[2:].split(b"\0", 2)
    if len(pieces) < 3:
        return b""
    if rest[0] == 0:
        return pieces[2]
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(pieces[2], _XMP_LIMIT)
    except zlib.error:
        return b""
    return text if inflater.eof else b""


def _encode(raster: Raster, metadata: Metadata) -> bytes:
    if raster.samples.dtype == np.uint16:
        picture = _encode_16_bit(raster.samples)
    else:
        picture = codec.save_with_pillow(codec.as_image(raster), "PNG")
    chunks = [_Chunk(block.name, block.content) for block in metadata.blocks]
    if metadata.exif:
        chunks.append(_Chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append(_Chunk(b"iTXt", _XMP_KEYWORD + bytes(5) + metadata.xmp))
    header_end = len(SIGNATURE) + 12 + 13
    return picture[:header_end] + b"".join(chunk.tobytes() for chunk in chunks) + picture[header_end:]


def _encode_16_bit(samples: Samples) -> bytes:
    import cv2

    colours = samples if samples.shape[2] == 1 else _reverse_colours(samples)
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
    done, encoded = cv2.imencode(".png", colours, options)
    if not done:
        raise OSError("OpenCV could not encode a 16-bit PNG")
    return bytes(encoded)
