"""Bauta: face privacy for the photos people share, with an honest answer to "did it work?".

The verbs below are imported when they are first used, so that ``import bauta`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bauta.version import __version__ as __version__

if TYPE_CHECKING:
    from bauta.cloaking.clip_verbs import protect_clip
    from bauta.cloaking.fitting import fit
    from bauta.cloaking.verbs import Protected, protect, read, restore, verify
    from bauta.errors import BautaError, NoFaceFound, OutputError, PhotoError, RecognizerError, UsageError
    from bauta.keys import DeploymentKey
    from bauta.learning.fitted import Fitted
    from bauta.photo import read_photo
    from bauta.recognizers.catalog import list_recognizers
    from bauta.recognizers.surrogates import load_surrogate as load_recognizer
    from bauta.registry import list_methods

__all__ = [
    "BautaError",
    "DeploymentKey",
    "Fitted",
    "NoFaceFound",
    "OutputError",
    "PhotoError",
    "Protected",
    "RecognizerError",
    "UsageError",
    "fit",
    "list_methods",
    "list_recognizers",
    "load_recognizer",
    "protect",
    "protect_clip",
    "read",
    "read_photo",
    "restore",
    "verify",
]

_HOMES = {
    **dict.fromkeys(
        ("BautaError", "NoFaceFound", "OutputError", "PhotoError", "RecognizerError", "UsageError"),
        "bauta.errors",
    ),
    **dict.fromkeys(("Protected", "protect", "read", "restore", "verify"), "bauta.cloaking.verbs"),
    "DeploymentKey": "bauta.keys",
    "fit": "bauta.cloaking.fitting",
    "protect_clip": "bauta.cloaking.clip_verbs",
    "Fitted": "bauta.learning.fitted",
    "list_methods": "bauta.registry",
    "list_recognizers": "bauta.recognizers.catalog",
    "load_recognizer": "bauta.recognizers.surrogates:load_surrogate",
    "read_photo": "bauta.photo",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'bauta' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
