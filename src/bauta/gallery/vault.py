"""Keys of subjects, in a file of their own: whoever destroys one there has erased what was sealed under it, everywhere.

The file is SQLite. It holds a data key for each subject, wrapped under a root key, and the root key wrapped under the
deployment key. It is not part of a store's backups: a backup of the store holds ciphertext, and once a key is gone here
nothing opens what it sealed. Backups of this file undo erasures made since: keep few, and rotate once one was used.

Keys are made ahead of need, some at a time, so that an enrolment waits for the disk once and not twice.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bauta.errors import GalleryDamaged, GalleryError, GalleryVersion, OutputError, OutputExists, UsageError, WrongKey
from bauta.gallery.sealing import NONCE, WrappedKey, new_data_key, new_id, new_ids
from bauta.keys import DeploymentKey, ScryptCost

VERSION = 1
AHEAD = 256
"""Keys that are made at a time."""
PATIENCE = 1000
"""Milliseconds that `truncated` waits."""
_SECRETS = 96  # bytes: of the tokens of names, of the audit, of what answers are remembered by


class Vault:
    """The key file of one store. Made by `create`, or opened by `open`; several processes may have it open.

    Attributes:
        path: Of the file.
        gallery: Id of the store, 16 bytes.
        tokens: Key from which tokens of names are made; it stays when the deployment key changes, as the next two.
        root: Key under which those of subjects are wrapped.
        audit: Key of the audit's chain.
        answers: Key under which requests are remembered.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, key: DeploymentKey | bytes) -> None:
        self.path, self._connection, self._lock = path, connection, threading.RLock()
        self._ahead: list[tuple[bytes, bytes]] = []
        about = dict(connection.execute("SELECT name, value FROM about"))
        if about.get("version") != str(VERSION).encode():
            raise GalleryVersion(
                f"{path} is not a key store of this version of Bauta.", hint="Give the one of this gallery."
            )
        self.gallery: bytes = about["gallery"]
        self._wrapped: bytes = about["root"]
        if isinstance(key, DeploymentKey):
            key = WrappedKey.from_bytes(self._wrapped).unwrap(key, self.gallery, str(path))
        self.root = key
        shared = self._open(b"secrets", about["secrets"])
        self.tokens, self.audit, self.answers = shared[:32], shared[32:64], shared[64:]

    @classmethod
    def create(cls, path: Path, key: DeploymentKey, *, cost: ScryptCost | None = None) -> Self:
        """A new key file, which only its owner can read.

        Raises:
            OutputExists: when there is a file of that name.
            OutputError: when it cannot be written.
        """
        new_file(path, "key store")
        connection = _connected(path)
        gallery, root = new_id(), new_data_key()
        with _transaction(connection, path):
            connection.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB NOT NULL)")
            connection.execute("CREATE TABLE keys (uid BLOB PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID")
            about = {
                "version": str(VERSION).encode(),
                "gallery": gallery,
                "root": WrappedKey.wrap(root, key, gallery, cost).to_bytes(),
                "secrets": _seal(AESGCM(root), gallery, b"secrets", secrets.token_bytes(_SECRETS)),
            }
            connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        return cls(path, connection, key)

    @classmethod
    def open(cls, path: Path, key: DeploymentKey) -> Self:
        """The key file that `create` made.

        Raises:
            GalleryError: when it is not there, or damaged.
            WrongKey: when it is under another deployment key.
        """
        if not path.is_file():
            raise GalleryError(f"The key store {path} is not there.", hint="Give its place; without it nothing opens.")
        try:
            connection = _connected(path, made=True)
            try:
                return cls(path, connection, key)
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, KeyError) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise _unreadable(path, error) from error
            raise GalleryDamaged(f"{path} is not a key store.", hint="Restore it from a backup.") from error

    @classmethod
    def again(cls, path: Path, root: bytes) -> Self:
        """The key file that another process of this service has open, by its root key."""
        return cls(path, _connected(path, made=True), root)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._ahead.clear()
            self._connection.close()

    def take(self, count: int = 1) -> list[tuple[bytes, bytes]]:
        """Ids and data keys that nothing is sealed under yet, safe on the disk already.

        Raises:
            OutputError: when they cannot be written.
        """
        with self._lock:
            ready = [self._ahead.pop() for _ in range(min(count, len(self._ahead)))]
            there = self.some(uid for uid, _ in ready)  # another process may have tidied up
            ready = [(uid, key) for uid, key in ready if there.get(uid) == key]
            if missing := count - len(ready):
                fresh = [(uid, new_data_key()) for uid in new_ids(missing + AHEAD)]
                cipher = AESGCM(self.root)
                with self._writing():
                    self._connection.executemany(
                        "INSERT INTO keys VALUES (?, ?)",
                        [(uid, _seal(cipher, self.gallery, uid, key)) for uid, key in fresh],
                    )
                ready += fresh[:missing]
                self._ahead += fresh[missing:]
            return ready

    def get(self, uid: bytes) -> bytes | None:
        """The data key of that id, or None where it was destroyed."""
        with self._lock, self._reading():
            row = self._connection.execute("SELECT wrapped FROM keys WHERE uid = ?", (uid,)).fetchone()
        return None if row is None else self._open(uid, row[0])

    def some(self, uids: Iterable[bytes]) -> dict[bytes, bytes]:
        """The data keys of those ids that have one."""
        wanted = list(dict.fromkeys(uids))
        found: dict[bytes, bytes] = {}
        about = _about(self.gallery, b"")
        with self._lock:
            cipher = AESGCM(self.root)
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                with self._reading():
                    rows = self._connection.execute(
                        f"SELECT uid, wrapped FROM keys WHERE uid IN ({marks})",  # noqa: S608 - question marks only
                        part,
                    ).fetchall()
                try:
                    for uid, wrapped in rows:
                        found[uid] = cipher.decrypt(wrapped[:NONCE], wrapped[NONCE:], about + uid)
                except (InvalidTag, ValueError):
                    self._open(uid, wrapped)  # says what is wrong
                    raise
        return found

    def without(self, uids: Iterable[bytes]) -> set[bytes]:
        """Those of these ids whose data keys were destroyed."""
        with self._lock, self._reading():
            there = {uid for (uid,) in self._connection.execute("SELECT uid FROM keys")}
        return set(uids) - there

    def destroy(self, uids: Iterable[bytes]) -> None:
        """Destroy data keys; their bytes are overwritten. `settle` says when no copy is left in the file.

        Raises:
            OutputError: when it cannot be written.
        """
        with self._lock, self._writing():
            self._connection.executemany("DELETE FROM keys WHERE uid = ?", [(uid,) for uid in uids])

    def settle(self) -> bool:
        """Whether what was destroyed is gone from the write-ahead log too; a reader elsewhere may hold it there."""
        with self._lock, self._reading():
            return truncated(self._connection)

    def rotate(self, key: DeploymentKey, new_key: DeploymentKey, *, cost: ScryptCost | None = None) -> str:
        """Wrap all keys under a new root key, and that under another deployment key.

        Copies of the file from before still open under the old deployment key: destroy it. Processes that have the file
        open must be started again.

        Returns:
            The id of the new root key, 32 hexadecimal digits.

        Raises:
            UsageError: when both keys are one.
            OutputError: when it cannot be written; nothing has changed then.
        """
        if key.same_as(new_key):
            raise UsageError(
                "The new key is the old one: whoever has it would open old copies and new ones alike.",
                hint="Make another: `bauta key -o new.key`.",
            )
        root = new_data_key()
        wrapped = WrappedKey.wrap(root, new_key, self.gallery, cost)
        with self._lock:
            with self._writing():
                rows = self._connection.execute("SELECT uid, wrapped FROM keys").fetchall()
                cipher = AESGCM(root)
                again = [(_seal(cipher, self.gallery, uid, self._open(uid, sealed)), uid) for uid, sealed in rows]
                self._connection.executemany("UPDATE keys SET wrapped = ? WHERE uid = ?", again)
                shared = _seal(cipher, self.gallery, b"secrets", self.tokens + self.audit + self.answers)
                self._connection.execute("UPDATE about SET value = ? WHERE name = 'root'", (wrapped.to_bytes(),))
                self._connection.execute("UPDATE about SET value = ? WHERE name = 'secrets'", (shared,))
            self.root, self._wrapped = root, wrapped.to_bytes()
            self.settle()
        return wrapped.key_id.hex()

    def tidy(self, used: set[bytes]) -> int:
        """Destroy keys that nothing is sealed under, and return how many; for `Store.verify`."""
        with self._lock, self._writing():
            there = {uid for (uid,) in self._connection.execute("SELECT uid FROM keys")}
            spare = there - used - {uid for uid, _ in self._ahead}
            self._connection.executemany("DELETE FROM keys WHERE uid = ?", [(uid,) for uid in spare])
        return len(spare)

    def _open(self, uid: bytes, sealed: bytes) -> bytes:
        try:
            return AESGCM(self.root).decrypt(sealed[:NONCE], sealed[NONCE:], _about(self.gallery, uid))
        except (InvalidTag, ValueError) as error:
            now = self._connection.execute("SELECT value FROM about WHERE name = 'root'").fetchone()
            if now is not None and now[0] != self._wrapped:
                raise WrongKey(
                    f"The keys in {self.path} were sealed under another key meanwhile.",
                    hint="Start this process again, with the new key.",
                ) from error
            raise GalleryDamaged(
                f"A key in {self.path} was changed, or is another's.", hint="Restore the key store from a backup."
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _transaction(self._connection, self.path):
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _unreadable(self.path, error) from error


def truncated(connection: sqlite3.Connection) -> bool:
    """Whether SQLite's write-ahead log could be emptied within a second: readers that hold it are not waited for."""
    patience = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute(f"PRAGMA busy_timeout = {PATIENCE}")
    try:
        return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")


def new_file(path: Path, what: str) -> None:
    """Take a name for a database that only its owner can read.

    Raises:
        OutputExists: when it is taken.
        OutputError: when it cannot be written.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError as error:
        raise OutputExists(f"{path} exists already.", hint=f"Give another place for the {what}.") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.", hint="Check folder and permissions.") from (
            error
        )


def _unreadable(path: Path, error: Exception) -> GalleryError:
    return GalleryError(f"{path} cannot be read: {error}.", hint="Check the disk, and who uses it.")


def _connected(path: Path, *, made: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=20, isolation_level=None, check_same_thread=False)
    if made:
        try:
            connection.execute("SELECT value FROM about LIMIT 1").fetchall()  # first: what is next changes any database
        except sqlite3.Error:
            connection.close()
            raise
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise OutputError(f"{path} cannot be written: {error}.", hint="Check the disk; nothing was changed.") from error


def _about(gallery: bytes, uid: bytes) -> bytes:
    return b"bauta subject key" + bytes([VERSION]) + gallery + uid


def _seal(root: AESGCM, gallery: bytes, uid: bytes, key: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE)
    return nonce + root.encrypt(nonce, key, _about(gallery, uid))
