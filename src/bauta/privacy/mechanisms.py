"""Mechanisms that release a face with noise, and what they spend: of each value, of the photo, and of the person.

Two photos are neighbours when one is *replaced by any other*: all values of a photo may change at once, so the budgets
of its values add up, and those of a person's photos again. Literature often states the first of the three alone.

`Peep` follows Chamikara et al., *Privacy Preserving Face Recognition Utilizing Differential Privacy*, Computers &
Security 2020 (PEEP), of which the abstract was read: projections on eigenfaces with Laplace noise. Bounds and basis
come from public faces, which is ours: a basis of private faces is a release itself. `Pixels` is after Fan, *Image
Pixelization with Differential Privacy*, DBSec 2018, with whole photos as neighbours in place of m pixels. `BitPlanes`
is after LDP-Slicing (arXiv 2603.03711): randomised response on the bits of pixels; its transforms are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError
from bauta.privacy.exact import discrete_laplace, flip_bits, require_epsilon

STEPS = 1024  # of a coefficient's range: noise is of whole steps


@dataclass(frozen=True)
class Spent:
    """A budget that a release spends. Smaller is more private; above some 10 it bounds nothing that matters.

    Attributes:
        mechanism: What released it.
        value: Largest epsilon of a single number.
        image: Of the photo, all numbers together.

    >>> spent = Spent("peep", 8.0, 1024.0)
    >>> print(spent.words(images=3))
    epsilon 8 a value, 1024 a photo, 3072 for the person over 3 photos (replacing any photo by another)
    """

    mechanism: str
    value: float
    image: float

    def person(self, images: int) -> float:
        """Of a person of whom so many photos are released, probes among them.

        Raises:
            UsageError: when there is none.
        """
        if images < 1:
            raise UsageError(f"{images} photos spend nothing.", hint="Count every photo that is released.")
        return self.image * images

    def words(self, images: int = 1) -> str:
        """All three totals in a sentence."""
        return (
            f"epsilon {self.value:g} a value, {self.image:g} a photo, {self.person(images):g} for the person over "
            f"{images} photo{'s' * (images > 1)} (replacing any photo by another)"
        )


class Mechanism(ABC):
    """A way to release a photo."""

    spent: Spent
    """By each release."""

    @abstractmethod
    def release(self, image: NDArray[Any]) -> NDArray[Any]:
        """What may be published of a photo; drawn anew by each call, and each call spends the budget again."""


class Pixels(Mechanism):
    """Means of square cells with discrete Laplace noise, as whole numbers from 0 to 255.

    Args:
        side: Of a photo, in pixels.
        cell: Side of a cell; it divides `side`.
        epsilon: Of each cell and channel.

    Raises:
        UsageError: when cells do not fit, or epsilon is not a positive number.
    """

    def __init__(self, side: int = 112, cell: int = 16, epsilon: float = 1.0) -> None:
        if cell < 1 or side % cell:
            raise UsageError(f"Cells of {cell} pixels do not fit {side}.", hint="Give a divisor.")
        self.side, self.cell, self._epsilon = side, cell, require_epsilon(epsilon)
        self.spent = Spent("pixels", epsilon, epsilon * 3 * (side // cell) ** 2)

    def release(self, image: NDArray[Any]) -> NDArray[Any]:
        """(side / cell, side / cell, 3) uint8 of a photo (side, side, 3) uint8."""
        _require_pixels(image, self.side)
        count = self.side // self.cell
        sums = image.reshape(count, self.cell, count, self.cell, 3).sum((1, 3), dtype=np.int64)
        means = sums // self.cell**2
        noisy = means + _noise(means.shape, 255 / self._epsilon)
        released: NDArray[np.uint8] = noisy.clip(0, 255).astype(np.uint8)
        return released


class BitPlanes(Mechanism):
    """Randomised response on the most significant bits of each pixel; the others are drawn evenly.

    Args:
        side: Of a photo, in pixels.
        epsilon: Of each pixel and channel, shared out evenly over its bits.
        planes: Bits that are released.

    Raises:
        UsageError: when epsilon is not a positive number, or there are no such bits.
    """

    def __init__(self, side: int = 112, epsilon: float = 8.0, planes: int = 4) -> None:
        if not 1 <= planes <= 8:
            raise UsageError(f"A pixel does not have {planes} bits to release.", hint="Give 1 to 8.")
        require_epsilon(epsilon)
        self.side, self.planes, self.epsilon = side, planes, epsilon
        self.spent = Spent("bit-planes", epsilon, epsilon * 3 * side**2)

    def release(self, image: NDArray[Any]) -> NDArray[Any]:
        """(side, side, 3) uint8 of the same."""
        _require_pixels(image, self.side)
        bits = np.unpackbits(image[..., None], axis=-1).astype(bool)
        bits[..., : self.planes] = flip_bits(bits[..., : self.planes], self.epsilon / self.planes)
        bits[..., self.planes :] = flip_bits(np.zeros_like(bits[..., self.planes :]), 1e-300)  # a fair coin each
        return np.packbits(bits, axis=-1)[..., 0]


class Peep(Mechanism):
    """Projections on eigenfaces of public people, clipped to their range, with discrete Laplace noise.

    Args:
        public: (N, P) vectors of faces, such as grey pixels, of people who are never protected.
        count: Eigenfaces, fewer than N and at most P.
        epsilon: Of each projection.

    Raises:
        UsageError: when there are too few faces, they are not finite, or epsilon is not a positive number.
    """

    def __init__(self, public: NDArray[Any], count: int = 128, epsilon: float = 8.0) -> None:
        faces = np.asarray(public, np.float64)
        if faces.ndim != 2 or not 1 <= count < len(faces) or count > faces.shape[1] or not np.isfinite(faces).all():
            raise UsageError(
                f"Faces {faces.shape} have no {count} eigenfaces.", hint="Give finite vectors of more public faces."
            )
        self._epsilon = require_epsilon(epsilon)
        self._mean = faces.mean(0)
        _, _, axes = np.linalg.svd(faces - self._mean, full_matrices=False)
        self._axes = axes[:count]
        known = (faces - self._mean) @ self._axes.T
        self.low, self.high = (np.quantile(known, share, axis=0) for share in (0.01, 0.99))
        self.spent = Spent("peep", epsilon, epsilon * count)

    def clean(self, image: NDArray[Any]) -> NDArray[np.int64]:
        """(count,) clipped projections of a vector (P,), in steps from 0 to `STEPS`: what noise is added to."""
        if image.shape != self._mean.shape or not np.isfinite(image).all():
            raise UsageError(f"A face is {list(image.shape)}.", hint=f"Give {len(self._mean)} finite numbers.")
        shares = ((image - self._mean) @ self._axes.T - self.low) / np.maximum(self.high - self.low, 1e-12)
        steps: NDArray[np.int64] = np.rint(shares.clip(0, 1) * STEPS).astype(np.int64)
        return steps

    def release(self, image: NDArray[Any]) -> NDArray[Any]:
        """(count,) whole numbers; from 0 to `STEPS` without the noise."""
        clean = self.clean(image)
        return clean + _noise(clean.shape, STEPS / self._epsilon)


def _noise(shape: tuple[int, ...], scale: Fraction) -> NDArray[np.int64]:
    count = int(np.prod(shape))
    draws = np.fromiter((min(max(discrete_laplace(scale), -(1 << 60)), 1 << 60) for _ in range(count)), np.int64, count)
    return draws.reshape(shape)


def _require_pixels(image: NDArray[Any], side: int) -> None:
    if image.shape != (side, side, 3) or image.dtype != np.uint8:
        raise UsageError(f"A photo is {image.dtype} {list(image.shape)}.", hint=f"Give uint8 of {side}x{side}x3.")
