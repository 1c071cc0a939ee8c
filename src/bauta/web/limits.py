"""How much a page may ask of the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits on what is uploaded, checked before anything is decoded.

    Attributes:
        photos: Photos in one album.
        photo_bytes: Bytes of one photo.
        album_bytes: Bytes of all photos together.
        pixels: Of one photo; a phone's 108 megapixels pass.
        file_bytes: Bytes of a fitted file, a key or a restore file.
        seconds: That one photo may be looked at; afterwards its process is ended.
    """

    photos: int = 1000
    photo_bytes: int = 150 * 2**20
    album_bytes: int = 10 * 2**30
    pixels: int = 120_000_000
    file_bytes: int = 64 * 2**20
    seconds: float = 180.0
