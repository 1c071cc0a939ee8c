"""Reading an ONNX file with care. This module knows no torch."""

from __future__ import annotations

import onnx

from bauta.errors import UnsupportedOperator, WeightsCorrupt

OLDEST_OPSET = 7


def parse_graph(model: bytes) -> tuple[onnx.GraphProto, int]:
    """The graph and the version of its operator set.

    Raises:
        WeightsCorrupt: when the bytes are no ONNX model, or keep weights in other files.
        UnsupportedOperator: when the operator set is older than 7.
    """
    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf's own error classes are not public
        raise WeightsCorrupt(f"Not an ONNX file: {error}", hint="Fetch the file again.") from error
    if not proto.graph.node:
        raise WeightsCorrupt("Not an ONNX file: it has no operators.", hint="Fetch the file again.")
    tensors = [*proto.graph.initializer, *(a.t for node in proto.graph.node for a in node.attribute)]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise WeightsCorrupt(
            "The ONNX file keeps its weights in other files.",
            hint="Save it as one file (onnx.save with save_as_external_data=False).",
        )
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    opset = max(versions, default=0)
    if opset < OLDEST_OPSET:
        raise UnsupportedOperator(
            f"ONNX operator set {opset} is too old.",
            hint=f"Export with operator set {OLDEST_OPSET} or later.",
        )
    return proto.graph, opset
