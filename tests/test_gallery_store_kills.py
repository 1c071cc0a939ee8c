"""kill -9 at any moment: no acknowledged write is lost, no erased subject comes back, the index equals the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from store_builders import postgres

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, to be killed at once")
KILLER = Path(__file__).with_name("store_killer.py")


def killed(folder: Path, kills: int, seed: int, *place: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(KILLER), str(folder), str(kills), str(seed), *place],
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills
    assert found["acknowledged"] > kills / 4  # kills met a store at work
    return found


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bauta-pg-") as folder:
        Path(folder).chmod(0o755)
        with postgres(Path(folder)) as found:
            yield found


def test_thirty_kills(tmp_path: Path) -> None:
    killed(tmp_path, 30, 1)


def test_ten_kills_on_postgresql(tmp_path: Path, address: str) -> None:
    killed(tmp_path, 10, 2, address)


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_a_thousand_kills(tmp_path: Path) -> None:
    found = killed(tmp_path, 1000, 3)
    assert min(found["not done"], found["done before the answer"]) > 0


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_a_thousand_kills_on_postgresql(tmp_path: Path, address: str) -> None:
    killed(tmp_path, 1000, 4, address)
