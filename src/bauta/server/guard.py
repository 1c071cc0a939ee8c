"""What stands before every route: limits on what is sent, and headers on what is answered."""

from __future__ import annotations

import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# No scripts at all; and browsers say where a form comes from only where they may say where a reader comes from.
PAGES = {
    **HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class _TooLarge(Exception):
    """More was sent than is taken."""


class Guard:
    """Refuses what is too large while it arrives, before anything looks at it.

    Args:
        app: What answers.
        most: Bytes of a body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        taken, begun = 0, False
        path = scope["path"]
        above = PAGES if path == "/admin" or path.startswith("/admin/") else HEADERS

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most:
                raise _TooLarge
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in above.items():
                    headers[name] = value
            await send(message)

        length = Headers(scope=scope).get("content-length", "0")
        try:
            if not length.isdecimal() or int(length) > self.most:
                raise _TooLarge
            await self.app(scope, receive_some, send_guarded)
        except _TooLarge:
            if not begun:
                await self._refuse(send_guarded)

    async def _refuse(self, send: Send) -> None:
        message = f"More than {self.most} bytes were sent."
        content = json.dumps({"error": {"code": "too-large", "message": message, "hint": "Send a smaller photo."}})
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": content.encode()})
