"""Toys that several rooms' tests share: a small recogniser, a face view, the astronaut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bauta.testing import toy_surrogate as toy_surrogate
from bauta.testing import toy_view as toy_view


def faces(count: int = 4, seed: int = 0) -> torch.Tensor:
    """(count, 3, 112, 112): smooth random pictures where aligned faces are asked for."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, (112, 112), mode="bicubic").clamp(0, 1)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """The public-domain NASA portrait of scikit-image, (512, 512, 3) float32 in [0, 1]."""
    import skimage.data

    return skimage.data.astronaut().astype(np.float32) / 255
