"""Masks that come off photos which do not say any more which they have, and where. Our design.

A network that saves a photo anew leaves out what its owner needs. Of methods with few masks a person
(`bauta.cloaks.base.KnowsPayloads`) each is tried on each face, and since detectors find masked faces a little beside,
the place is improved by small steps. What came off is told by the judge that knows the person of the fitted file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.cloaking.apply import refused, restore
from bauta.cloaking.people import People, subjects_of
from bauta.cloaks.base import Cloak, KnowsPayloads, Work
from bauta.faces.alignment import extract_crops
from bauta.faces.faces import Faces
from bauta.photo import Photo
from bauta.recognizers import Judge

FloatArray = NDArray[np.float32]

_STILL = (0.0, 0.0, 0.0, 0.0)
_STEPS = (0.06, 0.03)  # of the distance between the eyes, of the size, and in radians


@dataclass(frozen=True, eq=False)
class Trial:
    """One face of a photo, and a person whose mask it may have.

    Attributes:
        photo: Protected, and saved anew since.
        face: One.
        cloak: That made the mask.
        work: With the person's fitted file.
        judge: That knows the person.
        template: (D,) of the person.
    """

    photo: Photo
    face: Faces
    cloak: Cloak[Any]
    work: Work
    judge: Judge
    template: FloatArray

    def without(self, payload: bytes, move: tuple[float, ...] = _STILL) -> Photo:
        """The photo, with a mask taken off that lay a little beside where the face was found."""
        there = replace(self.face, landmarks=_moved(self.face.landmarks, move))
        return restore(self.cloak, self.photo, there, [payload], self.work).photo

    def cosine(self, photo: Photo) -> float:
        """How much the face is the person's."""
        crops = extract_crops(photo.parts, self.face.landmarks, self.judge.card.template)
        return float((self.judge.embed(crops) @ self.template)[0])

    def best(self) -> tuple[float, Photo]:
        """The photo in which the face is the person's most, with a mask taken off or as it is; and how much."""
        assert isinstance(self.cloak, KnowsPayloads)
        found = self.cosine(self.photo), self.photo
        tried = {payload: self.cosine(self.without(payload)) for payload in self.cloak.possible(self.work)}
        payload = max(tried, key=tried.__getitem__)
        if tried[payload] <= found[0]:
            return found
        place: tuple[float, ...] = _STILL
        found = tried[payload], self.without(payload)
        for step in _STEPS:
            for axis in range(4):
                for way in (-step, step):
                    move = (*place[:axis], place[axis] + way, *place[axis + 1 :])
                    photo = self.without(payload, move)
                    if (cosine := self.cosine(photo)) > found[0]:
                        found, place = (cosine, photo), move
                        break
        return found


def search(photo: Photo, faces: Faces, cloak: Cloak[Any], work: Work, people: People) -> tuple[Photo, int]:
    """Take off what masks of some people can be found.

    A mask came off when the face is its person's then, and was so less before, to the first judge that knows them.

    Args:
        photo: Protected, and saved anew since.
        faces: All that were found in it.
        cloak: That made the masks.
        work: What the cloak is given.
        people: Each of them known to a judge.

    Returns:
        The photo, and how many faces had a mask taken off.
    """
    if not isinstance(cloak, KnowsPayloads) or not people.known:
        return photo, 0
    count = 0
    for one in people.fitted:
        name, template = next(iter(subjects_of(one).items()))
        judge, limit = people.judge(name)
        for number in range(len(faces)):
            face = faces[np.array([number])]
            if refused(cloak, photo, face):
                continue
            cosine, without = Trial(photo, face, cloak, replace(work, fitted=(one,)), judge, template).best()
            if without is not photo and cosine >= limit:
                photo, count = without, count + 1
    return photo, count


def _moved(landmarks: FloatArray, move: tuple[float, ...]) -> FloatArray:
    """Landmarks (1, 5, 2) moved right and down by shares of the eyes' distance, made larger and turned."""
    right, down, growth, turn = move
    middle = landmarks.mean(axis=1, keepdims=True)
    eyes = float(np.linalg.norm(landmarks[0, 0] - landmarks[0, 1]))
    cosine, sine = (1 + growth) * np.cos(turn), (1 + growth) * np.sin(turn)
    turned = (landmarks - middle) @ np.array([[cosine, sine], [-sine, cosine]])
    return np.asarray(turned + middle + eyes * np.array([right, down]), dtype=np.float32)
