"""From a recipe to cards of budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bauta.benchmark.budgets.attackers import Faces
from bauta.benchmark.budgets.cards import BudgetCard
from bauta.benchmark.budgets.measures import measure
from bauta.benchmark.budgets.recipe import BudgetRecipe, BudgetRow, read_recipe
from bauta.benchmark.crop_sets import stack
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.engine.table import Family, Table, label, percent, require_cards
from bauta.benchmark.recognition import kept_templates
from bauta.data.datasets import People, read_cfp
from bauta.errors import UsageError
from bauta.privacy.mechanisms import number
from bauta.progress import steps_of
from bauta.recognizers import find_card
from bauta.recognizers.cards import ROLES, RecognizerCard
from bauta.recognizers.surrogates import Surrogate, load_surrogate
from bauta.templates.fit import FitWork


class Budgets(Family):
    """Cards of budgets, one a mechanism at one epsilon."""

    record = BudgetCard

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """Budget and recognition, what is computed back, and audits.

        Raises:
            UsageError: when there is no card.
        """
        require_cards(cards)
        many = cards[0]["figures"]["templates"][1]["records"]
        return [
            Table(
                "Recognition",
                ("row", "epsilon of a value", "of a photo", "of a person, all photos", "TMR at FMR 1e-2", "at 1e-3",
                 "rank 1", "TMR at FMR 1e-2, both noisy", "at 1e-3", "rank 1, both noisy"),
                [_plain_row(cards[0]), *(_recognition(card, cards) for card in cards)],
                "In percent, with 95 % intervals.",
            ),
            Table(
                "Computed back",
                _recovered_header(many),
                [_recovered(card, cards, card["figures"]) for card in cards],
                "By a linear map; percent accepted by the recogniser at an FMR of 1e-3.",
            ),
            *_by_networks(cards),
            Table(
                "Audit",
                ("row", "a value: claim", "shown", "trials could show", "a photo: claim", "shown",
                 "trials could show"),
                [_audit(card, cards) for card in cards],
                "Spent at least, at 99 % confidence.",
            ),
        ]  # fmt: skip


def _rates(figures: Card) -> tuple[str, ...]:
    rates = figures["verification"]
    return percent(rates["tmr_1e2"]), percent(rates["tmr_1e3"]), percent(figures["rank_one"])


def _plain_row(card: Card) -> tuple[str, ...]:
    return ("plain template", "-", "-", "-", *_rates(card["figures"]["plain"]), "-", "-", "-")


def _recognition(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    figures = card["figures"]
    spent = (number(figures["budget"][name]) for name in ("value", "photo", "person"))
    return (label(card, all_cards), *spent, *_rates(figures["one_sided"]), *_rates(figures["two_sided"]))


def _by_networks(cards: Sequence[Card]) -> list[Table]:
    """What networks compute back; cards of before lack it."""
    having = [card for card in cards if "networks" in card["figures"]]
    if not having:
        return []
    many = having[0]["figures"]["networks"]["templates"][1]["records"]
    rows = []
    for card in having:
        figures = card["figures"]
        linked = (figures["networks"]["linked"], figures["linked"], figures["two_sided"])
        rates = (percent(one["verification"]["tmr_1e2"]) for one in linked)
        rows.append((*_recovered(card, cards, figures["networks"]), *rates))
    return [
        Table(
            "Computed back by networks",
            (*_recovered_header(many), "linked by networks", "linear", "by the service"),
            rows,
            "As before; linked: two releases of one person are told from those of strangers, TMR at an FMR of 1e-2.",
        )
    ]


def _recovered_header(many: int) -> tuple[str, ...]:
    return (
        *("row", "epsilon of a photo", "template: cosine", "same photo", "other photo"),
        *(f"other photo, {many} releases", "picture: SSIM", "same photo", "other photo"),
    )


def _recovered(card: Card, all_cards: Sequence[Card], figures: Card) -> tuple[str, ...]:
    (one, several), picture = figures["templates"], figures["pictures"]
    return (
        label(card, all_cards),
        number(card["figures"]["budget"]["photo"]),
        f"{one['cosine']['mean']:.2f}",
        percent(one["same"]),
        percent(one["other"]),
        percent(several["other"]),
        f"{picture['ssim']['mean']:.2f}",
        percent(picture["same"]),
        percent(picture["other"]),
    )


def _audit(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    cells = [label(card, all_cards)]
    for name in ("value_audit", "photo_audit"):
        one = card["figures"][name]
        cells += [number(one["claim"]), f"{one['found']:.2f}", f"{one['most']:.2f}"]
    return tuple(cells)


@dataclass(frozen=True, eq=False)
class _Setup:
    recipe: BudgetRecipe
    recognizer: RecognizerCard
    surrogate: Surrogate
    people: People
    faces: Faces
    job: Job


class BudgetKind(Budgets, Kind[BudgetRecipe, _Setup]):
    """Mechanisms on the faces of one set, beside the templates of one recogniser."""

    def read(self, recipe: str) -> BudgetRecipe:
        """See `read_recipe`."""
        return read_recipe(recipe)

    def set_up(self, recipe: BudgetRecipe, job: Job) -> _Setup:
        """Faces of all people, embedded once.

        Raises:
            UsageError: when the set is not there, has too few people, or a row makes no sense.
        """
        for row in recipe.rows:
            row.made()  # a wrong setting shows before anything is embedded
        recognizer = replace(find_card(recipe.recognizer), roles=ROLES)
        chosen, known = _chosen(recipe, job)
        values = kept_templates(recognizer, chosen, job)
        pixels = torch.from_numpy(stack(chosen.images)).permute(0, 3, 1, 2).contiguous()
        shape = (recipe.people, recipe.photos)
        faces = Faces(
            pixels[:known].reshape(*shape, *pixels.shape[1:]),
            values[:known].reshape(*shape, -1),
            chosen.subjects[: known : recipe.photos],
            pixels[known:],
            values[known:],
            chosen.subjects[known:],
            recipe.enrolled,
            recipe.groups,
        )
        return _Setup(recipe, recognizer, load_surrogate(recognizer), chosen, faces, job)

    def row(self, setup: _Setup, row: BudgetRow, done: Mapping[str, Card]) -> Task:
        """A mechanism."""
        kind, config = row.made()
        recipe, faces = setup.recipe, setup.faces
        facts: dict[str, Any] = {
            "recognizer": {"name": setup.recognizer.name, "sha256": setup.recognizer.sha256},
            "method": row.method,
            "options": config.to_dict(),
            "data": {
                "name": setup.people.name,
                "sha256": setup.people.sha256,
                "people": recipe.people,
                "images": recipe.people * recipe.photos,
            },
            "public": len(set(faces.public_people)),
        }
        choices = [recipe.victims, recipe.seed, recipe.photos, recipe.enrolled, recipe.groups, row.name]
        key = cards.digest([cards.code()["sha256"], facts, choices])

        def measured() -> Card:
            steps = steps_of(setup.job.progress, row.name)
            work = FitWork(setup.surrogate, recipe.seed, people=faces.public_people, data=setup.people.name)
            protector = kind.fit(faces.public, config, kind.Training(), work)
            return facts | {"figures": measure(protector, faces, recipe.victims, recipe.seed, steps)}

        return Task(measured, key)


def _chosen(recipe: BudgetRecipe, job: Job) -> tuple[People, int]:
    """The first photos of the first people that have as many, and then all photos of the others, who are public."""
    pairs = read_cfp(job.folder / recipe.folder, "FF")
    places = pairs.places
    full = [name for name, own in places.items() if len(own) >= recipe.photos]
    others = [name for name in places if name not in set(full[: recipe.people])]
    if len(full) < recipe.people or len(others) < 2:
        raise UsageError(
            f"{pairs.name} has {len(full)} people with {recipe.photos} photos; {recipe.people} are wanted, and others "
            "from whom protectors and attackers learn.",
            hint="Lower people or photos in the recipe.",
        )
    order = [place for name in full[: recipe.people] for place in places[name][: recipe.photos]]
    known = len(order)
    order += [place for name in others for place in places[name]]
    return pairs.people_at(order), known
