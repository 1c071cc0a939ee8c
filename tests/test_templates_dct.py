"""The block-DCT front end: exact inverse, linearity, and the order of frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from bauta.errors import UsageError
from bauta.templates.masked.dct import BlockDct, dct_matrix, enlargement


@pytest.fixture(scope="module")
def front() -> BlockDct:
    return BlockDct()


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def _db(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(-10 * torch.log10((first - second).square().mean()))


def test_the_transform_is_orthonormal(front: BlockDct) -> None:
    torch.testing.assert_close(dct_matrix() @ dct_matrix().T, torch.eye(8, dtype=torch.float64))
    rows = front.kernels.reshape(64, 64)
    torch.testing.assert_close(rows @ rows.T, torch.eye(64), atol=1e-6, rtol=0)


def test_the_pseudo_inverse_undoes_the_enlargement() -> None:
    enlarge = enlargement()
    torch.testing.assert_close(
        torch.linalg.pinv(enlarge) @ enlarge, torch.eye(112, dtype=torch.float64), atol=1e-13, rtol=0
    )
    assert float(torch.linalg.cond(enlarge)) < 2


def test_decode_undoes_encode_where_bilinear_reduction_does_not(front: BlockDct, noise: torch.Tensor) -> None:
    assert _db(front.decode(front.encode(noise)), noise) > 100
    large = functional.interpolate(noise, scale_factor=8, mode="bilinear", align_corners=True)
    published = functional.interpolate(large, scale_factor=1 / 8, mode="bilinear", align_corners=True)
    assert _db(published, noise) < 35


def test_the_linear_part_is_linear_and_the_affine_part_is_not(front: BlockDct, noise: torch.Tensor) -> None:
    first, second = noise[:1] - 2, 3 * noise[1:]  # far outside [0, 1]: nothing is clipped
    both = front.linear_inverse(front.linear(first) + front.linear(second))
    torch.testing.assert_close(both, first + second, atol=1e-4, rtol=0)
    offset = (front.encode(first + second) - front.encode(first) - front.encode(second)).abs().amax((0, 2, 3))
    assert float(offset[0]) == pytest.approx(1024, abs=0.01)
    assert float(offset[1:].max()) < 0.01


def test_the_difference_of_images_is_the_image_of_the_difference(front: BlockDct, noise: torch.Tensor) -> None:
    residue = front.encode(noise[:1]) - front.encode(noise[1:])
    torch.testing.assert_close(front.linear_inverse(residue), noise[:1] - noise[1:], atol=1e-4, rtol=0)


def test_frequencies_run_row_by_row(front: BlockDct) -> None:
    # A vertical frequency u in luma, drawn on the large image and carried through the transform alone.
    rows = dct_matrix().float()
    for u, v in ((0, 0), (0, 1), (1, 0), (3, 5)):
        block = torch.outer(rows[u], rows[v])[None, None]
        found = functional.conv2d(block, front.kernels, stride=8).flatten()
        assert int(found.abs().argmax()) == 8 * u + v
        assert float(found[8 * u + v]) == pytest.approx(1, abs=1e-5)


def test_a_vertical_ramp_has_no_horizontal_frequencies(front: BlockDct) -> None:
    ramp = torch.linspace(0, 1, 112).reshape(1, 1, 112, 1).expand(1, 3, 112, 112)
    energy = front.encode(ramp)[0].abs().mean((1, 2)).reshape(3, 8, 8)
    assert float(energy[0, 1, 0]) > 1
    assert float(energy[0, :, 1:].max()) < 1e-2
    assert float(energy[1:].max()) < 1e-2  # grey has no colour


def test_grey_is_all_in_the_lowest_coefficient(front: BlockDct) -> None:
    grey = front.encode(torch.full((1, 3, 112, 112), 128 / 255))
    assert float(grey.abs().max()) < 1e-2
    white = front.encode(torch.ones(1, 3, 112, 112))
    torch.testing.assert_close(white[:, 0], torch.full((1, 112, 112), 127.0 * 8), atol=0.05, rtol=0)


def test_a_block_has_rank_nine_at_most(front: BlockDct) -> None:
    images = torch.rand(12, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    luma = front.linear(images)[:, :64, 53, 53].double().numpy()
    assert 4 <= np.linalg.matrix_rank(luma, tol=1e-4 * np.abs(luma).max()) <= 9


def test_it_is_what_enlarging_and_transforming_gives(front: BlockDct, noise: torch.Tensor) -> None:
    colours = torch.einsum("cd,ndhw->nchw", front.colour, noise)
    large = functional.interpolate(colours, scale_factor=8, mode="bilinear", align_corners=True)
    blocks = functional.conv2d(large.reshape(-1, 1, 896, 896), front.kernels, stride=8).reshape(2, 192, 112, 112)
    torch.testing.assert_close(front.linear(noise), blocks, atol=2e-2, rtol=0)
    some = front.linear(noise, (3, 17))
    torch.testing.assert_close(some, front.linear(noise)[:, [3, 17, 67, 81, 131, 145]], atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match="frequencies"):
        front.linear(noise, (64,))


def test_gradients_pass_both_ways(front: BlockDct, noise: torch.Tensor) -> None:
    images = noise[:1].clone().requires_grad_()
    front.decode(front.encode(images)).sum().backward()
    torch.testing.assert_close(images.grad, torch.ones(1, 3, 112, 112), atol=1e-3, rtol=0)


def test_other_shapes_are_refused(front: BlockDct) -> None:
    with pytest.raises(UsageError, match="shape"):
        front.encode(torch.zeros(1, 3, 96, 112))
    with pytest.raises(UsageError, match="shape"):
        front.decode(torch.zeros(1, 3, 112, 112))
