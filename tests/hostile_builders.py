"""Hostile networks, cards and protectors by the hundred, seeded: whoever wrote the file wants Bauta to fail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from bauta.errors import BautaError
from recognizer_builders import linear_model

BATCH, SIDE, DIM = "N", 112, 8


_PYTHONS = re.compile(
    r"\bobject at\b|\w(Error|Exception)\b|Traceback|defect|torch\.\w|dtype|array\(|ONNXRuntime|<class|datetime\."
    r"|\bNone\b|0x[0-9a-f]{6,}|\n|\w::\w|_src/|INVALID_|FAIL"
)


def require_plain(error: BautaError) -> None:
    """A message for people: one line, what to do next, and nothing of Python or of a library's inside."""
    assert error.hint, error.message
    for text in (error.message, error.hint):
        assert len(text) < 1200, text
        assert not _PYTHONS.search(text), text
    assert not re.search(r"\b(True|False)\b", error.message), error.message


# Networks


@dataclass(frozen=True)
class HostileModel:
    """One file.

    Attributes:
        name: What it tries.
        content: Its bytes.
        refused: Whether it must be; a flipped bit of a weight need not be noticed.
        still: Whether it must be refused before anything runs it.
    """

    name: str
    content: bytes
    refused: bool = True
    still: bool = False


def outside(name: str = "e", shape: tuple[int, ...] = (1,), location: str = "secret.bin") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def declared(name: str = "d", shape: tuple[int, ...] = (16384, 32768), **fields: Any) -> TensorProto:
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, **fields)


def tail(source: str) -> list[Any]:
    """From any tensor (N, 3, ...) to the eight numbers that the card promises."""
    return [
        helper.make_node("Conv", [source, "w"], ["c_"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["c_"], ["g_"]),
        helper.make_node("Flatten", ["g_"], ["f_"]),
        helper.make_node("Gemm", ["f_", "q"], ["y"], transB=1),
    ]


def model_of(nodes: list[Any], tensors: list[TensorProto] = [], **more: Any) -> ModelProto:  # noqa: B006
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((4, 3, 5, 5)).astype(np.float32), "w"),
        numpy_helper.from_array(random.standard_normal((DIM, 4)).astype(np.float32), "q"),
    ]
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [*weights, *tensors],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more)


def truth(value: bool) -> TensorProto:
    return numpy_helper.from_array(np.array(value), "t")


def branch(name: str, nodes: list[Any], tensors: list[TensorProto] = [], result: str = "r") -> GraphProto:  # noqa: B006
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)], tensors)


def plain_branch() -> GraphProto:
    return branch("plain", [helper.make_node("Identity", ["x"], ["r"])])


def under_if(inner: GraphProto, *, first: bool = True) -> ModelProto:
    branches = {"then_branch": inner, "else_branch": plain_branch()}
    if not first:
        branches = {"then_branch": plain_branch(), "else_branch": inner}
    return model_of([helper.make_node("If", ["t"], ["z"], **branches), *tail("z")], [truth(first)])


def added(tensor: TensorProto) -> GraphProto:
    """A branch that adds a tensor of its own to the image."""
    return branch("adds", [helper.make_node("Add", ["x", tensor.name], ["r"])], [tensor])


def constant_in_branch(tensor: TensorProto) -> GraphProto:
    return branch(
        "adds",
        [helper.make_node("Constant", [], ["k"], value=tensor), helper.make_node("Add", ["x", "k"], ["r"])],
    )


def loop(body_nodes: list[Any], *, trips: int | None, extra: list[TensorProto] = []) -> ModelProto:  # noqa: B006
    """A loop that carries the image as v_in to v_out."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), *body_nodes],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None),
        ],
        extra,
    )
    count = [] if trips is None else [numpy_helper.from_array(np.array(trips, np.int64), "m")]
    nodes = [helper.make_node("Loop", ["m" if count else "", "t", "x"], ["z"], body=body), *tail("z")]
    return model_of(nodes, [truth(True), *count])


def sparse(values: TensorProto, shape: tuple[int, ...], indices: TensorProto | None = None) -> ModelProto:
    model = model_of([helper.make_node("Add", ["x", values.name], ["z"]), *tail("z")])
    one = model.graph.sparse_initializer.add(dims=shape)
    one.values.CopyFrom(values)
    one.indices.CopyFrom(indices or numpy_helper.from_array(np.zeros(1, np.int64), "places"))
    return model


def in_function(nodes: list[Any]) -> ModelProto:
    model = model_of([helper.make_node("Own", ["x"], ["z"], domain="own"), *tail("z")])
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.append(helper.make_function("own", "Own", ["x"], ["r"], nodes, [helper.make_opsetid("", 17)]))
    return model


def in_training(tensor: TensorProto) -> ModelProto:
    model = model_of([*tail("x")])
    info = model.training_info.add()
    info.algorithm.CopyFrom(added(tensor))
    return model


def in_list_attribute(tensor: TensorProto) -> ModelProto:
    model = model_of([helper.make_node("Identity", ["x"], ["z"]), *tail("z")])
    attribute = model.graph.node[0].attribute.add(name="more", type=AttributeProto.TENSORS)
    attribute.tensors.append(tensor)
    return model


def nested_ifs(tensor: TensorProto, depth: int = 6) -> ModelProto:
    inner = added(tensor)
    for _ in range(depth):
        inner = branch("outer", [helper.make_node("If", ["t"], ["r"], then_branch=inner, else_branch=plain_branch())])
    return under_if(inner)


def in_scan(tensor: TensorProto) -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", tensor.name], ["u"])],
        "body",
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("u", TensorProto.FLOAT, None)],
        [tensor],
    )
    return model_of([helper.make_node("Scan", ["x"], ["z"], body=body, num_scan_inputs=1), *tail("z")])


def everywhere(name: str, make: Any) -> Iterator[tuple[str, ModelProto]]:
    """A tensor in every place where a graph can have one."""
    yield f"{name} initialiser", model_of([helper.make_node("Add", ["x", "e"], ["z"]), *tail("z")], [make("e")])
    yield f"{name} unused initialiser", model_of(tail("x"), [make("e")])
    constant = [helper.make_node("Constant", [], ["e"], value=make("e")), helper.make_node("Add", ["x", "e"], ["z"])]
    yield f"{name} constant", model_of([*constant, *tail("z")])
    yield f"{name} then", under_if(added(make("e")))
    yield f"{name} else", under_if(added(make("e")), first=False)
    yield (
        f"{name} branch that never runs",
        model_of(
            [
                helper.make_node("If", ["t"], ["z"], then_branch=added(make("e")), else_branch=plain_branch()),
                *tail("z"),
            ],
            [truth(False)],
        ),
    )
    yield f"{name} constant in a branch", under_if(constant_in_branch(make("e")))
    yield f"{name} six branches deep", nested_ifs(make("e"))
    yield f"{name} loop", loop([helper.make_node("Add", ["v_in", "e"], ["v_out"])], trips=1, extra=[make("e")])
    yield f"{name} scan", in_scan(make("e"))
    yield (
        f"{name} function",
        in_function(
            [helper.make_node("Constant", [], ["k"], value=make("k")), helper.make_node("Add", ["x", "k"], ["r"])]
        ),
    )
    yield f"{name} training information", in_training(make("e"))
    yield f"{name} list attribute", in_list_attribute(make("e"))
    yield f"{name} sparse", sparse(make("e"), (1, 3, SIDE, SIDE))
    yield (
        f"{name} sparse places",
        sparse(numpy_helper.from_array(np.ones(1, np.float32), "e"), (1, 3, SIDE, SIDE), make("places")),
    )


def still_models() -> Iterator[HostileModel]:
    """What must be refused before it is run."""
    tricks = [
        *everywhere("outside", outside),
        *everywhere("memory", lambda name: outside(name, location="*/_ORT_MEM_ADDR_/*")),
        *everywhere("declared", declared),
        *everywhere("negative", lambda name: declared(name, (-1, 4))),
        *everywhere("beyond 64 bits", lambda name: declared(name, (1 << 40, 1 << 40))),
    ]
    quiet = outside()
    quiet.ClearField("data_location")  # a reader may go by either
    tricks.append(("outside without a location", model_of(tail("x"), [quiet])))
    short = numpy_helper.from_array(np.zeros((2, 2), np.float32), "e")
    short.raw_data = short.raw_data[:-1]
    tricks.append(("a byte too few", model_of(tail("x"), [short])))
    tricks.append(("typed too few", model_of(tail("x"), [declared("e", (3,), float_data=[1.0, 2.0])])))
    words = TensorProto(name="e", data_type=TensorProto.STRING, dims=[5], string_data=[b"a"])
    tricks.append(("strings too few", model_of(tail("x"), [words])))
    tricks.append(("sparse shape", sparse(numpy_helper.from_array(np.ones(1, np.float32), "e"), (1 << 30, 1 << 30))))
    for name, shape in (("input", [1 << 40, 3, 112, 112]), ("output", [1 << 33, 1 << 33]), ("value", [-7, 8])):
        model = model_of(tail("x"))
        places = {"input": model.graph.input[0], "output": model.graph.output[0], "value": model.graph.value_info.add()}
        places[name].CopyFrom(helper.make_tensor_value_info(places[name].name or "c_", TensorProto.FLOAT, shape))
        tricks.append((f"absurd {name}", model))
    elsewhere = helper.make_node("EPContext", ["x"], ["z"], domain="com.microsoft", ep_cache_context="/etc/passwd")
    tricks.append(("another file's network", model_of([elsewhere, *tail("z")])))
    for name, model in tricks:
        yield HostileModel(name, model.SerializeToString(), still=True)
    whole = linear_model()
    unknown = whole + b"\xfa\x3f\x04evil"  # field 1023, of no version
    yield HostileModel("unknown field", unknown, still=True)
    for name, content in (
        ("empty", b""),
        ("text", b"not a network"),
        ("zeros", bytes(64)),
        ("half", whole[: len(whole) // 2]),
    ):
        yield HostileModel(name, content, still=True)
    yield HostileModel("no operators", ModelProto(ir_version=8).SerializeToString(), still=True)
    yield HostileModel("too deep", whole + too_deep(), still=True)


def too_deep(levels: int = 200) -> bytes:
    """A graph in a node's attribute, in a graph, in a node's attribute: deeper than protobuf itself writes."""

    def inside(field: int, content: bytes) -> bytes:
        size, rest = b"", len(content)
        while rest > 127:
            size, rest = size + bytes([rest & 127 | 128]), rest >> 7
        return bytes([field << 3 | 2]) + size + bytes([rest]) + content

    content = b""
    for _ in range(levels):
        content = inside(1, inside(5, inside(6, content)))  # GraphProto.node, NodeProto.attribute, AttributeProto.g
    return inside(7, content)  # ModelProto.graph


def running_models() -> Iterator[HostileModel]:
    """What is found out only by running it."""
    number = numpy_helper.from_array

    def grows(operator: str, *inputs: str, tensors: list[TensorProto], **attributes: Any) -> ModelProto:
        small = helper.make_node("ReduceMean", ["big"], ["s"], keepdims=0)
        nodes = [helper.make_node(operator, list(inputs), ["big"], **attributes), small]
        return model_of([*nodes, helper.make_node("Add", ["x", "s"], ["z"]), *tail("z")], tensors)

    huge = number(np.array([1 << 20, 1 << 14], np.int64), "size")
    yield HostileModel(
        "endless loop", loop([helper.make_node("Relu", ["v_in"], ["v_out"])], trips=None).SerializeToString()
    )
    yield HostileModel(
        "long loop", loop([helper.make_node("Relu", ["v_in"], ["v_out"])], trips=1 << 62).SerializeToString()
    )
    twice = [helper.make_node("Concat", ["v_in", "v_in"], ["v_out"], axis=0)]
    yield HostileModel("doubling", loop(twice, trips=40).SerializeToString())
    larger = number(np.array([1, 1, 1 << 10, 1 << 10], np.int64), "size")
    border = number(np.array([0] * 6 + [1 << 15, 1 << 15], np.int64), "size")
    factors = number(np.array([1, 1, 999, 999], np.float32), "scale")
    far = [number(np.float32(value), name) for name, value in (("a", 0), ("b", 1e11), ("c", 1))]
    for name, model in (
        ("filled", grows("ConstantOfShape", "size", tensors=[huge])),
        ("expanded", grows("Expand", "one", "size", tensors=[huge, number(np.ones(1, np.float32), "one")])),
        ("tiled", grows("Tile", "x", "size", tensors=[larger])),
        ("padded", grows("Pad", "x", "size", tensors=[border])),
        ("resized", grows("Resize", "x", "", "scale", tensors=[factors])),
        ("ranged", grows("Range", "a", "b", "c", tensors=far)),
    ):
        yield HostileModel(name, model.SerializeToString())
    yield HostileModel("functions of functions", laughing().SerializeToString(), refused=False)
    # Its shape is only known when it runs: cut the picture to nothing, then look at it.
    cut = [number(np.array([value], np.int64), name) for name, value in (("from", 0), ("to", 2), ("axis", 2))]
    small = [helper.make_node("Slice", ["x", "from", "to", "axis"], ["z"]), *tail("z")]
    yield HostileModel("too small", model_of(small, cut).SerializeToString())
    whole = linear_model()
    yield HostileModel("another reader's file", polyglot(), refused=False)
    for name, change in INCOHERENT.items():
        model = ModelProto.FromString(whole)
        change(model)
        yield HostileModel(name, model.SerializeToString(), refused=name not in HARMLESS)


def laughing(depth: int = 22) -> ModelProto:
    """Each function calls the one before twice: whoever inlines them has millions of nodes."""
    model = model_of([helper.make_node(f"F{depth}", ["x"], ["z"], domain="own"), *tail("z")])
    model.opset_import.append(helper.make_opsetid("own", 1))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(depth + 1):
        call = [("Relu", ""), ("Relu", "")] if level == 0 else [(f"F{level - 1}", "own")] * 2
        nodes = [
            helper.make_node(call[0][0], ["x"], ["h"], domain=call[0][1]),
            helper.make_node(call[1][0], ["h"], ["r"], domain=call[1][1]),
        ]
        model.functions.append(helper.make_function("own", f"F{level}", ["x"], ["r"], nodes, imports))
    return model


def polyglot() -> bytes:
    """Valid ONNX whose bytes 4 to 8 are the mark of ONNX Runtime's own format, which names files too."""
    model = ModelProto.FromString(linear_model())
    model.ir_version = 8
    model.producer_name = "ORTM" + "x" * 40
    content = model.SerializeToString()
    assert content[4:8] == b"ORTM"
    return content


def _node(position: int, **fields: Any) -> Any:
    def change(model: ModelProto) -> None:
        node = model.graph.node[position]
        for name, value in fields.items():
            if isinstance(value, list):
                del getattr(node, name)[:]
                getattr(node, name).extend(value)
            else:
                setattr(node, name, value)

    return change


def _drop(path: str) -> Any:
    return lambda model: model.graph.ClearField(path)


def _retype(kind: int) -> Any:
    def change(model: ModelProto) -> None:
        model.graph.initializer[0].data_type = kind

    return change


def _opset(version: int) -> Any:
    def change(model: ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def _attribute(position: int, **values: Any) -> Any:
    def change(model: ModelProto) -> None:
        node = model.graph.node[position]
        kept = [one for one in node.attribute if one.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in values.items())])

    return change


def _shape(*sizes: int) -> Any:
    def change(model: ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(sizes)

    return change


def _twice(model: ModelProto) -> None:
    model.graph.output.append(model.graph.output[0])


def _image_twice(model: ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


INCOHERENT: dict[str, Any] = {
    "input that is not there": _node(1, input=["nowhere"]),
    "no inputs": _node(0, input=[]),
    "one input of two": _node(0, input=["x"]),
    "empty input": _node(0, input=["", "w"]),
    "no outputs": _node(2, output=[]),
    "empty output": _node(2, output=[""]),
    "circle": _node(1, input=["y"]),
    "reads itself": _node(1, input=["r"]),
    "same output twice": _node(1, output=["c"]),
    "hides the image": _node(1, output=["x"]),
    "unknown operator": _node(1, op_type="Frobnicate"),
    "no operator": _node(1, op_type=""),
    "operator of Python's": _node(1, op_type="__class__"),
    "unknown set": _node(1, domain="evil.example"),
    "string of letters": _node(1, op_type="Relu\x1b[31m"),
    "loop without a body": _node(1, op_type="Loop"),
    "if without branches": _node(1, op_type="If"),
    "constant without a value": _node(1, op_type="Constant", input=[]),
    "no graph inputs": _drop("input"),
    "no graph outputs": _drop("output"),
    "no weights": _drop("initializer"),
    "two outputs": _twice,
    "two images": _image_twice,
    "weights as text": _retype(TensorProto.STRING),
    "weights as complex numbers": _retype(TensorProto.COMPLEX128),
    "weights as whole numbers": _retype(TensorProto.INT32),
    "weights of type 99": _retype(99),
    "weights of four bits": _retype(TensorProto.INT4),
    "old operators": _opset(1),
    "operators of the future": _opset(1 << 40),
    "negative operators": _opset(-5),
    "strides of zero": _attribute(0, strides=[0, 0]),
    "negative strides": _attribute(0, strides=[-1, -1]),
    "huge strides": _attribute(0, strides=[1 << 40, 1 << 40]),
    "one stride": _attribute(0, strides=[4]),
    "strides as text": _attribute(0, strides="four"),
    "strides as a graph": _attribute(0, strides=plain_branch()),
    "huge pads": _attribute(0, strides=[4, 4], pads=[1 << 20] * 4),
    "negative pads": _attribute(0, strides=[4, 4], pads=[-500] * 4),
    "no groups": _attribute(0, strides=[4, 4], group=0),
    "too many groups": _attribute(0, strides=[4, 4], group=1 << 30),
    "unknown attribute": _attribute(1, evil=[1, 2, 3]),
    "transposed by text": _attribute(4, transB="yes"),
    "scaled by NaN": _attribute(4, transB=1, alpha=float("nan")),
    "flattened elsewhere": _attribute(3, axis=99),
    "weights of no channel": _shape(0, 3, 5, 5),
    "weights of another rank": _shape(300),
    "weights of other channels": _shape(3, 4, 5, 5),
}  # fmt: skip
# What an engine may read as its author meant it.
HARMLESS = frozenset({"unknown attribute", "huge strides"})


def mutated_models(count: int, seed: int = 0) -> Iterator[HostileModel]:
    """A sound network with bytes changed, cut out, or doubled."""
    random = np.random.default_rng(seed)
    whole = linear_model()
    graph_end = whole.index(b"linear")  # what is before the weights
    for number in range(count):
        content = bytearray(whole)
        kind = number % 4
        # Most of the file is weights, of which any number is as good as another: look elsewhere half of the times.
        place = int(random.integers(graph_end if number % 2 else len(content)))
        if kind == 0:
            for _ in range(int(random.integers(1, 5))):
                content[int(random.integers(max(1, place), len(content) + 1)) - 1] ^= 1 << int(random.integers(8))
        elif kind == 1:
            content[place] ^= int(random.integers(1, 256))
        elif kind == 2:
            del content[place : place + int(random.integers(1, 40))]
        else:
            content[place:place] = content[place : place + int(random.integers(1, 40))]
        yield HostileModel(f"mutant {number}", bytes(content), refused=False)


# Cards

WRONG = {
    "true": "true", "zero": "0", "minus one": "-1", "fraction": "1.5", "inf": "inf", "minus inf": "-inf", "nan": "nan",
    "1e400": "1e400", "10^30": "1" + "0" * 30, "10^400": "1" + "0" * 400, "10^5000": "1" + "0" * 5000,
    "hexadecimal": "0x" + "f" * 2000, "empty": '""', "long": json.dumps("x" * 5000), "control": r'"a\u001b[31mb"',
    "unseen": r'"a\u202eb"', "two lines": r'"a\nb"', "list": "[]", "nested": "[[[1]]]", "mixed": '[1, "a", true]',
    "table": "{}", "tables": "{ a = { b = { c = 1 } } }", "date": "2020-01-01", "time": "07:32:00",
    "moment": "1979-05-27T07:32:00Z", "deep": "[" * 2000 + "]" * 2000, "many": "[" + "0," * 9000 + "]",
    "of text": '["a", "b", "c"]', "of infinities": "[inf, nan, -inf]", "path": '"../../../etc/passwd"',
    "nul": r'"a\u0000b"', "device": '"NUL"', "dot": '"name."', "script": '"javascript:alert(1)"',
}  # fmt: skip


def wrong_cards(card: str) -> Iterator[tuple[str, str]]:
    """A sound card with one thing wrong at a time: each field of each wrong kind, missing, twice; and others."""
    lines = [line for line in card.splitlines() if " = " in line]
    for line in lines:
        field = line.partition(" = ")[0]
        rest = [other for other in lines if other is not line]
        for name, value in WRONG.items():
            yield f"{field} {name}", "\n".join([*rest[:3], f"{field} = {value}", *rest[3:]])
        yield f"{field} missing", "\n".join(rest)
        yield f"{field} twice", "\n".join([*lines, line])
        yield f"{field} as a table", "\n".join([*rest, f"[{field}]", "a = 1"])
    for name, value in WRONG.items():
        yield f"extra {name}", "\n".join([*lines, f"evil = {value}"])
        yield f"table {name}", "\n".join([*lines, "[evil]", f"a = {value}"])


def mutated_texts(text: str, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """The text with bytes changed, cut out or doubled."""
    random = np.random.default_rng(seed)
    for number in range(count):
        content = bytearray(text.encode())
        place = int(random.integers(len(content)))
        if number % 3 == 0:
            content[place] = int(random.integers(256))
        elif number % 3 == 1:
            del content[place : place + int(random.integers(1, 30))]
        else:
            content[place:place] = content[place : place + int(random.integers(1, 30))]
        yield f"mutant {number}", bytes(content)
