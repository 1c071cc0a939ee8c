"""Attackers who purify, and attackers who train on protected photos of other people: a card for each method.

Of each pair of aligned crops one is protected. Dodging is measured

- on *newer recognisers*, judges that no method attacked and no attacker trained, as the crop is and after purifiers;
- on *the attacker's own recogniser*: as it came; after fine-tuning on protected photos (`attacks.adapt`); and as a
  student that was taught to see through protection (`attacks.link`), which looks at the protected crop while the
  teacher looks at the clean one.

Every attacker is tried on every method: the one that trained on its photos, those that trained on another's, and one
that trained on all. After training its threshold is found anew, on clean crops of people who are in no other set. A
pair counts for a recogniser that recognises the unprotected crop. Sets are disjoint by name, which is asserted.

Masks and trained attackers are kept, so that an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bauta import metrics
from bauta.attacks.adapt import FineTuningConfig, fine_tune
from bauta.attacks.cards import AttackerCard
from bauta.attacks.link import Student, StudentConfig, embed, fit_student, load_student
from bauta.attacks.purify import Purifier
from bauta.benchmark.adaptive.page import Adaptive
from bauta.benchmark.adaptive.protected import protect
from bauta.benchmark.adaptive.recipe import COMBINED, AdaptiveRecipe, read_recipe
from bauta.benchmark.adaptive.results import NONE, called
from bauta.benchmark.crop_sets import CropSet, draw_crop_set, draw_pairs, stack
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.figures import rounded
from bauta.benchmark.engine.recipe_files import Named
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.photos.recipe import Pair, Row
from bauta.data.images import ByteArray, digest_of
from bauta.data.people import assert_disjoint, excluded_names
from bauta.errors import NumericalFailure, RoleRefused, UnknownRecognizer, UsageError, WeightsCorrupt
from bauta.faces.crops import retemplate_pixels
from bauta.files import make_folder
from bauta.progress import Progress, steps_of
from bauta.recognizers.calibration import ERRORS_WANTED, threshold
from bauta.recognizers.cards import taught_by
from bauta.recognizers.catalog import find_card
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import load_surrogate
from bauta.registry import METHODS, load_method

KINDS = ("fine-tuning", "embedding-student")

Floats = NDArray[np.float32]

_TRAINING_CODE = ("learning/fitting.py", "attacks/link.py", "attacks/adapt.py", "recognizers")
_OURS = {
    "fine-tuning": "cosine classifier, a term that keeps clean embeddings, settings, aligned crops of few people",
    "embedding-student": "settings, clean crops among the inputs, mirrored crops, aligned crops of few people",
}


# The sets of people


@dataclass(frozen=True)
class _Sets:
    """Who is protected and judged, who is trained on, who calibrates."""

    pairs: list[Pair]
    name: str
    training: CropSet
    calibration: CropSet

    @cached_property
    def originals(self) -> ByteArray:
        return stack([pair.protected for pair in self.pairs])

    @cached_property
    def others(self) -> ByteArray:
        return stack([pair.reference for pair in self.pairs])

    @cached_property
    def impostors(self) -> NDArray[np.bool_]:
        """(N, N), whether two crops of the calibration show different people."""
        _, code = np.unique(self.calibration.subjects, return_inverse=True)
        return np.asarray(code[:, None] != code[None])

    def facts(self) -> Card:
        images = [image for pair in self.pairs for image in (pair.protected, pair.reference)]
        return {
            "evaluation": {
                "name": self.name,
                "pairs": len(self.pairs),
                "people": len({pair.subject for pair in self.pairs}),
                "sha256": digest_of(images).hexdigest(),
            }
        } | {
            name: {"name": one.name, "images": len(one.images), "people": one.people, "sha256": one.sha256}
            for name, one in (("training", self.training), ("calibration", self.calibration))
        }


def _read_sets(recipe: AdaptiveRecipe, data: Path) -> _Sets:
    name, pairs = recipe.evaluation.read(data)
    everybody = {pair.subject for pair in pairs}
    pairs = draw_pairs(pairs, len(everybody) if recipe.pairs is None else recipe.pairs, recipe.seed)
    excluded = everybody | excluded_names((data / path for path in recipe.exclude), recipe.exclude_people)
    training = draw_crop_set(data, recipe.training, excluded, recipe.seed)
    calibration = draw_crop_set(data, recipe.calibration, excluded | set(training.subjects), recipe.seed)
    assert_disjoint(training.subjects, excluded)
    assert_disjoint(calibration.subjects, excluded | set(training.subjects))
    if training.people < 2 or len(pairs) < 2:
        raise UsageError(
            f"{training.people} people to train on and {len(pairs)} to evaluate are too few.", hint="Give two or more."
        )
    sets = _Sets(pairs, name, training, calibration)
    found, wanted = int(sets.impostors.sum()) // 2, ERRORS_WANTED / recipe.fmr
    if found < wanted:
        raise UsageError(
            f"The calibration has {found} pairs of different people; FMR {recipe.fmr:g} needs {wanted:.0f}.",
            hint="Draw more people for it, or ask for a higher fmr.",
        )
    return sets


# Attackers


@dataclass(frozen=True)
class _Attacker:
    """A recogniser as an attacker uses it: one network for the crop in question, one for the clean crops it is held to.

    They are two for students alone.
    """

    name: str
    trained_on: str
    probe: Any
    gallery: Any
    sha256: str
    cosine: float
    card: AttackerCard | None = None

    def facts(self) -> Card:
        return {
            "name": self.name,
            "trained_on": self.trained_on,
            "sha256": self.sha256,
            "threshold": self.cosine,
            "card": None if self.card is None else self.card.to_dict(),
        }


class _AttackerTraining:
    """Trains attackers, or finds them where they were trained before."""

    def __init__(self, recipe: AdaptiveRecipe, sets: _Sets, work: Path, progress: Progress) -> None:
        self.recipe, self.sets, self.work, self.progress = recipe, sets, work, progress
        self.start = load_surrogate(recipe.recognizer)
        self.template = self.start.card.template
        self.clean = torch.from_numpy(retemplate_pixels(sets.training.pixels(), self.template))
        self.targets = embed(self.start, self.clean)

    def untrained(self) -> _Attacker:
        """The attacker's recogniser as it came."""
        cosine = self._calibrate(self.start, self.start)
        return _Attacker("as it came", "", self.start, self.start, self.start.card.sha256, cosine)

    def train(self, kind: str, trained_on: str, protected: Sequence[ByteArray]) -> _Attacker:
        """An attacker on protected crops of the training set, once for each method.

        Raises:
            NumericalFailure: when its loss was not finite from the beginning.
        """
        photos = torch.from_numpy(np.concatenate([retemplate_pixels(part, self.template) for part in protected]))
        path = self.work / "attackers" / f"{self._key(kind, photos)[:32]}.safetensors"
        student = self._kept(path)
        if student is None:
            student = self._trained(kind, trained_on, photos)
            make_folder(path.parent)
            student.save(path)
        gallery = self.start if kind == "embedding-student" else student.network
        config = self._config(kind)
        card = AttackerCard(
            name=kind,
            knowledge="pairs",
            adaptive=True,
            paper=METHODS[kind].paper,
            ours=_OURS[kind],
            data=f"{self.sets.training.name}, clean and by {trained_on}",
            data_sha256=hashlib.sha256(photos.numpy().tobytes()).hexdigest(),
            people=self.sets.training.people,
            images=len(photos) + len(self.clean),
            epochs=len(student.fit.losses),
            rate=config.rate,
            batch=config.batch,
            seed=self.recipe.seed,
            stopped=student.fit.stopped,
        )
        cosine = self._calibrate(student.network, gallery)
        return _Attacker(kind, trained_on, student.network, gallery, student.sha256(), cosine, card)

    def _trained(self, kind: str, trained_on: str, photos: torch.Tensor) -> Student:
        generator = torch.Generator().manual_seed(self.recipe.seed)
        copies = len(photos) // len(self.clean)
        progress = steps_of(self.progress, f"{kind} on {trained_on}")
        try:
            if kind == "fine-tuning":
                people = self.sets.training.subjects
                return fine_tune(
                    self.clean, people, photos, people * copies, self.start, self.recipe.fine_tuning, generator,
                    progress,
                )  # fmt: skip
            inputs, targets = torch.cat([self.clean, photos]), self.targets.repeat(copies + 1, 1)
            return fit_student(inputs, targets, self.start, self.recipe.student, generator, progress)
        except NumericalFailure as error:
            raise NumericalFailure(f"{kind} on {trained_on}: {error.message}", hint=error.hint) from error

    def _kept(self, path: Path) -> Student | None:
        if not path.exists():
            return None
        try:
            return load_student(path, self.start)
        except WeightsCorrupt:  # the last run was killed, or the disk was full
            return None

    def _config(self, kind: str) -> FineTuningConfig | StudentConfig:
        return self.recipe.fine_tuning if kind == "fine-tuning" else self.recipe.student

    def _key(self, kind: str, photos: torch.Tensor) -> str:
        facts = [cards.source_digest(_TRAINING_CODE), kind, self._config(kind).to_dict(), self.start.card.digest]
        total = hashlib.sha256(json.dumps([*facts, self.recipe.seed, self.sets.training.subjects]).encode())
        total.update(self.clean.numpy().tobytes())
        total.update(photos.numpy().tobytes())
        return total.hexdigest()

    @cached_property
    def _calibration(self) -> torch.Tensor:
        return torch.from_numpy(retemplate_pixels(self.sets.calibration.pixels(), self.template))

    def _calibrate(self, probe: Any, gallery: Any) -> float:
        """Threshold on clean crops of different people, each pair both ways."""
        first = embed(probe, self._calibration)
        second = first if gallery is probe else embed(gallery, self._calibration)
        scores = (first @ second.T).numpy()[self.sets.impostors]
        return rounded(metrics.threshold_at_fmr(scores, self.recipe.fmr))


# The rows


@dataclass(frozen=True, eq=False)
class Setup:
    """What all rows share.

    Attributes:
        recipe: The recipe.
        sets: People.
        judges: Newer recognisers.
        protected: By row, protected crops of the evaluation, and of those whom attackers train on.
        attackers: The attacker's recogniser as it came, and trained.
        known: Fields of every card.
        progress: Called with what is done, how far it is, and how far it goes.
    """

    recipe: AdaptiveRecipe
    sets: _Sets
    judges: _Judges
    protected: Mapping[str, tuple[ByteArray, ByteArray]]
    attackers: Sequence[_Attacker]
    known: Card
    progress: Progress


class AdaptiveKind(Adaptive, Kind[AdaptiveRecipe, Setup]):
    """Attackers who purify, and attackers who train on protected photos of other people."""

    def read(self, recipe: str) -> AdaptiveRecipe:
        """See `read_recipe`."""
        return read_recipe(recipe)

    def set_up(self, recipe: AdaptiveRecipe, job: Job) -> Setup:
        """Protect the crops of all rows, and train attackers.

        Raises:
            UsageError: when a set or a method cannot be used, people are too few or in two sets.
            RecognizerError: when a recogniser cannot be used, a judge has no threshold, or a network plays two parts.
        """
        _refuse_double_parts(recipe)
        sets, judges = _read_sets(recipe, job.folder), _Judges(recipe)
        protected = {row.name: _protect(recipe, row, sets, job.kept, job.progress) for row in recipe.rows}
        attackers = _attackers(recipe, sets, job.kept, protected, job.progress)
        known = {
            "fmr": recipe.fmr,
            "data": sets.facts(),
            "recognizer": {"name": recipe.recognizer, "sha256": find_card(recipe.recognizer).sha256},
            "judges": judges.facts(),
            "purifiers": [load_purifier(name).attacker.to_dict() for name in recipe.purifiers],
            "attackers": [attacker.facts() for attacker in attackers],
        }
        return Setup(recipe, sets, judges, protected, attackers, known, job.progress)

    def row(self, setup: Setup, row: Row, done: Mapping[str, Card]) -> Task:
        """All pairs, before all judges and attackers."""
        recipe = setup.recipe
        protection = recipe.protection(row)
        about = {
            "row": row.name,
            "method": {"name": row.method, "config": protection.settings},
            "surrogates": [{"name": name, "sha256": find_card(name).sha256} for name in protection.surrogates],
        }

        def measured() -> Card:
            setup.progress("measure", recipe.rows.index(row), len(recipe.rows))
            return about | setup.known | {"records": _measure(setup, setup.protected[row.name][0])}

        return Task(measured)

    def called(self, recipe: AdaptiveRecipe, row: Named) -> str:
        """Adaptive cards lie beside those of photos."""
        return f"adaptive-{recipe.name}/{row.name}"

    def file(self, recipe: AdaptiveRecipe, row: Named) -> str:
        """Adaptive cards lie beside those of photos."""
        return f"adaptive-{recipe.name}-{row.name}.json"


def _refuse_double_parts(recipe: AdaptiveRecipe) -> None:
    attacked = {name for row in recipe.rows for name in recipe.protection(row).surrogates} | set(recipe.surrogates)
    parts = {find_card(name).sha256: f"the surrogate {name}" for name in sorted(attacked)}
    for name in sorted(taught_by(find_card(name) for name in attacked)):
        with suppress(UnknownRecognizer):  # who is not here plays no part
            parts.setdefault(find_card(name).sha256, f"{name}, which a surrogate learned from,")
    for name, part in [
        *((name, "a judge") for name in recipe.judges),
        (recipe.recognizer, "the attacker's recogniser"),
    ]:
        sha256 = find_card(name).sha256
        if sha256 in parts:
            raise RoleRefused(
                f"{name} is {part}, and {parts[sha256]} too.", hint="Judges and the attacker's must be new to methods."
            )
        parts[sha256] = f"{part} {name}"


def _protect(
    recipe: AdaptiveRecipe, row: Row, sets: _Sets, work: Path, progress: Progress
) -> tuple[ByteArray, ByteArray]:
    """The protected crops of the evaluation and of the attackers' people."""
    kept, steps = work / "masks", steps_of(progress, f"masks of {row.name}")
    protection = recipe.protection(row)
    return (
        protect(sets.originals, protection, kept, batch=recipe.batch, progress=steps),
        protect(sets.training.pixels(), protection, kept, batch=recipe.batch, progress=steps),
    )


def _attackers(
    recipe: AdaptiveRecipe,
    sets: _Sets,
    work: Path,
    protected: Mapping[str, tuple[ByteArray, ByteArray]],
    progress: Progress,
) -> list[_Attacker]:
    training = _AttackerTraining(recipe, sets, work, progress)
    made = [training.untrained()]
    names = [row.name for row in recipe.rows if row.method != "clean"]
    for kind in KINDS:
        made += [training.train(kind, name, [protected[name][1]]) for name in names]
        if len(names) > 1:
            made.append(training.train(kind, COMBINED, [protected[name][1] for name in names]))
    return made


class _Judges:
    """Newer recognisers and their stored thresholds."""

    def __init__(self, recipe: AdaptiveRecipe) -> None:
        self.judges = {name: load_judge(name) for name in recipe.judges}
        self.thresholds = {name: threshold(find_card(name), recipe.fmr) for name in recipe.judges}

    def embed(self, name: str, crops: ByteArray) -> Floats:
        judge = self.judges[name]
        ready = retemplate_pixels(crops, judge.card.template)
        parts = [ready[start : start + 32].astype(np.float32) for start in range(0, len(ready), 32)]
        return np.concatenate([judge.embed(part / np.float32(255)) for part in parts])

    def facts(self) -> list[Card]:
        return [
            {"name": name, "sha256": find_card(name).sha256, "threshold": asdict(self.thresholds[name])}
            for name in self.judges
        ]


@cache
def load_purifier(name: str) -> Purifier:
    """A registered purifier at its own strength."""
    made: Purifier = load_method(name)()
    return made


def _measure(setup: Setup, protected: ByteArray) -> list[Card]:
    """A record for each pair."""
    recipe, sets, judges = setup.recipe, setup.sets, setup.judges
    records: list[Card] = [
        {
            "subject": pair.subject,
            "protected": pair.protected.name,
            "reference": pair.reference.name,
            "psnr": _finite(metrics.psnr(before / 255, after / 255)),
            "ssim": rounded(metrics.ssim(before / np.float32(255), after / np.float32(255))),
            "judges": {},
            "attackers": {},
        }
        for pair, before, after in zip(sets.pairs, sets.originals, protected, strict=True)
    ]
    received = {NONE: protected} | {name: load_purifier(name).purify(protected) for name in recipe.purifiers}
    for name, limit in judges.thresholds.items():
        gallery = judges.embed(name, sets.others)
        before = judges.embed(name, sets.originals)
        found = {purifier: judges.embed(name, crops) for purifier, crops in received.items()}
        wrong = _false_matches(found[NONE] @ gallery.T, limit.cosine)
        for place, record in enumerate(records):
            record["judges"][name] = {
                "before": rounded(before[place] @ gallery[place]),
                "after": {purifier: rounded(probe[place] @ gallery[place]) for purifier, probe in found.items()},
                "false": wrong[place],
            }
    for attacker in setup.attackers:
        template = find_card(recipe.recognizer).template
        probes, originals, others = (
            torch.from_numpy(retemplate_pixels(crops, template)) for crops in (protected, sets.originals, sets.others)
        )
        gallery = embed(attacker.gallery, others).numpy()
        before, after = (embed(attacker.probe, crops).numpy() for crops in (originals, probes))
        wrong = _false_matches(after @ gallery.T, attacker.cosine)
        for place, record in enumerate(records):
            record["attackers"][called(attacker.name, attacker.trained_on)] = {
                "before": rounded(before[place] @ gallery[place]),
                "after": rounded(after[place] @ gallery[place]),
                "false": wrong[place],
            }
    return records


def _false_matches(scores: Floats, limit: float) -> list[float]:
    """Of each protected crop (N, N) the share of other people's clean crops that it matches."""
    wrong = (scores >= limit) & ~np.eye(len(scores), dtype=bool)
    return [rounded(share) for share in wrong.sum(1) / (len(scores) - 1)]


def _finite(value: float) -> float | None:
    return rounded(value) if np.isfinite(value) else None
