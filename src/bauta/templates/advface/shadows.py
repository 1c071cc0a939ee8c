"""Shadow decoders: what a protector trains to know how a thief would turn its features into faces.

They learn as section 3 of AdvFace is understood: mean squared error between decoded and true image, on public faces of
people whom the protector will never store. Architecture, schedule and the noisy variant are our design.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import UsageError
from bauta.learning.decoders import Decoder, start_decoder
from bauta.learning.learners import CPU, Learner, Schedule, require_finite, train
from bauta.progress import Progress
from bauta.settings import Range, Settings
from bauta.templates.fit import as_images, digest_of_pixels

CALIBRATION = 256  # faces from which the statistics of features are taken

_CHUNK = 32
_SHADOW = re.compile(r"([a-z]+)(?:-(\d{1,4}))?(?:-noise-(\d+(?:\.\d+)?))?")

Features = Callable[[Tensor], Tensor]
"""(N, 3, 112, 112) in [0, 1] to features (N, ...) on the same device, without a gradient."""


@dataclass(frozen=True)
class Shadow(Settings):
    """One shadow decoder to train.

    Attributes:
        decoder: Its network.
        channels: Width of the network.
        noise: Standard deviation of Gaussian noise on the features it learns from, in standard deviations of each
            channel. Above 0 it stands for a thief who has learned from protected features.
    """

    title: ClassVar[str] = "a shadow decoder"
    decoder: Decoder = "residual"
    channels: Annotated[int, Range(at=4, to=1024)] = 32
    noise: Annotated[float, Range(at=0, to=10)] = 0.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """Widths that the network has not."""
        if self.channels % 4:
            yield "channels", "Give a multiple of 4."

    @classmethod
    def parse(cls, text: str) -> Shadow:
        """The shadow of a text such as ``residual``, ``unet-48`` or ``unet-32-noise-0.5``.

        Raises:
            UsageError: when it has another form.
        """
        parts = _SHADOW.fullmatch(text)
        if parts is None:
            raise UsageError(f"{text!r} is not a shadow decoder.", hint="Write residual, unet-48 or unet-32-noise-0.5.")
        name, channels, noise = parts.groups()
        return cls(cast(Any, name), int(channels or cls.channels), float(noise or 0))

    def __str__(self) -> str:
        return f"{self.decoder}-{self.channels}" + (f"-noise-{self.noise:g}" if self.noise else "")


class _Regression(Learner):
    """The squared error of decoded faces, each mirrored half of the times."""

    def __init__(
        self, shadow: Shadow, features: Features, pixels: Tensor, schedule: Schedule, device: torch.device
    ) -> None:
        values, mean_face = calibration(features, pixels)
        self.device = device
        self.network = start_decoder(shadow.decoder, values, mean_face, shadow.channels, schedule.seed).to(device)
        self.spread = (shadow.noise * channel_std(values)).to(device)
        self.features, self.pixels = features, pixels
        self.networks = {"decoder": self.network}
        self.optimizers = {"decoder": torch.optim.Adam(self.network.parameters(), lr=schedule.rate)}

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        images = as_images(self.pixels[index])
        mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
        images = images.to(self.device)
        values = self.features(images)
        values = values + self.spread * torch.randn(values.shape, generator=generator).to(self.device)
        loss = functional.mse_loss(self.network(values), images)
        losses = require_finite({"squared error": loss})
        optimizer = self.optimizers["decoder"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return losses


def fit_shadow(
    shadow: Shadow,
    features: Features,
    pixels: Tensor,
    schedule: Schedule,
    *,
    key: str,
    device: torch.device = CPU,
    work: Path | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Sequential, dict[str, float]]:
    """Train a shadow decoder, or go on training it.

    Args:
        shadow: What to train.
        features: What the recogniser makes of faces.
        pixels: (N, 3, 112, 112) uint8, or float32 in [0, 1].
        schedule: How long and how fast.
        key: What `features` is.
        device: Where to learn; the recogniser behind `features` must be there.
        work: Folder of the checkpoint.
        progress: See `bauta.learning.learners.train`.

    Returns:
        The decoder in evaluation mode, on the CPU, and the figures of the training.

    Raises:
        UsageError: when there are too few faces, or the checkpoint is of others.
        NumericalFailure: when the loss is not a number; the checkpoint keeps the last good state.
    """
    learner = _Regression(shadow, features, pixels, schedule, device)
    whole = f"{key} {shadow.to_dict()} {digest_of_pixels(pixels)}"
    figures = train(learner, len(pixels), schedule, key=whole, work=work, name=f"shadow-{shadow}", progress=progress)
    return learner.network.cpu(), figures


def calibration(features: Features, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Features (n, ...) of at most `CALIBRATION` faces, spread evenly over the set, and their mean face."""
    index = torch.arange(0, len(pixels), max(1, len(pixels) // CALIBRATION))[:CALIBRATION]
    parts = [as_images(pixels[part]) for part in index.split(_CHUNK)]  # type: ignore[no-untyped-call]
    return torch.cat([features(part) for part in parts]), torch.cat(parts).mean(0)


def channel_std(values: Tensor) -> Tensor:
    """(1, C, 1, ...) standard deviation of each channel, or of each entry of vectors, over faces and places."""
    return values.std([0, *range(2, values.dim())], keepdim=True, correction=0)
