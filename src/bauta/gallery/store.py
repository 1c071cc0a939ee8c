"""A store of protected faces: tenants, subjects and their records, sealed each under a key of the subject.

Two files, or a file and a PostgreSQL database::

    gallery   subjects (a random id, a keyed hash of the name, the name sealed), records (a state, and the row sealed),
              the audit, keys of the service as hashes
    keys      `bauta.gallery.vault`: a data key for each subject, and not part of the gallery's backups

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Row, delete, func, select

from bauta.errors import GalleryDamaged, GalleryError, GalleryVersion, OutputExists, UsageError
from bauta.gallery import budgets, tables
from bauta.gallery.journal import Entry, Journal, signed, unsigned
from bauta.gallery.makers import Maker
from bauta.gallery.reader import PAGE, Reader
from bauta.gallery.sealing import encode_name
from bauta.gallery.vault import Vault, new_file
from bauta.gallery.writer import Writer, about_store, bound, require_makers, revisions
from bauta.keys import DeploymentKey, ScryptCost

_REVISION = select(tables.about.c.value).where(tables.about.c.name == "revision")
_TENANT = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{tables.TENANT - 1}}}")


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


class Store(Reader):
    """Opened by `open`, made by `create`; threads and processes may share it.

    Attributes:
        vault: Its keys.
        makers: Of what it holds: who makes records now is the last, and others are from before a migration.
    """

    def __init__(self, engine: Engine, vault: Vault, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        with tables.reading(engine) as connection:
            about = _about(connection, vault)
            dialect = engine.dialect  # galleries from before have neither
            made = dialect.has_table(connection, "releases") and dialect.has_index(connection, "subjects", "by_tenant")
        if about["schema"] == 1:
            with tables.writing(engine) as connection:
                about = _about(connection, vault)  # another process may have done it
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
        super().__init__(engine, vault, [Maker(**one) for one in about["makers"]])
        if not made:
            with tables.writing(engine) as connection:
                budgets.releases.create(connection, checkfirst=True)
                tables.by_tenant.create(connection, checkfirst=True)
        self.finish()

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
        return cls._on(engine, vault, clock)

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
        return cls._on(tables.open_database(_address(place), durable=durable), Vault.open(keys, key), clock)

    @classmethod
    def _on(cls, engine: Engine, vault: Vault, clock: Callable[[], float]) -> Self:
        try:
            return cls(engine, vault, clock)
        except BaseException:
            vault.close()
            engine.dispose()
            raise

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
            gone = sorted(self.vault.without(uids))
            for start in range(0, len(gone), PAGE):
                part = gone[start : start + PAGE]
                connection.execute(delete(tables.records).where(tables.records.c.uid.in_(part)))
                connection.execute(delete(tables.subjects).where(tables.subjects.c.uid.in_(part)))
        tables.settle(self.engine)
        return len(gone)


def _about(connection: Connection, vault: Vault) -> dict[str, Any]:
    value = None
    if connection.dialect.has_table(connection, tables.about.name):
        value = connection.scalar(select(tables.about.c.value).where(tables.about.c.name == "store"))
    if value is None:
        raise GalleryDamaged("That database is not a gallery.", hint="`bauta gallery init` makes one.")
    found: dict[str, Any] = json.loads(unsigned(vault, "store", value))
    return found


def require_names(tenant: str, name: str = "x") -> None:
    """Let names through that can be stored.

    Raises:
        UsageError: when a tenant's is not 1 to 64 of a-z, 0-9, - and _, or a subject's is empty or too long.
    """
    if not _TENANT.fullmatch(tenant):
        raise UsageError("That is not the name of a tenant.", hint="It has 1 to 64 of a-z, 0-9, - and _.")
    encode_name(name)


def _tried(look: Callable[..., object], *given: object) -> list[str]:
    try:
        look(*given)
    except GalleryError as error:
        return [error.message]
    return []


def _address(place: Path | str) -> str:
    return tables.sqlite_url(place) if isinstance(place, Path) else place
