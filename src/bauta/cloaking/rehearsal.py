"""What a run would do, without doing it: which faces, where, and about how long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bauta.clips.animation import FORMATS
from bauta.clips.clip import is_clip_name
from bauta.cloaking.apply import Picture, edit_pictures, refused
from bauta.cloaking.outcomes import Outcome
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.settings import ProtectSettings
from bauta.errors import BautaError, UnsupportedPhoto
from bauta.faces.faces import Faces
from bauta.judging import words
from bauta.judging.conditions import CONDITIONS, SAVED
from bauta.judging.verification import verify_faces
from bauta.photo import Photo, read_photo
from bauta.progress import Progress, silent
from bauta.schema import json_schema, plain

SCHEMA: Literal["bauta.plan/1"] = "bauta.plan/1"

Planned = Literal["mask", "blur", "pixelate", "none", "left"]

_TRIAL = 3.0
"""Seconds that a mask is tried for to learn how long a whole one takes."""


@dataclass(frozen=True)
class PlannedFace:
    """One face of a photo.

    Attributes:
        number: From 1.
        name: What sentences will call it.
        box: x1, y1, x2, y2 in pixels of the upright photo.
        treatment: What would be done to it: ``mask``, ``blur`` or ``pixelate``; ``none`` where nothing can be done,
            ``left`` where nothing is asked for.
    """

    number: int
    name: str
    box: tuple[float, float, float, float]
    treatment: Planned

    @property
    def size(self) -> str:
        """Width and height, for people."""
        left, top, right, bottom = self.box
        return f"{right - left:.0f} × {bottom - top:.0f}"


@dataclass(frozen=True)
class Plan:
    """What would be done to one photo; `bauta protect --dry-run --json` prints one on a line for each photo.

    Attributes:
        source: The file.
        faces: Those to protect, largest first, then the others.
        seconds: Estimated wall time, measured on one face for a few seconds.
        failure: Why nothing can be done.
        schema: Fields are only added within version 1.
    """

    source: Path
    faces: tuple[PlannedFace, ...] = ()
    seconds: float = 0.0
    failure: Outcome | None = None
    schema: Literal["bauta.plan/1"] = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = plain(self)
        return values


def plan_schema() -> dict[str, Any]:
    """The JSON schema of a plan.

    >>> plan_schema()["$id"]
    'bauta.plan/1'
    """
    return json_schema(Plan, SCHEMA, complete=True)


def rehearse(sources: Sequence[Path], settings: ProtectSettings, *, progress: Progress = silent) -> Iterator[Plan]:
    """A plan for each photo, one after the other; recognisers are loaded when the first one shows a face.

    Raises:
        UsageError: when settings do not fit together.
        RecognizerError: when the recognisers cannot be used.
    """
    pipeline: Pipeline | None = None
    pace: float | None = None
    for source in sources:
        began = time.monotonic()
        try:
            photo = read_photo(source).cleared()
        except BautaError as error:
            if isinstance(error, UnsupportedPhoto) and (is_clip_name(source.name) or source.suffix.lower() in FORMATS):
                error = UnsupportedPhoto(
                    f"{source} moves, and --dry-run tells of photos only.", hint="Run the command without --dry-run."
                )
            yield Plan(source, failure=Outcome.failed(source, error))
            continue
        if pipeline is None:
            pipeline = Pipeline(settings)
            pipeline.prepare()
        progress("looking for faces", 0, 1)
        try:
            chosen = pipeline.select(photo)
        except BautaError as error:
            yield Plan(source, failure=Outcome.failed(source, error))
            continue
        found = time.monotonic() - began
        faces = chosen.faces
        small = refused(pipeline.cloak, photo, faces[: chosen.masked])
        fit = [number for number in range(chosen.masked) if number not in small]
        if pace is None and fit:
            pace = _pace(pipeline, photo, faces[fit[0]])
        treatments: list[Planned] = [
            *("mask" if number in fit else settings.fallback for number in range(chosen.masked)),
            *(chosen.covers[n][0] if n in chosen.covers else "left" for n in range(chosen.masked, len(faces))),
        ]
        names = words.face_names(faces.boxes.tolist(), photo.width, photo.height)
        yield Plan(
            source,
            tuple(
                PlannedFace(number, names[number], tuple(box), treatment)
                for number, (box, treatment) in enumerate(zip(faces.boxes.tolist(), treatments, strict=True), 1)
            ),
            found + (pace or 0.0) * sum(treatment not in ("left", "none") for treatment in treatments),
        )


def _pace(pipeline: Pipeline, photo: Photo, face: Faces) -> float:
    """Seconds that a face takes to be masked and judged, from a mask that is broken off after a few seconds."""
    work, judges = pipeline.work(silent), pipeline.judges
    work = replace(work, fitted=work.fitted[:1])  # a face has the mask of one person
    picture = Picture(photo.parts, face.landmarks, photo.grey)
    edit_pictures(pipeline.cloak, [picture], work, budget=1e-3)  # the first step of all is slow
    began = time.monotonic()
    (change,) = edit_pictures(pipeline.cloak, [picture], work, budget=_TRIAL)
    masking = time.monotonic() - began
    facts = change.edits[0].facts
    if facts.get("stopped") == "deadline" and facts.get("iterations"):
        masking *= float(getattr(pipeline.config, "iterations", 1)) / float(facts["iterations"])
    if pipeline.settings.budget is not None:
        masking = min(masking, pipeline.settings.budget)
    began = time.monotonic()
    verify_faces(photo.parts, photo.parts, face, judges, conditions=(SAVED,))
    return masking + (time.monotonic() - began) * len(CONDITIONS)
