"""PolyProtect: windows of a template, each summed up by a polynomial of the token's coefficients and exponents.

Hahn, Marcel: *Towards Protecting Face Embeddings in Mobile Face Verification Scenarios*, T-BIOM 2022:
p_j = sum over i of c_i v_{j(m - o) + i}^e_i, with different whole c_i from -C to C without 0, and e an order of 1 to m;
the end is padded with zeros; cosine compares. m = 7, C = 100, o = 2 are those of Simprints (IJCB 2025).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bauta.registry import register
from bauta.settings import Range, Settings
from bauta.templates.cancelable.base import Codes, Maps, Scheme
from bauta.templates.cancelable.streams import Stream


@dataclass(frozen=True)
class PolyProtectConfig(Settings):
    """Settings of PolyProtect.

    Attributes:
        terms: Numbers of a window, and terms of the polynomial.
        overlap: Numbers that two windows share, fewer than there are terms.
        largest: Of the coefficients.
    """

    title: ClassVar[str] = "polyprotect"
    terms: Annotated[int, Range(at=2, to=16)] = 7
    overlap: Annotated[int, Range(at=0, to=15)] = 2
    largest: Annotated[int, Range(at=8, to=1000)] = 100

    def problems(self) -> Iterator[tuple[str, str]]:
        """Windows that do not move on."""
        if self.overlap >= self.terms:
            yield "overlap", f"overlap is below terms, {self.terms}."


@register("polyprotect", kind="cancelable")
class PolyProtect(Scheme):
    """Sums of powers of neighbouring numbers, kept as float32."""

    Config = PolyProtectConfig
    config: PolyProtectConfig

    def code_form(self, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `Scheme.code_form`."""
        return (len(self.windows(size)),), np.dtype(np.float32)

    def windows(self, size: int) -> NDArray[np.int64]:
        """(K, terms) places of the numbers of each window; those from `size` on are padding."""
        step = self.config.terms - self.config.overlap
        count = 1 + max(0, -(-(size - self.config.terms) // step))
        return np.arange(count)[:, None] * step + np.arange(self.config.terms)

    def draw(self, size: int, stream: Stream) -> Maps:
        """Coefficients (terms,), exponents (terms,), and the places (K, terms) of each window, which are public."""
        values = np.concatenate([np.arange(-self.config.largest, 0), np.arange(1, self.config.largest + 1)])
        coefficients = values[stream.order(len(values))[: self.config.terms]].astype(np.float32)
        return coefficients, 1 + stream.order(self.config.terms), self.windows(size)

    def project(self, templates: NDArray[np.float32], maps: Maps) -> NDArray[np.float32]:
        """(N, K)."""
        coefficients, exponents, places = maps
        padded = np.pad(templates, ((0, 0), (0, int(places.max()) + 1 - templates.shape[1])))
        sums: NDArray[np.float32] = (coefficients * padded[:, places] ** exponents).sum(-1, dtype=np.float32)
        return sums

    def encode(self, projected: NDArray[np.float32]) -> Codes:
        """As they are."""
        return projected

    def compare(self, first: Codes, second: Codes) -> NDArray[np.float32]:
        """(...) cosines of codes (..., K)."""
        norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        cosines: NDArray[np.float32] = np.einsum("...k,...k->...", first, second) / np.maximum(norms, 1e-12)
        return cosines.astype(np.float32)
