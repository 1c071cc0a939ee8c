"""What mechanisms of differential privacy store of a face, and what attackers draw of it: docs/images/budgets*.webp.

The face is the astronaut of scikit-image, in the public domain. In the first picture the bounds that projections are
clipped to come from changed copies of that very photo, so that no other person is in it: a deployment takes them from
other people. Eigenfaces of these copies would be her own face, so they are in the second picture alone. That is of
protectors and linear attackers that learned on the public people of `bauta bench budgets`: what it draws where little
is stored is their mean.

    python benchmarks/budget_pictures.py OUTPUT.webp
    python benchmarks/budget_pictures.py OUTPUT.webp --recovered DATA
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from bauta.benchmark.budgets.attackers import linear, seen
from bauta.benchmark.budgets.recipe import read_recipe
from bauta.benchmark.budgets.run import BudgetKind
from bauta.benchmark.engine.run import Job
from bauta.gallery import read_faces
from bauta.privacy.mechanisms import number
from bauta.recognizers.surrogates import load_surrogate
from bauta.registry import load_method
from bauta.templates.fit import FitWork
from bauta.templates.released.base import Released

ROWS: tuple[tuple[str, str, dict[str, Any], tuple[float, ...]], ...] = (
    ("dct-laplace", "128 frequencies", {}, (1, 8, 16, 1e5)),
    ("sliced-frequencies", "128 frequencies, bits", {}, (1, 8, 16, 1e5)),
    ("dp-pixels", "147 cells", {}, (1, 8, 16, 1e5)),
    ("flipped-bits", "37,632 pixels", {}, (1, 2, 8, 64)),
)
RECOVERED: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("peep", "128 eigenfaces", (1, 8, 1e5)),
    ("sliced-frequencies", "128 frequencies, bits", (1, 8, 1e5)),
    ("dp-pixels", "147 cells", (1, 8, 1e5)),
    ("turned-template", "512 numbers", (64, 512, 1e5)),
    ("flipped-bits", "37,632 pixels", (1, 8, 64)),
)
MANY = 16
SIDE, EDGE, HEAD = 112, 8, 30

Cell = tuple[str, str, Tensor]


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


def stored_rows(face: Tensor) -> list[list[Cell]]:
    """The photo, what is stored of it at several budgets, and the mean of many."""
    recognizer, public = load_surrogate("mobilefacenet"), copies(face)
    rows = []
    for name, what, settings, budgets in ROWS:
        kind = load_method(name, kind="protector")
        shown: list[Cell] = [("photo", what, face)]
        for epsilon in budgets:
            made = kind.fit_with(public, {**settings, "epsilon": epsilon}, FitWork(recognizer))
            stored = made.protect(face, torch.Generator().manual_seed(1))
            shown.append((f"epsilon {number(made.spent.image)}", f"{number(epsilon)} a value", made.to_image(stored)))
            if epsilon == budgets[1]:
                total = number(made.spent.person(MANY))
                many = (f"epsilon {total}", f"{MANY} releases, {epsilon:g} a value", averaged(made, face, MANY))
        rows.append([*shown, many])
    return rows


def recovered_rows(face: Tensor, data: Path) -> list[list[Cell]]:
    """The photo, and beside what is stored of it at several budgets what a linear attacker draws."""
    faces = BudgetKind().set_up(read_recipe("budgets"), Job(Path("out/budget-pictures"), data)).faces
    recognizer, rows = load_surrogate("mobilefacenet"), []
    for name, what, budgets in RECOVERED:
        kind = load_method(name, kind="protector")
        shown: list[Cell] = [("photo", what, face)]
        for epsilon in budgets:
            work = FitWork(recognizer, 0, people=faces.public_people, data="cfp")
            made = kind.fit_with(faces.public, {"epsilon": epsilon}, work)
            generator = torch.Generator().manual_seed(1)
            stored = made.protect(face, generator)
            drawn = linear(made, faces, seen(stored.values())[None].numpy(), 1, generator).pictures
            shown.append((f"epsilon {number(made.spent.image)}", "stored", made.to_image(stored)))
            shown.append(("", "drawn of it", drawn))
        rows.append(shown)
    return rows


def sheet_of(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """All cells with their words."""
    step = SIDE + EDGE
    sheet = Image.new("RGB", (len(rows[0]) * step + EDGE, len(rows) * (SIDE + HEAD) + EDGE), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, cells in enumerate(rows):
        for column, (first, second, picture) in enumerate(cells):
            left, top = EDGE + column * step, EDGE + row * (SIDE + HEAD)
            pen.text((left, top), first, "black", font)
            pen.text((left, top + 12), second, "black", font)
            large = functional.interpolate(picture, (SIDE, SIDE), mode="nearest")
            pixels = (large[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            sheet.paste(Image.fromarray(pixels), (left, top + HEAD - 4))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--recovered", type=Path, metavar="DATA", help="the other picture; the folder of cfp_112")
    options = parser.parse_args()
    torch.set_num_threads(1)
    Image.fromarray(skimage.data.astronaut()).save(photo := options.output.with_suffix(".png"))
    face = read_faces([photo])
    photo.unlink()
    rows = recovered_rows(face, options.recovered) if options.recovered else stored_rows(face)
    sheet_of(rows).save(options.output, quality=80, method=6)


if __name__ == "__main__":
    main()
