from __future__ import annotations

import hashlib
import io
import os
import pickle

import cv2
import joblib
import numpy as np
import pytest
import torch
from lz4 import frame as lz4
from skimage.data import astronaut

from bauta.errors import UsageError, WeightsCorrupt, WeightsMissing
from bauta.faces import mtcnn, mtcnn_search
from bauta.faces.cascade import Search, find, suppress_overlaps
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.detection import detect_faces, face_from_box
from bauta.faces.faces import Faces

# Read off the photo by eye, to a pixel or two.
ASTRONAUT = np.array([(203, 99), (245, 102), (223, 126), (201, 138), (244, 140)], dtype=np.float32)


@pytest.fixture(scope="module")
def portrait():
    return astronaut().astype(np.float32) / 255


@pytest.fixture(scope="module")
def found(portrait):
    return detect_faces(portrait)


def assert_landmarks(faces, expected, *, tolerance):
    assert len(faces) == 1
    distances = np.linalg.norm(faces.landmarks[0] - expected, axis=1)
    assert distances.max() < tolerance, distances


def test_the_astronaut_is_found(found):
    assert_landmarks(found, ASTRONAUT, tolerance=4)
    assert found.scores[0] > 0.99
    assert found.overlap((178, 60, 265, 171))[0] > 0.9


def test_detection_is_deterministic(portrait, found):
    again = detect_faces(portrait)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    np.testing.assert_array_equal(again.landmarks, found.landmarks)


@pytest.mark.parametrize("scale", [0.15, 0.25, 0.5, 2.5, 6])
def test_small_and_large_photos(portrait, scale):
    size = (round(512 * scale), round(512 * scale))
    resized = cv2.resize(portrait, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    # At .15 the eyes are six pixels apart.
    tolerance = max(6 * scale, 1.5)
    assert_landmarks(detect_faces(resized), (ASTRONAUT + 0.5) * scale - 0.5, tolerance=tolerance)


@pytest.mark.parametrize("degrees", [90, 180, 270, 60, -60])
def test_a_turned_photo_is_found_by_the_second_try(portrait, degrees):
    portrait = portrait[:400, :450]
    turn = cv2.getRotationMatrix2D((200, 200), degrees, 1)
    turned = cv2.warpAffine(portrait, turn, (520, 520), borderMode=cv2.BORDER_REPLICATE)
    faces = detect_faces(turned)
    assert_landmarks(faces.largest(), ASTRONAUT @ turn[:, :2].T + turn[:, 2], tolerance=8)
    x1, y1, x2, y2 = faces.largest().boxes[0]
    assert (faces.landmarks[0] > (x1, y1)).all()
    assert (faces.landmarks[0] < (x2, y2)).all()


def test_a_quarter_turn_gives_the_turned_answer(portrait, found):
    turned = detect_faces(np.ascontiguousarray(np.rot90(portrait)))
    x, y = found.landmarks[0].T
    # The eyes are 42 pixels apart.
    assert_landmarks(turned, np.stack([y, 511 - x], axis=1), tolerance=1.5)
    x1, y1, x2, y2 = found.boxes[0]
    np.testing.assert_allclose(turned.boxes[0], (y1, 511 - x2, y2, 511 - x1), atol=3)


def test_upright_faces_only(portrait):
    assert len(detect_faces(np.ascontiguousarray(np.rot90(portrait)), thorough=False)) == 0
    assert len(detect_faces(portrait, thorough=False)) == 1


class TestMtcnn:
    """The detector before, kept to compare with."""

    def test_upright_and_turned(self, portrait):
        assert_landmarks(detect_faces(portrait, detector="mtcnn"), ASTRONAUT, tolerance=4)
        turned = np.ascontiguousarray(np.rot90(portrait))
        expected = np.stack([ASTRONAUT[:, 1], 511 - ASTRONAUT[:, 0]], axis=1)
        assert_landmarks(detect_faces(turned, detector="mtcnn"), expected, tolerance=4)
        assert len(detect_faces(turned, detector="mtcnn", thorough=False)) == 0

    def test_somebody_lying_down_hides_nobody_who_stands(self, monkeypatch):
        def face(left: float, score: float) -> Faces:
            box = np.array([[left, 40, left + 40, 80]], np.float32)
            points = np.full((1, 5, 2), left + 20, np.float32)
            return Faces(box, points, np.array([score], np.float32))

        def search() -> Faces:
            return mtcnn_search.find_with_mtcnn(np.zeros((200, 200, 3), np.float32), 20.0, thorough=True)

        standing, lying = face(30, 0.85), face(150, 0.999)
        beside = Faces.join([face(33, 0.7), lying])  # the turned photo shows the standing one less well
        monkeypatch.setattr(mtcnn_search, "find", lambda pixels, search: standing)
        monkeypatch.setattr(mtcnn_search, "_find_turned", lambda pixels, search: iter([lying]))
        np.testing.assert_allclose(search().boxes[:, 0], [150, 30])
        monkeypatch.setattr(mtcnn_search, "_find_turned", lambda pixels, search: iter([beside]))
        assert len(search()) == 2  # nobody is found twice

    def test_one_pass_is_what_an_upright_photo_takes(self, portrait):
        faces = detect_faces(portrait, detector="mtcnn")
        np.testing.assert_array_equal(find(portrait, Search(20)).boxes, faces.boxes)


def test_every_face_of_a_crowd(portrait):
    head = portrait[20:220, 120:320]
    crowd = np.tile(head, (6, 9, 1))
    faces = detect_faces(crowd)
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    cells = {tuple(cell) for cell in (centres // 200).astype(int).tolist()}
    assert len(cells) == 54
    assert (np.diff(faces.scores) <= 0).all()


def test_grey_photos(portrait):
    grey = np.repeat(portrait.mean(axis=2, keepdims=True), 3, axis=2)
    assert_landmarks(detect_faces(grey), ASTRONAUT, tolerance=5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 7), (11, 11), (12, 12), (13, 40), (64, 64)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_plain_images_of_any_size_hold_no_face(shape, value):
    assert len(detect_faces(np.full((*shape, 3), value, np.float32))) == 0


def test_noise_holds_no_convincing_face():
    noise = np.random.default_rng(0).random((240, 320, 3), dtype=np.float32)
    assert detect_faces(noise).scores.max(initial=0) < 0.9


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((20, 20), np.float32),
        np.zeros((20, 20, 4), np.float32),
        np.zeros((0, 20, 3), np.float32),
        np.zeros((20, 20, 3), np.uint8),
    ],
    ids=["two axes", "four channels", "empty", "integers"],
)
def test_other_arrays_than_photos_are_refused(pixels):
    with pytest.raises(UsageError):
        detect_faces(pixels)
    with pytest.raises(UsageError):
        face_from_box(pixels, (1, 1, 5, 5))


def test_unknown_options_are_refused(portrait):
    with pytest.raises(UsageError, match="eyes"):
        detect_faces(portrait, detector="eyes")
    for size in (0, -3, 7.9, float("nan")):
        with pytest.raises(UsageError):
            detect_faces(portrait, minimum_size=size)


def test_minimum_size_leaves_small_faces_out(portrait):
    assert len(detect_faces(portrait, minimum_size=500)) == 0


@pytest.mark.parametrize("box", [(178, 61, 87, 110), (170, 50, 110, 130), (185, 75, 75, 90)])
def test_landmarks_inside_a_box(portrait, box):
    face = face_from_box(portrait, box)
    assert_landmarks(face, ASTRONAUT, tolerance=6)
    np.testing.assert_allclose(face.boxes[0], (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    assert face.scores[0] > 0.7


def test_landmarks_inside_a_box_of_a_lying_face(portrait):
    turned = np.ascontiguousarray(np.rot90(portrait))
    expected = np.stack([ASTRONAUT[:, 1], 511 - ASTRONAUT[:, 0]], axis=1)
    assert_landmarks(face_from_box(turned, (61, 246, 110, 87)), expected, tolerance=6)


def test_a_box_without_a_face_gets_average_landmarks():
    face = face_from_box(np.full((300, 300, 3), 0.4, np.float32), (100, 50, 112, 112))
    average = np.asarray(ARCFACE_112.points) + np.array([100, 50])
    np.testing.assert_allclose(face.landmarks[0], average, atol=1e-3)
    assert face.scores[0] == 0


def test_a_box_that_reaches_out_is_cut_to_the_photo(portrait):
    face = face_from_box(portrait, (-50, -40, 1000, 1000))
    np.testing.assert_allclose(face.boxes[0], (0, 0, 511, 511))


@pytest.mark.parametrize(
    "box",
    [
        (600, 10, 50, 50),
        (-80, 10, 50, 50),
        (10, 10, 0, 40),
        (10, 10, 40, -5),
        (10, 10, 40),
        (10, 10, float("nan"), 40),
        (10, 10, float("inf"), 40),
        (511, 511, 40, 40),
    ],
)
def test_impossible_boxes_are_refused_with_a_hint(portrait, box):
    with pytest.raises(UsageError) as caught:
        face_from_box(portrait, box)
    assert caught.value.hint


def test_suppression_keeps_the_best_of_overlapping_boxes():
    boxes = np.array([(0, 0, 10, 10), (1, 1, 11, 11), (30, 30, 40, 40), (0, 0, 3, 3)], np.float32)
    scores = np.array([0.8, 0.9, 0.7, 0.95], np.float32)
    assert suppress_overlaps(boxes, scores, 0.5).tolist() == [3, 1, 2]
    # Of the small box, 4 of 9 pixels lie in its better neighbour.
    assert suppress_overlaps(boxes, scores, 0.4, of_smaller=True).tolist() == [3, 2]
    # Greedy: what a dropped box overlaps is not dropped for its sake.
    chain = np.array([(0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10)], np.float32)
    assert suppress_overlaps(chain, np.array([0.9, 0.8, 0.7], np.float32), 0.4).tolist() == [0, 2]
    assert suppress_overlaps(boxes[:0], scores[:0], 0.5).tolist() == []


class TestNetworks:
    """The converted networks against TensorFlow's semantics, written out in numpy."""

    @staticmethod
    def convolve(x, kernel, bias):
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
        return np.einsum("hwcij,ijco->hwo", windows, kernel) + bias

    @staticmethod
    def rectify(x, slope):
        return np.where(x > 0, x, x * slope.reshape(-1))

    @staticmethod
    def pool(x, size, *, same):
        if same:
            missing = [max((-(-n // 2) - 1) * 2 + size - n, 0) for n in x.shape[:2]]
            pads = [(m // 2, m - m // 2) for m in missing]
            x = np.pad(x, [*pads, (0, 0)], constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))
        return windows[::2, ::2].max(axis=(3, 4))

    @staticmethod
    def softmax(x):
        exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)

    @staticmethod
    def arrays(name):
        return mtcnn.read_arrays(mtcnn._assets() / f"{name}.lz4", sha256=mtcnn.WEIGHTS[name])

    @pytest.mark.parametrize("size", [(12, 12), (17, 24)])
    def test_proposal_network(self, size):
        x = np.random.default_rng(0).normal(0, 0.5, (*size, 3)).astype(np.float32)
        w = self.arrays("pnet")
        features = self.pool(self.rectify(self.convolve(x, *w[0:2]), w[2]), 2, same=True)
        features = self.rectify(self.convolve(features, *w[3:5]), w[5])
        features = self.rectify(self.convolve(features, *w[6:8]), w[8])
        network, _, _ = mtcnn.load_networks()
        offsets, faces = network(torch.from_numpy(x).permute(2, 0, 1)[None])
        expected = self.convolve(features, *w[9:11])
        np.testing.assert_allclose(offsets[0].permute(1, 2, 0), expected, atol=1e-5)
        expected = self.softmax(self.convolve(features, *w[11:13]))[..., 1]
        np.testing.assert_allclose(faces[0], expected, atol=1e-5)

    def test_refinement_network(self):
        x = np.random.default_rng(0).normal(0, 0.5, (24, 24, 3)).astype(np.float32)
        w = self.arrays("rnet")
        features = self.pool(self.rectify(self.convolve(x, *w[0:2]), w[2]), 3, same=True)
        features = self.pool(self.rectify(self.convolve(features, *w[3:5]), w[5]), 3, same=False)
        features = self.rectify(self.convolve(features, *w[6:8]), w[8]).transpose(1, 0, 2).reshape(-1)
        features = self.rectify(features @ w[9] + w[10], w[11])
        _, network, _ = mtcnn.load_networks()
        offsets, faces = network(torch.from_numpy(x).permute(2, 0, 1)[None])
        np.testing.assert_allclose(offsets[0], features @ w[12] + w[13], atol=1e-5)
        np.testing.assert_allclose(faces[0], self.softmax(features @ w[14] + w[15])[1], atol=1e-5)

    def test_output_network(self):
        x = np.random.default_rng(0).normal(0, 0.5, (48, 48, 3)).astype(np.float32)
        w = self.arrays("onet")
        features = self.pool(self.rectify(self.convolve(x, *w[0:2]), w[2]), 3, same=True)
        features = self.pool(self.rectify(self.convolve(features, *w[3:5]), w[5]), 3, same=False)
        features = self.pool(self.rectify(self.convolve(features, *w[6:8]), w[8]), 2, same=True)
        features = self.rectify(self.convolve(features, *w[9:11]), w[11]).transpose(1, 0, 2).reshape(-1)
        features = self.rectify(features @ w[12] + w[13], w[14])
        _, _, network = mtcnn.load_networks()
        offsets, landmarks, faces = network(torch.from_numpy(x).permute(2, 0, 1)[None])
        np.testing.assert_allclose(offsets[0], features @ w[15] + w[16], atol=1e-5)
        expected = (features @ w[17] + w[18]).reshape(2, 5).T
        np.testing.assert_allclose(landmarks[0], expected, atol=1e-5)
        np.testing.assert_allclose(faces[0], self.softmax(features @ w[19] + w[20])[1], atol=1e-5)


class Payload:
    """Runs a harmless command where a malicious file would run another."""

    def __init__(self, action, *arguments):
        self.call = (action, arguments)

    def __reduce__(self):
        return self.call


class TestWeightFiles:
    def write(self, path, content):
        joblib.dump(content, path, compress=("lz4", 3))
        return path

    def test_plain_arrays_are_read(self, tmp_path):
        arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.eye(3))]
        path = self.write(tmp_path / "w.lz4", arrays)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for read, written in zip(mtcnn.read_arrays(path, sha256=digest), arrays, strict=True):
            np.testing.assert_array_equal(read, written)

    @pytest.mark.parametrize("protocol", [2, 5])
    def test_a_malicious_file_runs_nothing(self, tmp_path, protocol):
        target = tmp_path / "was here"
        content = [np.ones(3), Payload(os.mkdir, str(target))]
        path = tmp_path / "w.lz4"
        joblib.dump(content, path, compress=("lz4", 3), protocol=protocol)
        with pytest.raises(WeightsCorrupt, match="mkdir"):
            mtcnn.read_arrays(path, sha256=None)
        assert not target.exists()

    def test_an_array_of_objects_is_refused(self, tmp_path):
        target = tmp_path / "was here"
        path = self.write(tmp_path / "w.lz4", [np.array([Payload(os.mkdir, str(target))], dtype=object)])
        with pytest.raises(WeightsCorrupt):
            mtcnn.read_arrays(path, sha256=None)
        assert not target.exists()

    @pytest.mark.parametrize("name", ["builtins.eval", "numpy.load", "joblib.load", "numpy.ndarray.tofile"])
    def test_no_other_global_is_known(self, tmp_path, name):
        module, _, attribute = name.partition(".")
        path = tmp_path / "w.lz4"
        path.write_bytes(lz4.compress(b"\x80\x04c" + f"{module}\n{attribute}\n.".encode()))
        with pytest.raises(WeightsCorrupt):
            mtcnn.read_arrays(path, sha256=None)

    @pytest.mark.parametrize(
        "content",
        [{"a": np.ones(2)}, "text", [1, 2], [[np.ones(2)]]],
        ids=["dict", "str", "numbers", "nested"],
    )
    def test_anything_but_a_list_of_arrays_is_refused(self, tmp_path, content):
        with pytest.raises(WeightsCorrupt):
            mtcnn.read_arrays(self.write(tmp_path / "w.lz4", content), sha256=None)

    def test_damaged_files_are_refused(self, tmp_path):
        whole = self.write(tmp_path / "w.lz4", [np.random.default_rng(0).random(5000)]).read_bytes()
        stream = io.BytesIO()
        joblib.dump([np.ones(5)], stream)
        samples = (b"", b"noise", whole[: len(whole) // 2], lz4.compress(stream.getvalue()[:-20]))
        for sample in (*samples, lz4.compress(pickle.dumps([1])[:-1])):
            path = tmp_path / "damaged.lz4"
            path.write_bytes(sample)
            with pytest.raises(WeightsCorrupt):
                mtcnn.read_arrays(path, sha256=None)

    def test_a_wrong_hash_is_refused_before_reading(self, tmp_path):
        path = self.write(tmp_path / "w.lz4", [np.ones(3)])
        with pytest.raises(WeightsCorrupt, match="SHA-256") as caught:
            mtcnn.read_arrays(path, sha256=mtcnn.WEIGHTS["onet"])
        assert "install" in caught.value.hint

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(WeightsMissing, match=r"pnet\.lz4"):
            mtcnn.read_arrays(tmp_path / "pnet.lz4", sha256=None)

    def test_a_missing_package_is_named(self, monkeypatch):
        monkeypatch.setattr(mtcnn, "find_spec", lambda name: None)
        with pytest.raises(WeightsMissing, match="mtcnn"):
            mtcnn._assets()

    def test_another_networks_weights_are_refused(self, tmp_path):
        path = self.write(tmp_path / "w.lz4", [np.ones((3, 3, 3, 10), np.float32)])
        with pytest.raises(WeightsCorrupt, match="another network"):
            mtcnn._fill(mtcnn.ProposalNetwork(), mtcnn.read_arrays(path, sha256=None), path)


class TestFaces:
    faces = Faces(
        boxes=np.array([(0, 0, 10, 10), (20, 20, 60, 50), (5, 5, 15, 15)]),
        landmarks=np.arange(30).reshape(3, 5, 2),
        scores=np.array([0.9, 0.8, 0.7]),
    )

    def test_fields_are_float32(self):
        assert {self.faces.boxes.dtype, self.faces.landmarks.dtype, self.faces.scores.dtype} == {np.dtype(np.float32)}

    def test_indexing(self):
        assert len(self.faces) == 3
        assert self.faces[1].boxes.tolist() == [[20, 20, 60, 50]]
        assert self.faces[-1].scores.tolist() == pytest.approx([0.7])
        assert self.faces[1:].scores.tolist() == pytest.approx([0.8, 0.7])
        assert self.faces[np.array([True, False, True])].scores.tolist() == pytest.approx([0.9, 0.7])
        assert self.faces[np.array([2, 0])].scores.tolist() == pytest.approx([0.7, 0.9])
        assert len(self.faces[np.zeros(3, dtype=bool)]) == 0
        assert [len(face) for face in self.faces] == [1, 1, 1]
        with pytest.raises(IndexError):
            self.faces[3]

    def test_largest_and_overlap(self):
        assert self.faces.largest().boxes.tolist() == [[20, 20, 60, 50]]
        assert self.faces.overlap((0, 0, 10, 10)).tolist() == pytest.approx([1, 0, 25 / 175])
        assert len(Faces.none().largest()) == 0
        assert Faces.none().overlap((0, 0, 1, 1)).shape == (0,)

    def test_misshapen_or_infinite_fields_are_refused(self):
        with pytest.raises(UsageError, match="boxes"):
            Faces(np.zeros((2, 4)), np.zeros((1, 5, 2)), np.zeros(1))
        with pytest.raises(UsageError, match="landmarks"):
            Faces(np.zeros((1, 4)), np.zeros((1, 4, 2)), np.zeros(1))
        with pytest.raises(UsageError, match="scores"):
            Faces(np.zeros((1, 4)), np.zeros((1, 5, 2)), np.array([np.nan]))
