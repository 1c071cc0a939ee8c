"""The part of JSON Schema that result cards need, checked without a further dependency.

Keywords that are not known here are refused, so that a schema never promises what nobody checks.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from importlib.resources import files
from typing import Any

from bauta.errors import UsageError

_ANNOTATIONS = {"$schema", "$id", "$defs", "title", "description"}
_KEYWORDS = _ANNOTATIONS | {"$ref", "type", "enum", "const", "anyOf", "pattern", "minimum", "maximum"}
_KEYWORDS |= {"minItems", "maxItems", "items", "required", "properties", "additionalProperties"}
_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": int,
}


_FILES = {"bauta.benchmark/2": "card.schema.json", "bauta.templates/1": "template_card.schema.json"}


@cache
def card_schema(family: str = "bauta.benchmark/2") -> dict[str, Any]:
    """The schema of a family of result cards."""
    text = files("bauta.benchmark").joinpath(_FILES[family]).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check(value: Any, schema: dict[str, Any], where: str, *, root: dict[str, Any] | None = None) -> None:
    """Compare plain values with a schema.

    Args:
        value: What `json.loads` gives.
        schema: With the keywords of this module; ``$ref`` leads into the ``$defs`` of the root.
        where: What the value is called in messages.
        root: The whole schema, when `schema` is a part of it.

    Raises:
        UsageError: at the first place that does not follow the schema; the message names it.
        NotImplementedError: when the schema has a keyword that is not known here.
    """
    root = schema if root is None else root
    if unknown := schema.keys() - _KEYWORDS:
        raise NotImplementedError(f"{where}: {', '.join(sorted(unknown))}")
    if "$ref" in schema:
        check(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], where, root=root)
    if "anyOf" in schema and not any(_fits(value, option, root) for option in schema["anyOf"]):
        raise _wrong(where, value, "has none of the forms that are allowed")
    if "const" in schema and value != schema["const"]:
        raise _wrong(where, value, f"is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        raise _wrong(where, value, f"is none of {', '.join(map(str, schema['enum']))}")
    _check_type(value, schema, where)
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        raise _wrong(where, value, f"does not match {schema['pattern']}")
    if isinstance(value, int | float):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not low <= value <= high:
            raise _wrong(where, value, f"is not in {low:g} to {high:g}")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            raise _wrong(where, value, f"has fewer than {schema['minItems']} entries")
        if len(value) > schema.get("maxItems", len(value)):
            raise _wrong(where, value, f"has more than {schema['maxItems']} entries")
        for index, item in enumerate(value):
            check(item, schema.get("items", {}), f"{where}[{index}]", root=root)
    if isinstance(value, dict):
        if missing := set(schema.get("required", ())) - value.keys():
            raise _wrong(where, sorted(value), f"lacks {', '.join(sorted(missing))}")
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            if inner is False:
                raise _wrong(where, key, "is no field that is known")
            check(item, inner if isinstance(inner, dict) else {}, f"{where}.{key}", root=root)


def _check_type(value: Any, schema: dict[str, Any], where: str) -> None:
    kinds = schema.get("type", [])
    wanted = [kinds] if isinstance(kinds, str) else kinds
    right = [kind for kind in wanted if isinstance(value, _TYPES[kind])]
    if isinstance(value, bool):
        right = [kind for kind in right if kind == "boolean"]
    if wanted and not right:
        raise _wrong(where, value, f"is no {' or '.join(wanted)}")


def _fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    try:
        check(value, schema, "", root=root)
    except UsageError:
        return False
    return True


def _wrong(where: str, value: Any, what: str) -> UsageError:
    shown = repr(value)
    return UsageError(
        f"{where}: {shown if len(shown) < 60 else shown[:57] + '...'} {what}.",
        hint="The file is damaged or was edited: run the benchmark again.",
    )
