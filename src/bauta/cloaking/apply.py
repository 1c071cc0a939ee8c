"""From faces to changed photos: cut views, ask the cloak, check its answer, carry it to the photo's own resolution.

This is the only place that calls `Cloak.edit` and `Restores.restore`: the pipeline, the benchmark and attackers who
need protected photos all come here.

Of several faces that meet, the rules are ours. Where perturbations overlap, the stronger sample holds, since their sum
would break the bound of both. Where warps overlap, the first face (the largest, as the pipeline orders them) keeps its
warp, and those of later faces fade out before they reach it: choosing one or the other pixel by pixel would tear the
picture. Should the sum still fold, the later warp is halved until it does not. A face inside of a much larger one, such
as that of an identity card held before it, comes before that one and keeps all of its edit: otherwise nothing would be
left of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bauta.cloaks.base import Cloak, Edit, Need, Reading, Reads, Restores, Work, least_jacobian
from bauta.cloaks.view import FaceView, Placement, cut_view
from bauta.errors import BautaError, InvalidEdit, UsageError
from bauta.faces.faces import Faces
from bauta.judging.visibility import Visibility, measure
from bauta.photo import Photo, PixelArray
from bauta.progress import Steps
from bauta.settings import Settings

FloatArray = NDArray[np.float32]
C = TypeVar("C", bound=Settings)

_NOT_AFTERWARDS: tuple[Need, ...] = ("surrogates", "message", "reference")
"""What only making an edit needs, and neither reading it nor taking it off."""

_FADE = 0.1
"""Over this part of the width of a face inside of a larger one, the larger one's edit fades out around it."""

_BAND = 256
"""Rows of a picture that are seen through a warp at once."""

BATCH = 8
"""Faces optimised together: enough to be fast, few enough for photos with hundreds of them."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels and the faces in them, when there is no photo file behind.

    Attributes:
        pixels: (H, W, 3) float32 in [0, 1], upright.
        landmarks: (N, 5, 2), in pixels.
        grey: Whether the edit must be equal in the three channels.
    """

    pixels: PixelArray
    landmarks: FloatArray
    grey: bool = False


@dataclass(frozen=True, eq=False)
class Change:
    """What becomes of one picture.

    Attributes:
        pixels: (H, W, 3) of the picture.
        edits: One for each face that has one, in the order of the faces.
        placements: Where the view of each edit lies.
        kept: Numbers of those faces.
        left: Numbers of the faces for which no view could be cut: too small, cut off, or without an orientation.
        seconds: Wall time of each edit: of its batch, divided by the faces in it.
    """

    pixels: PixelArray = field(repr=False)
    edits: tuple[Edit, ...]
    placements: tuple[Placement, ...]
    kept: tuple[int, ...]
    left: tuple[int, ...]
    seconds: tuple[float, ...]

    @cached_property
    def delta(self) -> FloatArray:
        """(H, W, 3) float32 in [-1, 1] to be added to the picture; what a warp does is in it. Exactly 0 where no edit
        reaches."""
        return merged(self.pixels, list(zip(self.edits, self.placements, strict=True)))

    @property
    def payloads(self) -> tuple[bytes, ...]:
        """What must be known to take the edits off again, b"" for nothing."""
        return tuple(edit.payload for edit in self.edits)


def seen_of(pixels: PixelArray, landmarks: NDArray[np.floating], edit: Edit, placement: Placement) -> Visibility:
    """What people see of the edit of one face.

    Args:
        pixels: (H, W, 3) in [0, 1], of the picture before.
        landmarks: (5, 2) in its pixels.
        edit: Of the face.
        placement: Where the view of the edit lies.
    """
    before = pixels[placement.rows, placement.columns]
    field = None if edit.warp is None else placement.displacement(edit.warp)
    edited = before.copy() if field is None else resample(pixels, field, placement.top, placement.left)
    edited += placement.patch(edit.delta)
    np.clip(edited, 0, 1, out=edited)
    return measure(before, edited, landmarks - np.array([placement.left, placement.top]), field)


@dataclass(frozen=True, eq=False)
class Applied:
    """A photo with its faces edited.

    Attributes:
        photo: The new photo; outside the faces' regions its samples are those of the old one.
        change: What was done.
    """

    photo: Photo
    change: Change


def apply(
    cloak: Cloak[C],
    photo: Photo,
    faces: Faces,
    work: Work,
    *,
    budget: float | None = None,
    batch: int = BATCH,
) -> Applied:
    """Edit faces of one photo.

    Args:
        cloak: How.
        photo: As read.
        faces: Which; the first ones hold their ground where faces meet.
        work: What the cloak is given.
        budget: Seconds that one face may take; None for no limit.
        batch: Faces that are shown to the cloak at once.

    Raises:
        UsageError: when something that the cloak needs is missing.
        InvalidEdit: when the cloak answers with something else than an edit of each view; the message says which cloak,
            and of which package.
        BautaError: whatever else the cloak raises.
    """
    picture = Picture(photo.parts, faces.landmarks, photo.grey)
    (change,) = edit_pictures(cloak, [picture], work, budget=budget, batch=batch)
    return Applied(photo.with_perturbation(change.delta), change)


def restore(cloak: Cloak[C], photo: Photo, faces: Faces, payloads: Sequence[bytes], work: Work) -> Applied:
    """Take edits off the faces of a protected photo.

    Args:
        cloak: That made them.
        photo: The protected photo.
        faces: Where its faces were when they were edited.
        payloads: Of the edits, b"" where none is known.
        work: With what the cloak needs.

    Raises:
        UsageError: when the cloak cannot, or something that it needs is missing.
        InvalidEdit: as `apply`.
    """
    if not isinstance(cloak, Restores):
        raise UsageError(
            f"What {cloak.card.name} does to a photo cannot be taken off again.", hint="Keep the original."
        )
    given = dict(enumerate(payloads))

    def undo(views: Sequence[FaceView], places: Sequence[int], inner: Work) -> list[Edit]:
        return cloak.restore(views, [given.get(place, b"") for place in places], inner)

    (change,) = edit_pictures(cloak, [Picture(photo.parts, faces.landmarks, photo.grey)], work, ask=undo)
    return Applied(photo.with_perturbation(change.delta), change)


def read(cloak: Cloak[C], photo: Photo, faces: Faces, work: Work) -> list[Reading]:
    """What the edits of the faces in a photo say, one for each face that is large enough.

    Raises:
        UsageError: when the cloak reads nothing, or something that it needs is missing.
    """
    if not isinstance(cloak, Reads):
        raise UsageError(
            f"What {cloak.card.name} does to a photo carries no message.", hint="`bauta methods` says which ones do."
        )
    require(type(cloak), _given(work), but=_NOT_AFTERWARDS)
    left = refused(cloak, photo, faces)
    views = [
        cut_view(photo.parts, landmarks, grey=photo.grey, spec=cloak.view)[0]
        for face, landmarks in enumerate(faces.landmarks)
        if face not in left
    ]
    return cloak.read(views, work) if views else []


def refused(cloak: Cloak[C], photo: Photo, faces: Faces) -> dict[int, str]:
    """Numbers of the faces that no view can be cut for, and why: too small, cut off, or without an orientation."""
    reasons = {}
    for face, landmarks in enumerate(faces.landmarks):
        try:
            cut_view(photo.parts, landmarks, grey=photo.grey, spec=cloak.view)
        except UsageError as error:
            reasons[face] = error.message
    return reasons


Ask = Callable[[Sequence[FaceView], Sequence[int], Work], list[Edit]]


def edit_pictures(
    cloak: Cloak[C],
    pictures: Sequence[Picture],
    work: Work,
    *,
    budget: float | None = None,
    batch: int | None = None,
    ask: Ask | None = None,
) -> list[Change]:
    """Edit the faces of several pictures, together in batches; see `apply`.

    Args:
        cloak: How.
        pictures: With their faces.
        work: What the cloak is given.
        budget: Seconds that one face may take; None for no limit.
        batch: Faces that are shown to the cloak at once; all when None.
        ask: Called with views, the numbers of their faces, and the work, instead of `Cloak.edit`.
    """
    require(type(cloak), _given(work), but=_NOT_AFTERWARDS if ask is not None else ())
    cuts: list[tuple[int, int, FaceView, Placement]] = []
    left: list[list[int]] = [[] for _ in pictures]
    for number, picture in enumerate(pictures):
        for face, landmarks in enumerate(picture.landmarks):
            try:
                view, placement = cut_view(picture.pixels, landmarks, grey=picture.grey, spec=cloak.view)
            except UsageError:  # see `refused`
                left[number].append(face)
                continue
            cuts.append((number, face, view, placement))
    answers: list[tuple[Edit, float]] = []
    step = batch or max(1, len(cuts))
    for start in range(0, len(cuts), step):
        part = cuts[start : start + step]
        views, places = [view for _, _, view, _ in part], [face for _, face, _, _ in part]
        began = time.monotonic()
        inner = replace(
            work,
            deadline=work.deadline if budget is None else began + budget * len(views),
            progress=_counted(work.progress, start // step, -(-len(cuts) // step)),
        )
        edits = _asked(cloak, views, places, inner, ask)
        answers += [(edit, (time.monotonic() - began) / len(views)) for edit in edits]
    changes = []
    for number, picture in enumerate(pictures):
        mine = [
            (face, edit, placement, seconds)
            for (of, face, _, placement), (edit, seconds) in zip(cuts, answers, strict=True)
            if of == number
        ]
        changes.append(
            Change(
                pixels=picture.pixels,
                edits=tuple(edit for _, edit, _, _ in mine),
                placements=tuple(placement for _, _, placement, _ in mine),
                kept=tuple(face for face, _, _, _ in mine),
                left=tuple(left[number]),
                seconds=tuple(seconds for _, _, _, seconds in mine),
            )
        )
    return changes


_HINTS: dict[Need, tuple[str, str]] = {
    "surrogates": ("recognisers to attack", "Name at least one in --surrogates."),
    "key": ("a key", "Give --key FILE."),
    "message": ("a message", "Give --message TEXT."),
    "fitted": ("what it learned of the person", "Make it once with `bauta fit {name} PHOTOS -o FILE`; give --fitted."),
    "reference": ("another face to go by", "Give --like PHOTO."),
}
_OPTIONS: dict[Need, str] = {"key": "--key", "message": "--message", "fitted": "--fitted", "reference": "--like"}


def require(cloak: type[Cloak[Any]], there: Collection[Need], *, but: Collection[Need] = ()) -> None:
    """Let a cloak through that has what it needs, and nothing given that it would not look at.

    Args:
        cloak: Which.
        there: What it is given.
        but: What it does without this time.

    Raises:
        UsageError: naming what is missing, or too much.
    """
    name = cloak.card.name
    for need in sorted(cloak.needs - set(but)):
        if need not in there:
            raise UsageError(f"{name} needs {_HINTS[need][0]}.", hint=_HINTS[need][1].format(name=name))
    for need, option in _OPTIONS.items():  # whoever gives a secret relies on it
        if need in there and need not in cloak.needs | cloak.takes:
            raise UsageError(f"{name} has no use for {option}.", hint=f"`bauta methods {name}` says what it takes.")


def _given(work: Work) -> set[Need]:
    there: dict[Need, bool] = {
        "surrogates": work.ensemble is not None,
        "key": work.key is not None,
        "message": work.message is not None,
        "fitted": bool(work.fitted),
        "reference": bool(work.references),
    }
    return {need for need, given in there.items() if given}


def _counted(progress: Steps, before: int, batches: int) -> Steps:
    return lambda done, total: progress(before * total + done, batches * total)


def _asked(
    cloak: Cloak[C], views: Sequence[FaceView], places: Sequence[int], work: Work, ask: Ask | None
) -> list[Edit]:
    """The edits, when there is one of each view; otherwise an error that names the cloak and its package."""
    who, package = cloak.card.called, cloak.card.package
    hint = f"Report it to whoever makes {package}, or choose another method."
    try:
        edits = cloak.edit(views, work) if ask is None else ask(views, places, work)
    except InvalidEdit as error:
        raise InvalidEdit(f"{who} made an edit that cannot be used. {error.message}", hint=error.hint) from error
    except BautaError:
        raise
    except Exception as error:
        if package == "bauta":
            raise  # a defect of ours, and told as one
        raise InvalidEdit(f"{who} failed: {type(error).__name__}: {error}.", hint=hint) from error
    if not isinstance(edits, list) or not all(isinstance(edit, Edit) for edit in edits):
        raise InvalidEdit(f"{who} answered with {type(edits).__name__} instead of a list of edits.", hint=hint)
    if [id(edit.view) for edit in edits] != [id(view) for view in views]:
        raise InvalidEdit(
            f"{who} answered with {len(edits)} edits to {len(views)} views, or with edits of others.", hint=hint
        )
    return edits


# Putting edits together


def merged(pixels: PixelArray, placed: Sequence[tuple[Edit, Placement]]) -> FloatArray:
    """What to add to a picture (H, W, 3) for all its edits.

    The first edits hold their ground where faces meet; those of faces inside of much larger ones count as first.
    """
    places = [placement for _, placement in placed]
    placed = sorted(placed, key=lambda one: -sum(map(one[1].inside, places)))
    delta = np.zeros(pixels.shape, np.float32)  # whose pages take no memory until an edit reaches them
    for edit, placement in placed:
        patch, there = placement.patch(edit.delta).clip(-1, 1), delta[placement.rows, placement.columns]
        for inner, place in placed:
            if place.inside(placement):
                patch = patch * _beside(inner, place, placement)[..., None]
        np.copyto(there, patch, where=np.abs(patch) > np.abs(there))
    fields: list[tuple[FloatArray, Placement]] = []
    for edit, placement in placed:
        if edit.warp is not None:
            moved = placement.displacement(edit.warp)
            if fields:
                held = _over(fields, placement)
                moved = _joined(held, moved) - held
            fields.append((moved, placement))
    # Window by window, as far as something moves in it: one around all faces could be the whole photo.
    shifts, windows = np.zeros(pixels.shape, np.float32), []
    for _, placement in fields:
        field = _over(fields, placement)
        reached = (field != 0).any(axis=0)
        if not reached.any():
            continue
        rows, columns = _reach(reached.any(axis=1)), _reach(reached.any(axis=0))
        top, left = placement.top + rows.start, placement.left + columns.start
        shift = resample(pixels, field[:, rows, columns], top, left)
        window = slice(top, top + shift.shape[0]), slice(left, left + shift.shape[1])
        shift -= pixels[window]
        shift *= reached[rows, columns, None]
        shifts[window] = shift
        windows.append(window)
    for window in windows:
        there = delta[window]
        there += shifts[window]
        np.clip(there, -1, 1, out=there)
        shifts[window] = 0  # where windows overlap, once
    return delta


def _reach(line: NDArray[np.bool_]) -> slice:
    """From the first that is true to the last."""
    places = np.flatnonzero(line)
    return slice(int(places[0]), int(places[-1]) + 1)


def _beside(edit: Edit, placement: Placement, window: Placement) -> FloatArray:
    """(height, width) over a window, in [0, 1]: 0 where an edit reaches, 1 from a little beside it on."""
    reached = (placement.patch(edit.delta) != 0).any(axis=2)
    if edit.warp is not None:
        reached |= (placement.displacement(edit.warp) != 0).any(axis=0)
    free = np.ones((window.height, window.width), np.uint8)
    top, left = placement.top - window.top, placement.left - window.left
    rows, columns = (slice(max(0, at), max(0, at + side)) for at, side in zip((top, left), reached.shape, strict=True))
    part = free[rows, columns]
    part[reached[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]]] = 0
    distance = cv2.distanceTransform(free, cv2.DIST_L2, 5)
    return np.asarray(np.minimum(distance / np.float32(max(1, _FADE * placement.width)), 1), dtype=np.float32)


def _over(fields: Sequence[tuple[FloatArray, Placement]], window: Placement) -> FloatArray:
    """The sum (2, height, width) of fields over a window; not to be written to."""
    if len(fields) == 1 and fields[0][1] == window:
        return fields[0][0]
    total = np.zeros((2, window.height, window.width), np.float32)
    for moved, place in fields:
        top, bottom = max(window.top, place.top), min(window.top + window.height, place.top + place.height)
        left, right = max(window.left, place.left), min(window.left + window.width, place.left + place.width)
        if top < bottom and left < right:
            total[:, top - window.top : bottom - window.top, left - window.left : right - window.left] += moved[
                :, top - place.top : bottom - place.top, left - place.left : right - place.left
            ]
    return total


def _joined(held: FloatArray, added: FloatArray) -> FloatArray:
    """Two warps (2, H, W) of one window, of which the first keeps what it has."""
    if not held.any() or not added.any():
        return held + added
    # Fading over four times the greatest displacement adds a strain of a quarter at most.
    reach = max(1.0, 4 * float(np.abs(added).max()))
    outside = cv2.distanceTransform((~held.any(axis=0)).astype(np.uint8), cv2.DIST_L2, 5)
    faded = added * np.minimum(outside / np.float32(reach), 1)
    for _ in range(6):
        if least_jacobian(torch.from_numpy(held + faded)) > 0:
            return np.asarray(held + faded, dtype=np.float32)
        faded = faded / 2
    return held


def resample(pixels: PixelArray, field: FloatArray, top: int, left: int) -> FloatArray:
    """The picture as seen through a warp, by bicubic interpolation: sharp, and differentiable in torch alike.

    Args:
        pixels: (H, W, 3) of the whole picture.
        field: (2, h, w), x and y in pixels: from where each pixel of a window is fetched, less where it is.
        top: First row of the window.
        left: First column.

    Returns:
        (h, w, 3) in [0, 1]. Beyond the picture's border its last pixels count.
    """
    found = np.empty((*field.shape[1:], 3), np.float32)
    for start in range(0, len(found), _BAND):  # of a large face at once, what this takes in between is gigabytes
        band = found[start : start + _BAND]
        band[...] = _resampled(pixels, field[:, start : start + _BAND], top + start, left)
    return found


def _resampled(pixels: PixelArray, field: FloatArray, top: int, left: int) -> FloatArray:
    height, width = field.shape[1:]
    # Coordinates within a part of the photo keep their fractions in single precision.
    margin = int(np.ceil(np.abs(field).max())) + 3
    rows = slice(max(0, top - margin), min(pixels.shape[0], top + height + margin))
    columns = slice(max(0, left - margin), min(pixels.shape[1], left + width + margin))
    part = torch.from_numpy(np.ascontiguousarray(pixels[rows, columns].transpose(2, 0, 1)))[None]
    y = torch.arange(height, dtype=torch.float32)[:, None] + torch.from_numpy(field[1]) + (top - rows.start)
    x = torch.arange(width, dtype=torch.float32)[None] + torch.from_numpy(field[0]) + (left - columns.start)
    grid = torch.stack([(2 * x + 1) / part.shape[3] - 1, (2 * y + 1) / part.shape[2] - 1], dim=-1)[None]
    seen = functional.grid_sample(part, grid, mode="bicubic", padding_mode="border", align_corners=False)
    found: FloatArray = seen[0].permute(1, 2, 0).clamp(0, 1).numpy()
    return found
