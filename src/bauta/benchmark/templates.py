"""The benchmark of what a face service stores: does it still recognise, and what do attackers get out of it.

For every row of a recipe, in this order and the same for each:

- *accuracy*: pairs verified clean, one-sided (a protected gallery, a clean probe: deployment) and two-sided;
- *recovery*: attackers who learned on other people recover the victims' faces, beside the references that pictures must
  be read against: the mean face, another photo of the person, grey;
- *replay*: are recovered faces taken for the victims, by the system itself, the recogniser under attack and judges that
  no attacker saw, at thresholds from people who are in no evaluation;
- *linkage*: does anybody who trains a student tell faces from representations, and representations from each other;
- *unlinkability*, *renewability*, *irreversibility* in the sense of ISO/IEC 24745, and *cost*.

Recovery and replay follow from the records of a card by `summarise`; scores of pairs are not kept.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta import metrics
from bauta.attacks.replay import Replay, Victims, embed_aligned, likeness, load_evaluator
from bauta.benchmark import cards
from bauta.benchmark.crowds import draw_crowd
from bauta.benchmark.datasets import PairSet
from bauta.benchmark.embeddings import cosines
from bauta.benchmark.identification import closed_set
from bauta.benchmark.people import assert_disjoint, names_of_list, names_of_pairs, normalise_name
from bauta.benchmark.protocols import OperatingPoint, operating_points
from bauta.benchmark.quality import DIGITS
from bauta.benchmark.representations import (
    Faces,
    Protected,
    again,
    hash_seed,
    milliseconds,
    protect_faces,
    protection_code,
    read_faces,
    read_tensors,
    write_tensors,
)
from bauta.benchmark.template_attacks import Outcome, Scene, carry_out
from bauta.benchmark.template_recipes import TemplateRecipe, TemplateRow, half
from bauta.errors import UsageError
from bauta.protection.report import picture
from bauta.recognizers import find_card, load_surrogate, threshold
from bauta.registry import load_method
from bauta.templates.base import Protector, load_protector

Floats = NDArray[Any]
Record = dict[str, Any]
Progress = Callable[[str, int, int], None]

SYSTEM = "system"
REFERENCES = ("mean face", "another photo", "grey")
BINS = 30  # of linkability; see `metrics.null_linkability` for what so few scores make of it
IMAGE_BYTES = 3 * 112 * 112  # of a crop in 8 bits
TEMPLATE_BYTES = 512 * 4  # of 512 numbers in float32
_EXAMPLE = 112


@dataclass(frozen=True, eq=False)
class Trial:
    """A set of pairs with its faces in memory.

    Attributes:
        pairs: The set.
        faces: Its images.
    """

    pairs: PairSet
    faces: Faces


@dataclass(frozen=True, eq=False)
class Stage:
    """What all rows of a recipe share.

    Attributes:
        recipe: The recipe.
        trials: To verify.
        makers: Faces that protectors are fitted on.
        attackers: Faces that attackers learn from.
        asked: Those of them that they have protected.
        victims: Whose representations leak; faces of the first trial.
        enrolled: (V,) indices of their enrolled images in the first trial.
        others: (V,) indices of their other ones.
        replay: Recognisers that say whether recovered faces are the victims.
        thresholds: By recogniser and false match rate.
    """

    recipe: TemplateRecipe
    trials: tuple[Trial, ...]
    makers: Faces
    attackers: Faces
    asked: Faces
    victims: Victims
    enrolled: Tensor
    others: Tensor
    replay: Replay
    thresholds: Mapping[str, Mapping[float, Mapping[str, Any]]]


def run_template_recipe(
    recipe: TemplateRecipe,
    data: Path,
    output: Path,
    *,
    work: Path | None = None,
    examples: int = 6,
    command: str = "",
    progress: Progress = lambda what, done, total: None,
) -> list[Path]:
    """Run a recipe, and write a result card for each row. Interrupted, it goes on where it stopped.

    Args:
        recipe: What to run.
        data: Folder of the recipe's sets.
        output: Folder of the cards.
        work: Folder of representations, attackers' checkpoints and fitted protectors; OUTPUT/.work by default.
        examples: Of how many victims to keep pictures.
        command: As it was given.
        progress: Called with what is done, how far it is, and how far it goes.

    Returns:
        The cards' files.

    Raises:
        UsageError: when a set is missing, or somebody is where they must not be.
        NotCalibrated: when a judge has no threshold.
        RecognizerError: when a recogniser cannot be used.
        OutputError: when a file cannot be written.
    """
    work = output / ".work" if work is None else work
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are in the same order then, however many cores there are
    try:
        stage = set_up(recipe, data)
        written: list[Path] = []
        baseline: cards.Card | None = None
        for row in recipe.rows:
            path = output / f"{recipe.name}-{row.name}.json"
            card = run_row(
                stage, row, data, path, work=work, baseline=baseline, examples=examples, command=command,
                progress=progress,
            )  # fmt: skip
            if row.name == recipe.baseline:
                baseline = card
            written.append(path)
    finally:
        torch.set_num_threads(threads)
    return written


def set_up(recipe: TemplateRecipe, data: Path) -> Stage:
    """Read the sets, split people, load judges, and make sure that nobody is on two sides.

    Raises:
        UsageError: when a set is missing, or somebody is where they must not be.
        NotCalibrated: when a recogniser has no threshold.
        RecognizerError: when a recogniser cannot be used.
    """
    limits = _thresholds(recipe)
    trials = []
    for evaluation in recipe.evaluation:
        pairs = evaluation.read(data)
        trials.append(Trial(pairs, read_faces(pairs.name, pairs.images, pairs.subjects)))
    evaluated = {name for trial in trials for name in trial.pairs.subjects} | set(recipe.exclude_people)
    for path in recipe.exclude:
        evaluated |= names_of_pairs(data / path) if _is_pairs(data / path) else names_of_list(data / path)
    crowd = draw_crowd(data, recipe.people, evaluated, recipe.seed)
    sides = [half(crowd, attacking=attacking) for attacking in (False, True)]
    assert_disjoint(sides[0].subjects, sides[1].subjects)
    for side in sides:
        assert_disjoint(side.subjects, evaluated)
    makers, attackers = (read_faces(side.name, side.images, side.subjects) for side in sides)
    enrolled, others = draw_victims(trials[0].pairs, recipe.victims, recipe.seed)
    first = trials[0].faces
    victims = Victims(first.images(enrolled), first.images(others), tuple(first.subjects[one] for one in enrolled))
    judges = {name: load_evaluator(find_card(name)) for name in (recipe.recognizer, *recipe.judges)}
    asked = attackers.some(recipe.asked, recipe.seed)
    return Stage(
        recipe, tuple(trials), makers, attackers, asked, victims, enrolled, others, Replay(victims, judges), limits
    )


def draw_victims(pairs: PairSet, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The first genuine pair of each of `count` people, drawn at random: (V,) indices of both images.

    Raises:
        UsageError: when there are fewer people.
    """
    found: dict[str, tuple[int, int]] = {}
    for place in np.flatnonzero(pairs.same).tolist():
        one, other = int(pairs.first[place]), int(pairs.second[place])
        found.setdefault(normalise_name(pairs.subjects[one]), (one, other))
    if count > len(found):
        raise UsageError(f"{pairs.name} has {len(found)} people to attack, not {count}.", hint="Ask for fewer victims.")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(found))[:count])
    places = torch.tensor([list(found.values())[one] for one in chosen])
    return places[:, 0], places[:, 1]


def run_row(
    stage: Stage,
    row: TemplateRow,
    data: Path,
    path: Path,
    *,
    work: Path,
    baseline: cards.Card | None = None,
    examples: int = 6,
    command: str = "",
    progress: Progress = lambda what, done, total: None,
) -> cards.Card:
    """Run one row and write its card; a finished card of the same row is read and nothing is run.

    Args:
        stage: What all rows share.
        row: The row.
        data: Folder of the recipe's sets.
        path: The card.
        work: Folder of what is kept between runs.
        baseline: Card of the row that this one is compared with pair by pair.
        examples: Of how many victims to keep pictures.
        command: As it was given.
        progress: Called with what is done, how far it is, and how far it goes.

    Raises:
        BautaError: as `run_template_recipe`; no card is written then.
    """
    recipe = stage.recipe
    began = time.monotonic()

    def say(what: str, done: int, total: int) -> None:
        progress(f"{row.name}: {what}", done, total)

    protector = make_protector(stage, row, data, work, say)
    if taught := sorted(set(protector.teachers) & set(recipe.judges)):
        raise UsageError(
            f"Row {row.name!r}: {taught[0]} helped to fit the protector and cannot judge it.",
            hint="Take another judge.",
        )
    whole_key = _key(stage, row, protector, examples, baseline)
    verified = work / "verified" / f"{whole_key[:24]}.safetensors"
    if path.is_file() and (verified.is_file() or not recipe.baseline):
        known = cards.read_card(path, cards.TEMPLATES)
        if known["key"] == whole_key:
            return known
    secret, own_secret = (_secret(recipe.seed, number) if row.keyed else None for number in (0, 2))
    shared: dict[str, Any] = {"seed": recipe.seed, "storage": row.storage or None}
    folder = work / "representations"
    made = [
        protect_faces(
            protector,
            trial.faces,
            folder,
            key=secret,
            keep=not place or protector.kind == "image",
            progress=_of(say, trial),
            **shared,
        )
        for place, trial in enumerate(stage.trials)
    ]
    own = protect_faces(
        protector,
        stage.asked,
        folder,
        key=own_secret,
        progress=lambda done, total: say("attacker's faces", done, total),
        **shared,
    )
    assert made[0].values is not None
    stolen = made[0].values[stage.enrolled]
    scene = Scene(
        protector, stage.attackers, stage.asked, own, stolen, secret, own_secret, work, recipe.seed, say,
        stage.victims.enrolled,
    )  # fmt: skip
    clean = [_clean(protector, trial.faces) for trial in stage.trials]
    probes = [_probes(stage, protector, trial.faces) for trial in stage.trials]
    probes_own = _probes(stage, protector, stage.asked)
    points = operating_points(
        torch.cat([own.templates, probes_own]).numpy(),
        stage.asked.subjects * 2,
        first=np.arange(len(own.templates)),
        second=np.arange(len(own.templates), 2 * len(own.templates)),
        fmrs=recipe.fmrs,
    )
    outcomes = {attack.name: carry_out(attack, scene) for attack in recipe.attackers_of(row)}
    records = _records(stage, protector, made[0].templates, outcomes)
    renewed, new_secret = made[0], secret
    if row.keyed:
        new_secret = _secret(recipe.seed, 1)
        renewed = protect_faces(
            protector, stage.trials[0].faces, folder, seed=recipe.seed + 1, key=new_secret, storage=row.storage or None,
            progress=lambda done, total: say("under a new key", done, total),
        )  # fmt: skip
    linked = _linkage(stage, clean[0], probes[0], made[0], renewed, outcomes)
    limits = dict(stage.thresholds) | {SYSTEM: {point.fmr: _point(point, stage.asked) for point in points}}
    attackers = [{**outcome.card.to_dict(), "fitted": dict(outcome.fitted)} for outcome in outcomes.values()]
    looks = [attack.name for attack in recipe.attackers_of(row) if attack.kind == "picture"]
    recovery = summarise(records, limits, recipe.recognizer, recipe.fmrs, look=looks[0] if looks else "")
    modes = [
        _modes(trial.pairs, plain, shown, one.templates)
        for trial, plain, shown, one in zip(stage.trials, clean, probes, made, strict=True)
    ]
    rights = [right for _, right in modes]
    write_tensors(
        verified,
        {f"{place} {mode}": torch.from_numpy(right[mode]) for place, right in enumerate(rights) for mode in right},
    )
    results: Record = {
        "accuracy": {trial.pairs.name: found for trial, (found, _) in zip(stage.trials, modes, strict=True)},
        **({} if baseline is None else {"baseline": _against(baseline, stage, rights, work)}),
        **({"black_box": _black_box(stage, protector, made, secret, work)} if protector.kind == "image" else {}),
        **recovery,
        **linked,
        "renewability": _renewability(stage, made[0], renewed, points, row.keyed),
        "cost": _cost(protector, stage, secret),
    }
    card = cards.finish(
        {
            "name": f"{recipe.name}/{row.name}",
            "recipe": recipe.name,
            "evidence": recipe.evidence,
            "note": recipe.note,
            "key": whole_key,
            "protector": _about(protector, row),
            "recognizer": {"name": protector.recognizer.card.name, "sha256": protector.recognizer.card.sha256},
            "judges": [{"name": name, "sha256": find_card(name).sha256} for name in recipe.judges],
            "thresholds": {name: [dict(limit) for limit in found.values()] for name, found in limits.items()},
            "seed": recipe.seed,
            "fmrs": list(recipe.fmrs),
            "data": {
                "evaluation": [
                    {"name": trial.pairs.name, "pairs": len(trial.pairs.same), "sha256": trial.pairs.sha256}
                    for trial in stage.trials
                ],
                "protector": _crowd(stage.makers),
                "attacker": _crowd(stage.attackers),
                "asked": len(stage.asked),
                "victims": len(stage.victims),
            },
            "code": cards.code(),
            "attackers": attackers,
            "results": results,
            "records": records,
            "examples": _examples(stage, protector, scene, outcomes, examples),
            "run": {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command,
                "seconds": round(time.monotonic() - began, 2),
                "machine": cards.machine(),
            },
        },
        cards.TEMPLATES,
    )
    cards.write_card(card, path)
    return card


def make_protector(stage: Stage, row: TemplateRow, data: Path, work: Path, progress: Progress) -> Protector:
    """The protector of a row: loaded, or fitted on the protectors' half of the people and kept.

    Raises:
        UsageError: when there is no such method or setting, or it is for another recogniser.
        RecognizerError: when the recogniser cannot be used.
    """
    recognizer = load_surrogate(stage.recipe.recognizer)
    if row.fitted:
        loaded: Protector = load_protector(data / row.fitted, recognizer)
        return loaded
    facts = [protection_code(), row.method, dict(row.options), recognizer.card.sha256, stage.makers.sha256]
    folder = work / "protectors" / hashlib.sha256(json.dumps([*facts, stage.recipe.seed]).encode()).hexdigest()[:24]
    if (folder / "card.toml").is_file():
        kept: Protector = load_protector(folder, recognizer)
        return kept
    method = load_method(row.method)
    options: dict[str, Any] = {}
    if "people" in inspect.signature(method.fit).parameters:  # it learns
        learning = {name: row.options.get(name) for name in ("split", "epochs", "batch", "rate")}
        shared = hashlib.sha256(json.dumps([*facts[:1], *facts[3:], learning, stage.recipe.seed]).encode()).hexdigest()
        options = {
            "people": stage.makers.subjects,
            "data": stage.makers.name,
            "work": work / "learned" / shared[:24],  # rows with the same parts learn them once
            "progress": progress,
        }
    generator = torch.Generator().manual_seed(hash_seed(stage.recipe.seed, "fit"))
    images = stage.makers.pixels if options else stage.makers.images(slice(0, 2))
    try:
        fitted: Protector = method.fit(images, recognizer=recognizer, generator=generator, **options, **row.options)
    except TypeError as error:
        raise UsageError(
            f"Row {row.name!r}: {row.method} cannot be fitted so: {error}.", hint="See its fit."
        ) from error
    fitted.save(folder)
    return fitted


# Measures


def _clean(protector: Protector, faces: Faces) -> Tensor:
    parts: tuple[Tensor, ...] = torch.arange(len(faces)).split(32)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return torch.cat([protector.clean(faces.images(part)) for part in parts])


def _black_box(stage: Stage, protector: Protector, made: Sequence[Protected], key: bytes | None, work: Path) -> Record:
    """What judges that know of nothing make of stored images: accuracy of each, and the mean loss of all."""
    found: Record = {"judges": {}, "mean_loss": {}}
    for trial, protected in zip(stage.trials, made, strict=True):
        assert protected.values is not None
        with torch.no_grad():
            pictures = [
                protector.to_image(again(protector, part, key), key) for part in torch.split(protected.values, 32)
            ]
        losses: dict[str, list[Floats]] = {"one-sided": [], "two-sided": []}
        for name in stage.recipe.judges:
            judge = stage.replay.judges[name]
            path = work / "judged" / f"{hash_seed(judge.card.sha256, trial.faces.sha256):x}.safetensors"
            kept = read_tensors(path)
            if kept is None:
                parts = torch.arange(len(trial.faces)).split(32)  # type: ignore[no-untyped-call]
                clean = [embed_aligned(judge, trial.faces.images(part).numpy()) for part in parts]
                kept = {"clean": torch.from_numpy(np.concatenate(clean))}
                write_tensors(path, kept)
            stored = torch.from_numpy(np.concatenate([embed_aligned(judge, part.numpy()) for part in pictures]))
            figures, rights = _modes(trial.pairs, kept["clean"], kept["clean"], stored)
            found["judges"].setdefault(name, {})[trial.pairs.name] = figures
            for mode, ones in losses.items():
                ones.append(rights["clean"].astype(np.float64) - rights[mode])
        found["mean_loss"][trial.pairs.name] = {
            mode: _interval(np.mean(ones, axis=0), trial.pairs.pair_subjects) for mode, ones in losses.items()
        }
    return found


def _probes(stage: Stage, protector: Protector, faces: Faces) -> Tensor:
    parts: tuple[Tensor, ...] = torch.arange(len(faces)).split(32)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return torch.cat(
            [
                protector.probe(
                    faces.images(part), torch.Generator().manual_seed(hash_seed(stage.recipe.seed, "probe", place))
                )
                for place, part in enumerate(parts)
            ]
        )


def _against(baseline: cards.Card, stage: Stage, rights: Sequence[Mapping[str, Floats]], work: Path) -> Record:
    """What a row loses, pair by pair, to the one it is compared with: a recogniser trained alike, unprotected."""
    theirs = read_tensors(work / "verified" / f"{baseline['key'][:24]}.safetensors")
    assert theirs is not None  # no card of a recipe with a baseline is finished without
    return {
        "row": baseline["name"].partition("/")[2],
        "loss": {
            trial.pairs.name: {
                mode: _interval(
                    theirs[f"{place} {mode}"].numpy().astype(np.float64) - right[mode], trial.pairs.pair_subjects
                )
                for mode in ("one-sided", "two-sided")
            }
            for place, (trial, right) in enumerate(zip(stage.trials, rights, strict=True))
        },
    }


def _modes(pairs: PairSet, clean: Tensor, probes: Tensor, protected: Tensor) -> tuple[Record, dict[str, Floats]]:
    """Accuracy in each mode with what protection costs pair by pair, and which pairs are right in each mode."""
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
            "accuracy": _interval(rights[mode], people),
            "fold_error": _rounded(metrics.cross_validated_accuracy(scores, pairs.same, pairs.fold)[1]),
            "auroc": _rounded(metrics.auroc(scores[pairs.same], scores[~pairs.same])),
        }
        if mode != "clean":
            loss = rights["clean"].astype(np.float64) - rights[mode]
            found[mode]["loss"] = _interval(loss, people)
    return found, rights


def _records(stage: Stage, protector: Protector, stored: Tensor, outcomes: Mapping[str, Outcome]) -> list[Record]:
    """What was recovered of each victim, by each attacker and reference."""
    victims, replay = stage.victims, stage.replay
    mean_face = stage.attackers.mean_face.expand_as(victims.enrolled)
    recovered = {
        "mean face": mean_face,
        "another photo": victims.others,
        "grey": torch.full_like(victims.enrolled, 0.5),
    } | {name: outcome.images for name, outcome in outcomes.items() if outcome.images is not None}
    records: list[Record] = [{"subject": subject, "self": {}, "recovered": {}} for subject in victims.subjects]
    for name in replay.judges:
        for record, score in zip(records, replay.self_scores(name), strict=True):
            record["self"][name] = _rounded(score)
    for name, images in recovered.items():
        count = len(images)
        filled = torch.cat([images, victims.enrolled[count:]]).contiguous()  # who was not attacked is left out below
        looks = likeness(images.contiguous(), victims.enrolled[:count])
        judged = replay.scores(filled)
        with torch.no_grad():
            parts: tuple[Tensor, ...] = images.contiguous().split(32)  # type: ignore[no-untyped-call]
            probes = torch.cat([protector.probe(part) for part in parts])
        system = [(probes * stored[places[:count]]).sum(1).numpy() for places in (stage.enrolled, stage.others)]
        for place in range(count):
            records[place]["recovered"][name] = {
                "mse": _rounded(looks.mse[place]),
                "ssim": _rounded(looks.ssim[place]),
                "scores": {
                    judge: [_rounded(scores.first[place]), _rounded(scores.second[place])]
                    for judge, scores in judged.items()
                }
                | {SYSTEM: [_rounded(scores[place]) for scores in system]},
            }
    return records


def summarise(
    records: Sequence[Record],
    thresholds: Mapping[str, Mapping[float, Mapping[str, Any]]],
    recognizer: str,
    fmrs: Sequence[float],
    *,
    look: str = "",
) -> Record:
    """The fields ``recovery``, ``self_match``, ``irreversibility`` and ``privacy`` of a card's results.

    Replay succeeds when the score reaches the threshold. Type I is against the enrolled image, type II against another
    image of the person; at the system against the stored representations of these.

    Args:
        records: The field ``records``.
        thresholds: By recogniser, or `SYSTEM`, and false match rate: tables with ``cosine``.
        recognizer: The one under attack; the first of the others gives the identity cosine.
        fmrs: False match rates.
        look: Name of the attacker who looks at stored numbers as pictures; without one there is no ``privacy``.
    """
    judges = [name for name in thresholds if name not in (recognizer, SYSTEM)]
    names = list(dict.fromkeys(name for record in records for name in record["recovered"]))
    recovery: Record = {}
    for name in names:
        kept = [record for record in records if name in record["recovered"]]
        people = [record["subject"] for record in kept]
        found = [record["recovered"][name] for record in kept]

        def values(pick: Callable[[Record], float], found: Sequence[Record] = found) -> Floats:
            return np.array([pick(one) for one in found], np.float64)

        errors = values(lambda one: one["mse"])
        ratios = -10 * np.log10(errors, where=errors > 0, out=np.full(len(errors), -np.inf))
        replay: Record = {}
        for judge in (SYSTEM, recognizer, *judges):
            replay[judge] = {
                kind: {
                    f"{fmr:g}": _interval(
                        values(lambda one, judge=judge, place=place: one["scores"][judge][place])  # type: ignore[misc]
                        >= thresholds[judge][fmr]["cosine"],
                        people,
                    )
                    for fmr in fmrs
                }
                for place, kind in enumerate(("type_1", "type_2"))
            }
        recovery[name] = {
            "victims": len(kept),
            "mse": _interval(errors, people),
            "psnr": _interval(ratios, people) if np.isfinite(ratios).all() else None,
            "ssim": _interval(values(lambda one: one["ssim"]), people),
            "identity": _interval(values(lambda one: one["scores"][judges[0]][0]), people) if judges else None,
            "replay": replay,
        }
    people = [record["subject"] for record in records]
    self_match = {
        judge: {
            f"{fmr:g}": _interval(
                np.array([record["self"][judge] >= thresholds[judge][fmr]["cosine"] for record in records]), people
            )
            for fmr in fmrs
        }
        for judge in (recognizer, *judges)
    }
    strictest = f"{min(fmrs):g}"
    attackers = [name for name in names if name not in REFERENCES]
    strongest: Record = {}
    for judge, kinds in (recovery[attackers[0]]["replay"] if attackers else {}).items():
        for kind in kinds:
            best = max(attackers, key=lambda one: recovery[one]["replay"][judge][kind][strictest]["mean"])
            strongest[f"{judge}, {kind}"] = {"attacker": best, **recovery[best]["replay"][judge][kind][strictest]}
    results: Record = {
        "recovery": recovery,
        "self_match": self_match,
        "irreversibility": {"fmr": min(fmrs), "by": strongest},
    }
    others = [name for name in attackers if name != look]
    if look in attackers and judges and others:
        results["privacy"] = {name: _privacy(records, look, name, judges[0]) for name in others}
    return results


def _privacy(records: Sequence[Record], look: str, attacker: str, judge: str) -> Record:
    """The composite score against one attacker and its parts; see `bauta.metrics.composite_privacy`."""
    kept = [record for record in records if attacker in record["recovered"] and look in record["recovered"]]
    people = [record["subject"] for record in kept]
    parts = {
        (name, what): np.array(
            [
                record["recovered"][name]["ssim"] if what == "ssim" else record["recovered"][name]["scores"][judge][0]
                for record in kept
            ],
            np.float64,
        )
        for name in (look, attacker)
        for what in ("ssim", "cosine")
    }
    pictures, recovered = ((parts[name, "ssim"], parts[name, "cosine"]) for name in (look, attacker))
    scores = {
        "s1": 1 - pictures[0],
        "s2": 1 - pictures[1].clip(0),
        "s3": 1 - recovered[0],
        "s4": 1 - recovered[1].clip(0),
        "score": metrics.composite_privacy(*pictures, *recovered),
    }
    return {name: _interval(values, people) for name, values in scores.items()}


def _linkage(
    stage: Stage, clean: Tensor, probed: Tensor, first: Protected, second: Protected, outcomes: Mapping[str, Outcome]
) -> Record:
    """What links the first trial's representations, across keys where there are some, to each other and to faces.

    Without a key the matcher is itself such a way: whoever has the recogniser compares templates.
    """
    pairs = stage.trials[0].pairs
    same, people = pairs.same, pairs.pair_subjects
    assert first.values is not None
    assert second.values is not None
    keyed = second is not first
    matcher = (first.templates, first.templates)
    ways = {} if keyed else {"matcher": matcher}
    for name, outcome in outcomes.items():
        if outcome.student is not None:
            one = outcome.student.embed(first.values)
            ways[name] = (one, outcome.student.embed(second.values) if keyed else one)
    linkage = {}
    for name, (one, other) in ways.items():
        seen = probed if name == "matcher" else clean
        faces = cosines(one[pairs.first].numpy(), seen[pairs.second].numpy())
        own = cosines(one[pairs.first].numpy(), other[pairs.second].numpy())
        probes, gallery = one[stage.enrolled].numpy(), seen[stage.others].numpy()
        ranks = closed_set(probes, stage.victims.subjects, gallery, stage.victims.subjects)
        linkage[name] = {
            "face_template": _pair_figures(faces, same, pairs.fold, people),
            "template_template": _pair_figures(own, same, pairs.fold, people),
            "rank_1": _round(ranks.rates[1]),
            "gallery": len(gallery),
        }
    secret = {
        name: cosines(one[pairs.first].numpy(), other[pairs.second].numpy()) for name, (one, other) in ways.items()
    }
    secret["numbers"] = _number_cosines(first.values, second.values, pairs)
    stolen = secret | {"matcher": cosines(matcher[0][pairs.first].numpy(), matcher[1][pairs.second].numpy())}
    unlinkability: Record = {"keyed": keyed}
    for knowledge, scores in (("key_secret", secret), ("key_stolen", stolen)):
        figures = {name: _linkability(one[same], one[~same], stage.recipe.seed) for name, one in scores.items()}
        best = max(figures, key=lambda name: float(figures[name]["system"]))
        unlinkability[knowledge] = {"strongest": best, **figures[best], "by": figures}
    return {"linkage": linkage, "unlinkability": unlinkability | {"mated": int(same.sum()), "bins": BINS}}


def _linkability(mated: Floats, other: Floats, seed: int) -> Record:
    return {
        "system": _rounded(metrics.system_linkability(mated, other, bins=BINS)),
        "null": _round(metrics.null_linkability(mated, other, bins=BINS, seed=seed)),
        "maximal": _rounded(metrics.maximal_linkability(mated, other, bins=BINS)),
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
    return {"auroc": _rounded(metrics.auroc(scores[same], scores[~same])), "accuracy": _interval(right, people)}


def _renewability(
    stage: Stage, old: Protected, new: Protected, points: Sequence[OperatingPoint], keyed: bool
) -> Record:
    """Templates of one person under the old and the new key against those of different people."""
    pairs = stage.trials[0].pairs
    scores = cosines(old.templates[pairs.first].numpy(), new.templates[pairs.second].numpy())
    mated, impostor = scores[pairs.same], scores[~pairs.same]
    people = [name for name, same in zip(pairs.pair_subjects, pairs.same, strict=True) if same]
    return {
        "keyed": keyed,
        "distance": _rounded(metrics.distribution_distance(mated, impostor)),
        "matching": {f"{point.fmr:g}": _interval(mated >= point.cosine, people) for point in points},
    }


def _cost(protector: Protector, stage: Stage, key: bytes | None) -> Record:
    """Bytes and milliseconds of one face, alone, on one thread."""
    face = stage.trials[0].faces.images(slice(0, 1))
    stored = protector.protect(face, torch.Generator().manual_seed(0), key)
    with torch.no_grad():
        spent = {
            "enrol": round(milliseconds(lambda: protector.protect(face, torch.Generator(), key), repeats=3), 2),
            "recognise": round(milliseconds(lambda: protector.probe(face), repeats=3), 2),
            "match": round(milliseconds(lambda: protector.templates(stored, key), repeats=3), 2),
        }
    return {
        "bytes": stored.bytes_each,
        "storage": stored.storage,
        "of_an_image": _rounded(stored.bytes_each / IMAGE_BYTES),
        "of_a_template": _rounded(stored.bytes_each / TEMPLATE_BYTES),
        "milliseconds": spent,
    }


def _examples(
    stage: Stage, protector: Protector, scene: Scene, outcomes: Mapping[str, Outcome], count: int
) -> list[Record]:
    """Pictures of the first victims: the original, the mean face, what is stored, and what attackers recover."""
    with torch.no_grad():
        look = protector.to_image(again(protector, scene.stolen[:count], scene.key), scene.key) if count else None
    recovering = [one.name for one in stage.recipe.attackers if one.kind != "picture" and one.name in outcomes]
    shown = []
    for place in range(min(count, len(stage.victims))):
        assert look is not None
        pictures = {
            "original": stage.victims.enrolled[place],
            "mean face": stage.attackers.mean_face,
            "stored": look[place],
        }
        for name in recovering:
            images = outcomes[name].images
            if images is not None and place < len(images):
                pictures[name] = images[place]
        shown.append(
            {
                "record": place,
                "pictures": {
                    name: picture(one.permute(1, 2, 0).contiguous().numpy(), _EXAMPLE) for name, one in pictures.items()
                },
            }
        )
    return shown


# Facts


def _thresholds(recipe: TemplateRecipe) -> dict[str, dict[float, Record]]:
    found: dict[str, dict[float, Record]] = {}
    for name in (recipe.recognizer, *recipe.judges):
        card = find_card(name)
        found[name] = {fmr: asdict(threshold(card, fmr)) for fmr in recipe.fmrs}
    return found


def _point(point: OperatingPoint, faces: Faces) -> Record:
    return {
        "fmr": point.fmr,
        "cosine": point.cosine,
        "impostor_pairs": point.impostor_pairs,
        "people": faces.people,
        "calibration_set": faces.name,
        "calibration_sha256": faces.sha256,
    }


def _about(protector: Protector, row: TemplateRow) -> Record:
    return {
        "name": protector.name,
        "kind": protector.kind,
        "paper": protector.card.paper,
        "keyed": row.keyed,
        "settings": dict(protector.settings()),
        "storage": row.storage,
        "sha256": protector.sha256,
        "learned": {
            "data": protector.provenance.data,
            "licence": protector.provenance.licence,
            "seed": protector.provenance.seed,
        },
    }


def _crowd(faces: Faces) -> Record:
    return {"name": faces.name, "sha256": faces.sha256, "people": faces.people, "images": len(faces)}


def _key(stage: Stage, row: TemplateRow, protector: Protector, examples: int, baseline: cards.Card | None) -> str:
    """Digest of all that decides a card."""
    recipe = stage.recipe
    facts = [
        cards.code()["sha256"],
        protector.sha256,
        [row.storage, row.keyed],
        [asdict(attack) for attack in recipe.attackers_of(row)],
        [trial.pairs.sha256 for trial in stage.trials],
        [stage.makers.sha256, stage.attackers.sha256],
        [find_card(name).sha256 for name in (recipe.recognizer, *recipe.judges)],
        [recipe.name, row.name, recipe.victims, list(recipe.fmrs), recipe.seed, recipe.note, examples],
        *([] if baseline is None else [baseline["key"]]),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _secret(seed: int, number: int) -> bytes:
    """A benchmark's key: repeatable, and therefore of no use elsewhere."""
    return hashlib.sha256(f"benchmark key {number} of seed {seed}".encode()).digest()


def _is_pairs(path: Path) -> bool:
    return path.name.startswith("pairs")


def _of(progress: Progress, trial: Trial) -> Callable[[int, int], None]:
    return lambda done, total: progress(trial.pairs.name, done, total)


def _interval(values: Floats, people: Sequence[str]) -> Record:
    return _round(metrics.bootstrap_by_subject(np.asarray(values, np.float64), people))


def _round(interval: metrics.Interval) -> Record:
    return {name: _rounded(getattr(interval, name)) for name in ("mean", "low", "high")}


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)
