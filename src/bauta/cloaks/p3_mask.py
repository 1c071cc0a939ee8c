"""A mask that is fitted once to a few photos of a person and then goes on each new photo at once: P3-Mask.

After Chameleon (Chow et al., ECCV 2024), whose released code the preset ``chameleon`` follows: one mask of colours for
a person, kept within a box and above an SSIM, optimised over several photos against a team of recognisers. Two things
differ: the frame of the mask is the aligned crop instead of the detector's box, since the views of Bauta have
landmarks, and what surrounds the face is photo instead of mean colour.

The default is our design. It moves the face and changes its lightness, within the bounds of the default mask and
measured by what is noticed on each photo; and it fits several such masks together, of which each photo gets one at
random, and keeps them apart, so that protected photos do not all look alike to a recogniser. Which one a photo gets is
drawn by its pixels and the owner's secret: the same photo gets the same mask again, and others cannot tell which.

What was fitted is the key: it takes the mask off again. Whoever has a photo before and after has the mask too.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bauta.cloaks.base import Aim, Carried, Cloak, Edit, Need, Strength, Work
from bauta.cloaks.p3_settings import P3MaskConfig
from bauta.cloaks.spatial import STRENGTHS
from bauta.cloaks.view import ViewSpec
from bauta.errors import UsageError
from bauta.registry import register

if TYPE_CHECKING:
    from bauta.cloaks.view import FaceView
    from bauta.learning.fitted import Fitted

FEWEST = 3
"""Photos that a mask can be fitted to: fewer say more of themselves than of the person."""
MOST = 100


@register("p3-mask", kind="cloak")
class P3Mask(Cloak[P3MaskConfig]):
    """The cloak.

    >>> from bauta.cloaks.base import Work
    >>> fitted = P3Mask.fit(views, P3MaskConfig(), Work.seeded(0, ensemble))  # doctest: +SKIP
    >>> edits = P3Mask().edit([another], Work.seeded(0, fitted=(fitted,)))  # doctest: +SKIP
    """

    Config = P3MaskConfig
    needs: ClassVar[frozenset[Need]] = frozenset({"fitted"})
    aims: ClassVar[tuple[Aim, ...]] = ("dodge", "restore")
    sealed: ClassVar[bool] = True
    view: ClassVar[ViewSpec] = ViewSpec(footprint=160)  # its masks have 112 pixels, and putting one on is to be quick

    @classmethod
    def fit(cls, views: Sequence[FaceView], config: P3MaskConfig, work: Work) -> Fitted:
        """Fit the masks; see `bauta.cloaks.base.FitsPerson`.

        Raises:
            UsageError: when there are fewer than `FEWEST` views or more than `MOST`, or no surrogate.
            NumericalFailure: when a surrogate answers with NaN or infinity.
        """
        from bauta.cloaks.p3_fitting import fit_colour, fit_spatial
        from bauta.learning.fitted import Fitted, Provenance

        if not FEWEST <= len(views) <= MOST:
            raise UsageError(
                f"{len(views)} photos were given; the mask is fitted to {FEWEST} to {MOST} photos of one person.",
                hint="Give about ten, in different light and from different days.",
            )
        parts = (fit_spatial if config.edit == "spatial" else fit_colour)(views, config, work)
        parts["secret"] = _as_tensor(secrets.token_bytes(32))
        data = f"{len(views)} photos of one person"
        return Fitted(cls.card.name, config.to_dict(), parts, work.attacked.names, Provenance(data), cls.version)

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        """Put the person's mask on each view; no network is asked. See `Cloak.edit`.

        Raises:
            UsageError: when there is nothing fitted, or the masks of several people.
        """
        from bauta.cloaks.p3_fitting import Canvas

        fitted, config = _mask_of(work)
        edits = []
        for view in views:
            variant = chosen(fitted, view, config.variants)
            delta, warp = Canvas([view]).masked(config, fitted.parts, variant)
            edits.append(Edit(view, delta, warp, {"iterations": 0, "stopped": "fitted"}, bytes([variant])))
        return edits

    def follow(self, views: Sequence[FaceView], work: Work) -> Carried:
        """One of the person's masks, the same in all frames; see `bauta.cloaks.base.Follows`."""
        from bauta.cloaks.p3_fitting import Following

        fitted, config = _mask_of(work)
        return Following(config, fitted.parts, chosen(fitted, views[0], config.variants), {"stopped": "fitted"})

    def restore(self, views: Sequence[FaceView], payloads: Sequence[bytes], work: Work) -> list[Edit]:
        """Take the mask off each view; see `bauta.cloaks.base.Restores`.

        Raises:
            UsageError: when it is not known which mask a view has.
        """
        from bauta.cloaks.p3_fitting import unmasked

        fitted, config = _mask_of(work)
        edits = []
        for view, payload in zip(views, payloads, strict=True):
            if len(payload) != 1 or payload[0] >= config.variants:
                raise UsageError(
                    "The photo does not say which of its owner's masks it has.",
                    hint="Take the file that Bauta wrote: whoever saves it anew loses that.",
                )
            delta, warp = unmasked(view, config, fitted.parts, payload[0])
            edits.append(Edit(view, delta, warp))
        return edits

    def possible(self, work: Work) -> list[bytes]:
        """A payload for each of the person's masks; see `bauta.cloaks.base.KnowsPayloads`."""
        _, config = _mask_of(work)
        return [bytes([variant]) for variant in range(config.variants)]

    @classmethod
    def at_strength(cls, strength: Strength, chosen: Collection[str] = ()) -> Mapping[str, Any]:
        """The bounds of the default mask."""
        return STRENGTHS[strength]


def chosen(fitted: Fitted, view: FaceView, variants: int) -> int:
    """Which variant a view gets: the same whenever it is asked, and known to none but the owner."""
    pixels = (view.pixels * 255).round().byte().numpy().tobytes()
    drawn = hmac.digest(fitted.parts["secret"].numpy().tobytes(), pixels, hashlib.sha256)
    return int.from_bytes(drawn[:8], "big") % variants


def _mask_of(work: Work) -> tuple[Fitted, P3MaskConfig]:
    if len(work.fitted) != 1:
        raise UsageError("A face gets the mask of one person.", hint="Give one fitted file for each person.")
    (fitted,) = work.fitted
    return fitted, P3MaskConfig.of(dict(fitted.settings))


def _as_tensor(content: bytes) -> Any:
    import torch

    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
