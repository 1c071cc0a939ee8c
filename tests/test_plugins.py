"""Methods of other packages: found by entry point, and named when they cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bauta import registry
from bauta.cli import run
from bauta.cloaks.base import load_cloak
from bauta.errors import UsageError

CARD = registry.MethodCard("toy-veil", "cloak", "For tests: one mask for a person.", "our design", "toy_veil:ToyVeil")
BROKEN_TARGET = registry.MethodCard("broken", "cloak", "?", "?", "no_such_module:Thing")
NOT_A_CLOAK = registry.MethodCard("odd", "cloak", "?", "?", "test_plugins:CARD")
TAKEN = registry.MethodCard("tip-im", "cloak", "Mine!", "?", "toy_veil:ToyVeil")
NO_CARD = 7

GREY = {
    "bauta_grey/__init__.py": """
from bauta.registry import MethodCard

CARD = MethodCard("grey", "cloak", "Draws the face towards grey.", "our design", "bauta_grey.grey:Grey")
""",
    "bauta_grey/grey.py": '''
from dataclasses import dataclass
from typing import Annotated, ClassVar

from bauta.cloaks.base import Cloak, Edit
from bauta.registry import register
from bauta.settings import Range, Settings


@dataclass(frozen=True)
class GreyConfig(Settings):
    """Settings of the grey veil.

    Attributes:
        amount: How much of the face becomes grey.
    """

    title: ClassVar[str] = "grey"
    amount: Annotated[float, Range(at=0, to=1)] = 0.5


@register("grey", kind="cloak")
class Grey(Cloak[GreyConfig]):
    Config = GreyConfig

    def edit(self, views, work):
        return [Edit(view, (0.5 - view.pixels) * self.config.amount * view.region) for view in views]
''',
    "bauta_grey-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: bauta-grey\nVersion: 0.1\n",
    "bauta_grey-0.1.dist-info/entry_points.txt": ("[bauta.methods]\ngrey = bauta_grey:CARD\nlost = bauta_lost:CARD\n"),
    "test_grey.py": """
from bauta.testing import CloakContract as Contract


class TestGrey(Contract):
    method = "grey"


del Contract
""",
}


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


def test_a_package_that_is_installed_passes_the_contract_it_is_given(tmp_path: Path) -> None:
    for name, content in GREY.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        paths = [str(tmp_path), *(path for path in sys.path if path)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)

    shown = python("-m", "bauta", "methods", "grey")
    assert "grey (of the package bauta-grey)" in shown.stdout, shown.stderr
    assert "--amount  0.5" in shown.stdout
    assert "bauta-grey cannot be imported: ModuleNotFoundError: No module named 'bauta_lost'" in shown.stderr
    suite = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_grey.py")
    assert suite.returncode == 0, suite.stdout
    assert "passed" in suite.stdout
