"""Encrypted matching at 1 k to 1 M people: exactness, seconds, traffic, rounds and memory, beside plain search.

    python benchmarks/encrypted_matching.py --output benchmarks/results 1000 10000 100000 1000000

Templates are random, of 512 values; one process, one thread, the door, server and dealer in turns, no network. Seconds
are of the clock, and of the processor (`cpu_`), which a busy machine does not stretch.
"""

from __future__ import annotations

import argparse
import json
import resource
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bauta.benchmark.engine import cards
from bauta.encrypted.comparison import Side, opened, plan, run_both, server_values
from bauta.encrypted.encoded import PlainGallery
from bauta.encrypted.keys import generate_keys
from bauta.encrypted.packing import Layout, choose_split
from bauta.encrypted.parameters import PLAIN
from bauta.encrypted.quantisation import quantise
from bauta.encrypted.triples import DoorTapes, ServerTapes

DIMENSION, THRESHOLD, TOGETHER, PART = 512, round(0.4 * 512**2), 8, 65536


def unit(count: int, seed: int) -> Any:
    values = np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


class Clock:
    """Adds up what steps take."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    def __call__(self, name: str, step: Callable[[], Any]) -> Any:
        began, spent = time.perf_counter(), time.process_time()
        made = step()
        for key, value in ((name, time.perf_counter() - began), (f"cpu_{name}", time.process_time() - spent)):
            self.taken[key] = round(self.taken.get(key, 0) + value, 3)
        return made


def measure(people: int) -> dict[str, Any]:
    door, server, dealer = generate_keys()
    layout, clock = Layout(DIMENSION, choose_split(people, DIMENSION)), Clock()
    gallery = PlainGallery(layout)
    door.secret.encrypt(layout.probe(np.zeros(DIMENSION, np.int16)))  # opens the key
    for part, start in enumerate(range(0, people, PART)):
        templates = quantise(unit(min(PART, people - start), part))
        clock("encode", lambda templates=templates: gallery.add(templates))
    probes = quantise(unit(TOGETHER, 10**6))
    probes[0] = quantise(unit(min(PART, people), 0)[people // 2 % PART : people // 2 % PART + 1])[0]
    wanted = np.concatenate(
        [
            probes.astype(np.float32) @ quantise(unit(min(PART, people - start), part)).T.astype(np.float32)
            for part, start in enumerate(range(0, people, PART))
        ],
        axis=1,
    ).astype(np.int64)
    sealed = clock("encrypt", lambda: np.stack([door.secret.encrypt(layout.probe(probes[0]))]))
    answers = clock("answer", lambda: list(gallery.answer(sealed, server.public)))
    decrypt = door.secret.decrypt

    def shares() -> Any:
        return np.concatenate(
            [
                decrypt(
                    a.first[0].transpose(1, 2, 0), np.ascontiguousarray(a.second[0].transpose(1, 2, 0)), layout.width
                ).T.reshape(-1)
                for a in answers
            ]
        )[None]

    ours = clock("decrypt", shares)
    theirs = np.concatenate([a.share for a in answers], axis=1)
    got = ((ours.astype(np.int64) - theirs + PLAIN // 2) % PLAIN - PLAIN // 2)[:, :people]
    sizes, session = plan(gallery.places, 1, "identify"), secrets.token_bytes(32)

    def compare() -> Any:
        one, other, _ = run_both(
            Side(DoorTapes(dealer.tapes).tape(session, sizes), door=True).decide(ours, "identify"),
            Side(ServerTapes(dealer.tapes).tape(session, sizes), door=False).decide(
                server_values(theirs, THRESHOLD), "identify"
            ),
        )
        return opened(one, other.tobytes())[0]

    found = clock("compare", compare)
    first = np.flatnonzero(wanted[0] >= THRESHOLD)
    answers.clear()
    eight = np.stack([door.secret.encrypt(layout.probe(one)) for one in probes])

    def together() -> int:
        return sum(a.first.shape[1] for a in gallery.answer(eight, server.public))

    clock("answer_eight", together)
    memory = gallery.memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    changed = Clock()
    changed("erase", lambda: gallery.erase(3))
    changed("add", lambda: gallery.add(probes[1:2]))
    online = sum(clock.taken[name] for name in ("encrypt", "answer", "decrypt", "compare"))
    return {
        "people": people,
        "split": layout.split,
        "wrong_by_one": int((np.abs(got - wanted[:1]) == 1).sum()),
        "wrong_by_more": int((np.abs(got - wanted[:1]) > 1).sum()),
        "decision_is_plain_one": bool(found == (int(first[0]) if len(first) else None)),
        "seconds": clock.taken | changed.taken,
        "seconds_a_decision": round(online, 3),
        "cpu_seconds_a_decision": round(
            sum(clock.taken[f"cpu_{name}"] for name in ("encrypt", "answer", "decrypt", "compare")), 3
        ),
        "encode_us_each": round(clock.taken["cpu_encode"] / people * 1e6, 1),
        "up_bytes": layout.upload(),
        "down_bytes": layout.download(gallery.places),
        "comparison_bytes": 2 * sum(sizes),
        "tape_bytes": sum(sizes),
        "rounds": len(sizes),
        "gallery_bytes": memory,
        "peak_bytes": peak,
        "plain": plain_search(people),
    }


def plain_search(people: int) -> dict[str, float]:
    """One probe, the best five, in the clear: numpy in float32, and faiss in 8 bits where it is installed."""
    gallery = np.concatenate([unit(min(PART, people - s), p) for p, s in enumerate(range(0, people, PART))])
    probe, taken = unit(1, 10**6), {}

    def best(step: Callable[[], Any]) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        return round(min(times), 4)

    taken["numpy"] = best(lambda: np.argpartition(gallery @ probe[0], -5)[-5:])
    try:
        import faiss
    except ModuleNotFoundError:
        return taken
    faiss.omp_set_num_threads(1)
    index = faiss.IndexScalarQuantizer(
        DIMENSION, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
    )
    for start in range(0, people, PART):
        index.add(np.rint(gallery[start : start + PART] * 512).clip(-128, 127))
    taken["faiss_8_bits"] = best(lambda: index.search(np.rint(probe * 512).clip(-128, 127), 5))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=int, nargs="+")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    for people in options.people:
        rows.append(measure(people))
        print(json.dumps(rows[-1]), flush=True)
    card = {"schema": "bauta.speed/1", "name": "encrypted-matching", "results": {"rows": rows}}
    text = json.dumps({**card, "code": cards.code(), "machine": cards.machine()}, indent=1) + "\n"
    if options.output:
        (options.output / "encrypted-matching.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
