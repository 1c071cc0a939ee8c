"""The comparison over a connection, and sockets with or without TLS."""

from __future__ import annotations

import hmac
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from bauta.encrypted.comparison import Talk
from bauta.encrypted.triples import Bits
from bauta.encrypted.wire import Kind, Link
from bauta.errors import PeerError, UsageError

Address = tuple[str, int]


def compare(talk: Talk, link: Link, plan: Sequence[int], *, door: bool) -> Bits:
    """Run one side of a comparison: the door sends first, so that neither waits for the other to read."""
    ours, last = next(talk), len(plan) - 1
    for number, size in enumerate(plan):
        if door:
            link.send(Kind.CROSSING, ours)
        theirs = link.receive(Kind.CROSSING, size)
        if not door:
            link.send(Kind.CROSSING, ours)
        try:
            ours = talk.send(theirs)
        except StopIteration as end:
            assert number == last, "a plan has the crossings of its circuit"
            share: Bits = end.value
            return share
    raise AssertionError("a plan has the crossings of its circuit")


def session_of(link: Link, number: int) -> bytes:
    """What the tapes of a comparison are drawn for: both sides drew it, and it never comes again."""
    return hmac.digest(link.session, number.to_bytes(8, "big"), "sha256")


def parse_address(text: str) -> Address:
    """HOST:PORT.

    Raises:
        UsageError: when it is not that.

    >>> parse_address("127.0.0.1:7400"), parse_address("[::1]:7400")
    (('127.0.0.1', 7400), ('::1', 7400))
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is not an address.", hint="Give HOST:PORT, as 127.0.0.1:7400.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def connect(address: Address, tls: ssl.SSLContext | None = None, *, patience: float = 60.0) -> socket.socket:
    """A connection to a server or dealer.

    Raises:
        PeerError: when there is none, or its certificate is not trusted.
    """
    try:
        plain = socket.create_connection(address, timeout=patience)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain if tls is None else tls.wrap_socket(plain, server_hostname=address[0])
    except OSError as error:
        raise PeerError(
            f"{address[0]}:{address[1]} cannot be reached: {error.strerror or error}.",
            hint="See that it runs, and that both sides use TLS, or neither.",
        ) from error


def calling_tls(authority: Path) -> ssl.SSLContext:
    """TLS for who connects.

    Args:
        authority: PEM file of the certificate, or its authority, that is trusted; no other is.

    Raises:
        UsageError: when it cannot be read.
    """
    return _tls(ssl.PROTOCOL_TLS_CLIENT, lambda context: context.load_verify_locations(authority), authority)


def serving_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS for who listens.

    Raises:
        UsageError: when the certificate or its key cannot be read.
    """
    return _tls(ssl.PROTOCOL_TLS_SERVER, lambda context: context.load_cert_chain(certificate, key), certificate)


def _tls(side: int, fill: Callable[[ssl.SSLContext], None], path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        fill(context)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used for TLS: {error}.", hint="Give PEM files.") from error
    return context


class Listener:
    """Accepts connections and has each answered in a thread of its own, up to a number of them.

    Args:
        address: To listen at; port 0 takes a free one.
        answer: Converses over a connection, and raises nothing.
        tls: To speak TLS.
        most: Connections at once; more wait.
        patience: Seconds that a TLS handshake may take.
    """

    def __init__(
        self,
        address: Address,
        answer: Callable[[socket.socket], None],
        tls: ssl.SSLContext | None = None,
        *,
        most: int = 16,
        patience: float = 60.0,
    ) -> None:
        self._answer, self._tls, self._patience = answer, tls, patience
        self._free = threading.BoundedSemaphore(most)
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._socket = socket.create_server(address, family=family)
        except OSError as error:
            raise UsageError(
                f"{address[0]}:{address[1]} cannot be listened at: {error.strerror or error}.", hint="Give another one."
            ) from error
        self.address: Address = self._socket.getsockname()[:2]

    def run(self) -> None:
        """Until `close`, or an interruption."""
        while True:
            self._free.acquire()
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with_shutdown = getattr(socket, "SHUT_RDWR", 2)
        try:
            self._socket.shutdown(with_shutdown)
        except OSError:
            pass
        finally:
            self._socket.close()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(self._patience)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is None:
                    self._answer(connection)
                    return
                with self._tls.wrap_socket(connection, server_side=True) as safe:
                    self._answer(safe)
        except OSError:  # a handshake that failed: whoever called sees why
            return
        finally:
            self._free.release()
