"""`bauta protect` on clips: every frame of a face is changed, and what is not is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import av
import cv2
import numpy as np
import pytest

import bauta
from bauta import registry
from bauta.cli import run
from bauta.clips.clip import read_clip
from bauta.cloaking.clip_keeping import Keeping
from bauta.cloaking.outcomes import FRAGILE, WEAK, Outcome
from bauta.cloaking.settings import ProtectSettings, Selection
from bauta.cloaks.base import Carried, Cloak, Edit, Need, Work
from bauta.cloaks.view import FaceView
from bauta.errors import OutputExists, UsageError
from bauta.faces.faces import Faces
from clip_builders import Finder, moving, place, write_clip
from protection_fakes import NEGATIVE, Negative, NegativeConfig, Stage, build_stage, files, person, work, write_photo

ANNA, BEN = person("anna"), person("ben")
MADE: list[int] = []
"""For every mask that was made, of how many stills."""


class Turning(Cloak[NegativeConfig]):
    """The negative of a face, which goes along with it."""

    Config = NegativeConfig
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogates"})

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        return [self.on(view) for view in views]

    def on(self, view: FaceView) -> Edit:
        return Edit(view, (1 - 2 * view.pixels) * self.config.amount * view.region)

    def follow(self, views: Sequence[FaceView], work: Work) -> Carried:
        MADE.append(len(views))
        return self

    def kept(self, carried: Carried) -> dict[str, np.ndarray]:
        return {"amount": np.array(self.config.amount)}

    def resumed(self, kept: Mapping[str, np.ndarray]) -> Carried:
        return Turning(replace(self.config, amount=float(kept["amount"])))


TURNING = ProtectSettings(method="turning")


@pytest.fixture
def finder() -> Finder:
    MADE.clear()
    return Finder(ANNA, BEN)


@pytest.fixture(autouse=True)
def stage(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finder: Finder
) -> Stage:
    stage = build_stage(tmp_path_factory, monkeypatch)
    card = registry.MethodCard("turning", "cloak", "For tests.", "nobody", "test_cloaking_clips:Turning")
    monkeypatch.setitem(registry.METHODS, "turning", card)
    monkeypatch.setattr("bauta.cloaking.clip_faces.detect_faces", finder)
    monkeypatch.chdir(tmp_path)
    return stage


def clip(name: str = "a.mp4", face: np.ndarray = ANNA, count: int = 16, **options: object) -> Path:
    return write_clip(Path(name), moving(face, count), **options)  # type: ignore[arg-type]


def only(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    return outcome


def likeness(path: Path, face: np.ndarray = ANNA) -> list[float]:
    """Of each frame, how the place of the face correlates with the face."""
    found = []
    for frame in read_clip(path):
        top, left = place(frame.number)
        there = frame.pixels[top + 20 : top + 92, left + 20 : left + 92].astype(np.float32).ravel()
        found.append(float(np.corrcoef(there, face[20:92, 20:92].astype(np.float32).ravel())[0, 1]))
    return found


def test_every_frame_of_a_face_is_masked() -> None:
    outcome = only(work(clip(), settings=TURNING))
    assert (outcome.verdict, outcome.exit_code, outcome.faces) == ("protected", 0, 1)
    assert outcome.output == Path("out/a.mp4")
    assert max(likeness(Path("out/a.mp4"))) < -0.8
    assert files() == ["a.mp4", "reports/a.report.html", "reports/a.report.json"]
    report = json.loads(Path("out/reports/a.report.json").read_text(encoding="utf-8"))
    (face,) = report["faces"]
    assert (report["verdict"], face["frames"], face["bare"]) == ("protected", 16, [])
    assert {row["condition"] for row in face["judges"]} == {"saved", "messenger"}
    assert all(row["best"] < 0 and row["matching"] == 0 for row in face["judges"])
    assert (
        Path("out/reports/a.report.html").read_text(encoding="utf-8").count("data:image") == 10
    )  # stills of frames 0, 4, 8, 12 and 15


def test_judges_that_know_the_face_compare_it_with_references() -> None:
    write_photo(Path("anna.png"), "anna")
    write_photo(Path("ben.png"), "ben")
    clip()
    for reference, against in (("anna.png", "anna.png"), ("ben.png", "original")):
        settings = replace(TURNING, options=(("amount", 0.01),), references=(Path(reference),))
        outcome = only(work("a.mp4", settings=settings))
        report = json.loads(next(Path("out").rglob("*.report.json")).read_text(encoding="utf-8"))
        assert outcome.verdict == "weak"
        assert {finding["against"] for finding in report["findings"]} == {against}
        assert {row["against"] for row in report["faces"][0]["judges"]} == {against}


def test_a_frame_in_which_the_detector_fails_is_masked_too(finder: Finder) -> None:
    finder.blind = {2, 3}
    only(work(clip(), settings=replace(TURNING, every=1)))
    assert max(likeness(next(Path("out").rglob("a.mp4")))) < -0.8


def test_a_mask_that_does_nothing_is_weak_and_covered_on_request() -> None:
    faint = replace(TURNING, options=(("amount", 0.01),))
    outcome = only(work(clip(), settings=faint))
    assert (outcome.verdict, outcome.exit_code, outcome.output) == ("weak", WEAK, Path("out/weak/a.mp4"))
    assert "nearest at 0:0" in outcome.message
    assert min(likeness(Path("out/weak/a.mp4"))) > 0.9
    outcome = only(work(clip("b.mp4"), settings=replace(faint, fallback="pixelate")))
    assert outcome.per_face[0].treatment == "pixelate"
    assert any("Covered, since no mask protects it" in note for note in outcome.warnings)
    assert max(likeness(next(Path("out").rglob("b.mp4")))) < 0.75


def test_one_bare_frame_is_enough_for_an_attacker(monkeypatch: pytest.MonkeyPatch) -> None:
    from bauta.cloaking import clip_pipeline

    draw = clip_pipeline._Drawing.on
    monkeypatch.setattr(
        clip_pipeline._Drawing, "on", lambda self, frame: None if frame.number == 6 else draw(self, frame)
    )
    outcome = only(work(clip(), settings=replace(TURNING, every=4)))
    assert outcome.verdict == "weak"


def test_a_face_that_cannot_be_masked_makes_it_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    from bauta.cloaking import clip_pipeline

    edited = clip_pipeline._edited

    def missing(cloak, pixels, numbers, points, ask=None, work=None):  # type: ignore[no-untyped-def]
        if ask is not None:
            missing.calls += 1  # type: ignore[attr-defined]
            if missing.calls in (5, 6):  # type: ignore[attr-defined]
                return pixels, list(numbers)
        return edited(cloak, pixels, numbers, points, ask, work)

    missing.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(clip_pipeline, "_edited", missing)
    monkeypatch.setattr("bauta.cloaking.clip_judging._looks", lambda followed, asked: {0, 12})
    outcome = only(work(clip(), settings=TURNING))
    assert (outcome.verdict, outcome.exit_code) == ("partial", WEAK)
    assert any("is bare at 0:00.1-0:00.2" in note for note in outcome.warnings)
    missing.calls = 0  # type: ignore[attr-defined]
    covered = only(work(clip("b.mp4"), settings=replace(TURNING, fallback="blur")))
    assert covered.verdict == "protected"
    assert max(likeness(Path("out/b.mp4"))) < 0.9


def test_a_face_that_was_not_followed_makes_it_partial(finder: Finder) -> None:
    frames = moving(ANNA, 17)
    frames[10][100:212, 200:312] = BEN
    write_clip(Path("a.mp4"), frames)
    outcome = only(work("a.mp4", settings=replace(TURNING, every=4)))
    assert outcome.verdict == "partial"
    assert any("that was not followed shows at 0:00.4" in note for note in outcome.warnings)
    outcome = only(work("a.mp4", settings=replace(TURNING, every=1)))
    assert (outcome.verdict, outcome.faces) == ("protected", 2)


def test_what_may_be_no_face_is_left_and_told_or_covered(finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsure(pixels: np.ndarray, **options: object) -> Faces:
        found, blind = finder(pixels), len(looks) not in (8, 9)
        looks.append(len(found))
        scores = np.where(found.boxes[:, 0] > 250, 0.8, found.scores).astype(np.float32)
        return replace(found, scores=scores)[~((found.boxes[:, 0] > 250) & blind)]

    looks: list[int] = []

    monkeypatch.setattr("bauta.cloaking.clip_faces.detect_faces", unsure)
    frames = moving(ANNA, 16, (480, 360))
    for frame in frames:  # a print that looks like a face for a moment
        frame[220:332, 340:452] = BEN
    write_clip(Path("a.mp4"), frames)
    outcome = only(work("a.mp4", settings=replace(TURNING, every=1)))
    assert (outcome.verdict, outcome.exit_code) == ("partial", WEAK)
    assert sorted(face.treatment for face in outcome.per_face) == ["left", "mask"]
    assert any("What may be a face shows at" in note for note in outcome.warnings)
    assert not any("as asked" in note for note in outcome.warnings)
    looks.clear()
    outcome = only(work("a.mp4", settings=replace(TURNING, every=1, fallback="blur"), force=True))
    assert sorted(face.treatment for face in outcome.per_face) == ["blur", "mask"]


def test_people_are_chosen_by_photos() -> None:
    frames = moving(ANNA, 12, (480, 360))
    for frame in frames:
        frame[220:332, 340:452] = BEN
    write_clip(Path("a.mp4"), frames)
    write_photo(Path("ben.png"), "ben")
    outcome = only(work("a.mp4", settings=replace(TURNING, selection=Selection(keep=(Path("ben.png"),)))))
    assert sorted(face.treatment for face in outcome.per_face) == ["left", "mask"]
    assert max(likeness(Path("out/a.mp4"))) < -0.8
    last = list(read_clip(Path("out/a.mp4")))[-1].pixels
    assert np.abs(last[230:322, 350:442].astype(float) - BEN[10:102, 10:102]).mean() < 12
    settings = replace(TURNING, selection=Selection(only=(Path("ben.png"),)), others="pixelate")
    outcome = only(work("a.mp4", settings=settings))
    assert sorted(face.treatment for face in outcome.per_face) == ["mask", "pixelate"]


def test_a_span_of_time() -> None:
    outcome = only(work(clip(count=20), settings=replace(TURNING, span=(0.2, 0.5))))
    alike = likeness(Path("out/a.mp4"))
    assert max(alike[5:13]) < -0.8
    assert min(*alike[:5], *alike[13:]) > 0.9
    assert any("every face is as it was, as asked" in note for note in outcome.warnings)
    late = only(work("a.mp4", settings=replace(TURNING, span=(30.0, 40.0))))
    assert late.exit_code == 2
    assert "ends before" in late.message


def test_photos_and_clips_of_one_folder() -> None:
    Path("in").mkdir()
    clip("in/b.mp4")
    write_photo(Path("in/a.png"), "ben")
    outcomes = work("in", settings=TURNING)
    assert [(outcome.source.name, outcome.verdict) for outcome in outcomes] == [
        ("a.png", "protected"),
        ("b.mp4", "protected"),
    ]
    again = work("in", settings=TURNING)
    assert all(outcome.skipped for outcome in again)


def test_a_bad_clip_stops_nothing() -> None:
    clip("b.mp4")
    Path("a.mp4").write_bytes(b"no clip")
    first, second = work("a.mp4", "b.mp4", settings=TURNING)
    assert (first.exit_code, first.code) == (4, "photo.unreadable")
    assert second.verdict == "protected"


def test_an_interruption_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(stage: str, done: int, total: int) -> None:
        if stage == "writing the clip" and done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(clip(), settings=TURNING, progress=interrupted)
    assert files() == []
    with pytest.raises(KeyboardInterrupt):
        bauta.protect_clip("a.mp4", "b.mp4", method="turning", progress=interrupted)
    assert sorted(path.name for path in Path().iterdir()) == ["a.mp4", "out"]


def test_what_is_for_photos_is_refused() -> None:
    clip()
    for settings, words in (
        (replace(TURNING, selection=Selection(largest=True)), "--largest is for photos"),
        (replace(TURNING, unlinkable=True), "--unlinkable is for photos"),
        (NEGATIVE, "would flicker"),
        (ProtectSettings(method="makeup", options=(("painter", "decoder"),)), "painted by numbers"),
        (ProtectSettings(options=(("mode", "impersonate"),)), "away from the person only"),
    ):
        outcome = only(work("a.mp4", settings=settings))
        assert outcome.exit_code == 2
        assert words in outcome.message
    assert Negative.calls == []
    assert only(work(write_clip(Path("empty.mp4"), moving(np.full_like(ANNA, 90), 4)))).exit_code == 2


def test_a_clip_without_faces() -> None:
    frames = [cv2.GaussianBlur(frame, (0, 0), 30) for frame in moving(ANNA, 6)]
    outcome = only(work(write_clip(Path("a.mp4"), frames), settings=TURNING))
    assert outcome.exit_code == 3
    assert files() == []


def test_from_python() -> None:
    report = bauta.protect_clip(clip(sound="aac"), "b.mp4", method="turning")
    assert report.verdict == "protected"
    assert "No judge matches the face" in report.summary
    with av.open("b.mp4") as written:
        assert [stream.type for stream in written.streams] == ["video", "audio"]
    with pytest.raises(OutputExists):
        bauta.protect_clip("a.mp4", "b.mp4", method="turning")
    with pytest.raises(OutputExists):
        bauta.protect_clip("a.mp4", "a.mp4", method="turning", overwrite=True)
    with pytest.raises(UsageError, match="another kind"):
        bauta.protect_clip("a.mp4", "b.mkv", method="turning")
    with pytest.raises(UsageError, match="ends before it begins"):
        bauta.protect_clip("a.mp4", "c.mp4", method="turning", start=3, end=2)


def test_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    clip()
    assert run(["protect", "a.mp4", "-o", "out", "--method", "turning", "--from", "0.1s", "--every", "2"]) == 0
    said = capsys.readouterr()
    assert "Before 0:00.1 every face is as it was" in said.out
    assert said.out.startswith("CLIP ")
    assert "1 clip: 1 protected" in said.out
    assert run(["protect", "a.mp4", "-o", "out2", "--method", "blur", "--json", "--no-report"]) in (0, WEAK, FRAGILE)
    assert json.loads(capsys.readouterr().out)["faces"] == 1


def test_a_mask_that_was_fitted_goes_along_with_its_face(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bauta.cloaks.p3_mask import P3Mask
    from bauta.cloaks.p3_settings import P3MaskConfig
    from bauta.learning.fitted import Fitted, Provenance

    config = P3MaskConfig(variants=3)
    random = torch.Generator().manual_seed(1)
    parts = {
        "control": torch.zeros(3, 2, 11, 11),
        "lightness": 0.2 * torch.randn(3, 1, 112, 112, generator=random),
        "secret": torch.zeros(32, dtype=torch.uint8),
    }
    fitted = Fitted("p3-mask", config.to_dict(), parts, ("attacked_one",), Provenance("nobody"), P3Mask.version)
    monkeypatch.setattr("bauta.cloaking.pipeline.Fitted.load", lambda *args, **options: fitted)
    clip()
    report = bauta.protect_clip("a.mp4", "b.mp4", method="p3-mask", fitted="me.mask")
    assert report.faces[0].frames == 16
    before, after = (
        np.stack([frame.pixels for frame in read_clip(Path(name))]).astype(float) for name in ("a.mp4", "b.mp4")
    )
    changed = []
    for number in range(16):
        top, left = place(number)
        window = (number, slice(top + 16, top + 96), slice(left + 16, left + 96))
        changed.append((after[window] - before[window]).mean(axis=2))
    alike = [np.corrcoef(changed[0].ravel(), one.ravel())[0, 1] for one in changed[1:]]
    assert min(alike) > 0.5  # one of the three masks, on every frame, and moving with the face


def two_shots(name: str = "a.mp4") -> Path:
    frames = moving(ANNA, 10) + [np.uint8(255) - frame // 2 for frame in moving(ANNA, 10, seed=9)]
    for at in range(10):
        top, left = place(at)
        frames[10 + at][top : top + 112, left : left + 112] = ANNA
    return write_clip(Path(name), frames)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", ["in the second shot", "after the first mask", "while writing"])
def test_a_run_that_was_interrupted_goes_on_from_the_last_finished_shot(
    finder: Finder, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    source = two_shots()
    only(work(source, settings=TURNING))
    Path("out").rename("whole")
    looks, made = finder.looks, len(MADE)

    with monkeypatch.context() as patch:
        if stop == "in the second shot":
            found = finder.__call__
            seen: list[int] = []

            def detect(pixels: np.ndarray, **options: object) -> Faces:
                seen.append(1)
                return interrupted() if len(seen) > 5 else found(pixels)  # type: ignore[return-value]

            patch.setattr("bauta.cloaking.clip_faces.detect_faces", detect)
        elif stop == "after the first mask":
            keep = Keeping.keep_mask
            patch.setattr(Keeping, "keep_mask", lambda self, face, parts: (keep(self, face, parts), interrupted())[0])
        else:
            patch.setattr("bauta.cloaking.clip_pipeline.write_clip", interrupted)
        with pytest.raises(KeyboardInterrupt):
            work(source, settings=TURNING)
    assert files() == []
    kept = next(Path("out/.bauta").glob("clip-*"))
    assert kept.stat().st_mode & 0o077 == 0
    finder.looks, before = 0, len(MADE)
    outcome = only(work(source, settings=TURNING))
    assert outcome.verdict == "protected"
    assert finder.looks < looks
    assert len(MADE) - before == {"in the second shot": 2, "after the first mask": 1, "while writing": 0}[stop]
    assert made == 2
    assert Path("out/a.mp4").read_bytes() == Path("whole/a.mp4").read_bytes()
    assert not list(Path("out/.bauta").glob("clip-*"))


def test_what_was_kept_under_other_settings_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    source = two_shots()
    with monkeypatch.context() as patch:
        patch.setattr("bauta.cloaking.clip_pipeline.write_clip", interrupted)
        with pytest.raises(KeyboardInterrupt):
            work(source, settings=TURNING)
    before = len(MADE)
    only(work(source, settings=replace(TURNING, every=1)))
    assert len(MADE) == before + 2
