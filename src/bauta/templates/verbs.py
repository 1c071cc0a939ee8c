"""What a service does with a fitted protector: enrol photos, and compare the photos of visitors with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bauta.errors import NoFaceFound, OutputExists, UsageError, WeightsCorrupt
from bauta.faces.alignment import extract_crops
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.detection import detect_faces
from bauta.photo import read_photo
from bauta.photo.files import write_atomically
from bauta.templates.base import SIDE, Protector
from bauta.templates.representation import Representation, load_representation


@dataclass(frozen=True, eq=False)
class Gallery:
    """Protected faces, and what each is called.

    Attributes:
        representation: Of N faces.
        names: N names.

    Raises:
        UsageError: when the numbers differ.
    """

    representation: Representation
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.representation):
            raise UsageError(
                f"{len(self.representation)} faces have {len(self.names)} names.", hint="Give a name for each."
            )

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the faces to `path`, a safetensors file, and the names to a JSON file beside it.

        Raises:
            OutputExists: when one of both files is there already; nothing is written then.
            OutputError: when they cannot be written.
        """
        require_free(path, overwrite=overwrite)
        self.representation.save(path, overwrite=overwrite)
        content = json.dumps({"names": self.names}, ensure_ascii=False, indent=1)
        write_atomically(_names_of(path), content.encode(), overwrite=overwrite)

    @classmethod
    def load(cls, path: Path) -> Gallery:
        """Read what `save` wrote; without the names, faces are called by their number.

        Raises:
            WeightsMissing: when the file cannot be read.
            WeightsCorrupt: when it is no such file, or damaged.
        """
        representation = load_representation(path)
        beside = _names_of(path)
        if not beside.is_file():
            return cls(representation, tuple(f"face {row}" for row in range(len(representation))))
        try:
            names = json.loads(beside.read_text(encoding="utf-8"))["names"]
            return cls(representation, tuple(map(str, names)))
        except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
            raise WeightsCorrupt(f"{beside} does not name the faces of {path}: {error}.", hint="Delete it.") from error


def require_free(path: Path, *, overwrite: bool) -> None:
    """Let the path of a gallery through at which nothing is lost.

    Raises:
        UsageError: when faces and their names would be one file.
        OutputExists: when the gallery or the file of its names is there, and is not to be replaced.
    """
    if path.suffix == _names_of(path).suffix:
        raise UsageError(f"{path} is the file of the names.", hint="Give FILE.safetensors.")
    for one in (path, _names_of(path)):
        if one.exists() and not overwrite:
            raise OutputExists(f"{one} is there already.", hint="Give another file, or --overwrite.")


def names_of_photos(photos: Sequence[Path]) -> tuple[str, ...]:
    """What faces are called: by the photos' file names, or by their paths where two photos have one name."""
    names = tuple(path.name for path in photos)
    return names if len(set(names)) == len(names) else tuple(map(str, photos))


def read_faces(photos: Sequence[Path], *, aligned: bool = False) -> Tensor:
    """The largest face of each photo, (N, 3, 112, 112) float32 in [0, 1], aligned to the ArcFace template.

    Args:
        photos: Files.
        aligned: The photos are aligned crops of 112x112 pixels already.

    Raises:
        PhotoError: when one cannot be read.
        NoFaceFound: when there is none in one.
        UsageError: when there are no photos, or an aligned one has another size.
    """
    if not photos:
        raise UsageError("There are no photos.", hint="Name photos or folders.")
    crops = []
    for path in photos:
        pixels = read_photo(path).pixels
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


def protect_faces(
    protector: Protector, images: Tensor, names: Sequence[str], *, key: bytes | None = None, seed: int | None = None
) -> Gallery:
    """Enrol faces.

    Args:
        protector: How.
        images: (N, 3, 112, 112) in [0, 1].
        names: What they are called.
        key: Of the deployment, where the protector takes one.
        seed: Of the randomness; by default nobody knows it, as it should be outside of experiments.

    Raises:
        UsageError: when images or key have another form.
    """
    if seed is None:
        return Gallery(protector.protect_anew(images, key), tuple(names))
    return Gallery(protector.protect(images, torch.Generator().manual_seed(seed), key), tuple(names))


def read_key(path: Path) -> bytes:
    """A key from a file of at least 16 random bytes.

    Raises:
        UsageError: when the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"The key {path} cannot be read: {error.strerror}.", hint="Check the name.") from error


def _names_of(path: Path) -> Path:
    return path.with_suffix(".json")
