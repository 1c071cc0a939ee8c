"""The ``.bin`` files of verification pairs are read, and nothing in them is ever run."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from bauta.data.pickled_pairs import read_pairs
from bauta.errors import UsageError

IMAGES = [b"one image", b"another", b"a third", b"the last"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("images", "same"),
    [
        (IMAGES, [True, False]),
        ([np.frombuffer(image, np.uint8) for image in IMAGES], [np.bool_(True), np.bool_(False)]),
        ([np.frombuffer(image, np.uint8).copy() for image in IMAGES], np.array([True, False])),
        (IMAGES, [1, 0]),
    ],
    ids=["bytes", "arrays", "writable arrays", "numbers"],
)
def test_verification_pairs(tmp_path, images, same, protocol):
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((images, same), protocol))
    pairs = read_pairs(tmp_path / "lfw.bin")
    assert pairs.same.tolist() == [True, False]
    assert (pairs.first, pairs.second) == ((IMAGES[0], IMAGES[2]), (IMAGES[1], IMAGES[3]))


def test_verification_pairs_of_python_2(tmp_path):
    texts = b"".join(b"T" + struct.pack("<I", len(image)) + image + b"q\x02" for image in IMAGES[:2])
    (tmp_path / "lfw.bin").write_bytes(b"\x80\x02]q\x00(" + texts + b"e]q\x03\x88a\x86q\x04.")
    assert read_pairs(tmp_path / "lfw.bin").same.tolist() == [True]


class _Attack:
    def __reduce__(self):
        return Path.touch, (Path("attacked"),)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(([_Attack(), b""], [True])),
        pickle.dumps(([_Attack(), b""], [True]), 0),
        b"cos\nsystem\n(S'touch attacked'\ntR.",
        b"cnumpy\ndtype\n(cos\nsystem\ntR.",
        b"(i__builtin__\neval\n.",
        pickle.dumps((IMAGES, [True])),
        pickle.dumps((IMAGES, [True, "no"])),
        pickle.dumps(([], [])),
        pickle.dumps(({}, [])),
        pickle.dumps(([np.zeros((2, 2), np.uint8)] * 2, [True])),
        pickle.dumps(([np.zeros(2)] * 2, [True])),
        pickle.dumps(([np.array([{}])] * 2, [True])),
        pickle.dumps((IMAGES, [True, False]))[:-20],
        b"",
        b"\x80\x04.",
        b"R.",
        b"not a pickle",
    ],
)
def test_other_pickles_are_refused_and_never_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lfw.bin").write_bytes(content)
    with pytest.raises(UsageError, match=r"lfw\.bin"):
        read_pairs(tmp_path / "lfw.bin")
    assert not (tmp_path / "attacked").exists()
