"""Random numbers that protection draws and forgets."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Draws:
    """Random numbers for protection: a generator's in experiments, and else the operating system's, without a seed.

    Args:
        generator: Of an experiment that is to be repeated.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def uniform(self, *shape: int) -> Tensor:
        """float32 in (0, 1)."""
        if self.generator is not None:
            return torch.rand(shape, generator=self.generator)
        return self._bits(shape).float()

    def normal(self, *shape: int) -> Tensor:
        """float32 of mean 0 and deviation 1."""
        if self.generator is not None:
            return torch.randn(shape, generator=self.generator)
        normal: Tensor = torch.special.ndtri(self._bits(shape)).float()
        return normal

    def whole(self, low: int, high: int, count: int) -> Tensor:
        """(count,) whole numbers from low to high, both included."""
        return (low + (self.uniform(count) * (high - low + 1)).long()).clamp_max(high)

    @staticmethod
    def _bits(shape: Sequence[int]) -> Tensor:
        """float64 in (0, 1), 23 bits each, so that float32 never rounds them to 1."""
        count = int(np.prod(shape))
        numbers = np.frombuffer(secrets.token_bytes(4 * count), np.dtype("<u4")) >> np.uint32(9)
        return torch.from_numpy((numbers.astype(np.float64) + 0.5) / (1 << 23)).reshape(tuple(shape))
