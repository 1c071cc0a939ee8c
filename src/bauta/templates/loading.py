"""What is asked of a fitted protector's files before anything is made of them: types, names, shapes and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bauta.errors import UsageError, WeightsCorrupt
from bauta.tables import LARGEST_NUMBER, one_line, parse_toml, plain, read_text, shown, within

SCHEMA = 1

_AGAIN = "Fit the protector again."
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TEXTS = ("method", "recognizer", "data", "licence")
_DIGESTS = ("sha256", "recognizer_sha256", "parts_sha256")
_TABLES = ("settings", "training")


@dataclass(frozen=True)
class ProtectorCard:
    """The card of a fitted protector, as `bauta.templates.base.Protector.save` writes it.

    Attributes:
        method: Name of the method.
        sha256: Of the protector.
        recognizer: Name of its recogniser.
        recognizer_sha256: Of that one's weights.
        parts_sha256: Of the file of learned parts; empty when nothing was learned.
        data: See `bauta.templates.base.Provenance`, as the next two.
        licence: Terms.
        seed: Of the fitting.
        settings: Of the method, plain values and lists of these.
        training: How the fitting went, plain values.
    """

    method: str
    sha256: str
    recognizer: str
    recognizer_sha256: str
    parts_sha256: str
    data: str
    licence: str
    seed: int
    settings: Mapping[str, Any]
    training: Mapping[str, Any]


def read_card(path: Path) -> ProtectorCard:
    """Read a card.

    Raises:
        UsageError: when it does not follow the schema, naming the field.
    """
    table = parse_toml(read_text(path, "the card"), str(path), hint=_AGAIN)

    def refuse(field: str, allowed: str, value: object) -> UsageError:
        return UsageError(f"{path}: {field} is {shown(value)}.", hint=f"It must be {allowed}. {_AGAIN}")

    schema = table.pop("schema", None)
    if isinstance(schema, bool) or schema != SCHEMA:
        raise UsageError(f"{path} does not have schema {SCHEMA}.", hint="Update Bauta, or fit the protector again.")
    table.setdefault("training", {})
    for field in (*_TEXTS, *_DIGESTS, "seed", *_TABLES):
        if field not in table:
            raise UsageError(f"{path}: {field} is missing.", hint=_AGAIN)
    if left := sorted(table.keys() - {*_TEXTS, *_DIGESTS, "seed", *_TABLES}):
        raise UsageError(f"{path}: unknown key {shown(left[0])}.", hint=f"Remove it. {_AGAIN}")
    for field in _TEXTS:
        if not one_line(table[field]):
            raise refuse(field, "one line of text", table[field])
    for field in _DIGESTS:
        empty = field == "parts_sha256" and table[field] == ""
        if not empty and not (isinstance(table[field], str) and _SHA256.fullmatch(table[field])):
            raise refuse(field, "64 lower-case hexadecimal digits", table[field])
    if not within(table["seed"], 0, LARGEST_NUMBER - 1) or isinstance(table["seed"], float):
        raise refuse("seed", "a whole number of at most 63 bits", table["seed"])
    for field in _TABLES:
        if not isinstance(table[field], dict):
            raise refuse(field, "a table", table[field])
        for key, value in table[field].items():
            values = value if isinstance(value, list) and field == "settings" else [value]
            if not _KEY.fullmatch(key) or not all(map(plain, values)):
                raise refuse(f"{field}.{key[:64]}", "one line of text, a finite number, true or false", value)
    return ProtectorCard(**table)


def require_finite(parts: Mapping[str, Tensor]) -> None:
    """Let learned parts through that are numbers.

    Raises:
        WeightsCorrupt: naming the first with NaN or infinity in it.
    """
    for name, tensor in sorted(parts.items()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsCorrupt(f"The learned part {shown(name)} holds NaN or infinity.", hint=_AGAIN)


def require_parts(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Let learned parts through that are exactly those of the settings: names, types and shapes.

    Args:
        found: The parts.
        wanted: Tensors of any numbers, also such without memory (``meta``).

    Raises:
        WeightsCorrupt: naming the first that differs.
    """
    for names, what in ((wanted.keys() - found.keys(), "is missing"), (found.keys() - wanted.keys(), "is not known")):
        if names:
            raise WeightsCorrupt(f"The learned parts do not fit the settings: {shown(min(names))} {what}.", hint=_AGAIN)
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise WeightsCorrupt(
                f"The learned part {shown(name)} is {_type(found[name])} of shape {shown(list(found[name].shape))}, "
                f"not {_type(tensor)} of shape {shown(list(tensor.shape))}.",
                hint=_AGAIN,
            )


def require_positive(parts: Mapping[str, Tensor], names: Iterable[str], *, zero: bool = False) -> None:
    """Let parts through that something is divided by, or whose root is taken; of those not there nothing is said.

    Raises:
        WeightsCorrupt: when one holds a number below zero, or zero where that is not allowed.
    """
    for name in names:
        if name in parts and not bool((parts[name] >= 0 if zero else parts[name] > 0).all()):
            raise WeightsCorrupt(f"The learned part {shown(name)} holds a number that is not positive.", hint=_AGAIN)


def require_order(parts: Mapping[str, Tensor], name: str, count: int) -> None:
    """Let a part through whose rows are orders of the numbers below `count`; of one not there nothing is said.

    Raises:
        WeightsCorrupt: when a number is missing or appears twice.
    """
    if name in parts and not bool((parts[name].sort(-1).values == torch.arange(count)).all()):
        raise WeightsCorrupt(f"The learned part {shown(name)} is not an order of {count} things.", hint=_AGAIN)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
