"""Purifiers: what each does to known pictures, and what all promise."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import numpy as np
import pytest
import torch

from bauta import metrics
from bauta.attacks import purify
from bauta.attacks.purify import (
    BitDepthPurifier,
    BlurPurifier,
    DenoiserPurifier,
    JpegPurifier,
    TotalVariationPurifier,
    denoiser_card,
    total_variation,
)
from bauta.errors import UsageError, WeightsCorrupt
from bauta.registry import list_methods, load_method

PURIFIERS = [card.name for card in list_methods(kind="purifier")]


@pytest.fixture
def face(astronaut: np.ndarray) -> np.ndarray:
    """(112, 112, 3) uint8."""
    return (astronaut[40:264:2, 120:344:2] * 255).round().astype(np.uint8)


def noisy(face: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, face.shape)
    return (face + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", PURIFIERS)
class TestContract:
    def test_photos_keep_their_form_and_are_left_alone(self, name: str, face: np.ndarray) -> None:
        photos = np.stack([face, face[::-1]])
        before = photos.copy()
        purifier = load_method(name)()
        purified = purifier.purify(photos)
        assert (purified.shape, purified.dtype) == (photos.shape, np.uint8)
        assert (photos == before).all()
        assert (purifier.purify(photos) == purified).all()
        assert (purified != photos).any()
        assert metrics.psnr(purified / 255, photos / 255) > 22

    def test_each_photo_by_itself(self, name: str, face: np.ndarray) -> None:
        photos = np.stack([face, noisy(face, 10), face[::-1]])
        purifier = load_method(name)()
        alone = np.concatenate([purifier.purify(photo[None]) for photo in photos])
        assert np.abs(alone.astype(int) - purifier.purify(photos)).max() <= 1

    def test_odd_sizes_and_none_at_all(self, name: str, face: np.ndarray) -> None:
        purifier = load_method(name)()
        assert purifier.purify(face[None, :61, :45]).shape == (1, 61, 45, 3)
        assert purifier.purify(face[None][:0]).shape == (0, 112, 112, 3)

    @pytest.mark.parametrize("shape", [(112, 112, 3), (1, 3, 112, 112), (1, 4, 4, 3)])
    def test_other_forms_are_refused(self, name: str, shape: tuple[int, ...]) -> None:
        with pytest.raises(UsageError, match="purified"):
            load_method(name)().purify(np.zeros(shape, dtype=np.uint8))

    def test_floats_are_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match="float"):
            load_method(name)().purify(np.zeros((1, 32, 32, 3)))

    def test_it_knows_nothing_of_the_protection(self, name: str) -> None:
        card = load_method(name)().attacker
        assert (card.name, card.knowledge, card.adaptive) == (name, "nothing", False)


def test_bit_depth_leaves_two_to_the_bits_levels(face: np.ndarray) -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(16 * 3).reshape(1, 64, 64, 3)
    for bits in (1, 3):
        assert len(np.unique(BitDepthPurifier(bits).purify(ramp))) == 2**bits
    assert (BitDepthPurifier(8).purify(face[None]) == face).all()


def test_total_variation_is_that_of_scikit_image(face: np.ndarray) -> None:
    from skimage.restoration import denoise_tv_chambolle

    photo = face / 255
    found = total_variation(torch.from_numpy(photo).permute(2, 0, 1)[None], 0.1, 60)
    channels = [denoise_tv_chambolle(photo[..., channel], 0.1, eps=0, max_num_iter=61) for channel in range(3)]
    assert np.abs(found[0].permute(1, 2, 0).numpy() - np.stack(channels, 2)).max() < 1e-9


def test_total_variation_falls_with_its_weight(face: np.ndarray) -> None:
    def variation(photo: np.ndarray) -> float:
        return float(
            np.abs(np.diff(photo.astype(int), axis=1)).sum() + np.abs(np.diff(photo.astype(int), axis=2)).sum()
        )

    found = [variation(TotalVariationPurifier(weight).purify(face[None])) for weight in (0.01, 0.1, 1.0)]
    assert variation(face[None]) > found[0] > found[1] > found[2]


def test_jpeg_and_blur_lose_more_when_they_are_stronger(face: np.ndarray) -> None:
    for weak, strong in ((JpegPurifier(90), JpegPurifier(20)), (BlurPurifier(0.5), BlurPurifier(2.0))):
        losses = [metrics.psnr(purifier.purify(face[None]) / 255, face / 255) for purifier in (weak, strong)]
        assert losses[0] > losses[1] + 3


@pytest.mark.parametrize("deviation", [16, 24])
def test_the_denoiser_takes_noise_away(face: np.ndarray, deviation: float) -> None:
    spoiled = noisy(face, deviation)
    before = metrics.psnr(spoiled / 255, face / 255)
    assert metrics.psnr(DenoiserPurifier().purify(spoiled[None])[0] / 255, face / 255) > before + 1.5


def test_the_denoiser_has_a_card() -> None:
    card = denoiser_card()
    content = files("bauta.attacks").joinpath("denoiser.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert sum(parameter.numel() for parameter in purify.Denoiser().parameters()) == card["weights"] < 100_000
    attacker = DenoiserPurifier().attacker
    assert attacker.people > 1000
    assert attacker.stopped == "epochs"
    assert card["licence"] == "Apache-2.0"


def test_other_weights_than_the_cards_are_refused(face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    purify._denoiser.cache_clear()
    monkeypatch.setattr(purify, "denoiser_card", lambda: {**denoiser_card(), "sha256": "0" * 64})
    with pytest.raises(WeightsCorrupt, match="card"):
        DenoiserPurifier().purify(face[None])


@pytest.mark.parametrize(
    ("of", "change"),
    [
        (BlurPurifier, {"sigma": 0.0}),
        (JpegPurifier, {"quality": 0}),
        (BitDepthPurifier, {"bits": 9}),
        (TotalVariationPurifier, {"weight": 0.0}),
        (TotalVariationPurifier, {"iterations": 0}),
    ],
)
def test_strengths_are_checked(of: type, change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        of(**change)
