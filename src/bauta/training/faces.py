"""Aligned faces for training: readers of the usual forms, a packed form that is read at once, and who is left out.

All faces are 112x112 RGB, aligned to the ArcFace template. Two forms are read: folders ``person/image``, and the
RecordIO files of MXNet that InsightFace and Glint360K are handed out in.

People are one when `normalise_name` makes their names equal, so that those of a benchmark can be kept out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import secrets
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from bauta.data.images import ByteArray, decode, images_of_people
from bauta.data.people import lines_of
from bauta.drafts import claim_draft, remove_drafts
from bauta.errors import OutputError, UsageError
from bauta.files import make_folder, write_atomically
from bauta.names import normalise_name

SIDE = 112
FACE_SHAPE = (SIDE, SIDE, 3)
CARD = "faces.json"

_RECORD_MAGIC = struct.pack("<I", 0xCED7230A)
_RECORD_HEADER = struct.Struct("<IfQQ")


@dataclass(frozen=True)
class EncodedFace:
    """One aligned face as it lies in its source.

    Attributes:
        person: Whose it is.
        content: The bytes of a JPEG, PNG or WebP file.
        origin: Where it was found, for messages.
    """

    person: str
    content: bytes
    origin: str

    def decode(self) -> ByteArray:
        """(112, 112, 3) uint8 RGB.

        Raises:
            UnreadablePhoto: when the bytes are not such an image, or a damaged one.
            UsageError: when the image has another size.
        """
        pixels = decode(self.content, self.origin)
        if pixels.shape != FACE_SHAPE:
            raise UsageError(
                f"{self.origin} has {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIDE}x{SIDE}.",
                hint="Cut faces by the ArcFace template first, as `bauta.faces.alignment.extract_crops` does.",
            )
        return pixels


def read_folder(folder: Path) -> Iterator[EncodedFace]:
    """The faces of a folder ``person/image``, sorted by person and file; other files are passed over.

    Raises:
        UsageError: when there are no such images.
    """
    for person, path in images_of_people(folder):
        yield EncodedFace(person, path.read_bytes(), str(path))


def read_records(path: Path) -> Iterator[EncodedFace]:
    """The faces of a RecordIO file in the order of the file.

    A record is the magic number, three bits that say whether it goes on, its length, and its bytes up to a
    multiple of four; a record is cut where it holds the magic number itself (dmlc-core, recordio.h). In it are
    flag, label and two numbers (MXNet's IRHeader), as many further labels as the flag says, and an image. Records
    without an image describe the set (InsightFace writes them with flag 2) and are passed over.

    A person has no name in this form, only a number: ``folder/train 00000017``. Excluding by name cannot reach them.

    Args:
        path: The ``.rec``. When the ``.idx`` beside it is there, it must list as many records.

    Raises:
        UsageError: when the file has another form, ends early, or holds no faces.
    """
    found = False
    records = 0
    try:
        with path.open("rb") as stream:
            while (record := _next_record(stream, path)) is not None:
                records += 1
                face = _face_of_record(record, path, records)
                if face is not None:
                    found = True
                    yield face
        index = path.with_suffix(".idx")
        listed = len(lines_of(index)) if index.exists() else records
    except OSError as error:
        raise _no_records(path, f"cannot be read: {error.strerror or error}") from error
    if listed != records:
        raise _no_records(path, f"has {records} records, its index lists {listed}")
    if not found:
        raise _no_records(path, "holds no faces")


def _next_record(stream: BinaryIO, path: Path) -> bytes | None:
    parts: list[bytes] = []
    while head := stream.read(8):
        if len(head) < 8 or head[:4] != _RECORD_MAGIC:
            raise _no_records(path, "has no record where one should begin")
        continues, length = divmod(int.from_bytes(head[4:], "little"), 1 << 29)
        padded = stream.read(length + -length % 4)
        if len(padded) < length + -length % 4:
            raise _no_records(path, "ends within a record")
        # 0 is a whole record; 1, 2 and 3 are the first, a middle and the last part of one.
        if continues not in ((2, 3) if parts else (0, 1)):
            raise _no_records(path, "has the parts of a record in disorder")
        parts.append(padded[:length])
        if continues in (0, 3):
            return _RECORD_MAGIC.join(parts)
    if parts:
        raise _no_records(path, "ends within a record")
    return None


def _face_of_record(record: bytes, path: Path, number: int) -> EncodedFace | None:
    if len(record) < _RECORD_HEADER.size:
        raise _no_records(path, f"has a record {number} of {len(record)} bytes")
    flag, label, _, _ = _RECORD_HEADER.unpack_from(record)
    image = record[_RECORD_HEADER.size + 4 * flag :]
    if not image:
        return None
    if flag:
        (label,) = struct.unpack_from("<f", record, _RECORD_HEADER.size)
    if not (label >= 0 and float(label).is_integer()):
        raise _no_records(path, f"has {label} for a person in record {number}")
    return EncodedFace(f"{path.parent.name}/{path.stem} {int(label):08d}", image, f"{path}, record {number}")


def _no_records(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} {what}.", hint="A whole RecordIO file of MXNet is wanted; fetch it again.")


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Decoded faces.

    Attributes:
        pixels: (N, 112, 112, 3) uint8 RGB, often mapped from a file and not to be written to.
        people: N names; equal names are one person.
        sha256: Digest of people and pixels, 64 hexadecimal digits; see `FaceSet.of`.
        sources: N names of the sources the faces came from, or none when nobody asked.

    Raises:
        UsageError: when shapes disagree.
    """

    pixels: ByteArray
    people: tuple[str, ...]
    sha256: str
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.shape != (len(self.people), *FACE_SHAPE):
            raise UsageError(
                f"Pixels {self.pixels.dtype}{list(self.pixels.shape)} are not {len(self.people)} faces.",
                hint="Give uint8 of shape (N, 112, 112, 3) and a name for each.",
            )
        if self.sources and len(self.sources) != len(self.people):
            raise UsageError(f"{len(self.people)} faces have {len(self.sources)} sources.", hint="Name one for each.")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise UsageError(f"{self.sha256!r} is not a SHA-256 digest.", hint="FaceSet.of computes it.")

    @classmethod
    def of(cls, pixels: ByteArray, people: Sequence[str], sources: Sequence[str] = ()) -> FaceSet:
        """A set with its digest, which reads all pixels once."""
        digest = _digest_of_people(people)
        for start in range(0, len(pixels), 256):
            digest.update(np.ascontiguousarray(pixels[start : start + 256]).data)
        return cls(pixels, tuple(people), digest.hexdigest(), tuple(sources))


@dataclass(frozen=True)
class SourceCount:
    """What became of one source when it was packed."""

    name: str
    people: int
    images: int
    excluded_people: int
    excluded_images: int


def read_source(path: Path) -> Iterator[EncodedFace]:
    """The faces of a folder or of a ``.rec`` file."""
    return read_records(path) if path.suffix == ".rec" else read_folder(path)


def pack(
    sources: Sequence[Path], folder: Path, exclude: Collection[str] = ()
) -> tuple[FaceSet, tuple[SourceCount, ...]]:
    """Decode everything once into a file that is mapped instead of read, and leave out who must not be there.

    The folder gets ``faces-<digest>.npy`` and, last and at once, the card ``faces.json`` that names it, so that an
    interrupted call leaves what was there before; the draft of a killed one is removed by the next. The sources are
    read twice: first to count them and to take their digest; when the card has the same one, nothing is decoded. Our
    design.

    Args:
        sources: Folders ``person/image`` and ``.rec`` files. Names that differ only in what `normalise_name`
            takes away become one person, under the first spelling.
        folder: Where to pack; made when missing.
        exclude: Names of people to leave out, in any spelling of `normalise_name`. The people of ``.rec`` files
            are numbers, which the names of a benchmark cannot reach.

    Returns:
        The set, and the counts of each source.

    Raises:
        UsageError: when a source has another form, or nobody is left.
        UnreadablePhoto: when an image is damaged.
        OutputError: when the files cannot be written.
    """
    if len({path.resolve() for path in sources}) < len(sources):
        raise UsageError("A source is named twice.", hint="Name each folder or file once.")
    remove_drafts(folder)
    excluded = {normalise_name(name) for name in exclude}
    survey = _survey(sources, excluded)
    if not survey.people:
        raise UsageError("No faces are left to pack.", hint="Name more sources, or exclude fewer people.")
    old = _read_card(folder) if (folder / CARD).exists() else {}
    if old.get("sources_sha256") != survey.sha256 or not (folder / str(old["pixels"])).is_file():
        try:
            _write_packed(sources, folder, excluded, survey)
        except OSError as error:
            raise OutputError(
                f"The faces cannot be packed into {folder}: {error.strerror or error}.",
                hint=f"Check that it can be written and has room for {len(survey.people) * SIDE * SIDE * 3} bytes.",
            ) from error
        if old and old["pixels"] != _read_card(folder)["pixels"]:
            (folder / str(old["pixels"])).unlink(missing_ok=True)
    return open_packed(folder), survey.counts


def open_packed(folder: Path, *, check: bool = True) -> FaceSet:
    """The set that `pack` wrote; its pixels are mapped read-only.

    Args:
        folder: The folder it was packed into.
        check: Whether to read all pixels once and compare their digest.

    Raises:
        UsageError: when nothing is packed there, or it is damaged.
    """
    card = _read_card(folder)
    runs = card["runs"]
    people = tuple(itertools.chain.from_iterable([person] * count for person, _, count in runs))
    names = [source["name"] for source in card["sources"]]
    sources = tuple(itertools.chain.from_iterable([names[source]] * count for _, source, count in runs))
    try:
        pixels = np.load(folder / card["pixels"], mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(folder) from error
    faces = FaceSet(pixels, people, card["sha256"], sources)
    if check and FaceSet.of(pixels, people).sha256 != faces.sha256:
        raise _damaged(folder)
    return faces


@dataclass(frozen=True)
class _Survey:
    """What the first reading tells: one person and one source for each face to keep, in order."""

    sha256: str
    people: tuple[str, ...]
    sources: tuple[int, ...]
    counts: tuple[SourceCount, ...]


def _survey(sources: Sequence[Path], excluded: set[str]) -> _Survey:
    digest = hashlib.sha256()
    spelling: dict[str, str] = {}
    people: list[str] = []
    places: list[int] = []
    counts: list[SourceCount] = []
    for place, source in enumerate(sources):
        kept: list[str] = []
        dropped: list[str] = []
        for face in read_source(source):
            key = normalise_name(face.person)
            if key in excluded:
                dropped.append(key)
                continue
            kept.append(spelling.setdefault(key, face.person))
            head = json.dumps([source.name, face.person, len(face.content)])
            digest.update(head.encode() + face.content)
        people += kept
        places += [place] * len(kept)
        counts.append(SourceCount(source.name, len(set(kept)), len(kept), len(set(dropped)), len(dropped)))
    return _Survey(digest.hexdigest(), tuple(people), tuple(places), tuple(counts))


def _write_packed(sources: Sequence[Path], folder: Path, excluded: set[str], survey: _Survey) -> None:
    make_folder(folder)
    digest = _digest_of_people(survey.people)
    written = 0
    temporary = folder / f".bauta-{secrets.token_hex(8)}.part"
    try:
        with temporary.open("xb") as stream:
            claim_draft(stream)
            shape = (len(survey.people), *FACE_SHAPE)
            np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for face in itertools.chain.from_iterable(map(read_source, sources)):
                if normalise_name(face.person) not in excluded:
                    content = face.decode().tobytes()
                    digest.update(content)
                    stream.write(content)
                    written += 1
            stream.flush()
            os.fsync(stream.fileno())
        if written != len(survey.people):
            raise UsageError("The sources changed while they were read.", hint="Pack again.")
        card = {
            "pixels": f"faces-{digest.hexdigest()[:16]}.npy",
            "sha256": digest.hexdigest(),
            "sources_sha256": survey.sha256,
            "sources": [asdict(count) for count in survey.counts],
            "runs": [
                [person, source, len(list(run))]
                for (person, source), run in itertools.groupby(zip(survey.people, survey.sources, strict=True))
            ],
        }
        temporary.replace(folder / str(card["pixels"]))
    finally:
        temporary.unlink(missing_ok=True)
    write_atomically(folder / CARD, (json.dumps(card) + "\n").encode(), overwrite=True)


def _digest_of_people(people: Sequence[str]) -> hashlib._Hash:
    return hashlib.sha256(json.dumps(list(people)).encode())


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        whole = {"pixels", "sha256", "sources_sha256", "sources", "runs"} <= card.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{folder} holds no packed faces.", hint="Pack them with bauta.training.faces.pack."
        ) from error
    if not whole or not re.fullmatch(r"faces-[0-9a-f]{16}\.npy", str(card["pixels"])):
        raise _damaged(folder)
    return card


def _damaged(folder: Path) -> UsageError:
    return UsageError(f"The faces packed in {folder} are damaged.", hint=f"Delete {CARD} there and pack them again.")


def blend_pairs(
    count: int, people: Sequence[str], generator: torch.Generator, *, sources: Sequence[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of faces whose averages serve as further identities.

    The first face is drawn evenly from all that have a partner, the second from the faces of other people.

    Args:
        count: Pairs wanted; they may repeat.
        people: The person of each face.
        generator: Of the randomness, on the CPU.
        sources: The source of each face; when given, both faces are of one source, and so of one image quality.

    Returns:
        (count, 2) indices, and (count,) weights of the first face in [0.35, 0.65].

    Raises:
        UsageError: when no two faces can be paired.
    """
    if count == 0:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    group = _ranks(sources) if sources else np.zeros(len(people), np.int64)
    person = _ranks(people)
    if len(group) != len(person):
        raise UsageError(f"{len(person)} faces have {len(group)} sources.", hint="Name one for each.")
    # Sorted so, a source's faces are a stretch in which each person's are a stretch of their own.
    order = np.lexsort((person, group))
    first_of_group, group_size = _stretches(group[order])
    first_of_person, person_size = _stretches((group * (person.max(initial=0) + 1) + person)[order])
    others = group_size - person_size
    paired = np.flatnonzero(others)
    if not len(paired):
        raise UsageError("There are no two people to blend.", hint="Give faces of several people in one source.")
    draws = torch.rand((3, count), generator=generator, dtype=torch.float64).numpy()
    first = paired[_indices(draws[0], len(paired))]
    second = first_of_group[first] + _indices(draws[1], others[first])
    second += (second >= first_of_person[first]) * person_size[first]
    weights = (0.35 + 0.3 * draws[2]).astype(np.float32)
    return order[np.stack([first, second], axis=1)], weights


def blend(pixels: ByteArray, pairs: NDArray[np.int64], weights: NDArray[np.float32]) -> ByteArray:
    """The weighted averages of pairs of faces, (count, 112, 112, 3) uint8.

    Args:
        pixels: (N, 112, 112, 3) uint8.
        pairs: (count, 2) indices into them.
        weights: (count,) of the first of each pair, in [0, 1].
    """
    share = weights.astype(np.float32)[:, None, None, None]
    mixed = share * pixels[pairs[:, 0]] + (1 - share) * pixels[pairs[:, 1]]
    return np.rint(mixed).astype(np.uint8)


def _ranks(names: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)


def _stretches(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of some sorted values, where its equals begin and how many there are."""
    start = np.searchsorted(values, values, "left")
    return start, np.searchsorted(values, values, "right") - start


def _indices(draws: NDArray[np.float64], sizes: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Whole numbers below the sizes from draws in [0, 1)."""
    below: NDArray[np.int64] = np.minimum((draws * sizes).astype(np.int64), np.asarray(sizes) - 1)
    return below
