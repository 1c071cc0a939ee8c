"""The parts of a photo that judges look at: the faces with what is around them, and not hundreds of megapixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bauta.photo import PixelArray

FloatArray = NDArray[np.float32]

GRID = 80
"""Windows begin at multiples of this many pixels, so that conditions do to a window what they do to the whole photo:
blocks of JPEG (16 pixels), pixels of half the size (2) and of screenshots (5, and after them blocks of 16) begin where
they begin there."""

AROUND = 1.5
"""What is shown around a face on every side, in parts of its longer side; detectors were made for faces in photos."""


@dataclass(frozen=True)
class Window:
    """A rectangle of a photo and the faces in it.

    Attributes:
        left: First column.
        top: First row.
        right: Column behind the last one.
        bottom: Row behind the last one.
        faces: Numbers of the faces, ascending.
    """

    left: int
    top: int
    right: int
    bottom: int
    faces: tuple[int, ...]

    @property
    def area(self) -> int:
        """Pixels in it."""
        return (self.right - self.left) * (self.bottom - self.top)

    def of(self, pixels: PixelArray) -> FloatArray:
        """The part of a photo (H, W, 3), as a view."""
        return pixels[self.top : self.bottom, self.left : self.right]

    def __or__(self, other: Window) -> Window:
        return Window(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
            tuple(sorted((*self.faces, *other.faces))),
        )


def windows_around(boxes: FloatArray, shape: Sequence[int]) -> list[Window]:
    """Windows that hold each face of a photo with ample margin, joined wherever that is no more work.

    >>> windows_around(np.array([[400, 400, 500, 500]], np.float32), (3000, 4000))
    [Window(left=240, top=240, right=720, bottom=720, faces=(0,))]

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        shape: (H, W, ...) of the photo.

    Returns:
        Each face in one window; together the windows have no more pixels than they had apart.
    """
    height, width = shape[:2]
    windows: list[Window] = []
    for number, box in enumerate(boxes):
        margin = max(GRID, AROUND * float((box[2:] - box[:2]).max()))
        left, top = (int(max(0, edge - margin) // GRID * GRID) for edge in box[:2])
        right, bottom = (int(-(-(edge + margin) // GRID) * GRID) for edge in box[2:])
        # A box may lie outside of a photo that somebody cropped.
        left, top = min(left, max(0, width - GRID) // GRID * GRID), min(top, max(0, height - GRID) // GRID * GRID)
        window = Window(left, top, max(left + 1, min(width, right)), max(top + 1, min(height, bottom)), (number,))
        while (near := _joinable(window, windows)) is not None:
            windows.remove(near)
            window |= near
        windows.append(window)
    return sorted(windows, key=lambda one: one.faces)


def _joinable(window: Window, others: Sequence[Window]) -> Window | None:
    return next((other for other in others if (window | other).area <= window.area + other.area), None)
