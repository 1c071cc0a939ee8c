"""The page in a real browser: Debian's Chromium, or whatever CHROMIUM names."""

from __future__ import annotations

import base64
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bauta.cloaking.settings import ProtectSettings
from bauta.photo import read_photo
from bauta.web.serve import Run, running, serve
from web_toys import Toy, photo

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; apt-get install chromium")

STATES = "[...document.querySelectorAll('#strip .state')].map((one) => one.textContent)"
PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="module", autouse=True)
def native_tracebacks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pytest's own, with excerpts, break the interpreter's parser among playwright's greenlets (Python 3.11)."""
    style, request.config.option.tbstyle = request.config.option.tbstyle, "native"
    yield
    request.config.option.tbstyle = style


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


class Tab:
    """One tab, and all that it asked for and complained of."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.goto(address)

    def add(self, *contents: bytes) -> None:
        files = [{"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": one} for n, one in enumerate(contents, 1)]
        self.page.set_input_files("#files", files)

    def give(self, how: str, name: str, content: bytes) -> None:
        """Drop a file as a file manager does, or paste it."""
        script = """([how, name, text]) => {
          const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
          const about = { dataTransfer: transfer, clipboardData: transfer, bubbles: true, cancelable: true };
          document.body.dispatchEvent(how === "drop" ? new DragEvent(how, about) : new ClipboardEvent(how, about));
        }"""
        self.page.evaluate(script, [how, name, base64.b64encode(content).decode()])

    def until(self, states: list[str]) -> None:
        self.page.wait_for_function(f"(wanted) => {STATES}.join('|') === wanted", arg="|".join(states))

    def until_counted(self, state: str, count: int) -> None:
        """Wait until so many photos are in a state; an album takes minutes on a busy machine."""
        script = f"([state, count]) => {STATES}.filter((one) => one === state).length === count"
        try:
            self.page.wait_for_function(script, arg=[state, count], timeout=5 * PATIENCE)
        except playwright.TimeoutError:
            found = Counter(self.page.evaluate(STATES))
            said = self.page.inner_text("#note"), self.page.inner_text("#trouble")
            pytest.fail(f"not {count} times {state!r} but {found}; the page said {said}, {self.complaints}")

    def require_wellbehaved(self, address: str, *, but: str = "\0") -> None:
        assert [url for url in self.asked if not url.startswith(address)] == []
        assert [one for one in self.complaints if but not in one] == []


@contextmanager
def served(make: Callable[[], Any] | None = Toy, **options: Any) -> Iterator[Run]:
    with running(make=make, **options) as run:
        thread = threading.Thread(target=serve, args=(run,), daemon=True)
        thread.start()
        until = time.monotonic() + 60
        while not run.server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)  # until it listens, a browser is refused
        try:
            yield run
        finally:
            run.server.finish()
            thread.join(20)


def serious(tab: Tab) -> list[str]:
    """What axe-core finds of serious or critical impact."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(tab.page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def test_a_photo_is_dropped_protected_compared_and_downloaded(browser: Any) -> None:
    from bauta.cloaking.portrait import portrait

    pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    base = ProtectSettings(options=(("iterations", 1),), surrogates=("mobilefacenet",), judges=("mobilenet",))
    with served(None, base=base) as run:
        tab = Tab(browser, run.address, accept_downloads=True)
        tab.page.wait_for_selector("#welcome:not([hidden])")
        tab.give("drop", "me.jpg", portrait())
        tab.page.wait_for_selector(".stage button")
        assert tab.page.locator(".stage button").count() == 1
        tab.page.wait_for_selector(".frame:not([hidden])")
        assert tab.page.inner_text(".badge") == "Preview, not checked"
        tab.page.click("#more summary")
        tab.page.get_by_label("Keep a way back").check()
        with tab.page.expect_download() as key:
            tab.page.locator("#owner").get_by_text("Download it").click()
        assert len(Path(key.value.path()).read_bytes()) == 32
        tab.page.click("#protect")
        tab.page.wait_for_selector(".verdict h3:visible")
        assert tab.page.inner_text(".badge") == "The finished photo"
        slider = tab.page.get_by_label("Divider between before and after")
        slider.focus()
        tab.page.keyboard.press("Home")
        assert tab.page.evaluate("document.querySelector('.pair .over').style.clipPath") == "inset(0px 0px 0px 0%)"
        sizes = "document.querySelector('.pair img').clientWidth / document.querySelector('.pair img').naturalWidth"
        assert tab.page.evaluate(sizes) == 1
        tab.page.get_by_text("200 %").click()
        assert tab.page.evaluate(sizes) == 2
        tab.page.click("text=Blink")
        assert tab.page.get_by_role("button", name="Blink").get_attribute("aria-pressed") == "true"
        if tab.page.get_by_role("button", name="Take it anyway").is_visible():  # one iteration is not much of a mask
            tab.page.get_by_role("button", name="Take it anyway").click()
        with tab.page.expect_download() as download:
            tab.page.locator(".verdict").get_by_text("Download", exact=True).click()
        assert download.value.suggested_filename == "me.protected.jpg"
        content = Path(download.value.path()).read_bytes()
        assert content.startswith(b"\xff\xd8")
        assert content != portrait()
        tab.page.click("#open-tools")
        saved = {"name": "me.protected.jpg", "mimeType": "image/jpeg", "buffer": content}
        tab.page.set_input_files("#tools-photo", saved)
        tab.page.get_by_role("button", name="Take the mask off").click()
        with tab.page.expect_download() as download:
            tab.page.locator("#tools-body").get_by_text("Download", exact=True).click()
        back = read_photo(Path(download.value.path()).read_bytes()).pixels
        before, after = read_photo(portrait()).pixels, read_photo(content).pixels
        assert float(((back - before) ** 2).mean()) < 0.25 * float(((after - before) ** 2).mean())
        tab.require_wellbehaved(run.address)
        tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, scheme: str) -> None:
    with served() as run:
        tab = Tab(browser, run.address, color_scheme=scheme)
        tab.page.wait_for_selector("#welcome:not([hidden])")
        assert serious(tab) == []
        tab.add(photo(faces=2), photo(faces=2, verdict="weak"), photo(bad=1))
        tab.until(["not yet protected", "not yet protected", "a problem"])
        tab.page.click("#more summary")
        tab.page.wait_for_selector(".frame:not([hidden])")
        assert serious(tab) == []
        tab.page.select_option("#method", "veil")
        tab.page.wait_for_selector("#method-needs .need")
        assert serious(tab) == []
        tab.page.click("#open-tools")
        assert serious(tab) == []
        tab.page.keyboard.press("Escape")
        tab.page.select_option("#method", "toy")
        tab.page.click("#protect")
        tab.until(["protected", "still recognisable", "a problem"])
        for place in (2, 3):
            tab.page.click(f"#strip li:nth-child({place}) button")
            assert serious(tab) == []
        tab.page.click("#open-threats")
        assert serious(tab) == []
        tab.require_wellbehaved(run.address)
        tab.context.close()


def test_a_group_photo_by_keyboard_alone(browser: Any) -> None:
    with served(held=[("group.jpg", photo(faces=3, person=121))]) as run:
        tab = Tab(browser, run.address)
        tab.until(["not yet protected"])
        tab.page.focus(".stage button:nth-child(2)")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector(".stage button:nth-child(2)[data-choice=blur]")
        assert tab.page.evaluate("document.activeElement.dataset.choice") == "blur"  # focus stays where it was
        assert tab.page.get_by_role("radio", name="Blur").nth(1).is_checked()
        tab.page.get_by_role("radio", name="Protect", exact=True).nth(2).focus()
        tab.page.keyboard.press("ArrowLeft")
        tab.page.wait_for_selector(".stage button:nth-child(3)[data-choice=leave]")
        tab.page.focus("text=This is me")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#only:not([hidden])")
        choices = "[...document.querySelectorAll('.stage button')].map((one) => one.dataset.choice).join()"
        tab.page.wait_for_function(f"() => {choices} === 'protect,leave,protect'")
        tab.page.focus("#protect")
        tab.page.keyboard.press("Enter")
        tab.until(["protected"])
        tab.require_wellbehaved(run.address)
        tab.context.close()


def test_two_tabs_and_a_reload_show_the_same(browser: Any) -> None:
    with served() as run:
        one = Tab(browser, run.address)
        two = Tab(browser, run.address + "?lang=de", viewport={"width": 360, "height": 700})
        one.page.wait_for_selector("#welcome:not([hidden])")
        one.give("paste", "image.png", photo(faces=1, steps=60))
        one.page.wait_for_selector("#strip li")
        one.add(photo(faces=1, verdict="weak"))
        two.until(["noch nicht geschützt", "noch nicht geschützt"])
        one.until(["not yet protected", "not yet protected"])  # what it knows of is what it asks for
        one.page.click("#protect")
        one.page.wait_for_selector("#progress:not([hidden])")
        one.page.reload()  # which may take longer than the rest of the work
        one.page.wait_for_selector("#strip li")
        one.until(["protected", "still recognisable"])
        two.until(["geschützt", "noch erkennbar"])
        assert "1 Foto wird zurückgehalten" in two.page.inner_text("#results-held")
        assert two.page.evaluate("document.documentElement.scrollWidth") == 360
        for tab in (one, two):
            tab.require_wellbehaved(run.address)
            tab.context.close()


def test_two_hundred_photos_and_a_hostile_one(browser: Any) -> None:
    with served() as run:
        tab = Tab(browser, run.address)
        tab.add(*[photo(faces=1)] * 100, photo(faces=1, die="look"), *[photo(faces=1)] * 99)
        tab.until_counted("not yet protected", 199)
        tab.until_counted("a problem", 1)
        tab.page.click("#protect")
        tab.until_counted("protected", 199)
        assert tab.page.inner_text("#results-ready") == "199 photos are ready."
        with tab.page.expect_download() as download:
            tab.page.click("#zip")
        assert download.value.suggested_filename == "bauta-protected.zip"
        tab.require_wellbehaved(run.address)
        tab.context.close()


def test_a_server_that_dies_is_told_of_and_the_next_one_works(browser: Any) -> None:
    with served(held=[("a.jpg", photo(faces=1, steps=2000))]) as run:
        tab = Tab(browser, run.address)
        tab.until(["not yet protected"])
        tab.page.click("#protect")
        tab.page.wait_for_selector("#progress:not([hidden])")
        port = int(run.address.split(":")[2].split("/")[0])
        run.server.finish()
        tab.page.wait_for_selector("#trouble:not([hidden])")
        assert "does not answer" in tab.page.inner_text("#trouble")
    with served(port=port) as again:
        tab.page.goto(run.address)
        assert "of another run" in tab.page.inner_text("body")
        tab.page.goto(again.address)
        tab.page.wait_for_selector("#welcome:not([hidden])")
        tab.add(photo(faces=1))
        tab.until(["not yet protected"])
        tab.context.close()


def test_a_photo_that_is_given_before_the_page_has_its_words_is_taken(browser: Any) -> None:
    with served() as run:
        tab, held = Tab(browser, "about:blank"), []
        tab.page.route("**/texts/*", lambda route: held.append(route))
        tab.page.goto(run.address)
        tab.add(photo(faces=1))
        assert held
        held[0].continue_()
        tab.until(["not yet protected"])
        tab.context.close()


def test_ending_from_the_page_ends_the_program(browser: Any) -> None:
    with served() as run:
        tab = Tab(browser, run.address)
        tab.page.wait_for_selector("#welcome:not([hidden])")
        tab.page.click("#end")
        tab.page.click("#ask button[value=no]")
        assert not run.server.should_exit
        tab.page.click("#end")
        tab.page.click("#ask button[value=yes]")
        tab.page.get_by_text("Bauta has ended").wait_for()
        for _ in range(200):  # the answer goes out before the program ends
            if run.server.should_exit:
                break
            time.sleep(0.05)
        assert run.server.should_exit
        tab.context.close()
