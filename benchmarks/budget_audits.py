"""What attacks show every mechanism to spend, with enough releases to come near its claim.

    python benchmarks/budget_audits.py -o FILE.json [--releases 40000]

Cards of `bauta bench budgets` audit what recognises, from 4,000 releases. Claims that many more can come near are
small: here they are, on random faces, since noise does not depend on what it is added to.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch

from bauta.benchmark.budgets.audits import audited
from bauta.benchmark.engine.cards import code
from bauta.privacy.mechanisms import Direction, Mechanism, Projections, cells, cosines, eigenfaces
from bauta.privacy.slices import BitPlanes, SlicedProjections
from bauta.templates.released.base import seeded_words

FACES = np.random.default_rng(0).normal(size=(60, 48))
GREY = FACES[:, :16]


def mechanisms() -> dict[str, Mechanism]:
    """By the name of the protector that uses them; what follows is how many values at which epsilon."""
    found: dict[str, Mechanism] = {}
    for count, epsilon in ((1, 0.5), (1, 1.0), (1, 4.0), (1, 8.0), (3, 1.0), (8, 1.0)):
        found[f"peep, {count} at {epsilon:g}"] = Projections(eigenfaces(FACES, count), epsilon)
    found["dct-laplace, 3 at 1"] = Projections(cosines(GREY, 3), 1.0)
    found["dp-pixels, 3 at 1"] = Projections(cells(FACES, 1), 1.0)
    for count, epsilon in ((1, 1.0), (1, 4.0), (1, 8.0), (3, 1.0)):
        found[f"sliced-frequencies, {count} at {epsilon:g}"] = SlicedProjections(cosines(GREY, count), epsilon)
    for epsilon in (1.0, 2.0):
        found[f"flipped-bits, 3 at {epsilon:g}"] = BitPlanes(1, epsilon)
    for size, epsilon in ((2, 2.0), (8, 4.0), (512, 16.0), (512, 64.0)):
        found[f"turned-template, {size} numbers at {epsilon:g}"] = Direction(size, epsilon)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--releases", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.process_time()
    words = seeded_words(torch.Generator().manual_seed(options.seed))
    rows = []
    for name, mechanism in mechanisms().items():
        value, photo = audited(mechanism, words, options.releases, options.releases)
        rows.append({"mechanism": name, "value": value, "photo": photo})
        print(name, value, photo, flush=True)
    card = {
        "schema": "bauta.budget-audits/1",
        "code": code(),
        "command": shlex.join(["python", *sys.argv]),
        "seed": options.seed,
        "releases": options.releases,
        "confidence": 0.99,
        "rows": rows,
        "seconds": round(time.process_time() - began, 1),
    }
    options.output.write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
