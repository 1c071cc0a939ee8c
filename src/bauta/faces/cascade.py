"""The MTCNN cascade over an image pyramid: one pass, from pixels to faces.

Pre-processing, offsets and overlap thresholds are those of the `mtcnn` package 1.0.0. Ours: reduced patches
are averaged over areas, suppression is greedy, the pyramid has a largest level, and landmarks refer to pixel
centres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from bauta.errors import UsageError
from bauta.faces.alignment import sample
from bauta.faces.faces import Faces, overlaps
from bauta.faces.mtcnn import load_networks

# P-Net's window and stride in pixels, and the ratio between levels of the pyramid.
WINDOW = 12
STRIDE = 2
PYRAMID_STEP = 0.709
# Patches judged at once; bounds memory when a crowd fills the photo.
BATCH = 256
# The best candidates that are kept at each level and in all; bounds time when a texture fills the photo.
# A crowd of 340 faces leaves 3700.
CANDIDATES = 6000


@dataclass(frozen=True)
class Search:
    """What one pass looks for.

    Attributes:
        minimum_size: Side in pixels of the smallest face, at least 8.
        long_side: Largest long side in pixels of the pyramid's levels; it bounds the time a pass takes.
        thresholds: Probabilities that P-Net, R-Net and O-Net must exceed.
    """

    minimum_size: float
    long_side: int = 1280
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.8)

    def __post_init__(self) -> None:
        if not self.minimum_size >= 8:
            raise UsageError(
                f"Faces of {self.minimum_size} pixels cannot be found.",
                hint="Give a minimum size of at least 8 pixels.",
            )


def find(pixels: NDArray[np.float32], search: Search) -> Faces:
    """The faces that one pass finds, by descending score, then from top to bottom.

    Args:
        pixels: (H, W, 3) in [0, 1].
        search: What to look for.

    Returns:
        Faces with their boxes cut to the photo.
    """
    _, refinement, output = load_networks()
    _, for_refinement, for_output = search.thresholds

    squares = _propose(pixels, search)
    offsets, scores = _judge(refinement, pixels, squares, 24)
    sure = scores > for_refinement
    boxes, scores = _adjust(squares, offsets)[sure], scores[sure]
    squares = _squares(boxes[suppress_overlaps(boxes, scores, 0.7)])

    offsets, fractions, scores = _judge(output, pixels, squares, 48)
    sure = scores > for_output
    boxes, scores = _adjust(squares, offsets)[sure], scores[sure]
    landmarks = landmarks_in_photo(fractions, squares)[sure]
    kept = suppress_overlaps(boxes, scores, 0.7, of_smaller=True)
    boxes, landmarks, scores = boxes[kept], landmarks[kept], scores[kept]

    height, width = pixels.shape[:2]
    boxes = np.clip(boxes, 0, [width - 1, height - 1, width - 1, height - 1])
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -scores))
    return Faces(boxes, landmarks, scores)[order]


def landmarks_in_photo(fractions: NDArray[np.float32], squares: NDArray[np.float32]) -> NDArray[np.float32]:
    """O-Net's landmarks (N, 5, 2), which are fractions of the patch, in photo pixels.

    A patch reaches from half a pixel before its first pixel's centre to half a pixel after its last one's.
    The package subtracts a whole pixel here, which shifts small faces: on LFW photos reduced to .2 to .5,
    landmarks lay 0.4 pixels up and to the left of those found in enlarged photos.
    """
    sides = squares[:, 2:] - squares[:, :2] + 1
    return fractions * sides[:, None] + squares[:, None, :2] - 0.5


def run(network: torch.nn.Module, patches: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """A network's outputs for patches (N, h, w, 3) in [0, 1]."""
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(normalise(patches)).permute(0, 3, 1, 2), BATCH)
        outputs = [network(batch) for batch in batches]
        return tuple(torch.cat(parts).numpy() for parts in zip(*outputs, strict=True))


def normalise(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """From [0, 1] to the networks' range: (255 x - 127.5) / 128."""
    return pixels * np.float32(255 / 128) - np.float32(127.5 / 128)


def suppress_overlaps(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float, *, of_smaller: bool = False
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        scores: (N,).
        threshold: A box that overlaps a better one by more than this is dropped.
        of_smaller: Overlap is the intersection over the smaller area instead of over the union.

    Returns:
        Indices of the boxes kept of the best `CANDIDATES`, best first; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")[:CANDIDATES]
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[overlaps(boxes[order], boxes[best], of_smaller=of_smaller) <= threshold]
    return np.array(kept, dtype=np.int64)


def _propose(pixels: NDArray[np.float32], search: Search) -> NDArray[np.float32]:
    """P-Net's candidate squares (N, 4) from all levels of the pyramid."""
    proposal, _, _ = load_networks()
    candidates = [np.zeros((0, 5), np.float32)]
    for level in _pyramid(pixels, search):
        with torch.inference_mode():
            image = torch.from_numpy(normalise(level)).permute(2, 0, 1)[None]
            offsets, probabilities = (output[0].numpy() for output in proposal(image))
        rows, columns = np.nonzero(probabilities > search.thresholds[0])
        corners = STRIDE * np.stack([columns, rows, columns, rows], axis=1) + (0, 0, WINDOW, WINDOW)
        ratios = np.array([pixels.shape[1] / level.shape[1], pixels.shape[0] / level.shape[0]] * 2)
        boxes = (corners + WINDOW * offsets[:, rows, columns].T) * ratios
        found = np.column_stack([boxes, probabilities[rows, columns]]).astype(np.float32)
        candidates.append(found[suppress_overlaps(found[:, :4], found[:, 4], 0.5)])
    found = np.concatenate(candidates)
    return _squares(found[suppress_overlaps(found[:, :4], found[:, 4], 0.7), :4])


def _pyramid(pixels: NDArray[np.float32], search: Search) -> Iterator[NDArray[np.float32]]:
    """The photo at sizes that bring every face, from the smallest on, to P-Net's window."""
    height, width = pixels.shape[:2]
    scale = min(WINDOW / search.minimum_size, search.long_side / max(height, width))
    base = pixels
    while round(scale * min(height, width)) >= WINDOW:
        size = (round(scale * width), round(scale * height))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        level: Any = cv2.resize(base, size, interpolation=interpolation)
        yield level
        # A large photo is read once; all smaller levels come from the largest.
        base = pixels if base is pixels and scale >= 1 else (level if base is pixels else base)
        scale *= PYRAMID_STEP


def _judge(
    network: torch.nn.Module, pixels: NDArray[np.float32], squares: NDArray[np.float32], side: int
) -> tuple[NDArray[np.float32], ...]:
    """A network's outputs for the patches under squares (N, 4)."""
    patches = np.empty((len(squares), side, side, 3), dtype=np.float32)
    for patch, (left, top, right, _) in zip(patches, squares.astype(np.float64), strict=True):
        scale = (side - 1) / (right - left)
        matrix = np.array([(scale, 0, -scale * left), (0, scale, -scale * top)])
        patch[:] = sample(pixels, matrix, (side, side), border=0.5)
    return run(network, patches)


def _adjust(boxes: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes moved by the offsets (N, 4) that a network gives as fractions of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + offsets * np.tile(sides, 2)


def _squares(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The squares around the centres of boxes, as large as their longer sides, which are at least a pixel."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True), 1) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)
