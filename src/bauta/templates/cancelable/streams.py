"""Numbers that only a token tells: the maps of cancelable templates are made of them, and never stored."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Stream:
    """The keystream of ChaCha20 under a key that HKDF-SHA256 derives from a token for one scheme.

    Args:
        token: 32 secret bytes.
        purpose: What the numbers are for: the same token gives another scheme other numbers.
    """

    def __init__(self, token: bytes, purpose: bytes) -> None:
        key = HKDF(SHA256(), 32, None, b"bauta cancelable template 1 " + purpose).derive(token)
        self._cipher = Cipher(ChaCha20(key, bytes(16)), None).encryptor()

    def words(self, count: int) -> NDArray[np.uint32]:
        """(count,) of 32 random bits each."""
        return np.frombuffer(self._cipher.update(bytes(4 * count)), np.dtype("<u4"))

    def normal(self, rows: int, columns: int) -> Floats:
        """(rows, columns) of mean 0 and deviation 1, by the method of Box and Muller."""
        count = rows * columns + rows * columns % 2
        uniform = (self.words(count).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
        radius = np.sqrt(-2 * np.log(uniform[: count // 2].clip(2.0**-33, 1 - 2.0**-24)))
        angle = np.float32(2 * np.pi) * uniform[count // 2 :]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return both[: rows * columns].reshape(rows, columns)

    def orthonormal(self, rows: int, columns: int) -> Floats:
        """(rows, columns) with orthonormal columns, evenly distributed (QR of normal numbers, Mezzadri 2007)."""
        q, r = np.linalg.qr(self.normal(rows, columns))
        result: Floats = q * np.sign(np.diag(r))
        return result

    def order(self, count: int) -> NDArray[np.int64]:
        """An order of the numbers below `count`; each is as likely as another, but for equal draws (1 in 2^50)."""
        draws = self.words(2 * count).astype(np.uint64)
        return np.argsort(draws[:count] << np.uint64(32) | draws[count:], kind="stable")
