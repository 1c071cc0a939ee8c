"""How long-running work says where it is: one type for work of several stages, one for the steps of a single stage.

>>> seen = []
>>> steps = steps_of(lambda *said: seen.append(said), "calibration")
>>> steps(3, 10)
>>> seen
[('calibration', 3, 10)]
"""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the steps done in it, and the steps it has."""

Steps = Callable[[int, int], None]
"""Called with the steps done and the steps there are, by work that is one stage of something larger."""


def silent(*_: object) -> None:
    """Progress that nobody watches, of either kind."""


def steps_of(progress: Progress, name: str) -> Steps:
    """The steps of the stage of that name."""

    def said(done: int, total: int) -> None:
        progress(name, done, total)

    return said


class Clock:
    """Wall time by part."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Count the time since the last call to a part."""
        now = time.monotonic()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now

    @property
    def total(self) -> dict[str, float]:
        """The parts, and ``total``."""
        return {**self._seconds, "total": time.monotonic() - self._began}
