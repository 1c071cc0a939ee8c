"""A message in a face: what it may be, what it survives, and that only its key reads it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bauta.cli import run
from bauta.cloaking.apply import Picture, edit_pictures
from bauta.cloaks.base import Work
from bauta.cloaks.carriers import Carriers, spectra, summaries
from bauta.cloaks.payload import BITS, LONGEST, decoded, encoded
from bauta.cloaks.view import FaceView
from bauta.cloaks.watermark import Watermark
from bauta.cloaks.watermark_settings import WatermarkConfig
from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import alignments
from bauta.objectives.displacement import moved
from bauta.objectives.transports import jpeg, resize
from bauta.recognizers.ensemble import Ensemble
from bauta.testing import toy_surrogate, toy_view

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


class TestPayload:
    @pytest.mark.parametrize("text", ["a", "anna", "-----", "AAAAA", "A", "0-zZ9"])
    def test_a_text_comes_back(self, text: str) -> None:
        bits = encoded(text, KEY)
        assert bits.shape == (BITS,)
        assert decoded(bits * 2.0 - 1, KEY) == (text, 0)
        assert decoded(bits * 2.0 - 1, OTHER) is None

    @pytest.mark.parametrize("text", ["", "a" * (LONGEST + 1), "anna b", "é", "a\n", "a_b"])
    def test_what_does_not_fit_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="does not fit"):
            encoded(text, KEY)

    def test_scattered_errors_are_corrected_and_counted(self) -> None:
        random = np.random.default_rng(0)
        bits = encoded("ann-7", KEY)
        for errors in range(12):
            soft = (bits * 2.0 - 1) * random.uniform(0.8, 1.2, BITS)
            wrong = random.choice(BITS, errors, replace=False)
            soft[wrong] *= -0.2  # errors are where a receiver doubts
            found = decoded(soft, KEY)
            if errors <= 6:
                assert found == ("ann-7", errors)

    def test_chance_says_nothing(self) -> None:
        random = np.random.default_rng(1)
        assert [decoded(random.standard_normal(BITS), KEY) for _ in range(2000)] == [None] * 2000


class TestCarriers:
    def test_they_are_orthogonal_and_one_keys_say_nothing_of_anothers(self) -> None:
        one, again, other = (Carriers(key, BITS).weights for key in (KEY, KEY, OTHER))
        assert torch.equal(one, again)
        for first, second, most in ((one, one, 0.25), (one, other, 0.25)):
            alike = torch.nn.functional.normalize(first, dim=1) @ torch.nn.functional.normalize(second, dim=1).T
            if first is second:
                alike.fill_diagonal_(0)
            assert float(alike.abs().max()) < most
            assert float(alike.square().mean().sqrt()) < 0.06

    def test_what_a_face_looks_like_from_afar_survives_and_is_its_own(self) -> None:
        views = [toy_view(number) for number in range(8)]
        to_crop = torch.stack([alignments(view.landmarks[None].numpy(), ARCFACE_112)[0] for view in views]).double()
        pictures = torch.stack([view.pixels for view in views])
        before = [one for (one,) in summaries(pictures, to_crop, KEY)]
        assert len(set(before)) == 8
        assert [one for (one,) in summaries(pictures, to_crop, OTHER)] != before
        again = summaries(jpeg(pictures, 50), to_crop, KEY, 3)
        assert [len(set(some)) for some in again] == [8] * 8
        assert all(one in some for one, some in zip(before, again, strict=True))

    def test_a_gradient_leads_to_every_bit(self) -> None:
        view = toy_view(3)
        to_crop = alignments(view.landmarks[None].numpy(), ARCFACE_112)[0]
        carriers, signs = Carriers(KEY, BITS), torch.from_numpy(encoded("anna", KEY) * np.float32(2) - 1)
        picture = view.pixels[None].clone()
        for _ in range(60):
            picture.requires_grad_()
            loss = torch.nn.functional.relu(1.2 - carriers.soft(spectra(picture, to_crop[None])) * signs).sum()
            (gradient,) = torch.autograd.grad(loss, picture)
            picture = (picture - 0.02 * gradient / gradient.abs().amax().clamp_min(1e-9)).detach().clamp(0, 1)
        assert bool((carriers.soft(spectra(picture, to_crop[None])) * signs > 0).all())
        assert float((picture[0] - view.pixels).square().mean().sqrt()) < 0.04


@pytest.fixture(scope="module")
def marked() -> FaceView:
    """A view that says "anna"."""
    work = Work.seeded(0, Ensemble([toy_surrogate(1, "a")]), thresholds={"a": 0.2}, key=KEY, message="anna")
    view = toy_view(5)
    picture = Picture(view.pixels.permute(1, 2, 0).numpy(), view.landmarks.numpy()[None])
    (change,) = edit_pictures(Watermark(WatermarkConfig(iterations=60, weight=1.5)), [picture], work)
    (edit,) = change.edits
    assert edit.warp is not None
    assert torch.equal(edit.delta[0], edit.delta[1])  # lightness, and no colour
    shown = (moved(edit.view.pixels[None], edit.warp[None])[0] + edit.delta).clamp(0, 1)
    return FaceView(shown, edit.view.landmarks, edit.view.region, edit.view.grey)


def read(view: FaceView, key: bytes = KEY) -> str | None:
    (found,) = Watermark().read([view], Work.seeded(0, key=key))
    assert found.chance <= 1e-4 if found.message else found.chance == 1
    return found.message


class TestReading:
    def test_with_the_key_alone(self, marked: FaceView) -> None:
        assert read(marked) == "anna"
        assert read(marked, OTHER) is None

    def test_after_what_happens_to_shared_photos(self, marked: FaceView) -> None:
        for through in (lambda x: jpeg(x, 50), lambda x: resize(x, 0.6)):
            pixels = through(marked.pixels[None])[0].clamp(0, 1)
            assert read(FaceView(pixels, marked.landmarks, marked.region, marked.grey)) == "anna"

    def test_when_the_face_is_found_a_little_beside(self, marked: FaceView) -> None:
        for shift in ((1.6, -1.2), (-2.0, 0.7)):
            landmarks = marked.landmarks + torch.tensor(shift)
            assert read(FaceView(marked.pixels, landmarks, marked.region, marked.grey)) == "anna"

    def test_clean_faces_say_nothing(self) -> None:
        assert [read(toy_view(number)) for number in (10, 11)] == [None] * 2

    def test_the_mark_of_one_face_says_nothing_on_another(self, marked: FaceView) -> None:
        mark = marked.pixels - toy_view(5).pixels
        for number in (10, 11):
            view = toy_view(number)
            pixels = (view.pixels + mark).clamp(0, 1)
            assert read(FaceView(pixels, marked.landmarks, view.region, view.grey)) is None

    def test_without_a_key_it_is_refused(self, marked: FaceView) -> None:
        with pytest.raises(UsageError, match="needs a key"):
            Watermark().read([marked], Work.seeded(0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "watermark needs a key"),
        (("--key", "my.key"), "watermark needs a message"),
        (("--key", "my.key", "--message", "too long for it"), "does not fit into a face"),
        (("--key", "open.key", "--message", "anna"), "open to others than its owner"),
        (("--key", "short.key", "--message", "anna"), "is the least"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, arguments: tuple[str, ...], said: str) -> None:
    from bauta.cloaking.portrait import portrait

    pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.jpg").write_bytes(portrait())
    for name, content, mode in (("my.key", KEY, 0o600), ("open.key", KEY, 0o644), ("short.key", b"short", 0o600)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    assert run(["protect", "me.jpg", "--method", "watermark", *arguments]) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "protected" / "me.jpg").exists()
