"""What happens to a shared photo before a recogniser sees it, as differentiable functions.

A mask is optimised in expectation over these (expectation over transformations, Athalye et al. 2018): every
iteration draws one transport and one movement of the crop. A draw is shared by all faces of a batch, so that
the mask of a face does not depend on which faces it was optimised with. Which transports, their ranges and
their probabilities are our design.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from bauta.errors import UsageError

Transport = Callable[[Tensor], Tensor]

# ITU-T T.81, Annex K: the tables that libjpeg scales by its quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8 for _ in range(4)),
)  # fmt: skip
_MOST = 1 << 24  # values that a blur may spread out at once
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@cache
def _dct_filters() -> Tensor:
    """(64, 1, 8, 8) orthonormal 8x8 DCT-II filters, frequency v * 8 + u."""
    position = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * position[None] + 1) * position[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return torch.einsum("vy,ux->vuyx", basis, basis).reshape(64, 1, 8, 8).float()


@cache
def _quantisation(quality: int) -> tuple[Tensor, Tensor]:
    """Tables of luminance and chrominance, (64, 1, 1) in 1/255, as libjpeg scales them for a quality."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    tables = (torch.tensor(table, dtype=torch.float32).reshape(64, 1, 1) for table in (_LUMINANCE, _CHROMINANCE))
    luminance, chrominance = (((table * scale + 50) / 100).floor().clamp(1, 255) for table in tables)
    return luminance, chrominance


def _compress_plane(plane: Tensor, table: Tensor) -> Tensor:
    """One colour plane (N, 1, H, W) on the 0..255 scale through DCT, soft rounding and back."""
    height, width = plane.shape[-2:]
    padded = functional.pad(plane, (0, -width % 8, 0, -height % 8), mode="replicate")
    filters = _dct_filters()
    levels = functional.conv2d(padded, filters, stride=8) / table
    rounded = levels.round()
    # The cubic keeps a gradient where rounding has none (Shin and Song 2017).
    levels = rounded.detach() + (levels - rounded.detach()) ** 3
    return functional.conv_transpose2d(levels * table, filters, stride=8)[..., :height, :width]


def jpeg(images: Tensor, quality: int) -> Tensor:
    """JPEG with 4:2:0 chroma as a differentiable function (soft rounding of Shin and Song 2017).

    Args:
        images: (N, 3, H, W) in [0, 1].
        quality: libjpeg's, 1 to 100.

    Returns:
        (N, 3, H, W) in [0, 1].

    Raises:
        UsageError: when the quality is out of range.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"JPEG quality must lie in 1..100, got {quality}.")
    matrix = torch.tensor(_TO_YCC, dtype=images.dtype)
    ycc = torch.einsum("ij,njhw->nihw", matrix, images * 255)
    luminance, chrominance = _quantisation(quality)
    height, width = images.shape[-2:]
    y = _compress_plane(ycc[:, :1] - 128, luminance) + 128
    halved = functional.avg_pool2d(ycc[:, 1:], 2, ceil_mode=True).flatten(0, 1)[:, None]
    chroma = _compress_plane(halved, chrominance).reshape(len(images), 2, *halved.shape[-2:])
    chroma = functional.interpolate(chroma, scale_factor=2, mode="nearest")[..., :height, :width]
    rgb = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), torch.cat([y, chroma], 1))
    return (rgb / 255).clamp(0, 1)


def resize(images: Tensor, factor: float) -> Tensor:
    """Reduce by `factor` in (0, 1] with antialiased bilinear filtering, and enlarge back to the same size."""
    height, width = images.shape[-2:]
    small = (max(8, round(height * factor)), max(8, round(width * factor)))
    reduced = functional.interpolate(images, small, mode="bilinear", align_corners=False, antialias=True)
    return functional.interpolate(reduced, (height, width), mode="bilinear", align_corners=False)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur of standard deviation `sigma` pixels, borders replicated, any channels."""
    radius = max(1, math.ceil(3 * sigma))
    position = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (position / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = functional.pad(images, (radius,) * 4, mode="replicate")
    # A convolution may take the memory of its input as often as the kernel has taps: large pictures go in strips.
    strip = max(1, _MOST // (len(position) * max(padded.shape[-2:])))
    across, down = kernel[:, :, None], kernel[..., None]
    parts = torch.split(padded, strip, 2)
    rows = torch.cat([functional.conv2d(part, across, groups=images.shape[1]) for part in parts], 2)
    parts = torch.split(rows, strip, 3)
    return torch.cat([functional.conv2d(part, down, groups=images.shape[1]) for part in parts], 3)


def brightness_contrast(images: Tensor, brightness: float, contrast: float) -> Tensor:
    """``contrast * (x - 0.5) + 0.5 + brightness``, clipped to [0, 1]."""
    return ((images - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


def median(images: Tensor) -> Tensor:
    """The median of 3 x 3 pixels, borders replicated; no gradient is meant to go through it."""
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    height, width = images.shape[-2:]
    around = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.stack(around).median(0).values


def held_out() -> tuple[Transport, ...]:
    """Ways that `draw_transport` never draws, to judge by whether a mask is enough: chains, and other operators.

    Reduced to half and then JPEG 70; a median; reduced to two thirds, darker and with less contrast, then JPEG 60.
    """
    return (
        lambda images: jpeg(resize(images, 0.5), 70),
        median,
        lambda images: jpeg(brightness_contrast(resize(images, 2 / 3), -0.1, 0.8), 60),
    )


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def draw_transport(generator: torch.Generator) -> Transport:
    """One of: nothing (30 %), JPEG 50..95 (25 %), resize to 0.4..0.9 (20 %), blur 0.5..1.0 px (15 %), tone (10 %)."""
    choice = _uniform(generator, 0, 1)
    if choice < 0.30:
        return lambda images: images
    if choice < 0.55:
        quality = int(_uniform(generator, 50, 96))
        return lambda images: jpeg(images, quality)
    if choice < 0.75:
        factor = _uniform(generator, 0.4, 0.9)
        return lambda images: resize(images, factor)
    if choice < 0.90:
        sigma = _uniform(generator, 0.5, 1.0)
        return lambda images: gaussian_blur(images, sigma)
    brightness, contrast = _uniform(generator, -0.08, 0.08), _uniform(generator, 0.85, 1.15)
    return lambda images: brightness_contrast(images, brightness, contrast)


def draw_movement(
    generator: torch.Generator, size: tuple[int, int], *, spread: float, turn: float, scale: float = 0.0
) -> Tensor:
    """A random affine map (2, 3) in crop pixels about the crop's centre: input diversity.

    The official TIP-IM code perturbs all six entries of an affine matrix by N(0, spread) and turns by an angle
    of N(0, turn) radians; the translation entries are in half crop sides.

    Args:
        generator: Source of the draw.
        size: (height, width) of the crop.
        spread: Standard deviation of the entries.
        turn: Standard deviation of the angle.
        scale: Largest share by which the crop is made wider or tighter, for recognisers with another detector.
    """
    noise = torch.randn(2, 3, generator=generator, dtype=torch.float64) * spread
    angle = float(torch.randn((), generator=generator)) * turn
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    linear = rotation @ (torch.eye(2, dtype=torch.float64) + noise[:, :2])
    if scale:
        linear = linear * _uniform(generator, 1 - scale, 1 + scale)
    centre = torch.tensor([(size[1] - 1) / 2, (size[0] - 1) / 2], dtype=torch.float64)
    offset = centre + noise[:, 2] * torch.tensor([size[1] / 2, size[0] / 2]) - linear @ centre
    return torch.cat([linear, offset[:, None]], 1)
