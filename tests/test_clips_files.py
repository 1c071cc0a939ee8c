"""Clips are written back as they were: times, sound, colours, orientation, size; and what cannot be is refused."""

from __future__ import annotations

import errno
import io
import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bauta.clips import clip as clips
from bauta.clips.ahead import ahead
from bauta.clips.clip import native_frame, read_clip
from bauta.clips.writing import write_clip as write_again
from bauta.errors import MissingExtra, OutputError, PhotoTooLarge, UnreadablePhoto, UnsupportedPhoto
from bauta.photo import MetadataPolicy
from clip_builders import ground, moving, packets, write_clip

FACE = ground((112, 112), 5)
TAGS = {"location": "+48.1+011.5/", "artist": "Anna Amsel", "creation_time": "2024-01-01T00:00:00Z"}
KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {"sound": "aac"},
    "uneven.mp4": {"uneven": True, "sound": "aac"},
    "turned.mov": {"rotation": 90},
    "turned-back.mov": {"rotation": -90},
    "a.webm": {"codec": "libvpx-vp9", "sound": "libopus"},
    "a.mkv": {"codec": "libvpx"},
    "hevc.mp4": {"codec": "libx265"},
    "ten.mp4": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "a.avi": {"codec": "mpeg4"},
}


def same(frame: clips.Frame) -> None:
    """Nothing is changed."""


@pytest.mark.parametrize("name", KINDS)
def test_what_is_not_a_picture_stays(tmp_path: Path, name: str) -> None:
    source = write_clip(tmp_path / name, moving(FACE, 12), tags=TAGS, **KINDS[name])
    clip = read_clip(source)
    target = tmp_path / f"out-{name}"
    write_again(clip, target, same)
    again = read_clip(target)
    for what in ("container", "codec", "width", "height", "rotation", "frames", "bits"):
        assert getattr(again, what) == getattr(clip, what), what
    for before, after in zip(clip, again, strict=True):
        assert after.seconds == pytest.approx(before.seconds, abs=2e-3)
        assert before.native.format.name == after.native.format.name
        tags = ("colorspace", "color_primaries", "color_trc", "color_range")
        assert [getattr(before.native, tag) for tag in tags] == [getattr(after.native, tag) for tag in tags]
        whole = np.iinfo(before.pixels.dtype).max
        assert np.abs(before.pixels.astype(float) - after.pixels).mean() < 0.02 * whole
    if "sound" in KINDS[name]:
        assert packets(target, "audio") == packets(source, "audio")
    assert target.stat().st_size < 1.5 * source.stat().st_size + 4096
    with av.open(str(target)) as written:
        text = repr({**written.metadata, **written.streams.video[0].metadata})
    assert "Anna" not in text
    assert "48.1" not in text


def test_a_clip_of_two_frames_can_be_written_every_time(tmp_path: Path) -> None:
    clip = read_clip(write_clip(tmp_path / "a.mp4", moving(FACE, 2), "libx265"))
    for number in range(12):  # left to itself, x265 makes up times that no file can hold, one time in three
        write_again(clip, tmp_path / f"{number}.mp4", same)
        assert read_clip(tmp_path / f"{number}.mp4").frames == 2


def test_a_turned_clip_is_shown_upright(tmp_path: Path) -> None:
    frames = moving(FACE, 3)
    upright = next(iter(read_clip(write_clip(tmp_path / "a.mov", frames, rotation=90))))
    assert upright.pixels.shape == (320, 240, 3)
    assert np.abs(np.rot90(frames[0]).astype(float) - upright.pixels).mean() < 12


@pytest.mark.parametrize(("policy", "left"), [("keep", True), ("private", False), ("strip", False)])
def test_tags_by_policy(tmp_path: Path, policy: str, left: bool) -> None:
    clip = read_clip(write_clip(tmp_path / "a.mp4", moving(FACE, 3), tags=TAGS))
    removed = write_again(clip, tmp_path / "b.mp4", same, metadata=MetadataPolicy(policy))
    content = (tmp_path / "b.mp4").read_bytes()
    assert (b"Anna" in content) is left
    with av.open(str(tmp_path / "b.mp4")) as written:
        assert ("location" in written.metadata) is left
        assert ("creation_time" in written.metadata) is (policy != "strip")
    assert ("positions and places" in removed) is not left


def test_chapters_go_unless_they_are_kept(tmp_path: Path) -> None:
    clip = read_clip(write_clip(tmp_path / "a.mkv", moving(FACE, 12), chapter="Anna arrives"))
    assert write_again(clip, tmp_path / "b.mkv", same)["chapters"] == 1
    assert b"Anna" not in (tmp_path / "b.mkv").read_bytes()
    write_again(clip, tmp_path / "c.mkv", same, metadata=MetadataPolicy.KEEP)
    assert b"Anna" in (tmp_path / "c.mkv").read_bytes()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("deep", [False, True])
def test_what_is_not_changed_keeps_its_samples(tmp_path: Path, rotation: int, deep: bool) -> None:
    kind: dict[str, Any] = {"codec": "libx265", "pixel_format": "yuv420p10le"} if deep else {}
    clip = read_clip(write_clip(tmp_path / "a.mov", moving(FACE, 2), rotation=rotation, **kind))
    frame = next(iter(clip))
    name = frame.native.format.name
    rows, columns = slice(40, 80), slice(120, 200)
    there = frame.pixels[rows, columns]
    before = frame.native.to_ndarray()
    assert (native_frame(frame, None, name).to_ndarray() == before).all()
    assert (native_frame(frame, clips.Patch(rows, columns, there), name).to_ndarray() == before).all()
    inverse = np.iinfo(there.dtype).max - there
    made = native_frame(frame, clips.Patch(rows, columns, inverse), name)
    luma = np.rot90((made.to_ndarray() != before)[: frame.native.height], clip.rotation // 90)
    assert luma[rows, columns].mean() > 0.9
    luma[36:84, 116:204] = False
    assert not luma.any()
    shown = replace(frame, native=made).pixels[rows, columns].astype(float) / np.iinfo(there.dtype).max
    assert np.abs(shown - inverse / np.iinfo(there.dtype).max).mean() < 0.02
    assert (frame.native.to_ndarray() == before).all()  # the decoder goes on with it


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.mp4", moving(FACE, 30), sound="aac")
    content = whole.read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no clip at all" * 100)
    for name, words in {
        "half.mp4": "cut off", "empty.mp4": "empty", "text.mp4": "cannot be read", "gone.mp4": "does not exist",
    }.items():  # fmt: skip
        with pytest.raises(UnreadablePhoto, match=words) as error:
            read_clip(tmp_path / name)
        assert error.value.hint


def test_colours_that_no_encoder_takes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264rgb", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "rgb24"
        for frame in moving(FACE, 3):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        sink.mux(stream.encode(None))
    with pytest.raises(UnsupportedPhoto, match="colours as gbrp") as error:
        read_clip(path)
    assert "pix_fmt yuv420p" in str(error.value.hint)


def test_a_full_disk_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = read_clip(write_clip(tmp_path / "a.mp4", moving(FACE, 3)))

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", lambda path, mode="r", **options: Full(path, mode))
    with pytest.raises(OutputError, match="No space left"):
        write_again(clip, tmp_path / "b.mp4", same)


def test_a_clip_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.mp4", moving(FACE, 30))
    write_again(read_clip(whole), tmp_path / "fast.mp4", same)  # which says at its beginning how long it is
    content = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UnreadablePhoto, match="frames"):
        list(read_clip(tmp_path / "half.mp4"))


def test_sound_alone_is_nothing_to_protect(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as sink:
        stream = sink.add_stream("aac", rate=48000)
        stream.layout = "mono"
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        piece.rate = 48000
        for packet in [*stream.encode(piece), *stream.encode(None)]:
            sink.mux(packet)
    with pytest.raises(UnreadablePhoto, match="no pictures that move"):
        read_clip(tmp_path / "a.mp4")


def test_what_would_be_another_clip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hdr = write_clip(tmp_path / "hdr.mp4", moving(FACE, 2), "libx265", pixel_format="yuv420p10le", transfer=16)
    with pytest.raises(UnsupportedPhoto, match=r"HDR \(PQ\)"):
        read_clip(hdr)
    rare = write_clip(tmp_path / "rare.mkv", moving(FACE, 2), "ffv1")
    with pytest.raises(UnsupportedPhoto, match="ffv1, which is not written"):
        read_clip(rare)
    plain = write_clip(tmp_path / "a.mp4", moving(FACE, 2))
    shutil.copyfile(plain, tmp_path / "a.flv")
    with pytest.raises(UnsupportedPhoto, match="Convert it to MP4"):
        read_clip(tmp_path / "a.flv")
    monkeypatch.setitem(clips.ENCODERS, "h264", "no-such-encoder")
    with pytest.raises(UnsupportedPhoto, match="no no-such-encoder to write") as error:
        read_clip(plain)
    assert "pip install" in error.value.hint
    monkeypatch.setattr(clips, "_LARGEST", 100)
    monkeypatch.setitem(clips.ENCODERS, "h264", "libx264")
    with pytest.raises(PhotoTooLarge):
        read_clip(plain)


@pytest.mark.parametrize(("name", "codec", "form"), [("a.mov", "png", "rgba"), ("a.webm", "libvpx-vp9", "yuva420p")])
def test_a_transparent_clip_is_refused(tmp_path: Path, name: str, codec: str, form: str) -> None:
    picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 4), np.uint8), format="rgba").reformat(format=form)
    with av.open(str(tmp_path / name), "w") as sink:
        stream = sink.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, form
        for packet in [*stream.encode(picture), *stream.encode(None)]:
            sink.mux(packet)
    with pytest.raises(UnsupportedPhoto, match="transparent" if name == "a.webm" else "png"):
        read_clip(tmp_path / name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    clip = read_clip(write_clip(tmp_path / "a.mkv", moving(FACE, 20)))
    with pytest.raises(OutputError, match="No space left") as error:
        write_again(clip, Path("/dev/full"), same)
    assert "space" in error.value.hint


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtra, match=r"bauta\[video\]"):
        read_clip(tmp_path / "a.mp4")


def test_what_goes_wrong_in_the_other_thread_is_raised_and_the_thread_ends() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OutputError("full", hint="more")

    before, made = threading.active_count(), ahead(items())
    assert next(made) == 1
    with pytest.raises(OutputError, match="full"):
        next(made)
    endless = ahead(itertools.count(), most=1)
    assert [next(endless), next(endless)] == [0, 1]
    endless.close()
    assert threading.active_count() == before
