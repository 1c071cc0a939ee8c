"""What became of the photos of a run, and the exit codes that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bauta.errors import BautaError
from bauta.judging.findings import Verdict
from bauta.schema import json_schema, plain

WEAK = 7
"""Exit code of a photo that a judge still recognises, or in which not every face is known to be covered."""

FRAGILE = 8
"""Exit code of a photo that is recognised again once it is saved as JPEG, made smaller or screenshotted."""

SERIOUSNESS = (130, 1, 2, 6, 9, 10, 5, 4, 3, WEAK, FRAGILE, 0)
"""Exit codes, the most serious first: what concerns the whole run before what concerns a photo, and what left
no protected photo before what left a weak one."""


SCHEMA: Literal["bauta.outcome/1"] = "bauta.outcome/1"


@dataclass(frozen=True)
class FaceOutcome:
    """What became of one face.

    Attributes:
        number: From 1, as in the report.
        name: What sentences call it: its number and its place in the photo.
        box: x1, y1, x2, y2 in pixels of the upright photo.
        treatment: ``mask``, ``blur`` or ``pixelate``; ``none`` for a face that should have been treated and could not
            be; ``left`` for one that nobody asked for.
        verdict: Of the judges; null for a face that was not treated.
        margin: By how much the nearest judge is below its threshold; null without one.
    """

    number: int
    name: str
    box: tuple[float, float, float, float]
    treatment: Literal["mask", "blur", "pixelate", "none", "left"]
    verdict: Verdict | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one photo; `bauta protect --json` prints one on a line for each photo.

    Attributes:
        source: The file, or the folder that could not be read.
        verdict: As in `bauta.judging.findings`, or None when nothing was protected.
        skipped: It was finished by an earlier run with the same settings.
        judged_again: The protected photo of an earlier run stays, and other judges looked at it.
        output: The protected photo.
        report: `report.html`, when one was asked for.
        exit_code: As in `bauta.errors`; 7 for weak and partial, 8 for fragile.
        code: Of the error, as in `bauta.errors`; "" when there was none.
        message: What is wrong, or the verdict in plain words.
        hint: What to do next.
        warnings: What the verdict alone does not tell, such as that saving as JPEG undoes the protection.
        faces: Number of protected faces.
        per_face: What became of each face, those left alone too.
        psnr: Lowest PSNR of a face, in dB.
        seen: How much of the masks a viewer sees, of the face where it is most; None without masks.
        margin: By how much the nearest judge is below its threshold, in cosine similarity.
        matching: Number of judges that still match a face.
        judges: Number of judges asked.
        removed: What was left out of the photo's metadata, how many fields by kind.
        seconds: Wall time.
        schema: Fields are only added within version 1.
    """

    source: Path
    verdict: Verdict | None = None
    skipped: bool = False
    judged_again: bool = False
    output: Path | None = None
    report: Path | None = None
    exit_code: int = 0
    code: str = ""
    message: str = ""
    hint: str = ""
    warnings: tuple[str, ...] = ()
    faces: int = 0
    per_face: tuple[FaceOutcome, ...] = ()
    psnr: float | None = None
    seen: Literal["hardly", "beside the original", "at normal size"] | None = None
    margin: float | None = None
    matching: int = 0
    judges: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    schema: Literal["bauta.outcome/1"] = SCHEMA

    @classmethod
    def failed(cls, source: Path, error: BautaError) -> Outcome:
        """Of a photo, or of the whole run, that ended in an error."""
        return cls(source, exit_code=error.exit_code, code=error.code, message=error.message, hint=error.hint)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``; `outcome_schema` describes them."""
        values: dict[str, Any] = plain(self)
        return values


def outcome_schema() -> dict[str, Any]:
    """The JSON schema of what `bauta protect --json` prints.

    >>> outcome_schema()["$id"]
    'bauta.outcome/1'
    """
    return json_schema(Outcome, SCHEMA, complete=True)


def verdict_code(verdict: Verdict) -> int:
    """The exit code of a photo that was protected or verified.

    >>> verdict_code("protected"), verdict_code("fragile"), verdict_code("partial")
    (0, 8, 7)
    """
    return {"weak": WEAK, "partial": WEAK, "fragile": FRAGILE}.get(verdict, 0)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The exit code of a run: the most serious of its photos'."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in SERIOUSNESS if code in codes), 1 if codes else 0)
