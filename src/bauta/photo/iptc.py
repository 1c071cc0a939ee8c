"""Photoshop's image resources and the IPTC datasets among them (IIM 4.2): which of them stay."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bauta.photo.cleaning import Cleaning, Removed, against_text, decoded, is_plain_text, is_readable, note

_SIGNATURE = b"8BIM"
_OTHER_SIGNATURES = frozenset({b"MeSa", b"AgHg", b"PHUT", b"DCSR", b"8B64"})  # of other programs' resources
_MOST = 10_000  # resources, or datasets
_IPTC = 0x0404
_FOREIGN = -1
# Thumbnails (Photoshop 4 and 5), second homes of EXIF and XMP, layers and the picture without its effects.
_PICTURES = frozenset({0x0409, 0x040C, 0x0413, 0x0422, 0x0423, 0x0424, 0x0BB7, 0x0FA0})
_PLAIN = {0x03ED: 16, 0x0406: 9, 0x040A: 1}  # resolution, quality, copyright flag; with their sizes
_LARGEST_UNKNOWN = 2048

_HEADER, _APPLICATION = 1, 2
_CHARACTER_SET = (_HEADER, 90)
# Record version, urgency, dates and times, program and its version, cycle, orientation, language.
_CODES = frozenset({0, 10, 30, 35, 37, 38, 55, 60, 62, 63, 65, 70, 75, 130, 131, 135})
# Title, category, subject, headline, copyright notice, caption.
_TEXTS = frozenset({5, 12, 15, 105, 116, 120})
_COPYRIGHT = 116
_KEYWORDS = frozenset({20, 25})
_PLACES = frozenset({26, 27, *range(90, 102)})
_OWNERS = frozenset({80, 85, 110, 115, 118, 122})
_PREVIEWS = frozenset({200, 201, 202})
_LINKS = frozenset({22, 45, 47, 50, 103, 184, 186, 187, 188})
_OBJECT_DATA = frozenset({7, 8, 9})
_LARGEST_CODE = 64


@dataclass(frozen=True)
class _Dataset:
    record: int
    number: int
    value: bytes

    def tobytes(self) -> bytes:
        length = len(self.value)
        size = struct.pack(">H", length) if length < 0x8000 else struct.pack(">HI", 0x8004, length)
        return bytes([0x1C, self.record, self.number]) + size + self.value


def note_names(resources: bytes, cleaning: Cleaning) -> None:
    """Learns the places, owners and tagged people that the datasets in Photoshop's resources name."""
    for number, content in _resources(resources) or ():
        if number == _IPTC:
            note_names_of_datasets(content, cleaning)


def note_names_of_datasets(data: bytes, cleaning: Cleaning) -> None:
    """The same of bare datasets."""
    for dataset in _datasets(data) or ():
        if dataset.record != _APPLICATION:
            continue
        text = decoded(dataset.value)
        if dataset.number in (90, 92, 95, 101, 27):
            note(cleaning.places, [text])
        elif dataset.number in (80, 122):
            note(cleaning.owners, [text])
        elif dataset.number in _KEYWORDS:
            cleaning.note_keyword(text)


def clean_photoshop(resources: bytes, cleaning: Cleaning) -> bytes:
    """The resources that stay, without their names; nothing of what cannot be read."""
    found = _resources(resources)
    if found is None:
        cleaning.drop(Removed.UNREADABLE)
        return b""
    kept = bytearray()
    for number, content in found:
        if number == _IPTC:
            content = clean_datasets(content, cleaning)
            if not content:
                continue
        else:
            reason = _against_resource(number, content, cleaning)
            if reason is not None:
                cleaning.drop(reason)
                continue
        kept += _SIGNATURE + struct.pack(">HHI", number, 0, len(content)) + content + bytes(len(content) % 2)
    return bytes(kept)


def _against_resource(number: int, content: bytes, cleaning: Cleaning) -> Removed | None:
    if number == _FOREIGN:
        return Removed.OTHER
    if number in _PICTURES or cleaning.sees_picture(content):
        return Removed.PICTURE
    if cleaning.private:
        if number in _PLAIN:
            return None if len(content) <= _PLAIN[number] else Removed.OTHER
        return Removed.LINK if number == 0x040B else Removed.OTHER
    return Removed.OTHER if len(content) > _LARGEST_UNKNOWN and not is_plain_text(content) else None


def _resources(data: bytes) -> Sequence[tuple[int, bytes]] | None:
    """Number and content of every resource; None when they cannot be read to their end."""
    found: list[tuple[int, bytes]] = []
    position = 0
    while position + 12 <= len(data):
        signature = data[position : position + 4]
        if len(found) > _MOST or (signature != _SIGNATURE and signature not in _OTHER_SIGNATURES):
            return None
        number, name_length = struct.unpack_from(">HB", data, position + 4)
        size_at = position + 6 + name_length + 1 + (name_length + 1) % 2
        if size_at + 4 > len(data):
            return None
        (size,) = struct.unpack_from(">I", data, size_at)
        end = size_at + 4 + size
        if end > len(data):
            return None
        found.append((number if signature == _SIGNATURE else _FOREIGN, data[size_at + 4 : end]))
        position = end + size % 2
    return found if not data[position:].strip(b"\0") else None


def clean_datasets(data: bytes, cleaning: Cleaning) -> bytes:
    """The datasets that stay; nothing when they cannot be read."""
    found = _datasets(data)
    if found is None:
        cleaning.drop(Removed.UNREADABLE)
        return b""
    kept = []
    for dataset in found:
        reason = _against(dataset, cleaning)
        if reason is None:
            kept.append(dataset)
        else:
            cleaning.drop(reason)
    # A character set and a version alone tell of nothing.
    if all((dataset.record, dataset.number) in (_CHARACTER_SET, (_APPLICATION, 0)) for dataset in kept):
        return b""
    return b"".join(dataset.tobytes() for dataset in kept)


def _against(dataset: _Dataset, cleaning: Cleaning) -> Removed | None:
    number, value = dataset.number, dataset.value
    if dataset.record in _OBJECT_DATA or (dataset.record == _APPLICATION and number in _PREVIEWS):
        return Removed.PICTURE
    if cleaning.sees_picture(value):
        return Removed.PICTURE
    text = decoded(value)
    if not cleaning.private:
        known = dataset.record == _APPLICATION and number in _TEXTS
        return Removed.OTHER if len(value) > _LARGEST_UNKNOWN and not (known or is_plain_text(value)) else None
    if (dataset.record, number) == _CHARACTER_SET:
        return None if len(value) <= 8 else Removed.OTHER
    if dataset.record != _APPLICATION:
        return Removed.OTHER
    if number in _CODES:
        return cleaning.against_caption(text) if len(value) <= _LARGEST_CODE else Removed.OTHER
    if number in _TEXTS:
        judge = against_text if number == _COPYRIGHT else cleaning.against_caption
        return judge(text) if is_readable(text) else Removed.OTHER
    if number in _KEYWORDS:
        return cleaning.against_keyword(text)
    for numbers, kind in ((_PLACES, Removed.PLACE), (_OWNERS, Removed.OWNER), (_LINKS, Removed.LINK)):
        if number in numbers:
            return kind
    return Removed.OTHER


def _datasets(data: bytes) -> list[_Dataset] | None:
    """None when they cannot be read to their end; zeros fill the rest of some."""
    found: list[_Dataset] = []
    position = 0
    while position + 5 <= len(data) and data[position] == 0x1C:
        record, number, size = struct.unpack_from(">BBH", data, position + 1)
        start = position + 5
        if size & 0x8000:  # the size of the size
            width = size & 0x7FFF
            size = int.from_bytes(data[start : start + width], "big")
            start += width
        if start + size > len(data) or len(found) > _MOST:
            return None
        found.append(_Dataset(record, number, data[start : start + size]))
        position = start + size
    return found if not data[position:].strip(b"\0") else None
