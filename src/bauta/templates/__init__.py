"""Recognition without keeping a face: what a face service stores instead, and the methods that make it.

`bauta.gallery` keeps it, sealed.

Names are resolved on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bauta.templates.advface.protector import AdvFace as AdvFace
    from bauta.templates.advface.settings import AdvFaceConfig as AdvFaceConfig
    from bauta.templates.base import Protector as Protector
    from bauta.templates.base import load_protector as load_protector
    from bauta.templates.local.composition import LocalFeaturesConfig as LocalFeaturesConfig
    from bauta.templates.local.protector import LocalFeatures as LocalFeatures
    from bauta.templates.representation import Representation as Representation

_HOMES = {
    "Protector": "base",
    "load_protector": "base",
    "Representation": "representation",
    "AdvFace": "advface.protector",
    "AdvFaceConfig": "advface.settings",
    "LocalFeatures": "local.protector",
    "LocalFeaturesConfig": "local.composition",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
