"""Makeup that is chosen so that recognisers fail: protection that looks like a choice. Our design.

A look, described by bounds in CIELAB and by no photo of anybody, leaves open how deep and how warm lips, lids, lashes,
brows, cheeks and the tone of the skin become, how far each reaches, and where light and shade lie. Those few numbers
are optimised against recognisers, together with the default mask (`bauta.cloaks.spatial`), which moves half as far.

That makeup can hide a person from recognisers while it looks like makeup is the idea of Adv-Makeup (Yin et al., IJCAI
2021) and of Shamshad et al. (Makeup-Guided Facial Privacy Protection via Untrained Neural Network Priors, 2024); they
let a network paint, and ours is told what makeup is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bauta.cloaks.base import Strength
from bauta.cloaks.makeup_settings import MakeupConfig
from bauta.cloaks.moving import Moving
from bauta.registry import register

if TYPE_CHECKING:
    from bauta.cloaks.spatial_objective import Problem

STRENGTHS: dict[Strength, dict[str, Any]] = {
    "low": {"psnr": 40.0},
    "medium": {},
    "high": {"displacement": 4.2, "strain": 0.18, "psnr": 34.0},
}


@register("makeup", kind="cloak")
class Makeup(Moving[MakeupConfig]):
    """The cloak; see `bauta.cloaks.moving.Moving` for its arguments.

    >>> from bauta.cloaks.base import Work
    >>> edits = Makeup(MakeupConfig(look="evening")).edit(views, Work.seeded(0, ensemble))  # doctest: +SKIP
    """

    Config = MakeupConfig
    strengths = STRENGTHS

    def _problem(self) -> Callable[..., Problem]:
        from bauta.cloaks.makeup_objective import MadeUp

        return MadeUp
