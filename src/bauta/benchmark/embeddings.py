"""Embeddings and scores as arrays: checked once here, so that protocols need not; cosines, and templates of several.

Embeddings are float arrays (N, D) of unit norm, scores their cosines.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.errors import UsageError
from bauta.recognizers.calibration import ERRORS_WANTED

Floats = NDArray[Any]
Indices = NDArray[np.int64]

_BLOCK = 1 << 24  # scores held at once


def cosines(first: ArrayLike, second: ArrayLike) -> Floats:
    """(N,) cosine of each pair of rows.

    Args:
        first: (N, D) of unit norm.
        second: The same shape.

    Raises:
        UsageError: when they are not embeddings, or of different shape.
    """
    one, other = checked_embeddings(first), checked_embeddings(second)
    if one.shape != other.shape:
        raise UsageError(f"Embeddings {one.shape} and {other.shape} make no pairs.", hint="Give two for each pair.")
    result: Floats = np.einsum("nd,nd->n", one, other)
    return result


# Checks


def checked_embeddings(values: ArrayLike) -> Floats:
    """The embeddings as an array (N, D), at least one.

    Raises:
        UsageError: when they are something else, or not of unit norm.
    """
    array = np.asarray(values)
    if array.ndim != 2 or not len(array) or array.dtype.kind != "f":
        raise UsageError(
            f"{array.dtype} {array.shape} are not embeddings.", hint="Give floats of shape (N, D), at least one row."
        )
    norms = np.linalg.norm(array, axis=1)
    if not (np.abs(norms - 1) < 1e-3).all():  # false for NaN too
        row = int(np.flatnonzero(~(np.abs(norms - 1) < 1e-3))[0])
        raise UsageError(f"Embedding {row} has norm {norms[row]:g}, not 1.", hint="Divide embeddings by their norm.")
    return array


def checked_scores(values: ArrayLike) -> Floats:
    """The scores as a float array.

    Raises:
        UsageError: when one is missing.
    """
    array = np.asarray(values, np.result_type(np.asarray(values), np.float32))
    if not np.isfinite(array).all():
        raise UsageError(
            f"{int((~np.isfinite(array)).sum())} scores are missing.",
            hint="Decide what an image without a face counts as, and say so in the result.",
        )
    return array


def checked_versions(clean: ArrayLike, protected: ArrayLike, subjects: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Embeddings of the same images, clean and protected.

    Raises:
        UsageError: when they do not go together.
    """
    one, other = checked_embeddings(clean), checked_embeddings(protected)
    if one.shape != other.shape or len(one) != len(subjects):
        raise UsageError(
            f"Embeddings {one.shape} and {other.shape} of {len(subjects)} subjects do not go together.",
            hint="Give each image twice, clean and protected, in one order.",
        )
    return one, other


def coded(*names: Sequence[Hashable]) -> tuple[Indices, ...]:
    """A number for each name, the same in all lists."""
    known: dict[Hashable, int] = {}
    return tuple(np.array([known.setdefault(name, len(known)) for name in part], np.int64) for part in names)


def refuse_lengths(values: Floats, code: Indices) -> None:
    """Check that there is a subject for each embedding.

    Raises:
        UsageError: when there is not.
    """
    if len(values) != len(code):
        raise UsageError(f"{len(values)} embeddings have {len(code)} subjects.", hint="Name the person of each.")


def refuse_few(count: int, rate: float, what: str) -> None:
    """Check that so many trials can tell of an error rate: 30 / rate (`ERRORS_WANTED`).

    Raises:
        UsageError: when they cannot, or the rate is none.
    """
    if not 0 < rate < 1:
        raise UsageError(f"An error rate of {rate} makes no sense.", hint="Give one between 0 and 1.")
    wanted = math.ceil(round(ERRORS_WANTED / rate, 6))
    if count < wanted:
        raise UsageError(
            f"{count} {what} say nothing about a rate of {rate:g}, which needs {wanted}.",
            hint="Give more, or ask for a higher rate.",
        )


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices over the rows of a product, of bounded size."""
    step = max(1, _BLOCK // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, start + step)
