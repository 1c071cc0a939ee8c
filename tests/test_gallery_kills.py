"""kill -9 at any moment of writing a gallery: what is there is the old gallery or the new one, never a mixture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bauta.keys import create_key_file
from bauta.recognizers.cards import format_card
from conftest import faces
from recognizer_builders import card_of, linear_model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, to be killed at once")

# One process imports Bauta, once; its children write, and are killed. What they leave is read after each kill.
KILLER = r'''
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from gallery_builders import key_of, same, small_gallery
from bauta.cli.run import run
from bauta.errors import WrongKey
from bauta.gallery.files import read_gallery, rotate_gallery, write_gallery
from bauta.keys import DeploymentKey

what, folder, kills, seed = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
path, keys = folder / "gallery.bauta", [key_of(0), key_of(1)]
chance = random.Random(seed)
found = {"old": 0, "new": 0, "during": 0}

def kill(work, after):
    """Whether the child was killed in the middle of a write, to judge by what it left there."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    parts = list(folder.glob(".bauta-*.part"))
    for part in parts:
        part.unlink()
    return bool(parts)

def timed(work):
    began = time.perf_counter()
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return time.perf_counter() - began

def writes():  # a gallery of 4 MB replaced by another
    galleries = [small_gallery(500, 2000, seed) for seed in (0, 1)]
    write_gallery(path, galleries[0], keys[0])
    now, length = 0, timed(lambda: write_gallery(path, galleries[0], keys[0], overwrite=True))
    for _ in range(kills):
        found["during"] += kill(
            lambda: write_gallery(path, galleries[1 - now], keys[0], overwrite=True), chance.uniform(0, 1.2 * length)
        )
        read = read_gallery(path, keys[0])
        is_new = same(read, galleries[1 - now])
        assert is_new or same(read, galleries[now])
        found["new" if is_new else "old"] += 1
        now = 1 - now if is_new else now

def rotations():
    gallery = small_gallery(500, 2000)
    write_gallery(path, gallery, keys[0])
    length = timed(lambda: rotate_gallery(path, keys[0], keys[1]))
    now = 1
    for _ in range(kills):
        found["during"] += kill(
            lambda: rotate_gallery(path, keys[now], keys[1 - now]), chance.uniform(0, 1.2 * length)
        )
        try:
            read, is_new = read_gallery(path, keys[1 - now]), True
        except WrongKey:
            read, is_new = read_gallery(path, keys[now]), False
        assert same(read, gallery)
        found["new" if is_new else "old"] += 1
        now = 1 - now if is_new else now

def commands():  # enrolled faces of one folder, replaced by those of another
    key = DeploymentKey.read(folder / "key")
    def enrol(which):
        return run(["templates", "protect", str(folder / "made"), str(folder / which), "-o", str(path), "--aligned",
                    "--key", str(folder / "key"), "--overwrite"])
    assert enrol("ann") == 0
    states = {"ann": read_gallery(path, key)}
    assert enrol("bob") == 0
    states["bob"] = read_gallery(path, key)
    now, other, length = "bob", "ann", timed(lambda: enrol("bob"))
    for _ in range(kills):
        found["during"] += kill(lambda: enrol(other), chance.uniform(0.3, 1.1) * length)
        read = read_gallery(path, key)
        known = [
            name for name, state in states.items()
            if (read.names, read.representation.format) == (state.names, state.representation.format)
            and torch.equal(read.representation.tensor, state.representation.tensor)
        ]
        assert len(known) == 1, "a mixture"
        found["new" if known[0] == other else "old"] += 1
        if known[0] == other:
            now, other = other, now
for one in what.split(","):
    {"write": writes, "rotate": rotations, "command": commands}[one]()
    path.unlink()
print(json.dumps(found))
'''


def killed(what: str, folder: Path, kills: int, seed: int = 0, **environment: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(Path(__file__).parent), what, str(folder), str(kills), str(seed)],
        capture_output=True, text=True, timeout=900, env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert found["old"] + found["new"] == kills * len(what.split(","))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A recogniser called mine, a fitted protector and faces of two people in two folders, and a key."""
    home = tmp_path / "home" / "recognizers" / "mine"
    home.mkdir(parents=True)
    (home / "card.toml").write_text(format_card(card_of(home, linear_model())))
    for name, seed in (("ann", 1), ("bob", 2)):
        (tmp_path / name).mkdir()
        for number, picture in enumerate((faces(24, seed) * 255).byte().permute(0, 2, 3, 1).numpy()):
            Image.fromarray(picture).save(tmp_path / name / f"{name} {number}.png")
    create_key_file(tmp_path / "key")
    return tmp_path


def fit(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bauta.cli.run import run

    monkeypatch.setenv("BAUTA_HOME", str(place / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    for name in ("ann", "bob"):
        (place / "people" / name).mkdir(parents=True)
        for path in sorted((place / name).iterdir())[:3]:
            (place / "people" / name / path.name).write_bytes(path.read_bytes())
    fitting = ["templates", "fit", str(place / "people"), "--recognizer", "mine", "--method", "pixelated-image"]
    assert run([*fitting, "-o", str(place / "made")]) == 0


def test_twenty_kills_leave_the_old_gallery_or_the_new_one(tmp_path: Path) -> None:
    killed("write,rotate", tmp_path, 10)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("what", ["write", "rotate"])
def test_two_hundred_kills_leave_the_old_gallery_or_the_new_one(tmp_path: Path, what: str) -> None:
    found = killed(what, tmp_path, 200)
    assert min(found.values()) > 0  # kills met the write, and what is before and after it


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_kills_of_the_command_leave_the_old_gallery_or_the_new_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(place, monkeypatch)
    found = killed("command", place, 200)
    assert min(found["old"], found["new"]) > 0
