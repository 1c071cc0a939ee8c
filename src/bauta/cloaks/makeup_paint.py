"""Putting a look on faces, differentiably in what it leaves open.

Each part scales the colours that are there and shifts them a little in CIELAB: pores, wrinkles and gloss stay, since
nothing is painted over. What a look leaves open, its colours and how far they reach, are numbers in [-1, 1] between
its bounds; light and shade of the face are a smooth spline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bauta.cloaks.makeup_regions import CHANNELS
from bauta.cloaks.makeup_settings import LOOKS, Look, Part
from bauta.objectives.colour import from_lab, to_lab
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


class Paint:
    """A look on N faces.

    Args:
        images: (N, 3, H, W) in [0, 1].
        maps: (N, C, H, W), those of `bauta.cloaks.makeup_regions.Regions`, stacked.
        grey: Which of them are greyscale, and get lightness alone.
        to_crop: (N, 2, 3), from pixels to crop pixels.
        look: Which.
        intensity: By which its bounds are widened around the face's own colour.
    """

    def __init__(
        self,
        images: Tensor,
        maps: Tensor,
        grey: Sequence[bool],
        to_crop: Tensor,
        look: Look,
        intensity: float,
    ) -> None:
        self.images, self.to_crop = images, to_crop
        self.maps: Maps = {name: maps[:, place, None] for place, name in enumerate(CHANNELS)}
        self.lab = to_lab(images)
        self.before = from_lab(self.lab)
        drawn = LOOKS[look]
        self.parts = list(drawn.layers)
        # Bright smooth skin shows patches of light and shade first.
        bright = ((_mean(self.lab[:, :1], self.maps["skin"]) - 60) / 30).clamp(0, 1)
        self.contour = drawn.contour * intensity * (1 - 0.4 * bright)
        spans = [
            [[1 + intensity * (bound - 1) for bound in layer.depth]]
            + [[intensity * bound for bound in span] for span in (layer.red, layer.yellow)]
            + [list(layer.shape)]
            for layer in drawn.layers.values()
        ]
        bounds = torch.tensor(spans).repeat(len(images), 1, 1, 1)  # (N, P, 4, 2)
        for place, (part, layer) in enumerate(drawn.layers.items()):
            worn = _mean(self.lab[:, 1:2], MASKS[part](self.maps, bounds.new_zeros(1))).reshape(-1, 1)
            bounds[:, place, 1] = bounds[:, place, 1].minimum((layer.most - worn).clamp_min(0))
        self.middle, self.half = bounds.mean(3), (bounds[..., 1] - bounds[..., 0]) / 2
        self.coloured = torch.tensor([not one for one in grey])[:, None, None, None].to(images.dtype)

    @property
    def start(self) -> tuple[Tensor, Tensor]:
        """The middle of the look, and no light or shade: (N, P, 4) and (N, 1, G, G) of zeros."""
        count = len(self.images)
        return torch.zeros(count, len(self.parts), 4), torch.zeros(count, 1, _CONTROLS, _CONTROLS)

    def __call__(self, chosen: Tensor, shade: Tensor) -> Tensor:
        """What is added to the images, (N, 3, H, W).

        Args:
            chosen: (N, P, 4) in [-1, 1]: lightness, red, yellow and shape of each part, between its bounds.
            shade: (N, 1, G, G) in [-1, 1]: light and shade.
        """
        values = (self.middle + self.half * chosen)[..., None, None, None]  # (N, P, 4, 1, 1, 1)
        lab = self.lab
        for place, part in enumerate(self.parts):
            depth, red, yellow, shape = values[:, place].unbind(1)
            mask = MASKS[part](self.maps, shape)
            shift = torch.cat([torch.zeros_like(red), red, yellow], 1) * self.coloured
            lab = lab * (1 + mask * (depth - 1)) + mask * shift
        light = spread(shade, self.to_crop, (self.images.shape[2], self.images.shape[3]))
        light = torch.where(light > 0, 0.5 * light, light)  # bright skin shows light sooner than shade
        light = 1 + self.contour * light * self.maps["shade"]
        lab = torch.cat([lab[:, :1] * light, lab[:, 1:] * light], 1)
        change = from_lab(lab) - self.before
        return torch.where(self.coloured > 0, change, change.mean(1, keepdim=True))


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
