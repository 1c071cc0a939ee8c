"""What all rows of a table of templates share: sets, people on one side only, judges and their thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bauta.attacks.replay import Replay, Victims, load_evaluator
from bauta.benchmark.crop_sets import draw_crop_set
from bauta.benchmark.stores.recipe import TemplateRecipe, half
from bauta.benchmark.stores.representations import Faces, read_faces
from bauta.data.datasets import PairSet
from bauta.data.people import assert_disjoint, excluded_names
from bauta.errors import UsageError
from bauta.names import normalise_name
from bauta.recognizers import find_card, threshold

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """A set of pairs to verify, with its faces in memory.

    Attributes:
        pairs: The set.
        faces: Its images.
    """

    pairs: PairSet
    faces: Faces


@dataclass(frozen=True, eq=False)
class Setup:
    """What all rows of a recipe share.

    Attributes:
        recipe: The recipe.
        evaluation: To verify.
        protectors: Faces that protectors are fitted on.
        attackers: Faces that attackers learn from.
        asked: Those of them that they have protected.
        victims: Whose representations leak; faces of the first evaluation set.
        enrolled: (V,) indices of their enrolled images in the first evaluation set.
        others: (V,) indices of their other ones.
        replay: Recognisers that say whether recovered faces are the victims.
        thresholds: By recogniser and false match rate.
    """

    recipe: TemplateRecipe
    evaluation: tuple[EvaluationSet, ...]
    protectors: Faces
    attackers: Faces
    asked: Faces
    victims: Victims
    enrolled: Tensor
    others: Tensor
    replay: Replay
    thresholds: Mapping[str, Mapping[float, Mapping[str, Any]]]


def set_up(recipe: TemplateRecipe, data: Path) -> Setup:
    """Read the sets, split people, load judges, and make sure that nobody is on two sides.

    Raises:
        UsageError: when a set is missing, or somebody is where they must not be.
        NotCalibrated: when a recogniser has no threshold.
        RecognizerError: when a recogniser cannot be used.
    """
    limits = _thresholds(recipe)
    sets: list[EvaluationSet] = []
    for evaluation in recipe.evaluation:
        pairs = evaluation.read(data)
        if pairs.name in [one.pairs.name for one in sets]:
            raise UsageError(
                f"Two sets are called {pairs.name!r}, and one would hide the other.", hint="Give them other counts."
            )
        sets.append(EvaluationSet(pairs, read_faces(pairs.name, pairs.images, pairs.subjects)))
    evaluated = excluded_names((data / path for path in recipe.exclude), recipe.exclude_people)
    evaluated |= {name for one in sets for name in one.pairs.subjects}
    people = draw_crop_set(data, recipe.people, evaluated, recipe.seed)
    sides = [half(people, attacking=attacking) for attacking in (False, True)]
    assert_disjoint(sides[0].subjects, sides[1].subjects)
    for side in sides:
        assert_disjoint(side.subjects, evaluated)
    protectors, attackers = (read_faces(side.name, side.images, side.subjects) for side in sides)
    enrolled, others = draw_victims(sets[0].pairs, recipe.victims, recipe.seed)
    first = sets[0].faces
    victims = Victims(first.images(enrolled), first.images(others), tuple(first.subjects[one] for one in enrolled))
    judges = {name: load_evaluator(find_card(name)) for name in (recipe.recognizer, *recipe.judges)}
    asked = attackers.some(recipe.asked, recipe.seed)
    replay = Replay(victims, judges)
    return Setup(recipe, tuple(sets), protectors, attackers, asked, victims, enrolled, others, replay, limits)


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


def _thresholds(recipe: TemplateRecipe) -> dict[str, dict[float, Record]]:
    found: dict[str, dict[float, Record]] = {}
    for name in (recipe.recognizer, *recipe.judges):
        card = find_card(name)
        found[name] = {fmr: asdict(threshold(card, fmr)) for fmr in recipe.fmrs}
    return found
