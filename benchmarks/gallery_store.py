"""The gallery's store: enrolments and erasures one by one, enrolments in bulk, a cold start, exact search.

    python benchmarks/gallery_store.py --output benchmarks/results --people 1000000

Rows are random templates of 512 float32. Seconds are of the clock, and of the processor (`cpu`), which a busy machine
does not stretch; `commit_ms` is what one commit of SQLite alone takes on this disk, FULL, and bounds enrolments.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from bauta.benchmark.engine import cards
from bauta.gallery import opening
from bauta.gallery.index import Index
from bauta.gallery.makers import Maker
from bauta.gallery.store import Store
from bauta.keys import DeploymentKey

DIMENSION = 512
MAKER = Maker("random", "a" * 64, "identity-feature", "b" * 64)
PART = 1000


def timed(work: Callable[[], Any]) -> dict[str, float]:
    began, spent = time.perf_counter(), processor()
    work()
    return {"seconds": time.perf_counter() - began, "cpu": processor() - spent}


def processor() -> float:
    """Seconds of this process, and of those that it started and that ended."""
    return time.process_time() + sum(os.times()[2:4])


def templates(count: int, seed: int) -> Any:
    values = np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def commit_ms(folder: Path, count: int = 50) -> float:
    connection = sqlite3.connect(folder / "probe.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (x BLOB)")
    took = timed(lambda: [connection.execute("INSERT INTO t VALUES (?)", (bytes(2100),)) for _ in range(count)])
    connection.close()
    return 1000 * took["seconds"] / count


def one_by_one(folder: Path, key: DeploymentKey, count: int, *, durable: bool) -> dict[str, float]:
    folder.mkdir()
    store = Store.create(folder / "gallery.db", folder / "keys.db", key, MAKER, durable=durable)
    rows = [row.tobytes() for row in templates(count, 0)]

    def enrol() -> None:
        for number, row in enumerate(rows):
            with store.writing() as writer:
                writer.enrol("main", f"person {number}", [row])
                writer.audit("bench", "main", "enrol")

    took = timed(enrol)

    def erase() -> None:
        for number in range(20):
            with store.writing() as writer:
                writer.erase("main", f"person {number}")
            assert store.finish()

    erased = timed(erase)
    store.close()
    return {
        "a_second": count / took["seconds"],
        "cpu_ms_each": 1000 * took["cpu"] / count,
        "erase_ms": 1000 * erased["seconds"] / 20,
    }


def bulk(folder: Path, key: DeploymentKey, people: int) -> dict[str, float]:
    folder.mkdir()
    store = Store.create(folder / "gallery.db", folder / "keys.db", key, MAKER)

    def enrol(named: list[tuple[str, list[bytes]]]) -> None:
        with store.writing() as writer:
            writer.enrol_many("main", named)

    parts = []
    for start in range(0, people, PART):
        rows = templates(min(PART, people - start), start)
        named = [(f"person {start + number}", [row.tobytes()]) for number, row in enumerate(rows)]
        parts.append(timed(lambda named=named: enrol(named)))
    filled = {name: sum(part[name] for part in parts) for name in ("seconds", "cpu")}
    store.close()
    index = Index(DIMENSION)

    def load() -> None:
        opened = Store.open(folder / "gallery.db", folder / "keys.db", key)
        for batch in opening.opened(opened):
            rows = np.frombuffer(b"".join(one.row for one in batch), "<f4").reshape(len(batch), DIMENSION)
            index.add("main", [one.id for one in batch], [one.uid for one in batch], rows)
        opened.close()

    loaded = timed(load)
    assert len(index) == people
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "people": people,
        "enrolled_a_second": people / filled["seconds"],
        "enrol_cpu_us_each": 1e6 * filled["cpu"] / people,
        "cold_start_seconds": loaded["seconds"],
        "cold_start_cpu": loaded["cpu"],
        "bytes_each": size / people,
        "peak_bytes": peak,
        **searches(people),
    }


def searches(people: int) -> dict[str, float]:
    """Of random templates in memory alone, exact and sifted in 8 bits: half the probes are of somebody."""
    exact, sifted = Index(DIMENSION), Index(DIMENSION, "faiss")
    for start in range(0, people, PART):
        rows = templates(min(PART, people - start), start)
        ids = [(start + number).to_bytes(16, "big") for number in range(len(rows))]
        for index in (exact, sifted):
            index.add("main", ids, ids, rows)
    probes = templates(64, 10**9)
    probes[:32] = 0.8 * probes[:32] + templates(PART, 0)[:32]
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    found: dict[str, float] = {}
    hits: list[list[Any]] = []
    for name, index in (("search", exact), ("faiss", sifted)):
        index.search("main", probes[0])
        hits.append([index.search("main", probe) for probe in probes])
        took = [timed(partial(index.search, "main", probe)) for probe in probes]
        found[f"{name}_ms"] = 1000 * float(np.median([one["seconds"] for one in took]))
        found[f"{name}_cpu_ms"] = 1000 * float(np.median([one["cpu"] for one in took]))
    pairs = list(zip(*hits, strict=True))
    found["faiss_same"] = float(np.mean([one.uid == other.uid for one, other in pairs]))
    found["faiss_difference"] = max(abs(one.cosine - other.cosine) for one, other in pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--people", type=int, nargs="+", default=[100_000])
    parser.add_argument("--one-by-one", type=int, default=500)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    key, code = DeploymentKey.generate(), cards.code()  # now: the tree may change while it runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            "commit_ms": commit_ms(folder),
            "full": one_by_one(folder / "full", key, options.one_by_one, durable=True),
            "normal": one_by_one(folder / "normal", key, options.one_by_one, durable=False),
            "bulk": [bulk(folder / f"bulk {people}", key, people) for people in options.people],
        }
    results = json.loads(json.dumps(results), parse_float=lambda text: float(f"{float(text):.4g}"))
    card = {"schema": "bauta.speed/1", "name": "gallery-store", "results": results}
    text = json.dumps({**card, "code": code, "machine": cards.machine()}, indent=1) + "\n"
    (options.output / "gallery-store.json").write_text(text, encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
