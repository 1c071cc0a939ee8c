"""ONNX operators on maps: convolution, pooling, padding and resampling; see `bauta.recognizers.onnx.operators`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bauta.recognizers.onnx.node import Builders, Function, Node
from bauta.recognizers.onnx.shapes import select


@dataclass(frozen=True)
class _Window:
    """Kernel geometry shared by convolution and pooling; pads are per axis, before and after."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        return self.before == self.after

    @property
    def padded(self) -> bool:
        return any(self.before) or any(self.after)

    @property
    def torch_pads(self) -> list[int]:
        """In the order of `torch.nn.functional.pad`: last axis first."""
        pairs = zip(reversed(self.before), reversed(self.after), strict=True)
        return [value for pair in pairs for value in pair]


def _window(node: Node, kernel: Sequence[int]) -> _Window:
    rank = len(kernel)
    sizes = node.shape()[2:]
    stride = node.attribute("strides", [1] * rank)
    dilation = node.attribute("dilations", [1] * rank)
    automatic = node.attribute("auto_pad", "NOTSET")
    pads = node.attribute("pads", [0] * 2 * rank)
    if len(sizes) != rank:
        raise node.refusal(f"with a {rank}-dimensional kernel on a {len(sizes)}-dimensional image is not supported")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        pads = [0] * 2 * rank
        for axis, size in enumerate(sizes):
            steps = math.ceil(size / stride[axis])
            total = max((steps - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1 - size, 0)
            small, large = total // 2, total - total // 2
            pads[axis], pads[axis + rank] = (small, large) if automatic == "SAME_UPPER" else (large, small)
    elif automatic == "VALID":
        pads = [0] * 2 * rank
    elif automatic != "NOTSET":
        raise node.refusal(f"with auto_pad={automatic} is not supported")
    return _Window(tuple(kernel), tuple(stride), tuple(dilation), tuple(pads[:rank]), tuple(pads[rank:]))


def _convolution(node: Node) -> Function:
    node.ignore("kernel_shape")  # repeats the weights' shape
    groups = node.attribute("group", 1)
    window = _window(node, node.shape(1)[2:])
    rank = len(window.kernel)
    if rank not in (1, 2, 3):
        raise node.refusal(f"in {rank} dimensions is not supported")
    if node.shape(1)[0] == node.shape(1)[1] * groups == groups and not window.padded and max(window.kernel) == 1:
        return _scale_channels(window)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    if rank == 2 and groups == 1 and not window.padded and max(*window.kernel, *window.stride) == 1:
        example = node.inputs[0]
        if example is not None and example.is_contiguous(memory_format=torch.channels_last):
            return _mix_channels
    stride, dilation = window.stride, window.dilation
    padding = window.before if window.symmetric else (0,) * rank

    def run(image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return convolve(image, weight, bias, stride, padding, dilation, groups)

    if window.symmetric:
        return run
    pads = window.torch_pads
    return lambda image, weight, bias=None: run(functional.pad(image, pads), weight, bias)


def _scale_channels(window: _Window) -> Function:
    """A depthwise convolution with one weight per channel, for which torch would loop over the channels."""
    kept = (slice(None), slice(None), *(slice(None, None, step) for step in window.stride))
    shape = [-1] + [1] * len(window.stride)

    def run(image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        scale = weight.reshape(shape)
        image = image[kept]
        return image * scale if bias is None else torch.addcmul(bias.reshape(shape), image, scale)

    return run


def _mix_channels(image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution as one matrix product, which on channels-last images moves no data."""
    return functional.linear(image.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def _max_pool(node: Node) -> Function:
    node.ignore("storage_order")  # matters for the indices only
    window = _window(node, node.attribute("kernel_shape"))
    ceil = bool(node.attribute("ceil_mode", 0))
    pool = _per_rank(node, window, (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d))
    kernel, stride, dilation = window.kernel, window.stride, window.dilation
    if window.symmetric and all(2 * pad <= size for pad, size in zip(window.before, kernel, strict=True)):
        padding = window.before
        return lambda image: pool(image, kernel, stride, padding, dilation, ceil)
    if ceil:
        raise node.refusal("with ceil_mode and uneven pads is not supported")
    pads = window.torch_pads
    return lambda image: pool(functional.pad(image, pads, value=-math.inf), kernel, stride, 0, dilation)


def _average_pool(node: Node) -> Function:
    node.expect(ceil_mode=0)
    include = bool(node.attribute("count_include_pad", 0))
    window = _window(node, node.attribute("kernel_shape"))
    pool = _per_rank(node, window, (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d))
    kernel, stride = window.kernel, window.stride
    if any(step != 1 for step in window.dilation):
        raise node.refusal("with dilations is not supported")
    if window.symmetric and all(2 * pad <= size for pad, size in zip(window.before, kernel, strict=True)):
        padding = window.before
        return lambda image: pool(image, kernel, stride, padding, False, include)
    pads = window.torch_pads
    if include:
        return lambda image: pool(functional.pad(image, pads), kernel, stride)
    example = node.inputs[0]
    assert example is not None
    share = pool(functional.pad(torch.ones_like(example[:1, :1]), pads), kernel, stride)
    return lambda image: pool(functional.pad(image, pads), kernel, stride) / share


def _per_rank(node: Node, window: _Window, functions: Sequence[Function]) -> Function:
    rank = len(window.kernel)
    if rank > len(functions):
        raise node.refusal(f"in {rank} dimensions is not supported")
    return functions[rank - 1]


def _global_average_pool(node: Node) -> Function:
    axes = tuple(range(2, len(node.shape())))
    return lambda image: image.mean(axes, keepdim=True)


def _global_max_pool(node: Node) -> Function:
    axes = tuple(range(2, len(node.shape())))
    return lambda image: image.amax(axes, keepdim=True)


def _pad(node: Node) -> Function:
    mode = node.attribute("mode", "constant")
    pads = node.integers(1, "pads")
    rank = len(node.shape())
    axes = node.integers(3) or list(range(rank))
    if pads is None or len(pads) != 2 * len(axes):
        raise node.refusal("without matching pads is not supported")
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = pads[position], pads[position + len(axes)]
    value = float(node.fixed(2)) if node.has(2) else float(node.attribute("value", 0.0))
    if mode == "constant":
        flat = _Window((), (), (), tuple(before), tuple(after)).torch_pads
        return lambda image, *_: functional.pad(image, flat, value=value)
    if mode not in ("reflect", "edge", "wrap"):
        raise node.refusal(f"with mode={mode} is not supported")
    return select(
        node,
        {
            axis: np.pad(np.arange(size), (before[axis], after[axis]), mode=mode)
            for axis, size in enumerate(node.shape())
            if before[axis] or after[axis]
        },
    )


def _resize(node: Node) -> Function:
    """Separable nearest or linear resampling, for every coordinate convention of ONNX but cropping."""
    node.expect(antialias=0, exclude_outside=0, keep_aspect_ratio_policy="stretch")
    node.ignore("cubic_coeff_a", "extrapolation_value")
    mode = node.attribute("mode", "nearest")
    old = node.operator == "Upsample" or node.opset < 11
    convention = node.attribute("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    rounding = node.attribute("nearest_mode", "floor" if old else "round_prefer_floor")
    shape = node.shape()
    axes = [axis % len(shape) for axis in node.attribute("axes", range(len(shape)))]
    scales = _scales(node, 1 if old else 2)
    targets = node.integers(3) if not old else None
    if scales is None and targets is None:
        raise node.refusal("without scales or sizes is not supported")
    steps: list[tuple[int, Tensor, Tensor, Tensor | None]] = []
    for position, axis in enumerate(axes):
        size = shape[axis]
        if scales is not None:
            scale = scales[position]
            target = math.floor(size * scale)
        else:
            assert targets is not None
            target = targets[position]
            scale = target / size
        if target != size:
            coordinates = _source_coordinates(node, convention, size, target, scale)
            steps.append((axis, *_neighbours(node, mode, rounding, coordinates, axis)))

    def run(image: Tensor, *_: Tensor | None) -> Tensor:
        for axis, low, high, weight in steps:
            near = image.index_select(axis, low)
            image = near if weight is None else torch.lerp(near, image.index_select(axis, high), weight)
        return image

    return run


def _scales(node: Node, index: int) -> list[float] | None:
    """Factors of the sizes: an attribute of the first Upsample, an input of all others; None where sizes are given."""
    if node.operator == "Upsample" and "scales" in node.attributes:
        scales: list[float] = node.attribute("scales")
        return scales
    found = node.fixed(index).reshape(-1) if node.has(index) else None
    return found.tolist() if found is not None and found.numel() else None


def _neighbours(
    node: Node, mode: str, rounding: str, coordinates: Any, axis: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Along an axis: places below and above each coordinate, and the weight of the latter; None for the nearest."""
    example, shape = node.inputs[0], node.shape()
    assert example is not None
    size = shape[axis]
    if mode == "nearest":
        index = _round(node, rounding, coordinates).clip(0, size - 1)
        nearest = torch.from_numpy(index.astype(np.int64)).to(example.device)
        return nearest, nearest, None
    if mode != "linear":
        raise node.refusal(f"with mode={mode} is not supported")
    coordinates = coordinates.clip(0, size - 1)
    floor = np.floor(coordinates)
    low = torch.from_numpy(floor.astype(np.int64)).to(example.device)
    weight = torch.from_numpy(coordinates - floor).to(example.device, node.dtype)
    return low, (low + 1).clamp(max=size - 1), weight.reshape([-1] + [1] * (len(shape) - axis - 1))


def _source_coordinates(node: Node, convention: str, size: int, target: int, scale: Any) -> Any:
    position = np.arange(target, dtype=np.float32)
    scale = np.float32(scale)  # ONNX Runtime computes in float32, which decides ties
    if convention == "half_pixel" or (convention == "pytorch_half_pixel" and target > 1):
        return (position + np.float32(0.5)) / scale - np.float32(0.5)
    if convention == "pytorch_half_pixel":
        return position * 0
    if convention == "asymmetric":
        return position / scale
    if convention == "align_corners":
        return position * (size - 1) / (target - 1) if target > 1 else position * 0
    raise node.refusal(f"with coordinate_transformation_mode={convention} is not supported")


def _round(node: Node, rounding: str, coordinates: Any) -> Any:
    if rounding == "round_prefer_floor":
        return np.ceil(coordinates - 0.5)
    if rounding == "round_prefer_ceil":
        return np.floor(coordinates + 0.5)
    if rounding in ("floor", "ceil"):
        return np.floor(coordinates) if rounding == "floor" else np.ceil(coordinates)
    raise node.refusal(f"with nearest_mode={rounding} is not supported")


SPATIAL: Builders = {
    "AveragePool": _average_pool,
    "Conv": _convolution,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
}
