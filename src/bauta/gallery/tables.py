"""Tables of a store, and how to open its database: SQLite, which needs no server, or PostgreSQL."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bauta.errors import GalleryDamaged, GalleryError, OutputError, UsageError
from bauta.gallery.vault import truncated

SCHEMA = 2
TENANT = 64  # letters of the name of a tenant
CACHE = 32_768
"""KiB that SQLite may hold in memory for a connection: its own 2 MiB make it read an index from the file again and
again once a gallery has some ten thousand people."""

PAGE_SIZE = 8192
"""Bytes of a page of SQLite: three records of 512 float32 fit, where one fits into the 4096 that it takes otherwise."""

metadata = MetaData()


class Blob(LargeBinary):
    """Bytes. Both drivers take and give them as they are; what SQLAlchemy does with each value besides takes longer
    than some of the statements."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> None:
        """Nothing is done to what is written."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Nor to what is read."""


about = Table(
    "about",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("value", Blob, nullable=False),  # 32 bytes that authenticate what follows
)
subjects = Table(
    "subjects",
    metadata,
    Column("uid", Blob(16), primary_key=True),  # random; the id of the subject's key too
    Column("tenant", String(TENANT), nullable=False),
    Column("token", Blob(32), nullable=False, unique=True),  # of tenant and name, under a key
    Column("name", Blob, nullable=False),  # sealed
)
records = Table(
    "records",
    metadata,
    Column("id", Blob(16), primary_key=True),
    Column("uid", Blob(16), nullable=False, index=True),
    Column("state", String(8), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),  # of a revoked record: when it is erased; otherwise 0
    Column("revision", BigInteger, nullable=False, index=True),
    Column("maker", Integer, nullable=False, server_default="0"),  # place among the gallery's makers
    Column("sealed", Blob, nullable=False),
)
by_tenant = Index("by_tenant", subjects.c.tenant, subjects.c.token)
due = Index("due", records.c.until)
by_state = Index("by_state", records.c.state, records.c.id)  # which are active is asked after each removal
shed = Table(  # keys that are to be destroyed, and are not yet, or whose bytes an open reader still holds
    "shed",
    metadata,
    Column("uid", Blob(16), primary_key=True),
)
audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("tenant", String(TENANT), nullable=False),
    Column("action", String(16), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("trace", String(32), nullable=False),
    Column("digest", Blob(32), nullable=False),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("digest", Blob(32), nullable=False),
    Column("tenant", String(TENANT), nullable=False),
    Column("scopes", String(128), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
)
answers = Table(
    "answers",
    metadata,
    Column("token", Blob(32), primary_key=True),
    Column("request", Blob(32), nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
    Column("answer", Blob, nullable=False),
)


def sqlite_url(path: Path) -> str:
    """The address of a file, for `open_database`."""
    return f"sqlite:///{path.absolute()}"


def open_database(address: str, *, durable: bool = True) -> Engine:
    """An engine whose SQLite files overwrite what is deleted, and whose writers come one after the other.

    Args:
        address: ``sqlite:///path`` or ``postgresql://...``.
        durable: Wait for the disk at every commit. Without, the last commits may be lost when the power fails; not
            when a process is killed.

    Raises:
        UsageError: when it is neither.
    """
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise UsageError("The address of the database cannot be read.", hint="Give postgresql://...") from error
    kind = url.get_backend_name()
    if kind == "postgresql":
        engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, hide_parameters=True)
        level = "on" if durable else "off"

        @event.listens_for(engine, "connect")
        def _connect(connection: Any, _: Any) -> None:
            connection.execute(f"SET synchronous_commit = {level}")
            connection.commit()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            if connection.get_execution_options().get("writing"):
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})

        return engine
    if kind != "sqlite" or not url.database:
        raise UsageError(f"A gallery is not kept in {kind}.", hint="Give a folder, or postgresql://...")
    engine = create_engine(url, connect_args={"timeout": 20}, hide_parameters=True)
    synchronous = "FULL" if durable else "NORMAL"

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin below, and not where the driver thinks
        for pragma in (
            f"page_size = {PAGE_SIZE}",  # of a new file; it stays as it is in others
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            "secure_delete = ON",
            "temp_store = MEMORY",
            f"cache_size = {-CACHE}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin_immediate(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing")
        raw: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        raw.execute("BEGIN IMMEDIATE" if writing else "BEGIN")  # at a tenth of what SQLAlchemy takes for it

    return engine


_turns: WeakKeyDictionary[Engine, threading.Lock] = WeakKeyDictionary()
_lock = threading.Lock()
_FAILURES = (SQLAlchemyError, sqlite3.Error)
_LOCK = int.from_bytes(hashlib.sha256(b"bauta gallery").digest()[:7], "big")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction, alone: the next writer, in this process or another, waits.

    Raises:
        OutputError: when it cannot be written, such as on a full disk; nothing of it was.
    """
    with _lock:
        turn = _turns.setdefault(engine, threading.Lock())
    try:  # in turns here, since SQLite's own way to wait is not fair and ends; other processes wait that way
        with turn, engine.connect().execution_options(writing=True) as connection, connection.begin():
            yield connection
    except _FAILURES as error:
        raise OutputError(
            f"The gallery cannot be written: {_why(error)}.", hint="Check the disk and the database; nothing changed."
        ) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One short look.

    Raises:
        GalleryError: when it cannot be read.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except _FAILURES as error:
        original = getattr(error, "orig", error)
        damaged = getattr(original, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        kind, hint = (GalleryDamaged, "Restore it from a backup.") if damaged else (GalleryError, "Check the database.")
        raise kind(f"The gallery cannot be read: {_why(error)}.", hint=hint) from error


def upgrade(connection: Connection) -> None:
    """Bring the tables of version 1 to this one: records say who made them."""
    connection.execute(text("ALTER TABLE records ADD COLUMN maker INTEGER NOT NULL DEFAULT 0"))
    by_state.create(connection)


def settle(engine: Engine) -> bool:
    """Whether nothing of what was deleted is left in SQLite's write-ahead log; a reader elsewhere may hold it there.

    PostgreSQL keeps deleted bytes in its own log for as long as it likes: there only the key's destruction erases, and
    this is True.
    """
    if engine.dialect.name != "sqlite":
        return True
    raw = engine.raw_connection()
    try:
        return truncated(raw.driver_connection)  # type: ignore[arg-type]
    except sqlite3.Error:  # the disk, or a lock: not settled, and asked again later
        return False
    finally:
        raw.close()


def _why(error: SQLAlchemyError | sqlite3.Error) -> str:
    original = error if isinstance(error, sqlite3.Error) else getattr(error, "orig", None)
    return " ".join(str(original or type(error).__name__).split())[:200]
