"""Records of a large store, opened by several processes at a start: it is work for the processor above all.

Each process reads a part of the store with the same code as one alone does, and hands on what it opened through a pipe:
nothing of it is written. What goes wrong in a process is met again, and told, by who reads its part after it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, Queue
from typing import Any

from bauta.gallery import tables
from bauta.gallery.reader import Found, Part, Reader
from bauta.gallery.vault import Vault

WORTH = 50_000
"""Records from which on processes are started: each takes a second for that."""


MOST = 4
"""Processes: this one, which takes in what they open, cannot follow more."""


def opened(store: Reader, processes: int = 0) -> Iterator[list[Found]]:
    """All active records of a store, as `Reader.active` gives them, in no order.

    Args:
        store: That this process has open.
        processes: That open records, beside this one, which takes them in; 0 for as many as are worth it here.

    Raises:
        GalleryDamaged: when one was changed.
    """
    if not processes:
        many = store.stats()["active"] >= WORTH
        processes = min(os.cpu_count() or 1, MOST) if many else 1
    if processes == 1:
        yield from store.active()
        return
    address = store.engine.url.render_as_string(hide_password=False)
    parts, failed = store.parts(processes), list[Part]()
    queue: Queue[Any] = Queue(2)  # what is not taken yet waits in the processes
    # Not with `multiprocessing`, which runs the main program of the caller again in each, such as all of torch.
    command = [sys.executable, "-m", "bauta.gallery.opening"]
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=none) for _ in parts]  # noqa: S603
    ears = []
    try:
        for worker, part in zip(workers, parts, strict=True):
            about = (address, store.vault.path, store.vault.root, store.makers, part)
            ears.append(threading.Thread(target=_hear, args=(worker, about, queue), daemon=True))
            ears[-1].start()
        running = len(workers)
        while running:
            batch = queue.get()
            if isinstance(batch, list):
                yield [Found(*one) for one in batch]
                continue
            running -= 1
            if batch is not None:
                failed.append(batch)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        while any(ear.is_alive() for ear in ears):  # they may wait to be heard
            with suppress(Empty):
                queue.get(timeout=0.1)
    for part in failed:  # what was given of it already is given again
        yield from store.active(part=part)


def _hear(worker: subprocess.Popen[bytes], about: tuple[Any, ...], queue: Queue[Any]) -> None:
    """Lists of records into the queue, then None, or the part where the process did not get to its end."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    batch: Any = []
    try:
        with worker.stdin, worker.stdout:
            pickle.dump(about, worker.stdin)
            worker.stdin.flush()
            while batch is not None:
                batch = pickle.load(worker.stdout)  # noqa: S301 - of the process that was started above
                queue.put(batch)
    except (EOFError, OSError, pickle.UnpicklingError):
        queue.put(about[-1])


def _work() -> None:
    address, path, root, makers, part = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the process that started this
    with suppress(Exception):  # it is met again
        reader = Reader(tables.open_database(address), Vault.again(path, root), makers)
        for batch in reader.active(part=part):
            pickle.dump([tuple(one) for one in batch], sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
        pickle.dump(None, sys.stdout.buffer)
        sys.stdout.flush()


if __name__ == "__main__":
    _work()
