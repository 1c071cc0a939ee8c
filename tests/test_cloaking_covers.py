"""What happens to a face that judges still match: a stronger mask, then a cover; and to faces that were not chosen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bauta.cloaking import making
from bauta.cloaking.making import COVERS, covered
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.report import Report
from bauta.cloaking.settings import ProtectSettings, Selection
from bauta.cloaks.base import Edit, Work
from bauta.cloaks.view import FaceView
from bauta.errors import NoFaceFound, UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.photo import read_photo
from protection_fakes import SIDE, Negative, NegativeConfig, Stage, build_stage, files, read_json, work, write_photo

stage = pytest.fixture(build_stage)
pytestmark = pytest.mark.usefixtures("stage")

FAINT = ProtectSettings(method="negative", options=(("amount", 0.01),))


@pytest.fixture(autouse=True)
def grey(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes see coarse colours alone, so here a cover has to leave nothing of them."""
    monkeypatch.setitem(COVERS, "blur", ({"sigma": 50.0},))
    monkeypatch.setitem(COVERS, "pixelate", ({"cells": 1},))


def made(path: Path, settings: ProtectSettings) -> Report:
    return Pipeline(settings).protect(read_photo(path))


def stronger(monkeypatch: pytest.MonkeyPatch, *amounts: float) -> None:
    def escalations(config: NegativeConfig) -> Sequence[NegativeConfig]:
        return [replace(config, amount=amount) for amount in amounts]

    monkeypatch.setattr(Negative, "escalations", staticmethod(escalations))


class TestStrongerMasks:
    def test_settings_are_tried_until_no_judge_matches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stronger(monkeypatch, 0.02, 1.0, 0.03)
        report = made(write_photo(tmp_path / "a.png", "anna"), FAINT)
        (face,) = report.faces
        assert report.verdict == "protected"
        assert face.mask is not None
        assert (face.mask.attempts, face.mask.settings) == (3, {"amount": 1.0})
        assert report.config["amount"] == 0.01
        assert Negative.calls == [1, 1, 1]

    def test_a_mask_that_does_is_left_as_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stronger(monkeypatch, 0.5)
        (face,) = made(write_photo(tmp_path / "a.png", "anna"), ProtectSettings(method="negative")).faces
        assert face.mask is not None
        assert (face.mask.attempts, face.mask.settings) == (1, {})

    def test_of_masks_that_all_fail_the_best_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def mirror(self: Negative, views: Sequence[FaceView], work: Work) -> list[Edit]:
            return [Edit(one, (one.pixels.flip(2) - one.pixels) * self.config.amount * one.region) for one in views]

        monkeypatch.setattr(Negative, "edit", mirror)
        stronger(monkeypatch, 0.2, 0.02)
        report = made(write_photo(tmp_path / "a.png", "anna"), FAINT)
        (face,) = report.faces
        assert report.verdict == "weak"
        assert face.mask is not None
        assert (face.mask.attempts, face.mask.settings) == (3, {"amount": 0.2})
        # What judges say is said of the mask in the file.
        again = Pipeline(FAINT).verify(read_photo(tmp_path / "a.png"), read_photo(report.content or b""))
        assert again.margin == pytest.approx(report.margin)

    def test_only_faces_that_are_matched_get_another_mask(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stronger(monkeypatch, 1.0)
        photo = write_photo(tmp_path / "a.png", "anna", "bert", "cleo")
        report = made(photo, replace(FAINT, options=(("amount", 0.5),)))
        assert report.verdict == "protected"
        assert Negative.calls == [3]
        report = made(photo, FAINT)
        assert report.verdict == "protected"
        assert Negative.calls == [3, 3, 3]

    def test_a_budget_is_for_all_masks_of_a_face(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stronger(monkeypatch, 1.0)
        report = made(write_photo(tmp_path / "a.png", "anna"), replace(FAINT, budget=1e-9))
        assert report.verdict == "weak"
        assert Negative.calls == [1]


class TestFallback:
    @pytest.mark.parametrize("how", ["blur", "pixelate"])
    def test_a_face_that_no_mask_protects_is_covered_and_judged(self, tmp_path: Path, how: str) -> None:
        report = made(write_photo(tmp_path / "a.png", "anna", "bert"), replace(FAINT, fallback=how))  # type: ignore[arg-type]
        assert report.verdict == "protected"
        assert [(face.treatment, face.cause, face.mask) for face in report.faces] == [(how, "mask-failed", None)] * 2
        kinds = [(finding.kind, finding.cover, finding.cause) for finding in report.findings]
        assert kinds.count(("face-covered", how, "mask-failed")) == 2
        done = "blurred" if how == "blur" else "pixelated"
        assert any(f"{done}, since no mask that was tried protects them" in said for said in report.warnings)
        # Nothing of the mask that failed is left beside the cover.
        before = np.asarray(Image.open(tmp_path / "a.png"))
        after = np.asarray(Image.open(io.BytesIO(report.content or b"")))
        np.testing.assert_array_equal(before[:18], after[:18])

    def test_stronger_masks_come_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stronger(monkeypatch, 1.0)
        (face,) = made(write_photo(tmp_path / "a.png", "anna"), replace(FAINT, fallback="blur")).faces
        assert face.treatment == "mask"

    def test_a_cover_that_a_judge_sees_through_stays_weak(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(COVERS, "blur", ({"sigma": 0.1}, {"sigma": 0.2}))
        report = made(write_photo(tmp_path / "a.png", "anna"), replace(FAINT, fallback="blur"))
        assert report.verdict == "weak"
        assert report.faces[0].treatment == "blur"
        assert report.summary.endswith("in the protected photo. Do not share this photo.")

    def test_a_cover_that_a_judge_sees_through_becomes_thicker(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(COVERS, "blur", ({"sigma": 0.1}, {"sigma": 50.0}))
        report = made(write_photo(tmp_path / "a.png", "anna", "bert"), replace(FAINT, fallback="blur"))
        assert report.verdict == "protected"
        assert [face.treatment for face in report.faces] == ["blur", "blur"]

    def test_unconfirmed_is_not_protected(self, stage: Stage, tmp_path: Path) -> None:
        stage.drop("attacked_one", "judge_one", "judge_two")
        settings = ProtectSettings(method="negative", fallback="blur")
        report = made(write_photo(tmp_path / "a.png", "anna"), settings)
        assert report.verdict == "unconfirmed"
        assert report.faces[0].treatment == "blur"

    def test_a_face_too_small_for_a_mask_is_covered(
        self, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny = Faces(np.array([[2, 2, 11, 11]]), np.array(ARCFACE_112.points)[None] * 9 / SIDE + 2, np.ones(1))
        monkeypatch.setattr(
            "bauta.cloaking.pipeline.detect_faces", lambda pixels, **_: Faces.join([stage.detect(pixels), tiny])
        )
        photo = write_photo(tmp_path / "a.png", "anna")
        bare = made(photo, ProtectSettings(method="negative"))
        assert bare.verdict == "partial"
        assert "A fallback (blur or pixelate) would cover what is bare." in bare.summary
        report = made(photo, ProtectSettings(method="negative", fallback="pixelate"))
        assert [(face.treatment, face.cause) for face in report.faces] == [("mask", None), ("pixelate", "no-mask")]
        assert report.unprotected == []
        assert "given a mask" not in report.summary

    def test_what_cannot_be_covered_is_named(self, tmp_path: Path) -> None:
        Image.new("RGB", (12, 12), "grey").save(tmp_path / "dot.png")
        photo = read_photo(tmp_path / "dot.png")
        face = Faces(np.array([[2, 2, 9, 9]]), np.random.default_rng(0).uniform(3, 8, (1, 5, 2)), np.ones(1))
        product, left = covered(photo, face, "blur")
        assert left == [0]
        np.testing.assert_array_equal(product.pixels, photo.pixels)
        made_ = making.Making(photo, face, [], lambda: None)  # type: ignore[arg-type, return-value]
        made_.cover([0], "blur", "no-mask")
        made_.product()
        assert (made_.treated, made_.uncovered) == ([], {0})


class TestOthers:
    def test_bystanders_are_covered_when_asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_photo(Path("bert.png"), "bert")
        photo = write_photo(Path("a.png"), "anna", "bert", "cleo")
        settings = ProtectSettings(method="negative", selection=Selection(only=(Path("bert.png"),)), others="pixelate")
        report = made(photo, settings)
        assert report.verdict == "protected"
        assert [face.treatment for face in report.faces] == ["mask", "pixelate", "pixelate"]
        assert report.spared == []
        assert any("as asked for faces that were not chosen" in said for said in report.warnings)
        left = made(photo, replace(settings, others="leave"))
        assert [face.treatment for face in left.faces] == ["mask"]
        assert [one.treatment for one in left.per_face] == ["mask", "left", "left"]

    def test_nobody_chosen_leaves_only_bystanders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_photo(Path("dora.png"), "dora")
        photo = write_photo(Path("a.png"), "anna")
        settings = ProtectSettings(method="negative", selection=Selection(only=(Path("dora.png"),)))
        with pytest.raises(NoFaceFound, match="is selected"):
            made(photo, settings)
        report = made(photo, replace(settings, others="blur"))
        assert [(face.treatment, face.cause) for face in report.faces] == [("blur", "not-chosen")]

    def test_people_to_keep_are_not_covered(self) -> None:
        with pytest.raises(UsageError, match="kept as they are"):
            ProtectSettings(selection=Selection(keep=(Path("a.png"),)), others="blur")

    @pytest.mark.parametrize("change", [{"fallback": "black"}, {"others": "none"}])
    def test_there_are_two_covers(self, change: dict[str, str]) -> None:
        with pytest.raises(UsageError, match=next(iter(change.values()))):
            ProtectSettings(**change)  # type: ignore[arg-type]


class TestFolders:
    def test_other_judges_look_at_covered_faces_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write_photo(Path("a.png"), "anna", "bert")
        settings = replace(FAINT, fallback="blur")
        (first,) = work("a.png", settings=settings)
        assert [one.treatment for one in first.per_face] == ["blur", "blur"]
        product = Path("out/a.png").read_bytes()
        stage.add("judge_three", "judge")
        (second,) = work("a.png", settings=settings)
        assert second.judged_again
        assert second.judges == 3
        assert Path("out/a.png").read_bytes() == product
        report = read_json(Path("out/reports/a.report.json"))
        assert [face["treatment"] for face in report["faces"]] == ["blur", "blur"]
        (third,) = work("a.png", settings=settings)
        assert third.skipped
        assert [one.treatment for one in third.per_face] == ["blur", "blur"]

    def test_another_fallback_is_another_product(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_photo(Path("a.png"), "anna")
        work("a.png", settings=FAINT)
        assert "weak/a.png" in files()
        (outcome,) = work("a.png", settings=replace(FAINT, fallback="blur"))
        assert not outcome.skipped
        assert "a.png" in files()
        assert "weak/a.png" not in files()


def test_a_cover_changes_the_face_and_nothing_around_it(tmp_path: Path) -> None:
    photo = read_photo(write_photo(tmp_path / "a.png", "anna", "bert"))
    box = np.array([[0, 20, SIDE, 20 + SIDE]], np.float32)
    one = Faces(box, np.array(ARCFACE_112.points)[None] + (0, 20), np.ones(1))
    product, left = covered(photo, one, "pixelate")
    assert left == []
    np.testing.assert_array_equal(product.pixels[:, SIDE + 20 :], photo.pixels[:, SIDE + 20 :])
    inside = product.pixels[50:100, 30:80]
    assert inside.std() < photo.pixels[50:100, 30:80].std() / 2
