"""From records, one for each pair of photos, to figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference, common_judges, common_records
from bauta.benchmark.engine.figures import mean_of_means, rounded
from bauta.benchmark.identification import RANKS
from bauta.benchmark.protocols import Cell
from bauta.errors import UsageError
from bauta.judging.quality import MEASURES

Record = dict[str, Any]


def usable(records: Sequence[Record]) -> list[Record]:
    """Those of pairs in which a face was found on both sides.

    Raises:
        UsageError: when there is none.
    """
    found = [record for record in records if not record["failure"]]
    if not found:
        raise UsageError(
            f"In none of {len(records)} pairs was a face found on both sides: {records[0]['failure']}.",
            hint="Give photos whose faces the detector finds, or crops with face = aligned.",
        )
    return found


def summarise(records: Sequence[Record], judges: Sequence[Mapping[str, Any]], transports: Sequence[str]) -> Record:
    """The field ``results`` of a card.

    A pair counts for a judge that recognised the unprotected photo, and dodges when the similarity falls below that
    judge's threshold. Means are over judges of their means over pairs. A figure that rests on nothing is None.
    ``cells`` is there when both photos were protected, ``identification`` when a gallery was searched: there all probes
    count, recognised before or not, and the cell ``unprotected`` says what they find without protection.

    Args:
        records: The field ``records``.
        judges: The field ``judges``.
        transports: The field ``transports``.

    Raises:
        UsageError: when no face was found in any photo.
    """
    kept = usable(records)
    limits = {judge["name"]: float(judge["threshold"]["cosine"]) for judge in judges}
    means = _Means(kept, limits, [judge["name"] for judge in judges if not judge["attacked"]])
    iterations = _known(kept, "iterations")
    found: Record = {
        "pairs": len(records),
        "usable": len(kept),
        "subjects": len(set(means.people)),
        "recognised_before": {
            name: sum(record["before"][name] >= limit for record in kept) for name, limit in limits.items()
        },
        "dodging": {transport: means.dodging(transport) for transport in transports},
        "dodging_self": means.below("self"),
        "matches_target": means.matches("target_after"),
        "matches_target_before": means.matches("target_before"),
        "detected": {
            transport: means.over(lambda record, name=transport: [float(record["detected"][name])])  # type: ignore[misc]
            for transport in transports
        },
        "quality": {
            name: means.over(lambda record, key=name: [number(record["quality"].get(key))])  # type: ignore[misc]
            for name in MEASURES
        },
        "largest_difference": max(_known(kept, "largest_difference"), default=None),
        "iterations": rounded(np.mean(iterations)) if iterations else None,
    }
    if "cells" in kept[0]:
        found["cells"] = {cell.value: means.dodging(cell) for cell in (Cell.PROBE, Cell.GALLERY, Cell.BOTH)}
    probes = [record for record in kept if "ranks" in record]
    if probes:
        found["identification"] = {
            "probes": len(probes),
            "cells": {name: means.identification(Cell(name)) for name in next(iter(probes[0]["ranks"].values()))},
        }
    joined = [record for record in kept if "joined" in record]
    if joined:
        photos = [place for record in joined for place in next(iter(record["joined"].values())) if place is not None]
        found["snowball"] = {"photos": len(photos), "first": means.joined(1), "last": means.joined(None)}
    return found


class _Means:
    """Means over judges of their means over pairs, with intervals by subject.

    Args:
        usable: Records of pairs in which a face was found on both sides.
        limits: Thresholds of the judges.
        independent: Names of those that were not attacked.
    """

    def __init__(self, usable: Sequence[Record], limits: Mapping[str, float], independent: Sequence[str]) -> None:
        self.usable, self.limits, self.independent = usable, limits, independent
        self.people = [record["subject"] for record in usable]

    def over(self, value: Callable[[Record], Sequence[float]]) -> Record | None:
        """Of some values of each record; NaN is left out, and None is what rests on nothing."""
        return mean_of_means([value(record) for record in self.usable], self.people)

    def split(self, value: Callable[[Record, Sequence[str]], Sequence[float]]) -> Record:
        """The mean over judges, over those that were not attacked, and each."""

        def of(names: Sequence[str]) -> Record | None:
            return self.over(lambda record: value(record, names)) if names else None

        each = {name: of([name]) for name in self.limits}
        return {"mean": of(list(self.limits)), "independent": of(self.independent), "judges": each}

    def dodging(self, where: str) -> Record:
        """Of a transport, or of a cell."""
        return self.split(lambda record, names: dodged(record, where, {name: self.limits[name] for name in names}))

    def below(self, field: str) -> Record | None:
        """How often a similarity is below the threshold."""
        return self.over(lambda record: [float(record[field][name] < limit) for name, limit in self.limits.items()])

    def matches(self, field: str) -> Record | None:
        """How often the target is matched."""
        return self.over(lambda record: [float(record[field][name] >= limit) for name, limit in self.limits.items()])

    def identification(self, cell: Cell) -> Record:
        """Untargeted success: the person is not among the first. Targeted: a target is."""
        return {
            "untargeted": {str(rank): self._searched(cell, "person", rank) for rank in RANKS},
            "targeted": {str(rank): self._searched(cell, "target", rank) for rank in RANKS},
        }

    def joined(self, rounds: int | None) -> Record:
        """How many protected photos a snowball recognises, in its first rounds or in all."""

        def share(record: Record, names: Sequence[str]) -> list[float]:
            if "joined" not in record:
                return [np.nan] * len(names)
            return [
                float(
                    np.mean([0 < place <= (rounds or np.inf) for place in record["joined"][name] if place is not None])
                )
                for name in names
            ]

        return self.split(share)

    def _searched(self, cell: Cell, who: str, rank: int) -> Record:
        def success(record: Record, names: Sequence[str]) -> list[float]:
            if "ranks" not in record:
                return [np.nan] * len(names)
            found = [record["ranks"][name][cell.value][who] for name in names]
            return [float(place > rank if who == "person" else place <= rank) for place in found]

        return self.split(success)


def _known(records: Sequence[Record], field: str) -> list[float]:
    return [record[field] for record in records if record[field] is not None]


def number(value: float | None) -> float:
    """NaN for what has no value."""
    return np.nan if value is None else value


def still_recognised(record: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """Judges that recognised the person before and still do in the saved photo."""
    after = record["after"]["saved"]
    return [name for name, limit in limits.items() if record["before"][name] >= limit <= after[name]]


def dodged(record: Mapping[str, Any], where: str, limits: Mapping[str, float]) -> list[float]:
    """For each judge 1 when it no longer matches the photos, 0 when it does, NaN when it never did.

    Args:
        record: Of a pair.
        where: A transport, or a cell of `bauta.benchmark.protocols.Cell`.
        limits: Thresholds of the judges.
    """
    scores = similarities(record, where)
    return [
        float(scores[name] < limit) if record["before"][name] >= limit else np.nan for name, limit in limits.items()
    ]


def similarities(record: Mapping[str, Any], where: str) -> Mapping[str, float]:
    """What judges say of a pair after a transport, or in a cell: by name."""
    if where == Cell.NEITHER:
        before: Mapping[str, float] = record["before"]
        return before
    if where in (Cell.GALLERY, Cell.BOTH):
        return {name: scores[where] for name, scores in record["cells"].items()}
    after: Mapping[str, Mapping[str, float]] = record["after"]
    return after["saved" if where == Cell.PROBE else where]


def compare(first: Card, second: Card) -> list[Difference]:
    """Dodging under each common transport, and quality; a pair counts for a judge that recognised it before.

    Raises:
        UsageError: when the cards share no pairs or no judges, or a judge is another or has another threshold.
    """
    both = common_records(first, second, lambda one: None if one["failure"] else tuple(one["sha256"]))
    limits = common_judges(first, second)
    common: list[str] = [name for name in first["transports"] if name in second["transports"]]
    if all("cells" in record for record in (*both.first, *both.second)):
        common += [Cell.GALLERY, Cell.BOTH]
    found: list[Difference] = []
    for where in common:
        found += both.difference(f"dodging, {where}", partial(dodged, where=where, limits=limits))
    for measure in first["results"]["quality"]:
        found += both.difference(measure, lambda record, name=measure: [number(record["quality"].get(name))])  # type: ignore[misc]
    return found
