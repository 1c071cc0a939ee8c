"""Closed-form attackers: they recover faces and link them from stored numbers, and learn nothing from sealed ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from attack_toys import cut_recognizer, toy_faces
from bauta.attacks.closed_form import KernelConfig, KernelRidge, Projection, fit_kernel
from bauta.benchmark.stores.sealed import sealed_numbers
from bauta.errors import NumericalFailure, UsageError

KEYS = bytes(range(32)), bytes(range(32, 64))
SMALL = KernelConfig(widths=(1.0, 4.0), ridges=(1e-4, 1e-2, 1.0))


@pytest.fixture(scope="module")
def faces() -> dict[str, Any]:
    recognizer = cut_recognizer()
    found: dict[str, Any] = {}
    for name, people, each, seed in (("own", 60, 3, 1), ("victims", 20, 2, 2)):
        pixels, subjects = toy_faces(people, each, seed)
        with torch.no_grad():
            features = recognizer.network[0](pixels.float() / 127.5 - 1)
            templates = recognizer(pixels.float() / 255)
        found |= {name: pixels, f"{name}_people": subjects, f"{name}_values": features, f"{name}_templates": templates}
    return found


def error(images: Tensor, pixels: Tensor) -> float:
    return float((images - pixels.float() / 255).square().mean())


def test_a_kernel_decoder_recovers_the_face_from_a_feature_and_the_mean_from_ciphertext(faces: dict[str, Any]) -> None:
    pixels, victims = faces["own"], faces["victims"]
    mean_face = error((pixels.float() / 255).mean(0).expand(len(victims), -1, -1, -1), victims)
    plain = fit_kernel(faces["own_values"], pixels, faces["own_people"], SMALL)
    images = plain.reconstruct(faces["victims_values"])
    assert images.shape == victims.shape
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert error(images, victims) < 0.1 * mean_face
    assert plain.fitted["unexplained"] < 0.1
    sealed = fit_kernel(sealed_numbers(faces["own_values"], KEYS[0]), pixels, faces["own_people"], SMALL)
    blind = sealed.reconstruct(sealed_numbers(faces["victims_values"], KEYS[1]))
    assert error(blind, victims) > 0.8 * mean_face
    assert sealed.fitted["unexplained"] > 0.8


def test_a_kernel_student_links_features_and_no_ciphertext(faces: dict[str, Any]) -> None:
    def found(values: Tensor, victims: Tensor) -> float:
        student = fit_kernel(values, faces["own_templates"], faces["own_people"], SMALL)
        templates = student.embed(victims)
        assert torch.allclose(templates.norm(dim=1), torch.ones(len(templates)), atol=1e-4)
        nearest = (templates @ faces["victims_templates"].T).argmax(1)
        return float((nearest == torch.arange(len(nearest))).float().mean())

    assert found(faces["own_values"], faces["victims_values"]) > 0.9
    assert found(sealed_numbers(faces["own_values"], KEYS[0]), sealed_numbers(faces["victims_values"], KEYS[1])) < 0.2


def test_the_choice_is_made_on_people_who_were_held_out(faces: dict[str, Any]) -> None:
    """Numbers that say who somebody is, and no more, teach nothing of others: the largest ridge must win."""
    people = faces["own_people"]
    names = sorted(set(people))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(len(names), 64, generator=generator)[[names.index(one) for one in people]]
    found = fit_kernel(codes, faces["own"], people, SMALL)
    assert found.fitted["unexplained"] > 0.9
    assert found.fitted["ridge"] == 1.0


def test_a_regression_is_solved(faces: dict[str, Any]) -> None:
    points = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for kernel in ("linear", "rbf"):
        solved = KernelRidge(points, kernel, 1.0, 0.1)  # type: ignore[arg-type]
        gram = solved.similarity(points)
        assert torch.allclose(solved.weights(points) @ (gram + 0.1 * torch.eye(40)), gram, atol=1e-8)
    assert torch.allclose(solved.similarity(points).diagonal(), torch.ones(40, dtype=torch.float64))
    projected = Projection(faces["own_values"], 20)(faces["own_values"])
    assert projected.shape == (len(faces["own"]), 20)
    gram = projected.T @ projected
    assert float((gram - gram.diagonal().diag()).abs().max()) < 1e-2 * float(gram.diagonal().max())


def test_what_cannot_be_solved_is_refused(faces: dict[str, Any]) -> None:
    values, pixels, people = faces["own_values"], faces["own"], faces["own_people"]
    with pytest.raises(UsageError, match="make no regression"):
        fit_kernel(values[:5], pixels, people, SMALL)
    with pytest.raises(UsageError, match="3 people"):
        fit_kernel(values[:9], pixels[:9], people[:9], SMALL)
    for name, value in (("kernels", ("cubic",)), ("widths", ()), ("ridges", (0.0,)), ("held", 1.0), ("components", 0)):
        with pytest.raises(UsageError, match=name):
            KernelConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(NumericalFailure, match="factored"):
        KernelRidge(torch.full((4, 2), torch.nan, dtype=torch.float64), "linear", 1.0, 1.0)
    student = fit_kernel(values, functional.normalize(values.flatten(1)[:, :8]), people, SMALL)
    broken = values.clone()
    broken[0] = torch.nan
    with pytest.raises(NumericalFailure, match="NaN"):
        student.answer(broken)
