"""Faces of nobody that recognisers take for somebody: the optimised mode of `bauta.templates.local.protector`.

Our design, in the spirit of what the abstract of arXiv 2412.08276 says: what one sees at a glance is drawn at random
and knows nothing of the person; who it is lies in fine texture alone, made against surrogates, for recognisers that
nobody named.

::

    y0 = mean face + eigenfaces in random amounts                        drawn for each face, and forgotten
    y  = argmax  sum_s cos(f_s(y), m_s(x))   with |y - y0| <= epsilon    by steps of the gradient's sign
    m_s(x) = the mean of f_s(x) and f_s of x mirrored                    made a unit vector

The photo x enters by the templates m_s(x) and in no other way: what is stored is made of these and of random numbers.
Whoever has it can therefore learn of the photo what the templates tell, and nothing else, whatever he trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import UsageError
from bauta.faces.crops import retemplate
from bauta.objectives.transports import gaussian_blur
from bauta.recognizers.surrogates import Surrogate
from bauta.templates.base import SIDE
from bauta.templates.draws import Draws
from bauta.templates.fit import as_images
from bauta.templates.local.composition import LocalFeaturesConfig
from bauta.templates.steps import descend

MOMENTUM = 0.9
SMOOTHED = 1.0  # deviation in pixels of the blur of gradients, for recognisers not asked (Dong et al. 2019)
REACH = 3.0  # pixels that the image is moved at most before it is looked at (input diversity, Xie et al. 2019)
TURNED = 0.06  # at most, in radians, and of its size made larger or smaller
COARSE = 56  # side in pixels of the eigenfaces
LEARNED = 2000  # faces that these are taken from at most
AMOUNT = 0.6  # of each eigenface's deviation: the whole makes faces that stand out, and are harder to overwrite
FURTHEST = 2.0  # deviations
ACROSS = 2  # times that all steps in one direction would cross the budget


class StandIns(nn.Module):
    """Faces of nobody, drawn from a Gaussian model of faces: eigenfaces (Turk and Pentland 1991) in random amounts.

    No picture of anybody is kept, and no two draws are alike.

    Args:
        components: How many eigenfaces.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, COARSE, COARSE, dtype=torch.float16))
        self.register_buffer("components", torch.zeros(components, 3, COARSE, COARSE, dtype=torch.float16))

    def learn(self, pixels: Tensor) -> None:
        """Take the mean and the eigenfaces of faces and their mirror images.

        Args:
            pixels: (N, 3, 112, 112) uint8, or float32 in [0, 1]; of more than `LEARNED`, as many, spread evenly.

        Raises:
            UsageError: when there are fewer faces than eigenfaces.
        """
        count = len(self.components)
        if len(pixels) < count:
            raise UsageError(
                f"{len(pixels)} faces are too few for {count} components.", hint="Give more faces, or set components."
            )
        chosen = torch.arange(0, len(pixels), -(-len(pixels) // LEARNED))
        parts: tuple[Tensor, ...] = chosen.split(64)  # type: ignore[no-untyped-call]
        small = torch.cat([functional.avg_pool2d(as_images(pixels[part]), SIDE // COARSE) for part in parts])
        rows = torch.cat([small, small.flip(3)]).flatten(1)
        mean = rows.mean(0)
        _, vectors = torch.linalg.eigh((rows - mean) @ (rows - mean).T)
        # Of unit vectors v of the small matrix, the rows' combination has length sqrt(value): over sqrt(N) a deviation.
        eigenfaces = vectors[:, -count:].T @ (rows - mean) / math.sqrt(len(rows))
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.components.copy_(eigenfaces.reshape(self.components.shape))

    def project(self, images: Tensor) -> Tensor:
        """(N, 3, 112, 112): what mean and eigenfaces can say of faces (N, 3, 112, 112) in [0, 1]."""
        eigenfaces = self.components.float().flatten(1)
        offsets = functional.avg_pool2d(images, SIDE // COARSE) - self.mean.float()
        lengths = eigenfaces.square().sum(1).clamp_min(1e-12)
        return self._compose(offsets.flatten(1) @ eigenfaces.T / lengths)

    def draw(self, count: int, draws: Draws, amount: float = AMOUNT) -> Tensor:
        """(count, 3, 112, 112) in [0, 1], which no face has a say in.

        Args:
            count: How many.
            draws: Randomness.
            amount: Of each eigenface, in its deviations.
        """
        amounts = amount * draws.normal(count, len(self.components)).clamp(-FURTHEST, FURTHEST)
        return self._compose(amounts).clamp(0, 1)

    def _compose(self, amounts: Tensor) -> Tensor:
        small = self.mean.float() + torch.einsum("nk,kchw->nchw", amounts, self.components.float())
        return functional.interpolate(small, (SIDE, SIDE), mode="bicubic", align_corners=False)


def write_identity(
    stand_ins: Tensor, images: Tensor, surrogates: Sequence[Surrogate], config: LocalFeaturesConfig, draws: Draws
) -> Tensor:
    """Faces of nobody, changed until the surrogates take them for the people on the images.

    Args:
        stand_ins: (N, 3, 112, 112) in [0, 1].
        images: (N, 3, 112, 112) in [0, 1], ArcFace crops; only their templates, and their mirror images', are used.
        surrogates: Recognisers; `config.asked` of them, in turn, are asked in each iteration.
        config: Its epsilon, iterations and asked.
        draws: Of how the images are moved.

    Returns:
        (N, 3, 112, 112) in [0, 1], nowhere further than `epsilon` from the stand-ins.

    Raises:
        NumericalFailure: when a surrogate's gradient is NaN or infinite.
    """
    with torch.no_grad():
        wanted = [_template(images, one) for one in surrogates]

    def distance(found: Tensor, iteration: int) -> Tensor:
        seen = _moved(found, draws)
        asked = [(iteration * config.asked + place) % len(surrogates) for place in range(config.asked)]
        distances = [
            1 - (surrogates[one](retemplate(seen, surrogates[one].card.template)) * wanted[one]).sum(1) for one in asked
        ]
        return torch.stack(distances).sum()

    return descend(
        stand_ins, distance, budget=config.epsilon / 255, iterations=config.iterations, across=ACROSS, decay=MOMENTUM,
        low=0.0, high=1.0, smooth=lambda gradient: gaussian_blur(gradient, SMOOTHED),
    )  # fmt: skip


def _template(images: Tensor, surrogate: Surrogate) -> Tensor:
    """(N, dim): the mean template of each photo and its mirror image, which tells less of one photo's accidents."""
    both = [surrogate(retemplate(one, surrogate.card.template)) for one in (images, images.flip(3))]
    return functional.normalize(both[0] + both[1], dim=1)


def _moved(images: Tensor, draws: Draws) -> Tensor:
    """Images moved, turned, made larger or smaller and perhaps mirrored, all alike, their borders repeated."""
    down, across, larger, turned = (2 * draws.uniform(4) - 1).tolist()
    shift = 2 * REACH / SIDE  # in half sides
    movement = torch.tensor(
        [[1 + TURNED * larger, TURNED * turned, shift * across], [-TURNED * turned, 1 + TURNED * larger, shift * down]]
    )
    if bool(draws.uniform(1) < 0.5):
        movement[:, 0] = -movement[:, 0]
    places = functional.affine_grid(
        movement.to(images).expand(len(images), 2, 3), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, places, padding_mode="border", align_corners=False)
