from __future__ import annotations

from bauta.benchmark.engine.cards import Card


def timeless(card: Card) -> Card:
    """A card without time and machine: what a repeated run must give again."""
    return {key: value for key, value in card.items() if key != "run"}
