from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bauta.errors import UsageError
from bauta.faces.alignment import extract_crops, reduction_factors, similarity_matrix
from bauta.faces.crop_template import ARCFACE_112, ARCFACE_112X96, CROP_TEMPLATES, CropTemplate


def apply(matrix, points):
    return np.asarray(points) @ np.asarray(matrix)[:, :2].T + np.asarray(matrix)[:, 2]


def photo_landmarks(template, *, scale=1.0, degrees=0.0, shift=(0.0, 0.0)):
    """Landmarks that the similarity (scale, degrees, shift), from crop to photo, makes of the template."""
    cosine, sine = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.asarray(template.points) @ np.array([(cosine, sine), (-sine, cosine)]) + shift


@pytest.mark.parametrize("template", CROP_TEMPLATES.values(), ids=lambda template: template.name)
def test_templates_are_faces_inside_their_crops(template):
    points = np.asarray(template.points)
    assert (points > 0).all()
    assert (points < (template.width, template.height)).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = points
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize(
    ("height", "width", "points"), [(0, 112, ARCFACE_112.points), (112, 112, ARCFACE_112.points[:4])]
)
def test_impossible_templates_are_refused(height, width, points):
    with pytest.raises(UsageError):
        CropTemplate("bad", height, width, points)


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(0.05, 20),
    degrees=st.floats(-180, 180),
    x=st.floats(-5000, 5000),
    y=st.floats(-5000, 5000),
    template=st.sampled_from(list(CROP_TEMPLATES.values())),
)
def test_similarity_recovers_a_known_transform(scale, degrees, x, y, template):
    landmarks = photo_landmarks(template, scale=scale, degrees=degrees, shift=(x, y))
    matrix = similarity_matrix(landmarks, template)
    assert matrix.shape == (2, 3)
    assert matrix.dtype == np.float64
    # float32 keeps about 7 digits of coordinates that reach 5000 / scale pixels of the crop.
    np.testing.assert_allclose(apply(matrix, landmarks), template.points, atol=2e-2 + 0.01 / scale)


def test_similarity_is_the_least_squares_one_without_reflection():
    random = np.random.default_rng(0)
    landmarks = photo_landmarks(ARCFACE_112, scale=2, degrees=20) + random.normal(0, 4, (5, 2))
    matrix = similarity_matrix(landmarks, ARCFACE_112).astype(np.float64)
    a, b, x, y = matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2]
    np.testing.assert_allclose(matrix[:, :2], [(a, -b), (b, a)], atol=1e-7)

    def error(a, b, x, y):
        return np.sum((apply([(a, -b, x), (b, a, y)], landmarks) - ARCFACE_112.points) ** 2)

    least = error(a, b, x, y)
    for step in (1e-3 * np.eye(4)).tolist() + (-1e-3 * np.eye(4)).tolist():
        assert error(*(np.array([a, b, x, y]) + step)) > least


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 30.0),
        np.full((5, 2), np.nan),
        np.zeros((4, 2)),
        np.asarray(ARCFACE_112.points) * np.inf,
    ],
    ids=["coincident", "nan", "four points", "infinite"],
)
def test_degenerate_landmarks_are_refused_with_a_hint(landmarks):
    with pytest.raises(UsageError) as caught:
        similarity_matrix(landmarks, ARCFACE_112)
    assert caught.value.hint


def test_an_upright_face_of_the_crops_size_is_cut_out_unchanged():
    pixels = np.random.default_rng(0).random((160, 170, 3), dtype=np.float32)
    landmarks = photo_landmarks(ARCFACE_112, shift=(30, 20))
    (crop,) = extract_crops(pixels, landmarks[None], ARCFACE_112)
    np.testing.assert_allclose(crop, pixels[20:132, 30:142].transpose(2, 0, 1), atol=2e-3)


def test_the_narrow_arcface_crop_is_the_wide_one_without_its_sides():
    pixels = np.random.default_rng(0).random((300, 300, 3), dtype=np.float32)
    landmarks = photo_landmarks(ARCFACE_112, scale=1.7, degrees=10, shift=(60, 20))
    wide = extract_crops(pixels, landmarks[None], ARCFACE_112)
    narrow = extract_crops(pixels, landmarks[None], ARCFACE_112X96)
    np.testing.assert_allclose(narrow, wide[..., 8:-8], atol=1e-3)


def test_large_faces_are_averaged_not_aliased():
    # Single-pixel stripes: sampling alone would keep full contrast, averaging gives grey.
    pixels = np.zeros((900, 900, 3), np.float32)
    pixels[:, ::2] = 1
    landmarks = photo_landmarks(ARCFACE_112, scale=4, shift=(200, 200))
    (crop,) = extract_crops(pixels, landmarks[None], ARCFACE_112)
    np.testing.assert_allclose(crop, 0.5, atol=1e-4)


def test_reduction_begins_at_twice_the_crop():
    scales = np.array([2.0, 1.0, 0.6, 0.5, 0.34, 0.33, 0.1])
    matrices = scales[:, None, None] * np.eye(2, 3)
    assert reduction_factors(matrices).tolist() == [1, 1, 1, 2, 2, 3, 10]


@pytest.mark.parametrize("scale", [1, 3])
def test_beyond_the_photo_is_black(scale):
    pixels = np.ones((500, 500, 3), np.float32)
    landmarks = photo_landmarks(ARCFACE_112, scale=scale, shift=(-60 * scale, 0))
    (crop,) = extract_crops(pixels, landmarks[None], ARCFACE_112)
    assert crop[:, :, :59].max() == 0
    assert crop[:, 1:, 61:].min() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shift", [(5000, 0), (-5000, -5000), (0, -113)])
def test_a_face_outside_the_photo_is_all_black(shift):
    pixels = np.ones((50, 50, 3), np.float32)
    crops = extract_crops(pixels, photo_landmarks(ARCFACE_112, shift=shift), ARCFACE_112)
    assert crops.max() == 0


def test_no_faces_give_no_crops():
    crops = extract_crops(np.ones((50, 50, 3), np.float32), np.zeros((0, 5, 2)), ARCFACE_112)
    assert crops.shape == (0, 3, 112, 112)


def test_judges_get_their_crops_without_torch():
    code = (
        "import sys, numpy, bauta.faces.alignment as a, bauta.faces.crop_template as t, bauta.faces.faces;"
        "a.extract_crops(numpy.ones((9, 9, 3), 'f4'), [t.ARCFACE_112.points], t.ARCFACE_112);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
