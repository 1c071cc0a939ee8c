"""The reference rows of every table of protectors: nothing done, everything taken away, and what people use anyway.

None of them learns anything. `IdentityFeature` is the upper bound of every attack, `ConstantImage` the lower one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from bauta.errors import UsageError
from bauta.objectives.transports import gaussian_blur
from bauta.recognizers.splits import TEMPLATE, split_recognizer
from bauta.recognizers.surrogates import Surrogate
from bauta.registry import register
from bauta.templates.advface.keys import turn
from bauta.templates.base import SIDE, ImageProtector, Protector, Provenance
from bauta.templates.representation import Kind, Representation


@register("identity-feature", kind="protector")
class IdentityFeature(Protector):
    """Stores the recogniser's own feature, or template, as it is.

    Args:
        recognizer: The recogniser.
        split: Where its network is cut; see `bauta.recognizers.splits.find_cut`.
    """

    keyed: ClassVar[bool] = True

    def __init__(self, recognizer: Surrogate, *, split: str = TEMPLATE, provenance: Provenance | None = None) -> None:
        super().__init__(recognizer, provenance=provenance)
        self.front, self.back = split_recognizer(recognizer, split)
        self.split = split
        self.row_shape = self.front.cut.shape
        self.kind: Kind = "template" if self.front.cut.name == TEMPLATE else "feature"

    @classmethod
    def fit(
        cls, images: Tensor, *, recognizer: Surrogate, generator: torch.Generator, split: str = TEMPLATE
    ) -> IdentityFeature:
        """The reference; nothing is learned from the images."""
        return cls(recognizer, split=split)

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
        return cls(recognizer, provenance=provenance, **settings)


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
    """Stores a changed image; each subclass says how, by `change`."""

    strength: ClassVar[tuple[str, float, float]]  # name of the setting, lowest and highest value
    default: ClassVar[float]

    def __init__(self, recognizer: Surrogate, *, provenance: Provenance | None = None, **settings: Any) -> None:
        super().__init__(recognizer, provenance=provenance)
        name, low, high = self.strength
        self.value: float = settings.pop(name, self.default)
        if settings:
            raise UsageError(f"{self.name} has no setting {min(settings)!r}.", hint=f"It has {name}.")
        if not low <= self.value <= high:
            raise UsageError(f"{self.name} cannot run with {name}={self.value!r}.", hint=f"From {low:g} to {high:g}.")

    @classmethod
    def fit(cls, images: Tensor, *, recognizer: Surrogate, generator: torch.Generator, **settings: Any) -> Self:
        """The reference; nothing is learned from the images."""
        return cls(recognizer, **settings)

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
        return {self.strength[0]: self.value}

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The reference again; see `Protector.restore`."""
        return cls(recognizer, provenance=provenance, **settings)


@register("constant-image", kind="protector")
class ConstantImage(ChangedImage):
    """Grey, whoever it was. Its templates are equal: at every threshold below 1 all faces match."""

    strength = ("level", 0.0, 1.0)
    default = 0.5

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The same grey image for all."""
        return torch.full_like(images, self.value)


@register("noisy-image", kind="protector")
class NoisyImage(ChangedImage):
    """Gaussian noise of standard deviation `sigma`, in 1/255, on every sample."""

    strength = ("sigma", 0.0, 255.0)
    default = 64.0

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The noisy images."""
        noise = torch.randn(images.shape, generator=generator)
        return (images + noise.to(images.device) * (self.value / 255)).clamp(0, 1)


@register("blurred-image", kind="protector")
class BlurredImage(ChangedImage):
    """A Gaussian blur of standard deviation `sigma` pixels."""

    strength = ("sigma", 0.1, 50.0)
    default = 4.0

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The blurred images."""
        blurred: Tensor = gaussian_blur(images, self.value)
        return blurred.clamp(0, 1)


@register("pixelated-image", kind="protector")
class PixelatedImage(ChangedImage):
    """`cells` squares along a side, each of one colour."""

    strength = ("cells", 1.0, 112.0)
    default = 10.0

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The pixelated images."""
        cells = functional.adaptive_avg_pool2d(images, int(self.value))
        return functional.interpolate(cells, (SIDE, SIDE), mode="nearest")
