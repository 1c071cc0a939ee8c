"""Templates and pictures of the pages that Bauta writes, which hold all that they show."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


def page_template(room: str, name: str) -> jinja2.Template:
    """A template that escapes what it is given, and fails over what it is not.

    Args:
        room: Folder of the package that it lies in.
        name: Of the file; others beside it can be included.
    """
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("bauta", room),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def picture(pixels: NDArray[np.float32], long_side: int) -> str:
    """A data URI of an image (H, W, 3) in [0, 1], reduced to a long side and coded as JPEG; it carries no metadata."""
    import cv2

    factor = long_side / max(pixels.shape[:2])
    if factor < 1:  # before it becomes bytes, so that nothing as large as the photo is made of it
        size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return _data_uri(as_image(pixels), "JPEG", quality=90, subsampling=0)


def exact_picture(pixels: NDArray[np.float32]) -> str:
    """A data URI of an image (H, W, 3) in [0, 1], pixel by pixel as it is; it carries no metadata."""
    return _data_uri(as_image(pixels), "WEBP", lossless=True, quality=50, method=2)


def as_image(pixels: NDArray[np.float32]) -> Image.Image:
    """Pixels (H, W, 3) in [0, 1] as an image of 8 bits; of a large photo not more copies than one are made."""
    import numpy as np
    from PIL import Image

    values = pixels * np.float32(255)
    np.rint(values, out=values)
    return Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))


def _data_uri(image: Image.Image, format_name: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return f"data:image/{format_name.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
