from __future__ import annotations

import io
import time
import zlib

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bauta.photo import MetadataPolicy, read_photo
from photo_builders import (
    PROFILE,
    THUMBNAIL_MARK,
    XMP,
    add_jpeg_segments,
    add_png_chunks,
    encode,
    exif,
    iptc,
    jpeg_segments,
    photoshop_resource,
    photoshop_resources,
    png_chunks,
    save,
    scene,
    tiff_block,
    xmp_packet,
)

PRIVATE, KEEP, STRIP = MetadataPolicy.PRIVATE, MetadataPolicy.KEEP, MetadataPolicy.STRIP


def jpeg(**options):
    return encode(scene(), "JPEG", quality=85, **options)


def heic():
    buffer = io.BytesIO()
    image = Image.fromarray(scene(160, 200))
    image.info["thumbnails"] = [64]
    pillow_heif.from_pillow(image).save(buffer, quality=60, exif=b"Exif\0\0" + exif(), xmp=XMP, icc_profile=PROFILE)
    return buffer.getvalue()


def tiff(order="<"):
    """A TIFF with camera fields in its own directory tree, laid out by Pillow, then checked in place."""
    image = Image.fromarray(scene())
    fields = Image.Exif()
    fields.load(exif(order))
    fields[700] = XMP
    fields[34377] = photoshop_resources()
    return save(image, "TIFF", exif=fields, icc_profile=PROFILE)


CARRIERS = {
    "jpeg": lambda: add_jpeg_segments(
        jpeg(exif=exif(), xmp=XMP, icc_profile=PROFILE), (0xED, b"Photoshop 3.0\0" + photoshop_resources())
    ),
    "png": lambda: add_png_chunks(
        encode(scene(), "PNG", icc_profile=PROFILE),
        (b"eXIf", exif()),
        (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP),
    ),
    "webp": lambda: encode(scene(), "WEBP", exif=exif(), xmp=XMP, icc_profile=PROFILE),
    "webp-lossless": lambda: encode(scene(), "WEBP", lossless=True, exif=exif(), xmp=XMP, icc_profile=PROFILE),
    "tiff": tiff,
    "heic": heic,
}

ALWAYS_GONE = [THUMBNAIL_MARK, b"/9j/4THUMB", b"thumb-5", b"thumb-4", b"GUID-OF-DEPTH"]
GONE_WHEN_PRIVATE = [
    b"SERIAL",
    b"OWNER-NAME",
    b"UNIQUE-ID",
    b"59,20N",
    b"18,4E",
    b"PERSON-NAME",
    b"MakerNote",
]
DESCRIPTIONS = [
    b"Camera 1",
    b"2024:05:06 07:08:09",
    b"Lens 50mm",
    b"(c) A. Person",
    b"Darkroom 3",
    b"A title &amp; more",
]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_the_builders_put_everything_in(carrier):
    data = CARRIERS[carrier]()
    everything = GONE_WHEN_PRIVATE + DESCRIPTIONS
    assert [text for text in everything if text not in data] == []


@pytest.mark.parametrize("carrier", CARRIERS)
def test_private_removes_what_identifies_and_keeps_the_rest(carrier):
    result = read_photo(CARRIERS[carrier]()).encode()
    assert [text for text in ALWAYS_GONE + GONE_WHEN_PRIVATE if text in result] == []
    assert [text for text in DESCRIPTIONS if text not in result] == []
    assert profile_of(result) == PROFILE


@pytest.mark.parametrize("carrier", CARRIERS)
def test_keep_removes_embedded_pictures_only(carrier):
    result = read_photo(CARRIERS[carrier]()).encode(metadata=KEEP)
    assert [text for text in ALWAYS_GONE if text in result] == []
    assert [text for text in GONE_WHEN_PRIVATE + DESCRIPTIONS if text not in result] == []
    assert profile_of(result) == PROFILE


@pytest.mark.parametrize("carrier", CARRIERS)
def test_strip_keeps_the_profile_only(carrier):
    result = read_photo(CARRIERS[carrier]()).encode(metadata=STRIP)
    everything = ALWAYS_GONE + GONE_WHEN_PRIVATE + DESCRIPTIONS
    assert [text for text in everything if text in result] == []
    assert profile_of(result) == PROFILE


def profile_of(data):
    if data[4:8] == b"ftyp":
        return pillow_heif.open_heif(data).info["icc_profile"]
    return Image.open(io.BytesIO(data)).info["icc_profile"]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_strip_keeps_the_orientation(format_name, orientation, order):
    data = encode(scene(), format_name, exif=exif(order, orientation))
    fields = Image.open(io.BytesIO(read_photo(data).encode(metadata=STRIP))).getexif()
    assert fields.get(0x0112, 1) == orientation
    assert set(fields) <= {0x0112}


@pytest.mark.parametrize("byteorder", "<>")
def test_strip_keeps_the_orientation_of_a_tiff(byteorder):
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        scene(),
        byteorder=byteorder,
        photometric="rgb",
        metadata=None,
        description="A DESCRIPTION",
        extratags=[(0x0112, "H", 1, 6, True)],
    )
    photo = read_photo(buffer.getvalue())
    assert photo.pixels.shape == (128, 96, 3)
    assert b"A DESCRIPTION" in photo.encode()
    stripped = photo.encode(metadata=STRIP)
    assert b"A DESCRIPTION" not in stripped
    np.testing.assert_array_equal(read_photo(stripped).pixels, photo.pixels)


@pytest.mark.parametrize("order", "<>")
def test_what_stays_of_exif_reads_the_same(order):
    data = jpeg(exif=exif(order, 6))
    before, after = (Image.open(io.BytesIO(each)).getexif() for each in (data, read_photo(data).encode()))
    assert set(before) - set(after) == {0x8825, 0xC62F}
    assert {tag: after[tag] for tag in after} == {tag: before[tag] for tag in after}
    camera_before, camera_after = before.get_ifd(0x8769), after.get_ifd(0x8769)
    assert set(camera_before) - set(camera_after) == {0x927C, 0xA420, 0xA430, 0xA431, 0xA435}
    assert {tag: camera_before[tag] for tag in camera_after} == camera_after
    assert after.get_ifd(0x8825) == {}
    assert after.get_ifd(1) == {}


def test_maker_notes_stay_where_their_offsets_point():
    block = exif("<")
    result = read_photo(jpeg(exif=block)).encode(metadata=KEEP)
    kept = next(body for marker, body in jpeg_segments(result) if body.startswith(b"Exif\0\0"))[6:]
    assert kept.index(b"MakerNote") == block.index(b"MakerNote")
    assert len(kept) < len(block)


def test_a_maker_note_with_a_preview_inside_goes_even_when_kept():
    note = b"Nikon" + THUMBNAIL_MARK
    block = tiff_block("<", [], [(0x8769, [(0x927C, 7, len(note), note), (0x9286, 7, 8, b"COMMENT!")])])
    result = read_photo(jpeg(exif=block)).encode(metadata=KEEP)
    assert THUMBNAIL_MARK not in result
    assert b"COMMENT!" in result


def test_bytes_that_no_field_refers_to_are_not_copied():
    block = tiff_block("<", [(0x010F, 2, 6, b"Maker\0")]) + b"LEFTOVER OF AN EDITOR"
    result = read_photo(jpeg(exif=block)).encode(metadata=KEEP)
    assert b"LEFTOVER" not in result
    assert b"Maker" in result


@pytest.mark.parametrize(
    "packet",
    [
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><unclosed>SECRET",
        b"SECRET, not XML at all",
        b"<!DOCTYPE x [<!ENTITY a 'SECRET'>]><x>&a;</x>",
        b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x a='SECRET'>&a;</x>",
        b"\xff\xfe\x00\x01SECRET",
        b"<x:a>SECRET</x:a>",
    ],
    ids=["cut off", "no xml", "entity", "file", "bytes", "prefix"],
)
@pytest.mark.parametrize("policy", [PRIVATE, KEEP])
def test_xmp_that_cannot_be_read_is_dropped(packet, policy):
    assert b"SECRET" not in read_photo(jpeg(xmp=packet)).encode(metadata=policy)


def test_a_picture_in_xmp_is_found_in_cdata_and_comments():
    packet = xmp_packet(
        b"<!-- /9j/SECRET --><y:a><![CDATA[/9j/SECRET]]></y:a><xmp:Label>kept<!-- SECRET --></xmp:Label>",
        after=b"<!-- SECRET -->",
    )
    for policy in (PRIVATE, KEEP):
        result = read_photo(jpeg(xmp=packet)).encode(metadata=policy)
        assert b"SECRET" not in result
        assert b"<xmp:Label>kept</xmp:Label>" in result


def test_deeply_nested_xmp_is_dropped():
    packet = b"<a>" * 5000 + b"SECRET" + b"</a>" * 5000
    assert b"SECRET" not in read_photo(jpeg(xmp=packet)).encode()


def test_xmp_keeps_its_wrapper_and_prefixes():
    result = read_photo(jpeg(xmp=XMP)).encode()
    assert b"<?xpacket begin=" in result
    assert b'<?xpacket end="w"?>' in result
    assert b"xmp:CreatorTool=" in result


def test_compressed_xmp_in_a_png_is_cleaned():
    import zlib

    chunk = (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    result = read_photo(add_png_chunks(encode(scene(), "PNG"), chunk)).encode()
    text = png_chunks(result)[b"iTXt"]
    assert b"Darkroom 3" in text
    assert b"SERIAL" not in text


def test_a_bomb_of_compressed_xmp_is_dropped():
    import zlib

    bomb = (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 2**26, 9))
    assert b"iTXt" not in png_chunks(read_photo(add_png_chunks(encode(scene(), "PNG"), bomb)).encode())


JPEG_SEGMENTS = {
    # name: (segment, stays under PRIVATE, stays under KEEP)
    "comment": ((0xFE, b"A COMMENT"), True, True),
    "jfif-extension": ((0xE0, b"JFXX\0\x10" + b"SMALL PICTURE"), False, False),
    "extended-xmp": ((0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"ORIGINAL"), False, False),
    "unknown-app1": ((0xE1, b"QVCI\0 CAMERA"), False, True),
    "multi-picture": ((0xE2, b"MPF\0" + b"II*\0"), False, False),
    "flashpix": ((0xE2, b"FPXR\0" + b"PREVIEW"), False, False),
    "gain-map": ((0xE2, b"urn:iso:std:iso:ts:21496:-1\0"), False, False),
    "kodak-meta": ((0xE3, b"Meta\0\0"), False, True),
    "hidden-preview": ((0xE3, b"Preview" + THUMBNAIL_MARK), False, False),
    "ricoh": ((0xE5, b"RMETA SERIAL"), False, True),
    "gopro": ((0xE6, b"GPMF GPS"), False, True),
    "provenance": ((0xEB, b"JP\0\1 jumb c2pa"), False, False),
    "ducky": ((0xEC, b"Ducky\0\1"), False, True),
}


@pytest.mark.parametrize("name", JPEG_SEGMENTS)
def test_jpeg_segments(name):
    segment, private, keep = JPEG_SEGMENTS[name]
    photo = read_photo(add_jpeg_segments(jpeg(), segment))
    assert (segment in jpeg_segments(photo.encode())) == private
    assert (segment in jpeg_segments(photo.encode(metadata=KEEP))) == keep
    assert segment not in jpeg_segments(photo.encode(metadata=STRIP))


@pytest.mark.parametrize("policy", [PRIVATE, KEEP])
def test_resources_of_other_programs_do_not_cost_the_caption(policy):
    foreign = b"MeSa" + photoshop_resource(0x1B00, b"SECRET")[4:]
    data = add_jpeg_segments(jpeg(), (0xED, b"Photoshop 3.0\0" + foreign + photoshop_resources()))
    result = read_photo(data).encode(metadata=policy)
    assert b"CAPTION IPTC" in result
    assert b"SECRET" not in result


METADATA_BOMBS = {
    "elements": lambda: jpeg_like(xmp=xmp_packet(b"<y:a>1</y:a>" * 25_000)),
    "attributes": lambda: jpeg_like(xmp=xmp_packet(b"".join(b"<y:a y:b='%d'/>" % n for n in range(4_000)))),
    "datasets": lambda: add_jpeg_segments(
        jpeg(), *[(0xED, b"Photoshop 3.0\0" + photoshop_resource(0x0404, iptc(25, b"x") * 4_000))] * 2
    ),
    "texts": lambda: add_png_chunks(encode(scene(), "PNG"), *[(b"tEXt", b"Comment\0" + b"x" * 50)] * 500),
    "fields": lambda: jpeg(exif=tiff_block("<", [(0x9000 + n, 7, 5, b"abcde") for n in range(3_000)])),
    "base64": lambda: jpeg_like(xmp=xmp_packet(b"<y:a>" + b"QUJD" * 900_000 + b"</y:a>")),
    "a large text": lambda: add_png_chunks(encode(scene(), "PNG"), (b"tEXt", b"Comment\0" + b"caption " * 500_000)),
    "packed in packed": lambda: add_png_chunks(
        encode(scene(), "PNG"), (b"prVt", zlib.compress(zlib.compress(bytes(2**24), 9) * 40, 9))
    ),
}


def jpeg_like(xmp):
    return encode(scene(), "WEBP", xmp=xmp)  # of any length


@pytest.mark.parametrize("kind", METADATA_BOMBS)
def test_much_metadata_costs_little(kind):
    photo = read_photo(METADATA_BOMBS[kind]())
    for policy in (PRIVATE, KEEP):
        began = time.process_time()
        photo.encode(metadata=policy)
        assert time.process_time() - began < 4


def test_the_jfif_thumbnail_goes_and_the_density_stays():
    data = jpeg(dpi=(300, 300))
    segments = jpeg_segments(data)
    header = segments[0][1]
    assert header.startswith(b"JFIF\0")
    with_thumbnail = header[:12] + b"\2\2" + b"THUMBNAIL-PX"
    start = 2 + 4 + len(header)
    data = add_jpeg_segments(b"\xff\xd8" + data[start:], (0xE0, with_thumbnail))
    result = read_photo(data).encode(metadata=KEEP)
    assert b"THUMBNAIL-PX" not in result
    assert Image.open(io.BytesIO(result)).info["dpi"] == (300, 300)


def test_what_follows_the_picture_goes():
    data = jpeg() + jpeg() + b"ftypmp42 MOTION PHOTO"
    result = read_photo(data).encode(metadata=KEEP)
    assert b"MOTION" not in result
    assert result.count(b"\xff\xd8\xff") == 1


def test_long_photoshop_resources_are_split_again():
    long = b"".join(photoshop_resource(0x0404, iptc(120, b"Caption %d. " % index * 3_500)) for index in range(4))
    parts = [(0xED, b"Photoshop 3.0\0" + long[start : start + 60_000]) for start in range(0, len(long), 60_000)]
    segments = jpeg_segments(read_photo(add_jpeg_segments(jpeg(), *parts)).encode())
    assert b"".join(body[14:] for marker, body in segments if marker == 0xED) == long


def test_broken_photoshop_resources_are_dropped():
    broken = photoshop_resource(0x0404, iptc(120, b"SECRET"))[:-3]
    for resources in (broken, b"8BIMSECRET", b"nonsense SECRET", broken + photoshop_resources()):
        data = add_jpeg_segments(jpeg(), (0xED, b"Photoshop 3.0\0" + resources))
        assert b"SECRET" not in read_photo(data).encode(metadata=KEEP)


PNG_CHUNKS = {
    "density": ((b"pHYs", b"\0\0\x2e\x23\0\0\x2e\x23\1"), True, True, False),
    "time": ((b"tIME", b"\x07\xe8\5\6\7\x08\x09"), True, True, False),
    "gamma": ((b"gAMA", b"\0\0\xb1\x8f"), True, True, True),
    "video-colour": ((b"cICP", b"\x01\x0d\0\1"), True, True, True),
    "text": ((b"tEXt", b"Title\0A title"), True, True, False),
    "text-serial": ((b"tEXt", b"exif:BodySerialNumber\0123"), False, True, False),
    "text-position": ((b"tEXt", b"exif:GPSLatitude\059"), False, True, False),
    "text-thumbnail": ((b"tEXt", b"Thumb::URI\0file"), False, False, False),
    "raw-profile": ((b"zTXt", b"Raw profile type exif\0\0x\x9c"), False, False, False),
    "unknown-copyable": ((b"prVt", b"something"), False, True, False),
    "unknown-dependent": ((b"prVT", b"something"), False, False, False),
    "provenance": ((b"caBX", b"jumb"), False, False, False),
    "significant-bits": ((b"sBIT", b"\5\6\5"), False, False, False),
}


@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_png_chunks(name):
    (chunk, content), *stays = PNG_CHUNKS[name]
    photo = read_photo(add_png_chunks(encode(scene(), "PNG"), (chunk, content)))
    found = [png_chunks(photo.encode(metadata=policy)).get(chunk) for policy in (PRIVATE, KEEP, STRIP)]
    assert found == [content if kept else None for kept in stays]


def test_heic_thumbnails_and_depth_go():
    data = heic()
    assert pillow_heif.open_heif(data).info["thumbnails"]
    for policy in MetadataPolicy:
        info = pillow_heif.open_heif(read_photo(data).encode(metadata=policy)).info
        assert info["thumbnails"] == []
        assert info["depth_images"] == []


@pytest.mark.parametrize("count", [0, 3, 65535])
def test_an_exif_block_with_an_impossible_directory_is_dropped(count):
    block = b"II*\0\x08\0\0\0" + count.to_bytes(2, "little") + b"SECRET"
    result = read_photo(jpeg(exif=block)).encode()
    assert b"SECRET" not in result


def test_overlapping_values_do_not_multiply():
    body = 40_000
    rows = b"".join(
        (0x9000 + i).to_bytes(2, "little") + b"\7\0" + body.to_bytes(4, "little") + b"\x08\0\0\0" for i in range(3000)
    )
    block = (
        b"II*\0"
        + (60_000 - 40_000 + 24).to_bytes(4, "little")
        + bytes(20_016)
        + (3000).to_bytes(2, "little")
        + rows
        + bytes(4)
    )
    photo = read_photo(jpeg(exif=block[:65_000]))
    assert b"Exif" not in photo.encode()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_exif_never_leaks_or_crashes(data):
    block = bytearray(exif(data.draw(st.sampled_from("<>")), 6))
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    photo = read_photo(add_png_chunks(encode(scene(8, 8), "PNG"), (b"eXIf", bytes(block))))
    for policy in MetadataPolicy:
        result = photo.encode(metadata=policy)
        assert THUMBNAIL_MARK not in result
        again = read_photo(result)
        np.testing.assert_array_equal(again.pixels, photo.pixels)
