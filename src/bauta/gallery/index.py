"""Search in memory: a matrix of templates for each tenant, compared by one product, or sifted in 8 bits first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bauta.gallery.codes import CANDIDATES, Codes

Templates = NDArray[np.float32]
Search = Literal["exact", "faiss"]


@dataclass(frozen=True)
class Hit:
    """What is most similar to a probe.

    Attributes:
        uid: Of the subject.
        cosine: -1 to 1.
    """

    uid: bytes
    cosine: float


@dataclass
class _Shelf:
    """The records of a tenant, without gaps: the last one takes the place of one that leaves."""

    templates: Templates
    codes: Codes | None = None
    ids: list[bytes] = field(default_factory=list)
    uids: list[bytes] = field(default_factory=list)
    places: dict[bytes, int] = field(default_factory=dict)
    of: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)


class Index:
    """Templates by record, subject and tenant. It is made of the store's records at each start, and never written.

    Args:
        dimension: Of a template.
        search: ``exact``, or ``faiss``: 8 bits tell which records may be the best, and those are compared exactly.

    Raises:
        UsageError: when faiss is asked for and not installed.
    """

    def __init__(self, dimension: int, search: Search = "exact") -> None:
        self._dimension, self._search = dimension, search
        if search == "faiss":
            Codes(dimension)
        self._shelves: dict[str, _Shelf] = {}
        self._tenants: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self._tenants)

    def ids(self) -> set[bytes]:
        """Ids of all records."""
        return set(self._tenants)

    def count(self, tenant: str) -> int:
        """Records of a tenant."""
        shelf = self._shelves.get(tenant)
        return 0 if shelf is None else len(shelf.ids)

    def add(self, tenant: str, ids: Sequence[bytes], uids: Sequence[bytes], templates: Templates) -> None:
        """Take records in, (N, D) unit-norm; those that are there already are replaced."""
        self.remove(one for one in ids if one in self._tenants)
        shelf = self._shelves.get(tenant)
        if shelf is None:
            codes = Codes(self._dimension) if self._search == "faiss" else None
            shelf = self._shelves[tenant] = _Shelf(np.zeros((0, self._dimension), np.float32), codes)
        start = len(shelf.ids)
        if start + len(ids) > len(shelf.templates):
            room = np.zeros((max(2 * start, start + len(ids), 64), self._dimension), np.float32)
            room[:start] = shelf.templates[:start]
            shelf.templates = room
        shelf.templates[start : start + len(ids)] = templates
        if shelf.codes is not None:
            shelf.codes.add(templates)
        shelf.ids += ids
        shelf.uids += uids
        shelf.places.update(zip(ids, range(start, start + len(ids)), strict=True))
        self._tenants.update(dict.fromkeys(ids, tenant))
        of = shelf.of
        for one, uid in zip(ids, uids, strict=True):
            of[uid] = (*of.get(uid, ()), one)

    def remove(self, ids: Iterable[bytes]) -> None:
        """Let records go; their templates are overwritten."""
        for one in list(ids):
            tenant = self._tenants.pop(one, None)
            if tenant is None:
                continue
            shelf = self._shelves[tenant]
            place, last = shelf.places.pop(one), len(shelf.ids) - 1
            uid = shelf.uids[place]
            shelf.of[uid] = tuple(other for other in shelf.of[uid] if other != one)
            if not shelf.of[uid]:
                del shelf.of[uid]
            if place != last:
                shelf.ids[place], shelf.uids[place] = shelf.ids[last], shelf.uids[last]
                shelf.templates[place] = shelf.templates[last]
                shelf.places[shelf.ids[place]] = place
            shelf.templates[last] = 0
            if shelf.codes is not None:
                shelf.codes.drop(place)
            shelf.ids.pop()
            shelf.uids.pop()

    @contextmanager
    def restarted(self) -> Iterator[None]:
        """Nothing of it can be lost alone."""
        yield

    def close(self) -> None:
        """Let go of all of it."""
        self._shelves.clear()
        self._tenants.clear()

    def of(self, tenant: str, uid: bytes) -> set[bytes]:
        """Ids of a subject's records."""
        shelf = self._shelves.get(tenant)
        return set() if shelf is None else set(shelf.of.get(uid, ()))

    def match(self, tenant: str, uid: bytes, probe: Templates) -> float | None:
        """The greatest cosine of a probe (D,) and a subject's records; None where there are none."""
        ids = self.of(tenant, uid)
        if not ids:
            return None
        shelf = self._shelves[tenant]
        return float((shelf.templates[[shelf.places[one] for one in ids]] @ probe).max())

    def search(self, tenant: str, probe: Templates, *, but: bytes | None = None) -> Hit | None:
        """The record most similar to a probe (D,), of anybody but one subject; None where there is nobody."""
        shelf = self._shelves.get(tenant)
        if shelf is None or not shelf.ids:
            return None
        own = [] if but is None else [shelf.places[one] for one in shelf.of.get(but, ())]
        if shelf.codes is None:
            places, cosines = None, shelf.templates[: len(shelf.ids)] @ probe
            cosines[own] = -np.inf
        else:
            places = shelf.codes.nearest(probe, CANDIDATES + len(own))
            cosines = shelf.templates[places] @ probe
            cosines[np.isin(places, own)] = -np.inf
        best = int(np.argmax(cosines))
        if not np.isfinite(cosines[best]):
            return None
        return Hit(shelf.uids[best if places is None else int(places[best])], float(cosines[best]))
