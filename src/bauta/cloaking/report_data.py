"""The content of `report.json` as typed records; its JSON schema is made from them, so that the two always agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from bauta.cloaking.settings import Fallback, Others
from bauta.faces.faces import SearchLimit
from bauta.judging.findings import Box, Finding, Verdict
from bauta.judging.verification import Comparison, Quality
from bauta.judging.visibility import Visibility
from bauta.photo import Photo
from bauta.recognizers.calibration import Threshold
from bauta.schema import SHA256, json_schema
from bauta.settings import Range

Treatment = Literal["mask", "blur", "pixelate"]
"""What was done to a face."""

SCHEMA: Literal["bauta.report/2"] = "bauta.report/2"


@dataclass(frozen=True)
class FileFacts:
    """What a report says of a photo file.

    Attributes:
        name: File name without folders; empty for a photo that was never a file.
        sha256: Of the file's bytes.
        format: Such as JPEG.
        width: In pixels, upright.
        height: In pixels, upright.
    """

    name: str
    sha256: Annotated[str, SHA256]
    format: str
    width: Annotated[int, Range(at=1)]
    height: Annotated[int, Range(at=1)]

    @classmethod
    def of(cls, photo: Photo) -> FileFacts:
        """The facts of a photo as read."""
        name = printable(photo.path.name) if photo.path else ""
        return cls(name, photo.sha256, photo.format, photo.width, photo.height)


@dataclass(frozen=True)
class MaskFacts:
    """What the mask of one face took.

    Attributes:
        iterations: Steps of the optimisation.
        stopped: Why it ended, such as ``converged``, ``iterations`` or ``deadline``.
        seconds: Wall time, of all attempts.
        attempts: Masks that were tried, with ever stronger settings; 1 when the first one was enough.
        settings: What differs from the method's settings in the mask that was taken.
        visibility: What people see of it.
        facts: What else the method says of it, such as the parts of a face that makeup left bare.
    """

    iterations: Annotated[int, Range(at=0)]
    stopped: str
    seconds: Annotated[float, Range(at=0)]
    attempts: Annotated[int, Range(at=1)] = 1
    settings: dict[str, Any] = field(default_factory=dict)
    visibility: Visibility | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> MaskFacts:
        """The facts in a report that was written before."""
        seen = record.get("visibility")
        return cls(**{**record, "visibility": None if seen is None else Visibility(**seen)})


@dataclass(frozen=True)
class MethodRecord:
    """How the protection was made.

    Attributes:
        name: As `bauta methods` lists it.
        made_here: False when the photo was only verified; then the settings below are not known to be its own.
        strength: How strong, and so how visible, the mask might be.
        seed: Of everything random.
        budget_seconds: Time that one face was allowed.
        config: The method's own settings by name, from which a face's mask may differ.
        fallback: What covers faces that no mask protects.
        others: What is done to faces that were not chosen.
        fitted: SHA-256 of what it had learned of people before, as `bauta fit` says it.
    """

    name: str
    made_here: bool
    strength: Literal["low", "medium", "high"]
    seed: Annotated[int, Range(at=0)]
    budget_seconds: float | None
    config: dict[str, Any]
    fallback: Fallback
    others: Others
    fitted: list[Annotated[str, SHA256]]


@dataclass(frozen=True)
class RecognizerRecord:
    """One recogniser that took part.

    Attributes:
        name: As in comparisons and findings.
        attacked: It was a surrogate, or taught one: the mask was made against it.
        judged: It was asked about the result.
        architecture: From its card.
        training_set: From its card.
        terms: From its card.
        source: From its card.
        sha256: Of its weights.
        thresholds: Empty when it did not judge or was not calibrated.
    """

    name: str
    attacked: bool
    judged: bool
    architecture: str
    training_set: str
    terms: str
    source: str
    sha256: Annotated[str, SHA256]
    thresholds: list[Threshold]


@dataclass(frozen=True)
class ReferenceRecord:
    """Another photo of the person.

    Attributes:
        name: File name without folders, numbered when taken.
        sha256: Of the file.
    """

    name: str
    sha256: Annotated[str, SHA256]


@dataclass(frozen=True)
class ConditionRecord:
    """What was done to the saved file before judging.

    Attributes:
        name: Key used elsewhere in the report.
        label: For people.
        matched_by: Judges that match a face then, at the FMR of the verdict.
    """

    name: str
    label: str
    matched_by: list[str]


@dataclass(frozen=True)
class QualityRecord:
    """Original against the saved file; null when their sizes differ.

    Attributes:
        footprint: Over the crop that recognisers look at.
        box: Over the detector's box.
    """

    footprint: Quality | None
    box: Quality | None


@dataclass(frozen=True)
class FaceRecord:
    """One face that was protected or checked.

    Attributes:
        number: From 1, as findings name it.
        name: What sentences call it.
        box: x1, y1, x2, y2.
        landmarks: Five (x, y): eye on the image's left, eye on its right, nose tip, mouth corners left, right.
        score: The detector's confidence.
        verdict: Never ``partial``, which is about a photo.
        margin: By how much the nearest judge is below its threshold in the saved file; negative for a match.
        reasons: Findings that force the verdict, one sentence each.
        warnings: Other findings, one sentence each.
        found: By condition, whether the detector still finds the face; one it misses is judged where it was.
        quality: Original against the saved file.
        treatment: ``mask``, ``blur`` or ``pixelate``; null when the photo was only verified.
        mask: What it took; null when the photo was only verified, or the face is covered.
        comparisons: Every judge, against everything, under every condition.
    """

    number: Annotated[int, Range(at=1)]
    name: str
    box: Box
    landmarks: Annotated[list[tuple[float, float]], Range(at=5, to=5)]
    score: float
    verdict: Verdict
    margin: float | None
    reasons: list[str]
    warnings: list[str]
    found: dict[str, bool]
    quality: QualityRecord
    treatment: Treatment | None
    mask: MaskFacts | None
    comparisons: list[Comparison]


@dataclass(frozen=True)
class ReportRecord:
    """What Bauta reports of one protected photo.

    Attributes:
        schema: Fields are only added within version 2; one that changes its meaning makes version 3.
        bauta: Version of the package.
        created: ISO 8601, UTC.
        verdict: The worst that a finding forces.
        margin: The smallest of the faces' margins; null without a calibrated judge.
        summary: The verdict in plain words.
        warnings: What else a person should know, one sentence each.
        findings: All that was found out, as data.
        source: The original.
        output: The protected photo.
        method: What was asked for.
        metadata_policy: What happened to EXIF, XMP and thumbnails.
        metadata_removed: How many fields of the metadata were left out, by kind; empty after a verification.
        verdict_fmr: False match rate at which the verdict was taken.
        recognizers: Everybody who took part.
        references: Other photos of the person.
        conditions: What was done to the saved file before judging, in order; ``saved``, nothing, is the first.
        faces: Largest first; faces given by hand in the order given.
        unprotected_boxes: x1, y1, x2, y2 of faces neither masked nor covered; their numbers follow the faces'.
        spared_boxes: The same of faces that nobody asked to protect; their numbers follow those.
        search_limits: What stopped the search for faces, if anything.
        smallest_face: Height in pixels of the smallest face that was looked for.
        seconds: Wall time by part.
        environment: Versions and machine.
        protects_against: What was measured to help on this photo, one sentence each.
        does_not_protect_against: What was measured to fail, and what no mask helps against.
    """

    schema: Literal["bauta.report/2"]
    bauta: str
    created: str
    verdict: Verdict
    margin: float | None
    summary: str
    warnings: list[str]
    findings: list[Finding]
    source: FileFacts
    output: FileFacts
    method: MethodRecord
    metadata_policy: Literal["private", "keep", "strip"]
    metadata_removed: dict[str, int]
    verdict_fmr: float
    recognizers: Annotated[list[RecognizerRecord], Range(at=1)]
    references: list[ReferenceRecord]
    conditions: list[ConditionRecord]
    faces: Annotated[list[FaceRecord], Range(at=1)]
    unprotected_boxes: list[Box]
    spared_boxes: list[Box]
    search_limits: list[SearchLimit]
    smallest_face: float
    seconds: dict[str, float]
    environment: dict[str, str]
    protects_against: list[str]
    does_not_protect_against: list[str]


def report_schema() -> dict[str, Any]:
    """The JSON schema of `report.json`.

    >>> report_schema()["$id"]
    'bauta.report/2'
    """
    return json_schema(ReportRecord, SCHEMA, complete=True)


def printable(name: str) -> str:
    """A file name as text: bytes that are none, and control characters, become replacement characters."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
