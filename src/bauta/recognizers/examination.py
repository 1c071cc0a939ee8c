"""What a network must pass before it is kept: it is what its card says, and both engines agree about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bauta.errors import NumericalFailure, UnsupportedOperator, WeightsCorrupt
from bauta.recognizers.cards import ROLES, RecognizerCard, read_weights
from bauta.tables import shown

TOLERANCE = 1e-4  # largest difference between the importer's and ONNX Runtime's unit-norm embeddings


def examine(card: RecognizerCard) -> NDArray[np.float32]:
    """Run an ONNX network on probes; a foreign one in a process of its own, see `bauta.recognizers.isolation`.

    Args:
        card: Its card; the weights are read from where it says.

    Returns:
        (3, dim) unit-norm embeddings of `probes`.

    Raises:
        WeightsMissing: when the weights cannot be read.
        WeightsCorrupt: when it is not such a network.
        UsageError: when it answers with other shapes than the card says.
        UnsupportedOperator: when a surrogate's graph cannot be imported exactly.
        NumericalFailure: when the network answers with NaN or infinity.
    """
    from bauta.recognizers.judges import load_judge

    check_graph(read_weights(card), card)
    crops = probes(card)
    expected = load_judge(replace(card, roles=ROLES)).embed(crops)
    if "surrogate" in card.roles:
        _check_surrogate(card, crops, expected)
    return expected


def check_graph(content: bytes, card: RecognizerCard) -> None:
    """One image input of the card's size, one output; all in this one file."""
    from bauta.recognizers.onnx.graph import parse_graph

    graph, _ = parse_graph(content)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise WeightsCorrupt(
            f"The network of {card.name!r} has {len(inputs)} inputs and {len(graph.output)} outputs.",
            hint="A recogniser has one image input and one embedding: export it so.",
        )
    shape = [axis.dim_value or None for axis in inputs[0].type.tensor_type.shape.dim]
    wanted = (3, card.template.height, card.template.width)
    if len(shape) != 4 or any(size not in (None, want) for size, want in zip(shape[1:], wanted, strict=True)):
        found = ", ".join("any" if size is None else str(size) for size in shape[:8])
        raise WeightsCorrupt(
            f"The network of {card.name!r} reads ({found}), the card says (N, 3, {wanted[1]}, {wanted[2]}).",
            hint="Correct the card's template, or export the network in NCHW.",
        )


def _check_surrogate(card: RecognizerCard, crops: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    import torch

    from bauta.recognizers.surrogates import load_surrogate

    images = torch.from_numpy(crops).requires_grad_()
    embeddings = load_surrogate(card)(images)
    difference = float(np.abs(embeddings.detach().numpy() - expected).max())
    if difference > TOLERANCE:
        raise UnsupportedOperator(
            f"As a torch module, {card.name!r} differs from ONNX Runtime by {difference:.1e}; "
            f"the limit is {TOLERANCE:g}.",
            hint="Add it as a judge only, and report the network.",
        )
    try:
        (gradient,) = torch.autograd.grad(embeddings.sum(), images)
    except RuntimeError as error:  # an answer that does not depend on the image
        raise UnsupportedOperator(
            f"{shown(card.name)} has no gradient: its answer does not follow from the image.",
            hint="Add it as a judge only.",
        ) from error
    if not gradient.isfinite().all():
        raise NumericalFailure(f"The gradient of {card.name!r} holds NaN or infinity.", hint="Add it as a judge only.")


def probes(card: RecognizerCard) -> NDArray[np.float32]:
    """Three crops: noise, something smooth with the contrast of a photo, and its negative."""
    height, width = card.template.height, card.template.width
    noise = np.random.default_rng(0).random((3, height, width), dtype=np.float32)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [0.5 + 0.3 * np.sin(7 * x + 3 * y * channel + channel) * np.cos(5 * y - 2 * x) for channel in range(3)]
    smooth = np.stack(waves).astype(np.float32)
    return np.stack([noise, smooth, 1 - smooth])
