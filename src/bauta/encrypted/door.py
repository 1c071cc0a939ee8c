"""The door's side: it holds the probe and the secret key, and learns one bit, or one place."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.encrypted.comparison import Mode, Side, opened, plan
from bauta.encrypted.encoded import BLOCK, seal_change, seal_groups
from bauta.encrypted.exchange import Address, compare, connect, session_of
from bauta.encrypted.kernel import in_parts
from bauta.encrypted.keys import DoorKey
from bauta.encrypted.messages import (
    HELLO,
    LARGEST_GALLERY,
    MOST_PROBES,
    PLACES,
    WISHES,
    Ask,
    Deployment,
    Facts,
    Role,
    Wish,
)
from bauta.encrypted.packing import RESIDUE, Layout
from bauta.encrypted.parameters import DEGREE, PRIMES
from bauta.encrypted.quantisation import Templates, quantise
from bauta.encrypted.triples import Tapes
from bauta.encrypted.wire import Kind, Link, nonce
from bauta.errors import PeerError, UsageError


@dataclass(frozen=True)
class Match:
    """What one probe learns.

    Attributes:
        found: Whether somebody matches; with ``verify``, whether that one does.
        place: With ``identify``, of the first who does.
    """

    found: bool
    place: int | None = None


class Door:
    """A conversation with a server; a context manager.

    Args:
        key: The door's.
        link: To the server, before a word was said.
        tapes: The door's, of the dealer.

    Attributes:
        facts: What the server says of itself.
        link: With the bytes that were sent and received.
    """

    def __init__(self, key: DoorKey, link: Link, tapes: Tapes) -> None:
        self._key, self.link, self._tapes, self._asked = key, link, tapes, 0
        hello = HELLO.pack(key.id, nonce(), Role.DOOR)
        link.send(Kind.HELLO, hello)
        welcome = link.receive(Kind.WELCOME, Facts.SIZE)
        self.facts = Facts.from_bytes(welcome)
        link.begin(hello + welcome, caller=True)

    @classmethod
    def connected(
        cls,
        key: DoorKey,
        address: Address,
        tapes: Tapes,
        *,
        tls: ssl.SSLContext | None = None,
        patience: float = 60.0,
    ) -> Self:
        """A conversation over TCP.

        Raises:
            PeerError: when there is no server, or it has other keys.
        """
        link = Link(connect(address, tls, patience=patience), key.server, patience=patience)
        try:
            return cls(key, link, tapes)
        except BaseException:
            link.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.link.close()

    def ask(self, probes: ArrayLike, mode: Mode = "exists", *, place: int = 0) -> list[Match]:
        """Compare faces with the server's gallery.

        Args:
            probes: (Q, D) embeddings of unit norm, at most 64; together they cost little more than one.
            mode: ``exists``: does anybody match; ``identify``: who is the first; ``verify``: does this one.
            place: Whose, with ``verify``.

        Returns:
            One for each probe.

        Raises:
            UsageError: when probes have another form, another norm or another dimension than the gallery.
            PeerError: when the server refuses, or anything else than the protocol comes back: nothing was decided.
        """
        return self.ask_quantised(quantise(probes), mode, place=place)

    def ask_quantised(self, templates: Templates, mode: Mode = "exists", *, place: int = 0) -> list[Match]:
        """See `ask`; of (Q, D) whole numbers as `quantise` makes them."""
        layout, count = self.facts.layout, len(templates)
        if not 0 < count <= MOST_PROBES or templates.shape[1] != layout.dimension or place < 0:
            raise UsageError(
                f"Probes {templates.shape} do not go with a gallery of {layout.dimension} values each.",
                hint=f"Give 1 to {MOST_PROBES}, of the gallery's recogniser.",
            )
        places = self._granted(Ask(WISHES[mode], count, place if mode == "verify" else 0))
        if self.facts.deployment is Deployment.CLOUD:
            self.link.send(Kind.PROBES, templates.astype("<i2").tobytes())
        else:
            sealed = [self._key.secret.encrypt(layout.probe(one)).astype("<u4").tobytes() for one in templates]
            self.link.send(Kind.PROBES, b"".join(sealed))
        if mode == "verify":
            values = self._decrypted(count, 1)[:, place % layout.group][:, None]
        else:
            values = self._decrypted(count, places // layout.group)
        sizes = plan(values.shape[1], count, mode)
        tape = self._tapes.tape(session_of(self.link, self._asked), sizes)
        share = compare(Side(tape, door=True).decide(values, mode), self.link, sizes, door=True)
        found = opened(share, self.link.receive(Kind.RESULT, share.size))
        if any(one is not None and one >= places for one in found):
            raise PeerError("The answer is a place that there is not.", hint="Connect again.")
        return [Match(one is not None, one if mode == "identify" else None) for one in found]

    def enrol(self, embeddings: ArrayLike) -> list[int]:
        """Seal people into a cloud's gallery.

        Args:
            embeddings: (N, D) of unit norm.

        Returns:
            Their places. Keep embeddings sealed elsewhere: whoever is renewed or erased must be subtracted.

        Raises:
            UsageError: when embeddings have another form.
            PeerError: when the server is not a cloud.
        """
        templates, layout = quantise(embeddings, what="A template"), self.facts.layout
        self._require_dimension(templates)
        self._granted(Ask(Wish.ENROL, layout.groups(len(templates)), len(templates)))
        places: list[int] = []
        for part in in_parts(len(templates), layout.group):
            for sealed in seal_groups(self._key.secret, layout, templates[part]):
                self.link.send(Kind.PROBES, sealed.astype("<u4").tobytes())
            (first,) = PLACES.unpack(self.link.receive(Kind.GRANTED, PLACES.size))
            places += range(first, first + part.stop - part.start)
        return places

    def renew(self, place: int, old: ArrayLike, new: ArrayLike | None) -> None:
        """Exchange one person's template in a cloud's gallery, or erase them.

        Args:
            place: Of the person.
            old: (D,), the embedding that stands there.
            new: (D,), or None to erase.

        Raises:
            UsageError: when embeddings have another form.
            PeerError: when the server is not a cloud, or has no such place.
        """
        before = quantise(np.asarray(old)[None], what="A template")
        after = np.zeros_like(before) if new is None else quantise(np.asarray(new)[None], what="A template")
        for one in (before, after):
            self._require_dimension(one)
        self._granted(Ask(Wish.CHANGE, int(new is not None), place))
        difference = after[0].astype(np.int32) - before[0]
        sealed = seal_change(self._key.secret, self.facts.layout, place, difference)
        self.link.send(Kind.PROBES, sealed.astype("<u4").tobytes())
        self.link.receive(Kind.GRANTED, PLACES.size)

    def _require_dimension(self, templates: Templates) -> None:
        if not len(templates) or templates.shape[1] != self.facts.layout.dimension:
            raise UsageError(
                f"Templates {templates.shape} do not go with a gallery of {self.facts.layout.dimension} values each.",
                hint="Embed all with the gallery's recogniser.",
            )

    def _granted(self, ask: Ask) -> int:
        self._asked += 1
        self.link.send(Kind.ASK, ask.to_bytes())
        (places,) = PLACES.unpack(self.link.receive(Kind.GRANTED, PLACES.size))
        if places > LARGEST_GALLERY or places % self.facts.layout.group:
            raise PeerError("The server says of itself what makes no sense.", hint="Update both sides.")
        return int(places)

    def _decrypted(self, count: int, groups: int) -> NDArray[np.uint32]:
        """The door's shares, (probes, places), as answers come in."""
        layout, parts, left = self.facts.layout, [], groups
        each = count * (layout.group + DEGREE) * RESIDUE
        while left:
            content = self.link.receive(Kind.ANSWER, each, longest=each * min(left, BLOCK))
            some, rest = divmod(len(content), each)
            if rest:
                raise PeerError("An answer has a length that does not follow.", hint="Connect again.")
            left -= some
            parts.append(self._shares(np.frombuffer(content, "<u4"), layout, count, some))
        return np.concatenate(parts, axis=1)

    def _shares(self, content: NDArray[np.uint32], layout: Layout, count: int, groups: int) -> NDArray[np.uint32]:
        cut = count * groups * len(PRIMES) * layout.group
        first = content[:cut].reshape(count * groups, len(PRIMES), layout.group)
        second = content[cut:].reshape(count * groups, len(PRIMES), DEGREE)
        parts: Sequence[NDArray[np.uint32]] = [
            self._key.secret.decrypt(
                first[part].transpose(1, 2, 0), np.ascontiguousarray(second[part].transpose(1, 2, 0)), layout.width
            ).T
            for part in in_parts(count * groups, BLOCK)
        ]
        return np.concatenate(parts).reshape(count, groups * layout.group)
