"""dlib's network as a torch module, against dlib itself."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bauta.errors import WeightsCorrupt, WeightsMissing
from bauta.faces.alignment import extract_crops
from bauta.recognizers.catalog import find_card
from bauta.recognizers.dlib_resnet import convert
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import load_surrogate

# Measured on scikit-image's astronaut: eyes, nose tip, mouth corners.
LANDMARKS = np.array([[[201.0, 108], [246, 103], [226, 131], [211, 151], [245, 147]]], np.float32)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.getbasetemp() / "dlib_home"
    monkeypatch.setenv("BAUTA_HOME", str(home))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    return home


def chips() -> Any:
    """A face, noise, and plain grey, (3, 3, 150, 150) in steps of 1/255."""
    data = pytest.importorskip("skimage.data")
    portrait = data.astronaut().astype(np.float32) / 255
    face = extract_crops(portrait, LANDMARKS, find_card("dlib_resnet").template)[0]
    noise = np.random.default_rng(0).random((3, 150, 150), dtype=np.float32)
    return (np.rint(np.stack([face, noise, np.full_like(noise, 0.5)]) * 255) / 255).astype(np.float32)


def test_descriptors_equal_dlibs_own() -> None:
    import dlib

    card = find_card("dlib_resnet")
    images = chips()
    raw = load_surrogate(card).network(
        (torch.from_numpy(images) - torch.tensor(card.mean).reshape(3, 1, 1)) / torch.tensor(card.std).reshape(3, 1, 1)
    )
    model = dlib.face_recognition_model_v1(str(card.weights))
    for chip, ours in zip(images, raw, strict=True):
        pixels = np.ascontiguousarray(np.rint(chip * 255).astype(np.uint8).transpose(1, 2, 0))
        theirs = np.array(model.compute_face_descriptor(pixels))
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_judge_and_surrogate_agree() -> None:
    images = chips()
    judge, surrogate = load_judge("dlib_resnet"), load_surrogate("dlib_resnet")
    np.testing.assert_allclose(surrogate(torch.from_numpy(images)).numpy(), judge.embed(images), atol=1e-4)


def test_gradient_is_finite_and_transforms_pass() -> None:
    surrogate = load_surrogate("dlib_resnet")
    images = torch.from_numpy(chips()[:1])
    embedding, pullback = torch.func.vjp(surrogate, images)
    vectors = torch.eye(128)[:2, None]
    (gradients,) = torch.func.vmap(pullback)(vectors)
    assert gradients.isfinite().all()
    torch.testing.assert_close(gradients[1], pullback(vectors[1])[0], rtol=1e-3, atol=1e-5)
    assert embedding.shape == (1, 128)


def broken(kind: str, content: bytes) -> bytes:
    middle = len(content) // 2
    if kind == "truncated":
        return content[:-10_000]
    if kind == "half":
        return content[:middle]
    if kind == "empty":
        return b""
    if kind == "NaN":
        return content[:middle] + b"\xff" * 8 + content[middle + 8 :]
    return content[:100] + b"\0" * 200_000 + content[200_100:]


@pytest.mark.parametrize("kind", ["truncated", "half", "empty", "NaN", "zeroed"])
def test_corrupt_file_is_refused(kind: str, tmp_path: Path) -> None:
    card = find_card("dlib_resnet")
    content = broken(kind, card.weights.read_bytes())
    path = tmp_path / "copy.dat"
    path.write_bytes(content)
    for load in (load_surrogate, load_judge):  # the hash tells
        with pytest.raises(WeightsCorrupt, match="SHA-256"):
            load(replace(card, weights=path))
    with pytest.raises(WeightsCorrupt):  # and so does the content, for a user's own file
        convert(content)
    if kind != "NaN":
        with pytest.raises(WeightsCorrupt):
            load_surrogate(replace(card, weights=path, sha256=sha256(content).hexdigest()))


def test_missing_file_is_told(tmp_path: Path) -> None:
    card = replace(find_card("dlib_resnet"), weights=tmp_path / "gone.dat")
    for load in (load_surrogate, load_judge):
        with pytest.raises(WeightsMissing, match=r"gone\.dat"):
            load(card)
