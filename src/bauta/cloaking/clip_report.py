"""The report on a protected clip: what became of each face, by its best frame for an attacker, and by time."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bauta.clips.clip import Clip
from bauta.clips.writing import as_floats
from bauta.cloaking.clip_faces import SHOWN, Followed
from bauta.cloaking.clip_judging import Seen, clock, messenger_words, times
from bauta.cloaking.outcomes import FaceOutcome, Outcome, verdict_code
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.report import environment
from bauta.cloaking.report_data import printable
from bauta.judging.findings import MESSENGER, Finding, Verdict, decide
from bauta.judging.words import DOES_NOT_PROTECT_AGAINST, HEADLINES
from bauta.schema import plain

Picture = NDArray[np.uint8]
SCHEMA: Literal["bauta.clip-report/1"] = "bauta.clip-report/1"


@dataclass(frozen=True)
class ClipFile:
    """A clip on disk.

    Attributes:
        name: Of the file.
        sha256: Of its bytes.
        container: Such as ``mp4``.
        codec: Such as ``h264``.
        size: Width and height in pixels, upright.
        frames: How many.
        seconds: How long.
        bytes: Size of the file.
    """

    name: str
    sha256: str
    container: str
    codec: str
    size: tuple[int, int]
    frames: int
    seconds: float
    bytes: int

    @classmethod
    def of(cls, clip: Clip, name: str) -> ClipFile:
        """What is told of a clip."""
        size = clip.path.stat().st_size
        return cls(
            name, clip.sha256, clip.container, clip.codec, (clip.width, clip.height), clip.frames, clip.seconds, size
        )


@dataclass(frozen=True)
class JudgeOfFace:
    """What one judge says of one face.

    Attributes:
        judge: Its name.
        attacked: Whether the mask was made against it.
        against: What it compared the face with: ``original`` for stills of the clip, or names of references.
        condition: ``saved``, or ``messenger``.
        best_seconds: When the face is nearest to the person.
        best: Cosine of that frame.
        mean: Of all frames that were looked at.
        matching: Share of these frames that match; null when the judge is not calibrated.
        limit: The judge matches from this cosine on; null when it is not calibrated.
        margin: `limit` less `best`.
    """

    judge: str
    attacked: bool
    against: str
    condition: str
    best_seconds: float
    best: float
    mean: float
    matching: float | None
    limit: float | None
    margin: float | None


@dataclass(frozen=True)
class FaceOfClip:
    """One face through one shot.

    Attributes:
        number: From 1.
        shot: Number of the shot, from 1.
        seconds: First and last.
        frames: How many.
        found: In how many of them the detector was asked and found it.
        interpolated: When neither detector nor movement told where it was, as spans of time.
        bare: When it could not be masked or covered, as spans of time.
        box: x1, y1, x2, y2 in its first frame.
        treatment: ``mask``, ``blur``, ``pixelate`` or ``left``.
        cause: Why it is covered.
        verdict: Of the judges; null for a face that was left alone.
        judged: Number of frames that were looked at.
        judges: What they say.
    """

    number: int
    shot: int
    seconds: tuple[float, float]
    frames: int
    found: int
    interpolated: tuple[str, ...]
    bare: tuple[str, ...]
    box: tuple[float, float, float, float]
    treatment: Literal["mask", "blur", "pixelate", "left"]
    cause: str | None
    verdict: Verdict | None
    judged: int
    judges: tuple[JudgeOfFace, ...]

    @property
    def name(self) -> str:
        """What sentences call it."""
        return f"face {self.number} ({clock(self.seconds[0])} to {clock(self.seconds[1])})"

    @property
    def margin(self) -> float | None:
        """By how much its best frame for an attacker is below the nearest threshold in the saved file."""
        margins = [row.margin for row in self.judges if row.margin is not None and row.condition == "saved"]
        return min(margins, default=None)


@dataclass(frozen=True, eq=False)
class ClipReport:
    """The answer.

    Attributes:
        source: The clip before.
        output: The clip after.
        verdict: The worst of its faces'; ``partial`` when some frame of a face was bare, or a face was not followed.
        faces: One for each face of each shot.
        findings: What the verdict follows from.
        warnings: What else is worth knowing.
        removed: How many tags were left out, by kind.
        method: Name of the method.
        config: Its settings.
        looked_every: Frames between two looks for faces.
        seconds: Wall time by part, and ``total``.
        strips: Of each face, stills before and after; not in the JSON.
    """

    source: ClipFile
    output: ClipFile
    verdict: Verdict
    faces: tuple[FaceOfClip, ...]
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    removed: dict[str, int]
    method: str
    config: dict[str, Any]
    looked_every: int
    seconds: dict[str, float]
    environment: dict[str, Any]
    strips: tuple[tuple[tuple[Picture, Picture], ...], ...] = field(default=(), repr=False)

    @property
    def summary(self) -> str:
        """The verdict in a sentence or two."""
        treated = [face for face in self.faces if face.verdict is not None]
        worst = [face for face in treated if face.verdict == self.verdict]
        match self.verdict:
            case "weak" | "fragile":
                told = ", ".join(_match(face, self.verdict) for face in worst[:4])
                more = f", and {len(worst) - 4} more" if len(worst) > 4 else ""
                sent = "" if self.verdict == "weak" else " once a messenger has sent it"
                return f"{HEADLINES[self.verdict]}: judges still match {told}{more}{sent}."
            case "partial":
                return "Some frames show a face that is neither masked nor covered: see the notes for when."
            case "unconfirmed":
                return "No judge matches any face, but none of them is calibrated and was not attacked."
        count = f"all {len(treated)} faces" if len(treated) > 1 else "the face"
        return f"No judge matches {count} in any of the frames that were looked at, nor once a messenger has sent it."

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = plain(
            {name: value for name, value in self.__dict__.items() if name != "strips"}
            | {"schema": SCHEMA, "summary": self.summary, "messenger": messenger_words()}
        )
        return values

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def to_html(self) -> str:
        """The report as a page that holds all it shows."""
        from bauta.pages import page_template, picture

        strips = [
            [(picture(as_floats(one), SHOWN), picture(as_floats(two), SHOWN)) for one, two in strip]
            for strip in self.strips
        ]
        return page_template("cloaking", "clip_report.html.j2").render(
            report=self,
            headline=HEADLINES[self.verdict].replace("photo", "clip"),
            strips=strips,
            clock=clock,
            limits=DOES_NOT_PROTECT_AGAINST,
            messenger=messenger_words(),
        )

    def outcome(self, source: Any, output: Any) -> Outcome:
        """What `bauta protect` tells of it."""
        treated = [face for face in self.faces if face.verdict is not None]
        names = {row.judge for face in treated for row in face.judges}
        matching = {finding.judge for finding in self.findings if finding.kind == "match" and finding.judge is not None}
        return Outcome(
            source,
            verdict=self.verdict,
            output=output,
            exit_code=verdict_code(self.verdict),
            message=self.summary,
            warnings=self.warnings,
            faces=len(treated),
            per_face=tuple(
                FaceOutcome(face.number, face.name, face.box, face.treatment, face.verdict, face.margin)
                for face in self.faces
            ),
            margin=min((face.margin for face in treated if face.margin is not None), default=None),
            matching=len(matching),
            judges=len(names),
            removed=self.removed,
            seconds=self.seconds["total"],
        )


def _match(face: FaceOfClip, verdict: Verdict) -> str:
    condition = "saved" if verdict == "weak" else MESSENGER
    rows = [row for row in face.judges if row.condition == condition and row.margin is not None]
    nearest = min(rows, key=lambda row: row.margin or 0.0, default=None)
    return face.name if nearest is None else f"{face.name}, nearest at {clock(nearest.best_seconds)} by {nearest.judge}"


def make_report(
    pipeline: Pipeline,
    clip: Clip,
    saved: Clip,
    followed: Followed,
    seen: Sequence[Seen],
    bare: set[tuple[int, int]],
    removed: dict[str, int],
    span: tuple[float, float] | None,
    seconds: dict[str, float],
) -> ClipReport:
    """Put together what was done and what was seen."""
    faces, findings = [], []
    for number, person in enumerate(followed.people):
        track, one = person.track, seen[number]
        own = list(one.findings)
        without = [frame for face, frame in bare if face == number]
        if without:
            own.append(Finding("face-without-mask", face=number + 1))
        if person.treatment == "left":
            own = [Finding("face-without-mask" if person.doubtful else "face-left-alone", face=number + 1)]
        findings += own
        gone = np.flatnonzero(track.bridged) + track.first
        x1, y1, x2, y2 = (float(value) for value in track.boxes[0])
        faces.append(
            FaceOfClip(
                number=number + 1,
                shot=track.shot + 1,
                seconds=(followed.times[track.first], followed.times[track.last]),
                frames=len(track.landmarks),
                found=int(track.found.sum()),
                interpolated=tuple(times(gone.tolist(), followed.times)),
                bare=tuple(times(without, followed.times)),
                box=(x1, y1, x2, y2),
                treatment=person.treatment,
                cause=person.cause,
                verdict=None if person.treatment == "left" and not person.doubtful else decide(own),
                judged=len(one.frames),
                judges=tuple(_judges(pipeline, followed, one)),
            )
        )
    findings += seen[-1].findings
    if followed.limited:
        findings.append(Finding("search-limited", reason="places"))
    if saved.frames != clip.frames:
        findings.append(Finding("face-without-mask"))
    return ClipReport(
        source=ClipFile.of(clip, printable(clip.path.name)),
        output=ClipFile.of(saved, printable(clip.path.name)),
        verdict=decide(findings),
        faces=tuple(faces),
        findings=tuple(findings),
        warnings=tuple(_warnings(clip, saved, followed, faces, seen, span)),
        removed=removed,
        method=pipeline.settings.method,
        config=dict(pipeline.config.to_dict()),
        looked_every=followed.every,
        seconds=seconds,
        environment=plain(environment()),
        strips=tuple(
            tuple((before, one.pictures[at]) for at, before in sorted(person.shown.items()) if at in one.pictures)
            for person, one in zip(followed.people, seen, strict=False)
        ),
    )


def _judges(pipeline: Pipeline, followed: Followed, seen: Seen) -> list[JudgeOfFace]:
    rows = []
    for member in pipeline.judges:
        limit = member.thresholds.get(pipeline.settings.fmr)
        for condition in ("saved", MESSENGER):
            if (member.name, condition) in seen.best:
                number, cosine = seen.best[member.name, condition]
                rows.append(
                    JudgeOfFace(
                        member.name,
                        member.attacked,
                        seen.against[member.name],
                        condition,
                        followed.times[number],
                        cosine,
                        seen.mean[member.name, condition],
                        None
                        if limit is None
                        else float(np.mean([one >= limit.cosine for one in seen.cosines[member.name, condition]])),
                        None if limit is None else limit.cosine,
                        None if limit is None else limit.cosine - cosine,
                    )
                )
    return rows


def _warnings(
    clip: Clip,
    saved: Clip,
    followed: Followed,
    faces: Sequence[FaceOfClip],
    seen: Sequence[Seen],
    span: tuple[float, float] | None,
) -> list[str]:
    notes = list(clip.notes)
    for face in faces:
        if face.bare:
            notes.append(f"{face.name.capitalize()} is bare at {', '.join(face.bare)}: --fallback blur covers it.")
        if face.interpolated:
            notes.append(
                f"{face.name.capitalize()} was not seen at {', '.join(face.interpolated)}; its edit was put where it "
                "must have been."
            )
    if elsewhere := seen[-1].elsewhere:
        when = ", ".join(times(elsewhere, followed.times))
        notes.append(f"A face that was not followed shows at {when}: look for faces more often, with --every 1.")
    doubtful = [at for at, person in enumerate(followed.people) if person.doubtful and person.treatment == "left"]
    if doubtful:
        when = ", ".join(f"{clock(faces[at].seconds[0])}-{clock(faces[at].seconds[1])}" for at in doubtful)
        notes.append(
            f"What may be a face shows at {when} and is as it was, since it was found in few frames and never surely: "
            "look there; --fallback blur covers it."
        )
    if left := sum(face.treatment == "left" for face in faces) - len(doubtful):
        notes.append(f"{left} face{' was' if left == 1 else 's were'} left alone, as asked.")
    if covered := [face for face in faces if face.cause == "mask-failed"]:
        names = ", ".join(face.name for face in covered)
        notes.append(f"Covered, since no mask protects it: {names}.")
    if span is not None:
        after = "" if math.isinf(span[1]) else f" and after {clock(span[1])}"
        notes.append(f"Before {clock(span[0])}{after} every face is as it was, as asked.")
    if saved.frames != clip.frames:
        notes.append(f"The clip has {saved.frames} frames and had {clip.frames}: watch it before you share it.")
    size, before = saved.path.stat().st_size, clip.path.stat().st_size
    if size > 1.5 * before:
        notes.append(f"The file is {size / before:.1f} times as large as it was.")
    if followed.every > 1:
        notes.append(
            f"Faces were looked for in one frame of {followed.every} and followed between; a face that shows for less "
            "than that, or a small one that shows for less than half a second, may have been missed. --every 1 looks "
            "at each frame."
        )
    return notes
