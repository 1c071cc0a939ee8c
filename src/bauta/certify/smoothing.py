"""A recogniser that compares noisy copies of a face with an enrolled template, and certifies its answer.

The noise lies on the aligned ArcFace crop, 112x112 pixels of three values in [0, 1]; a recogniser that reads another
crop cuts it from there. So lengths and radii of all recognisers are in one unit. Values beyond 0 and 1 are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from bauta.certify.bounds import Certificate, Smoothing, decide
from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import retemplate
from bauta.progress import Steps, silent
from bauta.recognizers.surrogates import Surrogate

Embed = Callable[[Tensor], Tensor]
"""From crops (N, 3, 112, 112) to unit-norm embeddings (N, D)."""

VALUES = 3 * ARCFACE_112.height * ARCFACE_112.width


def embedder(surrogate: Surrogate) -> Embed:
    """A recogniser that reads ArcFace crops, whatever crop its card names."""
    return lambda crops: surrogate(retemplate(crops, surrogate.card.template))


class Smoothed:
    """A recogniser under noise.

    Args:
        embed: The recogniser; see `embedder`.
        settings: Of the noise and the confidence.
    """

    def __init__(self, embed: Embed, settings: Smoothing) -> None:
        self.embed, self.settings = embed, settings

    def enrol(self, face: Tensor, generator: torch.Generator) -> Tensor:
        """The reference's template, (1, D) of unit norm: of the face, or the mean of noisy copies of it.

        Once it is drawn the reference is fixed; certificates hold for it, whatever it is.

        Args:
            face: (1, 3, 112, 112) in [0, 1].
            generator: Of the noise; drawn from only where `enrolment` asks for it.
        """
        _check(face)
        with torch.no_grad():
            if not self.settings.enrolment:
                return self.embed(face)
            total = torch.zeros(1)
            for copies in self._copies(face, self.settings.enrolment, generator):
                total = total + self.embed(copies).sum(0, keepdim=True)
        return functional.normalize(total, dim=1)

    def accepted(
        self, face: Tensor, references: Tensor, limit: float, generator: torch.Generator, progress: Steps = silent
    ) -> list[int]:
        """Of `n` noisy copies of a face, how many are accepted as each reference.

        Args:
            face: (1, 3, 112, 112) in [0, 1].
            references: (R, D) templates. All are compared with the same copies: each answer has the confidence that
                was asked for by itself, and not all of them together.
            limit: Cosine from which on a copy is accepted.
            generator: Of the noise.
            progress: Called with copies done and copies in all.
        """
        _check(face)
        counts, done = torch.zeros(len(references), dtype=torch.int64), 0
        for copies in self._copies(face, self.settings.n, generator):
            with torch.no_grad():
                counts += (self.embed(copies) @ references.T >= limit).sum(0)
            done += len(copies)
            progress(done, self.settings.n)
        return [int(count) for count in counts]

    def certify(
        self, face: Tensor, references: Tensor, limit: float, generator: torch.Generator, progress: Steps = silent
    ) -> list[Certificate]:
        """An answer for each reference; see `accepted`."""
        counts = self.accepted(face, references, limit, generator, progress)
        return [decide(count, self.settings) for count in counts]

    def _copies(self, face: Tensor, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        for start in range(0, count, self.settings.batch):
            size = min(self.settings.batch, count - start)
            yield face + self.settings.sigma * torch.randn(size, *face.shape[1:], generator=generator)


def _check(face: Tensor) -> None:
    if tuple(face.shape) != (1, 3, ARCFACE_112.height, ARCFACE_112.width) or not bool(face.isfinite().all()):
        raise UsageError(
            f"A face of shape {tuple(face.shape)} cannot be certified.",
            hint="Give one aligned crop, finite, of shape (1, 3, 112, 112).",
        )
