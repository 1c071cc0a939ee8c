"""Where a watermark lies: patterns in the aligned crop that only the key tells, and how strongly each is in a picture.

Our design, a spread spectrum (Cox et al., 1997) in the frame of the face. The lightness of the inner face is taken
apart into cosines. Those of 2.5 to 6 pixels in half a wave, which survive JPEG and half size and in which faces have
little of their own, are weighed by how little that is; a carrier is a sum of them all with signs that come from the
key. Carriers are orthogonal to each other. Whoever lacks the key has noise among noise. What is carried is turned over
by signs from the key and the face, namely a few bits of how it is lit, which survive what happens to shared photos: the
mark of one photo, or the mean of many, says nothing on another.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
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
_WHOLE, _FROM_AFAR, _SUMMARY_BITS = ((54.0, 58.0), 0.5), (0.0, 6.0), 16
"""Of summaries: the window, the cosines, and their length."""
_LIGHTNESS = (0.299, 0.587, 0.114)


class Carriers:
    """The carriers of a key.

    Args:
        key: At least 16 bytes.
        count: Of carriers.
    """

    def __init__(self, key: bytes, count: int) -> None:
        own = _OWN * _frame()[3] ** -_FALL
        signs = _signs(key, b"carriers", count * len(own)).reshape(count, -1)
        mixed = torch.from_numpy(np.linalg.qr(signs.T)[0].T).float()
        weights = mixed / own.square()
        # A clean face then gives each carrier a value of about one.
        self.weights = weights / (weights * own).square().sum(1, keepdim=True).sqrt()

    def soft(self, spectra: Tensor) -> Tensor:
        """(N, count) how much of each carrier is in pictures, of their `spectra`."""
        return spectra @ self.weights.T


def spectra(pictures: Tensor, to_crop: Tensor) -> Tensor:
    """(N, n) the cosines of which carriers are made; differentiable in the pictures.

    Args:
        pictures: (N, 3, H, W) in [0, 1], or (1, 3, H, W) shared.
        to_crop: (N, 2, 3), from their pixels to crop pixels.
    """
    cosines, window, chosen, _ = _frame()
    return _transformed(pictures, to_crop, cosines, window)[:, chosen]


def summaries(pictures: Tensor, to_crop: Tensor, key: bytes, doubted: int = 0) -> list[list[bytes]]:
    """What each face looks like from afar, as 16 bits under the key, and what it may have been before.

    Of 60 photos of LFW .4 bits changed on average at JPEG 50 and .8 at half size and JPEG 75, where the detector found
    the face again; two faces agree in half of them.

    Args:
        pictures: (N, 3, H, W) in [0, 1].
        to_crop: (N, 2, 3), from their pixels to crop pixels.
        key: By which the bits are drawn from the cosines.
        doubted: Of the least sure bits every combination is given, the likeliest first.
    """
    cosines, window, chosen, distance = _frame(*_WHOLE, _FROM_AFAR, odd=True)
    seen = (_transformed(pictures, to_crop, cosines, window)[:, chosen] * distance).detach().double().numpy()
    drawn = _signs(key, b"summary", _SUMMARY_BITS * seen.shape[1]).reshape(_SUMMARY_BITS, -1)
    found = []
    for values in seen @ drawn.T:
        bits, doubtful = values > 0, np.argsort(np.abs(values))[:doubted]
        flips = sorted(product((False, True), repeat=doubted), key=lambda some: float(np.abs(values[doubtful]) @ some))
        found.append([np.packbits(_flipped(bits, doubtful[list(some)])).tobytes() for some in flips])
    return found


def _flipped(bits: NDArray[np.bool_], places: NDArray[np.intp]) -> NDArray[np.bool_]:
    made = bits.copy()
    made[places] ^= True
    return made


def _transformed(pictures: Tensor, to_crop: Tensor, cosines: Tensor, window: Tensor) -> Tensor:
    red, green, blue = _LIGHTNESS
    light = red * pictures[:, :1] + green * pictures[:, 1:2] + blue * pictures[:, 2:]
    crops = warp(light, to_crop, (SIDE, SIDE))[:, 0]
    mean = (crops * window).sum((1, 2), keepdim=True) / window.sum()
    return cosines @ ((crops - mean) * window) @ cosines.T


@cache
def _frame(
    axes: tuple[float, float] = _AXES, edge: float = 0.25, ends: tuple[float, float] = (_LOW, _HIGH), odd: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cosine transform, a window over the face, which cosines are meant, and how far their indices are.

    Args:
        axes: Half axes of the window.
        edge: Share of them over which it fades.
        ends: Between which distances the indices are.
        odd: Only cosines that a face and its mirror image have with opposite signs, so that faces have none on average.
    """
    index, place = torch.arange(SIDE)[:, None], torch.arange(SIDE)[None]
    cosines = torch.cos(torch.pi * (place + 0.5) * index / SIDE) * (2 / SIDE) ** 0.5
    cosines[0] /= 2**0.5
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    away = (((x - _MIDDLE[0]) / axes[0]).square() + ((y - _MIDDLE[1]) / axes[1]).square()).sqrt()
    window = 0.5 + 0.5 * torch.cos(torch.pi * ((away - 1 + edge) / edge).clamp(0, 1))
    distance = (x.square() + y.square()).float().sqrt()
    chosen = (distance >= ends[0]) & (distance < ends[1]) & ((x % 2 == 1) | (not odd))
    return cosines, window, chosen, distance[chosen]


def turns(key: bytes, summary: bytes, count: int) -> NDArray[np.float32]:
    """(count,) of -1 and 1, by which what a face with this summary carries is turned over."""
    return _signs(key, b"turns " + summary, count).astype(np.float32)


def _signs(key: bytes, use: bytes, count: int) -> NDArray[np.float64]:
    """(count,) of -1 and 1, by the key, others for each use."""
    derived = HKDF(SHA256(), 48, None, b"bauta watermark 2 " + use).derive(key)
    stream = Cipher(ChaCha20(derived[:32], derived[32:]), mode=None).encryptor().update(bytes(-(-count // 8)))
    return np.unpackbits(np.frombuffer(stream, np.uint8))[:count].astype(np.float64) * 2 - 1
