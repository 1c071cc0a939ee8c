"""PNG: pixels re-encoded without loss at 8 or 16 bits, metadata chunks spliced in."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from bauta.photo import codec
from bauta.photo.attachment import CHUNK
from bauta.photo.cleaning import Removed, decoded, words
from bauta.photo.codec import Decoded, Source
from bauta.photo.formats.exif import orientation_of
from bauta.photo.metadata import Block, BlockKind, Metadata
from bauta.photo.raster import Raster, Samples
from bauta.photo.xmp import is_picture_name

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = "XML:com.adobe.xmp"
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_COLOUR_SIZES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"mDCV": 24, b"mDCv": 24, b"cLLI": 8, b"cLLi": 8}
_PLAIN_SIZES = {b"pHYs": 9, b"tIME": 7}
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
# These describe samples or palettes that the output no longer has.
_STALE_CHUNKS = frozenset({b"sBIT", b"bKGD", b"hIST", b"sPLT", b"acTL", b"fcTL", b"fdAT"})
# Signed thumbnails; the layers and sources of Fireworks, whose pixels no signature tells.
_PICTURE_CHUNKS = frozenset({b"caBX", b"prVW", b"mkBF", b"mkBS", b"mkBT", b"mkTS", b"orNT", b"iDOT"})
_LARGEST_PROFILE, _MOST_TEXT = 16 * 2**20, 4 * 2**20  # bytes, unpacked; of all texts together
_LONGEST_KEYWORD = 79  # PNG, 11.3.3; and of tags of languages
_MOST_CHUNKS, _MOST_OTHER_CHUNKS = 100_000, 2_000

# Keywords of the PNG specification and of Pillow's and ImageMagick's dates, whose texts are for people.
_CAPTIONS = words("title description comment copyright disclaimer warning software") | {
    *("creation time", "date:create", "date:modify", "date:timestamp"),
}
_SCENES = (
    "application/",
    "mxfile",
    "mxgraphmodel",
    "excalidraw",
    "tldraw",
    "drawio",
    "snagit",
    "svg",
    "scene",
)
_KEYWORDS = (
    (("parameters", "prompt", "workflow", "dream", "sd-metadata", "invokeai", "generation"), Removed.PROMPT),
    (("gps", "latitude", "longitude", "altitude", "location", "city", "country"), Removed.PLACE),
    (("serial", "makernote"), Removed.DEVICE),
    (("author", "artist", "owner", "creator"), Removed.OWNER),
    (("uri", "url", "source", "document", "uuid"), Removed.LINK),
)


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
    coded = sum(len(chunk.content) for chunk in chunks if chunk.name == b"IDAT")
    width, height = struct.unpack_from(">II", chunks[0].content)
    source.check_size(width, height, coded)
    needed = [chunk for chunk in chunks if chunk.name in _PIXEL_CHUNKS]
    picture = SIGNATURE + b"".join(chunk.tobytes() for chunk in needed)
    end = len(SIGNATURE) + sum(12 + len(chunk.content) for chunk in chunks)
    if len(chunks) - len(needed) > _MOST_OTHER_CHUNKS:
        raise source.unreadable(f"it has more than {_MOST_OTHER_CHUNKS:,} chunks of metadata, which no photo has")
    metadata = _metadata(chunks, source.data[end:])
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
    chunks: list[_Chunk] = []
    while position + 12 <= len(data):
        if len(chunks) > _MOST_CHUNKS:
            raise source.unreadable(f"it has more than {_MOST_CHUNKS:,} chunks, which no photo has")
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


def _metadata(chunks: list[_Chunk], rest: bytes) -> Metadata:
    exif = xmp = icc = b""
    blocks = []
    left = [Removed.FILM] if rest.strip(b"\0") else []
    room = _MOST_TEXT
    for chunk in chunks:
        if chunk.name in _PIXEL_CHUNKS or chunk.name in _STALE_CHUNKS or chunk.name == CHUNK:
            continue
        if chunk.name == b"eXIf":
            exif = exif or chunk.content.removeprefix(b"Exif\0\0")
        elif chunk.name == b"iCCP":
            icc = icc or _unpacked(chunk.content.partition(b"\0")[2][1:], _LARGEST_PROFILE)
            if not icc:
                left.append(Removed.UNREADABLE)
        elif chunk.name in _TEXT_CHUNKS:
            keyword, text = _text_of(chunk, room)
            room -= _MOST_TEXT // 16 if text is None else len(text)
            if keyword == _XMP_KEYWORD and not xmp:
                xmp = text.encode() if isinstance(text, str) else b""
            else:
                blocks.append(_text_block(chunk, keyword, text))
        else:
            blocks.append(Block(*_kind_of(chunk), reason=_reason_of(chunk)))
    return Metadata(exif=exif, xmp=xmp, icc=icc, blocks=tuple(blocks), left=tuple(left))


def _kind_of(chunk: _Chunk) -> tuple[BlockKind, bytes, bytes]:
    kind = BlockKind.PICTURE
    if chunk.name in _COLOUR_SIZES:
        kind = BlockKind.COLOUR if len(chunk.content) == _COLOUR_SIZES[chunk.name] else BlockKind.PICTURE
    elif chunk.name in _PLAIN_SIZES:
        kind = BlockKind.DESCRIPTION if len(chunk.content) == _PLAIN_SIZES[chunk.name] else BlockKind.PICTURE
    elif chunk.name[3:].islower() and chunk.name not in _PICTURE_CHUNKS:
        # An upper-case last letter asks to be dropped when the pixels change.
        kind = BlockKind.MAKER
    return kind, chunk.name, chunk.content


def _reason_of(chunk: _Chunk) -> Removed:
    return Removed.PICTURE if chunk.name in _PICTURE_CHUNKS else Removed.OTHER


def _text_block(chunk: _Chunk, keyword: str, text: str | None) -> Block:
    """A text by its keyword: known ones are captions, unknown ones a program's own."""
    lowered = keyword.lower()
    if text is None:  # cannot be read, so it cannot be looked through
        return Block(BlockKind.PICTURE, chunk.name, chunk.content, reason=Removed.UNREADABLE)
    # ImageMagick's "Raw profile type exif" and kin hold whole metadata blocks, thumbnails included; a drawing
    # program's scene and its libraries hold every picture that was pasted into it.
    if lowered.startswith(("raw profile", "xml:com.adobe.xmp", *_SCENES)) or is_picture_name(keyword):
        return Block(BlockKind.PICTURE, chunk.name, chunk.content, text, Removed.PICTURE)
    if lowered in _CAPTIONS:
        return Block(BlockKind.TEXT, chunk.name, chunk.content, text)
    reason = next((kind for words, kind in _KEYWORDS if any(word in lowered for word in words)), Removed.OTHER)
    return Block(BlockKind.MAKER, chunk.name, chunk.content, text or " ", reason)


def _text_of(chunk: _Chunk, room: int) -> tuple[str, str | None]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk; None for a text that cannot be unpacked or decoded, or is longer
    than there is room for."""
    head, _, rest = chunk.content.partition(b"\0")
    keyword = head.decode("latin-1")
    if len(head) > _LONGEST_KEYWORD:
        return keyword[:_LONGEST_KEYWORD], None
    if chunk.name == b"tEXt":
        # Programs put UTF-8 here too, though the standard says Latin-1.
        return keyword, decoded(rest)
    if chunk.name == b"zTXt":
        packed = _unpacked(rest[1:], room)
        return keyword, decoded(packed) if packed or len(rest) < 12 else None
    pieces = rest[2:].split(b"\0", 2)  # iTXt: compressed?, method, language, 0, translated keyword, 0, text
    if len(pieces) < 3 or len(pieces[0]) > _LONGEST_KEYWORD:
        return keyword, None
    text = _unpacked(pieces[2], room) if rest[0] else pieces[2]
    try:
        return keyword, "\n".join(filter(None, (pieces[1].decode(), text.decode())))
    except UnicodeDecodeError:
        return keyword, None


def _unpacked(data: bytes, room: int) -> bytes:
    """A Deflate stream, all of it; nothing when it is broken, has something behind it, or is too long."""
    try:
        inflater = zlib.decompressobj()
        content = inflater.decompress(data, max(room, 1))
    except zlib.error:
        return b""
    return content if inflater.eof and not inflater.unused_data else b""


def _encode(raster: Raster, metadata: Metadata) -> bytes:
    if raster.samples.dtype == np.uint16:
        picture = _encode_16_bit(raster.samples)
    else:
        picture = codec.save_with_pillow(codec.as_image(raster), "PNG")
    chunks = [_Chunk(block.name, block.content) for block in metadata.blocks]
    if metadata.exif:
        chunks.append(_Chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append(_Chunk(b"iTXt", _XMP_KEYWORD.encode() + bytes(5) + metadata.xmp))
    if metadata.icc:
        chunks.append(_Chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
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
