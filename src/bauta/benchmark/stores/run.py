"""The benchmark of what a face service stores: does it still recognise, and what do attackers get out of it.

For every row of a recipe, in this order and the same for each:

- *accuracy*: pairs verified clean, one-sided (a protected gallery, a clean probe: deployment) and two-sided;
- *recovery*: attackers who learned on other people recover the victims' faces, beside the references that pictures must
  be read against: the mean face, another photo of the person, grey;
- *replay*: are recovered faces taken for the victims, by the system itself, the recogniser under attack and judges that
  no attacker saw, at thresholds from people who are in no evaluation;
- *linkage*: does anybody who trains a student tell faces from representations, and representations from each other;
- *unlinkability*, *renewability*, *irreversibility* in the sense of ISO/IEC 24745, and *cost*.

Recovery and replay follow from the records of a card by `bauta.benchmark.stores.results.summarise`; scores of pairs are
not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.protocols import OperatingPoint, operating_points
from bauta.benchmark.stores import measures
from bauta.benchmark.stores.attackers import carry_out
from bauta.benchmark.stores.attacks import Access, Outcome
from bauta.benchmark.stores.page import Stores
from bauta.benchmark.stores.recipe import SYSTEM, TemplateRecipe, TemplateRow, read_template_recipe
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
from bauta.benchmark.stores.results import privacy
from bauta.benchmark.stores.sealed import sealed_numbers
from bauta.benchmark.stores.setup import Setup, set_up
from bauta.benchmark.stores.stolen import steal
from bauta.errors import UsageError
from bauta.gallery.sealing import OVERHEAD
from bauta.pages import picture
from bauta.progress import Progress
from bauta.recognizers import find_card, load_surrogate
from bauta.registry import load_method
from bauta.templates.base import Protector, find_device, load_protector
from bauta.templates.fit import FitWork

Record = dict[str, Any]

_EXAMPLE = 112


class StoreKind(Stores, Kind[TemplateRecipe, tuple[Setup, Job]]):
    """What is stored instead of templates, and attackers who learned from other people."""

    def read(self, recipe: str) -> TemplateRecipe:
        """See `read_template_recipe`."""
        return read_template_recipe(recipe)

    def set_up(self, recipe: TemplateRecipe, job: Job) -> tuple[Setup, Job]:
        """See `bauta.benchmark.stores.setup.set_up`."""
        return set_up(recipe, job.folder), job

    def row(self, setup: tuple[Setup, Job], row: TemplateRow, done: Mapping[str, Card]) -> Task:
        """A protector, fitted or loaded; what it protects and who attacks it is computed when it is measured."""
        baseline = setup[0].recipe.baseline
        at_work = _Row(*setup, row, done.get(baseline))
        ready = not baseline or read_tensors(at_work.verified) is not None
        return Task(at_work.measure, at_work.key, ready)


@dataclass(frozen=True, eq=False)
class _Row:
    """A row at work."""

    setup: Setup
    job: Job
    row: TemplateRow
    baseline: Card | None

    def say(self, what: str, done: int, total: int) -> None:
        """Progress of the row."""
        self.job.progress(f"{self.row.name}: {what}", done, total)

    @cached_property
    def protector(self) -> Protector:
        """Fitted, and where it computes."""
        where = find_device(self.job.device)
        protector = make_protector(self.setup, self.job, self.row, self.say).to(where)
        if taught := sorted(set(protector.teachers) & set(self.setup.recipe.judges)):
            raise UsageError(
                f"Row {self.row.name!r}: {taught[0]} helped to fit the protector and cannot judge it.",
                hint="Take another judge.",
            )
        return protector

    @cached_property
    def key(self) -> str:
        """Digest of all that decides a card."""
        setup, row, recipe = self.setup, self.row, self.setup.recipe
        facts = [
            cards.code()["sha256"],
            self.protector.sha256,
            [row.storage, row.keyed, row.sealed],
            [asdict(attack) for attack in recipe.attackers_of(row)],
            [one.pairs.sha256 for one in setup.evaluation],
            [setup.protectors.sha256, setup.attackers.sha256],
            [find_card(name).digest for name in (recipe.recognizer, *recipe.judges)],
            [[name, *map(dict, found.values())] for name, found in setup.thresholds.items()],
            [recipe.name, row.name, recipe.victims, list(recipe.fmrs), recipe.seed, recipe.note, self.job.examples],
            [recipe.asked, recipe.evidence],
            *([] if self.baseline is None else [self.baseline["key"]]),
        ]
        return cards.digest(facts)

    @property
    def verified(self) -> Path:
        """File of which pairs were right, for rows that are compared with this one."""
        return self.job.kept / "verified" / f"{self.key[:24]}.safetensors"

    def protect(self, faces: Faces, key: bytes | None, what: str, *, keep: bool = True) -> Protected:
        """Faces as the row stores them, under a key if it has one."""
        return protect_faces(
            self.protector,
            faces,
            self.job.kept / "representations",
            seed=self.setup.recipe.seed,
            key=key,
            storage=self.row.storage or None,
            keep=keep,
            progress=lambda done, total: self.say(what, done, total),
        )

    @cached_property
    def keys(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The deployment's key, its next one, and the attacker's own."""
        seed = self.setup.recipe.seed
        first, second, own = (_secret(seed, number) if self.row.keyed else None for number in range(3))
        return first, second, own

    @cached_property
    def made(self) -> list[Protected]:
        """Stored faces of each evaluation set; the numbers of the first alone where they are large."""
        return [
            self.protect(one.faces, self.keys[0], one.pairs.name, keep=not place or self.protector.kind == "image")
            for place, one in enumerate(self.setup.evaluation)
        ]

    @cached_property
    def own(self) -> Protected:
        """The attacker's own faces."""
        return self.protect(self.setup.asked, self.keys[2], "attacker's faces")

    def seen(self, made: Protected, number: int) -> Protected:
        """What a thief reads of stored numbers, sealed under a key of that number."""
        if not self.row.sealed or made.values is None:
            return made
        return replace(made, values=sealed_numbers(made.values, _secret(self.setup.recipe.seed, number)))

    @cached_property
    def stored(self) -> Protected:
        """The first evaluation set as a thief reads it."""
        return self.seen(self.made[0], 0)

    @cached_property
    def renewed(self) -> Protected:
        """The same once more, under the next key or seal if there is one."""
        if self.row.keyed:  # renewing a key needs no new photos: unlock with the old one, lock with the new
            return self.protect(self.setup.evaluation[0].faces, self.keys[1], "renewed")
        return self.seen(self.made[0], 1) if self.row.sealed else self.stored

    @cached_property
    def probes(self) -> list[Tensor]:
        """Templates of each evaluation set, as they are compared with what is stored."""
        return [measures.probe_templates(self.setup, self.protector, one.faces) for one in self.setup.evaluation]

    @cached_property
    def points(self) -> Sequence[OperatingPoint]:
        """Thresholds of the system, on the attacker's own faces."""
        asked, own = self.setup.asked, self.own.templates
        probes = measures.probe_templates(self.setup, self.protector, asked)
        return operating_points(
            torch.cat([own, probes]).numpy(),
            asked.subjects * 2,
            first=np.arange(len(own)),
            second=np.arange(len(own), 2 * len(own)),
            fmrs=self.setup.recipe.fmrs,
        )

    @cached_property
    def access(self) -> Access:
        """What attackers have access to."""
        setup, row, values = self.setup, self.row, self.stored.values
        assert values is not None
        learned = self.seen(self.own, 2)
        locked = row.keyed or row.sealed
        store = steal(setup, values, self.own, self.made[0].templates, self.probes[0], self.points) if locked else None
        return Access(
            self.protector, setup.attackers, setup.asked, learned, values[setup.enrolled], self.keys[0], self.keys[2],
            self.job.kept, setup.recipe.seed, self.say, setup.victims.enrolled, row.sealed, store,
        )  # fmt: skip

    def measure(self) -> Card:
        """The fields of the card."""
        setup, recipe, protector = self.setup, self.setup.recipe, self.protector
        attacks = recipe.attackers_of(self.row)
        access = self.access
        outcomes = {attack.name: carry_out(attack, access) for attack in attacks}
        records = measures.recovered(setup, protector, self.made[0].templates, outcomes)
        limits = dict(setup.thresholds) | {
            SYSTEM: {point.fmr: measures.limit_of(point, setup.asked) for point in self.points}
        }
        results = self.figures(outcomes)
        looks = [attack.name for attack in attacks if attack.kind == "picture"]
        if looks and (found := privacy(records, looks[0], recipe.judges[0])):
            results["privacy"] = found
        where = find_device(self.job.device)
        return {
            "protector": _about(protector, self.row),
            "recognizer": {"name": protector.recognizer.card.name, "sha256": protector.recognizer.card.sha256},
            "judges": [{"name": name, "sha256": find_card(name).sha256} for name in recipe.judges],
            "thresholds": {name: [dict(limit) for limit in found.values()] for name, found in limits.items()},
            "fmrs": list(recipe.fmrs),
            "data": _sets(setup),
            "attackers": [{**outcome.card.to_dict(), "fitted": dict(outcome.fitted)} for outcome in outcomes.values()],
            "results": results,
            "records": records,
            "examples": _examples(setup, access, outcomes, self.job.examples),
            "run": {"device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type},
        }

    def figures(self, outcomes: Mapping[str, Outcome]) -> Record:
        """Results that do not follow from the records."""
        setup, protector, locked = self.setup, self.protector, self.row.keyed or self.row.sealed
        clean = [measures.clean_templates(protector, one.faces) for one in setup.evaluation]
        linked = measures.linkage(setup, clean[0], self.probes[0], self.stored, self.renewed, outcomes)
        modes = [
            measures.accuracy(one.pairs, plain, shown, made.templates)
            for one, plain, shown, made in zip(setup.evaluation, clean, self.probes, self.made, strict=True)
        ]
        results: Record = {
            "accuracy": {one.pairs.name: found for one, (found, _) in zip(setup.evaluation, modes, strict=True)},
            **self.compared([right for _, right in modes]),
        }
        if protector.kind == "image":
            results["black_box"] = measures.black_box(setup, protector, self.made, self.keys[0], self.job.kept)
        return {
            **results,
            **linked,
            **measures.of_keys(outcomes),
            "renewability": measures.renewability(setup, self.made[0], self.renewed, self.points, locked),
            "cost": measures.cost(protector, setup, self.keys[0], self.row.storage, OVERHEAD if self.row.sealed else 0),
        }

    def compared(self, rights: Sequence[Mapping[str, measures.Floats]]) -> Record:
        """What the row loses to the one that it is compared with; which pairs were right is kept for other rows."""
        write_tensors(
            self.verified,
            {f"{place} {mode}": torch.from_numpy(right[mode]) for place, right in enumerate(rights) for mode in right},
        )
        if self.baseline is None:
            return {}
        return {"baseline": measures.against_baseline(self.baseline, self.setup, rights, self.job.kept)}


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


def make_protector(setup: Setup, job: Job, row: TemplateRow, progress: Progress) -> Protector:
    """The protector of a row: loaded, or fitted on the protectors' half of the people and kept.

    Raises:
        UsageError: when there is no such method or setting, or it is for another recogniser.
        RecognizerError: when the recogniser cannot be used.
    """
    recognizer = load_surrogate(setup.recipe.recognizer)
    if row.fitted:
        fitted_at = job.folder / row.fitted
        loaded: Protector = load_protector(fitted_at if fitted_at.exists() else Path(row.fitted), recognizer)
        return loaded
    facts = [protection_code(), row.method, dict(row.options), recognizer.card.sha256, setup.protectors.sha256]
    folder = job.kept / "protectors" / hashlib.sha256(json.dumps([*facts, setup.recipe.seed]).encode()).hexdigest()[:24]
    if (folder / "card.toml").is_file():
        kept: Protector = load_protector(folder, recognizer)
        return kept
    method: type[Protector] = load_method(row.method)
    learning = {name: row.options.get(name) for name in ("split", "epochs", "batch", "rate")}
    shared = hashlib.sha256(json.dumps([*facts[:1], *facts[3:], learning, setup.recipe.seed]).encode()).hexdigest()
    fit_work = FitWork(
        recognizer,
        hash_seed(setup.recipe.seed, "fit") % (1 << 31),
        people=tuple(setup.protectors.subjects),
        data=setup.protectors.name,
        folder=job.kept / "learned" / shared[:24],  # rows with the same parts learn them once
        progress=progress,
        device=job.device if method.accelerated else "cpu",
    )
    images = setup.protectors.pixels if method.learns else setup.protectors.images(slice(0, 2))
    try:
        fitted = method.fit_with(images, dict(row.options), fit_work)
    except UsageError as error:
        raise UsageError(f"Row {row.name!r}: {error.message}", hint=error.hint) from error
    fitted.save(folder, overwrite=True)  # another run may have been as far, or was stopped between parts and card
    return fitted


def _examples(setup: Setup, access: Access, outcomes: Mapping[str, Outcome], count: int) -> list[Record]:
    """Pictures of the first victims: the original, the mean face, what is stored, and what attackers recover."""
    protector = access.protector
    with torch.no_grad():
        look = protector.to_image(again(protector, access.stolen[:count], access.key), access.key) if count else None
    recovering = [one.name for one in setup.recipe.attackers if one.kind != "picture" and one.name in outcomes]
    shown = []
    for place in range(min(count, len(setup.victims))):
        assert look is not None
        pictures = {
            "original": setup.victims.enrolled[place],
            "mean face": setup.attackers.mean_face,
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


def _sets(setup: Setup) -> Record:
    return {
        "evaluation": [
            {"name": one.pairs.name, "pairs": len(one.pairs.same), "sha256": one.pairs.sha256}
            for one in setup.evaluation
        ],
        "asked": len(setup.asked),
        "victims": len(setup.victims),
    } | {
        side: {"name": faces.name, "sha256": faces.sha256, "people": faces.people, "images": len(faces)}
        for side, faces in (("protector", setup.protectors), ("attacker", setup.attackers))
    }


def _secret(seed: int, number: int) -> bytes:
    """A benchmark's key: repeatable, and therefore of no use elsewhere."""
    return hashlib.sha256(f"benchmark key {number} of seed {seed}".encode()).digest()


def _seen(made: Protected, row: TemplateRow, seed: int, number: int) -> Protected:
    """What a thief reads of stored numbers."""
    if not row.sealed or made.values is None:
        return made
    return replace(made, values=sealed_numbers(made.values, _secret(seed, number)))
