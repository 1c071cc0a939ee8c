"""Who is enrolled: photos become protected faces under names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bauta.calls import checked
from bauta.errors import NoFaceFound, UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.detection import detect_faces
from bauta.gallery.sealing import ID, encode_name, new_id
from bauta.photo import PhotoSource, read_photo
from bauta.templates.base import SIDE, Protector
from bauta.templates.representation import Representation


@dataclass(frozen=True, eq=False, repr=False)
class Gallery:
    """Protected faces, and what each is called. `bauta.gallery.files` keeps it, sealed.

    Attributes:
        representation: Of N faces.
        names: N names, which need not differ.
        id: 16 random bytes of this gallery, which stay when its key is changed.
        records: N ids of 16 random bytes, all different; drawn anew by default.

    Raises:
        UsageError: when the numbers differ, a name cannot be stored, ids are not of this form, or the faces were turned
            by the key of AdvFace's broken reference.
    """

    representation: Representation
    names: tuple[str, ...]
    id: bytes = field(default_factory=new_id)
    records: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        faces = len(self.representation)
        if len(self.names) != faces:
            raise UsageError(f"{faces} faces have {len(self.names)} names.", hint="Give a name for each.")
        for name in self.names:
            encode_name(name)
        if not self.records:
            object.__setattr__(self, "records", tuple(new_id() for _ in self.names))
        if len(set(self.records)) != faces or {len(one) for one in (self.id, *self.records)} != {ID}:
            raise UsageError("A gallery was given ids of another form.", hint=f"Give {ID} random bytes for each.")
        if self.representation.key:
            raise UsageError(
                "Faces that AdvFace's reference key turned are not stored: that map falls to a stolen store alone.",
                hint="Protect them without it; the gallery is sealed.",
            )

    def __repr__(self) -> str:
        return f"<Gallery {self.id.hex()[:12]}: {self.representation!r}>"

    def __len__(self) -> int:
        return len(self.names)


def names_of_photos(photos: Sequence[Path]) -> tuple[str, ...]:
    """What faces are called: by the photos' file names, or by their paths where two photos have one name."""
    names = tuple(path.name for path in photos)
    return names if len(set(names)) == len(names) else tuple(map(str, photos))


@checked
def read_faces(photos: Sequence[PhotoSource], *, aligned: bool = False) -> Tensor:
    """The largest face of each photo, (N, 3, 112, 112) float32 in [0, 1], aligned to the ArcFace template.

    Args:
        photos: Files, or anything else that `bauta.read_photo` takes.
        aligned: The photos are aligned crops of 112x112 pixels already.

    Raises:
        PhotoError: when one cannot be read.
        NoFaceFound: when there is none in one.
        UsageError: when there are no photos, or an aligned one has another size.
    """
    if not photos:
        raise UsageError("There are no photos.", hint="Name photos or folders.")
    crops = []
    for photo in map(read_photo, photos):
        pixels, path = photo.pixels, photo.called
        if aligned:
            if pixels.shape[:2] != (SIDE, SIDE):
                raise UsageError(
                    f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIDE}x{SIDE}.",
                    hint="Leave --aligned out: the face is found and aligned then.",
                )
            crops.append(pixels.transpose(2, 0, 1))
            continue
        faces = detect_faces(pixels).largest()
        if not len(faces):
            raise NoFaceFound(f"No face was found in {path}.", hint="Give a photo that shows the face.")
        crops.append(extract_crops(pixels, faces.landmarks, ARCFACE_112)[0])
    return torch.from_numpy(np.ascontiguousarray(np.stack(crops), dtype=np.float32)).clamp(0, 1)


@checked
def enrol_faces(protector: Protector, images: Tensor, names: Sequence[str], *, seed: int | None = None) -> Gallery:
    """Protect faces, for a gallery.

    Args:
        protector: How.
        images: (N, 3, 112, 112) in [0, 1].
        names: What they are called.
        seed: Of the protector's noise, for experiments; by default it comes from the operating system and is
            forgotten.

    Raises:
        UsageError: when the images have another form.
    """
    made = protector.protect_anew(images) if seed is None else protector.protect(images, _generator(int(seed)))
    return Gallery(made, tuple(names))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
