"""Distil a recogniser from several teachers at once.

The target of a face is its joint teacher embedding: the unit-norm embeddings of all teachers side by side, so that a
cosine between two targets is the mean of the teachers' cosines, projected to the student's dimension on the principal
directions of the training faces. The student learns the target of the clean face from a changed one: cropped, blurred,
recompressed, occluded, and, for a part of the batch, moved by its own worst-case perturbation. Our design; distilling
embeddings by regression and by relations follows Park et al. 2019 ("Relational knowledge distillation").

A run is a folder: ``faces.npy``, one file of embeddings for each teacher, ``checkpoint.pt`` and ``log.jsonl``. Started
again it goes on where it stopped. Batches are drawn from the seed and the number of the step alone, so neither a break
nor the number of loading processes changes them.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
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
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.recognizers.cards import ROLES
from bauta.recognizers.catalog import find_card
from bauta.recognizers.judges import load_judge
from bauta.training.augmentation import Augmentation, augment
from bauta.training.faces import FaceSet, blend, blend_pairs
from bauta.training.networks import build_network
from bauta.training.recipes import Recipe
from bauta.training.starts import MEAN, STD

Progress = Callable[[str, int, int], None]
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
    work.mkdir(parents=True, exist_ok=True)
    done = int(done_path.read_text()) if path.exists() and done_path.exists() else 0
    shape = (len(population), card.dim)
    mode = "r+" if done else "w+"
    kept = np.lib.format.open_memmap(path, mode=mode, dtype=np.float32, shape=None if done else shape)
    if done < len(population):
        judge = load_judge(replace(card, roles=ROLES), threads=threads)
        landmarks = np.array([ARCFACE_112.points], dtype=np.float32)
        for start in range(done, len(population), CHUNK):
            index = np.arange(start, min(start + CHUNK, len(population)))
            images = population.pixels(index)
            for piece in np.array_split(np.arange(len(index)), max(1, len(index) // 32)):
                pixels = images[piece].astype(np.float32) / np.float32(255)
                crops = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
                if card.template != ARCFACE_112:
                    crops = np.concatenate([extract_crops(one, landmarks, card.template) for one in pixels])
                kept[index[piece]] = judge.embed(crops)
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
    from lightning_fabric import Fabric

    embedded = [
        embed_by_teacher(population, name, embeddings or work, threads=threads, progress=progress)
        for name in recipe.teachers
    ]
    found, kept = joint_targets(embedded, recipe.dim)
    targets = torch.from_numpy(found)
    people = sorted(set(population.faces.people))
    watched = {person for number, person in enumerate(people) if number % HELD_OUT == HELD_OUT - 1}
    hidden = np.array([person in watched for person in population.faces.people])
    blended = ~hidden[population.pairs].any(1) if len(population.pairs) else np.zeros(0, dtype=bool)
    learned = np.concatenate([np.flatnonzero(~hidden), len(hidden) + np.flatnonzero(blended)])
    batches = _Batches(population, learned, recipe, augmentation or Augmentation())
    plain = Augmentation.none()

    def clean(index: NDArray[np.int64]) -> Tensor:
        images = torch.from_numpy(population.pixels(index)).permute(0, 3, 1, 2).float() / 255
        return augment(images, torch.Generator().manual_seed(0), plain, template=recipe.template)

    torch.manual_seed(recipe.seed)
    network = build_network(recipe.family, recipe.dim, start=recipe.start).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if torch.cuda.is_available() else "32-true"
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)
    fabric.launch()
    if recipe.frozen:
        network.features.requires_grad_(False)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=recipe.rate, weight_decay=recipe.decay)
    steps, first = len(batches), 0
    key = hashlib.sha256(json.dumps([recipe.to_dict(), population.key()], sort_keys=True).encode()).hexdigest()
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint.pt"
    resumed = checkpoint.exists()
    if recipe.start != "nothing" and isinstance(getattr(network, "head", None), nn.Linear) and not resumed:
        _fit_head(network, clean, targets, 4096)
    model, optimizer = fabric.setup(network, optimizer)
    if resumed:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if state["key"] != key:
            raise UsageError(
                f"{checkpoint} belongs to another recipe or to other faces.", hint="Choose another work folder."
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["step"])
    targets = targets.to(fabric.device)
    watched_faces = np.flatnonzero(hidden)[:1024]

    def learn() -> None:
        network.train()
        if recipe.frozen:
            network.features.eval()  # the statistics of batch normalisation stay too

    def agreement() -> float:
        """Mean cosine to the targets of people who are not learned from."""
        network.eval()
        with torch.no_grad():
            found = torch.cat(
                [
                    functional.normalize(network((clean(part).to(fabric.device) - MEAN) / STD).float(), dim=1)
                    for part in np.array_split(watched_faces, len(watched_faces) // 64 + 1)
                ]
            )
        learn()
        return float((found * targets[torch.from_numpy(watched_faces).to(fabric.device)]).sum(1).mean())

    def save(step: int, **figures: float) -> None:
        part = checkpoint.with_suffix(".part")
        torch.save(
            {"key": key, "step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict()}, part
        )
        part.replace(checkpoint)
        with (work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "steps": steps, **figures}) + "\n")

    loader = DataLoader(batches, batch_size=None, sampler=range(first, steps), num_workers=workers)
    learn()
    began = saved = time.monotonic()
    sums, since = torch.zeros(2), first
    figures: dict[str, float] = {}
    for step, (images, index) in enumerate(loader, first):
        images, wanted = images.to(fabric.device), targets[index.to(fabric.device)]
        if recipe.adversarial:
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step + 1)
            with fabric.autocast():  # Fabric's wrapper refuses gradients that are not `fabric.backward`'s
                images = worst_case(network, images, wanted, recipe.adversarial / 255, generator)
        images = images.contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * _rate(step, steps, recipe.warmup)
        distance, relations = loss_terms(model((images - MEAN) / STD), wanted)
        fabric.backward(distance + recipe.relations * relations)
        fabric.clip_gradients(model, optimizer, max_norm=5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        sums += torch.stack([distance, relations]).detach().cpu()
        if not sums.isfinite().all():
            raise NumericalFailure(f"The loss is not finite at step {step}.", hint="Lower the recipe's rate.")
        done = step + 1
        if progress is not None:
            progress("training", done, steps)
        if done == steps or time.monotonic() - saved > save_every:
            spent = time.monotonic() - began
            figures = {
                "epoch": round(done / batches.per_epoch, 3),
                "distance": round(float(sums[0]) / (done - since), 5),
                "relations": round(float(sums[1]) / (done - since), 6),
                "images_per_second": round((done - first) * recipe.batch / spent, 1),
            }
            if len(watched_faces):
                figures["agreement"] = round(agreement(), 5)
            save(done, **figures)
            sums, since, saved = torch.zeros(2), done, time.monotonic()
    return network.cpu().eval(), {
        "faces": len(population.faces.pixels),
        "people": len(people),
        "blends": len(population.pairs),
        "target_energy_kept": round(kept, 5),
        "steps": steps,
        **figures,
    }
