"""What is done to a store, inside one transaction of it."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection, bindparam, delete, func, select, update

from bauta.errors import GalleryDamaged, OtherMaker, SubjectUnknown, UsageError
from bauta.gallery import tables
from bauta.gallery.journal import EDITED, Journal, signed
from bauta.gallery.makers import Maker
from bauta.gallery.sealing import RecordSealer, encode_name, new_id, new_ids
from bauta.gallery.vault import Vault

_UID = select(tables.subjects.c.uid).where(tables.subjects.c.token == bindparam("which"))
_UIDS = select(tables.subjects.c.token, tables.subjects.c.uid).where(
    tables.subjects.c.token.in_(bindparam("which", expanding=True))
)
_SUBJECT = select(tables.subjects).where(tables.subjects.c.uid == bindparam("which"))
_RECORDS = select(tables.records).where(tables.records.c.uid == bindparam("which"))
_ADD_SUBJECT, _ADD_RECORD = tables.subjects.insert(), tables.records.insert()
_SET_ABOUT = update(tables.about).where(tables.about.c.name == bindparam("which")).values(value=bindparam("now"))


@dataclass(frozen=True)
class _Kept:
    id: bytes
    state: str
    created: int
    until: int
    row: bytes
    maker: int


class Writer(Journal):
    """One transaction; see `bauta.gallery.store.Store.writing`.

    Args:
        connection: In the transaction.
        vault: The store's.
        makers: Of its records, the one that makes them now last.
        now: Seconds since 1970.

    Attributes:
        dropped: Whether something was deleted: then `Store.finish` destroys keys, after the transaction.
    """

    def __init__(self, connection: Connection, vault: Vault, makers: Sequence[Maker], now: float) -> None:
        super().__init__(connection, vault, now)
        self._makers, self._maker = makers, len(makers) - 1
        self._revision: tuple[int, int] | None = None
        self.dropped = False

    # Subjects

    def enrol(self, tenant: str, name: str, rows: Sequence[bytes | memoryview]) -> list[bytes]:
        """Store rows of a subject, who is new or has some already; returns their ids.

        Records that a former maker made, before a migration, leave: these take their place.
        """
        return self.enrol_many(tenant, [(name, rows)])[0][1]

    def enrol_many(
        self, tenant: str, people: Iterable[tuple[str, Sequence[bytes | memoryview]]]
    ) -> list[tuple[bytes, list[bytes]]]:
        """`enrol` for many; returns the uid of each, and the ids of the records."""
        people = list(people)
        tokens = [token_of(self._vault, tenant, name) for name, _ in people]
        there = self._there(tokens)
        keys = self._vault.some(there.values())
        for token in [token for token, uid in there.items() if uid not in keys]:  # erased, and restored from a backup
            self._drop(there.pop(token))
        revision, waiting = self._next_revision(), self._waiting(there.values())
        fresh = dict.fromkeys(token for token in tokens if token not in there)
        for token, (uid, key) in zip(fresh, self._vault.take(len(fresh)) if fresh else [], strict=True):
            there[token], keys[uid] = uid, key
        made, subjects, records = [], {}, []
        spare = iter(new_ids(sum(len(rows) for _, rows in people)))
        for token, (name, rows) in zip(tokens, people, strict=True):
            new = [_Kept(next(spare), "active", self.now, 0, bytes(row), self._maker) for row in rows]
            ids = [one.id for one in new]
            if new and there[token] in waiting:
                kept = [one for one in self._kept(there[token]) if one.maker == self._maker]
                rekeyed = self._rekey(there[token], kept + new)
                assert rekeyed is not None
                there[token], keys[rekeyed[0]] = rekeyed[0], rekeyed[1]
            else:
                uid = there[token]
                sealer = self._sealer(keys[uid])
                if token in fresh and token not in subjects:
                    first = self._sealer(keys[uid], 0) if self._maker else sealer
                    subjects[token] = self._subject(uid, tenant, token, encode_name(name), first)
                records += [self._record(sealer, token, uid, one, revision) for one in new]
            made.append((there[token], ids))
        for statement, values in ((_ADD_SUBJECT, list(subjects.values())), (_ADD_RECORD, records)):
            if values:
                self._connection.execute(statement, values)
        return made

    def revoke(self, tenant: str, name: str, grace: int) -> int:
        """Let a subject's records match no more; they are erased after so many seconds, and `restore` undoes it before.

        Returns:
            How many there were.

        Raises:
            SubjectUnknown: when none is enrolled.
        """
        return self._turn(tenant, name, "active", "revoked", self.now + max(grace, 0))

    def restore(self, tenant: str, name: str) -> int:
        """Undo `revoke` for what is not erased yet; returns how many."""
        self.purge(name=(tenant, name))
        return self._turn(tenant, name, "revoked", "active", 0)

    def renew(self, tenant: str, name: str, rows: Sequence[bytes | memoryview] = ()) -> list[bytes]:
        """Seal a subject under a new key, and destroy the old one.

        Args:
            tenant: Whose.
            name: Of the subject.
            rows: What is stored from now on; without, the records stay, and their ids.

        Returns:
            Ids of the records.

        Raises:
            SubjectUnknown: when none is enrolled.
        """
        uid = self.uid(tenant, name)
        kept = self._kept(uid)
        if rows:
            kept = [_Kept(new_id(), "active", self.now, 0, bytes(row), self._maker) for row in rows]
        self._rekey(uid, kept)
        return [one.id for one in kept]

    def erase(self, tenant: str, name: str) -> None:
        """Delete a subject. `Store.finish`, after this transaction, destroys the key.

        Raises:
            SubjectUnknown: when none is enrolled.
        """
        self._drop(self.uid(tenant, name))

    def purge(self, *, name: tuple[str, str] | None = None) -> int:
        """Erase what was revoked and whose grace is over, of all or of one subject; returns how many records."""
        query = select(tables.records.c.uid).where(tables.records.c.until > 0, tables.records.c.until <= self.now)
        if name is not None:
            query = query.where(tables.records.c.uid == self.uid(*name))
        uids, erased = sorted(set(self._connection.scalars(query))), 0
        for uid in uids:
            if self._vault.get(uid) is None:
                self._drop(uid)
                continue
            before = self._kept(uid)
            kept = [one for one in before if not 0 < one.until <= self.now]
            erased += len(before) - len(kept)
            self._rekey(uid, kept)
        return erased

    def uid(self, tenant: str, name: str) -> bytes:
        """The id of a subject.

        Raises:
            SubjectUnknown: when none is enrolled.
        """
        token = token_of(self._vault, tenant, name)
        uid: bytes | None = self._connection.scalar(_UID, {"which": token})
        if uid is None or self._vault.get(uid) is None:
            raise SubjectUnknown("Nobody of that name is enrolled.", hint="Check the name and the tenant.")
        return uid

    def migrate(self, maker: Maker) -> None:
        """From now on records are made by another recogniser or protector; those that are there wait for new photos.

        Raises:
            UsageError: when it is the one that makes them now, or records still wait from a migration before.
        """
        if maker == self._makers[-1]:
            raise UsageError("The gallery is of this recogniser and protector already.", hint="Give another one.")
        if self.former():
            raise UsageError(
                "Records of an earlier migration still wait for new photos.",
                hint="Enrol those people again, or erase their old records: `bauta gallery migrate --finish`.",
            )
        makers = [*self._makers, maker]
        self._set("store", about_store(makers))
        self._next_revision()
        assert self._revision is not None
        self._set("revision", _numbers(*self._revision, len(makers)))

    def former(self) -> int:
        """How many records a former maker made."""
        if not self._maker:
            return 0
        count = self._connection.scalar(
            select(func.count()).select_from(tables.records).where(tables.records.c.maker < self._maker)
        )
        return int(count or 0)

    def drop_former(self) -> tuple[int, int]:
        """Erase what former makers made; returns how many records, and how many subjects had nothing else."""
        before, subjects = self.former(), 0
        query = select(tables.records.c.uid).where(tables.records.c.maker < self._maker).distinct()
        for uid in sorted(self._connection.scalars(query)):
            kept = [] if self._vault.get(uid) is None else self._kept(uid)
            subjects += self._rekey(uid, [one for one in kept if one.maker == self._maker]) is None
        return before, subjects

    def _there(self, tokens: Sequence[bytes]) -> dict[bytes, bytes]:
        if len(tokens) == 1:
            uid = self._connection.scalar(_UID, {"which": tokens[0]})
            return {} if uid is None else {tokens[0]: uid}
        found: dict[bytes, bytes] = {}
        for start in range(0, len(tokens), 500):
            rows = self._connection.execute(_UIDS, {"which": tokens[start : start + 500]})
            found.update((token, uid) for token, uid in rows)
        return found

    def _waiting(self, uids: Iterable[bytes]) -> set[bytes]:
        """Those of these subjects that have records of a former maker."""
        wanted, found = list(uids) if self._maker else [], set[bytes]()
        for start in range(0, len(wanted), 500):
            query = select(tables.records.c.uid).where(tables.records.c.uid.in_(wanted[start : start + 500]))
            found.update(self._connection.scalars(query.where(tables.records.c.maker < self._maker)))
        return found

    def _turn(self, tenant: str, name: str, state: str, to: str, until: int) -> int:
        uid = self.uid(tenant, name)
        token, key = token_of(self._vault, tenant, name), self._key(uid)
        revision = self._next_revision(removes=to != "active")
        kept = [one for one in self._kept(uid) if one.state == state]
        for one in kept:
            turned = replace(one, state=to, until=until)
            values = self._record(self._sealer(key, one.maker), token, uid, turned, revision)
            self._connection.execute(update(tables.records).where(tables.records.c.id == one.id).values(values))
        return len(kept)

    def _rekey(self, uid: bytes, kept: list[_Kept]) -> tuple[bytes, bytes] | None:
        """What stays of a subject goes under a new id and key, returned; the subject goes where nothing stays."""
        if not kept:
            self._drop(uid)
            return None
        row = self._connection.execute(_SUBJECT, {"which": uid}).one()
        old = self._sealer(self._key(uid), 0)
        name = old.open(old.header(uid, bound(row.token, "name")), row.name)
        [(new_uid, key)] = self._vault.take()
        revision = self._next_revision()
        self._drop(uid)
        self._connection.execute(
            _ADD_SUBJECT, [self._subject(new_uid, row.tenant, row.token, name, self._sealer(key, 0))]
        )
        values = [self._record(self._sealer(key, one.maker), row.token, new_uid, one, revision) for one in kept]
        self._connection.execute(_ADD_RECORD, values)
        return new_uid, key

    def _drop(self, uid: bytes) -> None:
        self._next_revision(removes=True)
        self._connection.execute(delete(tables.records).where(tables.records.c.uid == uid))
        self._connection.execute(delete(tables.subjects).where(tables.subjects.c.uid == uid))
        self._connection.execute(tables.shed.insert(), [{"uid": uid}])
        self.dropped = True

    def _kept(self, uid: bytes) -> list[_Kept]:
        subject, key = self._connection.execute(_SUBJECT, {"which": uid}).one_or_none(), self._key(uid)
        token, kept = b"" if subject is None else subject.token, []
        for row in self._connection.execute(_RECORDS, {"which": uid}):
            sealer = self._sealer(key, row.maker)
            header = sealer.header(row.id, bound(token, row.state, row.until))
            content = sealer.open(header, row.sealed)
            kept.append(_Kept(row.id, row.state, row.created, row.until, content, row.maker))
        return kept

    def _key(self, uid: bytes) -> bytes:
        key = self._vault.get(uid)
        if key is None:
            raise SubjectUnknown("That subject is erased.", hint="Enrol it again.")
        return key

    def _sealer(self, key: bytes, maker: int | None = None) -> RecordSealer:
        if maker is not None and not 0 <= maker <= self._maker:
            raise GalleryDamaged("A record names a maker that this gallery never had.", hint=EDITED)
        return RecordSealer(key, self._vault.gallery, *self._makers[self._maker if maker is None else maker].digests)

    def _subject(self, uid: bytes, tenant: str, token: bytes, name: bytes, sealer: RecordSealer) -> dict[str, object]:
        # A name has no maker: its sealer is that of the store's first one, for good.
        sealed = sealer.seal(sealer.header(uid, bound(token, "name")), name)
        return {"uid": uid, "tenant": tenant, "token": token, "name": sealed}

    def _record(self, sealer: RecordSealer, token: bytes, uid: bytes, one: _Kept, revision: int) -> dict[str, object]:
        sealed = sealer.seal(sealer.header(one.id, bound(token, one.state, one.until)), one.row)
        return {
            "id": one.id,
            "uid": uid,
            "state": one.state,
            "created": one.created,
            "until": one.until,
            "revision": revision,
            "maker": one.maker,
            "sealed": sealed,
        }

    # What the store knows of itself

    def require_format(self, form: str) -> None:
        """Keep the format of the first row that this maker made, and let no other through.

        Raises:
            OtherMaker: when it differs.
        """
        found = self.format()
        if found is None:
            name = _format_of(self._maker)
            value = signed(self._vault, name, form.encode())
            self._connection.execute(tables.about.insert(), [{"name": name, "value": value}])
        elif found != form:
            raise OtherMaker(
                "The protector stores rows of another form than this gallery holds.",
                hint="Use the protector it was made with.",
            )

    def format(self, maker: int | None = None) -> str | None:
        """The format of the rows that a maker made, the last by default; None before the first."""
        value = self.about(_format_of(self._maker if maker is None else maker))
        return None if value is None else value.decode()

    def _set(self, name: str, value: bytes) -> None:
        self._connection.execute(_SET_ABOUT, {"which": name, "now": signed(self._vault, name, value)})

    def _next_revision(self, *, removes: bool = False) -> int:
        """Number of this change, for all of it; what removes records is counted apart, so that others look for them."""
        if self._revision is None or (removes and self._revision[0] != self._revision[1]):
            now, removed, makers = revisions(self.about("revision"))
            require_makers(makers, self._makers)
            now = now + 1 if self._revision is None else now
            self._revision = (now, now if removes else removed)
            self._set("revision", _numbers(*self._revision, makers))
        return self._revision[0]


def about_store(makers: Sequence[Maker]) -> bytes:
    """What a store says of itself."""
    return json.dumps({"schema": tables.SCHEMA, "makers": [asdict(one) for one in makers]}, sort_keys=True).encode()


def require_makers(count: int, makers: Sequence[Maker]) -> None:
    """Let processes through that know who makes the records of a store.

    Raises:
        OtherMaker: when it was migrated since this process opened it.
    """
    if count != len(makers):
        raise OtherMaker(
            "The gallery was moved to another recogniser or protector meanwhile.",
            hint="Start again, with the new one as --protector and the old one as --former.",
        )


def token_of(vault: Vault, tenant: str, name: str) -> bytes:
    """What a subject is found by: a keyed hash of tenant and name, 32 bytes."""
    return hmac.digest(vault.tokens, tenant.encode() + b"\0" + encode_name(name), "sha256")


def revisions(value: bytes | None) -> tuple[int, int, int]:
    """Number of the last change, of the last that removed records, and how many makers the store has had.

    Raises:
        GalleryDamaged: when it is not there.
    """
    if value is None:
        raise GalleryDamaged("The gallery does not say how often it was changed.", hint=EDITED)
    now, removed, *makers = map(int, value.split())
    return now, removed, makers[0] if makers else 1


def bound(token: bytes, state: str, until: int = 0) -> str:
    """What a record, or a name, is bound to beside its header: it stands for the name there."""
    return f"{token.hex()} {state} {until}"


def _numbers(*numbers: int) -> bytes:
    return " ".join(map(str, numbers)).encode()


def _format_of(maker: int) -> str:
    return f"format {maker}" if maker else "format"
