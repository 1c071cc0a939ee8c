"""The dealer over the network: a third machine, which both sides ask for their tapes."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bauta.encrypted.exchange import Address, connect
from bauta.encrypted.keys import SECRET, DealerKey, DoorKey, ServerKey
from bauta.encrypted.messages import HELLO, Role
from bauta.encrypted.triples import SEED, DoorTape, ServerTape, Tape
from bauta.encrypted.wire import NONCE, Kind, Link, attend, nonce
from bauta.errors import PeerError

LARGEST_PLAN = 1 << 31
"""Bytes of tape for one comparison: 100 M places take 1.1 GB."""
_MOST_CROSSINGS = 64
_CROSSING = struct.Struct(">Q")


@dataclass(frozen=True)
class RemoteTapes:
    """Tapes of a dealer over TCP, for one side.

    Attributes:
        address: Of the dealer.
        key: Of this side.
        tls: To speak TLS.
        patience: Seconds that the dealer may be silent.
    """

    address: Address
    key: DoorKey | ServerKey
    tls: ssl.SSLContext | None = None
    patience: float = field(default=60.0)

    def tape(self, session: bytes, plan: Sequence[int]) -> Tape:
        """See `bauta.encrypted.triples.Tapes`.

        Raises:
            PeerError: when the dealer is gone, or has other keys.
        """
        role = Role.DOOR if isinstance(self.key, DoorKey) else Role.SERVER
        link = Link(connect(self.address, self.tls, patience=self.patience), self.key.dealer, patience=self.patience)
        try:
            hello = HELLO.pack(self.key.id, nonce(), role)
            link.send(Kind.HELLO, hello)
            welcome = link.receive(Kind.WELCOME, NONCE)
            link.begin(hello + welcome, caller=True)
            link.send(Kind.ASK, session + b"".join(map(_CROSSING.pack, plan)))
            content = link.receive(Kind.TAPE, SEED + (0 if role is Role.DOOR else sum(plan)))
        finally:
            link.close()
        seed = content[:SEED]
        return DoorTape(seed) if role is Role.DOOR else ServerTape(seed, content[SEED:])


class DealerService:
    """Answers doors and servers, each with its own tape alone. It keeps nothing.

    Args:
        keys: One for each pair.
        patience: Seconds that a peer may be silent.
        log: Called with a line for each conversation that failed.
    """

    def __init__(
        self, keys: Iterable[DealerKey], *, patience: float = 60.0, log: Callable[[str], None] = lambda line: None
    ) -> None:
        self._keys, self._patience, self._log = {key.id: key for key in keys}, patience, log

    def answer(self, connection: socket.socket) -> None:
        """Converse over a connection; what is wrong is said to the peer, and logged."""
        attend(Link(connection, b"", patience=self._patience), self._converse, self._log, "dealer")

    def _converse(self, link: Link) -> None:
        header, hello, seal = link.open(Kind.HELLO, HELLO.size)
        key_id, _, role = HELLO.unpack(hello)
        key = self._keys.get(key_id)
        if key is None or role not in set(Role):
            raise PeerError(
                "This key is not registered here.", hint="Give dealer.key of the same keygen to the dealer."
            )
        link.use(key.door if role == Role.DOOR else key.server)
        link.check(header, hello, seal)
        welcome = nonce()
        link.send(Kind.WELCOME, welcome)
        link.begin(hello + welcome, caller=False)
        longest = SECRET + _MOST_CROSSINGS * _CROSSING.size
        asked = link.receive(Kind.ASK, SECRET + _CROSSING.size, longest=longest)
        session, rest = asked[:SECRET], asked[SECRET:]
        if len(rest) % _CROSSING.size:
            raise PeerError("A plan has another form.", hint="Run one version on all sides.")
        plan = [size for (size,) in _CROSSING.iter_unpack(rest)]
        if sum(plan) > LARGEST_PLAN:
            raise PeerError("A comparison of that size is not dealt for.", hint="Ask for fewer probes at once.")
        if role == Role.DOOR:
            link.send(Kind.TAPE, key.tapes.door(session))
            return
        seed, corrections = key.tapes.server(session, plan)
        link.send(Kind.TAPE, seed + corrections)
