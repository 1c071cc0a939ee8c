"""Stores are opened: large ones by several processes, and what is no store is told and left as it is."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from bauta.errors import GalleryDamaged, GalleryError
from bauta.gallery import opening, reader, tables, vault
from bauta.gallery.opening import opened
from bauta.gallery.store import Store
from gallery_builders import key_of
from store_builders import contents, enrolled, new_store, open_store, row
from test_gallery_store import place as place
from test_gallery_store import server as server
from test_gallery_store import store as store

COUNT = 300


@pytest.fixture
def full(store: Store) -> Store:
    with store.writing() as writer:
        writer.enrol_many("acme", [(f"person {number}", [row(number)]) for number in range(COUNT)])
        writer.enrol_many("other", [("somebody", [row(COUNT), row(COUNT + 1)])])
        writer.revoke("acme", "person 7", 1000)
        writer.erase("acme", "person 8")
    assert store.finish()
    return store


def rows_of(store: Store) -> Counter[bytes]:
    return Counter(one.row for batch in store.active() for one in batch)


def test_parts_are_all_records_once(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rows_of(full)
    assert len(expected) == COUNT
    monkeypatch.setattr(reader, "PAGE", 7)
    for count in (1, 2, 3, 5):
        parts = full.parts(count)
        assert len(parts) == count
        found = [Counter(one.row for batch in full.active(part=part) for one in batch) for part in parts]
        assert sum(found, Counter[bytes]()) == expected
        if full.engine.dialect.name == "sqlite":  # ids that are drawn together begin alike
            assert max(part.total() for part in found) < 2 * COUNT / count


def test_processes_open_what_one_alone_opens(full: Store) -> None:
    found = [one for batch in opened(full, 2) for one in batch]
    assert sorted(found) == sorted(one for batch in full.active() for one in batch)
    assert {one.tenant for one in found} == {"acme", "other"}


def test_an_empty_store_is_opened_by_many(store: Store) -> None:
    assert [one for batch in opened(store, 3) for one in batch] == []


def test_a_small_store_needs_no_processes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    enrolled(store, "ann", 1)
    monkeypatch.setattr(opening.subprocess, "Popen", None)
    assert [one.row for batch in opened(store) for one in batch] == [row(1)]


def test_what_processes_leave_undone_is_done(
    full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.stdin.buffer.read(9); print(1/0)"\n')
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    assert Counter(one.row for batch in opened(full, 2) for one in batch) == rows_of(full)
    assert capfd.readouterr().err == ""


def test_a_record_that_was_changed_is_told(full: Store) -> None:
    with tables.writing(full.engine) as connection:
        one = connection.execute(tables.records.select().limit(1).where(tables.records.c.state == "active")).one()
        changed = tables.records.update().where(tables.records.c.id == one.id)
        connection.execute(changed.values(sealed=one.sealed[:-1] + bytes([one.sealed[-1] ^ 1])))
    with pytest.raises(GalleryDamaged, match="changed"):
        list(opened(full, 2))


def test_who_stops_taking_leaves_no_process(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before, begun = threading.active_count(), []
    start = opening.subprocess.Popen

    def noted(*given: object, **more: object) -> object:
        begun.append(start(*given, **more))  # type: ignore[call-overload]
        return begun[-1]

    monkeypatch.setattr(opening.subprocess, "Popen", noted)
    batches = opened(full, 2)
    assert next(batches)
    batches.close()
    assert len(begun) == 2
    assert all(process.poll() is not None for process in begun)
    assert threading.active_count() == before


def test_a_database_of_others_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    new_store(tmp_path).close()
    for name, made in (
        ("empty.db", ""),
        ("other.db", "CREATE TABLE notes (text TEXT)"),
    ):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.executescript(made)
        (tmp_path / name).touch()
        before = (tmp_path / name).read_bytes()
        with pytest.raises(GalleryDamaged, match="not a key store"):
            Store.open(tmp_path / "gallery.db", tmp_path / name, key_of())
        assert (tmp_path / name).read_bytes() == before


def test_keys_that_cannot_be_read_now_are_not_said_to_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(tmp_path).close()
    connect = sqlite3.connect
    monkeypatch.setattr(vault.sqlite3, "connect", lambda path, **more: connect(path, **{**more, "timeout": 0}))
    with closing(connect(tmp_path / "keys.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(GalleryError, match="locked") as raised:
            open_store(tmp_path)
        assert not isinstance(raised.value, GalleryDamaged)
    open_store(tmp_path).close()


def test_a_torn_gallery_is_said_to_be_damaged(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    enrolled(store, "ann", *range(40))
    store.close()
    content = (tmp_path / "gallery.db").read_bytes()
    (tmp_path / "gallery.db").write_bytes(content[: len(content) // 2])
    with pytest.raises(GalleryDamaged) as raised:
        contents(open_store(tmp_path))
    assert "backup" in (raised.value.hint or "")
