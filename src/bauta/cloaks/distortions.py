"""References that look at no recogniser: the photo as it is, noise, blur and pixelation of the face.

Everyday practice; ours in that they stay inside the feathered region of a view. They are for comparison, not for use:
without them the figures of a method say little.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bauta.cloaks.base import Aim, Cloak, Edit, Work
from bauta.cloaks.view import FaceView
from bauta.registry import register
from bauta.settings import Flag, Range, Settings

C = TypeVar("C", bound=Settings)


class Distortion(Cloak[C]):
    """Changes each view by itself, in one go."""

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        """An edit for each view; see `Cloak.edit`."""
        edits = []
        for view in views:
            shown = (view.pixels + self.change(view, work.generator)).clamp(0, 1)
            edits.append(Edit(view, (shown - view.pixels) * (view.region > 0)))
        return edits

    @abstractmethod
    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Perturbation (3, H, W) of one view, zero outside its region."""


@dataclass(frozen=True)
class CleanConfig(Settings):
    """There is nothing to set."""

    title: ClassVar[str] = "clean"


@register("clean", kind="cloak")
class Clean(Distortion[CleanConfig]):
    """The photo as it is: what judges say without protection."""

    Config = CleanConfig
    aims: ClassVar[tuple[Aim, ...]] = ()

    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Nothing."""
        return torch.zeros_like(view.pixels)


@dataclass(frozen=True)
class NoiseConfig(Settings):
    """Settings of the noise.

    Attributes:
        epsilon: Half side of the box around the photo, in 1/255.
    """

    title: ClassVar[str] = "noise"
    epsilon: Annotated[float, Range(above=0, to=255), Flag("eps")] = 16.0


@register("noise", kind="cloak")
class Noise(Distortion[NoiseConfig]):
    """Gaussian noise of standard deviation epsilon / 2, clipped to epsilon: the box of an attack, without its aim."""

    Config = NoiseConfig

    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Noise on the region; the same in all channels of a greyscale photo."""
        channels = 1 if view.grey else 3
        noise = torch.randn(channels, *view.pixels.shape[1:], generator=generator) * 0.5
        return (noise.clamp(-1, 1) * self.config.epsilon / 255).expand(3, -1, -1) * view.region


@dataclass(frozen=True)
class BlurConfig(Settings):
    """Settings of the blur.

    Attributes:
        sigma: Standard deviation, in pixels of a 112-pixel crop.
    """

    title: ClassVar[str] = "blur"
    sigma: Annotated[float, Range(above=0, to=50)] = 4.0


@register("blur", kind="cloak")
class Blur(Distortion[BlurConfig]):
    """Gaussian blur of the face."""

    Config = BlurConfig

    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Blurred less original."""
        sigma = self.config.sigma * view.crop_pixel
        side = 2 * max(1, math.ceil(3 * sigma)) + 1
        pixels = np.ascontiguousarray(view.pixels.permute(1, 2, 0).numpy())
        # Not by torch: of every size of face in a clip it would keep how it is to be filtered, a megabyte each.
        blurred = cv2.GaussianBlur(pixels, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
        return (torch.from_numpy(blurred).permute(2, 0, 1) - view.pixels) * view.region


@dataclass(frozen=True)
class PixelateConfig(Settings):
    """Settings of the mosaic.

    Attributes:
        cells: Number of cells along a side of the ArcFace crop.
    """

    title: ClassVar[str] = "pixelate"
    cells: Annotated[int, Range(at=1, to=112)] = 10


@register("pixelate", kind="cloak")
class Pixelate(Distortion[PixelateConfig]):
    """Means over square cells, `cells` along a side of the ArcFace crop."""

    Config = PixelateConfig

    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Mosaic less original."""
        cell = max(1, round(112 * view.crop_pixel / self.config.cells))
        height, width = view.pixels.shape[1:]
        padded = functional.pad(view.pixels[None], (0, -width % cell, 0, -height % cell), mode="replicate")
        mosaic = functional.interpolate(functional.avg_pool2d(padded, cell), scale_factor=float(cell), mode="nearest")
        return (mosaic[0, :, :height, :width] - view.pixels) * view.region
