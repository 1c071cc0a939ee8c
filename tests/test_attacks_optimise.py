"""A searched image has the stored representation, under randomness too."""

from __future__ import annotations

import pytest
import torch

from attack_toys import cut_recognizer, toy_faces
from bauta.attacks.optimise import OptimisationConfig, search, view_of
from bauta.errors import NumericalFailure, UsageError
from bauta.templates.references import ConstantImage, IdentityFeature, NoiseConfig, NoisyImage

MEAN = torch.full((3, 112, 112), 0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_search_finds_the_stored_template() -> None:
    protector = IdentityFeature(cut_recognizer())
    faces = toy_faces(3, 1)[0].float() / 255
    stored = protector.protect(faces, seeded())
    found = search(protector, stored, OptimisationConfig(iterations=60, starts=2), MEAN, seeded())
    assert (protector.clean(found.images) * protector.templates(stored)).sum(1).min() > 0.99
    assert torch.allclose(found.distance, 1 - (protector.clean(found.images) * stored.values()).sum(1), atol=1e-5)
    assert 0 <= found.images.min() <= found.images.max() <= 1
    assert found.start.dtype == torch.int64


def test_the_feature_tells_more_of_the_face_than_the_template() -> None:
    protector = IdentityFeature(cut_recognizer(), split="1")
    faces = toy_faces(3, 1)[0].float() / 255
    stored = protector.protect(faces, seeded())
    errors = {}
    for level in ("template", "representation"):
        config = OptimisationConfig(level, 80, 1, rate=0.1, variation=0.1)
        errors[level] = (search(protector, stored, config, MEAN, seeded()).images - faces).abs().mean()
    assert errors["representation"] < 0.8 * errors["template"]


def test_more_draws_of_the_randomness_come_nearer_in_expectation() -> None:
    protector = NoisyImage(cut_recognizer(), NoiseConfig(sigma=100.0))
    faces = toy_faces(4, 1)[0].float() / 255
    stored = protector.protect(faces, seeded())
    distances = {}
    for draws in (1, 8):
        config = OptimisationConfig("representation", 40, 1, draws, rate=0.3)
        images = search(protector, stored, config, MEAN, seeded(1)).images
        view, wanted = view_of(protector, "representation"), stored.values()
        errors = [(view(images, seeded(seed)) - wanted).square().mean() for seed in range(20)]
        distances[draws] = float(torch.stack(errors).mean())
    assert distances[8] < distances[1]


def test_a_view_of_what_changes_images_has_gradients() -> None:
    protector = NoisyImage(cut_recognizer())
    image = (toy_faces(1, 1)[0].float() / 255).requires_grad_(True)
    for level in ("template", "representation"):
        view_of(protector, level)(image, seeded()).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="starts=0"):
        OptimisationConfig(starts=0)
    protector = IdentityFeature(cut_recognizer())
    stored = protector.protect(toy_faces(1, 1)[0].float() / 255, seeded())
    with pytest.raises(UsageError, match="protector of this representation"):
        search(ConstantImage(cut_recognizer()), stored, OptimisationConfig(iterations=1), MEAN, seeded())
    with pytest.raises(NumericalFailure, match="NaN"):
        search(protector, stored, OptimisationConfig(iterations=3), MEAN * torch.nan, seeded())
