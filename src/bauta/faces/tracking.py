"""Faces followed through a clip: found on every n-th frame, carried from frame to frame by what moves, and steady.

Where two looks at the clip do not agree on which faces there are, every frame between them is looked at. A face that is
lost is held where the picture moves it for a while, and carried backwards before it was first found: a frame that
shows half a face is still a frame to cover. Where somebody is a face, all that is kept is five landmarks a frame.

Landmarks that are found anew on each frame tremble, and what is put on a face by them would swim. So the movement
between frames is taken from optical flow, and what was found only says where the face is within that movement, averaged
over a fraction of a second.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.faces.faces import Faces, overlaps

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]

LOOK_EVERY = 0.17
"""Seconds between two looks for faces."""
WHOLE_EVERY = 0.5
"""Seconds between two looks for faces of every size; the others leave out small ones that are not followed already."""
HOLD = 0.7
"""Seconds for which a face that is not found any more is followed by the movement of the picture alone."""
STEADY = 0.2
"""Seconds over which found landmarks are averaged (standard deviation)."""
BRIDGE = 1.5
"""Seconds for which a person who was away may come back as the same track."""
SELDOM, UNSURE = 0.5, 0.9
"""Share of the looks, and median score, below both of which a track may be no face: print on clothes is found like
that, for a moment here and there. A face that turns away is found seldom too, but surely."""
_LONG_SIDE = 960  # of the pictures in which movement is looked for
_GRID = 8
_FEWEST = 8  # points that must agree on a movement
_SAME = 0.25  # intersection over union at which a face found is the one that was expected there
_THUMBNAIL = (32, 18)
_CUT = 0.10  # mean difference of thumbnails, in [0, 1], from which on two frames are of different shots


@dataclass(frozen=True, eq=False)
class Track:
    """One face through one shot.

    Attributes:
        shot: Number of the shot, from 0.
        first: Number of its first frame.
        landmarks: (T, 5, 2), of each of its frames, steady.
        found: (T,) whether the detector found the face in that frame; elsewhere it was followed or interpolated.
        bridged: (T,) whether neither the detector nor the movement told where it is, so that it was interpolated.
        scores: (T,) the detector's, 0 where it was not found.
        looks: How many of its frames the detector looked at.
    """

    shot: int
    first: int
    landmarks: FloatArray
    found: NDArray[np.bool_]
    bridged: NDArray[np.bool_]
    scores: FloatArray
    looks: int

    @property
    def doubtful(self) -> bool:
        """Whether it may be no face: seldom found where it was looked for, and hardly ever surely."""
        return bool(self.found.sum() < SELDOM * self.looks and np.median(self.scores[self.found]) < UNSURE)

    @property
    def last(self) -> int:
        """Number of its last frame."""
        return self.first + len(self.landmarks) - 1

    def at(self, frame: int) -> FloatArray | None:
        """(5, 2) in a frame; None where the face is not there."""
        return self.landmarks[frame - self.first] if self.first <= frame <= self.last else None

    @property
    def boxes(self) -> FloatArray:
        """(T, 4) about the box that a detector would give."""
        return np.stack([box_of(points) for points in self.landmarks])


def box_of(points: NDArray[np.floating[Any]]) -> FloatArray:
    """x1, y1, x2, y2 of about the box that the detector gives for landmarks (5, 2)."""
    middle = points.mean(axis=0)
    height = float(np.linalg.norm(points[3:].mean(axis=0) - points[:2].mean(axis=0)))
    eyes = float(np.linalg.norm(points[1] - points[0]))
    side = max(2.6 * height, 2.2 * eyes, 2.0) / 2
    return np.array([middle[0] - 0.8 * side, middle[1] - side, middle[0] + 0.8 * side, middle[1] + side])


@dataclass
class _Path:
    """A face while it is followed.

    Attributes:
        shot: Of the face.
        first: Its first frame.
        steps: (3, 3) from each frame but the first to it from the one before.
        found: Landmarks by frame, where it was found.
        scores: By frame.
        held: Frames since it was last found.
        lost: Whether it has ended.
    """

    shot: int
    first: int
    steps: list[FloatArray] = field(default_factory=list)
    found: dict[int, FloatArray] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    bridged: set[int] = field(default_factory=set)
    held: int = 0
    lost: bool = False

    @property
    def last(self) -> int:
        return self.first + len(self.steps)

    def expected(self) -> FloatArray:
        """Landmarks in its last frame."""
        at = max(self.found)
        moved = np.eye(3)
        for step in self.steps[at - self.first :]:
            moved = step @ moved
        return _carried(self.found[at], moved)


class Picture(Protocol):
    """A frame, which makes of itself what is asked for."""

    @property
    def colours(self) -> Pixels:
        """(H, W, 3) upright RGB."""

    @property
    def grey(self) -> Pixels:
        """(H, W)."""

    def small(self, width: int, height: int) -> Pixels:
        """(height, width, 3), the whole of it reduced."""


class Detect(Protocol):
    """Finds the faces of a picture (H, W, 3) uint8."""

    def __call__(self, pixels: Pixels, *, near: Sequence[FloatArray] | None) -> Faces:
        """All faces, or where landmarks (5, 2) of known faces are given, those of some size and those near them."""


class Tracker:
    """Follows the faces of frames that come one after the other.

    Args:
        detect: Finds faces.
        rate: Frames a second.
        every: Frames between two looks, all of them for faces of every size; None for `LOOK_EVERY` and `WHOLE_EVERY`.
        shots: Numbers of the first frames of the shots up to the one that it begins with.
    """

    def __init__(self, detect: Detect, rate: float, every: int | None = None, shots: Sequence[int] = (0,)) -> None:
        self.detect, self.rate = detect, rate
        self.every = max(1, round(LOOK_EVERY * rate)) if every is None else every
        self._back = max(self.every, round(HOLD * rate))
        self.shots: list[int] = list(shots)  # numbers of their first frames
        self._whole_every = 0 if every else round(WHOLE_EVERY * rate)
        self._whole = self.shots[-1] - self._whole_every  # when the last look was one for faces of every size
        self.looked: dict[int, Faces] = {}
        self._paths: list[_Path] = []
        self._window: list[tuple[int, Picture, Pixels]] = []  # number, picture, grey; at most `every` + 1
        self._before: list[tuple[int, Pixels]] = []  # of the same shot, grey: for faces that appear
        self._thumbnail: NDArray[np.float32] | None = None
        self._differences: list[float] = []

    def add(self, number: int, picture: Picture) -> list[Track] | None:
        """The next frame; the tracks of the shot that ended before it, if one did."""
        ended = None
        thumbnail = picture.small(*_THUMBNAIL).astype(np.float32) / np.float32(255)
        if self._thumbnail is not None and self._is_cut(thumbnail):
            ended = self.finish()
            self.shots.append(number)
            self._before.clear()
            self._differences.clear()
            self._whole = number - self._whole_every
        self._thumbnail = thumbnail
        grey = picture.grey
        self._scale = float(min(1.0, _LONG_SIDE / max(grey.shape)))
        if self._scale < 1:
            size = cv2.resize(grey, None, fx=self._scale, fy=self._scale, interpolation=cv2.INTER_AREA)
            grey = np.asarray(size, dtype=np.uint8)
        self._window.append((number, picture, grey))
        if len(self._window) == 1 or len(self._window) > self.every:
            self._process()
        return ended

    def finish(self) -> list[Track]:
        """The tracks of the last shot, by where they begin."""
        self._close()
        paths = _bridge(self._paths, BRIDGE * self.rate)
        paths.sort(key=lambda path: (path.first, -max(path.scores.values())))
        tracks = [_steady(path, STEADY * self.rate, self.looked) for path in paths]
        self._paths.clear()
        self.looked.clear()
        return tracks

    def _is_cut(self, thumbnail: NDArray[np.float32]) -> bool:
        assert self._thumbnail is not None
        difference = float(np.abs(thumbnail - self._thumbnail).mean())
        usual = float(np.median(self._differences)) if self._differences else 0.0
        self._differences = [*self._differences[-24:], difference]
        return difference > max(_CUT, 4 * usual)

    def _close(self) -> None:
        """Look at what is left of the shot."""
        if len(self._window) > 1 or (self._window and self._window[0][0] not in self.looked):
            self._process()
        self._window.clear()

    def _look(self, number: int, picture: Picture, near: Sequence[FloatArray] = ()) -> Faces:
        if number not in self.looked:
            whole = number - self._whole >= self._whole_every
            if whole:
                self._whole = number
            self.looked[number] = self.detect(picture.colours, near=None if whole else near)
        return self.looked[number]

    def _process(self) -> None:
        """Follow faces through the window, whose last frame is the first of the next."""
        window = self._window
        if len(window) == 1:
            number, picture, _ = window[0]
            self._match(number, self._look(number, picture), 0)
        else:
            active = self._active()
            flown = [self._flown(path, window) for path in active]
            expected = [_through(path.expected(), steps or []) for path, steps in zip(active, flown, strict=True)]
            last = self._look(window[-1][0], window[-1][1], expected)
            agreed = len(last) == len(active) and all(steps is not None for steps in flown)
            if agreed and len(_pairs(expected, last)) == len(active):
                for path, steps in zip(active, flown, strict=True):
                    path.steps += steps or []
                self._match(window[-1][0], last, 0)
            else:
                for before, now in itertools.pairwise(window):
                    self._step(before, now)
        self._before = [*self._before, *((number, grey) for number, _, grey in window[:-1])][-self._back :]
        self._window = window[-1:]

    def _step(self, before: tuple[int, Picture, Pixels], now: tuple[int, Picture, Pixels]) -> None:
        """One frame on, with a look at it."""
        for path in self._active():
            step = _movement(before[2], now[2], box_of(path.expected()), self._scale)
            if step is None:
                step = np.eye(3)  # unless it is found here after all, it ends
                path.held += int(HOLD * self.rate) + 1
            path.steps.append(step)
        faces = self._look(now[0], now[1], [path.expected() for path in self._active()])
        self._match(now[0], faces, 1)
        self._before = [*self._before, (before[0], before[2])][-self._back :]

    def _active(self) -> list[_Path]:
        return [path for path in self._paths if not path.lost]

    def _flown(self, path: _Path, window: Sequence[tuple[int, Picture, Pixels]]) -> list[FloatArray] | None:
        """The steps of a face through the window, or None where what moves does not tell."""
        points, steps = path.expected(), []
        for before, now in itertools.pairwise(window):
            step = _movement(before[2], now[2], box_of(points), self._scale)
            if step is None:
                return None
            steps.append(step)
            points = _carried(points, step)
        return steps

    def _match(self, number: int, faces: Faces, waited: int) -> None:
        """Which face is whose: those that were followed here, and new ones."""
        active = self._active()
        pairs = _pairs([path.expected() for path in active], faces)
        for at, path in enumerate(active):
            if at in pairs:
                face = pairs[at]
                path.found[number], path.held = faces.landmarks[face].astype(np.float64), 0
                path.scores[number] = float(faces.scores[face])
                continue
            path.held += max(1, waited)
            if path.held > HOLD * self.rate:
                path.lost = True
                while path.steps and path.last > max(path.found) + HOLD * self.rate:
                    path.steps.pop()
        for face in set(range(len(faces))) - set(pairs.values()):
            path = _Path(len(self.shots) - 1, number)
            path.found[number] = faces.landmarks[face].astype(np.float64)
            path.scores[number] = float(faces.scores[face])
            self._backwards(path, number)
            self._paths.append(path)

    def _backwards(self, path: _Path, number: int) -> None:
        """Where a new face was before it was found, as far as what moves tells."""
        greys = dict(self._before) | {at: grey for at, _, grey in self._window}
        points = path.found[number]
        while number - 1 in greys and number in greys:
            back = _movement(greys[number], greys[number - 1], box_of(points), self._scale)
            if back is None:
                break
            path.steps.insert(0, np.asarray(np.linalg.inv(back), dtype=np.float64))
            path.first, number = number - 1, number - 1
            points = _carried(points, back)


def _pairs(expected: Sequence[FloatArray], faces: Faces) -> dict[int, int]:
    """Which face found (value) is which one expected (key), the surest first."""
    ranked = []
    for at, points in enumerate(expected):
        share = overlaps(faces.boxes, box_of(points).astype(np.float32))
        eyes = np.linalg.norm(points[1] - points[0]) + 1e-6
        for face in range(len(faces)):
            apart = np.linalg.norm(faces.landmarks[face] - points, axis=1).mean() / eyes
            if share[face] >= _SAME or apart < 0.5:
                ranked.append((apart - share[face], at, face))
    pairs: dict[int, int] = {}
    for _, at, face in sorted(ranked):
        if at not in pairs and face not in pairs.values():
            pairs[at] = face
    return pairs


def _movement(before: Pixels, now: Pixels, box: FloatArray, scale: float) -> FloatArray | None:
    """The similarity (3, 3) by which what is in a box moves from one picture to the next, in pixels of the frames.

    None where too few points agree: the face is gone, covered, or blurred by its own speed.
    """
    x1, y1, x2, y2 = box * scale
    margin = 0.12 * (x2 - x1)
    axes = (np.linspace(x1 + margin, x2 - margin, _GRID), np.linspace(y1 + margin, y2 - margin, _GRID))
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 1, 2).astype(np.float32)
    height, width = before.shape
    inside = (points[:, 0] >= 2).all(axis=1) & (points[:, 0, 0] < width - 2) & (points[:, 0, 1] < height - 2)
    points = points[inside]
    if len(points) < _FEWEST:
        return None
    # Only around the face: a pyramid of the whole frame is what takes time.
    reach = int(1.0 * max(x2 - x1, y2 - y1)) + 24
    left, top = max(0, int(x1) - reach), max(0, int(y1) - reach)
    part = (slice(top, int(y2) + reach), slice(left, int(x2) + reach))
    one, two = np.ascontiguousarray(before[part]), np.ascontiguousarray(now[part])
    origin = np.array([left, top], np.float32)
    options: dict[str, Any] = {"winSize": (15, 15), "maxLevel": 3}
    there, ok, _ = cv2.calcOpticalFlowPyrLK(one, two, points - origin, points * 0, **options)
    back, returned, _ = cv2.calcOpticalFlowPyrLK(two, one, there, points * 0, **options)
    wander = np.linalg.norm(back - (points - origin), axis=2)[:, 0]
    good = (ok[:, 0] > 0) & (returned[:, 0] > 0) & (wander < 0.5 + 0.01 * (x2 - x1))
    if good.sum() < max(_FEWEST, 0.35 * len(points)):
        return None
    matrix, agreeing = cv2.estimateAffinePartial2D(
        points[good] - origin, there[good], ransacReprojThreshold=1.0 + 0.01 * (x2 - x1)
    )
    if matrix is None or agreeing.sum() < max(_FEWEST, 0.5 * good.sum()):
        return None
    size = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 0.7 < size < 1.4:
        return None
    # From pixels of the part to those of the frame: p -> (A (p scale - o) + t + o) / scale.
    offset = (matrix[:, 2] + origin - matrix[:, :2] @ origin) / scale
    return np.vstack([np.column_stack([matrix[:, :2], offset]), (0, 0, 1)]).astype(np.float64)


def _carried(points: FloatArray, matrix: FloatArray) -> FloatArray:
    return np.asarray(points @ matrix[:2, :2].T + matrix[:2, 2])


def _through(points: FloatArray, steps: Sequence[FloatArray]) -> FloatArray:
    for step in steps:
        points = _carried(points, step)
    return points


def _similarity(before: FloatArray, after: FloatArray) -> FloatArray:
    """(3, 3), least squares, from landmarks to landmarks."""
    a, b = ((points - points.mean(axis=0)) @ (1, 1j) for points in (before, after))
    factor = np.vdot(a, b) / max(np.vdot(a, a).real, 1e-9)
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    offset = after.mean(axis=0) - linear @ before.mean(axis=0)
    return np.vstack([np.column_stack([linear, offset]), (0, 0, 1)])


def _bridge(paths: list[_Path], longest: float) -> list[_Path]:
    """Paths of which one goes on where another of the same shot ended a little before are one path."""
    paths = sorted(paths, key=lambda path: path.first)
    joined: list[_Path] = []
    for path in paths:
        earlier = [one for one in joined if one.shot == path.shot and _continues(one, path, longest)]
        if not earlier:
            joined.append(path)
            continue
        one = max(earlier, key=lambda other: other.last)
        end, start = max(one.found), min(path.found)
        whole = _similarity(one.found[end], path.found[start])
        count = start - end
        steps = one.steps[: end - one.first]
        angle, size = np.arctan2(whole[1, 0], whole[0, 0]), np.hypot(whole[0, 0], whole[1, 0])
        middle, goal = one.found[end].mean(axis=0), path.found[start].mean(axis=0)
        turn = np.exp(1j * angle / count) * size ** (1 / count)
        linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
        for at in range(count):
            here, there = middle + (goal - middle) * at / count, middle + (goal - middle) * (at + 1) / count
            steps.append(np.vstack([np.column_stack([linear, there - linear @ here]), (0, 0, 1)]))
        one.steps = steps + path.steps[start - path.first :]
        one.bridged |= path.bridged | set(range(end + 1, start))
        one.found |= path.found
        one.scores |= path.scores
    return joined


def _continues(one: _Path, path: _Path, longest: float) -> bool:
    """Whether a path may be the same person's as one that ended, by time and place."""
    end, start = max(one.found), min(path.found)
    if not 0 < start - end <= longest:
        return False
    before, after = box_of(one.found[end]), box_of(path.found[start])
    sides = before[3] - before[1], after[3] - after[1]
    near = np.abs((before[:2] + before[2:] - after[:2] - after[2:]) / 2).max() < 0.75 * max(sides)
    return bool(near and 0.5 < sides[0] / sides[1] < 2)


def _steady(path: _Path, sigma: float, looked: Collection[int]) -> Track:
    """Landmarks of every frame: the movement of the picture, and within it what was found, averaged over time."""
    count = len(path.steps) + 1
    whole = [np.eye(3)]
    for step in path.steps:
        whole.append(step @ whole[-1])
    times = np.array(sorted(path.found))
    still = np.stack(
        [_carried(path.found[time], np.linalg.inv(whole[time - path.first])) for time in times]
    )  # as they would lie in the first frame
    landmarks = np.empty((count, 5, 2))
    for at in range(count):
        away = np.abs(times - path.first - at)
        weights = np.exp(-0.5 * ((away - away.min()) / max(sigma, 1e-6)) ** 2)
        weights = weights * np.array([max(path.scores[time], 0.05) for time in times])
        weights = weights * (away <= away.min() + 4 * sigma)
        mean = np.tensordot(weights / weights.sum(), still, axes=1)
        landmarks[at] = _carried(mean, whole[at])
    found = np.zeros(count, np.bool_)
    bridged = np.zeros(count, np.bool_)
    scores = np.zeros(count)
    for time in times:
        found[time - path.first], scores[time - path.first] = True, path.scores[time]
    for time in path.bridged:
        bridged[time - path.first] = True
    looks = sum(path.first <= at <= path.last for at in looked)
    return Track(path.shot, path.first, landmarks, found, bridged, scores, looks)
