"""Fine-tuning on toys: protected photos of strangers match again, clean ones still do, and bad input is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from bauta.attacks.adapt import FineTuningConfig, fine_tune
from bauta.attacks.link import embed
from bauta.errors import NumericalFailure, UsageError
from conftest import toy_surrogate

CONFIG = FineTuningConfig(epochs=10, rate=3e-3, batch=16, flip=False)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crowd(people: int, *, seed: int) -> tuple[Tensor, list[str]]:
    """Three noisy pictures of each of some people."""
    generator = seeded(seed)
    coarse = torch.rand(people, 1, 3, 7, 7, generator=generator).expand(-1, 3, -1, -1, -1).flatten(0, 1)
    coarse = (coarse + 0.05 * torch.randn(coarse.shape, generator=generator)).clamp(0, 1)
    names = [f"person {place // 3}" for place in range(3 * people)]
    return nn.functional.interpolate(coarse, (112, 112), mode="bilinear"), names


PATTERN = nn.functional.interpolate(torch.rand(1, 3, 14, 14, generator=seeded(9)).round(), (112, 112))


def hidden(photos: Tensor) -> Tensor:
    """Under one strong pattern, so that all look alike to who has not learned to look through it."""
    return 0.3 * photos + 0.7 * PATTERN


def rank_one(network: nn.Module, probes: Tensor, gallery: Tensor) -> float:
    """Share of probes whose nearest picture in the gallery is the one with their own number."""
    nearest = (embed(network, probes) @ embed(network, gallery).T).argmax(1)
    return float((nearest == torch.arange(len(probes))).float().mean())


def test_protected_photos_of_strangers_match_again() -> None:
    recognizer = toy_surrogate()
    clean, names = crowd(20, seed=0)
    student = fine_tune(clean, names, hidden(clean), names, recognizer, CONFIG, seeded())
    strangers, _ = crowd(12, seed=1)
    probes, gallery = strangers[::3], strangers[1::3]
    assert rank_one(recognizer, probes, gallery) == 1
    before = rank_one(recognizer, hidden(probes), gallery)
    assert before < 0.3
    assert rank_one(student.network, hidden(probes), gallery) > before + 0.3
    assert rank_one(student.network, probes, gallery) == 1
    assert student.fit.stopped == "epochs"


def test_the_recognizer_it_started_from_stays() -> None:
    recognizer = toy_surrogate()
    clean, names = crowd(3, seed=0)
    before = embed(recognizer, clean)
    fine_tune(clean, names, hidden(clean), names, recognizer, dataclasses.replace(CONFIG, epochs=1), seeded())
    assert torch.equal(embed(recognizer, clean), before)
    assert not any(parameter.requires_grad for parameter in recognizer.parameters())


def test_keeping_embeddings_keeps_them() -> None:
    recognizer = toy_surrogate()
    clean, names = crowd(6, seed=0)
    kept = []
    for keep in (0.0, 50.0):
        config = dataclasses.replace(CONFIG, epochs=3, keep=keep)
        student = fine_tune(clean, names, hidden(clean), names, recognizer, config, seeded())
        kept.append(float((student.embed(clean) * embed(recognizer, clean)).sum(1).mean()))
    assert kept[1] > kept[0]


def test_the_seed_decides() -> None:
    clean, names = crowd(3, seed=0)
    config = dataclasses.replace(CONFIG, epochs=1)
    made = [
        fine_tune(clean, names, hidden(clean), names, toy_surrogate(), config, seeded(seed)).sha256()
        for seed in (0, 0, 1)
    ]
    assert made[0] == made[1] != made[2]


def test_numbers_that_break_are_an_error_and_not_a_recognizer() -> None:
    clean, names = crowd(3, seed=0)
    with pytest.raises(NumericalFailure, match="first epoch"):
        fine_tune(clean, names, hidden(clean) * torch.nan, names, toy_surrogate(), CONFIG, seeded())


def test_one_person_cannot_be_told_apart() -> None:
    clean, _ = crowd(1, seed=0)
    with pytest.raises(UsageError, match="told apart"):
        fine_tune(clean, ["ann"] * 3, clean, ["ann"] * 3, toy_surrogate(), CONFIG, seeded())


def test_photos_and_names_must_go_together() -> None:
    clean, names = crowd(2, seed=0)
    with pytest.raises(UsageError, match="go with"):
        fine_tune(clean, names[1:], clean, names, toy_surrogate(), CONFIG, seeded())
    with pytest.raises(UsageError, match="zoe"):
        fine_tune(clean, names, clean[:1], ["zoe"], toy_surrogate(), CONFIG, seeded())


@pytest.mark.parametrize("change", [{"scale": 0.0}, {"keep": -1.0}, {"rate": 0.0}])
def test_settings_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        FineTuningConfig(**change)
