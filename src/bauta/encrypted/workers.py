"""A gallery shared out to processes, a shard each; blocks stay where they were made."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.encoded import BLOCK, Answer, PlainGallery
from bauta.encrypted.kernel import in_parts
from bauta.encrypted.packing import Layout
from bauta.encrypted.quantisation import Templates
from bauta.encrypted.scheme import PublicKey
from bauta.errors import BautaError, InternalError

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def _work(layout: Layout, pipe: Connection) -> None:
    """A worker: does what it is told with its shard, until the pipe closes."""
    shard = PlainGallery(layout)
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            name, arguments = pipe.recv()
            try:
                made = getattr(shard, name)(*arguments)
                for one in made if name == "answer" else ():
                    pipe.send((True, one))
                pipe.send((True, None if name == "answer" else made))
            except Exception as error:  # the coordinator raises it
                pipe.send((False, error if isinstance(error, BautaError) else InternalError(f"{error!r} in a worker.")))


class ShardedGallery(PlainGallery):
    """A plain gallery in several processes, each with one thread. A context manager: the processes end with it.

    Args:
        layout: How templates are packed.
        shards: Processes.

    Raises:
        InternalError: by every method, when a process was killed: a part of the gallery is not searched silently.
    """

    def __init__(self, layout: Layout, shards: int) -> None:
        super().__init__(layout)
        start = multiprocessing.get_context("spawn")
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        self._pipes: list[Connection] = []
        self._processes = []
        try:
            for _ in range(shards):
                ours, theirs = start.Pipe()
                process = start.Process(target=_work, args=(layout, theirs), daemon=True)
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        self._owner: list[int] = []  # shard of each block

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; their memory, and the gallery in it, is gone."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()

    def _extend(self, templates: Templates) -> None:
        groups = self.layout.groups(len(templates))
        size = min(BLOCK, -(-groups // len(self._pipes)))
        asked = []
        for part in in_parts(len(templates), size * self.layout.group):
            loads = [sum(n for n, owner in zip(self._sizes, self._owner, strict=True) if owner == s) for s in self._all]
            shard = int(np.argmin(loads))
            self._ask(shard, "append", templates[part])
            self._owner.append(shard)
            self._count(self.layout.groups(part.stop - part.start), part.stop - part.start)
            asked.append(shard)
        for shard in asked:
            self._hear(shard)

    def change(self, place: int, difference: NDArray[np.int32]) -> None:
        """See `PlainGallery.change`."""
        shard, local = self._local(place)
        self._ask(shard, "change", local, difference)
        self._hear(shard)

    def read(self, place: int) -> Templates:
        """See `PlainGallery.read`."""
        shard, local = self._local(place)
        self._ask(shard, "read", local)
        made: Templates = self._hear(shard)
        return made

    def answer(
        self, probes: NDArray[np.uint32] | Templates, public: PublicKey, group: int | None = None
    ) -> Iterator[Answer]:
        """See `EncodedGallery.answer`; shards work at the same time."""
        self.check(probes)
        if group is None:
            shards, order = list(self._all), self._owner
        else:
            shard, local = self._local(group * self.layout.group)
            shards, order, group = [shard], [shard], local // self.layout.group
        for shard in shards:
            self._ask(shard, "answer", probes, public, group)
        try:
            for shard in order:
                yield self._hear(shard)
        finally:  # also when whoever asked went away: a pipe must be empty before the next question
            for shard in shards:
                while self._hear(shard) is not None:
                    continue

    def draw_ahead(self, public: PublicKey, probes: int) -> bool:
        """See `EncodedGallery.draw_ahead`; each shard draws its own."""
        for shard in self._all:
            self._ask(shard, "draw_ahead", public, probes)
        heard = [self._hear(shard) for shard in self._all]  # each one, or a pipe is not empty
        return all(heard)

    def memory(self) -> int:
        """Bytes of the encoded gallery, in all processes."""
        for shard in self._all:
            self._ask(shard, "memory")
        return sum(self._hear(shard) for shard in self._all)

    @property
    def _all(self) -> range:
        return range(len(self._pipes))

    def _local(self, place: int) -> tuple[int, int]:
        block, inside = self._find(place // self.layout.group)
        shard = self._owner[block]
        before = sum(n for n, owner in zip(self._sizes[:block], self._owner, strict=False) if owner == shard)
        return shard, (before + inside) * self.layout.group + place % self.layout.group

    def _ask(self, shard: int, name: str, *arguments: object) -> None:
        try:
            self._pipes[shard].send((name, arguments))
        except OSError as error:
            raise self._killed() from error

    def _hear(self, shard: int) -> Any:
        try:
            good, made = self._pipes[shard].recv()
        except (EOFError, OSError) as error:
            raise self._killed() from error
        if not good:
            raise made
        return made

    def _killed(self) -> InternalError:
        return InternalError("A worker with a part of the gallery has ended.", hint="Start the server again.")
