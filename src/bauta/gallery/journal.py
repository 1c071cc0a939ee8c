"""What a store keeps beside people: the audit, answers to requests that may be sent again, keys of clients."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, select

from bauta.errors import GalleryDamaged, OtherRequest
from bauta.gallery import tables
from bauta.gallery.vault import Vault

EDITED = "The database was edited: restore it from a backup."
DAY = 86_400
ANSWERS_KEPT = DAY  # seconds

# Statements that are made once cost a third of those that are made anew each time.
_LAST_LINE = select(tables.audit).order_by(tables.audit.c.number.desc()).limit(1)
_ADD_LINE = tables.audit.insert()
_ABOUT = select(tables.about.c.value).where(tables.about.c.name == bindparam("which"))
_FORGET_ANSWERS = delete(tables.answers).where(tables.answers.c.at < bindparam("before"))
_ANSWER = select(tables.answers).where(tables.answers.c.token == bindparam("which"))
_ADD_ANSWER = tables.answers.insert()


@dataclass(frozen=True)
class Entry:
    """A line of the audit.

    Attributes:
        number: From 1 on, without gaps.
        at: Seconds since 1970; never less than in the line before.
        actor: Id of the key that asked, or who ran a command.
        tenant: Whose gallery.
        action: What was done.
        outcome: What came of it; not whether a face matched.
        trace: Of whom: the same for lines of one subject, until its key is renewed; it leads nowhere once that is gone.
        digest: Of this line and all before it, hexadecimal.
    """

    number: int
    at: int
    actor: str
    tenant: str
    action: str
    outcome: str
    trace: str
    digest: str


class Journal:
    """One transaction, or a look; see `bauta.gallery.writer.Writer`.

    Attributes:
        now: Seconds since 1970, and never less than the audit's last line: clocks that go back revive nothing.
    """

    def __init__(self, connection: Connection, vault: Vault, now: float) -> None:
        self._connection, self._vault = connection, vault
        row = connection.execute(_LAST_LINE).one_or_none()
        self._last: tuple[int, bytes] = (0, b"") if row is None else (row.number, row.digest)
        self.now = max(int(now), 0 if row is None else row.at)

    def about(self, name: str) -> bytes | None:
        """A value that the store keeps of itself, as it was signed."""
        value: bytes | None = self._connection.scalar(_ABOUT, {"which": name})
        return None if value is None else unsigned(self._vault, name, value)

    def audit(self, actor: str, tenant: str, action: str, *, of: bytes | None = None, outcome: str = "done") -> Entry:
        """Add a line.

        Args:
            actor: Id of the key that asked, or who ran a command.
            tenant: Whose gallery.
            action: What was done.
            of: Id of the subject; what is kept of it is a keyed hash under the subject's own key.
            outcome: What came of it.
        """
        key = None if of is None else self._vault.get(of)
        trace = "" if key is None else hmac.digest(key, b"bauta audit", "sha256")[:16].hex()
        number, before = self._last[0] + 1, self._last[1]
        line = {
            "number": number,
            "at": self.now,
            "actor": actor,
            "tenant": tenant,
            "action": action,
            "outcome": outcome,
            "trace": trace,
        }
        digest = self._link(before, line)
        self._connection.execute(_ADD_LINE, {**line, "digest": digest})
        self._last = number, digest
        return Entry(**line, digest=digest.hex())  # type: ignore[arg-type]

    def entries(self, tenant: str | None, after: int = 0, most: int = 100) -> list[Entry]:
        """Lines of a tenant, or of all, after a number."""
        query = select(tables.audit).where(tables.audit.c.number > after).order_by(tables.audit.c.number).limit(most)
        if tenant is not None:
            query = query.where(tables.audit.c.tenant == tenant)
        return self._entries(query)

    def latest(self, tenant: str, before: int | None = None, most: int = 100, action: str | None = None) -> list[Entry]:
        """Lines of a tenant before a number, the last first; of one action where it is named."""
        query = select(tables.audit).where(tables.audit.c.tenant == tenant).order_by(tables.audit.c.number.desc())
        if before is not None:
            query = query.where(tables.audit.c.number < before)
        if action is not None:
            query = query.where(tables.audit.c.action == action)
        return self._entries(query.limit(most))

    def _entries(self, query: Select[Any]) -> list[Entry]:
        rows = self._connection.execute(query)
        return [Entry(**{**row._asdict(), "digest": row.digest.hex()}) for row in rows]

    def audit_problems(self) -> list[str]:
        """What is wrong with the audit: the first line that was changed, is missing or was put in."""
        before = b""
        rows = self._connection.execute(select(tables.audit).order_by(tables.audit.c.number))
        for number, row in enumerate(rows, 1):
            line = {name: value for name, value in row._asdict().items() if name != "digest"}
            if row.number != number or not hmac.compare_digest(self._link(before, line), row.digest):
                return [f"Line {number} of the audit was changed, or lines before it are missing."]
            before = row.digest
        return []

    def _link(self, before: bytes, line: dict[str, object]) -> bytes:
        return hmac.digest(self._vault.audit, before + json.dumps(line, sort_keys=True).encode(), "sha256")

    # Requests that are sent twice

    def once(self, actor: str, key: str, request: bytes, work: Callable[[], bytes]) -> bytes:
        """The answer to a request that may be sent again: it is worked on once.

        Args:
            actor: Who asks.
            key: That the caller drew for this request.
            request: What is asked, to tell when a key is used for another.
            work: What makes the answer, which is kept for a day and must name nobody.

        Raises:
            OtherRequest: when the key was used for another.
        """
        token = hmac.digest(self._vault.answers, f"{actor}\0{key}".encode(), "sha256")
        digest = hmac.digest(self._vault.answers, hashlib.sha256(request).digest(), "sha256")
        self._connection.execute(_FORGET_ANSWERS, {"before": self.now - ANSWERS_KEPT})
        row = self._connection.execute(_ANSWER, {"which": token}).one_or_none()
        if row is not None:
            if not hmac.compare_digest(row.request, digest):
                raise OtherRequest(
                    "This idempotency key was used for another request.", hint="Draw a new one for each request."
                )
            return bytes(row.answer)
        answer = work()
        values = {"token": token, "request": digest, "at": self.now, "answer": answer}
        self._connection.execute(_ADD_ANSWER, values)
        return answer

    # Keys of the service

    def add_key(self, ident: str, digest: bytes, tenant: str, scopes: str, expires: int) -> None:
        """Keep what tells a key of the service, which is not the key."""
        values = {
            "id": ident,
            "digest": digest,
            "tenant": tenant,
            "scopes": scopes,
            "created": self.now,
            "expires": expires,
        }
        self._connection.execute(tables.api_keys.insert(), [values])

    def remove_key(self, ident: str) -> bool:
        """Forget a key of the service; False where there was none."""
        found = self._connection.scalar(select(func.count()).where(tables.api_keys.c.id == ident))
        self._connection.execute(delete(tables.api_keys).where(tables.api_keys.c.id == ident))
        return bool(found)


def key_digest(vault: Vault, key: str, tenant: str, scopes: str, expires: int) -> bytes:
    """What is kept of a key of the service: of its SHA-256 and its rights, so that neither can be edited."""
    about = json.dumps([tenant, scopes, expires]).encode()
    return hmac.digest(vault.audit, b"api key" + hashlib.sha256(key.encode()).digest() + about, "sha256")


def signed(vault: Vault, name: str, value: bytes) -> bytes:
    """A value that the store keeps of itself, and 32 bytes before it that authenticate it."""
    return hmac.digest(vault.audit, b"about " + name.encode() + b"\0" + vault.gallery + value, "sha256") + value


def unsigned(vault: Vault, name: str, content: bytes) -> bytes:
    """What `signed` signed.

    Raises:
        GalleryDamaged: when it was changed, or is another gallery's.
    """
    value = content[32:]
    if not hmac.compare_digest(signed(vault, name, value), content):
        raise GalleryDamaged(
            "The gallery was edited, or these are not its keys.",
            hint="Give its own with --keys. If these are, the database was edited: restore it from a backup.",
        )
    return value
