"""Train the denoiser of `bauta.attacks.purify`: `python benchmarks/train_denoiser.py DATA`.

Reads DATA/lfw_rest_112 and DATA/pins105_112 without anybody in LFW's pairs or in CFP, and writes `denoiser.safetensors`
and `denoiser.json` into the package. Noise and blur are drawn at random: no recogniser has a part in it, and no mask.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from bauta.attacks.cards import AttackerCard
from bauta.attacks.purify import Denoiser
from bauta.benchmark.adaptive.recipe import read_recipe
from bauta.benchmark.crop_sets import Source, draw_crop_set
from bauta.data.people import names_of_list, names_of_pairs
from bauta.files import write_atomically
from bauta.learning.fitting import FitConfig, fit
from bauta.objectives.transports import gaussian_blur
from bauta.registry import METHODS

PATCH = 48
SOURCES = (Source("lfw_rest_112", each=2), Source("pins105_112", each=20))
OUTPUT = Path(__file__).resolve().parent.parent / "src" / "bauta" / "attacks"


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def spoil(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of deviation up to 20/255 on every patch, smooth in half of the batches; a quarter is blurred too."""
    noise = torch.randn(patches.shape, generator=generator)
    if float(torch.rand((), generator=generator)) < 0.5:
        noise = gaussian_blur(noise, float(uniform(generator, 0.4, 2.5)))
        noise = noise / noise.std((1, 2, 3), keepdim=True)
    if float(torch.rand((), generator=generator)) < 0.25:
        patches = gaussian_blur(patches, float(uniform(generator, 0.3, 1.0)))
    level = uniform(generator, 0, 20 / 255, len(patches), 1, 1, 1)
    return ((patches + level * noise).clamp(0, 1) * 255).round() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    excluded = names_of_pairs(options.data / "lfw_112/pairs.txt")
    excluded |= names_of_list(options.data / "cfp_112/list_name.txt")
    excluded |= set(read_recipe("lfw").exclude_people)  # in these lists under another spelling
    crowd = draw_crop_set(options.data, SOURCES, excluded, options.seed)
    photos = torch.from_numpy(crowd.pixels()).permute(0, 3, 1, 2).contiguous()
    generator = torch.Generator().manual_seed(options.seed)
    torch.manual_seed(options.seed)
    network = Denoiser()

    def loss(index: Tensor) -> Tensor:
        top, left = torch.randint(112 - PATCH + 1, (2,), generator=generator).tolist()
        patches = photos[index][..., top : top + PATCH, left : left + PATCH].float() / 255
        if float(torch.rand((), generator=generator)) < 0.5:
            patches = patches.flip(3)
        return (network(spoil(patches, generator)) - patches).abs().mean()

    config = FitConfig(epochs=options.epochs, rate=2e-3, batch=16, decay=0.0)
    began = time.monotonic()

    def progress(done: int, steps: int) -> None:
        if done % 200 == 0:
            print(f"{done} of {steps}, {time.monotonic() - began:.0f} s", flush=True)

    done = fit(network, list(network.parameters()), loss, len(photos), config, generator, progress)
    content = safetensors.torch.save({name: value.half() for name, value in network.state_dict().items()})
    attacker = AttackerCard(
        name="purify-denoiser", knowledge="nothing", adaptive=False, paper=METHODS["purify-denoiser"].paper,
        ours="sizes, noise and blur, training data", data=crowd.name, data_sha256=crowd.sha256, people=crowd.people,
        images=len(photos), epochs=len(done.losses), rate=config.rate, batch=config.batch, seed=options.seed,
        stopped=done.stopped,
    )  # fmt: skip
    card = {
        "attacker": attacker.to_dict(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "weights": sum(value.numel() for value in network.state_dict().values()),
        "loss": [round(value, 5) for value in done.losses],
        "made_by": "benchmarks/train_denoiser.py",
        "licence": "Apache-2.0",
    }
    write_atomically(OUTPUT / "denoiser.safetensors", content, overwrite=True)
    write_atomically(OUTPUT / "denoiser.json", (json.dumps(card, indent=1) + "\n").encode(), overwrite=True)
    print(card["loss"][-1], f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
