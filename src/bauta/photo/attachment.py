"""Bytes of our own in the file of a photo: what its owner needs to take a mask off again.

JPEG carries them in APP15 segments, PNG in a private ancillary chunk that asks to be dropped when pixels change, WebP
in a chunk of its own, HEIC and AVIF in a box at the end, TIFF in a private field of a directory at the end. Programs
and networks that save a photo anew leave them out. They come as sections, each of a kind, so that several owners' can
be in one file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

MARK = b"Bauta\0"
CHUNK, WEBP_CHUNK = b"baUT", b"BAUT"
"""What our segments of a JPEG begin with, and the names of our chunks of a PNG and a WebP file."""

FIELD = 65134
"""Our field of a TIFF file, of those that the format leaves to everybody."""

_BOX = b"uuid" + bytes.fromhex("4d2b7ad1c2a44f0f8b6cd59a3e1b9e57")

_APP15 = b"\xff\xef"
_PNG = b"\x89PNG\r\n\x1a\n"

RECORDS, REGIONS = 1, 2
"""Kinds of sections: where masks are (`bauta.cloaking.restoring`), and what was there before
(`bauta.cloaking.erasing`)."""

LARGEST = 2**30
"""Bytes that fit, whatever the format."""

_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_TAIL = struct.Struct(f">{len(MARK)}sII")  # of a TIFF file: our mark, where its directory and its end were before

_SECTION = struct.Struct(">BI")
_JPEG_PIECE = 65_000
_MOST_BOXES = 1000  # of a file that is a photo

Section = tuple[int, bytes]
"""Its kind, and what it holds."""


def attach(content: bytes, sections: Sequence[Section]) -> bytes:
    """The file with sections, in place of those that it has; with none, without any.

    >>> attach(b"no photo", [(RECORDS, b"sealed")])
    Traceback (most recent call last):
    ValueError: 11 bytes cannot be attached to this file

    Args:
        content: Of a file that Bauta wrote.
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
        if content[4:8] == b"ftyp":
            kept = b"".join(piece for piece in _boxes(content) if piece[4:24] != _BOX)
            return kept + (struct.pack(">I", 24 + len(payload)) + _BOX + payload if payload else b"")
        if content[:4] in _TIFF:
            return _attach_tiff(_without_field(content), payload)
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
    elif content[4:8] == b"ftyp":
        found = [piece[24:] for piece in _boxes(content) if piece[4:24] == _BOX]
    elif content[:4] in _TIFF:
        tail = _tail(content)
        found = [tail[2]] if tail else []
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


def _boxes(content: bytes) -> Iterator[bytes]:
    """The boxes of a file of the ISO kind; the last one holds whatever is no box."""
    position = 0
    for _ in range(_MOST_BOXES):
        length, head = int.from_bytes(content[position : position + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(content[position + 8 : position + 16], "big"), 16
        if position + 8 > len(content) or length < head or position + length > len(content):
            break
        yield content[position : position + length]
        position += length
    if position < len(content):
        yield content[position:]


def _table(content: bytes, start: int) -> tuple[list[bytes], bytes] | None:
    """Entries of a TIFF directory, and where the next one is; None when it is not whole."""
    order = _TIFF[content[:4]]
    if start + 2 > len(content):
        return None
    (count,) = struct.unpack_from(order + "H", content, start)
    end = start + 2 + 12 * count
    if end + 4 > len(content):
        return None
    return [content[at : at + 12] for at in range(start + 2, end, 12)], content[end : end + 4]


def _directory_at(content: bytes) -> int:
    return int(struct.unpack_from(_TIFF[content[:4]] + "I", content.ljust(8, b"\0"), 4)[0])


def _tail(content: bytes) -> tuple[int, int, bytes] | None:
    """Where the directory of a TIFF file and its end were before ours, and what ours holds."""
    order, table = _TIFF[content[:4]], _table(content, _directory_at(content))
    for row in table[0] if table else ():
        tag, _, length, place = struct.unpack(order + "HHII", row)
        if tag == FIELD and _TAIL.size <= length and place + length <= len(content):
            mark, directory, end = _TAIL.unpack_from(content, place)
            if mark == MARK and end <= place:
                return directory, end, content[place + _TAIL.size : place + length]
    return None


def _without_field(content: bytes) -> bytes:
    tail = _tail(content)
    if tail is None:
        return content
    return content[:4] + struct.pack(_TIFF[content[:4]] + "I", tail[0]) + content[8 : tail[1]]


def _attach_tiff(content: bytes, payload: bytes) -> bytes:
    """What is there stays where it is: a further directory points to it, and to ours."""
    if not payload:
        return content
    order, before = _TIFF[content[:4]], _directory_at(content)
    table = _table(content, before)
    if table is None or len(content) + len(payload) > 2**32 - 2**20:
        raise ValueError(f"{len(payload)} bytes cannot be attached to this file")
    rows, following = table
    start = len(content) + len(content) % 2
    ours = _TAIL.pack(MARK, before, len(content)) + payload
    directory = start + len(ours) + len(ours) % 2
    rows = sorted([*rows, struct.pack(order + "HHII", FIELD, 7, len(ours), start)], key=lambda row: _tag(row, order))
    body = content[8:].ljust(start - 8, b"\0") + ours + bytes(len(ours) % 2)
    made = struct.pack(order + "H", len(rows)) + b"".join(rows) + following
    return content[:4] + struct.pack(order + "I", directory) + body + made


def _tag(row: bytes, order: str) -> int:
    return int(struct.unpack_from(order + "H", row)[0])
