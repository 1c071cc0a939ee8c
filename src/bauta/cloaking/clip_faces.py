"""The faces of a clip: found and followed, told apart, and what is asked for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.clips.ahead import ahead
from bauta.clips.clip import Clip, Frame
from bauta.clips.writing import as_floats
from bauta.cloaking.clip_keeping import Keeping
from bauta.cloaking.pipeline import Pipeline
from bauta.errors import NoFaceFound, UsageError
from bauta.faces.detection import detect_faces, smallest_face
from bauta.faces.faces import Faces
from bauta.faces.tracking import Track, Tracker, box_of
from bauta.judging.findings import Cause
from bauta.photo import Photo, read_photo
from bauta.progress import Steps

FloatArray = NDArray[np.float32]
Treatment = Literal["mask", "blur", "pixelate", "left"]

STILLS = 8
"""Frames of a face that are kept to make its mask of, to tell who it is, and to show it in the report."""


@dataclass(frozen=True, eq=False)
class Still:
    """A face in one frame of the original.

    Attributes:
        number: Of the frame.
        samples: (h, w, 3) of the frame's own type, the face and what is around it.
        landmarks: (1, 5, 2) in these pixels.
    """

    number: int
    samples: NDArray[Any]
    landmarks: FloatArray

    @property
    def pixels(self) -> FloatArray:
        """(h, w, 3) in [0, 1]."""
        return as_floats(self.samples)

    @property
    def photo(self) -> Photo:
        """The same as a photo."""
        return read_photo((255 * self.pixels).round().astype(np.uint8))

    @property
    def faces(self) -> Faces:
        """The face, as found in that photo."""
        boxes = box_of(self.landmarks[0].astype(np.float64)).astype(np.float32)[None]
        return Faces(boxes, self.landmarks, np.ones(1, np.float32))


@dataclass(eq=False)
class Person:
    """A face through one shot, and what is done to it.

    Attributes:
        track: Where it is.
        treatment: What is asked for; a mask that fails can become a cover.
        cause: Why it is covered.
        owner: Number of the fitted file that its mask is from.
        stills: In some frames; they are gone when all that depends on them is made.
        shown: The same reduced for the report, by number of the frame.
        compared: By judge, what it compares the face with, by name and embeddings (K, dim).
        thickness: Which of the settings of its cover.
        doubtful: Whether it may be no face, beside others that are: covered on request, and otherwise left and told.
    """

    track: Track
    treatment: Treatment = "mask"
    cause: Cause | None = None
    owner: int = 0
    stills: list[Still] = field(default_factory=list)
    shown: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    compared: dict[str, tuple[str, FloatArray]] = field(default_factory=dict)
    thickness: int = 0
    doubtful: bool = False


@dataclass(frozen=True, eq=False)
class Followed:
    """The faces of a clip.

    Attributes:
        people: One for each face of each shot.
        times: Seconds of each frame.
        shots: Numbers of the frames that shots begin with.
        every: Frames between two looks for faces.
        limited: Whether a search for faces was not whole.
    """

    people: list[Person]
    times: list[float]
    shots: list[int]
    every: int
    limited: bool


def follow(clip: Clip, progress: Steps, every: int | None = None, keeping: Keeping | None = None) -> Followed:
    """Find the faces of a clip and follow them.

    Args:
        clip: As read.
        progress: Called with (frames done, frames there are).
        every: Frames between two looks for faces; None for what is usual.
        keeping: Has the shots of an earlier run, and gets those that end in this one.

    Raises:
        NoFaceFound: when there is none.
    """
    limited, keeping = False, keeping or Keeping()

    def detect(pixels: NDArray[np.uint8], *, near: Sequence[NDArray[np.float64]] | None) -> Faces:
        nonlocal limited
        found = look_for_faces(as_floats(pixels), near)
        limited |= bool(found.limits)
        return found

    known = keeping.shots()
    limited = any(shot.limited for shot in known)
    tracks = [track for shot in known for track in shot.tracks]
    starts = [0, *(shot.until for shot in known)]
    tracker, times = Tracker(detect, clip.rate, every, starts), []

    def decoded() -> Iterator[Frame]:
        for frame in clip:
            if frame.number >= starts[-1]:
                _ = frame.grey  # made here, while faces are looked for elsewhere
            yield frame

    with closing(ahead(decoded())) as frames:
        for frame in frames:
            if frame.number >= starts[-1]:
                ended = tracker.add(frame.number, frame)
                if ended is not None:
                    keeping.keep_shot(len(tracker.shots) - 2, ended, frame.number, limited)
                    tracks += ended
            times.append(frame.seconds)
            progress(frame.number + 1, clip.frames)
    if starts[-1] < len(times):
        ended = tracker.finish()
        keeping.keep_shot(len(tracker.shots) - 1, ended, len(times), limited)
        tracks += ended
    else:  # the last shot was finished, too
        tracker.shots.pop()
    people = [Person(track) for track in tracks]
    if not people:
        raise NoFaceFound(f"No face was found in {clip.path}.", hint="Nothing was written; the clip is as it was.")
    return Followed(people, times, tracker.shots, tracker.every, limited)


_QUICK = 2.0
"""In a quick look, faces from this many times the smallest on are looked for everywhere."""


def look_for_faces(pixels: FloatArray, near: Sequence[NDArray[np.float64]] | None = None) -> Faces:
    """The faces of a frame.

    Args:
        pixels: (H, W, 3) in [0, 1].
        near: Landmarks (5, 2) of faces that are known: the look is a quick one, in which small faces are looked for
            about these only. None for a look for all.
    """
    if near is None:
        return detect_faces(pixels)
    least = smallest_face(pixels.shape)
    found = [detect_faces(pixels, minimum_size=_QUICK * least)]
    for points in near:
        box = box_of(points)
        if box[3] - box[1] < 1.5 * _QUICK * least:
            rows, columns = window([points], pixels.shape)
            small = detect_faces(pixels[rows, columns], minimum_size=least)
            corner = np.array([columns.start, rows.start], np.float32)
            found.append(replace(small, boxes=small.boxes + np.tile(corner, 2), landmarks=small.landmarks + corner))
    return Faces.join(found).each_once()


def with_stills(clip: Clip, people: Sequence[Person]) -> Iterator[int]:
    """Give each person stills; their numbers, each when its stills are whole.

    Whoever takes a number leaves nothing of them: those of a long clip would fill the memory.
    """
    wanted: dict[int, list[int]] = {}
    last = []
    for at, person in enumerate(people):
        found = np.flatnonzero(person.track.found) + person.track.first
        numbers = np.unique(found[np.linspace(0, len(found) - 1, STILLS).round().astype(int)])
        last.append(int(numbers[-1]))
        for number in numbers:
            wanted.setdefault(int(number), []).append(at)
    for frame in clip:
        for at in wanted.get(frame.number, ()):
            points = people[at].track.at(frame.number)
            assert points is not None
            rows, columns = window([points], frame.pixels.shape)
            corner = (columns.start, rows.start)
            there = (points - corner).astype(np.float32)[None]
            people[at].stills.append(Still(frame.number, frame.pixels[rows, columns].copy(), there))
            people[at].shown[frame.number] = shown(frame, points)
        yield from (at for at in wanted.get(frame.number, ()) if last[at] == frame.number)
        if frame.number >= max(last):
            break


SHOWN = 160
"""Long side, in pixels, of the pictures of a face in the report."""


def shown(frame: Frame, points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A face with what is around it, for the report."""
    there = frame.colours[window([points], frame.colours.shape)]
    factor = min(1.0, SHOWN / max(there.shape[:2]))
    size = (max(1, round(factor * there.shape[1])), max(1, round(factor * there.shape[0])))
    return np.asarray(cv2.resize(there, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def window(faces: Sequence[NDArray[np.float64]], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a frame that hold faces with landmarks (5, 2) and what edits of them can reach, which is the
    aligned crop with its margin, turned by any angle."""
    boxes = np.stack([box_of(points) for points in faces])
    reach = 0.6 * (boxes[:, 3] - boxes[:, 1])[:, None] + 8
    left, top = np.floor((boxes[:, :2] - reach).min(axis=0)).clip(0).astype(int)
    right, bottom = np.ceil((boxes[:, 2:] + reach).max(axis=0)).astype(int)
    right, bottom = min(max(int(right), left + 16), shape[1]), min(max(int(bottom), top + 16), shape[0])
    return slice(min(int(top), bottom - 16), bottom), slice(min(int(left), right - 16), right)


def refuse_what_clips_cannot(pipeline: Pipeline) -> None:
    """Options that speak of one photo, and methods that make each frame by itself.

    Raises:
        UsageError: naming the option.
    """
    from bauta.cloaks.base import Follows

    settings, selection = pipeline.settings, pipeline.settings.selection
    for option, given in (
        ("--box", selection.boxes), ("--face", selection.faces), ("--largest", selection.largest),
        ("--unlinkable", settings.unlinkable), ("--budget", settings.budget is not None),
        ("--erasable", settings.erasable is not None), ("--like", bool(settings.like)),
    ):  # fmt: skip
        if given:
            raise UsageError(
                f"{option} is for photos, and a clip is among what is to be protected.",
                hint="Leave it out, or protect clips in a run of their own."
                + (" --only and --keep choose people." if option in ("--box", "--face", "--largest") else ""),
            )
    if "surrogates" in pipeline.cloak.needs and not isinstance(pipeline.cloak, Follows):
        raise UsageError(
            f"{settings.method} makes each picture by itself, and a clip of such pictures would flicker.",
            hint="Leave --method out, or choose makeup, p3-mask, blur or pixelate.",
        )
    pipeline.cloak.check_clips()


def choose(pipeline: Pipeline, person: Person, others: Sequence[Person]) -> None:
    """Decide what is done to a face: as in photos, by what most of its stills show.

    Args:
        pipeline: With the photos that choose.
        person: With stills.
        others: All faces of the clip.
    """
    settings, selection = pipeline.settings, pipeline.settings.selection
    chosen = True
    if selection.only or selection.keep:
        paths = selection.only or selection.keep
        seen = [bool(pipeline._matches(still.photo, still.faces, paths)[0]) for still in person.stills]
        # Either way rather protected than not: somebody to protect in any still, to leave alone in most.
        chosen = any(seen) if selection.only else sum(seen) * 2 <= len(seen)
    if chosen and pipeline.people.known:
        votes = Counter(int(pipeline.people.owners(still.photo, still.faces)[0]) for still in person.stills)
        votes.pop(-1, None)
        chosen = bool(votes)
        person.owner = votes.most_common(1)[0][0] if votes else 0
    if not chosen:
        person.treatment = "left" if settings.others == "leave" else settings.others
        person.cause = None if settings.others == "leave" else "not-chosen"
    elif person.track.doubtful and not all(other.track.doubtful for other in others):
        person.doubtful = True
        person.treatment = "left" if settings.fallback == "none" else settings.fallback
        person.cause = None if settings.fallback == "none" else "no-mask"
