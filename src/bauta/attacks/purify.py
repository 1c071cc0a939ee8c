"""Purifiers: what an attacker does to photos before they are recognised, in the hope that it undoes a mask.

None knows anything of the protection. Each also costs something on clean photos, which results show beside it. What is
whose:

- ``purify-blur``: Gaussian blur.
- ``purify-jpeg``: recompression, as Dziugaite et al. 2016 studied it.
- ``purify-bit-depth``: fewer grey levels (Xu et al. 2018, feature squeezing).
- ``purify-total-variation``: the image of least total variation nearby (Rudin, Osher and Fatemi 1992), by Chambolle's
  projection (2004), each channel by itself. Guo et al. 2018 also drop pixels; this does not.
- ``purify-denoiser``: a network of 4 convolutions on 2x2 blocks of pixels after FFDNet (Zhang et al. 2018), with the
  residual of DnCNN and no noise level to be given; trained on clean faces with noise and blur that know no recogniser.

The strengths are ours.
"""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from bauta.attacks.cards import AttackerCard
from bauta.errors import UsageError, WeightsCorrupt
from bauta.objectives.transports import gaussian_blur
from bauta.registry import MethodCard, register
from bauta.settings import Range, Settings

ByteArray = NDArray[np.uint8]

_BATCH = 32


class Purifier(Protocol):
    """From photos to photos.

    Attributes:
        card: Its entry in the registry.
    """

    card: ClassVar[MethodCard]

    @property
    def attacker(self) -> AttackerCard:
        """What results say of it."""

    def purify(self, photos: ByteArray) -> ByteArray:
        """Photos (N, H, W, 3) uint8 RGB, purified, in the same form.

        Raises:
            UsageError: when they have another form.
        """


@dataclass(frozen=True)
class _Purifier(Settings, ABC):
    """What those here have in common."""

    title: ClassVar[str] = "a purifier"
    card: ClassVar[MethodCard]

    @property
    def attacker(self) -> AttackerCard:
        """What results say of it."""
        return AttackerCard(self.card.name, "nothing", adaptive=False, paper=self.card.paper, ours="its strength")

    def purify(self, photos: ByteArray) -> ByteArray:
        """Photos (N, H, W, 3) uint8 RGB, purified, in the same form.

        Raises:
            UsageError: when they have another form.
        """
        if photos.ndim != 4 or photos.shape[3] != 3 or photos.dtype != np.uint8 or min(photos.shape[1:3]) < 8:
            raise UsageError(
                f"Photos of shape {photos.shape} and type {photos.dtype} cannot be purified.",
                hint="Give (N, H, W, 3) uint8 with sides of at least 8 pixels.",
            )
        parts = [self._purified(photos[start : start + _BATCH]) for start in range(0, len(photos), _BATCH)]
        return np.ascontiguousarray(np.concatenate(parts)) if parts else photos.copy()

    @abstractmethod
    def _purified(self, photos: ByteArray) -> ByteArray:
        """A batch of them."""


@dataclass(frozen=True)
class _Differentiable(_Purifier):
    """A purifier that is a function of float images."""

    def _purified(self, photos: ByteArray) -> ByteArray:
        part = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            changed = self._change(part)
        purified: ByteArray = (changed.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return purified

    @abstractmethod
    def _change(self, photos: Tensor) -> Tensor:
        """Photos (N, 3, H, W) in [0, 1], changed."""


@register("purify-blur", kind="purifier")
@dataclass(frozen=True)
class BlurPurifier(_Differentiable):
    """Gaussian blur.

    Attributes:
        sigma: Standard deviation in pixels.
    """

    sigma: Annotated[float, Range(above=0, to=20)] = 1.0

    def _change(self, photos: Tensor) -> Tensor:
        return gaussian_blur(photos, self.sigma)


@register("purify-bit-depth", kind="purifier")
@dataclass(frozen=True)
class BitDepthPurifier(_Differentiable):
    """Rounds every channel to fewer levels.

    Attributes:
        bits: Of a channel; 4 leave 16 levels.
    """

    bits: Annotated[int, Range(at=1, to=8)] = 4

    def _change(self, photos: Tensor) -> Tensor:
        steps = 2**self.bits - 1
        rounded: Tensor = (photos * steps).round() / steps
        return rounded


@register("purify-total-variation", kind="purifier")
@dataclass(frozen=True)
class TotalVariationPurifier(_Differentiable):
    """Least ``TV(u) + |u - photo|^2 / (2 weight)``.

    Attributes:
        weight: How smooth, for photos in [0, 1].
        iterations: Of the projection.
    """

    weight: Annotated[float, Range(above=0, to=10)] = 0.1
    iterations: Annotated[int, Range(at=1, to=10_000)] = 100

    def _change(self, photos: Tensor) -> Tensor:
        return total_variation(photos, self.weight, self.iterations)


@register("purify-jpeg", kind="purifier")
@dataclass(frozen=True)
class JpegPurifier(_Purifier):
    """Recompression by Pillow's encoder.

    Attributes:
        quality: Of libjpeg.
    """

    quality: Annotated[int, Range(at=1, to=95)] = 50

    def _purified(self, photos: ByteArray) -> ByteArray:
        changed = photos.copy()
        for number, photo in enumerate(photos):
            stream = io.BytesIO()
            Image.fromarray(photo).save(stream, "JPEG", quality=self.quality)
            with Image.open(stream, formats=["JPEG"]) as image:
                changed[number] = np.asarray(image.convert("RGB"))
        return changed


@register("purify-denoiser", kind="purifier")
@dataclass(frozen=True)
class DenoiserPurifier(_Differentiable):
    """The network that ships with Bauta; `denoiser.json` says what it was trained on."""

    @property
    def attacker(self) -> AttackerCard:
        """What results say of it."""
        return AttackerCard(**denoiser_card()["attacker"])

    def _change(self, photos: Tensor) -> Tensor:
        changed: Tensor = _denoiser()(photos)
        return changed


class Denoiser(nn.Module):
    """Images (N, 3, H, W) in [0, 1] of any size to such images; about 64,000 weights at the width that ships.

    Args:
        width: Channels of the inner convolutions.
        depth: Convolutions between the first and the last.
    """

    def __init__(self, width: int = 56, depth: int = 2) -> None:
        super().__init__()
        inner: list[nn.Module] = []
        for _ in range(depth):
            inner += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(
            nn.Conv2d(12, width, 3, padding=1), nn.ReLU(), *inner, nn.Conv2d(width, 12, 3, padding=1)
        )

    def forward(self, photos: Tensor) -> Tensor:
        """The photos without what the network takes for noise."""
        height, width = photos.shape[-2:]
        padded = functional.pad(photos, (0, width % 2, 0, height % 2), mode="replicate")
        noise = functional.pixel_shuffle(self.layers(functional.pixel_unshuffle(padded, 2)), 2)
        return photos - noise[..., :height, :width]


def total_variation(photos: Tensor, weight: float, iterations: int) -> Tensor:
    """Chambolle's projection, each channel of (N, C, H, W) by itself, with steps of a quarter."""
    down, right = torch.zeros_like(photos), torch.zeros_like(photos)
    result = photos
    for _ in range(iterations):
        slope_down = functional.pad(result[..., 1:, :] - result[..., :-1, :], (0, 0, 0, 1))
        slope_right = functional.pad(result[..., :, 1:] - result[..., :, :-1], (0, 1, 0, 0))
        length = 1 + (slope_down.square() + slope_right.square()).sqrt() / (4 * weight)
        down, right = (down - slope_down / 4) / length, (right - slope_right / 4) / length
        divergence = (
            functional.pad(down[..., :-1, :], (0, 0, 1, 0))
            - down
            + functional.pad(right[..., :, :-1], (1, 0, 0, 0))
            - right
        )
        result = photos + divergence
    return result


@cache
def denoiser_card() -> dict[str, Any]:
    """What is known of the shipped denoiser: its attacker card, SHA-256, licence and how it was made."""
    text = files("bauta.attacks").joinpath("denoiser.json").read_text(encoding="utf-8")
    card: dict[str, Any] = json.loads(text)
    return card


@cache
def _denoiser() -> Denoiser:
    content = files("bauta.attacks").joinpath("denoiser.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != denoiser_card()["sha256"]:
        raise WeightsCorrupt("The denoiser's weights are not those of its card.", hint="Install Bauta again.")
    network = Denoiser()
    try:
        network.load_state_dict({name: value.float() for name, value in safetensors.torch.load(content).items()})
    except (SafetensorError, RuntimeError) as error:
        raise WeightsCorrupt(f"The denoiser cannot be read: {error}", hint="Install Bauta again.") from error
    return network.eval().requires_grad_(False)
