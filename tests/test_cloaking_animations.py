"""`bauta protect` on animated pictures: as on clips, and in the same format again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bauta
from bauta.clips.animation import read_moving
from bauta.errors import PhotoError
from bauta.photo import MetadataPolicy
from clip_builders import Finder, ground, moving, place
from protection_fakes import work, write_photo
from test_cloaking_clips import ANNA, TURNING, finder, only, stage

__all__ = ["finder", "stage"]  # fixtures


def animate(name: str, frames: Sequence[np.ndarray], **options: object) -> Path:
    """An animated picture of RGB or RGBA frames, in the format of its ending."""
    pictures = [Image.fromarray(frame) for frame in frames]
    first, *rest = pictures
    form = {"apng": "PNG"}.get(Path(name).suffix[1:], Path(name).suffix[1:].upper())
    with Path(name).open("wb") as file:
        first.save(file, form, save_all=True, append_images=rest, **{"lossless": True, **options})
    return Path(name)


def shown(path: Path, at: int) -> np.ndarray:
    with Image.open(path) as image:
        image.seek(at)
        return np.array(image.convert("RGBA"))


def durations(path: Path) -> list[float]:
    with Image.open(path) as image:
        return [(image.seek(at), image.load(), image.info["duration"])[-1] for at in range(image.n_frames)]


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.apng"])
def test_every_frame_of_an_animated_picture_is_masked(name: str) -> None:
    times = [40, 80, 40, 120, 40, 40, 200, 40]
    source = animate(name, moving(ANNA, 8), duration=times, loop=3)
    outcome = only(work(source, settings=TURNING))
    assert (outcome.verdict, outcome.output) == ("protected", Path("out") / name)
    product = Path("out") / name
    assert durations(product) == times
    for at in range(8):
        before, after = shown(source, at), shown(product, at)
        top, left = place(at)
        part = np.s_[top + 20 : top + 92, left + 20 : left + 92, :3]
        assert np.corrcoef(before[part].ravel(), after[part].ravel())[0, 1] < -0.7
        assert np.abs(before[:20].astype(int) - after[:20]).mean() < 3
    with Image.open(product) as image:
        assert image.info["loop"] == 3
    with pytest.raises(PhotoError):  # a verb for photos does not take it for one
        bauta.protect(source)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_what_is_transparent_stays_so(name: str) -> None:
    frames = [np.dstack([frame, np.full(frame.shape[:2], 255, np.uint8)]) for frame in moving(ANNA, 6)]
    for frame in frames:
        frame[200:, :, 3] = 0
    source = animate(name, frames, duration=50, disposal=2) if name != "a.webp" else animate(name, frames, duration=50)
    only(work(source, settings=TURNING))
    for at in range(6):
        assert (shown(Path("out") / name, at)[..., 3] == shown(source, at)[..., 3]).all()
        assert (shown(source, at)[200:, :, 3] == 0).all()


def test_a_face_that_shows_in_one_short_frame_only_is_masked(finder: Finder) -> None:
    """Whoever has the file can stop at any frame."""
    faces = moving(ANNA, 9, seed=1)
    frames = [faces[at] if at == 4 else ground(seed=1) for at in range(9)]
    for at, frame in enumerate(frames):
        frame[0, at] = 255  # or frames that look the same become one
    source = animate("a.png", frames, duration=20)
    outcome = only(work(source, settings=TURNING))
    assert outcome.verdict == "protected"
    top, left = place(4)
    part = np.s_[top + 20 : top + 92, left + 20 : left + 92, :3]
    before, after = shown(source, 4), shown(Path("out/a.png"), 4)
    assert np.corrcoef(before[part].ravel(), after[part].ravel())[0, 1] < -0.7


def test_a_face_in_a_later_frame_only_is_found(finder: Finder) -> None:
    frames = [ground(seed=1) for _ in range(3)] + moving(ANNA, 3, seed=1)
    source = animate("a.gif", frames, duration=100)  # whose first three frames become one
    outcome = only(work(source, settings=TURNING))
    assert (outcome.verdict, outcome.faces) == ("protected", 1)
    assert np.abs(shown(source, 3).astype(int) - shown(outcome.output, 3)).mean() > 3


def test_what_is_told_in_an_animated_picture_goes_unless_it_is_kept() -> None:
    source = animate("a.gif", moving(ANNA, 3), duration=50, comment=b"Anna Amsel")
    outcome = only(work(source, settings=TURNING))
    assert b"Amsel" not in outcome.output.read_bytes()
    assert outcome.removed == {"names, titles and comments": 1}
    kept = only(work(source, settings=replace(TURNING, metadata=MetadataPolicy.KEEP)))
    assert b"Amsel" in kept.output.read_bytes()


def test_a_png_of_one_picture_is_a_photo_and_a_broken_gif_is_told() -> None:
    write_photo(Path("photo.png"), "anna")
    assert read_moving(Path("photo.png")) is None
    whole = animate("a.gif", moving(ANNA, 6), duration=50).read_bytes()
    Path("half.gif").write_bytes(whole[: len(whole) // 2])
    Path("empty.gif").touch()
    for name in ("half.gif", "empty.gif"):
        outcome = only(work(name, settings=TURNING))
        assert outcome.verdict is None
        assert outcome.exit_code == 4


def test_a_large_photo_is_no_animation_and_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.new("1", (14_000, 13_000)).save(path, compress_level=1)  # Pillow refuses from 179 megapixels on
    assert read_moving(path) is None
