"""Makeup that is chosen so that recognisers fail: protection that looks like a choice. Our design.

A look, described by bounds in CIELAB and by no photo of anybody, leaves open how deep and how warm lips, lids, lashes,
brows, cheeks and the tone of the skin become, how far each reaches, and where light and shade lie. Those few numbers
are optimised against recognisers, together with the default mask (`bauta.cloaks.spatial`), which moves half as far.

That makeup can hide a person from recognisers while it looks like makeup is the idea of Adv-Makeup (Yin et al., IJCAI
2021) and of Shamshad et al. (Makeup-Guided Facial Privacy Protection via Untrained Neural Network Priors, 2024). They
let a network paint; ours is told what makeup is, unless a photo shows what is to be worn: that a decoder without any
training copies (`bauta.cloaks.makeup_decoder`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from bauta.cloaks.base import Carried, Need, Strength, Work
from bauta.cloaks.makeup_settings import MakeupConfig
from bauta.cloaks.moving import Moving
from bauta.errors import UsageError
from bauta.registry import register

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bauta.cloaks.spatial_objective import Problem
    from bauta.cloaks.view import FaceView

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
    takes: ClassVar[frozenset[Need]] = frozenset({"reference"})
    strengths = STRENGTHS

    def check(self, references: Sequence[FaceView]) -> None:
        """Whether the makeup of these faces, of which there is one at most, can be seen; see `Cloak.check`."""
        from bauta.cloaks.makeup_reference import reference_of

        if len(references) > 1:
            raise UsageError("Makeup is copied from one photo.", hint="Give --like once.")
        for reference in references:
            reference_of(reference)

    def _problem(self) -> Callable[..., Problem]:
        from bauta.cloaks.makeup_objective import MadeUp

        return MadeUp

    def check_clips(self) -> None:
        """See `Cloak.check_clips`."""
        super().check_clips()
        if self.config.painter != "numbers":
            raise UsageError("In clips a look is painted by numbers.", hint="Leave painter=decoder out.")

    def follow(self, views: Sequence[FaceView], work: Work) -> Carried:
        """One look and one mask for all views of a face; see `bauta.cloaks.base.Follows`.

        Raises:
            UsageError: when it is to be painted by the decoder, or to move towards targets: only photos can.
        """
        from bauta.cloaks.makeup_shot import follow

        self.check_clips()
        return follow(views, self.config, work)

    def kept(self, carried: Carried) -> Mapping[str, NDArray[Any]]:
        """See `bauta.cloaks.base.Resumes`."""
        from bauta.cloaks.makeup_shot import Dressed, kept

        return kept(cast(Dressed, carried))

    def resumed(self, kept: Mapping[str, NDArray[Any]]) -> Carried:
        """See `bauta.cloaks.base.Resumes`."""
        from bauta.cloaks.makeup_shot import resumed

        return resumed(self.config, kept)
