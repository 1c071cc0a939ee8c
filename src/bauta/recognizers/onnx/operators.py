"""What each ONNX operator means in torch: one builder per operator, resolved before the network runs.

A builder looks at a `Node` (attributes, constant inputs, and the shapes all inputs have for one input
shape of the network) and returns a function of the node's inputs. Everything that can be decided from
shapes and constants is decided in the builder, so the returned function only computes.

Meanings follow the ONNX operator specification; where versions of an operator differ, `Node.opset` decides.
The implementation is our design.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bauta.recognizers.onnx.node import Builders, Function, Node
from bauta.recognizers.onnx.shapes import SHAPES
from bauta.recognizers.onnx.spatial import SPATIAL


def build(node: Node) -> Function:
    """The function that computes the node's output from all of its inputs, in order.

    Raises:
        UnsupportedOperator: naming the operator, the attribute and the node.
    """
    if node.output > 0 and node.operator != "Split":
        raise node.refusal(f"with output {node.output} in use is not supported")
    function = BUILDERS[node.operator](node)
    if node.unread:
        raise node.refusal(f"with attribute {min(node.unread)} is not supported")
    return function


def _plain(function: Function) -> Callable[[Node], Function]:
    """An operator that is one torch function, without attributes."""
    return lambda node: function


def _variadic(function: Function) -> Callable[[Node], Function]:
    return lambda node: function if len(node.inputs) == 2 else lambda *values: reduce(function, values)


# Normalisation and activations --------------------------------------------------------------------------


def _batch_normalization(node: Node) -> Function:
    node.expect(training_mode=0, spatial=1)
    node.ignore("momentum")
    scale, shift = batch_scale_shift(
        *(node.fixed(index) for index in range(1, 5)), epsilon=node.attribute("epsilon", 1e-5)
    )
    shape = [-1] + [1] * (len(node.shape()) - 2)
    scale, shift = scale.reshape(shape), shift.reshape(shape)
    return lambda image, *_: torch.addcmul(shift, image, scale)


def batch_scale_shift(
    weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Batch normalisation at inference as ``scale * x + shift`` per channel, computed in float64."""
    scale = weight.double() / torch.sqrt(variance.double() + epsilon)
    shift = bias.double() - mean.double() * scale
    return scale.to(weight.dtype), shift.to(weight.dtype)


def _layer_normalization(node: Node) -> Function:
    node.ignore("stash_type")
    axis = node.attribute("axis", -1) % len(node.shape())
    epsilon = node.attribute("epsilon", 1e-5)
    shape = node.shape()[axis:]
    return lambda x, weight, bias=None: functional.layer_norm(x, shape, weight, bias, epsilon)


def _instance_normalization(node: Node) -> Function:
    epsilon = node.attribute("epsilon", 1e-5)
    return lambda x, weight, bias: functional.instance_norm(x, weight=weight, bias=bias, eps=epsilon)


def _prelu(node: Node) -> Function:
    shape, slope_shape = node.shape(), node.shape(1)
    whole = (1,) * (len(shape) - len(slope_shape)) + tuple(slope_shape)  # as it is broadcast
    per_channel = len(shape) > 1 and math.prod(whole) == whole[1] == shape[1]
    if node.constant[1] and (per_channel or math.prod(slope_shape) == 1):
        flat = node.fixed(1).reshape(-1)
        slope = flat.reshape([-1] + [1] * (len(shape) - 2))
        leak: Function = _Leak.apply
        # A function of autograd costs more than a small map's kernel: at (1, 256, 14, 14) 30 us for 8.
        return lambda x, _: leak(x, slope) if torch.is_grad_enabled() else functional.prelu(x, flat)
    return lambda x, slope: torch.where(x < 0, x * slope, x)


class _Leak(torch.autograd.Function):
    """PRelu with a backward pass of two vectorised kernels; torch's own also computes the slope's gradient.

    Measured on one core at (4, 64, 56, 56), forward and backward: torch 5.8 ms, this 1.5 ms.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, slope: Tensor) -> Tensor:
        return functional.prelu(x, slope.reshape(-1))

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        context.save_for_backward(*inputs)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, slope = context.saved_tensors
        return torch.lerp(torch.ops.aten.threshold_backward(gradient, x, 0), gradient, slope), None


def _clip(node: Node) -> Function:
    if node.opset < 11:
        low, high = node.attribute("min"), node.attribute("max")
    else:
        low = node.fixed(1).item() if node.has(1) else None
        high = node.fixed(2).item() if node.has(2) else None
    # ONNX Runtime takes a NaN for "no bound", and published files rely on it.
    low, high = (None if bound is None or math.isnan(bound) else bound for bound in (low, high))
    if low is None and high is None:
        return lambda x, *_: x
    if low == 0 and high is None:
        return lambda x, *_: torch.relu(x)
    if node.inputs[0] is not None and node.inputs[0].is_floating_point():
        # Six times faster than clamp, forward and backward.
        bounds = (-math.inf if low is None else low, math.inf if high is None else high)
        return lambda x, *_: functional.hardtanh(x, *bounds)
    return lambda x, *_: torch.clamp(x, low, high)


def _hard_sigmoid(node: Node) -> Function:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


def _leaky_relu(node: Node) -> Function:
    slope = node.attribute("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, slope)


def _elu(node: Node) -> Function:
    alpha = node.attribute("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


def _gelu(node: Node) -> Function:
    approximate = node.attribute("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


def _softmax(node: Node) -> Function:
    shape = node.shape()
    axis = node.attribute("axis", -1 if node.opset >= 13 else 1) % len(shape)
    if node.opset >= 13:
        return lambda x: torch.softmax(x, axis)
    rows = math.prod(shape[:axis])
    return lambda x: torch.softmax(x.reshape(rows, -1), 1).reshape(shape)


def _dropout(node: Node) -> Function:
    node.ignore("ratio", "seed", "is_test")
    if node.has(2) and bool(node.fixed(2)):
        raise node.refusal("in training mode is not supported")
    return lambda x, *_: x


# Arithmetic ---------------------------------------------------------------------------------------------


def _divide(node: Node) -> Function:
    dividend = node.inputs[0]
    assert dividend is not None
    return torch.div if dividend.is_floating_point() else partial(torch.div, rounding_mode="trunc")


def _gemm(node: Node) -> Function:
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    turn_a, turn_b = node.attribute("transA", 0), node.attribute("transB", 0)
    simple = alpha == 1 and beta == 1 and not turn_a
    if simple and turn_b and (not node.has(2) or len(node.shape(2)) == 1):
        return functional.linear

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product: Tensor = alpha * ((a.t() if turn_a else a) @ (b.t() if turn_b else b))
        return product if c is None else product + beta * c

    return run


def _reduction(function: Function) -> Callable[[Node], Function]:
    def builder(node: Node) -> Function:
        axes = node.integers(1, "axes")
        keep = bool(node.attribute("keepdims", 1))
        nothing = bool(node.attribute("noop_with_empty_axes", 0))
        if not axes and nothing:
            return lambda x, *_: x
        chosen = tuple(axes) if axes else tuple(range(len(node.shape())))
        return lambda x, *_: function(x, chosen, keep)

    return builder


def _vector_norm(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=keep)
    return norm


BUILDERS: Builders = {
    **SPATIAL,
    **SHAPES,
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Cos": _plain(torch.cos),
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(functional.hardswish),
    "Identity": _plain(lambda x: x),
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "Log": _plain(torch.log),
    "MatMul": _plain(torch.matmul),
    "Max": _variadic(torch.maximum),
    "Min": _variadic(torch.minimum),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "PRelu": _prelu,
    "Pow": _plain(torch.pow),
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceL2": _reduction(_vector_norm),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _plain(torch.relu),
    "Sigmoid": _plain(torch.sigmoid),
    "Sin": _plain(torch.sin),
    "Softmax": _softmax,
    "Softplus": _plain(functional.softplus),
    "Sqrt": _plain(torch.sqrt),
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Where": _plain(torch.where),
}
