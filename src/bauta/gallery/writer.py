"""What is done to a store, inside one transaction of it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from bauta.errors import GalleryDamaged, OtherMaker, OtherRequest, SubjectUnknown
from bauta.gallery import tables
from bauta.gallery.sealing import RecordSealer, encode_name, new_id
from bauta.gallery.vault import Vault

_EDITED = "The database was edited: restore it from a backup."
DAY = 86_400
ANSWERS_KEPT = DAY  # seconds


@dataclass(frozen=True)
class Entry:
    """A line of the audit.

    Attributes:
        number: From 1 on, without gaps.
        at: Seconds since 1970; never less than in the line before.
        actor: Id of the key that asked, or who ran a command.
        tenant: Whose gallery.
        action: What was done.
        outcome: What came of it; not whether a face matched.
        trace: Of whom: the same for lines of one subject, until its key is renewed; it leads nowhere once that is gone.
        digest: Of this line and all before it, hexadecimal.
    """

    number: int
    at: int
    actor: str
    tenant: str
    action: str
    outcome: str
    trace: str
    digest: str


@dataclass(frozen=True)
class _Kept:
    id: bytes
    state: str
    created: int
    until: int
    row: bytes


class Writer:
    """One transaction; see `bauta.gallery.store.Store.writing`.

    Attributes:
        now: Seconds since 1970, and never less than the audit's last line: clocks that go back revive nothing.
    """

    def __init__(self, connection: Connection, vault: Vault, makers: tuple[bytes, bytes], now: float) -> None:
        self._connection, self._vault, self._makers = connection, vault, makers
        self._last = connection.execute(
            select(tables.audit).order_by(tables.audit.c.number.desc()).limit(1)
        ).one_or_none()
        self.now = max(int(now), self._last.at if self._last is not None else 0)
        self._revision: tuple[int, int] | None = None

    # Subjects

    def enrol(self, tenant: str, name: str, rows: Sequence[bytes | memoryview]) -> list[bytes]:
        """Store rows of a subject, who is new or has some already; returns their ids."""
        return self.enrol_many(tenant, [(name, rows)])[0][1]

    def enrol_many(
        self, tenant: str, people: Iterable[tuple[str, Sequence[bytes | memoryview]]]
    ) -> list[tuple[bytes, list[bytes]]]:
        """`enrol` for many; returns the uid of each, and the ids of the records."""
        people = list(people)
        tokens = [token_of(self._vault, tenant, name) for name, _ in people]
        there: dict[bytes, bytes] = {}
        for start in range(0, len(tokens), 500):
            part = tokens[start : start + 500]
            found = self._connection.execute(
                select(tables.subjects.c.token, tables.subjects.c.uid).where(tables.subjects.c.token.in_(part))
            )
            there.update((token, uid) for token, uid in found)
        keys = self._vault.some(there.values())
        for token in [token for token, uid in there.items() if uid not in keys]:  # erased, and restored from a backup
            self._drop(there.pop(token))
        fresh = dict.fromkeys(token for token in tokens if token not in there)
        for token, (uid, key) in zip(fresh, self._vault.take(len(fresh)) if fresh else [], strict=True):
            there[token], keys[uid] = uid, key
        revision, made, subjects, records = self._next_revision(), [], {}, []
        for token, (name, rows) in zip(tokens, people, strict=True):
            uid = there[token]
            sealer = self._sealer(keys[uid])
            if token in fresh and token not in subjects:
                subjects[token] = self._subject(uid, tenant, token, encode_name(name), sealer)
            ids = [new_id() for _ in rows]
            records += [
                self._record(sealer, token, uid, _Kept(one, "active", self.now, 0, bytes(row)), revision)
                for one, row in zip(ids, rows, strict=True)
            ]
            made.append((uid, ids))
        for table, values in ((tables.subjects, list(subjects.values())), (tables.records, records)):
            if values:
                self._connection.execute(table.insert(), values)
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
            kept = [_Kept(new_id(), "active", self.now, 0, bytes(row)) for row in rows]
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
        uid: bytes | None = self._connection.scalar(
            select(tables.subjects.c.uid).where(tables.subjects.c.token == token)
        )
        if uid is None or self._vault.get(uid) is None:
            raise SubjectUnknown("Nobody of that name is enrolled.", hint="Check the name and the tenant.")
        return uid

    def _turn(self, tenant: str, name: str, state: str, to: str, until: int) -> int:
        uid = self.uid(tenant, name)
        token, key, revision = (
            token_of(self._vault, tenant, name),
            self._key(uid),
            self._next_revision(removes=to != "active"),
        )
        kept = [one for one in self._kept(uid) if one.state == state]
        for one in kept:
            turned = _Kept(one.id, to, one.created, until, one.row)
            values = self._record(self._sealer(key), token, uid, turned, revision)
            self._connection.execute(update(tables.records).where(tables.records.c.id == one.id).values(values))
        return len(kept)

    def _rekey(self, uid: bytes, kept: list[_Kept]) -> None:
        """What stays of a subject goes under a new key, or the subject goes where nothing stays."""
        if not kept:
            self._drop(uid)
            return
        row = self._connection.execute(select(tables.subjects).where(tables.subjects.c.uid == uid)).one()
        old = self._sealer(self._key(uid))
        name = old.open(old.header(uid, bound(row.token, "name")), row.name)
        [(new_uid, key)] = self._vault.take()
        sealer, revision = self._sealer(key), self._next_revision()
        self._drop(uid)
        subject = self._subject(new_uid, row.tenant, row.token, name, sealer)
        self._connection.execute(tables.subjects.insert(), [subject])
        values = [self._record(sealer, row.token, new_uid, one, revision) for one in kept]
        self._connection.execute(tables.records.insert(), values)

    def _drop(self, uid: bytes) -> None:
        self._next_revision(removes=True)
        self._connection.execute(delete(tables.records).where(tables.records.c.uid == uid))
        self._connection.execute(delete(tables.subjects).where(tables.subjects.c.uid == uid))
        self._connection.execute(tables.shed.insert(), [{"uid": uid}])

    def _kept(self, uid: bytes) -> list[_Kept]:
        token = self._connection.scalar(select(tables.subjects.c.token).where(tables.subjects.c.uid == uid)) or b""
        sealer, kept = self._sealer(self._key(uid)), []
        for row in self._connection.execute(select(tables.records).where(tables.records.c.uid == uid)):
            header = sealer.header(row.id, bound(token, row.state, row.until))
            kept.append(_Kept(row.id, row.state, row.created, row.until, sealer.open(header, row.sealed)))
        return kept

    def _key(self, uid: bytes) -> bytes:
        key = self._vault.get(uid)
        if key is None:
            raise SubjectUnknown("That subject is erased.", hint="Enrol it again.")
        return key

    def _sealer(self, key: bytes) -> RecordSealer:
        return RecordSealer(key, self._vault.gallery, *self._makers)

    def _subject(self, uid: bytes, tenant: str, token: bytes, name: bytes, sealer: RecordSealer) -> dict[str, object]:
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
            "sealed": sealed,
        }

    # What the store knows of itself

    def require_format(self, form: str) -> None:
        """Keep the format of the first row, and let no other through.

        Raises:
            OtherMaker: when it differs.
        """
        found = self.format()
        if found is None:
            value = signed(self._vault, "format", form.encode())
            self._connection.execute(tables.about.insert(), [{"name": "format", "value": value}])
        elif found != form:
            raise OtherMaker(
                "The protector stores rows of another form than this gallery holds.",
                hint="Use the protector it was made with.",
            )

    def format(self) -> str | None:
        """The format of the rows; None before the first."""
        value = self._connection.scalar(select(tables.about.c.value).where(tables.about.c.name == "format"))
        return None if value is None else unsigned(self._vault, "format", value).decode()

    def _next_revision(self, *, removes: bool = False) -> int:
        """Number of this change, for all of it; what removes records is counted apart, so that others look for them."""
        if self._revision is None or (removes and self._revision[0] != self._revision[1]):
            value = self._connection.scalar(select(tables.about.c.value).where(tables.about.c.name == "revision"))
            now, removed = revisions(unsigned(self._vault, "revision", value or b""))
            now = now + 1 if self._revision is None else now
            self._revision = (now, now if removes else removed)
            again = signed(self._vault, "revision", " ".join(map(str, self._revision)).encode())
            self._connection.execute(update(tables.about).where(tables.about.c.name == "revision").values(value=again))
        return self._revision[0]

    # The audit

    def audit(self, actor: str, tenant: str, action: str, *, of: bytes | None = None, outcome: str = "done") -> Entry:
        """Add a line.

        Args:
            actor: Id of the key that asked, or who ran a command.
            tenant: Whose gallery.
            action: What was done.
            of: Id of the subject; what is kept of it is a keyed hash under the subject's own key.
            outcome: What came of it.
        """
        key = None if of is None else self._vault.get(of)
        trace = "" if key is None else hmac.digest(key, b"bauta audit", "sha256")[:16].hex()
        number = 1 if self._last is None else self._last.number + 1
        line = {
            "number": number,
            "at": self.now,
            "actor": actor,
            "tenant": tenant,
            "action": action,
            "outcome": outcome,
            "trace": trace,
        }
        digest = self._link(b"" if self._last is None else self._last.digest, line)
        self._connection.execute(tables.audit.insert(), [{**line, "digest": digest}])
        self._last = self._connection.execute(select(tables.audit).where(tables.audit.c.number == number)).one()
        return Entry(**line, digest=digest.hex())  # type: ignore[arg-type]

    def entries(self, tenant: str | None, after: int = 0, most: int = 100) -> list[Entry]:
        """Lines of a tenant, or of all, after a number."""
        query = select(tables.audit).where(tables.audit.c.number > after).order_by(tables.audit.c.number).limit(most)
        if tenant is not None:
            query = query.where(tables.audit.c.tenant == tenant)
        rows = self._connection.execute(query)
        return [Entry(**{**row._asdict(), "digest": row.digest.hex()}) for row in rows]

    def audit_problems(self) -> list[str]:
        """What is wrong with the audit: the first line that was changed, is missing or was put in."""
        before = b""
        rows = self._connection.execute(select(tables.audit).order_by(tables.audit.c.number))
        for number, row in enumerate(rows, 1):
            line = {name: value for name, value in row._asdict().items() if name != "digest"}
            if row.number != number or not hmac.compare_digest(self._link(before, line), row.digest):
                return [f"Line {number} of the audit was changed, or lines before it are missing."]
            before = row.digest
        return []

    def _link(self, before: bytes, line: dict[str, object]) -> bytes:
        return hmac.digest(self._vault.audit, before + json.dumps(line, sort_keys=True).encode(), "sha256")

    # Requests that are sent twice

    def once(self, actor: str, key: str, request: bytes, work: Callable[[], bytes]) -> bytes:
        """The answer to a request that may be sent again: it is worked on once.

        Args:
            actor: Who asks.
            key: That the caller drew for this request.
            request: What is asked, to tell when a key is used for another.
            work: What makes the answer, which is kept for a day and must name nobody.

        Raises:
            OtherRequest: when the key was used for another.
        """
        token = hmac.digest(self._vault.answers, f"{actor}\0{key}".encode(), "sha256")
        digest = hmac.digest(self._vault.answers, hashlib.sha256(request).digest(), "sha256")
        self._connection.execute(delete(tables.answers).where(tables.answers.c.at < self.now - ANSWERS_KEPT))
        row = self._connection.execute(select(tables.answers).where(tables.answers.c.token == token)).one_or_none()
        if row is not None:
            if not hmac.compare_digest(row.request, digest):
                raise OtherRequest(
                    "This idempotency key was used for another request.", hint="Draw a new one for each request."
                )
            return bytes(row.answer)
        answer = work()
        values = {"token": token, "request": digest, "at": self.now, "answer": answer}
        self._connection.execute(tables.answers.insert(), [values])
        return answer

    # Keys of the service

    def add_key(self, ident: str, digest: bytes, tenant: str, scopes: str, expires: int) -> None:
        """Keep what tells a key of the service, which is not the key."""
        values = {
            "id": ident,
            "digest": digest,
            "tenant": tenant,
            "scopes": scopes,
            "created": self.now,
            "expires": expires,
        }
        self._connection.execute(tables.api_keys.insert(), [values])

    def remove_key(self, ident: str) -> bool:
        """Forget a key of the service; False where there was none."""
        found = self._connection.scalar(select(func.count()).where(tables.api_keys.c.id == ident))
        self._connection.execute(delete(tables.api_keys).where(tables.api_keys.c.id == ident))
        return bool(found)


def token_of(vault: Vault, tenant: str, name: str) -> bytes:
    """What a subject is found by: a keyed hash of tenant and name, 32 bytes."""
    return hmac.digest(vault.tokens, tenant.encode() + b"\0" + encode_name(name), "sha256")


def revisions(value: bytes) -> tuple[int, int]:
    """Number of the last change, and of the last that removed records."""
    now, removed = map(int, value.split())
    return now, removed


def bound(token: bytes, state: str, until: int = 0) -> str:
    """What a record, or a name, is bound to beside its header: it stands for the name there."""
    return f"{token.hex()} {state} {until}"


def key_digest(vault: Vault, key: str, tenant: str, scopes: str, expires: int) -> bytes:
    """What is kept of a key of the service: of its SHA-256 and its rights, so that neither can be edited."""
    about = json.dumps([tenant, scopes, expires]).encode()
    return hmac.digest(vault.audit, b"api key" + hashlib.sha256(key.encode()).digest() + about, "sha256")


def signed(vault: Vault, name: str, value: bytes) -> bytes:
    """A value that the store keeps of itself, and 32 bytes before it that authenticate it."""
    return hmac.digest(vault.audit, b"about " + name.encode() + b"\0" + vault.gallery + value, "sha256") + value


def unsigned(vault: Vault, name: str, content: bytes) -> bytes:
    """What `signed` signed.

    Raises:
        GalleryDamaged: when it was changed, or is another gallery's.
    """
    value = content[32:]
    if not hmac.compare_digest(signed(vault, name, value), content):
        raise GalleryDamaged("The gallery was edited, or these are not its keys.", hint=_EDITED)
    return value
