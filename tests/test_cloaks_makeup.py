"""Makeup: a mesh that is found or told of, parts where they belong, looks that stay looks, and a ruler that notices."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional

from bauta.cloaking.given import view_of
from bauta.cloaks.base import Edit, Work
from bauta.cloaks.makeup import Makeup
from bauta.cloaks.makeup_objective import MadeUp
from bauta.cloaks.makeup_paint import Bounds, Face, Paint
from bauta.cloaks.makeup_reference import COPIED, copied_onto, reference_of, worn
from bauta.cloaks.makeup_regions import CHANNELS, find_regions
from bauta.cloaks.makeup_settings import LOOKS, Look, MakeupConfig
from bauta.cloaks.spatial import Spatial
from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.cloaks.targets import composite_faces
from bauta.cloaks.view import FaceView, ViewSpec
from bauta.errors import UsageError
from bauta.faces.centerface import SHIPPED
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import alignments
from bauta.faces.faces import Faces
from bauta.faces.mesh import SURE, find_mesh
from bauta.judging.naturalness import measure_makeup
from bauta.objectives.colour import from_lab, to_lab
from bauta.objectives.transports import gaussian_blur
from bauta.photo import read_photo
from bauta.recognizers.ensemble import Ensemble
from bauta.testing import toy_surrogate, toy_view

SIDE = 224


def face(number: int = 4, grey: bool = False) -> FaceView:
    """A composite face, enlarged."""
    pixels = functional.interpolate(composite_faces()[number, None], (SIDE, SIDE), mode="bicubic")[0].clamp(0, 1)
    if grey:
        pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1).contiguous()
    view = toy_view(size=SIDE)
    landmarks = torch.tensor((np.array(ARCFACE_112.points) + 0.5) * SIDE / 112 - 0.5, dtype=torch.float32)
    return FaceView(pixels, landmarks, view.region, grey)


def made_up(view: FaceView, look: Look = "evening", **settings) -> Edit:
    config = MakeupConfig(look=look, iterations=3, **settings)
    work = Work.seeded(0, Ensemble([toy_surrogate(0, "one"), toy_surrogate(1, "two")]))
    return Makeup(config).edit([view], work)[0]


def paint(view: FaceView, look: Look = "evening", intensity: float = 1.0) -> Paint:
    to_crop = alignments(view.landmarks.numpy(), ARCFACE_112)
    face = Face.of(view.pixels[None], find_regions(view).maps[None], [view.grey], to_crop)
    return Paint(face, Bounds.of(face, look, intensity))


def starts(made: Paint) -> list[torch.Tensor]:
    """What its numbers are before any is chosen."""
    return [one.start for one in made.variables]


def maps_of(view: FaceView) -> dict[str, torch.Tensor]:
    return dict(zip(CHANNELS, find_regions(view).maps, strict=True))


# The mesh


def test_the_mesh_is_the_file_of_its_card_and_its_terms_are_named():
    card = tomllib.loads((SHIPPED / "face_mesh.toml").read_text(encoding="utf-8"))
    assert hashlib.sha256((SHIPPED / card["weights"]).read_bytes()).hexdigest() == card["sha256"]
    notice = (SHIPPED / "NOTICE").read_text(encoding="utf-8")
    assert "MediaPipe" in notice
    assert "Apache License" in notice


@pytest.mark.parametrize("turn", [0, 35, 180])
def test_the_mesh_lies_on_the_landmarks_at_every_angle(turn):
    view = face()
    angle = np.radians(turn)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (SIDE - 1) / 2
    offset = middle - linear @ [middle, middle]
    import cv2

    pixels = cv2.warpAffine(view.pixels.permute(1, 2, 0).numpy(), np.column_stack([linear, offset]), (SIDE, SIDE))
    landmarks = view.landmarks.numpy() @ linear.T + offset
    mesh = find_mesh(pixels, landmarks)
    assert mesh.score > SURE
    corners = mesh.points[[61, 291]]  # of the mouth, left and right in an upright picture
    assert np.hypot(*(corners - landmarks[3:]).T).max() < 8


def test_no_face_no_mesh():
    assert find_mesh(toy_view().pixels.permute(1, 2, 0).numpy().copy(), np.array(ARCFACE_112.points)).score < SURE


# Where parts are


def test_parts_lie_where_they_should():
    maps, points = maps_of(face()), face().landmarks
    for eye in points[:2].round().long().tolist():
        assert maps["eye"][eye[1], eye[0]] < 0
        assert maps["skin"][eye[1], eye[0]] < 0.3
        assert maps["lips"][eye[1], eye[0]] > 20
    x, y = points[3:].mean(0).round().long().tolist()
    assert maps["lips"][y, x] < 0
    nose_x, nose_y = points[2].round().long().tolist()
    assert maps["skin"][nose_y, nose_x] > 0.5


def test_without_a_mesh_only_soft_parts_are_made_up_and_it_is_told():
    view = toy_view(3)
    assert find_regions(view).found == "five points"
    edit = made_up(view)
    assert edit.facts["regions"] == "five points"
    assert edit.facts["left bare"] == "lids, lips, brows"


def test_a_mesh_of_somebody_else_is_not_believed():
    # Landmarks that are not of the face in the picture: the mesh finds the face, and not them.
    view = face()
    assert find_regions(replace(view, landmarks=view.landmarks + 24)).found == "five points"


def test_covered_lips_and_eyes_stay_bare():
    view = face()
    pixels = view.pixels.clone()
    pixels[:, 90:120, 40:184] = torch.tensor([0.05, 0.05, 0.12])[:, None, None]  # dark glasses
    assert "lids" in find_regions(replace(view, pixels=pixels)).bare
    pixels = view.pixels.clone()
    pixels[:, 160:215, 60:164] = torch.tensor([0.3, 0.6, 0.8])[:, None, None]  # a blue mask
    regions = find_regions(replace(view, pixels=pixels))
    assert "lips" in regions.bare or regions.found == "five points"


# What is put on


def test_colours_come_back():
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(from_lab(to_lab(pixels)), pixels, atol=1e-4)
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    from_lab(to_lab(black)).sum().backward()
    assert black.grad.isfinite().all()


@pytest.mark.parametrize("look", get_args(Look))
def test_a_look_changes_its_parts_and_nothing_else(look):
    view = face()
    made = paint(view, look)
    change = made(*starts(made))[0].abs().amax(0)
    maps = maps_of(view)
    lips = (maps["lips"] < -1) & (maps["lips_gate"] > 0.9)
    eyes = maps["eye"] < -1.5
    assert (float(change[lips].mean()) > 0.02) == ("lips" in LOOKS[look].layers)
    assert float(change[eyes].max()) < 0.02, "eyes stay"
    assert float(change[maps["shade"] < 1e-3][maps["brow"][maps["shade"] < 1e-3] > 3].mean()) < 0.01
    assert change.max() > 0.005


def test_texture_of_the_skin_stays():
    # The look scales what is there: the fine detail of lips is scaled with them, and not painted over.
    view = face()
    noise = 0.02 * torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    rough = replace(view, pixels=(view.pixels + noise).clamp(0, 1))
    made, plain = paint(rough), paint(view)
    maps = maps_of(view)
    lips = (maps["lips"] < -1) & (maps["lips_gate"] > 0.9)
    grain = (rough.pixels + made(*starts(made))[0] - view.pixels - plain(*starts(plain))[0]).mean(0)[lips]
    before = (rough.pixels - view.pixels).mean(0)[lips]
    assert float(torch.corrcoef(torch.stack([grain, before]))[0, 1]) > 0.9
    assert 0.5 < float(grain.std() / before.std()) < 1.2


def test_no_intensity_is_no_makeup():
    view = face()
    made = paint(view, intensity=0.0)
    chosen, shade = starts(made)
    assert float(made(chosen + 1, shade - 1).abs().max()) < 1e-5


def test_greyscale_gets_lightness_alone():
    edit = made_up(face(grey=True))
    assert torch.equal(edit.delta[0], edit.delta[1])
    assert torch.equal(edit.delta[0], edit.delta[2])
    assert edit.delta.abs().max() > 0.01


def test_what_a_look_leaves_open_moves_away_from_the_person():
    view, surrogate = face(), toy_surrogate(0)
    found = []
    for iterations in (1, 40):
        config = MakeupConfig(look="evening", iterations=iterations, displacement=0, psnr=60, pace=8 * iterations / 40)
        (edit,) = Makeup(config).edit([view], Work.seeded(0, Ensemble([surrogate])))
        with torch.no_grad():
            crops = [
                functional.interpolate(one[None], (112, 112), mode="area")
                for one in (view.pixels, view.pixels + edit.delta)
            ]
            own, made = (surrogate(crop.clamp(0, 1)) for crop in crops)
            found.append(float((own * made).sum()))
    assert found[1] < found[0] - 0.005


def test_beneath_lies_the_default_mask_at_half_its_movement():
    beneath, default = MakeupConfig(), SpatialConfig()
    assert (beneath.displacement, beneath.strain) == (default.displacement / 2, default.strain / 2)
    strongest = Makeup.configured({}, strength="high")
    assert (strongest.displacement, strongest.strain, strongest.psnr) == (
        default.displacement, default.strain, default.psnr
    )  # fmt: skip


def test_lips_that_are_red_get_no_redder():
    view = face()
    maps = maps_of(view)
    lips = (maps["lips"] < -1) & (maps["lips_gate"] > 0.9)
    red = to_lab(view.pixels[None])
    red[:, 1] += 40 * (maps["lips"] < 0.5)
    found = []
    for pixels in (view.pixels, from_lab(red)[0]):
        made = paint(replace(view, pixels=pixels), "rose")
        chosen, shade = starts(made)
        chosen[:, made.bounds.parts.index("lips"), 1] = 1
        after = to_lab(pixels[None] + made(chosen, shade))[0, 1]
        found.append(float((after - to_lab(pixels[None])[0, 1])[lips].mean()))
    assert found[0] > 3
    assert found[1] < 1


# The decoder


def wearing(number: int = 2) -> FaceView:
    """Another composite, with dark red lips and blue lids: no face of anybody."""
    view = face(number)
    maps, lab = maps_of(view), to_lab(view.pixels[None])
    lips, lids = (maps["lips"] < 0.3).float(), ((maps["orbit"] < 0) & (maps["eye"] > 0.5)).float()
    lab[:, 0] *= 1 - 0.4 * lips - 0.25 * lids
    lab[:, 1] += 22 * lips
    lab[:, 2] -= 16 * lids
    return replace(view, pixels=from_lab(lab)[0])


def copied(view: FaceView, reference: FaceView, **settings) -> Edit:
    config = MakeupConfig(**{"iterations": 3, "displacement": 0, "psnr": 60, **settings})
    work = Work.seeded(0, Ensemble([toy_surrogate(0, "one")]), references=(reference,))
    return Makeup(config).edit([view], work)[0]


def change_of(edit: Edit) -> torch.Tensor:
    """(3, H, W), in CIELAB."""
    return (to_lab((edit.view.pixels + edit.delta)[None].clamp(0, 1)) - to_lab(edit.view.pixels[None]))[0]


def test_what_a_photo_wears_is_copied_part_by_part():
    view = face()
    maps = maps_of(view)
    lips = (maps["lips"] < -1) & (maps["lips_gate"] > 0.9)
    lids = (
        (maps["way"] > 0.1) & (maps["way"] < 0.5) & (maps["orbit"] < -1) & (maps["eye"] > 1) & (maps["lid_gate"] > 0.8)
    )
    skin = (maps["skin"] > 0.9) & (maps["lips"] > 4) & (maps["orbit"] > 4)
    plain, made = (change_of(copied(view, reference)) for reference in (face(2), wearing()))
    more = made - plain
    assert float(more[1][lips].mean()) > 8
    assert float(more[0][lips].mean()) < -8
    assert float(more[2][lids].mean()) < -2, "lids take the lids' blue"
    assert float(more[1][lids].mean()) < 3, "and not the lips' red"
    assert float(more[2][lips].mean()) > -2, "nor lips the lids' blue"
    assert float(more[:, skin].mean(1).abs().max()) < 2.5


def test_a_copy_is_near_what_the_photo_wears():
    source, reference = face(), wearing()
    wanted = copied_onto(worn(source, find_regions(source)), reference_of(reference))
    edit = copied(source, reference)
    after = replace(source, pixels=(source.pixels + edit.delta).clamp(0, 1))
    told = copied_onto(worn(after, find_regions(after, made_up=True)), reference_of(reference))
    lips = [*COPIED].index("lips")
    there = worn(source, find_regions(source)).there[lips, ::2, ::2] > 0.8
    asked, left = (float(one[lips, 1][there].mean()) for one in (wanted, told))
    assert asked > 8
    assert abs(left) < 0.4 * asked, "little is left to be copied"


def test_a_face_that_wears_what_the_photo_wears_is_left():
    view = wearing()
    change = change_of(copied(view, view))
    maps = maps_of(view)
    lips = (maps["lips"] < -1) & (maps["lips_gate"] > 0.9)
    assert float(change[:, lips].abs().mean()) < 4


def test_skin_does_not_take_the_colour_of_the_reference():
    view = face()
    dark = replace(wearing(), pixels=(wearing().pixels * torch.tensor([0.5, 0.42, 0.36])[:, None, None]))
    change = change_of(copied(view, dark))
    maps = maps_of(view)
    skin = (maps["skin"] > 0.9) & (maps["lips"] > 4) & (maps["orbit"] > 4)
    assert abs(float(change[0][skin].mean())) < 4


def test_texture_stays_under_the_decoder():
    view = face()
    noise = 0.02 * torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    rough = replace(view, pixels=(view.pixels + noise).clamp(0, 1))
    maps = maps_of(view)
    lips = (maps["lips"] < -1) & (maps["lips_gate"] > 0.9)
    skin = (maps["skin"] > 0.9) & (maps["lips"] > 4) & (maps["orbit"] > 4)
    fine = [
        (pixels - gaussian_blur(pixels[None], 1.5)[0]).mean(0)
        for pixels in (rough.pixels, rough.pixels + copied(rough, wearing()).delta)
    ]
    # Lips have an edge, too, at which much is changed.
    for part, least in ((lips, 0.6), (skin, 0.95)):
        before, after = (one[part] for one in fine)
        assert float(torch.corrcoef(torch.stack([before, after]))[0, 1]) > least
        assert 0.4 < float(after.std() / before.std()) < 1.3


def test_the_decoder_paints_a_look_too_and_company_changes_nothing():
    views = [face(), face(5)]
    config = MakeupConfig(painter="decoder", iterations=2, movement=(0, 0), noise=0, apart=0)
    ensemble = Ensemble([toy_surrogate(0, "one")])
    both = Makeup(config).edit(views, Work.seeded(0, ensemble))
    alone = Makeup(config).edit(views[:1], Work.seeded(0, ensemble))
    assert torch.allclose(both[0].delta, alone[0].delta, atol=2e-3)
    assert measure_makeup(both[0]).lips > 2
    assert both[0].facts["look"] == "natural"


def test_recognisers_move_the_decoder_within_its_freedom():
    view, surrogate = face(), toy_surrogate(0, "one")
    # A toy hardly reacts to colours: it is let pull as hard as a recogniser does.
    config = MakeupConfig(painter="decoder", displacement=0, psnr=60, iterations=30, faithful=1e-3)
    problem = MadeUp([view], None, config, Work.seeded(0, Ensemble([surrogate])))
    started = problem.painter(problem.painter.variables[0].start)
    (edit,) = Makeup(config).edit([view], Work.seeded(0, Ensemble([surrogate])))
    maps = maps_of(view)
    skin = (maps["skin"] > 0.9) & (maps["lips"] > 4) & (maps["orbit"] > 4)
    before, after = (to_lab((view.pixels + delta)[None].clamp(0, 1))[0, 0][skin] for delta in (started[0], edit.delta))
    assert float((after - before).abs().mean()) > 0.1
    assert float((after / before - 1).abs().max()) < 0.12
    similarity = [
        float(surrogate(functional.interpolate(one[None], (112, 112), mode="area")) @ surrogate(
            functional.interpolate(view.pixels[None], (112, 112), mode="area")).T)
        for one in (view.pixels + started[0], view.pixels + edit.delta)
    ]  # fmt: skip
    assert 1 - similarity[1] > 1.1 * (1 - similarity[0]), "and that leads away from the person"


# Photos that nothing can be copied from


def test_a_reference_must_show_what_is_to_be_copied():
    good = wearing()
    cloak = Makeup()
    cloak.check([good])
    dark = good.pixels.clone()
    dark[:, 85:122, 36:188] = torch.tensor([0.04, 0.04, 0.05])[:, None, None]
    mask = good.pixels.clone()
    mask[:, 155:215, 55:170] = torch.tensor([0.35, 0.6, 0.8])[:, None, None]
    small = replace(
        good,
        pixels=functional.interpolate(good.pixels[None], (40, 40), mode="area")[0],
        landmarks=(good.landmarks + 0.5) * 40 / SIDE - 0.5,
        region=torch.ones(1, 40, 40),
    )
    for reference, words in [
        (face(2, grey=True), "is greyscale"),
        (replace(good, pixels=dark), "lids|covered"),
        (replace(good, pixels=mask), "lips|covered"),
        (small, "too small"),
        (toy_view(3), "profile, or a covered one|small"),
    ]:
        with pytest.raises(UsageError, match=words):
            cloak.check([reference])
    with pytest.raises(UsageError, match="one photo"):
        cloak.check([good, good])


def test_a_photo_of_two_shows_nobody_to_go_by(monkeypatch):
    boxes = np.array([[10, 10, 110, 130], [120, 20, 200, 110], [5, 5, 15, 15]], np.float32)
    landmarks = np.stack([np.array(ARCFACE_112.points, np.float32)] * 3)
    found = Faces(boxes, landmarks, np.ones(3, np.float32))
    photo = read_photo(np.full((224, 224, 3), 128, np.uint8))
    monkeypatch.setattr("bauta.cloaking.given.detect_faces", lambda pixels: found)
    with pytest.raises(UsageError, match="shows 2 faces"):
        view_of(photo, ViewSpec())
    monkeypatch.setattr("bauta.cloaking.given.detect_faces", lambda pixels: found[np.array([0, 2])])
    assert view_of(photo, ViewSpec()).pixels.shape[0] == 3, "one in the background does not count"


def test_the_person_themself_is_no_reference():
    view, one = face(), toy_surrogate(0, "one")
    work = Work.seeded(0, Ensemble([one]), thresholds={"one": 0.9}, references=(view,))
    with pytest.raises(UsageError, match="whose face is to be made up"):
        Makeup(MakeupConfig(iterations=2)).edit([view], work)


# The ruler


def test_the_ruler_tells_makeup_from_paint():
    view = face()
    natural = measure_makeup(made_up(view, "natural", displacement=0, psnr=60))
    evening = measure_makeup(made_up(view, "evening", displacement=0, psnr=60))
    assert 0 < natural.lips < evening.lips
    assert evening.strange < 0.02
    assert evening.structure > 0.93
    assert evening.edges > 0.7
    assert evening.elsewhere < 0.5
    green = torch.zeros_like(view.pixels)
    green[1] = 0.35 * (view.region[0] > 0)
    painted = measure_makeup(Edit(view, green))
    assert painted.strange > 0.3
    assert painted.elsewhere > 3


def test_the_ruler_sees_structure_go():
    view = face()
    noise = 0.1 * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * (view.region > 0)
    noisy = measure_makeup(Edit(view, noise))
    assert noisy.structure < 0.8
    assert noisy.edges < 0.6


def test_the_ruler_undoes_movement():
    view = face()
    work = Work.seeded(0, Ensemble([toy_surrogate()]))
    (edit,) = Spatial(SpatialConfig(iterations=5, psnr=60)).edit([view], work)
    assert measure_makeup(edit).structure > 0.99


def test_settings_say_what_is_wrong():
    with pytest.raises(UsageError, match="look='clown'"):
        MakeupConfig(look="clown")  # type: ignore[arg-type]
