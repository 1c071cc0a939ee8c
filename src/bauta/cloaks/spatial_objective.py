"""The objective and the run of the mask that moves; see `bauta.cloaks.spatial`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bauta.cloaks.base import Edit, Scalar, Work
from bauta.cloaks.identity import IdentityLoss, stacked
from bauta.cloaks.lightness import TYPICAL, field_and_lightness, noticeable
from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.cloaks.targets import composite_faces
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure, UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import alignments
from bauta.objectives.descent import Values, descend
from bauta.objectives.displacement import carried, moved
from bauta.objectives.transports import gaussian_blur, held_out


def optimise(
    views: Sequence[FaceView],
    config: SpatialConfig,
    targets: Tensor | None,
    work: Work,
    make: Callable[..., Problem] | None = None,
) -> list[Edit]:
    """One edit for each view, all in one batch; see `bauta.cloaks.spatial.Spatial.edit`.

    Args:
        views: The faces.
        config: Settings.
        targets: As `Spatial` takes them.
        work: Everything else.
        make: Makes what is minimised of views, targets, settings and work; `Problem` by default.
    """
    make = make or Problem
    if not views:
        raise UsageError("The mask needs at least one face.", hint="Give a view.")
    wanted = None
    if config.mode != "dodge":
        wanted = (composite_faces() if targets is None else targets)[: config.targets]
    asked = config.iterations
    problem = make(views, wanted, config, work)
    if work.deadline is not None:
        # Steps are sized for as many iterations as there is time for; fewer of the size for all would end half way.
        # Nor is there time then to find out how little is enough.
        if (affordable := problem.affordable(work.deadline)) < config.iterations:
            config = replace(config, iterations=affordable, margin=None)
        problem = make(views, wanted, config, work)
    run = descend(problem, problem.variables, config.iterations, deadline=work.deadline, progress=work.progress)
    if not all(torch.isfinite(value).all() for value in run.values):
        raise NumericalFailure("The mask holds NaN or infinity.", hint="Leave out the surrogate that caused it.")
    problem.loss.remember(problem.shown(run.values))
    short = config.iterations < asked  # what ends them all is then the time
    stopped = ["deadline" if short and reason == "iterations" else reason for reason in run.stopped]
    return problem.edits(run.values, run.iterations, stopped)


class Problem:
    """Where a batch of views, an ensemble, a field and a lightness mask meet."""

    def __init__(self, views: Sequence[FaceView], targets: Tensor | None, config: SpatialConfig, work: Work) -> None:
        self.views, self.config = views, config
        self.images = stacked([view.pixels for view in views])
        self.region = stacked([view.region for view in views])
        self.loss = IdentityLoss(
            views,
            self.images,
            work.attacked,
            targets,
            work.generator,
            mode=config.mode,
            away=config.away,
            movement=config.movement,
            scale=config.scale,
            mirror=config.mirror,
            noise=config.noise / 255,
            transports=True,
            limits=[work.thresholds.get(name) for name in work.attacked.names],
            album=work.album,
        )
        self.to_crop = torch.cat([alignments(view.landmarks.numpy(), ARCFACE_112) for view in views])
        self.sigmas = [config.smoothing * view.crop_pixel for view in views]
        self.inside = (self.region > 0).to(self.images.dtype)
        self.iteration = 0
        # Without thresholds none can tell what is enough.
        self.margin = None if None in self.loss.limits else config.margin
        self.level = torch.full((len(views),), 1.0 if self.margin is None else config.least)
        noticed, mean = noticeable(self.views, self.images, self.to_crop, self.inside)
        self.weight = (noticed / mean) ** config.texture
        self.variables = field_and_lightness(config, self.region, noticed / TYPICAL, self.level)

    def shown(self, values: Values) -> Tensor:
        """The pictures, moved and with the lightness mask on them; differentiable in both."""
        control, lightness = values
        fields = carried(control, self.to_crop, (self.images.shape[2], self.images.shape[3])) * self.inside
        there = moved(self.images, fields) if self.config.displacement else self.images
        return (there + lightness).clamp(0, 1)

    def affordable(self, deadline: float) -> int:
        """How many iterations end before a `time.monotonic` value, by the time that one takes; at least one."""
        began = time.monotonic()
        self.gradients(tuple(variable.start for variable in self.variables))
        now = time.monotonic()
        return max(1, int((deadline - now) / (1.15 * (now - began))))

    def gradients(self, values: Values) -> Values:
        """(1, N, 2, G, G) and (1, N, 1, H, W)."""
        control, lightness = (value.detach().requires_grad_() for value in values)
        # First away from oneself; photos that protect each other are moved apart once they have left.
        progress = self.iteration / self.config.iterations
        self.loss.apart = self.config.apart * min(1.0, max(0.0, (progress - 0.3) / 0.5))
        self.iteration += 1
        with torch.enable_grad():
            pictures = self.shown((control, lightness))
        toward = self.toward(pictures)
        field, light = torch.autograd.grad(pictures, (control, lightness), toward, allow_unused=True)
        if field is None:
            field = torch.zeros_like(control)
        light = torch.stack([gaussian_blur(one[None], s)[0] for one, s in zip(light, self.sigmas, strict=True)])
        return field[None], (light * self.weight)[None]

    def toward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) gradient of what is minimised, at pictures."""
        gradient: Tensor = self.loss.gradients(pictures)[0]
        return gradient

    def best(self, candidates: Values) -> Tensor:
        """There is one candidate."""
        return torch.zeros(len(self.views), dtype=torch.long)

    def finished(self, values: Values, iteration: int) -> Tensor | None:
        """Those that are past, looked at after every fifth of the iterations; others are allowed more."""
        if self.margin is None or (iteration + 1) % max(1, self.config.iterations // 5):
            return None
        past = self.past(values)
        self.level += torch.where(past, 0.0, (1 - self.config.least) / 4).minimum(1 - self.level)
        return past

    def past(self, values: Values) -> Tensor:
        """(N,) whether each is past every surrogate's threshold by the margin, in ways that no step drew."""
        assert self.margin is not None
        found: Tensor = self.loss.closest(self.shown(values), held_out()) > self.margin
        return found

    def edits(self, values: Values, iterations: Sequence[int], stopped: Sequence[str]) -> list[Edit]:
        """What the values are as edits of the views."""
        control, lightness = values
        edits = []
        for row, view in enumerate(self.views):
            height, width = view.pixels.shape[1:]
            warp = carried(control[row, None], self.to_crop[row, None], (height, width))[0] * (view.region > 0)
            delta = (lightness[row, :, :height, :width] * (view.region > 0)).expand(3, -1, -1)
            facts: dict[str, Scalar] = {
                "iterations": iterations[row],
                "stopped": stopped[row],
                "level": round(float(self.level[row]), 3),
            }
            edits.append(Edit(view, delta, warp if self.config.displacement else None, facts=facts))
        return edits
