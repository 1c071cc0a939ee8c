"""Thresholds: exact on faces whose scores are known, refused where the pairs are too few."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bauta.cli import run
from bauta.errors import NotCalibrated, NumericalFailure, OutputError, UnreadablePhoto, UsageError
from bauta.faces.crop_template import ARCFACE_112X96, DLIB_150
from bauta.recognizers.calibration import calibrate, threshold
from bauta.recognizers.cards import RecognizerCard
from bauta.recognizers.catalog import find_card, list_pullable, list_recognizers
from bauta.recognizers.judges import load_judge
from recognizer_builders import card_of, linear_model, stay_in_this_process


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    stay_in_this_process(monkeypatch)
    return tmp_path / "home"


@pytest.fixture
def card(tmp_path: Path) -> RecognizerCard:
    return card_of(tmp_path, linear_model())


def faces(folder: Path, people: int, *, images: int = 1, size: int = 112) -> Path:
    random = np.random.default_rng(0)
    for person in range(people):
        (folder / f"person_{person:03}").mkdir(parents=True)
        for image in range(images):
            colour = random.integers(0, 256, 3)
            pixels = np.clip(random.normal(colour, 40, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"person_{person:03}" / f"{image}.png")
    return folder


def expected(card: RecognizerCard, folder: Path, fmr: float) -> float:
    """By definition: the smallest value at which at most a share fmr of the impostor scores match."""
    paths = sorted(folder.glob("*/*.png"))
    crops = np.stack([np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255 for path in paths])
    embeddings = load_judge(card).embed(crops)
    scores = [
        float(embeddings[i] @ embeddings[j])
        for i in range(len(paths))
        for j in range(i)
        if paths[i].parent != paths[j].parent
    ]
    allowed = int(fmr * len(scores))
    return float(sorted(scores, reverse=True)[allowed])


def test_threshold_is_the_one_by_definition(card: RecognizerCard, tmp_path: Path, own_home: Path) -> None:
    folder = faces(tmp_path / "set", 40, images=2)
    steps: list[tuple[int, int]] = []
    (found,) = calibrate(card, folder, name="synthetic", progress=lambda *step: steps.append(step))
    assert found.fmr == 1e-2
    assert found.impostor_pairs == 80 * 79 // 2 - 40
    assert found.people == 40
    assert found.calibration_set == "synthetic"
    assert found.cosine == pytest.approx(expected(card, folder, 1e-2), abs=1e-6)
    assert steps[-1] == (80, 80)
    assert threshold(card, 0.01) == found
    stored = json.loads((own_home / "thresholds.json").read_text())["recognizers"][card.sha256]
    assert {"name", "bauta", "date", "images"} <= stored.keys()


def test_fmr_with_too_few_pairs_is_refused(card: RecognizerCard, tmp_path: Path) -> None:
    calibrate(card, faces(tmp_path / "set", 80))
    with pytest.raises(NotCalibrated, match="30000"):
        threshold(card, 1e-3)


def test_too_few_pairs_for_anything(card: RecognizerCard, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3000"):
        calibrate(card, faces(tmp_path / "set", 10))


def test_excluded_people_change_the_set(card: RecognizerCard, tmp_path: Path) -> None:
    folder = faces(tmp_path / "set", 82)
    (everyone,) = calibrate(card, folder)
    (fewer,) = calibrate(card, folder, exclude={"person_000", "person_001"})
    (again,) = calibrate(card, folder)
    assert fewer.people == 80
    assert fewer.calibration_sha256 != everyone.calibration_sha256
    assert again.calibration_sha256 == everyone.calibration_sha256
    assert everyone.calibration_set == "set"


@pytest.mark.parametrize("exclude", ["Person 000", "PERSON-000"])
def test_excluded_people_are_left_out_in_any_spelling(exclude: str, card: RecognizerCard, tmp_path: Path) -> None:
    (found,) = calibrate(card, faces(tmp_path / "set", 81), exclude=[exclude])
    assert found.people == 80


def test_people_of_a_list_of_pairs_are_left_out(
    own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = faces(tmp_path / "set", 82)
    (tmp_path / "pairs.txt").write_text("1\t1\nPerson_000\t1\t2\nPerson_001\t1\tElse\t2\n")
    command = ["recognizers", "calibrate", "dlib_resnet", str(folder), "--exclude", str(tmp_path / "pairs.txt")]
    assert run(command) == 0
    assert capsys.readouterr().out.split()[-1] == "80"


@pytest.mark.parametrize(
    "change",
    [{"colour": "BGR"}, {"mean": (0.4, 0.4, 0.4)}, {"std": (0.4, 0.5, 0.5)}, {"template": ARCFACE_112X96}],
)
def test_a_threshold_does_not_outlive_the_preprocessing(
    change: dict[str, Any], card: RecognizerCard, tmp_path: Path
) -> None:
    calibrate(card, faces(tmp_path / "set", 80))
    assert threshold(replace(card, name="other", roles=frozenset({"judge"})), 1e-2) == threshold(card, 1e-2)
    with pytest.raises(NotCalibrated, match="calibrate"):
        threshold(replace(card, **change), 1e-2)


def test_shipped_thresholds_are_of_the_shipped_cards(own_home: Path) -> None:
    for card in (*list_recognizers(), *list_pullable()):
        assert threshold(card, 1e-2)
        with pytest.raises(NotCalibrated):
            threshold(replace(card, colour="BGR" if card.colour == "RGB" else "RGB"), 1e-2)
    # What the user calibrated otherwise does not stand in the way of what ships.
    changed = replace(find_card("dlib_resnet"), colour="BGR")
    write_store(own_home, changed, {"0.01": 0.95}, digest=changed.digest)
    assert threshold(changed, 1e-2).calibration_set == "mine"
    assert threshold(find_card("dlib_resnet"), 1e-2).calibration_set != "mine"


def test_another_template_is_warped(tmp_path: Path, card: RecognizerCard) -> None:
    folder = faces(tmp_path / "set", 80)
    for template in (ARCFACE_112X96, DLIB_150):
        (found,) = calibrate(replace(card, template=template), folder)
        assert -1 < found.cosine <= 1 + 1e-6


def test_surrogates_may_be_calibrated(tmp_path: Path, card: RecognizerCard) -> None:
    assert calibrate(replace(card, roles=frozenset({"surrogate"})), faces(tmp_path / "set", 80))


def test_several_recognisers_share_a_store(tmp_path: Path, card: RecognizerCard) -> None:
    folder = faces(tmp_path / "set", 80)
    other = card_of(tmp_path, linear_model(seed=1))
    calibrate(card, folder)
    calibrate(other, folder)
    assert threshold(card, 1e-2) != threshold(other, 1e-2)


def test_not_calibrated(card: RecognizerCard) -> None:
    with pytest.raises(NotCalibrated, match="calibrate"):
        threshold(card, 1e-2)


def test_thresholds_of_the_packaged_network_are_shipped() -> None:
    values = [threshold(find_card("dlib_resnet"), fmr).cosine for fmr in (1e-2, 1e-3, 1e-4)]
    assert values == sorted(values)
    assert 0.8 < values[0] < values[2] < 1


@pytest.mark.parametrize("content", ["", "[]", '{"recognizers": 3}', '{"recognizers": {"SHA": {"cosine": 3}}}'])
def test_broken_store_is_told(content: str, card: RecognizerCard, own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "thresholds.json").write_text(content.replace("SHA", card.sha256))
    with pytest.raises(NotCalibrated, match="cannot be read"):
        threshold(card, 1e-2)


def test_broken_store_is_not_overwritten(card: RecognizerCard, own_home: Path, tmp_path: Path) -> None:
    own_home.mkdir()
    (own_home / "thresholds.json").write_text("mine")
    with pytest.raises(UsageError, match="cannot be extended"):
        calibrate(card, faces(tmp_path / "set", 80))
    assert (own_home / "thresholds.json").read_text() == "mine"


def test_store_that_cannot_be_written(card: RecognizerCard, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        calibrate(card, faces(tmp_path / "set", 80), store=tmp_path / "file" / "thresholds.json")


def spoil(folder: Path, kind: str) -> Any:
    victim = folder / "person_003" / "0.png"
    if kind == "truncated":
        victim.write_bytes(victim.read_bytes()[:500])
    elif kind == "empty":
        victim.write_bytes(b"")
    elif kind == "not an image":
        victim.write_text("hello")
    elif kind == "size":
        Image.new("RGB", (100, 100)).save(victim)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("truncated", UnreadablePhoto),
        ("empty", UnreadablePhoto),
        ("not an image", UnreadablePhoto),
        ("size", UsageError),
    ],
)
def test_bad_image_is_named(kind: str, error: type[Exception], card: RecognizerCard, tmp_path: Path) -> None:
    folder = faces(tmp_path / "set", 80)
    spoil(folder, kind)
    with pytest.raises(error, match="person_003"):
        calibrate(card, folder)


def test_bad_folder(card: RecognizerCard, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        calibrate(card, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        calibrate(card, tmp_path / "empty")


def write_store(home: Path, card: RecognizerCard, cosine: dict[str, float], **more: str) -> None:
    home.mkdir(exist_ok=True)
    entry = {"calibration_set": "mine", "calibration_sha256": "0" * 64, "people": 9, "impostor_pairs": 9, **more}
    content = {"schema": 1, "recognizers": {card.sha256: {**entry, "date": "2026-01-01", "cosine": cosine}}}
    (home / "thresholds.json").write_text(json.dumps(content))


def test_thresholds_of_one_recogniser_come_from_one_calibration(own_home: Path) -> None:
    card = find_card("dlib_resnet")
    assert threshold(card, 1e-3).calibration_set != "mine"
    write_store(own_home, card, {"0.01": 0.95})
    assert threshold(card, 1e-2).calibration_set == "mine"
    with pytest.raises(NotCalibrated, match="calibrate"):
        threshold(card, 1e-3)  # the shipped 0.928 would be laxer than the user's own at 1e-2


@pytest.mark.parametrize(
    "cosine", [{"0.01": float("nan")}, {"0.01": 1.5}, {"0.01": float("inf")}, {"0.01": 0.5, "0.001": 0.4}]
)
def test_thresholds_that_no_calibration_gives_are_refused(
    cosine: dict[str, float], card: RecognizerCard, own_home: Path
) -> None:
    write_store(own_home, card, cosine)
    with pytest.raises(NotCalibrated, match="cannot be read"):
        threshold(card, 1e-2)


def test_a_network_that_tells_nobody_apart_gets_no_threshold(card: RecognizerCard, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for person in range(80):
        (folder / f"person_{person:03}").mkdir(parents=True)
        Image.new("RGB", (112, 112), "white").save(folder / f"person_{person:03}" / "0.png")
    with pytest.raises(UsageError, match="tells them apart"):
        calibrate(card, folder)


def test_a_judge_that_answers_zeros_is_refused(card: RecognizerCard) -> None:
    with pytest.raises(NumericalFailure, match="zeros"):
        load_judge(card).embed(np.full((1, 3, 112, 112), 0.5, np.float32))
