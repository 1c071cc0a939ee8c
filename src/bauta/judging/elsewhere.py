"""What else a protected file shows: other pictures embedded in it, and faces that nothing was done to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bauta.faces.alignment import extract_crops
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.judging.findings import ORIGINAL, Finding
from bauta.judging.verification import JudgeWithThresholds, rescaled
from bauta.photo import PixelArray
from bauta.photo.readback import embedded_pictures

FloatArray = NDArray[np.float32]

_SHAPE = 0.05
"""By how much the ratio of sides of a preview may differ from the photo's."""


def search_embedded(
    content: bytes, original: PixelArray, faces: Faces, judges: Sequence[JudgeWithThresholds], *, fmr: float
) -> list[Finding]:
    """Judge every picture that is embedded in a file.

    Args:
        content: The protected file.
        original: (H, W, 3) in [0, 1], before protection.
        faces: N faces of the original.
        judges: Those without a threshold at `fmr` have no say.
        fmr: False match rate of the verdict.

    Returns:
        A finding for each face and judge that matches, against the nearest picture; and one for all pictures and films
        that cannot be decoded.
    """
    pictures = embedded_pictures(content)
    nearest: dict[tuple[int, str], float] = {}
    seen = [picture.pixels for picture in pictures if picture.pixels is not None]
    for member in judges if seen else ():
        known = member.judge.embed(extract_crops(original, faces.landmarks, member.judge.card.template))
        for pixels in seen:
            shown = _places(pixels, faces, original.shape)
            if len(shown):
                there = member.judge.embed(extract_crops(pixels, shown.landmarks, member.judge.card.template))
                for number, cosine in enumerate((known @ there.T).max(axis=1), 1):
                    key = (number, member.name)
                    nearest[key] = max(nearest.get(key, -1.0), float(cosine))
    limits = {member.name: member.thresholds[fmr].cosine for member in judges if fmr in member.thresholds}
    findings = [
        Finding(
            "embedded-picture-match",
            face=number,
            judge=name,
            against=ORIGINAL,
            cosine=cosine,
            limit=limits[name],
            fmr=fmr,
            margin=limits[name] - cosine,
        )
        for (number, name), cosine in sorted(nearest.items())
        if name in limits and cosine >= limits[name]
    ]
    if len(seen) < len(pictures):
        findings.append(Finding("embedded-picture-unseen"))
    return findings


def _places(pixels: FloatArray, faces: Faces, shape: tuple[int, ...]) -> Faces:
    """Faces of an embedded picture: those found, and where those of the photo would be if it is a preview of it."""
    found = detect_faces(pixels)
    if abs(pixels.shape[1] / pixels.shape[0] * shape[0] / shape[1] - 1) > _SHAPE:
        return found
    return Faces.join([found, rescaled(faces, shape, pixels.shape)])


def find_elsewhere(saved: FloatArray, faces: Faces, shape: tuple[int, ...]) -> list[Finding]:
    """Faces in a protected photo that are none of those of the original.

    Args:
        saved: (H', W', 3) in [0, 1].
        faces: All faces of the original, those left alone too.
        shape: (H, W, ...) of the original.
    """
    others = rescaled(faces, shape, saved.shape).elsewhere(detect_faces(saved))
    boxes = rescaled(others, saved.shape, shape).boxes
    return [Finding("unprotected-face-elsewhere", box=(x1, y1, x2, y2)) for x1, y1, x2, y2 in boxes.tolist()]
