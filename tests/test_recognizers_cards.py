"""Cards, the catalogue, roles, and weights that are missing, wrong or poisonous."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bauta.errors import (
    BautaError,
    NumericalFailure,
    RoleRefused,
    UnknownRecognizer,
    UnsupportedOperator,
    UsageError,
    WeightsCorrupt,
    WeightsMissing,
)
from bauta.faces.crop_template import ARCFACE_112, ARCFACE_112X96
from bauta.recognizers.cards import (
    format_card,
    parse_card,
    read_card,
    read_weights,
    separate,
    taught_by,
    verify_weights,
)
from bauta.recognizers.catalog import find_card, home, list_recognizers
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import load_surrogate
from recognizer_builders import CARD, card_of, linear_model


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    return tmp_path / "home"


def crops(count: int = 2, height: int = 112, width: int = 112) -> Any:
    return np.random.default_rng(0).random((count, 3, height, width), dtype=np.float32)


def test_card_survives_writing_and_reading(tmp_path: Path) -> None:
    card = parse_card(CARD, folder=tmp_path)
    assert parse_card(format_card(card), folder=tmp_path) == card
    assert card.template == ARCFACE_112
    assert card.roles == {"surrogate", "judge"}


def test_card_with_its_own_template_survives(tmp_path: Path) -> None:
    text = CARD.replace('template = "arcface-112"', "") + (
        "[template]\nheight = 100\nwidth = 90\npoints = [[30, 40], [60.5, 40], [45, 60], [35, 80], [5, 8]]\n"
    )
    card = parse_card(text, folder=tmp_path)
    assert (card.template.height, card.template.width) == (100, 90)
    assert card.template.points[1] == (60.5, 40)
    assert parse_card(format_card(card), folder=tmp_path) == card


def test_card_with_difficult_text_survives(tmp_path: Path) -> None:
    card = replace(
        parse_card(CARD, folder=tmp_path), terms='"quoted" \\ ünïcode 顔', url="https://example.org/é", size=3
    )
    assert parse_card(format_card(card), folder=tmp_path) == card


BAD_CARDS = {
    "no TOML": ("name", "name ="),
    "unknown key": ("dim = 8", "dim = 8\nsizes = 3"),
    "size negative": ("dim = 8", "dim = 8\nsize = -1"),
    "size too large": ("dim = 8", "dim = 8\nsize = 1073741825"),
    "size text": ("dim = 8", 'dim = 8\nsize = "3"'),
    "size boolean": ("dim = 8", "dim = 8\nsize = true"),
    "schema 2": ("schema = 1", "schema = 2"),
    "schema text": ("schema = 1", 'schema = "1"'),
    "schema missing": ("schema = 1", ""),
    "name missing": ('name = "mine"', ""),
    "name with a path": ('name = "mine"', 'name = "../mine"'),
    "name empty": ('name = "mine"', 'name = ""'),
    "name a number": ('name = "mine"', "name = 3"),
    "dim zero": ("dim = 8", "dim = 0"),
    "dim text": ("dim = 8", 'dim = "8"'),
    "dim boolean": ("dim = 8", "dim = true"),
    "dim fraction": ("dim = 8", "dim = 8.5"),
    "colour": ('colour = "RGB"', 'colour = "GRAY"'),
    "mean of two": ("mean = [0.5, 0.5, 0.5]", "mean = [0.5, 0.5]"),
    "mean of text": ("mean = [0.5, 0.5, 0.5]", 'mean = ["a", "b", "c"]'),
    "mean NaN": ("mean = [0.5, 0.5, 0.5]", "mean = [nan, 0.5, 0.5]"),
    "std zero": ("std = [0.5, 0.5, 0.5]", "std = [0.5, 0, 0.5]"),
    "std negative": ("std = [0.5, 0.5, 0.5]", "std = [0.5, -1, 0.5]"),
    "std infinite": ("std = [0.5, 0.5, 0.5]", "std = [0.5, inf, 0.5]"),
    "template unknown": ('template = "arcface-112"', 'template = "mine"'),
    "template empty": ('template = "arcface-112"', "template = {}"),
    "template of four points": (
        'template = "arcface-112"',
        "template = {height = 9, width = 9, points = [[1, 1], [2, 1], [1, 2], [2, 2]]}",
    ),
    "template without area": (
        'template = "arcface-112"',
        "template = {height = 0, width = 9, points = [[1, 1], [2, 1], [1, 2], [2, 2], [3, 3]]}",
    ),
    "template too large": (
        'template = "arcface-112"',
        "template = {height = 90000, width = 9, points = [[1, 1], [2, 1], [1, 2], [2, 2], [3, 3]]}",
    ),
    "hash short": ('sha256 = "', 'sha256 = "0'),
    "hash upper case": ("00000000", "AAAAAAAA"),
    "format": ('format = "onnx"', 'format = "pickle"'),
    "roles none": ('roles = ["judge", "surrogate"]', "roles = []"),
    "roles unknown": ('roles = ["judge", "surrogate"]', 'roles = ["attacker"]'),
    "roles text": ('roles = ["judge", "surrogate"]', 'roles = "judge"'),
    "weights elsewhere": ('weights = "model.onnx"', 'weights = "/etc/passwd"'),
    "weights above": ('weights = "model.onnx"', 'weights = ".."'),
    "terms of two lines": ('terms = "none"', 'terms = "a\\nb"'),
}


@pytest.mark.parametrize("name", BAD_CARDS)
def test_bad_card_is_refused_with_a_hint(name: str, tmp_path: Path) -> None:
    old, new = BAD_CARDS[name]
    assert old in CARD
    with pytest.raises(UsageError) as caught:
        parse_card(CARD.replace(old, new, 1), folder=tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_unreadable_card_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="card"):
        read_card(path)


SHIPPED = ["dlib_resnet", "chip_resnet", "mobilefacenet", "mobilenet"]


def test_listing_finds_the_packaged_network_first_and_without_importing_its_package() -> None:
    assert [card.name for card in list_recognizers()] == SHIPPED
    assert "face_recognition_models" not in sys.modules


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownRecognizer, match="dlib_resnet"):
        find_card("nobody")


def test_home_is_where_bauta_home_says(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home() == own_home
    monkeypatch.delenv("BAUTA_HOME")
    assert home().name == "bauta"


def test_user_cards_are_listed_and_broken_ones_passed_over(own_home: Path) -> None:
    for name, text in (("mine", CARD), ("broken", "schema = 1")):
        folder = own_home / "recognizers" / name
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(text)
    with pytest.warns(RuntimeWarning, match="broken"):
        assert [card.name for card in list_recognizers()] == [
            "dlib_resnet",
            "chip_resnet",
            "mobilefacenet",
            "mobilenet",
            "mine",
        ]
    with pytest.warns(RuntimeWarning), pytest.raises(UsageError, match="missing"):
        find_card("broken")


def models_folder(folder: Path, **changes: Any) -> Path:
    content = linear_model()
    (folder / "net.onnx").write_bytes(content)
    entry = {
        "file": "net.onnx",
        "sha256": card_of(folder, content).sha256,
        "role": "judge only",
        "architecture": "linear",
        "input_hw": [112, 96],
        "colour": "RGB",
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "dim": 8,
        "training_set": "none",
        "terms": "none",
    } | changes
    (folder / "models.json").write_text(json.dumps({"recognizers": {"net": entry}}))
    return folder


def test_models_folder_is_found_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAUTA_MODELS", str(models_folder(tmp_path)))
    card = find_card("net")
    assert card.roles == {"judge"}
    assert card.template == ARCFACE_112X96
    assert load_judge("net").embed(crops(width=96)).shape == (2, 8)
    with pytest.raises(RoleRefused, match="judge only"):
        load_surrogate("net")
    monkeypatch.setenv("BAUTA_MODELS", str(models_folder(tmp_path, role="surrogate or teacher")))
    assert find_card("net").roles == {"judge", "surrogate"}


@pytest.mark.parametrize(
    "changes",
    [{"role": "friend"}, {"input_hw": [1, 1]}, {"sha256": "x"}, {"mean": None}, {"dim": None}, {"dim": "8"}],
)
def test_bad_models_json_is_refused(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAUTA_MODELS", str(models_folder(tmp_path, **changes)))
    with pytest.raises(UsageError, match="net"):
        list_recognizers()


def test_missing_or_broken_models_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAUTA_MODELS", str(tmp_path))
    with pytest.raises(WeightsMissing, match="BAUTA_MODELS"):
        list_recognizers()
    (tmp_path / "models.json").write_text("[]")
    with pytest.raises(UsageError, match="schema"):
        list_recognizers()


def test_surrogate_and_judge_agree(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    images = crops(3)
    surrogate = load_surrogate(card)
    embeddings = surrogate(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(embeddings, load_judge(card).embed(images), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert surrogate.card is card
    assert not surrogate.training
    assert not any(tensor.requires_grad for tensor in surrogate.parameters())


def test_colour_order_is_turned(tmp_path: Path) -> None:
    rgb = card_of(tmp_path, linear_model())
    bgr = replace(rgb, colour="BGR")
    images = crops()
    for load in (
        lambda card: load_judge(card).embed,
        lambda card: lambda x: load_surrogate(card)(torch.from_numpy(x)).numpy(),
    ):
        np.testing.assert_allclose(load(bgr)(images), load(rgb)(images[:, ::-1].copy()), atol=1e-6)
    different = np.abs(load_judge(bgr).embed(images) - load_judge(rgb).embed(images)).max()
    assert different > 1e-3


def test_judge_of_one_image_at_a_time_takes_batches(tmp_path: Path) -> None:
    free, single = linear_model(), linear_model(batch=1)
    images = crops(3)
    np.testing.assert_allclose(
        load_judge(card_of(tmp_path, single)).embed(images),
        load_judge(card_of(tmp_path, free)).embed(images),
        atol=1e-6,
    )


def test_no_crops_no_embeddings(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    assert load_judge(card).embed(crops(0)).shape == (0, 8)
    assert load_surrogate(card)(torch.from_numpy(crops(0))).shape == (0, 8)


@pytest.mark.parametrize("shape", [(3, 112, 112), (1, 1, 112, 112), (1, 3, 112, 96), (1, 112, 112, 3)])
def test_crops_of_another_shape_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    with pytest.raises(UsageError, match="112, 112"):
        load_judge(card).embed(np.zeros(shape, np.float32))
    with pytest.raises(UsageError, match="112, 112"):
        load_surrogate(card)(torch.zeros(shape))


def test_gradient_reaches_the_crops_alone(tmp_path: Path) -> None:
    surrogate = load_surrogate(card_of(tmp_path, linear_model()))
    images = torch.from_numpy(crops()).requires_grad_()
    surrogate(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(tensor.grad is None for tensor in surrogate.buffers())


def test_surrogate_passes_through_vmap(tmp_path: Path) -> None:
    surrogate = load_surrogate(card_of(tmp_path, linear_model()))
    images = torch.from_numpy(crops(4)).reshape(2, 2, 3, 112, 112)
    mapped = torch.func.vmap(surrogate)(images)
    torch.testing.assert_close(mapped.flatten(0, 1), surrogate(images.flatten(0, 1)))


def test_missing_weights(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    card.weights.unlink()
    for use in (read_weights, verify_weights, load_surrogate, load_judge):
        with pytest.raises(WeightsMissing, match=r"model\.onnx"):
            use(card)


def test_weights_that_are_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        read_weights(replace(card_of(tmp_path, linear_model()), weights=tmp_path))


def test_wrong_hash(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    verify_weights(card)
    card.weights.write_bytes(linear_model(seed=1))
    for use in (read_weights, verify_weights, load_surrogate, load_judge):
        with pytest.raises(WeightsCorrupt, match="SHA-256"):
            use(card)


@pytest.mark.parametrize("content", [b"", b"junk" * 100, linear_model()[:-50]])
def test_corrupt_weights_with_the_right_hash(content: bytes, tmp_path: Path) -> None:
    card = card_of(tmp_path, content)
    for load in (load_surrogate, load_judge):
        with pytest.raises(WeightsCorrupt):
            load(card)


def test_network_that_answers_with_nan(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model(poison=np.nan))
    with pytest.raises(NumericalFailure, match="mine"):
        load_surrogate(card)
    with pytest.raises(NumericalFailure, match="mine"):
        load_judge(card).embed(crops())


def test_network_that_overflows_on_one_photo(tmp_path: Path) -> None:
    surrogate = load_surrogate(card_of(tmp_path, linear_model()))
    images = torch.from_numpy(crops())
    images[1, 0, 5, 5] = torch.inf
    with pytest.raises(NumericalFailure):
        surrogate(images)


def test_wrong_dimension(tmp_path: Path) -> None:
    card = replace(card_of(tmp_path, linear_model()), dim=9)
    with pytest.raises(UsageError, match="9 numbers"):
        load_surrogate(card)
    with pytest.raises(UsageError, match="9 numbers"):
        load_judge(card).embed(crops())


def test_roles_are_kept(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    with pytest.raises(RoleRefused):
        load_surrogate(replace(card, roles=frozenset({"judge"})))
    with pytest.raises(RoleRefused):
        load_judge(replace(card, roles=frozenset({"surrogate"})))


def test_one_network_on_both_sides_is_refused(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    other = card_of(tmp_path, linear_model(seed=1))
    renamed = replace(card, name="other_name")
    assert separate([card], [other]) == frozenset()
    with pytest.raises(RoleRefused, match="other_name"):
        separate([card], [renamed])
    assert separate([card], [renamed, other], allow_attacked=True) == {"other_name"}


def test_teachers_and_starts_are_known_by_name(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    students = [
        replace(card, training={"teachers": ["one", "two"], "start": "dlib"}),
        replace(card, training={"teachers": "three", "start": "sface"}),
        replace(card, training={"epochs": 3}),
    ]
    assert taught_by(students) == {"one", "two", "three", "dlib_resnet", "sface"}
    assert taught_by([card]) == frozenset()


def test_the_digest_is_of_what_decides_an_embedding(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    named = replace(card, name="other", terms="other", url="https://example.org", roles=frozenset({"judge"}), size=3)
    called = replace(card, template=replace(card.template, name="custom-112x112"))
    assert card.digest == named.digest == called.digest == parse_card(format_card(card), folder=tmp_path).digest
    changes: list[dict[str, Any]] = [
        {"sha256": "1" * 64}, {"format": "safetensors"}, {"colour": "BGR"}, {"mean": (0.5, 0.5, 0.4)},
        {"std": (0.5, 0.5, 0.4)}, {"template": ARCFACE_112X96}, {"dim": 9},
    ]  # fmt: skip
    digests = {replace(card, **change).digest for change in changes}
    assert len(digests - {card.digest}) == len(changes)


def test_unsupported_operator_reaches_the_user(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model(extra="Det"))
    with pytest.raises(UnsupportedOperator, match="Det"):
        load_surrogate(card)


def test_every_error_has_a_hint(tmp_path: Path) -> None:
    with pytest.raises(BautaError) as caught:
        find_card("nobody")
    assert caught.value.hint


def test_judging_never_imports_torch(tmp_path: Path) -> None:
    card = card_of(tmp_path, linear_model())
    (tmp_path / "card.toml").write_text(format_card(card))
    script = (
        "import sys, pathlib, numpy as np\n"
        "from bauta.recognizers import load_judge, read_card\n"
        f"judge = load_judge(read_card(pathlib.Path({str(tmp_path / 'card.toml')!r})))\n"
        "judge.embed(np.zeros((1, 3, 112, 112), np.float32))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
