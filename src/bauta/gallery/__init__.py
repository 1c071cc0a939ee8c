"""The store of a face service: protected faces under names, sealed with a key that is kept elsewhere.

Names are resolved on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bauta.errors import as_bauta_error

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
    from bauta.gallery.keys import DeploymentKey as DeploymentKey
    from bauta.gallery.keys import create_key_file as create_key_file
    from bauta.gallery.match import Matcher as Matcher

_HOMES = {
    "DeploymentKey": "keys",
    "create_key_file": "keys",
    "Gallery": "enrol",
    "enrol_faces": "enrol",
    "read_faces": "enrol",
    "Matcher": "match",
    "read_gallery": "files",
    "rotate_gallery": "files",
    "write_gallery": "files",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:  # cryptography comes with an extra
        raise as_bauta_error(error) from error
