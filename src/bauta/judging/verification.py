"""Did it work? Judges look at the saved file, as it is and after what happens to photos that are shared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.errors import UsageError
from bauta.faces.alignment import extract_crops, similarity_matrix
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.judging.conditions import CONDITIONS, SAVED, Condition
from bauta.judging.findings import ORIGINAL, Finding, Verdict, decide
from bauta.judging.windows import Window, windows_around
from bauta.metrics import linf, psnr, ssim
from bauta.photo import PixelArray
from bauta.progress import Steps, silent
from bauta.rates import FMRS
from bauta.recognizers.calibration import Threshold
from bauta.recognizers.judges import Judge

FloatArray = NDArray[np.float32]

MINIMUM_OVERLAP = 0.3
"""Intersection over union at which a detection in the saved photo is the face that was there before."""


_THUMBNAIL = 64  # side of the pictures by which two photos are told apart, in pixels
_SAME_PHOTO = 0.7  # correlation around the faces; a screenshot of a photo stays above 0.95
_PLAIN = 0.01  # standard deviation below which a surrounding tells nothing


@dataclass(frozen=True)
class JudgeWithThresholds:
    """One judge at work, with what makes its answer a decision.

    Attributes:
        judge: Embeds crops.
        attacked: It was a surrogate too, so that its word confirms nothing.
        thresholds: By FMR; empty when it was not calibrated.
    """

    judge: Judge
    attacked: bool
    thresholds: dict[float, Threshold]

    @property
    def name(self) -> str:
        """The name on the judge's card."""
        return self.judge.card.name

    def matches_at(self, cosine: float) -> float | None:
        """The strictest FMR at which a cosine similarity still is a match; None when it is none at all."""
        return min((fmr for fmr, limit in self.thresholds.items() if cosine >= limit.cosine), default=None)


@dataclass(frozen=True)
class Reference:
    """Another photo of the person, seen by every judge.

    Attributes:
        name: File name.
        sha256: Of the file.
        embeddings: By judge, (dim,) of unit norm.
    """

    name: str
    sha256: str
    embeddings: dict[str, FloatArray]


@dataclass(frozen=True)
class Comparison:
    """What one judge says of one face under one condition.

    Attributes:
        judge: Name of the judge.
        attacked: Whether that judge was attacked.
        against: `ORIGINAL`, or the name of a reference.
        condition: Name of the condition.
        before: Cosine similarity of the unprotected face; against `ORIGINAL` None.
        after: Cosine similarity of the protected face.
        matched_before: Strictest FMR at which the unprotected face matched; None for no match or `ORIGINAL`.
        matches_at: Strictest FMR at which the protected face still matches; None for no match.
        limit: The judge's threshold at the FMR of the verdict; None when it is not calibrated.
        margin: `limit` less `after`: by how much the face is below the threshold.
        counts: Whether the verdict rests on it: a judge that matched the unprotected face to references is asked about
            those, any other about the original.
    """

    judge: str
    attacked: bool
    against: str
    condition: str
    before: float | None
    after: float
    matched_before: float | None
    matches_at: float | None
    limit: float | None
    margin: float | None
    counts: bool = False


@dataclass(frozen=True)
class Quality:
    """How far the protected face is from the original, over one rectangle of the saved photo.

    Attributes:
        psnr: In dB; None when nothing differs.
        ssim: In [-1, 1]; None when a side is shorter than 11 pixels.
        linf: Largest difference of a sample, in 1/255.
    """

    psnr: float | None
    ssim: float | None
    linf: float


@dataclass(frozen=True)
class FaceVerification:
    """The answer for one face.

    Attributes:
        verdict: What follows from the findings; see `bauta.judging.findings.Verdict`.
        findings: What was found out about this face.
        found: By condition, whether the detector still finds the face.
        comparisons: Every judge, against everything, under every condition.
        footprint: Quality over the crop that recognisers look at; None when sizes differ.
        box: Quality over the detector's box; None when sizes differ.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    found: dict[str, bool]
    comparisons: tuple[Comparison, ...]
    footprint: Quality | None
    box: Quality | None

    @property
    def margin(self) -> float | None:
        """By how much the nearest judge is below its threshold in the saved file; None without a calibrated one."""
        rows = (row for row in self.comparisons if row.counts and row.condition == SAVED.name)
        return min((row.margin for row in rows if row.margin is not None), default=None)


def verify_faces(
    original: PixelArray,
    saved: PixelArray,
    faces: Faces,
    judges: Sequence[JudgeWithThresholds],
    references: Sequence[Reference] = (),
    *,
    conditions: Sequence[Condition] = CONDITIONS,
    fmr: float = FMRS[0],
    progress: Steps = silent,
) -> list[FaceVerification]:
    """Judge every face of a photo.

    With references, a face is weak when a judge matches it to a reference that it matched before; a judge
    that recognised the person in none of them, or a run without references, compares the face with itself
    before protection, which is the strictest case.

    Conditions are applied to windows around the faces, which shows them what the whole photo would.

    Args:
        original: (H, W, 3) in [0, 1].
        saved: (H', W', 3) in [0, 1], as read from the saved file; a resized copy of the original is welcome.
        faces: N faces of the original.
        judges: The judges.
        references: Other photos of the person.
        conditions: `SAVED` first.
        fmr: False match rate of the verdict.
        progress: Called after every condition.

    Returns:
        N answers, in the order of `faces`.
    """
    identity = {member.name: _embed(member, original, faces.landmarks) for member in judges}
    comparisons: list[list[Comparison]] = [[] for _ in range(len(faces))]
    found: list[dict[str, bool]] = [{} for _ in range(len(faces))]
    expected = rescaled(faces, original.shape, saved.shape)
    windows = windows_around(expected.boxes, saved.shape)
    for at, (window, condition) in enumerate(itertools.product(windows, conditions), 1):
        received = condition.apply(window.of(saved))
        there = _seen_from(window, expected)
        shape = (window.bottom - window.top, window.right - window.left)
        present, landmarks = find_again(received, there, shape, thorough=condition is SAVED)
        for member in judges:
            protected = _embed(member, received, landmarks)
            for index, embedding in zip(window.faces, protected, strict=True):
                before = identity[member.name][index]
                comparisons[index] += _compare(member, condition, fmr, before, embedding, references)
        for index, here in zip(window.faces, present, strict=True):
            found[index][condition.name] = bool(here)
        progress(at, len(windows) * len(conditions))
    same_size = original.shape == saved.shape
    answers = []
    for index in range(len(faces)):
        rows = weigh(comparisons[index], fmr)
        findings = find(rows, judges, fmr, index + 1)
        if not found[index].get(SAVED.name, True):
            findings.append(Finding("face-not-found-again", face=index + 1))
        answers.append(
            FaceVerification(
                decide(findings),
                tuple(findings),
                found[index],
                tuple(rows),
                _quality(original, saved, footprint(faces.landmarks[index])) if same_size else None,
                _quality(original, saved, faces.boxes[index]) if same_size else None,
            )
        )
    return answers


def weigh(comparisons: Sequence[Comparison], fmr: float) -> list[Comparison]:
    """The comparisons of one face, those on which its verdict rests marked."""
    known: dict[str, set[str]] = {}
    for row in comparisons:
        if row.matched_before is not None and row.matched_before <= fmr:
            known.setdefault(row.judge, set()).add(row.against)
    return [replace(row, counts=row.against in known.get(row.judge, {ORIGINAL})) for row in comparisons]


def find(
    comparisons: Sequence[Comparison], judges: Sequence[JudgeWithThresholds], fmr: float, face: int
) -> list[Finding]:
    """What the judges found out about one face: matches first, then what undoes the mask, then who was missing.

    Args:
        comparisons: Of the face, weighed.
        judges: Everybody who was asked.
        fmr: False match rate of the verdict.
        face: Number of the face, from 1.
    """
    matches = [row for row in comparisons if row.counts and row.matches_at is not None and row.matches_at <= fmr]
    saved = [row for row in matches if row.condition == SAVED.name]
    known = {row.judge for row in saved}  # a judge that matches the file itself matches what is made of it
    undone: dict[tuple[str, str], Comparison] = {}
    for row in matches:
        if row.judge not in known:
            nearest = undone.setdefault((row.condition, row.judge), row)
            undone[row.condition, row.judge] = max(nearest, row, key=lambda one: one.after)
    findings = [_match("match", row, fmr, face) for row in saved]
    findings += [_match("match-under-condition", row, fmr, face) for row in undone.values()]
    if not any(member.thresholds and not member.attacked for member in judges):
        findings.append(Finding("no-independent-judge", face=face))
    return findings


def _match(kind: Literal["match", "match-under-condition"], row: Comparison, fmr: float, face: int) -> Finding:
    return Finding(
        kind,
        face=face,
        judge=row.judge,
        against=row.against,
        condition=row.condition,
        cosine=row.after,
        limit=row.limit,
        fmr=fmr,
        margin=row.margin,
        matches_at=row.matches_at,
    )


def find_again(
    received: FloatArray, faces: Faces, shape: tuple[int, ...], *, thorough: bool
) -> tuple[NDArray[np.bool_], FloatArray]:
    """The faces of the original in a photo that somebody received.

    Args:
        received: (H', W', 3) in [0, 1].
        faces: N faces in pixels of the original.
        shape: (H, W, ...) of the original.
        thorough: Whether to look again, rotated and enlarged, when nothing is found.

    Returns:
        (N,) whether the detector still finds the face, and (N, 5, 2) landmarks in pixels of the received
        photo. A face that is not found is judged where it was, since another detector may find it.
    """
    expected = rescaled(faces, shape, received.shape)
    landmarks, boxes = expected.landmarks.copy(), expected.boxes
    present = np.zeros(len(faces), dtype=np.bool_)
    # Nothing smaller than the smallest face is of interest, and small faces are what detection costs.
    side = float(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)).min(initial=math.inf))
    seen = detect_faces(received, minimum_size=max(12, int(side)), thorough=thorough)
    for index, box in enumerate(boxes):
        overlap = seen.overlap(box)
        if len(seen) and overlap.max() >= MINIMUM_OVERLAP:
            present[index] = True
            landmarks[index] = seen.landmarks[overlap.argmax()]
    return present, landmarks


def rescaled(faces: Faces, shape: tuple[int, ...], other: tuple[int, ...]) -> Faces:
    """The faces of a photo (H, W, ...) in a copy of another size."""
    scale = np.array([other[1] / shape[1], other[0] / shape[0]], dtype=np.float32)
    return replace(faces, landmarks=(faces.landmarks + 0.5) * scale - 0.5, boxes=faces.boxes * np.tile(scale, 2))


def _seen_from(window: Window, faces: Faces) -> Faces:
    """The faces of a window, in its own pixels."""
    inside = faces[np.array(window.faces, dtype=np.int64)]
    corner = np.array([window.left, window.top], dtype=np.float32)
    return replace(inside, landmarks=inside.landmarks - corner, boxes=inside.boxes - np.tile(corner, 2))


def refuse_another_photo(original: FloatArray, saved: FloatArray, faces: Faces) -> None:
    """Check that two photos agree in what lies around the faces, once both are reduced to thumbnails.

    Of another photo, or of the same one turned, every judge would say "no match": a verdict about nothing.

    Args:
        original: (H, W, 3) in [0, 1].
        saved: (H', W', 3) in [0, 1], of about the same shape.
        faces: The faces of the original; what a mask may have changed is left out.

    Raises:
        UsageError: when they do not correlate.
    """
    first, second = (_thumbnail(pixels) for pixels in (original, saved))
    ratio = np.array([_THUMBNAIL / original.shape[1], _THUMBNAIL / original.shape[0]])
    around = np.ones(first.shape, dtype=np.bool_)
    for landmarks in faces.landmarks:
        left, top, right, bottom = footprint(landmarks) * np.tile(ratio, 2)
        around[max(0, int(top)) : max(0, math.ceil(bottom)), max(0, int(left)) : max(0, math.ceil(right))] = False
    if around.sum() < _THUMBNAIL:
        return
    one, other = (picture[around] - picture[around].mean() for picture in (first, second))
    spread = float(np.linalg.norm(one) * np.linalg.norm(other))
    # Around the faces there may be nothing to compare, such as a white wall.
    if one.std() > _PLAIN and other.std() > _PLAIN and float(one @ other) / spread < _SAME_PHOTO:
        raise UsageError(
            "The two files do not show the same photo.",
            hint="Give the original first, then the same photo protected, neither cropped nor turned.",
        )


def _thumbnail(pixels: FloatArray) -> FloatArray:
    """Luminance (64, 64) in [0, 1]."""
    small = cv2.resize(pixels, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def footprint(landmarks: FloatArray) -> FloatArray:
    """Bounding box (x1, y1, x2, y2) of the ArcFace crop in photo pixels, from landmarks (5, 2)."""
    matrix = np.vstack([similarity_matrix(landmarks, ARCFACE_112), [0, 0, 1]])
    side = ARCFACE_112.width - 0.5
    corners = np.linalg.inv(matrix) @ np.array([[-0.5, side, side, -0.5], [-0.5, -0.5, side, side], [1, 1, 1, 1]])
    return np.concatenate([corners[:2].min(1), corners[:2].max(1)]).astype(np.float32)


def cut(pixels: PixelArray, box: FloatArray) -> FloatArray:
    """The part of a photo (H, W, 3) inside a box, at least one pixel."""
    height, width = pixels.shape[:2]
    left, top = np.floor(box[:2]).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(box[2:]).astype(int).clip((left + 1, top + 1), (width, height))
    return pixels[top:bottom, left:right]


def _embed(member: JudgeWithThresholds, pixels: PixelArray, landmarks: FloatArray) -> FloatArray:
    return member.judge.embed(extract_crops(pixels, landmarks, member.judge.card.template))


def _compare(
    member: JudgeWithThresholds,
    condition: Condition,
    fmr: float,
    before: FloatArray,
    protected: FloatArray,
    references: Sequence[Reference],
) -> list[Comparison]:
    """What one judge says of one face against itself and against every reference."""

    def row(against: str, other: FloatArray, earlier: float | None) -> Comparison:
        after = float(protected @ other)
        limit = member.thresholds[fmr].cosine if fmr in member.thresholds else None
        return Comparison(
            judge=member.name,
            attacked=member.attacked,
            against=against,
            condition=condition.name,
            before=earlier,
            after=after,
            matched_before=None if earlier is None else member.matches_at(earlier),
            matches_at=member.matches_at(after),
            limit=limit,
            margin=None if limit is None else limit - after,
        )

    rows = [row(ORIGINAL, before, None)]
    for reference in references:
        other = reference.embeddings[member.name]
        rows.append(row(reference.name, other, float(before @ other)))
    return rows


def _quality(original: PixelArray, saved: PixelArray, box: FloatArray) -> Quality:
    first, second = cut(original, box), cut(saved, box)
    ratio = psnr(first, second)
    return Quality(
        psnr=ratio if math.isfinite(ratio) else None,
        ssim=ssim(first, second) if min(first.shape[:2]) >= 11 else None,
        linf=linf(first, second),
    )
