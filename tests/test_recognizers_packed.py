"""Recognisers packed into one safetensors file: the way there and back, bad files, the catalogue, show and export."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
import torch
from onnx import TensorProto, helper, numpy_helper

from bauta.cli import run
from bauta.errors import BautaError, UsageError, WeightsCorrupt
from bauta.recognizers import catalog, packed
from bauta.recognizers.calibration import threshold
from bauta.recognizers.cards import RecognizerCard, format_card, parse_card
from bauta.recognizers.catalog import find_card, list_recognizers
from bauta.recognizers.judges import load_judge
from bauta.recognizers.onnx.module import ImportedNetwork
from bauta.recognizers.packed import pack, read_model, unpack
from bauta.recognizers.surrogates import load_surrogate
from recognizer_builders import CARD, card_of, linear_model

TRAINING = """
[training]
data = "people of \\"nowhere\\", 顔"
teachers = ["one", "two"]
epochs = 12
rate = 1e-05
distilled = true
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path / "shipped")


def crops(count: int = 3) -> Any:
    return np.random.default_rng(0).random((count, 3, 112, 112), dtype=np.float32)


def packed_card(folder: Path, content: bytes | None = None) -> RecognizerCard:
    return replace(card_of(folder, pack(linear_model()) if content is None else content), format="safetensors")


def model_of(weights: dict[str, Any], *, nodes: list[Any] | None = None, ir: int = 8) -> Any:
    """x plus all the weights, which are arrays or TensorProtos, summed up one after the other."""
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in weights.items()
    ]
    names = ["x", *(f"sum{number}" for number in range(len(tensors)))]
    nodes = nodes or [
        *(helper.make_node("Add", [names[i], tensor.name], [names[i + 1]]) for i, tensor in enumerate(tensors)),
        helper.make_node("Identity", [names[-1]], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 100])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 100])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir)


def weights_of(model: bytes) -> dict[str, Any]:
    return {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_model_from_string(model).graph.initializer
    }


def answer(model: bytes, x: Any) -> Any:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


# There and back


def test_the_way_back_gives_the_same_graph_with_weights_rounded_to_float16() -> None:
    original = linear_model()
    back = unpack(pack(original))
    before, after = weights_of(original), weights_of(back)
    assert list(after) == list(before) == ["w", "q"]
    assert before["w"].size > packed.SMALL >= before["q"].size
    np.testing.assert_array_equal(after["w"], before["w"].astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(after["q"], before["q"])
    bare = [onnx.load_model_from_string(model) for model in (original, back)]
    for proto in bare:
        del proto.graph.initializer[:]
    assert bare[0] == bare[1]


def test_packing_is_stable() -> None:
    once = pack(linear_model())
    assert pack(linear_model()) == once
    assert pack(unpack(once)) == once
    script = (
        "import hashlib, sys; sys.path.insert(0, 'tests')\n"
        "from recognizer_builders import linear_model\nfrom bauta.recognizers.packed import pack\n"
        "sys.stdout.buffer.write(pack(linear_model()))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    root = Path(__file__).resolve().parent.parent
    for _ in range(2):  # safetensors writes the keys of metadata in an order of the process
        assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=root).stdout == once


def test_other_readers_of_safetensors_see_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(pack(linear_model()))
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
        assert metadata.keys() == {"bauta.graph", "bauta.schema"}
        assert file.get_tensor("w").dtype == np.float16
        assert file.get_tensor("q").dtype == np.float32
    assert len(base64.b64decode(metadata["bauta.graph"])) < 1000


def test_types_and_shapes_survive() -> None:
    values = {
        "scalar": np.float32(1e-30),
        "empty": np.zeros((0, 3), np.float32),
        "double": np.linspace(0, 1, 5),
        "long double": np.linspace(0, 1, 500).reshape(5, 100),
        "half": np.arange(100, dtype=np.float16),
        "integers": np.arange(100) << 40,
        "bytes": np.arange(100, dtype=np.uint8),
        "truth": np.arange(100) % 3 == 0,
        "few and large": np.full(64, 1e30, np.float32),
        "largest": np.full(100, -65504, np.float32),
        "tiny": np.full(100, 1e-12, np.float32),
    }
    after = weights_of(unpack(pack(model_of(values).SerializeToString())))
    for name, value in values.items():
        assert (after[name].dtype, after[name].shape) == (value.dtype, value.shape)
        np.testing.assert_allclose(after[name].astype(float), value.astype(float), rtol=2**-11, atol=1e-7)


def test_large_constants_among_the_nodes_become_weights() -> None:
    rising = np.linspace(0, 1, 100, dtype=np.float32)
    nodes = [
        helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(rising)),
        helper.make_node("Constant", [], ["b"], value_floats=rising.tolist()),
        helper.make_node("Constant", [], ["c"], value_floats=[2.0]),
        helper.make_node("Constant", [], ["i"], value_ints=list(range(100))),
        helper.make_node("Add", ["x", "a"], ["xa"]),
        helper.make_node("Mul", ["xa", "b"], ["xab"]),
        helper.make_node("Add", ["xab", "c"], ["xabc"]),
        helper.make_node("Gather", ["xabc", "i"], ["y"], axis=1),
    ]
    original = model_of({}, nodes=nodes, ir=3).SerializeToString()
    back = unpack(pack(original))
    assert weights_of(back).keys() == {"a", "b"}
    left = [node.output[0] for node in onnx.load_model_from_string(back).graph.node if node.op_type == "Constant"]
    assert left == ["c", "i"]
    onnx.checker.check_model(onnx.load_model_from_string(back))
    x = np.random.default_rng(0).random((2, 100), dtype=np.float32)
    np.testing.assert_allclose(answer(back, x), answer(original, x), rtol=1e-3)
    np.testing.assert_allclose(ImportedNetwork(back)(torch.from_numpy(x)), answer(back, x), rtol=1e-6)


def test_notes_of_the_exporter_stay_behind() -> None:
    model = onnx.load_model_from_string(linear_model())
    model.doc_string = model.graph.node[0].doc_string = "/home/somebody/train.py"
    model.graph.initializer[0].doc_string = "/home/somebody/train.py"
    for holder in (model, model.graph, model.graph.node[1]):
        holder.metadata_props.add(key="stack_trace", value="/home/somebody/train.py")
    assert pack(model.SerializeToString()) == pack(linear_model())


# What cannot be packed


def external() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[100], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def hidden_external() -> Any:
    """In a branch of an If, where a search of the outer graph alone would miss it."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [external()],
    )
    return model_of(
        {"c": np.array(True)}, nodes=[helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    )


ONES = np.ones(100, np.float32)
UNPACKABLE: dict[str, tuple[bytes, type[BautaError], str]] = {
    "nothing": (b"", WeightsCorrupt, "Not an ONNX file"),
    "no ONNX": (b"hello", WeightsCorrupt, "Not an ONNX file"),
    "truncated": (linear_model()[:-30], WeightsCorrupt, "Not an ONNX file"),
    "external": (model_of({"w": external()}).SerializeToString(), WeightsCorrupt, "'w' in another file"),
    "external inside": (hidden_external().SerializeToString(), WeightsCorrupt, "'w' in another file"),
    "NaN": (model_of({"w": ONES * np.nan}).SerializeToString(), WeightsCorrupt, "'w' holds NaN"),
    "infinity": (model_of({"w": np.float32(np.inf)}).SerializeToString(), WeightsCorrupt, "'w' holds NaN or inf"),
    "overflow": (model_of({"w": ONES * 65505}).SerializeToString(), WeightsCorrupt, r"'w' reaches 6\.55"),
    "double overflow": (model_of({"w": np.full(100, -1e300)}).SerializeToString(), WeightsCorrupt, "reaches 1e"),
    "twice": (
        model_of({"w": ONES, "v": numpy_helper.from_array(ONES, "w")}).SerializeToString(),
        WeightsCorrupt,
        "2 weights",
    ),
    "nameless": (model_of({"": ONES}).SerializeToString(), WeightsCorrupt, "called ''"),
    "bad length": (
        model_of({"w": TensorProto(name="w", data_type=1, dims=[100], raw_data=b"1234")}).SerializeToString(),
        WeightsCorrupt,
        "'w' cannot be read",
    ),
    "reserved name": (model_of({"__metadata__": ONES}).SerializeToString(), UsageError, "__metadata__"),
    "bfloat16": (
        model_of({"w": TensorProto(name="w", data_type=TensorProto.BFLOAT16, dims=[1])}).SerializeToString(),
        UsageError,
        "BFLOAT16",
    ),
    "text": (model_of({"w": np.array(["a"], object)}).SerializeToString(), UsageError, "STRING"),
    "unknown type": (
        model_of({"w": TensorProto(name="w", data_type=99, dims=[1])}).SerializeToString(),
        UsageError,
        "type 99",
    ),
}


@pytest.mark.parametrize("name", UNPACKABLE)
def test_what_cannot_be_packed_is_refused(name: str) -> None:
    content, error, message = UNPACKABLE[name]
    with pytest.raises(error, match=message) as caught:
        pack(content)
    assert caught.value.hint


# Bad files


def rewritten(
    change: Callable[[dict[str, Any], dict[str, str]], Any], content: bytes | None = None, *, graph: Any = None
) -> bytes:
    """The packed toy after `change` was at its tensors and metadata, or with another graph."""
    content = content or pack(linear_model())
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    if graph is not None:
        proto = onnx.load_model_from_string(base64.b64decode(metadata["bauta.graph"]))
        graph(proto)
        metadata["bauta.graph"] = base64.b64encode(proto.SerializeToString()).decode()
    tensors = dict(safetensors.numpy.load(content))
    change(tensors, metadata)
    return safetensors.numpy.save(tensors, metadata)


def keep(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    pass


def retyped(number: int) -> Callable[[Any], None]:
    def change(proto: Any) -> None:
        proto.graph.initializer[0].data_type = number

    return change


def with_header(header: bytes, tail: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + tail


def graph_text(content: bytes) -> Callable[[dict[str, Any], dict[str, str]], None]:
    return lambda tensors, metadata: metadata.update({"bauta.graph": base64.b64encode(content).decode()})


GOOD = pack(linear_model())
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "Not a whole safetensors file"),
    "seven bytes": (GOOD[:7], "Not a whole"),
    "truncated header": (GOOD[:100], "Not a whole"),
    "truncated tensors": (GOOD[:-1], "Not a whole"),
    "something after the end": (GOOD + b"\0", "Not a whole"),
    "endless header": (with_header(b"{}").replace(b"\x02", b"\xff", 1)[:8].replace(b"\0", b"\xff"), "Not a whole"),
    "header longer than the file": ((1 << 20).to_bytes(8, "little") + GOOD[8:], "Not a whole"),
    "header no JSON": (with_header(b"{'a': 1}"), "JSON"),
    "header a list": (with_header(b"[]"), "JSON"),
    "header deep": (with_header(b'{"a":' * 10_000), "JSON"),
    "header no text": (with_header(b"\xff\xfe\xfd\xfc"), "Not a whole"),
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93.", "Not a whole"),
    "an ONNX file": (linear_model(), "Not a whole"),
    "overlapping tensors": (GOOD.replace(b'"data_offsets":[0,', b'"data_offsets":[8,', 1), "Not a whole"),
    "no metadata": (safetensors.numpy.save({"w": np.zeros(3)}), "bauta.schema is missing"),
    "somebody else's": (safetensors.numpy.save({"w": np.zeros(3)}, {"format": "pt"}), "bauta.schema is missing"),
    "newer schema": (rewritten(lambda tensors, metadata: metadata.update({"bauta.schema": "2"})), "schema '2'"),
    "no graph": (rewritten(lambda tensors, metadata: metadata.pop("bauta.graph")), "no bauta.graph"),
    "graph no base64": (rewritten(lambda tensors, metadata: metadata.update({"bauta.graph": "?é"})), "not base64"),
    "graph no protobuf": (rewritten(graph_text(b"hello")), "no ONNX graph"),
    "graph truncated": (rewritten(graph_text(linear_model()[:60])), "no ONNX graph"),
    "graph empty": (rewritten(graph_text(b"")), "no operators"),
    "graph with external weights": (
        rewritten(keep, graph=lambda proto: proto.graph.initializer[0].CopyFrom(external())),
        "in another file",
    ),
    "graph with a weight twice": (
        rewritten(keep, graph=lambda proto: proto.graph.initializer.append(proto.graph.initializer[0])),
        "2 weights",
    ),
    "unknown type": (rewritten(keep, graph=retyped(99)), "graph has 99"),
    "type without a place": (rewritten(keep, graph=retyped(TensorProto.BFLOAT16)), "graph has BFLOAT16"),
    "other type in the graph": (rewritten(keep, graph=retyped(TensorProto.INT32)), "graph has INT32"),
    "tensor missing": (rewritten(lambda tensors, metadata: tensors.pop("w")), "'w' is missing"),
    "tensor too many": (
        rewritten(lambda tensors, metadata: tensors.update(extra=np.zeros(3))),
        "'extra' is not in the graph",
    ),
    "other shape": (
        rewritten(lambda tensors, metadata: tensors.update(w=tensors["w"].reshape(4, 5, 5, 3))),
        r"shape \[4, 5, 5, 3\]",
    ),
    "other size": (rewritten(lambda tensors, metadata: tensors.update(w=tensors["w"][:3])), r"shape \[3, 3, 5, 5\]"),
    "negative shape": (
        rewritten(keep, graph=lambda proto: proto.graph.initializer[0].dims.__setitem__(0, -4)),
        r"shape \[-4, ",
    ),
    "large tensor in float32": (
        rewritten(lambda tensors, metadata: tensors.update(w=tensors["w"].astype(np.float32))),
        "'w' is F32",
    ),
    "small tensor in float16": (
        rewritten(lambda tensors, metadata: tensors.update(q=tensors["q"].astype(np.float16))),
        "'q' is F16",
    ),
    "integers": (rewritten(lambda tensors, metadata: tensors.update(w=tensors["w"].view(np.int16))), "'w' is I16"),
    "NaN": (rewritten(lambda tensors, metadata: tensors.update(w=tensors["w"] * np.float16(np.nan))), "'w' holds NaN"),
    "infinity": (rewritten(lambda tensors, metadata: tensors.update(q=tensors["q"] + np.inf)), "'q' holds NaN"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_a_hint(name: str) -> None:
    content, message = BAD[name]
    with pytest.raises(WeightsCorrupt, match=message) as caught:
        unpack(content)
    assert caught.value.hint


@pytest.mark.filterwarnings("ignore:.*overflow encountered")
def test_no_damage_leads_to_anything_but_a_refusal() -> None:
    random = np.random.default_rng(0)
    end = 8 + int.from_bytes(GOOD[:8], "little")
    for _ in range(300):
        damaged = bytearray(GOOD)
        for place in random.integers(0, end, 3):
            damaged[place] = random.integers(0, 256)
        with suppress(WeightsCorrupt):
            unpack(bytes(damaged))


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pack(model_of({"w": np.ones((100, 100), np.float32)}).SerializeToString())
    for limit in (len(content) - 1, 100 * 100 * 4 - 1):  # the file, and the model that would come of it
        monkeypatch.setattr(packed, "LARGEST_WEIGHTS", limit)
        with pytest.raises(WeightsCorrupt, match="the limit is"):
            unpack(content)


# In use


def test_surrogate_and_judge_come_from_one_file(tmp_path: Path) -> None:
    card, images = packed_card(tmp_path), crops()
    judged = load_judge(card).embed(images)
    np.testing.assert_allclose(load_surrogate(card)(torch.from_numpy(images)).numpy(), judged, atol=1e-4)
    np.testing.assert_allclose(judged, load_judge(card_of(tmp_path, linear_model())).embed(images), atol=1e-3)
    pixels = torch.from_numpy(images).requires_grad_()
    load_surrogate(card)(pixels)[:, 0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_the_hash_is_checked_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = packed_card(tmp_path)
    card.weights.write_bytes(pack(linear_model(seed=1)))
    monkeypatch.setattr(packed, "unpack", lambda content: pytest.fail("it was read"))
    for use in (read_model, load_surrogate, load_judge):
        with pytest.raises(WeightsCorrupt, match="SHA-256"):
            use(card)


@pytest.mark.parametrize("name", ["truncated tensors", "newer schema", "NaN", "an ONNX file"])
def test_a_bad_file_with_the_right_hash_is_named(name: str, tmp_path: Path) -> None:
    card = packed_card(tmp_path, BAD[name][0])
    for load in (load_surrogate, load_judge):
        with pytest.raises(WeightsCorrupt, match=f"{card.weights.name}: .*{BAD[name][1]}") as caught:
            load(card)
        assert caught.value.hint


def test_judging_a_packed_network_never_imports_torch(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(format_card(packed_card(tmp_path)), encoding="utf-8")
    script = (
        "import sys, pathlib, numpy as np\n"
        "from bauta.recognizers import load_judge, read_card\n"
        f"judge = load_judge(read_card(pathlib.Path({str(tmp_path / 'card.toml')!r})))\n"
        "judge.embed(np.zeros((1, 3, 112, 112), np.float32) + 0.7)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Cards and the catalogue


def ship(name: str = "student", training: str = TRAINING) -> RecognizerCard:
    """A packed network among those that come with Bauta."""
    folder = catalog.SHIPPED
    folder.mkdir(exist_ok=True)
    card = replace(
        parse_card(CARD + training, folder=folder),
        name=name,
        format="safetensors",
        weights=folder / f"{name}.safetensors",
        sha256=hashlib.sha256(GOOD).hexdigest(),
    )
    card.weights.write_bytes(GOOD)
    (folder / f"{name}.toml").write_text(format_card(card), encoding="utf-8")
    return card


def test_training_survives_writing_and_reading(tmp_path: Path) -> None:
    card = parse_card(CARD + TRAINING, folder=tmp_path)
    assert card.training == {
        "data": 'people of "nowhere", 顔',
        "teachers": ("one", "two"),
        "epochs": 12,
        "rate": 1e-5,
        "distilled": True,
    }
    assert parse_card(format_card(card), folder=tmp_path) == card
    assert hash(parse_card(format_card(card), folder=tmp_path)) == hash(card)
    own = (
        CARD.replace('template = "arcface-112"', "")
        + TRAINING
        + ("[template]\nheight = 100\nwidth = 90\npoints = [[30, 40], [60.5, 40], [45, 60], [35, 80], [5, 8]]\n")
    )
    assert parse_card(format_card(parse_card(own, folder=tmp_path)), folder=tmp_path).training == card.training
    assert parse_card(CARD, folder=tmp_path).training == {}


@pytest.mark.parametrize(
    "line",
    [
        'data = "a\\nb"',
        'data = "\\u001b[2J"',
        "rate = nan",
        "rate = [1.0, inf]",
        "date = 2026-01-01",
        "inner = {a = 1}",
        "lists = [[1], [2]]",
        '"two words" = 1',
        '"" = 1',
    ],
)
def test_bad_training_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="training") as caught:
        parse_card(f"{CARD}[training]\n{line}\n", folder=tmp_path)
    assert caught.value.hint


def test_training_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="training"):
        parse_card(CARD + 'training = "hard"\n', folder=tmp_path)
    card = parse_card(CARD, folder=tmp_path)
    for wrong in ({"": 1}, {3: 1}, {"path": tmp_path}, {"nothing": None}, {"inner": [["a"]]}):
        with pytest.raises(UsageError, match="training"):
            replace(card, training=wrong)


def test_training_cannot_be_changed(tmp_path: Path) -> None:
    values = {"teachers": ["one"]}
    card = replace(parse_card(CARD, folder=tmp_path), training=values)
    values["teachers"].append("two")
    assert card.training == {"teachers": ("one",)}
    with pytest.raises(TypeError):
        card.training["teachers"] = ()
    assert copy.deepcopy(card) == pickle.loads(pickle.dumps(card)) == card  # workers get cards


def test_shipped_recognisers_are_found_after_dlib_and_before_the_users(tmp_path: Path) -> None:
    assert [card.name for card in list_recognizers()] == ["dlib_resnet"]  # no such folder
    catalog.SHIPPED.mkdir()
    assert [card.name for card in list_recognizers()] == ["dlib_resnet"]
    shipped = [ship("b"), ship("a")]
    for name in ("a", "c"):
        folder = tmp_path / "home" / "recognizers" / name
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(CARD.replace('"mine"', f'"{name}"'))
    assert [card.name for card in list_recognizers()] == ["dlib_resnet", "a", "b", "c"]
    assert [find_card("b"), find_card("a")] == shipped
    assert load_judge("b").embed(crops()).shape == (3, 8)
    load_surrogate("b")


def test_what_really_ships_is_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "SHIPPED", Path(catalog.__file__).parent / "shipped")
    cards = list_recognizers()[1:]
    assert sum(card.weights.stat().st_size for card in cards) < 40e6
    for card in cards:
        assert card.format == "safetensors"
        assert card.training
        assert card.weights == catalog.SHIPPED / f"{card.name}.safetensors"
        assert [threshold(card, fmr).cosine for fmr in (1e-2, 1e-3, 1e-4)]
        model = read_model(card)
        onnx.checker.check_model(onnx.load_model_from_string(model))
        images = torch.rand(2, 3, card.template.height, card.template.width, generator=torch.Generator().manual_seed(0))
        found = ImportedNetwork(model)(images).detach().numpy()
        np.testing.assert_allclose(found, answer(model, images.numpy()), atol=1e-4 * np.abs(found).max())


def test_the_judge_that_ships_shares_nothing_with_those_who_are_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "SHIPPED", Path(catalog.__file__).parent / "shipped")
    cards = list_recognizers()[1:]
    judges = [card for card in cards if card.roles == {"judge"}]
    assert judges
    for card in judges:
        for other in (one for one in cards if "surrogate" in one.roles):
            assert card.training["start"] != other.training["start"]
            assert not set(card.training["teachers"]) & set(other.training.get("teachers", ()))


# The command line


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out.onnx"


def test_export_gives_a_model_that_runs_everywhere(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ship()
    assert run(["recognizers", "export", "student", "-o", "out.onnx"]) == 0
    assert capsys.readouterr().out == "Wrote out.onnx. Its terms: none\n"
    content, images = output.read_bytes(), crops()
    normalised = (images - 0.5) / np.float32(0.5)
    expected = answer(content, normalised)
    np.testing.assert_allclose(ImportedNetwork(content)(torch.from_numpy(normalised)), expected, atol=1e-4)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(load_judge(card).embed(images), unit, atol=1e-5)


def test_export_of_an_onnx_recogniser_copies_it(output: Path, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "recognizers" / "mine"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(format_card(card_of(folder, linear_model())))
    assert run(["recognizers", "export", "mine", "--output", "out.onnx"]) == 0
    assert output.read_bytes() == linear_model()


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    capsys.readouterr()
    assert run(["recognizers", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split(":")[0] for line in shown.err.splitlines()] == ["error", "hint"]
    return shown.err


def test_export_refuses(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ship()
    assert "dlib's own format" in fails(capsys, 2, "export", "dlib_resnet", "-o", "out.onnx")
    assert "nobody" in fails(capsys, 6, "export", "nobody", "-o", "out.onnx")
    assert "--output" in fails(capsys, 2, "export", "student")
    assert "cannot be written" in fails(capsys, 5, "export", "student", "-o", "nowhere/out.onnx")
    card.weights.write_bytes(GOOD[:-1])
    assert "SHA-256" in fails(capsys, 6, "export", "student", "-o", "out.onnx")
    assert not output.exists()
    card.weights.write_bytes(GOOD)
    output.write_text("mine")
    assert "never replaced" in fails(capsys, 5, "export", "student", "-o", "out.onnx")
    assert output.read_text() == "mine"


def test_list_tells_what_is_shipped(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ship()
    assert run(["recognizers", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == ["student", "surrogate,", "judge", "no", "shipped", "linear", "none"]
    assert run(["recognizers", "list", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)[1]
    assert (entry["name"], entry["format"], entry["training"]["teachers"]) == (
        "student",
        "safetensors",
        ["one", "two"],
    )
    card.weights.unlink()
    assert run(["recognizers", "list"]) == 0
    assert "MISSING" in capsys.readouterr().out


def test_show_tells_everything(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ship()
    assert run(["recognizers", "show", "student"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "Roles       surrogate, judge\n",
        "RGB crops of 112x112 pixels, template arcface-112\n",
        "(pixels in 0..1 - 0.5 0.5 0.5) / 0.5 0.5 0.5\n",
        f"SHA-256     {card.sha256}\n",
        f"Weights     {card.weights}\n",
        "\nTraining\n",
        "  teachers   one, two\n",
        "  epochs     12\n",
        "Not calibrated. Before it can judge: bauta recognizers calibrate student FOLDER\n",
    ):
        assert text in shown
    entry = {
        "name": "student",
        "calibration_set": "faces of nobody",
        "calibration_sha256": "c" * 64,
        "people": 1470,
        "images": 1549,
        "impostor_pairs": 1198000,
        "date": "2026-01-31",
        "bauta": "0.1.0",
        "cosine": {"0.01": 0.21, "0.001": 0.29},
    }
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thresholds.json").write_text(json.dumps({"schema": 1, "recognizers": {card.sha256: entry}}))
    assert run(["recognizers", "show", "student"]) == 0
    shown = capsys.readouterr().out
    assert "0.001  0.2900  1,198,000       1,470\n" in shown
    assert f"Calibrated on faces of nobody (2026-01-31), SHA-256 {'c' * 64}\n" in shown
    card.weights.unlink()
    assert run(["recognizers", "show", "student"]) == 0
    assert "(MISSING)" in capsys.readouterr().out


def test_show_of_nobody(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nobody" in fails(capsys, 6, "show", "nobody")


def test_show_of_dlib_has_no_training(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recognizers", "show", "dlib_resnet"]) == 0
    shown = capsys.readouterr().out
    assert "CC0-1.0" in shown
    assert "Training\n" not in shown
