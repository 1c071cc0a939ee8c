"""Which index a service has: one in its own process, or shards in others."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from bauta.errors import UsageError
from bauta.gallery.index import Index, Search
from bauta.gallery.shards import AnyIndex, ProcessShard, ShardedIndex

MOST = 64


def index_maker(search: Search = "exact", shards: int = 1, ray: str | None = None) -> Callable[[int], AnyIndex]:
    """What makes an index of a dimension.

    Args:
        search: ``exact`` or ``faiss``; see `bauta.gallery.index.Index`.
        shards: Processes that hold it; 1 for this one, unless Ray has them.
        ray: The cluster whose actors hold them, see `bauta.gallery.ray_shards.join`; None for processes here.

    Raises:
        UsageError: when there is no such search, faiss or Ray is not installed, the number is not 1 to `MOST`, or the
            cluster may not be used.
        GalleryError: when there is no such cluster.
    """
    if search not in ("exact", "faiss") or not 1 <= shards <= MOST:
        raise UsageError("There is no such search.", hint=f"It is exact or faiss, in 1 to {MOST} processes.")
    Index(1, search)  # says that faiss is not installed
    if ray is not None:
        from bauta.gallery.ray_shards import RayShard, join

        join(ray)
        return lambda dimension: ShardedIndex(partial(RayShard, dimension, search), shards)
    if shards == 1:
        return partial(Index, search=search)
    threads = max(1, (os.cpu_count() or 1) // shards)
    return lambda dimension: ShardedIndex(partial(ProcessShard, dimension, search, threads), shards)
