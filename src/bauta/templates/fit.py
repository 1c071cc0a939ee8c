"""What protectors are fitted with, the same for every method, and what their parts say of where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bauta.errors import UsageError
from bauta.learning.decoders import SIDE
from bauta.learning.fitted import Provenance
from bauta.progress import Progress
from bauta.recognizers.surrogates import Surrogate


@dataclass(frozen=True, eq=False)
class FitWork:
    """What a protector is fitted with, beside the faces and its settings.

    Attributes:
        recognizer: The recogniser that it is for, which stays as it is.
        seed: Of everything random, 0 to 2^31 - 1.
        people: Name of the person on each face; empty when not known.
        licence: Terms of what is learned.
        data: What the faces are, one line.
        folder: Of checkpoints; without one nothing is kept, and nothing taken up again.
        progress: Called with a stage, steps done and steps in all.
        device: Where to learn, such as ``cuda``, for methods that can (`Protector.accelerated`); what is fitted is on
            the CPU all the same.

    Raises:
        UsageError: when the seed is out of range.
    """

    recognizer: Surrogate
    seed: int = 0
    people: tuple[str, ...] = ()
    licence: str = "not stated"
    data: str = ""
    folder: Path | None = None
    progress: Progress | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 31:
            raise UsageError(f"The seed {self.seed} is out of range.", hint="Give a number from 0 to 2**31 - 1.")

    def require_faces(self, images: Tensor) -> None:
        """Let a training set of the right form through, of more than one person where names are known.

        Raises:
            UsageError: when it is not (N, 3, 112, 112) of uint8, or of float32 in [0, 1], has fewer than two faces, or
                names do not go with it.
        """
        require_faces(images)
        if self.people and len(self.people) != len(images):
            raise UsageError(f"{len(images)} faces have {len(self.people)} names.", hint="Name the person of each.")
        if self.people and len(set(self.people)) < 2:
            raise UsageError("All faces are of one person.", hint="Give faces of many people to learn from.")

    def provenance(
        self, images: Tensor, *facts: tuple[str, str | int | float | bool], learned: int | None = None
    ) -> Provenance:
        """Of parts that were fitted on these faces.

        Args:
            images: All that were given.
            facts: How the fitting went.
            learned: How many of the faces were learned from; all by default.
        """
        return Provenance(
            data=f"{self.data or f'{len(images)} faces'}, SHA-256 {digest_of_pixels(images)[:16]}",
            licence=self.licence,
            seed=self.seed,
            training=(
                ("faces", len(images) if learned is None else learned),
                *([("people", len(set(self.people)))] if self.people else []),
                *facts,
            ),
        )


def as_images(pixels: Tensor) -> Tensor:
    """float32 in [0, 1], from uint8 or as they are."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def require_faces(pixels: Tensor) -> None:
    """Let a training set of the right form through.

    Raises:
        UsageError: when it is not (N, 3, 112, 112) of uint8, or of float32 in [0, 1], or has fewer than two faces.
    """
    if pixels.dim() != 4 or tuple(pixels.shape[1:]) != (3, SIDE, SIDE):
        raise UsageError(
            f"Faces to learn from have shape {list(pixels.shape)}.",
            hint="Give (N, 3, 112, 112), aligned to the ArcFace template.",
        )
    if len(pixels) < 2:
        raise UsageError(f"{len(pixels)} face is too few to learn from.", hint="Give faces of several people.")
    if pixels.dtype != torch.uint8 and not (
        pixels.dtype == torch.float32 and bool(((pixels >= 0) & (pixels <= 1)).all())
    ):
        raise UsageError(f"Faces are {pixels.dtype} or leave [0, 1].", hint="Give uint8, or float32 in [0, 1].")


def digest_of_pixels(pixels: Tensor) -> str:
    """SHA-256 of faces."""
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()


def plain_figures(figures: dict[str, float]) -> dict[str, Any]:
    """Figures of a training under names that a card may carry."""
    return {name.replace(" ", "_"): value for name, value in figures.items()}
