"""Did it work? Judges look at frames of the clip as it was written, and as a messenger sends it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bauta.clips.ahead import ahead
from bauta.clips.clip import Clip, Frame, colour_matrix
from bauta.clips.writing import as_floats
from bauta.cloaking.clip_faces import Followed, Still, look_for_faces, shown
from bauta.cloaking.pipeline import Pipeline
from bauta.errors import OutputError
from bauta.faces.alignment import extract_crops
from bauta.faces.faces import overlaps
from bauta.faces.tracking import box_of
from bauta.judging.findings import MESSENGER, ORIGINAL, Finding, Verdict, decide
from bauta.progress import Steps

FloatArray = NDArray[np.float32]

MOST_FRAMES = 150
"""Frames of a clip that judges look at; of a longer one, evenly spread ones."""
WHOLE_EVERY = 1.0
"""Seconds between two looks for faces of every size; the others leave out small ones, as those of the tracker do."""
MESSENGER_SIDE, MESSENGER_CRF, MESSENGER_RATE = 848, "28", 1_200_000
"""How messengers code clips, about: long side in pixels, quality of H.264, and most bits a second."""
_SURE = 0.6  # score from which on a face that was not followed is one that was missed


@dataclass
class Seen:
    """What judges say of one face.

    Attributes:
        frames: Numbers of the frames that were looked at.
        best: By judge and condition, the frame nearest to the person: its number and cosine.
        mean: By judge and condition, the mean cosine.
        cosines: By judge and condition, of every frame that was looked at.
        findings: What follows.
        pictures: By number of the frame, what the clip shows there, small.
        against: By judge, what it compared the face with: `ORIGINAL` for stills of the clip, or names of references.
    """

    frames: list[int] = field(default_factory=list)
    best: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    mean: dict[tuple[str, str], float] = field(default_factory=dict)
    cosines: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)
    pictures: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    against: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Of this face."""
        return decide(self.findings)


def judge_clip(
    pipeline: Pipeline, followed: Followed, saved: Clip, asked: Callable[[float], bool], progress: Steps
) -> list[Seen]:
    """What judges say of each face that was masked or covered; the last one is of faces that were not followed.

    As with photos, a judge that recognises the unprotected face in references compares every frame that is looked at
    with those, and any other with stills of the original clip, which is stricter. The nearest counts. Looks lie between
    those by which faces were followed, so that what those missed can be seen.

    Args:
        pipeline: With the judges.
        followed: The faces of the original.
        saved: The clip as written.
        asked: Whether a second of the clip was to be protected.
        progress: Called with (looks done, looks there are).
    """
    people, judges = followed.people, pipeline.judges
    seen = [Seen() for _ in range(len(people) + 1)]
    looks = _looks(followed, asked)
    cosines: dict[tuple[int, str, str], list[tuple[int, float]]] = {}
    pictured: dict[int, list[int]] = {}
    for at, person in enumerate(people):
        for number in person.shown:
            pictured.setdefault(number, []).append(at)
    looked = -math.inf  # when all faces were looked for last

    def look(number: int, pixels: FloatArray, condition: str) -> None:
        nonlocal looked
        scale = pixels.shape[1] / saved.width
        found = None
        places: dict[int, FloatArray] = {}
        for at, person in enumerate(people):
            there = person.track.at(number)
            if there is not None:
                places[at] = ((there + 0.5) * scale - 0.5).astype(np.float32)
        if condition == "saved":
            seconds = followed.times[number] if number < len(followed.times) else math.inf
            whole = seconds >= looked + WHOLE_EVERY
            looked = seconds if whole else looked
            found = look_for_faces(pixels, None if whole else [points.astype(np.float64) for points in places.values()])
            for face in range(len(found)):
                shares = {
                    at: float(overlaps(found.boxes[face : face + 1], box_of(points).astype(np.float32))[0])
                    for at, points in places.items()
                }
                at = max(shares, key=lambda one: shares[one], default=-1)
                if at >= 0 and shares[at] > 0.25:
                    places[at] = found.landmarks[face]
                elif found.scores[face] >= _SURE:
                    seen[-1].elsewhere.append(number)
        for at, points in places.items():
            if people[at].treatment == "left":
                continue
            for member in judges:
                crop = extract_crops(pixels, points[None], member.judge.card.template)
                near = float((member.judge.embed(crop) @ people[at].compared[member.name][1].T).max())
                cosines.setdefault((at, member.name, condition), []).append((number, near))

    total = 2 * len(looks)
    done = 0

    def read(frame: Frame) -> None:
        nonlocal done
        for at in pictured.get(frame.number, ()):
            points = people[at].track.at(frame.number)
            assert points is not None
            seen[at].pictures[frame.number] = shown(frame, points)
        if frame.number in looks:
            look(frame.number, as_floats(frame.pixels), "saved")
            done += 1
            progress(done, total)

    for frame in through_messenger(saved, looks, read):
        look(frame.number, as_floats(frame.pixels), MESSENGER)
        done += 1
        progress(done, total)
    for (at, name, condition), values in cosines.items():
        seen[at].best[name, condition] = max(values, key=lambda one: one[1])
        seen[at].cosines[name, condition] = [cosine for _, cosine in values]
        seen[at].mean[name, condition] = float(np.mean([cosine for _, cosine in values]))
        seen[at].frames = sorted({*seen[at].frames, *(number for number, _ in values)})
    for at, person in enumerate(people):
        if person.treatment != "left":
            seen[at].against = {name: others for name, (others, _) in person.compared.items()}
            seen[at].findings = _found(pipeline, seen[at], at + 1)
    seen[-1].elsewhere = sorted(set(seen[-1].elsewhere))
    seen[-1].findings = [Finding("unprotected-face-elsewhere")] if seen[-1].elsewhere else []
    return seen


def _looks(followed: Followed, asked: Callable[[float], bool]) -> set[int]:
    """Numbers of the frames that judges look at: between two looks of the tracker, and where faces begin and end."""
    every = followed.every
    wanted = {
        number
        for number in range(len(followed.times))
        if number % every == every // 2 and asked(followed.times[number])
    }
    step = -(-len(wanted) // MOST_FRAMES) if wanted else 1
    wanted = set(sorted(wanted)[::step])
    for person in followed.people:
        ends = {person.track.first, person.track.last, sorted(person.shown)[len(person.shown) // 2]}
        wanted |= {number for number in ends if asked(followed.times[number])}
    return wanted


def compared(pipeline: Pipeline, stills: Sequence[Still]) -> dict[str, tuple[str, FloatArray]]:
    """By judge, what it compares a face with, by name and embeddings (K, dim); see `judge_clip`.

    Args:
        pipeline: With judges, references, and the false match rate.
        stills: Of the original.
    """
    found = {}
    for member in pipeline.judges:
        template = member.judge.card.template
        crops = np.concatenate([extract_crops(still.pixels, still.landmarks, template) for still in stills])
        own, limit = member.judge.embed(crops), member.thresholds.get(pipeline.settings.fmr)
        others = [
            (one.name, one.embeddings[member.name])
            for one in pipeline.references
            if limit is not None and float((own @ one.embeddings[member.name]).max()) >= limit.cosine
        ]
        if others:
            found[member.name] = ", ".join(name for name, _ in others), np.stack([one for _, one in others])
        else:
            found[member.name] = ORIGINAL, own
    return found


def _found(pipeline: Pipeline, seen: Seen, face: int) -> list[Finding]:
    fmr, findings = pipeline.settings.fmr, []
    in_file: set[str] = set()
    for member in pipeline.judges:
        limit = member.thresholds.get(fmr)
        for condition in ("saved", MESSENGER):
            best = seen.best.get((member.name, condition))
            if limit is None or best is None or best[1] < limit.cosine or member.name in in_file:
                continue
            if condition == "saved":
                in_file.add(member.name)
            findings.append(
                Finding(
                    "match" if condition == "saved" else "match-under-condition",
                    face=face,
                    judge=member.name,
                    against=seen.against[member.name],
                    condition=condition,
                    cosine=best[1],
                    limit=limit.cosine,
                    fmr=fmr,
                    margin=limit.cosine - best[1],
                    matches_at=member.matches_at(best[1]),
                )
            )
    if not any(member.thresholds and not member.attacked for member in pipeline.judges):
        findings.append(Finding("no-independent-judge", face=face))
    return findings


def through_messenger(
    saved: Clip, looks: Collection[int], read: Callable[[Frame], None] = lambda frame: None
) -> Iterator[Frame]:
    """Frames of the clip once a messenger has coded it anew, small and with few bits.

    Args:
        saved: The clip.
        looks: Numbers of the frames to give.
        read: Called with each frame of the clip as it is, before any is given.
    """
    import av

    with tempfile.TemporaryDirectory(prefix="bauta-") as folder:
        path = Path(folder) / "sent.mkv"
        try:
            with closing(ahead(_sent(saved, path))) as frames:
                for frame in frames:
                    read(frame)
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(
                f"The clip could not be coded as messengers do: {error}.",
                hint="Check the space left for temporary files.",
            ) from error
        with av.open(str(path)) as container:
            for number, native in enumerate(container.decode(video=0)):
                if number in looks:
                    yield Frame(number, number / saved.rate, native, rotation=saved.rotation)


def _sent(saved: Clip, path: Path) -> Iterator[Frame]:
    """The frames of a clip, each once it has been coded as a messenger does."""
    import av

    scale = min(1.0, MESSENGER_SIDE / max(saved.width, saved.height))
    rate = Fraction(saved.rate).limit_denominator(1001)
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=rate)
        stream.codec_context.options = {
            "crf": MESSENGER_CRF, "preset": "veryfast",
            "maxrate": str(MESSENGER_RATE), "bufsize": str(2 * MESSENGER_RATE),
        }  # fmt: skip
        for frame in saved:
            native = frame.native
            if not frame.number:
                stream.width, stream.height = (
                    max(2, 2 * round(side * scale / 2)) for side in (native.width, native.height)
                )
                stream.pix_fmt = "yuv420p"
                stream.codec_context.colorspace = 1 if colour_matrix(native) == "ITU709" else 6
            picture = native.reformat(
                width=stream.width, height=stream.height, format="yuv420p", interpolation="AREA",
                src_colorspace=colour_matrix(native), dst_colorspace=colour_matrix(native),
                dst_color_range="MPEG",
            )  # fmt: skip
            picture.pts, picture.time_base = frame.number, 1 / rate
            for packet in stream.encode(picture):
                sink.mux(packet)
            yield frame
        for packet in stream.encode(None):
            sink.mux(packet)


def messenger_words() -> str:
    """How a messenger codes clips, for reports."""
    return f"H.264 at {MESSENGER_SIDE} pixels, quality {MESSENGER_CRF}, {MESSENGER_RATE / 1e6:g} Mbit/s at most"


def times(numbers: Sequence[int], seconds: Sequence[float], apart: float = 0.5) -> list[str]:
    """Frames as spans of time, in words.

    >>> times([0, 1, 2, 3, 70], [at / 25 for at in range(100)])
    ['0:00.0-0:00.1', '0:02.8']
    """
    spans: list[list[float]] = []
    for number in sorted(numbers):
        at = seconds[number]
        if spans and at - spans[-1][1] <= apart:
            spans[-1][1] = at
        else:
            spans.append([at, at])
    return [clock(first) if clock(first) == clock(last) else f"{clock(first)}-{clock(last)}" for first, last in spans]


def clock(seconds: float) -> str:
    """A time in a clip.

    >>> clock(83.25)
    '1:23.2'
    """
    tenths = int(10 * seconds)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"
