"""Recognisers as frozen torch modules: the networks a method may differentiate through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bauta.calls import checked
from bauta.errors import NumericalFailure, UsageError
from bauta.recognizers.cards import RecognizerCard, require_role
from bauta.recognizers.catalog import find_card


class Surrogate(nn.Module):
    """A recogniser under attack: frozen, in evaluation mode, differentiable in its input.

    Attributes:
        card: What it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, card: RecognizerCard, network: nn.Module) -> None:
        super().__init__()
        self.card = card
        self.network = network
        self.register_buffer("mean", torch.tensor(card.mean, dtype=torch.float32).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(card.std, dtype=torch.float32).reshape(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> Tensor:
        """Unit-norm embeddings (N, dim) of aligned RGB crops (N, 3, height, width) in [0, 1].

        Works for every N, under autograd and `torch.func`.

        Raises:
            UsageError: when the crops do not have the shape of the card's template, or the network's output
                does not have the card's dimension.
            NumericalFailure: when the network answers with NaN or infinity (not seen inside `vmap`).
        """
        card = self.card
        features = self.network(self.prepare(crops))
        if tuple(features.shape) != (len(crops), card.dim):
            raise UsageError(
                f"{card.name!r} answered with shape {tuple(features.shape)} to {len(crops)} crops.",
                hint=f"The card promises {card.dim} numbers per crop: correct the card or the network.",
            )
        norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        if not _all_finite(norm):
            raise NumericalFailure(
                f"{card.name!r} answered with NaN or infinity.",
                hint="Check the photo and the weights, or leave this recogniser out.",
            )
        embeddings: Tensor = features / norm.clamp_min(1e-12)
        return embeddings

    def prepare(self, crops: Tensor) -> Tensor:
        """The network's own input, for RGB crops (N, 3, height, width) in [0, 1]: channel order and normalisation.

        Raises:
            UsageError: when the crops do not have the shape of the card's template.
        """
        card = self.card
        if crops.dim() != 4 or tuple(crops.shape[1:]) != (3, card.template.height, card.template.width):
            raise UsageError(
                f"{card.name!r} reads crops of shape (N, 3, {card.template.height}, {card.template.width}), "
                f"not {tuple(crops.shape)}.",
                hint="Align the faces to the card's template.",
            )
        image = crops.flip(1) if card.colour == "BGR" else crops
        # Channels last is 10 to 30 % faster on CPUs; this way of asking for it passes through vmap.
        image = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        normalised: Tensor = (image - self.mean) / self.std
        return normalised


def _all_finite(values: Tensor) -> bool:
    try:
        return bool(values.isfinite().all())
    except RuntimeError:  # inside vmap no value may be looked at
        return True


@checked
def load_surrogate(recognizer: str | RecognizerCard) -> Surrogate:
    """A recogniser, by name or card, as a differentiable module on the CPU.

    Raises:
        UnknownRecognizer: when no card has that name.
        RoleRefused: when its card does not allow the role.
        WeightsMissing: when the weights are not there.
        WeightsCorrupt: when they are not what the card says.
        UnsupportedOperator: when the ONNX graph cannot be differentiated by the importer.
        NumericalFailure: when the network answers a grey crop with NaN or infinity.
    """
    card = find_card(recognizer) if isinstance(recognizer, str) else recognizer
    require_role(card, "surrogate")
    surrogate = Surrogate(card, _network(card))
    # The first pass plans the graph for batch size 1 and brings out what would fail later.
    with torch.no_grad():
        surrogate(torch.full((1, 3, card.template.height, card.template.width), 0.5))
    return surrogate


def _network(card: RecognizerCard) -> nn.Module:
    if card.format == "dlib":
        from bauta.recognizers.dlib_resnet import load_dlib_resnet

        return load_dlib_resnet(card)
    from bauta.recognizers.onnx.module import ImportedNetwork
    from bauta.recognizers.packed import read_model

    return ImportedNetwork(read_model(card))
