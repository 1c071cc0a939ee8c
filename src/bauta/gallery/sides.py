"""A protector at work: what it makes of photos and stored rows, and the index of what it made."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta.errors import NotCalibrated, NumericalFailure
from bauta.gallery.index import Index
from bauta.gallery.match import Matcher
from bauta.gallery.reader import Found
from bauta.gallery.shards import AnyIndex
from bauta.templates.base import Protector
from bauta.templates.representation import Representation, RowFormat

BATCH = 256
NETWORKS = threading.Lock()
"""Networks are used by one thread at a time."""
Probe = NDArray[np.float32]


class Side:
    """One protector of a gallery, its threshold and its records; during a migration a gallery has two.

    Args:
        protector: What makes the records.
        fmr: False match rate of a comparison: 1e-2, 1e-3 or 1e-4.
        threshold: Decide from this cosine on, instead of at `fmr`.
        index: Makes an index of a dimension.

    Attributes:
        protector: As given.
        threshold: Cosine that decides.
        fmr: None where a threshold was given.
        index: Of its records; callers guard it.

    Raises:
        NotCalibrated: when there is no threshold.
    """

    def __init__(
        self,
        protector: Protector,
        *,
        fmr: float,
        threshold: float | None,
        index: Callable[[int], AnyIndex] = Index,
    ) -> None:
        found = Matcher(protector, fmr=fmr, threshold=threshold).threshold
        if found is None:
            raise NotCalibrated(
                f"No threshold is known for {protector.recognizer.card.name} at FMR {fmr:g}.",
                hint="Give --threshold, or fit the protector to more people: some are kept aside to measure one.",
            )
        self.protector, self.threshold = protector, found
        self.fmr = None if threshold is not None else fmr
        self.index: AnyIndex | None = None
        self._index = index

    def count(self, tenant: str) -> int:
        """Records of a tenant."""
        return 0 if self.index is None else self.index.count(tenant)

    def protected(self, image: Tensor) -> Representation:
        """A face (1, 3, 112, 112) as it is stored."""
        with NETWORKS, torch.no_grad():
            return self.protector.protect_anew(image)

    def probe(self, image: Tensor) -> Probe:
        """A face (1, 3, 112, 112) as it is compared, (D,)."""
        with NETWORKS, torch.no_grad():
            return np.asarray(_numbers(self.protector.probe(image))[0])

    def found(self, tenant: str, probe: Probe, *, but: bytes | None = None) -> bytes | None:
        """Whose record is most similar and similar enough, of anybody but one subject."""
        hit = None if self.index is None else self.index.search(tenant, probe, but=but)
        return None if hit is None or hit.cosine < self.threshold else hit.uid

    def matches(self, tenant: str, uid: bytes, probe: Probe) -> bool:
        """Whether one of a subject's records is similar enough."""
        cosine = None if self.index is None else self.index.match(tenant, uid, probe)
        return cosine is not None and cosine >= self.threshold

    def take(self, form: str, batch: list[Found], lock: threading.RLock) -> None:
        """Into the index: what is stored becomes templates, as the protector reads them.

        Args:
            form: Of the rows.
            batch: Records that this protector made.
            lock: Of the index.
        """
        shape = RowFormat.from_json(form)
        for start in range(0, len(batch), BATCH):
            part = batch[start : start + BATCH]
            with NETWORKS, torch.no_grad():
                made = Representation.from_rows(shape, [one.row for one in part])
                templates = _numbers(self.protector.templates(made))
            by_tenant: dict[str, list[int]] = {}
            for place, one in enumerate(part):
                by_tenant.setdefault(one.tenant, []).append(place)
            with lock:
                if self.index is None:
                    self.index = self._index(templates.shape[1])
                for tenant, places in by_tenant.items():
                    chosen = [part[place] for place in places]
                    self.index.add(tenant, [one.id for one in chosen], [one.uid for one in chosen], templates[places])


def _numbers(tensor: Tensor) -> NDArray[np.float32]:
    found = np.asarray(tensor.detach().cpu().float().numpy(), np.float32)
    if not np.isfinite(found).all():
        raise NumericalFailure("A template is not a number.", hint="Check the protector and the recogniser.")
    return found
