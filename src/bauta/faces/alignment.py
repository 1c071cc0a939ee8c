"""Five-point similarity alignment, without torch: what judges see.

The torch twin of `extract_crops` is `bauta.faces.warp.warp`. Both follow one rule: a face larger than its
crop is first averaged over whole blocks of `reduction_factors` pixels, then sampled bilinearly, and what
lies outside the photo is black, as in dlib's chips and insightface's crops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.errors import UsageError
from bauta.faces.crop_template import CropTemplate
from bauta.photo import PixelArray


def similarity_matrix(landmarks: ArrayLike, template: CropTemplate) -> NDArray[np.float64]:
    """The similarity that carries landmarks closest to the template's points in least squares.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991,
    for the plane and without reflection. With centred points as complex numbers a (landmarks) and
    b (template), the minimiser of the sum of |s a - b|^2 is s = <a, b> / <a, a>: rotation and scale at once.

    Args:
        landmarks: (5, 2), x and y in photo pixels.
        template: The crop.

    Returns:
        (2, 3) matrix from photo pixels to crop pixels.

    Raises:
        UsageError: when the landmarks are not five finite points, or coincide.
    """
    source = np.asarray(landmarks, dtype=np.float64)
    if source.shape != (5, 2) or not np.isfinite(source).all():
        raise UsageError(
            f"Landmarks must be five finite (x, y) points, not an array of shape {source.shape}.",
            hint="Detect the face again, or give its box.",
        )
    target = np.asarray(template.points, dtype=np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a = (source - source_mean) @ (1, 1j)
    b = (target - target_mean) @ (1, 1j)
    spread = np.vdot(a, a).real
    factor = np.vdot(a, b) / spread if spread > 1e-6 else 0j
    if abs(factor) < 1e-9:
        raise UsageError(
            "The five landmarks coincide or show no orientation, so the face cannot be aligned.",
            hint="Detect the face again, or give its box.",
        )
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    offset = target_mean - linear @ source_mean
    return np.column_stack([linear, offset])


def reduction_factors(matrices: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many photo pixels, along each axis, are averaged into one before sampling a crop.

    The greatest integer that leaves no enlargement to be done: 1 until the face is twice as large as the
    crop. Our design.

    Args:
        matrices: (..., 2, 3) from photo pixels to crop pixels.

    Returns:
        (...) integers of at least one.
    """
    scale = np.sqrt(np.abs(np.linalg.det(np.asarray(matrices, dtype=np.float64)[..., :2])))
    factors: NDArray[np.float64] = np.floor(1 / np.maximum(scale, 1e-6) + 1e-6)
    return np.maximum(factors, 1).astype(np.int64)


def extract_crops(pixels: PixelArray, landmarks: ArrayLike, template: CropTemplate) -> NDArray[np.float32]:
    """Aligned crops of the faces of one photo, black where they reach beyond it.

    Args:
        pixels: (H, W, 3) in [0, 1].
        landmarks: (N, 5, 2) in photo pixels.
        template: The crop.

    Returns:
        (N, 3, template.height, template.width) in [0, 1].

    Raises:
        UsageError: when a face's landmarks are degenerate.
    """
    points = np.asarray(landmarks, dtype=np.float64).reshape(-1, 5, 2)
    crops = np.zeros((len(points), 3, template.height, template.width), dtype=np.float32)
    for crop, face in zip(crops, points, strict=True):
        matrix = similarity_matrix(face, template)
        crop[:] = sample(pixels, matrix, (template.height, template.width)).transpose(2, 0, 1)
    return crops


def sample(
    pixels: PixelArray, matrix: NDArray[np.floating], size: tuple[int, int], *, border: float = 0.0
) -> NDArray[np.float32]:
    """One crop of a photo, of which only the part under the crop is touched.

    Args:
        pixels: (H, W, 3).
        matrix: (2, 3) from photo pixels to crop pixels.
        size: (height, width) of the crop.
        border: The value outside the photo.

    Returns:
        (height, width, 3).
    """
    import cv2

    height, width = size
    factor = int(reduction_factors(matrix))
    inverse = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]).astype(np.float64))
    corners = inverse @ np.array([(-1, width, -1, width), (-1, -1, height, height), (1, 1, 1, 1)])
    # Cells of factor x factor pixels are counted from the photo's corner, as in the torch warp.
    limits = -(-np.array([pixels.shape[1], pixels.shape[0]]) // factor)
    first = np.clip(np.floor(corners[:2].min(axis=1) / factor) - 1, 0, limits).astype(int)
    last = np.clip(np.ceil(corners[:2].max(axis=1) / factor) + 2, 0, limits).astype(int)
    if (first >= last).any():
        return np.full((height, width, 3), border, dtype=np.float32)
    (left, top), (right, bottom) = first * factor, last * factor
    part = np.ascontiguousarray(pixels[top:bottom, left:right], dtype=np.float32)
    if factor > 1:
        below, beside = bottom - top - part.shape[0], right - left - part.shape[1]
        if below or beside:
            part = cv2.copyMakeBorder(part, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=(border,) * 3)
        cells = (part.shape[1] // factor, part.shape[0] // factor)
        part = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
    # From cells of the part to photo pixels: the centre of cell j is pixel factor * j + (factor - 1) / 2.
    centre = (factor - 1) / 2
    cells_to_photo = np.array([(factor, 0, left + centre), (0, factor, top + centre), (0, 0, 1)])
    crop = cv2.warpAffine(
        part,
        matrix.astype(np.float64) @ cells_to_photo,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(border,) * 3,
    )
    return np.asarray(crop, dtype=np.float32)
