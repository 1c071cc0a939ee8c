"""The samples of a photo as its file holds them, and what a perturbation does to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.unsignedinteger[Any]]
Colour = Literal["grey", "rgb", "cmyk"]

_COLOUR_CHANNELS: dict[Colour, int] = {"grey": 1, "rgb": 3, "cmyk": 4}

# A perturbation is added to this many rows at a time: far apart faces would otherwise need several copies of the photo.
_ROWS = 256

# EXIF orientation -> (swap axes, then flip rows, then flip columns), from the stored to the upright picture.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def upright(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of ``stored`` (H, W, ...) turned the way a viewer shows it."""
    swap, flip_rows, flip_columns = _TURNS[orientation]
    turned = stored.swapaxes(0, 1) if swap else stored
    return turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def as_stored(shown: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The inverse of `upright`."""
    swap, flip_rows, flip_columns = _TURNS[orientation]
    turned = shown[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return turned.swapaxes(0, 1) if swap else turned


@dataclass(frozen=True, eq=False)
class Raster:
    """Samples in stored orientation and native depth.

    Attributes:
        samples: (H, W, C) uint8 or uint16, read-only. C is 1 (grey), 3 (rgb) or 4 (cmyk, 0 is no ink),
            and one more when there is alpha.
        colour: Which of the three colour models the first channels hold.
        orientation: EXIF orientation, 1 to 8.
    """

    samples: Samples
    colour: Colour
    orientation: int = 1

    def __post_init__(self) -> None:
        self.samples.flags.writeable = False

    @property
    def maximum(self) -> int:
        """The largest sample value: 255 or 65535."""
        return int(np.iinfo(self.samples.dtype).max)

    @property
    def has_alpha(self) -> bool:
        """Whether a last channel holds opacity."""
        return bool(self.samples.shape[2] > _COLOUR_CHANNELS[self.colour])

    @cached_property
    def is_grey(self) -> bool:
        """Whether every pixel is grey, also when the file spends three channels on it."""
        if self.colour == "grey":
            return True
        red, green, blue = (self.samples[..., channel] for channel in range(3))
        return np.array_equal(red, green) and np.array_equal(green, blue)

    def pixels(self, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.float32]:
        """Upright RGB, (H, W, 3) in [0, 1]; alpha is left out, CMYK goes through ``(1 - CMY)(1 - K)``.

        Args:
            rows: Which, of the upright picture.
            columns: Which, of the upright picture.
        """
        return self._shown(self._colours[rows, columns])

    def reduced(self, long_side: int) -> NDArray[np.float32]:
        """The same with a long side of so many pixels at most, each the mean of those that it stands for.

        Samples are reduced as they are: pixels of the whole picture would take four times their memory and more.
        """
        import cv2

        height, width = self._colours.shape[:2]
        factor = long_side / max(height, width)
        if factor >= 1:
            return self._shown(self._colours)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        colours = cv2.resize(np.ascontiguousarray(self._colours), size, interpolation=cv2.INTER_AREA)
        return self._shown(colours.reshape(*size[::-1], -1))

    @property
    def _colours(self) -> Samples:
        return upright(self.samples[..., : _COLOUR_CHANNELS[self.colour]], self.orientation)

    def _shown(self, colours: Samples) -> NDArray[np.float32]:
        values = np.array(colours, dtype=np.float32, order="C")
        values /= np.float32(self.maximum)
        if self.colour == "cmyk":
            return (1 - values[..., :3]) * (1 - values[..., 3:])
        return values if self.colour == "rgb" else np.repeat(values, 3, axis=2)

    def cleared(self) -> Raster:
        """The raster without what its transparent pixels hide: where opacity is 0, colours are 0 too."""
        if not self.has_alpha:
            return self
        hidden = (self.samples[..., -1] == 0) & self.samples[..., :-1].any(axis=2)
        if not hidden.any():
            return self
        samples = self.samples.copy()
        samples[hidden] = 0
        return replace(self, samples=samples)

    def perturbed(self, delta: NDArray[np.floating[Any]]) -> Raster:
        """The raster with an upright ``delta`` (H, W, 3) in [-1, 1] added.

        Rounds to the native depth (half to even), once, and clips into range. Samples where delta is 0,
        and alpha, stay bit-identical; the change of a grey photo is the mean over the channels.
        """
        delta = as_stored(delta, self.orientation)
        touched = np.any(delta, axis=2)
        if not touched.any():
            return self
        samples = self.samples.copy()
        for window in _windows(touched):
            change = delta[window].astype(np.float32)
            if self.is_grey:
                change = change.mean(axis=2, keepdims=True)
            colours = samples[window][..., : min(3, _COLOUR_CHANNELS[self.colour])]
            if self.colour == "cmyk":
                colours[:] = self._inks(colours, samples[window][..., 3:4], change)
            else:
                colours[:] = np.rint(colours + change * self.maximum).clip(0, self.maximum)
        return replace(self, samples=samples)

    def _inks(self, inks: Samples, black: Samples, change: NDArray[np.float32]) -> NDArray[np.float32]:
        """The CMY that bring the RGB of ``inks`` and ``black`` nearest to RGB + ``change``, K kept."""
        paper = (self.maximum - black).astype(np.float32)  # the light that black lets through
        light = (1 - inks / np.float32(self.maximum)) * paper
        wanted = (light + change * self.maximum).clip(0, paper)
        # Under full black no CMY shows, so nothing there can be changed.
        share = np.divide(wanted, paper, out=np.zeros_like(wanted), where=paper > 0)
        changed = np.rint((1 - share) * self.maximum)
        return np.where((change != 0) & (paper > 0), changed, inks).astype(np.float32)


def _windows(touched: NDArray[np.bool_]) -> Iterator[tuple[slice, slice]]:
    """Rectangles of few rows that together hold every touched place of (H, W)."""
    for top in range(0, len(touched), _ROWS):
        part = touched[top : top + _ROWS]
        if part.any():
            rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            yield slice(top + rows[0], top + rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@dataclass(frozen=True, eq=False)
class Pixels:
    """The upright pixels of a photo as an array of which only the parts are made that are asked for.

    >>> raster = Raster(np.zeros((30, 40, 3), np.uint8), "rgb")
    >>> Pixels(raster).shape, Pixels(raster)[10:20, ::4].shape
    ((30, 40, 3), (10, 10, 3))
    """

    raster: Raster

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        height, width = upright(self.raster.samples, self.raster.orientation).shape[:2]
        return height, width, 3

    def __getitem__(self, part: tuple[slice, slice]) -> NDArray[np.float32]:
        return self.raster.pixels(*part)

    def reduced(self, long_side: int) -> NDArray[np.float32]:
        """The picture with a long side of so many pixels at most, (h, w, 3)."""
        return self.raster.reduced(long_side)


PixelArray = NDArray[np.float32] | Pixels
"""Pixels (H, W, 3) in [0, 1] of which rectangles are taken, whether they are all in memory or not."""
