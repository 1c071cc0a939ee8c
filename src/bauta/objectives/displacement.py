"""Smooth fields of displacements of a face: uniform cubic B-splines in the frame of the aligned crop.

A field is G x G control vectors in crop pixels, each the amount by which its neighbourhood is fetched from elsewhere.
The basis functions lie wholly inside the crop, so a field fades out smoothly to exactly zero at its border; and since
they are positive and sum to one at most, no displacement is longer than the longest control vector. Where control
points lie, and how a field is bounded, is our design; moving pixels instead of painting them is Xiao et al.'s (stAdv,
ICLR 2018).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 112
"""Pixels along a side of the crop."""
EYES = 35.2378
"""Distance between the eyes in the crop, in its pixels."""


@cache
def _basis(count: int) -> Tensor:
    """(112, count): value of each basis function at each pixel of the crop."""
    spacing = SIDE / (count + 3)
    centres = (torch.arange(count, dtype=torch.float64) + 2) * spacing - 0.5
    away = ((torch.arange(SIDE, dtype=torch.float64)[:, None] - centres) / spacing).abs()
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - away).clamp_min(0) ** 3 / 6
    return torch.where(away < 1, near, far).float()


def dense(control: Tensor) -> Tensor:
    """Displacements (..., 2, 112, 112), x and y in crop pixels, of control vectors (..., 2, G, G).

    >>> field = dense(torch.ones(2, 9, 9))
    >>> round(float(field[0, 56, 56]), 3), round(float(field[0, 0, 56]), 3)
    (1.0, 0.0)
    """
    basis = _basis(control.shape[-1])
    return basis @ control @ basis.T


def strain(field: Tensor) -> Tensor:
    """Largest stretch, squeeze or shear at each place: the spectral norm of the field's derivative.

    A field whose strain stays below one cannot fold.

    Args:
        field: (..., 2, H, W), in pixels of its own grid.

    Returns:
        (..., H - 1, W - 1), 0 where all moves alike.
    """
    across = field.diff(dim=-1)[..., :-1, :]  # d/dx of x and y
    down = field.diff(dim=-2)[..., :, :-1]
    a, c = across.unbind(-3)
    b, d = down.unbind(-3)
    square = a * a + b * b + c * c + d * d
    determinant = a * d - b * c
    return ((square + (square * square - 4 * determinant * determinant).clamp_min(0).sqrt()) / 2).sqrt()


def carried(control: Tensor, to_crop: Tensor, size: tuple[int, int]) -> Tensor:
    """Fields carried from the crop's frame to pictures, differentiably in the control vectors.

    Args:
        control: (N, 2, G, G), crop pixels.
        to_crop: (N, 2, 3), from picture pixels to crop pixels: similarities.
        size: (H, W) of the pictures.

    Returns:
        (N, 2, H, W), x and y in picture pixels; 0 outside the crop's footprint.
    """
    back = torch.linalg.inv(to_crop[:, :, :2].double()).to(control.dtype)
    return torch.einsum("nij,njhw->nihw", back, spread(control, to_crop, size))


def spread(control: Tensor, to_crop: Tensor, size: tuple[int, int]) -> Tensor:
    """Splines of the crop's frame as pictures see them, differentiably in the control values.

    Args:
        control: (N, C, G, G).
        to_crop: (N, 2, 3), from picture pixels to crop pixels: similarities.
        size: (H, W) of the pictures.

    Returns:
        (N, C, H, W); 0 outside the crop's footprint.
    """
    return seen_from(dense(control), to_crop, size)


def seen_from(crops: Tensor, to_crop: Tensor, size: tuple[int, int]) -> Tensor:
    """What lies in the crop's frame as pictures see it: (N, C, H, W) of (N, C, 112, 112), 0 outside its footprint.

    Args:
        crops: (N, C, 112, 112).
        to_crop: (N, 2, 3), from picture pixels to crop pixels: similarities.
        size: (H, W) of the pictures.
    """
    grid = ((2 * torch.stack(_points(to_crop, size), -1) + 1) / SIDE - 1).to(crops.dtype)
    return functional.grid_sample(crops, grid, padding_mode="zeros", align_corners=False)


def within(to_crop: Tensor, size: tuple[int, int], centre: tuple[float, float], axes: tuple[float, float]) -> Tensor:
    """Which pixels of pictures lie in an ellipse of the crop's frame, (N, 1, H, W) of zeros and ones.

    Args:
        to_crop: (N, 2, 3), from picture pixels to crop pixels.
        size: (H, W) of the pictures.
        centre: x and y of the ellipse, crop pixels.
        axes: Its half axes along x and y, crop pixels.
    """
    x, y = _points(to_crop, size)
    away = ((x - centre[0]) / axes[0]).square() + ((y - centre[1]) / axes[1]).square()
    return (away < 1).float()[:, None]


def _points(to_crop: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """x and y (N, H, W) in the crop of each pixel of the pictures."""
    down = torch.arange(size[0], dtype=torch.float64)[:, None]
    across = torch.arange(size[1], dtype=torch.float64)
    a, b, c = to_crop.double()[..., None, None].unbind(2)  # each (N, 2, 1, 1)
    x, y = (a * across + b * down + c).unbind(1)
    return x, y


def moved(images: Tensor, fields: Tensor) -> Tensor:
    """Pictures seen through fields: ``result(x) = image(x + field(x))``, bicubic, differentiable in both.

    Args:
        images: (N, C, H, W).
        fields: (N, 2, H, W), x and y in pixels.
    """
    height, width = images.shape[-2:]
    y = torch.arange(height, dtype=images.dtype)[:, None] + fields[:, 1]
    x = torch.arange(width, dtype=images.dtype) + fields[:, 0]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return functional.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)


class ControlPoints:
    """The control vectors of N fields as a variable of `bauta.objectives.descent`, bounded in amplitude and strain.

    Args:
        start: (N, 2, G, G), crop pixels.
        size: Root-mean-square length of a step, in crop pixels.
        decay: Momentum decay.
        amplitude: Longest control vector, in crop pixels.
        strain: Greatest strain of the field.
        level: (N,) in [0, 1], by which both bounds are multiplied; its numbers may change between steps.
    """

    def __init__(
        self, start: Tensor, *, size: float, decay: float, amplitude: float, strain: float, level: Tensor
    ) -> None:
        self.start, self.size, self.decay = start, size, decay
        self.amplitude, self.strain, self.level = amplitude, strain, level

    def normalised(self, gradients: Tensor) -> Tensor:
        """Of unit mean absolute value."""
        return gradients / gradients.abs().mean((-3, -2, -1), keepdim=True).clamp_min(1e-20)

    def moved(self, value: Tensor, momentum: Tensor) -> Tensor:
        """Along the momentum, and back into the bounds: long vectors are cut, strained fields are scaled."""
        rms = momentum.square().mean((-3, -2, -1), keepdim=True).sqrt()
        control = value - self.size * momentum / rms.clamp_min(1e-20)
        level = self.level[:, None, None, None]
        length = control.square().sum(-3, keepdim=True).sqrt()
        control = control * (self.amplitude * level / length.clamp_min(1e-12)).clamp_max(1)
        control = _relaxed(control, 1.25 * self.strain * level)
        greatest = strain(dense(control)).amax((-2, -1))[..., None, None, None]
        return control * (self.strain * level / greatest.clamp_min(1e-12)).clamp_max(1)


def _relaxed(control: Tensor, limit: Tensor) -> Tensor:
    """Control vectors drawn towards the mean of their neighbours where the field is strained, and only there.

    Scaling the whole field alone would let one strained place hold back all others.
    """
    count, spacing = control.shape[-1], SIDE / (control.shape[-1] + 3)
    for _ in range(4):
        padded = functional.pad(control.flatten(0, -4), (1, 1, 1, 1))
        strained = strain(padded).reshape(*control.shape[:-3], 1, count + 1, count + 1) / spacing
        # Cells touch four points, and a point the four cells around it.
        around = functional.max_pool2d(strained.flatten(0, -4), 2, stride=1).reshape(
            *control.shape[:-3], 1, count, count
        )
        share = (1 - limit / around.clamp_min(1e-12)).clamp_min(0)
        means = functional.avg_pool2d(padded, 3, stride=1).reshape(control.shape)
        control = control + share * (means - control)
    return control
