"""What mechanisms of differential privacy store of a face, by total epsilon: docs/images/budgets.webp.

The face is the astronaut of scikit-image, in the public domain. The bounds that projections are clipped to come from
changed copies of that very photo, so that no other person is in the picture: a deployment takes them from other people.

    python benchmarks/budget_pictures.py OUTPUT.webp
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from bauta.gallery import read_faces
from bauta.privacy.mechanisms import number
from bauta.recognizers.surrogates import load_surrogate
from bauta.registry import load_method
from bauta.templates.fit import FitWork
from bauta.templates.released.base import Released

ROWS: tuple[tuple[str, str, dict[str, Any], tuple[float, ...]], ...] = (
    ("dct-laplace", "128 frequencies", {}, (1, 8, 16, 1e5)),
    ("dp-pixels", "147 cells", {}, (1, 8, 16, 1e5)),
    ("flipped-bits", "37,632 pixels", {}, (1, 2, 8, 64)),
)
MANY = 16
SIDE, EDGE, HEAD = 112, 8, 30


def copies(face: Tensor, count: int = 200) -> Tensor:
    """The face moved, turned, and with other light."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        turn, size = random.normal(0, 0.1), random.normal(1, 0.08)
        move = random.normal(0, 0.08, 2)
        grid = torch.tensor(
            [[size * np.cos(turn), -np.sin(turn), move[0]], [np.sin(turn), size * np.cos(turn), move[1]]]
        )
        places = functional.affine_grid(grid[None].float(), [1, 3, SIDE, SIDE], align_corners=False)
        moved = functional.grid_sample(face, places, padding_mode="reflection", align_corners=False)
        found.append((moved * random.normal(1, 0.2) + random.normal(0, 0.1)).clamp(0, 1))
    return torch.cat(found)


def averaged(protector: Released, face: Tensor, count: int) -> Tensor:
    """The picture that so many releases give together; neighbouring pixels are averaged too, where there are pixels."""
    generator = torch.Generator().manual_seed(3)
    stored = protector.protect(face.expand(count, -1, -1, -1), generator)
    values = stored.values().mean(0, keepdim=True)
    if stored.kind == "image":
        values = functional.interpolate(functional.avg_pool2d(values, 4), (SIDE, SIDE), mode="bicubic")
        return stretched(values)
    return protector.to_image(protector.represent(values))


def stretched(picture: Tensor) -> Tensor:
    """With the contrast that noise took."""
    low, high = picture.quantile(0.01), picture.quantile(0.99)
    return ((picture - low) / (high - low)).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    Image.fromarray(skimage.data.astronaut()).save(photo := options.output.with_suffix(".png"))
    face = read_faces([photo])
    photo.unlink()
    recognizer, public = load_surrogate("mobilefacenet"), copies(face)
    columns = 2 + len(ROWS[0][3])
    step = SIDE + EDGE
    sheet = Image.new("RGB", (columns * step + EDGE, len(ROWS) * (SIDE + HEAD) + EDGE), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, (name, what, settings, budgets) in enumerate(ROWS):
        kind = load_method(name, kind="protector")
        shown = [("photo", what, face)]
        for epsilon in budgets:
            made = kind.fit_with(public, {**settings, "epsilon": epsilon}, FitWork(recognizer))
            stored = made.protect(face, torch.Generator().manual_seed(1))
            shown.append((f"epsilon {number(made.spent.image)}", f"{number(epsilon)} a value", made.to_image(stored)))
            if epsilon == budgets[1]:
                total = number(made.spent.person(MANY))
                many = (f"epsilon {total}", f"{MANY} releases, {epsilon:g} a value", averaged(made, face, MANY))
        for column, (first, second, picture) in enumerate([*shown, many]):
            left, top = EDGE + column * step, EDGE + row * (SIDE + HEAD)
            pen.text((left, top), first, "black", font)
            pen.text((left, top + 12), second, "black", font)
            pixels = (picture[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            sheet.paste(Image.fromarray(pixels), (left, top + HEAD - 4))
    sheet.save(options.output, quality=80, method=6)


if __name__ == "__main__":
    main()
