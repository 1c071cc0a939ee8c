"""Faces are followed through a clip, and nothing that shows one for a moment is lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.tracking import HOLD, Track, Tracker
from clip_builders import RATE, Finder, Pixels, Shown, ground, moving, place

FACE, OTHER = ground((112, 112), 5), ground((112, 112), 6)


def followed(frames: Sequence[Pixels], finder: Finder, every: int | None = 4) -> tuple[list[Track], Tracker]:
    tracker = Tracker(finder, RATE, every)
    tracks = [track for number, frame in enumerate(frames) for track in tracker.add(number, Shown(frame)) or ()]
    return tracks + tracker.finish(), tracker


def truth(at: int) -> np.ndarray:
    top, left = place(at)
    return np.array(ARCFACE_112.points) + [left, top]


def test_a_face_is_followed_between_looks() -> None:
    finder = Finder(FACE)
    (track,), _ = followed(moving(FACE, 23), finder)
    assert finder.looks == 7  # of frames 0, 4, ..., 20, and the last
    assert (track.first, track.last) == (0, 22)
    for at in range(23):
        assert np.abs(track.landmarks[at] - truth(at)).max() < 1


def test_landmarks_do_not_tremble_as_what_is_found_does() -> None:
    finder = Finder(FACE)
    finder.tremble = 1.5
    (track,), _ = followed(moving(FACE, 40), finder, every=1)
    steps = np.diff(track.landmarks, axis=0) - (2, 1)
    assert np.abs(steps).mean() < 0.25  # those that are found differ by 1.7 on average


def test_a_face_that_is_not_found_for_a_while_is_still_followed() -> None:
    finder = Finder(FACE)
    finder.blind = set(range(3, 14))
    (track,), _ = followed(moving(FACE, 30), finder, every=1)
    assert (track.first, track.last) == (0, 29)
    assert not track.found[3:14].any()
    assert not track.bridged.any()
    assert np.abs(track.landmarks[10] - truth(10)).max() < 2


def test_a_face_that_hides_is_interpolated_where_it_must_have_been() -> None:
    frames = moving(FACE, 40)
    for at in range(10, 30):  # nothing of it is to be seen
        frames[at] = ground().copy()
    finder = Finder(FACE)
    (track,), _ = followed(frames, finder)
    assert (track.first, track.last) == (0, 39)
    assert track.bridged[12:28].all()
    assert np.abs(track.landmarks[20] - truth(20)).max() < 3


def test_a_face_is_carried_back_to_where_it_was_before_it_was_found() -> None:
    finder = Finder(FACE)
    finder.blind = set(range(5))
    (track,), _ = followed(moving(FACE, 16), finder, every=1)
    assert int(np.flatnonzero(track.found)[0]) + track.first == 5
    assert track.first == 0


def test_where_looks_disagree_every_frame_is_looked_at() -> None:
    frames = moving(FACE, 17)
    for at in range(7, 17):
        frames[at][100:212, 200:312] = OTHER
    finder = Finder(FACE, OTHER)
    tracks, _ = followed(frames, finder, every=8)
    assert {(track.first, track.last) for track in tracks} >= {(0, 16)}
    (second,) = (track for track in tracks if track.first)
    assert second.found[7 - second.first]
    assert finder.looks == 10  # the first, eight to the next look, and the last


def test_a_cut_ends_every_track() -> None:
    frames = moving(FACE, 10) + [np.uint8(255) - frame // 2 for frame in moving(FACE, 10, seed=9)]
    frames[10:] = [frame.copy() for frame in frames[10:]]
    for at in range(10):
        top, left = place(at)
        frames[10 + at][top : top + 112, left : left + 112] = FACE
    tracks, tracker = followed(frames, Finder(FACE))
    assert tracker.shots == [0, 10]
    assert [(track.shot, track.first, track.last) for track in tracks] == [(0, 0, 9), (1, 10, 19)]


def test_a_face_of_one_frame_is_a_track() -> None:
    frames = [ground().copy() for _ in range(9)]
    frames[4] = moving(FACE, 5)[4]
    (track,), _ = followed(frames, Finder(FACE))
    assert track.first <= 4 <= track.last
    assert track.found[4 - track.first]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_short_clips(count: int) -> None:
    (track,), _ = followed(moving(FACE, count), Finder(FACE))
    assert len(track.landmarks) == count


def test_memory_does_not_grow_with_the_clip() -> None:
    tracker = Tracker(Finder(FACE), RATE, 4)
    most = 0
    for number, frame in enumerate(moving(FACE, 40)):
        tracker.add(number, Shown(frame))
        most = max(most, len(tracker._window) + len(tracker._before))
    assert most <= 5 + round(HOLD * RATE)
