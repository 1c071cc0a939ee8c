"""Deployment keys: made, read, refused, and what is derived from them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from bauta.errors import BautaError, GalleryDamaged, OutputExists, UsageError, WrongKey
from bauta.gallery.sealing import WrappedKey, new_data_key, new_id
from bauta.keys import DeploymentKey, ScryptCost, create_key_file
from gallery_builders import CHEAP, key_of

PHRASE = "six words drawn at random here"


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_a_key_file_is_random_private_and_never_overwritten(tmp_path: Path) -> None:
    paths = [tmp_path / "one.key", tmp_path / "two.key"]
    for path in paths:
        create_key_file(path)
    contents = [path.read_bytes() for path in paths]
    assert contents[0] != contents[1]
    assert [len(content) for content in contents] == [32, 32]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    with pytest.raises(OutputExists, match="never overwritten"):
        create_key_file(paths[0])
    assert paths[0].read_bytes() == contents[0]
    assert sorted(tmp_path.iterdir()) == sorted(paths)  # nothing else is left there
    assert DeploymentKey.read(paths[0]).secret == contents[0]


def test_a_link_to_nothing_is_no_free_place_for_a_key(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputExists):
        create_key_file(tmp_path / "link")


WEAK = {
    "empty": (b"", "0 bytes"),
    "short": (secrets.token_bytes(31), "31 bytes"),
    "zeros": (bytes(32), "pattern"),
    "one byte": (b"\xe9" * 64, "pattern"),
    "two bytes": (b"\x00\xff" * 16, "pattern"),
    "half twice": (bytes.fromhex("c4f1039a77e85b2260bd9e14d35f8ac1") * 2, "pattern"),
    "a third thrice": (bytes.fromhex("c4f1039a77e85b2260bd9e") * 3, "pattern"),
    "counting": (bytes(range(128, 160)), "pattern"),
    "counting down by seven": (bytes((255 - 7 * step) % 256 for step in range(40)), "pattern"),
    "few values": (bytes.fromhex("80818283848586878889") * 3 + b"\x81\x84\x80", "pattern"),
    "zeros and a little": (bytes(40) + secrets.token_bytes(8), "pattern"),
    "a passphrase": (b"correct horse battery staple, twice over", "text"),
    "a short passphrase": (b"hunter2\n", "text"),
    "hexadecimal": (secrets.token_hex(32).encode(), "text"),
    "text with accents": ("Übung macht den Meister, sagt man dort.\n".encode(), "text"),
    "a photo": (secrets.token_bytes(5000), "longer than 1024"),
}


@pytest.mark.parametrize("name", WEAK)
def test_weak_keys_are_refused(tmp_path: Path, name: str) -> None:
    content, words = WEAK[name]
    with pytest.raises(UsageError, match=words) as caught:
        DeploymentKey.read(private(tmp_path / "weak.key", content))
    assert "weak.key" in caught.value.message
    assert ("--passphrase-file" in caught.value.hint) == (words == "text")


def test_random_keys_are_never_refused() -> None:
    for number in range(2000):
        DeploymentKey("file", secrets.token_bytes(32 + number % 64))


WEAK_PHRASES = {
    "empty": ("", "0 characters"),
    "short": ("hunter2", "7 characters"),
    "eleven": ("abcdefgh ij", "11 characters"),
    "one letter": ("a" * 40, "repeats"),
    "few letters": ("abab baba abba", "repeats"),
    "a word twice": ("password" * 2, "repeats"),
    "the alphabet": ("abcdefghijklmnop", "repeats"),
}


@pytest.mark.parametrize("name", WEAK_PHRASES)
def test_weak_passphrases_are_refused(name: str) -> None:
    text, words = WEAK_PHRASES[name]
    with pytest.raises(UsageError, match=words):
        DeploymentKey.from_passphrase(text)


def test_a_passphrase_is_one_line_of_a_text_file(tmp_path: Path) -> None:
    for ending in ("", "\n", "\r\n"):
        read = DeploymentKey.read_passphrase(private(tmp_path / "phrase", (PHRASE + ending).encode()))
        assert read.same_as(DeploymentKey.from_passphrase(PHRASE))
    for content, words in (
        (secrets.token_bytes(20) + b"\xff", "does not hold text"),
        (f"{PHRASE}\n{PHRASE}\n".encode(), "not one line"),
        (f"{PHRASE}\n\n".encode(), "not one line"),
        (b"x" * 1100, "longer than 1024"),
    ):
        with pytest.raises(UsageError, match=words):
            DeploymentKey.read_passphrase(private(tmp_path / "phrase", content))


def test_a_passphrase_is_the_same_however_its_accents_are_typed() -> None:
    composed, decomposed = (f"{e}tude sur le mot perdu" for e in ("\u00e9", "e\u0301"))
    assert composed != decomposed
    assert DeploymentKey.from_passphrase(composed).same_as(DeploymentKey.from_passphrase(decomposed))


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize(
    ("mode", "allowed"),
    [(0o600, True), (0o400, True), (0o640, True), (0o644, False),
     (0o604, False), (0o660, False), (0o602, False), (0o777, False)],
)  # fmt: skip
def test_a_key_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int, allowed: bool) -> None:
    for read, content in ((DeploymentKey.read, key_of().secret), (DeploymentKey.read_passphrase, PHRASE.encode())):
        path = private(tmp_path / "file", content)
        path.chmod(mode)
        if allowed:
            assert read(path).secret == content
        else:
            with pytest.raises(UsageError, match=f"open to others .* {mode:04o}"):
                read(path)
        path.unlink()


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        for read in (DeploymentKey.read, DeploymentKey.read_passphrase):
            with pytest.raises(UsageError, match="cannot be read"):
                read(path)


def test_a_secret_is_not_shown() -> None:
    for key in (key_of(), DeploymentKey.from_passphrase(PHRASE)):
        assert repr(key.secret) not in repr(key)
        assert PHRASE not in repr(key)


@pytest.mark.parametrize("cost", [(40, 8, 1), (255, 8, 1), (19, 8, 1), (14, 8, 1), (0, 8, 1), (17, 255, 1),
                                  (17, 1, 1), (17, 8, 0), (17, 8, 5), (17, 8, 255)])  # fmt: skip
def test_a_header_cannot_ask_for_gigabytes_or_hours(cost: tuple[int, int, int]) -> None:
    with pytest.raises(GalleryDamaged, match="scrypt"):
        ScryptCost(*cost)
    wrapped = bytearray(WrappedKey.wrap(new_data_key(), key_of(), new_id()).to_bytes())
    wrapped[1:4] = bytes(cost)
    with pytest.raises(GalleryDamaged, match="scrypt"):
        WrappedKey.from_bytes(bytes(wrapped))


@pytest.mark.parametrize("key", [key_of(), DeploymentKey.from_passphrase(PHRASE)], ids=["file", "passphrase"])
def test_a_data_key_is_unwrapped_by_its_key_alone(key: DeploymentKey) -> None:
    data_key, gallery = new_data_key(), new_id()
    one, two = (WrappedKey.from_bytes(WrappedKey.wrap(data_key, key, gallery, CHEAP).to_bytes()) for _ in range(2))
    assert one.unwrap(key, gallery) == two.unwrap(key, gallery) == data_key
    # Two wrappings of one key by one key have nothing in common.
    for field in ("key_id", "salt", "check", "nonce", "sealed"):
        assert getattr(one, field) != getattr(two, field)
    other = key_of(1) if key.way == "file" else DeploymentKey.from_passphrase(PHRASE + "!")
    with pytest.raises(WrongKey, match="does not open"):
        one.unwrap(other, gallery)
    with pytest.raises(GalleryDamaged, match="another gallery's"):
        one.unwrap(key, new_id())


def test_a_key_of_another_sort_is_said_to_be_one() -> None:
    phrase, gallery = DeploymentKey.from_passphrase(PHRASE), new_id()
    with pytest.raises(WrongKey, match="under a key file; a passphrase was given"):
        WrappedKey.wrap(new_data_key(), key_of(), gallery).unwrap(phrase, gallery)
    with pytest.raises(WrongKey, match="under a passphrase; a key file was given"):
        WrappedKey.wrap(new_data_key(), phrase, gallery, CHEAP).unwrap(key_of(), gallery)


def test_bytes_of_a_key_file_and_the_same_bytes_as_passphrase_are_two_keys() -> None:
    secret = "ein Satz mit Umlauten: äöüß".encode()
    phrase = DeploymentKey("passphrase", secret)
    file = DeploymentKey("file", key_of().secret)
    assert not phrase.same_as(file)
    assert phrase.derive(bytes(32), CHEAP, 64) != file.derive(bytes(32), CHEAP, 64)


def test_errors_have_messages_and_hints() -> None:
    for kind in (WrongKey, GalleryDamaged):
        assert issubclass(kind, BautaError)
        assert kind.exit_code == 9
