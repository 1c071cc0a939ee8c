"""The one loop that every iterative cloak runs: momentum, a step, a projection, and the best of the candidates.

A cloak supplies a `Problem`, which knows gradients and which candidate is best; the loop knows norms and
budgets. With one candidate it is projected descent with momentum (MI-FGSM); with K candidates, of which the best
is kept at every iteration, it is Algorithm 1 of TIP-IM.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from bauta.progress import Steps


class Problem(Protocol):
    """What is minimised over a batch of N perturbations."""

    def gradients(self, delta: Tensor) -> Tensor:
        """Gradients (K, N, 3, H, W) of K candidate objectives at `delta` (N, 3, H, W)."""

    def best(self, candidates: Tensor) -> Tensor:
        """Which of the K candidate perturbations (K, N, 3, H, W) to keep for each of the N: (N,) int64."""

    def finished(self, delta: Tensor, iteration: int) -> Tensor | None:
        """Which of the N need no further iteration, (N,) bool; None when there is no such rule."""


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


@dataclass(frozen=True)
class Run:
    """What the loop did.

    Attributes:
        delta: (N, 3, H, W).
        iterations: Iterations each of the N took.
        stopped: For each of the N: ``converged``, ``iterations`` or ``deadline``.
        seconds: Wall time of the whole batch.
    """

    delta: Tensor
    iterations: list[int]
    stopped: list[str]
    seconds: float


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


def projected_momentum(
    problem: Problem,
    images: Tensor,
    region: Tensor,
    step: Step,
    iterations: int,
    *,
    start: Tensor | None = None,
    deadline: float | None = None,
    progress: Steps | None = None,
) -> Run:
    """Minimise `problem` over perturbations of `images` inside `region`.

    Args:
        problem: Gradients, the choice among candidates, and the stopping rule.
        images: (N, 3, H, W) in [0, 1].
        region: (N, 1, H, W) in [0, 1]; steps are multiplied by it, so that the perturbation fades out at the
            border and is exactly zero outside.
        step: Step rule and budgets.
        iterations: Upper bound of the iterations.
        start: (N, 3, H, W) to start from; zero when None.
        deadline: `time.monotonic` value at which no further iteration starts (one always runs).
        progress: Called with (iteration, iterations) after each.

    Returns:
        The perturbations and what it took.
    """
    began = time.monotonic()
    count = len(images)
    area = region.sum((1, 2, 3)) * images.shape[1]
    delta = torch.zeros_like(images) if start is None else start.clone()
    momentum = torch.zeros_like(images)
    active = torch.ones(count, dtype=torch.bool)
    taken, stopped = [0] * count, ["iterations"] * count
    rows = torch.arange(count)
    for iteration in range(iterations):
        if iteration and deadline is not None and time.monotonic() >= deadline:
            stopped = ["deadline" if running else reason for running, reason in zip(active, stopped, strict=True)]
            break
        gradient = problem.gradients(delta) * (region > 0)
        scale = gradient.abs().sum((-3, -2, -1), keepdim=True) / area[:, None, None, None]
        candidates = step.decay * momentum + gradient / scale.clamp_min(1e-20)
        if step.norm == "linf":
            direction = candidates.sign()
        else:
            rms = (candidates.square().sum((-3, -2, -1), keepdim=True) / area[:, None, None, None]).sqrt()
            direction = candidates / rms.clamp_min(1e-20)
        moved = project(delta - step.size * direction * region, images, area, step)
        best = problem.best(moved)
        keep = active[:, None, None, None]
        delta = torch.where(keep, moved[best, rows], delta)
        momentum = torch.where(keep, candidates[best, rows], momentum)
        taken = [done + int(running) for done, running in zip(taken, active, strict=True)]
        if progress is not None:
            progress(iteration + 1, iterations)
        finished = problem.finished(delta, iteration)
        if finished is not None:
            stopped = [
                "converged" if running and done else reason
                for running, done, reason in zip(active, finished, stopped, strict=True)
            ]
            active &= ~finished
            if not active.any():
                break
    return Run(delta, taken, stopped, time.monotonic() - began)
