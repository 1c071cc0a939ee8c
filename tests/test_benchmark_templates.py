"""The template benchmark on toys: people whose faces are patterns, a recogniser and judges that see them."""

from __future__ import annotations

import copy
import json
import math
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from attack_toys import ToyJudge, cut_recognizer, toy_faces
from bauta import metrics
from bauta.benchmark.crop_sets import Source
from bauta.benchmark.engine.cards import read_card, write_card
from bauta.benchmark.engine.run import Job
from bauta.benchmark.engine.run import run as run_rows
from bauta.benchmark.engine.table import markdown as as_markdown
from bauta.benchmark.photos.cards import PhotoCard
from bauta.benchmark.plots import recovery_against_loss
from bauta.benchmark.stores import run as templates
from bauta.benchmark.stores.cards import StoreCard
from bauta.benchmark.stores.page import RANKING_HEADER, Stores, gallery, ranking_rows, rows, trade_off, trade_off_svg
from bauta.benchmark.stores.recipe import (
    MATCHER,
    REFERENCES,
    Attack,
    Evaluation,
    TemplateRecipe,
    TemplateRow,
    attacks,
    carried,
    half,
    read_template_recipe,
    some_pairs,
)
from bauta.benchmark.stores.results import summarise
from bauta.benchmark.stores.run import StoreKind
from bauta.benchmark.stores.setup import draw_victims, set_up
from bauta.cli import run
from bauta.data.datasets import read_lfw
from bauta.errors import NotCalibrated, UsageError
from bauta.recognizers.calibration import Threshold
from bauta.templates.references import ConstantConfig
from timeless import timeless

NEEDS_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DECODER = {"decoder": "residual", "channels": 8, "epochs": 6, "batch": 8, "rate": 1e-2}
SEARCH = {"level": "representation", "iterations": 40, "starts": 1, "rate": 0.2, "variation": 0.1}

RECIPE = TemplateRecipe(
    name="toy",
    recognizer="toy",
    judges=("judge",),
    evaluation=(Evaluation("lfw", "lfw"),),
    people=(Source("others", each=4),),
    attackers=(
        Attack("look", "picture"),
        Attack("clean decoder", "decoder", options=DECODER),
        Attack("adaptive decoder", "decoder", adaptive=True, options=DECODER),
        Attack("search", "search", options=SEARCH, victims=3),
        Attack("student", "student", options={"epochs": 20, "batch": 12, "rate": 1e-2, "images": 24}),
    ),
    rows=(
        TemplateRow("feature", "identity-feature", {"split": "1"}),
        TemplateRow("constant", "constant-image", attackers=("look", "student")),
    ),
    victims=4,
    fmrs=(0.1, 0.05),
)


def to_html(cards: list[dict[str, Any]]) -> str:
    return Stores().page(cards)


def markdown(cards: list[dict[str, Any]]) -> str:
    return as_markdown(Stores().tables(cards), Stores().notes(cards))


QUICK = replace(
    RECIPE,
    attackers=(Attack("look", "picture"), Attack("student", "student", options={"epochs": 1, "batch": 8, "images": 8})),
    rows=RECIPE.rows[1:],
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LFW of twelve people in four folds, and sixteen other people with four images each."""
    folder = tmp_path_factory.mktemp("data")

    def write(place: str, names: list[str], each: int, seed: int) -> None:
        pixels = toy_faces(len(names), each, seed)[0].permute(0, 2, 3, 1).numpy()
        for number, image in enumerate(pixels):
            name = names[number // each]
            path = folder / place / name / f"{name}_{number % each + 1:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)

    victims = [f"Vic_{letter}" for letter in "ABCDEFGHIJKL"]
    write("lfw/images", victims, 2, 0)
    write("others", [f"Other_{number}" for number in range(16)], 4, 1)
    lines = ["4\t3"]
    for fold in range(4):
        three = victims[3 * fold : 3 * fold + 3]
        lines += [f"{name}\t1\t2" for name in three]
        lines += [f"{three[one]}\t1\t{three[other]}\t2" for one, other in ((0, 1), (1, 2), (2, 0))]
    (folder / "lfw" / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(card: Any, fmr: float) -> Threshold:
        if card.name == "uncalibrated":
            raise NotCalibrated("No threshold is stored.")
        return Threshold(fmr, 0.8 if fmr < 0.1 else 0.7, 5000, 100, "toys", "0" * 64, "2026-01-01")

    def card(name: str) -> Any:
        return replace(cut_recognizer().card, name=name)

    for place, fake in {
        "setup.find_card": card,
        "setup.load_evaluator": lambda card: ToyJudge(card.name),
        "setup.threshold": limit,
        "run.find_card": card,
        "run.load_surrogate": lambda name: cut_recognizer(),
    }.items():
        monkeypatch.setattr(f"bauta.benchmark.stores.{place}", fake)
    monkeypatch.setattr("bauta.benchmark.embeddings.ERRORS_WANTED", 1)


@pytest.fixture(scope="module")
def ran(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cards")


def run_toy(data: Path, output: Path, recipe: TemplateRecipe = RECIPE, **options: Any) -> dict[str, dict[str, Any]]:
    paths = run_rows(StoreKind(), recipe, Job(output, data, **{"examples": 2, **options}))
    return {path.stem.removeprefix(f"{recipe.name}-"): read_card(path, StoreCard) for path in paths}


def test_an_unprotected_feature_gives_the_face_away_and_a_constant_gives_nothing(data: Path, ran: Path) -> None:
    cards = run_toy(data, ran)
    feature, constant = (cards[name]["results"] for name in ("feature", "constant"))
    accuracy = feature["accuracy"]["lfw/pairs"]
    assert accuracy["clean"] == {key: value for key, value in accuracy["one-sided"].items() if key != "loss"}
    assert accuracy["one-sided"]["loss"] == {"mean": 0, "low": 0, "high": 0}
    assert constant["accuracy"]["lfw/pairs"]["two-sided"]["auroc"] == 0.5
    recovery = feature["recovery"]
    for name in ("clean decoder", "adaptive decoder", "search"):
        assert recovery[name]["mse"]["mean"] < recovery["mean face"]["mse"]["mean"], name
    assert recovery["clean decoder"]["mse"] == recovery["adaptive decoder"]["mse"]  # nothing to adapt to
    assert recovery["search"]["victims"] == 3
    assert recovery["another photo"]["replay"]["judge"]["type_2"]["0.05"]["mean"] == 1  # it is that photo
    assert constant["recovery"]["look"] == constant["recovery"]["grey"]
    assert "matcher" in feature["linkage"]
    assert recovery["another photo"]["replay"]["system"]["type_2"]["0.05"]["mean"] == 1
    assert constant["linkage"]["student"]["face_template"]["auroc"] == 0.5
    assert constant["unlinkability"]["key_secret"]["system"] == 0
    assert feature["linkage"]["student"]["face_template"]["auroc"] > 0.6
    assert feature["unlinkability"]["key_secret"]["system"] > feature["unlinkability"]["key_secret"]["null"]["mean"]
    assert feature["renewability"]["keyed"] is False
    assert (feature["cost"]["bytes"], feature["cost"]["of_an_image"]) == (8 * 28 * 28 * 4, round(25088 / 37632, 6))


def test_masked_faces_are_compared_with_masked_faces_and_attacked_from_within(data: Path, tmp_path: Path) -> None:
    options = {"masking_epochs": 4, "epochs": 4, "fine_tuning_epochs": 1, "batch": 8,
               "rate": 1e-2, "kept": 4, "choice": "energy"}  # fmt: skip
    network = {"decoder": "residual", "channels": 4, "epochs": 1, "batch": 8}
    attackers = (
        Attack("look", "picture"),
        Attack("black-box GAN", "generative", adaptive=True, options=network),
        Attack("white-box GAN", "generative", adaptive=True, options={**network, "fresh": True}),
    )
    row = TemplateRow("masked", "ppfr-fd", options)
    card = run_toy(data, tmp_path, replace(RECIPE, attackers=attackers, rows=(row,), victims=3))["masked"]
    by_name = {attacker["name"]: attacker["knowledge"] for attacker in card["attackers"]}
    assert by_name == {"look": "mechanism", "black-box GAN": "pairs", "white-box GAN": "mechanism"}
    assert (card["protector"]["kind"], card["results"]["cost"]["bytes"]) == ("frequency", 2 * 12 * 112 * 112)
    accuracy = card["results"]["accuracy"]["lfw/pairs"]
    assert accuracy["one-sided"]["auroc"] == accuracy["two-sided"]["auroc"]  # nothing is random: the door masks alike
    assert set(card["results"]["privacy"]) == {"black-box GAN", "white-box GAN"}
    for attacker, found in card["results"]["privacy"].items():
        seen, recovered = (card["results"]["recovery"][name] for name in ("look", attacker))
        assert found["s1"]["mean"] == pytest.approx(1 - seen["ssim"]["mean"], abs=1e-5)
        assert found["s3"]["mean"] == pytest.approx(1 - recovered["ssim"]["mean"], abs=1e-5)
        parts = [found[part]["mean"] for part in ("s1", "s2", "s3", "s4")]
        assert found["score"]["mean"] == pytest.approx(0.2 * sum(parts[:2]) + 0.3 * sum(parts[2:]), abs=1e-4)


def test_attackers_may_read_what_the_stem_makes_of_masked_faces(data: Path, tmp_path: Path) -> None:
    options = {"masking_epochs": 1, "epochs": 1, "fine_tuning_epochs": 1, "batch": 8, "kept": 6}
    network = {"decoder": "residual", "channels": 4, "epochs": 1, "batch": 8}
    attackers = (
        Attack("raw", "decoder", adaptive=True, options=network),
        Attack("pictures", "decoder", adaptive=True, options={**network, "reads": "pictures"}),
        Attack("student", "student", options={"epochs": 1, "rate": 1e-6, "reads": "pictures"}),
        Attack("inverter", "decoder", options={**network, "decoder": "deconvolution", "reads": "templates"}),
    )
    recipe = replace(RECIPE, attackers=attackers, rows=(TemplateRow("masked", "ppfr-fd", options),), victims=3)
    card = run_toy(data, tmp_path, recipe)["masked"]
    linked = card["results"]["linkage"]
    assert linked["student"]["face_template"]["auroc"] > 0.6  # it starts where the teacher is
    choices = {attacker["name"]: attacker["ours"] for attacker in card["attackers"]}
    assert "the protector's own stem" in choices["pictures"]
    assert "the protector's own stem" in choices["student"]
    assert "stem" not in choices["raw"]
    assert "templates" in choices["inverter"]
    assert {one["name"]: one["knowledge"] for one in card["attackers"]} == {
        "raw": "pairs", "pictures": "mechanism", "student": "mechanism", "inverter": "mechanism",
    }  # fmt: skip
    contrary = {**network, "fresh": True, "reads": "pictures"}
    both = replace(recipe, attackers=(Attack("both", "decoder", adaptive=True, options=contrary),))
    with pytest.raises(UsageError, match="can be fresh with numbers only"):
        run_toy(data, tmp_path / "both", both)
    for kind, adaptive, reads in (
        ("decoder", True, "templates"),
        ("student", False, "templates"),
        ("decoder", True, "x"),
    ):
        wrong = replace(recipe, attackers=(Attack("wrong", kind, adaptive=adaptive, options={"reads": reads}),))
        with pytest.raises(UsageError, match=r"templates himself|cannot read"):
            run_toy(data, tmp_path / f"{kind} {reads}", wrong)


def test_a_card_says_who_attacked_with_what(data: Path, ran: Path) -> None:
    card = run_toy(data, ran)["feature"]
    by_name = {attacker["name"]: attacker for attacker in card["attackers"]}
    assert [by_name[name]["knowledge"] for name in ("look", "clean decoder", "adaptive decoder", "search")] == [
        "nothing", "nothing", "pairs", "mechanism",
    ]  # fmt: skip
    assert by_name["adaptive decoder"]["adaptive"]
    assert not by_name["clean decoder"]["adaptive"]
    assert by_name["adaptive decoder"]["images"] == card["data"]["attacker"]["images"]
    assert by_name["student"]["images"] == min(24, card["data"]["attacker"]["images"])
    assert card["data"]["protector"]["people"] + card["data"]["attacker"]["people"] == 16
    system = card["thresholds"]["system"]
    assert [limit["fmr"] for limit in system] == [0.1, 0.05]
    assert system[0]["impostor_pairs"] > 100
    assert {"original", "mean face", "stored", "clean decoder", "search"} <= card["examples"][0]["pictures"].keys()
    limits = {name: {limit["fmr"]: limit for limit in found} for name, found in card["thresholds"].items()}
    again = summarise(card["records"], limits, "toy", card["fmrs"])
    assert {name: card["results"][name] for name in again} == again


def test_a_finished_row_is_not_run_again_and_a_repeated_run_says_the_same(
    data: Path, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = QUICK
    first = run_toy(data, tmp_path / "one", recipe)["constant"]
    second = run_toy(data, tmp_path / "two", recipe)["constant"]
    for card in (first, second):
        del card["results"]["cost"]["milliseconds"]
    assert timeless(first) == timeless(second)
    monkeypatch.setattr(templates, "carry_out", lambda *_: pytest.fail("ran again"))
    run_toy(data, tmp_path / "one", recipe)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_A_GPU)])
def test_all_attackers_run_on_a_device_and_the_card_says_which(data: Path, tmp_path: Path, device: str) -> None:
    few = {"epochs": 1, "batch": 8}
    attackers = (
        Attack("look", "picture"),
        Attack("clean decoder", "decoder", options={**DECODER, **few}),
        Attack("GAN", "generative", adaptive=True, options={**DECODER, **few}),
        Attack("search", "search", options={**SEARCH, "iterations": 2}, victims=3),
        Attack("student", "student", options={**few, "images": 8}),
    )
    rows = (TemplateRow("advface", "advface", {"split": "1", "shadows": ["residual-8"], "iterations": 2, **few}),)
    card = run_toy(data, tmp_path, replace(RECIPE, attackers=attackers, rows=rows), device=device)["advface"]
    assert card["run"]["device"] == ("cpu" if device == "cpu" else torch.cuda.get_device_name())
    assert {one["name"] for one in card["attackers"]} == {one.name for one in attackers}


def test_an_interrupted_run_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = QUICK
    protected = []

    def stop(what: str, done: int, total: int) -> None:
        if "student" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_toy(data, tmp_path, recipe, progress=stop)
    assert not list(tmp_path.glob("*.json"))
    from bauta.templates.references import ConstantImage

    real = ConstantImage.protect
    monkeypatch.setattr(
        ConstantImage, "protect", lambda self, images, *rest: protected.append(len(images)) or real(self, images, *rest)
    )
    run_toy(data, tmp_path, recipe)
    assert set(protected) == {1}  # only the timing protects; what was protected before is read


def test_a_protector_that_was_half_written_is_written_again(data: Path, tmp_path: Path) -> None:
    options = {"masking_epochs": 1, "epochs": 1, "fine_tuning_epochs": 1}
    recipe = replace(QUICK, rows=(TemplateRow("noise", "gaussian-noise", options, attackers=("look",)),))
    run_toy(data, tmp_path, recipe)
    (card,) = tmp_path.rglob("protectors/*/card.toml")
    before = tomllib.loads(card.read_text(encoding="utf-8"))
    card.unlink()
    next(tmp_path.glob("*.json")).unlink()
    run_toy(data, tmp_path, recipe)
    assert tomllib.loads(card.read_text(encoding="utf-8"))["sha256"] == before["sha256"]


def test_tables_and_the_page_show_every_row(data: Path, ran: Path) -> None:
    cards = list(run_toy(data, ran).values())
    table = rows(cards)
    assert [cells[0] for cells in table] == ["feature", "constant"]
    text = markdown(cards)
    assert (
        text.count("| feature |") == 11
    )  # one in the main table, one of accuracy, four recovered, two linked, three scored
    assert "| constant | student |" in text
    page = to_html(cards)
    assert page.count("data:image/jpeg") > 8
    assert "<script" not in page
    for word in ("adaptive decoder", "mean face", "another photo"):
        assert word in page
    with pytest.raises(UsageError, match="no result cards"):
        to_html([])


def test_the_ranking_puts_the_least_recovered_first_and_ranks_each_column(data: Path, ran: Path) -> None:
    cards = list(run_toy(data, ran).values())
    assert ranking_rows(cards) == []  # two are not a ranking
    feature, constant = sorted(cards, key=lambda card: not card["name"].endswith("feature"))
    assert ranking_rows([feature, feature, constant]) == []  # whom no decoder attacked
    better = copy.deepcopy(feature)
    better["name"] = "toy/better"
    recovered = [card["results"]["recovery"]["adaptive decoder"]["ssim"] for card in (better, feature)]
    recovered[0]["mean"] = recovered[1]["mean"] - 0.2
    ranked = ranking_rows([feature, better, feature])
    assert [cells[0] for cells in ranked] == ["better", "feature", "feature"]
    place = RANKING_HEADER.index("SSIM recovered")
    means = [recovered[one]["mean"] for one in (0, 1, 1)]
    assert [cells[place] for cells in ranked] == [
        f"{mean:.3f} ({at})" for mean, at in zip(means, (1, 2, 2), strict=True)
    ]
    assert {cells[RANKING_HEADER.index("bytes")][-3:] for cells in ranked} == {"(1)"}
    assert "| row | loss, one-sided |" in markdown([feature, better, feature])


def test_the_trade_off_is_drawn_as_ranked(data: Path, ran: Path) -> None:
    feature = next(card for name, card in run_toy(data, ran).items() if name == "feature")
    cards = [feature, copy.deepcopy(feature), copy.deepcopy(feature)]
    for number, card in enumerate(cards):
        card["name"] = f"toy/row {number}"
        for accuracy in card["results"]["accuracy"].values():
            accuracy["one-sided"]["loss"]["mean"] = (0.0, 0.04, 0.16)[number]
        card["results"]["recovery"]["adaptive decoder"]["ssim"] = {"mean": 0.9 - 0.2 * number, "low": 0.42, "high": 1.0}
    drawn = trade_off(cards)
    assert drawn is not None
    assert drawn["attacker"] == "adaptive decoder"
    points = {point.label: point for point in drawn["points"]}
    assert [points[f"row {number}"].x for number in range(3)] == pytest.approx([0.2, 0.6, 1.0])  # roots of -1, 0, 4, 16
    mean_face = feature["results"]["recovery"]["mean face"]["ssim"]["mean"]
    lowest = math.floor(10 * min(0.42, mean_face)) / 10
    heights = [(0.9 - 0.2 * number - lowest) / (1 - lowest) for number in range(3)]
    assert [points[f"row {number}"].y for number in range(3)] == pytest.approx(heights)
    assert drawn["mean_face"] == pytest.approx((mean_face - lowest) / (1 - lowest))
    assert drawn["ticks"][0] == (0.0, "-1")
    assert drawn["ticks"][-1] == (pytest.approx((1 + 10**0.5) / 5), "10")
    svg = trade_off_svg(cards)
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg in to_html(cards)
    with pytest.raises(UsageError, match="no learned attacker in common"):
        trade_off_svg(cards[:2])


def test_labels_that_would_cover_each_other_are_moved_to_the_nearest_free_height(data: Path, ran: Path) -> None:
    feature = next(card for name, card in run_toy(data, ran).items() if name == "feature")
    drawn = trade_off([feature] * 12)
    assert drawn is not None
    heights = sorted(point.label_y for point in drawn["points"])
    assert all(after - before > 0.0499 for before, after in pairwise(heights))
    assert max(abs(point.label_y - point.y) for point in drawn["points"]) < 0.31


def test_labels_cover_no_point_of_another_row() -> None:
    """A row a little to the right and as high, where the label of the first would stand."""
    seen = {"mean": 0.7, "low": 0.69, "high": 0.71}
    drawn = recovery_against_loss([("a long row", 0.0, seen), ("another", 0.02, seen), ("far", 16.0, seen)], 0.4)
    first, second, third = drawn["points"]
    assert 0 < second.x - first.x < 0.1
    assert abs(first.label_y - second.y) > 0.0299
    assert abs(first.label_y - second.label_y) > 0.0499
    assert third.label_y == third.y


def test_one_victim_is_shown_as_every_row_stores_them(data: Path, ran: Path) -> None:
    cards = list(run_toy(data, ran).values())
    shown = gallery(cards)
    assert shown is not None
    assert list(shown["references"]) == ["original", "mean face"]
    assert [label for label, _ in shown["rows"]] == [card["name"].partition("/")[2] for card in cards]
    for card, (_, pictures) in zip(cards, shown["rows"], strict=True):
        kept = card["examples"][0]["pictures"]
        assert pictures == [kept.get(name) for name in shown["columns"]]
    page = to_html(cards)
    assert page.count(shown["references"]["original"]) == 1 + len(cards)  # on top, and with each row's other victims
    assert gallery(cards[:1]) is None
    other = copy.deepcopy(cards[1])
    other["examples"][0]["pictures"]["original"] = "data:image/jpeg;base64,"
    assert gallery([cards[0], other]) is None
    bare = copy.deepcopy(cards)
    for card in bare:
        card["examples"] = []
    assert gallery(bare) is None
    assert "One person" not in to_html(bare)


def test_long_tables_are_folded_and_names_are_shown_once(data: Path, ran: Path) -> None:
    cards = list(run_toy(data, ran).values())
    assert '<details class="table">' not in to_html(cards)
    many = [copy.deepcopy(card) for card in cards * 13]
    page = to_html(many)
    folded = page.split('<details class="table">')[1:]
    assert folded
    assert all(int(part.partition(" lines")[0].rpartition(">")[2]) > 24 for part in folded)
    assert '<th class="again">' in to_html(cards)


def test_rows_are_compared_with_the_baseline_pair_by_pair(data: Path, ran: Path, tmp_path: Path) -> None:
    recipe = replace(QUICK, rows=RECIPE.rows, baseline="feature").only(("constant",))
    assert [row.name for row in recipe.rows] == ["feature", "constant"]
    found = run_toy(data, tmp_path, recipe)
    assert "baseline" not in found["feature"]["results"]
    baseline = found["constant"]["results"]["baseline"]
    assert baseline["row"] == "feature"
    accuracies = [found[name]["results"]["accuracy"]["lfw/pairs"] for name in ("feature", "constant")]
    for mode, loss in baseline["loss"]["lfw/pairs"].items():
        theirs, own = (one[mode]["accuracy"]["mean"] for one in accuracies)
        assert loss["mean"] == pytest.approx(theirs - own, abs=1e-6)
        assert loss["low"] <= loss["mean"] <= loss["high"]
    assert "| constant | lfw/pairs | feature |" in markdown(list(found.values()))
    with pytest.raises(UsageError, match="baseline"):
        replace(QUICK, rows=RECIPE.rows, baseline="constant")


def test_a_card_that_was_edited_or_is_of_the_other_kind_is_refused(data: Path, ran: Path, tmp_path: Path) -> None:
    card = run_toy(data, ran)["constant"]
    path = tmp_path / "card.json"
    write_card(card, path)
    with pytest.raises(UsageError, match="other kind"):
        read_card(path, PhotoCard)
    card["results"]["cost"]["bytes"] = "few"
    path.write_text(json.dumps(card))
    with pytest.raises(UsageError, match="bytes"):
        read_card(path, StoreCard)


def test_people_are_on_one_side_whatever_the_spelling(data: Path) -> None:
    assert attacks("Zoë Saldaña") == attacks("zoe_saldana")
    sides = {attacks(f"Other_{number}") for number in range(16)}
    assert sides == {True, False}
    setup = set_up(RECIPE, data)
    assert not set(setup.protectors.subjects) & set(setup.attackers.subjects)
    assert all(attacks(name) for name in setup.attackers.subjects)
    assert not {"vica", "vicb"} & {*setup.protectors.subjects, *setup.attackers.subjects}
    assert len(set(setup.victims.subjects)) == 4


def test_somebody_of_the_evaluation_trains_nobody(data: Path) -> None:
    with pytest.raises(UsageError, match="may be drawn"):
        set_up(replace(RECIPE, people=(Source("lfw/images"),)), data)
    setup = set_up(replace(RECIPE, exclude_people=("Other 3",)), data)
    assert "other3" not in {*setup.protectors.subjects, *setup.attackers.subjects}
    (data / "names.txt").write_text("Other_5\nOther_6\n")
    setup = set_up(replace(RECIPE, exclude=("names.txt", "lfw/pairs.txt")), data)
    assert not {"other5", "other6"} & {*setup.protectors.subjects, *setup.attackers.subjects}


def test_a_part_of_the_pairs_keeps_folds_and_kinds(data: Path) -> None:
    pairs = read_lfw(data / "lfw")
    few = some_pairs(pairs, 8)
    assert (len(few.same), few.same.sum(), len(np.unique(few.fold))) == (8, 4, 4)
    for place in range(8):
        assert (few.subjects[few.first[place]] == few.subjects[few.second[place]]) == few.same[place]
    enrolled, others = draw_victims(pairs, 12, 0)
    assert (enrolled != others).all()
    with pytest.raises(UsageError, match="12 people"):
        draw_victims(pairs, 13, 0)


def test_recipes_that_the_package_carries_can_be_read() -> None:
    assert "advface" in carried()
    for name in carried():
        recipe = read_template_recipe(name)
        assert recipe.rows
        assert not {"edgeface_xxs", "mobileface_v2", "espdl_mbf"} & {recipe.recognizer}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"judges": ("toy",)}, "judges"),
        ({"rows": ()}, "rows"),
        ({"fmrs": (1.0,)}, "fmrs"),
        ({"rows": (TemplateRow("a", "identity-feature", attackers=("nobody",)),)}, "nobody"),
        ({"attackers": (Attack("grey", "picture"),)}, "attackers"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(RECIPE, **change)


def test_rows_and_attackers_that_make_no_sense_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="adaptive"):
        Attack("student", "student", adaptive=True)
    with pytest.raises(UsageError, match="method or a fitted"):
        TemplateRow("both", "advface", fitted="folder")
    with pytest.raises(UsageError, match="blanks"):
        TemplateRow("a row", "advface")
    wrong = replace(RECIPE, attackers=(Attack("odd", "decoder", options={"colour": 1}),), rows=RECIPE.rows[:1])
    with pytest.raises(UsageError, match="no option 'colour'"):
        run_toy(data, tmp_path, replace(wrong, rows=(TemplateRow("feature", "identity-feature", {"split": "1"}),)))
    wrong = replace(RECIPE, rows=(TemplateRow("constant", "constant-image", attackers=("clean decoder",)),))
    with pytest.raises(UsageError, match="no unprotected service"):
        run_toy(data, tmp_path, wrong)
    with pytest.raises(UsageError, match="Row 'x': identity-feature has no setting colour"):
        run_toy(data, tmp_path, replace(RECIPE, rows=(TemplateRow("x", "identity-feature", {"colour": 1}),)))
    with pytest.raises(NotCalibrated):
        set_up(replace(RECIPE, judges=("uncalibrated",)), data)
    with pytest.raises(UsageError, match="Two sets are called"):
        set_up(replace(RECIPE, evaluation=2 * RECIPE.evaluation), data)
    odd = Attack("odd", "decoder", adaptive=True, options={"channels": "8"})
    wrong = replace(RECIPE, attackers=(odd,), rows=RECIPE.rows[:1])
    with pytest.raises(UsageError, match="cannot run with channels"):
        run_toy(data, tmp_path, wrong)
    for name in (*REFERENCES, MATCHER):
        with pytest.raises(UsageError, match="attackers"):
            replace(RECIPE, attackers=(*RECIPE.attackers, Attack(name, "picture")))


def test_new_metrics_have_known_answers() -> None:
    assert metrics.auroc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert metrics.auroc(np.array([1.0]), np.array([1.0])) == 0.5
    assert metrics.auroc(np.array([1.0, 3.0]), np.array([2.0, 2.0])) == 0.5
    random = np.random.default_rng(0)
    first, second = random.normal(1, 1, 20_000), random.normal(0, 1, 20_000)
    assert metrics.auroc(first, second) == pytest.approx(0.7602, abs=0.01)  # Phi(1 / sqrt 2)
    assert metrics.distribution_distance(first, second) == pytest.approx(0.3829, abs=0.01)  # 2 Phi(1/2) - 1
    assert metrics.distribution_distance(first, first) == 0
    assert metrics.distribution_distance(np.array([0.0]), np.array([1.0])) == 1
    for figure in (metrics.auroc, metrics.distribution_distance):
        with pytest.raises(UsageError, match="cannot be compared"):
            figure(np.array([]), np.array([1.0]))
        with pytest.raises(UsageError, match="cannot be compared"):
            figure(np.array([np.nan]), np.array([1.0]))


def test_threads_are_given_back(data: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with pytest.raises(UsageError):
        run_rows(StoreKind(), replace(RECIPE, victims=100), Job(tmp_path, data))
    assert torch.get_num_threads() == before


def test_halves_need_people_on_both_sides(data: Path) -> None:
    from bauta.benchmark.crop_sets import draw_crop_set

    crowd = draw_crop_set(data, (Source("others"),), (), 0)
    one = replace(crowd, subjects=crowd.subjects[:1], images=crowd.images[:1])
    with pytest.raises(UsageError, match="nobody on one side"):
        half(one, attacking=not attacks(one.subjects[0]))


def test_the_command_line_attacks_and_reports(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bauta.benchmark.stores.run.read_template_recipe", lambda name: QUICK)
    assert run(["templates", "attack", "quick", "--data", str(data), "-o", str(tmp_path), "--rows", "constant"]) == 0
    card = tmp_path / "toy-constant.json"
    shown = capsys.readouterr().out
    assert str(card) in shown
    assert "D_SYS (NULL)" in shown
    page = tmp_path / "page.html"
    assert run(["templates", "report", str(card), "-o", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert run(["templates", "report", str(card), "--markdown"]) == 0
    assert "| constant |" in capsys.readouterr().out
    assert run(["templates", "report", str(card), "-o", str(card)]) == 2
    assert run(["templates", "attack", "quick", "--data", str(data), "--protector", "x", "--rows", "y"]) == 2


def test_a_fitted_protector_is_attacked_as_it_is(data: Path, tmp_path: Path) -> None:
    from bauta.templates.references import ConstantImage

    ConstantImage(cut_recognizer(), ConstantConfig(level=0.25)).save(tmp_path / "fitted")
    recipe = replace(QUICK, attackers=QUICK.attackers[:1], rows=(TemplateRow("mine", fitted=str(tmp_path / "fitted")),))
    card = run_toy(data, tmp_path, recipe)["mine"]
    assert card["protector"]["settings"] == {"level": 0.25}


def test_a_fitted_protector_replaces_no_card_of_a_row(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bauta.templates.references import ConstantImage

    recipe = replace(QUICK, rows=RECIPE.rows, baseline="feature")
    monkeypatch.setattr("bauta.benchmark.stores.run.read_template_recipe", lambda name: recipe)
    command = ["templates", "attack", "quick", "--data", str(data), "-o", str(tmp_path)]
    assert run([*command, "--rows", "constant"]) == 0
    before = (tmp_path / "toy-constant.json").read_bytes()
    made = ConstantImage(cut_recognizer(), ConstantConfig(level=0.25))
    made.save(tmp_path / "constant")
    assert run([*command, "--protector", str(tmp_path / "constant")]) == 0
    assert (tmp_path / "toy-constant.json").read_bytes() == before
    card = read_card(tmp_path / f"toy-constant-{made.sha256[:8]}.json", StoreCard)
    assert card["protector"]["settings"] == {"level": 0.25}
    assert card["results"]["baseline"]["row"] == "feature"


def test_what_decides_a_card_makes_it_anew(data: Path, tmp_path: Path) -> None:
    recipe = replace(QUICK, rows=(TemplateRow("constant", "constant-image", attackers=("look",)),))
    first = run_toy(data, tmp_path, recipe)["constant"]
    assert run_toy(data, tmp_path, recipe)["constant"]["run"] == first["run"]
    other = run_toy(data, tmp_path, replace(recipe, asked=8, evidence=False))["constant"]
    assert (first["evidence"], other["evidence"]) == (True, False)
    (tmp_path / "toy-constant.json").write_text('{"schema": ')
    with pytest.raises(UsageError, match="Delete or move it"):
        run_toy(data, tmp_path, recipe)


def test_bytes_are_those_of_what_the_row_stores(data: Path, tmp_path: Path) -> None:
    rows = tuple(
        TemplateRow(name, "identity-feature", {"split": "1"}, attackers=("look",), storage=name)
        for name in ("float32", "float16")
    )
    whole, half_ = (run_toy(data, tmp_path, replace(QUICK, rows=rows))[name] for name in ("float32", "float16"))
    assert whole["results"]["cost"]["bytes"] == 2 * half_["results"]["cost"]["bytes"]


def test_a_key_keeps_decoders_and_links_out_as_long_as_it_is_secret(data: Path, tmp_path: Path) -> None:
    """AdvFace with next to no noise, so that all there is to see is its key."""
    options = {
        "split": "1",
        "shadows": ["residual-4"],
        "iterations": 1,
        "epsilon": 0.01,
        "epochs": 1,
        "batch": 8,
    }
    recipe = replace(
        QUICK,
        attackers=(RECIPE.attackers[2], RECIPE.attackers[3]),
        rows=(
            TemplateRow("open", "advface", options),
            TemplateRow("locked", "advface", options, keyed=True),
        ),
        asked=24,
    )
    cards = run_toy(data, tmp_path, recipe)
    plain, locked = (cards[name]["results"] for name in ("open", "locked"))
    assert cards["locked"]["data"]["asked"] == 24
    assert plain["accuracy"] == locked["accuracy"]  # who has the key recognises as before
    mean_face = plain["recovery"]["mean face"]["mse"]["mean"]
    decoder = "adaptive decoder"
    assert plain["recovery"][decoder]["mse"]["mean"] < mean_face < locked["recovery"][decoder]["mse"]["mean"]
    assert locked["recovery"]["search"]["mse"]["mean"] < mean_face  # which has the key
    assert "matcher" in plain["linkage"]
    assert "matcher" not in locked["linkage"]
    numbers = [results["unlinkability"]["key_secret"]["by"]["numbers"]["maximal"] for results in (plain, locked)]
    assert numbers[1] < numbers[0]
    assert locked["unlinkability"]["key_stolen"]["system"] >= plain["unlinkability"]["key_stolen"]["system"] - 0.05
    with pytest.raises(UsageError, match="no preset 'best'"):
        run_toy(data, tmp_path, replace(recipe, rows=(TemplateRow("x", "advface", {"preset": "best"}),)))
    with pytest.raises(UsageError, match="takes no key"):
        run_toy(data, tmp_path, replace(recipe, rows=(TemplateRow("x", "constant-image", keyed=True),)))


KEY_ATTACKERS = (
    Attack("look", "picture"),
    Attack("kernel", "kernel"),
    Attack("kernel student", "kernel-student", options={"images": 24}),
    Attack("pairs", "known-pairs", options={"pairs": [1, 6], "photos": ["same", "jpeg-85", "another"]}),
    Attack("store", "store-alone", options={"rounds": 2, "anchors": 64}),
    Attack("magnitudes", "invariants"),
)


def test_the_reference_keys_fall_and_a_seal_does_not(data: Path, tmp_path: Path) -> None:
    recipe = replace(
        QUICK,
        attackers=KEY_ATTACKERS,
        rows=(
            TemplateRow("open", "identity-feature", {"split": "1"}, attackers=("look", "kernel", "kernel student")),
            TemplateRow("permuted", "identity-feature", {"split": "1"}, keyed=True),
            TemplateRow("rotated", "identity-feature", {"split": "template"}, keyed=True, attackers=("pairs",)),
            TemplateRow("sealed", "identity-feature", {"split": "1"}, sealed=True),
        ),
    )
    found = run_toy(data, tmp_path, recipe)
    plain, permuted, rotated, sealed = (found[row.name]["results"] for row in recipe.rows)
    assert "keys" not in plain
    assert plain["accuracy"] == permuted["accuracy"] == sealed["accuracy"]
    same, many = (next(one for one in permuted["keys"]["pairs"]["tries"] if one["knows"] == f"the enrolled photo, {n}")
                  for n in (1, 6))  # fmt: skip
    true = permuted["keys"]["pairs"]["true_key"]
    assert many["positions"] > 0.9 > same["positions"]
    assert many["tar"] == true["tar"]
    assert many["rank_1"]["mean"] == true["rank_1"]["mean"] == 1
    assert permuted["invariants"]["magnitudes"]["same"]["rank_1"]["mean"] == 1
    assert rotated["keys"]["pairs"]["map"] == "rotation"
    assert all(one["positions"] is None for one in rotated["keys"]["pairs"]["tries"])
    mean_face = plain["recovery"]["mean face"]["mse"]["mean"]
    errors = [one["recovery"]["kernel"]["mse"]["mean"] for one in (plain, permuted, sealed)]
    assert errors[0] < 0.6 * mean_face < 0.8 * mean_face < min(errors[1:])
    assert sealed["keys"]["pairs"]["map"] == "sealed"
    assert sealed["keys"]["pairs"]["true_key"] == true  # who has the key opens all the same
    opened = [one["rank_1"]["mean"] for name in ("pairs", "store") for one in sealed["keys"][name]["tries"]]
    assert sum(opened) / len(opened) < 0.6  # a quarter by chance, among four
    assert plain["linkage"]["kernel student"]["face_template"]["auroc"] > 0.6
    assert sealed["linkage"]["kernel student"]["face_template"]["auroc"] < 0.75
    assert "matcher" not in sealed["linkage"]
    assert sealed["cost"]["bytes"] == plain["cost"]["bytes"] + 28
    assert found["sealed"]["protector"]["sealed"] is True
    by_name = {one["name"]: one for one in found["permuted"]["attackers"]}
    assert (by_name["pairs"]["knowledge"], by_name["store"]["knowledge"]) == ("pairs", "mechanism")
    assert (by_name["kernel"]["stopped"], by_name["kernel"]["epochs"]) == ("solved", 0)
    assert by_name["kernel student"]["images"] == 24
    text = markdown(list(found.values()))
    assert "| permuted | pairs | the enrolled photo, 6 |" in text
    assert "| permuted | magnitudes | same |" in text


def test_attackers_of_keys_need_a_key_and_the_others_no_more_than_ciphertext(data: Path, tmp_path: Path) -> None:
    feature = {"split": "1"}

    def refused(said: str, attack: Attack, **options: Any) -> None:
        row = TemplateRow("row", "identity-feature", feature, **options)
        with pytest.raises(UsageError, match=said):
            run_toy(data, tmp_path / attack.name, replace(QUICK, attackers=(attack,), rows=(row,)))

    refused("the row has none", Attack("pairs", "known-pairs"))
    refused("100 pairs", Attack("pairs", "known-pairs"), keyed=True)
    refused("pairs", Attack("no pairs", "known-pairs", options={"pairs": [0]}), keyed=True)
    refused("no option 'width'", Attack("kernel", "kernel", options={"width": 2}))
    refused("more of a store", Attack("search", "search", options=SEARCH), sealed=True)
    refused("more of a store", Attack("fresh", "decoder", adaptive=True, options={"fresh": True}), sealed=True)
    with pytest.raises(UsageError, match="keyed and sealed"):
        TemplateRow("both", "advface", keyed=True, sealed=True)
    row = TemplateRow("rotated", "identity-feature", {"split": "template"}, keyed=True)
    with pytest.raises(UsageError, match="a rotation mixes"):
        run_toy(data, tmp_path / "alone", replace(QUICK, attackers=(Attack("store", "store-alone"),), rows=(row,)))


def test_images_are_judged_at_the_calibrated_threshold_too(data: Path, ran: Path) -> None:
    card = next(card for name, card in run_toy(data, ran).items() if name == "constant")
    modes = card["results"]["black_box"]["judges"]["judge"]["lfw/pairs"]
    assert modes["clean"]["tar"]["0.1"]["mean"] > 0.9
    assert modes["two-sided"]["tar"]["0.1"]["mean"] == 1  # all grey images are alike
    assert modes["one-sided"]["tar"]["0.1"]["mean"] < modes["clean"]["tar"]["0.1"]["mean"]
    assert modes["two-sided"]["false_matches"]["0.1"]["mean"] == 1
    assert modes["clean"]["false_matches"]["0.1"]["mean"] < 0.5
    assert "| constant | lfw/pairs | judge | 0.1 |" in markdown([card])
    older = copy.deepcopy(card)
    for mode in older["results"]["black_box"]["judges"]["judge"]["lfw/pairs"].values():
        del mode["tar"], mode["false_matches"]
    assert "| constant | lfw/pairs | judge | 0.1 |" not in markdown(
        [older]
    )  # a card of before has the tables of before
