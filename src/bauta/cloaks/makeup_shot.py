"""Makeup in clips: one look for a face through a shot, on lips, lids and brows as each frame has them. Our design.

Which colours are chosen is a matter of the person, and so the same in all frames. Where lips and lids are is found anew
in each frame, since mouths open and eyes close, and trembles: points of the mesh are held against small movements, in
the frame of the aligned crop, and what is covered or comes back fades over some frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta.cloaks.base import Edit, Work
from bauta.cloaks.identity import stacked
from bauta.cloaks.makeup_paint import Bounds, Face, Paint
from bauta.cloaks.makeup_regions import GATES, find_points, find_regions, regions_by, without
from bauta.cloaks.makeup_settings import LOOKS, MakeupConfig
from bauta.cloaks.p3_fitting import Following, descended
from bauta.cloaks.p3_settings import P3MaskConfig
from bauta.cloaks.shot import Shot, following, of_clips
from bauta.cloaks.view import FaceView
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import alignments
from bauta.objectives.displacement import moved

FloatArray = NDArray[np.float32]

_STILL, _FREE = 0.25, 3.0
"""How much of a small movement a point of the mesh makes in one frame, and from how many crop pixels on all of it."""
_FADE = 0.15
"""Most by which the share of a part changes from one frame to the next."""


class DressedShot(Shot):
    """A face in frames of a shot, and the look and the mask that are made for all of them."""

    names = ("control", "lightness", "chosen", "shade")

    def __init__(self, views: Sequence[FaceView], fitted: P3MaskConfig, config: MakeupConfig, work: Work) -> None:
        super().__init__(views, fitted, config, work)
        faces = []
        for canvas in self.canvases:
            maps = stacked([find_regions(view).maps for view in canvas.views])
            faces.append(Face.of(canvas.images, maps, [view.grey for view in canvas.views], canvas.to_crop))
        self.bounds = Bounds.shared([Bounds.of(face, config.look, config.intensity) for face in faces])
        self.paints = [Paint(face, self.bounds) for face in faces]
        made = self.bounds.variables(config.pace / config.iterations, config.decay)
        self.variables = (*self.variables, *made)

    def shown(self, number: int, values: Sequence[Tensor]) -> Tensor:
        """The frames of a canvas, made up, moved, and with the lightness mask on them."""
        control, lightness, chosen, shade = values
        canvas = self.canvases[number]
        control, lightness = (value.expand(len(canvas.views), -1, -1, -1) for value in (control, lightness))
        fields, light = canvas.spatial(control, lightness, self.config.psnr)
        there = canvas.images + self.paints[number](chosen, shade) * canvas.region
        return (moved(there, fields) + light).clamp(0, 1)


@dataclass(eq=False)
class Dressed:
    """A look and a mask that go along with a face; see `bauta.cloaks.base.Carried`.

    Attributes:
        mask: What lies beneath.
        bounds: Of the look on this face.
        chosen: (1, P, 4), as for `Paint`.
        shade: (1, 1, G, G), as for `Paint`.
        look: Its name.
    """

    mask: Following
    bounds: Bounds
    chosen: Tensor
    shade: Tensor
    look: str
    _points: FloatArray | None = field(default=None, init=False)  # of the frame before, in crop pixels
    _shares: Mapping[str, float] = field(default_factory=dict, init=False)

    def on(self, view: FaceView) -> Edit:
        """Look and mask on the next frame."""
        edit = self.mask.on(view)
        maps = self._maps(view)
        to_crop = alignments(view.landmarks.numpy(), ARCFACE_112)
        face = Face.of(view.pixels[None], maps[None], [view.grey], to_crop)
        with torch.no_grad():
            painted = Paint(face, self.bounds)(self.chosen, self.shade) * view.region
            if edit.warp is not None:
                painted = moved(painted, edit.warp[None]) * (view.region > 0)
        delta = edit.delta + painted[0]
        if view.grey:
            delta = delta.mean(0, keepdim=True).expand(3, -1, -1)
        return replace(edit, delta=delta.clamp(-1, 1).contiguous(), facts={**edit.facts, "look": self.look})

    def _maps(self, view: FaceView) -> Tensor:
        """Where the parts of the face are, steady."""
        matrix = alignments(view.landmarks.numpy(), ARCFACE_112)[0].double().numpy()
        points, sure = find_points(view)
        there = points @ matrix[:, :2].T + matrix[:, 2]
        if self._points is None:
            held = there
        elif sure:
            away = np.linalg.norm(there - self._points, axis=1, keepdims=True)
            held = self._points + (there - self._points) * (away / _FREE).clip(_STILL, 1)
        else:
            held = self._points
        back = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))
        regions = regions_by((held @ back[:2, :2].T + back[:2, 2]).astype(np.float32), view, sure=sure)
        wanted = {part: float(part not in regions.bare) for part in GATES}
        before = self._shares or wanted
        shares = {part: before[part] + float(np.clip(wanted[part] - before[part], -_FADE, _FADE)) for part in GATES}
        self._points, self._shares = held.astype(np.float32), shares
        return without(regions.maps, shares)


def follow(views: Sequence[FaceView], config: MakeupConfig, work: Work) -> Dressed:
    """One look and one mask for all views of a face; see `bauta.cloaks.shot.follow`."""
    fitted = of_clips(config, len(views))
    shot = DressedShot(views, fitted, config, work)
    return _dressed(fitted, descended(shot, fitted, work), shot.bounds, float(shot.level[0]), config.look)


def kept(carried: Dressed) -> dict[str, NDArray[Any]]:
    """What `resumed` makes the same of again."""
    bounds = {name: getattr(carried.bounds, name).numpy() for name in _BOUNDS}
    parts = {name: part.numpy() for name, part in carried.mask.parts.items()}
    return {**parts, **bounds, "level": np.array(carried.mask.facts["level"], dtype=np.float64)}


def resumed(config: MakeupConfig, kept: Mapping[str, NDArray[Any]]) -> Dressed:
    """A look and a mask that were kept, made with the same settings."""
    parts = {name: torch.from_numpy(kept[name]) for name in DressedShot.names}
    middle, half, contour = (torch.from_numpy(kept[name]) for name in _BOUNDS)
    bounds = Bounds(tuple(LOOKS[config.look].layers), middle, half, contour)
    return _dressed(of_clips(config), parts, bounds, float(kept["level"]), config.look)


_BOUNDS = ("middle", "half", "contour")


def _dressed(fitted: P3MaskConfig, parts: Mapping[str, Tensor], bounds: Bounds, level: float, look: str) -> Dressed:
    return Dressed(following(fitted, parts, level), bounds, parts["chosen"], parts["shade"], look)
