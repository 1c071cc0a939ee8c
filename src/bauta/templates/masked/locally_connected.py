"""An affine function of images that looks at neighbours only, as one matrix for each place.

Masks of the block-DCT family are such functions: 108 maps of which each block was computed from 3x3 pixels of three
colours. Followed by a layer that makes 6 numbers of 3x3 blocks, they see 5x5 pixels, 75 numbers, and are 6x75 weights a
place, which is less work than the 108 maps. The weights differ from place to place, since the blocks do not lie alike
on the pixels: a locally connected layer, not a convolution. Our design.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

REACH = 5  # pixels across that a place sees


class LocallyConnected(nn.Module):
    """Weights of its own for every place of an image.

    Args:
        weights: (H W, 25 C, outputs), for each place those of its 5x5 pixels, colour by colour and row by row.
        bias: (outputs, H, W).
    """

    weights: Tensor
    bias: Tensor

    def __init__(self, weights: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.register_buffer("bias", bias)

    @classmethod
    @torch.no_grad()
    def of(cls, function: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> LocallyConnected:
        """The same function, found by asking it about combs of pixels of which each place sees one.

        Args:
            function: From images (n, C, H, W) to values (n, outputs, H, W): affine, each place of 5x5 pixels.
            shape: (C, H, W) of its images.
        """
        colours, high, wide = shape
        bias = function(torch.zeros(1, *shape))[0]
        rows, columns = torch.arange(high), torch.arange(wide)
        found = torch.zeros(high, wide, colours, REACH, REACH, len(bias))
        for colour in range(colours):
            for down in range(REACH):
                for across in range(REACH):
                    comb = torch.zeros(1, *shape)
                    comb[0, colour, down::REACH, across::REACH] = 1
                    answer = (function(comb)[0] - bias).permute(1, 2, 0)
                    # Where each place has the tooth of this comb among its 5x5 pixels, which begin two before it.
                    upper, left = (down - rows + REACH // 2) % REACH, (across - columns + REACH // 2) % REACH
                    found[rows[:, None], columns, colour, upper[:, None], left] = answer
        return cls(found.reshape(high * wide, colours * REACH * REACH, -1), bias)

    def forward(self, images: Tensor) -> Tensor:
        """Values (N, outputs, H, W) of images (N, C, H, W), under autograd."""
        patches = functional.unfold(images, REACH, padding=REACH // 2).permute(2, 0, 1)
        values: Tensor = _Products.apply(patches, self.weights)  # type: ignore[no-untyped-call]
        return values.reshape(*images.shape[2:], len(images), -1).permute(2, 3, 0, 1) + self.bias


class _Products(torch.autograd.Function):
    """`torch.bmm`, whose weights have no gradient, in the only layout that it does not take matrix by matrix."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return torch.bmm(patches.clone(memory_format=torch.contiguous_format), weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        return torch.bmm(gradients[0].clone(memory_format=torch.contiguous_format), weights.mT), None
