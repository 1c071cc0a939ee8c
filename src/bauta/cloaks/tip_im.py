"""TIP-IM: targeted identity-protection iterative method (Yang et al., ICCV 2021), faithful and then further.

What is the paper's or the official code's, reached by `TipImConfig.paper()` and `TipImConfig.official_code()`:
the identity loss (equation 2), momentum and the two step rules (equation 5), the greedy choice among K targets
at every iteration with its three gains (Algorithm 1, equation 7, and the ablation), the MMD term (equations 3
and 4), the random affine input diversity, one surrogate.

What is ours, and the default: an ensemble of surrogates, cosine losses, a mask at photo resolution behind the
alignment warp, random transports between photo and recogniser, gradients smoothed and weighted by
a just-noticeable-difference map, a PSNR floor as the budget instead of the box alone, dodging and combined
modes, early stopping. And for both: one forward pass and K vector-Jacobian products where the official code
runs K forward and K backward passes. It works because the embedding gradient of the loss for target k is
2 (e0 - t_k), known before the forward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bauta.cloaks.base import Aim, Cloak, Edit, Need, Strength, Work
from bauta.cloaks.tip_im_settings import TipImConfig
from bauta.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from bauta.cloaks.view import FaceView

_QUALITY: dict[Strength, dict[str, Any]] = {
    "low": {"psnr": 35.5, "ssim": 0.973},
    "medium": {},
    "high": {"psnr": 31.0, "ssim": 0.93},
}
"""Floors of PSNR (dB) and SSIM on the face that a strength stands for."""


@register("tip-im", kind="cloak")
class TipIm(Cloak[TipImConfig]):
    """The cloak.

    >>> from bauta.cloaks.base import Work
    >>> edits = TipIm(TipImConfig(iterations=30)).edit(views, Work.seeded(0, ensemble))  # doctest: +SKIP

    Args:
        config: Settings.
        targets: (K, 3, 112, 112) faces aligned to the ArcFace template, in [0, 1]; None takes the shipped
            composites, which are averages of many faces and not anyone's.
    """

    Config = TipImConfig
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogates"})
    aims: ClassVar[tuple[Aim, ...]] = ("dodge", "impersonate")

    def __init__(self, config: TipImConfig | None = None, *, targets: Tensor | None = None) -> None:
        super().__init__(config)
        self._targets = targets

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        """Optimise one mask for each view, all in one batch; see `Cloak.edit`.

        Facts: ``iterations`` taken, and ``stopped``, which is "converged", "iterations" or "deadline".

        Raises:
            UsageError: when there is no view or no surrogate.
            NumericalFailure: when a surrogate answers with NaN or infinity.
        """
        from bauta.cloaks.tip_im_objective import optimise

        return optimise(views, self.config, self._targets, work)

    @classmethod
    def at_strength(cls, strength: Strength, chosen: Collection[str] = ()) -> Mapping[str, Any]:
        """Floors of PSNR and SSIM; whoever names a PSNR means that one floor alone."""
        return {"ssim": None} if "psnr" in chosen else _QUALITY[strength]
