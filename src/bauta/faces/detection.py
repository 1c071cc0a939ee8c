"""Finding the faces of a photo, or the one inside a box that a person gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.errors import UsageError
from bauta.faces.alignment import sample
from bauta.faces.cascade import Search, find, landmarks_in_photo, run
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.faces.mtcnn import load_networks

DETECTORS = ("mtcnn",)
# The smallest face looked for, unless told otherwise: in pixels, and as a fraction of the photo's short side.
MINIMUM_SIZE = 20.0
MINIMUM_FRACTION = 0.02
# No face has fewer pixels on a side than this.
SMALLEST = 8.0
# Nearly every upright face scores more; what looks like a face in a lying photo, seldom.
CONVINCING = 0.98
# When no face is convincing, the photo is turned by these degrees, counter-clockwise as seen.
TURNS = (90.0, 180.0, 270.0, 30.0, -30.0)
# A turned photo needs no more detail than this long side in pixels.
TURNED_LONG_SIDE = 1600


def detect_faces(
    pixels: NDArray[np.float32],
    *,
    detector: str = "mtcnn",
    minimum_size: float | None = None,
    thorough: bool = True,
) -> Faces:
    """All faces of a photo, best first.

    Args:
        pixels: (H, W, 3) in [0, 1], upright RGB.
        detector: "mtcnn" is the one there is.
        minimum_size: Side in pixels of the smallest face looked for, at least 8; by default 20 pixels, or
            2 % of the short side when that is more.
        thorough: When no convincing face is found, look again for smaller faces and in the photo turned by
            90, 180, 270 and +-30 degrees, and keep the best of these; at last with lower thresholds.

    Returns:
        The faces by descending score, then from top to bottom; empty when there is none. In a turned photo
        a face's landmarks keep the order they have when the face is upright.

    Raises:
        UsageError: when the pixels are no RGB image, or an option is out of range.
        WeightsMissing, WeightsCorrupt: when the detector's weights cannot be used.
    """
    _check_pixels(pixels)
    if detector not in DETECTORS:
        raise UsageError(f"No detector is called {detector!r}.", hint=f"There is: {', '.join(DETECTORS)}.")
    if minimum_size is None:
        minimum_size = max(MINIMUM_SIZE, MINIMUM_FRACTION * min(pixels.shape[:2]))
    search = Search(minimum_size)
    faces = find(pixels, search)
    if not thorough or _best_score(faces) > CONVINCING or min(pixels.shape[:2]) < SMALLEST:
        return faces
    # A true face stands out by its score from what a wrong turn shows.
    finer = replace(search, minimum_size=max(SMALLEST, minimum_size / 2), long_side=1920)
    best = max((faces, find(pixels, finer), *_find_turned(pixels, search)), key=_best_score)
    faces = Faces.join([best, best.elsewhere(faces)])  # somebody lying down does not hide who stands beside
    faces = faces[np.argsort(-faces.scores, kind="stable")]
    return faces if len(faces) else find(pixels, replace(finer, thresholds=(0.5, 0.5, 0.5)))


def face_from_box(pixels: NDArray[np.float32], box_xywh: ArrayLike) -> Faces:
    """The face inside a box that a person gives.

    O-Net looks at the box, a little inside and a little around it, upright and then turned. When it sees no
    face there, the landmarks are those of an average face that fills the box.

    Args:
        pixels: (H, W, 3) in [0, 1], upright RGB.
        box_xywh: Left, top, width and height in pixels.

    Returns:
        One face: the box cut to the photo, landmarks, and O-Net's probability as the score (0 when it saw
        no face).

    Raises:
        UsageError: when the box is not four finite numbers, is empty, or lies outside the photo.
    """
    _check_pixels(pixels)
    given = np.asarray(box_xywh, dtype=np.float64)
    if given.shape != (4,) or not np.isfinite(given).all():
        raise UsageError("A box is four finite numbers.", hint="Write it as x,y,width,height in pixels.")
    height, width = pixels.shape[:2]
    last = np.array([width - 1, height - 1])
    box = np.clip(np.concatenate([given[:2], given[:2] + given[2:]]), 0, np.tile(last, 2))
    if (box[2:] - box[:2] < 2).any():
        raise UsageError(
            f"The box {','.join(f'{value:g}' for value in given)} is empty or outside the photo, "
            f"which has {width}x{height} pixels.",
            hint="Write it as x,y,width,height, with x,y its upper left corner.",
        )
    landmarks, score = _landmarks_inside(pixels, box)
    return Faces(box[None].astype(np.float32), landmarks[None].astype(np.float32), np.array([score], np.float32))


def _check_pixels(pixels: NDArray[np.float32]) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size or pixels.dtype.kind != "f":
        raise UsageError(
            f"Faces are looked for in (H, W, 3) images of floats, not {pixels.dtype} {pixels.shape}.",
            hint="Read the photo with bauta.photo.read_photo.",
        )


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
        turn = _rotation(degrees)
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


def _rotation(degrees: float) -> NDArray[np.float64]:
    """The matrix that turns a photo counter-clockwise as seen (y points down)."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([(cosine, sine), (-sine, cosine)])


def _landmarks_inside(pixels: NDArray[np.float32], box: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """O-Net's landmarks (5, 2) in a box and their probability, or an average face's and zero."""
    _, _, output = load_networks()
    centre, side = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max()
    for turns in ((0.0,), TURNS):
        looks = []
        for degrees in turns:
            for enlargement in (1.0, 0.8, 1.25):
                turn = _rotation(degrees) * 47 / (side * enlargement)
                looks.append(np.column_stack([turn, (23.5, 23.5) - turn @ centre]))
        patches = np.stack([sample(pixels, look, (48, 48), border=0.5) for look in looks])
        _, fractions, scores = run(output, patches)
        best = int(np.argmax(scores))
        if scores[best] > 0.7:
            in_patch = landmarks_in_photo(fractions[best : best + 1], np.array([(0, 0, 47, 47)]))[0]
            turn, offset = looks[best][:, :2], looks[best][:, 2]
            return (in_patch - offset) @ np.linalg.inv(turn).T, float(scores[best])
    points = np.asarray(ARCFACE_112.points)
    size = np.array([ARCFACE_112.width, ARCFACE_112.height])
    return box[:2] + points / size * (box[2:] - box[:2]), 0.0
