"""What the masks that go down the default mask's descent have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from bauta.cloaks.base import Aim, Cloak, Edit, Need, Strength, Work
from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from bauta.cloaks.spatial_objective import Problem
    from bauta.cloaks.view import FaceView

S = TypeVar("S", bound=SpatialConfig)


class Moving(Cloak[S]):
    """Base of the masks that move the face and change its lightness, and perhaps more.

    Attributes:
        strengths: Settings that a strength stands for.

    Args:
        config: Settings.
        targets: (K, 3, 112, 112) faces aligned to the ArcFace template, in [0, 1], for the modes that have some; None
            takes the shipped composites.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"surrogates"})
    aims: ClassVar[tuple[Aim, ...]] = ("dodge", "impersonate")
    strengths: ClassVar[Mapping[Strength, Mapping[str, Any]]]

    def __init__(self, config: S | None = None, *, targets: Tensor | None = None) -> None:
        super().__init__(config)
        self._targets = targets

    def check_clips(self) -> None:
        """See `Cloak.check_clips`."""
        if self.config.mode != "dodge":
            raise UsageError("In clips the mask moves away from the person only.", hint="Leave the mode out.")

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        """Optimise one edit for each view, all in one batch; see `Cloak.edit`.

        Raises:
            UsageError: when there is no view or no surrogate.
            NumericalFailure: when a surrogate answers with NaN or infinity.
        """
        from bauta.cloaks.spatial_objective import optimise

        return optimise(views, self.config, self._targets, work, self._problem())

    def _problem(self) -> Callable[..., Problem] | None:
        """Makes what is minimised; None for the default mask's."""
        return None

    @classmethod
    def at_strength(cls, strength: Strength, chosen: Collection[str] = ()) -> Mapping[str, Any]:
        """Bounds of what is seen."""
        return cls.strengths[strength]

    @classmethod
    def escalations(cls, config: S) -> Sequence[S]:
        """The same bounds, used in full from the beginning, and for twice as long."""
        if config.margin is None:
            return ()
        return (replace(config, margin=None, iterations=2 * config.iterations),)
