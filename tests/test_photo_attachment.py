"""What a protected file carries for its owner: in every format, once, and gone when the photo is saved anew."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from bauta.photo import read_photo
from bauta.photo.attachment import RECORDS, REGIONS, _boxes, attach, attached


def photo(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels), kind, **options)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(image).save(stream, **options)
    else:
        image.save(stream, kind, **options)
    return stream.getvalue()


def opened(content: bytes, kind: str) -> Image.Image:
    """By other readers than ours."""
    return pillow_heif.open_heif(content).to_pillow() if kind == "HEIF" else Image.open(io.BytesIO(content))


OWN = (RECORDS, b"for the owner")
KINDS = [("JPEG", {}), ("JPEG", {"progressive": True, "exif": Image.Exif()}), ("PNG", {}), ("WEBP", {})]
KINDS += [("TIFF", {}), ("TIFF", {"compression": "tiff_deflate", "description": "a"}), ("HEIF", {}), ("AVIF", {})]
KINDS += [("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"})]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_payload_comes_back_and_changes_no_pixel(kind: str, options: dict[str, object]):
    content = photo(kind, **options)
    assert attached(content) == []
    for sections in (
        [(RECORDS, b"x")],
        [(RECORDS, b"two"), (REGIONS, b"")],
        [(REGIONS, bytes(range(256)) * 2000), (RECORDS, bytes(70_000)), (REGIONS, b"\xff")],
    ):
        content = attach(content, sections)  # takes the place of those before
        assert attached(content) == sections
        shown = np.asarray(opened(content, kind).convert("RGB"))
        assert (shown == np.asarray(opened(photo(kind, **options), kind).convert("RGB"))).all()
        assert read_photo(content).format == kind


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_who_saves_the_photo_anew_leaves_it_out(kind: str, options: dict[str, object]):
    content = attach(photo(kind, **options), [OWN])
    assert attached(read_photo(content).encode()) == []
    assert attached(saved(opened(content, kind), kind)) == []


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_file_that_is_cut_off_carries_nothing(kind: str, options: dict[str, object]):
    content = attach(photo(kind, **options), [OWN])
    for length in range(0, len(content), 7):
        assert attached(content[:length]) in ([], [OWN])


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_what_was_attached_leaves_without_a_trace(kind: str, options: dict[str, object]):
    content = photo(kind, **options)
    assert attach(attach(content, [OWN]), []) == attach(content, [])
    assert read_photo(attach(content, [OWN])).removed() == read_photo(content).removed()


def test_a_file_of_nothing_but_boxes_is_not_taken_apart():
    empty = b"\0\0\0\x08free"
    content = photo("AVIF") + empty * 100_000
    assert attached(content) == []
    assert attach(content, []) == content
    assert sum(1 for _ in _boxes(content)) <= 1001


def test_other_formats_are_refused():
    for content in (photo("GIF"), b"", b"II*\0", b"II*\0" + bytes([255] * 9)):
        with pytest.raises(ValueError, match="cannot be attached"):
            attach(content, [OWN])
        assert attached(content) == []
