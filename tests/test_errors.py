from __future__ import annotations

import io
import json
import re
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import bauta
from bauta.cli import run
from bauta.errors import BautaError, InternalError, UsageError, as_bauta_error, every_error
from protection_fakes import build_stage, write_photo

stage = pytest.fixture(build_stage)


def everything(kind: type[BautaError] = BautaError) -> list[type[BautaError]]:
    return [kind, *(below for inner in kind.__subclasses__() for below in everything(inner))]


def test_every_error_of_the_package_has_a_code_of_its_own() -> None:
    for module in walk_packages(bauta.__path__, "bauta."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    errors = [error for error in everything() if error.__module__.startswith("bauta.")]
    assert errors == list(every_error())  # so all are in one tree, and in docs/errors.md
    codes = [vars(error)["code"] for error in errors]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*(\.[a-z]+(-[a-z]+)*)?", code) for code in codes)


def test_a_kind_of_error_begins_like_what_it_is_a_kind_of() -> None:
    for error in every_error():
        (parent,) = error.__bases__
        if issubclass(parent, BautaError) and parent is not BautaError:
            assert error.code.startswith(f"{parent.code}.")
            assert error.exit_code == parent.exit_code


def test_codes_stay_as_they_were_released() -> None:
    assert {error.code for error in every_error()} >= {
        "failed", "internal", "usage", "no-face", "photo", "photo.unreadable", "photo.unsupported", "photo.too-large",
        "output", "output.exists", "recognizer", "recognizer.unknown", "recognizer.weights-missing",
        "recognizer.weights-corrupt", "recognizer.unsupported-operator", "recognizer.role-refused",
        "recognizer.not-calibrated", "recognizer.numerical-failure",
    }  # fmt: skip


def test_what_the_machine_refuses_is_no_defect() -> None:
    full = as_bauta_error(OSError(28, "No space left on device", "out.json"))
    assert (full.message, full.code) == ("out.json: No space left on device.", "failed")
    assert as_bauta_error(MemoryError()).code == "failed"
    assert as_bauta_error(ZeroDivisionError("oops")).code == "internal"
    ours = UsageError("wrong")
    assert as_bauta_error(ours) is ours


@pytest.mark.usefixtures("stage")
class TestJson:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_photo(Path("a.png"), "anna")
        write_photo(Path("empty.png"))
        Path("broken.png").write_text("no photo")

    def test_each_photo_carries_its_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["protect", "a.png", "empty.png", "broken.png", "gone.png", "--json", "--method", "negative"]) == 4
        entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        codes = {Path(entry["source"]).name: entry["code"] for entry in entries}
        assert codes == {
            "a.png": "", "empty.png": "no-face", "broken.png": "photo.unreadable", "": "photo.unreadable",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["verify", "a.png", "gone.png", "--json"], "photo.unreadable"),
            (["verify", "empty.png", "empty.png", "--json"], "no-face"),
            (["protect", "a.png", "--json", "--method", "magic"], "usage"),
            (["protect", "a.png", "--json", "--method", "negative", "--judges", "nobody"], "recognizer.unknown"),
            (["protect", "a.png", "--json", "--method", "negative", "-o", "a.png"], "output"),
            (["protect", "a.png", "--json", "--nonsense"], "usage"),
        ],
    )
    def test_a_command_that_fails_prints_one_object(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
    ) -> None:
        left = run(arguments)
        shown = capsys.readouterr()
        told = json.loads(shown.out)["error"]
        assert (told["code"], told["exit_code"]) == (code, left)
        assert f"error: {told['message']}" in shown.err

    def test_a_defect_is_one_too(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr("bauta.registry.list_methods", lambda pattern: 1 / 0)
        assert run(["methods", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == InternalError.code


def test_any_name_can_be_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stderr", stream)
    assert run(["verify", "😀.jpg", "a.jpg"]) == 4
    stream.flush()
    assert b"error: ?.jpg" in stream.buffer.getvalue()  # type: ignore[attr-defined]
