"""The families of recognisers that we train, from nothing or from public weights (`bauta.training.starts`).

Every network maps normalised crops (N, 3, height, width) to embeddings (N, dim) that are not unit length.
At run time none of this is needed: a trained network is exported and packed (`bauta.recognizers.packed`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bauta.errors import UsageError
from bauta.recognizers.dlib_resnet import DlibResNet
from bauta.training.starts import STARTS, take_start


def build_network(family: str, dim: int, *, start: str = "nothing") -> nn.Module:
    """A network to train.

    Args:
        family: A name in `FAMILIES`.
        dim: Length of the embedding.
        start: ``nothing``, or public weights of that family from `bauta.training.starts.STARTS`.

    Raises:
        UsageError: when there is no such family or it cannot start there.
        WeightsMissing: when those weights are not here and cannot be fetched.
    """
    if family not in FAMILIES:
        raise UsageError(f"No family of networks is called {family!r}.", hint=f"There is: {', '.join(FAMILIES)}.")
    if start != "nothing" and (start not in STARTS or STARTS[start].family != family):
        starts = ", ".join(f"{name} for {entry.family}" for name, entry in STARTS.items())
        raise UsageError(f"{family!r} cannot start from {start!r}.", hint=f"There is: {starts}.")
    network = FAMILIES[family](dim)
    if start != "nothing":
        take_start(network, start)
    return network


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def _embedding(channels: int, side: int, dim: int) -> list[nn.Module]:
    """A weight for each place of the last map, as MobileFaceNet's global depthwise convolution, and a projection."""
    return [
        nn.Conv2d(channels, channels, side, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Linear(channels, dim, bias=False),
        nn.BatchNorm1d(dim),
    ]


def features_of(network: nn.Module) -> nn.Sequential:
    """The part of a network before its embedding, of the families that are a row of layers."""
    assert isinstance(network, nn.Sequential), "the recipe says which families have one"
    return nn.Sequential(*list(network)[: -len(_embedding(1, 1, 1))])


def _resnet(dim: int) -> nn.Module:
    """dlib's network (King 2017) with another head; it reads crops of 150 pixels."""
    network = DlibResNet()
    network.head = nn.Linear(network.head.in_features, dim, bias=False)
    return network


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *_convolution(inputs, inner, 1),
            nn.PReLU(inner),
            *_convolution(inner, inner, 3, stride=stride, groups=inner),
            nn.PReLU(inner),
            *_convolution(inner, outputs, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        changed: Tensor = self.layers(image)
        return image + changed if self.shortcut else changed


def _mobilefacenet(dim: int) -> nn.Module:
    """MobileFaceNet (Chen et al. 2018, table 1) for crops of 112 pixels."""
    layers: list[nn.Module] = [
        *_convolution(3, 64, 3, stride=2),
        nn.PReLU(64),
        *_convolution(64, 64, 3, groups=64),
        nn.PReLU(64),
    ]
    inputs = 64
    for expansion, outputs, count, stride in (
        (2, 64, 5, 2),
        (4, 128, 1, 2),
        (2, 128, 6, 1),
        (4, 128, 1, 2),
        (2, 128, 2, 1),
    ):
        for position in range(count):
            layers.append(
                _InvertedResidual(inputs, outputs, stride=stride if position == 0 else 1, expansion=expansion)
            )
            inputs = outputs
    layers += [*_convolution(128, 512, 1), nn.PReLU(512)]
    return nn.Sequential(*layers, *_embedding(512, 7, dim))


class _MobileNet(nn.Module):
    """MobileNet (Howard et al. 2017) for crops of 112 pixels, of SFace's sizes, with a lighter end.

    SFace projects its last map, 1024 channels of 7x7, with 6.4 million weights. Here each channel weighs its places
    first, as in MobileFaceNet, which leaves 0.2 million.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, 32, 3), nn.PReLU(32)]
        inputs = 32
        for outputs, stride in (
            (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1),
        ):  # fmt: skip
            layers += [
                *_convolution(inputs, inputs, 3, stride=stride, groups=inputs),
                nn.PReLU(inputs),
                *_convolution(inputs, outputs, 1),
                nn.PReLU(outputs),
            ]
            inputs = outputs
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(inputs))
        self.places = nn.Conv2d(inputs, inputs, 7, groups=inputs, bias=False)
        nn.init.constant_(self.places.weight, 1 / 49)
        self.head = nn.Linear(inputs, dim)

    def forward(self, image: Tensor) -> Tensor:
        embedding: Tensor = self.head(self.places(self.features(image)).flatten(1))
        return embedding


def _plain(dim: int) -> nn.Module:
    """Convolutions of 3x3 in a row, without shortcuts (after VGG), for crops of 112 pixels. Our sizes."""
    layers: list[nn.Module] = [*_convolution(3, 32, 5, stride=2), nn.PReLU(32)]
    inputs = 32
    for outputs, count in ((64, 2), (128, 3), (256, 3)):
        for position in range(count):
            layers += [*_convolution(inputs, outputs, 3, stride=2 if position == 0 else 1), nn.PReLU(outputs)]
            inputs = outputs
    return nn.Sequential(*layers, *_embedding(256, 7, dim))


class _ChannelNorm(nn.Module):
    """Layer normalisation over the channels of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor) -> Tensor:
        normalised: Tensor = self.norm(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normalised


class _ConvNextBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            _ChannelNorm(channels),
            nn.Conv2d(channels, 4 * channels, 1),
            nn.GELU(),
            nn.Conv2d(4 * channels, channels, 1),
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, image: Tensor) -> Tensor:
        changed: Tensor = image + self.scale * self.layers(image)
        return changed


def _convnext(dim: int) -> nn.Module:
    """ConvNeXt (Liu et al. 2022) with a patch stem of 4x4, for crops of 128 pixels. Our sizes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, stride=4), _ChannelNorm(64)]
    inputs = 64
    for outputs, count in ((64, 2), (128, 2), (256, 4)):
        if outputs != inputs:
            layers += [_ChannelNorm(inputs), nn.Conv2d(inputs, outputs, 2, stride=2)]
        layers += [_ConvNextBlock(outputs) for _ in range(count)]
        inputs = outputs
    return nn.Sequential(*layers, *_embedding(256, 8, dim))


FAMILIES: dict[str, Callable[[int], nn.Module]] = {
    "resnet": _resnet,
    "mobilefacenet": _mobilefacenet,
    "mobilenet": _MobileNet,
    "plain": _plain,
    "convnext": _convnext,
}
