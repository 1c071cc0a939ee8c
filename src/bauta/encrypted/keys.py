"""Key files: one keygen makes three, for the door, the server and the dealer, which belong on three machines.

::

    door.key     secret key of BFV, public key, secrets shared with the server and with the dealer
    server.key   public key, secret shared with the door, secret shared with the dealer
    dealer.key   both secrets that it shares, and the one that tapes are derived from

The shared secrets authenticate frames, each pair has its own. Whoever has door.key and sees the door's traffic reads
probes and shares; server.key opens nothing, but lets somebody pose as the server.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from bauta.encrypted.parameters import VERSION
from bauta.encrypted.scheme import PublicKey, SecretKey
from bauta.encrypted.triples import Dealer
from bauta.errors import OutputExists, UsageError
from bauta.files import PathLike, make_folder, write_atomically
from bauta.keys import read_private

ID, SECRET, DIGEST = 16, 32, 32
LONGEST = 1 << 20
_MAGIC = b"\x89BAUTA-E\n"
_HEADER = struct.Struct(f">{len(_MAGIC)}sH8s{ID}sI")
_MAKE = "`bauta encrypted keygen` makes keys."


@dataclass(frozen=True, eq=False)
class _Key(ABC):
    """What all three have.

    Attributes:
        id: 16 random bytes, the same in all three.
    """

    id: bytes

    kind: ClassVar[str]

    @abstractmethod
    def content(self) -> bytes:
        """What follows the header."""

    @classmethod
    @abstractmethod
    def parsed(cls, key_id: bytes, content: bytes) -> Self:
        """The key with this content.

        Raises:
            UsageError: when it has another form.
        """

    def write(self, path: PathLike) -> None:
        """Write the key, for its owner alone; nothing is overwritten.

        Raises:
            OutputExists: when there is a file of that name.
            OutputError: when it cannot be written.
        """
        content = self.content()
        whole = _HEADER.pack(_MAGIC, VERSION, self.kind.encode(), self.id, len(content)) + content
        write_atomically(Path(path), whole + hashlib.sha256(whole).digest(), mode=0o600)

    @classmethod
    def read(cls, path: PathLike) -> Self:
        """A key from its file, which only its owner, and a group that may read it, can open.

        Raises:
            UsageError: when it cannot be read, others can read it, it is damaged, or a key of another kind or version.
        """
        path = Path(path)
        whole = read_private(path, "key of encrypted matching", longest=LONGEST, hint=_MAKE)
        if len(whole) < _HEADER.size + DIGEST or whole[: len(_MAGIC)] != _MAGIC:
            raise UsageError(f"{path} is not a key of encrypted matching.", hint=_MAKE)
        _, version, kind, key_id, length = _HEADER.unpack_from(whole)
        if version != VERSION:
            raise UsageError(
                f"{path} has version {version}; this Bauta has {VERSION}.", hint="Update, or make new keys."
            )
        if hashlib.sha256(whole[:-DIGEST]).digest() != whole[-DIGEST:] or len(whole) != _HEADER.size + length + DIGEST:
            raise UsageError(f"{path} is damaged.", hint="Take another copy of it, or make new keys.")
        name = kind.rstrip(b"\0").decode("ascii", "replace")
        if name != cls.kind:
            raise UsageError(f"{path} is a {name} key, not a {cls.kind} key.", hint=f"Give {cls.kind}.key.")
        return cls.parsed(key_id, whole[_HEADER.size : -DIGEST])


@dataclass(frozen=True, eq=False)
class DoorKey(_Key):
    """The door's.

    Attributes:
        secret: Of BFV.
        public: What the server has of it.
        server: Shared with the server.
        dealer: Shared with the dealer.
    """

    secret: SecretKey
    public: PublicKey = field(repr=False)
    server: bytes = field(repr=False)
    dealer: bytes = field(repr=False)

    kind: ClassVar[str] = "door"

    def content(self) -> bytes:
        """See `_Key.content`."""
        return self.server + self.dealer + self.public.to_bytes() + self.secret.blob

    @classmethod
    def parsed(cls, key_id: bytes, content: bytes) -> Self:
        """See `_Key.parsed`."""
        server, dealer, rest = _cut(content, SECRET, SECRET)
        return cls(
            key_id, SecretKey(rest[PublicKey.SIZE :]), PublicKey.from_bytes(rest[: PublicKey.SIZE]), server, dealer
        )


@dataclass(frozen=True, eq=False)
class ServerKey(_Key):
    """The server's, one for each door.

    Attributes:
        public: The door's public key.
        door: Shared with the door.
        dealer: Shared with the dealer.
    """

    public: PublicKey = field(repr=False)
    door: bytes = field(repr=False)
    dealer: bytes = field(repr=False)

    kind: ClassVar[str] = "server"

    def content(self) -> bytes:
        """See `_Key.content`."""
        return self.door + self.dealer + self.public.to_bytes()

    @classmethod
    def parsed(cls, key_id: bytes, content: bytes) -> Self:
        """See `_Key.parsed`."""
        door, dealer, rest = _cut(content, SECRET, SECRET)
        return cls(key_id, PublicKey.from_bytes(rest), door, dealer)


@dataclass(frozen=True, eq=False)
class DealerKey(_Key):
    """The dealer's, one for each pair of door and server.

    Attributes:
        door: Shared with the door.
        server: Shared with the server.
        tapes: What tapes are derived from.
    """

    door: bytes = field(repr=False)
    server: bytes = field(repr=False)
    tapes: Dealer = field(repr=False)

    kind: ClassVar[str] = "dealer"

    def content(self) -> bytes:
        """See `_Key.content`."""
        return self.door + self.server + self.tapes.secret

    @classmethod
    def parsed(cls, key_id: bytes, content: bytes) -> Self:
        """See `_Key.parsed`."""
        door, server, tapes = _cut(content, SECRET, SECRET)
        if len(tapes) != SECRET:
            raise UsageError("A dealer key has another size.", hint=_MAKE)
        return cls(key_id, door, server, Dealer(tapes))


def generate_keys() -> tuple[DoorKey, ServerKey, DealerKey]:
    """Keys for a door, a server and a dealer, of the operating system's randomness."""
    key_id, secret = secrets.token_bytes(ID), SecretKey.generate()
    public = secret.public()
    between, door, server, tapes = (secrets.token_bytes(SECRET) for _ in range(4))
    return (
        DoorKey(key_id, secret, public, between, door),
        ServerKey(key_id, public, between, server),
        DealerKey(key_id, door, server, Dealer(tapes)),
    )


def write_keys(folder: PathLike) -> tuple[Path, Path, Path]:
    """Make keys and write door.key, server.key and dealer.key into a folder.

    Raises:
        OutputExists: when one is there.
        OutputError: when they cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    keys = generate_keys()
    paths = tuple(folder / f"{key.kind}.key" for key in keys)
    for path in paths:
        if os.path.lexists(path):
            raise OutputExists(f"{path} exists already, and a key is never overwritten.", hint="Give another folder.")
    for key, path in zip(keys, paths, strict=True):
        key.write(path)
    door, server, dealer = paths
    return door, server, dealer


def _cut(content: bytes, *lengths: int) -> tuple[bytes, ...]:
    parts, start = [], 0
    for length in lengths:
        parts.append(content[start : start + length])
        start += length
    return (*parts, content[start:])
