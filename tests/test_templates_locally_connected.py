"""An affine function of neighbours, found by asking it."""

from __future__ import annotations

import torch
from torch.nn import functional

from bauta.templates.masked.dct import BlockDct
from bauta.templates.masked.locally_connected import LocallyConnected


def test_a_convolution_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(4, 2, 3, 3, generator=generator), torch.randn(4, generator=generator)
    images = torch.rand(3, 2, 7, 10, generator=generator)
    found = LocallyConnected.of(lambda some: functional.conv2d(some, weight, bias, padding=1), (2, 7, 10))
    torch.testing.assert_close(found(images), functional.conv2d(images, weight, bias, padding=1))


def test_block_coefficients_are_found() -> None:
    dct, images = BlockDct(), torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    found = LocallyConnected.of(lambda some: dct.linear(some, [0, 9, 63]), (3, 112, 112))
    torch.testing.assert_close(found(images), dct.linear(images, [0, 9, 63]), atol=2e-2, rtol=1e-5)
