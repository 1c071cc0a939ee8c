"""A photo of a run as the page knows it, and what is asked for the whole album."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from bauta.cloaking.settings import Choice, Strength
from bauta.web.worker import Job

State = Literal["waiting", "looking", "ready", "queued", "working", "done", "failed"]
"""Of a photo: its faces are to be looked for, are being looked for, are known; it is to be protected, is being
protected, was; or something is wrong with it."""

STRENGTHS: tuple[Strength, ...] = get_args(Strength)
OTHERS = ("leave", "blur")


@dataclass(frozen=True)
class Wishes:
    """What is asked for the whole album.

    Attributes:
        strength: How visible masks may be.
        method: Name of the cloak.
        cover: Whether a face that no mask protects is blurred.
        metadata: What of it stays.
        others: What becomes of the faces of others, once a person was picked.
        message: For a method that hides one.
        erasable: Whether what was under the masks travels in the file, sealed under the key ``owner``.
    """

    strength: Strength = "medium"
    method: str = ""
    cover: bool = False
    metadata: Literal["private", "strip"] = "private"
    others: Literal["leave", "blur"] = "leave"
    message: str = ""
    erasable: bool = False


@dataclass
class Entry:
    """One photo.

    Attributes:
        id: Of its folder.
        name: Of the file, for people.
        folder: Its own, below the private one.
        source: Where it lies, when it was named on the command line.
        state: See `State`.
        version: Count of the album when it last changed.
        size: Of the file, in bytes.
        facts: Size in pixels, format and ending, once known.
        faces: Number, box and whether it is too small for a mask, largest first.
        people: An embedding for each face.
        limit: Cosine from which on two embeddings are one person's.
        choices: What is done to each face by number.
        strength: Of its own, when it was retried.
        sketched: Count of the sketches that were made.
        sketching: A sketch is being made.
        result: What became of it.
        error: What is wrong with it.
        progress: Stage and steps of what is being done.
        released: A weak result is taken all the same.
        saved: Where a result lies beside its original.
        job: What is being done to it, or waits to be.
        sketch: The sketch that is being made, or waits to be.
    """

    id: str
    name: str
    folder: Path
    source: Path | None = None
    state: State = "waiting"
    version: int = 0
    size: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    faces: list[dict[str, Any]] = field(default_factory=list)
    people: list[list[float]] = field(default_factory=list)
    limit: float | None = None
    choices: dict[int, Choice] = field(default_factory=dict)
    strength: Strength | None = None
    sketched: int = 0
    sketching: bool = False
    result: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    progress: dict[str, Any] | None = None
    released: bool = False
    saved: str | None = None
    job: Job | None = None
    sketch: Job | None = None
    began: float = 0.0

    @property
    def masks(self) -> int:
        """How many faces are to get a mask."""
        return sum(choice == "protect" for choice in self.choices.values())

    @property
    def deliverable(self) -> bool:
        """Whether there is a result that is handed out."""
        return self.state == "done" and self.result is not None and (not self.result["held"] or self.released)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the page."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "version": self.version,
            **self.facts,
            "faces": [{**face, "choice": self.choices.get(face["number"], "protect")} for face in self.faces],
            "known": self.limit is not None,
            "strength": self.strength,
            "sketched": self.sketched,
            "sketching": self.sketching,
            "result": self.result,
            "error": self.error,
            "progress": self.progress,
            "released": self.released,
            "deliverable": self.deliverable,
            "beside": self.source is not None,
            "saved": self.saved,
        }
