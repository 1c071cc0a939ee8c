"""Files that only their owner opens: encrypted and authenticated under a key file or a passphrase.

AES-256-GCM. The key of a file comes from the owner's by HKDF-SHA256 with a random salt (a passphrase goes through
scrypt first); a check value from the same derivation tells a wrong key from a changed file.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bauta.errors import GalleryDamaged, WeightsCorrupt, WrongKey
from bauta.keys import DeploymentKey, ScryptCost, Way

MAGIC = b"bauta sealed 1\n"
_WAYS: dict[int, Way] = {1: "file", 2: "passphrase"}
_HEADER = struct.Struct(f">{len(MAGIC)}s4B32s32s12s")  # magic, way, log2 N, r, p, salt, check, nonce


def is_sealed(content: bytes) -> bool:
    """Whether these are the bytes of a sealed file.

    >>> is_sealed(b"a photo")
    False
    """
    return content.startswith(MAGIC)


def seal(content: bytes, key: DeploymentKey) -> bytes:
    """Encrypt; the same content never gives the same bytes.

    >>> key = DeploymentKey.generate()
    >>> unseal(seal(b"a mask", key), key)
    b'a mask'
    """
    cost, salt, nonce = ScryptCost(), secrets.token_bytes(32), secrets.token_bytes(12)
    derived = key.derive(salt, cost, 64)
    way = next(number for number, name in _WAYS.items() if name == key.way)
    header = _HEADER.pack(MAGIC, way, cost.log_n, cost.r, cost.p, salt, derived[32:], nonce)
    return header + AESGCM(derived[:32]).encrypt(nonce, content, header)


def unseal(sealed: bytes, key: DeploymentKey, name: str | Path = "The file") -> bytes:
    """What `seal` encrypted.

    Args:
        sealed: The bytes of the file.
        key: Of its owner.
        name: What messages call it.

    Raises:
        WrongKey: when it was sealed under another key or passphrase.
        WeightsCorrupt: when it was changed or cut off.
    """
    corrupt = WeightsCorrupt(f"{name} was changed, or is cut off.", hint="Take a copy that is whole.")
    if len(sealed) < _HEADER.size:
        raise corrupt
    _, number, log_n, r, p, salt, check, nonce = _HEADER.unpack_from(sealed)
    try:
        way, cost = _WAYS[number], ScryptCost(log_n, r, p)
    except (KeyError, GalleryDamaged) as error:
        raise corrupt from error
    if way != key.way:
        sort = {"file": "key file", "passphrase": "passphrase"}
        raise WrongKey(f"{name} is sealed under a {sort[way]}; a {sort[key.way]} was given.", hint=ASK[way])
    derived = key.derive(salt, cost, 64)
    if not hmac.compare_digest(derived[32:], check):
        raise WrongKey(
            f"{key.origin} does not open {name}.",
            hint="Give the one it was sealed under. If this is it, the file was changed: take a copy that is whole.",
        )
    try:
        return AESGCM(derived[:32]).decrypt(nonce, sealed[_HEADER.size :], sealed[: _HEADER.size])
    except InvalidTag as error:
        raise corrupt from error


ASK: dict[Way, str] = {"file": "Give --key FILE.", "passphrase": "Give --passphrase-file FILE, or --ask-passphrase."}
"""What a person does to open what is sealed one way or the other."""


def way_of(sealed: bytes) -> Way | None:
    """What opens a sealed file; None when its header says nothing that is known."""
    return _WAYS.get(sealed[len(MAGIC)]) if len(sealed) > len(MAGIC) else None
