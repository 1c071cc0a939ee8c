"""Verification accuracy and speed of recognisers: LFW in ten folds, CFP frontal against frontal and against profile.

    python benchmarks/recognizers.py DATA --recognizers NAME NAME ... --output benchmarks/results

Accuracy is that of `bauta bench recognizers`. Speed is a forward and a backward pass to the crop, per crop in
batches of 8, of the recogniser as a surrogate, as a ratio to dlib's in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bauta.benchmark.accuracy import PROTOCOLS, measure, read_set
from bauta.errors import BautaError
from bauta.recognizers import find_card, load_judge, load_surrogate
from bauta.recognizers.cards import ROLES

YARDSTICK = "dlib_resnet"


def accuracy(name: str, data: Path, protocol: str) -> tuple[str, dict[str, float]]:
    pairs = read_set(data, protocol)
    found = measure(load_judge(replace(find_card(name), roles=ROLES)), pairs)
    return "lfw" if protocol == "lfw" else pairs.name, {
        "accuracy": found["accuracy"]["mean"],
        "low": found["accuracy"]["low"],
        "high": found["accuracy"]["high"],
        "tar_at_fmr_1e-3": found["tar"]["mean"],
        "pairs": found["pairs"],
    }


def seconds(name: str, rounds: int = 5) -> float:
    """Median seconds per crop, forward and backward."""
    network = load_surrogate(replace(find_card(name), roles=ROLES))
    template = network.card.template
    crops = torch.rand(8, 3, template.height, template.width).requires_grad_()
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        torch.autograd.grad(network(crops).sum(), crops)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:]) / len(crops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recognizers", nargs="+", required=True)
    parser.add_argument("--protocols", nargs="+", default=PROTOCOLS, choices=PROTOCOLS)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    yardstick = seconds(YARDSTICK)
    for name in options.recognizers:
        card = find_card(name)
        figures: dict[str, Any] = {}
        figures.update(accuracy(name, options.data, protocol) for protocol in options.protocols)
        try:
            figures["forward_backward_over_dlib"] = round(seconds(name) / yardstick, 3)
        except BautaError as error:
            figures["forward_backward_over_dlib"] = str(error)
        result = {
            "schema": "bauta.benchmark/1",
            "name": f"recognizer/{name}",
            "sha256": card.sha256,
            "architecture": card.architecture,
            "command": f"python benchmarks/recognizers.py DATA --recognizers {name}",
            "results": figures,
        }
        print(json.dumps(result, indent=1), flush=True)
        if options.output:
            path = options.output / f"recognizer-{name}.json"
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
