"""Bringing a recogniser of one's own, from a file and from an address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from bauta.errors import (
    BautaError,
    NumericalFailure,
    OutputError,
    UnsupportedOperator,
    UsageError,
    WeightsCorrupt,
    WeightsMissing,
)
from bauta.recognizers.add import add_recognizer, pull
from bauta.recognizers.catalog import find_card, list_recognizers
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import load_surrogate
from recognizer_builders import CARD, linear_model

SHORT_CARD = "\n".join(
    line for line in CARD.splitlines() if line.split(" ")[0] not in ("schema", "format", "weights", "sha256")
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    return tmp_path / "home"


def write(folder: Path, content: bytes, card: str = SHORT_CARD) -> tuple[Path, Path]:
    (folder / "net.onnx").write_bytes(content)
    (folder / "card.toml").write_text(card)
    return folder / "net.onnx", folder / "card.toml"


def nothing_kept(home: Path) -> bool:
    return not [path for path in (home / "recognizers").rglob("*") if path.is_file()]


def test_added_network_is_judge_and_surrogate(tmp_path: Path, own_home: Path) -> None:
    stored = add_recognizer(*write(tmp_path, linear_model()))
    assert stored.weights.is_relative_to(own_home)
    assert find_card("mine") == stored
    assert stored.sha256 == sha256(linear_model()).hexdigest()
    load_surrogate("mine")
    load_judge("mine")
    assert sorted(path.name for path in (own_home / "recognizers").iterdir()) == ["mine"]


def test_name_clash_is_refused(tmp_path: Path) -> None:
    add_recognizer(*write(tmp_path, linear_model()))
    with pytest.raises(UsageError, match="exists already"):
        add_recognizer(*write(tmp_path, linear_model(seed=1)))
    with pytest.raises(UsageError, match="exists already"):
        add_recognizer(*write(tmp_path, linear_model(), SHORT_CARD.replace('"mine"', '"dlib_resnet"')))


def test_one_network_in_two_files_is_refused(tmp_path: Path) -> None:
    add_recognizer(*write(tmp_path, linear_model()))
    again = SHORT_CARD.replace('"mine"', '"mine_too"')
    with pytest.raises(UsageError, match="same network in another file"):
        add_recognizer(*write(tmp_path, linear_model(batch="M"), again))
    add_recognizer(*write(tmp_path, linear_model(seed=1), again))


def two_outputs() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


REFUSED: dict[str, tuple[bytes, str, type[Exception]]] = {
    "no ONNX": (b"hello", SHORT_CARD, WeightsCorrupt),
    "empty": (b"", SHORT_CARD, WeightsCorrupt),
    "truncated": (linear_model()[:-30], SHORT_CARD, WeightsCorrupt),
    "other hash": (linear_model(), CARD, WeightsCorrupt),
    "other dimension": (linear_model(), SHORT_CARD.replace("dim = 8", "dim = 16"), UsageError),
    "grey input": (linear_model(channels=1), SHORT_CARD, WeightsCorrupt),
    "two outputs": (two_outputs(), SHORT_CARD, WeightsCorrupt),
    "NaN": (linear_model(poison=np.nan), SHORT_CARD, NumericalFailure),
    "operator": (linear_model(extra="Celu"), SHORT_CARD, UnsupportedOperator),
    "invalid operator": (linear_model(extra="Nonsense"), SHORT_CARD, WeightsCorrupt),
    "batch of two": (linear_model(batch=2), SHORT_CARD, WeightsCorrupt),
    "card": (linear_model(), SHORT_CARD.replace("mean", "average"), UsageError),
    "dlib": (linear_model(), SHORT_CARD + 'format = "dlib"', UsageError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_and_leaves_nothing(name: str, tmp_path: Path, own_home: Path) -> None:
    content, card, error = REFUSED[name]
    with pytest.raises(error) as caught:
        add_recognizer(*write(tmp_path, content, card))
    assert isinstance(caught.value, BautaError)
    assert caught.value.hint
    assert nothing_kept(own_home)


def test_unsupported_operator_is_fine_for_a_judge(tmp_path: Path) -> None:
    card = SHORT_CARD.replace('["judge", "surrogate"]', '["judge"]')
    add_recognizer(*write(tmp_path, linear_model(extra="Celu"), card))
    assert load_judge("mine").card.roles == {"judge"}


def test_importer_that_differs_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bauta.recognizers import onnx_operators

    monkeypatch.setitem(onnx_operators.BUILDERS, "Relu", lambda node: lambda x: x.abs())
    with pytest.raises(UnsupportedOperator, match="differs"):
        add_recognizer(*write(tmp_path, linear_model()))


def test_missing_files(tmp_path: Path) -> None:
    model, card = write(tmp_path, linear_model())
    with pytest.raises(WeightsMissing):
        add_recognizer(tmp_path / "gone.onnx", card)
    with pytest.raises(UsageError, match="card"):
        add_recognizer(model, tmp_path / "gone.toml")


def test_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        add_recognizer(*write(tmp_path, linear_model()), home=tmp_path / "file")


class Server(ThreadingHTTPServer):
    """Serves `files`; cuts a body off after `cut` bytes; knows ranges unless told not to."""

    files: dict[str, bytes]
    requests: list[str | None]
    cut: int | None = None
    ranges = True
    redirect: str | None = None


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
        if content is None:
            self.send_error(404)
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


def offer(server: Server, folder: Path, content: bytes, *, digest: str | None = None) -> Path:
    server.files["/net.onnx"] = content
    card = (
        SHORT_CARD + f'\nsha256 = "{digest or sha256(content).hexdigest()}"\nurl = "{address(server, "/net.onnx")}"\n'
    )
    (folder / "card.toml").write_text(card)
    server.files["/card.toml"] = card.encode()
    return folder / "card.toml"


def test_pull_from_a_card_file(server: Server, tmp_path: Path, own_home: Path) -> None:
    steps: list[tuple[int, int]] = []
    card = offer(server, tmp_path, linear_model())
    stored = pull(card, insecure_loopback=True, progress=lambda *step: steps.append(step))
    assert stored in list_recognizers()
    assert steps[-1] == (len(linear_model()), len(linear_model()))
    assert not list((own_home / "cache" / "downloads").iterdir())


def test_pull_from_a_card_address(server: Server, tmp_path: Path) -> None:
    offer(server, tmp_path, linear_model())
    assert pull(address(server, "/card.toml"), insecure_loopback=True).name == "mine"


def test_interrupted_download_is_taken_up(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path, linear_model())
    server.cut = 700
    with pytest.raises(WeightsMissing, match="cannot be fetched") as caught:
        pull(card, insecure_loopback=True)
    assert "goes on" in caught.value.hint
    server.cut = None
    pull(card, insecure_loopback=True)
    assert server.requests == [None, "bytes=700-"]


def test_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path, linear_model())
    server.cut, server.ranges = 700, False
    with pytest.raises(WeightsMissing):
        pull(card, insecure_loopback=True)
    server.cut = None
    assert pull(card, insecure_loopback=True).name == "mine"


def test_part_longer_than_the_file_starts_anew(server: Server, tmp_path: Path, own_home: Path) -> None:
    card = offer(server, tmp_path, linear_model())
    part = own_home / "cache" / "downloads" / f"{sha256(linear_model()).hexdigest()}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"0" * 100_000)
    assert pull(card, insecure_loopback=True).name == "mine"


def test_wrong_hash_deletes_the_download(server: Server, tmp_path: Path, own_home: Path) -> None:
    card = offer(server, tmp_path, linear_model(), digest="1" * 64)
    with pytest.raises(WeightsCorrupt, match="SHA-256"):
        pull(card, insecure_loopback=True)
    assert not list((own_home / "cache" / "downloads").iterdir())
    assert nothing_kept(own_home)


def test_missing_page(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path, linear_model())
    server.files.clear()
    with pytest.raises(WeightsMissing, match="404"):
        pull(card, insecure_loopback=True)


def test_offline(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(SHORT_CARD + f'\nsha256 = "{"1" * 64}"\nurl = "http://127.0.0.1:9/net.onnx"\n')
    with pytest.raises(WeightsMissing, match="cannot be fetched"):
        pull(tmp_path / "card.toml", insecure_loopback=True)


def test_only_https(server: Server, tmp_path: Path) -> None:
    card = offer(server, tmp_path, linear_model())
    for source in (card, address(server, "/card.toml"), "ftp://example.org/card.toml", "file:///etc/passwd"):
        with pytest.raises(UsageError, match="https"):
            pull(source)
    assert not server.requests


def test_redirect_away_from_https_is_refused(server: Server, tmp_path: Path) -> None:
    server.redirect = "http://example.org/net.onnx"
    (tmp_path / "card.toml").write_text(SHORT_CARD + f'\nsha256 = "{"1" * 64}"\nurl = "{address(server, "/moved")}"\n')
    with pytest.raises(UsageError, match=r"example\.org"):
        pull(tmp_path / "card.toml", insecure_loopback=True)


def test_card_without_address_or_hash(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(SHORT_CARD + f'\nsha256 = "{"1" * 64}"\n')
    with pytest.raises(UsageError, match="no url"):
        pull(path)
    path.write_text(SHORT_CARD + '\nurl = "https://example.org/net.onnx"\n')
    with pytest.raises(UsageError, match="sha256"):
        pull(path)
    with pytest.raises(UsageError, match="card"):
        pull(tmp_path / "gone.toml")


def test_address_of_something_that_is_no_card(server: Server) -> None:
    server.files = {"/big": b"x" * 100_000, "/binary": b"\xff\xfe\x00"}
    for path, word in (("/big", "too large"), ("/binary", "not text")):
        with pytest.raises(UsageError, match=word):
            pull(address(server, path), insecure_loopback=True)
