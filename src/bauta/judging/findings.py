"""What was found out about a protected photo, as records, and the verdict that follows from them.

A verdict follows from findings alone: each kind of finding forces a verdict at best, and the worst one counts.
Sentences are made of findings (`bauta.judging.words`), never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from bauta.faces.faces import SearchLimit

Box = tuple[float, float, float, float]

ORIGINAL = "original"
"""What a face is compared with when it is compared with itself before protection."""

Cover = Literal["blur", "pixelate"]
"""What a face is covered with where a mask will not do."""

Cause = Literal["mask-failed", "no-mask", "not-chosen", "asked"]
"""Why a face is covered: judges were not satisfied with its masks, none could be made, it was not among the faces to be
protected and others were to be covered, or it was named."""

FindingKind = Literal[
    "match",
    "match-under-condition",
    "embedded-picture-match",
    "embedded-picture-unseen",
    "face-without-mask",
    "unprotected-face-elsewhere",
    "search-limited",
    "no-independent-judge",
    "not-calibrated",
    "face-not-found-again",
    "face-left-alone",
    "face-covered",
]
"""What can be found.

``match``
    A judge matches the face in the saved file.
``match-under-condition``
    A judge matches the face once something has happened to the saved file, though not in the file itself.
``embedded-picture-match``
    A judge matches the face to a picture that is embedded in the saved file.
``embedded-picture-unseen``
    The saved file holds another picture or film that could not be looked at.
``face-without-mask``
    A face that was to be protected or covered could not be.
``unprotected-face-elsewhere``
    The saved photo shows a face that was neither protected nor left alone on purpose.
``search-limited``
    Faces were not looked for everywhere; `Finding.reason` says what stopped the search.
``no-independent-judge``
    No calibrated judge could be asked that was not attacked.
``not-calibrated``
    A judge without thresholds took part; it has no say.
``face-not-found-again``
    The detector does not find the face in the saved photo; it was judged where it was.
``face-left-alone``
    A face that was not to be protected.
``face-covered``
    The face is blurred or pixelated; `Finding.cover` says which, `Finding.cause` why.
"""

Verdict = Literal["protected", "unconfirmed", "fragile", "partial", "weak"]
"""From best to worst; a face is never ``partial``.

``protected``
    No judge matches the face in the saved file, nor after it is saved as JPEG of quality 75, reduced to half its size
    or screenshotted, and at least one of the judges is calibrated and was not attacked.
``unconfirmed``
    No judge matches, but none of them is calibrated and was not attacked: a good sign, no proof.
``fragile``
    No judge matches in the saved file, but one does once the photo is saved again, made smaller or screenshotted.
``partial``
    Not every face is known to be covered: one could not be given a mask, the saved photo shows one more, the search for
    faces was limited, or the file holds a picture that could not be looked at.
``weak``
    A judge matches a face in the saved file, or finds it in a picture embedded there.
"""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

FRAGILE_CONDITIONS = frozenset({"jpeg-95", "jpeg-75", "half-size", "screenshot"})
"""Names of the conditions that no shared photo escapes; a mask that one of them undoes is fragile.

JPEG 95 is milder than JPEG 75. Under the others, JPEG 50 and a blur, a match is told but forces no verdict.
"""

MESSENGER = "messenger"
"""What happens to clips that are shared: they are coded anew, small and with few bits."""

_FORCES: dict[FindingKind, Verdict] = {
    "match": "weak",
    "embedded-picture-match": "weak",
    "embedded-picture-unseen": "partial",
    "face-without-mask": "partial",
    "unprotected-face-elsewhere": "partial",
    "search-limited": "partial",
    "no-independent-judge": "unconfirmed",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found out. What does not apply is None.

    Attributes:
        kind: One of `FindingKind`.
        face: Number of the face, from 1.
        judge: Name of the judge.
        against: What the face was compared with: ``original``, or the name of a reference.
        condition: Name of what happened to the saved file.
        cosine: Cosine similarity of the protected face.
        limit: The judge's threshold at `fmr`: it matches from this cosine on.
        fmr: False match rate of the verdict.
        margin: `limit` less `cosine`: by how much the face is below the threshold; negative for a match.
        matches_at: Strictest FMR at which the judge still matches.
        box: x1, y1, x2, y2 in pixels of the upright photo, of a face that has no record of its own.
        reason: Of a limited search, one of `SearchLimit`.
        cover: Of a covered face, what covers it.
        cause: Of a covered face, why.
    """

    kind: FindingKind
    face: int | None = None
    judge: str | None = None
    against: str | None = None
    condition: str | None = None
    cosine: float | None = None
    limit: float | None = None
    fmr: float | None = None
    margin: float | None = None
    matches_at: float | None = None
    box: Box | None = None
    reason: SearchLimit | None = None
    cover: Cover | None = None
    cause: Cause | None = None

    @property
    def forces(self) -> Verdict:
        """The best verdict that is possible beside this finding."""
        if self.kind == "match-under-condition" and self.condition in FRAGILE_CONDITIONS | {MESSENGER}:
            return "fragile"
        return _FORCES.get(self.kind, "protected")


def decide(findings: Iterable[Finding]) -> Verdict:
    """The verdict of a face or a photo: the worst that one of its findings forces.

    >>> decide([Finding("face-not-found-again"), Finding("match-under-condition", condition="half-size")])
    'fragile'
    """
    return max((finding.forces for finding in findings), key=VERDICTS.index, default="protected")
