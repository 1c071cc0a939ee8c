"""The directory structure that TIFF files and EXIF blocks share (TIFF 6.0, section 2; EXIF 2.32, 4.6.2).

A block is read into a tree of directories. Two ways lead back: `copy_kept` copies what is kept to where it
was, so that offsets inside maker notes stay true; `serialise` lays a tree out anew, for TIFF files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

ByteOrder = Literal["<", ">"]

ORIENTATION = 0x0112
EXIF_DIRECTORY = 0x8769
GPS_DIRECTORY = 0x8825
INTEROPERABILITY_DIRECTORY = 0xA005
_POINTERS = frozenset({EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY})

BYTE, SHORT, LONG = 1, 3, 4
UNDEFINED = 7
# Bytes per value by field type; 13 is IFD (TIFF technical note 1), 129 is UTF-8 (EXIF 3.0).
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_CODES = {SHORT: "H", LONG: "I"}
_HEADER = 8
_MOST_FIELDS = 4096


@dataclass(frozen=True)
class Entry:
    """One field: its value as raw bytes, in the byte order of its block.

    Attributes:
        tag: Field number.
        kind: Field type.
        count: How many values.
        value: The bytes of the values.
        position: Where the 12-byte table row starts in the block it was read from.
    """

    tag: int
    kind: int
    count: int
    value: bytes = field(repr=False)
    position: int = 0

    def integers(self, order: ByteOrder) -> tuple[int, ...]:
        """The values of a SHORT or LONG field; nothing for other types."""
        code = _CODES.get(self.kind)
        return struct.unpack(f"{order}{self.count}{code}", self.value) if code else ()


@dataclass(frozen=True)
class Directory:
    """Fields in file order, and the directories that some of them point to.

    Attributes:
        entries: The readable fields, pointers to readable directories among them.
        children: Directory by the tag of its pointer.
        offset: Where the table starts in the block it was read from.
        following: Offset of the next directory, 0 when this is the last.
    """

    entries: tuple[Entry, ...]
    children: dict[int, Directory] = field(default_factory=dict)
    offset: int = _HEADER
    following: int = 0

    def find(self, tag: int) -> Entry | None:
        """The first field of that number."""
        return next((entry for entry in self.entries if entry.tag == tag), None)

    def first_integer(self, tag: int, order: ByteOrder, default: int) -> int:
        """The first value of an integer field, or ``default`` without one."""
        entry = self.find(tag)
        values = entry.integers(order) if entry else ()
        return values[0] if values else default


def integer_entry(tag: int, kind: int, values: Sequence[int], order: ByteOrder) -> Entry:
    """A SHORT or LONG field."""
    return Entry(tag, kind, len(values), struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values))


def byte_order(block: bytes) -> ByteOrder:
    """``<`` or ``>``. Raises ValueError when the block has no TIFF header."""
    if block[:4] == b"II*\0":
        return "<"
    if block[:4] == b"MM\0*":
        return ">"
    raise ValueError("no TIFF header")


def first_offset(block: bytes) -> int:
    """Where the first directory starts."""
    return int(struct.unpack_from(byte_order(block) + "I", block, 4)[0])


def read_directory(block: bytes, offset: int | None = None) -> Directory:
    """The directory at ``offset`` (the first one by default) and those below it.

    Fields that point outside the block or have an unknown type are left out. Raises ValueError when the
    table itself does not lie in the block.
    """
    try:
        return _read(block, byte_order(block), first_offset(block) if offset is None else offset, depth=0)
    except struct.error as error:
        raise ValueError("the directory is cut off") from error


def _read(block: bytes, order: ByteOrder, offset: int, depth: int) -> Directory:
    if offset < _HEADER or depth > 2:
        raise ValueError("a directory in an impossible place")
    (count,) = struct.unpack_from(order + "H", block, offset)
    if count > _MOST_FIELDS:
        raise ValueError("more fields than any camera writes")
    end = offset + 2 + 12 * count
    entries: list[Entry] = []
    children: dict[int, Directory] = {}
    budget = 2 * len(block)  # honest values do not overlap; a bomb lets thousands share the same bytes
    for position in range(offset + 2, end, 12):
        tag, kind, number, target = struct.unpack_from(order + "HHII", block, position)
        size = _SIZES.get(kind, 0) * number
        start = position + 8 if size <= 4 else target
        if size == 0 or start + size > len(block) or tag in children:
            continue
        budget -= size
        if budget < 0:
            raise ValueError("the values overlap")
        if tag in _POINTERS:
            try:
                children[tag] = _read(block, order, target, depth + 1)
            except (ValueError, struct.error):
                continue
        entries.append(Entry(tag, kind, number, block[start : start + size], position))
    following = struct.unpack_from(order + "I", block, end)[0] if end + 4 <= len(block) else 0
    return Directory(tuple(entries), children, offset, following)


def orientation_of(block: bytes) -> int:
    """EXIF orientation 1 to 8; 1 when it is absent, invalid, or the block unreadable."""
    try:
        value = read_directory(block).first_integer(ORIENTATION, byte_order(block), 1)
    except ValueError:
        return 1
    return value if 1 <= value <= 8 else 1


def copy_kept(block: bytes, keep: Callable[[Entry, int], bytes | None]) -> bytes:
    """The block with only what is kept of its fields, each where it was, zeros elsewhere, no trailing zeros.

    The second directory (the thumbnail of an EXIF block) and bytes that no field refers to are not copied.
    Returns nothing when no field is kept.

    Args:
        block: From its TIFF header on.
        keep: Given a field and the tag of the pointer to its directory (0 for the main one), the value that
            stays, as long as it was; None when the field goes.

    Raises:
        ValueError: When the block cannot be read.
    """
    order = byte_order(block)
    copy = bytearray(len(block))
    end = 0

    def put(position: int, content: bytes) -> None:
        nonlocal end
        copy[position : position + len(content)] = content
        end = max(end, position + len(content))

    def visit(directory: Directory, parent: int) -> bool:
        rows = []
        for entry in directory.entries:
            value = keep(entry, parent)
            if value is None or (
                entry.tag in directory.children and not visit(directory.children[entry.tag], entry.tag)
            ):
                continue
            head, place = block[entry.position : entry.position + 8], value.ljust(4, b"\0")
            if len(value) > 4:
                place = block[entry.position + 8 : entry.position + 12]
                put(struct.unpack(order + "I", place)[0], value)
            rows.append(head + place)
        if rows:
            put(directory.offset, struct.pack(order + "H", len(rows)) + b"".join(rows) + bytes(4))
        return bool(rows)

    if not visit(read_directory(block), 0):
        return b""
    put(0, block[:_HEADER])
    return bytes(copy[:end])


def serialise(directory: Directory, order: ByteOrder, start: int) -> bytes:
    """The directory, its values and its children as bytes that begin at offset ``start`` of their file."""
    entries = sorted(directory.entries, key=lambda entry: entry.tag)
    rows = bytearray(struct.pack(order + "H", len(entries)))
    heap = bytearray()
    heap_start = start + 2 + 12 * len(entries) + 4
    for entry in entries:
        content = entry.value
        if entry.tag in directory.children:
            child = serialise(directory.children[entry.tag], order, heap_start + len(heap))
            content = struct.pack(order + "I", heap_start + len(heap))
            heap += child
        elif len(content) > 4:
            content = struct.pack(order + "I", heap_start + len(heap))
            heap += entry.value + bytes(len(entry.value) % 2)  # values start on even offsets
        rows += struct.pack(order + "HHI", entry.tag, entry.kind, entry.count) + content.ljust(4, b"\0")
    return bytes(rows + bytes(4) + heap)


def block_of(entries: Iterable[Entry], children: dict[int, Directory], order: ByteOrder) -> bytes:
    """A whole EXIF block: header and one directory."""
    directory = Directory(tuple(entries), children)
    return header(order, _HEADER) + serialise(directory, order, _HEADER)


def header(order: ByteOrder, offset: int) -> bytes:
    """The eight bytes that begin a TIFF file whose first directory is at ``offset``."""
    return struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, offset)
