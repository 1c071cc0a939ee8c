"""What travels in a protected photo so that its owner can take the mask off: sealed, a record for each face.

A record says where its face was, what the method has to know of it, and how large the photo was. It is encrypted and
authenticated under the owner's secret (AES-256-GCM), so that it opens for them alone and says nothing to others. All
records have one length, and their number is a multiple of `GROUP`, the rest being random bytes: what a file carries
tells that Bauta wrote it, and no more.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

VERSION = 1
GROUP = 8
"""Records come by so many."""
LONGEST = 128
"""Bytes that a method may keep of a face."""

_RECORD = struct.Struct(f">BIIB10f{LONGEST}s")  # version, width, height, length of the payload, landmarks, payload
_SEALED = 12 + _RECORD.size + 16
_MOST = 65_000 // (GROUP * _SEALED) * GROUP


@dataclass(frozen=True, eq=False)
class FaceRecord:
    """How one face of a photo was edited.

    Attributes:
        size: (width, height) of the upright photo.
        landmarks: (5, 2) float32, in its pixels.
        payload: What the method keeps of it, at most `LONGEST` bytes.
    """

    size: tuple[int, int]
    landmarks: NDArray[np.float32]
    payload: bytes


def seal_records(records: Sequence[FaceRecord], owners: Sequence[bytes]) -> bytes:
    """Records under the secrets of their owners, one for each; b"" for none.

    Args:
        records: Of a photo.
        owners: At least 32 bytes each.

    Raises:
        ValueError: when there are more than fit into a file.
    """
    if not records:
        return b""
    if len(records) > _MOST:
        raise ValueError(f"{len(records)} records do not fit into a photo")
    sealed = []
    for record, owner in zip(records, owners, strict=True):
        points = np.asarray(record.landmarks, np.float32).reshape(10).tolist()
        content = _RECORD.pack(VERSION, *record.size, len(record.payload), *points, record.payload)
        nonce = secrets.token_bytes(12)
        sealed.append(nonce + _cipher(owner).encrypt(nonce, content, None))
    sealed += [secrets.token_bytes(_SEALED) for _ in range(-len(sealed) % GROUP)]
    secrets.SystemRandom().shuffle(sealed)
    return b"".join(sealed)


def open_records(sealed: bytes, owner: bytes) -> list[FaceRecord]:
    """The records that open under a secret, of the faces from left to right; others stay closed.

    Args:
        sealed: Of `seal_records`; anything else has none.
        owner: At least 32 bytes.
    """
    found = []
    cipher = _cipher(owner)
    for start in range(0, len(sealed) - _SEALED + 1, _SEALED):
        piece = sealed[start : start + _SEALED]
        try:
            content = cipher.decrypt(piece[:12], piece[12:], None)
        except InvalidTag:
            continue
        version, width, height, length, *rest = _RECORD.unpack(content)
        if version == VERSION:
            points = np.array(rest[:10], np.float32).reshape(5, 2)
            found.append(FaceRecord((width, height), points, rest[10][:length]))
    return sorted(found, key=lambda record: float(record.landmarks[:, 0].mean()))


def _cipher(owner: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, b"bauta face records %d" % VERSION).derive(owner))
