"""Bringing a recogniser of one's own."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from bauta.errors import (
    BautaError,
    NumericalFailure,
    OutputError,
    UnsupportedOperator,
    UsageError,
    WeightsCorrupt,
    WeightsMissing,
)
from bauta.recognizers.add import add_recognizer
from bauta.recognizers.catalog import find_card
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import load_surrogate
from recognizer_builders import CARD, linear_model, stay_in_this_process

SHORT_CARD = "\n".join(
    line for line in CARD.splitlines() if line.split(" ")[0] not in ("schema", "format", "weights", "sha256")
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    stay_in_this_process(monkeypatch)
    return tmp_path / "home"


def write(folder: Path, content: bytes, card: str = SHORT_CARD) -> tuple[Path, Path]:
    (folder / "net.onnx").write_bytes(content)
    (folder / "card.toml").write_text(card)
    return folder / "net.onnx", folder / "card.toml"


def nothing_kept(home: Path) -> bool:
    return not [path for path in (home / "recognizers").rglob("*") if path.is_file()]


def test_added_network_is_judge_and_surrogate(tmp_path: Path, own_home: Path) -> None:
    stored = add_recognizer(*write(tmp_path, linear_model()))
    assert stored.weights.is_relative_to(own_home)
    assert find_card("mine") == stored
    assert (stored.sha256, stored.size) == (sha256(linear_model()).hexdigest(), len(linear_model()))
    load_surrogate("mine")
    load_judge("mine")
    assert sorted(path.name for path in (own_home / "recognizers").iterdir()) == ["mine"]


def test_name_clash_is_refused(tmp_path: Path) -> None:
    add_recognizer(*write(tmp_path, linear_model()))
    with pytest.raises(UsageError, match="exists already"):
        add_recognizer(*write(tmp_path, linear_model(seed=1)))
    with pytest.raises(UsageError, match="exists already"):
        add_recognizer(*write(tmp_path, linear_model(), SHORT_CARD.replace('"mine"', '"dlib_resnet"')))


def test_one_network_in_two_files_is_refused(tmp_path: Path) -> None:
    add_recognizer(*write(tmp_path, linear_model()))
    again = SHORT_CARD.replace('"mine"', '"mine_too"')
    with pytest.raises(UsageError, match="same network in another file"):
        add_recognizer(*write(tmp_path, linear_model(batch="M"), again))
    add_recognizer(*write(tmp_path, linear_model(seed=1), again))


def two_outputs() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


REFUSED: dict[str, tuple[bytes, str, type[Exception]]] = {
    "no ONNX": (b"hello", SHORT_CARD, WeightsCorrupt),
    "empty": (b"", SHORT_CARD, WeightsCorrupt),
    "truncated": (linear_model()[:-30], SHORT_CARD, WeightsCorrupt),
    "other hash": (linear_model(), CARD, WeightsCorrupt),
    "other size": (linear_model(), SHORT_CARD + "\nsize = 3", WeightsCorrupt),
    "other dimension": (linear_model(), SHORT_CARD.replace("dim = 8", "dim = 16"), UsageError),
    "grey input": (linear_model(channels=1), SHORT_CARD, WeightsCorrupt),
    "two outputs": (two_outputs(), SHORT_CARD, WeightsCorrupt),
    "NaN": (linear_model(poison=np.nan), SHORT_CARD, NumericalFailure),
    "operator": (linear_model(extra="Celu"), SHORT_CARD, UnsupportedOperator),
    "invalid operator": (linear_model(extra="Nonsense"), SHORT_CARD, WeightsCorrupt),
    "batch of two": (linear_model(batch=2), SHORT_CARD, WeightsCorrupt),
    "card": (linear_model(), SHORT_CARD.replace("mean", "average"), UsageError),
    "dlib": (linear_model(), SHORT_CARD + 'format = "dlib"', UsageError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_and_leaves_nothing(name: str, tmp_path: Path, own_home: Path) -> None:
    content, card, error = REFUSED[name]
    with pytest.raises(error) as caught:
        add_recognizer(*write(tmp_path, content, card))
    assert isinstance(caught.value, BautaError)
    assert caught.value.hint
    assert nothing_kept(own_home)


def test_unsupported_operator_is_fine_for_a_judge(tmp_path: Path) -> None:
    card = SHORT_CARD.replace('["judge", "surrogate"]', '["judge"]')
    add_recognizer(*write(tmp_path, linear_model(extra="Celu"), card))
    assert load_judge("mine").card.roles == {"judge"}


def test_importer_that_differs_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bauta.recognizers.onnx import operators as onnx_operators

    monkeypatch.setitem(onnx_operators.BUILDERS, "Relu", lambda node: lambda x: x.abs())
    with pytest.raises(UnsupportedOperator, match="differs"):
        add_recognizer(*write(tmp_path, linear_model()))


def test_missing_files(tmp_path: Path) -> None:
    model, card = write(tmp_path, linear_model())
    with pytest.raises(WeightsMissing):
        add_recognizer(tmp_path / "gone.onnx", card)
    with pytest.raises(UsageError, match="card"):
        add_recognizer(model, tmp_path / "gone.toml")


def test_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        add_recognizer(*write(tmp_path, linear_model()), home=tmp_path / "file")
