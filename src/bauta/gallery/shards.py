"""An index in several processes: each holds the records of some subjects, and a search asks all of them at once.

A process sees templates of its part, random ids of their records and subjects, and names of tenants; no keys, no names
of people and no photos. It writes nothing, and ends with the service. Where one ends before, nothing is answered
without its part: it is started again and filled from the store.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from bauta.errors import GalleryError
from bauta.gallery.index import Hit, Index, Search, Templates


class AnyIndex(Protocol):
    """What a service asks of its index; see `bauta.gallery.index.Index`."""

    def __len__(self) -> int: ...
    def ids(self) -> set[bytes]:
        """Ids of all records."""

    def count(self, tenant: str) -> int:
        """Records of a tenant."""

    def add(self, tenant: str, ids: Sequence[bytes], uids: Sequence[bytes], templates: Templates) -> None:
        """Take records in."""

    def remove(self, ids: Iterable[bytes]) -> None:
        """Let records go."""

    def of(self, tenant: str, uid: bytes) -> set[bytes]:
        """Ids of a subject's records."""

    def match(self, tenant: str, uid: bytes, probe: Templates) -> float | None:
        """The greatest cosine of a probe and a subject's records."""

    def search(self, tenant: str, probe: Templates, *, but: bytes | None = None) -> Hit | None:
        """The record most similar to a probe."""

    def restarted(self) -> AbstractContextManager[Callable[[bytes], bool] | None]:
        """Begin what was lost anew, to be filled inside; gives of which subjects that is, or None."""

    def close(self) -> None:
        """Let go of all of it."""


class ShardLost(Exception):
    """A shard ended before it answered."""


class Shard(Protocol):
    """An index that is elsewhere: in another process, or on another machine."""

    def begin(self, name: str, given: tuple[Any, ...], more: dict[str, Any]) -> None:
        """Ask for a method of `Index`, and do not wait."""

    def end(self) -> Any:
        """What it returned.

        Raises:
            ShardLost: when there is no answer.
        """

    def alive(self) -> bool:
        """Whether it has not ended, as far as is known without asking it."""

    def close(self) -> None:
        """End it."""


class ProcessShard:
    """A process of this machine, asked through pipes.

    Args:
        dimension: Of a template.
        search: How it searches.
        threads: That it computes with.
    """

    def __init__(self, dimension: int, search: Search, threads: int) -> None:
        pipe, count = subprocess.PIPE, str(threads)
        environment = {**os.environ, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        command = [sys.executable, "-m", "bauta.gallery.shards"]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)  # noqa: S603
        self._lost = False
        self._send((dimension, search))

    def begin(self, name: str, given: tuple[Any, ...], more: dict[str, Any]) -> None:
        """Ask."""
        self._send((name, given, more))

    def end(self) -> Any:
        """Hear."""
        assert self.process.stdout is not None
        if self._lost:
            raise ShardLost
        try:
            return pickle.load(self.process.stdout)  # noqa: S301 - of the process that was started above
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise ShardLost from error

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def close(self) -> None:
        """Kill it: it has nothing to finish."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:  # something was not sent yet
                continue

    def _send(self, message: tuple[Any, ...]) -> None:
        assert self.process.stdin is not None
        try:
            pickle.dump(message, self.process.stdin, pickle.HIGHEST_PROTOCOL)
            self.process.stdin.flush()
        except OSError:  # told when the answer is waited for
            self._lost = True


class ShardedIndex:
    """The same as `bauta.gallery.index.Index`, over shards; callers use it one at a time.

    Args:
        make: Starts a shard.
        count: Of shards.
    """

    def __init__(self, make: Callable[[], Shard], count: int) -> None:
        self._make, self.shards = make, [make() for _ in range(count)]
        self._lost: set[int] = set()
        self._homes: dict[bytes, tuple[int, str]] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._homes)

    def ids(self) -> set[bytes]:
        """Ids of all records."""
        return set(self._homes)

    def count(self, tenant: str) -> int:
        """Records of a tenant."""
        return self._counts[tenant]

    def add(self, tenant: str, ids: Sequence[bytes], uids: Sequence[bytes], templates: Templates) -> None:
        """Take records in, (N, D) unit-norm; those that are there already are replaced.

        Raises:
            GalleryError: when a shard is lost; `restarted` says what is to be added again.
        """
        self.remove(one for one in ids if one in self._homes)
        parts: dict[int, list[int]] = {}
        for place, uid in enumerate(uids):
            parts.setdefault(self._home(uid), []).append(place)
        for shard, places in parts.items():
            self._homes.update((ids[place], (shard, tenant)) for place in places)
        self._counts[tenant] += len(ids)
        self._ask(
            "add",
            {
                shard: (tenant, [ids[place] for place in places], [uids[place] for place in places], templates[places])
                for shard, places in parts.items()
            },
        )

    def remove(self, ids: Iterable[bytes]) -> None:
        """Let records go."""
        parts: dict[int, tuple[list[bytes]]] = {}
        for one in ids:
            if (home := self._homes.pop(one, None)) is not None:
                self._counts[home[1]] -= 1
                parts.setdefault(home[0], ([],))[0].append(one)
        self._ask("remove", parts)

    def of(self, tenant: str, uid: bytes) -> set[bytes]:
        """Ids of a subject's records."""
        found: set[bytes] = self._ask("of", {self._home(uid): (tenant, uid)})[0]
        return found

    def match(self, tenant: str, uid: bytes, probe: Templates) -> float | None:
        """The greatest cosine of a probe (D,) and a subject's records; None where there are none."""
        found: float | None = self._ask("match", {self._home(uid): (tenant, uid, probe)})[0]
        return found

    def search(self, tenant: str, probe: Templates, *, but: bytes | None = None) -> Hit | None:
        """The record most similar to a probe (D,), of anybody but one subject; None where there is nobody.

        Raises:
            GalleryError: when a shard is lost: nobody is told that nobody matches where not all were looked at.
        """
        found = self._ask("search", dict.fromkeys(range(len(self.shards)), (tenant, probe)), but=but)
        return max((hit for hit in found if hit is not None), key=lambda hit: hit.cosine, default=None)

    @contextmanager
    def restarted(self) -> Iterator[Callable[[bytes], bool] | None]:
        """Begin lost shards anew, to be filled inside; gives of which subjects they are, or None where all are there.

        Where filling fails, they are still lost.
        """
        self._lost.update(number for number, shard in enumerate(self.shards) if not shard.alive())
        if not self._lost:
            yield None
            return
        lost = frozenset(self._lost)
        for shard in lost:
            self.shards[shard].close()
            self.shards[shard] = self._make()
        for one in [one for one, (shard, _) in self._homes.items() if shard in lost]:
            self._counts[self._homes.pop(one)[1]] -= 1
        self._lost.clear()
        try:
            yield lambda uid: self._home(uid) in lost
        except BaseException:
            self._lost |= lost
            raise

    def close(self) -> None:
        """End all shards."""
        for shard in self.shards:
            shard.close()

    def _home(self, uid: bytes) -> int:
        return int.from_bytes(uid[-8:], "big") % len(self.shards)  # ids that are drawn together begin alike

    def _ask(self, name: str, given: dict[int, tuple[Any, ...]], **more: Any) -> list[Any]:
        asked = [shard for shard in given if shard not in self._lost]
        for shard in asked:
            self.shards[shard].begin(name, given[shard], more)
        found = []
        for shard in asked:  # all are heard, so that the next answers are of the next questions
            try:
                found.append(self.shards[shard].end())
            except ShardLost:
                self._lost.add(shard)
        if self._lost:
            raise GalleryError(
                "A process that holds a part of the index has ended; nothing was decided.",
                hint="Try again: it is started and filled anew. If it ends each time, memory may be short.",
            )
        return found


def _work() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service, which it is meant for, finishes what is under way
    take, give = sys.stdin.buffer, sys.stdout.buffer
    index = Index(*pickle.load(take))  # noqa: S301 - of the process that started this
    while True:
        try:
            name, given, more = pickle.load(take)  # noqa: S301
        except EOFError:
            return
        pickle.dump(getattr(index, name)(*given, **more), give, pickle.HIGHEST_PROTOCOL)
        give.flush()


if __name__ == "__main__":
    _work()
