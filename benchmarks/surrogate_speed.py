"""What a surrogate costs: a forward and a backward pass to the crop, as a ratio to dlib's network in the same run.

    python benchmarks/surrogate_speed.py --sets dlib_resnet,chip_resnet,mobilefacenet foamliu_mobilefacenet,espdl_mfn

Batches of 8 crops on one thread; the networks take turns, so that a busy machine slows all alike, and the median of the
rounds counts. Writes ``surrogate-speed.json`` into --output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from bauta.benchmark.engine.cards import code, machine
from bauta.recognizers import find_card, list_recognizers, load_surrogate
from bauta.recognizers.cards import ROLES
from bauta.recognizers.surrogates import Surrogate

YARDSTICK = "dlib_resnet"
BATCH = 8


def passes(network: Surrogate) -> float:
    """Seconds of a forward and a backward pass."""
    template = network.card.template
    crops = torch.rand(BATCH, 3, template.height, template.width).requires_grad_()
    began = time.perf_counter()
    torch.autograd.grad(network(crops).sum(), crops)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recognizers", nargs="*", help="by default all with a surrogate's role that are here")
    parser.add_argument("--sets", nargs="*", default=[], help="ensembles, names separated by commas")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    here = [card.name for card in list_recognizers() if card.weights.is_file() and "surrogate" in card.roles]
    names = dict.fromkeys([YARDSTICK, *(options.recognizers or here), *",".join(options.sets).split(",")])
    networks = {name: load_surrogate(replace(find_card(name), roles=ROLES)) for name in names if name}
    rounds = [{name: passes(network) for name, network in networks.items()} for _ in range(options.rounds + 1)][1:]
    median = {name: statistics.median(taken[name] for taken in rounds) for name in networks}
    ratio = {name: round(seconds / median[YARDSTICK], 3) for name, seconds in median.items()}
    sets = {team: round(sum(ratio[name] for name in team.split(",")), 3) for team in options.sets}
    result = {
        "schema": "bauta.benchmark/1",
        "name": "surrogate-speed",
        "command": f"python benchmarks/surrogate_speed.py --sets {' '.join(options.sets)}",
        "code": code(),
        "machine": machine(),
        "rounds": options.rounds,
        "forward_backward_over_dlib": ratio,
        "sets": sets,
        "sha256": {name: network.card.sha256 for name, network in networks.items()},
    }
    print(json.dumps(result, indent=1))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "surrogate-speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
