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
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import UsageError, WeightsCorrupt
from bauta.learning.learners import Progress, Schedule
from bauta.objectives.transports import gaussian_blur
from bauta.objectives.visibility import luminance
from bauta.recognizers.surrogates import Surrogate, load_surrogate
from bauta.registry import register
from bauta.templates.advface.shadows import digest_of_pixels, plain_figures, require_faces
from bauta.templates.base import SIDE, ImageProtector, Provenance
from bauta.templates.draws import Draws
from bauta.templates.local.stand_ins import StandIns, write_identity
from bauta.templates.representation import Representation, Storage

Mode = Literal["train-free", "learned", "optimised"]
Preset = Literal["default", "accurate", "optimised"]

FEWEST_SURROGATES = 3
CHUNK = 32  # faces at a time
NOISE_LEVELS = 255  # of the stored image


@dataclass(frozen=True)
class LocalFeaturesConfig:
    """Settings; all numbers are our design.

    Attributes:
        mode: ``train-free`` learns nothing; ``learned`` puts a trained network behind it; ``optimised`` starts from a
            face of nobody and takes of the photo only what the surrogates' templates tell.
        sigma: Deviation in pixels of the blur that is taken away: what is coarser than that is lost.
        window: Deviation in pixels of the window in which contrast is measured.
        gain: Factor of the detail; with floor far above the contrasts of faces, gain / floor is the factor of the
            plain difference.
        floor: Contrast, in [0, 1] units of a pixel, up to which detail is not amplified to one level.
        colour: Whether detail keeps its colours.
        level: Mean brightness of the field.
        field: Deviation of the field's brightness over the image.
        chroma: Deviation of the field's colours.
        cells: Fewest and most random numbers along a side of the field.
        patches: Deviation of a random offset for each square of the field.
        patch: Side in pixels of these squares, and of those that dropout takes away.
        dropout: Share of squares without detail.
        noise: Deviation of Gaussian noise on every pixel.
        bits: Of each colour in the output.
        reach: Most that the learned network changes a sample.
        channels: Width of that network.
        surrogates: Names of the recognisers it learns from, three at least; empty when train-free.
        epsilon: Most that a sample of the face of nobody is changed when optimised, in 1/255.
        iterations: Steps of that.
        asked: Surrogates that are asked in each of them, in turn.
        components: Eigenfaces that faces of nobody are made of.
    """

    mode: Mode = "train-free"
    sigma: float = 6.0
    window: float = 10.0
    gain: float = 0.25
    floor: float = 0.02
    colour: bool = False
    level: float = 0.5
    field: float = 0.1
    chroma: float = 0.2
    cells: tuple[int, int] = (2, 3)
    patches: float = 0.0
    patch: int = 8
    dropout: float = 0.0
    noise: float = 0.02
    bits: int = 5
    reach: float = 0.2
    channels: int = 16
    surrogates: tuple[str, ...] = ()
    epsilon: float = 8.0
    iterations: int = 30
    asked: int = 2
    components: int = 64

    def __post_init__(self) -> None:
        checks = {
            "mode": self.mode in get_args(Mode),
            "sigma": 0.1 <= self.sigma <= 30,
            "window": 0.1 <= self.window <= 30,
            "gain": 0 < self.gain <= 1000,
            "floor": 1e-4 <= self.floor <= 1000,
            "level": 0 <= self.level <= 1,
            "field": 0 <= self.field <= 1,
            "chroma": 0 <= self.chroma <= 1,
            "colour": isinstance(self.colour, bool),
            "cells": list(map(type, self.cells)) == [int, int] and 2 <= self.cells[0] <= self.cells[1] <= SIDE,
            "patches": 0 <= self.patches <= 1,
            "patch": isinstance(self.patch, int) and 1 <= self.patch <= SIDE,
            "dropout": 0 <= self.dropout < 1,
            "noise": 0 <= self.noise <= 1,
            "bits": isinstance(self.bits, int) and 1 <= self.bits <= 8,
            "reach": 0 <= self.reach <= 1,
            "channels": isinstance(self.channels, int) and 4 <= self.channels <= 256 and self.channels % 4 == 0,
            "epsilon": 0 < self.epsilon <= 255,
            "iterations": isinstance(self.iterations, int) and 1 <= self.iterations <= 10_000,
            "asked": isinstance(self.asked, int) and 1 <= self.asked <= 64,
            "components": isinstance(self.components, int) and 1 <= self.components <= 1000,
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(
                    f"Local features cannot be made with {name}={getattr(self, name)!r}.",
                    hint="See LocalFeaturesConfig.",
                )
        if self.mode == "train-free" and self.surrogates:
            raise UsageError(
                "Surrogates are named, but the train-free mode learns from none.",
                hint="Set mode=learned or mode=optimised.",
            )
        if self.mode != "train-free" and len(set(self.surrogates)) < FEWEST_SURROGATES:
            raise UsageError(
                f"{len(set(self.surrogates))} different surrogates are too few to learn from: what is learned from one "
                "recogniser serves that one.",
                hint=f"Name {FEWEST_SURROGATES} at least: --set surrogates=first,second,third.",
            )

    @classmethod
    def accurate(cls) -> LocalFeaturesConfig:
        """Nearer to the accuracy of unprotected photos, and to how they look."""
        return cls(sigma=8.0, window=12.0, gain=0.18, chroma=0.1, noise=0.0)

    @classmethod
    def optimised(cls) -> LocalFeaturesConfig:
        """Faces of nobody whose texture tells three recognisers that ship with Bauta who it is."""
        return cls(mode="optimised", bits=8, surrogates=("mobilefacenet", "chip_resnet", "dlib_resnet"))

    @classmethod
    def of(cls, settings: Mapping[str, Any], preset: str = "default") -> LocalFeaturesConfig:
        """The preset with other settings; lists stand for tuples.

        Raises:
            UsageError: when there is no such preset or setting, or a value is not allowed.
        """
        if preset not in get_args(Preset):
            raise UsageError(
                f"Local features have no preset {preset!r}.", hint=f"There is {', '.join(get_args(Preset))}."
            )
        known = [one.name for one in fields(cls)]
        if unknown := sorted(settings.keys() - set(known)):
            raise UsageError(f"Local features have no setting {unknown[0]!r}.", hint=f"They have {', '.join(known)}.")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        if isinstance(given.get("surrogates"), str):
            given["surrogates"] = (given["surrogates"],)
        try:
            start = cls() if preset == "default" else cls.accurate() if preset == "accurate" else cls.optimised()
            return replace(start, **given)
        except TypeError as error:
            raise UsageError(
                f"A setting of local features has a wrong type: {error}.", hint="See its fields."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def local_detail(images: Tensor, config: LocalFeaturesConfig) -> Tensor:
    """The local part h: what a blur takes away, brought to one contrast.

    Args:
        images: (N, 3, H, W) in [0, 1].
        config: Its sigma, window, gain, floor and colour.

    Returns:
        (N, 1, H, W), or (N, 3, H, W) with colour; about 0.
    """
    source = images if config.colour else luminance(images)
    fine = source - gaussian_blur(source, config.sigma)
    contrast = gaussian_blur(fine.square().mean(1, keepdim=True), config.window).clamp_min(0).sqrt()
    return config.gain * fine / (contrast + config.floor)


def random_field(count: int, config: LocalFeaturesConfig, draws: Draws) -> Tensor:
    """The global part g, which no face has a say in.

    Each face has its own number of cells; brightness has mean `level` and deviation `field` exactly, before clipping,
    and colours are differences from it.

    Args:
        count: N.
        config: Its level, field, chroma, cells, patches and patch.
        draws: Randomness.

    Returns:
        (N, 3, 112, 112).
    """
    low, high = config.cells
    grids = draws.normal(count, 4, high, high)
    sizes = draws.whole(low, high, count)
    smooth = torch.empty(count, 4, SIDE, SIDE)
    for cells in range(low, high + 1):
        chosen = sizes == cells
        if bool(chosen.any()):
            corner = grids[chosen][:, :, :cells, :cells]
            smooth[chosen] = functional.interpolate(corner, (SIDE, SIDE), mode="bicubic", align_corners=False)
    smooth = smooth - smooth.mean((2, 3), keepdim=True)
    smooth = smooth / smooth.std((2, 3), keepdim=True, correction=0).clamp_min(1e-6)
    brightness, colours = smooth[:, :1], smooth[:, 1:] - smooth[:, 1:].mean(1, keepdim=True)
    field = config.level + config.field * brightness + config.chroma * colours
    if config.patches:
        field = field + config.patches * _squares(draws.normal(count, 1, *_grid(config)), config)
    return field


def compose(images: Tensor, config: LocalFeaturesConfig, draws: Draws) -> tuple[Tensor, Tensor]:
    """Field, detail, dropout and noise together: the train-free image before its bits are cut, and the field.

    Args:
        images: (N, 3, 112, 112) in [0, 1].
        config: Settings.
        draws: Randomness, from the CPU.

    Returns:
        (N, 3, 112, 112) in [0, 1], and the field (N, 3, 112, 112), on the images' device.
    """
    count = len(images)
    detail = local_detail(images, config)
    field = random_field(count, config, draws)
    if config.dropout:
        kept = (draws.uniform(count, 1, *_grid(config)) >= config.dropout).float()
        detail = detail * _squares(kept, config).to(images.device)
    field = field.to(images.device)
    mixed = field + detail
    if config.noise:
        mixed = mixed + config.noise * draws.normal(count, 1, SIDE, SIDE).to(images.device)
    return mixed.clamp(0, 1), field


def cut_bits(images: Tensor, bits: int) -> Tensor:
    """The nearest of 2^bits levels, and of those that 8 bits can store."""
    levels = (1 << bits) - 1
    coarse = (images * levels).round() / levels
    cut: Tensor = (coarse * NOISE_LEVELS).round() / NOISE_LEVELS
    return cut


def _grid(config: LocalFeaturesConfig) -> tuple[int, int]:
    side = -(-SIDE // config.patch)
    return side, side


def _squares(values: Tensor, config: LocalFeaturesConfig) -> Tensor:
    """Each number as a square of the image."""
    return values.repeat_interleave(config.patch, 2).repeat_interleave(config.patch, 3)[:, :, :SIDE, :SIDE]


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

    Config = LocalFeaturesConfig
    storage: Storage = "uint8"

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
    def fit(
        cls,
        images: Tensor,
        *,
        recognizer: Surrogate,
        generator: torch.Generator,
        preset: Preset = "default",
        epochs: int = 10,
        batch: int = 16,
        rate: float = 2e-4,
        people: Sequence[str] = (),
        licence: str = "not stated",
        data: str = "",
        work: Path | None = None,
        progress: Progress | None = None,
        device: str = "cpu",
        losses: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> LocalFeatures:
        """The protector; in the learned mode its network is trained, or goes on being trained.

        Args:
            images: (N, 3, 112, 112) uint8, or float32 in [0, 1]: faces of people who will never be stored, and whom
                no attacker of an evaluation learns from. The train-free mode does not look at them; the optimised one
                draws its faces of nobody from a model of them.
            recognizer: The recogniser of the deployment.
            generator: Not drawn from; its seed is the schedule's.
            preset: Settings to start from.
            epochs: Passes over the images.
            batch: Images in a step.
            rate: Adam's learning rate at the start.
            people: Name of the person on each image, to refuse a set of one person; empty when not known.
            licence: Terms of the network.
            data: What the images are, one line.
            work: Folder of the checkpoint.
            progress: Called with a stage, steps done and steps in all.
            device: Where to train, such as ``cuda``.
            losses: Fields of `bauta.templates.local.anonymisers.Losses` that differ from the defaults.
            settings: Fields of `LocalFeaturesConfig` that differ from the preset's.

        Raises:
            UsageError: when there is no such setting, surrogates are too few or the same network twice, images have
                another form, are too few or of one person, or a checkpoint is of other faces or settings.
            RoleRefused: when a surrogate's card allows it to judge only.
            RecognizerError: when a surrogate cannot be loaded.
            NumericalFailure: when a loss is no number; the checkpoint keeps the last good state.
        """
        from bauta.templates.local.anonymisers import Losses, fit_anonymiser

        config = LocalFeaturesConfig.of(settings, preset)
        weights = Losses.of(losses or {})
        if config.mode == "train-free":
            return cls(recognizer, config)
        require_faces(images)
        if people and len(people) != len(images):
            raise UsageError(f"{len(images)} faces have {len(people)} names.", hint="Name the person of each.")
        if people and len(set(people)) < 2:
            raise UsageError("All faces are of one person.", hint="Give faces of many people to learn from.")
        schedule = Schedule(epochs, batch, rate, generator.initial_seed() % (1 << 31))
        surrogates = _load_surrogates(config.surrogates)
        anonymiser: nn.Module | None = None
        stand_ins: StandIns | None = None
        learned: tuple[tuple[str, Any], ...] = ()
        if config.mode == "learned":
            anonymiser, figures = fit_anonymiser(
                config, weights, surrogates, images, schedule, device=device, work=work, progress=progress
            )
            learned = (
                *((name, value) for name, value in schedule.to_dict().items() if name != "seed"),
                *((f"weight_{name}", value) for name, value in asdict(weights).items()),
                *plain_figures(figures).items(),
            )
        else:
            stand_ins = StandIns(config.components)
            stand_ins.learn(images)
        provenance = Provenance(
            data=f"{data or f'{len(images)} faces'}, SHA-256 {digest_of_pixels(images)[:16]}",
            licence=licence,
            seed=schedule.seed,
            training=(
                ("faces", len(images)),
                *([("people", len(set(people)))] if people else []),
                *((f"surrogate_{place}", _named(one)) for place, one in enumerate(surrogates)),
                *learned,
            ),
        )
        return cls(recognizer, config, anonymiser, stand_ins, provenance=provenance)

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
        from bauta.templates.local.anonymisers import Anonymiser

        config = LocalFeaturesConfig.of(settings)
        if config.mode == "train-free":
            return cls(recognizer, config, provenance=provenance)
        learned = config.mode == "learned"
        network: nn.Module = Anonymiser(config.channels) if learned else StandIns(config.components)
        try:
            network.load_state_dict(_state_of(parts, "anonymiser" if learned else "stand_ins"))
        except RuntimeError as error:
            raise WeightsCorrupt(
                f"What the {config.mode} mode has learned is not there or has another form: {error}",
                hint="Fit the protector again.",
            ) from error
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
