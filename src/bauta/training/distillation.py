"""Distil a recogniser from several teachers at once.

The target of a face is its joint teacher embedding: the unit-norm embeddings of all teachers side by side, so that a
cosine between two targets is the mean of the teachers' cosines, projected to the student's dimension on the principal
directions of the training faces. The student learns the target of the clean face from a changed one: cropped, blurred,
recompressed, occluded, and, for a part of the batch, moved by its own worst-case perturbation. Our design; distilling
embeddings by regression and by relations follows Park et al. 2019 ("Relational knowledge distillation"). With noise it
also learns to see through it, and to find the features that its start finds without: after DUCD (Li et al. 2024, arXiv
2408.10647, of which the abstract was read), in which a distilled student is smoothed.

A run is a folder: ``faces.npy``, one file of embeddings for each teacher, ``checkpoint.pt`` and ``log.jsonl``. Started
again it goes on where it stopped. Batches are drawn from the seed and the number of the step alone, so neither a break
nor the number of loading processes changes them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from bauta.errors import NumericalFailure, UsageError
from bauta.faces.crops import retemplate_pixels
from bauta.files import make_folder
from bauta.progress import Progress
from bauta.recognizers.cards import ROLES
from bauta.recognizers.catalog import find_card
from bauta.recognizers.judges import load_judge
from bauta.training.augmentation import Augmentation, augment
from bauta.training.faces import FaceSet, blend, blend_pairs
from bauta.training.networks import build_network, features_of
from bauta.training.recipes import Recipe
from bauta.training.starts import MEAN, STD

Floats = NDArray[np.float32]

CHUNK = 512  # faces embedded between two savings
BLENDED_PER_PERSON = 4
HELD_OUT = 50  # one person in this many is watched and not learned from


@dataclass(frozen=True)
class Population:
    """Faces to learn from: real ones, and blends of two people that are made when they are needed.

    Attributes:
        faces: The real faces.
        pairs: (B, 2) indices of the faces that are averaged.
        weights: (B,) weight of the first of each pair.
    """

    faces: FaceSet
    pairs: NDArray[np.int64]
    weights: Floats

    def __len__(self) -> int:
        return len(self.faces.pixels) + len(self.pairs)

    def pixels(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n, 112, 112, 3)."""
        real = len(self.faces.pixels)
        images = np.empty((len(index), *self.faces.pixels.shape[1:]), dtype=np.uint8)
        blended = index >= real
        images[~blended] = self.faces.pixels[index[~blended]]
        if blended.any():
            chosen = index[blended] - real
            images[blended] = blend(self.faces.pixels, self.pairs[chosen], self.weights[chosen])
        return images

    def key(self) -> str:
        """SHA-256 of what the faces are."""
        digest = hashlib.sha256(self.faces.sha256.encode())
        digest.update(self.pairs.tobytes())
        digest.update(self.weights.tobytes())
        return digest.hexdigest()


def populate(faces: FaceSet, blends: float, seed: int) -> Population:
    """The faces and `blends` times as many averages of two people.

    They are drawn from at most `BLENDED_PER_PERSON` faces of each person, so that people with few photos, who are
    most of the different ones, are not drowned by those with many.
    """
    chosen: list[int] = []
    order = np.random.default_rng(seed).permutation(len(faces.people))
    seen: Counter[str] = Counter()
    for index in order:
        person = faces.people[index]
        seen[person] += 1
        if seen[person] <= BLENDED_PER_PERSON:
            chosen.append(int(index))
    few = np.sort(np.array(chosen))
    generator = torch.Generator().manual_seed(seed)
    count = round(blends * len(faces.people))
    pairs, weights = blend_pairs(count, [faces.people[index] for index in few], generator)
    return Population(faces, few[pairs], weights)


def embed_by_teacher(
    population: Population, teacher: str, work: Path, *, threads: int = 1, progress: Progress | None = None
) -> Floats:
    """(N, dim) unit-norm embeddings of all faces; kept in `work` and continued there.

    Raises:
        RecognizerError: when the teacher cannot be used.
    """
    card = find_card(teacher)
    key = hashlib.sha256(f"{card.digest} {population.key()}".encode()).hexdigest()[:16]
    path = work / f"teacher-{teacher}-{key}.npy"
    done_path = path.with_suffix(".done")
    make_folder(work)
    done = int(done_path.read_text()) if path.exists() and done_path.exists() else 0
    shape = (len(population), card.dim)
    mode = "r+" if done else "w+"
    kept = np.lib.format.open_memmap(path, mode=mode, dtype=np.float32, shape=None if done else shape)
    if done < len(population):
        judge = load_judge(replace(card, roles=ROLES), threads=threads)
        for start in range(done, len(population), CHUNK):
            index = np.arange(start, min(start + CHUNK, len(population)))
            images = population.pixels(index)
            for piece in np.array_split(np.arange(len(index)), max(1, len(index) // 32)):
                pixels = images[piece].astype(np.float32) / np.float32(255)
                kept[index[piece]] = judge.embed(retemplate_pixels(pixels, card.template))
            kept.flush()
            done_path.write_text(str(index[-1] + 1))
            if progress is not None:
                progress(f"teacher {teacher}", int(index[-1]) + 1, len(population))
    return kept


def joint_targets(embeddings: Sequence[Floats], dim: int) -> tuple[Floats, float]:
    """One unit-norm target for each face from the embeddings of all teachers.

    Args:
        embeddings: For each teacher (N, D_i), unit norm.
        dim: Length of the targets; shorter joint embeddings are padded with zeros.

    Returns:
        (N, dim) targets, and the share of the squared length that the projection kept.
    """
    joint = np.concatenate([np.asarray(one, dtype=np.float32) for one in embeddings], axis=1)
    joint /= np.float32(math.sqrt(len(embeddings)))
    # Not centred: the projection must keep cosines, not variances.
    values, directions = np.linalg.eigh(joint.T.astype(np.float64) @ joint)
    largest = np.argsort(values)[::-1][:dim]
    targets = joint @ directions[:, largest].astype(np.float32)
    kept = float(values[largest].sum() / values.sum())
    if targets.shape[1] < dim:
        targets = np.pad(targets, ((0, 0), (0, dim - targets.shape[1])))
    return targets / np.linalg.norm(targets, axis=1, keepdims=True).clip(1e-12), kept


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Augmented batches by the number of their step."""

    def __init__(
        self, population: Population, learned: NDArray[np.int64], recipe: Recipe, config: Augmentation
    ) -> None:
        self.population, self.learned, self.recipe, self.config = population, learned, recipe, config
        self.per_epoch = max(1, len(learned) // recipe.batch)

    def __len__(self) -> int:
        return max(1, round(self.recipe.epochs * self.per_epoch))

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(self.learned)
        index = np.sort(order[place * self.recipe.batch : (place + 1) * self.recipe.batch])
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        images = torch.from_numpy(self.population.pixels(index)).permute(0, 3, 1, 2).float() / 255
        return augment(images, generator, self.config, template=self.recipe.template), torch.from_numpy(index)


def loss_terms(embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """1 - cosine to the targets, and the squared differences between the cosines inside the batch, both means.

    Args:
        embeddings: (N, dim), any length.
        targets: (N, dim), unit norm.
    """
    unit = functional.normalize(embeddings.float(), dim=1)
    distance = 1 - (unit * targets).sum(1).mean()
    relations = (unit @ unit.T - targets @ targets.T).square().sum() / max(1, len(unit) * (len(unit) - 1))
    return distance, relations


def worst_case(network: nn.Module, images: Tensor, targets: Tensor, rms: float, generator: torch.Generator) -> Tensor:
    """Images of which a random half has taken one step against the target, of random length up to `rms` in [0, 1]."""
    chosen = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    if chosen.sum() < 2:  # batch normalisation needs two
        return images
    variable = images[chosen].requires_grad_()
    distance, _ = loss_terms(network((variable - MEAN) / STD), targets[chosen])
    (gradient,) = torch.autograd.grad(distance, variable)
    length = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-20)
    share = torch.rand(len(gradient), 1, 1, 1, generator=generator).to(images.device)
    moved = images.clone()
    moved[chosen] = (variable.detach() + rms * share * gradient / length).clamp(0, 1)
    return moved


def noisy(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Images under Gaussian noise whose standard deviation is drawn for each, evenly up to `most`; not clipped."""
    drawn = torch.rand(len(images), 1, 1, 1, generator=generator) * most
    return images + (drawn * torch.randn(images.shape, generator=generator)).to(images.device)


def turned(targets: Tensor, network: nn.Module, images: Callable[[NDArray[np.int64]], Tensor], count: int) -> Tensor:
    """Targets turned to where a network's own embeddings of `count` clean faces lie, by the best rotation.

    Cosines between targets stay as they are (orthogonal Procrustes).
    """
    network.eval()
    index = np.linspace(0, len(targets) - 1, min(count, len(targets))).astype(np.int64)
    with torch.no_grad():
        own = torch.cat([network((images(part) - MEAN) / STD) for part in np.array_split(index, len(index) // 32 + 1)])
    left, _, right = torch.linalg.svd((targets[index].T @ functional.normalize(own, dim=1)).double())
    found: Tensor = (targets.double() @ (left @ right)).float()
    return found


def renew_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give batch normalisation the statistics of these images (Schneider et al. 2020, for pictures that are corrupted).

    Args:
        network: Changed in place, and left in training mode.
        batches: Of normalised crops.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)


def _rate(step: int, steps: int, warmup: float) -> float:
    begin = max(1, round(warmup * steps))
    if step < begin:
        return (step + 1) / begin
    return 0.5 * (1 + math.cos(math.pi * (step - begin) / max(1, steps - begin)))


def _fit_head(network: nn.Module, images: Callable[[NDArray[np.int64]], Tensor], targets: Tensor, count: int) -> None:
    """Start the head of a network with learned features by ridge regression on `count` faces."""
    head = network.head
    assert isinstance(head, nn.Linear)
    network.head = nn.Identity()
    network.eval()  # batch normalisation has its statistics
    index = np.linspace(0, len(targets) - 1, min(count, len(targets))).astype(np.int64)
    with torch.no_grad():
        features = torch.cat(
            [network((images(part) - MEAN) / STD) for part in np.array_split(index, len(index) // 32 + 1)]
        )
        gram = (features.T @ features).double()
        gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        head.weight.copy_(torch.linalg.solve(gram, (features.T @ targets[index]).double()).T)
    network.head = head


def distil(
    recipe: Recipe,
    population: Population,
    work: Path,
    *,
    embeddings: Path | None = None,
    threads: int = 1,
    workers: int = 0,
    augmentation: Augmentation | None = None,
    save_every: float = 120.0,
    progress: Progress | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train the recipe's network, or go on training it.

    Args:
        recipe: What to train.
        population: Faces to learn from.
        work: Folder of the run.
        embeddings: Folder of the teachers' embeddings, which several runs can share; `work` by default.
        threads: Threads of ONNX Runtime while the teachers embed.
        workers: Processes that prepare batches; 0 prepares them in this one.
        augmentation: How faces are changed.
        save_every: Seconds between checkpoints.
        progress: Called with a stage, steps done and steps in all.

    Returns:
        The network in evaluation mode on the CPU, and figures of the run.

    Raises:
        UsageError: when `work` holds the checkpoint of another recipe or of other faces.
        NumericalFailure: when the loss is not finite.
    """
    embedded = [
        embed_by_teacher(population, name, embeddings or work, threads=threads, progress=progress)
        for name in recipe.teachers
    ]
    found, kept = joint_targets(embedded, recipe.dim)
    run = _Run(recipe, population, torch.from_numpy(found), work, augmentation or Augmentation())
    figures = run.train(workers, save_every, progress)
    return run.network.cpu().eval(), {
        "faces": len(population.faces.pixels),
        "people": run.people,
        "blends": len(population.pairs),
        "target_energy_kept": round(kept, 5),
        "steps": len(run.batches),
        **figures,
    }


class _Run:
    """One training of a student: what it learns from, its state, and the folder where this is kept."""

    def __init__(
        self, recipe: Recipe, population: Population, targets: Tensor, work: Path, augmentation: Augmentation
    ) -> None:
        from lightning_fabric import Fabric

        self.recipe, self.population, self.work = recipe, population, work
        people = sorted(set(population.faces.people))
        self.people = len(people)
        watched = {person for number, person in enumerate(people) if number % HELD_OUT == HELD_OUT - 1}
        hidden = np.array([person in watched for person in population.faces.people])
        blended = ~hidden[population.pairs].any(1) if len(population.pairs) else np.zeros(0, dtype=bool)
        learned = np.concatenate([np.flatnonzero(~hidden), len(hidden) + np.flatnonzero(blended)])
        self.watched = np.flatnonzero(hidden)[:1024]
        self.batches = _Batches(population, learned, recipe, augmentation)
        torch.manual_seed(recipe.seed)
        self.network = build_network(recipe.family, recipe.dim, start=recipe.start)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if torch.cuda.is_available() else "32-true"
        self.fabric = Fabric(accelerator="auto", devices=1, precision=precision)
        self.fabric.launch()
        if recipe.frozen:
            self.network.features.requires_grad_(False)
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=recipe.rate, weight_decay=recipe.decay)
        facts = [recipe.to_dict(), population.key()]
        self.key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        make_folder(work)
        self.checkpoint = work / "checkpoint.pt"
        resumed = self.checkpoint.exists()
        if recipe.start != "nothing" and isinstance(getattr(self.network, "head", None), nn.Linear):
            if not resumed:
                _fit_head(self.network, self._clean, targets, 4096)
        elif recipe.start != "nothing" and recipe.keep_statistics:
            targets = turned(targets, self.network, self._clean, 1024)
        self.found: list[Tensor] = []  # features of a batch, by the student
        if recipe.features:
            self.reference = features_of(copy.deepcopy(self.network)).eval().requires_grad_(False)
            self.reference.to(self.fabric.device)
        if recipe.keep_statistics and recipe.noise and not resumed:
            renew_statistics(self.network, self._under_noise(targets, 16))
        self.model, self.optimizer = self.fabric.setup(self.network, optimizer)
        self.first = self._resume() if resumed else 0
        self.targets = targets.to(self.fabric.device)

    def _clean(self, index: NDArray[np.int64]) -> Tensor:
        """Faces as they are, in the student's crop."""
        images = torch.from_numpy(self.population.pixels(index)).permute(0, 3, 1, 2).float() / 255
        return augment(images, torch.Generator().manual_seed(0), Augmentation.none(), template=self.recipe.template)

    def _under_noise(self, targets: Tensor, count: int) -> Iterator[Tensor]:
        """Batches of faces under the noise that is learned from, normalised."""
        size = min(self.recipe.batch, len(targets))
        generator = torch.Generator().manual_seed(self.recipe.seed)
        for _ in range(count):
            index = np.sort(torch.randperm(len(targets), generator=generator)[:size].numpy())
            yield (noisy(self._clean(index), self.recipe.noise, generator) - MEAN) / STD

    def _resume(self) -> int:
        """Take the checkpoint up; the step to go on with."""
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if state["key"] != self.key:
            raise UsageError(
                f"{self.checkpoint} belongs to another recipe or to other faces.", hint="Choose another work folder."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def _save(self, step: int, figures: Mapping[str, float]) -> None:
        part = self.checkpoint.with_suffix(".part")
        networks = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({"key": self.key, "step": step, **networks}, part)
        part.replace(self.checkpoint)
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "steps": len(self.batches), **figures}) + "\n")

    def _into_training(self) -> None:
        self.network.train()
        if self.recipe.frozen:
            features = self.network.features
            assert isinstance(features, nn.Module)
            features.eval()  # the statistics of batch normalisation stay too
        if self.recipe.keep_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                    module.eval()

    def _agreement(self) -> float:
        """Mean cosine to the targets of people who are not learned from."""
        device = self.fabric.device
        self.network.eval()
        with torch.no_grad():
            found = torch.cat(
                [
                    functional.normalize(self.network((self._clean(part).to(device) - MEAN) / STD).float(), dim=1)
                    for part in np.array_split(self.watched, len(self.watched) // 64 + 1)
                ]
            )
        self._into_training()
        return float((found * self.targets[torch.from_numpy(self.watched).to(device)]).sum(1).mean())

    def _step(self, step: int, images: Tensor, index: Tensor) -> Tensor:
        """Learn from a batch; its distance and its relational term, (2,)."""
        recipe = self.recipe
        images, wanted = images.to(self.fabric.device), self.targets[index.to(self.fabric.device)]
        if recipe.adversarial:
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step + 1)
            with self.fabric.autocast():  # Fabric's wrapper refuses gradients that are not `fabric.backward`'s
                images = worst_case(self.network, images, wanted, recipe.adversarial / 255, generator)
        clean = images = images.contiguous(memory_format=torch.channels_last)
        if recipe.noise:
            images = noisy(images, recipe.noise, torch.Generator().manual_seed(recipe.seed * 1_000_003 + step + 2))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate * _rate(step, len(self.batches), recipe.warmup)
        self.found.clear()
        distance, relations = loss_terms(self.model((images - MEAN) / STD), wanted)
        loss = distance + recipe.relations * relations
        if recipe.features:
            with torch.no_grad(), self.fabric.autocast():
                wanted_features = self.reference((clean - MEAN) / STD)
            missed = (self.found.pop().float() - wanted_features).square().mean()
            loss = loss + recipe.features * missed / wanted_features.square().mean()
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.model, self.optimizer, max_norm=5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.stack([distance, relations]).detach().cpu()

    def train(self, workers: int, save_every: float, progress: Progress | None) -> dict[str, float]:
        """All steps that are left; the figures at the last checkpoint."""
        if not self.recipe.features:
            return self._train(workers, save_every, progress)
        last = features_of(self.network)[-1]
        hook = last.register_forward_hook(lambda layer, given, found: self.found.append(found))
        try:
            return self._train(workers, save_every, progress)
        finally:
            hook.remove()  # what is exported has none

    def _train(self, workers: int, save_every: float, progress: Progress | None) -> dict[str, float]:
        steps = len(self.batches)
        loader = DataLoader(self.batches, batch_size=None, sampler=range(self.first, steps), num_workers=workers)
        self._into_training()
        began = saved = time.monotonic()
        sums, since = torch.zeros(2), self.first
        figures: dict[str, float] = {}
        for step, (images, index) in enumerate(loader, self.first):
            sums += self._step(step, images, index)
            if not sums.isfinite().all():
                raise NumericalFailure(f"The loss is not finite at step {step}.", hint="Lower the recipe's rate.")
            done = step + 1
            if progress is not None:
                progress("training", done, steps)
            if done == steps or time.monotonic() - saved > save_every:
                spent = time.monotonic() - began
                figures = {
                    "epoch": round(done / self.batches.per_epoch, 3),
                    "distance": round(float(sums[0]) / (done - since), 5),
                    "relations": round(float(sums[1]) / (done - since), 6),
                    "images_per_second": round((done - self.first) * self.recipe.batch / spent, 1),
                }
                if len(self.watched):
                    figures["agreement"] = round(self._agreement(), 5)
                self._save(done, figures)
                sums, since, saved = torch.zeros(2), done, time.monotonic()
        return figures
