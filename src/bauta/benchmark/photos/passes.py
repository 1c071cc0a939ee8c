"""How often surrogates were asked: what a mask costs, whatever the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bauta.recognizers import Surrogate


@dataclass
class Passes:
    """Counts images through surrogates. A product with several cotangents at once counts as one backward pass."""

    forward: int = 0
    backward: int = 0
    _handles: list[Any] = field(default_factory=list)

    def watch(self, surrogates: Sequence[Surrogate]) -> None:
        """Count from now on."""
        for surrogate in surrogates:
            if isinstance(surrogate, torch.nn.Module):
                self._handles.append(surrogate.register_forward_hook(self._passed))

    def stop(self) -> None:
        """Count no longer."""
        for handle in self._handles:
            handle.remove()

    def _passed(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        count = len(output)
        self.forward += count
        if output.requires_grad:

            def came_back(gradient: Tensor) -> None:
                self.backward += count

            output.register_hook(came_back)  # type: ignore[no-untyped-call]
