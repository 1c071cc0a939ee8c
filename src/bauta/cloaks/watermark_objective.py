"""How a message gets into a face, and out of it; see `bauta.cloaks.watermark`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bauta.cloaks.base import Reading, Work
from bauta.cloaks.carriers import Carriers, spectra, summaries, turns
from bauta.cloaks.payload import ATTEMPTS, BITS, TAG_BITS, decoded, encoded
from bauta.cloaks.spatial_objective import Problem
from bauta.cloaks.view import FaceView
from bauta.cloaks.watermark_settings import WatermarkConfig
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import alignments
from bauta.faces.warp import compose
from bauta.objectives.descent import Values
from bauta.objectives.transports import draw_movement, draw_transport, held_out

_SPREAD, _TURN, _SCALE = 0.006, 0.01, 0.015  # of the crop: how far beside a reader finds the face
_ENOUGH = 0.93  # share of bits that must be right in every way that no step drew
_SHARP = 4.0

# Where the reader looks: right and down in crop pixels, growth, and turn in radians.
_COARSE = (np.arange(-3, 3.1, 1.0), np.arange(-3, 3.1, 1.0), (-0.03, 0.0, 0.03), (-0.03, 0.0, 0.03))
_FINE = (np.arange(-0.6, 0.7, 0.3), np.arange(-0.6, 0.7, 0.3), (-0.012, 0.0, 0.012), (-0.012, 0.0, 0.012))
_WIDE = (
    np.arange(-4.5, 4.6, 1.5),
    np.arange(-4.5, 4.6, 1.5),
    np.arange(-0.08, 0.1, 0.04),
    np.arange(-0.12, 0.13, 0.04),
)
_PLACES, _DOUBTED = 4, 5
_CHANCE = 2 * _PLACES * 2**_DOUBTED * ATTEMPTS * 2.0**-TAG_BITS
"""Of a clean face to say something: every text that is looked at has a tag to pass."""


class WatermarkProblem(Problem):
    """Away from the person, and towards the message."""

    config: WatermarkConfig

    def __init__(self, views: list[FaceView], targets: Tensor | None, config: WatermarkConfig, work: Work) -> None:
        super().__init__(views, targets, config, work)
        assert work.key is not None
        self.carriers = Carriers(work.key, BITS)
        bits = encoded(work.message or "", work.key) * np.float32(2) - 1
        seen = summaries(self.images, self.to_crop.double(), work.key)
        self.signs = torch.from_numpy(np.stack([bits * turns(work.key, one, BITS) for (one,) in seen]))  # (N, bits)
        self.generator = work.generator

    def toward(self, pictures: Tensor) -> Tensor:
        """Both directions, each of unit length; that of the message less as more of its bits are sure."""
        person = super().toward(pictures)
        leaf = pictures.detach().requires_grad_()
        movement = draw_movement(self.generator, (112, 112), spread=_SPREAD, turn=_TURN, scale=_SCALE)
        with torch.enable_grad():
            shown = draw_transport(self.generator)(leaf)
            soft = self._soft(shown, compose(movement.double(), self.to_crop.double()))
            loss = functional.softplus(_SHARP * (self.config.sure - soft)).mean(1).sum()
        (message,) = torch.autograd.grad(loss, leaf)
        short = (soft.detach() < self.config.sure).float().mean(1)[:, None, None, None]
        weight = self.config.weight * (4 * short).clamp_max(1)
        return _unit(person) + weight * _unit(message)

    def past(self, values: Values) -> Tensor:
        """Faces that are not known any more, and say what they should."""
        pictures = self.shown(values)
        least = torch.ones(len(pictures))
        with torch.no_grad():
            for through in held_out():
                right = self._soft(through(pictures), self.to_crop) > 0
                least = least.minimum(right.float().mean(1))
        return super().past(values) & (least >= _ENOUGH)

    def _soft(self, pictures: Tensor, to_crop: Tensor) -> Tensor:
        """(N, bits) how sure the bits are; negative where one is wrong."""
        return self.carriers.soft(spectra(pictures, to_crop)) * self.signs


def _unit(gradients: Tensor) -> Tensor:
    return gradients / gradients.square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)


def reading(view: FaceView, key: bytes) -> Reading:
    """What a view says under a key; the face is looked for beside where its landmarks are, and then farther away."""
    to_crop = alignments(view.landmarks[None].numpy(), ARCFACE_112)[0].double()
    carriers, clearest = Carriers(key, BITS), 0.0
    for moves in (_moves(*_COARSE), _moves(*_WIDE)):
        found = _clear(_soft(carriers, view, to_crop, moves))
        for at in np.argsort(-found)[:_PLACES]:
            near = compose(moves[int(at)], to_crop)
            finer = _soft(carriers, view, near, _moves(*_FINE))
            best = int(np.argmax(_clear(finer)))
            clear = float(_clear(finer)[best])
            clearest = max(clearest, clear)
            place = compose(_moves(*_FINE)[best], near)
            for summary in summaries(view.pixels[None], place[None], key, _DOUBTED)[0]:
                text = decoded(finer[best] * turns(key, summary, BITS), key)
                if text is not None:
                    return Reading(text[0], _CHANCE, {"corrected": text[1], "bits": BITS, "clear": round(clear, 2)})
    return Reading(None, 1.0, {"clear": round(clearest, 2)})


def _clear(soft: np.ndarray) -> np.ndarray:
    """(M,) how alike in strength the bits are: written ones all are sure, those of chance are about 1.3."""
    strength = np.abs(soft)
    clear: np.ndarray = strength.mean(1) / strength.std(1)
    return clear


def _moves(right: Iterable[float], down: Iterable[float], growth: Iterable[float], turn: Iterable[float]) -> Tensor:
    """(M, 2, 3) all of them, about the middle of the crop."""
    moves = []
    for x, y, larger, angle in product(right, down, growth, turn):
        cosine, sine = (1 + larger) * math.cos(angle), (1 + larger) * math.sin(angle)
        middle = 55.5
        moves.append(
            [
                [cosine, -sine, middle - cosine * middle + sine * middle + x],
                [sine, cosine, middle - sine * middle - cosine * middle + y],
            ]
        )
    return torch.tensor(moves, dtype=torch.float64)


def _soft(carriers: Carriers, view: FaceView, to_crop: Tensor, moves: Tensor) -> np.ndarray:
    with torch.no_grad():
        parts = [spectra(view.pixels[None], compose(some, to_crop)) for some in torch.split(moves, _AT_ONCE)]
    values: np.ndarray = carriers.soft(torch.cat(parts)).numpy()
    return values


_AT_ONCE = 256
