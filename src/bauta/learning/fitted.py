"""What a method learned: named tensors, where they come from, and one digest over all of it.

Both sides keep it: a mask that is fitted once for a person is one file (`Fitted`), a protector of a face service is a
folder whose card and parts are read and written by the functions here. Files are safetensors: reading one runs no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bauta.calls import checked
from bauta.errors import UsageError, WeightsCorrupt, WeightsMissing
from bauta.files import PathLike, write_atomically
from bauta.keys import DeploymentKey
from bauta.learning.sealing import ASK, is_sealed, seal, unseal, way_of

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "bauta.fitted/1"
LARGEST = 1 << 30
"""Bytes of a file of learned parts that is read."""

_HEADER = "bauta"
SECRET = "secret"  # noqa: S105 - a name
"""The part that holds the owner's secret, where there is one."""


@dataclass(frozen=True)
class Provenance:
    """Where learned parts come from, one line of text each.

    Attributes:
        data: The faces they were fitted on, with a digest where there is one.
        licence: Terms of the parts.
        seed: Of everything random in the fitting.
        training: How the fitting went, in plain values.
    """

    data: str = "none"
    licence: str = "not stated"
    seed: int = 0
    training: tuple[tuple[str, str | int | float | bool], ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Fitted:
    """What a cloak learned from a few photos of one person; for some methods this is the key that takes masks off.

    >>> import torch
    >>> fitted = Fitted("toy", {"epsilon": 8.0}, {"mask": torch.zeros(3, 2, 2)}, teachers=("mobilefacenet",))
    >>> Fitted.from_bytes(fitted.to_bytes()).sha256 == fitted.sha256
    True

    Attributes:
        method: Registered name of the cloak.
        settings: Of the cloak when it was fitted, as plain values (`Settings.to_dict`).
        parts: Tensors by name, at least one.
        teachers: Names of the recognisers that it was fitted against. They count as attacked: what they say of a photo
            with this mask confirms nothing.
        provenance: Where it comes from.
        version: Of the meaning of `parts`; a method counts it up when old parts no longer fit.
    """

    method: str
    settings: Mapping[str, object]
    parts: Mapping[str, Tensor]
    teachers: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    version: int = 1

    def __post_init__(self) -> None:
        if not self.parts:
            raise UsageError(f"{self.method} learned nothing that could be kept.", hint="Give at least one tensor.")

    def __repr__(self) -> str:
        return f"<Fitted {self.method} {self.sha256[:12]}: {', '.join(sorted(self.parts))}>"

    @cached_property
    def sha256(self) -> str:
        """Digest of everything here: a mask with one other number is another mask."""
        return digest(self._facts(), self.parts)

    def _facts(self) -> dict[str, Any]:
        about = self.provenance
        return {
            "schema": SCHEMA,
            "method": self.method,
            "version": self.version,
            "settings": dict(self.settings),
            "teachers": list(self.teachers),
            "data": about.data,
            "licence": about.licence,
            "seed": about.seed,
            "training": dict(about.training),
        }

    def to_bytes(self) -> bytes:
        """One safetensors file, whose header says the rest."""
        header = self._facts() | {"parts": sorted(self.parts), "sha256": self.sha256}
        return write_parts(self.parts, {_HEADER: _header_text(header)})

    @classmethod
    def from_bytes(
        cls, content: bytes, *, method: str | None = None, version: int | None = None, name: str = "The fitted file"
    ) -> Fitted:
        """What `to_bytes` made.

        Args:
            content: Of the file.
            method: The method that will use it; None for any.
            version: Of the parts that the method reads; None for any.
            name: What messages call the file.

        Raises:
            UsageError: when it was fitted by another method, or is of another version.
            WeightsCorrupt: when it is not such a file, or a byte changed, or tensors are missing or too many.
        """
        header = _read_header(content, name)
        parts = read_parts(content, name)
        wanted = header["parts"]
        if extra := sorted(parts.keys() - set(wanted)):
            raise WeightsCorrupt(f"{name} holds tensors that are not its own: {', '.join(extra)}.", hint=_AGAIN)
        if missing := sorted(set(wanted) - parts.keys()):
            raise WeightsCorrupt(f"{name} lacks the tensors {', '.join(missing)}.", hint=_AGAIN)
        fitted = cls(
            header["method"],
            header["settings"],
            parts,
            tuple(header["teachers"]),
            Provenance(header["data"], header["licence"], header["seed"], tuple(header["training"].items())),
            header["version"],
        )
        if fitted.sha256 != header["sha256"]:
            raise WeightsCorrupt(
                f"{name} says it is {header['sha256'][:12]}; what it holds is {fitted.sha256[:12]}.", hint=_AGAIN
            )
        fitted.require(method, version, name)
        return fitted

    def require(self, method: str | None, version: int | None, name: str = "The fitted file") -> None:
        """Let it pass when a method can use it; None stands for any.

        Raises:
            UsageError: when it was fitted by another method, or is of another version.
        """
        if method is not None and self.method != method:
            raise UsageError(
                f"{name} was fitted by {self.method} ({self.sha256[:12]}), not by {method}.",
                hint=f"Say --method {self.method}, or fit it again with {method}.",
            )
        if version is not None and self.version != version:
            raise UsageError(
                f"{name} ({self.sha256[:12]}) is of version {self.version} of {self.method}, which now reads "
                f"version {version}.",
                hint="Fit it again, or use the Bauta that made it.",
            )

    @property
    def secret(self) -> bytes | None:
        """What only the owner of a mask that can be taken off again has; None when it is not a key."""
        tensor = self.parts.get(SECRET)
        return None if tensor is None else bytes(tensor.cpu().numpy().tobytes())

    @checked
    def save(self, path: PathLike, *, key: DeploymentKey | None = None, overwrite: bool = False) -> None:
        """Write the file.

        Args:
            path: Where.
            key: Under which it is sealed; a mask that is a key is never written without one.
            overwrite: Whether a file may be replaced.

        Raises:
            UsageError: when it holds a secret and there is no key.
            OutputExists: when there is one already.
            OutputError: when it cannot be written.
        """
        if key is None and self.secret is not None:
            raise UsageError(
                f"What {self.method} learned is the key to its masks, and is not written unsealed.",
                hint="Give --key FILE, --passphrase-file FILE or --ask-passphrase.",
            )
        content = self.to_bytes() if key is None else seal(self.to_bytes(), key)
        write_atomically(Path(path), content, overwrite=overwrite, mode=0o666 if key is None else 0o600)

    @classmethod
    @checked
    def load(
        cls,
        path: PathLike,
        *,
        method: str | None = None,
        version: int | None = None,
        key: DeploymentKey | None = None,
    ) -> Fitted:
        """Read a file that `save` wrote.

        Args:
            path: Of the file.
            method: As for `from_bytes`.
            version: As for `from_bytes`.
            key: Of its owner, when it is sealed.

        Raises:
            WeightsMissing: when it cannot be read.
            WrongKey: when it is sealed under another key.
            UsageError: as `from_bytes`.
            WeightsCorrupt: as `from_bytes`.
        """
        content = read_content(Path(path), "The fitted file")
        if is_sealed(content):
            if key is None:
                way = way_of(content)
                raise UsageError(f"{path} is sealed.", hint=ASK[way] if way else "Take a copy that is whole.")
            content = unseal(content, key, str(path))
        return cls.from_bytes(content, method=method, version=version, name=str(path))


_AGAIN = "Take a copy that is whole, or fit it again with `bauta fit`."


def _read_header(content: bytes, name: str) -> dict[str, Any]:
    """The checked header of a fitted file."""
    try:
        table = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        (text,) = (table["__metadata__"][key] for key in (_HEADER,) if len(table["__metadata__"]) == 1)
        header = json.loads(text)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsCorrupt(f"{name} is not a fitted file of Bauta.", hint="`bauta fit` makes one.") from error
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        found = header.get("schema") if isinstance(header, dict) else None
        raise UsageError(
            f"{name} follows the schema {found!r}; this Bauta reads {SCHEMA!r}.", hint="Update Bauta, or fit it again."
        )
    kinds: dict[str, type] = {
        "method": str, "version": int, "settings": dict, "teachers": list, "data": str, "licence": str, "seed": int,
        "training": dict, "parts": list, "sha256": str,
    }  # fmt: skip
    for field_, kind in kinds.items():
        if type(header.get(field_)) is not kind:
            raise WeightsCorrupt(f"The header of {name} has no {field_}, or one of another type.", hint=_AGAIN)
    # What a reader would pass over, such as a blank, is not part of the digest: there is one way to write a header.
    if len(header) != len(kinds) + 1 or text != _header_text(header) or not _padded(content):
        raise WeightsCorrupt(f"The header of {name} was changed.", hint=_AGAIN)
    return header


def _header_text(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, ensure_ascii=False)


def _padded(content: bytes) -> bool:
    """Whether nothing but blanks fills up the table of a safetensors file."""
    return content[8 : 8 + int.from_bytes(content[:8], "little")].rstrip(b" ").endswith(b"}")


# Shared by fitted masks and protectors.


def digest(about: Any, parts: Mapping[str, Tensor]) -> str:
    """SHA-256 over plain values and tensors by name: who changes one makes another method."""
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(parts.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def write_parts(parts: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> bytes:
    """Tensors by name as a safetensors file, with texts in its header."""
    from safetensors.torch import save

    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in parts.items()}
    return save(kept, None if header is None else dict(header))


def read_content(path: Path, what: str) -> bytes:
    """The bytes of a file of learned parts.

    Raises:
        WeightsMissing: when it cannot be read.
        WeightsCorrupt: when it is too large to be one.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise WeightsMissing(f"{what} cannot be read: {path} is not a file.", hint="Check the name.")
        if path.stat().st_size > LARGEST:
            raise WeightsCorrupt(f"{path} is larger than {LARGEST} bytes.", hint="Is it the right file?")
        return path.read_bytes()
    except OSError as error:
        raise WeightsMissing(
            f"{what} cannot be read: {path}: {error.strerror or error}.", hint="Check the name, or fit it again."
        ) from error


def read_parts(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        WeightsCorrupt: when it is none.
    """
    import safetensors
    from safetensors.torch import load

    try:
        return load(content)
    except safetensors.SafetensorError as error:
        raise WeightsCorrupt(f"{name} is not a safetensors file: {error}.", hint="Fit it again.") from error
    except (LookupError, TypeError, ValueError, RuntimeError) as error:  # element types that torch has not
        raise WeightsCorrupt(
            f"{name} holds numbers of a type that nothing of Bauta writes.", hint="Fit it again."
        ) from error
