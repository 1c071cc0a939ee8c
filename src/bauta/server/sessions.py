"""Who is signed in at the admin page: a cookie that scripts cannot read and other sites cannot send."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bauta.server.access import Caller

COOKIE = "bauta-admin"
IDLE, LONGEST = 30 * 60, 8 * 3600
"""Seconds after which a session ends: without a request, and whatever happens."""
MOST = 100
"""Sessions at a time; the one that was used least recently ends first."""


@dataclass(frozen=True)
class Session:
    """Somebody who signed in.

    Attributes:
        caller: Whose key it was.
        form: Goes with every form, and no other site can know it.
        began: When, on a clock that only goes forward.
        used: When last.
    """

    caller: Caller
    form: str
    began: float
    used: float


class Sessions:
    """In memory alone: they end with the process. What is kept of a cookie is its SHA-256.

    Args:
        clock: Seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._sessions: dict[bytes, Session] = {}

    def begin(self, caller: Caller) -> str:
        """The value of a new cookie."""
        value, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._tidy(now)
            while len(self._sessions) >= MOST:
                del self._sessions[min(self._sessions, key=lambda one: self._sessions[one].used)]
            self._sessions[_digest(value)] = Session(caller, secrets.token_urlsafe(32), now, now)
        return value

    def get(self, value: str) -> Session | None:
        """Whose cookie it is; None when it is unknown or has ended."""
        now, digest = self._clock(), _digest(value)
        with self._lock:
            self._tidy(now)
            if (found := self._sessions.get(digest)) is not None:
                self._sessions[digest] = found = replace(found, used=now)
        return found

    def end(self, value: str) -> None:
        """Sign out."""
        with self._lock:
            self._sessions.pop(_digest(value), None)

    def _tidy(self, now: float) -> None:
        for digest, one in list(self._sessions.items()):
            if now - one.used > IDLE or now - one.began > LONGEST:
                del self._sessions[digest]


def same_form(session: Session, given: str) -> bool:
    """Whether a form was made for this session."""
    return hmac.compare_digest(session.form.encode(), given.encode("utf-8", "replace"))


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "replace")).digest()
