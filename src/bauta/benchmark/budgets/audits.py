"""Attacks on mechanisms themselves: two photos that differ as much as photos can, told apart by what is released.

They are the hardest for the noise that each mechanism has: every clipped projection at one bound and at the other, a
template and its opposite, black and white. What is found must not exceed the claim; below it, it proves nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.benchmark.engine.figures import Figures, rounded
from bauta.privacy.audit import audit, most_shown
from bauta.privacy.exact import Words
from bauta.privacy.mechanisms import STEPS, Direction, Mechanism, Projections
from bauta.privacy.slices import BITS, BitPlanes

TRIALS = 4000
PHOTOS = 300  # trials of mechanisms that release tens of thousands of numbers


def audited(mechanism: Mechanism, words: Words) -> tuple[Figures, Figures]:
    """What is found of a single value, and of the photo."""
    if isinstance(mechanism, Projections):
        basis = mechanism.basis
        away = 1e3 * basis.axes.sum(0)
        near, far = (
            mechanism.release(np.tile(basis.mean + side * away, (TRIALS, 1)), words).clip(0, STEPS) for side in (1, -1)
        )
        return _figures(mechanism, near[:, 0], far[:, 0]), _figures(mechanism, near.sum(1), far.sum(1), photo=True)
    if isinstance(mechanism, Direction):
        ahead = np.zeros((TRIALS, mechanism.size))
        ahead[:, 0] = 1
        near, far = (mechanism.release(side * ahead, words)[:, 0] for side in (1, -1))
        found = _figures(mechanism, near, far, photo=True)
        return found, found
    assert isinstance(mechanism, BitPlanes)
    single = BitPlanes(1, mechanism.epsilon)
    one = [[_told(single, level, words)[0, 0, 0] for _ in range(TRIALS)] for level in (255, 0)]
    all_of = [[_told(mechanism, level, words).sum() for _ in range(PHOTOS)] for level in (255, 0)]
    return _figures(mechanism, *map(np.array, one)), _figures(mechanism, *map(np.array, all_of), photo=True)


def _told(mechanism: BitPlanes, level: int, words: Words) -> NDArray[Any]:
    """How much what is released of each value speaks for white: its set bits, by the budgets of these."""
    released = mechanism.release(np.full((mechanism.side, mechanism.side, 3), level, np.uint8), words)
    shares = mechanism.slices.shares
    told: NDArray[Any] = np.zeros(released.shape)
    for place, share in enumerate(shares):
        told += float(share) * (released >> np.uint8(BITS - 1 - place) & np.uint8(1))
    return told


def _figures(mechanism: Mechanism, near: NDArray[Any], far: NDArray[Any], *, photo: bool = False) -> Figures:
    found = audit(near, far)
    return {
        "claim": rounded(mechanism.spent.image if photo else mechanism.spent.value),
        "found": rounded(found.epsilon),
        "most": rounded(most_shown(found.trials, found.confidence)),
        "trials": found.trials,
    }
