"""The mask of a face through a shot: it moves with the face, keeps to its bounds, and spares dark skin."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bauta.cloaks.base import Work
from bauta.cloaks.p3_fitting import Canvas, Following
from bauta.cloaks.shot import BOLDER
from bauta.cloaks.spatial import Spatial
from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.recognizers.ensemble import Ensemble
from bauta.testing import toy_surrogate, toy_view

EYES = float(ARCFACE_112.landmarks()[1, 0] - ARCFACE_112.landmarks()[0, 0])


def made(config: SpatialConfig, *numbers: int, limit: float | None = None) -> Following:
    names = ("one", "two")
    thresholds = {} if limit is None else dict.fromkeys(names, limit)
    ensemble = Ensemble([toy_surrogate(number, name) for number, name in enumerate(names)])
    views = [toy_view(number) for number in numbers]
    mask = Spatial(config).follow(views, Work.seeded(0, ensemble, thresholds=thresholds))
    assert isinstance(mask, Following)
    return mask


def test_a_frame_that_it_was_not_made_on_has_the_same_mask_within_its_bounds() -> None:
    mask = made(SpatialConfig(iterations=12, displacement=3.0, strain=0.1), 3, 4, 5)
    again = made(SpatialConfig(iterations=12, displacement=3.0, strain=0.1), 3, 4, 5)
    edits = [one.on(toy_view(number)) for one in (mask, again) for number in (3, 9)]
    for edit in edits:
        assert edit.warp is not None
        longest = float(edit.warp.square().sum(0).sqrt().max())
        assert 0.5 * 0.03 * EYES < longest <= BOLDER * 0.03 * EYES * 1.001
        assert torch.equal(edit.delta[0], edit.delta[2])  # lightness alone
        assert edit.delta.abs().max() > 0
    assert torch.equal(edits[0].delta, edits[2].delta)
    assert torch.equal(edits[1].delta, edits[3].delta)


def test_a_mask_that_was_kept_is_the_same_mask() -> None:
    config = SpatialConfig(iterations=6, displacement=3.0, strain=0.1)
    mask, cloak, view = made(config, 3, 4, 5), Spatial(config), toy_view(9)
    before, after = mask.on(view), cloak.resumed(cloak.kept(mask)).on(view)
    assert before.warp is not None
    assert after.warp is not None
    assert torch.equal(before.delta, after.delta)
    assert torch.equal(before.warp, after.warp)
    assert before.facts == after.facts


def test_it_is_as_strong_as_its_frames_need() -> None:
    # Cosines never exceed 1, so that a threshold of 2 is always passed by the margin, and one of -2 never.
    config = SpatialConfig(iterations=10, margin=0.2, least=0.6)
    weak, strong = made(config, 3, 4, 5, limit=2.0), made(config, 3, 4, 5, limit=-2.0)
    assert (weak.facts["level"], strong.facts["level"]) == (0.6, 1.0)
    view = toy_view(3)
    assert weak.on(view).delta.square().mean() < 0.5 * strong.on(view).delta.square().mean()
    assert made(config, 3, 4, 5).facts["level"] == 1.0  # without thresholds none can tell what is enough


def test_the_last_frame_to_be_past_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    from bauta.cloaks.identity import IdentityLoss

    asked = []

    def closest(self: IdentityLoss, pictures: torch.Tensor, received: object) -> torch.Tensor:
        asked.append(len(pictures))
        return torch.tensor([1.0] * (len(pictures) - 1) + [1.0 if len(asked) != 2 else 0.1])

    monkeypatch.setattr(IdentityLoss, "closest", closest)
    mask = made(SpatialConfig(iterations=10, margin=0.2, least=0.6), 3, 4, 5, 6, limit=0.5)
    assert asked == [2, 2, 2, 2]  # frames in pairs; of the first look, one is not past
    assert mask.facts["level"] == 0.7


def test_dark_skin_hides_no_more_than_fair_skin() -> None:
    fair = toy_view(3)
    fair = replace(fair, pixels=(0.6 + 0.2 * (fair.pixels - 0.5)).clamp(0, 1))
    dark = replace(fair, pixels=fair.pixels - 0.4)
    means = {
        (name, even): float(Canvas([view], even).mean) for name, view in (("fair", fair), ("dark", dark))
        for even in (False, True)
    }  # fmt: skip
    assert means["dark", False] > 1.05 * means["fair", False]
    assert means["dark", True] < means["fair", True]
    assert means["fair", True] == pytest.approx(means["fair", False], rel=0.05)


def test_it_moves_towards_no_target() -> None:
    with pytest.raises(UsageError, match="away from the person only"):
        made(SpatialConfig(mode="impersonate"), 3)
