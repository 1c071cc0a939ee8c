"""Faces that are turned, small, nested or invisible, and what is said when not all was searched."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tomllib

import cv2
import numpy as np
import pytest
from skimage import data

from bauta.errors import UsageError, WeightsCorrupt, WeightsMissing
from bauta.faces import centerface, detection, proposals
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces, same_face
from bauta.faces.proposals import propose
from bauta.faces.second_look import Frames, upright_turns

# Eyes, nose and mouth of the astronaut, and the middle and height of her face.
LANDMARKS = np.array([(203, 99), (245, 102), (223, 126), (201, 138), (244, 140)], dtype=np.float64)
MIDDLE, HEIGHT = np.array([221.0, 115.0]), 110.0


@pytest.fixture(scope="module")
def portrait():
    return data.astronaut().astype(np.float32) / 255


def wall(height, width):
    """A plain wall, lit from one side."""
    light = np.linspace(0.35, 0.7, width, dtype=np.float32)
    return np.repeat(np.tile(light, (height, 1))[..., None], 3, axis=2)


def hang(canvas, portrait, size, middle, degrees=0.0):
    """Hang the astronaut's head, `size` pixels high and turned, on a canvas; returns her landmarks there."""
    turn = cv2.getRotationMatrix2D((0, 0), degrees, size / HEIGHT)[:, :2]
    source, to_source = portrait, 1.0
    if size < HEIGHT:
        source = cv2.resize(portrait, None, fx=size / HEIGHT, fy=size / HEIGHT, interpolation=cv2.INTER_AREA)
        to_source = source.shape[0] / portrait.shape[0]
    offset = np.asarray(middle) - turn @ MIDDLE
    matrix = np.column_stack([turn / to_source, offset + (turn / to_source - turn) @ (0.5, 0.5)])
    shown = cv2.warpAffine(source, matrix, canvas.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    rows, columns = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    inside = (columns - middle[0]) ** 2 + (rows - middle[1]) ** 2 < (0.9 * size) ** 2
    canvas[inside] = shown[inside]
    return LANDMARKS @ turn.T + offset


def assert_found(faces, *expected):
    """Exactly these faces, by landmarks, to a sixth of the distance between the eyes."""
    assert len(faces) == len(expected), faces.boxes
    for landmarks in expected:
        eyes = np.linalg.norm(landmarks[0] - landmarks[1])
        apart = np.linalg.norm(faces.landmarks - landmarks, axis=2).mean(axis=1)
        assert apart.min() < eyes / 6, apart / eyes


@pytest.mark.parametrize("degrees", [30, 60, 90, 135, 180, 225, 270, 315])
def test_a_turned_face_beside_an_upright_one(portrait, degrees):
    canvas = wall(300, 480)
    upright = hang(canvas, portrait, 100, (120, 150))
    turned = hang(canvas, portrait, 90, (350, 150), degrees)
    assert_found(detect_faces(canvas), upright, turned)


@pytest.mark.parametrize(
    ("shape", "degrees"), [((2000, 2600), 0), ((400, 6000), 90)], ids=["5 megapixels", "a panorama"]
)
def test_the_smallest_face_is_a_number_of_pixels(portrait, shape, degrees):
    canvas = wall(*shape)
    large = hang(canvas, portrait, 220, (shape[1] - 260, 200))
    small = hang(canvas, portrait, 42, (shape[1] / 5, shape[0] / 2), degrees)
    assert_found(detect_faces(canvas), large, small)


@pytest.mark.slow
def test_a_small_face_in_fifty_megapixels(portrait):
    canvas = wall(6120, 8160)
    large = hang(canvas, portrait, 400, (1000, 2000))
    small = hang(canvas, portrait, 42, (5700, 2000))
    assert_found(detect_faces(canvas), large, small)


def test_a_face_where_tiles_meet(portrait, monkeypatch):
    canvas = wall(420, 640)
    expected = [hang(canvas, portrait, 60, (x, y)) for x in (100, 230, 360, 490) for y in (100, 220, 340)]
    monkeypatch.setattr(proposals, "TILE", 192)
    assert_found(detect_faces(canvas), *expected)


@pytest.mark.parametrize("tile", [96, 200, 1024])
@pytest.mark.parametrize("length", [1, 31, 80, 96, 97, 1024, 1025, 5000])
def test_tiles_cover_and_overlap(length, tile, monkeypatch):
    monkeypatch.setattr(proposals, "TILE", tile)
    spans = proposals._spans(length)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(end - start <= tile for start, end in spans)
    assert all(end - start >= proposals.SHARED for (_, end), (start, _) in itertools.pairwise(spans))


def test_a_card_before_a_face(portrait):
    canvas = wall(480, 480)
    face = hang(canvas, portrait, 260, (220, 220))
    canvas[250:360, 250:400] = 0.95  # the card
    card = hang(canvas, portrait, 70, (295, 310))
    assert_found(detect_faces(canvas), face, card)


def test_a_face_that_cannot_be_seen_is_nobodys(portrait):
    canvas = wall(300, 480)
    left, right = hang(canvas, portrait, 120, (120, 150)), hang(canvas, portrait, 80, (350, 150))
    visible = np.ones(canvas.shape[:2], np.bool_)
    assert_found(detect_faces(canvas, visible=visible), left, right)
    visible[:, :240] = False
    assert_found(detect_faces(canvas, visible=visible), right)


@pytest.mark.parametrize("name", ["gravel", "coffee", "brick", "grass", "rocket", "page"])
def test_pictures_without_people(name):
    picture = getattr(data, name)()
    picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    assert len(detect_faces(picture.astype(np.float32) / 255)) == 0


class TestLimits:
    def test_a_whole_search_has_none(self, portrait):
        assert detect_faces(portrait).limits == ()
        assert detect_faces(wall(100, 100)).limits == ()

    def test_upright_faces_only(self, portrait):
        assert len(detect_faces(portrait, thorough=False).limits) == 1

    def test_mtcnn_alone(self, portrait):
        assert len(detect_faces(portrait, detector="mtcnn").limits) == 1

    def test_a_photo_too_large(self, portrait, monkeypatch):
        monkeypatch.setattr(detection, "LARGEST_AREA", 0.2e6)
        assert detect_faces(portrait).limits == ("size",)

    def test_too_many_places(self, portrait, monkeypatch):
        canvas = wall(300, 480)
        hang(canvas, portrait, 100, (120, 150))
        hang(canvas, portrait, 90, (350, 150))
        monkeypatch.setattr(detection, "PROPOSALS", 1)
        faces = detect_faces(canvas)
        assert len(faces) == 1
        assert faces.limits == ("places",)

    def test_they_are_kept(self):
        one = Faces.none().limited("time")
        assert one[:0].limits == ("time",)
        assert Faces.join([one, Faces.none().limited("size", "time")]).limits == ("time", "size")
        assert one.each_once().limits == ("time",)


def test_what_is_one_face():
    def face(left, top, side):
        box = np.array([[left, top, left + side, top + side]], np.float32)
        corner, scale = np.array([left, top]), side / 112
        return Faces(box, (corner + (LANDMARKS - (165, 60)) * scale)[None], np.ones(1))

    def same(one, other):
        return bool(same_face(one, other)[0])

    face_of_all = face(0, 0, 100)
    assert same(face_of_all, face(10, 10, 100))
    assert same(face_of_all, face(15, 20, 65))  # a part of the same face
    assert not same(face_of_all, face(40, 50, 30))  # a card before it
    assert not same(face_of_all, face(90, 0, 100))
    loose = Faces(np.array([[-150, -150, 250, 250]]), face_of_all.landmarks, np.ones(1))
    assert same(loose, face_of_all)  # drawn by hand around the same landmarks


@pytest.mark.parametrize("degrees", [0, 20, -20, 40, 90, 180, 250])
def test_faces_are_turned_upright(degrees):
    turn = cv2.getRotationMatrix2D((0, 0), degrees, 1)[:, :2]
    matrix = upright_turns((LANDMARKS @ turn.T)[None])[0]
    expected = {20: np.eye(2), -20: np.eye(2), 250: [(0, 1), (-1, 0)]}.get(degrees, turn.T)
    # The astronaut's own head leans by two degrees.
    np.testing.assert_allclose(matrix, expected, atol=0.05)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-9)


def test_frames_show_the_photo_upright(portrait):
    straight = np.array([(201, 99), (245, 99), (223, 126), (203, 138), (243, 138)])
    x, y = straight.T
    upright = Faces(np.array([[166, 60, 276, 170]]), straight[None], np.ones(1))
    lying = Faces(np.array([[60, 235, 170, 345]]), np.stack([y, 511 - x], axis=1)[None], np.ones(1))
    (expected,) = Frames.around(upright).patches(portrait, 55)
    (patch,) = Frames.around(lying).patches(np.ascontiguousarray(np.rot90(portrait)), 55)
    np.testing.assert_allclose(patch, expected, atol=1e-3)


def test_points_go_into_the_photo_and_back():
    frames = Frames(np.array([(30.0, 40.0)]), np.array([20.0]), np.array([[(0.6, 0.8), (-0.8, 0.6)]]))
    points = np.array([[(0.0, 0.0), (5.0, -3.0)]])
    there = frames.in_photo(points)
    np.testing.assert_allclose(there[0, 0], (30, 40))
    np.testing.assert_allclose((there - frames.centres[:, None]) @ frames.turns[0].T, points)


def test_an_answer_becomes_a_face(monkeypatch):
    class Session:
        def run(self, outputs, inputs):
            heat, sizes = np.zeros((1, 1, 16, 16), np.float32), np.zeros((1, 2, 16, 16), np.float32)
            offsets, points = np.zeros((1, 2, 16, 16), np.float32), np.full((1, 10, 16, 16), 0.5, np.float32)
            heat[0, 0, 4, 9], heat[0, 0, 4, 10] = 0.9, 0.8  # the second is not a peak
            sizes[0, :, 4, 9] = np.log(6), np.log(3)
            offsets[0, :, 4, 9] = 0.25, -0.25
            points[0, 2:4, 4, 9] = 0.0, 1.0  # y and x of the second
            return heat, sizes, offsets, points

    monkeypatch.setattr(centerface, "load_session", lambda weights: Session())
    (faces,) = centerface.look(np.zeros((1, 64, 64, 3), np.float32), 0.5, "centerface")
    # The centre is at cell (9.25, 4.75) of 4 pixels, pixel centres at whole numbers.
    np.testing.assert_allclose(faces.boxes, [(36.5 - 6, 18.5 - 12, 36.5 + 6, 18.5 + 12)], atol=1e-4)
    np.testing.assert_allclose(faces.landmarks[0, :2], [(36.5, 18.5), (42.5, 6.5)], atol=1e-4)
    assert faces.scores == pytest.approx(0.9)


def test_a_small_photo_is_enlarged(portrait):
    tiny = cv2.resize(portrait, (77, 77), interpolation=cv2.INTER_AREA)
    assert_found(detect_faces(tiny), (LANDMARKS + 0.5) * 77 / 512 - 0.5)


def test_proposals_are_in_pixels_of_the_photo(portrait):
    faces = propose(portrait, 40.0)
    assert same_face(faces, Faces(np.array([[178, 60, 265, 171]]), LANDMARKS[None], np.ones(1)))[0]


class TestShippedWeights:
    @pytest.mark.parametrize("weights", ["centerface", "centerface_turned"])
    def test_the_card_names_the_file(self, weights):
        card = tomllib.loads((centerface.SHIPPED / f"{weights}.toml").read_text(encoding="utf-8"))
        content = (centerface.SHIPPED / card["weights"]).read_bytes()
        assert card["weights"] == f"{weights}.onnx"
        assert hashlib.sha256(content).hexdigest() == card["sha256"]
        assert "StarClouds" in (centerface.SHIPPED / "NOTICE").read_text(encoding="utf-8")

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        folder = shutil.copytree(centerface.SHIPPED, tmp_path / "shipped")
        monkeypatch.setattr(centerface, "SHIPPED", folder)
        centerface.load_session.cache_clear()
        yield folder
        centerface.load_session.cache_clear()

    def test_another_file_is_refused(self, folder, portrait):
        with (folder / "centerface_turned.onnx").open("ab") as file:
            file.write(b"x")
        with pytest.raises(WeightsCorrupt, match="SHA-256"):
            detect_faces(portrait)

    def test_a_missing_file_is_named(self, folder, portrait):
        (folder / "centerface.onnx").unlink()
        with pytest.raises(WeightsMissing, match=r"centerface\.onnx"):
            detect_faces(portrait)


@pytest.mark.parametrize("detector", ["centerface", "mtcnn"])
@pytest.mark.parametrize("size", [0, -3, 7.9, float("nan")])
def test_faces_too_small_to_be_found(portrait, detector, size):
    with pytest.raises(UsageError, match="cannot be found"):
        detect_faces(portrait, detector=detector, minimum_size=size)
