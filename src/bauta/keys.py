"""Deployment keys: where they come from, which are refused, and what is derived from them.

A key is a file of random bytes, or a passphrase. Neither is ever used as it is: a file's bytes go through HKDF-SHA256
(RFC 5869) with a random salt of the gallery, a passphrase goes through scrypt (RFC 7914) first, which makes each guess
cost a third of a second and 128 MiB. Nothing that is stored can be computed from the key without that salt, so two
galleries do not tell that they have one key.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from bauta.calls import checked
from bauta.errors import GalleryDamaged, GalleryError, OutputExists, UsageError
from bauta.files import PathLike, write_atomically

Way = Literal["file", "passphrase"]

KEY_BYTES = 32
LONGEST_KEY = 1024  # bytes; what is longer is some other file
LEAST_DIFFERENT = 16  # bytes of a key: 32 random ones have fewer once in 10^16 keys
SHORTEST_PASSPHRASE = 12  # characters
LEAST_CHARACTERS = 5  # of a passphrase, that differ
MAKE_ONE = "`bauta key -o deployment.key` makes one; keep it where the gallery is not."


@dataclass(frozen=True)
class ScryptCost:
    """What one guess at a passphrase costs; it is written into the gallery, and bounded when read from it.

    Attributes:
        log_n: Binary logarithm of N, 15 to 18.
        r: Size of a block, 8. Memory is 128 * r * N bytes, 256 MiB at most.
        p: Passes, 1 to 4.

    Raises:
        GalleryDamaged: when a value lies outside: a header must not make its reader spend gigabytes or hours.
    """

    log_n: int = 17
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        if not (15 <= self.log_n <= 18 and self.r == 8 and 1 <= self.p <= 4):
            raise GalleryDamaged(
                f"The gallery asks for scrypt with N=2^{self.log_n}, r={self.r} and p={self.p}, which is not allowed.",
                hint="N is 2^15 to 2^18, r 8, p 1 to 4. The file was changed, or is not a gallery.",
            )


@dataclass(frozen=True, eq=False)
class DeploymentKey:
    """What a gallery is sealed under.

    Attributes:
        way: ``file`` for random bytes, ``passphrase`` for text that somebody remembers.
        secret: The bytes. They are not shown, and Python cannot promise to wipe them from memory.
        origin: What messages call it, such as its file.

    Raises:
        UsageError: when it is weak.
    """

    way: Way
    secret: bytes = field(repr=False)
    origin: str = "The key"

    def __post_init__(self) -> None:
        (_refuse_weak_key if self.way == "file" else _refuse_weak_passphrase)(self.secret, self.origin)

    @classmethod
    def generate(cls) -> Self:
        """32 bytes from the operating system."""
        return cls("file", secrets.token_bytes(KEY_BYTES), "The new key")

    @classmethod
    @checked
    def from_passphrase(cls, text: str, origin: str = "The passphrase") -> Self:
        """A passphrase as it is typed; accents and compatible forms are brought to one form (NFKC).

        Raises:
            UsageError: when it is too short or too uniform.
        """
        return cls("passphrase", unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass"), origin)

    @classmethod
    @checked
    def read(cls, path: PathLike) -> Self:
        """A key from its file, which nobody but its owner, and a group that may only read it, can open.

        Others are refused, and not warned about: whoever reads the key opens every copy of the gallery, and a
        warning in a service's log is not read.

        Raises:
            UsageError: when it cannot be read, others can read it, or it is weak.
        """
        return cls("file", read_private(Path(path), "key"), str(path))

    @classmethod
    @checked
    def read_passphrase(cls, path: PathLike) -> Self:
        """A passphrase from the only line of a text file; see `read`.

        Raises:
            UsageError: when it cannot be read, others can read it, it is not one line of UTF-8, or it is weak.
        """
        content = read_private(Path(path), "passphrase")
        try:
            text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{path} does not hold text.", hint="A file of random bytes is given with --key."
            ) from error
        if not text.isprintable():
            raise UsageError(f"{path} is not one line of text.", hint="Write the passphrase alone into it.")
        return cls.from_passphrase(text, str(path))

    def derive(self, salt: bytes, cost: ScryptCost, length: int) -> bytes:
        """Bytes that only who has the key can compute.

        Args:
            salt: 32 random bytes of the gallery.
            cost: Of scrypt; a key file does without.
            length: Bytes wanted.

        Raises:
            GalleryError: when there is not enough memory for scrypt.
        """
        material = self.secret
        if self.way == "passphrase":
            try:
                material = Scrypt(salt=salt, length=32, n=1 << cost.log_n, r=cost.r, p=cost.p).derive(material)
            except MemoryError as error:
                raise GalleryError(
                    f"There is no memory for scrypt, which takes {128 * cost.r << cost.log_n >> 20} MiB.",
                    hint="Free some, or seal the gallery under a key file.",
                ) from error
        return HKDF(SHA256(), length, salt, b"bauta gallery 1 deployment key " + self.way.encode()).derive(material)

    def same_as(self, other: DeploymentKey) -> bool:
        """Whether both are one key."""
        return self.way == other.way and hmac.compare_digest(self.secret, other.secret)


@checked
def create_key_file(path: PathLike) -> None:
    """Write a new key, 32 bytes from the operating system that only the owner can read; nothing is overwritten.

    Raises:
        OutputExists: when there is a file of that name: galleries may be sealed under it.
        OutputError: when it cannot be written.
    """
    if os.path.lexists(path):
        raise OutputExists(
            f"{path} exists already, and a key is never overwritten: galleries sealed under it would be lost.",
            hint="Give another name with -o.",
        )
    write_atomically(Path(path), DeploymentKey.generate().secret, mode=0o600)


def read_private(path: Path, what: str, *, longest: int = LONGEST_KEY, hint: str = MAKE_ONE) -> bytes:
    """The bytes of a file that others than its owner, and a group that may only read it, cannot open.

    Args:
        path: Of the file.
        what: What messages call it.
        longest: Bytes that it may have.
        hint: What to do when it is longer, and so something else.

    Raises:
        UsageError: when it cannot be read, others can read it, or it is too long.
    """
    try:
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            content = stream.read(longest + 1)
    except OSError as error:
        raise UsageError(
            f"The {what} {path} cannot be read: {error.strerror or error}.",
            hint="Check the name." + " `bauta key` makes a new one, which opens nothing old." * (what == "key"),
        ) from error
    if len(content) > longest:
        raise UsageError(f"{path} is longer than {longest} bytes: that is not a {what}.", hint=hint)
    if os.name == "posix" and stat.S_ISREG(found.st_mode) and found.st_mode & 0o027:
        raise UsageError(
            f"The {what} {path} is open to others than its owner (mode {stat.S_IMODE(found.st_mode):04o}).",
            hint=f"Run `chmod 600 {path}`, or 640 for a group that reads it. If others may have, make a new one.",
        )
    return content


def _refuse_weak_key(secret: bytes, origin: str) -> None:
    if secret and _is_text(secret):
        raise UsageError(
            f"{origin} holds text, not random bytes.",
            hint="Give a passphrase with --passphrase-file, which makes guesses slow. " + MAKE_ONE,
        )
    if len(secret) < KEY_BYTES:
        raise UsageError(f"{origin} has {len(secret)} bytes; a key has {KEY_BYTES} or more.", hint=MAKE_ONE)
    if len(set(secret)) < LEAST_DIFFERENT or _follows_a_pattern(secret):
        raise UsageError(f"{origin} follows a pattern: it is not random.", hint=MAKE_ONE)


def _refuse_weak_passphrase(secret: bytes, origin: str) -> None:
    text = secret.decode("utf-8", "surrogatepass")
    if len(text) < SHORTEST_PASSPHRASE:
        raise UsageError(
            f"{origin} has {len(text)} characters; a passphrase has {SHORTEST_PASSPHRASE} or more.",
            hint="Take six or more words drawn at random.",
        )
    if len(set(text)) < LEAST_CHARACTERS or _follows_a_pattern(secret):
        raise UsageError(f"{origin} repeats itself.", hint="Take six or more words drawn at random.")


def _is_text(content: bytes) -> bool:
    """Whether it decodes as printable text, which 32 random bytes do once in 10^12 keys."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def _follows_a_pattern(content: bytes) -> bool:
    """Whether it, or the steps from byte to byte, repeat: constant, ``abcabc``, or counting."""
    steps = bytes((after - before) % 256 for before, after in pairwise(content))
    return any(row[period:] == row[:-period] for row in (content, steps) for period in range(1, len(row) // 2 + 1))
