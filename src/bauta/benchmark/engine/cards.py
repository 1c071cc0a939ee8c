"""Result cards: one row of a table with everything it rests on, as JSON.

There are two families: cards of photos are of schema `bauta.benchmark/2` (``card.schema.json``), cards of what a face
service stores of schema `bauta.templates/1` (``template_card.schema.json``). A card is written when its row is done, in
one piece, and ``complete`` is its last field; whatever lacks it is refused. The results follow from the records, which
keep every similarity, by `bauta.benchmark.photos.results.summarise`; of template cards those of recovery and replay, by
`bauta.benchmark.stores.run.summarise`. All that may differ when a run is repeated stands in ``run``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import bauta
from bauta import metrics
from bauta.benchmark.engine.schema import card_schema, check
from bauta.benchmark.protocols import Cell
from bauta.errors import UsageError
from bauta.files import make_folder, write_atomically
from bauta.metrics import Interval

SCHEMA = "bauta.benchmark/2"
TEMPLATES = "bauta.templates/1"

Card = dict[str, Any]


def finish(card: Mapping[str, Any], family: str = SCHEMA) -> Card:
    """The card with its schema first and ``complete`` last, checked.

    Raises:
        UsageError: when it does not follow the schema.
    """
    whole = {"schema": family, **card, "complete": True}
    check(whole, card_schema(family), "card")
    return whole


def to_json(card: Card) -> str:
    """The text of a card: a record a line, so that two cards can be compared line by line."""
    lists = {key: card[key] for key in ("records", "examples")}
    text = json.dumps({**card, **{key: f"@{key}@" for key in lists}}, indent=1, ensure_ascii=False, allow_nan=False)
    for key, rows in lists.items():
        lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
        text = text.replace(f'"@{key}@"', f"[\n{lines}\n ]" if rows else "[]", 1)
    return text + "\n"


def write_card(card: Card, path: Path) -> None:
    """Write a card in one piece; an earlier one is replaced.

    Raises:
        OutputError: when it cannot be written.
    """
    make_folder(path.parent)
    write_atomically(path, to_json(card).encode(), overwrite=True)


def read_card(path: Path, family: str = SCHEMA) -> Card:
    """A finished card of a family.

    Raises:
        UsageError: when the file is none: not readable, of another schema, interrupted, or edited.
    """
    try:
        card: Card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.", hint="Give result cards.") from error
    except ValueError as error:
        raise UsageError(
            f"{path} is no JSON, or the beginning of some.",
            hint="Run the benchmark again; it goes on where it stopped.",
        ) from error
    schema = card.get("schema") if isinstance(card, dict) else None
    if schema != family:
        what = f"a card of schema {schema!r}" if isinstance(schema, str) else "no result card"
        raise UsageError(
            f"{path} is {what}; this command reads {family!r}.",
            hint="Run its benchmark again, or give cards of the other kind.",
        )
    if card.get("complete") is not True:
        raise UsageError(f"{path} is not complete.", hint="Run the benchmark again; it goes on where it stopped.")
    check(card, card_schema(family), path.name)
    return card


def timeless(card: Card) -> Card:
    """A card without time and machine: what a repeated run must give again."""
    return {key: value for key, value in card.items() if key != "run"}


# Provenance


@cache
def code() -> dict[str, str]:
    """Version, commit and digest of the code and its data; the commit is "" where there is no version control."""
    package = Path(bauta.__file__).parent
    return {"bauta": bauta.__version__, "commit": _commit(package), "sha256": source_digest((".",))}


@cache
def source_digest(places: tuple[str, ...]) -> str:
    """SHA-256 over files of the package, or all of folders, code and data."""
    package, total = Path(bauta.__file__).parent, hashlib.sha256()
    for place in places:
        for path in sources(package / place):
            total.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def sources(place: Path) -> list[Path]:
    """The files of a folder of the package, code and data, or the one file, in order.

    A place that is gone, because it was renamed, would silently drop out of every digest that names it.
    """
    if place.is_file():
        return [place]
    assert place.is_dir(), f"{place} is not there, and a digest of code names it"
    return sorted(
        path
        for path in place.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(place).parts)
    )


def _commit(package: Path) -> str:
    git = shutil.which("git")
    if git is None:
        return ""

    def ask(*words: str) -> str | None:
        done = subprocess.run([git, "-C", str(package), *words], capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else None

    # An environment inside somebody's repository is not that repository.
    if ask("ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    return ask("describe", "--always", "--dirty") or ""


def machine() -> dict[str, str]:
    """System, processor and the versions of what computes."""
    facts = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }
    for package in ("torch", "numpy", "pillow", "onnxruntime", "dlib-bin", "opencv-python-headless"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


# Comparison


@dataclass(frozen=True)
class Difference:
    """One figure of two cards on the pairs that both have.

    Attributes:
        name: The transport, or the measure of quality.
        first: The mean of the first card.
        second: The mean of the second.
        difference: Second less first, pair by pair; the interval resamples people.
        pairs: Pairs it rests on.
    """

    name: str
    first: float
    second: float
    difference: Interval
    pairs: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0


def compare(first: Card, second: Card) -> list[Difference]:
    """Paired differences of dodging success under each common transport, and of quality.

    A pair counts for a judge that recognised the unprotected photo. Judges that a side attacked are left out, unless
    that leaves none.

    Raises:
        UsageError: when the cards share no pairs or no judges, or a judge is another network or has another threshold.
    """
    rows = _common_records(first, second)
    limits = _common_judges(first, second)
    people = [record["subject"] for record in rows[0]]
    found = []
    common: list[str] = [name for name in first["transports"] if name in second["transports"]]
    if all("cells" in record for side in rows for record in side):
        common += [Cell.GALLERY, Cell.BOTH]
    for where in common:
        sides = [np.array([dodged(record, where, limits) for record in side], dtype=np.float64) for side in rows]
        found.append(_difference(f"dodging, {where}", sides[0], sides[1], people))
    for measure in first["results"]["quality"]:
        values = [[record["quality"].get(measure) for record in side] for side in rows]
        pair = [np.array([np.nan if value is None else value for value in side])[:, None] for side in values]
        found.append(_difference(measure, pair[0], pair[1], people))
    return [difference for difference in found if difference is not None]


def _common_records(first: Card, second: Card) -> tuple[list[Any], list[Any]]:
    """The records of the pairs that both cards have, in one order."""
    one, other = (
        {tuple(record["sha256"]): record for record in card["records"] if not record["failure"]}
        for card in (first, second)
    )
    keys = [key for key in one if key in other]
    if not keys:
        raise UsageError(
            f"{first['name']} and {second['name']} share no pairs.", hint="Compare rows that ran on the same photos."
        )
    return [one[key] for key in keys], [other[key] for key in keys]


def dodged(record: Mapping[str, Any], where: str, limits: Mapping[str, float]) -> list[float]:
    """For each judge 1 when it no longer matches the photos, 0 when it does, NaN when it never did.

    Args:
        record: Of a pair.
        where: A transport, or a cell of `bauta.benchmark.protocols.Cell`.
        limits: Thresholds of the judges.
    """
    scores = similarities(record, where)
    return [
        float(scores[name] < limit) if record["before"][name] >= limit else np.nan for name, limit in limits.items()
    ]


def similarities(record: Mapping[str, Any], where: str) -> Mapping[str, float]:
    """What judges say of a pair after a transport, or in a cell: by name."""
    if where == Cell.NEITHER:
        before: Mapping[str, float] = record["before"]
        return before
    if where in (Cell.GALLERY, Cell.BOTH):
        return {name: scores[where] for name, scores in record["cells"].items()}
    after: Mapping[str, Mapping[str, float]] = record["after"]
    return after["saved" if where == Cell.PROBE else where]


def _common_judges(first: Card, second: Card) -> dict[str, float]:
    sides = [{judge["name"]: judge for judge in card["judges"]} for card in (first, second)]
    names = [name for name in sides[0] if name in sides[1]]
    for name in names:
        one, other = sides[0][name], sides[1][name]
        if one["sha256"] != other["sha256"] or one["threshold"]["cosine"] != other["threshold"]["cosine"]:
            raise UsageError(
                f"{name} is not the same judge in both cards.",
                hint="Compare cards of one set of weights and thresholds.",
            )
    kept = [name for name in names if not any(side[name]["attacked"] for side in sides)] or names
    if not kept:
        raise UsageError("The cards share no judge.", hint="Compare rows with the same judges.")
    return {name: sides[0][name]["threshold"]["cosine"] for name in kept}


def _difference(name: str, first: metrics.Array, second: metrics.Array, people: Sequence[str]) -> Difference | None:
    """None when a judge, or the measure, has no value on both sides."""
    both = ~(np.isnan(first) | np.isnan(second))
    columns = both.any(0)
    if not columns.any():
        return None
    one, other = (np.where(both, side, np.nan)[:, columns] for side in (first, second))
    interval = metrics.bootstrap_by_subject(other - one, people)
    means = [float(np.nanmean(side, axis=0).mean()) for side in (one, other)]
    return Difference(name, means[0], means[1], interval, int(both.any(1).sum()))
