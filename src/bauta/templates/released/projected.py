"""Faces as a few numbers with exact noise: eigenfaces (PEEP), frequencies, cells, bits of frequencies; who reads them.

The recogniser of what is stored is not the one of the protector: a discriminant (Fisher) learns on released numbers of
public people, with several draws of the noise for each photo. That the released numbers are cut off at the bounds, by
which little is lost under heavy noise and no budget is spent, is ours, as are bounds and discriminant.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bauta.errors import WeightsCorrupt
from bauta.learning.fitted import Provenance
from bauta.privacy.exact import Words
from bauta.privacy.mechanisms import STEPS, Basis, Projections, cells, cosines, eigenfaces
from bauta.privacy.slices import SlicedProjections
from bauta.recognizers.surrogates import Surrogate
from bauta.registry import register
from bauta.settings import Range, Settings
from bauta.templates.base import SIDE
from bauta.templates.fit import FitWork, as_images
from bauta.templates.loading import require_parts
from bauta.templates.released.base import Released, seeded_words
from bauta.templates.representation import Kind, Representation

GREY = 56  # side of the grey pictures that are projected
CELLS = 28  # and of those in colour, from which cells are made
DRAWS = 4  # of the noise, for each face that the discriminant learns from
SHRINK = 0.1  # of the spread within people towards its mean, for few faces
WATCHED_SHARE = 10  # one in so many people is watched and not learned from
_LUMA = (0.299, 0.587, 0.114)
_PARTS = ("mean", "axes", "low", "high", "centre", "reader")

Epsilon = Annotated[float, Range(above=0, to=1e6)]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PeepConfig(Settings):
    """Settings of `Peep`.

    Attributes:
        count: Numbers that are stored of a face.
        epsilon: Of each number; a photo spends count times as much.
    """

    title: ClassVar[str] = "peep"
    count: Annotated[int, Range(at=1, to=1024)] = 128
    epsilon: Epsilon = 8.0


@dataclass(frozen=True)
class DctConfig(PeepConfig):
    """Settings of `DctLaplace`.

    Attributes:
        count: Numbers that are stored of a face.
        epsilon: Of each number; a photo spends count times as much.
    """

    title: ClassVar[str] = "dct-laplace"


@dataclass(frozen=True)
class SlicedConfig(DctConfig):
    """Settings of `SlicedFrequencies`.

    Attributes:
        count: Numbers that are stored of a face.
        epsilon: Of each number, shared out over its bits; a photo spends count times as much.
    """

    title: ClassVar[str] = "sliced-frequencies"


@dataclass(frozen=True)
class PixelsConfig(Settings):
    """Settings of `DpPixels`.

    Attributes:
        side: Cells along a side, a divisor of 28; each has three colours.
        epsilon: Of each number; a photo spends 3 side^2 times as much.
    """

    title: ClassVar[str] = "dp-pixels"
    side: Literal[2, 4, 7, 14] = 7
    epsilon: Epsilon = 8.0


class Projected(Released):
    """Stores clipped projections with discrete Laplace noise, cut off at 0 and 1 and so many steps of 1/1024.

    Args:
        recognizer: The recogniser that the deployment has; nothing of it is used but its name.
        config: Settings.
        basis: What is measured.
        centre: (K,) of released numbers of public faces.
        reader: (K, K) from these to templates.
    """

    learns: ClassVar[bool] = True
    kind: Kind = "feature"
    mechanism: Projections
    noise: ClassVar[type[Projections]] = Projections

    def __init__(
        self,
        recognizer: Surrogate,
        config: Any,
        parts: Mapping[str, Tensor],
        *,
        provenance: Provenance | None = None,
    ) -> None:
        basis = Basis(*(parts[name].double().numpy() for name in _PARTS[:4]))
        mechanism = self.noise(basis, config.epsilon, self.card.name)
        super().__init__(recognizer, mechanism, config, provenance=provenance)
        self._parts = dict(parts)
        self.row_shape = tuple(self._parts["low"].shape)

    @classmethod
    def fit(cls, images: Tensor, config: Any, training: Settings, work: FitWork) -> Self:
        """A basis, its bounds and a discriminant, all of public faces; see `Protector.fit`.

        Without names of people the numbers are only weighed by how much they differ. With 20 people and more, one in
        ten is not learned from, and gives thresholds.
        """
        work.require_faces(images)
        watched = _watched(work.people)
        learned = [place for place in range(len(images)) if place not in set(watched)]
        faces = cls.vectors(as_images(images[learned]))
        basis = cls.basis(faces, config)
        parts = {name: torch.from_numpy(getattr(basis, name)).float().contiguous() for name in _PARTS[:4]}
        size = len(basis.low)
        blank = {"centre": torch.zeros(size), "reader": torch.eye(size)}
        first = cls(work.recognizer, config, parts | blank)  # with what is kept of the basis
        words = seeded_words(torch.Generator().manual_seed(work.seed))
        draws = [_cut(first.mechanism.release(faces, words)) for _ in range(DRAWS)]
        people = [work.people[place] for place in learned] if work.people else [str(place) for place in learned]
        centre, reader = discriminant(np.concatenate(draws), people * DRAWS)
        read = {"centre": torch.from_numpy(centre).float(), "reader": torch.from_numpy(reader).float()}
        made = cls(work.recognizer, config, parts | read)
        facts = (*made.facts(), *made.calibrated(images, work, watched))
        made.provenance = work.provenance(images, *facts, learned=len(learned))
        return made

    @classmethod
    def vectors(cls, images: Tensor) -> Floats:
        """(N, P) float64 of faces (N, 3, 112, 112): grey pixels."""
        small = functional.avg_pool2d(images, SIDE // GREY)
        return (small * torch.tensor(_LUMA)[:, None, None]).sum(1).flatten(1).double().numpy()

    @classmethod
    @abstractmethod
    def basis(cls, faces: Floats, config: Any) -> Basis:
        """What is measured, of vectors of public faces."""

    def release(self, images: Tensor, words: Words) -> Tensor:
        """See `Released.release`."""
        return torch.from_numpy(_cut(self.mechanism.release(self.vectors(images), words))).float()

    def templates(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """Unit-norm templates (N, K), by the discriminant; see `Protector.templates`."""
        self.require_own(representation, key)
        return self._read(representation.values())

    def probe(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Templates of faces without noise, which are compared and not released; see `Protector.probe`."""
        self.require_images(images)
        return self._read(torch.from_numpy(self.mechanism.clean(self.vectors(images)) / STEPS).float())

    def _read(self, values: Tensor) -> Tensor:
        return functional.normalize((values - self._parts["centre"]) @ self._parts["reader"], dim=1)

    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The picture whose projections these numbers are; see `Protector.to_image`."""
        self.require_own(representation, key)
        basis = self.mechanism.basis
        shares = representation.values().double().numpy()
        flat = torch.from_numpy(basis.mean + (basis.low + shares * (basis.high - basis.low)) @ basis.axes).float()
        grey = flat.reshape(len(flat), 1, GREY, GREY).expand(-1, 3, -1, -1)
        return functional.interpolate(grey, (SIDE, SIDE), mode="bilinear").clamp(0, 1)

    def parts(self) -> dict[str, Tensor]:
        """Basis and discriminant."""
        return self._parts

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The protector again; see `Protector.restore`."""
        config = cls.Config.of(settings)
        size, pixels = cls.sizes(config)
        shapes = ((pixels,), (size, pixels), (size,), (size,), (size,), (size, size))
        require_parts(
            parts, {name: torch.zeros(shape, device="meta") for name, shape in zip(_PARTS, shapes, strict=True)}
        )
        if not bool((parts["high"] > parts["low"]).all()):
            raise WeightsCorrupt("The bounds of projections are not ranges.", hint="Fit the protector again.")
        return cls(recognizer, config, parts, provenance=provenance)

    @classmethod
    def sizes(cls, config: Any) -> tuple[int, int]:
        """How many numbers are stored, and of how many pixels they are made."""
        return config.count, GREY * GREY


@register("peep", kind="protector")
class Peep(Projected):
    """Projections on eigenfaces of public people, with discrete Laplace noise."""

    Config = PeepConfig

    @classmethod
    def basis(cls, faces: Floats, config: PeepConfig) -> Basis:
        """Eigenfaces."""
        return eigenfaces(faces, config.count)


@register("dct-laplace", kind="protector")
class DctLaplace(Projected):
    """The lowest frequencies of the grey face, with discrete Laplace noise."""

    Config = DctConfig

    @classmethod
    def basis(cls, faces: Floats, config: DctConfig) -> Basis:
        """Cosines, with bounds of public faces."""
        return cosines(faces, config.count)


@register("sliced-frequencies", kind="protector")
class SlicedFrequencies(DctLaplace):
    """The lowest frequencies of the grey face as bits, each of which is flipped at random."""

    Config = SlicedConfig
    noise = SlicedProjections


@register("dp-pixels", kind="protector")
class DpPixels(Projected):
    """Means of cells, with discrete Laplace noise."""

    Config = PixelsConfig

    @classmethod
    def vectors(cls, images: Tensor) -> Floats:
        """Colours."""
        return functional.avg_pool2d(images, SIDE // CELLS).flatten(1).double().numpy()

    @classmethod
    def basis(cls, faces: Floats, config: PixelsConfig) -> Basis:
        """Cells, with bounds of public faces."""
        return cells(faces, config.side)

    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The cells as squares; see `Protector.to_image`."""
        self.require_own(representation, key)
        side: int = self.settings()["side"]
        low, high = self._parts["low"], self._parts["high"]
        squares = (low + representation.values() * (high - low)).reshape(-1, 3, side, side)
        return functional.interpolate(squares, (SIDE, SIDE), mode="nearest").clamp(0, 1)

    @classmethod
    def sizes(cls, config: PixelsConfig) -> tuple[int, int]:
        """See `Projected.sizes`."""
        return 3 * config.side**2, 3 * CELLS * CELLS


def discriminant(values: Floats, people: list[str]) -> tuple[Floats, Floats]:
    """Fisher's: where values of different people differ most, by how values of one person do.

    Args:
        values: (N, K).
        people: Of each.

    Returns:
        (K,) the mean, and (K, K) a map to coordinates in each of which one person's values have spread 1 before they
        are weighed by how much people differ there.
    """
    _, index, counts = np.unique(people, return_inverse=True, return_counts=True)
    centre = values.mean(0)
    means = np.zeros((len(counts), values.shape[1]))
    np.add.at(means, index, values - centre)
    means /= counts[:, None]
    apart = values - centre - means[index]
    within = apart.T @ apart / max(len(values) - len(counts), 1)
    within += (SHRINK * np.trace(within) / len(within) + 1e-9) * np.eye(len(within))
    between = np.cov(means.T, ddof=0).reshape(within.shape) - within / counts.mean()
    lower = np.linalg.inv(np.linalg.cholesky(within))
    spread, turn = np.linalg.eigh(lower @ between @ lower.T)
    spread = np.maximum(spread, 1e-9)
    return centre, lower.T @ turn * np.sqrt(spread / (1 + spread))


def _watched(people: tuple[str, ...]) -> list[int]:
    """Faces of the last in every ten people, where there are 20 and more."""
    names = sorted(set(people))
    if len(names) < 2 * WATCHED_SHARE:
        return []
    kept = set(names[WATCHED_SHARE - 1 :: WATCHED_SHARE])
    return [place for place, person in enumerate(people) if person in kept]


def _cut(released: NDArray[Any]) -> Floats:
    shares: Floats = released.clip(0, STEPS) / STEPS
    return shares
