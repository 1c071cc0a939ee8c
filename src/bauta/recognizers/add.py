"""New recognisers, from a file or an address: check a network against its card and keep both in BAUTA_HOME."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from bauta.errors import (
    OutputError,
    OutputExists,
    RecognizerError,
    UsageError,
    WeightsCorrupt,
    WeightsMissing,
)
from bauta.progress import Steps
from bauta.recognizers import catalog
from bauta.recognizers.cards import (
    LARGEST_WEIGHTS,
    ROLES,
    RecognizerCard,
    format_card,
    parse_card,
    read_card,
    verify_weights,
)
from bauta.recognizers.download import digest, fetch_file, fetch_text
from bauta.recognizers.examination import probes
from bauta.recognizers.isolation import IsolatedRecognizer, came_along
from bauta.tables import read_text

SAME_NETWORK = 1e-3  # two networks whose embeddings of the probes differ by less are one
MODEL_FILE = "model.onnx"

_DRAFT = ".adding-"
_ABANDONED = 3600  # seconds after which no process is still writing two files


def add_recognizer(model: Path, card: Path, *, home: Path | None = None) -> RecognizerCard:
    """Check a network and its card, and keep copies of both.

    The network must be one readable ONNX file with one image input, run in ONNX Runtime, and answer with as
    many numbers as the card says. It is tried in a process of its own, with limits on time and memory: see
    `bauta.recognizers.isolation`. With the role of a surrogate it must also pass the importer, agree with
    ONNX Runtime to 1e-4 and have finite gradients.

    Args:
        model: The ONNX file.
        card: TOML as `bauta.recognizers.cards` documents; ``schema``, ``format``, ``weights``,
            ``sha256`` and ``size`` may be left out here, and are filled in from the model.
        home: Where to keep them; BAUTA_HOME by default.

    Returns:
        The card as stored.

    Raises:
        UsageError: when the card is wrong, its name is taken, or the network is there under another name.
        WeightsMissing: when the model cannot be read.
        WeightsCorrupt: when it is not such a network, or not the file the card names.
        UnsupportedOperator: when a surrogate's graph cannot be imported exactly.
        NumericalFailure: when the network answers with NaN or infinity.
        LimitExceeded: when it takes too much time or memory.
        OutputError: when the copies cannot be written.
    """
    return _add(model, read_text(card, "the card"), origin=str(card), home=home or catalog.home())


def _add(model: Path, text: str, *, origin: str, home: Path) -> RecognizerCard:
    content = _read_model(model)
    found = hashlib.sha256(content).hexdigest()
    defaults = {"schema": 1, "format": "onnx", "weights": MODEL_FILE, "sha256": found, "size": len(content)}
    card = replace(parse_card(text, folder=model.parent, origin=origin, defaults=defaults), weights=model)
    if card.format != "onnx":
        raise UsageError(f"{origin}: only ONNX networks can be added.", hint='Set format = "onnx".')
    if card.size != len(content):
        raise WeightsCorrupt(
            f"{model} has {len(content)} bytes; the card of {card.name!r} says {card.size}.",
            hint="Is it the right file?",
        )
    require_free_name(card.name, home)
    _require_new(card, _examined(card))
    return _keep(card, content, home)


def require_free_name(name: str, home: Path) -> None:
    """Raise UsageError when a recogniser of that name exists."""
    if (home / "recognizers" / name).exists() or any(c.name == name for c in catalog.list_recognizers()):
        raise UsageError(f"A recogniser called {name!r} exists already.", hint="Choose another name in the card.")


def _read_model(model: Path) -> bytes:
    try:
        if model.exists() and not model.is_file():
            raise WeightsMissing(f"{model} is not a file.", hint="Give an ONNX file.")
        if model.stat().st_size > LARGEST_WEIGHTS:
            raise WeightsCorrupt(f"{model} is larger than {LARGEST_WEIGHTS} bytes.", hint="Is it the right file?")
        return model.read_bytes()
    except OSError as error:
        raise WeightsMissing(f"Cannot read {model}: {error.strerror or error}.", hint="Give an ONNX file.") from error


def _require_new(card: RecognizerCard, embeddings: NDArray[np.float32]) -> None:
    """Surrogates and judges are kept apart by the hash of their files, which saving a network anew changes."""
    for other in catalog.list_recognizers():
        if (other.dim, other.template) == (card.dim, card.template) and other.sha256 != card.sha256:
            with suppress(RecognizerError):  # an unusable neighbour is not a reason to refuse
                if np.abs(_answers(other) - embeddings).max() < SAME_NETWORK:
                    raise UsageError(
                        f"{card.name!r} answers as {other.name!r} does: it is the same network in another file.",
                        hint="Use the one that is there; one network under two names could attack and judge at once.",
                    )


def _examined(card: RecognizerCard) -> NDArray[np.float32]:
    """What the network says of the probes, once it has passed; nobody knows it, so it runs in a process of its own."""
    with IsolatedRecognizer(card) as recognizer:
        return recognizer.examine()


def _answers(card: RecognizerCard) -> NDArray[np.float32]:
    if came_along(card):
        from bauta.recognizers.judges import load_judge

        return load_judge(replace(card, roles=ROLES)).embed(probes(card))
    with IsolatedRecognizer(card) as recognizer:
        return recognizer.embed(probes(card))


def _keep(card: RecognizerCard, content: bytes, home: Path) -> RecognizerCard:
    """Write both files into a folder of their own and move it into place in one step."""
    parent = home / "recognizers"
    stored = replace(card, weights=parent / card.name / MODEL_FILE)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=parent) as temporary:
            folder = Path(temporary) / card.name
            folder.mkdir()
            (folder / MODEL_FILE).write_bytes(content)
            (folder / catalog.CARD_FILE).write_text(format_card(stored), encoding="utf-8")
            folder.rename(parent / card.name)
    except FileExistsError as error:
        raise OutputExists(f"{parent / card.name} exists already.", hint="Choose another name.") from error
    except OSError as error:
        raise OutputError(f"Cannot write to {parent}: {error.strerror}.", hint="Set BAUTA_HOME elsewhere.") from error
    return stored


def _remove_abandoned(parent: Path) -> None:
    """Remove what a killed process had begun to keep."""
    for folder in parent.glob(f"{_DRAFT}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder)


def pull(
    card: str | Path,
    *,
    mirror: str | None = None,
    file: Path | None = None,
    home: Path | None = None,
    insecure_loopback: bool = False,
    progress: Steps | None = None,
) -> RecognizerCard:
    """Fetch the network that a card names by ``url``, ``sha256`` and ``size``, and add it as `add_recognizer` does.

    An interrupted download is taken up where it stopped. Only https is used, also after redirects. A network that
    is here already is not fetched again, but one whose file is gone or damaged is.

    Args:
        card: A name in the catalogue (`bauta.recognizers.catalog.list_pullable`), a TOML file, or the https address
            of one.
        mirror: Where to fetch the weights instead of the card's ``url``: the address of a folder that has a file of
            the same name, or an address with ``{file}``, ``{name}`` or ``{sha256}`` in it. http to this machine
            itself is allowed.
        file: The weights, fetched by other means; nothing but an address as `card` is fetched then.
        home: Where to keep the network; BAUTA_HOME by default.
        insecure_loopback: Allow http to this machine itself everywhere, for tests.
        progress: Called with bytes done and bytes in all (0 when unknown).

    Returns:
        The card as stored.

    Raises:
        UnknownRecognizer: when the catalogue has no such name.
        UsageError: when the card is wrong or lacks ``url``, the address is not https, or the name is taken.
        WeightsMissing: when the file cannot be fetched or read.
        WeightsCorrupt: when it is not the file the card names.
        RecognizerError, OutputError: as `add_recognizer`.
    """
    if mirror is not None and file is not None:
        raise UsageError("The weights come from a mirror or from a file.", hint="Give only one of the two.")
    home = home or catalog.home()
    downloads = home / "cache" / "downloads"
    text, origin = _card_text(card, insecure_loopback)
    wanted = parse_card(
        text, folder=downloads, origin=origin, defaults={"schema": 1, "format": "onnx", "weights": MODEL_FILE}
    )
    present = _present(wanted, home)
    if present is not None:
        with suppress(RecognizerError):
            verify_weights(present)
            return present
    if file is not None:
        _check_file(file, wanted)
    elif not wanted.url and mirror is None:
        raise UsageError(f"{origin} has no url.", hint="Add the https address of the weights.")
    part = downloads / f"{wanted.sha256}.part"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        if file is not None:
            shutil.copyfile(file, part)
        else:
            fetch_file(
                wanted.url if mirror is None else _mirrored(wanted, mirror),
                part,
                sha256=wanted.sha256,
                size=wanted.size,
                insecure_loopback=insecure_loopback or (mirror or "").startswith("http:"),
                progress=progress,
            )
        if present is not None:
            part.replace(present.weights)
            return present
    except OSError as error:
        raise OutputError(f"Cannot write to {home}: {error.strerror}.", hint="Make room, or set BAUTA_HOME.") from error
    stored = _add(part, text, origin=origin, home=home)
    part.unlink(missing_ok=True)
    return stored


def _card_text(card: str | Path, insecure_loopback: bool) -> tuple[str, str]:
    """The card's TOML, and what to call it in errors."""
    if "://" in str(card):
        return fetch_text(str(card), insecure_loopback=insecure_loopback), str(card)
    path = Path(card)
    if isinstance(card, str) and path.name == card and path.suffix != ".toml":
        path = catalog.find_pullable(card)
    return read_text(path, "the card"), str(path)


def _present(wanted: RecognizerCard, home: Path) -> RecognizerCard | None:
    """The same card as `home` has it; None when the name is free."""
    path = home / "recognizers" / wanted.name / catalog.CARD_FILE
    with suppress(UsageError):  # a card that is not there, or cannot be read
        card = read_card(path)
        if replace(wanted, weights=card.weights, url=card.url, size=card.size) == card:
            return card
    require_free_name(wanted.name, home)
    return None


def _check_file(file: Path, wanted: RecognizerCard) -> None:
    """Weights from elsewhere must be those of the card; nothing is copied before."""
    hint = f"Fetch it again{f' from {wanted.url}' if wanted.url else ''}."
    try:
        size, found = file.stat().st_size, digest(file)
    except OSError as error:
        raise WeightsMissing(
            f"Cannot read {file}: {error.strerror or error}.", hint="Give the weights file."
        ) from error
    if wanted.size and size != wanted.size:
        raise WeightsCorrupt(f"{file} has {size} bytes; the card of {wanted.name!r} says {wanted.size}.", hint=hint)
    if found != wanted.sha256:
        raise WeightsCorrupt(
            f"{file} has SHA-256 {found}; the card of {wanted.name!r} says {wanted.sha256}.", hint=hint
        )


def _mirrored(card: RecognizerCard, mirror: str) -> str:
    name = PurePosixPath(card.url.partition("?")[0]).name or card.weights.name
    if "{" not in mirror:
        return f"{mirror.rstrip('/')}/{name}"
    for field, value in (("{file}", name), ("{name}", card.name), ("{sha256}", card.sha256)):
        mirror = mirror.replace(field, value)
    if "{" in mirror:
        raise UsageError(f"The mirror {mirror} has an unknown field.", hint="Use {file}, {name} and {sha256}.")
    return mirror
