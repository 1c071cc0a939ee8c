"""Maskings: what is done to a face before a recogniser of masked inputs reads it, and the plain ones among them.

A recogniser that was trained on masked faces reads nothing else, and a service that has it needs no face: the camera
masks, the service stores and compares. How such a recogniser is made is told in `bauta.templates.masked.protectors`.

The plain maskings (nothing at all, and Gaussian noise) and mixtures of pixels (`bauta.templates.masked.mixing`) are the
rows that every other must be compared with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from bauta.learning.learners import Schedule
from bauta.progress import Progress
from bauta.settings import Range, Settings
from bauta.templates.base import SIDE
from bauta.templates.representation import Kind


class Reader(Protocol):
    """Recognisers of masked faces, as a masking may ask them for help; all under autograd."""

    def look(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What the stem finds of faces (N, 3, 112, 112), each masked alone; `Masking.single` says how."""

    def unmask(self, values: Tensor) -> Tensor:
        """What the stem finds of masked faces (N, C, H, W): (N, 3, 112, 112)."""

    def recognise(self, images: Tensor) -> Tensor:
        """Unit-norm templates (N, D) of what the stem has found, as at the door."""

    def read(self, images: Tensor) -> Tensor:
        """The same as of what is stored, which another network may read."""


@dataclass(frozen=True, eq=False)
class Masked:
    """A masked batch to learn from.

    Attributes:
        values: (N, C, H, W).
        members: (N, K) int64: places in the batch of the faces that are in each; -1 for a face of nobody.
        shares: (N, K) in [0, 1], how much of each is in it; the first is the face that it stands for.
        counts: (N,) int64, of how many faces each was mixed.
    """

    values: Tensor
    members: Tensor
    shares: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class MaskingData:
    """What a masking learns from before there is a recogniser of masked inputs.

    Attributes:
        pixels: (N, 3, 112, 112) uint8, or float32 in [0, 1].
        people: (N,) int64, the person of each; empty when not known.
        features: The clean recogniser's early feature of images (n, 3, 112, 112), without a gradient.
        schedule: How long and how fast.
        key: What the faces and the recogniser are.
        work: Folder of checkpoints.
        name: What checkpoints of this masking begin with.
        progress: Called with a stage, steps done and steps in all.
    """

    pixels: Tensor
    people: Tensor
    features: Callable[[Tensor], Tensor]
    schedule: Schedule
    key: str
    work: Path | None
    name: str
    progress: Progress | None


@dataclass(frozen=True)
class MaskingConfig(Settings):
    """Settings of every masking; subclasses add theirs.

    Attributes:
        storage: Type of the stored numbers.
    """

    title: ClassVar[str] = "a masking"
    storage: Literal["float16", "float32"] = "float16"


class Masking(nn.Module, ABC):
    """From faces to what a recogniser of masked inputs reads.

    Attributes:
        Config: Class of its settings.
        config: Its settings.
        kind: What one row of its values is.
        shape: Of one row, (C, H, W).
        rate: Learning rate of its own parameters, which learn together with the recogniser; 0 when it has none.
        late: Whether they learn in the fine-tuning only.
    """

    Config: ClassVar[type[MaskingConfig]] = MaskingConfig
    kind: ClassVar[Kind] = "frequency"
    rate: ClassVar[float] = 0.0
    late: ClassVar[bool] = False
    config: MaskingConfig
    shape: tuple[int, int, int]

    @property
    def alike(self) -> tuple[str, dict[str, Any]]:
        """What decides the stages before the fine-tuning: maskings with the same need to be taught these only once."""
        return type(self).__name__, self.config.to_dict()

    @abstractmethod
    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What is stored of faces (N, 3, 112, 112) in [0, 1]: (N, C, H, W), under autograd."""

    @property
    def unsigned(self) -> bool:
        """Whether signs are random, so that whoever reads looks at absolute values."""
        return False

    @property
    def near(self) -> bool:
        """Whether `single` draws nothing, and each place of it is an affine function of the 3x3 pixels there."""
        return False

    @property
    def apart(self) -> bool:
        """Whether another network reads what is stored than the one at the door, which finds nobody in it."""
        return False

    def stored(self, images: Tensor, reader: Reader, generator: torch.Generator) -> Tensor:
        """What is stored of faces, for maskings that ask the recogniser of masked faces for help.

        Args:
            images: (N, 3, 112, 112) in [0, 1].
            reader: The recognisers.
            generator: Of everything random.
        """
        values: Tensor = self(images, generator)
        return values

    def single(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The same without other faces mixed in: what a camera sends to be compared, which nobody stores."""
        values: Tensor = self(images, generator)
        return values

    def batch(self, images: Tensor, people: Tensor, generator: torch.Generator) -> Masked:
        """Masked faces to learn from, and whose they are.

        Args:
            images: (N, 3, 112, 112) in [0, 1].
            people: (N,) int64; empty when not known.
            generator: Of everything random.
        """
        return alone(self(images, generator))

    def feedback(self, masked: Masked, images: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """Terms that the masking's own parameters shall make small, beside the recogniser's loss.

        Args:
            masked: What `batch` made last.
            images: Of what.
            losses: (N,) the recogniser's loss for each, without a gradient.
        """
        return {}

    def prepare(self, data: MaskingData) -> dict[str, float]:
        """Learn what must be learned before there is a recogniser of masked inputs; figures of that.

        Raises:
            UsageError: when there are too few faces or people.
            NumericalFailure: when a loss is not a number.
        """
        return {}

    def begin(self, stage: str) -> None:
        """Learn of a stage: ``stem``, ``distillation``, ``fine-tuning``, or "" when all is learned."""

    def require_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Let learned parts through that fit these settings, as far as their shapes do not tell.

        Raises:
            UsageError: when they were learned with other settings.
        """

    def picture(self, values: Tensor) -> Tensor:
        """Values (N, 3, 112, 112) of kind ``image`` as pictures in [0, 1]; what others show, a stem finds."""
        return values.clamp(0, 1)


def alone(values: Tensor) -> Masked:
    """A batch in which no face is mixed with another."""
    count = len(values)
    return Masked(
        values, torch.arange(count)[:, None], torch.ones(count, 1), torch.ones(count, dtype=torch.int64)
    )  # fmt: skip


def stretched(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) of any numbers, each stretched to [0, 1]."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-12)


# Plain maskings


class Unmasked(Masking):
    """Nothing is done: the row that says what the training alone costs."""

    kind: ClassVar[Kind] = "image"

    def __init__(self, config: MaskingConfig) -> None:
        super().__init__()
        self.config, self.shape = config, (3, SIDE, SIDE)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The image itself."""
        return images


@dataclass(frozen=True)
class NoiseConfig(MaskingConfig):
    """Settings of `GaussianNoise`.

    Attributes:
        sigma: Standard deviation in 1/255.
    """

    title: ClassVar[str] = "Gaussian noise"
    sigma: Annotated[float, Range(at=0, to=1000)] = 64.0


class GaussianNoise(Unmasked):
    """Gaussian noise on every sample, drawn anew for each face; nothing is clipped."""

    Config = NoiseConfig
    config: NoiseConfig

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The noisy image."""
        return images + self.config.sigma / 255 * torch.randn(images.shape, generator=generator)
