"""What AdvFace's budget, its steps and its looks at the cosine are worth.

Faces are those of the recipe's attackers' half, whom no protector learned from and no table tests on. Some people are
drawn to be tested; two decoders, of the first shadow's architecture and of another, learn from the clean features of
all others, and to bring back the identity too. Of each setting the table says whom the recogniser still knows (loss of
1 - the half total error rate at the best threshold for these pairs, in points, and d', the distance of the means of
genuine and impostor scores in deviations), and what the decoders make of what is stored: how many pass as the person
at FMR 1e-3 at the recogniser itself, the cosine to the person's template, and SSIM. Steps are two budgets long
together.

    python benchmarks/advface_budget.py DATA --work FOLDER
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_msssim import ssim
from torch import Tensor

from bauta.attacks.oracle import StoredPairs
from bauta.attacks.reconstruct import ReconstructionConfig, Reconstructor, fit_reconstructor
from bauta.benchmark.stores.recipe import read_template_recipe
from bauta.benchmark.stores.setup import set_up
from bauta.learning.learners import Schedule
from bauta.recognizers import find_card, threshold
from bauta.recognizers.surrogates import load_surrogate
from bauta.templates.advface.protector import AdvFace
from bauta.templates.base import load_protector
from bauta.templates.fit import as_images
from figures import accuracy, d_prime, keep

CHUNK = 32
DECODERS = {"known": "residual", "unknown": "deconvolution"}
SETTINGS = (  # epsilon, iterations, iterations between looks
    *((epsilon, 20, 7) for epsilon in (0.4, 0.5, 0.6, 0.7, 0.8)),
    *((0.6, 20, every) for every in (20, 10, 12, 14)),  # the first never looks
    *((0.6, 10, 7), (0.6, 14, 9), (0.6, 16, 11), (0.6, 30, 20)),
)  # fmt: skip


def in_parts(function: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([function(part) for part in torch.split(images, CHUNK)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--protector", type=Path, default=Path("advface-mobilefacenet"))
    parser.add_argument("--recipe", default="advface-shipped")
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--faces", type=int, default=6)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_template_recipe(options.recipe)
    protector = load_protector(options.protector, load_surrogate(recipe.recognizer))
    if not isinstance(protector, AdvFace):
        raise SystemExit(f"{options.protector} is not an AdvFace.")
    fitted = protector.sha256
    people = set_up(recipe, options.data).attackers
    names = np.array(people.subjects)
    found, counts = np.unique(names, return_counts=True)
    drawn = np.random.default_rng(options.seed).choice(found[counts >= options.faces], options.people, replace=False)
    tested = torch.tensor(np.concatenate([np.flatnonzero(names == name)[: options.faces] for name in sorted(drawn)]))
    images, same = as_images(people.pixels[tested]), names[tested][:, None] == names[tested]
    learnt = people.pixels[torch.tensor(np.flatnonzero(~np.isin(names, drawn)))]

    def seen(faces: Tensor) -> Tensor:
        return protector.front(protector.crops(as_images(faces)))

    clean = in_parts(protector.clean, images)
    passing = threshold(find_card(recipe.recognizer), 1e-3).cosine
    pairs = StoredPairs(in_parts(seen, learnt).half(), learnt, key=f"clean features, {people.sha256} {drawn}")
    schedule = Schedule(options.epochs, 16, 2e-3, options.seed)
    decoders: dict[str, Reconstructor] = {}
    for name, decoder in DECODERS.items():
        config = ReconstructionConfig(decoder=decoder, channels=options.channels, identity=0.1, schedule=schedule)
        decoders[name] = fit_reconstructor(pairs, config, embed=protector.clean, work=options.work, name=name)

    def decoded(features: Tensor) -> dict[str, float]:
        figures: dict[str, float] = {}
        for name, decoder in decoders.items():
            faces = decoder.reconstruct(features)
            cosine = (in_parts(protector.clean, faces) * clean).sum(1)
            figures[f"{name}_passes"] = round(float((cosine >= passing).float().mean()), 4)
            figures[f"{name}_cosine"] = round(float(cosine.mean()), 3)
            figures[f"{name}_ssim"] = round(float(ssim(faces, images, data_range=1.0)), 4)
        return figures

    scores = (clean @ clean.T).numpy()
    alone = accuracy(scores, same)[0]
    unprotected = {"distance": round(d_prime(scores, same), 2), **decoded(in_parts(seen, images))}
    print(unprotected, flush=True)
    rows = []
    for epsilon, iterations, every in SETTINGS:
        protector.config = replace(
            protector.config, epsilon=epsilon, iterations=iterations, step=2 / iterations, identity_every=every
        )
        stored = protector.protect(images, torch.Generator().manual_seed(options.seed))
        templates = protector.templates(stored)
        one, two = ((templates @ other.T).numpy() for other in (clean, templates))
        rows.append({
            "epsilon": epsilon,
            "iterations": iterations,
            "identity_every": every,
            "agreement": round(float((templates * clean).sum(1).mean()), 3),
            "loss_one_sided": round(100 * (alone - accuracy(one, same)[0]), 2),
            "loss_two_sided": round(100 * (alone - accuracy(two, same)[0]), 2),
            "distance_one_sided": round(d_prime(one, same), 2),
            "distance_two_sided": round(d_prime(two, same), 2),
            **decoded(protector.features(stored)),
        })  # fmt: skip
        print(rows[-1], flush=True)
    figures = {
        "recipe": recipe.name,
        "people": people.name,
        "sha256": people.sha256,
        "tested": [len(drawn), len(images)],
        "learnt": len(learnt),
        "channels": options.channels,
        "epochs": options.epochs,
        "protector": fitted,
        "recognizer": protector.recognizer.card.sha256,
        "seed": options.seed,
        "accuracy": round(alone, 4),
        "unprotected": unprotected,
        "settings": rows,
    }
    keep(figures, options.output)


if __name__ == "__main__":
    main()
