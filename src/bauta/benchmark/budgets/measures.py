"""What is measured of a mechanism at one budget: recognition, what is computed back, and what an audit finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bauta import metrics
from bauta.benchmark.budgets.audits import audited
from bauta.benchmark.engine.figures import Figures, mean_by_subject, rounded
from bauta.progress import Steps
from bauta.templates.base import SIDE, Protector
from bauta.templates.fit import as_images
from bauta.templates.released.base import Released, seeded_words
from bauta.templates.released.others import TurnedTemplate
from bauta.templates.representation import Representation

FMR = 1e-3
PICTURE = 56  # side of the pictures that are computed back
SEEN = 28  # to which stored pictures are reduced for the attacker
CHUNK = 128
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


def measure(protector: Released, faces: Faces, victims: int, seed: int, progress: Steps) -> Figures:
    """All figures of a protector; see `bauta.benchmark.budgets.cards`."""
    generator = torch.Generator().manual_seed(seed)
    people, photos = faces.images.shape[:2]
    flat = faces.images.flatten(0, 1)
    values, noisy, clean = [], [], []
    for start in range(0, len(flat), CHUNK):
        part = as_images(flat[start : start + CHUNK])
        with torch.no_grad():
            stored = _protected(
                protector, part, faces.templates.reshape(len(flat), -1)[start : start + CHUNK], generator
            )
            noisy.append(protector.templates(stored))
            if type(protector).probe is not Protector.probe:
                clean.append(protector.probe(part))
        values.append(_seen(stored.values()))
        progress(min(start + CHUNK, len(flat)), len(flat))

    def arranged(parts: list[Tensor]) -> Floats:
        joined: Floats = torch.cat(parts).reshape(people, photos, -1).numpy()
        return joined

    released, probes = arranged(noisy), arranged(clean) if clean else faces.templates
    spent = protector.spent
    one, several = _attacked(protector, faces, arranged(values), victims, generator)
    value_audit, photo_audit = audited(protector.mechanism, seeded_words(generator))
    return {
        "budget": {
            "value": rounded(spent.value),
            "photo": rounded(spent.image),
            "enrolled": rounded(spent.person(faces.enrolled)),
            "person": rounded(spent.person(photos)),
            "words": spent.words(photos),
        },
        "values": int(np.prod(protector.row_shape or ())),
        "plain": _recognised(faces.templates, faces.templates, faces),
        "one_sided": _recognised(released, probes, faces),
        "two_sided": _recognised(released, released, faces),
        "templates": [one["template"], several],
        "pictures": one["picture"],
        "value_audit": value_audit,
        "photo_audit": photo_audit,
    }


def _protected(protector: Released, part: Tensor, templates: Floats, generator: torch.Generator) -> Representation:
    if isinstance(protector, TurnedTemplate):  # the templates are known already
        turned = protector.mechanism.release(templates, seeded_words(generator))
        return protector.represent(torch.from_numpy(turned).float())
    return protector.protect(part, generator)


def _recognised(stored: Floats, probes: Floats, faces: Faces) -> Figures:
    genuine = np.einsum("pd,pnd->pn", stored[:, 0], probes[:, 1:])
    strangers = (stored[:, 0] @ probes[:, 1].T)[~np.eye(len(stored), dtype=bool)]
    limits = [metrics.threshold_at_fmr(strangers, fmr) for fmr in (1e-2, FMR)]
    rates = [_by_person(genuine >= limit, faces.subjects) for limit in limits]
    kept = _normal(stored[:, : faces.enrolled].mean(1))
    hits = []
    for start in range(0, len(kept), faces.group):
        group = slice(start, start + faces.group)
        best = np.einsum("pnd,gd->png", probes[group, faces.enrolled :], kept[group]).argmax(2)
        hits.append(best == np.arange(len(best))[:, None])
    return {
        "verification": {
            "tmr_1e2": rates[0],
            "tmr_1e3": rates[1],
            "auroc": rounded(metrics.auroc(genuine, strangers)),
            "threshold": rounded(limits[1]),
            "genuine": int(genuine.size),
            "impostors": int(strangers.size),
        },
        "rank_one": _by_person(np.concatenate(hits), faces.subjects),
    }


def _attacked(
    protector: Released, faces: Faces, values: Floats, victims: int, generator: torch.Generator
) -> tuple[dict[str, Figures], Figures]:
    small = functional.avg_pool2d(as_images(faces.public), SIDE // PICTURE).flatten(1).numpy()
    size, count = faces.templates.shape[-1], faces.enrolled
    if isinstance(protector, TurnedTemplate):
        # What is stored is the template but for the noise: nothing that is learned of it comes nearer.
        templates = values[:victims, :count]
        drawn = Ridge(faces.public_templates, small, faces.public_people)(templates)
        found = np.concatenate([templates, drawn], 2)
    else:
        known = []
        for start in range(0, len(faces.public), CHUNK):
            with torch.no_grad():
                stored = protector.protect(as_images(faces.public[start : start + CHUNK]), generator)
            known.append(_seen(stored.values()))
        wanted = np.concatenate([faces.public_templates, small], 1)
        found = Ridge(torch.cat(known).double().numpy(), wanted, faces.public_people)(values[:victims, :count])
    plain = faces.templates
    strangers = (plain[:, 0] @ plain[:, 1].T)[~np.eye(len(plain), dtype=bool)]
    limit = metrics.threshold_at_fmr(strangers, FMR)

    def judged(templates: Floats) -> Figures:
        cosines = np.einsum("pd,pnd->pn", _normal(templates), plain[:victims])
        return {
            "cosine": _by_person(cosines[:, 0], faces.subjects),
            "same": _by_person(cosines[:, 0] >= limit, faces.subjects),
            "other": _by_person(cosines[:, count:] >= limit, faces.subjects),
        }

    pictures = torch.from_numpy(found[:, 0, size:]).float().reshape(-1, 3, PICTURE, PICTURE)
    pictures = functional.interpolate(pictures, (SIDE, SIDE), mode="bilinear").clamp(0, 1)
    with torch.no_grad():
        seen = torch.cat([protector.clean(part) for part in torch.split(pictures, CHUNK)]).numpy()
    shown = judged(seen)
    true = as_images(faces.images[:victims, 0])
    likeness = [
        metrics.ssim(one.permute(1, 2, 0).numpy(), other.permute(1, 2, 0).numpy())
        for one, other in zip(pictures, true, strict=True)
    ]
    picture = {"ssim": _by_person(likeness, faces.subjects), "same": shown["same"], "other": shown["other"]}
    template = {"records": 1} | judged(found[:, 0, :size])
    several = {"records": count} | judged(found[:, :, :size].mean(1))
    return {"template": template, "picture": picture}, several


class Ridge:
    """Least squares with damping: what releases say of other numbers, as far as a linear map can tell.

    The damping is chosen on a fifth of the people, from whom nothing else is learned.

    Args:
        inputs: (N, K).
        outputs: (N, L).
        people: Of each of the N.
    """

    def __init__(self, inputs: Any, outputs: Any, people: tuple[str, ...]) -> None:
        inputs, outputs = np.asarray(inputs, np.float32), np.asarray(outputs, np.float32)
        names = sorted(set(people))
        held = np.isin(people, names[::5])
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

    def __call__(self, inputs: Floats) -> Floats:
        """(..., L) of (..., K)."""
        found: Floats = (inputs - self._centre) / self._scale @ self._map + self._mean
        return found


def _seen(values: Tensor) -> Tensor:
    """(N, K): numbers as they are, pictures reduced."""
    small = functional.adaptive_avg_pool2d(values, SEEN) if values.dim() == 4 else values
    return small.flatten(1)


def _normal(values: Floats) -> Floats:
    unit: Floats = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
    return unit


def _by_person(values: Any, subjects: tuple[str, ...]) -> Figures:
    """The mean of (people, ...) values with its interval."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    return mean_by_subject(flat.mean(1), subjects[: len(flat)])
