"""The mask that moves: bounds that hold, colours that stay, success that ends early; and the ruler of what is seen."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bauta.cloaking.apply import Picture, edit_pictures, seen_of
from bauta.cloaks.album import LONGEST, Album
from bauta.cloaks.base import Work, least_jacobian
from bauta.cloaks.identity import IdentityLoss
from bauta.cloaks.spatial import Spatial
from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.judging.visibility import ciede2000, measure, to_lab
from bauta.objectives.displacement import ControlPoints, carried, dense, moved, strain, within
from bauta.recognizers.ensemble import Ensemble
from bauta.testing import toy_surrogate, toy_view


def edited(config: SpatialConfig, *views, seed: int = 0, thresholds=None):
    work = Work.seeded(seed, Ensemble([toy_surrogate(0, "one"), toy_surrogate(1, "two")]), thresholds=thresholds or {})
    return Spatial(config).edit(list(views), work)


@pytest.mark.parametrize("displacement", [1.0, 2.8, 6.0])
def test_bounds_of_movement_hold(displacement):
    (edit,) = edited(SpatialConfig(iterations=12, displacement=displacement, strain=0.1), toy_view(3))
    eyes = ARCFACE_112.landmarks()[1, 0] - ARCFACE_112.landmarks()[0, 0]
    assert 0 < float(edit.warp.square().sum(0).sqrt().max()) <= displacement / 100 * eyes * 1.001
    assert float(strain(edit.warp).max()) < 0.105
    assert least_jacobian(edit.warp) > 0.8


def test_a_stronger_floor_leaves_less_lightness():
    weak, strong = (edited(SpatialConfig(iterations=12, psnr=psnr), toy_view(3))[0] for psnr in (42.0, 34.0))
    ratio = float(strong.delta.square().mean() / weak.delta.square().mean())
    assert 10 * np.log10(ratio) == pytest.approx(8.0, abs=0.8)
    assert torch.equal(strong.delta[0], strong.delta[2])  # lightness alone


def test_a_view_without_the_middle_of_its_face_has_an_edit():
    view = toy_view(3)
    region = torch.zeros_like(view.region)
    region[:, :20, :20] = 1.0  # all that the photo shows of the crop
    (edit,) = edited(SpatialConfig(iterations=4), replace(view, region=region))
    assert edit.delta.isfinite().all()
    assert edit.delta[:, :20, :20].abs().max() > 0


def test_without_displacement_nothing_moves():
    (edit,) = edited(SpatialConfig(iterations=4, displacement=0), toy_view(3))
    assert edit.warp is None
    assert edit.delta.abs().max() > 0


def test_a_face_that_is_hidden_already_ends_early_and_with_less():
    views = toy_view(3), toy_view(4)
    # Cosines never exceed 1, so that a threshold of 2 is always passed by the margin, and one of -2 never.
    for thresholds, stopped, level in ((2.0, "converged", 0.6), (-2.0, "iterations", 1.0)):
        config = SpatialConfig(iterations=50, margin=0.2, least=0.6)
        edits = edited(config, *views, thresholds={"one": thresholds, "two": thresholds})
        assert [edit.facts["stopped"] for edit in edits] == [stopped] * 2
        assert [edit.facts["level"] for edit in edits] == [level] * 2


def test_without_thresholds_a_mask_has_its_bounds_in_full():
    # Otherwise an uncalibrated surrogate would hold every mask at its weakest.
    (edit,) = edited(SpatialConfig(iterations=10), toy_view(3), thresholds={"one": 0.3})
    assert edit.facts["level"] == 1.0


@pytest.mark.parametrize("iterations", [5, 20, 50])
def test_a_face_that_needs_more_reaches_the_bounds_in_any_number_of_iterations(iterations):
    (edit,) = edited(SpatialConfig(iterations=iterations), toy_view(3), thresholds={"one": -2.0, "two": -2.0})
    assert edit.facts["level"] == 1.0


def test_a_face_has_the_same_edit_in_any_company():
    config = SpatialConfig(iterations=6)
    alone, (first, _) = edited(config, toy_view(3))[0], edited(config, toy_view(3), toy_view(5))
    assert torch.allclose(alone.warp, first.warp, atol=1e-3)
    assert torch.allclose(alone.delta, first.delta, atol=1e-4)


def test_every_mode_runs_and_pulls_where_it_says():
    targets = torch.stack([toy_view(seed).pixels for seed in (10, 11)])
    surrogate, view = toy_surrogate(0), toy_view(3)
    found = {}
    for mode in ("dodge", "impersonate", "combined"):
        cloak = Spatial(SpatialConfig(mode=mode, iterations=40, psnr=30, displacement=5), targets=targets)
        (edit,) = cloak.edit([view], Work.seeded(0, Ensemble([surrogate])))
        with torch.no_grad():
            shown = (moved(view.pixels[None], edit.warp[None]) + edit.delta[None]).clamp(0, 1)
            own, there = surrogate(view.pixels[None]), surrogate(targets)
            found[mode] = float((surrogate(shown) * own).sum()), float((surrogate(shown) @ there.T).max())
    with torch.no_grad():
        before = float((own @ there.T).max())
    assert found["dodge"][0] < 0.99
    assert found["impersonate"][1] > found["dodge"][1]
    assert found["impersonate"][1] > before
    assert found["combined"][1] > before


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match="movement"):
        SpatialConfig(movement=(0.2, 0.1))
    with pytest.raises(UsageError, match="at least one face"):
        Spatial().edit([], Work.seeded(0, Ensemble([toy_surrogate()])))


def test_a_budget_of_time_shortens_the_descent_and_is_told():
    work = Work.seeded(0, Ensemble([toy_surrogate()]), deadline=time.monotonic() + 0.2)
    (edit,) = Spatial(SpatialConfig(iterations=10_000)).edit([toy_view(3)], work)
    assert 1 <= edit.facts["iterations"] < 10_000
    assert edit.facts["stopped"] == "deadline"
    assert edit.facts["level"] == 1.0


# Fields


def test_a_field_is_zero_at_the_border_and_never_longer_than_its_control_vectors():
    control = torch.randn(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    field = dense(control)
    border = torch.cat([field[..., 0, :], field[..., -1, :], field[..., :, 0], field[..., :, -1]], -1)
    assert border.abs().max() < 1e-4
    assert field.square().sum(1).sqrt().max() <= control.square().sum(1).sqrt().max()


def test_the_strain_of_known_fields():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    assert strain(torch.stack([0.1 * x, 0 * y])).max() == pytest.approx(0.1, rel=1e-3)
    assert strain(torch.stack([0.1 * y, 0 * x])).max() == pytest.approx(0.1, rel=1e-3)
    assert strain(torch.stack([-0.1 * y, 0.1 * x])).max() == pytest.approx(0.1, rel=1e-3)  # turning counts too
    assert strain(torch.ones(2, 5, 5)).max() == 0


def test_steps_stay_inside_the_bounds_and_one_strained_place_does_not_hold_back_the_rest():
    variable = ControlPoints(
        torch.zeros(1, 2, 9, 9), size=0.2, decay=0.8, amplitude=1.0, strain=0.12, level=torch.tensor([0.5])
    )
    momentum = torch.full((1, 1, 2, 9, 9), -1.0)
    momentum[..., 4, 4] = 3.0
    value = variable.start
    for _ in range(30):
        value = variable.moved(value, momentum)[0]
    field = dense(value)
    assert field.square().sum(1).sqrt().max() <= 0.5 + 1e-5
    assert strain(field).max() <= 0.06 + 1e-5
    assert field.square().sum(1).sqrt().max() > 0.2


def test_a_field_turns_and_grows_with_the_face():
    control = torch.zeros(1, 2, 9, 9)
    control[:, 0] = 1.0  # to the right in the crop
    quarter = torch.tensor([[[0.0, 0.5, 0.0], [-0.5, 0.0, 112.0]]])  # crop = half size, turned by 90 degrees
    field = carried(control, quarter, (224, 224))[0, :, 112, 112]
    assert field.tolist() == pytest.approx([0.0, 2.0], abs=1e-3)
    assert within(torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]), (112, 112), (56, 56), (10, 20)).sum() == pytest.approx(
        np.pi * 200, rel=0.02
    )


# What is seen


def face(side: int = 160):
    rng = np.random.default_rng(4)
    import cv2

    pixels = cv2.GaussianBlur(rng.random((side, side, 3)).astype(np.float32), (0, 0), 2)
    return pixels, (ARCFACE_112.landmarks() + (side - 112) / 2).astype(np.float32)


def test_nothing_is_seen_of_nothing():
    pixels, landmarks = face()
    seen = measure(pixels, pixels, landmarks)
    assert (seen.displacement, seen.strain, seen.psnr, seen.chroma, seen.colour) == (0, 0, None, 0, 0)


def test_movement_is_undone_before_the_rest_is_measured():
    view = toy_view(3)
    picture = Picture(np.ascontiguousarray(view.pixels.permute(1, 2, 0).numpy()), view.landmarks.numpy()[None])
    ensemble = Ensemble([toy_surrogate()])
    (change,) = edit_pictures(Spatial(SpatialConfig(iterations=8, psnr=60)), [picture], Work.seeded(0, ensemble))
    seen = seen_of(picture.pixels, picture.landmarks[0], change.edits[0], change.placements[0])
    assert seen.psnr > 45
    assert 0 < seen.displacement <= 4.21
    assert 0 < seen.strain <= 0.19
    bare = measure(picture.pixels, (picture.pixels + change.delta).clip(0, 1), picture.landmarks[0])
    assert bare.psnr < seen.psnr - 10


@pytest.mark.parametrize(("place", "named"), [((0, 1), "irises"), ((3, 4), "lips")])
def test_colour_is_told_where_it_is(place, named):
    pixels, landmarks = face()
    painted = pixels.copy()
    for point in (landmarks[list(place)].mean(0),) if named == "lips" else landmarks[list(place)]:
        x, y = point.astype(int)
        painted[y - 4 : y + 5, x - 8 : x + 9] = (painted[y - 4 : y + 5, x - 8 : x + 9] + [0.2, 0, 0]).clip(0, 1)
    seen = measure(pixels, painted, landmarks)
    other = "lips" if named == "irises" else "irises"
    assert getattr(seen, named) > 2
    assert getattr(seen, other) < 1
    assert seen.chroma > 1


def test_lightness_alone_has_no_chroma():
    pixels, landmarks = face()
    seen = measure(pixels * 0.9, pixels * 0.9 + 0.02, landmarks)
    assert seen.chroma < 0.01
    assert seen.psnr == pytest.approx(-20 * np.log10(0.02), abs=0.01)


def test_colour_differences_are_those_of_scikit_image():
    color = pytest.importorskip("skimage.color")
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 500, 3))
    lab = color.rgb2lab(first), color.rgb2lab(second)
    assert np.abs(to_lab(first.astype(np.float32)) - lab[0]).max() < 0.01
    assert np.abs(ciede2000(*lab) - color.deltaE_ciede2000(*lab)).max() < 1e-6


# Photos of one person


def losses(views, album=None, limit=0.9):
    return IdentityLoss(
        views,
        torch.stack([view.pixels for view in views]),
        Ensemble([toy_surrogate()]),
        None,
        torch.Generator().manual_seed(0),
        limits=[limit],
        album=album,
    )


def test_only_photos_of_the_same_person_push_each_other_away():
    loss = losses([toy_view(3), toy_view(4), toy_view(5)])
    first, second = torch.eye(3, 32)[:2]
    loss.sources[0] = torch.stack([first, first, second])
    loss.present[0] = loss.sources[0].clone()
    pushed = loss._others(0, loss.sources[0])
    assert torch.allclose(pushed[0], first, atol=1e-5)  # away from the other photo of that person
    assert pushed[2].abs().max() == 0  # nobody else is there of that one
    loss.limits[0] = None
    assert loss._others(0, loss.sources[0]).abs().max() == 0


def test_an_album_is_remembered_from_one_photo_to_the_next():
    album, view = Album(), toy_view(3)
    ensemble = Ensemble([toy_surrogate()])
    work = Work.seeded(0, ensemble, thresholds={"toy": 0.5}, album=album)
    Spatial(SpatialConfig(iterations=3)).edit([view], work)
    assert album.sources["toy"].shape == album.protected["toy"].shape == (1, 32)
    assert losses([view], album)._others(0, losses([view]).sources[0]).abs().max() == 0  # itself, protected before
    Spatial(SpatialConfig(iterations=3)).edit([view], work)
    assert len(album.sources["toy"]) == 1
    album.sources["toy"] = torch.nn.functional.normalize(album.sources["toy"] + 0.05 * torch.eye(1, 32), dim=1)
    another = losses([view], album)
    assert another._others(0, another.sources[0]).abs().max() > 0
    for number in range(LONGEST + 5):
        turned = torch.nn.functional.normalize(
            torch.randn(1, 32, generator=torch.Generator().manual_seed(number)), dim=1
        )
        album.add("toy", turned, turned)
    assert len(album.sources["toy"]) == LONGEST
