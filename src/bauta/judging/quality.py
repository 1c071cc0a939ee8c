"""How much of a mask can be seen: of each photo against its original, and of all faces as a set.

- Of the face, the bounding box of the ArcFace crop: ``psnr`` and ``ssim`` of the mask on the pixels; with ``_saved`` of
  the written file, where ``ms_ssim``, ``flip`` and ``lpips`` are measured too.
- Of the whole photo as written, with ``_photo``.
- Of the edit on the pixels, what people see (`SEEN`): movement, and what remains once it is undone; see
  `bauta.judging.visibility`.
- Of the set of aligned faces before and after: ``mmd`` as TIP-IM prints it, and ``frechet_onet``, the Fréchet distance
  of FID on the 256 features of MTCNN's output network. That network tells faces from other things and finds landmarks;
  it is not the Inception network of FID, and the two figures have nothing to do with each other.

A measure that an image is too small for, or whose weights nobody gave, is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bauta import metrics
from bauta.judging.lpips import SMALLEST, Lpips
from bauta.judging.verification import cut
from bauta.judging.visibility import Visibility

FloatArray = NDArray[np.float32]

DIGITS = 6
"""Similarities and figures are kept to so many digits; the results are computed from what is kept."""

MASK = ("psnr", "ssim")
FILE = ("psnr", "ssim", "ms_ssim", "flip", "lpips")
SEEN = {
    "displacement": "displacement",
    "strain": "strain",
    "lightness_psnr": "psnr",
    "lightness_ssim": "ssim",
    "noticed": "noticed",
    "chroma": "chroma",
    "colour": "colour",
    "irises": "irises",
    "lips": "lips",
}
"""Names on cards of the fields of `bauta.judging.visibility.Visibility`."""
MEASURES = (*MASK, *(f"{name}_saved" for name in FILE), *(f"{name}_photo" for name in FILE), *SEEN)
"""In the order of cards."""

MMD_BATCH = 50
"""Faces that the MMD is computed on at a time, TIP-IM's choice: it depends on their number."""


def photo_quality(
    original: FloatArray,
    masked: FloatArray,
    saved: FloatArray,
    box: FloatArray,
    lpips: Lpips | None,
    seen: Visibility | None = None,
) -> dict[str, float | None]:
    """`MEASURES` of one photo; all None for another size.

    Args:
        original: (H, W, 3) in [0, 1].
        masked: With the mask on its pixels.
        saved: As read back from the file.
        box: (4,) x1, y1, x2, y2 of the face.
        lpips: For LPIPS.
        seen: What people see of the mask on its pixels, where it is known.
    """
    found: dict[str, float | None] = dict.fromkeys(MEASURES)
    for names, ending, changed, region in (
        (MASK, "", masked, box),
        (FILE, "_saved", saved, box),
        (FILE, "_photo", saved, None),
    ):
        if original.shape != changed.shape:
            continue
        one, other = (pixels if region is None else cut(pixels, region) for pixels in (original, changed))
        for name in names:
            found[name + ending] = _measure(name, one, other, lpips)
    if seen is not None:
        for name, measured in SEEN.items():
            value = getattr(seen, measured)
            found[name] = None if value is None else round(value, DIGITS)
    return found


def _measure(name: str, one: FloatArray, other: FloatArray, lpips: Lpips | None) -> float | None:
    side = min(one.shape[:2])
    known: dict[str, tuple[int, Callable[[FloatArray, FloatArray], float] | None]] = {
        "psnr": (1, metrics.psnr),
        "ssim": (11, metrics.ssim),
        "ms_ssim": (161, metrics.ms_ssim),
        "flip": (1, metrics.flip),
        "lpips": (SMALLEST, None if lpips is None else lpips.distance),
    }
    smallest, measure = known[name]
    if measure is None or side < smallest:
        return None
    value = measure(one, other)
    return round(value, DIGITS) if math.isfinite(value) else None  # the PSNR of equal pictures is infinite


def set_quality(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> dict[str, float | int | None]:
    """``faces``, ``mmd`` and ``frechet_onet`` of two sets of aligned faces.

    The MMD is that of TIP-IM's tables: 19 Gaussian kernels on raw pixels, batches of 50, their mean, without the
    division by 50 of its code; 0.76 is what two sets with nothing in common have. None for fewer than 50 faces. The
    Fréchet distance depends on the number of faces, too: compare rows of the same photos.

    Args:
        before: (N, 112, 112, 3) uint8.
        after: The same faces, protected.
    """
    import torch

    from bauta.objectives.mmd import mmd

    batches = [slice(start, start + MMD_BATCH) for start in range(0, len(before) - MMD_BATCH + 1, MMD_BATCH)]
    flat = [torch.from_numpy(faces.reshape(len(faces), -1)) for faces in (before, after)]
    values = [float(mmd(*(side[rows].double() for side in flat)) * MMD_BATCH) for rows in batches]
    distance = metrics.frechet_distance(_features(before), _features(after)) if len(before) > 1 else None
    return {
        "faces": len(before),
        "mmd": round(float(np.mean(values)), DIGITS) if values else None,
        "frechet_onet": None if distance is None else round(distance, DIGITS),
    }


def _features(faces: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 256) before the last layers of MTCNN's output network."""
    import cv2
    import torch

    from bauta.faces.mtcnn import load_networks

    network = load_networks()[2]
    small = np.stack([cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA) for face in faces])
    patches = (torch.from_numpy(small).permute(0, 3, 1, 2).float() - 127.5) / 128
    with torch.no_grad():
        features = torch.cat([network.trunk(part) for part in torch.split(patches, 64)])
    return np.asarray(features.double().numpy())
