"""A clip: opened from a file, read frame by frame as upright RGB, and never held in memory as a whole.

PyAV reads; it is in the extra ``video``. What would be written back as something else than it was (HDR, transparency,
interlaced frames, codecs without an encoder here) is refused before any work begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.errors import PhotoTooLarge, UnreadablePhoto, UnsupportedPhoto, missing_extra

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
"""Endings of clips that are read, and the container that is written under each."""

ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "mpeg4": "mpeg4",
    "mjpeg": "mjpeg",
}
"""What writes each codec; a codec that is not here is refused."""

_LARGEST = 8192 * 8192  # pixels of a frame
_HDR = {16: "PQ", 18: "HLG"}  # numbers of transfer functions in ITU-T H.273
_CUT_OFF = 0.02  # part of the frames that may be missing; some files begin before their first whole frame


def is_clip_name(name: str) -> bool:
    """Whether a file name has the ending of a clip or of a GIF, and is not hidden.

    >>> is_clip_name("party.MP4"), is_clip_name("._party.mp4"), is_clip_name("party.jpg")
    (True, False, False)
    """
    return not name.startswith(".") and Path(name).suffix.lower() in {*CONTAINERS, ".gif", ".apng"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        number: From 0, in the order of showing.
        seconds: When it is shown.
        native: As decoded, with its time and colour tags.
        bits: Bits per sample of its pixels, 8 or 16.
        rotation: By how many degrees counter-clockwise players turn it.
    """

    number: int
    seconds: float
    native: av.VideoFrame = field(repr=False)
    bits: int = 8
    rotation: int = 0

    @cached_property
    def pixels(self) -> NDArray[Any]:
        """(H, W, 3) uint8, or uint16 where the clip has more than eight bits; upright RGB, made when asked for."""
        return self.upright("rgb24" if self.bits == 8 else "rgb48le")

    @property
    def colours(self) -> NDArray[np.uint8]:
        """(H, W, 3), the pixels in eight bits."""
        return self.pixels if self.bits == 8 else self.upright("rgb24")

    def small(self, width: int, height: int) -> NDArray[np.uint8]:
        """(height, width, 3), the upright picture reduced."""
        if self.rotation % 180:
            width, height = height, width
        return self.upright("rgb24", width=width, height=height)

    @cached_property
    def grey(self) -> NDArray[np.uint8]:
        """(H, W), upright; quicker to have than pixels."""
        return self.upright("gray")

    def upright(self, form: str, **size: int) -> NDArray[Any]:
        """The picture in a format of PyAV, turned as players show it."""
        shown = self.native.reformat(
            format=form,
            src_colorspace=colour_matrix(self.native),
            dst_color_range="JPEG",
            interpolation="AREA" if size else "FAST_BILINEAR" if form == "gray" else _interpolation(),
            **size,
        )
        return np.ascontiguousarray(np.rot90(shown.to_ndarray(), self.rotation // 90))


@dataclass(frozen=True, eq=False)
class Patch:
    """A part of a frame that is changed.

    Attributes:
        rows: Of the upright picture, not empty.
        columns: Of it.
        pixels: What is there now, of the type of `Frame.pixels`.
    """

    rows: slice
    columns: slice
    pixels: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip on disk.

    Attributes:
        path: The file.
        sha256: Of its bytes, in hexadecimal.
        container: Name of the container, such as ``mp4``.
        codec: Of the pictures, such as ``h264``.
        width: Of the upright pictures, in pixels.
        height: Of the upright pictures.
        rotation: By how many degrees counter-clockwise players turn the stored pictures.
        frames: How many there are.
        seconds: How long it is.
        rate: Mean frames a second.
        bits: Bits per sample.
        bit_rate: Of the pictures, in bits a second.
        notes: What is worth knowing of the file, in plain words.
    """

    path: Path
    sha256: str
    container: str
    codec: str
    width: int
    height: int
    rotation: int
    frames: int
    seconds: float
    rate: float
    bits: int
    bit_rate: float
    notes: tuple[str, ...] = ()

    def written(self, path: Path) -> Clip:
        """What was made of this one and written under another name."""
        return read_clip(path)

    @property
    def look_every(self) -> int | None:
        """Frames between two looks for faces, where nothing is asked for; None for what is usual."""
        return None

    @property
    def suffix(self) -> str:
        """The file's own ending: what it is written under again."""
        return self.path.suffix

    def __iter__(self) -> Iterator[Frame]:
        """Decode the frames one after the other.

        Raises:
            UnreadablePhoto: when the file is damaged somewhere.
        """
        with opened(self.path) as (container, stream):
            stream.thread_type = "AUTO"
            number = 0
            for packet in container.demux(stream):
                for native in _decoded(packet, self.path):
                    yield self.frame(native, number)
                    number += 1
            if number < self.frames - max(2, _CUT_OFF * self.frames):
                raise UnreadablePhoto(
                    f"{self.path} is damaged: of {self.frames} frames {number} could be read.",
                    hint="Repair the file, or copy it anew from where it came.",
                )

    def frame(self, native: av.VideoFrame, number: int) -> Frame:
        """A decoded frame of this clip."""
        seconds = float(native.time) if native.time is not None else number / self.rate
        return Frame(number, seconds, native, self.bits, self.rotation)


def colour_matrix(native: av.VideoFrame) -> str:
    """How colours are coded: as tagged, or as players assume."""
    names = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M"}
    return names.get(int(native.colorspace), "ITU709" if native.height >= 720 else "ITU601")


def _interpolation() -> Any:
    """Of colour samples; the fast way makes every picture a little darker."""
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def native_frame(frame: Frame, patch: Patch | None, pixel_format: str) -> av.VideoFrame:
    """A frame to encode, with a part of it changed, and with the time and the colour tags of one that was decoded.

    What was not changed keeps its samples: only the difference that a change makes is coded, and added to them. That is
    linear, and spares two conversions, which would move colours by parts of a pixel and round.

    Args:
        frame: As decoded.
        patch: What is changed; None for nothing.
        pixel_format: Planar, of the encoder.
    """
    import av

    before = frame.native
    made = before.reformat(format=pixel_format)
    if patch is not None:
        made = av.VideoFrame.from_ndarray(made.to_ndarray(), format=pixel_format)  # the decoder still needs its own
        _change(made, frame, patch)
    made.pts, made.time_base = before.pts, before.time_base
    made.colorspace, made.color_range = before.colorspace, before.color_range
    made.color_primaries, made.color_trc = before.color_primaries, before.color_trc
    return made


_BLOCK = 4  # samples; a multiple of all that share one colour sample
_LUMA = {"ITU709": (0.2126, 0.0722), "ITU601": (0.299, 0.114), "FCC": (0.3, 0.11), "SMPTE240M": (0.212, 0.087)}
"""What red and blue add to lightness, by colour matrix (ITU-T H.273)."""


def _change(made: av.VideoFrame, frame: Frame, patch: Patch) -> None:
    """Add the difference that a patch makes to the planes of a frame."""
    bits = max(component.bits for component in made.format.components)
    samples: type[np.generic] = np.uint8 if bits == 8 else np.uint16
    most = (1 << bits) - 1
    added = patch.pixels.astype(np.float32) - frame.pixels[patch.rows, patch.columns]
    added /= np.float32(np.iinfo(patch.pixels.dtype).max)
    rows, columns = patch.rows, patch.columns
    height, width = frame.pixels.shape[:2]
    for _ in range(frame.rotation // 90):  # back to how it is stored: clockwise, once for every quarter
        rows, columns, height, width = columns, slice(height - rows.stop, height - rows.start), width, height
    added = np.rot90(added, -(frame.rotation // 90))
    (above, below), (before, after) = ((at.start % _BLOCK, -at.stop % _BLOCK) for at in (rows, columns))
    added = np.pad(added, ((above, below), (before, after), (0, 0)))
    top, left = rows.start - above, columns.start - before
    planes: Any = made.planes
    for plane, weights in zip(planes, _weights(frame.native, made.format, most), strict=True):
        across, down = -(-width // plane.width), -(-height // plane.height)  # pixels that share a sample
        moved = added @ weights
        if across * down > 1:
            size = moved.shape[1] // across, moved.shape[0] // down
            moved = cv2.resize(moved, size, interpolation=cv2.INTER_AREA)
        rest = np.frombuffer(plane, samples).reshape(plane.height, -1)[top // down :, left // across : plane.width]
        there = rest[: moved.shape[0], : moved.shape[1]]
        there[:] = (there + moved[: there.shape[0], : there.shape[1]]).round().clip(0, most)


def _weights(native: av.VideoFrame, form: av.VideoFormat, most: int) -> NDArray[np.float32]:
    """(planes, 3): by how many samples red, green and blue from 0 to 1 move each plane."""
    if form.name.startswith("gbr"):
        return np.float32(most) * np.eye(3, dtype=np.float32)[[1, 2, 0]]
    red, blue = _LUMA[colour_matrix(native)]
    light = np.array([red, 1 - red - blue, blue])
    colours = ((0, 0, 1) - light) / (2 - 2 * blue), ((1, 0, 0) - light) / (2 - 2 * red)
    full = int(native.color_range) == 2 or native.format.name.startswith("yuvj")
    luma, chroma = (most, most) if full else (219 * (most + 1) / 256, 224 * (most + 1) / 256)
    planes = [luma * light, *(chroma * one for one in colours)]
    return np.stack(planes[: len(form.components)]).astype(np.float32)


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its pictures.

    Raises:
        MissingExtra: without PyAV.
        UnreadablePhoto: when the file cannot be opened or holds no pictures that move.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise missing_extra("av", what="Reading clips") from error
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    with container:
        streams = [stream for stream in container.streams.video if stream.codec_context is not None]
        if not streams and container.streams.video:
            raise _unreadable(path, ValueError("a codec that is not known"))
        moving = [stream for stream in streams if not _is_cover(stream)]
        if not moving:
            raise UnreadablePhoto(
                f"{path} holds sound, and no pictures that move.", hint="There is nothing to protect in it."
            )
        yield container, moving[0]


def _is_cover(stream: Any) -> bool:
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _unreadable(path: Path, error: Exception) -> UnreadablePhoto:
    if not path.exists():
        return UnreadablePhoto(f"{path} does not exist.", hint="Check the spelling.")
    if not path.stat().st_size:
        return UnreadablePhoto(f"{path} is empty.", hint="Copy it anew from where it came.")
    if isinstance(error, PermissionError):
        return UnreadablePhoto(f"{path} cannot be opened.", hint="Check its permissions.")
    return UnreadablePhoto(
        f"{path} cannot be read as a clip: it is cut off, damaged, or something else.",
        hint="Copy it anew from where it came, or see whether a player opens it.",
    )


def _decoded(packet: Any, path: Path) -> list[av.VideoFrame]:
    import av

    try:
        return list(packet.decode())
    except av.error.FFmpegError as error:
        raise UnreadablePhoto(
            f"{path} is damaged: a part of it cannot be decoded.",
            hint="Repair the file, or copy it anew from where it came.",
        ) from error


def read_clip(path: Path) -> Clip:
    """Look at a clip: what it is, how long, and whether it can be written back as it is.

    Args:
        path: The file.

    Raises:
        MissingExtra: without PyAV.
        UnreadablePhoto: empty, cut off, damaged, or without pictures.
        UnsupportedPhoto: HDR, transparent, interlaced, or of a container or codec that is not written here.
        PhotoTooLarge: frames of more than 67 million pixels.
    """
    with opened(path) as (container, stream):
        kind = CONTAINERS.get(path.suffix.lower())
        if kind is None:
            raise UnsupportedPhoto(
                f"{path} is a clip of a kind that is not written here.", hint="Convert it to MP4 with H.264."
            )
        codec = stream.codec_context.name
        codec = {"libdav1d": "av1", "libvpx-vp9": "vp9", "libvpx": "vp8", "libaom-av1": "av1"}.get(codec, codec)
        _require_encoder(path, codec)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > _LARGEST:
            raise PhotoTooLarge(f"{path} has frames of {width}x{height} pixels.", hint="Make it smaller.")
        count, size, first, last = 0, 0, None, 0.0
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                count, size = count + 1, size + packet.size
                at, lasts = float(packet.pts * packet.time_base), float((packet.duration or 0) * packet.time_base)
                first, last = at if first is None else min(first, at), max(last, at + lasts)
        declared = stream.frames if kind in ("mp4", "mov") else 0  # others guess
        notes = _left_out_streams(container, stream)
        if stream.metadata.get("alpha_mode") == "1":  # of which decoders show the opaque part alone
            raise _transparent(path)
    if not count:
        raise UnreadablePhoto(f"{path} holds no frame.", hint="Copy it anew from where it came.")
    if declared and count < declared - max(2, _CUT_OFF * declared):
        raise UnreadablePhoto(
            f"{path} is cut off: of {declared} frames {count} are there.",
            hint="Copy it anew from where it came; the rest of it is missing.",
        )
    seconds = max(last - (first or 0.0), 1e-3)
    native = _first_frame(path)
    _require_plain(path, native)
    _require_colours(path, codec, native.format.name)
    rotation = int(round(native.rotation / 90) * 90) % 360
    if rotation % 180:
        width, height = height, width
    bits = max(component.bits for component in native.format.components)
    return Clip(
        path=path,
        sha256=digest(path),
        container=kind,
        codec=codec,
        width=width,
        height=height,
        rotation=rotation,
        frames=count,
        seconds=seconds,
        rate=count / seconds,
        bits=8 if bits == 8 else 16,
        bit_rate=8 * size / seconds,
        notes=notes,
    )


def _require_encoder(path: Path, codec: str) -> None:
    import av

    encoder = ENCODERS.get(codec)
    if encoder is None:
        raise UnsupportedPhoto(
            f"{path} is coded as {codec}, which is not written here.",
            hint=f"Convert it to H.264 first, as ffmpeg does: ffmpeg -i {path.name} -c:v libx264 -crf 16 clip.mp4.",
        )
    try:
        av.codec.Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise UnsupportedPhoto(
            f"{path} is coded as {codec}, and the PyAV that is installed has no {encoder} to write that with.",
            hint="Install PyAV's own wheel, which has it: pip install --force-reinstall --only-binary av av.",
        ) from error


def pixel_format(codec: str, before: str) -> str:
    """In which pixels are written again: planar, and what the codec's encoder takes."""
    before = {"nv12": "yuv420p", "p010le": "yuv420p10le"}.get(before, before)
    return "yuvj420p" if codec == "mjpeg" and before == "yuv420p" else before


def _require_colours(path: Path, codec: str, coded: str) -> None:
    import av

    wanted = pixel_format(codec, coded)
    known = av.codec.Codec(ENCODERS[codec], "w").video_formats or ()
    if wanted not in {one.name for one in known}:
        raise UnsupportedPhoto(
            f"{path} codes its colours as {coded}, which is not written here.",
            hint=f"Convert it first, as ffmpeg does: ffmpeg -i {path.name} -pix_fmt yuv420p -crf 16 clip.mp4.",
        )


def _require_plain(path: Path, native: av.VideoFrame) -> None:
    if curve := _HDR.get(int(native.color_trc)):
        raise UnsupportedPhoto(
            f"{path} is in HDR ({curve}); recognisers look at plain video, and so does Bauta.",
            hint="Convert it to SDR, as phones do when they share a clip in compatible form.",
        )
    if any(component.is_alpha for component in native.format.components):
        raise _transparent(path)
    if native.interlaced_frame:
        raise UnsupportedPhoto(
            f"{path} is interlaced: each frame holds two moments.",
            hint="Make whole frames of it first, as ffmpeg does with -vf bwdif.",
        )


def _transparent(path: Path) -> UnsupportedPhoto:
    return UnsupportedPhoto(f"{path} is transparent in places.", hint="Put it on a background first.")


def _first_frame(path: Path) -> av.VideoFrame:
    with opened(path) as (container, stream):
        for packet in container.demux(stream):
            for native in _decoded(packet, path):
                return native
    raise UnreadablePhoto(f"{path} holds no frame.", hint="Copy it anew from where it came.")


def _left_out_streams(container: Any, pictures: Any) -> tuple[str, ...]:
    """What of a file is not written again, because it may show or tell what the pictures no longer do."""
    notes = []
    covers = sum(_is_cover(stream) for stream in container.streams.video)
    others = len(container.streams.video) - covers - 1
    data = sum(stream.type in ("data", "attachment") for stream in container.streams)
    if covers:
        notes.append("Its cover picture was left out: it may show a face.")
    if others:
        notes.append(f"{others} more track{'' if others == 1 else 's'} of pictures left out: the first is protected.")
    if data:
        notes.append("Tracks of data were left out: they may tell the place or the device.")
    return tuple(notes)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mean_rate(clip: Clip) -> Fraction:
    """Frames a second, as encoders want it: what they plan their bits by."""
    return Fraction(clip.rate).limit_denominator(1001)
