"""AdvFace: adversarial noise on the stored feature, so that a decoder trained on features does not show the face.

Wang et al., Privacy-preserving Adversarial Facial Features, CVPR 2023. What is the paper's, as far as it was reachable:
the plug-in beside an unchanged recogniser, the shadow model, the cycle feature -> shadow image -> shadow feature ->
reconstructed image whose loss against the shadow image gives the noise, and, from the size of its storage, a feature of
(64, 56, 56). Its budget, step and number of iterations were not. Ours: the budget by channel, the term that keeps the
template, momentum, several shadows, noise that stays, the anchor ``self``, values kept in the feature's own range, and
the storage forms. Ours too is `lock`, a reference that the benchmark shows broken: what is stored is sealed instead.

::

    x_s = S(z)                  the shadow image: the server never sees the face
    z_s = E(x_s)                its feature; at z itself the loss has no gradient
    repeat: x_r = S(z_s + d)    of each shadow; the first has made x_s
            J   = |x_r - x_s|^2 - structure * ssim(x_r, x_s) - identity * (1 - cos(F(z + d), F(z)))
            d   = project(d + step * std * sign(dJ/dd))       each term's gradient first brought to one length
    store z + d

E is the front of the recogniser, F its back, S a shadow decoder, std the deviation of each channel of z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bauta.errors import UsageError, WeightsCorrupt
from bauta.faces.crops import retemplate
from bauta.learning.decoders import SIDE, Face, Standardise, fused, start_decoder
from bauta.learning.fitted import Provenance
from bauta.learning.learners import Schedule
from bauta.recognizers.splits import TEMPLATE, split_recognizer
from bauta.recognizers.surrogates import Surrogate
from bauta.registry import register
from bauta.templates.advface.keys import turn
from bauta.templates.advface.settings import AdvFaceConfig, ShadowTraining
from bauta.templates.advface.shadow_loss import ShadowLoss
from bauta.templates.advface.shadows import Shadow, calibration, channel_std, fit_shadow
from bauta.templates.base import Protector, find_device
from bauta.templates.fit import FitWork, plain_figures
from bauta.templates.loading import require_parts, require_positive
from bauta.templates.representation import Kind, Representation

CHUNK = 4  # faces at a time: more outgrow the processor's cache
DEVICE_CHUNK = 64  # on an accelerator
KEPT = 0.1  # loss of cosine at which the identity term of weight 1 weighs as much as the shadows
SMALL = 64  # elements up to which a learned tensor is kept in float32


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Of clean features, for each channel (C,): what noise is measured by and `uint8` is scaled to."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, values: Tensor) -> ChannelStatistics:
        """From features (N, C, ...); a channel that never changes gets a deviation of 1e-6."""
        places = [0, *range(2, values.dim())]
        std = channel_std(values).flatten().clamp_min(1e-6)
        return cls(values.mean(places), std, values.amin(places), values.amax(places))


@dataclass(frozen=True, eq=False)
class _Cycle:
    """What the shadows make of the shadow feature and noise, which is to lose the shadow image.

    Attributes:
        decoders: Of each shadow the layers between the first, which standardises and is done once, and the last, which
            the loss does.
        anchors: Of each, the shadow feature (N, ...), standardised.
        spreads: Of each, what one deviation of the noise is there.
        lost: Compares with the shadow images.
    """

    decoders: Sequence[nn.Module]
    anchors: Sequence[Tensor]
    spreads: Sequence[Tensor]
    lost: ShadowLoss

    def gradient(self, noise: Tensor) -> Tensor:
        """Of what is lost, by noise (N, ...): the shadows' together, levelled, so that each has the same say."""
        with torch.enable_grad():
            variables = [
                torch.addcmul(anchor, noise, spread).requires_grad_()
                for anchor, spread in zip(self.anchors, self.spreads, strict=True)
            ]
            logits = [decode(variable) for decode, variable in zip(self.decoders, variables, strict=True)]
        # All at once: the loss's small operations are half as many.
        gradients = torch.autograd.grad(logits, variables, self.lost.gradients([one.detach() for one in logits]))
        together, *others = (_levelled(*one) for one in zip(gradients, self.spreads, strict=True))
        for other in others:
            together.add_(other)
        return together.div_(len(gradients))


@register("advface", kind="protector")
class AdvFace(Protector):
    """The plug-in; `AdvFace.fit` trains its shadows.

    Args:
        recognizer: The recogniser, which stays as it is.
        config: Settings.
        shadows: A decoder for each of `config.shadows`.
        statistics: Of the recogniser's features at the cut.
        provenance: Where shadows and statistics come from.
    """

    keyed: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    accelerated: ClassVar[bool] = True
    Config = AdvFaceConfig
    Training = ShadowTraining
    config: AdvFaceConfig

    def __init__(
        self,
        recognizer: Surrogate,
        config: AdvFaceConfig,
        shadows: Sequence[nn.Sequential],
        statistics: ChannelStatistics,
        *,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(recognizer, provenance=provenance)
        if len(shadows) != len(config.shadows):
            raise UsageError(
                f"{len(config.shadows)} shadow decoders are named and {len(shadows)} given.", hint="Fit AdvFace again."
            )
        self.config = config
        self.front, self.back = split_recognizer(recognizer, config.split)
        self.kind: Kind = "template" if self.front.cut.name == TEMPLATE else "feature"
        self.split = self.front.cut.name
        self.storage, self.row_shape = config.storage, self.front.cut.shape
        self.statistics = statistics
        self._parts = _packed(shadows, statistics)
        for place, shadow in enumerate(shadows):  # compute with what is kept, not with what was rounded
            shadow.load_state_dict(_state_of(self._parts, place))
        self.shadows = [fused(shadow) for shadow in shadows]

    @classmethod
    def fit(cls, images: Tensor, config: AdvFaceConfig, training: ShadowTraining, work: FitWork) -> Self:
        """Train the shadow decoders, or go on training them; see `Protector.fit`.

        Raises:
            UsageError: as there, and when the recogniser cannot be cut there.
        """
        schedule = Schedule(training.epochs, training.batch, training.rate, work.seed)
        work.require_faces(images)
        recognizer = work.recognizer
        where = find_device(work.device)
        front, _ = split_recognizer(recognizer, config.split)
        front.to(where)

        def features(part: Tensor) -> Tensor:
            with torch.no_grad():
                values: Tensor = front(retemplate(part.to(where), recognizer.card.template))
            return values.to(part.device)

        key = f"{recognizer.card.sha256} {front.cut.name}"
        shadows: list[nn.Sequential] = []
        facts = {name: value for name, value in schedule.to_dict().items() if name != "seed"}
        for text in config.shadows:
            shadow, figures = fit_shadow(
                Shadow.parse(text), features, images, schedule, key=key, device=where, work=work.folder,
                progress=work.progress,
            )  # fmt: skip
            shadows.append(shadow)
            facts |= {f"{text}_{name}".replace(".", "_"): value for name, value in plain_figures(figures).items()}
        statistics = ChannelStatistics.of(calibration(features, images)[0])
        front.to("cpu")  # it shares the recogniser
        return cls(recognizer, config, shadows, statistics, provenance=work.provenance(images, *facts.items()))

    def protect(self, images: Tensor, generator: torch.Generator, key: bytes | None = None) -> Representation:
        """Adversarial features of faces (N, 3, 112, 112) in [0, 1]; see `Protector.protect`.

        Args:
            images: The faces.
            generator: Of the noise and the random start; with neither, nothing is drawn.
            key: Of the broken reference `lock`, for the benchmark; at least 16 random bytes.

        Raises:
            UsageError: when images or key have another form.
            NumericalFailure: when a network answers with NaN or infinity.
        """
        self.require_images(images)
        self.require_key(key)
        parts = self._parts_of(images)
        with torch.no_grad():
            features = [self.front(self.crops(part)) for part in parts]
        stored = torch.cat([self.disturb(part, generator) for part in features])
        low, high = self.statistics.low, self.statistics.high
        if key is not None:
            stored = self.lock(stored, key)
            reach = ((torch.stack([low, high]) - self.statistics.mean) / self.statistics.std).abs().max()
            low, high = -reach.expand(stored.shape[1]), reach.expand(stored.shape[1])
        return self.represent(stored, key).stored_as(self.config.storage, low=low.cpu(), high=high.cpu())

    def to(self, device: torch.device | str) -> Self:
        """Move recogniser, front, back, shadows and statistics; see `Protector.to`."""
        for network in (self.front, self.back, *self.shadows):
            network.to(device)
        kept = {field.name: getattr(self.statistics, field.name).to(device) for field in fields(self.statistics)}
        self.statistics = ChannelStatistics(**kept)
        return super().to(device)

    def _parts_of(self, values: Tensor) -> list[Tensor]:
        """Values on the networks' device, so many at a time as suit it."""
        count = CHUNK if self.device.type == "cpu" else DEVICE_CHUNK
        return [part.to(self.device) for part in torch.split(values, count)]

    def disturb(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Features (N, ...) with adversarial noise, within `epsilon` standard deviations of each channel.

        Args:
            features: Clean features, of `front`.
            generator: Of the noise and the random start.
        """
        config, std, looks = self.config, self._by_channel(self.statistics.std), self.config.looks
        if features.dim() == 4:
            features = features.contiguous(memory_format=torch.channels_last)
        if config.noise:
            drawn = torch.randn(features.shape, generator=generator).to(features.device)
            features = features + config.noise * std * drawn
            if config.in_range:
                features = torch.minimum(
                    torch.maximum(features, self._by_channel(self.statistics.low)),
                    self._by_channel(self.statistics.high),
                )
        with torch.no_grad():
            cycle = self._cycle(features, std)
            template = self.back(features) if looks else None
        bounds = self._bounds(features, std)
        # In standard deviations, in which every channel has the same budget.
        noise = torch.zeros_like(features)
        if config.anchor == "self":
            drawn = torch.rand(features.shape, generator=generator).to(features.device)
            noise = config.epsilon * config.step * (2 * drawn - 1)
        momentum, identity = torch.zeros_like(features), torch.zeros_like(features)
        for iteration in range(config.iterations):
            gradient = cycle.gradient(noise)
            if template is not None and iteration >= looks.start:  # at first there is nothing to keep
                if iteration in looks:
                    identity = self._identity_gradient(features, noise, std, template)
                gradient = gradient.sub_(identity, alpha=config.identity)
            if config.momentum:
                momentum = gradient = gradient.add_(momentum, alpha=config.momentum)
            noise = self._project(self._stepped(noise, gradient), bounds)
        return features + noise * std

    def _cycle(self, features: Tensor, std: Tensor) -> _Cycle:
        """What the first shadow makes of features, and where the noise that all are to be misled by is added."""
        images = self.shadows[0](features)
        anchor = self.front(self.crops(images)) if self.config.anchor == "shadow" else features
        decoders, anchors, spreads, starts = [], [], [], []
        for first, network, last in self.shadows:
            assert isinstance(first, Standardise)
            assert isinstance(last, Face)
            decoders.append(network)
            anchors.append(first(anchor))
            spreads.append(std / first.scale)
            starts.append(last.start)
        return _Cycle(decoders, anchors, spreads, ShadowLoss(images, starts, self.config.structure))

    def _identity_gradient(self, features: Tensor, noise: Tensor, std: Tensor, template: Tensor) -> Tensor:
        """Of 1 - cosine to the clean template, levelled, and as long as that is large."""
        with torch.enable_grad():
            variable = torch.addcmul(features, noise, std).requires_grad_()
            distance = 1 - (self.back(variable) * template).sum(1)
            (gradient,) = torch.autograd.grad(distance.sum(), variable)
        weight = (distance.detach() / KEPT).reshape(-1, *[1] * (gradient.dim() - 1))
        return _levelled(gradient, std).mul_(weight)

    def _stepped(self, noise: Tensor, gradient: Tensor) -> Tensor:
        """The noise after a step along the gradient, in place."""
        length = self.config.epsilon * self.config.step
        if self.config.norm == "linf":
            return noise.add_(gradient.sign(), alpha=length)
        return noise.add_(length * gradient / _root_mean_square(gradient).clamp_min(1e-20))

    def _bounds(self, features: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Of the noise, in standard deviations: the box, and the range of clean features."""
        low, high = torch.full_like(features, -math.inf), torch.full_like(features, math.inf)
        if self.config.in_range:
            # A face beyond the calibrated range is not pulled back into it, only not pushed further out.
            low = ((self._by_channel(self.statistics.low) - features) / std).clamp_max(0)
            high = ((self._by_channel(self.statistics.high) - features) / std).clamp_min(0)
        if self.config.norm == "linf":
            low, high = low.clamp_min(-self.config.epsilon), high.clamp_max(self.config.epsilon)
        return low, high

    def _project(self, noise: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
        if self.config.norm == "l2":
            noise = noise * (self.config.epsilon / _root_mean_square(noise).clamp_min(1e-20)).clamp_max(1)
        return noise.clamp_(*bounds)

    def templates(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """Templates of the stored features, by the unchanged recogniser; see `Protector.templates`."""
        with torch.no_grad():
            return torch.cat([self.back(part) for part in self._parts_of(self.features(representation, key))]).cpu()

    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """What the first shadow decoder sees in it, as the paper shows its features; see `Protector.to_image`."""
        with torch.no_grad():
            parts = self._parts_of(self.features(representation, key))
            return torch.cat([self.shadows[0](part) for part in parts]).cpu()

    def features(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The stored features (N, ...) float32, unlocked.

        Raises:
            UsageError: when they are another protector's, or locked by another key.
        """
        self.require_own(representation, key)
        values = representation.values()
        return values if key is None else self.unlock(values.to(self.device), key).cpu()

    def unlocked(self, representation: Representation, key: bytes) -> Representation:
        """What `protect` with a key stored, as `protect` without one stores it: to seal what was locked before.

        Raises:
            UsageError: when it is another protector's, or locked by another key.
        """
        low, high = self.statistics.low.cpu(), self.statistics.high.cpu()
        return self.represent(self.features(representation, key)).stored_as(self.storage, low=low, high=high)

    def lock(self, features: Tensor, key: bytes) -> Tensor:
        """Features (N, ...) turned by a key: a broken reference, which the benchmark attacks; see `keys`.

        They are standardised by channel. A template is then rotated by a random orthogonal matrix, a feature gets a
        random sign for each number and all its numbers change places, both drawn from the key by SHAKE-256. A thief of
        the rows alone undoes most of it from their statistics.
        """
        return turn(self._standardised(features), key, rotated=self.kind == "template")

    def unlock(self, values: Tensor, key: bytes) -> Tensor:
        """What `lock` locked."""
        standardised = turn(values, key, rotated=self.kind == "template", back=True)
        return standardised * self._by_channel(self.statistics.std) + self._by_channel(self.statistics.mean)

    def _standardised(self, features: Tensor) -> Tensor:
        return (features - self._by_channel(self.statistics.mean)) / self._by_channel(self.statistics.std)

    def _by_channel(self, values: Tensor) -> Tensor:
        return values.reshape(1, -1, *[1] * (len(self.front.cut.shape) - 1))

    def settings(self) -> dict[str, Any]:
        """Plain values."""
        return self.config.to_dict()

    def parts(self) -> dict[str, Tensor]:
        """Shadow decoders, rounded to float16, and statistics."""
        return self._parts

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """AdvFace with these settings and parts; see `Protector.restore`."""
        config = AdvFaceConfig.of(settings)
        shape = split_recognizer(recognizer, config.split)[0].cut.shape
        with torch.device("meta"):  # settings may ask for decoders of any size: first see whether they are there
            shadows = [
                start_decoder(one.decoder, torch.zeros(2, *shape), torch.zeros(3, SIDE, SIDE), one.channels, 0)
                for one in map(Shadow.parse, config.shadows)
            ]
            blank = ChannelStatistics(*(torch.zeros(shape[:1]) for _ in fields(ChannelStatistics)))
        require_parts(parts, _packed(shadows, blank))
        for place, shadow in enumerate(shadows):
            shadow.load_state_dict(_state_of(parts, place), assign=True)
        statistics = ChannelStatistics(**{field.name: parts[field.name] for field in fields(ChannelStatistics)})
        require_positive(parts, ["std", *(f"shadow.{place}.0.scale" for place in range(len(shadows)))])
        require_positive(parts, [name for name in parts if name.endswith(".running_var")], zero=True)
        if bool((statistics.low > statistics.high).any()):
            raise WeightsCorrupt("The learned range of a channel ends below its start.", hint="Fit it again.")
        return cls(recognizer, config, shadows, statistics, provenance=provenance)


def _levelled(gradient: Tensor, std: Tensor) -> Tensor:
    """Gradient by a feature, turned into that by its noise in `std` and brought to length 1, in place."""
    gradient = gradient.mul_(std)
    length = torch.linalg.vector_norm(gradient, dim=tuple(range(1, gradient.dim())), keepdim=True)
    return gradient.div_(length.clamp_min_(1e-20))


def _root_mean_square(values: Tensor) -> Tensor:
    return values.square().mean(tuple(range(1, values.dim())), keepdim=True).sqrt()


def _packed(shadows: Sequence[nn.Module], statistics: ChannelStatistics) -> dict[str, Tensor]:
    parts = {field.name: getattr(statistics, field.name) for field in fields(statistics)}
    for place, shadow in enumerate(shadows):
        for name, value in shadow.state_dict().items():
            large = value.is_floating_point() and value.numel() > SMALL
            parts[f"shadow.{place}.{name}"] = value.detach().half() if large else value.detach().clone()
    return parts


def _state_of(parts: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
    start = f"shadow.{place}."
    return {
        name.removeprefix(start): value.float() if value.is_floating_point() else value
        for name, value in parts.items()
        if name.startswith(start)
    }
