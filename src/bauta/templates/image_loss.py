"""What reconstructed images lose against shadow images: squared error, and structure in grey. Our design.

The gradient is written out, since most of the time beside the networks' passes went into differentiating it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from bauta.templates.decoders import SIDE

SQUARE, EVERY = 8, 4  # structure is compared in squares of so many pixels, every so many


@cache
def _squares(device: torch.device) -> Tensor:
    """(112, 27): sums of a line's squares."""
    first = EVERY * torch.arange((SIDE - SQUARE) // EVERY + 1)
    place = torch.arange(SIDE)[:, None] - first
    return ((place >= 0) & (place < SQUARE)).float().to(device)


def _strips(images: Tensor) -> Tensor:
    """Images (..., 112, W) as (..., 28, 4, W): two strips of lines, one below the other, are as high as a square."""
    return images.reshape(*images.shape[:-2], -1, EVERY, images.shape[-1])


def _pooled(images: Tensor) -> Tensor:
    """Means of squares (..., 27, 27) of images (..., 112, 112)."""
    strips = _strips(images).sum(-2)
    return (strips[..., 1:, :] + strips[..., :-1, :]) @ _squares(images.device) / SQUARE**2


def _spread(means: Tensor) -> Tensor:
    """What `_pooled` does, transposed: (..., 27, 27) to (..., 28, 1, 112), the same for all lines of a strip."""
    wide = functional.pad(means @ _squares(means.device).T / SQUARE**2, (0, 0, 1, 1))
    return (wide[..., 1:, :] + wide[..., :-1, :]).unsqueeze(-2)


def moments(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 3, 112, 112) in grey, and the means and variances of their squares."""
    grey = image.mean(1, keepdim=True)
    means = _pooled(grey)
    return grey, means, _pooled(grey.square()) - means.square()


def lost_gradient(
    decoded: Tensor, image: Tensor, structure: float, known: tuple[Tensor, Tensor, Tensor] | None = None
) -> Tensor:
    """Gradient by decoded images (N, 3, 112, 112) of their squared error less `structure` times their similarity.

    That is SSIM over squares in grey without its term of luminance, a / b with a = 2 cov + c and b = var + var' + c.

    Args:
        decoded: The images.
        image: What they are compared with.
        structure: Weight.
        known: Moments of `image`; not needed without weight.
    """
    gradient = (decoded - image).mul_(2 / decoded[0].numel())
    if known is None or not structure:
        return gradient
    grey, other, theirs = known
    shown = decoded.mean(1, keepdim=True)
    means, squares, products = _pooled(torch.stack([shown, shown.square(), shown * grey]))
    inverse = 1 / (squares - means.square() + theirs + 0.0009)
    ratio = (2 * (products - means * other) + 0.0009) * inverse.square()
    by_image, by_decoded, constant = _spread(torch.stack([inverse, ratio, means * ratio - other * inverse]))
    similar = torch.addcmul(constant, by_image, _strips(grey)).sub_(by_decoded * _strips(shown)).flatten(-3, -2)
    return gradient.sub_(similar, alpha=2 * structure / (inverse[0].numel() * decoded.shape[1]))
