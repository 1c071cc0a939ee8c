"""Accuracy of recognisers on small sets in LFW's form."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bauta.benchmark import recognition as accuracy
from bauta.benchmark.engine.cards import read_card
from bauta.benchmark.engine.run import Job
from bauta.benchmark.engine.run import run as run_rows
from bauta.benchmark.recognition import (
    Recognizers,
    RecognizersCard,
    RecognizersKind,
    RecognizersRecipe,
    embed_aligned,
)
from bauta.cli import run
from bauta.data.images import FaceImage
from bauta.errors import UnreadablePhoto, UsageError
from protection_fakes import FakeJudge, Stage, person

PEOPLE = [f"P{number}" for number in range(26)]


def encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"none")
    stage = Stage(weights)
    monkeypatch.setattr(accuracy, "find_card", stage.find)
    monkeypatch.setattr(accuracy, "load_judge", FakeJudge)
    monkeypatch.setattr(accuracy, "FMR", 0.1)
    return stage


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two folds of 13 genuine pairs and 13 pairs of strangers; everybody's two images are alike."""
    lines = ["2\t13"]
    for name in PEOPLE:
        folder = tmp_path / "lfw_112" / "images" / name
        folder.mkdir(parents=True)
        for number in (1, 2):
            Image.fromarray(person(name)).save(folder / f"{name}_{number:04d}.png")
    for fold in (PEOPLE[:13], PEOPLE[13:]):
        lines += [f"{name}\t1\t2" for name in fold]
        lines += [f"{one}\t1\t{other}\t2" for one, other in zip(fold, fold[1:] + fold[:1], strict=True)]
    (tmp_path / "lfw_112" / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def measured(data: Path, names: list[str], protocols: Sequence[str] = ("lfw",)) -> dict[str, Any]:
    """The card of some recognisers."""
    (path,) = run_rows(RecognizersKind(), RecognizersRecipe(tuple(names), tuple(protocols)), Job(data / "cards", data))
    return read_card(path, RecognizersCard)


@pytest.mark.usefixtures("stage")
class TestRunRecognizers:
    def test_who_tells_everybody_apart_is_right_about_all_pairs(self, data: Path) -> None:
        (data / "models.json").write_text(json.dumps({"recognizers": {"judge_one": {"lfw_accuracy_percent": 99.5}}}))
        card = measured(data, ["judge_one", "attacked_one"])
        one, other = card["recognizers"]
        found = one["results"]["lfw"]
        assert found["accuracy"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
        assert found["tar"]["mean"] == 1
        assert (found["images"], found["pairs"], found["impostor_pairs"]) == (52, 52, 26 * 25)
        assert found["overhead"] >= 1
        assert (one["stated_lfw_accuracy"], other["stated_lfw_accuracy"]) == (99.5, None)
        (table,) = Recognizers().tables([card])
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert table.rows[0][1] == "100.00 (100.00-100.00)"
        assert (found["failures"], card["focal_diversity"]) == ([], {})

    def test_a_team_that_fails_together_is_not_diverse(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        known = accuracy.measure

        def measure(judge: FakeJudge, *rest: Any) -> Any:
            return known(judge, *rest) | {"failures": [0, 5] if judge.card.name == "judge_one" else [5]}

        monkeypatch.setattr(accuracy, "measure", measure)
        card = measured(data, ["judge_one", "attacked_one"])
        assert card["focal_diversity"] == {"lfw": pytest.approx((1 - 0.5 / 0.75 + 0) / 2, abs=1e-4)}

    def test_an_interrupted_run_goes_on(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = measured(data, ["judge_one"])

        def measure(judge: FakeJudge, *rest: Any) -> Any:
            raise AssertionError(f"{judge.card.name} was measured")

        monkeypatch.setattr(accuracy, "measure", measure)
        again = measured(data, ["judge_one"])
        assert again["recognizers"] == first["recognizers"]
        with pytest.raises(AssertionError, match="judge_two was measured"):
            measured(data, ["judge_one", "judge_two"])

    def test_another_preprocessing_is_measured_again(self, data: Path, stage: Stage) -> None:
        measured(data, ["judge_one"])
        place = stage.cards.index(stage.find("judge_one"))
        stage.cards[place] = replace(stage.cards[place], colour="BGR")
        measured(data, ["judge_one"])
        assert len(list((data / "cards" / ".work").glob("accuracy-*.json"))) == 2

    def test_a_file_of_verification_pairs_is_measured_like_a_folder(self, data: Path) -> None:
        faces = {name: (data / "lfw_112" / "images" / name / f"{name}_0001.png").read_bytes() for name in PEOPLE}
        # Images of equal bytes are one, so the second of a genuine pair is stored otherwise.
        again = {name: encoded(person(name)) for name in PEOPLE}
        sides = [one for name, other in zip(PEOPLE, PEOPLE[1:] + PEOPLE[:1], strict=True)
                 for one in (faces[name], again[name], faces[name], again[other])]  # fmt: skip
        (data / "toy.bin").write_bytes(pickle.dumps((sides, [True, False] * len(PEOPLE))))
        found = measured(data, ["judge_one"], ["toy.bin"])
        assert found["data"]["toy.bin"]["name"] == "toy"
        result = found["recognizers"][0]["results"]["toy.bin"]
        assert (result["pairs"], result["images"]) == (52, 52)
        assert result["accuracy"]["mean"] == 1
        with pytest.raises(UsageError, match=r"other\.bin"):
            measured(data, ["judge_one"], ["other.bin"])

    def test_what_makes_no_sense_is_refused(self, data: Path) -> None:
        with pytest.raises(UsageError, match="no recogniser"):
            measured(data, [])
        with pytest.raises(UsageError, match="no protocol 'ijb'"):
            measured(data, ["judge_one"], ["ijb"])
        (data / "lfw_112" / "images" / "P0" / "P0_0001.png").write_bytes(b"damaged")
        with pytest.raises(UnreadablePhoto):
            measured(data, ["judge_one"])
        assert not list((data / "cards").glob("*.json"))

    def test_the_command(self, data: Path, capsys: Any) -> None:
        words = ["bench", "recognizers", "--data", str(data), "--recognizers", "judge_one", "-o", str(data / "out")]
        assert run(words) == 0
        assert "judge_one   100.00 (100.00-100.00)" in capsys.readouterr().out


@pytest.mark.usefixtures("stage")
class TestEmbedAligned:
    def test_larger_crops_are_sampled_at_the_same_place(self, stage: Stage) -> None:
        pixels = person("anna")
        images = []
        for number, size in enumerate((112, 224)):
            path = stage.weights.parent / f"{number}.png"
            Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(path)
            images.append(FaceImage(path.name, path))
        found = embed_aligned(FakeJudge(stage.find("judge_one")), images)
        assert float(found.values[0] @ found.values[1]) > 0.999
        assert 0 < found.forward_seconds <= found.seconds

    def test_as_many_images_as_there_are(self, stage: Stage) -> None:
        path = stage.weights.parent / "face.png"
        Image.fromarray(person("anna")).save(path)
        seen: list[tuple[int, int]] = []
        images = [FaceImage(f"{number}.png", path) for number in range(70)]
        found = embed_aligned(FakeJudge(stage.find("judge_one")), images, lambda *step: seen.append(step))
        assert found.values.shape == (70, 192)
        assert seen == [(32, 70), (64, 70), (70, 70)]
        np.testing.assert_allclose(found.values, np.tile(found.values[:1], (70, 1)))
        with pytest.raises(UsageError, match="no images"):
            embed_aligned(FakeJudge(stage.find("judge_one")), [])
