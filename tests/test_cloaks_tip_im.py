"""TIP-IM: the faithful presets against a literal loop, and what the default adds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bauta.cloaks.targets import composite_faces
from bauta.cloaks.tip_im import TipIm, TipImConfig, _Identity
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure, UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.objectives.descent import Step, projected_momentum
from conftest import toy_surrogate, toy_view

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from reference_tip_im import reference_tip_im


def crop_view(seed: int) -> FaceView:
    """A view that is exactly the crop, with no feather, in double precision: the setting of the official code."""
    view = toy_view(seed)
    landmarks = torch.tensor(ARCFACE_112.points, dtype=torch.float64)
    return FaceView(view.pixels.double(), landmarks, torch.ones_like(view.region).double())


@pytest.mark.parametrize(("preset", "norm"), [("paper", "linf"), ("official_code", "l2")])
def test_faithful_presets_equal_the_literal_loop(preset, norm):
    network, view = toy_surrogate(3).double(), crop_view(1)
    targets = torch.stack([toy_view(seed).pixels for seed in range(10, 16)]).double()
    config = getattr(TipImConfig, preset)(iterations=8)
    (mask,) = TipIm(config, targets=targets).perturb([view], [network], torch.Generator().manual_seed(5))
    expected = reference_tip_im(
        view.pixels, targets, network, torch.Generator().manual_seed(5), iterations=8, norm=norm
    )
    assert (mask.delta - expected).abs().max() < 1e-4


def test_pruning_tries_fewer_targets_for_about_the_same_gain():
    network, view = toy_surrogate(3), toy_view(1)
    targets = torch.stack([toy_view(seed).pixels for seed in range(10, 20)])
    tried, gains = {}, {}
    for pruning in (None, TipImConfig().pruning):
        counts = tried[pruning] = []

        class Counting(_Identity):
            def gradients(self, delta, counts=counts):
                counts.append(len(self.tried))
                return super().gradients(delta)

        generator = torch.Generator().manual_seed(5)
        config = TipImConfig.official_code(iterations=30, pruning=pruning)
        problem = Counting([view], view.pixels[None], view.region[None], [network], targets, config, {}, generator)
        step = Step("l2", 1.5 * 12 / 30 / 255, 1.0, 12 / 255)
        run = projected_momentum(problem, view.pixels[None], view.region[None], step, 30)
        gains[pruning] = float(problem._terms(view.pixels[None] + run.delta).max().exp().log1p())
    assert tried[None] == [10] * 30
    assert sum(tried[TipImConfig().pruning]) < 150
    assert gains[TipImConfig().pruning] > 0.85 * gains[None]  # loosely: on a random network luck decides more


def test_presets_differ_as_the_sheet_says():
    paper, code = TipImConfig.paper(), TipImConfig.official_code()
    assert (paper.iterations, paper.norm) == (50, "linf")
    assert (code.iterations, code.norm) == (100, "l2")
    for preset in (paper, code):
        assert (preset.epsilon, preset.step, preset.decay, preset.gamma, preset.targets) == (
            12,
            1.5,
            1,
            0,
            10,
        )
        assert preset.greedy
        assert preset.gain == "gain3"


@pytest.mark.parametrize("mode", ["impersonate", "combined"])
@pytest.mark.parametrize("greedy", [False, True])
def test_targets_are_approached(mode, greedy):
    network, view = toy_surrogate(4), toy_view(2)
    targets = torch.stack([toy_view(seed).pixels for seed in (20, 21, 22)])
    config = TipImConfig(mode=mode, iterations=12, greedy=greedy, transports=False, movement=(0.0, 0.0))
    (mask,) = TipIm(config, targets=targets).perturb([view], [network], torch.Generator().manual_seed(0))
    wanted = network(targets)
    before, after = ((network(image[None]) @ wanted.T).max() for image in (view.pixels, view.pixels + mask.delta))
    assert after > before + 0.05


@pytest.mark.parametrize("gain", ["gain1", "gain2", "gain3"])
def test_every_gain_runs(gain):
    targets = torch.stack([toy_view(seed).pixels for seed in (20, 21)])
    config = TipImConfig.paper(iterations=3, gain=gain)
    (mask,) = TipIm(config, targets=targets).perturb([toy_view()], [toy_surrogate()], torch.Generator())
    assert mask.delta.abs().max() > 0


def test_mmd_keeps_the_mask_smaller():
    targets = torch.stack([toy_view(seed).pixels for seed in (20, 21)])
    norms = []
    for gamma in (0.0, 50.0):
        config = TipImConfig.official_code(iterations=10, gamma=gamma)
        (mask,) = TipIm(config, targets=targets).perturb(
            [toy_view()], [toy_surrogate()], torch.Generator().manual_seed(0)
        )
        norms.append(float(mask.delta.norm()))
    assert norms[1] < norms[0]


def test_the_ssim_floor_is_held():
    from bauta.objectives.visibility import ssim_map

    view, reached = toy_view(3), []
    for floor in (None, 0.97):
        config = TipImConfig(psnr=30.0, ssim=floor, transports=False)
        (mask,) = TipIm(config).perturb([view], [toy_surrogate()], torch.Generator().manual_seed(0))
        inside = view.region > 0
        reached.append(float(ssim_map((view.pixels + mask.delta)[None], view.pixels[None])[0][inside].mean()))
    assert reached[0] < 0.965
    assert reached[1] > 0.966


def test_early_stop_when_every_surrogate_is_fooled():
    network = toy_surrogate(1)
    config = TipImConfig(iterations=60, margin=0.0, transports=False)
    (mask,) = TipIm(config, thresholds={"toy": 0.95}).perturb([toy_view()], [network], torch.Generator())
    assert mask.stopped == "converged"
    assert mask.iterations < 60
    view = toy_view()
    first, second = network(torch.stack([view.pixels, view.pixels + mask.delta]))
    assert float(first @ second) < 0.95


def test_a_surrogate_without_threshold_never_stops_early():
    config = TipImConfig(iterations=12, margin=0.0)
    (mask,) = TipIm(config).perturb([toy_view()], [toy_surrogate()], torch.Generator())
    assert (mask.stopped, mask.iterations) == ("iterations", 12)


def test_progress_counts_to_the_end():
    seen = []
    TipIm(TipImConfig(iterations=3)).perturb(
        [toy_view()],
        [toy_surrogate()],
        torch.Generator(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_texture_weighting_moves_the_mask_into_texture():
    view = toy_view(8)
    flat = view.pixels.clone()
    flat[:, :, :56] = 0.5
    view = FaceView(flat, view.landmarks, view.region)
    share = []
    for texture in (0.0, 2.0):
        config = TipImConfig(iterations=8, texture=texture)
        (mask,) = TipIm(config).perturb([view], [toy_surrogate()], torch.Generator().manual_seed(0))
        energy = mask.delta.square()
        share.append(float(energy[:, :, :50].sum() / energy.sum()))
    assert share[1] < share[0]


def test_nan_in_a_surrogate_is_named():
    network = toy_surrogate()
    network.network[0].weight.data.fill_(float("nan"))
    with pytest.raises(NumericalFailure, match="toy"):
        TipIm(TipImConfig(iterations=2)).perturb([toy_view()], [network], torch.Generator())


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "hide"}, {"iterations": 0}, {"epsilon": 0}, {"epsilon": 300}, {"psnr": 5.0}, {"norm": "l1"},
        {"ssim": 1.5},
        {"step": -1.0}, {"decay": 2.0}, {"targets": 0}, {"gain": "gain4"}, {"gamma": -1.0}, {"movement": (0.2, 0.1)},
        {"smoothing": -1.0}, {"texture": 9.0}, {"margin": 2.0}, {"greedy": True, "mode": "dodge"},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        TipImConfig(**changes)


def test_composites_are_faces_of_the_right_form():
    faces = composite_faces()
    assert faces.shape[0] >= 16
    assert faces.shape[1:] == (3, 112, 112)
    assert 0 <= faces.min() < faces.max() <= 1
    flat = faces.flatten(1)
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 1  # distinct
