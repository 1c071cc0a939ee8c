"""Judges look at windows of a photo, and windows show what the whole photo would."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bauta.faces.faces import Faces
from bauta.judging.conditions import CONDITIONS, Condition
from bauta.judging.elsewhere import find_elsewhere, search_embedded
from bauta.judging.verification import JudgeWithThresholds, verify_faces
from bauta.judging.windows import GRID, windows_around
from bauta.recognizers.calibration import Threshold
from photo_builders import add_jpeg_segments, encode, exif, scene
from protection_fakes import FakeJudge, Stage, build_stage

stage = pytest.fixture(build_stage)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda one: one.name)
def test_a_condition_does_to_a_window_what_it_does_to_the_photo(condition: Condition) -> None:
    pixels = scene(480, 640, seed=3).astype(np.float32) / 255
    (window,) = windows_around(np.array([[260, 200, 300, 240]], np.float32), pixels.shape)
    assert (window.left, window.top) == (160, 80)
    whole, part = condition.apply(pixels), condition.apply(window.of(pixels))
    ratio = whole.shape[0] / pixels.shape[0]
    assert part.shape[0] == ratio * (window.bottom - window.top)
    left, top = round(window.left * ratio), round(window.top * ratio)
    same = whole[top : top + part.shape[0], left : left + part.shape[1]]
    inside = slice(24, -24)  # filters, and blocks of JPEG behind them, see what is beyond the border
    np.testing.assert_allclose(part[inside, inside], same[inside, inside], atol=1.5 / 255)


def test_every_face_is_in_one_window_with_room_around_it() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        corners, sides = rng.uniform(0, 3000, (12, 2)), rng.uniform(10, 700, (12, 1))
        boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
        windows = windows_around(boxes, (3000, 3500, 3))
        assert sorted(number for window in windows for number in window.faces) == list(range(12))
        for window in windows:
            assert window.left % GRID == 0
            assert window.top % GRID == 0
            assert window.left < window.right <= 3500
            assert window.top < window.bottom <= 3000
            for number in window.faces:
                x1, y1, x2, y2 = boxes[number]
                side = x2 - x1
                assert window.left <= max(0, x1 - side)
                assert window.top <= max(0, y1 - side)
                assert window.right >= min(3500, x2 + side)
                assert window.bottom >= min(3000, y2 + side)


def test_neighbours_share_a_window_and_strangers_do_not() -> None:
    near = np.array([[400, 400, 500, 500], [520, 400, 620, 500]], np.float32)
    assert [window.faces for window in windows_around(near, (9000, 12000))] == [(0, 1)]
    far = np.array([[400, 400, 500, 500], [9000, 8000, 9100, 8100]], np.float32)
    assert [window.faces for window in windows_around(far, (9000, 12000))] == [(0,), (1,)]


def test_judges_are_shown_no_more_than_windows(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        "bauta.judging.verification.detect_faces",
        lambda pixels, **_: (seen.append(pixels.shape[0] * pixels.shape[1]), Faces.none())[1],
    )
    pixels = scene(1200, 1600, seed=3).astype(np.float32) / 255
    pixels = np.kron(pixels, np.ones((2, 2, 1), np.float32))
    points = np.array([(10, 12), (30, 12), (20, 24), (12, 34), (28, 34)], np.float32)
    corners = np.array([[100, 100], [2900, 2000]], np.float32)
    faces = Faces(np.concatenate([corners, corners + 40], axis=1), points + corners[:, None], np.ones(2))
    answers = verify_faces(pixels, pixels, faces, [judge(stage)])
    assert len(seen) == 2 * len(CONDITIONS)
    assert max(seen) < 320 * 320
    assert [answer.verdict for answer in answers] == ["weak", "weak"]


def judge(stage: Stage) -> JudgeWithThresholds:
    limits = {fmr: Threshold(fmr, 0.5, 10, 5, "nobody", "0" * 64, "2026-11-01") for fmr in (1e-2, 1e-3, 1e-4)}
    return JudgeWithThresholds(FakeJudge(stage.find("judge_one")), False, limits)  # type: ignore[arg-type]


# What else a file shows


def person() -> tuple[NDArray[np.uint8], Faces]:
    pixels = scene(240, 320, seed=5)
    points = np.array([(110, 90), (160, 90), (135, 120), (115, 150), (155, 150)], np.float32)
    return pixels, Faces(np.array([[90, 50, 180, 180]], np.float32), points[None], np.ones(1))


def with_preview(pixels: NDArray[np.uint8], preview: bytes) -> bytes:
    return add_jpeg_segments(encode(pixels, "JPEG", quality=90), (0xED, b"Preview\0" + preview))


@pytest.mark.usefixtures("stage")
class TestEmbedded:
    @pytest.fixture(autouse=True)
    def blind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bauta.judging.elsewhere.detect_faces", lambda pixels, **_: Faces.none())

    @pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP"])
    def test_a_preview_of_the_bare_photo_is_matched(self, stage: Stage, format_name: str) -> None:
        pixels, faces = person()
        grey = np.full_like(pixels, 128)
        content = with_preview(grey, encode(pixels[::2, ::2], format_name))
        (finding,) = search_embedded(content, pixels / np.float32(255), faces, [judge(stage)], fmr=1e-2)
        assert (finding.kind, finding.face, finding.judge) == ("embedded-picture-match", 1, "judge_one")
        assert finding.forces == "weak"
        assert finding.cosine is not None
        assert finding.cosine > 0.9

    def test_a_preview_of_the_protected_photo_is_no_finding(self, stage: Stage) -> None:
        pixels, faces = person()
        content = with_preview(pixels, encode(255 - pixels[::2, ::2], "PNG"))
        assert search_embedded(content, pixels / np.float32(255), faces, [judge(stage)], fmr=1e-2) == []

    def test_a_clean_file_has_none(self, stage: Stage) -> None:
        pixels, faces = person()
        content = encode(pixels, "JPEG", exif=exif())
        assert search_embedded(content, pixels / np.float32(255), faces, [judge(stage)], fmr=1e-2) == []

    def test_what_cannot_be_looked_at_is_told(self, stage: Stage) -> None:
        pixels, faces = person()
        film = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\0\0\1\0moov" + bytes(300)
        content = encode(pixels, "JPEG") + film
        (finding,) = search_embedded(content, pixels / np.float32(255), faces, [judge(stage)], fmr=1e-2)
        assert (finding.kind, finding.forces) == ("embedded-picture-unseen", "partial")

    def test_a_judge_without_threshold_has_no_say(self, stage: Stage) -> None:
        pixels, faces = person()
        content = with_preview(pixels, encode(pixels[::2, ::2], "PNG"))
        member = JudgeWithThresholds(FakeJudge(stage.find("judge_one")), False, {})  # type: ignore[arg-type]
        assert search_embedded(content, pixels / np.float32(255), faces, [member], fmr=1e-2) == []


def test_a_face_that_the_original_does_not_show_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, faces = person()
    points = faces.landmarks / 2 + 150
    other = Faces(np.array([[195, 175, 240, 240]], np.float32), points, np.ones(1))
    monkeypatch.setattr(
        "bauta.judging.elsewhere.detect_faces",
        lambda saved, **_: Faces.join([faces, other]),
    )
    (finding,) = find_elsewhere(pixels / np.float32(255), faces, pixels.shape)
    assert (finding.kind, finding.box, finding.forces) == (
        "unprotected-face-elsewhere",
        (195, 175, 240, 240),
        "partial",
    )
    assert find_elsewhere(pixels / np.float32(255), Faces.join([faces, other]), pixels.shape) == []
