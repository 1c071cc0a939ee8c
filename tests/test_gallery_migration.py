"""A gallery moves to another protector: people match until they are enrolled again, and what was made before leaves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import test_gallery_store
from bauta.cli.run import run
from bauta.errors import AlreadyEnrolled, GalleryDamaged, OtherMaker, UsageError
from bauta.gallery.journal import signed
from bauta.gallery.makers import Maker
from bauta.gallery.sealing import RecordSealer, encode_name, new_id, new_ids, record_opener
from bauta.gallery.service import FaceService, maker_of
from bauta.gallery.store import Store
from bauta.recognizers.cards import format_card
from bauta.templates.base import Protector
from conftest import faces, fitted, toy_surrogate
from gallery_builders import key_of
from recognizer_builders import card_of, linear_model
from store_builders import MAKER, contents, enrolled, new_service, new_store, open_store, photo, row

NEXT = Maker("toy", "a" * 64, "mlp-hash", "c" * 64)
Capture = pytest.CaptureFixture[str]
place, server = test_gallery_store.place, test_gallery_store.server  # SQLite and PostgreSQL


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = new_store(tmp_path)
    yield made
    made.close()


# Records


def test_who_is_enrolled_again_leaves_the_former_maker_and_the_key(tmp_path: Path, place: Path | str) -> None:
    store = new_store(tmp_path, place)
    enrolled(store, "ann", 1, 2)
    enrolled(store, "bob", 3)
    old = store.uid("acme", "ann")
    assert old is not None
    assert store.migrate(NEXT, "test") == 2
    assert contents(store) == {"ann": sorted([row(1), row(2)]), "bob": [row(3)]}
    assert sorted(one.name for _, one in store.people("acme", waiting=True)) == ["ann", "bob"]
    enrolled(store, "bob")  # no photo: he still waits
    enrolled(store, "ann", 4)
    assert store.finish()
    assert contents(store) == {"ann": [row(4)], "bob": [row(3)]}
    assert store.vault.get(old) is None
    assert store.stats()["waiting"] == 1
    assert not store.person("acme", "ann").waiting  # type: ignore[union-attr]
    enrolled(store, "ann", 5)  # and now there are two photos of her
    assert contents(store)["ann"] == sorted([row(4), row(5)])
    assert store.verify() == []
    assert store.drop_former("test") == (1, 1)
    assert contents(store).keys() == {"ann"}
    store.close()
    again = open_store(tmp_path, place)
    assert again.makers == (MAKER, NEXT)
    assert again.verify() == []
    again.close()


def test_revoked_records_of_a_former_maker_come_back_and_leave_like_others(tmp_path: Path) -> None:
    now = [1e9]
    store = new_store(tmp_path, clock=lambda: now[0])
    for number, name in enumerate(("ann", "bob", "eve")):
        enrolled(store, name, number)
    store.migrate(NEXT, "test")
    with store.writing() as writer:
        for name in ("ann", "bob", "eve"):
            writer.revoke("acme", name, 100)
        writer.restore("acme", "ann")
        assert writer.enrol("acme", "bob", [row(9)])
    assert contents(store) == {"ann": [row(0)], "bob": [row(9)]}
    now[0] += 101
    with store.writing() as writer:
        assert writer.purge() == 1
    assert store.finish()
    assert sorted(one.name for _, one in store.people("acme")) == ["ann", "bob"]
    with store.writing() as writer:
        assert len(writer.renew("acme", "ann")) == 1  # a new key; the record stays the former maker's
    assert [one.waiting for one in sorted(one for _, one in store.people("acme"))] == [True, False]
    assert store.verify() == []
    store.close()


def test_a_migration_is_kept_and_others_must_start_again(tmp_path: Path, store: Store) -> None:
    enrolled(store, "ann", 1)
    other = open_store(tmp_path)
    with pytest.raises(UsageError, match="already"):
        store.migrate(MAKER, "test")
    store.migrate(NEXT, "test")
    for ask in (other.revision, lambda: enrolled(other, "bob", 2), lambda: other.migrate(NEXT, "test")):
        with pytest.raises((OtherMaker, UsageError)):
            ask()
    other.close()
    again = open_store(tmp_path)
    assert again.makers == (MAKER, NEXT)
    assert contents(again) == {"ann": [row(1)]}
    with pytest.raises(UsageError, match="earlier migration"):
        again.migrate(MAKER, "test")
    assert [line.action for line in again.entries(None)] == ["migrate"]
    again.close()


def test_a_migration_ends_by_erasing_who_did_not_come(tmp_path: Path, store: Store) -> None:
    for number in range(4):
        enrolled(store, f"person {number}", number, number + 10)
    store.migrate(NEXT, "test")
    with store.writing() as writer:
        writer.require_format("{}")
        writer.enrol_many("acme", [("person 0", [row(20)]), ("person 0", [row(21)]), ("person 9", [row(22)])])
    assert store.drop_former("test") == (6, 3)
    assert contents(store) == {"person 0": sorted([row(20), row(21)]), "person 9": [row(22)]}
    assert store.stats()["waiting"] == store.stats()["erasures_pending"] == 0
    assert store.migrate(MAKER, "test") == 2  # and back
    enrolled(store, "person 9", 30)
    assert contents(store)["person 9"] == [row(30)]
    assert store.verify() == []
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert files.count(encode_name("person")) == 0


@pytest.mark.parametrize("maker", [0, 7, -1])
def test_a_record_that_is_said_to_be_of_another_maker_is_damaged(tmp_path: Path, store: Store, maker: int) -> None:
    store.migrate(NEXT, "test")
    enrolled(store, "ann", 1)
    connection = sqlite3.connect(tmp_path / "gallery.db")
    connection.execute("UPDATE records SET maker = ?", (maker,))
    connection.commit()
    connection.close()
    with pytest.raises(GalleryDamaged):
        contents(store)
    with pytest.raises(GalleryDamaged), store.writing() as writer:
        writer.renew("acme", "ann")
    assert len(store.verify()) == 1


def test_a_gallery_of_version_1_is_opened(tmp_path: Path, store: Store) -> None:
    enrolled(store, "ann", 1)
    store.close()
    connection = sqlite3.connect(tmp_path / "gallery.db")
    about = json.dumps({"schema": 1, "maker": asdict(MAKER)}, sort_keys=True)
    for name, content in (("store", about.encode()), ("revision", b"1 0")):
        connection.execute("UPDATE about SET value = ? WHERE name = ?", (signed(store.vault, name, content), name))
    connection.execute("DROP INDEX by_state")
    connection.execute("ALTER TABLE records DROP COLUMN maker")
    connection.commit()
    connection.close()
    for _ in range(2):
        again = open_store(tmp_path)
        assert contents(again) == {"ann": [row(1)]}
        assert again.makers == (MAKER,)
        enrolled(again, "ann")
        assert again.verify() == []
        again.close()


def test_opening_many_is_opening_one() -> None:
    key, gallery, one = bytes(range(32)), new_id(), new_id()
    sealer = RecordSealer(key, gallery, *MAKER.digests)
    sealed = sealer.seal(sealer.header(one, "ann \udcff"), b"a row")
    opened = record_opener(gallery, *MAKER.digests)
    assert opened(key, one, encode_name("ann \udcff"), sealed) == b"a row"
    for wrong in (
        (bytes(32), one, encode_name("ann \udcff"), sealed),
        (key, new_id(), encode_name("ann \udcff"), sealed),
        (key, one, b"bob", sealed),
        (key, one, encode_name("ann \udcff"), sealed[:20]),
    ):
        with pytest.raises(GalleryDamaged):
            opened(*wrong)
    with pytest.raises(GalleryDamaged):
        record_opener(gallery, *NEXT.digests)(key, one, encode_name("ann \udcff"), sealed)


def test_ids_drawn_together_begin_alike_and_differ() -> None:
    one, other = new_ids(1000), new_ids(1000)
    assert len({*one, *other}) == 2000
    assert {len(ident) for ident in one} == {16}
    assert len({ident[:4] for ident in one}) == 1 != len({one[0][:4], other[0][:4]})
    assert len({ident[4:8] for ident in one}) == 1000


# The service


@pytest.fixture
def protectors() -> tuple[Protector, Protector]:
    """Of two recognisers."""
    return fitted("identity-feature", faces(4, 9)), fitted("identity-feature", faces(4, 9), toy_surrogate(seed=5))


def migrated(folder: Path, old: Protector, new: Protector) -> FaceService:
    before = new_service(folder, old)
    for number, name in enumerate(("ann", "bob")):
        before.enrol("acme", name, photo(number), actor="test")
    before.store.migrate(maker_of(new), "test")
    before.store.close()
    store = Store.open(folder / "gallery.db", folder / "keys.db", key_of())
    service = FaceService(store, new, former=old, threshold=0.97, former_threshold=0.97, aligned=True)
    assert service.load() == 2
    return service


def test_people_match_before_and_after_they_are_enrolled_again(
    tmp_path: Path, protectors: tuple[Protector, Protector]
) -> None:
    old, new = protectors
    assert maker_of(old) != maker_of(new)
    service = migrated(tmp_path, old, new)

    def answers() -> list[object]:
        found = [service.match("acme", name, photo(number), actor="t") for number, name in enumerate(("ann", "bob"))]
        found += [service.match("acme", "ann", photo(1), actor="t")]
        return [*found, *(service.search("acme", photo(number), actor="t", force=True).subject for number in range(3))]

    assert answers() == [True, True, False, "ann", "bob", None]
    with pytest.raises(AlreadyEnrolled):  # by what the former protector made
        service.enrol("acme", "eve", photo(0), actor="t")
    service.enrol("acme", "ann", photo(0), actor="t")
    assert answers() == [True, True, False, "ann", "bob", None]
    with pytest.raises(AlreadyEnrolled):  # by what this one made
        service.enrol("acme", "eve", photo(0), actor="t")
    assert service.store.stats() == {"subjects": 2, "active": 2, "revoked": 0, "waiting": 1, "erasures_pending": 0}
    assert service.search("acme", photo(1), actor="t", force=True).count == 2
    service.renew("acme", "bob", photo(1), actor="t")
    assert service.store.stats()["waiting"] == 0
    assert answers() == [True, True, False, "ann", "bob", None]
    assert len(service.export("acme")) == 2
    service.erase("acme", "ann", actor="t")
    assert service.search("acme", photo(0), actor="t", force=True).subject is None
    service.store.close()
    alone = FaceService(Store.open(tmp_path / "gallery.db", tmp_path / "keys.db", key_of()), new, threshold=0.97)
    assert alone.load() == 1
    alone.store.close()


def test_a_service_needs_the_former_protector_while_people_wait(
    tmp_path: Path, protectors: tuple[Protector, Protector]
) -> None:
    old, new = protectors
    migrated(tmp_path, old, new).store.close()
    store = Store.open(tmp_path / "gallery.db", tmp_path / "keys.db", key_of())
    with pytest.raises(OtherMaker, match="new photos: 2"):
        FaceService(store, new, threshold=0.97).load()
    with pytest.raises(OtherMaker, match="recognizer"):
        FaceService(store, old, threshold=0.97)
    with pytest.raises(OtherMaker, match="recognizer"):
        FaceService(store, new, former=new, threshold=0.97)
    store.close()
    (tmp_path / "fresh").mkdir()
    fresh = new_service(tmp_path / "fresh")
    with pytest.raises(UsageError, match="never migrated"):
        FaceService(fresh.store, fresh.protector, former=old, threshold=0.97)
    fresh.store.close()


def test_a_running_service_stops_answering_when_its_gallery_is_migrated(
    tmp_path: Path, protectors: tuple[Protector, Protector]
) -> None:
    old, new = protectors
    service = new_service(tmp_path, old)
    service.enrol("acme", "ann", photo(0), actor="t")
    other = Store.open(tmp_path / "gallery.db", tmp_path / "keys.db", key_of())
    other.migrate(maker_of(new), "test")
    for ask in (
        lambda: service.match("acme", "ann", photo(0), actor="t"),
        lambda: service.search("acme", photo(0), actor="t", force=True),
        lambda: service.enrol("acme", "bob", photo(1), actor="t"),
        lambda: service.renew("acme", "ann", photo(0), actor="t"),
    ):
        with pytest.raises(OtherMaker, match="meanwhile"):
            ask()
    service.store.close()
    assert contents(other).keys() == {"ann"}
    other.close()


# Commands

KEY = ["--key", "deployment.key"]
ALIGNED = ["--threshold", "0.9999", "--former-threshold", "0.9999", "--aligned"]


def said(capsys: Capture, *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(["gallery", *arguments]) == code
    found = capsys.readouterr()
    return found.out if code == 0 else found.err


def test_a_migration_by_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("mine", "other")):
        home = tmp_path / "home" / "recognizers" / name
        home.mkdir(parents=True)
        card = replace(card_of(home, linear_model(seed=seed)), name=name)
        (home / "card.toml").write_text(format_card(card))
    for number in range(4):
        folder = tmp_path / "people" / f"Person_{number}"
        folder.mkdir(parents=True)
        (folder / "one.png").write_bytes(photo(number))
    photos = [f"people/Person_{number}/one.png" for number in range(4)]
    assert run(["key", "-o", "deployment.key"]) == 0
    fit = ["templates", "fit", "people", "--method", "identity-feature"]
    assert run([*fit, "--recognizer", "mine", "-o", "old"]) == 0
    assert run([*fit, "--recognizer", "other", "-o", "new"]) == 0
    said(capsys, "init", "g", *KEY, "--protector", "old", "--store-faces-unprotected")
    old = [*KEY, "--protector", "old", "--threshold", "0.9999", "--aligned"]
    new = [*KEY, "--protector", "new", "--former", "old", *ALIGNED]
    for number, name in enumerate(("ann", "bob")):
        said(capsys, "enrol", "g", name, photos[number], *old)

    assert "begun or finished" in said(capsys, "migrate", "g", *KEY, code=2)
    assert "protects nothing" in said(capsys, "migrate", "g", *KEY, "--protector", "new", code=2)
    moved = said(capsys, "migrate", "g", *KEY, "--protector", "new", "--store-faces-unprotected")
    assert "other" in moved
    assert "people who wait for a new photo" in " ".join(moved.split())
    assert "other" in said(capsys, "match", "g", "ann", photos[0], *old, code=9)
    assert "--former" in said(capsys, "match", "g", "ann", photos[0], *new[:4], "--threshold", "0.9999", code=9)
    assert said(capsys, "match", "g", "ann", photos[0], *new) == "yes\n"
    said(capsys, "enrol", "g", "ann", photos[0], *new)
    assert said(capsys, "match", "g", "ann", photos[0], *new) == "yes\n"
    assert said(capsys, "search", "g", photos[1], *new, "--force") == "bob\n"
    assert json.loads(said(capsys, "people", "g", *KEY, "--json", "--waiting")) == [
        {"name": "bob", "active": 1, "revoked": 0, "waits": True}
    ]
    assert "ann" in said(capsys, "people", "g", *KEY)
    assert json.loads(said(capsys, "stats", "g", *KEY, "--json"))["waiting"] == 1
    assert said(capsys, "migrate", "g", *KEY, "--finish").split() == ["records", "erased", "1", "people", "erased", "1"]
    assert json.loads(said(capsys, "people", "g", *KEY, "--json"))[0]["name"] == "ann"
    assert said(capsys, "match", "g", "ann", photos[0], *new[:4], "--threshold", "0.9999", "--aligned") == "yes\n"
    assert "whole" in said(capsys, "verify", "g", *KEY)
