"""References do what they are named for; what all cloaks do is in test_cloaks_contract."""

from __future__ import annotations

import pytest
import torch

from bauta.cloaks.base import Work, load_cloak
from bauta.errors import UsageError
from bauta.recognizers.ensemble import Ensemble
from bauta.registry import list_methods
from conftest import toy_surrogate, toy_view

REFERENCES = [card.name for card in list_methods(kind="cloak") if card.reference]
ATTACKS = ("pgd", "mi-fgsm", "ti-dim")


def perturb(name: str, *, seed: int = 0, grey: bool = False, **options: float) -> torch.Tensor:
    of = load_cloak(name)
    views = [toy_view(1, grey=grey), toy_view(2, size=96, grey=grey)]
    masks = of(of.configured(options)).edit(views, Work.seeded(seed, Ensemble([toy_surrogate()])))
    assert [mask.delta.shape for mask in masks] == [view.pixels.shape for view in views]
    for mask, view in zip(masks, views, strict=True):
        assert torch.isfinite(mask.delta).all()
        changed = view.pixels + mask.delta
        assert changed.min() >= -1e-6
        assert changed.max() <= 1 + 1e-6
        assert not mask.delta[:, view.region[0] == 0].any()
        if grey:
            torch.testing.assert_close(mask.delta, mask.delta.mean(0, keepdim=True).expand(3, -1, -1))
    first: torch.Tensor = masks[0].delta
    return first


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("name", REFERENCES)
def test_bounds_region_and_determinism(name: str, grey: bool) -> None:
    delta = perturb(name, grey=grey)
    assert torch.equal(delta, perturb(name, grey=grey))
    assert bool(delta.any()) == (name != "clean")
    if name in ("noise", *ATTACKS):
        assert delta.abs().max() <= 16 / 255 + 1e-6
        assert not torch.equal(delta, perturb(name, grey=grey, seed=1))


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_move_away_from_the_person_and_noise_does_not(name: str) -> None:
    surrogate, view = toy_surrogate(), toy_view(1)
    before = surrogate(view.pixels[None])[0]

    def similarity(which: str) -> float:
        return float(surrogate((view.pixels + perturb(which, epsilon=48))[None])[0] @ before)

    assert similarity(name) < similarity("noise") - 0.01


def test_pixelated_faces_are_flat_and_blurred_ones_smooth() -> None:
    view = toy_view(1)
    inside = view.region[0] == 1
    mosaic = (view.pixels + perturb("pixelate", cells=8))[:, :112, :112]
    cell = mosaic[:, 56:70, 56:70]
    assert cell.std((1, 2)).max() < 1e-5
    rough = (view.pixels[:, 1:] - view.pixels[:, :-1]).abs()[:, inside[1:]].mean()
    smooth = view.pixels + perturb("blur", sigma=8)
    assert (smooth[:, 1:] - smooth[:, :-1]).abs()[:, inside[1:]].mean() < rough


def test_each_has_settings_of_its_own() -> None:
    found = {name: [option.name for option in load_cloak(name).Config.options()] for name in REFERENCES}
    assert found == {
        "blur": ["sigma"],
        "clean": [],
        "mi-fgsm": ["epsilon", "iterations"],
        "noise": ["epsilon"],
        "pgd": ["epsilon", "iterations"],
        "pixelate": ["cells"],
        "ti-dim": ["epsilon", "iterations"],
    }
    for method, options in (("noise", {"fog": 1}), ("tip-im", {"preset": "fog"}), ("fog", {})):
        with pytest.raises(UsageError, match="fog"):
            load_cloak(method).configured(options)
    with pytest.raises(UsageError, match="epsilon=0"):
        load_cloak("noise").configured({"epsilon": 0})
    with pytest.raises(UsageError, match="one face"):
        load_cloak("pgd")().edit([], Work.seeded(0, Ensemble([toy_surrogate()])))
