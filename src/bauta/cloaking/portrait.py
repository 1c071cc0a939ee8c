"""The portrait of demonstrations, which is in the public domain."""

from __future__ import annotations

import io

from PIL import Image

from bauta.errors import missing_extra


def portrait() -> bytes:
    """The NASA portrait that scikit-image carries, as a JPEG file.

    Raises:
        MissingExtra: when scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise missing_extra("skimage", what="The demonstration's portrait") from error
    stream = io.BytesIO()
    Image.fromarray(data.astronaut()).save(stream, "JPEG", quality=92)
    return stream.getvalue()
