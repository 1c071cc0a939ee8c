"""The objective of the makeup: that of the mask that moves, with a look on the face; see `bauta.cloaks.makeup`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bauta.cloaks.base import Edit, Scalar, Work
from bauta.cloaks.identity import stacked
from bauta.cloaks.makeup_decoder import Decoder
from bauta.cloaks.makeup_paint import MASKS, Bounds, Face, Paint
from bauta.cloaks.makeup_reference import copied_onto, drawn_onto, reference_of, worn
from bauta.cloaks.makeup_regions import Regions, find_regions
from bauta.cloaks.makeup_settings import MakeupConfig
from bauta.cloaks.spatial_objective import Problem
from bauta.cloaks.view import FaceView
from bauta.errors import UsageError
from bauta.faces.warp import warp
from bauta.objectives.descent import Values
from bauta.objectives.displacement import SIDE, carried, moved
from bauta.objectives.transports import gaussian_blur
from bauta.recognizers.ensemble import Ensemble

Painter = Paint | Decoder
"""Puts makeup on N faces, differentiably in what it leaves open."""


class MadeUp(Problem):
    """Where a batch of views, an ensemble, a look, a field and a lightness mask meet."""

    def __init__(self, views: Sequence[FaceView], targets: Tensor | None, config: MakeupConfig, work: Work) -> None:
        super().__init__(views, targets, config, work)
        self.look: MakeupConfig = config
        self.regions: list[Regions] = [find_regions(view) for view in views]
        maps = stacked([regions.maps for regions in self.regions])
        self.face = Face.of(self.images, maps, [view.grey for view in views], self.to_crop)
        self.name = "a photo's" if work.references else config.look
        decoded = bool(work.references) or config.painter == "decoder"
        self.painter: Painter = self._decoder(work) if decoded else self._paint()
        self.variables = (*self.variables, *self.painter.variables)

    def _paint(self) -> Painter:
        config = self.look
        bounds = Bounds.of(self.face, config.look, config.intensity)
        return Paint(self.face, bounds, size=config.pace / config.iterations, decay=config.decay)

    def _decoder(self, work: Work) -> Painter:
        config = self.look
        faces = [worn(view, regions) for view, regions in zip(self.views, self.regions, strict=True)]
        if work.references:
            self._refuse_oneself(work.references[0], work.attacked)
            reference = reference_of(work.references[0])
            wanted = [copied_onto(one, reference) for one in faces]
        else:
            cheeks = warp(MASKS["blush"](self.face.maps, torch.zeros(())), self.to_crop, (SIDE, SIDE))[:, 0]
            wanted = [drawn_onto(one, config.look, cheek) for one, cheek in zip(faces, cheeks, strict=True)]
        return Decoder(
            self.face,
            faces,
            torch.stack(wanted),
            config.intensity,
            faithful=config.faithful,
            decay=config.decay,
            generator=work.generator,
        )

    def _refuse_oneself(self, reference: FaceView, ensemble: Ensemble) -> None:
        limits = [limit for limit in self.loss.limits if limit is not None]
        if len(limits) < len(self.loss.limits):
            return
        with torch.no_grad():
            seen = ensemble.looking_at([reference.landmarks]).all(reference.pixels[None])
        cosines = torch.stack([source @ one[0] for source, one in zip(self.loss.sources, seen, strict=True)])  # (K, N)
        same = cosines >= torch.tensor(limits)[:, None]
        if bool(same.all(0).any()):
            raise UsageError(
                "The photo given with --like shows a person whose face is to be made up.",
                hint="Give a photo of somebody else, or choose the faces to protect with --only or --face.",
            )

    def painted(self, values: Values) -> Tensor:
        """(N, 3, H, W): what makeup adds, before anything moves."""
        return self.painter(*values[2:]) * self.region

    def shown(self, values: Values) -> Tensor:
        """The pictures, made up, moved, and with the lightness mask on them; differentiable in all."""
        fields = carried(values[0], self.to_crop, (self.images.shape[2], self.images.shape[3])) * self.inside
        there = self.images + self.painted(values)
        return ((moved(there, fields) if self.config.displacement else there) + values[1]).clamp(0, 1)

    def gradients(self, values: Values) -> Values:
        """Of the field, the lightness mask, and what the painter leaves open; K is 1."""
        leaves = tuple(value.detach().requires_grad_() for value in values)
        self.advance()
        with torch.enable_grad():
            pictures = self.shown(leaves)
            penalty = self.painter.penalty(*leaves[2:])
        found = torch.autograd.grad(
            (pictures, penalty), leaves, (self.toward(pictures), torch.ones_like(penalty)), allow_unused=True
        )
        field, light, *chosen = (
            torch.zeros_like(value) if one is None else one for one, value in zip(found, values, strict=True)
        )
        light = torch.stack([gaussian_blur(one[None], s)[0] for one, s in zip(light, self.sigmas, strict=True)])
        return field[None], (light * self.weight)[None], *(one[None] for one in chosen)

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
            facts: dict[str, Scalar] = {"look": self.name, "regions": self.regions[row].found}
            if self.regions[row].bare:
                facts["left bare"] = ", ".join(self.regions[row].bare)
            edits.append(replace(edit, delta=delta.clamp(-1, 1).contiguous(), facts={**edit.facts, **facts}))
        return edits
