"""What a run over many photos knows of its products, and what a run that was killed leaves behind.

One record for each photo in ``DIR/.bauta``: the hashes of the source, of the product and of its reports, and a
fingerprint of the settings. Work in progress lies in scratch folders beside the records.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

RECORDS = ".bauta"

SCHEMA = "bauta.record/2"

LONGEST_NAME = 255
"""Bytes of a file name that file systems take."""


def digest_of_path(path: Path) -> str:
    """Tells sources apart without writing down where a person keeps photos."""
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256, hexadecimal."""
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


def record_path(directory: Path, target: Path) -> Path:
    """Where the record of a product lies, below the output folder."""
    place = target.relative_to(directory)
    return directory / RECORDS / place.with_name(fitting_name(place.name, ".json"))


def read_record(path: Path) -> dict[str, Any]:
    """The record of a photo; empty when there is none that can be used."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    complete = (
        isinstance(record, dict)
        and record.get("schema") == SCHEMA
        and {"source_sha256", "fingerprint", "files", "earlier", "outcome"} <= record.keys()
    )
    return record if complete else {}


def unchanged(folder: Path, known: dict[str, Any]) -> dict[str, str]:
    """Names and hashes of the files in a folder that are as a record has them, new or as they were before."""
    found = {}
    for name in {**known.get("earlier", {}), **known.get("files", {})}:
        path = folder / name
        if path.is_file() and not path.is_symlink():
            digest = digest_of_file(path)
            if digest in (known["files"].get(name), known["earlier"].get(name)):
                found[name] = digest
    return found


def scratch_prefix() -> str:
    """How scratch folders begin, before the process id, which means something on its own machine only."""
    return f"part-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}-"


def remove_orphans(directory: Path) -> None:
    """Remove the scratch folders of processes that are gone: they may hold unprotected faces."""
    prefix = scratch_prefix()
    for folder in (directory / RECORDS).glob(f"{prefix}*"):
        process = folder.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Whether there is a process of this id; on Windows, where signal 0 is Ctrl-C, nobody asks."""
    if sys.platform != "win32":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):  # somebody else's, or no id of ours
            return True
    return True
