"""Galleries from before they were sealed: a safetensors file, and a JSON file of names beside it. They are read once.

Nothing in them was authenticated: whoever could write them could exchange faces and names, and no check can tell now.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from bauta.errors import GalleryDamaged, GalleryError, UsageError, WeightsCorrupt
from bauta.gallery.enrol import Gallery
from bauta.gallery.files import LARGEST_FILE, MAGIC
from bauta.templates.advface.protector import AdvFace
from bauta.templates.base import Protector
from bauta.templates.representation import Representation, check_value, key_fingerprint

LARGEST_NAMES = 256 << 20  # bytes
LONGEST_OLD_KEY = 1 << 20  # bytes; any file was taken for a key then


def names_beside(path: Path) -> Path:
    """The file of the names of such a gallery."""
    return path.with_suffix(".json")


def read_unsealed(path: Path, *, protector: Protector | None = None, old_key: Path | None = None) -> Gallery:
    """An unsealed gallery, to seal it. Its faces are unlocked where AdvFace's old key had locked them.

    Args:
        path: The safetensors file.
        protector: That made it; needed to unlock it.
        old_key: File of the old key, where one was used.

    Raises:
        GalleryError: when a file cannot be read.
        GalleryDamaged: saying what in it is not as it must be.
        UsageError: when it was locked and key or protector are missing or others, or a key was given and it was not.
    """
    content = _read(path, LARGEST_FILE)
    if content.startswith(MAGIC):
        raise UsageError(f"{path} is sealed already.", hint="`bauta templates rotate` seals it under another key.")
    try:
        representation, fingerprint = Representation.from_unsealed(content)
    except WeightsCorrupt as error:
        raise GalleryDamaged(f"{path}: {error.message}", hint="Enrol the faces again, from photos.") from error
    names = _read_names(path, len(representation))
    if fingerprint:
        representation = _unlocked(path, representation, fingerprint, protector, old_key)
    elif old_key is not None:
        raise UsageError(f"{path} was not locked by a key.", hint="Leave --old-key out.")
    return Gallery(representation, names)


def _unlocked(
    path: Path, representation: Representation, fingerprint: str, protector: Protector | None, old_key: Path | None
) -> Representation:
    if old_key is None or protector is None:
        raise UsageError(
            f"{path} was locked by a key of the old kind, which is undone before it is sealed.",
            hint="Give that key with --old-key, and the protector that made the gallery with --protector.",
        )
    if not isinstance(protector, AdvFace):
        raise UsageError(f"{protector.name} never locked a gallery.", hint="Give the protector that made it.")
    key = _read(old_key, LONGEST_OLD_KEY)
    if key_fingerprint(key) != fingerprint:
        raise UsageError(f"{old_key} is not the key that locked {path}.", hint="Give the one it was protected with.")
    return protector.unlocked(replace(representation, key=check_value(key)), key)


def _read_names(path: Path, count: int) -> tuple[str, ...]:
    beside = names_beside(path)
    if not beside.exists():
        return tuple(f"face {row}" for row in range(count))
    try:
        about = json.loads(_read(beside, LARGEST_NAMES))
    except (ValueError, RecursionError) as error:
        raise GalleryDamaged(f"{beside} is not JSON.", hint="Restore it; the faces are known by it.") from error
    names = about.get("names") if isinstance(about, dict) and set(about) == {"names"} else None
    if not isinstance(names, list) or any(type(name) is not str for name in names):
        raise GalleryDamaged(f"{beside} is not a list of names.", hint="Restore it; the faces are known by it.")
    if len(names) != count:
        raise GalleryDamaged(
            f"{beside} has {len(names)} names for the {count} faces of {path}: they are not of one gallery.",
            hint="Restore both files from one backup.",
        )
    return tuple(names)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise GalleryError(f"{path} cannot be read: {error.strerror or error}.", hint="Check the name.") from error
    if len(content) > most:
        raise GalleryError(f"{path} is larger than {most} bytes.", hint="Is it the right file?")
    return content
