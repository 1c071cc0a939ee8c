"""The one place for metrics: image quality, verification at a fixed FMR, intervals bootstrapped by subject.

Everything here takes and returns numpy arrays or floats; `ssim` alone imports torch, when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError

Array = NDArray[Any]


def psnr(a: Array, b: Array, weight: Array | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two images in [0, 1], peak 1; infinity when they are equal.

    Args:
        a: First image, any shape.
        b: Second image, same shape.
        weight: Optional weights, broadcastable to the images; the error is their weighted mean, so that
            a face region given as 1 and the rest as 0 yields the PSNR of the face.
    """
    error = np.square(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))
    mean = float(np.average(error, weights=None if weight is None else np.broadcast_to(weight, error.shape)))
    return math.inf if mean == 0 else -10 * math.log10(mean)


def ssim(a: Array, b: Array) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window of 11, sigma 1.5), mean over channels.

    Args:
        a: First image, (H, W, 3) in [0, 1], sides of at least 11 pixels.
        b: Second image, same shape.

    Raises:
        UsageError: when a side is shorter than the window.
    """
    if min(a.shape[:2]) < 11:
        raise UsageError(f"SSIM needs sides of at least 11 pixels, got {a.shape[1]}x{a.shape[0]}.")
    import torch
    from pytorch_msssim import ssim as torch_ssim

    first, second = (
        torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).permute(2, 0, 1)[None] for image in (a, b)
    )
    return float(torch_ssim(first, second, data_range=1.0))


def linf(a: Array, b: Array) -> float:
    """Largest absolute difference of two images in [0, 1], in 1/255."""
    return float(np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).max() * 255)


def threshold_at_fmr(impostor_scores: Array, fmr: float) -> float:
    """Smallest threshold at which at most a share `fmr` of the impostor scores match (score >= threshold).

    Raises:
        UsageError: when there are no scores, or `fmr` is outside (0, 1).
    """
    scores = np.sort(np.asarray(impostor_scores).ravel())[::-1]
    if scores.size == 0 or not 0 < fmr < 1:
        raise UsageError(f"A threshold needs impostor scores and an FMR in (0, 1), got {scores.size} and {fmr}.")
    allowed = math.floor(fmr * scores.size)
    return float(np.nextafter(scores[allowed], np.inf, dtype=scores.dtype))


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        mean: The statistic on the whole sample.
        low: 2.5th percentile of the bootstrap.
        high: 97.5th percentile of the bootstrap.
    """

    mean: float
    low: float
    high: float


def bootstrap_by_subject(
    values: Array, subjects: Sequence[Hashable], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of `values` with a 95 % percentile interval that resamples whole subjects, not single values.

    Values of one subject are dependent; resampling them singly would make the interval too narrow.
    NaN values are left out.

    Args:
        values: (N,), or (N, J) for the mean over J columns of their means (judges that counted different pairs).
        subjects: The subject of each of the N.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    Raises:
        UsageError: when the lengths differ, or a column has no value.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape[:1] != (len(subjects),) or numbers.ndim > 2:
        raise UsageError(f"Values of shape {numbers.shape} do not go with {len(subjects)} subjects.")
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    kept = ~np.isnan(numbers)
    if not kept.size or not kept.any(0).all():
        raise UsageError("A mean needs at least one value.")
    code: dict[Hashable, int] = {}
    groups = np.array([code.setdefault(subject, len(code)) for subject in subjects])
    totals, counts = np.zeros((len(code), numbers.shape[1])), np.zeros((len(code), numbers.shape[1]))
    np.add.at(totals, groups, np.where(kept, numbers, 0))
    np.add.at(counts, groups, kept)
    present = counts.any(1)
    totals, counts = totals[present], counts[present]
    draws = np.random.default_rng(seed).integers(len(totals), size=(resamples, len(totals)))
    drawn = counts[draws].sum(1)
    means = np.divide(totals[draws].sum(1), drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
    low, high = np.nanpercentile(means.mean(1), [2.5, 97.5])
    return Interval(float((totals.sum(0) / counts.sum(0)).mean()), float(low), float(high))


def cross_validated_accuracy(scores: Array, same: Array, folds: Array) -> tuple[float, float]:
    """Verification accuracy of the LFW protocol: each fold is judged by the threshold that suits the other folds best.

    Args:
        scores: (N,) similarities of pairs.
        same: (N,) bool, whether a pair shows one person.
        folds: (N,) fold of each pair.

    Returns:
        Mean over folds, and the standard error of that mean.

    Raises:
        UsageError: when there are fewer than two folds, or the lengths differ.
    """
    scores, same, folds = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool), np.asarray(folds)
    names = np.unique(folds)
    if not scores.shape == same.shape == folds.shape or scores.ndim != 1 or len(names) < 2:
        raise UsageError(f"Scores {scores.shape}, labels {same.shape} and {len(names)} folds make no protocol.")
    accuracies = []
    for name in names:
        inside = folds == name
        order = np.argsort(-scores[~inside], kind="stable")
        ranked, labels = scores[~inside][order], same[~inside][order]
        # Accepting the first n pairs is right about the genuine ones among them and the impostors after them.
        right = np.concatenate([[0], np.cumsum(np.where(labels, 1, -1))])
        right[1:][np.append(ranked[1:] == ranked[:-1], False)] = -len(ranked)  # no threshold parts equal scores
        count = int(right.argmax())
        limit = (
            np.inf
            if count == 0
            else ranked[count - 1]
            if count == len(ranked)
            else ranked[count - 1 : count + 1].mean()
        )
        accuracies.append(float(((scores[inside] >= limit) == same[inside]).mean()))
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / np.sqrt(len(names)))
