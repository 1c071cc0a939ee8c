"""``bauta doctor``: is everything there that protecting needs?"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from bauta.cli.console import show_table
from bauta.errors import BautaError, OutputError, as_bauta_error
from bauta.version import __version__

if TYPE_CHECKING:
    from bauta.recognizers.cards import RecognizerCard

_PACKAGES = ("torch", "numpy", "onnxruntime", "opencv-python-headless", "pillow", "pillow-heif", "dlib-bin", "mtcnn")
_EXTRAS = {"demo": ("skimage",), "train": ("lightning_fabric", "onnxscript"), "web": ("starlette", "uvicorn")}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        state: ``ok``, ``missing`` where it is not needed, ``FAILED``.
        details: What was found.
        exit_code: Of the failure; 0 when there is none.
    """

    what: str
    state: str
    details: str
    exit_code: int = 0


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False) -> int:
    """Check this installation: versions, recognisers and their hashes, the detector, folders and extras."""
    from bauta.cloaking.outcomes import SERIOUSNESS

    checks = list(_checks())
    codes = {check.exit_code for check in checks if check.exit_code}
    code = next((one for one in SERIOUSNESS if one in codes), 1 if codes else 0)
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks], "exit_code": code}, indent=2))
        return code
    show_table(("WHAT", "STATE", "DETAILS"), [(check.what, check.state, check.details) for check in checks])
    failed = sum(check.state == "FAILED" for check in checks)
    print(f"\n{f'{failed} of {len(checks)} failed.' if failed else 'Everything that protecting needs is here.'}")
    return code


def _checks() -> Iterator[Check]:
    yield Check("bauta", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in _PACKAGES:
        yield _tried(package, partial(metadata.version, package))
    yield _tried("threads", _threads)
    yield _tried("detector", _detector)
    yield from _recognizers()
    yield _tried("roles", _roles)
    yield _tried("data folder", _writable)
    yield _tried("configuration", _configuration)
    for extra, modules in _EXTRAS.items():
        there = all(find_spec(module) for module in modules)
        yield Check(f"extra {extra}", "ok" if there else "missing", "" if there else f'pip install "bauta[{extra}]"')


def _tried(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, "ok", look())
    except metadata.PackageNotFoundError:
        return Check(what, "FAILED", f"{what} is not installed", 1)
    except Exception as error:  # whatever is wrong is the answer
        known = as_bauta_error(error)
        return Check(what, "FAILED", str(known), known.exit_code)


def _threads() -> str:
    import torch

    return f"torch uses {torch.get_num_threads()} of {os.cpu_count()} cores"


def _detector() -> str:
    import numpy as np

    from bauta.faces.detection import detect_faces

    detect_faces(np.full((64, 64, 3), 0.5, np.float32))
    return "CenterFace and MTCNN load, and their hashes are right"


def _recognizers() -> Iterator[Check]:
    from bauta.recognizers.catalog import list_recognizers

    try:
        cards = list_recognizers()
    except BautaError as error:
        yield Check("recognisers", "FAILED", str(error), error.exit_code)
        return
    for card in cards:
        yield _tried(card.name, partial(_recognizer, card))


def _recognizer(card: RecognizerCard) -> str:
    from bauta.recognizers.cards import verify_weights

    verify_weights(card)
    return f"{' and '.join(sorted(card.roles, reverse=True))}, SHA-256 {card.sha256[:16]}..."


def _roles() -> str:
    from bauta.cloaking.roles import choose_roles
    from bauta.cloaking.settings import ProtectSettings

    roles = choose_roles(ProtectSettings())
    judges = [card.name for card in roles.judges if roles.thresholds[card.name] and card.name not in roles.attacked]
    attacked = ", ".join(card.name for card in roles.surrogates)
    return f"{attacked} attacked; {', '.join(judges) or 'no independent recogniser'} judges"


def _writable() -> str:
    import tempfile

    from bauta.recognizers.catalog import home

    folder = next(path for path in (home(), *home().absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            return str(home())
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}.", hint="Set BAUTA_HOME.") from error


def _configuration() -> str:
    from bauta.cli.configuration import file

    return str(file() or "no bauta.toml; everything has its own default")
