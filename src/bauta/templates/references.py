"""The reference rows of every table of protectors: nothing done, everything taken away, and what people use anyway.

None of them learns anything. `IdentityFeature` is the upper bound of every attack, `ConstantImage` the lower one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from bauta.learning.fitted import Provenance
from bauta.objectives.transports import gaussian_blur
from bauta.recognizers.splits import TEMPLATE, split_recognizer
from bauta.recognizers.surrogates import Surrogate
from bauta.registry import register
from bauta.settings import Range, Settings, Share
from bauta.templates.advface.keys import turn
from bauta.templates.base import SIDE, ImageProtector, Protector
from bauta.templates.fit import FitWork
from bauta.templates.representation import Kind, Representation


@dataclass(frozen=True)
class IdentityConfig(Settings):
    """Settings of `IdentityFeature`.

    Attributes:
        split: Where the recogniser's network is cut; see `bauta.recognizers.splits.find_cut`.
    """

    title: ClassVar[str] = "identity-feature"
    split: str = TEMPLATE


@register("identity-feature", kind="protector")
class IdentityFeature(Protector):
    """Stores the recogniser's own feature, or template, as it is.

    Args:
        recognizer: The recogniser.
        split: Where its network is cut; see `bauta.recognizers.splits.find_cut`.
    """

    Config = IdentityConfig
    keyed: ClassVar[bool] = True

    def __init__(self, recognizer: Surrogate, *, split: str = TEMPLATE, provenance: Provenance | None = None) -> None:
        super().__init__(recognizer, provenance=provenance)
        self.front, self.back = split_recognizer(recognizer, split)
        self.split = split
        self.row_shape = self.front.cut.shape
        self.kind: Kind = "template" if self.front.cut.name == TEMPLATE else "feature"

    @classmethod
    def fit(cls, images: Tensor, config: IdentityConfig, training: Settings, work: FitWork) -> Self:
        """The reference; nothing is learned from the images."""
        return cls(work.recognizer, split=config.split)

    def protect(self, images: Tensor, generator: torch.Generator, key: bytes | None = None) -> Representation:
        """The feature of each face, turned by a key where there is one; see `Protector.protect`."""
        self.require_images(images)
        self.require_key(key)
        with torch.no_grad():
            values: Tensor = self.front(self.crops(images.to(self.device)))
        return self.represent(values if key is None else self.lock(values, key), key)

    def lock(self, features: Tensor, key: bytes) -> Tensor:
        """Features turned by a key, as a reference: it keeps nobody out; see `bauta.attacks.keys`."""
        return turn(features, key, rotated=self.kind == "template")

    def to(self, device: torch.device | str) -> Self:
        """Move recogniser, front and back; see `Protector.to`."""
        for network in (self.front, self.back):
            network.to(device)
        return super().to(device)

    def templates(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """Templates of the stored features; see `Protector.templates`."""
        templates: Tensor = self.back(self.features(representation, key).to(self.device))
        return templates.cpu()

    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The mean over channels as a grey picture, each stretched to [0, 1]; see `Protector.to_image`."""
        return picture_of(self.features(representation, key))

    def features(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The stored features (N, ...) float32, unlocked.

        Raises:
            UsageError: when they are another protector's, or locked by another key.
        """
        self.require_own(representation, key)
        values = representation.values()
        return values if key is None else turn(values, key, rotated=self.kind == "template", back=True)

    def settings(self) -> dict[str, Any]:
        """Plain values."""
        return {"split": self.split}

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The reference again; see `Protector.restore`."""
        return cls(recognizer, split=IdentityConfig.of(settings).split, provenance=provenance)


def picture_of(values: Tensor) -> Tensor:
    """Numbers (N, ...) as grey pictures (N, 3, 112, 112) in [0, 1]: channels averaged, vectors laid out in rows."""
    if values.dim() == 4:
        flat = values.mean(1, keepdim=True)
    else:
        rows = values.flatten(1)
        width = int(rows.shape[1] ** 0.5) or 1
        flat = functional.pad(rows, (0, -rows.shape[1] % width)).reshape(len(rows), 1, -1, width)
    low, high = flat.amin((1, 2, 3), keepdim=True), flat.amax((1, 2, 3), keepdim=True)
    flat = (flat - low) / (high - low).clamp_min(1e-12)
    return functional.interpolate(flat, (SIDE, SIDE), mode="nearest").expand(-1, 3, -1, -1)


class ChangedImage(ImageProtector):
    """Stores a changed image; each subclass says how, by `change`, and how much, by its `Config`."""

    def __init__(
        self, recognizer: Surrogate, config: Settings | None = None, *, provenance: Provenance | None = None
    ) -> None:
        super().__init__(recognizer, provenance=provenance)
        self.config: Any = config or self.Config()

    @classmethod
    def fit(cls, images: Tensor, config: Settings, training: Settings, work: FitWork) -> Self:
        """The reference; nothing is learned from the images."""
        return cls(work.recognizer, config)

    @abstractmethod
    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The changed images (N, 3, 112, 112) in [0, 1]."""

    def protect(self, images: Tensor, generator: torch.Generator, key: bytes | None = None) -> Representation:
        """The changed image of each face; see `Protector.protect`."""
        self.require_images(images)
        self.require_key(key)
        return self.represent(self.change(images, generator))

    def settings(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = self.config.to_dict()
        return plain

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The reference again; see `Protector.restore`."""
        return cls(recognizer, cls.Config.of(settings), provenance=provenance)


@dataclass(frozen=True)
class ConstantConfig(Settings):
    """Settings of `ConstantImage`.

    Attributes:
        level: Brightness.
    """

    title: ClassVar[str] = "constant-image"
    level: Share = 0.5


@register("constant-image", kind="protector")
class ConstantImage(ChangedImage):
    """Grey, whoever it was. Its templates are equal: at every threshold below 1 all faces match."""

    Config = ConstantConfig

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The same grey image for all."""
        return torch.full_like(images, self.config.level)


@dataclass(frozen=True)
class NoiseConfig(Settings):
    """Settings of `NoisyImage`.

    Attributes:
        sigma: Standard deviation, in 1/255.
    """

    title: ClassVar[str] = "noisy-image"
    sigma: Annotated[float, Range(at=0, to=255)] = 64.0


@register("noisy-image", kind="protector")
class NoisyImage(ChangedImage):
    """Gaussian noise of standard deviation `sigma`, in 1/255, on every sample."""

    Config = NoiseConfig

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The noisy images."""
        noise = torch.randn(images.shape, generator=generator)
        noisy: Tensor = images + noise.to(images.device) * (self.config.sigma / 255)
        return noisy.clamp(0, 1)


@dataclass(frozen=True)
class BlurConfig(Settings):
    """Settings of `BlurredImage`.

    Attributes:
        sigma: Standard deviation, in pixels.
    """

    title: ClassVar[str] = "blurred-image"
    sigma: Annotated[float, Range(at=0.1, to=50)] = 4.0


@register("blurred-image", kind="protector")
class BlurredImage(ChangedImage):
    """A Gaussian blur of standard deviation `sigma` pixels."""

    Config = BlurConfig

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The blurred images."""
        blurred: Tensor = gaussian_blur(images, self.config.sigma)
        return blurred.clamp(0, 1)


@dataclass(frozen=True)
class PixelationConfig(Settings):
    """Settings of `PixelatedImage`.

    Attributes:
        cells: Squares along a side; rounded down.
    """

    title: ClassVar[str] = "pixelated-image"
    cells: Annotated[float, Range(at=1, to=112)] = 10.0


@register("pixelated-image", kind="protector")
class PixelatedImage(ChangedImage):
    """`cells` squares along a side, each of one colour."""

    Config = PixelationConfig

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The pixelated images."""
        cells = functional.adaptive_avg_pool2d(images, int(self.config.cells))
        return functional.interpolate(cells, (SIDE, SIDE), mode="nearest")
