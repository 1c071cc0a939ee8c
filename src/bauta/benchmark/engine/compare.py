"""Two cards record by record: what families of tables share of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bauta import metrics
from bauta.benchmark.engine.cards import Card
from bauta.errors import UsageError
from bauta.metrics import Interval


@dataclass(frozen=True)
class Difference:
    """One figure of two cards on the pairs of photos, or the people, that both have.

    Attributes:
        name: Of the figure.
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
    def equal(self) -> bool:
        """Whether it is the same for every pair."""
        return self.first == self.second and self.difference.low == self.difference.high == 0

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0


Values = Callable[[Card], Sequence[float]]
"""Values of a record; NaN where there is none."""


@dataclass(frozen=True)
class Both:
    """The records that two cards have in common.

    Attributes:
        first: Of the first card.
        second: Of the second, in the same order.
    """

    first: Sequence[Card]
    second: Sequence[Card]

    def difference(self, name: str, values: Values, others: Values | None = None) -> list[Difference]:
        """Of some values of each record, or others of those of the second card; nothing where one side has none."""
        sides = ((self.first, values), (self.second, others or values))
        one, other = (np.array([of(record) for record in records], np.float64) for records, of in sides)
        both = ~(np.isnan(one) | np.isnan(other))
        columns = both.any(0)
        if not columns.any():
            return []
        one, other = (np.where(both, side, np.nan)[:, columns] for side in (one, other))
        interval = metrics.bootstrap_by_subject(other - one, [record["subject"] for record in self.first])
        means = [float(np.nanmean(side, axis=0).mean()) for side in (one, other)]
        return [Difference(name, means[0], means[1], interval, int(both.any(1).sum()))]


def common_records(first: Card, second: Card, unit: Callable[[Card], Hashable | None]) -> Both:
    """The records that both cards have, by what they are of; those of None are left out.

    Raises:
        UsageError: when there are none.
    """
    one, other = ({unit(record): record for record in card["records"]} for card in (first, second))
    keys = [key for key in one if key is not None and key in other]
    if not keys:
        raise UsageError(
            f"{first['name']} and {second['name']} share no pairs.", hint="Compare rows that ran on the same photos."
        )
    return Both([one[key] for key in keys], [other[key] for key in keys])


def common_judges(first: Card, second: Card) -> dict[str, float]:
    """Thresholds of the judges that both cards have; those that a row attacked are left out, unless that leaves none.

    Raises:
        UsageError: when there are none, or a judge is another network or has another threshold.
    """
    sides: list[dict[str, Any]] = [{judge["name"]: judge for judge in card["judges"]} for card in (first, second)]
    names = [name for name in sides[0] if name in sides[1]]
    for name in names:
        one, other = sides[0][name], sides[1][name]
        if one["sha256"] != other["sha256"] or one["threshold"]["cosine"] != other["threshold"]["cosine"]:
            raise UsageError(
                f"{name} is not the same judge in both cards.",
                hint="Compare cards of one set of weights and thresholds.",
            )
    kept = [name for name in names if not any(side[name].get("attacked") for side in sides)] or names
    if not kept:
        raise UsageError("The cards share no judge.", hint="Compare rows with the same judges.")
    return {name: float(sides[0][name]["threshold"]["cosine"]) for name in kept}
