"""Where a run puts things, what its records know, and when a photo is judged again and not made again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bauta.cloaking.places import collect
from bauta.cloaking.settings import ProtectSettings, Selection
from bauta.faces.faces import Faces
from bauta.recognizers.calibration import Threshold
from bauta.recognizers.cards import RecognizerCard
from protection_fakes import FAINT, NEGATIVE, REPORTS, Negative, Stage, build_stage, files, read_json, work, write_photo

stage = pytest.fixture(build_stage)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestFolderToUpload:
    """The output folder is what one uploads: weak photos and reports lie elsewhere in it."""

    @pytest.fixture(autouse=True)
    def photo(self, folder: Path, stage: Stage) -> Path:
        return write_photo(Path("in/a.png"), "anna")

    def test_weak_photos_are_set_aside(self) -> None:
        (outcome,) = work("in", settings=FAINT)
        assert (outcome.verdict, outcome.exit_code) == ("weak", 7)
        assert outcome.margin is not None
        assert outcome.margin < 0
        assert files() == [*REPORTS, "weak/a.png"]
        (again,) = work("in", settings=FAINT)
        assert (again.skipped, again.output, again.margin) == (True, Path("out/weak/a.png"), outcome.margin)

    def test_a_stronger_mask_takes_a_photo_out_again(self) -> None:
        work("in", settings=FAINT)
        assert work("in")[0].output == Path("out/a.png")
        assert files() == ["a.png", *REPORTS]
        work("in", settings=FAINT)
        assert files() == [*REPORTS, "weak/a.png"]

    def test_a_photo_in_which_a_face_is_bare_is_set_aside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bauta.cloaking.report.Report.verdict", "partial")
        assert work("in")[0].output == Path("out/weak/a.png")

    def test_a_fragile_photo_has_its_own_exit_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bauta.cloaking.report.Report.verdict", "fragile")
        (outcome,) = work("in")
        assert (outcome.verdict, outcome.exit_code, outcome.output) == ("fragile", 8, Path("out/a.png"))

    def test_folders_of_the_sources_may_have_these_names(self) -> None:
        for name in ("weak/a.png", "Reports/a.png"):
            write_photo(Path("in", name), "bert")
        outcomes = work("in", settings=FAINT, reports=False)
        assert files() == ["weak/Reports_/a.png", "weak/a.png", "weak/weak_/a.png"]
        work("in", reports=False)
        assert files() == ["Reports_/a.png", "a.png", "weak_/a.png"]
        assert {outcome.exit_code for outcome in outcomes} == {7}

    def test_weak_products_are_no_sources(self) -> None:
        work("in", settings=FAINT)
        sources, failures = collect([Path("out/weak")], Path("out"))
        assert sources == []
        assert len(failures) == 1

    def test_an_original_in_the_folder_of_weak_photos_is_kept(self) -> None:
        source = write_photo(Path("out/weak/a.png"), "bert")
        original = source.read_bytes()
        (outcome,) = work("out/weak/a.png", settings=FAINT)
        assert outcome.exit_code == 5
        assert source.read_bytes() == original

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
    @pytest.mark.parametrize("settings", [NEGATIVE, FAINT])
    def test_nothing_is_open_to_those_who_cannot_read_the_source(self, photo: Path, settings: ProtectSettings) -> None:
        photo.chmod(0o600)
        work("in", settings=settings)
        made = [path for path in Path("out").rglob("a*") if path.is_file() and ".bauta" not in path.parts]
        assert len(made) == 3
        assert [path.stat().st_mode & 0o077 for path in made] == [0, 0, 0]
        assert Path("out/reports").stat().st_mode & 0o077 == 0


class TestJudgedAgain:
    """Who judges is one thing and what makes the mask another; only the second makes a photo anew."""

    @pytest.fixture(autouse=True)
    def photo(self, folder: Path, stage: Stage) -> Path:
        return write_photo(Path("in/a.png"), "anna")

    @pytest.fixture
    def first(self, photo: Path) -> bytes:
        (outcome,) = work("in")
        assert not outcome.judged_again
        Negative.calls.clear()
        return Path("out/a.png").read_bytes()

    @pytest.mark.parametrize("change", ["judges", "thresholds", "references", "report gone", "reports wanted"])
    def test_the_photo_stays(self, first: bytes, stage: Stage, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = NEGATIVE
        if change == "judges":
            settings = ProtectSettings(method="negative", surrogates=("both", "attacked_one"), judges=("judge_two",))
            work("in", settings=ProtectSettings(method="negative", surrogates=("both", "attacked_one")))
            Negative.calls.clear()
        elif change == "thresholds":
            _threshold(stage, monkeypatch, judge_one=0.45)
        elif change == "references":
            settings = ProtectSettings(method="negative", references=(write_photo(Path("me.png"), "anna"),))
        elif change == "report gone":
            Path("out/reports/a.report.html").unlink()
        else:
            work("in", reports=False)
            assert files() == ["a.png"]
        before = read_json(Path("out/.bauta/a.png.json"))
        (outcome,) = work("in", settings=settings)
        assert (outcome.judged_again, outcome.skipped, outcome.verdict) == (True, False, "protected")
        assert Negative.calls == []
        assert Path("out/a.png").read_bytes() == first
        assert files() == ["a.png", *REPORTS]
        report = read_json(Path("out/reports/a.report.json"))
        assert (report["method"]["made_here"], report["faces"][0]["mask"]["iterations"]) == (True, 3)
        assert report["output"]["name"] == "a.png"
        assert read_json(Path("out/.bauta/a.png.json"))["mask"] == before["mask"]
        assert work("in", settings=settings)[0].skipped

    def test_a_stricter_judge_sets_the_photo_aside(
        self, first: bytes, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _threshold(stage, monkeypatch, judge_one=-1.5)
        (outcome,) = work("in")
        assert (outcome.verdict, outcome.judged_again, outcome.output) == ("weak", True, Path("out/weak/a.png"))
        assert Path("out/weak/a.png").read_bytes() == first
        assert files() == [*REPORTS, "weak/a.png"]
        assert Negative.calls == []

    @pytest.mark.parametrize("change", ["settings", "surrogates", "source", "product", "faces", "surrogate thresholds"])
    def test_what_makes_the_mask_makes_it_anew(
        self, first: bytes, stage: Stage, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = NEGATIVE
        if change == "settings":
            settings = ProtectSettings(method="negative", options=(("amount", 0.9),))
        elif change == "surrogates":
            settings = ProtectSettings(method="negative", surrogates=("both",))
        elif change == "source":
            write_photo(Path("in/a.png"), "bert")
        elif change == "product":
            write_photo(Path("out/a.png"), "bert")
        elif change == "surrogate thresholds":
            _threshold(stage, monkeypatch, both=0.45)
        else:
            real = stage.detect
            _threshold(stage, monkeypatch, judge_one=0.45)
            moved = lambda pixels, **o: Faces(real(pixels).boxes + 4, real(pixels).landmarks, real(pixels).scores)  # noqa: E731
            monkeypatch.setattr("bauta.cloaking.pipeline.detect_faces", moved)
        (outcome,) = work("in", settings=settings)
        assert not outcome.judged_again
        assert Negative.calls == [1]
        if change == "product":
            assert outcome.output == Path("out/a-2.png")

    def test_the_judge_that_selects_faces_belongs_to_the_mask(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = ProtectSettings(method="negative", selection=Selection(only=(write_photo(Path("me.png"), "anna"),)))
        work("in", settings=settings)
        Negative.calls.clear()
        _threshold(stage, monkeypatch, judge_one=0.45)
        work("in", settings=settings)
        assert Negative.calls == [1]


def _threshold(stage: Stage, monkeypatch: pytest.MonkeyPatch, **cosines: float) -> None:
    """Give recognisers another threshold, the same at every FMR."""
    real = stage.threshold

    def threshold(card: RecognizerCard, fmr: float) -> Threshold:
        limit = real(card, fmr)
        return replace(limit, cosine=cosines[card.name]) if card.name in cosines else limit

    monkeypatch.setattr("bauta.cloaking.roles.threshold", threshold)
    monkeypatch.setattr("bauta.recognizers.calibration.threshold", threshold)


@pytest.mark.usefixtures("stage")
class TestOldRecords:
    @pytest.fixture
    def old(self, folder: Path) -> Path:
        """An output folder as schema 2 left it: reports beside the photo, one fingerprint."""
        source = write_photo(Path("in/deep/a.png"), "anna")
        work("in")
        record = read_json(Path("out/.bauta/deep/a.png.json"))
        for name in ("a.report.html", "a.report.json"):
            Path("out/reports/deep", name).rename(Path("out/deep", name))
        Path("out/reports/deep").rmdir()
        Path("out/reports").rmdir()
        names = {Path(name).name: digest for name, digest in record["files"].items()}
        kept = {key: record[key] for key in ("source", "source_sha256")}
        earlier = {"schema": "bauta.record/2", **kept, "fingerprint": "0" * 64, "files": names, "earlier": {}}
        Path("out/.bauta/deep/a.png.json").write_text(
            json.dumps({**earlier, "outcome": {"verdict": "protected", "report": "a.report.html"}})
        )
        return source

    def test_the_layout_is_known_and_replaced_by_the_new_one(self, old: Path) -> None:
        assert files() == ["deep/a.png", "deep/a.report.html", "deep/a.report.json"]
        (outcome,) = work("in")
        assert (outcome.skipped, outcome.judged_again, outcome.output) == (False, False, Path("out/deep/a.png"))
        assert files() == ["deep/a.png", "reports/deep/a.report.html", "reports/deep/a.report.json"]
        assert work("in")[0].skipped

    def test_what_changed_in_it_is_kept(self, old: Path) -> None:
        Path("out/deep/a.png").write_bytes(b"precious")
        Path("out/deep/a.report.html").write_text("mine")
        (outcome,) = work("in")
        assert outcome.output == Path("out/deep/a-2.png")
        assert Path("out/deep/a.png").read_bytes() == b"precious"
        assert Path("out/deep/a.report.html").read_text() == "mine"

    @pytest.mark.parametrize(
        "change",
        [
            {"schema": "bauta.record/9"},
            {"schema": "bauta.record/3", "files": {"../precious.png": "0"}, "product": "../precious.png"},
            {"schema": "bauta.record/3", "surprise": 1},
            {"schema": "bauta.record/3", "files": ["a.png"]},
        ],
    )
    def test_records_that_cannot_be_trusted_count_as_none(self, folder: Path, change: dict[str, object]) -> None:
        write_photo(Path("in/a.png"), "anna")
        work("in", reports=False)
        first = Path("out/a.png").read_bytes()
        precious = write_photo(Path("precious.png"), "bert").read_bytes()
        record = Path("out/.bauta/a.png.json")
        record.write_text(json.dumps({**read_json(record), **change}))
        (outcome,) = work("in", reports=False)
        assert outcome.output == Path("out/a-2.png")
        assert (Path("out/a.png").read_bytes(), Path("precious.png").read_bytes()) == (first, precious)
