"""What every request must show before it is answered, and what every answer forbids the browser."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'none'; frame-ancestors 'none'; "
    "frame-src 'none'; worker-src 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_GONE = "This address is of another run of Bauta, or mistyped. Run `bauta web`, and open the address that it prints.\n"


class Guard:
    """Lets through only what comes from our own page.

    A page elsewhere cannot know the token; should it, its requests carry another Origin, and one that had its own name
    point to this machine (DNS rebinding) carries another Host.

    Args:
        app: What answers.
        token: First part of every path.
        hosts: Values of the Host header that are ours, such as ``127.0.0.1:8000``.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str]) -> None:
        self.app = app
        self.token = token
        self.hosts = frozenset(hosts)
        self.origins = frozenset(f"http://{host}" for host in self.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["type"] != "http":
            return  # no sockets are spoken here; the server closes
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return PlainTextResponse("This is not the address of this page.\n", 421)
        given = f"{scope['path']}/".split("/")[1].encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(given, self.token.encode()):
            return PlainTextResponse(_GONE, 404)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        reading = scope["method"] in ("GET", "HEAD")
        if (origin is None and not reading) or (origin is not None and origin not in self.origins):
            return PlainTextResponse("That was asked by another page.\n", 403)
        # A link in a mail program or a terminal opens the page: no site, or another one, but a navigation.
        if site not in ("same-origin", "none") and not (reading and headers.get("sec-fetch-mode") == "navigate"):
            return PlainTextResponse("That was asked by another page.\n", 403)
        return None
