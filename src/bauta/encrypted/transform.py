"""The number-theoretic transform as two matrix products in float64, every one of them exact.

With i = 64 i1 + i0 and k = k1 + 64 k0, and w a primitive 8192nd root of unity, the transform at w^(2k+1) is ::

    sum over i0 of  w^(i0 (2 k1 + 1) + 128 i0 k0)  times  sum over i1 of  a_i w^(64 i1 (2 k1 + 1))

The inner sum is one product of 64x64 matrices, the outer one 64 of them, one for each k1, that carry the twiddle
factors. Rows of many polynomials stand last, so that nothing is transposed, and slots come out as (k1, k0). Residues
are split into 14 and 13 bits where both factors are whole residues: sums stay below 2^50, and float64 is exact.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.parameters import DEGREE, HALF, PRIMES

Floats = NDArray[np.float64]

SIDE = 64
SMALL = 1 << 17
"""Values below it need no split in the inner sum."""


def reduce(values: Floats, prime: int) -> Floats:
    """Whole numbers below 2^50 modulo a prime, in place; 0 to prime - 1.

    The half keeps the quotient off whole numbers by more than its rounding error.
    """
    quotient = values + 0.5
    quotient *= 1 / prime
    np.floor(quotient, out=quotient)
    quotient *= prime
    values -= quotient
    return values


def split(values: Floats) -> tuple[Floats, Floats]:
    """Lower 14 bits and the rest."""
    high = np.floor(values * 2.0**-HALF)
    return values - high * 2.0**HALF, high


def multiply(values: Floats, factor: Floats, prime: int) -> Floats:
    """Products of residues, exactly.

    Args:
        values: (n, rows).
        factor: (n, 1) or (n, rows).
        prime: The modulus.
    """
    low, high = split(values)
    low *= factor
    high *= reduce(factor * 2.0**HALF, prime)
    low += high
    return reduce(low, prime)


class Transform:
    """Forward and inverse for one prime.

    Args:
        prime: 1 modulo 8192, below 2^27.
    """

    def __init__(self, prime: int) -> None:
        self.prime = prime
        self.root = minimal_root(prime)
        hi, lo = np.arange(SIDE), np.arange(SIDE)
        k1, k0 = np.arange(SIDE), np.arange(SIDE)
        inner = self._powers(64 * hi[None] * (2 * k1[:, None] + 1))  # (k1, i1)
        outer = self._powers(lo * (2 * k1[:, None, None] + 1) + 128 * lo * k0[:, None])  # (k1, k0, i0)
        self._inner, self._outer = self._doubled(inner), self._doubled(outer)
        back = self._powers(-128 * lo[:, None] * k0)  # (i0, k0)
        last = self._powers(-(64 * hi[:, None] + lo[:, None, None]) * (2 * k1 + 1))  # (i0, i1, k1)
        scaled = last.astype(object) * pow(DEGREE, -1, prime) % prime
        self._back, self._last = self._doubled(back), self._doubled(scaled.astype(np.int64))

    def _powers(self, exponents: NDArray[np.int64]) -> NDArray[np.int64]:
        table = np.empty(2 * DEGREE, np.int64)
        value = 1
        for place in range(2 * DEGREE):
            table[place] = value
            value = value * self.root % self.prime
        return table[exponents % (2 * DEGREE)]

    def _doubled(self, matrix: NDArray[np.int64]) -> Floats:
        """The matrix, and beside it the same for the upper halves."""
        return np.concatenate([matrix, (matrix << HALF) % self.prime], axis=-1).astype(np.float64)

    def forward(self, coefficients: Floats) -> Floats:
        """Values at the roots.

        Args:
            coefficients: (4096, rows) whole numbers, of either sign where below 2^17, else residues.

        Returns:
            (4096, rows) residues.
        """
        rows = coefficients.shape[1]
        flat = coefficients.reshape(SIDE, SIDE * rows)
        if np.abs(flat).max(initial=0) < SMALL:
            inner = self._inner[:, :SIDE] @ flat
        else:
            inner = self._inner @ np.concatenate(split(flat))
        halves = np.concatenate(split(reduce(inner, self.prime).reshape(SIDE, SIDE, rows)), axis=1)
        return reduce(self._outer @ halves, self.prime).reshape(DEGREE, rows)

    def inverse(self, values: Floats, step: int = 1) -> Floats:
        """Each `step`-th coefficient, the last one of each run.

        Args:
            values: (4096, rows) residues.
            step: A power of two.

        Returns:
            (4096 / step, rows) residues.
        """
        rows = values.shape[1]
        low = slice(min(step, SIDE) - 1, None, min(step, SIDE))
        high = slice(max(step // SIDE, 1) - 1, None, max(step // SIDE, 1))
        halves = np.concatenate(split(values.reshape(SIDE, SIDE, rows)), axis=1)
        first = reduce(self._back[low] @ halves, self.prime).swapaxes(0, 1)  # (i0, k1, rows)
        halves = np.concatenate(split(first), axis=1)
        last = reduce(self._last[low, high] @ halves, self.prime)  # (i0, i1, rows)
        return last.swapaxes(0, 1).reshape(DEGREE // step, rows)


def minimal_root(prime: int) -> int:
    """The least primitive 8192nd root of unity, which SEAL takes too."""
    for base in range(2, prime):
        root = pow(base, (prime - 1) // (2 * DEGREE), prime)
        if pow(root, DEGREE, prime) == prime - 1:
            break
    square, least, power = root * root % prime, root, root
    for _ in range(DEGREE):
        power = power * square % prime
        least = min(least, power)
    return least


@cache
def transforms() -> tuple[Transform, ...]:
    """One for each prime of ciphertexts."""
    return tuple(map(Transform, PRIMES))
