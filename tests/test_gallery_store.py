"""The store, on SQLite and PostgreSQL: what is written is there, the erased is nowhere, what was edited is found."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import text

from bauta.errors import (
    GalleryDamaged,
    GalleryError,
    OtherMaker,
    OtherRequest,
    OutputError,
    OutputExists,
    SubjectUnknown,
    UsageError,
    WrongKey,
)
from bauta.gallery import tables
from bauta.gallery.journal import DAY
from bauta.gallery.sealing import subkey
from bauta.gallery.store import Maker, Store, require_names
from bauta.gallery.writer import token_of
from gallery_builders import key_of
from store_builders import MAKER, contents, enrolled, new_store, open_store, postgres, row

Make = Callable[..., Store]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bauta-pg-") as folder:
        Path(folder).chmod(0o755)
        with postgres(Path(folder)) as address:
            yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where the gallery is: a file, or a database that is empty."""
    if request.param == "sqlite":
        return tmp_path / "gallery.db"
    address: str = request.getfixturevalue("server")
    engine = tables.open_database(address)
    with tables.writing(engine) as connection:
        tables.metadata.drop_all(connection)
    engine.dispose()
    return address


@pytest.fixture
def store(tmp_path: Path, place: Path | str) -> Iterator[Store]:
    made = new_store(tmp_path, place)
    yield made
    made.close()


def test_what_is_enrolled_is_there_after_a_restart(tmp_path: Path, place: Path | str, store: Store) -> None:
    enrolled(store, "ann", 1, 2)
    enrolled(store, "bob", 3)
    enrolled(store, "ann", 4)
    store.close()
    again = open_store(tmp_path, place)
    assert contents(again) == {"ann": sorted([row(1), row(2), row(4)]), "bob": [row(3)]}
    assert sorted(one.name for _, one in again.people("acme")) == ["ann", "bob"]
    assert list(again.people("other")) == []
    assert again.stats() == {"subjects": 2, "active": 4, "revoked": 0, "waiting": 0, "erasures_pending": 0}
    assert again.verify() == []
    again.close()


def test_what_is_new_is_read_in_pages_whole_and_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bauta.gallery.store.PAGE", 3)
    for start, count in ((0, 7), (7, 1), (8, 10), (18, 1)):  # a revision each
        with store.writing() as writer:
            writer.enrol_many("acme", [(f"person {start + one}", [row(start + one)]) for one in range(count)])
    with store.writing() as writer:
        writer.revoke("acme", "person 9", DAY)  # the fifth
        writer.revoke("acme", "person 2", DAY)
    there = [number for number in range(19) if number not in (2, 9)]
    for since, first in ((-1, 0), (0, 0), (1, 7), (2, 8), (3, 18), (4, 19), (5, 19)):
        found = [one.row for batch in store.active(since) for one in batch]
        assert sorted(found) == sorted(row(number) for number in there if number >= first)


def test_one_name_in_two_tenants_is_two_subjects(store: Store) -> None:
    enrolled(store, "ann", 1)
    enrolled(store, "ann", 2, tenant="other")
    with store.writing() as writer:
        writer.erase("acme", "ann")
    assert store.finish()
    assert contents(store) == {"ann": [row(2)]}
    assert store.uid("acme", "ann") is None
    assert store.stats("acme")["subjects"] == 0


def test_nothing_is_done_of_a_transaction_that_fails(store: Store) -> None:
    enrolled(store, "ann", 1)

    def fail() -> None:
        with store.writing() as writer:
            writer.enrol("acme", "bob", [row(2)])
            writer.erase("acme", "ann")
            writer.erase("acme", "eve")

    with pytest.raises(SubjectUnknown):
        fail()
    assert contents(store) == {"ann": [row(1)]}
    assert store.revision() == (1, 0)


def test_revoked_records_come_back_or_go_for_good(tmp_path: Path, place: Path | str) -> None:
    now = [1e9]
    store = new_store(tmp_path, place, clock=lambda: now[0])
    enrolled(store, "ann", 1, 2)
    with store.writing() as writer:
        assert writer.revoke("acme", "ann", DAY) == 2
    assert contents(store) == {}
    assert store.person("acme", "ann") == ("ann", 0, 2, False)
    with store.writing() as writer:
        assert writer.restore("acme", "ann") == 2
    assert contents(store) == {"ann": sorted([row(1), row(2)])}
    with store.writing() as writer:
        writer.revoke("acme", "ann", DAY)
    enrolled(store, "ann", 3)
    before = store.uid("acme", "ann")
    now[0] += DAY + 1
    with store.writing() as writer:
        assert writer.purge() == 2
    assert store.finish()
    assert contents(store) == {"ann": [row(3)]}
    assert before is not None
    assert store.vault.get(before) is None
    assert store.uid("acme", "ann") not in (None, before)
    with store.writing() as writer:
        writer.revoke("acme", "ann", 0)
        assert writer.purge() == 1
    assert store.finish()
    assert store.uid("acme", "ann") is None
    assert store.verify() == []
    store.close()


def test_renewal_changes_the_key_and_keeps_the_records(store: Store) -> None:
    enrolled(store, "ann", 1, 2)
    before = store.uid("acme", "ann")
    with store.writing() as writer:
        assert len(writer.renew("acme", "ann")) == 2
    assert store.finish()
    assert contents(store) == {"ann": sorted([row(1), row(2)])}
    assert before is not None
    assert store.vault.get(before) is None
    with store.writing() as writer:
        writer.renew("acme", "ann", [row(7)])
    assert store.finish()
    assert contents(store) == {"ann": [row(7)]}


def test_clocks_that_go_back_revive_nothing(tmp_path: Path) -> None:
    now = [1e9]
    store = new_store(tmp_path, clock=lambda: now[0])
    with store.writing() as writer:
        writer.enrol("acme", "ann", [row(1)])
        writer.audit("cli", "acme", "enrol")
    now[0] -= 100 * DAY
    with store.writing() as writer:
        assert writer.now == 1_000_000_000
        assert writer.audit("cli", "acme", "match").at == 1_000_000_000
    store.close()


# Erasure


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def traces(store: Store, name: str) -> list[bytes]:
    """Everything in a file from which somebody could tell that a subject was there, and the wrapped key."""
    [uid] = [one for one in [store.uid("acme", name)] if one is not None]
    with tables.reading(store.engine) as connection:
        subject = connection.execute(text("SELECT token, name FROM subjects WHERE uid = :uid"), {"uid": uid}).one()
        sealed = connection.scalars(text("SELECT sealed FROM records WHERE uid = :uid"), {"uid": uid}).all()
        ids = connection.scalars(text("SELECT id FROM records WHERE uid = :uid"), {"uid": uid}).all()
    wrapped = store.vault._connection.execute("SELECT wrapped FROM keys WHERE uid = ?", (uid,)).fetchone()[0]
    return [uid, *subject, *sealed, *ids, wrapped, name.encode()]


def pieces(content: bytes) -> Iterator[bytes]:
    """Of what is looked for: 16 bytes at any offset, since pages may keep a part."""
    yield from {content[start : start + 16] for start in range(0, max(1, len(content) - 15), 8)}


def test_nothing_of_an_erased_subject_is_left_in_any_file(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    names = [f"person-{number:04d}-of-the-test" for number in range(60)]
    for number, name in enumerate(names):
        enrolled(store, name, number, number + 1000)
    store.close()
    store = open_store(tmp_path)  # and so all of it is in the files
    gone = {name: traces(store, name) for name in names[::7]}
    everything = b"".join(files(tmp_path).values())
    for found in gone.values():
        assert all(one in everything for one in found[:-1])  # what is looked for can be found
        assert found[-1] not in everything  # a name is never in the clear
    for name in gone:
        with store.writing() as writer:
            writer.erase("acme", name)
            writer.audit("cli", "acme", "erase", of=None)
        assert store.finish()
    everything = b"".join(files(tmp_path).values())
    left = [(name, one) for name, found in gone.items() for each in found for one in pieces(each) if one in everything]
    assert left == []
    assert store.stats()["subjects"] == len(names) - len(gone)
    assert store.verify() == []
    store.close()


@pytest.mark.parametrize("which", ["gallery.db", "keys.db"])
def test_an_erasure_is_pending_while_a_reader_holds_the_bytes(tmp_path: Path, which: str) -> None:
    store = new_store(tmp_path)
    enrolled(store, "ann", 1)
    enrolled(store, "bob", 2)
    reader = sqlite3.connect(tmp_path / which, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute(f"SELECT count(*) FROM {'records' if which == 'gallery.db' else 'keys'}").fetchone()
    with store.writing() as writer:
        uid = writer.uid("acme", "ann")
        writer.erase("acme", "ann")
    assert store.finish() is False
    assert store.stats()["erasures_pending"] == 1
    assert store.vault.get(uid) is None  # it opens nothing any more, though
    reader.execute("COMMIT")
    reader.close()
    assert store.finish() is True
    assert store.stats()["erasures_pending"] == 0
    store.close()


def test_a_backup_of_the_gallery_does_not_bring_the_erased_back(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    for number, name in enumerate(["ann", "bob", "eve"]):
        enrolled(store, name, number)
    with store.writing() as writer:
        writer.revoke("acme", "eve", 0)
    store.close()
    shutil.copy(tmp_path / "gallery.db", tmp_path / "backup.db")
    store = open_store(tmp_path)
    with store.writing() as writer:
        writer.erase("acme", "ann")
        assert writer.purge() == 1
    assert store.finish()
    store.close()
    shutil.copy(tmp_path / "backup.db", tmp_path / "gallery.db")
    store = open_store(tmp_path)
    assert contents(store) == {"bob": [row(1)]}
    assert [one.name for _, one in store.people("acme")] == ["bob"]
    assert store.uid("acme", "ann") is None
    assert "2 subjects were erased" in store.verify()[0]
    assert store.forget_erased() == 2
    assert store.verify() == []
    with store.writing() as writer:
        writer.enrol("acme", "ann", [row(9)])  # and may come again
    assert contents(store) == {"ann": [row(9)], "bob": [row(1)]}
    store.close()


def test_the_keys_of_before_a_crash_are_destroyed_when_it_is_opened(tmp_path: Path, place: Path | str) -> None:
    store = new_store(tmp_path, place)
    enrolled(store, "ann", 1)
    with store.writing() as writer:
        uid = writer.uid("acme", "ann")
        writer.erase("acme", "ann")
    assert store.vault.get(uid) is not None  # killed here
    store.close()
    store = open_store(tmp_path, place)
    assert store.vault.get(uid) is None
    assert store.stats()["erasures_pending"] == 0
    store.close()


# Keys


def test_another_deployment_key_opens_nothing(tmp_path: Path) -> None:
    new_store(tmp_path).close()
    with pytest.raises(WrongKey):
        open_store(tmp_path, key=key_of(1))
    (tmp_path / "other").mkdir()
    new_store(tmp_path / "other").close()
    with pytest.raises(GalleryDamaged, match="not its keys"):
        Store.open(tmp_path / "gallery.db", tmp_path / "other" / "keys.db", key_of())
    with pytest.raises(GalleryError, match="not there"):
        Store.open(tmp_path / "gallery.db", tmp_path / "nowhere.db", key_of())
    with pytest.raises(OutputExists):
        new_store(tmp_path)


def test_rotation_keeps_all_and_shuts_the_old_key_out(tmp_path: Path) -> None:
    store, other = new_store(tmp_path), open_store(tmp_path)
    enrolled(store, "ann", 1)
    wrapped = traces(store, "ann")[-2]
    store.vault.rotate(key_of(), key_of(1))
    assert contents(store) == {"ann": [row(1)]}
    enrolled(store, "bob", 2)
    with pytest.raises(WrongKey, match="meanwhile"):
        contents(other)
    other.close()
    store.close()
    assert wrapped not in b"".join(files(tmp_path).values())
    with pytest.raises(WrongKey):
        open_store(tmp_path)
    store = open_store(tmp_path, key=key_of(1))
    assert contents(store) == {"ann": [row(1)], "bob": [row(2)]}
    with pytest.raises(UsageError, match="old one"):
        store.vault.rotate(key_of(1), key_of(1))
    store.close()


def test_keys_and_gallery_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    enrolled(store, "ann", 1)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    store.close()


# Hostile hands


def edited(store: Store, statement: str, **values: object) -> None:
    with tables.writing(store.engine) as connection:
        assert connection.execute(text(statement), values).rowcount


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET sealed = (SELECT sealed FROM records WHERE uid = :bob) WHERE uid = :ann",
        "UPDATE records SET uid = :bob WHERE uid = :ann",
        "UPDATE records SET state = 'active', until = 0 WHERE uid = :eve",
        "UPDATE records SET until = until + 1000 WHERE uid = :eve",
        "UPDATE subjects SET name = (SELECT name FROM subjects WHERE uid = :bob) WHERE uid = :ann",
    ],
)
def test_records_that_were_moved_exchanged_or_revived_are_found(store: Store, statement: str) -> None:
    for number, name in enumerate(["ann", "bob", "eve"]):
        enrolled(store, name, number)
    with store.writing() as writer:
        writer.revoke("acme", "eve", DAY)
    uids = {name: store.uid("acme", name) for name in ("ann", "bob", "eve")}
    edited(store, statement, **{name: uid for name, uid in uids.items() if f":{name}" in statement})
    assert len(store.verify()) >= 1
    if "eve" not in statement or "active" in statement:
        with pytest.raises(GalleryDamaged):
            contents(store)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET outcome = 'else' WHERE number = 2",
        "UPDATE audit SET at = at + 1 WHERE number = 2",
        "DELETE FROM audit WHERE number = 2",
        "DELETE FROM audit WHERE number = 1",
        "UPDATE audit SET number = 9 WHERE number = 2",
    ],
)
def test_an_audit_that_was_changed_is_found(store: Store, statement: str) -> None:
    with store.writing() as writer:
        for number in range(4):
            writer.audit("cli", "acme", "match", outcome=f"done {number}")
    assert store.verify() == []
    edited(store, statement)
    assert "audit was changed" in store.verify()[0]


def test_the_audit_names_nobody(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.writing() as writer:
        writer.enrol("acme", "Ann Lee", [row(1)])
        uid = writer.uid("acme", "Ann Lee")
        one, two = (writer.audit("cli", "acme", action, of=uid) for action in ("enrol", "match"))
    assert one.trace == two.trace != ""
    assert uid.hex()[:8] not in one.trace
    with tables.reading(store.engine) as connection:
        rows = str(connection.execute(text("SELECT * FROM audit")).all())
    assert "Ann" not in rows
    assert token_of(store.vault, "acme", "Ann Lee").hex() not in rows
    store.close()


def test_what_the_store_says_of_itself_cannot_be_edited(store: Store) -> None:
    edited(store, "UPDATE about SET value = :value WHERE name = 'revision'", value=b"0" * 32 + b"7 7")
    with pytest.raises(GalleryDamaged, match="edited"):
        store.revision()


def test_another_maker_is_named(store: Store) -> None:
    other = Maker("another", MAKER.recognizer_sha256, MAKER.protector, MAKER.protector_sha256)
    with pytest.raises(OtherMaker, match=r"'toy'.*'another'"):
        store.maker.require(other)
    with store.writing() as writer:
        writer.require_format("one")
    with pytest.raises(OtherMaker), store.writing() as writer:
        writer.require_format("two")


def test_requests_that_are_sent_twice_are_done_once(store: Store) -> None:
    for _ in range(3):
        with store.writing() as writer:
            made = writer.once("key", "abc", b"enrol ann", lambda w=writer: w.enrol("acme", "ann", [row(1)])[0])  # type: ignore[misc]
    assert contents(store) == {"ann": [row(1)]}
    assert len(made) == 16
    with pytest.raises(OtherRequest, match="another request"), store.writing() as writer:
        writer.once("key", "abc", b"enrol bob", lambda: b"")
    with store.writing() as writer:
        assert writer.once("other", "abc", b"enrol bob", lambda: b"new") == b"new"


def test_keys_are_derived_as_the_library_derives_them() -> None:
    for seed in range(20):
        chance = np.random.default_rng(seed)
        key, gallery = chance.bytes(32), chance.bytes(16)
        wanted = HKDF(SHA256(), 32, gallery, b"bauta gallery 1 records").derive(key)
        assert subkey(key, gallery, "records") == wanted


# Disks


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    enrolled(store, "ann", 1)
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    store.engine.dispose()
    import sqlalchemy

    @sqlalchemy.event.listens_for(store.engine, "connect")
    def _limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(OutputError, match="full"):
        enrolled(store, "bob", *range(5000))
    assert contents(store)["ann"] == [row(1)]
    store.close()


def test_a_gallery_that_is_read_only_is_told(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    enrolled(store, "ann", 1)
    store.engine.dispose()
    import sqlalchemy

    @sqlalchemy.event.listens_for(store.engine, "connect")
    def _limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    with pytest.raises(OutputError, match="readonly"):
        enrolled(store, "bob", 2)
    assert contents(store) == {"ann": [row(1)]}
    store.close()


@pytest.mark.parametrize("tenant", ["", "Acme", "a b", "a" * 65, "../x", "é"])
def test_tenants_are_called_plainly(tenant: str) -> None:
    with pytest.raises(UsageError):
        require_names(tenant)


def test_what_is_no_gallery_is_told(tmp_path: Path) -> None:
    new_store(tmp_path).close()
    (tmp_path / "text.db").write_bytes(b"not a database" * 100)
    with pytest.raises(GalleryError):
        Store.open(tmp_path / "text.db", tmp_path / "keys.db", key_of())
    with pytest.raises(GalleryError):
        Store.open(tmp_path / "gallery.db", tmp_path / "text.db", key_of())
    with pytest.raises(GalleryDamaged):
        Store.open(tmp_path / "keys.db", tmp_path / "keys.db", key_of())
    for address in ("mysql://x/y", "nonsense"):
        with pytest.raises(UsageError):
            Store.open(address, tmp_path / "keys.db", key_of())
