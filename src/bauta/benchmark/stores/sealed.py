"""Sealed records as a thief reads them, for rows that show what is left of an attack when records are encrypted."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

_WORDS = {2: "<u2", 4: "<u4"}


def sealed_numbers(values: Tensor, key: bytes) -> Tensor:
    """Ciphertext of each row under AES-GCM, read as numbers in place of the stored ones.

    Nonce and tag are random, or look so, and are left out, so that attackers find numbers where they expect them. A
    nonce is a record's own, a digest of its number: this is for benchmarks, which are repeated.

    Args:
        values: (N, ...) float16 or float32, as stored.
        key: 32 bytes.

    Returns:
        (N, ...) of that type: words of ciphertext, evenly distributed with mean 0 and deviation 1 if it is any good.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(key)
    word = _WORDS[values.element_size()]
    top = float(256 ** values.element_size() - 1)
    sealed = torch.empty_like(values)
    for place, row in enumerate(values):
        nonce = hashlib.sha256(f"record {place}".encode()).digest()[:12]
        content = cipher.encrypt(nonce, row.contiguous().numpy().tobytes(), None)
        words = np.frombuffer(content[: row.numel() * row.element_size()], word).astype(np.float64)
        spread = torch.from_numpy((words / top - 0.5) * math.sqrt(12))
        sealed[place] = spread.to(values.dtype).reshape(row.shape)
    return sealed
