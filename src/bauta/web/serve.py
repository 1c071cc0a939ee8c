"""`bauta web`: a server for this machine alone, for as long as its page is open."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import shutil
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from bauta.cloaking.settings import ProtectSettings
from bauta.errors import OutputError
from bauta.web.album import Album
from bauta.web.app import Site, make_app
from bauta.web.folder import PrivateFolder
from bauta.web.limits import Limits
from bauta.web.saving import safe_name
from bauta.web.worker import Doing, Worker

ADDRESS = "127.0.0.1"
GRACE = 120.0
"""Seconds after which the program ends once no page is open and nothing is being done."""


def make_hands(pixels: int, base: ProtectSettings) -> Doing:
    """What works on images, in its own process."""
    from bauta.web.hands import Hands

    return Hands(pixels, base)


class Server(uvicorn.Server):
    """Serves one socket, and ends by itself when its page is closed."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, site: Site, grace: float | None) -> None:
        super().__init__(config)
        self._listening = listening
        self._site = site
        self._grace = grace

    def finish(self) -> None:
        """End soon."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, without pages that wait in vain."""
        self._site.close()
        await super().shutdown(sockets)

    async def serve_here(self) -> None:
        """Until it is ended."""
        watch = asyncio.create_task(self._watch())
        try:
            await self.serve(sockets=[self._listening])
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        alone = 0.0
        while self._grace is not None:
            await asyncio.sleep(1.0)
            alone = 0.0 if self._site.pages or self._site.album.busy else alone + 1.0
            if alone >= self._grace:
                self.finish()


@dataclass
class Run:
    """A server that runs.

    Attributes:
        address: What to open.
        album: Its photos.
        folder: Where they lie.
        server: Of uvicorn.
    """

    address: str
    album: Album
    folder: PrivateFolder
    server: Server


@contextmanager
def running(
    photos: Sequence[Path] = (),
    *,
    held: Sequence[tuple[str, bytes]] = (),
    port: int = 0,
    limits: Limits | None = None,
    base: ProtectSettings | None = None,
    make: Callable[[], Doing] | None = None,
    grace: float | None = GRACE,
) -> Iterator[Run]:
    """A run, to be served by `Run.server`; when it ends its process and folder are gone.

    Args:
        photos: To begin with; results can be saved beside them.
        held: Others, names and bytes.
        port: Of 127.0.0.1; 0 for one that is free.
        limits: On uploads.
        base: Settings that the page does not ask about.
        make: What works on images, for tests.
        grace: Seconds after which it ends without a page; None for never.

    Raises:
        OutputError: when the port is taken.
    """
    limits, base = limits or Limits(), base or ProtectSettings()
    listening = _listen(port)
    folder = PrivateFolder()
    worker = Worker(make or functools.partial(make_hands, limits.pixels, base), seconds=limits.seconds)
    album = Album(folder.path, worker)
    try:
        worker.start()
        album.open()
        token, host = secrets.token_urlsafe(24), f"{ADDRESS}:{listening.getsockname()[1]}"
        site = Site(album, limits)
        config = uvicorn.Config(
            make_app(site, token, [host]),
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
            http="h11",  # as in `bauta.server.serve`
            ws="none",
            lifespan="off",
        )
        server = Server(config, listening, site, grace)
        site.end = server.finish
        for path in photos:
            _take(album, path)
        for name, content in held:
            entry = album.place(name)
            (entry.folder / "original").write_bytes(content)
            album.add(entry)
        yield Run(f"http://{host}/{token}/", album, folder, server)
    finally:
        album.close()
        folder.remove()
        listening.close()


def serve(run: Run) -> None:
    """Serve until the page is closed, or a signal asks for the end; the photos are then removed all the same."""
    if threading.current_thread() is threading.main_thread():
        # uvicorn takes this while it serves, and raises it again: that must not end us before we tidied up.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if hasattr(signal, "SIGHUP"):  # the terminal was closed
            signal.signal(signal.SIGHUP, lambda number, frame: run.server.finish())
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run.server.serve_here())


def open_browser(address: str) -> None:
    """Open the page once the server had a moment to start."""
    timer = threading.Timer(0.5, webbrowser.open, [address])
    timer.daemon = True
    timer.start()


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((ADDRESS, port))
    except OSError as error:
        listening.close()
        raise OutputError(
            f"Port {port} of {ADDRESS} cannot be used: {error.strerror}.", hint="Give another one, or leave --port out."
        ) from error
    return listening


def _take(album: Album, path: Path) -> None:
    entry = album.place(safe_name(path.name), path.resolve())
    try:
        shutil.copyfile(path, entry.folder / "original")
    except OSError as error:
        raise OutputError(f"{path} cannot be copied: {error.strerror}.", hint="Check the space on the disk.") from error
    entry.size = path.stat().st_size
    album.add(entry)
