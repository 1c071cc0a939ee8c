"""The store of a face service: protected faces under names, sealed with a key that is kept elsewhere.

Names are resolved on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bauta.gallery.enrol import Gallery as Gallery
    from bauta.gallery.enrol import enrol_faces as enrol_faces
    from bauta.gallery.enrol import read_faces as read_faces
    from bauta.gallery.files import (
        read_gallery as read_gallery,
    )
    from bauta.gallery.files import (
        rotate_gallery as rotate_gallery,
    )
    from bauta.gallery.files import (
        write_gallery as write_gallery,
    )
    from bauta.gallery.match import Matcher as Matcher
    from bauta.keys import DeploymentKey as DeploymentKey
    from bauta.keys import create_key_file as create_key_file

_HOMES = {
    "DeploymentKey": "bauta.keys",
    "create_key_file": "bauta.keys",
    "Gallery": "bauta.gallery.enrol",
    "enrol_faces": "bauta.gallery.enrol",
    "read_faces": "bauta.gallery.enrol",
    "Matcher": "bauta.gallery.match",
    "read_gallery": "bauta.gallery.files",
    "rotate_gallery": "bauta.gallery.files",
    "write_gallery": "bauta.gallery.files",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
