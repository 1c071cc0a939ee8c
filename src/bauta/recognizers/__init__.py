"""Face recognisers: cards, the networks to attack (surrogates) and the networks that evaluate (judges).

Names are resolved on first use, so that importing this package imports neither torch nor a runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bauta.recognizers.add import add_recognizer as add_recognizer
    from bauta.recognizers.add import pull as pull
    from bauta.recognizers.calibration import Threshold as Threshold
    from bauta.recognizers.calibration import calibrate as calibrate
    from bauta.recognizers.calibration import threshold as threshold
    from bauta.recognizers.cards import RecognizerCard as RecognizerCard
    from bauta.recognizers.cards import read_card as read_card
    from bauta.recognizers.cards import separate as separate
    from bauta.recognizers.catalog import find_card as find_card
    from bauta.recognizers.catalog import home as home
    from bauta.recognizers.catalog import list_recognizers as list_recognizers
    from bauta.recognizers.judges import Judge as Judge
    from bauta.recognizers.judges import load_judge as load_judge
    from bauta.recognizers.surrogates import Surrogate as Surrogate
    from bauta.recognizers.surrogates import load_surrogate as load_surrogate

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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
