"""Any ONNX recogniser as a differentiable torch module: our own importer.

The graph is compiled twice. Once at construction: constants become buffers, batch normalisation is folded
into the convolution before it, and what does not lead to the output is dropped. And once per input shape, at
its first use: all shape arithmetic is computed and folded, and what remains is a flat list of functions with
the slots they read and write; each intermediate value is released after its last use. Nothing in `forward`
looks at the graph or at the values of activations, so `torch.func` transforms pass through.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from bauta.errors import UnsupportedOperator, WeightsCorrupt
from bauta.recognizers.onnx.graph import parse_graph, reason
from bauta.recognizers.onnx.node import Function, Node, refusal
from bauta.recognizers.onnx.operators import BUILDERS, batch_scale_shift, build

SHAPES_REMEMBERED = 16

# What torch, numpy and Python raise when a graph is not what it should be.
_INCOHERENT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError,
               StopIteration)  # fmt: skip


@dataclass(frozen=True)
class _Operation:
    operator: str
    name: str
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """The network for one input shape: slot 0 is the image, constants are filled in."""

    slots: list[Tensor | None]
    steps: tuple[tuple[Function, tuple[int, ...], int, tuple[int, ...]], ...]
    outputs: tuple[int, ...]


class ImportedNetwork(nn.Module):
    """A torch module that computes what the ONNX graph computes.

    The weights are frozen buffers. Any batch size works that the graph allows; the first call with a new
    input shape costs about one forward pass more. Images in the channels-last layout run fastest.

    Args:
        model: The file's bytes.

    Raises:
        WeightsCorrupt: when the bytes are not an ONNX model, keep weights in other files, or do not have exactly
            one input.
        UnsupportedOperator: for other operator sets and operators the importer does not know; operators are
            checked at construction, attributes and shapes at the first forward pass.
    """

    def __init__(self, model: bytes) -> None:
        super().__init__()
        graph, self._opset = parse_graph(model)
        try:
            self._compile(graph)
        except _INCOHERENT as error:
            raise _incoherent() from error

    def _compile(self, graph: onnx.GraphProto) -> None:
        constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in constants]
        if len(inputs) != 1:
            raise WeightsCorrupt(
                f"The network has {len(inputs)} inputs; a recogniser has one.",
                hint="Export it with the image as its only input.",
            )
        self._input = inputs[0]
        self._results = tuple(value.name for value in graph.output)
        operations = [_operation(node) for node in graph.node]
        operations = _absorb_constants(operations, constants)
        operations = _needed(operations, self._results)
        operations = _fold_batch_normalization(operations, constants, self._results)
        operations = _fold_channel_scales(operations, constants, self._results)
        operations = _join_clips(operations, constants, self._results)
        for operation in operations:
            if operation.operator not in BUILDERS:
                raise refusal(operation.operator, operation.name)
        self._operations = tuple(operations)
        used = {name for operation in operations for name in operation.inputs} | set(self._results)
        self._constants: dict[str, str] = {}
        for name in sorted(used & constants.keys()):
            self._constants[name] = f"constant_{len(self._constants)}"
            self.register_buffer(self._constants[name], _channels_last(constants[name]))
        self._plans: dict[torch.Size, _Plan] = {}

    def forward(self, image: Tensor) -> Tensor:
        """The network's only output for `image` of shape (N, ...).

        Raises:
            UnsupportedOperator: at the first call with a shape, when an attribute is not known or the graph
                does not allow the shape.
            WeightsCorrupt: when the network has several outputs.
        """
        if len(self._results) != 1:
            raise WeightsCorrupt(
                f"The network has {len(self._results)} outputs; a recogniser has one.",
                hint="Export it with the embedding as its only output.",
            )
        return self.outputs(image)[0]

    def weights(self) -> list[Tensor]:
        """Weights and biases of convolutions and linear layers, for who wants to go on training the network.

        They are the buffers themselves; asked for their gradient, they get it. Slopes, scales of inputs and whatever
        the graph computes from other constants are not among them.
        """
        names = {
            name
            for operation in self._operations
            if operation.operator in ("Conv", "Gemm", "MatMul")
            for name in operation.inputs
        }
        found = [self.get_buffer(buffer) for name, buffer in self._constants.items() if name in names]
        return [value for value in found if value.is_floating_point()]

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        """All outputs of the graph, in its order."""
        plan = self._plans.get(image.shape)
        if plan is None:
            plan = self._specialise(image)
        slots: list[Any] = plan.slots.copy()
        slots[0] = image
        for function, inputs, output, finished in plan.steps:
            slots[output] = function(*[slots[index] for index in inputs])
            for index in finished:
                slots[index] = None
        return tuple(slots[index] for index in plan.outputs)

    def cut_names(self) -> list[str]:
        """The tensors, in the order of the graph, that alone carry the image to what comes after them.

        Every path from the input to the outputs runs through each of them. The outputs are not among them.
        """
        variable = self._variable()
        last: dict[str, int] = dict.fromkeys(self._results, len(self._operations))
        for position, operation in enumerate(self._operations):
            last.update((name, max(position, last.get(name, 0))) for name in operation.inputs if name in variable)
        names, alive = [], {self._input}
        for position, operation in enumerate(self._operations):
            alive.update(name for name in operation.outputs if name in variable)
            alive = {name for name in alive if last.get(name, -1) > position}
            if len(alive) == 1 and not alive.intersection((self._input, *self._results)):
                (name,) = alive
                if name in operation.outputs:
                    names.append(name)
        return names

    def part(self, start: str | None = None, ends: Sequence[str] = ()) -> ImportedNetwork:
        """The layers from one of `cut_names` (or the input) to some of them (or the outputs); weights are shared."""
        part = ImportedNetwork.__new__(ImportedNetwork)
        nn.Module.__init__(part)
        part._opset, part._results, part._plans = self._opset, tuple(ends) or self._results, {}
        part._input = start or self._input
        producers = [position for position, one in enumerate(self._operations) if part._input in one.outputs]
        variable = self._variable()
        part._operations = tuple(
            _needed(
                [
                    operation
                    for position, operation in enumerate(self._operations)
                    if position > max(producers, default=-1) or variable.isdisjoint(operation.outputs)
                ],
                part._results,
            )
        )
        used = {name for operation in part._operations for name in operation.inputs}
        part._constants = {name: buffer for name, buffer in self._constants.items() if name in used}
        for buffer in part._constants.values():
            part.register_buffer(buffer, self.get_buffer(buffer))
        return part

    def _variable(self) -> set[str]:
        """Names of the tensors that depend on the image."""
        found = {self._input}
        for operation in self._operations:
            if not found.isdisjoint(operation.inputs):
                found.update(name for name in operation.outputs if name)
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._plans.clear()  # plans hold constants of the old type and device
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def _specialise(self, image: Tensor) -> _Plan:
        """Fold everything that depends only on the input's shape, and remember what is left to do."""
        try:
            plan = self._folded(image)
        except _INCOHERENT as error:
            raise _incoherent() from error
        while len(self._plans) >= SHAPES_REMEMBERED:
            del self._plans[next(iter(self._plans))]
        self._plans[image.shape] = plan
        return plan

    @torch.inference_mode(False)
    @torch.no_grad()
    def _folded(self, image: Tensor) -> _Plan:
        constants = {name: self.get_buffer(buffer) for name, buffer in self._constants.items()}
        example = _channels_last(torch.zeros(image.shape, dtype=image.dtype, device=image.device))
        values: dict[str, Tensor] = {self._input: example, **constants}
        variable = {self._input}
        planned: list[tuple[Function, tuple[str, ...], str]] = []
        for operation in self._operations:
            for position, output in enumerate(operation.outputs):
                if not output:
                    continue
                node = Node(
                    operation.operator,
                    operation.name,
                    self._opset,
                    operation.attributes,
                    tuple(values[name] if name else None for name in operation.inputs),
                    tuple(name not in variable for name in operation.inputs),
                    position,
                    len(operation.outputs),
                    image.dtype,
                )
                try:
                    function = build(node)
                    values[output] = function(*node.inputs)
                except _INCOHERENT as error:
                    raise node.refusal(f"fails on input of shape {list(image.shape)}: {reason(error)}") from error
                if operation.operator != "Shape" and not all(node.constant):
                    variable.add(output)
                    planned.append((function, operation.inputs, output))
        return _lay_out(planned, values, variable, self._input, self._results)


def _incoherent() -> WeightsCorrupt:
    """For a name that leads nowhere, an operator without its inputs, a circle."""
    return WeightsCorrupt(
        "The ONNX graph does not hold together: an operator lacks what it reads, or what says how it works.",
        hint="Export the network anew.",
    )


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _lay_out(
    planned: list[tuple[Function, tuple[str, ...], str]],
    values: dict[str, Tensor],
    variable: set[str],
    image: str,
    results: tuple[str, ...],
) -> _Plan:
    """Number the values, drop constants that were only needed for folding, and note each last use."""
    index = {image: 0, "": 1}
    slots: list[Tensor | None] = [None, None]
    for name in [name for _, inputs, output in planned for name in (*inputs, output)] + list(results):
        if name not in index:
            index[name] = len(slots)
            slots.append(None if name in variable else values[name])
    last: dict[str, int] = {}
    for position, (_, inputs, _) in enumerate(planned):
        last.update(dict.fromkeys(inputs, position))
    steps = [
        (
            function,
            tuple(index[name] for name in inputs),
            index[output],
            tuple(
                index[name]
                for name in dict.fromkeys(inputs)
                if last[name] == position and name in variable and name not in results
            ),
        )
        for position, (function, inputs, output) in enumerate(planned)
    ]
    return _Plan(slots, tuple(steps), tuple(index[name] for name in results))


def _tensor(proto: onnx.TensorProto) -> Tensor:
    array = numpy_helper.to_array(proto)
    if array.dtype in (np.float16, np.float64):
        array = array.astype(np.float32)
    try:
        return torch.from_numpy(np.array(array))
    except TypeError as error:
        raise UnsupportedOperator(
            f"Constant {proto.name!r} has element type {array.dtype}, which is not supported.",
            hint="Export the network in float32.",
        ) from error


def _operation(node: onnx.NodeProto) -> _Operation:
    name = node.name or (node.output[0] if node.output else node.op_type)
    if node.domain not in ("", "ai.onnx"):
        raise refusal(node.op_type, name, f"of the set {node.domain!r} is not supported")
    attributes = {entry.name: _attribute(entry) for entry in node.attribute}
    return _Operation(node.op_type, name, attributes, tuple(node.input), tuple(node.output))


def _attribute(proto: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    return list(value) if proto.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _absorb_constants(operations: list[_Operation], constants: dict[str, Tensor]) -> list[_Operation]:
    kept = []
    for operation in operations:
        if operation.operator != "Constant":
            kept.append(operation)
            continue
        ((kind, value),) = operation.attributes.items()
        if kind in ("value_float", "value_floats"):
            value = torch.tensor(value, dtype=torch.float32)
        elif kind in ("value_int", "value_ints"):
            value = torch.tensor(value, dtype=torch.int64)
        elif kind != "value":
            raise refusal("Constant", operation.name, f"with attribute {kind} is not supported")
        constants[operation.outputs[0]] = value
    return kept


def _needed(operations: list[_Operation], results: Iterable[str]) -> list[_Operation]:
    """Only what leads to the results; unused outputs are blanked."""
    wanted = set(results)
    kept = []
    for operation in reversed(operations):
        if wanted.isdisjoint(operation.outputs):
            continue
        wanted.update(name for name in operation.inputs if name)
        kept.append(replace(operation, outputs=tuple(name if name in wanted else "" for name in operation.outputs)))
    return kept[::-1]


def _fold_batch_normalization(
    operations: list[_Operation], constants: dict[str, Tensor], results: tuple[str, ...]
) -> list[_Operation]:
    """Multiply a batch normalisation into the convolution that alone feeds it."""

    def join(first: _Operation, second: _Operation) -> _Operation | None:
        if (
            (first.operator, second.operator) != ("Conv", "BatchNormalization")
            or second.attributes.get("training_mode", 0)
            or second.attributes.get("spatial", 1) != 1
        ):
            return None
        weight, bias = _weight_bias(first, constants)
        scale, shift = batch_scale_shift(
            *(constants[name] for name in second.inputs[1:5]), epsilon=second.attributes.get("epsilon", 1e-5)
        )
        names = (f"{second.outputs[0]}/weight", f"{second.outputs[0]}/bias")
        constants[names[0]] = weight * scale.reshape([-1] + [1] * (weight.dim() - 1))
        constants[names[1]] = bias * scale + shift
        return replace(first, inputs=(first.inputs[0], *names), outputs=second.outputs)

    return _join_pairs(operations, constants, results, join)


def _fold_channel_scales(
    operations: list[_Operation], constants: dict[str, Tensor], results: tuple[str, ...]
) -> list[_Operation]:
    """Multiply a depthwise 1x1 convolution into the full one after it, as searched cells have them."""

    def join(first: _Operation, second: _Operation) -> _Operation | None:
        if (first.operator, second.operator) != ("Conv", "Conv"):
            return None
        scale, shift = _weight_bias(first, constants)
        weight, bias = _weight_bias(second, constants)
        groups = first.attributes.get("group", 1)
        plain = ("kernel_shape", "dilations", "strides")
        if (
            not scale.shape[0] == scale.numel() == groups
            or weight.shape[2:].numel() != 1
            or second.attributes.get("group", 1) != 1
            or any(value != 1 for key in plain for value in second.attributes.get(key, []))
            or any(any(one.attributes.get("pads", [])) for one in (first, second))
            or any(one.attributes.get("auto_pad", "NOTSET") != "NOTSET" for one in (first, second))
        ):
            return None
        names = (f"{second.outputs[0]}/weight", f"{second.outputs[0]}/bias")
        constants[names[0]] = weight * scale.reshape(1, *scale.shape[:1], *scale.shape[2:])
        constants[names[1]] = bias + weight.flatten(1) @ shift
        attributes = {
            **second.attributes,
            "strides": first.attributes.get("strides", [1] * (scale.dim() - 2)),
        }
        return replace(second, attributes=attributes, inputs=(first.inputs[0], *names), outputs=second.outputs)

    return _join_pairs(operations, constants, results, join)


def _join_clips(
    operations: list[_Operation], constants: dict[str, Tensor], results: tuple[str, ...]
) -> list[_Operation]:
    """One Clip for two in a row, as exporters write ReLU6."""

    def bounds(operation: _Operation) -> list[float]:
        names = [*operation.inputs[1:], "", ""][:2]
        values = [constants[name].item() if name else math.nan for name in names]
        return [
            empty if math.isnan(value) else value for value, empty in zip(values, (-math.inf, math.inf), strict=True)
        ]

    def join(first: _Operation, second: _Operation) -> _Operation | None:
        both = (first, second)
        if any(one.operator != "Clip" or one.attributes for one in both):
            return None
        (low, high), limits = bounds(first), bounds(second)
        names = (f"{second.outputs[0]}/low", f"{second.outputs[0]}/high")
        for name, value in zip(names, (low, high), strict=True):
            constants[name] = torch.tensor(min(max(value, limits[0]), limits[1]), dtype=torch.float32)
        return replace(second, inputs=(first.inputs[0], *names))

    return _join_pairs(operations, constants, results, join)


def _weight_bias(convolution: _Operation, constants: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    weight = constants[convolution.inputs[1]]
    name = convolution.inputs[2] if len(convolution.inputs) > 2 else ""
    return weight, constants[name] if name else torch.zeros(weight.shape[0], dtype=weight.dtype)


def _join_pairs(
    operations: list[_Operation],
    constants: dict[str, Tensor],
    results: tuple[str, ...],
    join: Callable[[_Operation, _Operation], _Operation | None],
) -> list[_Operation]:
    """Let `join` make one operation of two, where one feeds only the other and all else is constant."""
    uses = Counter(name for operation in operations for name in operation.inputs)
    uses.update(results)
    kept: dict[str, _Operation] = {}
    for operation in operations:
        joined = None
        source = kept.get(operation.inputs[0]) if operation.inputs else None
        if source is not None and uses[operation.inputs[0]] == 1:
            others = (*source.inputs[1:], *operation.inputs[1:])
            if all(name in constants for name in others if name):
                joined = join(source, operation)
        if joined is not None:
            del kept[operation.inputs[0]]
        kept[next(filter(None, operation.outputs))] = joined or operation
    return list(kept.values())


def trainable_copy(network: nn.Module, device: torch.device | None = None) -> tuple[nn.Module, list[Tensor]]:
    """A copy of a network, on another device if one is named, and its weights, which ask for their gradient; the
    original stays as and where it is.

    In the copy, parts that were imported from ONNX give up their convolutions and linear layers; batch
    normalisation is folded into these already, so the copy has no running statistics to spoil. Modules stay in
    training or evaluation mode as they were.
    """
    made = copy.deepcopy(network)
    if device is not None:
        made.to(device)
    weights: list[Tensor] = list(made.parameters())
    for module in made.modules():
        if isinstance(module, ImportedNetwork):
            module.float()  # forgets its plans, whose constants are still the original's
            weights += module.weights()
    for weight in weights:
        weight.requires_grad_(True)
    return made, weights
