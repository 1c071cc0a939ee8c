"""A client of the service.

::

    with Client("http://127.0.0.1:7500", key) as client:
        client.enrol("s-1024", Path("me.jpg"))
        client.match("s-1024", Path("me.jpg"))
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from bauta.errors import PeerError, ServiceRefused

_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}


@dataclass(frozen=True)
class ErasureReceipt:
    """That a subject was erased.

    Attributes:
        state: ``erased`` or ``pending``.
        number: Line of the audit.
        digest: Of the audit up to that line.
    """

    state: str
    number: int
    digest: str


@dataclass(frozen=True)
class SearchAnswer:
    """Whom a search found.

    Attributes:
        subject: None when nobody matches.
        fpir: Probability that a stranger is taken for somebody; None where it is not known.
        records: How many were compared.
    """

    subject: str | None
    fpir: float | None
    records: int


class Client:
    """Asks a service with one key.

    Args:
        address: As ``http://127.0.0.1:7500``.
        key: Of `bauta gallery key`.
        timeout: Seconds for an answer.
        transport: For tests.
    """

    def __init__(
        self, address: str, key: str, *, timeout: float = 60.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def enrol(self, subject: str, photo: Path | bytes, *, known: bool = False) -> str:
        """Store the face of a photo; returns the record's id. Asked again when the line breaks, it is done once."""
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        asked: dict[str, Any] = {"params": {"known": known}, "headers": headers, "photo": photo}
        try:
            found = self._ask("POST", f"/v1/subjects/{subject}/records", **asked)
        except ServiceRefused:
            raise
        except PeerError:
            found = self._ask("POST", f"/v1/subjects/{subject}/records", **asked)
        return str(found["record"])

    def match(self, subject: str, photo: Path | bytes) -> bool:
        """Whether the face of a photo is the subject's."""
        return bool(self._ask("POST", f"/v1/subjects/{subject}/match", photo=photo)["match"])

    def search(self, photo: Path | bytes, *, force: bool = False) -> SearchAnswer:
        """Who the face of a photo is."""
        return SearchAnswer(**self._ask("POST", "/v1/search", params={"force": force}, photo=photo))

    def states(self, subject: str) -> dict[str, int]:
        """How many records a subject has, ``active`` and ``revoked``."""
        return dict(self._ask("GET", f"/v1/subjects/{subject}"))

    def revoke(self, subject: str, grace_days: int) -> int:
        """Let a subject match no more; returns how many records it had."""
        return int(self._ask("POST", f"/v1/subjects/{subject}/revoke", json={"grace_days": grace_days})["records"])

    def restore(self, subject: str) -> int:
        """Undo `revoke`."""
        return int(self._ask("POST", f"/v1/subjects/{subject}/restore")["records"])

    def renew(self, subject: str, photo: Path | bytes | None = None) -> int:
        """A new key for a subject, and with a photo a new record in place of all others."""
        return int(self._ask("POST", f"/v1/subjects/{subject}/renew", photo=photo)["records"])

    def erase(self, subject: str) -> ErasureReceipt:
        """Destroy all that is stored of a subject."""
        found = self._ask("DELETE", f"/v1/subjects/{subject}")
        return ErasureReceipt(found["state"], **found["receipt"])

    def audit(self, after: int = 0, most: int = 100) -> list[dict[str, Any]]:
        """Lines of the audit after a number."""
        return list(self._ask("GET", "/v1/audit", params={"after": after, "most": most})["lines"])

    def stats(self) -> dict[str, int]:
        """How much there is."""
        return dict(self._ask("GET", "/v1/stats"))

    def _ask(self, method: str, path: str, *, photo: Path | bytes | None = None, **more: Any) -> Any:
        if photo is not None:
            content = photo if isinstance(photo, bytes) else photo.read_bytes()
            kind = next((kind for start, kind in _MAGIC.items() if content.startswith(start)), "image/jpeg")
            more["content"] = content
            more["headers"] = {**more.get("headers", {}), "Content-Type": kind}
        try:
            answer = self._http.request(method, path, **more)
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise PeerError(f"The service cannot be asked: {error}.", hint="Is it running, and there?") from error
        if answer.is_success:
            return found
        said = found["error"]
        raise ServiceRefused(said["message"], hint=said["hint"], status=answer.status_code, kind=said["code"])
