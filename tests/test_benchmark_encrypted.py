"""Tables of encrypted matching on small galleries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal", reason="the extra `encrypted` is not installed")

from bauta.benchmark.encrypted import run as encrypted
from bauta.benchmark.encrypted.cards import EncryptedCard
from bauta.benchmark.encrypted.recipe import EncryptedRecipe, EncryptedRow, read_recipe
from bauta.benchmark.encrypted.run import EncryptedKind, EncryptedMatching
from bauta.benchmark.engine.cards import read_card
from bauta.benchmark.engine.run import Job
from bauta.benchmark.engine.run import run as run_rows
from bauta.errors import UsageError

RECIPE = EncryptedRecipe("small", (EncryptedRow("few", 70),), dimension=128, probes=4, evidence=False)


def test_decisions_are_those_in_the_clear(tmp_path: Path) -> None:
    paths = run_rows(EncryptedKind(), RECIPE, Job(tmp_path))
    card = read_card(paths[0], EncryptedCard)
    found = card["results"]
    assert (found["scores"], found["decisions"], found["found"]) == (4 * 70, 4, 2)
    assert found["wrong_by_more"] == found["decisions_differ"] == 0
    assert found["traffic"]["up"] == RECIPE.layout(RECIPE.rows[0]).upload()
    clock = card["run"]["clock"]
    assert all(value > 0 for name, value in clock.items() if name != "faiss")
    text = EncryptedMatching().page([card])
    assert "Decisions and their cost" in text
    assert "0 of 4" in text
    before = paths[0].stat().st_mtime_ns
    assert run_rows(EncryptedKind(), RECIPE, Job(tmp_path)) == paths
    assert paths[0].stat().st_mtime_ns == before, "a row that is known is not measured again"


def test_wrong_scores_and_decisions_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = encrypted._opened

    def off(*arguments: Any) -> Any:
        shares = real(*arguments).copy()
        shares[0, :3] += np.array([1, 2, 0], np.uint32)
        shares[0, 3] += 200_000  # a match where there is none
        return shares

    monkeypatch.setattr(encrypted, "_opened", off)
    card = read_card(run_rows(EncryptedKind(), RECIPE, Job(tmp_path))[0], EncryptedCard)
    found = card["results"]
    assert found["wrong_by_more"] >= 2 * RECIPE.probes - 1
    assert found["decisions_differ"] >= 2


def test_recipes(tmp_path: Path) -> None:
    assert [row.people for row in read_recipe("encrypted").rows][-1] == 1_000_000
    for wrong in ({"cosine": 0.0}, {"probes": 65}, {"rows": (EncryptedRow("none", 0),)}, {"genuine": 1.5}):
        with pytest.raises(UsageError, match="The recipe 'small'"):
            replace(RECIPE, **wrong)
    with pytest.raises(UsageError, match="no result cards"):
        EncryptedMatching().tables([])
