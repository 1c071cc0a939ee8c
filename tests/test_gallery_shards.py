"""One index or many shards, exact or sifted in 8 bits first: the same answers, and none where a part is missing."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bauta.errors import GalleryError, MissingExtra, UsageError
from bauta.gallery.index import Hit, Index
from bauta.gallery.indexes import index_maker
from bauta.gallery.service import FaceService
from bauta.gallery.shards import AnyIndex, ShardedIndex
from store_builders import new_service, photo

D = 48
KINDS: dict[str, tuple[Any, int]] = {
    "exact": ("exact", 1),
    "faiss": ("faiss", 1),
    "two shards": ("exact", 2),
    "three shards of faiss": ("faiss", 3),
}


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest) -> Iterator[AnyIndex]:
    made = index_maker(*KINDS[request.param])(D)
    yield made
    made.close()


def units(count: int, seed: int, dimension: int = D) -> Any:
    values = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def ident(number: int) -> bytes:
    return b"same" + random.Random(number).randbytes(12)


class Model:
    """What an index should say, computed record by record."""

    def __init__(self) -> None:
        self.records: dict[bytes, tuple[str, bytes, Any]] = {}

    def best(self, tenant: str, probe: Any, but: bytes | None) -> Hit | None:
        hits = [
            Hit(uid, float(template @ probe))
            for whose, uid, template in self.records.values()
            if whose == tenant and uid != but
        ]
        return max(hits, key=lambda hit: hit.cosine, default=None)


def test_an_index_says_what_a_list_of_records_says(index: AnyIndex) -> None:
    chance, model = random.Random(4), Model()
    for step in range(120):
        tenant = chance.choice(["acme", "other"])
        if chance.random() < 0.6 or not model.records:
            count = chance.randrange(1, 9)
            numbers = [chance.randrange(400) for _ in range(count)]
            ids = list(dict.fromkeys(ident(number) for number in numbers))
            uids, rows = [ident(10_000 + chance.randrange(60)) for _ in ids], units(len(ids), step)
            index.add(tenant, ids, uids, rows)
            model.records.update({one: (tenant, uid, row) for one, uid, row in zip(ids, uids, rows, strict=True)})
        else:
            gone = chance.sample(sorted(model.records), min(4, len(model.records)))
            index.remove([*gone, b"nobody's" * 2])
            for one in gone:
                del model.records[one]
        assert index.ids() == set(model.records)
        assert len(index) == len(model.records)
        whose = [one for one in model.records.values() if one[0] == tenant]
        assert index.count(tenant) == len(whose)
        but = chance.choice([None, *(uid for _, uid, _ in whose)])
        probe = units(1, 1000 + step)[0]
        expected, found = model.best(tenant, probe, but), index.search(tenant, probe, but=but)
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert found.uid == expected.uid
            assert found.cosine == pytest.approx(expected.cosine, abs=1e-5)
        for _, uid, _ in whose[:3]:
            own = {one: row for one, (where, of, row) in model.records.items() if of == uid and where == tenant}
            assert index.of(tenant, uid) == set(own)
            assert index.match(tenant, uid, probe) == pytest.approx(
                max(float(r @ probe) for r in own.values()), abs=1e-5
            )
    assert index.search("nobody", units(1, 1)[0]) is None
    assert index.match("acme", b"x" * 16, units(1, 1)[0]) is None


def test_eight_bits_find_the_nearest_of_many() -> None:
    people, queries = units(20_000, 1, 512), units(200, 2, 512)
    queries[:100] = queries[:100] * 0.8 + people[:100]  # of somebody; the others resemble nobody
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    ids = [ident(number) for number in range(len(people))]
    quick = Index(512, "faiss")
    quick.add("acme", ids, ids, people)
    scores = people @ queries.T
    for number, probe in enumerate(queries):
        hit = quick.search("acme", probe)
        assert hit is not None
        assert hit.uid == ids[int(scores[:, number].argmax())]
        assert hit.cosine == pytest.approx(float(scores[:, number].max()), abs=1e-5)


def test_values_that_eight_bits_cannot_hold_are_compared_all_the_same() -> None:
    rows = np.zeros((200, 512), np.float32)
    rows[np.arange(200), np.arange(200)] = 1  # all of a template in one value
    ids = [ident(number) for number in range(200)]
    quick = Index(512, "faiss")
    quick.add("acme", ids, ids, rows)
    assert [quick.search("acme", row) for row in rows] == [Hit(one, 1.0) for one in ids]


def test_faiss_that_is_not_installed_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match="faiss") as raised:
        index_maker("faiss")
    assert 'pip install "bauta[search]"' in str(raised.value)


@pytest.mark.parametrize(("search", "shards"), [("exact", 0), ("exact", 65), ("ivf", 1)])
def test_there_is_no_other_search(search: Any, shards: int) -> None:
    with pytest.raises(UsageError, match="no such search"):
        index_maker(search, shards)


def test_nothing_is_answered_without_a_part() -> None:
    index = index_maker("exact", 2)(D)
    assert isinstance(index, ShardedIndex)
    ids, rows = [ident(number) for number in range(40)], units(40, 1)
    index.add("acme", ids, ids, rows)
    homes = {index._home(one) for one in ids}
    assert homes == {0, 1}
    index.shards[1].process.kill()  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(GalleryError, match="has ended"):
            index.search("acme", rows[0])
    with pytest.raises(GalleryError, match="has ended"):
        index.match("acme", ids[0], rows[0])

    def fails() -> None:
        with index.restarted() as lost:
            assert lost is not None
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        fails()
    with pytest.raises(GalleryError, match="has ended"):  # it was not filled
        index.search("acme", rows[0])
    with index.restarted() as lost:
        assert lost is not None
        again = [place for place, one in enumerate(ids) if lost(one)]
        assert again == [place for place, one in enumerate(ids) if index._home(one) == 1]
        index.add("acme", [ids[place] for place in again], [ids[place] for place in again], rows[again])
    assert [index.search("acme", row) for row in rows] == [
        Hit(one, pytest.approx(1.0, abs=1e-5))
        for one in ids  # type: ignore[arg-type]
    ]
    with index.restarted() as lost:
        assert lost is None
    index.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[FaceService]:
    made = new_service(tmp_path, index=index_maker("faiss", 2))
    for number in range(8):
        made.enrol("acme", f"person {number}", photo(number), actor="test")
    yield made
    made.close()


def killed(service: FaceService) -> None:
    index = service.side.index
    assert isinstance(index, ShardedIndex)
    for shard in index.shards:
        shard.process.kill()  # type: ignore[attr-defined]
        shard.process.wait()  # type: ignore[attr-defined]


def everybody(service: FaceService) -> list[str | None]:
    return [service.search("acme", photo(number), actor="test", force=True).subject for number in range(8)]


def test_a_service_fills_what_ended_from_its_store(service: FaceService) -> None:
    expected = [f"person {number}" for number in range(8)]
    assert everybody(service) == expected
    killed(service)
    assert everybody(service) == expected
    assert service.count("acme") == 8
    killed(service)
    assert service.match("acme", "person 5", photo(5), actor="test")
    killed(service)
    service.enrol("acme", "person 9", photo(9), actor="test")
    assert service.search("acme", photo(9), actor="test", force=True).subject == "person 9"


@pytest.mark.parametrize("act", ["erase", "revoke"])
def test_who_left_meanwhile_is_not_filled_in(service: FaceService, act: str) -> None:
    killed(service)
    if act == "erase":
        assert service.erase("acme", "person 3", actor="test").state == "erased"
    else:
        with service.store.writing() as writer:
            writer.revoke("acme", "person 3", 1000)
    assert everybody(service) == [None if number == 3 else f"person {number}" for number in range(8)]
    assert service.count("acme") == 7
