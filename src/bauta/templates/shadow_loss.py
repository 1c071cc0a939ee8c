"""What faces that shadows reconstruct lose against a shadow image: squared error, and structure in grey. Our design.

The gradient is written out and works on planes of one colour, since most of the time beside the networks' passes went
into differentiating it and into changing layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from bauta.templates.decoders import SIDE

SQUARE, EVERY = 8, 4  # structure is compared in squares of so many pixels, every so many
_LEAST = 0.0009  # of the variances together, 0.03 squared as in SSIM


@cache
def _means(device: torch.device) -> tuple[Tensor, Tensor]:
    """(112, 27), means over the squares of a line, and the same transposed."""
    first = EVERY * torch.arange((SIDE - SQUARE) // EVERY + 1)
    place = torch.arange(SIDE)[:, None] - first
    across = (((place >= 0) & (place < SQUARE)).float() / SQUARE).to(device)
    return across, across.T.contiguous()


def _pooled(planes: Tensor) -> Tensor:
    """Means of squares (..., 27, 27) of planes (..., 112, 112)."""
    across, down = _means(planes.device)
    lines = planes.reshape(-1, SIDE) @ across
    return torch.bmm(down.expand(len(lines) // SIDE, -1, -1), lines.view(-1, *across.shape)).view(
        *planes.shape[:-2], len(down), len(down)
    )


def _spread(means: Tensor) -> Tensor:
    """What `_pooled` does, transposed: (..., 27, 27) to (..., 112, 112)."""
    across, down = _means(means.device)
    lines = means.reshape(-1, len(down)) @ down
    return torch.bmm(across.expand(len(lines) // len(down), -1, -1), lines.view(-1, *down.shape)).view(
        *means.shape[:-2], SIDE, SIDE
    )


class ShadowLoss:
    """Compares images with what several decoders reconstruct of them; it keeps its working memory.

    Args:
        images: (N, 3, 112, 112).
        starts: Of each decoder the logits that its own are added to before the sigmoid, (3, 112, 112).
        structure: Weight of the structural similarity.
    """

    def __init__(self, images: Tensor, starts: Sequence[Tensor], structure: float) -> None:
        self.structure = structure
        self.images = images.transpose(0, 1)[:, None].contiguous()  # (3, 1, N, 112, 112)
        self.starts = [start[:, None].contiguous() for start in starts]
        shape = (len(starts), len(images), SIDE, SIDE)
        self.colours = images.new_empty(3, *shape)
        if structure:
            self.grey = self.images.mean(0)
            self.means, squares = _pooled(torch.stack([self.grey, self.grey.square()]))
            self.variances = squares - self.means.square() + _LEAST
            self.maps = images.new_empty(3, *shape)  # grey, its square, its product with the images' grey

    def gradients(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """Of what is lost, by each decoder's logits (N, 3, 112, 112); half as long as there are numbers in an image.

        Lost is the mean squared error less `structure` times the similarity, that is SSIM over squares in grey without
        its term of luminance: a / b with a = 2 cov + c, b = var + var' + c.
        """
        colours = self.colours
        for place, (one, start) in enumerate(zip(logits, self.starts, strict=True)):
            torch.add(one.transpose(0, 1), start, out=colours[:, place])
        colours.sigmoid_()
        lost = colours - self.images
        if self.structure:
            similar = self._similar_gradient()
            lost.sub_(similar, alpha=self.structure * SIDE**2 / self.means[0, 0].numel())
        lost = torch.ops.aten.sigmoid_backward(lost, colours)
        return [lost[:, place].transpose(0, 1) for place in range(len(logits))]

    def _similar_gradient(self) -> Tensor:
        """Of half the sum of the squares' similarities, by the grey of `colours`: (decoders, N, 112, 112)."""
        grey, square, product = self.maps
        torch.mean(self.colours, 0, out=grey)
        torch.mul(grey, grey, out=square)
        torch.mul(grey, self.grey, out=product)
        means, squares, products = _pooled(self.maps)
        inverse = squares.add_(self.variances).addcmul_(means, means, value=-1).reciprocal_()
        ratio = products.addcmul_(means, self.means, value=-1).mul_(2).add_(_LEAST).mul_(inverse).mul_(inverse)
        constant = (means * ratio).addcmul_(self.means, inverse, value=-1)
        by_wanted, by_grey, rest = _spread(torch.stack([inverse, ratio, constant]))
        similar: Tensor = rest.addcmul_(by_wanted, self.grey).addcmul_(by_grey, grey, value=-1)
        return similar
