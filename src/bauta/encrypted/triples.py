"""Correlated randomness for the comparison, and who makes it: the dealer.

All that a comparison needs of it is `cross`: the door has bits x, the server bits y, and they want shares of x AND y.
For that a dealer gives the door random a and c, the server random b and d, with a AND b = c XOR d. The dealer is
**trusted**: it sees no probe, gallery or score, but with either side's messages it could read the other's. It is a
party of its own (`bauta encrypted dealer`), and `Tapes` is the only door to it: a backend without one makes the same
tapes by oblivious transfer, or runs `cross` as a whole.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError

Bits = NDArray[np.uint8]

SEED = 32


class Tape(Protocol):
    """One side's randomness, used once, from the first crossing to the last."""

    def take(self, count: int) -> tuple[Bits, Bits]:
        """Two arrays of so many bytes: for the door a and c, for the server b and d."""


def _stretched(seed: bytes, crossing: int, name: bytes, count: int) -> Bits:
    """Bytes that only who has the seed can compute (SHAKE-256)."""
    stream = hashlib.shake_256(seed + crossing.to_bytes(8, "big") + name).digest(count)
    return np.frombuffer(stream, np.uint8)


@dataclass
class DoorTape:
    """All from a seed.

    Attributes:
        seed: 32 bytes of the dealer.
    """

    seed: bytes = field(repr=False)
    _crossing: int = 0

    def take(self, count: int) -> tuple[Bits, Bits]:
        """See `Tape`."""
        self._crossing += 1
        return tuple(_stretched(self.seed, self._crossing, name, count) for name in (b"a", b"c"))  # type: ignore[return-value]


@dataclass
class ServerTape:
    """Half from a seed, half from what the dealer corrects.

    Attributes:
        seed: 32 bytes of the dealer.
        corrections: For each crossing d.

    Raises:
        UsageError: on use, when the dealer made it for another circuit.
    """

    seed: bytes = field(repr=False)
    corrections: bytes = field(repr=False)
    _crossing: int = 0
    _used: int = 0

    def take(self, count: int) -> tuple[Bits, Bits]:
        """See `Tape`."""
        self._crossing += 1
        part = self.corrections[self._used : self._used + count]
        if len(part) != count:
            raise UsageError("The dealer sent too little.", hint="Ask it for the circuit that is run.")
        self._used += count
        return _stretched(self.seed, self._crossing, b"b", count), np.frombuffer(part, np.uint8)


@dataclass(frozen=True)
class Dealer:
    """Makes both tapes of a session, each side's alone when it is asked for.

    Attributes:
        secret: 32 bytes; tapes are derived from it and the session, so that nothing is kept.
    """

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(SEED), repr=False)

    def _seed(self, session: bytes, side: bytes) -> bytes:
        return hmac.digest(self.secret, session + side, "sha256")

    def door(self, session: bytes) -> bytes:
        """The door's seed.

        Args:
            session: 32 bytes that both sides drew together, never twice.
        """
        return self._seed(session, b"door")

    def server(self, session: bytes, plan: Sequence[int]) -> tuple[bytes, bytes]:
        """The server's seed and corrections.

        Args:
            session: As for the door.
            plan: Bytes of each crossing.
        """
        ours, theirs = DoorTape(self.door(session)), self._seed(session, b"server")
        parts = []
        for crossing, count in enumerate(plan, 1):
            a, c = ours.take(count)
            parts.append(((a & _stretched(theirs, crossing, b"b", count)) ^ c).tobytes())
        return theirs, b"".join(parts)


class Tapes(Protocol):
    """Where a side gets its tapes: a dealer in the same process, one over the network, or a protocol without any."""

    def tape(self, session: bytes, plan: Sequence[int]) -> Tape:
        """This side's tape for a session."""


@dataclass(frozen=True)
class DoorTapes:
    """The door's, of a dealer in the same process: for tests and measurements."""

    dealer: Dealer

    def tape(self, session: bytes, plan: Sequence[int]) -> Tape:
        """See `Tapes`."""
        del plan
        return DoorTape(self.dealer.door(session))


@dataclass(frozen=True)
class ServerTapes:
    """The server's, likewise."""

    dealer: Dealer

    def tape(self, session: bytes, plan: Sequence[int]) -> Tape:
        """See `Tapes`."""
        return ServerTape(*self.dealer.server(session, plan))
