"""The page's server: who may ask, what may be uploaded, what is handed out, and what a death of its process costs."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pytest
from PIL import Image

from bauta.cloaking import pipeline
from bauta.cloaking.settings import ProtectSettings
from bauta.errors import PhotoError, UsageError, WrongKey, every_error
from bauta.faces.faces import SearchLimit
from bauta.judging.conditions import CONDITIONS
from bauta.judging.findings import Cause, FindingKind, Verdict
from bauta.judging.words import DOES_NOT_PROTECT_AGAINST, Seen
from bauta.photo.cleaning import Removed
from bauta.web.album import Album
from bauta.web.app import Site, make_app
from bauta.web.entries import State
from bauta.web.folder import PrivateFolder, remove_abandoned
from bauta.web.guard import HEADERS
from bauta.web.hands import Hands
from bauta.web.limits import Limits
from bauta.web.saving import save_beside
from bauta.web.serve import running, serve
from bauta.web.texts import LANGUAGES, texts
from conftest import toy_surrogate
from protection_fakes import Negative, Stage, build_stage, write_photo
from toy_veil import CARD, declare
from web_toys import HOST, TOKEN, Toy, album, photo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have httpx2, and works with httpx
    from starlette.testclient import TestClient

LIMITS = Limits(photos=5, photo_bytes=1000, album_bytes=2500, file_bytes=100, seconds=60)


class Page:
    """What a page does, by requests of its own."""

    def __init__(self, made: Album, client: TestClient) -> None:
        self.album = made
        self.client = client

    def add(self, content: bytes, name: str = "a.jpg") -> str:
        answer = self.client.post("photos", content=content, headers={"X-Name": name})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def post(self, path: str, **values: Any) -> httpx.Response:
        return self.client.post(path, json=values)

    def state(self) -> dict[str, Any]:
        state = self.client.get("state").json()
        return {**state, "photos": {one["id"]: one for one in state["photos"]}}

    def wait(self, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The state once it is as it should be; fails when it never is."""
        for _ in range(600):
            state = self.state()
            if ready(state):
                return state
            time.sleep(0.05)
        raise AssertionError(state)

    def settled(self, *states: str) -> dict[str, Any]:
        """The photos, once each is in one of these states."""
        wanted = states or ("ready", "done", "failed")
        found = self.wait(lambda state: all(one["state"] in wanted for one in state["photos"].values()))
        return dict(found["photos"])


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with album(tmp_path, LIMITS) as made:
        yield Page(made, client_of(made))


def client_of(made: Album, limits: Limits = LIMITS) -> TestClient:
    app = make_app(Site(made, limits), TOKEN, [HOST])
    return TestClient(app, base_url=f"http://{HOST}/{TOKEN}/", headers={"Origin": f"http://{HOST}"})


# Who may ask


@pytest.mark.parametrize(
    ("headers", "method", "path", "status"),
    [
        ({}, "GET", "", 200),
        ({}, "GET", "http://127.0.0.1:4321/", 404),
        ({}, "GET", "http://127.0.0.1:4321/tokem/", 404),
        ({"Host": "evil.example"}, "GET", "", 421),
        ({"Host": "127.0.0.1:4322"}, "GET", "", 421),
        ({"Host": "localhost:4321"}, "GET", "", 421),
        ({"Origin": "http://evil.example"}, "GET", "state", 403),
        ({"Origin": "null"}, "POST", "end", 403),
        ({"Origin": "http://127.0.0.1:4322"}, "POST", "end", 403),
        ({"Origin": None}, "POST", "end", 403),
        ({"Sec-Fetch-Site": "cross-site"}, "GET", "static/page.js", 403),
        ({"Sec-Fetch-Site": "same-site"}, "POST", "end", 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, "GET", "", 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, "POST", "end", 403),
    ],
)
def test_only_our_own_page_is_answered(
    tmp_path: Path, headers: dict[str, str | None], method: str, path: str, status: int
) -> None:
    ended: list[int] = []
    with album(tmp_path) as made:
        client = TestClient(
            make_app(Site(made, LIMITS, lambda: ended.append(1)), TOKEN, [HOST]), base_url=f"http://{HOST}/{TOKEN}/"
        )
        given = {"Origin": f"http://{HOST}", **headers}
        answer = client.request(method, path, headers={name: value for name, value in given.items() if value})
    assert answer.status_code == status
    assert not ended
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(page: Page) -> None:
    html = page.client.get("").text
    assert not re.search(r"<style|<script(?![^>]*src=)|\sstyle=|\son\w+=|https?://", html)
    files = {file.name: file.read_text() for file in resources.files("bauta.web").joinpath("static").iterdir()}
    for name, text in files.items():
        assert not re.search(r"(https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9-]+\.[a-z]", text), name
        assert "eval(" not in text
        assert "innerHTML" not in text
        assert page.client.get(f"static/{name}").status_code == 200
    assert page.client.get("static/../app.py").status_code == 404
    assert page.client.get("static/..%2Fapp.py").status_code == 404


def test_the_language_is_the_browsers_or_the_chosen_one(page: Page) -> None:
    assert '<html lang="de">' in page.client.get("", headers={"Accept-Language": "fr, de;q=0.5"}).text
    assert '<html lang="en">' in page.client.get("?lang=en", headers={"Accept-Language": "de"}).text
    assert '<html lang="en">' in page.client.get("?lang=../../x").text
    assert page.client.get("texts/xx").status_code == 404


# What may be uploaded


def test_limits_hold_before_anything_is_looked_at(page: Page, tmp_path: Path) -> None:
    def refused(content: Any, code: str) -> None:
        answer = page.client.post("photos", content=content)
        assert answer.json()["code"] == code
        assert answer.status_code >= 400

    refused(b"x" * 1001, "too-large")
    refused((b"x" * 600 for _ in range(2)), "too-large")  # in pieces, without saying how much
    refused(b"", "photo.unreadable")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    for _ in range(2):
        page.add(photo(bad=1) + b" " * 900)
    page.add(photo(bad=1))
    refused(b"x" * 999, "album-full")
    for _ in range(2):
        page.add(photo(bad=1))
    refused(photo(faces=1), "too-many")
    first = page.state()["order"][0]
    assert page.post(f"photos/{first}", do="remove").status_code == 200
    assert not (tmp_path / first).exists()
    page.add(photo(faces=1))


def test_names_of_files_lead_nowhere(page: Page, tmp_path: Path) -> None:
    one = page.add(photo(faces=1), "..%2F..%2Fetc%2Fpasswd%00.jpg")
    assert page.settled()[one]["name"] == "passwd.jpg"
    for name in ("original", "faces.npz", "..%2Foriginal", "shown.jpg%00", "before-2.png", ".lock"):
        assert page.client.get(f"photos/{one}/{name}").status_code == 404, name
    assert page.client.get(f"photos/{one}/before-1.png").headers["content-type"] == "image/png"
    assert page.client.get("photos/p99/shown.jpg").status_code == 404


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"do": "x"}', b'{"do": "choose", "face": "1"}'])
def test_nonsense_is_refused(page: Page, body: bytes) -> None:
    one = page.add(photo(faces=1))
    page.settled()
    for path in (f"photos/{one}", "work", "wishes", "fit"):
        answer = page.client.post(path, content=body)
        assert answer.status_code == 400, (path, answer.text)


def test_wishes_are_checked(page: Page) -> None:
    page.wait(lambda state: state["album"]["abilities"] is not None)
    for wrong in ({"strength": "extreme"}, {"method": "clean"}, {"cover": "yes"}, {"seed": 3}, {"message": "x" * 501}):
        assert page.post("wishes", **wrong).status_code == 400, wrong
    assert page.post("wishes", strength="high", cover=True, method="veil", message="mine").status_code == 200
    wishes = page.state()["album"]["wishes"]
    assert (wishes["strength"], wishes["cover"], wishes["method"], wishes["message"]) == ("high", True, "veil", "mine")


# From faces to results


def test_faces_are_chosen_and_a_result_belongs_to_its_choices(page: Page) -> None:
    one = page.add(photo(faces=3))
    assert [face["choice"] for face in page.settled()[one]["faces"]] == ["protect"] * 3
    page.post(f"photos/{one}", do="choose", face=2, choice="blur")
    page.post(f"photos/{one}", do="choose", face=3, choice="leave")
    assert page.post(f"photos/{one}", do="choose", face=4, choice="blur").status_code == 409
    assert page.post("work", do="protect").json() == {"count": 1}
    done = page.settled("done")[one]
    assert [face["treatment"] for face in done["result"]["faces"]] == ["mask", "blur", "left"]
    assert page.client.get(f"photos/{one}/result").content.startswith(b"result of")
    page.post(f"photos/{one}", do="choose", face=1, choice="blur")
    again = page.state()["photos"][one]
    assert (again["state"], again["result"]) == ("ready", None)
    assert page.client.get(f"photos/{one}/result").status_code == 409


def test_a_photo_of_which_every_face_is_left_is_not_queued(page: Page) -> None:
    one = page.add(photo(faces=1))
    page.settled()
    page.post(f"photos/{one}", do="choose", face=1, choice="leave")
    assert page.post("work", do="protect").json() == {"count": 0}


def test_only_me_is_found_in_every_photo(page: Page) -> None:
    group, alone = page.add(photo(faces=3, person=121)), page.add(photo(faces=1, person=2))
    page.settled()
    page.post("wishes", others="blur")
    assert page.post(f"photos/{group}", do="pick", face=2).status_code == 200
    later = page.add(photo(faces=2, person=32))
    photos = page.settled()
    choices = {id_: [face["choice"] for face in one["faces"]] for id_, one in photos.items()}
    assert choices == {group: ["blur", "protect", "blur"], alone: ["protect"], later: ["blur", "protect"]}
    page.post("wishes", others="leave")
    assert [face["choice"] for face in page.state()["photos"][later]["faces"]] == ["leave", "protect"]
    page.post("work", do="everybody")
    assert {face["choice"] for one in page.state()["photos"].values() for face in one["faces"]} == {"protect"}
    assert page.post(f"photos/{group}", do="pick", face=9).status_code == 409


def test_weak_results_are_held_back_until_the_person_says_so(page: Page) -> None:
    good, weak = page.add(photo(faces=1)), page.add(photo(faces=1, verdict="weak"))
    page.settled()
    page.post("work", do="protect")
    page.settled("done")
    assert page.client.get(f"photos/{weak}/result").status_code == 409
    assert names(page) == ["a.protected.jpg"]
    page.post(f"photos/{weak}", do="release", taken=True)
    assert names(page) == ["a.protected.jpg", "a.protected-2.jpg"]
    assert page.client.get(f"photos/{weak}/result").headers["content-disposition"].startswith("attachment")
    page.post(f"photos/{weak}", do="release", taken=False)
    page.post(f"photos/{good}", do="remove")
    assert page.client.get("zip").json()["code"] == "nothing"


def names(page: Page) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(page.client.get("zip").content)) as archive:
        assert archive.testzip() is None
        found = archive.namelist()
    assert not list(page.album.folder.glob("*.zip"))
    return found


def test_weak_ones_are_retried_stronger_and_then_covered(page: Page) -> None:
    one = page.add(photo(faces=2, verdict="weak"))
    page.settled()
    page.post("work", do="protect")
    assert page.settled("done")[one]["result"]["strength"] == "medium"
    assert page.post("work", do="retry").json() == {"count": 1}
    assert page.settled("done")[one]["result"]["strength"] == "high"
    assert page.post("work", do="retry").json() == {"count": 0}  # there is nothing stronger
    assert page.post("work", do="cover").json() == {"count": 1}
    done = page.settled("done")[one]
    assert [face["choice"] for face in done["faces"]] == ["blur", "blur"]
    assert done["result"]["verdict"] == "protected"


def test_results_lie_beside_their_originals_under_new_names(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "private").mkdir()
    original = home / "a.jpg"
    original.write_bytes(photo(faces=1))
    (home / "a.protected.jpg").write_bytes(b"somebody's")
    with album(tmp_path / "private") as made:
        entry = made.place("a.jpg", original)
        (entry.folder / "original").write_bytes(original.read_bytes())
        made.add(entry)
        page = Page(made, client_of(made))
        page.settled()
        page.post("work", do="protect")
        page.settled("done")
        assert page.post("work", do="save").json() == {"saved": [str(home / "a.protected-2.jpg")], "problems": []}
        assert page.post("work", do="save").json() == {"saved": [], "problems": []}
    assert (home / "a.protected.jpg").read_bytes() == b"somebody's"
    assert (home / "a.protected-2.jpg").read_bytes().startswith(b"result of")
    assert original.read_bytes() == photo(faces=1)
    assert save_beside(original, b"x", ".jpg") == home / "a.protected-3.jpg"


# The process


def test_a_photo_that_kills_the_process_costs_itself(page: Page) -> None:
    good, deadly, other = page.add(photo(faces=1)), page.add(photo(faces=1, die="look")), page.add(photo(faces=2))
    photos = page.settled()
    assert {id_: one["state"] for id_, one in photos.items()} == {good: "ready", deadly: "failed", other: "ready"}
    assert photos[deadly]["error"]["code"] == "worker"
    assert page.post("work", do="protect").json() == {"count": 2}
    page.settled("done", "failed")
    assert len(names(page)) == 2


def test_what_pauses_when_the_process_dies_is_done_again(page: Page) -> None:
    long = page.add(photo(faces=1, steps=40))
    page.settled()
    page.post("work", do="protect")
    page.wait(lambda state: state["photos"][long]["state"] == "working")
    deadly = page.add(photo(faces=1, die="look"))
    photos = page.settled("done", "failed")
    assert (photos[long]["state"], photos[deadly]["state"]) == ("done", "failed")
    assert page.album.worker.restarts == 1


def test_a_photo_is_looked_at_in_the_middle_of_a_long_job(page: Page) -> None:
    long = page.add(photo(faces=1, steps=2000))
    page.settled()
    page.post("work", do="protect")
    page.wait(lambda state: state["photos"][long]["state"] == "working")
    other = page.add(photo(faces=1))
    state = page.wait(lambda state: state["photos"][other]["state"] == "ready")
    assert state["photos"][long]["state"] == "working"
    page.post(f"photos/{other}", do="sketch")
    state = page.wait(lambda state: state["photos"][other]["sketched"] == 1)
    assert state["photos"][long]["state"] == "working"
    assert page.client.get(f"photos/{other}/sketch-1.png").status_code == 200
    page.post("work", do="cancel")
    assert page.settled()[long]["state"] == "ready"


def test_cancelling_ends_what_runs_and_what_waits(page: Page) -> None:
    for _ in range(3):
        page.add(photo(faces=1, steps=2000))
    page.settled()
    page.post("work", do="protect")
    state = page.wait(lambda state: any(one["state"] == "working" for one in state["photos"].values()))
    assert state["album"]["left"] is None or state["album"]["left"] > 0
    page.post("work", do="cancel")
    assert {one["state"] for one in page.settled().values()} == {"ready"}
    assert page.album.worker.restarts == 0
    assert page.state()["album"]["left"] is None


def test_a_photo_that_never_ends_is_ended(tmp_path: Path) -> None:
    limits = replace(LIMITS, seconds=0.5)
    with album(tmp_path, limits) as made:
        page = Page(made, client_of(made, limits))
        hanging = page.add(photo(faces=1, hang="look"))
        photos = page.settled()
        assert photos[hanging]["error"]["code"] == "worker"
        assert page.album.worker.restarts == 1


# Methods that need more


def test_methods_get_what_they_need_and_give_it_back(page: Page) -> None:
    page.wait(lambda state: state["album"]["abilities"] is not None)
    one, _ = page.add(photo(faces=1)), page.add(photo(faces=1))
    page.settled()
    assert page.post("fit", method="toy", photos=[one]).status_code == 400  # which learns nothing
    assert page.post("fit", method="veil", photos=[one]).json()["code"] == "few-photos"
    assert page.post("fit", method="veil", photos=page.state()["order"]).status_code == 200
    page.wait(lambda state: state["album"]["files"].get("fitted") == "me.veil.mask")
    assert page.client.get("files/fitted").content == b"fitted"
    assert page.post("passphrase", text=["x"]).status_code == 400
    assert page.post("passphrase", text="twelve letters").status_code == 200
    assert page.state()["album"]["opens"] is True
    assert "twelve" not in page.client.get("state").text
    key = page.client.post("files/key?new=1", headers={"X-Name": "bauta.key"})
    assert key.status_code == 200
    secret = page.client.get("files/key").content
    assert len(secret) == 32
    page.client.post("files/key", content=b"0" * 40, headers={"X-Name": "mine"})
    assert page.client.get("files/key").content == b"0" * 40
    assert page.client.post("files/key", content=b"0" * 101).status_code == 413
    assert page.client.post("files/other", content=b"0").status_code == 404
    page.post("wishes", method="veil", message="mine")
    about = page.album.settings(page.album.entries[one])
    assert (about["message"], len(about["fitted"]), about["passphrase"]) == ("mine", 1, "twelve letters")
    assert Path(about["key"]).stat().st_mode & 0o077 == 0
    page.client.post("undo/read?method=veil", content=photo(faces=1), headers={"X-Name": "p.jpg"})
    state = page.wait(lambda state: state["album"]["chore"]["state"] == "done")
    assert [one["message"] for one in state["album"]["chore"]["answer"]["readings"]] == ["mine", None]
    page.client.post("undo/restore?method=veil", content=photo(faces=1), headers={"X-Name": "p.jpg"})
    page.wait(lambda state: state["album"]["files"].get("restored") == "p.restored.jpg")
    assert page.client.get("files/restored").content == b"restored"
    assert page.client.post("undo/restore?method=toy", content=b"x").status_code == 400


def test_the_way_back_has_a_key_of_its_own(page: Page) -> None:
    page.wait(lambda state: state["album"]["abilities"] is not None)
    entry = page.album.entries[page.add(photo(faces=1))]
    page.settled()
    assert page.album.settings(entry)["erasable"] is False
    assert page.client.post("files/owner?new=1", headers={"X-Name": "me.key"}).status_code == 200
    assert len(page.client.get("files/owner").content) == 32
    assert page.album.settings(entry)["owner"] is None  # nobody asked for it
    assert page.post("wishes", erasable="yes").status_code == 400
    assert page.post("wishes", erasable=True).status_code == 200
    about = page.album.settings(entry)
    assert about["erasable"] is True
    assert Path(about["owner"]).stat().st_mode & 0o077 == 0
    assert page.client.post("undo/read?method=", content=photo(faces=1)).status_code == 400
    assert page.client.post("undo/restore?method=", content=photo(faces=1)).status_code == 200
    page.wait(lambda state: state["album"]["files"].get("restored") is not None)


# The private folder


def test_the_private_folder_is_private_and_goes(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert remove_abandoned(tmp_path) == 0  # its run is alive
    (folder.path / "p1").mkdir()
    (folder.path / "p1" / "original").write_bytes(b"face")
    folder.remove()
    assert not list(tmp_path.iterdir())


def test_the_private_folder_goes_while_something_still_writes(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)

    def write() -> None:
        for number in range(3000):
            try:
                (folder.path / f"p{number}").mkdir()
            except FileNotFoundError:
                return  # it is gone, and nothing can be put into it

    thread = threading.Thread(target=write)
    thread.start()
    folder.remove()
    thread.join()
    assert not list(tmp_path.iterdir())


def test_no_photo_is_taken_once_the_end_has_come(page: Page, tmp_path: Path) -> None:
    page.album.close()
    assert page.client.post("photos", content=photo(faces=1)).status_code == 409
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from bauta.web.folder import PrivateFolder\n"
        "folder = PrivateFolder(Path(sys.argv[1])); (folder.path / 'face').write_bytes(b'x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    other = tmp_path / "bauta-web-strange"
    other.mkdir()
    link = tmp_path / "bauta-web-link"
    link.symlink_to(other)
    folder = PrivateFolder(tmp_path)
    assert not left.exists()
    assert other.exists()  # without a lock it is not known to be ours
    assert link.is_symlink()
    folder.remove()


def test_a_run_serves_its_page_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(photo(faces=1))
    with running([tmp_path / "a.jpg"], held=[("b.jpg", photo(faces=2))], make=Toy) as run:
        assert run.address.startswith("http://127.0.0.1:")
        assert len(run.address.rstrip("/").rpartition("/")[2]) >= 32
        thread = threading.Thread(target=serve, args=(run,))
        thread.start()
        origin = run.address[: run.address.index("/", 8)]
        with httpx.Client(base_url=run.address, headers={"Origin": origin}, timeout=30) as client:
            for _ in range(100):
                state = client.get("state?since=0").json()
                if len(state["photos"]) == 2 and all(one["state"] == "ready" for one in state["photos"]):
                    break
                time.sleep(0.05)
            assert [one["beside"] for one in state["photos"]] == [True, False]
            assert run.folder.path.stat().st_mode & 0o777 == 0o700
            process = run.album.worker.pid
            assert client.post("end").status_code == 200
        thread.join(20)
        assert not thread.is_alive()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
    with pytest.raises(ProcessLookupError):
        os.kill(process or 0, 0)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"])
def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path, name: str) -> None:
    """Not even half-way through a photo; what a killed one cannot remove, the next run does."""
    script = (
        "import sys, tempfile; sys.path.insert(0, sys.argv[2]); tempfile.tempdir = sys.argv[1]\n"
        "from bauta.web.serve import running, serve; from web_toys import Toy, photo\n"
        "with running(held=[('a.jpg', photo(faces=1, steps=10000))], make=Toy) as run:\n"
        "    import threading, time\n"
        "    def begin():\n"
        "        while not run.album.protect(list(run.album.entries.values())): time.sleep(0.05)\n"
        "        while not any(e.state == 'working' for e in run.album.entries.values()): time.sleep(0.05)\n"
        "        print(run.album.worker.pid, flush=True)\n"
        "    threading.Thread(target=begin, daemon=True).start()\n"
        "    serve(run)\n"
    )
    script = f"def main():\n{textwrap.indent(script, '    ')}\nif __name__ == '__main__':\n    main()\n"
    (tmp_path / "run.py").write_text(script)
    held = tmp_path / "held"
    held.mkdir()
    command = [sys.executable, str(tmp_path / "run.py"), str(held), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        (private,) = held.iterdir()
        assert (private / "p1" / "original").exists()
        process.send_signal(getattr(signal, name))
        process.wait(30)
    assert list(held.iterdir()) == ([private] if name == "SIGKILL" else [])
    for _ in range(200):  # the process that works on images ends with its server, whatever ended that
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the worker lives on")
    if name == "SIGKILL":
        assert remove_abandoned(held) == 1
        assert not list(held.iterdir())


def test_a_run_ends_once_its_page_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with running(make=Toy, grace=1.0) as run:
        serve(run)  # no page ever opens
    assert not list(tmp_path.iterdir())


# Texts


def shape(value: Any) -> Any:
    """What must be the same in every language: keys, plural forms, places for values, the length of lists."""
    if isinstance(value, str):
        return sorted(set(re.findall(r"\{\w+\}", value)))
    if isinstance(value, list):
        return [shape(one) for one in value]
    return {key: shape(one) for key, one in value.items()}


def test_every_language_says_the_same_things() -> None:
    english = texts("en")
    for language in LANGUAGES:
        found = texts(language)
        assert found.keys() == english.keys()
        for key, value in found.items():
            assert shape(value) == shape(english[key]), (language, key)
            assert not isinstance(value, dict) or value.keys() == {"one", "other"}
    assert len(english["threats.list"]) == len(DOES_NOT_PROTECT_AGAINST)


def test_there_are_words_for_everything_that_can_be_found() -> None:
    keys = texts("en").keys()
    wanted = [f"finding.{kind}" for kind in get_args(FindingKind) if kind != "face-left-alone"]
    wanted += [f"{what}.{verdict}" for what in ("verdict", "headline", "plain") for verdict in get_args(Verdict)]
    wanted += [f"state.{state}" for state in get_args(State)]
    wanted += [f"cause.{cause}" for cause in get_args(Cause)] + [f"reason.{one}" for one in get_args(SearchLimit)]
    wanted += [f"condition.{condition.name}" for condition in CONDITIONS]
    wanted += [f"removed.{kind.value}" for kind in Removed] + [f"seen.{seen}" for seen in get_args(Seen)]
    wanted += [f"error.{error.code}" for error in every_error(PhotoError)] + ["error.no-face", "error.worker"]
    assert [key for key in wanted if key not in keys] == []


def test_the_page_uses_texts_that_exist_and_no_others() -> None:
    static = resources.files("bauta.web").joinpath("static")
    scripts = "".join(file.read_text() for file in static.iterdir() if file.name.endswith(".js"))
    template = resources.files("bauta.web").joinpath("page.html.j2").read_text()
    used = set(re.findall(r'say\(\s*"([^"]+)"', scripts)) | set(re.findall(r't\["([^"]+)"\]', template))
    assert used - texts("en").keys() == set()
    built = ("state.", "verdict.", "headline.", "plain.", "choice.", "treatment.", "seen.", "strength.", "stage.")
    built += ("removed.", "finding.", "cause.", "reason.", "condition.", "error.", "others.", "metadata.")
    quoted = set(re.findall(r'["`]([a-z][a-z.]+)["`]', scripts + template))
    unused = [key for key in texts("en") if key not in used | quoted and not key.startswith(built)]
    assert unused == []


# The hands


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = build_stage(tmp_path_factory, monkeypatch)
    monkeypatch.setattr("bauta.faces.detection.detect_faces", made.detect)
    return made


def about(folder: Path, *people: str, **more: Any) -> dict[str, Any]:
    write_photo(folder / "a.png", *people)
    (folder / "a.png").rename(folder / "original")
    return {"folder": str(folder), "file": str(folder / "original"), "name": "a.png", **more}


def middle(path: Path) -> Any:
    """A picture's own part, without the neighbours."""
    with Image.open(path) as image:
        image.load()
        cut = image.crop((image.width // 2 - 20, image.height // 2 - 20, image.width // 2 + 20, image.height // 2 + 20))
        cut.format = image.format
    return cut


def test_hands_find_sketch_and_protect(stage: Stage, tmp_path: Path) -> None:
    hands, told = Hands(10**6, ProtectSettings(method="negative")), []
    asked = about(tmp_path, "anna", "bert", "anna", choices={"1": "protect", "2": "blur", "3": "leave"})
    seen = hands.do("look", asked, lambda word, values: told.append(word))
    assert told == ["shown"]
    assert [face["number"] for face in seen["faces"]] == [1, 2, 3]
    one, other, again = seen["people"]
    assert sum(a * b for a, b in zip(one, again, strict=True)) > seen["limit"]
    assert sum(a * b for a, b in zip(one, other, strict=True)) < seen["limit"]
    hands.do("sketch", asked, lambda word, values: None)
    result = hands.do("protect", asked, lambda word, values: None)
    assert [(face["number"], face["treatment"]) for face in result["faces"]] == [(1, "mask"), (2, "blur"), (3, "left")]
    covered = next(finding for finding in result["findings"] if finding["kind"] == "face-covered")
    assert (covered["face"], covered["cause"]) == (2, "asked")
    assert (result["file"], result["suffix"]) == ("result.png", ".png")
    for name in ("shown", "thumb", "sketch", "after"):
        assert middle(tmp_path / f"{name}.jpg").format == "JPEG"
    # Pixel by pixel: the one that was left is as it was, and the one with a mask is not.
    assert middle(tmp_path / "before-3.png").tobytes() == middle(tmp_path / "after-3.png").tobytes()
    assert middle(tmp_path / "before-1.png").tobytes() != middle(tmp_path / "after-1.png").tobytes()
    json.dumps([seen, result])  # plain values


def test_hands_keep_a_way_back_and_take_it(stage: Stage, tmp_path: Path) -> None:
    hands, silent = Hands(10**6, ProtectSettings(method="negative")), lambda word, values: None
    asked = about(tmp_path, "anna", "bert", choices={"1": "protect", "2": "blur"}, erasable=True)
    hands.do("look", asked, silent)
    with pytest.raises(UsageError, match="no key yet"):
        hands.do("protect", asked, silent)
    (tmp_path / "me.key").touch(0o600)
    (tmp_path / "me.key").write_bytes(secrets.token_bytes(32))
    asked["owner"] = str(tmp_path / "me.key")
    result = hands.do("protect", asked, silent)
    restored = hands.do("restore", {**asked, "file": str(tmp_path / result["file"])}, silent)
    with Image.open(tmp_path / "original") as one, Image.open(tmp_path / restored["file"]) as other:
        assert one.tobytes() == other.tobytes()
    (tmp_path / "me.key").write_bytes(secrets.token_bytes(32))
    with pytest.raises(WrongKey):
        Hands(10**6).do("restore", {**asked, "file": str(tmp_path / result["file"])}, silent)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux how large a process is")
def test_a_process_that_looked_at_a_large_photo_is_small_again(tmp_path: Path) -> None:
    """After 12 megapixels over two hundred megabytes stayed, most of them the detector's."""
    for name, size in (("small.jpg", (320, 240)), ("large.jpg", (4000, 3000))):
        Image.new("RGB", size, (120, 130, 140)).save(tmp_path / name)
    program = f"""
import re
from pathlib import Path
from bauta.web.hands import Hands
from bauta.web.memory import keep_little

def megabytes():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

keep_little()
hands, sizes = Hands(20_000_000), []
for name in ("small.jpg", "small.jpg", "large.jpg"):
    about = {{"folder": {str(tmp_path)!r}, "file": {str(tmp_path)!r} + "/" + name, "name": name}}
    hands.do("look", about, lambda word, values: None)
    sizes.append(megabytes())
print(sizes[2] - sizes[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100


def test_hands_refuse_large_photos_before_they_decode_them(stage: Stage, tmp_path: Path) -> None:
    asked = about(tmp_path, "anna")
    with pytest.raises(PhotoError) as caught:
        Hands(1000).do("look", asked, lambda word, values: None)
    assert caught.value.code == "photo.too-large"
    assert not (tmp_path / "shown.jpg").exists()


def test_hands_are_warm_after_a_first_step(stage: Stage) -> None:
    hands = Hands(10**6, ProtectSettings(method="negative"))
    assert [one["name"] for one in hands.do("methods", {}, lambda word, values: None)["methods"]]
    assert Negative.calls == []
    hands.do("warm", {}, lambda word, values: None)
    assert Negative.calls == [1]


def test_hands_load_each_network_once(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def counted(name: str, load: Any) -> Any:
        def one(card: Any) -> Any:
            loaded.append(f"{name} {card.name}")
            return load(card)

        return one

    for name in ("load_surrogate", "load_judge"):
        place = f"bauta.cloaking.pipeline.{name}"
        monkeypatch.setattr(place, counted(name, getattr(pipeline, name)))
    hands, silent = Hands(10**6, ProtectSettings(method="negative")), lambda word, values: None
    hands.do("warm", {}, silent)
    before = list(loaded)
    assert before
    assert len(set(before)) == len(before)
    for strength in ("low", "high"):
        asked = about(tmp_path, "anna", choices={"1": "protect"}, strength=strength)
        for kind in ("look", "sketch", "protect"):
            hands.do(kind, asked, silent)
    assert loaded == before


def test_hands_learn_a_person_and_take_the_mask_off(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch)
    for module in ("verbs", "fitting"):
        monkeypatch.setattr(f"bauta.cloaking.{module}.detect_faces", stage.detect)
    monkeypatch.setattr("bauta.cloaking.fitting.load_surrogate", lambda card: toy_surrogate(seed=len(card.name)))
    hands, silent = Hands(10**6, ProtectSettings(method="toy-veil")), lambda word, values: None
    able = {one["name"]: one for one in Hands(10**6).do("methods", {}, silent)["methods"]}
    assert able["toy-veil"] == {
        "name": "toy-veil", "summary": CARD.summary, "needs": ["fitted"],
        "fits": True, "reads": False, "restores": True, "sealed": False,
    }  # fmt: skip
    files = [str(write_photo(tmp_path / f"{n}.png", "anna")) for n in range(2)]
    mask = str(tmp_path / "me.mask")
    learned = hands.do("fit", {"method": "toy-veil", "files": files, "strength": "medium", "to": mask}, silent)
    assert learned["photos"] == 2
    (tmp_path / "p1").mkdir()
    asked = about(tmp_path / "p1", "anna", choices={"1": "protect"}, fitted=[mask])
    Hands(10**6).do("look", asked, silent)
    result = hands.do("protect", asked, silent)
    protected = {**asked, "file": str(tmp_path / "p1" / result["file"]), "method": "toy-veil"}
    restored = hands.do("restore", protected, silent)
    with Image.open(tmp_path / "p1" / "original") as one, Image.open(tmp_path / "p1" / restored["file"]) as other:
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 2
    with Image.open(tmp_path / "p1" / "original") as one, Image.open(protected["file"]) as other:
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() > 2
