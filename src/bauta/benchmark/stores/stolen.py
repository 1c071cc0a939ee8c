"""What a thief of a keyed or sealed store has before him: its rows, and photos that he may know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bauta.benchmark.protocols import OperatingPoint
from bauta.benchmark.stores.representations import Protected, StolenStore
from bauta.benchmark.stores.setup import Setup
from bauta.errors import UsageError
from bauta.names import normalise_name


def steal(
    setup: Setup, values: Tensor, own: Protected, templates: Tensor, probes: Tensor, points: Sequence[OperatingPoint]
) -> StolenStore:
    """The first set's rows but for the photos that victims and known people are looked for with.

    Args:
        setup: What all rows of a recipe share.
        values: (N, ...) what is stored of the first set, as a thief reads it.
        own: The attacker's own faces, as he protects them.
        templates: (N, D) of what is stored, by whoever has the key.
        probes: (N, D) of the first set's photos.
        points: Thresholds of the system.

    Raises:
        UsageError: when nobody of the first set is left to be known.
    """
    pairs, faces = setup.evaluation[0].pairs, setup.evaluation[0].faces
    victims = {normalise_name(name) for name in setup.victims.subjects}
    met: dict[str, tuple[int, int]] = {}
    for place in pairs.same.nonzero()[0].tolist():
        one, other = int(pairs.first[place]), int(pairs.second[place])
        if (name := normalise_name(pairs.subjects[one])) not in victims:
            met.setdefault(name, (one, other))
    if not met:
        raise UsageError("Everybody in the first set is a victim: nobody's photo is known.", hint="Have fewer victims.")
    known, another = torch.tensor(list(met.values())).T
    probing = {*setup.others.tolist(), *another.tolist()} - {*setup.enrolled.tolist(), *known.tolist()}
    stored = torch.tensor([place for place in range(len(faces)) if place not in probing])
    where = {place: row for row, place in enumerate(stored.tolist())}
    strictest = min(points, key=lambda point: point.fmr)
    assert own.values is not None
    return StolenStore(
        rows=values[stored],
        places=torch.tensor([where[place] for place in setup.enrolled.tolist()]),
        own=own.values,
        known=values[known],
        same=faces.at(known),
        another=faces.at(another),
        enrolled=faces.at(setup.enrolled),
        others=faces.at(setup.others),
        probes=probes[setup.others],
        true=templates[setup.enrolled],
        limit=strictest.cosine,
        fmr=strictest.fmr,
    )
