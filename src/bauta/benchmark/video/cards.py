"""What cards of clips hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from bauta.benchmark.engine.records import Cosine, Network, RowRecord
from bauta.metrics import Interval
from bauta.schema import Count, Sha256
from bauta.settings import Range, Share

Condition = Literal["saved", "messenger"]


@dataclass(frozen=True)
class ClipJudge:
    """Who judges.

    Attributes:
        name: Of the recogniser.
        sha256: Of its weights.
        cosine: From which on it matches.
    """

    name: str
    sha256: Sha256
    cosine: Cosine


@dataclass(frozen=True)
class Comparison:
    """All frames of a clip, by one judge, with one photo.

    Attributes:
        judge: Its name.
        against: Name of the photo; ``original`` for stills of the clip as it was.
        condition: The clip as written, or as a messenger sends it.
        known: Whether the clip as it was matches: other comparisons do not count.
        best: Cosine of the nearest frame.
        matching: Share of the frames that match.
    """

    judge: str
    against: str
    condition: Condition
    known: bool
    best: Cosine
    matching: Share


@dataclass(frozen=True)
class ClipRecord:
    """A clip.

    Attributes:
        subject: Whose face it shows.
        difference: Of the face in one frame from the next, mean, with the movement taken out, in 1/255.
        flicker: The same, over that of the clip that was written as it was.
        size: Bytes over those of the clip before; null where a part of it was written.
        mask_seconds: Of the processor, to make the masks of the clip.
        frame_seconds: Of the processor, for all else, a frame.
        fitted_to: Photos that a mask was fitted to before.
        comparisons: What judges say.
    """

    subject: str
    difference: float
    flicker: float
    size: float | None
    mask_seconds: float
    frame_seconds: float
    fitted_to: Count
    comparisons: Annotated[list[Comparison], Range(at=1)]


@dataclass(frozen=True)
class Side:
    """Comparisons of one sort; intervals are bootstrapped by person.

    Attributes:
        comparisons: How many count.
        best_frame: Share of these in which no frame matches; null where none counts.
        frames: Share of the frames that do not match.
        judges: `best_frame` of each judge.
    """

    comparisons: Count
    best_frame: Interval | None
    frames: Interval | None
    judges: dict[str, float]


@dataclass(frozen=True)
class VideoResults:
    """What a row measures, means over clips.

    Attributes:
        another: Compared with other photos of the person, by condition.
        itself: With stills of the clip as it was, by condition.
        flicker: Of the face.
        size: Of the file.
        mask_seconds: Of the processor.
        frame_seconds: Of the processor.
        fitted_to: Photos.
    """

    another: dict[str, Side]
    itself: dict[str, Side]
    flicker: float
    size: float | None
    mask_seconds: float
    frame_seconds: float
    fitted_to: float


@dataclass(frozen=True, kw_only=True)
class VideoCard(RowRecord):
    """What one method makes of clips.

    Attributes:
        key: Digest of all that decides it.
        method: Its name.
        options: Its settings, those that are not usual.
        each_frame: Whether each frame had a mask of its own.
        frames: Of a clip.
        data: Digest of all photos.
        surrogates: Recognisers that were attacked.
        judges: Recognisers that were not.
        results: What was measured.
        records: A clip each.
    """

    schema: Literal["bauta.video/1"]
    key: str
    method: str
    options: dict[str, Any]
    each_frame: bool
    frames: Count
    data: Sha256
    surrogates: list[Network]
    judges: list[ClipJudge]
    results: VideoResults
    records: Annotated[list[ClipRecord], Range(at=1)]
