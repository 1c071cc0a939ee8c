"""Differentiable affine warps between a photo and its aligned crops.

Coordinates are pixel centres: pixel (0, 0) is at (0, 0). What lies outside an image is black. The numpy
twin for judges is `bauta.faces.alignment.extract_crops`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bauta.errors import UsageError
from bauta.faces.alignment import reduction_factors


def compose(second: Tensor, first: Tensor) -> Tensor:
    """The affine map that applies `first`, then `second`; both (..., 2, 3), broadcast.

    To jitter a crop, compose the jitter (in crop pixels) with the alignment:
    ``warp(images, compose(jitter, alignment), size)``.
    """
    linear = second[..., :2] @ first[..., :2]
    offset = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return torch.cat([linear, offset], dim=-1)


def invert(matrices: Tensor) -> Tensor:
    """The inverse of affine maps (..., 2, 3).

    Raises:
        UsageError: when a map is singular.
    """
    a, b, c, d = matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 0], matrices[..., 1, 1]
    determinant = a * d - b * c
    if not bool((determinant.detach().abs() > 1e-12).all()):
        raise UsageError(
            "An alignment matrix is singular or not finite.", hint="Check the face's landmarks or its box."
        )
    adjugate = torch.stack([torch.stack([d, -b], dim=-1), torch.stack([-c, a], dim=-1)], dim=-2)
    linear = adjugate / determinant[..., None, None]
    return torch.cat([linear, -linear @ matrices[..., 2:]], dim=-1)


def warp(images: Tensor, matrices: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample a crop from each image, differentiably in the images and in the matrices.

    Bilinear. When a matrix shrinks by two or more, the image is first averaged over whole blocks of pixels
    (`reduction_factors`), so that a large face does not alias; the block size is a constant of the gradient.

    Args:
        images: (N, C, H, W), or (1, C, H, W) shared by all matrices.
        matrices: (N, 2, 3) or (2, 3), from image pixels to crop pixels.
        size: (height, width) of the crops.

    Returns:
        (N, C, height, width), of the images' dtype; linear in the images.

    Raises:
        UsageError: when shapes disagree or a matrix is singular.
    """
    matrices = matrices.expand(len(images), 2, 3) if matrices.ndim == 2 else matrices
    if images.ndim != 4 or matrices.shape[1:] != (2, 3) or len(images) not in (1, len(matrices)):
        raise UsageError(
            f"Images of shape {tuple(images.shape)} cannot be warped by matrices {tuple(matrices.shape)}.",
            hint="Give one (2, 3) matrix for each (C, H, W) image.",
        )
    # Coordinates reach thousands of pixels; double precision keeps their fractions.
    to_image = invert(matrices.double())
    factors = torch.from_numpy(reduction_factors(matrices.detach().cpu().numpy())).to(images.device)
    if bool((factors == factors[0]).all()):
        return _sample(images, to_image, size, int(factors[0]))
    crops = images.new_empty(len(matrices), images.shape[1], *size)
    for factor in sorted(set(factors.tolist())):
        chosen = (factors == factor).nonzero().squeeze(1)
        part = images if len(images) == 1 else images[chosen]
        crops = crops.index_copy(0, chosen, _sample(part, to_image[chosen], size, factor))
    return crops


def _sample(images: Tensor, to_image: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """Crops (N, C, height, width) from images averaged over blocks of factor x factor pixels."""
    if factor > 1:
        height, width = images.shape[-2:]
        images = functional.pad(images, (0, -width % factor, 0, -height % factor))
        images = functional.avg_pool2d(images, factor)
    height, width = size
    y = torch.arange(height, dtype=torch.float64, device=images.device)
    x = torch.arange(width, dtype=torch.float64, device=images.device)
    crop_points = torch.stack([*torch.meshgrid(x, y, indexing="xy"), x.new_ones(height, width)], dim=-1)
    points = torch.einsum("nij,hwj->nhwi", to_image.to(images.device), crop_points)
    # Pixel p of the image lies at (p - (factor - 1) / 2) / factor among the blocks; grid_sample without
    # aligned corners puts centre q of n at (2 q + 1) / n - 1. Together:
    extent = points.new_tensor([images.shape[-1], images.shape[-2]]) * factor
    grid = (2 * points + 1) / extent - 1
    images = images.expand(len(grid), -1, -1, -1)
    return functional.grid_sample(images, grid.to(images.dtype), padding_mode="zeros", align_corners=False)
