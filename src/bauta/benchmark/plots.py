"""What the pages draw: success or loss against SSIM, histograms of similarities, detection error trade-offs.

Every function gives plain numbers as shares of a plot's sides, from its lower left corner; the template scales them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from bauta.benchmark.engine.cards import Card
from bauta.benchmark.protocols import Cell

BINS = 40
_LOWEST = 1e-4  # false match rate at which the axis of a trade-off may begin


@dataclass(frozen=True)
class Point:
    """A row in a plot of two figures; lengths are shares of the plot's sides, from its lower left corner.

    Attributes:
        label: Of the row.
        x: The figure across.
        y: The figure upwards.
        left: Lower end of the interval across.
        right: Upper end.
        low: Lower end of the interval upwards.
        high: Upper end.
        label_y: Where the label stands.
    """

    label: str
    x: float
    y: float
    left: float
    right: float
    low: float
    high: float
    label_y: float = 0.0


def success_against_ssim(
    cards: Sequence[Card], labels: Sequence[str], headlines: Sequence[Any]
) -> dict[str, Any] | None:
    """Points of `Point` and ticks of the axis; None when no card has both figures.

    Labels of points that lie close together are moved apart.

    Args:
        cards: The cards.
        labels: Of each.
        headlines: Dodging success of each, an interval or None.
    """
    found = []
    for card, label, success in zip(cards, labels, headlines, strict=True):
        similarity = card["results"]["quality"]["ssim_saved"]
        if similarity is not None and success is not None:
            found.append((label, similarity, success))
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
        "points": _apart(points),
        "ticks": [(share, f"{start + share * (1 - start):.2f}") for share in (0, 0.25, 0.5, 0.75, 1)],
    }


def recovery_against_loss(found: Sequence[tuple[str, float, Mapping[str, float]]], mean_face: float) -> dict[str, Any]:
    """Points of `Point`, ticks of both axes and the height of the mean face.

    Across are points of accuracy lost, as square roots, so that rows that lose much leave room for those that do not.

    Args:
        found: Of each row its label, points of accuracy lost, and an interval of SSIM.
        mean_face: SSIM of the mean face.
    """
    start = _root(min(-1.0, *(lost for _, lost, _ in found)))
    width = _root(max(2.0, *(lost for _, lost, _ in found))) - start
    tenths = math.floor(10 * min(mean_face, *(seen["low"] for _, _, seen in found)))

    def across(lost: float) -> float:
        return (_root(lost) - start) / width

    def upwards(similarity: float) -> float:
        return (10 * similarity - tenths) / (10 - tenths)

    points = [
        Point(label, x, upwards(seen["mean"]), x, x, upwards(seen["low"]), upwards(seen["high"]))
        for label, x, seen in ((label, across(lost), seen) for label, lost, seen in found)
    ]
    return {
        "points": _apart(points),
        "ticks": [(across(lost), f"{lost:g}") for lost in (-1, 0, 1, 2, 5, 10, 20, 50) if 0 <= across(lost) <= 1],
        "heights": [(upwards(tenth / 10), f"{tenth / 10:g}") for tenth in range(tenths, 11)],
        "mean_face": upwards(mean_face),
    }


def _root(value: float) -> float:
    return math.copysign(math.sqrt(abs(value)), value)


def _apart(points: Sequence[Point]) -> list[Point]:
    """The points with labels that cover neither each other nor a point of another row.

    Labels stand to the right of their points, and are as tall as 5 % of the plot.
    """
    placed: list[Point] = []
    for point in sorted(points, key=lambda point: point.y):
        wide = _label_width(point)
        near = [other.label_y for other in placed if -_label_width(other) < other.x - point.x < wide]
        dots = [other.y for other in points if other is not point and 0 <= other.x - point.x < wide]
        heights = (point.y + 0.025 * side * step for step in count() for side in (1, -1))
        free = (
            height
            for height in heights
            if all(abs(height - other) > 0.0499 for other in near)
            and all(abs(height - other) > 0.0299 for other in dots)
        )
        placed.append(replace(point, label_y=next(free)))
    return placed


def _label_width(point: Point) -> float:
    """Of a label and its distance from the point, as a share of a plot's width."""
    return 0.03 + 0.012 * len(point.label)


def similarities(judge: Mapping[str, Any], usable: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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


def trade_offs(card: Card) -> list[dict[str, Any]]:
    """For each judge the curves of its cells, from the smallest false match rate that the pairs can tell to 1."""
    det = card.get("det") or {}
    if not det:
        return []
    start = max(_LOWEST, 1 / det["impostor_pairs"])
    decades = -math.log10(start)
    plots = []
    for judge in card["judges"]:
        curves = {}
        for cell in Cell:
            points = det["curves"].get(judge["name"], {}).get(cell.value)
            if points is None:
                continue
            shown = [
                (1 + math.log10(max(rate, start)) / decades, missed)
                for rate, missed in zip(points["fmr"], points["fnmr"], strict=True)
                if rate >= start / 2
            ]
            curves[cell.value] = shown
        ticks = [(1 - power / decades, f"1e-{power}" if power else "1") for power in range(math.floor(decades) + 1)]
        plots.append({"judge": judge, "curves": curves, "ticks": ticks})
    return plots
