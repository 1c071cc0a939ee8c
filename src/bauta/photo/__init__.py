"""Photos in, photos out: decoding and encoding, metadata policy, finding files."""

from bauta.photo.files import FoundPhotos, find_photos, why_passed_over
from bauta.photo.metadata import MetadataPolicy
from bauta.photo.photo import MAX_PIXELS, Photo, PhotoSource, read_photo
from bauta.photo.raster import PixelArray, Pixels
from bauta.photo.readback import embedded_pictures

__all__ = [
    "MAX_PIXELS",
    "FoundPhotos",
    "MetadataPolicy",
    "Photo",
    "PhotoSource",
    "PixelArray",
    "Pixels",
    "embedded_pictures",
    "find_photos",
    "read_photo",
    "why_passed_over",
]
