"""Tables of adaptive cards."""

from __future__ import annotations

from collections.abc import Sequence

from bauta.benchmark.adaptive.cards import AdaptiveCard
from bauta.benchmark.adaptive.results import NONE, called, compare, summarise
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference
from bauta.benchmark.engine.table import Family, Table, percent, require_cards


class Adaptive(Family):
    """Cards of attackers who purify and adapt."""

    record = AdaptiveCard

    def figures(self, card: Card) -> Card:
        """See `summarise`."""
        return summarise(card, card["records"])

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """Methods, purifiers, attackers.

        Raises:
            UsageError: when there is no card.
        """
        require_cards(cards)
        return [main_table(cards), purifier_table(cards), attacker_table(cards)]

    def compare(self, first: Card, second: Card) -> list[Difference]:
        """See `compare`."""
        return compare(first, second)


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
        cells = [percent(attackers[untrained]["dodging"])]
        for kind in kinds:
            for on in (card["row"], "all"):
                found = attackers.get(called(kind, on))
                cells.append("-" if found is None else percent(found["dodging"]))
        purified = "-" if best is None else f"{percent(newer[best])} {best.removeprefix('purify-')}"
        rows.append((card["row"], quality, percent(newer[NONE]), purified, *cells))
    return Table("Methods before those who purify and adapt", header, rows)


def purifier_table(cards: Sequence[Card]) -> Table:
    """Dodging of newer recognisers after each purifier; the clean row is what the purifier itself does."""
    purifiers = list(cards[0]["results"]["newer"])
    header = ("method", *(name.removeprefix("purify-").replace(NONE, "as it is") for name in purifiers))
    rows = [(card["row"], *(percent(card["results"]["newer"][name]["mean"]) for name in purifiers)) for card in cards]
    return Table("Dodging of newer recognisers after purifiers", header, rows)


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
    return Table("Every attacker", header, rows)
