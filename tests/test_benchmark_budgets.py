"""Tables of budgets: figures follow the schema, noise costs, audits stay below claims, recipes make sense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bauta.attacks.link import StudentConfig
from bauta.benchmark.budgets import attackers, audits, measures
from bauta.benchmark.budgets.attackers import Faces, Ridge
from bauta.benchmark.budgets.audits import audited
from bauta.benchmark.budgets.cards import BudgetFigures
from bauta.benchmark.budgets.measures import measure
from bauta.benchmark.budgets.recipe import BudgetRecipe, BudgetRow, read_recipe
from bauta.benchmark.budgets.run import Budgets
from bauta.errors import UsageError
from bauta.learning.learners import Schedule
from bauta.privacy.mechanisms import Direction, Mechanism, Projections, eigenfaces
from bauta.privacy.slices import BitPlanes, SlicedProjections
from bauta.schema import check, json_schema
from bauta.templates.released.base import seeded_words
from conftest import drawn, fitted, toy_surrogate


def people(count: int, photos: int, seed: int) -> torch.Tensor:
    """(count, photos, 3, 112, 112) uint8: photos of one person are alike."""
    coarse = torch.rand(count, 1, 3, 7, 7, generator=drawn(seed)).expand(-1, photos, -1, -1, -1).flatten(0, 1)
    pictures = torch.nn.functional.interpolate(coarse, (112, 112))
    noisy = pictures + 0.1 * torch.rand(pictures.shape, generator=drawn(seed + 1))
    return (noisy.clamp(0, 1) * 255).byte().reshape(count, photos, 3, 112, 112)


@pytest.fixture(scope="module")
def faces() -> Faces:
    recognizer = toy_surrogate()
    enrolled, others = people(20, 4, 1), people(30, 3, 3)
    templates = [recognizer(part.flatten(0, 1).float() / 255).numpy() for part in (enrolled, others)]
    return Faces(
        enrolled, templates[0].reshape(20, 4, -1), tuple(map(str, range(20))), others.flatten(0, 1), templates[1],
        tuple(f"o{place // 3}" for place in range(90)), 2, 10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("peep", {"count": 12}),
        ("dp-pixels", {}),
        ("turned-template", {}),
        ("flipped-bits", {}),
        ("sliced-frequencies", {"count": 12}),
    ],
)
def test_the_figures_of_a_row_follow_the_schema_and_noise_costs(
    name: str, options: dict[str, Any], faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "TRIALS", 400)
    monkeypatch.setattr(audits, "PHOTOS", 100)
    monkeypatch.setattr(attackers, "DRAWS", 2)
    monkeypatch.setattr(attackers, "TRIED", (StudentConfig(epochs=1), StudentConfig(epochs=3)))
    monkeypatch.setattr(attackers, "DECODER", replace(attackers.DECODER, channels=4, schedule=Schedule(epochs=1)))
    found = {}
    for epsilon in (1e5, 1e-3):
        protector = fitted(name, faces.public, people=faces.public_people, epsilon=epsilon, **options)
        found[epsilon] = measure(protector, faces, 5, 0, lambda *_: None)
        check(found[epsilon], json_schema(BudgetFigures, "test/1", complete=True), "figures")
        budget = found[epsilon]["budget"]
        assert budget["photo"] == pytest.approx(protector.spent.image)
        assert budget["person"] == pytest.approx(4 * budget["photo"])
        assert budget["enrolled"] == pytest.approx(2 * budget["photo"])
        assert "over 4 photos" in budget["words"]
        for audit in ("value_audit", "photo_audit"):
            assert found[epsilon][audit]["found"] <= found[epsilon][audit]["claim"]
    clear, noisy = (found[epsilon]["one_sided"]["verification"]["auroc"] for epsilon in (1e5, 1e-3))
    assert clear > 0.9
    assert noisy < 0.8
    for attacker in (lambda figures: figures, lambda figures: figures["networks"]):  # both attackers link what is clear
        clear, noisy = (attacker(found[epsilon])["linked"]["verification"]["auroc"] for epsilon in (1e5, 1e-3))
        assert clear > noisy + 0.1
    assert found[1e5]["networks"]["examples"] == 2 * 90 * 4 // 5
    before = {name: value for name, value in found[1e5].items() if name not in ("linked", "networks")}
    cards = [{"name": f"x/{place}", "recipe": "x", "figures": one} for place, one in enumerate((found[1e-3], before))]
    tables = Budgets().tables(cards)
    assert [len(table.rows) for table in tables] == [3, 2, 1, 2]  # a card of before has no networks
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)
    assert len(Budgets().tables(cards[1:])) == 3


@pytest.mark.parametrize(
    "mechanism",
    [Projections(eigenfaces(np.random.default_rng(0).normal(size=(30, 12)), 1), 2.0), Direction(2, 1.5),
     BitPlanes(4, 2.0), SlicedProjections(eigenfaces(np.random.default_rng(0).normal(size=(30, 12)), 1), 5.0)],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_audits_come_near_claims_that_are_tight_and_stay_below(
    mechanism: Mechanism, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "TRIALS", 8000)
    value, photo = audited(mechanism, seeded_words(drawn()))
    assert 0.7 * value["claim"] < value["found"] <= value["claim"] < value["most"]
    assert photo["found"] <= photo["claim"]
    if mechanism.spent.image > mechanism.spent.value:  # all numbers together tell more than one does
        assert photo["found"] > value["found"]


def test_an_attacker_learns_what_is_linear_and_nothing_from_noise() -> None:
    random = np.random.default_rng(0)
    hidden = random.normal(size=(300, 5))
    names = tuple(str(place // 3) for place in range(300))
    wanted = hidden @ random.normal(size=(5, 8)) + 3
    shown = Ridge(hidden, wanted, names)(hidden.astype(np.float32))
    assert np.abs(shown - wanted).max() < 0.2
    noise = random.normal(size=(300, 40)).astype(np.float32)
    assert np.abs(Ridge(noise, wanted, names)(noise) - wanted.mean(0)).mean() < 0.7 * wanted.std()


def test_the_carried_recipe_names_protectors_with_budgets() -> None:
    assert all(row.made()[1].epsilon > 0 for row in read_recipe("budgets").rows)
    assert measures.FMR == 1e-3


@pytest.mark.parametrize(
    "change",
    [{"rows": ()}, {"people": 3}, {"photos": 2}, {"enrolled": 7}, {"groups": 70}, {"victims": 1}, {"seed": -1}],
)
def test_recipes_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        BudgetRecipe(**({"name": "x", "rows": (BudgetRow("a", "peep"),)} | change))


def test_a_protector_that_promises_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="advface promises no epsilon"):
        BudgetRow("a", "advface").made()
    with pytest.raises(UsageError, match="epsilon"):
        BudgetRow("a", "peep", {"epsilon": 0.0}).made()
