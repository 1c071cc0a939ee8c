"""Result cards for people: a table, in plain text and Markdown, and a page with plots that needs nothing else.

The page fetches no script, font or picture, and its content security policy forbids it. Plots are drawn as SVG from the
similarities that cards keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from bauta.benchmark.cards import Card
from bauta.errors import UsageError

Interval = Mapping[str, float]

HEADER = ("row", "pairs", "dodging", "worst judge", "matches a target (before)", "PSNR", "SSIM")
BINS = 40
_FAILURES = 12  # of each card that the page lists


def rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """The table's cells, in the order of `HEADER` and then of the transports that all cards share.

    Percent with 95 % intervals. Dodging is of the saved photo, the mean of judges that the row did not attack; where
    it attacked all, of all, with an asterisk. PSNR and SSIM are those of the saved photo's face.

    Raises:
        UsageError: when there is no card.
    """
    if not cards:
        raise UsageError("There are no result cards.", hint="Give at least one.")
    return [(_label(card, cards), *_cells(card)) for card in cards]


def note(cards: Sequence[Card]) -> list[str]:
    """What readers of the table must know, each once."""
    notes = [f"{card['name']}: {card['note']}" if card["evidence"] else card["note"] for card in cards if card["note"]]
    if any(card["results"]["dodging"]["saved"]["independent"] is None for card in cards):
        notes.append("* All judges of this row were attacked by it: no independent one was asked.")
    if len({card["data"]["sha256"] for card in cards}) > 1:
        notes.append("The rows are of different photos: compare them with care, or with `bauta bench compare`.")
    if any(card["compared_with"] != "another photo" for card in cards):
        notes.append("Without other photos of the people, photos are compared with their own originals.")
    return list(dict.fromkeys(notes))


def markdown(cards: Sequence[Card]) -> str:
    """The table for a README: `rows`, with a column for each further transport that all cards share."""
    further = _further(cards)
    lines = ["| " + " | ".join([*HEADER, *further]) + " |", "|" + "---|" * (len(HEADER) + len(further))]
    for card, cells in zip(cards, rows(cards), strict=True):
        more = [percent(_headline(card, name)) for name in further]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (*cells, *more)) + " |")
    return "\n".join([*lines, *(f"\n{text}" for text in note(cards))])


def percent(interval: Interval | None) -> str:
    """A share with its interval, in percent."""
    if interval is None:
        return "-"
    return f"{100 * interval['mean']:.1f} ({100 * interval['low']:.1f}-{100 * interval['high']:.1f})"


def to_html(cards: Sequence[Card]) -> str:
    """The page, complete in itself.

    Raises:
        UsageError: when there is no card.
    """
    import jinja2

    table = rows(cards)
    source = resources.files("bauta.benchmark").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)
    further = _further(cards)
    return page.render(
        cards=cards,
        header=(*HEADER, *further),
        table=[
            (*cells, *(percent(_headline(card, name)) for name in further))
            for card, cells in zip(cards, table, strict=True)
        ],
        notes=note(cards),
        curve=_curve(cards),
        details=[_detail(card, cards) for card in cards],
        percent=percent,
    )


def _label(card: Card, cards: Sequence[Card]) -> str:
    """The row's own name where all are of one recipe."""
    recipes = {other["recipe"] for other in cards}
    name: str = card["name"]
    return name.partition("/")[2] if len(recipes) == 1 and "/" in name else name


def _cells(card: Card) -> tuple[str, ...]:
    results = card["results"]
    saved = results["dodging"]["saved"]
    star = "*" if saved["independent"] is None and saved["mean"] is not None else ""
    asked = [judge["name"] for judge in card["judges"] if star or not judge["attacked"]]
    judged = {name: saved["judges"][name] for name in asked if saved["judges"][name] is not None}
    worst = min(judged, key=lambda name: judged[name]["mean"], default=None)
    after, before = results["matches_target"], results["matches_target_before"]
    quality = results["quality"]
    ratio, similarity = quality["psnr_saved"], quality["ssim_saved"]
    return (
        f"{results['usable']} of {results['pairs']}",
        percent(_headline(card, "saved")) + star,
        "-" if worst is None else f"{worst} {percent(judged[worst])}",
        "-" if after is None else f"{100 * after['mean']:.1f} ({100 * before['mean']:.1f})",
        "-" if ratio is None else f"{ratio['mean']:.1f} dB",
        "-" if similarity is None else f"{similarity['mean']:.3f}",
    )


def _headline(card: Card, transport: str) -> Interval | None:
    dodging = card["results"]["dodging"][transport]
    found: Interval | None = dodging["mean"] if dodging["independent"] is None else dodging["independent"]
    return found


def _further(cards: Sequence[Card]) -> list[str]:
    return [
        name for name in cards[0]["transports"] if name != "saved" and all(name in card["transports"] for card in cards)
    ]


# Plots


@dataclass(frozen=True)
class Point:
    """A row in the plot of success against SSIM; lengths are shares of the plot's sides, from its lower left corner.

    Attributes:
        label: Of the row.
        x: SSIM.
        y: Dodging success.
        left: Lower end of SSIM's interval.
        right: Upper end.
        low: Lower end of the success' interval.
        high: Upper end.
    """

    label: str
    x: float
    y: float
    left: float
    right: float
    low: float
    high: float


def _curve(cards: Sequence[Card]) -> dict[str, Any] | None:
    """None when no card has both figures."""
    found = []
    for card in cards:
        similarity, success = card["results"]["quality"]["ssim_saved"], _headline(card, "saved")
        if similarity is not None and success is not None:
            found.append((_label(card, cards), similarity, success))
    if not found:
        return None
    start = math.floor(20 * min(similarity["low"] for _, similarity, _ in found)) / 20
    start = min(max(start, -1.0), 0.95)

    def place(value: float) -> float:
        return float((value - start) / (1 - start))

    points = [
        Point(
            label,
            place(similarity["mean"]),
            success["mean"],
            place(similarity["low"]),
            place(similarity["high"]),
            success["low"],
            success["high"],
        )
        for label, similarity, success in found
    ]
    return {
        "points": points,
        "ticks": [(share, f"{start + share * (1 - start):.2f}") for share in (0, 0.25, 0.5, 0.75, 1)],
    }


def _detail(card: Card, cards: Sequence[Card]) -> dict[str, Any]:
    """What the page shows of one card beside the table."""
    usable = [record for record in card["records"] if not record["failure"]]
    failures = [record for record in card["records"] if record["failure"]]
    limits = {judge["name"]: judge["threshold"]["cosine"] for judge in card["judges"]}
    still = [
        (record, [name for name, limit in limits.items() if record["after"]["saved"][name] >= limit])
        for record in usable
        if any(record["before"][name] >= limit <= record["after"]["saved"][name] for name, limit in limits.items())
    ]
    return {
        "card": card,
        "label": _label(card, cards),
        "histograms": [_similarities(judge, usable) for judge in card["judges"]],
        "failures": failures[:_FAILURES],
        "more_failures": max(0, len(failures) - _FAILURES),
        "still": [(record["protected"], names) for record, names in still[:_FAILURES]],
        "still_count": len(still),
        "examples": [(card["records"][example["record"]]["protected"], example) for example in card["examples"]],
    }


def _similarities(judge: Mapping[str, Any], usable: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Histograms of a judge on an axis that ends at 1 and begins below all there is to see."""
    name, limit = judge["name"], judge["threshold"]["cosine"]
    before = [record["before"][name] for record in usable]
    after = [record["after"]["saved"][name] for record in usable]
    low = max(-1.0, math.floor(10 * min(*before, *after, limit) - 0.5) / 10)

    def heights(values: Sequence[float]) -> list[float]:
        counts = np.histogram(np.clip(values, low, 1), BINS, (low, 1))[0]
        shares: list[float] = (counts / counts.max()).round(4).tolist()
        return shares

    return {
        "judge": judge,
        "before": heights(before),
        "after": heights(after),
        "limit": (limit - low) / (1 - low),
        "ticks": [(share, f"{low + share * (1 - low):.2f}") for share in (0, 0.5, 1)],
    }
