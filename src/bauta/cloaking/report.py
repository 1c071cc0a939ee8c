"""The answer as data (`report.json`, schema `bauta.report/1`) and as a page to read (`report.html`).

The schema ships as `report.schema.json` beside this module. The page holds everything it shows: no script,
font or picture is fetched, and its content security policy forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata, resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bauta.cloaking.roles import Cast
from bauta.cloaking.settings import ProtectSettings
from bauta.judging.conditions import CONDITIONS, SAVED
from bauta.judging.verification import ORIGINAL, FaceVerification, cut, footprint, worst
from bauta.pages import page_template
from bauta.photo import Photo
from bauta.recognizers.cards import RecognizerCard
from bauta.version import __version__

FloatArray = NDArray[np.float32]

PhotoVerdict = Literal["protected", "partial", "unconfirmed", "weak"]
"""Of a photo: the worst of its faces', and `partial` when they are protected but another face could not be."""

SCHEMA = "bauta.report/1"
_PREVIEW = 1100  # long side of the pictures in the page, in pixels
_CROP = 300
_PICTURED_FACES = 24  # a crowd would make a page of hundreds of megabytes

PROTECTS_AGAINST = (
    "Automatic search and matching of this very photo by face recognisers like the ones that judged it.",
    "The everyday ways of a shared photo: saved again as JPEG, made smaller, slightly blurred, "
    "screenshotted. The table of conditions shows how well for this photo.",
)
DOES_NOT_PROTECT_AGAINST = (
    "Recognisers that are newer or much larger than those that judged.",
    "Recognisers trained on photos protected this way: such training undoes most masks.",
    "Other photos of the person that are already online without protection.",
    "Being linked from one protected photo to another: they often match each other.",
    "People: a human who knows the face recognises it.",
    "Names, places, clothes and company: everything else a photo tells.",
)


@dataclass(frozen=True)
class FileFacts:
    """What a report says of a photo file.

    Attributes:
        name: File name, or "" when the photo was never a file.
        sha256: Of the file's bytes.
        format: Such as JPEG.
        width: In pixels, upright.
        height: In pixels, upright.
    """

    name: str
    sha256: str
    format: str
    width: int
    height: int

    @classmethod
    def of(cls, photo: Photo) -> FileFacts:
        """The facts of a photo as read."""
        height, width = photo.pixels.shape[:2]
        name = printable(photo.path.name) if photo.path else ""
        return cls(name, photo.sha256, photo.format, width, height)


@dataclass(frozen=True)
class MaskFacts:
    """What the mask of one face took.

    Attributes:
        iterations: Steps of the optimisation.
        stopped: ``converged``, ``iterations`` or ``deadline``.
        seconds: Wall time.
    """

    iterations: int
    stopped: str
    seconds: float


@dataclass(frozen=True)
class FaceResult:
    """One face and its answer.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the upright photo.
        landmarks: Five (x, y).
        score: The detector's confidence.
        verification: What the judges say.
        mask: None when the face was only verified.
    """

    box: list[float]
    landmarks: list[list[float]]
    score: float
    verification: FaceVerification
    mask: MaskFacts | None


@dataclass(frozen=True, eq=False)
class Report:
    """Everything known about one protected photo.

    Attributes:
        source: The original.
        output: The protected photo.
        faces: The protected faces, largest first.
        spared: Boxes of faces that were left as they are because nobody asked for their protection.
        unprotected: Boxes of faces that should have been protected and that no mask could be made for.
        cast: Who was attacked and who judged.
        references: Other photos of the person, by name and SHA-256.
        settings: What was asked for.
        config: The method's configuration, as plain values.
        made: Whether this run made the protection, or only verified it.
        environment: Versions and machine.
        original: (H, W, 3) pixels of the original.
        saved: (H', W', 3) pixels of the file that was read back.
        seconds: Wall time by part.
        content: The bytes of the protected photo, when it was not written to a file.
    """

    source: FileFacts
    output: FileFacts
    faces: tuple[FaceResult, ...]
    spared: list[list[float]]
    unprotected: list[list[float]]
    cast: Cast
    references: tuple[tuple[str, str], ...]
    settings: ProtectSettings
    config: dict[str, Any]
    made: bool
    environment: dict[str, str]
    original: FloatArray = field(repr=False)
    saved: FloatArray = field(repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)

    @property
    def verdict(self) -> PhotoVerdict:
        """The worst of the faces' verdicts; `partial` instead of `protected` when a face has no mask."""
        verdict = worst([face.verification.verdict for face in self.faces])
        return "partial" if verdict == "protected" and self.unprotected else verdict

    @property
    def judges(self) -> list[RecognizerCard]:
        """The cards of the judges whose word counts for the verdict."""
        return [card for card in self.cast.judges if self.cast.thresholds[card.name]]

    @cached_property
    def recognised_by(self) -> list[str]:
        """Judges that still match a face in the saved file, by name."""
        reasons = [reason for face in self.faces for reason in face.verification.reasons]
        return [card.name for card in self.cast.judges if any(_names(reason, card.name) for reason in reasons)]

    @property
    def summary(self) -> str:
        """The verdict in plain words."""
        faces = "the face" if len(self.faces) == 1 else f"the {len(self.faces)} faces"
        count = len(self.judges)
        if self.verdict == "weak":
            who = self.recognised_by
            return (
                f"{_listed(who)} still recognise{'s' if len(who) == 1 else ''} a face in the "
                "protected photo. Try a higher strength or a longer budget, or do not share this photo."
            )
        if self.verdict in ("protected", "partial"):
            judges = "The independent recogniser" if count == 1 else f"None of the {count} independent recognisers"
            return (
                f"{judges} that checked the saved file {'no longer matches' if count == 1 else 'matches'} "
                f"{faces} to {self._compared_with}. {self._independence(count)}"
                + (f" But {self._left}" if self.unprotected else "")
            )
        if count:
            return (
                f"The recogniser that the mask was made against no longer recognises {faces}, but no "
                "independent one is installed to confirm that others fail too. "
                "Take this as a good sign, not as proof."
            )
        return "A mask was added, but no calibrated recogniser is installed to say whether it works."

    @property
    def _compared_with(self) -> str:
        """What verdicts rest on: references count for a judge that recognised the unprotected face in them."""
        if not self.references:
            return "the original"
        known = {
            (index, row.judge)
            for index, face in enumerate(self.faces)
            for row in face.verification.comparisons
            if row.matched_before is not None and row.matched_before <= self.settings.fmr
        }
        if len(known) == len(self.faces) * len(self.judges):
            return "the reference photos"
        return "the reference photos, or to the original where a reference was not recognised before either"

    def _independence(self, count: int) -> str:
        if self.made:
            return f"{'It' if count == 1 else 'They'} had no part in making the mask."
        return "That holds if none of them was attacked when the mask was made, which a verification cannot know."

    @property
    def _left(self) -> str:
        count = len(self.unprotected)
        return (
            f"{count} face{'' if count == 1 else 's'} in the photo could not be given a mask, too small or cut off, "
            f"and {'is' if count == 1 else 'are'} left unprotected."
        )

    @property
    def warnings(self) -> list[str]:
        """Everything short of a bad verdict that a person should know, each once."""
        notes = [note for face in self.faces for note in face.verification.warnings]
        if self.unprotected:
            notes.insert(0, self._left)
        lost = sum(not face.verification.found.get(SAVED.name, True) for face in self.faces)
        if lost:
            notes.append(
                f"The detector no longer finds {lost} of the faces in the protected photo; they were "
                "judged where they were before."
            )
        if self.spared:
            notes.append(f"{len(self.spared)} other face(s) in the photo were left as they are.")
        uncalibrated = [card.name for card in self.cast.judges if not self.cast.thresholds[card.name]]
        if uncalibrated:
            notes.append(f"{_listed(uncalibrated)} has no calibrated threshold and takes no part in the verdict.")
        return list(dict.fromkeys(notes))

    def with_seconds(self, seconds: dict[str, float], content: bytes | None) -> Report:
        """The same report, with the time it took and the bytes it is about."""
        return replace(self, seconds=seconds, content=content)

    def named(self, name: str) -> Report:
        """The same report of an output that was given its final name."""
        return replace(self, output=replace(self.output, name=printable(name)))

    def to_dict(self) -> dict[str, Any]:
        """The content of `report.json`, as plain values; `report.schema.json` describes it."""
        attacked = {card.name for card in self.cast.surrogates}
        cards = {card.name: card for card in (*self.cast.surrogates, *self.cast.judges)}
        return {
            "schema": SCHEMA,
            "bauta": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "verdict": self.verdict,
            "summary": self.summary,
            "warnings": self.warnings,
            "source": asdict(self.source),
            "output": asdict(self.output),
            "method": {
                "name": self.settings.method,
                "made_here": self.made,
                "strength": self.settings.strength,
                "seed": self.settings.seed,
                "budget_seconds": self.settings.budget,
                "config": {
                    key: list(value) if isinstance(value, tuple) else value for key, value in self.config.items()
                },
            },
            "metadata_policy": self.settings.metadata.name.lower(),
            "verdict_fmr": self.settings.fmr,
            "recognizers": [
                {
                    "name": card.name,
                    "attacked": card.name in attacked,
                    "judged": card in self.cast.judges,
                    "architecture": card.architecture,
                    "training_set": card.training_set,
                    "terms": card.terms,
                    "source": card.source,
                    "sha256": card.sha256,
                    "thresholds": [asdict(limit) for limit in self.cast.thresholds.get(card.name, {}).values()],
                }
                for card in cards.values()
            ],
            "references": [{"name": name, "sha256": sha256} for name, sha256 in self.references],
            "conditions": [{"name": condition.name, "label": condition.label} for condition in CONDITIONS],
            "faces": [
                {
                    "box": face.box,
                    "landmarks": face.landmarks,
                    "score": face.score,
                    "verdict": face.verification.verdict,
                    "reasons": list(face.verification.reasons),
                    "warnings": list(face.verification.warnings),
                    "found": face.verification.found,
                    "quality": {
                        "footprint": face.verification.footprint and asdict(face.verification.footprint),
                        "box": face.verification.box and asdict(face.verification.box),
                    },
                    "mask": face.mask and asdict(face.mask),
                    "comparisons": [asdict(row) for row in face.verification.comparisons],
                }
                for face in self.faces
            ],
            "spared_boxes": self.spared,
            "unprotected_boxes": self.unprotected,
            "seconds": self.seconds,
            "environment": self.environment,
            # A photo that is still recognised is protected against nothing.
            "protects_against": list(PROTECTS_AGAINST) if self.verdict in ("protected", "partial") else [],
            "does_not_protect_against": list(DOES_NOT_PROTECT_AGAINST),
        }

    def to_json(self) -> str:
        """`report.json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """`report.html`, complete in itself."""
        script = resources.files(__package__).joinpath("report.js").read_text(encoding="utf-8").strip()
        same_size = self.original.shape == self.saved.shape
        factor = amplification(self.original, self.saved) if same_size else 0
        return page_template("cloaking", "report.html.j2").render(
            report=self,
            data=self.to_dict(),
            conditions=CONDITIONS,
            saved=SAVED.name,
            original=ORIGINAL,
            factor=factor,
            pictures={
                "original": picture(self.original, _PREVIEW),
                "saved": picture(self.saved, _PREVIEW),
                "mask": picture(amplified(self.original, self.saved, factor), _PREVIEW // 2) if same_size else None,
            },
            faces=[self._face(face, factor if same_size else 0, index) for index, face in enumerate(self.faces)],
            fmr=self.settings.fmr,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )

    def _face(self, face: FaceResult, factor: int, index: int) -> dict[str, Any]:
        """What the page shows of one face."""
        pictures: list[tuple[str, str]] = []
        if index < _PICTURED_FACES:
            box = _widened(footprint(np.asarray(face.landmarks, dtype=np.float32)))
            ratio = np.tile(
                [self.saved.shape[1] / self.original.shape[1], self.saved.shape[0] / self.original.shape[0]],
                2,
            ).astype(np.float32)
            before, after = cut(self.original, box), cut(self.saved, box * ratio)
            pictures = [("Original", picture(before, _CROP)), ("Protected", picture(after, _CROP))]
            if factor:
                pictures.append((f"Difference × {factor}", picture(amplified(before, after, factor), _CROP)))
        rows = face.verification.comparisons
        return {
            "result": face,
            "pictures": pictures,
            "against": [
                {
                    "name": against,
                    "judges": [
                        {
                            "card": card,
                            "attacked": card.name in self.cast.attacked,
                            "limits": self.cast.thresholds[card.name],
                            "rows": {
                                row.condition: row for row in rows if row.judge == card.name and row.against == against
                            },
                        }
                        for card in self.cast.judges
                    ],
                }
                for against in dict.fromkeys(row.against for row in rows)
            ],
        }


def printable(name: str) -> str:
    """A file name as text: bytes that are none, and control characters, become replacement characters."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def environment() -> dict[str, str]:
    """Versions and machine, for reports."""
    packages = ("torch", "numpy", "pillow", "onnxruntime", "dlib-bin")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }


def amplification(original: FloatArray, saved: FloatArray) -> int:
    """A round factor that makes nearly all of a difference fill the range from black to white."""
    typical = float(np.quantile(np.abs(saved - original).max(-1), 0.995))
    return int(min((2, 5, 10, 20, 50), key=lambda factor: abs(math.log(factor * max(typical, 1e-3) / 0.45))))


def amplified(original: FloatArray, saved: FloatArray, factor: int) -> FloatArray:
    """The difference of two photos around mid grey, `factor` times as strong as it is."""
    return np.asarray(np.clip(0.5 + factor * (saved - original), 0, 1), dtype=np.float32)


def picture(pixels: FloatArray, long_side: int) -> str:
    """A data URI of an image (H, W, 3), reduced to a long side; it carries no metadata."""
    image = Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))
    image.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _widened(box: FloatArray) -> FloatArray:
    """A box with a tenth more on every side, so that a crop shows a head and not only a mask."""
    margin = 0.1 * (box[2:] - box[:2])
    widened: FloatArray = np.concatenate([box[:2] - margin, box[2:] + margin])
    return widened


def _names(reason: str, name: str) -> bool:
    return reason.startswith(f"{name} ")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
