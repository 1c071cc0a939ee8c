"""Galleries from before they were sealed: read once, strictly, and unlocked where AdvFace's old key had locked them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from bauta.errors import GalleryDamaged, GalleryError, UsageError
from bauta.gallery.files import read_gallery, write_gallery
from bauta.gallery.upgrade import read_unsealed
from bauta.templates.advface.protector import AdvFace
from bauta.templates.base import Protector
from bauta.templates.references import PixelatedImage
from bauta.templates.representation import key_fingerprint
from conftest import drawn, faces, fitted, toy_surrogate
from gallery_builders import key_of, rows, same, write_unsealed

OLD_KEY = bytes(range(32))  # such keys were taken
NAMES = ["Ann", "Bob", "Eve"]


@pytest.fixture(scope="module")
def advface() -> AdvFace:
    given = {"split": "8x27x27", "shadows": ["residual-4"], "epochs": 1, "batch": 4, "iterations": 2}
    made: AdvFace = fitted(AdvFace, faces(8, 1), **given)
    return made


def test_an_old_gallery_is_sealed_as_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old.safetensors", tmp_path / "new.bauta"
    write_unsealed(old, rows(), NAMES)
    made = read_unsealed(old)
    assert made.names == tuple(NAMES)
    assert torch.equal(made.representation.tensor, rows().tensor)
    write_gallery(new, made, key_of())
    assert same(read_gallery(new, key_of()), made)


def test_an_old_gallery_without_names_numbers_its_faces(tmp_path: Path) -> None:
    write_unsealed(tmp_path / "old.safetensors", rows(), None)
    assert read_unsealed(tmp_path / "old.safetensors").names == ("face 0", "face 1", "face 2")


def test_what_the_old_key_locked_is_unlocked(tmp_path: Path, advface: AdvFace) -> None:
    path, key = tmp_path / "old.safetensors", tmp_path / "old.key"
    key.write_bytes(OLD_KEY)
    plain = advface.protect(faces(3), drawn())
    write_unsealed(path, advface.protect(faces(3), drawn(), OLD_KEY), NAMES, key_fingerprint(OLD_KEY))
    made = read_unsealed(path, protector=advface, old_key=key)
    assert (made.representation.key, made.representation.format) == ("", plain.format)
    torch.testing.assert_close(made.representation.values(), plain.values(), atol=5e-3, rtol=0)
    torch.testing.assert_close(advface.match(made.representation, plain).diag(), torch.ones(3), atol=1e-3, rtol=0)
    with pytest.raises(UsageError, match="was locked by a key of the old kind"):
        read_unsealed(path)
    with pytest.raises(UsageError, match="was locked by a key of the old kind"):
        read_unsealed(path, old_key=key)
    with pytest.raises(UsageError, match="never locked"):
        read_unsealed(path, old_key=key, protector=PixelatedImage(toy_surrogate()))
    other: Protector = AdvFace.restore(
        toy_surrogate(), {**advface.settings(), "epsilon": 0.1}, advface.parts(), advface.provenance
    )
    with pytest.raises(UsageError, match="protector of this representation"):
        read_unsealed(path, old_key=key, protector=other)
    key.write_bytes(OLD_KEY[::-1])
    with pytest.raises(UsageError, match="not the key that locked"):
        read_unsealed(path, old_key=key, protector=advface)
    with pytest.raises(GalleryError, match="cannot be read"):
        read_unsealed(path, old_key=tmp_path / "none", protector=advface)


def test_a_key_for_what_was_not_locked_and_a_sealed_gallery_are_refused(tmp_path: Path, advface: AdvFace) -> None:
    old, key = tmp_path / "old.safetensors", tmp_path / "old.key"
    key.write_bytes(OLD_KEY)
    write_unsealed(old, rows(), NAMES)
    with pytest.raises(UsageError, match="was not locked"):
        read_unsealed(old, protector=advface, old_key=key)
    write_gallery(tmp_path / "new", read_unsealed(old), key_of())
    with pytest.raises(UsageError, match="sealed already"):
        read_unsealed(tmp_path / "new")
    with pytest.raises(GalleryError, match="cannot be read"):
        read_unsealed(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("names", "words"),
    [({"names": "abc"}, "not a list of names"), ({"names": ["a", "b", 3]}, "not a list of names"),
     ({"names": ["a", "b", None]}, "not a list of names"), ({"names": [["a"], "b", "c"]}, "not a list of names"),
     ({"names": {"a": 1, "b": 2, "c": 3}}, "not a list of names"), ({"others": NAMES}, "not a list of names"),
     ({"names": NAMES, "more": 1}, "not a list of names"), (NAMES, "not a list of names"),
     (None, "not a list of names"), (b"\xff\xfe", "not JSON"),
     ({"names": NAMES[:2]}, "2 names for the 3 faces"), ({"names": [*NAMES, "Dan"]}, "4 names for the 3 faces"),
     ("[" * 200_000, "not JSON"), ('{"names": ' + "[" * 100_000, "not JSON"), ("{", "not JSON"),
     ("9" * 5000, "not JSON")],
)  # fmt: skip
def test_names_that_are_no_list_of_strings_are_refused(tmp_path: Path, names: Any, words: str) -> None:
    path = tmp_path / "old.safetensors"
    write_unsealed(path, rows(), None)
    text = names if isinstance(names, str | bytes) else json.dumps(names)
    path.with_suffix(".json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GalleryDamaged, match=words):
        read_unsealed(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"schema": True}, "'schema' that is int"), ({"schema": 2}, "schema is 2"), ({"key": None}, "'key' that is str"),
     ({"kind": ["template"]}, "'kind' that is str"), ({"kind": "voice"}, "cannot be a 'voice'"),
     ({"storage": "int4"}, "cannot be stored as 'int4'"), ({"storage": "uint8"}, "other tensors"),
     ({"more": 1}, "unknown field: 'more'"), ({"protector_sha256": "x"}, "not a SHA-256")],
)  # fmt: skip
def test_old_galleries_of_another_form_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "old.safetensors"
    write_unsealed(path, rows(), NAMES, **change)
    with pytest.raises(GalleryDamaged, match=words) as caught:
        read_unsealed(path)
    assert str(path) in caught.value.message


def test_three_hundred_spoilt_old_galleries_are_read_or_refused_and_never_a_defect(tmp_path: Path) -> None:
    """Random bytes overwritten, cut out and put in, above all in the header; whatever is no `BautaError` fails here."""
    chance = random.Random(0)
    path = tmp_path / "old.safetensors"
    write_unsealed(path, rows().stored_as("uint8", low=torch.zeros(4), high=torch.ones(4)), NAMES)
    whole = path.read_bytes()
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            at, many = chance.randrange(len(content)), chance.randint(1, 4)
            content[at : at + many] = chance.choice((b"", chance.randbytes(many), b'"[{:,9', b"true"))
        path.write_bytes(content)
        try:
            read_unsealed(path)
        except (GalleryError, UsageError):
            refused += 1
    assert refused > 200


def test_torn_old_galleries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    write_unsealed(path, rows(), NAMES)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(GalleryDamaged, match="not a whole safetensors file"):
            read_unsealed(path)
