"""Budgets in a gallery: all that was ever stored of a person adds up, more is refused, and erasures take the count."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from bauta.cli.run import run as main
from bauta.errors import BudgetSpent, GalleryDamaged, SubjectUnknown, UsageError
from bauta.gallery import tables
from bauta.gallery.budgets import budget_of, charge, releases, set_limit
from bauta.gallery.service import FaceService
from bauta.gallery.store import Store
from bauta.privacy.mechanisms import Spent
from conftest import faces, fitted
from store_builders import enrolled, new_service, new_store, open_store, photo

SPENT = Spent("peep", 1.0, 40.0)


def protector(**settings: Any) -> Any:
    return fitted("dp-pixels", faces(8, 9), **{"side": 7, "epsilon": 1e5, **settings})


@pytest.fixture
def service(tmp_path: Path) -> FaceService:
    made = new_service(tmp_path, protector(), threshold=0.99)
    set_limit(made.store, 3 * 147e5, made.protector.spent)
    return made


def test_enrolments_and_renewals_add_up_and_no_more_is_stored(service: FaceService) -> None:
    for seed in (1, 2):
        service.enrol("acme", "ann", photo(seed), actor="me", known=True)
    service.renew("acme", "ann", photo(1), actor="me")
    service.renew("acme", "ann", actor="me")  # another key, and nothing new
    found = budget_of(service.store, "acme", "ann")
    assert found is not None
    assert (found.spent, found.photos, found.left) == (3 * 147e5, 3, 0.0)
    assert "44,100,000 of 44,100,000 over 3 photos" in found.words
    lines = len(service.store.entries(None, most=1000))
    for call in (service.enrol, service.renew):
        with pytest.raises(BudgetSpent, match="44,100,000 of 44,100,000, and 14,700,000 is asked for"):
            call("acme", "ann", photo(1), actor="me")
    person = service.store.person("acme", "ann")
    assert person is not None
    assert (person.active, person.revoked) == (1, 0)
    assert len(service.store.entries(None, most=1000)) == lines
    service.enrol("other", "ann", photo(5), actor="me")  # of another tenant
    service.enrol("acme", "bob", photo(3), actor="me")


def test_an_enrolment_that_is_refused_for_another_reason_is_not_counted(service: FaceService) -> None:
    service.enrol("acme", "ann", photo(1), actor="me")
    with pytest.raises(Exception, match="another name"):
        service.enrol("acme", "eve", photo(1), actor="me")
    with pytest.raises(SubjectUnknown):
        budget_of(service.store, "acme", "eve")
    service.enrol("acme", "eve", photo(1), actor="me", known=True, once="a")
    service.enrol("acme", "eve", photo(1), actor="me", known=True, once="a")  # sent again, done once
    found = budget_of(service.store, "acme", "eve")
    assert found is not None
    assert found.photos == 1


def test_a_gallery_in_a_file_counts_for_each_name(service: FaceService, tmp_path: Path) -> None:
    from bauta.gallery.enrol import enrol_faces

    gallery = enrol_faces(service.protector, faces(5), ["ann", "bob", "ann", "ann", "ann"], seed=1)
    with pytest.raises(BudgetSpent):
        service.take("acme", gallery, actor="me")
    assert service.store.stats()["subjects"] == 0
    service.take("acme", enrol_faces(service.protector, faces(3), ["ann", "bob", "ann"], seed=1), actor="me")
    found = budget_of(service.store, "acme", "ann")
    assert found is not None
    assert found.photos == 2
    service.store.close()
    again = open_store(tmp_path)
    assert budget_of(again, "acme", "ann") == found


def test_an_erasure_takes_the_count_with_it(service: FaceService, tmp_path: Path) -> None:
    from bauta.gallery.writer import token_of

    for name in ("ann", "bob"):
        service.enrol("acme", name, photo(1), actor="me", known=True)
    assert service.erase("acme", "ann", actor="me").state == "erased"
    token = token_of(service.store.vault, "acme", "ann")
    assert all(token not in path.read_bytes() for path in tmp_path.glob("*.db*"))
    service.enrol("acme", "ann", photo(1), actor="me", known=True)
    found = budget_of(service.store, "acme", "ann")
    assert found is not None
    assert found.photos == 1
    other = budget_of(service.store, "acme", "bob")
    assert other is not None
    assert other.photos == 1


def test_a_protector_that_promises_nothing_is_not_counted_and_not_let_into_a_limited_gallery(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    enrolled(store, "ann", 1)
    with store.writing() as writer:
        charge(writer, "acme", "ann", None)
    assert budget_of(store, "acme", "ann") is None
    set_limit(store, 100.0, SPENT)
    with store.writing() as writer, pytest.raises(BudgetSpent, match="promises no epsilon"):
        charge(writer, "acme", "ann", None)


def test_without_a_limit_it_is_counted_all_the_same(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    enrolled(store, "ann", 1)
    with store.writing() as writer:
        charge(writer, "acme", "ann", SPENT, 5)
    found = budget_of(store, "acme", "ann")
    assert found is not None
    assert (found.spent, found.limit, found.left) == (200.0, None, None)


def test_galleries_from_before_have_no_table_and_get_one(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with tables.writing(store.engine) as connection:
        connection.execute(text("DROP TABLE releases"))
    store.close()
    store = open_store(tmp_path)
    enrolled(store, "ann", 1)
    assert budget_of(store, "acme", "ann") is None
    with store.writing() as writer:
        writer.erase("acme", "ann")
    assert store.finish()
    set_limit(store, 100.0, SPENT)
    enrolled(store, "bob", 2)
    with store.writing() as writer:
        charge(writer, "acme", "bob", SPENT)


def test_tenths_add_up_as_they_are_written(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    enrolled(store, "ann", 1)
    set_limit(store, 0.3, Spent("peep", 0.1, 0.1))
    with store.writing() as writer:
        for _ in range(3):
            charge(writer, "acme", "ann", Spent("peep", 0.1, 0.1))
        with pytest.raises(BudgetSpent):
            charge(writer, "acme", "ann", Spent("peep", 1e-9, 1e-9))


@pytest.mark.parametrize("which", ["a person", "the limit"])
def test_counts_that_were_edited_are_told(tmp_path: Path, which: str) -> None:
    store: Store = new_store(tmp_path)
    enrolled(store, "ann", 1)
    set_limit(store, 100.0, SPENT)
    with store.writing() as writer:
        charge(writer, "acme", "ann", SPENT)
    chosen = releases.c.token == bytes(32)
    with tables.writing(store.engine) as connection:
        row = connection.execute(releases.select().where(chosen if which == "the limit" else ~chosen)).one()
        value = row.value[:32] + row.value[32:].replace(b"100.0", b"900.0").replace(b"40.0", b"10.0")
        assert value != row.value
        connection.execute(releases.update().where(releases.c.token == row.token).values(value=value))
    with pytest.raises(GalleryDamaged, match="edited"), store.writing() as writer:
        charge(writer, "acme", "ann", SPENT)


@pytest.mark.parametrize(
    ("limit", "spent", "said"),
    [(0.0, SPENT, "cannot be 0"), (-1.0, SPENT, "cannot be -1"), (math.inf, SPENT, "cannot be inf"),
     (math.nan, SPENT, "cannot be nan"), (True, SPENT, "cannot be True"), (100.0, None, "promises no epsilon"),
     (30.0, SPENT, "spends 40, more than the limit of 30")],
)  # fmt: skip
def test_limits_that_are_none_are_refused(tmp_path: Path, limit: float, spent: Spent | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        set_limit(new_store(tmp_path), limit, spent)


def test_the_commands_show_and_keep_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = protector()
    monkeypatch.setattr("bauta.templates.base.load_protector", lambda _: made)
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments, "--key", "k"]) == code
        found = capsys.readouterr()
        return found.out if code == 0 else found.err

    assert main(["key", "-o", "k"]) == 0
    assert "none could be enrolled" in said("gallery", "init", "g", "--protector", "x", "--budget", "10", code=2)
    assert not Path("g/gallery.db").exists()
    assert "cannot be inf" in said("gallery", "init", "g", "--protector", "x", "--budget", "inf", code=2)
    said("gallery", "init", "g", "--protector", "x", "--budget", "15e6")
    Path("1.png").write_bytes(photo(1))
    enrol = ["gallery", "enrol", "g", "ann", "1.png", "--protector", "x", "--aligned", "--threshold", "0.99"]
    said(*enrol)
    assert "The budget of this person is spent: 14,700,000 of 15,000,000" in said(*enrol, code=9)
    shown = said("gallery", "budget", "g", "ann")
    assert "epsilon 14,700,000 of 15,000,000 over 1 photo\n" in shown
    assert "300,000" in shown
    found = json.loads(said("gallery", "budget", "g", "ann", "--json"))
    assert found == {"spent": 14.7e6, "photos": 1, "limit": 15e6, "left": 3e5}
    assert "Nobody of that name" in said("gallery", "budget", "g", "bob", code=9)
    serve = ["serve", "--protector", "x", "--threshold", "0.99", "--port", "0", "--budget", "15e6"]
    assert "keeps the budget it was made with" in said(*serve, "g", code=2)
    monkeypatch.setattr("bauta.server.serve.serve", lambda *_, **__: None)
    said(*serve, "new")
    said("gallery", "enrol", "new", "ann", "1.png", "--protector", "x", "--aligned", "--threshold", "0.99")
    assert json.loads(said("gallery", "budget", "new", "ann", "--json"))["limit"] == 15e6
    shown = said("templates", "protect", "x", "1.png", "--aligned", "-o", "one.bauta")
    assert "epsilon 100,000 a value, 14,700,000 a photo, 14,700,000 for the person over 1 photo" in shown


def test_rows_carry_what_they_spend(tmp_path: Path) -> None:
    from bauta.templates.representation import RowFormat

    made = new_service(tmp_path, protector(), threshold=0.99)
    made.enrol("acme", "ann", photo(1), actor="me")
    form = RowFormat.from_json(made.store.format() or "")
    assert form.spent == made.protector.spent
    [[one]] = list(made.store.active())
    assert np.frombuffer(one.row, "<f4").shape == (147,)
