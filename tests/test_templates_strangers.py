"""Faces of nobody: drawn from a model that looks like faces in the mean and in the power of every frequency."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bauta.templates.masked.strangers import Strangers, _frequencies, _pixels
from conftest import drawn


def low_contrast_faces(count: int, seed: int) -> Tensor:
    """(count, 3, 112, 112): smooth shapes with fine detail on one half, far from black and white."""
    generator = drawn(seed)
    coarse = torch.randn(count, 3, 7, 7, generator=generator)
    fine = torch.randn(count, 1, 112, 112, generator=generator) * (torch.arange(112) < 56)
    smooth = functional.interpolate(coarse, (112, 112), mode="bicubic", align_corners=False)
    return (0.5 + 0.05 * smooth + 0.02 * fine).clamp(0, 1)


def test_frequencies_lead_back_to_pixels() -> None:
    images = torch.rand(2, 3, 112, 112, generator=drawn())
    torch.testing.assert_close(_pixels(_frequencies(images)), images, atol=1e-5, rtol=0)
    flat = torch.full((1, 3, 112, 112), 0.25)
    assert float(_frequencies(flat)[:, :, ::8, ::8].abs().sum()) == pytest.approx(float(_frequencies(flat).abs().sum()))


def test_draws_have_the_mean_and_the_power_of_faces() -> None:
    images = low_contrast_faces(96, 1)
    strangers = Strangers(24)
    strangers.learn(images)
    made = strangers.draw(96, drawn(2))
    assert float((made.mean(0) - images.mean(0)).abs().mean()) < 0.02
    theirs, ours = (_frequencies(one - one.mean(0)).square().mean(0) for one in (images, made))
    for half in (slice(0, 56), slice(56, 112)):
        ratio = ours[..., half].mean() / theirs[..., half].mean()
        assert 0.7 < float(ratio) < 1.3  # with detail where faces have it, and without where they do not
    fine = ours[0, 7::8, 7::8]
    assert float(fine[:, :7].mean()) > 20 * float(fine[:, 7:].mean())


def test_nobody_is_drawn_twice_and_no_face_is_kept() -> None:
    images = low_contrast_faces(40, 1)
    strangers = Strangers(8)
    strangers.learn(images)
    made = strangers.draw(30, drawn(2))
    assert made.shape == (30, 3, 112, 112)
    assert torch.equal(made, strangers.draw(30, drawn(2)))
    between = torch.cdist(made.flatten(1), made.flatten(1)) + 100 * torch.eye(30)
    nearest = torch.cdist(made.flatten(1), images.flatten(1)).min()
    usual = torch.cdist(images.flatten(1), images.flatten(1)).median()
    assert float(between.min()) > 0.3 * float(usual)
    assert float(nearest) > 0.3 * float(usual)


def test_few_faces_have_few_eigenfaces() -> None:
    strangers = Strangers(8)
    strangers.learn(low_contrast_faces(4, 1))
    assert [bool(one.any()) for one in strangers.smooth.components] == [True] * 4 + [False] * 4
    assert bool(strangers.draw(3, drawn()).isfinite().all())
