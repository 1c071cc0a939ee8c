"""The objective of the makeup: that of the mask that moves, with a look on the face; see `bauta.cloaks.makeup`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bauta.cloaks.base import Edit, Scalar, Work
from bauta.cloaks.identity import stacked
from bauta.cloaks.makeup_paint import Boxed, Paint
from bauta.cloaks.makeup_regions import Regions, find_regions
from bauta.cloaks.makeup_settings import MakeupConfig
from bauta.cloaks.spatial_objective import Problem
from bauta.cloaks.view import FaceView
from bauta.objectives.descent import Values, Variable
from bauta.objectives.displacement import carried, moved
from bauta.objectives.transports import gaussian_blur


class MadeUp(Problem):
    """Where a batch of views, an ensemble, a look, a field and a lightness mask meet."""

    def __init__(self, views: Sequence[FaceView], targets: Tensor | None, config: MakeupConfig, work: Work) -> None:
        super().__init__(views, targets, config, work)
        self.look: MakeupConfig = config
        self.regions: list[Regions] = [find_regions(view) for view in views]
        self.paint = Paint(
            self.images,
            stacked([regions.maps for regions in self.regions]),
            [view.grey for view in views],
            self.to_crop,
            config.look,
            config.intensity,
        )
        size = config.pace / config.iterations
        boxed: list[Variable] = [Boxed(start, size=size, decay=config.decay) for start in self.paint.start]
        self.variables = (*self.variables, *boxed)

    def painted(self, values: Values) -> Tensor:
        """(N, 3, H, W): what the look adds, before anything moves."""
        return self.paint(values[2], values[3]) * self.region

    def shown(self, values: Values) -> Tensor:
        """The pictures, made up, moved, and with the lightness mask on them; differentiable in all."""
        fields = carried(values[0], self.to_crop, (self.images.shape[2], self.images.shape[3])) * self.inside
        there = self.images + self.painted(values)
        return ((moved(there, fields) if self.config.displacement else there) + values[1]).clamp(0, 1)

    def gradients(self, values: Values) -> Values:
        """Of the field, the lightness mask, what the look leaves open, and light and shade; K is 1."""
        leaves = tuple(value.detach().requires_grad_() for value in values)
        self.advance()
        with torch.enable_grad():
            pictures = self.shown(leaves)
        found = torch.autograd.grad(pictures, leaves, self.toward(pictures), allow_unused=True)
        field, light, chosen, shade = (
            torch.zeros_like(value) if one is None else one for one, value in zip(found, values, strict=True)
        )
        light = torch.stack([gaussian_blur(one[None], s)[0] for one, s in zip(light, self.sigmas, strict=True)])
        return field[None], (light * self.weight)[None], chosen[None], shade[None]

    def edits(self, values: Values, iterations: Sequence[int], stopped: Sequence[str]) -> list[Edit]:
        """What the values are as edits of the views."""
        plain = super().edits(values[:2], iterations, stopped)
        fields = carried(values[0], self.to_crop, (self.images.shape[2], self.images.shape[3])) * self.inside
        with torch.no_grad():
            painted = self.painted(values)
            painted = moved(painted, fields) if self.config.displacement else painted
        edits = []
        for row, (view, edit) in enumerate(zip(self.views, plain, strict=True)):
            height, width = view.pixels.shape[1:]
            delta = edit.delta + painted[row, :, :height, :width] * (view.region > 0)
            if view.grey:
                delta = delta.mean(0, keepdim=True).expand(3, -1, -1)
            facts: dict[str, Scalar] = {"look": self.look.look, "regions": self.regions[row].found}
            if self.regions[row].bare:
                facts["left bare"] = ", ".join(self.regions[row].bare)
            edits.append(replace(edit, delta=delta.clamp(-1, 1).contiguous(), facts={**edit.facts, **facts}))
        return edits
