"""Settings and looks of the makeup; see `bauta.cloaks.makeup`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from bauta.cloaks.spatial_settings import SpatialConfig
from bauta.settings import Range

Part = Literal["lips", "shadow", "liner", "brows", "blush", "tone", "stubble"]
Look = Literal["natural", "rose", "evening", "tone", "stubble"]
Painter = Literal["numbers", "decoder"]
Span = tuple[float, float]


@dataclass(frozen=True)
class Layer:
    """Between what bounds one part of a look may be chosen, relative to the face's own colour there.

    Attributes:
        depth: Lightness, as a multiple of what is there: the texture of the skin stays.
        red: Added to a of CIELAB.
        yellow: Added to b of CIELAB.
        shape: How far the part reaches: beyond the lips, along the lid, around the brows, up the cheek; crop pixels,
            for the shadow as a share of the way to the brow.
        most: What a of CIELAB may become, on average over the part: lips that are red already get no more of it.
    """

    depth: Span = (1.0, 1.0)
    red: Span = (0.0, 0.0)
    yellow: Span = (0.0, 0.0)
    shape: Span = (0.0, 0.0)
    most: float = 100.0


@dataclass(frozen=True)
class Drawn:
    """A look, described by bounds and by no photo of anybody.

    Attributes:
        layers: Its parts.
        contour: Light and shade, as the largest share of lightness that it takes; half as much is added.
    """

    layers: Mapping[Part, Layer]
    contour: float


_TONE = Layer(depth=(0.96, 1.03), red=(-1.0, 2.0), yellow=(-1.0, 3.0))
LOOKS: dict[Look, Drawn] = {
    "natural": Drawn(
        {
            "lips": Layer((0.86, 1.03), (2.0, 9.0), (-2.0, 4.0), (-0.3, 0.3), most=28.0),
            "shadow": Layer((0.82, 0.97), (0.0, 4.0), (-3.0, 2.0), (0.3, 0.8)),
            "liner": Layer((0.55, 0.8), shape=(0.3, 0.8)),
            "brows": Layer((0.84, 1.0), shape=(-1.0, 0.0)),
            "blush": Layer((0.95, 1.01), (2.0, 7.0), (-1.0, 3.0), (-3.0, 4.0)),
            "tone": _TONE,
        },
        contour=0.06,
    ),
    "rose": Drawn(
        {
            "lips": Layer((0.78, 0.96), (5.0, 13.0), (-3.0, 1.0), (-0.3, 0.4), most=36.0),
            "shadow": Layer((0.75, 0.93), (3.0, 9.0), (-6.0, -1.0), (0.4, 0.9)),
            "liner": Layer((0.45, 0.75), shape=(0.3, 0.9)),
            "brows": Layer((0.8, 0.98), shape=(-1.0, 0.0)),
            "blush": Layer((0.93, 1.0), (4.0, 10.0), (-3.0, 1.0), (-3.0, 5.0)),
            "tone": _TONE,
        },
        contour=0.06,
    ),
    "evening": Drawn(
        {
            "lips": Layer((0.62, 0.88), (10.0, 26.0), (-2.0, 10.0), (-0.3, 0.4), most=48.0),
            "shadow": Layer((0.55, 0.82), (0.0, 6.0), (-8.0, 1.0), (0.4, 1.0)),
            "liner": Layer((0.3, 0.55), shape=(0.5, 1.3)),
            "brows": Layer((0.74, 0.94), shape=(-0.8, 0.1)),
            "blush": Layer((0.92, 0.99), (4.0, 10.0), (0.0, 5.0), (-3.0, 5.0)),
            "tone": _TONE,
        },
        contour=0.07,
    ),
    "tone": Drawn({"tone": Layer((0.94, 1.03), (-1.0, 3.0), (-1.0, 4.0))}, contour=0.07),
    "stubble": Drawn(
        {
            "stubble": Layer((0.84, 0.97), (-1.5, 0.0), (-2.5, 0.0)),
            "brows": Layer((0.84, 1.0), shape=(-1.0, 0.0)),
            "tone": _TONE,
        },
        contour=0.07,
    ),
}


@dataclass(frozen=True)
class MakeupConfig(SpatialConfig):
    """Settings of the makeup; beneath it the default mask moves half as far, and changes lightness a little less.

    Attributes:
        look: What it may look like: ``natural``, ``rose`` and ``evening`` make lips, lids, lashes, brows and cheeks up;
            ``tone`` changes light, shade and tan alone, and ``stubble`` adds a shadow of a beard.
        intensity: Factor of the look's colours, from the face's own on: 0 is no makeup, and 1 the look as described.
        painter: What chooses within the look: ``numbers``, a few for each part, or ``decoder``, an untrained network,
            which gives each place its own. What is given with --like always takes the decoder, and no look.
        faithful: Weight of the decoder's losses of makeup and structure.
    """

    title: ClassVar[str] = "The makeup"

    look: Look = "natural"
    intensity: Annotated[float, Range(at=0, to=1.5)] = 1.0
    painter: Painter = "numbers"
    faithful: Annotated[float, Range(above=0, to=100)] = 0.1
    displacement: Annotated[float, Range(at=0, to=10)] = 2.1
    strain: Annotated[float, Range(above=0, to=0.5)] = 0.09
    psnr: Annotated[float, Range(at=20, to=60)] = 36.0
