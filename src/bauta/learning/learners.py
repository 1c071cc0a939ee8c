"""The one loop that trains decoders and attackers: seeded, resumable, and no work is lost when a loss is not a number.

What is trained is a `Learner`. Batches are drawn from the seed and the number of the step alone, so that a run that was
interrupted and taken up again ends with the weights of one that was not. A checkpoint is one safetensors file with
weights, buffers and the state of the optimisers; no pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt
from bauta.files import make_folder, write_atomically
from bauta.progress import Progress
from bauta.settings import Range, Settings

CPU = torch.device("cpu")

_METADATA = "bauta.checkpoint"

Epochs = Annotated[int, Range(at=1, to=10_000)]
Batch = Annotated[int, Range(at=2, to=65_536)]
Rate = Annotated[float, Range(above=0, below=1)]


@dataclass(frozen=True)
class Schedule(Settings):
    """How long and how fast a network learns.

    Attributes:
        epochs: Passes over the pairs.
        batch: Pairs in a step.
        rate: Adam's learning rate at the start; it falls to a hundredth along a cosine.
        seed: Of the weights, the batches and everything random in a step.
    """

    title: ClassVar[str] = "a schedule"
    epochs: Epochs = 5
    batch: Batch = 32
    rate: Rate = 1e-3
    seed: Annotated[int, Range(at=0, below=1 << 31)] = 0


class Learner(ABC):
    """What the loop trains.

    Attributes:
        networks: By name; they are put into training mode, and into evaluation mode when all is learned.
        optimizers: By name.
    """

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]

    @abstractmethod
    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        """Learn from the pairs of these indices, and say what the losses were.

        Raises:
            NumericalFailure: from `require_finite`; what was changed before is thrown away.
        """


def require_finite(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses as numbers.

    Raises:
        NumericalFailure: when one of them is NaN or infinite.
    """
    numbers = {name: float(loss.detach()) for name, loss in losses.items()}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise NumericalFailure(f"The loss {name!r} is {value}.", hint="Lower the rate, or check the pairs.")
    return numbers


def train(
    learner: Learner,
    count: int,
    schedule: Schedule,
    *,
    key: str = "",
    work: Path | None = None,
    name: str = "network",
    save_every: float = 60.0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train a learner on `count` pairs.

    Args:
        learner: What learns; its initial weights are its own business.
        count: How many pairs there are.
        schedule: How.
        key: What the pairs and the learner are: a checkpoint of another key is refused.
        work: Folder of the checkpoint ``NAME.safetensors``; without one nothing is kept.
        name: Of the checkpoint, and shown as progress.
        save_every: Seconds between checkpoints.
        progress: Called with the name, the steps done, and the steps there are.

    Returns:
        The mean losses of the last epoch, with ``steps`` and ``seconds``, the latter of all runs together.

    Raises:
        UsageError: when there are fewer pairs than two, or the checkpoint is of other pairs or settings.
        NumericalFailure: when a loss or a weight is not a number; the checkpoint keeps the last good state.
        WeightsCorrupt: when the checkpoint is damaged.
        OutputError: when it cannot be written.
    """
    if count < 2:
        raise UsageError(f"A network cannot learn from {count} pairs.", hint="Give at least two images.")
    batch = min(schedule.batch, count)
    each = max(1, count // batch)
    steps = schedule.epochs * each
    checkpoint = None if work is None else work / f"{name}.safetensors"
    whole = hashlib.sha256(json.dumps([key, schedule.to_dict(), count], sort_keys=True).encode()).hexdigest()
    sums: dict[str, float] = {}
    first, seconds = 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        state = _read(checkpoint, learner, whole)
        first, seconds, sums = state["step"], state["seconds"], state["sums"]
    for network in learner.networks.values():
        network.train()
    rates = {name: [group["lr"] for group in one.param_groups] for name, one in learner.optimizers.items()}
    began = saved = time.monotonic()
    for step in range(first, steps):
        epoch, place = divmod(step, each)
        if place == 0:
            sums = {}
        order = np.random.default_rng((schedule.seed, epoch)).permutation(count)
        index = torch.from_numpy(np.sort(order[place * batch : (place + 1) * batch]))
        share = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        _set_rates(learner, rates, share)
        generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
        try:
            losses = learner.step(index, generator)
            if step + 1 == steps:
                _require_good(learner)
        except NumericalFailure as failure:
            raise _placed(failure, f"{name} at step {step + 1} of {steps}", checkpoint) from failure
        for loss, value in losses.items():
            sums[loss] = sums.get(loss, 0.0) + value
        if progress is not None:
            progress(name, step + 1, steps)
        if step + 1 == steps or time.monotonic() - saved > save_every:
            _require_good(learner)
            if checkpoint is not None:
                spent = seconds + time.monotonic() - began
                _write(checkpoint, learner, {"key": whole, "step": step + 1, "seconds": spent, "sums": sums})
            saved = time.monotonic()
    _set_rates(learner, rates, 1)
    for network in learner.networks.values():
        network.eval().requires_grad_(False)
    means = {loss: round(value / each, 6) for loss, value in sums.items()}
    return means | {"steps": steps, "seconds": round(seconds + time.monotonic() - began, 1)}


def _placed(failure: NumericalFailure, where: str, checkpoint: Path | None) -> NumericalFailure:
    kept = f"{checkpoint} keeps an earlier state" if checkpoint and checkpoint.exists() else "Nothing was kept"
    return NumericalFailure(f"{where}: {failure.message}", hint=f"{failure.hint} {kept}.")


def _set_rates(learner: Learner, rates: Mapping[str, Sequence[float]], share: float) -> None:
    for name, optimizer in learner.optimizers.items():
        for group, rate in zip(optimizer.param_groups, rates[name], strict=True):
            group["lr"] = rate * share


def weights_of(learner: Learner) -> dict[str, Tensor]:
    """All weights and buffers by name, for a file or a digest."""
    return {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in learner.networks.items()
        for key, value in network.state_dict().items()
    }


def _require_good(learner: Learner) -> None:
    for name, value in weights_of(learner).items():
        if not bool(value.isfinite().all()):
            raise NumericalFailure(f"The weights {name} are not numbers.", hint="Lower the rate.")


def _write(path: Path, learner: Learner, about: Mapping[str, Any]) -> None:
    tensors = {f"network.{name}": value for name, value in weights_of(learner).items()}
    for name, optimizer in learner.optimizers.items():
        for place, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{place}.{field}": value.contiguous() for field, value in state.items()}
    make_folder(path.parent)
    write_atomically(path, save_tensors(tensors, {_METADATA: json.dumps(about)}), overwrite=True)


def _read(path: Path, learner: Learner, key: str) -> dict[str, Any]:
    """Takes a checkpoint up."""
    try:
        content = path.read_bytes()
        tensors = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about: dict[str, Any] = json.loads(header["__metadata__"][_METADATA])
        if about["key"] != key:
            raise UsageError(f"{path} is of other pairs or settings.", hint="Choose another work folder.")
        for name, network in learner.networks.items():
            start = f"network.{name}."
            network.load_state_dict(
                {field.removeprefix(start): value for field, value in tensors.items() if field.startswith(start)}
            )
        for name, optimizer in learner.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for field, value in tensors.items():
                if field.startswith(f"optimizer.{name}."):
                    place, entry = field.removeprefix(f"optimizer.{name}.").split(".", 1)
                    state.setdefault(int(place), {})[entry] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise WeightsCorrupt(f"The checkpoint {path} cannot be taken up: {error}", hint="Delete it.") from error
    return about
