"""How visible a change is, pixel by pixel: where a mask may hide, and how it is shaped to hide there."""

from __future__ import annotations

import torch
from torch import Tensor

from bauta.objectives.transports import gaussian_blur

_LUMA = (0.299, 0.587, 0.114)


def luminance(images: Tensor) -> Tensor:
    """(N, 1, H, W) BT.601 luminance of (N, 3, H, W) images."""
    return torch.einsum("c,nchw->nhw", images.new_tensor(_LUMA), images)[:, None]


def just_noticeable(images: Tensor) -> Tensor:
    """Just-noticeable difference of every pixel, (N, 1, H, W) in [0, 1] units.

    Luminance adaptation as in Chou and Li (1995), equation for the background luminance on the 0..255 scale,
    plus texture masking by the local standard deviation. The sum and the weight of the texture term are our
    design, after the nonlinear additivity model of Yang et al. (2005) without its overlap term.

    Args:
        images: (N, 3, H, W) in [0, 1].
    """
    grey = luminance(images) * 255
    background = gaussian_blur(grey, 2.0)
    dark = 17 * (1 - (background.clamp(0, 127) / 127).sqrt()) + 3
    bright = 3 / 128 * (background - 127) + 3
    adaptation = torch.where(background <= 127, dark, bright)
    texture = (gaussian_blur(grey.square(), 1.5) - gaussian_blur(grey, 1.5).square()).clamp_min(0).sqrt()
    return (adaptation + texture) / 255
