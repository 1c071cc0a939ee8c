"""Toys that several rooms' tests share: a small recogniser, a face view, the astronaut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bauta.cloaks.view import FaceView
from bauta.faces.crop_template import ARCFACE_112
from bauta.recognizers.cards import RecognizerCard
from bauta.recognizers.surrogates import Surrogate


def toy_surrogate(seed: int = 0, name: str = "toy") -> Surrogate:
    """A small random network on ArcFace crops, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.Tanh(), nn.Conv2d(8, 16, 5, stride=4), nn.Tanh(), nn.Flatten(),
            nn.LazyLinear(32, bias=False),
        )  # fmt: skip
        network(torch.zeros(1, 3, 112, 112))
    card = RecognizerCard(
        name=name,
        architecture="toy",
        template=ARCFACE_112,
        colour="RGB",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        dim=32,
        training_set="none",
        terms="none",
        source="tests",
        sha256=f"{seed:064x}",
        weights=Path("toy.onnx"),
        format="onnx",
        roles=frozenset({"surrogate", "judge"}),
    )
    return Surrogate(card, network)


def faces(count: int = 4, seed: int = 0) -> torch.Tensor:
    """(count, 3, 112, 112): smooth random pictures where aligned faces are asked for."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, (112, 112), mode="bicubic").clamp(0, 1)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy_view(seed: int = 0, size: int = 112, grey: bool = False) -> FaceView:
    """A smooth random picture with landmarks where the ArcFace crop has them, feathered at its border."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1 if grey else 3, 14, 14, generator=generator)
    pixels = nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)[0]
    ramp = torch.arange(size).float()
    edge = torch.minimum(ramp, ramp.flip(0)) / 6
    return FaceView(
        pixels=pixels.expand(3, -1, -1).contiguous(),
        landmarks=torch.tensor(ARCFACE_112.points) * (size / 112),
        region=torch.minimum(edge[:, None], edge[None]).clamp(0, 1)[None],
        grey=grey,
    )


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """The public-domain NASA portrait of scikit-image, (512, 512, 3) float32 in [0, 1]."""
    import skimage.data

    return skimage.data.astronaut().astype(np.float32) / 255
