"""Protectors and attackers on another device: what they hand over is on the CPU, and means the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attack_toys import cut_recognizer, toy_faces
from bauta.attacks.link import StudentConfig, fit_student, start_from
from bauta.attacks.optimise import OptimisationConfig, search
from bauta.attacks.oracle import OraclePairs, StoredPairs
from bauta.attacks.reconstruct import ReconstructionConfig, fit_reconstructor
from bauta.cli.run import run
from bauta.errors import UsageError
from bauta.learning.learners import Schedule
from bauta.templates.advface.protector import AdvFace
from bauta.templates.base import Protector, find_device
from bauta.templates.masked.protectors import Unprotected
from bauta.templates.references import IdentityFeature
from conftest import drawn, faces, fitted

KEY = bytes(range(32))
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


def fit(device: str, **settings: object) -> AdvFace:
    made: AdvFace = fitted(
        AdvFace, faces(32, 1), split="8x27x27", shadows=["residual-8"],
        epochs=2, batch=8, rate=1e-2, iterations=6, device=device, **settings,
    )  # fmt: skip
    return made


@pytest.mark.parametrize("device", DEVICES)
def test_a_fitted_protector_protects_on_a_device_and_is_read_on_the_cpu(device: str, tmp_path: Path) -> None:
    protector = fit(device, noise=0.1)
    assert protector.device.type == "cpu"
    protector.save(tmp_path / "kept")
    sha256 = protector.sha256
    there = protector.to(device)
    assert (there.device.type, there.sha256) == (device, sha256)
    images = faces(3)
    for key in (None, KEY):
        stored = there.protect(images, drawn(), key)
        features, templates, picture = (
            there.features(stored, key),
            there.templates(stored, key),
            there.to_image(stored, key),
        )
        assert {one.device.type for one in (stored.tensor, features, templates, picture)} == {"cpu"}
        there.to("cpu")
        assert torch.allclose(there.templates(stored, key), templates, atol=2e-3)
        assert torch.allclose(there.features(stored, key), features, atol=2e-3)
        noise = (features - there.front(there.crops(images))) / there.statistics.std[:, None, None]
        assert 0.3 < float(noise.abs().max()) < there.config.epsilon + 6 * there.config.noise
        there.to(device)
    assert torch.allclose(there.clean(images), there.to("cpu").clean(images), atol=2e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_attackers_learn_on_a_device_and_answer_on_the_cpu(device: str) -> None:
    pixels, _ = toy_faces(8)
    protector: Protector = IdentityFeature(cut_recognizer(), split="1").to(device)
    images = pixels.float() / 255
    stored = protector.protect(images, drawn())
    where = torch.device(device)
    config = ReconstructionConfig(decoder="residual", channels=8, identity=0.1, schedule=Schedule(3, 8, 1e-2))
    for pairs in (StoredPairs(stored.values(), pixels, key="pairs"), OraclePairs(protector, pixels)):
        decoder = fit_reconstructor(pairs, config, embed=protector.clean, device=where)
        assert decoder.reconstruct(stored.values()).device.type == "cpu"
    found = search(protector, stored, OptimisationConfig("representation", 5, 2), images.mean(0), drawn())
    assert {one.device.type for one in (found.images, found.distance)} == {"cpu"}
    start = start_from(protector.recognizer, stored.tensor.shape[1:], drawn(), stored.values())
    targets = protector.clean(images)
    student = fit_student(stored.values(), targets, start, StudentConfig(epochs=2, batch=8), drawn(), device=where)
    assert student.embed(stored.values()).device.type == "cpu"
    assert len(student.sha256()) == 64


def test_what_is_no_device_is_refused() -> None:
    for name in ("nonsense", "cpu:x", "meta", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(UsageError, match=name):
            find_device(name)


def test_masked_faces_stay_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protector = Unprotected.__new__(Unprotected)
    with pytest.raises(UsageError, match="on the CPU only"):
        protector.to("cuda")
    arguments = ["templates", "fit", str(tmp_path), "--recognizer", "mobilefacenet", "--method", "unprotected"]
    assert run([*arguments, "-o", str(tmp_path / "made"), "--device", "cuda"]) == 2
    assert "unprotected learns on the CPU only" in capsys.readouterr().err
