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
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bauta.benchmark.engine import cards
from bauta.benchmark.protocols import operating_points
from bauta.benchmark.stores import measures
from bauta.benchmark.stores.attackers import carry_out
from bauta.benchmark.stores.attacks import Outcome, Scene
from bauta.benchmark.stores.cards import StoreCard
from bauta.benchmark.stores.measures import SYSTEM
from bauta.benchmark.stores.recipe import TemplateRecipe, TemplateRow
from bauta.benchmark.stores.representations import (
    Faces,
    Protected,
    again,
    hash_seed,
    protect_faces,
    protection_code,
    read_tensors,
    write_tensors,
)
from bauta.benchmark.stores.sealed import sealed_numbers
from bauta.benchmark.stores.setup import Stage, Trial, set_up
from bauta.benchmark.stores.stolen import steal
from bauta.errors import UsageError
from bauta.gallery.sealing import OVERHEAD
from bauta.pages import picture
from bauta.progress import Progress, silent
from bauta.recognizers import find_card, load_surrogate
from bauta.registry import load_method
from bauta.templates.base import Protector, find_device, load_protector
from bauta.templates.fit import FitWork

Record = dict[str, Any]

_EXAMPLE = 112


def run_template_recipe(
    recipe: TemplateRecipe,
    data: Path,
    output: Path,
    *,
    work: Path | None = None,
    examples: int = 6,
    command: str = "",
    device: str = "cpu",
    progress: Progress = silent,
) -> list[Path]:
    """Run a recipe, and write a result card for each row. Interrupted, it goes on where it stopped.

    Args:
        recipe: What to run.
        data: Folder of the recipe's sets.
        output: Folder of the cards.
        work: Folder of representations, attackers' checkpoints and fitted protectors; OUTPUT/.work by default.
        examples: Of how many victims to keep pictures.
        command: As it was given.
        device: Where protectors and attackers compute, such as ``cuda``; judges stay on the CPU.
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
                device=device, progress=progress,
            )  # fmt: skip
            if row.name == recipe.baseline:
                baseline = card
            written.append(path)
    finally:
        torch.set_num_threads(threads)
    return written


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
    device: str = "cpu",
    progress: Progress = silent,
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
        device: Where protector and attackers compute.
        progress: Called with what is done, how far it is, and how far it goes.

    Raises:
        BautaError: as `run_template_recipe`; no card is written then.
    """
    recipe = stage.recipe
    began = time.monotonic()

    def say(what: str, done: int, total: int) -> None:
        progress(f"{row.name}: {what}", done, total)

    where = find_device(device)
    protector = make_protector(stage, row, data, work, say, device).to(where)
    if taught := sorted(set(protector.teachers) & set(recipe.judges)):
        raise UsageError(
            f"Row {row.name!r}: {taught[0]} helped to fit the protector and cannot judge it.",
            hint="Take another judge.",
        )
    whole_key = _key(stage, row, protector, examples, baseline)
    verified = work / "verified" / f"{whole_key[:24]}.safetensors"
    if path.is_file() and (read_tensors(verified) is not None or not recipe.baseline):
        try:
            known = cards.read_card(path, StoreCard)
        except UsageError as error:
            raise UsageError(
                f"Row {row.name!r} has a card that is none: {error.message}", hint="Delete or move it, and run again."
            ) from error
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
    seen, learned = (_seen(one, row, recipe.seed, number) for one, number in ((made[0], 0), (own, 2)))
    assert seen.values is not None
    clean = [measures.clean_templates(protector, trial.faces) for trial in stage.trials]
    probes = [measures.probe_templates(stage, protector, trial.faces) for trial in stage.trials]
    probes_own = measures.probe_templates(stage, protector, stage.asked)
    points = operating_points(
        torch.cat([own.templates, probes_own]).numpy(),
        stage.asked.subjects * 2,
        first=np.arange(len(own.templates)),
        second=np.arange(len(own.templates), 2 * len(own.templates)),
        fmrs=recipe.fmrs,
    )
    scene = Scene(
        protector, stage.attackers, stage.asked, learned, seen.values[stage.enrolled], secret, own_secret, work,
        recipe.seed, say, stage.victims.enrolled, row.sealed,
        steal(stage, seen.values, own, made[0].templates, probes[0], points) if row.keyed or row.sealed else None,
    )  # fmt: skip
    outcomes = {attack.name: carry_out(attack, scene) for attack in recipe.attackers_of(row)}
    records = measures.recovered(stage, protector, made[0].templates, outcomes)
    renewed = seen
    if row.keyed:  # renewing a key needs no new photos: unlock with the old one, lock with the new
        renewed = protect_faces(protector, stage.trials[0].faces, folder, key=_secret(recipe.seed, 1), **shared)
    elif row.sealed:
        renewed = _seen(made[0], row, recipe.seed, 1)
    linked = measures.linkage(stage, clean[0], probes[0], seen, renewed, outcomes)
    limits = dict(stage.thresholds) | {SYSTEM: {point.fmr: measures.limit_of(point, stage.asked) for point in points}}
    attackers = [{**outcome.card.to_dict(), "fitted": dict(outcome.fitted)} for outcome in outcomes.values()]
    looks = [attack.name for attack in recipe.attackers_of(row) if attack.kind == "picture"]
    recovery = measures.summarise(records, limits, recipe.recognizer, recipe.fmrs, look=looks[0] if looks else "")
    modes = [
        measures.accuracy(trial.pairs, plain, shown, one.templates)
        for trial, plain, shown, one in zip(stage.trials, clean, probes, made, strict=True)
    ]
    rights = [right for _, right in modes]
    write_tensors(
        verified,
        {f"{place} {mode}": torch.from_numpy(right[mode]) for place, right in enumerate(rights) for mode in right},
    )
    results: Record = {
        "accuracy": {trial.pairs.name: found for trial, (found, _) in zip(stage.trials, modes, strict=True)},
        **({} if baseline is None else {"baseline": measures.against_baseline(baseline, stage, rights, work)}),
        **(
            {"black_box": measures.black_box(stage, protector, made, secret, work)} if protector.kind == "image" else {}
        ),
        **recovery,
        **linked,
        **measures.of_keys(outcomes),
        "renewability": measures.renewability(stage, made[0], renewed, points, row.keyed or row.sealed),
        "cost": measures.cost(protector, stage, secret, row.storage, OVERHEAD if row.sealed else 0),
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
                "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
            },
        },
        StoreCard,
    )
    cards.write_card(card, path)
    return card


def with_fitted(recipe: TemplateRecipe, place: Path) -> TemplateRecipe:
    """The recipe with one row, a fitted protector, and the row that it is compared with, if there is one.

    The row is named by the protector's digest too, so that neither the card of another row nor that of a protector in
    another folder of this name is replaced.

    Args:
        recipe: People, judges and attackers.
        place: Folder of the protector, or the name of one that ships.

    Raises:
        WeightsMissing: when there is none.
        UsageError: when it is another recogniser's.
    """
    protector: Protector = load_protector(place, load_surrogate(recipe.recognizer))
    row = TemplateRow(f"{place.name}-{protector.sha256[:8]}", fitted=str(place))
    return replace(recipe, rows=(*(one for one in recipe.rows if one.name == recipe.baseline), row))


def make_protector(
    stage: Stage, row: TemplateRow, data: Path, work: Path, progress: Progress, device: str = "cpu"
) -> Protector:
    """The protector of a row: loaded, or fitted on the protectors' half of the people and kept.

    Raises:
        UsageError: when there is no such method or setting, or it is for another recogniser.
        RecognizerError: when the recogniser cannot be used.
    """
    recognizer = load_surrogate(stage.recipe.recognizer)
    if row.fitted:
        fitted_at = data / row.fitted
        loaded: Protector = load_protector(fitted_at if fitted_at.exists() else Path(row.fitted), recognizer)
        return loaded
    facts = [protection_code(), row.method, dict(row.options), recognizer.card.sha256, stage.makers.sha256]
    folder = work / "protectors" / hashlib.sha256(json.dumps([*facts, stage.recipe.seed]).encode()).hexdigest()[:24]
    if (folder / "card.toml").is_file():
        kept: Protector = load_protector(folder, recognizer)
        return kept
    method: type[Protector] = load_method(row.method)
    learning = {name: row.options.get(name) for name in ("split", "epochs", "batch", "rate")}
    shared = hashlib.sha256(json.dumps([*facts[:1], *facts[3:], learning, stage.recipe.seed]).encode()).hexdigest()
    fit_work = FitWork(
        recognizer,
        hash_seed(stage.recipe.seed, "fit") % (1 << 31),
        people=tuple(stage.makers.subjects),
        data=stage.makers.name,
        folder=work / "learned" / shared[:24],  # rows with the same parts learn them once
        progress=progress,
        device=device if method.accelerated else "cpu",
    )
    images = stage.makers.pixels if method.learns else stage.makers.images(slice(0, 2))
    try:
        fitted = method.fit_with(images, dict(row.options), fit_work)
    except UsageError as error:
        raise UsageError(f"Row {row.name!r}: {error.message}", hint=error.hint) from error
    fitted.save(folder, overwrite=True)  # another run may have been as far, or was stopped between parts and card
    return fitted


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


def _about(protector: Protector, row: TemplateRow) -> Record:
    return {
        "name": protector.name,
        "kind": protector.kind,
        "paper": protector.card.paper,
        "keyed": row.keyed,
        **({"sealed": True} if row.sealed else {}),
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
        [row.storage, row.keyed, row.sealed],
        [asdict(attack) for attack in recipe.attackers_of(row)],
        [trial.pairs.sha256 for trial in stage.trials],
        [stage.makers.sha256, stage.attackers.sha256],
        [find_card(name).digest for name in (recipe.recognizer, *recipe.judges)],
        [[name, *map(dict, found.values())] for name, found in stage.thresholds.items()],
        [recipe.name, row.name, recipe.victims, list(recipe.fmrs), recipe.seed, recipe.note, examples],
        [recipe.asked, recipe.evidence],
        *([] if baseline is None else [baseline["key"]]),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _secret(seed: int, number: int) -> bytes:
    """A benchmark's key: repeatable, and therefore of no use elsewhere."""
    return hashlib.sha256(f"benchmark key {number} of seed {seed}".encode()).digest()


def _seen(made: Protected, row: TemplateRow, seed: int, number: int) -> Protected:
    """What a thief reads of stored numbers."""
    if not row.sealed or made.values is None:
        return made
    return replace(made, values=sealed_numbers(made.values, _secret(seed, number)))


def _of(progress: Progress, trial: Trial) -> Callable[[int, int], None]:
    return lambda done, total: progress(trial.pairs.name, done, total)
