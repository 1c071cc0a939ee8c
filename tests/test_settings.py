"""The base of frozen settings: what it refuses, reads and lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest

from bauta.errors import UsageError
from bauta.settings import Range, Settings


@dataclass(frozen=True)
class Toy(Settings):
    """Settings of a toy.

    Attributes:
        sigma: Standard deviation, in pixels
            of a crop.
        steps: Steps.
        mode: Direction.
        floor: Lowest PSNR, in dB.
        pair: From and to.
        names: Who.
        on: Whether.
    """

    title: ClassVar[str] = "toy"
    presets: ClassVar[tuple[str, ...]] = ("old-code",)
    sigma: Annotated[float, Range(above=0, to=50)] = 4.0
    steps: Annotated[int, Range(at=1, to=100)] = 10
    mode: Literal["up", "down"] = "up"
    floor: Annotated[float, Range(at=10, to=60)] | None = None
    pair: Annotated[tuple[float, float], Range(at=0, below=1)] = (0.0, 0.5)
    names: tuple[str, ...] = ("a",)
    on: bool = False

    @classmethod
    def old_code(cls) -> Toy:
        return cls(steps=5)

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.pair[0] > self.pair[1]:
            yield "pair", "The first is not above the second."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigma", 0), ("sigma", 51.0), ("sigma", float("nan")), ("sigma", float("inf")), ("sigma", "4"),
        ("sigma", True), ("sigma", 10**400), ("sigma", None), ("steps", 0), ("steps", 1.5), ("steps", True),
        ("mode", "left"), ("mode", 1), ("floor", 9), ("floor", float("inf")), ("pair", (0.0, 1.0)), ("pair", (0.0,)),
        ("pair", [0.0, 0.5]), ("pair", (0.5, 0.0)), ("names", ("a", 1)), ("names", "a"), ("on", 1), ("on", None),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"toy cannot run with {name}=") as caught:
        Toy(**{name: value})
    assert caught.value.hint


def test_lists_stand_for_tuples_and_presets_are_constructors() -> None:
    assert Toy.of({"pair": [0.1, 0.2], "sigma": 3}, "old-code") == Toy(sigma=3, pair=(0.1, 0.2), steps=5)
    assert Toy.of(Toy().to_dict()) == Toy()
    with pytest.raises(UsageError, match="no preset 'new'"):
        Toy.of({}, "new")
    with pytest.raises(UsageError, match="no setting width") as caught:
        Toy.of({"width": 1})
    assert "sigma, steps" in str(caught.value.hint)


@dataclass(frozen=True)
class Outer(Settings):
    """Settings that hold others.

    Attributes:
        name: Must be given.
        toy: Others.
    """

    name: str
    toy: Toy = Toy(steps=3)


def test_settings_nest_and_a_field_without_a_default_must_be_given() -> None:
    made = Outer.of({"name": "a", "toy": {"sigma": 2, "names": "b"}})
    assert made.toy == Toy(sigma=2, names=("b",))
    assert made.to_dict()["toy"] == Toy(sigma=2, names=("b",)).to_dict()
    assert Outer.of(made.to_dict()) == made
    with pytest.raises(UsageError, match="Outer needs name"):
        Outer.of({})
    with pytest.raises(UsageError, match="toy has no setting width"):
        Outer.of({"name": "a", "toy": {"width": 1}})
    with pytest.raises(UsageError, match="Outer cannot run with toy=3"):
        Outer.of({"name": "a", "toy": 3})


def test_a_message_is_short_however_long_the_value() -> None:
    with pytest.raises(UsageError) as caught:
        Toy.of({"mode": "x" * 100_000})
    assert len(str(caught.value)) < 300


def test_options_tell_a_person_what_is_allowed() -> None:
    options = {option.name: option for option in Toy.options()}
    assert options["sigma"].help == "Standard deviation, in pixels of a crop."
    assert options["sigma"].allowed == "a number above 0, up to 50"
    assert options["floor"].allowed == "a number from 10, up to 60, or nothing"
    assert (options["floor"].type, options["floor"].optional) == (float, True)
    assert options["mode"].allowed == "one of up, down"
    assert options["pair"].allowed == "2 values, each a number from 0, below 1"
    assert options["names"].allowed == "a list, each of its values a text"
