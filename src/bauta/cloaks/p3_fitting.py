"""How the personalised mask is fitted to a few photos of one person, and put on a view; see `bauta.cloaks.p3_mask`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from bauta.cloaks.base import Edit, Scalar, Work
from bauta.cloaks.identity import IdentityLoss, stacked
from bauta.cloaks.lightness import TYPICAL, field_and_lightness, noticeable
from bauta.cloaks.p3_settings import P3MaskConfig
from bauta.cloaks.view import FaceView
from bauta.errors import NumericalFailure
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import alignments
from bauta.faces.warp import invert, warp
from bauta.objectives.descent import Values, Variable, descend
from bauta.objectives.displacement import SIDE, carried, moved
from bauta.objectives.transports import gaussian_blur
from bauta.objectives.visibility import ssim_map


class Canvas:
    """Views of faces, and the way from the person's frame, the aligned crop, to each of them.

    Args:
        views: N of them.
        even: As for `bauta.cloaks.lightness.noticeable`.
    """

    def __init__(self, views: Sequence[FaceView], even: bool = False) -> None:
        self.views = views
        self.images = stacked([view.pixels for view in views])
        self.region = stacked([view.region for view in views])
        self.inside = (self.region > 0).to(self.images.dtype)
        self.size = self.images.shape[2], self.images.shape[3]
        self.to_crop = torch.cat([alignments(view.landmarks.numpy(), ARCFACE_112) for view in views])
        noticed, mean = noticeable(views, self.images, self.to_crop, self.inside, even)
        self.noticed, self.mean = noticed / TYPICAL, mean / TYPICAL
        self.area = self.region.sum((1, 2, 3), keepdim=True)

    def spatial(self, control: Tensor, lightness: Tensor, psnr: float) -> tuple[Tensor, Tensor]:
        """Displacements (N, 2, H, W) and changes of lightness (N, 1, H, W) of all views, by masks in their frame.

        What is noticed of the mask decides how strong it is at each place of each photo, so that one mask is as
        visible on soft skin as on sharp.

        Args:
            control: (N, 2, G, G), crop pixels.
            lightness: (N, 1, 112, 112), of what is noticed.
            psnr: Floor for a face of typical texture, in dB; a face that hides less has a higher one.
        """
        fields = carried(control, self.to_crop, self.size) * self.inside
        light = warp(lightness, invert(self.to_crop), self.size) * self.noticed * self.region
        # A mask that lies where much is noticed of it elsewhere would be bounded by what is noticed, and yet be seen.
        rms = (light.square().sum((1, 2, 3), keepdim=True) / self.area).sqrt()
        return fields, light * (10 ** (-psnr / 20) * self.mean / rms.clamp_min(1e-12)).clamp_max(1).detach()

    def colour(self, mask: Tensor) -> Tensor:
        """Changes (N, 3, H, W) of all views by one mask (1, 3, 112, 112) in their frame, clipped as photos are."""
        spread = warp(mask, invert(self.to_crop), self.size) * self.region
        return (self.images + spread).clamp(0, 1) - self.images

    def masked(self, config: P3MaskConfig, parts: Mapping[str, Tensor], variant: int) -> tuple[Tensor, Tensor | None]:
        """Perturbation (3, H, W) and warp (2, H, W) of the first view, by one of the person's masks."""
        view = self.views[0]
        if config.edit == "colour":
            delta = self.colour(parts["mask"])[0]
            return (delta.mean(0, keepdim=True).expand(3, -1, -1) if view.grey else delta), None
        control, lightness = parts["control"][variant, None], parts["lightness"][variant, None]
        fields, light = self.spatial(control, lightness, config.psnr)
        return light[0].expand(3, -1, -1).clamp(-1, 1), fields[0]


class PersonLoss(IdentityLoss):
    """Away from the person as all their photos show them, and photos with different masks apart from each other.

    The second keeps the nearest apart, by a soft maximum over what is about to match. Protego's term, -log det of the
    Gram matrix of the protected faces in a batch, was tried first and did less: see docs/p3-mask.md.
    """

    centres: Sequence[Tensor]  # for each surrogate (D,)
    variant: Tensor  # (N,) numbers of the masks that the photos have now

    def _cotangents(self, index: int, embedding: Tensor) -> Tensor:
        return (self.sources[index] + self.centres[index])[None] / 2

    def _others(self, index: int, embedding: Tensor) -> Tensor:
        excess = embedding @ embedding.T - (self.limits[index] or 0.0) + _REACH
        apart = (self.variant[:, None] != self.variant) & (excess > 0)
        weights = (excess / _TEMPERATURE).masked_fill(~apart, -torch.inf).softmax(1).nan_to_num(0.0)
        pushed: Tensor = weights @ embedding
        return pushed


_REACH = 0.1  # below the threshold, from where on photos with different masks push each other away
_TEMPERATURE = 0.05
_START = 0.5  # of the bounds: random masks, so that they part, and so that none can be fitted again without its seed


class Person:
    """A person's photos, an ensemble, and the masks that are fitted to them: a `bauta.objectives.descent.Problem`.

    Every step draws photos, and for each one of the variants, all equally often.

    Args:
        views: Of the person, one from each photo.
        config: Settings.
        work: With the ensemble.
        start: Share of their bounds that the masks start from, at random.
        even: As for `Canvas`.
    """

    names: tuple[str, ...] = ("control", "lightness")  # of the variables

    def __init__(
        self,
        views: Sequence[FaceView],
        config: P3MaskConfig,
        work: Work,
        start: float = _START,
        even: bool = False,
    ) -> None:
        self.config, self.generator = config, work.generator
        count = max(config.batch, config.variants)
        chunks = max(1, round(len(views) / count))
        self.canvases = [Canvas(views[first::chunks], even) for first in range(chunks)]
        self.losses = [self._loss(canvas, work) for canvas in self.canvases]
        sources = [[loss.sources[k] for loss in self.losses] for k in range(len(work.attacked))]
        centres = [functional.normalize(torch.cat(one).mean(0), dim=0) for one in sources]
        for loss in self.losses:
            loss.centres, loss.apart = centres, config.apart
        self.step = 0
        region, noticed = torch.ones(2, config.variants, 1, SIDE, SIDE)
        self.level = torch.ones(config.variants)
        self.field, self.lightness = field_and_lightness(config, region, noticed, self.level, config.peak)
        moves = torch.randn(self.field.start.shape, generator=work.generator)
        longest = moves.square().sum(1, keepdim=True).sqrt().amax((2, 3), keepdim=True)
        self.field.start = self.field.moved(start * self.field.amplitude * moves / longest, torch.zeros_like(moves))
        light = gaussian_blur(torch.randn(region.shape, generator=work.generator), 2.0)
        self.lightness.start = start * self.lightness.rms * light / light.square().mean((1, 2, 3), keepdim=True).sqrt()
        self.variables: tuple[Variable, ...] = (self.field, self.lightness)

    def _loss(self, canvas: Canvas, work: Work) -> PersonLoss:
        config = self.config
        return PersonLoss(
            canvas.views,
            canvas.images,
            work.attacked,
            None,
            work.generator,
            movement=config.movement,
            scale=config.scale,
            mirror=config.mirror,
            noise=config.noise / 255,
            transports=True,
            limits=[work.thresholds.get(name) for name in work.attacked.names],
        )

    def gradients(self, values: Values) -> Values:
        """(1, K, 2, G, G), (1, K, 1, 112, 112) and of whatever else is moved, by the photos of one batch."""
        number = self.step % len(self.canvases)
        canvas, loss = self.canvases[number], self.losses[number]
        self.step += 1
        loss.variant = variant = self._drawn(len(canvas.views))
        leaves = tuple(value.detach().requires_grad_() for value in values)
        with torch.enable_grad():
            pictures = self.shown(number, [leaf[variant] for leaf in leaves])
        (toward,) = loss.gradients(pictures)
        field, light, *others = torch.autograd.grad(pictures, leaves, toward)
        return field[None], gaussian_blur(light, self.config.smoothing)[None], *(one[None] for one in others)

    def shown(self, number: int, values: Sequence[Tensor]) -> Tensor:
        """The photos of a canvas with masks on them, one for each or one for all; differentiable in these."""
        canvas = self.canvases[number]
        control, lightness = (value.expand(len(canvas.views), -1, -1, -1) for value in values)
        fields, light = canvas.spatial(control, lightness, self.config.psnr)
        return (moved(canvas.images, fields) + light).clamp(0, 1)

    def _drawn(self, count: int) -> Tensor:
        """(count,) numbers of variants, all as often as the count allows."""
        rounds = -(-count // self.config.variants)
        orders = [torch.randperm(self.config.variants, generator=self.generator) for _ in range(rounds)]
        return torch.cat(orders)[:count]

    def best(self, candidates: Values) -> Tensor:
        """There is one candidate."""
        return torch.zeros(self.config.variants, dtype=torch.long)

    def finished(self, values: Values, iteration: int) -> Tensor | None:
        """All iterations are used."""
        return None


def fit_spatial(views: Sequence[FaceView], config: P3MaskConfig, work: Work) -> dict[str, Tensor]:
    """Control points (K, 2, G, G) and lightness (K, 1, 112, 112) of K variants."""
    return descended(Person(views, config, work), config, work)


def descended(person: Person, config: P3MaskConfig, work: Work) -> dict[str, Tensor]:
    """The masks at the end of the descent.

    Raises:
        NumericalFailure: when a surrogate answers with NaN or infinity.
    """
    run = descend(person, person.variables, config.iterations, deadline=work.deadline, progress=work.progress)
    if not all(torch.isfinite(value).all() for value in run.values):
        raise NumericalFailure("The mask holds NaN or infinity.", hint="Leave out the surrogate that caused it.")
    return dict(zip(person.names, run.values, strict=True))


@dataclass(frozen=True, eq=False)
class Following:
    """One mask that goes along with a face; see `bauta.cloaks.base.Carried`.

    Attributes:
        config: Settings.
        parts: As fitted.
        variant: Which of the masks.
        facts: Of every edit.
        even: As for `Canvas`.
    """

    config: P3MaskConfig
    parts: Mapping[str, Tensor]
    variant: int
    facts: Mapping[str, Scalar]
    even: bool = False

    def on(self, view: FaceView) -> Edit:
        """The mask on one more view."""
        delta, warp = Canvas([view], self.even).masked(self.config, self.parts, self.variant)
        return Edit(view, delta, warp, {"iterations": 0, **self.facts}, bytes([self.variant]))


def unmasked(
    view: FaceView, config: P3MaskConfig, parts: Mapping[str, Tensor], variant: int
) -> tuple[Tensor, Tensor | None]:
    """Perturbation and warp that take a mask off a view of the protected photo.

    How strong the lightness mask is depends on the photo before it was masked, which is not there: it is judged by what
    is found so far, again and again, and so is where each pixel came from.
    """
    protected, found = view.pixels, view
    for _ in range(_ROUNDS):
        canvas = Canvas([found])
        delta, warp_ = canvas.masked(config, parts, variant)
        if warp_ is None:
            spread = -warp(parts["mask"], invert(canvas.to_crop), canvas.size)[0] * view.region
            if view.grey:
                spread = spread.mean(0, keepdim=True).expand(3, -1, -1)
            return spread.clamp(-1, 1), None
        back = _inverse(warp_) * canvas.inside[0]
        off = -moved(delta[None], back[None])[0] * canvas.inside[0]
        pixels = (moved(protected[None], back[None])[0] + off).clamp(0, 1)
        found = replace(view, pixels=pixels)
    return off, back


_ROUNDS = 3


def _inverse(field: Tensor) -> Tensor:
    """The displacements (2, H, W) that undo others: u(x) = -field(x + u(x)), by iteration, which converges since the
    strain is below one half."""
    back = -field
    for _ in range(12):
        back = -moved(field[None], back[None])[0]
    return back


def fit_colour(views: Sequence[FaceView], config: P3MaskConfig, work: Work) -> dict[str, Tensor]:
    """Chameleon's mask (1, 3, 112, 112), by its released code: signs of a batch's mean gradient; see the module."""
    ensemble = work.attacked
    epsilon, size = config.epsilon / 255, config.step / 255
    mask = (2 * torch.rand(1, 3, SIDE, SIDE, generator=work.generator) - 1) * size
    weight, order = 1.0, torch.empty(0, dtype=torch.long)
    for iteration in range(config.iterations):
        if iteration and work.deadline is not None and time.monotonic() >= work.deadline:
            break
        if not len(order):
            order = torch.randperm(len(views), generator=work.generator)
        rows, order = order[: config.batch], order[config.batch :]
        batch = Canvas([views[int(row)] for row in rows])
        faces = ensemble.looking_at([view.landmarks for view in batch.views])
        mask.requires_grad_()
        with torch.enable_grad():
            pictures = batch.images + batch.colour(mask)
            angle = torch.zeros(())
            for before, after in zip(faces.all(batch.images), faces.all(pictures), strict=True):
                # arccos of their product, in a form with a gradient where they are equal.
                angle = angle + 2 * ((after - before.detach()).norm(dim=1) / 2).clamp_max(1).asin().mean()
            before, after = (align_views(batch, shown) for shown in (batch.images, pictures))
            differs = ((1 - ssim_map(before, after)) / 2).mean()
            loss = weight * (differs - config.dissimilarity).clamp_min(0) - angle
        (gradient,) = torch.autograd.grad(loss, mask)
        mask = (mask.detach() - size * gradient.sign()).clamp(-epsilon, epsilon)
        if not torch.isfinite(gradient).all():
            raise NumericalFailure("The mask holds NaN or infinity.", hint="Leave out the surrogate that caused it.")
        weight = _weighed(weight, float(differs.detach()), config.dissimilarity)
        work.progress(iteration + 1, config.iterations)
    return {"mask": mask.detach()}


def align_views(canvas: Canvas, pictures: Tensor) -> Tensor:
    """(N, 3, 112, 112) crops of the canvas's faces."""
    return warp(pictures, canvas.to_crop, (SIDE, SIDE))


def _weighed(weight: float, differs: float, allowed: float) -> float:
    """The weight of the SSIM in the next step: half or double outside a band about what is allowed, one inside."""
    if differs <= 0.9 * allowed:
        return weight / 2 if weight >= 1 / 129 else weight
    if differs >= 1.1 * allowed:
        return weight * 2 if weight <= 129 else weight
    return 1.0
