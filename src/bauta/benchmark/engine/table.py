"""Tables of result cards for people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference
from bauta.benchmark.engine.records import CardRecord
from bauta.errors import UsageError
from bauta.pages import page_template


@dataclass(frozen=True)
class Table:
    """A table of result cards.

    Attributes:
        title: "" for one that needs none.
        header: A cell for each column.
        rows: The first cell names the row.
        note: What its figures are.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def markdown(self) -> str:
        """The header and the rows for a document."""
        lines = ["| " + " | ".join(self.header) + " |", "|" + "---|" * len(self.header)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        return "\n".join(lines)


def require_cards(cards: Sequence[object]) -> None:
    """Let tables be made where there is something to show.

    Raises:
        UsageError: when there is no card.
    """
    if not cards:
        raise UsageError("There are no result cards.", hint="Give at least one.")


class Family(ABC):
    """A family of result cards: what they hold, which figures follow from their records, and how they are shown.

    Attributes:
        record: What its cards hold.
    """

    record: ClassVar[type[CardRecord]]

    def figures(self, card: Card) -> Card:
        """Those of a card's results that follow from its records; none where cards have no records."""
        return {}

    @abstractmethod
    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """Tables of cards."""

    def compare(self, first: Card, second: Card) -> list[Difference]:
        """Differences of two cards, pair by pair: second less first.

        Raises:
            UsageError: when they have no records in common, no judges, or other ones of the same name.
        """
        raise UsageError("These cards keep no records to compare.", hint="Read their tables side by side.")

    def glance(self, cards: Sequence[Card]) -> list[Table]:
        """Those of the tables that a terminal shows."""
        return self.tables(cards)

    def notes(self, cards: Sequence[Card]) -> list[str]:
        """What readers of the tables must know, each once."""
        return list(dict.fromkeys(card["note"] for card in cards if card.get("note")))

    def page(self, cards: Sequence[Card]) -> str:
        """A page of HTML that is complete in itself: the tables and the notes, unless a family has more to show.

        Raises:
            UsageError: when there is no card.
        """
        return page_template("benchmark", "page.html.j2").render(
            cards=cards, tables=self.tables(cards), notes=self.notes(cards)
        )


def markdown(tables: Sequence[Table], notes: Sequence[str] = (), *, titles: bool = True) -> str:
    """Tables and notes for a document, with or without the titles."""
    parts = []
    for table in tables:
        if titles and table.title:
            parts.append(f"**{table.title}.** {table.note}".strip())
        parts.append(table.markdown())
    return "\n\n".join([*parts, *notes])


def percent(interval: Mapping[str, float] | None, digits: int = 1) -> str:
    """A share with its interval, in percent.

    >>> percent({"mean": 0.5, "low": 0.25, "high": 0.75})
    '50.0 (25.0-75.0)'
    """
    if interval is None:
        return "-"
    mean, low, high = (f"{100 * interval[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low}-{high})"


def label(card: Card, cards: Sequence[Card]) -> str:
    """The row's own name where all are of one recipe."""
    name: str = card["name"]
    return name.partition("/")[2] if len({other["recipe"] for other in cards}) == 1 and "/" in name else name
