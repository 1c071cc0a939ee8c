"""The adaptive recogniser: one that goes on learning, on clean and protected photos of people it may learn from.

What is FaceCure's (Radiya-Dixit et al., ICLR 2022, and its code): somebody with black-box access to the protection
protects photos of a public set, and fine-tunes a feature extractor end to end, as a classifier of that set's people,
on clean and protected photos alike, mirrored at random; protected photos of everybody else then match by the features.
What is ours: a classifier by cosines, which starts at the mean of each person's clean embeddings; a term that keeps
the embeddings of clean photos, since our sets are small enough to forget a recogniser on; AdamW with a cosine; and the
recogniser's batch normalisation stays folded into its convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.attacks.link import Student, embed, mirrored
from bauta.errors import UsageError
from bauta.learning.fitting import FitConfig, fit, images
from bauta.progress import Steps
from bauta.recognizers.onnx.module import trainable_copy
from bauta.settings import Range


@dataclass(frozen=True)
class FineTuningConfig(FitConfig):
    """Settings of the fine-tuning.

    Attributes:
        scale: Of the cosines in the softmax.
        keep: Weight of 1 - cosine between the embeddings of a clean photo before and after.
        flip: Mirror a random half of the photos at every step.
    """

    title: ClassVar[str] = "fine-tuning"
    scale: Annotated[float, Range(above=0, to=1000)] = 32.0
    keep: Annotated[float, Range(at=0, to=1000)] = 1.0
    flip: bool = True


def fine_tune(
    clean: Tensor,
    people: Sequence[str],
    protected: Tensor,
    protected_people: Sequence[str],
    start: nn.Module,
    config: FineTuningConfig,
    generator: torch.Generator,
    progress: Steps | None = None,
) -> Student:
    """Fine-tune a recogniser until protected photos are told apart by person as clean ones are.

    Args:
        clean: (N, 3, H, W) crops, float in [0, 1] or uint8.
        people: Who they show.
        protected: (M, 3, H, W) crops in the same form, of some of these people.
        protected_people: Who those show.
        start: The recogniser; a copy of it is trained.
        config: Settings.
        generator: Of the order and the mirroring.
        progress: Called with steps done and steps in all.

    Returns:
        The recogniser; that of the last good epoch when the loss was not finite later on.

    Raises:
        UsageError: when there are fewer than two people, names and photos do not go together, or somebody has only
            protected photos.
        NumericalFailure: when the loss was not finite in the first epoch.
    """
    names = sorted(set(people))
    if len(clean) != len(people) or len(protected) != len(protected_people):
        raise UsageError(
            f"{len(clean)} and {len(protected)} photos do not go with {len(people)} and {len(protected_people)} names.",
            hint="Give a name for each photo.",
        )
    if len(names) < 2:
        raise UsageError(f"{len(names)} people cannot be told apart.", hint="Give photos of at least two people.")
    if strangers := sorted(set(protected_people) - set(names)):
        raise UsageError(
            f"There is no clean photo of {strangers[0]}.", hint="Whoever has protected photos has the clean ones too."
        )
    number = {name: place for place, name in enumerate(names)}
    labels = torch.tensor([number[name] for name in (*people, *protected_people)])
    photos = torch.cat([clean, protected])
    before = embed(start, clean)
    centres = torch.zeros(len(names), before.shape[1]).index_add_(0, labels[: len(clean)], before)
    classes = functional.normalize(centres, dim=1).requires_grad_()
    network, weights = trainable_copy(start)

    def loss(index: Tensor) -> Tensor:
        batch = images(photos[index])
        if config.flip:
            batch = mirrored(batch, generator)
        found = functional.normalize(network(batch), dim=1)
        cosines = found @ functional.normalize(classes, dim=1).T
        value = functional.cross_entropy(config.scale * cosines, labels[index])
        known = index < len(clean)
        if config.keep and known.any():
            value = value + config.keep * (1 - (found[known] * before[index[known]]).sum(1)).mean()
        return value

    done = fit(network, [*weights, classes], loss, len(photos), config, generator, progress)
    return Student(network.eval().requires_grad_(False), done)
