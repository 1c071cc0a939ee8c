"""Attacks on mechanisms themselves: two photos that differ as much as photos can, told apart by what is released.

They are the hardest for the noise that each mechanism has: every clipped projection at one bound and at the other, a
template and its opposite, black and white. What is found must not exceed the claim; below it, it proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.benchmark.engine.figures import Figures, rounded
from bauta.privacy.audit import audit, most_shown
from bauta.privacy.exact import Words
from bauta.privacy.mechanisms import STEPS, Direction, Mechanism, Projections
from bauta.privacy.slices import BITS, LEVELS, BitPlanes, SlicedProjections

TRIALS = 4000
PHOTOS = 300  # trials of mechanisms that release tens of thousands of numbers
CHUNK = 4000  # releases in memory at once


def audited(
    mechanism: Mechanism, words: Words, trials: int | None = None, photos: int | None = None
) -> tuple[Figures, Figures]:
    """What is found of a single value, and of the photo.

    Args:
        mechanism: To be attacked.
        words: Where its randomness comes from.
        trials: Releases of each of two photos; `TRIALS` by default.
        photos: Of a mechanism of bit planes, whose single values are released apart; `PHOTOS` by default.
    """
    trials, photos = trials or TRIALS, photos or PHOTOS
    if isinstance(mechanism, Projections):
        basis = mechanism.basis
        away = 1e3 * basis.axes.sum(0)

        def told(side: int, count: int) -> NDArray[Any]:
            found: NDArray[Any] = mechanism.release(np.tile(basis.mean + side * away, (count, 1)), words)
            # Between the bounds a number of Laplace noise is its own ratio of likelihoods, and beyond them it is cut.
            found = _told(mechanism, found) if isinstance(mechanism, SlicedProjections) else found.clip(0, STEPS)
            return np.stack([found[:, 0], found.sum(1)])

        near, far = (_in_chunks(told, side, trials) for side in (1, -1))
        return _figures(mechanism, near[0], far[0]), _figures(mechanism, near[1], far[1], photo=True)
    if isinstance(mechanism, Direction):
        ahead = np.eye(1, mechanism.size)

        def cosines(side: int, count: int) -> NDArray[Any]:
            return mechanism.release(np.tile(side * ahead, (count, 1)), words)[None, :, 0]

        found = _figures(mechanism, *(_in_chunks(cosines, side, trials)[0] for side in (1, -1)), photo=True)
        return found, found
    assert isinstance(mechanism, BitPlanes)

    def shown(planes: BitPlanes, level: int) -> NDArray[Any]:
        return _told(planes, planes.release(np.full((planes.side, planes.side, 3), level, np.uint8), words))

    single = BitPlanes(math.ceil(math.sqrt(trials / 3)), mechanism.epsilon)  # each of its values is a trial
    one = [shown(single, level).ravel()[:trials] for level in (255, 0)]
    all_of = [[shown(mechanism, level).sum() for _ in range(photos)] for level in (255, 0)]
    return _figures(mechanism, *one), _figures(mechanism, *map(np.array, all_of), photo=True)


def _in_chunks(told: Callable[[int, int], NDArray[Any]], side: int, trials: int) -> NDArray[Any]:
    """What so many releases tell, side by side."""
    return np.concatenate([told(side, min(CHUNK, trials - start)) for start in range(0, trials, CHUNK)], axis=1)


def _told(mechanism: BitPlanes | SlicedProjections, released: NDArray[Any]) -> NDArray[Any]:
    """How much each value speaks for white, or for the upper bound: its set bits, by the budgets of these."""
    levels = released // (STEPS // LEVELS) if isinstance(mechanism, SlicedProjections) else released
    told: NDArray[Any] = np.zeros(released.shape)
    for place, share in enumerate(mechanism.slices.shares):
        told += float(share) * (levels >> (BITS - 1 - place) & 1)
    return told


def _figures(mechanism: Mechanism, near: NDArray[Any], far: NDArray[Any], *, photo: bool = False) -> Figures:
    found = audit(near, far)
    return {
        "claim": rounded(mechanism.spent.image if photo else mechanism.spent.value),
        "found": rounded(found.epsilon),
        "most": rounded(most_shown(found.trials, found.confidence)),
        "trials": found.trials,
    }
