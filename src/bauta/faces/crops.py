"""Aligned faces carried to the crop of a recogniser: every change of template is made here.

Faces in data sets, stored images and target faces are ArcFace crops (`ARCFACE_112`); a recogniser reads the crop of its
own card. Arrays of pixels are for judges and files, tensors for what has gradients; both sample bilinearly, and what
lies outside the given crop is black. A crop that is wanted as it is comes back bit for bit.

>>> import numpy as np
>>> from bauta.faces.crop_template import DLIB_150
>>> retemplate_pixels(np.zeros((2, 112, 112, 3), np.uint8), DLIB_150).shape
(2, 3, 150, 150)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.faces.alignment import extract_crops, similarity_matrix
from bauta.faces.crop_template import ARCFACE_112, CropTemplate

if TYPE_CHECKING:  # judges embed without torch
    from torch import Tensor

Pixel = TypeVar("Pixel", np.uint8, np.float32)


def retemplate_pixels(pixels: NDArray[Pixel], template: CropTemplate) -> NDArray[Pixel]:
    """ArcFace crops as pixels, on another template, channels first.

    Args:
        pixels: (N, H, W, 3) uint8, or float32 in [0, 1]; 112 pixels square, or the same crop in another size.
        template: The crop to give.

    Returns:
        (N, 3, template.height, template.width) of the same type; uint8 is rounded.
    """
    count, height, width = pixels.shape[:3]
    if _is_arcface(template) and (height, width) == (template.height, template.width):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    landmarks = ARCFACE_112.landmarks(height, width)[None]
    crops = np.empty((count, 3, template.height, template.width), pixels.dtype)
    for crop, one in zip(crops, pixels, strict=True):
        found = extract_crops(one.astype(np.float32), landmarks, template)[0]
        crop[:] = found.round().clip(0, 255) if crop.dtype == np.uint8 else found
    return crops


def retemplate(crops: Tensor, template: CropTemplate) -> Tensor:
    """ArcFace crops (N, 3, 112, 112) on another template, differentiably, on their device and of their dtype.

    Args:
        crops: Any values; the result is linear in them.
        template: The crop to give.

    Returns:
        (N, 3, template.height, template.width); the crops themselves where the template is theirs.
    """
    return crops if _is_arcface(template) else align(crops, ARCFACE_112.landmarks(), template)


def align(images: Tensor, landmarks: ArrayLike, template: CropTemplate) -> Tensor:
    """Aligned crops, differentiably in the images; `bauta.faces.alignment.extract_crops` is the twin for arrays.

    Args:
        images: (N, 3, H, W).
        landmarks: (N, 5, 2) in image pixels, or (5, 2) that all share.
        template: The crop.

    Returns:
        (N, 3, template.height, template.width).

    Raises:
        UsageError: when landmarks are degenerate, or their number is not that of the images.
    """
    from bauta.faces.warp import warp

    matrices = alignments(landmarks, template).to(images.device)
    shared = matrices[0] if len(matrices) == 1 else matrices
    return warp(images, shared, (template.height, template.width))


def alignments(landmarks: ArrayLike, template: CropTemplate) -> Tensor:
    """Maps from image pixels to crop pixels, (N, 2, 3) float64, of landmarks (N, 5, 2) or (5, 2).

    Raises:
        UsageError: when landmarks are degenerate.
    """
    import torch

    points = np.asarray(landmarks, dtype=np.float64).reshape(-1, 5, 2)
    return torch.from_numpy(np.stack([similarity_matrix(face, template) for face in points]))


def _is_arcface(template: CropTemplate) -> bool:
    """Of its geometry: a card may call the same crop by another name."""
    return (template.height, template.width, template.points) == (112, 112, ARCFACE_112.points)
