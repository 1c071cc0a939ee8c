"""Animated pictures, GIF, WebP and PNG: read frame by frame as clips are, and written in the same format again.

Pillow reads and writes them; durations, loop count and transparency stay. Writers join frames that look the same, so
frames of what was written are found by the times of the original.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bauta.clips.clip import Clip, Frame, Patch, digest, read_clip
from bauta.drafts import claim_draft
from bauta.errors import OutputError, PhotoTooLarge, UnreadablePhoto, missing_extra
from bauta.photo.codec import opened as opened_picture
from bauta.photo.metadata import MetadataPolicy
from bauta.progress import Steps, silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

FORMATS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}
"""Endings that animated pictures may have, and what is written under each."""

_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError)  # what decoders raise
_MOST = 150e6  # pixels of all frames together, which Pillow holds while it writes
_LEAST = 0.02  # seconds of a frame that says it takes no time; players show it for longer
_SHADES = 255  # of a GIF's 256 colours one is kept for what is transparent


@dataclass(frozen=True, eq=False)
class Animation(Clip):
    """An animated picture; see `bauta.clips.clip.Clip` for the rest.

    Attributes:
        form: ``GIF``, ``WEBP`` or ``PNG``.
        starts: Seconds at which the frames begin, by what is said of their lengths.
        times: Seconds at which frames are shown: the own ones, or those of the original that it was made of.
        durations: Milliseconds of each frame, as they are told.
        loop: How often it is shown; 0 for ever, None where nothing is told.
    """

    form: str = "GIF"
    starts: tuple[float, ...] = ()
    times: tuple[float, ...] = ()
    durations: tuple[float, ...] = ()
    loop: int | None = None

    @property
    def look_every(self) -> int:
        """Each frame is looked at: whoever has the file can show a single one, however short it is."""
        return 1

    def __iter__(self) -> Iterator[Frame]:
        """The frames; what is transparent is shown on white, as pages show it."""
        import av

        wanted = [max(0, bisect.bisect_right(self.starts, at + 1e-3) - 1) for at in self.times]
        layers = enumerate(_layers(self.path))
        at, pixels = -1, np.zeros((0, 0, 4), np.uint8)
        for number, (one, seconds) in enumerate(zip(wanted, self.times, strict=True)):
            while at < one:
                at, pixels = next(layers)
            native = av.VideoFrame.from_ndarray(_on_white(pixels), format="rgb24")
            yield Frame(number, seconds, native)

    def written(self, path: Path) -> Animation:
        """What was made of this one, with frames at the same times."""
        made = read_moving(path)
        assert isinstance(made, Animation)
        return replace(made, times=self.times, frames=len(self.times), seconds=self.seconds, rate=self.rate)


def read_moving(path: Path) -> Clip | None:
    """A clip or an animated picture; None for what holds one picture, or is not a picture at all.

    Raises:
        MissingExtra: without PyAV.
        UnreadablePhoto, UnsupportedPhoto, PhotoTooLarge: as `bauta.clips.clip.read_clip`.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        return read_clip(path)
    from PIL import Image, UnidentifiedImageError

    damage = (*_DAMAGE, Image.DecompressionBombError)
    try:
        with opened_picture(path) as image:  # a photo of 200 megapixels, perhaps
            if image.format not in FORMATS.values() or (image.format != "GIF" and not _moves(image)):
                return None
            form, size = str(image.format), image.size
            loop = image.info.get("loop")
            count = getattr(image, "n_frames", 1)
            _require_size(path, size, count)
            durations = []
            for number in range(count):
                image.seek(number)
                _require_size(path, image.size, count)  # a frame may be larger than the first
                durations.append(_duration(image))
    except (UnidentifiedImageError, FileNotFoundError, PermissionError, IsADirectoryError):
        return None
    except damage as error:
        raise _damaged(path) from error
    try:
        import av  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("av", what="Protecting animated pictures") from error
    lengths = [max(_LEAST, duration / 1000) for duration in durations]
    starts = tuple(itertools.accumulate(lengths, initial=0.0))
    seconds = starts[-1]
    return Animation(
        path=path,
        sha256=digest(path),
        container=form.lower(),
        codec=form.lower(),
        width=size[0],
        height=size[1],
        rotation=0,
        frames=count,
        seconds=seconds,
        rate=count / seconds,
        bits=8,
        bit_rate=8 * path.stat().st_size / seconds,
        form=form,
        starts=starts[:-1],
        times=starts[:-1],
        durations=tuple(durations),
        loop=loop,
    )


def write_animation(
    animation: Animation,
    destination: Path,
    change: Callable[[Frame], Patch | None],
    *,
    metadata: MetadataPolicy = MetadataPolicy.PRIVATE,
    progress: Steps = silent,
) -> dict[str, int]:
    """Write an animated picture with changed frames; see `bauta.clips.writing.write_clip`."""
    from PIL import Image

    kept: dict[str, Any] = {}
    removed = {}
    with Image.open(animation.path) as image:
        told = {name: image.info[name] for name in ("comment", "exif", "xmp") if image.info.get(name)}
        texts = getattr(image, "text", {})
        if icc := image.info.get("icc_profile"):
            kept["icc_profile"] = icc
        if image.info.get("default_image"):
            kept["default_image"] = True
    if metadata is MetadataPolicy.KEEP:
        kept |= told
    elif told or texts:
        removed["names, titles and comments"] = len(told) + len(texts)
    if animation.loop is not None:
        kept["loop"] = animation.loop
    made = _pictures(animation, change, progress)
    first = next(made)
    try:
        with destination.open("wb") as file:
            claim_draft(file)
            first.save(
                file,
                format=animation.form,
                save_all=True,
                append_images=list(made) if animation.form == "PNG" else made,  # which asks for them twice
                duration=list(animation.durations) if len(animation.durations) > 1 else animation.durations[0],
                **kept,
                **_options(animation),
            )
    except OSError as error:
        raise OutputError(
            f"{destination.name} cannot be written: {error.strerror or error}.",
            hint="Check the output folder and the space left on its disk.",
        ) from error
    return removed


def _pictures(animation: Animation, change: Callable[[Frame], Patch | None], progress: Steps) -> Iterator[Image.Image]:
    """The frames as they are to be written."""
    from PIL import Image

    for frame, layer in zip(animation, _layers(animation.path), strict=True):
        pixels, patch = layer.copy(), change(frame)
        part = slice(0, 0), slice(0, 0)
        if patch is not None:
            part = patch.rows, patch.columns
            there = pixels[part]
            moved = there[..., :3].astype(np.int16) + patch.pixels - frame.pixels[part]
            there[..., :3] = np.where(there[..., 3:] > 0, moved.clip(0, 255), there[..., :3])
        progress(frame.number + 1, animation.frames)
        clear = pixels[..., 3] < 255
        if animation.form == "GIF":
            yield _with_palette(pixels, layer, part)
        else:
            yield Image.fromarray(pixels) if clear.any() else Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


def _with_palette(pixels: NDArray[np.uint8], before: NDArray[np.uint8], part: tuple[slice, slice]) -> Image.Image:
    """(H, W, 4) pixels, changed within a part, in 255 colours and one that is transparent.

    What was not changed keeps its colours, if it has no more than these; what was is mixed of them and of the rest, by
    dithering, which elsewhere would make noise where there was none.
    """
    from PIL import Image

    packed = pixels[..., :3].astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    clear, changed = pixels[..., 3] < 128, np.zeros(packed.shape, np.bool_)
    changed[part] = (pixels[part] != before[part]).any(axis=2)
    known = np.unique(packed[~clear & ~changed])
    inside = Image.fromarray(np.ascontiguousarray(pixels[part][..., :3])) if changed.any() else None
    if len(known) <= _SHADES:
        colours = np.stack([known >> 16, known >> 8 & 255, known & 255], axis=1).astype(np.uint8).ravel().tolist()
        if inside is not None and len(known) < _SHADES:
            more = inside.quantize(_SHADES - len(known), Image.Quantize.MEDIANCUT).getpalette() or []
            colours += more[: 3 * (_SHADES - len(known))]
        indices = np.searchsorted(known, packed).clip(0, max(0, len(known) - 1)).astype(np.uint8)
    else:
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
        palette = picture.quantize(_SHADES, Image.Quantize.MEDIANCUT)
        colours = (palette.getpalette() or [])[: 3 * _SHADES]
        indices = np.array(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    colours = colours or [0, 0, 0]
    colours += colours[:3] * (_SHADES + 1 - len(colours) // 3)  # so that no colour is found at what is transparent
    if inside is not None:
        palette = Image.new("P", (1, 1))
        palette.putpalette(colours)
        dithered = np.asarray(inside.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
        np.copyto(indices[part], dithered, where=changed[part])
    indices[clear] = _SHADES
    made = Image.fromarray(indices, "P")
    made.putpalette(colours)
    if clear.any():
        made.info["transparency"] = _SHADES
    return made


def _options(animation: Animation) -> dict[str, Any]:
    """How each format is written: every frame whole, and as faithful as it was."""
    if animation.form == "GIF":
        return {"disposal": 2, "optimize": False}
    if animation.form == "PNG":
        return {"disposal": 0, "blend": 0}
    with animation.path.open("rb") as file:
        lossless = b"VP8L" in file.read(2**16)
    return {"lossless": lossless, "quality": 80 if lossless else 90, "method": 4}


def _layers(path: Path) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 4) of each frame as it is shown, whatever the file holds of it."""
    from PIL import Image

    damage = (*_DAMAGE, Image.DecompressionBombError)
    try:
        with Image.open(path) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                yield np.asarray(image.convert("RGBA"))
    except damage as error:
        raise _damaged(path) from error


def _on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if (pixels[..., 3] == 255).all():
        return np.ascontiguousarray(pixels[..., :3])
    share = pixels[..., 3:].astype(np.float32) / 255
    return np.asarray((pixels[..., :3] * share + 255 * (1 - share)).round(), dtype=np.uint8)


def _moves(image: Image.Image) -> bool:
    return bool(getattr(image, "is_animated", False))


def _duration(image: Image.Image) -> float:
    image.load()  # before which a WebP does not tell
    return float(image.info.get("duration") or 0)


def _require_size(path: Path, size: Sequence[int], count: int) -> None:
    if size[0] * size[1] * count > _MOST:
        raise PhotoTooLarge(
            f"{path} has {count} frames of {size[0]}x{size[1]} pixels, too many for an animated picture.",
            hint="Make it a clip, as ffmpeg does: ffmpeg -i IN.gif -pix_fmt yuv420p clip.mp4.",
        )


def _damaged(path: Path) -> UnreadablePhoto:
    return UnreadablePhoto(
        f"{path} is damaged: a part of it cannot be decoded.", hint="Copy it anew from where it came."
    )
