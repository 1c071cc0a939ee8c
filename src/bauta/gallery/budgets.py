"""Budgets of differential privacy in a gallery: what was stored of a person adds up, and no more than the limit is.

Every record that is stored is a release, whether it is still there or was renewed since: who copied it has it. What is
counted leaves with the person when it is erased, as all else does, so that a person who is enrolled again begins anew:
a count that outlived an erasure would tell that somebody of that name was here.
"""

from __future__ import annotations

import hmac
import json
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from sqlalchemy import Column, Connection, Engine, Table, bindparam, delete, select

from bauta.errors import BudgetSpent, GalleryDamaged, SubjectUnknown, UsageError
from bauta.gallery import tables
from bauta.gallery.journal import EDITED
from bauta.gallery.vault import Vault
from bauta.gallery.writer import Writer, token_of
from bauta.privacy.mechanisms import Spent, number

releases = Table(
    "releases",
    tables.metadata,
    Column("token", tables.Blob(32), primary_key=True),  # of a subject; zeros for the limit
    Column("value", tables.Blob, nullable=False),  # 32 bytes that authenticate what follows
)
_LIMIT = bytes(32)
_KNOWN = select(releases).where(releases.c.token.in_((_LIMIT, bindparam("which"))))


class Store(Protocol):
    """What is needed of a `bauta.gallery.store.Store`."""

    engine: Engine
    vault: Vault

    def writing(self) -> AbstractContextManager[Writer]:
        """A transaction."""

    def uid(self, tenant: str, name: str) -> bytes | None:
        """The id of a subject."""


@dataclass(frozen=True)
class Budget:
    """What was released of a person so far.

    Attributes:
        spent: Epsilon of all of it.
        photos: How many were stored, those that were replaced among them.
        limit: Of a person; None where the gallery has none.
    """

    spent: float
    photos: int
    limit: float | None

    @property
    def left(self) -> float | None:
        """What may still be spent."""
        return None if self.limit is None else float(_exact(self.limit) - _exact(self.spent))

    @property
    def words(self) -> str:
        """All of it in a sentence."""
        of = "" if self.limit is None else f" of {number(self.limit)}"
        return f"epsilon {number(self.spent)}{of} over {self.photos} photo{'s' * (self.photos != 1)}"


def require_budget(limit: float, spent: Spent | None) -> None:
    """Let limits through that a gallery of this protector can keep.

    Raises:
        UsageError: when it is not a positive number, less than one photo spends, or the protector promises nothing.
    """
    if isinstance(limit, bool) or not 0 < limit < math.inf:
        raise UsageError(f"A limit cannot be {limit}.", hint="Give a positive number.")
    if spent is None:
        raise UsageError("That protector promises no epsilon.", hint="Leave --budget out, or use one such as peep.")
    if spent.image > limit:
        raise UsageError(
            f"A photo spends {number(spent.image)}, more than the limit of {number(limit)}: none could be enrolled.",
            hint="Give a higher limit, or a protector that was fitted with a smaller epsilon.",
        )


def set_limit(store: Store, limit: float, spent: Spent | None) -> None:
    """Let no more than this be released of any person from now on.

    Args:
        store: A gallery.
        limit: Epsilon of a person, over all records that are ever stored of them.
        spent: By a record of the gallery's protector.

    Raises:
        UsageError: as `require_budget`.
    """
    require_budget(limit, spent)
    with store.writing() as writer:
        connection, vault = _inside(writer)
        _keep(connection, vault, _LIMIT, {"limit": float(limit)})


def charge(writer: Writer, tenant: str, name: str, spent: Spent | None, photos: int = 1) -> None:
    """Count records of a person that are to be stored, in the transaction that stores them.

    Args:
        writer: Of the transaction.
        tenant: Whose gallery.
        name: Of the person.
        spent: By each record; None where the protector promises nothing: then nothing is counted.
        photos: How many records.

    Raises:
        BudgetSpent: when that would exceed the limit; nothing is stored then.
    """
    connection, vault = _inside(writer)
    token = token_of(vault, tenant, name)
    known, limit = _known(connection, vault, token)
    if spent is None:
        if limit is not None:
            raise BudgetSpent(
                "This gallery limits what is spent of a person, and its protector promises no epsilon.",
                hint="Enrol with a protector that does.",
            )
        return
    before, asked = _exact(known.get("spent", 0.0)), _exact(spent.person(photos))
    if limit is not None and before + asked > _exact(limit):
        raise BudgetSpent(
            f"The budget of this person is spent: {number(float(before))} of {number(limit)}, and "
            f"{number(float(asked))} is asked for.",
            hint="Store nothing more of this person; `bauta gallery budget` shows what was counted.",
        )
    counted = {"spent": float(before + asked), "photos": int(known.get("photos", 0)) + photos}
    _keep(connection, vault, token, counted)


def budget_of(store: Store, tenant: str, name: str) -> Budget | None:
    """What was released of a person; None where nothing is counted.

    Raises:
        SubjectUnknown: when none is enrolled.
    """
    if store.uid(tenant, name) is None:
        raise SubjectUnknown("Nobody of that name is enrolled.", hint="Check the name and the tenant.")
    return counted_of(store, tenant, name)


def counted_of(store: Store, tenant: str, name: str) -> Budget | None:
    """The same, of a subject that is known to be enrolled."""
    with tables.reading(store.engine) as connection:
        known, limit = _known(connection, store.vault, token_of(store.vault, tenant, name))
    return Budget(known["spent"], int(known["photos"]), limit) if known else None


def forget(connection: Connection) -> None:
    """Delete what was counted of people who are erased, in a transaction."""
    there = select(tables.subjects.c.token)
    connection.execute(delete(releases).where(releases.c.token != _LIMIT, releases.c.token.not_in(there)))


def _inside(writer: Writer) -> tuple[Connection, Vault]:
    return writer._connection, writer._vault


def _known(connection: Connection, vault: Vault, token: bytes) -> tuple[dict[str, float], float | None]:
    """What was counted of a subject, and the limit of all."""
    found: dict[bytes, dict[str, float]] = {}
    for one, value in connection.execute(_KNOWN, {"which": token}):
        if not hmac.compare_digest(_mac(vault, one, value[32:]), value[:32]):
            raise GalleryDamaged("What was released of a person was edited.", hint=EDITED)
        found[one] = json.loads(value[32:])
    return found.get(token, {}), found.get(_LIMIT, {}).get("limit")


def _keep(connection: Connection, vault: Vault, token: bytes, about: dict[str, float]) -> None:
    content = json.dumps(about, sort_keys=True).encode()
    connection.execute(delete(releases).where(releases.c.token == token))
    connection.execute(releases.insert(), [{"token": token, "value": _mac(vault, token, content) + content}])


def _mac(vault: Vault, token: bytes, content: bytes) -> bytes:
    return hmac.digest(vault.audit, b"bauta releases" + vault.gallery + token + content, "sha256")


def _exact(epsilon: float) -> Decimal:
    """As it was written: three times 0.1 is 0.3."""
    return Decimal(repr(float(epsilon)))
