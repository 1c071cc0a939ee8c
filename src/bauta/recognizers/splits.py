"""A recogniser in two halves: a front from face crops to a feature, and a back from the feature to the template.

A network can be cut where a single tensor is all that later layers know of the image: a point that every path from
the input to the output runs through (an articulation point of the graph). Finding them is our design.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from operator import ge

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import NumericalFailure, UsageError
from bauta.recognizers.cards import RecognizerCard
from bauta.recognizers.dlib_resnet import DlibResNet
from bauta.recognizers.onnx.module import ImportedNetwork
from bauta.recognizers.surrogates import Surrogate, load_surrogate
from bauta.tables import shown

TEMPLATE = "template"

_SHAPE = re.compile(r"\d+(x\d+)*")


@dataclass(frozen=True)
class CutPoint:
    """A place where a recogniser can be cut.

    Attributes:
        name: Of the tensor, as the network calls it; ``template`` is the unit-norm end.
        shape: Of the feature of one face, such as (64, 56, 56).
    """

    name: str
    shape: tuple[int, ...]

    @property
    def depth(self) -> str:
        """The shape as one asks for it: ``64x56x56``."""
        return "x".join(map(str, self.shape))


class _Part(nn.Module):
    def __init__(self, recognizer: Surrogate, layers: nn.Module | None, cut: CutPoint) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.layers = layers
        self.cut = cut
        self.eval().requires_grad_(False)


class Front(_Part):
    """From crops (N, 3, height, width) in [0, 1] to features (N, ...), as the recogniser computes them.

    Attributes:
        cut: Where the recogniser was cut.
    """

    def forward(self, crops: Tensor) -> Tensor:
        """The feature of each crop, under autograd.

        Raises:
            UsageError: when the crops do not have the shape of the card's template.
        """
        feature: Tensor = self.recognizer(crops) if self.layers is None else self.layers(self.recognizer.prepare(crops))
        return feature


class Back(_Part):
    """From features (N, ...) to unit-norm templates (N, dim)."""

    def forward(self, features: Tensor) -> Tensor:
        """The template of each feature, under autograd.

        Raises:
            UsageError: when the features do not have the shape of the cut.
            NumericalFailure: when the network answers with NaN or infinity.
        """
        if tuple(features.shape[1:]) != self.cut.shape:
            raise UsageError(
                f"Features have shape {list(features.shape)}; at {self.cut.name!r} each has {list(self.cut.shape)}.",
                hint="Use features of the same recogniser and the same cut.",
            )
        embeddings = features if self.layers is None else self.layers(features)
        if not bool(embeddings.isfinite().all()):
            raise NumericalFailure(
                f"{self.recognizer.card.name!r} answered with NaN or infinity.", hint="Check the features."
            )
        return functional.normalize(embeddings, dim=1)


def list_cuts(recognizer: Surrogate | RecognizerCard | str) -> list[CutPoint]:
    """Where a recogniser can be cut, from the image to the template, which comes last.

    Raises:
        UsageError: when the network is of a kind that cannot be cut.
        RecognizerError: as `load_surrogate`.
    """
    surrogate = recognizer if isinstance(recognizer, Surrogate) else load_surrogate(recognizer)
    template, network = surrogate.card.template, surrogate.network
    grey = torch.full((1, 3, template.height, template.width), 0.5)
    image = surrogate.prepare(grey.to(surrogate.mean.device))
    cuts = []
    with torch.no_grad():
        if isinstance(network, ImportedNetwork):
            names = network.cut_names()
            features = network.part(ends=names).outputs(image) if names else ()
            cuts = [CutPoint(name, tuple(one.shape[1:])) for name, one in zip(names, features, strict=True)]
        else:
            for name, layer in _chain(surrogate)[:-1]:
                image = layer(image)
                cuts.append(CutPoint(name, tuple(image.shape[1:])))
    return [cut for cut in cuts if cut.shape] + [CutPoint(TEMPLATE, (surrogate.card.dim,))]


def find_cut(cuts: Sequence[CutPoint], split: str) -> CutPoint:
    """The cut of that name or shape; of several the last, which is the deepest.

    Args:
        cuts: From `list_cuts`.
        split: ``template``, a tensor's name, a shape such as ``64x56x56``, or the least size of a map such as
            ``14x14``: of those maps the one of the fewest numbers.

    Raises:
        UsageError: when there is none; the hint lists the shapes there are.
    """
    for cut in cuts:
        if cut.name == split:
            return cut
    features = [cut for cut in reversed(cuts) if cut.name != TEMPLATE]
    if _SHAPE.fullmatch(split):
        least = tuple(map(int, split.split("x")))
        if exact := [cut for cut in features if cut.shape == least]:
            return exact[0]
        if len(least) == 2:
            maps = [cut for cut in features if len(cut.shape) == 3 and all(map(ge, cut.shape[1:], least))]
            if maps:
                return min(maps, key=lambda cut: prod(cut.shape))
    depths = ", ".join(dict.fromkeys(cut.depth for cut in cuts if cut.name != TEMPLATE))
    raise UsageError(f"The recogniser cannot be cut at {shown(split)}.", hint=f"Choose {TEMPLATE}, or one of {depths}.")


def split_recognizer(recognizer: Surrogate | RecognizerCard | str, split: str) -> tuple[Front, Back]:
    """Cut a recogniser in two; ``back(front(crops))`` is what the whole computes.

    Args:
        recognizer: Module, card or name.
        split: As for `find_cut`.

    Raises:
        UsageError: when it cannot be cut there.
        RecognizerError: as `load_surrogate`.
    """
    surrogate = recognizer if isinstance(recognizer, Surrogate) else load_surrogate(recognizer)
    cut = find_cut(list_cuts(surrogate), split)
    if cut.name == TEMPLATE:
        return Front(surrogate, None, cut), Back(surrogate, None, cut)
    network = surrogate.network
    if isinstance(network, ImportedNetwork):
        return Front(surrogate, network.part(ends=[cut.name]), cut), Back(surrogate, network.part(cut.name), cut)
    chain = _chain(surrogate)
    end = 1 + [name for name, _ in chain].index(cut.name)
    first, second = (nn.Sequential(*(layer for _, layer in part)) for part in (chain[:end], chain[end:]))
    return Front(surrogate, first, cut), Back(surrogate, second, cut)


class _Pooled(nn.Module):
    """The beginning of dlib's network: convolution and pooling."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, image: Tensor) -> Tensor:
        return functional.max_pool2d(torch.relu(self.stem(image)), 3, stride=2)


class _Average(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))


def _chain(surrogate: Surrogate) -> list[tuple[str, nn.Module]]:
    """The layers of a network that is one chain."""
    network = surrogate.network
    if isinstance(network, DlibResNet):
        blocks = [(f"block_{number}", block) for number, block in enumerate(network.blocks, 1)]
        return [("stem", _Pooled(network.stem)), *blocks, ("average", _Average()), ("head", network.head)]
    if isinstance(network, nn.Sequential):
        return list(network.named_children())
    raise UsageError(
        f"The network of {surrogate.card.name!r}, {type(network).__name__}, cannot be cut.",
        hint="Only ONNX graphs, dlib's network and nn.Sequential can: export it to ONNX.",
    )
