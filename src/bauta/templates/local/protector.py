"""Local features with stochastic anonymisation: an image that recognisers accept and that has lost how the face looks.

After *Local Features Meet Stochastic Anonymization* (arXiv 2412.08276), of which only the abstract was reachable. It
says: methods made for one recogniser fail on others; reversible encodings are learned back; recognisers live on local
features, so that global ones can be disrupted and local ones enhanced; an anonymiser learns against an adversary, with
irreversible randomness injected. Everything else is our design: all formulas, networks, losses and numbers.

::

    h  = gain * HP(x) / (local deviation of HP(x) + floor)      HP(x) = x - blur(x, sigma), of the luminance
    g  = level + a smooth random field of brightness and of colour, drawn for each face
    y0 = clip(g + dropout(h) + noise)                           train-free: `bits` levels of it are the output
    y  = clip(y0 + reach * tanh(A(y0, g, noise)))               learned: see `bauta.templates.local.anonymisers`
    y  = a face of nobody with the identity in its texture      optimised: see `bauta.templates.local.stand_ins`

What is drawn is kept nowhere. By default it comes from the operating system, so that there is no seed: a generator of
torch's on the CPU has 32 bits of it at most, which an attacker tries out. Experiments pass a generator.

The image serves recognisers that nobody named, so it tells who it is, and links. What is protected is how the face
looks; see docs/local-features.md for how far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from bauta.errors import UsageError
from bauta.learning.fitted import Provenance
from bauta.learning.learners import Schedule
from bauta.recognizers.surrogates import Surrogate, load_surrogate
from bauta.registry import register
from bauta.templates.base import ImageProtector
from bauta.templates.draws import Draws
from bauta.templates.fit import FitWork, plain_figures
from bauta.templates.loading import require_parts
from bauta.templates.local.anonymisers import Anonymiser, AnonymiserTraining, fit_anonymiser
from bauta.templates.local.composition import LocalFeaturesConfig, compose, cut_bits
from bauta.templates.local.stand_ins import StandIns, write_identity
from bauta.templates.representation import Representation, Storage

CHUNK = 32  # faces at a time


@register("local-features", kind="protector")
class LocalFeatures(ImageProtector):
    """Stores an anonymised image; `LocalFeatures.fit` makes what the learned and the optimised mode need.

    Args:
        recognizer: The recogniser of the deployment, one of many that the image is for.
        config: Settings.
        anonymiser: The network of the learned mode.
        stand_ins: The faces of nobody of the optimised mode.
        provenance: Where they come from.

    Raises:
        UsageError: when mode and parts do not go together.
    """

    learns: ClassVar[bool] = True
    accelerated: ClassVar[bool] = True
    Config = LocalFeaturesConfig
    storage: Storage = "uint8"
    Training = AnonymiserTraining

    def __init__(
        self,
        recognizer: Surrogate,
        config: LocalFeaturesConfig | None = None,
        anonymiser: nn.Module | None = None,
        stand_ins: StandIns | None = None,
        *,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(recognizer, provenance=provenance)
        self.config = config or LocalFeaturesConfig()
        for mode, what, part in (("learned", "network", anonymiser), ("optimised", "faces of nobody", stand_ins)):
            if (self.config.mode == mode) != (part is not None):
                raise UsageError(
                    f"The {self.config.mode} mode {'has no' if part is None else 'takes no'} {what}.",
                    hint="Fit the protector: `bauta templates fit --method local-features`.",
                )
        self.anonymiser = None if anonymiser is None else anonymiser.eval().requires_grad_(False)
        self.stand_ins = stand_ins
        self.teachers = self.config.surrogates
        self._parts: dict[str, Tensor] = {}
        if self.anonymiser is not None:
            state = self.anonymiser.state_dict()
            self._parts = {f"anonymiser.{name}": value.detach().cpu().half() for name, value in state.items()}
            # Compute with what is kept, not with what was rounded.
            self.anonymiser.load_state_dict(_state_of(self._parts, "anonymiser"))
        if self.stand_ins is not None:
            self._parts = {f"stand_ins.{name}": value for name, value in self.stand_ins.state_dict().items()}

    @classmethod
    def fit(cls, images: Tensor, config: LocalFeaturesConfig, training: AnonymiserTraining, work: FitWork) -> Self:
        """The protector; in the learned mode its network is trained, or goes on being trained; see `Protector.fit`.

        The train-free mode does not look at the images; the optimised one draws its faces of nobody from a model of
        them.

        Raises:
            UsageError: as there, and when surrogates are too few or the same network twice.
            RoleRefused: when a surrogate's card allows it to judge only.
        """
        if config.mode == "train-free":
            return cls(work.recognizer, config)
        work.require_faces(images)
        schedule = Schedule(training.epochs, training.batch, training.rate, work.seed)
        surrogates = _load_surrogates(config.surrogates)
        anonymiser: nn.Module | None = None
        stand_ins: StandIns | None = None
        learned: dict[str, Any] = {}
        if config.mode == "learned":
            anonymiser, figures = fit_anonymiser(
                config, training.losses, surrogates, images, schedule, device=work.device, work=work.folder,
                progress=work.progress,
            )  # fmt: skip
            learned = {name: value for name, value in schedule.to_dict().items() if name != "seed"}
            learned |= {f"weight_{name}": value for name, value in training.losses.to_dict().items()}
            learned |= plain_figures(figures)
        else:
            stand_ins = StandIns(config.components)
            stand_ins.learn(images)
        named = [(f"surrogate_{place}", _named(one)) for place, one in enumerate(surrogates)]
        provenance = work.provenance(images, *named, *learned.items())
        return cls(work.recognizer, config, anonymiser, stand_ins, provenance=provenance)

    def protect(
        self, images: Tensor, generator: torch.Generator | None = None, key: bytes | None = None
    ) -> Representation:
        """Anonymised images of faces (N, 3, 112, 112) in [0, 1], stored in 8 bits; see `Protector.protect`.

        Args:
            images: The faces.
            generator: Of an experiment. Without one, as it should be, randomness is the operating system's: nobody
                has its seed.
            key: None; the method has no key.

        Raises:
            UsageError: when images have another form, or a key is given.
            NumericalFailure: when the network answers with NaN.
        """
        self.require_images(images)
        self.require_key(key)
        draws = Draws(generator)
        with torch.no_grad():
            made = torch.cat([self.anonymise(part, draws) for part in _parts(images)])
        low, high = torch.zeros(3), torch.ones(3)
        return self.represent(made).stored_as("uint8", low=low, high=high)

    def protect_anew(self, images: Tensor, key: bytes | None = None) -> Representation:
        """`protect` with the operating system's randomness."""
        return self.protect(images, None, key)

    @cached_property
    def surrogates(self) -> list[Surrogate]:
        """The recognisers that the optimised mode asks: only who protects needs them.

        Raises:
            RecognizerError: when one cannot be loaded.
            UsageError: when one is not the network of the fitting.
        """
        found = _load_surrogates(self.config.surrogates)
        fitted = dict(self.provenance.training)
        for place, one in enumerate(found):
            if fitted.get(f"surrogate_{place}", _named(one)) != _named(one):
                raise UsageError(
                    f"{one.card.name!r} is not the network that the protector was fitted with.",
                    hint="Fit the protector again.",
                )
        return found

    def to(self, device: torch.device | str) -> Self:
        """Move recogniser, network and surrogates; faces of nobody are drawn on the CPU. See `Protector.to`."""
        if self.anonymiser is not None:
            self.anonymiser.to(device)
        if self.stand_ins is not None:
            for surrogate in self.surrogates:
                surrogate.to(device)
        return super().to(device)

    def anonymise(self, images: Tensor, draws: Draws) -> Tensor:
        """(N, 3, 112, 112) in [0, 1] of faces of that shape: the output, in `bits` of each colour."""
        images = images.to(self.device)
        if self.stand_ins is not None:
            nobody = self.stand_ins.draw(len(images), draws).to(self.device)
            return cut_bits(write_identity(nobody, images, self.surrogates, self.config, draws), self.config.bits)
        mixed, field = compose(images, self.config, draws)
        if self.anonymiser is not None:
            change = torch.tanh(self.anonymiser(mixed, field, draws))
            mixed = (mixed + self.config.reach * change).clamp(0, 1)
        return cut_bits(mixed, self.config.bits)

    def settings(self) -> dict[str, Any]:
        """Plain values."""
        return self.config.to_dict()

    def parts(self) -> dict[str, Tensor]:
        """The network, or the model of faces, in float16; nothing when train-free."""
        return self._parts

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The protector again; see `Protector.restore`."""
        config = LocalFeaturesConfig.of(settings)
        if config.mode == "train-free":
            return cls(recognizer, config, provenance=provenance)
        learned = config.mode == "learned"
        what = "anonymiser" if learned else "stand_ins"
        with torch.device("meta"):  # see whether it is there before there is memory for it
            blank: nn.Module = Anonymiser(config.channels) if learned else StandIns(config.components)
        require_parts(parts, {f"{what}.{name}": value.half() for name, value in blank.state_dict().items()})
        network: nn.Module = Anonymiser(config.channels) if learned else StandIns(config.components)
        network.load_state_dict(_state_of(parts, what))
        if isinstance(network, StandIns):
            return cls(recognizer, config, stand_ins=network, provenance=provenance)
        return cls(recognizer, config, network, provenance=provenance)


def _load_surrogates(names: Sequence[str]) -> list[Surrogate]:
    """The recognisers of these names.

    Raises:
        UsageError: when two are one network.
        RoleRefused: when the card of one allows it to judge only.
        RecognizerError: when one cannot be loaded.
    """
    surrogates = [load_surrogate(name) for name in names]
    if len({one.card.sha256 for one in surrogates}) < len(surrogates):
        raise UsageError(f"Two of the surrogates {', '.join(names)} are one network.", hint="Name different ones.")
    return surrogates


def _named(surrogate: Surrogate) -> str:
    return f"{surrogate.card.name} {surrogate.card.sha256}"


def _state_of(parts: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    start = f"{what}."
    return {name.removeprefix(start): value.float() for name, value in parts.items() if name.startswith(start)}


def _parts(images: Tensor) -> tuple[Tensor, ...]:
    return cast(tuple[Tensor, ...], images.split(CHUNK))  # type: ignore[no-untyped-call]
