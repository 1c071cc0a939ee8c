"""One mask for two ends: recognisers do not know the face, and whoever holds the key reads whose it is.

The goal is that of Double Privacy Guard (arXiv 2404.14693, later DIP-Watermark), whose body could not be read; its
authors train an encoder and a decoder. Here nothing is trained: the descent of the default mask moves the face and its
lightness, within the same bounds, away from the person *and* towards a message in carriers that the key tells
(`bauta.cloaks.carriers`). Our design.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bauta.cloaks.base import Aim, Cloak, Edit, Need, Reading, Strength, Work
from bauta.cloaks.spatial import STRENGTHS
from bauta.cloaks.watermark_settings import WatermarkConfig
from bauta.errors import UsageError
from bauta.registry import register

if TYPE_CHECKING:
    from bauta.cloaks.view import FaceView


@register("watermark", kind="cloak")
class Watermark(Cloak[WatermarkConfig]):
    """The cloak.

    >>> work = Work.seeded(0, ensemble, key=key, message="anna")  # doctest: +SKIP
    >>> edits = Watermark().edit(views, work)  # doctest: +SKIP
    """

    Config = WatermarkConfig
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogates", "key", "message"})
    aims: ClassVar[tuple[Aim, ...]] = ("dodge", "trace")

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        """Optimise one edit for each view, all with the message; see `Cloak.edit`.

        Raises:
            UsageError: when there is no view or surrogate, or the message does not fit.
            NumericalFailure: when a surrogate answers with NaN or infinity.
        """
        from bauta.cloaks.payload import encoded
        from bauta.cloaks.spatial_objective import optimise
        from bauta.cloaks.watermark_objective import WatermarkProblem

        encoded(work.message or "", _key(work))  # refused before anything is computed
        return optimise(views, self.config, None, work, WatermarkProblem)

    def read(self, views: Sequence[FaceView], work: Work) -> list[Reading]:
        """What each view says under the key; see `bauta.cloaks.base.Reads`.

        Raises:
            UsageError: when there is no key.
        """
        from bauta.cloaks.watermark_objective import reading

        key = _key(work)
        return [reading(view, key) for view in views]

    @classmethod
    def at_strength(cls, strength: Strength, chosen: Collection[str] = ()) -> Mapping[str, Any]:
        """The bounds of the default mask."""
        return STRENGTHS[strength]


def _key(work: Work) -> bytes:
    if not work.key:
        raise UsageError("The watermark needs a key.", hint="Give --key FILE.")
    return work.key
