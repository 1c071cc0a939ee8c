"""Readers of sets of faces, on small sets in each form."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bauta.data.datasets import People, linked, read_bin, read_cfp, read_counterparts, read_lfw, read_people
from bauta.errors import UnreadablePhoto, UsageError


def shade(number: int) -> np.ndarray:
    return np.full((4, 5, 3), number, np.uint8)


def encoded(number: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(shade(number)).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(number, "WEBP" if path.suffix == ".webp" else "PNG"))


def write_lfw(folder: Path, suffix: str = ".png", root: str = "images") -> Path:
    """Two folds, each of one genuine and one impostor pair."""
    for place, (person, number) in enumerate([("A", 1), ("A", 2), ("B", 1), ("C", 1), ("C", 3), ("D", 1)]):
        write_image(folder / root / person / f"{person}_{number:04d}{suffix}", 10 * place)
    (folder / "pairs.txt").write_text("2\t1\nA\t1\t2\nA\t1\tB\t1\nC\t1\t3\nC\t3\tD\t1\n")
    return folder


def write_cfp(folder: Path, root: str = "Data/Images", suffix: str = ".jpg") -> Path:
    """Two people in each of two splits, with two frontal images and one of the profile."""
    protocol = folder / "Protocol"
    frontal, profile = [], []
    for person in ("001", "002", "003", "004"):
        for number in ("01", "02"):
            write_image(folder / root / person / "frontal" / f"{number}{suffix}", 20 * int(person) + int(number))
            frontal.append(f"{len(frontal) + 1} ../Data/Images/{person}/frontal/{number}.jpg")
        write_image(folder / root / person / "profile" / f"01{suffix}", 20 * int(person))
        profile.append(f"{len(profile) + 1} ../Data/Images/{person}/profile/01.jpg")
    for kind, splits in (("FF", [("1,2", "1,3"), ("5,6", "5,8")]), ("FP", [("1,1\n2,1", "1,2"), ("5,3", "6,4")])):
        for number, (same, different) in enumerate(splits, 1):
            (protocol / "Split" / kind / f"{number:02d}").mkdir(parents=True)
            (protocol / "Split" / kind / f"{number:02d}" / "same.txt").write_text(same + "\n")
            (protocol / "Split" / kind / f"{number:02d}" / "diff.txt").write_text(different)
    (protocol / "Pair_list_F.txt").write_text("\n".join(frontal) + "\n")
    (protocol / "Pair_list_P.txt").write_text("\n".join(profile) + "\n")
    return folder


def shown(pairs) -> list[tuple[int, int]]:
    """The shades of both images of each pair."""
    return [
        tuple(int(pairs.images[place].pixels()[0, 0, 0]) for place in row)
        for row in zip(pairs.first, pairs.second, strict=True)
    ]


# LFW


@pytest.mark.parametrize(("suffix", "root"), [(".png", "images"), (".webp", "lfw"), (".PNG", ".")])
def test_lfw(tmp_path, suffix, root):
    pairs = read_lfw(write_lfw(tmp_path, suffix, root))
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert shown(pairs) == [(0, 10), (0, 20), (30, 40), (40, 50)]
    assert len(pairs.images) == 6
    assert pairs.subjects == ("A", "A", "B", "C", "C", "D")
    assert pairs.pair_subjects == ("A", "A", "C", "C")
    assert pairs.name == "lfw/pairs"
    assert pairs.images[0].name == f"A/A_0001{suffix}"


def test_the_digest_knows_contents_and_structure_but_no_place(tmp_path):
    pairs = read_lfw(write_lfw(tmp_path / "one"))
    assert read_lfw(write_lfw(tmp_path / "two", root="lfw")).sha256 == pairs.sha256
    two = tmp_path / "two"
    (two / "pairs.txt").write_text("2\t1\nA\t2\t1\nA\t1\tB\t1\nC\t1\t3\nC\t3\tD\t1\n")
    assert read_lfw(two).sha256 != pairs.sha256
    write_lfw(two, root="lfw")
    write_image(two / "lfw" / "D" / "D_0001.png", 51)
    assert read_lfw(two).sha256 != pairs.sha256
    assert len(pairs.sha256) == 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2\t1\nA\t1\t2\n", "announces 4 pairs and has 1"),
        ("A\t1\t7\n", "A_0007.*is missing"),
        ("A\t1\tE\t1\n", "E_0001.*is missing"),
        ("2\t1\nA\t1\t2\nA\t1\tB\t1\nC\t1\t3\nA\t2\tD\t1\n", "people in two folds: A"),
        ("E\t1\t2\n", "has no folder 'E'"),
        ("", "names no one"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, text, words):
    write_lfw(tmp_path)
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_lfw(tmp_path)


def test_one_photo_under_two_endings_is_refused(tmp_path):
    write_image(write_lfw(tmp_path) / "images" / "A" / "A_0001.webp", 1)
    with pytest.raises(UsageError, match="2 times"):
        read_lfw(tmp_path)


def test_images_that_cannot_be_read_are_named(tmp_path):
    pairs = read_lfw(write_lfw(tmp_path))
    path = tmp_path / "images" / "A" / "A_0001.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UnreadablePhoto, match=r"A_0001\.png"):
        pairs.images[0].pixels()
    path.unlink()
    with pytest.raises(UnreadablePhoto, match=r"A_0001\.png cannot be read"):
        pairs.images[0].pixels()
    with pytest.raises(UnreadablePhoto, match=r"A_0001\.png"):
        _ = pairs.sha256


# CFP


@pytest.mark.parametrize(("root", "suffix"), [("Data/Images", ".jpg"), ("images", ".webp")])
def test_cfp(tmp_path, root, suffix):
    write_cfp(tmp_path, root, suffix)
    frontal = read_cfp(tmp_path, "FF")
    assert shown(frontal) == [(21, 22), (21, 41), (61, 62), (61, 82)]
    assert frontal.same.tolist() == [True, False] * 2
    assert frontal.fold.tolist() == [0, 0, 1, 1]
    profile = read_cfp(tmp_path, "FP")
    assert shown(profile) == [(21, 20), (22, 20), (21, 40), (61, 60), (62, 80)]
    assert profile.same.tolist() == [True, True, False, True, False]
    assert profile.name == "cfp-fp"
    assert profile.pair_subjects == ("001",) * 3 + ("003",) * 2


def test_cfp_knows_names_when_they_are_told(tmp_path):
    before = read_cfp(write_cfp(tmp_path), "FF")
    (tmp_path / "Data" / "list_name.txt").write_text("Ann Lee\nBob\nCid\nDan\n")
    named = read_cfp(tmp_path, "FF")
    assert set(named.subjects) == {"Ann Lee", "Bob", "Cid", "Dan"}
    assert named.sha256 == before.sha256


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("Split/FF/01/same.txt", "1,9", "'1,9'"),
        ("Split/FF/01/same.txt", "1", "'1'"),
        ("Split/FF/01/same.txt", "1,3", "wrong side"),
        ("Split/FF/02/same.txt", "1,2", "two folds: 001"),
        ("Pair_list_F.txt", "1 frontal", "'1 frontal'"),
        ("Pair_list_F.txt", "1 a/001/frontal/09.jpg", "09.*is missing"),
    ],
)
def test_cfp_lists_that_do_not_fit_are_refused(tmp_path, file, text, words):
    write_cfp(tmp_path)
    (tmp_path / "Protocol" / file).write_text(text)
    with pytest.raises(UsageError, match=words):
        read_cfp(tmp_path, "FF")


def test_cfp_needs_its_parts(tmp_path):
    with pytest.raises(UsageError, match="FX"):
        read_cfp(write_cfp(tmp_path), "FX")
    shutil.rmtree(tmp_path / "Protocol" / "Split")
    with pytest.raises(UsageError, match="holds no pairs"):
        read_cfp(tmp_path, "FF")
    shutil.rmtree(tmp_path / "Data")
    with pytest.raises(UsageError, match="is missing"):
        read_cfp(tmp_path, "FF")


# .bin


def test_bin(tmp_path):
    shades = [0, 1, 1, 2, 3, 4, 5, 0]  # pairs 0-1, 1-2, 3-4, 5-0
    path = tmp_path / "agedb_30.bin"
    path.write_bytes(pickle.dumps(([encoded(one) for one in shades], [True, True, False, False])))
    pairs = read_bin(path, folds=2)
    assert pairs.name == "agedb_30"
    assert shown(pairs) == [(0, 1), (1, 2), (3, 4), (5, 0)]
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert len(pairs.images) == 6
    by_shade = dict(zip([int(image.pixels()[0, 0, 0]) for image in pairs.images], pairs.subjects, strict=True))
    assert by_shade[0] == by_shade[1] == by_shade[2]
    assert len(set(by_shade.values())) == 4
    with pytest.raises(UsageError, match="4 pairs for 10 folds"):
        read_bin(path)


def test_damaged_images_of_a_bin_are_named(tmp_path):
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps(([encoded(0), b"no image"], [True])))
    pairs = read_bin(tmp_path / "lfw.bin", folds=1)
    with pytest.raises(UnreadablePhoto, match=r"lfw\.bin, image 1"):
        pairs.images[1].pixels()


def test_links_are_followed_to_their_end():
    random = np.random.default_rng(0)
    order = random.permutation(200)
    chain = np.sort(random.choice(199, 150, replace=False))
    names = linked(200, order[chain], order[chain + 1])
    breaks = np.setdiff1d(np.arange(199), chain)
    piece = np.searchsorted(breaks, np.arange(200), "left")
    assert len(set(names)) == 50
    assert len({(names[place], int(part)) for place, part in zip(order, piece, strict=True)}) == 50
    assert linked(2, np.zeros(0, np.int64), np.zeros(0, np.int64)) == ("person 0", "person 1")


# Folders of people


def write_people(folder: Path, people: dict[str, int]) -> People:
    for place, (person, count) in enumerate(people.items()):
        for number in range(count):
            write_image(folder / person / f"{number}.png", 10 * place + number)
    return read_people(folder)


def test_people(tmp_path):
    people = write_people(tmp_path / "set", {"Zoe": 1, "Ann Lee": 2})
    assert people.name == "set"
    assert people.subjects == ("Ann Lee", "Ann Lee", "Zoe")
    assert people.images[2].name == "Zoe/0.png"
    np.testing.assert_array_equal(people.images[1].pixels(), shade(11))
    assert read_people(tmp_path / "set", name="friends").name == "friends"
    with pytest.raises(UsageError, match="no faces"):
        read_people(tmp_path / "missing")


# Counterparts


def test_counterparts(tmp_path):
    for number in (1, 2, 10):
        write_image(tmp_path / "set" / "source" / f"train_{number}.png", number)
        write_image(tmp_path / "set" / "other" / f"test_{number}.png", 100 + number)
    pairs = read_counterparts(tmp_path / "set" / "source", tmp_path / "set" / "other")
    assert pairs.name == "set"
    assert pairs.same.all()
    assert sorted(shown(pairs)) == [(1, 101), (2, 102), (10, 110)]
    assert len(set(pairs.pair_subjects)) == 3
    write_image(tmp_path / "set" / "source" / "train_3.png", 3)
    with pytest.raises(UsageError, match=r"train_3\.png has no counterpart"):
        read_counterparts(tmp_path / "set" / "source", tmp_path / "set" / "other")


def test_sets_are_read_without_torch():
    import subprocess
    import sys

    code = "import sys, bauta.data.datasets, bauta.benchmark.protocols; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
