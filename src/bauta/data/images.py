"""Images of faces as they lie on disk or inside a file: found, read, decoded, identified by their content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bauta.errors import UnreadablePhoto, UsageError

SUFFIXES = frozenset({".webp", ".jpg", ".jpeg", ".png"})

ByteArray = NDArray[np.uint8]


def decode(content: bytes, origin: str) -> ByteArray:
    """(H, W, 3) uint8 RGB of the bytes of a JPEG, PNG or WebP file; orientation marks are not followed.

    Args:
        content: The bytes.
        origin: Where they were found, for the message.

    Raises:
        UnreadablePhoto: when they are not such an image, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG", "WEBP"]) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadablePhoto(
            f"{origin} is not a readable JPEG, PNG or WebP image.", hint="Take it out, or fetch the set again."
        ) from error


@dataclass(frozen=True)
class FaceImage:
    """One image of a set, read when it is wanted.

    Attributes:
        name: Its name within the set, such as ``Ann_Lee/Ann_Lee_0001.jpg``; no two images of a set share one.
        source: The file, or the bytes of one.
    """

    name: str
    source: Path | bytes = field(repr=False)

    @property
    def origin(self) -> str:
        """Where it was found, for messages."""
        return self.name if isinstance(self.source, bytes) else str(self.source)

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            UnreadablePhoto: when the file is missing or closed.
        """
        if isinstance(self.source, bytes):
            return self.source
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise UnreadablePhoto(
                f"{self.source} cannot be read: {error.strerror or error}.", hint="Restore it, or fetch the set again."
            ) from error

    def pixels(self) -> ByteArray:
        """(H, W, 3) uint8 RGB.

        Raises:
            UnreadablePhoto: when the image is missing or damaged.
        """
        return decode(self.read(), self.origin)


def digest_of(images: Iterable[FaceImage]) -> hashlib._Hash:
    """A SHA-256 fed with the contents of the images in their order; where they lie and their names do not count.

    Raises:
        UnreadablePhoto: when an image is missing.
    """
    total = hashlib.sha256()
    for image in images:
        total.update(hashlib.sha256(image.read()).digest())
    return total


def is_image(path: Path) -> bool:
    """Whether a file is named like an image, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def images_of_people(folder: Path) -> Iterator[tuple[str, Path]]:
    """(person, file) of a folder ``person/image``, sorted by person and file; other files are passed over.

    Raises:
        UsageError: when there are no such images.
    """
    people = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = False
    for person in people:
        for path in sorted(filter(is_image, person.iterdir())):
            found = True
            yield person.name, path
    if not found:
        raise UsageError(
            f"{folder} holds no faces.", hint="A folder for each person, with WebP, JPEG or PNG images, is wanted."
        )
