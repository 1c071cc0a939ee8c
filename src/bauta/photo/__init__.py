"""Photos in, photos out: decoding and encoding, metadata policy, atomic writes, finding files."""

from bauta.photo.files import FoundPhotos, find_photos, make_folder, mode_like, why_passed_over, write_atomically
from bauta.photo.metadata import MetadataPolicy
from bauta.photo.photo import MAX_PIXELS, Photo, read_photo
from bauta.photo.readback import embedded_pictures

__all__ = [
    "MAX_PIXELS",
    "FoundPhotos",
    "MetadataPolicy",
    "Photo",
    "embedded_pictures",
    "find_photos",
    "make_folder",
    "mode_like",
    "read_photo",
    "why_passed_over",
    "write_atomically",
]
