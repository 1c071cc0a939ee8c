"""What an attacker learns from: images of people of his own, and what a protector makes of them.

He has the protector as an oracle. A method with randomness is asked anew in every epoch, which teaches him more than
one draw (expectation over randomness); a dear one is asked once, and its answers are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from bauta.errors import UsageError
from bauta.templates.base import SIDE, Protector

Keys = Callable[[torch.Generator], bytes | None]
"""Draws the key of a batch; a protector without keys gets none."""


class OraclePairs:
    """Pairs that are made when they are asked for.

    Args:
        protector: The oracle.
        pixels: (N, 3, 112, 112) uint8, the attacker's images.
        keys: Draws a key for each batch; none by default.
        about: What is particular about these keys, for checkpoints: whoever learned under others learned otherwise.

    Raises:
        UsageError: when there are no images, or they have another form.
    """

    def __init__(self, protector: Protector, pixels: Tensor, *, keys: Keys | None = None, about: str = "") -> None:
        require_pixels(pixels)
        self.protector, self.pixels, self.keys = protector, pixels, keys
        first = self.representations(torch.tensor([0]), torch.Generator().manual_seed(0))
        self.shape: tuple[int, ...] = tuple(first.shape[1:])
        self.key = f"{protector.sha256} {digest(pixels)} anew {about}".strip()

    def __len__(self) -> int:
        """How many there are."""
        return len(self.pixels)

    def representations(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """(n, ...) float32, protected anew."""
        key = None if self.keys is None else self.keys(generator)
        return self.protector.protect(self.images(index), generator, key).values()

    def images(self, index: Tensor) -> Tensor:
        """(n, 3, 112, 112) float32 in [0, 1]."""
        return self.pixels[index].float() / 255


class StoredPairs:
    """Pairs that were made before.

    Args:
        values: (N, ...) of any float type.
        pixels: (N, 3, 112, 112) uint8.
        key: What made the values.

    Raises:
        UsageError: when the numbers differ, or the images have another form.
    """

    def __init__(self, values: Tensor, pixels: Tensor, *, key: str) -> None:
        require_pixels(pixels)
        if len(values) != len(pixels):
            raise UsageError(
                f"{len(values)} representations and {len(pixels)} images make no pairs.", hint="Give one for each."
            )
        self.values, self.pixels = values, pixels
        self.shape: tuple[int, ...] = tuple(values.shape[1:])
        self.key = f"{key} {digest(pixels)}"

    def __len__(self) -> int:
        """How many there are."""
        return len(self.pixels)

    def representations(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """(n, ...) float32, always the same."""
        return self.values[index].float()

    def images(self, index: Tensor) -> Tensor:
        """(n, 3, 112, 112) float32 in [0, 1]."""
        return self.pixels[index].float() / 255


def require_pixels(pixels: Tensor) -> None:
    """Let images of the right form through.

    Raises:
        UsageError: when they are not (N, 3, 112, 112) uint8, or there are none.
    """
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or tuple(pixels.shape[1:]) != (3, SIDE, SIDE):
        raise UsageError(
            f"The attacker's images are {pixels.dtype} {list(pixels.shape)}.", hint="Give (N, 3, 112, 112) of uint8."
        )
    if not len(pixels):
        raise UsageError("The attacker has no images.", hint="Give images of people who are not attacked.")


def digest(pixels: Tensor) -> str:
    """16 hexadecimal digits of images."""
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()[:16]
