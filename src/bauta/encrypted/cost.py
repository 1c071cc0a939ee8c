"""What a search costs, and from how many people on its answer means nothing."""

from __future__ import annotations

from dataclasses import dataclass

from bauta.encrypted.comparison import plan
from bauta.encrypted.packing import Layout, choose_split
from bauta.encrypted.parameters import DEGREE, PRIMES
from bauta.errors import UsageError

LARGEST = 100_000_000
MEANINGLESS = 0.5
"""FPIR from which on "somebody matches" is said to most strangers."""

# Microseconds on one core of the machine of benchmarks/results/encrypted-1m.json, 512 values, rounded up.
_ENCODE, _ENCRYPT, _MULTIPLY, _MASK, _DECRYPT, _COMPARE = 0.1, 8000.0, 0.004, 1700.0, 300.0, 1.0
"""A value, a ciphertext, a value, a group, a group, a place."""


@dataclass(frozen=True)
class Cost:
    """One decision among so many people.

    Attributes:
        people: In the gallery.
        layout: How templates are packed.
        upload: Bytes of the probe.
        download: Bytes of the answer.
        comparison: Bytes of the comparison, both ways.
        tape: Bytes of the dealer.
        rounds: Of the comparison.
        memory: Bytes of the encoded gallery.
        encode_seconds: Once.
        seconds: Of computing on one core, estimated from what was measured; the network comes on top.
    """

    people: int
    layout: Layout
    upload: int
    download: int
    comparison: int
    tape: int
    rounds: int
    memory: int
    encode_seconds: float
    seconds: float


def cost(people: int, dimension: int = 512, split: int | None = None) -> Cost:
    """What one decision of a database's gallery costs.

    Args:
        people: 1 to 100 M.
        dimension: Of templates.
        split: Pieces; chosen by default.

    Raises:
        UsageError: when a number is out of range.

    >>> round(cost(1_000_000).download / 1e6)
    40
    """
    if not 1 <= people <= LARGEST:
        raise UsageError(f"{people} people are not counted.", hint=f"Give 1 to {LARGEST}.")
    layout = Layout(dimension, choose_split(people, dimension) if split is None else split)
    groups = layout.groups(people)
    places = groups * layout.group
    sizes = plan(places, 1, "exists")
    values = places * layout.padded
    micro = layout.split * _ENCRYPT + values * _MULTIPLY + groups * (_MASK + _DECRYPT) + places * _COMPARE
    return Cost(
        people=people,
        layout=layout,
        upload=layout.upload(),
        download=layout.download(people),
        comparison=2 * sum(sizes),
        tape=sum(sizes),
        rounds=len(sizes),
        memory=groups * layout.split * DEGREE * 4 * len(PRIMES),
        encode_seconds=values * _ENCODE / 1e6,
        seconds=micro / 1e6,
    )
