"""What faces that shadows reconstruct lose against a shadow image: squared error, and structure in grey. Our design.

The gradient is written out, works on planes of one colour and in memory that is kept, since most of the time beside
the networks' passes went into differentiating it, changing layouts and making room.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from bauta.learning.decoders import SIDE

SQUARE, EVERY = 8, 4  # structure is compared in squares of so many pixels, every so many
_LEAST = 0.0009  # of the variances together, 0.03 squared as in SSIM


@cache
def _means(device: torch.device) -> tuple[Tensor, Tensor]:
    """(112, 27), means over the squares of a line, and the same transposed."""
    first = EVERY * torch.arange((SIDE - SQUARE) // EVERY + 1)
    place = torch.arange(SIDE)[:, None] - first
    across = (((place >= 0) & (place < SQUARE)).float() / SQUARE).to(device)
    return across, across.T.contiguous()


class _Squares:
    """Means over the squares of planes, and the way back.

    Args:
        planes: How many, whatever they are of.
        like: Where and of which type.
    """

    def __init__(self, planes: int, like: Tensor) -> None:
        self.across, self.down = _means(like.device)
        count = len(self.down)
        self._lines = like.new_empty(planes, SIDE, count)
        self._pooled = like.new_empty(planes, count, count)
        self._half = like.new_empty(planes, count, SIDE)
        self._spread = like.new_empty(planes, SIDE, SIDE)

    def pool(self, planes: Tensor) -> Tensor:
        """(..., 27, 27), means of (..., 112, 112), until the next call."""
        torch.mm(planes.view(-1, SIDE), self.across, out=self._lines.view(-1, len(self.down)))
        torch.bmm(self.down.expand(len(self._lines), -1, -1), self._lines, out=self._pooled)
        return self._pooled.view(*planes.shape[:-2], *self._pooled.shape[1:])

    def spread(self, means: Tensor) -> Tensor:
        """(..., 112, 112), what `pool` does, transposed, to (..., 27, 27), until the next call."""
        torch.mm(means.view(-1, len(self.down)), self.down, out=self._half.view(-1, SIDE))
        torch.bmm(self.across.expand(len(self._half), -1, -1), self._half, out=self._spread)
        return self._spread.view(*means.shape[:-2], SIDE, SIDE)


class ShadowLoss:
    """Compares images with what several decoders reconstruct of them.

    Args:
        images: (N, 3, 112, 112).
        starts: Of each decoder the logits that its own are added to before the sigmoid, (3, 112, 112).
        structure: Weight of the structural similarity.
    """

    def __init__(self, images: Tensor, starts: Sequence[Tensor], structure: float) -> None:
        self.structure = structure
        self.images = images.transpose(0, 1)[:, None].contiguous()  # (3, 1, N, 112, 112)
        self.starts = [start[:, None].contiguous() for start in starts]
        count, shape = len(starts) * len(images), (len(starts), len(images), SIDE, SIDE)
        self._colours, self._lost = images.new_empty(3, *shape), images.new_empty(3, *shape)
        self._gradient = images.new_empty(*shape, 3)  # channels last, as the decoders want it
        if structure:
            self.grey = self.images.mean(0)
            means, squares = _Squares(2 * len(images), images).pool(torch.stack([self.grey, self.grey.square()]))
            self.means, self.variances = means, squares - means.square() + _LEAST
            self._maps = images.new_empty(3, *shape)  # grey, its square, its product with the images' grey
            self._small = images.new_empty(3, *shape[:2], *means.shape[2:])
            self._squares = _Squares(3 * count, images)

    def gradients(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """Of what is lost, times half the count of numbers in an image, by each decoder's logits; until the next call.

        Lost is the mean squared error less `structure` times the similarity, that is SSIM over squares in grey without
        its term of luminance: a / b with a = 2 cov + c, b = var + var' + c.

        Args:
            logits: Of each decoder (N, 3, 112, 112).
        """
        colours = self._colours
        for place, (one, start) in enumerate(zip(logits, self.starts, strict=True)):
            torch.add(one.transpose(0, 1), start, out=colours[:, place])
        colours.sigmoid_()
        lost = torch.sub(colours, self.images, out=self._lost)
        if self.structure:
            lost.sub_(self._similar_gradient(), alpha=self.structure * SIDE**2 / self.means[0, 0].numel())
        planes = self._gradient.permute(4, 0, 1, 2, 3)
        torch.ops.aten.sigmoid_backward.grad_input(lost, colours, grad_input=planes)
        return [gradient.permute(0, 3, 1, 2) for gradient in self._gradient]

    def _similar_gradient(self) -> Tensor:
        """Of half the sum of the squares' similarities, by grey: (decoders, N, 112, 112)."""
        grey, square, product = self._maps
        torch.mean(self._colours, 0, out=grey)
        torch.mul(grey, grey, out=square)
        torch.mul(grey, self.grey, out=product)
        means, squares, products = self._squares.pool(self._maps)
        inverse, ratio, constant = self._small
        torch.reciprocal(squares.add_(self.variances).addcmul_(means, means, value=-1), out=inverse)  # 1 / b
        covariance = products.addcmul_(means, self.means, value=-1)
        torch.mul(covariance.add_(_LEAST / 2).mul_(inverse), inverse, out=ratio).mul_(-2)  # -a / b²
        torch.mul(means, ratio, out=constant).addcmul_(self.means, inverse).neg_()
        by_wanted, by_grey, similar = self._squares.spread(self._small)
        gradient: Tensor = similar.addcmul_(by_wanted, self.grey).addcmul_(by_grey, grey)
        return gradient
