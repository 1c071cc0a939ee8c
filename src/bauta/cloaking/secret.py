"""The secret of a method that needs one, from its file."""

from __future__ import annotations

from pathlib import Path

from bauta.errors import UsageError

LEAST_SECRET = 16
"""Bytes of a key; less could be tried out."""


def read_secret(path: Path) -> bytes:
    """A key from its file.

    Raises:
        UsageError: when the file cannot be read, or holds too little.
    """
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The key {path} cannot be read: {error.strerror}.", hint="Check the name.") from error
    if len(secret) < LEAST_SECRET:
        raise UsageError(
            f"The key {path} has {len(secret)} bytes; {LEAST_SECRET} is the least.", hint="Try `openssl rand 32`."
        )
    return secret
