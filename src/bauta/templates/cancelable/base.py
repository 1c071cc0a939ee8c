"""What cancelable templates have in common: tokens, references, enrolment, renewal, and codes that compare fast.

The words are those of ISO/IEC 24745: what is stored of a person is a *pseudonymous identifier* (`Reference`) and
*auxiliary data* (`Token`), in places apart. Whoever has one of them alone has little; whoever has both has what each
scheme's page of measurements says, and that is often most of the template. So both are sealed where they lie.

A token belongs to one person, as a second factor, or to a whole store, which alone allows fast search: with a token a
person, each probe is transformed anew for every person.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.errors import UsageError
from bauta.registry import MethodCard
from bauta.settings import Settings
from bauta.templates.cancelable.streams import Stream

TOKEN_BYTES = 32
_ID = 16
_DIGEST = 32
_REFERENCE, _TOKEN = b"BAUTA-PI", b"BAUTA-AD"
_ENROL = "Enrol the face again; both parts are made anew."

Codes = NDArray[Any]
Maps = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Token:
    """Auxiliary data: what a reference was made with. Store it elsewhere than the reference, sealed.

    Attributes:
        scheme: Digest of the scheme, 32 bytes; see `Scheme.digest`.
        id: 16 random bytes that it shares with its reference, and with nothing else.
        secret: 32 bytes of the operating system. They are not shown.

    Raises:
        UsageError: when a part has another length.
    """

    scheme: bytes
    id: bytes
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _require_lengths(self.scheme, self.id, "token")
        if len(self.secret) != TOKEN_BYTES:
            raise UsageError(f"The secret of a token has {len(self.secret)} bytes, not {TOKEN_BYTES}.", hint=_ENROL)

    def to_bytes(self) -> bytes:
        """88 bytes for `from_bytes`. They are not sealed."""
        return _TOKEN + self.scheme + self.id + self.secret

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` wrote.

        Raises:
            UsageError: when it is something else.
        """
        scheme, identifier, rest = _parts(content, _TOKEN, "token")
        return cls(scheme, identifier, rest)


@dataclass(frozen=True, eq=False)
class Reference:
    """A pseudonymous identifier: what is compared.

    Attributes:
        scheme: Digest of the scheme, 32 bytes.
        id: 16 random bytes that it shares with its token.
        code: What the scheme made of the template: uint64 bit planes, or float32.

    Raises:
        UsageError: when a part has another length.
    """

    scheme: bytes
    id: bytes
    code: Codes = field(repr=False)

    def __post_init__(self) -> None:
        _require_lengths(self.scheme, self.id, "reference")

    def to_bytes(self) -> bytes:
        """Bytes for `Scheme.reference_from_bytes`. They are not sealed."""
        return _REFERENCE + self.scheme + self.id + self.code.astype(_little(self.code.dtype)).tobytes()


@dataclass(frozen=True)
class Issued:
    """What an enrolment gives.

    Attributes:
        reference: To store where faces are compared.
        token: To store elsewhere.
        replaces: Id of the reference and token to delete, after a renewal.
    """

    reference: Reference
    token: Token
    replaces: bytes = b""


class Scheme(ABC):
    """A way to turn templates by a token.

    Args:
        config: Settings.
        recognizer: SHA-256 of the recogniser whose templates these are, in hexadecimal; templates of another one do
            not compare, and with it their references are refused.

    >>> import numpy as np
    >>> from bauta.templates.cancelable.iom import IomGrp
    >>> face = np.eye(1, 512, dtype=np.float32)[0]
    >>> scheme = IomGrp()
    >>> issued = scheme.enrol(face)
    >>> scheme.match(issued.reference, issued.token, face)
    1.0
    >>> renewed = scheme.renew(issued.reference, face)
    >>> scheme.match(renewed.reference, issued.token, face)
    Traceback (most recent call last):
    bauta.errors.UsageError: The token is of another reference, or of one that was renewed. Find its own. Enrol the \
face again; both parts are made anew.
    """

    card: ClassVar[MethodCard]
    Config: ClassVar[type[Settings]]
    before: ClassVar[tuple[Settings, ...]] = ()
    """Settings that were the default once: what was stored with them says so when it is refused."""

    def __init__(self, config: Any = None, *, recognizer: str = "") -> None:
        self.config = self.Config() if config is None else config
        self.recognizer = recognizer

    @cached_property
    def digest(self) -> bytes:
        """32 bytes: of name, settings and recogniser. Whoever changes one has another scheme."""
        about = [1, self.card.name, self.config.to_dict(), self.recognizer]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()

    @abstractmethod
    def draw(self, size: int, stream: Stream) -> Maps:
        """The maps of a token, for templates of `size` numbers."""

    @abstractmethod
    def project(self, templates: NDArray[np.float32], maps: Maps) -> NDArray[np.float32]:
        """The numbers (N, ...) behind the codes of templates (N, D)."""

    @abstractmethod
    def encode(self, projected: NDArray[np.float32]) -> Codes:
        """(N, ...) codes of projected numbers."""

    @abstractmethod
    def compare(self, first: Codes, second: Codes) -> NDArray[np.float32]:
        """Scores of codes, pair by pair; leading dimensions are broadcast. Larger is likelier the same person."""

    @abstractmethod
    def code_form(self, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of the code of a template of `size` numbers.

        Raises:
            UsageError: when templates of this size have none.
        """

    def codes(self, templates: ArrayLike, secret: bytes) -> Codes:
        """(N, ...) codes of templates (N, D) under the secret of a token.

        Raises:
            UsageError: when they are not templates of unit norm, or the scheme has no codes for their size.
        """
        checked = _templates(templates)
        return self.encode(self.project(checked, self.maps(checked.shape[1], secret)))

    def maps(self, size: int, secret: bytes) -> Maps:
        """What the secret of a token turns templates by: all that a thief of the token can compute.

        Raises:
            UsageError: when the scheme has no codes for templates of `size` numbers.
        """
        self.code_form(size)
        return self.draw(size, Stream(secret, self.digest))

    def enrol(self, template: ArrayLike) -> Issued:
        """A reference and its token, from the operating system's random numbers.

        Args:
            template: (D,) of unit norm.

        Raises:
            UsageError: when it is not such a template.
        """
        token = Token(self.digest, secrets.token_bytes(_ID), secrets.token_bytes(TOKEN_BYTES))
        code = self.codes(np.asarray(template)[None], token.secret)[0]
        return Issued(Reference(self.digest, token.id, code), token)

    def renew(self, old: Reference, template: ArrayLike) -> Issued:
        """A new reference and token of the same person, from a new photo: nothing of the old ones is needed or used.

        Args:
            old: What it replaces; it may be of another scheme. Who the person is must be known otherwise.
            template: (D,) of unit norm.
        """
        issued = self.enrol(template)
        return Issued(issued.reference, issued.token, replaces=old.id)

    def match(self, reference: Reference, token: Token, template: ArrayLike) -> float:
        """The score of a template against a reference.

        Raises:
            UsageError: when reference or token are of another scheme, or not of one enrolment, or the code has
                another length.
        """
        for what, scheme in (("reference", reference.scheme), ("token", token.scheme)):
            if scheme != self.digest:
                raise UsageError(
                    f"The {what} was made by another scheme than this {self.card.name}, with other settings or for "
                    "another recogniser.",
                    hint=self._maker(scheme),
                )
        if reference.id != token.id:
            raise UsageError(
                "The token is of another reference, or of one that was renewed.", hint=f"Find its own. {_ENROL}"
            )
        probe = self.codes(np.asarray(template)[None], token.secret)[0]
        _require_form(reference.code, probe.shape, probe.dtype)
        return float(self.compare(reference.code, probe))

    def reference_from_bytes(self, content: bytes, size: int) -> Reference:
        """What `Reference.to_bytes` wrote.

        Args:
            content: The bytes.
            size: Numbers of a template.

        Raises:
            UsageError: when it is something else, of another scheme, or of another length.
        """
        scheme, identifier, rest = _parts(content, _REFERENCE, "reference")
        if scheme != self.digest:
            raise UsageError("The reference was made by another scheme.", hint=self._maker(scheme))
        shape, kind = self.code_form(size)
        if len(rest) != int(np.prod(shape)) * kind.itemsize:
            raise UsageError(f"The code has {len(rest)} bytes, not those of {self.card.name}.", hint=_ENROL)
        code = np.frombuffer(rest, _little(kind)).astype(kind).reshape(shape)
        if kind.kind == "f" and not np.isfinite(code).all():
            raise UsageError("The code holds NaN or infinity.", hint=_ENROL)
        return Reference(scheme, identifier, code)

    def _maker(self, scheme: bytes) -> str:
        """What to do with a part of another scheme."""
        for config in self.before:
            if type(self)(config, recognizer=self.recognizer).digest == scheme:
                given = ", ".join(f"{name}={value!r}" for name, value in config.to_dict().items())
                return f"Its settings were the default of an earlier version: give {type(config).__name__}({given})."
        return f"Use the scheme it was made by. {_ENROL}"


class Binary(Scheme):
    """A scheme whose codes are bits: symbols of a few bits each, compared by how many of them are equal.

    A code is (planes, words) uint64: plane p holds bit p of every symbol, so that a comparison is an exclusive or, an
    or over planes and a popcount.
    """

    @property
    @abstractmethod
    def symbols(self) -> int:
        """Of a code, a multiple of 64."""

    @property
    def planes(self) -> int:
        """Bits of a symbol."""
        return 1

    def code_form(self, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `Scheme.code_form`."""
        return (self.planes, self.symbols // 64), np.dtype(np.uint64)

    def compare(self, first: Codes, second: Codes) -> NDArray[np.float32]:
        """(...) share of equal symbols of codes (..., planes, words)."""
        different = np.bitwise_or.reduce(first ^ second, axis=-2)
        count = np.bitwise_count(different).sum(-1, dtype=np.int64)
        share: NDArray[np.float32] = (1 - count / self.symbols).astype(np.float32)
        return share

    def pack(self, symbols: NDArray[Any]) -> Codes:
        """(N, planes, words) of symbols (N, S), numbers below 2^planes."""
        bits = (symbols[:, None].astype(np.uint8) >> np.arange(self.planes, dtype=np.uint8)[:, None]) & 1
        packed = np.packbits(bits, axis=-1, bitorder="little")
        return np.ascontiguousarray(packed).view(np.dtype("<u8")).astype(np.uint64)


class CodeIndex:
    """Codes of one store under one token, laid out for search: each word of all codes together.

    Args:
        scheme: That made them.
        codes: (N, planes, words).
    """

    BLOCK = 1 << 15  # codes at a time: what stays in the cache of a core

    def __init__(self, scheme: Binary, codes: Codes) -> None:
        _require_form(codes[0] if len(codes) else codes, *scheme.code_form(0))
        self.scheme = scheme
        self._columns = np.ascontiguousarray(codes.transpose(2, 1, 0))

    def __len__(self) -> int:
        return int(self._columns.shape[-1])

    def different(self, probe: Codes) -> NDArray[np.uint16]:
        """(N,) numbers of symbols in which each code differs from that of a probe (planes, words)."""
        _require_form(probe, *self.scheme.code_form(0))
        total = np.zeros(len(self), np.uint16)
        for start in range(0, len(self), self.BLOCK):
            part = total[start : start + self.BLOCK]
            for word, planes in enumerate(self._columns[:, :, start : start + self.BLOCK]):
                differs = planes[0] ^ probe[0, word]
                for plane, value in zip(planes[1:], probe[1:, word], strict=True):
                    differs |= plane ^ value
                part += np.bitwise_count(differs)
        return total

    def best(self, probe: Codes, count: int = 5) -> list[tuple[int, float]]:
        """Places and scores of the nearest codes, the nearest first; of equal ones the first."""
        found = self.different(probe)
        order = np.argsort(found, kind="stable")[:count] if count * 4 > len(found) else _smallest(found, count)
        return [(int(place), 1 - float(found[place]) / self.scheme.symbols) for place in order]


def _smallest(values: NDArray[np.uint16], count: int) -> NDArray[np.int64]:
    limit = np.partition(values, count - 1)[count - 1]
    places = np.flatnonzero(values <= limit)
    return places[np.argsort(values[places], kind="stable")[:count]]


def _templates(values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim != 2 or not array.size or array.dtype.kind != "f":
        raise UsageError(f"{array.dtype} {array.shape} are not templates.", hint="Give floats (N, D) of unit norm.")
    norms = np.linalg.norm(array, axis=1)
    if not (np.abs(norms - 1) < 1e-3).all():  # false for NaN too
        raise UsageError("A template is not of unit norm.", hint="Divide templates by their norm.")
    return array.astype(np.float32)


def _require_form(code: Codes, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    if code.shape != shape or code.dtype != kind:
        raise UsageError(
            f"A code is {code.dtype} of shape {list(code.shape)}, not {kind} of {list(shape)}.",
            hint=f"Codes of different lengths do not compare. {_ENROL}",
        )


def _require_lengths(scheme: bytes, identifier: bytes, what: str) -> None:
    if len(scheme) != _DIGEST or len(identifier) != _ID:
        raise UsageError(f"This is not a {what}: its digest or id has another length.", hint=_ENROL)


def _parts(content: bytes, magic: bytes, what: str) -> tuple[bytes, bytes, bytes]:
    head = len(magic)
    if content[:head] != magic or len(content) <= head + _DIGEST + _ID:
        raise UsageError(f"This is not a {what}, or not a whole one.", hint=f"Look for the file of it. {_ENROL}")
    rest = content[head + _DIGEST :]
    return content[head : head + _DIGEST], rest[:_ID], rest[_ID:]


def _little(kind: np.dtype[Any]) -> np.dtype[Any]:
    return kind.newbyteorder("<")
