"""The ``.bin`` files in which InsightFace hands out LFW, CFP-FP, AgeDB-30, CALFW and CPLFW.

They are pickles, and no pickle is ever loaded here: their opcodes are listed by `pickletools` and a few of them are
followed, which can only build lists, tuples, bytes, text, booleans and whole numbers.
"""

from __future__ import annotations

import itertools
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Pairs of faces and whether they show one person.

    Attributes:
        first: P images, the bytes of a JPEG, PNG or WebP file each.
        second: The same.
        same: (P,) bool.
    """

    first: tuple[bytes, ...]
    second: tuple[bytes, ...]
    same: NDArray[np.bool_]


def read_pairs(path: Path) -> EncodedPairs:
    """The pairs of a ``.bin`` file; the images are not decoded.

    It is a pickle of (encoded images, two for each pair; a truth value for each pair). The images are bytes, or
    numpy arrays of uint8 with such bytes; for these the names `_ADMITTED` are understood, not imported or called.

    Raises:
        UsageError: when the file holds anything else.
    """
    try:
        images, same = _two_lists(_follow_pickle(path.read_bytes()))
        contents = tuple(_bytes_of(image) for image in images)
        truth = [bool(value) for value in same if isinstance(value, int)]
        if not truth or not len(truth) == len(same) == len(contents) / 2:
            raise ValueError(f"it has {len(contents)} images for {len(same)} pairs")
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a file of verification pairs: {error}.",
            hint="A pickle with a list of encoded images and a list of truth values is wanted.",
        ) from error
    return EncodedPairs(contents[0::2], contents[1::2], np.array(truth))


_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how protocol 2 writes the bytes of Python 3
    *itertools.product(_ARRAY_MODULES, ("_reconstruct", "_frombuffer", "scalar")),
}


@dataclass(frozen=True)
class _Named:
    """A function or class that a pickle names; nothing but its name."""

    name: str


@dataclass
class _Array:
    """What a pickle says of a numpy array."""

    kind: str = ""
    shape: object = ()
    content: bytes = b""

    def values(self, kind: str) -> bytes:
        if self.kind != kind or self.shape != (len(self.content),):
            raise ValueError(f"an array of kind {self.kind!r} and shape {self.shape}")
        return self.content


def _two_lists(value: object) -> tuple[Sequence[object], Sequence[object]]:
    match value:
        case (list(images), list(same)) | [list(images), list(same)]:
            return images, same
        case (list(images), _Array() as same) | [list(images), _Array() as same]:
            return images, list(same.values("b1"))
    raise TypeError("it is not two lists")


def _bytes_of(image: object) -> bytes:
    content = image.values("u1") if isinstance(image, _Array) else image
    if not isinstance(content, bytes):
        raise TypeError(f"an image is a {type(content).__name__}")
    return content


def _call(function: object, arguments: object) -> object:
    """What the functions of `_ADMITTED` would make, told apart by name and form of their arguments."""
    match function, arguments:
        case _Named("dtype"), (str(kind), *_):
            return _Named(kind)
        case _Named("_reconstruct"), (_Named("ndarray"), *_):
            return _Array()
        case _Named("_frombuffer"), (bytes(content), _Named(kind), shape, *_):
            return _Array(kind, shape, content)
        case _Named("scalar"), (_Named("b1"), bytes(content)):
            return content != b"\0"
        case _Named("encode"), (str(text), "latin1"):
            return text.encode("latin-1")
    raise ValueError("it asks for something to be called")


def _build(target: object, state: object) -> None:
    match target, state:
        case _Array(), (_, shape, _Named(kind), _, bytes(content)):
            target.kind, target.shape, target.content = kind, shape, content
        case _Named(), tuple():  # the byte order of a dtype; one byte has none
            pass
        case _:
            raise ValueError("it asks for something to be built")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS_AND_TEXTS = {"INT", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _follow_pickle(content: bytes) -> object:
    """The value a pickle describes, of the few kinds that verification pairs need.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: when it is damaged or asks for anything else.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "STOP":
            return machine.stack.pop()
        if not (machine.value(opcode.name, argument) or machine.container(opcode.name)):
            machine.other(opcode.name, argument)
    raise ValueError("it ends early")


class _Machine:
    """The stack that a pickle's operations work on; each method does some of them, the first two where they can."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[object, object] = {}

    def value(self, name: str, argument: Any) -> bool:
        """Push what stands in the pickle itself."""
        match name:
            case name if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            case name if name in _NUMBERS_AND_TEXTS:
                self.stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                self.stack.append(bytes(argument))
            case "BINSTRING" | "SHORT_BINSTRING":  # the bytes of Python 2, which pickletools shows as Latin-1
                self.stack.append(argument.encode("latin-1"))
            case "EMPTY_LIST":
                self.stack.append([])
            case _:
                return False
        return True

    def container(self, name: str) -> bool:
        """Make lists and tuples of what lies on the stack."""
        match name:
            case "MARK":
                self.marks.append(self.stack)
                self.stack = []
            case "LIST" | "TUPLE":
                values, self.stack = self.stack, self.marks.pop()
                self.stack.append(values if name == "LIST" else tuple(values))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                values = [self.stack.pop() for _ in range(_TUPLES[name])]
                self.stack.append(tuple(reversed(values)))
            case "APPEND":
                value = self.stack.pop()
                _list(self.stack[-1]).append(value)
            case "APPENDS":
                values, self.stack = self.stack, self.marks.pop()
                _list(self.stack[-1]).extend(values)
            case _:
                return False
        return True

    def other(self, name: str, argument: Any) -> None:
        """Remember and recall values, and make the few objects that are admitted."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "GLOBAL":
                self.stack.append(_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute = self.stack.pop()
                self.stack.append(_name(self.stack.pop(), attribute))
            case "REDUCE":
                arguments = self.stack.pop()
                self.stack.append(_call(self.stack.pop(), arguments))
            case "BUILD":
                state = self.stack.pop()
                _build(self.stack[-1], state)
            case _:
                raise ValueError(f"it asks for {name}")


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("it appends to what is not a list")
    return value


def _name(module: object, name: object) -> _Named:
    if (module, name) not in _ADMITTED:
        raise ValueError(f"it names {module}.{name}")
    return _Named(str(name))
