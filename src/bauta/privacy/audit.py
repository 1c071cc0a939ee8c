"""What a distinguishing attack shows a mechanism to spend at least, with confidence: it must not exceed the claim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError
from bauta.metrics import clopper_pearson


@dataclass(frozen=True)
class Audit:
    """The result of an attack.

    Attributes:
        epsilon: Spent at least, with the confidence asked for.
        confidence: Of this.
        trials: Releases of each of the two photos that the bound rests on.
    """

    epsilon: float
    confidence: float
    trials: int


def audit(first: NDArray[Any], second: NDArray[Any], confidence: float = 0.99) -> Audit:
    """A lower bound on epsilon from a statistic of releases of two neighbours.

    The attack says "the first" where the statistic passes a threshold. The threshold and its side are chosen on half of
    the trials, and the bound is computed on the others, so that choosing costs no confidence.

    Args:
        first: (N,) statistics of releases of one photo.
        second: (N,) of another, as many.
        confidence: Of the bound, above .5 and below 1.

    Raises:
        UsageError: when there are fewer than 100 trials, or not as many of both.
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.ndim != 1 or one.shape != two.shape or len(one) < 100 or not 0.5 < confidence < 1:
        raise UsageError(
            f"{one.shape} and {two.shape} releases prove nothing at {confidence}.",
            hint="Give at least 100 of each, as many of both, and a confidence below 1.",
        )
    half = len(one) // 2
    tries = [
        (_bound(one[:half], two[:half], limit, side, confidence), limit, side)
        for limit in np.unique(np.quantile(np.concatenate([one[:half], two[:half]]), np.linspace(0, 1, 40)))
        for side in (1, -1)
    ]
    _, limit, side = max(tries)
    return Audit(max(0.0, _bound(one[half:], two[half:], limit, side, confidence)), confidence, len(one) - half)


def most_shown(trials: int, confidence: float = 0.99) -> float:
    """What `audit` finds at most with so many trials, however much is spent: an attack that is always right."""
    one = np.ones(trials)
    return _bound(one, 0 * one, 1.0, 1, confidence)


def _bound(one: NDArray[Any], two: NDArray[Any], limit: float, side: int, confidence: float) -> float:
    hits, misses = (int((side * values >= side * limit).sum()) for values in (one, two))
    # Each of the two bounds may fail with half of what may go wrong in all: one-sided, so the intervals are two-sided
    # ones of the same confidence.
    low, high = clopper_pearson(hits, len(one), confidence)[0], clopper_pearson(misses, len(two), confidence)[1]
    return math.log(low / high) if low > 0 else -math.inf
