"""Steps of the gradient's sign with momentum, within a box (MI-FGSM, Dong et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bauta.errors import NumericalFailure


def descend(
    start: Tensor,
    loss: Callable[[Tensor, int], Tensor],
    *,
    budget: float,
    iterations: int,
    across: float,
    decay: float,
    low: float | None = None,
    high: float | None = None,
    smooth: Callable[[Tensor], Tensor] | None = None,
    shrinking: bool = False,
) -> Tensor:
    """Images near others that make a loss small.

    Args:
        start: (N, 3, H, W).
        loss: Of images and the number of the iteration, a scalar under autograd; a sum over images, each of which
            gets its own gradient.
        budget: Largest change of a sample, in units of the images.
        iterations: Steps.
        across: Times that all steps in one direction would cross the budget; no step is longer than that.
        decay: Of the momentum, in [0, 1).
        low: What no sample falls below.
        high: What no sample rises above.
        smooth: What is done to each gradient first.
        shrinking: Whether steps become shorter, each by the same length, down to nearly nothing: steps of one length
            end by swinging around what they look for. Our design.

    Returns:
        (N, 3, H, W), nowhere further than `budget` from the start.

    Raises:
        NumericalFailure: when a gradient is NaN or infinite.
    """
    shares = [iterations - one for one in range(iterations)] if shrinking else [1] * iterations
    least, most = start - budget, start + budget
    least = least if low is None else least.clamp_min(low)
    most = most if high is None else most.clamp_max(high)
    found, momentum = start, torch.zeros_like(start)
    for iteration, share in enumerate(shares):
        with torch.enable_grad():
            variable = found.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(variable, iteration), variable)
        if not bool(gradient.isfinite().all()):
            raise NumericalFailure("A recogniser's gradient is not a number.", hint="Check its weights.")
        if smooth is not None:
            gradient = smooth(gradient)
        momentum = decay * momentum + gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-20)
        step = min(1.0, across * share / sum(shares))
        found = (found - step * budget * momentum.sign()).clamp(least, most)
    return found
