"""Tables of clips on a person made of a composite face."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from bauta.benchmark.engine.cards import Card, read_card
from bauta.benchmark.engine.run import Job
from bauta.benchmark.engine.run import run as run_rows
from bauta.benchmark.video import run as video
from bauta.benchmark.video.cards import VideoCard
from bauta.benchmark.video.recipe import VideoRecipe, VideoRow, read_recipe
from bauta.benchmark.video.run import Clips, VideoKind
from bauta.cloaks.targets import composite_faces
from bauta.errors import UsageError

RECIPE = VideoRecipe(
    "small",
    ("Anna", "Eve"),
    (
        VideoRow("clean", "clean"),
        VideoRow("blur", "blur", {"sigma": 20.0}),
        VideoRow("fitted", "p3-mask", {"iterations": 1, "batch": 1}),
        VideoRow("each", "spatial", {"iterations": 1}, each_frame=True, people=1),
    ),
    fitted_people=("Anna",),
    more="more",
    frames=6,
    surrogates=("mobilefacenet",),
    judges=("mobilenet",),
    evidence=False,
)


def write(path: Path, number: int, light: float) -> None:
    """A photo of 250 pixels with a face in the middle."""
    face = (255 * light * composite_faces()[number].permute(1, 2, 0).numpy()).round().astype(np.uint8)
    photo = Image.new("RGB", (250, 250), (90, 110, 130))
    photo.paste(Image.fromarray(face), (69, 69))
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path, quality=95)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, number in (("Anna", 4), ("Eve", 7)):
        for at in (1, 2):
            write(folder / "lfw_photos_250" / name / f"{name}_{at}.jpg", number, 1 - at / 20)
    for at in (2, 3, 4, 5):
        write(folder / "more/Anna" / f"Anna_{at}.png", 4, 1 - at / 20)
    return folder


@pytest.fixture(scope="module")
def cards(data: Path) -> list[Card]:
    return [read_card(path, VideoCard) for path in run_rows(VideoKind(), RECIPE, Job(data / "cards", data))]


def test_a_clean_clip_is_matched_and_a_blurred_one_is_not(cards: list[Card]) -> None:
    clean, blur, fitted, each = cards
    assert [len(card["records"]) for card in cards] == [2, 2, 1, 1]
    assert [record["subject"] for record in clean["records"]] == ["Anna", "Eve"]
    for side in ("another", "itself"):
        assert clean["results"][side]["saved"]["best_frame"]["mean"] == 0
        assert blur["results"][side]["saved"]["comparisons"] == clean["results"][side]["saved"]["comparisons"] == 2
    assert blur["results"]["another"]["messenger"]["best_frame"]["mean"] == 1
    assert clean["results"]["flicker"] == 1
    assert 0.3 < blur["results"]["flicker"] < 1.2
    assert fitted["records"][0]["fitted_to"] == 3  # of four: one is among those that the clip is compared with
    assert clean["results"]["size"] > 0.5
    assert each["results"]["size"] is None
    assert each["results"]["itself"]["saved"]["best_frame"] is None


def test_what_the_clip_as_it_was_does_not_match_does_not_count(cards: list[Card]) -> None:
    (judge,) = cards[1]["judges"]
    records = [
        {**record, "comparisons": [{**one, "known": False} for one in record["comparisons"]]}
        for record in cards[1]["records"][:1]
    ]
    found = Clips().figures({**cards[1], "records": [*records, *cards[1]["records"][1:]]})
    assert found["another"]["saved"]["comparisons"] == 1
    assert found["another"]["saved"]["judges"] == {judge["name"]: 1.0}
    for card in cards:
        for record in card["records"]:
            for one in record["comparisons"]:
                assert one["known"] or card["each_frame"] or one["best"] < judge["cosine"]


def test_tables_and_differences_are_shown(cards: list[Card]) -> None:
    rows, judges = Clips().tables(cards)
    assert {len(row) for row in rows.rows} == {len(rows.header)}
    assert [row[0] for row in rows.rows] == ["clean", "blur", "fitted", "each"]
    assert [row[1] for row in judges.rows][:2] == ["0", "100"]
    dodged, flicker = Clips().compare(cards[0], cards[1])
    assert (dodged.name, dodged.pairs, dodged.difference.mean) == ("best frame, another photo", 2, 1.0)
    assert flicker.first == 1
    with pytest.raises(UsageError, match="no result cards"):
        Clips().tables([])


def test_what_was_done_is_not_done_again_and_more_people_go_on(
    data: Path, cards: list[Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = video._Person

    def watched(setup: Any, name: str, *rest: Any) -> Any:
        made.append(name)
        return real(setup, name, *rest)

    monkeypatch.setattr(video, "_Person", watched)
    run_rows(VideoKind(), RECIPE, Job(data / "cards", data))
    assert not made
    (data / "cards/small-blur.json").unlink()
    (path,) = run_rows(VideoKind(), RECIPE.only(["blur"]), Job(data / "cards", data))[1:]
    assert not made  # each person was kept
    assert read_card(path, VideoCard)["records"] == cards[1]["records"]


def test_people_without_photos_are_told(data: Path) -> None:
    with pytest.raises(UsageError, match="Zoe has 0 photos"):
        run_rows(VideoKind(), replace(RECIPE, people=("Anna", "Zoe")), Job(data / "none", data))
    few = replace(RECIPE, fitted_people=("Eve",), rows=(RECIPE.rows[0], RECIPE.rows[2]))
    with pytest.raises(UsageError, match="Eve has 0 further photos"):
        run_rows(VideoKind(), few, Job(data / "none", data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": RECIPE.rows[1:]}, "rows"), ({"people": ()}, "people"), ({"fitted_people": ("Zoe",)}, "fitted_people"),
        ({"frames": 1}, "frames"), ({"judges": ("mobilefacenet",)}, "judges"),
    ],
)  # fmt: skip
def test_recipes_that_make_no_sense_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(RECIPE, **change)


def test_the_recipe_that_ships_has_all_rows_of_the_page() -> None:
    recipe = read_recipe("video")
    assert [row.name for row in recipe.rows] == ["clean", "tracked", "makeup", "p3-mask", "blur", "each-frame"]
    assert not set(recipe.judges) & set(recipe.surrogates)
    assert recipe.people_of(recipe.rows[3]) == recipe.fitted_people
    assert len(recipe.people_of(recipe.rows[-1])) < len(recipe.people)
