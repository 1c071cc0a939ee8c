"""Noise whose probabilities are exactly what is claimed: whole numbers, and the operating system's randomness.

Floating-point Laplace noise is not differentially private: which numbers can come out depends on the secret (Mironov
2012). Here a coin is a comparison of whole numbers, and the discrete Laplace distribution is drawn by the method of
Canonne, Kamath and Steinke (NeurIPS 2020), of whole numbers only, many draws at a time.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError

WORD = 1 << 64
FINEST = 1 << 10
"""Scales are rounded up to whole multiples of 1/1024, so that less is spent than is claimed, never more."""
LARGEST_SCALE = 1 << 40  # in such multiples: all products of whole numbers below stay under 2^63

Words = Callable[[int], NDArray[np.uint64]]
"""So many words of 64 bits, each as likely as any other."""
Longs = NDArray[np.int64]


def system_words(count: int) -> NDArray[np.uint64]:
    """From the operating system; they cannot be drawn again."""
    return np.frombuffer(secrets.token_bytes(8 * count), np.uint64)


def require_epsilon(epsilon: float | Fraction) -> Fraction:
    """A budget as an exact fraction.

    Raises:
        UsageError: when it is not a positive, finite number.
    """
    if isinstance(epsilon, bool) or not 0 < epsilon < math.inf:
        raise UsageError(
            f"A budget cannot be epsilon={epsilon}.", hint="Give a number above 0; 0 would release nothing."
        )
    return Fraction(epsilon)


def laplace_scale(sensitivity: int, epsilon: float) -> Fraction:
    """The least scale, in whole multiples of 1 / `FINEST`, of noise that hides a change by `sensitivity`.

    Raises:
        UsageError: when epsilon is not a positive, finite number, or so small that the noise would not fit.
    """
    parts = math.ceil(sensitivity * FINEST / require_epsilon(epsilon))
    if parts > LARGEST_SCALE:
        raise UsageError(f"Epsilon {epsilon} is too small.", hint="Give at least a millionth; it says nothing anyway.")
    return Fraction(parts, FINEST)


def below(limit: int, count: int, words: Words = system_words) -> Longs:
    """(count,) whole numbers from 0 to limit - 1, each as likely as any other; the limit is at most 2^62."""
    most = np.uint64(WORD // limit * limit - 1)
    found = words(count)
    while (over := np.flatnonzero(found > most)).size:
        found = found.copy()
        found[over] = words(over.size)
    numbers: Longs = (found % np.uint64(limit)).astype(np.int64)
    return numbers


def exponential_coins(parts: Longs, whole: int, words: Words = system_words) -> NDArray[np.bool_]:
    """(N,) coins, each True with probability exp(-part / whole), exactly; parts are from 0 to `whole`."""
    turns, alive = np.ones(len(parts), np.int64), np.arange(len(parts))
    while alive.size:
        turn = int(turns[alive[0]])  # the same for all that are alive
        alive = alive[below(whole * turn, alive.size, words) < parts[alive]]
        turns[alive] += 1
    heads: NDArray[np.bool_] = turns % 2 == 1
    return heads


def discrete_laplace(scale: Fraction, count: int, words: Words = system_words) -> Longs:
    """(count,) whole numbers x, with probabilities proportional to exp(-|x| / scale), exactly.

    Args:
        scale: Positive; its numerator is at most `LARGEST_SCALE`.
        count: How many.
        words: Where randomness comes from.
    """
    whole, finest = scale.numerator, scale.denominator
    found = np.zeros(0, np.int64)
    while len(found) < count:
        tries = 2 * (count - len(found)) + 8
        offsets = below(whole, tries, words)
        offsets = offsets[exponential_coins(offsets, whole, words)]
        turns, alive = np.zeros(len(offsets), np.int64), np.arange(len(offsets))
        while alive.size:
            alive = alive[exponential_coins(np.ones(alive.size, np.int64), 1, words)]
            turns[alive] += 1
        sizes = (offsets + whole * turns) // finest
        negative = below(2, len(sizes), words) == 1
        kept = ~(negative & (sizes == 0))  # 0 would be drawn twice as often
        found = np.concatenate([found, np.where(negative, -sizes, sizes)[kept]])
    return found[:count]


def flip_threshold(epsilon: float | Fraction) -> int:
    """Of 2^64 equally likely words, how many flip a bit: the least number that spends at most epsilon.

    The budget it spends, log((2^64 - t) / t), is at most `epsilon`, since t is rounded up.
    """
    exact = require_epsilon(epsilon)
    with localcontext() as context:
        context.prec = 60
        power = (Decimal(exact.numerator) / Decimal(exact.denominator)).exp()
        share = Decimal(WORD) / (1 + power)
    return min(WORD // 2, int(share) + 1)


def flip_bits(bits: NDArray[np.bool_], epsilon: float | Fraction, words: Words = system_words) -> NDArray[np.bool_]:
    """Randomised response: each bit kept or flipped, at a budget of `epsilon` each."""
    flips = words(bits.size).reshape(bits.shape) < np.uint64(flip_threshold(epsilon))
    noisy: NDArray[np.bool_] = bits ^ flips
    return noisy
