"""Formats at their edges: what is read though others stumble, what is refused by name, and what would exhaust."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from bauta.errors import PhotoError, PhotoTooLarge, UnreadablePhoto, UnsupportedPhoto
from bauta.photo import MetadataPolicy, read_photo
from photo_builders import PROFILE, add_jpeg_segments, encode, exif, heic, png_chunk, save, scene


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data)))


# --- what is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("options", [{"quality": 40}, {"quality": 95, "subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_complete_jpeg_without_its_last_marker_is_read(options, progressive, missing):
    data = encode(scene(72, 90), "JPEG", progressive=progressive, **options)
    photo = read_photo(data[:-missing])
    np.testing.assert_array_equal(photo.pixels, read_photo(data).pixels)
    assert photo.encode().endswith(b"\xff\xd9")


@pytest.mark.parametrize("missing", [12, 40, 200, 900])
@pytest.mark.parametrize("progressive", [False, True])
def test_an_incomplete_jpeg_is_refused(progressive, missing):
    data = encode(scene(72, 90), "JPEG", progressive=progressive)
    with pytest.raises(UnreadablePhoto, match="cut off"):
        read_photo(data[:-missing])


def test_a_progressive_jpeg_that_lacks_whole_scans_is_refused():
    data = encode(scene(72, 90), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)
    for end in (last, tables):
        with pytest.raises(UnreadablePhoto, match="cut off"):
            read_photo(data[:end])


@pytest.mark.parametrize("trailer", [b"8BIM\x03\xed" + bytes(20), b"\xff\xd8\xff\xe0JPEG", bytes(7), b"x"])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_is_read_to_the_end_of_its_container(trailer, lossless):
    data = encode(scene(), "WEBP", lossless=lossless)
    photo = read_photo(data + trailer)
    np.testing.assert_array_equal(photo.pixels, read_photo(data).pixels)
    assert trailer not in photo.encode() or trailer in (bytes(7), b"x")
    assert photo.removed() == ({"data after the picture": 1} if trailer.strip(b"\0") else {})


def test_a_webp_without_its_padding_byte_is_read():
    data = encode(scene(30, 30), "WEBP", xmp=b"<odd/>.")
    assert data.endswith(b".\0")
    assert read_photo(data[:-1]).width == 30


def mpo(**options):
    first, second = (Image.fromarray(scene(seed=seed)) for seed in (1, 2))
    return save(first, "MPO", save_all=True, append_images=[second], quality=90, **options)


def test_an_mpo_is_read_and_written_under_its_own_ending(tmp_path):
    path = tmp_path / "stereo.MPO"
    path.write_bytes(mpo(exif=exif(thumbnail=False)))
    photo = read_photo(path)
    photo.save(tmp_path / "out.mpo")
    result = Image.open(io.BytesIO((tmp_path / "out.mpo").read_bytes()))
    assert (photo.suffix, result.format, result.size) == (".MPO", "JPEG", (128, 96))
    assert photo.removed()["data after the picture"] == 1
    assert photo.removed()["embedded pictures"] == 1


AVIF = {
    "rgb": lambda: encode(scene(), "AVIF", quality=70),
    "rgba": lambda: encode(scene(channels=4), "AVIF", quality=80),
    "4:4:4": lambda: encode(scene(), "AVIF", quality=85, subsampling="4:4:4"),
    "turned": lambda: encode(scene(), "AVIF", quality=80, exif=exif(orientation=6, thumbnail=False)),
    "profile": lambda: encode(scene(), "AVIF", quality=80, icc_profile=PROFILE),
}


@pytest.mark.parametrize("kind", AVIF)
def test_avif_is_read_and_written(kind, tmp_path):
    path = tmp_path / "photo.avif"
    path.write_bytes(AVIF[kind]())
    photo = read_photo(path)
    delta = np.zeros_like(photo.pixels)
    delta[20:60, 20:60] = 0.05
    photo.with_perturbation(delta).save(tmp_path / "out.avif")
    again = read_photo(tmp_path / "out.avif")
    assert again.pixels.shape == photo.pixels.shape == ((128, 96, 3) if kind == "turned" else (96, 128, 3))
    assert np.abs(again.pixels - photo.pixels - delta).mean() < 0.02
    assert 0.7 < (tmp_path / "out.avif").stat().st_size / path.stat().st_size < 1.3
    before, after = (Image.open(io.BytesIO(each.read_bytes())) for each in (path, tmp_path / "out.avif"))
    assert before.mode == after.mode
    assert before.info.get("icc_profile") == after.info.get("icc_profile")
    assert subsampling(path.read_bytes()) == subsampling((tmp_path / "out.avif").read_bytes())


def subsampling(data):
    return data[data.index(b"av1C") + 6] & 0x1C


def avif_of_depth(bits):
    import cv2

    samples = (scene(64, 64, 3, np.uint16) >> (16 - bits)).astype(np.uint16)
    done, data = cv2.imencode(".avif", samples, [cv2.IMWRITE_AVIF_DEPTH, bits])
    assert done
    return bytes(data)


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_is_refused_and_not_flattened(bits):
    with pytest.raises(UnsupportedPhoto, match=f"AVIF with {bits} bits"):
        read_photo(avif_of_depth(bits))


def test_avif_in_wide_colours_is_refused():
    data = encode(scene(), "AVIF")
    place = data.index(b"nclx") + 4
    with pytest.raises(UnsupportedPhoto, match="wide colours"):
        read_photo(data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :])


DEEP = {
    # channels, photometric, extra sample
    "cmyk": (4, "separated", None),
    "grey with alpha": (2, "minisblack", ["unassalpha"]),
    "inverted grey with alpha": (2, "miniswhite", ["unassalpha"]),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layout", ["strips", "deflate", "predicted", "tiles", "predicted tiles"])
@pytest.mark.parametrize("kind", DEEP)
def test_sixteen_bits_stay_sixteen_bits(kind, layout, order):
    channels, photometric, extra = DEEP[kind]
    options = {
        "strips": {"rowsperstrip": 7},
        "deflate": {"compression": "zlib"},
        "predicted": {"compression": "zlib", "predictor": 2},
        "tiles": {"tile": (32, 48)},
        "predicted tiles": {"tile": (32, 48), "compression": "zlib", "predictor": 2},
    }[layout]
    array = scene(70, 90, channels, np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, array, photometric=photometric, extrasamples=extra, byteorder=order, metadata=None, **options
    )
    photo = read_photo(buffer.getvalue())
    assert photo.bits == 16
    expected = array.copy()
    if photometric == "miniswhite":
        expected[..., 0] = 65535 - expected[..., 0]
    written = photo.encode()
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(written)), expected)
    delta = np.zeros_like(photo.pixels)
    delta[10:30, 10:30] = 0.1
    changed = tifffile.imread(io.BytesIO(photo.with_perturbation(delta).encode()))
    outside = ~delta.any(axis=2)
    np.testing.assert_array_equal(changed[outside], expected[outside])
    assert (changed[10:30, 10:30] != expected[10:30, 10:30]).any()


def test_sixteen_bits_in_planes_are_refused():
    buffer = io.BytesIO()
    array = scene(32, 40, 4, np.uint16).transpose(2, 0, 1)
    tifffile.imwrite(buffer, array, photometric="separated", planarconfig="separate", metadata=None)
    with pytest.raises(UnsupportedPhoto, match="16-bit TIFF"):
        read_photo(buffer.getvalue())


# --- what is refused by name --------------------------------------------------------------------------------


def with_frame(marker, precision=8, components=3):
    data = bytearray(encode(scene(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 1], data[frame + 4], data[frame + 9] = marker, precision, components
    return bytes(data)


NAMED = {
    "a lossless JPEG": lambda: with_frame(0xC3),
    "a lossless JPEG ": lambda: with_frame(0xCB),
    "a hierarchical JPEG": lambda: with_frame(0xC5),
    "a JPEG-LS": lambda: with_frame(0xF7),
    "a JPEG with 12 bits": lambda: with_frame(0xC1, precision=12),
    "a JPEG with 2 colour": lambda: with_frame(0xC0, components=2),
    "a JPEG 2000": lambda: encode(scene(), "JPEG2000"),
    "a JPEG XL": lambda: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
    "a JPEG XL ": lambda: b"\xff\x0a" + bytes(40),
    "an animated AVIF": lambda: save(
        Image.fromarray(scene()), "AVIF", save_all=True, append_images=[Image.fromarray(scene(seed=1))]
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_what_is_unsupported_is_named(kind):
    with pytest.raises(UnsupportedPhoto, match=kind.strip()) as caught:
        read_photo(NAMED[kind]())
    assert caught.value.hint


def flipped(data, seed):
    generator = np.random.default_rng(seed)
    damaged = bytearray(data)
    for place in generator.integers(len(data) // 3, len(data), 30):
        damaged[place] ^= int(generator.integers(1, 256))
    return bytes(damaged)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_messages_name_no_object_of_python(format_name):
    data = heic(scene(), quality=50) if format_name == "HEIF" else encode(scene(), format_name)
    broken = [data[:cut] for cut in range(16, len(data), max(1, len(data) // 25))]
    broken += [flipped(data, seed) for seed in range(12)]
    messages = [message for message in map(refusal, broken) if message]
    assert len(messages) > 5
    for message in messages:
        words = ("<", "0x", "object", "Error", "BytesIO", "None", "OpenCV", "broken data stream")
        assert [word for word in words if word in message] == []
        assert len(message) > 30


def refusal(data):
    """The message that refuses a file; nothing when it is read."""
    try:
        read_photo(data)
    except PhotoError as error:
        return error.message
    return ""


# --- what would exhaust -------------------------------------------------------------------------------------


def png(width, height, rows, bits, kind):
    """A PNG of zeros, packed row by row so that the test itself stays small."""
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width * bits * {0: 1, 2: 3, 6: 4}[kind] // 8))
    some = min(rows, 100)
    body = b"".join(packer.compress(row * some) for _ in range(-(-rows // some))) + packer.flush()
    chunks = (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)), (b"IDAT", body), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def plain_jpeg(side, *, progressive=False):
    """A grey JPEG of one colour: two bits per block of 64 pixels."""
    return save(Image.new("L", (side, side), 128), "JPEG", quality=50, progressive=progressive, optimize=True)


def many_scans(count, side=2000):
    data = plain_jpeg(side, progressive=True)
    start = data.rindex(b"\xff\xda")
    last = data[start:-2]
    return data[:-2] + last * count + data[-2:]


def tiled(side, tile, *, entries=400):
    fields = [
        *((256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1)),
        *((322, 4, tile), (323, 4, tile)),
    ]
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields)
    start = 8 + 2 + 12 * (len(fields) + 2) + 4
    rows += struct.pack("<HHII", 324, 4, entries, start) + struct.pack("<HHII", 325, 4, entries, start + 4 * entries)
    data = struct.pack("<2sHIH", b"II", 42, 8, len(fields) + 2) + rows + bytes(4)
    return data + struct.pack("<I", start + 8 * entries) * entries + struct.pack("<I", tile**2) * entries + bytes(2**17)


def overwritten(data, position, content):
    return data[:position] + content + data[position + len(content) :]


def jpeg_claiming(width, height):
    data = encode(scene(), "JPEG")
    return overwritten(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def webp_claiming(width, height):
    data = encode(scene(channels=4), "WEBP")
    return overwritten(data, 24, struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3])


BOMBS = {
    "a strip": lambda: png(1, 100_000_000, 1000, 1, 0),
    "a long strip": lambda: png(90_000_000, 1, 1, 1, 0),
    "a bar": lambda: png(60_000, 500, 500, 1, 0),
    "bits": lambda: png(9_999, 9_999, 9_999, 1, 0),
    "bytes": lambda: png(9_999, 9_999, 9_999, 8, 0),
    "a claim": lambda: png(14_000, 14_000, 10, 8, 6),
    "a padded jpeg": lambda: add_jpeg_segments(jpeg_claiming(9_999, 9_999), *[(0xE5, bytes(60_000))] * 9),
    "a jpeg with something behind it": lambda: jpeg_claiming(9_999, 9_999) + bytes(10**6),
    "a claiming jpeg": lambda: jpeg_claiming(9_999, 9_999),
    "a claiming webp": lambda: webp_claiming(12_000, 12_000),
    "a thousand scans": lambda: many_scans(1000),
    "a hundred scans": lambda: many_scans(120),
    "scans of many pixels": lambda: many_scans(60, side=4_990),
    "many segments": lambda: add_jpeg_segments(encode(scene(), "JPEG"), *[(0xE5, b"x")] * 3000),
    "many chunks": lambda: (
        encode(scene(), "PNG")[:33] + png_chunk(b"teSt", b"") * 120_000 + encode(scene(), "PNG")[33:]
    ),
    "small tiles": lambda: tiled(4_900, 16),
    "smaller tiles": lambda: tiled(3_000, 1),
    "tiles of a large picture": lambda: tiled(9_999, 16),
    "rows": lambda: tiled(60_000, 60_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(kind, monkeypatch):
    data = BOMBS[kind]()

    def decode(self):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises((PhotoTooLarge, UnreadablePhoto)) as caught:
        read_photo(data)
    assert "damaged, or of a kind" not in caught.value.message or kind == "a claiming webp"
    assert caught.value.hint


MEASURE = """
import json, resource, sys, time
from bauta.errors import PhotoError
from bauta.photo import read_photo
began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        read_photo(name)
    except PhotoError:
        continue
    raise SystemExit(name)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([time.process_time() - began, (after - before) / 1024]))
"""


def test_refusing_bombs_takes_next_to_no_time_and_memory(tmp_path):
    paths = []
    for number, build in enumerate(BOMBS.values()):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(build())
    result = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    seconds, megabytes = json.loads(result.stdout)
    assert seconds < 2  # all of them together
    assert megabytes < 200


@pytest.mark.parametrize(
    "data",
    [
        lambda: png(3000, 2000, 2000, 8, 2),  # a plain surface of ordinary size
        lambda: encode(np.random.default_rng(0).integers(0, 256, (200, 6000, 3), dtype=np.uint8), "JPEG"),  # a panorama
        lambda: encode(scene(600, 900), "JPEG", progressive=True),
        lambda: tiff_in_tiles(2000, 64),
    ],
    ids=["plain", "panorama", "progressive", "tiles"],
)
def test_what_only_resembles_a_bomb_is_read(data):
    assert read_photo(data()).width > 100


def tiff_in_tiles(side, tile):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, scene(side, side, 1)[..., 0], tile=(tile, tile), metadata=None)
    return buffer.getvalue()


@pytest.mark.slow
def test_a_photo_of_108_megapixels_is_read_and_written(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    path = tmp_path / "large.jpg"
    Image.fromarray(noise).resize((12_000, 9_000), Image.Resampling.BILINEAR).save(path, quality=80)
    photo = read_photo(path)
    assert (photo.width, photo.height) == (12_000, 9_000)
    photo.save(tmp_path / "out.jpg", metadata=MetadataPolicy.PRIVATE)
    assert read_photo(tmp_path / "out.jpg").width == 12_000
