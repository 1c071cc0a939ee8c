"""Teams of recognisers by where they fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bauta.benchmark import diversity as module
from bauta.benchmark.diversity import diversity
from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112


class Card:
    def __init__(self, name: str, blind: set[str]) -> None:
        self.name, self.blind = name, blind


class Judge:
    """Sees who somebody is by their grey; who it is blind to looks like person 0."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.card.template = ARCFACE_112  # type: ignore[attr-defined]

    def embed(self, crops: np.ndarray) -> np.ndarray:
        person = (crops.mean((1, 2, 3)) * 255 / 20).round().astype(int)
        second = crops[:, 0, 0, 0] > 0.9  # a white corner marks probes
        seen = [0 if late and str(one) in self.card.blind else one for one, late in zip(person, second, strict=True)]
        return np.eye(12, dtype=np.float32)[seen]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "load_judge", Judge)
    for person in range(8):
        for photo in range(2):
            pixels = np.full((112, 112, 3), 20 * person, np.uint8)
            pixels[0, 0] = 255 * photo
            (tmp_path / f"p{person}").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / f"p{person}" / f"{photo}.png")
    return tmp_path


def test_those_that_fail_on_different_people_come_first(folder: Path):
    pool = [Card("a", {"1", "2"}), Card("b", {"1", "2"}), Card("c", {"3", "4"}), Card("d", set())]
    found = diversity(pool, folder, sizes=(2,))  # type: ignore[arg-type]
    assert (found.probes, found.people) == (8, 8)
    assert found.failures == {"a": 2, "b": 2, "c": 2, "d": 0}
    by_team = {team.members: team.diversity for team in found.teams}
    assert by_team["a", "b"] == 0
    assert by_team["a", "c"] == by_team["b", "c"] == by_team["a", "d"] == 1
    assert found.teams[-1].members == ("a", "b")


def test_teams_of_which_none_fails_come_last(folder: Path):
    found = diversity([Card("a", {"1"}), Card("d", set()), Card("e", set())], folder, sizes=(2,))  # type: ignore[list-item]
    assert found.teams[-1].diversity is None
    assert found.teams[-1].members == ("d", "e")


@pytest.mark.parametrize("sizes", [(), (1,), (3,)])
def test_sizes_that_make_no_team_are_refused(folder: Path, sizes: tuple[int, ...]):
    with pytest.raises(UsageError, match="There are 2 recognisers"):
        diversity([Card("a", {"1"}), Card("b", {"2"})], folder, sizes=sizes)  # type: ignore[list-item]
