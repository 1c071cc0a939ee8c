"""What became of the photos of a run, and the exit codes that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bauta.errors import BautaError

if TYPE_CHECKING:
    from bauta.judging.findings import Verdict

WEAK = 7
"""Exit code of a photo that a judge still recognises, or in which not every face is known to be covered."""

FRAGILE = 8
"""Exit code of a photo that is recognised again once it is saved as JPEG, made smaller or screenshotted."""

SERIOUSNESS = (130, 1, 2, 6, 9, 5, 4, 3, WEAK, FRAGILE, 0)
"""Exit codes, the most serious first: what concerns the whole run before what concerns a photo, and what left
no protected photo before what left a weak one."""


@dataclass(frozen=True)
class Outcome:
    """What became of one photo.

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
        psnr: Lowest PSNR of a face, in dB.
        margin: By how much the nearest judge is below its threshold, in cosine similarity.
        matching: Number of judges that still match a face.
        judges: Number of judges asked.
        removed: What was left out of the photo's metadata, how many fields by kind.
        seconds: Wall time.
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
    psnr: float | None = None
    margin: float | None = None
    matching: int = 0
    judges: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def failed(cls, source: Path, error: BautaError) -> Outcome:
        """Of a photo, or of the whole run, that ended in an error."""
        return cls(source, exit_code=error.exit_code, code=error.code, message=error.message, hint=error.hint)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


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
