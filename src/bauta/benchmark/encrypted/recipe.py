"""Recipes of tables of encrypted matching; the package carries its own in ``benchmark/encrypted_recipes``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from bauta.benchmark.engine.recipe_files import ByRows, check_row_name, read
from bauta.encrypted.messages import MOST_PROBES
from bauta.encrypted.packing import Layout, choose_split

_FOLDER = files("bauta.benchmark") / "encrypted_recipes"


@dataclass(frozen=True)
class EncryptedRow:
    """A gallery.

    Attributes:
        name: Of the row.
        people: Enrolled in it.
        workers: Processes that share it.
    """

    name: str
    people: int
    workers: int = 1

    def __post_init__(self) -> None:
        check_row_name(self.name)


@dataclass(frozen=True)
class EncryptedRecipe(ByRows):
    """Which galleries are searched, and by what.

    Attributes:
        name: Of the recipe.
        rows: Galleries.
        dimension: Values of a template.
        cosine: From which on somebody matches.
        genuine: Cosine of every other probe to somebody in the gallery; the rest are strangers.
        probes: How many, together.
        seed: Of templates and probes; keys and masks come from the operating system.
        evidence: False for smoke runs.
        note: One sentence for the readers of the cards.

    Raises:
        UsageError: when rows are missing or named twice, or a value is not allowed.
    """

    name: str
    rows: tuple[EncryptedRow, ...]
    dimension: int = 512
    cosine: float = 0.4
    genuine: float = 0.6
    probes: int = 8
    seed: int = 0
    evidence: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        checks = {
            "rows": all(row.people >= 1 and row.workers >= 1 for row in self.rows),
            "cosine": 0 < self.cosine < 1,
            "genuine": 0 < self.genuine < 1,
            "probes": 1 <= self.probes <= MOST_PROBES,
        }
        self.require(
            checks,
            hint=f"Rows have different names, people and workers; cosines are below 1, and there are "
            f"1 to {MOST_PROBES} probes.",
        )
        for row in self.rows:
            self.layout(row)

    def layout(self, row: EncryptedRow) -> Layout:
        """How a row's templates are packed."""
        return Layout(self.dimension, choose_split(row.people, self.dimension))


def read_recipe(recipe: str) -> EncryptedRecipe:
    """A recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    return read(EncryptedRecipe, recipe, _FOLDER)
