"""The private folder of a run: readable for its owner alone, and gone when the run ends, however it ends."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bauta.drafts import claim_draft

_PREFIX = "bauta-web-"
_LOCK = ".lock"
_TRIES = 100


class PrivateFolder:
    """A folder with mode 0700, below the system's folder for temporary files unless told otherwise.

    Whoever holds it keeps a lock on a file in it. A run that is killed cannot tidy up, but loses its lock: the next run
    knows the folder by that, and removes it.

    Args:
        parent: Where to make it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = (self.path / _LOCK).open("wb")
        claim_draft(self._lock)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        self._lock.close()
        _remove(self.path)


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: should something be left, the next run finds it by that.

    What is about to end may still be writing; so it is looked at again.
    """
    for _ in range(_TRIES):
        for path in folder.iterdir() if folder.exists() else ():
            if path.name == _LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        try:
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            with suppress(OSError):
                (folder / _LOCK).touch()
            time.sleep(0.05)
        else:
            return


def remove_abandoned(parent: Path) -> int:
    """Remove the folders of our own killed runs, and return how many."""
    removed = 0
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            if not stat.S_ISDIR(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
                continue
            with (folder / _LOCK).open("rb") as stream:
                claim_draft(stream, required=True)
            (folder / _LOCK).rename(folder / _LOCK)  # Windows refuses while another process has it open
            _remove(folder)
            removed += not folder.exists()
    return removed
