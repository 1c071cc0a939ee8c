"""Reading an ONNX file with care, before anything runs it. This module knows no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.unknown_fields import UnknownFieldSet

from bauta.errors import BautaError, UnsupportedOperator, WeightsCorrupt
from bauta.tables import printable, shown

OLDEST_OPSET = 7
LARGEST_SHAPE = 1 << 30  # numbers that a shape may declare; a file holds 1 GiB at most
ELSEWHERE = frozenset({"EPContext"})  # operators that name other files by themselves

_ONE_FILE = "Save it as one file (onnx.save with save_as_external_data=False)."
_FETCH = "Fetch the file again."
# What ONNX Runtime puts before the reason: where in the library, in which node, and a number of its own.
_BEFORE = tuple(
    map(
        re.compile,
        (r"Status Message: ", r"\[\w+Error\] ", r" Error ", r"(?:This is an i|I)nvalid model\. (?:Error: )?", r" : "),
    )
)
_NOTHING_SAID = "it does not hold together"
_PACKED = 4  # bits of the smallest element type


def read_proto(content: bytes, *, complaint: str = "Not an ONNX file", hint: str = _FETCH, filled: bool = True) -> Any:
    """A model whose every part was looked at: it holds all of its weights, and says how many they are truly.

    Graphs lie in graphs: in the branches of If, the bodies of Loop and Scan, functions, training information. A tensor
    anywhere in them may name another file, which ONNX Runtime then reads from the folder one happens to be in, so that
    the SHA-256 of the file vouches for nothing. All messages are walked, whatever they belong to.

    Args:
        content: The file's bytes.
        complaint: How an error begins when the bytes are not a model.
        hint: What to do then.
        filled: Whether the weights are in it; otherwise only their shapes are looked at, and the caller minds the rest.

    Raises:
        WeightsCorrupt: when the bytes are not an ONNX model, keep data in other files anywhere, declare more numbers
            than they hold, or have parts that this version of the format does not know and nobody has checked.
    """
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own error classes are not public
        raise WeightsCorrupt(f"{complaint}: it cannot be parsed.", hint=hint) from error
    if not proto.graph.node:
        raise WeightsCorrupt(f"{complaint}: it has no operators.", hint=hint)
    for message in messages(proto):
        _check(message, filled=filled)
    return proto


def messages(message: Any) -> Iterator[Any]:
    """The protobuf message and all inside it, so that no subgraph is forgotten."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        yield one
        for field, value in one.ListFields():
            if field.type == field.TYPE_MESSAGE:
                waiting.extend([value] if hasattr(value, "ListFields") else value)


def _check(message: Any, *, filled: bool) -> None:
    if len(UnknownFieldSet(message)):
        raise WeightsCorrupt(
            "The ONNX file has parts that this version of the format does not know, so that they cannot be checked.",
            hint="Export the network with an older version of ONNX, or update the package onnx.",
        )
    if isinstance(message, onnx.TensorProto):
        if message.external_data or message.data_location == onnx.TensorProto.EXTERNAL:
            raise WeightsCorrupt(f"The ONNX file keeps {shown(message.name)} in another file.", hint=_ONE_FILE)
        declared = _check_shape(message.dims, message.name)
        if filled:
            _check_held(message, declared)
    elif isinstance(message, onnx.SparseTensorProto):
        _check_shape(message.dims, message.values.name)
    elif isinstance(message, onnx.ValueInfoProto):
        for shape in messages(message.type):
            if isinstance(shape, onnx.TensorShapeProto):
                _check_shape([axis.dim_value or 1 for axis in shape.dim], message.name)
    elif isinstance(message, onnx.NodeProto) and message.op_type in ELSEWHERE:
        raise WeightsCorrupt(
            f"The operator {shown(message.op_type)} keeps the network in another file.", hint="Export it as plain ONNX."
        )


def _check_shape(shape: Any, name: str) -> int:
    """How many numbers a declared shape has, where a network can have so many."""
    count = math.prod(map(int, shape))
    if any(size < 0 for size in shape) or count > LARGEST_SHAPE:
        raise WeightsCorrupt(
            f"{shown(name)} of the ONNX file declares the shape {shown(list(shape))}.",
            hint=f"No side is negative, and there are at most {LARGEST_SHAPE} numbers: export the network anew.",
        )
    return count


def _check_held(tensor: Any, declared: int) -> None:
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    if tensor.data_type == onnx.TensorProto.STRING:
        held = len(tensor.string_data)
    elif tensor.raw_data:
        held = len(tensor.raw_data) * 8 // _bits(tensor.data_type)
    else:  # complex numbers take two, and two of four bits take one
        held = max(map(len, fields)) * (2 if _bits(tensor.data_type) <= _PACKED else 1)
    if declared > held:
        raise WeightsCorrupt(
            f"{shown(tensor.name)} of the ONNX file declares {shown(list(tensor.dims))}, {declared} numbers, "
            f"and holds {held}.",
            hint=_FETCH,
        )


def _bits(kind: int) -> int:
    """Bits of an element; of a type that is not known the fewest there are."""
    try:
        name = onnx.TensorProto.DataType.Name(kind)
        if name.endswith(("INT4", "4E2M1", "INT2")):
            return 2 if name.endswith("INT2") else _PACKED
        return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize) * 8
    except (KeyError, ValueError, TypeError):
        return _PACKED


def parse_graph(model: bytes) -> tuple[onnx.GraphProto, int]:
    """The graph and the version of its operator set.

    Raises:
        WeightsCorrupt: as `read_proto`.
        UnsupportedOperator: when the operator set is older than 7.
    """
    proto = read_proto(model)
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    opset = max(versions, default=0)
    if opset < OLDEST_OPSET:
        raise UnsupportedOperator(
            f"ONNX operator set {opset} is too old.",
            hint=f"Export with operator set {OLDEST_OPSET} or later.",
        )
    return proto.graph, opset


def reason(error: BaseException) -> str:
    """What a library says of a graph it cannot run, on one line and without its own names.

    An error of ours is told in full; of Python's own kinds only those that are written for people.
    """
    if isinstance(error, BautaError):
        return error.message
    if not isinstance(error, RuntimeError | ValueError) and type(error).__module__ == "builtins":
        return _NOTHING_SAID
    text = " ".join(str(error).split()).removeprefix("[ONNXRuntimeError] : ")
    for mark in _BEFORE:
        if mark.search(text):
            text = mark.split(text)[-1]
            break
    insides = re.search(r"::|_src/|\.cc\b|0x[0-9a-f]{6}|torch\.|dtype|NoneType", text)
    return _NOTHING_SAID if insides or not text else printable(text[:200]).rstrip(". ")
