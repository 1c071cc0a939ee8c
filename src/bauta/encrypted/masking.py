"""What an answer shows: nothing. Both halves of a ciphertext are masked before it leaves the server.

The older way, ``Delta r`` on the plaintext and an encryption of zero, leaks the gallery: whoever asks knows the noise e
of their own probe, reads the answer's noise, which holds e times the gallery, and divides. Here

- c0 gets a *uniform element of R_q*, only where there are scores; the rest of c0 is not sent. The server's share is
  round(t U / q), and noise is hidden like everything else. That makes shares wrong by one with probability below 1e-4.
- c1 is the gallery times what the door chose, so it gets a u + e, a fresh sample of ring learning with errors. It hides
  c1 only where `a` is not chosen by the door: it comes from a hash (`scheme.PublicKey`).
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.kernel import Residues
from bauta.encrypted.parameters import CENTRED_BITS, DEGREE, PRIMES
from bauta.encrypted.transform import Floats, multiply, reduce, transforms


def random_ternary(rows: int) -> Floats:
    """(4096, rows) of -1, 0 and 1, each as likely, from the operating system."""
    count = DEGREE * rows
    drawn = np.frombuffer(os.urandom(count + count // 64 + 64), np.uint8)
    kept = drawn[drawn < 255]
    while len(kept) < count:
        more = np.frombuffer(os.urandom(count), np.uint8)
        kept = np.concatenate([kept, more[more < 255]])
    return (kept[:count] % 3).astype(np.float64).reshape(DEGREE, rows) - 1


def random_errors(rows: int) -> Floats:
    """(4096, rows) from the centred binomial distribution of SEAL, from the operating system."""
    drawn = np.frombuffer(os.urandom(8 * DEGREE * rows), np.uint64)
    ones = np.uint64((1 << CENTRED_BITS) - 1)
    first = np.bitwise_count(drawn & ones).astype(np.float64)
    second = np.bitwise_count((drawn >> np.uint64(CENTRED_BITS)) & ones)
    made: Floats = (first - second).reshape(DEGREE, rows)
    return made


def random_residues(shape: tuple[int, ...]) -> Residues:
    """(primes, *shape), uniform, from the operating system."""
    count = int(np.prod(shape))
    return np.stack([_uniform(count, prime).reshape(shape) for prime in PRIMES])


def _uniform(count: int, prime: int) -> NDArray[np.uint32]:
    bits, kept = np.uint32((1 << prime.bit_length()) - 1), np.empty(0, np.uint32)
    while len(kept) < count:
        drawn = np.frombuffer(os.urandom(4 * (count + count // 64 + 64)), np.uint32) & bits
        kept = np.concatenate([kept, drawn[drawn < prime]])
    return kept[:count]


def mask(
    first: list[Floats], second: list[Floats], public: tuple[Residues, Residues], step: int
) -> tuple[Residues, Residues, Residues]:
    """Answers that show nothing to whoever holds the secret key.

    Args:
        first: For each prime the first halves c0, (4096, rows) in slots.
        second: The second halves c1.
        public: The public key's b and a, (primes, 4096) each, in slots.
        step: Coefficients of a piece: each `step`-th one of c0 is sent.

    Returns:
        c0, (primes, 4096 / step, rows) coefficients; c1, (primes, 4096, rows) in slots; and the mask of c0.
    """
    rows = first[0].shape[1]
    hidden, errors = random_ternary(rows), random_errors(rows)
    uniform = random_residues((DEGREE // step, rows))
    sent, rest = np.empty_like(uniform), np.empty((len(PRIMES), DEGREE, rows), np.uint32)
    for place, each in enumerate(transforms()):
        one = each.forward(hidden)
        key, random = (half[place].astype(np.float64)[:, None] for half in public)
        body = multiply(one, key, each.prime)
        body += first[place]
        body = each.inverse(reduce(body, each.prime), step)
        body += uniform[place]
        sent[place] = reduce(body, each.prime)
        tail = multiply(one, random, each.prime)
        tail += each.forward(errors)
        tail += second[place]
        rest[place] = reduce(tail, each.prime)
    return sent, rest, uniform
