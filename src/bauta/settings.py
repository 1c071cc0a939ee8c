"""Frozen settings of methods and attackers: ranges stand on the fields, and one base checks, reads and lists them.

A range is declared where the field is, so that validation, the command line and `bauta methods NAME` agree::

    @dataclass(frozen=True)
    class BlurConfig(Settings):
        \"\"\"Settings of the blur.

        Attributes:
            sigma: Standard deviation, in pixels of a 112-pixel crop.
        \"\"\"

        title: ClassVar[str] = "blur"
        sigma: Annotated[float, Range(above=0, to=50)] = 4.0

>>> from bauta.settings import Range
>>> Range(above=0, to=50).admits(4.0), Range(above=0, to=50).admits(0.0)
(True, False)
>>> str(Range(above=0, to=50))
'above 0, up to 50'
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from bauta.errors import UsageError
from bauta.tables import shown


@dataclass(frozen=True)
class Range:
    """Numbers that a field may have; of a tuple, each of its numbers.

    Attributes:
        at: Least number, itself allowed.
        above: Number that must be exceeded.
        to: Greatest number, itself allowed.
        below: Number that must not be reached.
    """

    at: float | None = None
    above: float | None = None
    to: float | None = None
    below: float | None = None

    def admits(self, value: float) -> bool:
        """Whether a number lies inside; NaN and infinity never do."""
        return (
            math.isfinite(value)
            and (self.at is None or value >= self.at)
            and (self.above is None or value > self.above)
            and (self.to is None or value <= self.to)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        parts = (("from", self.at), ("above", self.above), ("up to", self.to), ("below", self.below))
        return ", ".join(f"{word} {bound:g}" for word, bound in parts if bound is not None)


Share = Annotated[float, Range(at=0, to=1)]
Weight = Annotated[float, Range(at=0, to=1000)]


@dataclass(frozen=True)
class Flag:
    """Another name of a field on the command line: ``Annotated[int, Flag("steps")]`` becomes ``--steps``.

    Attributes:
        name: Without the dashes.
    """

    name: str


@dataclass(frozen=True)
class Option:
    """One field of a method's settings, as a person meets it.

    Attributes:
        name: Of the field.
        type: What a value is, such as ``float`` or ``Literal["linf", "l2"]``; without None.
        optional: Whether None is allowed.
        default: Value when nothing is given; `dataclasses.MISSING` where one must be given.
        allowed: In words: what values are, and their range.
        help: From the docstring of the settings.
        flag: What a command line calls it, without the dashes.
    """

    name: str
    type: Any
    optional: bool
    default: Any
    allowed: str
    help: str
    flag: str = ""


@dataclass(frozen=True)
class Settings:
    """Base of every frozen configuration; subclasses are frozen dataclasses, whose fields should all have defaults.

    Types are bool, int, float, str, Literal, tuples of them, other settings, and any of these or None; `Annotated` with
    a `Range` bounds numbers. `problems` adds what single fields cannot say, and `presets` are class methods without
    arguments.

    Raises:
        UsageError: on construction, naming the field whose value is not allowed, and what is.
    """

    title: ClassVar[str] = ""
    """What messages call the method; the class's own name without it."""
    presets: ClassVar[tuple[str, ...]] = ()
    """Names of further constructors, beside ``default``; ``official-code`` is the class method `official_code`."""

    def __post_init__(self) -> None:
        for option, bounds in _options(type(self)).values():
            value = getattr(self, option.name)
            if not _fits(value, option, bounds):
                raise UsageError(
                    f"{self._called()} cannot run with {option.name}={shown(value)}.",
                    hint=f"{option.name} is {option.allowed}.",
                )
        for name, hint in self.problems():
            raise UsageError(f"{self._called()} cannot run with {name}={shown(getattr(self, name))}.", hint=hint)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs of a field and a hint, for values that do not go together."""
        return iter(())

    @classmethod
    def of(cls, settings: Mapping[str, Any], preset: str = "default") -> Self:
        """The preset with other values by name; lists, and a single text, stand for tuples, and tables for settings.

        Raises:
            UsageError: when there is no such preset or field, a field without a default is missing, or a value is not
                allowed.
        """
        if preset not in ("default", *cls.presets):
            there = ", ".join(("default", *cls.presets))
            raise UsageError(f"{cls._called()} has no preset {preset!r}.", hint=f"There is: {there}.")
        known = _options(cls)
        if unknown := sorted(str(name) for name in settings.keys() - known.keys()):
            raise UsageError(
                f"{cls._called()} has no setting {', '.join(unknown)}.",
                hint=f"It has: {', '.join(known) or 'none'}.",
            )
        given = {name: _plain_to_field(value, known[name][0]) for name, value in settings.items()}
        if preset != "default":
            start: Self = getattr(cls, preset.replace("-", "_"))()
            return replace(start, **given)
        for name, (option, _) in known.items():
            if option.default is MISSING and name not in given:
                raise UsageError(f"{cls._called()} needs {name}.", hint=f"{name} is {option.allowed}.")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for cards, reports and keys of caches; tuples become lists."""
        return {one.name: _field_to_plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def options(cls) -> list[Option]:
        """The fields in their order, for a command line and for people."""
        return [option for option, _ in _options(cls).values()]

    @classmethod
    def _called(cls) -> str:
        return cls.title or cls.__name__


def _options(of: Any) -> dict[str, tuple[Option, Range | None]]:
    return _read(of)


@cache
def _read(of: Any) -> dict[str, tuple[Option, Range | None]]:
    hints, texts = get_type_hints(of, include_extras=True), attribute_texts(of)
    return {one.name: _option(one, hints[one.name], texts.get(one.name, "")) for one in fields(of)}


def _option(field: Field[Any], hint: Any, text: str) -> tuple[Option, Range | None]:
    bounds: Range | None = None
    flag = field.name.replace("_", "-")
    optional = False
    while True:  # Annotated inside a union, or around it
        if get_origin(hint) is Annotated:
            bounds = next((one for one in get_args(hint)[1:] if isinstance(one, Range)), bounds)
            flag = next((one.name for one in get_args(hint)[1:] if isinstance(one, Flag)), flag)
            hint = get_args(hint)[0]
        elif get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
            optional = True
            rest = [one for one in get_args(hint) if one is not type(None)]
            hint = rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007 - made at run time
        else:
            break
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    allowed = _described(hint, bounds) + (", or nothing" if optional else "")
    return Option(field.name, hint, optional, default, allowed, text, flag), bounds


def _described(hint: Any, bounds: Range | None) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return f"a list, each of its values {_described(inner[0], bounds)}"
        return f"{len(inner)} values, each {_described(inner[0], bounds)}"
    word = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(hint, "another value")
    return f"{word} {bounds}" if bounds and hint in (int, float) else word


def _fits(value: Any, option: Option, bounds: Range | None) -> bool:
    if value is None:
        return option.optional
    return _fits_type(value, option.type, bounds)


def _fits_type(value: Any, hint: Any, bounds: Range | None) -> bool:
    if get_origin(hint) is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits_type(one, inner[0], bounds) for one in value)
        return len(value) == len(inner) and all(map(_fits_type, value, inner, [bounds] * len(inner)))
    if hint in (int, float):
        wanted = (int, float) if hint is float else int
        number = isinstance(value, wanted) and not isinstance(value, bool)
        # A float cannot hold integers of any size; whoever gives one of 400 digits gets the same refusal.
        return number and abs(value) < 1 << 63 and (bounds or Range()).admits(value)
    if isinstance(hint, type):
        return isinstance(value, hint)
    return True


def _plain_to_field(value: Any, option: Option) -> Any:
    if get_origin(option.type) is tuple:
        return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value
    if isinstance(value, Mapping) and isinstance(option.type, type) and issubclass(option.type, Settings):
        return option.type.of(value)
    return value


def _field_to_plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def attribute_texts(of: type) -> dict[str, str]:
    """The texts of a docstring's ``Attributes:``, a line of text each, the base's first."""
    found: dict[str, str] = {}
    for one in reversed(of.__mro__):
        lines = inspect.cleandoc(one.__dict__.get("__doc__") or "").splitlines()
        if "Attributes:" not in lines:
            continue
        name = ""
        for line in lines[lines.index("Attributes:") + 1 :]:
            if not line.strip():
                continue
            if not line.startswith("    "):
                break
            if not line.startswith("        "):
                name, _, text = line.strip().partition(": ")
                found[name] = text
            elif name:
                found[name] += " " + line.strip()
    return found
