"""What reconstructed images lose against shadow images: squared error, and structure in grey. Our design.

The gradient is written out, since most of the time beside the networks' passes went into differentiating it.
"""

from __future__ import annotations

from dataclasses import dataclass
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


def _pooled(images: Tensor) -> Tensor:
    """Means of squares (..., 27, 27) of images (..., 112, 112)."""
    across, down = _means(images.device)
    return down @ (images @ across)


def _spread(means: Tensor) -> Tensor:
    """What `_pooled` does, transposed: (..., 27, 27) to (..., 112, 112)."""
    across, down = _means(means.device)
    return across @ (means @ down)


@dataclass(frozen=True, eq=False)
class Reference:
    """Images that others are compared with.

    Attributes:
        images: (N, 3, 112, 112).
        grey: (N, 112, 112).
        means: (N, 27, 27), of their squares in grey.
        variances: (N, 27, 27).
        structure: Weight of the similarity.
    """

    images: Tensor
    grey: Tensor
    means: Tensor
    variances: Tensor
    structure: float

    @classmethod
    def of(cls, images: Tensor, structure: float) -> Reference:
        """Images (N, 3, 112, 112), and what is known of them."""
        images = images.contiguous()
        grey = images.mean(1)
        means, squares = _pooled(torch.stack([grey, grey.square()]))
        return cls(images, grey, means, squares - means.square(), structure)

    def lost_gradient(self, decoded: Tensor) -> Tensor:
        """Gradient by decoded images (N, 3, 112, 112) of their squared error less `structure` times their similarity.

        That is SSIM over squares in grey without its term of luminance, a / b with a = 2 cov + c, b = var + var' + c.
        """
        decoded = decoded.contiguous()
        gradient = torch.sub(decoded, self.images).mul_(2 / decoded[0].numel())
        if not self.structure:
            return gradient
        shown = decoded.mean(1)
        means, squares, products = _pooled(torch.stack([shown, shown * shown, shown * self.grey]))
        inverse = squares.add_(self.variances).addcmul_(means, means, value=-1).add_(_LEAST).reciprocal_()
        ratio = products.addcmul_(means, self.means, value=-1).mul_(2).add_(_LEAST).mul_(inverse).mul_(inverse)
        constant = (means * ratio).addcmul_(self.means, inverse, value=-1)
        by_grey, by_shown, similar = _spread(torch.stack([inverse, ratio, constant]))
        similar.addcmul_(by_grey, self.grey).addcmul_(by_shown, shown, value=-1)
        return gradient.sub_(similar.unsqueeze(1), alpha=2 * self.structure / (inverse[0].numel() * decoded.shape[1]))
