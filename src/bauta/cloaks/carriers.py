"""Where a watermark lies: patterns in the aligned crop that only the key tells, and how strongly each is in a picture.

Our design, a spread spectrum (Cox et al., 1997) in the frame of the face. The lightness of the inner face is taken
apart into cosines. Those of 2.5 to 6 pixels in half a wave, which survive JPEG and half size and in which faces have
little of their own, are weighed by how little that is; a carrier is a sum of them all with signs that come from the
key. Carriers are orthogonal to each other. Whoever lacks the key has noise among noise.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from bauta.faces.warp import warp

SIDE = 112
_LOW, _HIGH = 18.0, 44.0
"""Cosines, by the distance of their two indices from zero."""
_FALL = 1.43
"""Measured on 300 faces of Glint: the strength of a face's own cosines falls with this power of the index."""
_OWN = 15.0
"""Of that strength at an index of one, in [0, 1] units."""
_MIDDLE, _AXES = (55.5, 62.0), (48.0, 52.0)
"""Centre and half axes of the inner face, in crop pixels."""
_LIGHTNESS = (0.299, 0.587, 0.114)


class Carriers:
    """The carriers of a key.

    Args:
        key: At least 16 bytes.
        count: Of carriers.
    """

    def __init__(self, key: bytes, count: int) -> None:
        cosines, window, chosen, distance = _frame()
        own = _OWN * distance**-_FALL
        signs = _signs(key, count * len(own)).reshape(count, -1)
        mixed = torch.from_numpy(np.linalg.qr(signs.T)[0].T).float()
        weights = mixed / own.square()
        # A clean face then gives each carrier a value of about one.
        self.weights = weights / (weights * own).square().sum(1, keepdim=True).sqrt()
        self.cosines, self.window, self.chosen = cosines, window, chosen

    def soft(self, pictures: Tensor, to_crop: Tensor) -> Tensor:
        """(N, count) how much of each carrier is in pictures; differentiable in them.

        Args:
            pictures: (N, 3, H, W) in [0, 1], or (1, 3, H, W) shared.
            to_crop: (N, 2, 3), from their pixels to crop pixels.
        """
        red, green, blue = _LIGHTNESS
        light = red * pictures[:, :1] + green * pictures[:, 1:2] + blue * pictures[:, 2:]
        crops = warp(light, to_crop, (SIDE, SIDE))[:, 0]
        mean = (crops * self.window).sum((1, 2), keepdim=True) / self.window.sum()
        spectrum = self.cosines @ ((crops - mean) * self.window) @ self.cosines.T
        return spectrum[:, self.chosen] @ self.weights.T


@cache
def _frame() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cosine transform, the window over the inner face, which cosines carry, and how far their indices are."""
    index, place = torch.arange(SIDE)[:, None], torch.arange(SIDE)[None]
    cosines = torch.cos(torch.pi * (place + 0.5) * index / SIDE) * (2 / SIDE) ** 0.5
    cosines[0] /= 2**0.5
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    away = (((x - _MIDDLE[0]) / _AXES[0]).square() + ((y - _MIDDLE[1]) / _AXES[1]).square()).sqrt()
    window = 0.5 + 0.5 * torch.cos(torch.pi * ((away - 0.75) / 0.25).clamp(0, 1))
    distance = (x.square() + y.square()).float().sqrt()
    chosen = (distance >= _LOW) & (distance < _HIGH)
    return cosines, window, chosen, distance[chosen]


def _signs(key: bytes, count: int) -> np.ndarray:
    """(count,) of -1 and 1, by the key."""
    derived = HKDF(SHA256(), 48, None, b"bauta watermark 1 carriers").derive(key)
    stream = Cipher(ChaCha20(derived[:32], derived[32:]), mode=None).encryptor().update(bytes(-(-count // 8)))
    return np.unpackbits(np.frombuffer(stream, np.uint8))[:count].astype(np.float64) * 2 - 1
