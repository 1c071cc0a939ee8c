"""Keys and ciphertexts of BFV. Microsoft SEAL, by TenSEAL, makes keys and encrypts; it is the door's alone.

Decryption is one exact product with the secret key, in the same arithmetic as the server's; tests have SEAL decrypt the
same ciphertexts. The public key is ours, for SEAL's has a random half that its maker could choose: a key with a = 0
reads the gallery out of c1. Here `a` is expanded from 32 bytes by SHAKE-256, so that it cannot be chosen.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.kernel import SLOT_OF, Residues, in_parts, is_reduced, joined, scaled
from bauta.encrypted.masking import random_errors
from bauta.encrypted.parameters import (
    CENTRED_BITS,
    DEGREE,
    PLAIN,
    PRIMES,
    SCHEME,
    SPECIAL_PRIME,
    VERSION,
    require_secure,
)
from bauta.encrypted.transform import multiply, reduce, transforms
from bauta.errors import UsageError, as_bauta_error

SEED = 32
_LABEL = f"bauta {SCHEME} {VERSION} public key".encode()


@dataclass(frozen=True, eq=False, repr=False)
class PublicKey:
    """What the server masks c1 with.

    Attributes:
        seed: 32 bytes, of which `a` is expanded.
        body: b = -(a s + e), (primes, 4096) in slots.

    Raises:
        UsageError: when it has another form.
    """

    seed: bytes
    body: Residues

    SIZE = SEED + 4 * len(PRIMES) * DEGREE

    def __post_init__(self) -> None:
        shape = (len(PRIMES), DEGREE)
        if len(self.seed) != SEED or self.body.shape != shape or not is_reduced(self.body, 0):
            raise UsageError("A public key has another form.", hint="`bauta encrypted keygen` makes keys.")

    @property
    def random(self) -> Residues:
        """`a`, (primes, 4096) in slots, from the seed alone."""
        return _expanded(self.seed)

    @property
    def halves(self) -> tuple[Residues, Residues]:
        """b and a."""
        return self.body, self.random

    def to_bytes(self) -> bytes:
        """`SIZE` bytes, for `from_bytes`."""
        return self.seed + self.body.astype("<u4").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The key of `to_bytes`.

        Raises:
            UsageError: when it has another form.
        """
        if len(content) != cls.SIZE:
            raise UsageError("A public key has another size.", hint="`bauta encrypted keygen` makes keys.")
        body = np.frombuffer(content, "<u4", offset=SEED).astype(np.uint32).reshape(len(PRIMES), DEGREE)
        return cls(content[:SEED], body)


@cache
def _expanded(seed: bytes) -> Residues:
    made = np.empty((len(PRIMES), DEGREE), np.uint32)
    for place, prime in enumerate(PRIMES):
        stream = hashlib.shake_256(_LABEL + bytes([place]) + seed).digest(8 * DEGREE)
        drawn = np.frombuffer(stream, "<u4") & np.uint32((1 << prime.bit_length()) - 1)
        kept = drawn[drawn < prime]
        assert len(kept) >= DEGREE, "half of 8192 words are below a prime with all but certainty"
        made[place] = kept[:DEGREE]
    made.setflags(write=False)
    return made


@cache
def seal() -> Any:
    """SEAL and its context, checked against our parameters.

    Raises:
        MissingExtra: when TenSEAL is not installed.
    """
    try:
        from tenseal import sealapi
    except ModuleNotFoundError as error:
        raise as_bauta_error(error) from error
    chosen = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    chosen.set_poly_modulus_degree(DEGREE)
    chosen.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, [27, 27, 28]))
    chosen.set_plain_modulus(PLAIN)
    primes = tuple(one.value() for one in chosen.coeff_modulus())
    context = sealapi.SEALContext(chosen, True, sealapi.SEC_LEVEL_TYPE.TC128)
    require_secure(DEGREE, primes, CENTRED_BITS)
    if not context.parameters_set() or primes != (*PRIMES, SPECIAL_PRIME):
        raise UsageError(
            f"SEAL does not take the parameters: {context.parameters_error_message()}.",
            hint='pip install "bauta[encrypted]" brings the version that was tested.',
        )
    return sealapi, context


@dataclass(frozen=True, eq=False)
class SecretKey:
    """The door's key. It is not shown, and Python cannot promise to wipe it from memory.

    Attributes:
        blob: As SEAL writes it.
    """

    blob: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A new one, by SEAL, whose randomness is the operating system's."""
        sealapi, context = seal()
        made = sealapi.KeyGenerator(context).secret_key()
        return cls(_written(made.save))

    def public(self) -> PublicKey:
        """A public key for it, new each time."""
        seed = secrets.token_bytes(SEED)
        errors, random = random_errors(1), _expanded(seed)
        body = np.empty((len(PRIMES), DEGREE), np.uint32)
        for place, each in enumerate(transforms()):
            product = multiply(self._slots[place], random[place].astype(np.float64)[:, None], each.prime)
            body[place] = reduce(-product - each.forward(errors), each.prime)[:, 0]
        return PublicKey(seed, body)

    def encrypt(self, polynomials: NDArray[np.float64]) -> Residues:
        """Ciphertexts of polynomials, by SEAL, with fresh randomness.

        Args:
            polynomials: (4096, rows) whole coefficients.

        Returns:
            (primes, 4096, rows, 2) in slots.
        """
        sealapi, _ = seal()
        rows = polynomials.shape[1]
        made = np.empty((rows, 2 * len(PRIMES) * DEGREE), np.uint32)
        for row in range(rows):
            answer = sealapi.Ciphertext()
            self._encryptor.encrypt_symmetric(sealapi.Plaintext(_text(polynomials[:, row])), answer)
            made[row] = np.fromiter(map(answer.dyn_array().at, range(made.shape[1])), np.uint32, made.shape[1])
        parts = made.reshape(rows, 2, len(PRIMES), DEGREE).transpose(2, 3, 0, 1)
        return to_slots(np.ascontiguousarray(parts))

    def decrypt(self, first: Residues, second: Residues, step: int) -> NDArray[np.uint32]:
        """Plaintext coefficients.

        Args:
            first: c0, (primes, 4096 / step, rows) coefficients.
            second: c1, (primes, 4096, rows) in slots.
            step: Which coefficients c0 has.

        Returns:
            (4096 / step, rows), below 2^21.
        """
        made = np.empty(first.shape, np.uint32)
        for place, each in enumerate(transforms()):
            product = multiply(second[place].astype(np.float64), self._slots[place], each.prime)
            made[place] = reduce(each.inverse(product, step) + first[place], each.prime)
        return scaled(joined(made))

    @property
    def _slots(self) -> list[NDArray[np.float64]]:
        return _opened(self.blob)[1]

    @property
    def _encryptor(self) -> Any:
        return _opened(self.blob)[0]


@cache
def _opened(blob: bytes) -> tuple[Any, list[NDArray[np.float64]]]:
    """SEAL's encryptor, and the key in slots, of which the coefficients must come out ternary."""
    sealapi, context = seal()
    key = sealapi.SecretKey()
    try:
        _read(lambda path: key.load(context, path), blob)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UsageError("A secret key is damaged.", hint="Take another copy of it, or make a new one.") from error
    read, slots = key.data().data, []
    for place, each in enumerate(transforms()):
        values = np.fromiter((read(place * DEGREE + one) for one in _REVERSED), np.float64, DEGREE)
        column = np.empty((DEGREE, 1))
        column[SLOT_OF, 0] = values
        secret = each.inverse(column)
        if not np.isin(secret, (0, 1, each.prime - 1)).all():
            raise UsageError("A secret key is not ternary.", hint="Make a new one with `bauta encrypted keygen`.")
        slots.append(column)
    return sealapi.Encryptor(context, key), slots


_REVERSED = [int(f"{one:012b}"[::-1], 2) for one in range(DEGREE)]  # SEAL's order of slots


def to_slots(coefficients: Residues) -> Residues:
    """Residues (primes, 4096, rows, 2), transformed."""
    made = np.empty_like(coefficients)
    for place, each in enumerate(transforms()):
        flat = coefficients[place].reshape(DEGREE, -1)
        for part in in_parts(flat.shape[1], 256):
            made[place].reshape(flat.shape)[:, part] = each.forward(flat[:, part].astype(np.float64))
    return made


def _text(coefficients: NDArray[np.float64]) -> str:
    """A polynomial as SEAL reads it: hexadecimal, powers falling."""
    powers = np.flatnonzero(coefficients)[::-1].tolist()
    return " + ".join(f"{int(coefficients[power]) % PLAIN:X}x^{power}" for power in powers) or "0"


def _written(save: Callable[[str], object]) -> bytes:
    """What SEAL writes; it knows files alone, and this one is in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("bauta")
        try:
            save(f"/proc/self/fd/{handle}")
            return os.pread(handle, os.fstat(handle).st_size, 0)
        finally:
            os.close(handle)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        save(str(path))
        return path.read_bytes()


def _read(load: Callable[[str], object], content: bytes) -> None:
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("bauta")
        try:
            os.write(handle, content)
            load(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.write_bytes(content)
        with suppress(OSError):
            path.chmod(0o600)
        load(str(path))
