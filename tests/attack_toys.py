"""A stage for attackers: smooth toy faces of people, and a recogniser that can be cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bauta.faces.crop_template import ARCFACE_112
from bauta.recognizers.cards import RecognizerCard
from bauta.recognizers.surrogates import Surrogate


def toy_faces(people: int, each: int = 2, seed: int = 0) -> tuple[Tensor, tuple[str, ...]]:
    """(people * each, 3, 112, 112) uint8 and their subjects: a smooth pattern for each person, a little varied."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.rand(people, 1, 3, 4, 4, generator=generator)
    varied = own + 0.06 * torch.randn(people, each, 3, 4, 4, generator=generator)
    coarse = varied.flatten(0, 1).clamp(0, 1)
    smooth = nn.functional.interpolate(coarse, (112, 112), mode="bicubic", align_corners=False).clamp(0, 1)
    subjects = tuple(f"person {seed} {number}" for number in range(people) for _ in range(each))
    return (smooth * 255).round().byte(), subjects


def cut_recognizer(seed: int = 0) -> Surrogate:
    """A small random network of named layers: features (8, 28, 28), templates of 16."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.Tanh(), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(128, 16)
        )
    card = RecognizerCard(
        name="toy",
        architecture="toy",
        template=ARCFACE_112,
        colour="RGB",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        dim=16,
        training_set="none",
        terms="none",
        source="tests",
        sha256=f"{seed:064x}",
        weights=Path("toy.onnx"),
        format="onnx",
        roles=frozenset({"surrogate", "judge"}),
    )
    return Surrogate(card, network)


class ToyJudge:
    """Looks at the coarse pattern of a face, as a judge that works."""

    def __init__(self, name: str = "toy_judge") -> None:
        self.card = cut_recognizer().card
        self.name = name

    def embed(self, crops: np.ndarray) -> np.ndarray:
        coarse = crops.reshape(len(crops), 3, 4, 28, 4, 28).mean((3, 5)).reshape(len(crops), -1)
        centred = coarse - 0.5
        centred[~centred.any(1)] = 1.0  # grey: a template it must have
        return (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)
