from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch

from bauta.errors import UsageError
from bauta.faces.alignment import similarity_matrix
from bauta.faces.crop_template import ARCFACE_112, ARCFACE_112X96, CROP_TEMPLATES, DLIB_150
from bauta.faces.warp import warp
from bauta.training.augmentation import CHANGES, Augmentation, augment
from conftest import toy_view

NOTHING = Augmentation.none()
EVERYTHING = replace(Augmentation(), **dict.fromkeys(CHANGES, 1.0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(change: str, **strengths: object) -> Augmentation:
    return replace(NOTHING, **{change: 1.0}, **strengths)


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    return torch.stack([toy_view(seed).pixels for seed in range(6)])


@pytest.mark.parametrize("template", CROP_TEMPLATES.values(), ids=lambda template: template.name)
@pytest.mark.parametrize("config", [Augmentation(), EVERYTHING], ids=["usual", "everything"])
def test_images_stay_images(batch, config, template):
    before = batch.clone()
    images = augment(batch, seeded(), config, template=template)
    assert images.shape == (6, 3, template.height, template.width)
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(batch, before)


def test_extreme_colours_stay_finite():
    for value in (0.0, 1.0):
        images = augment(torch.full((32, 3, 112, 112), value), seeded(), EVERYTHING)
        assert images.isfinite().all()
        assert 0 <= images.min() <= images.max() <= 1


def test_the_same_generator_gives_the_same_images(batch):
    assert torch.equal(augment(batch, seeded(4), EVERYTHING), augment(batch, seeded(4), EVERYTHING))
    assert not torch.equal(augment(batch, seeded(4), EVERYTHING), augment(batch, seeded(5), EVERYTHING))


def test_nothing_changes_nothing(batch):
    assert torch.equal(augment(batch, seeded(), NOTHING), batch)
    # Images of any memory layout, as they come from (N, 112, 112, 3) files.
    assert torch.equal(augment(batch.to(memory_format=torch.channels_last), seeded(), NOTHING), batch)
    assert augment(batch[:0], seeded(), EVERYTHING, template=ARCFACE_112X96).shape == (0, 3, 112, 96)


def test_another_template_is_a_plain_alignment(batch):
    narrow = augment(batch, seeded(), NOTHING, template=ARCFACE_112X96)
    torch.testing.assert_close(narrow, batch[..., 8:104], atol=2e-5, rtol=0)
    matrix = torch.from_numpy(similarity_matrix(ARCFACE_112.points, DLIB_150))
    expected = warp(batch, matrix, (150, 150))
    chip = augment(batch, seeded(), NOTHING, template=DLIB_150)
    # Below, dlib's chip reaches beyond the ArcFace crop, where `warp` is black.
    torch.testing.assert_close(chip[:, :, :128], expected[:, :, :128], atol=1e-4, rtol=0)
    assert chip[:, :, 140:].min() > 0


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_alone_changes_every_image(batch, change):
    changed = augment(batch, seeded(), only(change))
    assert ((changed - batch).abs().amax((1, 2, 3)) > 1 / 255).all()


@pytest.mark.parametrize("change", CHANGES)
def test_half_the_probability_changes_half_the_images(change):
    faces = torch.rand(1, 3, 112, 112, generator=seeded()).expand(64, -1, -1, -1)
    changed = augment(faces, seeded(1), replace(NOTHING, **{change: 0.5}))
    count = ((changed - faces).abs().amax((1, 2, 3)) > 1e-3).sum()
    assert 16 <= count <= 48


def test_a_mirror_image_is_exact_to_rounding(batch):
    torch.testing.assert_close(augment(batch, seeded(), only("flip")), batch.flip(3), atol=2e-5, rtol=0)


def test_a_mirror_image_comes_before_the_template(batch):
    mirrored = augment(batch, seeded(), only("flip"), template=DLIB_150)
    torch.testing.assert_close(
        mirrored, augment(batch.flip(3), seeded(), NOTHING, template=DLIB_150), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("angle", [0.0, 180.0])
def test_moves_are_no_greater_than_asked(angle):
    spot = torch.zeros(40, 3, 112, 112)
    spot[:, :, 55:57, 55:57] = 1
    config = only("move", shift=5.0, scale=(1.0, 1.0), rotation=angle)
    moved = augment(spot, seeded(), config)[:, 0]
    line = torch.arange(112.0)
    mass = moved.sum((1, 2))
    offsets = torch.stack([(moved.sum(axis) * line).sum(1) / mass - 55.5 for axis in (1, 2)])
    assert offsets.abs().max() <= 5.01
    assert offsets.abs().max() > 3


def test_scale_is_that_of_the_face():
    disc = torch.zeros(8, 3, 112, 112)
    disc[:, :, 36:76, 36:76] = 1
    grown = augment(disc, seeded(), only("move", scale=(1.2, 1.2), rotation=0.0, shift=0.0))
    torch.testing.assert_close(grown.sum((1, 2, 3)) / disc.sum((1, 2, 3)), torch.full((8,), 1.44), atol=0.02, rtol=0)


def test_makeup_keeps_to_the_face(batch):
    difference = (augment(batch, seeded(), only("makeup")) - batch).abs().mean((0, 1))
    assert difference[:15].max() < 1e-3  # forehead's top
    assert difference[88:97, 46:66].mean() > 0.01  # lips


def test_glasses_and_masks_are_among_the_occlusions():
    covered = augment(torch.full((64, 3, 112, 112), 0.5), seeded(), only("occlusion")) != 0.5
    area = covered.any(1).float().mean((1, 2))
    assert 0 < area.min() < area.max() < 0.5
    both_eyes = covered[:, :, 51, 38].any(1) & covered[:, :, 51, 74].any(1)
    mouth = covered[:, :, 100, 40].any(1) & covered[:, :, 100, 72].any(1)
    assert both_eyes.sum() > 4
    assert mouth.sum() > 4


def test_blur_is_opencv_s(batch):
    ours = augment(batch, seeded(), only("blur", blur_sigma=(1.5, 1.5)))
    theirs = cv2.GaussianBlur(batch[0].permute(1, 2, 0).numpy(), (25, 25), 1.5)
    np.testing.assert_allclose(ours[0].permute(1, 2, 0).numpy()[15:-15, 15:-15], theirs[15:-15, 15:-15], atol=1e-4)


def test_coarse_sampling_is_averaging_and_interpolation(batch):
    ours = augment(batch, seeded(), only("coarse", coarse_side=(28, 28)))
    small = torch.nn.functional.avg_pool2d(batch, 4)
    expected = torch.nn.functional.interpolate(small, (112, 112), mode="bilinear")
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_noise_has_the_strength_asked_for():
    grey = torch.full((16, 3, 112, 112), 0.5)
    white = augment(grey, seeded(), only("noise", noise_rms=(6.0, 6.0))) - grey
    smooth = augment(grey, seeded(), only("smooth_noise", smooth_rms=(6.0, 6.0))) - grey
    for noise in (white, smooth):
        rms = 255 * noise.square().mean((1, 2, 3)).sqrt()
        torch.testing.assert_close(rms, torch.full((16,), 6.0), atol=0.1, rtol=0)

    def roughness(noise: torch.Tensor) -> torch.Tensor:
        return noise.diff(dim=3).square().mean() / noise.square().mean()

    assert roughness(smooth) < 0.6 < 1.9 < roughness(white)


def test_jpeg_quality_matters(batch):
    errors = [
        (augment(batch, seeded(), only("jpeg", jpeg_quality=(quality, quality))) - batch).square().mean()
        for quality in (95, 30)
    ]
    assert errors[0] < errors[1] < 1e-2


def test_a_colour_s_channels_survive_compression():
    red = torch.zeros(1, 3, 112, 112)
    red[:, 0] = 1
    torch.testing.assert_close(augment(red, seeded(), only("jpeg")), red, atol=0.03, rtol=0)


@pytest.mark.parametrize("field", [field.name for field in fields(Augmentation)])
def test_values_outside_their_limits_are_refused(field):
    paired = isinstance(getattr(NOTHING, field), tuple)
    for value in ((-1.0, 1.0), (2.0, 1.0), 1.0, (1.0,)) if paired else (-0.1, 1e4, float("nan"), (0.1, 0.2)):
        with pytest.raises(UsageError, match=field):
            replace(NOTHING, **{field: value})


@pytest.mark.parametrize(
    "batch",
    [torch.rand(3, 112, 112), torch.rand(1, 3, 96, 112), torch.zeros(1, 3, 112, 112, dtype=torch.uint8)],
    ids=["no batch", "size", "bytes"],
)
def test_other_batches_are_refused(batch):
    with pytest.raises(UsageError, match="batch"):
        augment(batch, seeded(), NOTHING)
