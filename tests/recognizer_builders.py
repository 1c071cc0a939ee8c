"""Small recognisers and cards for tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bauta.recognizers.cards import ROLES, RecognizerCard, parse_card
from bauta.recognizers.examination import examine
from bauta.recognizers.judges import load_judge

CARD = f"""
schema = 1
name = "mine"
architecture = "linear"
training_set = "none"
terms = "none"
source = "tests"
format = "onnx"
weights = "model.onnx"
sha256 = "{"0" * 64}"
roles = ["judge", "surrogate"]
dim = 8
colour = "RGB"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
template = "arcface-112"
"""


def linear_model(*, seed: int = 0, batch: Any = "N", poison: float = 1.0, extra: str = "", channels: int = 3) -> bytes:
    """A convolution, a pool and a linear layer: 8 numbers from an image of any size."""
    random = np.random.default_rng(seed)
    constants = {
        "w": random.standard_normal((4, channels, 5, 5)).astype(np.float32),
        "q": random.standard_normal((8, 4)).astype(np.float32) * np.float32(poison),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "q"], ["e"], transB=1),
        helper.make_node(extra or "Identity", ["e"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = proto.SerializeToString()
    return content


def card_of(folder: Path, content: bytes) -> RecognizerCard:
    """Write the model into the folder and describe it."""
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest[:8]}-model.onnx"
    path.write_bytes(content)
    text = CARD.replace("0" * 64, digest).replace("model.onnx", path.name)
    return parse_card(text, folder=folder)


class InThisProcess:
    """What `IsolatedRecognizer` does, without a process for it: seconds for each of many tests."""

    def __init__(self, card: RecognizerCard) -> None:
        self.card = card

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def examine(self) -> np.ndarray:
        return examine(self.card)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return load_judge(replace(self.card, roles=ROLES)).embed(crops)


def stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("add", "calibration"):
        monkeypatch.setattr(f"bauta.recognizers.{module}.IsolatedRecognizer", InThisProcess)
