"""TIP-IM: the faithful presets against a literal loop, and what the default adds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bauta.cloaks.base import Edit, Work
from bauta.cloaks.targets import composite_faces
from bauta.cloaks.tip_im import TipIm
from bauta.cloaks.tip_im_objective import Identity
from bauta.cloaks.tip_im_settings import TipImConfig
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure, UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.objectives.descent import Pixels, Step, descend
from bauta.recognizers.ensemble import Ensemble
from conftest import toy_surrogate, toy_view

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from reference_tip_im import reference_tip_im


def edits(config, views, networks=None, *, seed=0, targets=None, **rest) -> list[Edit]:
    ensemble = Ensemble(networks or [toy_surrogate()])
    return TipIm(config, targets=targets).edit(views, Work.seeded(seed, ensemble, **rest))


def mask(config, view=None, networks=None, **rest) -> Edit:
    return edits(config, [view or toy_view()], networks, **rest)[0]


def crop_view(seed: int) -> FaceView:
    """A view that is exactly the crop, with no feather, in double precision: the setting of the official code."""
    view = toy_view(seed)
    landmarks = torch.tensor(ARCFACE_112.points, dtype=torch.float64)
    return FaceView(view.pixels.double(), landmarks, torch.ones_like(view.region).double())


def quick(**changes) -> TipImConfig:
    return TipImConfig(iterations=6, **changes)


def test_budgets_hold():
    view = toy_view(4)
    edit = mask(quick(epsilon=5.0, psnr=38.0), view)
    assert edit.delta.abs().max() * 255 <= 5 + 1e-3
    area = float(view.region.sum()) * 3
    rms = float((edit.delta.square().sum() / area).sqrt()) * 255
    assert rms <= 255 * 10 ** (-38 / 20) + 1e-3


def test_another_seed_gives_another_mask():
    assert not torch.equal(mask(quick(), seed=7).delta, mask(quick(), seed=8).delta)


def test_a_face_does_not_depend_on_its_batch():
    views = [toy_view(seed) for seed in (1, 2, 3)]
    assert torch.allclose(edits(quick(), views)[1].delta, edits(quick(), views[1:2])[0].delta, atol=1e-4)


def test_a_face_does_not_depend_on_larger_ones_beside_it():
    small, large = toy_view(1), toy_view(2, size=336)
    together, alone = edits(quick(), [small, large])[0], mask(quick(), small)
    # Not bit by bit: beside a larger one the picture ends elsewhere, and blurs see its border.
    assert float(torch.cosine_similarity(together.delta.flatten(), alone.delta.flatten(), 0)) > 0.95


def test_similarity_goes_down():
    view, network = toy_view(7), toy_surrogate(1)
    edit = mask(quick(transports=False, movement=(0.0, 0.0)), view, [network])
    before, after = network(torch.stack([view.pixels, view.pixels + edit.delta]))
    assert float(before @ after) < 0.9


def test_the_region_is_all_that_changes():
    view = toy_view(3)
    region = view.region.clone()
    region[:, :40] = 0
    edit = mask(quick(), FaceView(view.pixels, view.landmarks, region))
    assert edit.delta[:, :40].abs().max() == 0
    assert edit.delta[:, 41:].abs().max() > 0


def test_no_face_or_nobody_to_attack_is_refused():
    with pytest.raises(UsageError, match="one face"):
        edits(quick(), [])
    with pytest.raises(UsageError, match="no recogniser to attack"):
        TipIm(quick()).edit([toy_view()], Work.seeded(0))
    with pytest.raises(UsageError, match="no recogniser to attack"):
        Ensemble([])


def test_a_strength_is_a_floor_of_psnr_and_ssim_unless_one_is_given():
    assert TipIm.configured({}, strength="medium") == TipImConfig()
    low, high = (TipIm.configured({}, strength=strength) for strength in ("low", "high"))
    assert (low.psnr, low.ssim, high.psnr, high.ssim) == (35.5, 0.973, 31.0, 0.93)
    chosen = TipIm.configured({"psnr": 40.0}, strength="low")
    assert (chosen.psnr, chosen.ssim) == (40.0, None)
    assert TipIm.configured({"psnr": 40.0}).ssim == TipImConfig().ssim  # without a strength nothing else changes
    assert TipIm.configured({"preset": "paper"}, strength="low") == TipImConfig.paper()
    assert TipIm.configured({"movement": [0.0, 0.1]}).movement == (0.0, 0.1)


@pytest.mark.parametrize(("preset", "norm"), [("paper", "linf"), ("official_code", "l2")])
def test_faithful_presets_equal_the_literal_loop(preset, norm):
    network, view = toy_surrogate(3).double(), crop_view(1)
    targets = torch.stack([toy_view(seed).pixels for seed in range(10, 16)]).double()
    config = getattr(TipImConfig, preset)(iterations=8)
    edit = mask(config, view, [network], seed=5, targets=targets)
    expected = reference_tip_im(
        view.pixels, targets, network, torch.Generator().manual_seed(5), iterations=8, norm=norm
    )
    assert (edit.delta - expected).abs().max() < 1e-4


def test_pruning_tries_fewer_targets_for_about_the_same_gain():
    network, view = toy_surrogate(3), toy_view(1)
    targets = torch.stack([toy_view(seed).pixels for seed in range(10, 20)])
    tried, gains = {}, {}
    for pruning in (None, TipImConfig().pruning):
        counts = tried[pruning] = []

        class Counting(Identity):
            def gradients(self, values, counts=counts):
                counts.append(len(self.loss.tried))
                return super().gradients(values)

        config, ensemble = TipImConfig.official_code(iterations=30, pruning=pruning), Ensemble([network])
        work = Work.seeded(5, ensemble)
        problem = Counting([view], view.pixels[None], view.region[None], ensemble, targets, config, work)
        step = Step("l2", 1.5 * 12 / 30 / 255, 1.0, 12 / 255)
        run = descend(problem, [Pixels(view.pixels[None], view.region[None], step)], 30)
        gains[pruning] = float(problem._terms(view.pixels[None] + run.values[0]).max().exp().log1p())
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
    edit = mask(config, view, [network], targets=targets)
    wanted = network(targets)
    before, after = ((network(image[None]) @ wanted.T).max() for image in (view.pixels, view.pixels + edit.delta))
    assert after > before + 0.05


@pytest.mark.parametrize("gain", ["gain1", "gain2", "gain3"])
def test_every_gain_runs(gain):
    targets = torch.stack([toy_view(seed).pixels for seed in (20, 21)])
    config = TipImConfig.paper(iterations=3, gain=gain)
    edit = mask(config, targets=targets)
    assert edit.delta.abs().max() > 0


def test_mmd_keeps_the_mask_smaller():
    targets = torch.stack([toy_view(seed).pixels for seed in (20, 21)])
    norms = []
    for gamma in (0.0, 50.0):
        config = TipImConfig.official_code(iterations=10, gamma=gamma)
        edit = mask(config, targets=targets)
        norms.append(float(edit.delta.norm()))
    assert norms[1] < norms[0]


def test_the_ssim_floor_is_held():
    from bauta.objectives.visibility import ssim_map

    view, reached = toy_view(3), []
    for floor in (None, 0.97):
        config = TipImConfig(psnr=30.0, ssim=floor, transports=False)
        edit = mask(config, view)
        inside = view.region > 0
        reached.append(float(ssim_map((view.pixels + edit.delta)[None], view.pixels[None])[0][inside].mean()))
    assert reached[0] < 0.965
    assert reached[1] > 0.966


def test_early_stop_when_every_surrogate_is_fooled():
    network = toy_surrogate(1)
    config = TipImConfig(iterations=60, margin=0.0, transports=False)
    edit = mask(config, networks=[network], thresholds={"toy": 0.95})
    assert edit.facts["stopped"] == "converged"
    assert edit.facts["iterations"] < 60
    view = toy_view()
    first, second = network(torch.stack([view.pixels, view.pixels + edit.delta]))
    assert float(first @ second) < 0.95


def test_a_surrogate_without_threshold_never_stops_early():
    config = TipImConfig(iterations=12, margin=0.0)
    edit = mask(config)
    assert (edit.facts["stopped"], edit.facts["iterations"]) == ("iterations", 12)


def test_progress_counts_to_the_end():
    seen = []
    mask(TipImConfig(iterations=3), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_texture_weighting_moves_the_mask_into_texture():
    view = toy_view(8)
    flat = view.pixels.clone()
    flat[:, :, :56] = 0.5
    view = FaceView(flat, view.landmarks, view.region)
    share = []
    for texture in (0.0, 2.0):
        config = TipImConfig(iterations=8, texture=texture)
        edit = mask(config, view)
        energy = edit.delta.square()
        share.append(float(energy[:, :, :50].sum() / energy.sum()))
    assert share[1] < share[0]


def test_nan_in_a_surrogate_is_named():
    network = toy_surrogate()
    network.network[0].weight.data.fill_(float("nan"))
    with pytest.raises(NumericalFailure, match="toy"):
        mask(TipImConfig(iterations=2), networks=[network])


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
