"""Steps within a box: how far they go, and where they end."""

import pytest
import torch
from torch import Tensor

from bauta.errors import NumericalFailure
from bauta.templates.steps import descend

START = torch.full((2, 3, 8, 8), 0.5)


def away_from(target: Tensor):
    return lambda images, iteration: (images - target).square().sum()


@pytest.mark.parametrize("shrinking", [False, True])
def test_no_sample_leaves_the_box(shrinking: bool) -> None:
    found = descend(
        START, away_from(torch.ones(())), budget=0.1, iterations=5, across=2, decay=0.9, high=0.55, shrinking=shrinking
    )
    assert torch.equal(found, torch.full_like(START, 0.55))
    found = descend(
        START, away_from(torch.zeros(())), budget=0.1, iterations=5, across=2, decay=0.9, shrinking=shrinking
    )
    assert torch.allclose(found, torch.full_like(START, 0.4), atol=1e-6)


@pytest.mark.parametrize("shrinking", [False, True])
def test_all_steps_in_one_direction_go_as_far_as_they_should(shrinking: bool) -> None:
    found = descend(
        START, away_from(torch.ones(())), budget=0.2, iterations=10, across=0.5, decay=0.0, shrinking=shrinking
    )
    assert torch.allclose(found, torch.full_like(START, 0.6), atol=1e-6)


def test_shrinking_steps_end_nearer_to_what_they_look_for() -> None:
    target = 0.5 + 0.1 * (2 * torch.rand(START.shape, generator=torch.Generator().manual_seed(0)) - 1)
    left = {
        shrinking: (
            descend(START, away_from(target), budget=0.2, iterations=20, across=2, decay=0.0, shrinking=shrinking)
            - target
        ).abs()
        for shrinking in (False, True)
    }
    assert left[True].mean() < left[False].mean() / 2


def test_a_gradient_that_is_no_number_stops_it() -> None:
    with pytest.raises(NumericalFailure):
        descend(START, lambda images, _: (images * torch.nan).sum(), budget=0.1, iterations=1, across=1, decay=0.0)
