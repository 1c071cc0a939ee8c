"""The patch of a photo around one face, and the way back from a mask on it to the whole photo.

A cloak sees nothing but face views. A view is cut at the photo's own resolution as long as the face is small;
a larger face is reduced by area so that the side of the ArcFace crop's footprint is `MAX_FOOTPRINT` pixels:
recognisers look at 112 to 160 pixels, so a 40-megapixel portrait costs what a small one does. Only the
perturbation is enlarged on the way back, never the photo. (Our design; the official TIP-IM code pastes a
resampled face.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bauta.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from bauta.photo import PixelArray

    FloatArray = NDArray[np.float32]

MAX_FOOTPRINT = 224
_MARGIN = 0.12  # of the crop's footprint, so that randomly moved crops still see photo and not a black border
_FEATHER = 0.05  # of the crop's footprint, over which the mask fades out
_MUCH_SMALLER = 0.3  # part of another view's area up to which a view may be one of a face inside of its face
_EXTENTS = {"crop": (0, 0, 112, 112), "head": (-40, -60, 152, 132)}  # left, top, right, bottom in crop pixels


@dataclass(frozen=True)
class ViewSpec:
    """What a cloak wants to be shown of a face.

    Attributes:
        extent: What its edit may cover: ``crop``, the footprint of the ArcFace crop, or ``head``, hair and neck too.
        footprint: Greatest side of the crop's footprint, in view pixels: the view of a larger face is reduced. None for
            the photo's own resolution always, for edits that must be exact.
    """

    extent: Literal["crop", "head"] = "crop"
    footprint: int | None = MAX_FOOTPRINT


@dataclass(frozen=True)
class FaceView:
    """What a cloak is given of one face.

    Attributes:
        pixels: (3, H, W) float32 RGB in [0, 1], the photo at view resolution.
        landmarks: (5, 2) float32, in view pixels, pixel centres at whole numbers.
        region: (1, H, W) float32 in [0, 1]: 1 where the mask may have its full strength, 0 where it must not be.
            It is the footprint of the ArcFace crop (or what `ViewSpec.extent` says), feathered at its border.
        grey: A greyscale photo, whose mask must be equal in the three channels.
    """

    pixels: Tensor
    landmarks: Tensor
    region: Tensor
    grey: bool = False

    @property
    def crop_pixel(self) -> float:
        """Side of a pixel of the ArcFace crop, in view pixels."""
        import numpy as np

        from bauta.faces.alignment import similarity_matrix
        from bauta.faces.crop_template import ARCFACE_112

        matrix = similarity_matrix(self.landmarks.numpy(), ARCFACE_112)
        return 1 / float(np.hypot(matrix[0, 0], matrix[1, 0]))


@dataclass(frozen=True)
class Placement:
    """Where a view lies in its photo.

    Attributes:
        left: First photo column of the view's rectangle.
        top: First photo row.
        width: Columns of the rectangle, in photo pixels.
        height: Rows of the rectangle.
    """

    left: int
    top: int
    width: int
    height: int

    @property
    def rows(self) -> slice:
        """Rows of the photo that the rectangle covers."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Columns of the photo that the rectangle covers."""
        return slice(self.left, self.left + self.width)

    def inside(self, other: Placement) -> bool:
        """Whether this is a face inside of a much larger one: smaller by far, and its middle in the other's rectangle.

        >>> Placement(50, 50, 30, 30).inside(Placement(0, 0, 200, 200))
        True
        """
        across, down = self.left + self.width / 2 - other.left, self.top + self.height / 2 - other.top
        within = 0 <= across <= other.width and 0 <= down <= other.height
        return within and self.width * self.height < _MUCH_SMALLER * other.width * other.height

    def patch(self, delta: Tensor) -> FloatArray:
        """Perturbation of the rectangle, (height, width, 3) float32 in photo pixels, from one of the view.

        Args:
            delta: (3, h, w) in [-1, 1], at view resolution.
        """
        import cv2
        import numpy as np

        patch: FloatArray = delta.detach().permute(1, 2, 0).contiguous().numpy()
        if patch.shape[:2] != (self.height, self.width):
            support = (patch != 0).any(2).astype(np.float32)
            patch = cv2.resize(patch, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
            # A cubic filter rings past the region's border; nearest keeps the zeros zero.
            patch *= cv2.resize(support, (self.width, self.height), interpolation=cv2.INTER_NEAREST)[..., None]
        return patch

    def displacement(self, warp: Tensor) -> FloatArray:
        """A warp of the rectangle, (2, height, width) float32 in photo pixels, from one of the view.

        Bilinear, so that what does not fold in the view does not fold here; see `bauta.cloaks.base.least_jacobian`.

        Args:
            warp: (2, h, w), x and y in view pixels.
        """
        import cv2
        import numpy as np

        field: FloatArray = warp.detach().permute(1, 2, 0).contiguous().numpy()
        if field.shape[:2] != (self.height, self.width):
            ratio = np.array([self.width / field.shape[1], self.height / field.shape[0]], dtype=np.float32)
            field = cv2.resize(field, (self.width, self.height), interpolation=cv2.INTER_LINEAR) * ratio
        return np.ascontiguousarray(field.transpose(2, 0, 1), dtype=np.float32)


def cut_view(
    pixels: PixelArray, landmarks: FloatArray, *, grey: bool = False, spec: ViewSpec | None = None
) -> tuple[FaceView, Placement]:
    """Cut the view of one face out of a photo.

    Args:
        pixels: (H, W, 3) in [0, 1], upright.
        landmarks: (5, 2) in photo pixels.
        grey: Whether the photo is greyscale.
        spec: What to show; the default of `ViewSpec` when None.

    Raises:
        UsageError: when the face lies outside the photo or its landmarks coincide.
    """
    import cv2
    import numpy as np
    import torch

    spec = spec or ViewSpec()
    height, width = pixels.shape[:2]
    footprint, footprint_side = _footprint(landmarks, spec)
    left, top, right, bottom = bounds(landmarks, (height, width), spec)
    if right - left < 16 or bottom - top < 16:
        raise UsageError("The face lies outside the photo or is smaller than 16 pixels.", hint="Check --box.")
    placement = Placement(left, top, right - left, bottom - top)
    patch = pixels[top:bottom, left:right]
    scale = 1.0 if spec.footprint is None else min(1.0, spec.footprint / footprint_side)
    size = (max(16, round(placement.width * scale)), max(16, round(placement.height * scale)))
    if size != (placement.width, placement.height):
        patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
    ratio = np.array([size[0] / placement.width, size[1] / placement.height])

    def to_view(points: NDArray[np.float64]) -> NDArray[np.float64]:
        moved: NDArray[np.float64] = (points - [left, top] + 0.5) * ratio - 0.5
        return moved

    region = np.zeros(size[::-1], dtype=np.float32)
    cv2.fillConvexPoly(region, to_view(footprint).round().astype(np.int32), 1.0)
    feather = max(1, round(_FEATHER * footprint_side * scale))
    # Distance to the outside makes a ramp that is exactly zero there, which a blur would not be.
    padded = np.pad(region, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    view = FaceView(
        pixels=torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1), dtype=np.float32)),
        landmarks=torch.from_numpy(to_view(landmarks.astype(np.float64)).astype(np.float32)),
        region=torch.from_numpy(np.minimum(distance / (feather + 1), 1).astype(np.float32))[None],
        grey=grey,
    )
    return view, placement


def bounds(landmarks: FloatArray, shape: tuple[int, ...], spec: ViewSpec) -> tuple[int, int, int, int]:
    """First and last column and row, the last ones excluded, of the view of a face in a photo (H, W, ...): left, top,
    right, bottom. They cross where the face lies outside.

    Raises:
        UsageError: when landmarks coincide.
    """
    import numpy as np

    footprint, side = _footprint(landmarks, spec)
    left, top = np.floor(footprint.min(0) - _MARGIN * side).astype(int).clip(0)
    right, bottom = np.minimum(np.ceil(footprint.max(0) + _MARGIN * side).astype(int) + 1, [shape[1], shape[0]])
    return int(left), int(top), int(right), int(bottom)


def _footprint(landmarks: FloatArray, spec: ViewSpec) -> tuple[NDArray[np.float64], float]:
    """Corners (4, 2) of what an edit may cover, in photo pixels, and the side of the crop's footprint there."""
    import numpy as np

    from bauta.faces.alignment import similarity_matrix
    from bauta.faces.crop_template import ARCFACE_112

    matrix = similarity_matrix(landmarks, ARCFACE_112)
    to_photo = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    x1, y1, x2, y2 = (edge - 0.5 for edge in _EXTENTS[spec.extent])
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    side = ARCFACE_112.width / float(np.hypot(matrix[0, 0], matrix[1, 0]))
    return corners @ to_photo[:, :2].T + to_photo[:, 2], side
