"""What is asked of embeddings and scores: thresholds and verification, with intervals.

Nothing here sees an image. Embeddings are float arrays (N, D) of unit norm, scores their cosines; a pair matches when
its score is at least the threshold, as everywhere in Bauta. Rates carry 95 % intervals that resample subjects; the
thresholds they rest on are taken as given. Work over pairs is done in matrix products of bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from bauta import metrics
from bauta.benchmark.embeddings import (
    Floats,
    Indices,
    blocks,
    checked_embeddings,
    checked_scores,
    coded,
    refuse_few,
    refuse_lengths,
)
from bauta.errors import UsageError
from bauta.metrics import Interval
from bauta.rates import FMRS

# Thresholds


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it rests on.

    Attributes:
        fmr: False match rate it was chosen for.
        cosine: A pair matches when its score is at least this.
        impostor_pairs: How many pairs of different people gave it.
    """

    fmr: float
    cosine: float
    impostor_pairs: int


def operating_point(impostor_scores: ArrayLike, fmr: float) -> OperatingPoint:
    """The threshold at a false match rate of listed impostor scores.

    Raises:
        UsageError: when there are fewer than 30 / FMR scores (`ERRORS_WANTED`), which say nothing about that rate.
    """
    scores = checked_scores(impostor_scores)
    refuse_few(scores.size, fmr, "impostor pairs")
    return OperatingPoint(fmr, metrics.threshold_at_fmr(scores, fmr), scores.size)


def operating_points(
    embeddings: ArrayLike,
    subjects: Sequence[Hashable],
    *,
    first: ArrayLike | None = None,
    second: ArrayLike | None = None,
    fmrs: Sequence[float] = FMRS,
) -> tuple[OperatingPoint, ...]:
    """Thresholds from all pairs of images of different people, each counted once; only the highest scores are kept.

    Args:
        embeddings: (N, D) of unit norm.
        subjects: The person of each.
        first: Indices of the images that are the first of pairs, repeated or not; all by default. When they share
            none with `second`, as in frontal against profile, only pairs of the one with the other count.
        second: Indices of the images that are the second of pairs.
        fmrs: False match rates.

    Raises:
        UsageError: when there are fewer than 30 / FMR such pairs for one of the rates.
    """
    values, (code,) = checked_embeddings(embeddings), coded(subjects)
    refuse_lengths(values, code)
    every = np.arange(len(values))
    one = every if first is None else np.unique(np.asarray(first, np.int64))
    other = every if second is None else np.unique(np.asarray(second, np.int64))
    crossed = not len(np.intersect1d(one, other))
    if not crossed:
        one = other = np.union1d(one, other)
    shared = np.bincount(code[one], minlength=len(values)) @ np.bincount(code[other], minlength=len(values))
    pairs = int(len(one) * len(other) - shared) // (1 if crossed else 2)
    for fmr in fmrs:
        refuse_few(pairs, fmr, "impostor pairs")
    highest = _highest(values, code, one, other, crossed, math.floor(max(fmrs) * pairs) + 1)
    return tuple(
        OperatingPoint(fmr, float(np.nextafter(highest[math.floor(fmr * pairs)], np.inf, dtype=highest.dtype)), pairs)
        for fmr in fmrs
    )


def _highest(values: Floats, code: Indices, one: Indices, other: Indices, crossed: bool, count: int) -> Floats:
    """The `count` highest impostor scores, descending."""
    kept = np.zeros(0, values.dtype)
    floor = -np.inf
    columns = np.ascontiguousarray(values[other].T)
    for rows in blocks(len(one), len(other)):
        scores = values[one[rows]] @ columns
        wanted = (code[one[rows], None] != code[other]) & (scores > floor)
        if not crossed:
            wanted &= one[rows, None] < other
        kept = np.concatenate([kept, scores[wanted]])
        if len(kept) > count:
            kept = np.partition(kept, len(kept) - count)[-count:]
            floor = kept.min()
    return np.sort(kept)[::-1]


# Verification


@dataclass(frozen=True)
class AcceptRate:
    """How many genuine pairs match at a threshold.

    Attributes:
        point: The threshold.
        rate: True accept rate (TAR), 1 - FNMR.
    """

    point: OperatingPoint
    rate: Interval


@dataclass(frozen=True)
class Verification:
    """Outcome of the LFW protocol.

    Attributes:
        accuracy: Share of pairs that are told right, each by the threshold that suits the other folds best; for
            folds of equal size, the mean over folds. The interval resamples subjects.
        fold_error: Standard error of the mean over folds, which is what papers print.
        genuine_pairs: Pairs of one person.
        impostor_pairs: Pairs of different people.
        rates: True accept rates, in the order they were asked for.
    """

    accuracy: Interval
    fold_error: float
    genuine_pairs: int
    impostor_pairs: int
    rates: tuple[AcceptRate, ...]


def verification(
    scores: ArrayLike,
    same: ArrayLike,
    folds: ArrayLike,
    subjects: Sequence[Hashable],
    *,
    fmrs: Sequence[float] = (),
    points: Sequence[OperatingPoint] = (),
    seed: int = 0,
) -> Verification:
    """Cross-validated accuracy, and true accept rates.

    Args:
        scores: (P,) of pairs.
        same: (P,) bool, whether a pair shows one person.
        folds: (P,) fold of each pair.
        subjects: The person of each pair's first image.
        fmrs: False match rates to take thresholds at from these pairs.
        points: Thresholds from elsewhere.
        seed: Of the intervals.

    Raises:
        UsageError: when lengths differ, there are fewer than two folds, no genuine pair, or fewer than 30 / FMR
            impostor pairs for one of `fmrs`.
    """
    values, genuine = checked_scores(scores), np.asarray(same, np.bool_)
    right = metrics.cross_validated_matches(values, genuine, np.asarray(folds)) == genuine
    rates = true_accept_rates(values, genuine, subjects, fmrs=fmrs, points=points, seed=seed)
    return Verification(
        accuracy=metrics.bootstrap_by_subject(right, subjects, seed=seed),
        fold_error=metrics.cross_validated_accuracy(values, genuine, np.asarray(folds))[1],
        genuine_pairs=int(genuine.sum()),
        impostor_pairs=int((~genuine).sum()),
        rates=rates,
    )


def true_accept_rates(
    scores: ArrayLike,
    same: ArrayLike,
    subjects: Sequence[Hashable],
    *,
    fmrs: Sequence[float] = (),
    points: Sequence[OperatingPoint] = (),
    seed: int = 0,
) -> tuple[AcceptRate, ...]:
    """Share of genuine pairs that match: at thresholds from these pairs' impostors, then at thresholds from elsewhere.

    Arguments and errors are those of `verification`, which also needs folds; template lists (IJB) have none.
    """
    values, genuine = checked_scores(scores), np.asarray(same, np.bool_)
    if values.shape != genuine.shape or values.shape != (len(subjects),) or not genuine.any():
        raise UsageError(
            f"{values.shape} scores, {genuine.shape} labels and {len(subjects)} subjects are not genuine pairs.",
            hint="Give a score, a label and a subject for each pair, some of one person.",
        )
    wanted = [operating_point(values[~genuine], fmr) for fmr in fmrs] + list(points)
    people = [subjects[place] for place in np.flatnonzero(genuine).tolist()]
    return tuple(
        AcceptRate(point, metrics.bootstrap_by_subject(values[genuine] >= point.cosine, people, seed=seed))
        for point in wanted
    )


@dataclass(frozen=True, eq=False)
class DetCurve:
    """Points of a detection error trade-off curve, false match rate ascending.

    Attributes:
        cosine: (K,) thresholds, descending.
        false_match: (K,) share of impostor pairs at or above them (FMR).
        false_non_match: (K,) share of genuine pairs below them (FNMR).
    """

    cosine: Floats
    false_match: Floats
    false_non_match: Floats


def det_curve(genuine_scores: ArrayLike, impostor_scores: ArrayLike, *, points: int = 200) -> DetCurve:
    """A DET curve at about evenly spaced logarithms of the false match rate, from no impostor pair to all.

    Args:
        genuine_scores: Scores of pairs of one person.
        impostor_scores: Scores of pairs of different people.
        points: Most points; thresholds that equal scores make equal are one.

    Raises:
        UsageError: when there are no scores of a kind.
    """
    genuine, impostor = np.sort(checked_scores(genuine_scores)), np.sort(checked_scores(impostor_scores))
    if not len(genuine) or not len(impostor):
        raise UsageError("A DET curve needs genuine and impostor scores.", hint="Give both kinds.")
    count = len(impostor)
    allowed = np.unique(np.concatenate([[0], np.geomspace(1, count, max(points - 1, 1)).astype(np.int64)]))
    # The smallest threshold with at most so many matches lies just above the next score.
    limits = np.append(np.nextafter(impostor[::-1][allowed[allowed < count]], np.inf), impostor[0])
    limits = np.unique(limits)[::-1]
    return DetCurve(
        limits,
        1 - np.searchsorted(impostor, limits, "left") / count,
        np.searchsorted(genuine, limits, "left") / len(genuine),
    )


# Success at a threshold


class Cell(StrEnum):
    """Which side of a comparison is protected."""

    NEITHER = "unprotected"
    PROBE = "probe-protected"
    GALLERY = "gallery-protected"
    BOTH = "both-protected"

    @property
    def sides(self) -> tuple[bool, bool]:
        """Whether the probe is protected, and whether the gallery is."""
        return self in (Cell.PROBE, Cell.BOTH), self in (Cell.GALLERY, Cell.BOTH)
