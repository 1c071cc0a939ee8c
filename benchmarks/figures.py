"""What several benchmarks share: people of no table, how well they are told apart, and how figures are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta import metrics
from bauta.benchmark.stores.representations import Faces
from bauta.templates.fit import as_images


def faces_of(people: Faces, each: int, others: int) -> tuple[Tensor, NDArray[np.bool_]]:
    """Up to `each` faces of everybody with several and one of `others` more, in [0, 1], and which are of one person."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(people.subjects):
        found.setdefault(name, []).append(place)
    several = [place for places in found.values() if len(places) > 1 for place in places[:each]]
    places = several + [places[0] for places in found.values() if len(places) == 1][:others]
    names = np.array([people.subjects[place] for place in places])
    return as_images(people.pixels[torch.tensor(places)]), names[:, None] == names


def _sides(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Genuine and impostor scores of a matrix, without faces against themselves."""
    return scores[same & ~np.eye(len(same), dtype=bool)], scores[~same]


def d_prime(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The distance of the means of genuine and impostor scores, in root mean squares of their deviations."""
    genuine, impostor = _sides(scores, same)
    return float((genuine.mean() - impostor.mean()) / np.sqrt((genuine.var() + impostor.var()) / 2))


def accuracy(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[float, float]:
    """1 - half total error rate at the best threshold, and true accepts at FMR 1e-2, of a matrix of scores."""
    genuine, impostor = _sides(scores, same)
    limits = np.quantile(impostor, np.linspace(0.5, 0.9999, 500))
    best = max(float((genuine >= one).mean() + (impostor < one).mean()) / 2 for one in limits)
    return best, float((genuine >= metrics.threshold_at_fmr(impostor, 0.01)).mean())


def keep(figures: Mapping[str, Any], output: Path | None) -> None:
    """Print figures, and write them where that is asked for."""
    text = json.dumps(figures, indent=2)
    print(text)
    if output:
        output.write_text(text + "\n", encoding="utf-8")
