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
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.kernel import Residues, joined, scaled
from bauta.encrypted.parameters import CENTRED_BITS, DEGREE, PRIMES
from bauta.encrypted.transform import Floats, multiply, reduce, transforms


class PublicKey(Protocol):
    """What is needed of `bauta.encrypted.scheme.PublicKey`, which is made with the errors of this module."""

    @property
    def seed(self) -> bytes:
        """Of its random half."""

    @property
    def halves(self) -> tuple[Residues, Residues]:
        """b and a, (primes, 4096) in slots."""


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


@dataclass(frozen=True, eq=False, repr=False)
class Masks:
    """What is laid over answers, a row each. A row that covers two answers shows their difference: it is used once.

    Attributes:
        first: Over c0, (rows, primes, 4096 / step) coefficients.
        second: Over c1, (rows, primes, 4096) in slots.
        share: (rows, 4096 / step) below 2^21: what `first` adds to the scores.
    """

    first: Residues
    second: Residues
    share: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.share)

    def cut(self, rows: int) -> tuple[Masks, Masks]:
        """So many rows, and the rest."""
        return (
            Masks(self.first[:rows], self.second[:rows], self.share[:rows]),
            Masks(self.first[rows:], self.second[rows:], self.share[rows:]),
        )


def draw(public: tuple[Residues, Residues], step: int, rows: int) -> Masks:
    """Masks that no answer has had yet.

    Args:
        public: The public key's b and a, (primes, 4096) each, in slots.
        step: Coefficients of a piece: each `step`-th one of c0 is sent.
        rows: How many.
    """
    hidden, errors = random_ternary(rows), random_errors(rows)
    uniform = random_residues((DEGREE // step, rows))
    first = np.empty((rows, len(PRIMES), DEGREE // step), np.uint32)
    second = np.empty((rows, len(PRIMES), DEGREE), np.uint32)
    for place, each in enumerate(transforms()):
        one = each.forward(hidden)
        key, random = (half[place].astype(np.float64)[:, None] for half in public)
        body = each.inverse(multiply(one, key, each.prime), step)
        body += uniform[place]
        first[:, place] = reduce(body, each.prime).T
        tail = multiply(one, random, each.prime)
        tail += each.forward(errors)
        second[:, place] = reduce(tail, each.prime).T
    return Masks(first, second, np.ascontiguousarray(scaled(joined(uniform)).T))


def mask(first: list[Floats], second: list[Floats], masks: Masks) -> tuple[Residues, Residues]:
    """Answers that show nothing to whoever holds the secret key.

    Args:
        first: For each prime the first halves c0, (4096, rows) in slots.
        second: The second halves c1.
        masks: As many rows, which are spent with it.

    Returns:
        c0, (rows, primes, 4096 / step) coefficients; c1, (rows, primes, 4096) in slots.
    """
    sent, rest = np.empty_like(masks.first), np.empty_like(masks.second)
    step = DEGREE // masks.share.shape[1]
    for place, each in enumerate(transforms()):
        sent[:, place] = each.inverse(first[place], step).T
        rest[:, place] = second[place].T
    primes = np.array(PRIMES, np.uint32)[:, None]
    for made, over in ((sent, masks.first), (rest, masks.second)):
        made += over
        np.minimum(
            made, made - primes, out=made
        )  # of 28 bits; a difference below zero wraps, and is not the smaller one
    return sent, rest


class Supply:
    """Masks drawn ahead, for each key its own; who has them gives each out once.

    Args:
        step: Coefficients of a piece.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._drawn: dict[bytes, list[Masks]] = {}

    def count(self, public: PublicKey) -> int:
        """Rows that are ready for a key."""
        return sum(map(len, self._drawn.get(public.seed, ())))

    def draw(self, public: PublicKey, rows: int) -> None:
        """Draw so many more."""
        self._drawn.setdefault(public.seed, []).append(draw(public.halves, self._step, rows))

    def take(self, public: PublicKey, rows: int) -> Masks:
        """So many masks, for good; those that are not ready are drawn now."""
        drawn = self._drawn.get(public.seed, [])
        taken: list[Masks] = []
        while rows and drawn:
            one = drawn.pop()
            if len(one) > rows:
                one, rest = one.cut(rows)
                drawn.append(rest)
            taken.append(one)
            rows -= len(one)
        if rows:
            taken.append(draw(public.halves, self._step, rows))
        if len(taken) == 1:
            return taken[0]
        return Masks(*(np.concatenate([getattr(one, name) for one in taken]) for name in ("first", "second", "share")))
