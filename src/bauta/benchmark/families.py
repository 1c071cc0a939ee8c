"""All families of result cards, by the schema that a card names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bauta.benchmark.adaptive.page import Adaptive
from bauta.benchmark.budgets.run import Budgets
from bauta.benchmark.cancelable.run import Cancelable
from bauta.benchmark.certified.run import CertifiedAnswers
from bauta.benchmark.encrypted.run import EncryptedMatching
from bauta.benchmark.engine.cards import Card, named_schema, read_card, schema_of
from bauta.benchmark.engine.table import Family, require_cards
from bauta.benchmark.photos.page import Photos
from bauta.benchmark.recognition import Recognizers
from bauta.benchmark.stores.page import Stores
from bauta.benchmark.video.run import Clips
from bauta.errors import UsageError

FAMILIES: dict[str, Family] = {
    schema_of(family.record): family
    for family in (
        *(Photos(), Adaptive(), Stores(), Recognizers(), Cancelable(), CertifiedAnswers(), Budgets()),
        *(EncryptedMatching(), Clips()),
    )
}


def read_cards(paths: Sequence[Path]) -> tuple[Family, list[Card]]:
    """Finished cards, and the family that they are all of.

    Raises:
        UsageError: when there is none, or a file is not a card, or one of another family than the first.
    """
    require_cards(paths)
    schema = named_schema(paths[0])
    if schema not in FAMILIES:
        raise UsageError(
            f"{paths[0]} is {f'a card of schema {schema!r}' if schema else 'not a result card'}.",
            hint=f"There is: {', '.join(FAMILIES)}.",
        )
    family = FAMILIES[schema]
    return family, [read_card(path, family.record) for path in paths]
