"""How visible a change is, pixel by pixel: where a mask may hide, and how it is shaped to hide there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bauta.objectives.transports import gaussian_blur

_LUMA = (0.299, 0.587, 0.114)

BLACK = 20.0
"""Just-noticeable difference of black by Chou and Li, in 1/255."""


def luminance(images: Tensor) -> Tensor:
    """(N, 1, H, W) BT.601 luminance of (N, 3, H, W) images."""
    return torch.einsum("c,nchw->nhw", images.new_tensor(_LUMA), images)[:, None]


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of every pixel (Wang et al. 2004), mean over channels, differentiable.

    The Gaussian window of standard deviation 1.5 is that of `bauta.metrics.ssim`, but borders are replicated, so
    that the map has the size of the images and can be weighted.

    Args:
        first: (N, C, H, W) in [0, 1].
        second: The same shape.

    Returns:
        (N, 1, H, W) in [-1, 1].
    """
    stacked = torch.cat([first, second, first.square(), second.square(), first * second], 1)
    means = gaussian_blur(stacked, 1.5).chunk(5, 1)
    mean_1, mean_2, square_1, square_2, product = means
    covariance = product - mean_1 * mean_2
    variance = square_1 - mean_1.square() + square_2 - mean_2.square()
    luminance_term = (2 * mean_1 * mean_2 + 1e-4) / (mean_1.square() + mean_2.square() + 1e-4)
    return (luminance_term * (2 * covariance + 9e-4) / (variance + 9e-4)).mean(1, keepdim=True)


def just_noticeable(images: Tensor, scale: Sequence[float] | None = None, black: float = BLACK) -> Tensor:
    """Just-noticeable difference of every pixel, (N, 1, H, W) in [0, 1] units.

    Luminance adaptation as in Chou and Li (1995), equation for the background luminance on the 0..255 scale,
    plus texture masking by the local standard deviation. The sum and the weight of the texture term are our
    design, after the nonlinear additivity model of Yang et al. (2005) without its overlap term.

    Args:
        images: (N, 3, H, W) in [0, 1].
        scale: For each face by how much the windows are widened, so that a large picture of it is judged by the detail
            that a small one shows too; 1 when None.
        black: Most that is hidden by darkness alone, in 1/255; less than `BLACK` for screens in the dark.
    """
    if scale is not None:
        pairs = zip(images, scale, strict=True)
        return torch.cat([_just_noticeable(image[None], factor, black) for image, factor in pairs])
    return _just_noticeable(images, 1.0, black)


def _just_noticeable(images: Tensor, scale: float, black: float) -> Tensor:
    grey = luminance(images) * 255
    background = gaussian_blur(grey, 2.0 * scale)
    dark = ((BLACK - 3) * (1 - (background.clamp(0, 127) / 127).sqrt()) + 3).clamp_max(black)
    bright = 3 / 128 * (background - 127) + 3
    adaptation = torch.where(background <= 127, dark, bright)
    mean, square = gaussian_blur(grey, 1.5 * scale), gaussian_blur(grey.square(), 1.5 * scale)
    return (adaptation + (square - mean.square()).clamp_min(0).sqrt()) / 255
