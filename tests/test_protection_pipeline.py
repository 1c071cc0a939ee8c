from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import bauta
from bauta.cloaking.apply import BATCH
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.roles import choose_roles
from bauta.cloaking.settings import ProtectSettings, Selection
from bauta.cloaking.verbs import protect, verify
from bauta.errors import (
    NoFaceFound,
    OutputExists,
    PhotoError,
    RecognizerError,
    RoleRefused,
    UnknownRecognizer,
    UsageError,
)
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.photo import read_photo
from bauta.photo.raster import Raster
from protection_fakes import SIDE, Negative, Stage, build_stage, write_photo

stage = pytest.fixture(build_stage)

pytestmark = pytest.mark.usefixtures("stage")


def settings(**changes: object) -> ProtectSettings:
    return ProtectSettings(**{"method": "negative", **changes})  # type: ignore[arg-type]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_photo(tmp_path / "photo.png", "anna")


def test_a_protected_photo_is_protected_and_keeps_what_is_outside(photo: Path) -> None:
    result = protect(photo, method="negative")
    assert result.verdict == "protected"
    assert "None of the 2 independent recognisers" in result.report.summary
    before, after = (np.asarray(Image.open(source)) for source in (photo, io.BytesIO(result.content)))
    np.testing.assert_array_equal(before[:18], after[:18])
    assert (before[60:100, 40:80] != after[60:100, 40:80]).any()
    assert result.report.output.sha256 == read_photo(result.content).sha256


def test_a_mask_that_does_too_little_is_weak_and_says_who_and_how(photo: Path) -> None:
    report = protect(photo, method="negative", options={"amount": 0.01}).report
    assert report.verdict == "weak"
    assert report.recognised_by == ["judge_one", "judge_two"]
    (face,) = report.faces
    match = face.verification.findings[0]
    assert (match.kind, match.judge, match.against, match.matches_at) == ("match", "judge_one", "original", 1e-4)
    assert match.limit is not None
    assert match.margin == face.verification.margin == report.margin == pytest.approx(match.limit - match.cosine)
    assert match.margin < 0
    assert report.to_dict()["protects_against"] == []


def test_without_an_independent_judge_nothing_is_called_protected(stage: Stage, photo: Path) -> None:
    stage.drop("attacked_one", "judge_one", "judge_two")
    report = protect(photo, method="negative").report
    assert report.verdict == "unconfirmed"
    assert "no independent one is installed" in report.summary
    assert report.to_dict()["protects_against"] == []  # nothing was proved
    assert all(row.attacked for row in report.faces[0].verification.comparisons)
    assert [card["attacked"] and card["judged"] for card in report.to_dict()["recognizers"]] == [True]


def test_an_attacked_judge_that_still_matches_makes_it_weak(stage: Stage, photo: Path) -> None:
    stage.drop("attacked_one", "judge_one", "judge_two")
    assert protect(photo, method="negative", options={"amount": 0.01}).verdict == "weak"


def test_uncalibrated_judges_confirm_nothing(stage: Stage, photo: Path) -> None:
    stage.uncalibrated = {"judge_one", "judge_two", "both", "attacked_one"}
    report = protect(photo, method="negative").report
    assert report.verdict == "unconfirmed"
    assert {finding.judge for finding in report.findings if finding.kind == "not-calibrated"} >= {"judge_one"}


def test_one_uncalibrated_judge_leaves_the_verdict_to_the_other(stage: Stage, photo: Path) -> None:
    stage.uncalibrated = {"judge_one"}
    report = protect(photo, method="negative").report
    assert report.verdict == "protected"
    assert [card.name for card in report.judges] == ["judge_two"]


def test_references_decide_when_they_matched_before(tmp_path: Path, photo: Path) -> None:
    same, other = write_photo(tmp_path / "same.png", "anna"), write_photo(tmp_path / "other.png", "bert")
    report = protect(photo, method="negative", references=[same]).report
    assert report.verdict == "protected"
    rows = [row for row in report.faces[0].verification.comparisons if row.against == "same.png"]
    assert rows[0].before == pytest.approx(1, abs=1e-3)
    assert rows[0].matched_before == 1e-4
    assert rows[0].matches_at is None
    # A photo of somebody else says nothing of this face; the original decides.
    assert protect(photo, method="negative", references=[other], options={"amount": 0.01}).verdict == "weak"


def test_of_a_whole_photo_floats_are_made_for_the_search_only(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two hundred megapixels they are gigabytes: masks, judges and the page look at windows."""
    whole: list[tuple[int, ...]] = []
    make = Raster.pixels

    def counted(self: Raster, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.float32]:
        if rows == columns == slice(None):
            whole.append(self.samples.shape)
        return make(self, rows, columns)

    monkeypatch.setattr(Raster, "pixels", counted)
    report = Pipeline(settings(fallback="blur")).protect(read_photo(photo))
    report.to_html()
    assert len(whole) == 1


def test_seeds_make_results_repeatable(photo: Path) -> None:
    assert protect(photo, method="negative").content == protect(photo, method="negative").content


@pytest.mark.parametrize(
    ("selection", "spared"),
    [
        (Selection(), 0),
        (Selection(largest=True), 2),
        (Selection(only=(Path("bert.png"),)), 2),
        (Selection(keep=(Path("bert.png"),)), 1),
        (Selection(boxes=((SIDE, 20, SIDE, SIDE),)), 2),
    ],
)
def test_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: Selection, spared: int) -> None:
    monkeypatch.chdir(tmp_path)
    write_photo(Path("bert.png"), "bert")
    photo = read_photo(write_photo(Path("all.png"), "anna", "bert", "cleo"))
    report = Pipeline(settings(selection=selection)).protect(photo)
    assert len(report.spared) == spared
    changed = np.abs(report.saved - report.original).max(-1) > 0
    centre = SIDE // 2
    anna, bert = changed[20 + centre, centre], changed[20 + centre, SIDE + centre]
    assert bert == (not selection.keep and not selection.largest)
    assert anna == (not selection.only and not selection.boxes)


@pytest.mark.parametrize(("option", "faces"), [("only", 2), ("keep", 1)])
def test_everybody_in_a_photo_that_selects_people_counts(tmp_path: Path, option: str, faces: int) -> None:
    both = write_photo(tmp_path / "both.png", "anna", "bert")
    photo = read_photo(write_photo(tmp_path / "all.png", "anna", "bert", "cleo"))
    report = Pipeline(settings(selection=Selection(**{option: (both,)}))).protect(photo)
    assert (len(report.faces), len(report.spared)) == (faces, 3 - faces)


def test_hundreds_of_faces_are_batched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = read_photo(write_photo(tmp_path / "crowd.png", *[f"p{index}" for index in range(30)]))
    report = Pipeline(settings()).protect(photo)
    assert len(report.faces) == 30
    assert Negative.calls == [BATCH, BATCH, BATCH, 30 - 3 * BATCH]
    assert report.to_html().count("<h2>Face ") == 24
    assert "6 smaller faces" in report.to_html()


def test_faces_too_small_to_protect_are_no_faces(tmp_path: Path) -> None:
    small = write_photo(tmp_path / "small.png", "anna")
    with Image.open(small) as image:
        image.resize((20, 22)).save(small)
    with pytest.raises(NoFaceFound, match="too small"):
        protect(small, method="negative")


def test_a_face_that_the_detector_loses_is_judged_where_it_was(
    stage: Stage, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bauta.judging.verification.detect_faces", lambda *a, **k: stage.detect(a[0])[:0])
    report = protect(photo, method="negative").report
    assert not any(report.faces[0].verification.found.values())
    assert report.faces[0].verification.comparisons[0].after < 0.5
    assert [finding.face for finding in report.findings if finding.kind == "face-not-found-again"] == [1]


def test_verify_takes_a_resized_copy_and_refuses_another_photo(tmp_path: Path, photo: Path) -> None:
    result = protect(photo, method="negative")
    saved = result.save(tmp_path / "out.png")
    assert verify(photo, saved).verdict == "protected"
    assert verify(photo, photo).verdict == "weak"
    half = tmp_path / "half.png"
    result.image.resize((SIDE // 2, (SIDE + 20) // 2)).save(half)
    report = verify(photo, half)
    assert report.verdict == "protected"
    assert report.faces[0].verification.footprint is None
    assert not report.made
    result.image.resize((300, 90)).save(half)
    with pytest.raises(UsageError, match="another shape"):
        verify(photo, half)


def test_protected_shows_itself_in_a_notebook_and_never_overwrites(tmp_path: Path, photo: Path) -> None:
    result = protect(photo, method="negative")
    assert result._repr_png_().startswith(b"\x89PNG")
    assert result._repr_html_().startswith("<iframe srcdoc=")
    assert result.image.size == (SIDE, SIDE + 20)
    saved = result.save(tmp_path / "new.png")
    assert saved.read_bytes() == result.content
    with pytest.raises(OutputExists):
        result.save(saved)
    result.save(saved, overwrite=True)
    for target in (photo, tmp_path / "link.png"):
        if target != photo:
            target.symlink_to(photo)
        with pytest.raises(OutputExists):
            result.save(target, overwrite=True)


def test_verbs_are_lazy_names_of_the_package() -> None:
    for name in bauta.__all__:
        assert getattr(bauta, name) is not None
    assert set(bauta.__all__) <= set(dir(bauta))
    assert bauta.protect is protect
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bauta.nothing


# Bad input at this level.


def test_no_face(tmp_path: Path) -> None:
    with pytest.raises(NoFaceFound, match=r"No face was found in .*empty\.png") as caught:
        protect(write_photo(tmp_path / "empty.png"), method="negative")
    assert "--box" in caught.value.hint


def test_nobody_selected(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(NoFaceFound, match="None of the 1 faces"):
        protect(photo, method="negative", only=[write_photo(tmp_path / "b.png", "bert")])


def test_a_reference_without_a_face(tmp_path: Path, photo: Path) -> None:
    for option in ("references", "only", "keep"):
        with pytest.raises(UsageError, match="No face was found in the reference photo"):
            protect(photo, method="negative", **{option: [write_photo(tmp_path / "e.png")]})


def test_a_reference_that_is_not_there(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(PhotoError, match=r"nobody\.png"):
        protect(photo, method="negative", references=[tmp_path / "nobody.png"])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"strength": "extreme"}, UsageError),
        ({"budget": 0.0}, UsageError),
        ({"budget": float("nan")}, UsageError),
        ({"budget": float("inf")}, UsageError),
        ({"seed": -1}, UsageError),
        ({"fmr": 0.5}, UsageError),
        ({"judges": ("judge_one", "judge_one")}, UsageError),
        ({"judges": "judge_one"}, UsageError),
        ({"options": (("amount", 1.0), ("colour", 3))}, UsageError),
        ({"options": (("preset", "paper"),)}, UsageError),
        ({"method": "magic"}, UsageError),
        ({"judges": ("nobody",)}, UnknownRecognizer),
        ({"surrogates": ("nobody",)}, UnknownRecognizer),
        ({"surrogates": ("both",), "judges": ("both",)}, RoleRefused),
        ({"surrogates": ("judge_one",)}, RoleRefused),
        ({"judges": ("attacked_one",)}, RoleRefused),
        ({"surrogates": ()}, RecognizerError),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        Pipeline(settings(**change))
    assert caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "box", [(-1, 0, 10, 10), (0, 0, 0, 10), (0, 0, float("nan"), 10), (0, 0, 10, float("inf")), (1, 2, 3)]
)
def test_boxes_that_are_none(box: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="not a rectangle"):
        Selection(boxes=(box,))  # type: ignore[arg-type]


def test_a_box_outside_the_photo(photo: Path) -> None:
    with pytest.raises(UsageError, match="outside the photo"):
        protect(photo, method="negative", boxes=[(5000, 5000, 50, 50)])


def test_selections_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="one way at a time"):
        Selection(largest=True, only=(Path("a.png"),))


def test_nobody_to_attack_and_nobody_to_judge(stage: Stage) -> None:
    stage.cards = [card for card in stage.cards if card.name.startswith("judge")]
    with pytest.raises(RecognizerError, match="no recogniser to attack"):
        choose_roles(settings())
    stage.cards = []
    stage.add("attacked_one", "surrogate")
    with pytest.raises(RecognizerError, match="no recogniser to judge"):
        choose_roles(settings())


def test_who_taught_a_surrogate_confirms_nothing(stage: Stage) -> None:
    student = replace(stage.find("attacked_one"), training={"teachers": ["judge_one"]})
    stage.cards[stage.cards.index(stage.find("attacked_one"))] = student
    roles = choose_roles(settings())
    assert "judge_one" not in [card.name for card in roles.judges]  # there are others
    assert roles.independent
    asked = choose_roles(settings(judges=("judge_one",)))
    assert "judge_one" in asked.attacked
    assert not asked.independent


def test_the_same_weights_under_two_names_are_one_network(stage: Stage) -> None:
    stage.add("copy", "judge", sha256=stage.find("both").sha256)
    assert "copy" not in [card.name for card in choose_roles(settings()).judges]
    with pytest.raises(RoleRefused):
        choose_roles(settings(surrogates=("both",), judges=("copy",)))


def test_naming_a_judge_keeps_it_from_being_attacked(stage: Stage) -> None:
    roles = choose_roles(settings(judges=("both",)))
    assert [card.name for card in roles.surrogates] == ["attacked_one"]
    assert roles.independent


def test_auto_attacks_at_most_four_and_passes_over_missing_weights(stage: Stage, tmp_path: Path) -> None:
    for index in range(6):
        stage.add(f"more_{index}", "surrogate")
    stage.weights = tmp_path / "gone"
    stage.add("gone", "judge")
    roles = choose_roles(settings())
    assert [card.name for card in roles.surrogates] == ["attacked_one", "both", "more_0", "more_1"]
    assert [card.name for card in roles.judges] == ["judge_one", "judge_two"]


def tiny(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the detector also see a face of 9 pixels in the photos' grey strip."""
    points = np.array(ARCFACE_112.points) * 9 / SIDE + 2

    def detect(pixels: np.ndarray, **options: object) -> Faces:
        faces = stage.detect(pixels)
        boxes = np.concatenate([faces.boxes, [[2, 2, 11, 11]]])
        return Faces(boxes, np.concatenate([faces.landmarks, points[None]]), np.append(faces.scores, 0.5))

    monkeypatch.setattr("bauta.cloaking.pipeline.detect_faces", detect)


def test_a_face_without_a_mask_is_listed_and_the_photo_is_not_protected(
    stage: Stage, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(stage, monkeypatch)
    result = protect(photo, method="negative")
    report = result.report
    assert result.verdict == "partial"
    assert [face.verification.verdict for face in report.faces] == ["protected"]
    assert report.to_dict()["unprotected_boxes"] == [[2, 2, 11, 11]]
    assert "Face 2 (top left) could not be given a mask" in report.summary
    assert report.warnings[0] in report.summary
    page = report.to_html()
    assert "<h1>Not every face is covered</h1>" in page
    assert "9 × 9 pixels at 2, 2" in page
    # A verification finds the bare face to match itself, and a weak face stays the worse news.
    assert verify(photo, read_photo(result.content)).verdict == "weak"
    weak = protect(photo, method="negative", options={"amount": 0.01}).report
    assert weak.verdict == "weak"
    assert [finding.kind for finding in weak.findings[:2]] == ["face-without-mask", "match"]


def test_overlapping_masks_keep_the_bound_of_each(tmp_path: Path, stage: Stage) -> None:
    photo = read_photo(write_photo(tmp_path / "a.png", "anna"))
    boxes = ((0, 20, SIDE, SIDE), (4, 20, SIDE - 4, SIDE))
    report = Pipeline(settings(selection=Selection(boxes=boxes), options=(("amount", 0.1),))).protect(photo)
    bound = 0.1 * np.abs(1 - 2 * report.original) + 1 / 255
    assert (np.abs(report.saved - report.original) <= bound).all()


def test_references_of_one_name_stay_apart(tmp_path: Path, photo: Path) -> None:
    paths = [write_photo(tmp_path / name, "anna") for name in ("x/me.png", "y/me.png")]
    paths.append(write_photo(tmp_path / "z.png", "anna").rename(tmp_path / "original"))
    report = protect(photo, method="negative", references=paths).report
    names = [name for name, _ in report.references]
    assert names == ["me.png", "me.png (2)", "original (2)"]
    rows = [row.against for row in report.faces[0].verification.comparisons if row.condition == "saved"]
    assert rows[:4] == ["original", *names]


def test_the_summary_says_what_faces_were_compared_with(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photo.png", "anna", "bert")
    anna, bert = (write_photo(tmp_path / f"{name}.png", name) for name in ("anna", "bert"))
    both = [protect(photo, method="negative", references=paths).report.summary for paths in ([anna], [anna, bert])]
    assert "to the reference photos, or to the original where a reference was not recognised" in both[0]
    assert "to the reference photos." in both[1]


def test_a_verification_does_not_vouch_for_independence(photo: Path) -> None:
    result = protect(photo, method="negative")
    assert "They had no part in making the mask" in result.report.summary
    report = verify(photo, read_photo(result.content))
    assert report.verdict == "protected"
    assert "had no part" not in report.summary
    assert "cannot know" in report.summary
    assert "was not seen here" in report.to_html()


def test_another_photo_is_no_protected_one(tmp_path: Path) -> None:
    def scene(name: str, seed: int) -> Path:
        path = write_photo(tmp_path / f"{name}.png", "anna", "bert", "cleo")  # a quarter of it is empty
        pixels = np.array(Image.open(path))
        cells = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
        pixels[20 + SIDE :, SIDE:] = np.asarray(Image.fromarray(cells).resize((SIDE, SIDE)))
        Image.fromarray(pixels).save(path)
        return path

    one, other = scene("one", 1), scene("other", 2)
    result = protect(one, method="negative")
    assert verify(one, read_photo(result.content)).verdict == "protected"
    copy = tmp_path / "copy.jpg"
    result.image.resize((150, 163)).save(copy, quality=50)
    assert not verify(one, copy).made
    with pytest.raises(UsageError, match="do not show the same photo"):
        verify(one, other)
