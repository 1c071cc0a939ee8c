"""Views: the patch around a face, and the perturbation's way back to the photo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bauta.cloaks.view import MAX_FOOTPRINT, cut_view
from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112

POINTS = np.asarray(ARCFACE_112.points, dtype=np.float32)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


def test_a_small_face_keeps_its_pixels():
    pixels = photo(200, 220)
    view, placement = cut_view(pixels, POINTS + (50, 40))
    top, left = placement.top, placement.left
    expected = pixels[top : top + placement.height, left : left + placement.width]
    assert np.array_equal(view.pixels.permute(1, 2, 0).numpy(), expected)
    assert np.allclose(view.landmarks.numpy() + (left, top), POINTS + (50, 40), atol=1e-4)


def test_a_large_face_is_reduced():
    view, placement = cut_view(photo(1200, 1200), POINTS * 9)
    assert max(view.pixels.shape[1:]) < 1.35 * MAX_FOOTPRINT
    assert placement.width > 900


@pytest.mark.parametrize("scale", [1, 6])
def test_the_way_back_is_zero_outside_the_region(scale):
    pixels = photo(900, 900)
    view, placement = cut_view(pixels, POINTS * scale + 100)
    delta = torch.ones_like(view.pixels) * (view.region > 0)
    whole = np.zeros_like(pixels)
    whole[placement.rows, placement.columns] = placement.patch(delta)
    outside = np.ones((900, 900), dtype=bool)
    outside[placement.top : placement.top + placement.height, placement.left : placement.left + placement.width] = 0
    assert whole.shape == pixels.shape
    assert np.abs(whole[outside]).max() == 0
    middle = (POINTS.mean(0) * scale + 100).astype(int)
    assert np.allclose(whole[middle[1], middle[0]], 1, atol=1e-3)
    assert np.abs(whole[: 100 - 2 * scale]).max() == 0


def test_a_face_at_the_edge_is_cut_there():
    view, placement = cut_view(photo(100, 100), POINTS - (40, 0))
    assert placement.left == 0
    assert view.region[0, 50, 0] < 0.5


@pytest.mark.parametrize("shift", [(500, 0), (0, -500), (-130, -130)])
def test_a_face_outside_is_refused(shift):
    with pytest.raises(UsageError):
        cut_view(photo(120, 120), POINTS + np.float32(shift))


def test_coinciding_landmarks_are_refused():
    with pytest.raises(UsageError):
        cut_view(photo(120, 120), np.full((5, 2), 50, dtype=np.float32))
