"""Adaptive recipes on toys: small ONNX recognisers, people who are smooth pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bauta.attacks.adapt import FineTuningConfig
from bauta.attacks.link import StudentConfig
from bauta.benchmark.adaptive import protected
from bauta.benchmark.adaptive import run as adaptive
from bauta.benchmark.adaptive.cards import AdaptiveCard
from bauta.benchmark.adaptive.page import Adaptive, main_table
from bauta.benchmark.adaptive.recipe import AdaptiveRecipe, carried, read_recipe
from bauta.benchmark.adaptive.results import NONE, summarise
from bauta.benchmark.adaptive.run import AdaptiveKind
from bauta.benchmark.crop_sets import Source, draw_crop_set, draw_pairs
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import read_card as read_any_card
from bauta.benchmark.engine.run import Job
from bauta.benchmark.engine.run import run as run_rows
from bauta.benchmark.photos.recipe import Dataset, Row
from bauta.cli import run
from bauta.errors import NumericalFailure, RoleRefused, UnknownRecognizer, UsageError
from bauta.learning import fitting
from bauta.names import normalise_name
from bauta.recognizers.calibration import Threshold
from bauta.recognizers.cards import RecognizerCard
from bauta.recognizers.surrogates import load_surrogate
from recognizer_builders import card_of, linear_model

Finished = tuple[Path, dict[str, Any]]

RECIPE = AdaptiveRecipe(
    name="toy",
    evaluation=Dataset("people", "faces", face="aligned"),
    training=(Source("others", each=2),),
    calibration=(Source("crowd"),),
    rows=(Row("clean", "clean"), Row("blur", "blur", {"sigma": 12.0}), Row("pgd", "pgd", {"iterations": 2})),
    surrogates=("surrogate",),
    judges=("judge_one", "judge_two"),
    recognizer="own",
    purifiers=("purify-blur", "purify-bit-depth"),
    fine_tuning=FineTuningConfig(epochs=2, rate=1e-3, batch=8),
    student=StudentConfig(epochs=2, rate=1e-3, batch=8, flip=True),
    fmr=0.2,
    batch=4,
)


def read_card(path: Path) -> dict[str, Any]:
    return read_any_card(path, AdaptiveCard)


def write_people(folder: Path, names: list[str], count: int, *, seed: int) -> None:
    """Pictures of people, alike within a person."""
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        coarse = torch.rand(1, 3, 9, 9, generator=generator)
        for number in range(count):
            changed = coarse + 0.03 * torch.randn(coarse.shape, generator=generator)
            pixels = nn.functional.interpolate(changed.clamp(0, 1), (112, 112), mode="bilinear")[0]
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sets of people; whoever changes them takes `data`, a copy."""
    tmp_path = tmp_path_factory.mktemp("people")
    write_people(tmp_path / "faces", [f"Eve {letter}" for letter in "abcdef"], 2, seed=0)
    write_people(tmp_path / "others", [f"Tom {letter}" for letter in "abcd"] + ["Eve_A"], 2, seed=1)
    write_people(tmp_path / "crowd", [f"Cal {number}" for number in range(20)] + ["Tom-B", "eve b"], 1, seed=2)
    return tmp_path


@pytest.fixture
def data(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared, tmp_path / "data"))


@pytest.fixture(scope="module", autouse=True)
def recognizers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Four small recognisers under their names."""
    folder = tmp_path_factory.mktemp("recognizers")
    names = ("surrogate", "own", "judge_one", "judge_two")
    made = {name: replace(card_of(folder, linear_model(seed=seed)), name=name) for seed, name in enumerate(names)}

    def find(name: str) -> RecognizerCard:
        if name not in made:
            raise UnknownRecognizer(f"No recogniser is called {name!r}.")
        return made[name]

    def limit(card: RecognizerCard, fmr: float) -> Threshold:
        return Threshold(fmr, 0.5, 300, 25, "toys", "0" * 64, "2026-01-01")

    def load(of: Callable[[RecognizerCard], Any]) -> Callable[[str], Any]:
        return lambda name: of(find(name))

    with pytest.MonkeyPatch.context() as patch:
        for module in (adaptive, protected):
            patch.setattr(module, "find_card", find)
            patch.setattr(module, "load_surrogate", load(module.load_surrogate))
        for module in ("bauta.benchmark.adaptive.run", "bauta.recognizers.calibration"):
            patch.setattr(f"{module}.threshold", limit)
        patch.setattr(adaptive, "load_judge", load(adaptive.load_judge))
        yield


@pytest.fixture(scope="module")
def finished(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that is only looked at: its folder and its cards."""
    output = tmp_path_factory.mktemp("finished")
    return output, {
        path.stem.removeprefix("adaptive-toy-"): read_card(path)
        for path in run_rows(AdaptiveKind(), RECIPE, Job(output, shared))
    }


def run_toy(data: Path, output: str = "cards", recipe: AdaptiveRecipe = RECIPE, **options: Any) -> dict[str, Any]:
    """The cards of a run by row."""
    paths = run_rows(AdaptiveKind(), recipe, Job(data / output, data, **options))
    return {path.stem.removeprefix("adaptive-toy-"): read_card(path) for path in paths}


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, stop_at: int = 0) -> list[int]:
    """How often a function was called; it is interrupted at a call."""
    calls: list[int] = []
    original = getattr(module, name)

    def count(*arguments: Any, **options: Any) -> Any:
        calls.append(len(calls) + 1)
        if calls[-1] == stop_at:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, count)
    return calls


class TestRunAdaptive:
    def test_a_card_for_each_row(self, finished: Finished) -> None:
        cards = finished[1]
        assert list(cards) == ["clean", "blur", "pgd"]
        trained = [f"{kind}/{on}" for kind in ("fine-tuning", "embedding-student") for on in ("blur", "pgd", "all")]
        for card in cards.values():
            results = card["results"]
            assert list(results["attackers"]) == ["as it came", *trained]
            assert list(results["newer"]) == [NONE, "purify-blur", "purify-bit-depth"]
            assert (results["pairs"], results["subjects"]) == (6, 6)
            assert summarise(card, card["records"]) == results
        clean = cards["clean"]["results"]
        assert clean["psnr"] is None
        assert clean["newer"][NONE]["mean"] == {"mean": 0, "low": 0, "high": 0}
        assert clean["attackers"]["as it came"]["dodging"] == {"mean": 0, "low": 0, "high": 0}
        assert cards["blur"]["results"]["psnr"]["mean"] < cards["pgd"]["results"]["psnr"]["mean"]
        assert cards["pgd"]["surrogates"][0]["name"] == "surrogate"
        assert cards["blur"]["surrogates"] == []

    def test_attackers_say_what_they_trained_on(self, finished: Finished) -> None:
        card = finished[1]["pgd"]
        assert card["attackers"][0]["card"] is None
        for attacker in card["attackers"][1:]:
            facts = attacker["card"]
            copies = 2 if attacker["trained_on"] == "all" else 1
            assert (facts["knowledge"], facts["adaptive"], facts["people"]) == ("pairs", True, 4)
            assert facts["images"] == 8 + 8 * copies
            assert (facts["epochs"], facts["batch"], facts["stopped"]) == (2, 8, "epochs")
        digests = [attacker["sha256"] for attacker in card["attackers"]]
        assert len(set(digests)) == len(digests)

    def test_sets_are_disjoint_whatever_the_spelling(self, finished: Finished) -> None:
        facts = finished[1]["clean"]["data"]
        assert (facts["training"]["people"], facts["training"]["images"]) == (4, 8)  # without Eve_A
        assert (facts["calibration"]["people"], facts["calibration"]["images"]) == (20, 20)  # nor Tom-B, nor eve b

    def test_thresholds_are_found_on_the_calibration_after_training(self, shared: Path, finished: Finished) -> None:
        output, cards = finished
        thresholds = [attacker["threshold"] for attacker in cards["pgd"]["attackers"]]
        assert len(set(thresholds)) == len(thresholds)
        paths = run_rows(
            AdaptiveKind(), replace(RECIPE, fmr=0.16), Job(output / "stricter", shared, work=output / ".work")
        )
        again = read_card(paths[-1])
        assert all(
            one["threshold"] > limit for one, limit in zip(again["attackers"], thresholds, strict=True)
        )  # fmt: skip

    def test_run_twice_the_cards_are_the_same_but_for_time_and_machine(self, data: Path, finished: Finished) -> None:
        again = run_toy(data)
        for row, card in finished[1].items():
            assert {**card, "run": 0} == {**again[row], "run": 0}

    def test_an_interrupted_run_goes_on_where_it_stopped(
        self, data: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            counted(patch, adaptive, "fit_student", stop_at=2)
            with pytest.raises(KeyboardInterrupt):
                run_toy(data)
        assert not list((data / "cards").glob("*.json"))
        masks, students, tuned = (
            counted(monkeypatch, module, name)
            for module, name in ((protected, "_masked"), (adaptive, "fit_student"), (adaptive, "fine_tune"))
        )
        cards = run_toy(data)
        assert (len(masks), len(students), len(tuned)) == (0, 2, 0)
        assert all({**card, "run": 0} == {**finished[1][row], "run": 0} for row, card in cards.items())

    def test_what_is_kept_follows_from_what_it_rests_on(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = replace(RECIPE, rows=RECIPE.rows[:2])
        run_toy(data, recipe=recipe)
        masks, students = counted(monkeypatch, protected, "_masked"), counted(monkeypatch, adaptive, "fit_student")
        run_toy(data, recipe=replace(recipe, student=replace(RECIPE.student, rate=2e-3)))
        assert (len(masks), len(students)) == (0, 1)
        run_toy(data, recipe=replace(recipe, seed=1))
        assert (len(masks), len(students)) == (2 * 4, 2)  # two batches of each set; clean and blur

    def test_a_damaged_mask_or_attacker_is_made_again(self, data: Path) -> None:
        recipe = replace(RECIPE, rows=RECIPE.rows[:2])
        first = run_toy(data, recipe=recipe)
        for path in [*(data / "cards" / ".work").rglob("*.png")][:1] + [*(data / "cards").rglob("*.safetensors")][:1]:
            path.write_bytes(path.read_bytes()[:40])
        second = run_toy(data, recipe=recipe)
        assert all({**card, "run": 0} == {**second[row], "run": 0} for row, card in first.items())

    def test_numbers_that_break_at_once_stop_the_run_and_say_whose(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fitting, "_step", lambda *step: None)
        with pytest.raises(NumericalFailure, match=r"fine-tuning on blur: .* first epoch"):
            run_toy(data)
        assert not list((data / "cards").glob("*.json"))

    def test_numbers_that_break_later_leave_the_last_good_epoch(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step, calls = fitting._step, iter(range(1, 100))
        # Two steps make an epoch; the third of each attacker breaks.
        monkeypatch.setattr(fitting, "_step", lambda *given: step(*given) if next(calls) % 3 else None)
        card = run_toy(data, recipe=replace(RECIPE, rows=RECIPE.rows[:2]))["clean"]
        for attacker in card["attackers"][1:]:
            assert (attacker["card"]["epochs"], attacker["card"]["stopped"]) == (1, "not finite")

    def test_somebody_must_be_left_to_train_on(self, data: Path) -> None:
        recipe = replace(RECIPE, exclude_people=tuple(f"tom_{letter}" for letter in "abcd"))
        with pytest.raises(UsageError, match="0 people"):
            run_toy(data, recipe=recipe)
        with pytest.raises(UsageError, match="few"):
            run_toy(data, recipe=replace(RECIPE, training=(Source("others", people=1),)))

    def test_too_few_people_to_calibrate(self, data: Path) -> None:
        with pytest.raises(UsageError, match=r"190 pairs of different people; FMR 0\.01 needs 3000"):
            run_toy(data, recipe=replace(RECIPE, fmr=0.01))

    def test_too_few_people_to_evaluate(self, data: Path) -> None:
        with pytest.raises(UsageError, match="6 people; 7"):
            run_toy(data, recipe=replace(RECIPE, pairs=7))

    def test_a_missing_list_is_an_error(self, data: Path) -> None:
        with pytest.raises(UsageError, match=r"pairs\.txt is missing"):
            run_toy(data, recipe=replace(RECIPE, exclude=("pairs.txt",)))

    def test_lists_keep_people_out(self, data: Path) -> None:
        (data / "people.txt").write_text("Tom A\n")
        facts = run_toy(data, recipe=replace(RECIPE, exclude=("people.txt",), rows=RECIPE.rows[:1]))
        assert facts["clean"]["data"]["training"]["people"] == 3

    @pytest.mark.parametrize(
        "change",
        [{"recognizer": "judge_one"}, {"judges": ("surrogate",)}, {"recognizer": "surrogate"}],
    )
    def test_nobody_plays_two_parts(self, data: Path, change: dict[str, Any]) -> None:
        with pytest.raises(RoleRefused):
            run_toy(data, recipe=replace(RECIPE, **change))

    def test_who_taught_a_surrogate_is_not_new(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        find = adaptive.find_card
        taught = replace(find("surrogate"), training={"teachers": ["judge_two", "gone"], "start": "nothing"})
        monkeypatch.setattr(adaptive, "find_card", lambda name: taught if name == "surrogate" else find(name))
        with pytest.raises(RoleRefused, match="judge_two is a judge, and judge_two, which a surrogate learned from"):
            run_toy(data)

    def test_another_preprocessing_of_the_attackers_own_is_trained_again(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = replace(RECIPE, rows=RECIPE.rows[:2])
        run_toy(data, recipe=recipe)
        students = counted(monkeypatch, adaptive, "fit_student")
        changed = replace(adaptive.find_card("own"), colour="BGR")
        monkeypatch.setattr(adaptive, "load_surrogate", lambda name: load_surrogate(changed))
        run_toy(data, recipe=recipe)
        assert len(students) == 1


def test_another_preprocessing_of_a_surrogate_makes_other_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    card = protected.find_card("surrogate")
    keys = []
    for one in (card, replace(card, name="renamed"), replace(card, std=(0.5, 0.5, 0.4))):
        monkeypatch.setattr(protected, "find_card", lambda name, one=one: one)
        keys.append(protected.Protection("pgd", surrogates=("surrogate",)).key)
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("places", "path"),
    [
        (protected.MASKS, "cloaks/composites.png"),
        (protected.MASKS, "benchmark/adaptive/protected.py"),
        (adaptive._TRAINING_CODE, "recognizers/onnx/operators.py"),
    ],
)
def test_what_decides_a_mask_or_an_attacker_is_in_its_key(places: tuple[str, ...], path: str) -> None:
    package = Path(cards.bauta.__file__).parent
    assert package / path in [source for place in places for source in cards.sources(package / place)]


def test_data_of_the_package_counts_as_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards.bauta, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "room" / "__pycache__").mkdir(parents=True)
    (tmp_path / "room" / "code.py").write_text("one = 1")
    digests = []
    for name in ("room/code.py", "room/targets.png", "room/__pycache__/code.pyc"):
        (tmp_path / name).write_bytes(b"changed")
        digests.append([cards.source_digest.__wrapped__(("room",)), cards.source_digest.__wrapped__((".",))])
    assert digests[0] != digests[1] == digests[2]
    assert digests[0][0] != digests[1][0]
    assert digests[0][1] != digests[1][1]


class TestCards:
    @pytest.mark.parametrize("means", [{}, {"purify-blur": {"mean": None}}])
    def test_without_a_purifier_there_is_no_best(self, finished: Finished, means: dict[str, Any]) -> None:
        card = finished[1]["pgd"]
        newer = {NONE: card["results"]["newer"][NONE]} | means
        table = main_table([card | {"results": card["results"] | {"newer": newer}}])
        assert table.rows[0][table.header.index("after the best purifier")] == "-"

    def test_tables(self, finished: Finished) -> None:
        cards = list(finished[1].values())
        main, purifiers, attackers = Adaptive().tables(cards)
        assert [row[0] for row in main.rows] == ["clean", "blur", "pgd"]
        assert main.rows[0][5] == "-"  # nobody trains on clean photos
        assert purifiers.header == ("method", "as it is", "blur", "bit-depth")
        assert [row[0] for row in attackers.rows][0::3] == ["as it came", "fine-tuning/all", "embedding-student/all"]
        assert "of 6" in attackers.rows[0][2]
        assert purifiers.markdown().splitlines()[1] == "|---|---|---|---|"

    @pytest.mark.parametrize(
        ("edit", "word"),
        [
            ({"complete": False}, "complete"),
            ({"schema": "bauta.adaptive/0"}, "schema"),
            ({"seed": "x"}, "seed"),
            ({"more": 1}, "more"),
        ],
    )
    def test_other_cards_are_refused(self, finished: Finished, tmp_path: Path, edit: dict[str, Any], word: str) -> None:
        path = tmp_path / "card.json"
        path.write_text(json.dumps(finished[1]["clean"] | edit))
        with pytest.raises(UsageError, match=word):
            read_card(path)
        path.write_text(path.read_text()[:-100])
        with pytest.raises(UsageError, match="again"):
            read_card(path)

    def test_results_know_who_counts(self) -> None:
        threshold = {"cosine": 0.5}
        card = {
            "judges": [{"name": "judge", "threshold": threshold}],
            "attackers": [{"name": "tuned", "trained_on": "pgd", "threshold": 0.3}],
        }
        rows = [("a", 0.9, 0.1), ("b", 0.9, 0.6), ("c", 0.2, 0.1), ("d", 0.5, 0.5)]
        records = [
            {
                "subject": name,
                "psnr": 30.0,
                "ssim": 0.9,
                "judges": {"judge": {"before": before, "after": {NONE: after}, "false": 0.5}},
                "attackers": {"tuned/pgd": {"before": before, "after": after, "false": 0.25}},
            }
            for name, before, after in rows
        ]
        results = summarise(card, records)
        assert results["recognised_before"] == {"judge": 3}
        assert results["newer"][NONE]["mean"]["mean"] == pytest.approx(1 / 3, abs=1e-6)
        assert results["attackers"]["tuned/pgd"]["recognised_before"] == 3
        assert results["attackers"]["tuned/pgd"]["false_matches"]["mean"] == 0.25


class TestRecipes:
    def test_those_that_are_carried_can_be_read(self) -> None:
        assert "lfw" in carried()
        for name in carried():
            recipe = read_recipe(name)
            assert recipe.name == name
            assert not set(recipe.judges) & {*recipe.surrogates, recipe.recognizer}

    @pytest.mark.parametrize(
        ("line", "word"),
        [
            ("colour = 1", "colour"),
            ("fmr = 2.0", "fmr"),
            ('purifiers = ["prayer"]', "purifiers"),
            ("[student]\nepochs = 0", "epochs"),
            ("[[rows]]\nname = 'all'\nmethod = 'clean'", "rows"),
            ("[[rows]]\nname = 'odd'\nmethod = 'purify-blur'", "purify-blur"),
            ("[[rows]]\nname = 'few'\nmethod = 'clean'\npairs = 3", "pairs"),
        ],
    )
    def test_bad_recipes_are_refused(self, tmp_path: Path, line: str, word: str) -> None:
        text = (
            'name = "mine"\nsurrogates = ["a"]\njudges = ["b"]\nrecognizer = "c"\nBLANK\n'
            '[evaluation]\nkind = "people"\n[[training]]\npath = "x"\n[[calibration]]\npath = "y"\n'
        )
        text = text + line if line.startswith("[") else text.replace("BLANK", line)
        text = text.replace("BLANK", "") + ("" if "[[rows]]" in text else "\n[[rows]]\nname = 'n'\nmethod = 'clean'\n")
        path = tmp_path / "mine.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=word):
            read_recipe(str(path))

    def test_there_is_none(self) -> None:
        with pytest.raises(UsageError, match="lfw"):
            read_recipe("nothing")

    def test_some_rows(self) -> None:
        assert [row.name for row in RECIPE.only(("pgd",)).rows] == ["pgd"]
        with pytest.raises(UsageError, match="blur"):
            RECIPE.only(("other",))


class TestCrowds:
    def test_a_draw_is_known_by_its_seed(self, data: Path) -> None:
        draws = [draw_crop_set(data, (Source("crowd", people=8),), (), seed) for seed in (0, 0, 1)]
        assert draws[0].subjects == draws[1].subjects != draws[2].subjects
        assert draws[0].sha256 == draws[1].sha256 != draws[2].sha256
        assert draws[0].people == 8

    def test_somebody_in_two_folders_is_drawn_once(self, data: Path) -> None:
        crowd = draw_crop_set(data, (Source("faces"), Source("others", each=2)), (), 0)
        assert crowd.subjects.count(normalise_name("Eve_A")) == 1

    def test_too_few_people(self, data: Path) -> None:
        with pytest.raises(UsageError, match="22 people"):
            draw_crop_set(data, (Source("crowd", people=23),), (), 0)
        with pytest.raises(UsageError):
            Source("crowd", people=0)

    def test_crops_of_another_size_are_refused(self, data: Path) -> None:
        Image.new("RGB", (64, 112)).save(data / "others" / "Tom a" / "0.png")
        with pytest.raises(UsageError, match="64x112"):
            draw_crop_set(data, (Source("others", each=2),), (), 0).pixels()

    def test_a_pair_for_each_person(self, data: Path) -> None:
        _, pairs = RECIPE.evaluation.read(data)
        drawn = draw_pairs(pairs * 2, 4, 0)
        assert len({pair.subject for pair in drawn}) == len(drawn) == 4


def test_the_command_line_runs_a_recipe(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "mine.toml"
    path.write_text(
        'name = "mine"\nsurrogates = ["surrogate"]\njudges = ["judge_one"]\nrecognizer = "own"\nfmr = 0.2\n'
        'purifiers = ["purify-blur"]\n'
        "[fine_tuning]\nepochs = 1\n[student]\nepochs = 1\nflip = true\n"
        '[evaluation]\nkind = "people"\npath = "faces"\n[[training]]\npath = "others"\n'
        '[[calibration]]\npath = "crowd"\n'
        '[[rows]]\nname = "clean"\nmethod = "clean"\n[[rows]]\nname = "noise"\nmethod = "noise"\n'
    )
    assert run(["bench", "adaptive", str(path), "--data", str(data), "-o", str(data / "out")]) == 0
    shown = capsys.readouterr().out
    assert "embedding-student/noise" in shown
    assert (data / "out" / "adaptive-mine-noise.json").is_file()
    assert run(["bench", "adaptive", str(path), "--data", str(data), "--rows", "pgd"]) == 2
