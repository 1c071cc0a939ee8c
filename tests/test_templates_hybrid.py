"""Adaptive hybrid masking: shares, partners, the strategy's game, regions and its score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from bauta import metrics
from bauta.errors import UsageError
from bauta.templates.base import load_protector
from bauta.templates.masked.dct import BlockDct
from bauta.templates.masked.hybrid_masking import HybridConfig, HybridMask, Strategy, region_strengths, strategy_terms
from bauta.templates.masked.mixing import draw_members, draw_shares, mixed, number_strangers
from bauta.templates.masked.protectors import HybridMasking, MaskedRecognition
from conftest import drawn, faces, fitted

TOY = {
    "masking_epochs": 1,
    "epochs": 1,
    "fine_tuning_epochs": 1,
    "batch": 8,
    "components": 6,
}
MASK = {"kept": 2, "choice": "energy"}
PEOPLE = [f"person {number}" for number in range(8)]
NOBODY = torch.empty(0, dtype=torch.int64)


def fit(name: str = "hybrid-masking", count: int = 8, **options: Any) -> MaskedRecognition:
    made: MaskedRecognition = fitted(
        name, faces(count, 1),
        **{**TOY, **({} if name == "mixup" else MASK), "people": PEOPLE[:count], **options},
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def hybrid() -> MaskedRecognition:
    return fit(mixes=[2, 4], reward="loss+recovery")


def test_watching_people_between_stages_leaves_the_strategy_alone() -> None:
    made = fit(count=80, people=[f"person {number // 2}" for number in range(80)], batch=40, mixes=[2, 3])
    figures = dict(made.provenance.training)
    assert figures["faces"] < 80
    assert {"stem_auroc_one_sided", "fine_tuning_auroc_one_sided", "fine_tuning_strategy"} <= figures.keys()
    assert "distillation_strategy" not in figures


# Shares and partners


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_shares_sum_to_one_and_keep_their_bounds(least: float) -> None:
    counts = torch.arange(600) % 6 + 1
    shares = draw_shares(counts, least, drawn())
    torch.testing.assert_close(shares.sum(1), torch.ones(600))
    assert bool((((shares > 0).sum(1)) == counts).all())
    assert bool((shares[:, 0] >= torch.maximum(1 / counts, torch.tensor(least)) - 1e-6).all())
    several = counts > 2
    assert float(shares[several].max()) <= 0.65 + 1e-6
    assert float(shares[counts == 1][:, 0].min()) == 1
    if least == 0:
        assert float(shares[counts == 6][:, 0].min()) < 0.3


def test_mixing_before_the_transform_is_mixing_after_it() -> None:
    images, front = faces(3), BlockDct()
    shares = draw_shares(torch.tensor([3, 3, 3]), 0.4, drawn())
    members = torch.tensor([[0, 1, 2], [1, 2, 0], [2, -1, 1]])
    strangers = faces(1, 5)
    before = front.linear(mixed(images, members, shares, strangers))
    after = mixed(front.linear(images), members, shares, front.linear(strangers))
    torch.testing.assert_close(before / 255, after / 255, atol=1e-5, rtol=0)


def test_nobody_is_mixed_with_another_photo_of_their_own() -> None:
    people = torch.tensor([0, 0, 0, 1, 2, 3])
    counts = torch.full((6,), 4)
    for seed in range(5):
        members = draw_members(counts, people, "batch", drawn(seed))
        for row in members:
            assert len(set(people[row].tolist())) == 4
    with pytest.raises(UsageError, match="too small to mix 5"):
        draw_members(torch.full((6,), 5), people, "batch", drawn())
    assert bool((draw_members(counts, people, "strangers", drawn())[:, 1:] == -1).all())


def test_every_place_of_a_stranger_gets_another_one() -> None:
    shares = draw_shares(torch.tensor([3, 2, 3]), 0.5, drawn())
    members = draw_members(torch.tensor([3, 2, 3]), NOBODY, "strangers", drawn())
    numbered, needed = number_strangers(members, shares)
    assert needed == 5
    assert sorted(numbered[(numbered < 0) & (shares > 0)].tolist()) == [-5, -4, -3, -2, -1]


def test_by_the_law_of_power_others_weigh_the_same_however_many() -> None:
    counts = (torch.arange(50_000) % 5) + 2
    shares = draw_shares(counts, 0.6, drawn(), law="power")
    others = (shares[:, 1:].square().sum(1) / shares[:, 0].square()).reshape(-1, 5).mean(0)
    assert float(others.max() / others.min()) < 1.1
    limits = [shares[counts == k][:, 0] for k in (2, 6)]
    assert [round(float(one.min()), 2) for one in limits] == [0.6, 0.46]
    assert [round(float(one.max()), 2) for one in limits] == [0.65, 0.52]


@pytest.mark.parametrize("normalise", ["population", "face"])
def test_a_mixture_is_the_mixture_of_masked_faces(normalise: str) -> None:
    masking = HybridMask(HybridConfig(mixes=(3,), components=4, normalise=normalise, steps=0, alone=0))
    masking.strangers.learn(faces(4, 9))
    masking.mask.spread.copy_(torch.linspace(1, 40, 108))
    images = faces(2, 1)
    made = masking.mixture(images, NOBODY, "strangers", drawn())
    state = drawn()
    draw_shares(made.counts, 0.6, state)
    draw_members(made.counts, NOBODY, "strangers", state)
    strangers = masking.mask(masking.strangers.draw(4, state), state)
    members, _ = number_strangers(made.members, made.shares)
    wanted = mixed(masking.mask(images, state), members, made.shares, strangers)
    torch.testing.assert_close(made.values, wanted, atol=1e-3, rtol=0)


class Coarse:
    """Recognisers of masked faces: means over squares, of one size at the door and of another in the store."""

    def __init__(self, masking: HybridMask, stored: int = 16) -> None:
        self.masking, self.size = masking, stored

    def look(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self.masking.single(images, generator)

    def unmask(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def recognise(self, images: torch.Tensor) -> torch.Tensor:
        return functional.normalize(functional.avg_pool2d(images, 16).flatten(1), dim=1)

    def read(self, images: torch.Tensor) -> torch.Tensor:
        coarse = functional.avg_pool2d(images, self.size)
        return functional.normalize(functional.interpolate(coarse, size=(7, 7)).flatten(1), dim=1)


@pytest.mark.parametrize("settings", [{}, {"signs": True}, {"eyes": 1.0}])
def test_steps_bring_the_template_of_a_mixture_back(settings: dict[str, Any]) -> None:
    masking = HybridMask(HybridConfig(mixes=(2,), components=4, **settings))
    masking.strangers.learn(faces(4, 9))
    images = faces(6, 1)

    def agreement(steps: int) -> torch.Tensor:
        masking.config = HybridConfig(mixes=(2,), components=4, steps=steps, apart=0.0, **settings)
        reader = Coarse(masking)
        wanted = masking.wanted(images, reader, drawn())
        return (reader.read(masking.stored(images, reader, drawn())) * wanted).sum(1).detach()

    none, few, many = (float(agreement(steps).mean()) for steps in (0, 2, 8))
    assert none + 0.01 < few < many


def test_steps_bring_it_to_the_reader_and_away_from_the_door() -> None:
    masking = HybridMask(HybridConfig(mixes=(2,), components=4, stored_share=0.5))
    masking.strangers.learn(faces(4, 9))
    images, reader = faces(6, 1), Coarse(masking, stored=14)
    wanted = masking.wanted(images, reader, drawn())

    def found(apart: float) -> tuple[float, float]:
        masking.config = HybridConfig(mixes=(2,), components=4, stored_share=0.5, apart=apart)
        assert masking.apart is bool(apart)
        stored = masking.stored(images, reader, drawn())
        return tuple(float((one * wanted).sum(1).mean()) for one in (reader.read(stored), reader.recognise(stored)))

    together, apart = found(0.0), found(4.0)
    assert together[1] > abs(apart[1]) + 0.1
    assert apart[0] > apart[1] + 0.1 + (together[0] - together[1])
    masking.config = HybridConfig(mixes=(2,), components=4, stored_share=0.5, steps=40, budget=64.0, apart=50.0)
    stored = masking.stored(images, reader, drawn())
    assert float((reader.recognise(stored) * wanted).sum(1).abs().max()) < 0.15  # not pushed past it


def test_a_reader_of_what_is_stored_learns_after_everything_else() -> None:
    """In a toy it does not have to be good: it is another network than the door's, which has learned what it had."""
    together, apart = (fit(mixes=[2, 4], alone=1.0, apart=weight) for weight in (0.0, 1.0))
    assert "reading_distance" not in dict(together.provenance.training)
    assert {"reading_distance", "reading_seen_at_the_door"} <= dict(apart.provenance.training).keys()
    body = {name: value for name, value in apart.parts().items() if not name.startswith("network.reader.")}
    assert body.keys() == together.parts().keys()
    for name, value in together.parts().items():
        torch.testing.assert_close(body[name], value, msg=name)
    own = {name: value for name, value in apart.parts().items() if name not in body}
    assert any(float((value - body[name.replace("reader", "body", 1)]).abs().max()) > 0 for name, value in own.items())
    stored = apart.protect(faces(2), drawn())
    assert float((apart.templates(stored) - apart.network(stored.values())).abs().max()) > 1e-4
    torch.testing.assert_close(together.probe(faces(2)), apart.probe(faces(2)))


def test_a_door_with_a_reader_learns_from_no_mixture_and_the_strategy_plays_on() -> None:
    together, apart = (dict(fit(mixes=[2, 4], alone=0.0, apart=weight).provenance.training) for weight in (0.0, 1.0))
    assert together["fine_tuning_distance"] > 0.1
    assert apart["fine_tuning_distance"] == apart["fine_tuning_margin"] == 0
    assert apart["fine_tuning_strategy"] != 0


def test_steps_stay_within_their_budget() -> None:
    masking = HybridMask(HybridConfig(mixes=(2,), components=4, steps=5, budget=3.0, apart=0.0))
    masking.strangers.learn(faces(4, 9))
    images, shown = faces(2, 1), []
    masking.single_unsigned = lambda pixels, _: shown.append(pixels) or masking.mask(pixels, drawn())  # type: ignore[method-assign]
    masking.stored(images, Coarse(masking), drawn())
    alone, mirrored, start, *_, stored = shown
    assert torch.equal(alone, images)
    assert torch.equal(mirrored, images.flip(3))
    assert 2.9 / 255 < float((stored - start).detach().abs().max()) < 3.01 / 255


def test_no_noise_is_drawn_twice() -> None:
    masking = HybridMask(HybridConfig(mixes=(2,), components=4, steps=2, eyes=1.0))
    masking.strangers.learn(faces(4, 9))
    eyes, state = region_strengths({"eyes": 1.0}) > 0.999, drawn()
    first, second = (masking.stored(faces(1), Coarse(masking), state)[:, :, eyes].flatten() for _ in range(2))
    assert float(torch.isin(second, first).float().mean()) < 0.01


def test_what_is_stored_is_mixed_by_the_share_that_is_stored() -> None:
    masking = HybridMask(HybridConfig(mixes=(2, 5), components=4, stored_share=0.2))
    shares = masking.draw_stored(faces(8, 1), drawn()).shares
    power = shares[:, 1:].sum(1) / shares[:, 0] / ((shares > 0).sum(1) / 2).sqrt()
    torch.testing.assert_close(power, torch.full((8,), 4.0))
    masking.config = HybridConfig(mixes=(2, 5), components=4, stored_share=0.0)
    assert 0.5 <= float(masking.draw_stored(faces(8, 1), drawn()).shares[:, 0].max()) <= 0.8


@pytest.mark.parametrize("options", [{"count": 3, "mixes": [2, 5]}, {"people": ["a", "b"] * 4, "mixes": [2, 3]}])
def test_too_few_images_or_people_for_k_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="too few"):
        fit(**options)


# The game


def play(*, entropy: float = 0.001, cost: float = 0.0, wished: float = 4.0) -> torch.Tensor:
    """A strategy's distribution after a bandit whose loss grows with k."""
    mixes = torch.tensor([2, 3, 4, 5, 6])
    logits = torch.zeros(1, 5, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    generator, baseline = drawn(), 1.0
    for _ in range(400):
        rows = logits.expand(32, 5)
        chosen = torch.multinomial(rows.detach().softmax(1), 1, generator=generator)[:, 0]
        rewards = mixes[chosen] / 4.0
        terms = strategy_terms(rows, chosen, rewards, baseline, mixes, entropy=entropy, cost=cost, wished=wished)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        baseline = 0.9 * baseline + 0.1 * float(rewards.mean())
    return logits.detach().softmax(1)[0]


def test_the_strategy_finds_the_number_that_hurts_most() -> None:
    assert float(play()[4]) > 0.9


def test_dear_mixtures_bring_it_to_the_wished_mean() -> None:
    mean = float((play(cost=5.0, wished=3.5) * torch.tensor([2.0, 3, 4, 5, 6])).sum())
    assert mean == pytest.approx(3.5, abs=0.25)


def test_the_policy_gradient_is_that_of_the_expectation() -> None:
    logits = torch.randn(1, 5, generator=drawn(), requires_grad=True)
    losses = torch.tensor([0.3, 1.0, 0.2, 2.0, 0.9])
    mixes = torch.tensor([2, 3, 4, 5, 6])
    shares = logits.softmax(1)[0]
    (exact,) = torch.autograd.grad(-(shares * losses).sum(), logits)
    total = torch.zeros_like(logits)
    for arm in range(5):
        terms = strategy_terms(
            logits, torch.tensor([arm]), losses[arm : arm + 1], 0.7, mixes, entropy=0.0, cost=0.0, wished=4.0
        )
        (gradient,) = torch.autograd.grad(terms["strategy"], logits)
        total += shares[arm].detach() * gradient
    torch.testing.assert_close(total, exact, atol=1e-6, rtol=0)


def test_the_strategy_learns_in_the_fine_tuning_only(hybrid: MaskedRecognition) -> None:
    figures = dict(hybrid.provenance.training)
    assert "fine_tuning_strategy" in figures
    assert "fine_tuning_recovery" in figures
    assert "distillation_strategy" not in figures
    strategy = hybrid.masking.strategy  # type: ignore[union-attr]
    assert isinstance(strategy, Strategy)
    assert float(strategy.level) > 0
    assert float(strategy.baseline) != 1


def test_rows_with_one_mask_learn_it_once_and_mixtures_after_that(tmp_path: Path) -> None:
    """Stem and distillation of the mask alone serve the hybrid, which gets from them what it would have learned."""
    work = {"work": tmp_path}
    fitted(
        "ppfr-fd", faces(8, 1),
        **{name: value for name, value in TOY.items() if name != "components"}, **MASK, normalise="population",
        people=PEOPLE, **work,
    )  # fmt: skip
    early = {path.name for path in tmp_path.iterdir()}
    assert any(name.endswith("-distillation.safetensors") for name in early)
    shared = fit(mixes=[2, 4], **work)
    added = {path.name for path in tmp_path.iterdir()} - early
    assert added
    assert all(name.startswith("hybrid-masking-") and not name.endswith("-distillation.safetensors") for name in added)
    alone = fit(mixes=[2, 4])
    for name, value in alone.parts().items():
        torch.testing.assert_close(shared.parts()[name], value, msg=name)


def test_a_strategy_for_other_numbers_is_refused(hybrid: MaskedRecognition) -> None:
    with pytest.raises(UsageError, match=r"learned for k of \[2, 4\], not of \[2, 5\]"):
        HybridMasking.restore(
            hybrid.recognizer, {**hybrid.settings(), "mixes": [2, 5]}, hybrid.parts(), hybrid.provenance
        )
    with pytest.raises(UsageError, match="one number"):
        HybridMasking.restore(hybrid.recognizer, {**hybrid.settings(), "mixes": [2]}, hybrid.parts(), hybrid.provenance)


# What is stored


def test_what_is_stored_is_mixed_and_who_is_at_the_door_is_not(hybrid: MaskedRecognition, tmp_path: Path) -> None:
    stored = hybrid.protect(faces(2), drawn()).values()
    alone = hybrid.masking.single(faces(2), drawn())
    assert stored.shape == alone.shape == (2, 6, 112, 112)
    for other in (alone, hybrid.protect(faces(2), drawn(1)).values()):
        assert float((stored - other).abs().mean()) > 0.2 * float(alone.abs().mean())
    hybrid.save(tmp_path)
    loaded = load_protector(tmp_path, hybrid.recognizer)
    assert torch.equal(loaded.protect(faces(2), drawn()).values(), stored)


def test_fixed_mixtures_have_no_strategy() -> None:
    made = fit("frequency-mixup", mixes=[3])
    assert not [name for name in made.parts() if "strategy" in name]
    alone = made.masking.single(faces(1), drawn())
    assert float((made.protect(faces(1), drawn()).values() - alone).abs().mean()) > 0.2 * float(alone.abs().mean())
    with pytest.raises(UsageError, match="one number"):
        fit("frequency-mixup", mixes=[2, 3])


def test_instahide_leaves_absolute_values() -> None:
    plain, signed = fit("mixup", signs=False), fit("mixup", signs=True)
    values = signed.masking.single(faces(1), drawn())
    torch.testing.assert_close(values.abs(), plain.masking.single(faces(1), drawn()).abs())
    assert 0.4 < float((values < 0).float().mean()) < 0.6


def test_regions_become_noise_where_they_are() -> None:
    strengths = region_strengths({"eyes": 1.0, "nose": 0.0, "mouth": 0.0, "contour": 0.5})
    assert float(strengths[52, 38]) > 0.99
    assert float(strengths[92, 56]) < 0.05
    assert 0.4 < float(strengths[71].max()) <= 0.5
    assert float(region_strengths(dict.fromkeys(("eyes", "nose", "mouth", "contour"), 0.0)).max()) == 0
    made = fit(mixes=[2], eyes=1.0)
    first, second = (made.protect(images, drawn()).values()[0] for images in (faces(1), 1 - faces(1)))
    apart = (first - second).abs().mean(0)
    assert float(apart[52, 38]) < 0.1 * float(apart.mean())


@pytest.mark.parametrize(
    "settings",
    [{"mixes": [1, 2]}, {"mixes": [2, 7]}, {"mixes": [3, 2]}, {"mixes": []}, {"partners": "friends"},
     {"reward": "fame"}, {"least": 0.9}, {"steps": -1}, {"normalise": "face"}, {"law": "none"}, {"eyes": 1.5},
     {"wished": 7.0}, {"k": 3}, {"kept": 0}],
)  # fmt: skip
def test_other_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        HybridConfig.of(settings)


# The score


def test_the_composite_score_has_known_answers() -> None:
    perfect, none = np.zeros(3), np.ones(3)
    assert metrics.composite_privacy(none, none, none, none).mean() == 0
    assert metrics.composite_privacy(perfect, -none, perfect, -none).tolist() == [1, 1, 1]  # no credit below cosine 0
    assert metrics.composite_privacy(perfect, perfect, none, none).mean() == pytest.approx(0.4)
    assert metrics.composite_privacy(none, none, perfect, none).mean() == pytest.approx(0.3)
    with pytest.raises(UsageError, match="shape"):
        metrics.composite_privacy(none, none, none, np.ones(2))


def test_batches_without_strangers_are_masked_face_by_face() -> None:
    made = fit(normalise="face", steps=0, partners="batch", mixes=[2])
    assert made.protect(faces(2), drawn()).values().shape == (2, 3 * MASK["kept"], 112, 112)


def test_batches_too_small_to_mix_are_refused_before_anything_is_learned() -> None:
    with pytest.raises(UsageError, match="batches of 2"):
        fit(partners="batch", batch=2, mixes=[2, 3])


def test_a_share_of_faces_stays_alone_while_the_recogniser_learns() -> None:
    masking = HybridMask(HybridConfig(mixes=(2, 3), components=4, alone=0.5))
    masking.begin("fine-tuning")
    counts = masking.batch(faces(64, 1), NOBODY, drawn()).counts
    assert 16 < int((counts == 1).sum()) < 48
    assert int((masking.draw_stored(faces(64, 1), drawn()).counts == 1).sum()) == 0  # but nothing is stored alone
    figures = dict(fit(alone=0.5, mixes=[2, 3]).provenance.training)
    assert "fine_tuning_strategy" in figures
