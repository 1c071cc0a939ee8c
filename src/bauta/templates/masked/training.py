"""How recognisers of masked faces are taught, in stages, each the same for every masking and the unmasked row:

1. *stem*: least squares find the image behind the mask, as far as that can be done (`bauta.templates.masked.network`);
2. *distillation*: a copy of the clean recogniser finds its template there (1 - cosine, on training faces);
3. *fine-tuning*: the same, and the method's own loss, an ArcFace margin (Deng et al. 2019) on the names of all the
   faces in a mixture by their shares, its prototypes starting at the people's mean templates;
4. *reading*, where what is stored is hidden from the recogniser at the door (`Masking.apart`): a second copy learns to
   find the template in mixtures that a few steps drive towards it, and to a stranger's likeness for the first, which
   then has learned from no mixture.

The published methods train for weeks on millions of faces from nothing. Ours start from a recogniser, since we have
thousands; compare a row with the unmasked row of the same training, and with no published figure. Stages and sizes are
our design.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from bauta import metrics
from bauta.errors import UsageError
from bauta.files import make_folder, write_atomically
from bauta.learning.learners import Batch, Epochs, Learner, Rate, Schedule, require_finite, train
from bauta.progress import Progress, silent
from bauta.recognizers.splits import list_cuts, split_recognizer
from bauta.recognizers.surrogates import Surrogate
from bauta.settings import Range, Settings, Weight
from bauta.templates.fit import FitWork, as_images, digest_of_pixels
from bauta.templates.masked.masking import Masked, Masking, MaskingData
from bauta.templates.masked.mixing import Mixing
from bauta.templates.masked.network import MaskedNetwork
from bauta.templates.masked.reader import MaskedReader

SOLVED = 24  # faces on which the stem is solved
READ = 5  # steps towards a template in the mixtures that a reader learns from
HIDDEN = 20  # one person in so many is watched and not learned from, where there are enough
_CHUNK = 16


@dataclass(frozen=True)
class MaskedTraining(Settings):
    """How a recogniser of masked faces learns.

    Attributes:
        masking_epochs: Passes over the faces in which a masking learns by itself, before anybody reads it.
        masking_rate: Learning rate in these.
        epochs: Passes of the distillation.
        fine_tuning_epochs: Passes with the method's loss.
        reading_epochs: Passes in which the reader of what is stored learns, where it is another network.
        batch: Faces in a step.
        rate: Learning rate at the start of the distillation; in the fine-tuning a quarter of it, in the reading twice
            as much. The default is for recognisers that start near their goal.
        margin: Angle of the ArcFace margin, in radians.
        scale: Of the cosines in its loss.
        margin_weight: Of that loss, beside the distillation's.
    """

    title: ClassVar[str] = "a recogniser of masked faces"
    masking_epochs: Epochs = 4
    masking_rate: Rate = 2e-3
    epochs: Epochs = 10
    fine_tuning_epochs: Epochs = 4
    reading_epochs: Epochs = 1
    batch: Batch = 16
    rate: Rate = 1e-4
    margin: Annotated[float, Range(at=0, below=1.5)] = 0.4
    scale: Annotated[float, Range(above=0, to=1000)] = 32.0
    margin_weight: Weight = 0.02


class MaskedTrainer:
    """All that one masking and its recogniser are taught with."""

    def __init__(
        self, images: Tensor, masking: Masking, network: MaskedNetwork, training: MaskedTraining, work: FitWork
    ) -> None:
        recognizer, people = work.recognizer, work.people
        self.recognizer, self.masking, self.network, self.training = recognizer, masking, network, training
        self.seed, self.work, self.progress = work.seed, work.folder, work.progress
        split = _first_map(recognizer)
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
        who = hashlib.sha256(json.dumps(self.people.tolist()).encode()).hexdigest()[:16]
        self.key = f"{recognizer.card.sha256} {digest_of_pixels(self.pixels)} {who} {split}"

    def features(self, images: Tensor) -> Tensor:
        """The clean recogniser's early feature."""
        with torch.no_grad():
            values: Tensor = self.front(images)
        return values

    def train(self, method: str) -> dict[str, float]:
        """The stages, one after the other; figures of each."""
        training, masking, network = self.training, self.masking, self.network
        shared = [training.to_dict(), list(self.network.shape), self.key, self.seed]
        early, late = (
            hashlib.sha256(json.dumps([*facts, *shared], sort_keys=True).encode()).hexdigest()
            for facts in (masking.alike, [method, masking.config.to_dict()])
        )
        name = f"{masking.alike[0]}-{early[:12]}"
        first = Schedule(training.masking_epochs, training.batch, training.masking_rate, self.seed)
        data = MaskingData(
            self.pixels, self.people, self.features, first, self.key, self.work, name, self.progress
        )  # fmt: skip
        figures = {f"masking {what}": value for what, value in masking.prepare(data).items()}
        masking.train()
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            index = torch.arange(0, len(self.pixels), max(1, len(self.pixels) // SOLVED))[:SOLVED]
            parts = [as_images(self.pixels[part]) for part in index.split(4)]  # type: ignore[no-untyped-call]
            network.stem.solve([(masking.single(part, generator), part) for part in parts], generator)
        figures |= {f"stem {what}": value for what, value in self.watch().items()}
        targets = teacher_templates(self.recognizer, self.pixels, self.work, self.progress)
        for stage, schedule in {
            "distillation": Schedule(training.epochs, training.batch, training.rate, self.seed + 1),
            "fine-tuning": Schedule(training.fine_tuning_epochs, training.batch, training.rate / 4, self.seed + 2),
        }.items():
            masking.begin(stage)
            network.unfreeze()
            digest, kept = (late, f"{method}-{late[:12]}") if stage == "fine-tuning" else (early, name)
            learner = _Recognition(self, targets, schedule, stage)
            found = train(
                learner, len(self.pixels), schedule, key=f"{digest} {stage}", work=self.work, name=f"{kept}-{stage}",
                progress=self.progress,
            )  # fmt: skip
            network.freeze()
            network.eval()
            figures |= {f"{stage} {what}": value for what, value in found.items()}
            figures |= {f"{stage} {what}": value for what, value in self.watch().items()}
        masking.begin("")
        if isinstance(masking, Mixing) and masking.apart:
            masking.eval()
            network.start_reader()
            schedule = Schedule(training.reading_epochs, training.batch, 2 * training.rate, self.seed + 3)
            reading = _Reading(network, masking, self.pixels, schedule)
            found = train(
                reading, len(self.pixels), schedule, key=f"{late} reading", work=self.work,
                name=f"{method}-{late[:12]}-reading", progress=self.progress,
            )  # fmt: skip
            network.freeze()
            figures |= {f"reading {what}": value for what, value in found.items()}
            figures |= {f"reading {what}": value for what, value in self.watch(reading.reader).items()}
        return {what.replace("-", "_"): value for what, value in figures.items()}

    def watch(self, reader: MaskedReader | None = None) -> dict[str, float]:
        """How faces of people who are not learned from are told apart: stored against probe, and stored both.

        Args:
            reader: Who reads what is stored, when all is learned; before, one network reads both.
        """
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
                if reader is None:  # mixtures that only a reader reads are not to be read yet
                    made = self.masking.single if self.masking.apart else self.masking
                    stored.append(self.network(made(images, generator)))
                else:
                    stored.append(reader.read(reader.unmask(self.masking.stored(images, reader, generator))))
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


def _first_map(recognizer: Surrogate) -> str:
    """Name of the first place where a recogniser of faces can be cut and makes maps smaller than the face.

    Raises:
        UsageError: when it has none.
    """
    for cut in list_cuts(recognizer):
        if len(cut.shape) == 3 and cut.shape[1] < recognizer.card.template.height:
            return cut.name
    raise UsageError(
        f"{recognizer.card.name!r} makes no maps that a mask could learn from.",
        hint="Choose a convolutional recogniser.",
    )


class _Recognition(Learner):
    """The body and what the masking learns: the distillation, and from the fine-tuning on the method's loss."""

    def __init__(self, trainer: MaskedTrainer, targets: Tensor, schedule: Schedule, stage: str) -> None:
        self.trainer, self.targets, self.stage = trainer, targets, stage
        network, masking = trainer.network, trainer.masking
        self.networks: dict[str, nn.Module] = {"network": network}
        learned = network.learned()
        self.margin: nn.Linear | None = None
        if stage == "fine-tuning" and len(trainer.people):
            self.margin = nn.Linear(targets.shape[2], int(trainer.people.max()) + 1, bias=False)
            sums = torch.zeros_like(self.margin.weight).index_add_(0, trainer.people, targets.mean(0))
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
        trainer = self.trainer
        images, mirrored = _mirrored(as_images(trainer.pixels[index]), generator)
        people = trainer.people[index] if len(trainer.people) else trainer.people
        masked = trainer.masking.batch(images, people, generator)
        embeddings = trainer.network(masked.values)
        wanted = self.targets[mirrored.long(), index]
        each = _shared(1 - embeddings @ wanted.T, masked)
        # With a reader the door never meets a mixture: it learns from single faces, and a strategy plays against it.
        met = masked.counts == 1 if trainer.masking.apart else torch.ones(len(images), dtype=torch.bool)
        terms = {"distance": (each * met).sum() / met.sum().clamp_min(1)}
        own = 1 - (embeddings * wanted).sum(1).detach()
        if self.margin is not None and trainer.training.margin_weight:
            losses = self._margins(embeddings, people, masked)
            terms["margin"] = trainer.training.margin_weight * (losses * met).sum() / met.sum().clamp_min(1)
            own = losses.detach()
        terms |= trainer.masking.feedback(masked, images, own)
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
        training = self.trainer.training
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


class _Reading(Learner):
    """The reader of what is stored, and how far the templates are that it finds there."""

    def __init__(self, network: MaskedNetwork, masking: Mixing, pixels: Tensor, schedule: Schedule) -> None:
        assert network.reader is not None
        self.network, self.masking, self.pixels = network, masking, pixels
        self.reader = MaskedReader(network, masking)
        network.unfreeze(reader=True)
        self.networks = {"reader": network.reader}
        learned = network.learned(reader=True)
        self.optimizers = {"reader": torch.optim.AdamW(learned, lr=schedule.rate, weight_decay=1e-4)}

    def step(self, index: Tensor, generator: torch.Generator) -> dict[str, float]:
        """A few steps for the mixtures, and one for the reader."""
        images, _ = _mirrored(as_images(self.pixels[index]), generator)
        with torch.no_grad():
            wanted = self.masking.wanted(images, self.reader, generator)
        values = self.masking.hide(images, wanted, self.reader, generator, READ)
        pictures = self.network.unmask(values.detach())
        with torch.no_grad():
            seen = (self.network.recognise(pictures) * wanted).sum(1).mean()
        distance = (1 - (self.network.read(pictures) * wanted).sum(1)).mean()
        numbers = require_finite({"distance": distance, "seen at the door": seen})
        (optimizer,) = self.optimizers.values()
        optimizer.zero_grad(set_to_none=True)
        distance.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.learned(reader=True), 5.0)
        optimizer.step()
        return numbers


def _shared(distances: Tensor, masked: Masked) -> Tensor:
    """(N,): of distances (N, N) to all faces, the mean over the faces in each mixture that somebody has, by shares."""
    known = (masked.members >= 0) * masked.shares
    found = distances.gather(1, masked.members.clamp_min(0))
    return (found * known).sum(1) / known.sum(1)


def _mirrored(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random half mirrored, and which: (N,) truth values."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images), chosen


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
    report: Progress = progress or silent
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
        make_folder(path.parent)
        write_atomically(path, save_tensors({"templates": templates}), overwrite=True)
    return templates
