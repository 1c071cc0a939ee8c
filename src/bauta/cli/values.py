"""Values that people type: durations, boxes and lists of names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

import typer

from bauta.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A duration such as ``10s``, ``500ms``, ``2m`` or ``1.5`` in seconds.

    Raises:
        UsageError: when it is none, or is zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*", text)
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        raise UsageError(f"{text!r} is not a duration.", hint="Write it as 10s, 500ms or 2m.")
    return float(match[1]) * _UNITS[match[2]]


def box(text: str) -> tuple[float, float, float, float]:
    """A rectangle ``x,y,width,height`` in pixels.

    Raises:
        UsageError: when it is not four numbers.
    """
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a box.", hint="Write --box x,y,width,height in pixels, such as 120,80,200,240."
        ) from error
    return x, y, width, height


def face(text: str) -> tuple[int, Any]:
    """A face and what is done to it, ``2=blur``; which of the words are known is checked by the settings.

    Raises:
        UsageError: when it is not a number and a word.
    """
    number, equals, choice = text.partition("=")
    if not equals or not number.strip().isdecimal():
        raise UsageError(f"{text!r} says nothing of a face.", hint="Write --face 2=blur.")
    return int(number), choice.strip()


def names_option(what: str, *flags: str, default: str | bool = False) -> Any:
    """An option that takes names, see `names`; `default` is what help says of leaving it out."""
    text = f"{what} Separated by commas; may be repeated."
    return typer.Option(*flags, metavar="NAMES", help=text, show_default=default)


def names(options: Sequence[str] | None) -> tuple[str, ...] | Literal["auto"]:
    """Names of an option that may be repeated, each time with several separated by commas; ``auto`` where not given.

    Raises:
        UsageError: when a name is empty, or there are names beside ``auto``.
    """
    text = "auto" if options is None else ",".join(options)
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise UsageError(f"{text!r} holds an empty name.", hint="Separate names by single commas.")
    if "auto" in found and set(found) != {"auto"}:
        raise UsageError(f"{text!r} names some and leaves the choice open.", hint="Name all, or leave the option out.")
    return "auto" if "auto" in found else found


def chosen(options: Sequence[str] | None) -> tuple[str, ...] | None:
    """The same, but None for all.

    Raises:
        UsageError: as `names`.
    """
    found = names(options)
    return None if found == "auto" else found


def setting_pairs(texts: Sequence[str]) -> dict[str, Any]:
    """Settings from NAME=VALUE; a value is JSON where it can be read so, or text; commas separate a list.

    Raises:
        UsageError: when one has another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{text!r} is not a setting.", hint="Write --set epsilon=0.5.")
        whole = plain(value)
        found[name] = listed(value) if isinstance(whole, str) and "," in value else whole
    return found


def listed(text: str) -> list[Any]:
    """The values of a list that is written with commas."""
    return [plain(part) for part in text.split(",")]


def plain(text: str) -> Any:
    """A value as JSON where it can be read so, or as text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
