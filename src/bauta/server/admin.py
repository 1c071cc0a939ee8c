"""Pages for whoever runs the service: people, audit, thresholds, receipts of erasures. They need no scripts."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from bauta.errors import BautaError, SubjectUnknown
from bauta.gallery.journal import DAY, Entry
from bauta.gallery.reader import Person
from bauta.gallery.service import MOST_FPIR, FaceService
from bauta.pages import page_template
from bauta.rates import largest_gallery
from bauta.server.access import Access, Refused, Scope
from bauta.server.sessions import COOKIE, LONGEST, Session, Sessions, same_form
from bauta.version import __version__

PAGE = 50
"""Lines of a table."""
LOOKED_AT = 5000
"""Names that are opened for a page: it takes a tenth of a second."""
_FORM = 8192  # bytes
_STATIC = {
    "page.css": ("web/static", "text/css"),  # the look of `bauta web`
    "mask.svg": ("web/static", "image/svg+xml"),
    "admin.css": ("server/pages", "text/css"),
}


class Admin:
    """The pages of one service.

    Args:
        service: What they show.
        access: Who may see it: keys with the scope admin; what a page does needs the scope of that, too.
        secure: Whether browsers come by TLS, and send the cookie by nothing else.
        status: HTTP's status for an error.
    """

    def __init__(
        self, service: FaceService, access: Access, *, secure: bool, status: Callable[[BautaError], int]
    ) -> None:
        self._service, self._access, self._secure, self._status = service, access, secure, status
        self._sessions = Sessions()

    def add_to(self, app: FastAPI) -> None:
        """Add the pages to an application."""
        pages: dict[str, Callable[[Request, Session], Response]] = {
            "/admin": self.overview,
            "/admin/people": self.people,
            "/admin/person": self.person,
            "/admin/audit": self.audit,
            "/admin/receipts": self.receipts,
        }
        acts: dict[str, Callable[[dict[str, str], Session], Response]] = {
            "/admin/revoke": self.revoke,
            "/admin/restore": self.restore,
            "/admin/erase": self.erase,
        }
        routes = [Route(path, self._shown(page)) for path, page in pages.items()]
        routes += [Route(path, self._done(act), methods=["POST"]) for path, act in acts.items()]
        routes += [
            Route("/admin/sign-in", self._sign_in, methods=["POST"]),
            Route("/admin/sign-out", self._sign_out, methods=["POST"]),
            Route("/admin/static/{name}", self._static),
        ]
        app.router.routes.extend(routes)

    # Signing in

    async def _sign_in(self, request: Request) -> Response:
        try:
            self._require_own_page(request)
            given = await _form(request)
            cookie = await run_in_threadpool(self._enter, given.get("key", "").strip())
        except Refused as error:
            return self._page("sign-in.html.j2", error.status, problem=error.message)
        except BautaError as error:
            return self._page("sign-in.html.j2", self._status(error), problem=error.message)
        answer = RedirectResponse("/admin", 303)
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=LONGEST,
            path="/admin",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    def _enter(self, key: str) -> str:
        caller = self._access.caller(f"Bearer {key}", "admin")
        with self._service.store.writing() as writer:
            writer.audit(caller.id, caller.tenant, "sign-in")
        return self._sessions.begin(caller)

    async def _sign_out(self, request: Request) -> Response:
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        given = await _form(request)
        if session is not None and same_form(session, given.get("form", "")):
            self._sessions.end(request.cookies[COOKIE])
        answer = RedirectResponse("/admin", 303)
        answer.delete_cookie(COOKIE, path="/admin", secure=self._secure, httponly=True, samesite="strict")
        return answer

    async def _static(self, request: Request) -> Response:
        if request.path_params["name"] not in _STATIC:
            return self._page("problem.html.j2", 404, message="There is no such page.", hint="", session=None)
        folder, kind = _STATIC[request.path_params["name"]]
        return Response(
            resources.files("bauta").joinpath(folder, request.path_params["name"]).read_bytes(), media_type=kind
        )

    def _shown(self, page: Callable[[Request, Session], Response]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            return await run_in_threadpool(self._guarded, request, lambda session: page(request, session))

        return answer

    def _done(self, act: Callable[[dict[str, str], Session], Response]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            given = await _form(request)

            def done(session: Session) -> Response:
                self._require_own_page(request)
                if not same_form(session, given.get("form", "")):
                    raise Refused(403, "forbidden", "That form is of another session.", hint="Open the page again.")
                return act(given, session)

            return await run_in_threadpool(self._guarded, request, done)

        return answer

    def _guarded(self, request: Request, work: Callable[[Session], Response]) -> Response:
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        try:
            if session is None:
                return self._page("sign-in.html.j2", 200 if request.url.path == "/admin" else 401, problem="")
            self._access.require_still(session.caller)
            if not self._service.ready:
                raise Refused(503, "starting", "The service is starting.", hint="Try again in a moment.")
            return work(session)
        except Refused as error:
            if error.status == 401:
                self._sessions.end(request.cookies[COOKIE])
                return self._page("sign-in.html.j2", 401, problem="That key has ended.")
            return self._problem(error.status, error.message, error.hint, session)
        except BautaError as error:
            return self._problem(self._status(error), error.message, error.hint or "", session)

    @staticmethod
    def _require_own_page(request: Request) -> None:
        """Let through what a page of this service sent: browsers say where a form comes from."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        own = origin is not None and origin.partition("://")[2] == request.headers.get("host")
        if not own or site not in (None, "same-origin"):
            raise Refused(403, "forbidden", "That was sent by another page.", hint="Open the page again.")

    def _require(self, session: Session, scope: Scope) -> None:
        if scope not in session.caller.scopes:
            raise Refused(403, "forbidden", f"Your key may not {scope}.", hint="Sign in with one that has that scope.")

    # Pages

    def overview(self, request: Request, session: Session) -> Response:
        """Counts, and what the thresholds mean among so many."""
        tenant, service = session.caller.tenant, self._service
        service.refresh()
        stats = service.store.stats(tenant)
        sides = [
            (maker, side, side.count(tenant), None if side.fmr is None else largest_gallery(side.fmr, MOST_FPIR))
            for maker, side in zip(reversed(service.store.makers), service.sides(), strict=False)
        ]
        rate = service.fpir(tenant)
        keys = [one for one in service.store.api_keys() if one.tenant == tenant]
        return self._page(
            "overview.html.j2", session=session, stats=stats, sides=sides, fpir=rate, limit=MOST_FPIR, keys=keys
        )

    def people(self, request: Request, session: Session) -> Response:
        """Who is enrolled, some at a time; those whose name has a text, or who wait for a photo.

        Names are sealed: only those that are looked at are opened, so they come in no order that means something.
        """
        query, store, tenant = request.query_params, self._service.store, session.caller.tenant
        text, waiting = query.get("find", "").strip()[:128], query.get("waiting") == "1"
        after = _place(query.get("after", ""))
        exact = store.person(tenant, text) if text and not after else None
        people = [] if exact is None or (waiting and not exact.waiting) else [exact]
        last, more = after, b""
        for number, (place, one) in enumerate(store.people(tenant, after=after, waiting=waiting)):
            if len(people) == PAGE or number == LOOKED_AT:
                more = last
                break
            last = place
            if text.casefold() in one.name.casefold() and one.name != text:
                people.append(one)
        people.sort()
        return self._page(
            "people.html.j2", session=session, people=people, more=more.hex(), find=text, waiting=waiting, after=after
        )

    def person(self, request: Request, session: Session) -> Response:
        """One of them, and what can be done."""
        one = self._person(request.query_params.get("name", ""), session)
        return self._page("person.html.j2", session=session, one=one)

    def audit(self, request: Request, session: Session) -> Response:
        """Lines of the audit, newest first."""
        return self._lines("audit.html.j2", request, session, None)

    def receipts(self, request: Request, session: Session) -> Response:
        """Erasures, newest first; one of them where its number is given."""
        return self._lines("receipts.html.j2", request, session, "erase")

    def _lines(self, page: str, request: Request, session: Session, action: str | None) -> Response:
        self._require(session, "audit")
        before = _number(request.query_params.get("before", "0")) or None
        chosen = _number(request.query_params.get("number", "0"))
        if chosen:
            before = chosen + 1
        lines = self._service.store.latest(session.caller.tenant, before, PAGE + 1, action)
        own = [line for line in lines if not chosen or line.number == chosen]
        return self._page(
            page,
            session=session,
            lines=[_shown(line) for line in own[:PAGE]],
            older=own[PAGE - 1].number if len(own) > PAGE else None,
            chosen=chosen,
            pending=self._service.store.stats()["erasures_pending"],
        )

    # What is done

    def revoke(self, given: dict[str, str], session: Session) -> Response:
        """Let a person match no more."""
        self._require(session, "revoke")
        days = given.get("days", "")
        if not (days.isascii() and days.isdecimal() and len(days) <= 4 and int(days) <= 3650):
            raise Refused(422, "invalid", "The days are not 0 to 3650.", hint="Go back, and give another number.")
        one = self._person(given.get("name", ""), session)
        self._service.revoke(session.caller.tenant, one.name, int(days) * DAY, actor=session.caller.id)
        return RedirectResponse(_link(one), 303)

    def restore(self, given: dict[str, str], session: Session) -> Response:
        """Undo that."""
        self._require(session, "revoke")
        one = self._person(given.get("name", ""), session)
        self._service.restore(session.caller.tenant, one.name, actor=session.caller.id)
        return RedirectResponse(_link(one), 303)

    def erase(self, given: dict[str, str], session: Session) -> Response:
        """Destroy what is stored of a person, and show the receipt."""
        self._require(session, "erase")
        if given.get("sure") != "yes":
            raise Refused(422, "invalid", "Nothing was erased.", hint="Go back, and tick that you are sure.")
        one = self._person(given.get("name", ""), session)
        done = self._service.erase(session.caller.tenant, one.name, actor=session.caller.id)
        if "audit" not in session.caller.scopes:
            return self._page("erased.html.j2", session=session, done=done)
        return RedirectResponse(f"/admin/receipts?number={done.number}", 303)

    def _person(self, name: str, session: Session) -> Person:
        one = self._service.store.person(session.caller.tenant, name) if 0 < len(name) <= 4096 else None
        if one is None:
            raise SubjectUnknown("Nobody of that name is enrolled.", hint="The person may have been erased meanwhile.")
        return one

    # Answers

    def _problem(self, status: int, message: str, hint: str, session: Session | None) -> Response:
        return self._page("problem.html.j2", status, message=message, hint=hint, session=session)

    def _page(self, name: str, status: int = 200, *, session: Session | None = None, **values: Any) -> Response:
        page = page_template("server/pages", name).render(
            session=session, link=_link, date=_date, version=__version__, **values
        )
        return HTMLResponse(page.encode("utf-8", "replace"), status)  # names may hold what is not Unicode


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _FORM:
            raise Refused(413, "too-large", "That form is too large.", hint="Open the page again.")
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise Refused(422, "invalid", "That form has too many fields.", hint="Open the page again.") from error


def _place(text: str) -> bytes:
    return bytes.fromhex(text) if re.fullmatch("[0-9a-f]{64}", text) else b""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _link(one: Person) -> str:
    return "/admin/person?" + urlencode({"name": one.name}, errors="replace")


def _date(seconds: int, form: str = "%Y-%m-%d %H:%M") -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):{form}}"


def _shown(line: Entry) -> dict[str, Any]:
    return {**vars(line), "when": _date(line.at)}
