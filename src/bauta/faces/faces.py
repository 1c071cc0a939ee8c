"""The faces of one photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bauta.errors import UsageError

SearchLimit = Literal["time", "size", "turned", "places"]
"""What kept a search for faces from being whole: its time was up, the photo was too large for small faces, turned faces
were left out, or so many places resembled a face that only the likeliest were looked at."""


@dataclass(frozen=True, eq=False)
class Faces:
    """Boxes, landmarks and scores of N faces, in pixels of the upright photo.

    Indexing by a number, a slice, an index array or a boolean mask gives `Faces` again; iterating gives
    `Faces` of one face each.

    Attributes:
        boxes: (N, 4) float32, x1, y1, x2, y2.
        landmarks: (N, 5, 2) float32, (x, y) of the eye on the left, the eye on the right, the nose tip and
            the mouth corners on the left and on the right, as seen with the face upright.
        scores: (N,) float32 in [0, 1], the detector's confidence.
        limits: What was not looked for or not looked at; empty when the search was whole. Where there are limits, a
            face may be left that was not seen, and nothing may be said of the whole photo.

    Raises:
        UsageError: when shapes disagree or values are not finite.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    limits: tuple[SearchLimit, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.scores)
        for name, shape in (("boxes", (count, 4)), ("landmarks", (count, 5, 2)), ("scores", (count,))):
            values = np.asarray(getattr(self, name), dtype=np.float32)
            if values.shape != shape or not np.isfinite(values).all():
                raise UsageError(
                    f"The {name} of {count} faces must be finite, of shape {shape}, not {values.shape}.",
                    hint="Give one box, five landmarks and one score for each face.",
                )
            object.__setattr__(self, name, values)

    @classmethod
    def none(cls) -> Faces:
        """No faces."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int | slice | NDArray[Any]) -> Faces:
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return Faces(self.boxes[chosen], self.landmarks[chosen], self.scores[chosen], self.limits)

    @property
    def areas(self) -> NDArray[np.float32]:
        """(N,) areas of the boxes in square pixels."""
        x1, y1, x2, y2 = self.boxes.T
        return np.asarray((x2 - x1) * (y2 - y1), dtype=np.float32)

    def largest(self) -> Faces:
        """The face with the largest box, or no face when there is none."""
        return self[int(np.argmax(self.areas))] if len(self) else self

    @classmethod
    def join(cls, parts: Sequence[Faces]) -> Faces:
        """All faces of one or more sets, one after the other."""
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.landmarks for part in parts]),
            np.concatenate([part.scores for part in parts]),
            tuple(dict.fromkeys(limit for part in parts for limit in part.limits)),
        )

    def limited(self, *limits: SearchLimit) -> Faces:
        """These faces, of a search with further limits."""
        return replace(self, limits=tuple(dict.fromkeys((*self.limits, *limits))))

    def each_once(self) -> Faces:
        """Of those that are one face the best, by descending score; equal scores keep their order."""
        ordered = self[np.argsort(-self.scores, kind="stable")]
        left, kept = np.arange(len(ordered)), []
        while len(left):
            best, left = left[0], left[1:]
            kept.append(best)
            left = left[~same_face(ordered[left], ordered[best])]
        return ordered[np.array(kept, dtype=np.int64)]

    def elsewhere(self, others: Faces) -> Faces:
        """Those of `others` that are none of these faces."""
        if not len(self) or not len(others):
            return others
        return others[np.array([not same_face(self, others[index]).any() for index in range(len(others))], np.bool_)]

    def overlap(self, box: ArrayLike) -> NDArray[np.float32]:
        """(N,) intersection over union of each face's box with `box` (x1, y1, x2, y2)."""
        return overlaps(self.boxes, np.asarray(box, dtype=np.float32))


# Two boxes show one face when they share this much of their union, or, being of similar size, this much of the smaller
# one. A card before a face or a picture on a shirt is a second face.
SAME_UNION = 0.3
SAME_PART = 0.6
SIMILAR_SIZE = 0.3
# So do landmarks that lie closer together, on average, than this part of the distance between the eyes.
SAME_POINTS = 0.35


def same_face(faces: Faces, one: Faces) -> NDArray[np.bool_]:
    """(N,) whether each face is that one: by their boxes, or by their landmarks when one box is a loose one."""
    box, area = one.boxes[0], np.maximum(one.areas[0], 1e-9)
    similar = np.minimum(faces.areas, area) > SIMILAR_SIZE * np.maximum(faces.areas, area)
    part = overlaps(faces.boxes, box, of_smaller=True) > SAME_PART
    union = overlaps(faces.boxes, box) > SAME_UNION
    apart = np.linalg.norm(faces.landmarks - one.landmarks, axis=2).mean(axis=1)
    eyes = np.maximum(_between_eyes(faces), _between_eyes(one))
    return np.asarray(union | (part & similar) | (apart < SAME_POINTS * eyes))


def _between_eyes(faces: Faces) -> NDArray[np.floating]:
    return np.asarray(np.linalg.norm(faces.landmarks[:, 0] - faces.landmarks[:, 1], axis=1))


def overlaps(boxes: NDArray[np.float32], box: NDArray[np.float32], *, of_smaller: bool = False) -> NDArray[np.float32]:
    """(N,) intersections of boxes (N, 4) with one box, over the union or over the smaller of both areas."""
    x1, y1, x2, y2 = boxes.T
    width = np.minimum(x2, box[2]) - np.maximum(x1, box[0])
    height = np.minimum(y2, box[3]) - np.maximum(y1, box[1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (x2 - x1) * (y2 - y1)
    area = (box[2] - box[0]) * (box[3] - box[1])
    whole = np.minimum(areas, area) if of_smaller else areas + area - intersection
    return np.asarray(intersection / np.maximum(whole, 1e-9), dtype=np.float32)
