"""Finding pictures inside other data, in whatever coding they are kept there.

Metadata, scenes of drawing programs and bytes after the end of a file can hold a second, unprotected copy of a
photo. `holds_picture` is the cautious question that cleaning asks of a part: anything that looks like the
beginning of a picture or a film counts. `carve` is the strict one that is asked of colour profiles and of written
files: only what decodes counts. Our design.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import html
import itertools
import lzma
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

_DEPTH = 6  # a JPEG in base64 in JSON in Deflate in a JSON string takes five
_BUDGET = 4 * 2**20  # bytes looked at for one part, decoded ones included
_INFLATED = 2**20
_LARGEST = 2**18  # bytes; more than that in one part is not looked through
_MOST_TIFFS = 64  # headers of TIFF structures in one part; each costs a walk through its fields
_SHORTEST = 32  # bytes; only what begins like a picture can be one
_RAW_PIXELS = 2048  # bytes of unknown content that a coding may hide without passing for pixels
_PACKINGS = frozenset({"packed", "base64", "hexadecimal", "numbers", "ascii85", "uuencode"})

_PICTURES = re.compile(
    rb"\x89PNG\r\n\x1a\n"
    rb"|\x8aMNG\r\n|\x8bJNG\r\n"
    rb"|GIF8[79]a"
    rb"|RIFF....WEBP"
    rb"|BM....\0\0\0\0..\0\0[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
    rb"|[\x28\x34\x38\x6c\x7c]\0\0\0..\0\0..(?:\0\0|\xff\xff)\x01\0[\x01\x04\x08\x10\x18\x20]\0[\0-\6]\0\0\0"
    rb"|\xff\x4f\xff\x51\0|\0\0\0\x0cjP  \r\n|\0\0\0\x0cJXL \r\n"
    rb"|8BP[SB]\0[\x01\x02]"
    rb"|P[1-6]\s{1,9}(?:#[^\n]{0,99}\n\s{0,9}){0,9}\d{1,5}\s{1,9}\d{1,5}\s"
    rb"|P7\nWIDTH "
    rb"|qoif\0\0|\x76\x2f\x31\x01|DDS \x7c\0\0\0|BPG\xfb|FLIF[\x31-\x6f]|II\xbc\x01|/\* XPM \*/|%PDF-1"
    rb"|....ftyp(?:hei|hev|mif|msf|avi[fs]|isom|iso\d|mp4|M4|qt  |3g|jp2|jpm|crx|MSNV|dash|avc)"
    rb"|RIFF....AVI |\x1a\x45\xdf\xa3"
    rb"|data:(?:image|video)/",
    re.DOTALL,
)
_JPEG = re.compile(rb"\xff\xd8\xff+[\xc0-\xcf\xdb-\xfe]")  # apart, since pixels of one colour may begin like it
# What `_starts` looks for before it asks `_PICTURES`, and how many bytes stand before it.
_MARKS = {
    **dict.fromkeys((b"\x89PNG", b"\x8aMNG", b"\x8bJNG", b"GIF8", b"RIFF", b"BM", b"8BP", b"qoif"), 0),
    **dict.fromkeys((b"\xff\x4f\xff\x51", b"\0\0\0\x0cj", b"\0\0\0\x0cJ", b"v/1\x01", b"DDS ", b"BPG\xfb", b"FLIF"), 0),
    **dict.fromkeys((b"II\xbc\x01", b"/* XPM", b"%PDF-1", b"\x1a\x45\xdf\xa3", b"data:image/", b"data:video/"), 0),
    **dict.fromkeys((bytes([size, 0, 0, 0]) for size in (0x28, 0x34, 0x38, 0x6C, 0x7C)), 0),
    **dict.fromkeys((b"P%d" % number for number in range(1, 8)), 0),
    b"ftyp": 4,
}
_TIFF = re.compile(rb"II\*\0|MM\0\*|II\+\0\x08\0|MM\0\+\0\x08")
_TIFF_PICTURE_FIELDS = frozenset({0x0111, 0x0144, 0x014A, 0x0201})

_BASE64_STARTS = re.compile(rb"(?:^|[^A-Za-z0-9+/])(?:/9j/|iVBORw0KGg|R0lGOD[lh]|UklGR)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{40,}")
# Ends of lines between lines of base64; words of a text are not joined.
_BREAKS = re.compile(rb"(?<=[A-Za-z0-9+/_-]{16})(?:\s+|\\+[rnt]|&#(?:x[dDaA9]|1[03]|9);|%0[aAdD])+")
_HEX = re.compile(rb"(?:(?:0[xX])?[0-9a-fA-F]{2}[\s:,;]{0,2})+")
_QUOTED = re.compile(rb"(?:=[0-9A-F]{2}){3}")
_NUMBERS = re.compile(rb"(?:\d{1,3}[\s,;]{1,9})+\d{1,3}")
_TAG = re.compile(rb"<[^<>]*>\s*")
_ESCAPE = re.compile(rb"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
# Of texts that nothing above decodes, and the part of their length that Deflate leaves: of 16 letters a half is left.
_LONG_WORD = re.compile(rb"[!-~]{200,}")
_SHORTEST_CODED, _DENSE = 400, 0.45
_PACKED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08|BZh[1-9]1AY|\xfd7zXZ\0|PK\x03\x04")


@dataclass(frozen=True, eq=False)
class EmbeddedPicture:
    """A picture found inside a file, beside the one that the file shows.

    Attributes:
        kind: What it is, such as ``JPEG``.
        path: How it was reached, such as ``("XMP", "base64")``.
        pixels: (H, W, 3) RGB in [0, 1]; None where it is known to be a picture or film that cannot be decoded
            here.
    """

    kind: str
    path: tuple[str, ...]
    pixels: NDArray[np.float32] | None = field(default=None, repr=False)


class _TooMuch(Exception):
    """More was packed into a part than is worth looking through."""


def holds_picture(data: bytes) -> bool:
    """Whether ``data`` looks as if it held a picture or a film, raw or in a coding known here.

    Cautious: a signature is enough, and so is more than can be looked through, or coded content of some length that
    is not text, since that may be raw pixels or a packing that is not known here.
    """
    if len(data) > _LARGEST:
        return True
    if len(data) < _SHORTEST:
        return any(True for _ in _starts(data, 0)) or _BASE64_STARTS.search(data) is not None
    try:
        for path, content in _unfolded(data):
            if any(True for _ in _starts(content, 0)) or _BASE64_STARTS.search(content) or _holds_tiff_picture(content):
                return True
            if path and path[-1] in _PACKINGS and len(content) > _RAW_PIXELS and not _is_text(content):
                return True
        if _holds_coded_text(data):
            return True
    except _TooMuch:
        return True
    return False


def carve(data: bytes, *, label: str = "", skip: int = 0, deep: bool = True) -> Iterator[EmbeddedPicture]:
    """The pictures inside ``data`` that decode, each where it begins.

    Args:
        data: Any bytes.
        label: What they are called in `EmbeddedPicture.path`.
        skip: Where to begin, so that a file's own first bytes do not count.
        deep: Whether to look into codings too, and not for raw pictures only.
    """
    parts = _unfolded(data) if deep else iter([((), data)])
    try:
        for path, content in parts:
            where = (label, *path) if label else path
            first = 0 if path else skip
            tiffs = (start for start in _tiff_starts(content, first) if _is_tiff_picture(content, start))
            begins = (start for start in _starts(content, first) if _goes_on(content, start))
            for count, start in enumerate(itertools.chain(begins, tiffs)):
                if count == _MOST_DECODED:
                    raise _TooMuch
                found = _decoded(content[start : start + _LARGEST_CARVED], where)
                if found is not None:
                    yield found
    except _TooMuch:
        yield EmbeddedPicture("more than can be looked through", (label,))


def _starts(data: bytes, first: int) -> Iterator[int]:
    """Where pictures and films seem to begin; plain searches are a hundred times faster than one big pattern."""
    for match in _JPEG.finditer(data, first):
        yield match.start()
    for mark, before in _MARKS.items():
        place = data.find(mark, first)
        while place >= 0:
            if place - before >= first and _PICTURES.match(data, place - before):
                yield place - before
            place = data.find(mark, place + 1)


def _goes_on(data: bytes, start: int) -> bool:
    """Whether what begins like a JPEG has a segment there and another marker behind; any other may go on.

    In pixels of one colour each may look like the beginning of a JPEG.
    """
    if data[start : start + 2] != b"\xff\xd8":
        return True
    while start + 3 < len(data) and data[start + 3] == 0xFF:
        start += 1
    length = int.from_bytes(data[start + 4 : start + 6], "big")
    return length >= 2 and data[start + 4 + length : start + 5 + length] in (b"\xff", b"")


_MOST_DECODED = 500  # tries in one part
_LARGEST_CARVED = 32 * 2**20
_SMALLEST = 16  # pixels a side; below that a face tells nothing
_CARVED_PIXELS = 50_000_000


def _decoded(data: bytes, path: tuple[str, ...]) -> EmbeddedPicture | None:
    from PIL import Image

    if b"ftyp" in data[4:8]:
        return _decoded_container(data, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # A picture that is cut off is shown as far as it goes.
            image = Image.open(BytesIO(data + b"\xff\xd9" if data.startswith(b"\xff\xd8") else data))
            if min(image.size) < _SMALLEST:
                return None
            if image.width * image.height > _CARVED_PIXELS:
                return EmbeddedPicture(str(image.format), path)
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
        except Image.DecompressionBombError:
            return EmbeddedPicture("a picture too large to be looked at", path)
        except Exception:  # decoders answer arbitrary bytes with exceptions of every type
            return None
    return EmbeddedPicture(str(image.format), path, pixels)


def _decoded_container(data: bytes, path: tuple[str, ...]) -> EmbeddedPicture | None:
    """HEIF and AVIF by their decoders; a film by its first boxes."""
    size = int.from_bytes(data[:4], "big")
    if not 8 <= size <= 4096 or size % 4:
        return None
    if data[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        import pillow_heif

        try:
            image = pillow_heif.open_heif(data)[0].to_pillow()
        except Exception:  # as above
            return None
        return EmbeddedPicture("HEIF", path, np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255))
    following = data[size + 4 : size + 8]
    return (
        EmbeddedPicture("a film", path) if following in (b"moov", b"mdat", b"free", b"wide", b"meta", b"skip") else None
    )


def _unfolded(data: bytes) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The data, and everything that unpacking and decoding makes of it, each once.

    Raises:
        _TooMuch: When the budget is spent.
    """
    waiting: list[tuple[tuple[str, ...], bytes]] = [((), data)]
    seen: set[int] = set()
    spent = 0
    while waiting:
        path, content = waiting.pop()
        if hash(content) in seen:
            continue
        seen.add(hash(content))
        spent += len(content)
        if spent > _BUDGET + len(data):
            raise _TooMuch
        yield path, content
        if len(path) < _DEPTH:
            for name, decode in _CODINGS.items():
                waiting.extend(((*path, name), decoded) for decoded in decode(content) if len(decoded) >= 12)


def _from_base64(data: bytes) -> Iterator[bytes]:
    joined = _BREAKS.sub(b"", data)
    for text in (data, joined) if joined != data else (data,):
        for match in _BASE64.finditer(text):
            run = match.group().replace(b"-", b"+").replace(b"_", b"/")
            ways = []
            for shift in range(4):  # words may stand before it that could be base64 too
                part = run[shift:]
                whole = len(part) - (len(part) % 4 == 1)
                ways.append(base64.b64decode(part[:whole] + b"=" * (-whole % 4)))
            yield from [way for way in ways if _is_text(way)][:1] or ways


def _from_hex(data: bytes) -> Iterator[bytes]:
    for match in _HEX.finditer(data):  # a pattern that asks for many would look at each place many times
        if len(match.group()) < 64:
            continue
        digits = re.sub(rb"0[xX]|[\s:,;]", b"", match.group())
        yield binascii.unhexlify(digits[: len(digits) - len(digits) % 2])


def _from_quoted(data: bytes) -> Iterator[bytes]:
    if _is_printable(data) and _QUOTED.search(data):
        yield binascii.a2b_qp(data)


def _from_numbers(data: bytes) -> Iterator[bytes]:
    for match in _NUMBERS.finditer(data):
        numbers = re.findall(rb"\d+", match.group())
        if len(numbers) >= 64:
            yield bytes(min(int(number), 255) for number in numbers)


def _from_ascii85(data: bytes) -> Iterator[bytes]:
    for match in re.finditer(rb"<~([^~]{10,})~>", data):
        try:
            yield base64.a85decode(match.group(1))
        except ValueError:
            continue


def _from_uuencode(data: bytes) -> Iterator[bytes]:
    for match in re.finditer(rb"begin [0-7]{3} [^\n]{0,255}\n((?:[ -`]{1,61}\n)+)", data):
        lines = []
        for line in match.group(1).splitlines():
            try:
                lines.append(binascii.a2b_uu(line))
            except binascii.Error:
                break
        yield b"".join(lines)


def _unescaped(data: bytes) -> Iterator[bytes]:
    if not _is_printable(data):
        return
    if b"\\" in data:

        def plain(match: re.Match[bytes]) -> bytes:
            code = match.group(1)
            if len(code) > 1:
                value = int(code[1:], 16) if code[:1] in b"ux" else int(code, 8)
                return bytes([min(value, 255)])
            return _ESCAPED.get(code, code)

        yield _ESCAPE.sub(plain, data)
    if b"%2" in data or b"%3" in data:
        yield unquote_to_bytes(data)
    if b"&" in data and b";" in data:
        unescaped = html.unescape(data.decode("latin-1"))
        yield unescaped.encode("latin-1", "ignore")


def _without_markup(data: bytes) -> Iterator[bytes]:
    if b"</" in data and _is_printable(data):
        yield _TAG.sub(b"", data)


def _narrowed(data: bytes) -> Iterator[bytes]:
    """UTF-16 without its zeros, and UTF-8 that stands for single bytes."""
    if data.count(0) * 4 > len(data):
        yield data.replace(b"\0", b"")
    if _is_printable(data) and any(lead in data for lead in (b"\xc3", b"\xc2")):
        try:
            yield data.decode("utf-8").encode("latin-1")
        except UnicodeError:
            return


def _unpacked(data: bytes) -> Iterator[bytes]:
    for match in _PACKED.finditer(data):
        start, head = match.start(), match.group()
        inflated = b""
        if head[:1] == b"\x78":
            inflated = _inflate(zlib.decompressobj().decompress, data[start:])
        elif head[:2] == b"\x1f\x8b":
            inflated = _inflate(zlib.decompressobj(31).decompress, data[start:])
        elif head[:2] == b"BZ":
            inflated = _inflate(bz2.BZ2Decompressor().decompress, data[start:])
        elif head[:2] == b"PK" and start + 30 <= len(data):
            name, extra = struct.unpack_from("<HH", data, start + 26)
            inflated = _inflate(zlib.decompressobj(-15).decompress, data[start + 30 + name + extra :])
        else:
            inflated = _inflate(lzma.LZMADecompressor().decompress, data[start:])
        yield inflated
    # What base64 of a drawing program decodes to has no header at all.
    if len(data) >= 12 and not _is_text(data[:64]):
        inflater = zlib.decompressobj(-15)
        bare = _inflate(inflater.decompress, data)
        if inflater.eof:  # bytes that are not a stream at all give a little too
            yield bare


def _inflate(decompress: Callable[[bytes, int], bytes], data: bytes) -> bytes:
    """As much as comes out, since a cut stream still shows a picture."""
    out = bytearray()
    step = 4096
    try:
        out += decompress(data[:step], _INFLATED + 1)  # what is not a stream fails here already
        out += decompress(data[step:], _INFLATED + 1)
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
        pass
    if len(out) > _INFLATED:
        raise _TooMuch
    return bytes(out)


_CODINGS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "packed": _unpacked,
    "base64": _from_base64,
    "hexadecimal": _from_hex,
    "quoted-printable": _from_quoted,
    "numbers": _from_numbers,
    "ascii85": _from_ascii85,
    "uuencode": _from_uuencode,
    "escapes": _unescaped,
    "markup": _without_markup,
    "wide text": _narrowed,
}


_CONTROLS = bytes([*range(9), *range(14, 32), 127])


def _is_printable(data: bytes) -> bool:
    """Whether nearly no byte is a control character: text in some coding, or bytes written as text."""
    return 50 * (len(data) - len(data.translate(None, _CONTROLS))) <= len(data) + 100


def _is_text(data: bytes) -> bool:
    """Whether nearly all bytes are printable or above ASCII's range but valid UTF-8."""
    sample = data[:4096]
    if not sample:
        return True
    control = len(re.findall(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]", sample))
    if control * 100 > len(sample):
        return False
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(sample) - 4 or sum(byte > 127 for byte in sample) * 5 < len(sample)
    return True


def _holds_tiff_picture(data: bytes) -> bool:
    return any(_is_tiff_picture(data, start) for start in _tiff_starts(data, 0))


def _tiff_starts(data: bytes, first: int) -> Iterator[int]:
    """Raises _TooMuch when there are more than anybody has a use for."""
    for count, match in enumerate(_TIFF.finditer(data, first)):
        if count == _MOST_TIFFS:
            raise _TooMuch
        yield match.start()


def _holds_coded_text(data: bytes) -> bool:
    """Whether a text consists of long words that say as much as they can: bytes in a coding that is not known here.

    Names, addresses and signatures are shorter, and languages written without spaces are not ASCII.
    """
    for text in (data, data.replace(b"\0", b"")) if b"\0" in data else (data,):
        words = [word for word in _LONG_WORD.findall(_BREAKS.sub(b"", text)) if not _is_base64_of_text(word)]
        coded = b"".join(words)
        if len(coded) >= _SHORTEST_CODED and len(zlib.compress(coded)) > _DENSE * len(coded):
            return True
    return False


def _is_base64_of_text(word: bytes) -> bool:
    return _BASE64.fullmatch(word) is not None and any(map(_is_text, _from_base64(word)))


def _is_tiff_picture(data: bytes, start: int) -> bool:
    """Whether the TIFF structure there has samples or a thumbnail, and is not a bare EXIF block."""
    if b"+" in data[start + 2 : start + 4]:
        return True
    order = "<" if data[start : start + 1] == b"I" else ">"
    try:
        (first,) = struct.unpack_from(order + "I", data, start + 4)
        fields, following = _fields_of(data, start, first, order)
        if following:
            fields |= _fields_of(data, start, following, order)[0]
    except (struct.error, ValueError):  # cut off
        return False
    return bool(fields & _TIFF_PICTURE_FIELDS)


def _fields_of(data: bytes, start: int, offset: int, order: str) -> tuple[set[int], int]:
    """The numbers of the fields of a TIFF directory, and where the next one is; raises struct.error when cut off."""
    table = start + offset + 2
    (count,) = struct.unpack_from(order + "H", data, table - 2)
    rows = np.frombuffer(data[table : table + 12 * count], np.dtype(order + "u2"))[: 6 * count]
    (following,) = struct.unpack_from(order + "I", data.ljust(table + 12 * count + 4, b"\0"), table + 12 * count)
    return set(rows[::6].tolist()), following
