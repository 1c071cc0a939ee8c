"""What a protector makes of faces, and what a service stores: numbers, and which recogniser and protector they are of.

A file of them is safetensors, schema 1 (our design)::

    values                the tensor, in its storage type
    low, step             only for uint8: the range of each channel, (C,) float32
    bauta.representation  in the header's metadata: JSON of schema, kind, recognizer, recognizer_sha256, protector,
                          protector_sha256, storage and key

Such a file holds no code. It holds no names either: row i belongs to whoever the gallery says.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt, WeightsMissing
from bauta.files import write_atomically

Kind = Literal["image", "frequency", "feature", "template"]
Storage = Literal["float32", "float16", "uint8"]

SCHEMA = 1
SHORTEST_KEY = 16  # bytes; a key that can be guessed is none
LARGEST_FILE = 8 << 30  # bytes

_METADATA = "bauta.representation"
_TYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}
_TEXTS = ("kind", "recognizer", "recognizer_sha256", "protector", "protector_sha256", "storage", "key")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Representation:
    """The protected form of N faces.

    Attributes:
        tensor: (N, ...), of the type that `storage` names.
        kind: What one row is: an ``image`` (3, 112, 112), ``frequency`` coefficients, a ``feature`` inside the
            recogniser, or a ``template`` (D,).
        recognizer: Name of the recogniser that reads it.
        recognizer_sha256: Of that recogniser's weights.
        protector: Name of the method that made it.
        protector_sha256: `Protector.sha256` of the protector that made it: settings and learned parts.
        storage: Type of the numbers.
        key: `key_fingerprint` of the key it was made with, or empty without one.
        low: (C,) float32, the value that 0 stands for in each channel; only for ``uint8``.
        step: (C,) float32, positive, the distance between two neighbouring values; only for ``uint8``.

    Raises:
        UsageError: when a value is not allowed or shapes disagree.
        NumericalFailure: when a number is NaN or infinite.
    """

    tensor: Tensor
    kind: Kind
    recognizer: str
    recognizer_sha256: str
    protector: str
    protector_sha256: str
    storage: Storage = "float32"
    key: str = ""
    low: Tensor | None = None
    step: Tensor | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"A representation cannot be a {self.kind!r}.", hint=f"It is {_either(Kind)}.")
        if self.storage not in _TYPES:
            raise UsageError(f"Numbers cannot be stored as {self.storage!r}.", hint=f"Choose {_either(Storage)}.")
        if self.tensor.dtype != _TYPES[self.storage] or self.tensor.dim() < 2 or not self.tensor[:1].numel():
            raise UsageError(
                f"A representation in {self.storage} was given {self.tensor.dtype} of shape {list(self.tensor.shape)}.",
                hint="Give (N, ...) numbers of the storage's type, for one face at least.",
            )
        for text in (self.recognizer_sha256, self.protector_sha256):
            if not _SHA256.fullmatch(text):
                raise UsageError(f"{text!r} is no SHA-256.", hint="It has 64 lower-case hexadecimal digits.")
        ranges = (self.low, self.step)
        channels = (self.tensor.shape[1],)
        if self.storage != "uint8":
            if ranges != (None, None):
                raise UsageError(f"{self.storage} has no ranges.", hint="Leave low and step out.")
        elif any(one is None or one.dtype != torch.float32 or tuple(one.shape) != channels for one in ranges):
            raise UsageError("uint8 needs the range of each channel.", hint="Give low and step, float32 of shape (C,).")
        elif not bool((cast(Tensor, self.step) > 0).all()):
            raise UsageError("A step of uint8 is not positive.", hint="Calibrate the ranges on faces.")
        for tensor in (self.tensor, *ranges):
            if tensor is not None and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NumericalFailure("A representation holds NaN or infinity.", hint="Check the faces and networks.")

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, rows: slice | Tensor) -> Representation:
        """The same of some faces; `rows` is a slice, or a tensor of indices or of truth values."""
        return replace(self, tensor=self.tensor[rows])

    @property
    def bytes_each(self) -> int:
        """Bytes that one face takes in storage. Ranges of ``uint8`` are the protector's and not counted."""
        return self.tensor[0].numel() * self.tensor.element_size()

    def values(self) -> Tensor:
        """(N, ...) float32, whatever the storage."""
        if self.low is None or self.step is None:
            return self.tensor.float()
        return self.tensor.float() * _per_channel(self.step, self.tensor) + _per_channel(self.low, self.tensor)

    def stored_as(self, storage: Storage, *, low: Tensor | None = None, high: Tensor | None = None) -> Representation:
        """The same in another storage.

        Args:
            storage: Type of the numbers.
            low: (C,) lowest value of each channel, for ``uint8``; what lies outside is clipped. Ranges come from a
                calibration set, never from the faces at hand, which they would tell something about.
            high: (C,) highest value.

        Raises:
            UsageError: when ``uint8`` has no ranges.
        """
        values = self.values()
        if storage != "uint8":
            if storage == "float16" and bool((values.abs() > torch.finfo(torch.float16).max).any()):
                raise UsageError("The values do not fit float16.", hint="Store them as float32.")
            return replace(self, tensor=values.to(_TYPES.get(storage)), storage=storage, low=None, step=None)
        if low is None or high is None:
            raise UsageError("uint8 needs the range of each channel.", hint="Give low and high.")
        step = ((high - low) / 255).clamp_min(1e-12).float()
        levels = (values - _per_channel(low, values)) / _per_channel(step, values)
        return replace(
            self, tensor=levels.round().clamp(0, 255).byte(), storage=storage, low=low.float().clone(), step=step
        )

    def require_same_maker(self, other: Representation) -> None:
        """Let through what can be compared: made for the same recogniser by the same protector.

        Raises:
            UsageError: naming what differs, with its hashes.
        """
        for what in ("recognizer", "protector"):
            self._require(what, getattr(other, what), getattr(other, f"{what}_sha256"))
        if (self.kind, self.tensor.shape[1:]) != (other.kind, other.tensor.shape[1:]):
            raise UsageError(
                f"A {self.kind} of shape {list(self.tensor.shape[1:])} does not compare with "
                f"a {other.kind} of shape {list(other.tensor.shape[1:])}.",
                hint="Protect both with the same protector.",
            )

    def require_maker(self, recognizer: tuple[str, str], protector: tuple[str, str]) -> None:
        """Let through what was made for this recogniser by this protector, each a name and a SHA-256.

        Raises:
            UsageError: naming what differs, with its hashes.
        """
        self._require("recognizer", *recognizer)
        self._require("protector", *protector)

    def _require(self, what: str, name: str, sha256: str) -> None:
        own = getattr(self, what), getattr(self, f"{what}_sha256")
        if own != (name, sha256):
            raise UsageError(
                f"The {what} of this representation is {own[0]!r} ({own[1][:12]}), not {name!r} ({sha256[:12]}).",
                hint=f"Use the {what} it was made with, or protect the faces again.",
            )

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write it as one safetensors file, whole or not at all.

        Raises:
            OutputExists: when the file is there already.
            OutputError: when it cannot be written.
        """
        about = {"schema": SCHEMA, **{name: getattr(self, name) for name in _TEXTS}}
        tensors = {"values": self.tensor, "low": self.low, "step": self.step}
        content = save_tensors(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if tensor is not None},
            metadata={_METADATA: json.dumps(about, sort_keys=True)},
        )
        write_atomically(path, content, overwrite=overwrite)


def load_representation(path: Path) -> Representation:
    """Read what `Representation.save` wrote.

    Raises:
        WeightsMissing: when the file cannot be read.
        WeightsCorrupt: when it is no such file, or damaged.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise WeightsCorrupt(f"{path} is larger than {LARGEST_FILE} bytes.", hint="Split it into several files.")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsMissing(f"{path} cannot be read: {error.strerror or error}.", hint="Check the name.") from error
    try:
        tensors = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"][_METADATA])
        if about.pop("schema") != SCHEMA or set(about) != set(_TEXTS):
            raise WeightsCorrupt(f"{path} follows another schema than {SCHEMA}.", hint="Update Bauta.")
        values = tensors.pop("values")
        return Representation(values, low=tensors.pop("low", None), step=tensors.pop("step", None), **about)
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise WeightsCorrupt(f"{path} holds no representation: {error}.", hint="Protect the faces again.") from error
    except UsageError as error:
        raise WeightsCorrupt(f"{path}: {error.message}", hint="Protect the faces again.") from error


def key_fingerprint(key: bytes | None) -> str:
    """What may be stored beside a representation to tell keys apart; empty without a key.

    The key cannot be computed from it, only guesses of the key tested, which is why a key has `SHORTEST_KEY` bytes.

    Raises:
        UsageError: when the key is shorter.
    """
    if key is None:
        return ""
    if len(key) < SHORTEST_KEY:
        raise UsageError(
            f"The key has {len(key)} bytes.", hint=f"Use at least {SHORTEST_KEY} random ones: `openssl rand 32`."
        )
    return hashlib.sha256(b"bauta template key" + key).hexdigest()[:16]


def _either(literal: object) -> str:
    return " or ".join(get_args(literal))


def _per_channel(range_: Tensor, values: Tensor) -> Tensor:
    return range_.to(values.device).reshape(1, -1, *[1] * (values.dim() - 2))
