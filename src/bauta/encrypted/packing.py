"""Where a template stands in polynomials, so that products hold scores without rotations (CryptoMask's packing).

A template of D dimensions is cut into b pieces of w = D/b. Piece j of the k-th person of a group is coefficients kw to
kw + w - 1 of polynomial j; piece j of the probe is a polynomial of w coefficients in falling order. The sum over j of
their products has the person's score as coefficient kw + w - 1. A group holds 4096/w people and answers with one
ciphertext; a probe takes b. The split into pieces is ours: b = 1 is CryptoMask's layout as we read it, b = D that of
HERS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.parameters import DEGREE, LARGEST_DIMENSION, PRIMES
from bauta.encrypted.quantisation import Templates
from bauta.errors import UsageError

RESIDUE = 4 * len(PRIMES)
"""Bytes of a coefficient on the wire."""
LARGEST_SPLIT = 512
"""More pieces would make sums inexact."""


@dataclass(frozen=True)
class Layout:
    """How templates are packed.

    Attributes:
        dimension: Of templates.
        split: Pieces b, a power of two.

    Raises:
        UsageError: when they do not go together.
    """

    dimension: int
    split: int

    def __post_init__(self) -> None:
        fits = 2 <= self.dimension <= LARGEST_DIMENSION and self.split in (1 << power for power in range(10))
        if not fits or self.split > self.padded:
            raise UsageError(
                f"Templates of {self.dimension} values do not split into {self.split} pieces.",
                hint=f"Give a power of two, at most {LARGEST_SPLIT} and the dimension.",
            )

    @property
    def padded(self) -> int:
        """The dimension, rounded up to a power of two."""
        return 1 << (self.dimension - 1).bit_length()

    @property
    def width(self) -> int:
        """Coefficients of a piece."""
        return self.padded // self.split

    @property
    def group(self) -> int:
        """People that one answer covers."""
        return DEGREE // self.width

    def groups(self, people: int) -> int:
        """Groups that so many people fill."""
        return -(-people // self.group)

    def upload(self) -> int:
        """Bytes of a probe's ciphertexts."""
        return self.split * 2 * DEGREE * RESIDUE

    def download(self, people: int) -> int:
        """Bytes of the answer: all of c1, and of c0 the coefficients that hold scores."""
        return self.groups(people) * (DEGREE + self.group) * RESIDUE

    def pack(self, templates: NDArray[np.signedinteger]) -> NDArray[np.float64]:
        """The polynomials of one group.

        Args:
            templates: (N, dimension), N at most `group`; places after them stay empty.

        Returns:
            (4096, split) coefficients.
        """
        whole = np.zeros((self.group, self.padded))
        whole[: len(templates), : self.dimension] = templates
        return whole.reshape(self.group, self.split, self.width).swapaxes(1, 2).reshape(DEGREE, self.split)

    def unpack(self, polynomials: NDArray[np.float64]) -> Templates:
        """The templates of one group, (group, dimension); the inverse of `pack`."""
        whole = polynomials.reshape(self.group, self.width, self.split).swapaxes(1, 2).reshape(self.group, self.padded)
        return whole[:, : self.dimension].astype(np.int16)

    def probe(self, template: Templates) -> NDArray[np.float64]:
        """The polynomials of a probe, (4096, split) coefficients."""
        whole = np.zeros(self.padded)
        whole[: self.dimension] = template
        made = np.zeros((DEGREE, self.split))
        made[: self.width] = whole.reshape(self.split, self.width).T[::-1]
        return made


def choose_split(people: int, dimension: int, *, uplink: float = 3.0) -> int:
    """The split that sends least.

    Args:
        people: In the gallery.
        dimension: Of templates.
        uplink: What a byte up costs, in bytes down: networks are slower that way.

    >>> [choose_split(people, 512) for people in (1, 1000, 10_000, 100_000, 1_000_000)]
    [1, 4, 16, 64, 128]
    """
    powers = [1 << power for power in range(10) if 1 << power <= min(LARGEST_SPLIT, dimension)]
    layouts = [Layout(dimension, split) for split in powers]
    return min(layouts, key=lambda one: uplink * one.upload() + one.download(people)).split
