"""Faces, and what a protector makes of them: computed once, a chunk at a time, and kept in files.

Everything that decides a representation is in the name of the folder it is kept in: the code of the rooms below, the
protector with its learned parts, the key, the storage, the seed and the faces. Each chunk draws from a generator of its
own, so figures do not depend on where a run was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from bauta.benchmark.crop_sets import stack
from bauta.benchmark.engine import cards
from bauta.data.images import FaceImage, digest_of
from bauta.files import make_folder, write_atomically
from bauta.progress import Steps, silent
from bauta.templates.base import Protector
from bauta.templates.representation import Representation, Storage, key_fingerprint

CHUNK = 32
_ROOMS = ("templates", "learning", "objectives", "recognizers", "faces")


@runtime_checkable
class _Locks(Protocol):
    """A protector whose key turns what it would store without one."""

    def lock(self, features: Tensor, key: bytes) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Faces:
    """Aligned crops in memory.

    Attributes:
        name: What results call them.
        sha256: Over the contents of the images in their order.
        pixels: (N, 3, 112, 112) uint8.
        subjects: The person of each.
    """

    name: str
    sha256: str
    pixels: Tensor
    subjects: tuple[str, ...]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.pixels)

    @property
    def people(self) -> int:
        """How many people they show."""
        return len(set(self.subjects))

    def images(self, index: slice | Tensor | None = None) -> Tensor:
        """(n, 3, 112, 112) float32 in [0, 1], of all faces or of some."""
        return (self.pixels if index is None else self.pixels[index]).float() / 255

    def some(self, count: int | None, seed: int) -> Faces:
        """So many of them, drawn at random and in their order; all when None or when there are no more."""
        if count is None or count >= len(self):
            return self
        index = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count].sort().values
        digest = hashlib.sha256(f"{self.sha256} {count} {seed}".encode()).hexdigest()
        subjects = tuple(self.subjects[place] for place in index.tolist())
        return Faces(f"{self.name}, {count} of them", digest, self.pixels[index], subjects)

    def at(self, index: Tensor) -> Faces:
        """Those with these numbers, in that order."""
        digest = hashlib.sha256(f"{self.sha256} {index.tolist()}".encode()).hexdigest()
        subjects = tuple(self.subjects[place] for place in index.tolist())
        return Faces(f"{self.name}, {len(index)} of them", digest, self.pixels[index], subjects)

    @cached_property
    def mean_face(self) -> Tensor:
        """(3, 112, 112) in [0, 1]."""
        return torch.from_numpy(self.pixels.numpy().mean(0, dtype=np.float64)).float() / 255


def read_faces(name: str, images: Sequence[FaceImage], subjects: Sequence[str]) -> Faces:
    """Aligned crops from their files.

    Raises:
        UnreadablePhoto: when one is missing or damaged.
        UsageError: when one has another size.
    """
    pixels = torch.from_numpy(stack(images)).permute(0, 3, 1, 2).contiguous()
    return Faces(name, digest_of(images).hexdigest(), pixels, tuple(subjects))


@dataclass(frozen=True, eq=False)
class Protected:
    """What a protector made of faces, as it is stored.

    Attributes:
        values: (N, ...) float32 or float16, or None when they were not kept.
        templates: (N, D) float32 unit norm, what the matcher compares.
    """

    values: Tensor | None
    templates: Tensor


@dataclass(frozen=True, eq=False)
class StolenStore:
    """Stolen rows, and photos that may be known with them.

    Attributes:
        rows: (S, ...) all of the store, those of the victims among them.
        places: (V,) where the victims' rows are.
        own: (M, ...) what the attacker makes of faces of his own with the software: under a key of his own, and
            not sealed.
        known: (P, ...) rows of people who are not victims, in the store too.
        same: The photos of these rows.
        another: Another photo of each of these people.
        enrolled: The victims' photos.
        others: Another photo of each victim.
        probes: (V, D) templates of `others`.
        true: (V, D) templates of the victims' rows, by whoever has the key.
        limit: Cosine from which the system says yes.
        fmr: At which false match rate.
    """

    rows: Tensor
    places: Tensor
    own: Tensor
    known: Tensor
    same: Faces
    another: Faces
    enrolled: Faces
    others: Faces
    probes: Tensor
    true: Tensor
    limit: float
    fmr: float


def protect_faces(
    protector: Protector,
    faces: Faces,
    work: Path,
    *,
    seed: int,
    key: bytes | None = None,
    storage: Storage | None = None,
    keep: bool = True,
    progress: Steps = silent,
) -> Protected:
    """Protect faces, from files where it was done before.

    Args:
        protector: The method.
        faces: N of them.
        work: Folder of the files.
        seed: Of the protector's randomness; each chunk has its own.
        key: The deployment's key.
        storage: Convert the numbers to ``float16`` or ``float32``; as the protector stores them by default.
        keep: Whether to keep the values beside the templates.
        progress: Called with the faces done and the faces there are.

    Raises:
        OutputError: when a file cannot be written.
        RecognizerError: when a network answers with no numbers.
    """
    if key is not None and isinstance(protector, _Locks) and protector.settings().get("storage") != "uint8":
        # What is drawn does not depend on the key, and is dear: it is computed once, and locked under each.
        bare = protect_faces(protector, faces, work, seed=seed, storage=storage, progress=progress)
        return _locked(protector, bare, key, keep)
    facts = [protection_code(), protector.sha256, key_fingerprint(key), storage, seed, faces.sha256, keep]
    folder = work / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
    values: Tensor | None = None
    templates = []
    progress(0, len(faces))
    for start in range(0, len(faces), CHUNK):
        path = folder / f"{start // CHUNK:05d}.safetensors"
        part = read_tensors(path)
        if part is None:
            # Of these faces alone: an attacker's must not meet the randomness that a victim's meet.
            generator = torch.Generator().manual_seed(hash_seed(seed, faces.sha256, start // CHUNK))
            stored = protector.protect(faces.images(slice(start, start + CHUNK)), generator, key)
            stored = stored if storage is None else stored.stored_as(storage)
            with torch.no_grad():
                part = {"templates": protector.templates(stored, key).float().contiguous()}
            if keep:
                numbers = stored.values()
                part["values"] = (numbers if numbers.dim() == 2 else numbers.half()).contiguous()
            write_tensors(path, part)
        templates.append(part["templates"])
        if keep:
            if values is None:  # features are large: they are held once
                values = torch.empty(len(faces), *part["values"].shape[1:], dtype=part["values"].dtype)
            values[start : start + CHUNK] = part["values"]
        progress(min(start + CHUNK, len(faces)), len(faces))
    return Protected(values, torch.cat(templates))


def _locked(protector: Protector, bare: Protected, key: bytes, keep: bool) -> Protected:
    """What would be stored under a key."""
    assert bare.values is not None
    assert isinstance(protector, _Locks)
    values, templates = torch.empty_like(bare.values), []
    for start in range(0, len(values), CHUNK):
        part = bare.values[start : start + CHUNK].float().to(protector.device)
        values[start : start + CHUNK] = protector.lock(part, key).cpu()
        with torch.no_grad():
            stored = protector.represent(values[start : start + CHUNK].float(), key)
            templates.append(protector.templates(stored, key).float())
    return Protected(values if keep else None, torch.cat(templates))


def again(protector: Protector, values: Tensor, key: bytes | None) -> Representation:
    """Kept values as the protector's representation in float32."""
    return protector.represent(values.float(), key)


def milliseconds(work: Callable[[], object], *, repeats: int = 5) -> float:
    """The shortest of several runs, after one that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return 1000 * min(spent)


def hash_seed(*facts: object) -> int:
    """A seed from facts, the same on every machine."""
    return int.from_bytes(hashlib.sha256(json.dumps(facts).encode()).digest()[:7], "big")


def protection_code() -> str:
    """SHA-256 over the sources that decide a representation."""
    return cards.source_digest(_ROOMS)


def attack_code() -> str:
    """SHA-256 over the sources that decide what an attacker of representations learns."""
    return cards.source_digest((*_ROOMS, "attacks"))


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file, or None when it is missing or damaged."""
    with suppress(OSError, safetensors.SafetensorError):
        return load_tensors(path.read_bytes())
    return None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors into a file, whole or not at all; its folder is made.

    Raises:
        OutputError: when it cannot be written.
    """
    make_folder(path.parent)
    write_atomically(path, save_tensors(tensors), overwrite=True)
