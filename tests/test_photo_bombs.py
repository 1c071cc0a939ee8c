"""Files made to exhaust the computer: small ones that would take hours, and two hundred damaged ones of every format.

What once took hours would still be running when the limit of a test is over.
"""

from __future__ import annotations

import io
import multiprocessing
import resource
import struct
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bauta.clips.animation import read_moving
from bauta.clips.clip import read_clip
from bauta.errors import BautaError, OutputError
from bauta.photo import MetadataPolicy, embedded_pictures, read_photo
from bauta.photo.cleaning import Cleaning, against_text
from bauta.photo.embedded import holds_picture
from clip_builders import write_clip
from photo_builders import (
    PROFILE,
    add_jpeg_segments,
    add_png_chunks,
    encode,
    exif,
    heic,
    iptc,
    photoshop_resource,
    scene,
    tiff_block,
    xmp_list,
    xmp_packet,
)

PRIVATE, KEEP = MetadataPolicy.PRIVATE, MetadataPolicy.KEEP
SIZE = 200_000
TEXTS = {  # each made of pieces at which a careless pattern begins anew, and goes on to the end
    "tags": b"</" + b"<" * SIZE,
    "ascii85": b"<~" * (SIZE // 2),
    "uuencode": b"begin 644 " * (SIZE // 10),
    "comments of a pnm": b"P1 \n#" * (SIZE // 5),
    "one long comment": b"P1 " + b"#\n" * (SIZE // 2),
    "steps": b"steps:1," * (SIZE // 8),
    "steps and spaces": b"steps" + b" " * SIZE,
    "backslashes": b"\\" * SIZE,
    "slashes": b"/" * SIZE,
    "numbers": (b"1 , " * 62 + b"x") * (SIZE // 249),
    "hexadecimal": (b"ab " * 31 + b"x") * (SIZE // 94),
    "words like base64": (b"QUJD" * 11 + b" ") * (SIZE // 45),
    "lines like base64": (b"QUJD" * 4 + b"\n") * (SIZE // 17),
    "escapes": b"\\u0041" * (SIZE // 6),
    "degrees": b"1" * SIZE,
}


@pytest.mark.parametrize("kind", TEXTS)
def test_no_text_is_looked_through_again_and_again(kind):
    holds_picture(TEXTS[kind])
    against_text(TEXTS[kind].decode())
    data = add_png_chunks(encode(scene(), "PNG"), *[(b"zTXt", b"Comment\0\0" + zlib.compress(TEXTS[kind], 9))] * 12)
    assert len(data) < 100_000
    for policy in (PRIVATE, KEEP):
        assert read_photo(data).encode(metadata=policy)


def tiffs_that_share_a_directory():
    fields, headers = 4000, 1500
    table = struct.pack("<H", fields) + struct.pack("<HHII", 0x100, 3, 1, 1) * fields + bytes(4)
    return b"".join(b"II*\0" + struct.pack("<I", 8 * (headers - place)) for place in range(headers)) + table


def test_thousands_of_tiffs_in_one_part_are_not_walked_through():
    for content in (tiffs_that_share_a_directory(), b"II*\0\x08\0\0\0" * 8000):
        assert holds_picture(content)
        data = add_jpeg_segments(encode(scene(), "JPEG"), *[(0xFE, content)] * 50)
        assert content[:100] not in read_photo(data).encode(metadata=KEEP)


def test_texts_of_a_png_are_unpacked_up_to_a_limit_and_the_rest_goes():
    bomb = (b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 15 * 2**20, 9))
    data = add_png_chunks(encode(scene(), "PNG"), (b"tEXt", b"Title\0Before"), *[bomb] * 1500)
    photo = read_photo(data)
    assert photo.removed()["unreadable parts"] == 1500
    assert b"Title\0Before" in photo.encode()


def test_names_and_keywords_are_compared_up_to_a_limit_and_keywords_beyond_it_go():
    regions = b"".join(b'<rdf:li mwg-rs:Name="name%d"/>' % number for number in range(6000))
    packet = xmp_packet(
        b"<mwg-rs:Regions><mwg-rs:RegionList><rdf:Bag>" + regions + b"</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
        b"<dc:title>A title</dc:title>" + xmp_list(b"dc:subject", *[b"word%d" % number for number in range(6000)])
    )
    result = read_photo(add_png_chunks(encode(scene(), "PNG"), (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet)))
    assert b"word" not in result.encode()
    assert b"A title" in result.encode()
    few = Cleaning(True)
    assert few.against_keyword("word") is None


def test_many_values_in_xmp_and_many_keywords_in_iptc_end():
    attributes = b" ".join(b'y:a%d="1"' % number for number in range(60_000))
    deep = b"<y:a><rdf:Bag><rdf:li>" * 14 + b"x y " * 100_000 + b"</rdf:li></rdf:Bag></y:a>" * 14
    for packet in (xmp_packet(attributes=attributes), xmp_packet(deep), xmp_packet(b"<dc:title>a</dc:title>" * 9000)):
        photo = read_photo(add_png_chunks(encode(scene(), "PNG"), (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet)))
        for policy in (PRIVATE, KEEP):
            assert photo.encode(metadata=policy)
    entries = b"".join(iptc(25, b"People|n%d" % number) + iptc(25, b"k%d" % number) for number in range(1500))
    part = (0xED, b"Photoshop 3.0\0" + photoshop_resource(0x0404, entries))
    assert read_photo(add_jpeg_segments(encode(scene(), "JPEG"), *[part] * 3)).encode()


def test_pixels_of_a_colour_like_the_beginning_of_a_jpeg_are_no_picture():
    pink = np.tile(np.array([255, 216, 255], np.uint8), (800, 900, 1))
    data = read_photo(encode(pink, "TIFF")).encode()
    assert embedded_pictures(data) == []


def test_a_file_full_of_beginnings_is_not_written():
    header = b"BM" + bytes([9, 9, 1, 0]) + bytes(4) + bytes([9, 9, 0, 0, 0x28, 0, 0, 0]) + b"aa"
    samples = np.frombuffer(header * 20_000, np.uint8).reshape(200, -1)[:, :1500].reshape(200, 500, 3)
    with pytest.raises(OutputError, match="more than can be looked through"):
        read_photo(encode(samples, "TIFF")).encode()


def test_a_colour_profile_with_beginnings_behind_it_stays_without_them():
    longer = struct.pack(">I", len(PROFILE) + 400_000) + PROFILE[4:] + b"\xff\xd8\xff\xe0" * 100_000
    assert read_photo(encode(scene(), "JPEG", icc_profile=longer)).encode()


# --- two hundred files -----------------------------------------------------------------------------------------


def clip(ending):
    with tempfile.TemporaryDirectory() as folder:
        frames = [scene(48, 64, seed=number) for number in range(5)]
        return write_clip(Path(folder, "clip" + ending), frames, "mpeg4").read_bytes()


def gif():
    frames = [Image.fromarray(scene(48, 64, seed=number)) for number in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def mpo():
    frames = [Image.fromarray(scene(48, 64, seed=number)) for number in range(2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


SOUND = {
    "jpeg": lambda: encode(scene(), "JPEG", exif=exif(), xmp=xmp_packet(b"<dc:title>a</dc:title>")),
    "progressive": lambda: encode(scene(), "JPEG", progressive=True, icc_profile=PROFILE),
    "png": lambda: add_png_chunks(encode(scene(), "PNG"), (b"zTXt", b"Comment\0\0" + zlib.compress(b"words " * 99))),
    "webp": lambda: encode(scene(), "WEBP", exif=exif(thumbnail=False)),
    "lossless webp": lambda: encode(scene(), "WEBP", lossless=True),
    "tiff": lambda: encode(scene(), "TIFF", compression="tiff_lzw"),
    "gif": gif,
    "avif": lambda: encode(scene(), "AVIF"),
    "heic": lambda: heic(scene(), quality=50),
    "mpo": mpo,
    "mp4": lambda: clip(".mp4"),
    "mkv": lambda: clip(".mkv"),
}
WAYS = 16  # of damage to each


def damaged(data, way):
    """Bits turned, cut, lengths swapped for large ones, parts repeated, another file of the kind inside."""
    random = np.random.default_rng(way)
    content = bytearray(data)
    kind = way % 5
    places = random.integers(4, len(content) - 8, 1 + way // 2)
    if kind == 0:
        for place in places:
            content[place] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del content[int(places[0]) :]
    elif kind == 2:
        for place in places[:4]:
            content[place : place + 4] = bytes([255] * 4) if place % 2 else bytes([127, 255, 255, 255])
    elif kind == 3:
        first, last = sorted(random.integers(8, len(content), 2))
        content[first:first] = content[first:last] * int(random.integers(1, 40))
    else:
        content[int(places[0]) : int(places[0])] = data
    return bytes(content)


def strained():
    """Files that declare or hold more than they are."""
    yield "png of one long row", encode(np.zeros((1, 60_000, 1), np.uint8), "PNG")
    yield "webp of 16383", encode(np.zeros((16383, 1600, 3), np.uint8), "WEBP", lossless=True, method=0)
    yield "png of 4900 x 4900", encode(np.zeros((4900, 4900, 1), np.uint8), "PNG")
    yield "tiff of 4900 x 4900", encode(np.zeros((4900, 4900, 3), np.uint8), "TIFF", compression="tiff_lzw")
    yield (
        "exif of overlapping fields",
        encode(scene(), "JPEG", exif=tiff_block("<", [(tag, 2, 50_000, b"steps:1," * 6250) for tag in (0x010E,)])),
    )
    for name, text in TEXTS.items():
        yield f"text of {name}", add_png_chunks(encode(scene(), "PNG"), *[(b"tEXt", b"Comment\0" + text)] * 5)
    yield "tiffs", add_jpeg_segments(encode(scene(), "JPEG"), *[(0xFE, tiffs_that_share_a_directory())] * 40)


def trial(name, content, queue):
    """What became of a file, CPU seconds until then, and the most memory in MB that the process had so far."""
    began, outcome = time.process_time(), "read"
    try:
        if name in ("gif", "mp4", "mkv"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "clip." + name)
                path.write_bytes(content)
                clip = read_moving(path) if name == "gif" else read_clip(path)
                for frame in clip or ():
                    assert frame.pixels.shape[2] == 3
        else:
            photo = read_photo(content)
            photo.removed()
            photo.encode()
    except BautaError as error:
        outcome = error.code
    except Exception as error:
        outcome = f"crash: {type(error).__name__}: {error}"
    queue.put((outcome, time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))


@pytest.mark.slow
def test_two_hundred_damaged_files_are_read_or_refused_and_none_takes_long():
    files = [
        (name, f"{name}, damage {way}", damaged(build(), way)) for name, build in SOUND.items() for way in range(WAYS)
    ]
    files += [("photo", name, content) for name, content in strained()]
    assert len(files) >= 200
    outcomes, context = [], multiprocessing.get_context("fork")
    for kind, name, content in files:
        queue = context.Queue()
        process = context.Process(target=trial, args=(kind, content, queue))
        process.start()
        outcome, seconds, memory = queue.get(timeout=100)
        process.join()
        outcomes.append((outcome, seconds, memory, name))
    for outcome, seconds, memory, name in outcomes:
        assert not outcome.startswith("crash"), (name, outcome)
        assert memory < 1000, (name, memory)
        assert outcome == "read" or seconds < 2, (name, seconds)
