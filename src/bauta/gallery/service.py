"""A face service in one process: photos in, decisions out; what is between is a store, an index and a protector."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta.errors import AlreadyEnrolled, NotCalibrated, NumericalFailure, SubjectUnknown, TooMany, UsageError
from bauta.gallery.budgets import charge
from bauta.gallery.enrol import Gallery
from bauta.gallery.index import Index
from bauta.gallery.match import Matcher
from bauta.gallery.quality import Quality, read_face
from bauta.gallery.store import Found, Maker, Store, require_names
from bauta.gallery.writer import Writer
from bauta.photo import PhotoSource
from bauta.rates import fpir
from bauta.templates.base import Protector
from bauta.templates.representation import Representation, RowFormat

MOST_FPIR = 0.05
"""Above it, a search is refused unless it is forced."""
BATCH = 256


@dataclass(frozen=True)
class Erasure:
    """What became of an erasure.

    Attributes:
        state: ``erased``: in no file of the store; ``pending``: the key is destroyed, and an open reader keeps deleted
            bytes in a file until it ends.
        number: Line of the audit.
        digest: Of the audit up to that line: who keeps it can tell whether lines before it were changed since.
    """

    state: str
    number: int
    digest: str


@dataclass(frozen=True)
class Answer:
    """Whom a search found.

    Attributes:
        subject: Who matches best; None when nobody does.
        fpir: Probability that a stranger is taken for somebody, among so many; None where the rate is not known.
        count: Records that were compared.
    """

    subject: str | None
    fpir: float | None
    count: int


def maker_of(protector: Protector) -> Maker:
    """Which recogniser and protector that is."""
    card = protector.recognizer.card
    return Maker(card.name, card.sha256, protector.name, protector.sha256)


def require_protecting(protector: Protector, *, plain: bool = False) -> None:
    """Let protectors through that protect.

    Raises:
        UsageError: when it stands in tables for comparison only, and plain storage was not asked for.
    """
    if protector.card.reference and not plain:
        raise UsageError(
            f"{protector.name} protects nothing: who gets the store and its keys has the faces.",
            hint="Use a protector that does, such as advface-mobilefacenet, or --store-faces-unprotected.",
        )


class FaceService:
    """Enrols, compares and erases.

    Args:
        store: Where records are.
        protector: That the store was made for.
        fmr: False match rate of a comparison: 1e-2, 1e-3 or 1e-4.
        threshold: Decide from this cosine on, instead of at `fmr`.
        quality: Which photos are good enough.
        aligned: Photos are aligned crops of 112x112 pixels.

    Attributes:
        ready: Whether all records are in memory.

    Raises:
        OtherMaker: when the store was made for another recogniser or protector.
        NotCalibrated: when there is no threshold.
    """

    def __init__(
        self,
        store: Store,
        protector: Protector,
        *,
        fmr: float = 1e-4,
        threshold: float | None = None,
        quality: Quality | None = None,
        aligned: bool = False,
    ) -> None:
        store.maker.require(maker_of(protector))
        matcher = Matcher(protector, fmr=fmr, threshold=threshold)
        if matcher.threshold is None:
            raise NotCalibrated(
                f"No threshold is known for {protector.recognizer.card.name} at FMR {fmr:g}.",
                hint="`bauta recognizers calibrate` measures one, or give --threshold.",
            )
        self.store, self.protector, self.threshold = store, protector, matcher.threshold
        self.fmr = None if threshold is not None else fmr
        self.quality, self.aligned, self.ready = quality or Quality(), aligned, False
        self._lock, self._networks = threading.RLock(), threading.Lock()
        self._index: Index | None = None
        self._revision = -1

    def load(self) -> int:
        """Take all records into memory, and return how many; what a crash or a restored backup left is tidied first."""
        self.store.forget_erased()
        self.purge()
        self.refresh()
        self.ready = True
        return 0 if self._index is None else len(self._index)

    def refresh(self) -> None:
        """Take in what was written since: the index is what the store holds, whoever wrote it."""
        with self._lock:
            revision, removed = self.store.revision()
            if revision == self._revision:
                return
            for batch in self.store.active(since=self._revision):
                self._take(batch)
            if removed > self._revision and self._index is not None:
                self._index.remove(self._index.ids() - self.store.ids())
            self._revision = revision

    # What is asked

    def enrol(self, tenant: str, name: str, photo: PhotoSource, *, actor: str, once: str = "",
              known: bool = False) -> dict[str, str]:  # fmt: skip
        """Store the face of a photo.

        Args:
            tenant: Whose gallery.
            name: Of the subject, who is new or has records already.
            photo: With one face.
            actor: Who asks, for the audit.
            once: Drawn by the caller for this request: sent again, it is answered and not done again.
            known: Store it although it is enrolled under another name, such as that of a twin.

        Returns:
            The id of the new record.

        Raises:
            PhotoError, NoFaceFound: when the photo cannot be used; nothing was stored.
            AlreadyEnrolled: when the face matches another subject.
            BudgetSpent: when more would be released of the subject than the gallery's limit.
        """
        require_names(tenant, name)
        content = photo if isinstance(photo, bytes) else str(photo).encode()
        made, probe = self._protected(photo)
        row = made.rows()[0]
        self.refresh()

        with self.store.writing() as writer:

            def work() -> bytes:
                with self._lock:
                    hit = self._found(tenant, probe, but=self.store.uid(tenant, name))
                if hit is not None and not known:
                    raise AlreadyEnrolled(
                        "This face matches somebody who is enrolled under another name.",
                        hint="Check who it is; a twin is enrolled by saying so (--known, known=true).",
                    )
                writer.require_format(made.format.to_json())
                charge(writer, tenant, name, made.spent)
                [record] = writer.enrol(tenant, name, [row])
                writer.audit(actor, tenant, "enrol", of=writer.uid(tenant, name))
                return json.dumps({"record": record.hex()}).encode()

            request = b"\0".join((b"enrol", tenant.encode(), name.encode("utf-8", "surrogateescape"), content))
            answer = writer.once(actor, once, request, work) if once else work()
        self.refresh()
        found: dict[str, str] = json.loads(answer)
        return found

    def match(self, tenant: str, name: str, photo: PhotoSource, *, actor: str) -> bool:
        """Whether the face of a photo is a subject's: one bit, and no score.

        Raises:
            SubjectUnknown: when none is enrolled.
            PhotoError, NoFaceFound: when the photo cannot be used.
        """
        require_names(tenant, name)
        uid = self.store.uid(tenant, name)
        if uid is None:
            raise SubjectUnknown("Nobody of that name is enrolled.", hint="Check the name and the tenant.")
        probe = self._probe(photo)
        self.refresh()
        with self._lock:
            cosine = None if self._index is None else self._index.match(tenant, uid, probe)
        with self.store.writing() as writer:
            writer.audit(actor, tenant, "match", of=uid)
        return cosine is not None and cosine >= self.threshold

    def search(self, tenant: str, photo: PhotoSource, *, actor: str, force: bool = False) -> Answer:
        """Who the face of a photo is.

        Args:
            tenant: Whose gallery.
            photo: With one face.
            actor: Who asks, for the audit.
            force: Answer even where strangers would often be taken for somebody.

        Raises:
            TooMany: when a stranger would be taken for somebody with a probability above `MOST_FPIR`, or one that is
                not known.
            PhotoError, NoFaceFound: when the photo cannot be used.
        """
        require_names(tenant)
        self.refresh()
        with self._lock:
            count = 0 if self._index is None else self._index.count(tenant)
        rate = None if self.fmr is None else fpir(count, self.fmr)
        if not force and count > 1 and (rate is None or rate > MOST_FPIR):
            much = "an unknown share" if rate is None else f"{rate:.0%}"
            raise TooMany(
                f"Among {count} records, {much} of strangers would be taken for somebody.",
                hint="Compare with one subject, or force the search and check its answer.",
            )
        probe = self._probe(photo)
        with self._lock:
            hit = self._found(tenant, probe)
        with self.store.writing() as writer:
            writer.audit(actor, tenant, "search", outcome="forced" if force else "done")
        return Answer(None if hit is None else self.store.name(hit), rate, count)

    def revoke(self, tenant: str, name: str, grace: int, *, actor: str) -> int:
        """Let a subject match no more; its records are erased after so many seconds. Returns how many there were."""
        return self._changed(tenant, name, actor, "revoke", lambda writer: writer.revoke(tenant, name, grace))

    def restore(self, tenant: str, name: str, *, actor: str) -> int:
        """Undo `revoke` before its time is over; returns how many records match again."""
        return self._changed(tenant, name, actor, "restore", lambda writer: writer.restore(tenant, name))

    def renew(self, tenant: str, name: str, photo: PhotoSource | None = None, *, actor: str) -> int:
        """A new key for a subject, and with a photo a new record in place of all others; returns how many there are.

        Raises:
            SubjectUnknown: when none is enrolled.
            PhotoError, NoFaceFound: when the photo cannot be used; nothing was changed.
            BudgetSpent: when more would be released of the subject than the gallery's limit.
        """
        made = None if photo is None else self._protected(photo)[0]

        def work(writer: Writer) -> int:
            if made is None:
                return len(writer.renew(tenant, name))
            charge(writer, tenant, name, made.spent)
            return len(writer.renew(tenant, name, made.rows()))

        return self._changed(tenant, name, actor, "renew", work, destroys=True)

    def erase(self, tenant: str, name: str, *, actor: str) -> Erasure:
        """Delete a subject and destroy its key.

        Raises:
            SubjectUnknown: when none is enrolled.
            OutputError: when the disk refuses; nothing is said to be erased then.
        """
        require_names(tenant, name)
        with self.store.writing() as writer:
            uid = writer.uid(tenant, name)
            entry = writer.audit(actor, tenant, "erase", of=uid)
            writer.erase(tenant, name)
        with self._lock:
            if self._index is not None:
                self._index.remove(self._index.of(tenant, uid))
        done = self.store.finish()
        return Erasure("erased" if done else "pending", entry.number, entry.digest)

    def purge(self) -> int:
        """Erase what was revoked and whose grace is over, and finish what is pending; returns how many records."""
        with self.store.writing() as writer:
            erased = writer.purge()
            if erased:
                writer.audit("service", "", "purge")
        self.store.finish()
        return erased

    # Galleries in one file

    def export(self, tenant: str) -> Gallery:
        """A tenant's active records, as `bauta.gallery.write_gallery` seals them into one file.

        Raises:
            SubjectUnknown: when there are none.
        """
        require_names(tenant)
        form = self.store.format()
        rows, names, known = [], [], dict[bytes, str | None]()
        for batch in self.store.active():
            for one in batch:
                if one.tenant == tenant:
                    name = known.setdefault(one.uid, self.store.name(one.uid))
                    if name is not None:
                        rows.append(one.row)
                        names.append(name)
        if not rows or form is None:
            raise SubjectUnknown("There is nobody to export.", hint="Check the tenant.")
        return Gallery(Representation.from_rows(RowFormat.from_json(form), rows), tuple(names))

    def take(self, tenant: str, gallery: Gallery, *, actor: str) -> int:
        """Enrol the faces of a gallery in one file, under their names; returns how many.

        Raises:
            UsageError: when it is another recogniser's or protector's.
        """
        require_names(tenant)
        self.protector.require_own(gallery.representation)
        people: dict[str, list[memoryview]] = {}
        for name, row in zip(gallery.names, gallery.representation.rows(), strict=True):
            people.setdefault(name, []).append(row)
        with self.store.writing() as writer:
            writer.require_format(gallery.representation.format.to_json())
            for name, rows in people.items():
                charge(writer, tenant, name, gallery.representation.spent, len(rows))
            writer.enrol_many(tenant, list(people.items()))
            writer.audit(actor, tenant, "import")
        self.refresh()
        return len(gallery)

    # What it is made of

    def _changed(
        self, tenant: str, name: str, actor: str, action: str, work: Callable[..., int], *, destroys: bool = False
    ) -> int:
        require_names(tenant, name)
        with self.store.writing() as writer:
            uid = writer.uid(tenant, name)
            count = work(writer)
            writer.audit(actor, tenant, action, of=uid)
        if destroys or action == "restore":
            self.store.finish()
        self.refresh()
        return count

    def _protected(self, photo: PhotoSource) -> tuple[Representation, NDArray[np.float32]]:
        image = read_face(photo, self.quality, aligned=self.aligned)
        with self._networks, torch.no_grad():
            return self.protector.protect_anew(image), np.asarray(_numbers(self.protector.probe(image))[0])

    def _probe(self, photo: PhotoSource) -> NDArray[np.float32]:
        image = read_face(photo, self.quality, aligned=self.aligned)
        with self._networks, torch.no_grad():
            probe = _numbers(self.protector.probe(image))
        return np.asarray(probe[0])

    def _found(self, tenant: str, probe: NDArray[np.float32], *, but: bytes | None = None) -> bytes | None:
        hit = None if self._index is None else self._index.search(tenant, probe, but=but)
        return None if hit is None or hit.cosine < self.threshold else hit.uid

    def _take(self, batch: list[Found]) -> None:
        """Into the index: what is stored becomes templates, as the protector reads them."""
        if not batch:
            return
        form = RowFormat.from_json(self.store.format() or "")
        for start in range(0, len(batch), BATCH):
            part = batch[start : start + BATCH]
            with self._networks, torch.no_grad():
                made = Representation.from_rows(form, [one.row for one in part])
                templates = _numbers(self.protector.templates(made))
            by_tenant: dict[str, list[int]] = {}
            for place, one in enumerate(part):
                by_tenant.setdefault(one.tenant, []).append(place)
            with self._lock:
                if self._index is None:
                    self._index = Index(templates.shape[1])
                for tenant, places in by_tenant.items():
                    chosen = [part[place] for place in places]
                    self._index.add(tenant, [one.id for one in chosen], [one.uid for one in chosen], templates[places])


def _numbers(tensor: Tensor) -> NDArray[np.float32]:
    found = np.asarray(tensor.detach().cpu().float().numpy(), np.float32)
    if not np.isfinite(found).all():
        raise NumericalFailure("A template is not a number.", hint="Check the protector and the recogniser.")
    return found
