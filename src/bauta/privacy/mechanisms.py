"""Mechanisms that release a face with noise, and what they spend: of each value, of the photo, and of the person.

Two photos are neighbours when one is *replaced by any other*: all values of a photo may change at once, so the budgets
of its values add up, and those of a person's photos again. Literature often states the first of the three alone.

`Projections` on `eigenfaces` follow Chamikara et al., *Privacy Preserving Face Recognition Utilizing Differential
Privacy*, Computers & Security 2020 (PEEP), of which the abstract was read: projections on eigenfaces with Laplace
noise. Bounds and basis come from public faces, which is ours: a basis of private faces is a release itself. On `cells`
they are after Fan, *Image Pixelization with Differential Privacy*, DBSec 2018, with whole photos as neighbours in place
of m pixels. On `cosines` they are the plain form of noise on frequencies. `Direction` is the mechanism of von Mises and
Fisher of Weggenmann and Kerschbaum, CCS 2021. Bits that are flipped are in `bauta.privacy.slices`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError
from bauta.privacy.exact import Longs, Words, discrete_laplace, laplace_scale, require_epsilon, system_words

STEPS = 1024  # of a projection's range: noise is of whole steps
CLIPPED = 0.1
"""Of public faces at either end: bounds that are closer make the noise smaller, and cost less than it does."""
Floats = NDArray[np.float64]


def number(epsilon: float) -> str:
    """An epsilon for people.

    >>> number(301056.0), number(0.5)
    ('301,056', '0.5')
    """
    return f"{epsilon:,.10g}"


@dataclass(frozen=True)
class Spent:
    """A budget that a release spends. Smaller is more private; above some 10 it bounds nothing that matters.

    Attributes:
        mechanism: What released it.
        value: Largest epsilon of a single number.
        image: Of the photo, all numbers together.

    >>> spent = Spent("peep", 8.0, 1024.0)
    >>> print(spent.words(images=3))
    epsilon 8 a value, 1,024 a photo, 3,072 for the person over 3 photos (replacing any photo by another)
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
        value, image, person = map(number, (self.value, self.image, self.person(images)))
        return (
            f"epsilon {value} a value, {image} a photo, {person} for the person over {images} photo"
            f"{'s' * (images > 1)} (replacing any photo by another)"
        )


class Mechanism(ABC):
    """A way to release a photo.

    Attributes:
        spent: By each release.
    """

    spent: Spent

    @abstractmethod
    def release(self, image: NDArray[Any], words: Words = system_words) -> NDArray[Any]:
        """What may be published of a photo; drawn anew by each call, and each call spends the budget again.

        Args:
            image: The photo, in the mechanism's form.
            words: Where randomness comes from: the operating system, but in experiments that are to be repeated.
        """


@dataclass(frozen=True, eq=False)
class Basis:
    """What projections measure of a face, and within which bounds. All of it is public.

    Attributes:
        mean: (P,) that is taken off a face first.
        axes: (K, P) directions.
        low: (K,) least value of each projection; less is clipped to it.
        high: (K,) greatest.
    """

    mean: Floats
    axes: Floats
    low: Floats
    high: Floats


def eigenfaces(public: NDArray[Any], count: int = 128) -> Basis:
    """The directions in which public faces differ most, with the range of most of them.

    Args:
        public: (N, P) vectors of faces, such as grey pixels, of people who are never protected.
        count: Directions, fewer than N and at most P.

    Raises:
        UsageError: when there are too few faces, or they are not finite.
    """
    faces = _faces(public)
    if not 1 <= count < len(faces) or count > faces.shape[1]:
        raise UsageError(
            f"Faces {faces.shape} have no {count} eigenfaces.", hint="Give vectors of more public faces, or fewer axes."
        )
    mean = faces.mean(0)
    _, _, axes = np.linalg.svd(faces - mean, full_matrices=False)
    return _bounded(mean, axes[:count], faces)


def cosines(public: NDArray[Any], count: int = 128) -> Basis:
    """The lowest frequencies of a square picture (discrete cosines), with the range of most public faces.

    Args:
        public: (N, side * side) grey pixels of people who are never protected.
        count: Frequencies, at most side * side; those of least frequency, summed over both directions, first.

    Raises:
        UsageError: when pictures are not square, too few or not finite.
    """
    faces = _faces(public)
    side = math.isqrt(faces.shape[1])
    if side * side != faces.shape[1] or not 1 <= count <= faces.shape[1]:
        raise UsageError(f"Faces {faces.shape} have no {count} frequencies.", hint="Give square grey pictures.")
    waves = np.cos(np.pi * np.outer(np.arange(side), np.arange(side) + 0.5) / side)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    order = sorted((down + along, down, along) for down in range(side) for along in range(side))[:count]
    axes = np.stack([np.outer(waves[down], waves[along]).ravel() for _, down, along in order])
    return _bounded(faces.mean(0), axes, faces)


def cells(public: NDArray[Any], side: int = 7) -> Basis:
    """Means of square cells, with the range of most public faces.

    Args:
        public: (N, 3 * S * S) colours of square pictures, channel by channel, of people who are never protected.
        side: Cells along a side; it divides S.

    Raises:
        UsageError: when pictures are not square or too few, or cells do not fit.
    """
    faces = _faces(public)
    size = math.isqrt(faces.shape[1] // 3)
    if 3 * size * size != faces.shape[1] or side < 1 or size % side:
        raise UsageError(f"Faces {faces.shape} have no {side}x{side} cells.", hint="Give square pictures, a divisor.")
    width = size // side
    axes = np.kron(np.eye(3 * side), np.kron(np.ones((1, width)), np.eye(side).repeat(width, 1))) / width**2
    return _bounded(np.zeros(faces.shape[1]), axes, faces)


class Projections(Mechanism):
    """Projections of a face, clipped to public bounds, with discrete Laplace noise.

    Args:
        basis: What is measured.
        epsilon: Of each projection.
        name: For `Spent`.

    Raises:
        UsageError: when epsilon is not a positive number.
    """

    def __init__(self, basis: Basis, epsilon: float = 8.0, name: str = "peep") -> None:
        self.basis, self._scale = basis, laplace_scale(STEPS, epsilon)
        self.spent = Spent(name, epsilon, epsilon * len(basis.axes))

    def clean(self, image: NDArray[Any]) -> Longs:
        """(K,) clipped projections of a vector (P,), or (N, K) of (N, P), in steps from 0 to `STEPS`: what noise is
        added to."""
        basis = self.basis
        if image.ndim not in (1, 2) or image.shape[-1:] != basis.mean.shape or not np.isfinite(image).all():
            raise UsageError(f"A face is {list(image.shape)}.", hint=f"Give {len(basis.mean)} finite numbers.")
        shares = ((image - basis.mean) @ basis.axes.T - basis.low) / np.maximum(basis.high - basis.low, 1e-12)
        steps: Longs = np.rint(shares.clip(0, 1) * STEPS).astype(np.int64)
        return steps

    def release(self, image: NDArray[Any], words: Words = system_words) -> Longs:
        """(K,) whole numbers, or (N, K) of N photos, each of which spends; from 0 to `STEPS` without the noise."""
        steps = self.clean(image)
        return steps + discrete_laplace(self._scale, steps.size, words).reshape(steps.shape)


class Direction(Mechanism):
    """A unit vector drawn about another one, by the distribution of von Mises and Fisher.

    Its density is proportional to exp(concentration * cosine), so that any two unit vectors at distance d are told
    apart by at most concentration * d (*metric* privacy), and any two at all by epsilon = 2 * concentration. It is
    computed in floating point, unlike the other mechanisms here: the claim holds but for what rounding shows.

    Args:
        size: Numbers of a vector, at least 2.
        epsilon: Of a vector.

    Raises:
        UsageError: when epsilon is not a positive number, or the size too small.
    """

    def __init__(self, size: int = 512, epsilon: float = 512.0) -> None:
        if size < 2:
            raise UsageError(f"A direction of {size} number is none.", hint="Give vectors of 2 numbers or more.")
        self.size, self.concentration = size, float(require_epsilon(epsilon)) / 2
        self.spent = Spent("direction", epsilon, epsilon)

    def release(self, image: NDArray[Any], words: Words = system_words) -> Floats:
        """(N, size) unit vectors, or (size,), about the same (Wood 1994)."""
        given = np.atleast_2d(np.asarray(image, np.float64))
        if given.shape[1:] != (self.size,) or not np.allclose(np.linalg.norm(given, axis=1), 1, atol=1e-3):
            raise UsageError(f"A template is {list(image.shape)}.", hint=f"Give unit vectors of {self.size} numbers.")
        given = given / np.linalg.norm(given, axis=1, keepdims=True)
        cosine = self._cosines(len(given), words)[:, None]
        aside = _unit(given.shape, words)
        aside -= (aside * given).sum(1, keepdims=True) * given
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        released: Floats = cosine * given + np.sqrt(np.maximum(1 - cosine**2, 0)) * aside
        return released.reshape(np.shape(image))

    def _cosines(self, count: int, words: Words) -> Floats:
        free, strength = self.size - 1, 2 * self.concentration
        slope = free / (math.hypot(strength, free) + strength)
        centre = (1 - slope) / (1 + slope)
        limit = self.concentration * centre + free * math.log1p(-(centre**2))
        found = np.zeros(0)
        while len(found) < count:
            tries = 2 * (count - len(found)) + 8
            # The first number of an even direction is 2 Beta(free / 2, free / 2) - 1.
            share = (1 + _unit((tries, self.size), words)[:, 0]) / 2
            cosine = (1 - (1 + slope) * share) / (1 - (1 - slope) * share)
            score = self.concentration * cosine + free * np.log1p(-centre * cosine) - limit
            found = np.concatenate([found, cosine[score >= np.log(_even(tries, words))]])
        return found[:count]


def _even(count: int, words: Words) -> Floats:
    """(count,) in (0, 1)."""
    even: Floats = ((words(count) >> np.uint64(11)) + 0.5) / (1 << 53)
    return even


def _unit(shape: tuple[int, ...], words: Words) -> Floats:
    """(N, D) directions, all as likely."""
    count = int(np.prod(shape))
    length, angle = np.sqrt(-2 * np.log(_even(count, words))), 2 * np.pi * _even(count, words)
    normal = (length * np.cos(angle)).reshape(shape)
    unit: Floats = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return unit


def _faces(public: NDArray[Any]) -> Floats:
    faces = np.asarray(public, np.float64)
    if faces.ndim != 2 or len(faces) < 2 or not np.isfinite(faces).all():
        raise UsageError(f"Faces are {list(faces.shape)}.", hint="Give finite vectors of several public faces.")
    return faces


def _bounded(mean: Floats, axes: Floats, faces: Floats) -> Basis:
    low, high = np.quantile((faces - mean) @ axes.T, (CLIPPED, 1 - CLIPPED), axis=0)
    return Basis(mean, axes, low, high)
