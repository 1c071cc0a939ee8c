"""Which recogniser and protector a store is of: one of each, and after a migration those of before, too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bauta.errors import OtherMaker


@dataclass(frozen=True)
class Maker:
    """Which recogniser and protector records are of.

    Attributes:
        recognizer: Name.
        recognizer_sha256: Of its weights.
        protector: Name of the method.
        protector_sha256: Of its settings and learned parts.
    """

    recognizer: str
    recognizer_sha256: str
    protector: str
    protector_sha256: str

    @cached_property
    def digests(self) -> tuple[bytes, bytes]:
        """Of recogniser and protector, 32 bytes each: what records are bound to."""
        return bytes.fromhex(self.recognizer_sha256), bytes.fromhex(self.protector_sha256)

    def require(self, other: Maker) -> None:
        """Let through who made this store.

        Raises:
            OtherMaker: naming what differs.
        """
        for what in ("recognizer", "protector"):
            one, another = ((getattr(of, what), getattr(of, f"{what}_sha256")) for of in (self, other))
            if one != another:
                names = f"{one[0]!r} ({one[1][:12]}), not {another[0]!r} ({another[1][:12]})"
                raise OtherMaker(
                    f"The {what} of this gallery is {names}.",
                    hint=f"Use the {what} it was made with; `bauta gallery migrate` moves to another.",
                )
