"""Cards of certified answers: measured row by row, and shown as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bauta.benchmark.certified.cards import CertifiedCard
from bauta.benchmark.certified.recipe import CertifiedRecipe, CertifiedRow, read_recipe
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference, Values, common_records
from bauta.benchmark.engine.figures import Figures, rounded
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.engine.table import Family, Table, label, percent, require_cards
from bauta.certify.bounds import Certificate, Smoothing, decide
from bauta.certify.smoothing import Embed, Smoothed, embedder
from bauta.data.datasets import PairSet, People, read_cfp, read_lfw
from bauta.data.images import FaceImage
from bauta.data.people import OTHER_SPELLINGS, assert_disjoint
from bauta.errors import UsageError
from bauta.files import make_folder, write_atomically
from bauta.metrics import clopper_pearson, threshold_at_fmr
from bauta.names import normalise_name
from bauta.progress import steps_of
from bauta.recognizers import find_card, load_surrogate
from bauta.recognizers.calibration import ERRORS_WANTED
from bauta.recognizers.cards import RecognizerCard, require_role

BATCH = 32


class CertifiedAnswers(Family):
    """Cards of certified answers, one for a recogniser and a strength of noise."""

    record = CertifiedCard

    def figures(self, card: Card) -> Card:
        """Shares of both sorts of pairs."""
        settings, limit = smoothing_of(card), card["calibration"]["cosine"]
        return {
            name: _side(
                [decide(record[kind], settings) for record in card["records"]],
                [record[f"{kind}_cosine"] >= limit for record in card["records"]],
                "accepted" if kind == "genuine" else "rejected",
                card["radii"],
            )
            for name, kind in (("genuine", "genuine"), ("impostors", "impostor"))
        }

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """One of all rows.

        Raises:
            UsageError: when there is no card, or they ask for different radii.
        """
        require_cards(cards)
        radii = cards[0]["radii"]
        if any(card["radii"] != radii for card in cards):
            raise UsageError("The cards ask for different radii.", hint="Show them apart.")
        within = tuple(f"within {radius:g}" for radius in radii)
        header = (
            *("row", "sigma", "without noise, more pairs", "pairs", "without noise", "under noise", "no answer"),
            *(*within, "impostors: without noise", "under noise", *(f"rejected {one}" for one in within), "CPU s"),
        )
        return [
            Table(
                "Certified answers",
                header,
                [_cells(card, cards) for card in cards],
                "Percent of pairs with 95 % intervals: genuine pairs accepted, then pairs of different people.",
            )
        ]

    def compare(self, first: Card, second: Card) -> list[Difference]:
        """Genuine pairs that are accepted without noise, under noise, and certified at each radius.

        Raises:
            UsageError: when the cards share no pair, or radius.
        """
        both = common_records(first, second, lambda record: (record["subject"], record["other"]))
        radii = [radius for radius in first["radii"] if radius in second["radii"]]
        if not radii:
            raise UsageError("The cards share no radius.", hint="Compare rows of one recipe.")

        def values(card: Card) -> Values:
            settings, limit = smoothing_of(card), card["calibration"]["cosine"]

            def of(record: Card) -> list[float]:
                one = decide(record["genuine"], settings)
                yes = one.decision == "accepted"
                plain = float(record["genuine_cosine"] >= limit)
                return [plain, float(yes), *(float(yes and one.radius >= radius) for radius in radii)]

            return of

        names = ("accepted without noise", "accepted under noise", *(f"certified within {one:g}" for one in radii))
        found = []
        for place, name in enumerate(names):
            one, other = (_at(values(card), place) for card in (first, second))
            found += both.difference(name, one, other)
        return found


def _at(values: Values, place: int) -> Values:
    return lambda record: [values(record)[place]]


def smoothing_of(card: Card) -> Smoothing:
    """The noise of a card."""
    return Smoothing(card["sigma"], card["n"], card["alpha"], card["enrolment"])


def _side(found: Sequence[Certificate], plain: Sequence[bool], right: str, radii: Sequence[float]) -> Figures:
    return {
        "plain": _share(plain),
        **{name: _share([one.decision == name for one in found]) for name in ("accepted", "rejected", "abstained")},
        "within": [_share([one.decision == right and one.radius >= radius for one in found]) for radius in radii],
    }


def _share(hits: Sequence[bool]) -> Figures:
    low, high = clopper_pearson(sum(hits), len(hits))
    return {"mean": rounded(sum(hits) / len(hits)), "low": rounded(low), "high": rounded(high)}


def _cells(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    genuine, impostors = card["results"]["genuine"], card["results"]["impostors"]
    return (
        label(card, all_cards),
        f"{card['sigma']:g}",
        percent(card["results"]["plain"]),
        str(len(card["records"])),
        *(percent(genuine[name], 0) for name in ("plain", "accepted", "abstained")),
        *(percent(one, 0) for one in genuine["within"]),
        *(percent(impostors[name], 0) for name in ("plain", "accepted")),
        *(percent(one, 0) for one in impostors["within"]),
        f"{card['run']['decision_seconds']:.1f}",
    )


@dataclass(frozen=True, eq=False)
class _Setup:
    recipe: CertifiedRecipe
    pairs: PairSet
    chosen: list[int]
    calibration: People
    job: Job


class CertifiedKind(CertifiedAnswers, Kind[CertifiedRecipe, _Setup]):
    """Recognisers under noise on pairs of LFW."""

    def read(self, recipe: str) -> CertifiedRecipe:
        """See `read_recipe`."""
        return read_recipe(recipe)

    def set_up(self, recipe: CertifiedRecipe, job: Job) -> _Setup:
        """The pairs, a pair a person, and the people that thresholds are set on, none of whom is in a pair.

        Raises:
            UsageError: when a set is not there or too small, or a row's recogniser is a judge.
        """
        for row in recipe.rows:
            require_role(find_card(row.recognizer), "surrogate")
        pairs = read_lfw(job.folder / recipe.folder)
        first: dict[str, int] = {}
        for place in np.random.default_rng(recipe.seed).permutation(np.flatnonzero(pairs.same)).tolist():
            first.setdefault(pairs.pair_subjects[place], place)
        wanted = max(recipe.pairs + 1, recipe.plain_pairs)
        if len(first) < wanted:
            raise UsageError(
                f"{pairs.name} has genuine pairs of {len(first)} people, and {wanted} are wanted.",
                hint="Lower pairs and plain_pairs in the recipe.",
            )
        listed = {*pairs.subjects, *OTHER_SPELLINGS}
        return _Setup(recipe, pairs, list(first.values())[:wanted], _strangers(recipe, job, listed), job)

    def row(self, setup: _Setup, row: CertifiedRow, done: Mapping[str, Card]) -> Task:
        """A recogniser at one strength of noise."""
        recipe, settings = setup.recipe, setup.recipe.smoothing(row)
        recognizer = find_card(row.recognizer)
        facts: dict[str, Any] = {
            "recognizer": {"name": recognizer.name, "sha256": recognizer.sha256},
            **{name: getattr(settings, name) for name in ("sigma", "n", "alpha", "enrolment")},
            "radii": list(recipe.radii),
            "data": {"name": setup.pairs.name, "pairs": 2 * recipe.pairs, "sha256": setup.pairs.sha256},
        }
        # More pairs go on where fewer ended.
        rest = {name: value for name, value in facts.items() if name not in ("radii", "data")}
        about = [cards.source_digest(("certify", "recognizers", "faces")), rest, recipe.fmr, recipe.seed]
        kept = cards.digest([*about, setup.pairs.sha256, setup.calibration.sha256])
        key = cards.digest([kept, facts, recipe.plain_pairs])
        return Task(lambda: facts | _measured(setup, row.name, recognizer, settings, kept), key)


def _strangers(recipe: CertifiedRecipe, job: Job, listed: set[str]) -> People:
    """A frontal photo of each person of CFP who is in no pair."""
    frontal = read_cfp(job.folder / recipe.calibration, "FF")
    known = {normalise_name(name) for name in listed}
    own: dict[str, FaceImage] = {}
    for image, person in sorted(zip(frontal.images, frontal.subjects, strict=True), key=lambda one: one[0].name):
        if normalise_name(person) not in known:
            own.setdefault(person, image)
    assert_disjoint(own, listed)
    if len(own) * (len(own) - 1) / 2 < ERRORS_WANTED / recipe.fmr:
        raise UsageError(
            f"{len(own)} people set no threshold at an FMR of {recipe.fmr:g}.", hint="Raise fmr, or give more people."
        )
    return People("cfp frontal, in no pair of lfw", tuple(own.values()), tuple(own))


def _measured(setup: _Setup, name: str, recognizer: RecognizerCard, settings: Smoothing, key: str) -> Card:
    recipe, pairs, job = setup.recipe, setup.pairs, setup.job
    embed = embedder(load_surrogate(recognizer))
    kept = job.kept / f"certified-{key[:32]}.json"
    state: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {"records": [], "seconds": []}
    if "cosine" not in state:
        scores = _scores(_templates(embed, setup.calibration.images))
        state |= {"cosine": threshold_at_fmr(scores, recipe.fmr), "impostor_pairs": len(scores)}
    known = state.setdefault("plain", [])
    for place in setup.chosen[len(known) : recipe.plain_pairs]:
        one, other = _templates(embed, [pairs.images[side[place]] for side in (pairs.first, pairs.second)])
        known.append(rounded(one @ other))
    smoothed, steps = Smoothed(embed, settings), steps_of(job.progress, name)
    make_folder(job.kept)
    write_atomically(kept, json.dumps(state).encode(), overwrite=True)
    for number in range(len(state["records"]), recipe.pairs):
        one, next_one = setup.chosen[number : number + 2]
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + number)
        face = _face(pairs.images[pairs.first[one]])
        references = torch.cat(
            [smoothed.enrol(_face(pairs.images[pairs.second[at]]), generator) for at in (one, next_one)]
        )
        cosines = _templates(embed, [pairs.images[pairs.first[one]]]) @ references.T
        began = time.process_time()
        counts = smoothed.accepted(face, references, state["cosine"], generator)
        state["seconds"].append(time.process_time() - began)
        state["records"].append(
            {
                "subject": pairs.pair_subjects[one],
                "other": pairs.pair_subjects[next_one],
                **dict(zip(("genuine", "impostor"), counts, strict=True)),
                **dict(zip(("genuine_cosine", "impostor_cosine"), map(rounded, cosines[0]), strict=True)),
            }
        )
        write_atomically(kept, json.dumps(state).encode(), overwrite=True)
        steps(number + 1, recipe.pairs)
    strangers = setup.calibration
    facts = {"name": strangers.name, "sha256": strangers.sha256, "people": len(strangers.images)}
    return {
        "calibration": {
            "data": facts | {"images": len(strangers.images)},
            "fmr": recipe.fmr,
            "cosine": rounded(state["cosine"]),
            "impostor_pairs": state["impostor_pairs"],
        },
        "results": {"plain": _share([cosine >= state["cosine"] for cosine in known[: recipe.plain_pairs]])},
        "plain_pairs": recipe.plain_pairs,
        "records": state["records"][: recipe.pairs],
        "run": {"decision_seconds": rounded(np.median(state["seconds"][: recipe.pairs]))},
    }


def _face(image: FaceImage) -> Tensor:
    return torch.tensor(image.pixels()).permute(2, 0, 1)[None].float() / 255


def _templates(embed: Embed, images: Sequence[FaceImage]) -> Tensor:
    with torch.no_grad():
        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return torch.cat([embed(torch.cat([_face(image) for image in batch])) for batch in batches])


def _scores(templates: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    first, second = np.triu_indices(len(templates), 1)
    found: np.ndarray[Any, np.dtype[np.float32]] = (templates @ templates.T).numpy()[first, second]
    return found
