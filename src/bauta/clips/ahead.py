"""Work that goes on in another thread while what it gave is used.

Decoders, encoders and networks run outside of Python's lock, so that two of them have two cores.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], most: int = 2) -> Generator[T]:
    """The same items in the same order, made in a thread of their own, a few of them before they are asked for.

    >>> list(ahead(range(3)))
    [0, 1, 2]

    Args:
        items: What is iterated over; an exception of theirs is raised here.
        most: How many may wait to be taken.
    """
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(most)
    stopped = threading.Event()

    def give(going: bool, item: T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                waiting.put((going, item), timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                give(True, item)
                if stopped.is_set():
                    return
            give(False, None)
        except BaseException as error:
            give(False, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            going, item = waiting.get()
            if not going:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
