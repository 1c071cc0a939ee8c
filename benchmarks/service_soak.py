"""The service under mixed requests for a while: what it answers, processor time of a request, growth of its memory.

    python benchmarks/service_soak.py --output benchmarks/results --minutes 10

The recogniser is a toy, so that what is measured is the service. Requests come over the loopback: first as fast as one
client sends them, for ten seconds, then at half that rate. Memory is the resident set of the service, after a tenth of
the time and at the end.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from bauta.benchmark.engine import cards
from bauta.gallery.service import FaceService, maker_of
from bauta.gallery.store import Store
from bauta.keys import DeploymentKey
from bauta.registry import load_method
from bauta.server.access import SCOPES, ServerLimits, make_key
from bauta.server.serve import listen, serve
from bauta.templates.fit import FitWork
from bauta.testing import toy_surrogate

PEOPLE = 200
ACTIONS = {"match": 45, "search": 15, "read": 15, "enrol": 8, "revoke": 5, "restore": 5, "renew": 4, "erase": 3}
PNG = {"Content-Type": "image/png"}


def photo(person: int) -> bytes:
    coarse = np.random.default_rng(person).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8))).save(stream, "PNG")
    return stream.getvalue()


def child(folder: Path) -> None:
    """The service, until it is told to end."""
    torch.set_num_threads(1)
    faces = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(9))
    method = load_method("identity-feature")
    protector = method.fit_with(faces, {}, FitWork(toy_surrogate(), 0))
    store = Store.create(folder / "gallery.db", folder / "keys.db", DeploymentKey.generate(), maker_of(protector))
    service = FaceService(store, protector, threshold=0.97, aligned=True)
    service.load()
    listening = listen("127.0.0.1", 0, secure=False)
    print(listening.getsockname()[1], make_key(store, "soak", SCOPES).secret, flush=True)
    serve(service, listening, ServerLimits(requests=10**9, comparisons=10**9))


class Load:
    """Requests at random, and what came of them."""

    def __init__(self, address: str, key: str) -> None:
        self.http = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=120)
        self.chance = random.Random(1)  # noqa: S311
        self.photos = [photo(person) for person in range(PEOPLE)]
        self.statuses: Counter[int] = Counter()
        self.wrong = 0
        self.enrolled: set[int] = set()
        self.revoked: set[int] = set()

    def one(self) -> None:
        chance = self.chance
        person = chance.randrange(PEOPLE)
        [action] = chance.choices([*ACTIONS], [*ACTIONS.values()])
        at, body = f"/v1/subjects/person-{person}", {"content": self.photos[person], "headers": PNG}
        if action == "match":
            answer = self.http.post(f"{at}/match", **body)
            if person in self.enrolled:
                self.wrong += answer.json()["match"] != (person not in self.revoked)
        elif action == "search":
            answer = self.http.post("/v1/search", params={"force": True}, **body)
            there = person in self.enrolled and person not in self.revoked
            self.wrong += answer.json()["subject"] != (f"person-{person}" if there else None)
        elif action == "read":
            answer = self.http.get(at)
        elif action == "enrol":
            if person in self.enrolled:
                return self.one()
            answer = self.http.post(f"{at}/records", params={"known": True}, **body)
            self.enrolled.add(person)
        elif action == "revoke":
            answer = self.http.post(f"{at}/revoke", json={"grace_days": 1})
            if answer.is_success:
                self.revoked.add(person)
        elif action == "restore":
            answer = self.http.post(f"{at}/restore")
            self.revoked.discard(person)
        elif action == "renew":
            answer = self.http.post(f"{at}/renew")
        else:
            answer = self.http.delete(at)
            self.enrolled.discard(person)
            self.revoked.discard(person)
        self.statuses[answer.status_code] += 1
        return None


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spent(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of(load: Load, pid: int, count: int, method: str, path: str, **more: Any) -> float:
    before = spent(pid)
    for _ in range(count):
        load.http.request(method, path, **more).raise_for_status()
    return 1000 * (spent(pid) - before) / count


def soak(minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, __file__, "--serve", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        port, key = process.stdout.readline().split()
        load = Load(f"http://127.0.0.1:{port}", key)
        while load.http.get("/health").status_code != 200:
            time.sleep(0.2)
        began, count = time.monotonic(), 0
        while time.monotonic() - began < 10:
            load.one()
            count += 1
        each = 2 * 10 / count
        began, middle, number = time.monotonic(), 0, 0
        while (now := time.monotonic() - began) < 60 * minutes:
            load.one()
            number += 1
            if not middle and now > 6 * minutes:
                middle = resident(process.pid)
            time.sleep(max(0.0, number * each - (time.monotonic() - began)))
        last = resident(process.pid)
        person = f"/v1/subjects/person-{min(load.enrolled - load.revoked)}"
        body = {"content": load.photos[int(person.rsplit("-", 1)[1])], "headers": PNG}
        costs = {
            "read_cpu_ms": cpu_of(load, process.pid, 500, "GET", person),
            "match_cpu_ms": cpu_of(load, process.pid, 500, "POST", f"{person}/match", **body),
        }
        process.terminate()
        errors = process.communicate(timeout=60)[1]
        return {
            "minutes": minutes,
            "requests": load.statuses.total(),
            "a_second": number / (60 * minutes),
            "statuses": {str(status): times for status, times in sorted(load.statuses.items())},
            "wrong_answers": load.wrong,
            "resident_early": middle,
            "resident_late": last,
            "growth": last / middle - 1,
            "lines_of_errors": len(errors.splitlines()),
            **costs,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        child(options.serve)
        return
    code = cards.code()  # now: the tree may change while it runs
    results = json.loads(json.dumps(soak(options.minutes)), parse_float=lambda text: float(f"{float(text):.4g}"))
    card = {"schema": "bauta.speed/1", "name": "service-soak", "results": results}
    text = json.dumps({**card, "code": code, "machine": cards.machine()}, indent=1) + "\n"
    if options.output is not None:
        (options.output / "service-soak.json").write_text(text, encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
