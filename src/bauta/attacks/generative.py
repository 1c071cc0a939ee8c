"""A conditional generative adversarial network as attacker: the decoder must also fool a critic of patches.

The decoder is one of `bauta.attacks.reconstruct`. The critic is the PatchGAN of Isola et al. 2017 ("Image-to-image
translation with conditional adversarial networks") on image and representation together, trained with the hinge loss of
Lim and Ye 2017; theirs sees the input image, ours a projection of the representation to a few channels. The weights (L1
+ 0.01 adversarial + 0.1 identity) and the sizes are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.attacks.reconstruct import (
    ImageLoss,
    Pairs,
    ReconstructionConfig,
    Reconstructor,
    begin,
)
from bauta.learning.decoders import SIDE
from bauta.learning.learners import CPU, Learner, require_finite, train
from bauta.progress import Progress
from bauta.settings import Range, Settings

_CONDITION = 8  # channels of the projected representation


@dataclass(frozen=True)
class GenerativeConfig(Settings):
    """A decoder, and a critic that it must fool.

    Attributes:
        decoder: The decoder, its other losses, and the schedule of both.
        adversarial: Weight of the critic's verdict.
        critic_channels: Width of the critic.
    """

    title: ClassVar[str] = "a decoder with a critic"
    decoder: ReconstructionConfig = field(default_factory=lambda: ReconstructionConfig(identity=0.1))
    adversarial: Annotated[float, Range(above=0, to=1000)] = 0.01
    critic_channels: Annotated[int, Range(at=4, to=512)] = 16


class PatchCritic(nn.Module):
    """Says of each patch whether it is real, given what the image is to be of.

    Args:
        shape: Of a representation: (C, H, W) or (D,).
        channels: Width.
    """

    def __init__(self, shape: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.condition = (
            nn.Conv2d(shape[0], _CONDITION, 1) if len(shape) == 3 else nn.Linear(shape[0], _CONDITION)
        )  # a vector says the same of every place
        layers: list[nn.Module] = []
        inputs = 3 + _CONDITION
        for factor in (1, 2, 4):
            layers += [nn.Conv2d(inputs, factor * channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            inputs = factor * channels
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, padding=1))

    def forward(self, images: Tensor, representations: Tensor) -> Tensor:
        """(N, 1, 13, 13), positive for what it takes for real."""
        condition = self.condition(representations)
        if condition.dim() == 2:
            condition = condition[:, :, None, None].expand(-1, -1, SIDE, SIDE)
        elif condition.shape[2:] != (SIDE, SIDE):
            condition = functional.interpolate(condition, (SIDE, SIDE), mode="bilinear", align_corners=False)
        verdict: Tensor = self.layers(torch.cat([images, condition], 1))
        return verdict


class AdversarialDecoding(Learner):
    """A decoder and a critic in turns.

    Args:
        pairs: To learn from.
        decoder: Standardises representations, then maps them to images in [0, 1].
        critic: Reads images and standardised representations.
        loss: Of the decoder beside the critic.
        config: Weights and rate.
        device: Where to learn.
    """

    def __init__(
        self,
        pairs: Pairs,
        decoder: nn.Sequential,
        critic: PatchCritic,
        loss: ImageLoss,
        config: GenerativeConfig,
        device: torch.device = CPU,
    ) -> None:
        self.pairs, self.decoder, self.critic = pairs, decoder.to(device), critic.to(device)
        self.loss, self.config, self.device = loss, config, device
        rate = config.decoder.schedule.rate
        self.networks = {"decoder": decoder, "critic": critic}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.999))
            for name, network in self.networks.items()
        }

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        """One step of the critic, then one of the decoder."""
        standard = self.decoder[0](self.pairs.representations(index, generator).to(self.device))
        wanted = self.pairs.images(index).to(self.device)
        images = self.decoder[1:](standard)
        real, made = self.critic(wanted, standard), self.critic(images.detach(), standard)
        critic = (functional.relu(1 - real) + functional.relu(1 + made)).mean()
        losses = require_finite({"critic": critic})
        self._move("critic", critic)
        self.critic.requires_grad_(False)
        terms = self.loss.terms(images, wanted)
        terms["adversarial"] = -self.config.adversarial * self.critic(images, standard).mean()
        losses |= require_finite(terms)
        self._move("decoder", torch.stack(list(terms.values())).sum())
        self.critic.requires_grad_(True)
        return losses

    def _move(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[name].step()


def fit_generative(
    pairs: Pairs,
    config: GenerativeConfig,
    *,
    embed: Callable[[Tensor], Tensor] | None = None,
    device: torch.device = CPU,
    work: Path | None = None,
    name: str = "generative",
    progress: Progress | None = None,
) -> Reconstructor:
    """Train a decoder against a critic; arguments and errors as for `bauta.attacks.reconstruct.fit_reconstructor`."""
    schedule = config.decoder.schedule
    decoder = begin(pairs, config.decoder.decoder, config.decoder.channels, schedule.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        critic = PatchCritic(pairs.shape, config.critic_channels)
    learner = AdversarialDecoding(pairs, decoder, critic, ImageLoss(config.decoder, embed), config, device)
    key = f"{pairs.key} {config.to_dict()}"
    fitted = train(learner, len(pairs), schedule, key=key, work=work, name=name, progress=progress)
    return Reconstructor(decoder, config, fitted)
