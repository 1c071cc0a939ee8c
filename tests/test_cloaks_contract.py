"""What every registered cloak must do, whatever it is."""

from __future__ import annotations

import pytest
import torch

from bauta.errors import UsageError
from bauta.registry import list_methods, load_method
from conftest import toy_surrogate, toy_view

CLOAKS = [card.name for card in list_methods(kind="cloak")]


def quick(name: str, **changes: object):
    """The cloak with few iterations."""
    method = load_method(name)
    return method(method.Config(iterations=6, **changes))


def run(cloak, views, *, seed: int = 0, surrogates=None):
    generator = torch.Generator().manual_seed(seed)
    return cloak.perturb(views, surrogates or [toy_surrogate(1, "a"), toy_surrogate(2, "b")], generator)


@pytest.mark.parametrize("name", CLOAKS)
def test_output_has_the_views_shape_and_stays_in_range(name):
    views = [toy_view(1), toy_view(2, size=130)]
    for view, mask in zip(views, run(quick(name), views), strict=True):
        assert mask.delta.shape == view.pixels.shape
        assert mask.delta.dtype == torch.float32
        shown = view.pixels + mask.delta
        assert shown.min() >= -1e-6
        assert shown.max() <= 1 + 1e-6
        assert mask.delta.abs().max() > 0


@pytest.mark.parametrize("name", CLOAKS)
def test_nothing_changes_outside_the_region(name):
    view = toy_view(3)
    region = view.region.clone()
    region[:, :40] = 0
    view = type(view)(view.pixels, view.landmarks, region)
    (mask,) = run(quick(name), [view])
    assert mask.delta[:, :40].abs().max() == 0
    assert mask.delta[:, 41:].abs().max() > 0


@pytest.mark.parametrize("name", CLOAKS)
def test_budgets_hold(name):
    view = toy_view(4)
    (mask,) = run(quick(name, epsilon=5.0, psnr=38.0), [view])
    assert mask.delta.abs().max() * 255 <= 5 + 1e-3
    area = float(view.region.sum()) * 3
    rms = float((mask.delta.square().sum() / area).sqrt()) * 255
    assert rms <= 255 * 10 ** (-38 / 20) + 1e-3


@pytest.mark.parametrize("name", CLOAKS)
def test_the_seed_decides(name):
    first, again, other = (run(quick(name), [toy_view(5)], seed=seed)[0].delta for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", CLOAKS)
def test_a_face_does_not_depend_on_its_batch(name):
    views = [toy_view(seed) for seed in (1, 2, 3)]
    together = run(quick(name), views)
    alone = run(quick(name), views[1:2])[0]
    assert torch.allclose(together[1].delta, alone.delta, atol=1e-4)


@pytest.mark.parametrize("name", CLOAKS)
def test_a_face_does_not_depend_on_larger_ones_beside_it(name):
    small, large = toy_view(1), toy_view(2, size=336)
    together, alone = run(quick(name), [small, large])[0], run(quick(name), [small])[0]
    # Not bit by bit: beside a larger one the picture ends elsewhere, and blurs see its border.
    assert float(torch.cosine_similarity(together.delta.flatten(), alone.delta.flatten(), 0)) > 0.95


@pytest.mark.parametrize("name", CLOAKS)
def test_grey_stays_grey(name):
    (mask,) = run(quick(name), [toy_view(6, grey=True)])
    assert torch.equal(mask.delta[0], mask.delta[1])
    assert torch.equal(mask.delta[0], mask.delta[2])


@pytest.mark.parametrize("name", CLOAKS)
def test_similarity_goes_down(name):
    view, network = toy_view(7), toy_surrogate(1)
    (mask,) = run(quick(name, transports=False, movement=(0.0, 0.0)), [view], surrogates=[network])
    before, after = network(torch.stack([view.pixels, view.pixels + mask.delta]))
    assert float(before @ after) < 0.9


@pytest.mark.parametrize("name", CLOAKS)
def test_bad_input_is_refused(name):
    with pytest.raises(UsageError):
        run(quick(name), [])
    with pytest.raises(UsageError):
        quick(name).perturb([toy_view()], [], torch.Generator())


@pytest.mark.parametrize("name", CLOAKS)
def test_a_deadline_in_the_past_still_gives_one_iteration(name):
    (mask,) = quick(name).perturb([toy_view()], [toy_surrogate()], torch.Generator().manual_seed(0), deadline=0.0)
    assert mask.stopped == "deadline"
    assert mask.iterations == 1


@pytest.mark.parametrize("name", CLOAKS)
def test_configs_are_frozen_and_plain(name):
    config = load_method(name).Config()
    with pytest.raises(AttributeError):
        config.iterations = 3
    assert config.to_dict()["iterations"] == config.iterations
