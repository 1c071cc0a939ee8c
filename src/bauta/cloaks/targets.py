"""The default target faces: composites of many faces, so that no real person is impersonated.

The picture beside this file holds them side by side, aligned to the ArcFace template. It is made by
`bauta.training.composites`, whose card (``composites.json``) says from which faces and how far each composite
is from every one of them.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bauta.errors import WeightsCorrupt
from bauta.faces.crop_template import ARCFACE_112


@cache
def composite_faces() -> Tensor:
    """The shipped composites, (K, 3, 112, 112) float32 in [0, 1].

    Raises:
        WeightsCorrupt: when the picture is not the one its card describes.
    """
    folder = files("bauta.cloaks")
    content = folder.joinpath("composites.png").read_bytes()
    card = json.loads(folder.joinpath("composites.json").read_text(encoding="utf-8"))
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise WeightsCorrupt("composites.png is not the file its card describes.", hint="Install bauta again.")
    with (
        folder.joinpath("composites.png").open("rb") as stream,
        Image.open(stream, formats=["PNG"]) as picture,
    ):
        strip = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    side = ARCFACE_112.width
    faces = strip.reshape(side, -1, side, 3).transpose(1, 3, 0, 2)
    return torch.from_numpy(np.ascontiguousarray(faces))
