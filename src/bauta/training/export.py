"""From a trained network to what ships: an ONNX graph, packed as safetensors, and its card."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bauta.errors import NumericalFailure
from bauta.files import make_folder, write_atomically
from bauta.recognizers.cards import RecognizerCard, format_card
from bauta.recognizers.judges import load_judge
from bauta.recognizers.onnx.module import ImportedNetwork
from bauta.recognizers.packed import pack
from bauta.training.recipes import Recipe
from bauta.training.starts import MEAN, STARTS, STD

TERMS = "Apache-2.0; trained on research data, by research networks: research use"
TOLERANCE = 1e-4


def to_onnx(network: nn.Module, size: int) -> bytes:
    """An ONNX model of a network that reads (N, 3, size, size), for every N; checked to give the same answers.

    Raises:
        NumericalFailure: when ONNX and torch differ by more than 1e-4 of the embedding's length.
    """
    network = network.cpu().eval()
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it regrets the absence of torchvision
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["image"],
                output_names=["embedding"],
                dynamic_shapes=({0: torch.export.Dim("images")},),
                opset_version=18,
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()
    with torch.no_grad():
        wanted, found = network(example), ImportedNetwork(model)(example)
    difference = float((wanted - found).norm() / wanted.norm())
    if not difference < TOLERANCE:
        raise NumericalFailure(f"The exported network differs from the trained one by {difference:.2g}.")
    return model


def ship(network: nn.Module, recipe: Recipe, figures: Mapping[str, Any], folder: Path) -> RecognizerCard:
    """Write ``NAME.safetensors`` and ``NAME.toml`` into `folder`.

    The card's figures are what the run knows of itself; accuracy is measured afterwards, on the file.

    Raises:
        NumericalFailure: when the shipped file's answers are not the network's; nothing is written then.
        OutputError: when a file cannot be written.
    """
    model = to_onnx(network, recipe.size)
    content = pack(model)
    weights = folder / f"{recipe.name}.safetensors"
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    card = RecognizerCard(
        name=recipe.name,
        architecture=f"{recipe.family}, {millions:.1f}M parameters",
        template=recipe.template,
        colour="RGB",
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        dim=recipe.dim,
        training_set=f"{figures['faces']} faces of {figures['people']} people: {', '.join(recipe.sources)}"
        if recipe.epochs
        else STARTS[recipe.start].training_set,
        terms=TERMS if recipe.epochs else STARTS[recipe.start].terms,
        source=f"bauta train recognizer {recipe.name}",
        sha256=hashlib.sha256(content).hexdigest(),
        weights=weights,
        format="safetensors",
        roles=frozenset(recipe.roles),
    )
    values = {"start": recipe.start, "teachers": list(recipe.teachers), "epochs": recipe.epochs, "seed": recipe.seed}
    values |= {"adversarial": recipe.adversarial, **figures}
    card = replace(card, training=values)
    with tempfile.TemporaryDirectory() as place:  # what fails the check must leave nothing behind
        tried = replace(card, weights=Path(place) / weights.name)
        tried.weights.write_bytes(content)
        _check(network, tried)
    make_folder(folder)
    write_atomically(weights, content, overwrite=True)
    write_atomically(folder / f"{recipe.name}.toml", format_card(card).encode(), overwrite=True)
    return card


def _check(network: nn.Module, card: RecognizerCard) -> None:
    """Half precision must not move an embedding by more than a cosine of 1e-3."""
    generator = torch.Generator().manual_seed(1)
    crops = torch.rand(4, 3, card.template.height, card.template.width, generator=generator)
    with torch.no_grad():
        wanted = network((crops - MEAN) / STD).numpy()
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    found = load_judge(replace(card, roles=frozenset({"judge"}))).embed(crops.numpy())
    lowest = float((wanted * found).sum(1).min())
    if not lowest > 1 - 1e-3:
        raise NumericalFailure(f"The shipped file's embeddings have a cosine of {lowest:.4f} to the network's.")
