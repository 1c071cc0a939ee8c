"""What is asked of embeddings and scores: verification, dodging, impersonation, identification, with intervals.

Nothing here sees an image. Embeddings are float arrays (N, D) of unit norm, scores their cosines; a pair matches when
its score is at least the threshold, as everywhere in Bauta. Rates carry 95 % intervals that resample subjects; the
thresholds they rest on are taken as given. Work over pairs is done in matrix products of bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta import metrics
from bauta.errors import UsageError
from bauta.metrics import Interval
from bauta.recognizers.calibration import ERRORS_WANTED, FMRS

Floats = NDArray[Any]
Indices = NDArray[np.int64]

#: The ranks that are reported.
RANKS = (1, 5)
#: Cosines of float32 that differ by less are equal: the order of a sum alone changes them by as much.
TIE = 1e-6

_BLOCK = 1 << 24  # scores held at once
_TARGET, _DISTRACTOR = -1, -2  # codes of people in the gallery who are nobody among the probes


def cosines(first: ArrayLike, second: ArrayLike) -> Floats:
    """(N,) cosine of each pair of rows.

    Args:
        first: (N, D) of unit norm.
        second: The same shape.

    Raises:
        UsageError: when they are no embeddings, or of different shape.
    """
    one, other = _embeddings(first), _embeddings(second)
    if one.shape != other.shape:
        raise UsageError(f"Embeddings {one.shape} and {other.shape} make no pairs.", hint="Give two for each pair.")
    result: Floats = np.einsum("nd,nd->n", one, other)
    return result


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
    scores = _scores(impostor_scores)
    _refuse_few(scores.size, fmr, "impostor pairs")
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
    values, (code,) = _embeddings(embeddings), _coded(subjects)
    _refuse_lengths(values, code)
    every = np.arange(len(values))
    one = every if first is None else np.unique(np.asarray(first, np.int64))
    other = every if second is None else np.unique(np.asarray(second, np.int64))
    crossed = not len(np.intersect1d(one, other))
    if not crossed:
        one = other = np.union1d(one, other)
    shared = np.bincount(code[one], minlength=len(values)) @ np.bincount(code[other], minlength=len(values))
    pairs = int(len(one) * len(other) - shared) // (1 if crossed else 2)
    for fmr in fmrs:
        _refuse_few(pairs, fmr, "impostor pairs")
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
    for rows in _blocks(len(one), len(other)):
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
    values, genuine = _scores(scores), np.asarray(same, np.bool_)
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
    values, genuine = _scores(scores), np.asarray(same, np.bool_)
    if values.shape != genuine.shape or values.shape != (len(subjects),) or not genuine.any():
        raise UsageError(
            f"{values.shape} scores, {genuine.shape} labels and {len(subjects)} subjects are no genuine pairs.",
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
    genuine, impostor = np.sort(_scores(genuine_scores)), np.sort(_scores(impostor_scores))
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


def dodging_success(scores: ArrayLike, subjects: Sequence[Hashable], threshold: float, *, seed: int = 0) -> Interval:
    """Share of protected images that do not match another image of the same person: score < threshold.

    Args:
        scores: (N,), or (N, J) for the mean over J recognisers or targets; no missing values.
        subjects: The person of each of the N.
        threshold: From impostor pairs of a calibration set, never from these probes.
        seed: Of the interval.

    Raises:
        UsageError: when a score is missing, or lengths differ.
    """
    return metrics.bootstrap_by_subject(_scores(scores) < threshold, subjects, seed=seed)


def impersonation_success(
    scores: ArrayLike, subjects: Sequence[Hashable], threshold: float, *, seed: int = 0
) -> Interval:
    """Share of protected images that match the target's test image: score >= threshold; else as `dodging_success`.

    The test image must be another one than that the method saw.
    """
    return metrics.bootstrap_by_subject(_scores(scores) >= threshold, subjects, seed=seed)


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


def dodging_cells(
    clean: ArrayLike,
    protected: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    subjects: Sequence[Hashable],
    threshold: float,
    *,
    seed: int = 0,
) -> dict[Cell, Interval]:
    """Dodging success over genuine pairs, for each side that may be protected, and for neither.

    A mask that makes a person's protected photos match each other shows in `Cell.BOTH`.

    Args:
        clean: (N, D) embeddings of images.
        protected: (N, D) of the same images, protected.
        first: (P,) index of each pair's probe.
        second: (P,) index of each pair's gallery image; another image of that person.
        subjects: The person of each of the N images.
        threshold: As for `dodging_success`.
        seed: Of the intervals.

    Raises:
        UsageError: when shapes disagree, or a pair is of one image, or of two people.
    """
    versions = _versions(clean, protected, subjects)
    one, other = np.asarray(first, np.int64), np.asarray(second, np.int64)
    (code,) = _coded(subjects)
    if one.shape != other.shape or (one == other).any() or (code[one] != code[other]).any():
        raise UsageError("Dodging is measured on two images of each person.", hint="Give genuine pairs.")
    people = code[one].tolist()
    return {
        cell: dodging_success(
            cosines(versions[cell.sides[0]][one], versions[cell.sides[1]][other]), people, threshold, seed=seed
        )
        for cell in Cell
    }


# Identification


def search(probes: ArrayLike, gallery: ArrayLike, count: int) -> tuple[Indices, Floats]:
    """The best gallery images of each probe, exactly, by matrix products.

    Args:
        probes: (P, D) of unit norm.
        gallery: (G, D) of unit norm.
        count: Images wanted, at most G.

    Returns:
        (P, count) indices of gallery images, best first, and their scores.

    Raises:
        UsageError: when the gallery has fewer, or the embeddings do not go together.
    """
    one, other = _embeddings(probes), _embeddings(gallery)
    if not 0 < count <= len(other) or one.shape[1] != other.shape[1]:
        raise UsageError(
            f"{count} of a gallery {other.shape} cannot be found for probes {one.shape}.", hint="Ask for fewer."
        )
    places = np.empty((len(one), count), np.int64)
    scores = np.empty((len(one), count), np.result_type(one, other))
    columns = np.ascontiguousarray(other.T)
    for rows in _blocks(len(one), len(other)):
        block = one[rows] @ columns
        best = np.argpartition(block, len(other) - count, axis=1)[:, -count:]
        found = np.take_along_axis(block, best, axis=1)
        order = np.lexsort((best, -found), axis=1)
        places[rows], scores[rows] = np.take_along_axis(best, order, 1), np.take_along_axis(found, order, 1)
    return places, scores


@dataclass(frozen=True)
class ClosedSet:
    """Closed-set identification: everybody searched for is in the gallery.

    Attributes:
        rates: At each rank N, the share of probes of whose person an image is among the top N.
        probes: Number of probes.
        gallery: Number of gallery images.
    """

    rates: Mapping[int, Interval]
    probes: int
    gallery: int


def closed_set(
    probes: ArrayLike,
    probe_subjects: Sequence[Hashable],
    gallery: ArrayLike,
    gallery_subjects: Sequence[Hashable],
    *,
    ranks: Sequence[int] = RANKS,
    seed: int = 0,
) -> ClosedSet:
    """Rank-N identification rates of a recogniser; others who score as high count as ahead.

    Args:
        probes: (P, D) of unit norm.
        probe_subjects: The person of each probe.
        gallery: (G, D) of unit norm.
        gallery_subjects: The person of each gallery image.
        ranks: Which N.
        seed: Of the intervals.

    Raises:
        UsageError: when a probe's person is not in the gallery, or shapes disagree.
    """
    found = _ranked(_embeddings(probes), probe_subjects, _embeddings(gallery), gallery_subjects)
    return ClosedSet(
        {rank: metrics.bootstrap_by_subject(found.rank <= rank, probe_subjects, seed=seed) for rank in ranks},
        len(found.rank),
        len(gallery_subjects),
    )


@dataclass(frozen=True)
class OpenSet:
    """Open-set identification: the gallery also is searched for people who are not in it.

    Attributes:
        fpir: Share of these who may get an alarm (false positive identification rate).
        cosine: The threshold; an alarm is a top score of at least this.
        unknown_probes: How many searches for people who are not in the gallery gave it.
        rates: At each rank N, the share of probes in the gallery of whose person an image is among the top N and
            at least at the threshold (detection and identification rate, DIR).
    """

    fpir: float
    cosine: float
    unknown_probes: int
    rates: Mapping[int, Interval]


def open_set(
    probes: ArrayLike,
    probe_subjects: Sequence[Hashable],
    unknown: ArrayLike,
    unknown_subjects: Sequence[Hashable],
    gallery: ArrayLike,
    gallery_subjects: Sequence[Hashable],
    fpir: float,
    *,
    ranks: Sequence[int] = RANKS,
    seed: int = 0,
) -> OpenSet:
    """Detection and identification rates at a false positive identification rate.

    Args:
        probes: (P, D) of people in the gallery.
        probe_subjects: The person of each.
        unknown: (U, D) of people who are not in it.
        unknown_subjects: The person of each.
        gallery: (G, D).
        gallery_subjects: The person of each gallery image.
        fpir: False positive identification rate.
        ranks: Which N.
        seed: Of the intervals.

    Raises:
        UsageError: when there are fewer than 30 / FPIR unknown probes, one of them is in the gallery, a probe's
            person is not, or shapes disagree.
    """
    strangers = _embeddings(unknown)
    _refuse_few(len(strangers), fpir, "probes of people who are not in the gallery")
    enrolled = set(gallery_subjects)
    known = [person for person in unknown_subjects if person in enrolled]
    if known or len(unknown_subjects) != len(strangers):
        raise UsageError(
            f"{len(known)} of {len(unknown_subjects)} unknown probes are of people in the gallery"
            f"{f', such as {known[0]!r}' if known else ''}.",
            hint="Split people into known and unknown ones, and name the person of each probe.",
        )
    limit = metrics.threshold_at_fmr(search(strangers, gallery, 1)[1], fpir)
    found = _ranked(_embeddings(probes), probe_subjects, _embeddings(gallery), gallery_subjects)
    alarm = found.score >= limit
    rates = {
        rank: metrics.bootstrap_by_subject(alarm & (found.rank <= rank), probe_subjects, seed=seed) for rank in ranks
    }
    return OpenSet(fpir, limit, len(strangers), rates)


@dataclass(frozen=True)
class ProtectionRates:
    """How often identification fails to find the person, and how often it finds a target (TIP-IM, section 5.1).

    Attributes:
        untargeted: At each rank N, the share of probes without an image of their person among the top N (Rank-N-UT).
        targeted: At each rank N, the share of probes with an image of any target among the top N (Rank-N-T); empty
            without targets.
    """

    untargeted: Mapping[int, Interval]
    targeted: Mapping[int, Interval]


def identification_cells(
    clean: ArrayLike,
    protected: ArrayLike,
    subjects: Sequence[Hashable],
    probes: ArrayLike,
    gallery: ArrayLike,
    *,
    targets: ArrayLike | None = None,
    distractors: ArrayLike | None = None,
    everyone: bool = False,
    ranks: Sequence[int] = RANKS,
    seed: int = 0,
) -> dict[Cell, ProtectionRates]:
    """Untargeted and targeted success for each side that may be protected, and for neither.

    The gallery is that of TIP-IM's section 5.1: other images of the probes' people, images of others, images of the
    targets that no mask was made from. In a protected gallery the images of the person searched for are protected,
    and those of others only with `everyone`. Equal scores count against the protection.

    Args:
        clean: (N, D) embeddings of images.
        protected: (N, D) of the same images, protected; those that no cell takes may be the clean ones.
        subjects: The person of each of the N images.
        probes: (P,) indices of the probes.
        gallery: (G,) indices of the gallery, none of them a probe.
        targets: (T, D) embeddings of the targets' images in the gallery.
        distractors: (M, D) embeddings of further people in the gallery.
        everyone: Whether in a protected gallery others protect their images too.
        ranks: Which N.
        seed: Of the intervals.

    Raises:
        UsageError: when shapes disagree, an image is on both sides, or a probe's person is not in the gallery.
    """
    versions = _versions(clean, protected, subjects)
    (code,) = _coded(subjects)
    probe, enrolled = np.asarray(probes, np.int64), np.asarray(gallery, np.int64)
    if len(np.intersect1d(probe, enrolled)):
        raise UsageError("An image is a probe and in the gallery.", hint="Search for other images than those enrolled.")
    extra = [
        (_embeddings(part), mark) for part, mark in ((targets, _TARGET), (distractors, _DISTRACTOR)) if part is not None
    ]
    if any(part.shape[1] != versions[0].shape[1] for part, _ in extra):
        raise UsageError("Targets or distractors are of another recogniser.", hint="Embed all with one network.")
    labels = np.concatenate([code[enrolled], *(np.full(len(part), mark) for part, mark in extra)])
    galleries = [np.concatenate([version[enrolled], *(part for part, _ in extra)]) for version in versions]
    people = code[probe].tolist()
    asked = [_Sought(None, ties_ahead=False)] + ([] if targets is None else [_Sought(_TARGET, ties_ahead=True)])
    result = {}
    for cell in Cell:
        probe_side, gallery_side = cell.sides
        mate, *target = _rank(
            versions[probe_side][probe],
            code[probe],
            galleries[gallery_side and everyone],
            labels,
            asked,
            own=galleries[gallery_side],
        )
        result[cell] = ProtectionRates(
            {rank: metrics.bootstrap_by_subject(mate.rank > rank, people, seed=seed) for rank in ranks},
            {
                rank: metrics.bootstrap_by_subject(found.rank <= rank, people, seed=seed)
                for found in target
                for rank in ranks
            },
        )
    return result


@dataclass(frozen=True)
class _Sought:
    """Which gallery images are wanted, and how equal scores count.

    Attributes:
        code: Their code, or None for those of the probe's person.
        ties_ahead: Whether an image that is not wanted and scores as high counts as ahead.
    """

    code: int | None
    ties_ahead: bool


@dataclass(frozen=True, eq=False)
class _Ranked:
    """For each probe the best score of an image that is wanted, and its rank among all, from 1."""

    score: Floats
    rank: Indices


def _ranked(
    probes: Floats, probe_subjects: Sequence[Hashable], gallery: Floats, gallery_subjects: Sequence[Hashable]
) -> _Ranked:
    one, other = _coded(probe_subjects, gallery_subjects)
    _refuse_lengths(probes, one)
    _refuse_lengths(gallery, other)
    return _rank(probes, one, gallery, other, [_Sought(None, ties_ahead=True)])[0]


def _rank(
    probes: Floats,
    probe_code: Indices,
    gallery: Floats,
    gallery_code: Indices,
    asked: Sequence[_Sought],
    *,
    own: Floats | None = None,
) -> list[_Ranked]:
    """Ranks by counting how many images that are not wanted score higher than the best that is.

    Args:
        probes: (P, D).
        probe_code: (P,) person.
        gallery: (G, D).
        gallery_code: (G,) person.
        asked: What is wanted; one answer each.
        own: (G, D), what the gallery holds of the person searched for, when it is something else.
    """
    if probes.shape[1] != gallery.shape[1]:
        raise UsageError(f"Probes {probes.shape} do not go with a gallery {gallery.shape}.", hint="Use one network.")
    absent = ~np.isin(probe_code, gallery_code)
    if absent.any():
        raise UsageError(
            f"{int(absent.sum())} probes are of people who are not in the gallery.",
            hint="Enrol another image of each, or use open-set identification.",
        )
    found = [_Ranked(np.empty(len(probes)), np.empty(len(probes), np.int64)) for _ in asked]
    columns = np.ascontiguousarray(gallery.T)
    for rows in _blocks(len(probes), len(gallery)):
        block = probes[rows] @ columns
        mates = probe_code[rows, None] == gallery_code
        if own is not None and own is not gallery:
            row, column = np.nonzero(mates)
            block[row, column] = np.einsum("nd,nd->n", probes[rows][row], own[column])
        for sought, answer in zip(asked, found, strict=True):
            wanted = mates if sought.code is None else (gallery_code == sought.code)[None]
            best = np.where(wanted, block, -np.inf).max(1)
            ahead = block > (best + (-TIE if sought.ties_ahead else TIE))[:, None]
            answer.score[rows], answer.rank[rows] = best, 1 + (ahead & ~wanted).sum(1)
    return found


# Templates


def pool_templates(embeddings: ArrayLike, template: ArrayLike, media: ArrayLike) -> Floats:
    """One embedding for each template: the mean over its media of the means over each medium's images, of unit norm.

    As IJB-B and IJB-C are evaluated, so that a long video counts no more than a photo.

    Args:
        embeddings: (R, D) of the lines of the list.
        template: (R,) from 0 to T - 1, each at least once.
        media: (R,) number of the photo or video.

    Returns:
        (T, D).

    Raises:
        UsageError: when lengths differ, a template has no image, or its images cancel out.
    """
    values = _embeddings(embeddings)
    lines = np.stack([np.asarray(template, np.int64), np.asarray(media, np.int64)], axis=1)
    if len(lines) != len(values):
        raise UsageError(f"{len(values)} embeddings for {len(lines)} lines.", hint="Give one for each line.")
    groups, place = np.unique(lines, axis=0, return_inverse=True)
    per_medium = _means(values, place.ravel())
    if not np.array_equal(np.unique(groups[:, 0]), np.arange(groups[-1, 0] + 1)):
        raise UsageError("A template has no image.", hint="Number templates from 0 without gaps.")
    pooled = _means(per_medium, groups[:, 0])
    norm = np.linalg.norm(pooled, axis=1, keepdims=True)
    if not norm.all():
        raise UsageError("The images of a template cancel out.", hint="Check the embeddings.")
    result: Floats = pooled / norm
    return result


def _means(values: Floats, group: Indices) -> Floats:
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    counts = np.diff(np.append(starts, len(group)))
    means: Floats = np.add.reduceat(values[order], starts, axis=0) / counts[:, None]
    return means


# Input


def _embeddings(values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.ndim != 2 or not len(array) or array.dtype.kind != "f":
        raise UsageError(
            f"{array.dtype} {array.shape} are no embeddings.", hint="Give floats of shape (N, D), at least one row."
        )
    norms = np.linalg.norm(array, axis=1)
    if not (np.abs(norms - 1) < 1e-3).all():  # false for NaN too
        row = int(np.flatnonzero(~(np.abs(norms - 1) < 1e-3))[0])
        raise UsageError(f"Embedding {row} has norm {norms[row]:g}, not 1.", hint="Divide embeddings by their norm.")
    return array


def _scores(values: ArrayLike) -> Floats:
    array = np.asarray(values, np.result_type(np.asarray(values), np.float32))
    if not np.isfinite(array).all():
        raise UsageError(
            f"{int((~np.isfinite(array)).sum())} scores are missing.",
            hint="Decide what an image without a face counts as, and say so in the result.",
        )
    return array


def _versions(clean: ArrayLike, protected: ArrayLike, subjects: Sequence[Hashable]) -> tuple[Floats, Floats]:
    one, other = _embeddings(clean), _embeddings(protected)
    if one.shape != other.shape or len(one) != len(subjects):
        raise UsageError(
            f"Embeddings {one.shape} and {other.shape} of {len(subjects)} subjects do not go together.",
            hint="Give each image twice, clean and protected, in one order.",
        )
    return one, other


def _coded(*names: Sequence[Hashable]) -> tuple[Indices, ...]:
    """A number for each name, the same in all lists."""
    known: dict[Hashable, int] = {}
    return tuple(np.array([known.setdefault(name, len(known)) for name in part], np.int64) for part in names)


def _refuse_lengths(values: Floats, code: Indices) -> None:
    if len(values) != len(code):
        raise UsageError(f"{len(values)} embeddings have {len(code)} subjects.", hint="Name the person of each.")


def _refuse_few(count: int, rate: float, what: str) -> None:
    if not 0 < rate < 1:
        raise UsageError(f"An error rate of {rate} makes no sense.", hint="Give one between 0 and 1.")
    wanted = math.ceil(round(ERRORS_WANTED / rate, 6))
    if count < wanted:
        raise UsageError(
            f"{count} {what} say nothing about a rate of {rate:g}, which needs {wanted}.",
            hint="Give more, or ask for a higher rate.",
        )


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, start + step)
