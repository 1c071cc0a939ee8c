"""Networks that read masked faces: a stem that undoes the mask as far as it can, and a copy of the recogniser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import NumericalFailure, UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.recognizers.onnx.module import trainable_copy
from bauta.recognizers.surrogates import Surrogate
from bauta.templates.masked.dct import SIDE, dct_matrix

WIDTH = 64  # directions of the channels that are looked at when the stem is solved
PLACES = 1500  # of each face that are looked at
RIDGE = 1e-7  # of the mean diagonal: directions that tell the same shall not quarrel
FAINT = 1e-2  # mean square of a channel's level, in its deviations, from which on it tells the brightness
HALF = torch.finfo(torch.float16).max
MOST_GAIN = 4.0  # of a wave
VARIANCE = 1e-9  # of all of it, below which a direction tells nothing


class Stem(nn.Module):
    """From masked faces (N, C, 112, 112) to the images (N, 3, 112, 112) that they are masks of, brightness aside.

    Masks of the block-DCT family keep differences of neighbouring pixels and take brightness away: its lowest
    frequencies are in none of their blocks, and only all blocks together tell them. So a local map finds the image's
    second differences, and these are integrated::

        v = (values - mean) / scale
        L = sum_t p_t(place) * conv_t(v)                            p: 1, y, x, xy, y^2, x^2
        x = inverse Laplacian of L + level + mean over places of bright(v)

    The inverse is that of a border that repeats, each wave of it weighted by how much of it is found again (Wiener's
    filter); it loses the mean, which `bright`, one number of each colour a place, brings back where the mask has left
    it. The polynomials of the place are there because blocks do not lie alike on the pixels everywhere. `solve` finds
    all by least squares, and nothing of the stem is learned otherwise. Our design; the published methods widen the
    first convolution and train it from nothing.

    Args:
        channels: C.
        absolute: Whether signs tell nothing, so that absolute values are read.
        images: Whether values are those of images, which go on beyond the border; differences are none there.
    """

    mean: Tensor
    scale: Tensor
    level: Tensor
    local: Tensor
    bright: Tensor
    inverse: Tensor
    terms: Tensor
    waves: Tensor

    def __init__(self, channels: int, *, absolute: bool = False, images: bool = False) -> None:
        super().__init__()
        self.absolute, self.border = absolute, "replicate" if images else "constant"
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.register_buffer("level", torch.full((3, 1, 1), 0.5))
        line = torch.linspace(-1, 1, SIDE)
        y, x = line[:, None].expand(SIDE, SIDE), line.expand(SIDE, SIDE)
        terms = torch.stack([torch.ones(SIDE, SIDE), y, x, x * y, y * y, x * x])
        eigenvalues = 2 - 2 * torch.cos(math.pi * torch.arange(SIDE, dtype=torch.float64) / SIDE)
        inverse = 1 / (eigenvalues[:, None] + eigenvalues)
        inverse[0, 0] = 0
        self.register_buffer("inverse", inverse.float())
        for name, value in (("terms", terms), ("waves", dct_matrix(SIDE).float())):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("local", torch.zeros(3 * len(terms), channels, 3, 3))
        self.register_buffer("bright", torch.zeros(3, channels, 1, 1))

    @torch.no_grad()
    def solve(self, pairs: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator) -> None:
        """Take mean and deviation of each channel, the images' level, and all weights by least squares.

        Of values rounded to float16, as they are stored, lest the stem lives on what is rounded away.

        Args:
            pairs: Masked faces (n, C, 112, 112) and the images (n, 3, 112, 112) in [0, 1] behind them, in parts.
            generator: Of the places that are looked at.
        """
        values = [self._read(part.clamp(-HALF, HALF).half().float()) for part, _ in pairs]
        images = [part for _, part in pairs]
        means = torch.stack([part.mean((0, 2, 3)) for part in values]).mean(0)
        squares = torch.stack([part.square().mean((0, 2, 3)) for part in values]).mean(0)
        std = (squares - means.square()).clamp_min(0).sqrt()
        self.mean.copy_(means[:, None, None])
        self.scale.copy_(torch.where(std > 1e-6, std, torch.ones(1))[:, None, None])
        self.level.copy_(torch.stack([part.mean((0, 2, 3)) for part in images]).mean(0)[:, None, None])
        standard = [(part - self.mean) / self.scale for part in values]
        self._solve_brightness(standard, images)
        self._solve_differences(standard, images, generator)
        self._weigh_waves(standard, images)

    def _solve_brightness(self, standard: Sequence[Tensor], images: Sequence[Tensor]) -> None:
        levels = torch.cat([part.mean((2, 3)) for part in standard]).double()
        wanted = torch.cat([part.mean((2, 3)) - self.level[:, 0, 0] for part in images]).double()
        gram = levels.T @ levels + FAINT * len(levels) * torch.eye(levels.shape[1], dtype=torch.float64)
        self.bright.copy_(torch.linalg.solve(gram, levels.T @ wanted).T[:, :, None, None])

    def _solve_differences(
        self, standard: Sequence[Tensor], images: Sequence[Tensor], generator: torch.Generator
    ) -> None:
        white = _whitening(standard)
        (channels, width), count = white.shape, len(self.terms)
        size = 9 * width * count
        gram, cross = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, 3, dtype=torch.float64)
        for values, part in zip(standard, images, strict=True):
            places = torch.randperm(SIDE * SIDE, generator=generator)[:PLACES]
            patches = functional.unfold(self._bordered(torch.einsum("cw,ncij->nwij", white, values)), 3)
            seen = patches[:, :, places].transpose(1, 2)[:, :, None] * self.terms.flatten(1)[:, places].T[..., None]
            rows = seen.flatten(2).flatten(0, 1)
            gram += rows.T @ rows
            cross += rows.T @ second_differences(part).flatten(2)[:, :, places].transpose(1, 2).flatten(0, 1)
        gram += RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(size, dtype=torch.float64)
        solved = torch.linalg.solve(gram, cross).float().reshape(count, width, 9, 3)
        weight = torch.einsum("twko,cw->otck", solved, white)
        self.local.copy_(weight.reshape(3 * count, channels, 3, 3))

    def _weigh_waves(self, standard: Sequence[Tensor], images: Sequence[Tensor]) -> None:
        both, own = torch.zeros(SIDE, SIDE), torch.zeros(SIDE, SIDE)
        for values, part in zip(standard, images, strict=True):
            found = self.waves @ self._differences(values) @ self.waves.T * self.inverse
            both += (found * (self.waves @ part @ self.waves.T)).sum((0, 1))
            own += found.square().sum((0, 1))
        self.inverse.mul_((both / own.clamp_min(1e-12)).clamp(0, MOST_GAIN))

    def forward(self, values: Tensor) -> Tensor:
        """The images, not clipped."""
        return self.integrate(self.differentiate(values))

    def differentiate(self, values: Tensor) -> Tensor:
        """(N, 6, 112, 112): the images' second differences, and what each place says of their brightness.

        Affine in the values, unless these are read without signs.
        """
        standard = (self._read(values) - self.mean) / self.scale
        return torch.cat([self._differences(standard), functional.conv2d(standard, self.bright)], 1)

    def integrate(self, differences: Tensor) -> Tensor:
        """The images of what `differentiate` has found."""
        second, bright = differences[:, :3], differences[:, 3:]
        amplitudes = self.waves @ second @ self.waves.T * self.inverse
        images: Tensor = self.waves.T @ amplitudes @ self.waves + self.level + bright.mean((2, 3), keepdim=True)
        return images

    def _read(self, values: Tensor) -> Tensor:
        return values.abs() if self.absolute else values

    def _bordered(self, values: Tensor) -> Tensor:
        return functional.pad(values, [1] * 4, mode=self.border)

    def _differences(self, standard: Tensor) -> Tensor:
        found = functional.conv2d(self._bordered(standard), self.local)
        shared: Tensor = (found.reshape(len(standard), 3, len(self.terms), SIDE, SIDE) * self.terms).sum(2)
        return shared


def second_differences(images: Tensor) -> Tensor:
    """Four times each sample less its four neighbours, the border repeated: (N, C, H, W) as it was."""
    wide = functional.pad(images, [1] * 4, mode="replicate")
    around = wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:] + wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1]
    differences: Tensor = 4 * images - around
    return differences


def _whitening(parts: Sequence[Tensor]) -> Tensor:
    """(C, at most `WIDTH`): the strongest directions of channels, brought to one deviation."""
    rows = [part.transpose(0, 1).flatten(1) for part in parts]
    moments = torch.stack([(row @ row.T).double() for row in rows]).sum(0)
    values, vectors = torch.linalg.eigh(moments / sum(row.shape[1] for row in rows))
    kept = values[-WIDTH:] > VARIANCE * values.sum()
    white: Tensor = (vectors[:, -WIDTH:][:, kept] / values[-WIDTH:][kept].sqrt()).float()
    return white


class MaskedNetwork(nn.Module):
    """A stem, and a copy of the whole recogniser, which learns; where stored faces are hidden from it, a second one.

    The second, the *reader*, finds a template in what is stored where the first, which recognises whoever stands at the
    door, finds none: see `bauta.templates.masked.mixing.Mixing.stored`. Without one the first reads both.

    Args:
        recognizer: The clean one; it stays as it is.
        shape: Of what the stem reads, (C, 112, 112).
        absolute: See `Stem`.
        images: See `Stem`.
        apart: Whether there is a reader.

    Raises:
        UsageError: when the recogniser reads other crops, or the masked faces have another side.
    """

    def __init__(
        self,
        recognizer: Surrogate,
        shape: tuple[int, int, int],
        *,
        absolute: bool = False,
        images: bool = False,
        apart: bool = False,
    ) -> None:
        super().__init__()
        if recognizer.card.template != ARCFACE_112:
            raise UsageError(
                f"{recognizer.card.name!r} reads other crops than {ARCFACE_112.name}.",
                hint="Masked faces are aligned so: choose a recogniser that reads them.",
            )
        if shape[1:] != (SIDE, SIDE):
            raise UsageError(f"Masked faces have shape {list(shape)}.", hint=f"Their maps have {SIDE} pixels a side.")
        self.shape = shape
        self.stem = Stem(shape[0], absolute=absolute, images=images)
        self.body, self._weights = trainable_copy(recognizer.network)
        self.reader: nn.Module | None = None
        self._reader_weights: list[Tensor] = []
        if apart:
            self.start_reader()
        self._prepare = recognizer.prepare
        self.freeze()

    def start_reader(self) -> None:
        """Let the reader begin with what the body has learned."""
        self.reader, self._reader_weights = trainable_copy(self.body)

    def learned(self, *, reader: bool = False) -> list[Tensor]:
        """All that is learned of the body, or of the reader; the stem is solved."""
        return self._reader_weights if reader else self._weights

    def freeze(self) -> None:
        """Let nothing be learned."""
        for weight in (*self._weights, *self._reader_weights):
            weight.requires_grad_(False)

    def unfreeze(self, *, reader: bool = False) -> None:
        """Let the body be learned, or the reader."""
        for weight in self.learned(reader=reader):
            weight.requires_grad_(True)

    def forget_plans(self) -> None:
        """Compute nothing any more from weights as they were: an imported network remembers."""
        for network in filter(None, (self.body, self.reader)):
            network.float()

    def unmask(self, values: Tensor) -> Tensor:
        """The images (N, 3, 112, 112) behind masked faces (N, C, H, W), as far as the stem finds them, not clipped.

        Raises:
            UsageError: when the masked faces have another shape, as clean faces do.
        """
        if tuple(values.shape[1:]) != self.shape:
            raise UsageError(
                f"A recogniser of masked faces {list(self.shape)} was given {list(values.shape[1:])}.",
                hint="Mask the face as this protector does.",
            )
        images: Tensor = self.stem(values)
        return images

    def recognise(self, images: Tensor) -> Tensor:
        """Unit-norm templates (N, D) of images that the stem has found, under autograd.

        Raises:
            NumericalFailure: when the network answers with NaN or infinity.
        """
        return self._templates(self.body, images)

    def read(self, images: Tensor) -> Tensor:
        """The same by the reader of what is stored, where there is one; raises `NumericalFailure` likewise."""
        return self._templates(self.body if self.reader is None else self.reader, images)

    def forward(self, values: Tensor) -> Tensor:
        """`recognise` of masked faces (N, C, H, W); raises as that and `unmask`."""
        return self.recognise(self.unmask(values))

    def _templates(self, network: nn.Module, images: Tensor) -> Tensor:
        embeddings = network(self._prepare(images))
        if not bool(embeddings.isfinite().all()):
            raise NumericalFailure("A recogniser of masked faces answered with NaN or infinity.", hint="Check it.")
        return functional.normalize(embeddings, dim=1)
