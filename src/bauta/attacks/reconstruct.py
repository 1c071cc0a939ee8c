"""Decoders: networks that learn to turn what a service stores back into the face.

Who attacks knows pairs of a representation and its image, of people of his own. Where the representations are clean
features the attacker does not know of the protection; where they come from the protector he is *adaptive*. The
networks are those of `bauta.learning.decoders`, which a protector may train shadows of.

Losses follow the same line: mean absolute error, 1 - SSIM, and 1 - cosine of a recogniser's templates; their perceptual
term on VGG features is left out, since no such network is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from bauta.errors import UsageError
from bauta.learning.decoders import Decoder, start_decoder
from bauta.learning.learners import CPU, Learner, Schedule, require_finite, train
from bauta.progress import Progress
from bauta.settings import Range, Settings, Weight

_CHUNK = 32


class Pairs(Protocol):
    """Representations and the images they were made of.

    Attributes:
        shape: Of one representation.
        key: Digest of what the pairs are.
    """

    shape: tuple[int, ...]
    key: str

    def __len__(self) -> int:
        """How many there are."""

    def representations(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """(n, ...) float32 of these indices; a stochastic protector may draw them anew each time."""

    def images(self, index: Tensor) -> Tensor:
        """(n, 3, 112, 112) float32 in [0, 1] of these indices."""


@dataclass(frozen=True)
class ReconstructionConfig(Settings):
    """A decoder and how it learns.

    Attributes:
        decoder: Its network.
        channels: Width of the network.
        absolute: Weight of the mean absolute error.
        similarity: Weight of 1 - SSIM.
        identity: Weight of 1 - cosine between the recogniser's templates of both images.
        schedule: How long and how fast.
    """

    title: ClassVar[str] = "a decoder"
    decoder: Decoder = "unet"
    channels: Annotated[int, Range(at=4, to=1024)] = 32
    absolute: Weight = 1.0
    similarity: Weight = 0.0
    identity: Weight = 0.0
    schedule: Schedule = field(default_factory=Schedule)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Weights that are all zero, and widths that the network has not."""
        if self.channels % 4:
            yield "channels", "Give a multiple of 4."
        if not self.absolute + self.similarity + self.identity:
            yield "absolute", "A decoder needs a loss: give absolute, similarity or identity a weight."


NBNET = ReconstructionConfig(decoder="deconvolution", similarity=0.75, identity=0.025)
"""The weights of the public template-inversion recipes: MAE + 0.75 L_SSIM + 0.025 L_ID, without their VGG term."""


class ImageLoss:
    """How far images are from the wanted ones.

    Args:
        config: Weights.
        embed: (N, 3, 112, 112) in [0, 1] to (N, D) unit norm, under autograd; wanted where `identity` has weight.

    Raises:
        UsageError: when `embed` is missing.
    """

    def __init__(self, config: ReconstructionConfig, embed: Callable[[Tensor], Tensor] | None = None) -> None:
        if config.identity and embed is None:
            raise UsageError("A loss on identity needs a recogniser.", hint="Give one, or weigh identity 0.")
        self.config, self.embed = config, embed

    def terms(self, images: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """The weighted terms that have a weight; each is a mean."""
        from pytorch_msssim import ssim

        config, found = self.config, {}
        if config.absolute:
            found["absolute"] = config.absolute * (images - wanted).abs().mean()
        if config.similarity:
            found["similarity"] = config.similarity * (1 - ssim(images, wanted, data_range=1.0))
        if config.identity and self.embed is not None:
            with torch.no_grad():
                target = self.embed(wanted)
            found["identity"] = config.identity * (1 - (self.embed(images) * target).sum(1).mean())
        return found


class Decoding(Learner):
    """Regression from representations to images.

    Args:
        pairs: To learn from.
        decoder: Maps representations to images in [0, 1].
        loss: Between its images and the true ones.
        rate: Of Adam.
        device: Where to learn.
    """

    def __init__(
        self, pairs: Pairs, decoder: nn.Module, loss: ImageLoss, rate: float, device: torch.device = CPU
    ) -> None:
        self.pairs, self.decoder, self.loss, self.device = pairs, decoder.to(device), loss, device
        self.networks = {"decoder": decoder}
        self.optimizers = {"decoder": torch.optim.Adam(decoder.parameters(), lr=rate)}

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam."""
        images = self.decoder(self.pairs.representations(index, generator).to(self.device))
        terms = self.loss.terms(images, self.pairs.images(index).to(self.device))
        losses = require_finite(terms)
        optimizer = self.optimizers["decoder"]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return losses


class Reconstructor:
    """A fitted decoder.

    Attributes:
        decoder: The network, on the CPU.
        config: How it learned.
        fitted: Mean losses of the last epoch, steps and seconds.
    """

    def __init__(self, decoder: nn.Module, config: Any, fitted: Mapping[str, float]) -> None:
        self.decoder = decoder.cpu().eval().requires_grad_(False)
        self.config, self.fitted = config, dict(fitted)

    @torch.no_grad()
    def reconstruct(self, representations: Tensor) -> Tensor:
        """The faces (N, 3, 112, 112) in [0, 1] that it sees in representations (N, ...) of float32."""
        return torch.cat([self.decoder(part) for part in _parts(representations)])


def fit_reconstructor(
    pairs: Pairs,
    config: ReconstructionConfig,
    *,
    embed: Callable[[Tensor], Tensor] | None = None,
    device: torch.device = CPU,
    work: Path | None = None,
    name: str = "decoder",
    progress: Progress | None = None,
) -> Reconstructor:
    """Train a decoder on pairs.

    Args:
        pairs: Representations and images of the attacker's own people.
        config: The decoder and how it learns.
        embed: As for `ImageLoss`.
        device: Where to learn.
        work: Folder of the checkpoint; see `bauta.learning.learners.train`.
        name: Of the checkpoint.
        progress: Called with the name, the steps done, and the steps there are.

    Raises:
        UsageError: when the pairs are too few, or the decoder does not suit their shape.
        NumericalFailure: when a loss is not a number; the checkpoint keeps the last good state.
        WeightsCorrupt: when the checkpoint is damaged.
    """
    decoder = begin(pairs, config.decoder, config.channels, config.schedule.seed)
    learner = Decoding(pairs, decoder, ImageLoss(config, embed), config.schedule.rate, device)
    key = f"{pairs.key} {config.to_dict()}"
    fitted = train(learner, len(pairs), config.schedule, key=key, work=work, name=name, progress=progress)
    return Reconstructor(decoder, config, fitted)


def begin(pairs: Pairs, decoder: Decoder, channels: int, seed: int) -> nn.Sequential:
    """A new decoder: it standardises representations, and adds what it sees in them to the mean face.

    Both are taken from at most 256 of the pairs.

    Raises:
        UsageError: when there is no pair, or the decoder does not suit the shape.
    """
    if not len(pairs):
        raise UsageError("There are no pairs to learn from.", hint="Give images of the attacker's people.")
    index = torch.arange(0, len(pairs), max(1, len(pairs) // 256))[:256]
    generator = torch.Generator().manual_seed(seed)
    values = torch.cat([pairs.representations(part, generator) for part in _parts(index)])
    mean_face = torch.cat([pairs.images(part) for part in _parts(index)]).mean(0)
    return start_decoder(decoder, values, mean_face, channels, seed)


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = values.split(_CHUNK)  # type: ignore[no-untyped-call]
    return parts
