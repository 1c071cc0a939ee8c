"""A whole recogniser in one safetensors file: the weights as tensors, the network they belong to in the header.

Such a file holds no code, and numpy alone reads it. Its schema, version 1 (our design)::

    tensors           the ONNX graph's initialisers by name: floating ones of more than 64 elements in float16,
                      all others (shapes, scalars, short biases) in their own type
    bauta.schema      in the header's metadata: "1"
    bauta.graph       the same place: base64 of the ONNX ModelProto whose initialisers keep name, type and
                      dimensions but no values

This module knows no torch.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import onnx
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from onnx import numpy_helper

from bauta.errors import UsageError, WeightsCorrupt
from bauta.recognizers.cards import LARGEST_WEIGHTS, RecognizerCard, read_weights
from bauta.recognizers.onnx.graph import messages, read_proto

SCHEMA = "1"
SMALL = 64  # elements up to which a floating tensor keeps its type
LARGEST_HALF = float(np.finfo(np.float16).max)

_METADATA = "__metadata__"  # safetensors' name for it in the header, so no tensor may have it
_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "uint64": "U64",
    "int32": "I32",
    "uint32": "U32",
    "int16": "I16",
    "uint16": "U16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_TYPES = {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)): np.dtype(name) for name in _NAMES}
_FETCH = "Fetch the file again."


def read_model(card: RecognizerCard) -> bytes:
    """A card's network as one complete ONNX model, after its weights' SHA-256 was checked.

    Raises:
        UsageError: when the card's format has no ONNX form.
        WeightsMissing: when the weights are not there.
        WeightsCorrupt: when they are not what the card says, or no packed network.
    """
    if card.format == "dlib":
        raise UsageError(
            f"The weights of {card.name!r} are in dlib's own format.",
            hint="Choose a recogniser in ONNX or safetensors.",
        )
    content = read_weights(card)
    if card.format == "onnx":
        return content
    try:
        return unpack(content)
    except WeightsCorrupt as error:
        raise WeightsCorrupt(f"{card.weights}: {error.message}", hint=error.hint) from error


def pack(model: bytes) -> bytes:
    """An ONNX model as packed safetensors; the same model gives the same bytes.

    Weights are rounded to float16 (relative error 2**-11, absolute 3e-8 below 6e-5). Constant nodes of more than
    64 floating elements become initialisers. Documentation and metadata of the model are left out: they change
    no result, and exporters write their machine's paths into them.

    Args:
        model: One complete ONNX file.

    Raises:
        WeightsCorrupt: when the bytes are not such a model, or a weight is NaN, infinite, or beyond float16's 65504.
        UsageError: when a weight has an element type or a name that cannot be packed.
    """
    proto = read_proto(model, hint="Give one complete ONNX file.", filled=False)
    for message in list(messages(proto)):
        for field in ("doc_string", "metadata_props"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    _move_constants(proto)
    tensors = {}
    for name, tensor in _initializers(proto).items():
        if tensor.data_type not in _TYPES or name == _METADATA:
            raise UsageError(
                f"Weight {name!r} of element type {_kind(tensor)} cannot be packed.",
                hint=f"Export the network in float32, with weights called otherwise than {_METADATA}.",
            )
        try:
            value = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise WeightsCorrupt(f"Weight {name!r} cannot be read: {error}", hint="Export the network anew.") from error
        _check_finite(name, value)
        stored = _stored_type(tensor)
        if stored != value.dtype and np.abs(value).max() > LARGEST_HALF:
            raise WeightsCorrupt(
                f"Weight {name!r} reaches {np.abs(value).max():.4g}; float16 ends at {LARGEST_HALF:g}.",
                hint="Fold or rescale the layer before the export.",
            )
        tensors[name] = value.astype(stored, order="C")
        tensor.CopyFrom(onnx.TensorProto(name=name, data_type=tensor.data_type, dims=tensor.dims))
    graph = base64.b64encode(proto.SerializeToString(deterministic=True)).decode("ascii")
    content = _with_metadata(safetensors.numpy.save(tensors), {"bauta.graph": graph, "bauta.schema": SCHEMA})
    unpack(content)  # what cannot be read back, being too large, is not handed out
    return content


def unpack(content: bytes) -> bytes:
    """The complete ONNX model of a packed file; its weights have the graph's own types again, float32 as a rule.

    Raises:
        WeightsCorrupt: when the bytes are not a safetensors file of this module's schema, its tensors are not
            exactly those of the graph, a value is NaN or infinity, or the file or the model exceed 1 GiB.
    """
    _check_size(len(content))
    try:  # checks the header's length and every offset before it takes any memory
        tensors = dict(safetensors.deserialize(content))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise WeightsCorrupt(f"Not a whole safetensors file: {error}.", hint=_FETCH) from error
    proto = _graph(_header(content).get(_METADATA) or {})
    wanted = _initializers(proto)
    for names, what in (
        (wanted.keys() - tensors.keys(), "is missing"),
        (tensors.keys() - wanted.keys(), "is not in the graph"),
    ):
        if names:
            raise WeightsCorrupt(f"The tensor {min(names)!r} {what}.", hint=_FETCH)
    for name, tensor in wanted.items():
        found = tensors[name]["dtype"], list(tensors[name]["shape"])
        if tensor.data_type not in _TYPES or found != (_NAMES[_stored_type(tensor).name], list(tensor.dims)):
            raise WeightsCorrupt(
                f"The tensor {name!r} is {found[0]} of shape {found[1]}; "
                f"the graph has {_kind(tensor)} of shape {list(tensor.dims)}.",
                hint=_FETCH,
            )
    # Half the size in float16: only now is it known, and bounded, how large the model becomes.
    _check_size(sum(math.prod(tensor.dims) * _TYPES[tensor.data_type].itemsize for tensor in wanted.values()))
    for name, tensor in wanted.items():
        stored = np.frombuffer(tensors.pop(name)["data"], _stored_type(tensor).newbyteorder("<"))
        _check_finite(name, stored)
        value = stored.reshape(tuple(tensor.dims)).astype(_TYPES[tensor.data_type])
        tensor.CopyFrom(numpy_helper.from_array(value, name))
    model: bytes = proto.SerializeToString(deterministic=True)
    return model


def _graph(metadata: dict[str, str]) -> Any:
    """The ModelProto without values that the metadata hold."""
    schema = metadata.get("bauta.schema")
    if schema is None:
        raise WeightsCorrupt("A safetensors file, but no recogniser: bauta.schema is missing.", hint=_FETCH)
    if schema != SCHEMA:
        raise WeightsCorrupt(f"The packed network has schema {schema!r}, not {SCHEMA!r}.", hint="Update Bauta.")
    if "bauta.graph" not in metadata:
        raise WeightsCorrupt("The packed network has no bauta.graph.", hint=_FETCH)
    try:
        graph = base64.b64decode(metadata["bauta.graph"], validate=True)
    except ValueError as error:
        raise WeightsCorrupt(f"The graph of the packed network is not base64: {error}.", hint=_FETCH) from error
    return read_proto(graph, complaint="The packed network has no ONNX graph", filled=False)


def _initializers(proto: Any) -> dict[str, Any]:
    counts = Counter(tensor.name for tensor in proto.graph.initializer)
    for name, count in counts.items():
        if count > 1 or not name:
            raise WeightsCorrupt(
                f"{count} weights of the graph are called {name!r}.", hint="Export the network with distinct names."
            )
    return {tensor.name: tensor for tensor in proto.graph.initializer}


def _move_constants(proto: Any) -> None:
    """Make initialisers of the large floating constants among the graph's nodes."""
    kept = []
    for node in proto.graph.node:
        tensor = _large_constant(node) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(node)
        else:
            proto.graph.initializer.append(tensor)
            proto.ir_version = max(proto.ir_version, 4)  # before, every initialiser had to be an input too
    if len(kept) < len(proto.graph.node):
        copies = onnx.GraphProto(node=kept)
        del proto.graph.node[:]
        proto.graph.node.extend(copies.node)


def _large_constant(node: Any) -> Any:
    tensor = onnx.TensorProto()
    for attribute in node.attribute:
        if attribute.name == "value":
            tensor.CopyFrom(attribute.t)
        elif attribute.name == "value_floats":
            tensor = numpy_helper.from_array(np.array(attribute.floats, np.float32))
    if tensor.data_type not in _TYPES or _stored_type(tensor) != np.float16:
        return None
    if math.prod(tensor.dims) <= SMALL:
        return None
    tensor.name = node.output[0]
    return tensor


def _kind(tensor: Any) -> str:
    names = {number: name for name, number in onnx.TensorProto.DataType.items()}
    return str(names.get(tensor.data_type, tensor.data_type))


def _stored_type(tensor: Any) -> np.dtype[Any]:
    """What a weight of the graph's type and dimensions is kept as."""
    own = _TYPES[tensor.data_type]
    return np.dtype(np.float16) if own.kind == "f" and math.prod(tensor.dims) > SMALL else own


def _check_finite(name: str, value: NDArray[Any]) -> None:
    if not np.isfinite(value).all():
        raise WeightsCorrupt(f"The weight {name!r} holds NaN or infinity.", hint="Train or fetch the network again.")


def _check_size(size: int) -> None:
    if size > LARGEST_WEIGHTS:
        raise WeightsCorrupt(
            f"The network takes {size} bytes; the limit is {LARGEST_WEIGHTS}.", hint="Is it the right file?"
        )


def _header(content: bytes) -> dict[str, Any]:
    """The header, of bytes that safetensors has accepted."""
    header: dict[str, Any] = json.loads(content[8 : 8 + _header_size(content)])
    return header


def _header_size(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")


def _with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """The same tensors with metadata; safetensors itself writes their keys in an order that changes."""
    header = json.dumps({_METADATA: metadata, **_header(content)}, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # keeps the tensors aligned
    return len(header).to_bytes(8, "little") + header + content[8 + _header_size(content) :]
