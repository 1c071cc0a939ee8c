"""Bytes of our own in the file of a photo: what its owner needs to take a mask off again.

JPEG carries them in APP15 segments, PNG in a private ancillary chunk that asks to be dropped when pixels change, WebP
in a chunk of its own. Programs and networks that save a photo anew leave them out. They come as sections, each of a
kind, so that several owners' can be in one file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

MARK = b"Bauta\0"
CHUNK, WEBP_CHUNK = b"baUT", b"BAUT"
"""What our segments of a JPEG begin with, and the names of our chunks of a PNG and a WebP file."""

_APP15 = b"\xff\xef"
_PNG = b"\x89PNG\r\n\x1a\n"

FORMATS = ("JPEG", "PNG", "WEBP")
"""Formats that can carry them."""

RECORDS, REGIONS = 1, 2
"""Kinds of sections: where masks are (`bauta.cloaking.restoring`), and what was there before
(`bauta.cloaking.erasing`)."""

LARGEST = 2**30
"""Bytes that fit, whatever the format."""

_SECTION = struct.Struct(">BI")
_JPEG_PIECE = 65_000

Section = tuple[int, bytes]
"""Its kind, and what it holds."""


def attach(content: bytes, sections: Sequence[Section]) -> bytes:
    """The file with sections, in place of those that it has; with none, without any.

    >>> attach(b"no photo", [(RECORDS, b"sealed")])
    Traceback (most recent call last):
    ValueError: 11 bytes cannot be attached to this file

    Args:
        content: Of a JPEG, PNG or WebP file that Bauta wrote.
        sections: In their order.

    Raises:
        ValueError: when the format carries none, or they are too long.
    """
    payload = b"".join(_SECTION.pack(kind, len(body)) + body for kind, body in sections)
    if len(payload) <= LARGEST:
        if content.startswith(b"\xff\xd8"):
            return _attach_jpeg(content, payload)
        if content.startswith(_PNG):
            kept = b"".join(piece for name, piece, _ in _png_chunks(content) if name not in (CHUNK, b"IEND"))
            checksum = struct.pack(">I", zlib.crc32(payload, zlib.crc32(CHUNK)))
            ours = struct.pack(">I", len(payload)) + CHUNK + payload + checksum if payload else b""
            return _PNG + kept + ours + struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            kept = b"".join(piece for name, piece, _ in _webp_chunks(content) if name != WEBP_CHUNK)
            ours = WEBP_CHUNK + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
            body = kept + (ours if payload else b"")
            return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    raise ValueError(f"{len(payload)} bytes cannot be attached to this file")


def attached(content: bytes) -> list[Section]:
    """The sections of a file; none where there are none, or the file is cut off or of another format."""
    if content.startswith(b"\xff\xd8"):
        ours = [piece[4 + len(MARK) :] for marker, piece in _jpeg_segments(content) if _is_ours(marker, piece)]
        found = [b"".join(ours)]
    elif content.startswith(_PNG):
        found = [payload for name, _, payload in _png_chunks(content) if name == CHUNK]
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        found = [payload for name, _, payload in _webp_chunks(content) if name == WEBP_CHUNK]
    else:
        found = []
    return _sections(found[0]) if len(found) == 1 else []


def _sections(payload: bytes) -> list[Section]:
    """The sections of a payload; none when it is not whole."""
    found, position = [], 0
    while position + _SECTION.size <= len(payload):
        kind, length = _SECTION.unpack_from(payload, position)
        position += _SECTION.size + length
        found.append((kind, payload[position - length : position]))
    return found if position == len(payload) else []


def _attach_jpeg(content: bytes, payload: bytes) -> bytes:
    segments = list(_jpeg_segments(content))
    rest = content[2 + sum(len(piece) for _, piece in segments) :]
    kept = [piece for marker, piece in segments if not _is_ours(marker, piece)]
    first = next((place for place, piece in enumerate(kept) if not 0xE0 <= piece[1] <= 0xEF), len(kept))
    pieces = [payload[at : at + _JPEG_PIECE] for at in range(0, len(payload), _JPEG_PIECE)]
    ours = b"".join(_APP15 + struct.pack(">H", 2 + len(MARK) + len(piece)) + MARK + piece for piece in pieces)
    return b"\xff\xd8" + b"".join([*kept[:first], ours, *kept[first:]]) + rest


def _is_ours(marker: bytes, piece: bytes) -> bool:
    return marker == _APP15 and piece[4:].startswith(MARK)


def _jpeg_segments(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Marker and whole segment, up to the first scan."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] not in (0xDA, 0xFF):
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if end > len(content):
            return
        yield content[position : position + 2], content[position:end]
        position = end


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, whole chunk and payload."""
    position = len(_PNG)
    while position + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if end > len(content):
            return
        yield name, content[position:end], content[position + 8 : end - 4]
        position = end


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, whole chunk and payload."""
    position = 12
    while position + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, position)
        end = position + 8 + length + length % 2
        if end > len(content):
            return
        yield name, content[position:end], content[position + 8 : position + 8 + length]
        position = end
