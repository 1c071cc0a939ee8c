"""Drafts: files that get their name only when they are whole, and what becomes of those that never do.

A draft lies in the folder of what it will be, ``.bauta-<random>.part``, and whoever writes it holds a lock on it. A
process that is killed leaves its draft behind, but not its lock: by that the next run knows it, and removes it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PATTERN = ".bauta-*.part"


def claim_draft(stream: BinaryIO, *, required: bool = False) -> None:
    """Hold a draft for as long as it is open; where the file system knows no locks, none is removed either.

    Args:
        stream: The draft.
        required: Raise OSError when another process holds it, or there are no locks.
    """
    try:
        _lock(stream)
    except OSError:
        if required:
            raise


def remove_drafts(folder: Path) -> int:
    """Remove the drafts of killed processes in a folder, and return how many; those being written stay."""
    removed = 0
    for path in sorted(folder.glob(PATTERN)):
        with suppress(OSError):  # locked, or not ours to remove
            with path.open("rb") as stream:
                _lock(stream)
            path.unlink()
            removed += 1
    return removed


def _lock(stream: BinaryIO) -> None:
    """Take the lock, or raise OSError at once when another process has it.

    Windows has no such lock; there a file that another process has open cannot be removed, which serves as well.
    """
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
