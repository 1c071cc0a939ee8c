from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from bauta.errors import UsageError
from bauta.schema import ABSENT, SHA256, Key, check, json_schema, plain
from bauta.settings import Range


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        size: How large.
    """

    size: Annotated[int, Range(at=1, to=9)]


@dataclass(frozen=True)
class Whole:
    """A record with a field of every kind.

    Attributes:
        schema: Which this is.
        name: What it is called,
            in two lines.
        rest: May be missing.
    """

    schema: Literal["whole/1"]
    name: str
    kind: Literal["a", "b"]
    digest: Annotated[str, SHA256]
    share: float | None
    several: Annotated[list[Part], Range(at=1)]
    pair: tuple[int, int]
    many: tuple[str, ...]
    by_name: dict[str, bool]
    either: Part | None
    anything: Any
    rest: list[int] = field(default_factory=list)


GOOD = Whole("whole/1", "x", "a", "0" * 64, None, [Part(3)], (1, 2), ("y",), {"z": True}, None, {"q": [1]})


def test_records_follow_their_own_schema() -> None:
    schema = json_schema(Whole, "whole/1")
    check(json.loads(json.dumps(plain(GOOD))), schema, "whole")
    assert (schema["$id"], schema["title"]) == ("whole/1", "A record with a field of every kind")
    assert schema["properties"]["name"]["description"] == "What it is called, in two lines."
    assert "rest" not in schema["required"]
    assert "rest" in json_schema(Whole, "whole/1", complete=True)["required"]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "whole/2"}, {"name": 1}, {"kind": "c"}, {"digest": "0" * 63}, {"share": "half"}, {"several": []},
        {"several": [{"size": 0}]}, {"several": [{"size": 10}]}, {"several": [{}]}, {"several": [{"size": 1, "x": 2}]},
        {"pair": [1]}, {"pair": [1, 2, 3]}, {"many": [1]}, {"by_name": {"z": "yes"}}, {"either": {"size": "big"}},
        {"extra": 1}, {"rest": ["one"]}, {"digest": "0" * 64 + "\n"}, {"share": float("nan")}, {"share": float("inf")},
        {"share": True}, {"several": [{"size": 3.0}]}, {"several": [{"size": True}]}, {"pair": [1, 2.0]},
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check({**plain(GOOD), **change}, json_schema(Whole, "whole/1"), "whole")


def test_plain_values_are_what_json_gives_back() -> None:
    values = plain({"path": Path("a/b"), "names": frozenset({"b", "a"}), "part": Part(1), "nothing": None})
    assert values == {"path": "a/b", "names": ["a", "b"], "part": {"size": 1}, "nothing": None}
    assert json.loads(json.dumps(plain(GOOD))) == plain(GOOD)


@dataclass
class Bytes:
    """Not for JSON."""

    content: bytes


@dataclass
class Above:
    """Its range has no word in JSON Schema as we check it."""

    size: Annotated[float, Range(above=0)]


@pytest.mark.parametrize("record", [Bytes, Above])
def test_types_that_json_cannot_hold_are_refused(record: type) -> None:
    with pytest.raises(TypeError, match=r"content|size"):
        json_schema(record, "x/1")


@dataclass(frozen=True)
class Odd:
    """A record with a name that Python does not allow, and a field that may be missing."""

    two_sided: Annotated[int, Key("two-sided")]
    usual: int = 1
    rare: int = ABSENT


def test_fields_may_have_other_names_and_be_missing() -> None:
    schema = json_schema(Odd, "odd/1", complete=True)
    assert schema["required"] == ["two-sided", "usual"]
    assert plain(Odd(2)) == {"two-sided": 2, "usual": 1}
    check(plain(Odd(2, rare=3)), schema, "odd")
    for wrong in ({"two_sided": 2, "usual": 1}, {"two-sided": 2}, {"two-sided": 2, "usual": 1, "rare": None}):
        with pytest.raises(UsageError):
            check(wrong, schema, "odd")


def test_a_schema_promises_nothing_that_is_not_checked() -> None:
    with pytest.raises(NotImplementedError, match="multipleOf"):
        check(1, {"type": "integer", "multipleOf": 2}, "odd")
