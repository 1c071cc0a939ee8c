"""Putting a look on faces, differentiably in what it leaves open.

Each part scales the colours that are there and shifts them a little in CIELAB: pores, wrinkles and gloss stay, since
nothing is painted over. What a look leaves open, its colours and how far they reach, are numbers in [-1, 1] between
its bounds; light and shade of the face are a smooth spline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bauta.cloaks.makeup_regions import CHANNELS
from bauta.cloaks.makeup_settings import LOOKS, Look, Part
from bauta.objectives.colour import from_lab, to_lab
from bauta.objectives.descent import Variable
from bauta.objectives.displacement import spread

Maps = Mapping[str, Tensor]
_CONTROLS = 9  # of the spline of light and shade, along a side of the crop


def _soft(values: Tensor, width: float) -> Tensor:
    return torch.sigmoid(values / (0.5 * width))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(N, 1, 1, 1) mean of values (N, 1, H, W) over a mask; 0 where it is empty."""
    return (values * mask).sum((1, 2, 3), keepdim=True) / mask.sum((1, 2, 3), keepdim=True).clamp_min(1e-6)


def _lips(maps: Maps, shape: Tensor) -> Tensor:
    return _soft(shape - maps["lips"], 0.6) * maps["lips_gate"]


def _shadow(maps: Maps, shape: Tensor) -> Tensor:
    # Densest at the lashes, and gone before the brow.
    dense = (1 - maps["way"] / shape.clamp_min(0.1)).clamp(0, 1)
    ends = (4 * maps["along"]).clamp(0, 1)
    return dense * _soft(0.3 - maps["orbit"], 2.0) * _soft(maps["eye"] - 0.2, 0.4) * ends * maps["lid_gate"]


def _liner(maps: Maps, shape: Tensor) -> Tensor:
    thick = shape * (0.3 + 0.7 * maps["along"])
    return _soft(thick - maps["lid"], 0.5) * _soft(maps["eye"] + 0.1, 0.3) * maps["lid_gate"].sqrt()


def _brows(maps: Maps, shape: Tensor) -> Tensor:
    return _soft(shape - maps["brow"], 1.8) * maps["brow_gate"]


def _blush(maps: Maps, shape: Tensor) -> Tensor:
    cheeks = [
        torch.exp(-(((maps[f"across_{side}"] - shape) / 9.0).square() + (maps[f"down_{side}"] / 5.5).square()) / 2)
        for side in (1, 2)
    ]
    return (cheeks[0] + cheeks[1]).clamp_max(1) * maps["skin"]


def _tone(maps: Maps, shape: Tensor) -> Tensor:
    return maps["skin"]


def _stubble(maps: Maps, shape: Tensor) -> Tensor:
    return maps["jaw"]


MASKS: dict[Part, Callable[[Maps, Tensor], Tensor]] = {
    "lips": _lips,
    "shadow": _shadow,
    "liner": _liner,
    "brows": _brows,
    "blush": _blush,
    "tone": _tone,
    "stubble": _stubble,
}


@dataclass(frozen=True, eq=False)
class Face:
    """N pictures of faces that something is put on.

    Attributes:
        images: (N, 3, H, W) in [0, 1].
        maps: (N, 1, H, W) each, those of `bauta.cloaks.makeup_regions.Regions` by name.
        to_crop: (N, 2, 3), from pixels to crop pixels.
        coloured: (N, 1, 1, 1), 0 for greyscale pictures, which get lightness alone.
    """

    images: Tensor
    maps: Maps
    to_crop: Tensor
    coloured: Tensor

    @classmethod
    def of(cls, images: Tensor, maps: Tensor, grey: Sequence[bool], to_crop: Tensor) -> Face:
        """From maps (N, C, H, W), stacked."""
        named = {name: maps[:, place, None] for place, name in enumerate(CHANNELS)}
        return cls(images, named, to_crop, torch.tensor([not one for one in grey])[:, None, None, None].to(images))

    @cached_property
    def lab(self) -> Tensor:
        """(N, 3, H, W), CIELAB."""
        return to_lab(self.images)

    @cached_property
    def _back(self) -> Tensor:
        return from_lab(self.lab)

    def change(self, lab: Tensor) -> Tensor:
        """What is added to the pictures, (N, 3, H, W), so that they have these colours."""
        added = from_lab(lab) - self._back
        return torch.where(self.coloured > 0, added, added.mean(1, keepdim=True))


def put_on(lab: Tensor, mask: Tensor, depth: Tensor, shift: Tensor) -> Tensor:
    """Colours of a part, multiplied and shifted.

    Args:
        lab: (N, 3, H, W).
        mask: (N, 1, H, W) in [0, 1].
        depth: (N, 1, ...), by which they are multiplied.
        shift: (N, 2, ...), added to red and yellow.
    """
    scaled = lab * (1 + mask * (depth - 1))
    return torch.cat([scaled[:, :1], scaled[:, 1:] + mask * shift], 1)


@dataclass(frozen=True, eq=False)
class Bounds:
    """Between what the numbers of a look may lie, on N faces.

    Attributes:
        parts: Of the look.
        middle: (N, P, 4) of lightness, red, yellow and shape of each part.
        half: (N, P, 4), how far they may be from it.
        contour: (N, 1, 1, 1), the largest share of lightness that shade takes.
    """

    parts: tuple[Part, ...]
    middle: Tensor
    half: Tensor
    contour: Tensor

    @classmethod
    def of(cls, face: Face, look: Look, intensity: float) -> Bounds:
        """Those of a look, widened by an intensity around the faces' own colours."""
        drawn = LOOKS[look]
        # Bright smooth skin shows patches of light and shade first.
        bright = ((_mean(face.lab[:, :1], face.maps["skin"]) - 60) / 30).clamp(0, 1)
        spans = [
            [[1 + intensity * (bound - 1) for bound in layer.depth]]
            + [[intensity * bound for bound in span] for span in (layer.red, layer.yellow)]
            + [list(layer.shape)]
            for layer in drawn.layers.values()
        ]
        bounds = torch.tensor(spans).repeat(len(face.images), 1, 1, 1)  # (N, P, 4, 2)
        for place, (part, layer) in enumerate(drawn.layers.items()):
            worn = _mean(face.lab[:, 1:2], MASKS[part](face.maps, bounds.new_zeros(1))).reshape(-1, 1)
            bounds[:, place, 1] = bounds[:, place, 1].minimum((layer.most - worn).clamp_min(0))
        contour = drawn.contour * intensity * (1 - 0.4 * bright)
        return cls(tuple(drawn.layers), bounds.mean(3), (bounds[..., 1] - bounds[..., 0]) / 2, contour)

    @classmethod
    def shared(cls, several: Sequence[Bounds]) -> Bounds:
        """Of one look, the mean over all faces, which is one face's."""
        middle, half, contour = (
            torch.cat([getattr(one, name) for one in several]).mean(0, keepdim=True)
            for name in ("middle", "half", "contour")
        )
        return cls(several[0].parts, middle, half, contour)

    def variables(self, size: float, decay: float) -> tuple[Variable, ...]:
        """What the look leaves open, in the order in which `Paint` takes it.

        Args:
            size: Length of a step.
            decay: Momentum decay.
        """
        count = len(self.middle)
        starts = torch.zeros(count, len(self.parts), 4), torch.zeros(count, 1, _CONTROLS, _CONTROLS)
        return tuple(Boxed(one, size=size, decay=decay) for one in starts)


class Paint:
    """A look on N faces.

    Args:
        face: The pictures.
        bounds: Of the look, on N faces or on one that they all are.
        size: Length of a step.
        decay: Momentum decay.
    """

    def __init__(self, face: Face, bounds: Bounds, *, size: float = 0.0, decay: float = 0.0) -> None:
        self.face, self.bounds = face, bounds
        self.variables = bounds.variables(size, decay)

    def __call__(self, chosen: Tensor, shade: Tensor) -> Tensor:
        """What is added to the images, (N, 3, H, W).

        Args:
            chosen: (N, P, 4) in [-1, 1]: lightness, red, yellow and shape of each part, between its bounds.
            shade: (N, 1, G, G) in [-1, 1]: light and shade.
            Either may have one row for all faces.
        """
        face, bounds = self.face, self.bounds
        values = (bounds.middle + bounds.half * chosen)[..., None, None, None]  # (N, P, 4, 1, 1, 1)
        lab = face.lab
        for place, part in enumerate(bounds.parts):
            depth, red, yellow, shape = values[:, place].unbind(1)
            lab = put_on(lab, MASKS[part](face.maps, shape), depth, torch.cat([red, yellow], 1) * face.coloured)
        light = spread(
            shade.expand(len(face.images), -1, -1, -1), face.to_crop, (face.images.shape[2], face.images.shape[3])
        )
        light = torch.where(light > 0, 0.5 * light, light)  # bright skin shows light sooner than shade
        return face.change(lab * (1 + bounds.contour * light * face.maps["shade"]))

    def penalty(self, chosen: Tensor, shade: Tensor) -> Tensor:
        """Nothing: the box is all that holds it."""
        return 0 * chosen.sum()


class Boxed:
    """Numbers in [-1, 1] as a variable of `bauta.objectives.descent`, moved by sign.

    Args:
        start: (N, ...).
        size: Length of a step.
        decay: Momentum decay.
    """

    def __init__(self, start: Tensor, *, size: float, decay: float) -> None:
        self.start, self.size, self.decay = start, size, decay

    def normalised(self, gradients: Tensor) -> Tensor:
        """Of unit mean absolute value."""
        scale = gradients.abs().flatten(2).mean(2).reshape(*gradients.shape[:2], *(1,) * (gradients.ndim - 2))
        return gradients / scale.clamp_min(1e-20)

    def moved(self, value: Tensor, momentum: Tensor) -> Tensor:
        """A step against the sign of the momentum, back into the box."""
        return (value - self.size * momentum.sign()).clamp(-1, 1)
