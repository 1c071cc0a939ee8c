"""Colours as people see them, differentiably: sRGB to CIELAB and back."""

from __future__ import annotations

import torch
from torch import Tensor

_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_BEND = 6 / 29


def to_lab(images: Tensor) -> Tensor:
    """CIELAB, white D65, of sRGB.

    >>> to_lab(torch.ones(1, 3, 1, 1)).flatten().round(decimals=2).tolist()
    [100.0, 0.0, 0.0]

    Args:
        images: (N, 3, H, W) in [0, 1].

    Returns:
        (N, 3, H, W): L in [0, 100], a and b.
    """
    value = images.clamp_min(1e-6)
    linear = torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = images.new_tensor(_TO_XYZ)
    xyz = torch.einsum("ij,njhw->nihw", matrix / matrix.sum(1, keepdim=True), linear)
    f = torch.where(xyz > _BEND**3, xyz.clamp_min(_BEND**3) ** (1 / 3), xyz / (3 * _BEND**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def from_lab(lab: Tensor) -> Tensor:
    """sRGB of CIELAB (N, 3, H, W), the inverse of `to_lab`; colours that screens do not have are cut to [0, 1]."""
    y = (lab[:, 0] + 16) / 116
    f = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], 1)
    xyz = torch.where(f > _BEND, f.clamp_min(_BEND) ** 3, 3 * _BEND**2 * (f - 4 / 29))
    matrix = lab.new_tensor(_TO_XYZ)
    back = torch.linalg.inv((matrix / matrix.sum(1, keepdim=True)).double()).to(lab.dtype)
    linear = torch.einsum("ij,njhw->nihw", back, xyz)
    bent = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, bent, 12.92 * linear).clamp(0, 1)
