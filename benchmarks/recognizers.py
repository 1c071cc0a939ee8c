"""Verification accuracy and speed of recognisers: LFW in ten folds, CFP frontal against frontal and against profile.

    python benchmarks/recognizers.py DATA --recognizers NAME NAME ... --output benchmarks/results

DATA holds ``lfw_112`` (images, pairs.txt) and ``cfp_112`` (images, Protocol): faces of 112 pixels aligned to ArcFace's
template. Embeddings are those of one image, without its mirror image, by the recogniser as a judge runs it.
Accuracy has a 95 % interval that resamples people. The threshold at FMR 1e-3 comes from all pairs of images of
different people, for FP of a frontal and a profile one: the listed impostors are too few for that rate. Speed is a
forward and a backward pass to the crop, per crop in batches of 8, of the recogniser as a surrogate, as a ratio to
dlib's in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bauta.benchmark import protocols
from bauta.benchmark.datasets import PairSet, read_cfp, read_lfw
from bauta.benchmark.images import FaceImage
from bauta.errors import BautaError
from bauta.faces.alignment import extract_crops
from bauta.faces.templates import ARCFACE_112
from bauta.recognizers import find_card, load_judge, load_surrogate
from bauta.recognizers.cards import ROLES

YARDSTICK = "dlib_resnet"


def read(data: Path, protocol: str) -> PairSet:
    return read_lfw(data / "lfw_112") if protocol == "lfw" else read_cfp(data / "cfp_112", protocol)


def embed(name: str, images: Sequence[FaceImage]) -> np.ndarray:
    judge = load_judge(replace(find_card(name), roles=ROLES))
    landmarks = np.array([ARCFACE_112.points], dtype=np.float32)
    parts = []
    for start in range(0, len(images), 32):
        pixels = [image.pixels().astype(np.float32) / 255 for image in images[start : start + 32]]
        crops = [extract_crops(image, landmarks, judge.card.template) for image in pixels]
        parts.append(judge.embed(np.concatenate(crops)))
    return np.concatenate(parts)


def accuracy(name: str, pairs: PairSet) -> dict[str, float]:
    known = embed(name, pairs.images)
    points = protocols.operating_points(known, pairs.subjects, first=pairs.first, second=pairs.second, fmrs=[1e-3])
    scores = protocols.cosines(known[pairs.first], known[pairs.second])
    found = protocols.verification(scores, pairs.same, pairs.fold, pairs.pair_subjects, points=points)
    return {
        "accuracy": round(found.accuracy.mean, 5),
        "low": round(found.accuracy.low, 5),
        "high": round(found.accuracy.high, 5),
        "tar_at_fmr_1e-3": round(found.rates[0].rate.mean, 5),
        "pairs": len(scores),
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
    parser.add_argument("--protocols", nargs="+", default=["lfw", "FF", "FP"], choices=["lfw", "FF", "FP"])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    yardstick = seconds(YARDSTICK)
    for name in options.recognizers:
        card = find_card(name)
        figures: dict[str, Any] = {}
        for protocol in options.protocols:
            pairs = read(options.data, protocol)
            figures["lfw" if protocol == "lfw" else pairs.name] = accuracy(name, pairs)
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
