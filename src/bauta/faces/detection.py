"""Finding the faces of a photo, or the one inside a box that a person gives.

CenterFace, trained further to see faces at every angle, proposes over tiles of the photo; R-Net and O-Net of MTCNN
and CenterFace as it was look once more, at each proposal turned upright, and decide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.errors import UsageError
from bauta.faces.alignment import sample
from bauta.faces.cascade import landmarks_in_photo, run
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces, SearchLimit
from bauta.faces.mtcnn import load_networks
from bauta.faces.mtcnn_search import SMALLEST, TURNS, find_with_mtcnn, rotation
from bauta.faces.proposals import area, propose
from bauta.faces.second_look import confirm

DETECTORS = ("centerface", "mtcnn")
# The smallest face looked for, unless told otherwise: this part of the short side, but no less and no more pixels.
SMALL_FRACTION = 0.02
SMALL_PIXELS = (20.0, 40.0)
# In thumbnails it is smaller: this part of the short side.
THUMBNAIL_FRACTION = 0.1
# Pixels that the network sees of one photo; beyond, smaller faces are not looked for, and the result says so.
# 300 megapixels need that many for faces of 40 pixels.
LARGEST_AREA = 110e6
# Proposals looked at once more; beyond, the result says so. A photo of 340 people leaves 400.
PROPOSALS = 5000


def detect_faces(
    pixels: NDArray[np.float32],
    *,
    detector: str = "centerface",
    minimum_size: float | None = None,
    thorough: bool = True,
    visible: NDArray[np.bool_] | None = None,
) -> Faces:
    """All faces of a photo, best first.

    Args:
        pixels: (H, W, 3) in [0, 1], upright RGB.
        detector: "centerface", or "mtcnn" alone, as an attacker may have it.
        minimum_size: Height in pixels of the smallest face looked for, at least 8; by default `smallest_face`.
        thorough: Keep faces at any angle; otherwise only those that are upright within 45 degrees.
        visible: (H, W), which pixels can be seen; a face of which less than half can be seen is left out.

    Returns:
        The faces by descending score, then from top to bottom; empty when there is none. The landmarks of a turned
        face keep the order they have when it is upright. `Faces.limits` says what was not looked for: where it is
        not empty, the photo may show faces that are not among these.

    Raises:
        UsageError: when the pixels are not an RGB image, or an option is out of range.
        WeightsMissing, WeightsCorrupt: when the detector's weights cannot be used.
    """
    _check_pixels(pixels)
    if detector not in DETECTORS:
        raise UsageError(f"No detector is called {detector!r}.", hint=f"There is: {', '.join(DETECTORS)}.")
    if minimum_size is None:
        minimum_size = smallest_face(pixels.shape)
    if not minimum_size >= SMALLEST:
        raise UsageError(
            f"Faces of {minimum_size} pixels cannot be found.",
            hint=f"Give a minimum size of at least {SMALLEST:g} pixels.",
        )
    if detector == "mtcnn":
        faces = find_with_mtcnn(pixels, minimum_size, thorough=thorough)
    else:
        faces = _find(pixels, minimum_size, thorough=thorough)
    if visible is not None:
        faces = faces[_visible(faces, visible)]
    return faces[np.lexsort((faces.boxes[:, 0], faces.boxes[:, 1], -faces.scores))]


def smallest_face(shape: tuple[int, ...]) -> float:
    """Height in pixels of the smallest face looked for in a photo (H, W, ...): 40, whatever the photo's size; in photos
    of less than 2000 pixels on the short side 2 % of it, but at least 20; in thumbnails a tenth of it."""
    short = min(shape[:2])
    least = max(SMALLEST, min(SMALL_PIXELS[0], THUMBNAIL_FRACTION * short))
    return float(np.clip(SMALL_FRACTION * short, least, SMALL_PIXELS[1]))


def _find(pixels: NDArray[np.float32], smallest: float, *, thorough: bool) -> Faces:
    """Propose and confirm; with the limits of this search."""
    limits: list[SearchLimit] = [] if thorough else ["turned"]
    share = area(pixels.shape, smallest) / LARGEST_AREA
    if share > 1:
        smallest *= share**0.5
        limits.append("size")
    proposals = propose(pixels, smallest)
    if len(proposals) > PROPOSALS:
        limits.append("places")
    faces = confirm(pixels, proposals[:PROPOSALS], turned=thorough)
    return _cut(faces, pixels.shape).limited(*limits)


def _cut(faces: Faces, shape: tuple[int, ...]) -> Faces:
    """Faces with their boxes cut to the photo, without those whose middle is outside of it."""
    last = np.array([shape[1] - 1, shape[0] - 1])
    middle = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    faces = faces[np.flatnonzero(((middle >= 0) & (middle <= last)).all(axis=1))]
    return Faces(np.clip(faces.boxes, 0, np.tile(last, 2)), faces.landmarks, faces.scores, faces.limits)


def _visible(faces: Faces, visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether at least half of each box can be seen."""
    edges = np.round(faces.boxes).astype(int)
    parts = [visible[top : bottom + 1, left : right + 1] for left, top, right, bottom in edges]
    return np.array([part.size > 0 and part.mean() >= 0.5 for part in parts], np.bool_)


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


def _landmarks_inside(pixels: NDArray[np.float32], box: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """O-Net's landmarks (5, 2) in a box and their probability, or an average face's and zero."""
    _, _, output = load_networks()
    centre, side = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max()
    for turns in ((0.0,), TURNS):
        looks = []
        for degrees in turns:
            for enlargement in (1.0, 0.8, 1.25):
                turn = rotation(degrees) * 47 / (side * enlargement)
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
