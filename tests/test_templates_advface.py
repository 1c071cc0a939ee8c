"""AdvFace: budgets, what its terms do, its reference key, its training and its commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_msssim import ssim
from torch.nn import functional

from bauta.cli.run import run
from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt
from bauta.gallery.enrol import names_of_photos
from bauta.keys import create_key_file
from bauta.learning import learners
from bauta.learning.decoders import fused, start_decoder
from bauta.recognizers.cards import format_card
from bauta.recognizers.splits import find_cut, list_cuts
from bauta.templates.advface.protector import AdvFace
from bauta.templates.advface.settings import AdvFaceConfig
from bauta.templates.advface.shadow_loss import ShadowLoss
from bauta.templates.advface.shadows import Shadow, fit_shadow
from bauta.templates.base import load_protector
from conftest import drawn, faces
from conftest import fitted as fitted_with
from recognizer_builders import card_of, linear_model

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def fitted() -> AdvFace:
    return fit(
        faces(32, 1), split="8x27x27", shadows=["residual-8"],
        epochs=6, batch=8, rate=1e-2, iterations=6,
    )  # fmt: skip


def changed(fitted: AdvFace, **settings: Any) -> AdvFace:
    config = AdvFaceConfig.of({**fitted.config.to_dict(), **settings})
    return AdvFace.restore(fitted.recognizer, config.to_dict(), fitted.parts(), fitted.provenance)


def squared_error(protector: AdvFace, features: torch.Tensor, clean: torch.Tensor) -> float:
    """Of the images that the shadow decodes."""
    shadow = protector.shadows[0]
    return float((shadow(features) - shadow(clean)).square().mean())


@pytest.mark.parametrize("settings", [{}, {"in_range": False}, {"anchor": "self"}, {"identity": 0.0, "momentum": 0.0}])
def test_the_box_is_kept(fitted: AdvFace, settings: dict[str, Any]) -> None:
    protector = changed(fitted, epsilon=0.3, step=0.15, iterations=6, **settings)
    features = protector.front(faces())
    noise = (protector.disturb(features, drawn()) - features) / protector.statistics.std[:, None, None]
    assert 0.2 < float(noise.abs().max()) <= 0.3 + 1e-4


def test_the_ball_is_kept(fitted: AdvFace) -> None:
    protector = changed(fitted, epsilon=0.3, step=0.15, iterations=12, norm="l2", in_range=False)
    features = protector.front(faces())
    noise = (protector.disturb(features, drawn()) - features) / protector.statistics.std[:, None, None]
    lengths = noise.square().mean((1, 2, 3)).sqrt()
    assert 0.25 < float(lengths.max()) <= 0.3 + 1e-4
    assert float(noise.abs().max()) > 0.3


def test_values_stay_in_the_range_of_clean_ones(fitted: AdvFace) -> None:
    features = fitted.front(faces(8, 1))
    low, high = (getattr(fitted.statistics, name)[:, None, None] for name in ("low", "high"))
    low, high = torch.minimum(low, features), torch.maximum(high, features)
    stored = changed(fitted, epsilon=3.0).disturb(features, drawn())
    assert bool(((stored >= low - 1e-4) & (stored <= high + 1e-4)).all())
    free = changed(fitted, epsilon=3.0, in_range=False).disturb(features, drawn())
    assert not bool(((free >= low - 1e-4) & (free <= high + 1e-4)).all())


def test_at_the_feature_itself_there_is_no_gradient(fitted: AdvFace) -> None:
    protector = changed(fitted, structure=0.0)
    features = fitted.front(faces(2))
    std, nothing = fitted.statistics.std[None, :, None, None], torch.zeros_like(features)
    with torch.no_grad():
        here = changed(protector, anchor="self")._cycle(features, std)
        moved = protector._cycle(features, std)
    assert float(here.gradient(nothing).abs().max()) == 0
    assert float(moved.gradient(nothing).abs().max()) > 0


def test_the_gradient_is_that_of_the_whole_shadow(fitted: AdvFace) -> None:
    protector = changed(fitted, structure=0.0)
    features = fitted.front(faces(2))
    wanted = fitted.shadows[0](features)
    anchor = fitted.front(fitted.crops(wanted))
    std = fitted.statistics.std[None, :, None, None]
    noise = 0.3 * torch.randn(features.shape, generator=drawn())
    with torch.no_grad():
        found = protector._cycle(features, std).gradient(noise)
    variable = noise.clone().requires_grad_()
    loss = (fitted.shadows[0](anchor + variable * std) - wanted).square().mean((1, 2, 3)).sum()
    (gradient,) = torch.autograd.grad(loss, variable)
    expected = gradient / gradient.square().sum((1, 2, 3), keepdim=True).sqrt()
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-3)


def test_each_shadow_has_the_same_say_and_the_first_makes_the_image(fitted: AdvFace) -> None:
    other = start_decoder("unet", 3 * fitted.front(faces(8, 5)) + 1, faces(1, 6)[0], 8, 4).eval()
    config = AdvFaceConfig.of({**fitted.config.to_dict(), "shadows": ["residual-8", "unet-8"], "structure": 0.0})
    protector = AdvFace(fitted.recognizer, config, [start_and_load(fitted), other], fitted.statistics)
    features = fitted.front(faces(2))
    std, wanted = fitted.statistics.std[None, :, None, None], fitted.shadows[0](features)
    anchor = fitted.front(fitted.crops(wanted))
    noise = 0.3 * torch.randn(features.shape, generator=drawn())
    with torch.no_grad():
        found = protector._cycle(features, std).gradient(noise)
    expected = torch.zeros_like(features)
    for shadow in protector.shadows:
        variable = noise.clone().requires_grad_()
        loss = (shadow(anchor + variable * std) - wanted).square().mean((1, 2, 3)).sum()
        (gradient,) = torch.autograd.grad(loss, variable)
        expected += gradient / gradient.square().sum((1, 2, 3), keepdim=True).sqrt() / 2
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-3)


def test_more_iterations_hide_more(fitted: AdvFace) -> None:
    features = fitted.front(faces())
    errors = [
        squared_error(
            fitted, changed(fitted, iterations=count, identity=0.0, structure=0.0).disturb(features, drawn()), features
        )
        for count in (1, 3, 10)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_it_hides_more_than_noise_of_the_same_size(fitted: AdvFace) -> None:
    features = fitted.front(faces())
    std = fitted.statistics.std[:, None, None]
    signs = torch.where(torch.rand(features.shape, generator=drawn()) < 0.5, -1.0, 1.0)
    adversarial = changed(fitted, identity=0.0, structure=0.0, in_range=False).disturb(features, drawn())
    random = features + fitted.config.epsilon * std * signs
    assert squared_error(fitted, adversarial, features) > 4 * squared_error(fitted, random, features)


@pytest.mark.parametrize("every", [0, 1, 2])
def test_the_identity_term_keeps_the_template(fitted: AdvFace, every: int) -> None:
    features = fitted.front(faces())
    clean = fitted.back(features)
    cosines = [
        float(
            (fitted.back(changed(fitted, identity=weight, identity_every=every).disturb(features, drawn())) * clean)
            .sum(1)
            .mean()
        )
        for weight in (0.0, 1.0)
    ]
    assert cosines[0] + 0.001 < cosines[1]


@pytest.mark.parametrize(
    ("iterations", "every", "looks"),
    [(20, 0, [14]), (14, 0, [10]), (2, 0, [1]), (1, 0, []), (20, 7, [7, 14]), (3, 1, [1, 2]), (5, 5, [])],
)
def test_the_cosine_is_looked_at_late(
    fitted: AdvFace, monkeypatch: pytest.MonkeyPatch, iterations: int, every: int, looks: list[int]
) -> None:
    protector = changed(fitted, iterations=iterations, identity_every=every)
    assert list(protector.config.looks) == looks
    assert not changed(fitted, identity=0.0).config.looks
    seen = []
    look = AdvFace._identity_gradient
    monkeypatch.setattr(AdvFace, "_identity_gradient", lambda *words: seen.append(1) or look(*words))
    protector.disturb(fitted.front(faces(1)), drawn())
    assert len(seen) == len(looks)


def test_the_structure_term_lowers_the_similarity_of_shadow_images(fitted: AdvFace) -> None:
    features = fitted.front(faces())
    shadow = fitted.shadows[0]
    similarities = []
    for weight in (0.0, 3.0):
        stored = changed(fitted, structure=weight, identity=0.0, epsilon=2.0).disturb(features, drawn())
        similarities.append(float(ssim(shadow(stored), shadow(features), data_range=1.0)))
    assert similarities[1] < similarities[0] - 0.003


@pytest.mark.parametrize("structure", [0.0, 0.7])
def test_the_gradient_of_what_shadows_lose_is_that_of_grey_squares_compared(structure: float) -> None:
    image, starts = faces(2, 2), [torch.logit(face.clamp(0.02, 0.98)) for face in faces(3, 3)]
    logits = [torch.randn(2, 3, 112, 112, generator=drawn(seed)).requires_grad_() for seed in range(3)]
    logits[1] = logits[1].detach().contiguous(memory_format=torch.channels_last).requires_grad_()

    def squares(images: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(images, 8, 4)

    def lost(decoded: torch.Tensor) -> torch.Tensor:
        shown, wanted = decoded.mean(1, keepdim=True), image.mean(1, keepdim=True)
        means, other = squares(shown), squares(wanted)
        spread = squares(shown.square()) - means.square() + squares(wanted.square()) - other.square()
        similar = (2 * (squares(shown * wanted) - means * other) + 0.0009) / (spread + 0.0009)
        return (decoded - image).square().mean() - structure * similar.mean()

    loss = sum(lost(torch.sigmoid(one + start)) for one, start in zip(logits, starts, strict=True))
    assert isinstance(loss, torch.Tensor)
    expected = torch.autograd.grad(loss * image.numel() / 2, logits)
    compared = ShadowLoss(image, starts, structure)
    for _ in range(2):  # working memory carries nothing over
        found = compared.gradients([one.detach() for one in logits])
        for one, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(one, wanted, atol=1e-3 * float(wanted.abs().max()), rtol=0)


def test_a_face_does_not_depend_on_its_batch(fitted: AdvFace) -> None:
    protector = changed(fitted, norm="l2")  # signs of nearly nothing hang on rounding
    features = protector.front(faces(3))
    together = protector.disturb(features, drawn())
    torch.testing.assert_close(together[1:2], protector.disturb(features[1:2], drawn()), atol=1e-3, rtol=0)


def test_noise_that_stays_is_drawn_anew(fitted: AdvFace) -> None:
    noisy = changed(fitted, noise=0.5)
    first, again, other = (noisy.protect(faces(1), drawn(seed)).values() for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert float((first - other).abs().mean()) > 0.1 * float(fitted.statistics.std.mean())


def test_an_ensemble_averages_over_its_shadows(fitted: AdvFace) -> None:
    twice = AdvFace(
        fitted.recognizer,
        AdvFaceConfig.of({**fitted.config.to_dict(), "shadows": ["residual-8", "residual-8-noise-0.1"]}),
        [start_and_load(fitted), start_and_load(fitted)],
        fitted.statistics,
    )
    features = fitted.front(faces(2))
    torch.testing.assert_close(twice.disturb(features, drawn()), fitted.disturb(features, drawn()), atol=1e-4, rtol=0)


def start_and_load(fitted: AdvFace) -> torch.nn.Module:
    decoder = start_decoder("residual", torch.zeros(2, 8, 27, 27), torch.full((3, 112, 112), 0.5), 8, 0)
    parts = {name[9:]: value for name, value in fitted.parts().items() if name.startswith("shadow.0.")}
    decoder.load_state_dict({name: one.float() if one.is_floating_point() else one for name, one in parts.items()})
    return decoder


def test_it_works_on_templates() -> None:
    protector = fit(
        faces(12, 1), split="template", shadows=["deconvolution-4"],
        epochs=1, iterations=3,
    )  # fmt: skip
    stored = protector.protect(faces(3), drawn(), KEY)
    assert (stored.kind, tuple(stored.tensor.shape)) == ("template", (3, 32))
    torch.testing.assert_close(
        protector.templates(stored, KEY), protector.templates(protector.protect(faces(3), drawn())), atol=5e-3, rtol=0
    )


# Storage, and the key of the broken reference


@pytest.mark.parametrize(("storage", "each"), [("float32", 23328), ("float16", 11664), ("uint8", 5832)])
def test_storage_forms(fitted: AdvFace, storage: str, each: int) -> None:
    exact = changed(fitted, storage="float32")
    protector = changed(fitted, storage=storage)
    for key in (None, KEY):
        stored = protector.protect(faces(), drawn(), key)
        assert stored.bytes_each == each
        wanted = exact.templates(exact.protect(faces(), drawn()))
        assert float((protector.templates(stored, key) * wanted).sum(1).min()) > 0.99


def test_the_key_is_needed_and_changes_what_is_stored(fitted: AdvFace) -> None:
    first, second = (fitted.protect(faces(2), drawn(), key) for key in (KEY, KEY[::-1]))
    plain = fitted.protect(faces(2), drawn())
    standardised = fitted._standardised(fitted.features(plain)).flatten()
    for stored in (first, second):
        correlation = np.corrcoef(stored.values().flatten().numpy(), standardised.numpy())[0, 1]
        assert abs(correlation) < 0.1
    torch.testing.assert_close(fitted.features(first, KEY), fitted.features(plain), atol=5e-3, rtol=0)
    for stored, key in ((first, None), (first, KEY[::-1]), (plain, KEY)):
        with pytest.raises(UsageError, match="was made"):
            fitted.templates(stored, key)
    with pytest.raises(UsageError, match="5 bytes"):
        fitted.protect(faces(1), drawn(), b"short")


def test_what_was_locked_is_stored_unlocked_to_be_sealed(fitted: AdvFace) -> None:
    plain, locked = (fitted.protect(faces(2), drawn(), key) for key in (None, KEY))
    unlocked = fitted.unlocked(locked, KEY)
    assert (unlocked.key, unlocked.storage) == ("", fitted.config.storage)
    torch.testing.assert_close(unlocked.values(), plain.values(), atol=5e-3, rtol=0)
    with pytest.raises(UsageError, match="with another key"):
        fitted.unlocked(locked, KEY[::-1])


def test_lock_and_unlock_are_inverse(fitted: AdvFace) -> None:
    features = fitted.front(faces(2))
    torch.testing.assert_close(fitted.unlock(fitted.lock(features, KEY), KEY), features, atol=1e-4, rtol=0)


# Settings, training


def test_the_paper_preset_is_what_is_known() -> None:
    paper = AdvFaceConfig.paper()
    assert (len(paper.shadows), paper.identity, paper.momentum, paper.anchor) == (1, 0.0, 0.0, "shadow")
    assert paper.split == "64x56x56"


@pytest.mark.parametrize(("recognizer", "shape"), [("mobilefacenet", (128, 14, 14)), ("dlib_resnet", (64, 17, 17))])
def test_the_default_cut_is_found_in_recognisers_of_other_shapes(recognizer: str, shape: tuple[int, ...]) -> None:
    assert find_cut(list_cuts(recognizer), AdvFaceConfig().split).shape == shape


@pytest.mark.parametrize(
    "settings",
    [{"epsilon": 0.0}, {"norm": "l1"}, {"shadows": []}, {"shadows": ["vgg"]}, {"shadows": ["unet-5"]},
     {"iterations": 0}, {"storage": "int4"}, {"momentum": 1.0}, {"shadows": ["unet-16-noise"]}, {"strength": 1}],
)  # fmt: skip
def test_other_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AdvFaceConfig.of(settings)


def test_shadows_have_names_that_are_read_back() -> None:
    for text in ("residual-32", "unet-16-noise-0.5"):
        assert str(Shadow.parse(text)) == text
    assert str(Shadow.parse("unet")) == "unet-32"


def fit(images: torch.Tensor, **options: Any) -> AdvFace:
    given = {"split": "8x27x27", "shadows": ["residual-4"], "epochs": 1, "batch": 4, **options}
    made: AdvFace = fitted_with(AdvFace, images, **given)
    return made


@pytest.mark.parametrize(
    ("images", "options"),
    [(torch.zeros(0, 3, 112, 112), {}), (torch.zeros(1, 3, 112, 112), {}), (torch.zeros(4, 3, 64, 64), {}),
     (torch.full((4, 3, 112, 112), 7.0), {}), (torch.zeros(4, 3, 112, 112), {"people": ["a"] * 4}),
     (torch.zeros(4, 3, 112, 112), {"people": ["a", "b"]}), (torch.zeros(4, 3, 112, 112), {"split": "1x1x1"}),
     (torch.zeros(4, 3, 112, 112), {"preset": "best"})],
)  # fmt: skip
def test_bad_training_sets_are_refused(images: torch.Tensor, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        fit(images, **options)


def test_an_interrupted_training_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = faces(12, 1)
    whole = fit(images, epochs=3)

    class Interrupted(Exception):
        pass

    def stop(name: str, done: int, steps: int) -> None:
        if done == 5:
            raise Interrupted

    usual = learners.train
    monkeypatch.setattr("bauta.templates.advface.shadows.train", lambda *a, **k: usual(*a, **{**k, "save_every": 0.0}))
    with pytest.raises(Interrupted):
        fit(images, epochs=3, work=tmp_path, progress=stop)
    assert (tmp_path / "shadow-residual-4.safetensors").exists()
    continued = fit(images, epochs=3, work=tmp_path)
    for name, value in whole.parts().items():
        torch.testing.assert_close(continued.parts()[name], value, msg=name)
    with pytest.raises(UsageError, match="other pairs or settings"):
        fit(faces(12, 2), epochs=3, work=tmp_path)
    (tmp_path / "shadow-residual-4.safetensors").write_bytes(b"cut short")
    with pytest.raises(WeightsCorrupt, match="cannot be taken up"):
        fit(images, epochs=3, work=tmp_path)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = learners.train
    monkeypatch.setattr("bauta.templates.advface.shadows.train", lambda *a, **k: usual(*a, **{**k, "save_every": 0.0}))
    calls = []

    def features(images: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        bad = float("nan") if len(calls) == 5 else 1.0
        return images[:, :, ::4, ::4] * bad

    schedule = learners.Schedule(epochs=2, batch=4)
    with pytest.raises(NumericalFailure, match="step 4 of 6") as caught:
        fit_shadow(Shadow("residual", 4), features, faces(12, 1), schedule, key="toy", work=tmp_path)
    assert "keeps an earlier state" in caught.value.hint
    decoder, figures = fit_shadow(Shadow("residual", 4), features, faces(12, 1), schedule, key="toy", work=tmp_path)
    assert figures["steps"] == 6
    assert all(bool(value.isfinite().all()) for value in decoder.state_dict().values())


@pytest.mark.parametrize("decoder", ["unet", "residual", "deconvolution"])
def test_fused_decoders_are_the_same(decoder: Any) -> None:
    values = torch.randn(6, 8, 28, 28, generator=drawn())
    network = start_decoder(decoder, values, torch.full((3, 112, 112), 0.4), 8, 0)
    network.train()
    network(values)  # moves the statistics of batch normalisation
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(fused(network)(values), network(values), atol=1e-5, rtol=0)
    assert not [layer for layer in fused(network).modules() if isinstance(layer, torch.nn.BatchNorm2d)]


# Commands


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a recogniser called mine, and faces of three people."""
    home = tmp_path / "home" / "recognizers" / "mine"
    home.mkdir(parents=True)
    (home / "card.toml").write_text(format_card(card_of(home, linear_model())))
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    for number, picture in enumerate((faces(6, 3) * 255).byte().permute(0, 2, 3, 1).numpy()):
        folder = tmp_path / "people" / f"Person_{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    return tmp_path


FIT = ["--recognizer", "mine", "--set", "split=4x27x27", "--set", "shadows=residual-4", "--set", "epochs=1",
       "--set", "iterations=2", "--set", "epsilon=0.3"]  # fmt: skip


def test_the_commands_fit_protect_and_match(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, people = str(place / "made"), str(place / "people")
    excluded = place / "names.txt"
    excluded.write_text("person 2\n")
    assert run(["templates", "fit", people, *FIT, "-o", made, "--exclude", str(excluded), "--licence", "CC0-1.0"]) == 0
    protector = load_protector(place / "made")
    assert dict(protector.provenance.training)["people"] == 2
    assert protector.provenance.licence == "CC0-1.0"
    assert run(["templates", "fit", people, *FIT, "-o", made]) == 5
    key, gallery = place / "key", str(place / "gallery.bauta")
    create_key_file(key)
    enrol = ["templates", "protect", made, people, "-o", gallery, "--aligned", "--key", str(key)]
    assert run(enrol) == 0
    assert run(enrol) == 5
    capsys.readouterr()
    match = ["templates", "match", made, gallery, people, "--aligned", "--json"]
    assert run([*match, "--key", str(key)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gallery"] == found["probes"] == ["0.png", "3.png", "1.png", "4.png", "2.png", "5.png"]
    scores = np.array(found["scores"])
    assert (scores.argmax(1) == np.arange(6)).all()
    assert run([*match[:-1], "--key", str(key)]) == 0
    assert "No threshold is stored" in capsys.readouterr().out
    assert run([*match, "--key", str(key), "--threshold", "0.4"]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"] == 0.4
    assert run(["templates", "match", made, gallery, gallery, "--key", str(key)]) == 0
    capsys.readouterr()
    assert run(match) == 2
    assert "none is given" in capsys.readouterr().err


def test_masked_faces_are_not_decided_by_the_clean_recognisers_threshold(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, gallery, people = str(place / "masked"), str(place / "gallery.bauta"), str(place / "people")
    create_key_file(place / "key")
    key = ["--key", str(place / "key")]
    options = ["kept=2", "choice=energy", "batch=6", "masking_epochs=1", "epochs=1"]
    settings = [part for option in options for part in ("--set", option)]
    fitting = ["templates", "fit", people, "--recognizer", "mine", "--method", "ppfr-fd", *settings, "-o", made]
    assert run(fitting) == 0
    assert run(["templates", "protect", made, people, "-o", gallery, "--aligned", *key]) == 0
    capsys.readouterr()
    monkeypatch.setattr("bauta.recognizers.calibration.threshold", lambda card, fmr: pytest.fail("of another network"))
    match = ["templates", "match", made, gallery, people, "--aligned", *key]
    assert run(match) == 0
    assert "a recogniser of their own" in " ".join(capsys.readouterr().out.split())
    assert run([*match, "--threshold", "-1"]) == 0
    assert "yes" in capsys.readouterr().out


def test_faces_of_one_file_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    assert names_of_photos([tmp_path / "ann" / "1.png", tmp_path / "bob" / "2.png"]) == ("1.png", "2.png")
    twice = [tmp_path / "ann" / "1.png", tmp_path / "bob" / "1.png"]
    assert names_of_photos(twice) == tuple(map(str, twice))


def test_the_commands_refuse_bad_input(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, people = str(place / "made"), str(place / "people")
    one = place / "people" / "Person_0"
    (place / "alone").mkdir()
    create_key_file(place / "key")
    key = ["--key", str(place / "key")]
    one.rename(place / "alone" / "Person_0")
    for arguments, code, words in (
        (["fit", str(place / "alone"), *FIT, "-o", made], 2, "one person"),
        (["fit", people, *FIT, "--set", "epsilon=-1", "-o", made], 2, "epsilon=-1"),
        (["fit", people, *FIT, "--set", "nonsense", "-o", made], 2, "not a setting"),
        (["fit", str(place / "nowhere"), *FIT, "-o", made], 2, "missing"),
        (["fit", people, *FIT, "--method", "tip-im", "-o", made], 2, "tip-im changes photos"),
        (["protect", made, people, "--aligned", *key], 6, "holds no protector"),
        (["match", made, str(place / "none"), people, *key], 9, "cannot be read"),
        (["protect", made, people, "-o", "gallery.safetensors", *key], 2, "galleries are sealed"),
    ):
        assert run(["templates", *arguments]) == code, arguments
        assert words in capsys.readouterr().err
