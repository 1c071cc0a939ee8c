"""Budgets: noise has the distribution that is claimed, totals add up, the ledger refuses, the audit finds cheats."""

from __future__ import annotations

import json
import math
import random
import secrets
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bauta.errors import UsageError
from bauta.privacy import exact
from bauta.privacy.audit import audit, clopper_pearson
from bauta.privacy.exact import WORD, discrete_laplace, exponential_coin, flip_bits, flip_threshold
from bauta.privacy.ledger import Ledger
from bauta.privacy.mechanisms import STEPS, BitPlanes, Mechanism, Peep, Pixels, Spent


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The randomness of a seed in place of the operating system's, so that no test fails by chance."""
    source = random.Random(5)
    monkeypatch.setattr(secrets, "randbelow", source.randrange)
    monkeypatch.setattr(secrets, "token_bytes", source.randbytes)


def public(count: int = 60, size: int = 36) -> Any:
    return np.random.default_rng(0).normal(size=(count, size))


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(1), Fraction(7, 2)])
def test_discrete_laplace_has_its_probabilities(scale: Fraction) -> None:
    count = 6000
    drawn = [discrete_laplace(scale) for _ in range(count)]
    ratio = math.exp(-1 / scale)
    for value in range(-4, 5):
        expected = (1 - ratio) / (1 + ratio) * ratio ** abs(value)
        deviation = math.sqrt(expected * (1 - expected) / count)
        assert abs(drawn.count(value) / count - expected) < 4 * deviation + 1e-9


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(1, 4), Fraction(1), Fraction(5, 2)])
def test_a_coin_of_an_exponential(rate: Fraction) -> None:
    heads = sum(exponential_coin(rate) for _ in range(5000)) / 5000
    assert abs(heads - math.exp(-rate)) < 0.03


@pytest.mark.parametrize("epsilon", [1e-300, 1e-6, 0.1, 0.5, 1.0, 3.0, 8.0, 20.0, 40.0, 44.3, 60.0, 1e6])
def test_a_flipped_bit_never_spends_more_than_is_claimed_and_hardly_less(epsilon: float) -> None:
    threshold = flip_threshold(epsilon)
    assert 1 <= threshold <= WORD // 2
    spent = math.log(WORD - threshold) - math.log(threshold)
    assert spent <= epsilon * (1 + 1e-12)
    assert spent > min(epsilon, 43) * 0.98 - 1e-12


def test_bits_are_flipped_as_often_as_the_budget_says() -> None:
    flipped = flip_bits(np.zeros(40_000, bool), 1.0).mean()
    assert abs(flipped - 1 / (1 + math.e)) < 0.01


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan, True])
def test_budgets_that_are_none_are_refused(epsilon: float) -> None:
    for make in (
        lambda: exact.require_epsilon(epsilon),
        lambda: Pixels(epsilon=epsilon),
        lambda: BitPlanes(epsilon=epsilon),
        lambda: Peep(public(), 4, epsilon),
    ):
        with pytest.raises(UsageError, match="A budget cannot be epsilon"):
            make()
    with pytest.raises(UsageError, match="A limit cannot be"):
        Ledger("x", epsilon)


@pytest.mark.parametrize(
    ("mechanism", "values"),
    [(Pixels(32, 8, 0.5), 4 * 4 * 3), (BitPlanes(16, 2.0), 16 * 16 * 3), (Peep(public(), 10, 3.0), 10)],
)
def test_a_photo_spends_the_sum_over_all_it_releases(mechanism: Mechanism, values: int) -> None:
    side = getattr(mechanism, "side", 0)
    photo = np.full((side, side, 3), 90, np.uint8) if side else np.zeros(36)
    assert mechanism.release(photo).size == values
    assert mechanism.spent.image == values * mechanism.spent.value
    assert mechanism.spent.person(7) == 7 * mechanism.spent.image
    assert f"{mechanism.spent.person(7):g} for the person over 7 photos" in mechanism.spent.words(7)
    with pytest.raises(UsageError, match="spend nothing"):
        mechanism.spent.person(0)


def test_a_photo_beyond_all_bounds_moves_a_projection_no_further_than_its_noise_covers() -> None:
    peep = Peep(public(), 5, 1.0)
    steps = [peep.clean(factor * public()[3]) for factor in (-1e9, -1.0, 0.0, 1.0, 1e9)]
    assert min(map(np.min, steps)) >= 0
    assert max(map(np.max, steps)) <= STEPS


def test_noise_is_drawn_anew_and_clean_values_show_through_a_large_budget() -> None:
    peep, face = Peep(public(), 5, 1e5), public()[1]
    assert np.abs(peep.release(face) - peep.clean(face)).max() <= 1
    noisy = Peep(public(), 5, 1.0)
    assert noisy.release(face).tolist() != noisy.release(face).tolist()
    photo = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    means = photo.reshape(4, 8, 4, 8, 3).mean((1, 3))
    assert np.abs(Pixels(32, 8, 1e6).release(photo) - means).max() <= 1
    kept = BitPlanes(32, 200.0, planes=4).release(photo)
    assert ((kept ^ photo) < 16).all()
    assert (kept != photo).any()


def test_what_is_no_photo_is_refused() -> None:
    with pytest.raises(UsageError, match="A photo is float64"):
        Pixels(16, 4).release(np.zeros((16, 16, 3)))
    with pytest.raises(UsageError, match="do not fit"):
        Pixels(112, 10)
    with pytest.raises(UsageError, match="have no 60 eigenfaces"):
        Peep(public(), 60)
    with pytest.raises(UsageError, match="finite numbers"):
        Peep(public(), 4).release(np.full(36, np.nan))
    with pytest.raises(UsageError, match="9 bits"):
        BitPlanes(planes=9)


def test_the_ledger_adds_up_over_runs_and_refuses_to_go_over(tmp_path: Path) -> None:
    path, spent = tmp_path / "ledger.json", Spent("peep", 1.0, 40.0)
    assert Ledger(path, 100).charge("ann", spent) == 60
    again = Ledger(path, 100)
    assert again.charge("ann", spent) == 20
    content = path.read_bytes()
    with pytest.raises(UsageError, match="80 of 100, and 40 is asked for"):
        again.charge("ann", spent)
    assert path.read_bytes() == content
    assert again.charge("bob", spent, images=2) == 20
    assert Ledger(path, 100).spent("ann") == 80
    assert path.stat().st_mode & 0o77 == 0


def test_a_ledger_that_cannot_be_written_lets_nothing_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "gone" / "ledger.json", 100)
    with pytest.raises(Exception, match="ledger"):
        ledger.charge("ann", Spent("peep", 1.0, 40.0))
    assert ledger.spent("ann") == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1, "limit": 100.0, "subjects": []}'])
def test_a_damaged_ledger_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="ledger"):
        Ledger(path, 100)


@pytest.mark.parametrize("entry", [["peep", -5.0], ["peep", "x"], ["peep"], 5])
def test_a_ledger_of_another_limit_or_with_impossible_entries_is_refused(tmp_path: Path, entry: Any) -> None:
    path = tmp_path / "ledger.json"
    about = {"schema": 1, "limit": 100.0, "subjects": {"ann": [["peep", 5.0]]}}
    path.write_text(json.dumps(about), encoding="utf-8")
    assert Ledger(path, 100).spent("ann") == 5
    with pytest.raises(UsageError, match="another limit"):
        Ledger(path, 200)
    path.write_text(json.dumps(about | {"subjects": {"ann": [entry]}}), encoding="utf-8")
    with pytest.raises(UsageError, match="ledger"):
        Ledger(path, 100)


def test_intervals_are_those_of_clopper_and_pearson() -> None:
    assert clopper_pearson(5, 100, 0.95) == pytest.approx((0.01643188, 0.11283491), abs=1e-6)
    assert clopper_pearson(0, 100, 0.95) == pytest.approx((0, 1 - 0.025**0.01), abs=1e-6)
    assert clopper_pearson(100, 100, 0.95) == pytest.approx((0.025**0.01, 1), abs=1e-6)


def answers(epsilon: float, count: int = 4000) -> tuple[Any, Any]:
    one, other = (flip_bits(np.full(count, bit), epsilon).astype(float) for bit in (True, False))
    return one, other


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_an_audit_comes_near_a_tight_claim_and_does_not_exceed_it(epsilon: float) -> None:
    found = audit(*answers(epsilon))
    assert 0.65 * epsilon < found.epsilon <= epsilon
    assert found.trials == 2000


def test_an_audit_finds_a_mechanism_that_spends_twice_what_it_says() -> None:
    assert audit(*answers(2.0)).epsilon > 1.0


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_no_attack_on_peep_shows_more_than_its_claim(epsilon: float) -> None:
    peep = Peep(public(), 1, epsilon)
    far = 100 * (public()[0] - public().mean(0))
    one, other = (np.array([peep.release(public().mean(0) + sign * far)[0] for _ in range(1500)]) for sign in (1, -1))
    assert 0.4 * epsilon < audit(one, other).epsilon <= epsilon


def test_an_audit_of_too_little_is_refused() -> None:
    for one, two, confidence in ((50, 50, 0.99), (200, 100, 0.99), (200, 200, 1.0)):
        with pytest.raises(UsageError, match="prove nothing"):
            audit(np.zeros(one), np.zeros(two), confidence)
