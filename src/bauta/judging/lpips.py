"""LPIPS v0.1 (Zhang et al. 2018) on AlexNet, with weights that the user supplies; Bauta ships none.

One safetensors file: ``conv1`` to ``conv5``, each ``.weight`` and ``.bias``, of AlexNet as trained on ImageNet, and
``lin0`` to ``lin4``, the published weights of the channels. The formula is that of the authors' package: features after
each rectifier, divided by their norm along channels, squared differences weighted and averaged over the image.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bauta.errors import UsageError

SMALLEST = 48
"""Sides below this many pixels leave the last layers nothing to look at."""

_SHAPES: dict[str, tuple[int, ...]] = {
    "conv1": (64, 3, 11, 11),
    "conv2": (192, 64, 5, 5),
    "conv3": (384, 192, 3, 3),
    "conv4": (256, 384, 3, 3),
    "conv5": (256, 256, 3, 3),
}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]


class Lpips:
    """The distance.

    Attributes:
        sha256: Of the weights.

    Args:
        path: The safetensors file.

    Raises:
        UsageError: when it cannot be read, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            content = path.read_bytes()
            found = load(content)
        except (OSError, SafetensorError) as error:
            raise UsageError(
                f"The weights of LPIPS in {path} cannot be read: {error}", hint="Give a safetensors file."
            ) from error
        wanted = {f"{name}.weight": shape for name, shape in _SHAPES.items()}
        wanted |= {f"{name}.bias": shape[:1] for name, shape in _SHAPES.items()}
        wanted |= {f"lin{place}": shape[:1] for place, shape in enumerate(_SHAPES.values())}
        wrong = [name for name, shape in wanted.items() if name not in found or tuple(found[name].shape) != shape]
        if wrong:
            raise UsageError(
                f"{path} holds no LPIPS on AlexNet: {wrong[0]} is missing or of another shape.",
                hint="It wants conv1 to conv5 with .weight and .bias, and lin0 to lin4.",
            )
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._weights = {name: value.float() for name, value in found.items()}

    @torch.no_grad()
    def distance(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        """How different two images look: 0 for equal ones, seldom above 1.

        Args:
            first: (H, W, 3) in [0, 1], sides of at least `SMALLEST` pixels.
            second: The same shape.

        Raises:
            UsageError: when they are smaller, or of different shape.
        """
        if first.shape != second.shape or min(first.shape[:2]) < SMALLEST:
            raise UsageError(
                f"LPIPS compares images of one size, at least {SMALLEST} pixels: {first.shape} and {second.shape}.",
                hint="Measure the photo.",
            )
        both = torch.from_numpy(np.stack([first, second]).astype(np.float32)).permute(0, 3, 1, 2)
        shift, scale = (torch.tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        total = 0.0
        for place, features in enumerate(self._features((both * 2 - 1 - shift) / scale)):
            unit = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
            squared = (unit[0] - unit[1]).square()
            total += float((squared * self._weights[f"lin{place}"][:, None, None]).sum(0).mean())
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        """After each of the five rectifiers."""
        found = []
        for name, stride, padding in zip(_SHAPES, (4, 1, 1, 1, 1), (2, 2, 1, 1, 1), strict=True):
            if name in ("conv2", "conv3"):
                images = functional.max_pool2d(images, 3, 2)
            weight, bias = (self._weights[f"{name}.{part}"] for part in ("weight", "bias"))
            images = functional.conv2d(images, weight, bias, stride, padding).relu()
            found.append(images)
        return found
