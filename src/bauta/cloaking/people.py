"""Whose mask goes on which face, when masks are fitted to people, and what their owners need to take them off again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from bauta.cloaking.making import Making
from bauta.errors import UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.faces import Faces
from bauta.judging.verification import JudgeWithThresholds
from bauta.learning.fitted import Fitted
from bauta.photo import MetadataPolicy, Photo
from bauta.photo.attachment import RECORDS, Section
from bauta.rates import SELECTION_FMR
from bauta.recognizers import Judge, find_card, load_judge, threshold

FloatArray = NDArray[np.float32]

_SUBJECT = "subject."


def subjects_of(fitted: Fitted) -> dict[str, FloatArray]:
    """How judges see the person of a fitted file: a unit template (D,) by the name of a judge."""
    return {
        name.removeprefix(_SUBJECT): part.numpy().astype(np.float32)
        for name, part in fitted.parts.items()
        if name.startswith(_SUBJECT)
    }


def with_subject(fitted: Fitted, judge: str, template: FloatArray) -> Fitted:
    """The same, which from now on knows its person."""
    return replace(fitted, parts={**fitted.parts, _SUBJECT + judge: torch.from_numpy(template)})


class People:
    """The people of some fitted files.

    Args:
        fitted: One of each person.
        judges: The judges at hand, asked for when faces are to be told apart.

    Raises:
        UsageError: when there are several, and one does not say whose it is.
    """

    def __init__(self, fitted: Sequence[Fitted], judges: Callable[[], Sequence[JudgeWithThresholds]]) -> None:
        self.fitted, self._judges = tuple(fitted), judges
        self._loaded: dict[str, tuple[Judge, float]] = {}
        self.known = bool(fitted) and all(map(subjects_of, fitted))
        if len(fitted) > 1 and not self.known:
            raise UsageError(
                "Several masks are given, and not all say whose they are.",
                hint="Fit them anew, with a judge that is calibrated.",
            )

    def owners(self, photo: Photo, faces: Faces, *, sure: bool = False) -> NDArray[np.int64]:
        """(N,) number of the fitted file of each face's person; -1 for others, the nearest when `sure`."""
        if not self.known:
            return np.zeros(len(faces), np.int64)
        past = np.full((len(self.fitted), len(faces)), -np.inf, np.float32)
        for row, one in enumerate(self.fitted):
            for name, template in subjects_of(one).items():
                judge, limit = self.judge(name)
                crops = extract_crops(photo.parts, faces.landmarks, judge.card.template)
                past[row] = judge.embed(crops) @ template - limit
        nearest: NDArray[np.int64] = past.argmax(0)
        return nearest if sure else np.where(past.max(0) >= 0, nearest, -1)

    def judge(self, name: str) -> tuple[Judge, float]:
        """The judge that a person is known by, and from which cosine on a face is theirs."""
        if name not in self._loaded:
            there = next((member for member in self._judges() if member.name == name), None)
            if there is not None and SELECTION_FMR in there.thresholds:
                self._loaded[name] = there.judge, there.thresholds[SELECTION_FMR].cosine
            else:
                card = find_card(name)
                self._loaded[name] = load_judge(card), threshold(card, SELECTION_FMR).cosine
        return self._loaded[name]

    @cached_property
    def secrets(self) -> tuple[bytes, ...]:
        """Of each owner what masks are taken off with; none unless all have one."""
        found = [one.secret for one in self.fitted]
        return tuple(secret for secret in found if secret is not None) if all(found) else ()

    def records(self, making: Making, metadata: MetadataPolicy) -> list[Section]:
        """What owners need to take masks off, where format and policy have a place for it.

        Args:
            making: The masks.
            metadata: With `MetadataPolicy.STRIP` nothing is added.
        """
        kept = [(number, mask.edit.payload) for number, mask in sorted(making.masks.items()) if mask.edit.payload]
        photo = making.photo
        if not kept or not self.secrets or metadata is MetadataPolicy.STRIP:
            return []
        from bauta.cloaking.restoring import FaceRecord, seal_records

        size, landmarks = (photo.width, photo.height), making.faces.landmarks
        records = [FaceRecord(size, landmarks[number], payload) for number, payload in kept]
        return [(RECORDS, seal_records(records, [self.secrets[making.owner(number)] for number, _ in kept]))]
