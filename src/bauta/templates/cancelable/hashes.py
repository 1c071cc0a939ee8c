"""BioHash and MLP-Hash: signs of random projections, of one layer or of several.

BioHash: Jin, Ling, Goh, *Biohashing: two factor authentication featuring fingerprint data and tokenised random number*,
Pattern Recognition 2004: inner products with orthonormal random vectors, compared with a threshold, here zero. Public
code (Idiap) takes the mean of the products, and draws the vectors evenly from [0, 1].

MLP-Hash: Shahreza, Hahn, Marcel, *MLP-Hash: Protecting Face Templates via Hashing of Randomized Multi-Layer
Perceptron*, EUSIPCO 2023. Of it the abstract was read. Orthonormal weights, the tangent and its scale are ours:
sigmoids with even weights lose most of the accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError
from bauta.registry import register
from bauta.settings import Range, Settings
from bauta.templates.cancelable.base import Binary, Codes, Maps
from bauta.templates.cancelable.streams import Stream


def whole_words(name: str) -> Callable[[Any], Iterator[tuple[str, str]]]:
    """`Settings.problems` for a code whose length, the setting `name`, must be a multiple of 64."""

    def problems(self: Any) -> Iterator[tuple[str, str]]:
        """A length that leaves part of a word empty."""
        if getattr(self, name) % 64:
            yield name, f"{name} is a multiple of 64."

    return problems


@dataclass(frozen=True)
class BioHashConfig(Settings):
    """Settings of BioHash.

    Attributes:
        bits: Of a code, a multiple of 64, and at most as many as a template has numbers.
    """

    title: ClassVar[str] = "biohash"
    bits: Annotated[int, Range(at=64, to=4096)] = 512
    problems = whole_words("bits")


@dataclass(frozen=True)
class MlpHashConfig(Settings):
    """Settings of MLP-Hash.

    Attributes:
        bits: See `BioHashConfig`.
        layers: Hidden ones, each as wide as the template.
    """

    title: ClassVar[str] = "mlp-hash"
    bits: Annotated[int, Range(at=64, to=4096)] = 512
    layers: Annotated[int, Range(at=1, to=8)] = 2
    problems = whole_words("bits")


class _Signs(Binary):
    config: BioHashConfig | MlpHashConfig

    @property
    def symbols(self) -> int:
        """Bits."""
        return self.config.bits

    def code_form(self, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `Scheme.code_form`; 0 stands for any size."""
        if 0 < size < self.config.bits:
            raise UsageError(
                f"A template of {size} numbers has no {self.config.bits} orthonormal directions.",
                hint=f"Set bits to {size // 64 * 64} at most.",
            )
        return super().code_form(size)

    def encode(self, projected: NDArray[np.float32]) -> Codes:
        """Whether each is positive."""
        return self.pack(projected > 0)


@register("biohash", kind="cancelable")
class BioHash(_Signs):
    """Signs of projections on orthonormal directions. With the token, most of the template can be computed back."""

    Config = BioHashConfig

    def draw(self, size: int, stream: Stream) -> Maps:
        """Directions (size, bits)."""
        return (stream.orthonormal(size, self.config.bits),)

    def project(self, templates: NDArray[np.float32], maps: Maps) -> NDArray[np.float32]:
        """(N, bits)."""
        return templates @ maps[0]


@register("mlp-hash", kind="cancelable")
class MlpHash(_Signs):
    """Signs of the outputs of a random network. With the token, most of the template can be computed back."""

    Config = MlpHashConfig
    config: MlpHashConfig

    def draw(self, size: int, stream: Stream) -> Maps:
        """Weights (size, size) of the hidden layers, and directions (size, bits)."""
        hidden = [stream.orthonormal(size, size) for _ in range(self.config.layers)]
        return (*hidden, stream.orthonormal(size, self.config.bits))

    def project(self, templates: NDArray[np.float32], maps: Maps) -> NDArray[np.float32]:
        """(N, bits)."""
        values = templates
        for weights in maps[:-1]:
            turned = values @ weights
            norms = np.linalg.norm(turned, axis=1, keepdims=True).clip(1e-12)
            values = np.tanh(turned / norms * np.float32(np.sqrt(len(weights))))  # about 1, where the tangent bends
        return values @ maps[-1]
