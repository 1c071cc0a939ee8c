"""A decoder without any training paints makeup on one face: random weights, optimised for this photo alone.

After Shamshad et al. (Makeup-Guided Facial Privacy Protection via Untrained Neural Network Priors, 2024), of which
there are no code and no tables; the layers, losses and numbers here are ours. What the decoder gives are no colours of
pixels, but by what colours are multiplied and shifted, on a coarse grid for each part of the face: so that the skin's
texture stays, and only the edit is enlarged. Its layers are conditioned by what is to be worn (after SPADE, Park et
al. 2019). First it learns to wear that, without any recogniser; then recognisers push it away from the person while
losses of makeup and structure hold it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bauta.cloaks.makeup_paint import MASKS, Face, put_on
from bauta.cloaks.makeup_reference import COPIED, GRID, Worn
from bauta.objectives.displacement import SIDE, seen_from

_WIDTH = 24  # channels of a layer
_COARSE = GRID // 4  # side of its first layer, of which each of two others doubles it
_WARM, _RATE = 120, 4e-3  # steps of Adam without recognisers, and their size
_SIZE = 1.5e-3  # of a step against recognisers
# How far lightness, red and yellow of each of `COPIED` may leave what is to be worn, with an intensity of 1.
_FREE = ((0.06, 2.0, 2.0), (0.08, 2.5, 2.5), (0.08, 0.0, 0.0), (0.12, 0.0, 0.0), (0.07, 3.5, 3.0))
_WEIGHTS = (1.0, 1.0, 0.5, 0.5, 1.0)  # of the parts, in the loss
_STRUCTURE = 1.0  # weight of the loss of structure
_PARTS = len(COPIED)


class Decoder:
    """Paints N faces, each by weights of its own.

    Args:
        face: The pictures.
        worn: What each face wears.
        wanted: (N, P, 3, G, G): what each is to wear, by `bauta.cloaks.makeup_reference.copied_onto`.
        intensity: By which that is multiplied.
        faithful: Weight of the losses that hold it there, beside the cosines of recognisers.
        decay: Momentum decay.
        generator: Of the first weights, which all faces share.
    """

    def __init__(
        self,
        face: Face,
        worn: Sequence[Worn],
        wanted: Tensor,
        intensity: float,
        *,
        faithful: float,
        decay: float,
        generator: torch.Generator,
    ) -> None:
        self.face, self.faithful = face, faithful
        count = len(wanted)
        self.neutral = neutral = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        self.free = intensity * torch.tensor(_FREE)[:, :, None, None]  # (P, 3, 1, 1)
        self.still = (self.free > 0).to(wanted.dtype)
        self.wanted = neutral + intensity * (wanted - neutral)
        self.there = functional.avg_pool2d(torch.stack([one.there for one in worn]), SIDE // GRID)  # (N, P, G, G)
        # What the layers are told: what is to be worn, in units of its freedom, and where.
        goal = ((self.wanted - neutral) / self.free.clamp_min(1e-3) * self.still).flatten(1, 2)
        told = torch.cat([goal / 8, self.there], 1)
        self.told = [functional.avg_pool2d(told, GRID // side) for side in (_COARSE, 2 * _COARSE, GRID)]
        own = torch.cat([one.colours.flatten(0, 1)[None] for one in worn])
        along = torch.linspace(-1, 1, _COARSE)
        places = torch.stack(torch.meshgrid(along, along, indexing="xy")).expand(count, -1, -1, -1)
        own = (
            functional.avg_pool2d(own, SIDE // _COARSE) * torch.tensor([1.0, 0.05, 0.05]).repeat(_PARTS)[:, None, None]
        )
        self.seen = torch.cat([own, functional.avg_pool2d(self.there, GRID // _COARSE), places], 1)
        self.masks = [MASKS[part](face.maps, torch.tensor(copied.shape)) for part, copied in COPIED.items()]
        shapes: list[tuple[int, ...]] = [(_WIDTH, self.seen.shape[1], 3, 3)]
        for _ in range(3):
            shapes += [(2 * _WIDTH, told.shape[1], 1, 1), (_WIDTH, _WIDTH, 3, 3)]
        shapes += [(3 * _PARTS, _WIDTH, 1, 1), (3 * _PARTS,)]
        self._shapes = shapes
        first = [
            torch.randn(shape, generator=generator) / math.sqrt(max(1, math.prod(shape[1:])))
            if len(shape) > 1
            else torch.zeros(shape)
            for shape in shapes
        ]
        start = torch.cat([one.flatten() for one in first])
        self.variables = (Weights(self._warmed(start.expand(count, -1)), size=_SIZE, decay=decay),)

    def __call__(self, weights: Tensor) -> Tensor:
        """What is added to the pictures, (N, 3, H, W), by weights (N, W)."""
        given = self._given(weights)
        bounded = self.wanted + (given - self.wanted).maximum(-self.free).minimum(self.free) * self.still
        change = (bounded - self.neutral).flatten(1, 2)  # which is 0 outside of the crop
        large = functional.interpolate(change, (SIDE, SIDE), mode="bicubic", align_corners=False)
        size = (self.face.images.shape[2], self.face.images.shape[3])
        fields = seen_from(large, self.face.to_crop, size).reshape(-1, _PARTS, 3, *size) + self.neutral
        lab = self.face.lab
        for place, mask in enumerate(self.masks):
            lab = put_on(lab, mask, fields[:, place, :1], fields[:, place, 1:] * self.face.coloured)
        return self.face.change(lab)

    def penalty(self, weights: Tensor) -> Tensor:
        """The losses of makeup and structure, summed over faces: in units of freedom, so that 1 is its bound."""
        away = (self._given(weights) - self.wanted) / self.free.clamp_min(1e-3) * self.still  # (N, P, 3, G, G)
        area = self.there.sum((2, 3)).clamp_min(1.0)
        weight = torch.tensor(_WEIGHTS) / (3 * area)
        makeup = (away.abs().sum(2) * self.there).sum((2, 3)) * weight
        # The same colours in another place are makeup, too, but the mean over a part must be that of the reference.
        mean = (away * self.there[:, :, None]).sum((3, 4)).abs().sum(2) * weight
        light = away[:, :, 0]
        across, down = light.diff(dim=3).abs() * self.there[..., 1:], light.diff(dim=2).abs() * self.there[:, :, 1:]
        structure = (across.sum((2, 3)) + down.sum((2, 3))) * weight
        return self.faithful * (makeup + 2 * mean + _STRUCTURE * structure).sum()

    def _given(self, weights: Tensor) -> Tensor:
        """(N, P, 3, G, G), what the decoder says; one pass for each face, since each has weights of its own."""
        found = []
        for row, one in enumerate(weights):
            parts = [
                part.view(shape)
                for part, shape in zip(one.split([math.prod(s) for s in self._shapes]), self._shapes, strict=True)
            ]
            value = functional.conv2d(self.seen[row, None], parts[0], padding=1)
            for layer, told in enumerate(self.told):
                if layer:
                    value = functional.interpolate(value, scale_factor=2.0, mode="bilinear", align_corners=False)
                scale, shift = functional.conv2d(told[row, None], parts[1 + 2 * layer]).chunk(2, dim=1)
                value = functional.instance_norm(value) * (1 + scale) + shift
                value = functional.conv2d(functional.leaky_relu(value, 0.2), parts[2 + 2 * layer], padding=1)
            value = functional.conv2d(functional.leaky_relu(value, 0.2), parts[-2], parts[-1])
            found.append(value[0].reshape(_PARTS, 3, GRID, GRID))
        return self.neutral + torch.stack(found) * self.free

    def _warmed(self, start: Tensor) -> Tensor:
        """Weights (N, W) that wear what is wanted, before any recogniser is asked."""
        with torch.enable_grad():
            weights = start.clone().requires_grad_()
            adam = torch.optim.Adam([weights], lr=_RATE)
            for _ in range(_WARM):
                adam.zero_grad()
                self.penalty(weights).backward()  # type: ignore[no-untyped-call]
                adam.step()
        return weights.detach()


class Weights:
    """The decoder's weights as a variable of `bauta.objectives.descent`, moved by sign and unbounded.

    Args:
        start: (N, W).
        size: Length of a step.
        decay: Momentum decay.
    """

    def __init__(self, start: Tensor, *, size: float, decay: float) -> None:
        self.start, self.size, self.decay = start, size, decay

    def normalised(self, gradients: Tensor) -> Tensor:
        """Of unit mean absolute value."""
        return gradients / gradients.abs().mean(-1, keepdim=True).clamp_min(1e-20)

    def moved(self, value: Tensor, momentum: Tensor) -> Tensor:
        """A step against the sign of the momentum."""
        return value - self.size * momentum.sign()
