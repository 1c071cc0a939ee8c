"""Who has stolen releases, and has learned on releases of other people what was behind them.

Two attackers of the same records: a linear map, and networks of our training ground (`bauta.attacks`), which see every
photo of their own people several times, with other noise and mirrored. Both give the template and a picture. Where what
is stored is a template but for the noise, the linear attacker hands it in as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bauta.attacks.link import StudentConfig, fit_student, start_from
from bauta.attacks.reconstruct import ReconstructionConfig, fit_reconstructor
from bauta.benchmark.engine.figures import Figures
from bauta.learning.learners import Schedule
from bauta.progress import Steps, silent
from bauta.templates.base import SIDE
from bauta.templates.fit import as_images
from bauta.templates.released.base import Released, seeded_words
from bauta.templates.released.others import TurnedTemplate
from bauta.templates.representation import Representation

PICTURE = 56  # side of the pictures that the linear attacker computes back
SEEN = 28  # to which stored pictures are reduced for attackers
CHUNK = 128
DRAWS = 4  # of the noise, of each photo that networks learn from; every other one of the mirrored photo
TRIED = (StudentConfig(epochs=4, batch=64), StudentConfig(epochs=12, batch=64))
"""Of which the one that does better on people who are not learned from is taken."""
DECODER = ReconstructionConfig(decoder="residual", channels=8, schedule=Schedule(epochs=2, batch=32, rate=2e-3))
_DAMPING = 10.0 ** np.arange(-4, 5)

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Faces:
    """Aligned faces and the recogniser's templates of them.

    Attributes:
        images: (people, photos, 3, 112, 112) uint8.
        templates: (people, photos, D) of unit norm.
        subjects: Names of the people.
        public: (N, 3, 112, 112) uint8 of other people, from whom protectors and attackers learn.
        public_templates: (N, D).
        public_people: Names.
        enrolled: Photos of a person that are enrolled to be identified.
        group: People among whom one is identified.
    """

    images: Tensor
    templates: Floats
    subjects: tuple[str, ...]
    public: Tensor
    public_templates: Floats
    public_people: tuple[str, ...]
    enrolled: int
    group: int


@dataclass(frozen=True, eq=False)
class Told:
    """What an attacker makes of releases.

    Attributes:
        templates: (people, photos, D), of any length.
        pictures: (victims, 3, 112, 112) in [0, 1], of the first release of each.
    """

    templates: Floats
    pictures: Tensor


def seen(values: Tensor) -> Tensor:
    """(N, K): numbers as they are, pictures reduced."""
    small = functional.adaptive_avg_pool2d(values, SEEN) if values.dim() == 4 else values
    return small.flatten(1)


def linear(protector: Released, faces: Faces, stored: Floats, victims: int, generator: torch.Generator) -> Told:
    """A linear map from releases (people, photos, K) to templates and pictures."""
    small = functional.avg_pool2d(as_images(faces.public), SIDE // PICTURE).flatten(1).numpy()
    size = faces.templates.shape[-1]
    if isinstance(protector, TurnedTemplate):
        # What is stored is the template but for the noise: nothing linear that is learned of it comes nearer.
        templates = stored
        drawn = Ridge(faces.public_templates, small, faces.public_people)(stored[:victims, 0])
    else:
        known = _learned(protector, as_images(faces.public), torch.from_numpy(faces.public_templates), generator)
        found = Ridge(known, np.concatenate([faces.public_templates, small], 1), faces.public_people)
        templates = found(stored, slice(size))
        drawn = found(stored[:victims, 0], slice(size, None))
    pictures = torch.from_numpy(drawn).float().reshape(-1, 3, PICTURE, PICTURE)
    return Told(templates, functional.interpolate(pictures, (SIDE, SIDE), mode="bilinear").clamp(0, 1))


def networks(
    protector: Released,
    faces: Faces,
    stored: Floats,
    victims: int,
    generator: torch.Generator,
    progress: Steps = silent,
) -> tuple[Told, Figures]:
    """A student that embeds releases (people, photos, K) as the recogniser does photos, and a decoder; and what they
    learned from."""
    images = as_images(faces.public)
    sides = torch.stack([images, images.flip(3)])
    # What is behind a mirrored photo is taken for the same template: those of the two differ little.
    targets = torch.from_numpy(faces.public_templates)
    inputs = torch.cat([_learned(protector, sides[draw % 2], targets, generator) for draw in range(DRAWS)])
    every = targets.repeat(DRAWS, 1)
    held = torch.from_numpy(_held(faces.public_people)).repeat(DRAWS)
    start = start_from(protector.recognizer, tuple(inputs.shape[1:]), generator, inputs[:: len(inputs) // 512 + 1])
    learned = inputs[~held]
    students = [fit_student(learned, every[~held], start, config, generator, progress) for config in TRIED]
    agreed = [float((student.embed(inputs[held]) * every[held]).sum(1).mean()) for student in students]
    student = students[int(np.argmax(agreed))]
    pairs = _Pairs(learned, sides, torch.arange(len(inputs))[~held])
    decoder = fit_reconstructor(pairs, DECODER)
    people, photos = stored.shape[:2]
    flat = torch.from_numpy(stored).float().flatten(0, 1)
    templates: Floats = student.embed(flat).numpy().reshape(people, photos, -1)
    told = Told(templates, decoder.reconstruct(torch.from_numpy(stored[:victims, 0]).float()))
    return told, {"examples": len(learned), "epochs": TRIED[int(np.argmax(agreed))].epochs}


class _Pairs:
    """Releases and the photos that they are of: place P of draw D is photo P, mirrored in every other draw."""

    def __init__(self, releases: Tensor, photos: Tensor, places: Tensor) -> None:
        self.releases, self.photos, self.places = releases, photos, places
        self.shape = tuple(releases.shape[1:])
        self.key = hashlib.sha256(releases.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.releases)

    def representations(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return self.releases[index]

    def images(self, index: Tensor) -> Tensor:
        draw, photo = self.places[index] // self.photos.shape[1], self.places[index] % self.photos.shape[1]
        return self.photos[draw % 2, photo]


def stolen(protector: Released, images: Tensor, templates: Tensor, generator: torch.Generator) -> Representation:
    """What is stored of photos (N, 3, 112, 112) whose templates (N, D) are known."""
    if isinstance(protector, TurnedTemplate):
        turned = protector.mechanism.release(templates.numpy(), seeded_words(generator))
        return protector.represent(torch.from_numpy(turned).float())
    return protector.protect(images, generator)


def _learned(protector: Released, images: Tensor, templates: Tensor, generator: torch.Generator) -> Tensor:
    """(N, K), what attackers see of releases of their own photos."""
    parts = zip(torch.split(images, CHUNK), torch.split(templates, CHUNK), strict=True)
    with torch.no_grad():
        return torch.cat([seen(stolen(protector, *part, generator).values()) for part in parts])


def _held(people: tuple[str, ...]) -> NDArray[np.bool_]:
    """Faces of a fifth of the people."""
    held: NDArray[np.bool_] = np.isin(people, sorted(set(people))[::5])
    return held


class Ridge:
    """Least squares with damping: what releases say of other numbers, as far as a linear map can tell.

    The damping is chosen on a fifth of the people, from whom nothing else is learned.

    Args:
        inputs: (N, K).
        outputs: (N, L).
        people: Of each.
    """

    def __init__(self, inputs: Any, outputs: Any, people: tuple[str, ...]) -> None:
        inputs, outputs = np.asarray(inputs, np.float32), np.asarray(outputs, np.float32)
        held = _held(people)
        self._centre, self._scale = inputs[~held].mean(0), inputs[~held].std() + 1e-9
        self._mean = outputs[~held].mean(0)
        told = (inputs[~held] - self._centre) / self._scale
        left, sizes, right = np.linalg.svd(told, full_matrices=False)
        wanted = left.T @ (outputs[~held] - self._mean)
        tried = ((inputs[held] - self._centre) / self._scale) @ right.T
        errors = []
        for damping in _DAMPING * len(told):
            guessed = (tried * (sizes / (sizes**2 + damping))) @ wanted + self._mean
            errors.append(float(np.square(guessed - outputs[held]).mean(0).sum()))
        best = _DAMPING[int(np.argmin(errors))] * len(told)
        self._map = right.T @ ((sizes / (sizes**2 + best))[:, None] * wanted)

    def __call__(self, inputs: Floats, part: slice = slice(None)) -> Floats:
        """(..., L) of (..., K), or a part of these."""
        found: Floats = (inputs - self._centre) / self._scale @ self._map[:, part] + self._mean[part]
        return found
