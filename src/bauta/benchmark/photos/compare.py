"""Two cards of photos, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bauta import metrics
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.photos.results import dodged
from bauta.benchmark.protocols import Cell
from bauta.errors import UsageError
from bauta.metrics import Interval


@dataclass(frozen=True)
class Difference:
    """One figure of two cards on the pairs that both have.

    Attributes:
        name: The transport, or the measure of quality.
        first: The mean of the first card.
        second: The mean of the second.
        difference: Second less first, pair by pair; the interval resamples people.
        pairs: Pairs it rests on.
    """

    name: str
    first: float
    second: float
    difference: Interval
    pairs: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0


def compare(first: Card, second: Card) -> list[Difference]:
    """Paired differences of dodging success under each common transport, and of quality.

    A pair counts for a judge that recognised the unprotected photo. Judges that a side attacked are left out, unless
    that leaves none.

    Raises:
        UsageError: when the cards share no pairs or no judges, or a judge is another network or has another threshold.
    """
    rows = _common_records(first, second)
    limits = _common_judges(first, second)
    people = [record["subject"] for record in rows[0]]
    found = []
    common: list[str] = [name for name in first["transports"] if name in second["transports"]]
    if all("cells" in record for side in rows for record in side):
        common += [Cell.GALLERY, Cell.BOTH]
    for where in common:
        sides = [np.array([dodged(record, where, limits) for record in side], dtype=np.float64) for side in rows]
        found.append(_difference(f"dodging, {where}", sides[0], sides[1], people))
    for measure in first["results"]["quality"]:
        values = [[record["quality"].get(measure) for record in side] for side in rows]
        pair = [np.array([np.nan if value is None else value for value in side])[:, None] for side in values]
        found.append(_difference(measure, pair[0], pair[1], people))
    return [difference for difference in found if difference is not None]


def _common_records(first: Card, second: Card) -> tuple[list[Any], list[Any]]:
    """The records of the pairs that both cards have, in one order."""
    one, other = (
        {tuple(record["sha256"]): record for record in card["records"] if not record["failure"]}
        for card in (first, second)
    )
    keys = [key for key in one if key in other]
    if not keys:
        raise UsageError(
            f"{first['name']} and {second['name']} share no pairs.", hint="Compare rows that ran on the same photos."
        )
    return [one[key] for key in keys], [other[key] for key in keys]


def _common_judges(first: Card, second: Card) -> dict[str, float]:
    sides = [{judge["name"]: judge for judge in card["judges"]} for card in (first, second)]
    names = [name for name in sides[0] if name in sides[1]]
    for name in names:
        one, other = sides[0][name], sides[1][name]
        if one["sha256"] != other["sha256"] or one["threshold"]["cosine"] != other["threshold"]["cosine"]:
            raise UsageError(
                f"{name} is not the same judge in both cards.",
                hint="Compare cards of one set of weights and thresholds.",
            )
    kept = [name for name in names if not any(side[name]["attacked"] for side in sides)] or names
    if not kept:
        raise UsageError("The cards share no judge.", hint="Compare rows with the same judges.")
    return {name: sides[0][name]["threshold"]["cosine"] for name in kept}


def _difference(name: str, first: metrics.Array, second: metrics.Array, people: Sequence[str]) -> Difference | None:
    """None when a judge, or the measure, has no value on both sides."""
    both = ~(np.isnan(first) | np.isnan(second))
    columns = both.any(0)
    if not columns.any():
        return None
    one, other = (np.where(both, side, np.nan)[:, columns] for side in (first, second))
    interval = metrics.bootstrap_by_subject(other - one, people)
    means = [float(np.nanmean(side, axis=0).mean()) for side in (one, other)]
    return Difference(name, means[0], means[1], interval, int(both.any(1).sum()))
