"""Recognisers of masked faces: how they are made of a clean one, and the protectors that they are.

Here, unlike in `AdvFace`, the recogniser does not stay as it is. A masked face is nothing that it could read, so its
body gets a new stem and learns anew, in three stages, each the same for every masking and the unmasked row:

1. *stem*: the new stem finds the clean recogniser's first map in the masked face (least squares, then training);
2. *distillation*: stem and body find its template (1 - cosine, on training faces);
3. *fine-tuning*: the same, and the method's own loss, an ArcFace margin (Deng et al. 2019) on the names of all the
   faces in a mixture by their shares, its prototypes starting at the people's mean templates.

The published methods train for weeks on millions of faces from nothing. Ours start from a recogniser, since we have
thousands; compare a row with the unmasked row of the same training, and with no published figure. Stages, stem and
sizes are our design.

What is stored is the masked face. Whoever stands at the door is masked too, there, and not mixed with others, since
nobody stores that: `Protector.probe`. The clean recogniser reads no masked face, and that of masked faces no other:
each refuses what another protector made, by name and hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from bauta import metrics
from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt
from bauta.faces.templates import ARCFACE_112
from bauta.photo.files import write_atomically
from bauta.recognizers.onnx_import import trainable_copy
from bauta.recognizers.splits import list_cuts, split_recognizer
from bauta.recognizers.surrogates import Surrogate
from bauta.registry import register
from bauta.templates.base import SIDE, Protector, Provenance, crops_of
from bauta.templates.frequency import PrivacyBudget, RandomSubset, ShuffledMask, ShuffledResidue
from bauta.templates.hybrid_masking import FixedMixture, HybridMask
from bauta.templates.learners import Learner, Progress, Schedule, require_finite, train
from bauta.templates.locally_connected import LocallyConnected
from bauta.templates.masking import GaussianNoise, Lesson, Masked, Masking, Unmasked
from bauta.templates.mixing import PixelMixing
from bauta.templates.representation import Kind, Representation, Storage
from bauta.templates.shadows import as_images, digest_of_pixels, plain_figures, require_faces

SMALL = 64  # elements up to which a learned tensor is kept in float32
SOLVED = 48  # faces on which the linear part of a stem is solved
HIDDEN = 20  # one person in so many is watched and not learned from, where there are enough
_CHUNK = 16


@dataclass(frozen=True)
class Training:
    """How a recogniser of masked faces learns.

    Attributes:
        stem_epochs: Passes over the faces in which the stem alone learns, and what a masking learns before.
        epochs: Passes of the distillation.
        fine_tuning_epochs: Passes with the method's loss.
        batch: Faces in a step.
        rate: Learning rate at the start of the first two stages; in the third a quarter of it.
        margin: Angle of the ArcFace margin, in radians.
        scale: Of the cosines in its loss.
        margin_weight: Of that loss, beside the distillation's.
    """

    stem_epochs: int = 4
    epochs: int = 10
    fine_tuning_epochs: int = 4
    batch: int = 16
    rate: float = 5e-4
    margin: float = 0.4
    scale: float = 32.0
    margin_weight: float = 0.02

    def __post_init__(self) -> None:
        checks = {
            "stem_epochs": 1 <= self.stem_epochs <= 10_000,
            "epochs": 1 <= self.epochs <= 10_000,
            "fine_tuning_epochs": 1 <= self.fine_tuning_epochs <= 10_000,
            "batch": 2 <= self.batch <= 65_536,
            "rate": 0 < self.rate < 1,
            "margin": 0 <= self.margin < 1.5,
            "scale": 0 < self.scale <= 1000,
            "margin_weight": 0 <= self.margin_weight <= 1000,
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(f"Nothing learns with {name}={getattr(self, name)!r}.", hint="See Training.")


_FIELDS = tuple(field.name for field in fields(Training))


class Stem(nn.Module):
    """From values (N, C, H, W) to the first map (N, F, h, w) that the recogniser makes of a face.

    Standardised channels, a 1x1 convolution to `width` channels, a strided 3x3 convolution, and beside that a branch
    that is not linear and begins at nothing. Maskings are linear or nearly so, and so is the first map: `solve` finds
    the linear part by least squares, where training from random weights would take most of the time there is. Our
    design; the published methods widen the first convolution and train it from nothing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, int, int], feature: tuple[int, ...], width: int) -> None:
        super().__init__()
        outputs, self.side = feature[0], (feature[1], feature[2])
        self.register_buffer("mean", torch.zeros(shape[0], 1, 1))
        self.register_buffer("scale", torch.ones(shape[0], 1, 1))
        self.stride = max(1, round(shape[1] / feature[1]))
        self.reduce = nn.Conv2d(shape[0], width, 1, bias=False)
        self.linear = nn.Conv2d(width, outputs, 3, stride=self.stride, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(width, outputs, 3, stride=self.stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 1),
        )
        for parameter in self.branch[-1].parameters():
            nn.init.zeros_(parameter)

    def calibrate(self, parts: Sequence[Tensor]) -> None:
        """Take mean and deviation of each channel from values (n, C, H, W)."""
        means = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
        squares = torch.stack([part.square().mean((0, 2, 3)) for part in parts]).mean(0)
        std = (squares - means.square()).clamp_min(0).sqrt()
        self.mean.copy_(means[:, None, None])
        self.scale.copy_(torch.where(std > 1e-6, std, torch.ones(1))[:, None, None])

    @torch.no_grad()
    def solve(self, pairs: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator) -> None:
        """Set the linear part to the least squares of features (n, F, h, w) on values (n, C, H, W).

        One place in four is looked at; a ridge of a thousandth keeps channels that tell the same from quarrelling. The
        weights are then brought to `width` channels by their singular values.
        """
        channels, width, outputs = len(self.mean), self.reduce.out_channels, self.linear.out_channels
        size = 9 * channels + 1
        gram, cross = torch.zeros(size, size), torch.zeros(size, outputs)
        for values, feature in pairs:
            patches = functional.unfold((values - self.mean) / self.scale, 3, padding=1, stride=self.stride)
            side = 1 + (values.shape[2] - 1) // self.stride
            wanted = functional.adaptive_avg_pool2d(feature, (side, side)).flatten(2)
            places = torch.randperm(patches.shape[2], generator=generator)[: max(1, patches.shape[2] // 4)]
            rows = patches[:, :, places].transpose(1, 2).flatten(0, 1)
            rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
            gram += rows.T @ rows
            cross += rows.T @ wanted[:, :, places].transpose(1, 2).flatten(0, 1)
        gram += 1e-3 * gram.diagonal().mean() * torch.eye(size)
        solved = torch.linalg.solve(gram.double(), cross.double()).float()
        weight = solved[:-1].T.reshape(outputs, channels, 9)
        left, _, _ = torch.linalg.svd(weight.transpose(0, 1).flatten(1), full_matrices=False)
        kept = min(width, left.shape[1])
        self.reduce.weight[:kept] = left[:, :kept].T[:, :, None, None]
        self.linear.weight.zero_()
        self.linear.weight[:, :kept] = torch.einsum("cr,ocp->orp", left[:, :kept], weight).reshape(outputs, kept, 3, 3)
        assert self.linear.bias is not None
        self.linear.bias.copy_(solved[-1])

    def forward(self, values: Tensor) -> Tensor:
        """The feature."""
        return self.finish(self.reduced(values))

    def reduced(self, values: Tensor) -> Tensor:
        """The first layer, (N, width, H, W) and affine, of values that are not standardised first: they are many."""
        weight = self.reduce.weight / self.scale[None]
        return functional.conv2d(values, weight, -(weight * self.mean[None]).sum((1, 2, 3)))

    def finish(self, reduced: Tensor) -> Tensor:
        """The feature, of what the first layer has made."""
        reduced = reduced.contiguous(memory_format=torch.channels_last)
        feature: Tensor = self.linear(reduced) + self.branch(reduced)
        return feature if feature.shape[2:] == self.side else functional.adaptive_avg_pool2d(feature, self.side)


def first_map(recognizer: Surrogate) -> str:
    """Name of the first place where a recogniser of faces can be cut and makes maps smaller than the face.

    Raises:
        UsageError: when it has none.
    """
    for cut in list_cuts(recognizer):
        if len(cut.shape) == 3 and cut.shape[1] < recognizer.card.template.height:
            return cut.name
    raise UsageError(
        f"{recognizer.card.name!r} makes no maps that a stem could end at.", hint="Choose a convolutional recogniser."
    )


class MaskedNetwork(nn.Module):
    """A new stem, and a copy of the body of a recogniser.

    Args:
        recognizer: The clean one; it stays as it is.
        shape: Of what the stem reads, (C, H, W).
        split: Where the recogniser is cut; see `bauta.recognizers.splits.find_cut`.
        width: Channels inside the stem.
        seed: Of the stem's weights.

    Raises:
        UsageError: when it cannot be cut there into a stem of maps and a body.
    """

    def __init__(
        self, recognizer: Surrogate, shape: tuple[int, int, int], split: str, width: int, seed: int = 0
    ) -> None:
        super().__init__()
        front, back = split_recognizer(recognizer, split)
        if back.layers is None or len(front.cut.shape) != 3:
            raise UsageError(
                f"A stem cannot end at {front.cut.name!r} {front.cut.depth}.",
                hint="Cut at maps, such as its first one.",
            )
        if recognizer.card.template != ARCFACE_112:
            raise UsageError(
                f"{recognizer.card.name!r} reads other crops than {ARCFACE_112.name}.",
                hint="Masked faces are aligned so: choose a recogniser that reads them.",
            )
        self.shape = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = Stem(shape, front.cut.shape, width)
        self.body, self._weights = trainable_copy(back.layers)
        self.freeze()

    def learned(self) -> list[Tensor]:
        """All that is learned."""
        return [*self.stem.parameters(), *self._weights]

    def freeze(self, frozen: bool = True) -> None:
        """Let nothing be learned, or all."""
        for weight in self.learned():
            weight.requires_grad_(not frozen)

    def forward(self, values: Tensor) -> Tensor:
        """Unit-norm templates (N, D) of masked faces (N, C, H, W), under autograd.

        Raises:
            UsageError: when they have another shape, as clean faces do.
            NumericalFailure: when the network answers with NaN or infinity.
        """
        if tuple(values.shape[1:]) != self.shape:
            raise UsageError(
                f"A recogniser of masked faces {list(self.shape)} was given {list(values.shape[1:])}.",
                hint="Mask the face as this protector does.",
            )
        return self.finish(self.stem.reduced(values))

    def finish(self, reduced: Tensor) -> Tensor:
        """The same of what the first layer of the stem has made of them; raises `NumericalFailure` likewise."""
        embeddings = self.body(self.stem.finish(reduced).contiguous(memory_format=torch.channels_last))
        if not bool(embeddings.isfinite().all()):
            raise NumericalFailure("A recogniser of masked faces answered with NaN or infinity.", hint="Check it.")
        return functional.normalize(embeddings, dim=1)


class MaskedRecognition(Protector):
    """A masking, and the recogniser that learned to read it; each registered method names its masking.

    Args:
        recognizer: The clean recogniser that it was made of: `clean` is what that says.
        masking: In evaluation mode.
        network: Likewise.
        split: Where the recogniser was cut.
        stem: Channels inside the stem.
        storage: Type of the stored numbers, ``float32`` or ``float16``.
        provenance: Where the learned parts come from.
    """

    Made: ClassVar[type[Masking]]

    def __init__(
        self,
        recognizer: Surrogate,
        masking: Masking,
        network: MaskedNetwork,
        *,
        split: str,
        stem: int,
        storage: Storage = "float16",
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(recognizer, provenance=provenance)
        if storage not in ("float32", "float16"):
            raise UsageError(f"Masked faces are not stored as {storage!r}.", hint="Give float32 or float16.")
        self.masking, self.network = masking.eval().requires_grad_(False), network.eval()
        self.kind: Kind = masking.kind
        self.split, self.stem, self.storage = split, stem, storage
        self._parts = _packed(masking, network)
        _load(masking, network, self._parts)  # compute with what is kept, not with what was rounded
        network.freeze()
        self._first: LocallyConnected | None = None

    @classmethod
    def fit(
        cls,
        images: Tensor,
        *,
        recognizer: Surrogate,
        generator: torch.Generator,
        people: Sequence[str] = (),
        split: str = "",
        stem: int = 32,
        storage: Storage = "float16",
        licence: str = "not stated",
        data: str = "",
        work: Path | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Self:
        """Make a recogniser of masked faces, or go on making it.

        Args:
            images: (N, 3, 112, 112) uint8, or float32 in [0, 1]: faces of people who will never be stored, and whom
                no attacker of an evaluation learns from.
            recognizer: The clean recogniser, of ArcFace crops.
            generator: Not drawn from; its seed is the schedule's.
            people: Name of the person on each image. Without names there is no margin to fine-tune with. With 40 and
                more, one in twenty is not learned from but watched.
            split: Where the recogniser is cut: what comes before is replaced; by default its first map.
            stem: Channels inside the new stem.
            storage: Type of the stored numbers.
            licence: Terms of what is learned.
            data: What the images are, one line.
            work: Folder of the checkpoints.
            progress: Called with a stage, steps done and steps in all.
            settings: Fields of `Training` and of the masking's settings.

        Raises:
            UsageError: when there is no such setting, images have another form, are too few or of too few people, or a
                checkpoint is of other faces or settings.
            NumericalFailure: when a loss is no number; the checkpoint keeps the last good state.
        """
        taught = {name: settings.pop(name) for name in list(settings) if name in _FIELDS}
        training = Training(**taught)
        config = cls.Made.Config.of(settings)
        require_faces(images)
        if not 1 <= stem <= 1024:
            raise UsageError(f"No stem has {stem!r} channels.", hint="Give 1 to 1024.")
        if people and len(people) != len(images):
            raise UsageError(f"{len(images)} faces have {len(people)} names.", hint="Name the person of each.")
        if people and len(set(people)) < 2:
            raise UsageError("All faces are of one person.", hint="Give faces of many people to learn from.")
        masking = cls.Made(config)
        seed = generator.initial_seed() % (1 << 31)
        split = split or first_map(recognizer)
        network = MaskedNetwork(recognizer, masking.shape, split, stem, seed)
        room = _Room(recognizer, images, list(people), masking, network, training, split, seed, work, progress)
        figures = room.teach(cls.card.name)
        provenance = Provenance(
            data=f"{data or f'{len(images)} faces'}, SHA-256 {digest_of_pixels(images)[:16]}",
            licence=licence,
            seed=seed,
            training=(
                ("faces", len(room.pixels)),
                *([("people", len(set(people)))] if people else []),
                *((name, getattr(training, name)) for name in _FIELDS),
                *((name.replace(" ", "_"), value) for name, value in plain_figures(figures).items()),
            ),
        )
        return cls(recognizer, masking, network, split=split, stem=stem, storage=storage, provenance=provenance)

    def mask(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Faces (N, 3, 112, 112) masked, under autograd: (N, C, H, W), before the recogniser is asked about any."""
        values: Tensor = self.masking(images, generator)
        return values

    def protect(self, images: Tensor, generator: torch.Generator, key: bytes | None = None) -> Representation:
        """The masked faces; see `Protector.protect`."""
        self.require_images(images)
        self.require_key(key)
        with torch.no_grad():
            values = torch.cat([self.masking.stored(part, self, generator) for part in _parts(images)])
        return self.represent(values).stored_as(self.storage)

    def read(self, values: Tensor) -> Tensor:
        """Unit-norm templates (N, D) of masked faces (N, C, H, W), under autograd."""
        templates: Tensor = self.network(values)
        return templates

    def see(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Unit-norm templates (N, D) of faces (N, 3, 112, 112), each masked alone, under autograd."""
        if not self.masking.near:
            return self.read(self.masking.single(images, generator))
        if self._first is None:  # mask and first layer as one, to rounding, and several times as fast
            self._first = LocallyConnected.of(
                lambda faces: self.network.stem.reduced(self.masking.single(faces, generator)), (3, SIDE, SIDE)
            )
        templates: Tensor = self.network.finish(self._first(images))
        return templates

    def templates(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """Templates of masked faces by the recogniser that reads them; see `Protector.templates`."""
        self.require_own(representation, key)
        with torch.no_grad():
            return torch.cat([self.read(part.float()) for part in _parts(representation.values())])

    def probe(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Templates of faces that are masked to be compared, and not stored; see `Protector.probe`."""
        self.require_images(images)
        drawn = torch.Generator().manual_seed(0) if generator is None else generator
        return torch.cat([self.read(self.masking.single(part, drawn)) for part in _parts(images)])

    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The picture that the numbers are; see `Masking.picture`."""
        self.require_own(representation, key)
        with torch.no_grad():
            return torch.cat([self.masking.picture(part) for part in _parts(representation.values())])

    def settings(self) -> dict[str, Any]:
        """Plain values."""
        return {"split": self.split, "stem": self.stem, "storage": self.storage, **self.masking.config.to_dict()}

    def parts(self) -> dict[str, Tensor]:
        """What masking and recogniser learned, large tensors rounded to float16."""
        return self._parts

    @classmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The protector again; see `Protector.restore`."""
        given = dict(settings)
        try:
            split, stem, storage = given.pop("split"), given.pop("stem"), given.pop("storage")
        except KeyError as error:
            raise UsageError(f"The setting {error} is missing.", hint="Fit the protector again.") from error
        masking = cls.Made(cls.Made.Config.of(given))
        masking.require_parts({name.removeprefix(_MASKING): one for name, one in parts.items()})
        network = MaskedNetwork(recognizer, masking.shape, split, stem)
        _load(masking, network, parts)
        return cls(
            recognizer, masking, network, split=split, stem=stem, storage=cast(Storage, storage), provenance=provenance
        )


_MASKING, _NETWORK = "masking.", "network."


def _states(masking: Masking, network: MaskedNetwork) -> dict[str, Tensor]:
    own = {
        f"{_MASKING}{name}": value for name, value in masking.state_dict().items() if "dct" not in name.split(".")
    }  # the front end is no secret and never learned
    return own | {f"{_NETWORK}{name}": value for name, value in network.state_dict().items()}


def _packed(masking: Masking, network: MaskedNetwork) -> dict[str, Tensor]:
    return {
        name: value.detach().half()
        if value.is_floating_point() and value.numel() > SMALL
        else value.detach().clone().contiguous()
        for name, value in _states(masking, network).items()
    }


def _load(masking: Masking, network: MaskedNetwork, parts: Mapping[str, Tensor]) -> None:
    state = _states(masking, network)
    if set(state) != set(parts):
        missing = sorted(set(state) ^ set(parts))[0]
        raise WeightsCorrupt(f"The learned parts do not fit: {missing}.", hint="Fit the protector again.")
    for name, value in state.items():
        if value.shape != parts[name].shape:
            raise WeightsCorrupt(
                f"{name} has shape {list(parts[name].shape)}, not {list(value.shape)}.", hint="Fit the protector again."
            )
        with torch.no_grad():
            value.copy_(parts[name])
    network.body.float()  # an imported body forgets what it had computed from other weights


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = values.split(_CHUNK)  # type: ignore[no-untyped-call]
    return parts


# Training


class _Room:
    """All that one masking and its recogniser are taught with."""

    def __init__(
        self,
        recognizer: Surrogate,
        images: Tensor,
        people: list[str],
        masking: Masking,
        network: MaskedNetwork,
        training: Training,
        split: str,
        seed: int,
        work: Path | None,
        progress: Progress | None,
    ) -> None:
        self.recognizer, self.masking, self.network, self.training = recognizer, masking, network, training
        self.seed, self.work, self.progress = seed, work, progress
        self.front = split_recognizer(recognizer, split)[0]
        names = sorted(set(people))
        numbers = {name: place for place, name in enumerate(names)}
        everybody = torch.tensor([numbers[name] for name in people], dtype=torch.int64)
        hidden = torch.zeros(len(images), dtype=torch.bool)
        if len(names) >= 2 * HIDDEN:
            hidden = torch.tensor([_watched(name) for name in people])
        self.watched, self.watched_people = images[hidden], everybody[hidden] if people else everybody
        self.pixels, self.people = images[~hidden], everybody[~hidden] if people else everybody
        if people:  # numbered anew, for prototypes
            self.people = torch.unique(self.people, return_inverse=True)[1]
        self.key = f"{recognizer.card.sha256} {digest_of_pixels(self.pixels)} {split}"

    def features(self, images: Tensor) -> Tensor:
        """The clean recogniser's early feature."""
        with torch.no_grad():
            values: Tensor = self.front(images)
        return values

    def templates(self, images: Tensor) -> Tensor:
        """The clean recogniser's templates."""
        with torch.no_grad():
            values: Tensor = self.recognizer(crops_of(images, self.recognizer.card.template))
        return values

    def teach(self, method: str) -> dict[str, float]:
        """The stages, one after the other; figures of each."""
        training, masking, network = self.training, self.masking, self.network
        shared = [asdict(training), list(self.network.shape), self.key, self.seed]
        early, late = (
            hashlib.sha256(json.dumps([*facts, *shared], sort_keys=True).encode()).hexdigest()
            for facts in (masking.alike, [method, masking.config.to_dict()])
        )
        name = f"{masking.alike[0]}-{early[:12]}"
        first = Schedule(training.stem_epochs, training.batch, 2 * training.rate, self.seed)
        lesson = Lesson(
            self.pixels, self.people, self.features, self.templates, first, self.key, self.work, name, self.progress
        )  # fmt: skip
        figures = {f"masking {what}": value for what, value in masking.prepare(lesson).items()}
        masking.train()
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            index = torch.arange(0, len(self.pixels), max(1, len(self.pixels) // SOLVED))[:SOLVED]
            parts = [as_images(self.pixels[part]) for part in index.split(4)]  # type: ignore[no-untyped-call]
            pairs = [(masking.single(part, generator), self.features(part)) for part in parts]
            network.stem.calibrate([values for values, _ in pairs])
            network.stem.solve(pairs, generator)
            del pairs
        targets = teacher_templates(self.recognizer, self.pixels, self.work, self.progress)
        for stage, schedule in {
            "stem": first,
            "distillation": Schedule(training.epochs, training.batch, training.rate, self.seed + 1),
            "fine-tuning": Schedule(training.fine_tuning_epochs, training.batch, training.rate / 4, self.seed + 2),
        }.items():
            masking.begin(stage)
            network.freeze(False)
            digest, kept = (late, f"{method}-{late[:12]}") if stage == "fine-tuning" else (early, name)
            learner = (
                _StemLearner(self, schedule) if stage == "stem" else _Recognition(self, targets, schedule, stage)
            )  # fmt: skip
            found = train(
                learner, len(self.pixels), schedule, key=f"{digest} {stage}", work=self.work, name=f"{kept}-{stage}",
                progress=self.progress,
            )  # fmt: skip
            network.freeze()
            network.eval()
            figures |= {f"{stage} {what}": value for what, value in found.items()}
            figures |= {f"{stage} {what}": value for what, value in self.watch().items()}
        masking.begin("")
        return {what.replace("-", "_"): value for what, value in figures.items()}

    def watch(self) -> dict[str, float]:
        """How faces of people who are not learned from are told apart: stored against probe, and stored both."""
        pairs = self.watched_people[:, None] == self.watched_people
        other = ~torch.eye(len(pairs), dtype=torch.bool)
        if not len(pairs) or not bool((pairs & other).any()) or bool(pairs.all()):
            return {}
        generator = torch.Generator().manual_seed(self.seed)
        self.masking.eval()
        with torch.no_grad():
            stored, shown = [], []
            for part in self.watched.split(_CHUNK):  # type: ignore[no-untyped-call]
                images = as_images(part)
                stored.append(self.network(self.masking(images, generator)))
                shown.append(self.network(self.masking.single(images, generator)))
            found = {}
            for name, probes in (("one sided", torch.cat(shown)), ("two sided", torch.cat(stored))):
                scores = (torch.cat(stored) @ probes.T).numpy()
                genuine, impostor = scores[(pairs & other).numpy()], scores[(~pairs).numpy()]
                found[f"auroc {name}"] = round(metrics.auroc(genuine, impostor), 5)
                limit = float(np.quantile(impostor, 0.99))
                found[f"matched {name}"] = round(float((genuine >= limit).mean()), 4)
        self.masking.train()
        return found


def _watched(name: str) -> bool:
    return hashlib.sha256(f"watched {name}".encode()).digest()[0] * HIDDEN < 256


class _StemLearner(Learner):
    """The stem finds the clean recogniser's early feature in single masked faces."""

    def __init__(self, room: _Room, schedule: Schedule) -> None:
        self.room = room
        stem = room.network.stem
        self.networks = {"stem": stem}
        self.optimizers = {"stem": torch.optim.Adam(stem.parameters(), lr=schedule.rate)}
        index = torch.arange(0, len(room.pixels), max(1, len(room.pixels) // 64))[:64]
        feature = room.features(as_images(room.pixels[index]))
        self.variance = feature.var((0, 2, 3), keepdim=True, correction=0).clamp_min(1e-8)

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam."""
        images = _mirrored(as_images(self.room.pixels[index]), generator)[0]
        with torch.no_grad():
            values = self.room.masking.single(images, generator)
        error = ((self.room.network.stem(values) - self.room.features(images)).square() / self.variance).mean()
        losses = require_finite({"feature": error})
        _move(self.optimizers["stem"], error)
        return losses


class _Recognition(Learner):
    """Stem, body and what the masking learns: the distillation, and from the fine-tuning on the method's loss."""

    def __init__(self, room: _Room, targets: Tensor, schedule: Schedule, stage: str) -> None:
        self.room, self.targets, self.stage = room, targets, stage
        network, masking = room.network, room.masking
        self.networks: dict[str, nn.Module] = {"network": network}
        learned = network.learned()
        self.margin: nn.Linear | None = None
        if stage == "fine-tuning" and len(room.people):
            self.margin = nn.Linear(targets.shape[2], int(room.people.max()) + 1, bias=False)
            sums = torch.zeros_like(self.margin.weight).index_add_(0, room.people, targets.mean(0))
            with torch.no_grad():
                self.margin.weight.copy_(functional.normalize(sums, dim=1))
            self.networks["prototypes"] = self.margin
            learned = [*learned, *self.margin.parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "network": torch.optim.AdamW(learned, lr=schedule.rate, weight_decay=1e-4)
        }
        resting = masking.late and stage != "fine-tuning"
        own = [one for one in masking.parameters() if (one.requires_grad or masking.rate) and not resting]
        if own:
            for one in own:
                one.requires_grad_(True)
            self.networks["masking"] = masking
            self.optimizers["masking"] = torch.optim.Adam(own, lr=masking.rate)

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        """One step for the recogniser, and one for the masking."""
        room = self.room
        images, mirrored = _mirrored(as_images(room.pixels[index]), generator)
        people = room.people[index] if len(room.people) else room.people
        masked = room.masking.batch(images, people, generator)
        embeddings = room.network(masked.values)
        wanted = self.targets[mirrored.long(), index]
        each = _shared(1 - embeddings @ wanted.T, masked)
        terms = {"distance": each.mean()}
        own = 1 - (embeddings * wanted).sum(1).detach()
        if self.margin is not None and room.training.margin_weight:
            losses = self._margins(embeddings, people, masked)
            terms["margin"] = room.training.margin_weight * losses.mean()
            own = losses.detach()
        terms |= room.masking.feedback(masked, images, own)
        numbers = require_finite(terms)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], 5.0)
            optimizer.step()
        return numbers

    def _margins(self, embeddings: Tensor, people: Tensor, masked: Masked) -> Tensor:
        """(N,): of each mixture, the margin losses of the people in it by their shares."""
        assert self.margin is not None
        training = self.room.training
        cosines = functional.linear(embeddings, functional.normalize(self.margin.weight, dim=1)).clamp(-0.9999, 0.9999)
        further = torch.cos((cosines.acos() + training.margin).clamp_max(torch.pi))
        total, weight = torch.zeros(len(embeddings)), torch.zeros(len(embeddings))
        for members, shares in zip(masked.members.T, masked.shares.T, strict=True):
            known = (members >= 0) & (shares > 0)
            labels = people[members.clamp_min(0)]
            with_margin = cosines.scatter(1, labels[:, None], further.gather(1, labels[:, None]))
            loss = functional.cross_entropy(training.scale * with_margin, labels, reduction="none")
            total, weight = total + loss * shares * known, weight + shares * known
        return total / weight


def _shared(distances: Tensor, masked: Masked) -> Tensor:
    """(N,): of distances (N, N) to all faces, the mean over the faces in each mixture that somebody has, by shares."""
    known = (masked.members >= 0) * masked.shares
    found = distances.gather(1, masked.members.clamp_min(0))
    return (found * known).sum(1) / known.sum(1)


def _mirrored(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random half mirrored, and which: (N,) truth values."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images), chosen


def _move(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def teacher_templates(
    recognizer: Surrogate, pixels: Tensor, work: Path | None = None, progress: Progress | None = None
) -> Tensor:
    """(2, N, D) templates by the clean recogniser of faces as they are, and mirrored; kept in `work`.

    Args:
        recognizer: The recogniser.
        pixels: (N, 3, 112, 112) uint8, or float32 in [0, 1].
        work: Folder of the file.
        progress: Called with a stage, faces done and faces in all.
    """
    digest = hashlib.sha256(f"{recognizer.card.sha256} {digest_of_pixels(pixels)}".encode()).hexdigest()[:24]
    path = None if work is None else work / f"templates-{digest}.safetensors"
    if path is not None and path.exists():
        kept: Tensor = load_tensors(path.read_bytes())["templates"]
        return kept
    report: Callable[[str, int, int], None] = progress or (lambda what, done, total: None)
    sides = []
    with torch.no_grad():
        for mirrored in (False, True):
            parts = []
            for start in range(0, len(pixels), 32):
                images = as_images(pixels[start : start + 32])
                parts.append(recognizer(images.flip(3) if mirrored else images))
                report("clean templates", (mirrored * len(pixels) + start) // 2, len(pixels))
            sides.append(torch.cat(parts))
    templates = torch.stack(sides)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save_tensors({"templates": templates}), overwrite=True)
    return templates


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
    """See `bauta.templates.frequency.ShuffledMask`."""

    Made = ShuffledMask


@register("frequency-mixup", kind="protector")
class FrequencyMixup(MaskedRecognition):
    """The mask of PPFR-FD, and a fixed number of faces mixed."""

    Made = FixedMixture


@register("hybrid-masking", kind="protector")
class HybridMasking(MaskedRecognition):
    """See `bauta.templates.hybrid_masking`."""

    Made = HybridMask


@register("dctdp", kind="protector")
class Dctdp(MaskedRecognition):
    """See `bauta.templates.frequency.PrivacyBudget`."""

    Made = PrivacyBudget


@register("partialface", kind="protector")
class PartialFace(MaskedRecognition):
    """See `bauta.templates.frequency.RandomSubset`."""

    Made = RandomSubset


@register("minusface", kind="protector")
class MinusFace(MaskedRecognition):
    """See `bauta.templates.frequency.ShuffledResidue`."""

    Made = ShuffledResidue
