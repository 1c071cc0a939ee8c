"""One photo in the making: which face has which mask, how strong it had to be, and what is covered in the end.

Masks are made anew from the original pixels with stronger settings as long as judges match a face and the cloak knows
any. What then still fails can be covered. Judges are asked by the pipeline; here is kept what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.cloaking.apply import BATCH, Picture, apply, edit_pictures, merged, seen_of
from bauta.cloaking.report_data import MaskFacts
from bauta.cloaks.base import Cloak, Edit, Work, load_cloak
from bauta.cloaks.view import Placement
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.faces import Faces
from bauta.judging.findings import VERDICTS, Cause, Cover
from bauta.judging.verification import FaceVerification
from bauta.photo import Photo

COVERS: dict[Cover, tuple[dict[str, Any], ...]] = {
    "blur": ({"sigma": 20.0}, {"sigma": 50.0}),
    "pixelate": ({"cells": 5}, {"cells": 2}),
}
"""Settings of the cloaks that cover a face; docs/protecting.md says how they were chosen.

The later ones are for faces that are matched even so, as those of 20 pixels may be."""

_LEAST = 32
"""Pixels a side of what is covered of a face that is too small for a view of its own."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The mask of one face.

    Attributes:
        edit: What is done to its view.
        placement: Where that lies.
        seconds: Wall time.
        attempt: Number of settings that were tried before.
    """

    edit: Edit
    placement: Placement
    seconds: float
    attempt: int


class Making:
    """The faces of one photo, by number in `faces`, and what has been done to them.

    Args:
        photo: The original.
        faces: All that were found; the first ones hold their ground where masks meet.
        cloaks: One, then the same with ever stronger settings.
        work: Makes what a cloak is given; each time with fresh random numbers.
        budget: Seconds that one face may take, all attempts together; None for no limit.
        owners: Number of the fitted file that each face's mask is from; None when there is at most one.
    """

    def __init__(
        self,
        photo: Photo,
        faces: Faces,
        cloaks: Sequence[Cloak[Any]],
        work: Callable[[], Work],
        budget: float | None = None,
        owners: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        self.photo = photo
        self.faces = faces
        self.masks: dict[int, Mask] = {}
        self.covers: dict[int, tuple[Cover, Cause]] = {}
        self._thickness: dict[int, int] = {}
        self.uncovered: set[int] = set()
        self.answers: dict[int, FaceVerification] = {}
        self._cloaks = cloaks
        self._work = work
        self._budget = budget
        self._owners = owners
        self._tried: dict[int, list[tuple[Mask, FaceVerification]]] = {}
        self._settled = False

    @property
    def treated(self) -> list[int]:
        """Numbers of the faces that have a mask or are covered."""
        return sorted(self.masks.keys() | self.covers.keys())

    def mask(self, numbers: Sequence[int], attempt: int = 0, budget: float | None = None) -> None:
        """Make masks for these faces, as far as a view of each can be cut."""
        if not len(numbers):
            return
        limit, work = self._budget if budget is None else budget, self._work()
        for owner in sorted({self.owner(number) for number in numbers}):
            own = [number for number in numbers if self.owner(number) == owner]
            picture = Picture(self.photo.parts, self.faces.landmarks[own], self.photo.grey)
            given = replace(work, fitted=work.fitted[owner : owner + 1])
            (change,) = edit_pictures(self._cloaks[attempt], [picture], given, budget=limit, batch=BATCH)
            for place, edit, placement, seconds in zip(
                change.kept, change.edits, change.placements, change.seconds, strict=True
            ):
                self.masks[own[place]] = Mask(edit, placement, seconds, attempt)

    def owner(self, number: int) -> int:
        """Number of the fitted file that a face's mask is from."""
        return 0 if self._owners is None else int(self._owners[number])

    def cover(self, numbers: Iterable[int], how: Cover, cause: Cause) -> None:
        """Cover these faces, with what is left of their masks taken off."""
        for number in numbers:
            self.covers[number] = (how, cause)
            self._thickness[number] = 0
            self.masks.pop(number, None)

    def product(self) -> Photo:
        """The photo as it is now. A face that cannot be covered loses its cover, and is bare."""
        placed = [(mask.edit, mask.placement) for _, mask in sorted(self.masks.items())]
        photo = self.photo.with_perturbation(merged(self.photo.parts, placed)) if placed else self.photo
        for how, settings in sorted({(how, self._thickness[number]) for number, (how, _) in self.covers.items()}):
            numbers = [
                number
                for number, (cover, _) in sorted(self.covers.items())
                if (cover, self._thickness[number]) == (how, settings)
            ]
            photo, left = covered(photo, self.faces[np.array(numbers, dtype=np.int64)], how, settings)
            for place in left:
                del self.covers[numbers[place]]
                self.uncovered.add(numbers[place])
        return photo

    def judged(self, answers: dict[int, FaceVerification]) -> None:
        """Keep what judges say of faces as they are now."""
        self.answers |= answers
        for number, answer in answers.items():
            if number in self.masks:
                self._tried.setdefault(number, []).append((self.masks[number], answer))

    def stronger(self) -> list[int]:
        """Make the masks of faces that are recognised anew, with the next settings; numbers of those faces."""
        attempts = {
            number: mask.attempt + 1
            for number, mask in self.masks.items()
            if self.answers[number].verdict in ("weak", "fragile") and not self._settled
        }
        for attempt in sorted(set(attempts.values())):
            numbers = [number for number, own in sorted(attempts.items()) if own == attempt]
            left = self._left(numbers)
            if attempt < len(self._cloaks) and (left is None or left > 0):
                self.mask(numbers, attempt, left)
                return numbers
        return []

    def thicker(self) -> list[int]:
        """Cover faces anew that are recognised under their covers; numbers of those faces."""
        numbers = [
            number
            for number, (how, _) in sorted(self.covers.items())
            if self.answers[number].verdict in ("weak", "fragile") and self._thickness[number] + 1 < len(COVERS[how])
        ]
        for number in numbers:
            self._thickness[number] += 1
        return numbers

    def settle(self) -> list[int]:
        """Give each face the best of the masks that were tried; numbers of those that had another."""
        changed = []
        for number, tried in self._tried.items() if not self._settled else ():
            best, _ = min(tried, key=lambda one: _badness(one[1]))
            if number in self.masks and best is not self.masks[number]:
                self.masks[number] = best
                changed.append(number)
        self._settled = True
        return changed

    def failing(self) -> list[int]:
        """Numbers of the faces with a mask that are not known to be protected."""
        return [number for number in sorted(self.masks) if self.answers[number].verdict != "protected"]

    def facts(self, number: int) -> MaskFacts | None:
        """What the mask of a face took, all attempts together; None for a face without one."""
        mask = self.masks.get(number)
        if mask is None:
            return None
        first, now = (self._cloaks[attempt].config.to_dict() for attempt in (0, mask.attempt))
        return MaskFacts(
            iterations=int(mask.edit.facts.get("iterations", 0)),
            stopped=str(mask.edit.facts.get("stopped", "converged")),
            seconds=self._spent(number),
            attempts=self._attempts(number),
            settings={name: value for name, value in now.items() if value != first[name]},
            visibility=seen_of(self.photo.parts, self.faces.landmarks[number], mask.edit, mask.placement),
            facts={name: value for name, value in mask.edit.facts.items() if name not in ("iterations", "stopped")},
        )

    def _attempts(self, number: int) -> int:
        return max([self.masks[number].attempt, *(mask.attempt for mask, _ in self._tried.get(number, ()))]) + 1

    def _spent(self, number: int) -> float:
        masks = {mask.attempt: mask.seconds for mask, _ in self._tried.get(number, ())}
        masks[self.masks[number].attempt] = self.masks[number].seconds
        return sum(masks.values())

    def _left(self, numbers: Collection[int]) -> float | None:
        if self._budget is None:
            return None
        return self._budget - max(self._spent(number) for number in numbers)


def _badness(answer: FaceVerification) -> tuple[int, float]:
    return VERDICTS.index(answer.verdict), -(answer.margin or 0.0)


def covered(photo: Photo, faces: Faces, how: Cover, settings: int = 0) -> tuple[Photo, list[int]]:
    """The photo with faces covered, and the numbers of those that cannot be.

    A face that is too small for a view of its own, or cut off, is covered as its box says.

    Args:
        photo: Masks and all.
        faces: Those to cover.
        how: Blurred or pixelated.
        settings: Which of the settings in `COVERS`.
    """
    if not len(faces):
        return photo, []
    made = load_cloak(how)
    cloak = made(made.configured(COVERS[how][settings]))
    applied = apply(cloak, photo, faces, Work.seeded(0))
    left = applied.change.left
    if not left:
        return applied.photo, []
    boxes = faces.boxes[list(left)]
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], _LEAST) / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    size = np.array([ARCFACE_112.width, ARCFACE_112.height], dtype=np.float32)
    points = np.asarray(ARCFACE_112.points, dtype=np.float32) / size
    landmarks = boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])
    small = replace(faces[np.array(left, dtype=np.int64)], landmarks=landmarks)
    again = apply(cloak, applied.photo, small, Work.seeded(0))
    return again.photo, [left[place] for place in again.change.left]
