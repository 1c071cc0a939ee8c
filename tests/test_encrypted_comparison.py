"""Encrypted matching: the secret-shared comparison, and what each side sees of it."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bauta.encrypted.comparison import Mode, Side, opened, plan, run_both, server_values
from bauta.encrypted.parameters import PLAIN
from bauta.encrypted.triples import Dealer, DoorTape, DoorTapes, ServerTape, ServerTapes
from bauta.errors import UsageError

LIMIT = 100_000


def shared(scores: Any, random: np.random.Generator) -> tuple[Any, Any]:
    share = random.integers(0, PLAIN, scores.shape)
    return ((scores + share) % PLAIN).astype(np.uint32), server_values(share.astype(np.uint32), LIMIT)


def compared(scores: Any, mode: Mode, seed: int = 0) -> tuple[list[int | None], list[bytes]]:
    door, server = shared(scores, np.random.default_rng(seed))
    dealer, session = Dealer(), secrets.token_bytes(32)
    sizes = plan(scores.shape[1], len(scores), mode)
    one, other, heard = run_both(
        Side(DoorTapes(dealer).tape(session, sizes), door=True).decide(door, mode),
        Side(ServerTapes(dealer).tape(session, sizes), door=False).decide(server, mode),
    )
    assert [len(each) for each in heard] == sizes
    return opened(one, other.tobytes()), list(heard)


def wanted(scores: Any, mode: Mode) -> list[int | None]:
    found = [np.flatnonzero(row >= LIMIT) for row in scores]
    return [(int(each[0]) if mode == "identify" else 0) if len(each) else None for each in found]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 3), st.sampled_from(["exists", "identify"]), st.data())
def test_answers_are_those_of_plain_comparison(places: int, probes: int, mode: Mode, data: Any) -> None:
    near = st.sampled_from([LIMIT, LIMIT - 1, LIMIT + 1, -(2**18), 2**18, 0, -1])
    row = st.lists(near | st.integers(-(2**18), 2**18), min_size=places, max_size=places)
    scores = np.array(data.draw(st.lists(row, min_size=probes, max_size=probes)))
    assert compared(scores, mode)[0] == wanted(scores, mode)


def test_one_score_is_compared_as_exactly_as_many() -> None:
    for score in (LIMIT - 1, LIMIT):
        assert compared(np.array([[score]]), "verify")[0] == wanted(np.array([[score]]), "verify")
    scores = np.random.default_rng(0).integers(-(2**18), LIMIT, (1, 5000))
    assert compared(scores, "identify")[0] == [None]
    scores[0, [4999, 4321]] = LIMIT
    assert compared(scores, "identify")[0] == [4321]


def test_what_the_door_is_sent_looks_the_same_whatever_the_gallery() -> None:
    low, high = np.full((1, 40_000), -(2**17)), np.full((1, 40_000), 2**18)
    for scores in (low, high):
        heard = np.unpackbits(np.frombuffer(b"".join(compared(scores, "identify")[1]), np.uint8))
        assert abs(heard.mean() - 0.5) < 0.002


def test_one_tape_used_twice_shows_what_two_do_not() -> None:
    scores, random = np.full((1, 4096), 2**17), np.random.default_rng(0)
    dealer, sizes = Dealer(), plan(4096, 1, "exists")

    def first_crossing(session: bytes, values: Any) -> Any:
        talk = Side(ServerTapes(dealer).tape(session, sizes), door=False).decide(values, "exists")
        return np.frombuffer(next(talk), np.uint8)

    one, other = shared(scores, random)[1], shared(scores, random)[1]
    bits = [np.concatenate([np.packbits((v >> bit) & 1, axis=1)[0] for bit in range(20)]) for v in (one, other)]
    again = first_crossing(b"a" * 32, one) ^ first_crossing(b"a" * 32, other)
    assert (again == bits[0] ^ bits[1]).all()  # so sessions never repeat
    fresh = first_crossing(b"a" * 32, one) ^ first_crossing(b"b" * 32, other)
    assert (fresh != bits[0] ^ bits[1]).mean() > 0.9


def test_the_dealer_gives_each_side_its_own_half() -> None:
    dealer, session, sizes = Dealer(), secrets.token_bytes(32), [100, 7]
    door = DoorTape(dealer.door(session))
    seed, corrections = dealer.server(session, sizes)
    assert seed != door.seed
    server = ServerTape(seed, corrections)
    for size in sizes:
        (a, c), (b, d) = door.take(size), server.take(size)
        assert (a & b == c ^ d).all()
    with pytest.raises(UsageError, match="dealer"):
        server.take(1)


def test_a_peer_that_sends_another_length_is_refused() -> None:
    door, _ = shared(np.zeros((1, 8), np.int64), np.random.default_rng(0))
    talk = Side(DoorTape(bytes(32)), door=True).decide(door, "exists")
    next(talk)
    with pytest.raises(UsageError, match="length"):
        talk.send(b"short")
    for share in (b"", b"\0\0", b"\2"):
        with pytest.raises(UsageError):
            opened(np.zeros((1, 1), np.uint8), share)
