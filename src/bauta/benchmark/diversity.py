"""Which recognisers fail on different faces: teams by focal diversity, as Chameleon chooses whom to attack.

A sample is the search for one photo of a person among one photo of everybody; a recogniser fails when another person is
nearer. EnsembleBench (Wu et al. 2021) defines focal diversity on such failures, see `bauta.metrics.focal_diversity`;
that a failure is a wrong rank-1, and that all failures count instead of three draws of a hundred, is our reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bauta.benchmark.recognition import embed_aligned
from bauta.data.datasets import read_people
from bauta.data.images import FaceImage
from bauta.errors import UsageError
from bauta.metrics import focal_diversity
from bauta.progress import Progress, silent, steps_of
from bauta.recognizers import RecognizerCard, load_judge

MOST_EACH = 5
"""Probes of each person."""


@dataclass(frozen=True)
class Team:
    """A team of recognisers.

    Attributes:
        members: Their names.
        diversity: Focal, 1 when no two ever fail together; None when none of them fails.
    """

    members: tuple[str, ...]
    diversity: float | None


@dataclass(frozen=True)
class Diversity:
    """What was found.

    Attributes:
        probes: How many were searched for.
        people: Among how many.
        failures: Of each recogniser.
        teams: Of all sizes asked for, the most diverse first.
    """

    probes: int
    people: int
    failures: Mapping[str, int]
    teams: tuple[Team, ...]


def diversity(
    recognizers: Sequence[RecognizerCard],
    folder: Path,
    *,
    sizes: Sequence[int] = (2, 3, 4),
    progress: Progress = silent,
) -> Diversity:
    """Search for people with each recogniser, and compare where they fail.

    Args:
        recognizers: The pool.
        folder: ``person/image``, aligned crops of 112 pixels; people with one photo are strangers in the gallery.
        sizes: Of the teams.
        progress: Called with (stage, done, total).

    Raises:
        UsageError: when a team is larger than the pool, or no person has two photos.
    """
    if not sizes or min(sizes) < 2 or min(sizes) > len(recognizers):
        raise UsageError(
            f"There are {len(recognizers)} recognisers for teams of {', '.join(map(str, sizes))}.",
            hint="Teams have two members or more; name more recognisers.",
        )
    people = read_people(folder)
    photos: dict[str, list[FaceImage]] = {}
    for subject, image in zip(people.subjects, people.images, strict=True):
        photos.setdefault(subject, []).append(image)
    gallery = [images[0] for images in photos.values()]
    probes = [image for images in photos.values() for image in images[1 : 1 + MOST_EACH]]
    mine = np.array([row for row, images in enumerate(photos.values()) for _ in images[1 : 1 + MOST_EACH]])
    if not probes or len(gallery) < 2:
        raise UsageError(f"{folder} has no two people of whom one has two photos.", hint="Give more photos.")
    failed: dict[str, NDArray[np.bool_]] = {}
    for card in recognizers:
        seen = embed_aligned(load_judge(card), [*gallery, *probes], steps_of(progress, card.name)).values
        nearest = (seen[len(gallery) :] @ seen[: len(gallery)].T).argmax(1)
        failed[card.name] = nearest != mine
    teams = [
        Team(members, _diversity([failed[name] for name in members]))
        for size in sizes
        for members in combinations(failed, size)
    ]
    teams.sort(key=lambda team: 1.0 if team.diversity is None else -team.diversity)
    counts = {name: int(one.sum()) for name, one in failed.items()}
    return Diversity(len(probes), len(gallery), counts, tuple(teams))


def _diversity(failures: Sequence[NDArray[np.bool_]]) -> float | None:
    together = np.stack(failures)
    return round(focal_diversity(together), 4) if together.any() else None
