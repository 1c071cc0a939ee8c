"""Replay and likeness say what is known of recovered faces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attack_toys import ToyJudge, toy_faces
from bauta.attacks.replay import Replay, Victims, embed_aligned, likeness
from bauta.errors import UsageError


@pytest.fixture
def victims() -> Victims:
    pixels, subjects = toy_faces(6, 2)
    faces = pixels.float() / 255
    return Victims(faces[::2], faces[1::2], subjects[::2])


def test_a_perfect_recovery_is_the_person_and_a_grey_one_is_nobody(victims: Victims) -> None:
    replay = Replay(victims, {"toy": ToyJudge()})
    perfect = replay.scores(victims.enrolled)["toy"]
    np.testing.assert_allclose(perfect.first, 1, atol=1e-5)
    np.testing.assert_allclose(perfect.second, replay.self_scores("toy"), atol=1e-6)
    assert perfect.second.min() > 0.8
    swapped = replay.scores(victims.enrolled.roll(1, 0))["toy"]
    assert np.median(swapped.first) < 0.5
    assert np.median(swapped.second) < 0.5


def test_other_faces_than_the_victims_are_refused(victims: Victims) -> None:
    with pytest.raises(UsageError, match="not those of 6 victims"):
        Replay(victims, {"toy": ToyJudge()}).scores(victims.enrolled[:5])
    with pytest.raises(UsageError, match="not enough to attack"):
        Victims(victims.enrolled, victims.others[:2], victims.subjects)


def test_likeness_has_known_answers() -> None:
    images = toy_faces(2, 1)[0].float() / 255
    same = likeness(images, images)
    assert (same.mse == 0).all()
    assert all(map(math.isinf, same.psnr))
    np.testing.assert_allclose(same.ssim, 1, atol=1e-5)
    grey = torch.full_like(images, 0.5)
    moved = likeness(grey + 0.1, grey)
    np.testing.assert_allclose(moved.mse, 0.01, rtol=1e-4)
    np.testing.assert_allclose(moved.psnr, 20, rtol=1e-4)


def test_no_images_have_no_embeddings() -> None:
    assert embed_aligned(ToyJudge(), np.zeros((0, 3, 112, 112), np.float32)).shape == (0, 16)
