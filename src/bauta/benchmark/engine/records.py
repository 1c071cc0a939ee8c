"""What the cards of all tables hold: typed records, from which their JSON schemas are made by `bauta.schema`.

Every field of a record must be there, but those that are `ABSENT` by default: cards may lack them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from bauta.schema import Count, Sha256
from bauta.settings import Range

Cosine = Annotated[float, Range(at=-1.001, to=1.001)]
"""Rounding may leave a little more than 1."""


@dataclass(frozen=True)
class Code:
    """The code behind a card.

    Attributes:
        bauta: Version.
        commit: "" where there is no version control.
        sha256: Over the package's code and data.
    """

    bauta: str
    commit: str
    sha256: Sha256


@dataclass(frozen=True)
class Network:
    """A recogniser.

    Attributes:
        name: As recognisers are called.
        sha256: Of its weights.
    """

    name: str
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class PairSetFacts:
    """A set of pairs.

    Attributes:
        name: Of the set.
        pairs: How many.
        sha256: Of the photos of all pairs, in order.
    """

    name: str
    pairs: Annotated[int, Range(at=1)]
    sha256: Sha256


@dataclass(frozen=True)
class FaceSetFacts:
    """A set of faces.

    Attributes:
        name: Of the set.
        sha256: Over the images in their order.
        people: How many.
        images: How many.
    """

    name: str
    sha256: Sha256
    people: Count
    images: Count


@dataclass(frozen=True, kw_only=True)
class Run:
    """Time and machine: all that may differ when a run is repeated.

    Attributes:
        created: ISO 8601, UTC.
        command: As it was given, without where files lie.
        seconds: Of the row.
        machine: System, processor, and the versions of what computes.
    """

    created: str
    command: str
    seconds: float
    machine: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class CardRecord:
    """A result card: one row of a table with everything it rests on.

    Attributes:
        schema: Which kind of card it is.
        code: What computed it.
        run: Time and machine: all that may differ when a run is repeated.
        complete: The last field; what lacks it was interrupted.
    """

    schema: str
    code: Code
    run: Run
    complete: Literal[True]


@dataclass(frozen=True, kw_only=True)
class RowRecord(CardRecord):
    """The card of one row of a recipe.

    Attributes:
        name: Recipe and row.
        recipe: Name of the recipe.
        evidence: False for smoke runs, which show that the benchmark runs and nothing else.
        note: One sentence for the readers of the card.
        seed: Of everything random.
    """

    name: str
    recipe: str
    evidence: bool
    note: str
    seed: int
