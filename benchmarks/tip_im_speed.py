"""Where TIP-IM's time goes: ratios taken in one run, since timings on shared machines drift.

    python benchmarks/tip_im_speed.py --surrogates NAME NAME ... --output benchmarks/results

1. The default iteration against the bare forward and backward passes of the same ensemble on crops that are ready.
2. K = 10 targets by one forward pass and batched vector-Jacobian products, against the literal loop with K separate
   forward and backward passes (`reference_tip_im.py`), over whole runs on several faces: once trying every target at
   every iteration (`exact`), and once with the pruning of targets that only luck would choose (`pruned`).
3. The largest difference between the masks of the exact run and the literal loop, in double precision. In single
   precision rounding flips rectifiers, and the literal loop differs from itself as much when its input moves by 1e-6;
   both are reported. A pruned run makes other choices and so another mask; the gain (equation 7) that it reaches
   beside the literal loop's is reported.
4. The time of `bauta --help`, and the peak memory.

The two sides of a ratio are timed alternately; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bauta.cloaks.base import Work
from bauta.cloaks.targets import composite_faces
from bauta.cloaks.tip_im import TipIm
from bauta.cloaks.tip_im_settings import TipImConfig
from bauta.cloaks.view import FaceView
from bauta.faces.crop_template import ARCFACE_112
from bauta.recognizers import load_surrogate
from bauta.recognizers.ensemble import Ensemble
from reference_tip_im import reference_tip_im


def alternate(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of two actions, run in turn after one warm-up of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds + 1):
        for action, taken in zip((first, second), times, strict=True):
            began = time.perf_counter()
            action()
            if index:
                taken.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surrogates", nargs="+", default=["dlib_resnet"])
    parser.add_argument("--faces", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=6, help="faces of part 2")
    parser.add_argument("--steps", type=int, default=50, help="iterations of part 2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    networks = [load_surrogate(name) for name in options.surrogates]
    faces = composite_faces()
    points = torch.tensor(ARCFACE_112.points, dtype=torch.float64)
    views = [FaceView(face, points.float(), torch.ones(1, 112, 112)) for face in faces[: options.faces]]

    crops = [
        torch.rand(len(views), 3, network.card.template.height, network.card.template.width).requires_grad_()
        for network in networks
    ]

    def bare() -> None:
        for network, crop in zip(networks, crops, strict=True):
            torch.autograd.grad(network(crop).sum(), crop)

    iterations = 10

    def default() -> None:
        TipIm(TipImConfig(iterations=iterations)).edit(views, Work.seeded(0, Ensemble(networks)))

    def setup() -> None:  # what a run costs before its first iteration
        with torch.no_grad():
            for network, crop in zip(networks, crops, strict=True):
                network(crop)

    whole, single = alternate(default, bare, options.rounds)
    before, _ = alternate(setup, setup, options.rounds)
    iteration = (whole - before) / iterations

    network = networks[0]
    targets = faces[:10]

    def ours(
        face: torch.Tensor, steps: int, precision: torch.dtype = torch.float32, pruning: float | None = None
    ) -> torch.Tensor:
        view = FaceView(face.to(precision), points.to(precision), torch.ones(1, 112, 112, dtype=precision))
        config = TipImConfig.official_code(iterations=steps, pruning=pruning)
        cloak = TipIm(config, targets=targets.to(precision))
        return cloak.edit([view], Work.seeded(0, Ensemble([network])))[0].delta

    def literal(
        face: torch.Tensor, steps: int, precision: torch.dtype = torch.float32, shift: float = 0.0
    ) -> torch.Tensor:
        image, wanted = (face + shift).to(precision), targets.to(precision)
        generator = torch.Generator().manual_seed(0)
        return reference_tip_im(image, wanted, network, generator, iterations=steps, norm="l2")

    def gain(face: torch.Tensor, delta: torch.Tensor) -> float:
        with torch.no_grad():
            clean, masked, wanted = network(face[None]), network((face + delta)[None]), network(targets)
        terms = (masked - clean).norm() - (masked - wanted).norm(dim=1)
        return float(terms.exp().max().log1p())

    ways = {
        "literal": lambda face: literal(face, options.steps),
        "exact": lambda face: ours(face, options.steps),
        "pruned": lambda face: ours(face, options.steps, pruning=TipImConfig().pruning),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    gains: dict[str, list[float]] = {name: [] for name in ways}
    for face in faces[10 : 10 + options.runs]:
        for name, way in ways.items():  # in turn, so that the drift of the machine meets all three
            began = time.perf_counter()
            delta = way(face)
            seconds[name].append(time.perf_counter() - began)
            gains[name].append(gain(face, delta))
    face = faces[10]
    single_precision = float((ours(face, 5) - literal(face, 5)).abs().max())
    sensitivity = float((literal(face, 5, shift=1e-6) - literal(face, 5)).abs().max())
    network.double()
    difference = float((ours(face, 5, torch.float64) - literal(face, 5, torch.float64)).abs().max())
    command = [sys.executable, "-m", "bauta", "--help"]
    help_times = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        help_times.append(time.perf_counter() - began)
    card = {
        "schema": "bauta.benchmark/1",
        "name": "tip-im-speed",
        "surrogates": {network.card.name: network.card.sha256 for network in networks},
        "threads": options.threads,
        "faces": len(views),
        "iteration_over_bare_ensemble": round(iteration / single, 3),
        "seconds_per_iteration_and_face": round(iteration / len(views), 4),
        "literal_over_exact_at_10_targets": round(sum(seconds["literal"]) / sum(seconds["exact"]), 2),
        "literal_over_pruned_at_10_targets": round(sum(seconds["literal"]) / sum(seconds["pruned"]), 2),
        "gain_reached": {name: round(statistics.mean(values), 4) for name, values in gains.items()},
        "faces_of_the_literal_loop": options.runs,
        "iterations_of_the_literal_loop": options.steps,
        "largest_difference": float(f"{difference:.2g}"),
        "largest_difference_single_precision": float(f"{single_precision:.2g}"),
        "literal_against_itself_moved_by_1e-6": float(f"{sensitivity:.2g}"),
        "help_seconds": round(statistics.median(help_times), 3),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {"torch": torch.__version__},
    }
    print(json.dumps(card, indent=1))
    if options.output:
        (options.output / "tip-im-speed.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
