"""How many decisions a door gets: each tells it a bit, and bits add up to templates.

Counts are kept in memory, per key, and begin anew with the server.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bauta.errors import PeerError, UsageError

MOST_KEYS = 10_000
"""From which on those that spent nothing lately are forgotten, each time that there are twice as many."""


@dataclass
class Budget:
    """Decisions that each key may ask for.

    Attributes:
        decisions: In any span of `seconds`.
        seconds: Length of that span.
        total: Since the server began; None for no bound.
        clock: Seconds that only grow.

    Raises:
        UsageError: when a number is not positive.
    """

    decisions: int = 100
    seconds: float = 3600.0
    total: int | None = None
    clock: Callable[[], float] = time.monotonic
    _spent: dict[bytes, deque[float]] = field(default_factory=dict, repr=False)
    _tidy_at: int = field(default=MOST_KEYS, repr=False)
    _ever: dict[bytes, int] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.decisions < 1 or not self.seconds > 0 or (self.total is not None and self.total < 1):
            raise UsageError("A budget must allow something.", hint="Give at least one decision, and a span of time.")

    def spend(self, key: bytes, count: int) -> None:
        """Take decisions off the budget, before they are computed: those that fail were asked too.

        Raises:
            PeerError: when it is used up.
        """
        now = self.clock()
        with self._lock:
            if len(self._spent) > self._tidy_at:  # keys that come and go must not fill the memory
                old = [one for one, times in self._spent.items() if not times or times[-1] <= now - self.seconds]
                for one in old:
                    del self._spent[one]
                self._tidy_at = max(MOST_KEYS, 2 * len(self._spent))  # and looking for them must not fill the time
            spent = self._spent.setdefault(key, deque())
            while spent and spent[0] <= now - self.seconds:
                spent.popleft()
            ever = self._ever.get(key, 0)
            if self.total is not None and ever + count > self.total:
                raise PeerError(f"All {self.total} decisions of this key are spent.", hint="Ask who runs the server.")
            if len(spent) + count > self.decisions:
                raise PeerError(
                    f"{self.decisions} decisions in {self.seconds:g} seconds are allowed.", hint="Try again later."
                )
            spent.extend([now] * count)
            if self.total is not None:
                self._ever[key] = ever + count
