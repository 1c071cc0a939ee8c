"""Recipes as TOML files: those that the package carries, a user's own, and dataclasses from their tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, get_args, get_origin, get_type_hints

from bauta.errors import UsageError

T = TypeVar("T")


class Named(Protocol):
    """What has a name, as rows do."""

    @property
    def name(self) -> str:
        """Unique in its recipe."""


def carried_in(folder: Traversable) -> list[str]:
    """Names of the recipes in a folder of the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_table(recipe: str, folder: Traversable) -> dict[str, Any]:
    """The table of a recipe by its name in a folder of the package, or of a TOML file.

    Raises:
        UsageError: when there is none, or it cannot be read.
    """
    path = Path(recipe) if recipe.endswith(".toml") else folder / f"{recipe}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no recipe {recipe!r}.",
            hint=f"There is: {', '.join(carried_in(folder))}; or give a TOML file.",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The recipe {recipe} cannot be read: {error}", hint="Give a TOML file.") from error


def read(kind: type[T], recipe: str, folder: Traversable) -> T:
    """A recipe by its name in a folder of the package, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    return build(kind, read_table(recipe, folder), recipe)


def build(kind: type[T], table: Any, origin: str, hint: str = "See docs/benchmark.md.") -> T:
    """A frozen dataclass from a TOML table, whose keys are its fields; so are the dataclasses in its fields.

    Raises:
        UsageError: when it is not a table, a key is unknown or missing, or the dataclass refuses a value.
    """
    if not isinstance(table, dict):
        raise UsageError(f"The recipe {origin}: {table!r} is not a table.", hint=hint)
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise UsageError(f"The recipe {origin}: unknown key {key!r}.", hint=f"There is: {', '.join(known)}.")
    for key, one in known.items():
        if key not in table and one.default is MISSING and one.default_factory is MISSING:
            raise UsageError(f"The recipe {origin} lacks {key!r}.", hint=hint)
    hints = get_type_hints(kind)
    try:
        return kind(**{key: _value(hints[key], value, f"{origin}, {key}", hint) for key, value in table.items()})
    except TypeError as error:
        raise UsageError(f"The recipe {origin}: {error}.", hint=hint) from error


def _value(wanted: Any, value: Any, origin: str, hint: str) -> Any:
    inner: list[Any] = [one for one in get_args(wanted) if one is not type(None)]
    if get_origin(wanted) is tuple and is_dataclass(inner[0]):
        if not isinstance(value, list):
            raise UsageError(f"The recipe {origin}: {value!r} is not a list of tables.", hint=hint)
        row: Any = inner[0]
        return tuple(build(row, one, origin, hint) for one in value)
    nested: list[Any] = [one for one in (wanted, *inner) if isinstance(one, type) and is_dataclass(one)]
    if nested:
        return build(nested[0], value, origin, hint)
    return tuple(value) if isinstance(value, list) else value


def check_row_name(name: str) -> None:
    """Refuse what cannot name a file.

    Raises:
        UsageError: when it is empty, begins with a dot, or has a blank or a slash in it.
    """
    if not name or set(name) & set("/\\ ") or name.startswith("."):
        raise UsageError(f"A row cannot be called {name!r}.", hint="It names a file: leave out blanks and /.")


@dataclass(frozen=True)
class ByRows:
    """What recipes with a name and rows have in common."""

    def require(self, checks: Mapping[str, bool], hint: str) -> None:
        """Let a recipe through whose rows are there and have different names, whose seed fits, and whose checks hold.

        Args:
            checks: By the field that is wrong where one does not hold.
            hint: What to do about it.

        Raises:
            UsageError: naming the first field that is wrong.
        """
        own: Any = self
        names = [row.name for row in own.rows]
        always = {"rows": bool(names) and len(set(names)) == len(names), "seed": 0 <= own.seed < 1 << 31}
        for key, good in (always | dict(checks)).items():
            if not good:
                raise UsageError(f"The recipe {own.name!r}: {key} cannot be {getattr(own, key)!r}.", hint=hint)

    def only(self, names: Sequence[str]) -> Self:
        """The same recipe with the rows of these names, after the one they are compared with, if it names any.

        Raises:
            UsageError: when it has no such row.
        """
        own: Any = self
        if baseline := getattr(self, "baseline", None):
            names = (baseline, *(name for name in names if name != baseline))
        known = {row.name: row for row in own.rows}
        if unknown := [name for name in names if name not in known]:
            raise UsageError(
                f"Recipe {own.name!r} has no row {', '.join(unknown)}.", hint=f"It has: {', '.join(known)}."
            )
        return replace(own, rows=tuple(known[name] for name in names))  # type: ignore[no-any-return]
