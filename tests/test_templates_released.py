"""Protectors of differential privacy: what they store has the noise that is claimed, and says what it spends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bauta.errors import UsageError, WeightsCorrupt
from bauta.privacy.mechanisms import STEPS
from bauta.registry import list_methods, load_method
from bauta.templates.base import load_protector
from bauta.templates.released.base import Released, seeded_words
from bauta.templates.released.projected import discriminant
from conftest import drawn, faces, fitted, toy_surrogate

SETTINGS: dict[str, dict[str, Any]] = {
    "peep": {"count": 12, "epsilon": 2.0},
    "dct-laplace": {"count": 12, "epsilon": 2.0},
    "dp-pixels": {"side": 2, "epsilon": 2.0},
    "sliced-frequencies": {"count": 12, "epsilon": 2.0},
    "turned-template": {"epsilon": 64.0},
    "flipped-bits": {"epsilon": 2.0},
}
SPENT = dict.fromkeys(SETTINGS, 24.0) | {"turned-template": 64.0, "flipped-bits": 75264.0}
of_all = pytest.mark.parametrize("name", SETTINGS)
LAPLACE = ["peep", "dct-laplace", "dp-pixels"]
of_laplace = pytest.mark.parametrize("name", LAPLACE)
of_projections = pytest.mark.parametrize("name", [*LAPLACE, "sliced-frequencies"])


def made(name: str, people: int = 0, each: int = 3, **settings: Any) -> Released:
    images = faces(people * each or 24, 1)
    names = [f"p{place // each}" for place in range(len(images))] if people else ()
    found: Released = fitted(name, images, people=names, **(SETTINGS[name] | settings))
    return found


def test_all_of_them_are_here() -> None:
    found = {card.name for card in list_methods(kind="protector") if issubclass(load_method(card.name), Released)}
    assert found == set(SETTINGS)


@of_all
def test_what_is_stored_and_the_card_say_what_is_spent(name: str, tmp_path: Path) -> None:
    protector = made(name, epsilon=int(SETTINGS[name]["epsilon"]))  # as somebody writes it in a recipe
    assert protector.spent.image == SPENT[name]
    stored = protector.protect(faces(2), drawn())
    assert stored.epsilon == (protector.spent.value, SPENT[name])
    protector.save(tmp_path / "made")
    text = (tmp_path / "made" / "card.toml").read_text(encoding="utf-8")
    assert f"{SPENT[name]:,.10g} a photo" in text


@of_all
def test_what_is_stored_for_good_is_drawn_by_the_system_and_not_by_a_generator(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    protector, asked = made(name), []

    def words(count: int) -> bytes:
        asked.append(count)
        return np.random.default_rng(len(asked)).bytes(count)

    monkeypatch.setattr("bauta.privacy.exact.secrets.token_bytes", words)
    monkeypatch.setattr(torch, "randint", None)  # of which seeded noise is made
    first, second = (protector.protect_anew(faces(1)).tensor for _ in range(2))
    assert sum(asked) >= 8 * first[0].numel() // 8
    assert not torch.equal(first, second)


@of_all
@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_budgets_that_are_none_are_refused(name: str, epsilon: float) -> None:
    with pytest.raises(UsageError, match=f"{name}.*epsilon"):
        made(name, epsilon=epsilon)


@of_laplace
def test_noise_is_as_large_as_the_budget_asks_for(name: str) -> None:
    protector = made(name)
    face = protector.vectors(faces(1, 5))  # type: ignore[attr-defined]
    clean = protector.mechanism.clean(face)  # type: ignore[attr-defined]
    many = protector.mechanism.release(np.repeat(face, 4000, 0), seeded_words(drawn())) - clean
    assert np.abs(many).mean() == pytest.approx(STEPS / 2.0, rel=0.03)
    stored = protector.protect(faces(1, 5), drawn()).values()
    assert 0 <= float(stored.min()) <= float(stored.max()) <= 1


@of_projections
def test_without_noise_people_are_told_apart_and_with_much_they_are_not(name: str) -> None:
    people = torch.nn.functional.interpolate(torch.rand(40, 3, 7, 7, generator=drawn(1)), (112, 112))
    photos = (people[:, None] + 0.1 * torch.rand(40, 4, 3, 112, 112, generator=drawn(2))).clamp(0, 1)
    names = [f"p{place // 4}" for place in range(120)]
    for epsilon, low, high in ((1e5, 0.9, 1.0), (1e-4, 0.0, 0.7)):
        options = {**SETTINGS[name], "epsilon": epsilon}
        protector = fitted(name, photos[:30].flatten(0, 1), people=names, **options)
        scores = protector.match_clean(protector.protect(photos[30:, 0], drawn(3)), photos[30:, 1])
        assert low <= float((scores.argmax(1) == torch.arange(10)).float().mean()) <= high


def test_a_discriminant_looks_where_people_differ() -> None:
    random = np.random.default_rng(0)
    person = random.normal(size=(50, 1, 6)) * [3, 1, 0, 0, 0, 0]
    values = person + random.normal(size=(50, 8, 6)) * [1, 1, 1, 1, 1, 9]
    centre, reader = discriminant(values.reshape(400, 6), [str(place // 8) for place in range(400)])
    assert centre == pytest.approx(values.reshape(400, 6).mean(0))
    weight = np.abs(reader).sum(1) * values.reshape(400, 6).std(0)
    assert list(np.argsort(weight)[::-1][:2]) == [0, 1]


def test_thresholds_are_those_of_people_who_were_not_learned_from() -> None:
    without, protector = made("peep"), made("peep", people=60, each=5)
    assert without.thresholds == {}
    assert set(protector.thresholds) == {1e-2}
    assert dict(protector.provenance.training)["faces"] == 270
    turned = made("turned-template", people=60, each=5)
    assert turned.thresholds[1e-2] < turned.thresholds[1e-3]


@pytest.mark.parametrize("part", ["low", "reader"])
def test_damaged_parts_are_refused(part: str, tmp_path: Path) -> None:
    from bauta.templates.released.projected import Peep

    protector = made("peep")
    parts = protector.parts()
    bad = {**parts, part: parts["high"].clone() if part == "low" else parts["reader"][:, :3]}
    with pytest.raises(WeightsCorrupt, match="not ranges" if part == "low" else "not float32 of shape"):
        Peep.restore(toy_surrogate(), SETTINGS["peep"], bad, protector.provenance)
    protector.save(tmp_path / "made")
    path = tmp_path / "made" / "parts.safetensors"
    save_file({name: one + 1 for name, one in load_file(path).items()}, path)
    with pytest.raises(WeightsCorrupt):
        load_protector(tmp_path / "made", toy_surrogate())


def test_bits_and_directions_keep_what_a_large_budget_lets_through() -> None:
    images = faces(2)
    flipped = made("flipped-bits", epsilon=400.0).protect(images, drawn()).values()
    assert float((flipped - images).abs().max()) < 17 / 255
    protector = made("turned-template", epsilon=1e5)
    stored = protector.protect(images, drawn())
    assert float((protector.templates(stored) * protector.clean(images)).sum(1).min()) > 0.99
