"""ONNX operators that change shapes, places and types; see `bauta.recognizers.onnx.operators`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bauta.recognizers.onnx.node import Builders, Function, Node


def _reshaped(node: Node, shape: Sequence[int]) -> Function:
    target = tuple(shape)
    return lambda x, *_: x.reshape(target)


def _flatten(node: Node) -> Function:
    shape = node.shape()
    axis = node.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return _reshaped(node, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _reshape(node: Node) -> Function:
    target = node.integers(1, "shape") or []
    if not node.attribute("allowzero", 0):
        target = [node.shape()[axis] if size == 0 else size for axis, size in enumerate(target)]
    return _reshaped(node, target)


def _squeeze(node: Node) -> Function:
    shape = node.shape()
    axes = node.integers(1, "axes")
    gone = {axis % len(shape) for axis in axes} if axes else {a for a, size in enumerate(shape) if size == 1}
    return _reshaped(node, [size for axis, size in enumerate(shape) if axis not in gone])


def _unsqueeze(node: Node) -> Function:
    axes = node.integers(1, "axes") or []
    rank = len(node.shape()) + len(axes)
    added = {axis % rank for axis in axes}
    sizes = iter(node.shape())
    return _reshaped(node, [1 if axis in added else next(sizes) for axis in range(rank)])


def _transpose(node: Node) -> Function:
    order = tuple(node.attribute("perm", range(len(node.shape()) - 1, -1, -1)))
    return lambda x: x.permute(order)


def _concat(node: Node) -> Function:
    axis = node.attribute("axis")
    return lambda *values: torch.cat(values, axis)


def select(node: Node, positions: dict[int, Any]) -> Function:
    """Pick positions along some axes, one axis after the other."""
    example = node.inputs[0]
    assert example is not None
    steps = [
        (axis, torch.from_numpy(np.array(index, dtype=np.int64)).to(example.device))
        for axis, index in positions.items()
    ]

    def run(image: Tensor, *_: Tensor) -> Tensor:
        for axis, index in steps:
            image = image.index_select(axis, index)
        return image

    return run


def _slice(node: Node) -> Function:
    shape = node.shape()
    starts, ends = node.integers(1, "starts"), node.integers(2, "ends")
    if starts is None or ends is None:
        raise node.refusal("without starts and ends is not supported")
    axes = node.integers(3, "axes") or list(range(len(starts)))
    steps = node.integers(4) or [1] * len(starts)
    slices = [slice(None)] * len(shape)
    backwards: dict[int, Any] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step > 0:
            slices[axis] = slice(start, end, step)
        else:
            backwards[axis] = np.arange(shape[axis])[slice(start, end, step)]
    index = tuple(slices)
    if not backwards:
        return lambda x, *_: x[index]
    turn = select(node, backwards)
    return lambda x, *_: turn(x)[index]


def _split(node: Node) -> Function:
    axis = node.attribute("axis", 0) % len(node.shape())
    size = node.shape()[axis]
    lengths = node.integers(1, "split")
    parts = node.attribute("num_outputs", node.outputs)
    if lengths is None:
        each = math.ceil(size / parts)
        lengths = [min(each, size - each * part) for part in range(parts)]
    start, length = sum(lengths[: node.output]), lengths[node.output]
    return lambda x, *_: x.narrow(axis, start, length)


def _gather(node: Node) -> Function:
    shape = node.shape()
    axis = node.attribute("axis", 0) % len(shape)
    index = node.fixed(1).long()
    index = torch.where(index < 0, index + shape[axis], index)
    if index.dim() == 0:
        position = int(index)
        return lambda x, _: x.select(axis, position)
    target = (*shape[:axis], *index.shape, *shape[axis + 1 :])
    flat = index.reshape(-1)
    return lambda x, _: x.index_select(axis, flat).reshape(target)


def _expand(node: Node) -> Function:
    target = np.broadcast_shapes(node.shape(), tuple(node.integers(1) or ()))
    return lambda x, _: x.expand(target)


def _shape(node: Node) -> Function:
    sizes = node.shape()[slice(node.attribute("start", 0), node.attribute("end"))]
    example = node.inputs[0]
    assert example is not None
    result = torch.tensor(sizes, dtype=torch.int64, device=example.device)
    return lambda _: result


def _constant_of_shape(node: Node) -> Function:
    value = node.attribute("value")
    value = torch.zeros(1, dtype=node.dtype) if value is None else value.reshape(-1)
    target = tuple(node.integers(0) or ())
    return lambda shape: value.to(shape.device).expand(target) if target else value[0].to(shape.device)


def _range(node: Node) -> Function:
    start, limit, step = (node.fixed(index) for index in range(3))
    return lambda *_: torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype, device=start.device)


# ONNX numbers its element types; every floating type becomes the one the network computes in.
_INTEGER_TYPES = {
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
}
_FLOATING_TYPES = (1, 10, 11)


def _cast(node: Node) -> Function:
    node.ignore("saturate")
    wanted = node.attribute("to")
    if wanted not in _INTEGER_TYPES and wanted not in _FLOATING_TYPES:
        raise node.refusal(f"to element type {wanted} is not supported")
    dtype = _INTEGER_TYPES.get(wanted, node.dtype)
    return lambda x: x.to(dtype)


SHAPES: Builders = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
