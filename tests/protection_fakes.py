"""A cloak, recognisers and a detector that take milliseconds, for tests of what stands around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from bauta import registry
from bauta.cloaking.batch import protect_photos
from bauta.cloaking.outcomes import Outcome
from bauta.cloaking.places import collect
from bauta.cloaking.settings import ProtectSettings
from bauta.cloaks.base import Cloak, Edit, Need, Work
from bauta.cloaks.view import FaceView
from bauta.errors import NotCalibrated, UnknownRecognizer
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.recognizers.calibration import Threshold
from bauta.recognizers.cards import RecognizerCard
from bauta.settings import Range, Settings

SIDE = 112  # of a face, in pixels, in the photos of `write_photo`


@dataclass(frozen=True)
class NegativeConfig(Settings):
    """How much of a face is turned into its negative.

    Attributes:
        amount: One half is plain grey.
    """

    title: ClassVar[str] = "negative"
    amount: Annotated[float, Range(at=0, to=1)] = 1.0


class Negative(Cloak[NegativeConfig]):
    """Turns faces into their negatives, which the fake judges take for the opposite of the person."""

    Config = NegativeConfig
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogates"})
    calls: ClassVar[list[int]] = []

    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        self.calls.append(len(views))
        work.progress(1, 1)
        facts = {"iterations": 3, "stopped": "iterations"}
        return [Edit(view, (1 - 2 * view.pixels) * self.config.amount * view.region, facts=facts) for view in views]


class FakeJudge:
    """Unit-norm thumbnails around mid grey, differently cut for each judge."""

    def __init__(self, card: RecognizerCard) -> None:
        self.card = card

    def embed(self, crops: np.ndarray) -> np.ndarray:
        cells = crops[:, :, 16:96, 16:96].reshape(len(crops), 3, 8, 10, 8, 10).mean((3, 5))
        flat = cells.reshape(len(crops), -1) - 0.5
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


class Stage:
    """What the fakes play with; tests change it."""

    def __init__(self, weights: Path) -> None:
        self.cards: list[RecognizerCard] = []
        self.uncalibrated: set[str] = set()
        self.blind = False  # the detector finds nothing any more
        self.weights = weights
        self.add("attacked_one", "surrogate")
        self.add("both", "surrogate", "judge")
        self.add("judge_one", "judge")
        self.add("judge_two", "judge")

    def add(self, name: str, *roles: str, sha256: str | None = None) -> None:
        self.cards.append(
            RecognizerCard(
                name=name,
                architecture="<i>thumbnail</i>",
                template=ARCFACE_112,
                colour="RGB",
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
                dim=192,
                training_set="nothing",
                terms="none",
                source="tests",
                sha256=sha256 or hashlib.sha256(name.encode()).hexdigest(),
                weights=self.weights,
                format="onnx",
                roles=frozenset(roles),
            )
        )

    def drop(self, *names: str) -> None:
        self.cards = [card for card in self.cards if card.name not in names]

    def find(self, name: str) -> RecognizerCard:
        for card in self.cards:
            if card.name == name:
                return card
        raise UnknownRecognizer(f"No recogniser is called {name!r}.", hint="See the list.")

    def threshold(self, card: RecognizerCard, fmr: float) -> Threshold:
        if card.name in self.uncalibrated:
            raise NotCalibrated(f"{card.name} is not calibrated.")
        cosine = {1e-2: 0.5, 1e-3: 0.6, 1e-4: 0.7}[fmr]
        return Threshold(
            fmr=fmr,
            cosine=cosine,
            impostor_pairs=1000,
            people=40,
            calibration_set="nobody",
            calibration_sha256="0" * 64,
            date="2026-11-01",
        )

    def detect(self, pixels: np.ndarray, **options: Any) -> Faces:
        """As many faces as the photo's red corner says, laid out as `write_photo` lays them out."""
        width = pixels.shape[1]
        count = 0 if self.blind else round(float(pixels[:4, :4, 0].mean()) * 255 / 8)
        columns = self.columns(count)
        scale = width / (SIDE * columns) if count else 1
        boxes, landmarks = [], []
        for index in range(count):
            left, top = index % columns * SIDE * scale, (index // columns * SIDE + 20) * scale
            boxes.append([left, top, left + SIDE * scale, top + SIDE * scale])
            landmarks.append(np.array(ARCFACE_112.points) * scale + [left, top])
        if not count:
            return Faces.none()
        return Faces(np.array(boxes), np.array(landmarks), np.linspace(1, 0.9, count))

    @staticmethod
    def columns(count: int) -> int:
        return max(1, int(np.ceil(np.sqrt(count))))


def person(name: str) -> np.ndarray:
    """The face (112, 112, 3) uint8 of somebody; names are people."""
    seed = int.from_bytes(name.encode(), "big") % 2**32
    cells = np.random.default_rng(seed).integers(60, 196, (14, 14, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write_photo(path: Path, *people: str, **options: Any) -> Path:
    """A photo of these people, in rows below a strip whose red tells the fake detector how many there are."""
    columns = Stage.columns(len(people))
    rows = -(-len(people) // columns) if people else 1
    pixels = np.full((rows * SIDE + 20, columns * SIDE, 3), 128, dtype=np.uint8)
    pixels[:20] = (8 * len(people), 128, 128)
    for index, name in enumerate(people):
        top, left = index // columns * SIDE + 20, index % columns * SIDE
        pixels[top : top + SIDE, left : left + SIDE] = person(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def build_stage(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Stage:
    weights = tmp_path_factory.mktemp("weights") / "weights.bin"
    weights.write_bytes(b"none")
    stage = Stage(weights)
    card = registry.MethodCard("negative", "cloak", "For tests.", "nobody", "protection_fakes:Negative")
    monkeypatch.setitem(registry.METHODS, "negative", card)
    Negative.calls = []
    for module, names in {
        "cloaking.roles": {
            "list_recognizers": lambda: list(stage.cards),
            "find_card": stage.find,
            "threshold": stage.threshold,
        },
        "cloaking.pipeline": {
            "detect_faces": stage.detect,
            "load_judge": FakeJudge,
            "load_surrogate": lambda card: card,
        },
        "cloaking.fitting": {"detect_faces": stage.detect, "load_judge": FakeJudge},
        "cloaking.people": {"find_card": stage.find, "load_judge": FakeJudge, "threshold": stage.threshold},
        "cloaking.given": {"detect_faces": stage.detect},
        "cloaking.verbs": {"detect_faces": stage.detect},
        "judging.verification": {"detect_faces": stage.detect},
    }.items():
        for name, fake in names.items():
            monkeypatch.setattr(f"bauta.{module}.{name}", fake)
    monkeypatch.setattr("bauta.recognizers.calibration.threshold", stage.threshold)
    return stage


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


NEGATIVE = ProtectSettings(method="negative")
FAINT = ProtectSettings(method="negative", options=(("amount", 0.01),))
REPORTS = ["reports/a.report.html", "reports/a.report.json"]


def work(*paths: Path | str, settings: ProtectSettings = NEGATIVE, **options: object) -> list[Outcome]:
    """Protect photos into ``out``."""
    output = Path("out")
    sources, failures = collect([Path(path) for path in paths], output)
    return failures + protect_photos(sources, output, settings, **options)  # type: ignore[arg-type]


def files(folder: Path = Path("out"), *, hidden: bool = False) -> list[str]:
    """Names of the files below a folder, but for hidden ones."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if hidden or not name.startswith(".bauta"))
