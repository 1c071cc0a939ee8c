"""Galleries, keys and scores for tests of encrypted matching."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest

from bauta.encrypted.encoded import Answer, EncodedGallery
from bauta.encrypted.parameters import PLAIN
from bauta.encrypted.server import Server
from bauta.encrypted.triples import DoorTapes, ServerTapes
from bauta.encrypted.wire import Link

pytest.importorskip("tenseal", reason="the extra `encrypted` is not installed")

from bauta.encrypted.door import Door
from bauta.encrypted.keys import DealerKey, DoorKey, ServerKey, generate_keys


def faces(count: int, dimension: int = 512, seed: int = 0) -> Any:
    """Embeddings of unit norm."""
    values = np.random.default_rng(seed).standard_normal((count, dimension))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@cache
def keys() -> tuple[DoorKey, ServerKey, DealerKey]:
    return generate_keys()


def scores(answers: Iterable[Answer], width: int, places: int) -> Any:
    """What both shares together say, (probes, places): in the protocol they are never in one hand."""
    parts = []
    for answer in answers:
        opened = [
            keys()[0]
            .secret.decrypt(first.transpose(1, 2, 0), np.ascontiguousarray(second.transpose(1, 2, 0)), width)
            .T.reshape(-1)
            for first, second in zip(answer.first, answer.second, strict=True)
        ]
        parts.append(np.stack(opened).astype(np.int64) - answer.share)
    return ((np.concatenate(parts, axis=1) + PLAIN // 2) % PLAIN - PLAIN // 2)[:, :places]


def sealed_probes(gallery: EncodedGallery, templates: Any) -> Any:
    return np.stack([keys()[0].secret.encrypt(gallery.layout.probe(one)) for one in templates])


def plain_scores(probes: Any, gallery: Any) -> Any:
    return probes.astype(np.int64) @ gallery.astype(np.int64).T


@contextmanager
def talking(answer: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """The other end of a connection that is answered in a thread, which must end."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            answer(theirs)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(20)
        assert not thread.is_alive(), "the server hangs"


@contextmanager
def door_to(server: Server, key: DoorKey | None = None) -> Iterator[Door]:
    mine, _, dealer = keys()
    key = key or mine
    with talking(server.answer) as connection:
        yield Door(key, Link(connection, key.server, patience=10), DoorTapes(dealer.tapes))


def server_of(gallery: EncodedGallery, cosine: float = 0.4, **settings: Any) -> Server:
    _, key, dealer = keys()
    settings = {"patience": 10.0, "keys": [key], **settings}
    return Server(gallery, cosine=cosine, tapes=lambda _: ServerTapes(dealer.tapes), **settings)
