"""A cloak that is fitted once for a person, in one file: what a newcomer writes, and what tests of the rest use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import torch
from torch import Tensor

from bauta import registry
from bauta.cloaks.base import Aim, Cloak, Edit, Need, Work
from bauta.cloaks.view import FaceView
from bauta.faces.alignment import similarity_matrix
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.warp import invert, warp
from bauta.learning.fitted import Fitted, Provenance
from bauta.settings import Flag, Range, Settings

CARD = registry.MethodCard("toy-veil", "cloak", "For tests: one mask for a person.", "our design", "toy_veil:ToyVeil")


@dataclass(frozen=True)
class ToyVeilConfig(Settings):
    """Settings of the veil.

    Attributes:
        epsilon: Greatest change, in 1/255.
        steps: Of the fitting.
    """

    title: ClassVar[str] = "The toy veil"
    presets: ClassVar[tuple[str, ...]] = ("gentle",)
    epsilon: Annotated[float, Range(above=0, to=255), Flag("eps")] = 12.0
    steps: Annotated[int, Range(at=1, to=100)] = 3

    @classmethod
    def gentle(cls) -> ToyVeilConfig:
        return cls(epsilon=4.0)


class ToyVeil(Cloak[ToyVeilConfig]):
    """Signs of the mean gradient over some photos, in the frame of the ArcFace crop."""

    Config = ToyVeilConfig
    needs: ClassVar[frozenset[Need]] = frozenset({"fitted"})
    aims: ClassVar[tuple[Aim, ...]] = ("dodge", "restore")

    @classmethod
    def fit(cls, views: Sequence[FaceView], config: ToyVeilConfig, work: Work) -> Fitted:
        crops = torch.cat([warp(view.pixels[None], _matrix(view)[None], (112, 112)) for view in views])
        aligned = work.attacked.looking_at([torch.tensor(ARCFACE_112.points)] * len(crops))
        mask = 0.1 * torch.randn(3, 112, 112, generator=work.generator)
        for step in range(config.steps):
            mask.requires_grad_()
            with torch.enable_grad():
                now = aligned.all(crops + mask * config.epsilon / 255)
                loss = torch.stack([(a * b.detach()).sum() for a, b in zip(now, aligned.all(crops), strict=True)]).sum()
            (gradient,) = torch.autograd.grad(loss, mask)
            mask = (mask.detach() - gradient.sign()).clamp(-1, 1)
            work.progress(step + 1, config.steps)
        data = f"{len(views)} photos of one person"
        return Fitted(cls.card.name, config.to_dict(), {"mask": mask}, work.attacked.names, Provenance(data))

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        return [Edit(view, self._veil(view, work.fitted[0].parts["mask"])) for view in views]

    def restore(self, views: Sequence[FaceView], payloads: Sequence[bytes], work: Work) -> list[Edit]:
        return [Edit(view, -self._veil(view, work.fitted[0].parts["mask"])) for view in views]

    def _veil(self, view: FaceView, mask: Tensor) -> Tensor:
        matrix = _matrix(view)
        spread = warp(mask[None], invert(matrix)[None], (view.pixels.shape[1], view.pixels.shape[2]))[0]
        if view.grey:
            spread = spread.mean(0, keepdim=True).expand_as(spread)
        # So faint that no photo of the tests is clipped, which could not be undone.
        return spread.clamp(-1, 1) * min(self.config.epsilon / 255, 0.1) * view.region


def _matrix(view: FaceView) -> Tensor:
    return torch.from_numpy(similarity_matrix(view.landmarks.numpy(), ARCFACE_112))


def declare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.METHODS, CARD.name, CARD)
