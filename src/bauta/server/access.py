"""Who may do what: keys with scopes, a tenant and an end, and how often they may ask."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from sqlalchemy import bindparam, select

from bauta.encrypted.budget import Budget
from bauta.errors import PeerError, UsageError
from bauta.gallery import tables
from bauta.gallery.journal import DAY, key_digest
from bauta.gallery.store import Store, require_names
from bauta.settings import Range, Settings

Scope = Literal["enrol", "match", "search", "read", "revoke", "renew", "erase", "audit", "admin"]
_LAST = select(tables.audit.c.at).order_by(tables.audit.c.number.desc()).limit(1).scalar_subquery()
_KEY = select(tables.api_keys, _LAST.label("last")).where(tables.api_keys.c.id == bindparam("ident"))
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class ServerLimits(Settings):
    """What the service takes.

    Attributes:
        megabytes: Of a photo, before it is decoded.
        requests: That a key gets in a minute.
        comparisons: That a key gets in an hour with one subject: each tells a bit, and bits add up to a template.
        at_once: Requests that are worked on at a time; others are told to come back.
        seconds: That a request under way gets when the service is to stop.
    """

    title = "The service"
    megabytes: Annotated[int, Range(at=1, to=100)] = 10
    requests: Annotated[int, Range(at=1)] = 600
    comparisons: Annotated[int, Range(at=1)] = 60
    at_once: Annotated[int, Range(at=1, to=1000)] = 32
    seconds: Annotated[int, Range(at=1, to=600)] = 30


class Refused(Exception):
    """A request that is not let through; `status` is HTTP's, and it never leaves the server as an exception."""

    def __init__(self, status: int, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        id: Of the key.
        tenant: Whose gallery it opens, and no other.
        scopes: What it may do.
        expires: Seconds since 1970.
    """

    id: str
    tenant: str
    scopes: frozenset[str]
    expires: int


@dataclass(frozen=True)
class NewKey:
    """A key that was made; it is shown once, and only its digest is kept.

    Attributes:
        id: Its name, which is not a secret.
        secret: What a client sends.
        expires: Seconds since 1970.
    """

    id: str
    secret: str
    expires: int


def make_key(store: Store, tenant: str, scopes: Iterable[str], days: int = 365) -> NewKey:
    """A key for a tenant.

    Raises:
        UsageError: when a scope or the tenant's name is not allowed, or the days are not 1 to 3650.
    """
    require_names(tenant)
    wanted = sorted(set(scopes))
    if not wanted or set(wanted) - set(SCOPES) or not 1 <= days <= 3650:
        raise UsageError("That key cannot be made.", hint=f"Scopes are {', '.join(SCOPES)}; days 1 to 3650.")
    ident = secrets.token_hex(6)
    secret = f"bauta_{ident}_{secrets.token_urlsafe(32)}"
    with store.writing() as writer:
        expires = writer.now + days * DAY
        rights = " ".join(wanted)
        writer.add_key(ident, key_digest(store.vault, secret, tenant, rights, expires), tenant, rights, expires)
        writer.audit("cli", tenant, "key", outcome=ident)
    return NewKey(ident, secret, expires)


def remove_key(store: Store, ident: str) -> None:
    """End a key at once.

    Raises:
        UsageError: when there is none of that id.
    """
    with store.writing() as writer:
        if not writer.remove_key(ident):
            raise UsageError(f"There is no key {ident}.", hint="`bauta gallery keys` lists them.")
        writer.audit("cli", "", "unkey", outcome=ident)


class Access:
    """Lets callers through.

    Args:
        store: That knows their keys.
        limits: How often they may ask.
    """

    def __init__(self, store: Store, limits: ServerLimits) -> None:
        self._store, self._limits = store, limits
        self._requests = Budget(limits.requests, 60.0)
        self._comparisons = Budget(limits.comparisons, 3600.0)

    def caller(self, header: str | None, scope: Scope) -> Caller:
        """Whose key a header has.

        Raises:
            Refused: 401 without a key that is known and has not ended, 403 without the scope, 429 when it asks too
                often.
        """
        kind, _, secret = (header or "").partition(" ")
        parts = secret.split("_", 2)
        row = None
        if kind.lower() == "bearer" and len(parts) == 3 and parts[0] == "bauta" and len(parts[1]) <= 16:
            with tables.reading(self._store.engine) as connection:
                row = connection.execute(_KEY, {"ident": parts[1]}).one_or_none()
        if row is None or not secret.isascii():
            raise _unknown()
        digest = key_digest(self._store.vault, secret, row.tenant, row.scopes, row.expires)
        if not hmac.compare_digest(digest, row.digest) or row.expires <= self._store.now(row.last):
            raise _unknown()
        caller = Caller(row.id, row.tenant, frozenset(row.scopes.split()), row.expires)
        self._spend(self._requests, caller.id, "requests in a minute")
        if scope not in caller.scopes:
            raise Refused(403, "forbidden", f"This key lacks the scope {scope}.", hint="Use one that has it.")
        return caller

    def require_still(self, caller: Caller) -> None:
        """Let through who was let through before, if its key was not ended since; a request is taken off its budget.

        Raises:
            Refused: 401 when the key has ended, 429 when it asks too often.
        """
        with tables.reading(self._store.engine) as connection:
            row = connection.execute(_KEY, {"ident": caller.id}).one_or_none()
        if row is None or caller.expires <= self._store.now(row.last):
            raise _unknown()
        self._spend(self._requests, caller.id, "requests in a minute")

    def compare(self, caller: Caller, subject: str) -> None:
        """Take a comparison with a subject off its budget, whether or not it is enrolled.

        Raises:
            Refused: 429 when it is used up.
        """
        self._spend(self._comparisons, f"{caller.id} {subject}", "comparisons with a subject in an hour")

    def _spend(self, budget: Budget, key: str, what: str) -> None:
        try:
            budget.spend(key.encode(), 1)
        except PeerError as error:
            raise Refused(
                429, "too-often", f"This key gets {budget.decisions} {what}.", hint="Try again later."
            ) from error


def _unknown() -> Refused:
    return Refused(
        401, "unauthorized", "A key is needed that is known here and has not ended.", hint="Authorization: Bearer KEY"
    )
