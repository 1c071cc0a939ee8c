"""Every bad input ends in one typed error that names the file and says what to do; nothing is left."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bauta.errors import PhotoError, PhotoTooLarge, UnreadablePhoto, UnsupportedPhoto
from bauta.photo import read_photo
from photo_builders import (
    add_jpeg_segments,
    add_png_chunks,
    encode,
    heic,
    png_16,
    png_chunk,
    save,
    scene,
    tiff_block,
)


def frames(count=2):
    return [Image.fromarray(scene(32, 40, seed=index)) for index in range(count)]


def animation(format_name, **options):
    first, *rest = frames()
    return save(first, format_name, save_all=True, append_images=rest, **options)


def sound(format_name):
    if format_name == "HEIF":
        return heic(scene(), quality=60)
    return encode(scene(), format_name)


def cut(format_name, share):
    data = sound(format_name)
    return data[: int(len(data) * share)]


def tiff_of(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def png_claiming(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def jpeg_claiming(width, height):
    data = bytearray(encode(scene(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, height, width)
    return bytes(data)


def heic_pair():
    buffer = io.BytesIO()
    first, second = frames()
    pillow_heif.from_pillow(first).save(buffer, append_images=[pillow_heif.from_pillow(second)[0]], quality=40)
    return buffer.getvalue()


def overwritten(data, position, content):
    return data[:position] + content + data[position + len(content) :]


def flipped(data, position):
    return overwritten(data, position, bytes([data[position] ^ 0xFF]))


def raw_like(tag):
    short = struct.pack("<H", 1)
    fields = [
        (254, 4, 1, struct.pack("<I", 1)),
        (256, 3, 1, short),
        (257, 3, 1, short),
        (tag, 4, 1, bytes(4)),
    ]
    return tiff_block("<", fields)


BAD_FILES = {
    "empty": (lambda: b"", UnreadablePhoto),
    "one byte": (lambda: b"\xff", UnreadablePhoto),
    "text": (lambda: b"Dear diary, today I took a photo.", UnreadablePhoto),
    "html": (lambda: b"<!doctype html><title>404</title>", UnreadablePhoto),
    "zeros": (lambda: bytes(5000), UnreadablePhoto),
    "noise": (lambda: np.random.default_rng(0).bytes(5000), UnreadablePhoto),
    "zip": (lambda: b"PK\3\4" + bytes(100), UnreadablePhoto),
    **{
        f"{name} signature only": (lambda name=name: sound(name)[:12], UnreadablePhoto)
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "HEIF")
    },
    **{
        f"{name} cut at a tenth": (lambda name=name: cut(name, 0.1), UnreadablePhoto)
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "HEIF")
    },
    **{
        f"{name} cut in half": (lambda name=name: cut(name, 0.5), UnreadablePhoto)
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "HEIF")
    },
    **{
        f"{name} cut near its end": (lambda name=name: cut(name, 0.9), UnreadablePhoto)
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "HEIF")
    },
    "16-bit png cut": (lambda: png_16(scene(dtype=np.uint16))[:-2000], UnreadablePhoto),
    "16-bit png with corrupt data": (
        lambda: (
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                png_chunk(name, body)
                for name, body in (
                    (b"IHDR", struct.pack(">IIBBBBB", 9, 9, 16, 2, 0, 0, 0)),
                    (b"IDAT", b"nonsense"),
                    (b"IEND", b""),
                )
            )
        ),
        UnreadablePhoto,
    ),
    "16-bit tiff cut": (lambda: tiff_of(scene(dtype=np.uint16), photometric="rgb")[:-2000], UnreadablePhoto),
    "png with a flipped byte": (lambda: flipped(sound("PNG"), 200), UnreadablePhoto),
    "png without a header": (lambda: b"\x89PNG\r\n\x1a\n" + png_chunk(b"IEND", b""), UnreadablePhoto),
    "png without data": (lambda: png_claiming(4, 4)[:33] + png_chunk(b"IEND", b""), UnreadablePhoto),
    "jpeg without a frame": (lambda: b"\xff\xd8\xff\xe0\0\4\0\0\xff\xda\0\4\0\0", UnreadablePhoto),
    "jpeg of markers only": (lambda: b"\xff\xd8" + b"\xff" * 500, UnreadablePhoto),
    "jpeg with broken segments": (
        lambda: overwritten(sound("JPEG"), 2, b"\xff\xe0\0\7abcdefghij"),
        UnreadablePhoto,
    ),
    "jpeg with zero size": (lambda: jpeg_claiming(0, 0), UnreadablePhoto),
    "tiff whose directory is outside": (lambda: b"II*\0\xff\xff\xff\x7f" + bytes(50), UnreadablePhoto),
    "tiff whose directory is empty": (lambda: b"II*\0\x08\0\0\0\0\0\0\0\0\0", UnreadablePhoto),
    "heic of nonsense": (lambda: sound("HEIF")[:40] + np.random.default_rng(1).bytes(3000), UnreadablePhoto),
    "png bomb": (lambda: png_claiming(60_000, 60_000), PhotoTooLarge),
    "png bomb in one row": (lambda: png_claiming(2**31 - 1, 1), PhotoTooLarge),
    "jpeg bomb": (lambda: jpeg_claiming(65_000, 65_000), PhotoTooLarge),
    "just over the limit": (lambda: png_claiming(25_001, 10_000), PhotoTooLarge),
    "animated gif": (lambda: animation("GIF"), UnsupportedPhoto),
    "still gif": (lambda: encode(scene(), "GIF"), UnsupportedPhoto),
    "animated webp": (lambda: animation("WEBP"), UnsupportedPhoto),
    "animated png": (lambda: animation("PNG"), UnsupportedPhoto),
    "tiff with pages": (lambda: animation("TIFF"), UnsupportedPhoto),
    "heic with two photos": (heic_pair, UnsupportedPhoto),
    "bitmap": (lambda: encode(scene(), "BMP"), UnsupportedPhoto),
    "animated avif": (lambda: animation("AVIF"), UnsupportedPhoto),
    "jpeg 2000": (lambda: encode(scene(), "JPEG2000"), UnsupportedPhoto),
    "pdf": (lambda: encode(scene(), "PDF"), UnsupportedPhoto),
    "film": (lambda: b"\0\0\0\x18ftypmp42" + bytes(50), UnsupportedPhoto),
    "photoshop": (lambda: b"8BPS" + bytes(50), UnsupportedPhoto),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedPhoto),
    "bigtiff": (lambda: tiff_of(scene(), photometric="rgb", bigtiff=True), UnsupportedPhoto),
    "dng": (lambda: raw_like(50706), UnsupportedPhoto),
    "raw with a preview first": (lambda: raw_like(330), UnsupportedPhoto),
    "panasonic raw": (lambda: b"IIU\0" + bytes(50), UnsupportedPhoto),
    "floating-point tiff": (lambda: tiff_of(scene()[..., 0].astype(np.float32)), UnsupportedPhoto),
    "32-bit tiff": (lambda: tiff_of(scene(channels=1)[..., 0].astype(np.uint32)), UnsupportedPhoto),
    "signed tiff": (lambda: tiff_of(scene(channels=1)[..., 0].astype(np.int16)), UnsupportedPhoto),
    "16-bit tiff in planes": (
        lambda: tiff_of(scene(dtype=np.uint16).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        UnsupportedPhoto,
    ),
    "lab tiff": (lambda: tiff_of(scene(), photometric="cielab"), UnsupportedPhoto),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files(kind, tmp_path):
    build, error = BAD_FILES[kind]
    path = tmp_path / "en bild på mig.jpg"
    path.write_bytes(build())
    with pytest.raises(error) as caught:
        read_photo(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["empty", "text", "png bomb", "animated png"])
def test_bad_bytes_have_no_name(kind):
    build, error = BAD_FILES[kind]
    with pytest.raises(error, match=r"^The photo "):
        read_photo(build())


def test_the_limit_is_checked_before_decoding(monkeypatch):
    def decode(self):
        raise AssertionError("the bomb was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(PhotoTooLarge):
        read_photo(sound("PNG"), max_pixels=100)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_the_limit_can_be_set(format_name):
    data = sound(format_name)
    with pytest.raises(PhotoTooLarge, match="over the limit"):
        read_photo(data, max_pixels=96 * 128 - 1)
    assert read_photo(data, max_pixels=96 * 128).pixels.shape == (96, 128, 3)


def test_a_larger_limit_than_pillows_own_is_honoured():
    samples = np.zeros((9_500, 9_500, 1), np.uint8)
    samples[:600] = np.random.default_rng(0).integers(0, 255, (600, 9_500, 1))  # a photo is not that plain
    data = encode(samples, "PNG", compress_level=1)  # Pillow would warn from 89 million pixels on
    assert read_photo(data).width == 9_500


def test_a_file_larger_than_any_photo_is_not_read(tmp_path):
    path = tmp_path / "huge.tif"
    with path.open("wb") as stream:
        stream.write(b"II*\0")
        stream.truncate(2**31)  # sparse
    with pytest.raises(PhotoTooLarge):
        read_photo(path, max_pixels=1_000_000)


def test_a_missing_file(tmp_path):
    with pytest.raises(UnreadablePhoto, match=r"gone\.jpg"):
        read_photo(tmp_path / "gone.jpg")


def test_a_dangling_link(tmp_path):
    link = tmp_path / "link.jpg"
    link.symlink_to(tmp_path / "nothing.jpg")
    with pytest.raises(UnreadablePhoto):
        read_photo(link)


def test_a_link_to_itself(tmp_path):
    link = tmp_path / "link.jpg"
    link.symlink_to(link)
    with pytest.raises(UnreadablePhoto):
        read_photo(link)


def test_a_folder(tmp_path):
    folder = tmp_path / "photos.jpg"
    folder.mkdir()
    with pytest.raises(UnreadablePhoto, match="folder"):
        read_photo(folder)


def test_a_pipe(tmp_path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    with pytest.raises(UnreadablePhoto, match="ordinary"):
        read_photo(pipe)


def test_a_name_that_is_too_long():
    with pytest.raises(UnreadablePhoto):
        read_photo(Path("x" * 5000 + ".jpg"))


def test_a_name_with_a_zero_byte():
    with pytest.raises(UnreadablePhoto):
        read_photo("a\0b.jpg")


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "secret.jpg"
    path.write_bytes(sound("JPEG"))

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnreadablePhoto, match="Permission denied"):
        read_photo(path)


def test_out_of_memory(monkeypatch):
    def fail(self):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(PhotoTooLarge):
        read_photo(sound("PNG"))


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_damage_anywhere_is_a_photo_or_a_photo_error(format_name, data):
    damaged = bytearray(encode(scene(24, 32), format_name))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(1, len(damaged)))]
    try:
        photo = read_photo(bytes(damaged), max_pixels=10_000)
    except PhotoError:
        return
    assert photo.pixels.shape == (photo.height, photo.width, 3)
    assert photo.encode()


def test_sound_neighbours_of_the_bad_files_are_read():
    assert read_photo(add_jpeg_segments(sound("JPEG"), (0xE2, b"MPF\0nonsense"))).format == "JPEG"
    wrong_checksum = flipped(add_png_chunks(sound("PNG"), (b"tEXt", b"Title\0A title")), 50)
    assert b"A title" not in read_photo(wrong_checksum).encode()
    single_frame = struct.pack(">II", 1, 0)
    assert read_photo(add_png_chunks(sound("PNG"), (b"acTL", single_frame))).format == "PNG"
    assert read_photo(sound("JPEG") + b"trailing").format == "JPEG"
