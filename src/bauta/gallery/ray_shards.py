"""Shards as actors of Ray, on this machine or on others (`bauta[ray]`).

A node sees of its part what a shard sees, and so does whoever may read its memory or join the cluster: Ray keeps what
actors are given in shared memory and in the clear. A cluster that is started here listens on the loopback interface
alone, asks for a token that is drawn for it, and writes no objects to disks. One on other machines is joined only where
its connections are encrypted and ask for a token.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
from typing import Any

from bauta.errors import GalleryError, UsageError, missing_extra
from bauta.gallery.index import Index, Search
from bauta.gallery.shards import ShardLost

LOCAL = "local"
_joined: set[str] = set()
_STORE = 80 * 2**20  # bytes of shared memory, as few as Ray takes: records come in batches, and do not stay there
_HERE = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # everywhere what Ray does there: it listens on 127.0.0.1
}


def join(address: str) -> None:
    """Join a cluster, or start one on this machine, once in a process.

    Args:
        address: ``local``, or that of a cluster as Ray takes it.

    Ray reads its environment when it is imported first; whoever uses it besides sets RAY_AUTH_MODE=token before.

    Raises:
        MissingExtra: when Ray is not installed.
        UsageError: when the connections of a cluster elsewhere are not encrypted, or do not ask for a token, and when
            this process is in another cluster.
        GalleryError: when there is no cluster, or it cannot be started.
    """
    if address in _joined:
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == LOCAL:
        os.environ.update(_HERE, RAY_AUTH_TOKEN=secrets.token_hex(32))
    elif os.environ.get("RAY_USE_TLS", "").lower() not in ("1", "true") or os.environ.get("RAY_AUTH_MODE") != "token":
        raise UsageError(
            f"Templates would go to {address} in the clear, or to whoever joins.",
            hint="Start its nodes and this service with RAY_USE_TLS=1 and RAY_AUTH_MODE=token, as Ray describes.",
        )
    try:
        import ray
    except ModuleNotFoundError as error:
        raise missing_extra("ray", what="A cluster") from error
    if ray.is_initialized():  # by others, who may have left it open
        raise UsageError("This process is in another cluster of Ray already.", hint="Run the service in its own.")
    try:
        if address == LOCAL:
            folder = tempfile.mkdtemp(prefix="bauta-ray-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            ray.init(
                "local",  # else RAY_ADDRESS, or a cluster that is found here, would be joined
                _temp_dir=f"{folder}/ray",  # which Ray opens to everybody; the folder around it is private
                _node_ip_address="127.0.0.1",
                include_dashboard=False,
                object_store_memory=_STORE,
                log_to_driver=False,
                logging_level="ERROR",
                _system_config={"automatic_object_spilling_enabled": False},
            )
            atexit.register(ray.shutdown)
        else:
            _reach(address)  # where nothing listens, Ray tries for minutes
            ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise GalleryError(
            f"There is no cluster of Ray at {address}: {str(error).splitlines()[0]}",
            hint="Start it, or take --ray local. Ray needs room in /dev/shm.",
        ) from error
    _joined.add(address)


def _reach(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


class _Held(Index):
    """An index, and something to wait for that ends when its process does."""

    def last(self) -> None:
        """Never return."""
        threading.Event().wait()


class RayShard:
    """An actor of Ray. `join` was called before.

    Args:
        dimension: Of a template.
        search: How it searches.
    """

    def __init__(self, dimension: int, search: Search) -> None:
        import ray

        # One thread waits for the end, and one works; an actor that ended is filled from the store, and so is new.
        options = {"num_cpus": 0, "max_concurrency": 2, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self.actor: Any = ray.remote(_Held).options(**options).remote(dimension, search)
        self._end = self.actor.last.remote()
        self._answer: Any = None

    def begin(self, name: str, given: tuple[Any, ...], more: dict[str, Any]) -> None:
        """Ask."""
        self._answer = getattr(self.actor, name).remote(*given, **more)

    def end(self) -> Any:
        """Hear."""
        import ray

        answer, self._answer = self._answer, None
        try:
            return ray.get(answer)
        except ray.exceptions.RayError as error:
            raise ShardLost from error

    def alive(self) -> bool:
        """Whether Ray has not told of its end."""
        import ray

        ended, _ = ray.wait([self._end], timeout=0)
        return not ended

    def close(self) -> None:
        """Kill it: it has nothing to finish."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.kill(self.actor)
