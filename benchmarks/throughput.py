"""What the benchmark costs beside the networks, as ratios within one run.

    python benchmarks/throughput.py --data DATA --recognizer edgeface_xxs --output benchmarks/results

Embedding and scoring the 7,701 images and 6,000 pairs of LFW over the bare forward passes of the same crops, which lie
ready in memory; both in turns, batch by batch, so that a busy machine slows both alike. Then the search of 100,000
faces for the best five of 500 probes, exactly, over the bare matrix product; the embeddings are random.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bauta.benchmark.embeddings import cosines
from bauta.benchmark.engine import cards
from bauta.benchmark.identification import search
from bauta.benchmark.recognition import embed_aligned, read_set
from bauta.recognizers import find_card, load_judge
from bauta.recognizers.cards import ROLES

GALLERY, PROBES, BEST, DIMENSION = 100_000, 500, 5, 512
ROUNDS = 5
PART = 320  # images between turns


def embedding(data: Path, name: str) -> dict[str, float | int | str]:
    judge = load_judge(replace(find_card(name), roles=ROLES))
    pairs = read_set(data, "lfw")
    whole = bare = 0.0
    template = judge.card.template
    crops = np.random.default_rng(0).random((32, 3, template.height, template.width), dtype=np.float32)
    parts = []
    for start in range(0, len(pairs.images), PART):
        part = pairs.images[start : start + PART]
        began = time.perf_counter()
        parts.append(embed_aligned(judge, part).values)
        whole += time.perf_counter() - began
        began = time.perf_counter()
        for place in range(0, len(part), 32):
            judge.embed(crops[: len(part) - place])
        bare += time.perf_counter() - began
    known = np.concatenate(parts)
    began = time.perf_counter()
    cosines(known[pairs.first], known[pairs.second])
    whole += time.perf_counter() - began
    return {
        "recognizer": name,
        "images": len(pairs.images),
        "pairs": len(pairs.same),
        "seconds": round(whole, 1),
        "bare_seconds": round(bare, 1),
        "over_bare_forward_passes": round(whole / bare, 3),
    }


def searching() -> dict[str, float | int | str]:
    random = np.random.default_rng(0)

    def unit(count: int) -> np.ndarray:
        values = random.standard_normal((count, DIMENSION), dtype=np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    gallery, probes = unit(GALLERY), unit(PROBES)
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        began = time.perf_counter()
        search(probes, gallery, BEST)
        taken[0].append(time.perf_counter() - began)
        began = time.perf_counter()
        probes @ gallery.T
        taken[1].append(time.perf_counter() - began)
    whole, bare = (statistics.median(values) for values in taken)
    return {
        "gallery": GALLERY,
        "probes": PROBES,
        "dimension": DIMENSION,
        "seconds": round(whole, 3),
        "milliseconds_per_probe": round(1000 * whole / PROBES, 3),
        "bare_seconds": round(bare, 3),
        "over_bare_product": round(whole / bare, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="with lfw_112; without it only the search is measured")
    parser.add_argument("--recognizer", default="dlib_resnet")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    figures = {"search": searching()}
    if options.data is not None:
        figures["embedding"] = embedding(options.data, options.recognizer)
    for name, results in figures.items():
        card = {"schema": "bauta.speed/1", "name": name, "results": results}
        text = json.dumps({**card, "code": cards.code(), "machine": cards.machine()}, indent=1) + "\n"
        print(text, end="")
        if options.output:
            (options.output / f"throughput-{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
