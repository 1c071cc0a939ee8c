"""The numbers of the scheme, and the check that they are secure.

BFV (Fan and Vercauteren 2012) in R = Z[X]/(X^4096 + 1). Ciphertexts have two primes; SEAL wants a third for its keys,
and it is the modulus of all three that the tables of HomomorphicEncryption.org bound. The plaintext modulus is a power
of two, so that what a masked answer decrypts to is a share of the score without any conversion.
"""

from __future__ import annotations

import math

from bauta.errors import UsageError

VERSION = 1
"""Of the protocol; peers of another one are refused."""
SCHEME = "cryptomask-bfv"

DEGREE = 4096
PRIMES = (134111233, 134176769)
"""Of ciphertexts: 27 bits, so that products of a prime and half of another, summed 512 times, are exact in float64."""
SPECIAL_PRIME = 268369921
MODULUS = PRIMES[0] * PRIMES[1]
PLAIN_BITS = 21
PLAIN = 1 << PLAIN_BITS
SCALE = 512
"""What a unit vector is multiplied with; scores are in units of ``1 / SCALE**2`` of a cosine."""
LARGEST_DIMENSION = 1024
HALF = 14
"""Bits of the lower half of a residue."""

CENTRED_BITS = 21
"""Errors are the difference of two sums of so many bits, as SEAL's: standard deviation 3.24."""

_LARGEST_MODULUS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}


def require_secure(degree: int, primes: tuple[int, ...], centred_bits: int) -> None:
    """Let parameters through that give 128 bits of security against a classical attacker.

    Args:
        degree: Of the ring.
        primes: Of the keys, all of them.
        centred_bits: Bits in each sum of the error distribution.

    Raises:
        UsageError: when the modulus is longer than the table of the Homomorphic Encryption Standard (2018, ternary
            secrets, errors of standard deviation 3.2 or more) allows at this degree.

    >>> require_secure(DEGREE, (*PRIMES, SPECIAL_PRIME), CENTRED_BITS)
    """
    bits = math.prod(primes).bit_length()
    if degree not in _LARGEST_MODULUS or bits > _LARGEST_MODULUS[degree] or centred_bits < 21:
        raise UsageError(
            f"Degree {degree} with a modulus of {bits} bits is below 128 bits of security.",
            hint=f"The standard allows {_LARGEST_MODULUS.get(degree, 'no modulus')} bits at that degree.",
        )


require_secure(DEGREE, (*PRIMES, SPECIAL_PRIME), CENTRED_BITS)
