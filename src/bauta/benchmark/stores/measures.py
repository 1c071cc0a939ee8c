"""What is measured of a protector and its attackers, from templates, pictures and scores to the figures of a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta import metrics
from bauta.attacks.replay import embed_aligned, likeness
from bauta.benchmark.embeddings import cosines
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.figures import mean_by_subject, plain, rounded
from bauta.benchmark.identification import closed_set
from bauta.benchmark.protocols import OperatingPoint
from bauta.benchmark.stores.attacks import Outcome
from bauta.benchmark.stores.recipe import MATCHER, SYSTEM
from bauta.benchmark.stores.representations import (
    Faces,
    Protected,
    again,
    hash_seed,
    milliseconds,
    read_tensors,
    write_tensors,
)
from bauta.benchmark.stores.setup import Setup
from bauta.data.datasets import PairSet
from bauta.templates.base import Protector
from bauta.templates.representation import Storage

Floats = NDArray[Any]
Record = dict[str, Any]
BINS = 30  # of linkability; see `metrics.null_linkability` for what so few scores make of it
IMAGE_BYTES = 3 * 112 * 112  # of a crop in 8 bits
TEMPLATE_BYTES = 512 * 4  # of 512 numbers in float32


def clean_templates(protector: Protector, faces: Faces) -> Tensor:
    """(N, D) templates of unprotected faces by the clean recogniser."""
    parts: tuple[Tensor, ...] = torch.arange(len(faces)).split(32)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return torch.cat([protector.clean(faces.images(part)) for part in parts])


def black_box(setup: Setup, protector: Protector, made: Sequence[Protected], key: bytes | None, work: Path) -> Record:
    """What judges that know of nothing make of stored images: accuracy of each, and the mean loss of all."""
    found: Record = {"judges": {}, "mean_loss": {}}
    for one_set, protected in zip(setup.evaluation, made, strict=True):
        assert protected.values is not None
        with torch.no_grad():
            pictures = [
                protector.to_image(again(protector, part, key), key) for part in torch.split(protected.values, 32)
            ]
        losses: dict[str, list[Floats]] = {"one-sided": [], "two-sided": []}
        for name in setup.recipe.judges:
            judge = setup.replay.judges[name]
            path = work / "judged" / f"{hash_seed(judge.card.digest, one_set.faces.sha256):x}.safetensors"
            kept = read_tensors(path)
            if kept is None:
                parts = torch.arange(len(one_set.faces)).split(32)  # type: ignore[no-untyped-call]
                clean = [embed_aligned(judge, one_set.faces.images(part).numpy()) for part in parts]
                kept = {"clean": torch.from_numpy(np.concatenate(clean))}
                write_tensors(path, kept)
            stored = torch.from_numpy(np.concatenate([embed_aligned(judge, part.numpy()) for part in pictures]))
            limits = {f"{fmr:g}": float(one["cosine"]) for fmr, one in setup.thresholds[name].items()}
            figures, rights = accuracy(one_set.pairs, kept["clean"], kept["clean"], stored, limits)
            found["judges"].setdefault(name, {})[one_set.pairs.name] = figures
            for mode, ones in losses.items():
                ones.append(rights["clean"].astype(np.float64) - rights[mode])
        found["mean_loss"][one_set.pairs.name] = {
            mode: mean_by_subject(np.mean(ones, axis=0), one_set.pairs.pair_subjects) for mode, ones in losses.items()
        }
    return found


def probe_templates(setup: Setup, protector: Protector, faces: Faces) -> Tensor:
    """(N, D) templates of faces that are compared and not stored, each chunk with randomness of its own."""
    parts: tuple[Tensor, ...] = torch.arange(len(faces)).split(32)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return torch.cat(
            [
                protector.probe(
                    faces.images(part), torch.Generator().manual_seed(hash_seed(setup.recipe.seed, "probe", place))
                )
                for place, part in enumerate(parts)
            ]
        )


def against_baseline(baseline: cards.Card, setup: Setup, rights: Sequence[Mapping[str, Floats]], work: Path) -> Record:
    """What a row loses, pair by pair, to the one it is compared with: a recogniser trained alike, unprotected."""
    theirs = read_tensors(work / "verified" / f"{baseline['key'][:24]}.safetensors")
    assert theirs is not None  # no card of a recipe with a baseline is finished without
    return {
        "row": baseline["name"].partition("/")[2],
        "loss": {
            one_set.pairs.name: {
                mode: mean_by_subject(
                    theirs[f"{place} {mode}"].numpy().astype(np.float64) - right[mode], one_set.pairs.pair_subjects
                )
                for mode in ("one-sided", "two-sided")
            }
            for place, (one_set, right) in enumerate(zip(setup.evaluation, rights, strict=True))
        },
    }


def accuracy(
    pairs: PairSet, clean: Tensor, probes: Tensor, protected: Tensor, limits: Mapping[str, float] | None = None
) -> tuple[Record, dict[str, Floats]]:
    """Accuracy in each mode with what protection costs pair by pair, and which pairs are right in each mode.

    With `limits`, cosines by false match rate, also the true accept rate at each, and how often others match there: a
    service has one threshold, and does not choose it anew for what it stores.
    """
    people = pairs.pair_subjects
    rights, found = {}, {}
    for mode, first, second in (
        ("clean", clean, clean),
        ("one-sided", protected, probes),
        ("two-sided", protected, protected),
    ):
        scores = cosines(first[pairs.first].numpy(), second[pairs.second].numpy())
        rights[mode] = metrics.cross_validated_matches(scores, pairs.same, pairs.fold) == pairs.same
        found[mode] = {
            "accuracy": mean_by_subject(rights[mode], people),
            "fold_error": rounded(metrics.cross_validated_accuracy(scores, pairs.same, pairs.fold)[1]),
            "auroc": rounded(metrics.auroc(scores[pairs.same], scores[~pairs.same])),
        }
        if limits is not None:
            mated = [name for name, same in zip(people, pairs.same, strict=True) if same]
            other = [name for name, same in zip(people, pairs.same, strict=True) if not same]
            found[mode]["tar"] = {fmr: mean_by_subject(scores[pairs.same] >= one, mated) for fmr, one in limits.items()}
            found[mode]["false_matches"] = {
                fmr: mean_by_subject(scores[~pairs.same] >= one, other) for fmr, one in limits.items()
            }
        if mode != "clean":
            loss = rights["clean"].astype(np.float64) - rights[mode]
            found[mode]["loss"] = mean_by_subject(loss, people)
    return found, rights


def recovered(setup: Setup, protector: Protector, stored: Tensor, outcomes: Mapping[str, Outcome]) -> list[Record]:
    """What was recovered of each victim, by each attacker and reference."""
    victims, replay = setup.victims, setup.replay
    mean_face = setup.attackers.mean_face.expand_as(victims.enrolled)
    recovered = {
        "mean face": mean_face,
        "another photo": victims.others,
        "grey": torch.full_like(victims.enrolled, 0.5),
    } | {name: outcome.images for name, outcome in outcomes.items() if outcome.images is not None}
    records: list[Record] = [{"subject": subject, "self": {}, "recovered": {}} for subject in victims.subjects]
    for name in replay.judges:
        for record, score in zip(records, replay.self_scores(name), strict=True):
            record["self"][name] = rounded(score)
    for name, images in recovered.items():
        count = len(images)
        filled = torch.cat([images, victims.enrolled[count:]]).contiguous()  # who was not attacked is left out below
        looks = likeness(images.contiguous(), victims.enrolled[:count])
        judged = replay.scores(filled)
        with torch.no_grad():
            parts: tuple[Tensor, ...] = images.contiguous().split(32)  # type: ignore[no-untyped-call]
            probes = torch.cat([protector.probe(part) for part in parts])
        system = [(probes * stored[places[:count]]).sum(1).numpy() for places in (setup.enrolled, setup.others)]
        for place in range(count):
            records[place]["recovered"][name] = {
                "mse": rounded(looks.mse[place]),
                "ssim": rounded(looks.ssim[place]),
                "scores": {
                    judge: [rounded(scores.first[place]), rounded(scores.second[place])]
                    for judge, scores in judged.items()
                }
                | {SYSTEM: [rounded(scores[place]) for scores in system]},
            }
    return records


def linkage(
    setup: Setup, clean: Tensor, probed: Tensor, first: Protected, second: Protected, outcomes: Mapping[str, Outcome]
) -> Record:
    """What links representations of the first evaluation set, across keys if there are any, to each other and to faces.

    Without a key the matcher is itself such a way: whoever has the recogniser compares templates.
    """
    pairs = setup.evaluation[0].pairs
    same, people = pairs.same, pairs.pair_subjects
    assert first.values is not None
    assert second.values is not None
    keyed = second is not first
    matcher = (first.templates, first.templates)
    ways = {} if keyed else {MATCHER: matcher}
    for name, outcome in outcomes.items():
        if outcome.student is not None:
            one = outcome.student.embed(first.values)
            ways[name] = (one, outcome.student.embed(second.values) if keyed else one)
    linkage = {}
    for name, (one, other) in ways.items():
        seen = probed if name == MATCHER else clean
        faces = cosines(one[pairs.first].numpy(), seen[pairs.second].numpy())
        own = cosines(one[pairs.first].numpy(), other[pairs.second].numpy())
        probes, gallery = one[setup.enrolled].numpy(), seen[setup.others].numpy()
        ranks = closed_set(probes, setup.victims.subjects, gallery, setup.victims.subjects)
        linkage[name] = {
            "face_template": _pair_figures(faces, same, pairs.fold, people),
            "template_template": _pair_figures(own, same, pairs.fold, people),
            "rank_1": plain(ranks.rates[1]),
            "gallery": len(gallery),
        }
    secret = {
        name: cosines(one[pairs.first].numpy(), other[pairs.second].numpy()) for name, (one, other) in ways.items()
    }
    secret["numbers"] = _number_cosines(first.values, second.values, pairs)
    stolen = secret | {MATCHER: cosines(matcher[0][pairs.first].numpy(), matcher[1][pairs.second].numpy())}
    unlinkability: Record = {"keyed": keyed}
    for knowledge, scores in (("key_secret", secret), ("key_stolen", stolen)):
        figures = {name: _linkability(one[same], one[~same], setup.recipe.seed) for name, one in scores.items()}
        best = max(figures, key=lambda name: float(figures[name]["system"]))
        unlinkability[knowledge] = {"strongest": best, **figures[best], "by": figures}
    return {"linkage": linkage, "unlinkability": unlinkability | {"mated": int(same.sum()), "bins": BINS}}


def _linkability(mated: Floats, other: Floats, seed: int) -> Record:
    return {
        "system": rounded(metrics.system_linkability(mated, other, bins=BINS)),
        "null": plain(metrics.null_linkability(mated, other, bins=BINS, seed=seed)),
        "maximal": rounded(metrics.maximal_linkability(mated, other, bins=BINS)),
    }


def _number_cosines(first: Tensor, second: Tensor, pairs: PairSet) -> Floats:
    """(P,) cosines of the stored numbers themselves, a few pairs at a time: features are large."""
    found = []
    for places in np.array_split(np.arange(len(pairs.same)), len(pairs.same) // 128 + 1):
        one, other = first[pairs.first[places]].flatten(1).float(), second[pairs.second[places]].flatten(1).float()
        found.append(torch.cosine_similarity(one, other).numpy())
    return np.concatenate(found)


def _pair_figures(scores: Floats, same: Floats, folds: Floats, people: Sequence[str]) -> Record:
    right = metrics.cross_validated_matches(scores, same, folds) == same
    return {"auroc": rounded(metrics.auroc(scores[same], scores[~same])), "accuracy": mean_by_subject(right, people)}


def renewability(setup: Setup, old: Protected, new: Protected, points: Sequence[OperatingPoint], keyed: bool) -> Record:
    """Templates of one person under the old and the new key against those of different people."""
    pairs = setup.evaluation[0].pairs
    scores = cosines(old.templates[pairs.first].numpy(), new.templates[pairs.second].numpy())
    mated, impostor = scores[pairs.same], scores[~pairs.same]
    people = [name for name, same in zip(pairs.pair_subjects, pairs.same, strict=True) if same]
    return {
        "keyed": keyed,
        "distance": rounded(metrics.distribution_distance(mated, impostor)),
        "matching": {f"{point.fmr:g}": mean_by_subject(mated >= point.cosine, people) for point in points},
    }


def of_keys(outcomes: Mapping[str, Outcome]) -> Record:
    """What attackers recovered of keys, and linked without one, by attacker; nothing where nobody tried."""
    found = {
        "keys": {name: dict(outcome.keys) for name, outcome in outcomes.items() if outcome.keys is not None},
        "invariants": {name: dict(outcome.linked) for name, outcome in outcomes.items() if outcome.linked is not None},
    }
    return {name: one for name, one in found.items() if one}


def cost(protector: Protector, setup: Setup, key: bytes | None, storage: str = "", overhead: int = 0) -> Record:
    """Bytes and milliseconds of one face, alone, on one thread of the CPU; `overhead` is what a seal adds."""
    face = setup.evaluation[0].faces.images(slice(0, 1))
    device = protector.device
    protector.to("cpu")  # where a service without an accelerator enrols
    stored = protector.protect(face, torch.Generator().manual_seed(0), key)
    stored = stored.stored_as(cast(Storage, storage)) if storage else stored
    with torch.no_grad():
        spent = {
            "enrol": round(milliseconds(lambda: protector.protect(face, torch.Generator(), key), repeats=3), 2),
            "recognise": round(milliseconds(lambda: protector.probe(face), repeats=3), 2),
            "match": round(milliseconds(lambda: protector.templates(stored, key), repeats=3), 2),
        }
    protector.to(device)
    return {
        "bytes": stored.bytes_each + overhead,
        "storage": stored.storage,
        "of_an_image": rounded((stored.bytes_each + overhead) / IMAGE_BYTES),
        "of_a_template": rounded((stored.bytes_each + overhead) / TEMPLATE_BYTES),
        "milliseconds": spent,
    }


def limit_of(point: OperatingPoint, faces: Faces) -> Record:
    """A threshold as cards hold it, of the system on the attacker's own faces."""
    return {
        "fmr": point.fmr,
        "cosine": point.cosine,
        "impostor_pairs": point.impostor_pairs,
        "people": faces.people,
        "calibration_set": faces.name,
        "calibration_sha256": faces.sha256,
    }
