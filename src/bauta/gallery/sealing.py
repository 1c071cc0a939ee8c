"""Sealing of single records: authenticated encryption that any store can use, and the key under which it is done.

Each gallery has a random data key of its own, wrapped under the deployment key. Subkeys of the data key, by
HKDF-SHA256, seal records, seal the index and authenticate the whole. A record is AES-256-GCM with a fresh random nonce;
its associated data are format version, gallery, record, name, and the digests of recogniser and protector, so a record
that is moved to another name or gallery does not open. AES-GCM with random nonces may seal 2^32 records under one key
(NIST SP 800-38D); a gallery holds fewer, and each writing of it draws another key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bauta.errors import GalleryDamaged, GalleryVersion, UsageError, WrongKey
from bauta.keys import DeploymentKey, ScryptCost, Way

VERSION = 1
ID = 16  # bytes of an id of a gallery, record or key
_ALIKE = 4  # of them, shared by ids that are drawn together
NONCE, TAG = 12, 16  # bytes
OVERHEAD = NONCE + TAG
LONGEST_NAME = 4096  # bytes

_WAYS: dict[int, Way] = {1: "file", 2: "passphrase"}
_WRAPPED = struct.Struct(f">4B{ID}s32s32s{NONCE}s{32 + TAG}s")


RecordOpener = Callable[[bytes, bytes, bytes, bytes], bytes]
"""See `record_opener`."""


def new_id() -> bytes:
    """16 random bytes that name a gallery, a record or a key, and say nothing about it."""
    return secrets.token_bytes(ID)


def new_ids(count: int) -> list[bytes]:
    """So many ids that begin alike: 12 of their 16 bytes are random each, the first four are shared.

    A database keeps its rows in the order of their ids. Those that are written together then lie together, and a
    thousand of them change some twenty pages of it instead of a thousand.
    """
    start = secrets.token_bytes(_ALIKE)
    return [start + secrets.token_bytes(ID - _ALIKE) for _ in range(count)]


def new_data_key() -> bytes:
    """32 random bytes under which one gallery is sealed, until it is rotated."""
    return secrets.token_bytes(32)


@dataclass(frozen=True)
class WrappedKey:
    """A gallery's data key as it is stored: only the deployment key opens it.

    Attributes:
        way: What sort of deployment key wrapped it.
        cost: Of scrypt, for a passphrase.
        key_id: A random name of the data key, drawn anew at each rotation. It tells nothing about any key.
        salt: 32 random bytes.
        check: 32 bytes derived from deployment key and salt. They tell a wrong key from a changed file, and keep
            anybody from making a file that opens under two keys, which AES-GCM alone does not.
        nonce: Of the wrapping.
        sealed: The data key, sealed.
    """

    way: Way
    cost: ScryptCost
    key_id: bytes
    salt: bytes
    check: bytes
    nonce: bytes
    sealed: bytes

    SIZE = _WRAPPED.size

    @classmethod
    def wrap(cls, data_key: bytes, key: DeploymentKey, gallery: bytes, cost: ScryptCost | None = None) -> Self:
        """Wrap a data key under a deployment key, with fresh salt, nonce and key id.

        Args:
            data_key: 32 bytes.
            key: The deployment's.
            gallery: Id of the gallery.
            cost: Of scrypt.
        """
        cost, salt, key_id, nonce = cost or ScryptCost(), secrets.token_bytes(32), new_id(), secrets.token_bytes(NONCE)
        derived = key.derive(salt, cost, 64)
        sealed = AESGCM(derived[:32]).encrypt(nonce, data_key, _wrapping_about(gallery, key_id, salt))
        return cls(key.way, cost, key_id, salt, derived[32:], nonce, sealed)

    def unwrap(self, key: DeploymentKey, gallery: bytes, origin: str = "The gallery") -> bytes:
        """The data key.

        Args:
            key: The deployment's.
            gallery: Id of the gallery.
            origin: What messages call it.

        Raises:
            WrongKey: when it was wrapped under another key or passphrase.
            GalleryDamaged: when the wrapped key was changed, or belongs to another gallery.
        """
        if key.way != self.way:
            sort = {"file": "key file", "passphrase": "passphrase"}
            raise WrongKey(
                f"{origin} is sealed under a {sort[self.way]}; a {sort[key.way]} was given.",
                hint="Give --key." if self.way == "file" else "Give --passphrase-file, or --ask-passphrase.",
            )
        derived = key.derive(self.salt, self.cost, 64)
        if not hmac.compare_digest(derived[32:], self.check):
            raise WrongKey(
                f"{key.origin} does not open {origin}: it is not the {self.way_in_words} that it was sealed under.",
                hint="Give the one it was sealed under. If this is it, the file was changed: restore it from a backup.",
            )
        try:
            about = _wrapping_about(gallery, self.key_id, self.salt)
            return AESGCM(derived[:32]).decrypt(self.nonce, self.sealed, about)
        except InvalidTag as error:
            raise GalleryDamaged(
                f"The key inside {origin} was changed, or is another gallery's.", hint="Restore it from a backup."
            ) from error

    @property
    def way_in_words(self) -> str:
        """``key`` or ``passphrase``."""
        return "key" if self.way == "file" else "passphrase"

    def to_bytes(self) -> bytes:
        """`SIZE` bytes, for `from_bytes`."""
        number = next(number for number, way in _WAYS.items() if way == self.way)
        cost = (self.cost.log_n, self.cost.r, self.cost.p)
        return _WRAPPED.pack(number, *cost, self.key_id, self.salt, self.check, self.nonce, self.sealed)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` wrote.

        Raises:
            GalleryDamaged: when the way is unknown or scrypt's cost is not allowed.
        """
        number, log_n, r, p, *fields = _WRAPPED.unpack(content)
        if number not in _WAYS:
            raise GalleryDamaged("The gallery names an unknown sort of key.", hint="Restore it from a backup.")
        return cls(_WAYS[number], ScryptCost(log_n, r, p), *fields)


def _wrapping_about(gallery: bytes, key_id: bytes, salt: bytes) -> bytes:
    return b"bauta data key" + bytes([VERSION]) + gallery + key_id + salt


def subkey(data_key: bytes, gallery: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, ``records``, ``index`` or ``file``: a key is never used for two."""
    # HKDF-SHA256 for one block, as RFC 5869 has it: a store derives a key for each person, and the class of
    # `cryptography` takes ten times as long as these two lines. A test compares them.
    extracted = hmac.digest(gallery, data_key, "sha256")
    return hmac.digest(extracted, _purpose(purpose), "sha256")


def _purpose(purpose: str) -> bytes:
    return f"bauta gallery {VERSION} {purpose}".encode() + b"\x01"


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What a record is bound to. A store keeps it beside the sealed content, or knows it.

    Attributes:
        gallery: Id of the gallery.
        record: Id of the record.
        name: What the face is called; a store that is to hide it seals it elsewhere.
        recognizer: SHA-256 of the recogniser, 32 bytes.
        protector: SHA-256 of the protector, 32 bytes.
        version: Of the format.
    """

    gallery: bytes
    record: bytes
    name: str
    recognizer: bytes
    protector: bytes
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """The associated data; only the last field varies in length, so two headers are never the same bytes."""
        fixed = (self.gallery, self.record, self.recognizer, self.protector)
        return b"bauta record%c" % self.version + b"".join(fixed) + encode_name(self.name)


class RecordSealer:
    """Seals and opens the records of one gallery.

    Args:
        data_key: The gallery's, unwrapped.
        gallery: Its id.
        recognizer: SHA-256 of the recogniser, 32 bytes.
        protector: SHA-256 of the protector, 32 bytes.

    >>> sealer = RecordSealer(bytes(32), b"g" * 16, b"r" * 32, b"p" * 32)
    >>> header = sealer.header(b"1" * 16, "ann")
    >>> sealer.open(header, sealer.seal(header, b"a template"))
    b'a template'
    """

    def __init__(self, data_key: bytes, gallery: bytes, recognizer: bytes, protector: bytes) -> None:
        self.gallery, self.recognizer, self.protector = gallery, recognizer, protector
        self._cipher = AESGCM(subkey(data_key, gallery, "records"))

    def header(self, record: bytes, name: str) -> RecordHeader:
        """The header of a record of this gallery."""
        return RecordHeader(self.gallery, record, name, self.recognizer, self.protector)

    def seal(self, header: RecordHeader, content: bytes | memoryview) -> bytes:
        """Nonce, ciphertext and tag: `OVERHEAD` bytes more than the content.

        Raises:
            GalleryDamaged, GalleryVersion, UsageError: when the header is not of this gallery; see `open`.
        """
        self._require_own(header)
        nonce = secrets.token_bytes(NONCE)
        return nonce + self._cipher.encrypt(nonce, content, header.to_bytes())

    def open(self, header: RecordHeader, sealed: bytes | memoryview) -> bytes:
        """The content of a record that was sealed here, under this header.

        Raises:
            GalleryVersion: when it is of another version of the format.
            GalleryDamaged: when it is another gallery's, or was changed, torn, renamed or exchanged.
            UsageError: when it was made for another recogniser or by another protector.
        """
        self._require_own(header)
        try:
            return self._cipher.decrypt(sealed[:NONCE], sealed[NONCE:], header.to_bytes())
        except (InvalidTag, ValueError) as error:  # ValueError: too short for nonce and tag
            raise _changed() from error

    def _require_own(self, header: RecordHeader) -> None:
        if header.version != VERSION:
            raise GalleryVersion(
                f"A record has version {header.version} of the format, not {VERSION}.", hint="Update Bauta."
            )
        if header.gallery != self.gallery:
            raise GalleryDamaged("A record is another gallery's.", hint="Restore the gallery from a backup.")
        for what in ("recognizer", "protector"):
            if getattr(header, what) != getattr(self, what):
                raise UsageError(
                    f"The {what} of a record is {getattr(header, what).hex()[:12]}, "
                    f"not {getattr(self, what).hex()[:12]}.",
                    hint=f"Use the {what} it was made with, or protect the faces again.",
                )


def record_opener(gallery: bytes, recognizer: bytes, protector: bytes) -> RecordOpener:
    """What opens many records, each under a data key of its own, as `RecordSealer` does, in a third of the time.

    Returns:
        A function of data key, id of the record, name (as `encode_name` gives it) and sealed content. It raises
        GalleryDamaged, as `RecordSealer.open`.
    """
    start, makers, purpose = b"bauta record%c" % VERSION + gallery, recognizer + protector, _purpose("records")
    # HMAC as RFC 2104 has it, begun: the two hashes over the gallery's id are the same for all records.
    block = gallery.ljust(64, b"\0")
    inside, outside = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))

    def opened(data_key: bytes, record: bytes, name: bytes, sealed: bytes) -> bytes:
        inner, outer = inside.copy(), outside.copy()
        inner.update(data_key)
        outer.update(inner.digest())
        cipher = AESGCM(hmac.digest(outer.digest(), purpose, "sha256"))
        try:
            return cipher.decrypt(sealed[:NONCE], sealed[NONCE:], start + record + makers + name)
        except (InvalidTag, ValueError) as error:  # ValueError: too short for nonce and tag
            raise _changed() from error

    return opened


def _changed() -> GalleryDamaged:
    return GalleryDamaged("A record was changed, or is another's.", hint="Restore the gallery from a backup.")


def encode_name(name: str) -> bytes:
    """A name as it is stored; file names that are not valid UTF-8 survive it.

    Raises:
        UsageError: when it is empty or longer than `LONGEST_NAME` bytes.
    """
    try:
        content = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        content = b""
    if not 0 < len(content) <= LONGEST_NAME:
        raise UsageError(
            f"A name has {len(content)} bytes that can be stored.", hint=f"Give 1 to {LONGEST_NAME}, in UTF-8."
        )
    return content
