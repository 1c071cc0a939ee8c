"""From the records of an adaptive card to figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference, common_judges, common_records
from bauta.benchmark.engine.figures import mean_of_means

NONE = "none"
"""The purifier that does nothing."""


def summarise(card: Mapping[str, Any], records: Sequence[Card]) -> Card:
    """The field ``results`` of a card, from its records and the thresholds of its judges and attackers.

    Intervals are 95 %, bootstrapped by person. A figure that rests on nothing is None.
    """
    people = [record["subject"] for record in records]
    limits = {judge["name"]: float(judge["threshold"]["cosine"]) for judge in card["judges"]}
    purifiers = list(next(iter(records[0]["judges"].values()))["after"])

    def interval(rows: Sequence[Sequence[float]]) -> Card | None:
        return mean_of_means(rows, people)

    def dodging(names: Sequence[str], purifier: str) -> Card | None:
        return interval(
            [
                [
                    dodged(record["judges"][name], record["judges"][name]["after"][purifier], limits[name])
                    for name in names
                ]
                for record in records
            ]
        )

    attackers = {}
    for attacker in card["attackers"]:
        name = called(attacker["name"], attacker["trained_on"])
        rows = [record["attackers"][name] for record in records]
        attackers[name] = {
            "recognised_before": sum(row["before"] >= attacker["threshold"] for row in rows),
            "dodging": interval([[dodged(row, row["after"], attacker["threshold"])] for row in rows]),
            "false_matches": interval([[row["false"]] for row in rows]),
        }
    return {
        "pairs": len(records),
        "subjects": len(set(people)),
        "psnr": interval([[np.nan if record["psnr"] is None else record["psnr"]] for record in records]),
        "ssim": interval([[record["ssim"]] for record in records]),
        "recognised_before": {
            name: sum(record["judges"][name]["before"] >= limit for record in records) for name, limit in limits.items()
        },
        "false_matches": interval([[record["judges"][name]["false"] for name in limits] for record in records]),
        "newer": {
            purifier: {
                "mean": dodging(list(limits), purifier),
                "judges": {name: dodging([name], purifier) for name in limits},
            }
            for purifier in purifiers
        },
        "attackers": attackers,
    }


def called(name: str, trained_on: str) -> str:
    """An attacker's name in records and results: ``fine-tuning/pgd``."""
    return f"{name}/{trained_on}" if trained_on else name


def dodged(scores: Mapping[str, Any], after: float, limit: float) -> float:
    """1 when a crop is not matched any more, 0 when it is, NaN when it never was."""
    return float(after < limit) if scores["before"] >= limit else np.nan


def compare(first: Card, second: Card) -> list[Difference]:
    """Dodging of newer recognisers after each purifier, and of attackers that are the same in both; and SSIM.

    Raises:
        UsageError: when the cards share no pairs or no judges, or a judge is another or has another threshold.
    """
    both = common_records(first, second, lambda one: (one["subject"], one["protected"], one["reference"]))
    limits = common_judges(first, second)

    def newer(record: Card, purifier: str) -> list[float]:
        scores = record["judges"]
        return [dodged(scores[name], scores[name]["after"][purifier], limit) for name, limit in limits.items()]

    def attacked(record: Card, name: str, limit: float) -> list[float]:
        return [dodged(record["attackers"][name], record["attackers"][name]["after"], limit)]

    found: list[Difference] = []
    for purifier in first["results"]["newer"]:
        if purifier in second["results"]["newer"]:
            found += both.difference(f"dodging, {purifier}", partial(newer, purifier=purifier))
    for attacker in first["attackers"]:
        name, limit = called(attacker["name"], attacker["trained_on"]), attacker["threshold"]
        if any((one["sha256"], one["threshold"]) == (attacker["sha256"], limit) for one in second["attackers"]):
            found += both.difference(f"dodging, {name}", partial(attacked, name=name, limit=limit))
    return found + both.difference("ssim", lambda record: [record["ssim"]])
