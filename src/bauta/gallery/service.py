"""A face service in one process: photos in, decisions out; what is between is a store, an index and a protector."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bauta.errors import AlreadyEnrolled, GalleryError, OtherMaker, SubjectUnknown, TooMany, UsageError
from bauta.gallery.budgets import charge
from bauta.gallery.enrol import Gallery
from bauta.gallery.index import Index
from bauta.gallery.makers import Maker
from bauta.gallery.opening import opened
from bauta.gallery.quality import Quality, read_face
from bauta.gallery.reader import Found
from bauta.gallery.shards import AnyIndex
from bauta.gallery.sides import Side
from bauta.gallery.store import Store, require_names
from bauta.gallery.writer import Writer
from bauta.photo import PhotoSource
from bauta.rates import fpir
from bauta.templates.base import Protector
from bauta.templates.representation import Representation, RowFormat

MOST_FPIR = 0.05
"""Above it, a search is refused unless it is forced."""


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
        protector: That makes its records.
        former: That made them before a migration; needed while some of those wait for new photos.
        fmr: False match rate of a comparison: 1e-2, 1e-3 or 1e-4.
        threshold: Decide from this cosine on, instead of at `fmr`.
        former_threshold: The same, for records of `former`.
        quality: Which photos are good enough.
        aligned: Photos are aligned crops of 112x112 pixels.
        index: Makes what is searched, of `bauta.gallery.indexes.index_maker`.

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
        former: Protector | None = None,
        fmr: float = 1e-4,
        threshold: float | None = None,
        former_threshold: float | None = None,
        quality: Quality | None = None,
        aligned: bool = False,
        index: Callable[[int], AnyIndex] = Index,
    ) -> None:
        store.maker.require(maker_of(protector))
        self.store, self.protector = store, protector
        self.side = Side(protector, fmr=fmr, threshold=threshold, index=index)
        self._sides = {len(store.makers) - 1: self.side}
        if former is not None:
            if len(store.makers) < 2:
                raise UsageError("This gallery was never migrated.", hint="Leave --former out.")
            store.makers[-2].require(maker_of(former))
            self._sides[len(store.makers) - 2] = Side(former, fmr=fmr, threshold=former_threshold, index=index)
        self.quality, self.aligned, self.ready = quality or Quality(), aligned, False
        self._lock = threading.RLock()
        self._revision = -1

    def load(self) -> int:
        """Take all records into memory, and return how many; what a crash or a restored backup left is tidied first.

        Raises:
            OtherMaker: when records of a former protector wait for new photos, and it was not given.
        """
        self.require_former()
        self.store.forget_erased()
        self.purge()
        self.refresh()
        self.ready = True
        return sum(len(side.index) for side in self._sides.values() if side.index is not None)

    def require_former(self) -> None:
        """Let through who gave the former protector, or does not need it.

        Raises:
            OtherMaker: when what it made still matches people who wait for new photos.
        """
        waiting = self.store.stats()["waiting"]
        if waiting and len(self._sides) == 1:
            name = self.store.makers[-2].protector
            raise OtherMaker(
                f"Still waiting for new photos: {waiting}. What is stored of them was made by {name!r}.",
                hint="Give it with --former, or erase what it made: `bauta gallery migrate --finish`.",
            )

    def refresh(self) -> None:
        """Take in what was written since: the index is what the store holds, whoever wrote it."""
        with self._lock:
            self._mend()
            revision, removed = self.store.revision()
            if revision == self._revision:
                return
            first = self._revision < 0
            for batch in opened(self.store) if first else self.store.active(since=self._revision):
                self._take(batch)
            if not first and removed > self._revision:
                there = self.store.ids()
                for side in self._sides.values():
                    if side.index is not None:
                        side.index.remove(side.index.ids() - there)
            self._revision = revision

    def _mend(self) -> None:
        """Take in again what was in processes that ended."""
        for maker, side in self._sides.items():
            if side.index is None:
                continue
            with side.index.restarted() as lost:
                for batch in opened(self.store) if lost else ():
                    self._take([one for one in batch if one.maker == maker and lost and lost(one.uid)])

    def close(self) -> None:
        """Let go of store and index."""
        for side in self._sides.values():
            if side.index is not None:
                side.index.close()
        self.store.close()

    def _take(self, batch: list[Found]) -> None:
        for maker, side in self._sides.items():
            part = [one for one in batch if one.maker == maker]
            if part:
                side.take(self.store.format(maker) or "", part, self._lock)

    def count(self, tenant: str) -> int:
        """Records of a tenant that are compared in a search."""
        with self._lock:
            return sum(side.count(tenant) for side in self._sides.values())

    def fpir(self, tenant: str) -> float | None:
        """The probability that a search takes a stranger for somebody; None where a threshold was given by hand."""
        if any(side.fmr is None for side in self._sides.values()):
            return None
        return fpir(self.count(tenant), max(side.fmr or 0.0 for side in self._sides.values()))

    def sides(self) -> list[Side]:
        """What makes records now, and what made them before a migration."""
        return list(self._sides.values())

    # What is asked

    def enrol(self, tenant: str, name: str, photo: PhotoSource, *, actor: str, once: str = "",
              known: bool = False) -> dict[str, str]:  # fmt: skip
        """Store the face of a photo. What a former protector made of this subject leaves.

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
        image = self._image(photo)
        made, probes = self.side.protected(image), self._probes(image)
        row = made.rows()[0]
        self.refresh()

        with self.store.writing() as writer:

            def work() -> bytes:
                own = self.store.uid(tenant, name)
                with self._lock:
                    taken = any(side.found(tenant, probe, but=own) is not None for side, probe in probes)
                if taken and not known:
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
        if writer.dropped:
            self.store.finish()
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
        seen, uid = self._revision, self.store.uid(tenant, name)
        if uid is None:
            raise SubjectUnknown("Nobody of that name is enrolled.", hint="Check the name and the tenant.")
        probes = self._probes(self._image(photo))
        self.refresh()
        if self._revision != seen:  # it may have been renewed meanwhile
            uid = self.store.uid(tenant, name) or uid
        with self._lock:
            matches = any(side.matches(tenant, uid, probe) for side, probe in probes)
        with self.store.writing() as writer:
            writer.audit(actor, tenant, "match", of=uid)
        return matches

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
        count, rate = self.count(tenant), self.fpir(tenant)
        if not force and count > 1 and (rate is None or rate > MOST_FPIR):
            much = "an unknown share" if rate is None else f"{rate:.0%}"
            raise TooMany(
                f"Among {count} records, {much} of strangers would be taken for somebody.",
                hint="Compare with one subject, or force the search and check its answer.",
            )
        probes = self._probes(self._image(photo))
        with self._lock:
            hits = [hit for side, probe in probes if (hit := side.found(tenant, probe)) is not None]
        with self.store.writing() as writer:
            writer.audit(actor, tenant, "search", outcome="forced" if force else "done")
        return Answer(self.store.name(hits[0]) if hits else None, rate, count)

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
        made = None if photo is None else self.side.protected(self._image(photo))

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
        with self._lock, suppress(GalleryError):  # in a process that ended: it is filled anew, without this subject
            for side in self._sides.values():
                if side.index is not None:
                    side.index.remove(side.index.of(tenant, uid))
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

    # Galleries in one file; they are of the protector that makes records now

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
                if one.tenant == tenant and one.maker == len(self.store.makers) - 1:
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
        if writer.dropped:
            self.store.finish()
        if self.ready:
            self.refresh()
        return len(gallery)

    # What it is made of

    def _image(self, photo: PhotoSource) -> Tensor:
        return read_face(photo, self.quality, aligned=self.aligned)

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

    def _probes(self, image: Tensor) -> list[tuple[Side, NDArray[np.float32]]]:
        # The side that makes records now comes first.
        return [(side, side.probe(image)) for side in self._sides.values()]
