"""What the budget of the optimised local features is worth: recognisers that nobody named, and what is drawn.

Faces are those of the recipe's attackers' half, whom the model of faces of nobody did not learn from and no table tests
on: up to 4 of everybody with several, and of 30 others one. A surrogate that ships (`chip_resnet`) learned from photos
of the same people: compare these losses with each other, not with those of the tables. They are in points of 1 - the
half total error rate at the best threshold for these pairs, the mean over the recognisers, which must be neither
surrogates nor judges, nor have taught a surrogate. Drawn is how far an image was moved from the face of nobody towards
the photo: the share of their difference in brightness, blurred for texture not to count, that the change makes up.

    BAUTA_MODELS=MODELS python benchmarks/local_features_budget.py DATA --recognizers first second third
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bauta.benchmark.stores.recipe import read_template_recipe
from bauta.benchmark.stores.setup import set_up
from bauta.objectives.transports import gaussian_blur
from bauta.objectives.visibility import luminance
from bauta.recognizers.judges import Judge, load_judge
from bauta.recognizers.surrogates import load_surrogate
from bauta.templates.base import crops_of, load_protector
from bauta.templates.draws import Draws
from bauta.templates.local.composition import cut_bits
from bauta.templates.local.protector import LocalFeatures
from bauta.templates.local.stand_ins import write_identity
from figures import accuracy, faces_of, keep

CHUNK = 32
BLUR = 2.0  # deviation in pixels


def embed(judge: Judge, images: Tensor) -> Tensor:
    parts: tuple[Tensor, ...] = images.split(64)  # type: ignore[no-untyped-call]
    return torch.cat([torch.from_numpy(judge.embed(crops_of(part, judge.card.template).numpy())) for part in parts])


def drawn(nobody: Tensor, stored: Tensor, images: Tensor) -> Tensor:
    """(N,) how far images went from nobody to the person."""
    change, way = (gaussian_blur(luminance(other) - luminance(nobody), BLUR) for other in (stored, images))
    return (change * way).sum((1, 2, 3)) / way.square().sum((1, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--protector", type=Path, default=Path("local-features-mobilefacenet"))
    parser.add_argument("--recipe", default="local-features-small")
    parser.add_argument("--recognizers", nargs="+", required=True)
    parser.add_argument("--epsilon", nargs="+", type=float, default=[4, 6, 8, 12, 16])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_template_recipe(options.recipe)
    protector = load_protector(options.protector, load_surrogate(recipe.recognizer))
    if not isinstance(protector, LocalFeatures) or protector.stand_ins is None:
        raise SystemExit(f"{options.protector} makes no faces of nobody.")
    if taken := sorted(set(options.recognizers) & {*protector.teachers, *recipe.judges}):
        raise SystemExit(f"{taken[0]} is a surrogate or a judge.")
    judges = [load_judge(name) for name in options.recognizers]
    people = set_up(recipe, options.data).attackers
    images, same = faces_of(people, 4, 30)
    parts: tuple[Tensor, ...] = images.split(CHUNK)  # type: ignore[no-untyped-call]
    clean = [embed(judge, images) for judge in judges]
    alone = [accuracy((one @ one.T).numpy(), same)[0] for one in clean]
    rows = []
    for epsilon in options.epsilon:
        draws, stored, moved = Draws(torch.Generator().manual_seed(options.seed)), [], []
        for part in parts:
            nobody = protector.stand_ins.draw(len(part), draws)
            config = replace(protector.config, epsilon=epsilon)
            stored.append(cut_bits(write_identity(nobody, part, protector.surrogates, config, draws), config.bits))
            moved.append(drawn(nobody, stored[-1], part))
        seen = [embed(judge, torch.cat(stored)) for judge in judges]
        one = [accuracy((own @ other.T).numpy(), same)[0] for own, other in zip(seen, clean, strict=True)]
        two = [accuracy((own @ own.T).numpy(), same)[0] for own in seen]
        agreement = [float((own * other).sum(1).mean()) for own, other in zip(seen, clean, strict=True)]
        rows.append({
            "epsilon": epsilon,
            "loss_one_sided": round(100 * float(np.mean(alone) - np.mean(one)), 2),
            "loss_two_sided": round(100 * float(np.mean(alone) - np.mean(two)), 2),
            "agreement": round(float(np.mean(agreement)), 3),
            "drawn": round(float(torch.cat(moved).mean()), 4),
        })  # fmt: skip
        print(rows[-1], flush=True)
    figures = {
        "recipe": recipe.name,
        "people": people.name,
        "sha256": people.sha256,
        "faces": len(images),
        "protector": protector.sha256,
        "recognizers": {judge.card.name: judge.card.sha256 for judge in judges},
        "seed": options.seed,
        "accuracy": round(float(np.mean(alone)), 4),
        "settings": rows,
    }
    keep(figures, options.output)


if __name__ == "__main__":
    main()
