"""From edits to photos: warps at photo resolution, faces that meet, and answers that are none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from bauta import registry
from bauta.cloaking.apply import Picture, apply, edit_pictures, resample
from bauta.cloaks.base import Cloak, Edit, Work, least_jacobian
from bauta.cloaks.view import ViewSpec, cut_view
from bauta.errors import InvalidEdit, UsageError
from bauta.settings import Settings
from bauta.testing import toy_faces, toy_photo

CARD = registry.MethodCard("mover", "cloak", "For tests.", "nobody", "nowhere:Mover", package="bauta-mover")


@dataclass(frozen=True)
class NoConfig(Settings):
    """Nothing."""


class Mover(Cloak[NoConfig]):
    """Whatever a test wants."""

    Config = NoConfig
    card = CARD

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def edit(self, views, work):
        return self.answer(views)


def bump(view, x: float, y: float) -> torch.Tensor:
    """A displacement that is greatest in the middle of the view, in view pixels."""
    height, width = view.pixels.shape[1:]
    hill = [torch.sin(torch.linspace(0, torch.pi, side)) ** 2 for side in (height, width)]
    smooth = hill[0][:, None] * hill[1][None] * view.region[0]
    return torch.stack([x * smooth, y * smooth])


def moved(*amounts):
    """Warps the views by these amounts, in turn."""

    def answer(views):
        return [
            Edit(view, torch.zeros_like(view.pixels), bump(view, *amount))
            for view, amount in zip(views, amounts, strict=True)
        ]

    return Mover(answer)


def change(cloak, photo, *places):
    return apply(cloak, photo, toy_faces(*places), Work.seeded(0))


def test_a_warp_moves_the_original_pixels_and_blurs_nothing(astronaut):
    # A warp of a whole pixel is a shift: what arrives is what was there, to the last bit.
    field = np.zeros((2, 40, 40), np.float32)
    field[0], field[1] = 3, -2
    seen = resample(astronaut, field, 100, 200)
    np.testing.assert_allclose(seen, astronaut[98:138, 203:243], atol=1e-5)
    # Half a pixel to and fro loses little of the detail; bilinear interpolation would lose a quarter.
    field[0], field[1] = 0.5, 0

    def detail(pixels):
        return float(np.abs(np.diff(pixels, axis=1)).mean())

    part = resample(astronaut, field, 100, 200)
    bilinear = (astronaut[100:140, 200:240] + astronaut[100:140, 201:241]) / 2
    assert detail(part) > 0.93 * detail(astronaut[100:140, 200:240])
    assert detail(part) > detail(bilinear)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("side", [100, 330])  # at the photo's own resolution, and reduced
def test_a_warp_changes_the_face_only(mode, side):
    photo = toy_photo(1, 500, 520, mode)
    applied = change(moved((2.0, -1.0)), photo, (80, 90, side))
    delta = applied.change.delta
    assert np.abs(delta).max() > 0.02
    assert np.abs(delta[:85]).max() == 0
    assert np.abs(delta[:, :75]).max() == 0
    assert applied.photo.grey == (mode == "L")
    # The greatest displacement is 2 view pixels; nothing is fetched from further away.
    ratio = max(1.0, side / 224)
    view, placement = cut_view(photo.pixels, toy_faces((80, 90, side)).landmarks[0])
    field = placement.displacement(bump(view, 2.0, -1.0))
    assert 1.9 * ratio < np.abs(field).max() <= 2 * ratio + 1e-3
    assert least_jacobian(torch.from_numpy(field)) > 0.8


def test_a_warp_and_a_delta_add_up():
    photo = toy_photo(2)
    both = Mover(lambda views: [Edit(v, 0.05 * v.region.expand(3, -1, -1), bump(v, 1.0, 0.0)) for v in views])
    delta_only = Mover(lambda views: [Edit(v, 0.05 * v.region.expand(3, -1, -1)) for v in views])
    place = (60, 60, 112)
    one, warped, added = (change(c, photo, place).change.delta for c in (both, moved((1.0, 0.0)), delta_only))
    np.testing.assert_allclose(one, warped + added, atol=1e-6)


def test_sixteen_bits_are_warped_in_sixteen_bits():
    import cv2

    from bauta.photo import read_photo

    samples = (toy_photo(3).pixels * 65535).round().astype(np.uint16) ^ 1
    photo = read_photo(cv2.imencode(".png", samples)[1].tobytes())
    applied = change(moved((1.5, 0.0)), photo, (60, 60, 112))
    assert applied.photo.bits == 16
    np.testing.assert_array_equal(applied.photo.pixels[:40], photo.pixels[:40])
    assert (applied.photo.pixels[100, 100:140] * 257 % 1 != 0).any()  # not rounded to eight bits on the way


@pytest.mark.parametrize("second", [(110, 75, 100), (70, 64, 108), (61, 60, 112)])
def test_warps_of_faces_that_meet_do_not_tear(second):
    photo = toy_photo(4)
    first = (60, 60, 112)
    # They pull against each other as strongly as a single one may.
    amounts = ((9.0, 0.0), (-9.0, 4.0))
    alone = change(moved(amounts[0]), photo, first).change.delta
    together = change(moved(*amounts), photo, first, second)
    from bauta.cloaking.apply import _joined

    fields = []
    for place, amount in zip((first, second), amounts, strict=True):
        view, placement = cut_view(photo.pixels, toy_faces(place).landmarks[0])
        whole = np.zeros((2, 240, 240), np.float32)
        whole[:, placement.rows, placement.columns] = placement.displacement(bump(view, *amount))
        fields.append(whole)
    joined = _joined(*fields)
    assert least_jacobian(torch.from_numpy(joined)) > 0
    assert np.abs(joined).max() <= 9.0 + 1e-3
    torn = np.where(np.abs(fields[0]).sum(0) >= np.abs(fields[1]).sum(0), fields[0], fields[1])
    assert least_jacobian(torch.from_numpy(torn)) <= 0  # what choosing pixel by pixel would have done
    # The first face keeps its warp; so it looks as if it were alone.
    held = np.abs(fields[0]).sum(0) > 0
    np.testing.assert_array_equal(joined[:, held], fields[0][:, held])
    np.testing.assert_allclose(together.change.delta[held], alone[held], atol=1e-4)


def test_where_perturbations_meet_the_stronger_one_holds():
    photo = toy_photo(5)
    strengths = iter([0.1, -0.2])
    cloak = Mover(lambda views: [Edit(v, next(strengths) * v.region.expand(3, -1, -1)) for v in views])
    delta = change(cloak, photo, (40, 60, 112), (90, 60, 112)).change.delta
    assert delta.min() == pytest.approx(-0.2)
    assert delta.max() == pytest.approx(0.1)
    assert delta[116, 120].max() == pytest.approx(-0.2)  # in both


def test_a_face_inside_of_a_much_larger_one_keeps_all_of_its_edit():
    """Such as that of a card held before a face, which the large face's edit would otherwise bury."""
    photo, face, card = toy_photo(4), (20, 20, 190), (120, 130, 40)

    def edits(views):
        warps = iter([(9.0, 0.0), (-3.0, 2.0)] if len(views) == 2 else [(-3.0, 2.0)])
        lights = iter([0.2, -0.05] if len(views) == 2 else [-0.05])
        return [Edit(v, next(lights) * v.region.expand(3, -1, -1), bump(v, *next(warps))) for v in views]

    alone = change(Mover(edits), photo, card).change.delta
    together = change(Mover(edits), photo, face, card).change
    there = (alone != 0).any(axis=2)
    np.testing.assert_allclose(together.delta[there], alone[there], atol=1e-4)
    around = (together.delta != 0).any(axis=2) & ~there
    assert around.sum() > 2 * there.sum()  # the large face has an edit, too
    assert together.delta[around].max() > 0.15


def test_faces_at_the_photos_border_are_warped_up_to_it():
    photo = toy_photo(6)
    applied = change(moved((6.0, 3.0)), photo, (-40, 30, 112))
    assert np.isfinite(applied.photo.pixels).all()
    assert np.abs(applied.change.delta[86, :20]).max() > 0


def test_what_a_cloak_wants_to_be_shown():
    pixels, (points,) = toy_photo(7, 700, 700).pixels, toy_faces((200, 200, 300)).landmarks
    crop, head, exact = (
        cut_view(pixels, points, spec=spec)[0] for spec in (ViewSpec(), ViewSpec("head"), ViewSpec(footprint=None))
    )
    assert head.region.gt(0).sum() > 2.5 * crop.region.gt(0).sum()
    assert exact.pixels.shape[1] > 300 > crop.pixels.shape[1]


def test_batches_progress_and_budget():
    seen, given = [], []

    class Watched(Mover):
        def edit(self, views, work):
            given.append((len(views), work.deadline is not None))
            work.progress(1, 1)
            return [Edit(view, torch.zeros_like(view.pixels)) for view in views]

    work = replace(Work.seeded(0), progress=lambda done, total: seen.append((done, total)))
    faces = toy_faces((10, 10, 60), (80, 10, 60), (10, 90, 60), (300, 300, 60))
    applied = apply(Watched(None), toy_photo(8), faces, work, budget=5.0, batch=2)
    assert given == [(2, True), (1, True)]
    assert seen == [(1, 2), (2, 2)]
    assert (applied.change.kept, applied.change.left) == ((0, 1, 2), (3,))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda views: None, "answered with NoneType instead of a list"),
        (lambda views: [1], "instead of a list of edits"),
        (lambda views: [], "0 edits to 1 views"),
        (lambda views: [Edit(replace(views[0]), torch.zeros_like(views[0].pixels))], "edits of others"),
        (lambda views: [Edit(views[0], torch.zeros(3, 2, 2))], "cannot be used"),
        (lambda views: [Edit(views[0], views[0].pixels * float("nan"))], "NaN or infinity"),
        (lambda views: 1 / 0, "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_answer_names_the_method_and_its_package(answer, said):
    with pytest.raises(InvalidEdit, match=said) as caught:
        change(Mover(answer), toy_photo(), (60, 60, 112))
    assert "mover (of the package bauta-mover)" in caught.value.message
    assert caught.value.hint


def test_a_defect_of_ours_is_not_blamed_on_others():
    class Ours(Mover):
        card: ClassVar = replace(CARD, package="bauta")

    with pytest.raises(ZeroDivisionError):
        change(Ours(lambda views: 1 / 0), toy_photo(), (60, 60, 112))


def test_what_is_given_and_not_needed_is_refused():
    cloak = moved((0.0, 0.0))
    with pytest.raises(UsageError, match="mover has no use for --key"):
        apply(cloak, toy_photo(), toy_faces((60, 60, 112)), Work.seeded(0, key=b"k" * 32))


def test_pictures_without_a_photo_are_edited_together():
    pictures = [Picture(toy_photo(seed).pixels, toy_faces((60, 60, 112)).landmarks) for seed in (1, 2)]
    changes = edit_pictures(moved((1.0, 0.0), (0.0, 1.0)), pictures, Work.seeded(0))
    assert [len(one.edits) for one in changes] == [1, 1]
    assert np.abs(changes[0].delta - changes[1].delta).max() > 0.01
