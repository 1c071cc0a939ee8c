"""Faces of nobody to be mixed with those of clients. Our design.

Mixing a client's face with other clients' would keep each of them in the records of others, also after they leave, and
a fixed pool of faces, known to whoever has the protector, can be subtracted. These are drawn anew for each use from a
Gaussian model of faces, and are kept nowhere::

    y = mean face + eigenfaces in random amounts + texture
    texture = IDCT(deviation * normal)         of 8x8 blocks, in luma and chroma

The texture has at each place and frequency the power of what the eigenfaces leave over of faces; without it, whatever
is fine in a mixture would be the client's alone. The model keeps no picture of anybody, but it was learned from faces.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bauta.templates.draws import Draws
from bauta.templates.fit import as_images
from bauta.templates.local.stand_ins import StandIns
from bauta.templates.masked.dct import BLOCK, SIDE, YCBCR, dct_matrix

CHUNK = 64  # faces at a time


class Strangers(nn.Module):
    """The model.

    Args:
        components: How many eigenfaces, at most as many as there are faces to learn from.
    """

    texture: Tensor

    def __init__(self, components: int) -> None:
        super().__init__()
        self.smooth = StandIns(components)
        self.register_buffer("texture", torch.zeros(3, SIDE, SIDE, dtype=torch.float16))

    def learn(self, pixels: Tensor) -> None:
        """Learn mean, eigenfaces and texture.

        Args:
            pixels: (N, 3, 112, 112) uint8, or float32 in [0, 1].
        """
        found = StandIns(min(len(pixels), len(self.smooth.components)))
        found.learn(pixels)
        self.smooth.mean.copy_(found.mean)
        self.smooth.components.zero_()[: len(found.components)] = found.components
        total = torch.zeros(3, SIDE, SIDE)
        for part in pixels.split(CHUNK):  # type: ignore[no-untyped-call]
            images = as_images(part)
            total += _frequencies(images - self.smooth.project(images)).square().sum(0)
        self.texture.copy_((total / len(pixels)).sqrt())

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, 112, 112) in [0, 1].

        Args:
            count: How many.
            generator: Of all that is random.
        """
        draws = Draws(generator)
        smooth = self.smooth.draw(count, draws, amount=1.0)
        return (smooth + _pixels(self.texture.float() * draws.normal(count, 3, SIDE, SIDE))).clamp(0, 1)


def _frequencies(images: Tensor) -> Tensor:
    """Orthonormal DCT of 8x8 blocks of (N, 3, 112, 112) in luma and chroma, where the pixels were."""
    rows, colours = dct_matrix().float(), torch.tensor(YCBCR)
    return torch.einsum("ui,vj,cd,ndyixj->ncyuxv", rows, rows, colours, _blocks(images)).reshape(images.shape)


def _pixels(frequencies: Tensor) -> Tensor:
    """What `_frequencies` was made of."""
    rows, colours = dct_matrix().float(), torch.linalg.inv(torch.tensor(YCBCR))
    return torch.einsum("ui,vj,dc,ncyuxv->ndyixj", rows, rows, colours, _blocks(frequencies)).reshape(frequencies.shape)


def _blocks(images: Tensor) -> Tensor:
    return images.reshape(len(images), 3, SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK)
