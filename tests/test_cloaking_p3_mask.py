"""The personalised mask from end to end, with made-up people: fitted, sealed, on its person's face only, off again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bauta
from bauta.cli import run
from bauta.cloaking.restoring import GROUP, LONGEST, FaceRecord, open_records, seal_records
from bauta.cloaks.base import Work, least_jacobian, load_cloak
from bauta.cloaks.p3_mask import P3Mask, chosen
from bauta.cloaks.p3_settings import P3MaskConfig
from bauta.errors import NoFaceFound, UsageError
from bauta.keys import DeploymentKey
from bauta.learning.fitted import Fitted
from bauta.metrics import psnr
from bauta.photo import read_photo
from bauta.photo.attachment import attach, attached
from bauta.recognizers.ensemble import Ensemble
from bauta.testing import toy_surrogate, toy_view
from protection_fakes import Stage, build_stage, write_photo

stage = pytest.fixture(build_stage)
QUICK = ("--steps", "4", "--variants", "2")


@pytest.fixture(autouse=True)
def room(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bauta.cloaking.fitting.load_surrogate", lambda card: toy_surrogate(1, card.name))
    monkeypatch.setattr("bauta.cloaking.verbs.detect_faces", stage.detect)
    for who in ("anna", "ben"):
        for index in range(4):
            write_photo(Path(f"{who}/{index}.png"), who)


def fit(who: str = "anna", *options: str) -> Path:
    path = Path(f"{who}.mask")
    path.unlink(missing_ok=True)
    assert run(["fit", "p3-mask", who, "-o", str(path), "--key", "my.key", *QUICK, *options]) == 0
    return path


def key() -> DeploymentKey:
    return DeploymentKey.read("my.key")


def protect(*names: str, masks: tuple[str, ...] = ("anna.mask",), out: str = "out") -> int:
    chosen_masks = [option for name in masks for option in ("--fitted", name)]
    return run(["protect", *names, "--method", "p3-mask", *chosen_masks, "--key", "my.key", "-o", out])


def product(name: str, out: str = "out") -> Path:
    found = [path for path in Path(out).rglob(name) if "reports" not in path.parts]
    assert len(found) == 1
    return found[0]


# The method


def fitted(seed: int = 0, **changes: object) -> Fitted:
    config = P3MaskConfig(**{"iterations": 4, "variants": 2, **changes})  # type: ignore[arg-type]
    views = [toy_view(number) for number in (50, 51, 52)]
    return P3Mask.fit(views, config, Work.seeded(seed, Ensemble([toy_surrogate(1, "a")]), thresholds={"a": 0.2}))


def test_bounds_hold_on_every_photo_however_long_it_is_fitted():
    mask = fitted(iterations=30, displacement=3.0, strain=0.1)
    for number in (60, 61):
        (edit,) = P3Mask().edit([toy_view(number)], Work.seeded(0, fitted=(mask,)))
        assert edit.warp is not None
        assert float(edit.warp.square().sum(0).sqrt().max()) <= 0.03 * 35.3 + 1e-3
        assert least_jacobian(edit.warp) > 0.8
        assert torch.equal(edit.delta[0], edit.delta[1])  # lightness, and no colour


def test_one_photo_has_one_mask_and_an_album_several():
    mask = fitted(variants=4)
    drawn = [chosen(mask, toy_view(number), 4) for number in range(40)]
    assert drawn == [chosen(mask, toy_view(number), 4) for number in range(40)]
    assert set(drawn) == {0, 1, 2, 3}
    other = fitted(variants=4)  # the same masks under another secret
    assert torch.equal(other.parts["control"], mask.parts["control"])
    assert [chosen(other, toy_view(number), 4) for number in range(40)] != drawn


def test_another_seed_gives_masks_that_have_little_in_common():
    first, second = (fitted(seed, iterations=30).parts["lightness"].flatten(1) for seed in (0, 1))
    alike = torch.nn.functional.normalize(first, dim=1) @ torch.nn.functional.normalize(second, dim=1).T
    assert float(alike.abs().max()) < 0.6


def test_masks_move_away_from_the_person():
    ensemble, views = Ensemble([toy_surrogate(1, "a")]), [toy_view(number) for number in (50, 51, 52)]
    config = P3MaskConfig(iterations=40, variants=1, movement=(0, 0), scale=0, mirror=0, noise=0, psnr=24)
    mask = P3Mask.fit(views, config, Work.seeded(0, ensemble))
    faces = ensemble.looking_at([view.landmarks for view in views])
    edits = P3Mask().edit(views, Work.seeded(0, fitted=(mask,)))
    before = torch.stack([view.pixels for view in views])
    after = torch.stack([(view.pixels + edit.delta).clamp(0, 1) for view, edit in zip(views, edits, strict=True)])
    assert float((faces.embed(0, before) * faces.embed(0, after)).sum(1).max()) < 0.95


def test_the_preset_is_a_mask_of_colours_in_a_box():
    config = replace(P3MaskConfig.chameleon(), iterations=6)
    views = [toy_view(number) for number in (50, 51, 52)]
    mask = P3Mask.fit(views, config, Work.seeded(0, Ensemble([toy_surrogate(1, "a")])))
    assert mask.parts["mask"].shape == (1, 3, 112, 112)
    assert float(mask.parts["mask"].abs().max()) <= 16 / 255
    (edit,) = P3Mask().edit([toy_view(60)], Work.seeded(0, fitted=(mask,)))
    assert edit.warp is None
    assert not torch.equal(edit.delta[0], edit.delta[1])


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_photos_are_refused(count: int):
    with pytest.raises(UsageError, match="3 to 100 photos"):
        P3Mask.fit([toy_view()] * count, P3MaskConfig(), Work.seeded(0, Ensemble([toy_surrogate(1, "a")])))


def test_a_face_has_one_mask():
    with pytest.raises(UsageError, match="the mask of one person"):
        P3Mask().edit([toy_view()], Work.seeded(0, fitted=(fitted(), fitted())))


# What travels in the photo


def test_records_open_for_their_owner_alone_and_tell_nothing_else():
    points = np.arange(10, dtype=np.float32).reshape(5, 2)
    records = [FaceRecord((640, 480), points + shift, bytes([shift])) for shift in (0, 5)]
    mine, hers = bytes(32), bytes(range(32))
    sealed = seal_records(records, [mine, hers])
    (found,) = open_records(sealed, mine)
    assert (found.size, found.payload) == ((640, 480), b"\0")
    assert (found.landmarks == points).all()
    assert [one.payload for one in open_records(sealed, hers)] == [b"\5"]
    assert open_records(sealed, bytes(31) + b"x") == []
    assert sealed != seal_records(records, [mine, hers])
    # Its length tells neither how many faces nor what is kept of each.
    assert len(sealed) == len(seal_records(records[:1], [mine])) == len(seal_records(records * 4, [mine] * 8))
    assert len(seal_records([FaceRecord((1, 1), points, bytes(LONGEST))] * (GROUP + 1), [mine] * 9)) == 2 * len(sealed)
    assert seal_records([], []) == b""
    for place in range(0, len(sealed), 97):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert len(open_records(bytes(changed), mine)) + len(open_records(bytes(changed), hers)) >= 1
    assert open_records(b"", mine) == open_records(b"nonsense", mine) == []


# From the command line


def test_fit_protect_and_restore(capsys: pytest.CaptureFixture[str]):
    fit()
    assert "keep both to yourself" in capsys.readouterr().out
    write_photo(Path("party.png"), "anna", "ben")
    assert protect("party.png") in (0, 7, 8)
    before, after = read_photo("party.png"), read_photo(product("party.png"))
    changed = (before.pixels != after.pixels).any(axis=(0, 2))
    assert changed[:112].any()
    assert not changed[112:].any()  # somebody else's face is left alone
    assert run(["restore", str(product("party.png")), "--fitted", "anna.mask", "--key", "my.key", "-o", "back"]) == 0
    restored = read_photo("back/party.png")
    inner = (slice(30, 120), slice(10, 100))
    assert psnr(before.pixels[inner], restored.pixels[inner]) > psnr(before.pixels[inner], after.pixels[inner]) + 6
    assert attached(restored.content) == []


def test_two_people_each_under_their_own_mask():
    fit("anna")
    fit("ben")
    write_photo(Path("party.png"), "anna", "ben", "carla")
    protect("party.png", masks=("anna.mask", "ben.mask"))
    before, after = read_photo("party.png"), read_photo(product("party.png"))
    changed = (before.pixels != after.pixels).any(axis=2)
    assert changed[20:132, :112].any()
    assert changed[20:132, 112:].any()
    assert not changed[132:].any()
    only = bauta.restore(product("party.png"), fitted=["anna.mask"], opens=key())
    still = (only.pixels != after.pixels).any(axis=2)
    assert still[20:132, :112].any()
    assert not still[20:132, 112:].any()  # a mask comes off for its owner only


def test_another_persons_photo_is_left_alone_and_said(capsys: pytest.CaptureFixture[str]):
    fit()
    assert protect("ben/0.png") == 3
    assert "is of the person that the mask was fitted to" in capsys.readouterr().err
    assert not list(Path("out").rglob("0.png"))


def test_photos_of_two_people_are_refused_by_name(capsys: pytest.CaptureFixture[str]):
    write_photo(Path("anna/stranger.png"), "ben")
    assert run(["fit", "p3-mask", "anna", "-o", "x.mask", "--key", "my.key", *QUICK]) == 2
    assert "stranger.png shows somebody else" in capsys.readouterr().err
    assert not Path("x.mask").exists()


def test_the_key_is_asked_for_before_anything_is_fitted(capsys: pytest.CaptureFixture[str]):
    assert run(["fit", "p3-mask", "anna", "-o", "x.mask", *QUICK]) == 2
    assert "nothing is given to seal it with" in capsys.readouterr().err


def test_a_photo_kept_aside_says_how_well_it_holds(capsys: pytest.CaptureFixture[str]):
    for index in range(4, 8):
        write_photo(Path(f"anna/{index}.png"), "anna")
    fit("anna", "--json")
    held = json.loads(capsys.readouterr().out)["held"]
    assert held["kept_aside"] == 2
    assert held["compared"] == held["matched_bare"] == 2 * 6 * 2  # photos, other photos, judges
    assert 0 <= held["matched"] <= held["compared"]


def test_renewing_keeps_person_settings_and_key(capsys: pytest.CaptureFixture[str]):
    fit()
    command = ["fit", "p3-mask", "--renew", "anna.mask", "--key", "my.key"]
    assert run([*command, "anna", "-o", "new.mask"]) == 0
    old, new = (Fitted.load(name, key=key()) for name in ("anna.mask", "new.mask"))
    assert new.settings == old.settings
    assert new.secret != old.secret
    assert not torch.equal(new.parts["control"], old.parts["control"])
    assert run([*command, "ben", "-o", "other.mask"]) == 2
    assert "another person than the mask" in capsys.readouterr().err
    # A photo under the old mask is not the new one's.
    protect("anna/0.png")
    assert run(["restore", str(product("0.png")), "--fitted", "new.mask", "--key", "my.key"]) == 2
    assert "carries a mask, and another one than was given" in capsys.readouterr().err


def test_a_photo_that_was_saved_anew_is_searched(capsys: pytest.CaptureFixture[str]):
    fit()
    protect("anna/0.png")
    path = product("0.png")
    Image.open(path).save("anew.png")
    assert run(["restore", "anew.png", "--fitted", "anna.mask", "--key", "my.key", "-o", "back"]) == 0
    assert "they were looked for, and came off about" in capsys.readouterr().out
    told = bauta.restore(path, fitted=["anna.mask"], opens=key())
    assert np.array_equal(read_photo("back/anew.png").pixels, told.pixels)


def test_where_no_mask_is_found_nothing_is_written(capsys: pytest.CaptureFixture[str]):
    fit()
    fit("ben")
    protect("anna/0.png")
    Image.open(product("0.png")).save("anew.png")
    Image.open("ben/0.png").save("other.png")
    for photo, mask in (("anew.png", "ben.mask"), ("other.png", "anna.mask"), ("anna/0.png", "anna.mask")):
        assert run(["restore", photo, "--fitted", mask, "--key", "my.key", "-o", "back"]) == 2
        assert "none was found" in capsys.readouterr().err
    assert not list(Path("back").glob("*"))


def test_a_resized_photo_that_kept_its_records_is_searched():
    fit()
    protect("anna/0.png")
    content = product("0.png").read_bytes()
    Image.open(product("0.png")).resize((224, 264)).save("large.png")
    Path("large.png").write_bytes(attach(Path("large.png").read_bytes(), attached(content)))
    restored = bauta.restore("large.png", fitted=["anna.mask"], opens=key())
    assert not np.array_equal(restored.pixels, read_photo("large.png").pixels)


def test_stripped_photos_carry_nothing():
    fit()
    run(
        ["protect", "anna/0.png", "--method", "p3-mask", "--fitted", "anna.mask", "--key", "my.key"]
        + ["--strip-metadata", "-o", "bare"]
    )
    assert attached(product("0.png", "bare").read_bytes()) == []


def test_from_python_and_without_a_network(monkeypatch: pytest.MonkeyPatch):
    photos = [f"anna/{index}.png" for index in range(3)]
    mask = bauta.fit("p3-mask", photos, options={"iterations": 4, "variants": 2}, seed=0)
    own = DeploymentKey.generate()
    mask.save("me.mask", key=own)

    def refuse(card: object) -> None:
        raise AssertionError(f"{card} was loaded")

    monkeypatch.setattr("bauta.cloaking.pipeline.load_surrogate", refuse)
    result = bauta.protect("anna/3.png", method="p3-mask", fitted=["me.mask"], opens=own)
    assert load_cloak("p3-mask").needs == {"fitted"}
    back = bauta.restore(result.content, fitted=["me.mask"], opens=own)
    assert back.pixels.shape == read_photo("anna/3.png").pixels.shape
    with pytest.raises(NoFaceFound):
        bauta.protect("ben/0.png", method="p3-mask", fitted=["me.mask"], opens=own)


def test_a_sealed_mask_opens_for_reading_and_says_that_it_carries_no_message(capsys: pytest.CaptureFixture[str]):
    fit()
    capsys.readouterr()
    assert run(["read", "anna/0.png", "--fitted", "anna.mask", "--key", "my.key"]) == 2
    assert "p3-mask does to a photo carries no message" in capsys.readouterr().err
