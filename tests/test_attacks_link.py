"""Students on toys: they learn, stop when numbers break, and come back from their files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bauta.attacks.cards import AttackerCard
from bauta.attacks.link import StudentConfig, embed, fit_student, load_student, start_from
from bauta.errors import BautaError, NumericalFailure, UsageError, WeightsCorrupt
from bauta.learning.fitting import FitConfig, fit
from bauta.recognizers.onnx.module import trainable_copy
from bauta.recognizers.surrogates import load_surrogate
from conftest import toy_surrogate
from recognizer_builders import card_of, linear_model

CONFIG = StudentConfig(epochs=15, rate=3e-3, batch=16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int, *, seed: int = 0, channels: int = 3, size: int = 112) -> Tensor:
    """Smooth random pictures in [0, 1]."""
    coarse = torch.rand(count, channels, 7, 7, generator=seeded(seed))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear")


def agreement(found: Tensor, targets: Tensor) -> float:
    return float((found * targets).sum(1).mean())


class TestFitStudent:
    def test_what_hides_a_face_from_the_teacher_hides_it_no_more(self) -> None:
        teacher, clean, others = toy_surrogate(), photos(80), photos(32, seed=1)
        before = agreement(embed(teacher, 1 - others), embed(teacher, others))
        student = fit_student(1 - clean, embed(teacher, clean), teacher, CONFIG, seeded())
        after = agreement(student.embed(1 - others), embed(teacher, others))
        assert before < 0.5
        assert after > 0.7
        assert student.fit.stopped == "epochs"
        assert len(student.fit.losses) == CONFIG.epochs
        assert student.fit.losses[-1] < student.fit.losses[0] / 2

    def test_an_imported_network_learns_and_the_teacher_stays(self, tmp_path: Path) -> None:
        teacher = load_surrogate(card_of(tmp_path, linear_model()))
        clean = photos(32)
        targets, before = embed(teacher, clean), teacher.state_dict()
        before = {name: value.clone() for name, value in before.items()}
        config = dataclasses.replace(CONFIG, rate=2e-2)
        student = fit_student(1 - clean, targets, start_from(teacher, (3, 112, 112), seeded()), config, seeded())
        missing = [1 - agreement(found, targets) for found in (embed(teacher, 1 - clean), student.embed(1 - clean))]
        assert missing[1] < missing[0] / 2
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
        assert not any(buffer.requires_grad for buffer in teacher.buffers())
        assert torch.equal(embed(teacher, clean), targets)

    @pytest.mark.parametrize("shape", [(4, 112, 112), (24,)])
    def test_inputs_of_any_scale_are_alike_to_a_student(self, shape: tuple[int, ...]) -> None:
        inputs = torch.randn(12, *shape, generator=seeded(2))
        plain, scaled = (
            start_from(toy_surrogate(), shape, seeded(), factor * inputs).eval() for factor in (1.0, 500.0)
        )
        torch.testing.assert_close(embed(plain, inputs), embed(scaled, 500.0 * inputs), atol=1e-4, rtol=0)

    @pytest.mark.parametrize("shape", [(5, 28, 28), (4, 112, 112), (24,)])
    def test_features_and_vectors_are_inputs_too(self, shape: tuple[int, ...]) -> None:
        teacher = toy_surrogate()
        clean = photos(16)
        mix = torch.randn(3 * 7 * 7, torch.Size(shape).numel(), generator=seeded(2)) / 10
        inputs = (nn.functional.adaptive_avg_pool2d(clean, 7).flatten(1) @ mix).reshape(-1, *shape)
        start = start_from(teacher, shape, seeded())
        student = fit_student(inputs, embed(teacher, clean), start, CONFIG, seeded())
        assert student.embed(inputs).shape == (16, 32)
        assert agreement(student.embed(inputs), embed(teacher, clean)) > agreement(
            embed(start, inputs), embed(teacher, clean)
        )

    def test_uint8_counts_as_0_to_1_and_the_seed_decides(self) -> None:
        teacher = toy_surrogate()
        clean = (photos(16) * 255).round().to(torch.uint8)
        targets = embed(teacher, clean.float() / 255)
        config = StudentConfig(epochs=2, batch=8, flip=True)
        first, again, other = (fit_student(clean, targets, teacher, config, seeded(seed)) for seed in (0, 0, 1))
        assert first.sha256() == again.sha256() != other.sha256()
        torch.testing.assert_close(first.embed(clean).norm(dim=1), torch.ones(16))

    def test_progress_counts_steps(self) -> None:
        teacher, seen = toy_surrogate(), []
        config = StudentConfig(epochs=2, batch=8)
        fit_student(
            photos(20), embed(teacher, photos(20)), teacher, config, seeded(), lambda *step: seen.append(step)
        )  # fmt: skip
        assert seen == [(step, 6) for step in range(1, 7)]

    @pytest.mark.parametrize(
        ("count", "targets", "word"),
        [(3, torch.eye(4, 32), "go together"), (4, 2 * torch.eye(4, 32), "length 1"), (4, torch.eye(4, 31), "31")],
    )
    def test_what_does_not_go_together_is_refused(self, count: int, targets: Tensor, word: str) -> None:
        with pytest.raises(UsageError, match=word):
            fit_student(photos(count), targets, toy_surrogate(), CONFIG, seeded())

    def test_vectors_have_no_left_and_right(self) -> None:
        config = dataclasses.replace(CONFIG, flip=True)
        with pytest.raises(UsageError, match="mirrored"):
            fit_student(torch.rand(4, 8), torch.eye(4), nn.Linear(8, 4), config, seeded())

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(UsageError, match="shape"):
            start_from(toy_surrogate(), (3, 4), seeded())


class TestFit:
    def breaks_at(self, step: int) -> tuple[nn.Linear, list[dict[str, Tensor]], object]:
        network, states = nn.Linear(2, 1), []

        def loss(index: Tensor) -> Tensor:
            states.append({name: value.clone() for name, value in network.state_dict().items()})
            good = network(torch.ones(len(index), 2)).square().mean()
            return good if len(states) < step else good * torch.nan

        return network, states, loss

    def test_nan_keeps_the_last_good_epoch(self) -> None:
        network, states, loss = self.breaks_at(6)  # of two steps an epoch: the third epoch breaks in its second step
        done = fit(network, list(network.parameters()), loss, 8, FitConfig(epochs=9, batch=4), seeded())
        assert (done.stopped, len(done.losses)) == ("not finite", 2)
        assert all(torch.equal(value, states[4][name]) for name, value in network.state_dict().items())

    def test_nan_in_the_first_epoch_is_an_error(self) -> None:
        network, _, loss = self.breaks_at(2)
        with pytest.raises(NumericalFailure, match="first epoch"):
            fit(network, list(network.parameters()), loss, 8, FitConfig(batch=4), seeded())

    def test_every_example_is_seen_once_in_an_epoch(self) -> None:
        network, seen = nn.Linear(1, 1), []

        def loss(index: Tensor) -> Tensor:
            seen.append(index)
            return network(torch.ones(1, 1)).sum()

        fit(network, list(network.parameters()), loss, 10, FitConfig(epochs=1, batch=4), seeded())
        assert sorted(torch.cat(seen).tolist()) == list(range(10))
        assert [len(part) for part in seen] == [4, 3, 3]

    @pytest.mark.parametrize("change", [{"epochs": 0}, {"rate": 0.0}, {"batch": 0}, {"warmup": 1.0}, {"clip": 0.0}])
    def test_settings_are_checked(self, change: dict[str, float]) -> None:
        with pytest.raises(UsageError):
            FitConfig(**change)

    def test_a_trainable_copy_answers_as_its_original(self, tmp_path: Path) -> None:
        original = load_surrogate(card_of(tmp_path, linear_model()))
        copied, weights = trainable_copy(original)
        assert sorted(weight.numel() for weight in weights) == [32, 300]  # the convolution and the linear layer
        torch.testing.assert_close(copied(photos(3)), original(photos(3)))
        with torch.no_grad():
            weights[0].zero_()
        assert not torch.allclose(embed(original, photos(3)), embed(copied, photos(3)))


class TestFiles:
    def test_a_saved_student_comes_back(self, tmp_path: Path) -> None:
        teacher = toy_surrogate()
        student = fit_student(
            photos(8), embed(teacher, photos(8)), teacher, StudentConfig(epochs=2, batch=4), seeded()
        )  # fmt: skip
        student.save(tmp_path / "student.safetensors")
        again = load_student(tmp_path / "student.safetensors", teacher)
        assert again.sha256() == student.sha256()
        assert again.fit == student.fit
        torch.testing.assert_close(again.embed(photos(3)), student.embed(photos(3)))

    def test_another_network_or_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "student.safetensors"
        teacher = toy_surrogate()
        fit_student(photos(4), embed(teacher, photos(4)), teacher, StudentConfig(epochs=1), seeded()).save(path)
        with pytest.raises(WeightsCorrupt):
            load_student(path, nn.Linear(2, 2))
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(WeightsCorrupt):
            load_student(path, teacher)


class TestAttackerCard:
    CARD = AttackerCard(
        "embedding-student", "pairs", True, "FaceLinkGen", "its settings", "pins", "0" * 64, 100, 500, 10, 1e-3, 32, 0,
        "epochs",
    )  # fmt: skip

    def test_plain_values(self) -> None:
        assert AttackerCard(**self.CARD.to_dict()) == self.CARD

    @pytest.mark.parametrize(
        "change", [{"name": ""}, {"knowledge": "much"}, {"people": 0}, {"stopped": ""}, {"data": ""}, {"paper": ""}]
    )
    def test_a_card_that_hides_something_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(BautaError):
            dataclasses.replace(self.CARD, **change)
