"""The answer to "did it work?" for one photo: as an object, as data (`report.json`) and as a page (`report.html`)."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bauta.cloaking.outcomes import FaceOutcome
from bauta.cloaking.report_data import (
    SCHEMA,
    ConditionRecord,
    FaceRecord,
    FileFacts,
    MaskFacts,
    MethodRecord,
    QualityRecord,
    RecognizerRecord,
    ReferenceRecord,
    ReportRecord,
    Treatment,
)
from bauta.cloaking.report_page import render
from bauta.cloaking.roles import Roles
from bauta.cloaking.settings import ProtectSettings
from bauta.faces.detection import smallest_face
from bauta.faces.faces import Faces, SearchLimit
from bauta.judging import words
from bauta.judging.conditions import CONDITIONS
from bauta.judging.findings import Box, Cause, Finding, Verdict, decide
from bauta.judging.verification import FaceVerification
from bauta.photo import Pixels
from bauta.recognizers.cards import RecognizerCard
from bauta.schema import plain
from bauta.version import __version__

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class FaceResult:
    """One face and its answer.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the upright photo.
        landmarks: Five (x, y).
        score: The detector's confidence.
        verification: What the judges say.
        mask: What the mask took; None when the photo was only verified, or the face is covered.
        treatment: What was done to it; None when the photo was only verified.
        cause: Of a covered face, why.
    """

    box: list[float]
    landmarks: list[list[float]]
    score: float
    verification: FaceVerification
    mask: MaskFacts | None
    treatment: Treatment | None = None
    cause: Cause | None = None

    @classmethod
    def of(
        cls,
        faces: Faces,
        number: int,
        verification: FaceVerification,
        mask: MaskFacts | None = None,
        treatment: Treatment | None = None,
        cause: Cause | None = None,
    ) -> FaceResult:
        """The result of one of the faces of a photo."""
        box, landmarks, score = faces.boxes[number], faces.landmarks[number], faces.scores[number]
        return cls(box.tolist(), landmarks.tolist(), float(score), verification, mask, treatment, cause)

    def numbered(self, number: int) -> FaceResult:
        """The same, with findings that name the face by its number, from 1."""
        findings = tuple(replace(finding, face=number) for finding in self.verification.findings)
        return replace(self, verification=replace(self.verification, findings=findings))


_FRAME = 'style="width:100%;height:720px;border:0"'


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """Everything a person should know of one protected photo.

    Attributes:
        source: The original.
        output: The protected photo.
        faces: The protected faces, largest first; then those that were covered without being chosen.
        spared: Boxes of faces that were left as they are because nobody asked for their protection.
        unprotected: Boxes of faces that should have been protected or covered, and could not be.
        roles: Who was attacked and who judged.
        references: Other photos of the person, by name and SHA-256.
        settings: What was asked for.
        config: The method's configuration, as plain values.
        made: Whether this run made the protection, or only verified it.
        environment: Versions and machine.
        before: (H, W, 3) pixels of the original.
        after: (H', W', 3) pixels of the file that was read back.
        limits: What stopped the search for faces; a photo that was not searched everywhere is not protected.
        removed: What was left out of the photo's metadata, how many fields by kind.
        further: What others found out about the file, such as an embedded picture that a judge matches.
        seconds: Wall time by part.
        content: The bytes of the protected photo, when it was not written to a file.
        fitted: SHA-256 of what the method had learned of people before.
        payloads: Of each face what must be known to take its edit off again; not part of the written report.
    """

    source: FileFacts
    output: FileFacts
    faces: tuple[FaceResult, ...]
    spared: list[list[float]]
    unprotected: list[list[float]]
    roles: Roles
    references: tuple[tuple[str, str], ...]
    settings: ProtectSettings
    config: dict[str, Any]
    made: bool
    environment: dict[str, str]
    before: Pixels = field(repr=False)
    after: Pixels = field(repr=False)
    limits: tuple[SearchLimit, ...] = ()
    removed: dict[str, int] = field(default_factory=dict)
    further: tuple[Finding, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)
    fitted: tuple[str, ...] = ()
    payloads: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def original(self) -> FloatArray:
        """(H, W, 3) in [0, 1], the original; made each time it is asked for."""
        return self.before[:, :]

    @property
    def saved(self) -> FloatArray:
        """(H', W', 3) in [0, 1], the file that was read back; made each time it is asked for."""
        return self.after[:, :]

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that was found out, the faces' own findings in their order."""
        bare = len(self.faces) + 1
        spared = bare + len(self.unprotected)
        return (
            *self.further,
            *(Finding("face-without-mask", face=bare + at, box=_box(box)) for at, box in enumerate(self.unprotected)),
            *(Finding("search-limited", reason=limit) for limit in self.limits),
            *(finding for face in self.faces for finding in face.verification.findings),
            *(
                Finding("face-covered", face=number, box=_box(face.box), cover=face.treatment, cause=face.cause)
                for number, face in enumerate(self.faces, 1)
                if face.treatment in ("blur", "pixelate")
            ),
            *(Finding("face-left-alone", face=spared + at, box=_box(box)) for at, box in enumerate(self.spared)),
            *(
                Finding("not-calibrated", judge=card.name)
                for card in self.roles.judges
                if not self.roles.thresholds[card.name]
            ),
        )

    @property
    def verdict(self) -> Verdict:
        """The worst that a finding forces; see `bauta.judging.findings.Verdict`."""
        return decide(self.findings)

    @property
    def margin(self) -> float | None:
        """By how much the nearest judge of any face is below its threshold; negative for a match."""
        margins = [face.verification.margin for face in self.faces]
        return min((margin for margin in margins if margin is not None), default=None)

    @property
    def judges(self) -> list[RecognizerCard]:
        """The cards of the judges whose word counts for the verdict."""
        return [card for card in self.roles.judges if self.roles.thresholds[card.name]]

    @property
    def recognised_by(self) -> list[str]:
        """Judges that still match a face in the saved file, by name."""
        matching = {finding.judge for finding in self.findings if finding.kind == "match"}
        return [card.name for card in self.roles.judges if card.name in matching]

    @cached_property
    def names(self) -> dict[int, str]:
        """What sentences call the faces, by number: the protected ones, then the bare ones, then those left alone."""
        height, width = self.before.shape[:2]
        boxes = [face.box for face in self.faces]
        return words.face_names([*boxes, *self.unprotected, *self.spared], width, height)

    @property
    def summary(self) -> str:
        """The verdict in plain words."""
        return words.summary(self.verdict, self.findings, self.names, self._circumstances)

    @property
    def warnings(self) -> list[str]:
        """Everything short of a bad verdict that a person should know, each once."""
        return words.warnings(self.findings, self.names)

    @property
    def per_face(self) -> tuple[FaceOutcome, ...]:
        """What became of every face, by number."""
        treated = [
            FaceOutcome(
                number,
                self.names[number],
                _box(face.box),
                face.treatment or "none",
                face.verification.verdict,
                face.verification.margin,
            )
            for number, face in enumerate(self.faces, 1)
        ]
        others: list[tuple[list[float], Literal["none", "left"]]] = [(box, "none") for box in self.unprotected]
        others += [(box, "left") for box in self.spared]
        return (
            *treated,
            *(
                FaceOutcome(number, self.names[number], _box(box), treatment)
                for number, (box, treatment) in enumerate(others, len(treated) + 1)
            ),
        )

    @property
    def _circumstances(self) -> words.Circumstances:
        return words.Circumstances(
            faces=len(self.faces),
            judges=len(self.judges),
            independent=len(self._independent),
            made=self.made,
            compared_with=self._compared_with,
            stronger=self.settings.strength != "high"
            and any(face.treatment == "mask" and face.verification.verdict != "protected" for face in self.faces),
            longer=any(face.mask is not None and face.mask.stopped == "deadline" for face in self.faces),
            coverable=self.settings.fallback == "none",
        )

    @property
    def _independent(self) -> list[str]:
        return [card.name for card in self.judges if card.name not in self.roles.attacked]

    @property
    def _compared_with(self) -> Literal["original", "references", "both"]:
        """What verdicts rest on: references count for a judge that recognised the unprotected face in them."""
        if not self.references:
            return "original"
        rows = (row for face in self.faces for row in face.verification.comparisons if row.limit is not None)
        return "both" if any(row.counts and row.before is None for row in rows) else "references"

    def __repr__(self) -> str:
        margin = "no margin" if self.margin is None else f"margin {self.margin:+.2f}"
        return f"<Report {self.verdict}: {len(self.faces)} faces, {len(self.judges)} judges, {margin}>"

    def _repr_html_(self) -> str:
        """The page, framed so that its styles do not touch the notebook."""
        from markupsafe import escape

        return f'<iframe srcdoc="{escape(self.to_html())}" sandbox="allow-scripts" {_FRAME}></iframe>'

    def with_seconds(self, seconds: dict[str, float], content: bytes | None) -> Report:
        """The same report, with the time it took and the bytes it is about."""
        return replace(self, seconds=seconds, content=content)

    @cached_property
    def record(self) -> ReportRecord:
        """The content of `report.json`, typed."""
        return ReportRecord(
            schema=SCHEMA,
            bauta=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict=self.verdict,
            margin=self.margin,
            summary=self.summary,
            warnings=self.warnings,
            findings=list(self.findings),
            source=self.source,
            output=self.output,
            method=MethodRecord(
                name=self.settings.method,
                made_here=self.made,
                strength=self.settings.strength,
                seed=self.settings.seed,
                budget_seconds=self.settings.budget,
                config=self.config,
                fallback=self.settings.fallback,
                others=self.settings.others,
                fitted=list(self.fitted),
            ),
            metadata_policy=self.settings.metadata.name.lower(),  # type: ignore[arg-type]
            metadata_removed=self.removed,
            verdict_fmr=self.settings.fmr,
            recognizers=self._recognizers(),
            references=[ReferenceRecord(name, sha256) for name, sha256 in self.references],
            conditions=self._conditions(),
            faces=[self._face(number, face) for number, face in enumerate(self.faces, 1)],
            unprotected_boxes=[_box(box) for box in self.unprotected],
            spared_boxes=[_box(box) for box in self.spared],
            search_limits=list(self.limits),
            smallest_face=smallest_face(self.before.shape),
            seconds=self.seconds,
            environment=self.environment,
            protects_against=self._protects_against(),
            does_not_protect_against=words.does_not_protect_against(self.findings, smallest_face(self.before.shape)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of `report.json`, as plain values; `report_schema` describes it."""
        content: dict[str, Any] = plain(self.record)
        return content

    def to_json(self) -> str:
        """`report.json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """`report.html`, complete in itself."""
        return render(self.record, self.before, self.after)

    def _recognizers(self) -> list[RecognizerRecord]:
        attacked = {card.name for card in self.roles.surrogates} | self.roles.attacked
        cards = {card.name: card for card in (*self.roles.surrogates, *self.roles.judges)}
        return [
            RecognizerRecord(
                name=card.name,
                attacked=card.name in attacked,
                judged=card in self.roles.judges,
                architecture=card.architecture,
                training_set=card.training_set,
                terms=card.terms,
                source=card.source,
                sha256=card.sha256,
                thresholds=list(self.roles.thresholds.get(card.name, {}).values()),
            )
            for card in cards.values()
        ]

    def _conditions(self) -> list[ConditionRecord]:
        fmr = self.settings.fmr
        rows = [row for face in self.faces for row in face.verification.comparisons if row.counts]
        matching = {(row.condition, row.judge) for row in rows if row.matches_at is not None and row.matches_at <= fmr}
        return [
            ConditionRecord(
                condition.name,
                condition.label,
                [card.name for card in self.judges if (condition.name, card.name) in matching],
            )
            for condition in CONDITIONS
        ]

    def _face(self, number: int, face: FaceResult) -> FaceRecord:
        answer = face.verification
        return FaceRecord(
            number=number,
            name=self.names[number],
            box=_box(face.box),
            landmarks=[(x, y) for x, y in face.landmarks],
            score=face.score,
            verdict=answer.verdict,
            margin=answer.margin,
            reasons=words.reasons(answer.findings, self.names),
            warnings=words.warnings(answer.findings, self.names),
            found=answer.found,
            quality=QualityRecord(answer.footprint, answer.box),
            treatment=face.treatment,
            mask=face.mask,
            comparisons=list(answer.comparisons),
        )

    def _protects_against(self) -> list[str]:
        """What was measured on this photo, and nothing else; one that is still recognised is not protected at all."""
        if self.verdict == "weak":
            return []
        held = [condition.name for condition in self._conditions() if not condition.matched_by]
        return words.protects_against(self._independent, held, self.margin)


def _box(box: list[float]) -> Box:
    left, top, right, bottom = box
    return left, top, right, bottom


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
