from __future__ import annotations

import io
import pickle

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from bauta.errors import UsageError
from bauta.photo import MetadataPolicy, Pixels, read_photo
from bauta.photo.raster import Raster, upright
from photo_builders import (
    PROFILE,
    add_jpeg_segments,
    add_png_chunks,
    encode,
    exif,
    heic,
    jpeg_segments,
    png_16,
    png_chunks,
    save,
    scene,
)

TURN = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def with_pillow(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def with_opencv(data):
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    array = array if array.ndim == 2 else array[..., [2, 1, 0, 3][: array.shape[2]]]
    return TURN[orientation_in(data)](array) if data[:4] == b"\x89PNG" else array


def orientation_in(data):
    return Image.open(io.BytesIO(data)).getexif().get(0x0112, 1)


def tiff_16(array, orientation, **options):
    buffer = io.BytesIO()
    tags = [(0x0112, "H", 1, orientation, True)]
    extra = ["unassalpha"] if array.shape[2] == 4 else None
    tifffile.imwrite(buffer, array, photometric="rgb", extratags=tags, extrasamples=extra, metadata=None, **options)
    return buffer.getvalue()


def tiff(array, orientation, mode=None, **options):
    return encode(array, "TIFF", mode, tiffinfo={0x0112: orientation}, **options)


def turned(orientation):
    return exif("<", orientation, private=False, thumbnail=False)


# name -> channels, depth, encoder(array, orientation), independent reader of the upright samples
LOSSLESS = {
    "png-rgb": (3, np.uint8, lambda a, o: encode(a, "PNG", exif=turned(o)), with_pillow),
    "png-rgba": (4, np.uint8, lambda a, o: encode(a, "PNG", exif=turned(o)), with_pillow),
    "png-grey": (1, np.uint8, lambda a, o: encode(a, "PNG", exif=turned(o)), with_pillow),
    "png-grey-alpha": (2, np.uint8, lambda a, o: encode(a, "PNG", "LA", exif=turned(o)), with_pillow),
    "png-16-grey": (1, np.uint16, lambda a, o: png_16(a, [(b"eXIf", turned(o))]), with_opencv),
    "png-16-rgb": (3, np.uint16, lambda a, o: png_16(a, [(b"eXIf", turned(o))]), with_opencv),
    "png-16-rgba": (4, np.uint16, lambda a, o: png_16(a, [(b"eXIf", turned(o))]), with_opencv),
    "tiff-rgb": (3, np.uint8, tiff, with_pillow),
    "tiff-rgba-lzw": (4, np.uint8, lambda a, o: tiff(a, o, compression="tiff_lzw"), with_pillow),
    "tiff-grey-deflate": (
        1,
        np.uint8,
        lambda a, o: tiff(a, o, compression="tiff_adobe_deflate"),
        with_pillow,
    ),
    "tiff-16-grey": (1, np.uint16, tiff, with_pillow),
    "tiff-16-grey-deflate": (
        1,
        np.uint16,
        lambda a, o: tiff(a, o, compression="tiff_adobe_deflate"),
        with_pillow,
    ),
    "tiff-16-rgb-big-endian": (3, np.uint16, lambda a, o: tiff_16(a, o, byteorder=">"), with_opencv),
    "tiff-16-rgb-deflate": (3, np.uint16, lambda a, o: tiff_16(a, o, compression="zlib"), with_opencv),
    "tiff-16-rgba": (4, np.uint16, tiff_16, with_opencv),
    "webp-rgb": (3, np.uint8, lambda a, o: encode(a, "WEBP", lossless=True, exif=turned(o)), with_pillow),
    "webp-rgba": (
        4,
        np.uint8,
        lambda a, o: encode(a, "WEBP", lossless=True, exact=True, exif=turned(o)),
        with_pillow,
    ),
}


@pytest.mark.parametrize("name", LOSSLESS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_lossless_formats_change_nothing_outside_the_perturbation(name, data):
    channels, dtype, build, read = LOSSLESS[name]
    orientation = data.draw(st.sampled_from(sorted(TURN)))
    height, width = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 14))
    seed = data.draw(st.integers(0, 2**20))
    generator = np.random.default_rng(seed)
    maximum = np.iinfo(dtype).max
    stored = generator.integers(0, maximum, (height, width, channels), dtype=dtype, endpoint=True)
    if channels == 4 and name.startswith("webp"):
        stored[0, 0, 3] = 7  # an alpha that is opaque everywhere may be left out of a WebP
    shown = TURN[orientation](stored)

    photo = read_photo(build(stored, orientation))
    height, width = shown.shape[:2]
    assert photo.pixels.shape == (height, width, 3) == (photo.height, photo.width, 3)
    colours = 1 if channels < 3 else 3
    np.testing.assert_array_equal(
        photo.pixels, np.broadcast_to(shown[..., :colours] / np.float32(maximum), (height, width, 3))
    )

    delta = np.zeros((height, width, 3), np.float32)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    change = generator.normal(0, 0.2, delta[top:, left:].shape).clip(-1, 1)
    delta[top:, left:] = change.mean(axis=2, keepdims=True) if photo.grey else change
    saved = read(photo.with_perturbation(delta).encode())

    saved = saved if saved.ndim == 3 else saved[..., None]
    expected = shown.astype(np.float64)
    expected[..., :colours] = (expected[..., :colours] + delta[..., :colours].astype(np.float64) * maximum).clip(
        0, maximum
    )
    assert saved.dtype == dtype
    assert saved.shape == shown.shape
    outside = ~delta.any(axis=2)
    np.testing.assert_array_equal(saved[outside], shown[outside])
    np.testing.assert_array_equal(saved[..., colours:], shown[..., colours:])
    assert np.abs(saved - expected).max() <= 0.51


@pytest.mark.parametrize("name", LOSSLESS)
def test_an_unperturbed_photo_comes_back_sample_for_sample(name):
    channels, dtype, build, read = LOSSLESS[name]
    data = build(scene(40, 52, channels, dtype), 6)
    np.testing.assert_array_equal(read(read_photo(data).encode()), read(data))
    assert orientation_in(read_photo(data).encode()) == 6


def component_coding(image):
    return [(layer[1:3], image.quantization[layer[3]]) for layer in image.layer]


@pytest.mark.parametrize("quality", [30, 75, 92, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_keeps_its_coding_and_its_size(quality, subsampling, progressive):
    array = scene(240, 320)
    data = encode(array, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive, optimize=True)
    photo = read_photo(data)
    delta = np.zeros_like(photo.pixels)
    delta[60:140, 90:180] = np.random.default_rng(0).normal(0, 6 / 255, (80, 90, 3))
    result = photo.with_perturbation(delta).encode()
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(result))
    assert component_coding(after) == component_coding(before)
    assert bool(after.info.get("progressive")) == progressive
    assert 0.9 < len(result) / len(data) < 1.25


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    quality=st.integers(20, 98),
    subsampling=st.sampled_from([0, 1, 2]),
    size=st.tuples(st.integers(100, 200), st.integers(100, 200)),
    seed=st.integers(0, 99),
)
def test_jpeg_size_is_about_the_same(quality, subsampling, size, seed):
    data = encode(scene(*size, seed=seed), "JPEG", quality=quality, subsampling=subsampling)
    assert 0.95 < len(read_photo(data).encode()) / len(data) < 1.05


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_for_us_and_stored_as_it_was(orientation):
    stored = scene(64, 96)
    data = encode(stored, "JPEG", quality=100, subsampling=0, exif=turned(orientation))
    photo = read_photo(data)
    assert np.abs(photo.pixels - TURN[orientation](stored) / 255).max() < 0.03
    delta = np.zeros_like(photo.pixels)
    delta[:16, :24] = 0.2  # a corner of the upright picture
    result = photo.with_perturbation(delta).encode()
    image = Image.open(io.BytesIO(result))
    assert image.size == (96, 64)
    assert image.getexif()[0x0112] == orientation
    difference = np.asarray(ImageOps.exif_transpose(image)) / 255 - photo.pixels
    assert difference[:16, :24].mean() > 0.1
    assert abs(difference[24:, 32:].mean()) < 0.01


def test_jpeg_of_fine_noise_is_encoded():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    result = read_photo(encode(noise, "JPEG", quality=100, subsampling=0)).encode()
    assert np.abs(with_pillow(result).astype(int) - noise).mean() < 2


def test_jpeg_in_rgb_stays_rgb():
    data = encode(scene(), "JPEG", keep_rgb=True, quality=95)
    result = Image.open(io.BytesIO(read_photo(data).encode()))
    assert [layer[0] for layer in result.layer] == list(b"RGB")
    assert np.abs(np.asarray(result).astype(int) - scene()).mean() < 4


def test_grey_stays_grey_and_takes_the_mean_of_the_perturbation():
    photo = read_photo(encode(scene(channels=1), "PNG"))
    assert photo.grey
    delta = np.zeros_like(photo.pixels)
    delta[5:20, 5:20] = (0.3, 0.0, -0.15)
    result = with_pillow(photo.with_perturbation(delta).encode())
    assert result.ndim == 2
    np.testing.assert_array_equal(
        result[5:20, 5:20], np.rint(scene(channels=1)[5:20, 5:20, 0] + np.float32(0.05) * 255)
    )


def test_a_grey_photo_in_three_channels_gets_no_colours():
    grey = np.repeat(scene(channels=1), 3, axis=2)
    photo = read_photo(encode(grey, "PNG"))
    assert photo.grey
    delta = np.random.default_rng(0).normal(0, 0.1, photo.pixels.shape).astype(np.float32).clip(-1, 1)
    result = with_pillow(photo.with_perturbation(delta).encode())
    assert result.shape == grey.shape
    assert (result == result[..., :1]).all()


def test_grey_jpeg_stays_grey():
    result = Image.open(io.BytesIO(read_photo(encode(scene(channels=1), "JPEG")).encode()))
    assert result.mode == "L"


@pytest.mark.parametrize(("format_name", "transparency"), [("PNG", None), ("PNG", 3), ("TIFF", None)])
def test_palettes_become_colours(format_name, transparency):
    image = Image.fromarray(scene()).quantize(32)
    options = {} if transparency is None else {"transparency": transparency}
    data = save(image, format_name, **options)
    result = Image.open(io.BytesIO(read_photo(data).encode()))
    assert result.format == format_name
    assert result.mode == ("RGB" if transparency is None else "RGBA")
    expected = Image.open(io.BytesIO(data)).convert(result.mode)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


def test_colour_keys_become_alpha():
    array = scene()
    array[10:20, 10:20] = (1, 2, 3)
    result = with_pillow(read_photo(encode(array, "PNG", transparency=(1, 2, 3))).encode())
    assert result.shape[2] == 4
    assert (result[10:20, 10:20, 3] == 0).all()
    assert (result[30:, 30:, 3] == 255).all()


def test_16_bit_colour_keys_become_alpha():
    array = scene(channels=1, dtype=np.uint16)
    array[10:20, 10:20] = 77
    photo = read_photo(png_16(array, [(b"tRNS", (77).to_bytes(2, "big"))]))
    result = with_opencv(photo.encode())
    assert photo.grey
    assert photo.bits == 16
    np.testing.assert_array_equal(result[..., :3], np.repeat(array, 3, axis=2))
    np.testing.assert_array_equal(result[..., 3] == 0, array[..., 0] == 77)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_bilevel_becomes_grey(format_name):
    data = encode(scene(), format_name, "1")
    result = Image.open(io.BytesIO(read_photo(data).encode()))
    assert result.mode == "L"
    np.testing.assert_array_equal(np.asarray(result) > 0, np.asarray(Image.open(io.BytesIO(data))))


def test_white_is_zero_tiff_is_shown_right_and_saved_as_black_is_zero():
    array = scene(channels=1, dtype=np.uint16)
    for samples, inverted in ((array, 65535 - array), ((array >> 8).astype(np.uint8), 255 - (array >> 8))):
        buffer = io.BytesIO()
        stored = inverted.astype(samples.dtype)[..., 0]
        tifffile.imwrite(buffer, stored, photometric="miniswhite", metadata=None)
        photo = read_photo(buffer.getvalue())
        np.testing.assert_array_equal(with_pillow(photo.encode()), samples[..., 0])


CMYK = {
    "jpeg": lambda image: save(image, "JPEG", quality=97),
    "tiff": lambda image: save(image, "TIFF"),
    "tiff-lzw": lambda image: save(image, "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", CMYK)
def test_cmyk_stays_cmyk(name):
    inks = scene(channels=4)
    inks[..., 3] //= 3
    data = CMYK[name](Image.fromarray(inks, "CMYK"))
    photo = read_photo(data)
    light = 1 - np.asarray(Image.open(io.BytesIO(data))) / 255
    assert np.abs(photo.pixels - light[..., :3] * light[..., 3:]).max() < 1e-6
    delta = np.zeros_like(photo.pixels)
    delta[20:60, 30:80] = 0.1
    changed = photo.with_perturbation(delta)
    expected = (photo.pixels + delta).clip(0, light[..., 3:])
    assert np.abs(changed.pixels - expected).max() < 0.6 / 255
    result = Image.open(io.BytesIO(changed.encode()))
    assert result.mode == "CMYK"
    if name != "jpeg":
        before, after = np.asarray(Image.open(io.BytesIO(data))), np.asarray(result)
        np.testing.assert_array_equal(after[..., 3], before[..., 3])
        outside = ~delta.any(axis=2)
        np.testing.assert_array_equal(after[outside], before[outside])
    else:
        assert np.abs(read_photo(changed.encode()).pixels - changed.pixels).mean() < 0.02


def test_cmyk_jpeg_without_adobes_marker_is_not_inverted():
    data = save(Image.fromarray(scene(channels=4), "CMYK"), "JPEG", quality=97)
    marker = data.index(b"\xff\xee")
    plain = data[:marker] + data[marker + 16 :]
    inverted = (1 - np.asarray(Image.open(io.BytesIO(data))) / 255)[..., :3]
    shown = 1 - inverted  # without the marker, what Adobe stores as light is ink
    black = np.asarray(Image.open(io.BytesIO(data)))[..., 3:] / 255
    np.testing.assert_allclose(read_photo(plain).pixels, shown * black, atol=1e-6)
    again = read_photo(read_photo(plain).encode())
    assert np.abs(again.pixels - read_photo(plain).pixels).mean() < 0.01


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_lossy_webp_stays_lossy_at_about_its_size(quality):
    data = encode(scene(200, 260), "WEBP", quality=quality)
    result = read_photo(data).encode()
    assert result[12:16] == b"VP8 "
    assert 0.85 < len(result) / len(data) < 1.15


def test_lossy_webp_keeps_its_alpha():
    array = scene(channels=4)
    photo = read_photo(encode(array, "WEBP", quality=80))
    np.testing.assert_array_equal(with_pillow(photo.encode())[..., 3], array[..., 3])


HEIC = {
    "rgb": lambda: heic(scene(128, 160), quality=70),
    "rgb-444": lambda: heic(scene(128, 160), quality=80, chroma=444),
    "rgba": lambda: heic(scene(128, 160, 4), "RGBA", quality=70),
    "grey": lambda: heic(scene(128, 160, 1), "L", quality=70),
    "ten-bit": lambda: heic(scene(128, 160, 3, np.uint16), "RGB;16", quality=70),
    "tiled": lambda: heic(scene(128, 160), quality=70, tile_size=64),
}


@pytest.mark.parametrize("name", HEIC)
def test_heic_keeps_its_kind_and_about_its_size(name):
    data = HEIC[name]()
    photo = read_photo(data)
    delta = np.zeros_like(photo.pixels)
    delta[20:60, 20:60] = 0.05
    changed = photo.with_perturbation(delta)
    result = changed.encode()
    before, after = (pillow_heif.open_heif(each, convert_hdr_to_8bit=False)[0] for each in (data, result))
    assert (after.mode, after.info["bit_depth"]) == (before.mode, before.info["bit_depth"])
    assert after.info.get("chroma") == before.info.get("chroma")
    assert photo.grey == (name == "grey")
    assert 0.8 < len(result) / len(data) < 1.2
    assert np.abs(read_photo(result).pixels - changed.pixels).mean() < 0.03


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_turned_once(orientation):
    stored = scene(64, 96)
    data = save_heic_turned(stored, orientation)
    photo = read_photo(data)
    assert np.abs(photo.pixels - TURN[orientation](stored) / 255).mean() < 0.03
    again = read_photo(photo.encode())
    assert again.pixels.shape == photo.pixels.shape
    assert np.abs(again.pixels - photo.pixels).mean() < 0.03


def save_heic_turned(stored, orientation):
    buffer = io.BytesIO()
    pillow_heif.encode(
        "RGB",
        stored.shape[1::-1],
        stored.tobytes(),
        buffer,
        quality=90,
        exif=b"Exif\0\0" + turned(orientation),
    )
    return buffer.getvalue()


BUILD_WITH_PROFILE = {
    "jpeg": lambda: encode(scene(), "JPEG", icc_profile=PROFILE, dpi=(240, 240)),
    "jpeg-grey": lambda: encode(scene(channels=1), "JPEG", icc_profile=PROFILE, dpi=(240, 240)),
    "png": lambda: encode(scene(), "PNG", icc_profile=PROFILE, dpi=(240, 240)),
    "tiff": lambda: encode(scene(), "TIFF", icc_profile=PROFILE, dpi=(240, 240)),
    "webp": lambda: encode(scene(), "WEBP", icc_profile=PROFILE),
    "webp-lossless": lambda: encode(scene(), "WEBP", icc_profile=PROFILE, lossless=True),
}


@pytest.mark.parametrize("policy", MetadataPolicy)
@pytest.mark.parametrize("name", BUILD_WITH_PROFILE)
def test_profile_and_density_stay(name, policy):
    data = BUILD_WITH_PROFILE[name]()
    before = Image.open(io.BytesIO(data))
    after = Image.open(io.BytesIO(read_photo(data).encode(metadata=policy)))
    assert after.info["icc_profile"] == PROFILE
    if "dpi" in before.info and policy is not MetadataPolicy.STRIP:
        assert after.info["dpi"] == pytest.approx(before.info["dpi"], abs=0.1)


@pytest.mark.parametrize("policy", MetadataPolicy)
def test_profile_stays_in_16_bit_files(policy):
    array = scene(dtype=np.uint16)
    png = add_png_chunks(
        png_16(array),
        (b"pHYs", b"\0\0\x24\xe6\0\0\x24\xe6\1"),
        (b"iCCP", png_chunks(encode(scene(), "PNG", icc_profile=PROFILE))[b"iCCP"]),
    )
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="rgb", iccprofile=PROFILE, metadata=None)
    for data in (png, buffer.getvalue()):
        result = Image.open(io.BytesIO(read_photo(data).encode(metadata=policy)))
        assert result.info["icc_profile"] == PROFILE


def test_heic_profile_stays():
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(scene())).save(buffer, quality=60, icc_profile=PROFILE)
    result = pillow_heif.open_heif(read_photo(buffer.getvalue()).encode())
    assert result.info["icc_profile"] == PROFILE


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "really-a-jpeg.PNG"
    path.write_bytes(encode(scene(), "JPEG"))
    photo = read_photo(path)
    assert (photo.format, photo.suffix) == ("JPEG", ".jpg")
    with pytest.raises(UsageError, match="JPEG") as caught:
        photo.save(tmp_path / "out.png")
    assert ".jpg" in caught.value.hint
    photo.save(tmp_path / "out.jpg")
    assert read_photo(tmp_path / "out.jpg").format == "JPEG"


def test_the_originals_ending_is_kept_when_it_is_right(tmp_path):
    path = tmp_path / "photo.JPEG"
    path.write_bytes(encode(scene(), "JPEG"))
    assert read_photo(str(path)).suffix == ".JPEG"


def test_one_pixel_is_a_photo():
    for data in (encode(scene(1, 1), "PNG"), encode(scene(1, 1), "JPEG"), encode(scene(1, 1), "WEBP")):
        photo = read_photo(data)
        assert photo.pixels.shape == (1, 1, 3)
        assert read_photo(photo.with_perturbation(np.full((1, 1, 3), 0.1)).encode()).pixels.shape == (1, 1, 3)


def test_rounding_happens_once_and_clips():
    photo = read_photo(encode(np.full((4, 4, 3), (0, 100, 255), np.uint8), "PNG"))
    changed = photo.with_perturbation(np.full((4, 4, 3), 0.4 / 255, np.float32))
    np.testing.assert_array_equal(changed.pixels, photo.pixels)
    changed = photo.with_perturbation(np.full((4, 4, 3), (-0.5, 0.1, 0.5), np.float32))
    np.testing.assert_array_equal(with_pillow(changed.encode())[0, 0], (0, 126, 255))


@pytest.mark.parametrize("colour", ["grey", "rgb", "cmyk"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_parts_are_parts_of_the_whole(colour, orientation):
    channels = {"grey": 1, "rgb": 3, "cmyk": 4}[colour]
    samples = np.random.default_rng(0).integers(0, 256, (30, 40, channels + 1), np.uint8)
    raster = Raster(samples, colour, orientation)
    whole, parts = raster.pixels(), Pixels(raster)
    assert parts.shape == whole.shape
    for part in [np.s_[3:9, 20:31], np.s_[::7, ::3], np.s_[-5:99, 25:], np.s_[:, :]]:
        np.testing.assert_array_equal(parts[part], whole[part])


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_perturbation_far_apart_is_added_as_one(orientation):
    generator = np.random.default_rng(0)
    raster = Raster(generator.integers(0, 256, (900, 700, 3), np.uint8), "rgb", orientation)
    delta = np.zeros_like(raster.pixels())
    for rows, columns in [
        (slice(3, 40), slice(5, 60)),
        (slice(250, 260), slice(600, 690)),
        (slice(-9, -1), slice(-80)),
    ]:
        delta[rows, columns] = generator.uniform(-1, 1, delta[rows, columns].shape)
    found = upright(raster.perturbed(delta).samples, orientation)
    wanted = np.rint(upright(raster.samples, orientation) + delta * 255).clip(0, 255)
    np.testing.assert_array_equal(found, wanted)


def test_a_photo_is_not_changed_by_its_perturbation_or_by_its_pixels():
    data = encode(scene(), "PNG")
    photo = read_photo(data)
    photo.with_perturbation(np.full(photo.pixels.shape, 0.3))
    photo.pixels[:] = 0
    np.testing.assert_array_equal(with_pillow(photo.encode()), scene())


@pytest.mark.parametrize(
    "delta",
    [
        np.zeros((3, 4, 3)),
        np.zeros((96, 128)),
        np.full((96, 128, 3), np.nan),
        np.full((96, 128, 3), np.inf),
        np.full((96, 128, 3), 1.5),
    ],
    ids=["size", "dimensions", "nan", "infinite", "range"],
)
def test_impossible_perturbations_are_refused(delta):
    with pytest.raises(UsageError):
        read_photo(encode(scene(), "PNG")).with_perturbation(delta)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "tiff"])
def test_photos_travel_between_processes(name):
    photo = pickle.loads(pickle.dumps(read_photo(BUILD_WITH_PROFILE[name]())))
    assert photo.encode() == read_photo(BUILD_WITH_PROFILE[name]()).encode()


def test_a_second_round_adds_nothing():
    first = read_photo(encode(scene(), "JPEG", exif=exif(orientation=6))).encode()
    again = read_photo(first).encode()
    assert [marker for marker, _ in jpeg_segments(again)] == [marker for marker, _ in jpeg_segments(first)]


def test_an_mpo_is_read_as_its_first_picture():
    first, second = Image.fromarray(scene(seed=1)), Image.fromarray(scene(40, 60, seed=2))
    data = save(first, "MPO", save_all=True, append_images=[second], quality=90)
    photo = read_photo(data)
    assert photo.format == "JPEG"
    result = Image.open(io.BytesIO(photo.encode(metadata=MetadataPolicy.KEEP)))
    assert (result.format, result.size) == ("JPEG", (128, 96))
    assert len(photo.encode()) < 0.95 * len(data)


def test_reduced_pages_of_a_tiff_are_thumbnails_and_go():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(scene(), photometric="rgb", metadata=None)
        writer.write(scene(24, 32), photometric="rgb", subfiletype=1, metadata=None)
    result = read_photo(buffer.getvalue()).encode(metadata=MetadataPolicy.KEEP)
    assert Image.open(io.BytesIO(result)).n_frames == 1
    np.testing.assert_array_equal(with_pillow(result), scene())


def test_jpeg_comments_and_foreign_segments_do_not_disturb(tmp_path):
    data = add_jpeg_segments(encode(scene(), "JPEG"), (0xFE, b"hello"), (0xE5, b"RMETA SERIAL"), (0xE0, b"JFXX\0\x10"))
    result = read_photo(data).encode()
    markers = dict(jpeg_segments(result))
    assert markers[0xFE] == b"hello"
    assert 0xE5 not in markers
    assert b"JFXX" not in result
