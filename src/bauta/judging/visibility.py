"""What people see of an edited face: how far it moved, and what was painted on it once the movement is undone.

PSNR alone is the wrong ruler: it punishes movement, which is hardly noticed, and forgives colour, which is. So the
parts are measured one by one. Which parts, where irises and lips are taken to be, and the blur before colours are
compared are our design; the colour difference is CIEDE2000 (Sharma, Wu and Dalal 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.faces.alignment import similarity_matrix
from bauta.faces.crop_template import ARCFACE_112
from bauta.metrics import ssim

if TYPE_CHECKING:
    FloatArray = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_SEEN_TOGETHER = 0.04  # standard deviation of the blur before colours are compared, in eye distances
_CROP_EYES = 35.2  # distance of the eyes in the aligned crop, in its pixels
_STRIP = 128  # rows whose colours are compared at once
_IRIS = 0.09  # its radius, in eye distances: 12 of 63 millimetres across
_LIPS = (0.62, 0.24)  # half width and half height of the mouth, in distances between its corners


@dataclass(frozen=True)
class Visibility:
    """What of an edit can be seen, of one face.

    Attributes:
        displacement: Longest movement, in percent of the distance between the eyes.
        strain: Greatest stretch, squeeze or shear, as a share.
        psnr: Of lightness over the face's crop once the movement is undone, in dB; None when nothing differs.
        ssim: Of the same; None for a face under 11 pixels.
        noticed: Root mean square of the same, in just-noticeable differences of each place: what PSNR would say if all
            faces were of one texture.
        chroma: Root mean square of what is not the same in red, green and blue, in 1/255.
        colour: 95th percentile of CIEDE2000 over the crop, both pictures blurred a little.
        irises: Mean CIEDE2000 inside them, likewise.
        lips: Mean CIEDE2000 inside them, likewise.
    """

    displacement: float
    strain: float
    psnr: float | None
    ssim: float | None
    noticed: float
    chroma: float
    colour: float
    irises: float
    lips: float


def measure(
    original: FloatArray, edited: FloatArray, landmarks: NDArray[np.floating], field: FloatArray | None = None
) -> Visibility:
    """The visibility of the edit of one face.

    Args:
        original: (H, W, 3) in [0, 1]: the photo, or a window of it.
        edited: The same after the edit.
        landmarks: (5, 2) in its pixels.
        field: (2, H, W), x and y in pixels: from where each pixel was fetched, less where it is. None when nothing
            moved.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    eyes = float(np.hypot(*(points[1] - points[0])))
    rows, columns, crop = _footprint(points, (original.shape[0], original.shape[1]))
    longest, strained, there = 0.0, 0.0, original[rows, columns]
    if field is not None and field.any():
        longest = float(np.hypot(field[0], field[1]).max()) / eyes * 100
        strained = _greatest_strain(field)
        there = _fetched(original, field, rows, columns)
    edited = edited[rows, columns]
    shift = np.array([columns.start, rows.start])
    light, chroma = _light_and_chroma(there, edited, crop)
    error = float(np.square(light[crop]).mean(dtype=np.float64))
    colours = _colours(there, edited, max(0.5, _SEEN_TOGETHER * eyes))
    irises = _disc(colours.shape, points[:2] - shift, _IRIS * eyes)
    return Visibility(
        displacement=longest,
        strain=strained,
        psnr=-10 * math.log10(error) if error else None,
        ssim=ssim(*((one @ _LUMA)[..., None] for one in (there, edited))) if min(crop.shape) >= 11 else None,
        noticed=_noticed(there, light, crop, eyes),
        chroma=chroma,
        colour=float(np.percentile(colours[crop], 95)),
        irises=float(colours[irises].mean()) if irises.any() else 0.0,
        lips=float(colours[lips].mean()) if (lips := _mouth(colours.shape, points[3:] - shift)).any() else 0.0,
    )


def _light_and_chroma(
    there: FloatArray, edited: FloatArray, crop: NDArray[np.bool_]
) -> tuple[NDArray[np.floating], float]:
    """The change (h, w) of luminance, and the root mean square of the change of colours inside the crop, in 1/255."""
    difference = edited - there
    light: NDArray[np.floating] = difference @ _LUMA
    difference -= difference.mean(2, keepdims=True)
    return light, math.sqrt(float(np.square(difference)[crop].mean())) * 255


def _colours(there: FloatArray, edited: FloatArray, sigma: float) -> NDArray[np.float64]:
    """CIEDE2000 (h, w) of what is seen together."""
    seen = [cv2.GaussianBlur(one, (0, 0), sigma) for one in (there, edited)]
    strips = zip(*(np.array_split(one, max(1, len(one) // _STRIP)) for one in seen), strict=True)
    return np.concatenate([ciede2000(to_lab(one), to_lab(other)) for one, other in strips])


def _greatest_strain(field: FloatArray) -> float:
    import torch

    from bauta.objectives.displacement import strain

    return float(strain(torch.from_numpy(np.ascontiguousarray(field))).max())


def _noticed(there: FloatArray, light: NDArray[np.floating], crop: NDArray[np.bool_], eyes: float) -> float:
    import torch

    from bauta.objectives.visibility import just_noticeable

    pixels = torch.from_numpy(np.ascontiguousarray(there.transpose(2, 0, 1)))[None]
    least = just_noticeable(pixels, [max(1.0, eyes / _CROP_EYES)])[0, 0].numpy()
    return math.sqrt(float(np.square(light / least)[crop].mean(dtype=np.float64)))


def _fetched(original: FloatArray, field: FloatArray, rows: slice, columns: slice) -> FloatArray:
    """A part of the picture as it was moved."""
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + field[0, rows, columns]
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + field[1, rows, columns]
    return np.asarray(cv2.remap(original, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)).clip(0, 1)


def _footprint(points: NDArray[np.float64], size: tuple[int, int]) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Rows, columns, and the pixels in them that the ArcFace crop covers."""
    matrix = similarity_matrix(points, ARCFACE_112)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    corners = np.array([[-0.5, -0.5], [111.5, -0.5], [111.5, 111.5], [-0.5, 111.5]]) @ back[:, :2].T + back[:, 2]
    left, top = np.floor(corners.min(0)).astype(int).clip(0)
    right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, size[::-1])
    inside = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(inside, (corners - [left, top]).round().astype(np.int32), 1)
    return slice(int(top), int(bottom)), slice(int(left), int(right)), inside.astype(bool)


def _disc(shape: tuple[int, ...], centres: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(np.any([np.hypot(x - cx, y - cy) <= radius for cx, cy in centres], axis=0))


def _mouth(shape: tuple[int, ...], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    along = corners[1] - corners[0]
    width = max(float(np.hypot(*along)), 1e-6)
    along = along / width
    y, x = np.mgrid[: shape[0], : shape[1]]
    centre = corners.mean(0)
    across = (x - centre[0]) * along[0] + (y - centre[1]) * along[1]
    down = (y - centre[1]) * along[0] - (x - centre[0]) * along[1]
    return np.asarray((across / (_LIPS[0] * width)) ** 2 + (down / (_LIPS[1] * width)) ** 2 <= 1)


def to_lab(image: FloatArray) -> NDArray[np.float64]:
    """CIELAB (..., 3) of sRGB in [0, 1], white D65.

    >>> to_lab(np.ones((1, 3), np.float32)).round(2).tolist()
    [[100.0, 0.0, 0.0]]
    """
    value = np.asarray(image, dtype=np.float64)
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ matrix.T / matrix.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * 841 / 108 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def ciede2000(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colour difference of two CIELAB arrays (..., 3): about 1 is just seen side by side.

    >>> float(ciede2000(np.array([50.0, 2.6772, -79.7751]), np.array([50.0, 0.0, -82.7485])).round(4))
    2.0425
    """
    l1, a1, b1 = (first[..., axis] for axis in range(3))
    l2, a2, b2 = (second[..., axis] for axis in range(3))
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1 + 0.5 * (1 - np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    hue = np.where(grey, h1 + h2, h1 + turn / 2)
    light, colour = (l1 + l2) / 2, (c1 + c2) / 2
    delta_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    t = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    scale_l = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    scale_c, scale_h = 1 + 0.045 * colour, 1 + 0.015 * colour * t
    rotation = (
        -2
        * np.sqrt(colour**7 / (colour**7 + 25.0**7))
        * np.sin(np.radians(60 * np.exp(-(((hue % 360 - 275) / 25) ** 2))))
    )
    dl, dc, dh = (l2 - l1) / scale_l, (c2 - c1) / scale_c, delta_hue / scale_h
    return np.asarray(np.sqrt(np.maximum(dl**2 + dc**2 + dh**2 + rotation * dc * dh, 0)))
