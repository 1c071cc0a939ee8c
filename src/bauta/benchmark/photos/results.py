"""From records, one for each pair of photos, to figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bauta import metrics
from bauta.benchmark.engine.cards import dodged
from bauta.benchmark.identification import RANKS
from bauta.benchmark.protocols import Cell
from bauta.errors import UsageError
from bauta.judging.quality import DIGITS, MEASURES

Record = dict[str, Any]


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
    usable = [record for record in records if not record["failure"]]
    if not usable:
        raise UsageError(
            f"In none of {len(records)} pairs was a face found on both sides: {records[0]['failure']}.",
            hint="Give photos whose faces the detector finds, or crops with face = aligned.",
        )
    people = [record["subject"] for record in usable]
    limits = {judge["name"]: float(judge["threshold"]["cosine"]) for judge in judges}
    independent = [judge["name"] for judge in judges if not judge["attacked"]]

    def interval(rows: Sequence[Sequence[float]]) -> Record | None:
        values = np.array(rows, dtype=np.float64)
        values = values[:, ~np.isnan(values).all(0)]
        if not values.shape[1]:
            return None
        measured = metrics.bootstrap_by_subject(values, people)
        return {name: round(getattr(measured, name), DIGITS) for name in ("mean", "low", "high")}

    def over(value: Callable[[Record], Sequence[float]], names: Sequence[str] = tuple(limits)) -> Record | None:
        return interval([value(record) for record in usable]) if names else None

    def split(value: Callable[[Record, Sequence[str]], Sequence[float]]) -> Record:
        """The mean over judges, over those that were not attacked, and each."""

        def of(names: Sequence[str]) -> Record | None:
            return over(lambda record: value(record, names), names)

        each = {name: of([name]) for name in limits}
        return {"mean": of(list(limits)), "independent": of(independent), "judges": each}

    def dodging(where: str) -> Record:
        return split(lambda record, names: dodged(record, where, {name: limits[name] for name in names}))

    def searched(cell: Cell, who: str, rank: int) -> Record:
        """Untargeted success: the person is not among the first. Targeted: a target is."""

        def success(record: Record, names: Sequence[str]) -> list[float]:
            if "ranks" not in record:
                return [np.nan] * len(names)
            found = [record["ranks"][name][cell.value][who] for name in names]
            return [float(place > rank if who == "person" else place <= rank) for place in found]

        return split(success)

    def matches(field: str) -> Record | None:
        return over(lambda record: [float(record[field][name] >= limit) for name, limit in limits.items()])

    iterations = [record["iterations"] for record in usable if record["iterations"] is not None]
    differences = [record["largest_difference"] for record in usable if record["largest_difference"] is not None]
    found: Record = {
        "pairs": len(records),
        "usable": len(usable),
        "subjects": len(set(people)),
        "recognised_before": {
            name: sum(record["before"][name] >= limit for record in usable) for name, limit in limits.items()
        },
        "dodging": {transport: dodging(transport) for transport in transports},
        "dodging_self": over(lambda record: [float(record["self"][name] < limit) for name, limit in limits.items()]),
        "matches_target": matches("target_after"),
        "matches_target_before": matches("target_before"),
        "detected": {
            transport: over(lambda record, name=transport: [float(record["detected"][name])])  # type: ignore[misc]
            for transport in transports
        },
        "quality": {name: over(lambda record, key=name: [_number(record["quality"].get(key))]) for name in MEASURES},  # type: ignore[misc]
        "largest_difference": max(differences, default=None),
        "iterations": round(float(np.mean(iterations)), DIGITS) if iterations else None,
    }
    if "cells" in usable[0]:
        found["cells"] = {cell.value: dodging(cell) for cell in (Cell.PROBE, Cell.GALLERY, Cell.BOTH)}
    probes = [record for record in usable if "ranks" in record]
    if probes:
        cells = [Cell(name) for name in next(iter(probes[0]["ranks"].values()))]
        found["identification"] = {
            "probes": len(probes),
            "cells": {
                cell.value: {
                    "untargeted": {str(rank): searched(cell, "person", rank) for rank in RANKS},
                    "targeted": {str(rank): searched(cell, "target", rank) for rank in RANKS},
                }
                for cell in cells
            },
        }
    return found


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def still_recognised(record: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """Judges that recognised the person before and still do in the saved photo."""
    after = record["after"]["saved"]
    return [name for name, limit in limits.items() if record["before"][name] >= limit <= after[name]]
