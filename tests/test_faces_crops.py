"""One place carries aligned faces from one template to another, for arrays and for tensors alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bauta.errors import UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112, CROP_TEMPLATES, DLIB_150, CropTemplate
from bauta.faces.crops import align, alignments, retemplate, retemplate_pixels


def _smooth(count: int, side: int = 112) -> np.ndarray:
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    waves = [np.sin(x * (3 + n) / side + c) * np.cos(y * (2 + c) / side + n) for n in range(count) for c in range(3)]
    return (0.5 + 0.5 * np.stack(waves).reshape(count, 3, side, side)).transpose(0, 2, 3, 1).astype(np.float32)


@pytest.mark.parametrize("template", CROP_TEMPLATES.values(), ids=lambda template: template.name)
def test_arrays_and_tensors_get_the_same_crops(template: CropTemplate) -> None:
    faces = _smooth(2)
    arrays = retemplate_pixels(faces, template)
    tensors = retemplate(torch.from_numpy(faces.transpose(0, 3, 1, 2)), template).numpy()
    assert arrays.shape == tensors.shape == (2, 3, template.height, template.width)
    # OpenCV rounds places to 1/32 of a pixel.
    assert np.abs(arrays - tensors).max() < 0.01
    # And it is what a detector's landmarks would have given.
    direct = extract_crops(faces[0], ARCFACE_112.landmarks()[None], template)[0]
    assert np.abs(arrays[0] - direct).max() < 1e-5


def test_a_crop_wanted_as_it_is_comes_back_bit_for_bit() -> None:
    faces = np.random.default_rng(0).random((2, 112, 112, 3), dtype=np.float32)
    renamed = replace(ARCFACE_112, name="the same by another name")
    for template in (ARCFACE_112, renamed):
        assert np.array_equal(retemplate_pixels(faces, template), faces.transpose(0, 3, 1, 2))
        tensor = torch.from_numpy(faces.transpose(0, 3, 1, 2))
        assert retemplate(tensor, template) is tensor


def test_whole_pixels_are_rounded_and_not_wrapped() -> None:
    faces = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    found = retemplate_pixels(faces, DLIB_150)
    assert found.dtype == np.uint8
    exact = retemplate_pixels(faces.astype(np.float32), DLIB_150)
    assert np.abs(found - exact).max() <= 0.5 + 1e-4


def test_the_same_crop_in_another_size_gives_the_same_face() -> None:
    small, large = _smooth(1), _smooth(1, 224)
    for template in CROP_TEMPLATES.values():
        difference = np.abs(retemplate_pixels(large, template) - retemplate_pixels(small, template))
        assert difference[..., 20:-20, 20:-20].max() < 0.03, template.name  # black comes in at the border


def test_gradients_pass_and_each_face_may_have_its_landmarks() -> None:
    images = torch.from_numpy(_smooth(2, 160).transpose(0, 3, 1, 2)).requires_grad_()
    own = np.stack([ARCFACE_112.landmarks() + shift for shift in (5, 30)])
    crops = align(images, own, ARCFACE_112)
    crops.sum().backward()
    assert images.grad is not None
    assert float(images.grad[1, :, :20, :20].abs().sum()) == 0 < float(images.grad[0, :, :20, :20].sum())
    assert torch.equal(crops[1:], align(images[1:], own[1], ARCFACE_112))
    assert alignments(own, ARCFACE_112).shape == (2, 2, 3)
    with pytest.raises(UsageError, match="warped"):
        align(images, own.repeat(2, 0)[:3], ARCFACE_112)


def test_nothing_is_nothing() -> None:
    assert retemplate_pixels(np.zeros((0, 112, 112, 3), np.uint8), DLIB_150).shape == (0, 3, 150, 150)
