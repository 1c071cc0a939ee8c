"""A mask that moves the face a little and changes its lightness a little, and its colours not at all. Our design.

A smooth field of displacements, in the frame of the aligned crop, and a mask on lightness, equal in red, green and
blue, are optimised together by the same gradient passes. People notice colour on skin, in irises and on lips first,
and a smooth movement of a fiftieth of the eye distance last; recognisers react to both. The photo is resampled from
its own pixels at its own resolution (`bauta.cloaking.apply`), so that it stays as sharp as it was.

Moving pixels instead of painting them is the idea of stAdv (Xiao et al., ICLR 2018), which attacks classifiers by a
free flow of single pixels; the spline, its bounds, and the union with lightness are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from bauta.cloaks.base import Carried, Strength, Work
from bauta.cloaks.moving import Moving
from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.registry import register

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bauta.cloaks.p3_fitting import Following
    from bauta.cloaks.view import FaceView

STRENGTHS: dict[Strength, dict[str, Any]] = {
    "low": {"displacement": 2.8, "strain": 0.12, "psnr": 36.0},
    "medium": {},
    "high": {"displacement": 5.2, "strain": 0.22, "psnr": 32.5},
}


@register("spatial", kind="cloak")
class Spatial(Moving[SpatialConfig]):
    """The cloak; see `bauta.cloaks.moving.Moving` for its arguments.

    >>> from bauta.cloaks.base import Work
    >>> edits = Spatial(SpatialConfig(iterations=30)).edit(views, Work.seeded(0, ensemble))  # doctest: +SKIP
    """

    Config = SpatialConfig
    strengths = STRENGTHS

    def follow(self, views: Sequence[FaceView], work: Work) -> Carried:
        """One mask for all views of a face, in the frame of the aligned crop; see `bauta.cloaks.base.Follows`.

        Made as a personalised mask is (`bauta.cloaks.p3_mask`), of the frames of one shot instead of a person's photos.
        `bauta.cloaks.shot` says within which bounds.

        Raises:
            UsageError: when it is to move towards targets, which only photos can.
        """
        from bauta.cloaks.shot import follow

        self.check_clips()
        return follow(views, self.config, work)

    def kept(self, carried: Carried) -> Mapping[str, NDArray[Any]]:
        """See `bauta.cloaks.base.Resumes`."""
        from bauta.cloaks.shot import kept

        return kept(cast("Following", carried))

    def resumed(self, kept: Mapping[str, NDArray[Any]]) -> Carried:
        """See `bauta.cloaks.base.Resumes`."""
        from bauta.cloaks.shot import resumed

        return resumed(self.config, kept)
