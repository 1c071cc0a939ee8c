"""`bauta key` and `bauta templates protect`, `match`, `rotate` and `upgrade`: what a person who uses them meets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bauta.cli.run import run
from bauta.errors import NumericalFailure, UsageError
from bauta.gallery.enrol import Gallery, enrol_faces
from bauta.gallery.files import write_gallery
from bauta.gallery.match import Matcher
from bauta.keys import DeploymentKey
from bauta.recognizers import calibration
from bauta.recognizers.cards import format_card
from bauta.templates.base import load_protector
from bauta.templates.references import PixelatedImage
from conftest import drawn, faces, toy_surrogate
from gallery_builders import key_of, write_unsealed
from recognizer_builders import card_of, linear_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: a recogniser called mine, a protector of it, faces of two people, two keys."""
    home = tmp_path / "home" / "recognizers" / "mine"
    home.mkdir(parents=True)
    (home / "card.toml").write_text(format_card(card_of(home, linear_model())))
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    for number, picture in enumerate((faces(4, 3) * 255).byte().permute(0, 2, 3, 1).numpy()):
        folder = tmp_path / "people" / f"Person_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    fitting = ["templates", "fit", "people", "--recognizer", "mine", "--method", "pixelated-image", "-o", "made"]
    assert run(fitting) == 0
    for name in ("deployment.key", "new.key"):
        assert run(["key", "-o", name]) == 0
    return tmp_path


PROTECT = ["templates", "protect", "made", "people", "--aligned"]
MATCH = ["templates", "match", "made", "gallery.bauta", "people", "--aligned", "--json"]
KEY = ["--key", "deployment.key"]


def test_a_gallery_from_its_key_to_its_rotation(place: Path, capsys: Capture) -> None:
    assert run([*PROTECT, *KEY]) == 0
    capsys.readouterr()
    assert run([*MATCH, *KEY]) == 0
    before = json.loads(capsys.readouterr().out)
    assert before["gallery"] == before["probes"] == ["0.png", "2.png", "1.png", "3.png"]
    rotate = ["templates", "rotate", "gallery.bauta"]
    assert run([*rotate, *KEY, "--new-key", "new.key"]) == 0
    assert "destroy" in capsys.readouterr().out
    assert run([*MATCH, *KEY]) == 9
    assert "deployment.key does not open gallery.bauta" in capsys.readouterr().err
    assert run([*MATCH, "--key", "new.key"]) == 0
    assert json.loads(capsys.readouterr().out) == before
    (place / "phrase").write_text("six words drawn at random here\n")
    (place / "phrase").chmod(0o600)
    assert run([*rotate, "--key", "new.key", "--new-passphrase-file", "phrase"]) == 0
    capsys.readouterr()
    assert run([*MATCH, "--passphrase-file", "phrase"]) == 0
    assert json.loads(capsys.readouterr().out) == before


def test_nothing_is_stored_without_a_key(place: Path, capsys: Capture) -> None:
    before = sorted(place.rglob("*"))
    for arguments in (PROTECT, ["templates", "upgrade", "old.safetensors"], MATCH, ["templates", "rotate", "g"]):
        assert run(arguments) == 2
        assert "bauta key" in capsys.readouterr().err
    assert run(["templates", "rotate", "gallery.bauta", *KEY]) == 2
    assert "--new-key new.key" in capsys.readouterr().err
    assert run([*PROTECT, *KEY, "--ask-passphrase"]) == 2
    assert "do not go together" in capsys.readouterr().err
    assert sorted(place.rglob("*")) == before


def test_a_key_is_read_before_any_work_is_done(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("bauta.templates.base.load_protector", lambda name: pytest.fail("too late"))
    (place / "weak.key").write_bytes(bytes(32))
    (place / "weak.key").chmod(0o600)
    (place / "taken.jpg").write_bytes(b"a photo")
    for options, code, words in (
        (["--key", "weak.key"], 2, "pattern"),
        (["--key", "none.key"], 2, "cannot be read"),
        ([*KEY, "-o", "taken.jpg"], 5, "exists already"),
        ([*KEY, "-o", "taken.jpg", "--overwrite"], 5, "only a gallery is replaced"),
        ([*KEY, "-o", "gallery.safetensors"], 2, "galleries are sealed"),
    ):
        assert run([*PROTECT, *options]) == code
        assert words in capsys.readouterr().err
    assert (place / "taken.jpg").read_bytes() == b"a photo"


def answers(monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[str]:
    asked: list[str] = []
    given = iter(texts)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or next(given))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    return asked


def test_a_passphrase_is_asked_for_without_echo_and_twice_where_it_seals(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    phrase = "six words drawn at random here"
    with monkeypatch.context() as patch:
        asked = answers(patch, phrase, "six words drawn at random hear")
        assert run([*PROTECT, "--ask-passphrase"]) == 2
        assert len(asked) == 2
        assert "differ" in capsys.readouterr().err
        assert not (place / "gallery.bauta").exists()
    with monkeypatch.context() as patch:
        answers(patch, phrase, phrase)
        assert run([*PROTECT, "--ask-passphrase"]) == 0
    with monkeypatch.context() as patch:
        asked = answers(patch, phrase)
        assert run([*MATCH, "--ask-passphrase"]) == 0
        assert asked == ["Passphrase of the gallery: "]
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin.isatty", lambda: False)
        assert run([*MATCH, "--ask-passphrase"]) == 2
        captured = capsys.readouterr()
        assert "no terminal" in captured.err
        assert phrase not in captured.out + captured.err


def test_an_old_gallery_is_refused_until_it_is_upgraded(place: Path, capsys: Capture) -> None:
    protector = load_protector(place / "made")
    stored = protector.protect(faces(4, 3)[[0, 2, 1, 3]], drawn())
    write_unsealed(place / "old.safetensors", stored, ["0.png", "2.png", "1.png", "3.png"])
    old = ["templates", "match", "made", "old.safetensors", "people", "--aligned", *KEY]
    assert run(old) == 9
    assert "bauta templates upgrade old.safetensors" in capsys.readouterr().err
    assert run(["templates", "upgrade", "old.safetensors", *KEY]) == 0
    said = capsys.readouterr().out
    assert "was not authenticated" in said
    assert "old.safetensors and old.json are still there, not sealed" in said
    assert (place / "old.safetensors").exists()
    assert run([*MATCH, *KEY]) == 0
    found = json.loads(capsys.readouterr().out)
    assert torch.tensor(found["scores"]).argmax(1).tolist() == [0, 1, 2, 3]
    assert run(["templates", "upgrade", "old.safetensors", *KEY]) == 5
    assert run(["templates", "match", "made", "gallery.bauta", "old.safetensors", *KEY]) == 9  # as probes too


def test_two_galleries_are_compared(place: Path, capsys: Capture) -> None:
    assert run([*PROTECT, *KEY]) == 0
    assert run([*PROTECT, *KEY, "-o", "visitors.bauta"]) == 0
    assert run([*PROTECT, "--key", "new.key", "-o", "others.bauta"]) == 0
    capsys.readouterr()
    match = ["templates", "match", "made", "gallery.bauta", "visitors.bauta", *KEY, "--threshold", "0.99"]
    assert run(match) == 0
    assert capsys.readouterr().out.count("yes") == 4
    match[4] = "others.bauta"
    assert run(match) == 9
    assert "does not open others.bauta" in capsys.readouterr().err


# The rule that decides


@pytest.fixture(scope="module")
def protector() -> PixelatedImage:
    return PixelatedImage(toy_surrogate())


def gallery_of(protector: PixelatedImage, count: int = 3) -> Gallery:
    return enrol_faces(protector, faces(count), tuple("abcdefg"[:count]))


def test_the_nearest_face_decides_at_the_threshold(protector: PixelatedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = gallery_of(protector)
    probes = faces(3)[[2, 0]]
    found = Matcher(protector, threshold=0.5).compare(gallery, probes, ("first", "second"))
    expected = protector.match_clean(gallery.representation, probes)
    torch.testing.assert_close(found.scores, expected)
    decisions = found.decisions()
    assert [(one.probe, one.nearest) for one in decisions] == [("first", "c"), ("second", "a")]
    limit = decisions[0].cosine  # reached is enough
    for threshold, wanted in ((limit, True), (limit + 1e-6, False), (-1.0, True)):
        made = Matcher(protector, threshold=threshold).compare(gallery, probes, ("first", "second")).decisions()
        assert made[0].match is wanted
    assert (found.threshold, found.fmr) == (0.5, None)


def test_without_a_threshold_nothing_is_decided(protector: PixelatedImage) -> None:
    found = Matcher(protector).compare(gallery_of(protector), faces(1), ("one",))
    assert (found.threshold, found.fmr, found.decisions()[0].match) == (None, None, None)


def test_the_threshold_is_the_recognisers_or_the_protectors_own(
    protector: PixelatedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Known:
        cosine = 0.25

    monkeypatch.setattr(calibration, "threshold", lambda card, fmr: Known())
    assert Matcher(protector).threshold == 0.25
    assert Matcher(protector, threshold=0.75).threshold == 0.75
    monkeypatch.setattr(PixelatedImage, "thresholds", {1e-2: 0.125})
    assert Matcher(protector, fmr=1e-2).threshold == 0.125
    assert Matcher(protector, fmr=1e-3).threshold is None  # and not that of another network


@pytest.mark.parametrize(
    ("change", "words"),
    [({"kind": "feature"}, "stores image rows"), ({"storage": "float16"}, "stores float32, not float16"),
     ({"protector_sha256": "c" * 64}, "protector of this"), ({"recognizer": "other"}, "recognizer of this"),
     ({"tensor": torch.zeros(2, 3, 100, 100)}, "of shape .3, 112, 112.")],
)  # fmt: skip
def test_what_the_protector_does_not_write_is_not_compared(
    protector: PixelatedImage, change: dict[str, Any], words: str
) -> None:
    from dataclasses import replace

    stored = gallery_of(protector, 2).representation
    stored = stored.stored_as("float16") if "storage" in change else replace(stored, **change)
    gallery, right = Gallery(stored, ("a", "b")), gallery_of(protector, 2)
    matcher = Matcher(protector)
    with pytest.raises(UsageError, match=words):
        matcher.compare(gallery, faces(1), ("one",))
    for pair in ((gallery, right), (right, gallery)):
        with pytest.raises(UsageError, match=words):
            matcher.compare_galleries(*pair)


def test_a_score_that_is_no_number_decides_nothing(protector: PixelatedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PixelatedImage, "match_clean", lambda *_: torch.full((2, 1), float("nan")))
    with pytest.raises(NumericalFailure):
        Matcher(protector).compare(gallery_of(protector, 2), faces(1), ("one",))


def test_keys_from_python_are_the_same_as_from_files(place: Path, capsys: Capture) -> None:
    protector = load_protector(place / "made")
    write_gallery(place / "gallery.bauta", enrol_faces(protector, faces(2, 3), ("a", "b")), key_of())
    (place / "same.key").write_bytes(key_of().secret)
    (place / "same.key").chmod(0o600)
    assert DeploymentKey.read(place / "same.key").same_as(key_of())
    capsys.readouterr()
    assert run([*MATCH, "--key", "same.key"]) == 0
    assert json.loads(capsys.readouterr().out)["gallery"] == ["a", "b"]
