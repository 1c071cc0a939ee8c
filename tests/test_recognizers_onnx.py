"""The ONNX importer against ONNX Runtime: every operator, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bauta.errors import UnsupportedOperator, WeightsCorrupt
from bauta.recognizers.onnx.module import ImportedNetwork
from bauta.recognizers.onnx.operators import BUILDERS

IMAGE = (3, 4, 9, 8)  # batch, channels, height, width
random = np.random.default_rng(7)


def model(
    nodes: list[Any], constants: dict[str, Any], *, shape: Any = IMAGE, opset: int = 17, outputs: int = 1
) -> bytes:
    """A graph from 'x' to 'y' (and 'y1', ...); the batch is free."""
    names = ["y", *(f"y{index}" for index in range(1, outputs))]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape[1:]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return proto.SerializeToString()


def weights(*shape: int) -> Any:
    return random.standard_normal(shape).astype(np.float32)


def integers(*values: int) -> Any:
    return np.array(values, np.int64)


def node(operator: str, *inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), [output], name=f"{operator}_to_{output}", **attributes)


def check(content: bytes, *, shape: Any = IMAGE, positive: bool = False) -> None:
    """Values equal ONNX Runtime's for two batch sizes, and gradients are finite."""
    network = ImportedNetwork(content)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    for batch in (shape[0], 1):
        x = random.uniform(0.1 if positive else -3, 3, (batch, *shape[1:])).astype(np.float32)
        expected = session.run(None, {"x": x})
        image = torch.from_numpy(x).requires_grad_()
        found = network.outputs(image)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            for ours, theirs in zip(network.outputs(image), expected, strict=True):
                np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4)
        (gradient,) = torch.autograd.grad(sum(y.sum() for y in found), image, allow_unused=True)
        assert gradient is None or gradient.isfinite().all()


# name -> (nodes, constants, options)
SIMPLE: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {}


def case(name: str, nodes: Any, constants: dict[str, Any] | None = None, **options: Any) -> None:
    assert name not in SIMPLE
    SIMPLE[name] = (nodes if isinstance(nodes, list) else [nodes], constants or {}, options)


for operator in (
    "Abs",
    "Cos",
    "Elu",
    "Erf",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Neg",
    "Relu",
):
    case(operator, node(operator, "x"))
for operator in (
    "Sigmoid",
    "Sin",
    "Softplus",
    "Tanh",
    "Exp",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Flatten",
):
    case(operator, node(operator, "x"))
for operator in ("Log", "Sqrt", "Reciprocal"):
    case(operator, node(operator, "x"), positive=True)
for operator in ("Add", "Sub", "Mul", "Div", "Min", "Max"):
    case(operator, node(operator, "x", "c"), {"c": weights(4, 1, 1)})
    case(f"{operator} constant first", node(operator, "c", "x"), {"c": weights(1)}, positive=True)
for operator in ("Min", "Max"):
    case(f"{operator} of three", node(operator, "x", "c", "d"), {"c": weights(4, 1, 1), "d": weights(8)})
case("Pow", node("Pow", "x", "c"), {"c": np.float32(1.7)}, positive=True)
case("Gelu", node("Gelu", "x"), opset=20)
case("Gelu tanh", node("Gelu", "x", approximate="tanh"), opset=20)
case("Elu alpha", node("Elu", "x", alpha=0.3))
case("LeakyRelu alpha", node("LeakyRelu", "x", alpha=0.3))
case("HardSigmoid alpha", node("HardSigmoid", "x", alpha=0.4, beta=0.3))
case("Clip", node("Clip", "x", "lo", "hi"), {"lo": np.float32(-1), "hi": np.float32(0.5)})
case("Clip below", node("Clip", "x", "lo"), {"lo": np.float32(0)})
case("Clip above", node("Clip", "x", "", "hi"), {"hi": np.float32(1)})
case("Clip not at all", node("Clip", "x"))
case("Clip 6", node("Clip", "x", min=-0.5, max=1.5), opset=6 + 4)
case("Clip NaN", node("Clip", "x", "lo", "hi"), {"lo": np.float32(0), "hi": np.float32(np.nan)})
case(
    "Clip twice",
    [node("Clip", "x", "lo", output="a"), node("Clip", "a", "", "hi")],
    {"lo": np.float32(-1), "hi": np.float32(0.5)},
)
case(
    "Clip used twice",
    [node("Clip", "x", "lo", output="a"), node("Clip", "a", "", "hi", output="b"), node("Add", "a", "b")],
    {"lo": np.float32(-1), "hi": np.float32(0.5)},
)
case("PRelu", node("PRelu", "x", "s"), {"s": weights(4, 1, 1)})
case("PRelu of a batch", node("PRelu", "x", "s"), {"s": weights(1, 4, 1, 1)})
case("PRelu shared", node("PRelu", "x", "s"), {"s": weights(1)})
case("PRelu everywhere", node("PRelu", "x", "s"), {"s": weights(4, 9, 8)})
case("Dropout", node("Dropout", "x"))
case("Dropout ratio", node("Dropout", "x", "r"), {"r": np.float32(0.9)})
case("Conv", node("Conv", "x", "w", "b"), {"w": weights(6, 4, 3, 3), "b": weights(6)})
case("Conv 1x1", node("Conv", "x", "w", "b"), {"w": weights(6, 4, 1, 1), "b": weights(6)})
case("Conv 1x1 padded", node("Conv", "x", "w", pads=[1, 1, 1, 1]), {"w": weights(6, 4, 1, 1)})
case("Conv strides", node("Conv", "x", "w", strides=[2, 3], pads=[1, 2, 1, 2]), {"w": weights(6, 4, 3, 5)})
case(
    "Conv uneven pads",
    node("Conv", "x", "w", "b", pads=[0, 1, 2, 3]),
    {"w": weights(6, 4, 3, 3), "b": weights(6)},
)
case("Conv groups", node("Conv", "x", "w", group=2, dilations=[2, 1]), {"w": weights(6, 2, 3, 3)})
case("Conv depthwise", node("Conv", "x", "w", group=4, pads=[1] * 4), {"w": weights(4, 1, 3, 3)})
case("Conv depthwise 1x1", node("Conv", "x", "w", "b", group=4), {"w": weights(4, 1, 1, 1), "b": weights(4)})
case("Conv depthwise 1x1 stride", node("Conv", "x", "w", group=4, strides=[2, 2]), {"w": weights(4, 1, 1, 1)})
for automatic in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    case(
        f"Conv {automatic}",
        node("Conv", "x", "w", auto_pad=automatic, strides=[2, 2]),
        {"w": weights(5, 4, 4, 3)},
    )
case(
    "Conv scaled then mixed",
    [
        node("Conv", "x", "w1", "b1", group=4, strides=[2, 2], output="a"),
        node("Conv", "a", "w2", "b2", kernel_shape=[1, 1]),
    ],
    {"w1": weights(4, 1, 1, 1), "b1": weights(4), "w2": weights(5, 4, 1, 1), "b2": weights(5)},
)
case(
    "Conv of another image",
    [node("Conv", "w", "x", output="a"), node("Flatten", "a")],
    {"w": weights(1, 4, 12, 12)},
    shape=(2, 4, 3, 3),
)
case("Conv 1D", node("Conv", "x", "w", pads=[1, 1]), {"w": weights(6, 4, 3)}, shape=(2, 4, 10))
case("Conv 3D", node("Conv", "x", "w"), {"w": weights(2, 4, 3, 3, 3)}, shape=(2, 4, 5, 5, 5))

BATCH_NORM = {"g": weights(4), "h": weights(4), "m": weights(4), "v": np.abs(weights(4)) + 0.1}
case("BatchNormalization", node("BatchNormalization", "x", "g", "h", "m", "v", epsilon=1e-3), BATCH_NORM)
case(
    "BatchNormalization folded",
    [node("Conv", "x", "w", output="a"), node("BatchNormalization", "a", "g", "h", "m", "v", momentum=0.8)],
    {"w": weights(4, 4, 3, 3), **BATCH_NORM},
)
case(
    "BatchNormalization not folded",
    [
        node("Conv", "x", "w", "b", output="a"),
        node("BatchNormalization", "a", "g", "h", "m", "v", output="n"),
        node("Add", "a", "n"),
    ],
    {"w": weights(4, 4, 3, 3), "b": weights(4), **BATCH_NORM},
)
case("LayerNormalization", node("LayerNormalization", "x", "g", "h"), {"g": weights(8), "h": weights(8)})
case(
    "LayerNormalization axis",
    node("LayerNormalization", "x", "g", axis=2, epsilon=1e-3),
    {"g": weights(9, 8)},
)
case("InstanceNormalization", node("InstanceNormalization", "x", "g", "h"), {"g": weights(4), "h": weights(4)})
case("Softmax", node("Softmax", "x"))
case("Softmax axis", node("Softmax", "x", axis=1))
case("Softmax 11", node("Softmax", "x", axis=2), opset=11)
case(
    "Gemm",
    [node("Flatten", "x", output="f"), node("Gemm", "f", "w", "b", transB=1)],
    {"w": weights(5, 288), "b": weights(5)},
)
case("Gemm plain", [node("Flatten", "x", output="f"), node("Gemm", "f", "w")], {"w": weights(288, 5) / 9})
case(
    "Gemm alpha",
    [node("Flatten", "x", output="f"), node("Gemm", "w", "f", "b", transB=1, alpha=0.3, beta=0.7)],
    {"w": weights(5, 288), "b": weights(5, 1)},
)
case(
    "Gemm transposed",
    [node("Flatten", "x", output="f"), node("Gemm", "f", "w", transA=1)],
    {"w": weights(1, 4)},
    shape=(1, 4, 9, 8),
)
case("MatMul", node("MatMul", "x", "w"), {"w": weights(8, 5)})
case("Flatten 0", node("Flatten", "x", axis=0))
case("Flatten 2", node("Flatten", "x", axis=2))
case("Flatten -1", node("Flatten", "x", axis=-1))
case("Reshape", node("Reshape", "x", "s"), {"s": integers(0, 2, -1)})
case("Squeeze", node("Squeeze", "x", "a"), {"a": integers(2)}, shape=(3, 4, 1, 5))
case(
    "Squeeze all",
    [node("Flatten", "x", output="f"), node("Unsqueeze", "f", "a", output="u"), node("Squeeze", "u")],
    {"a": integers(0, 3)},
    shape=(2, 4, 1, 5),
)
case("Squeeze 11", node("Squeeze", "x", axes=[2]), shape=(3, 4, 1, 5), opset=11)
case("Unsqueeze", node("Unsqueeze", "x", "a"), {"a": integers(1, -1)})
case("Unsqueeze 11", node("Unsqueeze", "x", axes=[0]), opset=11)
case(
    "Slice",
    node("Slice", "x", "s", "e", "a"),
    {"s": integers(1, -3), "e": integers(3, 2**40), "a": integers(1, 3)},
)
case(
    "Slice steps",
    node("Slice", "x", "s", "e", "a", "t"),
    {"s": integers(1, -1), "e": integers(9, -(2**40)), "a": integers(2, -1), "t": integers(2, -2)},
)
case("Slice 9", node("Slice", "x", starts=[1], ends=[3], axes=[2]), opset=9)
case("Split", [helper.make_node("Split", ["x", "l"], ["y", "y1"], axis=1)], {"l": integers(1, 3)}, outputs=2)
case("Split even", [helper.make_node("Split", ["x"], ["y", "y1", "y2"], axis=2)], outputs=3)
case("Split 18", [helper.make_node("Split", ["x"], ["y", "y1"], axis=2, num_outputs=2)], outputs=2, opset=18)
case("Transpose", node("Transpose", "x", perm=[0, 2, 3, 1]))
case("Transpose default", node("Transpose", "x"))
case("Concat", node("Concat", "x", "x", axis=-1))
case("Gather", node("Gather", "x", "i", axis=2), {"i": np.array([[0, -1], [3, 2]])})
case("Gather one", node("Gather", "x", "i", axis=1), {"i": np.int64(-2)})
case("Expand", node("Expand", "x", "s"), {"s": integers(2, 1, 4, 1, 1)})
case(
    "Where",
    [node("Equal", "k", "l", output="e"), node("Where", "e", "x", "c")],
    {"k": integers(1, 2, 3, 4, 5, 6, 7, 8), "l": integers(1, 0, 3, 0, 5, 0, 0, 8), "c": weights(8)},
)
case("Cast", [node("Cast", "i", to=TensorProto.FLOAT, output="f"), node("Mul", "x", "f")], {"i": integers(3)})
case(
    "shape arithmetic",
    [
        node("Shape", "x", output="s"),
        node("Gather", "s", "zero", output="n"),
        node("Unsqueeze", "n", "axis", output="n1"),
        node("Constant", value=numpy_helper.from_array(integers(-1)), output="rest"),
        node("Concat", "n1", "rest", axis=0, output="target"),
        node("Reshape", "x", "target"),
    ],
    {"zero": np.int64(0), "axis": integers(0)},
)
case(
    "positions",
    [
        node("Shape", "x", start=3, output="w1"),
        node("Squeeze", "w1", output="w"),
        node("Range", "zero", "w", "one", output="r"),
        node("Cast", "r", to=TensorProto.FLOAT, output="f"),
        node("Sin", "f", output="sin"),
        node("ConstantOfShape", "w1", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.25]), output="c"),
        node("Mul", "sin", "c", output="p"),
        node("Div", "w", "two", output="half"),
        node("Cast", "half", to=TensorProto.FLOAT, output="h"),
        node("Add", "p", "h", output="q"),
        node("Add", "x", "q"),
    ],
    {"zero": np.int64(0), "one": np.int64(1), "two": np.int64(3)},
)
case(
    "ConstantOfShape",
    [node("ConstantOfShape", "s", output="c"), node("Add", "x", "c")],
    {"s": integers(4, 1, 1)},
)
case("Constant floats", [node("Constant", value_floats=[1.5], output="c"), node("Add", "x", "c")])
case("Constant ints", [node("Constant", value_ints=[0, -1], output="c"), node("Reshape", "x", "c")])
case("ReduceMean", node("ReduceMean", "x", axes=[2, 3], keepdims=0))
case("ReduceMean 18", node("ReduceMean", "x", "a"), {"a": integers(1, -1)}, opset=18)
case("ReduceMean all", node("ReduceMean", "x"))
case("ReduceSum", node("ReduceSum", "x", "a", keepdims=0), {"a": integers(1)})
case("ReduceSum nothing", node("ReduceSum", "x", noop_with_empty_axes=1))
case("ReduceL2", node("ReduceL2", "x", axes=[-1]))
case("ReduceMax", node("ReduceMax", "x", axes=[1, 2]))
case("MaxPool", node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))
case("MaxPool uneven", node("MaxPool", "x", kernel_shape=[2, 3], strides=[2, 2], pads=[0, 1, 1, 2]))
case("MaxPool ceil", node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1))
case("MaxPool SAME", node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"))
case("MaxPool 1D", node("MaxPool", "x", kernel_shape=[3]), shape=(2, 4, 10))
case("AveragePool", node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))
case("AveragePool uneven", node("AveragePool", "x", kernel_shape=[3, 2], pads=[0, 1, 2, 0]))
case(
    "AveragePool counts pads",
    node("AveragePool", "x", kernel_shape=[3, 2], pads=[0, 1, 2, 0], count_include_pad=1),
)
case("Pad", node("Pad", "x", "p", "v"), {"p": integers(0, 0, 1, 2, 0, 0, 3, 0), "v": np.float32(0.5)})
case("Pad negative", node("Pad", "x", "p"), {"p": integers(0, 0, -1, 2, 0, 0, 0, -2)})
case("Pad axes", node("Pad", "x", "p", "", "a"), {"p": integers(1, 2), "a": integers(3)}, opset=18)
case("Pad 10", node("Pad", "x", pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="constant", value=0.5), opset=10)
for mode in ("reflect", "edge"):
    case(f"Pad {mode}", node("Pad", "x", "p", mode=mode), {"p": integers(0, 1, 1, 2, 0, 0, 3, 0)})
for mode in ("nearest", "linear"):
    case(
        f"Resize {mode} axes",
        node("Resize", "x", "", "s", mode=mode, axes=[-2, -1]),
        {"s": np.array([1.5, 2], np.float32)},
        opset=18,
    )
    for convention in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"):
        case(
            f"Resize {mode} {convention}",
            node("Resize", "x", "", "scale", mode=mode, coordinate_transformation_mode=convention),
            {"scale": np.array([1, 1, 1.5, 0.7], np.float32)},
        )
for rounding in ("floor", "ceil", "round_prefer_ceil"):
    case(
        f"Resize {rounding}",
        node("Resize", "x", "", "s", mode="nearest", nearest_mode=rounding),
        {"s": np.array([1, 1, 2, 1.5], np.float32)},
    )
case(
    "Resize to a size",
    node("Resize", "x", "", "", "size", mode="nearest"),
    {"size": integers(1, 4, 13, 5)},
    shape=(1, 4, 9, 8),
)
case("Resize 10", node("Resize", "x", "s", mode="nearest"), {"s": np.array([1, 1, 2, 2], np.float32)}, opset=10)
case("Upsample", node("Upsample", "x", "s", mode="nearest"), {"s": np.array([1, 1, 2, 3], np.float32)}, opset=9)
case("Upsample 7", node("Upsample", "x", scales=[1.0, 1.0, 2.0, 2.0], mode="linear"), opset=7)


@pytest.mark.parametrize("name", SIMPLE)
def test_operator_equals_onnx_runtime(name: str) -> None:
    nodes, constants, options = SIMPLE[name]
    shape = options.get("shape", IMAGE)
    content = model(nodes, constants, shape=shape, opset=options.get("opset", 17), outputs=options.get("outputs", 1))
    check(content, shape=shape, positive=options.get("positive", False))


def test_every_operator_of_the_table_is_tested() -> None:
    tested = {entry.op_type for nodes, _, _ in SIMPLE.values() for entry in nodes}
    assert set(BUILDERS) <= tested


def small_network() -> bytes:
    return model(
        [
            node("Conv", "x", "w", "b", pads=[1] * 4, strides=[2, 2], output="a"),
            node("PRelu", "a", "s", output="p"),
            node("Conv", "p", "v", group=6, output="d"),
            node("Sigmoid", "d", output="g"),
            node("Mul", "d", "g", output="m"),
            node("LayerNormalization", "m", "k", axis=1, output="n"),
            node("Flatten", "n", output="f"),
            node("Gemm", "f", "q", transB=1),
        ],
        {
            "w": weights(6, 4, 3, 3),
            "b": weights(6),
            "s": np.abs(weights(6, 1, 1)),
            "v": weights(6, 1, 3, 3),
            "k": weights(6, 3, 2),
            "q": weights(5, 36),
        },
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resizing_computes_where_the_image_is(mode: str) -> None:
    nodes, constants, _ = SIMPLE[f"Resize {mode} half_pixel"]
    network = ImportedNetwork(model(nodes, constants))
    made: list[str] = []
    select = torch.Tensor.index_select

    def watch(image: torch.Tensor, axis: int, index: torch.Tensor) -> torch.Tensor:
        made.append(index.device.type)
        return select(image, axis, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "index_select", watch)
        network(torch.zeros(IMAGE, device="meta"))
    assert set(made) == {"meta"}


def test_gradients_are_those_of_the_function() -> None:
    network = ImportedNetwork(small_network()).double()
    image = torch.randn(2, *IMAGE[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(network, image.requires_grad_())


@pytest.mark.parametrize("name", ["PRelu", "Clip", "Resize linear half_pixel", "Pad reflect", "AveragePool uneven"])
def test_gradients_of_single_operators(name: str) -> None:
    nodes, constants, _ = SIMPLE[name]
    network = ImportedNetwork(model(nodes, constants)).double()
    image = torch.randn(1, *IMAGE[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(network, image.requires_grad_())


def test_function_transforms_pass_through() -> None:
    network = ImportedNetwork(small_network())
    images = torch.randn(3, 2, *IMAGE[1:])
    mapped = torch.func.vmap(network)(images)
    torch.testing.assert_close(mapped, torch.stack([network(image) for image in images]))
    output, pullback = torch.func.vjp(network, images[0])
    vectors = torch.randn(4, *output.shape)
    (together,) = torch.func.vmap(pullback)(vectors)
    torch.testing.assert_close(together, torch.stack([pullback(vector)[0] for vector in vectors]))


def test_backward_works_after_planning_in_inference_mode() -> None:
    network = ImportedNetwork(small_network())
    with torch.inference_mode():
        network(torch.zeros(2, *IMAGE[1:]))
    image = torch.zeros(2, *IMAGE[1:], requires_grad=True)
    network(image).sum().backward()
    assert image.grad is not None


def test_many_batch_sizes_do_not_pile_up_plans() -> None:
    network = ImportedNetwork(small_network())
    for batch in range(1, 40):
        assert network(torch.zeros(batch, *IMAGE[1:])).shape == (batch, 5)
    assert len(network._plans) <= 16


def test_weights_are_frozen_buffers() -> None:
    network = ImportedNetwork(small_network())
    assert not list(network.parameters())
    assert all(not buffer.requires_grad for buffer in network.buffers())


def test_batch_normalization_disappears_into_the_convolution() -> None:
    nodes, constants, _ = SIMPLE["BatchNormalization folded"]
    assert len(ImportedNetwork(model(nodes, constants))._operations) == 1


def test_an_unused_first_output_is_skipped() -> None:  # ONNX Runtime crashes on this graph
    network = ImportedNetwork(model([helper.make_node("Split", ["x"], ["", "y"], axis=3)], {}))
    image = torch.randn(IMAGE)
    assert torch.equal(network(image), image[..., 4:])


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "operator": (node("Det", "x"), {}, "Det"),
    "attribute": (node("MaxPool", "x", kernel_shape=[2, 2], auto_pad="ODD"), {}, "auto_pad"),
    "cubic": (node("Resize", "x", "", "s", mode="cubic"), {"s": np.ones(4, np.float32) * 2}, "cubic"),
    "convention": (
        node("Resize", "x", "", "s", coordinate_transformation_mode="tf_crop_and_resize"),
        {"s": np.ones(4, np.float32) * 2},
        "tf_crop_and_resize",
    ),
    "training": (
        node("BatchNormalization", "x", "g", "h", "m", "v", training_mode=1),
        BATCH_NORM,
        "training_mode",
    ),
    "unknown attribute": (node("Relu", "x", sharpness=3), {}, "sharpness"),
    "computed shape": (
        [node("Cast", "x", to=TensorProto.INT64, output="s"), node("Reshape", "x", "s")],
        {},
        "computed from the image",
    ),
    "cast to text": (node("Cast", "x", to=TensorProto.STRING), {}, "element type"),
    "pool ceil": (node("AveragePool", "x", kernel_shape=[2, 2], ceil_mode=1), {}, "ceil_mode"),
    "mask of dropout": ([helper.make_node("Dropout", ["x"], ["", "y"], name="Dropout_to_y")], {}, "output 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_operator_and_node(name: str) -> None:
    nodes, constants, word = REFUSED[name]
    nodes = nodes if isinstance(nodes, list) else [nodes]
    with pytest.raises(UnsupportedOperator, match=word) as caught:
        ImportedNetwork(model(nodes, constants))(torch.zeros(IMAGE))
    assert nodes[-1].op_type in str(caught.value)
    assert nodes[-1].name in str(caught.value)


def test_foreign_operator_sets_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"com\.microsoft"):
        ImportedNetwork(model([node("FusedConv", "x", domain="com.microsoft")], {}))


def test_old_operator_sets_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="operator set 6"):
        ImportedNetwork(model([node("Relu", "x")], {}, opset=6))


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08" * 50])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(WeightsCorrupt):
        ImportedNetwork(content)


def test_truncated_file_is_refused() -> None:
    with pytest.raises(WeightsCorrupt):
        ImportedNetwork(small_network()[:-100])


def test_external_weights_are_refused() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 1, 1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    graph = helper.make_graph(
        [node("Add", "x", "w")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    with pytest.raises(WeightsCorrupt, match="another file"):
        ImportedNetwork(content)


def test_several_outputs_are_no_recogniser() -> None:
    network = ImportedNetwork(model([helper.make_node("Split", ["x"], ["y", "y1"], axis=2, name="s")], {}, outputs=2))
    with pytest.raises(WeightsCorrupt, match="2 outputs"):
        network(torch.zeros(1, 4, 8, 8))


def test_shape_the_graph_does_not_allow_is_told() -> None:
    network = ImportedNetwork(model([node("Reshape", "x", "s")], {"s": integers(1, 288)}))
    assert network(torch.zeros(1, *IMAGE[1:])).shape == (1, 288)
    with pytest.raises(UnsupportedOperator, match="Reshape_to_y"):
        network(torch.zeros(2, *IMAGE[1:]))


def test_two_inputs_are_refused() -> None:
    graph = helper.make_graph(
        [node("Add", "x", "z")],
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, IMAGE) for name in "xz"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    with pytest.raises(WeightsCorrupt, match="2 inputs"):
        ImportedNetwork(content)
