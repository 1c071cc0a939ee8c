"""White-box optimisation: an image is searched whose representation, or template, is the stored one. No training.

The attacker knows recogniser, protector and key. He minimises the distance with a total variation and a pull to the
mean face, from several starts, and in expectation over the protector's randomness (Athalye et al. 2018). Feature
inversion by gradient descent is Mahendran and Vedaldi 2015; the parametrisation, the starts and the weights are ours.

A protector that cannot be differentiated, such as one that optimises noise itself, is passed over: the image is
compared before protection with what was stored after it (backward pass differentiable approximation, ibid.). That is
strong where protection moves representations little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from bauta.errors import NumericalFailure, UsageError
from bauta.progress import Progress
from bauta.settings import Range, Settings
from bauta.templates.base import SIDE, Protector
from bauta.templates.representation import Representation

Level = Literal["template", "representation"]
View = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class OptimisationConfig(Settings):
    """How an image is searched.

    Attributes:
        level: What must agree: the final ``template`` (cosine), or the whole ``representation`` (relative squared
            error), which tells more.
        iterations: Steps of Adam.
        starts: The mean face, and noisy ones of it; the best is kept.
        draws: Of the protector's randomness, in each step.
        rate: Of Adam, on the logits of pixels.
        variation: Weight of the mean absolute difference of neighbouring pixels.
        prior: Weight of the mean squared distance from the mean face.
    """

    title: ClassVar[str] = "the search for an image"
    level: Level = "template"
    iterations: Annotated[int, Range(at=1, to=100_000)] = 300
    starts: Annotated[int, Range(at=1, to=64)] = 2
    draws: Annotated[int, Range(at=1, to=1000)] = 1
    rate: Annotated[float, Range(above=0, to=10)] = 0.05
    variation: Annotated[float, Range(at=0, to=1000)] = 1e-3
    prior: Annotated[float, Range(at=0, to=1000)] = 1e-3


@dataclass(frozen=True, eq=False)
class Found:
    """What was found.

    Attributes:
        images: (N, 3, 112, 112) in [0, 1].
        distance: (N,) between their representations, or templates, and the stored ones; the mean over draws.
        start: (N,) int64, from which start each image came.
    """

    images: Tensor
    distance: Tensor
    start: Tensor


@runtime_checkable
class _Changes(Protocol):
    def change(self, images: Tensor, generator: torch.Generator) -> Tensor: ...


@runtime_checkable
class _Masks(Protocol):
    def mask(self, images: Tensor, generator: torch.Generator) -> Tensor: ...

    def see(self, images: Tensor, generator: torch.Generator) -> Tensor: ...


def view_of(protector: Protector, level: Level) -> View:
    """The protector as a differentiable function of images, as far as it is one; see above.

    Raises:
        UsageError: when its representations cannot be computed with gradients.
    """
    if isinstance(protector, _Changes):
        changed = protector.change
        if level == "representation":
            return changed
        return lambda images, generator: protector.recognizer(protector.crops(changed(images, generator)))
    if isinstance(protector, _Masks):
        # A template is searched by single masked faces: strangers mixed in by another draw would only be in the way.
        return protector.mask if level == "representation" else protector.see
    if level == "template":
        return lambda images, generator: protector.recognizer(protector.crops(images))
    front = getattr(protector, "front", None)
    if front is None:
        raise UsageError(
            f"Representations of {protector.name} cannot be differentiated.", hint="Attack its templates instead."
        )
    return lambda images, generator: cast(Tensor, front(protector.crops(images)))


def search(
    protector: Protector,
    stored: Representation,
    config: OptimisationConfig,
    mean_face: Tensor,
    generator: torch.Generator,
    *,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> Found:
    """Images whose representations are near the stored ones.

    Args:
        protector: What made them.
        stored: Of N faces.
        config: How to search.
        mean_face: (3, 112, 112) in [0, 1], the mean of the attacker's own faces.
        generator: Of starts and draws.
        key: The key the representations were made with, which this attacker has.
        progress: Called with a name, the steps done, and the steps there are.

    Raises:
        UsageError: when the representations are another protector's, or the level cannot be differentiated.
        NumericalFailure: when a distance is not a number.
    """
    view = view_of(protector, config.level)
    with torch.no_grad():
        if config.level == "template":
            wanted = protector.templates(stored, key)
        else:
            unlocked = getattr(protector, "features", None)  # what a key locked is read with it
            wanted = stored.values() if unlocked is None else unlocked(stored, key)
    count, total = len(wanted), config.starts * config.iterations
    wanted, device = wanted.to(protector.device), protector.device
    best = Found(
        mean_face.repeat(count, 1, 1, 1), torch.full((count,), torch.inf), torch.zeros(count, dtype=torch.int64)
    )
    for start in range(config.starts):
        noise = torch.randn(count, 3, SIDE // 8, SIDE // 8, generator=generator) * (0.5 if start else 0.0)
        smooth = functional.interpolate(noise, (SIDE, SIDE), mode="bicubic", align_corners=False)
        logits = (torch.logit(mean_face.clamp(0.02, 0.98)) + smooth).to(device).requires_grad_(True)
        optimizer = torch.optim.Adam([logits], lr=config.rate)
        for step in range(config.iterations):
            images = torch.sigmoid(logits)
            across, down = images.diff(dim=3).abs().mean((1, 2, 3)), images.diff(dim=2).abs().mean((1, 2, 3))
            away = (images - mean_face.to(device)).square().mean((1, 2, 3))
            loss = _distance(view, images, wanted, config, generator)
            loss = (loss + config.variation * (across + down) + config.prior * away).sum()
            if not bool(loss.isfinite()):
                raise NumericalFailure(f"The distance is {float(loss)} at step {step}.", hint="Lower the rate.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if progress is not None:
                progress("search", start * config.iterations + step + 1, total)
        with torch.no_grad():
            images = torch.sigmoid(logits)
            distance = _distance(view, images, wanted, config, generator).cpu()
            images = images.cpu()
        better = distance < best.distance
        best = Found(
            torch.where(better[:, None, None, None], images, best.images),
            torch.where(better, distance, best.distance),
            torch.where(better, start, best.start),
        )
    return best


def _distance(
    view: View, images: Tensor, wanted: Tensor, config: OptimisationConfig, generator: torch.Generator
) -> Tensor:
    """(N,), the mean over draws."""
    total = torch.zeros(len(images), device=images.device)
    for _ in range(config.draws):
        seen = view(images, generator)
        if config.level == "template":
            total = total + 1 - (seen * wanted).sum(1)
        else:
            error, energy = (seen - wanted).square().flatten(1).sum(1), wanted.square().flatten(1).sum(1)
            total = total + error / energy.clamp_min(1e-12)
    return total / config.draws
