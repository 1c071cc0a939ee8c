"""Result cards of `bauta.benchmark.adaptive.run`, schema `bauta.adaptive/1`: one for each method, and tables of them.

``adaptive.schema.json`` describes every field. As with the cards of `bauta.benchmark.engine.cards`, the results follow
from the records, cards are written in one piece, and all that may differ when a run is repeated stands in ``run``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from bauta import metrics
from bauta.benchmark.engine.schema import check
from bauta.errors import UsageError
from bauta.files import make_folder, write_atomically

SCHEMA = "bauta.adaptive/1"
NONE = "none"
"""The purifier that does nothing."""
DIGITS = 6

Card = dict[str, Any]

_AGAIN = "Run `bauta bench adaptive` again; it goes on where it stopped."


def summarise(card: Mapping[str, Any], records: Sequence[Card]) -> Card:
    """The field ``results`` of a card, from its records and the thresholds of its judges and attackers.

    Intervals are 95 %, bootstrapped by person. A figure that rests on nothing is None.
    """
    people = [record["subject"] for record in records]
    limits = {judge["name"]: float(judge["threshold"]["cosine"]) for judge in card["judges"]}
    purifiers = list(next(iter(records[0]["judges"].values()))["after"])

    def interval(rows: Sequence[Sequence[float]]) -> Card | None:
        values = np.array(rows, dtype=np.float64)
        values = values[:, ~np.isnan(values).all(0)]
        return None if not values.shape[1] else _plain(metrics.bootstrap_by_subject(values, people))

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


def rounded(value: Any) -> float:
    """A figure as cards keep it."""
    return round(float(value), DIGITS)


def dodged(scores: Mapping[str, Any], after: float, limit: float) -> float:
    """1 when a crop is not matched any more, 0 when it is, NaN when it never was."""
    return float(after < limit) if scores["before"] >= limit else np.nan


def _plain(interval: metrics.Interval) -> Card:
    return {name: rounded(getattr(interval, name)) for name in ("mean", "low", "high")}


@cache
def adaptive_schema() -> dict[str, Any]:
    """The schema of these cards, ``adaptive.schema.json``."""
    text = files("bauta.benchmark").joinpath("adaptive.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def write_card(card: Mapping[str, Any], path: Path) -> None:
    """Write a card, with its schema first and ``complete`` last, in one piece; an earlier one is replaced.

    Raises:
        UsageError: when it does not follow the schema.
        OutputError: when it cannot be written.
    """
    whole = {"schema": SCHEMA, **card, "complete": True}
    check(whole, adaptive_schema(), "card")
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in whole["records"])
    text = json.dumps({**whole, "records": "@records@"}, indent=1, ensure_ascii=False, allow_nan=False)
    make_folder(path.parent)
    write_atomically(path, (text.replace('"@records@"', f"[\n{lines}\n ]") + "\n").encode(), overwrite=True)


def read_card(path: Path) -> Card:
    """A finished card of this schema.

    Raises:
        UsageError: when the file is none: not readable, of another schema, interrupted, or edited.
    """
    try:
        card: Card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read as a card: {error}", hint="Run `bauta bench adaptive` again."
        ) from error
    if not isinstance(card, dict) or card.get("schema") != SCHEMA or card.get("complete") is not True:
        raise UsageError(f"{path} is no complete card of schema {SCHEMA}.", hint="Run `bauta bench adaptive` again.")
    check(card, adaptive_schema(), path.name)
    return card


# Tables

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Header and rows."""


def main_table(cards: Sequence[Card]) -> Table:
    """Each method as newer recognisers see it, and as attackers do who trained on its own photos or on all."""
    kinds = list(dict.fromkeys(one["name"] for card in cards for one in card["attackers"] if one["trained_on"]))
    untrained = next(one["name"] for one in cards[0]["attackers"] if not one["trained_on"])
    first = ("method", "PSNR, SSIM", "newer recognisers", "after the best purifier", f"attacker's own, {untrained}")
    header = first + tuple(f"{kind}, {on}" for kind in kinds for on in ("on it", "on all"))
    rows = []
    for card in cards:
        results = card["results"]
        newer = {name: value["mean"] for name, value in results["newer"].items()}
        purifiers = [name for name in newer if name != NONE and newer[name]]
        best = min(purifiers, key=lambda name: newer[name]["mean"], default=None)
        quality = f"{results['psnr']['mean']:.1f} dB, {results['ssim']['mean']:.3f}" if results["psnr"] else "-"
        attackers = results["attackers"]
        cells = [_percent(attackers[untrained]["dodging"])]
        for kind in kinds:
            for on in (card["row"], "all"):
                found = attackers.get(called(kind, on))
                cells.append("-" if found is None else _percent(found["dodging"]))
        purified = "-" if best is None else f"{_percent(newer[best])} {best.removeprefix('purify-')}"
        rows.append((card["row"], quality, _percent(newer[NONE]), purified, *cells))
    return header, rows


def purifier_table(cards: Sequence[Card]) -> Table:
    """Dodging of newer recognisers after each purifier; the clean row is what the purifier itself does."""
    purifiers = list(cards[0]["results"]["newer"])
    header = ("method", *(name.removeprefix("purify-").replace(NONE, "as it is") for name in purifiers))
    return header, [
        (card["row"], *(_percent(card["results"]["newer"][name]["mean"]) for name in purifiers)) for card in cards
    ]


def attacker_table(cards: Sequence[Card]) -> Table:
    """Every attacker: clean pairs it recognises, false matches on clean crops and on protected ones, and dodging.

    Its false matches are shown as the largest mean over methods: an attacker who matches everybody has not won.
    """
    names = list(cards[0]["results"]["attackers"])
    limits = {called(one["name"], one["trained_on"]): one["threshold"] for one in cards[0]["attackers"]}
    header = (
        "attacker",
        "threshold",
        "clean pairs it knows",
        "false matches, at most",
        *(card["row"] for card in cards),
    )
    rows = []
    for name in names:
        found = [card["results"]["attackers"][name] for card in cards]
        worst = max(one["false_matches"]["mean"] for one in found)
        known = f"{found[0]['recognised_before']} of {cards[0]['results']['pairs']}"
        means = tuple(f"{100 * one['dodging']['mean']:.1f}" if one["dodging"] else "-" for one in found)
        rows.append((name, f"{limits[name]:.3f}", known, f"{100 * worst:.1f}", *means))
    return header, rows


def markdown(table: Table) -> str:
    """A table in Markdown."""
    header, rows = table
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows))


def _percent(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return "-"
    mean, low, high = (100 * interval[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"
