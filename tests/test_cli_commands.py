from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bauta import __version__
from bauta.cli import main, run
from bauta.cli.values import box, chosen, names, seconds
from bauta.cloaking.outcomes import outcome_schema
from bauta.cloaking.settings import ProtectSettings
from bauta.cloaks.base import Edit
from bauta.errors import UsageError
from bauta.schema import check
from protection_fakes import Negative, build_stage, write_photo

stage = pytest.fixture(build_stage)

NEGATIVE = ("--method", "negative")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """Run a command line that must fail with one error line and one hint, and return the error."""
    assert run(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    return lines[0]


@pytest.mark.usefixtures("stage")
class TestProtect:
    def test_one_photo(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        assert run(["protect", "a.png", *NEGATIVE]) == 0
        shown = capsys.readouterr()
        assert "PHOTO  VERDICT    FACES  STILL MATCH    MARGIN  NOTICED" in shown.out
        assert "a.png  protected  1      0 of 2 judges" in shown.out
        assert "1 photo: 1 protected. Output in protected." in shown.out
        assert "share the protected photos only" in shown.out
        assert shown.err == ""
        assert Path("protected/reports/a.report.html").is_file()

    def test_as_json(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        Path("b.png").touch()
        assert run(["protect", ".", "-o", "out", "--json", "--no-report", *NEGATIVE]) == 4
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for line in lines:
            check(line, outcome_schema(), "outcome")
        bad, good = sorted(lines, key=lambda entry: entry["exit_code"] == 0)
        assert (good["verdict"], good["output"], good["report"]) == ("protected", "out/a.png", None)
        assert [(face["number"], face["treatment"], face["verdict"]) for face in good["per_face"]] == [
            (1, "mask", "protected")
        ]
        assert (bad["verdict"], bad["exit_code"], bad["code"]) == (None, 4, "photo.unreadable")
        assert run(["protect", "nowhere.png", "-o", "out", "--json", *NEGATIVE]) == 4
        assert json.loads(capsys.readouterr().out)["exit_code"] == 4

    def test_weak_photos_leave_with_seven(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_photo(Path("a.png"), "anna")
        monkeypatch.setattr(Negative, "edit", _nothing)
        assert run(["protect", "a.png", *NEGATIVE]) == 7
        assert "weak/a.png  WEAK" in capsys.readouterr().out

    def test_bad_photos_are_named_and_the_rest_goes_on(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        write_photo(Path("b.png"))
        Path("c.png").touch()
        assert run(["protect", ".", "missing.png", "no*.png", *NEGATIVE]) == 4
        shown = capsys.readouterr()
        for name in ("b.png", "c.png", "missing.png", "no*.png"):
            assert name in shown.err
        assert "5 photos: 1 protected, 1 without a face to protect, 3 failed" in shown.out

    def test_globs_are_understood(self, folder: Path) -> None:
        for name in ("a1", "a2", "b1"):
            write_photo(Path(f"{name}.png"), "anna")
        assert run(["protect", "a*.png", "--no-report", *NEGATIVE]) == 0
        assert sorted(path.name for path in Path("protected").glob("*.png")) == ["a1.png", "a2.png"]

    def test_what_undoes_the_protection_is_told(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("bauta.cloaking.report.Report.warnings", ["Once saved as JPEG, it is recognised."])
        for name in "ab":
            write_photo(Path(f"{name}.png"), "anna")
        assert run(["protect", "a.png", *NEGATIVE]) == 0
        assert "Note: Once saved as JPEG" in capsys.readouterr().out
        assert run(["protect", "a.png", "b.png", *NEGATIVE]) == 0
        assert "2 of them with notes" in capsys.readouterr().out

    def test_names_cannot_steer_the_terminal(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna").rename("\x1b[31m[red]x\udce9.png")
        write_photo(Path("b.png")).rename("\x1b[2Jb.png")
        assert run(["protect", ".", *NEGATIVE]) == 3
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out + shown.err
        assert "[31m[red]x" in shown.out

    def test_selection_and_metadata_options_reach_the_pipeline(self, folder: Path) -> None:
        write_photo(Path("all.png"), "anna", "bert")
        write_photo(Path("bert.png"), "bert")
        options = ["--only", "bert.png", "--reference", "bert.png", "--strip-metadata", "--seed", "3"]
        assert run(["protect", "all.png", *options, "--budget", "500ms", *NEGATIVE]) == 0
        report = json.loads(Path("protected/reports/all.report.json").read_text())
        assert (report["metadata_policy"], report["method"]["seed"]) == ("strip", 3)
        assert report["method"]["budget_seconds"] == 0.5
        assert (len(report["faces"]), len(report["spared_boxes"])) == (1, 1)
        assert report["references"][0]["name"] == "bert.png"

    @pytest.mark.parametrize(
        ("code", "options", "said"),
        [
            (2, ("--budget", "soon"), "is not a duration"),
            (2, ("--budget", "0s"), "is not a duration"),
            (2, ("--budget", "-3s"), "is not a duration"),
            (2, ("--box", "1,2,3"), "is not a box"),
            (2, ("--box", "a,b,c,d"), "is not a box"),
            (2, ("--box", "0,0,0,0"), "not a rectangle"),
            (2, ("--box", "1,2,nan,4"), "not a rectangle"),
            (2, ("--box", "9999,9999,10,10", "--largest"), "one way at a time"),
            (2, ("--only", "a.png", "--keep", "a.png"), "one way at a time"),
            (2, ("--only", "empty.png"), "No face was found in the reference"),
            (4, ("--only", "missing.png"), "missing.png"),
            (4, ("--reference", "broken.png"), "broken.png"),
            (2, ("--keep-metadata", "--strip-metadata"), "either kept or stripped"),
            (2, ("--strength", "extreme"), "extreme"),
            (2, ("--seed", "-1"), "seed"),
            (2, ("--seed", "many"), "valid integer"),
            (2, ("--jobs", "0"), "0 jobs"),
            (2, ("--eps", "8"), "negative has no option --eps; mi-fgsm, noise, p3-mask, pgd, ti-dim, tip-im have it"),
            (2, ("--preset", "paper"), "negative has no option --preset; p3-mask, tip-im have it"),
            (2, ("--amount", "2"), "amount=2.0"),
            (2, ("--amount", "much"), "--amount"),
            (2, ("--set", "amount=much"), "amount='much'"),
            (2, ("--set", "fog=1"), "no setting fog"),
            (2, ("--set", "amount"), "is not a setting"),
            (6, ("--fitted", "a.png"), "not a fitted file"),
            (2, ("--key", "missing.key"), "negative has no use for --key"),
            (2, ("--like", "a.png"), "negative has no use for --like"),
            (2, ("--method", "makeup", "--like", "empty.png"), "No face was found in empty.png"),
            (4, ("--method", "makeup", "--like", "missing.png"), "missing.png"),
            (2, ("--message", "hello"), "negative has no use for --message"),
            (2, ("--judges", "judge_one,,judge_two"), "empty name"),
            (2, ("--judges", "judge_one,judge_one"), "different names"),
            (6, ("--judges", "nobody"), "nobody"),
            (6, ("--surrogates", "nobody"), "nobody"),
            (6, ("--surrogates", "both", "--judges", "both"), "both"),
            (6, ("--surrogates", "judge_one"), "judge_one"),
            (5, ("-o", "broken.png"), "Cannot write to the output folder"),
            (5, ("-o", "broken.png/deeper"), "Cannot write to the output folder"),
            (2, ("--method", "magic"), "magic"),
            (2, ("--unknown",), "--unknown"),
        ],
    )
    def test_bad_options(
        self, folder: Path, capsys: pytest.CaptureFixture[str], code: int, options: tuple[str, ...], said: str
    ) -> None:
        write_photo(Path("a.png"), "anna")
        write_photo(Path("empty.png"))
        Path("broken.png").write_text("no photo")
        method = () if "--method" in options else NEGATIVE
        assert said in fails(capsys, code, "protect", "a.png", *method, *options)
        assert not Path("protected/a.png").exists()

    @pytest.mark.parametrize(
        ("path", "said"),
        [("missing.png", "does not exist"), ("void", "no photos"), ("*.jpg", "no photos")],
    )
    def test_nothing_to_protect(self, folder: Path, capsys: pytest.CaptureFixture[str], path: str, said: str) -> None:
        Path("void").mkdir()
        assert said in fails(capsys, 4, "protect", path, *NEGATIVE)

    def test_no_paths(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "paths" in fails(capsys, 2, "protect").lower()


def _nothing(self, views, work):  # type: ignore[no-untyped-def]
    return [Edit(view, torch.zeros_like(view.pixels)) for view in views]


@pytest.mark.usefixtures("stage")
class TestVerify:
    def test_protected_and_unprotected(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        run(["protect", "a.png", *NEGATIVE])
        capsys.readouterr()
        assert run(["verify", "a.png", "protected/a.png", "--reference", "a.png", "--report", "r.html"]) == 0
        shown = capsys.readouterr().out
        assert "no match" in shown
        assert "Protected: None of the 2" in shown
        assert Path("r.html").read_text().startswith("<!doctype html>")
        assert json.loads(Path("r.json").read_text())["method"]["made_here"] is False
        assert run(["verify", "a.png", "a.png"]) == 7
        assert "MATCH at FMR 0.0001" in capsys.readouterr().out

    def test_as_json(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        assert run(["verify", "a.png", "a.png", "--json"]) == 7
        assert json.loads(capsys.readouterr().out)["schema"] == "bauta.report/2"

    def test_an_option_that_is_repeated_adds(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        assert run(["verify", "a.png", "a.png", "--json", "--judges", "judge_one", "--judges", "judge_two"]) == 7
        faces = json.loads(capsys.readouterr().out)["faces"]
        assert {row["judge"] for face in faces for row in face["comparisons"]} == {"judge_one", "judge_two"}

    def test_bad_input(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_photo(Path("a.png"), "anna")
        write_photo(Path("wide.png"), "anna", "bert")
        write_photo(Path("empty.png"))
        assert "missing.png" in fails(capsys, 4, "verify", "missing.png", "a.png")
        assert "missing.png" in fails(capsys, 4, "verify", "a.png", "missing.png")
        assert "another shape" in fails(capsys, 2, "verify", "a.png", "wide.png")
        assert "No face" in fails(capsys, 3, "verify", "empty.png", "empty.png")
        assert "cannot be written" in fails(capsys, 5, "verify", "a.png", "a.png", "--report", "no/r.html")

    def test_a_report_replaces_reports_only(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        photo = write_photo(Path("a.png"), "anna").read_bytes()
        Path("notes.json").write_text("[1]")
        Path("page.html").write_text("mine")
        command = ("verify", "a.png", "a.png", "--report")
        assert "not a name for a report" in fails(capsys, 2, *command, "a.png")
        assert "notes.json exists" in fails(capsys, 5, *command, "notes.html")
        assert "page.html exists" in fails(capsys, 5, *command, "page.html")
        assert (Path("a.png").read_bytes(), Path("notes.json").read_text()) == (photo, "[1]")
        assert Path("page.html").read_text() == "mine"
        assert [run([*command, "r.html"]) for _ in range(2)] == [7, 7]


@pytest.mark.usefixtures("stage")
class TestDemo:
    @pytest.fixture(autouse=True)
    def portrait(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
        pixels = np.asarray(Image.open(write_photo(Path("nasa.png"), "anna")))
        monkeypatch.setattr(data, "astronaut", lambda: pixels)
        monkeypatch.setattr("bauta.cloaking.demo.ProtectSettings", lambda: ProtectSettings(method="negative"))

    def test_everything_there_is_to_see(self, capsys: pytest.CaptureFixture[str]) -> None:
        names = ["mask.png", "original.jpg", "protected.jpg", "report.html", "report.json", "side_by_side.png"]
        for _ in range(2):  # an earlier demonstration is replaced
            assert run(["demo", "-o", "out/demo"]) == 0
            shown = capsys.readouterr().out
            assert sorted(path.name for path in Path("out/demo").iterdir()) == names
        assert "FACE  JUDGE      AGAINST   BEFORE  AFTER  THRESHOLD  MARGIN  DECISION" in shown
        assert "Protected: None of the 2" in shown
        assert all(f"out/demo/{name}" in shown for name in names)
        report = json.loads(Path("out/demo/report.json").read_text())
        assert report["output"]["name"] == "protected.jpg"

    @pytest.mark.parametrize("name", ["original.jpg", "protected.jpg", "mask.png", "report.json"])
    def test_files_of_others_are_kept(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        Path(name).write_text("mine")
        assert f"{name} is not from an earlier demonstration" in fails(capsys, 5, "demo", "-o", ".")
        assert Path(name).read_text() == "mine"

    def test_a_folder_that_cannot_be(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "Cannot write to" in fails(capsys, 5, "demo", "-o", "nasa.png")


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods"]) == 0
    assert "tip-im" in capsys.readouterr().out
    assert run(["methods", "--json", "tip*"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "tip-im"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"bauta {__version__}\n"
    for command in ([], ["protect"], ["verify"], ["methods"], ["recognizers"]):
        assert run([*command, "--help"]) == 0
        assert "Usage: bauta" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0


def test_a_defect_is_one_line_unless_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bauta.registry.list_methods", lambda pattern: 1 / 0)
    assert "ZeroDivisionError" in fails(capsys, 1, "methods")
    monkeypatch.setenv("BAUTA_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["methods"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(pattern: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bauta.registry.list_methods", interrupt)
    assert "interrupted" in fails(capsys, 130, "methods")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["--help", "protect --help", "verify --help", "--version"])
def test_help_imports_nothing_heavy(command: str) -> None:
    heavy = {"torch", "onnx", "onnxruntime", "cv2", "numpy", "PIL", "dlib", "jinja2", "httpx"}
    result = _python(
        f"import sys; from bauta.cli import run; code = run({command.split()!r}); "
        f"print('HEAVY', sorted({heavy!r} & sys.modules.keys())); sys.exit(code)"
    )
    assert result.returncode == 0, result.stderr
    assert "HEAVY []" in result.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    result = _python("import sys, bauta; print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])")
    assert result.stdout == "[]\n"


def test_a_closed_pipe_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from bauta.cli import main; main(['methods'])"]
    with os.fdopen(writer, "w") as closed:
        result = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "")


def test_durations() -> None:
    durations = {"10s": 10, "500ms": 0.5, "2m": 120, "1.5": 1.5, "1 h": 3600, ".5s": 0.5}
    assert {text: seconds(text) for text in durations} == durations
    for text in ("", "s", "10 days", "1e3", "-1", "0", "nan"):
        with pytest.raises(UsageError):
            seconds(text)


def test_boxes_and_names() -> None:
    assert box("1,2.5, 3,4") == (1, 2.5, 3, 4)
    assert names(["auto"]) == names(None) == "auto"
    assert names(["a, b", "c"]) == ("a", "b", "c")
    for text in ("", "a,,b", ",", "a,auto"):
        with pytest.raises(UsageError):
            names([text])


def test_an_option_given_again_adds_names() -> None:
    assert chosen(["a,b", "c"]) == ("a", "b", "c")
    assert chosen(None) is chosen(["auto"]) is None
    with pytest.raises(UsageError, match="empty name"):
        chosen(["a", ""])


def test_help_shows_the_extra_that_training_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "bauta[train]" in capsys.readouterr().out  # square brackets are markup to the help page


class TestRecognizers:
    @pytest.fixture(autouse=True)
    def home(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BAUTA_HOME", "home")
        monkeypatch.delenv("BAUTA_MODELS", raising=False)

    def test_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["recognizers", "list"]) == 0
        assert re.search(r"dlib_resnet +surrogate, judge", capsys.readouterr().out)
        assert run(["recognizers", "list", "--json"]) == 0
        entries = json.loads(capsys.readouterr().out)
        assert [entry["name"] for entry in entries] == ["dlib_resnet", "chip_resnet", "mobilefacenet", "mobilenet"]
        assert all(entry["weights_present"] for entry in entries)

    def test_bad_input(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("empty").mkdir()
        Path("card.toml").write_text("name =")
        Path("binary").write_bytes(b"\xff\xfe\xff")
        command = ("recognizers", "calibrate")
        assert "no images" in fails(capsys, 2, *command, "dlib_resnet", "empty")
        assert "not a folder" in fails(capsys, 2, *command, "all", "missing")
        assert "no images" in fails(capsys, 2, *command, "auto", "empty")  # not recognisers called a, u, t, o
        assert "nobody" in fails(capsys, 6, *command, "nobody", "empty")
        assert "binary cannot be read" in fails(capsys, 2, *command, "all", "empty", "--exclude", "binary")
        assert "model.onnx" in fails(capsys, 6, "recognizers", "add", "model.onnx", "--card", "card.toml")
        assert "missing.toml" in fails(capsys, 2, "recognizers", "pull", "missing.toml")
        assert "not an https address" in fails(capsys, 2, "recognizers", "pull", "http://example.invalid/c.toml")
        assert "--card" in fails(capsys, 2, "recognizers", "add", "model.onnx")

    def test_a_bad_models_folder(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("BAUTA_MODELS", "nowhere")
        assert "nowhere" in fails(capsys, 6, "recognizers", "list")
