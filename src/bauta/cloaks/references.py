"""The reference rows of every table, on the interface of registered cloaks: ``perturb`` gives a mask for each view.

Nobody is meant to use them; without them the figures of a method say little. What is whose:

- ``clean``, ``noise``, ``blur``, ``pixelate``: everyday practice; ours in that they stay inside the feathered region.
- ``pgd``: Madry et al. 2018, random start, sign steps, no momentum.
- ``mi-fgsm``: Dong et al. 2018, momentum 1 over gradients of unit mean absolute value. Theirs starts at the photo,
  where the gradient of the similarity with oneself vanishes; ours starts at random, as PGD does.
- ``ti-dim``: Dong et al. 2019 with Xie et al. 2019: the same, each pass through a randomly enlarged and padded crop
  with probability 0.4 (canvas 10 % larger), the gradient smoothed by a Gaussian of 3 pixels of a 112-pixel crop.
  The kernel is cut at three standard deviations, not at 15 pixels.

The three attacks step inside an l-inf box of 16/255 by a tenth of it, 10 times, the values of FDeID-Toolbox. They
minimise the mean over surrogates of the cosine with the person's own clean embedding (dodging). Ours: the mask lies
on the photo's own pixels behind the alignment warp, so it runs on the loop of `bauta.objectives.descent`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from bauta.cloaks.tip_im import Mask
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure, UsageError
from bauta.faces.alignment import similarity_matrix
from bauta.faces.warp import warp
from bauta.objectives.descent import Progress, Step, project, projected_momentum
from bauta.objectives.transports import gaussian_blur
from bauta.recognizers import Surrogate
from bauta.registry import list_methods, load_method


@dataclass(frozen=True)
class ReferenceConfig:
    """Settings of the references; each uses some.

    Attributes:
        epsilon: Half side of the box around the photo, in 1/255, of noise and attacks.
        sigma: Standard deviation of the blur, in pixels of a 112-pixel crop.
        cells: Number of cells of a pixelated face along a side.
        iterations: Steps of an attack; each is epsilon / 10.
    """

    epsilon: float = 16.0
    sigma: float = 4.0
    cells: int = 10
    iterations: int = 10

    def __post_init__(self) -> None:
        checks = {
            "epsilon": 0 < self.epsilon <= 255,
            "sigma": 0 < self.sigma <= 50,
            "cells": 1 <= self.cells <= 112,
            "iterations": 1 <= self.iterations <= 10_000,
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(f"A reference cannot run with {name}={getattr(self, name)!r}.", hint="See its range.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for cards."""
        return asdict(self)


class Reference(ABC):
    """A cloak in all but its registration.

    `uses` names the settings that it knows.

    Args:
        config: Settings.
        thresholds: Not used; cloaks take them.
    """

    Config = ReferenceConfig
    uses: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ReferenceConfig | None = None, *, thresholds: dict[str, float] | None = None) -> None:
        self.config = config or ReferenceConfig()

    def fit(self, views: Sequence[FaceView]) -> None:  # noqa: B027 - part of a cloak, and empty for all references
        """Nothing to fit."""

    @abstractmethod
    def perturb(
        self,
        views: Sequence[FaceView],
        surrogates: Sequence[Surrogate],
        generator: torch.Generator,
        *,
        deadline: float | None = None,
        progress: Progress | None = None,
    ) -> list[Mask]:
        """A mask for each view; arguments as for `bauta.cloaks.tip_im.TipIm.perturb`."""


class Distortion(Reference):
    """A reference that looks at no recogniser."""

    def perturb(
        self,
        views: Sequence[FaceView],
        surrogates: Sequence[Surrogate],
        generator: torch.Generator,
        *,
        deadline: float | None = None,
        progress: Progress | None = None,
    ) -> list[Mask]:
        """A mask for each view, in one go."""
        began = time.monotonic()
        deltas = [self.change(view, generator) for view in views]
        spent = (time.monotonic() - began) / max(len(views), 1)
        inside = [((view.pixels + delta).clamp(0, 1) - view.pixels) for view, delta in zip(views, deltas, strict=True)]
        return [Mask(delta, 0, "converged", spent) for delta in inside]

    @abstractmethod
    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Perturbation (3, H, W) of one view, zero outside its region."""


class Clean(Distortion):
    """The photo as it is: what judges say without protection."""

    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Nothing."""
        return torch.zeros_like(view.pixels)


class Noise(Distortion):
    """Gaussian noise of standard deviation epsilon / 2, clipped to epsilon: the box of an attack, without its aim."""

    uses = ("epsilon",)

    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Noise on the region; the same in all channels of a greyscale photo."""
        channels = 1 if view.grey else 3
        noise = torch.randn(channels, *view.pixels.shape[1:], generator=generator) * 0.5
        return (noise.clamp(-1, 1) * self.config.epsilon / 255).expand(3, -1, -1) * view.region


class Blur(Distortion):
    """Gaussian blur of the face."""

    uses = ("sigma",)

    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Blurred less original."""
        blurred = gaussian_blur(view.pixels[None], self.config.sigma * view.crop_pixel)[0]
        return (blurred - view.pixels) * view.region


class Pixelate(Distortion):
    """Means over square cells, `cells` along a side of the ArcFace crop."""

    uses = ("cells",)

    def change(self, view: FaceView, generator: torch.Generator) -> Tensor:
        """Mosaic less original."""
        cell = max(1, round(112 * view.crop_pixel / self.config.cells))
        height, width = view.pixels.shape[1:]
        padded = functional.pad(view.pixels[None], (0, -width % cell, 0, -height % cell), mode="replicate")
        mosaic = functional.interpolate(functional.avg_pool2d(padded, cell), scale_factor=float(cell), mode="nearest")
        return (mosaic[0, :, :height, :width] - view.pixels) * view.region


class Pgd(Reference):
    """Projected gradient descent from a random start."""

    uses = ("epsilon", "iterations")
    decay: ClassVar[float] = 0.0
    diverse: ClassVar[bool] = False
    smoothing: ClassVar[float] = 0.0

    def perturb(
        self,
        views: Sequence[FaceView],
        surrogates: Sequence[Surrogate],
        generator: torch.Generator,
        *,
        deadline: float | None = None,
        progress: Progress | None = None,
    ) -> list[Mask]:
        """One mask for each view, in one loop for each: arguments as for `bauta.cloaks.tip_im.TipIm.perturb`.

        Raises:
            UsageError: when there is no view or no surrogate.
            NumericalFailure: when a mask is not finite.
        """
        if not views or not surrogates:
            raise UsageError("An attack needs at least one face and one surrogate.", hint="Name surrogates.")
        epsilon = self.config.epsilon / 255
        step = Step(norm="linf", size=epsilon / 10, decay=self.decay, epsilon=epsilon)
        masks = []
        for view in views:
            images, region = view.pixels[None], view.region[None]
            problem = _Away(view, surrogates, generator, diverse=self.diverse, smoothing=self.smoothing)
            shape = (1, 1 if view.grey else 3, *view.pixels.shape[1:])
            start = (2 * torch.rand(shape, generator=generator) - 1).expand_as(images) * epsilon * region
            start = project(start, images, region.sum((1, 2, 3)) * 3, step)
            run = projected_momentum(
                problem, images, region, step, self.config.iterations, start=start, deadline=deadline, progress=progress
            )
            if not torch.isfinite(run.delta).all():
                raise NumericalFailure("The mask holds NaN or infinity.", hint="Leave out the surrogate at fault.")
            masks.append(Mask(run.delta[0], run.iterations[0], run.stopped[0], run.seconds))
        return masks


class MiFgsm(Pgd):
    """PGD with momentum 1."""

    decay = 1.0


class TiDim(MiFgsm):
    """MI-FGSM with diverse inputs and a smoothed gradient."""

    diverse = True
    smoothing = 3.0


class _Away:
    """Mean cosine of one face with its clean self over the surrogates, as a `bauta.objectives.descent.Problem`."""

    def __init__(
        self,
        view: FaceView,
        surrogates: Sequence[Surrogate],
        generator: torch.Generator,
        *,
        diverse: bool,
        smoothing: float,
    ) -> None:
        self.view, self.surrogates, self.generator, self.diverse = view, surrogates, generator, diverse
        self.sigma = smoothing * view.crop_pixel
        self.matrices = [
            torch.from_numpy(similarity_matrix(view.landmarks.numpy(), surrogate.card.template))[None]
            for surrogate in surrogates
        ]
        with torch.no_grad():
            self.sources = [self._embed(index, view.pixels[None]) for index in range(len(surrogates))]

    def _embed(self, index: int, photo: Tensor, *, diverse: bool = False) -> Tensor:
        template = self.surrogates[index].card.template
        crop = warp(photo, self.matrices[index], (template.height, template.width))
        embedding: Tensor = self.surrogates[index](self._diversify(crop) if diverse else crop)
        return embedding

    def _diversify(self, crop: Tensor) -> Tensor:
        """With probability 0.4 enlarged by up to a tenth, put anywhere on a black canvas of 1.1, and reduced back."""
        apply, size, down, right = torch.rand(4, generator=self.generator).tolist()
        if apply >= 0.4:
            return crop
        height, width = crop.shape[-2:]
        canvas = (round(1.1 * height), round(1.1 * width))
        inner = tuple(side + round(size * (large - side)) for side, large in zip((height, width), canvas, strict=True))
        grown = functional.interpolate(crop, inner, mode="bilinear", align_corners=False)
        top, left = round(down * (canvas[0] - inner[0])), round(right * (canvas[1] - inner[1]))
        sides = (left, canvas[1] - inner[1] - left, top, canvas[0] - inner[0] - top)
        return functional.interpolate(
            functional.pad(grown, sides), (height, width), mode="bilinear", align_corners=False
        )

    def gradients(self, delta: Tensor) -> Tensor:
        """(1, 1, 3, H, W)."""
        photo = (self.view.pixels[None] + delta).requires_grad_()
        with torch.enable_grad():
            cosines = [
                (self._embed(index, photo, diverse=self.diverse) * source).sum()
                for index, source in enumerate(self.sources)
            ]
            loss = torch.stack(cosines).mean()
        gradient = torch.autograd.grad(loss, photo)[0]
        if self.view.grey:
            gradient = gradient.mean(1, keepdim=True).expand_as(gradient)
        return (gaussian_blur(gradient, self.sigma) if self.sigma else gradient)[None]

    def best(self, candidates: Tensor) -> Tensor:
        """There is one candidate."""
        return torch.zeros(candidates.shape[1], dtype=torch.long)

    def finished(self, delta: Tensor, iteration: int) -> None:
        """Never before the last iteration."""


REFERENCES: dict[str, type[Reference]] = {
    "clean": Clean,
    "noise": Noise,
    "blur": Blur,
    "pixelate": Pixelate,
    "pgd": Pgd,
    "mi-fgsm": MiFgsm,
    "ti-dim": TiDim,
}


def settings(method: str, config: Any) -> dict[str, Any]:
    """A configuration as plain values, of references those that are used."""
    values: dict[str, Any] = config.to_dict()
    if method in REFERENCES:
        values = {key: value for key, value in values.items() if key in REFERENCES[method].uses}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def prepare(method: str, options: dict[str, Any]) -> tuple[Any, Any, str]:
    """The class of a cloak or reference, its configuration, and which of the two it is.

    Args:
        method: Name.
        options: Settings; ``preset`` names a constructor of the configuration, such as ``paper``.

    Raises:
        UsageError: when there is no such method, preset or setting, or a value is not allowed.
    """
    cloaks = [card.name for card in list_methods(kind="cloak")]
    if method not in REFERENCES and method not in cloaks:
        there = ", ".join([*cloaks, *REFERENCES])
        raise UsageError(f"There is no method {method!r} and no such reference.", hint=f"There is: {there}.")
    kind = "reference" if method in REFERENCES else "cloak"
    of: Any = REFERENCES[method] if method in REFERENCES else load_method(method, kind="cloak")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    preset = given.pop("preset", "default")
    make = of.Config if preset == "default" else getattr(of.Config, str(preset).replace("-", "_"), None)
    known = list(of.uses) if kind == "reference" else [field.name for field in fields(of.Config)]
    if unknown := sorted(given.keys() - set(known)):
        raise UsageError(
            f"{method} has no setting {', '.join(unknown)}.", hint=f"It has: {', '.join(known) or 'none'}."
        )
    if not callable(make):
        raise UsageError(f"{method} has no preset {preset!r}.", hint="Leave it out.")
    return of, make(**given), kind
