"""A template turned away by a random angle, and the bits of a photo flipped at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bauta.learning.fitted import Provenance
from bauta.privacy.exact import Words
from bauta.privacy.mechanisms import Direction
from bauta.privacy.slices import BitPlanes
from bauta.recognizers.surrogates import Surrogate
from bauta.registry import register
from bauta.settings import Settings
from bauta.templates.base import SIDE, ImageProtector
from bauta.templates.fit import FitWork
from bauta.templates.references import picture_of
from bauta.templates.released.base import Released
from bauta.templates.released.projected import Epsilon
from bauta.templates.representation import Kind, Representation


@dataclass(frozen=True)
class TurnedConfig(Settings):
    """Settings of `TurnedTemplate`.

    Attributes:
        epsilon: Of a template, as a whole.
    """

    title: ClassVar[str] = "turned-template"
    epsilon: Epsilon = 512.0


@register("turned-template", kind="protector")
class TurnedTemplate(Released):
    """The recogniser's template, turned by a random angle (von Mises and Fisher)."""

    Config = TurnedConfig
    kind: Kind = "template"
    mechanism: Direction

    def __init__(self, recognizer: Surrogate, config: TurnedConfig, *, provenance: Provenance | None = None) -> None:
        size = recognizer.card.dim
        super().__init__(recognizer, Direction(size, config.epsilon), config, provenance=provenance)
        self.row_shape = (size,)

    @classmethod
    def fit(cls, images: Tensor, config: TurnedConfig, training: Settings, work: FitWork) -> Self:
        """Nothing is learned from the faces; where people are named, thresholds are taken from them."""
        made = cls(work.recognizer, config)
        made.calibrate(images, work)
        return made

    def release(self, images: Tensor, words: Words) -> Tensor:
        """See `Released.release`."""
        with torch.no_grad():
            clean = self.clean(images)
        return torch.from_numpy(self.mechanism.release(clean.cpu().numpy(), words)).float()

    def templates(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """What is stored; see `Protector.templates`."""
        self.require_own(representation, key)
        return representation.values()

    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The numbers as a grey pattern; see `Protector.to_image`."""
        self.require_own(representation, key)
        return picture_of(representation.values())

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The protector again; see `Protector.restore`."""
        return cls(recognizer, TurnedConfig.of(settings), provenance=provenance)


@dataclass(frozen=True)
class FlippedConfig(Settings):
    """Settings of `FlippedBits`.

    Attributes:
        epsilon: Of each pixel and colour, shared out over its bits; a photo spends 37,632 times as much.
    """

    title: ClassVar[str] = "flipped-bits"
    epsilon: Epsilon = 8.0


@register("flipped-bits", kind="protector")
class FlippedBits(Released, ImageProtector):
    """The photo with its highest bits flipped at random, and the others left out."""

    Config = FlippedConfig
    mechanism: BitPlanes

    def __init__(self, recognizer: Surrogate, config: FlippedConfig, *, provenance: Provenance | None = None) -> None:
        super().__init__(recognizer, BitPlanes(SIDE, config.epsilon), config, provenance=provenance)

    @classmethod
    def fit(cls, images: Tensor, config: FlippedConfig, training: Settings, work: FitWork) -> Self:
        """Nothing is learned from the faces; where people are named, thresholds are taken from them."""
        made = cls(work.recognizer, config)
        made.calibrate(images, work)
        return made

    def release(self, images: Tensor, words: Words) -> Tensor:
        """See `Released.release`."""
        pixels = np.ascontiguousarray((images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        released = np.stack([self.mechanism.release(one, words) for one in pixels])
        return torch.from_numpy(released).permute(0, 3, 1, 2).float() / 255

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The protector again; see `Protector.restore`."""
        return cls(recognizer, FlippedConfig.of(settings), provenance=provenance)
