"""Networks and cards whose author wants Bauta to fail: what comes out is one plain error, and nothing else."""

from __future__ import annotations

import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from bauta.cli.run import run
from bauta.errors import BautaError, LimitExceeded, NumericalFailure, UsageError, WeightsCorrupt, WeightsMissing
from bauta.recognizers import isolation
from bauta.recognizers.add import add_recognizer
from bauta.recognizers.calibration import calibrate
from bauta.recognizers.cards import format_card, parse_card, read_card
from bauta.recognizers.catalog import list_recognizers
from bauta.recognizers.examination import probes
from bauta.recognizers.isolation import GIBIBYTE, IsolatedRecognizer, Limits
from bauta.recognizers.judges import load_judge
from bauta.recognizers.onnx.graph import parse_graph
from bauta.recognizers.surrogates import load_surrogate
from hostile_builders import (
    HostileModel,
    mutated_models,
    mutated_texts,
    polyglot,
    require_plain,
    running_models,
    still_models,
    wrong_cards,
)
from recognizer_builders import CARD, card_of, linear_model

STILL = {model.name: model for model in still_models()}
RUNNING = {model.name: model for model in running_models()}
SHORT = "\n".join(
    line for line in CARD.splitlines() if line.split(" ")[0] not in ("schema", "format", "weights", "sha256")
)
POINTS = "[[0, 0], [30, 0], [15, 20], [5, 40], [25, 40]]"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    return tmp_path / "home"


def write(folder: Path, content: bytes, card: str = SHORT) -> tuple[Path, Path]:
    (folder / "net.onnx").write_bytes(content)
    (folder / "card.toml").write_text(card)
    return folder / "net.onnx", folder / "card.toml"


# Networks


@pytest.mark.parametrize("name", STILL)
def test_what_is_hidden_anywhere_is_refused_before_anything_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def runs(*_: object, **__: object) -> None:
        raise AssertionError("ONNX Runtime saw the file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", runs)
    (tmp_path / "secret.bin").write_bytes(bytes(4))
    monkeypatch.chdir(tmp_path)
    content = STILL[name].content
    with pytest.raises(BautaError) as caught:
        parse_graph(content)
    require_plain(caught.value)
    with pytest.raises(WeightsCorrupt):  # one that was added by hand, or before Bauta looked so closely
        load_judge(card_of(tmp_path, content))
    with pytest.raises(BautaError):
        load_surrogate(card_of(tmp_path, content))


def test_a_sound_network_is_not_refused() -> None:
    for content in (linear_model(), polyglot(), RUNNING["endless loop"].content):
        parse_graph(content)


def test_bytes_cannot_choose_another_reader(tmp_path: Path) -> None:
    crops = np.random.default_rng(0).random((2, 3, 112, 112), np.float32)
    judges = [load_judge(card_of(tmp_path, content)) for content in (polyglot(), linear_model())]
    np.testing.assert_array_equal(*(judge.embed(crops) for judge in judges))


def test_the_runtimes_own_lines_stay_off_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    judge = load_judge(card_of(tmp_path, RUNNING["too small"].content))
    with pytest.raises(WeightsCorrupt) as failed:
        judge.embed(np.zeros((1, 3, 112, 112), np.float32))
    with pytest.raises(WeightsCorrupt) as refused:
        load_judge(card_of(tmp_path, RUNNING["unknown operator"].content))
    for caught in (failed, refused):
        require_plain(caught.value)
    assert capfd.readouterr() == ("", "")


def tried(folder: Path, name: str, limits: Limits) -> BautaError:
    with (
        pytest.raises(BautaError) as caught,
        IsolatedRecognizer(card_of(folder, RUNNING[name].content), limits=limits) as recognizer,
    ):
        recognizer.examine()
    require_plain(caught.value)
    return caught.value


def test_in_a_process_of_its_own_it_says_the_same(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    crops = probes(card)
    with IsolatedRecognizer(card) as recognizer:
        np.testing.assert_array_equal(recognizer.embed(crops), load_judge(card).embed(crops))
        assert recognizer.embed(crops[:0]).shape == (0, 8)
        with pytest.raises(UsageError, match="reads crops of shape"):
            recognizer.embed(crops[:, :, :50])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits both memory and processor time")
def test_what_never_ends_is_stopped_and_the_limit_is_named(tmp_path: Path) -> None:
    error = tried(tmp_path, "endless loop", Limits(seconds=120, processor=2))
    assert isinstance(error, LimitExceeded)
    assert "took more than 2 seconds of processor time" in error.message


def test_what_does_not_answer_is_stopped(tmp_path: Path) -> None:
    error = tried(tmp_path, "endless loop", Limits(seconds=2.0))
    assert isinstance(error, LimitExceeded)
    assert "did not answer within 2 seconds" in error.message


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address space")
@pytest.mark.parametrize("name", ["doubling", "filled"])
def test_what_fills_the_memory_is_stopped(name: str, tmp_path: Path) -> None:
    error = tried(tmp_path, name, Limits(memory=2 * GIBIBYTE))
    assert isinstance(error, LimitExceeded)
    assert "asked for more than 2.0 GiB of memory" in error.message


def test_a_process_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with IsolatedRecognizer(card_of(tmp_path, linear_model())) as recognizer:
        recognizer._process.kill()
        recognizer._process.wait()
        with pytest.raises(WeightsCorrupt, match="ended the process") as caught:
            recognizer.examine()
    require_plain(caught.value)


def test_adding_and_calibrating_run_in_that_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, size: cls(seconds=2.0)))
    endless = RUNNING["endless loop"].content
    with pytest.raises(LimitExceeded):
        add_recognizer(*write(tmp_path, endless, SHORT.replace(', "surrogate"', "")))
    assert not (tmp_path / "home" / "recognizers").exists()
    for person in range(80):
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        Image.new("RGB", (112, 112), (person, 0, 0)).save(folder / "a.png")
    with pytest.raises(LimitExceeded):
        calibrate(card_of(tmp_path, endless), tmp_path / "faces")


def test_what_came_along_needs_no_process() -> None:
    assert {card.name for card in list_recognizers() if not isolation.came_along(card)} == set()
    assert not isolation.came_along(parse_card(CARD, folder=Path()))


def test_an_endless_file_is_not_read(tmp_path: Path) -> None:
    model, card = write(tmp_path, linear_model())
    with pytest.raises(WeightsMissing, match="not a file"):
        add_recognizer(Path("/dev/zero"), card)
    with pytest.raises(UsageError, match="not a file"):
        add_recognizer(model, Path("/dev/zero"))
    card.write_text("a" * (1 << 17))
    with pytest.raises(UsageError, match="too many for the card"):
        add_recognizer(model, card)


def test_what_a_killed_run_had_begun_is_removed(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from recognizer_builders import stay_in_this_process

    stay_in_this_process(monkeypatch)
    old, new = own_home / "recognizers" / ".adding-old", own_home / "recognizers" / ".adding-new"
    for folder in (old, new):
        (folder / "mine").mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)
    add_recognizer(*write(tmp_path, linear_model()))
    assert sorted(path.name for path in (own_home / "recognizers").iterdir()) == [".adding-new", "mine"]


# Cards


def test_one_wrong_thing_in_a_card_is_an_error_or_no_harm() -> None:
    count = refused = 0
    unnamed: list[str] = []
    for name, text in wrong_cards(CARD):
        count += 1
        try:
            card = parse_card(text, folder=Path("folder"), origin="card.toml")
        except UsageError as error:
            require_plain(error)
            refused += 1
            if not any(word in error.message for word in ("digits", "deep", "TOML", name.partition(" ")[0], "unknown")):
                unnamed.append(f"{name}: {error.message}")
            continue
        assert parse_card(format_card(card), folder=Path("folder")) == card, name
    assert not unnamed
    assert count > 450
    assert refused > 430


def test_a_damaged_card_is_an_error_or_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    for name, content in mutated_texts(CARD, 400):
        path.write_bytes(content)
        try:
            card = read_card(path)
        except UsageError as error:
            require_plain(error)
            continue
        assert parse_card(format_card(card), folder=tmp_path) == card, name


@pytest.mark.parametrize("name", ["CON", "nul", "Com1", "lpt9.onnx", "prn.a.b", "ends.", ".starts", "a b", "a/b", "ä"])
def test_names_that_are_no_file_somewhere_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name is") as caught:
        parse_card(CARD.replace('"mine"', f'"{name}"'), folder=Path())
    require_plain(caught.value)


@pytest.mark.parametrize("weights", ["NUL", "a:b", "..", "a\\\\b", "con.onnx", "model.onnx.", "model ", "a/b", ""])
def test_weights_that_are_no_file_name_somewhere_are_refused(weights: str) -> None:
    with pytest.raises(UsageError, match="weights is"):
        parse_card(CARD.replace("model.onnx", weights), folder=Path())


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "http://example.org/a", "file:///etc/passwd", "https://", "https:///a", "//example.org/a",
     "https://[::1", "ftp://example.org/a", "https://example.org/a b", "https://example.org:port/a", "HTTP://x/y",
     "https://example.org/<script>"],
)  # fmt: skip
def test_addresses_that_are_not_https_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="url is") as caught:
        parse_card(f'url = "{address}"\n{CARD}', folder=Path())
    require_plain(caught.value)
    parse_card(f'url = "https://example.org/a?b=c"\n{CARD}', folder=Path())


@pytest.mark.parametrize(
    ("points", "message"),
    [(f"[{', '.join(['[50, 50]'] * 5)}]", "not all in one place"), (POINTS.replace("30", "1e9"), "outside"),
     (POINTS.replace("30", "1e999"), "outside"), (POINTS.replace("30", "nan"), "points"),
     (POINTS.replace("30", "true"), "points"), (POINTS.replace("30", "9" * 400), "outside"),
     (POINTS.replace("[30, 0]", "[30]"), "points")],
)  # fmt: skip
def test_landmarks_that_place_no_face_are_refused(points: str, message: str) -> None:
    text = CARD.replace('template = "arcface-112"', "") + f"[template]\nheight = 112\nwidth = 112\npoints = {points}"
    with pytest.raises(UsageError, match=r"template|points") as caught:
        parse_card(text, folder=Path())
    assert message in str(caught.value)
    require_plain(caught.value)


def test_one_bad_card_is_named_and_the_rest_is_listed(
    own_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("bad", CARD.replace("mean = [0.5,", f"mean = [{'9' * 300},")),
        ("deep", CARD + "a = " + "[" * 3000 + "]" * 3000),
        ("good", CARD.replace('"mine"', '"good"')),
    ):
        folder = own_home / "recognizers" / name
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run(["recognizers", "list"]) == 0
        told = capsys.readouterr()
        assert "good" in told.out
        assert "mobilefacenet" in told.out
        lines = told.err.splitlines()
        assert [line.startswith("warning: The recogniser in ") for line in lines] == [True, True]
        assert "/bad was passed over" in lines[0]
        assert "mean is" in lines[0]
        assert "/deep was passed over" in lines[1]
        assert run(["recognizers", "show", "good"]) == 0
        assert run(["recognizers", "show", "bad"]) == 2
        assert "mean is" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"recognizers": 3}', '{"recognizers": {"a": 3}}', '{"recognizers": {"a": {}}}',
     '{"recognizers": {"a": {"mean": [1e400], "architecture": "x"}}}', "[" * 100_000,
     '{"recognizers": {"a": {"architecture": 1, "input_hw": [112, 112], "colour": "RGB", "mean": [%s, 0, 0]}}}'
     % ("9" * 400)],
)  # fmt: skip
def test_a_wrong_list_of_models_is_told(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.json").write_text(text)
    monkeypatch.setenv("BAUTA_MODELS", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        list_recognizers()
    require_plain(caught.value)


# All of it


CAMPAIGN: list[HostileModel] = [*STILL.values(), *RUNNING.values(), *mutated_models(80)]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(8))
def test_whatever_the_network_there_is_one_plain_error(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    limits = Limits(seconds=120, processor=6, memory=3 * GIBIBYTE)
    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, size: limits))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for model in CAMPAIGN[part::8]:
        folder = tmp_path / model.name
        folder.mkdir()
        monkeypatch.setenv("BAUTA_HOME", str(folder / "home"))
        began = time.monotonic()
        try:
            add_recognizer(*write(folder, model.content))
            outcome = "taken"
        except BautaError as error:
            require_plain(error)
            outcome = str(error)
        with capfd.disabled():
            print(f"{model.name}: {outcome} ({time.monotonic() - began:.1f} s)")
        assert time.monotonic() - began < limits.seconds + 60, model.name
        assert not (outcome == "taken" and model.refused), model.name
    assert capfd.readouterr() == ("", "")
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert kilobytes * 1024 < limits.memory
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # in kB: the file, and little more


def test_the_campaign_has_its_size() -> None:
    assert len(CAMPAIGN) > 200


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    poisoned = card_of(tmp_path, linear_model(poison=np.nan))
    with pytest.raises(NumericalFailure):
        load_judge(poisoned).embed(probes(poisoned))
