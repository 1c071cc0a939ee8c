"""The block-DCT front end that frequency-domain face recognition shares: a face as 192 maps of 112x112.

Following the public code of the family (DCTDP, DuetFace, PartialFace, MinusFace; Tencent/TFace): enlarge eight times,
bilinearly, corners aligned; JPEG's full-range YCbCr; orthonormal 2-D DCT-II of 8x8 blocks; gather equal frequencies.
Channel 64 c + 8 u + v holds colour c (Y, Cb, Cr) at vertical frequency u and horizontal frequency v: row by row, not
zig-zag.

Ours: the inverse. The published one enlarges and reduces bilinearly, which does not lead back to the image (31 dB on
noise), and it adds offsets and clips, so that the image of a sum is not the sum of the images. Here the linear part is
a map of its own (`linear`, `linear_inverse`), reduced by the pseudo-inverse of the enlargement, and leads back exactly;
offsets are added by `encode` and `decode`, and clipping is left to whoever shows a picture.

Each block sees at most 3x3 pixels, so that its 64 coefficients of a colour have rank 9: most of them can be computed
from the others, and taking some away hides little. It is also why nothing needs to be enlarged: vertical frequency u of
the blocks of a row is one matrix of 112x112 times the image, and those frequencies that nobody asked for are not made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import UsageError

SIDE = 112
BLOCK = 8
COLOURS = 3
FREQUENCIES = BLOCK * BLOCK
CHANNELS = COLOURS * FREQUENCIES

# Rows Y, Cb, Cr; JFIF 1.02, full range.
YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def dct_matrix(size: int = BLOCK) -> Tensor:
    """(size, size) float64, orthonormal DCT-II: sqrt((1 if k == 0 else 2) / size) cos((2 n + 1) k pi / (2 size))."""
    n, k = torch.arange(size, dtype=torch.float64), torch.arange(size, dtype=torch.float64)[:, None]
    rows = torch.cos((2 * n + 1) * k * math.pi / (2 * size)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def enlargement(size: int = SIDE, factor: int = BLOCK) -> Tensor:
    """(factor size, size) float64: bilinear enlargement of a line with corners aligned."""
    identity = torch.eye(size, dtype=torch.float64)[None]
    return functional.interpolate(identity, factor * size, mode="linear", align_corners=True)[0].T.contiguous()


class BlockDct(nn.Module):
    """Images (N, 3, 112, 112) in [0, 1] to coefficients (N, 192, 112, 112) of pixels in 0..255, and back."""

    kernels: Tensor
    analysis: Tensor
    colour: Tensor
    colour_inverse: Tensor
    enlarge: Tensor
    reduce: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows, enlarge = dct_matrix(), enlargement()
        kernels = torch.einsum("ui,vj->uvij", rows, rows).reshape(BLOCK * BLOCK, 1, BLOCK, BLOCK)
        # Frequency u of block i of an enlarged line, straight from the line: (8, 112, 112), three numbers in a row.
        analysis = torch.einsum("ur,irp->uip", rows, enlarge.reshape(SIDE, BLOCK, SIDE))
        colour = torch.tensor(YCBCR, dtype=torch.float64) * 255
        # Luma runs from 0 to 255 and is centred; 128 on every sample is 128 * 8 in the lowest coefficient.
        offset = torch.zeros(CHANNELS, dtype=torch.float64)
        offset[0] = -128 * BLOCK
        for name, value in (
            ("kernels", kernels),
            ("analysis", analysis),
            ("colour", colour),
            ("colour_inverse", torch.linalg.inv(colour)),
            ("enlarge", enlarge),
            ("reduce", torch.linalg.pinv(enlarge)),
            ("offset", offset.reshape(1, -1, 1, 1)),
        ):
            self.register_buffer(name, value.float())

    def linear(self, images: Tensor, frequencies: Sequence[int] | None = None, *, step: int = 1) -> Tensor:
        """Coefficients (N, 192, 112, 112), linear in the images.

        Args:
            images: (N, 3, 112, 112).
            frequencies: Compute only these, 8 u + v each, of every colour: (N, 3 len(frequencies), 112, 112).
            step: Compute only every so many blocks down and across.

        Raises:
            UsageError: when the images have another shape, or there is no such frequency.
        """
        if images.dim() != 4 or tuple(images.shape[1:]) != (COLOURS, SIDE, SIDE):
            raise UsageError(f"Images have shape {list(images.shape)}.", hint="Give (N, 3, 112, 112).")
        chosen = list(range(FREQUENCIES)) if frequencies is None else list(frequencies)
        if not chosen or not all(0 <= one < FREQUENCIES for one in chosen):
            raise UsageError(f"There are no frequencies {chosen}.", hint="They run from 0 to 63.")
        colours = torch.einsum("cd,ndhw->nchw", self.colour, images).flatten(0, 1)
        used = self.analysis[:, ::step]
        lines = colours.flatten(0, 1) @ used.flatten(0, 1).T  # all blocks and horizontal frequencies of each line
        across = lines.reshape(len(colours), SIDE, BLOCK, used.shape[1])
        coefficients = lines.new_empty(len(colours), len(chosen), used.shape[1], used.shape[1])
        for column in sorted({one % BLOCK for one in chosen}):
            places = [place for place, one in enumerate(chosen) if one % BLOCK == column]
            down = used[[chosen[place] // BLOCK for place in places]].flatten(0, 1)
            made = down @ across[:, :, column]
            coefficients[:, places] = made.reshape(len(colours), len(places), *coefficients.shape[2:])
        return coefficients.reshape(len(images), -1, *coefficients.shape[2:])

    def linear_inverse(self, coefficients: Tensor) -> Tensor:
        """(N, 3, 112, 112), linear in the coefficients; of any other coefficients, those of the nearest image.

        Raises:
            UsageError: when the coefficients have another shape.
        """
        _require_coefficients(coefficients)
        blocks = coefficients.reshape(-1, BLOCK * BLOCK, SIDE, SIDE)
        large = functional.conv_transpose2d(blocks, self.kernels, stride=BLOCK)
        colours = (self.reduce @ large[:, 0] @ self.reduce.T).reshape(-1, COLOURS, SIDE, SIDE)
        return torch.einsum("cd,ndhw->nchw", self.colour_inverse, colours)

    def encode(self, images: Tensor) -> Tensor:
        """The coefficients as the family's networks read them: of samples less 128."""
        return self.linear(images) + self.offset

    def decode(self, coefficients: Tensor) -> Tensor:
        """The image of `encode`'s coefficients; not clipped to [0, 1]."""
        _require_coefficients(coefficients)
        return self.linear_inverse(coefficients - self.offset)

    def forward(self, images: Tensor) -> Tensor:
        """`encode`."""
        return self.encode(images)


def _require_coefficients(coefficients: Tensor) -> None:
    if coefficients.dim() != 4 or tuple(coefficients.shape[1:]) != (CHANNELS, SIDE, SIDE):
        raise UsageError(f"Coefficients have shape {list(coefficients.shape)}.", hint="Give (N, 192, 112, 112).")
