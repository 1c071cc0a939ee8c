"""The face service over HTTP: who may do what, what becomes of it, and what is refused."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.routing import APIRoute
from PIL import Image

from bauta.errors import ServiceRefused, UsageError
from bauta.gallery import tables
from bauta.gallery.service import FaceService
from bauta.server.access import SCOPES, ServerLimits, make_key, remove_key
from bauta.server.app import make_app
from bauta.server.client import Client
from bauta.server.serve import listen, serve
from store_builders import new_service, photo

OPEN = {"/health", "/openapi.json"}
DOCUMENT = Path(__file__).resolve().parent.parent / "docs/service.md"
CONTAINER = Path(__file__).resolve().parent.parent / "Containerfile"
PNG = {"Content-Type": "image/png"}


COUNTS = {"active": 1, "revoked": 0, "waiting": False}


class Site:
    """A service with a key of all scopes, and how to ask it."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.service: FaceService = new_service(folder)
        self.key = make_key(self.service.store, "acme", SCOPES).secret
        self.app = make_app(self.service, ServerLimits(**limits))
        listening = listen("127.0.0.1", 0, secure=False)
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, log_level="critical", access_log=False, lifespan="off", ws="none")
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.http = httpx.Client(base_url=self.address, timeout=60)
        self._clients: list[Client] = []

    def close(self) -> None:
        for one in (self.http, *self._clients):
            one.close()
        self._server.should_exit = True
        self._thread.join(timeout=30)
        self.service.store.close()

    def client(self, key: str = "") -> Client:
        self._clients.append(Client(self.address, key or self.key))
        return self._clients[-1]

    def routes(self) -> Iterator[tuple[str, str]]:
        for route in self.app.routes:
            if isinstance(route, APIRoute) and route.path not in OPEN:
                for method in route.methods:
                    yield method, route.path.replace("{subject}", "ann")

    def ask(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        if path.endswith("/revoke"):
            more.setdefault("json", {"grace_days": 1})
        elif method == "POST" and not path.endswith("/restore"):
            more.setdefault("content", photo(1))
            headers |= PNG
        return self.http.request(method, path, headers=headers | more.pop("headers", {}), **more)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes services on one gallery, with limits."""
    made: list[Site] = []

    def one(**limits: int) -> Site:
        made.append(Site(tmp_path, **limits))
        return made[-1]

    yield one
    for each in made:
        each.close()


@pytest.fixture
def site(make: Callable[..., Site]) -> Site:
    return make()


def refused(call: Any, *given: Any, **by: Any) -> tuple[int, str]:
    with pytest.raises(ServiceRefused) as caught:
        call(*given, **by)
    assert caught.value.hint
    return caught.value.status, caught.value.kind


def test_a_subject_from_enrolment_to_erasure(site: Site) -> None:
    client = site.client()
    assert len(client.enrol("ann", photo(1))) == 32
    client.enrol("bob", photo(2, "JPEG"))
    assert client.match("ann", photo(1))
    assert not client.match("ann", photo(2))
    assert client.search(photo(2), force=True).subject == "bob"
    assert client.search(photo(3), force=True).subject is None
    assert client.states("ann") == {**COUNTS, "epsilon_spent": None, "epsilon_limit": None}
    assert client.revoke("ann", 30) == 1
    assert not client.match("ann", photo(1))
    assert client.restore("ann") == 1
    assert client.match("ann", photo(1))
    assert client.renew("ann") == 1
    assert client.match("ann", photo(1))
    assert client.renew("ann", photo(5)) == 1
    assert (client.match("ann", photo(1)), client.match("ann", photo(5))) == (False, True)
    receipt = client.erase("ann")
    assert receipt.state == "erased"
    assert refused(client.match, "ann", photo(5)) == (404, "gallery.unknown-subject")
    assert refused(client.erase, "ann") == (404, "gallery.unknown-subject")
    assert client.stats() == {"subjects": 1, "active": 1, "revoked": 0, "waiting": 0, "erasures_pending": 0}
    lines = client.audit(most=1000)
    assert [one["action"] for one in lines][:3] == ["key", "enrol", "enrol"]
    [erased] = [one for one in lines if one["number"] == receipt.number]
    assert (erased["action"], erased["digest"]) == ("erase", receipt.digest)
    assert client.audit(after=receipt.number) == []
    assert site.service.store.verify() == []
    assert (
        'bauta_requests_total{route="/v1/subjects/{subject}/match",status="200"} 7'
        in site.ask("GET", "/metrics", site.key).text
    )


# Every route


def test_no_route_answers_without_a_key(site: Site) -> None:
    routes = list(site.routes())
    assert len(routes) == 11
    ended = make_key(site.service.store, "acme", SCOPES)
    remove_key(site.service.store, ended.id)
    ident = site.key.split("_")[1]
    wrong = [
        None,
        "bauta",
        "bauta_x_y",
        f"bauta_{ident}_wrong",
        site.key[:-1],
        site.key + "x",
        ended.secret,
        "é" * 9,
    ]
    for method, path in routes:
        for key in wrong:
            headers = {} if key is None else {"Authorization": f"Bearer {key}".encode("latin-1")}
            answer = site.ask(method, path, None, headers=headers)
            assert answer.status_code == 401, (method, path, key)
            assert answer.headers["www-authenticate"] == "Bearer"
        for scheme in ("Basic", "Token"):
            headers = {"Authorization": f"{scheme} {site.key}"}
            assert site.ask(method, path, None, headers=headers).status_code == 401
        assert site.ask(method, f"{path}?key={site.key}").status_code == 401
        broken = {"Content-Type": "application/json"}
        assert site.ask(method, path, None, headers=broken, content=b"{bad").status_code == 401


def test_no_route_answers_a_key_of_other_scopes(site: Site) -> None:
    needed = {}
    keys = {scope: make_key(site.service.store, "acme", [scope]).secret for scope in SCOPES}
    for method, path in site.routes():
        allowed = {scope for scope, key in keys.items() if site.ask(method, path, key).status_code != 403}
        assert len(allowed) == 1, (method, path)
        needed[method, path] = allowed.pop()
    assert set(needed.values()) == set(SCOPES) - {"admin"}  # which is for the page: see test_server_admin.py


def test_no_route_shows_or_changes_another_tenant(site: Site) -> None:
    mine = site.client()
    mine.enrol("ann", photo(1))
    before = mine.audit()
    theirs = make_key(site.service.store, "other", SCOPES).secret
    for method, path in sorted(site.routes(), key=lambda one: one[1].endswith("records")):
        answer = site.ask(method, path, theirs)
        if "ann" in path and not path.endswith("records"):
            assert answer.status_code == 404, path
    other = site.client(theirs)
    assert other.stats()["subjects"] == 1  # their own ann, whom /records made
    assert other.search(photo(1)).records == 1
    assert {one["actor"] for one in other.audit()} <= {"cli", theirs.split("_")[1]}
    assert mine.states("ann") == {**COUNTS, "epsilon_spent": None, "epsilon_limit": None}
    other.erase("ann")
    assert mine.match("ann", photo(1))
    assert [one for one in mine.audit() if one["action"] not in ("match",)] == before


def test_keys_end(site: Site) -> None:
    key = make_key(site.service.store, "acme", ["audit"], days=1).secret
    assert site.ask("GET", "/v1/stats", key).status_code == 200
    now = time.time()
    site.service.store._clock = lambda: now + 86_401
    assert site.ask("GET", "/v1/stats", key).status_code == 401


def test_rights_of_a_key_cannot_be_edited_and_keys_are_not_in_the_files(site: Site, tmp_path: Path) -> None:
    key = make_key(site.service.store, "acme", ["audit"]).secret
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert key.split("_", 2)[2].encode() not in content
    with tables.writing(site.service.store.engine) as connection:
        connection.exec_driver_sql("UPDATE api_keys SET scopes = 'audit erase' WHERE scopes = 'audit'")
    assert site.ask("GET", "/v1/stats", key).status_code == 401
    for scopes, days in ((["everything"], 1), ([], 1), (["audit"], 0)):
        with pytest.raises(UsageError):
            make_key(site.service.store, "acme", scopes, days)


def test_nothing_is_answered_before_the_service_is_ready(site: Site) -> None:
    site.service.ready = False
    for method, path in site.routes():
        answer = site.ask(method, path, site.key)
        assert answer.status_code == 503, path
        assert answer.headers["retry-after"]
    assert site.http.get("/health").status_code == 503
    site.service.ready = True
    assert site.http.get("/health").json() == {"status": "ok"}


def test_a_store_that_fails_answers_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.client().enrol("ann", photo(1))
    with tables.writing(site.service.store.engine) as connection:
        connection.exec_driver_sql("ALTER TABLE audit RENAME TO lost")
    for method, path in site.routes():
        assert site.ask(method, path, site.key).status_code == 503, path
    monkeypatch.setattr(site.service.protector, "probe", lambda image: 1 / 0)
    with tables.writing(site.service.store.engine) as connection:
        connection.exec_driver_sql("ALTER TABLE lost RENAME TO audit")
    answer = site.ask("POST", "/v1/subjects/ann/match", site.key)
    assert answer.status_code == 500
    assert "division" not in answer.text


# What is sent


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\xff\xd8\xff" + b"\0" * 100, photo(1)[:200], photo(1)[:-30], b"<svg/>", b"GIF89a" + b"\0" * 50],
)
def test_what_is_no_photo_is_refused_and_nothing_stored(site: Site, content: bytes) -> None:
    for path in ("/v1/subjects/ann/records", "/v1/search"):
        assert site.ask("POST", path, site.key, content=content).status_code == 422
    assert site.client().stats()["subjects"] == 0


def test_large_bodies_are_refused_while_they_arrive(make: Callable[..., Site]) -> None:
    site = make(megabytes=1)
    taken = []

    def parts() -> Iterator[bytes]:
        for _ in range(64):
            taken.append(1)
            yield bytes(1 << 16)

    path = "/v1/subjects/ann/records"
    assert site.ask("POST", path, site.key, content=bytes((1 << 20) + 1)).status_code == 413
    answer = site.ask("POST", path, site.key, content=parts(), headers={"Transfer-Encoding": "chunked"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too-large"


def test_pixels_are_counted_before_they_are_decoded(site: Site) -> None:
    stream = io.BytesIO()
    Image.new("L", (9000, 9000)).save(stream, "PNG")
    answer = site.ask("POST", "/v1/search", site.key, content=stream.getvalue())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "photo.too-large")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/octet-stream", "image/svg+xml", "multipart/form-data"])
def test_other_kinds_are_refused(site: Site, kind: str) -> None:
    answer = site.ask("POST", "/v1/search", site.key, headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("subject", ["%20", ".", "..%2f", "-a", "a%00", "a" * 129, "a%0a", "%ff", "é"])
def test_names_are_plain(site: Site, subject: str) -> None:
    assert site.ask("GET", f"/v1/subjects/{subject}", site.key).status_code in (404, 405, 422)
    assert site.ask("POST", f"/v1/subjects/{subject}/records", site.key).status_code in (404, 405, 422)


@pytest.mark.parametrize(
    "wish",
    [
        *("{}", "[]", "", "{", "null", '{"grace_days": -1}', '{"grace_days": 1.5}', '{"grace_days": "1"}'),
        *('{"grace_days": 1, "more": 1}', '{"grace_days": 1e400}', b"\xff\xfe"),
    ],
)
def test_bodies_are_checked(site: Site, wish: str | bytes) -> None:
    site.client().enrol("ann", photo(1))
    answer = site.ask("POST", "/v1/subjects/ann/revoke", site.key, content=wish, json=None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")


def test_a_face_under_another_name_is_told(site: Site) -> None:
    client = site.client()
    client.enrol("ann", photo(1))
    assert refused(client.enrol, "eve", photo(1)) == (409, "gallery.already-enrolled")
    assert client.stats()["subjects"] == 1
    client.enrol("ann", photo(1))  # more photos of one subject are welcome
    client.enrol("eve", photo(1), known=True)
    assert client.stats() == {"subjects": 2, "active": 3, "revoked": 0, "waiting": 0, "erasures_pending": 0}


def test_a_request_that_is_sent_twice_is_done_once(site: Site) -> None:
    ask = {"headers": {"Idempotency-Key": "abcdefgh"}}
    one, two = (site.ask("POST", "/v1/subjects/ann/records", site.key, **ask) for _ in range(2))
    assert one.json() == two.json()
    assert site.client().stats()["active"] == 1
    assert site.ask("POST", "/v1/subjects/bob/records", site.key, **ask).status_code == 409
    assert site.ask("POST", "/v1/subjects/bob/records", site.key, headers={"Idempotency-Key": "a"}).status_code == 422


def test_searches_that_mean_nothing_are_refused(site: Site) -> None:
    client = site.client()
    client.enrol("ann", photo(1))
    client.enrol("bob", photo(2))
    site.service.side.fmr = 0.03
    assert refused(client.search, photo(1)) == (409, "gallery.too-many")
    forced = client.search(photo(1), force=True)
    assert (forced.subject, forced.records) == ("ann", 2)
    assert forced.fpir == pytest.approx(0.0591)
    site.service.side.fmr = 0.01
    assert client.search(photo(1)).subject == "ann"


def test_keys_get_so_many_requests_and_comparisons(make: Callable[..., Site]) -> None:
    site = make(requests=9, comparisons=3)
    client = site.client()
    client.enrol("ann", photo(1))
    for _ in range(3):
        client.match("ann", photo(1))
    assert refused(client.match, "ann", photo(1)) == (429, "too-often")
    assert refused(client.match, "nobody", photo(1)) == (404, "gallery.unknown-subject")
    for _ in range(3):
        client.stats()
    assert refused(client.stats) == (429, "too-often")
    other = site.client(make_key(site.service.store, "acme", SCOPES).secret)
    assert other.match("ann", photo(1))


def test_two_services_on_one_gallery_see_each_other(make: Callable[..., Site]) -> None:
    one, two = make(), make()
    first, second = one.client(), two.client(one.key)
    first.enrol("ann", photo(1))
    assert second.match("ann", photo(1))
    second.enrol("bob", photo(2))
    assert first.search(photo(2), force=True).subject == "bob"
    first.erase("bob")
    assert second.search(photo(2), force=True).subject is None
    second.revoke("ann", 1)
    assert not first.match("ann", photo(1))
    assert len(one.service.side.index or ()) == len(two.service.side.index or ()) == 0


def test_many_at_once_lose_nothing(site: Site) -> None:
    failed: list[object] = []

    def work(number: int) -> None:
        client = site.client()
        try:
            client.enrol(f"person-{number}", photo(100 + number))
            assert client.match(f"person-{number}", photo(100 + number))
            if number % 3 == 0:
                assert client.erase(f"person-{number}").state in ("erased", "pending")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert site.service.store.finish()
    assert site.client().stats() == {"subjects": 8, "active": 8, "revoked": 0, "waiting": 0, "erasures_pending": 0}
    assert site.service.store.verify() == []


# What it says of itself


def test_answers_forbid_to_be_kept(site: Site) -> None:
    answer = site.http.get("/health")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert site.http.get("/docs").status_code == 404


def test_the_examples_of_openapi_are_true(site: Site) -> None:
    document = site.http.get("/openapi.json").json()
    site.service.side.fmr = 1e-3
    made = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            names = {one["name"]: one for one in operation.get("parameters", ())}
            if "subject" in names:
                path_given = path.replace("{subject}", names["subject"]["schema"]["examples"][0])
                site.ask("POST", path_given.rsplit("/", path.count("/") - 3)[0] + "/records", site.key)
            else:
                path_given = path
            body = operation.get("requestBody", {}).get("content", {})
            more: dict[str, Any] = {}
            if "application/json" in body:
                name = body["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
                more["json"] = document["components"]["schemas"][name]["examples"][0]
            answer = site.ask(method.upper(), path_given, site.key, **more)
            assert answer.is_success, (method, path_given, answer.text)
            made[method, path] = answer
            said = operation["responses"][str(answer.status_code)]["content"].get("application/json", {})
            if said.get("schema", {}).get("$ref"):
                schema = document["components"]["schemas"][said["schema"]["$ref"].rsplit("/", 1)[1]]
                assert set(answer.json()) == set(schema["properties"])
    assert len(made) == 12


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_schemathesis_finds_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVED, encoding="utf-8")
    found = subprocess.run(
        [sys.executable, str(tmp_path / "server.py"), str(Path(__file__).parent), str(tmp_path)],
        capture_output=True, text=True, timeout=1100, check=False,
    )  # fmt: skip
    print(found.stdout[-6000:])
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]


SERVED = r'''
import subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_server import Site

folder = Path(sys.argv[2]) / "served"
folder.mkdir()
site = Site(folder, requests=10**6, comparisons=10**6)
(folder / "hooks.py").write_text(f"""
import sys
sys.path.insert(0, {sys.argv[1]!r})
import schemathesis
from hypothesis import strategies as st
from store_builders import photo
photos = st.sampled_from([photo(seed) for seed in range(6)])
for kind in ("image/jpeg", "image/png", "image/webp"):
    schemathesis.openapi.media_type(kind, photos)
""")
address = site.address
done = subprocess.run(
    [str(Path(sys.executable).with_name("schemathesis")), "run", f"{address}/openapi.json", "--checks", "all",
     "-H", f"Authorization: Bearer {site.key}", "--max-examples", "40", "--seed", "1", "--no-color"],
    cwd=folder, env={"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder) + ":" + ":".join(sys.path),
                     "PATH": "/usr/bin:/bin", "HOME": str(folder)},
)
print(site.service.store.verify())
sys.exit(done.returncode or bool(site.service.store.verify()))
'''


@pytest.mark.skipif(not DOCUMENT.is_file(), reason="the documentation is not part of an installation")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_of_the_documentation_work(site: Site, tmp_path: Path) -> None:
    site.service.side.fmr = 1e-3
    (tmp_path / "me.jpg").write_bytes(photo(1, "JPEG"))
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("curl ")]
    assert len(lines) == 9
    for line in lines:
        words = shlex.split(line.replace("$KEY", site.key).replace("http://127.0.0.1:7500", site.address))
        said = subprocess.run(
            [*words, "-sS", "--fail-with-body"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, (line, said.stdout, said.stderr)
        assert "error" not in json.loads(said.stdout)
    assert site.client().stats()["subjects"] == 0


@pytest.mark.skipif(not CONTAINER.is_file(), reason="the container file is not part of an installation")
def test_the_container_file_starts_what_there_is() -> None:
    """It is not built here: what it copies is there, it is nobody's root, and its command has the options it names."""
    lines = CONTAINER.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    said = [line.partition(" ")[::2] for line in lines if line and not line.startswith("#")]
    for word, rest in said:
        if word == "COPY":
            assert all((CONTAINER.parent / source).exists() for source in rest.split()[:-1])
    assert ("USER", "bauta") in said
    [entry] = [json.loads(rest) for word, rest in said if word == "ENTRYPOINT"]
    options = [word for word in entry if word.startswith("--")]
    known = subprocess.run(
        [sys.executable, "-m", *entry[:2], "--help"], capture_output=True, text=True, check=True,
        env={**os.environ, "COLUMNS": "200"},
    ).stdout  # fmt: skip
    assert options
    assert all(option in known for option in options)
    volumes = next(json.loads(rest) for word, rest in said if word == "VOLUME")
    places = [word for word in entry if word.startswith("/")]
    assert [any(place.startswith(one) for one in volumes) for place in places] == [True, True, False]


def test_headers_have_an_end_whatever_else_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn takes httptools where that is installed, which reads headers until memory is full."""

    class Taken(Exception):
        pass

    def config(app: object, **options: object) -> object:
        raise Taken(options["http"], options["h11_max_incomplete_event_size"])

    monkeypatch.setattr(uvicorn, "Config", config)
    service = new_service(tmp_path)
    with pytest.raises(Taken) as raised, listen("127.0.0.1", 0, secure=False) as listening:
        serve(service, listening, ServerLimits())
    assert raised.value.args == ("h11", 16384)
    service.store.close()


def test_it_listens_where_nobody_else_hears() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(UsageError, match="in the clear"):
            listen(host, 0, secure=False)
    with pytest.raises(UsageError, match="not an address"):
        listen("localhost", 0, secure=True)
    listen("127.0.0.1", 0, secure=False).close()


def test_failures_are_json(site: Site) -> None:
    assert site.ask("PATCH", "/v1/subjects/ann", site.key).headers["allow"] == "DELETE, GET"
    for method, path in (("GET", "/nowhere"), ("PUT", "/v1/search"), ("GET", "/v1/subjects/nobody")):
        answer = site.ask(method, path, site.key)
        assert set(json.loads(answer.text)["error"]) == {"code", "message", "hint"}
