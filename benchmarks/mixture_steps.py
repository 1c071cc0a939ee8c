"""How well people are known by mixtures: the curve that adaptive hybrid masking was set by.

Faces are those of the recipe's attackers' half, whom no protector learned from and no table tests on: up to 8 of
everybody with several, and of 30 others one. They are stored with several shares of the face and several numbers of
steps that bring its template back. Since what is brought back is the mean with the mirror image's template, the first
row is that mean of faces that nothing was mixed with: what it gains is not a merit of mixing. Accuracy is 1 - the half
total error rate at the best threshold for these pairs; the power is that of the others beside the face (sum of their
squared shares over its own).

    bauta templates attack hybrid-small --data DATA -o cards --rows hybrid
    python benchmarks/mixture_steps.py DATA cards/.work/protectors/NAME
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from bauta.benchmark.stores.recipe import read_template_recipe
from bauta.benchmark.stores.setup import set_up
from bauta.recognizers.surrogates import load_surrogate
from bauta.templates.base import load_protector
from bauta.templates.masked.hybrid_masking import HybridMask
from bauta.templates.masked.protectors import MaskedRecognition
from figures import accuracy, faces_of, keep

CHUNK = 8
SETTINGS = ((0.1, 4), (0.1, 8), (0.1, 12), (0.1, 16), (0.1, 20), (0.05, 16), (0.2, 16))  # share; steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("protector", type=Path)
    parser.add_argument("--recipe", default="hybrid-small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_template_recipe(options.recipe)
    protector = load_protector(options.protector, load_surrogate(recipe.recognizer))
    if not isinstance(protector, MaskedRecognition) or not isinstance(protector.masking, HybridMask):
        raise SystemExit(f"{options.protector} mixes no masked faces.")
    masking = protector.masking
    people = set_up(recipe, options.data).attackers
    images, same = faces_of(people, 8, 30)
    parts: tuple[Tensor, ...] = images.split(CHUNK)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        probes = protector.probe(images)
        means = functional.normalize(probes + protector.probe(images.flip(3)), dim=1)
    alone = accuracy((probes @ probes.T).numpy(), same)

    def figures_of(gallery: Tensor) -> dict[str, float]:
        one, two = (accuracy((gallery @ other.T).numpy(), same) for other in (probes, gallery))
        agreement = (gallery * probes).sum(1)
        return {
            "loss_one_sided": round(100 * (alone[0] - one[0]), 2),
            "loss_two_sided": round(100 * (alone[0] - two[0]), 2),
            "accepted_one_sided": round(one[1], 4),
            "accepted_two_sided": round(two[1], 4),
            "agreement": round(float(agreement.mean()), 3),
            "least_agreement": round(float(agreement.min()), 3),
        }

    config, rows = masking.config, [{"stored_share": 1.0, "steps": 0, **figures_of(means), "power_of_others": 0.0}]
    for share, steps in SETTINGS:
        masking.config = replace(config, stored_share=share, steps=steps)
        generator = torch.Generator().manual_seed(options.seed)
        with torch.no_grad():
            reader = protector.reader
            stored = [masking.stored(part, reader, generator) for part in parts]
            gallery = torch.cat([reader.read(reader.unmask(part)) for part in stored])
            shares = masking.draw_stored(images, generator).shares
        power = (shares[:, 1:].square().sum(1) / shares[:, 0].square()).mean()
        found = {**figures_of(gallery), "power_of_others": round(float(power), 2)}
        rows.append({"stored_share": share, "steps": steps, **found})
        print(rows[-1], flush=True)
    figures = {
        "recipe": recipe.name,
        "people": people.name,
        "sha256": people.sha256,
        "faces": len(images),
        "protector": protector.sha256,
        "seed": options.seed,
        "without_mixing": {"accuracy": round(alone[0], 4), "accepted": round(alone[1], 4)},
        "settings": rows,
    }
    keep(figures, options.output)


if __name__ == "__main__":
    main()
