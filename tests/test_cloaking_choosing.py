"""Each face of a photo by its number: protected, covered or left; and a quick sketch of what comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bauta
from bauta.cli import run
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.settings import Choice, ProtectSettings, Selection
from bauta.errors import NoFaceFound, NotCalibrated, UsageError
from bauta.faces.faces import Faces
from bauta.photo import read_photo
from protection_fakes import FAINT, SIDE, Negative, Stage, build_stage, read_json, work, write_photo

stage = pytest.fixture(build_stage)


@pytest.fixture(autouse=True)
def here(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photo(Path("a.png"), "anna", "bert", "carl", "dora")


def asked(*choices: tuple[int, Choice]) -> ProtectSettings:
    return ProtectSettings(method="negative", selection=Selection(faces=choices))


def face(pixels: np.ndarray, number: int) -> np.ndarray:
    """The middle of a face in photos of four: two rows of two."""
    row, column = divmod(number - 1, 2)
    top, left = 20 + row * SIDE, column * SIDE
    return pixels[top + 30 : top + 80, left + 30 : left + 80]


def test_each_face_gets_what_is_asked_for_it() -> None:
    photo = read_photo(Path("a.png"))
    report = Pipeline(asked((2, "blur"), (3, "leave"), (4, "pixelate"))).protect(photo)
    assert [one.treatment for one in report.per_face] == ["mask", "blur", "pixelate", "left"]
    assert {one.cause for one in report.faces if one.treatment != "mask"} == {"asked"}
    assert "as asked" in " ".join(report.warnings)
    same = [bool((face(photo.pixels, n) == face(report.saved, n)).all()) for n in range(1, 5)]
    assert same == [False, False, True, False]
    assert report.verdict == "protected"


def test_faces_that_are_not_named_are_protected() -> None:
    report = Pipeline(asked((1, "leave"))).protect(read_photo(Path("a.png")))
    assert [one.treatment for one in report.per_face] == ["mask"] * 3 + ["left"]


def test_what_cannot_be_is_refused() -> None:
    photo = read_photo(Path("a.png"))
    with pytest.raises(UsageError, match="4 faces, and face 5"):
        Pipeline(asked((5, "blur"))).protect(photo)
    with pytest.raises(NoFaceFound, match="left as it is"):
        Pipeline(asked(*((n, "leave") for n in range(1, 5)))).protect(photo)
    for wrong in (((0, "blur"),), ((1, "paint"),)):
        with pytest.raises(UsageError, match="cannot be given"):
            Selection(faces=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one way at a time"):
        Selection(largest=True, faces=((1, "blur"),))
    with pytest.raises(UsageError, match="no others"):
        ProtectSettings(selection=Selection(faces=((1, "leave"),)), others="blur")


def test_the_command_line_and_python_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["protect", "a.png", "-o", "out", "--method", "negative", "--face", "2=blur", "--face", "1=leave"]
    assert run(arguments) == 0
    told = read_json(Path("out/reports/a.report.json"))
    assert [one["treatment"] for one in told["faces"]] == ["mask", "mask", "blur"]
    result = bauta.protect("a.png", method="negative", faces={2: "blur", 1: "leave"})
    assert (read_photo(result.content).pixels == read_photo(Path("out/a.png")).pixels).all()
    assert run([*arguments, "--dry-run"]) == 0
    assert "blur" in capsys.readouterr().out
    for wrong in ("2", "x=blur", "2=paint"):
        assert run(["protect", "a.png", "-o", "out", "--method", "negative", "--face", wrong]) == UsageError.exit_code


def test_another_choice_is_another_product() -> None:
    (first,) = work("a.png", settings=asked((1, "blur")))
    (again,) = work("a.png", settings=asked((1, "blur")))
    (other,) = work("a.png", settings=asked((1, "leave")))
    assert (first.skipped, again.skipped, other.skipped) == (False, True, False)
    write_photo(Path("b.png"), "anna")
    with pytest.raises(UsageError, match="belongs to one photo"):
        work("a.png", "b.png", settings=asked((1, "blur")))


def test_a_sketch_is_one_mask_that_no_judge_saw(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, pipeline = read_photo(Path("a.png")), Pipeline(asked((2, "blur"), (3, "leave")))
    monkeypatch.setattr(Pipeline, "judges", property(lambda self: pytest.fail("a judge was loaded")))
    sketched = pipeline.sketch(photo, seconds=0.01)
    assert Negative.calls == [2]  # both faces at once, and once
    same = [bool((face(photo.pixels, n) == face(sketched.pixels, n)).all()) for n in range(1, 5)]
    assert same == [False, False, True, False]


def test_faces_that_were_found_before_are_not_looked_for_again(stage: Stage) -> None:
    photo, pipeline = read_photo(Path("a.png")), Pipeline(FAINT)
    found = stage.detect(photo.pixels)
    stage.blind = True
    with pytest.raises(NoFaceFound):
        pipeline.protect(photo)
    assert len(pipeline.protect(photo, found=found[:2]).faces) == 2
    with pytest.raises(NoFaceFound):
        pipeline.protect(photo, found=Faces.none())


def test_people_are_told_apart_by_one_calibrated_judge(stage: Stage) -> None:
    photo, other = read_photo(Path("a.png")), read_photo(write_photo(Path("b.png"), "anna"))
    embeddings, limit = Pipeline(FAINT).tell_apart(photo, stage.detect(photo.pixels))
    anna, _ = Pipeline(FAINT).tell_apart(other, stage.detect(other.pixels))
    assert (embeddings @ anna[0] >= limit).tolist() == [True, False, False, False]
    stage.uncalibrated |= {card.name for card in stage.cards}
    with pytest.raises(NotCalibrated):
        Pipeline(FAINT).tell_apart(photo, stage.detect(photo.pixels))
