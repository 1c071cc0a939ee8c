"""Text files from elsewhere: read within limits, and their values shown as people write them, never as Python's."""

from __future__ import annotations

import math
import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bauta.errors import UsageError

LARGEST_TEXT = 1 << 16  # bytes of a card; each here has a few thousand
LARGEST_NUMBER = 1 << 63
DEEPEST = 8  # tables and lists inside each other
LONGEST_LINE = 4096  # letters
_LONG_NUMBER = re.compile(r"[0-9_]{4000}")
_MANY_BRACKETS = re.compile(r"[\[{ ]{50}")
_SHOWN = 60  # letters of a value in a message
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, format, surrogate, and line separators


def read_text(path: Path, what: str, *, limit: int = LARGEST_TEXT) -> str:
    """A small UTF-8 file as text.

    Args:
        path: The file; pipes and devices are refused, as they may never end.
        what: What it should be, for messages: ``the card``.
        limit: Bytes it may have.

    Raises:
        UsageError: when it cannot be read, is too large, or is not text.
    """
    hint = "Give a TOML file."
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file.", hint=hint)
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except (OSError, ValueError) as error:  # a name with a NUL in it is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "its name is not allowed"
        raise UsageError(f"Cannot read {what} {path}: {reason}.", hint=hint) from error
    if len(content) > limit:
        raise UsageError(f"{path} has more than {limit} bytes, too many for {what}.", hint="Is it the right file?")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.", hint=hint) from error


def parse_toml(text: str, origin: str, *, hint: str = "Correct it, or give another file.") -> dict[str, Any]:
    """The table that TOML text holds.

    Args:
        text: The text.
        origin: Where it comes from, for messages.
        hint: What to do about text that is not valid.

    Raises:
        UsageError: when it is not valid TOML, or is nested more than 8 deep.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is not valid TOML: {error}.", hint=hint) from error
    except ValueError as error:  # Python reads no longer numbers
        field = _field(_LONG_NUMBER, text)
        raise UsageError(f"{origin}: {field} holds a number with thousands of digits.", hint=hint) from error
    except RecursionError:
        field = _field(_MANY_BRACKETS, text)
        raise UsageError(f"{origin}: {field} is nested more than {DEEPEST} deep.", hint=hint) from None
    for key, value in table.items():
        level: list[Any] = [value]
        for _ in range(DEEPEST):
            level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
        if level:
            raise UsageError(f"{origin}: {shown(key)} is nested more than {DEEPEST} deep.", hint=hint)
    return table


def _inside(value: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
    return list(value.values() if isinstance(value, Mapping) else value)


def _field(pattern: re.Pattern[str], text: str) -> str:
    """The key of the line that the parser gave up in, as far as one can tell without it."""
    for line in text.splitlines():
        if pattern.search(line):
            return shown(line.partition("=")[0].strip())
    return "a field"


def shown(value: object) -> str:
    """A value for a message: short, and in the file's terms, not in Python's.

    >>> shown(True), shown("RGB"), shown([1, 2]), shown({"a": 1}), shown(10**30)
    ('true', "'RGB'", '[1, 2]', 'a table', 'a number of 31 digits')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return (
            str(value) if abs(value) < 10**15 else f"a number of {int(value.bit_length() * math.log10(2)) + 1} digits"
        )
    if isinstance(value, float):
        return f"{value!r}"
    if isinstance(value, str):
        text = printable(value[: _SHOWN + 1])
        return f"'{text}'" if len(value) <= _SHOWN else f"'{text[:_SHOWN]}...'"
    if isinstance(value, list | tuple):
        flat = not any(isinstance(one, list | tuple | dict) for one in value[:_SHOWN])
        text = ", ".join(map(shown, value[:_SHOWN])) if flat else ""
        return f"[{text}]" if flat and len(text) <= _SHOWN else f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, set | frozenset):
        return shown(sorted(map(str, value)))
    return "a date or a time" if hasattr(value, "isoformat") else "a value of another kind"


def printable(text: str) -> str:
    """The text with a mark for each letter that cannot be seen, or that a terminal obeys."""
    return "".join("\ufffd" if unicodedata.category(one) in _UNSEEN else one for one in text)


def one_line(text: object, longest: int = LONGEST_LINE) -> bool:
    """Whether it is text of one line, without control characters and other letters that cannot be seen."""
    return (
        isinstance(text, str) and len(text) <= longest and not any(unicodedata.category(one) in _UNSEEN for one in text)
    )


def within(value: object, low: float, high: float) -> bool:
    """Whether it is a number (true and false are none) from low to high; NaN never is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def plain(value: object) -> bool:
    """Whether it is one line of text, a finite number of at most 64 bits, true or false."""
    return (
        isinstance(value, bool)
        or one_line(value)
        or (isinstance(value, int) and -LARGEST_NUMBER <= value < LARGEST_NUMBER)
        or (isinstance(value, float) and math.isfinite(value))
    )
