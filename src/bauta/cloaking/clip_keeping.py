"""What is known of a clip's finished shots, so that a run that was killed goes on from there.

One file for each shot with where its faces are, and one for each mask. Neither shows a face, but they tell where faces
were, and a mask can be taken off by whoever has it: they lie where other users cannot look, and go when the clip is
done.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bauta.cloaking.records import RECORDS, digest_of_path
from bauta.errors import PhotoError
from bauta.faces.tracking import Track

Arrays = Mapping[str, NDArray[Any]]
_NAMES = [one.name for one in fields(Track)]


@dataclass(frozen=True)
class KeptShot:
    """A shot whose faces were followed to its end.

    Attributes:
        tracks: Of its faces.
        until: Number of the first frame after it.
        limited: Whether a search for faces was not whole.
    """

    tracks: tuple[Track, ...]
    until: int
    limited: bool


class Keeping:
    """Keeps what is finished of one clip in a folder, or nothing without one.

    Args:
        folder: Of this clip; made when it is not there.
        fingerprint: Of the clip and of everything that is done to it; what was kept under another one is removed.
    """

    def __init__(self, folder: Path | None = None, fingerprint: str = "") -> None:
        self.folder = folder
        if folder is None:
            return
        note = folder / "of"
        try:
            same = note.read_text(encoding="utf-8") == fingerprint
        except (OSError, ValueError):
            same = False
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
            note.write_text(fingerprint, encoding="utf-8")

    @classmethod
    @contextlib.contextmanager
    def of(cls, directory: Path, source: Path, fingerprint: str) -> Iterator[Keeping]:
        """What is kept of a clip beside the records of an output folder, until nothing is left to be done."""
        keeping = cls(directory / RECORDS / f"clip-{digest_of_path(source)[:32]}", fingerprint)
        try:
            yield keeping
        except PhotoError:  # another run would come to the same end
            keeping.done()
            raise
        keeping.done()

    def shots(self) -> list[KeptShot]:
        """The shots from the first on, as far as they are there."""
        found: list[KeptShot] = []
        while (kept := self._read(f"shot-{len(found)}")) is not None:
            tracks = [
                Track(**{name: _plain(kept[f"{at}.{name}"]) for name in _NAMES}) for at in range(int(kept["tracks"]))
            ]
            found.append(KeptShot(tuple(tracks), int(kept["until"]), bool(kept["limited"])))
        return found

    def keep_shot(self, number: int, tracks: Sequence[Track], until: int, limited: bool) -> None:
        """Keep a shot."""
        values = {f"{at}.{name}": getattr(track, name) for at, track in enumerate(tracks) for name in _NAMES}
        self._write(f"shot-{number}", {**values, "tracks": len(tracks), "until": until, "limited": limited})

    def mask(self, face: int) -> Arrays | None:
        """The mask of a face, by its number in the clip; None when it is not there."""
        return self._read(f"mask-{face}")

    def keep_mask(self, face: int, parts: Arrays) -> None:
        """Keep a mask."""
        self._write(f"mask-{face}", parts)

    def done(self) -> None:
        """The clip is finished: nothing of it is needed any more."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str) -> Arrays | None:
        if self.folder is None:
            return None
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as content:
                return dict(content)
        except (OSError, ValueError, BadZipFile):
            return None

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        """In one go; a full disk does not stop the run here: what cannot be kept is made again."""
        if self.folder is None:
            return
        draft = self.folder / "draft.npz"
        with contextlib.suppress(OSError):
            np.savez(draft, **content)
            draft.replace(self.folder / f"{name}.npz")


def _plain(value: NDArray[Any]) -> Any:
    return value if value.ndim else value.item()
