"""From records, one for each victim, to figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bauta import metrics
from bauta.benchmark.engine.figures import Figures, mean_by_subject
from bauta.benchmark.stores.recipe import REFERENCES, SYSTEM

Limits = Mapping[str, Mapping[float, Mapping[str, Any]]]
"""By recogniser, or `SYSTEM`, and false match rate: tables with ``cosine``."""


def summarise(records: Sequence[Figures], limits: Limits, recognizer: str, fmrs: Sequence[float]) -> Figures:
    """The fields ``recovery``, ``self_match`` and ``irreversibility`` of a card's results.

    Replay succeeds when the score reaches the threshold. Type I is against the enrolled image, type II against another
    image of the person; at the system against the stored representations of these.

    Args:
        records: The field ``records``.
        limits: Thresholds.
        recognizer: The one under attack; the first of the others gives the identity cosine.
        fmrs: False match rates.
    """
    judges = [name for name in limits if name not in (recognizer, SYSTEM)]
    names = list(dict.fromkeys(name for record in records for name in record["recovered"]))
    ordered = {name: limits[name] for name in (SYSTEM, recognizer, *judges)}
    recovery = {name: _recovery(records, name, ordered, judges[:1], fmrs) for name in names}
    people = [record["subject"] for record in records]
    self_match = {
        judge: {
            f"{fmr:g}": mean_by_subject(
                [record["self"][judge] >= limits[judge][fmr]["cosine"] for record in records], people
            )
            for fmr in fmrs
        }
        for judge in (recognizer, *judges)
    }
    attackers = [name for name in names if name not in REFERENCES]
    strongest = {"fmr": min(fmrs), "by": _strongest(recovery, attackers, f"{min(fmrs):g}")}
    return {"recovery": recovery, "self_match": self_match, "irreversibility": strongest}


def _recovery(
    records: Sequence[Figures], name: str, limits: Limits, first: Sequence[str], fmrs: Sequence[float]
) -> Figures:
    """What one attacker, or a reference, recovered; `first` is the judge of the identity cosine, if there is one."""
    kept = [record for record in records if name in record["recovered"]]
    people = [record["subject"] for record in kept]
    found = [record["recovered"][name] for record in kept]
    errors = np.array([one["mse"] for one in found], np.float64)
    ratios = -10 * np.log10(errors, where=errors > 0, out=np.full(len(errors), -np.inf))
    cosines = {judge: np.array([one["scores"][judge] for one in found], np.float64) for judge in limits}
    return {
        "victims": len(kept),
        "mse": mean_by_subject(errors, people),
        "psnr": mean_by_subject(ratios, people) if np.isfinite(ratios).all() else None,
        "ssim": mean_by_subject([one["ssim"] for one in found], people),
        "identity": mean_by_subject(cosines[first[0]][:, 0], people) if first else None,
        "replay": {
            judge: {
                kind: {
                    f"{fmr:g}": mean_by_subject(cosines[judge][:, place] >= limit[fmr]["cosine"], people)
                    for fmr in fmrs
                }
                for place, kind in enumerate(("type_1", "type_2"))
            }
            for judge, limit in limits.items()
        },
    }


def _strongest(recovery: Figures, attackers: Sequence[str], fmr: str) -> Figures:
    """By recogniser and type of replay, the attacker who succeeds most often."""
    found: Figures = {}
    for judge, kinds in (recovery[attackers[0]]["replay"] if attackers else {}).items():
        for kind in kinds:
            best = max(attackers, key=lambda one: float(recovery[one]["replay"][judge][kind][fmr]["mean"]))
            found[f"{judge}, {kind}"] = {"attacker": best, **recovery[best]["replay"][judge][kind][fmr]}
    return found


def privacy(records: Sequence[Figures], look: str, judge: str) -> Figures:
    """By attacker the composite score and its parts, see `bauta.metrics.composite_privacy`; without attackers nothing.

    Args:
        records: The field ``records``.
        look: Name of the attacker who looks at stored numbers as pictures.
        judge: Gives the identity cosine.
    """
    names = dict.fromkeys(name for record in records for name in record["recovered"])
    others = [name for name in names if name not in (look, *REFERENCES)]
    return {name: _privacy(records, look, name, judge) for name in others} if look in names else {}


def _privacy(records: Sequence[Figures], look: str, attacker: str, judge: str) -> Figures:
    kept = [record for record in records if attacker in record["recovered"] and look in record["recovered"]]
    people = [record["subject"] for record in kept]

    def parts(name: str) -> tuple[metrics.Array, metrics.Array]:
        """SSIM and cosine."""
        found = [record["recovered"][name] for record in kept]
        return (
            np.array([one["ssim"] for one in found], np.float64),
            np.array([one["scores"][judge][0] for one in found], np.float64),
        )

    pictures, recovered = parts(look), parts(attacker)
    scores = {
        "s1": 1 - pictures[0],
        "s2": 1 - pictures[1].clip(0),
        "s3": 1 - recovered[0],
        "s4": 1 - recovered[1].clip(0),
        "score": metrics.composite_privacy(*pictures, *recovered),
    }
    return {name: mean_by_subject(values, people) for name, values in scores.items()}
