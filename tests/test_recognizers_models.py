"""The research recognisers that BAUTA_MODELS names, through the importer and ONNX Runtime."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bauta.recognizers.calibration import threshold
from bauta.recognizers.cards import ROLES
from bauta.recognizers.catalog import find_card
from bauta.recognizers.judges import load_judge
from bauta.recognizers.onnx.module import ImportedNetwork
from bauta.recognizers.surrogates import load_surrogate

FOLDER = os.environ.get("BAUTA_MODELS")
pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(not FOLDER, reason="BAUTA_MODELS does not name a folder of research recognisers"),
]
NAMES = list(json.loads((Path(FOLDER) / "models.json").read_text())["recognizers"]) if FOLDER else []


@pytest.mark.parametrize("name", NAMES)
def test_importer_equals_onnx_runtime(name: str) -> None:
    card = replace(find_card(name), roles=ROLES)
    surrogate, judge = load_surrogate(card), load_judge(card)
    random = np.random.default_rng(0)
    shape = (3, card.template.height, card.template.width)
    for batch in (1, 3):
        crops = random.random((batch, *shape), dtype=np.float32)
        images = torch.from_numpy(crops).requires_grad_()
        embeddings = surrogate(images)
        np.testing.assert_allclose(embeddings.detach().numpy(), judge.embed(crops), atol=1e-4)
        (gradient,) = torch.autograd.grad(embeddings[:, 0].sum(), images)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_thresholds_are_shipped(name: str) -> None:
    values = [threshold(find_card(name), fmr) for fmr in (1e-2, 1e-3, 1e-4)]
    assert 0.1 < values[0].cosine < values[1].cosine < values[2].cosine < 0.6
    assert values[0].impostor_pairs > 1_000_000


@pytest.mark.parametrize(("file", "side"), [("pfld_68.onnx", 112), ("yunet_n_dynamic.onnx", 160)])
def test_other_networks_are_imported_too(file: str, side: int) -> None:
    import onnxruntime

    content = (Path(FOLDER or "") / file).read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    expected = session.run(None, {session.get_inputs()[0].name: image})
    found = ImportedNetwork(content).outputs(torch.from_numpy(image))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)
