"""Many photos in several processes: interruptions, and workers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bauta.cloaking import batch
from bauta.cloaking.batch import protect_photos
from bauta.cloaking.outcomes import Outcome
from bauta.cloaking.places import Task, collect
from bauta.cloaking.settings import ProtectSettings
from protection_fakes import files, write_photo


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_workers_report_bad_photos_too(folder: Path) -> None:
    for name in ("a", "b"):
        Path(f"{name}.png").touch()
    seen: list[Outcome] = []
    sources, _ = collect([Path()], Path("out"))
    outcomes = protect_photos(sources, Path("out"), ProtectSettings(), jobs=2, finished=seen.append)
    assert [outcome.exit_code for outcome in outcomes] == [4, 4]
    assert len(seen) == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_with_workers_leaves_no_half_file(folder: Path) -> None:
    import skimage.data
    from PIL import Image

    for name in "abcd":
        Image.fromarray(skimage.data.astronaut()).save(f"{name}.png")
    # What a shell starts in the background inherits deafness to SIGINT; whoever sits at a terminal does not.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from bauta.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "protect", ".", "-j", "2", "--steps", "500"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        scratch = Path("protected/.bauta")
        deadline = time.monotonic() + 60
        while not list(scratch.glob("part-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(scratch.glob("part-*"))
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-2] == "error: interrupted"
    assert "Traceback" not in errors
    assert files(Path("protected"), hidden=True) == []


def _dies(task: Task) -> Outcome:
    if task.source.name == "b.png":
        os._exit(9)
    return Outcome(task.source, verdict="protected")


@pytest.mark.slow
def test_a_worker_that_dies_takes_one_photo_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcde":
        write_photo(Path(f"{name}.png"), "anna")
    monkeypatch.setattr(batch, "_work", _dies)
    sources, _ = collect([Path()], Path("out"))
    outcomes = protect_photos(sources, Path("out"), ProtectSettings(), jobs=2)
    assert [outcome.exit_code for outcome in outcomes] == [0, 1, 0, 0, 0]
    assert "b.png" in outcomes[1].message
