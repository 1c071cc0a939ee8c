"""Makeup that is chosen so that recognisers fail: protection that looks like a choice. Our design.

A look, described by bounds in CIELAB and by no photo of anybody, leaves open how deep and how warm lips, lids, lashes,
brows, cheeks and the tone of the skin become, how far each reaches, and where light and shade lie. Those few numbers
are optimised against recognisers, together with the default mask (`bauta.cloaks.spatial`), which moves half as far.

That makeup can hide a person from recognisers while it looks like makeup is the idea of Adv-Makeup (Yin et al., IJCAI
2021) and of Shamshad et al. (Makeup-Guided Facial Privacy Protection via Untrained Neural Network Priors, 2024); they
let a network paint, and ours is told what makeup is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from bauta.cloaks.base import Aim, Cloak, Edit, Need, Strength, Work
from bauta.cloaks.makeup_settings import MakeupConfig
from bauta.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from bauta.cloaks.view import FaceView

STRENGTHS: dict[Strength, dict[str, Any]] = {
    "low": {"psnr": 40.0},
    "medium": {},
    "high": {"displacement": 4.2, "strain": 0.18, "psnr": 34.0},
}


@register("makeup", kind="cloak")
class Makeup(Cloak[MakeupConfig]):
    """The cloak.

    >>> from bauta.cloaks.base import Work
    >>> edits = Makeup(MakeupConfig(look="evening")).edit(views, Work.seeded(0, ensemble))  # doctest: +SKIP

    Args:
        config: Settings.
        targets: As for `bauta.cloaks.spatial.Spatial`.
    """

    Config = MakeupConfig
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogates"})
    aims: ClassVar[tuple[Aim, ...]] = ("dodge", "impersonate")

    def __init__(self, config: MakeupConfig | None = None, *, targets: Tensor | None = None) -> None:
        super().__init__(config)
        self._targets = targets

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        """Optimise one edit for each view, all in one batch; see `Cloak.edit`.

        Raises:
            UsageError: when there is no view or no surrogate.
            NumericalFailure: when a surrogate answers with NaN or infinity.
        """
        from bauta.cloaks.makeup_objective import MadeUp
        from bauta.cloaks.spatial_objective import optimise

        return optimise(views, self.config, self._targets, work, make=MadeUp)

    @classmethod
    def at_strength(cls, strength: Strength, chosen: Collection[str] = ()) -> Mapping[str, Any]:
        """How much of the default mask lies beneath; the look is chosen by itself."""
        return STRENGTHS[strength]

    @classmethod
    def escalations(cls, config: MakeupConfig) -> Sequence[MakeupConfig]:
        """The same bounds, used in full from the beginning, and for twice as long."""
        if config.margin is None:
            return ()
        return (replace(config, margin=None, iterations=2 * config.iterations),)
