"""A broken reference: numbers turned by a secret permutation or rotation. Our design; it does not protect a store.

It is kept so that the benchmark can show how it falls: the map is one and the same for all rows, so that positions keep
their statistics. Stolen rows alone, beside faces of the thief's own, give most of the permutation away, two known
photos give nearly all of it, and the sorted magnitudes of a row do not depend on the key at all. Nothing is
authenticated either. What is stored is sealed, by `bauta.gallery`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST_ROTATION = 4096  # longest template that a key rotates; it takes the cube of the length


def turn(values: Tensor, key: bytes, *, rotated: bool, back: bool = False) -> Tensor:
    """Numbers (N, ...) turned by a key, or back.

    Args:
        values: Standardised numbers.
        key: Random bytes.
        rotated: Whether each row is a template, which an orthogonal matrix rotates; otherwise, and where it is longer
            than `LARGEST_ROTATION`, each number gets a random sign and all change places.
        back: Undo what was done.
    """
    flat = values.flatten(1)
    if rotated and flat.shape[1] <= LARGEST_ROTATION:
        matrix = _rotation(key, flat.shape[1]).to(flat.device)
        return (flat @ (matrix if back else matrix.T)).reshape(values.shape)
    order, signs = (one.to(flat.device) for one in _signed_permutation(key, flat.shape[1]))
    turned = flat[:, torch.argsort(order)] * signs if back else (flat * signs)[:, order]
    return turned.reshape(values.shape)


def _expand(key: bytes, what: str, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """`count` numbers of 64 bits that only the key tells."""
    content = hashlib.shake_256(f"bauta advface {what} ".encode() + key).digest(8 * count)
    return np.frombuffer(content, np.dtype("<u8"))


def _signed_permutation(key: bytes, count: int) -> tuple[Tensor, Tensor]:
    order = np.argsort(_expand(key, "order", count), kind="stable")
    signs = 1.0 - 2.0 * (_expand(key, "signs", count) & np.uint64(1))
    return torch.from_numpy(order.astype(np.int64)), torch.from_numpy(signs.astype(np.float32))


def _rotation(key: bytes, size: int) -> Tensor:
    """(size, size) orthogonal, evenly distributed (QR of Gaussian numbers, Mezzadri 2007)."""
    uniform = (_expand(key, "rotation", 2 * size * size).astype(np.float64) + 0.5) / 2.0**64
    first, second = uniform.reshape(2, size, size)
    normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    q, r = np.linalg.qr(normal)
    return torch.from_numpy((q * np.sign(np.diag(r))).astype(np.float32))
