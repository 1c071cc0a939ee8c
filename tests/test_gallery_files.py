"""Attacks on the file of a gallery: whatever is changed in it, nothing of it is used."""

from __future__ import annotations

import itertools
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bauta.errors import (
    BautaError,
    GalleryDamaged,
    GalleryError,
    GalleryVersion,
    OutputError,
    OutputExists,
    UsageError,
    WrongKey,
)
from bauta.gallery import files
from bauta.gallery.enrol import Gallery
from bauta.gallery.files import (
    Header,
    key_id,
    open_gallery,
    read_gallery,
    require_free,
    rotate_gallery,
    seal_gallery,
    write_gallery,
)
from bauta.gallery.sealing import OVERHEAD, RecordHeader, RecordSealer, new_id, subkey
from bauta.keys import DeploymentKey
from bauta.templates.representation import RowFormat
from gallery_builders import CHEAP, key_of, rows, same, small_gallery, write_unsealed

KEY = key_of()
PHRASE = DeploymentKey.from_passphrase("six words drawn at random here")


def parts(content: bytes) -> tuple[bytes, bytes, list[bytes], bytes]:
    """Header, index, records and seal of a file."""
    header = Header.from_bytes(content[: Header.SIZE], len(content), "it")
    start, each = Header.SIZE + header.index, OVERHEAD + header.row
    records = [content[place : place + each] for place in range(start, len(content) - 32, each)]
    return content[: Header.SIZE], content[Header.SIZE : start], records, content[-32:]


def forged(content: bytes, data_key: bytes, **changes: Any) -> bytes:
    """Another file that its own seal authenticates, as only who has the data key makes one."""
    header, index, records, _ = parts(content)
    header, index, records = (
        changes.get(n, p) for n, p in (("header", header), ("index", index), ("records", records))
    )
    gallery = Header.from_bytes(content[: Header.SIZE], len(content), "it").gallery
    seal = files._seal(data_key, gallery, [header, index, *files._ends(records)])
    return b"".join([header, index, *records, seal])


def data_key_of(content: bytes) -> bytes:
    header = Header.from_bytes(content[: Header.SIZE], len(content), "it")
    return header.key.unwrap(KEY, header.gallery)


# What is kept


@pytest.mark.parametrize("storage", ["float32", "float16", "uint8"])
def test_everything_is_kept(tmp_path: Path, storage: Any) -> None:
    features = torch.arange(48, dtype=torch.float32).reshape(2, 3, 2, 4)
    stored = rows(tensor=features, kind="feature").stored_as(storage, low=torch.zeros(3), high=torch.full((3,), 47.0))
    gallery = Gallery(stored, ("Ann", "undecodable \udcff"))
    path = tmp_path / "faces.bauta"
    written = write_gallery(path, gallery, KEY)
    read = read_gallery(path, KEY)
    assert same(read, gallery)
    assert torch.equal(read.representation.values(), stored.values())
    assert written == key_id(path.read_bytes())
    assert [one.name for one in tmp_path.iterdir()] == ["faces.bauta"]  # one file


def test_a_passphrase_seals_too(tmp_path: Path) -> None:
    path = tmp_path / "faces.bauta"
    gallery = small_gallery()
    write_gallery(path, gallery, PHRASE, cost=CHEAP)
    assert same(read_gallery(path, PHRASE), gallery)
    with pytest.raises(WrongKey, match="not the passphrase"):
        read_gallery(path, DeploymentKey.from_passphrase("six words drawn at random here?"))
    with pytest.raises(WrongKey, match="under a passphrase; a key file"):
        read_gallery(path, KEY)


def test_another_key_opens_nothing() -> None:
    content = seal_gallery(small_gallery(), KEY)
    for other in (key_of(1), DeploymentKey.generate()):
        with pytest.raises(WrongKey, match="not the key that it was sealed under"):
            open_gallery(content, other)
    bits = bytearray(KEY.secret)
    for bit in range(256):  # a key that differs by one bit is another
        bits[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WrongKey):
            open_gallery(content, DeploymentKey("file", bytes(bits)))
        bits[bit // 8] ^= 1 << bit % 8


# What a thief of the file alone sees


def test_a_stolen_file_tells_no_name_and_no_number() -> None:
    gallery = small_gallery(5, 16)
    content = seal_gallery(gallery, KEY)
    for name in gallery.names:
        for word in (name, *name.split()):
            assert word.encode() not in content
            assert word.encode("utf-16-le") not in content
    for row in gallery.representation.rows():
        assert not any(bytes(row[place : place + 4]) in content for place in range(len(row) - 3))
    assert b"identity-feature" not in content
    assert KEY.secret[:8] not in content


def test_the_same_photos_sealed_twice_share_no_eight_bytes() -> None:
    gallery = small_gallery(20, 64)
    anew = Gallery(gallery.representation, gallery.names)
    one, two, three = (parts(seal_gallery(each, KEY)) for each in (gallery, gallery, anew))
    for first, second in itertools.combinations((one, two, three), 2):
        windows = [
            {part[place : place + 8] for place in range(len(part) - 7)}
            for part in (b"".join([index, *records, seal]) for _, index, records, seal in (first, second))
        ]
        assert not windows[0] & windows[1]
    # The header tells which recogniser and protector; of the key it tells nothing that another header repeats.
    wrapped = [Header.from_bytes(header, _size(all_), "it").key for all_ in (one, three) for header in (all_[0],)]
    assert all(getattr(wrapped[0], name) != getattr(wrapped[1], name) for name in ("key_id", "salt", "check", "sealed"))


def _size(all_: tuple[bytes, bytes, list[bytes], bytes]) -> int:
    return len(b"".join([all_[0], all_[1], *all_[2], all_[3]]))


def test_each_writing_has_a_data_key_of_its_own() -> None:
    gallery = small_gallery()
    keys = {data_key_of(seal_gallery(gallery, KEY)) for _ in range(8)}
    assert len(keys) == 8
    assert {len(key) for key in keys} == {32}
    assert KEY.secret not in keys


def test_equal_faces_do_not_show() -> None:
    row = torch.randn(1, 64)
    _, _, records, _ = parts(seal_gallery(Gallery(rows(tensor=row.repeat(2, 1)), ("Ann", "Ann")), KEY))
    assert not {records[0][at : at + 8] for at in range(100)} & {records[1][at : at + 8] for at in range(100)}


@pytest.mark.parametrize("size", [1, 128, 512])
def test_a_record_costs_at_most_64_bytes(size: int) -> None:
    small, large = (len(seal_gallery(small_gallery(count, size), KEY)) for count in (3, 1003))
    names = sum(len(name) for name in small_gallery(1003, 1).names[3:])
    assert (large - small - names) / 1000 - 4 * size <= 64


# Every change is refused


def refused(content: bytes, key: DeploymentKey = KEY) -> bool:
    try:
        open_gallery(content, key)
    except GalleryError:
        return True
    return False


def test_every_flipped_bit_is_refused() -> None:
    gallery = small_gallery(3, 4)
    content = seal_gallery(gallery, KEY)
    assert same(open_gallery(content, KEY), gallery)
    changed = bytearray(content)
    for bit in range(8 * len(content)):
        changed[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(changed)), f"bit {bit} of {8 * len(content)}"
        changed[bit // 8] ^= 1 << bit % 8


def test_every_flipped_bit_of_what_concerns_the_passphrase_is_refused() -> None:
    content = seal_gallery(small_gallery(1, 2), PHRASE, CHEAP)
    begin = Header.SIZE - 24 - 144
    assert content[begin] == 2
    for bit in (*range(32), *range(32 + 127, 8 * 144, 251)):  # way and cost, then some of key id, salt and the rest
        changed = bytearray(content)
        changed[begin + bit // 8] ^= 1 << bit % 8
        assert refused(bytes(changed), PHRASE), bit


def test_every_truncation_is_refused() -> None:
    content = seal_gallery(small_gallery(3, 4), KEY)
    for length in range(len(content)):
        assert refused(content[:length]), length


@pytest.mark.parametrize("more", [b"\0", b"x" * 32, b"x" * (OVERHEAD + 16)])
def test_an_extended_file_is_refused(more: bytes) -> None:
    content = seal_gallery(small_gallery(3, 4), KEY)
    assert refused(content + more)
    assert refused(more + content)
    assert refused(content[:-32] + more + content[-32:])
    assert refused(content + content)


def with_count(header: bytes, count: int) -> bytes:
    return header[:-24] + struct.pack(">Q", count) + header[-16:]


def test_shuffled_repeated_and_dropped_rows_are_refused() -> None:
    header, index, records, seal = parts(seal_gallery(small_gallery(3, 4), KEY))
    for order in itertools.product(range(3), repeat=3):
        content = b"".join([header, index, *(records[place] for place in order), seal])
        assert refused(content) == (order != (0, 1, 2)), order
    for order in ((0, 1), (1, 2), (0, 1, 2, 2), (0, 1, 2, 0)):
        content = b"".join([with_count(header, len(order)), index, *(records[place] for place in order), seal])
        assert refused(content), order


def test_two_galleries_cannot_be_put_together() -> None:
    """Of one key and the same photos: every mixture of their parts is refused."""
    one = parts(seal_gallery(small_gallery(3, 4), KEY))
    two = parts(seal_gallery(small_gallery(3, 4), KEY))
    for choice in itertools.product((0, 1), repeat=4):
        header, index, records, seal = ((one, two)[place][part] for part, place in enumerate(choice))
        content = b"".join([header, index, *records, seal])  # type: ignore[list-item]
        assert refused(content) == (len(set(choice)) > 1), choice
    for swapped in range(3):
        records = [*one[2]]
        records[swapped] = two[2][swapped]
        assert refused(b"".join([one[0], one[1], *records, one[3]]))


def test_rows_of_an_older_file_are_refused(tmp_path: Path) -> None:
    """The same gallery, with the same ids, written again: after a rotation, and under the same key."""
    path = tmp_path / "faces.bauta"
    gallery = small_gallery(3, 4)
    write_gallery(path, gallery, KEY)
    old = parts(path.read_bytes())
    rotate_gallery(path, KEY, key_of(1))
    rotated = parts(path.read_bytes())
    for place in range(3):
        records = [*rotated[2]]
        records[place] = old[2][place]
        assert refused(b"".join([rotated[0], rotated[1], *records, rotated[3]]), key_of(1))
    write_gallery(path, gallery, KEY, overwrite=True)
    again = parts(path.read_bytes())
    for place in range(3):
        records = [*again[2]]
        records[place] = old[2][place]
        assert refused(b"".join([again[0], again[1], *records, again[3]]))


# Who has the data key, and exchanges names or rows, is refused by each record


def test_a_record_under_another_name_is_refused() -> None:
    content = seal_gallery(small_gallery(3, 4), KEY)
    data_key = data_key_of(content)
    header, index, records, _ = parts(content)
    assert same(open_gallery(forged(content, data_key), KEY), open_gallery(content, KEY))
    cipher = AESGCM(subkey(data_key, header[10:26], "index"))
    plain = cipher.decrypt(index[:12], index[12:], header)

    def with_index(changed: bytes) -> bytes:
        assert len(changed) == len(plain)
        return forged(content, data_key, index=index[:12] + cipher.encrypt(index[:12], changed, header))

    assert not refused(with_index(plain))
    swapped = plain.replace(b"Ann Lee", b"-------").replace(b"Bob Roy", b"Ann Lee").replace(b"-------", b"Bob Roy")
    for changed in (swapped, plain.replace(b"Ann Lee", b"Eva Lee")):
        assert changed != plain
        with pytest.raises(GalleryDamaged, match="record was changed, or is another's"):
            open_gallery(with_index(changed), KEY)
    with pytest.raises(GalleryDamaged, match="record was changed, or is another's"):
        open_gallery(forged(content, data_key, records=[records[1], records[0], records[2]]), KEY)
    for hostile in (b"[" * 400, b'{"kind":' * 40, b"\xff" * 400, b"1" * 400):
        bomb = plain[:4] + hostile[: struct.unpack(">I", plain[:4])[0]].ljust(struct.unpack(">I", plain[:4])[0])
        with pytest.raises(GalleryDamaged, match="not a gallery of this version"):
            open_gallery(with_index(bomb + plain[len(bomb) :]), KEY)
    for length in (0, 1, len(plain), (1 << 32) - 1):
        with pytest.raises(GalleryDamaged):
            open_gallery(with_index(struct.pack(">I", length) + plain[4:]), KEY)


RECORD = RecordHeader(b"g" * 16, b"1" * 16, "Ann", b"r" * 32, b"p" * 32)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [({"version": 2}, GalleryVersion, "version 2"), ({"gallery": b"h" * 16}, GalleryDamaged, "another gallery's"),
     ({"recognizer": b"s" * 32}, UsageError, "recognizer of a record is 737373737373, not 727272727272"),
     ({"protector": b"q" * 32}, UsageError, "protector of a record is 717171717171, not 707070707070"),
     ({"record": b"2" * 16}, GalleryDamaged, "changed, or is another's"),
     ({"name": "Bob"}, GalleryDamaged, "changed, or is another's"),
     ({"name": "Ann "}, GalleryDamaged, "changed, or is another's")],
)  # fmt: skip
def test_a_record_is_bound_to_all_that_its_header_says(
    change: dict[str, Any], kind: type[BautaError], words: str
) -> None:
    sealer = RecordSealer(bytes(32), b"g" * 16, b"r" * 32, b"p" * 32)
    sealed = sealer.seal(RECORD, b"a template")
    assert sealer.open(RECORD, sealed) == b"a template"
    with pytest.raises(kind, match=words):
        sealer.open(replace(RECORD, **change), sealed)
    assert replace(RECORD, **change).to_bytes() != RECORD.to_bytes()  # it is in what is authenticated, too


def test_a_record_under_another_data_key_gallery_or_cut_is_refused() -> None:
    sealer = RecordSealer(bytes(32), b"g" * 16, b"r" * 32, b"p" * 32)
    sealed = sealer.seal(RECORD, b"a template")
    assert len(sealed) == len(b"a template") + OVERHEAD
    for other in (RecordSealer(b"k" * 32, b"g" * 16, b"r" * 32, b"p" * 32),):
        with pytest.raises(GalleryDamaged):
            other.open(RECORD, sealed)
    for length in range(len(sealed)):
        with pytest.raises(GalleryDamaged):
            sealer.open(RECORD, sealed[:length])
    # Even when all that a header names is claimed, a record does not open in another gallery of one data key.
    there = RecordSealer(bytes(32), b"h" * 16, b"r" * 32, b"p" * 32)
    with pytest.raises(GalleryDamaged):
        there.open(replace(RECORD, gallery=b"h" * 16), sealed)


# Hostile headers


@pytest.mark.parametrize("count", [0, 1, 4, 1 << 31, 1 << 60, (1 << 64) - 1])
@pytest.mark.parametrize("field", [0, 1, 2])
def test_lengths_are_checked_before_anything_is_read(tmp_path: Path, field: int, count: int) -> None:
    content = seal_gallery(small_gallery(3, 4), KEY)
    numbers = [*struct.unpack(">QQQ", content[Header.SIZE - 24 : Header.SIZE])]
    numbers[field] = count
    path = tmp_path / "hostile.bauta"
    path.write_bytes(content[: Header.SIZE - 24] + struct.pack(">QQQ", *numbers) + content[Header.SIZE :])
    with pytest.raises(GalleryDamaged, match="its header and its size do not agree"):
        read_gallery(path, KEY)


def test_a_file_that_is_no_gallery_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (
        b"",
        b"x",
        b"x" * 5000,
        b"\0" * 5000,
        b"[" * 100_000,
        b'{"a": 1}',
        b"\xff\xd8\xff\xe0" + b"x" * 500,
    ):
        path.write_bytes(content)
        with pytest.raises(GalleryDamaged, match="not a gallery"):
            read_gallery(path, KEY)
    for where in (tmp_path, tmp_path / "none"):
        with pytest.raises(GalleryError, match="cannot be read"):
            read_gallery(where, KEY)


def test_a_gallery_sent_as_text_is_refused() -> None:
    content = seal_gallery(small_gallery(3, 4), KEY)
    assert refused(content.replace(b"\r\n", b"\n"))
    assert refused(content.decode("latin-1").encode("utf-8"))


def test_another_version_is_said(tmp_path: Path) -> None:
    content = seal_gallery(small_gallery(3, 4), KEY)
    with pytest.raises(GalleryVersion, match="version 2"):
        open_gallery(content[:8] + b"\0\2" + content[10:], KEY)
    old = tmp_path / "old.safetensors"
    write_unsealed(old, rows(), ["a", "b", "c"])
    with pytest.raises(GalleryVersion, match="before galleries were sealed") as caught:
        read_gallery(old, KEY)
    assert "bauta templates upgrade" in caught.value.hint


# Writing


def test_nothing_but_a_gallery_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "faces.bauta"
    gallery = small_gallery()
    write_gallery(path, gallery, KEY)
    with pytest.raises(OutputExists, match="exists already"):
        write_gallery(path, small_gallery(seed=1), KEY)
    assert same(read_gallery(path, KEY), gallery)
    write_gallery(path, small_gallery(seed=1), KEY, overwrite=True)
    assert not same(read_gallery(path, KEY), gallery)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8 a photo")
    with pytest.raises(OutputExists, match="only a gallery is replaced"):
        write_gallery(photo, gallery, KEY, overwrite=True)
    assert photo.read_bytes() == b"\xff\xd8 a photo"
    for where in (tmp_path, tmp_path / "none" / "gallery"):
        with pytest.raises(OutputError, match="folder"):
            require_free(where, overwrite=True)
    with pytest.raises(UsageError, match="galleries are sealed"):
        require_free(tmp_path / "new.safetensors")


def test_what_cannot_be_sealed_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in (("a", "b"), ("a", "b", ""), ("a", "b", "x" * 4097), ("a", "b", "\ud800")):
        with pytest.raises(UsageError):
            Gallery(rows(), names)
    with pytest.raises(UsageError, match="reference key"):
        Gallery(rows(key="0123456789abcdef"), ("a", "b", "c"))
    with monkeypatch.context() as patch:  # what could not be read again is not written
        patch.setattr(files, "LARGEST_FILE", len(seal_gallery(small_gallery(), KEY)) - 1)
        with pytest.raises(UsageError, match="more than a file may have"):
            seal_gallery(small_gallery(), KEY)
    twice = new_id()
    for records in ((twice, twice, new_id()), (new_id(), new_id()), (b"1", b"2", b"3")):
        with pytest.raises(UsageError, match="ids"):
            Gallery(rows(), ("a", "b", "c"), records=records)


# Rotation


def test_a_rotation_enrols_nobody_again(tmp_path: Path) -> None:
    path = tmp_path / "faces.bauta"
    gallery = small_gallery(4)
    first = write_gallery(path, gallery, KEY)
    before = parts(path.read_bytes())
    second = rotate_gallery(path, KEY, key_of(1))
    assert len({first, second, key_id(path.read_bytes())}) == 2
    after = parts(path.read_bytes())
    windows = [{part[at : at + 8] for part in all_[2] for at in range(len(part) - 7)} for all_ in (before, after)]
    assert not windows[0] & windows[1]  # every record is sealed again, under another data key
    assert same(read_gallery(path, key_of(1)), gallery)
    with pytest.raises(WrongKey):
        read_gallery(path, KEY)
    rotate_gallery(path, key_of(1), PHRASE, cost=CHEAP)
    assert same(read_gallery(path, PHRASE), gallery)


def test_a_rotation_that_fails_leaves_the_gallery_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "faces.bauta"
    write_gallery(path, small_gallery(), KEY)
    content = path.read_bytes()
    with pytest.raises(WrongKey):
        rotate_gallery(path, key_of(1), key_of(2))
    with pytest.raises(UsageError, match="new key is the old one"):
        rotate_gallery(path, KEY, key_of(0))
    other = seal_gallery(small_gallery(seed=5), key_of(1))
    with monkeypatch.context() as patch:  # as a fault of the memory would have it
        patch.setattr(files, "seal_gallery", lambda *_: other)
        with pytest.raises(GalleryError, match="differs"):
            rotate_gallery(path, KEY, key_of(1))
    with monkeypatch.context() as patch:
        patch.setattr("bauta.photo.files.os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OutputError, match="No space left"):
            rotate_gallery(path, KEY, key_of(1))
    assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["faces.bauta"]


@pytest.mark.parametrize(
    "change",
    [{"shape": [2]}, {"shape": [1 << 60]}, {"shape": [[4]]}, {"kind": "voice"}, {"kind": ["template"]},
     {"storage": "float16"}, {"storage": "uint8"}, {"recognizer_sha256": "c" * 64}, {"protector_sha256": "x"},
     {"low": [0.0]}, {"more": 1}],
)  # fmt: skip
def test_a_format_that_does_not_fit_is_refused_whoever_sealed_it(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    gallery = small_gallery(3, 4)
    text = json.dumps({**json.loads(gallery.representation.format.to_json()), **change})
    with monkeypatch.context() as patch:
        patch.setattr(RowFormat, "to_json", lambda self: text)
        content = seal_gallery(gallery, KEY)
    with pytest.raises(GalleryDamaged, match="not a gallery of this version"):
        open_gallery(content, KEY)
