"""Tables of certified answers on small sets in the form of LFW and CFP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bauta.benchmark.certified import run as certified
from bauta.benchmark.certified.cards import CertifiedCard
from bauta.benchmark.certified.recipe import CertifiedRecipe, CertifiedRow, read_recipe
from bauta.benchmark.certified.run import CertifiedAnswers, CertifiedKind
from bauta.benchmark.engine.cards import Card, read_card
from bauta.benchmark.engine.run import Job
from bauta.benchmark.engine.run import run as run_rows
from bauta.certify.bounds import Smoothing, decide
from bauta.errors import RoleRefused, UsageError

PEOPLE = [f"P{number}" for number in range(6)]
RECIPE = CertifiedRecipe(
    "small",
    (CertifiedRow("soft", "mobilefacenet", 0.02), CertifiedRow("hard", "mobilefacenet", 0.9)),
    radii=(0.02,),
    n=24,
    alpha=0.1,
    pairs=3,
    plain_pairs=4,
    fmr=0.3,
    evidence=False,
)


def picture(name: str, number: int) -> Image.Image:
    random = np.random.default_rng([number // 10, *name.encode()])  # photos of one person are nearly alike
    coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    noise = np.random.default_rng([number, *name.encode()]).integers(-6, 7, (112, 112, 3))
    pixels = np.asarray(coarse.resize((112, 112), Image.Resampling.BICUBIC)).astype(int) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in PEOPLE:
        (folder / "lfw_112/images" / name).mkdir(parents=True)
        for number in (1, 2):
            picture(name, number).save(folder / "lfw_112/images" / name / f"{name}_{number:04d}.png")
    lines = [f"1\t{len(PEOPLE)}", *(f"{name}\t1\t2" for name in PEOPLE)]
    lines += [f"{one}\t1\t{two}\t2" for one, two in zip(PEOPLE, PEOPLE[1:] + PEOPLE[:1], strict=True)]
    (folder / "lfw_112/pairs.txt").write_text("\n".join(lines) + "\n")
    cfp, count = folder / "cfp_112", 16
    (cfp / "Protocol/Split/FF/01").mkdir(parents=True)
    listed = []
    for person in range(1, count + 1):
        for number in (1, 2):
            path = cfp / "Data/Images" / f"{person:03d}" / "frontal" / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(f"C{person}", number).save(path)
            listed.append(f"{len(listed) + 1} ../Data/Images/{person:03d}/frontal/{number:02d}.jpg")
    (cfp / "Protocol/Pair_list_F.txt").write_text("\n".join(listed) + "\n")
    (cfp / "Protocol/Split/FF/01/same.txt").write_text("".join(f"{2 * n + 1},{2 * n + 2}\n" for n in range(count)))
    (cfp / "Protocol/Split/FF/01/diff.txt").write_text("".join(f"{2 * n + 1},{2 * n + 4}\n" for n in range(count - 1)))
    # Person 16 is somebody of LFW's pairs, under another spelling.
    (cfp / "list_name.txt").write_text("".join(f"Q{number}\n" for number in range(1, count)) + "p0\n")
    return folder


@pytest.fixture(scope="module")
def cards(data: Path) -> list[Card]:
    paths = run_rows(CertifiedKind(), RECIPE, Job(data / "cards", data))
    return [read_card(path, CertifiedCard) for path in paths]


def test_people_are_certified_and_strangers_are_not(cards: list[Card]) -> None:
    soft = cards[0]
    assert [len(card["records"]) for card in cards] == [3, 3]
    for record in soft["records"]:
        assert record["subject"] != record["other"]
        assert (record["genuine"], record["genuine_cosine"] > 0.9) == (24, True)
    within = soft["results"]["genuine"]["within"][0]
    radius = decide(24, Smoothing(0.02, 24, 0.1)).radius
    assert (radius >= 0.02, within["mean"]) == (True, 1.0)
    assert within["low"] == pytest.approx(0.025 ** (1 / 3), abs=1e-4)  # Clopper and Pearson, 3 of 3
    assert soft["results"]["plain"]["mean"] == 1
    assert soft["run"]["decision_seconds"] > 0
    assert soft["calibration"]["data"]["people"] == 15  # and not the one who is in a pair
    assert soft["calibration"]["impostor_pairs"] == 15 * 14 / 2


def test_shares_add_up_and_tables_show_them(cards: list[Card]) -> None:
    for card in cards:
        for side in ("genuine", "impostors"):
            shares = card["results"][side]
            assert sum(shares[name]["mean"] for name in ("accepted", "rejected", "abstained")) == pytest.approx(1)
            assert shares["within"][0]["mean"] <= 1
    (table,) = CertifiedAnswers().tables(cards)
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert [row[0] for row in table.rows] == ["soft", "hard"]
    with pytest.raises(UsageError, match="different radii"):
        CertifiedAnswers().tables([cards[0], {**cards[1], "radii": [0.1]}])
    with pytest.raises(UsageError, match="no result cards"):
        CertifiedAnswers().tables([])


def test_rows_are_compared_person_by_person(cards: list[Card]) -> None:
    same = CertifiedAnswers().compare(cards[0], cards[0])
    assert [one.name for one in same][-1] == "certified within 0.02"
    assert all(one.equal and one.pairs == 3 for one in same)
    worse = {**cards[0], "records": [{**record, "genuine": 0} for record in cards[0]["records"]]}
    assert CertifiedAnswers().compare(cards[0], worse)[-1].difference.mean == -1
    with pytest.raises(UsageError, match="no radius"):
        CertifiedAnswers().compare(cards[0], {**cards[1], "radii": [0.5]})


def test_what_was_done_is_not_done_again_and_more_pairs_go_on(
    data: Path, cards: list[Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    real = certified.Smoothed.accepted

    def watched(self: Any, *given: Any) -> list[int]:
        counted.append(1)
        return real(self, *given)

    monkeypatch.setattr(certified.Smoothed, "accepted", watched)
    run_rows(CertifiedKind(), RECIPE, Job(data / "cards", data))
    assert not counted
    more = replace(RECIPE, pairs=4).only(["soft"])
    (path,) = run_rows(CertifiedKind(), more, Job(data / "cards", data))
    assert len(counted) == 1
    assert read_card(path, CertifiedCard)["records"][:3] == cards[0]["records"]


def test_judges_are_refused_and_so_are_sets_that_are_too_small(data: Path) -> None:
    judge = replace(RECIPE, rows=(CertifiedRow("judge", "mobilenet", 0.02),))
    with pytest.raises(RoleRefused):
        run_rows(CertifiedKind(), judge, Job(data / "none", data))
    with pytest.raises(UsageError, match="genuine pairs of 6 people"):
        run_rows(CertifiedKind(), replace(RECIPE, pairs=6), Job(data / "none", data))
    with pytest.raises(UsageError, match="set no threshold"):
        run_rows(CertifiedKind(), replace(RECIPE, fmr=0.01), Job(data / "none", data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": ()}, "rows"), ({"radii": ()}, "radii"), ({"radii": (0.0,)}, "radii"), ({"pairs": 1}, "pairs"),
        ({"plain_pairs": 0}, "plain_pairs"), ({"fmr": 1.0}, "fmr"), ({"seed": -1}, "seed"), ({"n": 10}, "copies"),
        ({"radii": (0.5,)}, "copies"),
    ],
)  # fmt: skip
def test_recipes_that_make_no_sense_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(RECIPE, **change)


def test_the_recipe_that_ships_can_certify_what_it_asks_for() -> None:
    recipe = read_recipe("certify")
    assert recipe.radii == (0.15, 0.25)
    assert recipe.evidence
    for row in recipe.rows:
        assert decide(recipe.n, recipe.smoothing(row)).radius >= 0.25
    assert json.dumps(recipe.only(["base-0.12"]).rows[0].sigma) == "0.12"
