"""A store of protected faces: tenants, subjects and their records, sealed each under a key of the subject.

Two files, or a file and a PostgreSQL database::

    gallery   subjects (a random id, a keyed hash of the name, the name sealed), records (a state, and the row sealed),
              the audit, keys of the service as hashes
    keys      `bauta.gallery.vault`: a data key for each subject, and it is no part of the gallery's backups

A record is bound to its header, its subject and its state: who moves, exchanges or revives one in the database makes it
unreadable. Whatever leaves a subject, be it a record that was revoked or the subject itself, leaves with its key: what
stays is sealed under a new one, and the old is destroyed. So a backup of the gallery opens nothing that was erased.

Writers come one after the other, in all processes. A key is on the disk before anything is sealed under it, and it is
destroyed after what it sealed is deleted; what a crash leaves between the two is finished when the store is next
opened.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import BigInteger, Connection, Engine, Row, bindparam, delete, func, literal_column, select

from bauta.errors import GalleryDamaged, GalleryError, GalleryVersion, OutputExists, UsageError
from bauta.gallery import budgets, tables
from bauta.gallery.journal import EDITED, Entry, Journal, signed, unsigned
from bauta.gallery.makers import Maker
from bauta.gallery.sealing import RecordOpener, RecordSealer, encode_name, record_opener
from bauta.gallery.vault import Vault, new_file
from bauta.gallery.writer import Writer, about_store, bound, require_makers, revisions, token_of
from bauta.keys import DeploymentKey, ScryptCost

PAGE = 4096
"""Records that are read at a time."""
_REVISION = select(tables.about.c.value).where(tables.about.c.name == "revision")
_UID = select(tables.subjects.c.uid).where(tables.subjects.c.token == bindparam("token"))
_PERSON = (
    select(tables.subjects.c.uid, tables.records.c.state, tables.records.c.maker)
    .outerjoin(tables.records, tables.records.c.uid == tables.subjects.c.uid)
    .where(tables.subjects.c.token == bindparam("token"))
)
_TENANT = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{tables.TENANT - 1}}}")


class Found(NamedTuple):
    """A record as it was read and opened.

    Attributes:
        id: Of the record, 16 bytes.
        uid: Of its subject.
        tenant: Whose it is.
        row: What is stored of the face.
        revision: Of the store when it was written.
        maker: Place of who made it among `Store.makers`.
    """

    id: bytes
    uid: bytes
    tenant: str
    row: bytes
    revision: int
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


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key of the service.

    Attributes:
        id: Its name.
        tenant: Whose gallery it opens.
        scopes: What it may do, with blanks between.
        expires: Seconds since 1970.
    """

    id: str
    tenant: str
    scopes: str
    expires: int


class Store:
    """Opened by `open`, made by `create`; threads and processes may share it.

    Attributes:
        vault: Its keys.
        makers: Of what it holds: who makes records now is the last, and others are from before a migration.
    """

    def __init__(self, engine: Engine, vault: Vault, clock: Callable[[], float] = time.time) -> None:
        self.engine, self.vault, self._clock = engine, vault, clock
        with tables.reading(engine) as connection:
            about = self._about(connection)
            made = engine.dialect.has_table(connection, budgets.releases.name)  # galleries from before have none
        if about["schema"] == 1:
            with tables.writing(engine) as connection:
                about = self._about(connection)  # another process may have done it
                if about["schema"] == 1:
                    tables.upgrade(connection)
                    about = {"schema": tables.SCHEMA, "makers": [about["maker"]]}
                    value = signed(vault, "store", about_store([Maker(**about["makers"][0])]))
                    names = tables.about.c.name
                    connection.execute(tables.about.update().where(names == "store").values(value=value))
        if about["schema"] != tables.SCHEMA:
            raise GalleryVersion(
                f"The gallery has version {about['schema']}; this Bauta reads {tables.SCHEMA}.", hint="Update Bauta."
            )
        self.makers = tuple(Maker(**one) for one in about["makers"])
        if not made:
            with tables.writing(engine) as connection:
                budgets.releases.create(connection, checkfirst=True)
        self.finish()

    def _about(self, connection: Connection) -> dict[str, Any]:
        value = None
        if self.engine.dialect.has_table(connection, tables.about.name):
            value = connection.scalar(select(tables.about.c.value).where(tables.about.c.name == "store"))
        if value is None:
            raise GalleryDamaged("That database is not a gallery.", hint="`bauta gallery init` makes one.")
        found: dict[str, Any] = json.loads(unsigned(self.vault, "store", value))
        return found

    @property
    def maker(self) -> Maker:
        """Who makes records now."""
        return self.makers[-1]

    @classmethod
    def create(
        cls,
        place: Path | str,
        keys: Path,
        key: DeploymentKey,
        maker: Maker,
        *,
        durable: bool = True,
        cost: ScryptCost | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """A new, empty store.

        Args:
            place: A file, or the address of an empty PostgreSQL database.
            keys: File of the keys.
            key: Seals the keys.
            maker: Of what it will hold.
            durable: See `bauta.gallery.tables.open_database`.
            cost: Of scrypt, for a passphrase.
            clock: Seconds since 1970.

        Raises:
            OutputExists: when there is one already.
            OutputError: when it cannot be written.
        """
        if isinstance(place, Path) and place.exists():
            raise OutputExists(f"{place} exists already.", hint="Give another place for the gallery.")
        engine = tables.open_database(_address(place), durable=durable)
        vault = Vault.create(keys, key, cost=cost)
        if isinstance(place, Path):
            new_file(place, "gallery")
        with tables.writing(engine) as connection:
            if engine.dialect.has_table(connection, tables.about.name):
                raise UsageError("There is a gallery in this database.", hint="Give an empty one.")
            tables.metadata.create_all(connection)
            values = {"store": about_store([maker]), "revision": b"0 0 1"}
            connection.execute(
                tables.about.insert(),
                [{"name": name, "value": signed(vault, name, value)} for name, value in values.items()],
            )
        return cls(engine, vault, clock)

    @classmethod
    def open(
        cls,
        place: Path | str,
        keys: Path,
        key: DeploymentKey,
        *,
        durable: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """A store that `create` made; what a crash interrupted is finished first.

        Raises:
            GalleryError: when it cannot be read.
            WrongKey: when its keys are under another deployment key.
            GalleryDamaged: when the keys are another gallery's, or it is none.
        """
        if isinstance(place, Path) and not place.is_file():
            raise GalleryError(f"The gallery {place} is not there.", hint="`bauta gallery init` makes one.")
        return cls(tables.open_database(_address(place), durable=durable), Vault.open(keys, key), clock)

    def now(self, last: int | None) -> int:
        """Seconds since 1970; never less than the audit's last line, so that a clock that goes back revives nothing."""
        return max(int(self._clock()), last or 0)

    def close(self) -> None:
        """Let go of database and keys."""
        self.vault.close()
        self.engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """A transaction: all that is done with the writer is done, or nothing is."""
        with tables.writing(self.engine) as connection:
            yield Writer(connection, self.vault, self.makers, self._clock())

    def migrate(self, maker: Maker, actor: str) -> int:
        """Records are made by another recogniser or protector from now on; returns how many people wait for new photos.

        Those match as they did until they are enrolled again, or renewed with a photo: then what was made before
        leaves, with its key. Other processes that have the store open must be started again.

        Raises:
            UsageError: when it is the same, or an earlier migration is not over.
        """
        with self.writing() as writer:
            writer.migrate(maker)
            writer.audit(actor, "", "migrate", outcome=maker.protector[:32])
        self.makers = (*self.makers, maker)
        return self.stats()["waiting"]

    def drop_former(self, actor: str) -> tuple[int, int]:
        """Erase what still waits from a migration; returns how many records, and how many people had nothing else."""
        with self.writing() as writer:
            found = writer.drop_former()
            writer.audit(actor, "", "end-migration")
        self.finish()
        return found

    def finish(self) -> bool:
        """Destroy the keys of what was deleted; False while an open reader keeps deleted bytes in a file.

        Raises:
            OutputError: when the keys cannot be written.
        """
        with tables.reading(self.engine) as connection:
            if not connection.execute(select(tables.shed.c.uid).limit(1)).all():
                return True
        with tables.writing(self.engine) as connection:  # alone: nobody takes a key into use meanwhile
            uids = list(connection.scalars(select(tables.shed.c.uid)))
            used = set(connection.scalars(select(tables.subjects.c.uid).where(tables.subjects.c.uid.in_(uids))))
            if used:
                raise GalleryDamaged(
                    "The gallery lists keys of subjects that are enrolled as to be destroyed.",
                    hint="It was edited: restore it from a backup.",
                )
            self.vault.destroy(uids)
            budgets.forget(connection)
        if not (tables.settle(self.engine) and self.vault.settle()):
            return False
        with tables.writing(self.engine) as connection:
            connection.execute(delete(tables.shed).where(tables.shed.c.uid.in_(uids)))
        return tables.settle(self.engine)

    # Reading

    def revision(self) -> tuple[int, int]:
        """Number of the last change, and of the last that removed records."""
        with tables.reading(self.engine) as connection:
            value = connection.scalar(_REVISION)
        now, removed, makers = revisions(None if value is None else unsigned(self.vault, "revision", value))
        require_makers(makers, self.makers)
        return now, removed

    def format(self, maker: int | None = None) -> str | None:
        """The format of the rows that a maker made, the last by default, JSON; None before the first."""
        with tables.reading(self.engine) as connection:
            return Writer(connection, self.vault, self.makers, self._clock()).format(maker)

    def entries(self, tenant: str | None, after: int = 0, most: int = 100) -> list[Entry]:
        """Lines of the audit after a number, of a tenant or of all."""
        with tables.reading(self.engine) as connection:
            return Journal(connection, self.vault, self._clock()).entries(tenant, after, most)

    def latest(self, tenant: str, before: int | None = None, most: int = 100, action: str | None = None) -> list[Entry]:
        """Lines of the audit of a tenant before a number, the last first; of one action where it is named."""
        with tables.reading(self.engine) as connection:
            return Journal(connection, self.vault, self._clock()).latest(tenant, before, most, action)

    def ids(self) -> set[bytes]:
        """Ids of the records that are active."""
        with tables.reading(self.engine) as connection:
            return set(connection.scalars(select(tables.records.c.id).where(tables.records.c.state == "active")))

    def active(self, since: int = -1) -> Iterator[list[Found]]:
        """Records that are active and were written after a revision, opened, some at a time.

        Records whose key was destroyed are passed over: a restored backup may hold such.

        Raises:
            GalleryDamaged: when one was changed.
        """
        # All are read in the order in which SQLite has its rows, each page once; what is new by the index of revisions.
        # What is revoked is left out below: for a state in the query, SQLite would take the index of states.
        revision, ident = tables.records.c.revision, tables.records.c.id
        rowid = literal_column("records.rowid", BigInteger)
        order = [rowid if self.engine.dialect.name == "sqlite" else ident] if since < 0 else [revision, ident]
        query = (
            select(tables.records, tables.subjects.c.tenant, tables.subjects.c.token, order[-1].label("place"))
            .join(tables.subjects, tables.records.c.uid == tables.subjects.c.uid)
            .order_by(*order)
            .limit(PAGE)
        )
        after = None if since < 0 else revision > since
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

    def people(self, tenant: str) -> list[Person]:
        """The subjects of a tenant, by name."""
        subjects, records = tables.subjects, tables.records
        with tables.reading(self.engine) as connection:
            rows = connection.execute(select(subjects).where(subjects.c.tenant == tenant)).all()
            counts: dict[bytes, Counter[str]] = {}
            query = select(records.c.uid, records.c.state, records.c.maker, func.count())
            query = query.join(subjects, records.c.uid == subjects.c.uid).where(subjects.c.tenant == tenant)
            grouped = query.group_by(records.c.uid, records.c.state, records.c.maker)
            for uid, state, maker, count in connection.execute(grouped):
                of = counts.setdefault(uid, Counter())
                of[state] += count
                of["waiting"] += maker < len(self.makers) - 1
        keys, none = self.vault.some(row.uid for row in rows), Counter[str]()
        named = [(self._name(row, keys[row.uid]), counts.get(row.uid, none)) for row in rows if row.uid in keys]
        return sorted(Person(name, of["active"], of["revoked"], of["waiting"] > 0) for name, of in named)

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

    def api_keys(self) -> list[ApiKey]:
        """Keys of the service, those that end first first."""
        with tables.reading(self.engine) as connection:
            rows = connection.execute(select(tables.api_keys).order_by(tables.api_keys.c.expires))
            return [ApiKey(row.id, row.tenant, row.scopes, row.expires) for row in rows]

    def verify(self) -> list[str]:
        """Open every record, name and row of the audit, tidy the keys up, and say what is wrong, a line each."""
        problems, openers = [], self._openers()

        def opened(row: Row[Any], token: bytes, key: bytes) -> bytes:
            return openers[row.maker](key, row.id, bound(token, row.state, row.until).encode(), row.sealed)

        last, seen = b"", 0
        while True:
            with tables.reading(self.engine) as connection:
                query = select(tables.subjects).where(tables.subjects.c.uid > last).order_by(tables.subjects.c.uid)
                people = connection.execute(query.limit(PAGE)).all()
                uids = [row.uid for row in people]
                rows = connection.execute(select(tables.records).where(tables.records.c.uid.in_(uids))).all()
            if not people:
                break
            last, keys, tokens = uids[-1], self.vault.some(uids), {row.uid: row.token for row in people}
            seen += len(rows)
            gone = sum(uid not in keys for uid in uids)
            if gone:
                problems.append(f"{gone} subjects were erased, and the database has them again: was a backup restored?")
            for row in people:
                if row.uid in keys:
                    problems += _tried(self._name, row, keys[row.uid])
            for row in rows:
                if row.uid in keys:
                    problems += _tried(opened, row, tokens[row.uid], keys[row.uid])
        with tables.writing(self.engine) as connection:
            total = connection.scalar(select(func.count()).select_from(tables.records))
            uids = [*connection.scalars(select(tables.subjects.c.uid)), *connection.scalars(select(tables.shed.c.uid))]
            writer = Writer(connection, self.vault, self.makers, self._clock())
            problems += writer.audit_problems()
            if total != seen:
                problems.append("There are records that belong to no subject, or others wrote meanwhile.")
            self.vault.tidy(set(uids))
        return problems

    def forget_erased(self) -> int:
        """Delete subjects whose keys are destroyed, as a restored backup brings them back; returns how many."""
        with tables.writing(self.engine) as connection:
            uids = list(connection.scalars(select(tables.subjects.c.uid)))
            gone = sorted(set(uids) - self.vault.some(uids).keys())
            for start in range(0, len(gone), PAGE):
                part = gone[start : start + PAGE]
                connection.execute(delete(tables.records).where(tables.records.c.uid.in_(part)))
                connection.execute(delete(tables.subjects).where(tables.subjects.c.uid.in_(part)))
        tables.settle(self.engine)
        return len(gone)

    def _opened(self, rows: Iterable[Any]) -> list[Found]:
        rows = list(rows)
        keys, openers, found = self.vault.some(row.uid for row in rows), self._openers(), []
        for ident, uid, state, _, until, revision, maker, sealed, tenant, token, _ in rows:
            if (key := keys.get(uid)) is not None:
                row = openers[maker](key, ident, bound(token, state, until).encode(), sealed)
                found.append(Found(ident, uid, tenant, row, revision, maker))
        return found

    def _openers(self) -> _Openers:
        openers = [record_opener(self.vault.gallery, *one.digests) for one in self.makers]
        return _Openers(enumerate(openers))

    def _name(self, row: Row[Any], key: bytes) -> str:
        sealer = RecordSealer(key, self.vault.gallery, *self.makers[0].digests)
        name = sealer.open(sealer.header(row.uid, bound(row.token, "name")), row.name)
        return name.decode("utf-8", "surrogateescape")


def require_names(tenant: str, name: str = "x") -> None:
    """Let names through that can be stored.

    Raises:
        UsageError: when a tenant's is not 1 to 64 of a-z, 0-9, - and _, or a subject's is empty or too long.
    """
    if not _TENANT.fullmatch(tenant):
        raise UsageError("That is not the name of a tenant.", hint="It has 1 to 64 of a-z, 0-9, - and _.")
    encode_name(name)


class _Openers(dict[int, RecordOpener]):
    """By maker."""

    def __missing__(self, maker: int) -> RecordOpener:
        raise GalleryDamaged("A record names a maker that this gallery never had.", hint=EDITED)


def _tried(look: Callable[..., object], *given: object) -> list[str]:
    try:
        look(*given)
    except GalleryError as error:
        return [error.message]
    return []


def _address(place: Path | str) -> str:
    return tables.sqlite_url(place) if isinstance(place, Path) else place
