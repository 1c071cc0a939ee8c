"""Certified answers: bounds against an oracle, coverage on classifiers of known radius, the verb and the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from bauta.certify.bounds import MOST, Smoothing, copies_needed, decide, require_copies
from bauta.certify.smoothing import VALUES, Smoothed, embedder
from bauta.certify.verbs import CertifiedGallery, certify, certify_gallery
from bauta.cli import run
from bauta.errors import NoFaceFound, NotCalibrated, RoleRefused, UnknownRecognizer, UsageError
from bauta.recognizers import load_surrogate

NORMAL = NormalDist()


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Bounds


@pytest.mark.parametrize(("n", "alpha"), [(20, 0.05), (100, 1e-3), (1000, 1e-3), (1000, 1e-6)])
def test_bounds_are_those_of_the_beta_distribution(n: int, alpha: float) -> None:
    beta = pytest.importorskip("scipy.stats").beta
    settings = Smoothing(sigma=0.2, n=n, alpha=alpha)
    for accepted in sorted({0, 1, n // 3, n // 2, n - 2, n}):
        low = 0.0 if accepted == 0 else beta.ppf(alpha / 2, accepted, n - accepted + 1)
        high = 1.0 if accepted == n else beta.ppf(1 - alpha / 2, accepted + 1, n - accepted)
        found = decide(accepted, settings)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
        if low > 0.5 or high < 0.5:
            assert found.radius == pytest.approx(0.2 * NORMAL.inv_cdf(max(low, 1 - high)), abs=1e-6)
            assert found.decision == ("accepted" if low > 0.5 else "rejected")
        else:
            assert (found.decision, found.radius) == ("abstained", 0.0)


def test_yes_and_no_are_treated_alike() -> None:
    settings = Smoothing()
    for accepted in (0, 10, 400, 450, 500):
        yes, no = decide(settings.n - accepted, settings), decide(accepted, settings)
        assert yes.radius == pytest.approx(no.radius, abs=1e-9)
        assert {yes.decision, no.decision} in ({"accepted", "rejected"}, {"abstained"})
    radii = [decide(accepted, settings).radius for accepted in range(500, 1001, 20)]
    assert radii == sorted(radii)


def test_so_many_copies_as_are_named_certify_and_one_less_does_not() -> None:
    for radius, sigma, alpha in ((0, 0.12, 1e-3), (0.15, 0.12, 1e-3), (0.25, 0.12, 1e-3), (0.25, 0.25, 0.05)):
        needed = copies_needed(radius, sigma, alpha)
        enough = decide(needed, Smoothing(sigma, needed, alpha))
        assert enough.decision == "accepted"
        assert enough.radius >= radius
        if radius:
            fewer = Smoothing(sigma, needed - 1, alpha)
            assert decide(needed - 1, fewer).radius < radius
            with pytest.raises(UsageError, match=f"cannot certify.*{needed} copies"):
                require_copies(radius, fewer)
    with pytest.raises(UsageError, match=f"at least {copies_needed(0, 0.1, 1e-3)} copies"):
        Smoothing(0.1, 10, 1e-3)
    for radius in (1.0, 50.0):
        with pytest.raises(UsageError, match=f"{MOST:,} copies"):
            copies_needed(radius, 0.1, 1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"sigma": 0.0}, {"sigma": -0.1}, {"sigma": math.nan}, {"sigma": math.inf}, {"n": 0}, {"n": 10}, {"alpha": 0.0},
        {"alpha": 1.0}, {"alpha": math.nan}, {"enrolment": -1}, {"batch": 0}, {"n": MOST + 1},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        Smoothing(**change)


def test_counts_beyond_the_copies_are_refused() -> None:
    for accepted in (-1, 1001):
        with pytest.raises(UsageError, match="cannot be accepted"):
            decide(accepted, Smoothing())


# Coverage


@pytest.mark.parametrize("alpha", [0.2, 0.05])
@pytest.mark.parametrize("radius", [0.005, 0.05, 0.15, 0.3])
def test_certificates_cover_a_known_radius(radius: float, alpha: float) -> None:
    """A half-space at a distance of `radius`: under noise its answer changes there and nowhere before."""
    settings = Smoothing(sigma=0.12, n=200, alpha=alpha)
    share, runs = NORMAL.cdf(radius / settings.sigma), 4000
    counts = np.random.default_rng(1).binomial(settings.n, share, runs)
    known = {count: decide(int(count), settings) for count in np.unique(counts)}
    found = [known[count] for count in counts]
    wrong = sum(one.decision == "rejected" or one.radius > radius for one in found)
    # Three standard deviations above what is allowed: one test in a thousand would fail by chance, and seeds are fixed.
    assert wrong <= runs * alpha + 3 * math.sqrt(runs * alpha * (1 - alpha))
    if radius == 0.15:  # and they are not empty: most answers reach half the way
        assert np.mean([one.decision == "accepted" and one.radius > radius / 2 for one in found]) > 0.9


class HalfSpace:
    """A recogniser whose cosine to (1, 0) is not negative on one side of a plane."""

    def __init__(self, offset: float, seed: int = 0) -> None:
        direction = torch.randn(VALUES, generator=drawn(seed))
        self.direction, self.offset = direction / direction.norm(), offset
        self.face = torch.full((1, 3, 112, 112), 0.5)
        self.calls: list[int] = []

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(crops))
        side = (crops - self.face).flatten(1) @ self.direction + self.offset
        angle = torch.atan(side)
        return torch.stack([torch.sin(angle), torch.cos(angle)], 1)


REFERENCE = torch.tensor([[1.0, 0.0]])


def test_the_whole_way_covers_a_known_radius_and_both_answers() -> None:
    settings = Smoothing(sigma=0.12, n=150, alpha=0.05, batch=64)
    wrong = reached = 0
    for seed in range(40):
        space = HalfSpace(0.1, seed)
        yes, no = Smoothed(space, settings).certify(
            space.face, torch.cat([REFERENCE, -REFERENCE]), 0.0, drawn(1000 + seed)
        )
        assert yes.accepted + no.accepted == settings.n
        assert space.calls == [64, 64, 22]
        wrong += yes.radius > 0.1 or yes.decision == "rejected"
        reached += yes.decision == "accepted" and no.decision == "rejected"
    assert wrong <= 6  # 2 are expected at most; more than 6 happen once in 100 tries
    assert reached > 35


def test_a_change_shorter_than_the_radius_keeps_the_answer() -> None:
    settings = Smoothing(sigma=0.12, n=1000)
    space = HalfSpace(0.2)
    smoothed = Smoothed(space, settings)
    (found,) = smoothed.certify(space.face, REFERENCE, 0.0, drawn())
    assert 0.1 < found.radius < 0.2
    worst = space.face - (found.radius * space.direction).reshape(1, 3, 112, 112)
    (after,) = smoothed.accepted(worst, REFERENCE, 0.0, drawn(1))
    assert after > settings.n / 2
    (beyond,) = smoothed.accepted(space.face - (0.4 * space.direction).reshape(1, 3, 112, 112), REFERENCE, 0.0, drawn())
    assert beyond < settings.n / 2


def test_noise_of_the_enrolment_counts_apart() -> None:
    space = HalfSpace(0.1)
    smoothed = Smoothed(space, Smoothing(n=100, alpha=0.05, enrolment=70))
    enrolled = smoothed.enrol(space.face, drawn())
    assert sum(space.calls) == 70
    assert float(enrolled.norm()) == pytest.approx(1, abs=1e-6)
    plain = Smoothed(space, Smoothing(n=100, alpha=0.05))
    assert torch.equal(plain.enrol(space.face, drawn()), space(space.face))
    generator = drawn()
    plain.enrol(space.face, generator)
    assert generator.get_state().equal(drawn().get_state())  # nothing was drawn
    space.calls.clear()
    smoothed.accepted(space.face, enrolled, 0.0, drawn())
    assert sum(space.calls) == 100


def test_noise_has_its_strength_is_not_clipped_and_repeats_by_seed() -> None:
    seen: list[torch.Tensor] = []

    def look(crops: torch.Tensor) -> torch.Tensor:
        seen.append(crops)
        return torch.ones(len(crops), 1)

    face = torch.zeros(1, 3, 112, 112)
    for batch, seed in ((32, 5), (32, 5), (32, 6)):
        Smoothed(look, Smoothing(sigma=0.2, n=32, alpha=0.05, batch=batch)).accepted(
            face, torch.ones(1, 1), 0, drawn(seed)
        )
    assert float(seen[0].std()) == pytest.approx(0.2, rel=0.01)
    assert float(seen[0].mean()) == pytest.approx(0, abs=0.001)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("shape", [(3, 112, 112), (2, 3, 112, 112), (1, 3, 150, 150)])
def test_faces_of_another_form_are_refused(shape: tuple[int, ...]) -> None:
    smoothed = Smoothed(lambda crops: torch.ones(len(crops), 1), Smoothing(n=20))
    for call in (
        lambda face: smoothed.enrol(face, drawn()),
        lambda face: smoothed.accepted(face, REFERENCE, 0, drawn()),
    ):
        with pytest.raises(UsageError, match="cannot be certified"):
            call(torch.zeros(shape))
    with pytest.raises(UsageError, match="cannot be certified"):
        smoothed.enrol(torch.full((1, 3, 112, 112), math.nan), drawn())


def test_noise_lies_on_one_crop_whatever_the_recogniser_reads() -> None:
    for name in ("mobilefacenet", "chip_resnet"):
        embed = embedder(load_surrogate(name))
        assert embed(torch.rand(2, 3, 112, 112, generator=drawn())).norm(dim=1).tolist() == pytest.approx(
            [1, 1], abs=1e-5
        )


# Photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person, another photo of the same, and somebody else."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    portrait = Image.fromarray(data.astronaut()).resize((384, 384), Image.Resampling.LANCZOS)
    portrait.save(folder / "a.png")
    ImageEnhance.Brightness(portrait.rotate(8)).enhance(0.85).save(folder / "b.jpg", quality=88)
    Image.new("RGB", (300, 300), (90, 120, 90)).save(folder / "nobody.png")
    return folder


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two crops of one face."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("crops")
    face = Image.fromarray(data.astronaut()).crop((165, 55, 285, 175)).resize((112, 112), Image.Resampling.LANCZOS)
    face.save(folder / "probe.png")
    ImageEnhance.Brightness(face).enhance(0.85).save(folder / "known.png")
    return folder / "probe.png", folder / "known.png"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))


FEW = Smoothing(sigma=0.05, n=32, alpha=0.05)


def test_a_person_is_accepted_with_a_radius(photos: Path) -> None:
    found = certify(photos / "a.png", photos / "b.jpg", settings=FEW, seed=3)
    assert found.certificate.decision == "accepted"
    assert found.certificate.radius == pytest.approx(decide(32, FEW).radius)
    assert found.cosine > found.threshold
    assert found.mask == pytest.approx(8 / 255 * math.sqrt(3 * 112 * 112))
    again = certify((photos / "a.png").read_bytes(), photos / "b.jpg", settings=FEW, seed=3)
    assert again == found
    assert certify(photos / "a.png", photos / "b.jpg", settings=FEW).seed != found.seed


def test_what_cannot_be_certified_is_refused(photos: Path) -> None:
    a, b = photos / "a.png", photos / "b.jpg"
    with pytest.raises(UsageError, match="same picture"):
        certify(a, a, settings=FEW)
    with pytest.raises(UsageError, match=r"32 copies cannot certify.*copies are needed"):
        certify(a, b, settings=FEW, radius=0.1)
    with pytest.raises(RoleRefused, match="surrogate"):
        certify(a, b, settings=FEW, recognizer="mobilenet")
    with pytest.raises(UnknownRecognizer):
        certify(a, b, settings=FEW, recognizer="nonsense")
    with pytest.raises(NotCalibrated):
        certify(a, b, settings=FEW, fmr=0.3)
    for radius in (-1.0, math.nan):
        with pytest.raises(UsageError, match="radius"):
            certify(a, b, settings=FEW, radius=radius)
    with pytest.raises(UsageError, match="seed"):
        certify(a, b, settings=FEW, seed=-1)
    Image.new("RGB", (200, 200), (90, 120, 90)).save(photos / "none.png")
    with pytest.raises(NoFaceFound, match=r"none\.png: No face"):
        certify(a, photos / "none.png", settings=FEW)


def test_the_command_says_what_was_certified_and_what_not(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = str(photos / "a.png"), str(photos / "b.jpg")
    few = ["--n", "32", "--alpha", "0.05", "--seed", "3"]
    assert run(["certify", a, b, "--sigma", "0.05", *few]) == 0
    said = capsys.readouterr().out
    assert said.startswith("ACCEPTED, certified within 0.06")
    for words in ("accepts 32 of 32 copies", "112x112x3", "8/255", "6.09", "no radius here says anything of masks"):
        assert words in said
    assert run(["certify", a, b, "--sigma", "0.05", *few, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["decision"], told["accepted"]) == ("bauta.certificate/1", "accepted", 32)
    # So much noise that the person is rejected, with a certificate: the answer is of the recogniser under noise.
    assert run(["certify", a, b, "--sigma", "0.9", *few]) == 0
    said = capsys.readouterr().out
    assert said.startswith("REJECTED")
    assert "Without noise it accepts A" in said
    assert run(["certify", a, b, "--sigma", "0.05", "--n", "200", "--radius", "0.2"]) == 2
    assert "copies are needed" in " ".join(capsys.readouterr().err.split())
    assert run(["certify", a, b, "--sigma", "0", *few]) == 2
    assert run(["certify", a, str(photos / "nobody.png"), *few]) == 3
    assert run(["certify", a, str(photos / "gone.png"), *few]) == 4
    assert run(["certify", a, b, "--recognizer", "mobilenet", *few]) == 6


def test_the_command_says_when_there_is_no_answer(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = str(photos / "a.png"), str(photos / "b.jpg")
    few = ["--n", "32", "--alpha", "0.05", "--sigma", "0.1"]
    for accepted, radius, words in ((16, 0.0, "NO ANSWER"), (31, 0.12, "less than the 0.12 asked for")):
        monkeypatch.setattr(Smoothed, "accepted", lambda *_, accepted=accepted: [accepted])
        assert run(["certify", a, b, *few, "--radius", str(radius), "--enrolment", "2"]) == 7
        said = capsys.readouterr().out
        assert words in said
        assert "2 noisy copies, which count apart" in said


def test_settings_survive_their_plain_form() -> None:
    assert Smoothing.of(replace(FEW, enrolment=3).to_dict()) == replace(FEW, enrolment=3)


# Galleries


def stranger(path: Path) -> Path:
    """A face on the crop that is another one to the recogniser: the portrait mirrored upside down in other light."""
    with Image.open(path) as photo:
        turned = photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        turned.save(found := path.with_name("other.png"))
    return found


def test_answers_of_a_gallery_share_the_alpha(crops: tuple[Path, Path]) -> None:
    probe, known = crops
    settings = Smoothing(sigma=0.05, n=60, alpha=0.05)
    (single,) = certify_gallery(probe, {"ann": known}, settings=settings, aligned=True, seed=3).answers.values()
    assert single == certify(probe, known, settings=settings, aligned=True, seed=3)
    found = certify_gallery(probe, {"ann": known, "eve": stranger(known)}, settings=settings, aligned=True, seed=3)
    ann, eve = found.answers["ann"], found.answers["eve"]
    assert (ann.certificate.decision, eve.certificate.decision) == ("accepted", "rejected")
    assert ann.settings.alpha == eve.settings.alpha == 0.025
    assert ann.certificate == decide(60, replace(settings, alpha=0.025))
    assert ann.certificate.radius < single.certificate.radius
    assert (found.decision, found.radius) == ("accepted", min(ann.certificate.radius, eve.certificate.radius))
    assert found.to_dict()["answers"]["eve"]["decision"] == "rejected"
    json.dumps(found.to_dict())


def test_what_a_gallery_answers_follows_from_its_answers(crops: tuple[Path, Path]) -> None:
    one = certify(*crops, settings=FEW, aligned=True, seed=3)

    def of(*counts: int) -> CertifiedGallery:
        return CertifiedGallery({str(place): replace(one, certificate=decide(count, FEW))
                                 for place, count in enumerate(counts)})  # fmt: skip

    assert [of(0, 0).decision, of(0, 16).decision, of(32, 16).decision] == ["rejected", "abstained", "accepted"]
    assert of(0, 0).radius > 0
    assert of(32, 16).radius == 0


@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_certificates_of_a_gallery_cover_known_radii_together(alpha: float) -> None:
    """Half-spaces at their own distances, seen by the same copies: how often any certificate is too long."""
    distances, runs = np.array([0.01, 0.05, 0.1, 0.15, 0.2]), 3000
    settings = Smoothing(sigma=0.12, n=200, alpha=alpha / len(distances))
    shares = [NORMAL.cdf(distance / settings.sigma) for distance in distances]
    counts = np.random.default_rng(2).binomial(settings.n, shares, (runs, len(distances)))
    known = {count: decide(int(count), settings) for count in np.unique(counts)}
    wrong = np.array([
        any(known[count].decision == "rejected" or known[count].radius > distance
            for count, distance in zip(row, distances, strict=True))
        for row in counts
    ])  # fmt: skip
    assert wrong.sum() <= runs * alpha + 3 * math.sqrt(runs * alpha * (1 - alpha))
    assert wrong.any()


def test_galleries_that_make_no_sense_are_refused(crops: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    probe, known = crops
    with pytest.raises(UsageError, match="no gallery"):
        certify_gallery(probe, {}, aligned=True)
    with pytest.raises(UsageError, match="same picture"):
        certify_gallery(probe, {"ann": known, "me": probe}, settings=FEW, aligned=True)
    enough = copies_needed(0.0, 0.1, 0.05)
    with pytest.raises(UsageError, match=r"copies.*needed|at least"):
        certify_gallery(
            probe, {str(place): known for place in range(500)}, settings=Smoothing(0.1, enough, 0.05), aligned=True
        )
    assert run(["certify", str(probe), str(known), str(known)]) == 2
    assert "given twice" in capsys.readouterr().err


def test_the_command_answers_for_each_of_several(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = str(photos / "a.png"), str(photos / "b.jpg")
    with Image.open(b) as photo:
        photo.convert("L").convert("RGB").save(photos / "c.png")
    few = ["--sigma", "0.05", "--n", "32", "--alpha", "0.05", "--seed", "3"]
    code = run(["certify", a, b, str(photos / "c.png"), *few])
    said = capsys.readouterr().out
    assert said.count(" of 32 copies, cosine") == 2
    assert "has an alpha of 0.025" in said
    assert code == (7 if "NO ANSWER" in said else 0)
    assert run(["certify", a, b, str(photos / "c.png"), *few, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["schema"] == "bauta.certificates/1"
