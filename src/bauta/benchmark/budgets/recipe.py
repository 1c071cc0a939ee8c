"""Recipes of tables of budgets; the package carries its own in ``benchmark/budget_recipes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from bauta.benchmark.engine.recipe_files import ByRows, check_row_name, read
from bauta.errors import UsageError
from bauta.registry import load_method
from bauta.templates.released.base import Released

_FOLDER = files("bauta.benchmark") / "budget_recipes"


@dataclass(frozen=True)
class BudgetRow:
    """A protector with a budget.

    Attributes:
        name: Of the row.
        method: Registered name of the protector.
        options: Its settings that differ from the defaults.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_row_name(self.name)

    def made(self) -> tuple[type[Released], Any]:
        """The protector's class, and its settings.

        Raises:
            UsageError: when there is no such method, it spends no budget, or a setting is not allowed.
        """
        kind = load_method(self.method, kind="protector")
        if not issubclass(kind, Released):
            raise UsageError(f"{self.method} promises no epsilon.", hint="Name one that does, such as peep.")
        return kind, kind.Config.of(self.options)


@dataclass(frozen=True)
class BudgetRecipe(ByRows):
    """What is measured of which mechanisms. The data are ``cfp_112``, or another folder of the form of CFP.

    Attributes:
        name: Of the recipe.
        rows: Mechanisms.
        recognizer: Whose templates are compared, and who judges what attackers get.
        people: How many are enrolled; protectors and attackers learn on those that are left.
        photos: Of each person.
        enrolled: The first so many are enrolled together to be identified; the others are probes.
        groups: People among whom one is identified.
        victims: How many people's photos are computed back.
        folder: Of the set, in the folder of data.
        seed: Of noise and choices, so that a run can be repeated; real noise has none.
        evidence: False for smoke runs.
        note: One sentence for the readers of the cards.

    Raises:
        UsageError: when rows are missing or named twice, or a number is too small.
    """

    name: str
    rows: tuple[BudgetRow, ...]
    recognizer: str = "mobilefacenet"
    people: int = 300
    photos: int = 7
    enrolled: int = 4
    groups: int = 100
    victims: int = 100
    folder: str = "cfp_112"
    seed: int = 0
    evidence: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        checks = {
            "people": self.people >= 20,
            "photos": self.photos >= 3,
            "enrolled": 1 <= self.enrolled < self.photos,
            "groups": 2 <= self.groups <= self.people and self.people % self.groups == 0,
            "victims": 2 <= self.victims <= self.people,
        }
        hint = (
            "Rows have different names; there are at least 20 people with 3 photos, fewer enrolled than there are, "
            "groups that divide the people, and 2 victims."
        )
        self.require(checks, hint)


def read_recipe(recipe: str) -> BudgetRecipe:
    """A recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    return read(BudgetRecipe, recipe, _FOLDER)
