"""Secure comparison of shared scores (Goldreich, Micali and Wigderson), and the one bit, or place, that is opened.

The door has y, the server z = -(r + threshold), and y + z modulo 2^21 is the score less the threshold: its highest bit
says that the score is too low. Bits are packed by place, a crossing at a time for all of them. The carry is a tree of
depth five, the OR a tournament; the place of the first match is carried up the same tournament (our addition to
CryptoMask). Each side is a generator that yields what it sends and is sent what it receives, so that a process can run
both, and a socket one.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.parameters import PLAIN, PLAIN_BITS
from bauta.encrypted.triples import Bits, Tape
from bauta.errors import UsageError

Mode = Literal["verify", "exists", "identify"]
Talk = Generator[bytes, bytes, Bits]

_LEAVES = PLAIN_BITS - 1


def plan(places: int, probes: int, mode: Mode) -> list[int]:
    """Bytes of each crossing, in order, of `decide`."""
    width = probes * -(-places // 8)
    sizes, leaves = [_LEAVES * width], _LEAVES
    while leaves > 1:
        pairs, leaves = leaves // 2, -(-leaves // 2)
        sizes.append(2 * (2 * pairs - 1) * width)
    return sizes + [2 * gates for gates in _tournament(places, probes, mode)]


def _tournament(places: int, probes: int, mode: Mode) -> list[int]:
    lanes, level, sizes = _lanes(places), 0, []
    while lanes > 1:
        lanes //= 2
        sizes.append(probes * max(lanes // 8, 1) * (1 + (level if mode == "identify" else 0)))
        level += 1
    return sizes


def _lanes(places: int) -> int:
    return max(8, 1 << (places - 1).bit_length()) if places > 1 else 8


class Side:
    """One of the two: what it does alike.

    Args:
        tape: Its randomness.
        door: Whether it is the door.
    """

    def __init__(self, tape: Tape, *, door: bool) -> None:
        self._tape, self._door = tape, door

    def cross(self, mine: Bits) -> Talk:
        """Shares of the door's bits AND the server's."""
        one, other = self._tape.take(mine.size)
        one, other = one.reshape(mine.shape), other.reshape(mine.shape)
        theirs = yield (mine ^ one).tobytes()
        if len(theirs) != mine.size:
            raise UsageError("The peer sent another length than the circuit has.", hint="Run one version on both.")
        opened = np.frombuffer(theirs, np.uint8).reshape(mine.shape)
        # x y = x (y^b) ^ b (x^a) ^ ... : the door has a (y^b) ^ c, the server y (x^a) ^ d.
        share: Bits = ((one if self._door else mine) & opened) ^ other
        return share

    def both(self, x: Bits, y: Bits) -> Talk:
        """Shares of x AND y, both shared: two crossings and what each side has itself."""
        pair = np.stack([x, y]) if self._door else np.stack([y, x])
        crossed = yield from self.cross(pair)
        share: Bits = (x & y) ^ crossed[0] ^ crossed[1]
        return share

    def decide(self, values: NDArray[np.uint32], mode: Mode) -> Talk:
        """This side's share of the answer.

        Args:
            values: (probes, places), this side's share of score less threshold, modulo 2^21.
            mode: ``identify`` finds the first match, the others whether there is one.

        Returns:
            (probes, bytes): a bit, and with ``identify`` the place after it, highest bit first, a byte each.
        """
        probes, places = values.shape
        bits = np.stack([np.packbits((values >> bit) & 1, axis=1) for bit in range(PLAIN_BITS)])
        low = yield from self._carry(bits[:_LEAVES])
        match = bits[_LEAVES] ^ low
        if self._door:  # the highest bit is 0 where the score is high enough
            match ^= np.packbits(np.ones(places, np.uint8))
        lanes = np.zeros((probes, _lanes(places)), np.uint8)
        lanes[:, _reversed(_lanes(places))[:places]] = np.unpackbits(match, axis=1, count=places)
        return (yield from self._first(np.packbits(lanes, axis=1), mode))

    def _carry(self, bits: Bits) -> Talk:
        """The carry into the highest bit of the sum of the door's and the server's value."""
        made = yield from self.cross(bits)
        spread = bits
        while len(made) > 1:
            pairs = len(made) // 2
            # Pairs are taken from the low end, which needs no propagation of its own.
            high_made, high_spread = made[1 : 2 * pairs : 2], spread[1 : 2 * pairs : 2]
            low_made, low_spread = made[0 : 2 * pairs : 2], spread[0 : 2 * pairs : 2]
            answer = yield from self.both(
                np.concatenate([high_spread, high_spread[1:]]), np.concatenate([low_made, low_spread[1:]])
            )
            rest_made, rest_spread = made[2 * pairs :], spread[2 * pairs :]
            made = np.concatenate([high_made ^ answer[:pairs], rest_made])
            spread = np.concatenate([spread[:1], answer[pairs:], rest_spread])
        carry: Bits = made[0]
        return carry

    def _first(self, lanes: Bits, mode: Mode) -> Talk:
        """A tournament of halves, which are neighbours where lanes stand in reversed order of bits."""
        found, count, where = lanes, 8 * lanes.shape[1], np.zeros((0, *lanes.shape), np.uint8)
        while count > 1:
            count //= 2
            left, right = _halves(found, count)
            before, after = _halves(where, count)
            answer = yield from self.both(
                np.concatenate([left[None], np.broadcast_to(left, before.shape)]),
                np.concatenate([right[None], before ^ after]),
            )
            found = left ^ right ^ answer[0]
            where = after ^ answer[1:]
            if mode == "identify":
                ones = np.uint8((1 << min(count, 8)) - 1)
                where = np.concatenate([where, (left ^ ones if self._door else left)[None]])
        return np.concatenate([found[None], where[::-1]]).swapaxes(0, 1)[..., 0]


def _reversed(lanes: int) -> NDArray[np.intp]:
    """For each place its lane: the bits of its number, backwards."""
    order = np.zeros(1, np.intp)
    while len(order) < lanes:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def _halves(lanes: Bits, count: int) -> tuple[Bits, Bits]:
    """The first `count` lanes and the others; the last byte is cut by bits."""
    if count >= 8:
        return lanes[..., : count // 8], lanes[..., count // 8 :]
    return (lanes >> count).astype(np.uint8), lanes & np.uint8((1 << count) - 1)


def door_values(decrypted: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The door's share of score less threshold."""
    return decrypted


def server_values(share: NDArray[np.uint32], threshold: int) -> NDArray[np.uint32]:
    """The server's share of score less threshold."""
    return (-(share.astype(np.int64) + threshold) % PLAIN).astype(np.uint32)


def opened(ours: Bits, theirs: bytes) -> list[int | None]:
    """The answers of all probes, once both shares are in one hand: None for no match, else the place, 0 without one.

    Raises:
        UsageError: when the other share has another length.
    """
    if len(theirs) != ours.size:
        raise UsageError("The peer sent another length than the answer has.", hint="Run one version on both.")
    bits = ours ^ np.frombuffer(theirs, np.uint8).reshape(ours.shape)
    if bits.max(initial=0) > 1:
        raise UsageError("The opened answer is not of bits.", hint="Run one version on both.")
    return [int("".join(map(str, [0, *row[1:]])), 2) if row[0] else None for row in bits.tolist()]


def run_both(door: Talk, server: Talk) -> tuple[Bits, Bits, Sequence[bytes]]:
    """Both sides in one process: their results, and what the door was sent."""
    heard: list[bytes] = []
    one, other = next(door), next(server)
    while True:
        heard.append(other)
        try:
            following = door.send(other)
        except StopIteration as end:
            mine: Bits = end.value
            break
        other = server.send(one)
        one = following
    try:
        server.send(one)
    except StopIteration as end:
        return mine, end.value, heard
    raise AssertionError("both sides run one circuit")
