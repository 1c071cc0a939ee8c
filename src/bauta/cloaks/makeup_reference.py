"""What a face wears, relative to its own skin, and how that is brought to another face.

Lightness counts as a multiple of the skin's, and red and yellow as what is added to it: so light and white balance of
the reference photo cancel out, and a pale reference does not bleach a dark face. From place to place faces correspond
by their meshes, part by part: lips go to lips and lids to lids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bauta.cloaks.makeup_paint import MASKS
from bauta.cloaks.makeup_regions import CHANNELS, Regions, find_regions
from bauta.cloaks.makeup_settings import LOOKS, Layer, Look, Part
from bauta.cloaks.view import FaceView
from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import alignments
from bauta.faces.warp import warp
from bauta.objectives.colour import to_lab
from bauta.objectives.displacement import EYES, SIDE
from bauta.objectives.transports import gaussian_blur

GRID = 56
"""Places along a side of the crop at which colours are told."""

_LEAST = 20 / EYES  # pixels of the smallest reference in a pixel of the crop
_TURNED = 3.0  # from which ratio of the halves of a face on it is a profile
_DARK = 0.45  # lightness below the eyes, of the skin's, under which there are dark glasses
_REACH = 4.0  # of a point of the mesh, in crop pixels
_NOSE, _EARS = 1, (234, 454)


@dataclass(frozen=True)
class Copied:
    """How one part is copied.

    Attributes:
        shape: Of its mask; see `bauta.cloaks.makeup_settings.Layer`.
        blur: Over how many crop pixels colours are averaged, inside of the part.
        depth: Least and greatest lightness, as a multiple of what is there.
        red: Least and greatest change of a of CIELAB.
        yellow: Of b.
    """

    shape: float
    blur: float
    depth: tuple[float, float]
    red: tuple[float, float] = (0.0, 0.0)
    yellow: tuple[float, float] = (0.0, 0.0)


COPIED: dict[Part, Copied] = {
    "tone": Copied(0.0, 5.0, (0.96, 1.03), (-1.0, 9.0), (-3.0, 4.0)),
    "shadow": Copied(0.9, 2.0, (0.5, 1.08), (-4.0, 18.0), (-16.0, 10.0)),
    "brows": Copied(-0.5, 4.0, (0.75, 1.1)),
    "liner": Copied(0.7, 4.0, (0.4, 1.0)),
    "lips": Copied(-0.3, 2.5, (0.5, 1.15), (-8.0, 26.0), (-14.0, 14.0)),
}
"""In the order in which they are put on. Bounds are those of makeup: neither skin nor brows take the reference's."""


@dataclass(frozen=True, eq=False)
class Worn:
    """What a face wears.

    Attributes:
        colours: (P, 3, 112, 112) in the frame of the crop, for each of `COPIED`: lightness as a multiple of the skin's,
            and red and yellow less the skin's, averaged over near places of that part; far from it, over all of it.
        skin: (2,), red and yellow of the skin.
        there: (P, 112, 112) in [0, 1], where the part is.
        points: (468, 2) of the mesh, in crop pixels.
    """

    colours: Tensor
    skin: Tensor
    there: Tensor
    points: Tensor


def worn(view: FaceView, regions: Regions) -> Worn:
    """What the face in a view wears."""
    to_crop = alignments(view.landmarks.numpy(), ARCFACE_112)
    maps: Mapping[str, Tensor] = dict(zip(CHANNELS, regions.maps[:, None, None], strict=True))
    masks = torch.cat([MASKS[part](maps, torch.tensor(copied.shape)) for part, copied in COPIED.items()], 1)
    # Lips and brows are not skin, and lids are not where there is shadow.
    clear = (maps["skin"] > 0.5) & (maps["lips"] > 1) & (maps["orbit"] > 1) & (maps["brow"] > 1)
    masks[:, list(COPIED).index("tone")] *= clear[:, 0]
    lab = to_lab(view.pixels[None])
    if clear.any():
        light, red, yellow = lab[:, :, clear[0, 0]].median(2).values[0]
    else:
        light, red, yellow = lab.flatten(2).median(2).values[0]
    relative = torch.stack([lab[0, 0] / light.clamp_min(1), lab[0, 1] - red, lab[0, 2] - yellow])
    size = (SIDE, SIDE)
    seen = warp(torch.cat([relative[None], masks], 1), to_crop, size).to(lab.dtype)[0]
    colours, there = seen[:3], seen[3:].clamp(0, 1)
    told = []
    for mask, copied in zip(there, COPIED.values(), strict=True):
        blurred = gaussian_blur(torch.cat([mask * colours, mask[None]])[None], copied.blur)[0]
        spread, share = blurred[:3], blurred[3:]
        mean = (mask * colours).sum((1, 2)) / mask.sum().clamp_min(1e-6)
        near = (10 * share).clamp(0, 1)
        told.append(near * spread / share.clamp_min(1e-3) + (1 - near) * mean[:, None, None])
    back = to_crop[0].to(lab.dtype)
    points = torch.from_numpy(regions.points) @ back[:, :2].T + back[:, 2]
    return Worn(torch.stack(told), torch.stack([red, yellow]), there, points)


def copied_onto(source: Worn, reference: Worn) -> Tensor:
    """(P, 3, G, G): by what lightness of the source is multiplied, and what is added to red and yellow, to wear that.

    Parts that either face does not show stay as they are: 1, 0 and 0.
    """
    there = _corresponding(source.points, reference.points)
    wanted = functional.grid_sample(
        reference.colours.flatten(0, 1)[None], there, padding_mode="border", align_corners=False
    ).reshape(-1, 3, GRID, GRID)
    own = functional.avg_pool2d(source.colours, SIDE // GRID)
    skin = source.skin[:, None, None]
    change = torch.empty_like(own)
    for place, copied in enumerate(COPIED.values()):
        depth = (wanted[place, 0] / own[place, 0].clamp_min(0.05)).clamp(*copied.depth)
        # Red and yellow are multiplied, too: what is missing then is added.
        shift = wanted[place, 1:] + skin - depth * (own[place, 1:] + skin)
        change[place] = torch.stack([depth, shift[0].clamp(*copied.red), shift[1].clamp(*copied.yellow)])
        if min(float(one.there[place].sum()) for one in (source, reference)) < 8:
            change[place] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return change


def drawn_onto(source: Worn, look: Look, blush: Tensor) -> Tensor:
    """(P, 3, G, G), as of `copied_onto`: the middle of what a look leaves open.

    Args:
        source: The face.
        look: Which.
        blush: (112, 112) in [0, 1], where the look's blush goes, in the frame of the crop.
    """
    layers = LOOKS[look].layers

    def middle(part: Part) -> Tensor:
        layer = layers.get(part, Layer())
        return torch.tensor([sum(span) / 2 for span in (layer.depth, layer.red, layer.yellow)])[:, None, None]

    neutral = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    change = torch.stack([middle(part).expand(-1, GRID, GRID) for part in COPIED]).clone()
    cheeks = functional.avg_pool2d(blush[None], SIDE // GRID)
    change[list(COPIED).index("tone")] += cheeks * (middle("blush") - neutral)
    for place, (part, mask) in enumerate(zip(COPIED, source.there, strict=True)):
        # Lips that are red already get no more of it; see `Layer.most`.
        worn = (mask * source.colours[place, 1]).sum() / mask.sum().clamp_min(1e-6) + source.skin[0]
        room = (layers.get(part, Layer()).most - worn).clamp_min(0)
        change[place, 1] = change[place, 1].minimum(room)
    return change


def _corresponding(source: Tensor, reference: Tensor) -> Tensor:
    """(1, G, G, 2) where in the reference's crop each place of the source's is, as `grid_sample` wants it."""
    step = SIDE / GRID
    along = (torch.arange(GRID) + 0.5) * step - 0.5
    places = torch.stack(torch.meshgrid(along, along, indexing="xy"), -1).reshape(-1, 2)
    near = -(torch.cdist(places, source).square()) / (2 * _REACH**2)
    moved = places + near.softmax(1) @ (reference - source)
    return ((2 * moved + 1) / SIDE - 1).reshape(1, GRID, GRID, 2)


def reference_of(view: FaceView) -> Worn:
    """What the face of a reference photo wears.

    Raises:
        UsageError: when it cannot be seen: the photo is greyscale, the face tiny or turned away, eyes or lips covered.
    """
    if view.grey:
        raise _unfit("is greyscale: there are no colours to copy", "Give a colour photo.")
    if view.crop_pixel < _LEAST:
        raise _unfit("shows a face that is too small", "Give one whose eyes are 20 pixels apart or more.")
    regions = find_regions(view, made_up=True)
    points = torch.from_numpy(regions.points)
    front = "Give one that shows a face from the front, eyes open and nothing before it."
    if regions.found != "mesh":
        raise _unfit("shows a face in profile, or a covered one", front)
    halves = sorted(float((points[ear] - points[_NOSE]).square().sum().sqrt()) for ear in _EARS)
    if halves[1] > _TURNED * halves[0]:
        raise _unfit("shows a face that is turned away", front)
    covered = [part for part in regions.bare if part != "brows"]
    if "lids" not in covered and _shaded(view, regions):
        covered.append("lids")
    if covered:
        raise _unfit(f"does not show the {' and '.join(sorted(covered))} of the face", front)
    return worn(view, regions)


def _shaded(view: FaceView, regions: Regions) -> bool:
    """Whether there are dark glasses: below the eyes, where there is no shadow, it is much darker than on the skin."""
    maps = dict(zip(CHANNELS, regions.maps, strict=True))
    light = to_lab(view.pixels[None])[0, 0]
    below = (maps["eye"] > 1) & (maps["eye"] < 5) & (maps["orbit"] > 1) & (maps["brow"] > 4)
    skin = (maps["skin"] > 0.5) & (maps["lips"] > 1) & (maps["orbit"] > 6)
    return bool(below.any() and skin.any() and light[below].median() < _DARK * light[skin].median())


def _unfit(what: str, hint: str) -> UsageError:
    return UsageError(f"The photo given with --like {what}.", hint=hint)
