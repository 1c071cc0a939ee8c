"""Adaptive hybrid masking: a frequency mask, other faces mixed in, and a network that says how many.

Adaptive Hybrid Masking against model inversion (arXiv 2403.10558), read through its abstract, a digest and the reviews
of an earlier version. The paper's: the frequency mask of PPFR-FD, MixUp of k masked faces in the frequency domain with
k in {2..6}, a strategy network that chooses k for each face by policy gradient, against the recogniser (it makes the
recognition loss large, the recogniser makes it small, in turns), and the mixed labels of the recognition loss. Ours:
all that has a number, the law of the shares, partners who are nobody, the networks, the two terms beside the policy
gradient, the second reward, regions, and the steps that let the recogniser know a face of which little is left.

::

    X_i   = mask(x_i)                                   36 frequencies of each colour, shuffled, normalised
    k     ~ pi(k | X_b)
    x_mix = sum_i lambda_i X_i,  sum_i lambda_i = 1
    recogniser:  min  sum_i lambda_i loss(f(x_mix), y_i)
    strategy:    min  -(R - b) log pi(k | X_b) - entropy * H(pi) + cost * max(0, E[k] - wished)^2
                 R = loss(f(x_mix), y_b) / its running mean  [+ recovery * (1 - SSIM of a small decoder's picture)]

Regions are not part of the paper, though a digest of it that is often read says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.settings import Range, Share, Weight
from bauta.templates.base import SIDE
from bauta.templates.masked.frequency import ShuffleConfig, ShuffledMask
from bauta.templates.masked.masking import Masked, MaskingData
from bauta.templates.masked.mixing import FEWEST, LARGEST_SHARE, MOST, Budget, Law, Mixing, MixingConfig, Steps

Reward = Literal["loss", "loss+recovery"]
REGIONS = ("eyes", "nose", "mouth", "contour")
_COARSE = 4  # the strategy and the small decoder look at squares of so many places


@dataclass(frozen=True)
class HybridConfig(ShuffleConfig, MixingConfig):
    """Settings of adaptive hybrid masking, beside those of the mask and of mixing.

    Attributes:
        mixes: Numbers of faces that may be mixed.
        reward: What the strategy wins by: the recogniser's ``loss``, or also a small decoder's failure, since a large
            loss alone is not privacy.
        recovery: Weight of that failure.
        entropy: Weight of the strategy's entropy.
        cost: Weight of the squared excess of the mean k over `wished`.
        wished: That mean k.
        eyes: How much of the eyes becomes noise in what is stored; regions lie where the ArcFace alignment puts them,
            and are not the paper's.
        nose: The same of the nose.
        mouth: The same of the mouth.
        contour: The same of the face's contour.
    """

    title: ClassVar[str] = "hybrid masking"
    normalise: Literal["face", "population"] = "population"
    mixes: Annotated[tuple[int, ...], Range(at=FEWEST, to=MOST)] = (2, 3, 4, 5, 6)
    least: Share = 0.5
    most: Share = 0.8
    law: Law = "power"
    stored_share: Share = 0.1
    steps: Steps = 16
    budget: Budget = 8.0
    apart: Weight = 1.0
    alone: Share = 0.75
    reward: Reward = "loss"
    recovery: Weight = 1.0
    entropy: Weight = 0.01
    cost: Weight = 0.0
    wished: Annotated[float, Range(at=FEWEST, to=MOST)] = 4.0
    eyes: Share = 0.0
    nose: Share = 0.0
    mouth: Share = 0.0
    contour: Share = 0.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """Numbers of faces in disorder, and steps that would bring nothing back."""
        yield from super().problems()
        if not self.mixes or list(self.mixes) != sorted(set(self.mixes)):
            yield "mixes", "Give whole numbers, each larger than the one before."
        if self.steps and self.normalise == "face":
            yield (
                "normalise",
                "Where each face is normalised by itself, no steps bring its template back: "
                "set normalise=population, or steps=0.",
            )


class Strategy(nn.Module):
    """How many faces to mix, given a masked face: logits (N, len(mixes)). Four strided convolutions; our design.

    Args:
        channels: Of the masked face.
        mixes: The numbers to choose from.
    """

    mixes: Tensor
    level: Tensor
    baseline: Tensor

    def __init__(self, channels: int, mixes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mixes", torch.tensor(list(mixes), dtype=torch.int64))
        self.register_buffer("level", torch.zeros(1))  # running mean of the recogniser's loss
        self.register_buffer("baseline", torch.ones(1))  # running mean of the reward
        layers: list[nn.Module] = []
        inputs = channels
        for outputs, stride in ((32, 1), (64, 2), (128, 2), (128, 2)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        self.layers = nn.Sequential(
            nn.AvgPool2d(_COARSE), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, len(mixes))
        )

    def forward(self, values: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(values)
        return logits

    def rewards(self, losses: Tensor) -> Tensor:
        """(N,) the recogniser's losses over their running mean."""
        mean = losses.mean()
        self.level.copy_(torch.where(self.level == 0, mean, 0.9 * self.level + 0.1 * mean))
        return losses / self.level.clamp_min(1e-9)


def strategy_terms(
    logits: Tensor,
    chosen: Tensor,
    rewards: Tensor,
    baseline: Tensor | float,
    mixes: Tensor,
    *,
    entropy: float,
    cost: float,
    wished: float,
) -> dict[str, Tensor]:
    """What the strategy makes small: REINFORCE with a baseline (Williams 1992), entropy, and dear mixtures.

    Args:
        logits: (N, M).
        chosen: (N,) int64, which of the M was drawn.
        rewards: (N,), without a gradient.
        baseline: Their running mean.
        mixes: (M,), the numbers that the M stand for.
        entropy: Weight.
        cost: Weight.
        wished: Mean number from which on mixtures cost.
    """
    logs = logits.log_softmax(1)
    shares = logs.exp()
    drawn = logs.gather(1, chosen[:, None])[:, 0]
    spread = -(shares * logs).sum(1).mean()
    excess = ((shares * mixes).sum(1) - wished).clamp_min(0).square().mean()
    return {"strategy": -((rewards - baseline) * drawn).mean(), "spread": cost * excess - entropy * spread}


class HybridMask(Mixing):
    """Masked faces, mixed in the frequency domain as the strategy says."""

    Config = HybridConfig
    config: HybridConfig
    rate: ClassVar[float] = 1e-3

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        own = {field.name: getattr(config, field.name) for field in fields(ShuffleConfig)}
        self.mask = ShuffledMask(ShuffleConfig(**own))
        self.shape = self.mask.shape
        self.strategy: Strategy | None = None
        self.decoder: nn.Module | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if len(config.mixes) > 1:
                self.strategy = Strategy(self.shape[0], config.mixes)
            if config.reward == "loss+recovery":
                self.decoder = nn.Sequential(
                    nn.AvgPool2d(_COARSE), nn.Conv2d(self.shape[0], 32, 3, padding=1), nn.ReLU(),
                    nn.Conv2d(32, 3, 3, padding=1), nn.Sigmoid(),
                )  # fmt: skip
        self._logits: Tensor | None = None

    @property
    def choices(self) -> Sequence[int]:
        """Numbers of faces that may be in a mixture."""
        return self.config.mixes

    @property
    def alike(self) -> tuple[str, dict[str, Any]]:
        """Those of the mask, since nothing is mixed before the fine-tuning; see `Masking.alike`."""
        return super().alike if self.config.signs else self.mask.alike

    def prepare(self, data: MaskingData) -> dict[str, float]:
        """Choose frequencies, and learn what faces of nobody look like; see `Masking.prepare`."""
        return {**super().prepare(data), **self.mask.prepare(data)}

    def begin(self, stage: str) -> None:
        """Forget what was chosen for the faces that were watched after the stage before; see `Masking.begin`."""
        super().begin(stage)
        self._logits = None

    @property
    def affine(self) -> bool:
        """Unless each face is normalised by itself."""
        return self.mask.near

    @property
    def near(self) -> bool:
        """See `Masking.near`."""
        return self.mask.near and not self.config.signs

    @property
    def plain(self) -> bool:
        """Without signs, and without noise in regions."""
        return super().plain and not any(getattr(self.config, name) for name in REGIONS)

    def choose(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(N,) int64, drawn from the distribution that the strategy sees in the masked face."""
        mixes = torch.tensor(self.config.mixes)
        self._logits = None
        if self.strategy is None:
            return mixes.expand(len(images))
        with torch.no_grad():
            masked = self.single_unsigned(images, generator)
        self._logits = self.strategy(masked)
        shares = self._logits.detach().softmax(1)
        return mixes[torch.multinomial(shares, 1, generator=generator)[:, 0]]

    def covered(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Noise in the regions that are to be hidden; see `Mixing.covered`."""
        if self.plain:
            return values
        strengths = region_strengths({name: getattr(self.config, name) for name in REGIONS})
        return values * (1 - strengths) + torch.randn(values.shape, generator=generator) * strengths

    def feedback(self, masked: Masked, images: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """What strategy and small decoder make small; see `Masking.feedback`."""
        terms: dict[str, Tensor] = {}
        failure = torch.zeros(len(losses))
        if self.decoder is not None and self.stage == "fine-tuning":
            from pytorch_msssim import ssim

            wanted = functional.avg_pool2d(images, _COARSE)
            seen = self.decoder(masked.values.detach())
            terms["recovery"] = (seen - wanted).abs().mean()
            failure = 1 - ssim(seen.detach(), wanted, data_range=1.0, size_average=False)
        if self.strategy is None or self._logits is None:
            return terms
        mixed = masked.counts > 1
        if not bool(mixed.any()):
            return terms
        rewards = self.strategy.rewards(losses[mixed]) + self.config.recovery * failure[mixed]
        mixes = self.strategy.mixes
        chosen = (masked.counts[mixed, None] == mixes).long().argmax(1)
        config = self.config
        terms |= strategy_terms(
            self._logits[mixed], chosen, rewards, self.strategy.baseline.clone(), mixes,
            entropy=config.entropy, cost=config.cost, wished=config.wished,
        )  # fmt: skip
        self.strategy.baseline.copy_(0.9 * self.strategy.baseline + 0.1 * rewards.mean())
        return terms

    def require_parts(self, parts: Mapping[str, Tensor]) -> None:
        """A strategy for another range of k is refused; see `Masking.require_parts`."""
        found = parts.get("strategy.mixes")
        learned = [] if found is None else found.tolist()
        wanted = [] if self.strategy is None else list(self.config.mixes)
        if learned != wanted:
            raise UsageError(
                f"The strategy was learned for k of {learned or 'one number'}, not of {wanted or 'one number'}.",
                hint="Set mixes as they were, or fit the protector again.",
            )

    def single_unsigned(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The masked face."""
        values: Tensor = self.mask(images, generator)
        return values


@dataclass(frozen=True)
class FixedMixConfig(HybridConfig):
    """Settings of `FixedMixture`: those of the hybrid, with one number of faces, InstaHide's share, all of them
    mixed, and no steps.
    """

    title: ClassVar[str] = "a fixed mixture"
    mixes: Annotated[tuple[int, ...], Range(at=FEWEST, to=MOST)] = (4,)
    least: Share = 0.6
    most: Share = LARGEST_SHARE
    law: Law = "share"
    stored_share: Share = 0.0
    steps: Steps = 0
    alone: Share = 0.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """More numbers of faces than one."""
        yield from super().problems()
        if len(self.mixes) != 1:
            yield "mixes", "Give one number: it is fixed."


class FixedMixture(HybridMask):
    """The same without a strategy: the baseline of adaptive hybrid masking."""

    Config = FixedMixConfig


def region_strengths(strengths: Mapping[str, float]) -> Tensor:
    """(112, 112) in [0, 1]: how much of each place becomes noise. Our design.

    Around the landmarks of the ArcFace alignment, which are the same for every face: both eyes, the nose, the mouth
    between its corners, each a Gaussian hill of 9 to 11 pixels, and the contour, an ellipse around them.

    Args:
        strengths: Of the regions of `REGIONS`, in [0, 1].
    """
    down, across = torch.meshgrid(torch.arange(SIDE).float(), torch.arange(SIDE).float(), indexing="ij")
    (left, right, nose, first, second) = ARCFACE_112.points

    def hill(point: Sequence[float], wide: float, high: float) -> Tensor:
        return torch.exp(-(((across - point[0]) / wide) ** 2 + ((down - point[1]) / high) ** 2) / 2)

    mouth = ((first[0] + second[0]) / 2, (first[1] + second[1]) / 2)
    centre = ((left[0] + right[0]) / 2, nose[1])
    distance = (((across - centre[0]) / 42) ** 2 + ((down - centre[1]) / 52) ** 2).sqrt()
    hills = {
        "eyes": torch.maximum(hill(left, 11, 9), hill(right, 11, 9)),
        "nose": hill(nose, 9, 11),
        "mouth": hill(mouth, 15, 9),
        "contour": torch.exp(-(((distance - 1) / 0.15) ** 2) / 2),
    }
    found = torch.zeros(SIDE, SIDE)
    for name, strength in strengths.items():
        found = torch.maximum(found, strength * hills[name])
    return found
