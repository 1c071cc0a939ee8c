"""What frames hold: fields of fixed size, which are all that is parsed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from bauta.encrypted.comparison import Mode
from bauta.encrypted.packing import Layout
from bauta.encrypted.parameters import SCALE, SCHEME
from bauta.encrypted.wire import NONCE
from bauta.errors import PeerError, UsageError

LARGEST_GALLERY = 1 << 27
MOST_PROBES = 64

HELLO = struct.Struct(f">16s{NONCE}sB")
PLACES = struct.Struct(">Q")
_WELCOME = struct.Struct(f">{NONCE}s16sBHHQI")
_ASK = struct.Struct(">BHQ")


class Role(IntEnum):
    """Who says hello."""

    DOOR = 1
    SERVER = 2


class Deployment(IntEnum):
    """Who knows what."""

    DATABASE = 1
    """The server knows its gallery, and not the probe."""
    CLOUD = 2
    """The server holds the door's gallery encrypted, and is shown the probe."""


class Wish(IntEnum):
    """What a door asks for."""

    VERIFY = 1
    EXISTS = 2
    IDENTIFY = 3
    ENROL = 4
    CHANGE = 5

    @property
    def mode(self) -> Mode:
        """Of a comparison."""
        modes: dict[Wish, Mode] = {Wish.VERIFY: "verify", Wish.EXISTS: "exists", Wish.IDENTIFY: "identify"}
        return modes[self]


WISHES: dict[Mode, Wish] = {"verify": Wish.VERIFY, "exists": Wish.EXISTS, "identify": Wish.IDENTIFY}


@dataclass(frozen=True)
class Facts:
    """What a server says of itself.

    Attributes:
        deployment: Who knows what.
        layout: How templates are packed.
        places: In the gallery, vacant ones too.
        threshold: Least score that matches.
    """

    deployment: Deployment
    layout: Layout
    places: int
    threshold: int

    SIZE = _WELCOME.size

    def to_bytes(self, nonce: bytes) -> bytes:
        """`SIZE` bytes, for `from_bytes`."""
        return _WELCOME.pack(
            nonce,
            SCHEME.encode(),
            self.deployment,
            self.layout.dimension,
            self.layout.split,
            self.places,
            self.threshold,
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The facts of a welcome.

        Raises:
            PeerError: when they make no sense, or the scheme is another.
        """
        _, scheme, deployment, dimension, split, places, threshold = _WELCOME.unpack(content)
        if scheme.rstrip(b"\0") != SCHEME.encode():
            raise PeerError("The server has another scheme.", hint="Run one version on both sides.")
        try:
            layout, kind = Layout(dimension, split), Deployment(deployment)
        except (UsageError, ValueError) as error:
            raise PeerError("The server says of itself what makes no sense.", hint="Update both sides.") from error
        if places > LARGEST_GALLERY or places % layout.group or not 0 < threshold <= SCALE**2:
            raise PeerError("The server says of itself what makes no sense.", hint="Update both sides.")
        return cls(kind, layout, places, threshold)

    @property
    def cosine(self) -> float:
        """The threshold as a cosine."""
        return self.threshold / SCALE**2


@dataclass(frozen=True)
class Ask:
    """What a door asks for.

    Attributes:
        wish: What.
        count: Probes; for `ENROL` groups, for `CHANGE` whether somebody stands there afterwards.
        place: For `VERIFY` and `CHANGE` whose; for `ENROL` how many people.
    """

    wish: Wish
    count: int
    place: int = 0

    SIZE = _ASK.size

    def to_bytes(self) -> bytes:
        """`SIZE` bytes, for `from_bytes`."""
        return _ASK.pack(self.wish, self.count, self.place)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What was asked.

        Raises:
            PeerError: when there is no such wish.
        """
        wish, count, place = _ASK.unpack(content)
        if wish not in set(Wish):
            raise PeerError("A door asks for something unknown.", hint="Run one version on both sides.")
        return cls(Wish(wish), count, place)
