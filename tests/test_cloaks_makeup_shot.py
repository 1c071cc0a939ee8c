"""Makeup that goes along with a face: the same colours in every frame, steady lines, nothing that appears at once."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from bauta.cloaks import makeup_shot
from bauta.cloaks.base import Follows, Resumes, Work
from bauta.cloaks.makeup import Makeup
from bauta.cloaks.makeup_regions import CHANNELS, find_points
from bauta.cloaks.makeup_settings import MakeupConfig
from bauta.cloaks.makeup_shot import Dressed
from bauta.cloaks.view import FaceView
from bauta.errors import UsageError
from bauta.recognizers.ensemble import Ensemble
from bauta.testing import toy_surrogate
from test_cloaks_makeup import face

# Without the mask beneath, so that all that shows is makeup.
CONFIG = MakeupConfig(look="evening", iterations=2, displacement=0.0, psnr=60.0)


def dressed(config: MakeupConfig = CONFIG, *views: FaceView) -> Dressed:
    work = Work.seeded(0, Ensemble([toy_surrogate(0, "one"), toy_surrogate(1, "two")]))
    made = Makeup(config).follow(views or (face(), lit(0.9)), work)
    assert isinstance(made, Dressed)
    return made


def lit(share: float) -> FaceView:
    view = face()
    return replace(view, pixels=view.pixels * share)


def shares(view: FaceView, carried: Dressed) -> dict[str, float]:
    maps = dict(zip(CHANNELS, carried._maps(view), strict=True))
    return {name: float(maps[name].max()) for name in ("lips_gate", "lid_gate", "brow_gate")}


def test_makeup_is_for_clips_and_can_be_kept() -> None:
    assert isinstance(Makeup(), Follows)
    carried, cloak = dressed(), Makeup(CONFIG)
    assert isinstance(cloak, Resumes)
    again = cloak.resumed(cloak.kept(carried))
    before, after = copy(carried).on(lit(0.8)), again.on(lit(0.8))
    assert torch.equal(before.delta, after.delta)
    assert before.facts == after.facts
    assert before.facts["look"] == "evening"


def test_lips_take_the_same_colour_in_dark_and_light_frames() -> None:
    carried, ratios = dressed(), []
    for share in (1.0, 0.9, 0.8):
        view = lit(share)
        made = (view.pixels + carried.on(view).delta).clamp(0, 1)
        x, y = view.landmarks[3:].mean(0).round().long().tolist()
        lips = slice(y - 4, y + 14), slice(x - 20, x + 20)
        before, after = (pixels[:, lips[0], lips[1]].mean((1, 2)) for pixels in (view.pixels, made))
        assert after[1] < 0.97 * before[1]  # less green: redder
        ratios.append(after / before)
    for one in ratios[1:]:
        assert (one - ratios[0]).abs().max() < 0.05


def test_lines_hold_still_where_the_mesh_trembles_and_follow_a_mouth_that_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view, carried = face(), dressed()
    points, _ = find_points(view)
    pixel = view.crop_pixel
    random = np.random.default_rng(0)
    seen: list[np.ndarray] = []

    def found(view: FaceView) -> tuple[np.ndarray, bool]:
        return seen[-1], True

    monkeypatch.setattr(makeup_shot, "find_points", found)

    def held(there: np.ndarray) -> np.ndarray:
        seen.append(there.astype(np.float32))
        carried._maps(view)
        assert carried._points is not None
        return carried._points

    held(points)
    trembling = [points + random.normal(0, 0.4 * pixel, points.shape) for _ in range(12)]
    still = [held(one) for one in trembling]
    steps, given = (
        [np.linalg.norm(two - one, axis=1).mean() for one, two in pairwise(places[4:])] for places in (still, trembling)
    )
    assert np.mean(steps) < 0.45 * np.mean(given) / pixel
    opened = points + [0, 6 * pixel]
    moved = held(opened) - still[-1]
    assert moved[:, 1].mean() > 5.5  # of 6 crop pixels, at once


def test_a_covered_face_loses_its_makeup_over_some_frames_and_gets_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    view, carried, sure = face(), dressed(), [True]
    real = makeup_shot.find_points
    monkeypatch.setattr(makeup_shot, "find_points", lambda view: (real(view)[0], sure[0]))
    full = shares(view, carried)
    sure[0] = False
    first = shares(view, carried)
    assert all(0.8 * full[name] < first[name] < full[name] for name in full)
    for _ in range(8):
        last = shares(view, carried)
    assert max(last.values()) == 0
    sure[0] = True
    assert all(0 < value < 0.2 * full[name] for name, value in shares(view, carried).items())
    assert shares(view, copy(dressed())) == full  # another clip begins with all of it


def test_grey_frames_stay_grey() -> None:
    grey = face(grey=True)
    delta = dressed(CONFIG, grey).on(grey).delta
    assert torch.equal(delta[0], delta[2])
    assert delta.abs().max() > 0.01


def test_the_look_is_made_together_with_the_mask() -> None:
    carried = dressed(MakeupConfig(iterations=3))
    edit = carried.on(face())
    assert edit.warp is not None
    assert carried.chosen.abs().max() > 0
    assert carried.shade.abs().max() > 0


@pytest.mark.parametrize("settings", [{"painter": "decoder"}, {"mode": "impersonate"}])
def test_what_only_photos_can_have_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="In clips"):
        dressed(replace(CONFIG, **settings))  # type: ignore[arg-type]
