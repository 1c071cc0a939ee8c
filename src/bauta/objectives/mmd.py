"""Maximum mean discrepancy as TIP-IM measures naturalness: between batches of raw pixels."""

from __future__ import annotations

import torch
from torch import Tensor

# mmd.py of the official TIP-IM code: nineteen kernels exp(-d^2 / (2 s)).
SIGMAS = (*(10.0**power for power in range(-6, 0)), 1, 5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6)


def mmd(first: Tensor, second: Tensor) -> Tensor:
    """Biased estimate of the squared MMD under a sum of Gaussian kernels (equation 3, and the official code).

    Args:
        first: (N, D) samples on the 0..255 scale, as the kernels expect.
        second: (M, D).

    Returns:
        Scalar; as in the official code, without a square root, and divided once more by N.
    """
    spread = first.new_tensor(SIGMAS)[:, None, None] * 2

    def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp_min(0)
        return torch.exp(-squared[None] / spread).sum(0).mean()

    value = mean_kernel(first, first) + mean_kernel(second, second) - 2 * mean_kernel(first, second)
    return value / len(first)
