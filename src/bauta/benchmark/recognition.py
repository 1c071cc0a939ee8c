"""How well recognisers recognise clean faces: LFW in ten folds, CFP frontal against frontal and against profile.

Embeddings are those of one aligned crop, without its mirror image, by the recogniser as a judge runs it. Each image is
embedded once, and scores are products of its embeddings, so that the forward passes are what a run costs:
``overhead`` is the time of everything over that of the passes alone, in the same run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bauta.benchmark import protocols
from bauta.benchmark.embeddings import cosines
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.recipe_files import Named
from bauta.benchmark.engine.records import CardRecord, Network, Run
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.engine.table import Family, Table, percent, require_cards
from bauta.data.datasets import PairSet, People, read_bin, read_cfp, read_lfw
from bauta.data.images import FaceImage
from bauta.errors import UsageError
from bauta.faces.crop_template import CropTemplate
from bauta.faces.crops import retemplate_pixels
from bauta.files import make_folder, write_atomically
from bauta.metrics import Interval, cross_validated_matches, focal_diversity
from bauta.progress import Steps, silent, steps_of
from bauta.recognizers import Judge, find_card, load_judge
from bauta.recognizers.cards import ROLES, RecognizerCard
from bauta.schema import ABSENT, Count, Sha256
from bauta.settings import Range, Share

PROTOCOLS = ("lfw", "FF", "FP")
FMR = 1e-3
_BATCH = 32


@dataclass(frozen=True)
class SetFacts:
    """A set of pairs, by its name and its contents."""

    name: str
    sha256: Sha256


@dataclass(frozen=True)
class Accuracy:
    """What `measure` finds of a recogniser on one set."""

    accuracy: Interval
    tar: Interval
    threshold: float
    impostor_pairs: Count
    pairs: Count
    images: Count
    seconds: float
    forward_seconds: float
    overhead: float
    failures: list[Count]


@dataclass(frozen=True)
class Measured(Network):
    """A recogniser with what is stated of it, in percent, and what was measured, by protocol."""

    architecture: str
    training_set: str
    stated_lfw_accuracy: float | None
    results: dict[str, Accuracy]


@dataclass(frozen=True, kw_only=True)
class RecognizersRun(Run):
    """Time and machine; cards of before do not say how long it took."""

    seconds: float = ABSENT


@dataclass(frozen=True, kw_only=True)
class RecognizersCard(CardRecord):
    """Recognisers on sets of clean faces: all of a table in one card.

    Attributes:
        data: The sets, by protocol.
        fmr: False match rate of the true accept rates.
        recognizers: Each.
        focal_diversity: Of all, by protocol; none of one alone.
        complete: Cards of before lack it.
    """

    schema: Literal["bauta.recognizers/1"]
    data: dict[str, SetFacts]
    fmr: Share
    recognizers: Annotated[list[Measured], Range(at=1)]
    focal_diversity: dict[str, float]
    run: RecognizersRun
    complete: Literal[True] = ABSENT


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings, and what they cost.

    Attributes:
        values: (N, D) of unit norm.
        seconds: Of everything: reading, decoding, alignment, passes.
        forward_seconds: Of the passes.
    """

    values: NDArray[np.float32]
    seconds: float
    forward_seconds: float


def embed_aligned(judge: Judge, images: Sequence[FaceImage], progress: Steps = silent) -> Embedded:
    """Embeddings of faces that are aligned to the ArcFace template, of 112 pixels or a multiple.

    Args:
        judge: Embeds.
        images: N images.
        progress: Called with the images done and the images there are.

    Raises:
        UnreadablePhoto: when an image is missing or damaged.
        UsageError: when there is none.
    """
    if not images:
        raise UsageError("There are no images to embed.", hint="Give some.")
    began, forward, parts = time.perf_counter(), 0.0, []
    with ThreadPoolExecutor(1) as reader:  # the next crops are read while these pass through the network
        ahead = reader.submit(_crops, images[:_BATCH], judge.card.template)
        for start in range(0, len(images), _BATCH):
            crops = ahead.result()
            ahead = reader.submit(_crops, images[start + _BATCH : start + 2 * _BATCH], judge.card.template)
            passed = time.perf_counter()
            parts.append(judge.embed(crops))
            forward += time.perf_counter() - passed
            progress(min(start + _BATCH, len(images)), len(images))
    return Embedded(np.concatenate(parts), time.perf_counter() - began, forward)


def kept_templates(recognizer: RecognizerCard, people: People, job: Job) -> NDArray[np.float32]:
    """Templates (N, D) of aligned faces, from their file where they were made before."""
    facts = [recognizer.digest, people.sha256, cards.source_digest(("recognizers", "faces", "data"))]
    file = job.kept / f"templates-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.npy"
    with contextlib.suppress(OSError, ValueError):
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return kept
    values = embed_aligned(load_judge(recognizer), people.images, steps_of(job.progress, recognizer.name)).values
    content = io.BytesIO()
    np.save(content, values)
    make_folder(job.kept)
    write_atomically(file, content.getvalue(), overwrite=True)
    return values


def _crops(images: Sequence[FaceImage], template: CropTemplate) -> NDArray[np.float32]:
    """(N, 3, height, width) in [0, 1]."""
    crops = np.empty((len(images), 3, template.height, template.width), np.float32)
    for crop, image in zip(crops, images, strict=True):
        pixels = image.pixels().astype(np.float32) / np.float32(255)
        crop[:] = retemplate_pixels(pixels[None], template)[0]
    return crops


def read_set(data: Path, protocol: str) -> PairSet:
    """The pairs of a protocol: ``data/lfw_112``, ``data/cfp_112``, or a file of verification pairs, ``data/NAME.bin``.

    Raises:
        UsageError: when there is no such protocol, or the set is not there.
    """
    if protocol.endswith(".bin"):
        return read_bin(data / protocol)
    if protocol not in PROTOCOLS:
        raise UsageError(
            f"There is no protocol {protocol!r}.", hint=f"There is: {', '.join(PROTOCOLS)}; or name a .bin file."
        )
    return read_lfw(data / "lfw_112") if protocol == "lfw" else read_cfp(data / "cfp_112", protocol)


def measure(judge: Judge, pairs: PairSet, progress: Steps = silent) -> Any:
    """Accuracy of a recogniser on a set of pairs, and what it took.

    The true accept rate at FMR 1e-3 is at the threshold of all pairs of images of different people, for FP of a frontal
    and a profile one: the listed impostors are too few for that rate.

    Returns:
        Plain values: ``accuracy`` and ``tar`` as mean, low and high; ``threshold``, ``impostor_pairs``, ``pairs``,
        ``images``; ``seconds``, ``forward_seconds`` and ``overhead``, their ratio; ``failures``, the numbers of the
        pairs that it gets wrong.

    Raises:
        UsageError: when there are too few impostor pairs.
    """
    embedded = embed_aligned(judge, pairs.images, progress)
    began = time.perf_counter()
    known = embedded.values
    scores = cosines(known[pairs.first], known[pairs.second])
    scored = time.perf_counter() - began
    points = protocols.operating_points(known, pairs.subjects, first=pairs.first, second=pairs.second, fmrs=[FMR])
    found = protocols.verification(scores, pairs.same, pairs.fold, pairs.pair_subjects, points=points)
    return {
        "accuracy": _plain(found.accuracy),
        "tar": _plain(found.rates[0].rate),
        "threshold": round(points[0].cosine, 6),
        "impostor_pairs": points[0].impostor_pairs,
        "pairs": len(scores),
        "images": len(pairs.images),
        "seconds": round(embedded.seconds + scored, 2),
        "forward_seconds": round(embedded.forward_seconds, 2),
        "overhead": round((embedded.seconds + scored) / embedded.forward_seconds, 3),
        "failures": np.flatnonzero(cross_validated_matches(scores, pairs.same, pairs.fold) != pairs.same).tolist(),
    }


class Recognizers(Family):
    """Cards of recognisers, each of a whole table."""

    record = RecognizersCard

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """A table of each card, accuracies in percent.

        Raises:
            UsageError: when there is no card.
        """
        require_cards(cards)
        return [_table(card) for card in cards]

    def notes(self, cards: Sequence[Card]) -> list[str]:
        """How diverse they are."""
        return [
            f"Focal diversity on {name}: {value:.3f} (1: no two of them fail on the same pair)"
            for card in cards
            for name, value in card["focal_diversity"].items()
        ]


def _table(card: Card) -> Table:
    names = list(card["data"])
    header = ["recogniser"]
    for name in names:
        header += [name, f"{name}, TAR at FMR {card['fmr']:g}"]
    rows = []
    for one in card["recognizers"]:
        cells = [one["name"]]
        for name in names:
            cells += [percent(one["results"][name][key], 2) for key in ("accuracy", "tar")]
        stated = one["stated_lfw_accuracy"]
        first = one["results"][names[0]]
        cells += ["-" if stated is None else f"{stated:.2f}", f"{first['overhead']:.2f} x"]
        rows.append(tuple(cells))
    return Table("", (*header, "stated for LFW", "all over forward passes"), rows)


@dataclass(frozen=True)
class RecognizersRecipe:
    """What is measured of which recognisers.

    Attributes:
        recognizers: Their names; any role will do.
        protocols: Of `PROTOCOLS`, or names of ``.bin`` files in the folder of data.
        name: Of the card, which holds all that was measured.

    Raises:
        UsageError: without a recogniser.
    """

    recognizers: tuple[str, ...]
    protocols: tuple[str, ...] = ("lfw",)
    name: str = "recognizers"

    def __post_init__(self) -> None:
        if not self.recognizers:
            raise UsageError("There is no recogniser to measure.", hint="Add one, or name some.")

    @property
    def rows(self) -> tuple[RecognizersRecipe]:
        """All of them are one row: how diverse they are shows only together."""
        return (self,)


class RecognizersKind(Recognizers, Kind[RecognizersRecipe, tuple[Job, dict[str, PairSet]]]):
    """Recognisers on clean faces; what is finished lies in the work folder, recogniser by recogniser."""

    def set_up(self, recipe: RecognizersRecipe, job: Job) -> tuple[Job, dict[str, PairSet]]:
        """The sets, by protocol.

        Raises:
            UsageError: when there is no such protocol, or a set is not there.
        """
        return job, {protocol: read_set(job.folder, protocol) for protocol in recipe.protocols}

    def row(self, setup: tuple[Job, dict[str, PairSet]], row: RecognizersRecipe, done: Mapping[str, Card]) -> Task:
        """All recognisers."""
        return Task(lambda: _all(row.recognizers, setup[1], setup[0]))

    def file(self, recipe: RecognizersRecipe, row: Named) -> str:
        """There is one card."""
        return f"{recipe.name}.json"


def _all(names: Sequence[str], sets: Mapping[str, PairSet], job: Job) -> Card:
    found: list[dict[str, Any]] = []
    for card in [replace(find_card(name), roles=ROLES) for name in names]:
        judge, steps = load_judge(card), steps_of(job.progress, card.name)
        found.append(
            {
                "name": card.name,
                "sha256": card.sha256,
                "architecture": card.architecture,
                "training_set": card.training_set,
                "stated_lfw_accuracy": _stated(card.weights.parent / "models.json", card.name),
                "results": {protocol: _measured(judge, pairs, job.kept, steps) for protocol, pairs in sets.items()},
            }
        )
    diversity = {}
    for protocol, pairs in sets.items():
        failures = np.zeros((len(found), len(pairs.same)), dtype=bool)
        for wrong, one in zip(failures, found, strict=True):
            wrong[one["results"][protocol]["failures"]] = True
        with contextlib.suppress(UsageError):  # one recogniser alone is not a team
            diversity[protocol] = round(focal_diversity(failures), 4)
    return {
        "data": {protocol: {"name": pairs.name, "sha256": pairs.sha256} for protocol, pairs in sets.items()},
        "fmr": FMR,
        "recognizers": found,
        "focal_diversity": diversity,
    }


def _measured(judge: Judge, pairs: PairSet, work: Path, progress: Steps) -> Any:
    """`measure`, from its file when it was done before with the same code, recogniser and photos."""
    facts = [cards.code()["sha256"], judge.card.digest, pairs.sha256, FMR]
    file = work / f"accuracy-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    found = measure(judge, pairs, progress)
    make_folder(work)
    write_atomically(file, json.dumps(found).encode(), overwrite=True)
    return found


def _plain(interval: Any) -> dict[str, float]:
    return {key: round(getattr(interval, key), 5) for key in ("mean", "low", "high")}


def _stated(path: Path, name: str) -> float | None:
    """What the list beside the weights says of a recogniser's accuracy on LFW, in percent; None when it is silent."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))["recognizers"][name]["lfw_accuracy_percent"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(value) if isinstance(value, int | float) else None
