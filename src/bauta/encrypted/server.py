"""The server's side of a conversation: it multiplies, masks, compares, and learns nothing but that it was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.budget import Budget
from bauta.encrypted.comparison import Side, plan, server_values
from bauta.encrypted.encoded import Answer, EncodedGallery, SealedGallery
from bauta.encrypted.exchange import compare, session_of
from bauta.encrypted.keys import ServerKey
from bauta.encrypted.messages import HELLO, MOST_PROBES, PLACES, Ask, Deployment, Facts, Role, Wish
from bauta.encrypted.parameters import DEGREE, PRIMES
from bauta.encrypted.quantisation import Templates, quantise_threshold
from bauta.encrypted.triples import Tapes
from bauta.encrypted.wire import Kind, Link, attend, nonce
from bauta.errors import BautaError, PeerError, UsageError

MOST_GROUPS = 1 << 12
"""That are enrolled in one go."""


class Server:
    """Answers doors.

    Args:
        gallery: `PlainGallery` or `ShardedGallery` for the database's deployment, `SealedGallery` for the cloud's.
        keys: One for each door that may ask; a cloud has one door.
        cosine: From which on somebody matches.
        tapes: Makes the tapes of a key, such as `bauta.encrypted.dealing.RemoteTapes` of its dealer.
        budget: Decisions that each door gets.
        patience: Seconds that a door may be silent.
        log: Called with a line for each conversation that failed; it names no probe and no decision.
        ahead: Searches for which masks are drawn while it is idle, for each door.

    Attributes:
        lock: To be held while the gallery is changed.

    Raises:
        UsageError: for a threshold that is not above 0, without keys, or with several of a cloud.
    """

    def __init__(
        self,
        gallery: EncodedGallery,
        keys: Iterable[ServerKey],
        cosine: float,
        tapes: Callable[[ServerKey], Tapes],
        *,
        budget: Budget | None = None,
        patience: float = 60.0,
        log: Callable[[str], None] = lambda line: None,
        ahead: int = 0,
    ) -> None:
        self.gallery, self._threshold, self._tapes = gallery, quantise_threshold(cosine), tapes
        self._keys = {key.id: key for key in keys}
        self._budget, self._patience, self._log = budget or Budget(), patience, log
        self.lock = threading.Lock()
        self._ahead, self._drawing = ahead, threading.Lock()
        self._deployment = Deployment.CLOUD if isinstance(gallery, SealedGallery) else Deployment.DATABASE
        if not self._keys or (self._deployment is Deployment.CLOUD and len(self._keys) > 1):
            raise UsageError("A server needs a door's key, and a cloud has one door.", hint="Give server.key.")

    def answer(self, connection: socket.socket) -> None:
        """Converse over a connection until the door has had enough; what is wrong is said to it, and logged."""
        attend(Link(connection, b"", patience=self._patience), self._converse, self._log, "server")
        self.draw_ahead()

    def draw_ahead(self) -> None:
        """Draw masks until there are enough for each door; answers go between. Called after each conversation."""
        if not self._ahead or not self._drawing.acquire(blocking=False):
            return
        try:
            for key in self._keys.values():
                enough = False
                while not enough:
                    with self.lock:
                        enough = self.gallery.draw_ahead(key.public, self._ahead)
        except BautaError as error:  # nothing is lost: what is missing is drawn with the answer
            self._log(f"{error.code}: {error.message}")
        finally:
            self._drawing.release()

    def _converse(self, link: Link) -> None:
        header, hello, seal = link.open(Kind.HELLO, HELLO.size)
        key_id, _, role = HELLO.unpack(hello)
        key = self._keys.get(key_id)
        if key is None or role != Role.DOOR:
            raise PeerError(
                "This key is not registered here.", hint="Give server.key of the same keygen to the server."
            )
        link.use(key.door)
        link.check(header, hello, seal)
        facts = Facts(self._deployment, self.gallery.layout, self.gallery.places, self._threshold)
        welcome = facts.to_bytes(nonce())
        link.send(Kind.WELCOME, welcome)
        link.begin(hello + welcome, caller=False)
        number = 0
        while (ask := self._next(link, first=not number)) is not None:
            number += 1
            if ask.wish is Wish.ENROL:
                self._enrol(link, ask)
            elif ask.wish is Wish.CHANGE:
                self._change(link, ask)
            else:
                self._decide(link, ask, key, number)

    def _next(self, link: Link, *, first: bool) -> Ask | None:
        try:
            return Ask.from_bytes(link.receive(Kind.ASK, Ask.SIZE))
        except PeerError:
            if first:
                raise
            return None  # the door left

    def _decide(self, link: Link, ask: Ask, key: ServerKey, number: int) -> None:
        layout, gallery = self.gallery.layout, self.gallery
        if not 0 < ask.count <= MOST_PROBES:
            raise PeerError(f"{ask.count} probes at once are not taken.", hint=f"Send 1 to {MOST_PROBES}.")
        places = gallery.places
        if not places or (ask.wish is Wish.VERIFY and not ask.place < places):
            raise PeerError("There is nobody to compare with.", hint="Enrol people, or name a place that there is.")
        self._budget.spend(key.id, ask.count)
        link.send(Kind.GRANTED, PLACES.pack(places))
        probes: NDArray[np.uint32] | Templates
        if self._deployment is Deployment.CLOUD:
            content = link.receive(Kind.PROBES, 2 * ask.count * layout.dimension)
            probes = np.frombuffer(content, "<i2").astype(np.int16).reshape(ask.count, layout.dimension)
        else:
            content = link.receive(Kind.PROBES, ask.count * layout.upload())
            shape = (ask.count, len(PRIMES), DEGREE, layout.split, 2)
            probes = np.frombuffer(content, "<u4").astype(np.uint32, copy=False).reshape(shape)
        group, inside = divmod(ask.place, layout.group)
        with self.lock:  # whole, so that a door that reads slowly keeps nobody waiting
            answers = list(gallery.answer(probes, key.public, group if ask.wish is Wish.VERIFY else None))
        share = np.concatenate([one.share for one in answers], axis=1)
        if ask.wish is not Wish.VERIFY and share.shape[1] != places:
            raise PeerError("The gallery has changed meanwhile.", hint="Ask again.")
        for one in answers:
            link.send(Kind.ANSWER, _packed(one))
        if ask.wish is Wish.VERIFY:
            share = share[:, inside : inside + 1]
        sizes = plan(share.shape[1], ask.count, ask.wish.mode)
        tape = self._tapes(key).tape(session_of(link, number), sizes)
        talk = Side(tape, door=False).decide(server_values(share, self._threshold), ask.wish.mode)
        link.send(Kind.RESULT, compare(talk, link, sizes, door=False).tobytes())

    def _enrol(self, link: Link, ask: Ask) -> None:
        layout, gallery = self.gallery.layout, self._sealed()
        if not 0 < ask.count <= MOST_GROUPS or layout.groups(ask.place) != ask.count:
            raise PeerError(
                "These people do not fill these groups.", hint=f"Send at most {MOST_GROUPS} groups at once."
            )
        link.send(Kind.GRANTED, PLACES.pack(gallery.places))
        shape = (len(PRIMES), DEGREE, layout.split, 2)
        for group in range(ask.count):
            content = np.frombuffer(link.receive(Kind.PROBES, layout.upload()), "<u4").reshape(1, *shape)
            people = min(layout.group, ask.place - group * layout.group)
            with self.lock:
                places = gallery.add_groups(content.astype(np.uint32, copy=False), people)
            link.send(Kind.GRANTED, PLACES.pack(places[0]))

    def _change(self, link: Link, ask: Ask) -> None:
        layout, gallery = self.gallery.layout, self._sealed()
        if ask.place >= gallery.places:
            raise PeerError(f"There is no place {ask.place}.", hint="Name a place that enrolling gave.")
        link.send(Kind.GRANTED, PLACES.pack(gallery.places))
        content = np.frombuffer(link.receive(Kind.PROBES, layout.upload()), "<u4").astype(np.uint32, copy=False)
        with self.lock:
            gallery.change(ask.place, content.reshape(len(PRIMES), DEGREE, layout.split, 2), taken=bool(ask.count))
        link.send(Kind.GRANTED, PLACES.pack(ask.place))

    def _sealed(self) -> SealedGallery:
        if not isinstance(self.gallery, SealedGallery):
            raise PeerError("This database enrols by itself.", hint="Only a cloud's gallery is enrolled from a door.")
        return self.gallery


def _packed(answer: Answer) -> bytes:
    return answer.first.astype("<u4").tobytes() + answer.second.astype("<u4").tobytes()
