"""Recognisers of masked faces: the protectors that are a masking and the network that learned to read it.

Here, unlike in `AdvFace`, the recogniser does not stay as it is. A masked face is nothing that it could read, so a copy
of it gets a stem (`bauta.templates.masked.network`) and learns anew (`bauta.templates.masked.training`). Where stored
faces are hidden from it, a second copy, the reader, finds their templates (`bauta.templates.masked.reader`).

What is stored is the masked face. Whoever stands at the door is masked too, there, and not mixed with others, since
nobody stores that: `Protector.probe`. The clean recogniser reads no masked face, and that of masked faces no other:
each refuses what another protector made, by name and hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bauta import metrics
from bauta.errors import UsageError, WeightsCorrupt
from bauta.learning.fitted import Provenance
from bauta.rates import FMRS
from bauta.recognizers.surrogates import Surrogate
from bauta.registry import register
from bauta.tables import shown, within
from bauta.templates.base import Protector, unknown_generator
from bauta.templates.fit import FitWork, as_images, plain_figures
from bauta.templates.loading import require_order, require_parts, require_positive
from bauta.templates.masked.dct import FREQUENCIES
from bauta.templates.masked.frequency import PrivacyBudget, RandomSubset, ShuffledMask, ShuffledResidue
from bauta.templates.masked.hybrid_masking import FixedMixture, HybridMask
from bauta.templates.masked.masking import GaussianNoise, Masking, MaskingConfig, Unmasked
from bauta.templates.masked.mixing import PixelMixing
from bauta.templates.masked.network import HALF, MaskedNetwork
from bauta.templates.masked.reader import MaskedReader
from bauta.templates.masked.training import MaskedTrainer, MaskedTraining
from bauta.templates.representation import Kind, Representation

WATCHED = 128  # faces from which thresholds are taken
FALSE_MATCHES = 5  # that must be among their scores for a threshold to mean something
_THRESHOLD = "threshold_at_fmr_"
SMALL = 64  # elements up to which a learned tensor is kept in float32
_CHUNK = 16


class MaskedRecognition(Protector):
    """A masking, and the recogniser that learned to read it; each registered method names its masking.

    Args:
        recognizer: The clean recogniser that it was made of: `clean` is what that says.
        masking: In evaluation mode.
        network: Likewise.
        provenance: Where the learned parts come from.
    """

    learns: ClassVar[bool] = True
    Made: ClassVar[type[Masking]]
    Training = MaskedTraining

    def __init_subclass__(cls) -> None:
        cls.Config = cls.Made.Config

    def __init__(
        self,
        recognizer: Surrogate,
        masking: Masking,
        network: MaskedNetwork,
        *,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(recognizer, provenance=provenance)
        self.masking, self.network = masking.eval().requires_grad_(False), network.eval()
        self.kind: Kind = masking.kind
        self.storage, self.row_shape = masking.config.storage, masking.shape
        self._parts = _packed(masking, network)
        _load(masking, network, self._parts)  # compute with what is kept, not with what was rounded
        network.freeze()
        self.reader = MaskedReader(network, masking)

    @classmethod
    def fit(cls, images: Tensor, config: MaskingConfig, training: MaskedTraining, work: FitWork) -> Self:
        """Make a recogniser of masked faces, or go on making it; see `Protector.fit`.

        Without names there is no margin to fine-tune with. With 40 people and more, one in twenty is not learned from
        but watched.
        """
        work.require_faces(images)
        masking = cls.Made(config)
        network = _network(work.recognizer, masking)  # a reader of its own comes later, when there is something to read
        trainer = MaskedTrainer(images, masking, network, training, work)
        figures = trainer.train(cls.card.name)
        provenance = work.provenance(
            images,
            *training.to_dict().items(),
            *((name.replace(" ", "_"), value) for name, value in plain_figures(figures).items()),
            learned=len(trainer.pixels),
        )
        made = cls(work.recognizer, masking, network, provenance=provenance)
        limits = made._calibrated(as_images(trainer.watched[:WATCHED]), trainer.watched_people[:WATCHED], work.seed)
        made.provenance = replace(provenance, training=(*provenance.training, *limits))
        return made

    def _calibrated(self, images: Tensor, people: Tensor, seed: int) -> list[tuple[str, float]]:
        """Thresholds of stored faces against probes of other people, of whom nothing was learned; see `thresholds`."""
        other = (people[:, None] != people).numpy()
        if not other.any():
            return []
        generator = torch.Generator().manual_seed(seed)
        gallery = self.templates(self.protect(images, generator))
        with torch.no_grad():
            scores = (gallery @ self.probe(images, generator).T).numpy()[other]
        return [
            (f"{_THRESHOLD}{fmr:.0e}", round(metrics.threshold_at_fmr(scores, fmr), 4))
            for fmr in FMRS
            if len(scores) * fmr >= FALSE_MATCHES
        ]

    def to(self, device: torch.device | str) -> Self:
        """Masked faces are computed on the CPU; see `Protector.to`.

        Raises:
            UsageError: when another device is asked for.
        """
        if torch.device(device).type != "cpu":
            raise UsageError(f"{self.name} computes on the CPU only, not on {device}.", hint="Leave device out.")
        return super().to(device)

    def mask(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Faces (N, 3, 112, 112) masked, under autograd: (N, C, H, W), before the recogniser is asked about any."""
        values: Tensor = self.masking(images, generator)
        return values

    def protect(self, images: Tensor, generator: torch.Generator, key: bytes | None = None) -> Representation:
        """The masked faces; see `Protector.protect`."""
        self.require_images(images)
        self.require_key(key)
        with torch.no_grad():
            values = torch.cat([self.masking.stored(part, self.reader, generator) for part in _parts(images)])
        if self.storage == "float16":  # much noise may be larger than the largest number there is
            values = values.clamp(-HALF, HALF)
        return self.represent(values).stored_as(self.storage)

    def see(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Unit-norm templates (N, D) of faces (N, 3, 112, 112), each masked alone as at the door, under autograd."""
        return self.reader.recognise(self.reader.look(images, generator))

    def templates(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """Templates of masked faces by the recogniser that reads them; see `Protector.templates`."""
        self.require_own(representation, key)
        with torch.no_grad():
            parts = _parts(representation.values())
            return torch.cat([self.network.read(self.network.unmask(part.float())) for part in parts])

    @property
    def thresholds(self) -> dict[float, float]:
        """Measured at the fitting on the people who were watched, at most `WATCHED` of their faces, where they make at
        least `FALSE_MATCHES` false matches; see `Protector.thresholds`."""
        facts = dict(self.provenance.training)
        found = {fmr: facts.get(f"{_THRESHOLD}{fmr:.0e}") for fmr in FMRS}
        return {fmr: float(limit) for fmr, limit in found.items() if limit is not None}

    def probe(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Templates of faces that are masked to be compared, and not stored; see `Protector.probe`."""
        self.require_images(images)
        drawn = unknown_generator() if generator is None else generator
        return torch.cat([self.network(self.masking.single(part, drawn)) for part in _parts(images)])

    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The picture that the numbers are, or that they are the mask of; see `Masking.picture` and `viewer`."""
        self.require_own(representation, key)
        viewer = self.viewer
        show = self.masking.picture if viewer is None else lambda values: viewer(values).clamp(0, 1)
        with torch.no_grad():
            return torch.cat([show(part) for part in _parts(representation.values())])

    @property
    def viewer(self) -> nn.Module | None:
        """The stem, which undoes the mask as far as it can be undone; see `Protector.viewer`."""
        return self.network.stem if self.kind == "frequency" else None

    def settings(self) -> dict[str, Any]:
        """Plain values."""
        return self.masking.config.to_dict()

    def parts(self) -> dict[str, Tensor]:
        """What masking and recogniser learned, large tensors rounded to float16."""
        return self._parts

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The protector again; see `Protector.restore`."""
        masking = cls.Made(cls.Made.Config.of(settings))
        masking.require_parts({name.removeprefix(_MASKING): one for name, one in parts.items()})
        network = _network(recognizer, masking, apart=masking.apart)
        _load(masking, network, parts)
        _require_sound(parts)
        for fmr in FMRS:
            limit = dict(provenance.training).get(f"{_THRESHOLD}{fmr:.0e}", 0.0)
            if not within(limit, -1, 1):
                raise UsageError(
                    f"The threshold at FMR {fmr:g} is {shown(limit)}.", hint="It is a cosine, from -1 to 1."
                )
        return cls(recognizer, masking, network, provenance=provenance)


_MASKING, _NETWORK = "masking.", "network."
_STEM = f"{_NETWORK}stem."  # not rounded: what it gets wrong is added up over the whole face


def _network(recognizer: Surrogate, masking: Masking, *, apart: bool = False) -> MaskedNetwork:
    return MaskedNetwork(
        recognizer, masking.shape, absolute=masking.unsigned, images=masking.kind == "image", apart=apart
    )  # fmt: skip


def _states(masking: Masking, network: MaskedNetwork) -> dict[str, Tensor]:
    own = {
        f"{_MASKING}{name}": value for name, value in masking.state_dict().items() if "dct" not in name.split(".")
    }  # the front end is not a secret and never learned
    return own | {f"{_NETWORK}{name}": value for name, value in network.state_dict().items()}


def _packed(masking: Masking, network: MaskedNetwork) -> dict[str, Tensor]:
    return {
        name: value.detach().half()
        if value.is_floating_point() and value.numel() > SMALL and not name.startswith(_STEM)
        else value.detach().clone().contiguous()
        for name, value in _states(masking, network).items()
    }


def _load(masking: Masking, network: MaskedNetwork, parts: Mapping[str, Tensor]) -> None:
    require_parts(parts, _packed(masking, network))
    for name, value in _states(masking, network).items():
        with torch.no_grad():
            value.copy_(parts[name])
    network.forget_plans()


def _require_sound(parts: Mapping[str, Tensor]) -> None:
    """Let through numbers that something can be divided by, and orders of what there is.

    Raises:
        WeightsCorrupt: naming the part.
    """
    require_positive(parts, [f"{_STEM}scale", f"{_MASKING}render.scale"])
    require_positive(parts, [name for name in parts if name.endswith((".running_var", ".sensitivities"))], zero=True)
    for start in (_MASKING, f"{_MASKING}mask."):
        require_positive(parts, [f"{start}spread"])
        require_order(parts, f"{start}permutations", 9)
        for name in (f"{start}first", f"{start}second"):
            require_order(parts, name, len(parts.get(name, ())))
        chosen = parts.get(f"{start}chosen")
        if chosen is not None and not bool(((chosen >= 1) & (chosen < FREQUENCIES)).all()):
            raise WeightsCorrupt(
                f"The learned part {start}chosen names frequencies that there are not, or that show the face.",
                hint="Fit the protector again.",
            )


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = values.split(_CHUNK)  # type: ignore[no-untyped-call]
    return parts


# The methods


@register("unprotected", kind="protector")
class Unprotected(MaskedRecognition):
    """Nothing masked, everything else the same: what every masked row is compared with."""

    Made = Unmasked


@register("gaussian-noise", kind="protector")
class NoiseRecognition(MaskedRecognition):
    """Gaussian noise, and a recogniser that learned to see through it."""

    Made = GaussianNoise


@register("mixup", kind="protector")
class PixelMixup(MaskedRecognition):
    """Faces mixed in pixels, and with ``signs`` InstaHide."""

    Made = PixelMixing


@register("ppfr-fd", kind="protector")
class PpfrFd(MaskedRecognition):
    """See `bauta.templates.masked.frequency.ShuffledMask`."""

    Made = ShuffledMask


@register("frequency-mixup", kind="protector")
class FrequencyMixup(MaskedRecognition):
    """The mask of PPFR-FD, and a fixed number of faces mixed."""

    Made = FixedMixture


@register("hybrid-masking", kind="protector")
class HybridMasking(MaskedRecognition):
    """See `bauta.templates.masked.hybrid_masking`."""

    Made = HybridMask


@register("dctdp", kind="protector")
class Dctdp(MaskedRecognition):
    """See `bauta.templates.masked.frequency.PrivacyBudget`."""

    Made = PrivacyBudget


@register("partialface", kind="protector")
class PartialFace(MaskedRecognition):
    """See `bauta.templates.masked.frequency.RandomSubset`."""

    Made = RandomSubset


@register("minusface", kind="protector")
class MinusFace(MaskedRecognition):
    """See `bauta.templates.masked.frequency.ShuffledResidue`."""

    Made = ShuffledResidue
