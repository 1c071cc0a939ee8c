"""From records, one for each victim, to figures with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bauta import metrics
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference, common_records
from bauta.benchmark.engine.figures import Figures, mean_by_subject
from bauta.benchmark.stores.recipe import REFERENCES, SYSTEM
from bauta.errors import UsageError

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


def compare(first: Card, second: Card) -> list[Difference]:
    """What each common attacker recovers of the victims: SSIM, and replay at the system and at common judges.

    Replay is of type I, at the lowest false match rate that both cards have.

    Raises:
        UsageError: when the cards share no victims or false match rates, or a judge has another threshold.
    """
    both = common_records(first, second, lambda record: str(record["subject"]))
    common = set(first["fmrs"]) & set(second["fmrs"])
    if not common:
        raise UsageError("The cards share no false match rate.", hint="Compare rows of one recipe.")
    limits, others = (_limits_at(min(common), card) for card in (first, second))
    judges = [name for name in limits if name in others and name != SYSTEM]
    if changed := [name for name in judges if limits[name] != others[name]]:
        raise UsageError(
            f"{changed[0]} has another threshold in the second card.", hint="Compare cards of one set of thresholds."
        )
    found: list[Difference] = []
    for name in dict.fromkeys(name for record in both.first for name in record["recovered"]):
        found += both.difference(f"SSIM, {name}", partial(_similar, name=name))
        for where, at in (("the system", [SYSTEM]), ("judges", judges)):
            found += both.difference(
                f"replay at {where}, {name}",
                partial(_replayed, name=name, limits={one: limits[one] for one in at}),
                partial(_replayed, name=name, limits={one: others[one] for one in at}),
            )
    return found


def _limits_at(fmr: float, card: Card) -> dict[str, float]:
    return {
        name: float(limit["cosine"])
        for name, limits in card["thresholds"].items()
        for limit in limits
        if limit["fmr"] == fmr
    }


def _similar(record: Card, name: str) -> list[float]:
    return [record["recovered"].get(name, {}).get("ssim", math.nan)]


def _replayed(record: Card, name: str, limits: Mapping[str, float]) -> list[float]:
    if name not in record["recovered"]:
        return [math.nan] * len(limits)
    scores = record["recovered"][name]["scores"]
    return [float(scores[one][0] >= limit) for one, limit in limits.items()]
