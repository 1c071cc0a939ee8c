"""The objective and the run of TIP-IM: what a step goes down, and which of its candidates is kept.

Settings and an overview are in `bauta.cloaks.tip_im`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bauta.cloaks.base import Edit, Work
from bauta.cloaks.identity import IdentityLoss, stacked
from bauta.cloaks.targets import composite_faces
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure, UsageError
from bauta.objectives.descent import Pixels, Step, Values, descend
from bauta.objectives.mmd import mmd
from bauta.objectives.transports import Transport, gaussian_blur, jpeg, resize
from bauta.objectives.visibility import just_noticeable, ssim_map
from bauta.recognizers.ensemble import Ensemble

if TYPE_CHECKING:
    from bauta.cloaks.tip_im_settings import Gain, TipImConfig


def optimise(views: Sequence[FaceView], config: TipImConfig, targets: Tensor | None, work: Work) -> list[Edit]:
    """One edit for each view, all in one batch; see `bauta.cloaks.tip_im.TipIm.edit`."""
    if not views:
        raise UsageError("TIP-IM needs at least one face.", hint="Give a view.")
    images, region = stacked([view.pixels for view in views]), stacked([view.region for view in views])
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
    run = descend(
        problem, [Pixels(images, region, step)], config.iterations, deadline=work.deadline, progress=work.progress
    )
    (delta,) = run.values
    if not torch.isfinite(delta).all():
        raise NumericalFailure("The mask holds NaN or infinity.", hint="Leave out the surrogate that caused it.")
    return [
        Edit(
            view,
            # Rounding may leave a trace where a photo touches black or white.
            delta[row, :, : view.pixels.shape[1], : view.pixels.shape[2]] * (view.region > 0),
            facts={"iterations": run.iterations[row], "stopped": run.stopped[row]},
        )
        for row, view in enumerate(views)
    ]


_RECEIVED: tuple[Transport, ...] = (
    lambda photos: photos,
    lambda photos: jpeg(photos, 75),
    lambda photos: resize(photos, 0.5),
    lambda photos: gaussian_blur(photos, 1.0),
)


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
        self.config = config
        self.loss = IdentityLoss(
            views,
            images,
            ensemble,
            targets,
            work.generator,
            mode=config.mode,
            away=config.away,
            greedy=config.greedy,
            movement=config.movement,
            transports=config.transports,
            limits=[work.thresholds.get(name) for name in ensemble.names],
        )
        self.grey = torch.tensor([view.grey for view in views])[:, None, None, None]
        self.sigmas = [config.smoothing * view.crop_pixel for view in views]  # each face has its own
        weight = just_noticeable(images) ** config.texture if config.texture else torch.ones_like(region)
        self.weight = weight / (weight * (region > 0)).amax((1, 2, 3), keepdim=True)
        self.inside = (region > 0).to(images.dtype)
        self.multiplier = torch.zeros(len(images))
        self.penalty = torch.zeros_like(images)
        self.iteration = 0

    def gradients(self, values: Values) -> Values:
        """(K, N, 3, H, W); K is 1 unless the choice among targets is greedy."""
        (delta,) = values
        total = self.loss.gradients(self.images + delta)
        if self.config.gamma:
            total = total + self.config.gamma * self._mmd_gradient(delta)
        total = self._shape(total)
        return (total if self.config.ssim is None else self._keep_structure(total, delta, self.config.ssim),)

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

    def best(self, candidates: Values) -> Tensor:
        """The candidate of the greatest gain (equation 7), summed over surrogates, and the targets to try next.

        A candidate towards a target that is far behind wins only by the luck of the random movement: every step
        moves away from the source, and to first order no direction brings the leader's term up faster than the
        leader's own. `benchmarks/tip_im_speed.py` compares the gain that whole runs reach with and without them.
        """
        (deltas,) = candidates
        count = deltas.shape[1]
        if self.loss.targets is None or not self.config.greedy or len(deltas) == 1:
            return torch.zeros(count, dtype=torch.long)
        with torch.no_grad():
            terms = self._terms((self.images + deltas).flatten(0, 1))
            terms = terms.reshape(len(terms), *deltas.shape[:2], -1)
            gains = torch.log1p(_reduce(terms.exp(), self.config.gain)).sum(0)
            chosen = gains.argmax(0)
        if self.config.pruning is not None:
            kept = terms[:, chosen, torch.arange(count)]
            behind = (kept.amax(-1, keepdim=True) - kept).amin(0)
            spread = (terms.amax(1) - terms.amin(1)).amax((0, 2))
            # The same number of targets for every face keeps the batch whole; the leader is always among them.
            needed = int((behind <= self.config.pruning * spread[:, None]).sum(1).max())
            self.loss.tried = behind.argsort(1)[:, :needed].T
        return chosen

    def _terms(self, photos: Tensor) -> Tensor:
        """(surrogates, N, K) terms |e - e0| - |e - t_k| of the gain; distances are not squared, as in the code."""
        assert self.loss.targets is not None
        terms = []
        for index, targets in enumerate(self.loss.targets):
            embedding = self.loss.faces.embed(index, photos)
            source = self.loss.sources[index].repeat(len(photos) // len(self.loss.sources[index]), 1)
            from_source = (embedding - source).norm(dim=1, keepdim=True)
            terms.append(from_source - (embedding[:, None] - targets).norm(dim=2))
        return torch.stack(terms)

    def finished(self, values: Values, iteration: int) -> Tensor | None:
        """Past every surrogate's threshold by the margin as it is, after JPEG 75, at half size and blurred.

        Looked at after every tenth iteration.
        """
        (delta,) = values
        margin = self.config.margin
        if margin is None or (iteration + 1) % 10 or None in self.loss.limits:
            return None
        return self.loss.closest(self.images + delta, _RECEIVED) > margin


def _reduce(values: Tensor, gain: Gain) -> Tensor:
    if gain == "gain1":
        return values.sum(-1)
    return values.amin(-1) if gain == "gain2" else values.amax(-1)
