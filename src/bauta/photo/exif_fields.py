"""Which EXIF and TIFF fields stay (EXIF 2.32 and 3.0, TIFF 6.0, DCF; Windows' XP fields as exiftool documents them)."""

from __future__ import annotations

from collections.abc import Iterator

from bauta.photo.cleaning import Cleaning, Removed, against_text, decoded, is_plain_text, is_readable, note
from bauta.photo.formats import exif

_MAIN = 0
# Fields that hold numbers or codes, by the directory they belong to.
_PLAIN: dict[int, frozenset[int]] = {
    _MAIN: frozenset(
        {
            exif.ORIENTATION,
            *(0x011A, 0x011B, 0x0128, 0x012D, 0x0132, 0x013E, 0x013F),  # resolution, transfer, date, colours
            *(0x0211, 0x0212, 0x0213, 0x0214),  # YCbCr
            *(0x4746, 0x4749),  # rating
        }
    ),
    exif.EXIF_DIRECTORY: frozenset(
        {
            *(0x829A, 0x829D, 0x8822, 0x8827, *range(0x8830, 0x8836)),  # exposure, sensitivity
            *(0x9000, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9101, 0x9102),  # version, dates, coding
            *range(0x9201, 0x920B),  # exposure, light, focal length
            *(0x9214, 0x9290, 0x9291, 0x9292),
            *(0xA000, 0xA001, 0xA002, 0xA003, 0xA20B, 0xA20E, 0xA20F, 0xA210, 0xA214, 0xA215, 0xA217),
            *(0xA300, 0xA301, 0xA302, *range(0xA401, 0xA40B), 0xA40C, 0xA432, 0xA460, 0xA461, 0xA500),
        }
    ),
    exif.INTEROPERABILITY_DIRECTORY: frozenset({0x0001, 0x0002, 0x1001, 0x1002}),
}
_LARGEST_PLAIN = 64  # bytes; but a transfer function is a table
_TRANSFER_FUNCTION, _LARGEST_TABLE = 0x012D, 3 * 256 * 2  # bytes
# Fields that hold a text: captions and their like, makes and models, programs, the copyright notice.
_TEXTS: dict[int, frozenset[int]] = {
    _MAIN: frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x8298, 0x9C9B, 0x9C9C, 0x9C9F}),
    exif.EXIF_DIRECTORY: frozenset({0x9286, 0xA433, 0xA434, 0xA436, 0xA439, 0xA43A, 0xA43B, 0xA43C}),
    exif.INTEROPERABILITY_DIRECTORY: frozenset(),
}
_POINTERS = {_MAIN: {exif.EXIF_DIRECTORY}, exif.EXIF_DIRECTORY: {exif.INTEROPERABILITY_DIRECTORY}}
_COPYRIGHT = 0x8298
_KEYWORDS = 0x9C9E  # Windows' own, parted by semicolons
_USER_COMMENT, _XP_FIELDS = 0x9286, range(0x9C9B, 0x9CA0)
_HOST = 0x013C
_OWNERS = frozenset({0x013B, _HOST, 0x9C9D, 0xA430, 0xA437, 0xA438})  # artist, host, authors, owner, photographer

# Never kept: pictures, what points to them, second homes of XMP, IPTC and Photoshop's resources.
_PICTURES = frozenset({0x014A, 0x0201, 0x0202, 0x02BC, 0x83BB, 0x8649, 0x935C, 0xC634, 0xC7A7, 0xCD41, 0xCEA1})
_CLAIMS = frozenset({0x8897})  # Xiaomi's "there is a film behind this picture"
_MAKER_NOTE = 0x927C
_LARGEST_UNKNOWN = 2048  # bytes; unknown content beyond that may be pixels in a coding of its own
_DEVICE = frozenset({_MAKER_NOTE, 0xA431, 0xA435, 0xC62F, 0xC634, 0xC4A5})
_PLACES = frozenset(
    {exif.GPS_DIRECTORY, 0x830E, 0x8482, 0x85D8, 0x87AF, 0x87B0, 0x87B1, 0xA480, *range(0x9400, 0x9406)}
)
_LINKS = frozenset({0xA420, 0xA004, 0x010D, 0x011D})  # image id, sound file, names of document and page


def note_names(block: bytes, cleaning: Cleaning) -> None:
    """Learns the owner's names, and what the keywords tell of people and places."""
    for entry in _walk(block):
        if entry.tag in _OWNERS and entry.tag != _HOST:
            note(cleaning.owners, [text_of(entry)])
        elif entry.tag == _KEYWORDS:
            for keyword in text_of(entry).split(";"):
                cleaning.note_keyword(keyword)


def _walk(block: bytes) -> Iterator[exif.Entry]:
    def below(directory: exif.Directory) -> Iterator[exif.Entry]:
        yield from directory.entries
        for child in directory.children.values():
            yield from below(child)

    try:
        yield from below(exif.read_directory(block))
    except ValueError:
        return


def clean_exif(block: bytes, cleaning: Cleaning) -> bytes:
    """The block with what stays of it, each value where it was."""

    def kept(entry: exif.Entry, parent: int) -> bytes | None:
        reason, value = _judge(entry, parent, cleaning)
        if reason is not None:
            cleaning.drop(reason)
        return value

    if not block:
        return b""
    try:
        if _has_thumbnail(block):
            cleaning.drop(Removed.PICTURE)
        return exif.copy_kept(block, kept)
    except ValueError:
        cleaning.drop(Removed.UNREADABLE)
        return b""


def _has_thumbnail(block: bytes) -> bool:
    return exif.read_directory(block).following != 0


def _judge(entry: exif.Entry, parent: int, cleaning: Cleaning) -> tuple[Removed | None, bytes | None]:
    """Why something of an entry goes, and the value that stays; None when all of it goes."""
    tag, value = entry.tag, entry.value
    if tag in _PICTURES:
        return Removed.PICTURE, None
    if tag in _CLAIMS:
        return Removed.CLAIM, None
    if tag in (exif.EXIF_DIRECTORY, exif.INTEROPERABILITY_DIRECTORY, exif.GPS_DIRECTORY):
        allowed = not cleaning.private or tag in _POINTERS.get(parent, ())
        return (None, value) if allowed else (_reason(tag), None)
    if len(value) > 4 and cleaning.sees_picture(value):
        return Removed.PICTURE, None
    if not cleaning.private:
        known = tag == _MAKER_NOTE or tag in _TEXTS.get(parent, ()) or tag in _PLAIN.get(parent, ())
        large = len(value) > _LARGEST_UNKNOWN and not (known or is_plain_text(value))
        return (Removed.OTHER, None) if large else (None, value)
    if tag in _PLAIN.get(parent, ()):
        fits = len(value) <= (_LARGEST_TABLE if tag == _TRANSFER_FUNCTION else _LARGEST_PLAIN)
        return (None, value) if fits else (Removed.OTHER, None)
    if tag in _TEXTS.get(parent, ()):
        text = text_of(entry)
        judge = against_text if tag == _COPYRIGHT else cleaning.against_caption
        reason = judge(text) if is_readable(text) else Removed.OTHER
        return (reason, None) if reason else (None, value)
    if tag == _KEYWORDS and parent == _MAIN:
        return _keywords(entry, cleaning)
    return _reason(tag), None


def _keywords(entry: exif.Entry, cleaning: Cleaning) -> tuple[Removed | None, bytes | None]:
    keywords = [keyword for keyword in text_of(entry).split(";") if keyword.strip()]
    reasons = [cleaning.against_keyword(keyword) for keyword in keywords]
    left = ";".join(keyword for keyword, reason in zip(keywords, reasons, strict=True) if reason is None)
    first = next((reason for reason in reasons if reason), None)
    if first is None:
        return None, entry.value
    return first, left.encode("utf-16-le").ljust(len(entry.value), b"\0") if left else None


def _reason(tag: int) -> Removed:
    for tags, kind in (
        (_PLACES, Removed.PLACE),
        (_OWNERS, Removed.OWNER),
        (_DEVICE, Removed.DEVICE),
        (_LINKS, Removed.LINK),
    ):
        if tag in tags:
            return kind
    return Removed.OTHER


def text_of(entry: exif.Entry) -> str:
    """The text of a field, in the coding that its number implies."""
    value = entry.value
    if entry.tag in _XP_FIELDS:
        return value.decode("utf-16-le", "replace").rstrip("\0")
    if entry.tag == _USER_COMMENT:
        code, value = value[:8], value[8:]
        if code.startswith(b"UNICODE"):
            wide = "utf-16-be" if value[:1] == b"\0" else "utf-16-le"
            return value.decode(wide, "replace").rstrip("\0 ")
        if not code.strip(b"\0").isalpha() and code.strip(b"\0 "):
            value = code + value  # no code at all
    return decoded(value).rstrip("\0 ").replace("\0", "\n")
