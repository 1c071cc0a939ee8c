"""One node of an ONNX graph, as the builders of `bauta.recognizers.onnx.operators` are asked about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bauta.errors import UnsupportedOperator
from bauta.tables import printable, shown

Function = Callable[..., Tensor]


def refusal(operator: str, name: str, reason: str = "is not supported") -> UnsupportedOperator:
    """The error to raise for what the importer does not know, naming operator and node."""
    return UnsupportedOperator(
        f"Node {shown(name)}: operator {printable(operator)} {reason}.",
        hint="Use the network as a judge only, or export it again with simpler operators.",
    )


@dataclass
class Node:
    """One output of one operator of the graph, with all that is known before the network runs.

    Attributes:
        operator: ONNX operator type, such as ``Conv``.
        name: The node's name, for error messages.
        opset: Version of the default operator set that the file declares.
        attributes: Attribute values as Python objects.
        inputs: A tensor per input with the right shape and type; None where an optional input is absent.
        constant: Whether the values of that input are known, and not only its shape.
        output: Which of the operator's outputs is asked for.
        outputs: How many outputs the operator has.
        dtype: Floating-point type the network computes in.
    """

    operator: str
    name: str
    opset: int
    attributes: dict[str, Any]
    inputs: tuple[Tensor | None, ...]
    constant: tuple[bool, ...]
    output: int
    outputs: int
    dtype: torch.dtype
    unread: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.unread = set(self.attributes)

    def refusal(self, reason: str) -> UnsupportedOperator:
        """The error to raise when this node asks for something the importer does not know."""
        return refusal(self.operator, self.name, reason)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value or `default`; what nobody asks for is refused afterwards."""
        self.unread.discard(name)
        return self.attributes.get(name, default)

    def expect(self, **values: Any) -> None:
        """Accept attributes only with these values, which are also their defaults."""
        for name, value in values.items():
            found = self.attribute(name, value)
            if found != value:
                raise self.refusal(f"with {name}={found!r} is not supported")

    def ignore(self, *names: str) -> None:
        """Attributes that do not change the result at inference."""
        self.unread.difference_update(names)

    def has(self, index: int) -> bool:
        """Whether the optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Shape of an input."""
        value = self.inputs[index]
        assert value is not None
        return tuple(value.shape)

    def fixed(self, index: int) -> Tensor:
        """An input whose values must be known beforehand."""
        value = self.inputs[index]
        if value is None or not self.constant[index]:
            raise self.refusal(f"with an input {index} that is computed from the image is not supported")
        return value

    def integers(self, index: int, attribute: str | None = None) -> list[int] | None:
        """A list of integers given as an input or, in older operator sets, as an attribute."""
        if attribute is not None and attribute in self.attributes:
            return [int(value) for value in self.attribute(attribute)]
        if not self.has(index):
            return None
        return [int(value) for value in self.fixed(index).reshape(-1).tolist()]


Builders = dict[str, Callable[[Node], Function]]
