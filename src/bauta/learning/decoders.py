"""Decoders: networks that turn what a service stores into the face.

A protector has some as *shadows* of the decoders that an attacker might train, and attackers have their own. They read
maps (C, H, W) and, where that makes sense, vectors (D,):

- ``unet``: recovery by a U-Net (Ronneberger et al. 2015), the attacker of MinusFace and PartialFace, who train one of
  64 to 1024 channels with an L1 loss. Ours halves at most three times and is as wide as one asks for.
- ``residual``: residual blocks and sub-pixel convolutions. Our design.
- ``deconvolution``: transposed convolutions, each followed by three convolutions with a shortcut, on the sides 4, 8,
  16, 30, 58, 112 for vectors: the decoder of the template-inversion line after NbNet (Mai et al. 2018), as its public
  successors train it. Where they leave a number open it is ours.

All begin at the mean of the faces they learn from and learn the difference from it, which is ours.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bauta.errors import UsageError

SIDE = 112
Decoder = Literal["unet", "residual", "deconvolution"]

_SIDES = (112, 56, 28, 14, 7)


def start_decoder(decoder: Decoder, values: Tensor, mean_face: Tensor, channels: int, seed: int) -> nn.Sequential:
    """A new decoder: it standardises representations, and adds what it sees in them to the mean face.

    Args:
        decoder: Its network.
        values: (N, ...) representations to take mean and deviation from.
        mean_face: (3, 112, 112) in [0, 1].
        channels: Width of the network.
        seed: Of the weights.

    Raises:
        UsageError: when the decoder does not suit the shape.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_decoder(decoder, tuple(values.shape[1:]), channels)
    # Channels last is 10 to 15 % faster on CPUs.
    decoder_of_faces = nn.Sequential(Standardise(values), network, Face(mean_face))
    return decoder_of_faces.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def build_decoder(decoder: Decoder, shape: tuple[int, ...], channels: int) -> nn.Module:
    """A network from (N, *shape) to logits (N, 3, 112, 112) of pixels, drawn from torch's global generator.

    Raises:
        UsageError: when the network does not suit the shape.
    """
    if len(shape) not in (1, 3):
        raise UsageError(f"No decoder reads representations of shape {list(shape)}.", hint="Give maps or vectors.")
    if len(shape) == 1:
        if decoder == "unet":
            raise UsageError("A U-Net reads maps, not vectors.", hint="Choose residual or deconvolution.")
        return _VectorResidual(shape[0], channels) if decoder == "residual" else _VectorDecoder(shape[0], channels)
    builders = {"unet": _UNet, "residual": _Residual, "deconvolution": _MapDecoder}
    return builders[decoder](shape, channels)


class Standardise(nn.Module):
    """Shifts and scales each channel (or each entry of a vector) to mean 0 and deviation 1.

    Args:
        values: (N, C, ...) to take mean and deviation from; a channel that never changes is only shifted.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        places = [0, *range(2, values.dim())]
        std = values.std(places, keepdim=True, correction=0)
        self.register_buffer("mean", values.mean(places, keepdim=True))
        self.register_buffer("scale", torch.where(std > 1e-6, std, 1.0))

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        return (values - self.mean) / self.scale


class Face(nn.Module):
    """Adds logits to those of a mean face, and makes an image of them.

    Args:
        mean_face: (3, 112, 112) in [0, 1].
    """

    start: Tensor

    def __init__(self, mean_face: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", torch.logit(mean_face.clamp(0.02, 0.98)))

    def forward(self, logits: Tensor) -> Tensor:
        """(N, 3, 112, 112) in [0, 1]."""
        return torch.sigmoid(logits + self.start)


# Networks


def _step(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _picture(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, 3, 3, padding=1)


def _usual_side(side: int) -> int:
    """The side among those that halvings of 112 give which is next to the map's."""
    return min(_SIDES, key=lambda usual: abs(usual - side))


class _Resized(nn.Module):
    """Brings a map to a side that doublings carry to 112."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.side = _usual_side(max(height, width))
        self.same = (height, width) == (self.side, self.side)

    def forward(self, image: Tensor) -> Tensor:
        if self.same:
            return image
        return functional.interpolate(image, (self.side, self.side), mode="bilinear", align_corners=False)


class _Doublings(nn.Module):
    """From a side to 112 by sub-pixel convolutions (Shi et al. 2016); channels halve, to a quarter at least."""

    def __init__(self, side: int, channels: int, least: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while side < SIDE:
            outputs = max(channels // 2, least)
            layers += [nn.Conv2d(channels, 4 * outputs, 3, padding=1), nn.PixelShuffle(2), _step(outputs, outputs)]
            side, channels = 2 * side, outputs
        self.layers = nn.Sequential(*layers)
        self.channels = channels

    def forward(self, image: Tensor) -> Tensor:
        doubled: Tensor = self.layers(image)
        return doubled


class _UNet(nn.Module):
    def __init__(self, shape: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.resized = _Resized(*shape[1:])
        widths = [channels]
        while len(widths) < 4 and self.resized.side >> (len(widths) - 1) > 7:
            widths.append(2 * widths[-1])
        self.down = nn.ModuleList(
            nn.Sequential(_step(before, width), _step(width, width))
            for before, width in zip([shape[0], *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[-2::-1])
        self.join = nn.ModuleList(_step(2 * width, width) for width in widths[-2::-1])
        self.doublings = _Doublings(self.resized.side, channels, max(channels // 4, 4))
        self.picture = _picture(self.doublings.channels)

    def forward(self, image: Tensor) -> Tensor:
        image = self.resized(image)
        kept: list[Tensor] = []
        for layer in self.down:
            image = layer(functional.max_pool2d(image, 2) if kept else image)
            kept.append(image)
        for up, join, before in zip(self.up, self.join, kept[-2::-1], strict=True):
            image = join(torch.cat([up(image), before], 1))
        picture: Tensor = self.picture(self.doublings(image))
        return picture


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _step(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        return functional.relu(image + self.layers(image))


class _Residual(nn.Module):
    def __init__(self, shape: tuple[int, ...], channels: int) -> None:
        super().__init__()
        resized = _Resized(*shape[1:])
        doublings = _Doublings(resized.side, channels, max(channels // 4, 4))
        self.layers = nn.Sequential(
            resized,
            _step(shape[0], channels),
            *(_Block(channels) for _ in range(3)),
            doublings,
            _Block(doublings.channels),
            _picture(doublings.channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        picture: Tensor = self.layers(image)
        return picture


class _VectorResidual(nn.Module):
    """A linear map to (8 channels, 7, 7), and `_Residual` from there."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.width = 8 * channels
        self.spread = nn.Linear(dim, self.width * 49)
        doublings = _Doublings(7, self.width, max(channels // 2, 4))
        self.layers = nn.Sequential(_Block(self.width), doublings, _picture(doublings.channels))

    def forward(self, vector: Tensor) -> Tensor:
        picture: Tensor = self.layers(self.spread(vector).reshape(-1, self.width, 7, 7))
        return picture


class _Deconvolution(nn.Module):
    """A transposed convolution, and three convolutions with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, padding: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.layers = nn.Sequential(*(_step(outputs, outputs) for _ in range(3)))

    def forward(self, image: Tensor) -> Tensor:
        image = self.up(image)
        refined: Tensor = image + self.layers(image)
        return refined


class _VectorDecoder(nn.Module):
    """Sides 1, 4, 8, 16, 30, 58, 112; channels 16, 8, 4, 2, 1, 1/2 times the width."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        widths = [16 * channels, 8 * channels, 4 * channels, 2 * channels, channels, channels // 2]
        self.start = nn.Sequential(
            nn.ConvTranspose2d(dim, widths[0], 4, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages = zip(widths, widths[1:], (1, 1, 2, 2, 3), strict=False)
        self.layers = nn.Sequential(*(_Deconvolution(*stage) for stage in stages), _picture(widths[-1]))

    def forward(self, vector: Tensor) -> Tensor:
        picture: Tensor = self.layers(self.start(vector[:, :, None, None]))
        return picture


class _MapDecoder(nn.Module):
    """The same for maps: as many transposed convolutions as doublings lead to 112."""

    def __init__(self, shape: tuple[int, ...], channels: int) -> None:
        super().__init__()
        resized = _Resized(*shape[1:])
        layers: list[nn.Module] = [resized, _step(shape[0], channels)]
        side, width = resized.side, channels
        while side < SIDE:
            outputs = max(width // 2, channels // 4, 4)
            layers.append(_Deconvolution(width, outputs, 1))
            side, width = 2 * side, outputs
        self.layers = nn.Sequential(*layers, *([_Block(width)] if len(layers) == 2 else []), _picture(width))

    def forward(self, image: Tensor) -> Tensor:
        picture: Tensor = self.layers(image)
        return picture


def fused(network: nn.Sequential) -> nn.Sequential:
    """The same decoder with each batch normalisation folded into the convolution before it, in evaluation mode."""
    copied = copy.deepcopy(network).eval()
    for part in list(copied.modules()):
        if isinstance(part, nn.Sequential):
            for place, (layer, following) in enumerate(pairwise(list(part))):
                if isinstance(following, nn.BatchNorm2d):
                    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
                    part[place] = fuse_conv_bn_eval(layer, following, transpose=isinstance(layer, nn.ConvTranspose2d))
                    part[place + 1] = nn.Identity()
    return copied.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]
