"""Transports and visibility: right values, right ranges, finite gradients."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from bauta import metrics
from bauta.errors import UsageError
from bauta.objectives.mmd import mmd
from bauta.objectives.transports import (
    brightness_contrast,
    draw_movement,
    draw_transport,
    gaussian_blur,
    jpeg,
    resize,
)
from bauta.objectives.visibility import just_noticeable, ssim_map
from conftest import toy_view


def real_jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    stream = io.BytesIO()
    Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(
        stream, "JPEG", quality=quality
    )
    return torch.from_numpy(np.array(Image.open(stream)).astype(np.float32) / 255).permute(2, 0, 1)


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_jpeg_is_close_to_the_real_one(quality, astronaut):
    image = torch.from_numpy(astronaut[60:173, 170:281]).permute(2, 0, 1)  # odd sides
    ours, real = jpeg(image[None], quality)[0], real_jpeg(image, quality)
    error = (ours - real).square().mean().sqrt()
    loss = (image - real).square().mean().sqrt()
    assert error < 0.75 * loss + 0.004


@pytest.mark.parametrize(
    "transport",
    [
        lambda x: jpeg(x, 60),
        lambda x: resize(x, 0.5),
        lambda x: gaussian_blur(x, 0.8),
        lambda x: brightness_contrast(x, 0.02, 1.1),
    ],
)
def test_transports_keep_shape_and_range_and_pass_gradients(transport):
    image = toy_view(size=101).pixels[None].requires_grad_()
    out = transport(image)
    assert out.shape == image.shape
    assert out.min() >= -1e-5
    assert out.max() <= 1 + 1e-5
    (gradient,) = torch.autograd.grad(out.square().sum(), image)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_blur_keeps_the_mean_and_is_separable_gaussian():
    flat = torch.full((1, 3, 20, 20), 0.3)
    assert torch.allclose(gaussian_blur(flat, 1.3), flat, atol=1e-6)
    point = torch.zeros(1, 1, 21, 21)
    point[0, 0, 10, 10] = 1
    spread = gaussian_blur(point, 1.0)[0, 0]
    assert spread[10, 10] / spread[10, 11] == pytest.approx(np.exp(0.5), rel=1e-4)


@pytest.mark.parametrize("quality", [0, 101])
def test_impossible_quality_is_refused(quality):
    with pytest.raises(UsageError):
        jpeg(torch.zeros(1, 3, 16, 16), quality)


def test_draws_follow_the_generator():
    image = toy_view().pixels[None]
    for seed in range(12):
        first, second = (draw_transport(torch.Generator().manual_seed(seed))(image) for _ in range(2))
        assert torch.equal(first, second)


def test_movement_turns_about_the_centre():
    movement = draw_movement(torch.Generator().manual_seed(1), (112, 96), spread=0.0, turn=0.5)
    centre = torch.tensor([47.5, 55.5], dtype=torch.float64)
    assert torch.allclose(movement[:, :2] @ centre + movement[:, 2], centre)
    assert torch.linalg.det(movement[:, :2]) == pytest.approx(1)


def test_just_noticeable_is_larger_in_texture_and_in_the_dark():
    image = torch.full((1, 3, 40, 40), 0.5)
    image[..., 20:] += 0.3 * (torch.arange(40) % 2).float()[:, None] - 0.15
    visible = just_noticeable(image)[0, 0]
    assert visible[20, 32] > 3 * visible[20, 5]
    levels = [float(just_noticeable(torch.full((1, 3, 16, 16), level)).mean()) for level in (0.02, 0.5)]
    assert levels[0] > levels[1] > 0


def test_ssim_map_agrees_with_the_metric(astronaut):
    first = astronaut[40:180, 160:300]
    second = (first + np.random.default_rng(0).normal(0, 0.03, first.shape)).clip(0, 1).astype(np.float32)
    images = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in (first, second)]
    inner = ssim_map(*images)[..., 5:-5, 5:-5].mean()
    assert float(inner) == pytest.approx(metrics.ssim(first, second), abs=1e-4)
    assert torch.allclose(ssim_map(images[0], images[0]), torch.ones(1, 1, 140, 140), atol=1e-5)


def test_mmd_is_zero_for_equal_batches_and_grows():
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(4, 30, generator=generator) * 255
    assert float(mmd(batch, batch)) == pytest.approx(0, abs=1e-5)
    values = [float(mmd(batch + shift, batch)) for shift in (1, 5, 20)]
    assert 0 < values[0] < values[1] < values[2]
