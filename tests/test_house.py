"""The package as a whole: examples in docstrings run, and modules import each other in one direction."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import bauta

PACKAGE = Path(bauta.__file__).parent
MODULES = {
    ".".join(("bauta", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if ">>>" in path.read_text(encoding="utf-8")])
def test_examples_in_docstrings_run(name: str) -> None:
    assert not doctest.testmod(importlib.import_module(name)).failed
