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
from bauta.metrics import clopper_pearson
from bauta.privacy import exact
from bauta.privacy.audit import audit, most_shown
from bauta.privacy.exact import (
    WORD,
    below,
    discrete_laplace,
    exponential_coins,
    flip_bits,
    flip_threshold,
    laplace_scale,
)
from bauta.privacy.ledger import Ledger
from bauta.privacy.mechanisms import (
    STEPS,
    Direction,
    Mechanism,
    Projections,
    Spent,
    cells,
    cosines,
    eigenfaces,
)
from bauta.privacy.slices import BITS, BitPlanes, SlicedProjections, best_shares, expected_loss, shares_of


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The randomness of a seed in place of the operating system's, so that no test fails by chance."""
    source = random.Random(5)
    monkeypatch.setattr(secrets, "token_bytes", source.randbytes)


def public(count: int = 60, size: int = 36) -> Any:
    return np.random.default_rng(0).normal(size=(count, size))


def peep(count: int = 10, epsilon: float = 1.0) -> Projections:
    return Projections(eigenfaces(public(), count), epsilon)


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(1), Fraction(7, 2), Fraction(3 * 1024 + 1, 1024)])
def test_discrete_laplace_has_its_probabilities(scale: Fraction) -> None:
    count = 200_000
    drawn = discrete_laplace(scale, count)
    assert len(drawn) == count
    ratio = math.exp(-1 / scale)
    for value in range(-4, 5):
        expected = (1 - ratio) / (1 + ratio) * ratio ** abs(value)
        deviation = math.sqrt(expected * (1 - expected) / count)
        assert abs((drawn == value).mean() - expected) < 4 * deviation + 1e-9


def test_noise_of_a_large_scale_has_its_spread_and_tails() -> None:
    drawn = discrete_laplace(laplace_scale(STEPS, 0.5), 200_000)
    assert drawn.std() == pytest.approx(math.sqrt(2) * 2048, rel=0.02)
    assert (np.abs(drawn) > 5 * 2048).mean() == pytest.approx(math.exp(-5), rel=0.08)


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(1, 4), Fraction(1), Fraction(2, 3)])
def test_a_coin_of_an_exponential(rate: Fraction) -> None:
    heads = exponential_coins(np.full(100_000, rate.numerator), rate.denominator).mean()
    assert abs(heads - math.exp(-rate)) < 0.006


def test_words_that_would_favour_small_numbers_are_drawn_again() -> None:
    given = iter([[WORD - 1, 7], [4]])
    found = below(10, 2, lambda count: np.array(next(given)[:count], np.uint64))  # 2^64 is no multiple of 10
    assert found.tolist() == [4, 7]


@pytest.mark.parametrize("epsilon", [1e-5, 0.1, 0.3, 1.0, 7.7, 1e5])
def test_a_scale_is_rounded_towards_privacy(epsilon: float) -> None:
    scale = laplace_scale(STEPS, epsilon)
    assert STEPS / scale <= Fraction(epsilon)
    assert STEPS / (scale - Fraction(1, 1024)) > Fraction(epsilon) if scale > Fraction(1, 1024) else True


def test_a_budget_of_next_to_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="too small"):
        laplace_scale(STEPS, 1e-7)


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


@pytest.mark.parametrize("epsilon", [1e-9, 0.1, 1.0, 2.0, 8.0, 16.0, 100.0, 1e6])
def test_shares_of_bits_are_no_more_than_the_budget_and_no_others_lose_less(epsilon: float) -> None:
    found = best_shares(epsilon)
    assert sum(found) <= Fraction(epsilon)
    assert float(sum(found)) == pytest.approx(epsilon, abs=1e-11)
    assert list(found) == sorted(found, reverse=True)
    least = expected_loss(found)
    for bits in range(1, BITS + 1):  # neither even ones, nor others at random
        assert least <= expected_loss((Fraction(epsilon) / bits,) * bits) * (1 + 1e-9)
        shares = np.random.default_rng(bits).dirichlet(np.ones(bits), 50) * epsilon
        assert least <= min(expected_loss(tuple(map(Fraction, one))) for one in shares) * (1 + 1e-9)


def test_the_loss_that_is_expected_is_the_one_that_is_found() -> None:
    shares = shares_of(6.0, 2)
    even = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    planes = BitPlanes(200, 6.0)
    assert planes.slices.shares == shares
    lost = (planes.release(even) / 256 - even / 256) ** 2
    assert lost.mean() == pytest.approx(expected_loss(shares), rel=0.02)


def test_every_bit_is_flipped_as_often_as_its_share_says() -> None:
    planes = BitPlanes(200, 10.0)
    assert len(planes.slices.shares) > 1
    released = planes.release(np.zeros((200, 200, 3), np.uint8))
    for place, share in enumerate(planes.slices.shares):
        flipped = (released >> (BITS - 1 - place) & 1).mean()
        expected = 1 / (1 + math.exp(share))
        assert abs(flipped - expected) < 4 * math.sqrt(expected / released.size) + 1e-6


def test_sliced_projections_stay_within_their_range_and_near_what_they_are_of() -> None:
    loud, face = SlicedProjections(eigenfaces(public(), 5), 120.0), public()
    released = loud.release(face)
    assert 0 <= released.min() <= released.max() <= STEPS
    assert np.abs(released - loud.clean(face)).max() <= STEPS / 2**6
    noisy = SlicedProjections(eigenfaces(public(), 5), 2.0).release(face)
    assert len(np.unique(noisy)) == 2  # one bit each


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan, True])
def test_budgets_that_are_none_are_refused(epsilon: float) -> None:
    for make in (
        lambda: exact.require_epsilon(epsilon),
        lambda: Direction(8, epsilon),
        lambda: BitPlanes(epsilon=epsilon),
        lambda: peep(4, epsilon),
        lambda: SlicedProjections(eigenfaces(public(), 4), epsilon),
    ):
        with pytest.raises(UsageError, match="A budget cannot be epsilon"):
            make()
    with pytest.raises(UsageError, match="A limit cannot be"):
        Ledger("x", epsilon)


@pytest.mark.parametrize(
    ("mechanism", "values"),
    [
        (BitPlanes(16, 2.0), 16 * 16 * 3),
        (Projections(eigenfaces(public(), 10), 3.0), 10),
        (SlicedProjections(eigenfaces(public(), 10), 3.0), 10),
    ],
)
def test_a_photo_spends_the_sum_over_all_it_releases(mechanism: Mechanism, values: int) -> None:
    side = getattr(mechanism, "side", 0)
    photo = np.full((side, side, 3), 90, np.uint8) if side else np.zeros(36)
    assert mechanism.release(photo).size == values
    assert mechanism.spent.image == values * mechanism.spent.value
    assert mechanism.spent.person(7) == 7 * mechanism.spent.image
    assert f"{mechanism.spent.person(7):,.10g} for the person over 7 photos" in mechanism.spent.words(7)
    with pytest.raises(UsageError, match="spend nothing"):
        mechanism.spent.person(0)


def test_a_photo_beyond_all_bounds_moves_a_projection_no_further_than_its_noise_covers() -> None:
    steps = [peep(5).clean(factor * public()[3]) for factor in (-1e9, -1.0, 0.0, 1.0, 1e9)]
    assert min(map(np.min, steps)) >= 0
    assert max(map(np.max, steps)) <= STEPS


def test_noise_is_drawn_anew_and_clean_values_show_through_a_large_budget() -> None:
    loud, face = peep(5, 1e5), public()[1]
    assert np.abs(loud.release(face) - loud.clean(face)).max() <= 1
    noisy = peep(5)
    assert noisy.release(face).tolist() != noisy.release(face).tolist()
    many = noisy.release(np.stack([face] * 50))
    assert len(np.unique(many, axis=0)) == 50
    photo = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    kept = BitPlanes(32, 60.0).release(photo)
    assert ((kept ^ photo) < 8).mean() > 0.99
    assert (kept != photo).any()


def test_cells_and_cosines_measure_what_they_are_called() -> None:
    pictures = np.random.default_rng(0).random((9, 3, 8, 8))
    means = pictures.reshape(9, 3, 4, 2, 4, 2).mean((3, 5)).reshape(9, -1)
    np.testing.assert_allclose(pictures.reshape(9, -1) @ cells(pictures.reshape(9, -1), 4).axes.T, means)
    waves = cosines(pictures[:, 0].reshape(9, -1), 64).axes
    np.testing.assert_allclose(waves @ waves.T, np.eye(64), atol=1e-12)
    np.testing.assert_allclose(waves[0], 1 / 8)
    assert np.ptp(cosines(pictures[:, 0].reshape(9, -1), 3).axes[1].reshape(8, 8), axis=0).max() < 1e-12


@pytest.mark.parametrize(("size", "concentration"), [(2, 1.0), (3, 2.0), (16, 20.0), (512, 256.0)])
def test_directions_have_the_mean_that_von_mises_and_fisher_give_them(size: int, concentration: float) -> None:
    scipy = pytest.importorskip("scipy.special")
    around = np.zeros((20_000 if size < 100 else 3000, size))
    around[:, 0] = 1
    drawn = Direction(size, 2 * concentration).release(around)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-9)
    if size < 100:
        expected = scipy.ive(size / 2, concentration) / scipy.ive(size / 2 - 1, concentration)
    else:  # Bessel functions of such an order underflow
        expected = concentration / (255.5 + math.hypot(255.5, concentration))
    assert drawn[:, 0].mean() == pytest.approx(expected, abs=4 * drawn[:, 0].std() / math.sqrt(len(drawn)) + 1e-4)
    assert np.abs(drawn[:, 1:].mean(0)).max() < 5 / math.sqrt(len(drawn))


def test_what_is_no_photo_is_refused() -> None:
    with pytest.raises(UsageError, match="A photo is float64"):
        BitPlanes(16).release(np.zeros((16, 16, 3)))
    with pytest.raises(UsageError, match="have no 60 eigenfaces"):
        eigenfaces(public(), 60)
    with pytest.raises(UsageError, match="have no 40 frequencies"):
        cosines(public(), 40)
    with pytest.raises(UsageError, match="have no 5x5 cells"):
        cells(np.zeros((4, 3 * 64)), 5)
    with pytest.raises(UsageError, match=r"Faces are \[60, 36\]"):
        eigenfaces(np.full((60, 36), np.nan))
    with pytest.raises(UsageError, match="finite numbers"):
        peep(4).release(np.full(36, np.nan))
    with pytest.raises(UsageError, match="unit vectors"):
        Direction(4).release(np.ones(4))
    with pytest.raises(UsageError, match="1 number"):
        Direction(1)


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
def test_no_attack_on_peep_shows_more_than_its_claim_and_it_comes_near(epsilon: float) -> None:
    away = 1e3 * (public()[0] - public().mean(0))
    one, other = (peep(1, epsilon).release(np.tile(public().mean(0) + side * away, (20_000, 1))) for side in (1, -1))
    assert 0.8 * epsilon < audit(one[:, 0], other[:, 0]).epsilon <= epsilon


def test_no_attack_on_directions_shows_more_than_their_claim_and_it_comes_near() -> None:
    near = np.tile([1.0, 0.0], (60_000, 1))
    one, other = (Direction(2, 1.5).release(side * near)[:, 0] for side in (1, -1))
    assert 0.8 * 1.5 < audit(one, other).epsilon <= 1.5


def test_an_audit_of_few_trials_says_how_little_it_could_have_shown() -> None:
    assert audit(np.ones(400), np.zeros(400)).epsilon == pytest.approx(most_shown(200))
    assert most_shown(200) < most_shown(2000) < 7


def test_an_audit_of_too_little_is_refused() -> None:
    for one, two, confidence in ((50, 50, 0.99), (200, 100, 0.99), (200, 200, 1.0)):
        with pytest.raises(UsageError, match="prove nothing"):
            audit(np.zeros(one), np.zeros(two), confidence)
