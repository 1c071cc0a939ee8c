"""The frequency family: maskings of block-DCT coefficients, short, on the front end of `bauta.templates.masked.dct`.

- ``ShuffledMask`` after PPFR-FD (Wang et al., AAAI 2022), of which there is no public code: known are the analysis
  network that chooses 36 of 64 frequencies and drops the lowest, and that channels are shuffled, mixed, shuffled again
  and normalised by themselves. How they are mixed, and how the choice is learned, is ours.
- ``PrivacyBudget`` after DCTDP (Ji et al., ECCV 2022) and its public code: Laplace noise whose budget is divided among
  189 coefficients by what the recogniser learns to need.
- ``RandomSubset`` after PartialFace (Mi et al., ICCV 2023) and its public code: 9 of 54 high frequencies, of six
  disjoint subsets, in one of six orders, drawn for each face.
- ``ShuffledResidue`` after MinusFace (Mi et al., CVPR 2024) and its public code: what a network's rendering of the face
  lacks, shuffled among its 192 channels and carried back to a picture.

What each leaves to be seen by construction is told in ``docs/hybrid-masking.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.learning.learners import Learner, require_finite, train
from bauta.settings import Range, Weight
from bauta.templates.base import SIDE
from bauta.templates.fit import as_images
from bauta.templates.masked.dct import BLOCK, CHANNELS, COLOURS, FREQUENCIES, BlockDct
from bauta.templates.masked.masking import Masked, Masking, MaskingConfig, MaskingData, alone, stretched
from bauta.templates.representation import Kind

CALIBRATED = 64  # faces from which the statistics of coefficients are taken
_CHUNK = 8
_STEP = 4  # every so many blocks are enough for statistics


def some_faces(pixels: Tensor, count: int = CALIBRATED) -> list[Tensor]:
    """At most `count` faces, spread evenly over the set, in chunks of images in [0, 1]."""
    index = torch.arange(0, len(pixels), max(1, len(pixels) // count))[:count]
    return [as_images(pixels[part]) for part in index.split(_CHUNK)]  # type: ignore[no-untyped-call]


# PPFR-FD


@dataclass(frozen=True)
class ShuffleConfig(MaskingConfig):
    """Settings of `ShuffledMask`.

    Attributes:
        kept: How many frequencies of each colour are kept.
        choice: How they are chosen: by ``gates`` that learn to keep little energy and yet the recogniser's early
            feature, or those of least ``energy``.
        penalty: Weight of the kept energy while gates learn.
        shuffle: Whether channels are shuffled and mixed; without it, it is a mask only.
        normalise: By what channels are brought to one scale: by their own mean and deviation in each ``face``, or by
            their deviation over all faces (``population``). The former loses 108 numbers of a face, which hide little
            of it and which a recogniser misses.
    """

    title: ClassVar[str] = "PPFR-FD"
    kept: Annotated[int, Range(at=1, to=63)] = 36
    choice: Literal["gates", "energy"] = "gates"
    penalty: Weight = 1.0
    shuffle: bool = True
    normalise: Literal["face", "population"] = "face"


class ShuffledMask(Masking):
    """PPFR-FD: some frequencies without the lowest, shuffled, mixed with a neighbour, shuffled, each normalised.

    The orders are drawn once, at the fitting, for the recogniser learns them: they are not a key, and whoever has the
    protector has them.
    """

    Config = ShuffleConfig
    config: Any
    chosen: Tensor
    first: Tensor
    second: Tensor
    spread: Tensor

    def __init__(self, config: ShuffleConfig) -> None:
        super().__init__()
        self.config = config
        count = COLOURS * config.kept
        self.shape = (count, SIDE, SIDE)
        self.dct = BlockDct()
        for name, value in (
            ("chosen", torch.arange(1, config.kept + 1)),
            ("first", torch.arange(count)),
            ("second", torch.arange(count)),
            ("spread", torch.ones(count)),
        ):
            self.register_buffer(name, value)

    def prepare(self, data: MaskingData) -> dict[str, float]:
        """Choose frequencies and draw the orders; see `Masking.prepare`."""
        energies = torch.zeros(FREQUENCIES)
        parts = some_faces(data.pixels)
        for part in parts:
            coefficients = self.dct.linear(part, step=_STEP)
            coefficients[:, 0] -= 128 * BLOCK
            energies += coefficients.abs().mean((2, 3)).reshape(-1, COLOURS, FREQUENCIES).sum((0, 1))
        figures: dict[str, float] = {}
        worth = -energies
        if self.config.choice == "gates":
            gates = _Gates(self, data, energies / energies.sum())
            key = f"{data.key} {self.config.to_dict()}"
            figures = train(
                gates, len(data.pixels), data.schedule, key=key, work=data.work, name=f"{data.name}-gates",
                progress=data.progress,
            )  # fmt: skip
            worth = gates.logits.weight.detach()[0]
        worth = worth.clone()
        worth[0] = -math.inf  # the lowest frequency is a small picture of the face
        self.chosen.copy_(worth.argsort(descending=True)[: self.config.kept].sort().values)
        generator = torch.Generator().manual_seed(data.schedule.seed)
        count = self.shape[0]
        if self.config.shuffle:
            self.first.copy_(torch.randperm(count, generator=generator))
            self.second.copy_(torch.randperm(count, generator=generator))
        squares = torch.zeros(count)
        for part in parts:
            squares += self._mixed(part).square().mean((0, 2, 3)) / len(parts)
        self.spread.copy_(squares.sqrt().clamp_min(1e-3))
        share = float(energies[self.chosen].sum() / energies.sum())
        return {**figures, "energy kept": round(share, 4)}

    @property
    def near(self) -> bool:
        """See `Masking.near`."""
        return bool(self.config.normalise == "population")

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The masked coefficients, (N, 3 kept, 112, 112), of deviation 1 in each channel."""
        # Face by face: one fits into a processor's cache, a batch does not.
        return torch.cat([self._masked(face) for face in images.split(1)])  # type: ignore[no-untyped-call]

    def _mixed(self, images: Tensor) -> Tensor:
        """The kept coefficients, shuffled, mixed and shuffled again."""
        values = self.dct.linear(images, self.chosen.tolist())
        if not self.config.shuffle:
            return values
        return values[:, self.first[self.second]] + values[:, self.first.roll(-1)[self.second]]

    def _masked(self, face: Tensor) -> Tensor:
        values = self._mixed(face)
        if self.config.normalise == "population":
            return values / self.spread[:, None, None]
        values = values - values.mean((2, 3), keepdim=True)
        deviation = torch.linalg.vector_norm(values, dim=(2, 3), keepdim=True) / math.sqrt(values[0, 0].numel())
        normalised: Tensor = values / deviation.clamp_min(1e-3)
        return normalised


def _reader(feature: Tensor, seed: int) -> tuple[Tensor, Tensor, nn.Conv2d]:
    """Mean and deviation of each channel of the clean recogniser's early feature, and a layer to read it with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Conv2d(CHANNELS, feature.shape[1], 3, padding=1)
    deviation = feature.std((0, 2, 3), keepdim=True, correction=0).clamp_min(1e-6)
    return feature.mean((0, 2, 3), keepdim=True), deviation, layer


class _Gates(Learner):
    """A weight for each frequency: keep the recogniser's early feature with little energy. Our design."""

    def __init__(self, masking: ShuffledMask, data: MaskingData, energies: Tensor) -> None:
        self.masking, self.data, self.energies = masking, data, energies
        self.scales = torch.zeros(CHANNELS)
        wanted = []
        for part in some_faces(data.pixels, 16):
            self.scales += masking.dct.linear(part, step=_STEP).square().mean((0, 2, 3))
            wanted.append(data.features(part))
        self.scales = (self.scales / max(1, len(wanted))).sqrt().clamp_min(1e-3)[:, None, None]
        feature = torch.cat(wanted)
        self.mean, self.std, self.reader = _reader(feature, data.schedule.seed)
        self.logits = nn.Linear(FREQUENCIES, 1, bias=False)
        nn.init.zeros_(self.logits.weight)
        self.networks = {"reader": self.reader, "gates": self.logits}
        self.optimizers = {
            "reader": torch.optim.Adam(self.reader.parameters(), lr=data.schedule.rate),
            "gates": torch.optim.Adam(self.logits.parameters(), lr=20 * data.schedule.rate),
        }

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam."""
        images = as_images(self.data.pixels[index])
        gates = self.logits.weight[0].sigmoid()
        values = self.masking.dct.linear(images, step=_STEP) / self.scales * gates.repeat(COLOURS)[:, None, None]
        wanted = (self.data.features(images) - self.mean) / self.std
        wanted = functional.adaptive_avg_pool2d(
            wanted, (values.shape[2], values.shape[3])
        )  # a coarse look is enough for a choice
        error = (self.reader(values) - wanted).square().mean()
        energy = self.masking.config.penalty * (gates * self.energies).sum()
        losses = require_finite({"feature": error, "energy": energy})
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        (error + energy).backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return losses


# DCTDP


@dataclass(frozen=True)
class BudgetConfig(MaskingConfig):
    """Settings of `PrivacyBudget`.

    Attributes:
        budget: Mean privacy budget of a coefficient; the public code has 4.
        sensitivity: What the budget is of: ``range`` takes each channel's range over faces, as the paper is
            understood, ``one`` takes 1, as the public code does, which for coefficients of hundreds is hardly noise.
        grid: The budget is learned for squares of 112/grid places; the published code has one for each place, 112.
    """

    title: ClassVar[str] = "DCTDP"
    budget: Annotated[float, Range(at=1e-3, to=1e6)] = 4.0
    sensitivity: Literal["range", "one"] = "range"
    grid: Annotated[int, Range(at=1, to=SIDE)] = 14

    def problems(self) -> Iterator[tuple[str, str]]:
        """Squares that do not fill the image."""
        if SIDE % self.grid:
            yield "grid", f"Give a divisor of {SIDE}."


class PrivacyBudget(Masking):
    """DCTDP: Laplace noise on all coefficients but the lowest, whose scale the recogniser's loss decides.

    The loss alone moves the budget about, whose sum is fixed: noise goes to where the recogniser misses nothing.
    """

    Config = BudgetConfig
    config: BudgetConfig
    rate: ClassVar[float] = 0.02
    sensitivities: Tensor

    def __init__(self, config: BudgetConfig) -> None:
        super().__init__()
        self.config = config
        self.chosen = list(range(1, FREQUENCIES))
        count = COLOURS * len(self.chosen)
        self.shape = (count, SIDE, SIDE)
        self.dct = BlockDct()
        self.shares = nn.Parameter(torch.zeros(count, config.grid, config.grid))  # the paper's rho
        self.location = nn.Parameter(torch.zeros(count, config.grid, config.grid))
        self.register_buffer("sensitivities", torch.ones(count))

    def prepare(self, data: MaskingData) -> dict[str, float]:
        """Measure the ranges of channels; see `Masking.prepare`."""
        if self.config.sensitivity == "range":
            parts = [self.dct.linear(part, self.chosen) for part in some_faces(data.pixels)]
            low = torch.stack([part.amin((0, 2, 3)) for part in parts]).amin(0)
            high = torch.stack([part.amax((0, 2, 3)) for part in parts]).amax(0)
            self.sensitivities.copy_(high - low)
        return {}

    def budgets(self) -> Tensor:
        """(189, 112, 112): the budget of each coefficient; they sum to 189 * 112^2 times the mean one."""
        each = SIDE // self.config.grid
        shares = self.shares.flatten().softmax(0).reshape(self.shares.shape) * self.shares.numel()
        budgets: Tensor = self.config.budget * shares
        return budgets.repeat_interleave(each, 1).repeat_interleave(each, 2)

    def scales(self) -> Tensor:
        """(189, 112, 112): the scale of each coefficient's noise."""
        return self.sensitivities[:, None, None] / self.budgets().clamp_min(1e-9)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Noisy coefficients (N, 189, 112, 112)."""
        values = self.dct.linear(images, self.chosen)
        each = SIDE // self.config.grid
        location = self.location.repeat_interleave(each, 1).repeat_interleave(each, 2)
        return values + location + self.scales() * laplace(values.shape, generator)


def laplace(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Numbers of the Laplace distribution of location 0 and scale 1."""
    signs = torch.rand(shape, generator=generator).sub_(0.5).sign_()
    return torch.empty(shape).exponential_(generator=generator).mul_(signs)


# PartialFace

PRUNED = (0, 1, 2, 3, 8, 9, 10, 16, 17, 24)
"""Low frequencies that PartialFace drops, most of the energy."""

SUBSETS = (
    (1, 24, 28, 12, 32, 45, 47, 40, 52), (35, 39, 44, 42, 10, 4, 37, 31, 53), (0, 50, 19, 6, 22, 51, 49, 23, 21),
    (38, 8, 25, 13, 17, 30, 7, 33, 9), (26, 29, 16, 2, 43, 14, 5, 11, 48), (36, 41, 46, 34, 15, 27, 18, 20, 3),
)  # fmt: skip
"""The public code's six subsets, places among the 54 frequencies that are left."""


@dataclass(frozen=True)
class SubsetConfig(MaskingConfig):
    """Settings of `RandomSubset`.

    Attributes:
        orders: How many orders of the nine channels there are; the paper has 6, its code 3.
        subsets_each: Subsets that one person's faces are learned in.
    """

    title: ClassVar[str] = "PartialFace"
    orders: Annotated[int, Range(at=1, to=720)] = 6
    subsets_each: Annotated[int, Range(at=1, to=6)] = 3


class RandomSubset(Masking):
    """PartialFace: nine high frequencies of each colour, which and in which order is drawn for each face."""

    Config = SubsetConfig
    config: SubsetConfig
    permutations: Tensor

    def __init__(self, config: SubsetConfig) -> None:
        super().__init__()
        self.config = config
        left = [one for one in range(FREQUENCIES) if one not in PRUNED]
        self.subsets = [[left[place] for place in subset] for subset in SUBSETS]
        self.shape = (COLOURS * len(SUBSETS[0]), SIDE, SIDE)
        self.dct = BlockDct()
        self.register_buffer("permutations", torch.arange(9).repeat(config.orders, 1))

    def prepare(self, data: MaskingData) -> dict[str, float]:
        """Draw the orders; see `Masking.prepare`."""
        generator = torch.Generator().manual_seed(data.schedule.seed)
        self.permutations.copy_(torch.stack([torch.randperm(9, generator=generator) for _ in self.permutations]))
        return {}

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One subset of each face, (N, 27, 112, 112)."""
        return self.of_subsets(images, torch.randint(len(SUBSETS), (len(images),), generator=generator), generator)

    def batch(self, images: Tensor, people: Tensor, generator: torch.Generator) -> Masked:
        """Each person in the three of six subsets that are theirs; see `Masking.batch`."""
        allowed = list(combinations(range(len(SUBSETS)), self.config.subsets_each))
        drawn = torch.randint(self.config.subsets_each, (len(images),), generator=generator).tolist()
        whose = people.tolist() if len(people) else list(range(len(images)))
        subsets = [allowed[person % len(allowed)][place] for person, place in zip(whose, drawn, strict=True)]
        return alone(self.of_subsets(images, torch.tensor(subsets), generator))

    def of_subsets(self, images: Tensor, subsets: Tensor, generator: torch.Generator) -> Tensor:
        """Given which subset of each face, in an order that is drawn."""
        orders = torch.randint(len(self.permutations), (len(images),), generator=generator)
        rows = []
        for image, subset, order in zip(images, subsets.tolist(), orders.tolist(), strict=True):
            frequencies = [self.subsets[subset][place] for place in self.permutations[order].tolist()]
            rows.append(self.dct.linear(image[None], frequencies)[0])
        return torch.stack(rows)


# MinusFace


@dataclass(frozen=True)
class ResidueConfig(MaskingConfig):
    """Settings of `ShuffledResidue`.

    Attributes:
        width: Channels of the network that renders the face; the paper's has 64 to 1024.
        likeness: Weight of the mean absolute difference of face and rendering; the other term has weight 1.
    """

    title: ClassVar[str] = "MinusFace"
    width: Annotated[int, Range(at=4, to=128)] = 16
    likeness: Weight = 5.0


class ShuffledResidue(Masking):
    """MinusFace: the residue of a rendering, its 192 channels shuffled for each face, as a picture (3, 112, 112).

    In the paper the residue's identity is taught by a recogniser that is thrown away; here by a convolution that finds
    the recogniser's early feature in it, which is thrown away too. The way back to pictures is our linear one, with
    which the picture of the residue is the difference of face and rendering, exactly.
    """

    Config = ResidueConfig
    config: ResidueConfig
    kind: ClassVar[Kind] = "image"

    def __init__(self, config: ResidueConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = (3, SIDE, SIDE)
        self.dct = BlockDct()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.render = _Render(config.width)
        self.render.requires_grad_(False)

    def residue(self, images: Tensor) -> Tensor:
        """(N, 192, 112, 112): coefficients of the face less those of its rendering."""
        coefficients = self.dct.linear(images)
        residue: Tensor = coefficients - self.render(coefficients)
        return residue

    def prepare(self, data: MaskingData) -> dict[str, float]:
        """Teach the network to render; see `Masking.prepare`."""
        learner = _Rendering(self, data)
        key = f"{data.key} {self.config.to_dict()}"
        return train(
            learner, len(data.pixels), data.schedule, key=key, work=data.work, name=f"{data.name}-rendering",
            progress=data.progress,
        )  # fmt: skip

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The shuffled residue as a picture of any numbers."""
        residue = self.residue(images)
        orders = [torch.randperm(CHANNELS, generator=generator) for _ in images]
        return self.dct.linear_inverse(torch.stack([row[order] for row, order in zip(residue, orders, strict=True)]))

    def picture(self, values: Tensor) -> Tensor:
        """It is one."""
        return stretched(values)


class _Render(nn.Module):
    """A small U-Net from coefficients (N, 192, 112, 112) to the same shape."""

    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(CHANNELS, 1, 1))
        self.enter = nn.Conv2d(CHANNELS, width, 1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.leave = nn.Conv2d(2 * width, CHANNELS, 1)

    def forward(self, coefficients: Tensor) -> Tensor:
        entered = self.enter(coefficients / self.scale).relu()
        deep = self.inner(self.down(entered).relu()).relu()
        rendered: Tensor = self.leave(torch.cat([entered, self.up(deep).relu()], 1)) * self.scale
        return rendered


class _Rendering(Learner):
    def __init__(self, masking: ShuffledResidue, data: MaskingData) -> None:
        self.masking, self.data = masking, data
        squares, wanted = torch.zeros(CHANNELS), []
        parts = some_faces(data.pixels, 16)
        for part in parts:
            squares += masking.dct.linear(part).square().mean((0, 2, 3)) / len(parts)
            wanted.append(data.features(part))
        masking.render.scale.copy_(squares.sqrt().clamp_min(1e-3)[:, None, None])
        feature = torch.cat(wanted)
        self.mean, self.std, self.reader = _reader(feature, data.schedule.seed)
        self.side = (feature.shape[2], feature.shape[3])
        masking.render.requires_grad_(True)
        self.networks = {"render": masking.render, "reader": self.reader}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=data.schedule.rate)
            for name, network in self.networks.items()
        }

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam."""
        images = as_images(self.data.pixels[index])
        residue = self.masking.residue(images)
        away = self.masking.dct.linear_inverse(residue).abs().mean()  # the residue's picture: face less rendering
        pooled = functional.adaptive_avg_pool2d(residue / self.masking.render.scale, self.side)
        error = (self.reader(pooled) - (self.data.features(images) - self.mean) / self.std).square().mean()
        losses = require_finite({"likeness": away, "feature": error})
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        (self.masking.config.likeness * away + error).backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return losses
