"""What a run over many photos knows of its products, and what a run that was killed leaves behind.

One record for each photo in ``DIR/.bauta``: the hashes of the source, of the product and of its reports, and two
fingerprints, of what made the product and of what judged it. Work in progress lies in scratch folders beside the
records, each under a lock that ends with its process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from bauta.photo import Photo

RECORDS = ".bauta"

SCHEMA = "bauta.record/3"
_BESIDE = "bauta.record/2"
"""An earlier schema: reports lay beside the product, and one fingerprint stood for mask and judges together."""

LONGEST_NAME = 255
"""Bytes of a file name that file systems take."""


def digest_of_path(path: Path) -> str:
    """Tells sources apart without writing down where a person keeps photos."""
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()


def digest_of_file(path: Path | Photo) -> str:
    """SHA-256 of a file, or of what a photo in memory was read from, in hexadecimal."""
    if isinstance(path, Photo):
        return path.sha256
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fitting_name(stem: str, ending: str) -> str:
    """A file name that file systems take: a stem that is too long is cut and marked with its hash."""
    if len(os.fsencode(stem + ending)) <= LONGEST_NAME:
        return stem + ending
    ending = f"~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:16]}{ending}"
    while stem and len(os.fsencode(stem + ending)) > LONGEST_NAME:
        stem = stem[:-1]
    return stem + ending


@dataclass(frozen=True)
class Record:
    """What is known of one photo and its product. Places are below the output folder, with ``/`` between folders.

    Attributes:
        source: `digest_of_path` of the source.
        source_sha256: Of its bytes.
        mask: Fingerprint of everything that made the product; "" when that is not known.
        judging: Fingerprint of everything that judged it.
        product: Place of the product.
        files: SHA-256 of the product and of its reports, by place.
        earlier: The same of what they replace, should the run have ended before it was gone.
        faces: Boxes of the masked faces, and what the masks took.
        outcome: `Outcome.to_dict`, without what the places tell.
        report: Place of the page; None without one.
    """

    source: str
    source_sha256: str
    mask: str
    judging: str
    product: str
    files: dict[str, str]
    earlier: dict[str, str]
    faces: list[dict[str, Any]]
    outcome: dict[str, Any]
    report: str | None

    def unchanged(self, directory: Path) -> dict[str, str]:
        """Places and hashes of the files that are as they were written, or as they were before that."""
        found = {}
        for name in {**self.earlier, **self.files}:
            path = directory / name
            if path.is_file() and not path.is_symlink():
                digest = digest_of_file(path)
                if digest in (self.files.get(name), self.earlier.get(name)):
                    found[name] = digest
        return found

    def page(self, directory: Path) -> Path | None:
        """The page of the report; None without one."""
        return directory / self.report if self.report else None

    def to_json(self) -> str:
        """The content of the record's file."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)


def record_path(directory: Path, place: Path) -> Path:
    """Where the record of a product lies.

    Args:
        directory: The output folder.
        place: Where the product belongs, below it; a weak one has its record here too.
    """
    return directory / RECORDS / place.with_name(fitting_name(place.name, ".json"))


def read_record(directory: Path, place: Path) -> Record | None:
    """The record of a product; None when there is none that can be used."""
    try:
        content = json.loads(record_path(directory, place).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    schema = content.pop("schema", None)
    try:
        if schema == _BESIDE:
            return _from_beside(content, place)
        return _checked(Record(**content)) if schema == SCHEMA else None
    except (TypeError, KeyError, AttributeError):
        return None


def _checked(record: Record) -> Record | None:
    """None when a file of the record would lie outside the output folder, or a field is not what it should be."""
    if not all(isinstance(part, dict) for part in (record.files, record.earlier, record.outcome)):
        return None
    if not isinstance(record.faces, list) or record.product not in record.files:
        return None
    names = [record.product, *record.files, *record.earlier, record.report or ""]
    outside = any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in names)
    return None if outside else record


def _from_beside(content: dict[str, Any], place: Path) -> Record | None:
    """A record of the earlier schema: the files are known as ours, but the product is to be made anew."""

    def below(files: dict[str, str]) -> dict[str, str]:
        return {(place.parent / name).as_posix(): digest for name, digest in files.items()}

    record = Record(
        source=content["source"],
        source_sha256=content["source_sha256"],
        mask="",
        judging="",
        product=place.as_posix(),
        files=below(content["files"]),
        earlier=below(content["earlier"]),
        faces=[],
        outcome={},
        report=None,
    )
    return _checked(record)


@contextlib.contextmanager
def scratch_folder(directory: Path) -> Iterator[Path]:
    """A folder for a photo in the making, for nobody else's eyes; gone when the work ends, however it ends.

    A lock beside it tells other runs, also those in other containers, that somebody is at work.
    """
    folder = directory / RECORDS / f"part-{secrets.token_hex(8)}"
    lock = _lock_of(folder)
    try:
        with lock:
            folder.mkdir(mode=0o700)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        _remove(lock)


def remove_orphans(directory: Path) -> None:
    """Remove the scratch folders that nobody works in any more: they may hold unprotected faces."""
    for folder in (directory / RECORDS).glob("part-*"):
        if not folder.is_dir():
            continue
        lock = _lock_of(folder)
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
            _remove(lock)
        except (Timeout, OSError, NotImplementedError):  # at work, or a file system without locks
            continue


def _remove(lock: FileLock) -> None:
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_suffix(".lock"))
