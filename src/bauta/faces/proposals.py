"""Where faces may be: CenterFace over a pyramid of reductions of the photo, cut into tiles.

The finest level shows the smallest face wanted as large as the network needs it; each coarser one shows what was
too large for the one before. So the smallest face is a number of pixels, whatever the photo's size, and memory is
bounded by the tile.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.faces.centerface import MULTIPLE, Weights, look
from bauta.faces.faces import Faces

# Height in pixels at which the smallest face is shown to the network.
SHOWN = 24.0
# Between levels. Faces of SHOWN to SHOWN * LEVEL_STEP pixels are a level's own; the network sees larger ones, too.
LEVEL_STEP = 3.0
# Largest side of a tile, and what neighbours share: the largest of a level's own faces lies whole in one of them.
TILE = 1024
SHARED = 80
# Probability of a proposal. What is proposed is looked at once more.
PROPOSED = 0.2


def propose(
    pixels: NDArray[np.float32], smallest: float, *, threshold: float = PROPOSED, weights: Weights = "centerface_turned"
) -> Faces:
    """What looks like a face, at any angle.

    Args:
        pixels: (H, W, 3) in [0, 1].
        smallest: Height in pixels of the smallest face.
        threshold: Scores exceed it.
        weights: Which network looks.

    Returns:
        Faces by descending score, each once; boxes may reach out of the photo.
    """
    found = [Faces.none()]
    for level in _levels(pixels, smallest):
        ratio = np.array(level.shape[1::-1]) / pixels.shape[1::-1]
        for left, top, tile in _tiles(level):
            (faces,) = look(tile[None], threshold, weights)
            # Reducing by s carries the pixel centre p to s (p + 1/2) - 1/2.
            points = np.concatenate([faces.boxes.reshape(len(faces), 2, 2), faces.landmarks], axis=1)
            points = ((points + (left + 0.5, top + 0.5)) / ratio - 0.5).astype(np.float32)
            found.append(Faces(points[:, :2].reshape(len(faces), 4), points[:, 2:], faces.scores))
    return Faces.join(found).each_once()


def area(shape: tuple[int, ...], smallest: float) -> float:
    """Pixels that the network has to see to find faces of this height in a photo (H, W, ...)."""
    return float(shape[0] * shape[1] * (SHOWN / smallest) ** 2)


def _levels(pixels: NDArray[np.float32], smallest: float) -> Iterator[NDArray[np.float32]]:
    """The photo reduced (or enlarged) to `SHOWN / smallest` of its size, then again and again by `LEVEL_STEP`."""
    scale, level = SHOWN / smallest, pixels
    while True:
        width, height = (max(1, round(scale * side)) for side in pixels.shape[1::-1])
        if (height, width) != level.shape[:2]:
            interpolation = cv2.INTER_AREA if width <= level.shape[1] else cv2.INTER_LINEAR
            level = np.asarray(cv2.resize(level, (width, height), interpolation=interpolation), dtype=np.float32)
        yield level
        if max(height, width) <= LEVEL_STEP * SHOWN:
            return
        scale /= LEVEL_STEP


def _tiles(level: NDArray[np.float32]) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Left, top and pixels of tiles that cover the level; grey where they reach beyond it."""
    height, width = level.shape[:2]
    for top, below in _spans(height):
        for left, right in _spans(width):
            part = level[top:below, left:right]
            beyond = [(0, -side % MULTIPLE) for side in part.shape[:2]]
            yield left, top, np.pad(part, [*beyond, (0, 0)], constant_values=0.5)


def _spans(length: int) -> list[tuple[int, int]]:
    """Equal spans of at most `TILE` that cover a length and share `SHARED` with their neighbours."""
    count = max(1, -(-(length - SHARED) // (TILE - SHARED)))
    size = -(-(length - SHARED) // count) + SHARED
    starts = [index * (size - SHARED) for index in range(count)]
    return [(start, min(length, start + size)) for start in starts]
