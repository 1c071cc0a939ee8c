"""The objective and the run of TIP-IM: what a step goes down, and which of its candidates is kept.

Settings and an overview are in `bauta.cloaks.tip_im`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bauta.cloaks.base import Edit, Work
from bauta.cloaks.targets import composite_faces
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure, UsageError
from bauta.objectives.descent import Step, projected_momentum
from bauta.objectives.mmd import mmd
from bauta.objectives.transports import draw_movement, draw_transport, gaussian_blur, jpeg, resize
from bauta.objectives.visibility import just_noticeable, ssim_map
from bauta.recognizers.ensemble import Ensemble

if TYPE_CHECKING:
    from bauta.cloaks.tip_im_settings import Gain, TipImConfig


def optimise(views: Sequence[FaceView], config: TipImConfig, targets: Tensor | None, work: Work) -> list[Edit]:
    """One edit for each view, all in one batch; see `bauta.cloaks.tip_im.TipIm.edit`."""
    if not views:
        raise UsageError("TIP-IM needs at least one face.", hint="Give a view.")
    images, region = _stack([view.pixels for view in views]), _stack([view.region for view in views])
    wanted = None
    if config.mode != "dodge":
        wanted = (composite_faces() if targets is None else targets)[: config.targets]
    problem = Identity(views, images, region, work.attacked, wanted, config, work)
    budget = config.epsilon if config.psnr is None else 255 * 10 ** (-config.psnr / 20)
    step = Step(
        norm=config.norm,
        size=config.step * budget / config.iterations / 255,
        decay=config.decay,
        epsilon=config.epsilon / 255,
        rms=None if config.psnr is None else budget / 255,
    )
    run = projected_momentum(
        problem, images, region, step, config.iterations, deadline=work.deadline, progress=work.progress
    )
    if not torch.isfinite(run.delta).all():
        raise NumericalFailure("The mask holds NaN or infinity.", hint="Leave out the surrogate that caused it.")
    return [
        Edit(
            view,
            # Rounding may leave a trace where a photo touches black or white.
            run.delta[row, :, : view.pixels.shape[1], : view.pixels.shape[2]] * (view.region > 0),
            facts={"iterations": run.iterations[row], "stopped": run.stopped[row]},
        )
        for row, view in enumerate(views)
    ]


class Identity:
    """TIP-IM's objective over a batch of views and an ensemble, as a `Problem`."""

    def __init__(
        self,
        views: Sequence[FaceView],
        images: Tensor,
        region: Tensor,
        ensemble: Ensemble,
        targets: Tensor | None,
        config: TipImConfig,
        work: Work,
    ) -> None:
        self.images, self.region = images, region
        self.config, self.generator = config, work.generator
        self.thresholds = [work.thresholds.get(name) for name in ensemble.names]
        self.faces = ensemble.looking_at([view.landmarks for view in views])
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
            self.sources = self.faces.all(images)
            if targets is not None:
                self.targets = ensemble.templates(targets)
                self.tried = torch.arange(len(targets))[:, None].expand(-1, len(images))  # (K tried, N) indices
                similarities = [source @ wanted.T for source, wanted in zip(self.sources, self.targets, strict=True)]
                self.affinity = torch.stack(similarities).mean(0)

    def _movement(self, index: int) -> Tensor | None:
        low, high = self.config.movement
        if high == 0:
            return None
        spread, turn = (low + (high - low) * float(torch.rand((), generator=self.generator)) for _ in range(2))
        return draw_movement(self.generator, self.faces.size(index), spread=spread, turn=turn)

    def gradients(self, delta: Tensor) -> Tensor:
        """(K, N, 3, H, W); K is 1 unless the choice among targets is greedy."""
        photos = (self.images + delta).requires_grad_()
        with torch.enable_grad():
            shared = draw_transport(self.generator)(photos) if self.config.transports else photos
        if self.targets is not None:
            self.nearest = self.affinity.argmax(1)
        leaf = shared.detach().requires_grad_()
        total: Tensor | None = None
        for index in range(len(self.faces)):
            with torch.enable_grad():
                embedding = self.faces.embed(index, leaf, movement=self._movement(index))
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
        self.affinity += 0.1 * (embedding @ targets.T - self.affinity) / len(self.faces)
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
            embedding = self.faces.embed(index, photos)
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
                embedding = self.faces.embed(index, received)
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
