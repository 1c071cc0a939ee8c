"""Verification accuracy and speed of recognisers: LFW in ten folds, CFP frontal against frontal and against profile.

    python benchmarks/recognizers.py DATA --recognizers NAME NAME ... --output benchmarks/results

DATA holds ``lfw_112`` (images, pairs.txt) and ``cfp_112`` (images, Protocol): faces of 112 pixels aligned to ArcFace's
template. Embeddings are those of one image, without its mirror image, by the recogniser as a judge runs it.
Accuracy has a 95 % interval of 1.96 standard errors over folds. Speed is a forward and a backward pass to the crop, per
crop in batches of 8, of the recogniser as a surrogate, as a ratio to dlib's in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from bauta import metrics
from bauta.errors import BautaError
from bauta.faces.alignment import extract_crops
from bauta.faces.templates import ARCFACE_112
from bauta.recognizers import find_card, load_judge, load_surrogate
from bauta.recognizers.cards import ROLES

Pair = tuple[Path, Path, bool, int]
YARDSTICK = "dlib_resnet"


def lfw(data: Path) -> Iterator[Pair]:
    lines = (data / "lfw_112" / "pairs.txt").read_text(encoding="utf-8").splitlines()
    folds, each = (int(number) for number in lines[0].split())

    def image(person: str, number: str) -> Path:
        return data / "lfw_112" / "images" / person / f"{person}_{int(number):04d}.webp"

    for place, line in enumerate(lines[1:]):
        words = line.split("\t")
        same = len(words) == 3
        first, second = (words[0], words[1]), (words[0], words[2]) if same else (words[2], words[3])
        yield image(*first), image(*second), same, place // (2 * each)
    assert place + 1 == 2 * folds * each


def cfp(data: Path, protocol: str) -> Iterator[Pair]:
    root = data / "cfp_112"

    def listed(letter: str) -> dict[int, Path]:
        lines = (root / "Protocol" / f"Pair_list_{letter}.txt").read_text(encoding="utf-8").split("\n")
        found = {}
        for line in filter(None, lines):
            number, path = line.split()
            found[int(number)] = (root / "images" / Path(path).relative_to("../Data/Images")).with_suffix(".webp")
        return found

    sides = [listed(letter) for letter in (protocol[0], protocol[1])]
    for fold in range(1, 11):
        for name, same in (("same", True), ("diff", False)):
            text = (root / "Protocol" / "Split" / protocol / f"{fold:02d}" / f"{name}.txt").read_text(encoding="utf-8")
            for line in text.split():
                first, second = (int(number) for number in line.split(","))
                yield sides[0][first], sides[1][second], same, fold


def embed(name: str, paths: list[Path]) -> dict[Path, np.ndarray]:
    judge = load_judge(replace(find_card(name), roles=ROLES))
    landmarks = np.array([ARCFACE_112.points], dtype=np.float32)
    found: dict[Path, np.ndarray] = {}
    for start in range(0, len(paths), 32):
        part = paths[start : start + 32]
        images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.float32) / 255 for path in part]
        crops = np.concatenate([extract_crops(image, landmarks, judge.card.template) for image in images])
        found.update(zip(part, judge.embed(crops), strict=True))
    return found


def accuracy(name: str, pairs: list[Pair]) -> dict[str, float]:
    known = embed(name, sorted({path for pair in pairs for path in pair[:2]}))
    scores = np.array([known[first] @ known[second] for first, second, _, _ in pairs])
    same, folds = np.array([pair[2] for pair in pairs]), np.array([pair[3] for pair in pairs])
    mean, error = metrics.cross_validated_accuracy(scores, same, folds)
    limit = metrics.threshold_at_fmr(scores[~same], 1e-3)
    return {
        "accuracy": round(mean, 5),
        "low": round(mean - 1.96 * error, 5),
        "high": round(mean + 1.96 * error, 5),
        "tar_at_fmr_1e-3": round(float((scores[same] >= limit).mean()), 5),
        "pairs": len(pairs),
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
            pairs = list(lfw(options.data) if protocol == "lfw" else cfp(options.data, protocol))
            figures["lfw" if protocol == "lfw" else f"cfp-{protocol.lower()}"] = accuracy(name, pairs)
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
