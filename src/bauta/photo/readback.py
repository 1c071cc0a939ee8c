"""The last look at a file before it is handed out: is there any picture in it beside the one it shows?

It knows nothing of what was removed or why. It takes the file apart by its container's own rules and asks of every
part, and of the whole, whether a picture in it decodes. Our design.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from bauta.photo.embedded import EmbeddedPicture, carve
from bauta.photo.formats import exif

_SAMPLES = frozenset({273, 279, 324, 325})
_MOST_LOOKED = 12 * 2**20  # bytes beside the picture; a colour profile takes up to three million, and is seen twice
_ICC = b"ICC_PROFILE\0"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def embedded_pictures(data: bytes) -> list[EmbeddedPicture]:
    """Every picture inside a photo file beside the one that it shows, whatever its container and its coding.

    Args:
        data: The whole file, of any format that `read_photo` reads.

    Returns:
        What was found, each picture once for every way that leads to it; nothing for a clean file.
    """
    found = list(carve(data, label="file", skip=1, deep=False))
    room = _MOST_LOOKED
    for label, content in _parts(data):
        room -= len(content)
        if room < 0:
            found.append(EmbeddedPicture("more than can be looked through", (label,)))
            break
        found.extend(carve(content, label=label))
    found.extend(_further_pictures(data))
    return found


def _parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What a file holds beside its coded samples, with a name for each part."""
    if data.startswith(b"\xff\xd8"):
        yield from _jpeg_parts(data)
    elif data.startswith(b"\x89PNG"):
        yield from _png_parts(data)
    elif data.startswith(b"RIFF"):
        yield from _webp_parts(data)
    elif data.startswith((b"II*\0", b"MM\0*")):
        yield from _tiff_parts(data)
    elif data[4:8] == b"ftyp":
        yield from _heif_parts(data)


def _jpeg_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    position = 2
    split: dict[int, list[bytes]] = {}
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xD9:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        payload = data[position + 4 : position + 2 + length]
        position += 2 + length
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            yield f"segment {marker:02X}", payload
            split.setdefault(marker, []).append(payload)
        elif marker == 0xDA:
            following = _MARKER.search(data, position)
            if following is None:
                break
            position = following.start()
    for marker, payloads in split.items():
        if len(payloads) > 1 and all(payload.startswith(_ICC) for payload in payloads):
            yield "colour profile", b"".join(payload[len(_ICC) + 2 :] for payload in payloads)
        elif len(payloads) > 1:
            shared = _shared(payloads)
            for head in sorted({0, shared, shared + 1, shared + 2, shared + 8}):  # a label, counters, offset and length
                yield f"segments {marker:02X}", b"".join(payload[head:] for payload in payloads)
    yield "behind the end", data[position + 2 :]


def _shared(payloads: list[bytes]) -> int:
    first, last = min(payloads), max(payloads)
    return next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def _png_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    position = 8
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name not in (b"IDAT", b"PLTE", b"IHDR"):
            yield f"chunk {name.decode('latin-1')}", data[position + 8 : position + 8 + length]
        position += 12 + length
        if name == b"IEND":
            break
    yield "behind the end", data[position:]


def _webp_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    end = min(8 + int.from_bytes(data[4:8], "little"), len(data))
    position = 12
    while position + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, position)
        if name not in (b"VP8 ", b"VP8L", b"ALPH", b"VP8X"):
            yield f"chunk {name.decode('latin-1')}", data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    yield "behind the end", data[end:]


def _tiff_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    for number, directory in enumerate(_directories(data)):
        waiting = [directory]
        while waiting:
            table = waiting.pop()
            waiting.extend(table.children.values())
            for entry in table.entries:
                if entry.tag not in _SAMPLES and len(entry.value) > 4:
                    yield f"field {entry.tag} of page {number}", entry.value


def _directories(data: bytes) -> list[exif.Directory]:
    directories: list[exif.Directory] = []
    offset = exif.first_offset(data)
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        try:
            directories.append(exif.read_directory(data, offset))
        except ValueError:
            break
        offset = directories[-1].following
    return directories


def _heif_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    info = _info(data)
    for name in ("exif", "xmp", "icc_profile"):
        content = info.get(name)
        if isinstance(content, bytes):
            yield name, content
    metadata = info.get("metadata")
    for entry in metadata if isinstance(metadata, list) else ():
        yield "metadata", bytes(entry.get("data") or b"")


def _info(data: bytes) -> dict[Any, Any]:
    if b"avif" in data[8:64]:
        from PIL import Image

        return dict(Image.open(BytesIO(data), formats=["AVIF"]).info)
    import pillow_heif

    return dict(pillow_heif.open_heif(data).info)


def _further_pictures(data: bytes) -> Iterator[EmbeddedPicture]:
    """Pictures that a container lists itself: thumbnails, depth maps, second pages."""
    if data.startswith((b"II*\0", b"MM\0*")):
        for number, _ in enumerate(_directories(data)[1:], 2):
            yield EmbeddedPicture("TIFF", (f"page {number}",))
    elif data[4:8] == b"ftyp" and b"avif" not in data[8:64]:
        info = _info(data)
        for name in ("thumbnails", "depth_images", "aux"):
            listed = info.get(name)
            for _ in listed if isinstance(listed, list | dict) else ():
                yield EmbeddedPicture("HEIF", (name,))
