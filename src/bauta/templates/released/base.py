"""What protectors of differential privacy have in common: noise that nobody can draw again, and totals."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta import metrics
from bauta.privacy.exact import Words, system_words
from bauta.privacy.mechanisms import Mechanism, Spent
from bauta.rates import FMRS
from bauta.recognizers.surrogates import Surrogate
from bauta.settings import Settings
from bauta.templates.base import Protector
from bauta.templates.fit import FitWork, as_images
from bauta.templates.representation import Representation

WATCHED = 128  # faces from which thresholds are taken
FALSE_MATCHES = 5  # that must be among their scores for a threshold to mean something
_THRESHOLD = "threshold_at_fmr_"


def seeded_words(generator: torch.Generator) -> Words:
    """Words of an experiment that is to be repeated. They protect nobody: what a seed draws, it draws again."""

    def words(count: int) -> NDArray[np.uint64]:
        halves = torch.randint(0, 1 << 32, (count, 2), generator=generator)
        return halves.numpy().astype("<u4").view("<u8")[:, 0].astype(np.uint64)

    return words


class Released(Protector):
    """Stores what a mechanism releases of each face, and lets nothing else out.

    A face at the door is not stored, and is compared as it is: `probe`. Cosines are not those of the recogniser alone,
    so thresholds are the protector's own.

    Args:
        recognizer: The recogniser.
        mechanism: That releases.
    """

    def __init__(self, recognizer: Surrogate, mechanism: Mechanism, config: Settings, **provenance: Any) -> None:
        super().__init__(recognizer, **provenance)
        self.mechanism, self.config = mechanism, config

    @property
    def spent(self) -> Spent:
        """By each face that is stored; see `Protector.spent`."""
        return replace(self.mechanism.spent, mechanism=self.name)

    def protect(self, images: Tensor, generator: torch.Generator, key: bytes | None = None) -> Representation:
        """With the generator's noise, for experiments alone; see `Protector.protect`."""
        return self._protect(images, seeded_words(generator), key)

    def protect_anew(self, images: Tensor, key: bytes | None = None) -> Representation:
        """With the operating system's randomness; see `Protector.protect_anew`."""
        return self._protect(images, system_words, key)

    def _protect(self, images: Tensor, words: Words, key: bytes | None) -> Representation:
        self.require_images(images)
        self.require_key(key)
        return self.represent(self.release(images, words))

    @abstractmethod
    def release(self, images: Tensor, words: Words) -> Tensor:
        """(N, ...) float32, what is stored of the faces (N, 3, 112, 112) in [0, 1]."""

    @property
    def thresholds(self) -> dict[float, float]:
        """Measured at the fitting, one side with noise, where there were enough people; see `Protector.thresholds`."""
        facts = dict(self.provenance.training)
        found = {fmr: facts.get(f"{_THRESHOLD}{fmr:.0e}") for fmr in FMRS}
        return {fmr: float(limit) for fmr, limit in found.items() if limit is not None}

    def settings(self) -> dict[str, Any]:
        """Plain values."""
        return self.config.to_dict()

    def facts(self) -> tuple[tuple[str, str | float], ...]:
        """What the card of a fitted protector says of its budget."""
        spent = self.spent
        return ("epsilon_value", spent.value), ("epsilon_photo", spent.image), ("epsilon", spent.words())

    def calibrate(self, images: Tensor, work: FitWork) -> None:
        """Say where a protector that learned nothing comes from, with thresholds where people are named."""
        work.require_faces(images)
        limits = self.calibrated(images, work, list(range(len(images)))) if work.people else ()
        self.provenance = work.provenance(images, *self.facts(), *limits, learned=0)

    def calibrated(self, images: Tensor, work: FitWork, chosen: list[int]) -> tuple[tuple[str, float], ...]:
        """Thresholds on some of the faces, of people whom the protector did not learn from."""
        chosen = chosen[:WATCHED]
        people = np.array([work.people[place] for place in chosen])
        other = people[:, None] != people
        if not other.any():
            return ()
        faces, generator = as_images(images[chosen]), torch.Generator().manual_seed(work.seed)
        with torch.no_grad():
            scores = self.match_clean(self.protect(faces, generator), faces).numpy()[other]
        return tuple(
            (f"{_THRESHOLD}{fmr:.0e}", round(metrics.threshold_at_fmr(scores, fmr), 4))
            for fmr in FMRS
            if len(scores) * fmr >= FALSE_MATCHES
        )
