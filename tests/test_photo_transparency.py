"""What transparent pixels hide does not reach the product."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from bauta.photo import read_photo


def png(pixels: np.ndarray, mode: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels, mode).save(stream, "PNG")
    return stream.getvalue()


def test_colours_under_full_transparency_are_cleared_and_all_else_stays() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (12, 10, 4), dtype=np.uint8)
    pixels[2:5, 3:7, 3] = 0
    pixels[6, 6, 3] = 1  # hardly to be seen, and seen
    photo = read_photo(png(pixels, "RGBA"))
    again = np.asarray(Image.open(io.BytesIO(photo.cleared().encode())))
    hidden = pixels[..., 3] == 0
    assert not again[hidden].any()
    assert np.array_equal(again[~hidden], pixels[~hidden])
    assert not photo.cleared().pixels[hidden].any()
    assert photo.pixels[hidden].any()  # so that the test could fail


def test_a_photo_that_hides_nothing_is_the_same_photo() -> None:
    opaque = read_photo(png(np.full((4, 4, 3), 9, np.uint8), "RGB"))
    clean = read_photo(png(np.zeros((4, 4, 4), np.uint8), "RGBA"))
    assert opaque.cleared() is opaque
    assert clean.cleared() is clean
