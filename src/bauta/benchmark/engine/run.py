"""The table engine: reads a recipe, runs its rows one after the other, and writes a card for each.

A family of tables is a `Kind`: it says what its cards hold, how a row is measured, which figures follow from the
records, and what the tables are. All else is the same for every family, and is here.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.recipe_files import Named
from bauta.benchmark.engine.records import RowRecord
from bauta.benchmark.engine.table import Family
from bauta.errors import UsageError
from bauta.progress import Progress, silent


@dataclass(frozen=True)
class Job:
    """Where and how a recipe is run; no figure depends on it, but for those of time.

    Attributes:
        output: Folder of the cards.
        data: Folder of the recipe's sets; None for toys.
        work: Folder of what is kept between runs; ``.work`` in the output folder when None.
        jobs: Worker processes, where a row can be shared out.
        examples: Of how many faces a card keeps pictures.
        lpips: File of the weights of LPIPS, to measure it too.
        device: Where protectors and attackers compute, such as ``cuda``; judges stay on the CPU.
        command: As it was given, for the cards.
        progress: Called with what is done, how far it is, and how far it goes.

    Raises:
        UsageError: for fewer than one process, or a negative number of examples.
    """

    output: Path
    data: Path | None = None
    work: Path | None = None
    jobs: int = 1
    examples: int = 0
    lpips: Path | None = None
    device: str = "cpu"
    command: str = ""
    progress: Progress = silent

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.examples < 0:
            raise UsageError(
                f"{self.jobs} jobs and {self.examples} examples make no sense.", hint="Give at least 1 job."
            )

    @property
    def kept(self) -> Path:
        """Folder of what is kept between runs."""
        return self.output / ".work" if self.work is None else self.work

    @property
    def folder(self) -> Path:
        """Folder of the recipe's sets.

        Raises:
            UsageError: when none was given.
        """
        if self.data is None:
            raise UsageError("The recipe needs a folder of data.", hint="Give --data DIR.")
        return self.data


class Rows(Protocol):
    """What every recipe has."""

    @property
    def name(self) -> str:
        """What its cards are called."""

    @property
    def rows(self) -> Sequence[Any]:
        """What there is to measure, each with a name."""


R = TypeVar("R", bound=Rows)
S = TypeVar("S")


@dataclass(frozen=True)
class Task:
    """One row, ready to be measured.

    Attributes:
        measure: Gives the fields of the card that the engine does not know; those of ``results`` that do not follow
            from the records, and those of ``run`` beside time and machine.
        key: The card's ``key``, a digest of all that decides it: a card that has it is not measured again. "" when
            there is none, and what was computed lies in the work folder alone.
        ready: Whether what other rows need of this one is there, beside its card.
    """

    measure: Callable[[], Card]
    key: str = ""
    ready: bool = True


class Kind(Family, Generic[R, S]):
    """A family of tables whose rows are measured here."""

    def read(self, recipe: str) -> R:
        """A recipe by the name of one that the package carries, or from a TOML file.

        Raises:
            UsageError: when there is none, it cannot be read, or the family has no recipes in files.
        """
        raise UsageError(f"There is no recipe {recipe!r}.", hint="These tables are not made from files.")

    @abstractmethod
    def set_up(self, recipe: R, job: Job) -> S:
        """What all rows share; whatever is missing shows here, before a row is measured."""

    @abstractmethod
    def row(self, setup: S, row: Any, done: Mapping[str, Card]) -> Task:
        """A row, ready to be measured.

        Args:
            setup: What all rows share.
            row: Of the recipe.
            done: Cards of the rows before it, by name.
        """

    def called(self, recipe: R, row: Named) -> str:
        """The name of a row's card."""
        return f"{recipe.name}/{row.name}"

    def file(self, recipe: R, row: Named) -> str:
        """The name of its file."""
        return f"{recipe.name}-{row.name}.json"


def run(kind: Kind[R, Any], recipe: R, job: Job) -> list[Path]:
    """Run every row of a recipe and write a card for each as soon as it is done. Interrupted, it goes on.

    Returns:
        The cards' files.

    Raises:
        UsageError: when a set or a method cannot be used, or somebody is where they must not be.
        RecognizerError: when a recogniser cannot be used, or a judge has no threshold.
        OutputError: when a file cannot be written.
    """
    written: dict[str, Path] = {}
    done: dict[str, Card] = {}
    with one_thread():
        setup = kind.set_up(recipe, job)
        for row in recipe.rows:
            began, path = time.monotonic(), job.output / kind.file(recipe, row)
            task = kind.row(setup, row, done)
            card = _known(kind, task, row, path)
            if card is None:
                card = _finished(kind, recipe, row, task, job, began)
                cards.write_card(card, path)
            written[row.name], done[row.name] = path, card
    return list(written.values())


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are in the same order then, however many cores there are."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _known(kind: Kind[R, Any], task: Task, row: Named, path: Path) -> Card | None:
    """The card of a row that was measured before."""
    if not task.key or not task.ready or not path.is_file():
        return None
    try:
        card = cards.read_card(path, kind.record)
    except UsageError as error:
        raise UsageError(
            f"The card of row {row.name!r} cannot be used: {error.message}", hint="Delete or move it, and run again."
        ) from error
    return card if card["key"] == task.key else None


def _finished(kind: Kind[R, Any], recipe: Any, row: Named, task: Task, job: Job, began: float) -> Card:
    card: Card = {}
    if issubclass(kind.record, RowRecord):
        card = {"name": kind.called(recipe, row), "recipe": recipe.name}
        card |= {name: getattr(recipe, name) for name in ("evidence", "note", "seed")}
    if task.key:
        card["key"] = task.key
    measured = task.measure()
    known, spent = measured.pop("results", {}), measured.pop("run", {})
    last = {name: measured.pop(name) for name in ("records", "examples") if name in measured}
    card |= measured | {"code": cards.code()}
    if last or known:
        card["results"] = known | kind.figures(card | last)
    return cards.finish(
        card
        | last
        | {
            "run": {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": job.command,
                "seconds": round(time.monotonic() - began, 2),
                **spent,
                "machine": cards.machine(),
            }
        },
        kind.record,
    )
