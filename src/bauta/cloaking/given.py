"""What a person gives beside the photo: other photos of somebody, a likeness, a secret."""

from __future__ import annotations

from pathlib import Path

from bauta.cloaks.view import FaceView, ViewSpec, cut_view
from bauta.errors import UsageError
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.keys import read_private
from bauta.photo import Photo, read_photo


def faces_of(path: Path | Photo) -> tuple[Photo, Faces]:
    """A photo that shows somebody, and its faces.

    Raises:
        UsageError: when it shows none.
    """
    photo = read_photo(path)
    faces = detect_faces(photo.parts[:, :])
    if not len(faces):
        raise UsageError(
            f"No face was found in the reference photo {photo.path or 'in memory'}.",
            hint="Give a photo that shows the person large and from the front.",
        )
    return photo, faces


_BESIDE = 0.2  # of the largest face's area, from which on another one is not in the background


def view_of(photo: Photo, spec: ViewSpec) -> FaceView:
    """The view of the face in a photo that a method goes by.

    Raises:
        UsageError: when it shows no face that is large enough, or two.
    """
    faces = detect_faces(photo.parts[:, :])
    where = photo.called
    if not len(faces):
        raise UsageError(
            f"No face was found in {where}.", hint="Give a photo that shows the person large and from the front."
        )
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    areas = sides[:, 0] * sides[:, 1]
    if (count := int((areas > _BESIDE * areas.max()).sum())) > 1:
        raise UsageError(f"{where} shows {count} faces.", hint="Give a photo of one person, or cut the others off.")
    return cut_view(photo.parts, faces.largest().landmarks[0], grey=photo.grey, spec=spec)[0]


LEAST_SECRET = 16
"""Bytes of a key; less could be tried out."""


def read_secret(path: Path) -> bytes:
    """A key from its file, which others than its owner cannot read.

    Raises:
        UsageError: when the file cannot be read, is open to others, or holds too little.
    """
    secret = read_private(path, "key")
    if len(secret) < LEAST_SECRET:
        raise UsageError(
            f"The key {path} has {len(secret)} bytes; {LEAST_SECRET} is the least.",
            hint="`bauta key -o my.key` makes one.",
        )
    return secret
