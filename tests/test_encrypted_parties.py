"""Encrypted matching: door, server and dealer over connections, and peers that do not behave."""

from __future__ import annotations

import datetime
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bauta.encrypted.budget import Budget
from bauta.encrypted.dealing import DealerService, RemoteTapes
from bauta.encrypted.door import Door, Match
from bauta.encrypted.encoded import PlainGallery, SealedGallery
from bauta.encrypted.exchange import Listener, calling_tls, parse_address, serving_tls
from bauta.encrypted.keys import DealerKey, DoorKey, ServerKey, generate_keys, write_keys
from bauta.encrypted.messages import Ask, Deployment, Facts, Wish
from bauta.encrypted.packing import Layout
from bauta.encrypted.quantisation import quantise
from bauta.encrypted.server import Server
from bauta.encrypted.triples import DoorTapes
from bauta.encrypted.wire import HEADER, MAGIC, Kind, Link
from bauta.errors import BautaError, NumericalFailure, OutputExists, PeerError, PeerRefused, UsageError
from encrypted_parties import door_to, faces, keys, server_of, talking

D = 128


@pytest.fixture(scope="module")
def people() -> Any:
    return faces(40, D)


@pytest.fixture
def gallery(people: Any) -> PlainGallery:
    made = PlainGallery(Layout(D, 2))
    made.add(quantise(people))
    return made


def strangers(count: int) -> Any:
    return faces(count, D, seed=99)


# What it is for


def test_a_database_answers_in_every_mode(gallery: PlainGallery, people: Any) -> None:
    probes = np.concatenate([people[7:8], strangers(1), people[39:40]])
    with door_to(server_of(gallery)) as door:
        assert door.facts.deployment is Deployment.DATABASE
        assert [one.found for one in door.ask(probes)] == [True, False, True]
        assert door.ask(probes, "identify") == [Match(True, 7), Match(False), Match(True, 39)]
        assert [one.found for one in door.ask(probes, "verify", place=39)] == [False, False, True]
        gallery.erase(7)
        assert door.ask(probes, "identify") == [Match(False), Match(False), Match(True, 39)]


def test_a_cloud_answers_and_is_enrolled_from_the_door(people: Any) -> None:
    server = server_of(SealedGallery(Layout(D, 2)))
    with door_to(server) as door:
        assert door.facts.deployment is Deployment.CLOUD
        assert door.enrol(people[:5]) == [0, 1, 2, 3, 4]
        assert door.ask(people[2:4], "identify") == [Match(True, 2), Match(True, 3)]
        door.renew(2, people[2], people[20])
        door.renew(3, people[3], None)
        assert door.ask(people[[2, 3, 20]], "identify") == [Match(False), Match(False), Match(True, 2)]
        assert server.gallery.people == 4


def test_scores_at_the_threshold_match_and_below_it_do_not(gallery: PlainGallery, people: Any) -> None:
    probe = people[:1] + 0.8 * strangers(1)
    probe /= np.linalg.norm(probe)
    score = int(quantise(probe)[0].astype(int) @ quantise(people[:1])[0].astype(int))
    for threshold, found in ((score - 2, True), (score + 2, False)):
        with door_to(server_of(gallery, threshold / 512**2)) as door:
            assert door.ask(probe)[0].found is found


def test_probes_are_refused_at_the_door(gallery: PlainGallery) -> None:
    with door_to(server_of(gallery)) as door:
        with pytest.raises(NumericalFailure):
            door.ask(np.full((1, D), np.nan))
        for wrong in (2 * strangers(1), faces(1, 64), np.zeros((0, D)), strangers(65)):
            with pytest.raises(UsageError):
                door.ask(wrong)
        assert not door.link.received > 2000, "nothing was asked"
        assert door.ask(strangers(1)) == [Match(False)]


def test_a_database_is_not_enrolled_from_a_door(gallery: PlainGallery) -> None:
    with door_to(server_of(gallery)) as door, pytest.raises(PeerRefused, match="enrols by itself"):
        door.enrol(strangers(1))


def test_masks_are_drawn_once_the_door_has_left(gallery: PlainGallery, people: Any) -> None:
    server = server_of(gallery, ahead=2)
    server.draw_ahead()
    ready = gallery._masks.count(keys()[1].public)
    assert ready == 2 * gallery.groups
    with door_to(server) as door:
        assert door.ask(people[[3, 5, 7]], "identify") == [Match(True, 3), Match(True, 5), Match(True, 7)]
        assert gallery._masks.count(keys()[1].public) == 0
    assert gallery._masks.count(keys()[1].public) == ready


# Over TCP, with a dealer on a third port


@contextmanager
def listening(answer: Callable[[socket.socket], None], tls: Any = None) -> Iterator[Listener]:
    listener = Listener(("127.0.0.1", 0), answer, tls)
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.close()
        thread.join(10)
        assert not thread.is_alive()


def test_three_parties_over_tls(gallery: PlainGallery, people: Any, tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    mine, theirs, third = keys()
    trusted = calling_tls(certificate)
    with listening(DealerService([third]).answer, serving_tls(certificate, key)) as dealer:

        def tapes(one: ServerKey) -> RemoteTapes:
            return RemoteTapes(dealer.address, one, trusted)

        server = Server(gallery, [theirs], 0.4, tapes, patience=10)
        with listening(server.answer, serving_tls(certificate, key)) as listener:
            with Door.connected(
                mine, listener.address, RemoteTapes(dealer.address, mine, trusted), tls=trusted, patience=10
            ) as door:
                assert door.ask(people[3:4], "identify") == [Match(True, 3)]
            with pytest.raises(PeerError):  # in the clear
                Door.connected(mine, listener.address, DoorTapes(third.tapes), patience=2)
    with pytest.raises(PeerError, match="cannot be reached"):
        Door.connected(mine, listener.address, DoorTapes(third.tapes), patience=2)
    with pytest.raises(UsageError, match="TLS"):
        calling_tls(tmp_path / "absent.pem")


def certified(folder: Path) -> tuple[Path, Path]:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    import ipaddress

    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_a_dealer_gives_a_tape_only_to_who_has_its_key() -> None:
    mine, theirs, third = keys()
    with listening(DealerService([third], patience=5).answer) as dealer:
        door = RemoteTapes(dealer.address, mine).tape(b"s" * 32, [3])
        server = RemoteTapes(dealer.address, theirs).tape(b"s" * 32, [3])
        (a, c), (b, d) = door.take(3), server.take(3)
        assert (a & b == c ^ d).all()
        posing = ServerKey(theirs.id, theirs.public, theirs.door, mine.dealer)  # the door asks for the server's half
        with pytest.raises(PeerError):
            RemoteTapes(dealer.address, posing).tape(b"s" * 32, [3])
        with pytest.raises(PeerRefused, match="that size"):
            RemoteTapes(dealer.address, theirs).tape(b"s" * 32, [1 << 40])
        other = generate_keys()[0]
        with pytest.raises(PeerRefused, match="not registered"):
            RemoteTapes(dealer.address, other).tape(b"s" * 32, [3])


# Peers that do not behave


def test_another_key_is_refused_in_words(gallery: PlainGallery) -> None:
    mine, _, _ = keys()
    other = generate_keys()[0]
    with pytest.raises(PeerRefused, match="not registered"), door_to(server_of(gallery), other):
        pass
    stolen_id = DoorKey(mine.id, other.secret, other.public, other.server, other.dealer)
    with pytest.raises(PeerRefused, match="not the peer's"), door_to(server_of(gallery), stolen_id):
        pass


class Recorder:
    """A connection that keeps what is sent, and may change it."""

    def __init__(self, connection: socket.socket, change: Callable[[int, bytes], bytes] = lambda n, b: b) -> None:
        self.connection, self.change, self.frames = connection, change, []

    def sendall(self, content: bytes) -> None:
        self.frames.append(content)
        self.connection.sendall(self.change(len(self.frames) - 1, content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def conversation(
    server: Server, probe: Any, change: Callable[[int, bytes], bytes] = lambda n, b: b, patience: float = 10.0
) -> tuple[list[Match], list[bytes]]:
    mine, _, dealer = keys()
    with talking(server.answer) as connection:
        recorder: Any = Recorder(connection, change)
        door = Door(mine, Link(recorder, mine.server, patience=patience), DoorTapes(dealer.tapes))
        return door.ask(probe), recorder.frames


@pytest.mark.parametrize("frame", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("place", ["header", "payload", "seal"])
def test_a_changed_byte_is_noticed(frame: int, place: str, gallery: PlainGallery, people: Any) -> None:
    def change(number: int, content: bytes) -> bytes:
        if number != frame:
            return content
        at = {"header": 9, "payload": HEADER.size, "seal": len(content) - 1}[place]
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    with pytest.raises(PeerError):
        conversation(server_of(gallery), people[:1], change)


def test_a_recorded_conversation_is_refused_when_played_again(gallery: PlainGallery, people: Any) -> None:
    budget, lines = Budget(decisions=5), list[str]()
    server = server_of(gallery, budget=budget, log=lines.append)
    matches, frames = conversation(server, people[:1])
    assert matches == [Match(True)]
    with talking(server.answer) as connection:
        connection.sendall(b"".join(frames[:3]))
        connection.settimeout(10)
        heard = b""
        with suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                heard += piece
    assert "not the peer's" in lines[0]
    assert len(heard) < 2000  # a welcome and a refusal: no answer
    assert len(budget._spent[keys()[0].id]) == 1


def test_another_version_is_refused_in_words(gallery: PlainGallery, people: Any) -> None:
    def newer(number: int, content: bytes) -> bytes:
        return content[:4] + struct.pack(">H", 2) + content[6:]

    with pytest.raises(PeerRefused, match="version 2, not 1"):
        conversation(server_of(gallery), people[:1], newer)


def test_a_length_that_lies_is_refused_before_it_is_read(gallery: PlainGallery) -> None:
    for length in (0, 1 << 20, 1 << 62):
        with talking(server_of(gallery, patience=5.0).answer) as connection:
            connection.sendall(HEADER.pack(MAGIC, 1, Kind.HELLO, 0, length))
            began = time.monotonic()
            connection.settimeout(10)
            assert b"does not follow" in connection.recv(4096)
            assert time.monotonic() - began < 4


def test_peers_that_stop_or_drip_do_not_keep_the_other_waiting(gallery: PlainGallery, people: Any) -> None:
    lines: list[str] = []
    with talking(server_of(gallery, patience=0.5, log=lines.append).answer) as connection:
        for _ in range(40):  # a byte at a time, each well within the patience
            try:
                connection.sendall(MAGIC[:1])
            except OSError:
                break
            time.sleep(0.05)
    assert any("slow" in line or "speak" in line for line in lines)

    def silent(connection: socket.socket) -> None:
        connection.recv(1)
        time.sleep(1.5)

    mine, _, dealer = keys()
    with talking(silent) as connection, pytest.raises(PeerError, match="slow"):
        Door(mine, Link(connection, mine.server, patience=0.3), DoorTapes(dealer.tapes))
    with talking(lambda connection: None) as connection, pytest.raises(PeerError):
        Door(mine, Link(connection, mine.server, patience=5), DoorTapes(dealer.tapes))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_a_server_survives_any_bytes(gallery: PlainGallery, content: bytes, framed: bool) -> None:
    server = server_of(gallery, patience=2.0, budget=Budget(decisions=1))
    with talking(server.answer) as connection:
        begin = HEADER.pack(MAGIC, 1, Kind.HELLO, 0, 49) if framed else b""
        connection.sendall(begin + content)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        heard = b""
        with suppress(ConnectionResetError):  # it had read as much as it wanted
            while piece := connection.recv(65536):
                heard += piece
    assert len(heard) < 1500
    assert b"server failed" not in heard  # nothing went wrong that was not foreseen
    assert not server._budget._spent


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**64 - 1))
def test_a_server_survives_any_wish_of_a_door_with_a_key(
    gallery: PlainGallery, wish: int, count: int, place: int
) -> None:
    with door_to(server_of(gallery, patience=0.2)) as door:
        door.link.send(Kind.ASK, struct.pack(">BHQ", wish, count, place))
        granted = wish in (1, 2, 3) and 0 < count <= 64 and (wish != 1 or place < gallery.places)
        if granted:
            door.link.receive(Kind.GRANTED, 8)
            return
        with pytest.raises(PeerRefused) as caught:
            door.link.receive(Kind.GRANTED, 8)
        assert "failed" not in caught.value.message


@given(st.binary(min_size=Facts.SIZE, max_size=Facts.SIZE))
def test_a_welcome_is_read_or_refused(content: bytes) -> None:
    good = Facts(Deployment.DATABASE, Layout(512, 4), 320, 100_000)
    assert Facts.from_bytes(good.to_bytes(bytes(32))) == good
    for one in (content, good.to_bytes(bytes(32))[:48] + content[48:]):
        try:
            made = Facts.from_bytes(one)
        except PeerError:
            continue
        assert made.places % made.layout.group == 0


def test_wishes_are_read_or_refused() -> None:
    assert Ask.from_bytes(Ask(Wish.VERIFY, 3, 9).to_bytes()) == Ask(Wish.VERIFY, 3, 9)
    with pytest.raises(PeerError):
        Ask.from_bytes(struct.pack(">BHQ", 77, 0, 0))


def test_a_gallery_that_grows_between_question_and_probe_is_noticed(gallery: PlainGallery, people: Any) -> None:
    def grow(number: int, content: bytes) -> bytes:
        if number == 2:
            gallery.add(quantise(faces(200, D, seed=5)))
        return content

    with pytest.raises(PeerError, match="changed meanwhile"):
        conversation(server_of(gallery), people[:1], grow)


def test_a_defect_of_the_server_is_not_told_to_the_door(gallery: PlainGallery, people: Any) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    lines: list[str] = []
    server = server_of(gallery, log=lines.append)
    gallery.answer = broken  # type: ignore[method-assign]
    with pytest.raises(PeerRefused, match=r"The server failed\.") as caught:
        conversation(server, people[:1])
    assert "secret" not in str(caught.value)
    assert "secret detail" in lines[0]


# Budgets and keys


def test_keys_that_come_and_go_are_forgotten_and_seldom_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bauta.encrypted.budget.MOST_KEYS", 10)
    now, looked = [0.0], []
    budget = Budget(decisions=1, seconds=10, clock=lambda: now[0])
    budget._tidy_at = 10

    class Noting(dict[bytes, deque[float]]):
        def items(self) -> Any:
            looked.append(len(self))
            return super().items()

    budget._spent = Noting()
    for number in range(100):
        budget.spend(b"%d" % number, 1)
    assert looked == [11, 23, 47, 95]
    with pytest.raises(PeerError):
        budget.spend(b"3", 1)
    now[0] = 20.0
    for number in range(200, 300):
        budget.spend(b"%d" % number, 1)
    assert len(budget._spent) < 150
    budget.spend(b"3", 1)


def test_budgets_count_spans_totals_and_keys_apart() -> None:
    now = [0.0]
    budget = Budget(decisions=3, seconds=10, total=5, clock=lambda: now[0])
    budget.spend(b"one", 3)
    with pytest.raises(PeerError, match="3 decisions in 10 seconds"):
        budget.spend(b"one", 1)
    budget.spend(b"two", 3)
    now[0] = 10.0
    budget.spend(b"one", 2)
    with pytest.raises(PeerError, match="All 5"):
        budget.spend(b"one", 1)
    for wrong in ({"decisions": 0}, {"seconds": 0}, {"total": 0}):
        with pytest.raises(UsageError):
            Budget(**wrong)  # type: ignore[arg-type]


def test_keys_come_back_from_their_files_and_nobody_elses_eyes(tmp_path: Path) -> None:
    paths = write_keys(tmp_path / "keys")
    kinds: tuple[Any, ...] = (DoorKey, ServerKey, DealerKey)
    made = [kind.read(path) for kind, path in zip(kinds, paths, strict=True)]
    assert len({key.id for key in made}) == 1
    assert made[0].server == made[1].door
    assert made[0].dealer == made[2].door
    assert made[1].dealer == made[2].server
    for kind, path in zip(kinds, paths, strict=True):
        assert path.stat().st_mode & 0o077 == 0
        content = path.read_bytes()
        with pytest.raises(OutputExists):
            write_keys(tmp_path / "keys")
        for other in set(kinds) - {kind}:
            with pytest.raises(UsageError, match="key, not a"):
                other.read(path)
        for wrong in (content[:-1], content[:20], b"", content[:30] + b"\x77" + content[31:], bytes(2 << 20)):
            copy = tmp_path / "copy"
            copy.write_bytes(wrong)
            copy.chmod(0o600)
            with pytest.raises(UsageError):
                kind.read(copy)
        path.chmod(0o644)
        with pytest.raises(UsageError, match="chmod"):
            kind.read(path)
    with pytest.raises(UsageError):
        DoorKey.read(tmp_path / "absent")


def test_servers_that_make_no_sense_are_refused(gallery: PlainGallery) -> None:
    _, theirs, _ = keys()
    other = generate_keys()[1]
    for settings_ in ({"keys": []}, {"cosine": 0.0}):
        with pytest.raises(UsageError):
            server_of(gallery, **settings_)
    with pytest.raises(UsageError, match="one door"):
        server_of(SealedGallery(Layout(D, 2)), keys=[theirs, other])
    for wrong in ("", "host", ":80", "host:", "host:x", "host:99999"):
        with pytest.raises(UsageError):
            parse_address(wrong)
    with listening(lambda connection: None) as taken, pytest.raises(UsageError, match="listened"):
        Listener(taken.address, lambda connection: None)
    assert issubclass(PeerRefused, BautaError)
