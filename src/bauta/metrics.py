"""The one place for metrics: image quality, verification at a fixed FMR, intervals.

Everything here takes and returns numpy arrays or floats; `ssim` and `ms_ssim` alone import torch, when called.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError

Array = NDArray[Any]

_BAND = 256  # rows of an SSIM map that are made at once


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
        a: First image, (H, W, C) in [0, 1], sides of at least 11 pixels.
        b: Second image, same shape.

    Raises:
        UsageError: when a side is shorter than the window.
    """
    if min(a.shape[:2]) < 11:
        raise UsageError(f"SSIM needs sides of at least 11 pixels, got {a.shape[1]}x{a.shape[0]}.")
    from pytorch_msssim import ssim as torch_ssim

    rows = a.shape[0] - 10  # as many rows has its map; of a large face it is made in bands, for the sake of memory
    total = 0.0
    for top in range(0, rows, _BAND):
        bottom = min(top + _BAND, rows)
        one, other = (_batch_of_one(image[top : bottom + 10]) for image in (a, b))
        total += (bottom - top) * float(torch_ssim(one, other, data_range=1.0))
    return float(total / rows)


def ms_ssim(a: Array, b: Array) -> float:
    """Structural similarity over five scales (Wang et al. 2003, with their weights), mean over channels.

    Args:
        a: First image, (H, W, 3) in [0, 1], sides of at least 161 pixels: the window of 11 must fit after four
            halvings. Crops of 112 pixels have no MS-SSIM.
        b: Second image, same shape.

    Raises:
        UsageError: when a side is shorter.
    """
    if min(a.shape[:2]) < 161:
        raise UsageError(
            f"MS-SSIM needs sides of at least 161 pixels, got {a.shape[1]}x{a.shape[0]}.",
            hint="Measure the photo, or take SSIM for crops.",
        )
    from pytorch_msssim import ms_ssim as torch_ms_ssim

    return float(torch_ms_ssim(_batch_of_one(a), _batch_of_one(b), data_range=1.0))


def flip(a: Array, b: Array) -> float:
    """FLIP (Andersson et al. 2020): how much of a difference is seen when two images are shown in turn.

    The mean of its map for images of low dynamic range, at 67 pixels per degree, by the authors' own package: a 4K
    monitor of 70 cm at 70 cm.

    Args:
        a: First image, (H, W, 3) sRGB in [0, 1]; the original.
        b: Second image, same shape.

    Returns:
        0 for equal images, at most 1.

    Raises:
        UsageError: when the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 3 or a.shape[2] != 3:
        raise UsageError(f"FLIP compares two images of one size, not {a.shape} and {b.shape}.")
    import flip_evaluator

    one, other = (np.ascontiguousarray(image, dtype=np.float32) for image in (a, b))
    return float(flip_evaluator.evaluate(one, other, "LDR", applyMagma=False)[1])


def frechet_distance(a: Array, b: Array) -> float:
    """Squared Fréchet distance of two Gaussians with the means and covariances of samples (Heusel et al. 2017).

    FID is this on features of an Inception network. With fewer samples than features it is an underestimate of
    covariances, and depends on their number.

    Args:
        a: (N, D) features, at least two.
        b: (M, D), at least two.

    Raises:
        UsageError: when the shapes do not go together, or there are fewer than two samples.
    """
    one, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise UsageError(f"Features {one.shape} and {other.shape} have no Fréchet distance.", hint="Give (N, D) twice.")
    first, second = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (one, other))
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T  # the trace of (first second)^1/2 is that of a symmetric one
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    apart = float(np.square(one.mean(0) - other.mean(0)).sum())
    return max(0.0, apart + float(np.trace(first) + np.trace(second) - 2 * shared))


def _batch_of_one(image: Array) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).permute(2, 0, 1)[None]


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


def cross_validated_matches(scores: Array, same: Array, folds: Array) -> NDArray[np.bool_]:
    """What the LFW protocol says of each pair: each fold is judged by the threshold that suits the other folds best.

    Args:
        scores: (N,) similarities of pairs.
        same: (N,) bool, whether a pair shows one person.
        folds: (N,) fold of each pair.

    Returns:
        (N,) whether a pair is taken for one person.

    Raises:
        UsageError: when there are fewer than two folds, or the lengths differ.
    """
    scores, same, folds = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool), np.asarray(folds)
    names = np.unique(folds)
    if not scores.shape == same.shape == folds.shape or scores.ndim != 1 or len(names) < 2:
        raise UsageError(f"Scores {scores.shape}, labels {same.shape} and {len(names)} folds make no protocol.")
    matches = np.zeros(len(scores), dtype=np.bool_)
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
        matches[inside] = scores[inside] >= limit
    return matches


def cross_validated_accuracy(scores: Array, same: Array, folds: Array) -> tuple[float, float]:
    """Verification accuracy of the LFW protocol; see `cross_validated_matches` for arguments and errors.

    Returns:
        Mean over folds, and the standard error of that mean.
    """
    right = cross_validated_matches(scores, same, folds) == np.asarray(same, dtype=bool)
    accuracies = [float(right[np.asarray(folds) == name].mean()) for name in np.unique(folds)]
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies)))


def focal_diversity(failures: Array) -> float:
    """How rarely the members of a team fail together: 1 when never, 0 when always.

    Generalised diversity (Partridge & Krzanowski 1997), 1 - p(2) / p(1), taken on the failures of each member in turn
    and averaged (EnsembleBench, Wu et al. 2021). Of a sample where i of L members fail, p(1) takes i / L and p(2)
    i (i - 1) / (L (L - 1)). A member that never fails says nothing and is left out.

    Args:
        failures: (L, N) bool, whether a member fails on a sample.

    Raises:
        UsageError: when there are fewer than two members or nobody fails.
    """
    failures = np.asarray(failures, dtype=bool)
    if failures.ndim != 2 or len(failures) < 2 or not failures.any():
        raise UsageError(
            f"Failures {failures.shape} of a team tell no diversity: two members and a failure are needed."
        )
    members, together = len(failures), failures.sum(0)
    one = together / members
    two = together * (together - 1) / (members * (members - 1))
    return float(np.mean([1 - two[own].mean() / one[own].mean() for own in failures if own.any()]))


def system_linkability(mated: Array, non_mated: Array, *, bins: int | None = None, prior: float = 1.0) -> float:
    """D_sys: how far scores tell templates of one person under different keys from those of different people.

    Gomez-Barrero et al. (2018): the mean over mated scores s of 2 w LR / (1 + w LR) - 1 where w LR(s) > 1, and of 0
    elsewhere; LR is the ratio of the histograms of mated and non-mated scores, w the ratio of priors. 0 is unlinkable,
    1 fully linkable. Finite samples lie above their limit: compare with `null_linkability`.

    Args:
        mated: Scores of one person's templates, any shape, larger for likelier pairs or not.
        non_mated: Scores of different people's templates.
        bins: Bins of equal width over all scores; a tenth of the mated scores, at most 100, by default.
        prior: Probability of a mated pair over that of a non-mated one.

    Raises:
        UsageError: when a side is empty or not finite, or there is no bin.
    """
    mated_share, other_share = _histograms(mated, non_mated, bins)
    ratio = np.divide(mated_share, other_share, out=np.full(len(mated_share), np.inf), where=other_share > 0) * prior
    local = np.where(np.isinf(ratio), 1.0, 2 * ratio / (1 + np.where(np.isinf(ratio), 0, ratio)) - 1)
    return float((np.maximum(local, 0) * mated_share).sum())


def maximal_linkability(mated: Array, non_mated: Array, *, bins: int = 30) -> float:
    """Maximal leakage, in bits, of whether two templates are of one person through their score.

    The logarithm to base 2 of the sum over bins of the larger of the shares of mated and non-mated scores
    (Otroshi-Shahreza et al.). 0 is unlinkable, 1 fully linkable; no adversary who sees the score at a false match
    rate FMR has a true match rate above 2^M - 1 + FMR.

    Args:
        mated: Scores of one person's templates, any shape.
        non_mated: Scores of different people's templates.
        bins: Bins of equal width over all scores.

    Raises:
        UsageError: when a side is empty or not finite, or there is no bin.
    """
    return math.log2(max(1.0, float(np.maximum(*_histograms(mated, non_mated, bins)).sum())))


def null_linkability(
    mated: Array, non_mated: Array, *, bins: int | None = None, permutations: int = 100, seed: int = 0
) -> Interval:
    """What `system_linkability` gives for these scores when the labels are shuffled: the value of unlinkable ones.

    Args:
        mated: Scores of one person's templates, any shape.
        non_mated: Scores of different people's templates.
        bins: As for `system_linkability`.
        permutations: How often to shuffle.
        seed: Of the shuffles.

    Raises:
        UsageError: when a side is empty or not finite, or there is no bin.
    """
    first, second = np.ravel(mated), np.ravel(non_mated)
    pool = np.concatenate([first, second])
    random = np.random.default_rng(seed)
    values = []
    for _ in range(permutations):
        shuffled = random.permutation(pool)
        values.append(system_linkability(shuffled[: len(first)], shuffled[len(first) :], bins=bins))
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(np.mean(values)), float(low), float(high))


def _histograms(mated: Array, non_mated: Array, bins: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The shares of both kinds of scores in common bins."""
    first, second = (np.asarray(scores, dtype=np.float64).ravel() for scores in (mated, non_mated))
    count = min(len(first) // 10, 100) if bins is None else bins
    pool = np.concatenate([first, second])
    if not len(first) or not len(second) or not np.isfinite(pool).all() or count < 1:
        raise UsageError(
            f"{len(first)} mated and {len(second)} non-mated scores in {count} bins tell nothing of linkability.",
            hint="Give finite scores of both kinds, at least ten mated ones; some thousands say more.",
        )
    edges = np.linspace(pool.min(), pool.max(), count + 1) if np.ptp(pool) else np.array([pool[0] - 1, pool[0] + 1])
    return np.histogram(first, edges)[0] / len(first), np.histogram(second, edges)[0] / len(second)


def auroc(genuine: Array, impostor: Array) -> float:
    """Area under the ROC curve: the chance that a genuine score is above an impostor one, ties counting half.

    Args:
        genuine: Scores of pairs of one person, any shape.
        impostor: Scores of pairs of different people.

    Raises:
        UsageError: when a side is empty or not finite.
    """
    first, second = (np.asarray(scores, dtype=np.float64).ravel() for scores in (genuine, impostor))
    _require_scores(first, second)
    ordered = np.sort(second)
    below, up_to = (np.searchsorted(ordered, first, side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(second))


def composite_privacy(
    seen_ssim: Array,
    seen_cosine: Array,
    found_ssim: Array,
    found_cosine: Array,
    *,
    alpha: float = 0.4,
    beta: float = 0.6,
) -> NDArray[np.float64]:
    """How private masked faces are, each in [0, 1]: alpha (S1 + S2) / 2 + beta (S3 + S4) / 2.

    The score of adaptive hybrid masking (arXiv 2403.10558), of which four parts and both weights are known. What the
    parts are is our reading: S1 = 1 - SSIM and S2 = 1 - max(0, cosine) between the face and the masked face looked at
    as a picture (the visual level), S3 and S4 the same of what an attacker recovered (the level of attacks).

    Args:
        seen_ssim: (N,), of the pictures.
        seen_cosine: (N,), of their templates by a recogniser that is not under attack.
        found_ssim: (N,), of recovered faces.
        found_cosine: (N,), of theirs.
        alpha: Weight of the visual level.
        beta: Weight of the level of attacks.

    Raises:
        UsageError: when they do not have one shape.
    """
    given = [np.asarray(one, dtype=np.float64) for one in (seen_ssim, seen_cosine, found_ssim, found_cosine)]
    if len({one.shape for one in given}) != 1:
        raise UsageError(f"Scores have the shapes {[one.shape for one in given]}.", hint="Give one of each per face.")
    first, second, third, fourth = given
    visual = (1 - first + 1 - second.clip(0)) / 2
    attacked = (1 - third + 1 - fourth.clip(0)) / 2
    score: NDArray[np.float64] = alpha * visual + beta * attacked
    return score


def distribution_distance(first: Array, second: Array) -> float:
    """The two-sample statistic of Kolmogorov and Smirnov: the largest difference of the distribution functions.

    0 for equal samples, 1 for samples that do not overlap.

    Raises:
        UsageError: when a side is empty or not finite.
    """
    one, other = (np.sort(np.asarray(scores, dtype=np.float64).ravel()) for scores in (first, second))
    _require_scores(one, other)
    pool = np.concatenate([one, other])
    shares = [np.searchsorted(side, pool, "right") / len(side) for side in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def _require_scores(first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
    if not len(first) or not len(second) or not np.isfinite(first).all() or not np.isfinite(second).all():
        raise UsageError(
            f"{len(first)} and {len(second)} scores cannot be compared.", hint="Give finite scores of both kinds."
        )


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share (Clopper and Pearson 1934).

    >>> [round(bound, 4) for bound in clopper_pearson(5, 100)]
    [0.0164, 0.1128]

    Args:
        hits: Of the trials.
        trials: 1 or more.
        confidence: Of the interval, above 0 and below 1.
    """
    tail = (1 - confidence) / 2
    # The upper bound as the lower one of the misses: a small sum is more exact than 1 less a large one.
    low, missed = (_lower(count, trials, tail) for count in (hits, trials - hits))
    return low, 1 - missed


def _lower(hits: int, trials: int, tail: float) -> float:
    """The share at which so many hits or more have the probability of the tail."""
    low, high = 0.0, 1.0
    for _ in range(50 if hits else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if _at_least(hits, trials, middle) > tail else (middle, high)
    return (low + high) / 2 if hits else 0.0


def _at_least(hits: int, trials: int, share: float) -> float:
    """The probability of so many hits or more."""
    counts = np.arange(hits, trials + 1)
    logs = _log_factorials(trials)
    terms = logs[trials] - logs[counts] - logs[trials - counts]
    return float(np.exp(terms + counts * math.log(share) + (trials - counts) * math.log1p(-share)).sum())


@lru_cache(maxsize=8)
def _log_factorials(count: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
