"""The contract that every cloak keeps, as tests that any package can run on its own.

::

    from bauta.testing import CloakContract


    class TestToy(CloakContract):
        method = "toy"
        options = {"iterations": 4}  # whatever makes it fast

pytest collects the inherited tests. They use small random networks and made-up pictures, and take seconds.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bauta.cloaking.apply import apply, edit_pictures, restore
from bauta.cloaks.base import Cloak, Edit, FitsPerson, Reads, Restores, Work, load_cloak
from bauta.cloaks.view import FaceView
from bauta.errors import BautaError, NumericalFailure
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.learning.fitted import SECRET, Fitted
from bauta.objectives.displacement import moved
from bauta.photo import Photo, read_photo
from bauta.recognizers.cards import RecognizerCard
from bauta.recognizers.ensemble import Ensemble
from bauta.recognizers.surrogates import Surrogate

KEY = bytes(range(32))


def toy_surrogate(seed: int = 0, name: str = "toy") -> Surrogate:
    """A small random network on ArcFace crops, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.Tanh(), nn.Conv2d(8, 16, 5, stride=4), nn.Tanh(), nn.Flatten(),
            nn.LazyLinear(32, bias=False),
        )  # fmt: skip
        network(torch.zeros(1, 3, 112, 112))
    card = RecognizerCard(
        name=name,
        architecture="toy",
        template=ARCFACE_112,
        colour="RGB",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        dim=32,
        training_set="none",
        terms="none",
        source="tests",
        sha256=f"{seed:064x}",
        weights=Path("toy.onnx"),
        format="onnx",
        roles=frozenset({"surrogate", "judge"}),
    )
    return Surrogate(card, network)


def toy_view(seed: int = 0, size: int = 112, grey: bool = False) -> FaceView:
    """A smooth random picture with landmarks where the ArcFace crop has them, feathered at its border."""
    ramp = torch.arange(size).float()
    edge = torch.minimum(ramp, ramp.flip(0)) / 6
    return FaceView(
        pixels=_smooth(seed, size, size, grey),
        landmarks=torch.tensor(ARCFACE_112.points) * (size / 112),
        region=torch.minimum(edge[:, None], edge[None]).clamp(0, 1)[None],
        grey=grey,
    )


def toy_photo(seed: int = 0, height: int = 240, width: int = 240, mode: str = "RGB") -> Photo:
    """A PNG photo in memory, of smooth random colours; `mode` is Pillow's, such as "L" or "RGBA"."""
    pixels = (_smooth(seed, height, width, mode == "L").permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.tile(np.arange(width) % 256, (height, 1)).astype(np.uint8)))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return read_photo(stream.getvalue())


def toy_faces(*places: tuple[float, float, float]) -> Faces:
    """Upright faces by the left and top of their ArcFace crop and its side, in photo pixels."""
    points = np.array(ARCFACE_112.points)
    landmarks = [points * side / 112 + [left, top] for left, top, side in places]
    boxes = [[left, top, left + side, top + side] for left, top, side in places]
    return Faces(np.array(boxes, np.float32), np.array(landmarks, np.float32), np.ones(len(places), np.float32))


def _smooth(seed: int, height: int, width: int, grey: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1 if grey else 3, 14, 14, generator=generator)
    pixels = nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
    return pixels.expand(3, -1, -1).contiguous()


class CloakContract:
    """What every cloak must do; subclasses say which one.

    Attributes:
        method: Its registered name.
        options: Settings that make it fast.
    """

    method: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    writing: ClassVar[Mapping[str, Any]] = {}
    """Further options, for a message that is to be read again."""

    def cloak(self, **options: Any) -> Cloak[Any]:
        """A new one."""
        made = load_cloak(self.method)
        return made(made.configured({**self.options, **options}))

    def fitted(self, seed: int = 0) -> Fitted:
        """What a cloak that fits learned of a toy person."""
        made = load_cloak(self.method)
        assert issubclass(made, FitsPerson)
        ensemble = Ensemble([toy_surrogate(1, "a"), toy_surrogate(2, "b")])
        views = [toy_view(50), toy_view(51), toy_view(52)]
        found = made.fit(views, made.configured(self.options), Work.seeded(seed, ensemble))
        if found.secret is None:
            return found
        # A secret comes from the operating system, and everything else from the seed.
        return replace(found, parts={**found.parts, SECRET: torch.arange(len(found.secret), dtype=torch.uint8)})

    def work(self, seed: int = 0, **changes: Any) -> Work:
        """Everything that the cloak needs."""
        needs = load_cloak(self.method).needs
        given: dict[str, Any] = {
            "ensemble": Ensemble([toy_surrogate(1, "a"), toy_surrogate(2, "b")]) if "surrogates" in needs else None,
            "key": KEY if "key" in needs else None,
            "message": "anna" if "message" in needs else None,
            "fitted": (self.fitted(),) if "fitted" in needs else (),
            "references": (toy_view(99),) if "reference" in needs else (),
        }
        return Work.seeded(seed, **(given | changes))

    def edits(self, *views: FaceView, seed: int = 0, **changes: Any) -> list[Edit]:
        """What a new cloak makes of some views."""
        return self.cloak().edit(list(views), self.work(seed, **changes))

    # Settings

    def test_settings_are_frozen_plain_and_explained(self) -> None:
        """A config that changed on the way, or a field without help, would leave a person guessing."""
        made = load_cloak(self.method)
        config = made.Config()
        values = config.to_dict()
        assert json.loads(json.dumps(values)) == values
        assert made.Config.of(values) == config
        for option in made.Config.options():
            assert option.help, f"{option.name} is not in the docstring's Attributes"
            try:
                setattr(config, option.name, option.default)
            except AttributeError:
                continue
            raise AssertionError(f"{option.name} can be set")

    def test_every_strength_and_preset_is_allowed(self) -> None:
        """`at_strength` may only name fields that there are, with values that they may have; so may `escalations`."""
        made = load_cloak(self.method)
        assert made.configured({}, strength="medium") == made.configured({}), "benchmarks measure medium"
        for preset in ("default", *made.Config.presets):
            for strength in ("low", "medium", "high"):
                config = made.configured({"preset": preset}, strength=strength)
                assert all(isinstance(stronger, made.Config) for stronger in made.escalations(config))

    # Edits

    def test_an_edit_of_each_view(self) -> None:
        """`Edit` refuses most of what could be wrong; what remains is checked here."""
        views = [toy_view(1), toy_view(2, size=130)]
        edits = self.edits(*views)
        assert [edit.view for edit in edits] == views
        for edit in edits:
            assert edit.delta.dtype == torch.float32

    def test_views_are_left_as_they_were(self) -> None:
        """The pipeline still needs them."""
        view, kept = toy_view(1), toy_view(1)
        self.edits(view)
        for name in ("pixels", "landmarks", "region"):
            assert torch.equal(getattr(view, name), getattr(kept, name))

    def test_the_same_seed_gives_the_same_edits(self) -> None:
        """Whatever is random comes from the generator."""
        for first, again in zip(*(self.edits(toy_view(5), toy_view(6), seed=7) for _ in range(2)), strict=True):
            assert torch.equal(first.delta, again.delta)
            assert (first.warp is None) == (again.warp is None)
            assert first.warp is None or again.warp is None or torch.equal(first.warp, again.warp)
            assert dict(first.facts) == dict(again.facts)

    def test_a_face_does_not_depend_on_those_after_it(self) -> None:
        """Nor should it on those before it, unless the method draws for each."""
        together, alone = self.edits(toy_view(1), toy_view(2))[0], self.edits(toy_view(1))[0]
        assert torch.allclose(together.delta, alone.delta, atol=1e-4)

    def test_grey_stays_grey(self) -> None:
        """In the edit, and in the file."""
        (edit,) = self.edits(toy_view(6, grey=True))
        assert torch.equal(edit.delta[0], edit.delta[1])
        photo = self.applied(toy_photo(3, mode="L"), (60, 60, 112))
        assert photo.grey

    def test_a_deadline_in_the_past_still_gives_an_edit(self) -> None:
        """Of one iteration, where there are any."""
        (edit,) = self.edits(toy_view(), deadline=time.monotonic() - 1)
        assert int(edit.facts.get("iterations", 1)) <= 1

    # On photos

    def applied(self, photo: Photo, *places: tuple[float, float, float]) -> Photo:
        """The photo with faces in these places edited."""
        return apply(self.cloak(), photo, toy_faces(*places), self.work()).photo

    def test_outside_the_faces_nothing_changes(self) -> None:
        """Samples stay as they are, and so does alpha."""
        photo = toy_photo(1, mode="RGBA")
        changed = self.applied(photo, (60, 60, 100))
        before, after = (np.asarray(Image.open(io.BytesIO(one.encode()))) for one in (photo, changed))
        outside = np.ones(before.shape[:2], np.bool_)
        outside[40:180, 40:180] = False  # the crop, and room for methods that change the head
        if load_cloak(self.method).view.extent == "crop":
            np.testing.assert_array_equal(before[outside], after[outside])
        np.testing.assert_array_equal(before[..., 3], after[..., 3])

    def test_sixteen_bits_stay_sixteen(self) -> None:
        """And samples outside are kept to the last bit."""
        import cv2

        samples = (_smooth(2, 240, 240, False).permute(1, 2, 0).numpy() * 65535).round().astype(np.uint16)
        photo = read_photo(cv2.imencode(".png", samples)[1].tobytes())
        changed = self.applied(photo, (60, 60, 100))
        assert (photo.bits, changed.bits) == (16, 16)
        if load_cloak(self.method).view.extent == "crop":
            np.testing.assert_array_equal(photo.pixels[:30], changed.pixels[:30])

    def test_faces_at_the_border_tiny_huge_and_overlapping(self) -> None:
        """Each is edited, or left alone and told of; nothing breaks and nothing is NaN."""
        cases: tuple[tuple[tuple[float, float, float], ...], ...] = (
            ((-40, 30, 112),),
            ((180, 190, 112),),
            ((50, 50, 12), (100, 100, 24)),
            ((40, 60, 112), (90, 70, 100)),
        )
        for places in cases:
            self._whole(toy_photo(4), *places)
        self._whole(toy_photo(5, 400, 420), (50, 30, 330))

    def _whole(self, photo: Photo, *places: tuple[float, float, float]) -> None:
        applied = apply(self.cloak(), photo, toy_faces(*places), self.work())
        change = applied.change
        assert sorted((*change.kept, *change.left)) == list(range(len(places)))
        assert np.isfinite(change.delta).all()
        assert applied.photo.pixels.shape == photo.pixels.shape

    # What goes wrong

    def test_what_is_missing_is_asked_for(self) -> None:
        """A cloak that runs without what it needs would pretend."""
        empty: dict[str, Any] = {
            "surrogates": ("ensemble", None),
            "key": ("key", None),
            "message": ("message", None),
            "fitted": ("fitted", ()),
            "reference": ("references", ()),
        }
        for need in load_cloak(self.method).needs:
            name, nothing = empty[need]
            work = self.work(**{name: nothing})
            refusal = _refusal(lambda work=work: apply(self.cloak(), toy_photo(), toy_faces((60, 60, 112)), work))
            assert refusal.hint, need

    def test_a_surrogate_that_answers_nan_is_refused(self) -> None:
        """And never becomes a photo."""
        if "surrogates" not in load_cloak(self.method).needs:
            return
        broken = toy_surrogate(0, "broken")
        for weights in broken.network.parameters():
            weights.data.fill_(float("nan"))
        refusal = _refusal(lambda: self.edits(toy_view(), ensemble=Ensemble([broken])))
        assert isinstance(refusal, NumericalFailure)
        assert "broken" in refusal.message

    # What only some can do

    def test_what_was_fitted_is_kept_whole(self) -> None:
        """The same seed gives the same file; its teachers are those who were attacked."""
        if not issubclass(load_cloak(self.method), FitsPerson):
            return
        fitted = self.fitted()
        assert fitted.method == self.method
        assert set(fitted.teachers) >= {"a", "b"}
        assert fitted.version == load_cloak(self.method).version
        assert Fitted.from_bytes(fitted.to_bytes(), method=self.method).sha256 == fitted.sha256 == self.fitted().sha256

    def test_restored_photos_are_nearer_to_the_original(self) -> None:
        """With what `Cloak.edit` was given, and the same places."""
        cloak = self.cloak()
        if not isinstance(cloak, Restores):
            return
        photo, faces, work = toy_photo(8), toy_faces((60, 60, 112)), self.work()
        applied = apply(cloak, photo, faces, work)
        restored = restore(cloak, applied.photo, faces, applied.change.payloads, self.work(fitted=work.fitted)).photo
        assert _distance(restored, photo) < 0.25 * _distance(applied.photo, photo)

    def test_a_message_is_read_again(self) -> None:
        """From the edited view, with the key."""
        cloak = self.cloak(**self.writing)
        if not isinstance(cloak, Reads):
            return
        (change,) = edit_pictures(cloak, [_picture(toy_photo(8))], self.work())
        view = change.edits[0].view
        (edit,) = change.edits
        there = view.pixels if edit.warp is None else moved(view.pixels[None], edit.warp[None])[0]
        shown = FaceView((there + edit.delta).clamp(0, 1), view.landmarks, view.region, view.grey)
        (reading,) = cloak.read([shown], self.work())
        assert reading.message == "anna"
        assert reading.chance < 1e-3


def _refusal(action: Callable[..., object]) -> BautaError:
    try:
        action()
    except BautaError as error:
        return error
    raise AssertionError("nothing was refused")


def _picture(photo: Photo) -> Any:
    from bauta.cloaking.apply import Picture

    return Picture(photo.pixels, toy_faces((60, 60, 112)).landmarks)


def _distance(one: Photo, other: Photo) -> float:
    difference: NDArray[np.float32] = one.pixels - other.pixels
    return float(np.abs(difference).mean())
