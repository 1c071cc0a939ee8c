"""References that attack by the gradient alone, with the settings of the literature: PGD, MI-FGSM and TI-DIM.

What is whose:

- ``pgd``: Madry et al. 2018, random start, sign steps, no momentum.
- ``mi-fgsm``: Dong et al. 2018, momentum 1 over gradients of unit mean absolute value. Theirs starts at the photo,
  where the gradient of the similarity with oneself vanishes; ours starts at random, as PGD does.
- ``ti-dim``: Dong et al. 2019 with Xie et al. 2019: the same, each pass through a randomly enlarged and padded crop
  with probability 0.4 (canvas 10 % larger), the gradient smoothed by a Gaussian of 3 pixels of a 112-pixel crop.
  The kernel is cut at three standard deviations, not at 15 pixels.

They step inside an l-inf box of 16/255 by a tenth of it, 10 times, the values of FDeID-Toolbox, and minimise the mean
over surrogates of the cosine with the person's own clean embedding (dodging). Ours: the mask lies on the photo's own
pixels behind the alignment warp, so it runs on the loop of `bauta.objectives.descent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from bauta.cloaks.base import Cloak, Edit, Need, Scalar, Work
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure, UsageError
from bauta.objectives.descent import Pixels, Step, Values, descend, project
from bauta.objectives.transports import gaussian_blur
from bauta.recognizers.ensemble import Ensemble
from bauta.registry import register
from bauta.settings import Flag, Range, Settings


@dataclass(frozen=True)
class PgdConfig(Settings):
    """Settings of an attack by the gradient.

    Attributes:
        epsilon: Half side of the box around the photo, in 1/255.
        iterations: Steps; each is epsilon / 10.
    """

    title: ClassVar[str] = "An attack by the gradient"
    epsilon: Annotated[float, Range(above=0, to=255), Flag("eps")] = 16.0
    iterations: Annotated[int, Range(at=1, to=10_000), Flag("steps")] = 10


@register("pgd", kind="cloak")
class Pgd(Cloak[PgdConfig]):
    """Projected gradient descent from a random start."""

    Config = PgdConfig
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogates"})
    decay: ClassVar[float] = 0.0
    diverse: ClassVar[bool] = False
    smoothing: ClassVar[float] = 0.0

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        """One edit for each view, in a loop of its own; see `Cloak.edit`.

        Raises:
            UsageError: when there is no view or no surrogate.
            NumericalFailure: when a mask is not finite.
        """
        if not views:
            raise UsageError("An attack needs at least one face.", hint="Give a view.")
        epsilon = self.config.epsilon / 255
        step = Step(norm="linf", size=epsilon / 10, decay=self.decay, epsilon=epsilon)
        edits = []
        for view in views:
            images, region = view.pixels[None], view.region[None]
            problem = _Away(view, work.attacked, work.generator, diverse=self.diverse, smoothing=self.smoothing)
            shape = (1, 1 if view.grey else 3, *view.pixels.shape[1:])
            start = (2 * torch.rand(shape, generator=work.generator) - 1).expand_as(images) * epsilon * region
            start = project(start, images, region.sum((1, 2, 3)) * 3, step)
            run = descend(
                problem,
                [Pixels(images, region, step, start)],
                self.config.iterations,
                deadline=work.deadline,
                progress=work.progress,
            )
            (delta,) = run.values
            if not torch.isfinite(delta).all():
                raise NumericalFailure("The mask holds NaN or infinity.", hint="Leave out the surrogate at fault.")
            facts: dict[str, Scalar] = {"iterations": run.iterations[0], "stopped": run.stopped[0]}
            edits.append(Edit(view, delta[0] * (view.region > 0), facts=facts))
        return edits


@register("mi-fgsm", kind="cloak")
class MiFgsm(Pgd):
    """PGD with momentum 1."""

    decay = 1.0


@register("ti-dim", kind="cloak")
class TiDim(MiFgsm):
    """MI-FGSM with diverse inputs and a smoothed gradient."""

    diverse = True
    smoothing = 3.0


class _Away:
    """Mean cosine of one face with its clean self over the surrogates, as a `bauta.objectives.descent.Problem`."""

    def __init__(
        self, view: FaceView, ensemble: Ensemble, generator: torch.Generator, *, diverse: bool, smoothing: float
    ) -> None:
        self.view, self.generator, self.diverse = view, generator, diverse
        self.sigma = smoothing * view.crop_pixel
        self.face = ensemble.looking_at([view.landmarks])
        with torch.no_grad():
            self.sources = self.face.all(view.pixels[None])

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

    def gradients(self, values: Values) -> Values:
        """(1, 1, 3, H, W)."""
        (delta,) = values
        photo = (self.view.pixels[None] + delta).requires_grad_()
        through = self._diversify if self.diverse else None
        with torch.enable_grad():
            cosines = [
                (self.face.embed(index, photo, through=through) * source).sum()
                for index, source in enumerate(self.sources)
            ]
            loss = torch.stack(cosines).mean()
        gradient = torch.autograd.grad(loss, photo)[0]
        if self.view.grey:
            gradient = gradient.mean(1, keepdim=True).expand_as(gradient)
        return ((gaussian_blur(gradient, self.sigma) if self.sigma else gradient)[None],)

    def best(self, candidates: Values) -> Tensor:
        """There is one candidate."""
        return torch.zeros(candidates[0].shape[1], dtype=torch.long)

    def finished(self, values: Values, iteration: int) -> None:
        """Never before the last iteration."""
