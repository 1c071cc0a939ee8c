"""Noise and totals beside those of libraries that others keep: dp-accounting, OpenDP and SciPy.

They are oracles of tests alone; the product draws and adds up by itself. OpenDP, 270 MB, is not among what developing
needs: `pip install opendp` lets its tests run.
"""

from __future__ import annotations

import math
import random
import secrets
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from bauta.privacy.exact import WORD, discrete_laplace, flip_bits, flip_threshold, laplace_scale
from bauta.privacy.mechanisms import STEPS, Direction, Mechanism, Projections, cells, cosines, eigenfaces
from bauta.privacy.slices import BitPlanes, SlicedProjections

SMALL = 1e-12  # what an accountant lets fail; at 0 its sums of many losses lose their tails
FINE = 1e-4  # the accountant rounds losses up to multiples of this


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The randomness of a seed in place of the operating system's, so that no test fails by chance."""
    monkeypatch.setattr(secrets, "token_bytes", random.Random(5).randbytes)


@pytest.fixture
def losses() -> Any:
    return pytest.importorskip("dp_accounting.pld.privacy_loss_distribution", reason="dp-accounting is not installed")


@pytest.fixture
def opendp() -> Any:
    prelude = pytest.importorskip("opendp.prelude", reason="opendp (270 MB) is not installed")
    prelude.enable_features("contrib")
    return prelude


def apart(drawn: Any, others: Any) -> float:
    """The distance of Kolmogorov and Smirnov between two samples."""
    both = np.sort(np.concatenate([drawn, others]))
    one, two = (np.searchsorted(np.sort(sample), both, side="right") / len(sample) for sample in (drawn, others))
    return float(np.abs(one - two).max())


def limit(count: int, fails: float = 1e-6) -> float:
    """How far a sample's distribution strays from its own with a probability of `fails` (Dvoretzky et al.)."""
    return math.sqrt(math.log(2 / fails) / (2 * count))


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(7, 2), laplace_scale(STEPS, 8.0), laplace_scale(STEPS, 0.5)])
def test_noise_is_distributed_as_dp_accounting_says(scale: Fraction) -> None:
    oracle = pytest.importorskip("dp_accounting.pld.privacy_loss_mechanism", reason="dp-accounting is not installed")
    drawn = discrete_laplace(scale, 100_000)
    places = np.unique(np.quantile(drawn, np.linspace(0, 1, 200), method="nearest"))
    found = np.searchsorted(np.sort(drawn), places, side="right") / len(drawn)

    def furthest(parameter: float) -> float:
        theirs = oracle.DiscreteLaplacePrivacyLoss(parameter)
        return float(max(abs(found[n] - math.exp(theirs.mu_lower_log_cdf(int(x)))) for n, x in enumerate(places)))

    own, *others = [furthest(float(one / scale)) for one in (Fraction(1), Fraction(20, 21), Fraction(21, 20))]
    assert own < limit(len(drawn)) < min(others)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 4.0, 8.0])
def test_what_noise_and_flips_spend_is_what_dp_accounting_finds(losses: Any, epsilon: float) -> None:
    for theirs in (of_laplace(losses, epsilon), of_flips(losses, epsilon)):
        found = theirs.get_epsilon_for_delta(0)
        assert 0.99 * epsilon < found <= epsilon + 2 * FINE


def of_laplace(losses: Any, epsilon: float) -> Any:
    parameter = float(1 / laplace_scale(STEPS, epsilon))
    return losses.from_discrete_laplace_mechanism(parameter, STEPS, value_discretization_interval=FINE)


def of_flips(losses: Any, epsilon: float | Fraction) -> Any:
    """Theirs draws the bit anew with a probability of which half leaves it as it was."""
    share = 2 * flip_threshold(epsilon) / WORD
    return losses.from_randomized_response(share, 2, value_discretization_interval=FINE)


def public() -> Any:
    return np.random.default_rng(0).normal(size=(30, 48))


PHOTOS = 2
MECHANISMS = [
    Projections(eigenfaces(public(), 3), 1.5),
    Projections(cells(public(), 1), 1.0, "dp-pixels"),
    SlicedProjections(cosines(public()[:, :16], 3), 5.0),
    BitPlanes(1, 4.5),
]


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda one: one.spent.mechanism)
def test_the_totals_of_photo_and_person_are_those_of_dp_accounting(losses: Any, mechanism: Mechanism) -> None:
    """Every value of every photo composed by itself: theirs comes to our total, and with one photo more it is over."""
    shape = (1, 1, 3) if isinstance(mechanism, BitPlanes) else (int(mechanism.basis.mean.size),)
    values = mechanism.release(np.zeros(shape, np.uint8)).size
    if hasattr(mechanism, "slices"):
        shares = mechanism.slices.shares
        of_value = of_flips(losses, shares[0])
        for share in shares[1:]:
            of_value = of_value.compose(of_flips(losses, share))
    else:
        of_value = of_laplace(losses, mechanism.spent.value)
    found = [of_value.self_compose(values * photos).get_epsilon_for_delta(SMALL) for photos in (1, PHOTOS, PHOTOS + 1)]
    spent = mechanism.spent
    rounded_up = FINE * values * (PHOTOS + 1) * 2
    assert 0.98 * spent.image < found[0] <= spent.image + rounded_up
    assert 0.98 * spent.person(PHOTOS) < found[1] <= spent.person(PHOTOS) + rounded_up
    assert found[2] > spent.person(PHOTOS) + rounded_up


@pytest.mark.parametrize(("size", "epsilon"), [(3, 4.0), (64, 64.0), (512, 512.0)])
def test_directions_are_drawn_as_scipy_draws_them(size: int, epsilon: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    around = np.eye(1, size)[0]
    count = 4000
    ours = Direction(size, epsilon).release(np.tile(around, (count, 1)))
    theirs, weaker = (
        stats.vonmises_fisher(around, strength).rvs(count, random_state=0) for strength in (epsilon / 2, epsilon / 2.5)
    )
    for place in (0, 1, size - 1):
        assert apart(ours[:, place], theirs[:, place]) < limit(count) + limit(count)
    assert apart(ours[:, 0], weaker[:, 0]) > limit(count)


def test_noise_and_flips_are_drawn_as_opendp_draws_them(opendp: Any) -> None:
    count, scale = 20_000, laplace_scale(STEPS, 8.0)
    domain = opendp.vector_domain(opendp.atom_domain(T=int)), opendp.l1_distance(T=int)
    theirs = opendp.m.make_laplace(*domain, scale=float(scale))
    assert theirs.map(STEPS) == pytest.approx(8.0, abs=0.01)
    assert apart(discrete_laplace(scale, count), np.array(theirs([0] * count))) < 2 * limit(count)
    share = flip_threshold(1.0) / WORD
    response = opendp.m.make_randomized_response_bool(prob=1 - share)
    assert response.map(1) == pytest.approx(1.0, abs=1e-6)
    flipped = np.mean([response(True) for _ in range(count)])
    assert abs(flip_bits(np.ones(count, bool), 1.0).mean() - flipped) < 2 * limit(count)


def test_what_a_photo_spends_is_what_opendp_composes(opendp: Any) -> None:
    mechanism = Projections(eigenfaces(public(), 3), 1.5)
    domain = opendp.atom_domain(T=int), opendp.absolute_distance(T=int)
    one = opendp.m.make_laplace(*domain, scale=float(laplace_scale(STEPS, 1.5)))
    person = opendp.c.make_composition([one] * 3 * PHOTOS)
    assert person.map(STEPS) == pytest.approx(mechanism.spent.person(PHOTOS), rel=1e-3)
