"""What Bauta knows about a recogniser: its card, and the bytes the card vouches for.

A card is kept as TOML beside the weights. Its schema, version 1 (unknown keys are refused)::

    schema = 1
    name = "my_recognizer"          # letters, digits, "_", "-", "."; at most 64; no device of Windows, such as NUL
    architecture = "MobileFaceNet"  # free text, as are the next three
    training_set = "CASIA-WebFace"
    terms = "MIT"
    source = "https://example.org/model"
    format = "onnx"                 # or "safetensors" (`bauta.recognizers.packed`), or "dlib"
    weights = "model.onnx"          # file name, beside the card
    sha256 = "..."                  # of that file
    url = "https://..."             # optional: where `pull` fetches the file; only https
    size = 4000000                  # optional: of that file, in bytes
    roles = ["surrogate", "judge"]  # at least one
    dim = 512                       # length of the embedding
    colour = "RGB"                  # or "BGR": order of the channels the network reads
    mean = [0.5, 0.5, 0.5]          # x = (pixels in [0, 1] - mean) / std, in the order of `colour`
    std = [0.5, 0.5, 0.5]
    template = "arcface-112"        # a name in CROP_TEMPLATES, or a table (no side above 1024; points at most a
                                    # crop's size outside of it, and not all in one place):

    [template]
    height = 112
    width = 112
    points = [[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]]

    [training]                      # optional: how the network came to be, in keys of one's own
    epochs = 12                     # one line of text, a number, true or false, or a list of these

A card has at most 64 KiB, and a line of text at most 4096 letters.

This module knows no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bauta.errors import RoleRefused, UsageError, WeightsCorrupt, WeightsMissing
from bauta.faces.crop_template import CROP_TEMPLATES, CropTemplate
from bauta.names import names_a_file
from bauta.tables import one_line, parse_toml, plain, read_text, shown, within

SCHEMA = 1
FORMATS = ("onnx", "safetensors", "dlib")
ROLES = frozenset({"surrogate", "judge"})
LARGEST_SIDE = 1024  # pixels of a crop; a card from elsewhere must not fill the memory
LARGEST_WEIGHTS = 1 << 30  # bytes; a file beyond this is not a recogniser for a laptop
LARGEST_MEAN = 1e3
SMALLEST_STD, LARGEST_STD = 1e-6, 1e6
LEAST_SPREAD = 1.0  # pixels from the landmarks' centre to the furthest: less says nothing of scale and rotation
LOOPBACK = ("127.0.0.1", "::1", "localhost")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TEXTS = ("architecture", "training_set", "terms", "source")

_STARTS: Mapping[object, str] = {"dlib": "dlib_resnet"}  # the start of a training that its recogniser is not named by

Scalar = str | int | float | bool


class Training(Mapping[str, Scalar | tuple[Scalar, ...]]):
    """How a network came to be, in keys of its card's own; lists become tuples, and nothing can be changed."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    def __getitem__(self, key: str) -> Scalar | tuple[Scalar, ...]:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


@dataclass(frozen=True)
class RecognizerCard:
    """A recogniser's description; the network computes on ``x = (pixels in [0, 1] - mean) / std``.

    Attributes:
        name: What to call it by.
        architecture: Free text.
        template: The aligned crop it reads.
        colour: Order of its input channels, ``RGB`` or ``BGR``.
        mean: Per channel, in the order of `colour`, on the scale [0, 1].
        std: The same, positive.
        dim: Length of the embedding.
        training_set: Free text.
        terms: Licence or conditions, free text.
        source: Where it comes from, free text.
        sha256: Of the weights file, lower-case hexadecimal.
        weights: Where that file is on this machine.
        format: ``onnx``, ``safetensors`` or ``dlib``.
        roles: What it may be used as: ``surrogate`` (attacked), ``judge`` (only evaluates), or both.
        url: Where the weights can be fetched, or empty.
        size: Of the weights file in bytes; 0 when not told.
        training: How the network came to be; empty when not told. Any mapping is taken and made a `Training`.

    Raises:
        UsageError: when a value is not allowed, naming it.
    """

    name: str
    architecture: str
    template: CropTemplate
    colour: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    training_set: str
    terms: str
    source: str
    sha256: str
    weights: Path
    format: str
    roles: frozenset[str]
    url: str = ""
    size: int = 0
    training: Mapping[str, Any] = Training({})

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _NAME.fullmatch(self.name) and names_a_file(self.name)):
            raise self._refusal("name", "letters, digits, '_', '-' and '.', at most 64, and a file name everywhere")
        for field in (*_TEXTS, "url"):
            if not one_line(getattr(self, field)):
                raise self._refusal(field, "one line of text")
        if self.url and not _fetchable(self.url):
            raise self._refusal("url", "an https address")
        self._check_input()
        if not (within(self.dim, 1, 65536) and isinstance(self.dim, int)):
            raise self._refusal("dim", "a whole number from 1 to 65536")
        if not (isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)):
            raise self._refusal("sha256", "64 lower-case hexadecimal digits")
        if not (within(self.size, 0, LARGEST_WEIGHTS) and isinstance(self.size, int)):
            raise self._refusal("size", f"a whole number of bytes, at most {LARGEST_WEIGHTS}")
        if self.format not in FORMATS:
            raise self._refusal("format", " or ".join(FORMATS))
        if not self.roles or not self.roles <= ROLES:
            raise self._refusal("roles", "surrogate, judge, or both")
        object.__setattr__(self, "training", Training(self.training))
        if not all(isinstance(key, str) and _KEY.fullmatch(key) for key in self.training):
            raise self._refusal("training", "a table with keys of letters, digits, '_' and '-', at most 64")
        for key, value in self.training.items():
            if not all(map(plain, value if isinstance(value, tuple) else (value,))):
                raise UsageError(
                    f"Card of the recogniser {self.name!r}: training.{key} is {shown(value)}.",
                    hint="It must be one line of text, a finite number, true or false, or a list of these.",
                )

    def _check_input(self) -> None:
        """How crops are cut, and made what the network reads."""
        if self.colour not in ("RGB", "BGR"):
            raise self._refusal("colour", "RGB or BGR")
        if len(self.mean) != 3 or not all(within(value, -LARGEST_MEAN, LARGEST_MEAN) for value in self.mean):
            raise self._refusal("mean", f"three numbers from {-LARGEST_MEAN:g} to {LARGEST_MEAN:g}, about 0.5")
        if len(self.std) != 3 or not all(within(value, SMALLEST_STD, LARGEST_STD) for value in self.std):
            raise self._refusal("std", f"three positive numbers from {SMALLEST_STD:g} to {LARGEST_STD:g}")
        size = (self.template.width, self.template.height)
        if max(size) > LARGEST_SIDE:
            raise self._refusal("template", f"a crop of at most {LARGEST_SIDE} pixels a side", size)
        for point in self.template.points:
            if not all(within(value, -side, 2 * side) for value, side in zip(point, size, strict=True)):
                raise self._refusal("template", "five points in the crop, or at most its size outside", point)
        centre = [sum(values) / 5 for values in zip(*self.template.points, strict=True)]
        if max(math.dist(point, centre) for point in self.template.points) < LEAST_SPREAD:
            raise self._refusal("template", "five landmarks of a face, not all in one place", self.template.points[0])

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, over the weights' own and all that decides which numbers they give for a face."""
        template = self.template
        points = [[float(x), float(y)] for x, y in template.points]
        channels = [[float(value) for value in values] for values in (self.mean, self.std)]
        facts = [self.sha256, self.format, self.colour, channels, template.height, template.width, points, self.dim]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _refusal(self, field: str, allowed: str, found: object = None) -> UsageError:
        value = shown(getattr(self, field) if found is None else found)
        held = "holds" if found is not None else "is"
        return UsageError(
            f"Card of the recogniser {shown(self.name)}: {field} {held} {value}.", hint=f"It must be {allowed}."
        )


def _fetchable(address: str) -> bool:
    """An https address; http to this machine itself stands in a card that is tried out."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    schemes = ("https", "http") if host in LOOPBACK else ("https",)
    return parts.scheme in schemes and bool(host) and not set(' "<>\\^`{|}') & set(address)


def read_card(path: Path) -> RecognizerCard:
    """Read a card from a TOML file; its weights are looked for beside it.

    Raises:
        UsageError: when the file cannot be read or does not follow the schema in the module's docstring.
    """
    return parse_card(read_text(path, "the card"), folder=path.parent, origin=str(path))


def parse_card(
    text: str, *, folder: Path, origin: str = "card", defaults: Mapping[str, Any] | None = None
) -> RecognizerCard:
    """Read a card from TOML text; `origin` is named in errors, `defaults` stand in for missing keys.

    Raises:
        UsageError: when the text does not follow the schema in the module's docstring.
    """
    reader = _Reader({**(defaults or {}), **parse_toml(text, origin)}, origin)
    if reader.take("schema", int, _whole) != SCHEMA:
        raise UsageError(f"{origin}: the schema is not {SCHEMA}.", hint="Update Bauta, or the card.")
    weights = reader.take("weights", str)
    if not names_a_file(weights):
        raise UsageError(
            f"{origin}: weights is {shown(weights)}.",
            hint="It must be a file name without folders, beside the card.",
        )
    card = RecognizerCard(
        name=reader.take("name", str),
        architecture=reader.take("architecture", str),
        template=_template(reader),
        colour=reader.take("colour", str),
        mean=_triple(reader, "mean"),
        std=_triple(reader, "std"),
        dim=reader.take("dim", int, _whole),
        training_set=reader.take("training_set", str),
        terms=reader.take("terms", str),
        source=reader.take("source", str),
        sha256=reader.take("sha256", str),
        weights=folder / weights,
        format=reader.take("format", str),
        roles=frozenset(reader.take("roles", list, lambda found: all(isinstance(one, str) for one in found))),
        url=reader.take("url", str, default=""),
        size=reader.take("size", int, _whole, default=0),
        training=reader.take("training", dict, default={}),
    )
    reader.finish()
    return card


def format_card(card: RecognizerCard) -> str:
    """The card as TOML text that `parse_card` reads back equal."""
    template = card.template
    known = CROP_TEMPLATES.get(template.name) == template
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "name": card.name,
        **{field: getattr(card, field) for field in _TEXTS},
        "format": card.format,
        "weights": card.weights.name,
        "sha256": card.sha256,
        **({"url": card.url} if card.url else {}),
        **({"size": card.size} if card.size else {}),
        "roles": sorted(card.roles),
        "dim": card.dim,
        "colour": card.colour,
        "mean": [float(value) for value in card.mean],
        "std": [float(value) for value in card.std],
        **({"template": template.name} if known else {}),
    }
    # JSON's strings, numbers and flat lists are TOML's, once characters below 32 are excluded.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    if not known:
        points = json.dumps([[float(x), float(y)] for x, y in template.points])
        lines += ["", "[template]", f"height = {template.height}", f"width = {template.width}"]
        lines += [f"points = {points}"]
    if card.training:
        lines += ["", "[training]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in card.training.items()]
    return "\n".join(lines) + "\n"


def _whole(value: Any) -> bool:
    return not isinstance(value, bool)


def _anything(value: Any) -> bool:
    return True


_KINDS = {str: "one line of text", int: "a whole number", list: "a list, as the schema has it", dict: "a table"}


class _Reader:
    """Takes values out of a TOML table, and minds what is missing, mistyped or left over."""

    def __init__(self, table: Mapping[str, Any], origin: str) -> None:
        self.table = dict(table)
        self.origin = origin

    def take(
        self,
        key: str,
        kind: type | tuple[type, ...],
        accept: Callable[[Any], bool] = _anything,
        *,
        default: Any = None,
    ) -> Any:
        if key not in self.table and default is not None:
            return default
        if key not in self.table:
            raise UsageError(f"{self.origin}: {key} is missing.", hint="Add it; docs describe the schema.")
        value = self.table.pop(key)
        if not isinstance(value, kind) or not accept(value):
            wanted = " or ".join(_KINDS[one] for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise UsageError(f"{self.origin}: {key} is {shown(value)}.", hint=f"It must be {wanted}.")
        return value

    def finish(self) -> None:
        if self.table:
            raise UsageError(
                f"{self.origin}: unknown key {shown(min(self.table))}.", hint="Remove it, or correct its spelling."
            )


def _triple(reader: _Reader, key: str) -> tuple[float, float, float]:
    values = reader.take(key, list, lambda found: all(within(one, -math.inf, math.inf) for one in found))
    if len(values) != 3:
        raise UsageError(f"{reader.origin}: {key} has {len(values)} values.", hint="Give one per channel: 3.")
    first, second, third = (_number(value) for value in values)
    return first, second, third


def _number(value: float) -> float:
    """A number as floating point; one too large for it becomes infinite, which is then refused by its field."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _template(reader: _Reader) -> CropTemplate:
    value = reader.take("template", (str, dict))
    if isinstance(value, str):
        if value not in CROP_TEMPLATES:
            raise UsageError(
                f"{reader.origin}: template {shown(value)} is unknown.",
                hint=f"Use one of {', '.join(CROP_TEMPLATES)}, or give height, width and points.",
            )
        return CROP_TEMPLATES[value]
    inner = _Reader(value, f"{reader.origin}, template")
    height, width = inner.take("height", int, _whole), inner.take("width", int, _whole)
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise UsageError(
            f"{reader.origin}: the template has {shown(width)} by {shown(height)} pixels.",
            hint=f"A side has from 1 to {LARGEST_SIDE}.",
        )
    points = inner.take("points", list, _five_points)
    inner.finish()
    first, second, third, fourth, fifth = ((_number(x), _number(y)) for x, y in points)
    return CropTemplate(f"custom-{width}x{height}", height, width, (first, second, third, fourth, fifth))


def _five_points(value: list[Any]) -> bool:
    return len(value) == 5 and all(
        isinstance(point, list) and len(point) == 2 and all(within(one, -math.inf, math.inf) for one in point)
        for point in value
    )


def read_weights(card: RecognizerCard) -> bytes:
    """The weights file's bytes, checked against the card's SHA-256.

    Raises:
        WeightsMissing: when the file is not there or cannot be read.
        WeightsCorrupt: when it is too large or has another hash.
    """
    try:
        size = card.weights.stat().st_size
        if size > LARGEST_WEIGHTS:
            raise WeightsCorrupt(
                f"{card.weights} has {size} bytes; the limit is {LARGEST_WEIGHTS}.",
                hint="Is it the right file?",
            )
        content = card.weights.read_bytes()
    except OSError as error:
        raise _missing(card, error) from error
    _compare(card, hashlib.sha256(content).hexdigest())
    return content


def verify_weights(card: RecognizerCard) -> Path:
    """The weights' path, after the file's SHA-256 was checked; an unchanged file is read once per process.

    Raises:
        WeightsMissing: when the file is not there or cannot be read.
        WeightsCorrupt: when it has another hash.
    """
    try:
        status = card.weights.stat()
        _compare(card, _digest(card.weights.resolve(), status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise _missing(card, error) from error
    return card.weights


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(card: RecognizerCard, error: OSError) -> WeightsMissing:
    hint = f"`bauta recognizers pull` with its card fetches it from {card.url}." if card.url else "Put the file back."
    return WeightsMissing(
        f"The weights of {card.name!r} cannot be read: {card.weights}: {error.strerror or error}.", hint=hint
    )


def _compare(card: RecognizerCard, found: str) -> None:
    if found != card.sha256:
        raise WeightsCorrupt(
            f"{card.weights} has SHA-256 {found}; the card of {card.name!r} says {card.sha256}.",
            hint="The file is damaged or another one: fetch it again.",
        )


def require_role(card: RecognizerCard, role: str) -> None:
    """Let a card through that allows the role.

    Raises:
        RoleRefused: when it does not.
    """
    if role not in card.roles:
        raise RoleRefused(
            f"{card.name!r} may not be used as a {role}: its card says {', '.join(sorted(card.roles))} only.",
            hint="Choose another recogniser; `bauta recognizers list` shows the roles.",
        )


def taught_by(cards: Iterable[RecognizerCard]) -> frozenset[str]:
    """Names of the recognisers that networks learned from, as their cards tell: teachers, and where they started.

    What was distilled from a network errs where it errs, so that it is a poor witness against its student.
    """
    names: set[object] = set()
    for card in cards:
        teachers, start = card.training.get("teachers", ()), card.training.get("start")
        names |= {*(teachers if isinstance(teachers, tuple) else (teachers,)), _STARTS.get(start, start)}
    return frozenset(name for name in names if isinstance(name, str))


def separate(
    surrogates: Iterable[RecognizerCard], judges: Sequence[RecognizerCard], *, allow_attacked: bool = False
) -> frozenset[str]:
    """Check that no judge is the same network as a surrogate, by the weights' SHA-256.

    Args:
        surrogates: The networks that are attacked.
        judges: The networks that evaluate.
        allow_attacked: Let such judges pass; whoever reports their verdict must mark them as attacked.

    Returns:
        Names of the judges that are attacked; empty unless allowed.

    Raises:
        RoleRefused: when a network is on both sides and that was not allowed.
    """
    attacked = {card.sha256 for card in surrogates}
    both = frozenset(card.name for card in judges if card.sha256 in attacked)
    if both and not allow_attacked:
        raise RoleRefused(
            f"{', '.join(sorted(both))} cannot judge what it helped to make: it is also a surrogate.",
            hint="Take it out of one side.",
        )
    return both
