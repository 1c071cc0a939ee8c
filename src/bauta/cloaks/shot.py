"""The default mask of a clip: one for a face through a shot, made on several of its frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta.cloaks.base import Work
from bauta.cloaks.p3_fitting import Following, Person, descended
from bauta.cloaks.p3_settings import P3MaskConfig
from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.cloaks.view import FaceView
from bauta.objectives.descent import Values
from bauta.objectives.transports import held_out

BATCH = 2
"""Frames that a step looks at."""
BOLDER = 1.22
"""By which the bounds of photos are multiplied in clips, so that medium has about those that high has on photos: an
attacker has the best of many frames, and what moves is noticed less."""
PEAK = 3.5
"""Largest sample of the lightness mask, in multiples of its root mean square."""

_SHARED = ("controls", "smoothing", "pace", "decay", "movement", "scale", "mirror", "noise")


class Shot(Person):
    """A face in frames of a shot, and the mask that is made for all of them.

    As the mask of a photo it starts at nothing, with a share of its bounds, and may have more of them until it is past
    the thresholds in every frame.
    """

    def __init__(self, views: Sequence[FaceView], fitted: P3MaskConfig, config: SpatialConfig, work: Work) -> None:
        super().__init__(views, fitted, work, start=0.0, even=True)
        known = config.margin is not None and None not in self.losses[0].limits
        self.margin = config.margin if known else None
        self.least = config.least
        if self.margin is not None:
            self.level.fill_(self.least)

    def finished(self, values: Values, iteration: int) -> Tensor | None:
        """Whether every frame is past, looked at after every fifth of the iterations; if not, it is allowed more."""
        if self.margin is None or (iteration + 1) % max(1, self.config.iterations // 5):
            return None
        past = self._past(values)
        if not past:
            self.level += (1 - self.level).minimum(torch.tensor((1 - self.least) / 4))
        return torch.tensor([past])

    def _past(self, values: Values) -> bool:
        """Whether the worst frame, by the worst surrogate, is past its threshold by the margin, in ways that no step
        drew."""
        for number, loss in enumerate(self.losses):
            if float(loss.closest(self.shown(number, values), held_out()).min()) <= (self.margin or 0.0):
                return False
        return True


def follow(views: Sequence[FaceView], config: SpatialConfig, work: Work) -> Following:
    """One mask for all views of a face, in the frame of the aligned crop.

    Args:
        views: The face in some frames of the shot.
        config: Settings, as for photos.
        work: With the ensemble.

    Raises:
        NumericalFailure: when a surrogate answers with NaN or infinity.
    """
    fitted = of_clips(config, len(views))
    shot = Shot(views, fitted, config, work)
    return following(fitted, descended(shot, fitted, work), float(shot.level[0]))


def following(fitted: P3MaskConfig, parts: Mapping[str, Tensor], level: float) -> Following:
    """What goes along with the face."""
    return Following(fitted, parts, 0, {"level": round(level, 3)}, even=True)


def kept(carried: Following) -> dict[str, NDArray[Any]]:
    """What `resumed` makes the same of again."""
    level = np.array(carried.facts["level"], dtype=np.float64)
    return {"level": level, **{name: part.numpy() for name, part in carried.parts.items()}}


def resumed(config: SpatialConfig, kept: Mapping[str, NDArray[Any]]) -> Following:
    """A mask that was kept, made with the same settings."""
    parts = {name: torch.from_numpy(part) for name, part in kept.items() if name != "level"}
    return following(of_clips(config), parts, float(kept["level"]))


def of_clips(config: SpatialConfig, frames: int = BATCH) -> P3MaskConfig:
    """Settings for clips, by those for photos, for so many frames."""
    return P3MaskConfig(
        iterations=config.iterations,
        batch=min(BATCH, max(1, frames)),
        variants=1,
        apart=0.0,
        peak=PEAK,
        displacement=min(10.0, BOLDER * config.displacement),
        strain=min(0.5, BOLDER * config.strain),
        psnr=max(20.0, config.psnr - 20 * math.log10(BOLDER)),
        **{name: getattr(config, name) for name in _SHARED},
    )
