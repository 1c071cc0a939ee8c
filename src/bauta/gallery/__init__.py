"""The store of a face service: protected faces under names, sealed with a key that is kept elsewhere.

Names are resolved on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
