"""Local features: what is lost, what stays, where randomness comes from, and how the learned mode learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bauta.attacks.oracle import OraclePairs
from bauta.benchmark.engine.run import Job
from bauta.benchmark.stores import run as templates
from bauta.benchmark.stores.attacks import Access, carry_out
from bauta.benchmark.stores.recipe import Attack, TemplateRow, read_template_recipe
from bauta.errors import NumericalFailure, RoleRefused, UsageError, WeightsCorrupt
from bauta.gallery.enrol import enrol_faces
from bauta.objectives.transports import gaussian_blur
from bauta.recognizers.surrogates import Surrogate
from bauta.registry import load_method
from bauta.templates.base import load_protector
from bauta.templates.local import protector as local_features
from bauta.templates.local.anonymisers import Anonymiser
from bauta.templates.local.composition import LocalFeaturesConfig, compose, cut_bits, local_detail, random_field
from bauta.templates.local.protector import Draws, LocalFeatures
from bauta.templates.local.stand_ins import StandIns
from conftest import drawn, fitted, toy_surrogate

NAMES = ("first", "second", "third")
LEARNED: dict[str, Any] = {"mode": "learned", "surrogates": list(NAMES), "channels": 4}
QUICK = {"epochs": 1, "batch": 4, "losses": {"adversary_channels": 4}}


def faces(count: int = 4, seed: int = 0) -> Tensor:
    """Smooth colour with fine texture on it."""
    generator = drawn(seed)
    coarse, fine = (torch.rand(count, 3, side, side, generator=generator) for side in (6, 56))
    images = [nn.functional.interpolate(one, (112, 112), mode="bilinear") for one in (coarse, fine)]
    return (0.2 + 0.4 * images[0] + 0.2 * images[1]).clamp(0, 1)


def correlation(first: Tensor, second: Tensor) -> float:
    return float(np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1])


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> dict[str, Surrogate]:
    known = {name: toy_surrogate(seed + 1, name) for seed, name in enumerate(NAMES)}
    known["again"] = toy_surrogate(1, "again")
    monkeypatch.setattr(local_features, "load_surrogate", known.__getitem__)
    return known


def fit(**options: Any) -> LocalFeatures:
    images = options.pop("images", faces(8))
    made: LocalFeatures = fitted(LocalFeatures, images, seed=1, **options)
    return made


# The train-free image


def test_the_local_part_hardly_depends_on_the_low_band() -> None:
    """A wave of amplitude 0.15 over the face changes h little, the less the longer it is and the smaller sigma."""
    images = faces(2).mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    place = torch.arange(112) / 112

    def change(sigma: float, waves: int) -> float:
        config = LocalFeaturesConfig(sigma=sigma, window=4)
        wave = 0.15 * torch.cos(2 * torch.pi * waves * place)
        before, after = local_detail(images, config), local_detail(images + wave, config)
        inside = (slice(None), slice(None), slice(16, -16), slice(16, -16))  # the borders are replicated
        return float(((after - before)[inside].square().mean() / before[inside].square().mean()).sqrt())

    assert change(2, 1) < 0.05
    assert change(2, 1) < change(2, 2) < 0.3
    assert change(2, 1) < change(6, 1)


def test_detail_has_one_contrast_and_no_brightness() -> None:
    images = faces(2)
    config = LocalFeaturesConfig(gain=0.18, floor=0.001)
    strong, weak = (local_detail(0.5 + scale * (images - 0.5), config) for scale in (1.0, 0.3))
    assert float((strong - weak).square().mean().sqrt()) < 0.1 * float(strong.std())
    assert abs(float(strong.mean())) < 0.02
    plain = LocalFeaturesConfig(gain=1000, floor=1000)  # then it is the difference itself
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        local_detail(grey, plain), (grey - gaussian_blur(grey, plain.sigma))[:, :1], atol=1e-3, rtol=0
    )
    assert local_detail(images, replace(config, colour=True)).shape == images.shape


def test_fields_know_nothing_of_the_face_and_have_the_asked_moments() -> None:
    config = LocalFeaturesConfig(level=0.4, field=0.1, chroma=0.05, cells=(4, 7))
    field = random_field(64, config, Draws(drawn()))
    grey = field.mean(1)
    torch.testing.assert_close(grey.mean((1, 2)), torch.full((64,), 0.4), atol=1e-5, rtol=0)
    torch.testing.assert_close(grey.std((1, 2), correction=0), torch.full((64,), 0.1), atol=1e-4, rtol=0)
    other = random_field(64, config, Draws(drawn(1)))
    assert abs(correlation(field - 0.4, other - 0.4)) < 0.1  # two seeds
    squares = random_field(1, replace(config, patches=0.2), Draws(drawn()))
    assert float((squares - random_field(1, config, Draws(drawn()))).abs().mean()) > 0.05


def test_two_draws_keep_the_template_and_change_the_picture() -> None:
    protector = fit(field=0.05, chroma=0.05)  # a random toy is not a recogniser: it minds brightness more
    images = faces(6)
    first, second = (protector.protect(images, drawn(seed)) for seed in (0, 1))
    cosines = (protector.templates(first) * protector.templates(second)).sum(1)
    assert float(cosines.mean()) > 0.6
    low = [gaussian_blur(one.values(), 8.0) - 0.5 for one in (first, second)]
    assert abs(correlation(*low)) < 0.3  # a handful of cells for each of six faces
    assert not torch.equal(first.tensor, second.tensor)


def test_what_is_stored_is_an_image_of_few_bits() -> None:
    stored = fit(bits=3).protect(faces(1), drawn())
    assert (stored.kind, stored.storage, stored.bytes_each) == ("image", "uint8", 3 * 112 * 112)
    assert len(set(stored.tensor.flatten().tolist())) <= 8
    values = torch.linspace(0, 1, 999)
    assert float((cut_bits(values, 3) - values).abs().max()) <= 1 / 14 + 1 / 255
    assert len(set(cut_bits(values, 8).tolist())) == 256


def test_whole_numbers_reach_both_ends_alike() -> None:
    counts = torch.bincount(Draws(drawn()).whole(-3, 3, 7000) + 3, minlength=7)
    assert 850 < int(counts.min()) <= int(counts.max()) < 1150


def test_dropout_takes_whole_squares_away() -> None:
    config = LocalFeaturesConfig(dropout=0.5, patch=16, noise=0.0, field=0.0, chroma=0.0)
    made, field = compose(faces(8), config, Draws(drawn()))
    detail = (made - field).abs().amax(1)
    gone = nn.functional.max_pool2d(detail, 16).flatten() == 0
    assert 0.35 < float(gone.float().mean()) < 0.65


# Randomness


def test_nothing_lets_anybody_draw_it_again(tmp_path: Path) -> None:
    protector = fit()
    images = faces(1).repeat(2, 1, 1, 1)
    protector.save(tmp_path / "made")
    galleries = [enrol_faces(protector, images, ("a", "b")) for _ in range(2)]
    pictures = [one.representation.tensor for one in galleries]
    assert not torch.equal(*pictures)
    assert not torch.equal(pictures[0][0], pictures[0][1])  # nor do two photos in one call share it
    assert b"seed" not in galleries[0].representation.to_bytes()[:1500]
    torch.manual_seed(0)
    one = protector.protect(images).tensor
    torch.manual_seed(0)
    assert not torch.equal(one, protector.protect(images).tensor)  # torch's own generator has no say
    kept = [protector.protect(images, drawn(5)).tensor for _ in range(2)]
    assert torch.equal(*kept)


def test_numbers_of_the_operating_system_have_their_distribution() -> None:
    draws = Draws()
    normal, uniform = draws.normal(200, 200), draws.uniform(200, 200)
    assert abs(float(normal.mean())) < 0.03
    assert float(normal.std()) == pytest.approx(1, abs=0.03)
    assert float(normal.abs().max()) < 6
    assert 0 < float(uniform.min()) < 0.01
    assert 0.99 < float(uniform.max()) < 1
    assert set(draws.whole(2, 4, 500).tolist()) == {2, 3, 4}


# The learned mode


def test_it_begins_as_the_train_free_image() -> None:
    learned = LocalFeatures(toy_surrogate(), LocalFeaturesConfig.of(LEARNED), Anonymiser(4))
    plain = fit()
    assert torch.equal(learned.protect(faces(2), drawn()).tensor[:1], plain.protect(faces(2), drawn()).tensor[:1])
    assert learned.sha256 != plain.sha256


def test_learning_keeps_the_identity_and_says_of_what(toys: dict[str, Surrogate], tmp_path: Path) -> None:
    options = {**LEARNED, **QUICK, "epochs": 12, "rate": 1e-2, "field": 0.3, "reach": 0.5}
    options["losses"] = {"adversary_channels": 4, "adversary": 0.1, "recoveries": 1}
    images = (faces(4) * 255).byte()
    stages: list[str] = []
    made = fit(images=images, people=["a", "b"] * 2, progress=lambda name, done, total: stages.append(name), **options)
    before = fit(field=0.3)

    def distance(protector: LocalFeatures) -> float:
        output = protector.protect(faces(4), drawn()).values()
        with torch.no_grad():
            found = [1 - (one(output) * one(faces(4))).sum(1).mean() for one in list(toys.values())[:3]]
        return float(torch.stack(found).mean())

    assert distance(made) < 0.9 * distance(before)
    assert stages[0].startswith("anonymiser-")
    about = dict(made.provenance.training)
    assert about["people"] == 2
    assert str(about["surrogate_0"]).startswith("first 0")
    assert made.teachers == NAMES
    made.save(tmp_path / "made")
    loaded = load_protector(tmp_path / "made", made.recognizer)
    assert torch.equal(loaded.protect(faces(2), drawn()).tensor, made.protect(faces(2), drawn()).tensor)
    assert loaded.provenance == made.provenance


def test_interrupted_learning_ends_where_it_would_have(toys: dict[str, Surrogate], tmp_path: Path) -> None:
    options = {**LEARNED, **QUICK, "epochs": 2, "batch": 2, "images": faces(4)}
    whole = fit(**options)

    class Stop(Exception):
        pass

    def stop(name: str, done: int, total: int) -> None:
        if done == 3:
            raise Stop

    clock = iter(range(0, 100_000, 1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bauta.learning.learners.time.monotonic", lambda: next(clock))  # a checkpoint at every step
        with pytest.raises(Stop):
            fit(**options, work=tmp_path, progress=stop)
    resumed = fit(**options, work=tmp_path)
    for name, value in whole.parts().items():
        assert torch.equal(value, resumed.parts()[name]), name


def test_a_loss_that_is_no_number_stops_it(toys: dict[str, Surrogate]) -> None:
    for surrogate in toys.values():
        surrogate.forward = lambda crops: torch.full((len(crops), 32), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(NumericalFailure, match="at step 1 of 2"):
        fit(**LEARNED, **QUICK)


def test_the_learned_part_is_checked_when_it_is_read() -> None:
    made = LocalFeatures(toy_surrogate(), LocalFeaturesConfig.of(LEARNED), Anonymiser(4))
    for parts in ({}, {"anonymiser.x": torch.zeros(1)}):
        with pytest.raises(WeightsCorrupt, match="learned parts do not fit"):
            LocalFeatures.restore(made.recognizer, made.settings(), parts, made.provenance)
    with pytest.raises(UsageError, match="no network"):
        LocalFeatures(toy_surrogate(), LocalFeaturesConfig.of(LEARNED))
    with pytest.raises(UsageError, match="takes no network"):
        LocalFeatures(toy_surrogate(), LocalFeaturesConfig(), Anonymiser(4))


# Bad input


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "best"}, "mode='best'"),
        ({"sigma": 0}, "sigma"),
        ({"cells": [5, 3]}, "cells"),
        ({"bits": 9}, "bits"),
        ({"dropout": 1.0}, "dropout"),
        ({"colours": True}, "no setting colours"),
        ({"sigma": "wide"}, "sigma='wide'"),
        ({"surrogates": list(NAMES)}, "train-free mode learns from none"),
        ({"mode": "learned"}, "0 different surrogates"),
        ({"mode": "learned", "surrogates": "first"}, "1 different surrogates"),
        ({"mode": "learned", "surrogates": ["first", "second", "second"]}, "2 different surrogates"),
        ({"preset": "best"}, "no preset 'best'"),
        ({"losses": {"enough": -1}}, "enough"),
        ({"losses": {"lpips": 1}}, "no setting lpips"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fit(**settings)


def test_faces_and_surrogates_that_cannot_teach_are_refused(toys: dict[str, Surrogate]) -> None:
    with pytest.raises(UsageError, match="one network"):
        fit(**{**LEARNED, "surrogates": ["first", "second", "again"]}, **QUICK)
    with pytest.raises(UsageError, match="one person"):
        fit(**LEARNED, **QUICK, people=["a"] * 8)
    with pytest.raises(UsageError, match="8 faces have 2 names"):
        fit(**LEARNED, **QUICK, people=["a", "b"])
    with pytest.raises(UsageError, match="shape"):
        fit(**LEARNED, **QUICK, images=torch.zeros(4, 3, 96, 96))
    with pytest.raises(UsageError, match="Nothing can be computed on 'moon'"):
        fit(**LEARNED, **QUICK, device="moon")


def test_a_judge_cannot_be_a_surrogate(monkeypatch: pytest.MonkeyPatch) -> None:
    from bauta.recognizers import surrogates

    judge = replace(toy_surrogate().card, name="edgeface_xxs", roles=frozenset({"judge"}))
    monkeypatch.setattr(surrogates, "find_card", lambda name: judge)
    with pytest.raises(RoleRefused, match="edgeface_xxs"):
        fit(mode="learned", surrogates=["edgeface_xxs", "second", "third"])


# The optimised mode

OPTIMISED: dict[str, Any] = {"preset": "optimised", "surrogates": list(NAMES), "iterations": 6, "components": 4}


def test_a_face_of_nobody_is_taken_for_somebody(toys: dict[str, Surrogate]) -> None:
    """Within epsilon of a face that the photo has no say in, the templates of all surrogates go to the photo's."""
    protector = fit(**OPTIMISED | {"iterations": 20})
    images = faces(3, 7)
    stored = protector.protect(images, drawn(2)).values()

    assert protector.stand_ins is not None
    nobody = protector.stand_ins.draw(3, Draws(drawn(2)))  # the first that is drawn
    assert float((stored - nobody).abs().max()) <= (8 + 0.5) / 255 + 1e-6
    for name in NAMES:
        wanted, before, after = (toys[name](one) for one in (images, nobody, stored))
        assert float((after * wanted).sum(1).mean()) > float((before * wanted).sum(1).mean()) + 0.02


def test_faces_of_nobody_have_the_moments_of_faces() -> None:
    images = torch.cat([faces(24, seed) for seed in range(2)])
    stand_ins = StandIns(40)
    stand_ins.learn((images * 255).round().byte())
    drawn_faces = stand_ins.draw(256, Draws(drawn()))
    assert drawn_faces.shape == (256, 3, 112, 112)
    even = (images + images.flip(3)).mean(0) / 2  # mirrored as often as not
    wanted, found = (nn.functional.avg_pool2d(one, 4) for one in (even, drawn_faces.mean(0)))
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0)
    deviation = nn.functional.avg_pool2d(torch.cat([images, images.flip(3)]), 4).std(0)
    assert 0.4 < float(nn.functional.avg_pool2d(drawn_faces, 4).std(0).mean() / deviation.mean()) < 0.66  # AMOUNT
    with pytest.raises(UsageError, match="8 faces are too few for 40 components"):
        StandIns(40).learn(faces(8))


def test_only_templates_of_the_photo_enter(toys: dict[str, Surrogate], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two photos of the same templates become the same image: nothing else of a photo can be recovered from it."""
    from bauta.templates.local import stand_ins

    protector = fit(**OPTIMISED)
    image = faces(1, 7)
    other = (image + 0.3 * torch.rand(image.shape, generator=drawn(5))).clamp(0, 1)
    given, mirrored = ({name: toys[name](one) for name in NAMES} for one in (image, image.flip(3)))

    def run(seen: Tensor) -> Tensor:
        draws = Draws(drawn(2))
        nobody = torch.full_like(image, 0.5)
        with monkeypatch.context() as patch:
            # What each surrogate says of the photo and of its mirror image, asked once each.
            first = {name: [mirrored[name], given[name]] for name in NAMES}
            known = [lambda crops, name=name: first[name].pop() if first[name] else toys[name](crops) for name in NAMES]
            for one, name in zip(known, NAMES, strict=True):
                one.card = toys[name].card  # type: ignore[attr-defined]
            patch.setattr(stand_ins, "retemplate", lambda images, template: images)
            return stand_ins.write_identity(nobody, seen, known, protector.config, draws)  # type: ignore[arg-type]

    assert torch.equal(run(image), run(other))


def test_a_look_is_moved_and_turned_a_little_and_as_often_mirrored() -> None:
    """Read off images whose pixels say where they were: colours are places, in [0, 1]."""
    from bauta.templates.local import stand_ins

    place = (torch.arange(112.0) + 0.5) / 112
    across, down = place.expand(112, 112), place[:, None].expand(112, 112)
    images = torch.stack([across, down, torch.zeros(112, 112)]).expand(2, 3, 112, 112)
    draws, mirrored = Draws(drawn(3)), 0
    for _ in range(60):
        seen = stand_ins._moved(images, draws)
        assert torch.equal(seen[0], seen[1])
        x, y = seen[0, 0, 20:92, 20:92], seen[0, 1, 20:92, 20:92]  # clear of the borders, which are repeated
        way = 1 if float(x[0, -1] - x[0, 0]) > 0 else -1
        mirrored += way < 0
        assert float((x.mean() - 0.5).abs()) < 3.01 / 112
        assert float((y.mean() - 0.5).abs()) < 3.01 / 112
        sizes = [float((x[:, -1] - x[:, 0]).mean() * way), float((y[-1] - y[0]).mean())]
        assert sizes == pytest.approx([sizes[0]] * 2, abs=1e-5)
        assert abs(sizes[0] * 112 / 71 - 1) < 0.0601
        assert float((y[:, -1] - y[:, 0]).mean().abs()) * 112 / 71 < 0.0601
    assert 20 <= mirrored <= 40


def test_the_optimised_mode_is_kept_and_read(toys: dict[str, Surrogate], tmp_path: Path) -> None:
    protector = fit(**OPTIMISED, people=[f"p{place}" for place in range(8)])
    protector.save(tmp_path / "one")
    kept = load_protector(tmp_path / "one", protector.recognizer)
    images = faces(2, 7)
    assert torch.equal(kept.protect(images, drawn()).tensor, protector.protect(images, drawn()).tensor)
    assert not torch.equal(protector.protect_anew(images).tensor, protector.protect_anew(images).tensor)
    assert kept.teachers == NAMES
    toys["first"] = toy_surrogate(9, "first")
    with pytest.raises(UsageError, match="'first' is not the network"):
        load_protector(tmp_path / "one", protector.recognizer).protect(images)


def test_parts_and_faces_that_do_not_serve_the_optimised_mode_are_refused(toys: dict[str, Surrogate]) -> None:
    protector = fit(**OPTIMISED)
    with pytest.raises(WeightsCorrupt, match=r"stand_ins\.components. is missing"):
        LocalFeatures.restore(protector.recognizer, protector.settings(), {}, protector.provenance)
    with pytest.raises(UsageError, match="optimised mode has no faces of nobody"):
        LocalFeatures(protector.recognizer, protector.config)
    with pytest.raises(UsageError, match="train-free mode takes no faces of nobody"):
        LocalFeatures(protector.recognizer, stand_ins=protector.stand_ins)
    with pytest.raises(UsageError, match="one network"):
        fit(**{**OPTIMISED, "surrogates": ["first", "second", "again"]})
    with pytest.raises(UsageError, match="are too few"):
        fit(**{**OPTIMISED, "surrogates": ["first", "second"]})
    with pytest.raises(UsageError, match="one person"):
        fit(**OPTIMISED, people=["a"] * 8)


def test_a_gradient_that_is_no_number_stops_it(toys: dict[str, Surrogate]) -> None:
    protector = fit(**OPTIMISED)
    broken = toy_surrogate(1, "first")
    good = toys["first"]
    broken.forward = lambda crops: good(crops) * (torch.nan if crops.requires_grad else 1)  # type: ignore[method-assign]
    protector.surrogates[0] = broken
    with pytest.raises(NumericalFailure, match="not a number"):
        protector.protect(faces(1), drawn())


# Attackers of randomness


def access(tmp_path: Path, protector: LocalFeatures) -> Access:
    from bauta.benchmark.stores.representations import Faces, protect_faces

    pixels = (faces(12) * 255).byte()
    people = Faces("toys", "0" * 64, pixels, tuple(f"p{place}" for place in range(12)))
    victims = faces(4, 9)
    stolen = protector.protect(victims, drawn(3)).values()
    own = protect_faces(protector, people, tmp_path, seed=0)
    return Access(
        protector, people, people, own, stolen, None, None, tmp_path, 0, lambda what, done, total: None, victims
    )  # fmt: skip


def test_an_attackers_faces_do_not_meet_the_randomness_of_the_victims(tmp_path: Path) -> None:
    from bauta.benchmark.stores.representations import Faces, protect_faces

    protector, pixels = fit(noise=0.2), (faces(1) * 255).byte()
    stored = [
        protect_faces(protector, Faces(name, name * 64, pixels, ("one",)), tmp_path, seed=0).values for name in "ab"
    ]
    assert stored[0] is not None
    assert stored[1] is not None
    assert not torch.equal(stored[0], stored[1])


def test_attackers_of_randomness_say_what_they_saw(tmp_path: Path) -> None:
    decoder = {"decoder": "residual", "channels": 4, "epochs": 1, "batch": 12}
    given = access(tmp_path, fit(noise=0.2))
    said = {}
    for name, option in (
        ("one", {}),
        ("fresh", {"fresh": True}),
        ("shared", {"shared": True}),
        ("eight", {"draws": 8}),
    ):
        attack = Attack(name, "decoder", adaptive=True, options={**decoder, **option})
        outcome = carry_out(attack, given)
        assert outcome.images is not None
        assert outcome.images.shape == (4, 3, 112, 112)
        said[name] = outcome.card.ours
    assert "mean of 8 protections" in said["eight"]
    assert "same randomness" in said["shared"]
    assert "anew in every epoch" in said["fresh"]
    assert said["one"] == "Network, sizes and schedule."
    assert isinstance(given.pairs(Attack("f", "decoder", adaptive=True, options={"fresh": True})), OraclePairs)


def test_a_mean_of_draws_has_less_noise_and_shared_randomness_is_shared(tmp_path: Path) -> None:
    given = access(tmp_path, fit(noise=0.2, bits=8))
    assert given.victims is not None
    fine = given.victims - gaussian_blur(given.victims, 4.0)

    def clarity(**options: Any) -> float:
        attack = Attack("x", "decoder", adaptive=True, options=options)
        values = given.drawn_otherwise(given.victims, attack, None, "victims")  # type: ignore[arg-type]
        return correlation(values - gaussian_blur(values, 4.0), fine)

    assert clarity(draws=8) > clarity(draws=1) + 0.1
    same = given.victims[:1].repeat(2, 1, 1, 1)
    attack = Attack("x", "decoder", adaptive=True, options={"shared": True})
    one, other = given.drawn_otherwise(same, attack, None, "victims")
    assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"fresh": True, "draws": 2}, {"draws": 0}, {"shared": True, "draws": 3}])
def test_options_of_randomness_that_contradict_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"randomness|draws"):
        carry_out(Attack("odd", "decoder", adaptive=True, options=options), access(tmp_path, fit()))


# The benchmark


def test_the_carried_recipe_attacks_it_with_each_randomness() -> None:
    recipe = read_template_recipe("local-features-small")
    assert {"fresh decoder", "mean decoder", "shared decoder"} <= {one.name for one in recipe.attackers}
    for row in recipe.rows:
        if row.method == "local-features":
            options = {name: value for name, value in row.options.items() if name != "epochs"}
            LocalFeaturesConfig.of(options, options.pop("preset", "default"))


def test_who_taught_a_protector_does_not_judge_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = fit()
    taught.teachers = ("judge",)
    monkeypatch.setattr(templates, "make_protector", lambda *args: taught)
    recipe = replace(read_template_recipe("local-features-small"), judges=("judge", "other"))
    setup: Any = type("Setup", (), {"recipe": recipe})()
    with pytest.raises(UsageError, match="cannot judge it"):
        templates.StoreKind().row((setup, Job(tmp_path)), TemplateRow("row", "local-features"), {})


def test_it_is_registered() -> None:
    assert load_method("local-features", kind="protector") is LocalFeatures
