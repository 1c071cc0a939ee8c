"""Pulling recognisers: from the catalogue, a card, an address, a mirror and a file, over a line that breaks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bauta.cli import run
from bauta.errors import UnknownRecognizer, UsageError, WeightsCorrupt, WeightsMissing
from bauta.faces.crop_template import ARCFACE_112
from bauta.recognizers import catalog
from bauta.recognizers.add import pull
from bauta.recognizers.calibration import threshold
from bauta.recognizers.catalog import find_card, find_pullable, list_pullable, list_recognizers
from bauta.recognizers.judges import load_judge
from recognizer_builders import CARD, linear_model, stay_in_this_process

MODEL = linear_model()
SHORT_CARD = CARD.replace(f'sha256 = "{"0" * 64}"\n', "")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    stay_in_this_process(monkeypatch)
    return tmp_path / "home"


def kept(home: Path) -> list[str]:
    """Names of all files of recognisers."""
    return sorted(path.name for path in (home / "recognizers").rglob("*") if path.is_file())


def downloads(home: Path) -> list[Path]:
    return list((home / "cache" / "downloads").iterdir())


class Server(ThreadingHTTPServer):
    """Serves `files`; cuts a body off after `cut` bytes; knows ranges and tells lengths unless told not to."""

    files: dict[str, bytes]
    requests: list[str | None]
    cut: int | None = None
    ranges = True
    lengths = True
    redirect: str | None = None
    status: int | None = None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        if self.path == "/moved" and server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        content = server.files.get(self.path)
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if content is None or server.status is not None:
            self.send_error(server.status or 404)
            return
        start = 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.cut])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.files, running.requests = {}, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def offer(
    server: Server, folder: Path, content: bytes = MODEL, *, digest: str | None = None, size: int | None = None
) -> Path:
    """A card file, and both files on the server; it tells the size unless that is 0."""
    server.files["/net.onnx"] = content
    size = len(content) if size is None else size
    told = f'sha256 = "{digest or sha256(content).hexdigest()}"\nurl = "{address(server, "/net.onnx")}"\n'
    card = SHORT_CARD + told + (f"size = {size}\n" if size else "")
    (folder / "card.toml").write_text(card)
    server.files["/card.toml"] = card.encode()
    return folder / "card.toml"


@pytest.fixture
def catalogue(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of one judge, `mine`, whose address leads nowhere; the server has the file under its name."""
    server.files["/models/net.onnx"] = MODEL
    folder = tmp_path / "pullable"
    folder.mkdir()
    (folder / "mine.toml").write_text(
        SHORT_CARD.replace('["judge", "surrogate"]', '["judge"]')
        + f'sha256 = "{sha256(MODEL).hexdigest()}"\nsize = {len(MODEL)}\nurl = "https://127.0.0.1:9/a/net.onnx?raw=1"\n'
    )
    monkeypatch.setattr(catalog, "PULLABLE", folder)
    return folder / "mine.toml"


# Cards and addresses


def test_pull_from_a_card_file(server: Server, tmp_path: Path, own_home: Path) -> None:
    steps: list[tuple[int, int]] = []
    card = offer(server, tmp_path)
    stored = pull(card, insecure_loopback=True, progress=lambda *step: steps.append(step))
    assert stored in list_recognizers()
    assert steps[-1] == (len(MODEL), len(MODEL))
    assert not downloads(own_home)


def test_pull_from_a_card_address(server: Server, tmp_path: Path) -> None:
    offer(server, tmp_path)
    assert pull(address(server, "/card.toml"), insecure_loopback=True).name == "mine"


# Downloads that break off or are wrong


@pytest.mark.parametrize("size", [None, 0])
def test_interrupted_download_is_taken_up(size: int | None, server: Server, tmp_path: Path, own_home: Path) -> None:
    card = offer(server, tmp_path, size=size)
    server.cut = 700
    with pytest.raises(WeightsMissing, match="cannot be fetched") as caught:
        pull(card, insecure_loopback=True)
    assert "goes on" in caught.value.hint
    assert [path.stat().st_size for path in downloads(own_home)] == [700]
    assert not kept(own_home)
    server.cut = None
    pull(card, insecure_loopback=True)
    assert server.requests == [None, "bytes=700-"]


def test_cut_that_only_the_size_reveals_is_taken_up(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path)
    server.cut, server.lengths = 700, False
    with pytest.raises(WeightsMissing, match=f"after 700 of {len(MODEL)} bytes"):
        pull(card, insecure_loopback=True)
    server.cut = None
    pull(card, insecure_loopback=True)
    assert server.requests == [None, "bytes=700-"]


def test_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path)
    server.cut, server.ranges = 700, False
    with pytest.raises(WeightsMissing):
        pull(card, insecure_loopback=True)
    server.cut = None
    assert pull(card, insecure_loopback=True).name == "mine"


@pytest.mark.parametrize("size", [None, 0])
def test_part_longer_than_the_file_starts_anew(
    size: int | None, server: Server, tmp_path: Path, own_home: Path
) -> None:
    card = offer(server, tmp_path, size=size)
    part = own_home / "cache" / "downloads" / f"{sha256(MODEL).hexdigest()}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"0" * 100_000)
    assert pull(card, insecure_loopback=True).name == "mine"


def test_wrong_hash_deletes_the_download(server: Server, tmp_path: Path, own_home: Path) -> None:
    card = offer(server, tmp_path, digest="1" * 64)
    with pytest.raises(WeightsCorrupt, match="SHA-256"):
        pull(card, insecure_loopback=True)
    assert not downloads(own_home)
    assert not kept(own_home)


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("difference", [-1, 1])
def test_wrong_size_deletes_the_download(
    difference: int, lengths: bool, server: Server, tmp_path: Path, own_home: Path
) -> None:
    """A server that tells no length can also mean a line that broke: then the card's larger size is waited for."""
    card = offer(server, tmp_path, size=len(MODEL) + difference)
    server.lengths = lengths
    waits = difference > 0 and not lengths
    with pytest.raises(WeightsMissing if waits else WeightsCorrupt, match="bytes"):
        pull(card, insecure_loopback=True)
    assert len(downloads(own_home)) == waits
    assert not kept(own_home)


def test_wrong_rest_deletes_the_download(server: Server, tmp_path: Path, own_home: Path) -> None:
    card = offer(server, tmp_path)
    server.cut = 700
    with pytest.raises(WeightsMissing):
        pull(card, insecure_loopback=True)
    server.cut, server.files["/net.onnx"] = None, bytes(len(MODEL))
    with pytest.raises(WeightsCorrupt, match="SHA-256") as caught:
        pull(card, insecure_loopback=True)
    assert "deleted" in caught.value.hint
    assert not downloads(own_home)


@pytest.mark.parametrize(("status", "word"), [(404, "--mirror"), (403, "--mirror"), (503, "goes on"), (429, "goes on")])
def test_refused_page(status: int, word: str, server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path)
    server.status = status
    with pytest.raises(WeightsMissing, match=f"answered {status}") as caught:
        pull(card, insecure_loopback=True)
    assert word in caught.value.hint
    assert "\n" not in caught.value.message


def test_offline(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(SHORT_CARD + f'sha256 = "{"1" * 64}"\nurl = "http://127.0.0.1:9/net.onnx"\n')
    with pytest.raises(WeightsMissing, match="cannot be fetched") as caught:
        pull(tmp_path / "card.toml", insecure_loopback=True)
    assert "--from" in caught.value.hint


# Only https


def test_only_https(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path)
    for source in (card, address(server, "/card.toml"), "ftp://example.org/card.toml", "file:///etc/passwd"):
        with pytest.raises(UsageError, match="https"):
            pull(source)
    assert not server.requests


def test_redirect_away_from_https_is_refused(server: Server, tmp_path: Path) -> None:
    server.redirect = "http://example.org/net.onnx"
    (tmp_path / "card.toml").write_text(SHORT_CARD + f'sha256 = "{"1" * 64}"\nurl = "{address(server, "/moved")}"\n')
    with pytest.raises(UsageError, match=r"example\.org"):
        pull(tmp_path / "card.toml", insecure_loopback=True)


def test_redirect_to_where_the_file_lies(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path)
    server.redirect = "/net.onnx"
    card.write_text(card.read_text().replace("/net.onnx", "/moved"))
    assert pull(card, insecure_loopback=True).sha256 == sha256(MODEL).hexdigest()


def test_redirect_in_a_circle(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path)
    server.redirect = "/moved"
    card.write_text(card.read_text().replace("/net.onnx", "/moved"))
    with pytest.raises(WeightsMissing, match="redirects"):
        pull(card, insecure_loopback=True)


# Cards that are none


def test_card_without_address_or_hash(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(SHORT_CARD + f'sha256 = "{"1" * 64}"\n')
    with pytest.raises(UsageError, match="no url"):
        pull(path)
    path.write_text(SHORT_CARD + 'url = "https://example.org/net.onnx"\n')
    with pytest.raises(UsageError, match="sha256"):
        pull(path)
    with pytest.raises(UsageError, match="card"):
        pull(tmp_path / "gone.toml")


def test_address_of_something_that_is_no_card(server: Server) -> None:
    server.files = {"/big": b"x" * 100_000, "/binary": b"\xff\xfe\x00"}
    for path, word in (("/big", "too large"), ("/binary", "not text")):
        with pytest.raises(UsageError, match=word):
            pull(address(server, path), insecure_loopback=True)


# What is here already


def test_what_is_here_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path)
    first = pull(card, insecure_loopback=True)
    assert pull(card, insecure_loopback=True) == first
    assert server.requests == [None]


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_lost_and_damaged_weights_are_fetched_again(
    content: bytes | None, server: Server, tmp_path: Path, own_home: Path
) -> None:
    card = offer(server, tmp_path)
    stored = pull(card, insecure_loopback=True)
    stored.weights.unlink()
    if content is not None:
        stored.weights.write_bytes(content)
    assert pull(card, insecure_loopback=True) == stored
    load_judge("mine")
    assert kept(own_home) == ["card.toml", "model.onnx"]
    assert not downloads(own_home)


@pytest.mark.parametrize("change", [("dim = 8", "dim = 9"), ("0.5, 0.5, 0.5", "0.4, 0.4, 0.4")])
def test_another_recognizer_of_that_name_is_refused(change: tuple[str, str], server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path)
    pull(card, insecure_loopback=True)
    card.write_text(card.read_text().replace(*change))
    with pytest.raises(UsageError, match="exists already"):
        pull(card, insecure_loopback=True)
    assert server.requests == [None]


# Mirrors and files


@pytest.mark.parametrize("place", ["/models", "/models/", "/models/{file}", "/{name}/{sha256}"])
def test_mirror(place: str, catalogue: Path, server: Server) -> None:
    server.files[f"/mine/{sha256(MODEL).hexdigest()}"] = MODEL
    assert pull("mine", mirror=address(server, place)).roles == {"judge"}
    load_judge("mine")


@pytest.mark.parametrize(
    "mirror", ["http://example.org/models", "models", "ftp://example.org", "https://a/{other}", ""]
)
def test_mirror_that_is_none(mirror: str, catalogue: Path) -> None:
    with pytest.raises(UsageError, match=r"mirror|https"):
        pull("mine", mirror=mirror)


def test_mirror_with_another_file(catalogue: Path, server: Server, own_home: Path) -> None:
    server.files["/models/net.onnx"] = bytes(len(MODEL))
    with pytest.raises(WeightsCorrupt, match="SHA-256"):
        pull("mine", mirror=address(server, "/models"))
    assert not downloads(own_home)


def test_file_fetched_by_other_means(catalogue: Path, tmp_path: Path, own_home: Path) -> None:
    file = tmp_path / "fetched"
    file.write_bytes(MODEL)
    stored = pull("mine", file=file)
    assert stored.weights.read_bytes() == file.read_bytes() == MODEL
    assert not downloads(own_home)


@pytest.mark.parametrize(("content", "word"), [(MODEL[:-1], "bytes"), (bytes(len(MODEL)), "SHA-256"), (None, "Cannot")])
def test_file_that_is_another(
    content: bytes | None, word: str, catalogue: Path, server: Server, tmp_path: Path, own_home: Path
) -> None:
    """It is refused before anything is copied; a download that broke off stays."""
    server.cut = 700
    with pytest.raises(WeightsMissing):
        pull("mine", mirror=address(server, "/models"))
    if content is not None:
        (tmp_path / "fetched").write_bytes(content)
    with pytest.raises(WeightsMissing if content is None else WeightsCorrupt, match=word):
        pull("mine", file=tmp_path / "fetched")
    assert [path.stat().st_size for path in downloads(own_home)] == [700]
    assert not kept(own_home)


def test_mirror_or_file(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mirror or from a file"):
        pull("mine", mirror="https://example.org", file=tmp_path)


# The catalogue


def test_the_catalogue_that_ships() -> None:
    for card in list_pullable():
        assert find_pullable(card.name).stem == card.name
        assert card.url.startswith("https://")
        assert card.size > 0
        assert card.roles == {"judge"}, "what is fetched judges; masks are made against what every installation has"
        assert not card.weights.exists()


def test_sface_is_read_as_opencv_reads_it() -> None:
    (card,) = (card for card in list_pullable() if card.name == "sface")
    assert (card.colour, card.template, card.dim, card.size) == ("RGB", ARCFACE_112, 128, 38_696_353)
    assert [(1 - mean) / std for mean, std in zip(card.mean, card.std, strict=True)] == pytest.approx([255] * 3)
    assert (card.mean, card.terms) == ((0, 0, 0), "Apache-2.0")


def test_unknown_names_are_told_what_there_is() -> None:
    for name in ("sfac", "../sface", ""):
        with pytest.raises((UnknownRecognizer, UsageError)):
            pull(name)
    with pytest.raises(UnknownRecognizer, match="sface"):
        pull("sfac")
    with pytest.raises(UnknownRecognizer, match="recognizers pull sface"):
        find_card("sface")
    with pytest.raises(UnknownRecognizer, match="recognizers add"):
        find_card("nobody")


class TestCommand:
    def test_without_a_name_it_shows_what_there_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["recognizers", "pull"]) == 0
        header, *rows = capsys.readouterr().out.splitlines()
        assert header.split() == ["RECOGNISER", "ROLES", "SIZE", "HERE", "NETWORK", "TERMS"]
        assert "sface       judge  38.7 MB  no    MobileNet, 9.7M  Apache-2.0" in rows
        assert run(["recognizers", "pull", "--mirror", "https://example.org"]) == 2

    def test_fetch_and_then_calibrate(
        self, catalogue: Path, server: Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for _ in range(2):
            assert run(["recognizers", "pull", "mine", "--mirror", address(server, "/models")]) == 0
            shown = capsys.readouterr().out
            assert "mine is here as judge. Its terms: none" in shown
            assert "bauta recognizers calibrate mine FOLDER" in shown
        assert run(["recognizers", "pull"]) == 0
        assert " yes " in capsys.readouterr().out

    def test_thresholds_that_are_known_are_used(
        self, catalogue: Path, tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        own_home.mkdir()
        entry = {
            "name": "mine",
            "calibration_set": "some_people",
            "calibration_sha256": "0" * 64,
            "people": 100,
            "images": 100,
            "impostor_pairs": 4950,
            "date": "2026-01-31",
            "bauta": "0.1.0",
            "cosine": {"0.01": 0.25},
        }
        (own_home / "thresholds.json").write_text(
            json.dumps({"schema": 1, "recognizers": {sha256(MODEL).hexdigest(): entry}})
        )
        (tmp_path / "fetched").write_bytes(MODEL)
        assert run(["recognizers", "pull", "mine", "--from", str(tmp_path / "fetched")]) == 0
        assert "calibrated on some_people" in capsys.readouterr().out
        assert threshold(find_card("mine"), 1e-2).cosine == 0.25

    def test_errors_are_two_lines(self, catalogue: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        server.status = 404
        assert run(["recognizers", "pull", "mine", "--mirror", address(server, "/models")]) == 6
        error, hint = capsys.readouterr().err.splitlines()
        assert "answered 404" in error
        assert "--from" in hint
