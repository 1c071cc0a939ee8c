"""Which faces of a photo are masked, which are covered and which stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bauta.cloaking.settings import ProtectSettings
from bauta.errors import NoFaceFound, UsageError
from bauta.faces.faces import Faces
from bauta.judging.findings import Cause, Cover
from bauta.photo import Photo
from bauta.registry import DEFAULT_CLOAK

Matches = Callable[[Faces, Sequence[Path | Photo]], NDArray[np.bool_]]
"""Of each face, whether it is somebody in one of the photos."""

Owned = Callable[[Faces], NDArray[np.bool_] | None]
"""Of each face, whether it is of somebody that a mask was fitted to; None when masks are made for any face."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The faces of a photo and what is asked for each.

    Attributes:
        faces: All of them, those to be masked first.
        masked: How many those are.
        covers: Of the others, by number from 0, what covers them and why; those that are missing stay as they are.
    """

    faces: Faces
    masked: int
    covers: Mapping[int, tuple[Cover, Cause]] = field(default_factory=dict)

    @property
    def asked(self) -> set[int]:
        """Numbers of the faces that are not to stay as they are."""
        return set(range(self.masked)) | self.covers.keys()


def choose(found: Faces, settings: ProtectSettings, matches: Matches, owned: Owned, name: str) -> Chosen:
    """What is asked for each of the faces that were found.

    Args:
        found: All faces of the photo.
        settings: Whose selection names no boxes.
        matches: Tells people apart.
        owned: Tells whose masks there are; faces of others get none.
        name: Of the photo, for messages.

    Raises:
        NoFaceFound: when there is none, or none is selected and the others are to be left as they are.
        UsageError: when a face is named that is not there.
    """
    if not len(found):
        raise NoFaceFound(
            f"No face was found in {name}.",
            hint="Point to it with --box x,y,width,height, in pixels of the upright photo.",
        )
    selection = settings.selection
    faces = found[np.argsort(-found.areas, kind="stable")]
    chosen = np.ones(len(faces), dtype=np.bool_)
    mine = owned(faces)
    if selection.faces:
        return _by_number(faces, settings, mine, name)
    if selection.largest:
        chosen[1:] = False
    elif selection.only:
        chosen = matches(faces, selection.only)
    elif selection.keep:
        chosen = ~matches(faces, selection.keep)
    if mine is not None:
        if chosen.any() and not (chosen & mine).any() and settings.others == "leave":
            raise _nobody(name)
        chosen = chosen & mine
    if not chosen.any() and settings.others == "leave":
        raise NoFaceFound(
            f"None of the {len(faces)} faces in {name} is selected.",
            hint="Check the reference photos, or leave out --only and --keep to protect every face.",
        )
    return with_others(faces[chosen], faces[~chosen], settings)


def with_others(masked: Faces, others: Faces, settings: ProtectSettings) -> Chosen:
    """Faces to be masked, and others to which happens what the settings say."""
    faces, count = Faces.join([masked, others]), len(masked)
    if settings.others == "leave":
        return Chosen(faces, count)
    return Chosen(faces, count, dict.fromkeys(range(count, len(faces)), (settings.others, "not-chosen")))


def _nobody(name: str) -> NoFaceFound:
    return NoFaceFound(
        f"No face in {name} is of the person that the mask was fitted to.",
        hint=f"Fit a mask for whoever it shows, or protect it with --method {DEFAULT_CLOAK}.",
    )


def _by_number(faces: Faces, settings: ProtectSettings, mine: NDArray[np.bool_] | None, name: str) -> Chosen:
    asked = dict(settings.selection.faces)
    if beyond := sorted(number for number in asked if number > len(faces)):
        raise UsageError(
            f"{name} has {len(faces)} face{'' if len(faces) == 1 else 's'}, and face {beyond[0]} is asked for.",
            hint="Run `bauta protect --dry-run` to see their numbers.",
        )
    what = [asked.get(number, "protect") for number in range(1, len(faces) + 1)]
    if mine is not None:
        wanted = what
        what = ["leave" if one == "protect" and not here else one for one, here in zip(what, mine, strict=True)]
        if set(what) == {"leave"} != set(wanted):
            raise _nobody(name)
    order = [at for at, one in enumerate(what) if one == "protect"]
    count = len(order)
    order += [at for at, one in enumerate(what) if one != "protect"]
    covers: dict[int, tuple[Cover, Cause]] = {}
    for place, at in enumerate(order):
        one = what[at]
        if one == "blur" or one == "pixelate":
            covers[place] = (one, "asked")
    if not count and not covers:
        raise NoFaceFound(
            f"Every face in {name} is to be left as it is.", hint="Choose at least one to protect or to cover."
        )
    return Chosen(faces[np.array(order, dtype=np.int64)], count, covers)
