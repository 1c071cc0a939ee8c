"""Methods of other packages: found by entry point, and named when they cannot be used."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sysconfig
import venv
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from bauta import registry
from bauta.cli import run
from bauta.cloaking.outcomes import FRAGILE, WEAK
from bauta.cloaks.base import load_cloak
from bauta.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
CARD = registry.MethodCard("toy-veil", "cloak", "For tests: one mask for a person.", "our design", "toy_veil:ToyVeil")
BROKEN_TARGET = registry.MethodCard("broken", "cloak", "?", "?", "no_such_module:Thing")
NOT_A_CLOAK = registry.MethodCard("odd", "cloak", "?", "?", "test_plugins:CARD")
TAKEN = registry.MethodCard("tip-im", "cloak", "Mine!", "?", "toy_veil:ToyVeil")
NO_CARD = 7


def declare(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Entry points of a package called bauta-toys, by name and value."""

    def found(group: str) -> list[Any]:
        assert group == "bauta.methods"
        entries = []
        for name, value in values.items():
            entry = EntryPoint(name.replace("_", "-"), value, group)
            vars(entry)["dist"] = SimpleNamespace(name="bauta-toys")
            entries.append(entry)
        return entries

    monkeypatch.setattr(registry, "entry_points", found)
    registry._others.cache_clear()


@pytest.fixture(autouse=True)
def forgotten() -> Any:
    yield
    registry._others.cache_clear()


def test_a_method_of_another_package_is_one_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(monkeypatch, toy_veil="test_plugins:CARD")
    assert load_cloak("toy-veil").card.package == "bauta-toys"
    assert run(["methods", "toy-veil"]) == 0
    assert "toy-veil (of the package bauta-toys)" in capsys.readouterr().out
    assert run(["protect", "--method", "toy-veil", "--help"]) == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lost", "no_such_module:CARD", "bauta-toys cannot be imported: ModuleNotFoundError"),
        ("no_card", "test_plugins:NO_CARD", "bauta-toys declares int instead of a MethodCard"),
        ("renamed", "test_plugins:CARD", "bauta-toys declares 'renamed', and its card 'toy-veil'"),
        ("tip_im", "test_plugins:TAKEN", "bauta-toys declares 'tip-im', a name that is taken"),
        ("broken", "test_plugins:BROKEN_TARGET", r"broken \(of the package bauta-toys\) cannot be imported"),
        ("odd", "test_plugins:NOT_A_CLOAK", r"odd \(of the package bauta-toys\) is not a Cloak"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_and_the_rest_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str
) -> None:
    declare(monkeypatch, **{name: value})
    if name != "tip_im":
        with pytest.raises(UsageError, match=said) as caught:
            load_cloak(name.replace("_", "-"))
        assert caught.value.hint
    assert load_cloak("tip-im").card.package == "bauta"
    assert load_cloak("blur")
    assert run(["methods"]) == 0
    shown = capsys.readouterr()
    assert "tip-im" in shown.out
    if name not in ("broken", "odd"):  # which show only when they are loaded
        assert "bauta-toys" in shown.err


@pytest.mark.parametrize(("kind", "target"), [("makeup", "a:b"), ("cloak", "a.b"), ("cloak", "a:")])
def test_a_card_that_is_none(kind: str, target: str) -> None:
    with pytest.raises(UsageError, match="'x' declares"):
        registry.MethodCard("x", kind, "?", "?", target)


# The package that docs/adding-a-method.md builds, in an environment of its own

GUIDE = ROOT / "docs" / "adding-a-method.md"
FILE = re.compile(r"^`(bauta-toy/[^`]+)`.*?\n\n```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES = {
    "bauta-toy/pyproject.toml", "bauta-toy/src/bauta_toy/__init__.py", "bauta-toy/src/bauta_toy/toy.py",
    "bauta-toy/tests/test_toy.py", "bauta-toy/recipe.toml",
}  # fmt: skip


def written() -> tuple[dict[str, str], list[str]]:
    """The files of the guide, and its commands."""
    text = GUIDE.read_text(encoding="utf-8")
    return dict(FILE.findall(text)), re.findall(r"^\$ (.+)$", text, re.MULTILINE)


class Elsewhere:
    """An environment that borrows what is installed here, and a folder with the guide's package in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "environment", symlinks=os.name != "nt")
        self.binaries = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        prefix = {name: str(folder / "environment") for name in ("base", "platbase")}
        # Folders that a .pth file names come last, and .pth files inside them are not read.
        borrowed = [str(ROOT / "src"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        place = Path(sysconfig.get_path("purelib", "venv", prefix)) / "borrowed.pth"
        place.write_text("\n".join(dict.fromkeys(borrowed)) + "\n", encoding="utf-8")
        for name, content in written()[0].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")

    def __call__(self, command: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        words = shlex.split(command)
        if words[0] in ("bauta", "pip"):
            words = ["python", "-m", *words]
        hidden = ("PYTHON", "BAUTA", "VIRTUAL", "COV", "PYTEST", "PIP_TARGET")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        done = subprocess.run(
            [str(self.binaries / words[0]), *words[1:]],
            cwd=self.folder, capture_output=True, text=True, check=False,
            env=environment | {"BAUTA_HOME": str(self.folder / "home"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )  # fmt: skip
        assert done.returncode in codes, f"{command} left with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    data = pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    made = Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    Image.fromarray(data.astronaut()).resize((256, 256)).save(made.folder / "photo.jpg", quality=92)
    made("pip install -q --no-index --no-deps --no-build-isolation ./bauta-toy")
    return made


def test_the_guide_has_every_file_of_a_package() -> None:
    files, commands = written()
    assert files.keys() == FILES
    assert [command.split()[:3] for command in commands] == [
        ["bauta", "methods", "toy"], ["bauta", "protect", "photo.jpg"], ["bauta", "bench", "run"],
        ["python", "-m", "pytest"],
    ]  # fmt: skip


def test_the_package_of_the_guide_is_listed_protects_is_measured_and_keeps_the_contract(elsewhere: Elsewhere) -> None:
    shown, protected, measured, suite = (
        elsewhere(command, codes=(0, WEAK, FRAGILE) if "protect" in command else (0,)) for command in written()[1]
    )
    assert "toy (of the package bauta-toy)" in shown.stdout
    assert "--amount  0.5" in shown.stdout
    report = json.loads((elsewhere.folder / "protected/reports/photo.report.json").read_text(encoding="utf-8"))
    assert (report["method"]["name"], report["method"]["config"]) == ("toy", {"amount": 0.7})
    assert protected.stdout
    cards = {path.name: json.loads(path.read_text()) for path in (elsewhere.folder / "out/toy").glob("*.json")}
    assert cards.keys() == {"toy-clean.json", "toy-toy.json"}
    assert cards["toy-toy.json"]["results"]["pairs"] == 2
    assert cards["toy-toy.json"]["results"]["largest_difference"] > 10
    assert "toy-toy.json" in measured.stdout
    passed = re.search(r"(\d+) passed", suite.stdout)
    assert passed is not None
    assert int(passed[1]) > 10
    assert "failed" not in suite.stdout


def test_a_broken_package_beside_it_is_named_and_the_rest_works_and_uninstalled_it_is_gone(
    elsewhere: Elsewhere,
) -> None:
    package = next(elsewhere.folder.glob("environment/**/bauta_toy")) / "__init__.py"
    sound = package.read_text(encoding="utf-8")
    package.write_text("import bauta_lost\n", encoding="utf-8")
    shown = elsewhere("bauta methods")
    assert "bauta-toy cannot be imported: ModuleNotFoundError: No module named 'bauta_lost'" in shown.stderr
    assert "tip-im" in shown.stdout
    package.write_text(sound, encoding="utf-8")
    assert "toy" in elsewhere("bauta methods").stdout.split()
    elsewhere("pip uninstall -q -y bauta-toy")
    gone = elsewhere("bauta methods")
    assert "toy" not in gone.stdout.split()
    assert not gone.stderr
    refused = elsewhere("bauta protect photo.jpg --method toy -o again", codes=(UsageError.exit_code,))
    assert "No cloak is called 'toy'" in refused.stderr
