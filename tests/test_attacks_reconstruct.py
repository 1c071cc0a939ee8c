"""Decoders learn, go on where they stopped, and stop at what is not a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attack_toys import cut_recognizer, toy_faces
from bauta.attacks.generative import GenerativeConfig, fit_generative
from bauta.attacks.oracle import OraclePairs, StoredPairs
from bauta.attacks.reconstruct import (
    NBNET,
    Decoding,
    ImageLoss,
    ReconstructionConfig,
    begin,
    fit_reconstructor,
)
from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt
from bauta.learning.decoders import build_decoder
from bauta.learning.learners import Schedule, train
from bauta.templates.references import ConstantImage, IdentityFeature, NoisyImage

SMALL = ReconstructionConfig(decoder="residual", channels=8, schedule=Schedule(epochs=3, batch=8, rate=1e-2))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return toy_faces(16, 2)[0]


def feature_pairs(pixels: Tensor) -> StoredPairs:
    protector = IdentityFeature(cut_recognizer(), split="1")
    values = protector.protect(pixels.float() / 255, torch.Generator().manual_seed(0)).values()
    return StoredPairs(values.half(), pixels, key="clean")


@pytest.mark.parametrize(
    ("decoder", "shape"),
    [
        ("unet", (64, 56, 56)),
        ("unet", (3, 112, 112)),
        ("residual", (5, 28, 28)),
        ("residual", (40,)),
        ("deconvolution", (12, 14, 14)),
        ("deconvolution", (3, 112, 112)),
        ("deconvolution", (40,)),
        ("unet", (6, 35, 35)),
    ],
)
def test_every_decoder_gives_112_pixels(decoder: str, shape: tuple[int, ...]) -> None:
    network = build_decoder(decoder, shape, 4).eval()
    with torch.no_grad():
        images = network(torch.randn(2, *shape))
    assert images.shape == (2, 3, 112, 112)
    assert images.isfinite().all()


def test_a_decoder_learns_to_recover_faces_of_people_it_never_saw(pixels: Tensor) -> None:
    strangers = toy_faces(4, 1, seed=9)[0]
    protector = IdentityFeature(cut_recognizer(), split="1")
    fitted = fit_reconstructor(
        feature_pairs(pixels), replace(SMALL, channels=16, schedule=Schedule(epochs=8, batch=8, rate=5e-3))
    )
    stored = protector.protect(strangers.float() / 255, torch.Generator().manual_seed(0))
    found = fitted.reconstruct(stored.values())
    mean_face = (pixels.float() / 255).mean(0)
    wanted = strangers.float() / 255
    assert (found - wanted).abs().mean() < 0.8 * (mean_face - wanted).abs().mean()
    assert fitted.fitted["steps"] == 32


def test_an_interrupted_training_ends_as_one_that_was_not(pixels: Tensor, tmp_path: Path) -> None:
    pairs, config = feature_pairs(pixels[:16]), SMALL
    whole = fit_reconstructor(pairs, config)

    class Interrupt(Exception):
        pass

    def stop(name: str, done: int, total: int) -> None:
        if done == 4:
            raise Interrupt

    learner = Decoding(pairs, begin(pairs, "residual", 8, 0), ImageLoss(config), config.schedule.rate)
    key = f"{pairs.key} {config.to_dict()}"
    with pytest.raises(Interrupt):
        train(learner, len(pairs), config.schedule, key=key, work=tmp_path, name="decoder", save_every=0, progress=stop)
    seen = []
    resumed = fit_reconstructor(
        pairs, config, work=tmp_path, progress=lambda name, done, total: seen.append((name, done, total))
    )
    assert seen[0][1:] == (4, 6)  # the step that was interrupted is taken again
    for name, value in whole.decoder.state_dict().items():
        assert torch.equal(value, resumed.decoder.state_dict()[name]), name
    assert resumed.fitted["absolute"] == whole.fitted["absolute"]
    again = fit_reconstructor(pairs, config, work=tmp_path, progress=lambda *_: pytest.fail("trained again"))
    assert again.fitted["steps"] == 6


def test_what_is_no_number_stops_the_training_and_the_last_good_state_is_kept(pixels: Tensor, tmp_path: Path) -> None:
    pairs = feature_pairs(pixels[:16])

    class Breaking(StoredPairs):
        asked = 0

        def representations(self, index: Tensor, generator: torch.Generator) -> Tensor:
            Breaking.asked += 1
            values = super().representations(index, generator)
            return values * torch.nan if Breaking.asked > 4 else values

    broken = Breaking(pairs.values, pairs.pixels, key="clean")
    config = SMALL
    decoder = begin(broken, "residual", 8, 0)
    learner = Decoding(broken, decoder, ImageLoss(config), config.schedule.rate)
    with pytest.raises(NumericalFailure, match=r"step 4 of 6.*keeps an earlier state"):
        train(learner, len(broken), config.schedule, key="same", work=tmp_path, save_every=0)
    Breaking.asked = -1000
    learner = Decoding(broken, begin(broken, "residual", 8, 0), ImageLoss(config), config.schedule.rate)
    steps = []
    train(
        learner, len(broken), config.schedule, key="same", work=tmp_path,
        progress=lambda name, done, total: steps.append(done),
    )  # fmt: skip
    assert steps == [4, 5, 6]
    assert all(value.isfinite().all() for value in learner.decoder.state_dict().values())


def test_a_checkpoint_of_other_pairs_or_a_damaged_one_is_refused(pixels: Tensor, tmp_path: Path) -> None:
    config = replace(SMALL, schedule=Schedule(epochs=1, batch=8))
    fit_reconstructor(feature_pairs(pixels), config, work=tmp_path)
    with pytest.raises(UsageError, match="other pairs"):
        fit_reconstructor(feature_pairs(pixels[:16]), config, work=tmp_path)
    (tmp_path / "decoder.safetensors").write_bytes(b"cut off")
    with pytest.raises(WeightsCorrupt, match="decoder"):
        fit_reconstructor(feature_pairs(pixels), config, work=tmp_path)


def test_an_oracle_is_asked_anew_and_its_draws_differ(pixels: Tensor) -> None:
    pairs = OraclePairs(NoisyImage(cut_recognizer()), pixels)
    index = torch.arange(3)
    first, second = (pairs.representations(index, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert pairs.shape == (3, 112, 112)
    assert not torch.equal(first, second)
    assert torch.equal(first, pairs.representations(index, torch.Generator().manual_seed(0)))


def test_oracles_with_other_keys_are_told_apart(pixels: Tensor) -> None:
    open_, locked = (OraclePairs(NoisyImage(cut_recognizer()), pixels, about=about) for about in ("", "key 1"))
    assert open_.key != locked.key


def test_where_nothing_is_stored_the_best_decoder_is_the_mean_face(pixels: Tensor) -> None:
    pairs = OraclePairs(ConstantImage(cut_recognizer()), pixels[:16])
    fitted = fit_reconstructor(pairs, SMALL)
    found = fitted.reconstruct(pairs.representations(torch.arange(4), torch.Generator()))
    assert found.std(0).max() < 1e-6  # the same for everybody


def test_a_loss_on_identity_asks_the_recogniser(pixels: Tensor) -> None:
    recognizer = cut_recognizer()
    pairs = feature_pairs(pixels[:16])
    config = replace(NBNET, decoder="residual", channels=8, schedule=Schedule(epochs=1, batch=8))
    with pytest.raises(UsageError, match="recogniser"):
        fit_reconstructor(pairs, config)
    fitted = fit_reconstructor(pairs, config, embed=recognizer)
    assert {"absolute", "similarity", "identity"} <= fitted.fitted.keys()
    images = pairs.images(torch.arange(4))
    terms = ImageLoss(config, recognizer).terms(images, images)
    assert all(float(term) == pytest.approx(0, abs=1e-5) for term in terms.values())


def test_a_critic_is_learned_with_the_decoder(pixels: Tensor, tmp_path: Path) -> None:
    pairs = feature_pairs(pixels)
    config = GenerativeConfig(replace(SMALL, schedule=Schedule(epochs=6, batch=8, rate=1e-2)), critic_channels=4)
    fitted = fit_generative(pairs, config, work=tmp_path)
    assert {"critic", "adversarial", "absolute"} <= fitted.fitted.keys()
    wanted = pairs.images(torch.arange(8))
    found = fitted.reconstruct(pairs.representations(torch.arange(8), torch.Generator()))
    assert (found - wanted).abs().mean() < 0.9 * (wanted.mean(0) - wanted).abs().mean()
    vectors = StoredPairs(torch.randn(8, 12), pixels[:8], key="vectors")
    fit_generative(vectors, replace(config, decoder=replace(SMALL, schedule=Schedule(epochs=1, batch=4))))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: ReconstructionConfig(decoder="vae"), "decoder='vae'"),
        (lambda: ReconstructionConfig(channels=3), "channels=3"),
        (lambda: ReconstructionConfig(absolute=0), "needs a loss"),
        (lambda: Schedule(rate=0), "rate=0"),
        (lambda: GenerativeConfig(adversarial=0), "critic"),
        (lambda: build_decoder("unet", (512,), 8), "vectors"),
        (lambda: build_decoder("unet", (2, 3), 8), "shape"),
        (lambda: StoredPairs(torch.zeros(2, 3), torch.zeros(1, 3, 112, 112, dtype=torch.uint8), key=""), "no pairs"),
        (lambda: StoredPairs(torch.zeros(0, 3), torch.zeros(0, 3, 112, 112, dtype=torch.uint8), key=""), "no images"),
        (lambda: StoredPairs(torch.zeros(1, 3), torch.zeros(1, 3, 112, 112), key=""), "float32"),
        (lambda: fit_reconstructor(feature_pairs(toy_faces(1, 1)[0]), SMALL), "from 1 pairs"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()  # type: ignore[operator]
