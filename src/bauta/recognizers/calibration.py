"""Decision thresholds from impostor pairs of a stated calibration set, with their provenance.

Calibrations are kept by the weights' SHA-256, so that a threshold never outlives its network: the user's in
``thresholds.json`` of `home`, which come first, and those that ship with the package. The digest is that of the card,
`RecognizerCard.digest`: what was calibrated with other colours, another normalisation or another crop does not count.
Calibrations from before there was one have none, and count. Schema, version 1::

    {"schema": 1,
     "recognizers": {SHA256: {"name": ..., "digest": ..., "calibration_set": ..., "calibration_sha256": ...,
                              "people": 1470, "images": 1549, "impostor_pairs": 1198000,
                              "date": "2026-01-31", "bauta": "0.1.0",
                              "cosine": {"0.01": 0.21, "0.001": 0.29, "0.0001": 0.36}}}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bauta.errors import NotCalibrated, UnreadablePhoto, UsageError
from bauta.faces.crop_template import ARCFACE_112, CropTemplate
from bauta.metrics import threshold_at_fmr
from bauta.names import normalise_name
from bauta.progress import Steps
from bauta.rates import FMRS
from bauta.recognizers.cards import ROLES, RecognizerCard
from bauta.recognizers.catalog import home
from bauta.recognizers.isolation import IsolatedRecognizer, came_along
from bauta.schema import Count, Sha256
from bauta.version import __version__

if TYPE_CHECKING:
    from bauta.recognizers.judges import Judge

SCHEMA = 1
ERRORS_WANTED = 30  # a rate is known to about a third when 30 errors are expected ("rule of 30", Doddington)
BATCH = 32

_SUFFIXES = {".webp", ".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Threshold:
    """From which cosine on a pair counts as the same person, and where that number comes from.

    Attributes:
        fmr: False match rate it was chosen for.
        cosine: A pair matches when its cosine similarity is at least this.
        impostor_pairs: How many pairs of different people it rests on.
        people: How many people those are.
        calibration_set: Name of the set of faces.
        calibration_sha256: Over the sorted relative paths and the SHA-256 of every file.
        date: ISO 8601, UTC.
    """

    fmr: float
    cosine: float
    impostor_pairs: Count
    people: Count
    calibration_set: str
    calibration_sha256: Sha256
    date: str


def threshold(card: RecognizerCard, fmr: float) -> Threshold:
    """The stored threshold of a recogniser at a false match rate.

    All thresholds of a recogniser come from one calibration: the user's when there is one, else the shipped
    one. An FMR that the user's does not reach is not filled in from the other.

    Raises:
        NotCalibrated: when none is stored for the card as it is, or the store cannot be read.
    """
    for store in (home() / "thresholds.json", files("bauta.recognizers") / "thresholds.json"):
        if not store.is_file():
            continue
        try:
            entry = json.loads(store.read_text(encoding="utf-8"))["recognizers"].get(card.sha256)
            if entry is not None and entry.get("digest", card.digest) != card.digest:
                entry = None  # the weights were read in another way then
            limits = [] if entry is None else list(_thresholds(entry))
            _check(limits)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise NotCalibrated(
                f"The thresholds in {store} cannot be read: they do not follow their schema.",
                hint="Delete the file and run `bauta recognizers calibrate` again.",
            ) from error
        for found in limits:
            if np.isclose(found.fmr, fmr, rtol=1e-6, atol=0):
                return found
        if entry is not None:
            break
    raise NotCalibrated(
        f"No threshold is stored for {card.name!r} at FMR {fmr:g}.",
        hint=f"`bauta recognizers calibrate` needs {ERRORS_WANTED / fmr:.0f} pairs of different people.",
    )


def calibrate(
    card: RecognizerCard,
    folder: Path,
    *,
    name: str | None = None,
    exclude: Collection[str] = (),
    store: Path | None = None,
    progress: Steps | None = None,
) -> tuple[Threshold, ...]:
    """Measure thresholds at FMR 1e-2, 1e-3 and 1e-4 on all pairs of different people, and store them.

    The network runs as a judge does, and in a process of its own with limits on time and memory where it did not come
    with Bauta. An FMR with fewer than 30 expected errors (30 / FMR pairs) is left out:
    its threshold would be chance.

    Args:
        card: The recogniser.
        folder: One folder per person with WebP, JPEG or PNG crops of 112x112 pixels, aligned to the ArcFace
            template; they are warped to other templates.
        name: The set's name in results; the folder's name by default.
        exclude: People to leave out, such as those of a benchmark's probes, in any spelling of `normalise_name`.
        store: JSON file to write to; ``thresholds.json`` of `home` by default.
        progress: Called with images done and images in all.

    Returns:
        One threshold per FMR that the pairs allow, highest FMR first.

    Raises:
        UsageError: when the folder has no such layout, an image has another size, there are fewer than
            3000 pairs, or the network cannot tell anybody apart.
        UnreadablePhoto: when an image cannot be read.
        RecognizerError: when the recogniser cannot be used.
        OutputError: when the store cannot be written.
    """
    paths = _find_crops(folder, exclude)
    people = [path.parent.name for path in paths]
    identity = np.unique(people, return_inverse=True)[1]
    counts = np.bincount(identity)
    pairs = int(len(paths) ** 2 - np.square(counts).sum()) // 2
    allowed = [fmr for fmr in FMRS if pairs >= ERRORS_WANTED / fmr]
    if not allowed:
        raise UsageError(
            f"{folder} gives {pairs} pairs of different people; FMR {FMRS[0]:g} needs {ERRORS_WANTED / FMRS[0]:.0f}.",
            hint="Add people: about 80 with one image each are enough for FMR 1e-2, 780 for 1e-4.",
        )
    embeddings, digest = _embed(card, folder, paths, progress)
    scores = _impostor_scores(embeddings, identity)
    cosines = {fmr: threshold_at_fmr(scores, fmr) for fmr in allowed}
    if max(cosines.values()) > 1 - 1e-5:
        raise UsageError(
            f"{card.name!r} takes different people for one face of cosine 1: no threshold tells them apart.",
            hint="Check the card's normalisation and the weights, and the folder for copies of one image.",
        )
    entry: dict[str, Any] = {
        "name": card.name,
        "digest": card.digest,
        "calibration_set": name or folder.resolve().name,
        "calibration_sha256": digest,
        "people": len(counts),
        "images": len(paths),
        "impostor_pairs": pairs,
        "date": datetime.now(UTC).date().isoformat(),
        "bauta": __version__,
        "cosine": {f"{fmr:g}": cosine for fmr, cosine in cosines.items()},
    }
    _keep(store or home() / "thresholds.json", card.sha256, entry)
    return tuple(_thresholds(entry))


def calibrated(cards: Iterable[RecognizerCard], fmr: float) -> dict[str, float]:
    """Cosines from which on recognisers match at a false match rate, by name; those that have none are left out."""
    found = {}
    for card in cards:
        with suppress(NotCalibrated):
            found[card.name] = threshold(card, fmr).cosine
    return found


def _thresholds(entry: dict[str, Any]) -> Iterator[Threshold]:
    for fmr, cosine in entry.get("cosine", {}).items():
        yield Threshold(
            fmr=float(fmr),
            cosine=float(cosine),
            impostor_pairs=entry["impostor_pairs"],
            people=entry["people"],
            calibration_set=entry["calibration_set"],
            calibration_sha256=entry["calibration_sha256"],
            date=entry["date"],
        )


def _check(limits: list[Threshold]) -> None:
    """Raise ValueError for thresholds that no calibration gives: such a judge would never match anybody."""
    ordered = sorted(limits, key=lambda limit: -limit.fmr)
    cosines = [limit.cosine for limit in ordered]
    if not all(-1 <= cosine <= 1 for cosine in cosines):  # false for NaN too
        raise ValueError(f"a cosine outside [-1, 1] among {cosines}")
    if cosines != sorted(cosines):
        raise ValueError(f"a stricter FMR has a lower cosine among {cosines}")


def _find_crops(folder: Path, exclude: Collection[str]) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", hint="Give a folder with one folder per person.")
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in _SUFFIXES)
    if exclude:
        excluded = {normalise_name(person) for person in exclude}
        paths = [path for path in paths if normalise_name(path.parent.name) not in excluded]
    if not paths:
        raise UsageError(
            f"{folder} has no images in folders of people.",
            hint="Put aligned 112x112 crops into one folder per person.",
        )
    return paths


def _judging(card: RecognizerCard) -> AbstractContextManager[Judge | IsolatedRecognizer]:
    """The network as a judge, since measuring a surrogate makes it none; a foreign one in a process of its own."""
    if not came_along(card):
        return IsolatedRecognizer(card)
    from bauta.recognizers.judges import load_judge

    return nullcontext(load_judge(replace(card, roles=ROLES)))


def _embed(
    card: RecognizerCard, folder: Path, paths: list[Path], progress: Steps | None
) -> tuple[NDArray[np.float32], str]:
    """Embeddings of all images, and the SHA-256 that identifies the set."""
    total = hashlib.sha256()
    parts = []
    with _judging(card) as judge:
        for start in range(0, len(paths), BATCH):
            crops = []
            for path in paths[start : start + BATCH]:
                content = path.read_bytes()
                relative = path.relative_to(folder).as_posix()
                total.update(f"{relative}\0{hashlib.sha256(content).hexdigest()}\n".encode())
                crops.append(_crop(path, card.template))
            parts.append(judge.embed(np.stack(crops)))
            if progress is not None:
                progress(start + len(crops), len(paths))
    return np.concatenate(parts), total.hexdigest()


def _crop(path: Path, template: CropTemplate) -> NDArray[np.float32]:
    """(3, height, width) in [0, 1], as the template wants it."""
    from PIL import Image

    try:
        with Image.open(path, formats=("WEBP", "JPEG", "PNG")) as image:
            size = image.size
            pixels = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadablePhoto(f"Cannot read {path}: {error}", hint="Remove or replace it.") from error
    if size != (ARCFACE_112.width, ARCFACE_112.height):
        raise UsageError(
            f"{path} has {size[0]}x{size[1]} pixels; calibration crops have 112x112.",
            hint="Cut faces by the ArcFace template first, as `bauta.faces.alignment.extract_crops` does.",
        )
    from bauta.faces.crops import retemplate_pixels

    crop: NDArray[np.float32] = retemplate_pixels(pixels[None], template)[0]
    return crop


def _impostor_scores(embeddings: NDArray[np.float32], identity: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosine of every pair of images of different people, each pair once."""
    parts = []
    for row in range(len(embeddings) - 1):
        others = identity[row + 1 :] != identity[row]
        parts.append((embeddings[row + 1 :] @ embeddings[row])[others])
    return np.concatenate(parts)


def _keep(store: Path, sha256: str, entry: dict[str, Any]) -> None:
    content: dict[str, Any] = {"schema": SCHEMA, "recognizers": {}}
    if store.is_file():
        try:
            content = json.loads(store.read_text(encoding="utf-8"))
            content["recognizers"][sha256] = entry
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{store} does not follow its schema, and cannot be extended.", hint="Delete it, or move it away."
            ) from error
    content["recognizers"][sha256] = entry
    from bauta.files import make_folder, write_atomically

    make_folder(store.parent)
    write_atomically(store, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(), overwrite=True)
