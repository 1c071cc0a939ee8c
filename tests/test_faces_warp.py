from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from bauta.errors import UsageError
from bauta.faces.alignment import extract_crops, similarity_matrix
from bauta.faces.crop_template import CROP_TEMPLATES
from bauta.faces.warp import compose, invert, warp


def similarity(scale, degrees, x, y):
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([(cosine, -sine, x), (sine, cosine, y)], dtype=torch.float64)


# Enlarged, as it is, reduced by less and by more than two, and with uneven sides.
MATRICES = torch.stack(
    [
        similarity(1.9, 12, -20, -15),
        similarity(0.95, -30, 3, 12),
        similarity(0.55, 100, 25, 2),
        similarity(0.31, 5, 2, 3),
        torch.tensor([(0.4, 0.1, 1.0), (-0.2, 0.3, 9.0)], dtype=torch.float64),
    ]
)


@pytest.fixture(scope="module")
def smooth_photo():
    return cv2.GaussianBlur(astronaut().astype(np.float32) / 255, (0, 0), 1.5)


def test_identity_changes_nothing():
    images = torch.rand(2, 3, 9, 7)
    torch.testing.assert_close(warp(images, torch.eye(2, 3), (9, 7)), images)


def test_a_shift_moves_pixel_centres():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 3] = 1
    crop = warp(image, torch.tensor([[1.0, 0, 2], [0, 1.0, 1]]), (8, 8))
    assert crop[0, 0, 3, 5] == pytest.approx(1)
    assert crop.sum() == pytest.approx(1)


def test_halving_averages_two_by_two_blocks():
    image = torch.rand(1, 3, 8, 6, dtype=torch.float64)
    half = torch.tensor([[0.5, 0, -0.25], [0, 0.5, -0.25]], dtype=torch.float64)
    expected = torch.nn.functional.avg_pool2d(image, 2)
    torch.testing.assert_close(warp(image, half, (4, 3)), expected)


def test_gradients_in_images_and_matrices():
    torch.manual_seed(0)
    images = torch.rand(len(MATRICES), 1, 9, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: warp(x, MATRICES, (5, 6)), images)
    # Away from bilinear kinks and from changes of block size.
    matrices = (MATRICES[1:2] + 0.0137).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: warp(images[:1].detach(), m, (5, 6)), matrices)


def test_one_image_is_shared_by_all_matrices():
    image = torch.rand(1, 3, 30, 30, dtype=torch.float64)
    shared = warp(image, MATRICES, (12, 10))
    torch.testing.assert_close(shared, warp(image.repeat(len(MATRICES), 1, 1, 1), MATRICES, (12, 10)))
    torch.testing.assert_close(shared[3:4], warp(image, MATRICES[3], (12, 10)))


@pytest.mark.parametrize("template", CROP_TEMPLATES.values(), ids=lambda template: template.name)
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.6, 2.3, 3.9])
def test_torch_and_judges_see_the_same_crop(smooth_photo, template, scale):
    photo = cv2.resize(smooth_photo, (701, 699))
    centred = (np.asarray(template.points) - 70) * scale
    landmarks = centred @ np.array([(0.95, 0.2), (-0.2, 0.95)]) + (330, 180)
    for_judges = extract_crops(photo, landmarks[None], template)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None]
    matrix = torch.from_numpy(similarity_matrix(landmarks, template))
    in_torch = warp(image, matrix, (template.height, template.width)).numpy()
    assert in_torch.dtype == np.float32
    assert np.abs(for_judges - in_torch).max() < 2 / 255


def test_composing_and_inverting():
    points = torch.rand(7, 2, dtype=torch.float64)

    def apply(matrix):
        return points @ matrix[:, :2].T + matrix[:, 2]

    first, second = MATRICES[0], MATRICES[3]
    expected = apply(first) @ second[:, :2].T + second[:, 2]
    torch.testing.assert_close(apply(compose(second, first)), expected)
    torch.testing.assert_close(
        compose(invert(MATRICES), MATRICES), torch.eye(2, 3, dtype=torch.float64).expand(len(MATRICES), 2, 3)
    )
    assert compose(MATRICES, first).shape == MATRICES.shape


@pytest.mark.parametrize(
    ("images", "matrices"),
    [
        (torch.rand(1, 3, 8, 8), torch.zeros(1, 2, 3)),
        (torch.rand(1, 3, 8, 8), torch.full((1, 2, 3), torch.nan)),
        (torch.rand(2, 3, 8, 8), torch.eye(2, 3).expand(3, 2, 3)),
        (torch.rand(3, 8, 8), torch.eye(2, 3).expand(3, 2, 3)),
        (torch.rand(1, 3, 8, 8), torch.eye(3)[None]),
    ],
    ids=["singular", "nan", "counts", "no batch", "three rows"],
)
def test_impossible_warps_are_refused(images, matrices):
    with pytest.raises(UsageError):
        warp(images, matrices, (4, 4))
