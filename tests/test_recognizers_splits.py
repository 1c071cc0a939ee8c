"""A recogniser in two halves: where it can be cut, and that the halves make the whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bauta.errors import UsageError
from bauta.recognizers.splits import CutPoint, find_cut, list_cuts, split_recognizer
from bauta.recognizers.surrogates import Surrogate, load_surrogate
from conftest import toy_surrogate
from recognizer_builders import card_of


def branching_model() -> bytes:
    """A convolution, two branches that are added, and a head: what lies on one branch alone is not a place to cut."""
    random = np.random.default_rng(0)
    constants = {
        "w": random.standard_normal((4, 3, 4, 4)).astype(np.float32),
        "u": random.standard_normal((4, 4, 3, 3)).astype(np.float32) / 4,
        "q": random.standard_normal((8, 4)).astype(np.float32),
        "two": np.array(2.0, np.float32),
        "axis": np.array([0, -1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["stem"], strides=[4, 4]),
        helper.make_node("Conv", ["stem", "u"], ["left"], pads=[1, 1, 1, 1]),
        helper.make_node("Sqrt", ["two"], ["root"]),  # needs no image, and belongs to both halves
        helper.make_node("Mul", ["stem", "root"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["joined"]),
        helper.make_node("Relu", ["joined"], ["active"]),
        helper.make_node("Mul", ["active", "root"], ["scaled"]),
        helper.make_node("GlobalAveragePool", ["scaled"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "axis"], ["flat"]),
        helper.make_node("Gemm", ["flat", "q"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "branching",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


@pytest.fixture
def branching(tmp_path: Path) -> Surrogate:
    return load_surrogate(card_of(tmp_path, branching_model()))


def crops(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def test_cuts_are_where_one_tensor_is_all_that_is_known(branching: Surrogate) -> None:
    cuts = list_cuts(branching)
    assert [(cut.name, cut.shape) for cut in cuts] == [
        ("stem", (4, 28, 28)),
        ("joined", (4, 28, 28)),
        ("active", (4, 28, 28)),
        ("scaled", (4, 28, 28)),
        ("pooled", (4, 1, 1)),
        ("flat", (4,)),
        ("template", (8,)),
    ]


def test_the_halves_make_the_whole_at_every_cut(branching: Surrogate) -> None:
    whole = branching(crops())
    for cut in list_cuts(branching):
        front, back = split_recognizer(branching, cut.name)
        feature = front(crops())
        assert tuple(feature.shape) == (3, *cut.shape)
        torch.testing.assert_close(back(feature), whole, atol=1e-6, rtol=0)


def test_a_shape_means_its_deepest_cut(branching: Surrogate) -> None:
    cuts = list_cuts(branching)
    assert find_cut(cuts, "4x28x28").name == "scaled"
    assert find_cut(cuts, "4x1x1").name == "pooled"
    assert find_cut(cuts, "template").shape == (8,)
    assert find_cut(cuts, "joined").depth == "4x28x28"
    maps = [CutPoint("a", (8, 28, 28)), CutPoint("b", (64, 14, 14)), CutPoint("c", (16, 14, 14))]
    maps += [CutPoint("d", (16, 14, 14)), CutPoint("e", (8, 7, 7)), CutPoint("f", (14,)), CutPoint("template", (4,))]
    assert [find_cut(maps, size).name for size in ("14x14", "15x9", "7x7", "2x2")] == ["d", "a", "e", "e"]
    with pytest.raises(UsageError, match="29x29"):
        find_cut(maps, "29x29")


@pytest.mark.parametrize("split", ["4x27x27", "left", "y", "8", ""])
def test_what_is_no_cut_is_refused_with_those_there_are(branching: Surrogate, split: str) -> None:
    with pytest.raises(UsageError, match="cannot be cut") as caught:
        split_recognizer(branching, split)
    assert "4x28x28" in caught.value.hint


def test_chains_of_layers_can_be_cut() -> None:
    surrogate = toy_surrogate()
    cuts = list_cuts(surrogate)
    assert [cut.depth for cut in cuts] == ["8x27x27", "8x27x27", "16x6x6", "16x6x6", "576", "32"]
    for cut in cuts:
        front, back = split_recognizer(surrogate, cut.name)
        torch.testing.assert_close(back(front(crops())), surrogate(crops()), atol=1e-6, rtol=0)


def test_gradients_pass_both_halves(branching: Surrogate) -> None:
    front, back = split_recognizer(branching, "joined")
    images = crops(1).requires_grad_()
    feature = front(images)
    feature.retain_grad()
    back(feature).sum().backward()
    assert feature.grad is not None
    assert float(feature.grad.abs().max()) > 0
    assert images.grad is not None


def test_the_halves_share_the_weights(branching: Surrogate) -> None:
    front, _ = split_recognizer(branching, "joined")
    own = {buffer.data_ptr() for buffer in front.layers.buffers()}
    assert own <= {buffer.data_ptr() for buffer in branching.network.buffers()}


def test_features_of_another_cut_and_crops_of_another_size_are_refused(branching: Surrogate) -> None:
    front, back = split_recognizer(branching, "pooled")
    with pytest.raises(UsageError, match="at 'pooled' each has"):
        back(torch.zeros(1, 4, 28, 28))
    with pytest.raises(UsageError, match="crops of shape"):
        front(torch.zeros(1, 3, 100, 112))


def test_a_network_without_a_chain_is_refused() -> None:
    class Whole(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1)[:, :32]

    surrogate = Surrogate(toy_surrogate().card, Whole())
    with pytest.raises(UsageError, match="Whole, cannot be cut"):
        list_cuts(surrogate)


def test_dlibs_network_can_be_cut() -> None:
    pytest.importorskip("dlib")
    surrogate = load_surrogate("dlib_resnet")
    images = torch.rand(1, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    whole = surrogate(images)
    for split in ("stem", "block_7", "64x17x17", "average", "template"):
        front, back = split_recognizer(surrogate, split)
        torch.testing.assert_close(back(front(images)), whole, atol=1e-6, rtol=0)


@pytest.mark.models
@pytest.mark.skipif(not os.environ.get("BAUTA_MODELS"), reason="BAUTA_MODELS names no research recognisers")
@pytest.mark.parametrize("name", ["foamliu_mobilefacenet", "pocketnet_s128", "xiaoccer_mobilefacenet_casia"])
def test_research_recognisers_can_be_cut(name: str) -> None:
    surrogate = load_surrogate(name)
    template = surrogate.card.template
    images = torch.rand(1, 3, template.height, template.width, generator=torch.Generator().manual_seed(0))
    whole = surrogate(images)
    cuts = list_cuts(surrogate)
    assert len(cuts) > 5
    for cut in cuts[:: max(1, len(cuts) // 5)]:
        front, back = split_recognizer(surrogate, cut.name)
        torch.testing.assert_close(back(front(images)), whole, atol=1e-6, rtol=0)
