"""Settings of the mask that moves; see `bauta.cloaks.spatial`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from bauta.cloaks.base import Mode
from bauta.settings import Flag, Range, Settings, Share


@dataclass(frozen=True)
class SpatialConfig(Settings):
    """Settings of the mask that moves.

    Attributes:
        mode: ``dodge`` moves away from the person, ``impersonate`` towards the best of the targets, ``combined`` does
            both.
        iterations: Upper bound of the iterations.
        displacement: Longest displacement, in percent of the distance between the eyes; 0 moves nothing.
        strain: Greatest stretch, squeeze or shear of the face, as a share.
        controls: Control points along a side of the crop; more of them make a finer field.
        psnr: Floor of the PSNR of the lightness mask over the face, in dB, when the movement is undone.
        texture: Exponent of the just-noticeable-difference map by which the lightness mask is distributed.
        smoothing: Standard deviation of the Gaussian that smooths gradients, in pixels of a 112-pixel crop.
        pace: How far the steps of all iterations would lead in a straight line, in budgets.
        decay: Momentum decay.
        away: Weight of moving away from the person beside moving towards a target, in ``combined``.
        apart: Weight of moving away from other protected photos of the same person, beside moving away from the person;
            0 protects each photo as if it were the only one.
        targets: Number of target faces used.
        margin: A face is done when it is this far, in cosine, past the threshold of every surrogate, also after
            transports; until then it is allowed more and more of the bounds. None always goes to the bounds.
        least: Share of the bounds that it begins with.
        movement: Range of the standard deviations of the random affine movement of the crop; (0, 0) for none.
        scale: Largest share by which a surrogate's crop is made wider or tighter.
        mirror: Probability that a surrogate sees a crop in a mirror.
        noise: Greatest standard deviation of the noise on a surrogate's crop, in 1/255.
    """

    title: ClassVar[str] = "The mask that moves"

    mode: Mode = "dodge"
    iterations: Annotated[int, Range(at=1, to=10_000), Flag("steps")] = 50
    displacement: Annotated[float, Range(at=0, to=10)] = 4.2
    strain: Annotated[float, Range(above=0, to=0.5)] = 0.18
    controls: Annotated[int, Range(at=4, to=25)] = 11
    psnr: Annotated[float, Range(at=20, to=60)] = 34.0
    texture: Annotated[float, Range(at=0, to=4)] = 1.0
    smoothing: Annotated[float, Range(at=0, to=20)] = 1.2
    pace: Annotated[float, Range(above=0, to=1000)] = 8.0
    decay: Annotated[float, Range(at=0, to=1)] = 0.8
    away: Annotated[float, Range(above=0, to=100)] = 0.8
    apart: Annotated[float, Range(at=0, to=10)] = 1.0
    targets: Annotated[int, Range(at=1, to=1000)] = 10
    margin: Annotated[float, Range(at=-1, to=1)] | None = 0.4
    least: Annotated[float, Range(above=0, to=1)] = 0.6
    movement: Annotated[tuple[float, float], Range(at=0, to=1)] = (0.01, 0.06)
    scale: Annotated[float, Range(at=0, to=0.5)] = 0.15
    mirror: Share = 0.5
    noise: Annotated[float, Range(at=0, to=255)] = 12.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """A range begins below where it ends."""
        if self.movement[0] > self.movement[1]:
            yield "movement", "Its first number is the smaller one."
