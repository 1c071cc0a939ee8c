"""Toy people for smoke runs: the shipped composite faces, twice each, on plain backgrounds.

They need no data, detect and embed like faces, and prove nothing: a composite is nobody, and its second photo is the
first one mirrored, in other light.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bauta.data.images import FaceImage

_SIDE = 288
_FACE = 168


def toy_people() -> list[tuple[str, FaceImage, FaceImage]]:
    """(person, photo to protect, other photo) of each composite, as PNG files of 288x288 pixels in memory."""
    from bauta.cloaks.targets import composite_faces

    rows = []
    for number, face in enumerate(composite_faces().permute(0, 2, 3, 1).numpy()):
        picture = Image.fromarray((face * 255).round().astype(np.uint8))
        name = f"toy_{number:02d}"
        rows.append(
            (name, _photo(picture, f"{name}/1.png", 96), _photo(_in_other_light(picture), f"{name}/2.png", 150))
        )
    return rows


def composites_in_other_light(count: int) -> NDArray[np.float32]:
    """(count, 112, 112, 3) in [0, 1], the first composites mirrored, in other light.

    The nearest thing to another photo of them. Pictures are aligned as the composites are.
    """
    from bauta.cloaks.targets import composite_faces

    faces = [
        _in_other_light(Image.fromarray((face * 255).round().astype(np.uint8)))
        for face in composite_faces()[:count].permute(0, 2, 3, 1).numpy()
    ]
    return np.stack([np.asarray(face, dtype=np.float32) for face in faces]) / np.float32(255)


def _in_other_light(picture: Image.Image) -> Image.Image:
    return ImageOps.mirror(picture).point([round(255 * (value / 255) ** 0.85) for value in range(256)] * 3)


def _photo(face: Image.Image, name: str, grey: int) -> FaceImage:
    """A face on a grey gradient."""
    shade = np.linspace(grey, grey + 48, _SIDE)[:, None] + np.linspace(0, 24, _SIDE)
    whole = Image.fromarray(np.repeat(shade[..., None], 3, axis=2).round().astype(np.uint8))
    whole.paste(face.resize((_FACE, _FACE), Image.Resampling.BICUBIC), ((_SIDE - _FACE) // 2,) * 2)
    stream = io.BytesIO()
    whole.save(stream, "PNG")
    return FaceImage(name, stream.getvalue())
