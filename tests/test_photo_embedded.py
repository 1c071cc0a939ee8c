"""Pictures inside other data: none stays under any policy, in whatever coding, and the last look finds each."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import re
import struct
import urllib.parse
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from bauta.errors import OutputError
from bauta.photo import MetadataPolicy, embedded_pictures, read_photo
from bauta.photo.embedded import carve, holds_picture
from photo_builders import (
    PROFILE,
    XMP,
    add_jpeg_segments,
    add_png_chunks,
    encode,
    exif,
    heic,
    iptc,
    jpeg_segments,
    photoshop_resource,
    scene,
    tiff_block,
    xmp_packet,
)

POLICIES = list(MetadataPolicy)
SEEN = [MetadataPolicy.PRIVATE, MetadataPolicy.KEEP]


def small(format_name, **options):
    return encode(scene(40, 48, seed=7), format_name, **options)


PICTURES = {
    "jpeg": small("JPEG"),
    "png": small("PNG"),
    "webp": small("WEBP"),
    "bmp": small("BMP"),
    "dib": small("BMP")[14:],
    "gif": small("GIF"),
    "tiff": small("TIFF"),
    "jpeg 2000": small("JPEG2000"),
    "avif": small("AVIF"),
    "heic": heic(scene(64, 64), quality=50),
}


def utf_16(data):
    return base64.b64encode(data).decode().encode("utf-16-le")


def zipped(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("picture", data)
    return buffer.getvalue()


def bare_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def drawing(data):
    """What a drawing program leaves: JSON with a packed JSON with the picture's data URI."""
    inner = json.dumps({"files": {"a": {"dataURL": "data:image/png;base64," + base64.b64encode(data).decode()}}})
    packed = zlib.compress(inner.encode()).decode("latin-1")
    return json.dumps({"encoding": "bstring", "compressed": True, "encoded": packed}).encode("latin-1")


CODINGS = {
    "raw": lambda data: b"before" + data,
    "base64": lambda data: b"p:" + base64.b64encode(data),
    "base64 in lines": lambda data: base64.encodebytes(data),
    "base64 behind letters": lambda data: b"JPEG" + base64.b64encode(data),
    "base64 for addresses": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "data uri": lambda data: b"url(data:image/x;base64," + base64.b64encode(data) + b")",
    "base64 in percent signs": lambda data: urllib.parse.quote(base64.b64encode(data), safe="").encode(),
    "base64 in json": lambda data: json.dumps({"a": base64.b64encode(data).decode()}).replace("/", "\\/").encode(),
    "wide base64": utf_16,
    "hexadecimal": lambda data: data.hex().encode(),
    "hexadecimal in lines": lambda data: data.hex(" ", 20).encode(),
    "numbers": lambda data: str(list(data)).encode(),
    "numbers with spaces": lambda data: " ".join(map(str, data)).encode(),
    "c": lambda data: ", ".join(f"0x{byte:02X}" for byte in data).encode(),
    "octal": lambda data: "".join(f"\\{byte:03o}" for byte in data).encode(),
    "ascii85": lambda data: base64.a85encode(data, adobe=True),
    "zlib": lambda data: b"xx" + zlib.compress(data),
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "base64 of zlib": lambda data: base64.b64encode(zlib.compress(data)),
    "base64 of deflate": lambda data: base64.b64encode(bare_deflate(base64.b64encode(data))),
    "drawing": drawing,
    "json of bytes": lambda data: json.dumps({"a": data.decode("latin-1")}).encode(),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_noticed_in_any_coding(kind, coding):
    assert holds_picture(CODINGS[coding](PICTURES[kind]))


UNKNOWN = {
    "base32": base64.b32encode,
    "base32 in lines": lambda data: b"\n".join(re.findall(rb".{1,76}", base64.b32encode(data))),
    "base85": base64.b85encode,
    "ascii85 without its frame": base64.a85encode,
    "wide base85": lambda data: base64.b85encode(data).decode().encode("utf-16-le"),
    "base32 backwards": lambda data: base64.b32encode(data)[::-1],
    "base64 backwards": lambda data: base64.b64encode(data)[::-1],
}


@pytest.mark.parametrize("coding", UNKNOWN)
@pytest.mark.parametrize("kind", ["jpeg", "webp", "png"])
def test_a_text_in_an_unknown_coding_counts_as_a_picture(kind, coding):
    assert holds_picture(UNKNOWN[coding](PICTURES[kind]))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "gif", "tiff", "heic"])
def test_a_picture_is_carved_out_of_any_coding(kind, coding):
    sizes = {found.pixels.shape[:2] for found in carve(CODINGS[coding](PICTURES[kind])) if found.pixels is not None}
    assert (64, 64) in sizes or (40, 48) in sizes


@pytest.mark.parametrize(
    "text",
    [
        "A walk by the sea, 12 May 2024",
        "Bm Riff webp ftyp jpeg png: words that name formats",
        "https://example.org/a/very/long/path/of/words/that/could/be/base64/if/one/wanted/it/to/be/so",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "Ünïcödé and 日本語の写真、海の近くで" * 20,
        "P4 is where we parked, 100 200 metres on",
        "x" * 2_000,
        "word " * 20_000,
        json.dumps({"numbers": list(range(200))}),
        " ".join(f"https://example.org/album/{number}/photo.jpg?size=large&from=page" for number in range(40)),
        "Photos: " + ",".join(f"IMG_{number}.JPG" for number in range(2000, 2200)),
    ],
    ids=range(11),
)
def test_ordinary_texts_hold_no_picture(text):
    assert not holds_picture(text.encode())
    assert not holds_picture(text.encode("utf-16-le"))
    assert not list(carve(text.encode()))


def test_ordinary_metadata_holds_no_picture():
    for data in (PROFILE, exif(thumbnail=False), np.random.default_rng(3).bytes(20_000)):
        assert not list(carve(data))
    assert not holds_picture(exif(thumbnail=False))


def test_a_stream_that_unpacks_without_end_counts_as_a_picture():
    assert holds_picture(zlib.compress(bytes(2**26), 9))
    assert [found.pixels for found in carve(zlib.compress(bytes(2**26), 9))] == [None]


def test_packed_pixels_without_a_header_count_as_a_picture():
    assert holds_picture(zlib.compress(scene(60, 60, seed=9).tobytes()))
    assert not holds_picture(zlib.compress(b"A long description. " * 1000))


def test_codings_that_nothing_here_unpacks_count_as_pictures():
    unknown = np.random.default_rng(4).bytes(3000)
    for text in (base64.b64encode(unknown), unknown.hex().encode(), str(list(unknown)).encode()):
        assert holds_picture(b"scene: " + text)
    assert not holds_picture(base64.b64encode(b"a long signed text, " * 400))
    assert holds_picture(bytes(5 * 2**20))


def xmp_with(text):
    return xmp_packet(b"<y:anything>" + text + b"</y:anything>")


def in_list(text):
    step = max(1, len(text) // 5)
    items = b"".join(b"<rdf:li>" + text[at : at + step] + b"</rdf:li>" for at in range(0, len(text), step))
    return xmp_packet(b"<y:parts><rdf:Seq>" + items + b"</rdf:Seq></y:parts>")


def encoded(kind):
    return base64.b64encode(PICTURES[kind])


def user_comment(content):
    return tiff_block("<", [], [(0x8769, [(0x9286, 7, len(content), content)])])


def jpeg(*segments, **options):
    return add_jpeg_segments(encode(scene(), "JPEG", **options), *segments)


def png(*chunks):
    return add_png_chunks(encode(scene(), "PNG"), *chunks)


def split(marker, head, content, size=400):
    return [(marker, head + content[at : at + size]) for at in range(0, len(content), size)]


def international(keyword, text, *, packed):
    body = zlib.compress(text) if packed else text
    return (b"iTXt", keyword + (b"\0\1\0\0\0" if packed else bytes(5)) + body)


CARRIERS = {
    "xmp base64 jpeg": lambda: jpeg(xmp=xmp_with(encoded("jpeg"))),
    "xmp base64 png": lambda: jpeg(xmp=xmp_with(b"data:image/png;base64," + encoded("png"))),
    "xmp base64 webp": lambda: jpeg(xmp=xmp_with(b" " + encoded("webp"))),
    "xmp base64 bmp": lambda: jpeg(xmp=xmp_with(encoded("bmp"))),
    "xmp attribute": lambda: jpeg(xmp=xmp_packet(attributes=b'y:a="' + encoded("jpeg") + b'"')),
    "xmp list of pieces": lambda: jpeg(xmp=in_list(encoded("png"))),
    "xmp caption that is a picture": lambda: jpeg(
        xmp=xmp_packet(b"<dc:description>data:image/jpeg;base64," + encoded("jpeg") + b"</dc:description>")
    ),
    "xmp hexadecimal": lambda: jpeg(xmp=xmp_with(PICTURES["jpeg"].hex().encode())),
    "user comment raw": lambda: jpeg(exif=user_comment(bytes(8) + PICTURES["jpeg"])),
    "user comment base64": lambda: jpeg(exif=user_comment(b"ASCII\0\0\0" + encoded("png"))),
    "user comment wide": lambda: jpeg(exif=user_comment(b"UNICODE\0" + utf_16(PICTURES["webp"]))),
    "image description": lambda: jpeg(exif=tiff_block("<", [(0x010E, 2, len(encoded("bmp")), encoded("bmp"))])),
    "unknown exif field": lambda: jpeg(exif=tiff_block("<", [(0x9999, 7, len(PICTURES["gif"]), PICTURES["gif"])])),
    "exif raw pixels": lambda: jpeg(exif=tiff_block("<", [(0x9999, 7, 4800, scene(40, 40, seed=9).tobytes())])),
    "maker note": lambda: jpeg(
        exif=tiff_block("<", [], [(0x8769, [(0x927C, 7, len(PICTURES["png"]), PICTURES["png"])])])
    ),
    "iptc preview bmp": lambda: jpeg((0xED, photoshop(iptc(202, PICTURES["bmp"])))),
    "iptc preview jpeg": lambda: jpeg((0xED, photoshop(iptc(202, PICTURES["jpeg"])))),
    "iptc preview raw": lambda: jpeg(
        (0xED, photoshop(iptc(200, b"\0\0") + iptc(202, scene(20, 20, seed=9).tobytes())))
    ),
    "iptc object data": lambda: jpeg((0xED, photoshop(iptc(10, scene(20, 20, seed=9).tobytes(), record=8)))),
    "iptc caption": lambda: jpeg((0xED, photoshop(iptc(120, encoded("webp"))))),
    "photoshop resource": lambda: jpeg((0xED, b"Photoshop 3.0\0" + photoshop_resource(0x0FA1, PICTURES["png"]))),
    "flir png": lambda: jpeg((0xE1, b"FLIR\0\1\0\0" + PICTURES["png"])),
    "flir in pieces": lambda: jpeg(
        *[(0xE1, b"FLIR\0\1" + bytes([n, 2]) + part) for n, part in enumerate(halves(PICTURES["png"]))]
    ),
    "unknown segment": lambda: jpeg((0xE4, b"SOMETHING" + PICTURES["webp"])),
    "unknown segments in pieces": lambda: jpeg(*split(0xE7, b"MINE\0", PICTURES["png"])),
    "base64 in pieces": lambda: jpeg(*split(0xE9, b"B64\0", base64.b64encode(PICTURES["png"]))),
    "raw pixels in a segment": lambda: jpeg((0xE3, scene(40, 40, seed=9).tobytes())),
    "comment": lambda: jpeg((0xFE, b"picture: " + encoded("jpeg"))),
    "multi-picture": lambda: jpeg((0xE2, b"MPF\0II*\0")) + PICTURES["jpeg"],
    "behind the end of jpeg": lambda: jpeg() + bytes(30) + PICTURES["png"],
    "film behind jpeg": lambda: jpeg() + b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\0\0\0\x08mdat" + PICTURES["jpeg"],
    "png text": lambda: png((b"tEXt", b"Comment\0" + encoded("jpeg"))),
    "png packed text": lambda: png((b"zTXt", b"Anything\0\0" + zlib.compress(encoded("png")))),
    "png international text": lambda: png(international(b"Note", encoded("webp"), packed=True)),
    "png drawing": lambda: png((b"tEXt", b"application/vnd.excalidraw+json\0" + drawing(PICTURES["jpeg"]))),
    "png drawing of another name": lambda: png(international(b"scene2", drawing_in_utf_8("png"), packed=False)),
    "png mxfile": lambda: png((b"zTXt", b"mxfile\0\0" + zlib.compress(urllib.parse.quote(encoded("png")).encode()))),
    "png raw profile": lambda: png(
        (b"zTXt", b"Raw profile type 8bim\0\0" + zlib.compress(b"\n8bim\n 9\n" + PICTURES["bmp"].hex().encode()))
    ),
    "png unknown chunk": lambda: png((b"prVt", PICTURES["gif"])),
    "png chunk of pixels": lambda: png((b"mkBT", zlib.compress(scene(40, 40, seed=9).tobytes()))),
    "png chunk of unknown pixels": lambda: png((b"zzZt", zlib.compress(scene(50, 50, seed=9).tobytes()))),
    "xmp in png text": lambda: png((b"tEXt", b"XML:com.adobe.xmp\0" + xmp_with(encoded("jpeg")))),
    "xmp in packed png text": lambda: png(
        (b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(xmp_with(encoded("png"))))
    ),
    "second xmp in png": lambda: png(
        (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP), (b"tEXt", b"XML:com.adobe.xmp\0" + xmp_with(encoded("jpeg")))
    ),
    "behind the end of png": lambda: png() + PICTURES["jpeg"],
    "webp chunk": lambda: webp_with(b"THUM", PICTURES["jpeg"]),
    "behind the end of webp": lambda: encode(scene(), "WEBP") + PICTURES["png"],
    "webp xmp": lambda: encode(scene(), "WEBP", xmp=xmp_with(encoded("jpeg"))),
    "heic xmp": lambda: heic(scene(), quality=50, xmp=xmp_with(encoded("png"))),
    "heic exif": lambda: heic(scene(), quality=50, exif=b"Exif\0\0" + user_comment(bytes(8) + PICTURES["jpeg"])),
    "avif xmp": lambda: encode(scene(), "AVIF", xmp=xmp_with(encoded("jpeg"))),
    "tiff page": lambda: encode(scene(), "TIFF", save_all=True, append_images=[]) and tiff_with_thumbnail(),
    "tiff field": lambda: encode(scene(), "TIFF", tiffinfo={50000: PICTURES["png"]}),
    "tiff description": lambda: encode(scene(), "TIFF", description=encoded("jpeg").decode()),
    "tiff xmp": lambda: encode(scene(), "TIFF", tiffinfo={700: xmp_with(encoded("webp"))}),
    "profile": lambda: encode(scene(), "PNG", icc_profile=profile_with(PICTURES["jpeg"])),
    "behind the profile": lambda: encode(scene(), "PNG", icc_profile=PROFILE + PICTURES["png"]),
}


def halves(data):
    return data[: len(data) // 2], data[len(data) // 2 :]


def photoshop(datasets):
    return b"Photoshop 3.0\0" + photoshop_resource(0x0404, datasets)


def drawing_in_utf_8(kind):
    return json.dumps(json.loads(drawing(PICTURES[kind]).decode("latin-1")), ensure_ascii=False).encode()


def webp_with(name, content):
    data = encode(scene(), "WEBP", xmp=b"<x/>") + struct.pack("<4sI", name, len(content)) + content
    data += bytes(len(content) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def tiff_with_thumbnail():
    import tifffile

    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(scene(), photometric="rgb", metadata=None)
        writer.write(scene(24, 32), photometric="rgb", subfiletype=1, metadata=None)
    return buffer.getvalue()


def profile_with(picture):
    """A sound profile whose last tag holds a whole picture."""
    data = PROFILE + picture
    return struct.pack(">I", len(data)) + data[4:]


@pytest.mark.parametrize("policy", SEEN)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_no_picture_stays_in_any_carrier(carrier, policy):
    photo = read_photo(CARRIERS[carrier]())
    result = photo.encode(metadata=policy)
    assert embedded_pictures(result) == []
    unsigned = (
        scene(40, 40, seed=9).tobytes()[:64],
        zlib.compress(scene(40, 40, seed=9).tobytes())[:64],
        scene(20, 20, seed=9).tobytes()[:64],
    )
    codings = [coding(data)[-60:-12] for data in PICTURES.values() for coding in (bytes, base64.b64encode)]
    pieces = [piece for piece in (*unsigned, *codings) if piece in result]
    assert pieces == []
    assert photo.removed(policy)


WITHOUT_SIGNATURE = {
    *("exif raw pixels", "iptc preview raw", "iptc object data", "raw pixels in a segment"),
    *("png chunk of pixels", "png chunk of unknown pixels"),
}


@pytest.mark.parametrize("carrier", sorted(CARRIERS.keys() - WITHOUT_SIGNATURE))
def test_the_last_look_finds_what_was_not_removed(carrier):
    assert embedded_pictures(CARRIERS[carrier]())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
def test_the_last_look_finds_nothing_in_clean_files(format_name, policy):
    array = np.random.default_rng(5).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    data = heic(array, quality=80) if format_name == "HEIC" else encode(array, format_name, exif=exif(thumbnail=False))
    assert embedded_pictures(data) == []
    assert embedded_pictures(read_photo(data).encode(metadata=policy)) == []


@pytest.mark.parametrize("carrier", ["xmp base64 jpeg", "png text", "tiff field", "webp xmp", "iptc preview bmp"])
def test_a_file_that_still_holds_a_picture_is_not_handed_out(carrier, monkeypatch, tmp_path):
    photo = read_photo(CARRIERS[carrier]())
    monkeypatch.setattr("bauta.photo.metadata.Metadata.under", lambda self, policy: self)  # cleaning forgets all
    with pytest.raises(OutputError, match="another picture") as caught:
        photo.save(tmp_path / f"out{photo.suffix}")
    assert "--strip-metadata" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_thumbnails_that_a_container_lists_are_found():
    import pillow_heif

    buffer = io.BytesIO()
    image = Image.fromarray(scene(160, 200))
    image.info["thumbnails"] = [64]
    pillow_heif.from_pillow(image).save(buffer, quality=60)
    assert [found.path for found in embedded_pictures(buffer.getvalue())] == [("thumbnails",)]
    assert read_photo(buffer.getvalue()).removed() == {"embedded pictures": 1}


MARKS = {  # profiles that hold the first bytes of pictures by chance
    "jpeg": b"\xff\xd8\xff\xe0" * 4,
    "png": b"\x89PNG\r\n\x1a\n",
    "bmp": b"BM\1\1\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    "base64": b"/9j/4AAQ" + bytes(8),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_with_the_marks_of_a_picture_stays_bit_for_bit(format_name, mark, policy):
    profile = profile_with(MARKS[mark])
    result = read_photo(encode(scene(), format_name, icc_profile=profile)).encode(metadata=policy)
    assert Image.open(io.BytesIO(result)).info["icc_profile"] == profile


@pytest.mark.parametrize("policy", POLICIES)
def test_a_long_profile_comes_back_from_its_segments(policy):
    profile = profile_with(np.random.default_rng(1).bytes(150_000))
    data = encode(scene(), "JPEG", icc_profile=profile)
    assert sum(marker == 0xE2 for marker, _ in jpeg_segments(data)) == 3
    assert Image.open(io.BytesIO(read_photo(data).encode(metadata=policy))).info["icc_profile"] == profile


def test_what_is_no_profile_goes():
    for profile in (b"SECRET" * 50, PROFILE[:36] + b"nope" + PROFILE[40:] + b"SECRET", PROFILE[:-50] + b"SECRET"):
        photo = read_photo(encode(scene(), "PNG", icc_profile=profile))
        assert b"icc_profile" not in photo.encode()
        assert Image.open(io.BytesIO(photo.encode())).info.get("icc_profile") is None
        assert photo.removed() == {"unreadable parts": 1}


def test_the_thumbnail_of_jfif_goes_and_is_counted():
    data = encode(scene(), "JPEG")
    header = data[6:20][:-2] + bytes([8, 8]) + bytes(range(192))
    photo = read_photo(data[:2] + struct.pack(">BBH", 255, 0xE0, len(header) + 2) + header + data[20:])
    assert photo.removed()["embedded pictures"] == 1
    assert bytes(range(100)) not in photo.encode()
