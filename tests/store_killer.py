"""kill -9 of a process that writes a store, again and again: `python store_killer.py FOLDER KILLS SEED [ADDRESS]`.

The child enrols, renews, revokes, restores and erases at random, and says on a pipe what it is about to do and what was
done. After each kill the store is opened and compared: what was acknowledged is there, what was under way is there
wholly or not at all, the erased are gone and their keys with them, and the index that a service makes of it equals it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from bauta.gallery.index import Index
from bauta.gallery.store import Store
from store_builders import new_store, open_store, row

State = dict[str, tuple[str, tuple[int, ...]]]  # name -> (active or revoked, seeds of its rows)
NAMES = [f"person {number}" for number in range(12)]


def after(state: State, action: str, name: str, seed: int) -> State:
    """What an action makes of a state."""
    made = dict(state)
    kind, seeds = state.get(name, ("active", ()))
    if action == "enrol":
        made[name] = (kind, (*seeds, seed))
    elif action == "renew":
        made[name] = ("active", (seed,))
    elif action in ("revoke", "restore"):
        made[name] = ("revoked" if action == "revoke" else "active", seeds)
    elif action == "erase":
        del made[name]
    return made


def choose(state: State, chance: random.Random) -> tuple[str, str]:
    name = chance.choice(NAMES)
    if name not in state:
        return "enrol", name
    kind, seeds = state[name]
    actions = ["renew", "erase", "rekey"] + (["restore"] if kind == "revoked" else ["revoke", "enrol"])
    return ("erase" if len(seeds) > 4 else chance.choice(actions)), name


def act(store: Store, action: str, name: str, seed: int) -> None:
    with store.writing() as writer:
        if action == "enrol":
            writer.enrol("acme", name, [row(seed)])
        elif action == "renew":
            writer.renew("acme", name, [row(seed)])
        elif action == "rekey":
            writer.renew("acme", name)
        elif action == "revoke":
            writer.revoke("acme", name, 10**6)
        elif action == "restore":
            writer.restore("acme", name)
        else:
            writer.erase("acme", name)
        writer.audit("killer", "acme", action)
    if action in ("erase", "renew", "rekey"):
        assert store.finish()


def child(folder: Path, place: Path | str, state: State, seed: int, pipe: int) -> None:
    chance = random.Random(seed)
    store = open_store(folder, place)
    os.write(pipe, b"open\n")
    while True:
        action, name = choose(state, chance)
        number = chance.getrandbits(32)
        os.write(pipe, (json.dumps([action, name, number]) + "\n").encode())
        act(store, action, name, number)
        os.write(pipe, b"done\n")
        state = after(state, action, name, number)


def found(store: Store) -> dict[str, tuple[str, tuple[bytes, ...]]]:
    """All that is in a store: by subject its state and rows."""
    from bauta.gallery.writer import bound, token_of

    made = {}
    for name in (one.name for _, one in store.people("acme")):
        with store.writing() as writer:
            kept = writer._kept(writer.uid("acme", name))
        [kind] = {one.state for one in kept}
        made[name] = (kind, tuple(sorted(one.row for one in kept)))
        assert bound(token_of(store.vault, "acme", name), "name")
    return made


def wanted(state: State) -> dict[str, tuple[str, tuple[bytes, ...]]]:
    return {name: (kind, tuple(sorted(row(seed) for seed in seeds))) for name, (kind, seeds) in state.items()}


def check_index(store: Store) -> None:
    index = Index(16)
    active = {}
    for batch in store.active():
        for one in batch:
            index.add(one.tenant, [one.id], [one.uid], np.frombuffer(one.row, "<u4").astype(np.float32)[None] / 2**32)
            active[one.id] = one.row
    assert index.ids() == store.ids() == active.keys()


def run(folder: Path, kills: int, seed: int, place: Path | str) -> dict[str, int]:
    chance = random.Random(seed)
    state: State = {}
    new_store(folder, place).close()
    counts: Counter[str] = Counter()
    for kill in range(kills):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                child(folder, place, state, seed * 100_003 + kill, writing)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            assert stream.readline() == b"open\n"
            time.sleep(chance.uniform(0, 0.5))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            lines = stream.read().split(b"\n")
        under_way = None
        for line in lines:
            if line == b"done":
                assert under_way is not None
                state, under_way = after(state, *under_way), None
                counts["acknowledged"] += 1
            elif line:
                under_way = json.loads(line)
        store = open_store(folder, place)
        there = found(store)
        if there != wanted(state):
            assert under_way is not None, f"kill {kill}: an acknowledged write is lost, or an erased subject is back"
            assert there == wanted(after(state, *under_way)), f"kill {kill}: {under_way} is half there"
            state = after(state, *under_way)
            counts["done before the answer"] += 1
        elif under_way is not None:
            counts["not done"] += 1
        check_index(store)
        for _ in range(100):  # a database server notices late that its client died, whose open work delays erasures
            if store.finish():
                break
            time.sleep(0.1)
        assert store.stats()["erasures_pending"] == 0
        if kill % 10 == 9 or kill == kills - 1:
            assert store.verify() == [], f"kill {kill}"
        keys = store.vault._connection.execute("SELECT count(*) FROM keys").fetchone()[0]
        counts["most keys"] = max(counts["most keys"], keys)
        store.close()
    return {"kills": kills, **counts}


if __name__ == "__main__":
    where: Path | str = sys.argv[4] if len(sys.argv) > 4 else Path(sys.argv[1]) / "gallery.db"
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), where)))
