"""`bauta.fit`: a method learns a person once, from a few photos, and says how well that holds on others of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.calls import checked
from bauta.cloaking.apply import Picture, edit_pictures
from bauta.cloaking.people import subjects_of, with_subject
from bauta.cloaking.roles import Roles, choose_roles
from bauta.cloaking.settings import ProtectSettings, Strength
from bauta.cloaking.verbs import Names, Options, Photos, names_of, photos_of
from bauta.cloaks.base import Cloak, FitsPerson, Work, load_cloak
from bauta.cloaks.view import cut_view
from bauta.errors import NoFaceFound, UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.learning.fitted import Fitted
from bauta.photo import Photo, Pixels, read_photo
from bauta.progress import Progress, silent, steps_of
from bauta.rates import SELECTION_FMR
from bauta.recognizers.calibration import calibrated
from bauta.recognizers.ensemble import Ensemble
from bauta.recognizers.judges import Judge, load_judge
from bauta.recognizers.surrogates import load_surrogate

FloatArray = NDArray[np.float32]

ENOUGH = 6
"""Photos from which on a quarter is kept aside, to see how well the mask holds on photos that it was not fitted to."""


@dataclass(frozen=True, eq=False)
class _Portrait:
    name: str
    photo: Photo
    faces: Faces  # the largest alone


@checked
def fit(
    method: str,
    photos: Photos,
    *,
    options: Options | None = None,
    strength: Strength = "medium",
    surrogates: Names = "auto",
    judges: Names = "auto",
    renew: Fitted | None = None,
    seed: int | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Let a method learn a person once, from a few photos; the largest face of each counts.

    Of `ENOUGH` photos or more a quarter is kept aside. What judges say of them, bare and with the mask, is in the
    provenance of what comes back: ``kept_aside`` photos, ``compared`` pairs with the other photos, of which ``matched``
    with the mask and ``matched_bare`` without.

    >>> mask = bauta.fit("p3-mask", ["me/1.jpg", "me/2.jpg", "me/3.jpg"])  # doctest: +SKIP
    >>> key = bauta.DeploymentKey.from_passphrase("six words that I drew at random")  # doctest: +SKIP
    >>> mask.save("me.mask", key=key)  # doctest: +SKIP
    >>> bauta.protect("party.jpg", method="p3-mask", fitted=["me.mask"], opens=key)  # doctest: +SKIP

    Args:
        method: Name of a method that fits; `bauta methods NAME` says whether one does.
        photos: Of one person.
        options: Settings of the method by name.
        strength: How visible the mask may be.
        surrogates: Recognisers to attack; what they say of the person's photos confirms nothing from then on.
        judges: Recognisers that will judge, and so are not attacked.
        renew: What was fitted before and is to be replaced: its settings count, and the photos must be of its person.
        seed: Of everything random but secrets; None draws one, so that a mask that is a key cannot be made again.
        progress: Called with (stage, done, total).

    Raises:
        UsageError: when the method fits nothing, a photo shows no face, or somebody else.
        BautaError: see `bauta.errors` for what else can be wrong.
    """
    made = require_fitting(method)
    given = photos_of(photos)
    if not given:
        raise UsageError("There are no photos to learn from.", hint="Give a few photos of one person.")
    seed = int.from_bytes(np.random.default_rng().bytes(7), "big") if seed is None else seed
    settings = ProtectSettings(surrogates=names_of(surrogates), judges=names_of(judges), seed=seed)
    roles = choose_roles(settings)
    portraits = []
    for done, one in enumerate(given):
        progress("looking for faces", done, len(given))
        portraits.append(_portrait(read_photo(one)))
    teller = _teller(roles)
    template = None
    if teller is not None:
        limit = roles.thresholds[teller.card.name][SELECTION_FMR].cosine
        template = _one_person(portraits, teller, limit, subjects_of(renew) if renew else {})
    config = made.configured(options or {}, strength=strength)
    if renew is not None:
        renew.require(method, made.version)
        config = made.configured({**renew.settings, **(options or {})})
    aside = portraits[:: len(portraits) // max(1, len(portraits) // 4)] if len(portraits) >= ENOUGH else []
    learnt = [one for one in portraits if one not in aside]
    ensemble = Ensemble([load_surrogate(card) for card in roles.surrogates])
    work = Work.seeded(
        seed,
        ensemble,
        thresholds=calibrated(roles.surrogates, settings.fmr),
        progress=steps_of(progress, "learning the person"),
    )
    views = [
        cut_view(one.photo.parts, one.faces.landmarks[0], grey=one.photo.grey, spec=made.view)[0] for one in learnt
    ]
    fitted: Fitted = made.fit(views, config, work)
    # Whoever was attacked is a teacher, whatever the method says.
    teachers = tuple(dict.fromkeys((*fitted.teachers, *ensemble.names)))
    held = _held(made(config), fitted, aside, learnt, roles, settings.fmr, progress) if aside else {}
    provenance = replace(fitted.provenance, seed=seed, training=(*fitted.provenance.training, *held.items()))
    fitted = replace(fitted, method=method, teachers=teachers, version=made.version, provenance=provenance)
    return fitted if teller is None or template is None else with_subject(fitted, teller.card.name, template)


def require_fitting(method: str) -> Any:
    """The class of a cloak that fits.

    Raises:
        UsageError: when there is none of that name, or it learns nothing of a person.
    """
    made = load_cloak(method)
    if not issubclass(made, FitsPerson):
        raise UsageError(
            f"{method} learns nothing of a person: it makes each photo's mask anew.",
            hint=f"Run `bauta protect --method {method}` at once.",
        )
    return made


def _portrait(photo: Photo) -> _Portrait:
    faces, name = detect_faces(photo.parts[:, :]), photo.path.name if photo.path else "a photo in memory"
    if not len(faces):
        raise NoFaceFound(
            f"No face was found in {name}.", hint="Leave it out, or give one that shows the person from the front."
        )
    return _Portrait(name, photo, faces.largest())


def _teller(roles: Roles) -> Judge | None:
    """The judge that tells people apart: the first that is calibrated for it."""
    card = next((card for card in roles.judges if SELECTION_FMR in roles.thresholds[card.name]), None)
    return None if card is None else load_judge(card)


def _one_person(
    portraits: Sequence[_Portrait], judge: Judge, limit: float, before: dict[str, FloatArray]
) -> FloatArray:
    """The template (D,) of the person whom all portraits show.

    Raises:
        UsageError: naming the portraits of somebody else.
    """
    seen = np.concatenate([_embedded(judge, one.photo.parts, one.faces) for one in portraits])
    alike = seen @ seen.T >= limit
    # Whoever most photos match is the person; a photo that matches none of theirs is of somebody else.
    person = alike[int(alike.sum(1).argmax())]
    other = [
        one.name for one, near in zip(portraits, (alike & person).sum(1) >= person.sum() / 3, strict=True) if not near
    ]
    if other:
        raise UsageError(
            f"{', '.join(other)} {'shows' if len(other) == 1 else 'show'} somebody else than the other photos, as far "
            "as a recogniser can tell.",
            hint="Leave out what shows another person, or the person in an unusual way: a mask is fitted to one.",
        )
    centre = seen.mean(0)
    template: FloatArray = (centre / np.linalg.norm(centre)).astype(np.float32)
    earlier = before.get(judge.card.name)
    if earlier is not None and float(earlier @ template) < limit:
        raise UsageError(
            "The photos show another person than the mask that is to be renewed was fitted to.",
            hint="Give photos of that person, or fit a new mask without --renew.",
        )
    return template


def _embedded(judge: Judge, pixels: Pixels, faces: Faces) -> FloatArray:
    found: FloatArray = judge.embed(extract_crops(pixels, faces.landmarks, judge.card.template))
    return found


def _held(
    cloak: Cloak[Any],
    fitted: Fitted,
    aside: Sequence[_Portrait],
    learnt: Sequence[_Portrait],
    roles: Roles,
    fmr: float,
    progress: Progress,
) -> dict[str, int]:
    """How many pairs of a photo kept aside and one of the others judges match, bare and with the mask on the first."""
    progress("judging the result", 0, 1)
    pictures = [Picture(one.photo.parts, one.faces.landmarks, one.photo.grey) for one in aside]
    masked = [
        one.photo.with_perturbation(change.delta).parts
        for one, change in zip(aside, edit_pictures(cloak, pictures, Work.seeded(0, fitted=(fitted,))), strict=True)
    ]
    counts = {"kept_aside": len(aside), "compared": 0, "matched_bare": 0, "matched": 0}
    for card in roles.judges:
        if card.name in roles.attacked or fmr not in roles.thresholds[card.name]:
            continue
        judge, limit = load_judge(card), roles.thresholds[card.name][fmr].cosine
        others = np.concatenate([_embedded(judge, one.photo.parts, one.faces) for one in learnt])
        for one, pixels in zip(aside, masked, strict=True):
            for name, shown in (("matched_bare", one.photo.parts), ("matched", pixels)):
                counts[name] += int((_embedded(judge, shown, one.faces) @ others.T >= limit).sum())
            counts["compared"] += len(others)
    return counts
