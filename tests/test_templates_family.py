"""The frequency family, and how recognisers of masked faces are made."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from bauta.attacks.optimise import view_of
from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt
from bauta.learning import learners
from bauta.learning.learners import Schedule
from bauta.templates.base import load_protector
from bauta.templates.masked.dct import BlockDct
from bauta.templates.masked.frequency import (
    PRUNED,
    BudgetConfig,
    PrivacyBudget,
    RandomSubset,
    ResidueConfig,
    ShuffleConfig,
    ShuffledMask,
    ShuffledResidue,
    SubsetConfig,
    laplace,
)
from bauta.templates.masked.masking import MaskingData
from bauta.templates.masked.network import Stem, second_differences
from bauta.templates.masked.protectors import MaskedRecognition, Unprotected
from bauta.templates.references import IdentityFeature
from conftest import drawn, faces, fitted, toy_surrogate

TOY = {"masking_epochs": 1, "epochs": 1, "fine_tuning_epochs": 1, "batch": 4}


def data(images: torch.Tensor, *, epochs: int = 1, rate: float = 1e-2) -> MaskingData:
    front = IdentityFeature(toy_surrogate(), split="8x27x27").front

    def features(part: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            values: torch.Tensor = front(part)
        return values

    nobody = torch.empty(0, dtype=torch.int64)
    return MaskingData(images, nobody, features, Schedule(epochs, 4, rate), "toy", None, "toy", None)


def fit(name: str = "unprotected", images: torch.Tensor | None = None, **options: Any) -> MaskedRecognition:
    made: MaskedRecognition = fitted(name, faces(8, 1) if images is None else images, **{**TOY, **options})
    return made


# PPFR-FD


def test_a_shuffled_mask_has_no_lowest_frequency_and_normal_channels() -> None:
    masking = ShuffledMask(ShuffleConfig(kept=6, choice="energy"))
    figures = masking.prepare(data(faces(8, 1)))
    assert 0 not in masking.chosen.tolist()
    assert figures["energy kept"] < 0.1  # on the smooth toys the highest frequencies hold next to nothing
    values = masking(faces(), drawn())
    assert values.shape == (4, 18, 112, 112)
    torch.testing.assert_close(values.mean((2, 3)), torch.zeros(4, 18), atol=1e-3, rtol=0)
    deviation = values.std((2, 3), correction=0)
    assert float(deviation.max()) <= 1 + 1e-3
    for order in (masking.first, masking.second):
        assert sorted(order.tolist()) == list(range(18))
        assert order.tolist() != list(range(18))


def test_shuffling_mixes_each_channel_with_its_neighbour() -> None:
    masking = ShuffledMask(ShuffleConfig(kept=3, choice="energy"))
    masking.chosen.copy_(torch.tensor([1, 8, 9]))
    masking.first.copy_(torch.randperm(9, generator=drawn()))
    masking.second.copy_(torch.randperm(9, generator=drawn(1)))
    plain = masking.dct.linear(faces(1), (1, 8, 9))[:, masking.first]
    wanted = torch.stack([plain[0, one] + plain[0, (one + 1) % 9] for one in range(9)])[masking.second]
    wanted = wanted - wanted.mean((1, 2), keepdim=True)
    wanted = wanted / wanted.std((1, 2), correction=0, keepdim=True)
    torch.testing.assert_close(masking(faces(1), drawn())[0], wanted, atol=1e-3, rtol=0)


def test_normalised_over_all_faces_a_mask_is_linear() -> None:
    masking = ShuffledMask(ShuffleConfig(kept=12, choice="energy", normalise="population"))
    learned = faces(16, 1)
    masking.prepare(data(learned))
    first, second = faces(1, 2), faces(1, 3)
    whole = masking(0.3 * first + 0.7 * second, drawn())
    torch.testing.assert_close(
        whole, 0.3 * masking(first, drawn()) + 0.7 * masking(second, drawn()), atol=1e-3, rtol=1e-3
    )
    deviation = masking(learned, drawn()).square().mean((0, 2, 3)).sqrt()[masking.spread > 2e-3]
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=0.05, rtol=0)


def test_gates_learn_to_keep_little_energy() -> None:
    kept = {}
    for penalty in (0.0, 300.0):
        masking = ShuffledMask(ShuffleConfig(kept=8, penalty=penalty))
        kept[penalty] = masking.prepare(data(faces(8, 1), epochs=8))["energy kept"]
    assert kept[300.0] < kept[0.0]


# DCTDP


def test_budgets_are_divided_and_nothing_is_lost() -> None:
    masking = PrivacyBudget(BudgetConfig(budget=4.0, sensitivity="one", grid=14))
    uniform = masking.scales().detach()
    torch.testing.assert_close(uniform, torch.full((189, 112, 112), 1 / 4.0))
    with torch.no_grad():
        masking.shares.copy_(torch.randn(masking.shares.shape, generator=drawn()))
    budgets = masking.budgets().detach().double()
    assert float(budgets.sum()) == pytest.approx(4.0 * 189 * 112 * 112, rel=1e-5)
    assert float(budgets.max()) > 2 * float(budgets.min())


def test_laplace_noise_has_its_moments() -> None:
    noise = laplace(torch.Size((400_000,)), drawn())
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.var()) == pytest.approx(2, rel=0.03)
    assert float(noise.abs().mean()) == pytest.approx(1, rel=0.01)


def test_the_recognizers_loss_moves_the_budget() -> None:
    made = fit("dctdp", faces(4, 1), grid=1, sensitivity="one")
    shares = made.parts()["masking.shares"].float()
    assert float(shares.abs().max()) > 0
    assert "masking.shares" in made.parts()


# PartialFace


def test_subsets_divide_the_high_frequencies() -> None:
    masking = RandomSubset(SubsetConfig())
    everything = sorted(one for subset in masking.subsets for one in subset)
    assert everything == [one for one in range(64) if one not in PRUNED]


def test_a_face_is_stored_in_one_subset_and_one_order() -> None:
    masking = RandomSubset(SubsetConfig(orders=2))
    masking.prepare(data(faces()))
    values = masking.of_subsets(faces(1), torch.tensor([2]), drawn())
    candidates = [
        masking.dct.linear(faces(1), [masking.subsets[2][place] for place in order])
        for order in masking.permutations.tolist()
    ]
    assert values.shape == (1, 27, 112, 112)
    assert any(torch.allclose(values, one) for one in candidates)
    draws = {round(float(masking(faces(1), drawn(seed)).abs().sum()), 2) for seed in range(20)}
    assert len(draws) == 6  # the order changes no sum


def test_a_person_is_learned_in_three_subsets() -> None:
    masking = RandomSubset(SubsetConfig(orders=1))
    allowed = list(combinations(range(6), 3))
    seen: set[float] = set()
    for seed in range(12):
        masked = masking.batch(faces(1), torch.tensor([7]), drawn(seed))
        seen.add(round(float(masked.values.abs().sum()), 1))
    wanted = {
        round(float(masking.dct.linear(faces(1), masking.subsets[one]).abs().sum()), 1) for one in allowed[7]
    }  # fmt: skip
    assert seen == wanted


# MinusFace


def test_the_picture_of_the_residue_is_what_the_rendering_lacks() -> None:
    masking = ShuffledResidue(ResidueConfig(width=4))
    masking.prepare(data(faces(4, 1)))
    images, front = faces(2), BlockDct()
    rendered = masking.render(front.linear(images))
    torch.testing.assert_close(
        front.linear_inverse(masking.residue(images)), images - front.linear_inverse(rendered), atol=1e-4, rtol=0
    )
    stored = masking(images, drawn())
    assert stored.shape == (2, 3, 112, 112)
    assert not torch.allclose(stored, masking(images, drawn(1)))


# Recognisers of masked faces


def test_second_differences_are_integrated_to_the_image() -> None:
    stem, images = Stem(3), faces(3, 1)
    found = stem.integrate(torch.cat([second_differences(images), torch.zeros_like(images)], 1))
    centred = images - images.mean((2, 3), keepdim=True) + 0.5
    torch.testing.assert_close(found, centred, atol=1e-4, rtol=0)
    wide = second_differences(torch.eye(112)[None, None])
    assert float(wide[0, 0, 50, 50]) == 4
    assert float(wide[0, 0, 50, 49]) == -2  # two neighbours of the diagonal
    assert float(wide[0, 0, 0, 0]) == 2  # the border is repeated


@pytest.mark.parametrize(("signs", "most"), [(False, 0.05), (True, 0.05)])
def test_a_stem_finds_the_image_behind_a_mask(signs: bool, most: float) -> None:
    """Of maps that look at neighbours, differently from place to place, on another scale, and without brightness."""
    kernels = torch.randn(12, 3, 3, 3, generator=drawn())
    kernels -= kernels.mean((2, 3), keepdim=True)
    slope = 1 + 0.3 * torch.linspace(-1, 1, 112)

    def mask(images: torch.Tensor) -> torch.Tensor:
        values = 7 + 50 * slope * functional.conv2d(functional.pad(images, [1] * 4, mode="replicate"), kernels)
        random = 2.0 * (torch.rand(values.shape, generator=drawn(4)) < 0.5) - 1
        return (values + 40) * random if signs else values

    learned, other = (
        0.9 * faces(count, 1) + 0.1 * torch.rand(count, 3, 112, 112, generator=drawn()) for count in (16, 4)
    )
    stem = Stem(12, absolute=signs)
    stem.solve([(mask(part), part) for part in learned.split(4)], drawn())
    found = stem(mask(other)).detach()
    found, wanted = (one - one.mean((2, 3), keepdim=True) for one in (found, other))
    assert float((found - wanted).square().mean().sqrt()) < most
    assert float(stem.level.mean()) == pytest.approx(float(learned.mean()), abs=1e-4)


@pytest.mark.parametrize(("method", "least"), [("unprotected", 0.95), ("ppfr-fd", 0.5)])
def test_a_masked_face_finds_its_clean_template(method: str, least: float) -> None:
    images = faces(24, 1)
    options = {"kept": 9, "choice": "energy"} if method == "ppfr-fd" else {}
    made = fit(method, images, epochs=2, rate=1e-3, **options)
    cosines = made.probe(images) @ made.clean(images).T
    assert float(cosines.diagonal().mean()) > max(least, float(cosines.mean()) + 0.1)


def test_what_one_sees_of_a_masked_face_is_the_picture_behind_it() -> None:
    made = fit(
        "ppfr-fd", 0.9 * faces(8, 1) + 0.1 * torch.rand(8, 3, 112, 112, generator=drawn()), normalise="population"
    )
    images = 0.9 * faces(2, 5) + 0.1 * torch.rand(2, 3, 112, 112, generator=drawn(1))
    seen = made.to_image(made.protect(images, drawn()))
    assert made.viewer is made.network.stem
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 1
    assert float(torch.corrcoef(torch.stack([seen.flatten(), images.flatten()]))[0, 1]) > 0.7
    assert fit("gaussian-noise").viewer is None


def test_every_row_is_trained_alike() -> None:
    rows = [dict(fit(name, kept=2).provenance.training) if name == "ppfr-fd" else dict(fit(name).provenance.training)
            for name in ("unprotected", "ppfr-fd")]  # fmt: skip
    for what in ("faces", "batch", "rate", "epochs", "distillation_steps", "fine_tuning_steps"):
        assert rows[0][what] == rows[1][what]


def test_people_who_are_watched_are_not_learned_from() -> None:
    images = faces(80, 1)
    people = [f"person {number // 2}" for number in range(80)]
    made = fit(images=images, people=people, batch=40)
    figures = dict(made.provenance.training)
    assert figures["faces"] < 80
    assert 0 <= float(figures["fine_tuning_auroc_two_sided"]) <= 1
    assert figures["fine_tuning_margin"] > 0


def test_thresholds_are_measured_on_people_who_are_not_learned_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert fit().thresholds == {}  # nobody was watched
    monkeypatch.setattr("bauta.templates.masked.training.HIDDEN", 2)  # half of the people are
    images, people = faces(80, 1), [f"person {number // 2}" for number in range(80)]
    made = fit("ppfr-fd", images, people=people, batch=40, kept=2)
    assert list(made.thresholds) == [1e-2]  # of some 1,500 scores none is worth a threshold at 1e-3
    scores = made.match_clean(made.protect(images, drawn()), images)
    strangers = torch.tensor([[one != other for other in people] for one in people])
    assert float((scores[strangers] >= made.thresholds[1e-2]).float().mean()) < 0.05
    made.save(tmp_path / "made")
    assert load_protector(tmp_path / "made", made.recognizer).thresholds == made.thresholds
    assert IdentityFeature(made.recognizer, split="8x27x27").thresholds is None


def test_masked_and_clean_are_not_taken_for_each_other() -> None:
    made, other = fit(), fit("gaussian-noise", sigma=8.0)
    clean = IdentityFeature(made.recognizer, split="8x27x27")
    stored = made.protect(faces(), drawn())
    with pytest.raises(UsageError, match=r"'unprotected'.*not 'identity-feature'"):
        clean.templates(stored)
    with pytest.raises(UsageError, match=r"'identity-feature'.*not 'unprotected'"):
        made.templates(clean.protect(faces(), drawn()))
    with pytest.raises(UsageError, match=r"'gaussian-noise'.*not 'unprotected'"):
        other.match(other.protect(faces(), drawn()), stored)
    with pytest.raises(UsageError, match="was given"):
        fit("partialface").network.read(fit("partialface").network.unmask(faces()))


def test_an_interrupted_training_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"people": [f"{number % 4}" for number in range(8)], "epochs": 2}
    whole = fit(**options)

    class Interrupted(Exception):
        pass

    def stop(name: str, done: int, steps: int) -> None:
        if name.endswith("distillation") and done == 3:
            raise Interrupted

    usual = learners.train
    monkeypatch.setattr("bauta.templates.masked.training.train", lambda *a, **k: usual(*a, **{**k, "save_every": 0.0}))
    with pytest.raises(Interrupted):
        fit(**options, work=tmp_path, progress=stop)
    assert list(tmp_path.glob("Unmasked-*-distillation.safetensors"))
    continued = fit(**options, work=tmp_path)
    for name, value in whole.parts().items():
        torch.testing.assert_close(continued.parts()[name], value, msg=name)


def test_what_was_learned_under_other_names_is_not_taken_up(tmp_path: Path) -> None:
    names = [f"{number % 4}" for number in range(8)]
    fit(people=names, work=tmp_path)
    others = fit(people=[f"{number % 2}" for number in range(8)], work=tmp_path)
    anew = fit(people=[f"{number % 2}" for number in range(8)])
    for name, value in anew.parts().items():
        torch.testing.assert_close(others.parts()[name], value, msg=name)


def test_faces_at_the_door_are_masked_anew() -> None:
    made = fit("gaussian-noise", sigma=64.0)
    assert not torch.equal(made.probe(faces()), made.probe(faces()))
    assert torch.equal(made.probe(faces(), drawn()), made.probe(faces(), drawn()))


def test_much_noise_is_stored_as_far_as_half_precision_reaches() -> None:
    made = fit("dctdp", budget=1e-3)
    assert bool(made.protect(faces(1), drawn()).values().isfinite().all())


def test_a_loss_that_is_no_number_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "bauta.templates.masked.training.teacher_templates", lambda *given: torch.full((2, 8, 32), float("nan"))
    )
    with pytest.raises(NumericalFailure, match="distillation at step 1"):
        fit()


def test_parts_of_another_network_are_refused() -> None:
    made = fit()
    for parts in ({}, {**made.parts(), "network.stem.mean": torch.zeros(7, 1, 1)}):
        with pytest.raises(WeightsCorrupt):
            Unprotected.restore(made.recognizer, made.settings(), parts, made.provenance)


@pytest.mark.parametrize(
    ("method", "options"),
    [("unprotected", {"sigma": 1.0}), ("unprotected", {"epochs": 0}), ("unprotected", {"storage": "uint8"}),
     ("unprotected", {"people": ["a"] * 8}),
     ("unprotected", {"people": ["a", "b"]}), ("gaussian-noise", {"sigma": -1.0}),
     ("ppfr-fd", {"kept": 64}), ("ppfr-fd", {"choice": "best"}), ("dctdp", {"grid": 5}), ("dctdp", {"budget": 0.0}),
     ("partialface", {"orders": 0}), ("minusface", {"width": 2}), ("mixup", {"mix": 7}), ("mixup", {"mix": "two"})],
)  # fmt: skip
def test_other_settings_are_refused(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        fit(method, **options)


def test_the_search_sees_through_a_masking() -> None:
    made = fit("ppfr-fd", kept=2)
    images = faces(1).requires_grad_()
    values = view_of(made, "representation")(images, drawn())
    torch.testing.assert_close(values, made.protect(faces(1), drawn()).values(), atol=1e-2, rtol=1e-2)
    view_of(made, "template")(images, drawn()).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().max()) > 0


@pytest.mark.parametrize("method", ["hybrid-masking", "mixup"])
def test_the_search_for_a_template_mixes_no_strangers_in(method: str) -> None:
    made = fit(
        method, components=4, **({"kept": 9, "choice": "gates", "mixes": [2]} if method == "hybrid-masking" else {})
    )
    view = view_of(made, "template")
    torch.testing.assert_close(
        view(faces(2), drawn()), made.probe(faces(2)), atol=0.02, rtol=0
    )  # the stem adds rounding up
    assert float((view(faces(2), drawn()) - made.network(made.mask(faces(2), drawn()))).abs().max()) > 0.1


@pytest.mark.parametrize(("method", "near"), [("hybrid-masking", True), ("ppfr-fd", False), ("gaussian-noise", False)])
def test_faces_seen_at_once_are_seen_as_when_masked_first(method: str, near: bool) -> None:
    options: dict[str, Any] = (
        {"kept": 9, "choice": "gates", "mixes": [2], "components": 4} if method == "hybrid-masking" else {}
    )
    made = fit(method, **options)
    assert made.masking.near is near
    images = faces(3).requires_grad_()
    once, twice = made.see(images, drawn()), made.network(made.masking.single(images, drawn()))
    torch.testing.assert_close(once, twice, atol=0.02, rtol=0)  # the stem adds rounding up
    wanted = torch.randn(once.shape, generator=drawn())
    first, second = (torch.autograd.grad((one * wanted).sum(), images)[0] for one in (once, twice))
    torch.testing.assert_close(first, second, atol=0.05 * float(second.abs().max()), rtol=0)
