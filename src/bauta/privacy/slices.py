"""Randomised response on the bits of numbers, with a budget that is shared out by what each bit is worth.

After LDP-Slicing (Cao, Li, He, arXiv 2603.03711, of which abstract and summaries were read): a pixel is sliced into
bits, each is flipped at random, and the budget goes to the bits so that as little as possible is lost. Which loss, and
how it is minimised, are ours: the expected squared error. It is convex in the shares, so that its minimum is found by
one multiplier. Bits that earn no share are not released, and the middle of what they could say takes their place. Its
perceptual module, which takes the coarsest band of a wavelet away, is left out; `SlicedProjections` slices frequencies,
or whatever else a basis measures.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError
from bauta.privacy.exact import Longs, Words, flip_bits, require_epsilon, system_words
from bauta.privacy.mechanisms import STEPS, Basis, Mechanism, Projections, Spent

BITS = 8
FINEST = 1 << 40  # shares are whole multiples of 1 / this, rounded down, so that their sum never exceeds the budget
LEVELS = 1 << BITS


def shares_of(epsilon: float, bits: int) -> tuple[Fraction, ...]:
    """The shares of so many bits, the most significant first, that lose least; those of 0 are left out.

    A bit of share e is flipped with a probability of 1 / (1 + exp(e)), and counts four times as much as the next one.
    """
    total = float(require_epsilon(epsilon))
    low, high = 0.0, total + 2 * BITS
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(_shares(middle, bits)) < total else (low, middle)
    parts = [math.floor(Fraction(share) * FINEST) for share in _shares(low, bits)]
    spare = math.floor(Fraction(epsilon) * FINEST) - sum(parts)
    parts[0] += spare  # what rounding left over, or took too much
    return tuple(Fraction(part, FINEST) for part in parts if part > 0)


def _shares(multiplier: float, bits: int) -> list[float]:
    """Where the gain of a little more budget is exp(-multiplier) for every bit, or less for those without any."""
    found = []
    for place in range(bits):
        rest = multiplier - place * math.log(4)  # log of how much more a bit is worth than budget is
        if rest > 500:
            found.append(rest)
        else:
            found.append(math.acosh(max(math.exp(rest) / 2 - 1, 1.0)))
    return found


def best_shares(epsilon: float) -> tuple[Fraction, ...]:
    """The shares that lose least with as many bits as do.

    >>> [round(float(share), 2) for share in best_shares(2.0)]
    [2.0]
    >>> [round(float(share), 2) for share in best_shares(8.0)]
    [4.72, 3.28]
    """
    return min((shares_of(epsilon, bits) for bits in range(1, BITS + 1)), key=expected_loss)


def expected_loss(shares: tuple[Fraction, ...]) -> float:
    """Mean squared error of an even number in [0, 1] of which these bits are released."""
    flipped = sum(4.0 ** -(place + 1) / (1 + math.exp(min(float(one), 700))) for place, one in enumerate(shares))
    return flipped + 4.0 ** -len(shares) / 12


class _Slices:
    """Levels from 0 to 255, of which the best bits are released."""

    def __init__(self, epsilon: float) -> None:
        self.shares = best_shares(epsilon)
        self.middle = (LEVELS >> len(self.shares)) // 2

    def release(self, levels: NDArray[np.uint8], words: Words) -> NDArray[np.uint8]:
        found = np.full(levels.shape, self.middle, np.uint8)
        for place, share in enumerate(self.shares):
            down = np.uint8(BITS - 1 - place)
            bits = (levels >> down & np.uint8(1)).astype(bool)
            found |= flip_bits(bits, share, words).astype(np.uint8) << down
        return found


class BitPlanes(Mechanism):
    """Randomised response on the bits of each pixel.

    Args:
        side: Of a photo, in pixels.
        epsilon: Of each pixel and channel, shared out over its bits.

    Raises:
        UsageError: when epsilon is not a positive number.
    """

    def __init__(self, side: int = 112, epsilon: float = 8.0) -> None:
        self.slices = _Slices(epsilon)
        self.side, self.epsilon = side, epsilon
        self.spent = Spent("bit-planes", epsilon, epsilon * 3 * side**2)

    def release(self, image: NDArray[Any], words: Words = system_words) -> NDArray[np.uint8]:
        """(side, side, 3) uint8 of the same."""
        if image.shape != (self.side, self.side, 3) or image.dtype != np.uint8:
            raise UsageError(
                f"A photo is {image.dtype} {list(image.shape)}.", hint=f"Give uint8 of {self.side}x{self.side}x3."
            )
        return self.slices.release(image, words)


class SlicedProjections(Projections):
    """Projections of a face, clipped to public bounds, whose bits are flipped at random.

    Args:
        basis: What is measured.
        epsilon: Of each projection, shared out over its bits.
        name: For `Spent`.

    Raises:
        UsageError: when epsilon is not a positive number.
    """

    def __init__(self, basis: Basis, epsilon: float = 8.0, name: str = "slices") -> None:
        super().__init__(basis, epsilon, name)
        self.slices = _Slices(epsilon)

    def release(self, image: NDArray[Any], words: Words = system_words) -> Longs:
        """(K,) whole numbers from 0 to `STEPS`, or (N, K) of N photos, each of which spends."""
        width = STEPS // LEVELS
        levels = np.minimum(self.clean(image) // width, LEVELS - 1).astype(np.uint8)
        return self.slices.release(levels, words).astype(np.int64) * width + width // 2
