"""JSON schemas of typed records: the dataclass is the source, so that the two cannot tell different stories.

A record is a dataclass whose ``Attributes:`` describe its fields. A field with a default may be left out of the JSON;
any other is required, and what a record does not name is not allowed. `check` compares JSON with a schema::

    @dataclass(frozen=True)
    class Size:
        \"\"\"How large a photo is.

        Attributes:
            width: In pixels.
            unit: What the width is in.
        \"\"\"

        width: Annotated[int, Range(at=1)]
        unit: Literal["pixel", "inch"] = "pixel"

>>> from bauta.settings import Option
>>> json_schema(Option, "example/1")["properties"]["optional"]
{'type': 'boolean', 'description': 'Whether None is allowed.'}
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from bauta.errors import UsageError
from bauta.settings import Range, attribute_texts

_SCALARS = {str: "string", Path: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": int,
}
_KEYWORDS = {
    "$schema", "$id", "title", "description", "type", "enum", "const", "anyOf", "pattern", "minimum", "maximum",
    "minItems", "maxItems", "items", "required", "properties", "additionalProperties",
}  # fmt: skip

_ECMA_END = re.compile(r"\$$")  # the end of the text; Python's `$` also lies before a last line break

ABSENT: Any = object()
"""Default of a field that JSON may lack even where all others must be there."""


@dataclass(frozen=True)
class Pattern:
    """Texts that a field may have.

    Attributes:
        regex: What must be found in it.
    """

    regex: str


@dataclass(frozen=True)
class Key:
    """What JSON calls a field, where Python cannot: ``Annotated[Interval, Key("one-sided")]``.

    Attributes:
        name: In JSON.
    """

    name: str


SHA256 = Pattern("^[0-9a-f]{64}$")
Sha256 = Annotated[str, SHA256]
Count = Annotated[int, Range(at=0)]


def json_schema(record: type, identifier: str, *, complete: bool = False) -> dict[str, Any]:
    """The JSON schema of a record, draft 2020-12, complete in itself.

    Args:
        record: A dataclass. Its fields are texts, numbers, booleans, None, `Literal`, unions, lists and tuples, dicts
            by text, further records, and `Any`. `Annotated` bounds them: texts by a `Pattern`, numbers and
            the lengths of lists by a `Range` of ``at`` and ``to``.
        identifier: The schema's ``$id``, which files name as their ``schema``.
        complete: Whether every field must be there, also one that has a default; one that is `ABSENT` may be missing.

    Raises:
        TypeError: when a field has a type that JSON cannot hold.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": identifier,
        "title": (record.__doc__ or "").partition("\n")[0].rstrip("."),
        **_of_record(record, complete),
    }


def plain(value: Any) -> Any:
    """A record as `json.loads` would give it back: dataclasses become dicts, tuples and sets lists, paths text."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {key: getattr(value, name) for name, key in _keys(type(value)).items()}
        return {key: plain(inner) for key, inner in found.items() if inner is not ABSENT}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


@cache
def _keys(record: Any) -> dict[str, str]:
    """By name of a field what JSON calls it."""
    hints = get_type_hints(record, include_extras=True)
    extras = {one.name: getattr(hints[one.name], "__metadata__", ()) for one in fields(record)}
    return {name: next((one.name for one in found if isinstance(one, Key)), name) for name, found in extras.items()}


def _of_record(record: type, complete: bool) -> dict[str, Any]:
    hints, texts, keys = get_type_hints(record, include_extras=True), attribute_texts(record), _keys(record)
    properties, required = {}, []
    for one in fields(record):
        key = keys[one.name]
        properties[key] = _of(hints[one.name], f"{record.__name__}.{one.name}", complete)
        if one.name in texts:
            properties[key]["description"] = texts[one.name]
        bare = one.default is MISSING and one.default_factory is MISSING
        if bare or (complete and one.default is not ABSENT):
            required.append(key)
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _of(hint: Any, where: str, complete: bool) -> dict[str, Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _bounded(_of(inner[0], where, complete), inner[1:], where)
    if hint is Any:
        return {}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if origin is Literal:
        return {"const": inner[0]} if len(inner) == 1 else {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        return _of_union([_of(one, where, complete) for one in inner])
    if origin is tuple and inner[-1] is not Ellipsis and len(set(inner)) == 1:
        return {
            "type": "array",
            "items": _of(inner[0], where, complete),
            "minItems": len(inner),
            "maxItems": len(inner),
        }
    if origin in (list, tuple) and (origin is list or inner[-1] is Ellipsis):
        return {"type": "array", "items": _of(inner[0], where, complete)}
    if origin is dict and inner[0] is str:
        return {"type": "object", "additionalProperties": _of(inner[1], where, complete)}
    if isinstance(hint, type) and is_dataclass(hint):
        return _of_record(hint, complete)
    raise TypeError(f"{where}: JSON has no {hint!r}")


def _of_union(options: list[dict[str, Any]]) -> dict[str, Any]:
    if all(option.keys() == {"type"} for option in options):
        return {"type": [option["type"] for option in options]}
    return {"anyOf": options}


def _bounded(schema: dict[str, Any], bounds: Sequence[Any], where: str) -> dict[str, Any]:
    for bound in bounds:
        if isinstance(bound, Pattern):
            schema["pattern"] = bound.regex
        elif isinstance(bound, Range):
            if bound.above is not None or bound.below is not None:
                raise TypeError(f"{where}: a record's range has only `at` and `to`")
            low, high = ("minItems", "maxItems") if schema.get("type") == "array" else ("minimum", "maximum")
            schema |= {key: value for key, value in ((low, bound.at), (high, bound.to)) if value is not None}
    return schema


def check(value: Any, schema: dict[str, Any], where: str) -> None:
    """Compare plain values with a schema.

    Args:
        value: What `json.loads` gives.
        schema: With the keywords that `json_schema` uses; others are refused, lest one promise what none checks.
        where: What the value is called in messages.

    Raises:
        UsageError: at the first place that does not follow the schema; the message names it.
        NotImplementedError: when the schema has a keyword that is not known here.
    """
    if unknown := schema.keys() - _KEYWORDS:
        raise NotImplementedError(f"{where}: {', '.join(sorted(unknown))}")
    if "anyOf" in schema and not any(_fits(value, option) for option in schema["anyOf"]):
        raise _wrong(where, value, "has none of the forms that are allowed")
    if "const" in schema and value != schema["const"]:
        raise _wrong(where, value, f"is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        raise _wrong(where, value, f"is none of {', '.join(map(str, schema['enum']))}")
    _check_type(value, schema, where)
    if isinstance(value, str) and not re.search(_ECMA_END.sub(r"\\Z", schema.get("pattern", "")), value):
        raise _wrong(where, value, f"does not match {schema['pattern']}")
    if isinstance(value, int | float):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not low <= value <= high or value in (math.inf, -math.inf):  # which JSON cannot hold, and Python reads
            raise _wrong(where, value, f"is not in {low:g} to {high:g}")
    if isinstance(value, list):
        _check_list(value, schema, where)
    if isinstance(value, dict):
        _check_table(value, schema, where)


def _check_list(value: list[Any], schema: dict[str, Any], where: str) -> None:
    if len(value) < schema.get("minItems", 0):
        raise _wrong(where, value, f"has fewer than {schema['minItems']} entries")
    if len(value) > schema.get("maxItems", len(value)):
        raise _wrong(where, value, f"has more than {schema['maxItems']} entries")
    for index, item in enumerate(value):
        check(item, schema.get("items", {}), f"{where}[{index}]")


def _check_table(value: dict[str, Any], schema: dict[str, Any], where: str) -> None:
    if missing := set(schema.get("required", ())) - value.keys():
        raise _wrong(where, sorted(value), f"lacks {', '.join(sorted(missing))}")
    for key, item in value.items():
        inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
        if inner is False:
            raise _wrong(where, key, "is not a known field")
        check(item, inner if isinstance(inner, dict) else {}, f"{where}.{key}")


def _check_type(value: Any, schema: dict[str, Any], where: str) -> None:
    kinds = schema.get("type", [])
    wanted = [kinds] if isinstance(kinds, str) else kinds
    right = [kind for kind in wanted if isinstance(value, _TYPES[kind])]
    if isinstance(value, bool):
        right = [kind for kind in right if kind == "boolean"]
    if wanted and not right:
        raise _wrong(where, value, f"is not of type {' or '.join(wanted)}")


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    try:
        check(value, schema, "")
    except UsageError:
        return False
    return True


def _wrong(where: str, value: Any, what: str) -> UsageError:
    shown = repr(value)
    return UsageError(
        f"{where}: {shown if len(shown) < 60 else shown[:57] + '...'} {what}.",
        hint="The file is damaged or was edited: run the benchmark again.",
    )
