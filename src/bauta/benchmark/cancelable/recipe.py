"""Recipes of tables of cancelable templates; the package carries its own in ``benchmark/cancelable_recipes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from bauta.benchmark.engine.recipe_files import ByRows, check_row_name, read
from bauta.registry import load_method
from bauta.templates.cancelable.base import Scheme

_FOLDER = files("bauta.benchmark") / "cancelable_recipes"


@dataclass(frozen=True)
class CancelableRow:
    """A scheme with its settings.

    Attributes:
        name: Of the row.
        method: Registered name of the scheme.
        options: Its settings that differ from the defaults.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_row_name(self.name)

    def scheme(self, recognizer: str) -> Scheme:
        """The scheme, for templates of a recogniser of this SHA-256.

        Raises:
            UsageError: when there is no such method, or a setting is not allowed.
        """
        kind = load_method(self.method, kind="cancelable", base=Scheme)
        made: Scheme = kind(kind.Config.of(self.options), recognizer=recognizer)
        return made


@dataclass(frozen=True)
class CancelableRecipe(ByRows):
    """What is measured of which schemes. The data are ``cfp_112``, or another folder of the form of CFP.

    Attributes:
        name: Of the recipe.
        rows: Schemes.
        recognizer: Whose templates are turned.
        people: How many are enrolled; those that are left tell an attacker what templates look like.
        photos: Of each person: the first is enrolled, the others are probes.
        victims: How many people's templates are computed back from several records.
        folder: Of the set, in the folder of data.
        seed: Of tokens and choices, so that a run can be repeated; real tokens have none.
        evidence: False for smoke runs.
        note: One sentence for the readers of the cards.

    Raises:
        UsageError: when rows are missing or named twice, or a number is too small.
    """

    name: str
    rows: tuple[CancelableRow, ...]
    recognizer: str = "mobilefacenet"
    people: int = 300
    photos: int = 5
    victims: int = 40
    folder: str = "cfp_112"
    seed: int = 0
    evidence: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        checks = {
            "people": self.people >= 20,
            "photos": self.photos >= 3,
            "victims": 2 <= self.victims <= self.people,
        }
        hint = "Rows have different names; there are at least 20 people, 3 photos of each and 2 victims."
        self.require(checks, hint)


def read_recipe(recipe: str) -> CancelableRecipe:
    """A recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    return read(CancelableRecipe, recipe, _FOLDER)
