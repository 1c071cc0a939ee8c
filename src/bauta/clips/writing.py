"""Writing a clip: pictures are coded anew, sound and subtitles are copied, and metadata is left out by policy."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bauta.clips.ahead import ahead
from bauta.clips.animation import Animation, write_animation
from bauta.clips.clip import ENCODERS, Clip, Frame, Patch, mean_rate, native_frame, opened, pixel_format
from bauta.drafts import claim_draft
from bauta.errors import OutputError
from bauta.photo.metadata import MetadataPolicy
from bauta.progress import Steps, silent

if TYPE_CHECKING:
    from av.container import OutputContainer

Change = Callable[[Frame], Patch | None]
"""What becomes of a frame; None where it stays as it is."""

HARMLESS = frozenset({"language", "creation_time", "date"})
"""Tags of a container or a track that stay under `MetadataPolicy.PRIVATE`, as they do in photos."""

_ALWAYS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "vendor_id"})
"""What writers set themselves; not counted as left out."""

_PLACES = ("location", "gps", "xyz", "coordinates")
_DEVICES = ("make", "model", "software", "android", "camera", "firmware", "com.apple.quicktime", "serial", "lens")


def write_clip(
    clip: Clip,
    destination: Path,
    change: Change,
    *,
    metadata: MetadataPolicy = MetadataPolicy.PRIVATE,
    rate: float = 1.25,
    progress: Steps = silent,
) -> dict[str, int]:
    """Write a clip with changed frames; the times of frames, sound and subtitles stay.

    The file is written at once under the name given; whoever needs it whole or not at all writes to a draft first.

    Args:
        clip: What is read.
        destination: What is written, with the container of the clip.
        change: What becomes of each frame.
        metadata: What is kept of the tags. Chapters stay under ``KEEP`` only, cover pictures never.
        rate: Most bits that pictures may take, in multiples of what they took.
        progress: Called with (frames done, frames there are).

    Returns:
        How many tags were left out, by kind.

    Raises:
        OutputError: when the file cannot be written.
        UnreadablePhoto: when the clip is damaged.
    """
    import av

    if isinstance(clip, Animation):
        return write_animation(clip, destination, change, metadata=metadata, progress=progress)
    os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes to the terminal by itself
    try:
        with destination.open("wb") as file:
            claim_draft(file)
            with (
                opened(clip.path) as (source, pictures),
                av.open(file, "w", format=clip.container, options=_OPTIONS.get(clip.container, {})) as sink,
            ):
                removed = _transfer(clip, source, pictures, sink, change, metadata, rate, progress)
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(
            f"{destination.name} cannot be written: {_reason(error)}.",
            hint="Check the output folder and the space left on its disk.",
        ) from error
    return removed


def _reason(error: BaseException) -> str:
    """What the system said, where PyAV only says that a file did not take what it was given."""
    said = error
    while said.__cause__ or said.__context__:
        said = said.__cause__ or said.__context__  # type: ignore[assignment]
    return getattr(said, "strerror", None) or str(said)


# Players that fetch a clip over the net begin before all of it is there.
_OPTIONS = {"mp4": {"movflags": "+faststart"}, "mov": {"movflags": "+faststart"}}


def _transfer(
    clip: Clip,
    source: Any,
    pictures: Any,
    sink: OutputContainer,
    change: Change,
    metadata: MetadataPolicy,
    rate: float,
    progress: Steps,
) -> dict[str, int]:
    removed: Counter[str] = Counter()
    sink.metadata.update(_kept(source.metadata, metadata, removed))
    written = _encoder(clip, pictures, sink, rate)
    written.metadata.update(_kept(pictures.metadata, metadata, removed))
    copies = {}
    for stream in source.streams:
        if stream.type in ("audio", "subtitle"):
            copies[stream.index] = sink.add_stream_from_template(stream)
            copies[stream.index].metadata.clear()
            copies[stream.index].metadata.update(_kept(stream.metadata, metadata, removed))
    if chapters := source.chapters():
        if metadata is MetadataPolicy.KEEP:
            sink.set_chapters(chapters)
        else:
            removed["chapters"] += len(chapters)
    context, number = written.codec_context, 0
    last = None
    pictures.thread_type = "AUTO"

    def made() -> Iterator[Any]:
        """Packets to copy, and frames with what becomes of them."""
        at = 0
        for packet in source.demux([pictures, *(stream for stream in source.streams if stream.index in copies)]):
            if packet.stream.index in copies:
                yield packet
                continue
            for native in packet.decode():
                frame = clip.frame(native, at)
                at += 1
                yield frame, change(frame)

    with closing(ahead(made())) as items:
        for one in items:
            if not isinstance(one, tuple):
                if one.dts is not None:
                    one.stream = copies[one.stream.index]
                    sink.mux(one)
                continue
            frame, patch = one
            picture = native_frame(frame, patch, context.pix_fmt)
            if picture.pts is None or (last is not None and picture.pts <= last):
                picture.pts = 0 if last is None else last + 1  # times that do not advance cannot be written
            last = picture.pts
            for coded in written.encode(picture):
                sink.mux(coded)
            number += 1
            progress(number, clip.frames)
    for coded in written.encode(None):
        sink.mux(coded)
    return dict(removed)


def _encoder(clip: Clip, pictures: Any, sink: OutputContainer, rate: float) -> Any:
    before = pictures.codec_context
    written: Any = sink.add_stream(ENCODERS[clip.codec], rate=mean_rate(clip))
    context = written.codec_context
    context.width, context.height = before.width, before.height
    context.pix_fmt = pixel_format(clip.codec, before.pix_fmt)
    base = pictures.time_base
    if clip.codec == "mpeg4" and base.denominator > 65535:  # all that its format has room for
        base = type(base)(1, 60000)
    context.time_base = base
    written.time_base = base
    for tag in ("color_range", "color_primaries", "color_trc", "colorspace"):
        setattr(context, tag, getattr(before, tag))
    if before.sample_aspect_ratio:
        context.sample_aspect_ratio = before.sample_aspect_ratio
    if clip.rotation:
        written.set_display_rotation(clip.rotation if clip.rotation <= 180 else clip.rotation - 360)
    most = max(64_000, int(rate * clip.bit_rate))
    context.thread_count = 0
    context.options = _quality(clip.codec, most, clip.frames)
    if clip.codec in ("vp8", "vp9", "mpeg4", "mjpeg", "av1"):
        context.bit_rate = most if clip.codec != "mjpeg" else most // 2  # of which it is no good judge
    return written


def _quality(codec: str, most: int, frames: int) -> dict[str, str]:
    """Options of good quality, within a number of bits a second."""
    kilobits = str(max(1, most // 1000))
    match codec:
        case "h264":
            return {"crf": "16", "preset": "veryfast", "maxrate": str(most), "bufsize": str(2 * most)}
        case "hevc":
            limits = f"vbv-maxrate={kilobits}:vbv-bufsize={2 * int(kilobits)}:log-level=error"
            if frames < 3:  # x265 knows no times to decode two frames at, and makes some up that no file can hold
                limits += ":bframes=0"
            return {"crf": "19", "preset": "fast", "x265-params": limits}
        case "vp8" | "vp9":
            return {"crf": "20", "deadline": "good", "cpu-used": "4", "maxrate": str(most), "bufsize": str(2 * most)}
        case "av1":
            return {"preset": "9"}
    return {"maxrate": str(most), "bufsize": str(2 * most)}


def _kept(tags: Any, policy: MetadataPolicy, removed: Counter[str]) -> dict[str, str]:
    kept = {}
    for name, value in dict(tags).items():
        low = name.casefold()
        harmless = policy is not MetadataPolicy.STRIP and low in HARMLESS
        if low == "language" or harmless or (policy is MetadataPolicy.KEEP and low not in _ALWAYS):
            kept[name] = value
        elif low not in _ALWAYS and value and low != "handler_name":
            removed[_kind(low)] += 1
    return kept


def _kind(tag: str) -> str:
    if any(word in tag for word in _PLACES):
        return "positions and places"
    if any(word in tag for word in _DEVICES):
        return "devices and programs"
    return "names, titles and comments"


def as_floats(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Samples of a frame, or of a part of it, in [0, 1]."""
    return np.asarray(pixels, dtype=np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def as_samples(pixels: NDArray[np.float32], like: NDArray[Any]) -> NDArray[Any]:
    """The other way round: [0, 1] as samples of the type of others."""
    most = np.iinfo(like.dtype).max
    return np.asarray((pixels * np.float32(most)).round().clip(0, most)).astype(like.dtype)
