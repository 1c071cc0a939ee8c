"""How much longer AdvFace takes than the network passes that it cannot do without.

The bound is the time of T forward and backward passes of the shadow decoders, measured alone, and, in the second ratio,
of the passes of the recogniser's back that the identity term asks for as well. Both are measured in one run, in turns,
so that a busy machine slows both; the median of the rounds' ratios counts. Time is the process's own, of all threads,
or with --clock what passes on the wall, which says more of several threads on a quiet machine.
Decoders are untrained: speed does not see that.

    python benchmarks/advface_speed.py mobilefacenet --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bauta.learning.decoders import SIDE, start_decoder
from bauta.recognizers.splits import split_recognizer
from bauta.recognizers.surrogates import load_surrogate
from bauta.templates.advface.protector import AdvFace, ChannelStatistics
from bauta.templates.advface.settings import AdvFaceConfig
from bauta.templates.advface.shadows import Shadow
from figures import keep


def protector_of(recognizer: str, split: str, preset: str, shadows: list[str]) -> AdvFace:
    """AdvFace with decoders of random weights."""
    surrogate = load_surrogate(recognizer)
    front, _ = split_recognizer(surrogate, split)
    settings = {"split": split, **({"shadows": shadows} if shadows else {})}
    config = AdvFaceConfig.of(settings, preset)
    values = torch.rand(4, *front.cut.shape, generator=torch.Generator().manual_seed(0))
    decoders = []
    for number, text in enumerate(config.shadows):
        shadow = Shadow.parse(text)
        face = torch.full((3, SIDE, SIDE), 0.5)
        decoders.append(start_decoder(shadow.decoder, values, face, shadow.channels, number).eval())
    return AdvFace(surrogate, config, decoders, ChannelStatistics.of(values))


def passes(networks: Sequence[Callable[[Tensor], Tensor]], values: Tensor, count: int) -> Callable[[], None]:
    """What goes forward, and backward from a gradient to the input, through each network in turn, `count` times."""
    variable = values.clone().requires_grad_()
    with torch.no_grad():
        gradients = [torch.randn_like(network(values)) for network in networks]

    def run() -> None:
        for _ in range(count):
            for network, gradient in zip(networks, gradients, strict=True):
                torch.autograd.grad(network(variable), variable, gradient)

    return run


def seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    function()
    return clock() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recognizer")
    parser.add_argument("--split", default=AdvFaceConfig.split)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--shadows", nargs="*", default=[])
    parser.add_argument("--faces", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    protector = protector_of(options.recognizer, options.split, options.preset, options.shadows)
    config = protector.config
    images = torch.rand(options.faces, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = protector.front(protector.crops(images))
    work = {
        "protect": lambda: protector.protect(images, torch.Generator().manual_seed(0)),
        "shadow passes": passes(protector.shadows, features, config.iterations),
        "back passes": passes([protector.back], features, len(config.looks)),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.rounds + 1):
        for name, function in work.items():
            times[name].append(seconds(function, time.perf_counter if options.clock else time.process_time))
    rounds = {name: found[1:] for name, found in times.items()}  # the first plans graphs
    ratios = [
        (whole / shadow, whole / (shadow + back))
        for whole, shadow, back in zip(*(rounds[name] for name in work), strict=True)
    ]
    bare, full = (statistics.median(values) for values in zip(*ratios, strict=True))
    figures = {
        "recognizer": options.recognizer,
        "settings": config.to_dict(),
        "faces": options.faces,
        "threads": options.threads,
        "time": "wall" if options.clock else "processor",
        **{
            f"{name.replace(' ', '_')}_ms": round(1000 * statistics.median(found) / options.faces, 1)
            for name, found in rounds.items()
        },
        "ratio_to_shadow_passes": round(bare, 3),
        "ratio_to_all_passes": round(full, 3),
    }
    keep(figures, options.output)


if __name__ == "__main__":
    main()
