"""Whether makeup looks like makeup: a ruler for edits that change colours on purpose.

`bauta.judging.visibility` counts every colour as a fault. Here colours may change, on lips, lids and cheeks, as far as
makeup goes; what counts is whether they leave what makeup can be, whether anything changes elsewhere, and whether the
face's structure stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bauta.cloaks.base import Edit
from bauta.cloaks.makeup_regions import CHANNELS, find_regions
from bauta.judging.visibility import ciede2000, to_lab
from bauta.objectives.displacement import moved
from bauta.objectives.visibility import ssim_map

# Colours that parts of a made-up face have: hue in degrees, from and to, and greatest chroma, of CIELAB. Lips may be
# plum to coral, skin rosy to olive. Below `_GREY` a hue says nothing.
_GAMUT: dict[str, tuple[float, float, float]] = {"lips": (-45, 75, 70), "lids": (-70, 100, 55), "skin": (-15, 100, 65)}
_GREY = 6.0


@dataclass(frozen=True)
class Naturalness:
    """What makeup did to one face, the movement of the edit undone.

    Attributes:
        lips: Mean colour difference on the lips, CIEDE2000; NaN where the view shows none.
        lids: The same between eyes and brows.
        skin: The same on the skin beside them.
        strange: Share of these pixels that had a colour of faces, or of makeup, and have none any more.
        elsewhere: Mean colour difference outside the face, CIEDE2000.
        structure: SSIM of lightness on the face outside lips and lids.
        edges: Correlation of the lightness' gradients there.
    """

    lips: float
    lids: float
    skin: float
    strange: float
    elsewhere: float
    structure: float
    edges: float


def measure_makeup(edit: Edit) -> Naturalness:
    """What an edit did to the face of its view, as the view shows it."""
    view = edit.view
    images = view.pixels[None]
    before = images if edit.warp is None else moved(images, edit.warp[None]).clamp(0, 1)
    after = (before + edit.delta[None]).clamp(0, 1)
    maps = dict(zip(CHANNELS, find_regions(view).maps.numpy(), strict=True))
    parts = {
        "lips": (maps["lips"] < 0) & (maps["lips_gate"] > 0.5),
        "lids": (maps["orbit"] < 0) & (maps["eye"] > 0.5) & (maps["lid_gate"] > 0.5),
        "skin": (maps["skin"] > 0.5) & (maps["lips"] > 1) & (maps["orbit"] > 1),
    }
    labs = [to_lab(one[0].permute(1, 2, 0).numpy()) for one in (before, after)]
    away = ciede2000(*labs)
    strange = [(_plausible(labs[0], name) & ~_plausible(labs[1], name))[part] for name, part in parts.items()]
    left = np.concatenate(strange)
    outside = (maps["shade"] < 0.01) & (maps["eye"] > 1) & (maps["lips"] > 2) & (maps["brow"] > 2)
    grey = [one.mean(1, keepdim=True) for one in (before, after)]
    same = ssim_map(*grey)[0, 0].numpy()
    across, down = (np.stack([np.gradient(one[0, 0].numpy())[axis] for one in grey]) for axis in (0, 1))
    there = parts["skin"]
    return Naturalness(
        **{name: _mean(away, part) for name, part in parts.items()},
        strange=float(left.mean()) if left.size else 0.0,
        elsewhere=_mean(away, outside),
        structure=_mean(same, there),
        edges=_correlation(
            np.concatenate([across[0][there], down[0][there]]), np.concatenate([across[1][there], down[1][there]])
        ),
    )


def _mean(values: NDArray[np.floating], where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else float("nan")


def _correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if one.size > 1 and one.std() * other.std() > 0 else float("nan")


def _plausible(lab: NDArray[np.float64], part: str) -> NDArray[np.bool_]:
    first, last, most = _GAMUT[part]
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1]))
    return np.asarray((chroma < _GREY) | ((hue >= first) & (hue <= last) & (chroma <= most)))
