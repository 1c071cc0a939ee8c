"""Bring your own recogniser: check an ONNX network against its card and keep both in BAUTA_HOME."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bauta.errors import (
    NumericalFailure,
    OutputError,
    OutputExists,
    RecognizerError,
    UnsupportedOperator,
    UsageError,
    WeightsCorrupt,
    WeightsMissing,
)
from bauta.recognizers import catalog
from bauta.recognizers.cards import LARGEST_WEIGHTS, ROLES, RecognizerCard, format_card, parse_card

TOLERANCE = 1e-4  # largest difference between the importer's and ONNX Runtime's unit-norm embeddings
SAME_NETWORK = 1e-3  # two networks whose embeddings of the probes differ by less are one
LARGEST_CARD = 1 << 16
MODEL_FILE = "model.onnx"

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_recognizer(model: Path, card: Path, *, home: Path | None = None) -> RecognizerCard:
    """Check a network and its card, and keep copies of both.

    The network must be one readable ONNX file with one image input, run in ONNX Runtime, and answer with as
    many numbers as the card says. With the role of a surrogate it must also pass the importer, agree with
    ONNX Runtime to 1e-4 and have finite gradients.

    Args:
        model: The ONNX file.
        card: TOML as `bauta.recognizers.cards` documents; ``schema``, ``format``, ``weights`` and
            ``sha256`` may be left out here, and are filled in from the model.
        home: Where to keep them; BAUTA_HOME by default.

    Returns:
        The card as stored.

    Raises:
        UsageError: when the card is wrong, its name is taken, or the network is there under another name.
        WeightsMissing: when the model cannot be read.
        WeightsCorrupt: when it is no such network, or not the file the card names.
        UnsupportedOperator: when a surrogate's graph cannot be imported exactly.
        NumericalFailure: when the network answers with NaN or infinity.
        OutputError: when the copies cannot be written.
    """
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read the card {card}: {error}", hint="Give a TOML file.") from error
    return _add(model, text, origin=str(card), home=home or catalog.home())


def _add(model: Path, text: str, *, origin: str, home: Path) -> RecognizerCard:
    content = _read_model(model)
    found = hashlib.sha256(content).hexdigest()
    defaults = {"schema": 1, "format": "onnx", "weights": MODEL_FILE, "sha256": found}
    card = replace(parse_card(text, folder=model.parent, origin=origin, defaults=defaults), weights=model)
    if card.format != "onnx":
        raise UsageError(f"{origin}: only ONNX networks can be added.", hint='Set format = "onnx".')
    require_free_name(card.name, home)
    _check_graph(content, card)
    _check_answers(card)
    return _keep(card, content, home)


def require_free_name(name: str, home: Path) -> None:
    """Raise UsageError when a recogniser of that name exists."""
    if (home / "recognizers" / name).exists() or any(c.name == name for c in catalog.list_recognizers()):
        raise UsageError(f"A recogniser called {name!r} exists already.", hint="Choose another name in the card.")


def _read_model(model: Path) -> bytes:
    try:
        if model.stat().st_size > LARGEST_WEIGHTS:
            raise WeightsCorrupt(f"{model} is larger than {LARGEST_WEIGHTS} bytes.", hint="Is it the right file?")
        return model.read_bytes()
    except OSError as error:
        raise WeightsMissing(f"Cannot read {model}: {error.strerror or error}.", hint="Give an ONNX file.") from error


def _check_graph(content: bytes, card: RecognizerCard) -> None:
    """One image input of the card's size, one output; all in this one file."""
    from bauta.recognizers.onnx_graph import parse_graph

    graph, _ = parse_graph(content)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise WeightsCorrupt(
            f"The network of {card.name!r} has {len(inputs)} inputs and {len(graph.output)} outputs.",
            hint="A recogniser has one image input and one embedding: export it so.",
        )
    shape = [axis.dim_value or None for axis in inputs[0].type.tensor_type.shape.dim]
    wanted = (3, card.template.height, card.template.width)
    if len(shape) != 4 or any(size not in (None, want) for size, want in zip(shape[1:], wanted, strict=True)):
        raise WeightsCorrupt(
            f"The network of {card.name!r} reads {shape}, the card says (N, 3, {wanted[1]}, {wanted[2]}).",
            hint="Correct the card's template, or export the network in NCHW.",
        )


def _check_answers(card: RecognizerCard) -> None:
    from bauta.recognizers.judges import load_judge

    crops = _probes(card)
    expected = load_judge(replace(card, roles=ROLES)).embed(crops)
    for other in catalog.list_recognizers():
        # Surrogates and judges are kept apart by the hash of their files, which saving a network anew changes.
        if (other.dim, other.template) == (card.dim, card.template) and other.sha256 != card.sha256:
            with suppress(RecognizerError):  # an unusable neighbour is no reason to refuse
                if np.abs(load_judge(replace(other, roles=ROLES)).embed(crops) - expected).max() < SAME_NETWORK:
                    raise UsageError(
                        f"{card.name!r} answers as {other.name!r} does: it is the same network in another file.",
                        hint="Use the one that is there; one network under two names could attack and judge at once.",
                    )
    if "surrogate" not in card.roles:
        return
    import torch

    from bauta.recognizers.surrogates import load_surrogate

    images = torch.from_numpy(crops).requires_grad_()
    embeddings = load_surrogate(card)(images)
    difference = float(np.abs(embeddings.detach().numpy() - expected).max())
    if difference > TOLERANCE:
        raise UnsupportedOperator(
            f"As a torch module, {card.name!r} differs from ONNX Runtime by {difference:.1e}; "
            f"the limit is {TOLERANCE:g}.",
            hint="Add it as a judge only, and report the network.",
        )
    (gradient,) = torch.autograd.grad(embeddings.sum(), images)
    if not gradient.isfinite().all():
        raise NumericalFailure(f"The gradient of {card.name!r} holds NaN or infinity.", hint="Add it as a judge only.")


def _probes(card: RecognizerCard) -> NDArray[np.float32]:
    """Three crops: noise, something smooth with the contrast of a photo, and its negative."""
    height, width = card.template.height, card.template.width
    noise = np.random.default_rng(0).random((3, height, width), dtype=np.float32)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [0.5 + 0.3 * np.sin(7 * x + 3 * y * channel + channel) * np.cos(5 * y - 2 * x) for channel in range(3)]
    smooth = np.stack(waves).astype(np.float32)
    return np.stack([noise, smooth, 1 - smooth])


def _keep(card: RecognizerCard, content: bytes, home: Path) -> RecognizerCard:
    """Write both files into a folder of their own and move it into place in one step."""
    parent = home / "recognizers"
    stored = replace(card, weights=parent / card.name / MODEL_FILE)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=parent) as temporary:
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


def pull(
    card: str | Path,
    *,
    home: Path | None = None,
    insecure_loopback: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RecognizerCard:
    """Fetch the network that a card names by ``url`` and ``sha256``, and add it as `add_recognizer` does.

    An interrupted download is taken up where it stopped. Only https is used.

    Args:
        card: A TOML file, or the https address of one.
        home: Where to keep the network; BAUTA_HOME by default.
        insecure_loopback: Allow http to this machine itself, for tests and local mirrors.
        progress: Called with bytes done and bytes in all (0 when unknown).

    Returns:
        The card as stored.

    Raises:
        UsageError: when the card is wrong or lacks ``url``, the address is not https, or the name is taken.
        WeightsMissing: when the file cannot be fetched.
        WeightsCorrupt: when it is not the file the card names.
        RecognizerError, OutputError: as `add_recognizer`.
    """
    home = home or catalog.home()
    downloads = home / "cache" / "downloads"
    if "://" in str(card):
        address = str(card)
        text = _fetch_text(address, insecure_loopback)
    else:
        address = str(card)
        try:
            text = Path(card).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"Cannot read the card {card}: {error}", hint="Give a TOML file or its https address."
            ) from error
    wanted = parse_card(
        text,
        folder=downloads,
        origin=address,
        defaults={"schema": 1, "format": "onnx", "weights": MODEL_FILE},
    )
    if not wanted.url:
        raise UsageError(f"{address} has no url.", hint="Add the https address of the weights.")
    require_free_name(wanted.name, home)
    part = downloads / f"{wanted.sha256}.part"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        _download(wanted, part, insecure_loopback, progress)
    except OSError as error:
        raise OutputError(f"Cannot write to {part}: {error.strerror}.", hint="Make room, or set BAUTA_HOME.") from error
    stored = _add(part, text, origin=address, home=home)
    part.unlink(missing_ok=True)
    return stored


def _client(insecure_loopback: bool) -> Any:
    import httpx

    def only_https(request: httpx.Request) -> None:  # asked again for every redirect
        url = urlsplit(str(request.url))
        if url.scheme != "https" and not (insecure_loopback and url.scheme == "http" and url.hostname in _LOOPBACK):
            raise UsageError(f"{request.url} is not an https address.", hint="Use https.")

    return httpx.Client(follow_redirects=True, timeout=30, event_hooks={"request": [only_https]})


def _fetch_text(address: str, insecure_loopback: bool) -> str:
    import httpx

    try:
        with _client(insecure_loopback) as client, client.stream("GET", address) as response:
            response.raise_for_status()
            content = b""
            for block in response.iter_bytes():
                content += block
                if len(content) > LARGEST_CARD:
                    raise UsageError(f"{address} is too large for a card.", hint="Give the address of a TOML file.")
            return content.decode()
    except (httpx.HTTPError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise _unreachable(address, error) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{address} is not text.", hint="Give the address of a TOML file.") from error


def _download(
    card: RecognizerCard, part: Path, insecure_loopback: bool, progress: Callable[[int, int], None] | None
) -> None:
    import httpx

    done = part.stat().st_size if part.exists() else 0
    if done and _digest(part) == card.sha256:
        return None
    try:
        with (
            _client(insecure_loopback) as client,
            client.stream("GET", card.url, headers={"Range": f"bytes={done}-"} if done else {}) as response,
        ):
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
                return _download(card, part, insecure_loopback, progress)
            response.raise_for_status()
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
            if not resumed or response.status_code != httpx.codes.PARTIAL_CONTENT:
                done = 0
            total = done + int(response.headers.get("Content-Length", 0))
            with part.open("ab" if done else "wb") as file:
                for block in response.iter_bytes():
                    done += len(block)
                    if done > LARGEST_WEIGHTS:
                        break
                    file.write(block)
                    if progress is not None:
                        progress(done, total)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(card.url, error) from error
    found = _digest(part)
    if found != card.sha256:
        part.unlink()
        raise WeightsCorrupt(
            f"{card.url} gave a file with SHA-256 {found}, the card says {card.sha256}.",
            hint="The download was deleted: check the card, then try again.",
        )
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreachable(address: str, error: Exception) -> WeightsMissing:
    return WeightsMissing(
        f"{address} cannot be fetched: {error or type(error).__name__}",
        hint="Check the connection and run the command again: a download goes on where it stopped.",
    )
