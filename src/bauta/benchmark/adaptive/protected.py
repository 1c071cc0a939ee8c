"""Aligned crops protected by a method, a batch at a time, each kept as the PNG that a lossless transport leaves.

Masks are dear and attackers are many, so a mask is made once: the name of its file follows from the method and its
settings, the surrogates, the seed, the photos of its batch, and the code that makes masks. Code of attackers
and reports does not count.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bauta.benchmark.engine import cards
from bauta.cloaking.apply import Picture, edit_pictures
from bauta.cloaks.base import Work, load_cloak
from bauta.data.images import ByteArray, decode
from bauta.errors import BautaError, UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.files import make_folder, write_atomically
from bauta.progress import Steps, silent
from bauta.recognizers import Surrogate, find_card, load_surrogate
from bauta.recognizers.calibration import calibrated
from bauta.recognizers.ensemble import Ensemble

SIDE = 112
MASKS = ("cloaks", "cloaking/apply.py", "objectives", "recognizers", "faces", "benchmark/adaptive/protected.py")
"""Sources that decide a mask."""


@dataclass(frozen=True)
class Protection:
    """A method as it is used on crops.

    Attributes:
        method: Registered cloak.
        options: Its settings by name; ``preset`` chooses among its named ones.
        surrogates: Names of the recognisers it attacks.
        seed: Of everything random.
        fmr: Of the thresholds that it may stop early by.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    surrogates: tuple[str, ...] = ()
    seed: int = 0
    fmr: float = 1e-2

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The method's settings as plain values.

        Raises:
            UsageError: when there is no such method or setting.
        """
        values: dict[str, Any] = load_cloak(self.method).configured(self.options).to_dict()
        return values

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """See `calibrated`."""
        return calibrated(map(find_card, self.surrogates), self.fmr)

    @cached_property
    def key(self) -> str:
        """Digest of all that decides a mask but the photos.

        Raises:
            RecognizerError: when a surrogate is not known.
        """
        facts = [self.method, self.settings, [find_card(name).digest for name in self.surrogates], self.seed, self.fmr]
        if self.settings.get("margin") is not None:  # then masks stop early by the thresholds
            facts.append(self.thresholds)
        return cards.digest([cards.source_digest(MASKS), *facts])


def protect(
    crops: ByteArray,
    protection: Protection,
    work: Path,
    *,
    batch: int = 15,
    progress: Steps = silent,
) -> ByteArray:
    """The crops protected, from their files where they were protected before.

    Args:
        crops: (N, 112, 112, 3) uint8 RGB, aligned to the ArcFace template.
        protection: The method.
        work: Folder of the files.
        batch: Crops whose masks are made together.
        progress: Called with the crops done and the crops there are.

    Returns:
        (N, 112, 112, 3) uint8, as 8-bit files without loss keep them.

    Raises:
        UsageError: when crops have another form, or the method cannot run so.
        RecognizerError: when a surrogate cannot be used.
        OutputError: when a file cannot be written.
    """
    if crops.ndim != 4 or crops.shape[1:] != (SIDE, SIDE, 3) or crops.dtype != np.uint8 or not len(crops):
        raise UsageError(
            f"Crops of shape {crops.shape} and type {crops.dtype} cannot be protected.",
            hint=f"Give (N, {SIDE}, {SIDE}, 3) uint8, aligned to the ArcFace template.",
        )
    protected, networks = np.empty_like(crops), _Networks(protection)
    progress(0, len(crops))
    for start in range(0, len(crops), batch):
        part = crops[start : start + batch]
        digest = hashlib.sha256(part.tobytes()).hexdigest()
        paths = [work / protection.key[:16] / f"{digest[:24]}-{place:03d}.png" for place in range(len(part))]
        kept = _read(paths)
        if kept is None:
            kept = _masked(part, protection, networks, digest)
            _write(kept, paths)
        protected[start : start + len(part)] = kept
        progress(start + len(part), len(crops))
    return protected


class _Networks:
    """The surrogates, loaded when the first mask is made."""

    def __init__(self, protection: Protection) -> None:
        self.protection = protection

    @cached_property
    def surrogates(self) -> list[Surrogate]:
        return [load_surrogate(name) for name in self.protection.surrogates]


def _masked(crops: ByteArray, protection: Protection, networks: _Networks, digest: str) -> ByteArray:
    method = load_cloak(protection.method)
    points = ARCFACE_112.landmarks().astype(np.float32)[None]
    pictures = [Picture(crop.astype(np.float32) / np.float32(255), points) for crop in crops]
    seed = hashlib.sha256(f"{protection.seed} {digest}".encode()).digest()[:7]
    work = Work.seeded(
        int.from_bytes(seed, "big"),
        Ensemble(networks.surrogates) if "surrogates" in method.needs else None,
        thresholds=protection.thresholds,
    )
    changes = edit_pictures(method(method.configured(protection.options)), pictures, work)
    deltas = np.stack([change.delta for change in changes])
    return (crops + 255 * deltas).round().clip(0, 255).astype(np.uint8)


def _read(paths: Sequence[Path]) -> ByteArray | None:
    """None when one is missing or damaged."""
    with suppress(OSError, BautaError):
        return np.stack([decode(path.read_bytes(), str(path)) for path in paths])
    return None


def _write(crops: ByteArray, paths: Sequence[Path]) -> None:
    make_folder(paths[0].parent)
    for crop, path in zip(crops, paths, strict=True):
        stream = io.BytesIO()
        Image.fromarray(crop).save(stream, "PNG")
        write_atomically(path, stream.getvalue(), overwrite=True)
