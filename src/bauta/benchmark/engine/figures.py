"""Figures as cards keep them: plain values with six digits, means with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bauta import metrics
from bauta.judging.quality import DIGITS

Figures = dict[str, Any]


def rounded(value: Any) -> float:
    """A number."""
    return round(float(value), DIGITS)


def plain(interval: metrics.Interval) -> Figures:
    """An interval."""
    return {name: rounded(getattr(interval, name)) for name in ("mean", "low", "high")}


def mean_by_subject(values: Any, people: Sequence[str]) -> Figures:
    """The mean of (N,) values with its 95 % interval, bootstrapped by person."""
    return plain(metrics.bootstrap_by_subject(np.asarray(values, np.float64), people))


def mean_of_means(values: Any, people: Sequence[str]) -> Figures | None:
    """The same of (N, J): the mean over judges of their means; NaN is left out, and None is what rests on nothing."""
    found = np.asarray(values, np.float64)
    found = found[:, ~np.isnan(found).all(0)]
    return mean_by_subject(found, people) if found.shape[1] else None
