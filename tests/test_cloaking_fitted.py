"""A mask that is fitted once, from the command line to the benchmark: the toy of `toy_veil`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bauta
from bauta.benchmark.engine.cards import read_card
from bauta.benchmark.engine.run import Job
from bauta.benchmark.engine.run import run as run_rows
from bauta.benchmark.photos import measuring
from bauta.benchmark.photos import run as runner
from bauta.benchmark.photos.cards import PhotoCard
from bauta.benchmark.photos.recipe import Dataset, Recipe, Row
from bauta.cli import run
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.roles import choose_roles
from bauta.cloaking.settings import ProtectSettings
from bauta.errors import RecognizerError, UsageError
from bauta.learning.fitted import Fitted
from bauta.photo import read_photo
from bauta.registry import load_method
from bauta.testing import toy_surrogate
from protection_fakes import FakeJudge, Stage, build_stage, read_json, write_photo
from toy_veil import declare

stage = pytest.fixture(build_stage)


@pytest.fixture(autouse=True)
def toys(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for module in ("bauta.cloaking.fitting", "bauta.benchmark.photos.measuring"):
        monkeypatch.setattr(f"{module}.load_surrogate", lambda card: toy_surrogate(1, card.name))
    for module in ("pipeline", "verbs", "fitting"):
        monkeypatch.setattr(f"bauta.cloaking.{module}.detect_faces", stage.detect)
    for index in range(3):
        write_photo(Path(f"me/{index}.png"), "anna")
    write_photo(Path("photo.png"), "anna")


def fitted(*options: str) -> Path:
    path = Path("me.mask")
    path.unlink(missing_ok=True)
    assert run(["fit", "toy-veil", "me", "-o", str(path), "--steps", "2", *options]) == 0
    return path


def test_fit_protect_and_restore(capsys: pytest.CaptureFixture[str]) -> None:
    mask = Fitted.load(fitted())
    assert (mask.method, mask.settings["steps"]) == ("toy-veil", 2)
    assert mask.teachers == ("attacked_one", "both")
    said = capsys.readouterr().out
    assert mask.sha256 in said
    assert "attacked_one, both" in said
    command = ["protect", "photo.png", "--method", "toy-veil", "--fitted", "me.mask"]
    assert run([*command, "-o", "out"]) in (0, 7)
    (product,) = [path for path in Path("out").rglob("*.png") if ".bauta" not in path.parts]
    (report,) = Path("out").rglob("*.report.json")
    assert read_json(report)["method"]["fitted"] == [mask.sha256]
    before, after = read_photo("photo.png").pixels, read_photo(product).pixels
    assert np.abs(after - before).max() > 5 / 255
    assert run(["restore", str(product), "--fitted", "me.mask", "--report", str(report), "-o", "restored"]) == 0
    restored = read_photo(next(Path("restored").glob("*.png"))).pixels
    assert np.abs(restored - before).max() <= 1 / 255
    capsys.readouterr()
    assert run(["restore", str(product), "--fitted", "me.mask", "-o", "restored"]) == 5  # nothing is overwritten


def test_the_same_from_python() -> None:
    mask = bauta.fit("toy-veil", ["me/0.png", "me/1.png"], options={"steps": 1}, seed=3)
    mask.save(Path("me.mask"))
    assert mask.sha256 == bauta.fit("toy-veil", ["me/0.png", "me/1.png"], options={"steps": 1}, seed=3).sha256
    result = bauta.protect("photo.png", method="toy-veil", fitted=["me.mask"])
    protected = result.save(Path("protected.png"))
    restored = bauta.restore(protected, fitted=["me.mask"], landmarks=result.landmarks, payloads=result.payloads)
    assert np.abs(restored.pixels - read_photo("photo.png").pixels).max() <= 1 / 255


def test_no_network_is_loaded_to_put_a_fitted_mask_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted()
    monkeypatch.setattr("bauta.cloaking.pipeline.load_surrogate", lambda card: 1 / 0)
    pipeline = Pipeline(ProtectSettings(method="toy-veil", fitted=(Path("me.mask"),)))
    assert pipeline.roles.surrogates == ()
    pipeline.protect(read_photo("photo.png"))


def test_teachers_count_as_attacked(stage: Stage) -> None:
    settings = ProtectSettings(method="toy-veil")
    roles = choose_roles(settings, attacks=False, fitted_against={"judge_one"})
    assert [card.name for card in roles.judges] == ["judge_two"]
    asked = choose_roles(
        ProtectSettings(method="toy-veil", judges=("judge_one",)), attacks=False, fitted_against={"judge_one"}
    )
    assert asked.attacked == {"judge_one"}
    assert not asked.independent
    # The same network under another name, and whoever taught a teacher, know of the mask as well.
    stage.add("copy", "judge", sha256=stage.find("judge_one").sha256)
    everyone = choose_roles(
        ProtectSettings(method="toy-veil", judges=("copy", "judge_two")), attacks=False, fitted_against={"judge_one"}
    )
    assert everyone.attacked == {"copy"}
    mask = Fitted.load(fitted("--surrogates", "both"))
    stage.drop("judge_one", "judge_two", "copy", "attacked_one")
    with pytest.raises(RecognizerError, match="judge_one"):  # whose face it is cannot be told any more
        bauta.protect("photo.png", method="toy-veil", fitted=["me.mask"])
    nameless = {name: part for name, part in mask.parts.items() if not name.startswith("subject.")}
    replace(mask, parts=nameless).save("me.mask", overwrite=True)
    report = bauta.protect("photo.png", method="toy-veil", fitted=["me.mask"]).report
    assert report.verdict != "protected"
    assert [card["attacked"] for card in report.to_dict()["recognizers"]] == [True]
    stage.drop("both")
    with pytest.raises(RecognizerError, match="no recogniser to judge"):
        choose_roles(settings, attacks=False)


def test_another_fitted_file_is_another_product(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["protect", "photo.png", "--method", "toy-veil", "--fitted", "me.mask", "-o", "out", "--json"]
    done = []
    for seed in ("0", "0", "1"):
        fitted("--seed", seed)
        capsys.readouterr()
        run(command)
        done.append(json.loads(capsys.readouterr().out)["skipped"])
    assert done == [False, True, False]


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (2, ("fit", "negative", "me", "-o", "x"), "negative learns nothing of a person"),
        (2, ("fit", "magic", "me", "-o", "x"), "No cloak is called 'magic'"),
        (2, ("fit", "toy-veil", "me", "-o", "x", "--steps", "0"), "steps=0"),
        (2, ("fit", "toy-veil", "me", "-o", "x", "--amount", "1"), "toy-veil has no option --amount; negative has it"),
        (3, ("fit", "toy-veil", "empty.png", "-o", "x"), "No face was found in empty.png"),
        (4, ("fit", "toy-veil", "nowhere", "-o", "x"), "nowhere"),
        (5, ("fit", "toy-veil", "me", "-o", "photo.png"), "photo.png exists already"),
        (2, ("protect", "photo.png", "--method", "toy-veil"), "toy-veil needs what it learned of the person"),
        (6, ("protect", "photo.png", "--method", "toy-veil", "--fitted", "photo.png"), "photo.png is not a fitted"),
        (6, ("protect", "photo.png", "--method", "toy-veil", "--fitted", "no.mask"), "no.mask"),
        (2, ("protect", "photo.png", "--method", "negative", "--fitted", "me.mask"), "me.mask was fitted by toy-veil"),
        (2, ("protect", "photo.png", "--method", "toy-veil", "--fitted", "me.mask", "--surrogates", "both"), "attacks"),
        (2, ("restore", "photo.png"), "Neither a key nor a fitted file is given"),
        (2, ("restore", "photo.png", "--method", "negative"), "negative does to a photo cannot be taken off"),
        (2, ("restore", "photo.png", "--method", "toy-veil"), "toy-veil needs what it learned"),
        (2, ("restore", "photo.png", "photo.png", "--fitted", "me.mask", "--report", "r"), "A report is of one photo"),
        (2, ("restore", "photo.png", "--fitted", "me.mask", "--report", "photo.png"), "is not one of Bauta's reports"),
        (3, ("restore", "empty.png", "--fitted", "me.mask"), "No face was found"),
        (2, ("read", "photo.png", "--fitted", "me.mask"), "toy-veil does to a photo carries no message"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], code: int, arguments: tuple[str, ...], said: str) -> None:
    fitted()
    write_photo(Path("empty.png"))
    capsys.readouterr()
    assert run(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[0]
    assert lines[1].startswith("hint: ")


def test_a_changed_file_is_refused_by_name() -> None:
    path = fitted()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(bauta.RecognizerError, match=r"me\.mask says it is \w{12}; what it holds is \w{12}"):
        bauta.protect("photo.png", method="toy-veil", fitted=["me.mask"])


def test_presets_of_a_method_are_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert Fitted.load(fitted("--preset", "gentle")).settings["epsilon"] == 4.0
    assert run(["fit", "toy-veil", "me", "-o", "x", "--preset", "paper"]) == 2
    assert "gentle" in capsys.readouterr().err


def test_everything_about_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "toy-veil"]) == 0
    shown = capsys.readouterr().out
    for line in ("Needs    fitted", "Aims     dodge, restore", "Verbs    fit, restore", "Presets  gentle"):
        assert line in shown
    assert "--steps  3        a whole number from 1, up to 100  Of the fitting." in shown
    assert run(["methods", "toy-veil", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["verbs"] == ["fit", "restore"]
    assert about["options"][0] == {
        "name": "epsilon",
        "option": "--eps",
        "default": 12.0,
        "allowed": "a number above 0, up to 255",
        "help": "Greatest change, in 1/255.",
    }
    assert run(["protect", "--method", "toy-veil", "--help"]) == 0
    assert "Settings of toy-veil" in capsys.readouterr().out


def test_a_row_of_a_benchmark(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for person in ("anna", "ben"):
        for number in range(4):
            write_photo(tmp_path / f"faces/{person}/{number}.png", person)
    for module in (measuring, runner):
        monkeypatch.setattr(module, "find_card", stage.find)
    for name, fake in {"detect_faces": stage.detect, "load_judge": FakeJudge}.items():
        monkeypatch.setattr(measuring, name, fake)
    monkeypatch.setattr(runner, "threshold", stage.threshold)
    learned: list[int] = []
    fit = load_method("toy-veil").fit.__func__

    def counted(cls, views, config, work):  # type: ignore[no-untyped-def]
        learned.append(len(views))
        return fit(cls, views, config, work)

    monkeypatch.setattr(load_method("toy-veil"), "fit", classmethod(counted))
    recipe = Recipe(
        name="toy",
        dataset=Dataset("people", "faces", face="largest"),
        rows=(Row("veil", "toy-veil", {"steps": 1}),),
        surrogates=("both",),
        judges=("judge_one", "judge_two"),
        transports=("saved",),
    )
    (path,) = run_rows(runner.PhotoKind(), recipe, Job(tmp_path / "cards", tmp_path))
    card = read_card(path, PhotoCard)
    assert learned == [2, 2]  # the photos of each person that are neither protected nor compared with
    assert [one["name"] for one in card["surrogates"]] == ["both"]
    assert card["method"]["config"] == {"epsilon": 12.0, "steps": 1}
    assert card["results"]["usable"] == 2
    (again,) = run_rows(runner.PhotoKind(), recipe, Job(tmp_path / "cards", tmp_path))
    assert learned == [2, 2]  # kept
    assert read_card(again, PhotoCard)["records"] == card["records"]


def test_a_cloak_without_surrogates_refuses_them() -> None:
    with pytest.raises(UsageError, match="attacks no recogniser while it protects"):
        Pipeline(ProtectSettings(method="blur", surrogates=("both",)))
