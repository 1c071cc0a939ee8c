"""Where recognisers are found: what packages and Bauta carry, what the user added, and where BAUTA_MODELS points.

BAUTA_HOME (by default the platform's data folder for ``bauta``) holds ``recognizers/NAME/card.toml`` with
the weights beside it, and ``thresholds.json``. BAUTA_MODELS names a folder with ``models.json``
and the files it lists. A name that exists in several places means the first: packages, Bauta's own, user,
BAUTA_MODELS.

This module knows no torch.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bauta.errors import BautaError, MissingExtra, UnknownRecognizer, UsageError, WeightsMissing, missing_extra
from bauta.faces.crop_template import ARCFACE_112, ARCFACE_112X96, DLIB_150, CropTemplate
from bauta.recognizers.cards import RecognizerCard, read_card
from bauta.tables import shown

CARD_FILE = "card.toml"
SHIPPED = Path(__file__).parent / "shipped"
PULLABLE = Path(__file__).parent / "pullable"

_MISSHAPEN = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
_ENTRY = ("architecture", "input_hw", "colour", "mean", "std", "dim", "training_set", "terms", "sha256", "file", "role")
_ROLES = {"judge only": frozenset({"judge"}), "surrogate or teacher": frozenset({"surrogate", "judge"})}
_TEMPLATES: dict[tuple[int, int], CropTemplate] = {(112, 112): ARCFACE_112, (112, 96): ARCFACE_112X96}


def home() -> Path:
    """Bauta's folder on this machine: BAUTA_HOME, or the platform's data folder. It may not exist yet."""
    chosen = os.environ.get("BAUTA_HOME")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_data_dir("bauta", appauthor=False))


def list_recognizers() -> list[RecognizerCard]:
    """Cards of all recognisers on this machine; a user's unreadable card is passed over with a warning.

    Raises:
        WeightsMissing: when BAUTA_MODELS names a folder without a readable ``models.json``.
        UsageError: when that file, or a card that Bauta brings along, does not follow its schema.
    """
    found: dict[str, RecognizerCard] = {}
    for card in (*_packaged(), *_shipped(), *_added(), *_from_models()):
        found.setdefault(card.name, card)
    return list(found.values())


def find_card(name: str) -> RecognizerCard:
    """The card of that name.

    Raises:
        UnknownRecognizer: when there is none; the message lists those there are.
        MissingExtra: when it comes with a package that is not installed.
        UsageError: when the user's card of that name does not follow the schema.
    """
    cards = {card.name: card for card in list_recognizers()}
    if name in cards:
        return cards[name]
    for card, error in list_missing():
        if card.name == name:
            raise error
    path = home() / "recognizers" / name / CARD_FILE
    if Path(name).name == name and path.is_file():
        return read_card(path)
    adds = f"pull {name}` fetches it." if (PULLABLE / f"{name}.toml") in _pullable() else "add` adds others."
    raise UnknownRecognizer(
        f"No recogniser is called {name!r}.",
        hint=f"There is: {', '.join(sorted(cards))}. `bauta recognizers {adds}",
    )


def list_missing() -> list[tuple[RecognizerCard, MissingExtra]]:
    """Recognisers of packages that are not installed, and what to install."""
    found = [(card, _missing(modules)) for card, modules in _optional()]
    return [(card, missing_extra(*missing, what=card.name)) for card, missing in found if missing]


def list_pullable() -> list[RecognizerCard]:
    """Cards of the recognisers that `bauta.recognizers.pull` fetches by name; their weights are not here."""
    return [read_card(path) for path in _pullable()]


def find_pullable(name: str) -> Path:
    """The card file of a recogniser that can be pulled.

    Raises:
        UnknownRecognizer: when there is none of that name; the message lists those there are.
    """
    path = PULLABLE / f"{name}.toml"
    if path not in _pullable():
        raise UnknownRecognizer(
            f"No recogniser called {name!r} can be pulled.",
            hint=f"There is: {', '.join(path.stem for path in _pullable())}. Or give a card, NAME.toml, or its URL.",
        )
    return path


def _pullable() -> list[Path]:
    return sorted(PULLABLE.glob("[!.]*.toml"))


def _packaged() -> Iterator[RecognizerCard]:
    yield from (card for card, modules in _optional() if not _missing(modules))


def _missing(modules: Sequence[str]) -> list[str]:
    return [module for module in modules if find_spec(module) is None]


def _optional() -> Iterator[tuple[RecognizerCard, tuple[str, ...]]]:
    """Recognisers of packages that may be installed, and their modules."""
    # The package's own __init__ needs pkg_resources, so it is located but never imported.
    package = find_spec("face_recognition_models")
    folder = Path() if package is None or package.origin is None else Path(package.origin).parent / "models"
    card = RecognizerCard(
        name="dlib_resnet",
        architecture="ResNet of 29 convolutions, 5.6M",
        template=DLIB_150,
        colour="RGB",
        mean=(122.782 / 255, 117.001 / 255, 104.298 / 255),
        std=(256 / 255, 256 / 255, 256 / 255),
        dim=128,
        training_set="about 3 million faces of 7,485 people: FaceScrub, VGG and scraped",
        terms="CC0-1.0",
        source="dlib_face_recognition_resnet_model_v1.dat, in the package face_recognition_models",
        sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        weights=folder / "dlib_face_recognition_resnet_model_v1.dat",
        format="dlib",
        roles=frozenset({"surrogate", "judge"}),
    )
    yield card, ("dlib", "face_recognition_models")


def _shipped() -> Iterator[RecognizerCard]:
    yield from map(read_card, sorted(SHIPPED.glob("[!.]*.toml")))


def _added() -> Iterator[RecognizerCard]:
    for path in sorted((home() / "recognizers").glob(f"[!.]*/{CARD_FILE}")):
        try:
            yield read_card(path)
        except BautaError as error:
            warnings.warn(f"The recogniser in {path.parent} was passed over: {error}", RuntimeWarning, stacklevel=3)


def _from_models() -> Iterator[RecognizerCard]:
    folder = os.environ.get("BAUTA_MODELS")
    if not folder:
        return
    path = Path(folder) / "models.json"
    try:
        entries: dict[str, dict[str, Any]] = dict(json.loads(path.read_text(encoding="utf-8"))["recognizers"])
    except OSError as error:
        raise WeightsMissing(
            f"BAUTA_MODELS names {folder}, but models.json cannot be read there: {error.strerror}.",
            hint="Correct BAUTA_MODELS, or unset it.",
        ) from error
    except (*_MISSHAPEN, RecursionError) as error:
        raise UsageError(
            f"{path} does not follow its schema.",
            hint="Fetch the folder again, or unset BAUTA_MODELS.",
        ) from error
    for name, entry in entries.items():
        try:
            yield RecognizerCard(
                name=name,
                architecture=entry["architecture"],
                template=_TEMPLATES[tuple(entry["input_hw"])],
                colour=entry["colour"],
                mean=tuple(entry["mean"]),
                std=tuple(entry["std"]),
                dim=entry["dim"],
                training_set=entry["training_set"],
                terms=entry["terms"],
                source=f"{path.name} of BAUTA_MODELS",
                sha256=entry["sha256"],
                weights=path.parent / Path(entry["file"]).name,
                format="onnx",
                roles=_ROLES[entry["role"]],
            )
        except _MISSHAPEN as error:
            missing = f": {error.args[0]} is missing" if isinstance(error, KeyError) and error.args[0] in _ENTRY else ""
            raise UsageError(
                f"{path} describes {shown(name)} wrongly{missing}.",
                hint="Fetch the folder again, or unset BAUTA_MODELS.",
            ) from error
