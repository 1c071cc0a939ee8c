"""Photos in, photos out: decoding and encoding, metadata policy, finding files."""

from bauta.photo.files import FoundPhotos, find_photos
from bauta.photo.metadata import MetadataPolicy
from bauta.photo.photo import MAX_PIXELS, Photo, read_photo

__all__ = [
    "MAX_PIXELS",
    "FoundPhotos",
    "MetadataPolicy",
    "Photo",
    "find_photos",
    "read_photo",
]
