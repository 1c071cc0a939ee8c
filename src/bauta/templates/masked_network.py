"""Networks that read masked faces: a new stem before a copy of a recogniser's body. Our design."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import NumericalFailure, UsageError
from bauta.faces.templates import ARCFACE_112
from bauta.recognizers.onnx_import import trainable_copy
from bauta.recognizers.splits import list_cuts, split_recognizer
from bauta.recognizers.surrogates import Surrogate


class Stem(nn.Module):
    """From values (N, C, H, W) to the first map (N, F, h, w) that the recogniser makes of a face.

    Standardised channels, a 1x1 convolution to `width` channels, a strided 3x3 convolution, and beside that a branch
    that is not linear and begins at nothing. Maskings are linear or nearly so, and so is the first map: `solve` finds
    the linear part by least squares, where training from random weights would take most of the time there is. Our
    design; the published methods widen the first convolution and train it from nothing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, int, int], feature: tuple[int, ...], width: int) -> None:
        super().__init__()
        outputs, self.side = feature[0], (feature[1], feature[2])
        self.register_buffer("mean", torch.zeros(shape[0], 1, 1))
        self.register_buffer("scale", torch.ones(shape[0], 1, 1))
        self.stride = max(1, round(shape[1] / feature[1]))
        self.reduce = nn.Conv2d(shape[0], width, 1, bias=False)
        self.linear = nn.Conv2d(width, outputs, 3, stride=self.stride, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(width, outputs, 3, stride=self.stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 1),
        )
        for parameter in self.branch[-1].parameters():
            nn.init.zeros_(parameter)

    def calibrate(self, parts: Sequence[Tensor]) -> None:
        """Take mean and deviation of each channel from values (n, C, H, W)."""
        means = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
        squares = torch.stack([part.square().mean((0, 2, 3)) for part in parts]).mean(0)
        std = (squares - means.square()).clamp_min(0).sqrt()
        self.mean.copy_(means[:, None, None])
        self.scale.copy_(torch.where(std > 1e-6, std, torch.ones(1))[:, None, None])

    @torch.no_grad()
    def solve(self, pairs: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator) -> None:
        """Set the linear part to the least squares of features (n, F, h, w) on values (n, C, H, W).

        One place in four is looked at; a ridge of a thousandth keeps channels that tell the same from quarrelling. The
        weights are then brought to `width` channels by their singular values.
        """
        channels, width, outputs = len(self.mean), self.reduce.out_channels, self.linear.out_channels
        size = 9 * channels + 1
        gram, cross = torch.zeros(size, size), torch.zeros(size, outputs)
        for values, feature in pairs:
            patches = functional.unfold((values - self.mean) / self.scale, 3, padding=1, stride=self.stride)
            side = 1 + (values.shape[2] - 1) // self.stride
            wanted = functional.adaptive_avg_pool2d(feature, (side, side)).flatten(2)
            places = torch.randperm(patches.shape[2], generator=generator)[: max(1, patches.shape[2] // 4)]
            rows = patches[:, :, places].transpose(1, 2).flatten(0, 1)
            rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
            gram += rows.T @ rows
            cross += rows.T @ wanted[:, :, places].transpose(1, 2).flatten(0, 1)
        gram += 1e-3 * gram.diagonal().mean() * torch.eye(size)
        solved = torch.linalg.solve(gram.double(), cross.double()).float()
        weight = solved[:-1].T.reshape(outputs, channels, 9)
        left, _, _ = torch.linalg.svd(weight.transpose(0, 1).flatten(1), full_matrices=False)
        kept = min(width, left.shape[1])
        self.reduce.weight[:kept] = left[:, :kept].T[:, :, None, None]
        self.linear.weight.zero_()
        self.linear.weight[:, :kept] = torch.einsum("cr,ocp->orp", left[:, :kept], weight).reshape(outputs, kept, 3, 3)
        assert self.linear.bias is not None
        self.linear.bias.copy_(solved[-1])

    def forward(self, values: Tensor) -> Tensor:
        """The feature."""
        return self.finish(self.reduced(values))

    def reduced(self, values: Tensor) -> Tensor:
        """The first layer, (N, width, H, W) and affine, of values that are not standardised first: they are many."""
        weight = self.reduce.weight / self.scale[None]
        return functional.conv2d(values, weight, -(weight * self.mean[None]).sum((1, 2, 3)))

    def finish(self, reduced: Tensor) -> Tensor:
        """The feature, of what the first layer has made."""
        reduced = reduced.contiguous(memory_format=torch.channels_last)
        feature: Tensor = self.linear(reduced) + self.branch(reduced)
        return feature if feature.shape[2:] == self.side else functional.adaptive_avg_pool2d(feature, self.side)


def first_map(recognizer: Surrogate) -> str:
    """Name of the first place where a recogniser of faces can be cut and makes maps smaller than the face.

    Raises:
        UsageError: when it has none.
    """
    for cut in list_cuts(recognizer):
        if len(cut.shape) == 3 and cut.shape[1] < recognizer.card.template.height:
            return cut.name
    raise UsageError(
        f"{recognizer.card.name!r} makes no maps that a stem could end at.", hint="Choose a convolutional recogniser."
    )


class MaskedNetwork(nn.Module):
    """A new stem, and a copy of the body of a recogniser.

    Args:
        recognizer: The clean one; it stays as it is.
        shape: Of what the stem reads, (C, H, W).
        split: Where the recogniser is cut; see `bauta.recognizers.splits.find_cut`.
        width: Channels inside the stem.
        seed: Of the stem's weights.

    Raises:
        UsageError: when it cannot be cut there into a stem of maps and a body.
    """

    def __init__(
        self, recognizer: Surrogate, shape: tuple[int, int, int], split: str, width: int, seed: int = 0
    ) -> None:
        super().__init__()
        front, back = split_recognizer(recognizer, split)
        if back.layers is None or len(front.cut.shape) != 3:
            raise UsageError(
                f"A stem cannot end at {front.cut.name!r} {front.cut.depth}.",
                hint="Cut at maps, such as its first one.",
            )
        if recognizer.card.template != ARCFACE_112:
            raise UsageError(
                f"{recognizer.card.name!r} reads other crops than {ARCFACE_112.name}.",
                hint="Masked faces are aligned so: choose a recogniser that reads them.",
            )
        self.shape = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = Stem(shape, front.cut.shape, width)
        self.body, self._weights = trainable_copy(back.layers)
        self.freeze()

    def learned(self) -> list[Tensor]:
        """All that is learned."""
        return [*self.stem.parameters(), *self._weights]

    def freeze(self, frozen: bool = True) -> None:
        """Let nothing be learned, or all."""
        for weight in self.learned():
            weight.requires_grad_(not frozen)

    def forward(self, values: Tensor) -> Tensor:
        """Unit-norm templates (N, D) of masked faces (N, C, H, W), under autograd.

        Raises:
            UsageError: when they have another shape, as clean faces do.
            NumericalFailure: when the network answers with NaN or infinity.
        """
        if tuple(values.shape[1:]) != self.shape:
            raise UsageError(
                f"A recogniser of masked faces {list(self.shape)} was given {list(values.shape[1:])}.",
                hint="Mask the face as this protector does.",
            )
        return self.finish(self.stem.reduced(values))

    def finish(self, reduced: Tensor) -> Tensor:
        """The same of what the first layer of the stem has made of them; raises `NumericalFailure` likewise."""
        embeddings = self.body(self.stem.finish(reduced).contiguous(memory_format=torch.channels_last))
        if not bool(embeddings.isfinite().all()):
            raise NumericalFailure("A recogniser of masked faces answered with NaN or infinity.", hint="Check it.")
        return functional.normalize(embeddings, dim=1)
