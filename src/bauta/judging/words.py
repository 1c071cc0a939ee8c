"""The English of findings and verdicts: the only module that turns them into sentences.

Nothing may be derived from what it returns. Its wording can change at any time without changing a verdict, an exit code
or a field of a report other than the texts themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bauta.judging.conditions import CONDITIONS
from bauta.judging.findings import ORIGINAL, Cause, Finding, FindingKind, Verdict
from bauta.judging.visibility import Visibility

_NAMED_FACES = 6  # in one sentence; a group photo may leave hundreds alone

HEADLINES: dict[Verdict, str] = {
    "protected": "Protected",
    "unconfirmed": "Changed, but not confirmed",
    "fragile": "Fragile: protected until the photo is changed",
    "partial": "Not every face is covered",
    "weak": "Still recognisable",
}
"""The verdict of a photo or a face as a title."""

CHIPS: dict[Verdict, str] = {
    "protected": "protected",
    "unconfirmed": "unconfirmed",
    "fragile": "FRAGILE",
    "partial": "PARTIAL",
    "weak": "WEAK",
}
"""The verdict as one word of a table."""

DOES_NOT_PROTECT_AGAINST = (
    "Recognisers that are newer or much larger than those that judged.",
    "Recognisers trained on photos protected this way: such training undoes most masks.",
    "Other photos of the person that are already online without protection.",
    "Being linked from one protected photo to another, above all if they were protected in different runs.",
    "People: a human who knows the face recognises it.",
    "Names, places, clothes and company: everything else a photo tells.",
)

_SEARCH_LIMITS = {
    "time": "its time was up",
    "size": "the photo is too large to be searched for small faces",
    "turned": "turned faces were not looked for",
    "places": "so much in it resembles a face that only the likeliest places were looked at",
}


@dataclass(frozen=True)
class Circumstances:
    """What sentences about a whole photo depend on, beside the findings.

    Attributes:
        faces: Number of faces that were judged.
        judges: Number of calibrated judges.
        independent: How many of them were not attacked.
        made: Whether this run made the protection, or only verified it.
        compared_with: What the verdict rests on: the original, reference photos, or some of each.
        stronger: Whether a stronger mask could be asked for.
        longer: Whether a time budget ended the work on a mask.
        coverable: Whether a face that no mask protects could be blurred or pixelated instead.
    """

    faces: int
    judges: int
    independent: int
    made: bool
    compared_with: Literal["original", "references", "both"]
    stronger: bool = False
    longer: bool = False
    coverable: bool = False


def number(value: float) -> str:
    """A similarity or a margin: two digits, or as many as say something.

    >>> number(0.25), number(-0.004), number(0.00012)
    ('0.25', '-0.004', '0.0001')
    """
    digits = next((digits for digits in (2, 3) if abs(value) >= 0.5 * 10**-digits), 4)
    return f"{value:.{digits}f}"


def place(box: Sequence[float], width: int, height: int) -> str:
    """Where in a photo a face is: one of nine parts of it.

    >>> place((10, 300, 110, 420), 1000, 700), place((450, 10, 550, 110), 1000, 700)
    ('left', 'top centre')
    """
    across, down = (box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height
    column = "left" if across < 1 / 3 else "right" if across > 2 / 3 else "centre"
    row = "top" if down < 1 / 3 else "bottom" if down > 2 / 3 else ""
    return f"{row} {column}".strip()


def face_names(boxes: Sequence[Sequence[float]], width: int, height: int) -> dict[int, str]:
    """What the faces of a photo are called, by number; the only one is "the face"."""
    if len(boxes) == 1:
        return {1: "the face"}
    return {number: f"face {number} ({place(box, width, height)})" for number, box in enumerate(boxes, 1)}


def reasons(findings: Sequence[Finding], names: Mapping[int, str]) -> list[str]:
    """A sentence for each finding that forces a verdict other than ``protected``."""
    return sentences([finding for finding in findings if finding.forces != "protected"], names)


def warnings(findings: Sequence[Finding], names: Mapping[int, str]) -> list[str]:
    """What the verdict's title and summary leave out: everything but the matches and who could be asked."""
    left_out: set[FindingKind] = {"match", "no-independent-judge"}
    return sentences([finding for finding in findings if finding.kind not in left_out], names)


def sentences(findings: Sequence[Finding], names: Mapping[int, str]) -> list[str]:
    """Findings in plain English, those that differ in one thing in one sentence, in order.

    Args:
        findings: Of one photo.
        names: What its faces are called, from `face_names`.
    """
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault(_group(finding), []).append(finding)
    return list(dict.fromkeys(_sentence(group, names) for group in groups.values()))


def _group(finding: Finding) -> tuple[object, ...]:
    if finding.kind == "match-under-condition":
        return finding.kind, finding.condition, finding.face
    if finding.kind in ("match", "embedded-picture-match", "unprotected-face-elsewhere", "search-limited"):
        return (finding,)
    return finding.kind, finding.cover, finding.cause


def _sentence(group: Sequence[Finding], names: Mapping[int, str]) -> str:
    first = group[0]
    faces = _listed(list(dict.fromkeys(_name(finding, names) for finding in group)))
    judges = _judges(group)
    several = len(group) > 1
    match first.kind:
        case "match":
            return (
                f"{judges} still matches {faces} to {_other(first)}: similarity {number(first.cosine or 0)}, "
                f"{number(-(first.margin or 0))} above its threshold of {number(first.limit or 0)}{_strictness(first)}."
            )
        case "match-under-condition":
            return f"Once the photo is {_phrase(first.condition)}, {faces} is recognised again by {judges}."
        case "embedded-picture-match":
            return f"A picture embedded in the file still shows {faces}: {judges} matches it."
        case "embedded-picture-unseen":
            return "The file holds another picture or film that could not be looked at, and may show a bare face."
        case "face-without-mask":
            why = "stay bare: they are" if several else "stays bare: it is"
            return f"{_capital(faces)} could not be given a mask and {why} too small or cut off."
        case "unprotected-face-elsewhere":
            return f"The protected photo shows another face{_where(first)} that has no mask."
        case "search-limited":
            stopped = _SEARCH_LIMITS.get(first.reason or "", "it was stopped")
            return f"Faces were not looked for everywhere, since {stopped}: some may be bare."
        case "no-independent-judge":
            return "No judge that was not itself attacked could be asked."
        case "not-calibrated":
            return f"{judges} {'have' if several else 'has'} no calibrated threshold and no say in the verdict."
        case "face-not-found-again":
            where = "they were judged where they were" if several else "it was judged where it was"
            return f"The detector no longer finds {faces} in the protected photo; {where} before."
        case "face-covered":
            done = {"blur": "blurred", "pixelate": "pixelated"}[first.cover or "blur"]
            why = _covered(first.cause, several)
            return f"{_capital(faces)} {'are' if several else 'is'} {done}, {why}."
        case "face-left-alone":
            return f"{_capital(faces)} {'were left as they are' if several else 'was left as it is'}."


def _covered(cause: Cause | None, several: bool) -> str:
    match cause:
        case "no-mask":
            return f"being too small or cut off for {'masks' if several else 'a mask'}"
        case "not-chosen":
            return "as asked for faces that were not chosen"
        case "asked":
            return "as asked"
        case _:
            return f"since no mask that was tried protects {'them' if several else 'it'}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _name(finding: Finding, names: Mapping[int, str]) -> str:
    return "the face" if finding.face is None else names.get(finding.face, f"face {finding.face}")


def _other(finding: Finding) -> str:
    return "the original" if finding.against == ORIGINAL else str(finding.against)


def _strictness(finding: Finding) -> str:
    """At which stricter rate it would still be a match."""
    if not finding.fmr or finding.matches_at is None or finding.matches_at >= finding.fmr:
        return f" (FMR {finding.fmr:g})" if finding.fmr else ""
    return (
        f", and it would be a match even for a system that mistakes strangers for each other only once in "
        f"{1 / finding.matches_at:,.0f} pairs (FMR {finding.matches_at:g})"
    )


def _where(finding: Finding) -> str:
    if finding.box is None:
        return ""
    left, top, right, bottom = finding.box
    return f" ({right - left:.0f} × {bottom - top:.0f} pixels at {left:.0f}, {top:.0f})"


def _phrase(condition: str | None) -> str:
    return next((known.phrase for known in CONDITIONS if known.name == condition), str(condition))


def summary(verdict: Verdict, findings: Sequence[Finding], names: Mapping[int, str], about: Circumstances) -> str:
    """The verdict of a photo in plain words, and what to do where something can be done."""
    if verdict == "weak":
        return f"{_recognised(findings, names)} {_advice(about)}"
    if not about.judges:
        said = "A mask was added, but no calibrated recogniser is installed to say whether it works."
    elif about.independent:
        said = _confirmed(about)
    else:
        said = (
            f"The recogniser that the mask was made against no longer recognises {_faces(about)}, but no "
            "independent one is installed to confirm that others fail too. "
            "Take this as a good sign, not as proof."
        )
    but = [finding for finding in findings if finding.forces in ("partial", "fragile")]
    partial = [finding for finding in but if finding.forces == "partial"]
    if partial:
        bare = any(finding.kind == "face-without-mask" for finding in partial)
        cover = " A fallback (blur or pixelate) would cover what is bare." if bare and about.coverable else ""
        return f"{said} But: {' '.join(sentences(partial, names))}{cover}"
    if but:
        ways = _listed(list(dict.fromkeys(_phrase(finding.condition) for finding in but)), "or")
        who = list(dict.fromkeys(_name(finding, names) for finding in but))
        again = f"{_listed(who)} {'is' if len(who) == 1 else 'are'} recognised again."
        better = _better(about)
        return f"{said} But once it is {ways}, {again}{f' {_capital(better)} may hold better.' if better else ''}"
    return said


def _recognised(findings: Sequence[Finding], names: Mapping[int, str]) -> str:
    """Who still recognises whom."""
    matches = [finding for finding in findings if finding.forces == "weak"]
    who = list(dict.fromkeys(finding.judge or "a judge" for finding in matches))
    whom = list(dict.fromkeys(_name(finding, names) for finding in matches))
    where = "in the protected photo"
    if all(finding.kind == "embedded-picture-match" for finding in matches):
        where = "in a picture embedded in the protected photo"
    return f"{_listed(who)} still recognise{'s' if len(who) == 1 else ''} {_listed(whom)} {where}."


def _advice(about: Circumstances) -> str:
    better = _better(about)
    return f"Try {better}, or do not share this photo." if better else "Do not share this photo."


def _better(about: Circumstances) -> str:
    """What could be asked for and was not."""
    ways = (
        ("a higher strength", about.stronger),
        ("a longer budget", about.longer),
        ("a fallback (blur or pixelate)", about.coverable),
    )
    return _listed([way for way, there in ways if there and about.made], "or")


def _confirmed(about: Circumstances) -> str:
    one = about.independent == 1
    judges = "The independent recogniser" if one else f"None of the {about.independent} independent recognisers"
    against = {
        "original": "the original",
        "references": "the reference photos",
        "both": "the reference photos, or to the original where a reference was not recognised before either",
    }[about.compared_with]
    independence = (
        f"{'It' if one else 'They'} had no part in making the mask."
        if about.made
        else f"That holds if {'it was not' if one else 'none of them was'} attacked when the mask was made, "
        "which a verification cannot know."
    )
    return (
        f"{judges} that checked the saved file {'no longer matches' if one else 'matches'} "
        f"{_faces(about)} to {against}. {independence}"
    )


def _faces(about: Circumstances) -> str:
    return "the face" if about.faces == 1 else f"the {about.faces} faces"


def protects_against(judges: Sequence[str], held: Sequence[str], margin: float | None) -> list[str]:
    """What was measured to help on this photo.

    Args:
        judges: Those that were asked and not attacked.
        held: Names of the conditions under which no judge matches a face.
        margin: By how much the nearest of the judges is below its threshold in the saved file.
    """
    if not judges:
        return []
    several = "the nearest of them by " if len(judges) > 1 else "by "
    nearest = "" if margin is None else f", {several}{number(margin)}"
    said = [f"Matching of the saved file by {_listed(judges)}: below the threshold{nearest}."]
    if changed := [_phrase(name) for name in held if name != "saved"]:
        said.append(f"Matching by the same recognisers once the photo is {_listed(changed, 'or')}.")
    return said


def does_not_protect_against(findings: Sequence[Finding], smallest: float) -> list[str]:
    """What was measured to fail on this photo, then what no mask helps against.

    Args:
        findings: Of the photo.
        smallest: Height in pixels of the smallest face that was looked for.
    """
    undone = [finding for finding in findings if finding.kind == "match-under-condition"]
    said = []
    if undone:
        ways = _listed(list(dict.fromkeys(_phrase(finding.condition) for finding in undone)), "or")
        said.append(f"Matching by {_judges(undone)} once this photo is {ways}.")
    small = f"Faces of less than {smallest:.0f} pixels in height, which are not looked for, though some are found."
    return [*said, *DOES_NOT_PROTECT_AGAINST, small]


def _judges(findings: Sequence[Finding]) -> str:
    return _listed(list(dict.fromkeys(finding.judge or "a judge" for finding in findings)))


def _listed(names: Sequence[str], last: str = "and") -> str:
    if len(names) > _NAMED_FACES:
        names = [*names[:_NAMED_FACES], f"{len(names) - _NAMED_FACES} more"]
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


Seen = Literal["hardly", "beside the original", "at normal size"]


def how_visible(seen: Visibility) -> Seen:
    """How much of an edit is seen: without the original beside it, only next to it, or at once.

    The limits are ours, by looking at faces of all kinds at 100 and 200 percent.
    """
    if seen.chroma > 2 or seen.noticed > 0.45 or seen.displacement > 6 or seen.irises > 6:
        return "at normal size"
    if seen.noticed > 0.27 or seen.displacement > 3.2 or max(seen.irises, seen.lips) > 3:
        return "beside the original"
    return "hardly"


def most_visible(faces: Iterable[Visibility | None]) -> Seen | None:
    """`how_visible` of the edit that is seen most; None where nothing was measured."""
    order: tuple[Seen, ...] = get_args(Seen)
    return max((how_visible(seen) for seen in faces if seen is not None), key=order.index, default=None)


def noticed(seen: Visibility) -> list[str]:
    """What a viewer may notice of an edit, one sentence each."""
    said = []
    if seen.displacement >= 0.5:
        shape = "The face has a slightly different shape" if seen.displacement > 4 else "The face is moved a little"
        said.append(f"{shape}: by up to {seen.displacement:.1f} % of the distance between the eyes.")
    if seen.noticed > 0.1:
        light = "clearly" if seen.noticed > 0.45 else "a little" if seen.noticed > 0.27 else "hardly"
        said.append(f"Light and shade on the skin differ {light}.")
    if seen.chroma > 2:
        said.append("The skin has coloured blotches.")
    for part, value in (("eyes", seen.irises), ("lips", seen.lips)):
        if value > 3:
            said.append(f"The {part} look a little different.")
    return said or ["Nothing that measurements tell."]
