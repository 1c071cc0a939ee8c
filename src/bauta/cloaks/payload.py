"""What a watermark says: a short text and a tag, as 112 bits that survive errors.

A text of at most six of the characters ``A-Z a-z 0-9 - _`` is 40 bits. A tag of 24 bits under the key (HMAC-SHA256,
truncated) tells a text from what chance makes of a face. A Reed-Solomon code over bytes adds six; soft values say
which bytes are doubtful, and six of the fourteen may be.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from reedsolo import ReedSolomonError, RSCodec

from bauta.errors import UsageError

BITS = 112
LONGEST = 6
"""Characters of a text."""
TAG_BITS = 24

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_BYTES, _TEXT_BYTES, _TAG_BYTES = BITS // 8, 5, TAG_BITS // 8
_PARITY = _BYTES - _TEXT_BYTES - _TAG_BYTES
_ERASURES = (0, 2, 4, 6)
ATTEMPTS = len(_ERASURES)
"""Texts that `decoded` looks at."""

_CODE = RSCodec(_PARITY)


def encoded(text: str, key: bytes) -> NDArray[np.bool_]:
    """(112,) the bits of a text.

    >>> decoded(encoded("anna-7", b"k" * 32) * 2.0 - 1, b"k" * 32)
    ('anna-7', 0)

    Raises:
        UsageError: when it is empty, too long, or has other characters.
    """
    if not 0 < len(text) <= LONGEST or not set(text) <= set(_ALPHABET):
        raise UsageError(
            f"The message {text!r} does not fit into a face.",
            hint=f"Give 1 to {LONGEST} characters of A-Z, a-z, 0-9, - and _; keep a list of what they stand for.",
        )
    number = len(text)
    for letter in text.ljust(LONGEST, _ALPHABET[0]):
        number = number * len(_ALPHABET) + _ALPHABET.index(letter)
    words = number.to_bytes(_TEXT_BYTES, "big")
    content = bytes(_CODE.encode(words + _tag(words, key)))
    return np.unpackbits(np.frombuffer(content, np.uint8)).astype(bool)


def decoded(soft: NDArray[np.floating], key: bytes) -> tuple[str, int] | None:
    """The text of soft values, and how many bits had to be corrected; None when they say none under this key.

    Args:
        soft: (112,), positive for ones; large values are sure.
        key: That it was encoded under.
    """
    bits = soft > 0
    for content in _candidates(bits, np.abs(soft)):
        words, tag = content[:_TEXT_BYTES], content[_TEXT_BYTES:]
        if not hmac.compare_digest(tag, _tag(words, key)):
            continue
        number, letters = int.from_bytes(words, "big"), ""
        for _ in range(LONGEST):
            number, letter = divmod(number, len(_ALPHABET))
            letters = _ALPHABET[letter] + letters
        if 0 < number <= LONGEST:
            text = letters[:number]
            return text, int((encoded(text, key) != bits).sum())
    return None


def _candidates(bits: NDArray[np.bool_], sure: NDArray[np.floating]) -> Iterator[bytes]:
    """What the code makes of the bits, with ever more of the doubtful bytes left out."""
    received = np.packbits(bits).tobytes()
    doubtful = np.argsort(sure.reshape(_BYTES, 8).min(axis=1)).tolist()
    for count in _ERASURES:
        try:
            yield bytes(_CODE.decode(received, erase_pos=doubtful[:count])[0])
        except ReedSolomonError:
            continue


def _tag(words: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"bauta watermark 1 text " + words, hashlib.sha256)[:_TAG_BYTES]
