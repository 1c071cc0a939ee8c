"""A mask on lightness alone, bounded by what is noticed of it on the face that carries it. Our design."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bauta.cloaks.p3_settings import P3MaskConfig
from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.cloaks.view import FaceView
from bauta.faces.crop_template import ARCFACE_112
from bauta.objectives.displacement import EYES, ControlPoints, within
from bauta.objectives.visibility import BLACK, just_noticeable, luminance

TYPICAL = 0.066
"""Just-noticeable difference of a typical face, by which budgets in dB are meant."""
_MOST = 2.0  # times the face's mean
_IRIS = 3.5  # radius, in crop pixels
_EVEN = 5.0  # most that darkness alone hides then, in 1/255
_FAIR, _DARKEST = 0.5, 0.75  # light of a face from which on it counts in full, and the least share that it counts
_FACE = ((56.0, 72.0), (32.0, 38.0))  # centre and half axes of the inner face, in crop pixels


def noticeable(
    views: Sequence[FaceView], images: Tensor, to_crop: Tensor, inside: Tensor, even: bool = False
) -> tuple[Tensor, Tensor]:
    """How much lightness may change before it is noticed, at every place of N faces, and the mean of each face.

    Args:
        views: The faces.
        images: (N, 3, H, W), their pixels, stacked.
        to_crop: (N, 2, 3), from their pixels to crop pixels.
        inside: (N, 1, H, W), 1 where an edit may be.
        even: Whether dark skin hides no more than fair skin. The rule of `just_noticeable` says that it does, but
            blotches on it are seen by their share of its light.

    Returns:
        (N, 1, H, W) in [0, 1] units, and (N, 1, 1, 1).
    """
    size = images.shape[2], images.shape[3]
    noticed = just_noticeable(images, [view.crop_pixel for view in views], _EVEN if even else BLACK)
    face = within(to_crop, size, *_FACE) * inside
    # Of a face that is cut off by the border there may be hair alone.
    face = torch.where(face.sum((1, 2, 3), keepdim=True) > 0, face, inside)
    mean = (noticed * face).sum((1, 2, 3), keepdim=True) / face.sum((1, 2, 3), keepdim=True)
    # Hair and background would take the whole budget otherwise.
    noticed = noticed.minimum(_MOST * mean)
    for eye in ARCFACE_112.points[:2]:  # the colour of eyes is noticed first
        iris = within(to_crop, size, eye, (_IRIS, _IRIS))
        noticed = torch.where(iris > 0, noticed / 2, noticed)
    if even:
        light = (luminance(images) * face).sum((1, 2, 3), keepdim=True) / face.sum((1, 2, 3), keepdim=True)
        share = (light / _FAIR).clamp(_DARKEST, 1)
        noticed, mean = noticed * share, mean * share
    return noticed, mean


class Lightness:
    """A mask on lightness as a variable of `bauta.objectives.descent`, in a ball of what is noticed of it.

    Args:
        region: (N, 1, H, W) in [0, 1].
        noticed: (N, 1, H, W), the just-noticeable difference of each place, as a multiple of a typical face's.
        size: Root-mean-square length of a step, of what is noticed.
        decay: Momentum decay.
        rms: Largest root mean square of what is noticed.
        level: (N,) in [0, 1], by which the ball is multiplied; its numbers may change between steps.
        peak: Largest sample of what is noticed, in multiples of `rms`; None for no such bound.
    """

    def __init__(
        self,
        region: Tensor,
        noticed: Tensor,
        *,
        size: float,
        decay: float,
        rms: float,
        level: Tensor,
        peak: float | None = None,
    ) -> None:
        self.region, self.noticed, self.size, self.decay, self.rms = region, noticed, size, decay, rms
        self.level, self.peak = level[:, None, None, None], peak
        self.area = region.sum((1, 2, 3))[:, None, None, None]
        self.start = torch.zeros_like(region)

    def normalised(self, gradients: Tensor) -> Tensor:
        """Of unit mean absolute value over the region."""
        gradients = gradients * (self.region > 0)
        return gradients / (gradients.abs().sum((-3, -2, -1), keepdim=True) / self.area).clamp_min(1e-20)

    def moved(self, value: Tensor, momentum: Tensor) -> Tensor:
        """Along the momentum, and back into the ball."""
        delta = value - self.size * self.region * momentum / self._noticed(momentum)
        if self.peak is not None:
            most = self.peak * self.rms * self.level * self.noticed
            delta = delta.minimum(most).maximum(-most)
        return delta * (self.rms * self.level / self._noticed(delta)).clamp_max(1)

    def _noticed(self, values: Tensor) -> Tensor:
        squares = (values / self.noticed).square().sum((-3, -2, -1), keepdim=True)
        return (squares / self.area).sqrt().clamp_min(1e-12)


def field_and_lightness(
    bounds: SpatialConfig | P3MaskConfig, region: Tensor, noticed: Tensor, level: Tensor, peak: float | None = None
) -> tuple[ControlPoints, Lightness]:
    """The two variables of a mask that moves, within the bounds of its settings.

    Args:
        bounds: The settings.
        region: As for `Lightness`; there are as many fields.
        noticed: As for `Lightness`.
        level: (N,), by which the bounds of both are multiplied.
        peak: As for `Lightness`.
    """
    amplitude, rms = bounds.displacement / 100 * EYES, 10 ** (-bounds.psnr / 20)
    field = ControlPoints(
        region.new_zeros(len(region), 2, bounds.controls, bounds.controls),
        size=bounds.pace * amplitude / 2 / bounds.iterations,
        decay=bounds.decay,
        amplitude=amplitude,
        strain=bounds.strain,
        level=level,
    )
    size = bounds.pace * rms / bounds.iterations
    return field, Lightness(region, noticed, size=size, decay=bounds.decay, rms=rms, level=level, peak=peak)
