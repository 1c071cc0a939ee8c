"""TIP-IM: targeted identity-protection iterative method (Yang et al., ICCV 2021), faithful and then further.

What is the paper's or the official code's, reached by `TipImConfig.paper()` and `TipImConfig.official_code()`:
the identity loss (equation 2), momentum and the two step rules (equation 5), the greedy choice among K targets
at every iteration with its three gains (Algorithm 1, equation 7, and the ablation), the MMD term (equations 3
and 4), the random affine input diversity, one surrogate.

What is ours, and the default: an ensemble of surrogates, cosine losses, a mask at photo resolution behind the
alignment warp, random transports between photo and recogniser, gradients smoothed and weighted by
a just-noticeable-difference map, a PSNR floor as the budget instead of the box alone, dodging and combined
modes, early stopping. And for both: one forward pass and K vector-Jacobian products where the official code
runs K forward and K backward passes. It works because the embedding gradient of the loss for target k is
2 (e0 - t_k), known before the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from bauta.cloaks.targets import composite_faces
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure, UsageError
from bauta.faces.alignment import similarity_matrix
from bauta.faces.crop_template import ARCFACE_112, CropTemplate
from bauta.faces.warp import compose, warp
from bauta.objectives.descent import Progress, Step, projected_momentum
from bauta.objectives.mmd import mmd
from bauta.objectives.transports import draw_movement, draw_transport, gaussian_blur, jpeg, resize
from bauta.objectives.visibility import just_noticeable, ssim_map
from bauta.recognizers import Surrogate
from bauta.registry import register

Mode = Literal["dodge", "impersonate", "combined"]
Gain = Literal["gain1", "gain2", "gain3"]


@dataclass(frozen=True)
class TipImConfig:
    """Settings of TIP-IM; the defaults are Bauta's, see `paper` and `official_code` for the others.

    Attributes:
        mode: ``dodge`` moves away from the person, ``impersonate`` towards the best of the targets, ``combined``
            does both (the paper's loss).
        iterations: Upper bound N.
        epsilon: Box around the photo, in 1/255.
        psnr: Floor of the PSNR over the face region, in dB; None leaves the box as the only budget.
        ssim: Floor of the SSIM over the face region; a penalty with a multiplier for each face holds it. None for
            no such floor.
        norm: Step rule, ``l2`` or ``linf``.
        step: Multiplier a of the step length: a * epsilon / N, or a * (the RMS of `psnr`) / N when there is a floor.
        decay: Momentum decay mu.
        away: Weight of moving away from the person beside moving towards a target, in ``combined``.
        targets: Number K of target faces used.
        greedy: Try one step towards each of several targets at every iteration and keep the best (Algorithm 1).
            Otherwise the target nearest to the present embedding is taken, and one step is enough.
        pruning: With `greedy`, which targets are tried: those whose term of the gain is behind the leader's by at
            most this many times the widest spread of one term over the last candidates, which is what the choice
            among them can change. Once a single target is left, nothing is scored any more. None tries all and
            scores all, as the paper does.
        gain: ``gain3`` is equation 7, ``gain1`` Center-Opt, ``gain2`` the minimum.
        gamma: Weight of the MMD term.
        movement: Range of the standard deviations of the random affine movement of the crop; (0, 0) for none.
        transports: Draw a transport (JPEG, resize, blur, tone) at every iteration.
        smoothing: Standard deviation of the Gaussian that smooths gradients, in pixels of a 112-pixel crop.
        texture: Exponent of the just-noticeable-difference map that weights gradients; 0 for none.
        margin: Early stop when every surrogate is past its threshold by this much in cosine, under every transport
            of `finished`. None never stops early: a mask that just passes on its surrogates fails on others, and
            the published figures are without it.
    """

    mode: Mode = "dodge"
    iterations: int = 60
    epsilon: float = 16.0
    psnr: float | None = 32.1
    ssim: float | None = 0.941
    norm: Literal["linf", "l2"] = "l2"
    step: float = 8.0
    decay: float = 0.8
    away: float = 0.8
    targets: int = 10
    greedy: bool = False
    pruning: float | None = 1.0
    gain: Gain = "gain3"
    gamma: float = 0.0
    movement: tuple[float, float] = (0.01, 0.06)
    transports: bool = True
    smoothing: float = 1.0
    texture: float = 1.0
    margin: float | None = None

    def __post_init__(self) -> None:
        checks: dict[str, bool] = {
            "mode": self.mode in ("dodge", "impersonate", "combined"),
            "iterations": 1 <= self.iterations <= 10_000,
            "epsilon": 0 < self.epsilon <= 255,
            "psnr": self.psnr is None or 10 <= self.psnr <= 60,
            "ssim": self.ssim is None or 0 < self.ssim < 1,
            "norm": self.norm in ("linf", "l2"),
            "step": 0 < self.step <= 1000,
            "decay": 0 <= self.decay <= 1,
            "away": 0 < self.away <= 100,
            "targets": 1 <= self.targets <= 1000,
            "pruning": self.pruning is None or self.pruning >= 0,
            "gain": self.gain in ("gain1", "gain2", "gain3"),
            "gamma": self.gamma >= 0,
            "movement": len(self.movement) == 2 and 0 <= self.movement[0] <= self.movement[1] <= 1,
            "smoothing": 0 <= self.smoothing <= 20,
            "texture": 0 <= self.texture <= 4,
            "margin": self.margin is None or -1 <= self.margin <= 1,
            "greedy": not self.greedy or self.mode != "dodge",
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(
                    f"TIP-IM cannot run with {name}={getattr(self, name)!r}.",
                    hint="greedy needs a mode with targets." if name == "greedy" else "See TipImConfig for its range.",
                )

    @classmethod
    def paper(cls, **changes: Any) -> TipImConfig:
        """The paper's settings: 50 sign steps in an l-inf ball of 12/255, gain of equation 7, gamma 0.

        Its naturalness term is off here, as it is in the paper's main tables' gamma = 0 row and in the code;
        ask for ``gamma=1`` to 3 to have it. The learning rate "1.5" of the text is read as the code reads it.
        """
        return replace(cls(**_FAITHFUL, iterations=50, norm="linf"), **changes)

    @classmethod
    def official_code(cls, **changes: Any) -> TipImConfig:
        """The defaults of the official code's command line: 100 l2 steps, clipped to an l-inf box of 12/255."""
        return replace(cls(**_FAITHFUL, iterations=100, norm="l2"), **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for reports."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


_FAITHFUL: dict[str, Any] = {
    "mode": "combined",
    "epsilon": 12.0,
    "psnr": None,
    "ssim": None,
    "step": 1.5,
    "decay": 1.0,
    "away": 1.0,
    "greedy": True,
    "pruning": None,
    "movement": (0.01, 0.1),
    "transports": False,
    "smoothing": 0.0,
    "texture": 0.0,
}


@dataclass(frozen=True)
class Mask:
    """A protective perturbation of one face view.

    Attributes:
        delta: (3, H, W) float32 in [-1, 1], at view resolution.
        iterations: Iterations taken.
        stopped: ``converged``, ``iterations`` or ``deadline``.
        seconds: Wall time of the batch the face was optimised in, divided by its size.
    """

    delta: Tensor
    iterations: int
    stopped: str
    seconds: float


@register("tip-im", kind="cloak")
class TipIm:
    """The cloak. ``TipIm(config).perturb(views, surrogates, generator)`` returns a `Mask` for each view.

    Args:
        config: Settings.
        targets: (K, 3, 112, 112) faces aligned to the ArcFace template, in [0, 1]; None takes the shipped
            composites, which are averages of many faces and no real person.
        thresholds: Decision threshold (cosine) of each surrogate by name, for early stopping.
    """

    Config = TipImConfig

    def __init__(
        self,
        config: TipImConfig | None = None,
        *,
        targets: Tensor | None = None,
        thresholds: dict[str, float] | None = None,
    ) -> None:
        self.config = config or TipImConfig()
        self._targets = targets
        self._thresholds = thresholds or {}

    def fit(self, views: Sequence[FaceView]) -> None:
        """Nothing to fit: TIP-IM optimises each photo anew."""

    def perturb(
        self,
        views: Sequence[FaceView],
        surrogates: Sequence[Surrogate],
        generator: torch.Generator,
        *,
        deadline: float | None = None,
        progress: Progress | None = None,
    ) -> list[Mask]:
        """Optimise one mask for each view, all in one batch.

        Args:
            views: The faces, of any sizes.
            surrogates: The networks to attack.
            generator: Source of every random draw; the same seed gives the same masks.
            deadline: `time.monotonic` value after which no new iteration starts.
            progress: Called with (iteration, iterations).

        Raises:
            UsageError: when there is no view or no surrogate.
            NumericalFailure: when a surrogate answers with NaN or infinity.
        """
        if not views or not surrogates:
            raise UsageError("TIP-IM needs at least one face and one surrogate.")
        config = self.config
        images, region = _stack([view.pixels for view in views]), _stack([view.region for view in views])
        targets = None
        if config.mode != "dodge":
            targets = (composite_faces() if self._targets is None else self._targets)[: config.targets]
        problem = _Identity(views, images, region, surrogates, targets, config, self._thresholds, generator)
        budget = config.epsilon if config.psnr is None else 255 * 10 ** (-config.psnr / 20)
        step = Step(
            norm=config.norm,
            size=config.step * budget / config.iterations / 255,
            decay=config.decay,
            epsilon=config.epsilon / 255,
            rms=None if config.psnr is None else budget / 255,
        )
        run = projected_momentum(problem, images, region, step, config.iterations, deadline=deadline, progress=progress)
        if not torch.isfinite(run.delta).all():
            raise NumericalFailure("The mask holds NaN or infinity.", hint="Leave out the surrogate that caused it.")
        return [
            Mask(
                delta=run.delta[row, :, : view.pixels.shape[1], : view.pixels.shape[2]].clone(),
                iterations=run.iterations[row],
                stopped=run.stopped[row],
                seconds=run.seconds / len(views),
            )
            for row, view in enumerate(views)
        ]


class _Identity:
    """TIP-IM's objective over a batch of views and an ensemble, as a `Problem`."""

    def __init__(
        self,
        views: Sequence[FaceView],
        images: Tensor,
        region: Tensor,
        surrogates: Sequence[Surrogate],
        targets: Tensor | None,
        config: TipImConfig,
        thresholds: dict[str, float],
        generator: torch.Generator,
    ) -> None:
        self.images, self.region, self.surrogates = images, region, surrogates
        self.config, self.generator = config, generator
        self.thresholds = [thresholds.get(surrogate.card.name) for surrogate in surrogates]
        self.matrices = [_alignments(views, surrogate.card.template) for surrogate in surrogates]
        self.grey = torch.tensor([view.grey for view in views])[:, None, None, None]
        self.sigmas = [config.smoothing * view.crop_pixel for view in views]  # each face has its own
        weight = just_noticeable(images) ** config.texture if config.texture else torch.ones_like(region)
        self.weight = weight / (weight * (region > 0)).amax((1, 2, 3), keepdim=True)
        self.inside = (region > 0).to(images.dtype)
        self.multiplier = torch.zeros(len(images))
        self.penalty = torch.zeros_like(images)
        self.iteration = 0
        self.targets: list[Tensor] | None = None
        with torch.no_grad():
            self.sources = [self._embed(index, images) for index in range(len(surrogates))]
            if targets is not None:
                aligned = torch.tensor(ARCFACE_112.points, dtype=torch.float64)
                self.targets = [
                    surrogate(_align(targets, aligned, surrogate.card.template)) for surrogate in surrogates
                ]
                self.tried = torch.arange(len(targets))[:, None].expand(-1, len(images))  # (K tried, N) indices
                similarities = [source @ wanted.T for source, wanted in zip(self.sources, self.targets, strict=True)]
                self.affinity = torch.stack(similarities).mean(0)

    def _embed(self, index: int, photos: Tensor, movement: Tensor | None = None) -> Tensor:
        """(N, D) embeddings by one surrogate of the faces in (N, 3, H, W) photos."""
        template = self.surrogates[index].card.template
        matrices = self.matrices[index]
        if movement is not None:
            matrices = compose(movement, matrices)
        if len(photos) != len(matrices):  # candidates of all views, target by target
            matrices = matrices.repeat(len(photos) // len(matrices), 1, 1)
        embeddings: Tensor = self.surrogates[index](warp(photos, matrices, (template.height, template.width)))
        return embeddings

    def _movement(self, index: int) -> Tensor | None:
        low, high = self.config.movement
        if high == 0:
            return None
        spread, turn = (low + (high - low) * float(torch.rand((), generator=self.generator)) for _ in range(2))
        template = self.surrogates[index].card.template
        return draw_movement(self.generator, (template.height, template.width), spread=spread, turn=turn)

    def gradients(self, delta: Tensor) -> Tensor:
        """(K, N, 3, H, W); K is 1 unless the choice among targets is greedy."""
        photos = (self.images + delta).requires_grad_()
        with torch.enable_grad():
            shared = draw_transport(self.generator)(photos) if self.config.transports else photos
        if self.targets is not None:
            self.nearest = self.affinity.argmax(1)
        leaf = shared.detach().requires_grad_()
        total: Tensor | None = None
        for index in range(len(self.surrogates)):
            with torch.enable_grad():
                embedding = self._embed(index, leaf, self._movement(index))
            part = _vector_jacobian(embedding, leaf, self._cotangents(index, embedding.detach()))
            total = part if total is None else total + part
        assert total is not None
        if shared is not photos:
            total = _vector_jacobian(shared, photos, total)
        if self.config.gamma:
            total = total + self.config.gamma * self._mmd_gradient(delta)
        total = self._shape(total)
        return total if self.config.ssim is None else self._keep_structure(total, delta, self.config.ssim)

    def _cotangents(self, index: int, embedding: Tensor) -> Tensor:
        """(K, N, D) gradients of the loss with respect to the embedding."""
        source = self.sources[index]
        if self.targets is None:
            return source[None]
        targets = self.targets[index]
        away = source * (0.0 if self.config.mode == "impersonate" else self.config.away)
        if self.config.greedy:
            # The mean over dimensions, not the sum, as in the official code: it matters beside the MMD term.
            return 2 * (away - targets[self.tried]) / source.shape[1]
        # One target for all surrogates: the one they agree on, in a running mean, since each sees another crop.
        nearest = targets[self.nearest]
        self.affinity += 0.1 * (embedding @ targets.T - self.affinity) / len(self.surrogates)
        return (away - nearest)[None]

    def _shape(self, gradients: Tensor) -> Tensor:
        gradients = torch.where(self.grey, gradients.mean(-3, keepdim=True), gradients)
        if self.config.smoothing:
            faces = zip(gradients.unbind(1), self.sigmas, strict=True)
            gradients = torch.stack([gaussian_blur(face, sigma) for face, sigma in faces], 1)
        return gradients * self.weight

    def _keep_structure(self, gradients: Tensor, delta: Tensor, floor: float) -> Tensor:
        """Add the gradient of 1 - SSIM, as strongly as each face's multiplier says; and update the multipliers.

        The multipliers follow dual ascent on the constraint SSIM >= floor. Both gradients count by their mean
        absolute value, since the scale of the identity gradient is arbitrary. SSIM moves slowly and is computed
        at every other iteration.
        """
        if self.iteration % 2 == 0:
            variable = (self.images + delta).requires_grad_()
            with torch.enable_grad():
                similarity = (ssim_map(variable, self.images) * self.inside).sum((1, 2, 3)) / self.inside.sum((1, 2, 3))
            loss = torch.autograd.grad(-similarity.sum(), variable)[0] * self.inside
            loss = torch.where(self.grey, loss.mean(-3, keepdim=True), loss)
            self.multiplier = (self.multiplier + 40 * (floor - similarity.detach())).clamp(0, 10)
            scale = self.multiplier[:, None, None, None] / loss.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-20)
            self.penalty = loss * scale
        self.iteration += 1
        return gradients / gradients.abs().mean((-3, -2, -1), keepdim=True).clamp_min(1e-20) + self.penalty

    def _mmd_gradient(self, delta: Tensor) -> Tensor:
        pixels = ((self.images + delta) * 255).flatten(1).requires_grad_()
        with torch.enable_grad():
            value = mmd(pixels, self.images.flatten(1) * 255)
        return torch.autograd.grad(value, pixels)[0].reshape(delta.shape) * 255

    def best(self, candidates: Tensor) -> Tensor:
        """The candidate of the greatest gain (equation 7), summed over surrogates, and the targets to try next.

        A candidate towards a target that is far behind wins only by the luck of the random movement: every step
        moves away from the source, and to first order no direction brings the leader's term up faster than the
        leader's own. `benchmarks/tip_im_speed.py` compares the gain that whole runs reach with and without them.
        """
        count = candidates.shape[1]
        if self.targets is None or not self.config.greedy or len(candidates) == 1:
            return torch.zeros(count, dtype=torch.long)
        with torch.no_grad():
            terms = self._terms((self.images + candidates).flatten(0, 1))
            terms = terms.reshape(len(terms), *candidates.shape[:2], -1)
            gains = torch.log1p(_reduce(terms.exp(), self.config.gain)).sum(0)
            chosen = gains.argmax(0)
        if self.config.pruning is not None:
            kept = terms[:, chosen, torch.arange(count)]
            behind = (kept.amax(-1, keepdim=True) - kept).amin(0)
            spread = (terms.amax(1) - terms.amin(1)).amax((0, 2))
            # The same number of targets for every face keeps the batch whole; the leader is always among them.
            needed = int((behind <= self.config.pruning * spread[:, None]).sum(1).max())
            self.tried = behind.argsort(1)[:, :needed].T
        return chosen

    def _terms(self, photos: Tensor) -> Tensor:
        """(surrogates, N, K) terms |e - e0| - |e - t_k| of the gain; distances are not squared, as in the code."""
        assert self.targets is not None
        terms = []
        for index, targets in enumerate(self.targets):
            embedding = self._embed(index, photos)
            source = self.sources[index].repeat(len(photos) // len(self.sources[index]), 1)
            from_source = (embedding - source).norm(dim=1, keepdim=True)
            terms.append(from_source - (embedding[:, None] - targets).norm(dim=2))
        return torch.stack(terms)

    def finished(self, delta: Tensor, iteration: int) -> Tensor | None:
        """Past every surrogate's threshold by the margin as it is, after JPEG 75, at half size and blurred.

        Looked at after every tenth iteration.
        """
        margin = self.config.margin
        if margin is None or (iteration + 1) % 10 or None in self.thresholds:
            return None
        done = torch.ones(len(delta), dtype=torch.bool)
        with torch.no_grad():
            photos = self.images + delta
            shared = (photos, jpeg(photos, 75), resize(photos, 0.5), gaussian_blur(photos, 1.0))
            for (index, threshold), received in product(enumerate(self.thresholds), shared):
                assert threshold is not None
                embedding = self._embed(index, received)
                if self.config.mode != "impersonate":
                    done &= (embedding * self.sources[index]).sum(1) < threshold - margin
                if self.targets is not None:
                    done &= (embedding @ self.targets[index].T).amax(1) > threshold + margin
        return done


def _reduce(values: Tensor, gain: Gain) -> Tensor:
    if gain == "gain1":
        return values.sum(-1)
    return values.amin(-1) if gain == "gain2" else values.amax(-1)


def _vector_jacobian(outputs: Tensor, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """(K, *inputs) products of K cotangents (K, *outputs) with the Jacobian, from one forward pass."""
    if len(cotangents) == 1:
        return torch.autograd.grad(outputs, inputs, cotangents[0])[0][None]
    return torch.autograd.grad(outputs, inputs, cotangents, is_grads_batched=True)[0]


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack (C, H, W) tensors of different sizes, zeros below and to the right."""
    height, width = (max(tensor.shape[axis] for tensor in tensors) for axis in (1, 2))
    stacked = tensors[0].new_zeros(len(tensors), tensors[0].shape[0], height, width)
    for row, tensor in enumerate(tensors):
        stacked[row, :, : tensor.shape[1], : tensor.shape[2]] = tensor
    return stacked


def _alignments(views: Sequence[FaceView], template: CropTemplate) -> Tensor:
    """(N, 2, 3) float64 maps from view pixels to crop pixels."""
    return torch.stack([torch.from_numpy(similarity_matrix(view.landmarks.numpy(), template)) for view in views])


def _align(faces: Tensor, landmarks: Tensor, template: CropTemplate) -> Tensor:
    """Crops of faces that share one set of landmarks."""
    matrix = torch.from_numpy(similarity_matrix(landmarks.numpy(), template))
    return warp(faces, matrix.expand(len(faces), 2, 3), (template.height, template.width))
