"""The whole of a photo searched by MTCNN: how Bauta found faces before, kept as a detector to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.faces.alignment import sample
from bauta.faces.cascade import Search, find
from bauta.faces.faces import Faces, SearchLimit

# No face has fewer pixels on a side than this.
SMALLEST = 8.0
# Nearly every upright face scores more; what looks like a face in a lying photo, seldom.
CONVINCING = 0.98
# When no face is convincing, the photo is turned by these degrees, counter-clockwise as seen.
TURNS = (90.0, 180.0, 270.0, 30.0, -30.0)
# A turned photo needs no more detail than this long side in pixels.
TURNED_LONG_SIDE = 1600
LIMIT: SearchLimit = "turned"  # a photo is turned only when no convincing upright face is in it


def find_with_mtcnn(pixels: NDArray[np.float32], minimum_size: float, *, thorough: bool) -> Faces:
    """All faces that MTCNN finds, best first, with a limit: it does not look for all there may be.

    Args:
        pixels: (H, W, 3) in [0, 1].
        minimum_size: Side in pixels of the smallest face looked for, at least 8.
        thorough: When no convincing face is found, look again for smaller faces and in the photo turned by
            90, 180, 270 and +-30 degrees, and keep the best of these; at last with lower thresholds.

    Raises:
        UsageError: when the size is out of range.
    """
    search = Search(minimum_size)
    faces = find(pixels, search)
    if not thorough or _best_score(faces) > CONVINCING or min(pixels.shape[:2]) < SMALLEST:
        return faces.limited(LIMIT)
    # A true face stands out by its score from what a wrong turn shows.
    finer = replace(search, minimum_size=max(SMALLEST, minimum_size / 2), long_side=1920)
    best = max((faces, find(pixels, finer), *_find_turned(pixels, search)), key=_best_score)
    faces = Faces.join([best, best.elsewhere(faces)])  # somebody lying down does not hide who stands beside
    faces = faces[np.argsort(-faces.scores, kind="stable")]
    return (faces if len(faces) else find(pixels, replace(finer, thresholds=(0.5, 0.5, 0.5)))).limited(LIMIT)


def _best_score(faces: Faces) -> float:
    return float(faces.scores.max(initial=0))


def _find_turned(pixels: NDArray[np.float32], search: Search) -> Iterator[Faces]:
    """What is found in the photo turned by each of `TURNS`, in the photo's own coordinates."""
    height, width = pixels.shape[:2]
    scale = min(1.0, TURNED_LONG_SIDE / max(height, width))
    size = np.maximum(1, np.round((scale * width, scale * height))).astype(int)
    reduced = pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    # Reducing by s carries the pixel centre p to s (p + 1/2) - 1/2.
    ratio = size / (width, height)
    coarser = replace(search, minimum_size=max(SMALLEST, scale * search.minimum_size), long_side=640)
    for degrees in TURNS:
        turn = rotation(degrees)
        # The canvas holds the whole turned photo, centred.
        canvas = np.ceil(np.abs(turn) @ size - 1e-6)
        offset = (canvas - 1) / 2 - turn @ ((size - 1) / 2)
        matrix = np.column_stack([turn, offset])
        turned = sample(reduced, matrix, (int(canvas[1]), int(canvas[0])), border=0.5)
        faces = find(turned, coarser)
        corners = faces.boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]]
        corners, landmarks = (((points - offset) @ turn + 0.5) / ratio - 0.5 for points in (corners, faces.landmarks))
        last = (width - 1, height - 1)
        boxes = [np.clip(corners.min(axis=1), 0, last), np.clip(corners.max(axis=1), 0, last)]
        yield Faces(np.concatenate(boxes, axis=1), landmarks, faces.scores)


def rotation(degrees: float) -> NDArray[np.float64]:
    """The matrix that turns a photo counter-clockwise as seen (y points down)."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([(cosine, sine), (-sine, cosine)])
