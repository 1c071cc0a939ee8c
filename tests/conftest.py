"""Toys that several rooms' tests share: a small recogniser, a face view, the astronaut."""

from __future__ import annotations

import os
from typing import Any

# Tests run side by side, each worker on a core of its own; libraries read this when they are first imported, and
# processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

from bauta.recognizers.surrogates import Surrogate
from bauta.registry import load_method
from bauta.templates.base import Protector
from bauta.templates.fit import FitWork
from bauta.testing import toy_surrogate as toy_surrogate
from bauta.testing import toy_view as toy_view


def faces(count: int = 4, seed: int = 0) -> torch.Tensor:
    """(count, 3, 112, 112): smooth random pictures where aligned faces are asked for."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, (112, 112), mode="bicubic").clamp(0, 1)


def fitted(
    method: str | type[Protector],
    images: torch.Tensor,
    recognizer: Surrogate | None = None,
    seed: int = 0,
    **options: Any,
) -> Any:
    """A protector of toy faces; what is not of `FitWork` is a setting of the method."""
    made: type[Protector] = load_method(method) if isinstance(method, str) else method
    about = {name: options.pop(name) for name in ("licence", "data", "progress", "device") if name in options}
    people, folder = tuple(options.pop("people", ())), options.pop("work", None)
    work = FitWork(recognizer or toy_surrogate(), seed, people=people, folder=folder, **about)
    return made.fit_with(images, options, work)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """The public-domain NASA portrait of scikit-image, (512, 512, 3) float32 in [0, 1]."""
    import skimage.data

    return skimage.data.astronaut().astype(np.float32) / 255
