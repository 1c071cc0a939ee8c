"""Rectangles of a photo's stored samples: where two versions differ, and what is there, as bytes and back.

A region is aligned to squares of 16 samples, JPEG's largest coding block, so that a region of a JPEG is coded by the
same blocks as in the photo and loses next to nothing on the way.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.photo.metadata import Metadata
from bauta.photo.photo import Photo, read_photo
from bauta.photo.raster import Raster

_SQUARE = 16


@dataclass(frozen=True)
class Region:
    """A rectangle of stored samples, before the photo is turned upright.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def part(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def shape_of(photo: Photo) -> tuple[int, int, int, int]:
    """(rows, columns, colours, bytes a sample) as stored, alpha left out."""
    samples = _colours(photo._raster)
    return (*samples.shape, samples.itemsize)


def changed_regions(before: Photo, after: Photo) -> list[Region]:
    """The rectangles that hold every sample in which two photos of one size differ, alpha left out."""
    one, other = _colours(before._raster), _colours(after._raster)
    height, width = one.shape[:2]
    squares = np.zeros((-(-height // _SQUARE), -(-width // _SQUARE)), np.uint8)
    for row in range(len(squares)):
        rows = slice(row * _SQUARE, (row + 1) * _SQUARE)
        columns = np.flatnonzero((one[rows] != other[rows]).any(axis=(0, 2)))
        squares[row, columns // _SQUARE] = 1
    found = cv2.connectedComponentsWithStats(squares, connectivity=8)[2][1:, :4] * _SQUARE
    return [
        Region(top, left, min(tall, height - top), min(wide, width - left)) for left, top, wide, tall in found.tolist()
    ]


def coded_region(photo: Photo, region: Region) -> bytes:
    """The samples of a region: of a JPEG coded with its own tables, of other photos without any loss.

    Raises:
        OutputError: when the encoder fails.
    """
    raster = photo._raster
    samples = np.ascontiguousarray(_colours(raster)[region.part])
    if photo.format == "JPEG":
        return photo._encode(Raster(samples, raster.colour), Metadata())
    steps = np.diff(samples, axis=1, prepend=samples.dtype.type(0))  # modulo the range of the type
    return zlib.compress(steps.astype(samples.dtype.newbyteorder("<")).tobytes(), 6)


def with_region(photo: Photo, region: Region, content: bytes) -> Photo:
    """The photo with the samples that `coded_region` coded in their place.

    Raises:
        ValueError: when the bytes are not such a region.
    """
    raster = photo._raster
    place = _colours(raster)[region.part]
    if photo.format == "JPEG":
        values = _colours(read_photo(content)._raster)
    else:
        stored = place.dtype.newbyteorder("<")
        room = place.size * place.itemsize
        unpacked = zlib.decompressobj().decompress(content, room + 1)
        if len(unpacked) != room:
            raise ValueError(f"a region of {place.shape} is not coded in these bytes")
        steps = np.frombuffer(unpacked, stored).reshape(place.shape)
        values = np.cumsum(steps, axis=1, dtype=place.dtype)
    if values.shape != place.shape or values.dtype != place.dtype:
        raise ValueError(f"a region of {values.shape} does not fit into one of {place.shape}")
    samples = raster.samples.copy()
    samples[region.part][..., : place.shape[2]] = values
    return replace(photo, _raster=replace(raster, samples=samples))


def overview(photo: Photo, side: int = 16) -> NDArray[np.uint8]:
    """(side, side) mean brightness of the stored samples in as many fields: what tells photos apart."""
    samples = _colours(photo._raster)
    steps = (max(1, samples.shape[0] // 256), max(1, samples.shape[1] // 256))
    some = samples[:: steps[0], :: steps[1]].astype(np.float32).mean(axis=2) * np.float32(255 / photo._raster.maximum)
    return np.asarray(cv2.resize(some, (side, side), interpolation=cv2.INTER_AREA)).round().astype(np.uint8)


def _colours(raster: Raster) -> NDArray[np.unsignedinteger[Any]]:
    """All but alpha."""
    return raster.samples[..., : raster.samples.shape[2] - raster.has_alpha]
