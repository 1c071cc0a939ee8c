"""What a protector makes of faces: numbers, and which recogniser and protector they are of.

On disk they are kept sealed, by `bauta.gallery`: there is no other way to store them. `Representation.to_bytes` is for
handing them from one process to another: safetensors, schema 2 (our design)::

    values                the tensor, in its storage type
    low, step             only for uint8: the range of each channel, (C,) float32
    bauta.representation  in the header's metadata: JSON of schema, kind, recognizer, recognizer_sha256, protector,
                          protector_sha256 and storage; epsilon where a face spends a budget

Such bytes hold no code, and no names: row i belongs to whoever the gallery says.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, cast, get_args

import numpy as np
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt
from bauta.privacy.mechanisms import Spent

Kind = Literal["image", "frequency", "feature", "template"]
Storage = Literal["float32", "float16", "uint8"]

SCHEMA = 2
UNSEALED_SCHEMA = 1  # of the galleries before they were sealed, which also name the key that locked them
SHORTEST_KEY = 16  # bytes
MOST_AXES = 8  # of a row
LARGEST_ROW = 1 << 32  # numbers

_SALT = secrets.token_bytes(32)  # of this process
_METADATA = "bauta.representation"
_AGAIN = "Protect the faces again."
_TYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}
_LITTLE = {"float32": "<f4", "float16": "<f2", "uint8": "u1"}
_TEXTS = ("kind", "recognizer", "recognizer_sha256", "protector", "protector_sha256", "storage")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RowFormat:
    """What all rows of a representation share, so that a row can be kept as bytes alone.

    Attributes:
        kind: See `Representation`, as for the next five.
        recognizer: Name.
        recognizer_sha256: Of its weights.
        protector: Name.
        protector_sha256: Of settings and learned parts.
        storage: Type of the numbers, little endian in bytes.
        shape: Of one row.
        low: Lowest value of each channel, for ``uint8``.
        step: Distance of neighbouring values in each channel, for ``uint8``.
        epsilon: See `Representation`.

    Raises:
        UsageError: when the shape is not of one to eight positive numbers, or epsilon is none.
    """

    kind: Kind
    recognizer: str
    recognizer_sha256: str
    protector: str
    protector_sha256: str
    storage: Storage
    shape: tuple[int, ...]
    low: tuple[float, ...] = ()
    step: tuple[float, ...] = ()
    epsilon: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        sides = self.shape
        _require_budget(self.epsilon)
        if not 1 <= len(sides) <= MOST_AXES or min(sides) < 1 or math.prod(sides) > LARGEST_ROW:
            raise UsageError(f"Rows cannot have shape {list(sides)}.", hint="Protect the faces again.")
        _require_names(self.kind, self.storage)

    @property
    def bytes_each(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape) * _TYPES[self.storage].itemsize

    def to_json(self) -> str:
        """All of it as JSON, for `from_json`."""
        about = {name: getattr(self, name) for name in _TEXTS} | _budget(self.epsilon)
        return json.dumps({**about, "shape": self.shape, "low": self.low, "step": self.step}, sort_keys=True)

    @property
    def spent(self) -> Spent | None:
        """What each face spends; None where the method promises nothing."""
        return Spent(self.protector, *self.epsilon) if self.epsilon else None

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """What `to_json` wrote.

        Raises:
            WeightsCorrupt: naming the field that is missing, unknown or of another type.
            UsageError: when a value is not allowed.
        """
        about = _read_object(text, dict.fromkeys(_TEXTS, str) | dict.fromkeys(("shape", "low", "step"), list))
        for name, kind in (("shape", int), ("low", float), ("step", float), ("epsilon", float)):
            if any(type(one) is not kind for one in about[name]):
                raise _wrong_field(name, f"a list of {kind.__name__}")
            about[name] = tuple(about[name])
        return cls(**about)


@dataclass(frozen=True, eq=False, repr=False)
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
        key: `check_value` of the key of the broken reference that turned it, or empty without
            one. It means something in this process only, and what has one is not stored.
        low: (C,) float32, the value that 0 stands for in each channel; only for ``uint8``.
        step: (C,) float32, positive, the distance between two neighbouring values; only for ``uint8``.
        epsilon: What each face spends of a budget of differential privacy: of its largest value, and of the photo;
            empty where the method promises nothing.

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
    epsilon: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require_names(self.kind, self.storage)
        _require_budget(self.epsilon)
        if self.tensor.dtype != _TYPES[self.storage] or self.tensor.dim() < 2 or not self.tensor[:1].numel():
            raise UsageError(
                f"A representation in {self.storage} was given {self.tensor.dtype} of shape {list(self.tensor.shape)}.",
                hint="Give (N, ...) numbers of the storage's type, for one face at least.",
            )
        for text in (self.recognizer_sha256, self.protector_sha256):
            if not _SHA256.fullmatch(text):
                raise UsageError(f"{text!r} is not a SHA-256.", hint="It has 64 lower-case hexadecimal digits.")
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

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.tensor.shape[1:]))
        return f"<Representation of {len(self)} faces: {self.kind} {shape} {self.storage}, by {self.protector}>"

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, rows: slice | Tensor) -> Representation:
        """The same of some faces; `rows` is a slice, or a tensor of indices or of truth values."""
        return replace(self, tensor=self.tensor[rows])

    @property
    def spent(self) -> Spent | None:
        """What each face spends of a budget of differential privacy; None where the method promises nothing."""
        return self.format.spent

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

    @property
    def format(self) -> RowFormat:
        """What its rows share."""
        ranges = [() if one is None else tuple(one.tolist()) for one in (self.low, self.step)]
        texts = {name: getattr(self, name) for name in _TEXTS}
        return RowFormat(
            **texts, shape=tuple(self.tensor.shape[1:]), low=ranges[0], step=ranges[1], epsilon=self.epsilon
        )

    def rows(self) -> list[memoryview]:
        """Each face's numbers as bytes, little endian; `from_rows` puts them together again."""
        numbers = self.tensor.detach().cpu().contiguous().numpy().astype(_LITTLE[self.storage], copy=False)
        return [row.data.cast("B") for row in numbers.reshape(len(numbers), -1)]

    @classmethod
    def from_rows(cls, form: RowFormat, rows: Sequence[bytes | memoryview]) -> Self:
        """The representation whose rows and format these are.

        Raises:
            UsageError: when there are no rows, one has another length, or a value is not allowed.
            NumericalFailure: when a number is NaN or infinite.
        """
        if not rows or any(len(row) != form.bytes_each for row in rows):
            raise UsageError("The rows do not have their format's length.", hint="Protect the faces again.")
        numbers = np.frombuffer(bytearray().join(rows), _LITTLE[form.storage]).reshape(len(rows), *form.shape)
        ranges = [torch.tensor(one, dtype=torch.float32) if one else None for one in (form.low, form.step)]
        texts = {name: getattr(form, name) for name in _TEXTS}
        tensor = torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("="), copy=False))
        return cls(tensor, **texts, low=ranges[0], step=ranges[1], epsilon=form.epsilon)

    def to_bytes(self) -> bytes:
        """All of it as bytes, for `from_bytes`. They are not sealed: files are written by `bauta.gallery`.

        Raises:
            UsageError: when a key of the broken reference turned it.
        """
        if self.key:
            raise UsageError(
                "What a key of AdvFace's reference turned is not handed on.", hint="Protect the faces without it."
            )
        about = {"schema": SCHEMA, **{name: getattr(self, name) for name in _TEXTS}, **_budget(self.epsilon)}
        tensors = {"values": self.tensor, "low": self.low, "step": self.step}
        return save_tensors(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if tensor is not None},
            metadata={_METADATA: json.dumps(about, sort_keys=True)},
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` wrote.

        Raises:
            WeightsCorrupt: saying which field, tensor or number is not as it must be.
        """
        return cls._read(content, {"schema": int} | dict.fromkeys(_TEXTS, str), SCHEMA)[0]

    @classmethod
    def from_unsealed(cls, content: bytes) -> tuple[Self, str]:
        """The content of a gallery that was written before galleries were sealed, for `bauta.gallery.upgrade` alone.

        Returns:
            What it holds, and the fingerprint of the key that locked it, empty without one.

        Raises:
            WeightsCorrupt: as `from_bytes`.
        """
        fields = {"schema": int, "key": str} | dict.fromkeys(_TEXTS, str)
        read, about = cls._read(content, fields, UNSEALED_SCHEMA)
        return read, about["key"]

    @classmethod
    def _read(cls, content: bytes, fields: dict[str, type], schema: int) -> tuple[Self, dict[str, Any]]:
        try:
            tensors = load_tensors(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            text = header.get("__metadata__", {}).get(_METADATA, "")
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError, RecursionError) as error:
            raise WeightsCorrupt("The content is not a whole safetensors file.", hint=_AGAIN) from error
        about = _read_object(text, fields)
        if about["schema"] != schema:
            raise WeightsCorrupt(f"Its schema is {about['schema']}, not {schema}.", hint="Update Bauta.")
        wanted = {"values", "low", "step"} if about["storage"] == "uint8" else {"values"}
        if set(tensors) != wanted:
            names = ", ".join(sorted(tensors)) or "none"
            raise WeightsCorrupt(f"It holds other tensors than {', '.join(sorted(wanted))}: {names}.", hint=_AGAIN)
        try:
            texts = {name: about[name] for name in _TEXTS}
            low, step = tensors.get("low"), tensors.get("step")
            return cls(tensors["values"], **texts, low=low, step=step, epsilon=tuple(about["epsilon"])), about
        except (UsageError, NumericalFailure) as error:
            raise WeightsCorrupt(error.message, hint=_AGAIN) from error


def _read_object(text: bytes | str, fields: dict[str, type]) -> dict[str, Any]:
    """A JSON object that has these fields of these very types, and no others."""
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers of too many digits
        raise WeightsCorrupt("What describes the representation is not JSON.", hint=_AGAIN) from error
    if type(about) is not dict:
        raise WeightsCorrupt("What describes the representation is not a JSON object.", hint=_AGAIN)
    about.setdefault("epsilon", [])  # of those that spend a budget alone
    fields = {**fields, "epsilon": list}
    for name, kind in fields.items():
        if type(about.get(name)) is not kind:  # a subclass will not do: True is an int
            raise _wrong_field(name, kind.__name__)
    if unknown := sorted(set(about) - set(fields)):
        raise WeightsCorrupt(f"What describes the representation has an unknown field: {unknown[0]!r}.", hint=_AGAIN)
    return about


def _budget(epsilon: tuple[float, ...]) -> dict[str, Any]:
    return {"epsilon": list(epsilon)} if epsilon else {}


def _require_budget(epsilon: tuple[float, ...]) -> None:
    good = all(type(one) is float and 0 < one < math.inf for one in epsilon)
    if epsilon and (len(epsilon) != 2 or not good or epsilon[0] > epsilon[1]):
        raise UsageError(
            f"A budget cannot be {epsilon!r}.", hint="It is what a value spends, and what the photo spends, above 0."
        )


def _wrong_field(name: str, kind: str) -> WeightsCorrupt:
    return WeightsCorrupt(f"What describes the representation has no {name!r} that is {kind}.", hint=_AGAIN)


def _require_names(kind: str, storage: str) -> None:
    if kind not in get_args(Kind):
        raise UsageError(f"A representation cannot be a {kind!r}.", hint=f"It is {_either(Kind)}.")
    if storage not in _TYPES:
        raise UsageError(f"Numbers cannot be stored as {storage!r}.", hint=f"Choose {_either(Storage)}.")


def check_value(key: bytes | None) -> str:
    """Tells keys of the reference apart in memory, empty without one; in another process the same key has another."""
    return "" if key is None else hmac.digest(_SALT, key, "sha256").hex()[:16]


def key_fingerprint(key: bytes | None) -> str:
    """An unsalted hash of a key of the broken reference (`bauta.templates.advface.keys`), empty without one.

    Only the benchmark names its cached files by it: its keys come from a seed. Nothing that is stored carries it,
    since equal keys have equal fingerprints everywhere, and a guessed key is confirmed by it at once.

    Raises:
        UsageError: when the key is shorter than `SHORTEST_KEY`.
    """
    if key is None:
        return ""
    if len(key) < SHORTEST_KEY:
        raise UsageError(f"The key has {len(key)} bytes.", hint=f"Use at least {SHORTEST_KEY} random ones.")
    return hashlib.sha256(b"bauta template key" + key).hexdigest()[:16]


def _either(literal: object) -> str:
    return " or ".join(get_args(literal))


def _per_channel(range_: Tensor, values: Tensor) -> Tensor:
    return range_.to(values.device).reshape(1, -1, *[1] * (values.dim() - 2))
