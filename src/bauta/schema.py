"""JSON schemas of typed records: the dataclass is the source, so that the two cannot tell different stories.

A record is a dataclass whose ``Attributes:`` describe its fields. A field with a default may be left out of the JSON;
any other is required, and what a record does not name is not allowed::

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

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from bauta.settings import Range, attribute_texts

_SCALARS = {str: "string", Path: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


@dataclass(frozen=True)
class Pattern:
    """Texts that a field may have.

    Attributes:
        regex: What must be found in it.
    """

    regex: str


SHA256 = Pattern("^[0-9a-f]{64}$")


def json_schema(record: type, identifier: str, *, complete: bool = False) -> dict[str, Any]:
    """The JSON schema of a record, draft 2020-12, complete in itself.

    Args:
        record: A dataclass. Its fields are texts, numbers, booleans, None, `Literal`, unions, lists and tuples, dicts
            by text, further records, and `Any`. `Annotated` bounds them: texts by a `Pattern`, numbers and
            the lengths of lists by a `Range` of ``at`` and ``to``.
        identifier: The schema's ``$id``, which files name as their ``schema``.
        complete: Whether every field must be there, also one that has a default.

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
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _of_record(record: type, complete: bool) -> dict[str, Any]:
    hints, texts = get_type_hints(record, include_extras=True), attribute_texts(record)
    properties = {}
    for one in fields(record):
        properties[one.name] = _of(hints[one.name], f"{record.__name__}.{one.name}", complete)
        if one.name in texts:
            properties[one.name]["description"] = texts[one.name]
    required = [
        one.name for one in fields(record) if complete or (one.default is MISSING and one.default_factory is MISSING)
    ]
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
