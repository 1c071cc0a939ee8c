"""The one loop that every iterative cloak runs: momentum, a step, a projection, and the best of the candidates.

A cloak supplies a `Problem`, which knows gradients and which candidate is best, and the variables that are moved, each
of which knows its norm and its budget: `Pixels`, or a field of displacements (`bauta.objectives.displacement`). With
one candidate it is projected descent with momentum (MI-FGSM); with K candidates, of which the best is kept at every
iteration, it is Algorithm 1 of TIP-IM.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from bauta.progress import Steps

Values = tuple[Tensor, ...]
"""One tensor for each variable; all have the same number N of rows, one for each face."""


class Problem(Protocol):
    """What is minimised over a batch of N faces."""

    def gradients(self, values: Values) -> Values:
        """For each variable the gradients (K, N, ...) of K candidate objectives at its value (N, ...)."""

    def best(self, candidates: Values) -> Tensor:
        """Which of the K candidates (K, N, ...) to keep for each of the N: (N,) int64."""

    def finished(self, values: Values, iteration: int) -> Tensor | None:
        """Which of the N need no further iteration, (N,) bool; None when there is no such rule."""


class Variable(Protocol):
    """One thing that is moved, for all N faces."""

    start: Tensor
    decay: float

    def normalised(self, gradients: Tensor) -> Tensor:
        """Gradients (K, N, ...) of one size, whatever the loss's scale: what momentum adds up."""

    def moved(self, value: Tensor, momentum: Tensor) -> Tensor:
        """A step from (N, ...) down each of K momenta, projected into the budget: (K, N, ...)."""


@dataclass(frozen=True)
class Step:
    """How a gradient becomes a step, and how far the sum of steps may go.

    Attributes:
        norm: ``linf`` steps by sign; ``l2`` steps along the momentum with root-mean-square length `size`.
        size: Step length, in [0, 1] units.
        decay: Momentum decay mu; the gradient is divided by its mean absolute value before it is added.
        epsilon: Half side of the box around the photo, in [0, 1] units.
        rms: Largest root mean square of the perturbation over the region, in [0, 1] units; None for no limit.
    """

    norm: Literal["linf", "l2"]
    size: float
    decay: float
    epsilon: float
    rms: float | None = None


class Pixels:
    """A perturbation of pixels inside a region, in the box and the ball of a `Step`.

    Args:
        images: (N, 3, H, W) in [0, 1]; with the perturbation they stay in [0, 1].
        region: (N, 1, H, W) in [0, 1]; steps are multiplied by it, so that the perturbation fades out at the border and
            is exactly zero outside.
        step: Step rule and budgets.
        start: (N, 3, H, W) to start from; zero when None.
    """

    def __init__(self, images: Tensor, region: Tensor, step: Step, start: Tensor | None = None) -> None:
        self.images, self.region, self.step, self.decay = images, region, step, step.decay
        self.area = region.sum((1, 2, 3)) * images.shape[1]
        self.start = torch.zeros_like(images) if start is None else start.clone()

    def normalised(self, gradients: Tensor) -> Tensor:
        """Of unit mean absolute value over the region."""
        gradients = gradients * (self.region > 0)
        scale = gradients.abs().sum((-3, -2, -1), keepdim=True) / self.area[:, None, None, None]
        return gradients / scale.clamp_min(1e-20)

    def moved(self, value: Tensor, momentum: Tensor) -> Tensor:
        """By sign, or along the momentum; then `project`."""
        if self.step.norm == "linf":
            direction = momentum.sign()
        else:
            rms = (momentum.square().sum((-3, -2, -1), keepdim=True) / self.area[:, None, None, None]).sqrt()
            direction = momentum / rms.clamp_min(1e-20)
        return project(value - self.step.size * direction * self.region, self.images, self.area, self.step)


def project(delta: Tensor, images: Tensor, area: Tensor, step: Step) -> Tensor:
    """Nearest allowed perturbation by scaling and clipping: the ball of `rms`, the box, and [0, 1].

    Args:
        delta: (..., N, 3, H, W).
        images: (N, 3, H, W) in [0, 1].
        area: (N,) number of samples (pixels times channels) of each face region.
        step: The budgets.
    """
    if step.rms is not None:
        rms = (delta.square().sum((-3, -2, -1)) / area).sqrt()
        delta = delta * (step.rms / rms.clamp_min(1e-12)).clamp_max(1)[..., None, None, None]
    delta = delta.clamp(-step.epsilon, step.epsilon)
    return (images + delta).clamp(0, 1) - images


@dataclass(frozen=True)
class Run:
    """What the loop did.

    Attributes:
        values: For each variable (N, ...).
        iterations: Iterations each of the N took.
        stopped: For each of the N: ``converged``, ``iterations`` or ``deadline``.
        seconds: Wall time of the whole batch.
    """

    values: Values
    iterations: list[int]
    stopped: list[str]
    seconds: float


def descend(
    problem: Problem,
    variables: Sequence[Variable],
    iterations: int,
    *,
    deadline: float | None = None,
    progress: Steps | None = None,
) -> Run:
    """Minimise `problem` over its variables, all faces together.

    Args:
        problem: Gradients, the choice among candidates, and the stopping rule.
        variables: What is moved, in the order of the problem's values.
        iterations: Upper bound of the iterations.
        deadline: `time.monotonic` value at which no further iteration starts (one always runs).
        progress: Called with (iteration, iterations) after each.

    Returns:
        The values and what it took.
    """
    began = time.monotonic()
    values = tuple(variable.start for variable in variables)
    momenta = tuple(torch.zeros_like(value) for value in values)
    count = len(values[0])
    active = torch.ones(count, dtype=torch.bool)
    taken, stopped = [0] * count, ["iterations"] * count
    rows = torch.arange(count)
    for iteration in range(iterations):
        if iteration and deadline is not None and time.monotonic() >= deadline:
            stopped = ["deadline" if running else reason for running, reason in zip(active, stopped, strict=True)]
            break
        gradients = problem.gradients(values)
        tried = [
            variable.decay * momentum + variable.normalised(gradient)
            for variable, momentum, gradient in zip(variables, momenta, gradients, strict=True)
        ]
        moved = tuple(
            variable.moved(value, momentum) for variable, value, momentum in zip(variables, values, tried, strict=True)
        )
        best = problem.best(moved)
        values = tuple(_kept(active, new[best, rows], old) for new, old in zip(moved, values, strict=True))
        momenta = tuple(_kept(active, new[best, rows], old) for new, old in zip(tried, momenta, strict=True))
        taken = [done + int(running) for done, running in zip(taken, active, strict=True)]
        if progress is not None:
            progress(iteration + 1, iterations)
        finished = problem.finished(values, iteration)
        if finished is not None:
            stopped = [
                "converged" if running and done else reason
                for running, done, reason in zip(active, finished, stopped, strict=True)
            ]
            active &= ~finished
            if not active.any():
                break
    return Run(values, taken, stopped, time.monotonic() - began)


def _kept(active: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(active.reshape(-1, *(1,) * (old.ndim - 1)), new, old)
