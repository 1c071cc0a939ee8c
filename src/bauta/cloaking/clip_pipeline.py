"""From a clip to a protected clip and an honest answer: follow, select, mask, write, read back, judge.

An attacker takes the best frame. So a face is judged by the frame in which it is nearest to the person, in the clip as
it was written and once more as a messenger sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.clips.clip import Clip, Frame, Patch
from bauta.clips.writing import as_floats, as_samples, write_clip
from bauta.cloaking.apply import Picture, edit_pictures
from bauta.cloaking.clip_faces import Followed, Person, choose, follow, refuse_what_clips_cannot, window, with_stills
from bauta.cloaking.clip_judging import Seen, compared, judge_clip
from bauta.cloaking.clip_keeping import Keeping
from bauta.cloaking.clip_report import ClipReport, make_report
from bauta.cloaking.making import COVERS
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.settings import Fallback
from bauta.cloaks.base import Carried, Cloak, Edit, Follows, Resumes, Work, load_cloak
from bauta.cloaks.view import FaceView, ViewSpec, bounds, cut_view
from bauta.errors import NoFaceFound, UsageError
from bauta.judging.findings import Cover
from bauta.progress import Clock, Progress, silent, steps_of

FloatArray = NDArray[np.float32]

_VIEW = ViewSpec(footprint=160)
"""What a mask is carried on: one that is made in the 112 pixels of a crop has no more detail to give."""
_AROUND = 32  # pixels around views, from which a warp may fetch, and that a cover of a tiny face may need


class ClipPipeline:
    """Protects clips with the recognisers and settings of a `Pipeline`.

    Args:
        pipeline: As for photos.

    Raises:
        UsageError: when an option is for photos only, or the method would flicker.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        refuse_what_clips_cannot(pipeline)
        self.pipeline, self.span, self.every = pipeline, pipeline.settings.span, pipeline.settings.every

    def protect(
        self, clip: Clip, destination: Path, *, progress: Progress = silent, keeping: Keeping | None = None
    ) -> ClipReport:
        """Protect one clip and judge the file that comes out.

        Args:
            clip: As read.
            destination: A draft, which is written over; whoever calls gives it its name when it is whole.
            progress: Called as work advances.
            keeping: What an earlier run has finished, and what this one finishes; nothing is kept without it.

        Raises:
            NoFaceFound: when there is nothing to protect.
            OutputError: when the destination cannot be written.
        """
        settings, clock, keeping = self.pipeline.settings, Clock(), keeping or Keeping()
        every = clip.look_every if self.every is None else self.every
        followed = follow(clip, steps_of(progress, "following faces"), every, keeping)
        if self.span is not None and not any(self._asked(at) for at in followed.times):
            raise UsageError(
                f"{clip.path} is {clip.seconds:.1f} seconds long and ends before what is to be protected begins.",
                hint="Give an earlier --from.",
            )
        clock.lap("detection")
        masks = self._masks(clip, followed, progress, keeping)
        clock.lap("mask")
        while True:
            given = Work.seeded(0, fitted=self.pipeline.fitted)
            drawing = _Drawing(self.pipeline.cloak, followed, masks, settings.fallback, self._asked, given)
            with small_pictures():
                removed = write_clip(
                    clip,
                    destination,
                    drawing.on,
                    metadata=settings.metadata,
                    progress=steps_of(progress, "writing the clip"),
                )
            clock.lap("writing")
            saved = clip.written(destination)
            seen = judge_clip(self.pipeline, followed, saved, self._asked, steps_of(progress, "judging the result"))
            clock.lap("verification")
            if not self._cover(followed, seen):
                break
        return make_report(self.pipeline, clip, saved, followed, seen, drawing.bare, removed, self.span, clock.total)

    def _asked(self, seconds: float) -> bool:
        return self.span is None or self.span[0] <= seconds <= self.span[1]

    def _cover(self, followed: Followed, seen: Sequence[Seen]) -> bool:
        """Cover faces whose masks failed, as asked, or cover more thickly; whether anything changed."""
        fallback, changed = self.pipeline.settings.fallback, False
        for person, one in zip(followed.people, seen, strict=False):  # the last is of nobody
            if person.treatment == "mask" and one.verdict != "protected" and fallback != "none":
                person.treatment, person.cause, changed = fallback, "mask-failed", True
            elif (person.treatment == "blur" or person.treatment == "pixelate") and one.verdict in ("weak", "fragile"):
                thicker = min(person.thickness + 1, len(COVERS[person.treatment]) - 1)
                changed |= thicker != person.thickness
                person.thickness = thicker
        return changed

    def _masks(self, clip: Clip, followed: Followed, progress: Progress, keeping: Keeping) -> dict[int, Carried]:
        """A mask for each face that is to have one, which goes along with it; and all else that stills are for.

        Raises:
            NoFaceFound: when no face is selected and the others are to be left as they are.
        """
        people, masks = followed.people, dict[int, Carried]()
        for done, number in enumerate(with_stills(clip, people)):
            person = people[number]
            choose(self.pipeline, person, people)
            if person.treatment != "left":
                person.compared = compared(self.pipeline, person.stills)
            if person.treatment == "mask" and isinstance(self.pipeline.cloak, Follows):
                made = self._mask(number, person, _part(progress, done, len(people)), keeping)
                if made is not None:
                    masks[number] = made
            person.stills.clear()
        if all(person.treatment == "left" for person in people):
            raise NoFaceFound(
                f"None of the {len(people)} faces in {clip.path} is selected, or of the person that the mask was "
                "fitted to.",
                hint="Check the photos that select people, or leave out --only and --keep to protect every face.",
            )
        return masks

    def _mask(self, number: int, person: Person, progress: Progress, keeping: Keeping) -> Carried | None:
        """The mask of one face; None when it is too small, or cut off, in every still."""
        cloak: Any = self.pipeline.cloak
        kept = keeping.mask(number) if isinstance(cloak, Resumes) else None
        if kept is not None:
            return cloak.resumed(kept)  # type: ignore[no-any-return]
        views = []
        for still in person.stills:
            try:
                views.append(cut_view(still.pixels, still.landmarks[0], spec=_VIEW)[0])
            except UsageError:  # too small, or cut off
                continue
        if not views:
            return None
        work = self.pipeline.work(progress)
        made: Carried = cloak.follow(views, replace(work, fitted=work.fitted[person.owner : person.owner + 1]))
        if isinstance(cloak, Resumes):
            keeping.keep_mask(number, cloak.kept(made))
        return made


def small_pictures() -> AbstractContextManager[Any]:
    """While it is open, torch convolves without oneDNN, which compiles a convolution for each size of picture and keeps
    it: of a face that moves nearly every frame has another size, and memory went there."""
    import torch

    return torch.backends.mkldnn.flags(enabled=False, allow_tf32=None)


def _part(progress: Progress, done: int, of: int) -> Progress:
    """Progress of one of several equal pieces of work."""
    return lambda stage, at, total: progress(stage, done * total + at, of * total)


class _Drawing:
    """What becomes of each frame; keeps in mind which faces could not be covered where."""

    def __init__(
        self,
        cloak: Cloak[Any],
        followed: Followed,
        masks: dict[int, Carried],
        fallback: Fallback,
        asked: Callable[[float], bool],
        work: Work,
    ) -> None:
        self.work = work
        self.cloak, self.followed, self.fallback, self.asked = cloak, followed, fallback, asked
        self.masks = {number: copy(mask) for number, mask in masks.items()}  # from the first frame on, each time
        self.bare: set[tuple[int, int]] = set()  # number of the face, and of the frame
        self.covers = {
            (how, at): load_cloak(how)(load_cloak(how).configured(settings))
            for how, several in COVERS.items()
            for at, settings in enumerate(several)
        }
        self._shown = _carrying(cloak)

    def on(self, frame: Frame) -> Patch | None:
        """What becomes of the faces of a frame; None where nothing does."""
        if not self.asked(frame.seconds):
            return None
        here: dict[int, FloatArray] = {}
        for number, person in enumerate(self.followed.people):
            points = person.track.at(frame.number)
            if points is not None and person.treatment != "left":
                here[number] = points.astype(np.float32)
        if not here:
            return None
        rows, columns = _reached(list(here.values()), frame.pixels.shape)
        origin = np.array([columns.start, rows.start], np.float32)
        pixels = before = as_floats(frame.pixels[rows, columns])
        covers: dict[tuple[Cover, int], list[int]] = {}
        masked = []
        for number in here:
            person = self.followed.people[number]
            unsure = person.track.bridged[frame.number - person.track.first]
            if person.treatment == "blur" or person.treatment == "pixelate":
                covers.setdefault((person.treatment, person.thickness), []).append(number)
            elif unsure and self.fallback != "none":
                covers.setdefault((self.fallback, 0), []).append(number)
            else:
                masked.append(number)
        pixels, left = self._mask(pixels, masked, [here[number] - origin for number in masked])
        for number in left:
            if self.fallback == "none":
                self.bare.add((number, frame.number))
            else:
                covers.setdefault((self.fallback, 0), []).append(number)
        for cover, numbers in covers.items():
            pixels, left = _edited(self.covers[cover], pixels, numbers, [here[number] - origin for number in numbers])
            for number in left:
                pixels, still = _edited(self.covers[cover], pixels, [number], [_grown(here[number] - origin)])
                self.bare |= {(one, frame.number) for one in still}
        if pixels is before:
            return None
        return Patch(rows, columns, as_samples(pixels, frame.pixels))

    def _mask(
        self, pixels: FloatArray, numbers: Sequence[int], points: Sequence[FloatArray]
    ) -> tuple[FloatArray, list[int]]:
        if not isinstance(self.cloak, Follows):
            return _edited(self.cloak, pixels, numbers, points, work=self.work)
        made = [at for at, number in enumerate(numbers) if number in self.masks]
        left = [number for number in numbers if number not in self.masks]
        carried = [self.masks[numbers[at]] for at in made]

        def ask(views: Sequence[FaceView], places: Sequence[int], work: Work) -> list[Edit]:
            return [carried[place].on(view) for view, place in zip(views, places, strict=True)]

        pixels, missed = _edited(
            self._shown, pixels, [numbers[at] for at in made], [points[at] for at in made], ask=ask, work=self.work
        )
        return pixels, left + missed


def _reached(faces: Sequence[FloatArray], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a frame that hold all that edits of faces with landmarks (5, 2) can reach."""
    try:
        edges = np.array([bounds(points, shape, _VIEW) for points in faces])
    except UsageError:  # landmarks that coincide
        return window([points.astype(np.float64) for points in faces], shape)
    left, top = (edges[:, :2].min(axis=0) - _AROUND).clip(0)
    right, bottom = np.minimum(edges[:, 2:].max(axis=0) + _AROUND, shape[1::-1])
    if right - left < _AROUND or bottom - top < _AROUND:
        return window([points.astype(np.float64) for points in faces], shape)
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _carrying(cloak: Cloak[Any]) -> Cloak[Any]:
    """The cloak, which is shown faces at the size that carried masks have."""
    shown: Any = type(cloak)(cloak.config)
    shown.view = _VIEW
    return shown  # type: ignore[no-any-return]


def _edited(
    cloak: Cloak[Any],
    pixels: FloatArray,
    numbers: Sequence[int],
    points: Sequence[FloatArray],
    ask: Any = None,
    work: Work | None = None,
) -> tuple[FloatArray, list[int]]:
    """Pixels with edits of these faces, and the numbers of the faces that none could be made for."""
    if not numbers:
        return pixels, []
    picture = Picture(pixels, np.stack(points))
    (change,) = edit_pictures(cloak, [picture], work or Work.seeded(0), ask=ask)
    if change.edits:
        pixels = (pixels + change.delta).clip(0, 1)
    return pixels, [numbers[place] for place in change.left]


def _grown(points: FloatArray) -> FloatArray:
    """Landmarks of a face that is too small for a view, as of one that is just large enough."""
    middle = points.mean(axis=0)
    size = max(float(np.abs(points - middle).max()), 1e-3)
    return np.asarray(middle + (points - middle) * max(1.0, 8 / size), dtype=np.float32)
