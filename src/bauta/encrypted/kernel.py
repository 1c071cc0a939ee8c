"""The server's work: sums of products in the transformed domain, as matrix products in float64, every one exact.

A server that holds no secret needs no library for it. A residue of 27 bits times half of one, summed 512 times, stays
below 2^50. Whole numbers are kept in 32 bits and widened a few slots at a time, so that they stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.parameters import DEGREE, HALF, MODULUS, PLAIN_BITS, PRIMES
from bauta.encrypted.transform import Floats, reduce

Residues = NDArray[np.uint32]

_CACHED = 1 << 17  # numbers that are widened at once


def halved(factors: Residues) -> Floats:
    """(slots, pieces, columns) residues as what `accumulate` takes: lower halves, then upper ones."""
    columns = factors.shape[-1]
    made = np.empty((*factors.shape[:-1], 2 * columns))
    made[..., :columns] = factors & np.uint32((1 << HALF) - 1)
    made[..., columns:] = factors >> np.uint32(HALF)
    return made


def accumulate(stored: Residues, factors: Floats, prime: int) -> Floats:
    """The sum over pieces of stored residues times factors, slot by slot.

    Args:
        stored: (slots, rows, pieces).
        factors: (slots, pieces, 2 columns), of `halved`.
        prime: The modulus.

    Returns:
        (columns, slots, rows) residues: a column is one half of one probe, and what comes next takes it as it lies.
    """
    slots, rows, pieces = stored.shape
    columns = factors.shape[2] // 2
    made = np.empty((columns, slots, rows))
    step = max(1, _CACHED // (rows * pieces))
    for start in range(0, slots, step):
        part = slice(start, start + step)
        sums = stored[part].astype(np.float64) @ factors[part]
        high = reduce(sums[..., columns:].copy(), prime)
        high *= 2.0**HALF
        high += sums[..., :columns]
        made[:, part] = reduce(high, prime).transpose(2, 0, 1)
    return made


def joined(residues: Residues) -> NDArray[np.int64]:
    """Residues (primes, ...) as whole numbers below the modulus (Chinese remainders)."""
    first, second = PRIMES
    low, high = (part.astype(np.int64) for part in residues)
    made: NDArray[np.int64] = low + first * ((high - low) * pow(first, -1, second) % second)
    return made


def scaled(values: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Whole numbers x below the modulus q as round(t x / q) modulo t, exactly."""
    rest, made = values.copy(), np.zeros(values.shape, np.int64)
    for bits in (9, 9, PLAIN_BITS - 18):  # of 63
        rest <<= bits
        made <<= bits
        quotient = rest // MODULUS
        made += quotient
        rest -= quotient * MODULUS
    made += 2 * rest >= MODULUS
    return (made & ((1 << PLAIN_BITS) - 1)).astype(np.uint32)


def in_parts(count: int, part: int) -> Iterator[slice]:
    """Slices that cover so many rows."""
    for start in range(0, count, part):
        yield slice(start, min(start + part, count))


def is_reduced(residues: Residues, axis: int) -> bool:
    """Whether every value is below its prime; primes stand along an axis."""
    shape = [1] * residues.ndim
    shape[axis] = len(PRIMES)
    return bool((residues < np.array(PRIMES, np.uint32).reshape(shape)).all())


SLOT_OF = (np.arange(DEGREE) % 64) * 64 + np.arange(DEGREE) // 64
"""Where the value at the (2 k + 1)-th power of the root stands, for each k."""
