"""Settings of the watermark that hides a face and says whose it is; see `bauta.cloaks.watermark`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.settings import Flag, Range


@dataclass(frozen=True)
class WatermarkConfig(SpatialConfig):
    """Settings of the watermark.

    Attributes:
        weight: Of the message beside moving away from the person; 0 says nothing.
        sure: How strong each bit is to be, in strengths of what a clean face says by chance.
    """

    title: ClassVar[str] = "The watermark"

    iterations: Annotated[int, Range(at=1, to=10_000), Flag("steps")] = 100
    psnr: Annotated[float, Range(at=20, to=60)] = 35.0  # a message takes all it may; more was seen as dirty skin
    weight: Annotated[float, Range(at=0, to=100)] = 0.7
    sure: Annotated[float, Range(above=0, to=10)] = 0.6
