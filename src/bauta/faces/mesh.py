"""The mesh of a face: 468 points, by which lips, eyes, brows and cheeks are found.

The network is MediaPipe's (Kartynnik et al., Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs,
arXiv:1907.06724); its weights travel with Bauta (`shipped/`). It looks twice: at what the five landmarks say, and then
at what the points of the first look say.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.faces.alignment import similarity_matrix
from bauta.faces.centerface import load_session
from bauta.faces.crop_template import ARCFACE_112

SIDE = 192
"""Side of what the network sees."""
SURE = 0.9
"""Probability of a face from which on its points are believed."""
_SEEN = 140.0  # side of what it sees, in pixels of the ArcFace crop
_MIDDLE = (56.0, 70.0)  # and its middle
_AROUND = 1.5  # side of the second look, in larger sides of the points' box
_TEMPLATE = (33, 263, 1, 61, 291)  # outer eye corners, nose tip, mouth corners: what turns the second look


@dataclass(frozen=True, eq=False)
class Mesh:
    """Points on one face.

    Attributes:
        points: (468, 2) float32, x and y in pixels of the picture; numbered as MediaPipe does.
        score: Probability that there is a face, in [0, 1].
    """

    points: NDArray[np.float32]
    score: float


def find_mesh(pixels: NDArray[np.float32], landmarks: NDArray[np.floating]) -> Mesh:
    """The mesh of the face with five landmarks.

    Args:
        pixels: (H, W, 3) in [0, 1].
        landmarks: (5, 2), x and y in pixels.

    Returns:
        The mesh; one whose score is below `SURE` is a guess.

    Raises:
        UsageError: when the landmarks show no orientation.
        WeightsMissing, WeightsCorrupt: when the weights cannot be used.
    """
    to_crop = similarity_matrix(landmarks, ARCFACE_112)
    scale = SIDE / _SEEN
    seen = scale * to_crop
    seen[:, 2] += SIDE / 2 - scale * np.array(_MIDDLE)
    first = _look(pixels, seen)
    low, high = first.points.min(0), first.points.max(0)
    # Upright by the eyes, and around the box of the points, as MediaPipe follows a face through a clip.
    left, right = first.points[_TEMPLATE[0]], first.points[_TEMPLATE[1]]
    cosine, sine = (right - left) / max(float(np.hypot(*(right - left))), 1e-6)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    turned = first.points @ turn.T
    low, high = turned.min(0), turned.max(0)
    scale = SIDE / (_AROUND * max(float((high - low).max()), 1.0))
    linear = scale * turn
    offset = SIDE / 2 - scale * (low + high) / 2
    second = _look(pixels, np.column_stack([linear, offset]))
    return second if second.score >= first.score or second.score >= SURE else first


def _look(pixels: NDArray[np.float32], to_seen: NDArray[np.float64]) -> Mesh:
    """What the network says of what a similarity (2, 3) shows it."""
    shrunk = 1 / float(np.hypot(to_seen[0, 0], to_seen[1, 0]))
    source = pixels if shrunk < 1.5 else cv2.GaussianBlur(pixels, (0, 0), 0.4 * shrunk)
    picture = cv2.warpAffine(source, to_seen, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    points, score = load_session("face_mesh").run(None, {"image": picture.transpose(2, 0, 1)[None]})
    back = cv2.invertAffineTransform(to_seen)
    there = points.reshape(-1, 3)[:, :2].astype(np.float64)
    return Mesh((there @ back[:, :2].T + back[:, 2]).astype(np.float32), float(1 / (1 + np.exp(-score.item()))))
