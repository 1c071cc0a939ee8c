"""The table engine with a family of its own: what a kind supplies, and what it gets for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from bauta.benchmark.engine.cards import Card, read_card
from bauta.benchmark.engine.figures import mean_by_subject
from bauta.benchmark.engine.recipe_files import build
from bauta.benchmark.engine.records import RowRecord
from bauta.benchmark.engine.run import Job, Kind, Task, run
from bauta.benchmark.engine.table import Table, markdown
from bauta.benchmark.families import FAMILIES, read_cards
from bauta.benchmark.photos.recipe import GallerySource
from bauta.benchmark.photos.recipe import Recipe as PhotoRecipe
from bauta.errors import UsageError
from bauta.metrics import Interval
from bauta.schema import Sha256
from timeless import timeless


@dataclass(frozen=True)
class Height:
    """A person."""

    subject: str
    height: float


@dataclass(frozen=True)
class Heights:
    """Figures, and the row before."""

    mean: Interval
    before: list[str]


@dataclass(frozen=True, kw_only=True)
class ToyCard(RowRecord):
    """How tall people are."""

    schema: Literal["toy/1"]
    key: Sha256
    results: Heights
    records: list[Height]


@dataclass(frozen=True)
class Row:
    name: str
    heights: tuple[float, ...] = (1.5, 2.0)


@dataclass(frozen=True)
class Recipe:
    name: str = "toy"
    rows: tuple[Row, ...] = (Row("short"), Row("tall", (1.8, 2.2)))
    seed: int = 0
    evidence: bool = True
    note: str = "Toys."


@dataclass
class ToyKind(Kind[Recipe, Recipe]):
    """Counts what it measures."""

    record = ToyCard
    measured: list[str] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    ready: bool = True

    def set_up(self, recipe: Recipe, job: Job) -> Recipe:
        return recipe

    def row(self, setup: Recipe, row: Row, done: Mapping[str, Card]) -> Task:
        def measure() -> Card:
            self.measured.append(row.name)
            self.threads.append(torch.get_num_threads())
            records = [{"subject": str(place), "height": one} for place, one in enumerate(row.heights)]
            return {"results": {"before": list(done)}, "records": records}

        return Task(measure, f"{int(sum(row.heights) * 10):064x}", self.ready)

    def figures(self, card: Card) -> Card:
        records = card["records"]
        people = [record["subject"] for record in records]
        return {"mean": mean_by_subject([record["height"] for record in records], people)}

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        rows = [(card["name"], f"{card['results']['mean']['mean']:.2f} | m") for card in cards]
        return [Table("How tall", ("row", "height"), rows, "In metres.")]


def cards_of(paths: Sequence[Path]) -> list[Card]:
    return [read_card(path, ToyCard) for path in paths]


def test_a_kind_gets_cards_and_tables(tmp_path: Path) -> None:
    kind = ToyKind()
    before = torch.get_num_threads()
    paths = run(kind, Recipe(), Job(tmp_path, command="bauta toy"))
    short, tall = cards_of(paths)
    assert [path.name for path in paths] == ["toy-short.json", "toy-tall.json"]
    assert (short["name"], short["recipe"], short["note"], short["seed"]) == ("toy/short", "toy", "Toys.", 0)
    assert (short["results"]["before"], tall["results"]["before"]) == ([], ["short"])
    assert short["results"]["mean"]["mean"] == 1.75
    assert short["run"]["command"] == "bauta toy"
    assert (set(kind.threads), torch.get_num_threads()) == ({1}, before)
    text = markdown(kind.tables([short, tall]), kind.notes([short, tall]))
    assert text.splitlines() == [
        "**How tall.** In metres.", "", "| row | height |", "|---|---|", "| toy/short | 1.75 \\| m |",
        "| toy/tall | 2.00 \\| m |", "", "Toys.",
    ]  # fmt: skip
    assert "How tall" not in markdown(kind.tables([short]), titles=False)
    page = kind.page([short, tall])
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert "<h2>How tall</h2>" in page
    assert "<td>1.75 | m</td>" in page.replace("\n", "")
    with pytest.raises(UsageError, match="no recipe 'x'"):
        kind.read("x")


def test_finished_rows_are_not_measured_again(tmp_path: Path) -> None:
    kind = ToyKind()
    first = cards_of(run(kind, Recipe(), Job(tmp_path)))
    assert cards_of(run(kind, Recipe(), Job(tmp_path))) == first
    assert kind.measured == ["short", "tall"]
    changed = replace(Recipe(), rows=(Row("short", (1.0, 1.2)), Recipe().rows[1]))
    cards = cards_of(run(kind, changed, Job(tmp_path)))
    assert kind.measured == ["short", "tall", "short"]
    assert cards[1] == first[1]
    kind.ready = False  # what other rows need of a finished one is gone
    again = cards_of(run(kind, Recipe(), Job(tmp_path)))
    assert kind.measured[3:] == ["short", "tall"]
    assert [timeless(card) for card in again] == [timeless(card) for card in first]


def test_what_is_not_a_card_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "toy-tall.json").write_text("mine")
    kind = ToyKind()
    with pytest.raises(UsageError, match="card of row 'tall'"):
        run(kind, Recipe(), Job(tmp_path))
    assert (tmp_path / "toy-tall.json").read_text() == "mine"
    assert (tmp_path / "toy-short.json").exists()


def test_a_row_that_fails_leaves_no_card_and_the_threads_as_they_were(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    wrong: Any = replace(Recipe(), rows=(Row("short"), Row("wrong", ("tall",))))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        run(ToyKind(), wrong, Job(tmp_path))
    assert [path.name for path in tmp_path.glob("*.json")] == ["toy-short.json"]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("options", [{"jobs": 0}, {"examples": -1}])
def test_jobs_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="no sense"):
        Job(tmp_path, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="folder of data"):
        _ = Job(tmp_path).folder


def test_cards_are_read_by_the_schema_that_they_name(tmp_path: Path) -> None:
    assert list(FAMILIES) == [
        "bauta.benchmark/2",
        "bauta.adaptive/1",
        "bauta.templates/1",
        "bauta.recognizers/1",
        "bauta.cancelable/1",
        "bauta.certified/1",
        "bauta.budgets/1",
        "bauta.encrypted/1",
        "bauta.video/1",
    ]
    paths = run(ToyKind(), Recipe(), Job(tmp_path))
    with pytest.raises(UsageError, match="a card of schema 'toy/1'"):
        read_cards(paths)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UsageError, match="not a result card"):
        read_cards([tmp_path / "list.json"])
    with pytest.raises(UsageError, match="no result cards"):
        read_cards([])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset": [{"kind": "toy"}]}, "dataset.*is not a table"),
        ({"rows": {"name": "clean", "method": "clean"}}, "rows.*is not a list of tables"),
        ({"rows": ["clean"]}, "rows.*'clean' is not a table"),
        ({"rows": [{"name": "clean"}]}, "rows lacks 'method'"),
        ({"rows": [{"name": "clean", "method": "clean", "colour": 1}]}, "rows: unknown key 'colour'"),
        ({"judges": None}, "lacks 'judges'"),
    ],
)
def test_recipes_are_refused_by_the_place_that_is_wrong(change: dict[str, Any], said: str) -> None:
    table: dict[str, Any] = {
        "name": "x", "surrogates": ["a"], "judges": ["b"], "dataset": {"kind": "toy"}, "gallery": {},
        "rows": [{"name": "clean", "method": "clean", "surrogates": ["c"]}],
    }  # fmt: skip
    recipe = build(PhotoRecipe, table, "x.toml")
    assert (recipe.dataset.kind, recipe.rows[0].surrogates, recipe.gallery) == ("toy", ("c",), GallerySource())
    with pytest.raises(UsageError, match=said):
        build(PhotoRecipe, {key: one for key, one in {**table, **change}.items() if one is not None}, "x.toml")
