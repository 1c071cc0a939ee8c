"""Templates as whole numbers: unit vectors times 512, rounded. Scores are whole numbers then, and exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.encrypted.parameters import LARGEST_DIMENSION, SCALE
from bauta.errors import NumericalFailure, UsageError

Templates = NDArray[np.int16]

_UNIT = 1e-3  # how far a norm may be from 1


def quantise(embeddings: ArrayLike, *, what: str = "A probe") -> Templates:
    """Embeddings of unit norm as whole numbers; cosines change by about .001, and at most by .01.

    Args:
        embeddings: (N, D) of unit norm, D up to 1024.
        what: What messages call one of them.

    Returns:
        (N, D) int16.

    Raises:
        NumericalFailure: when a value is NaN or infinite.
        UsageError: when the shape is another, or a norm is not 1: a longer probe would lower the threshold.

    >>> quantise([[0.6, 0.8]]).tolist()
    [[307, 410]]
    """
    values = np.asarray(embeddings)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not 2 <= values.shape[1] <= LARGEST_DIMENSION:
        raise UsageError(
            f"{what} is not an embedding: shape {values.shape}, {values.dtype}.",
            hint=f"Give (N, D) numbers, D at most {LARGEST_DIMENSION}.",
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise NumericalFailure(f"{what} holds a value that is not a number.", hint="Embed the photo again.")
    norms = np.linalg.norm(values, axis=1)
    if len(norms) and np.abs(norms - 1).max() > _UNIT:
        raise UsageError(
            f"{what} has norm {norms[np.abs(norms - 1).argmax()]:.4g}, not 1.",
            hint="Divide embeddings by their norms.",
        )
    made: Templates = np.rint(values * SCALE).astype(np.int16)
    return made


def require_unit(templates: Templates, *, what: str = "A probe") -> None:
    """Let whole numbers through that `quantise` could have made, by their norm.

    Raises:
        UsageError: when a norm is not that of a unit vector.
    """
    norms = np.linalg.norm(templates.astype(np.float64), axis=1) / SCALE
    slack = _UNIT + np.sqrt(templates.shape[1]) / 2 / SCALE
    if len(norms) and np.abs(norms - 1).max() > slack:
        raise UsageError(f"{what} does not have norm 1.", hint="Send embeddings as `quantise` makes them.")


def quantise_threshold(cosine: float) -> int:
    """The least score that matches.

    Raises:
        UsageError: when the cosine is not above 0 and at most 1: places where nobody is score 0.

    >>> quantise_threshold(0.5)
    131072
    """
    if not 1e-4 <= cosine <= 1:
        raise UsageError(f"A threshold of {cosine:g} cannot be used.", hint="Give a cosine above 0, and at most 1.")
    return round(cosine * SCALE**2)
