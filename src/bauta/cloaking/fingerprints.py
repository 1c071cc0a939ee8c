"""Hashes of everything that decides what a product is, and of everything that judges it: what a run goes on from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bauta.cloaking.records import digest_of_file
from bauta.rates import SELECTION_FMR
from bauta.version import __version__

if TYPE_CHECKING:
    from bauta.cloaking.pipeline import Pipeline
    from bauta.keys import DeploymentKey


def mask_fingerprint(pipeline: Pipeline) -> str:
    """Hash of everything but the photo that makes a product: method, settings, attacked networks, faces, version.

    The version is among them because it stands for what is cleaned from the file, not for the mask alone.
    """
    from bauta.recognizers.calibration import calibrated

    settings, selection = pipeline.settings, pipeline.settings.selection
    limits = calibrated(pipeline.roles.surrogates, settings.fmr)  # a mask may stop at them
    parts = [
        __version__,
        settings.method,
        repr(pipeline.config),
        repr((settings.seed, settings.metadata.name, settings.budget, settings.fmr)),
        repr((selection.largest, selection.boxes, selection.faces, settings.message)),
        repr((settings.fallback, settings.others, settings.unlinkable)),
        *(f"clips {one}" for one in ((settings.span, settings.every),) if any(one)),
        *(f"fitted {one.sha256}" for one in pipeline.fitted),
        *(f"erasable {_named(key)}" for key in (settings.erasable,) if key),
        *(f"key {digest_of_file(path)}" for path in (settings.key,) if path),
        *(f"like {digest_of_file(path)}" for path in settings.like),
        *(f"attacked {card.digest} {limits.get(card.name)}" for card in pipeline.roles.surrogates),
        *(f"only {digest_of_file(path)}" for path in selection.only),
        *(f"keep {digest_of_file(path)}" for path in selection.keep),
    ]
    if selection.only or selection.keep:  # the judge that tells faces apart decides which get a mask
        limits_of = pipeline.roles.thresholds
        judge = next((card for card in pipeline.roles.judges if SELECTION_FMR in limits_of[card.name]), None)
        if judge is not None:
            parts.append(f"selects {judge.digest} {limits_of[judge.name][SELECTION_FMR].cosine}")
    return _hash(parts)


def judging_fingerprint(pipeline: Pipeline) -> str:
    """Hash of everything that judges a product: judges, thresholds, references, version."""
    settings, roles = pipeline.settings, pipeline.roles
    return _hash(
        [
            __version__,
            repr(settings.fmr),
            *(
                f"judge {card.digest} {card.name in roles.attacked} {roles.thresholds[card.name]}"
                for card in roles.judges
            ),
            *(f"reference {digest_of_file(path)}" for path in settings.references),
        ]
    )


def _named(key: DeploymentKey) -> str:
    """Tells keys apart by a hash, which says nothing of 32 random bytes. A passphrase could be guessed by it."""
    return hashlib.sha256(b"bauta key " + key.secret).hexdigest() if key.way == "file" else key.way


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
