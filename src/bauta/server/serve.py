"""`bauta serve`: the application on a socket, and what is done beside requests."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import uvicorn

from bauta.errors import BautaError, OutputError, UsageError
from bauta.gallery.service import FaceService
from bauta.server.access import ServerLimits
from bauta.server.app import make_app

TIDY = 60.0
"""Seconds between looks for what is to be erased."""


def listen(host: str, port: int, *, secure: bool, behind_proxy: bool = False) -> socket.socket:
    """A socket.

    Raises:
        UsageError: when others than this machine could listen in.
        OutputError: when the port is taken.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(f"{host} is not an address.", hint="Give one, such as 127.0.0.1 or ::1.") from error
    if not (address.is_loopback or secure or behind_proxy):
        raise UsageError(
            f"Photos and keys would travel to {host} in the clear.",
            hint="Give --certificate and --certificate-key, or --behind-proxy where a proxy on the way speaks TLS.",
        )
    listening = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise OutputError(
            f"Port {port} of {host} cannot be used: {error.strerror}.", hint="Give another one with --port."
        ) from error
    return listening


class Tidy(threading.Thread):
    """Loads the service, and erases what is due from time to time."""

    def __init__(self, service: FaceService) -> None:
        super().__init__(daemon=True)
        self._service, self._end = service, threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while not self._end.is_set():
            try:
                if self._service.ready:
                    self._service.purge()
                else:
                    self._service.load()
            except BautaError as error:  # told, and tried again; requests are refused until it is ready
                print(f"error: {error}", file=sys.stderr)
            self._end.wait(TIDY if self._service.ready else 5.0)

    def stop(self) -> None:
        """End soon."""
        self._end.set()
        with suppress(RuntimeError):
            self.join(timeout=10)


def serve(
    service: FaceService,
    listening: socket.socket,
    limits: ServerLimits,
    *,
    certificate: Path | None = None,
    certificate_key: Path | None = None,
    behind_proxy: bool = False,
) -> None:
    """Answer until a signal asks for the end; what is under way is finished, and new requests are refused."""
    config = uvicorn.Config(
        make_app(service, limits, secure=behind_proxy or certificate is not None),
        log_level="error",
        access_log=False,  # paths hold names
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.at_once,
        timeout_graceful_shutdown=limits.seconds,
        timeout_keep_alive=15,
        http="h11",  # httptools would be quicker, and takes headers without end
        h11_max_incomplete_event_size=16384,
        ws="none",
        lifespan="off",
        ssl_certfile=certificate,
        ssl_keyfile=certificate_key,
    )
    tidy = Tidy(service)
    tidy.start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        tidy.stop()
        listening.close()
        service.close()
