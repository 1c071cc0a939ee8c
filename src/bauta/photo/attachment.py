"""A few bytes of our own in the file of a photo: what its owner needs to take a mask off again.

JPEG carries them in an APP15 segment, PNG in a private ancillary chunk that asks to be dropped when pixels change, WebP
in a chunk of its own. Programs and networks that save a photo anew leave them out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_MARK = b"Bauta\0"
_APP15 = b"\xff\xef"
_CHUNK, _WEBP_CHUNK = b"baUT", b"BAUT"
_PNG = b"\x89PNG\r\n\x1a\n"

FORMATS = ("JPEG", "PNG", "WEBP")
"""Formats that can carry them."""

LARGEST = 65_000
"""Bytes that fit, whatever the format."""


def attach(content: bytes, payload: bytes) -> bytes:
    """The file with a payload, in place of one that it has.

    >>> attach(b"no photo", b"payload")
    Traceback (most recent call last):
    ValueError: a payload of 7 bytes cannot be attached to this file

    Args:
        content: Of a JPEG, PNG or WebP file that Bauta wrote.
        payload: At most `LARGEST` bytes.

    Raises:
        ValueError: when the format carries none, or it is too long.
    """
    if 0 < len(payload) <= LARGEST:
        if content.startswith(b"\xff\xd8"):
            return _attach_jpeg(content, payload)
        if content.startswith(_PNG):
            kept = b"".join(piece for name, piece, _ in _png_chunks(content) if name not in (_CHUNK, b"IEND"))
            checksum = struct.pack(">I", zlib.crc32(payload, zlib.crc32(_CHUNK)))
            end = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
            return _PNG + kept + struct.pack(">I", len(payload)) + _CHUNK + payload + checksum + end
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            kept = b"".join(piece for name, piece, _ in _webp_chunks(content) if name != _WEBP_CHUNK)
            body = kept + _WEBP_CHUNK + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
            return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    raise ValueError(f"a payload of {len(payload)} bytes cannot be attached to this file")


def attached(content: bytes) -> bytes:
    """The payload of a file; b"" where there is none, or the file is cut off or of another format."""
    if content.startswith(b"\xff\xd8"):
        found = [piece[4 + len(_MARK) :] for marker, piece in _jpeg_segments(content) if _is_ours(marker, piece)]
    elif content.startswith(_PNG):
        found = [payload for name, _, payload in _png_chunks(content) if name == _CHUNK]
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        found = [payload for name, _, payload in _webp_chunks(content) if name == _WEBP_CHUNK]
    else:
        found = []
    return found[0] if len(found) == 1 else b""


def _attach_jpeg(content: bytes, payload: bytes) -> bytes:
    segments = list(_jpeg_segments(content))
    rest = content[2 + sum(len(piece) for _, piece in segments) :]
    kept = [piece for marker, piece in segments if not _is_ours(marker, piece)]
    first = next((place for place, piece in enumerate(kept) if not 0xE0 <= piece[1] <= 0xEF), len(kept))
    ours = _APP15 + struct.pack(">H", 2 + len(_MARK) + len(payload)) + _MARK + payload
    return b"\xff\xd8" + b"".join([*kept[:first], ours, *kept[first:]]) + rest


def _is_ours(marker: bytes, piece: bytes) -> bool:
    return marker == _APP15 and piece[4:].startswith(_MARK)


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
