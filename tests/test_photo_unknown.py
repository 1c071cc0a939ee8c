"""Random unknown segments, chunks, fields, properties, datasets and resources never survive private."""

from __future__ import annotations

import struct
import zlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bauta.photo import MetadataPolicy, read_photo
from bauta.photo.attachment import FIELD
from bauta.photo.embedded import holds_picture
from photo_builders import (
    add_jpeg_segments,
    add_png_chunks,
    ascii_field,
    encode,
    iptc,
    photoshop_resource,
    scene,
    tiff_block,
    xmp_list,
    xmp_packet,
)

KEEP = MetadataPolicy.KEEP


def jpeg(*segments, **options):
    return add_jpeg_segments(encode(scene(24, 32), "JPEG", **options), *segments)


def png(*chunks):
    return add_png_chunks(encode(scene(24, 32), "PNG"), *chunks)


def private(data):
    return read_photo(data).encode()


SECRET = b"S3CR3T-4711-OF-SOMEBODY"
MARKED = st.binary(max_size=40).map(lambda noise: noise + SECRET + noise)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(marker=st.sampled_from([*range(0xE1, 0xF0)]), head=st.binary(max_size=30), content=MARKED)
def test_random_jpeg_segments_never_survive(marker, head, content):
    assert SECRET not in private(jpeg((marker, head + content)))


KNOWN_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"tEXt", b"zTXt", b"iTXt", b"iCCP"}
LETTERS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=4, max_size=4).map(str.encode)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(name=LETTERS.filter(lambda name: name not in KNOWN_CHUNKS), content=MARKED)
def test_random_png_chunks_never_survive(name, content):
    assert SECRET not in private(png((name, content)))


CAPTION_KEYS = {
    *("title", "description", "comment", "copyright", "creation time", "disclaimer", "warning", "software"),
    *("date:create", "date:modify", "date:timestamp"),
}
KEYS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=79)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(key=KEYS.filter(lambda key: key.strip().lower() not in CAPTION_KEYS), packed=st.booleans())
def test_random_png_keywords_never_survive(key, packed):
    body = zlib.compress(SECRET) if packed else SECRET
    result = private(png((b"iTXt", key.encode() + (b"\0\1\0\0\0" if packed else bytes(5)) + body)))
    assert body not in result


KNOWN_TAGS = {
    *(0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x8298, 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F),
    *(0x011A, 0x011B, 0x0128, 0x012D, 0x0132, 0x013E, 0x013F, 0x0211, 0x0212, 0x0213, 0x0214, 0x4746, 0x4749),
    *(0x8769, 0x8825, 0xA005),
}


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    tag=st.integers(1, 65535).filter(lambda tag: tag not in KNOWN_TAGS),
    kind=st.sampled_from([1, 2, 6, 7]),
    order=st.sampled_from("<>"),
    content=MARKED,
)
def test_random_exif_fields_never_survive(tag, kind, order, content):
    block = tiff_block(order, [(tag, kind, len(content), content), ascii_field(0x0110, "Camera 1")])
    result = private(jpeg(exif=block))
    assert SECRET not in result
    assert b"Camera 1" in result


STRUCTURE_TAGS = {*range(254, 348), 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 34675, 34377}


@settings(max_examples=60, deadline=None, derandomize=True)
@example(tag=FIELD, content=SECRET)  # the field that we use ourselves
@given(tag=st.integers(350, 65535).filter(lambda tag: tag not in KNOWN_TAGS | STRUCTURE_TAGS), content=MARKED)
def test_random_tiff_fields_never_survive(tag, content):
    data = encode(scene(8, 8), "TIFF")
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    row = struct.pack("<HHII", tag, 7, len(content), len(data))
    rows = [data[start + 2 + 12 * index : start + 14 + 12 * index] for index in range(count)]
    rows = sorted([*rows, row], key=lambda each: struct.unpack_from("<H", each)[0])
    where = len(data) + len(content) + len(content) % 2
    table = struct.pack("<H", count + 1) + b"".join(rows) + bytes(4)
    data = data[:4] + struct.pack("<I", where) + data[8:] + content + bytes(len(content) % 2) + table
    gone = (0x02BC, 0x8649, 0x935C, 0xC634, 0xC7A7, 0xCEA1)
    # What begins as a picture does goes under every policy, though it be noise.
    assert SECRET in read_photo(data).encode(metadata=KEEP) or tag in gone or holds_picture(content)
    assert SECRET not in private(data)


NAMES = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    prefix=st.sampled_from(["y", "xmpMM", "photoshop", "exif", "xmp", "dc", "Iptc4xmpExt"]), name=NAMES, inside=NAMES
)
def test_random_xmp_properties_never_survive(prefix, name, inside):
    name = "my" + name
    tag = f"{prefix}:{name}".encode()
    forms = [
        xmp_packet(attributes=tag + b'="' + SECRET + b'"'),
        xmp_packet(b"<%s>%s</%s>" % (tag, SECRET, tag)),
        xmp_packet(xmp_list(tag, SECRET)),
        xmp_packet(b"<dc:title>a<y:%s>%s</y:%s></dc:title>" % (inside.encode(), SECRET, inside.encode())),
    ]
    for packet in forms:
        assert SECRET not in private(encode(scene(8, 8), "WEBP", lossless=True, xmp=packet))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(record=st.integers(1, 9), number=st.integers(0, 255))
def test_random_iptc_datasets_never_survive(record, number):
    known = record == 2 and number in {5, 12, 15, 20, 25, 105, 116, 120, 0, 10, *range(30, 76), 130, 131, 135}
    if not known:
        data = jpeg((0xED, b"Photoshop 3.0\0" + photoshop_resource(0x0404, iptc(number, SECRET, record))))
        assert SECRET not in private(data)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(number=st.integers(0, 65535).filter(lambda number: number != 0x0404))
def test_random_photoshop_resources_never_survive(number):
    assert SECRET not in private(jpeg((0xED, b"Photoshop 3.0\0" + photoshop_resource(number, SECRET))))
