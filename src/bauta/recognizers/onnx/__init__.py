"""ONNX recognisers: read with care, and as differentiable torch modules."""
