"""The one loop that trains attackers: AdamW with a warm-up and a cosine, that keeps the last good epoch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bauta.errors import NumericalFailure, UsageError
from bauta.progress import Steps
from bauta.settings import Range, Settings


class Inputs(Protocol):
    """What a network reads, by number: a tensor (N, ...), or anything that makes one when it is asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """The inputs with these numbers; uint8 means images, which count as [0, 1]."""


@dataclass(frozen=True)
class FitConfig(Settings):
    """Settings of the loop.

    Attributes:
        epochs: How often every example is seen.
        rate: Largest learning rate.
        batch: Examples in a step; the batches of an epoch differ by one at most.
        warmup: Share of the steps over which the rate rises.
        decay: Weight decay.
        clip: Largest norm of a step's gradient.

    Raises:
        UsageError: when a value is out of range.
    """

    title: ClassVar[str] = "a training"
    epochs: Annotated[int, Range(at=1, to=100_000)] = 10
    rate: Annotated[float, Range(above=0, to=10)] = 1e-3
    batch: Annotated[int, Range(at=1, to=65_536)] = 32
    warmup: Annotated[float, Range(at=0, below=1)] = 0.05
    decay: Annotated[float, Range(at=0, below=1)] = 1e-4
    clip: Annotated[float, Range(above=0)] = 5.0


@dataclass(frozen=True)
class Fit:
    """What the loop did.

    Attributes:
        losses: Mean loss of each epoch that was kept.
        stopped: ``epochs``, or ``not finite``: the network is that of the last good epoch then.
    """

    losses: tuple[float, ...]
    stopped: Literal["epochs", "not finite"]


def fit(
    network: nn.Module,
    weights: Sequence[Tensor],
    loss: Callable[[Tensor], Tensor],
    count: int,
    config: FitConfig,
    generator: torch.Generator,
    progress: Steps | None = None,
) -> Fit:
    """Minimise a loss over the weights of a network, in place.

    A loss or gradient that is not finite ends the training with the weights of the last good epoch.

    Args:
        network: What is trained; its whole state is kept after every epoch.
        weights: What may change, parts of the network or beside it.
        loss: From the numbers of a batch's examples, (B,) int64, to a scalar.
        count: Examples there are.
        config: Settings.
        generator: Of the order of examples.
        progress: Called with steps done and steps in all.

    Raises:
        UsageError: when there is no example or nothing to train.
        NumericalFailure: when already the first epoch was not finite.
    """
    if count < 1 or not weights:
        raise UsageError(f"{count} examples and {len(weights)} weights make no training.", hint="Give some of both.")
    optimizer = torch.optim.AdamW(list(weights), lr=config.rate, weight_decay=config.decay)
    parts = math.ceil(count / config.batch)
    steps, done = parts * config.epochs, 0
    good, losses = _state(network), list[float]()
    for _ in range(config.epochs):
        values = []
        for part in np.array_split(torch.randperm(count, generator=generator).numpy(), parts):
            for group in optimizer.param_groups:
                group["lr"] = config.rate * _share(done, steps, config.warmup)
            value = _step(optimizer, weights, loss, torch.from_numpy(part), config.clip)
            if value is None:
                if not losses:
                    raise NumericalFailure(
                        "The loss was not finite in the first epoch.", hint="Lower the rate, or check the inputs."
                    )
                network.load_state_dict(good)
                return Fit(tuple(losses), "not finite")
            values.append(value * len(part))
            done += 1
            if progress is not None:
                progress(done, steps)
        losses.append(sum(values) / count)
        good = _state(network)
    return Fit(tuple(losses), "epochs")


def _step(
    optimizer: torch.optim.Optimizer,
    weights: Sequence[Tensor],
    loss: Callable[[Tensor], Tensor],
    index: Tensor,
    clip: float,
) -> float | None:
    """The loss of one step; None, and nothing changed, when it or its gradient is not finite."""
    optimizer.zero_grad()
    try:
        with torch.enable_grad():
            value = loss(index)
            value.backward()  # type: ignore[no-untyped-call]
    except NumericalFailure:  # recognisers refuse to answer with NaN
        return None
    norm = nn.utils.clip_grad_norm_(list(weights), clip)
    if not (value.isfinite() and norm.isfinite()):
        return None
    optimizer.step()
    return float(value.detach())


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _share(step: int, steps: int, warmup: float) -> float:
    """Of the largest rate: a rise, then half a cosine."""
    rise = round(warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def images(inputs: Tensor) -> Tensor:
    """Inputs in float32; uint8 counts as [0, 1]."""
    return inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs.float()


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 over a network's whole state."""
    total = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
