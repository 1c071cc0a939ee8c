"""A recogniser from elsewhere, in a process of its own, with limits on time and memory.

ONNX is a language with loops: a file of a few kilobytes can run for ever, or fill the memory. So whatever first runs a
network that did not come with Bauta runs it in another process, which is ended when it takes too much. That process
keeps the system from being brought down; it is not a jail for code, of which an ONNX file has none.

The limits on memory (`RLIMIT_AS`) and on processor time (`RLIMIT_CPU`) are the system's, where it has them: on Linux
both, on macOS that of processor time, on Windows neither. The limit on the time that passes holds everywhere.

Parent and child talk through pipes, in frames: two lengths of eight bytes, then JSON and raw numbers. No pickle is
read. This module knows no torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from bauta import errors
from bauta.errors import BautaError, LimitExceeded, WeightsCorrupt
from bauta.recognizers.cards import RecognizerCard, format_card, parse_card
from bauta.recognizers.catalog import SHIPPED
from bauta.tables import shown

GIBIBYTE = 1 << 30
BATCH_PIXELS = 32 * 224 * 224  # of the crops that are sent at once
_LENGTHS = 16
_LARGEST_FRAME = 1 << 30
_CARRIED = 6  # copies of the weights that two engines hold between them while a network is looked at
_BYTES_A_SECOND = 8 << 20  # of weights that even a slow machine gets through
_NO_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "memoryerror", "not enough memory")


@dataclass(frozen=True)
class Limits:
    """What a network may take.

    Attributes:
        seconds: That may pass before it has answered.
        processor: Seconds of processor time for one answer.
        memory: Bytes of address space of the whole process.
    """

    seconds: float = 120.0
    processor: float = 60.0
    memory: int = 4 * GIBIBYTE

    @classmethod
    def of(cls, size: int) -> Limits:
        """For weights of so many bytes: 120 s, 60 s and 4 GiB, and more for large ones."""
        more = size / _BYTES_A_SECOND
        return cls(cls.seconds + 2 * more, cls.processor + more, cls.memory + _CARRIED * size)


def came_along(card: RecognizerCard) -> bool:
    """Whether the recogniser came with Bauta or a package it needs, and need not be feared."""
    return card.weights.parent == SHIPPED or card.format == "dlib"


class IsolatedRecognizer:
    """A recogniser in another process; a context manager, at whose end the process ends.

    Args:
        card: The recogniser; its weights are read by the other process, and checked there.
        limits: What it may take; by default `Limits.of` the weights' size.
    """

    def __init__(self, card: RecognizerCard, *, limits: Limits | None = None) -> None:
        self.card = card
        self.limits = limits or Limits.of(card.weights.stat().st_size if card.weights.is_file() else 0)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="bauta-")  # empty: there is nothing to be read by its name
        self._complaints = tempfile.TemporaryFile()
        # What the parent finds must be found by the child, and nothing in the folder one happens to be in.
        roots = [str(Path(errors.__file__).parents[1]), *filter(os.path.isabs, sys.path)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bauta.recognizers.isolation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            cwd=self._folder.name,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        )
        try:
            card = replace(self.card, weights=Path("weights"))
            self._ask({"card": format_card(card), "weights": str(self.card.weights.resolve())})
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was still to be written is of no interest
                    continue
        if os.environ.get("BAUTA_DEBUG") == "1":
            sys.stderr.write(self._complained())
        self._complaints.close()
        self._folder.cleanup()

    def examine(self) -> NDArray[np.float32]:
        """As `bauta.recognizers.examination.examine`.

        Raises:
            LimitExceeded: when it takes more than `limits`.
            RecognizerError, UsageError: as there.
        """
        return self._ask({"do": "examine"})

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `bauta.recognizers.judges.Judge.embed`, whichever role the recogniser has.

        Raises:
            LimitExceeded: when some of the crops take more than `limits`.
            RecognizerError, UsageError: as there.
        """
        at_once = max(1, BATCH_PIXELS // max(1, crops[0, 0].size)) if len(crops) else 1
        parts = [self._ask({"do": "embed"}, crops[start : start + at_once]) for start in range(0, len(crops), at_once)]
        return np.concatenate(parts) if parts else np.empty((0, self.card.dim), np.float32)

    def _ask(self, question: Mapping[str, Any], crops: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        process, late = self._process, threading.Event()
        assert process.stdin is not None
        assert process.stdout is not None

        def end() -> None:
            late.set()
            process.kill()

        clock = threading.Timer(self.limits.seconds, end)
        clock.start()
        try:
            _send(process.stdin, {**question, "limits": asdict(self.limits)}, crops)
            answer = _receive(process.stdout)
        except OSError:  # it ended before it had read all
            answer = None
        finally:
            clock.cancel()
        if answer is None:
            raise self._ended(late.is_set())
        facts, numbers = answer
        if facts.get("error") == LimitExceeded.__name__:
            raise self._exceeded("memory")
        if "error" in facts:
            kind = getattr(errors, str(facts["error"]), None)
            known = isinstance(kind, type) and issubclass(kind, BautaError)
            raise (kind if known else WeightsCorrupt)(str(facts["message"]), hint=str(facts["hint"]))  # type: ignore[misc]
        return numbers

    def _ended(self, late: bool) -> BautaError:
        """Why the process is gone."""
        code = self._process.wait()
        complaints = self._complained().casefold()
        if late:
            return self._exceeded("time")
        if code == -getattr(signal, "SIGXCPU", 0) and code:
            return self._exceeded("processor")
        if any(words in complaints for words in _NO_MEMORY):
            return self._exceeded("memory")
        return WeightsCorrupt(
            f"The network of {shown(self.card.name)} ended the process in which it was tried.",
            hint="Export the network anew, or use another one.",
        )

    def _complained(self) -> str:
        """What the process wrote to its stderr; the parent's never sees it, with all its colours."""
        self._complaints.seek(0)
        return self._complaints.read(_LARGEST_FRAME).decode("utf-8", "replace")

    def _exceeded(self, what: str) -> LimitExceeded:
        limits, name = self.limits, shown(self.card.name)
        text = {
            "time": f"The network of {name} did not answer within {limits.seconds:.0f} seconds",
            "processor": f"The network of {name} took more than {limits.processor:.0f} seconds of processor time",
            "memory": f"The network of {name} asked for more than {limits.memory / GIBIBYTE:.1f} GiB of memory",
        }[what]
        return LimitExceeded(
            f"{text}, and was stopped.",
            hint="A face recogniser answers in seconds: export it without loops, or use another one.",
        )


# The frames


def _send(stream: BinaryIO | Any, facts: Mapping[str, Any], numbers: NDArray[np.float32] | None = None) -> None:
    raw = b"" if numbers is None else np.ascontiguousarray(numbers, "<f4").tobytes()
    shape = [0] if numbers is None else list(numbers.shape)
    text = json.dumps({**facts, "shape": shape}).encode()
    stream.write(len(text).to_bytes(8, "little") + len(raw).to_bytes(8, "little") + text + raw)
    stream.flush()


def _receive(stream: BinaryIO | Any) -> tuple[dict[str, Any], NDArray[np.float32]] | None:
    """The next frame; None where there is no whole one."""
    lengths = stream.read(_LENGTHS)
    if len(lengths) < _LENGTHS:
        return None
    sizes = [int.from_bytes(lengths[:8], "little"), int.from_bytes(lengths[8:], "little")]
    if max(sizes) > _LARGEST_FRAME:
        return None
    text, raw = (stream.read(size) for size in sizes)
    if len(raw) < sizes[1]:
        return None
    facts = json.loads(text)
    return facts, np.frombuffer(raw, "<f4").reshape(facts["shape"]).astype(np.float32)


# The other process


def _restrict(limits: Mapping[str, Any]) -> None:
    """Let this process take no more memory, and for this answer no more processor time."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + float(limits["processor"])) + 1
    for what, value in (
        (resource.RLIMIT_AS, int(limits["memory"])),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        try:
            resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
        except (ValueError, OSError):  # macOS takes no limit on address space
            continue


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is not for the parent
    card: RecognizerCard | None = None
    judge: Any = None
    while (question := _receive(sys.stdin.buffer)) is not None:
        facts, crops = question
        _restrict(facts["limits"])
        numbers = None
        reply: dict[str, Any] = {}
        try:
            if card is None:
                card = replace(parse_card(facts["card"], folder=Path()), weights=Path(facts["weights"]))
            elif facts["do"] == "examine":
                from bauta.recognizers.examination import examine

                numbers = examine(card)
            else:
                judge = judge or _judge(card)
                numbers = judge.embed(crops)
        except Exception as error:
            traceback.print_exc()
            reply = _described(error, card)
        _send(answers, reply, numbers)


def _judge(card: RecognizerCard) -> Any:
    from bauta.recognizers.cards import ROLES
    from bauta.recognizers.judges import load_judge

    return load_judge(replace(card, roles=ROLES))  # measuring a surrogate makes it no judge


def _described(error: BaseException, card: RecognizerCard | None) -> dict[str, Any]:
    """An error for the parent: one of ours as it is, want of memory under its name, and all else as a bad network."""
    cause: BaseException | None = error
    while cause is not None:
        text = f"{type(cause).__name__}: {cause}".casefold()
        if any(words in text for words in _NO_MEMORY):
            return {"error": LimitExceeded.__name__}
        cause = cause.__cause__
    if isinstance(error, BautaError):
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    name = shown(card.name if card else "")
    return {
        "error": WeightsCorrupt.__name__,
        "message": f"The network of {name} cannot be run: its graph does not hold together.",
        "hint": "Export the network anew.",
    }


if __name__ == "__main__":
    _serve()
