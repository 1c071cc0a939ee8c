from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bauta.errors import OutputError, UnreadablePhoto, UsageError
from bauta.training import faces as module
from bauta.training.faces import (
    FaceSet,
    blend,
    blend_pairs,
    open_packed,
    pack,
    read_folder,
    read_records,
)

MAGIC = 0xCED7230A


def picture(shade: int, side: int = 112) -> np.ndarray:
    ramp = np.linspace(0, 60, side).astype(np.uint8)
    return np.stack([ramp[:, None] + ramp + np.uint8(shade)] * 3, axis=2)


def encoded(shade: int, kind: str = "PNG", side: int = 112) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(shade, side)).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def write_folder(folder: Path, people: dict[str, list[int]]) -> Path:
    for person, shades in people.items():
        (folder / person).mkdir(parents=True)
        for place, shade in enumerate(shades):
            suffix, kind = ((".png", "PNG"), (".WEBP", "WEBP"))[place % 2]
            (folder / person / f"{place}{suffix}").write_bytes(encoded(shade, kind))
    (folder / "manifest.csv").write_text("file,source\n")
    return folder


def record(label: float | list[float], image: bytes = b"", number: int = 0) -> bytes:
    if isinstance(label, list):
        return struct.pack(f"<IfQQ{len(label)}f", len(label), 0, number, 0, *label) + image
    return struct.pack("<IfQQ", 0, label, number, 0) + image


def framed(content: bytes, part: int = 0) -> bytes:
    return struct.pack("<II", MAGIC, part << 29 | len(content)) + content + bytes(-len(content) % 4)


def write_records(path: Path, records: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    position, lines, chunks = 0, [], []
    for number, content in enumerate(records):
        lines.append(f"{number}\t{position}\n")
        chunks.append(framed(content))
        position += len(chunks[-1])
    path.write_bytes(b"".join(chunks))
    path.with_suffix(".idx").write_text("".join(lines))
    return path


@pytest.fixture
def records(tmp_path):
    content = [record([4, 6]), record(7, encoded(10)), record([8, 0], encoded(20, "JPEG")), record(7, encoded(30))]
    return write_records(tmp_path / "glint" / "train.rec", [*content, record([1, 3]), record([3, 4])])


# Readers


def test_folder(tmp_path):
    faces = list(read_folder(write_folder(tmp_path, {"Zoë": [1], "Ann Lee": [50, 60]})))
    assert [face.person for face in faces] == ["Ann Lee", "Ann Lee", "Zoë"]
    for face, shade in zip(faces, (50, 60, 1), strict=True):
        np.testing.assert_array_equal(face.decode(), picture(shade))


def test_folders_without_faces_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="no faces"):
            list(read_folder(folder))


def test_images_of_another_size_or_kind_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    for content, error, words in (
        (encoded(0, side=111), UsageError, "111x111"),
        (encoded(0)[:-40], UnreadablePhoto, "not a readable"),
        (encoded(0, "GIF"), UnreadablePhoto, "not a readable"),
        (b"", UnreadablePhoto, "not a readable"),
    ):
        (tmp_path / "a" / "b.png").write_bytes(content)
        with pytest.raises(error, match=rf"b\.png.*{words}"):
            next(read_folder(tmp_path)).decode()


def test_records(records):
    faces = list(read_records(records))
    assert [face.person for face in faces] == [f"glint/train {person:08d}" for person in (7, 8, 7)]
    np.testing.assert_array_equal(faces[2].decode(), picture(30))
    assert np.abs(faces[1].decode().astype(int) - picture(20)).max() < 8


def test_records_need_no_index(records):
    records.with_suffix(".idx").unlink()
    assert len(list(read_records(records))) == 3


def test_a_record_that_holds_the_magic_number_is_put_together(tmp_path):
    image = encoded(10)
    content = record(3, image[:40] + struct.pack("<I", MAGIC) + image[40:80] + struct.pack("<I", MAGIC) + image[80:])
    cuts = content.split(struct.pack("<I", MAGIC))
    assert len(cuts) == 3
    path = tmp_path / "train.rec"
    path.write_bytes(b"".join(framed(cut, part) for part, cut in zip((1, 2, 3), cuts, strict=True)))
    (face,) = read_records(path)
    assert record(3, face.content) == content


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-5], "within a record"),
        (lambda content: content + b"abcd", "no record where"),
        (lambda content: b"\0" * 8 + content, "no record where"),
        (lambda content: content + framed(b"1234", 1), "within a record"),
        (lambda content: content + framed(b"1234", 3), "disorder"),
        (lambda content: content + framed(b"1234"), "of 4 bytes"),
        (lambda content: content + framed(record(1.5, b"image")), "1.5 for a person"),
        (lambda content: content + framed(record(float("nan"), b"image")), "nan for a person"),
        (lambda content: content + framed(struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0)), "its index lists"),
        (lambda content: content + framed(record(1, b"image")), "its index lists"),
    ],
)
def test_damaged_records_are_refused(records, damage, words):
    records.write_bytes(damage(records.read_bytes()))
    with pytest.raises(UsageError, match=words):
        list(read_records(records))


def test_missing_and_empty_records_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        list(read_records(tmp_path / "train.rec"))
    (tmp_path / "train.rec").write_bytes(framed(record([4, 6])))
    with pytest.raises(UsageError, match="no faces"):
        list(read_records(tmp_path / "train.rec"))


# Packing


def test_packing_keeps_every_pixel_and_leaves_people_out(tmp_path, records):
    one = write_folder(tmp_path / "one", {"Ann Lee": [1, 2], "Bob": [3], "Tom Hanks": [4, 5]})
    two = write_folder(tmp_path / "two", {"ann_lee": [6], "halle_berry": [7], "Cid": [8]})
    packed, counts = pack([one, records, two], tmp_path / "set", {"TOM_HANKS", "Halle Berry"})
    numbered = [f"glint/train {person:08d}" for person in (7, 8, 7)]
    assert packed.people == ("Ann Lee", "Ann Lee", "Bob", *numbered, "Cid", "Ann Lee")
    assert packed.sources == ("one",) * 3 + ("train.rec",) * 3 + ("two",) * 2
    expected = [picture(shade) for shade in (1, 2, 3, 10, 30, 8, 6)]
    np.testing.assert_array_equal(packed.pixels[[0, 1, 2, 3, 5, 6, 7]], expected)
    assert [(count.images, count.excluded_images, count.excluded_people) for count in counts] == [
        (3, 2, 1),
        (3, 0, 0),
        (2, 1, 1),
    ]
    assert [count.people for count in counts] == [2, 2, 2]
    assert isinstance(packed.pixels, np.memmap)
    assert not packed.pixels.flags.writeable
    assert FaceSet.of(np.array(packed.pixels), packed.people).sha256 == packed.sha256
    again = open_packed(tmp_path / "set")
    assert (again.people, again.sources, again.sha256) == (packed.people, packed.sources, packed.sha256)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        f"faces-{packed.sha256[:16]}.npy",
        "faces.json",
    ]


def test_packing_again_decodes_only_what_changed(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "one", {"Ann": [1, 2], "Bob": [3]})
    decoded = []
    decode = module.EncodedFace.decode
    monkeypatch.setattr(module.EncodedFace, "decode", lambda face: decoded.append(face.origin) or decode(face))
    first, _ = pack([source], tmp_path / "set")
    second, _ = pack([source], tmp_path / "set")
    assert len(decoded) == 3
    assert second.sha256 == first.sha256
    (source / "Bob" / "0.png").write_bytes(encoded(9))
    third, _ = pack([source], tmp_path / "set")
    assert len(decoded) == 6
    np.testing.assert_array_equal(third.pixels[2], picture(9))
    fourth, counts = pack([source], tmp_path / "set", ["bob"])
    assert fourth.people == ("Ann", "Ann")
    assert counts[0].excluded_images == 1
    assert len(list((tmp_path / "set").iterdir())) == 2


def test_an_interrupted_packing_leaves_the_old_set(tmp_path):
    source = write_folder(tmp_path / "one", {"Ann": [1, 2]})
    before, _ = pack([source], tmp_path / "set")
    (source / "Ann" / "z.png").write_bytes(b"damaged")
    with pytest.raises(UnreadablePhoto, match=r"z\.png"):
        pack([source], tmp_path / "set")
    assert open_packed(tmp_path / "set").sha256 == before.sha256
    assert len(list((tmp_path / "set").iterdir())) == 2


def test_packing_what_cannot_be_packed(tmp_path):
    source = write_folder(tmp_path / "one", {"Ann": [1]})
    with pytest.raises(UsageError, match="No faces are left"):
        pack([source], tmp_path / "set", ["ann"])
    with pytest.raises(UsageError, match="twice"):
        pack([source, tmp_path / "one" / ".." / "one"], tmp_path / "set")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        pack([source], tmp_path / "file")


def test_damaged_packed_sets_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no packed faces"):
        open_packed(tmp_path)
    packed, _ = pack([write_folder(tmp_path / "one", {"Ann": [1]})], tmp_path / "set")
    path = tmp_path / "set" / f"faces-{packed.sha256[:16]}.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\xff")
    with pytest.raises(UsageError, match="damaged"):
        open_packed(tmp_path / "set")
    assert len(open_packed(tmp_path / "set", check=False).people) == 1
    path.write_bytes(content[:-1])
    with pytest.raises(UsageError, match="damaged"):
        open_packed(tmp_path / "set", check=False)
    card = json.loads((tmp_path / "set" / "faces.json").read_text())
    for change in ({"pixels": "../faces.npy"}, {"pixels": None}):
        (tmp_path / "set" / "faces.json").write_text(json.dumps(card | change))
        with pytest.raises(UsageError, match="damaged"):
            open_packed(tmp_path / "set")


def test_the_digest_tells_pixels_and_people_apart():
    pixels = np.zeros((2, 112, 112, 3), np.uint8)
    digests = {FaceSet.of(pixels, "ab").sha256, FaceSet.of(pixels, "aa").sha256, FaceSet.of(pixels + 1, "ab").sha256}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("pixels", "people", "digest", "sources"),
    [
        (np.zeros((2, 112, 112, 3), np.uint8), ("a",), "0" * 64, ()),
        (np.zeros((1, 112, 96, 3), np.uint8), ("a",), "0" * 64, ()),
        (np.zeros((1, 112, 112, 3)), ("a",), "0" * 64, ()),
        (np.zeros((1, 112, 112, 3), np.uint8), ("a",), "0" * 63, ()),
        (np.zeros((1, 112, 112, 3), np.uint8), ("a",), "0" * 64, ("b", "b")),
    ],
)
def test_face_sets_that_disagree_are_refused(pixels, people, digest, sources):
    with pytest.raises(UsageError):
        FaceSet(pixels, people, digest, sources)


# Blends


def test_blends_are_of_different_people_and_reach_everyone():
    people = ["a", "b", "a", "c", "b", "a"]
    pairs, weights = blend_pairs(5000, people, torch.Generator().manual_seed(0))
    assert pairs.shape == (5000, 2)
    assert all(people[one] != people[other] for one, other in pairs)
    assert 0.35 <= weights.min() < 0.36
    assert 0.64 < weights.max() <= 0.65
    # Every face is as often first; the partner of an "a" is one of the three others, evenly.
    assert np.bincount(pairs[:, 0], minlength=6) == pytest.approx([5000 / 6] * 6, rel=0.15)
    partners = np.bincount(pairs[pairs[:, 0] == 0, 1], minlength=6)
    assert partners[[1, 3, 4]] == pytest.approx([partners.sum() / 3] * 3, rel=0.2)
    again, _ = blend_pairs(5000, people, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(pairs, again)


def test_blends_keep_within_a_source():
    people = ["a", "b", "c", "a", "d"]
    sources = ["x", "y", "x", "y", "z"]
    pairs, _ = blend_pairs(200, people, torch.Generator().manual_seed(0), sources=sources)
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == {(0, 2), (1, 3)}


def test_blends_need_two_people():
    generator = torch.Generator()
    assert blend_pairs(0, ["a"], generator)[0].shape == (0, 2)
    for people, sources in ((["a", "a"], ()), ([], ()), (["a", "b"], ["x", "y"]), (["a", "b"], ["x"])):
        with pytest.raises(UsageError):
            blend_pairs(1, people, generator, sources=sources)


def test_blend_is_the_weighted_average():
    pixels = np.stack([picture(0), picture(100)])
    pairs = np.array([(0, 1), (1, 0)])
    mixed = blend(pixels, pairs, np.array([0.4, 0.4], np.float32))
    assert mixed.dtype == np.uint8
    np.testing.assert_array_equal(mixed[0], picture(60))
    np.testing.assert_array_equal(mixed[1], picture(40))
