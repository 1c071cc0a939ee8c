"""A photo: read from a file, shown as upright RGB, perturbed, and written back the way it came."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.calls import checked
from bauta.errors import OutputError, PhotoError, PhotoTooLarge, UnreadablePhoto, UsageError
from bauta.files import PathLike, write_atomically
from bauta.photo.cleaning import Removed
from bauta.photo.codec import Decoded, Source
from bauta.photo.files import SUFFIXES, kind_by_name
from bauta.photo.metadata import Metadata, MetadataPolicy
from bauta.photo.pictures import Picture, as_png
from bauta.photo.raster import Pixels, Raster
from bauta.photo.readback import embedded_pictures

MAX_PIXELS = 250_000_000  # phones give 200 million
_LARGEST_PIXEL = 16  # bytes a file may spend on each of the permitted pixels
_ROOM_FOR_METADATA = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Photo:
    """A still photo with everything needed to write it back in its own format.

    What the file holds decides, never its name: a JPEG called ``.png`` is read as JPEG and written as JPEG,
    under the ending `suffix` says. `read_photo` makes photos; `with_perturbation` makes new ones of them.

    Attributes:
        path: Where it was read from; None for bytes.
        format: ``JPEG``, ``PNG``, ``WEBP``, ``TIFF``, ``HEIF`` or ``AVIF``.
        sha256: Hash of the bytes it was read from, in hexadecimal.
        content: Those bytes.
    """

    path: Path | None
    format: str
    sha256: str
    content: bytes = field(repr=False)
    _raster: Raster = field(repr=False)
    _metadata: Metadata = field(repr=False)
    _encode: Callable[[Raster, Metadata], bytes] = field(repr=False)

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """Upright RGB, (H, W, 3) in [0, 1].

        Colour values are as stored: the profile is kept, not applied. Alpha is left out; CMYK is shown as
        ``(1 - CMY)(1 - K)``.
        """
        return self._raster.pixels()

    @property
    def parts(self) -> Pixels:
        """The same as `pixels`, of which only those parts take memory that are asked for."""
        return Pixels(self._raster)

    @property
    def height(self) -> int:
        """Height in pixels, upright."""
        return self.parts.shape[0]

    @property
    def width(self) -> int:
        """Width in pixels, upright."""
        return self.parts.shape[1]

    @property
    def grey(self) -> bool:
        """Whether every pixel is grey; a mask is then averaged over its channels."""
        return self._raster.is_grey

    @property
    def bits(self) -> int:
        """Bits per sample, 8 or 16 (HEIF's ten and twelve count as sixteen)."""
        return 8 * self._raster.samples.itemsize

    @property
    def called(self) -> str:
        """What messages call it: by its path, if it has one."""
        return str(self.path) if self.path else "the photo"

    @property
    def suffix(self) -> str:
        """The ending a file of this content should have: the original's own where that is right."""
        own = self.path.suffix if self.path else ""
        return own if own.lower() in SUFFIXES[self.format] else SUFFIXES[self.format][0]

    def cleared(self) -> Photo:
        """The photo without what its transparent pixels hide: an erased face is often still there, unseen."""
        raster = self._raster.cleared()
        return self if raster is self._raster else replace(self, _raster=raster)

    def with_perturbation(self, delta: NDArray[np.floating[Any]]) -> Photo:
        """The photo with ``delta`` added to its samples, rounded once to their depth and clipped.

        Where ``delta`` is 0 the samples stay bit-identical, and so does alpha. A grey photo gets the mean
        over the channels. CMYK keeps K and changes CMY so that ``(1 - CMY)(1 - K)`` changes by ``delta``.

        Args:
            delta: (H, W, 3) in [-1, 1], upright.

        Raises:
            UsageError: Wrong shape, or values that are not finite or outside [-1, 1].
        """
        shape = (self.height, self.width, 3)
        if delta.shape != shape:
            raise UsageError(
                f"The perturbation has the shape {delta.shape}, the photo {shape}.",
                hint="Give it in upright photo pixels.",
            )
        if not (delta.max() <= 1 and delta.min() >= -1):  # false for NaN too
            raise UsageError(
                "The perturbation holds values that are not finite or outside [-1, 1].",
                hint="Give it in units of the full range, so that 1 is white minus black.",
            )
        return replace(self, _raster=self._raster.perturbed(delta))

    def encode(self, *, metadata: MetadataPolicy = MetadataPolicy.PRIVATE) -> bytes:
        """The photo as a file of its own format, coded like the source and of about its size.

        The last line of defence: the finished file is searched for any further picture, and one that holds any is
        not handed out, whatever the policy.

        Raises:
            OutputError: The encoder failed, or another picture is still in the file.
        """
        try:
            content = self._encode(self._raster, self._metadata.under(metadata))
            further = embedded_pictures(content)
        except Exception as error:  # encoders raise whatever their C libraries make of a failure
            raise OutputError(
                f"{_name(self.path)} could not be encoded as {self.format}.",
                hint="Please report this photo's format and size as a bug.",
            ) from error

        if further:
            found = further[0]
            raise OutputError(
                f"{_name(self.path)} was not written: another picture ({found.kind}) is still in its "
                f"{' > '.join(found.path)}, and might show the unprotected face.",
                hint="Remove all metadata (--strip-metadata), and please report this as a bug.",
            )
        return content

    def removed(self, metadata: MetadataPolicy = MetadataPolicy.PRIVATE) -> dict[str, int]:
        """What `encode` leaves out of the file's metadata: how many fields by kind, in plain words.

        >>> read_photo("photo.jpg").removed()  # doctest: +SKIP
        {'embedded pictures': 1, 'positions and places': 4}
        """
        found = self._metadata.cleaned(metadata)[1]
        return {kind.value: found[kind] for kind in Removed if found[kind]}

    @checked
    def save(
        self,
        destination: PathLike,
        *,
        metadata: MetadataPolicy = MetadataPolicy.PRIVATE,
        overwrite: bool = False,
    ) -> None:
        """Writes the photo atomically, readable for no one to whom the original is closed; that is never replaced.

        Args:
            destination: A file name with an ending of this format, in a folder that exists.
            metadata: What is kept.
            overwrite: Whether another file of that name may be replaced.

        Raises:
            UsageError: The ending belongs to another format.
            OutputExists: The name is taken, or is the original under any name.
            OutputError: It could not be written; nothing has changed on disk.
        """
        self.store(self.encode(metadata=metadata), Path(destination), overwrite=overwrite)

    def store(self, content: bytes, destination: Path, *, overwrite: bool = False) -> None:
        """Write what `encode` made, as `save` does and with its errors."""
        if destination.suffix.lower() not in SUFFIXES[self.format]:
            raise UsageError(
                f"{destination} would hold a {self.format} photo under another format's ending.",
                hint=f"Use the ending {self.suffix}.",
            )
        originals = [self.path] if self.path else []
        like = self.path if self.path and self.path.exists() else None
        write_atomically(destination, content, overwrite=overwrite, originals=originals, like=like)


PhotoSource = PathLike | bytes | Picture | Photo
"""What a photo can be given as: a path, the bytes of a file, a Pillow image, a uint8 array, or a photo."""


@checked
def read_photo(source: PhotoSource, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Reads a photo, by what the file holds.

    Args:
        source: A path; the bytes of a file; a Pillow image or a uint8 array (H, W), (H, W, 3) or (H, W, 4), which are
            written back as PNG; or a photo, which is given back.
        max_pixels: Photos with more pixels are refused before they are decoded.

    Raises:
        UnreadablePhoto: Missing, no permission, empty, damaged, or no image.
        UnsupportedPhoto: Animated, several pages, raw, or a colour mode that is not for photos.
        PhotoTooLarge: Over the limit.
    """
    if isinstance(source, Photo):
        return source
    path = None
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        data = _read(path, max_pixels)
    else:
        data = source if isinstance(source, bytes) else as_png(source)
    name = _name(path)
    opened = Source(name, data, max_pixels)
    format_name = _format_of(opened, path)
    try:
        decoded: Decoded = import_module(f"bauta.photo.formats.{format_name.lower()}").decode(opened)
    except PhotoError:
        raise
    except MemoryError as error:
        raise PhotoTooLarge(
            f"{name} does not fit into memory.", hint="Make it smaller, or close other programs."
        ) from error
    except Exception as error:  # decoders answer hostile bytes with exceptions of every type
        raise opened.unreadable(_reason(error, format_name)) from error
    digest = hashlib.sha256(data).hexdigest()
    return Photo(path, format_name, digest, data, decoded.raster, decoded.metadata, decoded.encode)


def _reason(error: Exception, format_name: str) -> str:
    """What a decoder's exception means to a person; its own words name Python's objects or nothing at all."""
    words = str(error).lower()
    if any(word in words for word in ("truncated", "cut off", "end of file", "eof", "not enough", "incomplete")):
        return "it is cut off"
    return f"its {format_name} data is damaged, or of a kind that cannot be decoded"


def _name(path: Path | None) -> str:
    return str(path) if path else "The photo"


def _read(path: Path, max_pixels: int) -> bytes:
    try:
        if path.is_dir():
            raise UnreadablePhoto(f"{path} is a folder.", hint="Name a file, or search it with find_photos.")
        if path.exists() and not path.is_file():
            raise UnreadablePhoto(f"{path} is not an ordinary file.", hint="Name a photo.")
        if path.stat().st_size > _LARGEST_PIXEL * max_pixels + _ROOM_FOR_METADATA:
            raise PhotoTooLarge(
                f"{path} is larger than any photo of {max_pixels:,} pixels.",
                hint="Make it smaller, or read it in Python with read_photo(..., max_pixels=...).",
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadablePhoto(
            f"{path} cannot be opened: {reason}.", hint="Check the name and the permissions."
        ) from error


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_OTHER_KINDS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a Windows bitmap"),
    (b"II+\0", "a BigTIFF"),
    (b"MM\0+", "a BigTIFF"),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"<svg", "an SVG drawing"),
    (b"IIU\0", "a raw camera file"),
    (b"IIRO", "a raw camera file"),
    (b"\x1a\x45\xdf\xa3", "a film"),
    (b"\0\0\1\xba", "a film"),
    (b"FUJIFILMCCD-RAW", "a raw camera file"),
)


def _format_of(source: Source, path: Path | None) -> str:
    head = source.data[:64]
    if not head:
        raise source.unreadable("it is empty")
    for magic, format_name in _MAGIC:
        if head.startswith(magic):
            return format_name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    hint, frame = "Convert it to JPEG, PNG, WebP, TIFF, HEIC or AVIF.", "Save the frame you want as a photo."
    if head[4:8] == b"ftyp":
        if b"avif" in head or b"avis" in head:
            return "AVIF"
        if head[8:12] in _HEIF_BRANDS:
            return "HEIF"
        raise source.unsupported("a film", hint=frame)
    for magic, kind in _OTHER_KINDS:
        if head.startswith(magic):
            raise source.unsupported(kind, hint=frame if kind == "a film" else hint)
    if path is not None and (named := kind_by_name(path)):
        raise source.unsupported(named, hint=frame if named == "a film" else hint)
    raise source.unreadable("it is not an image")
