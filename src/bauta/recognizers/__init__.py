"""Face recognisers: cards, the networks to attack (surrogates) and the networks that evaluate (judges).

Names are resolved on first use, so that importing this package imports neither torch nor a runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "RecognizerCard": "cards",
    "read_card": "cards",
    "separate": "cards",
    "find_card": "catalog",
    "home": "catalog",
    "list_recognizers": "catalog",
    "Surrogate": "surrogates",
    "load_surrogate": "surrogates",
    "Judge": "judges",
    "load_judge": "judges",
    "Threshold": "calibration",
    "calibrate": "calibration",
    "threshold": "calibration",
    "add_recognizer": "add",
    "pull": "add",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
