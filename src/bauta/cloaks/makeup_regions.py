"""Where lips, lids, lashes, brows and cheeks of a face are: distances to the lines of its mesh.

All distances are in pixels of the ArcFace crop, so that a liner is as thick on a small photo as on a large one. Colours
decide beside lines: hair, glasses, teeth and hands get no makeup.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta.cloaks.targets import composite_faces
from bauta.cloaks.view import FaceView
from bauta.faces.alignment import similarity_matrix
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.mesh import SURE, find_mesh
from bauta.objectives.colour import to_lab
from bauta.objectives.transports import gaussian_blur

FloatArray = NDArray[np.float32]

# Points of the mesh, as MediaPipe numbers them; "left" is left in the picture.
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
# Of each eye from the inner to the outer corner, and of each brow from the nose outwards.
UPPER_LIDS = ((133, 173, 157, 158, 159, 160, 161, 246, 33), (362, 398, 384, 385, 386, 387, 388, 466, 263))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
UPPER_BROWS = ((107, 66, 105, 63, 70), (336, 296, 334, 293, 300))
LOWER_BROWS = ((55, 65, 52, 53, 46), (285, 295, 282, 283, 276))
CHEEKS = ((50, 61, 234), (280, 291, 454))  # middle, mouth corner, ear
# Where a beard grows: along the jaw, and around the mouth.
JAW = (58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 410, 393, 164, 167, 186)

CHANNELS = (
    "lips", "lips_gate", "eye", "lid", "along", "orbit", "way", "lid_gate", "brow", "brow_gate", "across_1", "down_1",
    "across_2", "down_2", "skin", "jaw", "shade",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Regions:
    """Of one view.

    Attributes:
        maps: (C, H, W) float32, one for each of `CHANNELS`: signed distances (negative inside) to lips, eyes, lids'
            area and brows; distance to the upper lid and place along it in [0, 1]; place on the way from lid to brow in
            [0, 1]; offsets from the middle of each cheek, along it and across; and in [0, 1] where colours are those of
            lips, lids, brows and skin, the beard's area, and all of the face that light falls on.
        found: ``mesh``, or ``five points`` where there was none: then lines are a guess, and lips, lids and brows stay
            as they are.
        bare: Parts that are covered, and get no makeup.
        points: (468, 2) float32 of the mesh, in pixels of the view; where it was not found, where points usually are.
    """

    maps: Tensor
    found: Literal["mesh", "five points"]
    bare: tuple[str, ...]
    points: FloatArray


def find_regions(view: FaceView, *, made_up: bool = False) -> Regions:
    """Where the parts of the face in a view are.

    Args:
        view: The face.
        made_up: Whether it may wear strong colours already, which are then parts of it, too.
    """
    points, sure = find_points(view)
    regions = regions_by(points, view, sure=sure, made_up=made_up)
    return replace(regions, maps=without(regions.maps, dict.fromkeys(regions.bare, 0.0)))


def find_points(view: FaceView) -> tuple[FloatArray, bool]:
    """Points of the mesh, (468, 2) in pixels of the view, and whether they were found; else they are where they usually
    are."""
    pixels = np.ascontiguousarray(view.pixels.permute(1, 2, 0).numpy(), dtype=np.float32)
    mesh = find_mesh(pixels, view.landmarks.numpy())
    sure = mesh.score >= SURE and _agrees(mesh.points, view)
    return (mesh.points if sure else _usual(view)), sure


GATES = {"lids": "lid_gate", "lips": "lips_gate", "brows": "brow_gate"}
"""By part that may be bare, what says where its colours are."""


def without(maps: Tensor, shares: Mapping[str, float]) -> Tensor:
    """Maps of parts of which a share is left, from 0 for none of it."""
    factors = torch.ones(len(CHANNELS))
    for part, share in shares.items():
        factors[CHANNELS.index(GATES[part])] = share
    return maps * factors[:, None, None]


def regions_by(points: FloatArray, view: FaceView, *, sure: bool = True, made_up: bool = False) -> Regions:
    """Where the parts of the face are, by points of its mesh; those that are to stay bare are there, and named.

    Args:
        points: (468, 2), in pixels of the view.
        view: The face.
        sure: Whether the points were found.
        made_up: As for `find_regions`.
    """
    far = 2.5 if made_up else 1.0
    scale = 1 / view.crop_pixel
    y, x = (axis.astype(np.float32) for axis in np.ogrid[: view.pixels.shape[1], : view.pixels.shape[2]])

    def inside(*rings: tuple[int, ...]) -> FloatArray:
        joined = [points[list(ring)] for ring in rings]
        return scale * _signed(x, y, _rounded(np.concatenate(joined)))

    made: dict[str, FloatArray] = {"lips": inside(LIPS)}
    mouth = inside(MOUTH)
    eyes = [inside(upper, lower[1:-1]) for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True)]
    made["eye"] = np.minimum(*eyes)
    brows = [inside(upper, lower[::-1]) for upper, lower in zip(UPPER_BROWS, LOWER_BROWS, strict=True)]
    made["brow"] = np.minimum(*brows)
    lids = [_along(x, y, _open(points[list(lid)])) for lid in UPPER_LIDS]
    first = lids[0][0] < lids[1][0]
    made["lid"] = np.minimum(lids[0][0], lids[1][0]) * np.float32(scale)
    made["along"] = np.where(first, lids[0][1], lids[1][1])
    made["orbit"] = np.minimum(
        *(inside(upper, lower[::-1]) for upper, lower in zip(UPPER_LIDS, LOWER_BROWS, strict=True))
    )
    made["way"] = made["lid"] / (made["lid"] + made["brow"].clip(0.1)).clip(0.1)
    for number, (middle, corner, ear) in enumerate(CHEEKS, 1):
        upwards = points[ear] - points[corner]
        upwards = upwards / max(float(np.hypot(*upwards)), 1e-6)
        from_x, from_y = x - points[middle, 0], y - points[middle, 1]
        made[f"across_{number}"] = scale * (from_x * upwards[0] + from_y * upwards[1])
        made[f"down_{number}"] = scale * (from_y * upwards[0] - from_x * upwards[1])
    oval, jaw = inside(OVAL), inside(JAW)
    lab = to_lab(view.pixels[None])[0].numpy()
    face = _soft(-oval - 3, 1.5)
    clear = face * _soft(made["lips"] - 1, 0.5) * _soft(made["eye"] - 1, 0.5) * _soft(made["brow"] - 0.5, 0.5)
    smooth = _smoothed(_alike(lab, clear > 0.5, reach=16 * far, darker=24), 0.8 / scale)
    made["skin"] = face * _soft(made["lips"], 0.5) * _soft(made["eye"] - 0.8, 0.4) * smooth
    made["shade"] = face * _soft(made["eye"] - 0.5, 0.5) * smooth
    made["jaw"] = _soft(-jaw, 2.5) * _soft(made["lips"] - 1.0, 0.6) * face * smooth
    bare = []
    lid_skin = _soft(-made["orbit"], 0.5) * (made["eye"] > 0.5)
    # Lids lie in shadow, and some are made up already: hue decides, and only what is almost black is none.
    made["lid_gate"] = lids_seen = _smoothed(
        _alike(lab, clear > 0.5, reach=22 * far, darker=42, shaded=True), 0.8 / scale
    )
    if not sure or float((lids_seen * lid_skin).sum()) < 0.35 * float(lid_skin.sum()):
        bare.append("lids")
    lips, seen = _lips(lab, made["lips"], mouth, clear > 0.5)
    made["lips_gate"] = _smoothed(lips, 0.4 / scale)
    if not sure or not seen:
        bare.append("lips")
    median = float(np.median(lab[0][clear > 0.5])) if (clear > 0.5).any() else 100.0
    # Brows are darker than skin: hairs take colour, the skin between them hardly any, and hair before them none.
    hairs = _smoothed(_soft(median - 4 - lab[0], 6), 0.5 / scale)
    made["brow_gate"] = np.maximum(hairs, 0.15 * smooth)
    if not sure:
        bare.append("brows")
    maps = torch.from_numpy(np.stack([made[name] for name in CHANNELS]).astype(np.float32))
    return Regions(maps, "mesh" if sure else "five points", tuple(bare), points)


def _agrees(points: FloatArray, view: FaceView) -> bool:
    """Whether eyes and mouth of the mesh lie where the five landmarks are: otherwise it is of somebody beside."""
    rings = [UPPER_LIDS[0] + LOWER_LIDS[0], UPPER_LIDS[1] + LOWER_LIDS[1], LIPS]
    seen = np.stack([points[list(ring)].mean(0) for ring in rings])
    five = view.landmarks.numpy()
    said = np.stack([five[0], five[1], five[3:].mean(0)])
    return bool(np.hypot(*(seen - said).T).max() < 10 * view.crop_pixel)


@cache
def _usual_points() -> FloatArray:
    """(468, 2) in crop pixels: where the mesh of a composite face lies, of the one that fits its landmarks best."""
    face = np.ascontiguousarray(composite_faces()[4].permute(1, 2, 0).numpy(), dtype=np.float32)
    return find_mesh(face, np.array(ARCFACE_112.points)).points


def _usual(view: FaceView) -> FloatArray:
    matrix = similarity_matrix(view.landmarks.numpy(), ARCFACE_112)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    return np.asarray(_usual_points() @ back[:, :2].T + back[:, 2], dtype=np.float32)


def _soft(values: FloatArray, width: float) -> FloatArray:
    """From 0 to 1 where values go from below zero to above, over a width."""
    return np.asarray(1 / (1 + np.exp(-(values / (0.5 * width)).clip(-30, 30))), dtype=np.float32)


def _smoothed(values: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(gaussian_blur(torch.from_numpy(values)[None, None], sigma)[0, 0].numpy(), dtype=np.float32)


def _alike(
    lab: FloatArray, where: NDArray[np.bool_], *, reach: float, darker: float, shaded: bool = False
) -> FloatArray:
    """In [0, 1], how much a place has the median colour of some others; lighter places count, much darker ones do not.

    With `shaded`, colours are compared as if places were as light as the others.
    """
    if not where.any():
        return np.ones(lab.shape[1:], dtype=np.float32)
    light, red, yellow = np.median(lab[:, where], axis=1)
    lit = (light / lab[0].clip(1)).clip(1, 6) if shaded else 1.0
    away = ((lit * lab[1] - red) ** 2 + (lit * lab[2] - yellow) ** 2) / reach**2
    return np.asarray(np.exp(-(away**2)) * _soft(lab[0] - (light - darker * light / 60), 8), dtype=np.float32)


def _lips(lab: FloatArray, lips: FloatArray, mouth: FloatArray, skin: NDArray[np.bool_]) -> tuple[FloatArray, bool]:
    """Where lips have the colour of lips, neither teeth nor moustache; and whether nothing covers them."""
    there = (lips < -0.5) & (mouth > 0.3)
    if not there.any() or not skin.any():
        return np.zeros_like(lips), False
    light, red, _ = np.median(lab[:, there], axis=1)
    hair = _soft(lab[0] - 0.6 * light, 8)
    teeth = np.where(mouth < 0.8, _soft(lab[1] - 0.55 * red, 0.25 * max(red, 4.0)), 1)
    gate = np.asarray(_soft(mouth + 0.4, 0.3) * hair * teeth, dtype=np.float32)
    return gate, bool(red >= np.median(lab[1][skin]) - 8 and gate.any())


def _rounded(ring: FloatArray) -> FloatArray:
    """A ring of points with its corners cut twice (Chaikin 1974): lips have none."""
    for _ in range(2):
        following = np.roll(ring, -1, axis=0)
        ring = np.stack([0.75 * ring + 0.25 * following, 0.25 * ring + 0.75 * following], 1).reshape(-1, 2)
    return ring


def _open(line: FloatArray) -> FloatArray:
    """A line with its corners cut twice, its ends kept."""
    for _ in range(2):
        cut = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], 1).reshape(-1, 2)
        line = np.concatenate([line[:1], cut[1:-1], line[-1:]])
    return line


def _along(x: FloatArray, y: FloatArray, line: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distance of each place to a line, and how far along it the nearest point is, in [0, 1].

    Args:
        x: (1, W).
        y: (H, 1).
        line: (P, 2).
    """
    lengths = np.hypot(*np.diff(line, axis=0).T)
    begins = np.concatenate([[0], np.cumsum(lengths)])
    shape = len(y), x.shape[1]
    nearest, place = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    for start, end, length, begin in zip(line[:-1], line[1:], lengths, begins[:-1], strict=True):
        step = end - start
        from_x, from_y = x - start[0], y - start[1]
        share = ((from_x * step[0] + from_y * step[1]) / max(float(step @ step), 1e-9)).clip(0, 1)
        away = (from_x - share * step[0]) ** 2 + (from_y - share * step[1]) ** 2
        closer = away < nearest
        np.copyto(nearest, away, where=closer)
        np.copyto(place, (begin + share * length) / max(float(begins[-1]), 1e-9), where=closer, casting="same_kind")
    return np.sqrt(nearest), place


def _signed(x: FloatArray, y: FloatArray, ring: FloatArray) -> FloatArray:
    """Distance of each place to a ring, negative inside it; x and y as for `_along`."""
    away, _ = _along(x, y, np.concatenate([ring, ring[:1]]))
    inside = np.zeros(away.shape, np.bool_)
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if start[1] == end[1]:
            continue
        crossed = (start[1] > y) != (end[1] > y)
        inside ^= crossed & (x < start[0] + (y - start[1]) / (end[1] - start[1]) * (end[0] - start[0]))
    return np.where(inside, -away, away).astype(np.float32)
