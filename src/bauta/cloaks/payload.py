"""What a watermark says: a short text and a tag, as 85 bits that survive errors.

A text of at most five of the characters ``A-Z a-z 0-9 -`` is 30 bits. A tag of 25 bits under the key (HMAC-SHA256,
truncated) tells a text from what chance makes of a face. A Reed-Solomon code over symbols of five bits adds six to
the eleven; soft values say which symbols are doubtful, and six of the seventeen may be.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from reedsolo import ReedSolomonError, RSCodec

from bauta.errors import UsageError

BITS = 85
LONGEST = 5
"""Characters of a text."""
TAG_BITS = 25

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"
_END = len(_ALPHABET)
_WIDE = 5  # bits of a symbol
_SYMBOLS, _PARITY = 17, 6
_TEXT_SYMBOLS, _TAG_SYMBOLS = 6, 5
_ERASURES = (0, 2, 4, 6)
ATTEMPTS = len(_ERASURES)
"""Texts that `decoded` looks at."""

_CODE = RSCodec(_PARITY, nsize=2**_WIDE - 1, c_exp=_WIDE)


def encoded(text: str, key: bytes) -> NDArray[np.bool_]:
    """(85,) the bits of a text.

    >>> decoded(encoded("anna", b"k" * 32) * 2.0 - 1, b"k" * 32)
    ('anna', 0)

    Raises:
        UsageError: when it is empty, too long, or has other characters.
    """
    if not 0 < len(text) <= LONGEST or not set(text) <= set(_ALPHABET):
        raise UsageError(
            f"The message {text!r} does not fit into a face.",
            hint=f"Give 1 to {LONGEST} characters of A-Z, a-z, 0-9 and -; keep a list of what they stand for.",
        )
    number = 0
    for place in range(LONGEST):
        number = number * (_END + 1) + (_ALPHABET.index(text[place]) if place < len(text) else _END)
    words = _symbols(number, _TEXT_SYMBOLS)
    return _bits(bytes(_CODE.encode(words + _tag(words, key))))


def decoded(soft: NDArray[np.floating], key: bytes) -> tuple[str, int] | None:
    """The text of soft values, and how many bits had to be corrected; None when they say none under this key.

    Args:
        soft: (85,), positive for ones; large values are sure.
        key: That it was encoded under.
    """
    bits = soft > 0
    for content in _candidates(bits, np.abs(soft)):
        words, tag = content[:_TEXT_SYMBOLS], content[_TEXT_SYMBOLS:]
        if not hmac.compare_digest(tag, _tag(words, key)):
            continue
        number, letters = _number(words), []
        for _ in range(LONGEST):
            number, letter = divmod(number, _END + 1)
            letters.append(letter)
        text = "".join(_ALPHABET[letter] for letter in reversed(letters) if letter != _END)
        if text:
            return text, int((encoded(text, key) != bits).sum())
    return None


def _candidates(bits: NDArray[np.bool_], sure: NDArray[np.floating]) -> Iterator[bytes]:
    """What the code makes of the bits, with ever more of the doubtful symbols left out."""
    weights = 1 << np.arange(_WIDE)[::-1]
    received = bytes((bits.reshape(_SYMBOLS, _WIDE) @ weights).astype(np.uint8))
    doubtful = np.argsort(sure.reshape(_SYMBOLS, _WIDE).min(axis=1)).tolist()
    for count in _ERASURES:
        try:
            yield bytes(_CODE.decode(received, erase_pos=doubtful[:count])[0])
        except ReedSolomonError:
            continue


def _bits(symbols: bytes) -> NDArray[np.bool_]:
    values = np.frombuffer(symbols, np.uint8)[:, None] >> np.arange(_WIDE)[::-1]
    return (values & 1).astype(bool).reshape(-1)


def _symbols(number: int, count: int) -> bytes:
    return bytes(number >> _WIDE * place & 2**_WIDE - 1 for place in reversed(range(count)))


def _number(symbols: bytes) -> int:
    number = 0
    for symbol in symbols:
        number = number << _WIDE | symbol
    return number


def _tag(words: bytes, key: bytes) -> bytes:
    """Five symbols."""
    drawn = hmac.digest(key, b"bauta watermark 1 text " + words, hashlib.sha256)
    return _symbols(int.from_bytes(drawn[:4], "big"), _TAG_SYMBOLS)
