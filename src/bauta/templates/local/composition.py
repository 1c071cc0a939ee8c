"""The train-free image of local features: settings, the local detail, and the random field that it is put on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bauta.objectives.transports import gaussian_blur
from bauta.objectives.visibility import luminance
from bauta.settings import Range, Settings, Share
from bauta.templates.base import SIDE
from bauta.templates.draws import Draws

Mode = Literal["train-free", "learned", "optimised"]

FEWEST_SURROGATES = 3
NOISE_LEVELS = 255  # of the stored image


@dataclass(frozen=True)
class LocalFeaturesConfig(Settings):
    """Settings; all numbers are our design.

    Attributes:
        mode: ``train-free`` learns nothing; ``learned`` puts a trained network behind it; ``optimised`` starts from a
            face of nobody and takes of the photo only what the surrogates' templates tell.
        sigma: Deviation in pixels of the blur that is taken away: what is coarser than that is lost.
        window: Deviation in pixels of the window in which contrast is measured.
        gain: Factor of the detail; with floor far above the contrasts of faces, gain / floor is the factor of the
            plain difference.
        floor: Contrast, in [0, 1] units of a pixel, up to which detail is not amplified to one level.
        colour: Whether detail keeps its colours.
        level: Mean brightness of the field.
        field: Deviation of the field's brightness over the image.
        chroma: Deviation of the field's colours.
        cells: Fewest and most random numbers along a side of the field.
        patches: Deviation of a random offset for each square of the field.
        patch: Side in pixels of these squares, and of those that dropout takes away.
        dropout: Share of squares without detail.
        noise: Deviation of Gaussian noise on every pixel.
        bits: Of each colour in the output.
        reach: Most that the learned network changes a sample.
        channels: Width of that network.
        surrogates: Names of the recognisers it learns from, three at least; empty when train-free.
        epsilon: Most that a sample of the face of nobody is changed when optimised, in 1/255.
        iterations: Steps of that.
        asked: Surrogates that are asked in each of them, in turn.
        components: Eigenfaces that faces of nobody are made of.
    """

    title: ClassVar[str] = "local features"
    presets: ClassVar[tuple[str, ...]] = ("accurate", "optimised")
    mode: Mode = "train-free"
    sigma: Annotated[float, Range(at=0.1, to=30)] = 6.0
    window: Annotated[float, Range(at=0.1, to=30)] = 10.0
    gain: Annotated[float, Range(above=0, to=1000)] = 0.25
    floor: Annotated[float, Range(at=1e-4, to=1000)] = 0.02
    colour: bool = False
    level: Share = 0.5
    field: Share = 0.1
    chroma: Share = 0.2
    cells: Annotated[tuple[int, int], Range(at=2, to=SIDE)] = (2, 3)
    patches: Share = 0.0
    patch: Annotated[int, Range(at=1, to=SIDE)] = 8
    dropout: Annotated[float, Range(at=0, below=1)] = 0.0
    noise: Share = 0.02
    bits: Annotated[int, Range(at=1, to=8)] = 5
    reach: Share = 0.2
    channels: Annotated[int, Range(at=4, to=256)] = 16
    surrogates: tuple[str, ...] = ()
    epsilon: Annotated[float, Range(above=0, to=255)] = 8.0
    iterations: Annotated[int, Range(at=1, to=10_000)] = 30
    asked: Annotated[int, Range(at=1, to=64)] = 2
    components: Annotated[int, Range(at=1, to=1000)] = 64

    def problems(self) -> Iterator[tuple[str, str]]:
        """Widths that the network has not, and modes with too few surrogates or with some too many."""
        if self.cells[0] > self.cells[1]:
            yield "cells", "Give the fewest first."
        if self.channels % 4:
            yield "channels", "Give a multiple of 4."
        if self.mode == "train-free" and self.surrogates:
            yield "surrogates", "The train-free mode learns from none: set mode=learned or mode=optimised."
        if self.mode != "train-free" and len(set(self.surrogates)) < FEWEST_SURROGATES:
            yield (
                "surrogates",
                f"{len(set(self.surrogates))} different surrogates are too few: what is learned from one recogniser "
                f"serves that one. Name {FEWEST_SURROGATES} at least: --set surrogates=first,second,third.",
            )

    @classmethod
    def accurate(cls) -> LocalFeaturesConfig:
        """Nearer to the accuracy of unprotected photos, and to how they look."""
        return cls(sigma=8.0, window=12.0, gain=0.18, chroma=0.1, noise=0.0)

    @classmethod
    def optimised(cls) -> LocalFeaturesConfig:
        """Faces of nobody whose texture tells three recognisers that ship with Bauta who it is."""
        return cls(mode="optimised", bits=8, surrogates=("mobilefacenet", "chip_resnet", "dlib_resnet"))


def local_detail(images: Tensor, config: LocalFeaturesConfig) -> Tensor:
    """The local part h: what a blur takes away, brought to one contrast.

    Args:
        images: (N, 3, H, W) in [0, 1].
        config: Its sigma, window, gain, floor and colour.

    Returns:
        (N, 1, H, W), or (N, 3, H, W) with colour; about 0.
    """
    source = images if config.colour else luminance(images)
    fine = source - gaussian_blur(source, config.sigma)
    contrast = gaussian_blur(fine.square().mean(1, keepdim=True), config.window).clamp_min(0).sqrt()
    return config.gain * fine / (contrast + config.floor)


def random_field(count: int, config: LocalFeaturesConfig, draws: Draws) -> Tensor:
    """The global part g, which no face has a say in.

    Each face has its own number of cells; brightness has mean `level` and deviation `field` exactly, before clipping,
    and colours are differences from it.

    Args:
        count: N.
        config: Its level, field, chroma, cells, patches and patch.
        draws: Randomness.

    Returns:
        (N, 3, 112, 112).
    """
    low, high = config.cells
    grids = draws.normal(count, 4, high, high)
    sizes = draws.whole(low, high, count)
    smooth = torch.empty(count, 4, SIDE, SIDE)
    for cells in range(low, high + 1):
        chosen = sizes == cells
        if bool(chosen.any()):
            corner = grids[chosen][:, :, :cells, :cells]
            smooth[chosen] = functional.interpolate(corner, (SIDE, SIDE), mode="bicubic", align_corners=False)
    smooth = smooth - smooth.mean((2, 3), keepdim=True)
    smooth = smooth / smooth.std((2, 3), keepdim=True, correction=0).clamp_min(1e-6)
    brightness, colours = smooth[:, :1], smooth[:, 1:] - smooth[:, 1:].mean(1, keepdim=True)
    field = config.level + config.field * brightness + config.chroma * colours
    if config.patches:
        field = field + config.patches * _squares(draws.normal(count, 1, *_grid(config)), config)
    return field


def compose(images: Tensor, config: LocalFeaturesConfig, draws: Draws) -> tuple[Tensor, Tensor]:
    """Field, detail, dropout and noise together: the train-free image before its bits are cut, and the field.

    Args:
        images: (N, 3, 112, 112) in [0, 1].
        config: Settings.
        draws: Randomness, from the CPU.

    Returns:
        (N, 3, 112, 112) in [0, 1], and the field (N, 3, 112, 112), on the images' device.
    """
    count = len(images)
    detail = local_detail(images, config)
    field = random_field(count, config, draws)
    if config.dropout:
        kept = (draws.uniform(count, 1, *_grid(config)) >= config.dropout).float()
        detail = detail * _squares(kept, config).to(images.device)
    field = field.to(images.device)
    mixed = field + detail
    if config.noise:
        mixed = mixed + config.noise * draws.normal(count, 1, SIDE, SIDE).to(images.device)
    return mixed.clamp(0, 1), field


def cut_bits(images: Tensor, bits: int) -> Tensor:
    """The nearest of 2^bits levels, and of those that 8 bits can store."""
    levels = (1 << bits) - 1
    coarse = (images * levels).round() / levels
    cut: Tensor = (coarse * NOISE_LEVELS).round() / NOISE_LEVELS
    return cut


def _grid(config: LocalFeaturesConfig) -> tuple[int, int]:
    side = -(-SIDE // config.patch)
    return side, side


def _squares(values: Tensor, config: LocalFeaturesConfig) -> Tensor:
    """Each number as a square of the image."""
    return values.repeat_interleave(config.patch, 2).repeat_interleave(config.patch, 3)[:, :, :SIDE, :SIDE]
