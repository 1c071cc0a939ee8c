"""Whatever a digest of code names exists, so that a renamed folder cannot leave old results in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from bauta.benchmark.adaptive import protected
from bauta.benchmark.adaptive import run as adaptive
from bauta.benchmark.engine import cards
from bauta.benchmark.stores import representations


@pytest.mark.parametrize("places", [representations._ROOMS, adaptive._TRAINING_CODE, protected.MASKS])
def test_what_a_digest_names_is_there(places: tuple[str, ...]) -> None:
    assert len(cards.source_digest(places)) == 64


def test_a_place_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is not there"):
        cards.sources(tmp_path / "renamed")
