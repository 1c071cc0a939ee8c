"""The verbs of the package: a photo, one or several others, and certified answers to whose it is."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bauta.calls import checked
from bauta.certify.bounds import Certificate, Decision, Smoothing, require_copies
from bauta.certify.smoothing import VALUES, Smoothed, embedder
from bauta.errors import NoFaceFound, PoorPhoto, UsageError
from bauta.gallery.quality import Quality, read_face
from bauta.photo import PhotoSource
from bauta.progress import Progress, silent, steps_of
from bauta.recognizers.calibration import threshold
from bauta.recognizers.catalog import find_card
from bauta.recognizers.surrogates import load_surrogate

SCHEMA = "bauta.certificate/1"
GALLERY_SCHEMA = "bauta.certificates/1"
RECOGNIZER = "mobilefacenet"
MASK = 8 / 255
"""The usual bound of a mask on each value, which certificates are told beside."""
GOOD_ENOUGH = Quality(eyes=12.0, sharpness=0.0, turned=2.0)
"""Of photos: a poor face has a small radius, or none, and need not be refused as one that is enrolled for good."""


@dataclass(frozen=True)
class Certified:
    """A certified answer to whether two photos show one person.

    Attributes:
        certificate: The answer and how far it holds.
        settings: Of the noise and the confidence.
        recognizer: Whose answer it is, under noise.
        cosine: Of the two templates without noise.
        threshold: Cosine from which on a copy is accepted.
        fmr: False match rate that the threshold was set for, without noise.
        seed: Of the noise.
    """

    certificate: Certificate
    settings: Smoothing
    recognizer: str
    cosine: float
    threshold: float
    fmr: float
    seed: int
    mask: float = field(default=MASK * math.sqrt(VALUES), init=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: those of the certificate and of the settings, and what they rest on.

        ``values`` are those of the crop that lengths are measured on, ``mask`` the length of 8/255 on each of them.
        """
        rest = {name: getattr(self, name) for name in ("recognizer", "cosine", "threshold", "fmr", "seed", "mask")}
        settings = {name: value for name, value in self.settings.to_dict().items() if name != "batch"}
        return {"schema": SCHEMA, **asdict(self.certificate), **settings, **rest, "values": VALUES}


@dataclass(frozen=True)
class CertifiedGallery:
    """Certified answers to whether a photo shows one of several, which hold together.

    Attributes:
        answers: By the name of each reference. The `alpha` of their settings is a share of the one that was asked for,
            so that with a probability of at most that one *any* of them is wrong (Bonferroni).
    """

    answers: Mapping[str, Certified]

    @property
    def decision(self) -> Decision:
        """``accepted`` when one of them is, ``rejected`` when all are rejected, ``abstained`` otherwise."""
        found = {one.certificate.decision for one in self.answers.values()}
        return "accepted" if "accepted" in found else "abstained" if "abstained" in found else "rejected"

    @property
    def radius(self) -> float:
        """None of the answers changes for a change of the crop that is shorter; 0 when one of them is none."""
        return min(one.certificate.radius for one in self.answers.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the decision, the radius of all, and each answer as of `Certified.to_dict`."""
        answers = {name: one.to_dict() for name, one in self.answers.items()}
        return {"schema": GALLERY_SCHEMA, "decision": self.decision, "radius": self.radius, "answers": answers}


@checked
def certify(
    probe: PhotoSource,
    reference: PhotoSource,
    *,
    settings: Smoothing | None = None,
    recognizer: str = RECOGNIZER,
    fmr: float = 1e-3,
    radius: float = 0.0,
    aligned: bool = False,
    seed: int | None = None,
    progress: Progress = silent,
) -> Certified:
    """Whether a photo shows the person of another one, by the majority of its noisy copies.

    Args:
        probe: The photo whose small changes shall not change the answer; a path, or a file's bytes.
        reference: Another photo of who it is compared with, which is enrolled.
        settings: Of the noise and the confidence; those of `Smoothing` by default.
        recognizer: A surrogate; judges are not asked.
        fmr: False match rate of its threshold.
        radius: Radius that is wanted: settings that cannot reach it are refused. The answer may still have a smaller
            one, or none.
        aligned: Both are aligned crops of 112x112 pixels already.
        seed: Of the noise; drawn anew by default, since who knows the noise beforehand can fit a face to it.
        progress: Called with a stage, copies done and copies in all.

    Raises:
        PhotoError: when a photo cannot be read, or shows several faces or a tiny one.
        NoFaceFound: when one shows none.
        RecognizerError: when the recogniser cannot be used, is a judge, or has no threshold at that FMR.
        UsageError: when a value makes no sense, too few copies are asked for, or both photos are the same.
    """
    (found,) = _certified(probe, {"photo B": reference}, settings, recognizer, fmr, radius, aligned, seed, progress)
    return found


@checked
def certify_gallery(
    probe: PhotoSource,
    references: Mapping[str, PhotoSource],
    *,
    settings: Smoothing | None = None,
    recognizer: str = RECOGNIZER,
    fmr: float = 1e-3,
    radius: float = 0.0,
    aligned: bool = False,
    seed: int | None = None,
    progress: Progress = silent,
) -> CertifiedGallery:
    """Whose photo of several a photo shows the person of, with answers that hold together.

    All are compared with the same noisy copies, so that a gallery costs hardly more than one photo. Each answer gets
    its share of `alpha`: the more references there are, the more copies a radius needs.

    Args:
        probe: As for `certify`.
        references: A photo of each person that it is compared with, by name.
        settings: Of the noise; its `alpha` is that of all answers together.
        recognizer: As for `certify`.
        fmr: False match rate of one comparison.
        radius: Radius that is wanted of every answer.
        aligned: All are aligned crops of 112x112 pixels already.
        seed: As for `certify`.
        progress: As for `certify`.

    Raises:
        PhotoError: as `certify` does.
        NoFaceFound: likewise.
        RecognizerError: likewise.
        UsageError: likewise, and when there are no references.
    """
    if not references:
        raise UsageError("There is no gallery to compare the photo with.", hint="Give at least one reference.")
    found = _certified(probe, references, settings, recognizer, fmr, radius, aligned, seed, progress)
    return CertifiedGallery(dict(zip(references, found, strict=True)))


def _certified(
    probe: PhotoSource,
    references: Mapping[str, PhotoSource],
    asked: Smoothing | None,
    recognizer: str,
    fmr: float,
    radius: float,
    aligned: bool,
    seed: int | None,
    progress: Progress,
) -> list[Certified]:
    """An answer for each reference, at its share of alpha."""
    asked = asked or Smoothing()
    settings = replace(asked, alpha=asked.alpha / len(references))
    if not (math.isfinite(radius) and radius >= 0):
        raise UsageError(f"A radius of {radius:g} cannot be asked for.", hint="Give a number from 0 on.")
    require_copies(radius, settings)
    if seed is not None and not 0 <= seed < 1 << 63:
        raise UsageError(f"{seed} is not a seed.", hint="Give a whole number from 0 on.")
    card = find_card(recognizer)
    surrogate, limit = load_surrogate(card), threshold(card, fmr).cosine
    face = _face(probe, "photo A", aligned)
    known = [_face(photo, name, aligned) for name, photo in references.items()]
    for name, one in zip(references, known, strict=True):
        if torch.equal(face, one):
            raise UsageError(
                f"Photo A and {name} show the same picture of the face, which says nothing of the person.",
                hint="Give another photo of who is enrolled.",
            )
    drawn = secrets.randbits(63) if seed is None else seed
    generator = torch.Generator().manual_seed(drawn)
    smoothed = Smoothed(embedder(surrogate), settings)
    templates = torch.cat([smoothed.enrol(one, generator) for one in known])
    with torch.no_grad():
        cosines = (smoothed.embed(face) @ templates.T)[0].tolist()
    answers = smoothed.certify(face, templates, limit, generator, steps_of(progress, "noisy copies"))
    return [
        Certified(answer, settings, card.name, round(cosine, 6), limit, fmr, drawn)
        for answer, cosine in zip(answers, cosines, strict=True)
    ]


def _face(photo: PhotoSource, name: str, aligned: bool) -> Tensor:
    """The face of one of the two; what is wrong with it is said of that one."""
    try:
        return read_face(photo, GOOD_ENOUGH, aligned=aligned)
    except (PoorPhoto, NoFaceFound) as error:
        where = str(photo) if isinstance(photo, str | Path) else name
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from error
