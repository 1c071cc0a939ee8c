"""Faces of nobody that recognisers take for somebody: the optimised mode of `bauta.templates.local_features`.

Our design, in the spirit of what the abstract of arXiv 2412.08276 says: what one sees at a glance is drawn at random
and knows nothing of the person; who it is lies in fine texture alone, made against surrogates, for recognisers that
nobody named.

::

    y0 = blend of two faces of a pool of nobodies + a smooth random field       drawn for each face, and forgotten
    y  = argmax  sum_s cos(f_s(y), f_s(x))    with |y - y0| <= epsilon          by steps of the gradient's sign

The photo x enters by its templates f_s(x) and in no other way: what is stored is made of these and of random numbers.
Whoever has it can therefore learn of the photo what the templates tell, and nothing else, whatever he trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import NumericalFailure
from bauta.objectives.transports import gaussian_blur
from bauta.recognizers.surrogates import Surrogate
from bauta.templates.base import crops_of, unknown_generator
from bauta.templates.masking import Pool

if TYPE_CHECKING:  # it imports this module
    from bauta.templates.local_features import Draws, LocalFeaturesConfig

MOMENTUM = 0.9
SMOOTHED = (
    1.0  # deviation in pixels of the blur of gradients, which carries over to other recognisers (Dong et al. 2019)
)
REACH = 3  # pixels that the image is moved at most before it is looked at (input diversity, Xie et al. 2019)
SHARES = (0.35, 0.65)  # of the first of two faces
ACROSS = 3  # times that all steps in one direction would cross the budget


class StandIns(nn.Module):
    """Faces of nobody: two of a pool, each an average, mirrored and moved, blended and tinted.

    Args:
        config: Its pool, level, field, chroma and cells.
    """

    def __init__(self, config: LocalFeaturesConfig) -> None:
        super().__init__()
        self.config = config
        self.pool = Pool(config.pool)

    def draw(self, count: int, field: Tensor, draws: Draws) -> Tensor:
        """(count, 3, 112, 112) in [0, 1], which no face has a say in.

        Args:
            count: How many.
            field: (count, 3, 112, 112), a random field of mean `level`.
            draws: Randomness.
        """
        generator = unknown_generator() if draws.generator is None else draws.generator
        first, second = (self.pool.draw(count, generator) for _ in range(2))
        low, high = SHARES
        share = (low + (high - low) * draws.uniform(count))[:, None, None, None]
        return (share * first + (1 - share) * second + field - self.config.level).clamp(0, 1)


def write_identity(
    stand_ins: Tensor, images: Tensor, surrogates: Sequence[Surrogate], config: LocalFeaturesConfig, draws: Draws
) -> Tensor:
    """Faces of nobody, changed until the surrogates take them for the people on the images.

    Args:
        stand_ins: (N, 3, 112, 112) in [0, 1].
        images: (N, 3, 112, 112) in [0, 1], ArcFace crops; only their templates are used.
        surrogates: Recognisers; `config.asked` of them, in turn, are asked in each iteration.
        config: Its epsilon, iterations and asked.
        draws: Of how the images are moved.

    Returns:
        (N, 3, 112, 112) in [0, 1], nowhere further than `epsilon` from the stand-ins.

    Raises:
        NumericalFailure: when a surrogate's gradient is NaN or infinite.
    """
    with torch.no_grad():
        wanted = [one(crops_of(images, one.card.template)) for one in surrogates]
    budget = config.epsilon / 255
    step = min(budget, ACROSS * budget / config.iterations)
    low, high = (stand_ins - budget).clamp_min(0), (stand_ins + budget).clamp_max(1)
    found, momentum = stand_ins, torch.zeros_like(stand_ins)
    for iteration in range(config.iterations):
        down, across = draws.whole(-REACH, REACH, 2).tolist()
        mirrored = bool(draws.uniform(1) < 0.5)
        asked = [(iteration * config.asked + place) % len(surrogates) for place in range(config.asked)]
        with torch.enable_grad():
            variable = found.detach().requires_grad_()
            seen = _moved(variable, down, across)
            seen = seen.flip(3) if mirrored else seen
            distances = [
                1 - (surrogates[one](crops_of(seen, surrogates[one].card.template)) * wanted[one]).sum(1)
                for one in asked
            ]
            (gradient,) = torch.autograd.grad(torch.stack(distances).sum(), variable)
        if not bool(gradient.isfinite().all()):
            raise NumericalFailure("A surrogate's gradient is no number.", hint="Check its weights.")
        gradient = gaussian_blur(gradient, SMOOTHED)
        momentum = MOMENTUM * momentum + gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-20)
        found = (found - step * momentum.sign()).clamp(low, high)
    return found


def _moved(images: Tensor, down: int, across: int) -> Tensor:
    """Images moved by whole pixels, their borders repeated."""
    side, wide = images.shape[3], functional.pad(images, [REACH] * 4, mode="replicate")
    return wide[:, :, REACH - down : REACH - down + side, REACH - across : REACH - across + side]
