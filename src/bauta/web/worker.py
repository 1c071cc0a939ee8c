"""One process that touches images, and the queue in front of it.

Whatever a photo does to a decoder, it does it there: when the process dies, the job that it was at is lost, a new
process starts, and the next job goes on. Quick jobs, such as looking at a photo that was just dropped, are done in the
middle of long ones, at the points where these tell of their progress. A job that is called off ends at such a point
too.
"""

from __future__ import annotations

import contextlib
import heapq
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

from bauta.errors import InternalError, as_bauta_error
from bauta.web.memory import keep_little

URGENT = frozenset({"look", "sketch"})
"""Kinds of jobs for which a long one pauses."""

_ORDER = {"methods": 0, "warm": 0, "look": 1, "sketch": 2, "read": 3, "restore": 3, "fit": 4, "protect": 5}
_PATIENCE = 20.0  # seconds that a job has to notice that it was called off


class Doing(Protocol):
    """What the process does: `bauta.web.hands.Hands`, or what tests put in its place."""

    def do(self, kind: str, about: Mapping[str, Any], tell: Callable[[str, Any], None]) -> dict[str, Any]:
        """Do one job."""


@dataclass(order=True)
class Job:
    """One thing to do.

    Attributes:
        order: Smaller goes first.
        number: Of all jobs, in the order they came.
        kind: As `Doing.do` takes it.
        about: What it needs.
        told: Called with a word and values as work goes on.
        ended: Called once with ``done``, ``failed`` or ``cancelled``, and the answer or the error.
        cancelled: It was called off.
    """

    order: int
    number: int
    kind: str = field(compare=False)
    about: dict[str, Any] = field(compare=False)
    told: Callable[[str, Any], None] = field(compare=False)
    ended: Callable[[str, dict[str, Any]], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)
    deadline: float | None = field(default=None, compare=False)


class Worker:
    """The process and its queue.

    Args:
        make: Makes what does the jobs, in the process; it can be pickled.
        seconds: That a job of looking may take.
    """

    def __init__(self, make: Callable[[], Doing], *, seconds: float = 180.0) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Condition()
        self._waiting: list[Job] = []
        self._inside: list[Job] = []  # in the process; the last one is being done, those before it pause
        self._count = 0
        self._ending = False
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="bauta-web-worker", daemon=True)
        self.restarts = 0

    def start(self) -> None:
        """Start the process and what feeds it."""
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    def ask(
        self,
        kind: str,
        about: dict[str, Any],
        ended: Callable[[str, dict[str, Any]], None],
        told: Callable[[str, Any], None] = lambda word, values: None,
    ) -> Job:
        """Put a job into the queue."""
        with self._lock:
            self._count += 1
            job = Job(_ORDER[kind], self._count, kind, about, told, ended)
            heapq.heappush(self._waiting, job)
            self._lock.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Call a job off; `Job.ended` hears of it, unless it is too late."""
        with self._lock:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                heapq.heapify(self._waiting)
            else:
                if job in self._inside:
                    job.deadline = time.monotonic() + _PATIENCE
                    self._send(("cancel", job.number))
                return
        job.ended("cancelled", {})

    def end(self) -> None:
        """End the process; jobs that are not done never end."""
        with self._lock:
            self._ending = True
            self._waiting.clear()
            self._lock.notify_all()
            if self._process is not None:
                self._process.kill()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._ending:
            pipe = self._started()
            try:
                self._serve(pipe)
            except (EOFError, OSError):
                self._bury()
        if self._process is not None:
            self._process.join(10)

    def _started(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._make), daemon=True, name="bauta-web-images")
        process.start()
        theirs.close()
        with self._lock:
            self._process, self._pipe = process, ours
            if self._ending:
                process.kill()
        return ours

    def _serve(self, pipe: Connection) -> None:
        while not self._ending:
            self._feed()
            if pipe.poll(0.05):
                self._heard(*pipe.recv())
            with self._lock:
                late = any(job.deadline and time.monotonic() > job.deadline for job in self._inside)
                if late and self._process is not None:
                    self._process.kill()
                if not self._inside and not self._waiting and not self._ending:
                    self._lock.wait(1.0)

    def _feed(self) -> None:
        """Give the process its next job; an urgent one also while it is at a long one."""
        with self._lock:
            if not self._waiting:
                return
            job, current = self._waiting[0], self._inside[-1] if self._inside else None
            if current is not None and (job.kind not in URGENT or current.kind in URGENT):
                return
            heapq.heappop(self._waiting)
            if job.kind == "look":
                job.deadline = time.monotonic() + self._seconds
            self._inside.append(job)
            self._send(("do", job.number, job.kind, job.about))

    def _send(self, message: tuple[Any, ...]) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):  # the process has died; reading from it will say so
                self._pipe.send(message)

    def _heard(self, number: int, word: str, values: Any) -> None:
        with self._lock:
            job = next((job for job in self._inside if job.number == number), None)
            if job is not None and word in ("done", "failed", "cancelled"):
                self._inside.remove(job)
        if job is None:
            return
        if word in ("done", "failed", "cancelled"):
            job.ended(word, values)
        else:
            job.told(word, values)

    def _bury(self) -> None:
        """The process died: what it was at is lost, what paused meanwhile waits again."""
        with self._lock:
            if self._process is not None:
                self._process.join(10)
            self.restarts += 1
            lost, paused = self._inside[-1:], self._inside[:-1]
            self._inside = []
            self._pipe = None
            for job in paused:
                if not job.cancelled:
                    heapq.heappush(self._waiting, job)
            if not lost:
                time.sleep(0.5)  # it cannot even start; do not spin
        if self._ending:
            return
        for job in [*lost, *(job for job in paused if job.cancelled)]:
            if job.cancelled:
                job.ended("cancelled", {})
            else:
                error = InternalError("The process that works on images ended before its work was done.")
                job.ended("failed", {"code": "worker", "message": error.message, "hint": error.hint})


class Cancelled(BaseException):
    """The job was called off; nothing of ours catches it on its way out."""


def work(pipe: Connection, make: Callable[[], Doing]) -> None:
    """The process: jobs come through the pipe, and what is to be told of them goes back."""
    keep_little()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    with contextlib.suppress(EOFError, OSError, BrokenPipeError):
        Loop(pipe, make()).run()


class Loop:
    """Jobs one by one, and urgent ones in the middle of others."""

    def __init__(self, pipe: Connection, doing: Doing) -> None:
        self.pipe = pipe
        self.doing = doing
        self.called_off: set[int] = set()

    def run(self) -> None:
        """Until the other end closes."""
        while True:
            self.hear()

    def hear(self) -> None:
        """Take one message, and do what it asks."""
        message = self.pipe.recv()
        if message[0] == "cancel":
            self.called_off.add(message[1])
        else:
            self.do(*message[1:])

    def do(self, number: int, kind: str, about: Mapping[str, Any]) -> None:
        """One job."""

        def tell(word: str, values: Any) -> None:
            self.pipe.send((number, word, values))
            while self.pipe.poll():
                self.hear()
            if number in self.called_off:
                raise Cancelled

        try:
            answer = ("done", self.doing.do(kind, about, tell))
        except Cancelled:
            answer = ("cancelled", {})
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("BAUTA_DEBUG") == "1":
                traceback.print_exc()
            known = as_bauta_error(error)
            answer = ("failed", {"code": known.code, "message": known.message, "hint": known.hint})
        self.called_off.discard(number)
        self.pipe.send((number, *answer))
