"""Cards of cancelable templates: measured row by row, and shown as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bauta.benchmark.cancelable.cards import CancelableCard
from bauta.benchmark.cancelable.measures import Faces, measure
from bauta.benchmark.cancelable.recipe import CancelableRecipe, CancelableRow, read_recipe
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.engine.table import Family, Table, label, percent, require_cards
from bauta.benchmark.recognition import kept_templates
from bauta.data.datasets import People, read_cfp
from bauta.errors import UsageError
from bauta.progress import steps_of
from bauta.recognizers import find_card
from bauta.recognizers.cards import ROLES, RecognizerCard


class Cancelable(Family):
    """Cards of cancelable templates, one a scheme."""

    record = CancelableCard

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """Recognition and linkage, and what is computed back.

        Raises:
            UsageError: when there is no card.
        """
        require_cards(cards)
        return [
            Table(
                "Recognition",
                ("row", "bytes", "TMR, tokens secret", "TMR, token stolen", "lost to plain templates", "old reference "
                 "matches after renewal", "its distance to strangers (null)", "ms to enrol", "ms to search 1 M"),
                [_plain_row(cards[0]), *(_recognition(card, cards) for card in cards)],
                "True match rates in percent at an FMR of 1e-3, with 95 % intervals.",
            ),
            Table(
                "Linkage",
                ("row", "D_sys, token a person (null)", "maximal, bits", "D_sys, token a store, mean and worst of "
                 "pairs", "D_sys, stores with stolen tokens (null)"),
                [_linkage(card, cards) for card in cards],
                "0 is unlinkable, 1 fully linkable.",
            ),
            Table(
                "Computed back with stolen tokens",
                ("row", *(f"{one['records']} record{'s' * (one['records'] > 1)}: cosine; same photo; other photo"
                          for one in cards[0]["figures"]["inversion"])),
                [_inverted(card, cards) for card in cards],
                "Mean cosine to the enrolled template; percent accepted by the recogniser at an FMR of 1e-3.",
            ),
        ]  # fmt: skip


def _plain_row(card: Card) -> tuple[str, ...]:
    tmr = percent(card["figures"]["plain"]["tmr"])
    return ("plain template", "2048", tmr, tmr, "-", "-", "-", "-", "-")


def _recognition(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    figures, run = card["figures"], card["run"]
    renewal, lost = figures["renewal"], figures["plain"]["tmr"]["mean"] - figures["stolen"]["tmr"]["mean"]
    return (
        label(card, all_cards),
        str(figures["bytes"]),
        percent(figures["normal"]["tmr"]),
        percent(figures["stolen"]["tmr"]),
        f"{100 * lost:.1f}",
        f"{100 * renewal['matched']:.2f} %",
        f"{renewal['distance']:.3f} ({renewal['null']:.3f})",
        f"{run['enrol_ms']:.1f}",
        "-" if run["search_ms"] is None else f"{run['search_ms']:.0f}",
    )


def _linkage(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    figures = card["figures"]
    own, known = figures["linkage"], figures["known"]
    stores = [one["d_sys"] for one in figures["stores"]]
    return (
        label(card, all_cards),
        f"{own['d_sys']:.3f} ({own['null']['mean']:.3f})",
        f"{own['maximal']:.3f}",
        f"{np.mean(stores):.3f}, {max(stores):.3f}",
        f"{known['d_sys']:.3f} ({known['null']['mean']:.3f})",
    )


def _inverted(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    return (
        label(card, all_cards),
        *(
            f"{one['cosine']['mean']:.2f}; {100 * one['same']['mean']:.0f}; {100 * one['other']['mean']:.0f}"
            for one in card["figures"]["inversion"]
        ),
    )


@dataclass(frozen=True, eq=False)
class _Setup:
    recipe: CancelableRecipe
    recognizer: RecognizerCard
    people: People
    faces: Faces
    job: Job


class CancelableKind(Cancelable, Kind[CancelableRecipe, _Setup]):
    """Schemes on the templates of one recogniser."""

    def read(self, recipe: str) -> CancelableRecipe:
        """See `read_recipe`."""
        return read_recipe(recipe)

    def set_up(self, recipe: CancelableRecipe, job: Job) -> _Setup:
        """Templates of all people, embedded once.

        Raises:
            UsageError: when the set is not there, or has too few people.
        """
        recognizer = replace(find_card(recipe.recognizer), roles=ROLES)
        for row in recipe.rows:
            row.scheme(recognizer.sha256)  # a wrong setting shows before anything is embedded
        chosen, count = _chosen(recipe, job)
        values = kept_templates(recognizer, chosen, job)
        known = count * recipe.photos
        faces = Faces(
            values[:known].reshape(count, recipe.photos, -1),
            chosen.subjects[: known : recipe.photos],
            values[known:],
        )
        return _Setup(recipe, recognizer, chosen, faces, job)

    def row(self, setup: _Setup, row: CancelableRow, done: Mapping[str, Card]) -> Task:
        """A scheme."""
        scheme = row.scheme(setup.recognizer.sha256)
        recipe = setup.recipe
        facts: dict[str, Any] = {
            "recognizer": {"name": setup.recognizer.name, "sha256": setup.recognizer.sha256},
            "method": row.method,
            "options": scheme.config.to_dict(),
            "data": {
                "name": setup.people.name,
                "sha256": setup.people.sha256,
                "people": recipe.people,
                "images": recipe.people * recipe.photos,
            },
        }
        about = [cards.code()["sha256"], facts, recipe.victims, recipe.seed, recipe.photos, row.name]
        key = cards.digest(about)

        def measured() -> Card:
            steps = steps_of(setup.job.progress, row.name)
            figures, run = measure(scheme, setup.faces, recipe.victims, recipe.seed, steps)
            return facts | {"figures": figures, "run": run}

        return Task(measured, key)


def _chosen(recipe: CancelableRecipe, job: Job) -> tuple[People, int]:
    """The first photos of the first people that have as many, and then those of others, for attackers."""
    pairs = read_cfp(job.folder / recipe.folder, "FF")
    full = [own[: recipe.photos] for own in pairs.places.values() if len(own) >= recipe.photos]
    if len(full) <= recipe.people:
        raise UsageError(
            f"{pairs.name} has {len(full)} people with {recipe.photos} photos, and more than {recipe.people} are "
            "wanted: those enrolled, and others whom attackers know.",
            hint="Lower people or photos in the recipe.",
        )
    # Of others one photo each: a mean is all that is made of them.
    order = [place for own in full[: recipe.people] for place in own] + [own[0] for own in full[recipe.people :]]
    return pairs.people_at(order), recipe.people
