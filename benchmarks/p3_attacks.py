"""What whoever has some of a person's protected photos can do: recover the masks from pairs, average what they see.

    python benchmarks/p3_attacks.py DATA -o FILE.json

Of people of Pins who are in no other list (those of the recipe p3-mask) masks are fitted to the first ten photos.

- *pairs*: an attacker who knows the method and has 1, 3 or 10 photos both with and without their masks finds each mask
  by descent on the difference of the pictures, no network asked; and takes those that were found off other protected
  photos of the person, as the owner would, and keeps what leaves the least roughness. Matching is then asked of judges.
- *averaging*: an attacker who has 5 or 10 protected photos, and no original, compares the mean of their templates with
  a clean photo.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bauta.benchmark.engine.cards import code
from bauta.benchmark.photos.recipe import read_recipe
from bauta.cloaks.base import Work
from bauta.cloaks.p3_fitting import Canvas, unmasked
from bauta.cloaks.p3_mask import P3Mask
from bauta.cloaks.p3_settings import P3MaskConfig
from bauta.cloaks.view import FaceView, cut_view
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import retemplate_pixels
from bauta.learning.fitted import SECRET
from bauta.objectives.displacement import moved
from bauta.photo import read_photo
from bauta.recognizers import find_card, load_judge, load_surrogate, threshold
from bauta.recognizers.ensemble import Ensemble

STEPS = 150


def view(path: Path) -> FaceView:
    return cut_view(read_photo(path).pixels, ARCFACE_112.landmarks().astype(np.float32))[0]


def masked(canvas: Canvas, control: torch.Tensor, lightness: torch.Tensor, psnr: float) -> torch.Tensor:
    fields, light = canvas.spatial(control, lightness, psnr)
    return (moved(canvas.images, fields) + light).clamp(0, 1)


def recovered(before: FaceView, after: torch.Tensor, config: P3MaskConfig) -> dict[str, torch.Tensor]:
    """The mask of one pair, (1, 2, G, G) and (1, 1, 112, 112)."""
    canvas = Canvas([before])
    control = torch.zeros(1, 2, config.controls, config.controls, requires_grad=True)
    lightness = torch.zeros(1, 1, 112, 112, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": [control], "lr": 0.05}, {"params": [lightness], "lr": 0.002}])
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = (masked(canvas, control, lightness, 0.0) - after[None]).square().mean()
        (loss + 1e-4 * lightness.square().mean()).backward()
        optimiser.step()
    return {"control": control.detach(), "lightness": lightness.detach()}


def roughness(pixels: torch.Tensor) -> float:
    return float(pixels.diff(dim=1).abs().mean() + pixels.diff(dim=2).abs().mean())


def taken_off(shown: FaceView, parts: dict[str, torch.Tensor], config: P3MaskConfig) -> torch.Tensor:
    delta, back = unmasked(shown, config, parts, 0)
    assert back is not None
    return (moved(shown.pixels[None], back[None])[0] + delta).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--people", type=int, default=6)
    options = parser.parse_args()
    recipe = read_recipe("p3-mask")
    without = set(recipe.dataset.without)
    folders = [one for one in sorted((options.data / recipe.dataset.path).iterdir()) if one.is_dir()]
    folders = [one for one in folders if one.name not in without][: options.people]
    surrogates = [find_card(name) for name in recipe.surrogates]
    ensemble = Ensemble([load_surrogate(card) for card in surrogates])
    thresholds = {card.name: threshold(card, recipe.fmr).cosine for card in surrogates}
    judges = {
        name: (load_judge(find_card(name)), threshold(find_card(name), recipe.fmr).cosine) for name in recipe.judges
    }
    config = P3MaskConfig()
    generator = torch.Generator().manual_seed(recipe.seed)
    counts: dict[str, list[float]] = {}

    def matched(name: str, pictures: torch.Tensor, others: torch.Tensor, *, mean: bool = False) -> None:
        for judge, limit in judges.values():
            seen, known = (
                judge.embed(retemplate_pixels(np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()), judge.card.template))
                for x in (pictures, others)
            )
            if mean:
                seen = seen.mean(0, keepdims=True)
                seen /= np.linalg.norm(seen)
            counts.setdefault(name, []).append(float((seen @ known.T >= limit).mean()))

    for folder in folders:
        views = [view(path) for path in sorted(folder.glob("*.webp"))[:40]]
        mine, pairs, seen, clean = views[:10], views[10:20], views[20:30], views[30:40]
        fitted = P3Mask.fit(mine, config, Work(generator, ensemble, thresholds=thresholds))
        drawn = torch.randint(256, (32,), generator=generator, dtype=torch.uint8)
        fitted = replace(fitted, parts={**fitted.parts, SECRET: drawn})  # by the seed, so that figures can be had again
        shown = {}
        for name, group in (("pairs", pairs), ("seen", seen)):
            edits = P3Mask(config).edit(group, Work.seeded(0, fitted=(fitted,)))
            bared = [(moved(e.view.pixels[None], e.warp[None])[0] + e.delta).clamp(0, 1) for e in edits]  # type: ignore[index]
            shown[name] = [(255 * one).round() / 255 for one in bared]
        others = torch.stack([one.pixels for one in clean])
        matched("clean", torch.stack([one.pixels for one in seen]), others)
        matched("protected", torch.stack(shown["seen"]), others)
        found = [recovered(one, after, config) for one, after in zip(pairs, shown["pairs"], strict=True)]
        for count in (1, 3, 10):
            off = []
            for one, after in zip(seen, shown["seen"], strict=True):
                there = FaceView(after, one.landmarks, one.region, one.grey)
                tried = [taken_off(there, parts, config) for parts in found[:count]]
                off.append(min(tried, key=roughness))
            matched(f"after {count} pairs", torch.stack(off), others)
        for count in (5, 10):
            matched(f"mean of {count} templates", torch.stack(shown["seen"][:count]), others, mean=True)
            matched(
                f"mean of {count} clean templates", torch.stack([o.pixels for o in seen[:count]]), others, mean=True
            )
        print(folder.name, {name: round(float(np.mean(one)), 3) for name, one in counts.items()}, flush=True)
    figures = {name: round(100 * float(np.mean(one)), 1) for name, one in counts.items()}
    facts = {
        "people": [folder.name for folder in folders], "judges": list(judges), "fmr": recipe.fmr, "seed": recipe.seed,
        "settings": config.to_dict(), "code": code(), "matched_percent": figures,
    }  # fmt: skip
    options.output.write_text(json.dumps(facts, indent=1, default=list) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
