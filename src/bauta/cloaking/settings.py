"""What a person asks for: one frozen value that travels from the command line to every worker process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from bauta.errors import UsageError
from bauta.keys import DeploymentKey
from bauta.photo import MetadataPolicy, Photo
from bauta.rates import FMRS
from bauta.registry import DEFAULT_CLOAK

Strength = Literal["low", "medium", "high"]
Fallback = Literal["none", "blur", "pixelate"]
Others = Literal["leave", "blur", "pixelate"]
Choice = Literal["protect", "blur", "pixelate", "leave"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Selection:
    """Which of a photo's faces are protected; all of them when nothing is set.

    Attributes:
        largest: Only the largest face.
        only: Reference photos; only faces matching one of them are protected.
        keep: Reference photos; faces matching one of them are left as they are.
        boxes: Faces given by hand as (x, y, width, height) in pixels of the upright photo; faces
            that are found elsewhere are left as they are, and told of.
        faces: What is done to faces by number, from 1, largest first, as a rehearsal gives them; the others are
            protected.
    """

    largest: bool = False
    only: tuple[Path | Photo, ...] = ()
    keep: tuple[Path | Photo, ...] = ()
    boxes: tuple[Box, ...] = ()
    faces: tuple[tuple[int, Choice], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "faces", tuple(sorted(dict(self.faces).items())))
        if sum(map(bool, (self.largest, self.only, self.keep, self.boxes, self.faces))) > 1:
            raise UsageError(
                "Faces can be selected in one way at a time.",
                hint="Give only one of --largest, --only, --keep, --box and --face.",
            )
        for number, choice in self.faces:
            if number < 1 or choice not in get_args(Choice):
                raise UsageError(
                    f"Face {number} cannot be given {choice!r}.",
                    hint="Give a number from 1, and protect, blur, pixelate or leave.",
                )
        for box in self.boxes:
            finite = all(map(math.isfinite, box))
            if len(box) != 4 or not finite or min(box[2:]) < 1 or min(box[:2]) < 0:
                raise UsageError(
                    f"The box {','.join(f'{value:g}' for value in box)} is not a rectangle inside a photo.",
                    hint="Give --box x,y,width,height in pixels, measured from the upper left corner.",
                )


@dataclass(frozen=True)
class ProtectSettings:
    """Everything that decides what a protected photo looks like and how it is judged.

    Attributes:
        method: Name of a registered cloak.
        options: Settings of the method by name, such as ``{"mode": "dodge"}``; what is left out has the
            method's default. Kept as a sorted tuple of pairs, so that equal settings are equal values.
        strength: How strong, and so how visible, the mask may be.
        surrogates: Names of the recognisers to attack, or "auto".
        judges: Names of the recognisers that evaluate the result, or "auto".
        seed: Seed of everything random.
        metadata: What happens to EXIF, XMP and thumbnails.
        selection: Which faces are protected.
        fallback: What covers a face of which, after every mask that the method knows, judges do not say that it is
            protected; or for which no mask can be made.
        others: What is done to faces that the selection leaves out.
        unlinkable: Whether photos of one person that one run protects are moved apart, so that fewer match each other,
            as far as the method can. A photo's mask then depends on those before it.
        references: Other photos of the person, against which the result is judged.
        fitted: What the method learned of people, files of `bauta fit`; each mask goes on its person's faces only.
        opens: Key or passphrase that the fitted files are sealed under.
        erasable: Key or passphrase under which what was there before travels in the file, so that its owner takes every
            mask and cover off again, whatever the method; see `bauta.cloaking.erasing`.
        key: File with the secret of a method that needs one.
        message: The text that a method hides in the face.
        like: Photos of faces that the method goes by.
        budget: Seconds that one face may take, or None for no limit.
        span: Of clips, first and last second of what is protected; None for all of it.
        every: Of clips, frames between two looks for faces; None for six looks a second.
        fmr: False match rate of the verdict, one of `FMRS`.
    """

    method: str = DEFAULT_CLOAK
    options: tuple[tuple[str, Any], ...] = ()
    strength: Strength = "medium"
    surrogates: tuple[str, ...] | Literal["auto"] = "auto"
    judges: tuple[str, ...] | Literal["auto"] = "auto"
    seed: int = 0
    metadata: MetadataPolicy = MetadataPolicy.PRIVATE
    selection: Selection = field(default_factory=Selection)
    fallback: Fallback = "none"
    others: Others = "leave"
    unlinkable: bool = False
    references: tuple[Path | Photo, ...] = ()
    fitted: tuple[Path, ...] = ()
    opens: DeploymentKey | None = None
    erasable: DeploymentKey | None = None
    key: Path | None = None
    message: str | None = None
    like: tuple[Path | Photo, ...] = ()
    budget: float | None = None
    span: tuple[float, float] | None = None
    every: int | None = None
    fmr: float = FMRS[0]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(sorted(dict(self.options).items())))
        if self.strength not in get_args(Strength):
            raise UsageError(f"There is no strength {self.strength!r}.", hint="Choose low, medium or high.")
        if self.fallback not in get_args(Fallback):
            raise UsageError(f"There is no fallback {self.fallback!r}.", hint="Choose none, blur or pixelate.")
        if self.others not in get_args(Others):
            raise UsageError(f"Others cannot be given {self.others!r}.", hint="Choose leave, blur or pixelate.")
        if self.others != "leave" and self.selection.faces:
            raise UsageError(
                "Faces that are named leave no others.", hint="Leave out --others, and say blur for each such face."
            )
        if self.others != "leave" and self.selection.keep:
            raise UsageError(
                "Faces that are to be kept as they are cannot be covered too.",
                hint="Leave out --others or --keep, or choose the faces to protect with --only.",
            )
        if self.erasable is not None and self.metadata is MetadataPolicy.STRIP:
            raise UsageError(
                "What is sealed travels in the file, and all that is in it is to be stripped.",
                hint="Leave out --erasable or --strip-metadata.",
            )
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise UsageError(
                f"A budget of {self.budget:g} seconds is not a time.",
                hint="Give a positive number, such as 10s.",
            )
        if self.span is not None and not 0 <= self.span[0] < self.span[1]:
            raise UsageError("What is to be protected ends before it begins.", hint="Give --from and a later --to.")
        if self.every is not None and self.every < 1:
            raise UsageError(f"Every {self.every} frames is not often.", hint="Give --every 1 or more.")
        if self.fmr not in FMRS:
            raise UsageError(
                f"Judges have no threshold at an FMR of {self.fmr:g}.",
                hint=f"Choose one of {', '.join(f'{fmr:g}' for fmr in FMRS)}.",
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"The seed {self.seed} is out of range.", hint="Give a number from 0 to 2**63 - 1.")
        for role in ("surrogates", "judges"):
            names: Sequence[str] | str = getattr(self, role)
            if names != "auto" and (isinstance(names, str) or len(set(names)) != len(names)):
                raise UsageError(
                    f"The {role} must be different names.",
                    hint="Run `bauta recognizers list` to see the names.",
                )
