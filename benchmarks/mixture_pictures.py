"""Whose the pictures are that a stem shows of stored mixtures, to recognisers that are not their reader.

The recipe's victims are stored, and the stem's pictures shown to the recogniser at the door, to the clean one and to
judges, as they are and changed: mirrored, inverted, with other contrast, and by every purifier. For each the AUROC
says how well the person is told from the other victims, 0.5 being not at all; below it they are told by being less
alike than strangers. The protector's own reader stands beside them, and readers of protectors fitted otherwise.

    python benchmarks/mixture_pictures.py DATA PROTECTOR [--other PROTECTOR ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bauta import metrics
from bauta.attacks.replay import embed_aligned
from bauta.benchmark.stores.recipe import read_template_recipe
from bauta.benchmark.stores.representations import hash_seed
from bauta.benchmark.stores.setup import set_up
from bauta.recognizers.surrogates import load_surrogate
from bauta.registry import load_method
from bauta.templates.base import load_protector
from bauta.templates.masked.protectors import MaskedRecognition
from figures import keep

PURIFIERS = ("purify-blur", "purify-jpeg", "purify-bit-depth", "purify-total-variation", "purify-denoiser")
Change = Callable[[Tensor], Tensor]


def contrast(images: Tensor, factor: float) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return (mean + factor * (images - mean)).clamp(0, 1)


def purified(name: str, images: Tensor) -> Tensor:
    """By a purifier of 8-bit photos (N, H, W, 3)."""
    photos = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return torch.from_numpy(load_method(name)().purify(photos)).permute(0, 3, 1, 2).float() / 255


def changes() -> dict[str, Change]:
    found: dict[str, Change] = {
        "as it is": lambda images: images,
        "mirrored": lambda images: images.flip(3),
        "inverted": lambda images: 1 - images,
        "half the contrast": lambda images: contrast(images, 0.5),
        "twice the contrast": lambda images: contrast(images, 2.0),
    }
    return found | {name: lambda images, name=name: purified(name, images) for name in PURIFIERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("protector", type=Path)
    parser.add_argument("--other", type=Path, nargs="*", default=[])
    parser.add_argument("--recipe", default="hybrid-shipped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_template_recipe(options.recipe)
    recognizer = load_surrogate(recipe.recognizer)
    own, *others = (load_protector(path, recognizer) for path in (options.protector, *options.other))
    if not isinstance(own, MaskedRecognition) or not all(isinstance(one, MaskedRecognition) for one in others):
        raise SystemExit("Give protectors that mask faces.")
    setup = set_up(recipe, options.data)
    faces = setup.victims.enrolled
    generator = torch.Generator().manual_seed(hash_seed(options.seed, "pictures"))
    stored = own.protect(faces, generator)
    pictures = (own.to_image(stored) * 255).round() / 255
    networks: dict[str, Change] = {"at the door": own.network.recognise, "clean": recognizer}
    for name in recipe.judges:
        networks[name] = lambda images, name=name: torch.from_numpy(  # type: ignore[misc]
            embed_aligned(setup.replay.judges[name], images.numpy())
        )
    networks["its reader"] = own.network.read
    networks |= {f"another's reader {number}": one.network.read for number, one in enumerate(others, 1)}
    unmasked = {"clean", *recipe.judges}  # who reads faces as they are
    rows = []
    with torch.no_grad():
        probes = own.probe(faces, generator)
        wanted = {name: look(faces) if name in unmasked else probes for name, look in networks.items()}
        for change, make in changes().items():
            seen, found = make(pictures), {}
            for name, look in networks.items():
                scores = (look(seen) @ wanted[name].T).numpy()
                same = np.eye(len(scores), dtype=bool)
                found[name] = {
                    "cosine": round(float(scores[same].mean()), 4),
                    "others": round(float(scores[~same].mean()), 4),
                    "deviation": round(float(scores[~same].std()), 4),
                    "auroc": round(metrics.auroc(scores[same], scores[~same]), 4),
                }
            rows.append({"change": change, "by": found})
            print(change, {name: one["auroc"] for name, one in found.items()}, flush=True)
    figures = {
        "recipe": recipe.name,
        "victims": len(faces),
        "protector": own.sha256,
        "others": [one.sha256 for one in others],
        "seed": options.seed,
        "changes": rows,
    }
    keep(figures, options.output)


if __name__ == "__main__":
    main()
