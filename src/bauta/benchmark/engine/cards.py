"""Result cards: one row of a table with everything it rests on, as JSON.

Every kind of table has a record of `bauta.benchmark.engine.records` that says what its cards hold. A card is written
when its row is done, in one piece, and ``complete`` is its last field; whatever lacks it is refused. Results follow
from the records of a card, which keep every similarity. All that may differ when a run is repeated stands in ``run``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, get_args, get_type_hints

import bauta
from bauta.benchmark.engine.records import CardRecord
from bauta.errors import UsageError
from bauta.files import make_folder, write_atomically
from bauta.schema import check, json_schema

Card = dict[str, Any]

_SCHEMAS: dict[str, dict[str, Any]] = {}


def schema_of(record: type[CardRecord]) -> str:
    """What the cards of a kind name as their schema."""
    (name,) = get_args(get_type_hints(record)["schema"])
    return str(name)


def card_schema(record: type[CardRecord]) -> dict[str, Any]:
    """The JSON schema of the cards of a kind."""
    name = schema_of(record)
    if name not in _SCHEMAS:
        _SCHEMAS[name] = json_schema(record, name, complete=True)
    return _SCHEMAS[name]


def finish(card: Mapping[str, Any], record: type[CardRecord]) -> Card:
    """The card with its schema first and ``complete`` last, checked.

    Raises:
        UsageError: when it does not follow the schema.
    """
    whole = {"schema": schema_of(record), **card, "complete": True}
    check(whole, card_schema(record), "card")
    return whole


def to_json(card: Card) -> str:
    """The text of a card: a record a line, so that two cards can be compared line by line."""
    lists = {key: card[key] for key in ("records", "examples") if key in card}
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


def read_card(path: Path, record: type[CardRecord]) -> Card:
    """A finished card of a kind.

    Raises:
        UsageError: when the file is none: not readable, of another schema, interrupted, or edited.
    """
    card: Card = _read(path)
    schema = _named(card)
    if schema != schema_of(record):
        raise UsageError(
            f"{path} is {f'a card of schema {schema!r}' if schema else 'not a result card'}; this command reads "
            f"{schema_of(record)!r}.",
            hint="Run its benchmark again, or give cards of the other kind.",
        )
    wanted = card_schema(record)
    if "complete" in wanted["required"] and card.get("complete") is not True:
        raise UsageError(f"{path} is not complete.", hint="Run the benchmark again; it goes on where it stopped.")
    check(card, wanted, path.name)
    return card


def named_schema(path: Path) -> str:
    """The schema that a file names; "" when it is not a result card.

    Raises:
        UsageError: when it cannot be read.
    """
    return _named(_read(path))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.", hint="Give result cards.") from error
    except ValueError as error:
        raise UsageError(
            f"{path} is not JSON, or only the beginning of it.",
            hint="Run the benchmark again; it goes on where it stopped.",
        ) from error


def _named(card: Any) -> str:
    schema = card.get("schema") if isinstance(card, dict) else None
    return schema if isinstance(schema, str) else ""


# Provenance


@cache
def code() -> dict[str, str]:
    """Version, commit and digest of the code and its data; the commit is "" where there is no version control."""
    package = Path(bauta.__file__).parent
    return {"bauta": bauta.__version__, "commit": _commit(package), "sha256": source_digest((".",))}


def digest(facts: Any) -> str:
    """SHA-256 of facts that JSON can say, whatever the order of their names: what decides a row."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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
