"""Templates in 8 bits a value, sifted by faiss: those that may be most similar are then compared exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import missing_extra

CANDIDATES = 64
"""Places that are compared exactly. What 8 bits change of a cosine is some thousandths: it reorders few."""
SPREAD = 8.0
"""Standard deviations of a value of a random direction, up to which it is kept whole."""


class Codes:
    """Templates in 8 bits, by place: as many as there are, without gaps.

    Args:
        dimension: Of a template.

    Raises:
        UsageError: when faiss is not installed.
    """

    def __init__(self, dimension: int) -> None:
        try:
            import faiss
        except ModuleNotFoundError as error:
            raise missing_extra("faiss", what="A search in 8 bits") from error
        self._faiss, self._dimension = faiss, dimension
        self._scale = 127 / min(1.0, SPREAD / dimension**0.5)
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._index: Any = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)

    def add(self, templates: NDArray[np.float32]) -> None:
        """Take templates (N, D) in, at the next places."""
        self._index.add(self._rounded(templates))

    def drop(self, place: int) -> None:
        """Let the template at a place go; the last one takes it, and what was last is overwritten."""
        index, size = self._index, self._dimension
        last = index.ntotal - 1
        codes = self._faiss.rev_swig_ptr(index.codes.data(), (last + 1) * size).reshape(-1, size)
        codes[place] = codes[last]
        codes[last] = 0
        del codes
        index.codes.resize(last * size)
        index.ntotal = last

    def nearest(self, probe: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """The places of those most similar to a probe (D,), the best first."""
        count = min(count, self._index.ntotal)
        _, places = self._index.search(self._rounded(probe[None]), count)
        found: NDArray[np.int64] = places[0]
        return found[found >= 0]

    def _rounded(self, templates: NDArray[np.float32]) -> NDArray[np.float32]:
        # faiss cuts what is behind the point off, of probes too: rounded, no cosine is too small by some hundredths.
        rounded: NDArray[np.float32] = np.rint(templates * np.float32(self._scale)).clip(-127, 127).astype(np.float32)
        return np.ascontiguousarray(rounded)
