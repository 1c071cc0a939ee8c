"""What is measured of a mechanism at one budget: recognition, what is computed back, and what an audit finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bauta import metrics
from bauta.benchmark.budgets.attackers import CHUNK, Faces, Floats, Told, linear, networks, seen, stolen
from bauta.benchmark.budgets.audits import audited
from bauta.benchmark.engine.figures import Figures, mean_by_subject, rounded
from bauta.progress import Steps
from bauta.templates.base import Protector
from bauta.templates.fit import as_images
from bauta.templates.released.base import Released, seeded_words

FMR = 1e-3


def measure(protector: Released, faces: Faces, victims: int, seed: int, progress: Steps) -> Figures:
    """All figures of a protector; see `bauta.benchmark.budgets.cards`."""
    generator = torch.Generator().manual_seed(seed)
    people, photos = faces.images.shape[:2]
    flat = faces.images.flatten(0, 1)
    values, noisy, clean = [], [], []
    for start in range(0, len(flat), CHUNK):
        part = as_images(flat[start : start + CHUNK])
        with torch.no_grad():
            known = torch.from_numpy(faces.templates.reshape(len(flat), -1)[start : start + CHUNK])
            stored = stolen(protector, part, known, generator)
            noisy.append(protector.templates(stored))
            if type(protector).probe is not Protector.probe:
                clean.append(protector.probe(part))
        values.append(seen(stored.values()))
        progress(min(start + CHUNK, len(flat)), len(flat))

    def arranged(parts: list[Tensor]) -> Floats:
        joined: Floats = torch.cat(parts).reshape(people, photos, -1).numpy()
        return joined

    released, probes = arranged(noisy), arranged(clean) if clean else faces.templates
    spent = protector.spent
    records = arranged(values)
    told = linear(protector, faces, records, victims, generator)
    value_audit, photo_audit = audited(protector.mechanism, seeded_words(generator))
    by_networks, learned = networks(protector, faces, records, victims, generator, progress)
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
        **_judged(protector, faces, told),
        "value_audit": value_audit,
        "photo_audit": photo_audit,
        "networks": learned | _judged(protector, faces, by_networks),
    }


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


def _judged(protector: Released, faces: Faces, told: Told) -> Figures:
    """What the recogniser says of what an attacker makes of releases."""
    plain, victims, count = faces.templates, len(told.pictures), faces.enrolled
    strangers = (plain[:, 0] @ plain[:, 1].T)[~np.eye(len(plain), dtype=bool)]
    limit = metrics.threshold_at_fmr(strangers, FMR)

    def accepted(templates: Floats) -> Figures:
        cosines = np.einsum("pd,pnd->pn", _normal(templates), plain[:victims])
        return {
            "cosine": _by_person(cosines[:, 0], faces.subjects),
            "same": _by_person(cosines[:, 0] >= limit, faces.subjects),
            "other": _by_person(cosines[:, count:] >= limit, faces.subjects),
        }

    with torch.no_grad():
        shown = accepted(torch.cat([protector.clean(part) for part in torch.split(told.pictures, CHUNK)]).numpy())
    true = as_images(faces.images[:victims, 0])
    likeness = [
        metrics.ssim(one.permute(1, 2, 0).numpy(), other.permute(1, 2, 0).numpy())
        for one, other in zip(told.pictures, true, strict=True)
    ]
    templates, linked = told.templates[:victims], _normal(told.templates)
    return {
        "templates": [
            {"records": 1} | accepted(templates[:, 0]),
            {"records": count} | accepted(templates[:, :count].mean(1)),
        ],
        "pictures": {"ssim": _by_person(likeness, faces.subjects), "same": shown["same"], "other": shown["other"]},
        "linked": _recognised(linked, linked, faces),
    }


def _normal(values: Floats) -> Floats:
    unit: Floats = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
    return unit


def _by_person(values: Any, subjects: tuple[str, ...]) -> Figures:
    """The mean of (people, ...) values with its interval."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    return mean_by_subject(flat.mean(1), subjects[: len(flat)])
