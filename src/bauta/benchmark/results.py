"""From records, one for each pair of photos, to figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bauta import metrics
from bauta.benchmark.cards import dodged
from bauta.errors import UsageError

DIGITS = 6
"""Similarities and figures are kept to so many digits; the results are computed from what is kept."""

_QUALITY = ("psnr", "ssim", "psnr_saved", "ssim_saved")

Record = dict[str, Any]


def summarise(records: Sequence[Record], judges: Sequence[Mapping[str, Any]], transports: Sequence[str]) -> Record:
    """The field ``results`` of a card.

    A pair counts for a judge that recognised the unprotected photo, and dodges when the similarity falls below that
    judge's threshold. Means are over judges of their means over pairs. A figure that rests on nothing is None.

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
        found = metrics.bootstrap_by_subject(values, people)
        return {name: round(getattr(found, name), DIGITS) for name in ("mean", "low", "high")}

    def over(value: Callable[[Record], Sequence[float]]) -> Record | None:
        return interval([value(record) for record in usable])

    def dodging(transport: str, names: Sequence[str]) -> Record | None:
        chosen = {name: limits[name] for name in names}
        return over(lambda record: dodged(record, transport, chosen))

    def matches(field: str) -> Record | None:
        return over(lambda record: [float(record[field][name] >= limit) for name, limit in limits.items()])

    iterations = [record["iterations"] for record in usable if record["iterations"] is not None]
    differences = [record["largest_difference"] for record in usable if record["largest_difference"] is not None]
    return {
        "pairs": len(records),
        "usable": len(usable),
        "subjects": len(set(people)),
        "recognised_before": {
            name: sum(record["before"][name] >= limit for record in usable) for name, limit in limits.items()
        },
        "dodging": {
            transport: {
                "mean": dodging(transport, list(limits)),
                "independent": dodging(transport, independent) if independent else None,
                "judges": {name: dodging(transport, [name]) for name in limits},
            }
            for transport in transports
        },
        "dodging_self": over(lambda record: [float(record["self"][name] < limit) for name, limit in limits.items()]),
        "matches_target": matches("target_after"),
        "matches_target_before": matches("target_before"),
        "detected": {
            transport: over(lambda record, name=transport: [float(record["detected"][name])])  # type: ignore[misc]
            for transport in transports
        },
        "quality": {name: over(lambda record, key=name: [_number(record["quality"].get(key))]) for name in _QUALITY},  # type: ignore[misc]
        "largest_difference": max(differences, default=None),
        "iterations": round(float(np.mean(iterations)), DIGITS) if iterations else None,
    }


def _number(value: float | None) -> float:
    return np.nan if value is None else value
