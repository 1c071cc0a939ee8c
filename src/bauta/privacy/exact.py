"""Noise whose probabilities are exactly what is claimed: whole numbers, and the operating system's randomness.

Floating-point Laplace noise is not differentially private: which numbers can come out depends on the secret (Mironov
2012). Here a coin is a comparison of whole numbers, and the discrete Laplace distribution is drawn by the method of
Canonne, Kamath and Steinke (NeurIPS 2020), of whole numbers only.
"""

from __future__ import annotations

import secrets
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError

WORD = 1 << 64


def require_epsilon(epsilon: float) -> Fraction:
    """A budget as an exact fraction.

    Raises:
        UsageError: when it is not a positive, finite number.
    """
    if isinstance(epsilon, bool) or not 0 < epsilon < float("inf"):
        raise UsageError(
            f"A budget cannot be epsilon={epsilon}.", hint="Give a number above 0; 0 would release nothing."
        )
    return Fraction(epsilon)


def coin(share: Fraction) -> bool:
    """True with exactly this probability."""
    return secrets.randbelow(share.denominator) < share.numerator


def exponential_coin(rate: Fraction) -> bool:
    """True with probability exp(-rate), exactly; rate is not negative."""
    while rate > 1:
        if not exponential_coin(Fraction(1)):
            return False
        rate -= 1
    turn = 1
    while coin(rate / turn):
        turn += 1
    return turn % 2 == 1


def discrete_laplace(scale: Fraction) -> int:
    """A whole number x with probability proportional to exp(-|x| / scale), exactly.

    Args:
        scale: Positive.
    """
    while True:
        offset = secrets.randbelow(scale.numerator)
        if not exponential_coin(Fraction(offset, scale.numerator)):
            continue
        turns = 0
        while exponential_coin(Fraction(1)):
            turns += 1
        size = (offset + scale.numerator * turns) // scale.denominator
        negative = coin(Fraction(1, 2))
        if size or not negative:
            return -size if negative else size


def flip_threshold(epsilon: float) -> int:
    """Of 2^64 equally likely words, how many flip a bit: the least number that spends at most epsilon.

    The budget it spends, log((2^64 - t) / t), is at most `epsilon`, since t is rounded up.
    """
    exact = require_epsilon(epsilon)
    with localcontext() as context:
        context.prec = 60
        power = (Decimal(exact.numerator) / Decimal(exact.denominator)).exp()
        share = Decimal(WORD) / (1 + power)
    return min(WORD // 2, int(share) + 1)


def flip_bits(bits: NDArray[np.bool_], epsilon: float) -> NDArray[np.bool_]:
    """Randomised response: each bit kept or flipped, at a budget of `epsilon` each."""
    words = np.frombuffer(secrets.token_bytes(8 * bits.size), np.uint64).reshape(bits.shape)
    return bits ^ (words < np.uint64(flip_threshold(epsilon)))
