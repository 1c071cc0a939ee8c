"""The routes of the service. Each asks for a scope, but the one that says whether it is up; there is no way around."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as ASGIScope

from bauta.errors import (
    AlreadyEnrolled,
    BautaError,
    BudgetSpent,
    GalleryError,
    GalleryVersion,
    NoFaceFound,
    OtherMaker,
    OtherRequest,
    OutputError,
    PhotoError,
    PhotoTooLarge,
    RecognizerError,
    SubjectUnknown,
    TooMany,
    UsageError,
    WrongKey,
)
from bauta.gallery.budgets import counted_of
from bauta.gallery.journal import DAY
from bauta.gallery.service import FaceService
from bauta.server import words
from bauta.server.access import Access, Caller, Refused, Scope, ServerLimits
from bauta.server.admin import Admin
from bauta.server.guard import Guard
from bauta.version import __version__

# The first that fits.
STATUS: tuple[tuple[type[BautaError], int], ...] = (
    (PhotoTooLarge, 413),
    (PhotoError, 422),
    (NoFaceFound, 422),
    (SubjectUnknown, 404),
    (AlreadyEnrolled, 409),
    (OtherRequest, 409),
    (TooMany, 409),
    (BudgetSpent, 409),
    (OtherMaker, 409),
    (WrongKey, 409),
    (GalleryVersion, 409),
    (GalleryError, 503),
    (OutputError, 503),
    (RecognizerError, 503),
    (UsageError, 422),
)
_SAID = {
    401: "No key, or one that is unknown or has ended",
    403: "The key lacks the scope",
    404: "Nobody of that name is enrolled, for this key's tenant",
    409: "It does not go together with what is stored",
    413: "Too large",
    415: "Not a photo",
    422: "It cannot be used; nothing was stored",
    429: "Too often",
    503: "Not ready, or the disk refuses",
}
_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": words.Failure, "description": text} for status, text in _SAID.items()
}
_BEARER = HTTPBearer(auto_error=False, description="A key of `bauta gallery key`.")
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        pattern=r"^([!-~]{8,128})?$",
        description="Drawn for this request: sent again within a day, it is answered and not done again.",
    ),
]


class Metrics:
    """Counts since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._seconds: Counter[str] = Counter()

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        with self._lock:
            self._counts[route, status] += 1
            self._seconds[route] += seconds  # type: ignore[assignment]

    def text(self, stats: dict[str, int]) -> str:
        """As Prometheus reads it; it names no subject and no tenant."""
        with self._lock:
            lines = ["# TYPE bauta_requests_total counter"]
            lines += [
                f'bauta_requests_total{{route="{route}",status="{status}"}} {count}'
                for (route, status), count in sorted(self._counts.items())
            ]
            lines.append("# TYPE bauta_request_seconds_total counter")
            lines += [
                f'bauta_request_seconds_total{{route="{route}"}} {seconds:.6f}'
                for route, seconds in sorted(self._seconds.items())
            ]
        for name, value in stats.items():
            lines += [f"# TYPE bauta_{name} gauge", f"bauta_{name} {value}"]
        return "\n".join(lines) + "\n"


class Counted:
    """Counts answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Answer, and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.count(route, status, time.perf_counter() - began)


def failure(status: int, code: str, message: str, hint: str = "") -> JSONResponse:
    """An answer that is not a success."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}, 503: {"Retry-After": "5"}}
    content = {"error": {"code": code, "message": message, "hint": hint}}
    return JSONResponse(content, status, headers=headers.get(status))


def _stranger(request: Request) -> Response | None:
    """The refusal of who has no key: bodies are looked at before keys are, and say nothing to strangers."""
    access: Access = request.app.state.access
    try:
        access.caller(request.headers.get("authorization"), "read")
    except Refused as error:
        if error.status == 401:
            return failure(error.status, error.code, error.message, error.hint)
    return None


def _allowed(scope: Scope) -> Any:
    """Who asks, if the key has the scope and the service is ready."""

    def caller(request: Request, _: Annotated[object, Depends(_BEARER)]) -> Caller:
        access: Access = request.app.state.access
        found = access.caller(request.headers.get("authorization"), scope)
        if not request.app.state.service.ready:
            raise Refused(503, "starting", "The service is starting.", hint="Try again in a moment.")
        return found

    return Depends(caller)


async def _photo(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in words.PHOTOS:
        raise Refused(
            415, "not-a-photo", "The body is not said to be a photo.", hint=f"Send {', '.join(words.PHOTOS)}."
        )
    return await request.body()


async def _photo_or_none(request: Request) -> bytes | None:
    if not await request.body():
        return None
    return await _photo(request)


Photo = Annotated[bytes, Depends(_photo)]
PhotoOrNone = Annotated[bytes | None, Depends(_photo_or_none)]


def status_of(error: BautaError) -> int:
    """HTTP's status for an error; 500 where it is a defect."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def make_app(service: FaceService, limits: ServerLimits | None = None, *, secure: bool = False) -> FastAPI:
    """The service as an ASGI application.

    Args:
        service: What answers.
        limits: What is taken.
        secure: Whether clients come by TLS, here or at a proxy.
    """
    limits = limits or ServerLimits()
    app = FastAPI(
        title="Bauta face service",
        version=__version__,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        summary="Recognise without keeping a face.",
        redirect_slashes=False,
    )
    app.state.service, app.state.access, app.state.metrics = service, Access(service.store, limits), Metrics()
    app.add_middleware(Counted, metrics=app.state.metrics)
    app.add_middleware(Guard, most=limits.megabytes << 20)
    _answer_failures(app)
    _add_health(app)
    _add_subjects(app, service)
    _add_audit(app, service)
    Admin(service, app.state.access, secure=secure, status=status_of).add_to(app)
    return app


def _answer_failures(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return failure(error.status, error.code, error.message, error.hint)

    @app.exception_handler(BautaError)
    async def ours(_: Request, error: BautaError) -> Response:
        status = status_of(error)
        if status == 500:
            return _defect(error)
        return failure(status, error.code, error.message, error.hint)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        if (refused := _stranger(request)) is not None:
            return refused
        wrong = error.errors()[:5]
        if any(one["type"] == "json_invalid" for one in wrong):
            return failure(422, "invalid", "The body is not JSON.", "See /openapi.json.")
        where = ", ".join(".".join(map(str, one["loc"])) for one in wrong)
        return failure(422, "invalid", f"Not as it must be: {where}.", "See /openapi.json.")

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # what FastAPI says of a body that is not even text
            if (refused := _stranger(request)) is not None:
                return refused
            return failure(422, "invalid", "Not as it must be: body.", "See /openapi.json.")
        answer = failure(error.status_code, "http", str(error.detail), "See /openapi.json.")
        answer.headers.update(error.headers or {})
        if error.status_code == 405:  # each route knows its own methods alone
            matching = [route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE]
            answer.headers["Allow"] = ", ".join(sorted(set().union(*(getattr(one, "methods", ()) for one in matching))))
        return answer

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> Response:
        return _defect(error)


def _defect(error: Exception) -> JSONResponse:
    print(f"error: {type(error).__name__} in a request", file=sys.stderr)
    return failure(500, "internal", "This is a defect in Bauta.", "Nothing was decided.")


def _add_health(app: FastAPI) -> None:
    starting: dict[int | str, dict[str, Any]] = {503: {"model": words.Health, "description": "It is starting"}}

    @app.get("/health", tags=["service"], responses=starting)
    def health(response: Response) -> words.Health:
        """Whether requests are answered; needs no key, and tells nothing else."""
        if app.state.service.ready:
            return words.Health(status="ok")
        response.status_code = 503
        return words.Health(status="starting")


def _add_subjects(app: FastAPI, service: FaceService) -> None:
    access: Access = app.state.access
    at = "/v1/subjects/{subject}"
    tags: list[str | Enum] = ["subjects"]

    @app.post(f"{at}/records", status_code=201, tags=tags, responses=_FAILURES, openapi_extra=words.photo_body())
    def enrol(
        subject: words.Subject,
        caller: Annotated[Caller, _allowed("enrol")],
        photo: Photo,
        known: words.Known = False,
        once: IdempotencyKey = "",
    ) -> words.Enrolled:
        """Store the face of a photo, protected and sealed, and not the photo. A subject may have several records."""
        made = service.enrol(caller.tenant, subject, photo, actor=caller.id, once=once, known=known)
        return words.Enrolled(**made)

    @app.post(f"{at}/match", tags=tags, responses=_FAILURES, openapi_extra=words.photo_body())
    def match(subject: words.Subject, caller: Annotated[Caller, _allowed("match")], photo: Photo) -> words.Matched:
        """Whether the face of a photo is the subject's."""
        access.compare(caller, subject)
        return words.Matched(match=service.match(caller.tenant, subject, photo, actor=caller.id))

    @app.post("/v1/search", tags=["search"], responses=_FAILURES, openapi_extra=words.photo_body())
    def search(
        caller: Annotated[Caller, _allowed("search")], photo: Photo, force: words.Force = False
    ) -> words.Searched:
        """Who the face of a photo is, among all of the tenant."""
        found = service.search(caller.tenant, photo, actor=caller.id, force=force)
        return words.Searched(subject=found.subject, fpir=found.fpir, records=found.count)

    @app.get(at, tags=tags, responses=_FAILURES)
    def read(subject: words.Subject, caller: Annotated[Caller, _allowed("read")]) -> words.States:
        """How many records a subject has."""
        one = service.store.person(caller.tenant, subject)
        if one is None:
            raise SubjectUnknown("Nobody of that name is enrolled.", hint="Check the name and the tenant.")
        budget = counted_of(service.store, caller.tenant, subject)
        return words.States(
            active=one.active,
            revoked=one.revoked,
            waiting=one.waiting,
            epsilon_spent=None if budget is None else budget.spent,
            epsilon_limit=None if budget is None else budget.limit,
        )

    @app.post(f"{at}/revoke", tags=tags, responses=_FAILURES)
    def revoke(
        subject: words.Subject, caller: Annotated[Caller, _allowed("revoke")], wish: words.Revoke
    ) -> words.Changed:
        """Let a subject match no more; when the grace is over, its records are erased."""
        grace = wish.grace_days * DAY
        return words.Changed(records=service.revoke(caller.tenant, subject, grace, actor=caller.id))

    @app.post(f"{at}/restore", tags=tags, responses=_FAILURES)
    def restore(subject: words.Subject, caller: Annotated[Caller, _allowed("revoke")]) -> words.Changed:
        """Undo a revocation while its grace lasts."""
        return words.Changed(records=service.restore(caller.tenant, subject, actor=caller.id))

    @app.post(f"{at}/renew", tags=tags, responses=_FAILURES, openapi_extra=words.photo_body(required=False))
    def renew(
        subject: words.Subject, caller: Annotated[Caller, _allowed("renew")], photo: PhotoOrNone
    ) -> words.Changed:
        """Seal a subject under a new key; with a photo, a new record takes the place of all others."""
        return words.Changed(records=service.renew(caller.tenant, subject, photo, actor=caller.id))

    held = {"model": words.Erased, "description": "The key is gone; a reader holds deleted bytes"}
    pending: dict[int | str, dict[str, Any]] = {202: held}

    @app.delete(at, tags=tags, responses={**_FAILURES, **pending})
    def erase(subject: words.Subject, caller: Annotated[Caller, _allowed("erase")], response: Response) -> words.Erased:
        """Destroy a subject's key, and all that was stored of it."""
        done = service.erase(caller.tenant, subject, actor=caller.id)
        if done.state == "pending":
            response.status_code = 202
        return words.Erased(state=done.state, receipt=words.Receipt(number=done.number, digest=done.digest))


def _add_audit(app: FastAPI, service: FaceService) -> None:
    tags: list[str | Enum] = ["audit"]

    @app.get("/v1/audit", tags=tags, responses=_FAILURES)
    def audit(
        caller: Annotated[Caller, _allowed("audit")],
        after: Annotated[int, Query(ge=0, le=2**53)] = 0,
        most: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> words.Audit:
        """Who did what when; it names no subject."""
        found = service.store.entries(caller.tenant, after, most)
        return words.Audit(lines=[words.Line(**asdict(one)) for one in found])

    @app.get("/v1/stats", tags=tags, responses=_FAILURES)
    def stats(caller: Annotated[Caller, _allowed("audit")]) -> words.Stats:
        """How much there is of the tenant."""
        return words.Stats(**service.store.stats(caller.tenant))

    @app.get("/metrics", tags=tags, responses={**_FAILURES, 200: {"content": {"text/plain": {}}}})
    def metrics(caller: Annotated[Caller, _allowed("audit")]) -> Response:
        """Counts for Prometheus, of the whole service."""
        return PlainTextResponse(app.state.metrics.text(service.store.stats()))
