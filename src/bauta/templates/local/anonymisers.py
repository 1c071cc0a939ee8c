"""The learned mode of local features: a network that finishes the train-free image, and its adversary.

The abstract of arXiv 2412.08276 has adversarial learning with irreversible stochastic injection; architecture and
losses are our design::

    anonymiser, one step:
        10  mean over surrogates of 1 - cos(f(y), f(x))
      +  1  distance of an early layer's answer to the high bands of y and x
      +  2  [least change - (1 - SSIM of the low bands of y and x)]+
      +  1  - min(|R(y) - x|, enough)                             the adversary shall not recover the face
      + .5  [least spread - |y - y'| / |g - g'|]+ + 1 - cos(f(y), f(y'))     y and y' are two draws
    adversary R, `recoveries` steps: |R(y) - x|

A perceptual distance (LPIPS) beside SSIM and the absolute error would be natural; the package carries no such network.
The anonymiser sees nothing of the face but the train-free image, in which dropout and noise are done: it cannot bring
back what they took.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.faces.crops import retemplate
from bauta.learning.decoders import start_decoder
from bauta.learning.learners import Batch, Epochs, Learner, Rate, Schedule, require_finite, train
from bauta.objectives.transports import gaussian_blur
from bauta.objectives.visibility import luminance, ssim_map
from bauta.progress import Progress
from bauta.recognizers.splits import Front, list_cuts, split_recognizer
from bauta.recognizers.surrogates import Surrogate
from bauta.settings import Range, Settings, Weight
from bauta.templates.advface.shadows import CALIBRATION
from bauta.templates.base import find_device
from bauta.templates.draws import Draws
from bauta.templates.fit import as_images, digest_of_pixels
from bauta.templates.local.composition import LocalFeaturesConfig, compose, cut_bits

EARLY_SIDE = 28  # of the layer in which local detail is compared, at least

_LEVELS = 4


@dataclass(frozen=True)
class Losses(Settings):
    """Weights of the terms, and where they are satisfied.

    Attributes:
        identity: Of the surrogates' distance between output and face.
        local: Of the distance of early features.
        overall: Of the low bands' likeness.
        adversary: Of what the adversary recovers.
        stochastic: Of the dependence on the draws, and of the identity's independence of them.
        change: 1 - SSIM of the low bands from which on nothing more is asked.
        enough: Mean absolute error of the adversary from which on nothing more is asked.
        spread: Difference of two outputs, as a share of their fields' difference, from which on nothing more is asked.
        recoveries: Steps of the adversary for one of the anonymiser.
        adversary_channels: Width of the adversary.
    """

    title: ClassVar[str] = "the anonymiser's losses"
    identity: Weight = 10.0
    local: Weight = 1.0
    overall: Weight = 2.0
    adversary: Weight = 1.0
    stochastic: Weight = 0.5
    change: Weight = 0.7
    enough: Weight = 0.35
    spread: Weight = 0.5
    recoveries: Annotated[int, Range(at=0, to=100)] = 2
    adversary_channels: Annotated[int, Range(at=4, to=1024)] = 16

    def problems(self) -> Iterator[tuple[str, str]]:
        """Widths that the network has not."""
        if self.adversary_channels % 4:
            yield "adversary_channels", "Give a multiple of 4."


@dataclass(frozen=True)
class AnonymiserTraining(Settings):
    """How the anonymiser learns.

    Attributes:
        epochs: Passes over the images.
        batch: Images in a step.
        rate: Adam's learning rate at the start.
        losses: Weights of the terms.
    """

    title: ClassVar[str] = "the training of local features"
    epochs: Epochs = 10
    batch: Batch = 16
    rate: Rate = 2e-4
    losses: Losses = field(default_factory=Losses)


class _Noisy(nn.Module):
    """A convolution, then noise of a learned strength for each channel, as StyleGAN injects it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.strength = nn.Parameter(torch.full((1, outputs, 1, 1), 0.1))

    def forward(self, image: Tensor, draws: Draws) -> Tensor:
        image = self.convolution(image)
        noise = draws.normal(len(image), 1, *image.shape[2:]).to(image.device)
        return functional.leaky_relu(image + self.strength * noise, 0.2)


class Anonymiser(nn.Module):
    """A U-Net of four levels with noise at each; it begins by changing nothing.

    Args:
        channels: Width of the first level; each further one doubles it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels << level for level in range(_LEVELS)]
        self.down = nn.ModuleList(_Noisy(*pair) for pair in zip([7, *widths], widths, strict=False))
        self.up = nn.ModuleList(_Noisy(3 * width, width) for width in widths[-2::-1])
        self.change = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.change.weight)
        assert self.change.bias is not None
        nn.init.zeros_(self.change.bias)

    def forward(self, mixed: Tensor, field: Tensor, draws: Draws) -> Tensor:
        """(N, 3, H, W) to add to the train-free image, before it is bounded.

        Args:
            mixed: (N, 3, H, W) train-free image; sides divide by 8.
            field: (N, 3, H, W) its field.
            draws: Of the noise.
        """
        noise = draws.normal(len(mixed), 1, *mixed.shape[2:]).to(mixed.device)
        image = torch.cat([mixed - 0.5, field - 0.5, 0.1 * noise], 1)
        kept: list[Tensor] = []
        for layer in self.down:
            image = layer(functional.avg_pool2d(image, 2) if kept else image, draws)
            kept.append(image)
        for layer, before in zip(self.up, kept[-2::-1], strict=True):
            image = functional.interpolate(image, scale_factor=2, mode="nearest")
            image = layer(torch.cat([image, before], 1), draws)
        change: Tensor = self.change(image)
        return change


class _AdversarialTraining(Learner):
    """One step of the anonymiser, then some of the adversary, on the same images."""

    def __init__(
        self,
        config: LocalFeaturesConfig,
        losses: Losses,
        surrogates: Sequence[Surrogate],
        pixels: Tensor,
        schedule: Schedule,
        device: torch.device,
    ) -> None:
        self.config, self.losses, self.pixels, self.device = config, losses, pixels, device
        self.early = _early_layers(surrogates[0]) if losses.local else None  # cut where it is, then moved with it
        self.surrogates = [surrogate.to(device) for surrogate in surrogates]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(schedule.seed)
            self.anonymiser = Anonymiser(config.channels)
        index = torch.arange(0, len(pixels), max(1, len(pixels) // CALIBRATION))[:CALIBRATION]
        some = as_images(pixels[index])
        draws = Draws(torch.Generator().manual_seed(schedule.seed))
        with torch.no_grad():
            mixed = compose(some, config, draws)[0]
        self.adversary = start_decoder("unet", mixed, some.mean(0), losses.adversary_channels, schedule.seed)
        self.networks = {"anonymiser": self.anonymiser.to(device), "adversary": self.adversary.to(device)}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=schedule.rate, betas=(0.5, 0.999))
            for name, network in self.networks.items()
        }

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        images = as_images(self.pixels[index]).to(self.device)
        mirrored = torch.rand(len(images), 1, 1, 1, generator=generator).to(self.device) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
        draws = Draws(generator)
        first, field = self._output(images, draws)
        second, other_field = self._output(images, draws)
        which = int(torch.randint(len(self.surrogates), (), generator=generator))
        terms = self._terms(images, first, second, (field - other_field).abs().mean(), which)
        numbers = require_finite(terms)
        self._descend("anonymiser", torch.stack(list(terms.values())).sum())
        seen = (first.detach(), second.detach())
        for turn in range(self.losses.recoveries):
            error = (self.adversary(seen[turn % 2]) - images).abs().mean()
            numbers |= require_finite({"recovery": error})
            self._descend("adversary", error)
        return numbers

    def _output(self, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The output, through whose levels gradients pass, and its field."""
        mixed, field = compose(images, self.config, draws)
        change = torch.tanh(self.anonymiser(mixed, field, draws))
        made = (mixed + self.config.reach * change).clamp(0, 1)
        return made + (cut_bits(made, self.config.bits) - made).detach(), field

    def _terms(self, images: Tensor, first: Tensor, second: Tensor, apart: Tensor, which: int) -> dict[str, Tensor]:
        losses, found = self.losses, {}
        answers = [self._embed(one, first) for one in self.surrogates]
        with torch.no_grad():
            wanted = [self._embed(one, images) for one in self.surrogates]
        distances = [1 - (one * other).sum(1).mean() for one, other in zip(answers, wanted, strict=True)]
        found["identity"] = losses.identity * torch.stack(distances).mean()
        if self.early is not None:
            with torch.no_grad():
                fine = self.early(self._high(images))
            difference = (self.early(self._high(first)) - fine).abs().mean()
            found["local"] = losses.local * difference / fine.abs().mean().clamp_min(1e-6)
        if losses.overall:
            likeness = ssim_map(gaussian_blur(first, self.config.sigma), gaussian_blur(images, self.config.sigma))
            found["overall"] = losses.overall * (losses.change - (1 - likeness.mean())).clamp_min(0)
        if losses.adversary:
            self.adversary.requires_grad_(False)
            error = (self.adversary(first) - images).abs().mean()
            self.adversary.requires_grad_(True)
            found["adversary"] = -losses.adversary * error.clamp_max(losses.enough)
        if losses.stochastic:
            spread = (first - second).abs().mean() / apart.clamp_min(1e-6)
            constant = 1 - (answers[which] * self._embed(self.surrogates[which], second)).sum(1).mean()
            found["stochastic"] = losses.stochastic * ((losses.spread - spread).clamp_min(0) + constant)
        return found

    def _descend(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def _embed(self, surrogate: Surrogate, images: Tensor) -> Tensor:
        embeddings: Tensor = surrogate(retemplate(images, surrogate.card.template))
        return embeddings

    def _high(self, images: Tensor) -> Tensor:
        """The high band in grey, on the first surrogate's crops."""
        grey = luminance(images)
        fine = 0.5 + (grey - gaussian_blur(grey, self.config.sigma)).expand(-1, 3, -1, -1)
        return retemplate(fine, self.surrogates[0].card.template)


def fit_anonymiser(
    config: LocalFeaturesConfig,
    losses: Losses,
    surrogates: Sequence[Surrogate],
    pixels: Tensor,
    schedule: Schedule,
    *,
    device: str = "cpu",
    work: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Anonymiser, dict[str, float]]:
    """Train the anonymiser, or go on training it.

    Args:
        config: Settings of the protector, in the learned mode.
        losses: Weights.
        surrogates: Three or more recognisers.
        pixels: (N, 3, 112, 112) uint8, or float32 in [0, 1].
        schedule: How long and how fast.
        device: Where.
        work: Folder of the checkpoint.
        progress: See `bauta.learning.learners.train`.

    Returns:
        The network on the CPU in evaluation mode, and the figures of the training.

    Raises:
        UsageError: when there is no such device, or the checkpoint is of others.
        NumericalFailure: when a loss is not a number; the checkpoint keeps the last good state.
    """
    learner = _AdversarialTraining(config, losses, surrogates, pixels, schedule, find_device(device))
    hashes = [surrogate.card.sha256 for surrogate in surrogates]
    facts = [config.to_dict(), losses.to_dict(), hashes, digest_of_pixels(pixels)]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    name = f"anonymiser-{key[:12]}"
    figures = train(learner, len(pixels), schedule, key=key, work=work, name=name, progress=progress)
    for surrogate in learner.surrogates:
        surrogate.to("cpu")
    return learner.anonymiser.to("cpu"), figures


def _early_layers(surrogate: Surrogate) -> Front | None:
    """The surrogate up to the deepest place where it can be cut and maps are still large; None where there is none."""
    sides = [cut for cut in list_cuts(surrogate) if len(cut.shape) == 3 and min(cut.shape[1:]) >= EARLY_SIDE]
    return split_recognizer(surrogate, sides[-1].name)[0] if sides else None
