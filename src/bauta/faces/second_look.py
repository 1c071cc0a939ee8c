"""A second look at what may be a face: upright, enlarged or reduced to one size, by two other networks.

MTCNN's R-Net and O-Net see the face in a frame of its own, as they would in an upright photo, and give box and
landmarks; CenterFace as its authors trained it sees it with what is around. Neither is sure of every face, and what
one of them takes for a face by mistake, the other seldom does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bauta.faces.alignment import sample
from bauta.faces.cascade import run
from bauta.faces.centerface import look
from bauta.faces.faces import Faces
from bauta.faces.mtcnn import load_networks

# Up to this many degrees from upright, or from a quarter turn, a face is seen as the photo (turned) shows it: MTCNN was
# made for faces that lean a little.
LEANING = 25.0
# CenterFace sees a window of this many pixels, in which the face is this high.
WINDOW = 96
HEIGHT = 40
# R-Net's probability from which on a proposal is looked at, and the proposal's own from which on it is in any case.
PLAUSIBLE = 0.15
CERTAINLY_LOOK = 0.6
# A face seen with this probability is not looked at from other sides.
SURE = 0.7
# From this probability on, box and landmarks are O-Net's; below, CenterFace's in the window.
OUTPUT_SURE = 0.7
# Of the log odds of the proposal, of O-Net and of CenterFace in the window, of the agreement of their landmarks, and 1:
# fitted by logistic regression to 249 faces and 1116 other places of development scenes and pictures.
WEIGHTS = (3.49, 0.84, 4.12, 1.2, 0.84)
# Faces looked at together; bounds memory.
BATCH = 64
# What turning a window by as many quarters, counter-clockwise as seen, does to a point (x, y) from its middle.
QUARTERS = np.array([((1, 0), (0, 1)), ((0, 1), (-1, 0)), ((-1, 0), (0, -1)), ((0, -1), (1, 0))], dtype=np.float64)


@dataclass(frozen=True)
class Frames:
    """Squares around N faces, turned so that the faces are upright in them.

    Attributes:
        centres: (N, 2) in pixels of the photo.
        sides: (N,) in pixels.
        turns: (N, 2, 2) rotations from the photo's axes to the squares'.
    """

    centres: NDArray[np.float64]
    sides: NDArray[np.float64]
    turns: NDArray[np.float64]

    @classmethod
    def around(cls, faces: Faces) -> Frames:
        """Around the boxes of faces, as high as they are, turned as their landmarks are."""
        boxes = faces.boxes.astype(np.float64)
        return cls(
            (boxes[:, :2] + boxes[:, 2:]) / 2,
            np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0), 2),
            upright_turns(faces.landmarks),
        )

    def __getitem__(self, index: NDArray[np.bool_] | slice) -> Frames:
        return Frames(self.centres[index], self.sides[index], self.turns[index])

    def patches(self, pixels: NDArray[np.float32], size: int, *, enlargement: float = 1.0) -> NDArray[np.float32]:
        """(N, size, size, 3): what the photo shows in the squares; grey outside of it."""
        patches = np.empty((len(self.sides), size, size, 3), dtype=np.float32)
        scales = (size - 1) / (self.sides * enlargement)
        for patch, centre, matrix in zip(patches, self.centres, scales[:, None, None] * self.turns, strict=True):
            offset = (size - 1) / 2 - matrix @ centre
            patch[:] = sample(pixels, np.column_stack([matrix, offset]), (size, size), border=0.5)
        return patches

    def in_photo(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, K, 2), relative to the centres along the squares' axes, in pixels of the photo."""
        return points @ self.turns + self.centres[:, None]

    def moved(self, boxes: NDArray[np.float64]) -> Frames:
        """The squares around boxes (N, 4) that are relative to the centres along the squares' axes."""
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        return replace(
            self,
            centres=self.in_photo(middle[:, None])[:, 0],
            sides=np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0), 1),
        )


@dataclass(frozen=True)
class Evidence:
    """What the networks say of N candidates.

    Attributes:
        faces: Boxes and landmarks by O-Net, with its probabilities as scores.
        seen: Boxes and landmarks by CenterFace in a window, with its probabilities as scores; the candidates and 0
            where it saw none.
        apart: (N,) how far the landmarks of the two lie apart, on average, in parts of the distance between O-Net's
            eyes.
    """

    faces: Faces
    seen: Faces
    apart: NDArray[np.float64]


def upright_turns(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 2, 2) rotations that make faces with landmarks (N, 5, 2) upright, up to `LEANING` degrees."""
    points = np.asarray(landmarks, dtype=np.float64)
    down = points[:, 3:].mean(axis=1) - points[:, :2].mean(axis=1)
    length = np.linalg.norm(down, axis=1, keepdims=True)
    down = np.where(length > 1e-6, down / np.maximum(length, 1e-6), (0.0, 1.0))
    quarter = np.sign(down) * (np.abs(down) > 0.75)  # the nearest, or none
    down = np.where((down * quarter).sum(axis=1, keepdims=True) > np.cos(np.radians(LEANING)), quarter, down)
    x, y = down.T
    return np.stack([np.stack([y, -x], axis=1), np.stack([x, y], axis=1)], axis=1)


def confirm(pixels: NDArray[np.float32], proposals: Faces, *, turned: bool = True) -> Faces:
    """The proposals that are faces.

    Args:
        pixels: (H, W, 3) in [0, 1].
        proposals: N faces; their boxes say where and how large, their landmarks which way up.
        turned: Whether faces that lean by more than 45 degrees are kept.

    Returns:
        Each face once, by descending score.
    """
    if not turned:
        proposals = proposals[upright_turns(proposals.landmarks)[:, 1, 1] > np.cos(np.radians(45))]
    proposals = proposals[plausible(pixels, proposals, turned=turned)]
    evidence = examine(pixels, proposals, turned=turned)
    clear = evidence.faces.scores > OUTPUT_SURE
    faces = Faces(
        np.where(clear[:, None], evidence.faces.boxes, evidence.seen.boxes),
        np.where(clear[:, None, None], evidence.faces.landmarks, evidence.seen.landmarks),
        probability(proposals.scores, evidence),
    )
    return faces[faces.scores > 0.5].each_once()


def plausible(pixels: NDArray[np.float32], proposals: Faces, *, turned: bool = True) -> NDArray[np.bool_]:
    """(N,) which proposals score well or look a little like a face to R-Net, from any side: a glance that spares looks.

    It keeps 99 % of faces and a third of what gravel and leaves are taken for.
    """
    _, refinement, _ = load_networks()
    kept = proposals.scores > CERTAINLY_LOOK
    for start in range(0, len(proposals), BATCH):
        some = np.flatnonzero(~kept[start : start + BATCH]) + start
        patches = Frames.around(proposals[some]).patches(pixels, 24)
        for quarter in range(4 if turned else 1):
            _, scores = run(refinement, np.ascontiguousarray(np.rot90(patches, quarter, axes=(1, 2))))
            kept[some] |= scores > PLAUSIBLE
    return kept


def probability(proposed: NDArray[np.float32], evidence: Evidence) -> NDArray[np.float32]:
    """(N,) how surely candidates are faces, from the scores of proposals (N,) and the second look."""
    agreement = -np.log(evidence.apart + 0.05)
    terms = [_log_odds(proposed), _log_odds(evidence.faces.scores), _log_odds(evidence.seen.scores), agreement]
    odds = np.stack([*terms, np.ones(len(proposed))], axis=1) @ np.array(WEIGHTS)
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float32)


def _log_odds(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    values = scores.astype(np.float64)
    return np.asarray(np.log((values + 0.003) / (1.003 - values)))


def examine(pixels: NDArray[np.float32], candidates: Faces, *, turned: bool = True) -> Evidence:
    """Look at candidates once more.

    Args:
        pixels: (H, W, 3) in [0, 1].
        candidates: N faces; their boxes say where and how large, their landmarks which way up.
        turned: Whether a candidate may lie otherwise than its landmarks say.
    """
    starts = range(0, len(candidates), BATCH)
    parts = [_examine(pixels, candidates[start : start + BATCH], turned) for start in starts]
    if not parts:
        return Evidence(Faces.none(), Faces.none(), np.zeros(0))
    return Evidence(
        Faces.join([part.faces for part in parts]),
        Faces.join([part.seen for part in parts]),
        np.concatenate([part.apart for part in parts]),
    )


def _examine(pixels: NDArray[np.float32], candidates: Faces, turned: bool) -> Evidence:
    seen = in_window(pixels, candidates, turned=turned)
    faces = by_output_network(pixels, Frames.around(seen))
    apart = np.linalg.norm(faces.landmarks - seen.landmarks, axis=2).mean(axis=1)
    eyes = np.linalg.norm(faces.landmarks[:, 0] - faces.landmarks[:, 1], axis=1)
    return Evidence(faces, seen, apart / np.maximum(eyes, 1e-6))


def by_output_network(pixels: NDArray[np.float32], frames: Frames) -> Faces:
    """Boxes, landmarks and probabilities by O-Net, of squares that R-Net has moved."""
    _, refinement, output = load_networks()
    moves, _ = run(refinement, frames.patches(pixels, 24))
    frames = frames.moved(_adjusted(frames, moves))
    moves, fractions, scores = run(output, frames.patches(pixels, 48))
    # A patch reaches from half a pixel before its first pixel's centre to half a pixel after its last one's.
    landmarks = (fractions - 0.5) * (frames.sides + 1)[:, None, None]
    return _faces(frames, _adjusted(frames, moves), landmarks, scores)


def in_window(pixels: NDArray[np.float32], candidates: Faces, *, turned: bool) -> Faces:
    """What CenterFace sees in the middle of windows around candidates; where it sees nothing they stay, with score 0.

    Where it is not sure of a face, it looks at the window turned by 90, 180 and 270 degrees, too, and then at a window
    that is centred and turned by what it has seen.
    """
    frames = Frames.around(candidates)
    windows = frames.patches(pixels, WINDOW, enlargement=WINDOW / HEIGHT)
    seen = replace(candidates, scores=np.zeros(len(candidates), np.float32))
    for quarter in range(4 if turned else 1):
        unsure = seen.scores < SURE
        others = replace(frames, turns=QUARTERS[quarter] @ frames.turns)[unsure]
        seen = _better(seen, unsure, _in_middle(others, np.rot90(windows[unsure], quarter, axes=(1, 2))))
    unsure = (seen.scores < SURE) & (seen.scores > 0)
    others = Frames.around(seen[unsure])
    windows = others.patches(pixels, WINDOW, enlargement=WINDOW / HEIGHT)
    return _better(seen, unsure, _in_middle(others, windows))


def _better(seen: Faces, where: NDArray[np.bool_], others: Faces) -> Faces:
    """Faces of which some are replaced by others that score more; `where` says which the others stand for."""
    chosen = np.arange(len(seen))
    places = np.flatnonzero(where)
    better = others.scores > seen.scores[places]
    chosen[places[better]] = len(seen) + np.flatnonzero(better)
    return Faces.join([seen, others])[chosen]


def _in_middle(frames: Frames, windows: NDArray[np.float32]) -> Faces:
    """The best face of fitting size in the middle of each window; score 0 where there is none."""
    boxes, landmarks = np.zeros((len(windows), 4)), np.zeros((len(windows), 5, 2))
    scores, middle = np.zeros(len(windows), np.float32), (WINDOW - 1) / 2
    scales = frames.sides * (WINDOW / HEIGHT) / (WINDOW - 1)
    for index, faces in enumerate(look(windows, 0.01, "centerface") if len(windows) else []):
        away = np.abs((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - middle).max(axis=1, initial=0)
        height = faces.boxes[:, 3] - faces.boxes[:, 1]
        fit = (away < 0.4 * HEIGHT) & (height > 0.5 * HEIGHT) & (height < 2 * HEIGHT)
        if fit.any():
            best = int(np.argmax(fit))  # the best comes first
            boxes[index] = scales[index] * (faces.boxes[best] - middle)
            landmarks[index] = scales[index] * (faces.landmarks[best] - middle)
            scores[index] = faces.scores[best]
    return _faces(frames, boxes, landmarks, scores)


def _adjusted(frames: Frames, moves: NDArray[np.float32]) -> NDArray[np.float64]:
    """Boxes relative to the centres: the squares, moved by fractions of their sides (N, 4)."""
    half = frames.sides[:, None] / 2
    return np.asarray(half * (-1, -1, 1, 1) + moves * (frames.sides[:, None] + 1))


def _faces(
    frames: Frames, boxes: NDArray[np.float64], landmarks: NDArray[np.float64], scores: NDArray[np.float32]
) -> Faces:
    """Faces in the photo. The box of a turned face is that of the ellipse in its upright box."""
    middle = frames.in_photo((boxes[:, None, :2] + boxes[:, None, 2:]) / 2)[:, 0]
    halves = np.abs(boxes[:, 2:] - boxes[:, :2]) / 2
    halves = np.sqrt(np.einsum("nij,ni->nj", frames.turns**2, halves**2))
    boxes = np.concatenate([middle - halves, middle + halves], axis=1)
    return Faces(boxes.astype(np.float32), frames.in_photo(landmarks).astype(np.float32), scores)
