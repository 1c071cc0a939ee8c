"""Frames between door, server and dealer, version 1 (our design)::

    header    "BTEM", version (2 bytes), kind (2), number of the frame (4), length (8)
    payload
    seal      HMAC-SHA256 over header and payload, under the key of the session and direction

A session's keys come from the secret that both sides share and from what both drew at its beginning, so that a frame of
another session, or sent again, is refused. A length is compared with what the protocol expects *before* anything is
read or allocated. A frame must arrive within a time that grows with its length, however slowly its bytes drip.
TLS, by Python's `ssl`, can be laid below; it hides who talks, and nothing of the protocol needs it.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
import time
from collections.abc import Callable
from enum import IntEnum

from bauta.encrypted.parameters import VERSION
from bauta.errors import BautaError, InternalError, PeerError, PeerRefused
from bauta.tables import printable

MAGIC = b"BTEM"
HEADER = struct.Struct(">4sHHIQ")
SEAL = 32
NONCE = 32
LONGEST_WORDS = 1000
SLOWEST = 100_000
"""Bytes a second that a peer must send or take."""
_PIECE = 1 << 20


class Kind(IntEnum):
    """What a frame holds."""

    HELLO = 1
    WELCOME = 2
    ASK = 3
    GRANTED = 4
    PROBES = 5
    ANSWER = 6
    CROSSING = 7
    RESULT = 8
    TAPE = 9
    REFUSED = 99


class Link:
    """One side of a connection.

    Args:
        connection: A connected socket, of TLS or not.
        secret: 32 bytes that the peer has too.
        patience: Seconds that a frame may take to begin and end, and one more for every 100 kB of it.
    """

    def __init__(self, connection: socket.socket, secret: bytes, *, patience: float = 60.0) -> None:
        self._connection, self._secret, self._patience = connection, secret, patience
        self._keys: tuple[bytes, bytes] = (self._derive(b"", b"begin"),) * 2
        self._numbers = [0, 0]
        self.session = b""
        self.sent = self.received = 0

    def begin(self, transcript: bytes, *, caller: bool) -> None:
        """Change to the keys of a session.

        Args:
            transcript: Both sides' first payloads; each holds a nonce of 32 random bytes.
            caller: Whether this side said hello.
        """
        ways = [self._derive(transcript, way) for way in (b"caller", b"called")]
        self._keys = (ways[0], ways[1]) if caller else (ways[1], ways[0])
        self._numbers = [0, 0]
        self.session = self._derive(transcript, b"session")

    def use(self, secret: bytes) -> None:
        """Take a secret that the peer's hello named."""
        self._secret = secret
        self._keys = (self._derive(b"", b"begin"),) * 2

    def _derive(self, transcript: bytes, purpose: bytes) -> bytes:
        label = b"bauta encrypted " + str(VERSION).encode() + b" " + purpose + b"\0"
        return hmac.digest(self._secret, label + transcript, "sha256")

    def send(self, kind: Kind, payload: bytes) -> None:
        """One frame.

        Raises:
            PeerError: when the peer is gone, or does not take it in time.
        """
        header = HEADER.pack(MAGIC, VERSION, kind, self._numbers[0], len(payload))
        self._numbers[0] += 1
        seal = hmac.new(self._keys[0], header, "sha256")
        seal.update(payload)
        whole = b"".join((header, payload, seal.digest()))
        try:
            self._connection.settimeout(self._patience + len(whole) / SLOWEST)
            self._connection.sendall(whole)
        except OSError as error:
            raise _gone(error) from error
        self.sent += len(whole)

    def receive(self, kind: Kind, length: int, *, longest: int | None = None) -> bytes:
        """The payload of the next frame, which must be of this kind.

        Args:
            kind: The only one that is taken; a refusal is raised.
            length: Bytes of the payload.
            longest: Where the length may vary, the greatest one; `length` is the least then.

        Raises:
            PeerRefused: when the peer refused.
            PeerError: when it is gone or too slow, speaks another version, or sent anything else.
        """
        opened = self.open(kind, length, longest=longest)
        return self.check(*opened)

    def open(self, kind: Kind, length: int, *, longest: int | None = None) -> tuple[bytes, bytes, bytes]:
        """The next frame, not yet authenticated: header, payload, seal."""
        deadline = time.monotonic() + self._patience
        header = self._read(HEADER.size, deadline)
        magic, version, found, number, size = HEADER.unpack(header)
        if magic != MAGIC:
            raise PeerError("The peer does not speak this protocol.", hint="Check address and port, and TLS.")
        if version != VERSION:
            raise PeerError(f"The peer speaks version {version}, not {VERSION}.", hint="Run one version on both sides.")
        if found == Kind.REFUSED and size <= LONGEST_WORDS:
            words = self._read(size, deadline).decode("utf-8", "replace")
            message, _, hint = words.partition("\n")
            raise PeerRefused(f"The peer refused: {printable(message)}", hint=printable(hint))
        if found != kind or number != self._numbers[1] or not length <= size <= (longest or length):
            raise PeerError("The peer sent a frame that does not follow.", hint="Connect again.")
        payload = self._read(size, deadline + size / SLOWEST)
        return header, payload, self._read(SEAL, deadline + size / SLOWEST)

    def check(self, header: bytes, payload: bytes, seal: bytes) -> bytes:
        """The payload of a frame whose seal is right.

        Raises:
            PeerError: when it is not: other keys, changed bytes, or a frame of another session.
        """
        wanted = hmac.new(self._keys[1], header, "sha256")
        wanted.update(payload)
        if not hmac.compare_digest(wanted.digest(), seal):
            raise PeerError("A frame is not the peer's.", hint="Both sides need keys of one keygen; or it was changed.")
        self._numbers[1] += 1
        self.received += len(header) + len(payload) + SEAL
        return payload

    def refuse(self, message: str, hint: str) -> None:
        """Say why, as far as the peer still listens."""
        words = f"{message}\n{hint}".encode()[:LONGEST_WORDS]
        header = HEADER.pack(MAGIC, VERSION, Kind.REFUSED, 0, len(words))
        try:
            self._connection.settimeout(5)
            self._connection.sendall(header + words)
        except OSError:
            return

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _read(self, count: int, deadline: float) -> bytes:
        made = bytearray()
        while len(made) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise PeerError("The peer is too slow.", hint="Check the network, or allow more with --patience.")
            try:
                self._connection.settimeout(left)
                piece = self._connection.recv(min(count - len(made), _PIECE))
            except OSError as error:
                raise _gone(error) from error
            if not piece:
                raise PeerError("The peer ended the connection.", hint="See what it says, and connect again.")
            made += piece
        return bytes(made)


def nonce() -> bytes:
    """32 bytes that were never sent before."""
    return secrets.token_bytes(NONCE)


def _gone(error: OSError) -> PeerError:
    if isinstance(error, TimeoutError):
        return PeerError("The peer is too slow.", hint="Check the network, or allow more with --patience.")
    return PeerError(f"The connection failed: {error.strerror or error}.", hint="See that the peer runs.")


def attend(link: Link, converse: Callable[[Link], None], log: Callable[[str], None], who: str) -> None:
    """Converse with a peer; what is wrong is said to it and logged, and of a defect of ours no more than that.

    Args:
        link: To the peer.
        converse: The conversation.
        log: Takes lines.
        who: What the peer knows us as, such as ``server``.
    """
    try:
        converse(link)
        return
    except BautaError as error:
        log(f"{error.code}: {error.message}")
        if not isinstance(error, InternalError):
            link.refuse(error.message, error.hint)
            return
    except Exception as error:  # a thread must not die silently
        log(f"internal: {type(error).__name__}: {error}")
    link.refuse(f"The {who} failed.", "See its log.")
