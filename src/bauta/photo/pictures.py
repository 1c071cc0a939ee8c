"""Pictures that are in memory already: what Python programs hand over instead of a file."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bauta.errors import UnreadablePhoto, UnsupportedPhoto

Picture = Image.Image | NDArray[np.uint8]
"""A Pillow image, or uint8 of shape (H, W) for grey, (H, W, 3) for RGB, (H, W, 4) for RGB and alpha."""

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # that a PNG holds without loss


def as_png(picture: Picture) -> bytes:
    """The picture as the file of a photo: upright, with its colour profile, and without other metadata.

    >>> from bauta.photo import read_photo
    >>> read_photo(np.zeros((4, 6, 3), np.uint8)).pixels.shape
    (4, 6, 3)

    Raises:
        UnreadablePhoto: when Pillow cannot decode an image that it opened.
        UnsupportedPhoto: when numbers or colours are of another kind.
    """
    image = _from_array(picture) if isinstance(picture, np.ndarray) else picture
    if image.mode not in _MODES:
        raise UnsupportedPhoto(
            f"The image has Pillow's mode {image.mode!r}.", hint='Turn it into RGB: image.convert("RGB").'
        )
    stream = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        profile = image.info.get("icc_profile")
        upright.save(stream, "PNG", icc_profile=profile, exif=b"", compress_level=1)
    except Exception as error:  # an image is decoded now, and decoders answer hostile bytes with exceptions of any type
        raise UnreadablePhoto("The image cannot be decoded.", hint="Give the file itself, by its path.") from error
    return stream.getvalue()


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    channels = array.shape[2:] if array.ndim == 3 else ()
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in ((), (3,), (4,)) or not array.size:
        raise UnsupportedPhoto(
            f"The array is {array.dtype} of shape {list(array.shape)}.",
            hint="Give uint8 of shape (H, W), (H, W, 3) for RGB, or (H, W, 4) for RGB and alpha.",
        )
    return Image.fromarray(np.ascontiguousarray(array))
