"""What the package's verbs are given, checked by their own annotations; whatever goes wrong is a `BautaError`.

>>> @checked
... def double(number: int, *, times: int | None = None) -> int:
...     return number * (2 if times is None else times)
>>> double(4)
8
>>> double("4")
Traceback (most recent call last):
bauta.errors.UsageError: double cannot take number='4'. It is a whole number.
"""

from __future__ import annotations

import collections.abc
import functools
import numbers
import os
import types
from collections.abc import Callable
from enum import Enum
from inspect import signature
from typing import Any, Literal, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from bauta.errors import BautaError, UsageError, as_bauta_error
from bauta.tables import shown

P = ParamSpec("P")
R = TypeVar("R")

_LARGEST = 1 << 63
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    bytes: "bytes",
    os.PathLike: "a path",
    type(None): "None",
}
_NAMES = {"ndarray": "an array", "Image": "a Pillow image", "Tensor": "a tensor"}  # of what is not imported here


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, refusing arguments that are not what its annotations say; whatever it raises is a `BautaError`.

    A call with missing or unknown arguments is a TypeError, as everywhere in Python.
    """
    about = signature(function)

    @functools.wraps(function)
    def checking(*arguments: P.args, **named: P.kwargs) -> R:
        for name, value in about.bind(*arguments, **named).arguments.items():
            hint = _hints(function).get(name, object)  # self and cls have none
            if not _fits(value, hint):
                raise UsageError(
                    f"{function.__name__} cannot take {name}={_shown(value)}.", hint=f"It is {_described(hint)}."
                )
        try:
            return function(*arguments, **named)
        except (BautaError, BrokenPipeError):  # a pipe that closes ends a command, and is not a failure
            raise
        except Exception as error:
            raise as_bauta_error(error) from error

    return checking


@functools.cache
def _hints(function: Callable[..., object]) -> dict[str, Any]:
    """The annotations, resolved at the first call: what they name is imported by then."""
    return get_type_hints(function)


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is tuple:
        return isinstance(value, tuple | list) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is collections.abc.Sequence:
        # A text is a sequence of texts too; whoever gives one means one.
        many = isinstance(value, collections.abc.Sequence) and not isinstance(value, str | bytes)
        return many and all(_fits(one, inner[0]) for one in value)  # type: ignore[attr-defined]
    if origin is collections.abc.Mapping:
        return isinstance(value, collections.abc.Mapping) and all(
            _fits(key, inner[0]) and _fits(one, inner[1]) for key, one in value.items()
        )
    if origin is collections.abc.Callable:
        return callable(value)
    if hint in (int, float):
        kind = numbers.Real if hint is float else numbers.Integral  # numpy's numbers too
        return isinstance(value, kind) and not isinstance(value, bool) and not abs(cast(Any, value)) >= _LARGEST
    return isinstance(value, origin or hint)


def _described(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        paths = any(get_origin(one) is os.PathLike for one in inner)
        words = [_described(one) for one in inner if not (paths and one is str)]
        words = list(dict.fromkeys(words))
        return ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
    if origin is Literal:
        return " or ".join(f"{one!r}" for one in inner)
    if origin is tuple:
        return f"a tuple of {len(inner)}, each {_described(inner[0])}"
    if origin is collections.abc.Sequence:
        return f"a list, each of its values {_described(inner[0])}"
    if origin is collections.abc.Mapping:
        return "a dict by name"
    if origin is collections.abc.Callable:
        return "a function"
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"a {kind.__name__}, such as {kind.__name__}.{next(iter(kind)).name}"
    return _WORDS.get(kind) or _NAMES.get(kind.__name__) or f"a {kind.__name__}"


def _shown(value: object) -> str:
    text = shown(value)
    return f"a {type(value).__name__}" if text == "a value of another kind" else text
