"""Who is it? Closed and open set identification, and how protection fares in it, by matrix products.

Nothing here sees an image; see `bauta.benchmark.protocols` for verification. A search is exact.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bauta import metrics
from bauta.benchmark.embeddings import (
    Floats,
    Indices,
    blocks,
    checked_embeddings,
    checked_versions,
    coded,
    refuse_lengths,
)
from bauta.benchmark.protocols import Cell
from bauta.errors import UsageError
from bauta.metrics import Interval

#: The ranks that are reported.
RANKS = (1, 5)
#: Cosines of float32 that differ by less are equal: the order of a sum alone changes them by as much.
TIE = 1e-6

_RUN = 256  # columns of scores whose maximum is taken first
_TARGET, _DISTRACTOR = -1, -2  # codes of people in the gallery who are nobody among the probes


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
    one, other = checked_embeddings(probes), checked_embeddings(gallery)
    if not 0 < count <= len(other) or one.shape[1] != other.shape[1]:
        raise UsageError(
            f"{count} of a gallery {other.shape} cannot be found for probes {one.shape}.", hint="Ask for fewer."
        )
    places = np.empty((len(one), count), np.int64)
    scores = np.empty((len(one), count), np.result_type(one, other))
    for rows in blocks(len(one), len(other)):
        block = one[rows] @ other.T
        best = _best(block, count)
        found = np.take_along_axis(block, best, axis=1)
        order = np.lexsort((best, -found), axis=1)
        places[rows], scores[rows] = np.take_along_axis(best, order, 1), np.take_along_axis(found, order, 1)
    return places, scores


def _best(scores: Floats, count: int) -> Indices:
    """(P, count) columns of the highest scores of (P, G), in no order.

    They lie in the `count` runs of columns with the highest maxima, which are much quicker to find.
    """
    runs = scores.shape[1] // _RUN
    columns = np.arange(scores.shape[1])
    if runs > 2 * count:
        maxima = scores[:, : runs * _RUN].reshape(len(scores), runs, _RUN).max(2)
        highest = np.argpartition(maxima, runs - count, axis=1)[:, -count:]
        inside = (highest[:, :, None] * _RUN + np.arange(_RUN)).reshape(len(scores), -1)
        rest = np.broadcast_to(columns[runs * _RUN :], (len(scores), scores.shape[1] - runs * _RUN))
        among = np.concatenate([inside, rest], axis=1)
        scores = np.take_along_axis(scores, among, axis=1)
    else:
        among = np.broadcast_to(columns, scores.shape)
    places = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
    return np.take_along_axis(among, places, axis=1)


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
    found = _ranked(checked_embeddings(probes), probe_subjects, checked_embeddings(gallery), gallery_subjects)
    return ClosedSet(
        {rank: metrics.bootstrap_by_subject(found.rank <= rank, probe_subjects, seed=seed) for rank in ranks},
        len(found.rank),
        len(gallery_subjects),
    )


@dataclass(frozen=True, eq=False)
class Ranks:
    """At which place of the gallery each probe finds its person, and a target; from 1.

    Attributes:
        person: (P,) of the first image of the probe's person; equal scores of others count as behind.
        target: (P,) of the first image of any target; equal scores of others count as ahead. None without targets.
    """

    person: Indices
    target: Indices | None


def identification_ranks(
    clean: ArrayLike,
    protected: ArrayLike,
    subjects: Sequence[Hashable],
    probes: ArrayLike,
    gallery: ArrayLike,
    *,
    targets: ArrayLike | None = None,
    distractors: ArrayLike | None = None,
    everyone: bool = False,
    cells: Sequence[Cell] = tuple(Cell),
) -> dict[Cell, Ranks]:
    """The ranks behind untargeted and targeted success, for each side that may be protected, and for neither.

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
        cells: Which.

    Raises:
        UsageError: when shapes disagree, an image is on both sides, or a probe's person is not in the gallery.
    """
    versions = checked_versions(clean, protected, subjects)
    (code,) = coded(subjects)
    probe, enrolled = np.asarray(probes, np.int64), np.asarray(gallery, np.int64)
    if len(np.intersect1d(probe, enrolled)):
        raise UsageError("An image is a probe and in the gallery.", hint="Search for other images than those enrolled.")
    extra = [
        (checked_embeddings(part), mark)
        for part, mark in ((targets, _TARGET), (distractors, _DISTRACTOR))
        if part is not None
    ]
    if any(part.shape[1] != versions[0].shape[1] for part, _ in extra):
        raise UsageError("Targets or distractors are of another recogniser.", hint="Embed all with one network.")
    labels = np.concatenate([code[enrolled], *(np.full(len(part), mark) for part, mark in extra)])
    galleries = [np.concatenate([version[enrolled], *(part for part, _ in extra)]) for version in versions]
    asked = [_Sought(None, ties_ahead=False)] + ([] if targets is None else [_Sought(_TARGET, ties_ahead=True)])
    result = {}
    for cell in cells:
        probe_side, gallery_side = cell.sides
        person, *target = _rank(
            versions[probe_side][probe],
            code[probe],
            galleries[gallery_side and everyone],
            labels,
            asked,
            own=galleries[gallery_side],
        )
        result[cell] = Ranks(person.rank, target[0].rank if target else None)
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
    one, other = coded(probe_subjects, gallery_subjects)
    refuse_lengths(probes, one)
    refuse_lengths(gallery, other)
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
    for rows in blocks(len(probes), len(gallery)):
        block = probes[rows] @ gallery.T
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
