"""The admin page: who is let in, what a form must carry, what the pages show, and how they look in a browser."""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bauta.gallery.journal import DAY
from bauta.server import admin
from bauta.server.access import SCOPES, make_key, remove_key
from bauta.server.sessions import COOKIE, IDLE, LONGEST, MOST, Sessions, same_form
from store_builders import photo
from test_server import Site

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = ("/admin", "/admin/people", "/admin/person?name=ann", "/admin/audit", "/admin/receipts")
ACTS = ("/admin/revoke", "/admin/restore", "/admin/erase")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    for number, name in enumerate(("ann", "<b>bob</b>")):
        made.service.enrol("acme", name, photo(number), actor="test")
    yield made
    made.close()


class Visitor:
    """A browser without scripts, which keeps its cookie and says where a form comes from."""

    def __init__(self, site: Site, key: str = "") -> None:
        self.site, self.http = site, httpx.Client(base_url=site.address, timeout=60)
        site._clients.append(self.http)  # type: ignore[arg-type]
        if key:
            self.entered = self.send("/admin/sign-in", key=key)

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    @property
    def form(self) -> str:
        [found] = set(re.findall(r'name="form" value="([^"]+)"', self.get("/admin").text))
        return found

    def send(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
        own = {"Origin": self.site.address, "Sec-Fetch-Site": "same-origin"}
        return self.http.post(path, data=fields, headers={**own, **(headers or {})})


@pytest.fixture
def visitor(site: Site) -> Visitor:
    return Visitor(site, site.key)


def key_of(site: Site, *scopes: str, tenant: str = "acme") -> str:
    return make_key(site.service.store, tenant, scopes).secret


# Coming in


def test_nothing_is_shown_without_a_session(site: Site) -> None:
    stranger = Visitor(site)
    for path in PAGES:
        answer = stranger.get(path)
        assert answer.status_code == (200 if path == "/admin" else 401)
        assert "Sign in" in answer.text
        assert "ann" not in answer.text.replace("person?name=ann", "")
    for path in ACTS:
        assert stranger.send(path, name="ann", sure="yes", days="1").status_code == 401
    stranger.http.headers["Authorization"] = f"Bearer {site.key}"  # a key is no session
    assert stranger.get("/admin/people").status_code == 401
    stranger.http.cookies.set(COOKIE, "x" * 43)
    assert stranger.get("/admin/people").status_code == 401
    assert site.service.store.person("acme", "ann") == ("ann", 1, 0, False)


def test_the_cookie_is_kept_from_scripts_and_other_sites(site: Site, visitor: Visitor) -> None:
    assert visitor.entered.status_code == 303
    assert site.service.store.latest("acme")[0].action == "sign-in"
    cookie = visitor.entered.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/admin"):
        assert part in cookie
    assert "Secure" not in cookie  # plain HTTP on this machine; see the next test
    assert visitor.http.cookies[COOKIE] not in (site.key, visitor.form)
    headers = visitor.get("/admin").headers
    assert "script" not in headers["content-security-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none';")
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"


def test_the_cookie_goes_by_tls_alone_where_there_is_tls(site: Site) -> None:
    from bauta.server.app import make_app

    async def entered() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(site.service, secure=True))
        async with httpx.AsyncClient(transport=transport, base_url="https://faces.example") as client:
            own = {"Origin": "https://faces.example"}
            return await client.post("/admin/sign-in", data={"key": site.key}, headers=own)

    assert "Secure" in asyncio.run(entered()).headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "nonsense", "bauta_0123456789ab_" + "x" * 43, "ключ"])
def test_who_has_no_key_is_not_let_in(site: Site, key: str) -> None:
    visitor = Visitor(site)
    answer = visitor.send("/admin/sign-in", key=key)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_key_without_the_scope_is_not_let_in(site: Site) -> None:
    answer = Visitor(site).send("/admin/sign-in", key=key_of(site, *sorted(set(SCOPES) - {"admin"})))
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "lacks the scope admin" in answer.text


def test_a_session_ends_with_its_key_and_when_one_signs_out(site: Site) -> None:
    made = make_key(site.service.store, "acme", SCOPES)
    visitor, other = Visitor(site, made.secret), Visitor(site, site.key)
    assert visitor.get("/admin/people").status_code == 200
    remove_key(site.service.store, made.id)
    assert visitor.get("/admin/people").status_code == 401
    assert visitor.send("/admin/erase", form="x", name="ann", sure="yes").status_code == 401
    cookie = other.http.cookies[COOKIE]
    assert other.send("/admin/sign-out", form="wrong").status_code == 303
    other.http.cookies.set(COOKIE, cookie, path="/admin")
    assert other.get("/admin/people").status_code == 200  # a form of another page signs nobody out
    other.send("/admin/sign-out", form=other.form)
    other.http.cookies.set(COOKIE, cookie, path="/admin")
    assert other.get("/admin/people").status_code == 401


def test_sessions_end_by_themselves_and_do_not_pile_up(site: Site) -> None:
    now = [0.0]
    sessions, caller = Sessions(lambda: now[0]), site.app.state.access.caller(f"Bearer {site.key}", "admin")
    idle, busy = sessions.begin(caller), sessions.begin(caller)
    for _ in range(1, LONGEST // IDLE + 1):
        now[0] += IDLE
        found = sessions.get(busy)
        assert found is not None
        assert same_form(found, found.form)
        assert not same_form(found, found.form[:-1] + "\udcff")
    now[0] += 1
    assert sessions.get(idle) is sessions.get(busy) is None
    values = []
    for _ in range(MOST + 1):
        now[0] += 1
        values.append(sessions.begin(caller))
    assert sessions.get(values[0]) is None
    assert sessions.get(values[1]) is not None


# Forms


@pytest.mark.parametrize("path", ACTS)
@pytest.mark.parametrize(
    "change",
    [
        {"form": ""},
        {"form": "x" * 43},
        {"headers": {"Origin": "https://elsewhere.example"}},
        {"headers": {"Origin": "null"}},
        {"headers": {"Sec-Fetch-Site": "cross-site"}},
        {"headers": {"Sec-Fetch-Site": "same-site"}},
    ],
)
def test_a_form_of_another_page_does_nothing(site: Site, visitor: Visitor, path: str, change: dict[str, Any]) -> None:
    given = {"form": visitor.form, "name": "ann", "sure": "yes", "days": "1", **change}
    assert visitor.send(path, **given).status_code == 403
    assert visitor.http.get(path).status_code == 405
    assert site.service.store.person("acme", "ann") == ("ann", 1, 0, False)


def test_nobody_is_signed_in_by_another_page(site: Site) -> None:
    answer = Visitor(site).send("/admin/sign-in", {"Origin": "https://elsewhere.example"}, key=site.key)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_forms_are_limited_and_checked(site: Site, visitor: Visitor) -> None:
    form = visitor.form
    for days in ("", "-1", "3651", "1.5", "²", "9" * 5000):
        assert visitor.send("/admin/revoke", form=form, name="ann", days=days).status_code == 422
    assert visitor.send("/admin/erase", form=form, name="ann").status_code == 422
    for name in ("", "eve", "x" * 5000, "../ann", "ann\0"):
        assert visitor.send("/admin/erase", form=form, name=name, sure="yes").status_code == 404
    assert visitor.send("/admin/erase", form=form, name="x" * 10_000, sure="yes").status_code == 413
    many = {f"field {number}": "" for number in range(30)}
    assert visitor.send("/admin/erase", form=form, **many).status_code == 422
    assert site.service.store.person("acme", "ann") == ("ann", 1, 0, False)


# Pages


def test_a_person_is_revoked_restored_and_erased(site: Site, visitor: Visitor) -> None:
    form = visitor.form
    assert visitor.send("/admin/revoke", form=form, name="ann", days="3").status_code == 303
    assert "Restore" in visitor.get("/admin/person?name=ann").text
    assert site.service.store.person("acme", "ann") == ("ann", 0, 1, False)
    assert visitor.send("/admin/restore", form=form, name="ann").status_code == 303
    assert site.service.store.person("acme", "ann") == ("ann", 1, 0, False)
    erased = visitor.send("/admin/erase", form=form, name="ann", sure="yes")
    [line] = site.service.store.latest("acme", action="erase")
    assert erased.headers["location"] == f"/admin/receipts?number={line.number}"
    assert line.digest in visitor.get(erased.headers["location"]).text
    assert line.digest[:16] in visitor.get("/admin/receipts").text
    assert "no erasure of that number" in visitor.get(f"/admin/receipts?number={line.number - 1}").text
    assert visitor.get("/admin/person?name=ann").status_code == 404
    actions = [(one.action, one.actor) for one in site.service.store.latest("acme")][:3]
    ident = site.key.split("_")[1]
    assert actions == [("erase", ident), ("restore", ident), ("revoke", ident)]
    page = visitor.get("/admin/audit").text
    assert page.index("erase") < page.index("restore") < page.index("revoke")


def test_what_a_key_may_not_is_not_done(site: Site) -> None:
    visitor = Visitor(site, key_of(site, "admin"))
    page = visitor.get("/admin/person?name=ann").text
    assert "Erase" not in page.replace("Erasures", "")
    assert "/admin/revoke" not in page
    form = visitor.form
    for path in ACTS:
        assert visitor.send(path, form=form, name="ann", sure="yes", days="1").status_code == 403
    for path in ("/admin/audit", "/admin/receipts"):
        assert visitor.get(path).status_code == 403
    assert site.service.store.person("acme", "ann") == ("ann", 1, 0, False)
    erasing = Visitor(site, key_of(site, "admin", "erase"))
    [line] = [erasing.send("/admin/erase", form=erasing.form, name="ann", sure="yes")]
    assert line.status_code == 200  # the receipt itself, as this key may not read the audit
    assert site.service.store.latest("acme", action="erase")[0].digest in line.text


def test_tenants_do_not_see_each_other(site: Site, visitor: Visitor) -> None:
    other = Visitor(site, key_of(site, *SCOPES, tenant="other"))
    assert "Nobody is enrolled yet" in other.get("/admin/people").text
    assert other.get("/admin/person?name=ann").status_code == 404
    assert other.send("/admin/erase", form=other.form, name="ann", sure="yes").status_code == 404
    assert other.send("/admin/erase", form=visitor.form, name="ann", sure="yes").status_code == 403
    assert site.key.split("_")[1] not in other.get("/admin").text
    assert site.service.store.person("acme", "ann") == ("ann", 1, 0, False)


def test_names_are_shown_as_text_and_found(site: Site, visitor: Visitor) -> None:
    page = visitor.get("/admin/people").text
    assert "<b>bob" not in page
    assert "&lt;b&gt;bob&lt;/b&gt;" in page
    [link] = re.findall(r'href="(/admin/person\?name=[^"]*bob[^"]*)"', page)
    assert visitor.get(link).status_code == 200
    found = visitor.get('/admin/people?find=BOB&waiting=0&from="><script>').text
    assert "bob" in found
    assert "name=ann" not in found
    assert "<script" not in found
    assert "Nobody like that" in visitor.get("/admin/people?find=eve").text
    assert "Nobody like that" in visitor.get("/admin/people?waiting=1").text


def _walked(visitor: Visitor, path: str) -> tuple[list[str], int]:
    """The names on a page and on all that follow it, and how many pages they are."""
    names: list[str] = []
    for pages in range(1, 20):
        page = visitor.get(path).text
        names += re.findall(r'<td data-label="Name"><a [^>]*>([^<]*)</a>', page)
        more = re.findall(r'href="(\?[^"]*after=[^"]*)"', page)
        if not more:
            return names, pages
        path = "/admin/people" + html.unescape(more[0])
    raise AssertionError("the pages do not end")


def test_people_are_shown_and_looked_for_some_at_a_time(
    site: Site, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.service.store.writing() as writer:
        writer.enrol_many("acme", [(f"person {number:03d}", []) for number in range(120)] + [("a\udcffb", [])])
    names, pages = _walked(visitor, "/admin/people")
    assert pages == 3
    assert len(names) == len(set(names)) == 123
    assert {f"person {number:03d}" for number in range(120)} < set(names)
    assert _walked(visitor, "/admin/people?find=PERSON+11") == ([f"person {number}" for number in range(110, 120)], 1)
    for place in ("z", "0" * 63, "9" * 64, "%00", "-1"):
        assert visitor.get(f"/admin/people?after={place}").status_code == 200
    opened: list[bytes] = []
    vault = site.service.store.vault
    some = vault.some
    monkeypatch.setattr(vault, "some", lambda uids: opened.extend(kept := list(uids)) or some(kept))
    visitor.get("/admin/people")
    assert 50 < len(opened) < 123
    monkeypatch.setattr(admin, "LOOKED_AT", 40)
    page = visitor.get("/admin/people?find=person+117").text
    assert _walked(visitor, "/admin/people?find=person+117")[0] == ["person 117"]  # the whole name is found at once
    assert "Look on" not in page
    assert _walked(visitor, "/admin/people?find=erson+117") == (["person 117"], 4)
    assert "Nobody else like that" in visitor.get(f"/admin/people?find=erson&after={'f' * 64}").text


def test_thresholds_say_what_a_search_is_worth(site: Site, visitor: Visitor) -> None:
    assert "is not known" in visitor.get("/admin").text
    site.service.side.fmr = 1e-4
    page = visitor.get("/admin").text
    assert "1 in 10,000" in page
    assert "512 records" in page
    assert "0.02 %" in page


def test_pages_fail_closed(site: Site, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.service, "ready", False)
    assert visitor.get("/admin/people").status_code == 503
    monkeypatch.setattr(site.service, "ready", True)
    monkeypatch.setattr(site.service.store.vault, "some", _broken)
    answer = visitor.get("/admin/people")
    assert (answer.status_code, "name=ann" in answer.text) == (503, False)
    assert visitor.get("/admin/static/page.css").headers["content-type"].startswith("text/css")
    for name in ("admin.py", "..%2Fadmin.py", "%2e%2e/access.py", "layout.html.j2"):
        assert visitor.get(f"/admin/static/{name}").status_code == 404


def _broken(uids: object) -> dict[bytes, bytes]:
    from bauta.errors import GalleryError

    raise GalleryError("The keys cannot be read.", hint="Check the disk.")


# Looks


@pytest.fixture(scope="module", autouse=True)
def native_tracebacks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pytest's own, with excerpts, break the interpreter's parser among playwright's greenlets (Python 3.11)."""
    style, request.config.option.tbstyle = request.config.option.tbstyle, "native"
    yield
    request.config.option.tbstyle = style


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; apt-get install chromium")
def test_the_page_in_a_browser(site: Site) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    site.service.revoke("acme", "ann", DAY, actor="test")
    long = "a-pseudonym-that-is-longer-than-a-telephone-is-wide-" * 2
    site.service.enrol("acme", long, photo(7), actor="test")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        complaints: list[str] = []
        for width in (360, 800, 1440):
            context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=True)
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
            look: Callable[[], None] = lambda page=page, width=width: _fits(page, axe, width)  # noqa: E731
            page.goto(f"{site.address}/admin")
            look()
            page.fill("#key", site.key)
            page.click("main button")
            page.wait_for_selector("nav")
            for path in PAGES:
                page.goto(site.address + path)
                look()
            page.goto(f"{site.address}/admin/person?name=ann")
            page.click("button:has-text('Restore')")  # a browser sends with forms what the service asks of them
            page.wait_for_selector("#days")
            page.fill("#days", "3")
            page.click("button:has-text('Revoke')")
            page.wait_for_selector("button:has-text('Restore')")
            assert context.request.get(f"{site.address}/admin/people").ok
            page.click("text=Sign out")
            page.wait_for_selector("#key")
            context.close()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{site.address}/admin")
        page.fill("#key", site.key)
        page.click("main button")
        page.goto(f"{site.address}/admin/person?name={long}")
        page.check("[name=sure]")
        page.click("button:has-text('Erase')")
        page.wait_for_selector("text=Receipt of an erasure")
        browser.close()
    assert complaints == []
    assert site.service.store.person("acme", long) is None


def _fits(page: Any, axe: Any, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()
