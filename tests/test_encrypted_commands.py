"""Encrypted matching on the command line: three processes, and what a search costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bauta.cli import run
from bauta.encrypted.cost import cost
from bauta.errors import PeerError, UsageError
from bauta.rates import fpir, largest_gallery
from encrypted_parties import faces


def background(folder: Path, log: str, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    """A command that listens, and where."""
    path = folder / log
    with path.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "bauta", "encrypted", *arguments], cwd=folder, stdout=stream, stderr=stream
        )
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(("server", "dealer")):
                return process, line.split()[1]
        time.sleep(0.1)
    process.kill()
    raise AssertionError(path.read_text(encoding="utf-8"))


def test_three_processes_answer_a_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    people = faces(60, 128)
    np.save("gallery.npy", people)
    np.save("probes.npy", np.concatenate([people[9:10], faces(1, 128, seed=4)]))
    assert run(["encrypted", "keygen", "-o", "keys"]) == 0
    dealer, dealing = background(
        tmp_path, "dealer.txt", "dealer", "--key", "keys/dealer.key", "--listen", "127.0.0.1:0"
    )
    serving = ["--listen", "127.0.0.1:0", "--dealer", dealing, "--threshold", "0.5"]
    server, at = background(tmp_path, "server.txt", "serve", "gallery.npy", "--key", "keys/server.key", *serving)
    asking = [
        "encrypted",
        "query",
        "probes.npy",
        "--key",
        "keys/door.key",
        "--server",
        at,
        "--dealer",
        dealing,
        "--json",
    ]
    try:
        capsys.readouterr()
        assert run([*asking, "--mode", "identify"]) == 0
        assert json.loads(capsys.readouterr().out) == [
            {"face": "0", "found": True, "place": 9},
            {"face": "1", "found": False, "place": None},
        ]
        assert run([*asking, "--mode", "verify", "--place", "8"]) == 0
        assert [one["found"] for one in json.loads(capsys.readouterr().out)] == [False, False]
        dealer.kill()
        dealer.wait()
        assert run(asking) == PeerError.exit_code
        assert json.loads(capsys.readouterr().out)["error"]["code"].startswith("peer")
    finally:
        for process in (server, dealer):
            process.kill()
            process.wait()


def test_a_gallery_where_a_match_means_nothing_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    assert run(["encrypted", "keygen"]) == 0
    np.save("gallery.npy", faces(100, 128))
    assert run(["encrypted", "serve", "gallery.npy", "--key", "keys/server.key", "--fmr", "0.01"]) == 2
    assert "63% of strangers" in capsys.readouterr().err
    for wrong in (
        ["serve", "--key", "keys/server.key"],
        ["serve", "gallery.npy", "--cloud", "--key", "keys/server.key"],
        ["serve", "gallery.npy", "--key", "keys/door.key", "--threshold", "0.5"],
        ["query", "gallery.npy", "--key", "keys/door.key", "--mode", "verify"],
        ["query", "absent.npy", "--key", "keys/door.key"],
        ["cost", "0"],
    ):
        assert run(["encrypted", *wrong]) == 2


def test_costs_are_those_of_the_layout_and_say_where_decisions_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["encrypted", "cost", "1000000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["upload"] <= 9e6
    assert found["download"] <= 60e6
    assert found["comparison"] + found["tape"] <= 90e6
    assert found["memory"] <= 10e9
    assert found["rates"][2]["fpir"] == pytest.approx(1)
    assert run(["encrypted", "cost", "1000000"]) == 0
    assert "means nothing" in capsys.readouterr().out
    assert run(["encrypted", "cost", "100"]) == 0
    assert "means nothing" not in capsys.readouterr().out
    assert fpir(10_000, 1e-4) == pytest.approx(0.632, abs=0.001)
    assert fpir(largest_gallery(1e-6, 0.01), 1e-6) <= 0.01
    assert cost(100_000_000).upload > cost(1_000_000).upload
    for people in (0, 100_000_001):
        with pytest.raises(UsageError):
            cost(people)
