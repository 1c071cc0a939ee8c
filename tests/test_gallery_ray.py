"""Shards as actors of Ray, on a cluster that listens on the loopback interface alone."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from bauta.errors import GalleryError, MissingExtra, UsageError
from bauta.gallery import ray_shards
from bauta.gallery.index import Hit, Index
from bauta.gallery.indexes import index_maker
from bauta.gallery.service import FaceService
from bauta.gallery.shards import ShardedIndex
from store_builders import new_service, photo
from test_gallery_shards import everybody, ident, units

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install "bauta[ray]"'),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of its files and of versions to come
]
D = 48


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    kept = dict(os.environ)
    os.environ["RAY_ADDRESS"] = "192.0.2.7:6379"  # of somebody else's cluster, which local must not mean
    ray_shards.join("local")  # before it is imported: it reads its environment then
    import ray

    yield
    ray.shutdown()
    ray_shards._joined.clear()
    for one in gc.get_objects():  # Ray ends its processes and does not wait for them, which Python complains of
        if isinstance(one, subprocess.Popen) and "ray" in str(one.args):
            one.wait(30)
    os.environ.clear()
    os.environ.update(kept)


def killed(shard: object) -> None:
    """The process of an actor ends, and Ray has heard of it."""
    import ray

    assert isinstance(shard, ray_shards.RayShard)
    ray.kill(shard.actor)
    ray.wait([shard._end], timeout=30)


def test_actors_say_what_one_index_says() -> None:
    index, whole = index_maker("exact", 2, "local")(D), Index(D)
    assert isinstance(index, ShardedIndex)
    ids, rows = [ident(number) for number in range(60)], units(60, 1)
    for one in (index, whole):
        one.add("acme", ids, ids, rows)
        one.remove(ids[:7])
    assert {index._home(one) for one in ids} == {0, 1}
    assert index.ids() == whole.ids()
    for number, probe in enumerate(units(20, 2)):
        found, expected = (one.search("acme", probe, but=ids[30]) for one in (index, whole))
        assert found is not None
        assert expected is not None
        assert found == Hit(expected.uid, pytest.approx(expected.cosine, abs=1e-5))  # type: ignore[arg-type]
        own, alone = (one.match("acme", ids[number], probe) for one in (index, whole))
        assert (own is None) == (alone is None) == (number < 7)
        assert own is None or own == pytest.approx(alone, abs=1e-5)
        assert index.of("acme", ids[number]) == whole.of("acme", ids[number])
    assert index.search("other", rows[0]) is None
    index.close()


def test_nothing_is_answered_without_an_actor_and_it_comes_back() -> None:
    index = index_maker("exact", 2, "local")(D)
    assert isinstance(index, ShardedIndex)
    ids, rows = [ident(number) for number in range(40)], units(40, 1)
    index.add("acme", ids, ids, rows)
    with index.restarted() as lost:
        assert lost is None
    killed(index.shards[1])
    assert not index.shards[1].alive()
    with pytest.raises(GalleryError, match="has ended"):
        index.search("acme", rows[0])
    with index.restarted() as lost:
        assert lost is not None
        again = [place for place, one in enumerate(ids) if lost(one)]
        index.add("acme", [ids[place] for place in again], [ids[place] for place in again], rows[again])
    found = [index.search("acme", row) for row in rows]
    assert found == [Hit(one, pytest.approx(1.0, abs=1e-5)) for one in ids]  # type: ignore[arg-type]
    index.close()


def test_a_service_fills_an_actor_that_was_killed_from_its_store(tmp_path: Path) -> None:
    service: FaceService = new_service(tmp_path, index=index_maker("exact", 2, "local"))
    for number in range(8):
        service.enrol("acme", f"person {number}", photo(number), actor="test")
    expected = [f"person {number}" for number in range(8)]
    assert everybody(service) == expected
    index = service.side.index
    assert isinstance(index, ShardedIndex)
    killed(index.shards[0])
    assert everybody(service) == expected
    assert service.count("acme") == 8
    service.close()


def test_the_cluster_listens_here_alone_and_asks_for_a_token() -> None:
    import ray

    listening = set()
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            places = process.net_connections("tcp")
            listening |= {place.laddr.ip for place in places if place.status == psutil.CONN_LISTEN}
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    folder = Path(ray._private.worker._global_node.get_temp_dir_path())
    assert folder.parent.stat().st_mode & 0o777 == 0o700  # whatever Ray does to its own
    stranger = f"import ray; ray.init({ray.get_runtime_context().gcs_address!r}, log_to_driver=False)"
    done = subprocess.run(
        [sys.executable, "-c", stranger],
        env={**os.environ, "RAY_AUTH_TOKEN": "0" * 64},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0


@pytest.mark.parametrize("given", [{}, {"RAY_USE_TLS": "1"}, {"RAY_USE_TLS": "0", "RAY_AUTH_MODE": "token"}])
def test_a_cluster_elsewhere_is_joined_only_encrypted_and_with_a_token(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_USE_TLS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="in the clear"):
        index_maker("exact", 2, "10.0.0.5:6379")


def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_USE_TLS", "1")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(UsageError, match="another cluster"):  # this process is in the local one
        index_maker("exact", 2, address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(GalleryError, match=f"no cluster of Ray at {address}"):
        index_maker("exact", 2, address)


def test_a_cluster_is_joined_once_and_an_open_one_of_others_never(monkeypatch: pytest.MonkeyPatch) -> None:
    token = os.environ["RAY_AUTH_TOKEN"]
    ray_shards.join("local")
    assert os.environ["RAY_AUTH_TOKEN"] == token
    monkeypatch.setattr(ray_shards, "_joined", set())
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(UsageError, match="another cluster"):
        ray_shards.join("local")


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_shards, "_joined", set())
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match="bauta\\[ray\\]"):
        index_maker("exact", 2, "local")
