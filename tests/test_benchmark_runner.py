"""Recipes run on a toy stage: fake recognisers, a fake detector, photos of a few pixels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bauta.benchmark.adaptive import protected
from bauta.benchmark.engine.cards import Card, to_json, write_card
from bauta.benchmark.engine.cards import read_card as read_any_card
from bauta.benchmark.engine.compare import Difference
from bauta.benchmark.engine.run import Job
from bauta.benchmark.engine.run import run as run_rows
from bauta.benchmark.engine.table import markdown as as_markdown
from bauta.benchmark.photos import measuring
from bauta.benchmark.photos.cards import PhotoCard
from bauta.benchmark.photos.folders import FolderKind, FolderRecipe
from bauta.benchmark.photos.page import Photos
from bauta.benchmark.photos.recipe import Dataset, GallerySource, Recipe, Row, carried, read_recipe
from bauta.benchmark.photos.results import summarise
from bauta.benchmark.photos.run import PhotoKind
from bauta.benchmark.photos.transports import TRANSPORTS, carry, transports
from bauta.cli import run
from bauta.cloaks.base import load_cloak
from bauta.errors import NotCalibrated, UnknownRecognizer, UsageError
from bauta.faces.faces import Faces
from protection_fakes import Negative, Stage, build_stage, person, write_photo
from timeless import timeless

PEOPLE = ("anna", "ben", "cleo", "dora", "emil")

RECIPE = Recipe(
    name="toy",
    dataset=Dataset("people", "faces", face="largest"),
    rows=(Row("clean", "clean"), Row("negative", "negative"), Row("weak", "negative", {"amount": 0.05})),
    surrogates=("attacked_one",),
    judges=("judge_one", "judge_two"),
    transports=("lossless", "saved", "jpeg-75+half-size"),
    batch=2,
)


def read_card(path: Path) -> Card:
    return read_any_card(path, PhotoCard)


def to_html(cards: list[Card]) -> str:
    return Photos().page(cards)


def compare(first: Card, second: Card) -> list[Difference]:
    return Photos().compare(first, second)


def markdown(cards: list[Card]) -> str:
    return as_markdown(Photos().tables(cards), Photos().notes(cards))


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = build_stage(tmp_path_factory, monkeypatch)
    from protection_fakes import FakeJudge

    # FLIP takes longer than all the rest; tests of quality measure it.
    monkeypatch.setattr("bauta.metrics.flip", lambda one, other: float(np.abs(one - other).mean()))
    fakes = {
        "detect_faces": stage.detect,
        "find_card": stage.find,
        "threshold": stage.threshold,
        "load_judge": FakeJudge,
        "load_surrogate": lambda card: card,
    }
    for module, names in {
        "measuring": ["detect_faces", "find_card", "load_judge", "load_surrogate"],
        "run": ["find_card", "threshold"],
        "search": ["find_card", "load_judge"],
    }.items():
        for name in names:
            monkeypatch.setattr(f"bauta.benchmark.photos.{module}.{name}", fakes[name])
    return stage


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in PEOPLE:
        write_photo(tmp_path / "faces" / name / "1.png", name)
        write_photo(tmp_path / "faces" / name / "2.jpg", name, quality=95)
    return tmp_path


def run_toy(data: Path, output: str = "cards", recipe: Recipe = RECIPE, **options: Any) -> dict[str, Any]:
    """The cards of a run by row."""
    paths = run_rows(PhotoKind(), recipe, Job(data / output, data, **options))
    return {path.stem.removeprefix(f"{recipe.name}-"): read_card(path) for path in paths}


@pytest.mark.usefixtures("stage")
class TestRunRecipe:
    def test_what_hides_a_face_dodges_and_what_does_not_does_not(self, data: Path) -> None:
        cards = run_toy(data)
        for row, success in (("clean", 0), ("negative", 1), ("weak", 0)):
            results = cards[row]["results"]
            assert (results["pairs"], results["usable"], results["subjects"]) == (5, 5, 5)
            assert results["recognised_before"] == {"judge_one": 5, "judge_two": 5}
            for transport in RECIPE.transports:
                assert results["dodging"][transport]["mean"] == {"mean": success, "low": success, "high": success}
        assert cards["clean"]["results"]["largest_difference"] == 0
        assert cards["clean"]["surrogates"] == []
        assert (
            cards["weak"]["results"]["quality"]["psnr"]["mean"]
            > cards["negative"]["results"]["quality"]["psnr"]["mean"]
        )

    def test_results_follow_from_the_records(self, data: Path) -> None:
        card = run_toy(data)["weak"]
        assert summarise(card["records"], card["judges"], card["transports"]) == card["results"]

    def test_run_twice_the_card_is_the_same_but_for_time_and_machine(self, data: Path) -> None:
        recipe = replace(RECIPE, rows=(Row("noise", "noise"), Row("pixelate", "pixelate")))
        first, second = (run_toy(data, output, recipe) for output in ("one", "two"))
        for row in first:
            assert to_json(timeless(first[row]) | {"run": 0}) == to_json(timeless(second[row]) | {"run": 0})
        assert first["noise"]["results"]["largest_difference"] == pytest.approx(16, abs=0.01)

    def test_noise_of_a_photo_does_not_depend_on_what_ran_before(self, data: Path) -> None:
        recipe = replace(RECIPE, rows=(Row("noise", "noise"),))
        whole = run_toy(data, "one", recipe)["noise"]
        part = run_toy(data, "two", replace(recipe, pairs=4))["noise"]
        assert part["records"] == whole["records"][:4]

    def test_an_interrupted_run_goes_on_where_it_stopped(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = replace(RECIPE, rows=RECIPE.rows[1:2])
        make = Negative.edit

        def stop(self: Negative, views: list[Any], work: Any) -> Any:
            if len(Negative.calls) == 2:
                raise KeyboardInterrupt
            return make(self, views, work)

        with monkeypatch.context() as patch:
            patch.setattr(Negative, "edit", stop)
            with pytest.raises(KeyboardInterrupt):
                run_toy(data, recipe=recipe)
        assert not list((data / "cards").glob("*.json"))  # no card before all is done
        interrupted = run_toy(data, recipe=recipe)["negative"]
        assert Negative.calls == [2, 2, 1]
        assert timeless(run_toy(data, "fresh", recipe)["negative"]) == timeless(interrupted)

    def test_finished_batches_are_done_again_when_anything_changed(self, data: Path) -> None:
        recipe = replace(RECIPE, rows=RECIPE.rows[1:2])
        run_toy(data, recipe=recipe)
        run_toy(data, recipe=recipe)
        assert len(Negative.calls) == 3
        run_toy(data, recipe=replace(recipe, seed=1))
        assert len(Negative.calls) == 6
        write_photo(data / "faces" / "anna" / "1.png", "anneliese")
        run_toy(data, recipe=recipe)
        assert len(Negative.calls) == 7

    def test_a_photo_without_a_face_or_damaged_is_counted_and_named(self, data: Path) -> None:
        write_photo(data / "faces" / "ben" / "1.png")
        (data / "faces" / "cleo" / "2.jpg").write_bytes(b"damaged")
        card = run_toy(data)["negative"]
        assert (card["results"]["pairs"], card["results"]["usable"]) == (5, 3)
        failures = [record["failure"] for record in card["records"]]
        assert failures[0] is None
        assert "ben" in failures[1]
        assert failures[2] is not None

    def test_a_set_without_a_face_gives_no_card(self, data: Path, stage: Stage) -> None:
        stage.blind = True
        with pytest.raises(UsageError, match="none of 5 pairs"):
            run_toy(data)
        assert not list((data / "cards").glob("*.json"))

    def test_aligned_crops_need_no_detector(self, data: Path, stage: Stage) -> None:
        for name in PEOPLE:
            for file in ("1.png", "2.png"):
                (data / "crops" / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(person(name)).save(data / "crops" / name / file)
        stage.blind = True
        recipe = replace(RECIPE, dataset=Dataset("people", "crops", face="aligned"))
        assert run_toy(data, recipe=recipe)["clean"]["results"]["recognised_before"] == {"judge_one": 5, "judge_two": 5}

    def test_an_attacked_judge_is_marked_and_left_out_of_the_independent_mean(self, data: Path) -> None:
        recipe = replace(RECIPE, surrogates=("both",), judges=("both", "judge_one"), rows=RECIPE.rows[1:2])
        card = run_toy(data, recipe=recipe)["negative"]
        assert {judge["name"]: judge["attacked"] for judge in card["judges"]} == {"both": True, "judge_one": False}
        saved = card["results"]["dodging"]["saved"]
        assert saved["independent"] == saved["judges"]["judge_one"]

    def test_a_judge_that_a_surrogate_learned_from_counts_as_attacked(self, data: Path, stage: Stage) -> None:
        stage.add("witness", "judge")
        # A copy of a teacher under another name is the teacher.
        stage.add("copy", "judge", sha256=stage.find("judge_one").sha256)
        student = replace(
            stage.find("attacked_one"), training={"teachers": ["judge_one", "gone"], "start": "judge_two"}
        )
        stage.cards[stage.cards.index(stage.find("attacked_one"))] = student
        judges = ("judge_one", "judge_two", "copy", "witness")
        card = run_toy(data, recipe=replace(RECIPE, judges=judges, rows=RECIPE.rows[1:2]))["negative"]
        assert [judge["attacked"] for judge in card["judges"]] == [True, True, True, False]
        saved = card["results"]["dodging"]["saved"]
        assert saved["independent"] == saved["judges"]["witness"]

    @pytest.mark.parametrize("name", ["attacked_one", "judge_one"])
    def test_another_preprocessing_is_measured_again(self, data: Path, stage: Stage, name: str) -> None:
        recipe = replace(RECIPE, rows=RECIPE.rows[1:2])
        run_toy(data, recipe=recipe)
        place = stage.cards.index(stage.find(name))
        stage.cards[place] = replace(stage.cards[place], colour="BGR")
        run_toy(data, recipe=recipe)
        assert len(Negative.calls) == 6

    @pytest.mark.parametrize(("margin", "same"), [(0.1, False), (None, True)])
    def test_thresholds_count_where_masks_stop_by_them(
        self, margin: float | None, same: bool, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protected, "find_card", stage.find)

        def keys(cosine: float) -> tuple[str, str]:
            limit = replace(stage.threshold(stage.find("both"), 1e-2), cosine=cosine)
            monkeypatch.setattr("bauta.recognizers.calibration.threshold", lambda card, fmr: limit)
            options = {"margin": margin}
            plan = measuring.Plan("tip-im", options, ("both",), ("judge_one",), ("saved",), "largest", 0, 1e-2)
            return plan.key, protected.Protection("tip-im", options, ("both",)).key

        one, other = keys(0.4), keys(0.5)
        assert [first == second for first, second in zip(one, other, strict=True)] == [same, same]

    def test_what_is_missing_shows_before_anything_is_computed(self, data: Path, stage: Stage) -> None:
        stage.uncalibrated.add("judge_two")
        with pytest.raises(NotCalibrated):
            run_toy(data)
        with pytest.raises(UnknownRecognizer):
            run_toy(data, recipe=replace(RECIPE, judges=("nobody",)))
        with pytest.raises(UsageError, match="No cloak is called 'nothing'"):
            run_toy(data, recipe=replace(RECIPE, rows=(Row("x", "nothing"),)))
        assert Negative.calls == []

    def test_pictures_are_kept_when_asked_for(self, data: Path) -> None:
        card = run_toy(data, examples=3)["negative"]
        assert [example["record"] for example in card["examples"]] == [0, 1, 2]
        page = to_html([card])
        assert page.count("data:image/jpeg;base64,") == 6
        assert "still recognised, before and after" not in page

    def test_pictures_of_faces_that_are_still_recognised_are_kept_first(self, data: Path) -> None:
        write_photo(data / "faces" / "ben" / "1.png")
        card = run_toy(data, examples=1)["weak"]
        assert [example["record"] for example in card["examples"]] == [0]
        assert "still recognised, before and after" in to_html([card])


@pytest.mark.usefixtures("stage")
class TestCells:
    """A negative does not match the face it was made from; two negatives of one face match each other."""

    RECIPE = replace(RECIPE, rows=RECIPE.rows[:2], cells=True, gallery=GallerySource("crowd", 3))

    @pytest.fixture
    def crowd(self, data: Path) -> Path:
        for name in ("anna", "fred", "gina", "hugo"):
            (data / "crowd" / name).mkdir(parents=True)
            Image.fromarray(person(name)).save(data / "crowd" / name / "1.png")
        return data

    def test_protected_photos_that_match_each_other_show(self, crowd: Path) -> None:
        cards = run_toy(crowd, recipe=self.RECIPE)
        found = {name: cell["mean"]["mean"] for name, cell in cards["negative"]["results"]["cells"].items()}
        assert found == {"probe-protected": 1, "gallery-protected": 1, "both-protected": 0}
        assert {cell["mean"]["mean"] for cell in cards["clean"]["results"]["cells"].values()} == {0}
        assert Negative.calls == [4, 4, 2]  # both photos of each pair
        compared = {one.name: one for one in compare(cards["clean"], cards["negative"])}
        assert compared["dodging, gallery-protected"].second == 1
        assert compared["dodging, both-protected"].second == 0

    def test_searching_a_gallery(self, crowd: Path) -> None:
        card = run_toy(crowd, recipe=self.RECIPE)["negative"]
        assert card["gallery"] | {"sha256": ""} == {"name": "crowd", "strangers": 3, "targets": 10, "sha256": ""}
        found = card["results"]["identification"]
        assert found["probes"] == 5
        not_found = {
            name: [cell["untargeted"][rank]["mean"]["mean"] for rank in ("1", "5")]
            for name, cell in found["cells"].items()
        }
        assert not_found == {
            "unprotected": [0, 0], "probe-protected": [1, 1], "gallery-protected": [1, 1], "both-protected": [0, 0],
        }  # fmt: skip
        ranks = card["records"][0]["ranks"]["judge_one"]["probe-protected"]
        assert ranks["person"] == 5 + 3 + 10  # the opposite of a face is last of all
        assert summarise(card["records"], card["judges"], card["transports"]) == card["results"]

    def test_people_of_the_pairs_are_no_strangers(self, crowd: Path) -> None:
        with pytest.raises(UsageError, match="3 people who are in no pair, not 4"):
            run_toy(crowd, recipe=replace(self.RECIPE, gallery=GallerySource("crowd", 4)))

    def test_people_of_the_pairs_are_no_strangers_in_any_spelling(self, crowd: Path) -> None:
        (crowd / "crowd" / "anna").rename(crowd / "crowd" / "An-Na")
        with pytest.raises(UsageError, match="3 people who are in no pair, not 4"):
            run_toy(crowd, recipe=replace(self.RECIPE, gallery=GallerySource("crowd", 4)))

    def test_a_gallery_is_embedded_again_when_anything_changed(
        self, crowd: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = crowd / "cards" / ".work" / "galleries"
        run_toy(crowd, recipe=self.RECIPE)
        place = stage.cards.index(stage.find("judge_one"))
        stage.cards[place] = replace(stage.cards[place], mean=(0.4, 0.4, 0.4))
        run_toy(crowd, recipe=self.RECIPE)
        assert len(list(folder.iterdir())) == 3
        monkeypatch.setattr(
            "bauta.benchmark.engine.cards.code", lambda: {"bauta": "", "commit": "", "sha256": "0" * 64}
        )
        run_toy(crowd, recipe=self.RECIPE)
        assert len(list(folder.iterdir())) == 5

    def test_photos_of_each_person_are_searched_for_in_turn(self, data: Path) -> None:
        folder = data / "faces" / "anna"
        (data / "list.txt").write_text("anna\t1\t2\nanna\t2\t1\nben\t1\t2\n")
        for name in ("anna", "ben"):
            for number, suffix in ((1, "png"), (2, "jpg")):
                path = data / "faces" / name / f"{number}.{suffix}"
                path.rename(path.with_stem(f"{name}_{number:04d}"))
        assert len(list(folder.iterdir())) == 2
        recipe = replace(
            RECIPE,
            dataset=Dataset("lfw", "faces", pairs="../list.txt", face="largest"),
            rows=RECIPE.rows[1:2],
            gallery=GallerySource(),
        )
        card = run_toy(data, recipe=recipe)["negative"]
        assert ["ranks" in record for record in card["records"]] == [
            True,
            True,
            True,
        ]  # anna twice, one after the other
        assert card["results"]["identification"]["probes"] == 3
        named = replace(recipe.dataset, only=("Ben",))
        assert [pair.subject for pair in named.read(data)[1]] == ["ben"]
        with pytest.raises(UsageError, match="1 people of only have no pair"):
            replace(recipe.dataset, only=("ben", "zoe")).read(data)
        with pytest.raises(UsageError, match="lists of names"):
            replace(recipe.dataset, only="ben")
        assert list(card["results"]["identification"]["cells"]) == ["unprotected", "probe-protected"]

    def test_a_finished_gallery_is_read_again(self, crowd: Path) -> None:
        first = run_toy(crowd, recipe=self.RECIPE)["clean"]
        assert len(list((crowd / "cards" / ".work" / "galleries").iterdir())) == 2
        for path in (crowd / "cards").glob("*.json"):
            path.unlink()
        assert timeless(run_toy(crowd, recipe=self.RECIPE)["clean"]) == timeless(first)

    def test_the_page_has_tables_of_cells_and_searches(self, crowd: Path) -> None:
        page = to_html(list(run_toy(crowd, recipe=self.RECIPE).values()))
        assert "Which photo is protected" in page
        assert "5 searches among 18 faces" in page

    def test_trade_offs_need_a_hundred_impostor_pairs(self, data: Path) -> None:
        assert run_toy(data)["clean"]["det"] == {}
        for number in range(6):
            for file in ("1.png", "2.png"):
                write_photo(data / "faces" / f"person{number}" / file, f"person{number}")
        card = run_toy(data, "more", replace(RECIPE, rows=RECIPE.rows[1:2]))["negative"]
        assert card["det"]["impostor_pairs"] == 11 * 10
        curve = card["det"]["curves"]["judge_one"]
        assert curve["unprotected"]["fnmr"][0] == 0
        assert curve["probe-protected"]["fnmr"][0] == 1
        assert "Detection error trade-offs" in to_html([card])


@pytest.mark.usefixtures("stage")
class TestCards:
    def test_older_schemas_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "card.json"
        path.write_text(json.dumps({"schema": "bauta.benchmark/1", "results": {}}))
        with pytest.raises(UsageError, match=r"bauta.benchmark/1.*reads 'bauta.benchmark/2'"):
            read_card(path)

    def test_a_partial_card_does_not_pass(self, data: Path) -> None:
        run_toy(data)
        path = data / "cards" / "toy-negative.json"
        text = path.read_text(encoding="utf-8")
        assert list(json.loads(text)) == ["schema", *list(json.loads(text))[1:-1], "complete"]
        for cut in (text[: len(text) // 2], text.replace(',\n "complete": true', "")):
            path.write_text(cut, encoding="utf-8")
            with pytest.raises(UsageError, match=r"not JSON|not complete"):
                read_card(path)
        path.write_text(text.replace('"fmr": 0.01', '"fmr": "few"', 1), encoding="utf-8")
        with pytest.raises(UsageError, match=r"fmr: 'few' is not of type number"):
            read_card(path)

    def test_what_is_no_card_is_refused(self, tmp_path: Path) -> None:
        for content in ("[1]", "{}", '"card"'):
            (tmp_path / "card.json").write_text(content)
            with pytest.raises(UsageError, match="not a result card"):
                read_card(tmp_path / "card.json")
        with pytest.raises(UsageError, match="cannot be read"):
            read_card(tmp_path / "none.json")

    def test_provenance(self, data: Path) -> None:
        card = run_toy(data, command="bauta bench run toy")["negative"]
        assert card["schema"] == "bauta.benchmark/2"
        assert card["method"] == {"name": "negative", "kind": "cloak", "origin": "bauta", "config": {"amount": 1.0}}
        assert card["judges"][0]["threshold"]["impostor_pairs"] == 1000
        assert card["run"]["command"] == "bauta bench run toy"
        assert {"system", "python", "torch"} <= card["run"]["machine"].keys()

    def test_compare_is_paired(self, data: Path) -> None:
        cards = run_toy(data)
        found = {one.name: one for one in compare(cards["clean"], cards["negative"])}
        saved = found["dodging, saved"]
        assert (saved.first, saved.second, saved.difference.mean, saved.pairs) == (0, 1, 1, 5)
        assert saved.decided
        assert found["ssim"].difference.mean < 0
        assert "psnr" not in found  # of the clean photo there is none
        assert not any(one.decided for one in compare(cards["weak"], cards["weak"]))

    def test_compare_takes_the_pairs_that_both_have(self, data: Path) -> None:
        whole = run_toy(data)["clean"]
        part = run_toy(data, "part", replace(RECIPE, pairs=3))["negative"]
        assert {one.pairs for one in compare(whole, part)} == {3}

    def test_compare_refuses_what_does_not_go_together(self, data: Path) -> None:
        card = run_toy(data)["clean"]
        other = json.loads(json.dumps(card))
        other["judges"][0]["threshold"]["cosine"] = 0.1
        with pytest.raises(UsageError, match="not the same judge"):
            compare(card, other)
        for record in other["records"]:
            record["sha256"] = ["0" * 64, "1" * 64]
        with pytest.raises(UsageError, match="share no pairs"):
            compare(card, other)


@pytest.mark.usefixtures("stage")
class TestFolders:
    def make(self, data: Path) -> None:
        for name in PEOPLE:
            write_photo(data / "before" / f"{name}.jpg", name, quality=95)
            write_photo(data / "after" / f"{name}.png", name + "x")
            write_photo(data / "others" / name / "a.png", name)

    def measure(self, data: Path, **options: Any) -> dict[str, Any]:
        recipe = FolderRecipe(data / "before", data / "after", ("judge_one",), **options)
        (path,) = run_rows(FolderKind(), recipe, Job(data / "cards"))
        assert path == data / "cards" / "folder-after.json"
        return read_card(path)

    def test_another_face_dodges(self, data: Path) -> None:
        self.make(data)
        card = self.measure(data, references=data / "others")
        assert card["name"] == "before/after"
        assert (card["method"]["kind"], card["compared_with"]) == ("folder", "another photo")
        assert card["results"]["dodging"]["saved"]["mean"]["mean"] == 1
        assert card["results"]["quality"]["ssim"]["mean"] < 0.9

    def test_without_references_photos_are_compared_with_themselves(self, data: Path) -> None:
        self.make(data)
        card = self.measure(data)
        assert card["compared_with"] == "the original"
        assert "compared with their own originals" in markdown([card])
        assert {record["before"]["judge_one"] for record in card["records"]} == {1.0}

    def test_other_sizes_have_no_quality(self, data: Path) -> None:
        self.make(data)
        for path in (data / "after").iterdir():
            with Image.open(path) as picture:
                picture.resize((224, 264)).save(path)
        card = self.measure(data)
        assert card["results"]["usable"] == 5
        assert card["results"]["quality"]["ssim"] is None
        assert to_html([card])

    def test_an_output_that_is_missing_stops_the_run(self, data: Path) -> None:
        self.make(data)
        (data / "after" / "ben.png").unlink()
        with pytest.raises(UsageError, match=r"1 of 5 originals .*ben\.jpg"):
            self.measure(data)

    def test_a_copy_of_the_original_is_no_reference(self, data: Path) -> None:
        self.make(data)
        write_photo(data / "before" / "ben.jpg", "ben")
        (data / "others" / "ben" / "a.png").write_bytes((data / "before" / "ben.jpg").read_bytes())
        with pytest.raises(UsageError, match="ben has no other photo"):
            self.measure(data, references=data / "others")


@pytest.mark.usefixtures("stage")
class TestReport:
    def test_the_page_needs_nothing_else(self, data: Path) -> None:
        page = to_html(list(run_toy(data).values()))
        assert not re.findall(r"<script|<link|https?://", page)
        assert "default-src 'none'" in page
        assert page.count("<circle") == 3
        assert "100.0 (100.0-100.0)" in page
        assert "Still recognised" in page

    def test_names_are_text(self, data: Path) -> None:
        recipe = replace(RECIPE, note="<b>bold</b>", rows=RECIPE.rows[:1])
        page = to_html([run_toy(data, recipe=recipe)["clean"]])
        assert "<b>bold</b>" not in page
        assert "&lt;b&gt;bold" in page

    def test_markdown(self, data: Path) -> None:
        lines = markdown(list(run_toy(data).values())).splitlines()
        assert lines[0].startswith("| row | pairs | dodging | worst judge |")
        assert len({line.count("|") for line in lines[:5]}) == 1
        assert "| jpeg-75+half-size | 0.0 (0.0-0.0) | 100.0 (100.0-100.0) | 0.0 (0.0-0.0) |" in lines
        assert "| negative | 100.0 (100.0-100.0) | 100.0 (100.0-100.0) |" in lines  # by judge
        assert lines[3].startswith("| negative | 5 of 5 | 100.0 (100.0-100.0) | judge_")

    def test_there_must_be_a_card(self) -> None:
        with pytest.raises(UsageError, match="no result cards"):
            to_html([])


class TestCommands:
    @pytest.mark.usefixtures("stage")
    def test_run_report_compare(self, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        monkeypatch.chdir(data)
        Path("toy.toml").write_text(
            'name = "toy"\nsurrogates = ["attacked_one"]\njudges = ["judge_one"]\n[dataset]\nkind = "people"\n'
            'path = "faces"\n[[rows]]\nname = "clean"\nmethod = "clean"\n'
            '[[rows]]\nname = "hidden"\nmethod = "negative"\n'
        )
        assert run(["bench", "run", "toy.toml", "--data", ".", "-o", "cards", "--pairs", "4"]) == 0
        assert "hidden  4 of 4  100.0 (100.0-100.0)" in capsys.readouterr().out
        cards = ["cards/toy-clean.json", "cards/toy-hidden.json"]
        assert run(["bench", "report", *cards, "-o", "out/page.html"]) == 0
        assert "<svg" in Path("out/page.html").read_text(encoding="utf-8")
        assert run(["bench", "report", *cards, "--markdown"]) == 0
        assert "| hidden |" in capsys.readouterr().out
        assert run(["bench", "compare", *cards]) == 0
        assert "dodging, saved" in capsys.readouterr().out
        assert run(["bench", "compare", cards[0], cards[0]]) == 0
        assert {line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]} == {"equal"}
        assert run(["bench", "report", cards[0], "-o", cards[1]]) == 2
        assert run(["bench", "run", "toy.toml"]) == 2
        assert "Give --data DIR" in capsys.readouterr().err

    @pytest.mark.usefixtures("stage")
    def test_folder(self, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        monkeypatch.chdir(data)
        words = ["bench", "folder", "faces", "faces", "--judges", "judge_one", "--name", "same", "-o", "cards"]
        assert run(words) == 0
        assert "same  10 of 10  0.0 (0.0-0.0)" in capsys.readouterr().out
        assert run([*words[:4], "-o", "cards", "--name", "a/b"]) == 2
        assert run([*words, "--surrogates", "auto"]) == 2  # that was once read as four names
        assert "Name the --surrogates" in capsys.readouterr().err


class TestRecipes:
    def test_carried_recipes_can_be_read_and_their_methods_exist(self) -> None:
        assert {"smoke", "lfw", "leave-one-out", "robustness", "visibility"} <= set(carried())
        for name in carried():
            recipe = read_recipe(name)
            assert recipe.name == name
            for row in recipe.rows:
                load_cloak(row.method).configured(row.options)
        assert not read_recipe("smoke").evidence

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ('fmr = "x"', "fmr|recipe"),
            ("fmr = 2.0", "fmr is 2.0"),
            ("surprise = 1", "unknown key 'surprise'"),
            ("gallery = { people = 5 }", "gallery with 5 people of ''"),
            ('cells = "yes"', "cells is 'yes'"),
            ('transports = ["saved", "fax"]', "transport 'fax'"),
            ('transports = ["blur"]', "transports is"),
            ('transports = "saved"', "transports is"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, tmp_path: Path, change: str, message: str) -> None:
        path = tmp_path / "recipe.toml"
        path.write_text(
            f'name = "x"\nsurrogates = ["a"]\njudges = ["b"]\n{change}\n[dataset]\nkind = "toy"\n'
            '[[rows]]\nname = "clean"\nmethod = "clean"\n'
        )
        with pytest.raises(UsageError, match=message):
            read_recipe(str(path))

    def test_an_unknown_recipe_or_row(self) -> None:
        with pytest.raises(UsageError, match="no recipe 'nothing'") as error:
            read_recipe("nothing")
        assert "smoke" in error.value.hint
        with pytest.raises(UsageError, match="no row fog"):
            RECIPE.only(("fog",))

    def test_chains(self) -> None:
        assert [condition.name for condition in transports("half-size+jpeg-75")] == ["half-size", "jpeg-75"]
        assert transports("lossless") == ()

    def test_a_chain_says_where_a_face_is_afterwards(self) -> None:
        pixels = np.zeros((200, 100, 3), np.float32)
        pixels[100, 50] = 1
        face = Faces(np.array([[40, 80, 60, 120]]), np.full((1, 5, 2), [50.0, 100.0]), np.ones(1))
        for name in TRANSPORTS:
            changed, moved = carry(name, pixels, face)
            x, y = moved.landmarks[0, 0]
            brightest = np.unravel_index(changed.sum(2).argmax(), changed.shape[:2])
            assert np.abs(np.array([y, x]) - brightest).max() <= 2, name
        changed, moved = carry("crop+half-size", pixels, face)
        assert changed.shape == (80, 40, 3)
        np.testing.assert_allclose(moved.boxes, [[15, 30, 25, 50]], atol=0.01)

    def test_transports_are_the_same_each_time(self) -> None:
        pixels = np.random.default_rng(0).random((40, 40, 3), dtype=np.float32)
        for name in TRANSPORTS:
            first, second = (carry(name, pixels, Faces.none())[0] for _ in range(2))
            np.testing.assert_array_equal(first, second)
            assert (name == "saved") == np.array_equal(first, pixels)


@pytest.mark.slow
def test_the_smoke_run_gives_the_same_cards_in_one_process_and_in_two(tmp_path: Path) -> None:
    recipe = read_recipe("smoke")
    one, two = (run_rows(PhotoKind(), recipe, Job(tmp_path / str(jobs), jobs=jobs)) for jobs in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert timeless(read_card(first)) == timeless(read_card(second))
    cards = {path.stem: read_card(path) for path in one}
    assert not any(card["evidence"] for card in cards.values())
    assert cards["smoke-clean"]["results"]["dodging"]["saved"]["mean"]["mean"] == 0
    assert cards["smoke-tip-im"]["passes"]["backward"] > 0
    write_card(cards["smoke-clean"], tmp_path / "again.json")


def test_the_recipe_in_the_documentation_is_one(tmp_path: Path) -> None:
    guide = Path(__file__).resolve().parent.parent / "docs" / "benchmark.md"
    if not guide.is_file():
        pytest.skip("the documentation is not part of an installation")
    assert [name for name in TRANSPORTS if f"`{name}`" not in guide.read_text(encoding="utf-8")] == []
    (text,) = re.findall(r"^```\n(name = .*?)^```$", guide.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "recipe.toml").write_text(text)
    assert [row.name for row in read_recipe(str(tmp_path / "recipe.toml")).rows] == ["clean", "paper"]
