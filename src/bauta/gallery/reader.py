"""Reading of a store: records and names as they were sealed, opened; nothing here writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Engine, Row, bindparam, exists, func, literal_column, select

from bauta.errors import GalleryDamaged
from bauta.gallery import tables
from bauta.gallery.journal import EDITED
from bauta.gallery.makers import Maker
from bauta.gallery.sealing import RecordOpener, RecordSealer, record_opener
from bauta.gallery.vault import Vault
from bauta.gallery.writer import bound, token_of

PAGE = 4096
"""Records that are read at a time."""
SOME = 64
"""Subjects that are read at a time: a page shows fewer."""
_UID = select(tables.subjects.c.uid).where(tables.subjects.c.token == bindparam("token"))
_PERSON = (
    select(tables.subjects.c.uid, tables.records.c.state, tables.records.c.maker)
    .outerjoin(tables.records, tables.records.c.uid == tables.subjects.c.uid)
    .where(tables.subjects.c.token == bindparam("token"))
)


Part = tuple[Any, Any]
"""Places from which on, and below which; None for no bound."""


class Found(NamedTuple):
    """A record as it was read and opened.

    Attributes:
        id: Of the record, 16 bytes.
        uid: Of its subject.
        tenant: Whose it is.
        row: What is stored of the face.
        maker: Place of who made it among `Store.makers`.
    """

    id: bytes
    uid: bytes
    tenant: str
    row: bytes
    maker: int


class Person(NamedTuple):
    """A subject.

    Attributes:
        name: What it is called.
        active: Records that match.
        revoked: Records that do not, until they are restored or erased.
        waiting: Whether a former maker made some: they match until the subject is enrolled again.
    """

    name: str
    active: int
    revoked: int
    waiting: bool


class Reader:
    """What is read of a store.

    Args:
        engine: Of its database.
        vault: Its keys.
        makers: Of what it holds, the one that makes records now last.
    """

    def __init__(self, engine: Engine, vault: Vault, makers: Sequence[Maker]) -> None:
        self.engine, self.vault, self.makers = engine, vault, tuple(makers)

    def ids(self) -> set[bytes]:
        """Ids of the records that are active."""
        with tables.reading(self.engine) as connection:
            return set(connection.scalars(select(tables.records.c.id).where(tables.records.c.state == "active")))

    def active(self, since: int = -1, part: Part = (None, None)) -> Iterator[list[Found]]:
        """Records that are active and were written after a revision, opened, some at a time.

        Records whose key was destroyed are passed over: a restored backup may hold such.

        Args:
            since: Revision.
            part: Of all records, one of `parts`.

        Raises:
            GalleryDamaged: when one was changed.
        """
        # All are read in the order in which SQLite has its rows, each page once; what is new by the index of revisions.
        # What is revoked is left out below: for a state in the query, SQLite would take the index of states.
        revision, ident = tables.records.c.revision, tables.records.c.id
        order = [self._place()] if since < 0 else [revision, ident]
        query = (
            select(tables.records, tables.subjects.c.tenant, tables.subjects.c.token, order[-1].label("place"))
            .join(tables.subjects, tables.records.c.uid == tables.subjects.c.uid)
            .order_by(*order)
            .limit(PAGE)
        )
        after, below = None if since < 0 else revision > since, part[1]
        if part[0] is not None:
            after = order[-1] >= part[0]
        if below is not None:
            query = query.where(order[-1] < below)
        while True:
            with tables.reading(self.engine) as connection:
                rows = connection.execute(query if after is None else query.where(after)).all()
            if not rows:
                return
            last = rows[-1]
            after = order[-1] > last.place
            if since >= 0:
                after = (revision >= last.revision) & ((revision > last.revision) | after)
            yield self._opened(row for row in rows if row.state == "active")

    def people(self, tenant: str, *, after: bytes = b"", waiting: bool = False) -> Iterator[tuple[bytes, Person]]:
        """The subjects of a tenant, each with its place: in an order that says nothing of them, and stays.

        Args:
            tenant: Whose.
            after: Place to begin after.
            waiting: Only those who wait for a new photo since the store was migrated.
        """
        subjects, records, former = tables.subjects.c, tables.records.c, len(self.makers) - 1
        query = select(tables.subjects).where(subjects.tenant == tenant).order_by(subjects.token).limit(SOME)
        if waiting:
            query = query.where(exists().where(records.uid == subjects.uid, records.maker < former))
        while True:
            with tables.reading(self.engine) as connection:
                rows = connection.execute(query.where(subjects.token > after)).all()
                counts: dict[bytes, Counter[str]] = {row.uid: Counter() for row in rows}
                of = select(records.uid, records.state, records.maker).where(records.uid.in_(counts))
                for uid, state, maker in connection.execute(of):
                    counts[uid][state] += 1
                    counts[uid]["waiting"] += maker < former
            keys = self.vault.some(counts)
            for row in rows:
                if row.uid in keys:
                    of_one = counts[row.uid]
                    name = self._name(row, keys[row.uid])
                    yield row.token, Person(name, of_one["active"], of_one["revoked"], of_one["waiting"] > 0)
            if len(rows) < SOME:
                return
            after = rows[-1].token

    def name(self, uid: bytes) -> str | None:
        """The subject of that id; None when it is erased."""
        with tables.reading(self.engine) as connection:
            row = connection.execute(select(tables.subjects).where(tables.subjects.c.uid == uid)).one_or_none()
        key = None if row is None else self.vault.get(uid)
        return None if row is None or key is None else self._name(row, key)

    def uid(self, tenant: str, name: str) -> bytes | None:
        """The id of a subject; None where none is enrolled."""
        with tables.reading(self.engine) as connection:
            found: bytes | None = connection.scalar(_UID, {"token": token_of(self.vault, tenant, name)})
        return found if found is not None and self.vault.get(found) is not None else None

    def person(self, tenant: str, name: str) -> Person | None:
        """A subject of a tenant; None where none of that name is enrolled."""
        with tables.reading(self.engine) as connection:
            rows = connection.execute(_PERSON, {"token": token_of(self.vault, tenant, name)}).all()
        if not rows or self.vault.get(rows[0].uid) is None:
            return None
        of = Counter(state for _, state, _ in rows)
        former = len(self.makers) - 1
        return Person(name, of["active"], of["revoked"], any(maker < former for _, state, maker in rows if state))

    def stats(self, tenant: str | None = None) -> dict[str, int]:
        """Counts of one tenant or of all: subjects, records by state, who waits for new photos, pending erasures."""
        whose = [] if tenant is None else [tables.subjects.c.tenant == tenant]
        with tables.reading(self.engine) as connection:
            people = connection.scalar(select(func.count()).select_from(tables.subjects).where(*whose))
            rows = connection.execute(
                select(tables.records.c.state, func.count())
                .join(tables.subjects, tables.records.c.uid == tables.subjects.c.uid)
                .where(*whose)
                .group_by(tables.records.c.state)
            )
            counts = {"active": 0, "revoked": 0} | {row[0]: row[1] for row in rows}
            pending = connection.scalar(select(func.count()).select_from(tables.shed))
            waiting = 0
            if len(self.makers) > 1:
                query = (
                    select(func.count(tables.records.c.uid.distinct()))
                    .join(tables.subjects, tables.records.c.uid == tables.subjects.c.uid)
                    .where(tables.records.c.maker < len(self.makers) - 1, *whose)
                )
                waiting = int(connection.scalar(query) or 0)
        return {"subjects": int(people or 0), **counts, "waiting": waiting, "erasures_pending": int(pending or 0)}

    def parts(self, count: int) -> list[Part]:
        """All records in so many parts for `active`, of about the same size."""
        place = self._place()
        with tables.reading(self.engine) as connection:
            ends: list[Any]
            if place.name == "id":
                ends = [(256**2 * number // count).to_bytes(2, "big") for number in range(1, count)]
            else:
                last = connection.scalar(select(func.max(place)).select_from(tables.records)) or 0
                ends = [int(last) * number // count for number in range(1, count)]
        return list(pairwise([None, *ends, None]))

    def _place(self) -> ColumnElement[Any]:
        """What orders the records as the database has them."""
        if self.engine.dialect.name == "sqlite":
            return literal_column("records.rowid", BigInteger)
        return tables.records.c.id

    def _opened(self, rows: Iterable[Any]) -> list[Found]:
        rows = list(rows)
        keys, openers, found = self.vault.some(row.uid for row in rows), self._openers(), []
        for ident, uid, state, _, until, _, maker, sealed, tenant, token, _ in rows:
            if (key := keys.get(uid)) is not None:
                row = openers[maker](key, ident, bound(token, state, until).encode(), sealed)
                found.append(Found(ident, uid, tenant, row, maker))
        return found

    def _openers(self) -> _Openers:
        openers = [record_opener(self.vault.gallery, *one.digests) for one in self.makers]
        return _Openers(enumerate(openers))

    def _name(self, row: Row[Any], key: bytes) -> str:
        sealer = RecordSealer(key, self.vault.gallery, *self.makers[0].digests)
        name = sealer.open(sealer.header(row.uid, bound(row.token, "name")), row.name)
        return name.decode("utf-8", "surrogateescape")


class _Openers(dict[int, RecordOpener]):
    """By maker."""

    def __missing__(self, maker: int) -> RecordOpener:
        raise GalleryDamaged("A record names a maker that this gallery never had.", hint=EDITED)
