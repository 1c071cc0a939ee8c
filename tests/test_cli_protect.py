"""What else ``bauta protect`` can be asked: dry runs, streams, defaults from files; and what its messages say."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bauta.cli import run
from bauta.cli.configuration import user_file
from bauta.cli.console import ProgressBar
from bauta.cloaking.outcomes import Outcome
from bauta.cloaking.rehearsal import plan_schema
from bauta.photo import read_photo
from bauta.schema import check
from protection_fakes import Negative, Stage, build_stage, files, write_photo

stage = pytest.fixture(build_stage)
pytestmark = pytest.mark.usefixtures("stage")

NEGATIVE = ("--method", "negative")
FAINT = (*NEGATIVE, "--amount", "0.01")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("BAUTA_")]:
        monkeypatch.delenv(name)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert run(arguments) == code
    return capsys.readouterr().err


class TestBadPhotosFirst:
    def test_nothing_is_loaded_for_photos_that_cannot_be_read(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(*_: object) -> None:
            raise AssertionError("the pipeline was made")

        monkeypatch.setattr("bauta.cloaking.pipeline.Pipeline.__init__", never)
        Path("a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
        Path("b.png").touch()
        said = refused(capsys, 4, "protect", "a.jpg", "b.png", *NEGATIVE)
        assert "a.jpg" in said
        assert "b.png" in said
        assert not Path("protected").exists()

    @pytest.mark.parametrize("jobs", ["1", "2"])
    def test_the_rest_goes_on(
        self, jobs: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if jobs == "2":  # what reaches the workers is looked at, without starting any
            sent: list[str] = []
            monkeypatch.setattr(
                "bauta.cloaking.batch._in_processes",
                lambda run, tasks, jobs, finished: sent.extend(task.source.name for task in tasks) or [],
            )
        Path("a.png").touch()
        for name in ("b.png", "c.png"):
            write_photo(Path(name), "anna")
        assert run(["protect", "a.png", "b.png", "c.png", "--jobs", jobs, "--json", *NEGATIVE]) == 4
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines[0]["code"] == "photo.unreadable"
        if jobs == "1":
            assert [line["verdict"] for line in lines[1:]] == ["protected", "protected"]
        else:
            assert sent == ["b.png", "c.png"]


class TestLoudness:
    def test_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        for name in "ab":
            write_photo(Path(f"{name}.png"), "anna")
        assert run(["protect", ".", "-q", *NEGATIVE]) == 0
        assert capsys.readouterr() == ("", "")
        Path("c.png").touch()
        assert run(["protect", ".", "-q", *NEGATIVE]) == 4
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "c.png" in shown.err

    def test_verbose_tells_of_each_face(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna", "bert")
        assert run(["protect", "a.png", "-v", "--largest", *NEGATIVE]) == 0
        shown = capsys.readouterr().out
        assert "PHOTO  FACE            WHAT WAS DONE  VERDICT" in shown
        assert "a.png  face 2 (right)  left" in shown

    def test_one_of_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        assert "exclude each other" in refused(capsys, 2, "protect", "a.png", "-q", "-v", *NEGATIVE)

    def test_progress_is_lines_where_there_is_no_terminal(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = iter(range(0, 1000, 6))
        monkeypatch.setattr("bauta.cli.console.time", SimpleNamespace(monotonic=lambda: next(now)))
        with ProgressBar(3) as bar:
            for done in range(4):
                bar.stage("making the mask", done, 4)
            bar.finished(Outcome(Path("a\x1b.png"), verdict="protected"))
        said = capsys.readouterr().err
        assert "making the mask, 1 of 4\n" in said
        assert "1 of 3 photos done, a\ufffd.png: protected\n" in said
        assert "\r" not in said
        assert "\x1b" not in said

    def test_one_quick_photo_needs_no_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        assert run(["protect", "a.png", *NEGATIVE]) == 0
        assert capsys.readouterr().err == ""


class TestForce:
    def test_finished_photos_are_made_again(self) -> None:
        write_photo(Path("a.png"), "anna")
        for options, calls in (((), 1), ((), 1), (("--force",), 2)):
            assert run(["protect", "a.png", "-o", "out", *NEGATIVE, *options]) == 0
            assert len(Negative.calls) == calls

    def test_files_of_others_are_replaced_and_originals_never(self, capsys: pytest.CaptureFixture[str]) -> None:
        photo = write_photo(Path("a.png"), "anna")
        Path("out").mkdir()
        Path("out/a.png").write_text("mine")
        assert run(["protect", "a.png", "-o", "out", "--no-report", *NEGATIVE]) == 0
        assert files() == ["a-2.png", "a.png"]
        assert Path("out/a.png").read_text() == "mine"
        assert run(["protect", "a.png", "-o", "out", "--no-report", "--force", *NEGATIVE]) == 0
        assert read_photo("out/a.png").width == read_photo(photo).width
        before = photo.read_bytes()
        assert run(["protect", "a.png", "-o", ".", "--force", *NEGATIVE]) == 5
        assert photo.read_bytes() == before


class TestDryRun:
    def test_faces_and_time_and_nothing_written(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna", "bert")
        write_photo(Path("b.png"))
        assert run(["protect", ".", "--dry-run", "--largest", *NEGATIVE]) == 3
        shown = capsys.readouterr()
        assert "a.png  face 1 (left)   112 × 112  mask" in shown.out
        assert "a.png  face 2 (right)  112 × 112  left" in shown.out
        assert re.search(r"1 photo, 2 faces: about \d+ s if", shown.out)
        assert "b.png" in shown.err
        assert sorted(path.name for path in Path().iterdir()) == ["a.png", "b.png"]

    def test_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna", "bert")
        Path("b.png").touch()
        options = ["--largest", "--others", "blur", "--json", *NEGATIVE]
        assert run(["protect", "gone.png", "a.png", "b.png", "--dry-run", *options]) == 4
        plans = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for plan in plans:
            check(plan, plan_schema(), "plan")
        assert [Path(plan["source"]).name for plan in plans] == ["", "a.png", "b.png"]
        assert [face["treatment"] for face in plans[1]["faces"]] == ["mask", "blur"]
        assert plans[0]["failure"]["code"] == plans[2]["failure"]["code"] == "photo.unreadable"

    def test_the_time_of_a_long_mask_is_foreseen(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        edit = Negative.edit

        def slow(self: Negative, views: object, work: object) -> object:
            edits = edit(self, views, work)  # type: ignore[arg-type]
            return [type(one)(one.view, one.delta, facts={"iterations": 1, "stopped": "deadline"}) for one in edits]

        ticks = iter(np.arange(0, 1000, 0.5))
        monkeypatch.setattr(Negative, "edit", slow)
        monkeypatch.setattr("bauta.cloaking.rehearsal.time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
        write_photo(Path("a.png"), "anna")
        assert run(["protect", "a.png", "--dry-run", "--json", *NEGATIVE]) == 0
        # Half a second to find it, half for the mask, half for each of seven conditions.
        assert json.loads(capsys.readouterr().out)["seconds"] == pytest.approx(0.5 + 0.5 + 3.5)


class TestStreams:
    def feed(self, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))

    def test_from_stdin_to_stdout(
        self, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        content = write_photo(Path("a.png"), "anna").read_bytes()
        self.feed(monkeypatch, content)
        assert run(["protect", "-", *NEGATIVE]) == 0
        shown = capsysbinary.readouterr()
        assert read_photo(shown.out).width == read_photo(content).width
        assert shown.out != content
        assert b"Protected: None of the 2" in shown.err
        assert sorted(path.name for path in Path().iterdir()) == ["a.png"]

    def test_a_weak_photo_is_kept_back(self, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        write_photo(Path("a.png"), "anna")
        assert run(["protect", "a.png", "-o", "-", *FAINT]) == 7
        shown = capsysbinary.readouterr()
        assert shown.out == b""
        assert b"Nothing was written: the photo is weak" in shown.err
        assert run(["protect", "a.png", "-o", "-", "--force", *FAINT]) == 7
        assert capsysbinary.readouterr().out.startswith(b"\x89PNG")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("-", "a.png"), "Only one photo"),
            (("-", "-o", "out"), "Only one photo"),
            (("-", "--json"), "The photo itself goes to stdout"),
            (("-", "--dry-run"), "reads photos from files"),
        ],
    )
    def test_what_makes_no_sense(
        self, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert said in refused(capsys, 2, "protect", *arguments, *NEGATIVE)

    def test_nothing_on_stdin(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.feed(monkeypatch, b"")
        assert "is empty" in refused(capsys, 4, "protect", "-", *NEGATIVE)


class TestDefaults:
    def strength(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        write_photo(Path("a.png"), "anna")
        assert run(["protect", "a.png", "-o", "out", "--force", *arguments]) == 0
        capsys.readouterr()
        report = json.loads(Path("out/reports/a.report.json").read_text())
        return f"{report['method']['name']} {report['method']['strength']} {report['method']['config']}"

    def test_what_is_nearer_wins(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        user_file().parent.mkdir(parents=True)
        user_file().write_text('[protect]\nmethod = "negative"\nstrength = "low"\n[protect.settings]\namount = 0.75')
        assert self.strength(capsys) == "negative low {'amount': 0.75}"
        monkeypatch.setenv("BAUTA_PROTECT_STRENGTH", "medium")
        assert self.strength(capsys) == "negative medium {'amount': 0.75}"
        assert self.strength(capsys, "--strength", "low", "--set", "amount=1.0") == "negative low {'amount': 1.0}"
        Path("other.toml").write_text('[protect]\nmethod = "negative"')
        monkeypatch.delenv("BAUTA_PROTECT_STRENGTH")
        assert self.strength(capsys, "--config", "other.toml") == "negative medium {'amount': 1.0}"
        monkeypatch.setenv("BAUTA_CONFIG", "other.toml")
        assert self.strength(capsys) == "negative medium {'amount': 1.0}"

    def test_a_file_of_this_folder_weakens_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        Path("bauta.toml").write_text('[protect]\nlargest = true\nstrength = "low"\nnonsense = 1')
        assert "negative medium" in self.strength(capsys, *NEGATIVE)
        assert run(["protect", "a.png", "-o", "two", *NEGATIVE]) == 0
        assert capsys.readouterr().err == (
            "note: bauta.toml in this folder is not used; name it with --config to use it.\n"
        )
        assert run(["protect", "a.png", "--config", "bauta.toml", *NEGATIVE]) == 2
        assert "protect.nonsense" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [("a.png", "--strength", "huge"), ("a.png", "--method", "no"), ("--x",), ()])
    def test_json_by_default_is_json_of_errors(
        self, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_photo(Path("a.png"), "anna")
        Path("c.toml").write_text("[protect]\njson = true")
        assert run(["--config", "c.toml", "protect", *arguments]) == 2
        told = json.loads(capsys.readouterr().out)["error"]
        assert told["code"] == "usage"
        assert told["message"]
        assert told["hint"]
        monkeypatch.setenv("BAUTA_PROTECT_JSON", "1")
        assert run(["protect", *arguments]) == 2
        assert json.loads(capsys.readouterr().out)["error"] == told
        monkeypatch.setenv("BAUTA_PROTECT_JSON", "0")
        assert run(["protect", *arguments]) == 2
        assert capsys.readouterr().out == ""

    def test_an_environment_variable_of_no_option_is_named(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_photo(Path("a.png"), "anna")
        monkeypatch.setenv("BAUTA_PROTECT_STRENTH", "high")
        assert run(["protect", "a.png", *NEGATIVE]) == 2
        told = capsys.readouterr().err
        assert "BAUTA_PROTECT_STRENTH" in told
        assert "Did you mean BAUTA_PROTECT_STRENGTH?" in told

    def test_a_wrong_choice_is_told_without_words_of_a_library(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["protect", "a.png", "--strength", "huge"]) == 2
        assert "Value error" not in capsys.readouterr().err

    def test_a_dry_run_says_that_it_tells_of_photos_only(self, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("clip.mp4", "moving.gif"):
            Path(name).write_bytes(b"\0\0\0\x18ftypmp42" + bytes(50) if name == "clip.mp4" else b"GIF89a" + bytes(50))
            assert run(["protect", name, "--dry-run", *NEGATIVE]) == 4
            assert "tells of photos only" in capsys.readouterr().err

    def test_lists_and_switches(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("anna", "bert"):
            write_photo(Path(f"{name}.png"), name)
        write_photo(Path("a.png"), "anna", "bert", "cleo")
        user_file().parent.mkdir(parents=True)
        user_file().write_text(
            '[protect]\nmethod = "negative"\nonly = ["anna.png", "bert.png"]\nno-report = true\njson = true'
        )
        assert run(["protect", "a.png"]) == 0
        assert json.loads(capsys.readouterr().out)["faces"] == 2
        user_file().write_text('[protect]\nmethod = "negative"\nonly = "anna.png"\njson = true')
        assert run(["protect", "a.png", "-o", "two"]) == 0
        assert json.loads(capsys.readouterr().out)["faces"] == 1
        monkeypatch.setenv("BAUTA_PROTECT_ONLY", os.pathsep.join(["anna.png", "bert.png"]))
        assert run(["protect", "a.png", "-o", "three"]) == 0
        assert json.loads(capsys.readouterr().out)["faces"] == 2

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[protect]\nstrenght = 1", "protect.strenght, which there is not.\nhint: Did you mean strength?"),
            ("[protekt]\nstrength = 1", "command protekt, which there is not.\nhint: Did you mean protect?"),
            ("strength = 1", "command strength"),
            ("[protect]\nhelp = true", "protect.help"),
            ("[protect", "is not TOML"),
            ('[protect]\nstrength = "huge"', "huge"),
            ("[protect.settings]\nfog = 1", "no setting fog"),
            ("[recognizers]\nlist = 1", "recognizers.list"),
        ],
    )
    def test_mistakes_are_named(self, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        Path("c.toml").write_text(text)
        assert said in refused(capsys, 2, "protect", "a.png", "--config", "c.toml", *NEGATIVE)

    def test_a_file_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "cannot be read" in refused(capsys, 2, "--config", "no.toml", "methods")


class TestMessages:
    @pytest.mark.parametrize(
        ("code", "arguments", "said"),
        [
            (2, ("protect", "a.png", "--stength", "high"), "no option --stength here.\nhint: Did you mean --strength?"),
            (2, ("protct", "a.png"), "Did you mean 'protect'?"),
            (2, ("protect", "a.png", "-o", "b.jpg"), "-o names a folder, and b.jpg looks like a photo"),
            (2, ("protect", "a.png", "--method", "advface"), "protects what a face service stores"),
            (2, ("templates", "fit", ".", "--recognizer", "x", "-o", "y", "--method", "tip-im"), "changes photos"),
            (2, ("templates", "protect", "x", "--method", "tip-im"), "`bauta templates fit --method NAME`"),
            (2, ("protect", "a.png", *NEGATIVE, "--set", "amount=much"), "amount is a number from 0, up to 1"),
            (4, ("protect", "clip.mkv"), "clip.mkv cannot be read as a clip"),
            (4, ("protect", "clip.mov"), "see whether a player opens it."),
            (4, ("protect", "https://example.org/a.png"), "https://example.org/a.png is an address"),
        ],
    )
    def test_they_say_what_to_do(
        self, code: int, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_photo(Path("a.png"), "anna")
        Path("clip.mkv").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(60))
        Path("clip.mov").write_bytes(b"anything")
        assert said in refused(capsys, code, *arguments)

    def test_bauta_alone_says_how_to_begin(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([]) == 0
        shown = capsys.readouterr().out
        assert "bauta protect photo.jpg" in shown
        assert len(shown.splitlines()) < 10

    def test_any_name_prints_on_any_console(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got = io.BytesIO()
        console = io.TextIOWrapper(got, encoding="cp1252", write_through=True)
        for stream in ("stdout", "stderr"):
            monkeypatch.setattr(sys, stream, console)
        write_photo(Path("a.png"), "anna").rename("\N{GRINNING FACE}\u4e2d.png")
        Path("\N{GRINNING FACE}.png").touch()
        assert run(["protect", ".", "-v", *NEGATIVE]) == 4
        assert b"??.png" in got.getvalue()
        assert b"protected" in got.getvalue()


class TestDoctor:
    def test_everything_is_looked_at(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["doctor"]) == 0
        shown = capsys.readouterr().out
        for what in ("bauta ", "torch ", "detector ", "chip_resnet", "mobilenet", "data folder", "extra demo"):
            assert what in shown
        assert "FAILED" not in shown

    def test_a_damaged_model_is_named(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: Stage
    ) -> None:
        monkeypatch.setattr("bauta.recognizers.catalog.list_recognizers", lambda: [stage.cards[0]])
        assert run(["doctor", "--json"]) == 6
        found = json.loads(capsys.readouterr().out)
        assert found["exit_code"] == 6
        (failed,) = [one for one in found["checks"] if one["state"] == "FAILED"]
        assert failed["what"] == "attacked_one"
        assert "SHA-256" in failed["details"]

    def test_a_data_folder_that_is_a_file(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "file"))
        assert run(["doctor"]) == 5
        assert "FAILED" in capsys.readouterr().out


def test_completion_is_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out
    monkeypatch.setenv("_BAUTA_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "bauta protect --method neg")
    with pytest.raises(SystemExit):
        run([])
    assert "negative" in capsys.readouterr().out
